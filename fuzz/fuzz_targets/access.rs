//! See `checks/access.rs`. Run with `cargo +nightly fuzz run access`.

#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::access::check(input));
