//! See `checks/resume.rs`. Run with `cargo +nightly fuzz run resume`.

#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::resume::check(input));
