//! Several logs read as one, in the order of their sequence numbers.
//!
//! A k-way merge. The place in each log is searched for once; from then on the
//! cost of an entry grows with the logarithm of the number of logs that have
//! something to read. Each function looks at a bounded number of entries,
//! because its caller holds the hub's lock.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::entry::Entry;
use super::log::Log;
use super::looks::{LOOKS_MAX, Looks};

/// Entries that a [`LookBack`] looks at in all.
pub(crate) const LOOKED_BACK_MAX: usize = 16 * 1024;

/// Visits the entries of the logs in `(after, through]`, oldest first, until
/// `visit` declines one or [`LOOKS_MAX`] are visited. Returns the position up
/// to which everything was visited, and whether there is more.
///
/// `logs` has each log with a number of the caller's, which `visit` receives.
pub(crate) fn walk<'a>(
    logs: impl Iterator<Item = (usize, &'a Log)>,
    after: u64,
    through: u64,
    mut visit: impl FnMut(usize, &'a Entry) -> bool,
) -> (u64, bool) {
    let (mut reached, mut left) = (after, LOOKS_MAX);
    let visit = |channel_index, entry: &'a Entry| {
        if left == 0 || !visit(channel_index, entry) {
            return false;
        }
        left -= 1;
        reached = entry.sequence;
        true
    };
    let unread = logs
        .filter(|(_, log)| log.head() > after)
        .map(|(channel_index, log)| {
            let entries = log.after(after);
            (
                channel_index,
                entries.take_while(|entry| entry.sequence <= through),
            )
        });
    // The oldest has the highest rank.
    if merge(unread, |sequence| !sequence, visit) {
        return (through.max(after), false);
    }
    (reached, true)
}

/// A search for the last entries that are for a reader, in steps.
#[derive(Debug)]
pub(crate) struct LookBack {
    wanted: usize,
    looks: Looks,
    /// Entries after this were looked at.
    next: u64,
    oldest: Option<u64>,
}

impl LookBack {
    /// Returns a search for the last `count` entries.
    pub(crate) fn new(count: usize) -> LookBack {
        LookBack {
            wanted: count,
            looks: Looks::new(LOOKED_BACK_MAX),
            next: u64::MAX,
            oldest: None,
        }
    }

    /// Looks at up to [`LOOKS_MAX`] entries more, and finds those that `admits`
    /// lets through. Returns whether there is a next step.
    pub(crate) fn step<'a>(
        &mut self,
        logs: impl Iterator<Item = &'a Log>,
        mut admits: impl FnMut(&Entry) -> bool,
    ) -> bool {
        let until = self.next;
        let logs = logs.map(|log| (0, log.newest_first(until)));
        let mut step = Looks::new(LOOKS_MAX);
        let visited_all = merge(
            logs,
            |sequence| sequence,
            |_, entry| {
                if self.wanted == 0 || !step.take() || !self.looks.take() {
                    return false;
                }
                self.next = entry.sequence - 1;
                if admits(entry) {
                    self.wanted -= 1;
                    self.oldest = Some(entry.sequence);
                }
                true
            },
        );
        !visited_all && self.wanted > 0 && self.looks.is_left()
    }

    /// Returns the position before the oldest entry that was found.
    pub(crate) fn position(&self) -> Option<u64> {
        self.oldest.map(|oldest| oldest - 1)
    }
}

/// Visits the entries by their rank, the highest first. Within each log the
/// ranks fall. An entry that is in several logs is visited once. Returns whether all were
/// visited.
fn merge<'a, I: Iterator<Item = &'a Entry>>(
    logs: impl Iterator<Item = (usize, I)>,
    rank: impl Fn(u64) -> u64,
    mut visit: impl FnMut(usize, &'a Entry) -> bool,
) -> bool {
    let mut logs = logs.filter_map(|(channel_index, mut rest)| {
        let entry = rest.next()?;
        Some((channel_index, entry, rest))
    });
    let Some(first) = logs.next() else {
        return true;
    };
    let Some(second) = logs.next() else {
        // The usual case: an event in one of a stream's channels. It needs no
        // memory.
        let (channel_index, entry, mut rest) = first;
        return visit(channel_index, entry) && rest.all(|entry| visit(channel_index, entry));
    };
    let mut rests = Vec::new();
    let mut heads = BinaryHeap::new();
    for (channel_index, entry, mut rest) in [first, second].into_iter().chain(logs) {
        heads.push(Head {
            rank: rank(entry.sequence),
            at: rests.len(),
            entry,
        });
        let next = rest.next();
        rests.push((channel_index, next, rest));
    }
    let mut visited = None;
    while let Some(mut head) = heads.peek_mut() {
        let (channel_index, next, rest) = &mut rests[head.at];
        // An event for all channels is in several logs.
        if visited != Some(head.rank) {
            if !visit(*channel_index, head.entry) {
                return false;
            }
            visited = Some(head.rank);
        }
        // The next entry is read one step before it is needed: with many logs it
        // is not in the cache yet, and this way nothing waits for it.
        match std::mem::replace(next, rest.next()) {
            Some(entry) => {
                head.rank = rank(entry.sequence);
                head.entry = entry;
            }
            None => {
                PeekMut::pop(head);
            }
        }
    }
    true
}

/// The next entry of one log.
struct Head<'a> {
    rank: u64,
    /// The place of the log's iterator.
    at: usize,
    entry: &'a Entry,
}

impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        // Of an event that is in several logs, the one that is state is visited: it is
        // for each reader that another one is for.
        let by_rank = self.rank.cmp(&other.rank);
        by_rank.then_with(|| self.entry.has_key().cmp(&other.entry.has_key()))
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;
    use crate::hub::dropped::Dropped;

    fn log(sequences: impl IntoIterator<Item = u64>) -> Log {
        let mut log = Log::new(0);
        for sequence in sequences {
            let entry = Entry {
                sequence,
                at_ms: 0,
                frame: Frame::raw(b"data: x\n\n"),
                attributes: None,
            };
            log.append(entry, &mut Dropped::new());
        }
        log
    }

    /// What a walk visits until it comes to `stop_at`, and what it returns.
    fn walked(logs: &[Log], (after, through): (u64, u64), stop_at: u64) -> (Vec<u64>, (u64, bool)) {
        let mut visited = Vec::new();
        let logs = logs.iter().enumerate();
        let result = walk(logs, after, through, |_, entry| {
            let goes_on = entry.sequence != stop_at;
            if goes_on {
                visited.push(entry.sequence);
            }
            goes_on
        });
        (visited, result)
    }

    #[test]
    fn several_logs_are_read_in_the_order_of_their_numbers() {
        let logs = [log([1, 4, 9]), log([]), log([2, 3, 10]), log([5])];
        assert_eq!(
            walked(&logs, (0, 99), 0),
            (vec![1, 2, 3, 4, 5, 9, 10], (99, false))
        );
        assert_eq!(walked(&logs, (2, 5), 0), (vec![3, 4, 5], (5, false)));
        assert_eq!(walked(&logs, (3, 99), 9), (vec![4, 5], (5, true)));
        assert_eq!(walked(&logs, (10, 10), 0), (vec![], (10, false)));
        assert_eq!(walked(&logs, (9, 99), 0), (vec![10], (99, false)));
    }

    #[test]
    fn each_entry_comes_with_the_number_of_its_log() {
        let logs = [log([2]), log([1, 3])];
        let mut channel_indexes = Vec::new();
        let numbered = logs
            .iter()
            .enumerate()
            .map(|(channel_index, log)| (channel_index + 7, log));
        walk(numbered, 0, 3, |channel_index, _| {
            channel_indexes.push(channel_index);
            true
        });
        assert_eq!(channel_indexes, [8, 7, 8]);
    }

    #[test]
    fn a_walk_looks_at_a_bounded_number_of_entries_and_says_where_it_stopped() {
        let max = LOOKS_MAX as u64;
        let one = [log(1..=2 * max)];
        let (visited, result) = walked(&one, (0, 2 * max), 0);
        assert_eq!((visited.len(), result), (LOOKS_MAX, (max, true)));
        // The rest is exactly one walk more.
        let (visited, result) = walked(&one, (max, 2 * max), 0);
        assert_eq!((visited.len(), result), (LOOKS_MAX, (2 * max, false)));
        let two = [
            log((1..=max).map(|n| 2 * n)),
            log((0..max).map(|n| 2 * n + 1)),
        ];
        let (visited, result) = walked(&two, (0, 2 * max), 0);
        assert_eq!((visited.len(), result), (LOOKS_MAX, (max, true)));
    }

    /// The position before the last `count` entries, and the steps that it took.
    fn look_back(logs: &[Log], count: usize, admits: fn(&Entry) -> bool) -> (Option<u64>, usize) {
        let (mut search, mut steps) = (LookBack::new(count), 1);
        while search.step(logs.iter(), admits) {
            steps += 1;
        }
        (search.position(), steps)
    }

    #[test]
    fn the_last_n_count_only_entries_for_the_reader() {
        let logs = [log([1, 4, 5]), log([2, 3, 6])];
        let last = |count, admits| look_back(&logs, count, admits).0;
        assert_eq!(last(2, |_| true), Some(4));
        assert_eq!(last(2, |entry| entry.sequence % 2 == 0), Some(3));
        assert_eq!(last(0, |_| true), None);
        assert_eq!(last(99, |_| true), Some(0));
        assert_eq!(last(1, |_| false), None);
    }

    #[test]
    fn looking_back_goes_on_step_by_step_and_ends_at_a_bounded_number_of_entries() {
        let newest = 2 * LOOKED_BACK_MAX as u64;
        let steps = LOOKED_BACK_MAX / LOOKS_MAX;
        let one = [log(1..=newest)];
        assert_eq!(look_back(&one, 1, |_| false), (None, steps));
        assert_eq!(
            look_back(&one, LOOKS_MAX + 1, |_| true),
            (Some(newest - 1025), 2)
        );
        let [odd, even] = [1, 0].map(|rest| log((1..=newest).filter(|n| n % 2 == rest)));
        let two = look_back(&[odd, even], LOOKS_MAX + 1, |_| true);
        assert_eq!(two, (Some(newest - 1025), 2));
    }
}
