//! The one place where the engine reads a clock.
//!
//! Everything else takes the time as an argument, in milliseconds since the
//! hub was made, so that a simulated run repeats itself to the last byte.

#[cfg(feature = "internals")]
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
#[cfg(feature = "internals")]
use std::time::UNIX_EPOCH;
use std::time::{Duration, Instant, SystemTime};

/// Where a hub's time comes from: the system, or a counter that a test moves.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    /// What is added to the system's time: a restored history is older than
    /// this clock.
    ahead_ms: u64,
    /// What the wall clock showed when this clock stood at zero.
    started: SystemTime,
}

#[derive(Clone, Debug)]
enum Source {
    System(Instant),
    #[cfg(feature = "internals")]
    Manual(Arc<AtomicU64>),
}

/// What the wall clock shows now, in milliseconds since 1970.
#[allow(clippy::cast_possible_truncation, reason = "584 million years")]
#[allow(clippy::disallowed_methods, reason = "this is the edge")]
pub(crate) fn wall_now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

impl Clock {
    /// The system's monotonic clock, counted from now.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the edge")]
    pub fn system() -> Clock {
        Clock {
            source: Source::System(Instant::now()),
            ahead_ms: 0,
            started: SystemTime::now(),
        }
    }

    /// The system's clock, but one that stood at zero `ms` ago (as far as the
    /// wall clock can say when that was).
    pub(crate) fn system_begun_ago(ms: u64) -> Clock {
        let mut clock = Clock::system();
        if let Some(started) = clock.started.checked_sub(Duration::from_millis(ms)) {
            (clock.started, clock.ahead_ms) = (started, ms);
        }
        clock
    }

    /// A clock that stands still until somebody stores another number of
    /// milliseconds in `now_ms`. Its wall clock starts at the Unix epoch.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn manual(now_ms: Arc<AtomicU64>) -> Clock {
        Clock {
            source: Source::Manual(now_ms),
            ahead_ms: 0,
            started: UNIX_EPOCH,
        }
    }

    /// Milliseconds since this clock was made. Never goes back.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "584 million years")]
    #[allow(clippy::disallowed_methods, reason = "this is the edge")]
    pub fn now_ms(&self) -> u64 {
        let shown_ms = match &self.source {
            Source::System(start) => start.elapsed().as_millis() as u64,
            #[cfg(feature = "internals")]
            Source::Manual(now_ms) => now_ms.load(Ordering::Relaxed),
        };
        self.ahead_ms + shown_ms
    }

    /// The same in microseconds, to measure with.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the edge")]
    pub fn now_us(&self) -> u64 {
        let shown_us = match &self.source {
            Source::System(start) => {
                let shown = start.elapsed();
                shown.as_secs() * 1_000_000 + u64::from(shown.subsec_micros())
            }
            #[cfg(feature = "internals")]
            Source::Manual(now_ms) => now_ms.load(Ordering::Relaxed) * 1000,
        };
        self.ahead_ms * 1000 + shown_us
    }

    /// For how long there has been this clock: of a restored history, not since
    /// that began.
    #[must_use]
    pub fn age(&self) -> Duration {
        Duration::from_micros(self.now_us() - self.ahead_ms * 1000)
    }

    /// What the wall clock shows at `at_ms` of this clock.
    #[must_use]
    pub fn wall(&self, at_ms: u64) -> SystemTime {
        self.started + Duration::from_millis(at_ms)
    }
}
