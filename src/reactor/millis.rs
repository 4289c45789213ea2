//! Durations in milliseconds, the unit of the loop's time.

use std::time::Duration;

/// Returns whole milliseconds, at most `u64::MAX`.
pub(crate) fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
