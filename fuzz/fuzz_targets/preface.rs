//! See `checks/preface.rs`. Run with `cargo +nightly fuzz run preface`.

#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::preface::check(input));
