//! A browser receives exactly the published event, whatever bytes it contains: no other
//! field and no second event.
//!
//! The input is the flags (1 a name, 2 an id, 4 a delay), the sequence number in eight
//! bytes, the place of the split, a value for each flag, and then the data.

use std::time::Duration;

use pushwheel::Event;
use pushwheel::internals::frame::Frame;

use super::input::Input;

#[path = "../../tests/common/sse.rs"]
pub mod sse;

use sse::{Dispatched, Parser};

const ID_PREFIX: &str = "e-";

pub fn check(input: &[u8]) {
    let mut input = Input(input);
    let flags = input.byte();
    let sequence = input.number();
    let split_at = usize::from(input.byte()) << 8 | usize::from(input.byte());
    let mut name = None;
    if flags & 1 != 0 {
        name = input.text();
    }
    let mut id = None;
    if flags & 2 != 0 {
        id = input.text();
    }
    let retry_ms = (flags & 4 != 0).then(|| input.number() >> (input.byte() % 64));
    let Ok(data) = str::from_utf8(input.0) else {
        return;
    };
    let mut event = Event::message(data);
    if let Some(name) = name {
        event = event.with_name(name);
    }
    if let Some(id) = id {
        event = event.with_id(id);
    }
    if let Some(ms) = retry_ms {
        event = event.with_retry(Duration::from_millis(ms));
    }
    check_event(&event, sequence, split_at);
}

/// Checks that the parser reads `event` from its frame, split at `split_at`.
pub fn check_event(event: &Event<'_>, sequence: u64, split_at: usize) {
    // An event may be rejected: then nothing is on the wire.
    let Ok(mut frame) = Frame::encode(event, ID_PREFIX) else {
        return;
    };
    frame.stamp(ID_PREFIX, sequence);

    let id = match event.id() {
        Some(id) => id.to_owned(),
        None => format!("{ID_PREFIX}{sequence}"),
    };
    let seen = Dispatched {
        name: event.name().unwrap_or("message").to_owned(),
        data: event.data().replace("\r\n", "\n").replace('\r', "\n"),
        last_event_id: id,
    };
    let before = dispatched("before", "");
    let after = dispatched("after", &seen.last_event_id);

    // Between two others, so that a leak shows there, and read in two pieces.
    let stream = [b"data: before\n\n", frame.as_bytes(), b"data: after\n\n"].concat();
    let (first, second) = stream.split_at(split_at % (stream.len() + 1));
    let mut parser = Parser::new();
    let mut events = parser.push(first);
    events.extend(parser.push(second));
    assert_eq!(events, [before, seen, after]);
    let retry_ms = event.retry().map(|retry| retry.as_millis());
    assert_eq!(parser.retry().map(u128::from), retry_ms);
    assert_eq!(parser.comments(), 0);
}

fn dispatched(data: &str, last_event_id: &str) -> Dispatched {
    Dispatched {
        name: "message".to_owned(),
        data: data.to_owned(),
        last_event_id: last_event_id.to_owned(),
    }
}
