//! Whatever an event holds, a browser sees exactly that event: never another
//! field, never a second one. Run with `cargo +nightly fuzz run frame`.

#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pushwheel::Event;
use pushwheel::internals::frame::Frame;

#[path = "../../tests/common/sse.rs"]
mod sse;

use sse::{Dispatched, Parser};

const ID_PREFIX: &str = "e-";

#[derive(Debug, Arbitrary)]
struct Fields<'a> {
    name: Option<&'a str>,
    data: &'a str,
    id: Option<&'a str>,
    retry_ms: Option<u32>,
    sequence: u64,
    split_at: u16,
}

fuzz_target!(|fields: Fields<'_>| {
    let mut event = Event::message(fields.data);
    if let Some(name) = fields.name {
        event = event.with_name(name);
    }
    if let Some(id) = fields.id {
        event = event.with_id(id);
    }
    if let Some(retry_ms) = fields.retry_ms {
        event = event.with_retry(Duration::from_millis(retry_ms.into()));
    }
    // Refused whole is fine: then nothing is on the wire.
    let Ok(mut frame) = Frame::encode(&event, ID_PREFIX) else {
        return;
    };
    frame.stamp(ID_PREFIX, fields.sequence);

    let name = fields.name.filter(|name| !name.is_empty());
    let id = match fields.id {
        Some(id) => id.to_owned(),
        None => format!("{ID_PREFIX}{}", fields.sequence),
    };
    let seen = Dispatched {
        name: name.unwrap_or("message").to_owned(),
        data: fields.data.replace("\r\n", "\n").replace('\r', "\n"),
        last_event_id: id,
    };
    let before = dispatched("before", "");
    let after = dispatched("after", &seen.last_event_id);

    // Between two others, so that what leaks out of it is seen there; in two
    // pieces, so that a browser may read it in two.
    let stream = [b"data: before\n\n", frame.as_bytes(), b"data: after\n\n"].concat();
    let (first, second) = stream.split_at(usize::from(fields.split_at) % (stream.len() + 1));
    let mut parser = Parser::new();
    let mut events = parser.push(first);
    events.extend(parser.push(second));
    assert_eq!(events, [before, seen, after]);
    assert_eq!(parser.retry(), fields.retry_ms.map(u64::from));
    assert_eq!(parser.comments(), 0);
});

fn dispatched(data: &str, last_event_id: &str) -> Dispatched {
    Dispatched {
        name: "message".to_owned(),
        data: data.to_owned(),
        last_event_id: last_event_id.to_owned(),
    }
}
