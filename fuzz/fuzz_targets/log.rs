//! See `checks/log.rs`. Run with `cargo +nightly fuzz run log`.

#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::log::check(input));
