//! See `checks/journal_block.rs`. Run with `cargo +nightly fuzz run journal_block`.

#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::journal_block::check(input));
