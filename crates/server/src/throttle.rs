//! Limits warnings that a client can cause thousands of times a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Minimum time between two warnings of one kind.
const PERIOD_MS: u64 = 60_000;

/// Lets a warning through once a minute.
#[derive(Clone, Debug)]
pub(super) struct Throttle {
    started: Instant,
    /// The time of the next warning, in milliseconds since the start.
    due_at_ms: Arc<AtomicU64>,
}

impl Throttle {
    #[allow(
        clippy::disallowed_methods,
        reason = "the edge: milliseconds are counted from here"
    )]
    pub(super) fn new() -> Throttle {
        Throttle {
            started: Instant::now(),
            due_at_ms: Arc::default(),
        }
    }

    /// Whether a warning is due. The next one is due a minute later.
    #[allow(clippy::cast_possible_truncation, reason = "584 million years")]
    pub(super) fn is_due(&self) -> bool {
        self.is_due_at(self.started.elapsed().as_millis() as u64)
    }

    fn is_due_at(&self, now_ms: u64) -> bool {
        let due_at_ms = self.due_at_ms.load(Ordering::Relaxed);
        // Of two threads that find it due, one warns.
        now_ms >= due_at_ms
            && (self.due_at_ms)
                .compare_exchange(
                    due_at_ms,
                    now_ms + PERIOD_MS,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_due_once_a_minute() {
        let throttle = Throttle::new();
        let due = [0, 0, 1, 59_999, 60_000, 60_001, 500_000].map(|now_ms| {
            let is_due = throttle.is_due_at(now_ms);
            (now_ms, is_due)
        });
        let due: Vec<u64> = due
            .into_iter()
            .filter(|(_, is)| *is)
            .map(|(at, _)| at)
            .collect();
        assert_eq!(due, [0, 60_000, 500_000]);
    }
}
