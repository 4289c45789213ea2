//! The body of a request, decoded as its bytes arrive.
//!
//! Memory grows with the bytes that have arrived, not with those that are announced:
//! `Content-Length: 1000000` and ten bytes cost ten bytes.

use super::{Framing, Limits, Refusal, is_token_byte, is_value_byte};

/// Maximum bytes of chunk extensions of a body, all chunks together (RFC 9112 section
/// 7.1.1 asks for a limit). They are ignored.
const EXTENSION_BYTES_MAX: usize = 4 * 1024;

/// Maximum bytes of trailers after a chunked body. They are dropped (RFC 9112 section
/// 7.1.2 allows that).
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// Maximum hexadecimal digits of a chunk's size: more do not fit into 64 bits.
const SIZE_DIGITS_MAX: u8 = 16;

/// Finds the end of one body and decodes it on the way there.
#[derive(Debug)]
pub(super) enum Decoder {
    /// Number of bytes that are still to come.
    Length(usize),
    Chunked(Chunked),
}

impl Decoder {
    /// Returns a decoder at the beginning of a body; `None` if there is no body.
    ///
    /// # Errors
    ///
    /// The announced length is over the limit.
    pub(super) fn new(framing: Framing, limits: &Limits) -> Result<Option<Decoder>, Refusal> {
        match framing {
            Framing::None | Framing::Length(0) => Ok(None),
            Framing::Length(length) => match usize::try_from(length) {
                Ok(length) if length <= limits.body_bytes_max => Ok(Some(Decoder::Length(length))),
                _ => Err(Refusal::payload_too_large(limits)),
            },
            Framing::Chunked => Ok(Some(Decoder::Chunked(Chunked::default()))),
        }
    }

    /// Appends the decoded part of `input` to `body`. Returns the number of bytes of
    /// `input` that belong to the body, which is all of them until it is complete, and
    /// whether it is complete.
    pub(super) fn push(
        &mut self,
        input: &[u8],
        body: &mut Vec<u8>,
        limits: &Limits,
    ) -> Result<(usize, bool), Refusal> {
        match self {
            Decoder::Length(remaining) => {
                let part = &input[..input.len().min(*remaining)];
                reserve(body, part.len(), *remaining);
                body.extend_from_slice(part);
                *remaining -= part.len();
                Ok((part.len(), *remaining == 0))
            }
            Decoder::Chunked(chunked) => chunked.push(input, body, limits),
        }
    }
}

/// Makes room for a part that has arrived: a whole body gets its exact size, one in
/// pieces doubles, up to the `remaining` bytes that can come.
fn reserve(body: &mut Vec<u8>, part: usize, remaining: usize) {
    if body.capacity() - body.len() < part {
        body.reserve_exact(part.max(body.len()).min(remaining));
    }
}

/// The chunked transfer coding (RFC 9112 section 7.1).
#[derive(Debug, Default)]
pub(super) struct Chunked {
    at: At,
    /// The digits of the size read so far.
    digits: u8,
    /// The size of the chunk, then of the rest of its data.
    remaining: u64,
    extension_bytes: usize,
    trailer_bytes: usize,
}

/// The role of the next byte of a chunked body.
///
/// ```text
/// 5;name=value CR LF hello CR LF 0 CR LF Name: value CR LF CR LF
/// │└ Extension  │    │     │  │  └ Size  │     │           └ EndLf after the CR
/// └ Size        │    Data  │  DataLf     │     TrailerValue, then TrailerLf
///          SizeLf          DataCr        TrailerStart, TrailerName
/// ```
#[derive(Debug, Default, Clone, Copy)]
enum At {
    #[default]
    Size,
    /// After a space behind the size: only an extension may follow.
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

impl Chunked {
    fn push(
        &mut self,
        input: &[u8],
        body: &mut Vec<u8>,
        limits: &Limits,
    ) -> Result<(usize, bool), Refusal> {
        let mut consumed = 0;
        while let Some(&byte) = input.get(consumed) {
            self.at = match self.at {
                At::Data => {
                    consumed += self.take_data(&input[consumed..], body);
                    continue;
                }
                At::TrailerStart
                | At::TrailerName
                | At::TrailerValue
                | At::TrailerLf
                | At::EndLf => {
                    consumed += 1;
                    match self.trailer(byte)? {
                        Some(at) => at,
                        None => return Ok((consumed, true)),
                    }
                }
                _ => {
                    consumed += 1;
                    self.chunk_line(byte, body.len(), limits)?
                }
            };
        }
        Ok((consumed, false))
    }

    /// Appends the part of a chunk's data that has arrived.
    fn take_data(&mut self, input: &[u8], body: &mut Vec<u8>) -> usize {
        let length = usize::try_from(self.remaining).map_or(input.len(), |n| n.min(input.len()));
        body.extend_from_slice(&input[..length]);
        self.remaining -= length as u64;
        if self.remaining == 0 {
            self.at = At::DataCr;
        }
        length
    }

    /// Reads one byte in front of or behind a chunk's data. A line ends with CR LF, never
    /// with one of them alone: other parsers differ on that.
    fn chunk_line(&mut self, byte: u8, body_bytes: usize, limits: &Limits) -> Result<At, Refusal> {
        match (self.at, byte) {
            (At::Size, _) if byte.is_ascii_hexdigit() => self.size_digit(byte),
            (At::Size | At::SizeSpace, b';') if self.digits > 0 => Ok(At::Extension),
            // RFC 9112 section 7.1.1: bad whitespace (BWS) before an extension.
            (At::Size | At::SizeSpace, b' ' | b'\t') if self.digits > 0 => {
                self.count_extension(At::SizeSpace)
            }
            (At::Size, b'\r') if self.digits > 0 => Ok(At::SizeLf),
            (At::Size | At::SizeSpace, _) => Err(Refusal::chunk(
                "a chunk does not begin with its size. Send hexadecimal digits, then CR LF",
            )),
            (At::Extension, b'\r') => Ok(At::SizeLf),
            (At::Extension, _) if is_value_byte(byte) => self.count_extension(At::Extension),
            (At::SizeLf, b'\n') => self.size_end(body_bytes, limits),
            (At::DataCr, b'\r') => Ok(At::DataLf),
            (At::DataLf, b'\n') => Ok(At::Size),
            (At::DataCr | At::DataLf, _) => Err(Refusal::chunk(
                "a chunk is longer than its size. Send CR LF after exactly that many bytes",
            )),
            _ => Err(Refusal::chunk(
                "a chunk's first line contains a control character or does not end with CR LF. Send the size, then CR LF",
            )),
        }
    }

    fn size_digit(&mut self, byte: u8) -> Result<At, Refusal> {
        if self.digits == SIZE_DIGITS_MAX {
            return Err(Refusal::chunk(
                "a chunk's size has more than 16 digits. Send it without leading zeros",
            ));
        }
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        self.digits += 1;
        self.remaining = self.remaining << 4 | u64::from(digit);
        Ok(At::Size)
    }

    fn size_end(&mut self, body_bytes: usize, limits: &Limits) -> Result<At, Refusal> {
        self.digits = 0;
        if self.remaining == 0 {
            return Ok(At::TrailerStart);
        }
        let room = limits.body_bytes_max.saturating_sub(body_bytes);
        if self.remaining > room as u64 {
            return Err(Refusal::payload_too_large(limits));
        }
        Ok(At::Data)
    }

    fn count_extension(&mut self, next: At) -> Result<At, Refusal> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err(Refusal::chunk(
                "the chunk extensions are longer than 4096 bytes. Leave them out",
            ));
        }
        Ok(next)
    }

    /// Reads one byte behind the last chunk. Returns `None` when the body is complete.
    fn trailer(&mut self, byte: u8) -> Result<Option<At>, Refusal> {
        let next = match (self.at, byte) {
            (At::TrailerStart, b'\r') => At::EndLf,
            (At::EndLf, b'\n') => return Ok(None),
            (At::TrailerStart | At::TrailerName, _) if is_token_byte(byte) => At::TrailerName,
            (At::TrailerName, b':') => At::TrailerValue,
            (At::TrailerValue, b'\r') => At::TrailerLf,
            (At::TrailerValue, _) if is_value_byte(byte) => At::TrailerValue,
            (At::TrailerLf, b'\n') => At::TrailerStart,
            _ => {
                return Err(Refusal::chunk(
                    "a trailer is not `Name: value` and CR LF. Correct it, or leave the trailers out",
                ));
            }
        };
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(Refusal::trailers_too_large(TRAILER_BYTES_MAX));
        }
        Ok(Some(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes all of `input` at once, and byte by byte; both must agree.
    fn decode(input: &[u8], limits: &Limits) -> Result<(Vec<u8>, usize, bool), Refusal> {
        let run = |piece: usize| {
            let mut decoder = Decoder::Chunked(Chunked::default());
            let (mut body, mut consumed) = (Vec::new(), 0);
            for piece in input.chunks(piece.max(1)) {
                let (taken, is_complete) = decoder.push(piece, &mut body, limits)?;
                consumed += taken;
                if is_complete {
                    return Ok((body, consumed, true));
                }
                assert_eq!(taken, piece.len());
            }
            Ok((body, consumed, false))
        };
        let whole = run(input.len());
        assert_eq!(whole, run(1), "a split changed the outcome");
        whole
    }

    fn code(input: &[u8]) -> &'static str {
        decode(input, &Limits::default()).unwrap_err().code
    }

    #[test]
    fn chunks_are_put_together() {
        let input = b"5\r\nhello\r\n00A\r\n, world 10\r\n0\r\n\r\nGET";
        let (body, consumed, is_complete) = decode(input, &Limits::default()).unwrap();
        assert_eq!(body, b"hello, world 10");
        assert_eq!((consumed, is_complete), (input.len() - 3, true));
    }

    #[test]
    fn extensions_and_trailers_are_ignored() {
        let input = b"3;a=b;c=\"d e\"\r\nabc\r\n0 ;last\r\nX-Sum: 1\r\nEmpty:\r\n\r\n";
        let (body, _, is_complete) = decode(input, &Limits::default()).unwrap();
        assert_eq!((&body[..], is_complete), (&b"abc"[..], true));
    }

    #[test]
    fn hostile_chunks_are_refused() {
        let hostile: &[&[u8]] = &[
            b"\r\n",                       // no size
            b";x\r\n",                     // no size but an extension
            b" 5\r\n",                     // a space before the size
            b"5 \r\n",                     // a space behind it and no extension
            b"5 5\r\n",                    // two sizes
            b"0x5\r\n",                    // a prefix
            b"+5\r\n",                     // a sign
            b"-1\r\n",                     // a sign
            b"5\nhello",                   // a bare LF (RFC 9112 section 7.1)
            b"5\rhello",                   // a bare CR
            b"5;a\nhello",                 // a bare LF in an extension
            b"5;a\0\r\n",                  // a NUL in an extension
            b"5\r\nhello!\r\n",            // too much data
            b"5\r\nhello\n0\r\n\r\n",      // a bare LF after the data
            b"5\r\nhello\r0",              // a bare CR after the data
            b"00000000000000005\r\nhello", // 17 digits
            b"10000000000000000\r\n",      // 2^64
            b"0\r\n\n",                    // a bare LF at the end
            b"0\r\nName : value\r\n\r\n",  // a space before the colon
            b"0\r\n folded\r\n\r\n",       // a folded trailer
            b"0\r\nName\r\n\r\n",          // no colon
            b"0\r\nName: a\0b\r\n\r\n",    // a NUL in a trailer
            b"0\r\nName: a\nb\r\n\r\n",    // a bare LF in a trailer
        ];
        for input in hostile {
            assert_eq!(code(input), "chunk_invalid", "{}", input.escape_ascii());
        }
    }

    #[test]
    fn a_size_that_would_overflow_is_too_large_and_nothing_else() {
        assert_eq!(code(b"ffffffffffffffff\r\n"), "payload_too_large");
        assert_eq!(code(b"1\r\na\r\nFFFFFFFFFFFFFFFF\r\n"), "payload_too_large");
    }

    #[test]
    fn the_body_limit_counts_all_chunks_and_strikes_before_the_data() {
        let limits = Limits {
            body_bytes_max: 8,
            ..Limits::default()
        };
        let (body, ..) = decode(b"4\r\nabcd\r\n4\r\nefgh\r\n", &limits).unwrap();
        assert_eq!(body, b"abcdefgh");
        let refusal = decode(b"4\r\nabcd\r\n5\r\n", &limits).unwrap_err();
        assert_eq!((refusal.status, refusal.code), (413, "payload_too_large"));
    }

    #[test]
    fn extensions_and_trailers_have_limits() {
        let small_chunks = b"1;extension\r\na\r\n".repeat(500);
        assert_eq!(code(&small_chunks), "chunk_invalid");
        let trailers = [&b"0\r\n"[..], &b"Name: value\r\n".repeat(1000)].concat();
        assert_eq!(code(&trailers), "trailers_too_large");
    }

    #[test]
    fn an_announced_length_takes_no_memory() {
        let limits = Limits::default();
        let length = Framing::Length(1024 * 1024);
        let mut decoder = Decoder::new(length, &limits).unwrap().unwrap();
        let mut body = Vec::new();
        for arrived in 1..=1000 {
            decoder.push(b"a", &mut body, &limits).unwrap();
            assert!(body.capacity() <= 2 * arrived);
        }
    }

    #[test]
    fn a_body_in_pieces_never_takes_more_than_its_length() {
        let limits = Limits::default();
        let mut decoder = Decoder::new(Framing::Length(100), &limits)
            .unwrap()
            .unwrap();
        let mut body = Vec::new();
        for _ in 0..99 {
            assert_eq!(decoder.push(b"a", &mut body, &limits), Ok((1, false)));
        }
        assert_eq!(decoder.push(b"aGET", &mut body, &limits), Ok((1, true)));
        assert_eq!((body.len(), body.capacity()), (100, 100));
    }
}
