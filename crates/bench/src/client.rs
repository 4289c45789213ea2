//! A subscriber that reads its stream and checks it.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::io::{ErrorKind, Read};

use hashbrown::DefaultHashBuilder;
use mio::net::TcpStream;

use super::{Result, fault};
use pushwheel_check::http;

/// The published events, the newest with their data.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    newest: u64,
    /// The data of the newest events, oldest first.
    bodies: VecDeque<Vec<u8>>,
    /// The name of events that are not published ones.
    ignored: Option<String>,
    /// The hasher of ids, which clients compare by hash.
    hashes: DefaultHashBuilder,
}

/// The maximum number of events that a client may be behind.
pub(crate) const BODIES_MAX: usize = 1024;

impl Expected {
    /// Returns the data of the next event, of the given size: its number, and padding.
    pub(crate) fn add(&mut self, bytes: usize) -> &[u8] {
        self.newest += 1;
        let body = if self.bodies.len() == BODIES_MAX {
            self.bodies.pop_front()
        } else {
            None
        };
        let mut body = body.unwrap_or_default();
        body.clear();
        body.extend_from_slice(format!("{:010} ", self.newest).as_bytes());
        body.resize(bytes, b'x');
        self.bodies.push_back(body);
        self.bodies.back().expect("it was just pushed")
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// Sets the name of events that clients read and do not count.
    pub(crate) fn ignore(&mut self, name: &str) {
        self.ignored = Some(name.to_owned());
    }

    fn is_ignored(&self, name: &[u8]) -> bool {
        let ignored = self.ignored.as_ref().map(String::as_bytes);
        ignored.is_some_and(|ignored| ignored == name.trim_ascii())
    }

    fn body(&self, number: u64) -> Option<&[u8]> {
        let from_newest = usize::try_from(self.newest.checked_sub(number)?).ok()?;
        let index = self.bodies.len().checked_sub(from_newest + 1)?;
        Some(&self.bodies[index])
    }
}

/// One subscriber.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    has_head: bool,
    /// Whether the data of the next event has arrived, but not its end.
    has_data: bool,
    /// Whether the event whose lines arrive is not a published one.
    is_ignored: bool,
    /// The number of the last complete event.
    last: u64,
    /// The hash of its id, and of the next event's id, if they have one.
    last_id: Option<u64>,
    next_id: Option<u64>,
    /// The beginning of an incomplete line or head.
    started: Vec<u8>,
}

/// The result of one turn of reading.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Complete heads.
    pub(crate) heads: usize,
    pub(crate) events: usize,
    /// Lines without meaning, which open streams and keep them alive: comments of most
    /// servers, `ping:` of pushwheel.
    pub(crate) idle_lines: usize,
}

impl Client {
    /// Returns a client whose next event is the one after `last`.
    pub(crate) fn new(stream: TcpStream, last: u64) -> Client {
        Client {
            stream,
            has_head: false,
            has_data: false,
            is_ignored: false,
            last,
            last_id: None,
            next_id: None,
            started: Vec::new(),
        }
    }

    /// The number of the last complete event.
    pub(crate) fn newest(&self) -> u64 {
        self.last
    }

    /// Reads and checks what has arrived.
    pub(crate) fn read(&mut self, buffer: &mut [u8], expected: &Expected) -> Result<Progress> {
        let mut progress = Progress::default();
        loop {
            let length = match self.stream.read(buffer) {
                Ok(0) => return fault("the server ended a stream"),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(progress),
                Err(error) => return fault(format!("a stream broke ({error})")),
            };
            self.take(&buffer[..length], expected, &mut progress)?;
            if length < buffer.len() {
                // Nothing is left, or it is reported as ready again.
                return Ok(progress);
            }
        }
    }

    fn take(&mut self, bytes: &[u8], expected: &Expected, progress: &mut Progress) -> Result<()> {
        if self.started.is_empty() && self.has_head {
            let rest = self.lines(bytes, expected, progress)?;
            self.started.extend_from_slice(rest);
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.started);
        all.extend_from_slice(bytes);
        let mut rest = &all[..];
        if !self.has_head {
            let Some(end) = memchr::memmem::find(rest, b"\r\n\r\n") else {
                self.started = all;
                return Ok(());
            };
            check_head(rest)?;
            (self.has_head, progress.heads) = (true, progress.heads + 1);
            rest = &rest[end + 4..];
        }
        let rest = self.lines(rest, expected, progress)?;
        self.started = rest.to_vec();
        Ok(())
    }

    /// Parses complete lines and returns the rest. Chunks of complete events are
    /// accepted: their sizes look like unknown fields.
    fn lines<'a>(
        &mut self,
        mut bytes: &'a [u8],
        expected: &Expected,
        progress: &mut Progress,
    ) -> Result<&'a [u8]> {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
            bytes = &bytes[end + 1..];
            if let Some(name) = line.strip_prefix(b"event:") {
                self.is_ignored = expected.is_ignored(name);
            } else if self.is_ignored {
                self.is_ignored = !line.is_empty();
            } else if let Some(data) = line.strip_prefix(b"data:") {
                let data = data.strip_prefix(b" ").unwrap_or(data);
                if self.has_data || expected.body(self.last + 1) != Some(data) {
                    return fault(format!(
                        "a client received the wrong event after event {} of {} ({})",
                        self.last,
                        expected.newest(),
                        String::from_utf8_lossy(data)
                    ));
                }
                self.has_data = true;
            } else if let Some(id) = line.strip_prefix(b"id:") {
                self.next_id = Some(expected.hashes.hash_one(id));
            } else if line.is_empty() && std::mem::take(&mut self.has_data) {
                self.last += 1;
                self.check_id()?;
                progress.events += 1;
            } else if line.starts_with(b":") || line == b"ping:" {
                progress.idle_lines += 1;
            }
        }
        Ok(bytes)
    }

    /// Checks that the id of an event differs from the one before. A client that resumed
    /// with it would not know what it missed.
    fn check_id(&mut self) -> Result<()> {
        let id = self.next_id.take();
        if id.is_some() && id == self.last_id {
            let before = self.last - 1;
            return fault(format!(
                "events {before} and {} have the same id",
                self.last
            ));
        }
        self.last_id = id;
        Ok(())
    }
}

/// Checks that it is an event stream.
fn check_head(bytes: &[u8]) -> Result<()> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let wrong = |why: &str| {
        fault(format!(
            "the response is not a stream, {why}. It begins with {}",
            String::from_utf8_lossy(bytes)
        ))
    };
    if head.parse(bytes).is_err() {
        return wrong("because it is not HTTP");
    }
    if head.code != Some(200) {
        return wrong("because of its status");
    }
    let mut headers = head.headers.iter();
    let content_type = headers.find(|header| header.name.eq_ignore_ascii_case("content-type"));
    let value = content_type.map_or(&b""[..], |header| header.value);
    match http::is_stream_type(&String::from_utf8_lossy(value)) {
        true => Ok(()),
        false => wrong("because its Content-Type is not text/event-stream"),
    }
}

impl std::ops::AddAssign for Progress {
    fn add_assign(&mut self, more: Progress) {
        self.heads += more.heads;
        self.events += more.events;
        self.idle_lines += more.idle_lines;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

    /// Returns what a client reads of such a stream after two events were published.
    fn read(stream: &str) -> Result<Progress> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut peer = listener.accept().unwrap().0;
        let head = format!("{HEAD}ping:\n");
        peer.write_all(head.as_bytes()).unwrap();
        peer.write_all(stream.as_bytes()).unwrap();
        let mut expected = Expected::default();
        expected.ignore("control");
        assert_eq!(expected.add(12), b"0000000001 x");
        assert_eq!(expected.add(12), b"0000000002 x");
        // The socket blocks, so the read ends with the written bytes.
        let mut client = Client::new(TcpStream::from_std(socket), 0);
        let mut buffer = vec![0; head.len() + stream.len() + 1];
        let mut total = Progress::default();
        let mut bytes = 0;
        while bytes < head.len() + stream.len() {
            let length = client.stream.read(&mut buffer).unwrap();
            client.take(&buffer[..length], &expected, &mut total)?;
            bytes += length;
        }
        Ok(total)
    }

    #[test]
    fn a_stream_has_each_event_once_in_order_and_whole() {
        let good = "id: 1\ndata: 0000000001 x\n\n:\n\nid: 2\ndata: 0000000002 x\n\n";
        let progress = read(good).unwrap();
        assert_eq!(
            (progress.heads, progress.events, progress.idle_lines),
            (1, 2, 2)
        );
        for wrong in [
            "data: 0000000002 x\n\n",
            "data: 0000000001 x\n\ndata: 0000000001 x\n\n",
            "data: 0000000001 \n\n",
            "data: 0000000001 x\ndata: 0000000002 x\n\n",
            "event: pushwheel.gap\ndata: {}\n\n",
            "id: 7\ndata: 0000000001 x\n\nid: 7\ndata: 0000000002 x\n\n",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(read("data: 0000000001 x\n").unwrap().events, 0);
        let without_ids = "data: 0000000001 x\n\ndata: 0000000002 x\n\n";
        assert_eq!(read(without_ids).unwrap().events, 2);
        let among_others = "event: control\ndata:{}\n\nevent: data\ndata:0000000001 x\n\n";
        assert_eq!(read(among_others).unwrap().events, 1);
    }

    #[test]
    fn a_head_says_that_an_event_stream_follows() {
        assert!(check_head(HEAD.as_bytes()).is_ok());
        let in_full = "HTTP/1.1 200 OK\r\ncontent-type: Text/Event-Stream ; charset=utf-8\r\n\r\n";
        assert!(check_head(in_full.as_bytes()).is_ok());
        for (wrong, reported) in [
            (HEAD.replace("event-stream", "html"), "Content-Type"),
            (
                HEAD.replace("event-stream", "event-streams"),
                "Content-Type",
            ),
            ("HTTP/1.1 200 OK\r\n\r\n".into(), "Content-Type"),
            (HEAD.replace("200 OK", "503 Busy"), "of its status"),
            ("SSH-2.0-OpenSSH\r\n\r\n".into(), "not HTTP"),
        ] {
            let problem = check_head(wrong.as_bytes()).unwrap_err().to_string();
            assert!(problem.contains(reported), "{problem}");
        }
    }
}
