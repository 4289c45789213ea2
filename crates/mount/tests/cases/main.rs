//! The engine's own cases of replay, delivery, endings, compression and slow clients,
//! against mounted streams: over HTTP/1.1, and over HTTP/2 with TLS.
//!
//! The files of `http1` and `http2` are links to the engine's tests. Their clients speak
//! HTTP/1.1 to a gateway of the test (`front`), which forwards each request to hyper.

#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::duplicate_mod,
    clippy::unwrap_used,
    reason = "tests may fail; each case has the module `common`, and sees what an engine has"
)]

#[path = "../../../../tests/common/mod.rs"]
mod engine_common;
mod front;

mod http1 {
    #[path = "compression.rs"]
    mod compression;
    #[path = "delivery.rs"]
    mod delivery;
    #[path = "endings.rs"]
    mod endings;
    #[path = "keyed.rs"]
    mod keyed;
    #[path = "replay.rs"]
    mod replay;
}

mod http2 {
    #[path = "compression.rs"]
    mod compression;
    #[path = "delivery.rs"]
    mod delivery;
    #[path = "endings.rs"]
    mod endings;
    #[path = "keyed.rs"]
    mod keyed;
    #[path = "replay.rs"]
    mod replay;
}
