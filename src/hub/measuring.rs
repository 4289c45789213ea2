//! The figures of the hub and of its reactors, put together.

use super::Hub;
use super::log::Log;
use super::looks::LOOKS_MAX;
use crate::metrics::{Backlog, Metrics};

/// Counts of what the bounds of all channels have evicted or removed since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    /// Events that were evicted because of the bound on all logs.
    pub(crate) evicted: u64,
    /// Keys that were evicted, because of their channel's limits or the same bound.
    pub(crate) keys_evicted: u64,
    /// Unpublished channels that made room for a publisher's.
    pub(crate) displaced: u64,
}

impl Hub {
    /// Returns what the bounds of all channels have cost so far.
    pub(crate) fn pressure(&self) -> Pressure {
        let state = self.lock();
        Pressure {
            evicted: state.memory.evicted(),
            keys_evicted: state.memory.evicted_keys(),
            displaced: state.totals.displaced,
        }
    }

    /// Returns the sums over all reactors and channels.
    pub(crate) fn metrics(&self) -> Metrics {
        let mut metrics = self.engine_figures();
        metrics.uptime = self.clock.age();
        let state = self.lock();
        metrics.channels = state.names.len() as u64;
        metrics.events_published = state.totals.published;
        metrics.event_bytes_published = state.totals.published_bytes;
        metrics.deliveries = state.totals.delivered;
        metrics.gaps = state.totals.gaps;
        metrics.channels_unpublished = state.unpublished.len() as u64;
        metrics.channels_displaced = state.totals.displaced;
        metrics.log_bytes = state.memory.bytes() as u64;
        let max = state.memory.bytes_max();
        metrics.log_bytes_max = (max < usize::MAX).then_some(max as u64);
        metrics.events_evicted = state.memory.evicted();
        metrics.keys_evicted = state.memory.evicted_keys();
        metrics
    }

    /// Returns the size of the logs, and the backlog of clients in them.
    pub(crate) fn backlog(&self) -> Backlog {
        let mut backlog = Backlog::default();
        let mut slot = 0;
        loop {
            let mut state = self.lock();
            let end = state.slots_end();
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
                drop(state);
                self.give_way();
                continue;
            };
            while let Some(channel) = state.get(key) {
                match look(&channel.log, &mut after, &mut backlog) {
                    LOOKS_MAX => {
                        drop(state);
                        self.give_way();
                        state = self.lock();
                    }
                    _ => break,
                }
            }
        }
    }
}

/// Adds up some entries after `after`, and moves it on. Returns their number.
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
