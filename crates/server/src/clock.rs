//! The clocks of the server: the edge where it reads the time.

use std::time::{Duration, Instant};

/// Counts time for how long streams lasted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch {
    started: Instant,
}

impl Stopwatch {
    #[allow(
        clippy::disallowed_methods,
        reason = "the edge: time is counted from here"
    )]
    pub(super) fn start() -> Stopwatch {
        Stopwatch {
            started: Instant::now(),
        }
    }

    pub(super) fn now(self) -> Duration {
        self.started.elapsed()
    }
}
