//! A body is decoded to the bytes that were sent, however it is framed and split, and the
//! next request begins right behind it.
//!
//! The first line of the input has the lengths of the pieces, the second one the lengths
//! and styles of the chunks; the rest is the body.

use pushwheel::internals::http::{Limits, Message};

use super::input::{Input, pieces};
use super::wire::run;

const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n";

pub fn check(input: &[u8]) {
    let mut input = Input(input);
    let lengths = input.line();
    let chunks = input.line();
    let body = input.0;

    let length = head(&format!("Content-Length: {}", body.len()));
    let by_length = [length.as_bytes(), body, NEXT].concat();
    let chunked = head("Transfer-Encoding: chunked");
    let by_chunks = [chunked.as_bytes(), &encode(body, chunks), NEXT].concat();

    let mut tight = Limits::default();
    tight.body_bytes_max = 32;
    for limits in [Limits::default(), tight] {
        for bytes in [&by_length, &by_chunks] {
            let whole = run([&**bytes], &limits);
            assert_eq!(whole, run(pieces(bytes, lengths), &limits));
            if body.len() > limits.body_bytes_max {
                assert!(whole.messages.is_empty());
                assert_eq!(whole.refusal.map(|refusal| refusal.status), Some(413));
                continue;
            }
            let [first, next] = &*whole.messages else {
                panic!("two requests were sent: {whole:?}");
            };
            assert_eq!((path_of(first), &*first.body), ("/first", body));
            assert_eq!((path_of(next), &*next.body), ("/next", &[][..]));
            assert!(whole.refusal.is_none() && whole.is_idle);
        }
    }
}

fn head(framing: &str) -> String {
    format!("POST /first HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n")
}

fn path_of(message: &Message) -> &str {
    message.head.path()
}

/// Returns the chunked coding of `body`: the bytes of `chunks` are the lengths, and their
/// bits select upper case, leading zeros, extensions and trailers.
fn encode(body: &[u8], chunks: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, chunk) in pieces(body, chunks).into_iter().enumerate() {
        let style = chunks.get(index).copied().unwrap_or(0);
        let size = match style % 3 {
            0 => format!("{:x}", chunk.len()),
            1 => format!("{:X}", chunk.len()),
            _ => format!("{:08x}", chunk.len()),
        };
        // Few enough for the limit on extensions, whatever the body.
        let extension = match index < 100 && style & 8 != 0 {
            true => " ;name=\"a b\"; 0",
            false => "",
        };
        out.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n");
    for style in chunks.iter().take(100).filter(|&style| style & 16 != 0) {
        out.extend_from_slice(format!("T{style}: GET / HTTP/1.1\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}
