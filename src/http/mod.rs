//! HTTP/1.1 over bytes: requests in, response heads out.
//!
//! A [`Reader`] takes a connection's bytes in whatever pieces they arrive and
//! gives its requests back one by one; [`write_head`] writes the head of an
//! answer. Nothing in here does I/O, reads a clock or knows a route.
//!
//! Strict: what RFC 9112 calls ambiguous is a [`Refusal`], and after a refusal
//! the connection is answered and closed, because nobody can say any more where
//! the next request begins.
//!
//! The invariant to remember: **what comes out depends on the bytes alone,
//! never on how they were split**. Every check sits at a byte's position, so the
//! first fault in the stream is the one that is told. (The one exception is
//! [`Step::SendContinue`], which is about what has not arrived yet.)

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
pub use response::{BodyLength, CONTINUE, has_body, write_head};

pub use crate::limits::Limits;

/// The most headers that a request can have under any [`Limits`]. Parsing needs
/// a slot of 32 bytes for each on the stack: 8 KiB.
pub const HEADERS_CEILING: usize = 256;

/// Whether a token may hold this byte (`tchar`, RFC 9110 section 5.6.2).
/// Methods and header names are tokens.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a header's value may hold this byte (RFC 9110 section 5.5): visible
/// characters, space, tab, and `obs-text`, the bytes from 0x80 on.
fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}
