//! [`Frame`]: an event as bytes on the wire, and the few other blocks of a stream.
//!
//! A frame is encoded once, by the publisher's thread and outside any lock.
//! Later, under the hub's lock, its sequence number is known and
//! [`stamp`](Frame::stamp) writes it into a gap left in front. From then on the
//! bytes are shared: nothing is formatted again, and gathering is copying.
//!
//! It does no I/O and keeps no state but a scratch buffer for each thread.
//!
//! The one thing to remember: a frame of [`encode`](Frame::encode) is one event
//! and ends with its blank line, so frames may follow one another in any order.
//! The format is the HTML Standard's, 9.2.5 "Parsing an event stream".

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::event::{Event, EventError, NAME_BYTES_MAX, RETRY_MS_MAX, check_id};
use crate::packed;

/// The finished bytes of one event. Cloning it increments a reference count.
///
/// ```text
///             start            body
///               ▼                ▼
/// ┌─────────────┬────────────────┬────────────────────────────────┐
/// │ unused gap  │ id: k3x-17\n   │ event: news\ndata: hello\n\n   │
/// └─────────────┴────────────────┴────────────────────────────────┘
///               └──────────────── as_bytes() ─────────────────────┘
/// ```
///
/// Before it is stamped, `start` is where `body` is. A frame that is never
/// stamped has no gap: its body begins at 0.
#[derive(Clone)]
pub struct Frame {
    bytes: Arc<[u8]>,
    /// Where the frame begins.
    start: u16,
    /// Where what follows the stamped id begins; 0 if there is no room for one.
    body: u16,
    /// Whether these are blocks of a compressed stream.
    is_packed: bool,
}

impl Frame {
    /// The frame of `event`, not stamped yet. `id_prefix` is the epoch with its
    /// hyphen, `k3x-`; the frame leaves room for it and any sequence number,
    /// unless the event has an id of its own.
    ///
    /// The data is split at CRLF, CR and LF and each piece is a line, so that
    /// nothing in it can be taken for a field; a browser sees every line end as
    /// LF. A line end costs 7 bytes on the wire, so a frame may be 7 times as
    /// long as its data: a limit should be on the length of the frame.
    ///
    /// # Errors
    ///
    /// When the event must not be published: see [`EventError`].
    ///
    /// # Panics
    ///
    /// When `id_prefix` is longer than [`ID_PREFIX_BYTES_MAX`]; the engine chose it.
    #[inline(always)]
    pub fn encode(event: &Event<'_>, id_prefix: &str) -> Result<Frame, EventError> {
        event.check()?;
        assert!(
            id_prefix.len() <= ID_PREFIX_BYTES_MAX,
            "an epoch leaves room for the sequence number in an id of 64 bytes"
        );
        let gap_bytes = match event.id() {
            Some(_) => 0,
            None => gap_bytes(id_prefix),
        };
        Frame::write(event, gap_bytes)
    }

    /// Returns the event of a frame that [`encode`](Frame::encode) has made, without its id
    /// and key. Line ends in its data are LF.
    pub(crate) fn decode(&self) -> Event<'static> {
        decode(str::from_utf8(self.as_bytes()).expect("events are UTF-8"))
    }

    /// Returns the frame of an event that [`body`](Frame::body) has taken apart, not
    /// stamped yet; `None` if the bytes are not exactly one event as
    /// [`encode`](Frame::encode) writes it.
    pub(crate) fn from_body(body: &[u8], own_id: Option<&str>, id_prefix: &str) -> Option<Frame> {
        is_event(body, false).then_some(())?;
        let gap_bytes = match own_id {
            Some(_) => 0,
            None => gap_bytes(id_prefix),
        };
        let id_bytes = own_id.map_or(0, |id| ID_FIELD.len() + id.len() + 1);
        let mut out = Vec::with_capacity(gap_bytes + id_bytes + body.len());
        out.resize(gap_bytes, 0);
        let (before, after) = body.split_at(id_place(body));
        out.extend_from_slice(before);
        if let Some(id) = own_id {
            push_field(&mut out, ID_FIELD, id.as_bytes());
        }
        out.extend_from_slice(after);
        Some(Frame {
            bytes: Arc::from(out),
            start: position(gap_bytes),
            body: position(gap_bytes),
            is_packed: false,
        })
    }

    /// Returns the frame of an event as it was sent, which stamping does not change; `None`
    /// if the bytes are not exactly one event.
    pub(crate) fn from_event(bytes: &[u8]) -> Option<Frame> {
        is_event(bytes, true).then(|| Frame::raw(bytes))
    }

    /// Returns the event without the line of its id, in two parts. `own_id` is the id that
    /// it was encoded with.
    pub(crate) fn body(&self, own_id: Option<&str>) -> [&[u8]; 2] {
        let body = &self.bytes[usize::from(self.body)..];
        let (before, after) = body.split_at(id_place(body));
        let id_bytes = own_id.map_or(0, |id| ID_FIELD.len() + id.len() + 1);
        [before, &after[id_bytes..]]
    }

    /// The frame of one of the engine's own events, which may have a reserved
    /// name. Stamping does not change it: it is said to one client, not kept.
    ///
    /// Without an `id` the browser keeps the cursor it has.
    ///
    /// # Panics
    ///
    /// When the name, the id or the delay could not be a publisher's, reserved
    /// names aside; the engine chose them. Data may be any text.
    pub fn internal(name: &str, id: Option<&str>, retry: Option<Duration>, data: &str) -> Frame {
        let mut event = Event::new(name, data);
        if let Some(id) = id {
            event = event.with_id(id);
        }
        if let Some(retry) = retry {
            event = event.with_retry(retry);
        }
        event
            .check_fields()
            .and_then(|()| Frame::write(&event, 0))
            .expect("the engine's own names, ids and delays are valid")
    }

    /// A frame of `bytes` as they are, which stamping does not change.
    ///
    /// Nothing is checked: the caller sees to it that they are whole blocks of
    /// an event stream, each with its blank line.
    pub fn raw(bytes: &[u8]) -> Frame {
        Frame {
            bytes: Arc::from(bytes),
            start: 0,
            body: 0,
            is_packed: false,
        }
    }

    /// Returns the event with the name of its channel in front, in a field of its own,
    /// which parsers that do not know it ignore.
    pub(crate) fn naming(&self, channel: &str) -> Frame {
        debug_assert!(!self.is_packed, "other frames cannot be extended");
        let mut out = Vec::with_capacity(self.named_len(channel));
        push_field(&mut out, CHANNEL_FIELD, channel.as_bytes());
        out.extend_from_slice(self.as_bytes());
        Frame::raw(&out)
    }

    /// Returns the number of bytes with the [name](Self::naming) of the channel.
    pub(crate) fn named_len(&self, channel: &str) -> usize {
        CHANNEL_FIELD.len() + channel.len() + 1 + self.len()
    }

    /// Writes the event's id, `id_prefix` and `sequence`, in front of it. A frame
    /// with an id of its own, a raw or an internal one stays as it is. Stamped
    /// again, the frame has the newer id.
    ///
    /// # Panics
    ///
    /// When the frame is shared already, or `id_prefix` is longer than the one it
    /// was encoded with.
    pub fn stamp(&mut self, id_prefix: &str, sequence: u64) {
        if self.body == 0 {
            return;
        }
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(sequence);
        let gap = Arc::get_mut(&mut self.bytes)
            .expect("a frame is stamped before it is in a log, and so before anyone shares it")
            .get_mut(..usize::from(self.body))
            .expect("the body begins within the frame");
        let mut at = gap.len();
        let head = match self.is_packed {
            true => Some(packed::stored_head(
                ID_FIELD.len() + id_prefix.len() + digits.len() + 1,
            )),
            false => None,
        };
        for part in [
            b"\n".as_slice(),
            digits.as_bytes(),
            id_prefix.as_bytes(),
            ID_FIELD,
            head.as_ref().map_or(&[], |head| head),
        ] {
            let end = at;
            at = end
                .checked_sub(part.len())
                .expect("the gap was made for this prefix and any sequence number");
            gap[at..end].copy_from_slice(part);
        }
        self.start = position(at);
    }

    /// The same event in blocks of a compressed stream, compressed if it has
    /// `from_bytes` or more. This one must not be stamped yet; what has room
    /// for an id here has it there. In front of all the frame keeps the sum of
    /// its body.
    pub fn pack(&self, from_bytes: usize) -> Frame {
        let body = &self.bytes[usize::from(self.body)..];
        let gap_bytes = match usize::from(self.body) {
            0 => SUM_BYTES,
            gap => SUM_BYTES + gap + packed::STORED_OVERHEAD_BYTES,
        };
        let mut out = vec![0; gap_bytes];
        let sum = packed::Sum::of(body);
        out[..4].copy_from_slice(&sum.crc.to_le_bytes());
        out[4..SUM_BYTES].copy_from_slice(&sum.len.to_le_bytes());
        if body.len() >= from_bytes {
            packed::deflated(body, &mut out);
        } else {
            packed::stored(body, &mut out);
        }
        Frame {
            bytes: Arc::from(out),
            start: position(gap_bytes),
            body: match self.body {
                0 => 0,
                _ => position(gap_bytes),
            },
            is_packed: true,
        }
    }

    /// The sum of what the blocks of a compressed frame hold, its id included.
    pub(crate) fn packed_sum(&self) -> packed::Sum {
        debug_assert!(self.is_packed, "other frames keep no sum");
        let number = |at: usize| {
            let bytes = self.bytes[at..at + 4].try_into();
            u32::from_le_bytes(bytes.expect("four bytes"))
        };
        let body = packed::Sum {
            crc: number(0),
            len: number(4),
        };
        match usize::from(self.body) {
            0 => body,
            end => {
                let id = usize::from(self.start) + packed::STORED_OVERHEAD_BYTES;
                packed::Sum::of(&self.bytes[id..end]).then(body)
            }
        }
    }

    /// The bytes to send: one whole event.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }

    /// Returns the number of bytes to send. Stamping adds the line of the id.
    pub fn len(&self) -> usize {
        self.bytes.len() - usize::from(self.start)
    }

    /// Whether there is nothing to send, as only a raw frame can be.
    #[cfg(any(test, feature = "internals"))]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the event after `gap_bytes` of room for an id's line.
    fn write(event: &Event<'_>, gap_bytes: usize) -> Result<Frame, EventError> {
        let retry_ms = event.retry_ms()?;
        // The scratch is taken, not borrowed, and made again where it is gone:
        // a thread may publish even while its locals are being destroyed.
        let mut out = SCRATCH.try_with(Cell::take).unwrap_or_default();
        out.clear();
        out.resize(gap_bytes, 0);

        if let Some(name) = event.name() {
            push_field(&mut out, NAME_FIELD, name.as_bytes());
        }
        if let Some(id) = event.id() {
            push_field(&mut out, ID_FIELD, id.as_bytes());
        }
        if let Some(ms) = retry_ms {
            push_field(
                &mut out,
                b"retry: ",
                itoa::Buffer::new().format(ms).as_bytes(),
            );
        }
        push_data(&mut out, event.data());
        out.push(b'\n');

        let frame = Frame {
            bytes: Arc::from(out.as_slice()),
            start: position(gap_bytes),
            body: position(gap_bytes),
            is_packed: false,
        };
        if out.capacity() <= SCRATCH_BYTES_MAX {
            // A thread whose locals are gone has no use for it: it is dropped.
            let _ = SCRATCH.try_with(|scratch| scratch.set(out));
        }
        Ok(frame)
    }
}

/// Returns the event of a block that [`Frame::encode`] has written, without its id and key.
pub(crate) fn decode(block: &str) -> Event<'static> {
    let (mut name, mut retry, mut data) = (String::new(), None, None::<String>);
    for line in block.split('\n') {
        match line.split_once(": ") {
            Some(("event", value)) => value.clone_into(&mut name),
            Some(("retry", value)) => {
                let ms = value.parse().expect("a delay is a number");
                retry = Some(Duration::from_millis(ms));
            }
            Some(("data", value)) => match &mut data {
                None => data = Some(value.to_owned()),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
            },
            _ => {}
        }
    }
    let event = Event::new(name, data.unwrap_or_default());
    match retry {
        Some(retry) => event.with_retry(retry),
        None => event,
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame(\"{}\")", self.as_bytes().escape_ascii())
    }
}

/// The bytes that open a stream and that keep a quiet one alive: one line with
/// a field that no parser knows. It becomes a part of the next event's block.
///
/// - Without a blank line: parsers that dispatch at every blank line (those of
///   fetch-event-source, httpx-sse and sseclient) would call their handlers
///   with an empty message.
/// - Not a comment: parsers that split the stream at blank lines and skip the
///   blocks that begin with `:` would drop the next event.
///
/// `tests/frames.rs` and `tests/clients` hold it against all of these.
pub const HEARTBEAT: &[u8] = b"ping:\n";

/// The line that sets the client's reconnection delay. A parser applies it at
/// the end of the line (HTML Standard 9.2.6), so no blank line follows, which
/// some parsers would dispatch as an empty message.
pub fn retry_line(retry_ms: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(b"retry: 4294967295\n".len());
    let mut digits = itoa::Buffer::new();
    push_field(&mut out, b"retry: ", digits.format(retry_ms).as_bytes());
    out
}

/// One line for each piece of `data`. A line end at its end leaves an empty
/// piece after it, which the browser joins back into that line end.
///
/// The space after the colon is always written: 9.2.6 strips one, so without it
/// data that begins with a space would lose it.
fn push_data(out: &mut Vec<u8>, data: &str) {
    let mut rest = data.as_bytes();
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        let (piece, after) = rest.split_at(at);
        push_field(out, b"data: ", piece);
        let line_end_bytes = if after.starts_with(b"\r\n") { 2 } else { 1 };
        rest = &after[line_end_bytes..];
    }
    push_field(out, b"data: ", rest);
}

fn push_field(out: &mut Vec<u8>, field: &[u8], value: &[u8]) {
    out.extend_from_slice(field);
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Returns the room for the line of an id.
fn gap_bytes(id_prefix: &str) -> usize {
    ID_FIELD.len() + id_prefix.len() + SEQUENCE_DIGITS_MAX + 1
}

/// Returns where the line of an own id is in an event: after that of its name.
fn id_place(body: &[u8]) -> usize {
    match body.starts_with(NAME_FIELD) {
        true => memchr::memchr(b'\n', body).map_or(0, |end| end + 1),
        false => 0,
    }
}

/// Returns whether these are the lines of one event as they are written. It may have an id
/// only if that is allowed.
fn is_event(bytes: &[u8], may_have_id: bool) -> bool {
    let Ok(text) = str::from_utf8(bytes) else {
        return false;
    };
    let Some(text) = text.strip_suffix("\n\n") else {
        return false;
    };
    if memchr::memchr(b'\r', bytes).is_some() {
        return false;
    }
    let is_name = |line: &&str| {
        let name = line.strip_prefix("event: ");
        name.is_some_and(|name| (1..=NAME_BYTES_MAX).contains(&name.len()))
    };
    let is_id = |line: &&str| {
        let id = line.strip_prefix("id: ");
        id.is_some_and(|id| check_id(id).is_ok())
    };
    let is_retry = |line: &&str| {
        let digits = line.strip_prefix("retry: ");
        digits.is_some_and(|digits| {
            let ms = digits.parse().ok().filter(|ms: &u32| *ms <= RETRY_MS_MAX);
            ms.is_some_and(|ms| itoa::Buffer::new().format(ms) == digits)
        })
    };
    let mut lines = text.split('\n').peekable();
    // The hub's id is stamped in front, a publisher's is behind the name.
    let is_stamped = may_have_id && lines.next_if(is_id).is_some();
    lines.next_if(is_name);
    if may_have_id && !is_stamped {
        lines.next_if(is_id);
    }
    lines.next_if(is_retry);
    lines.peek().is_some() && lines.all(|line| line.starts_with("data: "))
}

/// Ids and the fields before them are short, whatever the data.
fn position(at: usize) -> u16 {
    u16::try_from(at).expect("gap, name and id are limited to less than 600 bytes together")
}

const CHANNEL_FIELD: &[u8] = b"channel: ";

const NAME_FIELD: &[u8] = b"event: ";

const ID_FIELD: &[u8] = b"id: ";

/// The length of the sum in front of a compressed frame, in bytes.
const SUM_BYTES: usize = 8;

/// `u64::MAX` has 20 digits.
const SEQUENCE_DIGITS_MAX: usize = 20;

/// The longest prefix of an id, the epoch with its hyphen, in bytes: an id of at
/// most 64 bytes less the 20 digits of the largest sequence number.
pub const ID_PREFIX_BYTES_MAX: usize = 64 - SEQUENCE_DIGITS_MAX;

/// The largest scratch buffer a thread keeps, in bytes: one huge event should
/// not cost its size for good on every thread that ever published one.
const SCRATCH_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(frame: &Frame) -> &str {
        str::from_utf8(frame.as_bytes()).unwrap()
    }

    fn encoded(event: Event<'_>) -> String {
        text(&Frame::encode(&event, "k3x-").unwrap()).to_owned()
    }

    #[test]
    fn fields_come_in_order() {
        let event = Event::new("news", "hello")
            .with_id("own")
            .with_retry(Duration::from_millis(2_500));
        assert_eq!(
            encoded(event),
            "event: news\nid: own\nretry: 2500\ndata: hello\n\n"
        );
        assert_eq!(encoded(Event::default()), "data: \n\n");
        assert_eq!(encoded(Event::new("", "x").with_key("k")), "data: x\n\n");
    }

    #[test]
    fn data_is_split_at_every_kind_of_line_end() {
        for (data, lines) in [
            ("a\nb", "data: a\ndata: b\n\n"),
            ("a\rb", "data: a\ndata: b\n\n"),
            ("a\r\nb", "data: a\ndata: b\n\n"),
            ("a\n\rb", "data: a\ndata: \ndata: b\n\n"),
            ("a\r\r\nb", "data: a\ndata: \ndata: b\n\n"),
            ("a\n", "data: a\ndata: \n\n"),
            ("\r", "data: \ndata: \n\n"),
            ("\n\n", "data: \ndata: \ndata: \n\n"),
            (" a", "data:  a\n\n"),
            ("a\n\nid: 9", "data: a\ndata: \ndata: id: 9\n\n"),
        ] {
            assert_eq!(encoded(Event::message(data)), lines, "{data:?}");
        }
    }

    #[test]
    fn a_decoded_frame_is_its_event_with_line_ends_as_a_browser_sees_them() {
        let delay = Duration::from_millis(2_500);
        for event in [
            Event::default(),
            Event::new("news", "hello"),
            Event::message("data: x\nid: 9\n\n").with_retry(delay),
            Event::message(" a\n\n: b\n").with_name("a: b"),
        ] {
            let mut frame = Frame::encode(&event, "k3x-").unwrap();
            assert_eq!(frame.decode(), event);
            frame.stamp("k3x-", 17);
            assert_eq!(frame.decode(), event);
            let own_id = event.clone().with_id("data: x");
            assert_eq!(Frame::encode(&own_id, "k3x-").unwrap().decode(), event);
        }
        let event = Event::message("a\r\nb\rc");
        let decoded = Frame::encode(&event, "k3x-").unwrap().decode();
        assert_eq!(decoded.data(), "a\nb\nc");
    }

    #[test]
    fn an_event_is_put_together_again_from_its_body() {
        let delay = Duration::from_millis(2_500);
        for event in [
            Event::default(),
            Event::new("news", "a\nb"),
            Event::new("id: 9", "id: 9").with_retry(delay),
            Event::message("event: x\n\0").with_retry(delay),
        ] {
            for event in [event.clone(), event.with_id("data: x")] {
                let encoded = Frame::encode(&event, "k3x-").unwrap();
                let mut stamped = encoded.clone();
                if event.id().is_none() {
                    stamped = Frame::encode(&event, "k3x-").unwrap();
                    stamped.stamp("k3x-", 17);
                }
                for frame in [&encoded, &stamped] {
                    let body = frame.body(event.id()).concat();
                    assert!(!body.starts_with(ID_FIELD), "{frame:?}");
                    let mut again = Frame::from_body(&body, event.id(), "k3x-").unwrap();
                    assert_eq!(again.as_bytes(), encoded.as_bytes());
                    again.stamp("k3x-", 17);
                    assert_eq!(again.as_bytes(), stamped.as_bytes());
                }
            }
        }
    }

    #[test]
    fn a_body_is_exactly_one_event() {
        let long_name = format!("event: {}\ndata: x\n\n", "n".repeat(NAME_BYTES_MAX + 1));
        for body in [
            "",
            "\n\n",
            "data: x\n",
            "data: x",
            "data:x\n\n",
            "data: x\n\n\n",
            "data: x\n\ndata: y\n\n",
            "data: x\r\n\n",
            "data: x\nid: 9\n\n",
            "id: 9\ndata: x\n\n",
            "id\ndata: x\n\n",
            "event: n\n\n",
            "event: \ndata: x\n\n",
            &long_name,
            "data: x\nevent: n\n\n",
            "event: n\nevent: n\ndata: x\n\n",
            "retry: 1\nevent: n\ndata: x\n\n",
            "retry: 1\nretry: 1\ndata: x\n\n",
            "retry: 01\ndata: x\n\n",
            "retry: +1\ndata: x\n\n",
            "retry: \ndata: x\n\n",
            "retry: 4294967296\ndata: x\n\n",
            "retry: 2147483648\ndata: x\n\n",
            ": hi\ndata: x\n\n",
        ] {
            assert!(
                Frame::from_body(body.as_bytes(), None, "k3x-").is_none(),
                "{body:?}"
            );
        }
        assert!(Frame::from_body(b"data: \xff\n\n", None, "k3x-").is_none());
        let with_id = b"event: n\nid: 9\nretry: 1\ndata: x\n\n";
        assert!(Frame::from_event(with_id).is_some());
        assert!(Frame::from_event(b"id: 9\nevent: n\ndata: x\n\n").is_some());
        assert!(Frame::from_body(with_id, None, "k3x-").is_none());
        for forged in [
            "id: \ndata: x\n\n",
            "id: 9\nid: 9\ndata: x\n\n",
            "id: 9\n\n",
        ] {
            assert!(Frame::from_event(forged.as_bytes()).is_none(), "{forged:?}");
        }
    }

    #[test]
    fn a_stamp_fits_any_sequence_number_and_may_be_renewed() {
        let longest = "e".repeat(ID_PREFIX_BYTES_MAX);
        for prefix in ["", "k3x-", &longest] {
            let mut frame = Frame::encode(&Event::new("n", "d"), prefix).unwrap();
            for sequence in [0, 9, 10, u64::MAX, 17] {
                frame.stamp(prefix, sequence);
                let whole = format!("id: {prefix}{sequence}\nevent: n\ndata: d\n\n");
                assert_eq!(text(&frame), whole);
                assert_eq!(frame.len(), whole.len());
            }
        }
    }

    #[test]
    fn what_is_not_to_be_stamped_stays_as_it_is() {
        let own = Frame::encode(&Event::new("n", "d").with_id("é1"), "k3x-").unwrap();
        let engines = Frame::internal("pushwheel.gap", Some("k3x-4"), None, "{}");
        let anonymous = Frame::internal("pushwheel.reauth", None, Some(Duration::ZERO), "a\nb");
        let raw = Frame::raw(b": hi\n\n");
        for (mut frame, whole) in [
            (own, "event: n\nid: é1\ndata: d\n\n"),
            (engines, "event: pushwheel.gap\nid: k3x-4\ndata: {}\n\n"),
            (
                anonymous,
                "event: pushwheel.reauth\nretry: 0\ndata: a\ndata: b\n\n",
            ),
            (raw, ": hi\n\n"),
        ] {
            let reader = frame.clone();
            frame.stamp("k3x-", 17);
            assert_eq!(text(&frame), whole);
            assert_eq!(reader.as_bytes(), frame.as_bytes());
        }
        assert!(Frame::raw(b"").is_empty());
    }

    #[test]
    #[should_panic(expected = "before anyone shares it")]
    fn a_shared_frame_is_not_stamped() {
        let mut frame = Frame::encode(&Event::message("x"), "k3x-").unwrap();
        let _reader = frame.clone();
        frame.stamp("k3x-", 1);
    }

    #[test]
    #[should_panic(expected = "the gap was made for this prefix")]
    fn a_longer_prefix_does_not_fit() {
        let mut frame = Frame::encode(&Event::message("x"), "k3x-").unwrap();
        frame.stamp("k3xyz-", u64::MAX);
    }

    #[test]
    #[should_panic(expected = "the engine's own names")]
    fn even_the_engine_cannot_inject() {
        let _ = Frame::internal("pushwheel.gap\ndata: x", None, None, "");
    }

    #[test]
    fn reserved_names_are_refused_to_publishers() {
        let refused = Frame::encode(&Event::new("pushwheel.gap", ""), "k3x-");
        assert_eq!(refused.unwrap_err(), EventError::NameReserved);
    }

    #[test]
    fn nothing_of_an_event_is_left_for_the_next() {
        let huge = "x".repeat(2 * SCRATCH_BYTES_MAX);
        assert_eq!(
            encoded(Event::message(huge.as_str())),
            format!("data: {huge}\n\n")
        );
        assert!(SCRATCH.take().capacity() <= SCRATCH_BYTES_MAX);
        assert_eq!(
            encoded(Event::new("longer", "longer")),
            "event: longer\ndata: longer\n\n"
        );
        assert_eq!(encoded(Event::message("s")), "data: s\n\n");
    }

    #[test]
    fn a_delay_is_a_block_of_its_own() {
        assert_eq!(retry_line(3_000), b"retry: 3000\n");
        assert_eq!(retry_line(u32::MAX), b"retry: 4294967295\n");
    }

    #[test]
    fn debug_shows_the_bytes_as_text() {
        assert_eq!(format!("{:?}", Frame::raw(b"x:\n")), r#"Frame("x:\n")"#);
    }
}
