//! What the fuzz targets hold the package against: for each target a function
//! that takes any bytes and panics when a promise is broken.
//!
//! `fuzz_targets/` gives them what libFuzzer makes up;
//! `tests/fuzz_corpus.rs` gives them the corpus. They use the package's `internals`
//! and public names, and share no code with what they check.

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
pub mod log;
pub mod message;
pub mod parser;
pub mod preface;
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
    ("log", log::check),
    ("message", message::check),
    ("parser", parser::check),
    ("preface", preface::check),
    ("request", request::check),
    ("resume", resume::check),
    ("target", target::check),
    ("wheel", wheel::check),
];
