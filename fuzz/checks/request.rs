//! Any bytes, in any pieces, come to the same requests, heads and bodies, and
//! to the same refusal.
//!
//! The first line of the input holds the lengths of the pieces, one byte each
//! (less one), taken in turn; the rest is what a connection sends.

use pushwheel::Method;
use pushwheel::internals::http::{Framing, Limits, Message};

use super::input::{Input, pieces};
use super::wire::run;

pub fn check(input: &[u8]) {
    let (lengths, bytes) = split(input);
    let mut tight = Limits::default();
    tight.request_line_bytes_max = 64;
    tight.head_bytes_max = 256;
    tight.headers_max = 6;
    tight.body_bytes_max = 32;
    for limits in [Limits::default(), tight] {
        let whole = run([bytes], &limits);
        assert_eq!(whole, run(pieces(bytes, lengths), &limits));
        assert_eq!(whole, run(bytes.chunks(1), &limits));
        for message in &whole.messages {
            check_message(message, &limits);
        }
    }
}

/// Returns the lengths of the pieces, and the bytes that a connection sends. An input
/// of one line is sent as a whole.
pub fn split(input: &[u8]) -> (&[u8], &[u8]) {
    let mut input = Input(input);
    match input.0.contains(&b'\n') {
        true => (input.line(), input.0),
        false => (&[], input.0),
    }
}

/// Checks what holds for every request that the parser accepts.
pub fn check_message(message: &Message, limits: &Limits) {
    let head = &message.head;
    assert!(head.path().starts_with('/') || head.path() == "*");
    assert!(head.target().is_ascii() && head.target().len() < limits.request_line_bytes_max);
    assert!(!head.target().contains(['\r', '\n', '\0', ' ', '#']));
    assert!(
        head.query()
            .is_none_or(|query| head.target().ends_with(query))
    );
    assert!(head.headers().count() <= limits.headers_max);
    for (name, value) in head.headers() {
        assert!(!name.is_empty() && head.header(name).is_some());
        assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)));
    }
    assert!(message.body.len() <= limits.body_bytes_max);
    let is_kept = !matches!(head.method(), Method::Get | Method::Head);
    assert!(is_kept || message.body.is_empty());
    match head.framing() {
        Framing::None => assert!(message.body.is_empty()),
        Framing::Length(length) if is_kept => assert_eq!(message.body.len() as u64, length),
        Framing::Length(_) => {}
        Framing::Chunked => assert!(head.header("content-length").is_none()),
    }
}
