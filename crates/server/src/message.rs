//! Reads events from JSON. Pure.
//!
//! `data` is any JSON. A string becomes its text, any other value the publisher's JSON
//! without blanks. It is never parsed into values, so numbers keep their digits and objects
//! their order.

use std::borrow::Cow;
use std::time::Duration;

use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::errors::Problem;
use pushwheel::Event;

/// The end of every error message.
const EXAMPLE: &str =
    r#"send an object like {"event": "news", "data": "hello"}, or any body as it is with ?raw"#;

/// Blanks around the JSON of a line (RFC 8259 section 2).
const BLANKS: [char; 3] = [' ', '\t', '\r'];

/// The fields of an event. `null` counts as absent, except in `data`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message<'a> {
    #[serde(borrow)]
    event: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    retry: Option<u64>,
    /// For conflation. Clients do not receive it.
    #[serde(borrow)]
    key: Option<Text<'a>>,
    /// Whether the event removes its key.
    remove: Option<bool>,
    #[serde(borrow)]
    idempotency_key: Option<Text<'a>>,
}

/// An event, and the key with which its publish may be repeated.
#[derive(Debug)]
pub(super) struct JsonEvent<'a> {
    pub(super) event: Event<'a>,
    pub(super) idempotency_key: Option<Cow<'a, str>>,
}

/// Reads a value that is present, even if it is `null`.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(from).map(Some)
}

/// A string that is borrowed from the body unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads the event in a body of `application/json`.
pub(super) fn from_json(json: &str) -> Result<JsonEvent<'_>, Problem> {
    parse(json).map_err(|fault| match has_several(json) {
        true => Problem::several_events(),
        false => fault.in_body(),
    })
}

/// Reads the events in a body of `application/x-ndjson`, one per line. Empty lines count
/// for line numbers only.
pub(super) fn from_lines(lines: &str) -> Result<Vec<Event<'_>>, Problem> {
    let mut events = Vec::new();
    let mut begin = 0;
    let ends = memchr::memchr_iter(b'\n', lines.as_bytes()).chain([lines.len()]);
    for (index, end) in ends.enumerate() {
        let line = lines[begin..end].trim_matches(BLANKS);
        begin = end + 1;
        if !line.is_empty() {
            let JsonEvent {
                event,
                idempotency_key,
            } = from_line(line, index + 1)?;
            if idempotency_key.is_some() {
                return Err(Problem::idempotency_key_of_line(index + 1));
            }
            events.push(event);
        }
    }
    match events.is_empty() {
        true => Err(Problem::empty_batch()),
        false => Ok(events),
    }
}

/// Reads the event in a line, which has a number.
pub(super) fn from_line(line: &str, number: usize) -> Result<JsonEvent<'_>, Problem> {
    parse(line).map_err(|fault| match has_several(line) {
        true => Problem::joined_lines(number),
        false => fault.in_line(number),
    })
}

/// Whether a text has more than one JSON value.
fn has_several(text: &str) -> bool {
    let values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    values.take(2).filter(Result::is_ok).count() == 2
}

/// Whether a text that was sent as another type is one event or several, also without the
/// line ends between them, which `curl -d` removes.
pub(super) fn is_events(text: &str) -> bool {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    text.trim_ascii_start().starts_with('{')
        && values.all(|value| value.is_ok_and(|event| parse(event.get()).is_ok()))
}

fn parse(json: &str) -> Result<JsonEvent<'_>, Fault> {
    // serde reads an array as the fields in their order.
    if json.trim_ascii_start().starts_with('[') {
        return Err(Fault::Array);
    }
    let message: Message<'_> = serde_json::from_str(json)?;
    let removes = message.remove == Some(true);
    let mut event = match (message.data, &message.key) {
        (Some(json), _) => Event::message(data(json)?),
        (None, Some(Text(key))) if removes => Event::removal(key.clone()),
        (None, _) => return Err(serde_json::Error::missing_field("data").into()),
    };
    if removes {
        event = event.removing();
    }
    if let Some(Text(name)) = message.event {
        event = event.with_name(name);
    }
    if let Some(Text(id)) = message.id {
        event = event.with_id(id);
    }
    if let Some(ms) = message.retry {
        event = event.with_retry(Duration::from_millis(ms));
    }
    if let Some(Text(key)) = message.key {
        event = event.with_key(key);
    }
    Ok(JsonEvent {
        event,
        idempotency_key: message.idempotency_key.map(|Text(key)| key),
    })
}

fn data(raw: &RawValue) -> Result<Cow<'_, str>, serde_json::Error> {
    let json = raw.get();
    if json.starts_with('"') {
        let Text(text) = serde_json::from_str(json)?;
        return Ok(text);
    }
    Ok(compact(json))
}

/// Returns the JSON without blanks between its tokens.
fn compact(json: &str) -> Cow<'_, str> {
    let bytes = json.as_bytes();
    let mut kept = String::new();
    let (mut at, mut kept_to) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b' ' | b'\t' | b'\n' | b'\r' => {
                kept.push_str(&json[kept_to..at]);
                at += 1;
                kept_to = at;
            }
            _ => at += 1,
        }
    }
    if kept_to == 0 {
        return Cow::Borrowed(json);
    }
    kept.push_str(&json[kept_to..]);
    Cow::Owned(kept)
}

/// Returns the index after the string that begins at `quote`.
fn string_end(json: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while let Some(next) = json
        .get(at..)
        .and_then(|rest| memchr::memchr2(b'"', b'\\', rest))
    {
        at += next;
        if json[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    json.len()
}

/// The reason why a text is not an event.
enum Fault {
    Json(serde_json::Error),
    Array,
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Fault::Json(error)
    }
}

impl Fault {
    fn in_body(self) -> Problem {
        let place =
            |error: &serde_json::Error| format!("line {}, column {}", error.line(), error.column());
        self.at("the body", place)
    }

    fn in_line(self, line: usize) -> Problem {
        let place =
            |error: &serde_json::Error| format!("line {line}, column {}", error.column().max(1));
        self.at(&format!("line {line}"), place)
    }

    fn at(self, whole: &str, place: impl Fn(&serde_json::Error) -> String) -> Problem {
        let error = match self {
            Fault::Json(error) => error,
            Fault::Array => {
                return Problem::event(format!("{whole} is a JSON array, not an event: {EXAMPLE}"));
            }
        };
        let text = error.to_string();
        // Its own place counts from the start of the line.
        let what = text.rfind(" at line ").map_or(&*text, |end| &text[..end]);
        let message = match error.line() {
            0 => format!("{whole}: {what}: {EXAMPLE}"),
            _ => format!("{}: {what}: {EXAMPLE}", place(&error)),
        };
        match error.is_data() {
            true => Problem::event(message),
            false => Problem::json(message),
        }
    }
}

/// The parsers for the fuzz targets. Errors are texts, `STATUS CODE: MESSAGE`.
#[cfg(feature = "internals")]
#[allow(unreachable_pub, reason = "lib.rs passes them on")]
pub mod internals {
    use super::{Event, Problem};

    /// Reads the event in a body of JSON.
    ///
    /// # Errors
    ///
    /// If it is not an event.
    pub fn from_json(json: &str) -> Result<Event<'_>, String> {
        let read = super::from_json(json).map_err(text)?;
        Ok(read.event)
    }

    /// Reads the events in a body of NDJSON.
    ///
    /// # Errors
    ///
    /// If a line is not an event, or there is no event.
    pub fn from_lines(lines: &str) -> Result<Vec<Event<'_>>, String> {
        super::from_lines(lines).map_err(text)
    }

    fn text(problem: Problem) -> String {
        match problem {
            Problem::Request {
                status,
                code,
                message,
            } => format!("{status} {code}: {message}"),
            other => format!("{other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message_of(problem: Problem) -> (&'static str, String) {
        match problem {
            Problem::Request { code, message, .. } => (code, message),
            other => panic!("{other:?}"),
        }
    }

    fn event_of(json: &str) -> Event<'_> {
        from_json(json).unwrap().event
    }

    fn refusal(json: &str) -> (&'static str, String) {
        message_of(from_json(json).unwrap_err())
    }

    #[test]
    fn an_event_has_the_fields_that_were_given() {
        let json = r#"{"event": "n", "data": "d", "id": "i", "retry": 7, "key": "k"}"#;
        let event = event_of(json);
        let wanted = Event::new("n", "d")
            .with_id("i")
            .with_retry(Duration::from_millis(7))
            .with_key("k");
        assert_eq!(event, wanted);
        let removing = r#"{"event": "n", "data": "d", "key": "k", "remove": true}"#;
        let wanted = Event::new("n", "d").with_key("k").removing();
        assert_eq!(event_of(removing), wanted);
        let removing = r#"{"key": "k", "remove": true}"#;
        assert_eq!(event_of(removing), Event::removal("k"));
        let removing = r#"{"event": "n", "key": "k", "remove": true}"#;
        assert_eq!(event_of(removing), Event::removal("k").with_name("n"));
        let nulls = r#"{"event": null, "data": "d", "id": null, "retry": null, "key": null, "remove": null, "idempotency_key": null}"#;
        assert_eq!(event_of(nulls), Event::message("d"));
    }

    #[test]
    fn data_is_the_string_or_the_json_as_it_was_written() {
        for (json, data) in [
            (r#""a \"b\"\n\u00e9""#, "a \"b\"\né"),
            (r#""""#, ""),
            ("null", "null"),
            (" [ 1 , 2.50 , 1e400 ] ", "[1,2.50,1e400]"),
            (
                "{ \"z\" : 1 ,\r\n\t\"a b\" : \"x  \\\" y\" }",
                r#"{"z":1,"a b":"x  \" y"}"#,
            ),
            (r#"{"b":"\\","a":" "}"#, r#"{"b":"\\","a":" "}"#),
            (
                "123456789012345678901234567890",
                "123456789012345678901234567890",
            ),
        ] {
            let body = format!(r#"{{"data":{json}}}"#);
            assert_eq!(event_of(&body).data(), data, "{json}");
        }
    }

    #[test]
    fn what_is_no_event_is_refused_with_what_to_do() {
        for (json, code, part) in [
            (r#"{"data": "#, "invalid_json", "EOF"),
            ("", "invalid_json", "line 1, column 0"),
            ("{\"data\": 1}x", "invalid_json", "trailing characters"),
            (r#"["n", "d"]"#, "invalid_event", "array"),
            ("7", "invalid_event", "integer"),
            (r#"{"event": "x"}"#, "invalid_event", "missing field `data`"),
            (
                r#"{"key": "k", "remove": false}"#,
                "invalid_event",
                "missing field `data`",
            ),
            (
                r#"{"remove": true}"#,
                "invalid_event",
                "missing field `data`",
            ),
            (
                r#"{"data": 1, "Event": "x"}"#,
                "invalid_event",
                "unknown field `Event`, expected one of `event`, `data`, `id`, `retry`, `key`, `remove`, `idempotency_key`",
            ),
            (
                r#"{"data": 1, "data": 2}"#,
                "invalid_event",
                "duplicate field `data`",
            ),
            (r#"{"data": 1, "id": 7}"#, "invalid_event", "string"),
            (r#"{"data": 1, "retry": 1.5}"#, "invalid_event", "1.5"),
            (r#"{"data": 1, "retry": -1}"#, "invalid_event", "-1"),
            (r#"{"data": "\ud800"}"#, "invalid_json", "hex escape"),
        ] {
            let (found, message) = refusal(json);
            assert_eq!(found, code, "{json}: {message}");
            assert!(message.contains(part), "{json}: {message}");
            assert!(message.ends_with(EXAMPLE), "{json}: {message}");
        }
    }

    #[test]
    fn lines_are_events_and_empty_ones_are_none() {
        let lines = "{\"data\": 1}\r\n\n  {\"data\": \"2\"}\n";
        let events = from_lines(lines).unwrap();
        assert_eq!(events, [Event::message("1"), Event::message("2")]);
        assert_eq!(from_lines("{\"data\":1}").unwrap().len(), 1);
    }

    #[test]
    fn a_bad_line_is_named() {
        let (code, message) = message_of(from_lines("{\"data\": 1}\n\nnot json\n").unwrap_err());
        assert_eq!(code, "invalid_json");
        assert!(message.starts_with("line 3, column 2: "), "{message}");
        let (code, message) = message_of(from_lines("{\"data\": 1}\n[]").unwrap_err());
        assert_eq!(code, "invalid_event");
        assert!(message.starts_with("line 2 is"), "{message}");
        // A form feed is not a blank in JSON, alone in its line or not.
        for line in ["\x0c", "\x0c{\"data\": 1}"] {
            let (code, _) = message_of(from_lines(line).unwrap_err());
            assert_eq!(code, "invalid_json");
        }
        for nothing in ["", "\n", " \r\n\n"] {
            assert_eq!(from_lines(nothing), Err(Problem::empty_batch()));
        }
    }

    #[test]
    fn deep_nesting_is_no_danger() {
        let deep = format!(
            r#"{{"data":{}{}}}"#,
            "[".repeat(400_000),
            "]".repeat(400_000)
        );
        assert_eq!(event_of(&deep).data().len(), 800_000);
    }
}
