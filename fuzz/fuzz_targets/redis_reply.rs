//! See `checks/redis_reply.rs`. Run with `cargo +nightly fuzz run redis_reply`.

#![no_main]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::redis_reply::check(input));
