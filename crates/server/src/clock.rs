//! The clocks of the server: the edge where it reads the time.

use std::time::{Duration, Instant, SystemTime};

/// Measures how long streams last.
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

/// Returns a time in whole milliseconds.
pub(super) fn as_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the wall clock's time, in seconds since 1970, as tokens have it.
#[allow(
    clippy::disallowed_methods,
    reason = "the edge: tokens name points in time"
)]
pub(super) fn unix_seconds() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}
