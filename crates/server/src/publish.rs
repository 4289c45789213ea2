//! Publishing with POST.
//!
//! A request says which clients the events are for (its path, `client`,
//! `where.FIELD`, `not.FIELD`) and what they are (its body, as its `Content-Type` says). Everything is
//! checked before anything is published.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::access_log;
use super::context::Live;
use super::errors::Problem;
use super::message;
use super::metadata::METADATA_VALUES_MAX;
use pushwheel::{
    Channel, ClientId, Condition, Event, EventId, PublishError, Published, Request, Response,
    Target,
};

/// `POST /channels/{channel}`
pub(super) fn to_one(request: &Request, live: &Live) -> Result<Response, Problem> {
    let wishes = Wishes::of(request, live)?;
    let events = Events::of(request, &wishes)?;
    events.check_retry(live, request)?;
    events.pass(live, request)?;
    let name = request.param("channel").unwrap_or_default();
    let publish = |channel: &Channel| channel.publish(events.as_slice(), wishes.target.clone());
    let channels = request.channels();
    let published = match publish(&channels.get_or_create(name)?) {
        // Removed by another thread just now: it comes to be anew.
        Err(PublishError::Closed) => publish(&channels.get_or_create(name)?)?,
        published => published?,
    };
    access_log::tell_published(live, request, Some(name), &published);
    // The number of clients of a target tells who is connected, and what their
    // metadata are. A token need not have the right to view either.
    let is_all = wishes.target == Target::All;
    let may_count = is_all || live.rules().access.may_publish_by_key(request);
    Ok(answer(&published, &events, may_count))
}

/// `POST /channels`
pub(super) fn to_all(request: &Request, live: &Live) -> Result<Response, Problem> {
    let wishes = Wishes::of(request, live)?;
    if wishes.target != Target::All {
        return Err(Problem::target_of_all());
    }
    let events = Events::of(request, &wishes)?;
    events.check_retry(live, request)?;
    events.pass(live, request)?;
    let published = request.channels().publish(events.as_slice(), Target::All)?;
    access_log::tell_published(live, request, None, &published);
    Ok(answer(&published, &events, true))
}

fn answer(published: &Published, events: &Events<'_>, may_count: bool) -> Response {
    Response::json(&Answer {
        id: &published.id,
        events: published.events,
        clients: may_count.then_some(published.clients),
        duplicate: published.events == 0 && published.duplicates > 0,
        duplicates: published.duplicates,
        warnings: warnings(events),
    })
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(serialize_with = "as_text")]
    id: &'a EventId,
    events: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    clients: Option<usize>,
    /// Whether nothing was appended, because all of it had been published.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
    #[serde(skip_serializing_if = "is_zero")]
    duplicates: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What was published as it was asked for, and does not work in every client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Warning {
    code: &'static str,
    message: &'static str,
}

impl Warning {
    const fn new(code: &'static str, message: &'static str) -> Warning {
        Warning { code, message }
    }
}

const NAME_AMBIGUOUS: Warning = Warning::new(
    "event_name_ambiguous",
    "a browser's EventSource fires events of its own named `open` and `error`. Choose \
              another name",
);

const ID_NOT_ASCII: Warning = Warning::new(
    "event_id_not_ascii",
    "not every client can send this id back in a header. Use letters, digits, `.`, `_` \
              and `-`",
);

/// Returns each warning that one of the events deserves, and logs them.
fn warnings(events: &Events<'_>) -> Vec<Warning> {
    let events = events.as_slice();
    let is_ambiguous = |event: &Event<'_>| matches!(event.name(), Some("open" | "error"));
    let has_odd_id = |event: &Event<'_>| event.id().is_some_and(|id| !id.is_ascii());
    let mut warnings = Vec::new();
    for (warning, is_deserved) in [
        (NAME_AMBIGUOUS, events.iter().any(is_ambiguous)),
        (ID_NOT_ASCII, events.iter().any(has_odd_id)),
    ] {
        if is_deserved {
            log::info!("a publish was answered with the warning {}", warning.code);
            warnings.push(warning);
        }
    }
    warnings
}

/// Writes a value as its text, straight into the output.
pub(super) fn as_text<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// The reconnection delays that a publisher with a token may choose.
const RETRY_OF_TOKENS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

/// What the query says.
struct Wishes<'a> {
    target: Target,
    event: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    retry: Option<Duration>,
    /// For conflation.
    key: Option<Cow<'a, str>>,
    /// Whether the event removes its key.
    removes: bool,
}

impl<'a> Wishes<'a> {
    fn of(request: &'a Request, live: &Live) -> Result<Self, Problem> {
        let rules = live.rules();
        let mut wishes = Wishes {
            target: Target::All,
            event: None,
            id: None,
            retry: None,
            key: None,
            removes: false,
        };
        for (name, value) in request.query_pairs() {
            match &*name {
                "client" => wishes.aim_at(&value)?,
                "event" => wishes.event = Some(value),
                "id" => wishes.id = Some(value),
                "retry" => wishes.retry = Some(retry(&value)?),
                other if rules.access.is_token_parameter(other) => {}
                "key" => wishes.key = Some(value),
                "remove" => wishes.removes = removes(&value)?,
                other => wishes.narrow(condition(other, &value)?)?,
            }
        }
        Ok(wishes)
    }

    fn aim_at(&mut self, id: &str) -> Result<(), Problem> {
        if self.target != Target::All {
            return Err(Problem::two_targets());
        }
        let id = ClientId::new(id).map_err(Problem::client_id)?;
        self.target = Target::Client(id);
        Ok(())
    }

    fn narrow(&mut self, condition: Condition) -> Result<(), Problem> {
        match &mut self.target {
            Target::All => self.target = Target::Where(vec![condition]),
            Target::Where(conditions) if conditions.len() == METADATA_VALUES_MAX => {
                return Err(Problem::too_many_conditions());
            }
            Target::Where(conditions) => conditions.push(condition),
            _ => return Err(Problem::two_targets()),
        }
        Ok(())
    }

    /// With a body of JSON, the event is all in there.
    fn leave_the_event_alone(&self) -> Result<(), Problem> {
        let misplaced = [
            ("event", self.event.is_some()),
            ("id", self.id.is_some()),
            ("retry", self.retry.is_some()),
            ("key", self.key.is_some()),
            ("remove", self.removes),
        ];
        match misplaced.iter().find(|(_, is_given)| *is_given) {
            Some((name, _)) => Err(Problem::misplaced_parameter(name)),
            None => Ok(()),
        }
    }
}

/// Reads `where.FIELD=VALUE` and `not.FIELD=VALUE`. A field whose name ends in an
/// operator is refused: `where.x!=1` has the field `x!`, and no client has that.
fn condition(name: &str, value: &str) -> Result<Condition, Problem> {
    let condition = match name.split_once('.') {
        Some(("where", field)) => Condition::new(field, value),
        Some(("not", field)) => Condition::not(field, value),
        _ => return Err(Problem::unknown_parameter(name)),
    };
    match condition.field().chars().last() {
        None => Err(Problem::unknown_parameter(name)),
        Some('!' | '<' | '>') => Err(Problem::operator(name)),
        Some(_) => Ok(condition),
    }
}

/// Reads a parameter that may stand without a value.
fn removes(text: &str) -> Result<bool, Problem> {
    match text {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Problem::parameter("remove", "true or false")),
    }
}

/// Returns the charset that a parameter of a media type names, unless it is UTF-8 or
/// a part of it. Others are not decoded: the bytes of most of them would pass for
/// other text.
fn foreign_charset(parameter: &str) -> Option<&str> {
    const UTF_8: [&str; 4] = ["utf-8", "utf8", "us-ascii", "ascii"];
    let (name, value) = parameter.split_once('=')?;
    let value = value.trim().trim_matches('"');
    let is_charset = name.trim().eq_ignore_ascii_case("charset");
    let is_utf_8 = UTF_8.iter().any(|known| known.eq_ignore_ascii_case(value));
    (is_charset && !is_utf_8).then_some(value)
}

fn retry(text: &str) -> Result<Duration, Problem> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let ms = text.parse().ok().filter(|_| is_number);
    let ms = ms.ok_or_else(|| Problem::parameter("retry", "a whole number of milliseconds"))?;
    Ok(Duration::from_millis(ms))
}

/// What is published.
enum Events<'a> {
    One(Event<'a>),
    Batch(Vec<Event<'a>>),
}

impl<'a> Events<'a> {
    fn of(request: &'a Request, wishes: &'a Wishes<'a>) -> Result<Self, Problem> {
        if let Some(encoding) = request.header("content-encoding")
            && !encoding.eq_ignore_ascii_case("identity")
        {
            return Err(Problem::encoded(encoding));
        }
        let content_type = request.header("content-type").unwrap_or_default();
        let mut parts = content_type.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        if let Some(charset) = parts.find_map(foreign_charset) {
            return Err(Problem::charset(charset));
        }
        let body = request.text()?;
        if media_type.eq_ignore_ascii_case("application/json") {
            wishes.leave_the_event_alone()?;
            return Ok(Events::One(message::from_json(body)?));
        }
        if media_type.eq_ignore_ascii_case("application/x-ndjson") {
            wishes.leave_the_event_alone()?;
            return Ok(Events::Batch(message::from_lines(body)?));
        }
        let mut event = match &wishes.key {
            Some(key) if wishes.removes && body.is_empty() => Event::removal(&**key),
            _ => Event::message(body),
        };
        if wishes.removes {
            event = event.removing();
        }
        if let Some(name) = &wishes.event {
            event = event.with_name(&**name);
        }
        if let Some(id) = &wishes.id {
            event = event.with_id(&**id);
        }
        if let Some(retry) = wishes.retry {
            event = event.with_retry(retry);
        }
        if let Some(key) = &wishes.key {
            event = event.with_key(&**key);
        }
        Ok(Events::One(event))
    }

    fn as_slice(&self) -> &[Event<'a>] {
        match self {
            Events::One(event) => std::slice::from_ref(event),
            Events::Batch(events) => events,
        }
    }

    /// Refuses a reconnection delay by which the holder of a token would keep
    /// clients away, or would have all of them return at once.
    fn check_retry(&self, live: &Live, request: &Request) -> Result<(), Problem> {
        let is_unfit = |event: &Event<'_>| {
            let retry = event.retry();
            retry.is_some_and(|retry| !RETRY_OF_TOKENS.contains(&retry))
        };
        let is_any_unfit = self.as_slice().iter().any(is_unfit);
        match is_any_unfit && !live.rules().access.may_publish_by_key(request) {
            true => Err(Problem::retry_of_token()),
            false => Ok(()),
        }
    }

    /// Lets them pass if their publisher's address may publish so many.
    fn pass(&self, live: &Live, request: &Request) -> Result<(), Problem> {
        let count = self.as_slice().len();
        let rate = live.rules().publish_rate_per_address;
        live.limiter
            .admit(rate, request.client_address().ip(), count)
            .map_err(|retry_after| PublishError::RateLimited { retry_after }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_has_no_operator_but_not() {
        assert_eq!(condition("where.x", "1"), Ok(Condition::new("x", "1")));
        assert_eq!(condition("not.x.y", "1"), Ok(Condition::not("x.y", "1")));
        for name in ["where.x!", "where.x<", "where.x>", "not.x!"] {
            let Err(Problem::Request {
                status, message, ..
            }) = condition(name, "1")
            else {
                panic!("{name} was accepted");
            };
            assert_eq!(status, 400);
            assert!(message.contains("`not."), "{message}");
        }
        for name in ["where.", "not.", "where", "x.y"] {
            assert!(condition(name, "1").is_err(), "{name}");
        }
    }

    #[test]
    fn what_does_not_work_in_every_client_is_warned_of() {
        let codes = |event: Event<'static>| {
            let warnings = warnings(&Events::Batch(vec![Event::message("x"), event]));
            warnings
                .iter()
                .map(|warning| warning.code)
                .collect::<Vec<_>>()
        };
        assert_eq!(codes(Event::new("error", "x")), ["event_name_ambiguous"]);
        assert_eq!(codes(Event::new("open", "x")), ["event_name_ambiguous"]);
        let odd = Event::message("x").with_id("caf\u{e9}");
        assert_eq!(codes(odd), ["event_id_not_ascii"]);
        let plain = Event::new("errors", "x").with_id("orders.17");
        assert!(codes(plain).is_empty());
    }

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

    #[test]
    fn a_retry_is_a_whole_number_of_milliseconds() {
        assert_eq!(retry("1500"), Ok(Duration::from_millis(1500)));
        for bad in ["", "soon", "1.5", "-1", "+1", "99999999999999999999"] {
            assert!(retry(bad).is_err(), "{bad}");
        }
    }
}
