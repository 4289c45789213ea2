//! Hides secrets in texts that are logged.
//!
//! A query may contain a token or a ticket, and the name of that parameter is a setting.
//! So a log shows the values of known harmless parameters and no others. The setting
//! rejects the names of these parameters.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The parameters whose values are shown.
const HARMLESS: [&str; 19] = [
    "by",
    "channel",
    "channel_names",
    "client",
    "count",
    "empty",
    "event",
    "finish",
    "id",
    "last",
    "lastEventId",
    "last_event_id",
    "raw",
    "retry",
    "search",
    "stream",
    "top",
    "totals",
    "wait",
];

/// The text instead of a hidden value.
const HIDDEN: &str = "[hidden]";

/// Maximum bytes of a client's text in one field of a log line.
pub(crate) const LOGGED_BYTES_MAX: usize = 1 << 10;
/// The end of a text that was cut.
const CUT: &str = "...";

/// Whether values of a parameter with this name are shown.
pub(crate) fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&name) || name.starts_with("where.") || name.starts_with("not.")
}

/// Returns the target of a request for a log. It hides the values of parameters that are
/// not the server's own, such as tokens, also in the path, after a `&` that should be a `?`
/// or after a percent-encoded `?`. It also hides every text that has the form of a JSON Web
/// Token.
///
/// ```
/// use pushwheel_server::redact;
///
/// let target = "/events?channel=news&token=eyJh&last=10";
/// assert_eq!(redact(target), "/events?channel=news&token=[hidden]&last=10");
/// assert_eq!(redact("/channels/news&token=eyJh"), "/channels/news&token=[hidden]");
/// assert_eq!(redact("/channels/news"), "/channels/news");
/// ```
#[must_use]
pub fn redact(target: &str) -> Cow<'_, str> {
    // The path ends at the first `?` or `#`.
    let Some(at) = target.find(['?', '#']) else {
        return redact_text(target);
    };
    let (path, query) = target.split_at(at);
    let (mark, query) = query.split_at(1);
    let mut shown = String::with_capacity(target.len());
    shown += &redact_text(path);
    shown += mark;
    for (index, pair) in query.split('&').enumerate() {
        if index > 0 {
            shown.push('&');
        }
        show(pair, &mut shown);
    }
    Cow::Owned(shown)
}

/// Returns a redacted target of at most [`LOGGED_BYTES_MAX`] bytes and a mark. The cost is
/// bounded for targets of any length.
pub(crate) fn logged_target(target: &str) -> Cow<'_, str> {
    cut(target, redact)
}

/// Returns a redacted text without parameters, as long as a target.
pub(crate) fn logged_text(text: &str) -> Cow<'_, str> {
    cut(text, redact_text)
}

/// Cuts a text before it is redacted, and again after that, because hiding a value may
/// make the text longer.
fn cut<'a>(text: &'a str, redact: impl Fn(&'a str) -> Cow<'a, str>) -> Cow<'a, str> {
    if text.len() <= LOGGED_BYTES_MAX {
        let shown = redact(text);
        return match shown.len() <= LOGGED_BYTES_MAX {
            true => shown,
            false => Cow::Owned(first_bytes(&shown).to_owned() + CUT),
        };
    }
    let shown = redact(without_torn_token(first_bytes(text)));
    Cow::Owned(first_bytes(&shown).to_owned() + CUT)
}

fn first_bytes(text: &str) -> &str {
    let mut ends = (0..=LOGGED_BYTES_MAX.min(text.len())).rev();
    let end = ends.find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Removes the beginning of a token at the end of a text. The cut may have removed the
/// dots by which [`hide_tokens`] recognises a token.
fn without_torn_token(text: &str) -> &str {
    let run_at = text.trim_end_matches(is_in_token).len();
    match text[run_at..].find(OBJECT) {
        Some(at) => &text[..run_at + at],
        None => text,
    }
}

/// Writes a parameter, without its value if that may be a secret. A name without a value
/// may be a secret too.
fn show(pair: &str, shown: &mut String) {
    let decoded = form_urlencoded::parse(pair.as_bytes()).next();
    if pair.is_empty() || decoded.is_some_and(|(name, _)| is_harmless(&name)) {
        *shown += &redact_text(pair);
        return;
    }
    if let Some((name, _)) = pair.split_once('=') {
        *shown += &redact_text(name);
        shown.push('=');
    }
    *shown += HIDDEN;
}

/// Redacts a text that should have no parameters, such as a path or a channel's name. Its
/// rest is hidden from the first parameter on that may be a secret.
pub(crate) fn redact_text(text: &str) -> Cow<'_, str> {
    match misplaced_value(text) {
        Some(at) => Cow::Owned(hide_tokens(&text[..at]).into_owned() + HIDDEN),
        None => hide_tokens(text),
    }
}

/// Returns where the value of the first parameter begins that may be a secret.
fn misplaced_value(text: &str) -> Option<usize> {
    let (mut at, mut name_at) = (0, None);
    while at < text.len() {
        let (byte, width) = decoded(&text.as_bytes()[at..]);
        match byte {
            b'?' | b'#' | b'&' | b';' => name_at = Some(at + width),
            b'=' => {
                let name = name_at.take().map(|from| &text[from..at]);
                let name = name.map(|name| percent_decode_str(name).decode_utf8_lossy());
                if name.is_some_and(|name| !is_harmless(&name)) {
                    return Some(at + width);
                }
            }
            _ => {}
        }
        at += width;
    }
    None
}

/// Returns the first byte, percent-decoded, and its length in the text.
fn decoded(bytes: &[u8]) -> (u8, usize) {
    let digit = |index: usize| {
        let digit = bytes.get(index).copied().map(char::from)?.to_digit(16)?;
        u8::try_from(digit).ok()
    };
    match (bytes[0], digit(1), digit(2)) {
        (b'%', Some(high), Some(low)) => (high << 4 | low, 3),
        (byte, ..) => (byte, 1),
    }
}

/// Hides texts that have the form of a token: at least three parts of base64url, the first
/// of which is a JSON object.
fn hide_tokens(text: &str) -> Cow<'_, str> {
    if !text.contains(OBJECT) {
        return Cow::Borrowed(text);
    }
    let (mut shown, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find(OBJECT) {
        let end = rest[at..].find(|c: char| !is_in_token(c));
        let (before, others) = rest.split_at(end.map_or(rest.len(), |length| at + length));
        let (before, candidate) = before.split_at(at);
        let is_token = candidate.matches('.').count() >= 2;
        shown += before;
        shown += if is_token { HIDDEN } else { candidate };
        rest = others;
    }
    Cow::Owned(shown + rest)
}

/// The beginning of a JSON object in base64url, and so of a token.
const OBJECT: &str = "eyJ";

fn is_in_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_shows_no_part_of_a_secret() {
        let long = "a".repeat(LOGGED_BYTES_MAX);
        assert_eq!(logged_text(&long), long);
        for more in ["b", "bc", "é"] {
            assert_eq!(logged_text(&format!("{long}{more}")), format!("{long}..."));
        }
        // The cut is between characters.
        let shown = logged_text(&"é".repeat(600)).into_owned();
        assert!(
            shown.len() <= LOGGED_BYTES_MAX + 3 && shown.ends_with("é..."),
            "{shown}"
        );
        // A token that the cut leaves with too few dots.
        let path = format!("/{}", "/".repeat(LOGGED_BYTES_MAX - 20));
        let target = format!("{path}x-eyJhbGciOi.eyJzZWNyZXQiOi.c2ln");
        assert_eq!(logged_target(&target), format!("{path}x-..."));
        // A value is hidden although its end is cut off.
        let target = format!("{path}?token=s3cret{long}");
        let shown = format!("{path}?token=[hidden]");
        assert_eq!(logged_target(&target), first_bytes(&shown).to_owned() + CUT);
        // A text that hiding makes longer is cut again.
        let target = format!("/?{}", "s&".repeat(500));
        let shown = logged_target(&target).into_owned();
        assert_eq!(shown.len(), LOGGED_BYTES_MAX + CUT.len());
        assert!(!shown.contains('s'), "{shown}");
    }

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
            ("/a?channel=b;token=s", "/a?channel=b;token=[hidden]"),
            ("/a?last=1?token=s&top=2", "/a?last=1?token=[hidden]&top=2"),
            (
                "/a?channel=b%26token%3Ds",
                "/a?channel=b%26token%3D[hidden]",
            ),
        ] {
            assert_eq!(redact(target), shown);
        }
        // A `;` separates nothing: a secret after it is part of the value.
        assert_eq!(redact("/a?x=1;token=s"), "/a?x=[hidden]");
    }

    #[test]
    fn a_parameter_in_a_path_is_hidden_with_all_behind_it() {
        for (target, shown) in [
            ("/channels/rock&roll;x", "/channels/rock&roll;x"),
            ("/channels/a=b", "/channels/a=b"),
            ("/channels/100%", "/channels/100%"),
            ("/channels/%C3%BC&last=1", "/channels/%C3%BC&last=1"),
            ("/a&token=s", "/a&token=[hidden]"),
            ("/a;ticket=s/clients", "/a;ticket=[hidden]"),
            ("/a&last=1&jwt=s;t&u", "/a&last=1&jwt=[hidden]"),
            ("/a%3Ftoken=s", "/a%3Ftoken=[hidden]"),
            ("/a%3ftoken%3ds", "/a%3ftoken%3d[hidden]"),
            ("/a%26%74oken%3Ds", "/a%26%74oken%3D[hidden]"),
            ("/a%3Btoken=s?last=1", "/a%3Btoken=[hidden]?last=1"),
            ("/a%23token=s", "/a%23token=[hidden]"),
            ("/ü&tökén=s", "/ü&tökén=[hidden]"),
        ] {
            assert_eq!(redact(target), shown);
            assert_eq!(redact(shown), shown, "it is hidden already");
        }
    }

    #[test]
    fn what_has_the_form_of_a_token_is_hidden_wherever_it_is() {
        for (target, shown) in [
            ("/channels/eyJh.eyJz.s-_1", "/channels/[hidden]"),
            ("/a/xeyJh.e.s/eyJ.x", "/a/x[hidden]/eyJ.x"),
            ("/a/eyJh.e.s.t.u,eyJ.b.c", "/a/[hidden],[hidden]"),
            ("/a?channel=eyJh.e.s&last=1", "/a?channel=[hidden]&last=1"),
            ("/a?client=eyJh.e.s;x", "/a?client=[hidden];x"),
            ("/a?eyJh.e.s=1", "/a?[hidden]=[hidden]"),
            ("/a&eyJh.e.s=1", "/a&[hidden]=[hidden]"),
            ("/eyJeyJ/news.eyJ", "/eyJeyJ/news.eyJ"),
        ] {
            assert_eq!(redact(target), shown);
            assert_eq!(redact(shown), shown, "it is hidden already");
        }
    }
}
