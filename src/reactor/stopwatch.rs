//! The stopwatch of the loop: how long turns take, and events on their way.

use crate::metrics::Meters;

/// The number of turns without a sleep after which other threads may read what was
/// counted: some milliseconds.
const UNPUBLISHED_TURNS_MAX: u8 = 16;

/// Times the turns of the loop, and events on their way.
#[derive(Default)]
pub(crate) struct Stopwatch {
    began_us: u64,
    is_running: bool,
    /// Turns since it was time to tell.
    unpublished: u8,
    /// When the events were published whose last write was in this turn.
    published_us: Vec<u64>,
    /// From when on the next slow handler is logged.
    slow_log_due_us: u64,
}

/// A handler that runs for longer than this is logged: it holds up all clients of
/// its thread.
const SLOW_HANDLER_US: u64 = 100_000;
/// The time between two such log lines of a thread.
const SLOW_LOG_US: u64 = 60_000_000;

impl Stopwatch {
    /// Whether a turn's work has begun and is not known to be done.
    pub(crate) fn is_running(&self) -> bool {
        self.is_running
    }

    /// When this turn's work began, or the last one's.
    pub(crate) fn began_us(&self) -> u64 {
        self.began_us
    }

    /// Whether it is time to let others read what was counted: before a sleep,
    /// and after so many turns without one.
    pub(crate) fn is_due(&mut self, sleeps: bool) -> bool {
        self.unpublished = (self.unpublished + 1) % UNPUBLISHED_TURNS_MAX;
        sleeps || self.unpublished == 0
    }

    /// The poll is over, and the turn's work begins.
    pub(crate) fn begin(&mut self, now_us: u64) {
        (self.began_us, self.is_running) = (now_us, true);
    }

    /// Returns how long a handler ran, in milliseconds, if that is to be logged: it
    /// was slow, and no other one was logged in the last minute.
    pub(crate) fn slow_ms(&mut self, began_us: u64, now_us: u64) -> Option<u64> {
        let took_us = now_us.saturating_sub(began_us);
        if took_us < SLOW_HANDLER_US || now_us < self.slow_log_due_us {
            return None;
        }
        self.slow_log_due_us = now_us.saturating_add(SLOW_LOG_US);
        Some(took_us / 1000)
    }

    /// All current clients have what was published then.
    pub(crate) fn arrive(&mut self, published_us: u64) {
        self.published_us.push(published_us);
    }

    /// The turn's work is done.
    pub(crate) fn end(&mut self, now_us: u64, meters: &Meters) {
        if std::mem::take(&mut self.is_running) {
            meters.turns.observe(now_us.saturating_sub(self.began_us));
        }
        while let Some(published_us) = self.published_us.pop() {
            meters.latency.observe(now_us.saturating_sub(published_us));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_handler_is_reported_at_most_once_a_minute() {
        let mut stopwatch = Stopwatch::default();
        assert_eq!(stopwatch.slow_ms(5, SLOW_HANDLER_US), None, "not slow");
        assert_eq!(stopwatch.slow_ms(0, SLOW_HANDLER_US), Some(100));
        let due_us = SLOW_HANDLER_US + SLOW_LOG_US;
        assert_eq!(stopwatch.slow_ms(0, due_us - 1), None, "too soon");
        assert_eq!(stopwatch.slow_ms(due_us - 700_000, due_us), Some(700));
    }
}
