//! What of a request's target may be written down.
//!
//! A query may carry a token or a ticket, under a name that is a setting. So it
//! is the other way round here: values are shown of the parameters that are
//! known to be harmless, and of nothing else. No secret can have one of their
//! names: the setting refuses them.

use std::borrow::Cow;

/// The parameters whose values may be shown.
const HARMLESS: [&str; 14] = [
    "by",
    "channel",
    "client",
    "empty",
    "event",
    "finish",
    "id",
    "last",
    "lastEventId",
    "last_event_id",
    "retry",
    "search",
    "top",
    "totals",
];

/// What stands in a log for a value that does not.
const HIDDEN: &str = "[hidden]";

/// Whether values of a parameter with this name are shown.
pub(super) fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&name) || name.starts_with("where.")
}

/// A request's target as it may be logged: of parameters that are not the
/// server's own, a token's among them, the values are hidden.
///
/// ```
/// use pushwheel::server::redact;
///
/// let target = "/events?channel=news&token=eyJh&last=10";
/// assert_eq!(redact(target), "/events?channel=news&token=[hidden]&last=10");
/// assert_eq!(redact("/channels/news"), "/channels/news");
/// ```
#[must_use]
pub fn redact(target: &str) -> Cow<'_, str> {
    // All that follows the first `?` or `#`: what comes before is the path.
    let Some(at) = target.find(['?', '#']) else {
        return Cow::Borrowed(target);
    };
    let (path, query) = target.split_at(at);
    let (mark, query) = query.split_at(1);
    let mut shown = String::with_capacity(target.len());
    shown += path;
    shown += mark;
    for (index, pair) in query.split('&').enumerate() {
        if index > 0 {
            shown.push('&');
        }
        show(pair, &mut shown);
    }
    Cow::Owned(shown)
}

/// Writes a parameter, without its value if that may be a secret. A name alone
/// may be one as well.
fn show(pair: &str, shown: &mut String) {
    let decoded = form_urlencoded::parse(pair.as_bytes()).next();
    if pair.is_empty() || decoded.is_some_and(|(name, _)| is_harmless(&name)) {
        *shown += pair;
        return;
    }
    if let Some((name, _)) = pair.split_once('=') {
        *shown += name;
        shown.push('=');
    }
    *shown += HIDDEN;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_values_are_shown() {
        for (target, shown) in [
            ("/stats", "/stats"),
            ("*", "*"),
            ("/a?", "/a?"),
            ("/a?channel=b&&last=1", "/a?channel=b&&last=1"),
            ("/stats?totals", "/stats?totals"),
            ("/a?where.role=admin", "/a?where.role=admin"),
            ("/a?token=eyJ.x.y", "/a?token=[hidden]"),
            ("/a?ticket=12&client=c", "/a?ticket=[hidden]&client=c"),
            ("/a?%74oken=s", "/a?%74oken=[hidden]"),
            ("/a?Token=s", "/a?Token=[hidden]"),
            ("/a?jwt=s=t", "/a?jwt=[hidden]"),
            ("/a?meta.mail=a@b", "/a?meta.mail=[hidden]"),
            ("/a?eyJ.x.y", "/a?[hidden]"),
            ("/a?finish", "/a?finish"),
            ("/a#token=s", "/a#token=[hidden]"),
            ("/a?b=1?token=s", "/a?b=[hidden]"),
            ("http://h/a?token=s", "http://h/a?token=[hidden]"),
        ] {
            assert_eq!(redact(target), shown);
        }
        // A `;` parts nothing: a secret behind one is a part of the value.
        assert_eq!(redact("/a?x=1;token=s"), "/a?x=[hidden]");
    }
}
