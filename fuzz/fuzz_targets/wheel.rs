//! See `checks/wheel.rs`. Run with `cargo +nightly fuzz run wheel`.

#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::wheel::check(input));
