//! [`Lines`]: a request whose body is read line by line, and the response beside it. Pure.
//!
//! ```text
//!  body ──► buffer ── a whole line ──► reader ··· a reply ──► response
//!                     at most LINES_MAX wait for their replies
//! ```
//!
//! The invariant to remember: *the response ends when each line that was passed on has its
//! reply*, so an error does not overtake the replies before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::exchange::ReadLines;
use crate::http::{Headers, Persistence};

/// Maximum lines that wait for their replies: beyond it, nothing of the body is read.
const LINES_MAX: usize = 256;

/// See the [module](self).
pub(crate) struct Lines {
    pub(crate) reader: Box<dyn ReadLines>,
    /// Distinguishes its replies from those to other requests of the connection.
    pub(crate) request: u32,
    /// The headers of the response, until it has begun.
    pub(crate) head: Option<Headers>,
    /// What becomes of the connection behind the response.
    pub(crate) persistence: Persistence,
    /// Whether the response is chunked, or ends with the connection.
    pub(crate) is_chunked: bool,
    /// When the next line has to be there.
    pub(crate) due_ms: u64,
    /// What has arrived, and how much of it was passed on.
    buffer: Vec<u8>,
    used: usize,
    /// The number of the newest line.
    number: u64,
    waiting: usize,
    /// Whether it waits until enough of the replies are there.
    is_paused: bool,
    /// Whether all of the body is in the buffer.
    is_complete: bool,
    /// The last line of the response, if a fault ends it.
    fault: Option<String>,
    /// Whether a reply was the last one, and is on its way.
    is_ended: Arc<AtomicBool>,
}

impl Lines {
    pub(crate) fn new(
        reader: Box<dyn ReadLines>,
        request: u32,
        head: Headers,
        persistence: Persistence,
        is_chunked: bool,
    ) -> Lines {
        Lines {
            reader,
            request,
            head: Some(head),
            persistence,
            is_chunked,
            due_ms: 0,
            buffer: Vec::new(),
            used: 0,
            number: 0,
            waiting: 0,
            is_paused: false,
            is_complete: false,
            fault: None,
            is_ended: Arc::default(),
        }
    }

    /// Adds a part of the body. `is_complete`: nothing follows.
    pub(crate) fn push(&mut self, body: &[u8], is_complete: bool) {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.extend_from_slice(body);
        self.is_complete |= is_complete;
    }

    /// Returns the number of bytes of the line that is not complete.
    pub(crate) fn begun_bytes(&self) -> usize {
        self.buffer.len() - self.used
    }

    /// Returns the next line that may be passed on, and its number: the place of the line
    /// in the [buffer](Self::take_buffer).
    pub(crate) fn next(&mut self) -> Option<(u64, std::ops::Range<usize>)> {
        while !self.is_paused && !self.is_ended() {
            let rest = &self.buffer[self.used..];
            let (mut end, next) = match memchr::memchr(b'\n', rest) {
                Some(end) => (end, end + 1),
                None if self.is_complete && !rest.is_empty() => (rest.len(), rest.len()),
                None => return None,
            };
            if rest[..end].ends_with(b"\r") {
                end -= 1;
            }
            let line = self.used..self.used + end;
            self.used += next;
            self.number += 1;
            if !self.buffer[line.clone()].trim_ascii().is_empty() {
                self.waiting += 1;
                self.is_paused = self.waiting >= LINES_MAX;
                return Some((self.number, line));
            }
        }
        None
    }

    /// Takes the buffer out while a line in it is passed on.
    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    pub(crate) fn put_buffer(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }

    /// Notes a reply.
    pub(crate) fn note_reply(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
        self.is_paused &= self.waiting > LINES_MAX / 2;
    }

    /// Ends it with a last line, unless it ends already.
    pub(crate) fn fail(&mut self, line: String) {
        self.fault.get_or_insert(line);
    }

    /// Returns whether nothing of the body is to be read now.
    pub(crate) fn waits(&self) -> bool {
        self.is_paused || self.is_ended() || self.is_complete
    }

    fn is_ended(&self) -> bool {
        self.fault.is_some() || self.is_ended.load(Relaxed)
    }

    /// Returns what the replies share: a last one lets no further line be passed on.
    pub(crate) fn end_flag(&self) -> Arc<AtomicBool> {
        self.is_ended.clone()
    }

    /// Returns whether no line is left and all have their replies.
    pub(crate) fn is_over(&self) -> bool {
        let is_used = self.fault.is_some() || (self.is_complete && self.begun_bytes() == 0);
        is_used && self.waiting == 0
    }

    /// Returns the last line of the response, and whether a fault has ended it.
    pub(crate) fn last(&mut self) -> (Option<String>, bool) {
        match self.fault.take() {
            Some(line) => (Some(line), true),
            None => (self.reader.end(), false),
        }
    }

    /// Appends a line of the response.
    pub(crate) fn put(out: &mut Vec<u8>, line: &str, is_chunked: bool) {
        let length = line.len() + 1;
        if is_chunked {
            out.extend_from_slice(format!("{length:x}\r\n").as_bytes());
        }
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
        if is_chunked {
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::LineReply;

    struct Ignore;

    impl ReadLines for Ignore {
        fn line(&mut self, _: u64, _: &[u8], reply: LineReply) {
            drop(reply);
        }
    }

    fn lines() -> Lines {
        let persistence = Persistence::Close;
        Lines::new(Box::new(Ignore), 1, Headers::new(), persistence, true)
    }

    fn taken(lines: &mut Lines) -> Vec<(u64, String)> {
        let mut taken = Vec::new();
        while let Some((number, line)) = lines.next() {
            let text = String::from_utf8(lines.buffer[line].to_vec()).unwrap();
            taken.push((number, text));
        }
        taken
    }

    #[test]
    fn a_line_is_passed_on_when_it_is_complete_however_it_is_cut() {
        let body = b"one\r\n\n  \ntwo\nlast";
        for cut in 0..=body.len() {
            let mut lines = lines();
            let mut all = Vec::new();
            lines.push(&body[..cut], false);
            all.extend(taken(&mut lines));
            lines.push(&body[cut..], true);
            all.extend(taken(&mut lines));
            let wanted = [(1, "one"), (4, "two"), (5, "last")];
            let wanted = wanted.map(|(number, text)| (number, text.to_owned()));
            assert_eq!(all, wanted, "cut at {cut}");
            assert!(!lines.is_over() && lines.waits());
            (0..3).for_each(|_| lines.note_reply());
            assert!(lines.is_over());
        }
    }

    #[test]
    fn lines_wait_while_too_many_have_no_reply() {
        let mut lines = lines();
        lines.push(&b"x\n".repeat(LINES_MAX + 10), false);
        assert_eq!(taken(&mut lines).len(), LINES_MAX);
        assert!(lines.waits());
        for _ in 0..LINES_MAX / 2 - 1 {
            lines.note_reply();
        }
        assert!(taken(&mut lines).is_empty());
        lines.note_reply();
        assert_eq!(taken(&mut lines).len(), 10);
    }

    #[test]
    fn a_fault_ends_it_behind_the_replies_before() {
        let mut lines = lines();
        lines.push(b"a\nb\nc\n", false);
        lines.next();
        lines.next();
        lines.fail("first".to_owned());
        lines.fail("second".to_owned());
        assert!(lines.next().is_none() && lines.waits());
        lines.note_reply();
        assert!(!lines.is_over());
        lines.note_reply();
        assert!(lines.is_over());
        assert_eq!(lines.last(), (Some("first".to_owned()), true));
    }

    #[test]
    fn a_line_of_the_response_is_a_chunk() {
        let mut out = Vec::new();
        Lines::put(&mut out, "{\"line\":1}", true);
        Lines::put(&mut out, "x", false);
        assert_eq!(out, b"b\r\n{\"line\":1}\n\r\nx\n");
    }
}
