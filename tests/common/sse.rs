//! What a browser makes of an event stream: an independent reading of the HTML
//! Standard, 9.2.5 "Parsing an event stream" and 9.2.6 "Interpreting an event
//! stream", against which tests hold the bytes this package writes.
//!
//! It shares no code with the package and prefers the standard's words to speed.
//! Bytes come in pieces of any size; an event is given out as soon as the first
//! byte of its blank line's end is seen.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test that includes this file uses a part of it"
)]

/// An event as a listener would see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatched {
    /// The event's `type`; `message` when the stream did not say.
    pub name: String,
    /// The event's `data`.
    pub data: String,
    /// The event's `lastEventId`.
    pub last_event_id: String,
}

/// One connection's parser. It begins before the stream's first byte.
#[derive(Debug, Default)]
pub struct Parser {
    /// The line being read, without its end.
    line: Vec<u8>,
    /// Whether a line has ended yet: only before that may there be a BOM.
    past_first_line: bool,
    /// Whether the last byte was a CR, so that a LF now belongs to it.
    after_cr: bool,

    // The buffers of 9.2.6, by its names.
    data: String,
    event_type: String,
    last_event_id_buffer: String,

    // What the `EventSource` keeps.
    last_event_id: String,
    retry: Option<u64>,
    comments: usize,
    pings: usize,
}

impl Parser {
    /// A parser at the start of a stream.
    pub fn new() -> Parser {
        Parser::default()
    }

    /// Reads the next bytes of the stream and gives the events they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Dispatched> {
        let mut dispatched = Vec::new();
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\r' | b'\n' => dispatched.extend(self.end_line()),
                byte => self.line.push(byte),
            }
        }
        dispatched
    }

    /// The last event ID string: what a reconnection would send, if it is not
    /// empty. An id counts from the end of its block.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The reconnection time in milliseconds, if the stream has set it.
    pub fn retry(&self) -> Option<u64> {
        self.retry
    }

    /// Whether an event has begun and not ended.
    pub fn is_in_event(&self) -> bool {
        let line = String::from_utf8_lossy(&self.line);
        let fields = ["id", "event", "data"];
        let is_in_line = fields.iter().any(|field| line.starts_with(field));
        let has_id = self.last_event_id_buffer != self.last_event_id;
        is_in_line || has_id || !self.data.is_empty() || !self.event_type.is_empty()
    }

    /// How many comment lines there have been.
    pub fn comments(&self) -> usize {
        self.comments
    }

    /// Returns how many lines there have been of the field `ping`, which has no
    /// meaning: those that open streams and keep them alive.
    pub fn pings(&self) -> usize {
        self.pings
    }

    fn end_line(&mut self) -> Option<Dispatched> {
        let bytes = std::mem::take(&mut self.line);
        let mut bytes = bytes.as_slice();
        if !std::mem::replace(&mut self.past_first_line, true) {
            bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        }
        // Line ends are never part of a UTF-8 sequence, even of a broken one, so
        // to decode each line is to decode the stream.
        let line = String::from_utf8_lossy(bytes);

        if line.is_empty() {
            return self.dispatch();
        }
        match line.split_once(':') {
            Some(("", _)) => self.comments += 1,
            Some((field, value)) => self.field(field, value.strip_prefix(' ').unwrap_or(value)),
            None => self.field(&line, ""),
        }
        None
    }

    fn field(&mut self, field: &str, value: &str) {
        match field {
            "event" => value.clone_into(&mut self.event_type),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.last_event_id_buffer),
            // Digits too many to count are a very long time.
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retry = Some(value.parse().unwrap_or(u64::MAX));
            }
            "ping" => self.pings += 1,
            _ => {}
        }
    }

    fn dispatch(&mut self) -> Option<Dispatched> {
        self.last_event_id.clone_from(&self.last_event_id_buffer);
        let mut data = std::mem::take(&mut self.data);
        let event_type = std::mem::take(&mut self.event_type);
        if data.is_empty() {
            return None;
        }
        if data.ends_with('\n') {
            data.pop();
        }
        Some(Dispatched {
            name: if event_type.is_empty() {
                "message".to_owned()
            } else {
                event_type
            },
            data,
            last_event_id: self.last_event_id.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Dispatched, Parser};

    fn event(name: &str, data: &str, last_event_id: &str) -> Dispatched {
        Dispatched {
            name: name.to_owned(),
            data: data.to_owned(),
            last_event_id: last_event_id.to_owned(),
        }
    }

    /// Reads the stream whole, then byte by byte, then in every two pieces, and
    /// holds that it makes no difference.
    fn parsed(stream: impl AsRef<[u8]>) -> Vec<Dispatched> {
        let stream = stream.as_ref();
        let whole = Parser::new().push(stream);
        let mut parser = Parser::new();
        let bytewise: Vec<_> = stream
            .iter()
            .flat_map(|byte| parser.push(std::slice::from_ref(byte)))
            .collect();
        assert_eq!(bytewise, whole);
        for at in 0..=stream.len() {
            let mut parser = Parser::new();
            let mut halves = parser.push(&stream[..at]);
            halves.extend(parser.push(&stream[at..]));
            assert_eq!(halves, whole);
        }
        whole
    }

    // The next four are the examples of 9.2.6.

    #[test]
    fn standard_example_three_lines() {
        assert_eq!(
            parsed("data: YHOO\ndata: +2\ndata: 10\n\n"),
            [event("message", "YHOO\n+2\n10", "")]
        );
    }

    #[test]
    fn standard_example_comment_ids_and_leading_space() {
        let stream = ": test stream\n\ndata: first event\nid: 1\n\n\
                      data:second event\nid\n\ndata:  third event\n";
        assert_eq!(
            parsed(stream),
            [
                event("message", "first event", "1"),
                event("message", "second event", ""),
            ]
        );
        assert_eq!(
            parsed(format!("{stream}\n"))[2],
            event("message", " third event", "")
        );
    }

    #[test]
    fn standard_example_empty_data() {
        assert_eq!(
            parsed("data\n\ndata\ndata\n\ndata:"),
            [event("message", "", ""), event("message", "\n", "")]
        );
    }

    #[test]
    fn standard_example_one_space_is_stripped() {
        let twice = parsed("data:test\n\ndata: test\n\n");
        let test = event("message", "test", "");
        assert_eq!(twice, [test.clone(), test]);
    }

    #[test]
    fn every_line_end_ends_a_line() {
        let expected = [event("n", "a\nb", "")];
        for end in ["\n", "\r", "\r\n"] {
            let stream = ["event: n", "data: a", "data: b", "", ""].join(end);
            assert_eq!(parsed(&stream), expected);
        }
        assert_eq!(parsed("event: n\rdata: a\r\ndata: b\n\r"), expected);
        assert_eq!(parsed("data: a\r\r\ndata: b\n\n").len(), 2);
    }

    #[test]
    fn one_bom_is_stripped_at_the_very_start() {
        let bom = "\u{feff}";
        let expected = [event("message", "x", "")];
        assert_eq!(parsed(format!("{bom}data: x\n\n")), expected);
        assert_eq!(parsed(format!("{bom}\ndata: x\n\n")), expected);
        assert_eq!(parsed(format!("{bom}{bom}data: x\n\n")), []);
        assert_eq!(parsed(format!("\n{bom}data: x\n\n")), []);
        assert_eq!(
            parsed(format!("data: {bom}x\n\n")),
            [event("message", "\u{feff}x", "")]
        );
    }

    #[test]
    fn ids_stick_and_nul_is_ignored_and_empty_clears() {
        assert_eq!(
            parsed("id: 1\ndata: a\n\ndata: b\n\nid: 2\0\ndata: c\n\nid:\ndata: d\n\n"),
            [
                event("message", "a", "1"),
                event("message", "b", "1"),
                event("message", "c", "1"),
                event("message", "d", ""),
            ]
        );
    }

    #[test]
    fn an_id_counts_from_its_blank_line_even_without_data() {
        let mut parser = Parser::new();
        assert_eq!(parser.push(b"id: 7\nevent: n\n"), []);
        assert_eq!(parser.last_event_id(), "");
        assert_eq!(parser.push(b"\n"), []);
        assert_eq!(parser.last_event_id(), "7");
        assert_eq!(parser.push(b"data: x\n\n"), [event("message", "x", "7")]);
    }

    #[test]
    fn an_unfinished_block_says_nothing() {
        let mut parser = Parser::new();
        assert_eq!(parser.push(b"id: 1\nevent: n\ndata: x\n"), []);
        assert_eq!(parser.last_event_id(), "");
    }

    #[test]
    fn retry_takes_digits_only() {
        let mut parser = Parser::new();
        for (line, retry) in [
            ("retry: 5s", None),
            ("retry", None),
            ("retry: 2500", Some(2500)),
            ("retry: 1.5", Some(2500)),
            ("retry: -1", Some(2500)),
            ("retry:  3", Some(2500)),
            ("retry:0", Some(0)),
            ("retry: 99999999999999999999999", Some(u64::MAX)),
        ] {
            parser.push(line.as_bytes());
            parser.push(b"\n");
            assert_eq!(parser.retry(), retry, "{line}");
        }
    }

    #[test]
    fn comments_and_unknown_fields_say_nothing() {
        let mut parser = Parser::new();
        let stream = b":\n\n: data: x\n\nDATA: x\n data: x\nfoo\nda\xFFta: x\n\n";
        assert_eq!(parser.push(stream), []);
        assert_eq!(parser.comments(), 2);
    }

    #[test]
    fn broken_utf8_is_replaced() {
        assert_eq!(
            parsed(b"data: a\xFF\xE2\x82\n\n"),
            [event("message", "a\u{fffd}\u{fffd}", "")]
        );
    }
}
