//! JSON and NDJSON of publishers: an event is accepted if and only if it has known fields,
//! each once and of its type. Its data is the string, or the same JSON without blanks. The
//! frame of each event is checked too.
//!
//! The input is the body, read as JSON and as NDJSON.

use std::fmt;

use pushwheel::Event;
use pushwheel_server::internals::message::{from_json, from_lines};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::frame::check_event;

pub fn check(input: &[u8]) {
    let Ok(body) = str::from_utf8(input) else {
        return;
    };
    let one = from_json(body);
    check_one(body, &one);
    check_lines(body);
    if let Ok(event) = one {
        check_event(&event, 1, input.len() / 2);
    }
}

fn check_one(body: &str, event: &Result<Event<'_>, String>) {
    if let Err(problem) = event {
        assert!(problem.starts_with("400 invalid_"), "{problem}");
    }
    match serde_json::from_str::<Fields>(body) {
        Ok(Fields(fields)) => match (wanted(&fields), event) {
            (Some(data), Ok(event)) => check_fields(&fields, data, event),
            (None, Err(_)) => {}
            (wanted, _) => panic!("{body:?}: {wanted:?}, but {event:?}"),
        },
        // What a `Value` cannot hold may be data nevertheless: 1e999, lone
        // surrogates, a hundred and more arrays in each other.
        Err(error) => assert!(event.is_err() || !error.is_data(), "{body:?}: {error}"),
    }
}

/// Returns the data of an event, if these fields are valid.
fn wanted(fields: &[(String, Value)]) -> Option<&Value> {
    let is_field = |(name, value): &(String, Value)| match &**name {
        "data" => true,
        "event" | "id" | "key" => value.is_string() || value.is_null(),
        "retry" => value.is_u64() || value.is_null(),
        _ => false,
    };
    let mut names: Vec<&String> = fields.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    let each_once = names.windows(2).all(|pair| pair[0] != pair[1]);
    let data = fields.iter().find(|(name, _)| name == "data");
    data.map(|(_, data)| data)
        .filter(|_| each_once && fields.iter().all(is_field))
}

fn check_fields(fields: &[(String, Value)], data: &Value, event: &Event<'_>) {
    let field = |wanted: &str| {
        let mut fields = fields.iter().filter(|(_, value)| !value.is_null());
        fields.find(|(name, _)| name == wanted).map(|(_, v)| v)
    };
    let text = |name: &str| field(name).and_then(Value::as_str);
    assert_eq!(event.name(), text("event").filter(|name| !name.is_empty()));
    assert_eq!(event.id(), text("id"));
    assert_eq!(event.key(), text("key").filter(|key| !key.is_empty()));
    let retry_ms = event.retry().map(|retry| retry.as_millis());
    let wanted_ms = field("retry").and_then(Value::as_u64);
    assert_eq!(retry_ms, wanted_ms.map(u128::from));
    match data {
        Value::String(text) => assert_eq!(event.data(), text),
        json => {
            assert_eq!(event.data(), unblanked(event.data()));
            assert_eq!(
                serde_json::from_str::<Value>(event.data()).ok().as_ref(),
                Some(json)
            );
        }
    }
}

/// Returns `json` without the blanks outside of its strings.
fn unblanked(json: &str) -> String {
    let (mut is_in_string, mut is_escaped) = (false, false);
    let is_kept = |&c: &char| {
        let is_blank = matches!(c, ' ' | '\t' | '\n' | '\r') && !is_in_string;
        if c == '"' && !is_escaped {
            is_in_string = !is_in_string;
        }
        is_escaped = is_in_string && c == '\\' && !is_escaped;
        !is_blank
    };
    json.chars().filter(is_kept).collect()
}

/// A batch has the events of its lines, or the error of the first wrong line.
fn check_lines(body: &str) {
    let batch = from_lines(body);
    let blank = [' ', '\t', '\r'];
    let mut events = Vec::new();
    for (index, line) in body.split('\n').enumerate() {
        let line = line.trim_matches(blank);
        match from_json(line) {
            _ if line.is_empty() => {}
            Ok(event) => events.push(event),
            Err(alone) => {
                let reported = batch.expect_err("a line is no event");
                let place = format!(": line {}", index + 1);
                assert!(reported.contains(&place), "{reported:?}, alone {alone:?}");
                // Values that share a line have an error of their own in a batch.
                let code = match reported.contains("--data-binary") {
                    true => Some("invalid_json:"),
                    false => alone.split(' ').nth(1),
                };
                assert_eq!(reported.split(' ').nth(1), code);
                return;
            }
        }
    }
    match batch {
        Ok(batch) => assert!(!events.is_empty() && batch == events),
        Err(problem) => assert!(
            events.is_empty() && problem.starts_with("400 batch_empty"),
            "{problem}"
        ),
    }
}

/// The fields of an object in their order, repeated ones included.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Fields, D::Error> {
        from.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Fields(fields))
    }
}
