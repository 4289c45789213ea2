//! Publishers that remember each answer, and the comparison of the answers with what
//! clients have received.
//!
//! An event that was answered 200 is in its channel's log, once, under the id of the
//! answer, and in its publisher's order. An event that was refused is not there. An event
//! without an answer may be there or not.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::common::sequence;

const FILLER_BYTES_MAX: usize = 1500;

/// The pause before an event with an own id is published again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// An event that a client has received.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Seen {
    pub(crate) id: String,
    pub(crate) data: String,
}

impl Seen {
    /// Returns the number that the server has given, if the event has no own id.
    pub(crate) fn number(&self) -> Option<u64> {
        let is_own = self.id.starts_with("own.");
        (!is_own).then(|| sequence(&self.id))
    }
}

/// What is known of one publisher's events, by their data.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Those that were answered 200, with the id of the answer, in their order.
    pub(crate) accepted: Vec<(String, String)>,
    /// Those without an answer that decides: they are published or not.
    pub(crate) doubtful: BTreeSet<String>,
    /// Those that were refused, with the code of the answer.
    pub(crate) refused: BTreeMap<String, String>,
}

impl Published {
    fn is_known(&self, data: &str) -> bool {
        self.doubtful.contains(data) || self.accepted.iter().any(|(accepted, _)| accepted == data)
    }
}

/// Compares a channel's log with the answers, and returns the accepted events that are not
/// in it.
#[track_caller]
pub(crate) fn compare<'a>(
    channel: &str,
    log: &[Seen],
    published: &[&'a Published],
) -> Vec<&'a str> {
    let numbers: Vec<u64> = log.iter().filter_map(Seen::number).collect();
    assert!(
        numbers.is_sorted_by(|a, b| a < b),
        "{channel}: ids do not rise"
    );
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, event) in log.iter().enumerate() {
        let first = places.insert(&event.data, at);
        assert!(first.is_none(), "{channel}: {event:?} came twice");
    }
    let mut missing = Vec::new();
    for publisher in published {
        let mut last = None;
        for (data, id) in &publisher.accepted {
            let Some(place) = places.get(&**data) else {
                missing.push(&**data);
                continue;
            };
            assert_eq!(
                log[*place].id, *id,
                "{channel}: {data} has another id than its answer"
            );
            assert!(last < Some(place), "{channel}: {data} is not in order");
            last = Some(place);
        }
        for (data, code) in &publisher.refused {
            assert!(
                !places.contains_key(&**data),
                "{channel}: {data} was refused with {code} and is published"
            );
        }
    }
    for event in log.iter().filter(|event| !is_mark(&event.data)) {
        let is_known = published.iter().any(|one| one.is_known(&event.data));
        assert!(is_known, "{channel}: {event:?} was never published");
    }
    missing
}

/// Returns whether the test has published this event itself, at the start or the end.
fn is_mark(data: &str) -> bool {
    !data.contains('.')
}

/// A publisher of one channel, on one connection at a time.
#[derive(Debug)]
pub(crate) struct Publisher {
    name: usize,
    channel: String,
    /// Whether it sets the ids of its events, and publishes an event again until it is
    /// answered 200.
    has_own_ids: bool,
    rng: Rng,
    connection: Option<TcpStream>,
    n: u64,
    published: Published,
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) enum Answer {
    Accepted(Value),
    /// Surely not published, with the code of the error.
    Refused(String),
    /// Published or not.
    Doubtful,
}

impl Publisher {
    pub(crate) fn new(name: usize, channel: String, has_own_ids: bool, rng: Rng) -> Publisher {
        Publisher {
            name,
            channel,
            has_own_ids,
            rng,
            connection: None,
            n: 0,
            published: Published::default(),
        }
    }

    /// Publishes one event, or three of them together. `connect` returns a new connection,
    /// or `None` to give up.
    pub(crate) fn publish(&mut self, mut connect: impl FnMut() -> Option<TcpStream>) {
        self.n += 1;
        let (name, n) = (self.name, self.n);
        let filler = "x".repeat(self.rng.usize(..FILLER_BYTES_MAX));
        let event = |part: usize| format!("{name}.{n}.{part} {filler}");
        let is_single = self.has_own_ids || self.rng.u8(..8) > 0;
        let count = if is_single { 1 } else { 3 };
        let events: Vec<String> = (0..count).map(event).collect();
        let own_id = self.has_own_ids.then(|| format!("own.{name}.{n}"));
        let batch = (count > 1).then_some(&*events);
        let shortened = events.iter().map(|event| short(event));
        loop {
            let stream = match &mut self.connection {
                Some(stream) => stream,
                none => match connect() {
                    Some(stream) => none.insert(stream),
                    None => return self.published.doubtful.extend(shortened),
                },
            };
            match post(stream, &self.channel, &events[0], own_id.as_deref(), batch) {
                Ok(Answer::Accepted(answer)) => {
                    let id = answer["id"].as_str().unwrap_or_else(|| panic!("{answer}"));
                    let ids = ids_of(id, count);
                    return self.published.accepted.extend(shortened.zip(ids));
                }
                // With its own id it may be published again.
                Ok(_) if self.has_own_ids => std::thread::park_timeout(AGAIN_AFTER),
                Ok(Answer::Refused(code)) => {
                    let refused = shortened.map(|data| (data, code.clone()));
                    return self.published.refused.extend(refused);
                }
                Ok(Answer::Doubtful) => return self.published.doubtful.extend(shortened),
                Err(_) => {
                    self.connection = None;
                    if !self.has_own_ids {
                        return self.published.doubtful.extend(shortened);
                    }
                }
            }
        }
    }

    /// Draws a number below this one.
    pub(crate) fn draw(&mut self, below: u64) -> u64 {
        self.rng.u64(..below)
    }

    pub(crate) fn into_published(self) -> Published {
        self.published
    }
}

/// Returns what tells an event from all others, and its length: what follows is filler, and
/// each of the clients keeps every event.
pub(crate) fn short(data: &str) -> String {
    let (name, filler) = data.split_once(' ').unwrap_or((data, ""));
    assert!(filler.bytes().all(|byte| byte == b'x'), "{data}");
    match filler.len() {
        0 => name.to_owned(),
        len => format!("{name} {len}"),
    }
}

/// Returns the ids of a batch that ends with an id.
fn ids_of(last: &str, count: usize) -> Vec<String> {
    if count == 1 {
        return vec![last.to_owned()];
    }
    let (epoch, number) = last.rsplit_once('-').unwrap();
    let number: usize = number.parse().unwrap();
    (1..=count)
        .map(|n| format!("{epoch}-{}", number - count + n))
        .collect()
}

/// Publishes, and returns the answer.
///
/// # Errors
/// If there is no whole answer.
pub(crate) fn post(
    stream: &mut TcpStream,
    channel: &str,
    event: &str,
    id: Option<&str>,
    batch: Option<&[String]>,
) -> std::io::Result<Answer> {
    let body = match batch {
        None => json!({"data": event, "id": id}).to_string(),
        Some(events) => {
            let lines = events
                .iter()
                .map(|event| json!({"data": event}).to_string() + "\n");
            lines.collect()
        }
    };
    let kind = if batch.is_some() { "x-ndjson" } else { "json" };
    let request = format!(
        "POST /channels/{channel} HTTP/1.1\r\nHost: localhost\r\nContent-Type: \
         application/{kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.parse::<usize>())
        });
        if body.len() < length.unwrap().unwrap() {
            continue;
        }
        return Ok(decided(head, body));
    }
}

/// Returns what a response decides.
fn decided(head: &str, body: &str) -> Answer {
    let status = head.split(' ').nth(1).unwrap();
    let body: Option<Value> = serde_json::from_str(body).ok();
    let code = body
        .as_ref()
        .and_then(|body| body["error"]["code"].as_str());
    match (status, code) {
        ("200", None) => Answer::Accepted(body.unwrap()),
        // A proxy's own answer: it may have passed the request on.
        (_, None) | ("504", _) => Answer::Doubtful,
        (_, Some(code)) => Answer::Refused(code.to_owned()),
    }
}
