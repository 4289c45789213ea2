//! Each request that the parser accepts meets the promises of its type, and each
//! refusal is final.
//!
//! The input is laid out as that of [`request`](super::request) and shares its corpus.
//! The bytes are parsed once and in one piece, so that fuzzing gets far more of them
//! done than the comparison of pieces does.

use pushwheel::internals::http::Limits;

use super::request::{check_message, split};
use super::wire::run;

pub fn check(input: &[u8]) {
    let (_, bytes) = split(input);
    let limits = Limits::default();
    for message in &run([bytes], &limits).messages {
        check_message(message, &limits);
    }
}
