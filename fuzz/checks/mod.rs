//! The checks of the fuzz targets: a function for each that panics if the bytes break a
//! promise.
//!
//! `fuzz_targets/` passes the inputs of libFuzzer, and `fuzz_corpus.rs` in the tests of
//! `crates/server` those of the corpus. The checks share no code with what they check.

#![allow(
    clippy::missing_panics_doc,
    dead_code,
    unreachable_pub,
    reason = "to panic is how a check says what it found"
)]

pub mod access;
pub mod body;
pub mod frame;
pub mod input;
pub mod journal_block;
pub mod journal_segments;
pub mod log;
pub mod message;
pub mod parser;
pub mod preface;
pub mod redis_reply;
pub mod request;
pub mod resume;
pub mod target;
pub mod wheel;
pub mod wire;

/// A check of any bytes.
pub type Check = fn(&[u8]);

/// Every target by its name.
pub const ALL: &[(&str, Check)] = &[
    ("access", access::check),
    ("body", body::check),
    ("frame", frame::check),
    ("journal_block", journal_block::check),
    ("journal_segments", journal_segments::check),
    ("log", log::check),
    ("message", message::check),
    ("parser", parser::check),
    ("preface", preface::check),
    ("redis_reply", redis_reply::check),
    ("request", request::check),
    ("resume", resume::check),
    ("target", target::check),
    ("wheel", wheel::check),
];
