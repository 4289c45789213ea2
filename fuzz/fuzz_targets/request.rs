//! See `checks/request.rs`. Run with `cargo +nightly fuzz run request`.

#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::request::check(input));
