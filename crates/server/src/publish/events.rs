//! The events in the body of a publish.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::parameters::Parameters;
use crate::access::Access;
use crate::context::{Context, CurrentConfig};
use crate::errors::Problem;
use crate::message;
use pushwheel::{Channel, Event, PublishError, Request};

/// The reconnection delays that a publisher with a token may choose.
const RETRY_OF_TOKENS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

const TYPE_OF_FORMS: &str = "application/x-www-form-urlencoded";

/// The events of a request.
pub(super) struct Events<'a> {
    all: All<'a>,
    /// The idempotency key in a body of JSON.
    pub(super) idempotency_key: Option<Cow<'a, str>>,
}

enum All<'a> {
    One(Event<'a>),
    /// A text without a media type, or with that of forms, which `curl -d` sends.
    Untyped(Event<'a>),
    Batch(Vec<Event<'a>>),
    /// A channel is finished without an event.
    None,
}

impl<'a> From<All<'a>> for Events<'a> {
    fn from(all: All<'a>) -> Events<'a> {
        Events {
            all,
            idempotency_key: None,
        }
    }
}

impl<'a> Events<'a> {
    /// Reads the events, and checks what their publisher may set and how many may come.
    pub(super) fn checked(
        request: &'a Request,
        context: &Context,
        config: &CurrentConfig,
        parameters: &'a Parameters<'a>,
    ) -> Result<Self, Problem> {
        let is_raw = parameters
            .is_raw
            .unwrap_or_else(|| match &*parameters.channels {
                [] => config.is_raw(request.param("channel").unwrap_or_default()),
                several => several.iter().all(|channel| config.is_raw(channel)),
            });
        let events = Events::of(request, parameters, is_raw)?;
        check_retry(events.as_slice(), &config.access, request)?;
        let entries = events.as_slice().len() * parameters.channels.len().max(1);
        check_rate(entries, context, config, request)?;
        Ok(events)
    }

    fn of(
        request: &'a Request,
        parameters: &'a Parameters<'a>,
        is_raw: bool,
    ) -> Result<Self, Problem> {
        let media_type = check_charset(request)?;
        let body = request.text()?;
        if media_type.eq_ignore_ascii_case("application/json") && !is_raw {
            parameters.check_without_event()?;
            let message::JsonEvent {
                event,
                idempotency_key,
            } = message::from_json(body)?;
            return Ok(Events {
                all: All::One(event),
                idempotency_key,
            });
        }
        if media_type.eq_ignore_ascii_case("application/x-ndjson") && !is_raw {
            parameters.check_without_event()?;
            return Ok(All::Batch(message::from_lines(body)?).into());
        }
        if parameters.finishes && body.is_empty() && parameters.check_without_event().is_ok() {
            return Ok(All::None.into());
        }
        let mut event = match &parameters.key {
            Some(key) if parameters.removes && body.is_empty() => Event::removal(&**key),
            _ => Event::message(body),
        };
        if parameters.removes {
            event = event.removing();
        }
        if let Some(name) = &parameters.event {
            event = event.with_name(&**name);
        }
        if let Some(id) = &parameters.id {
            event = event.with_id(&**id);
        }
        if let Some(retry) = parameters.retry {
            event = event.with_retry(retry);
        }
        if let Some(key) = &parameters.key {
            event = event.with_key(&**key);
        }
        let is_untyped = media_type.is_empty() || media_type.eq_ignore_ascii_case(TYPE_OF_FORMS);
        let all = match is_untyped && !is_raw {
            true => All::Untyped(event),
            false => All::One(event),
        };
        Ok(all.into())
    }

    pub(super) fn as_slice(&self) -> &[Event<'a>] {
        match &self.all {
            All::One(event) | All::Untyped(event) => std::slice::from_ref(event),
            All::Batch(events) => events,
            All::None => &[],
        }
    }

    /// Returns whether they are JSON that was sent as text.
    pub(super) fn are_json_as_text(&self) -> bool {
        matches!(&self.all, All::Untyped(event) if message::is_events(event.data()))
    }
}

/// Refuses a key that has no effect: the publisher expects that it replaces an event.
pub(super) fn check_keys(events: &[Event<'_>], channel: &Channel) -> Result<(), Problem> {
    let has_key = events.iter().any(|event| event.key().is_some());
    match has_key && !channel.conflates() && !channel.is_closed() {
        true => Err(Problem::key_without_effect(channel.name())),
        false => Ok(()),
    }
}

/// Refuses a reconnection delay with which the holder of a token could keep clients
/// away, or let all of them return at once.
pub(super) fn check_retry(
    events: &[Event<'_>],
    access: &Access,
    request: &Request,
) -> Result<(), Problem> {
    let is_unfit = |event: &Event<'_>| {
        let retry = event.retry();
        retry.is_some_and(|retry| !RETRY_OF_TOKENS.contains(&retry))
    };
    match events.iter().any(is_unfit) && !access.may_publish_by_key(request) {
        true => Err(Problem::retry_of_token()),
        false => Ok(()),
    }
}

/// Counts events for the rate of the publisher's address.
pub(super) fn check_rate(
    events: usize,
    context: &Context,
    config: &CurrentConfig,
    request: &Request,
) -> Result<(), Problem> {
    let rate = config.publish_rate_per_address;
    context
        .publish_limiter
        .admit(rate, request.client_address().ip(), events)
        .map_err(|retry_after| PublishError::RateLimited { retry_after }.into())
}

/// Returns the media type of a body, which has to be UTF-8 without an encoding.
pub(super) fn check_charset(request: &Request) -> Result<&str, Problem> {
    if let Some(encoding) = request.header("content-encoding")
        && !encoding.eq_ignore_ascii_case("identity")
    {
        return Err(Problem::encoded(encoding));
    }
    let content_type = request.header("content-type").unwrap_or_default();
    let mut parts = content_type.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    match parts.find_map(foreign_charset) {
        Some(charset) => Err(Problem::charset(charset)),
        None => Ok(media_type),
    }
}

/// Returns the charset in a parameter of a media type, unless it is UTF-8 or a subset of
/// it. The bytes of most other charsets would be accepted, as another text.
fn foreign_charset(parameter: &str) -> Option<&str> {
    const UTF_8: [&str; 4] = ["utf-8", "utf8", "us-ascii", "ascii"];
    let (name, value) = parameter.split_once('=')?;
    let value = value.trim().trim_matches('"');
    let is_charset = name.trim().eq_ignore_ascii_case("charset");
    let is_utf_8 = UTF_8.iter().any(|known| known.eq_ignore_ascii_case(value));
    (is_charset && !is_utf_8).then_some(value)
}

#[cfg(test)]
impl Events<'static> {
    /// Returns a batch.
    pub(super) fn batch(events: Vec<Event<'static>>) -> Events<'static> {
        All::Batch(events).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charset_other_than_utf_8_is_found() {
        for parameter in [
            "charset=utf-8",
            "Charset=\"UTF8\"",
            "charset=us-ascii",
            "a=b",
            "",
        ] {
            assert_eq!(foreign_charset(parameter), None, "{parameter}");
        }
        for parameter in ["charset=latin1", "CHARSET = \"latin1\""] {
            assert_eq!(foreign_charset(parameter), Some("latin1"), "{parameter}");
        }
    }
}
