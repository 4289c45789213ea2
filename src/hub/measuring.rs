//! The figures of the hub and of its reactors, put together.

use super::Hub;
use super::lists::List;
use super::log::Log;
use super::looks::LOOKS_MAX;
use crate::metrics::{Backlog, Metrics};

impl Hub {
    /// What all reactors and channels come to.
    pub(crate) fn metrics(&self) -> Metrics {
        let mut metrics = self.engine_figures();
        metrics.uptime = self.clock.age();
        let state = self.lock();
        metrics.channels = state.names.len() as u64;
        metrics.events_published = state.totals.published;
        metrics.event_bytes_published = state.totals.published_bytes;
        metrics.deliveries = state.totals.delivered;
        metrics.gaps = state.totals.gaps;
        metrics.channels_unpublished = state.unpublished.len(List::Unpublished) as u64;
        metrics.channels_displaced = state.pressure.displaced;
        metrics.log_bytes = state.log_bytes as u64;
        let max = state.settings.log_bytes_max;
        metrics.log_bytes_max = (max < usize::MAX).then_some(max as u64);
        metrics.events_evicted = state.pressure.evicted;
        metrics.keys_evicted = state.pressure.keys_evicted;
        metrics
    }

    /// What the logs hold, and what of it waits for clients.
    pub(crate) fn backlog(&self) -> Backlog {
        let mut backlog = Backlog::default();
        let mut slot = 0;
        loop {
            let mut state = self.lock();
            let end = state.channels_capacity();
            let waiting = (slot..end.min(slot + LOOKS_MAX)).find_map(|at| {
                slot = at + 1;
                let (key, channel) = state.at(at)?;
                backlog.log_events += channel.log.len() as u64;
                backlog.log_bytes += channel.log.bytes() as u64;
                let needed_after = channel.needed_after();
                (needed_after < channel.log.head()).then_some((key, needed_after))
            });
            let Some((key, mut after)) = waiting else {
                if slot >= end {
                    return backlog;
                }
                continue;
            };
            while let Some(channel) = state.get(key) {
                match look(&channel.log, &mut after, &mut backlog) {
                    LOOKS_MAX => {
                        drop(state);
                        state = self.lock();
                    }
                    _ => break,
                }
            }
        }
    }
}

/// Adds up some of what comes after `after`, and moves it on. Says how many
/// entries that was.
fn look(log: &Log, after: &mut u64, backlog: &mut Backlog) -> usize {
    let mut count = 0;
    for entry in log.after(*after).take(LOOKS_MAX) {
        count += 1;
        *after = entry.sequence;
        backlog.events += 1;
        backlog.bytes += entry.frame.len() as u64;
    }
    count
}
