//! One subscriber: what it has read of its stream, and whether that is right.

use std::io::{ErrorKind, Read};

use mio::net::TcpStream;

/// The event that everybody waits for.
pub(crate) struct Expected {
    pub(crate) number: u64,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    has_head: bool,
    /// The beginning of a line, or of the head, whose end is yet to come.
    started: Vec<u8>,
    /// The number of the last event that came whole.
    last: u64,
    /// Whether the expected data has come, but not yet the end of its event.
    has_data: bool,
}

/// How a client has got on with reading.
#[derive(Default)]
pub(crate) struct Progress {
    /// Heads that have come whole, and events.
    pub(crate) heads: usize,
    pub(crate) events: usize,
}

impl Client {
    pub(crate) fn new(stream: TcpStream, last: u64) -> Client {
        Client {
            stream,
            has_head: false,
            started: Vec::new(),
            last,
            has_data: false,
        }
    }

    /// Reads what there is, and checks it. What is wrong with a stream ends the
    /// bench, since its figures would mean nothing.
    pub(crate) fn read(&mut self, buffer: &mut [u8], expected: &Expected) -> Progress {
        let mut progress = Progress::default();
        loop {
            let length = match self.stream.read(buffer) {
                Ok(0) => panic!("the server ended a stream"),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return progress,
                Err(error) => panic!("a stream broke: {error}"),
            };
            self.take(&buffer[..length], expected, &mut progress);
            if length < buffer.len() {
                // Nothing is left, or the next edge tells of it.
                return progress;
            }
        }
    }

    fn take(&mut self, bytes: &[u8], expected: &Expected, progress: &mut Progress) {
        if self.started.is_empty() && self.has_head {
            let rest = self.lines(bytes, expected, progress);
            self.started.extend_from_slice(rest);
            return;
        }
        let mut all = std::mem::take(&mut self.started);
        all.extend_from_slice(bytes);
        let mut rest = &all[..];
        if !self.has_head {
            let Some(end) = rest.windows(4).position(|end| end == b"\r\n\r\n") else {
                self.started = all;
                return;
            };
            let status = rest.get(8..13);
            assert_eq!(
                status,
                Some(&b" 200 "[..]),
                "{}",
                String::from_utf8_lossy(rest)
            );
            (self.has_head, progress.heads) = (true, progress.heads + 1);
            rest = &rest[end + 4..];
        }
        let rest = self.lines(rest, expected, progress);
        self.started = rest.to_vec();
    }

    /// Takes the whole lines, and returns what is left. A server that sends
    /// chunks, each of whole events, may: their sizes look like unknown fields.
    fn lines<'a>(
        &mut self,
        mut bytes: &'a [u8],
        expected: &Expected,
        progress: &mut Progress,
    ) -> &'a [u8] {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
            bytes = &bytes[end + 1..];
            if let Some(data) = line.strip_prefix(b"data:") {
                let data = data.strip_prefix(b" ").unwrap_or(data);
                let (got, last) = (String::from_utf8_lossy(data), self.last);
                assert!(data == expected.body, "after event {last}: {got}");
                assert!(
                    last < expected.number && !self.has_data,
                    "event {last} came twice"
                );
                self.has_data = true;
            } else if line.is_empty() && std::mem::take(&mut self.has_data) {
                self.last = expected.number;
                progress.events += 1;
            }
        }
        bytes
    }
}
