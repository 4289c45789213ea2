//! The counters of one reactor.
//!
//! Only the reactor writes them, so counting is a load, an addition and a store, without a
//! locked instruction; a reader sees each as it was a moment ago. The loop adds up what it
//! counts for each client (bytes, deliveries), and stores it here at most once a turn.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Metrics;
use super::codes::{CODES, OTHER};
use super::histogram::{CLASSES, Histogram, class_of};
use crate::disconnect_reason::DisconnectReason;

/// A number that one thread writes and all read.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A histogram that one thread writes and all read.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: [Count; CLASSES],
    sum_us: Count,
}

impl Tally {
    pub(crate) fn observe(&self, us: u64) {
        self.counts[class_of(us)].add(1);
        self.sum_us.add(us);
    }

    /// Returns what was observed.
    pub(crate) fn histogram(&self) -> Histogram {
        let mut sum = Histogram::default();
        self.add_to(&mut sum);
        sum
    }

    fn add_to(&self, sum: &mut Histogram) {
        for (sum, count) in sum.counts.iter_mut().zip(&self.counts) {
            *sum += count.get();
        }
        sum.sum_us += self.sum_us.get();
    }
}

/// See the [module](self). The fields are as in [`Metrics`].
#[derive(Debug)]
pub(crate) struct Meters {
    pub(crate) connections_accepted: Count,
    pub(crate) connections_closed: Count,
    pub(crate) connections_refused: Count,
    pub(crate) is_full: Count,
    pub(crate) batch_senders: Count,
    pub(crate) streams_opened: Count,
    streams_ended: [Count; DisconnectReason::ALL.len()],
    answers: [Count; 5],
    /// Sorted.
    codes: Box<[&'static str]>,
    /// In the order of `codes`, then of all others.
    refusals: Box<[Count]>,
    pub(crate) heartbeats: Count,
    pub(crate) bytes_read: Count,
    pub(crate) bytes_written: Count,
    pub(crate) clients_behind: Count,
    pub(crate) turns: Tally,
    pub(crate) latency: Tally,
}

impl Meters {
    /// Returns counters for the engine's own codes and these.
    pub(crate) fn new(more_codes: &[&'static str]) -> Meters {
        let mut codes = [CODES, more_codes].concat();
        codes.sort_unstable();
        codes.dedup();
        Meters {
            connections_accepted: Count::default(),
            connections_closed: Count::default(),
            connections_refused: Count::default(),
            is_full: Count::default(),
            batch_senders: Count::default(),
            streams_opened: Count::default(),
            streams_ended: Default::default(),
            answers: Default::default(),
            refusals: (0..=codes.len()).map(|_| Count::default()).collect(),
            codes: codes.into(),
            heartbeats: Count::default(),
            bytes_read: Count::default(),
            bytes_written: Count::default(),
            clients_behind: Count::default(),
            turns: Tally::default(),
            latency: Tally::default(),
        }
    }

    pub(crate) fn count_end(&self, reason: DisconnectReason) {
        self.streams_ended[reason as usize].add(1);
    }

    pub(crate) fn count_answer(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, self.answers.len());
        self.answers[class - 1].add(1);
    }

    pub(crate) fn count_refusal(&self, code: &str) {
        let found = self.codes.binary_search(&code);
        self.refusals[found.unwrap_or(self.codes.len())].add(1);
    }

    pub(crate) fn add_to(&self, sum: &mut Metrics) {
        let (accepted, closed) = (&self.connections_accepted, &self.connections_closed);
        sum.connections_accepted += accepted.get();
        sum.connections += accepted.get().saturating_sub(closed.get());
        sum.connections_refused += self.connections_refused.get();
        sum.is_full |= self.is_full.get() > 0;
        sum.batch_senders += self.batch_senders.get();
        let opened = self.streams_opened.get();
        let ended = self.streams_ended.iter().map(Count::get);
        sum.streams_opened += opened;
        sum.clients += opened.saturating_sub(ended.clone().sum());
        let reasons = DisconnectReason::ALL.iter().copied().zip(ended);
        add_each(&mut sum.streams_ended, reasons);
        for (sum, count) in sum.answers.iter_mut().zip(&self.answers) {
            *sum += count.get();
        }
        let codes = self.codes.iter().copied().chain([OTHER]);
        let refusals = codes.zip(self.refusals.iter().map(Count::get));
        add_each(&mut sum.refusals, refusals);
        sum.heartbeats += self.heartbeats.get();
        sum.bytes_read += self.bytes_read.get();
        sum.bytes_written += self.bytes_written.get();
        sum.clients_behind += self.clients_behind.get();
        self.turns.add_to(&mut sum.turns);
        self.latency.add_to(&mut sum.latency);
    }
}

/// Adds counts to those of the same names. A name that is not among the sums comes
/// before the last sum, which counts all other names.
fn add_each<N: PartialEq>(sums: &mut Vec<(N, u64)>, counts: impl Iterator<Item = (N, u64)>) {
    if sums.is_empty() {
        sums.extend(counts);
        return;
    }
    for (at, (name, count)) in counts.enumerate() {
        // Reactors of one engine have the same names in the same order.
        let is_same = |(other, _): &(N, u64)| *other == name;
        let found = match sums.get(at).is_some_and(is_same) {
            true => Some(at),
            false => sums.iter().position(is_same),
        };
        match found {
            Some(at) => sums[at].1 += count,
            None => sums.insert(sums.len() - 1, (name, count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_each_by_itself() {
        for (place, reason) in DisconnectReason::ALL.iter().enumerate() {
            assert_eq!(
                *reason as usize, place,
                "ALL is in the order of the reasons"
            );
        }
    }

    #[test]
    fn the_figures_of_several_reactors_add_up() {
        let (one, two) = (Meters::new(&["mine"]), Meters::new(&["mine"]));
        for meters in [&one, &two] {
            meters.connections_accepted.add(3);
            meters.connections_closed.add(1);
            meters.streams_opened.add(2);
            meters.count_end(DisconnectReason::Gone);
            meters.count_answer(200);
            meters.count_refusal("mine");
            meters.turns.observe(70);
        }
        two.count_refusal("not_found");
        two.count_refusal("unknown");
        two.is_full.set(1);
        let mut sum = Metrics::default();
        one.add_to(&mut sum);
        two.add_to(&mut sum);
        assert_eq!((sum.connections, sum.connections_accepted), (4, 6));
        assert_eq!((sum.clients, sum.streams_opened), (2, 4));
        assert!(sum.is_full);
        assert_eq!(sum.answers, [0, 2, 0, 0, 0]);
        assert_eq!(sum.streams_ended[0], (DisconnectReason::Gone, 2));
        let refused = sum.refusals.iter().filter(|(_, count)| *count > 0);
        let refused: Vec<_> = refused.copied().collect();
        assert_eq!(refused, [("mine", 2), ("not_found", 1), (OTHER, 1)]);
        assert_eq!((sum.turns.count(), sum.turns.sum_us), (2, 140));
    }
}
