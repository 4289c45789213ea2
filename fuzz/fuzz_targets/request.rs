//! Any bytes, in any pieces, come to the same requests and the same refusal.
//!
//! The first line of the input holds the lengths of the pieces, one byte each
//! (less one), taken in turn; the rest is what a connection sends. Run with
//! `cargo +nightly fuzz run request`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushwheel::internals::http::{Framing, Limits, Message, Reader, Refusal, Step};

fuzz_target!(|input: &[u8]| {
    let lengths_end = input.iter().position(|&byte| byte == b'\n');
    let (lengths, bytes) = match lengths_end {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (&[][..], input),
    };
    let tight = Limits {
        request_line_bytes_max: 64,
        head_bytes_max: 256,
        headers_max: 6,
        body_bytes_max: 32,
    };
    for limits in [Limits::default(), tight] {
        let whole = run([bytes], &limits);
        assert_eq!(whole, run(pieces(bytes, lengths), &limits));
        assert_eq!(whole, run(bytes.chunks(1), &limits));
        for message in &whole.messages {
            check(message, &limits);
        }
    }
});

/// What came out of a connection, and where it stands.
#[derive(Debug, PartialEq)]
struct Outcome {
    messages: Vec<Message>,
    refusal: Option<Refusal>,
    is_idle: bool,
    is_in_body: bool,
}

fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Outcome {
    let mut reader = Reader::new();
    let mut messages = Vec::new();
    let mut refusal = None;
    'pieces: for mut piece in pieces {
        while !piece.is_empty() {
            match reader.push(piece, limits) {
                Ok((consumed, Step::Request(message))) => {
                    assert!(consumed > 0 && reader.is_idle());
                    messages.push(message);
                    piece = &piece[consumed..];
                }
                Ok((consumed, Step::NeedMore)) => {
                    assert_eq!(consumed, piece.len());
                    break;
                }
                Ok((consumed, Step::SendContinue)) => {
                    assert!(consumed == piece.len() && reader.is_in_body());
                    break;
                }
                Err(error) => {
                    refusal = Some(error);
                    break 'pieces;
                }
            }
        }
    }
    Outcome {
        messages,
        refusal,
        is_idle: reader.is_idle(),
        is_in_body: reader.is_in_body(),
    }
}

fn pieces<'a>(mut bytes: &'a [u8], lengths: &[u8]) -> Vec<&'a [u8]> {
    let mut lengths = lengths.iter().cycle();
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let length = lengths.next().map_or(1, |&length| usize::from(length) + 1);
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// What holds for every request that is taken.
fn check(message: &Message, limits: &Limits) {
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
    match head.framing() {
        Framing::None => assert!(message.body.is_empty()),
        Framing::Length(length) => assert_eq!(message.body.len() as u64, length),
        Framing::Chunked => assert!(head.header("content-length").is_none()),
    }
}
