//! Requests, and streams with the arrival times of their bytes.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Request, Response, Version};
use ureq::{Agent, Body};

use super::answer;
use super::http;
use super::stream::{Event, Reader};

/// The maximum pieces of a stream in the queue.
const PIECES_MAX: usize = 1024;

/// Counts from the start of the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
}

#[allow(
    clippy::disallowed_methods,
    reason = "the edge: all times are from here"
)]
impl Clock {
    pub(super) fn start() -> Clock {
        Clock {
            started: Instant::now(),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Sends requests to one URL.
#[derive(Clone, Debug)]
pub(super) struct Requester {
    pub(super) agent: Agent,
    pub(super) clock: Clock,
    pub(super) url: String,
    /// The headers of every request.
    pub(super) headers: Vec<(String, String)>,
}

/// A response whose body is not read yet.
pub(super) struct Seen {
    pub(super) response: Response<Body>,
    /// The time until its head arrived.
    pub(super) took: Duration,
}

impl Seen {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    pub(super) fn is_stream(&self) -> bool {
        answer::is_stream(self.status(), self.headers())
    }

    /// Returns the beginning of a response that is not a stream: what arrives within the
    /// time for a first byte.
    pub(super) fn beginning(self, clock: Clock) -> Vec<u8> {
        let body = self.response.into_body().into_reader();
        let mut beginning = Vec::new();
        let Ok(pieces) = read_beside(body.take(answer::BODY_BYTES_MAX), clock) else {
            return beginning;
        };
        let until = clock.now() + FIRST_BYTE_MAX;
        while let left = until.saturating_sub(clock.now())
            && let Ok(Piece::Bytes { bytes, .. }) = pieces.recv_timeout(left)
        {
            beginning.extend(bytes);
        }
        beginning
    }
}

impl Requester {
    /// Sends the request of a browser that opens a stream, with additional headers.
    pub(super) fn get(&self, headers: &[(&str, &str)]) -> Result<Seen, ureq::Error> {
        self.ask("GET", Version::HTTP_11, headers)
    }

    pub(super) fn ask(
        &self,
        method: &str,
        version: Version,
        headers: &[(&str, &str)],
    ) -> Result<Seen, ureq::Error> {
        let mut request = Request::builder()
            .method(method)
            .version(version)
            .uri(&self.url)
            .header("Accept", http::STREAM_TYPE)
            .header("Cache-Control", http::STREAM_CACHING);
        let own = self.headers.iter().map(|(name, value)| (&**name, &**value));
        for (name, value) in own.chain(headers.iter().copied()) {
            request = request.header(name, value);
        }
        let asked = self.clock.now();
        let response = self.agent.run(request.body(())?)?;
        let took = self.clock.now().saturating_sub(asked);
        Ok(Seen { response, took })
    }

    /// Opens a stream, and waits for its first byte: after it, the stream delivers what is
    /// published.
    pub(super) fn open(&self, headers: &[(&str, &str)]) -> Result<StreamReader, String> {
        let seen = self
            .get(headers)
            .map_err(|error| format!("cannot open the stream {}", http::reason(&error)))?;
        if seen.status() != 200 {
            return Err(format!(
                "the server returned {} instead of a stream",
                seen.status()
            ));
        }
        let mut reader = StreamReader::new(seen, self.clock)?;
        reader.await_first_byte();
        Ok(reader)
    }
}

/// The maximum wait for the first byte of a stream.
pub(super) const FIRST_BYTE_MAX: Duration = Duration::from_secs(3);

/// A part of a stream.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Bytes { at: Duration, bytes: Vec<u8> },
    End { at: Duration, why: String },
}

/// An event and its arrival time.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub(super) at: Duration,
    pub(super) event: Event,
}

/// The result of a read from a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Bytes, and the number of events that they complete.
    Bytes {
        at: Duration,
        events: usize,
    },
    End {
        at: Duration,
        why: String,
    },
    /// Nothing within the time.
    Nothing,
}

/// A stream that a thread of its own reads, which ends with it.
#[derive(Debug)]
pub(super) struct StreamReader {
    pieces: Receiver<Piece>,
    parser: Reader,
    clock: Clock,
    pub(super) first_byte_at: Option<Duration>,
    events: VecDeque<Arrived>,
    ended: Option<(Duration, String)>,
}

impl StreamReader {
    /// Reads the body of a response.
    pub(super) fn new(seen: Seen, clock: Clock) -> Result<StreamReader, String> {
        let body = seen.response.into_body().into_reader();
        let pieces =
            read_beside(body, clock).map_err(|error| format!("cannot start a thread ({error})"))?;
        Ok(StreamReader {
            pieces,
            parser: Reader::default(),
            clock,
            first_byte_at: None,
            events: VecDeque::new(),
            ended: None,
        })
    }

    pub(super) fn await_first_byte(&mut self) {
        let until = self.clock.now() + FIRST_BYTE_MAX;
        while self.first_byte_at.is_none()
            && !matches!(self.next_part(until), Part::Nothing | Part::End { .. })
        {}
    }

    /// Returns the next part of the stream, and waits for it at most until then.
    pub(super) fn next_part(&mut self, until: Duration) -> Part {
        if let Some((at, why)) = self.ended.clone() {
            return Part::End { at, why };
        }
        let left = until.saturating_sub(self.clock.now());
        let (at, why) = match self.pieces.recv_timeout(left) {
            Ok(Piece::Bytes { at, bytes }) => {
                self.first_byte_at.get_or_insert(at);
                let before = self.events.len();
                let events = &mut self.events;
                let pushed = self
                    .parser
                    .push(&bytes, |event| events.push_back(Arrived { at, event }));
                if pushed.is_ok() {
                    let events = self.events.len() - before;
                    return Part::Bytes { at, events };
                }
                (at, "an event is larger than 64 MiB".to_owned())
            }
            Ok(Piece::End { at, why }) => (at, why),
            Err(RecvTimeoutError::Timeout) => return Part::Nothing,
            Err(RecvTimeoutError::Disconnected) => (self.clock.now(), "the reader ended".into()),
        };
        self.ended = Some((at, why.clone()));
        Part::End { at, why }
    }

    /// Returns the next event that `is_wanted`, if it arrives `until` then. Passes earlier
    /// events to `other`.
    pub(super) fn find(
        &mut self,
        until: Duration,
        is_wanted: impl Fn(&Event) -> bool,
        mut other: impl FnMut(Arrived),
    ) -> Option<Arrived> {
        loop {
            while let Some(arrived) = self.events.pop_front() {
                if is_wanted(&arrived.event) {
                    return Some(arrived);
                }
                other(arrived);
            }
            let is_over = self.clock.now() > until + FIRST_BYTE_MAX;
            if is_over || matches!(self.next_part(until), Part::Nothing | Part::End { .. }) {
                return None;
            }
        }
    }

    /// Returns the events that arrived and were not returned yet.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Arrived> {
        self.events.drain(..)
    }

    /// Returns the events that have arrived, and that arrive `until` then.
    pub(super) fn gather(&mut self, until: Duration) -> Vec<Arrived> {
        // Bounded, because a busy stream never pauses.
        let mut late = 0;
        while late < PIECES_MAX && matches!(self.next_part(until), Part::Bytes { .. }) {
            late += usize::from(self.clock.now() > until);
        }
        self.events.drain(..).collect()
    }
}

/// Reads on a thread of its own, so that the caller can stop waiting.
fn read_beside(body: impl Read + Send + 'static, clock: Clock) -> io::Result<Receiver<Piece>> {
    let (sender, pieces) = sync_channel(PIECES_MAX);
    thread::Builder::new()
        .name("pushwheel-reader".into())
        .spawn(move || read(body, clock, &sender))?;
    Ok(pieces)
}

/// Reads to the end, or until the receiver is dropped.
fn read(mut body: impl Read, clock: Clock, pieces: &SyncSender<Piece>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let result = body.read(&mut buffer);
        let at = clock.now();
        let piece = match result {
            Ok(0) => Piece::End {
                at,
                why: "closed".into(),
            },
            Ok(count) => Piece::Bytes {
                at,
                bytes: buffer[..count].to_vec(),
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Piece::End {
                at,
                why: format!("broken, {error}"),
            },
        };
        let is_end = matches!(piece, Piece::End { .. });
        if pieces.send(piece).is_err() || is_end {
            return;
        }
    }
}
