//! `--io-uring`: sends an event to many clients in one system call, where Linux allows it.

use pushwheel::EngineBuilder;
use pushwheel_uring::UringSender;

/// Whether `io_uring` is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum IoUring {
    /// A system call for each client
    Off,
    /// One for many clients, if the kernel allows it
    Auto,
}

/// Has the engine use it. If that is not possible, the engine says why, once.
pub(super) fn apply(engine: EngineBuilder, io_uring: IoUring) -> EngineBuilder {
    match io_uring {
        IoUring::Off => engine,
        IoUring::Auto => engine.batch_senders(|| Ok(Box::new(UringSender::new()?))),
    }
}
