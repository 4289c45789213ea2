//! The requests of one connection, from bytes that arrive in any pieces.
//!
//! ```text
//!            ┌───────── a whole request in one input: never leaves Between ────────┐
//!            ▼                                                                     │
//! Between (owns nothing) ── a piece of a head ──► Head ── its end ──► Body ── its end
//!            any of them ── what RFC 9112 forbids, or a limit ──► Refused, for good
//! ```
//!
//! The end of a head is searched as its bytes come, each byte once, and the head
//! is parsed once it is complete: a head that drips in costs no more than one
//! that comes at once.

use std::mem;

use super::body::Decoder;
use super::parse::parse;
use super::{HEADERS_CEILING, Head, Limits, Method, Refusal, is_token_byte};

/// How many empty lines may stand before a request (RFC 9112 section 2.2 asks
/// for patience with one).
const EMPTY_LINES_MAX: u8 = 8;

/// Reads one request after the other from one connection's bytes.
///
/// Between requests it owns no memory and takes 16 bytes. Within a request it
/// owns at most twice what has arrived of it, and so at most twice what the
/// [`Limits`] allow; a complete head has 32 bytes for each header besides.
///
/// ```
/// # #[cfg(feature = "internals")] {
/// # use pushwheel::internals::http::{Limits, Reader, Step};
/// let mut reader = Reader::new();
/// let input = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HT";
///
/// let (consumed, step) = reader.push(input, &Limits::default()).unwrap();
/// let Step::Request(message) = step else { panic!("the first request is complete") };
/// assert_eq!(message.head.path(), "/a");
///
/// let (rest, step) = reader.push(&input[consumed..], &Limits::default()).unwrap();
/// assert_eq!(step, Step::NeedMore);
/// assert_eq!(consumed + rest, input.len());
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Reader {
    state: State,
}

/// What a [`Reader`] made of the bytes it was given.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// All of the input was taken, and the request goes on: read more.
    NeedMore,
    /// All of the input was taken; the client has sent a head and waits with its
    /// body. Write [`CONTINUE`](super::CONTINUE) and read more, or answer and
    /// close. Comes at most once for a request, and not when some of the body
    /// came with the head.
    SendContinue,
    /// A request is complete. There may be another behind it in the input.
    Request(Message),
}

/// A complete request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its head.
    pub head: Head,
    /// Its decoded body; empty if it has none, or no meaning.
    pub body: Vec<u8>,
}

// Boxed, so that a connection between requests is small.
#[derive(Debug)]
enum State {
    Between(EmptyLines),
    Head(Box<PartialHead>),
    Body(Box<PartialBody>),
    /// For good, and whether the request's method is HEAD.
    Refused(Box<Refusal>, bool),
}

impl Default for State {
    fn default() -> Self {
        State::Between(EmptyLines::default())
    }
}

/// What has been skipped in front of a request.
#[derive(Debug, Default, PartialEq, Eq)]
struct EmptyLines {
    lines: u8,
    is_after_cr: bool,
}

#[derive(Debug)]
struct PartialHead {
    bytes: Vec<u8>,
    scan: Scan,
}

#[derive(Debug)]
struct PartialBody {
    head: Head,
    body: Vec<u8>,
    decoder: Decoder,
}

type Turn = Result<(State, usize, Step), Refusal>;

impl Reader {
    /// A reader at the beginning of a connection.
    pub fn new() -> Self {
        Reader::default()
    }

    /// Takes the next bytes of the connection, up to the end of one request, and
    /// says how many it took and what they came to. It takes at least one byte
    /// if there is one, and all of them unless it gives a [`Step::Request`].
    /// Push the rest again.
    ///
    /// A request that lies in `input` as a whole is copied once, out of it, and
    /// nothing else is allocated for it.
    ///
    /// # Errors
    ///
    /// The request breaks a rule or a limit. Answer it with the refusal and
    /// close the connection: every later push gives the same refusal again.
    pub fn push(&mut self, input: &[u8], limits: &Limits) -> Result<(usize, Step), Refusal> {
        let is_of_head = match &self.state {
            State::Head(partial) => names_head(partial.bytes.iter().chain(input)),
            _ => self.is_of_head(),
        };
        let is_first = matches!(self.state, State::Between(_));
        let turn = match mem::take(&mut self.state) {
            State::Between(lines) => begin(lines, input, limits),
            State::Head(partial) => resume_head(partial, input, limits),
            State::Body(partial) => resume_body(partial, input, limits),
            State::Refused(refusal, _) => Err(*refusal),
        };
        match turn {
            Ok((state, consumed, step)) => {
                self.state = state;
                Ok((consumed, step))
            }
            Err(refusal) => {
                let is_of_head = match is_first {
                    true => names_head(input.iter().skip_while(|byte| b"\r\n".contains(byte))),
                    false => is_of_head,
                };
                self.state = State::Refused(Box::new(refusal.clone()), is_of_head);
                Err(refusal)
            }
        }
    }

    /// Whether nothing of a next request has been seen, not even an empty line
    /// before it.
    pub fn is_idle(&self) -> bool {
        matches!(&self.state, State::Between(lines) if *lines == EmptyLines::default())
    }

    /// Returns whether the request that is under way, or was refused, has the
    /// method HEAD, as far as its method has come: whatever it is answered, the
    /// answer has no body (RFC 9110 section 9.3.2).
    pub fn is_of_head(&self) -> bool {
        match &self.state {
            State::Between(_) => false,
            State::Head(partial) => names_head(&partial.bytes),
            State::Body(partial) => *partial.head.method() == Method::Head,
            State::Refused(_, is_of_head) => *is_of_head,
        }
    }

    /// Whether a head is complete and its body is not.
    pub fn is_in_body(&self) -> bool {
        matches!(self.state, State::Body(_))
    }

    /// The head whose body is not complete yet.
    pub fn head_of_body(&self) -> Option<&Head> {
        match &self.state {
            State::Body(partial) => Some(&partial.head),
            _ => None,
        }
    }
}

/// Whether a request that begins with these bytes has the method HEAD.
fn names_head<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> bool {
    bytes.into_iter().take(5).eq(b"HEAD ")
}

/// Skips empty lines, then starts on a head.
fn begin(mut lines: EmptyLines, input: &[u8], limits: &Limits) -> Turn {
    for (at, &byte) in input.iter().enumerate() {
        match byte {
            b'\r' if !lines.is_after_cr => lines.is_after_cr = true,
            b'\n' if lines.is_after_cr => {
                lines.is_after_cr = false;
                lines.lines += 1;
                if lines.lines > EMPTY_LINES_MAX {
                    return Err(Refusal::too_many_empty_lines());
                }
            }
            _ if lines.is_after_cr || byte == b'\n' => return Err(Refusal::line_end()),
            // Told at the first byte: a TLS hello never gets to the end of a line.
            _ if !is_token_byte(byte) => return Err(Refusal::request_line()),
            _ => return begin_head(input, at, limits),
        }
    }
    Ok((State::Between(lines), input.len(), Step::NeedMore))
}

/// Starts on the head that begins at `start`.
fn begin_head(input: &[u8], start: usize, limits: &Limits) -> Turn {
    let mut scan = Scan::default();
    let rest = &input[start..];
    match scan.push(rest, limits)? {
        Some(end) => finish_head(rest[..end].to_vec(), input, start + end, limits),
        None => {
            let bytes = rest.to_vec();
            let partial = Box::new(PartialHead { bytes, scan });
            Ok((State::Head(partial), input.len(), Step::NeedMore))
        }
    }
}

fn resume_head(mut partial: Box<PartialHead>, input: &[u8], limits: &Limits) -> Turn {
    match partial.scan.push(input, limits)? {
        Some(end) => {
            let mut bytes = partial.bytes;
            bytes.extend_from_slice(&input[..end]);
            finish_head(bytes, input, end, limits)
        }
        None => {
            partial.bytes.extend_from_slice(input);
            Ok((State::Head(partial), input.len(), Step::NeedMore))
        }
    }
}

/// Parses a complete head; its body begins at `start` of the input.
fn finish_head(bytes: Vec<u8>, input: &[u8], start: usize, limits: &Limits) -> Turn {
    let head = parse(bytes)?;
    let Some(decoder) = Decoder::new(head.framing(), limits)? else {
        let body = Vec::new();
        return Ok((
            State::default(),
            start,
            Step::Request(Message { head, body }),
        ));
    };
    let waits = head.expects_continue() && start == input.len();
    let mut partial = PartialBody {
        head,
        body: Vec::new(),
        decoder,
    };
    if waits {
        return Ok((State::Body(Box::new(partial)), start, Step::SendContinue));
    }
    let (taken, is_complete) = partial.push(&input[start..], limits)?;
    if is_complete {
        return Ok((State::default(), start + taken, partial.into_step()));
    }
    Ok((State::Body(Box::new(partial)), input.len(), Step::NeedMore))
}

fn resume_body(mut partial: Box<PartialBody>, input: &[u8], limits: &Limits) -> Turn {
    let (taken, is_complete) = partial.push(input, limits)?;
    if is_complete {
        return Ok((State::default(), taken, partial.into_step()));
    }
    Ok((State::Body(partial), taken, Step::NeedMore))
}

impl PartialBody {
    fn push(&mut self, input: &[u8], limits: &Limits) -> Result<(usize, bool), Refusal> {
        let pushed = self.decoder.push(input, &mut self.body, limits);
        if matches!(self.head.method(), Method::Get | Method::Head) {
            // The content of these has no meaning (RFC 9110 section 9.3.1).
            self.body.clear();
        }
        pushed
    }

    fn into_step(self) -> Step {
        Step::Request(Message {
            head: self.head,
            body: self.body,
        })
    }
}

/// The search for the end of a head: line by line, in step with the bytes.
#[derive(Debug, Default)]
struct Scan {
    /// Bytes of the head so far.
    head_bytes: usize,
    /// Bytes of the current line so far.
    line_bytes: usize,
    /// Complete lines so far, the request line among them.
    lines: usize,
    is_after_cr: bool,
}

impl Scan {
    /// Where the head ends in `input`, if it does.
    ///
    /// A line ends with CR LF. RFC 9112 section 2.2 would let a server take a
    /// bare LF too; as not every proxy does, the two could see different
    /// requests, so it is refused. (A bare CR is found when the head is parsed.)
    fn push(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, Refusal> {
        let mut start = 0;
        while let Some(length) = memchr::memchr(b'\n', &input[start..]) {
            let line = &input[start..start + length];
            self.count(line, limits)?;
            let has_cr = self.is_after_cr;
            self.count(b"\n", limits)?;
            if !has_cr {
                return Err(Refusal::line_end());
            }
            start += line.len() + 1;
            if self.line_bytes == 2 {
                return Ok(Some(start));
            }
            self.lines += 1;
            self.line_bytes = 0;
            let headers_max = limits.headers_max.min(HEADERS_CEILING);
            if self.lines > headers_max + 1 {
                return Err(Refusal::too_many_headers(headers_max));
            }
        }
        self.count(&input[start..], limits)?;
        Ok(None)
    }

    /// Counts bytes of one line against the limits.
    fn count(&mut self, bytes: &[u8], limits: &Limits) -> Result<(), Refusal> {
        if let Some(&last) = bytes.last() {
            self.is_after_cr = last == b'\r';
        }
        self.head_bytes += bytes.len();
        self.line_bytes += bytes.len();
        let request_line_max = limits.request_line_bytes_max.min(limits.head_bytes_max);
        if self.lines == 0 && self.line_bytes > request_line_max {
            return Err(Refusal::uri_too_long(request_line_max));
        }
        if self.head_bytes > limits.head_bytes_max {
            return Err(Refusal::head_too_large(limits.head_bytes_max));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
