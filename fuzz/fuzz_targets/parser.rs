//! See `checks/parser.rs`. Run with `cargo +nightly fuzz run parser`.

#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::parser::check(input));
