//! Publishing with POST.
//!
//! The path and the parameters `client`, `where.FIELD` and `not.FIELD` select the recipients.
//! The body contains the events, in the format of its `Content-Type`. Everything is checked
//! before anything is published.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::access::Access;
use super::access_log;
use super::conditions;
use super::context::{Context, CurrentConfig};
use super::errors::Problem;
use super::message;
use super::parameters;
use pushwheel::{
    Channel, ClientId, Condition, Event, EventId, PublishError, Published, Request, Responder,
    Response, Target,
};

/// `POST /channels/{channel}`
pub(super) fn to_one(request: &Request, context: &Context) -> Result<Response, Problem> {
    if context.has_journal {
        return Ok(later(request, context, to_one_later));
    }
    let config = &*context.config();
    let parameters = Parameters::of(request, &config.access)?;
    let events = Events::checked(request, context, config, &parameters)?;
    let name = request.param("channel").unwrap_or_default();
    let publish = |channel: &Channel| channel.publish(events.as_slice(), parameters.target.clone());
    let channels = request.channels();
    let channel = channels.get_or_create(name)?;
    events.check_keys(&channel)?;
    let published = match publish(&channel) {
        // Another thread has just removed the channel: create it again.
        Err(PublishError::Closed) => publish(&channels.get_or_create(name)?)?,
        published => published?,
    };
    let reply = Reply::new(request, config, Some(name), &parameters, &events);
    Ok(reply.answer(&published))
}

/// `POST /channels`
pub(super) fn to_all(request: &Request, context: &Context) -> Result<Response, Problem> {
    if context.has_journal {
        return Ok(later(request, context, to_all_later));
    }
    let config = &*context.config();
    let parameters = Parameters::of_all(request, &config.access)?;
    let events = Events::checked(request, context, config, &parameters)?;
    let published = request.channels().publish(events.as_slice(), Target::All)?;
    let reply = Reply::new(request, config, None, &parameters, &events);
    Ok(reply.answer(&published))
}

/// Publishes, and takes the responder to respond when the journal has decided.
type Later = fn(&Request, &Context, &mut Option<Responder>) -> Result<(), Problem>;

fn later(request: &Request, context: &Context, publish: Later) -> Response {
    let (request, context) = (request.clone(), context.clone());
    Response::deferred(move |responder| {
        let mut responder = Some(responder);
        let published = publish(&request, &context, &mut responder);
        if let (Err(problem), Some(responder)) = (published, responder) {
            responder.respond(problem);
        }
    })
}

fn to_one_later(
    request: &Request,
    context: &Context,
    responder: &mut Option<Responder>,
) -> Result<(), Problem> {
    let config = &*context.config();
    let parameters = Parameters::of(request, &config.access)?;
    let events = Events::checked(request, context, config, &parameters)?;
    let name = request.param("channel").unwrap_or_default();
    let channels = request.channels();
    let channel = channels.get_or_create(name)?;
    events.check_keys(&channel)?;
    let reply = Reply::new(request, config, Some(name), &parameters, &events);
    let Some(responder) = responder.take() else {
        return Ok(());
    };
    let waiting = Arc::new(Mutex::new(Some((reply, responder))));
    let respond = |waiting: &Mutex<Option<(Reply, Responder)>>, published: Result<_, Problem>| {
        let taken = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((reply, responder)) = taken {
            responder.respond(published.map(|published| reply.answer(&published)));
        }
    };
    // Returns whether the channel was closed, which is known before the call returns.
    let publish = |channel: &Channel, is_last: bool| {
        let is_closed = Arc::new(AtomicBool::new(false));
        let (waiting, closed) = (waiting.clone(), is_closed.clone());
        let then = move |published| match published {
            Err(PublishError::Closed) if !is_last => closed.store(true, Relaxed),
            published => respond(&waiting, published.map_err(Problem::from)),
        };
        channel.publish_then(events.as_slice(), parameters.target.clone(), then);
        is_closed.load(Relaxed)
    };
    if publish(&channel, false) {
        // Another thread has just removed the channel: create it again.
        match channels.get_or_create(name) {
            Ok(channel) => _ = publish(&channel, true),
            Err(error) => respond(&waiting, Err(error.into())),
        }
    }
    Ok(())
}

fn to_all_later(
    request: &Request,
    context: &Context,
    responder: &mut Option<Responder>,
) -> Result<(), Problem> {
    let config = &*context.config();
    let parameters = Parameters::of_all(request, &config.access)?;
    let events = Events::checked(request, context, config, &parameters)?;
    let reply = Reply::new(request, config, None, &parameters, &events);
    if let Some(responder) = responder.take() {
        let then = reply.respond_with(responder);
        let channels = request.channels();
        channels.publish_then(events.as_slice(), Target::All, then);
    }
    Ok(())
}

/// What the answer to a publish has besides its result.
struct Reply {
    /// The channel and the publisher's address, if the event log is on.
    logged: Option<(Option<String>, SocketAddr)>,
    may_count: bool,
    warnings: Vec<Warning>,
}

impl Reply {
    fn new(
        request: &Request,
        config: &CurrentConfig,
        channel: Option<&str>,
        parameters: &Parameters<'_>,
        events: &Events<'_>,
    ) -> Reply {
        let logged = || (channel.map(str::to_owned), request.client_address());
        // The number of recipients reveals which clients are connected and their metadata. A
        // token may not have the right to view either.
        let is_all = parameters.target == Target::All;
        Reply {
            logged: config.event_log.then(logged),
            may_count: is_all || config.access.may_publish_by_key(request),
            warnings: warnings(events),
        }
    }

    fn answer(self, published: &Published) -> Response {
        if let Some((channel, address)) = &self.logged {
            access_log::log_publish(*address, channel.as_deref(), published);
        }
        Response::json(&Answer {
            id: published.id.as_ref(),
            events: published.events,
            clients: self.may_count.then_some(published.clients),
            duplicate: published.events == 0 && published.duplicates > 0,
            duplicates: published.duplicates,
            warnings: self.warnings,
        })
    }

    fn respond_with(
        self,
        responder: Responder,
    ) -> impl FnOnce(Result<Published, PublishError>) + Send + 'static {
        move |published| {
            let response = published.map(|published| self.answer(&published));
            responder.respond(response);
        }
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a EventId>,
    events: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    clients: Option<usize>,
    /// Whether nothing was appended, because all events had been published before.
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

/// A warning in the response to a publish, which was done.
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

const JSON_AS_TEXT: Warning = Warning::new(
    "json_as_text",
    "the body is an event in JSON and was published as text. Send it with `Content-Type: \
     application/json`, a batch with `application/x-ndjson` (with curl also --data-binary, \
     because -d removes line ends), or text with `text/plain`",
);

/// Returns the warnings for the events, each once, and logs them.
fn warnings(events: &Events<'_>) -> Vec<Warning> {
    let is_json_as_text =
        matches!(events, Events::Untyped(event) if message::is_events(event.data()));
    let events = events.as_slice();
    let is_ambiguous = |event: &Event<'_>| matches!(event.name(), Some("open" | "error"));
    let has_odd_id = |event: &Event<'_>| event.id().is_some_and(|id| !id.is_ascii());
    let mut warnings = Vec::new();
    for (warning, applies) in [
        (NAME_AMBIGUOUS, events.iter().any(is_ambiguous)),
        (ID_NOT_ASCII, events.iter().any(has_odd_id)),
        (JSON_AS_TEXT, is_json_as_text),
    ] {
        if applies {
            log::info!("a publish was answered with the warning {}", warning.code);
            warnings.push(warning);
        }
    }
    warnings
}

/// The reconnection delays that a publisher with a token may choose.
const RETRY_OF_TOKENS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

/// The parameters of the query.
struct Parameters<'a> {
    target: Target,
    event: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    retry: Option<Duration>,
    /// For conflation.
    key: Option<Cow<'a, str>>,
    /// Whether the event removes its key.
    removes: bool,
}

impl<'a> Parameters<'a> {
    fn of(request: &'a Request, access: &Access) -> Result<Self, Problem> {
        let mut parameters = Parameters {
            target: Target::All,
            event: None,
            id: None,
            retry: None,
            key: None,
            removes: false,
        };
        for (name, value) in request.query_pairs() {
            match &*name {
                "client" => parameters.aim_at(&value)?,
                "event" => parameters.event = Some(value),
                "id" => parameters.id = Some(value),
                "retry" => parameters.retry = Some(retry(&value)?),
                other if access.is_token_parameter(other) => {}
                "key" => parameters.key = Some(value),
                "remove" => parameters.removes = parameters::boolean(&name, &value)?,
                other => match conditions::condition(other, &value)? {
                    Some(condition) => parameters.narrow(condition)?,
                    None => return Err(Problem::unknown_parameter(other)),
                },
            }
        }
        Ok(parameters)
    }

    /// Reads those of a publish to all channels, which has no other target.
    fn of_all(request: &'a Request, access: &Access) -> Result<Self, Problem> {
        let parameters = Parameters::of(request, access)?;
        match parameters.target == Target::All {
            true => Ok(parameters),
            false => Err(Problem::target_of_all()),
        }
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
            Target::Where(conditions) => conditions::add(conditions, condition)?,
            _ => return Err(Problem::two_targets()),
        }
        Ok(())
    }

    /// Checks that no parameter sets a field of the event, which a body of JSON contains.
    fn check_without_event(&self) -> Result<(), Problem> {
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

fn retry(text: &str) -> Result<Duration, Problem> {
    let ms = parameters::whole(text);
    let ms = ms.ok_or_else(|| Problem::parameter("retry", "a whole number of milliseconds"))?;
    Ok(Duration::from_millis(ms))
}

const TYPE_OF_FORMS: &str = "application/x-www-form-urlencoded";

/// The events of a request.
enum Events<'a> {
    One(Event<'a>),
    /// A text without a media type, or with that of forms, which `curl -d` sends.
    Untyped(Event<'a>),
    Batch(Vec<Event<'a>>),
}

impl<'a> Events<'a> {
    /// Reads the events, and checks what their publisher may set and how many may come.
    fn checked(
        request: &'a Request,
        context: &Context,
        config: &CurrentConfig,
        parameters: &'a Parameters<'a>,
    ) -> Result<Self, Problem> {
        let events = Events::of(request, parameters)?;
        events.check_retry(&config.access, request)?;
        events.check_rate(context, config, request)?;
        Ok(events)
    }

    fn of(request: &'a Request, parameters: &'a Parameters<'a>) -> Result<Self, Problem> {
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
            parameters.check_without_event()?;
            return Ok(Events::One(message::from_json(body)?));
        }
        if media_type.eq_ignore_ascii_case("application/x-ndjson") {
            parameters.check_without_event()?;
            return Ok(Events::Batch(message::from_lines(body)?));
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
        Ok(match is_untyped {
            true => Events::Untyped(event),
            false => Events::One(event),
        })
    }

    fn as_slice(&self) -> &[Event<'a>] {
        match self {
            Events::One(event) | Events::Untyped(event) => std::slice::from_ref(event),
            Events::Batch(events) => events,
        }
    }

    /// Refuses a key that has no effect: the publisher expects that it replaces an event.
    fn check_keys(&self, channel: &Channel) -> Result<(), Problem> {
        let has_key = self.as_slice().iter().any(|event| event.key().is_some());
        match has_key && !channel.conflates() && !channel.is_closed() {
            true => Err(Problem::key_without_effect(channel.name())),
            false => Ok(()),
        }
    }

    /// Refuses a reconnection delay with which the holder of a token could keep clients
    /// away, or let all of them return at once.
    fn check_retry(&self, access: &Access, request: &Request) -> Result<(), Problem> {
        let is_unfit = |event: &Event<'_>| {
            let retry = event.retry();
            retry.is_some_and(|retry| !RETRY_OF_TOKENS.contains(&retry))
        };
        let is_any_unfit = self.as_slice().iter().any(is_unfit);
        match is_any_unfit && !access.may_publish_by_key(request) {
            true => Err(Problem::retry_of_token()),
            false => Ok(()),
        }
    }

    /// Counts the events for the rate of the publisher's address.
    fn check_rate(
        &self,
        context: &Context,
        config: &CurrentConfig,
        request: &Request,
    ) -> Result<(), Problem> {
        let count = self.as_slice().len();
        let rate = config.publish_rate_per_address;
        context
            .publish_limiter
            .admit(rate, request.client_address().ip(), count)
            .map_err(|retry_after| PublishError::RateLimited { retry_after }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
