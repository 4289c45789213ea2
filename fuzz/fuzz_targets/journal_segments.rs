//! See `checks/journal_segments.rs`. Run with `cargo +nightly fuzz run journal_segments`.

#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::journal_segments::check(input));
