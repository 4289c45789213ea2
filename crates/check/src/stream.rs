//! A parser for event streams that works like a browser (HTML Standard 9.2.5 and 9.2.6).
//! Pure: bytes in, events out, however the bytes are split.

use std::time::Duration;

/// The maximum size of an unfinished event, in bytes.
const EVENT_BYTES_MAX: usize = 64 << 20;

/// An event that was dispatched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The event's name; empty if the event has none.
    pub name: String,
    /// The id in this event, if there is one.
    pub id: Option<String>,
    /// The event's data.
    pub data: String,
}

/// An unfinished event is larger than 64 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// Parses one stream after another, like an `EventSource`: the id and the delay outlive the
/// stream that they came from.
#[derive(Debug, Default)]
pub struct Reader {
    /// The id for a reconnection.
    pub last_id: Option<String>,
    /// The delay before a reconnection.
    pub retry: Option<Duration>,
    line: Vec<u8>,
    is_begun: bool,
    is_after_cr: bool,
    block: Block,
    block_bytes: usize,
}

/// The event that is being parsed.
#[derive(Debug, Default)]
struct Block {
    name: String,
    id: Option<String>,
    data: Option<String>,
}

impl Reader {
    /// Starts another stream. An unfinished event of the last one is dropped.
    pub fn restart(&mut self) {
        *self = Reader {
            last_id: self.last_id.take(),
            retry: self.retry,
            ..Reader::default()
        };
    }

    /// Parses more bytes of the stream and dispatches the events that they complete.
    ///
    /// # Errors
    /// When an unfinished event is larger than 64 MiB.
    pub fn push(&mut self, bytes: &[u8], mut dispatch: impl FnMut(Event)) -> Result<(), TooLarge> {
        let mut rest = bytes;
        if self.is_after_cr && !rest.is_empty() {
            self.is_after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = memchr::memchr2(b'\r', b'\n', rest) {
            self.line.extend_from_slice(&rest[..end]);
            let line = std::mem::take(&mut self.line);
            self.take_line(&line, &mut dispatch);
            self.line = line;
            self.line.clear();
            let after = &rest[end + 1..];
            let is_cr = rest[end] == b'\r';
            self.is_after_cr = is_cr && after.is_empty();
            rest = match is_cr {
                true => after.strip_prefix(b"\n").unwrap_or(after),
                false => after,
            };
        }
        self.line.extend_from_slice(rest);
        match self.line.len() + self.block_bytes > EVENT_BYTES_MAX {
            true => Err(TooLarge),
            false => Ok(()),
        }
    }

    fn take_line(&mut self, line: &[u8], dispatch: &mut impl FnMut(Event)) {
        let text = String::from_utf8_lossy(line);
        let mut text = &*text;
        if !self.is_begun {
            self.is_begun = true;
            text = text.strip_prefix('\u{feff}').unwrap_or(text);
        }
        if text.is_empty() {
            return self.end_block(dispatch);
        }
        self.block_bytes += text.len();
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.block.name),
            "data" => match &mut self.block.data {
                None => self.block.data = Some(value.to_owned()),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
            },
            "id" if !value.contains('\0') => self.block.id = Some(value.to_owned()),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                if let Ok(ms) = value.parse() {
                    self.retry = Some(Duration::from_millis(ms));
                }
            }
            _ => {}
        }
    }

    fn end_block(&mut self, dispatch: &mut impl FnMut(Event)) {
        let Block { name, id, data } = std::mem::take(&mut self.block);
        self.block_bytes = 0;
        if let Some(id) = &id {
            self.last_id = Some(id.clone()).filter(|id| !id.is_empty());
        }
        if let Some(data) = data {
            dispatch(Event { name, id, data });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "\u{feff}:\n\nid: 1\n\nretry: 250\r\nevent: a\rdata: x\r\ndata:  y\r\n\r\n\
                          id: 2\ndata\n\nretry: 1.5\nevent: lost\n\nid: 3\ndata: unfinished\n";

    fn events(pieces: &[&[u8]]) -> (Vec<Event>, Reader) {
        let (mut reader, mut events) = (Reader::default(), Vec::new());
        for piece in pieces {
            reader.push(piece, |event| events.push(event)).unwrap();
        }
        (events, reader)
    }

    fn wanted() -> Vec<Event> {
        let event = |name: &str, id: Option<&str>, data: &str| Event {
            name: name.to_owned(),
            id: id.map(str::to_owned),
            data: data.to_owned(),
        };
        vec![event("a", None, "x\n y"), event("", Some("2"), "")]
    }

    #[test]
    fn a_stream_is_parsed_as_in_a_browser() {
        let (got, reader) = events(&[STREAM.as_bytes()]);
        assert_eq!(got, wanted());
        assert_eq!(reader.last_id.as_deref(), Some("2"));
        assert_eq!(reader.retry, Some(Duration::from_millis(250)));
    }

    #[test]
    fn splits_change_nothing() {
        let bytes = STREAM.as_bytes();
        for at in 0..bytes.len() {
            assert_eq!(
                events(&[&bytes[..at], &bytes[at..]]).0,
                wanted(),
                "split at {at}"
            );
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(events(&single).0, wanted());
    }

    #[test]
    fn an_id_outlives_its_stream_and_an_empty_one_clears_it() {
        let (_, mut reader) = events(&[b"id: 7\n\nevent: torn\ndata: torn"]);
        reader.restart();
        let mut count = 0;
        reader.push(b"data: whole\n\n", |_| count += 1).unwrap();
        assert_eq!((count, reader.last_id.as_deref()), (1, Some("7")));
        reader.push(b"id\n\n", |_| {}).unwrap();
        assert_eq!(reader.last_id, None);
    }
}
