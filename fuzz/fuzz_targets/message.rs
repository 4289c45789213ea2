//! See `checks/message.rs`. Run with `cargo +nightly fuzz run message`.

#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::message::check(input));
