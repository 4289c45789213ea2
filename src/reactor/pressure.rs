//! The log lines about the limits on all channels together.

use crate::hub::Pressure;

/// The time between two of these lines.
const LOG_MS: u64 = 60_000;

/// What was logged, and when the next line is due.
#[derive(Default)]
pub(super) struct PressureLog {
    logged: Pressure,
    due_ms: u64,
}

impl PressureLog {
    /// Logs that the limits were reached, at most once a minute.
    pub(super) fn warn(&mut self, pressure: Pressure, now_ms: u64) {
        if pressure == self.logged || now_ms < self.due_ms {
            return;
        }
        let before = std::mem::replace(&mut self.logged, pressure);
        self.due_ms = now_ms + LOG_MS;
        let evicted = pressure.evicted - before.evicted;
        if evicted > 0 {
            log::warn!(
                "{evicted} events were evicted because all channels together reached the limit \
                 on their memory. Keep less of each channel, or raise --history-total"
            );
        }
        let keys_evicted = pressure.keys_evicted - before.keys_evicted;
        if keys_evicted > 0 {
            log::warn!(
                "{keys_evicted} keys were evicted from channels that conflate. New clients \
                 receive a gap until these keys are published again or removed. Raise the \
                 limits of the keyed state, or remove unused keys"
            );
        }
        let displaced = pressure.displaced - before.displaced;
        if displaced > 0 {
            log::warn!(
                "{displaced} channels without events were closed to make room for those of \
                 publishers, because the limit of channels is reached. Raise --max-channels, or \
                 lower --max-unpublished-channels"
            );
        }
    }
}
