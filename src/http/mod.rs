//! HTTP/1.1 over bytes: requests in, response heads out.
//!
//! A [`Reader`] reads a connection's bytes in any pieces and returns its requests one by
//! one; [`write_head`] writes the head of a response. Nothing here does I/O, reads a clock
//! or knows a route.
//!
//! Strict: what RFC 9112 calls ambiguous is a [`Refusal`]. After a refusal the connection is
//! answered and closed, because the beginning of the next request is unknown.
//!
//! The invariant to remember: **the result depends on the bytes alone, never on how they
//! were split**. Every check is made at a byte's position, so the first fault in the stream
//! is the one that is reported. (The exception is [`Step::SendContinue`], which is about
//! bytes that have not arrived.)

mod body;
mod head;
mod headers;
mod parse;
mod reader;
mod refusal;
mod response;

pub use head::{Framing, Head, Method, Persistence, Version};
pub(crate) use headers::check_stream_header;
pub use headers::{HeaderError, Headers};
pub use reader::{Message, Reader, Step};
pub use refusal::Refusal;
pub use response::{BodyLength, CONTINUE, LAST_CHUNK, has_body, write_head};

pub use crate::limits::Limits;

/// Maximum headers of a request under any [`Limits`]. Parsing needs 32 bytes on the stack
/// for each: 8 KiB.
pub const HEADERS_CEILING: usize = 256;

/// Returns whether a token may contain this byte (`tchar`, RFC 9110 section 5.6.2). Methods
/// and header names are tokens.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Returns whether a header's value may contain this byte (RFC 9110 section 5.5): visible
/// characters, space, tab, and `obs-text`, the bytes from 0x80 on.
fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}
