//! The requests of one connection, from bytes that arrive in any pieces.
//!
//! ```text
//!            ┌───────── a whole request in one input: never leaves Between ────────┐
//!            ▼                                                                     │
//! Between (owns nothing) ── a piece of a head ──► Head ── its end ──► Body ── its end
//!            any of them ── what RFC 9112 forbids, or a limit ──► Refused, for good
//! ```
//!
//! The search for the end of a head looks at each byte once, when it arrives, and the head
//! is parsed when it is complete: a head in many pieces costs no more than one in one
//! piece.

use std::mem;

use super::body::Decoder;
use super::parse::parse;
use super::{HEADERS_CEILING, Head, Limits, Method, Refusal, is_token_byte};

/// Maximum empty lines in front of a request (RFC 9112 section 2.2 asks to ignore at least
/// one).
const EMPTY_LINES_MAX: u8 = 8;

/// Reads a connection's requests from its bytes.
///
/// Between requests it owns no memory and takes 16 bytes. Within a request it owns at most
/// twice the bytes that have arrived, so at most twice the [`Limits`], and 32 bytes for each
/// header of a complete head.
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

/// The result of the bytes that a [`Reader`] has read.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// All of the input was read, and the request is not complete: read more.
    NeedMore,
    /// All of the input was read. The client has sent a head and waits with its body. Write
    /// [`CONTINUE`](super::CONTINUE) and read more, or answer and close. Returned at most
    /// once for a request, and not if a part of the body came with the head.
    SendContinue,
    /// A request is complete. The input may contain another one behind it.
    Request(Message),
}

/// A complete request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The head.
    pub head: Head,
    /// The decoded body; empty if there is none, or if it has no meaning.
    pub body: Vec<u8>,
}

// Boxed, so that a connection between requests is small.
#[derive(Debug)]
enum State {
    Between(EmptyLines),
    Head(Box<PartialHead>),
    Body(Box<PartialBody>),
    /// Rejected for good, and whether the request's method is HEAD.
    Refused(Box<Refusal>, bool),
}

impl Default for State {
    fn default() -> Self {
        State::Between(EmptyLines::default())
    }
}

/// The bytes that were skipped in front of a request.
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
    /// Returns a reader for the beginning of a connection.
    pub fn new() -> Self {
        Reader::default()
    }

    /// Returns the bytes of a request whose head is not complete, or none between requests.
    /// `None` if a head was complete, or a request was rejected.
    pub(crate) fn begun(&self) -> Option<&[u8]> {
        match &self.state {
            State::Between(_) => Some(&[]),
            State::Head(partial) => Some(&partial.bytes),
            State::Body(_) | State::Refused(..) => None,
        }
    }

    /// Reads the next bytes of the connection, up to the end of one request. Returns the
    /// number of bytes that it has read and their result. It reads at least one byte if
    /// there is one, and all of them unless it returns a [`Step::Request`]. Push the rest
    /// again.
    ///
    /// A request that `input` contains as a whole is copied once, and nothing else is
    /// allocated for it.
    ///
    /// # Errors
    /// When the request breaks a rule or a limit. Answer with the refusal and close the
    /// connection: every later push returns the same refusal.
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

    /// Returns whether no byte of the next request has arrived, not even of an empty line
    /// before it.
    pub fn is_idle(&self) -> bool {
        matches!(&self.state, State::Between(lines) if *lines == EmptyLines::default())
    }

    /// Returns whether the request that is being read, or was rejected, has the method HEAD,
    /// as far as it is known: its response has no body (RFC 9110 section 9.3.2).
    pub fn is_of_head(&self) -> bool {
        match &self.state {
            State::Between(_) => false,
            State::Head(partial) => names_head(&partial.bytes),
            State::Body(partial) => *partial.head.method() == Method::Head,
            State::Refused(_, is_of_head) => *is_of_head,
        }
    }

    /// Returns whether a head is complete and its body is not.
    pub fn is_in_body(&self) -> bool {
        matches!(self.state, State::Body(_))
    }

    /// Takes what has arrived of a body that is not complete. The limit on the body counts
    /// from there.
    pub fn take_body(&mut self) -> Vec<u8> {
        match &mut self.state {
            State::Body(partial) => mem::take(&mut partial.body),
            _ => Vec::new(),
        }
    }

    /// Returns the head whose body is not complete.
    pub fn head_of_body(&self) -> Option<&Head> {
        match &self.state {
            State::Body(partial) => Some(&partial.head),
            _ => None,
        }
    }
}

/// Returns whether a request that begins with these bytes has the method HEAD.
fn names_head<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> bool {
    bytes.into_iter().take(5).eq(b"HEAD ")
}

/// Skips empty lines, then begins a head.
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
            // Rejected at the first byte: a TLS hello has no end of a line.
            _ if !is_token_byte(byte) => return Err(Refusal::request_line()),
            _ => return begin_head(input, at, limits),
        }
    }
    Ok((State::Between(lines), input.len(), Step::NeedMore))
}

/// Begins the head at `start`.
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

/// The search for the end of a head, line by line as the bytes arrive.
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
    /// Returns the end of the head in `input`, if it is there.
    ///
    /// A line ends with CR LF. RFC 9112 section 2.2 allows a server to accept a bare LF. Not
    /// every proxy does, and the two could see different requests, so it is rejected. (A
    /// bare CR is found when the head is parsed.)
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

    /// Checks the bytes of one line against the limits.
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
