//! The clock of this process: the one place that reads it.

use std::io;
use std::time::{Duration, Instant};

#[allow(
    clippy::disallowed_methods,
    reason = "the edge: deadlines of sockets are counted from here"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Returns the time until a deadline.
///
/// # Errors
/// When there is none left.
pub(crate) fn remaining(deadline: Instant) -> io::Result<Duration> {
    let time = deadline.saturating_duration_since(now());
    match time.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(time),
    }
}
