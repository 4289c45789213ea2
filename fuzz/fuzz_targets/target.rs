//! See `checks/target.rs`. Run with `cargo +nightly fuzz run target`.

#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::target::check(input));
