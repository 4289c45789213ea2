//! See `checks/frame.rs`. Run with `cargo +nightly fuzz run frame`.

#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::frame::check(input));
