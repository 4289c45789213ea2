//! See `checks/body.rs`. Run with `cargo +nightly fuzz run body`.

#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::body::check(input));
