//! The ends that a log has: which names were finished and not begun again since, and which
//! were removed last.
//!
//! An event that was proposed before its channel was finished, and comes into the log
//! behind the finish, is refused. So is the end of a channel that was removed meanwhile: what
//! has its name now is another one. A channel that is over may be swept sooner or later, so
//! the channel cannot decide that.
//!
//! The invariant to remember: *what is known depends on the log alone*. The newest
//! [`ENDS_MAX`] are known. More cannot be between the proposal of a change and its
//! place in the log, because all that is proposed waits in one queue.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::iter;
use std::ops::Bound;
use std::sync::Arc;

use crate::journal::appender::QUEUE_RECORDS_MAX;

/// Maximum number of ends: as many as there is room for in the queue of an
/// [`Appender`](crate::journal::appender::Appender). One takes about 100 bytes and its
/// name.
const ENDS_MAX: usize = QUEUE_RECORDS_MAX;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Ends {
    max: usize,
    by_name: HashMap<Arc<str>, u64>,
    /// The same by their numbers.
    in_order: BTreeMap<u64, Arc<str>>,
    /// The copies that are being made, by the numbers at which they were begun.
    copies: BTreeMap<u64, Copies>,
    /// The ends that were refused meanwhile, which a copy could take for real ones.
    refused: BTreeSet<u64>,
    /// Those that a copy has named. The log that is applied behind it has their records.
    refused_ahead: BTreeSet<u64>,
}

/// Copies that were begun at the same number.
#[derive(Debug, Default)]
struct Copies {
    count: usize,
    /// The ends that were known at that number and are not any more.
    gone: BTreeMap<u64, Arc<str>>,
}

impl Default for Ends {
    fn default() -> Self {
        Ends::new()
    }
}

impl Ends {
    pub(super) fn new() -> Ends {
        Ends::bounded(ENDS_MAX)
    }

    fn bounded(max: usize) -> Ends {
        Ends {
            max,
            by_name: HashMap::new(),
            in_order: BTreeMap::new(),
            copies: BTreeMap::new(),
            refused: BTreeSet::new(),
            refused_ahead: BTreeSet::new(),
        }
    }

    /// Remembers the end of a channel, unless a later one of its name is known: a copy may be
    /// ahead of a log that is applied.
    pub(super) fn insert(&mut self, name: Arc<str>, number: u64) {
        if self.by_name.get(&name).is_some_and(|end| *end > number) {
            return;
        }
        if let Some(before) = self.by_name.insert(name.clone(), number) {
            self.forget(before);
        }
        self.in_order.insert(number, name);
        if self.in_order.len() > self.max
            && let Some((&oldest, name)) = self.in_order.first_key_value()
        {
            self.by_name.remove(name);
            self.forget(oldest);
        }
    }

    /// Forgets an end that is of no name any more. Copies that were begun behind it have it.
    fn forget(&mut self, number: u64) {
        let Some(name) = self.in_order.remove(&number) else {
            return;
        };
        for (_, copies) in self.copies.range_mut(number..) {
            copies.gone.insert(number, name.clone());
        }
    }

    /// Returns the end of a name before `number`.
    pub(super) fn before(&self, name: &str, number: u64) -> Option<u64> {
        let end = self.by_name.get(name).copied();
        end.filter(|end| *end < number)
    }

    /// Forgets the end of a name before `number`: the name begins again there.
    pub(super) fn end(&mut self, name: &str, number: u64) {
        if let Some(end) = self.before(name, number) {
            self.by_name.remove(name);
            self.forget(end);
        }
    }

    // ---- copies ----

    /// Has a copy begin that has everything up to `at`. Until it ends, the ends that are known
    /// now stay known to it, and those that are refused are remembered.
    pub(super) fn begin_copy(&mut self, at: u64) {
        self.copies.entry(at).or_default().count += 1;
    }

    pub(super) fn end_copy(&mut self, at: u64) {
        if let Entry::Occupied(mut copies) = self.copies.entry(at) {
            copies.get_mut().count -= 1;
            if copies.get().count == 0 {
                copies.remove();
            }
        }
        if self.copies.is_empty() {
            self.refused = BTreeSet::new();
        }
    }

    /// Returns the ends after a number, the oldest first, as they were when a copy was begun
    /// at `at`.
    pub(super) fn of_copy(&self, at: u64, after: u64) -> impl Iterator<Item = (&Arc<str>, u64)> {
        let range = (Bound::Excluded(after.min(at)), Bound::Included(at));
        let gone = self.copies.get(&at).map(|copies| copies.gone.range(range));
        let mut gone = gone.into_iter().flatten().peekable();
        let mut known = self.in_order.range(range).peekable();
        let next = iter::from_fn(move || match (gone.peek(), known.peek()) {
            (Some((gone_at, _)), Some((known_at, _))) if gone_at < known_at => gone.next(),
            (_, Some(_)) => known.next(),
            _ => gone.next(),
        });
        next.map(|(number, name)| (name, *number))
    }

    /// Notes that the record with this number has ended nothing, if a copy is being made.
    pub(super) fn note_refused(&mut self, number: u64) {
        if !self.copies.is_empty() && self.refused.len() < self.max {
            self.refused.insert(number);
        }
    }

    /// Returns the ends that were refused since a copy was begun, in ascending order.
    pub(super) fn refused(&self) -> Vec<u64> {
        self.refused.iter().copied().collect()
    }

    /// Remembers a refused end as a copy has it.
    pub(super) fn restore_refused(&mut self, number: u64) {
        self.refused_ahead.insert(number);
    }

    /// Returns whether a copy that has the record with this number has refused it. Forgets
    /// those before.
    pub(super) fn is_refused(&mut self, number: u64) -> bool {
        if !self.refused_ahead.is_empty() {
            self.refused_ahead = self.refused_ahead.split_off(&number);
        }
        self.refused_ahead.contains(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_ends_are_known_until_their_names_begin_again() {
        let mut ends = Ends::bounded(2);
        for (name, number) in [("a", 1), ("b", 2), ("b", 3), ("b", 2)] {
            ends.insert(name.into(), number);
        }
        assert_eq!(ends.before("a", 2), Some(1));
        assert_eq!(ends.before("b", 3), None, "it is not finished there");
        assert_eq!(ends.before("b", 4), Some(3));
        ends.insert("c".into(), 5);
        assert_eq!(ends.before("a", 9), None, "there were two since");
        ends.end("b", 3);
        ends.end("c", 6);
        let left: Vec<_> = ends.of_copy(9, 0).collect();
        assert_eq!(left, [(&"b".into(), 3)]);
        assert_eq!(ends.of_copy(9, 3).count(), 0);
    }

    #[test]
    fn a_copy_has_the_ends_that_were_known_when_it_was_begun() {
        let mut ends = Ends::bounded(3);
        let known = |ends: &Ends, at, after| {
            let known = ends.of_copy(at, after);
            let known = known.map(|(name, number)| format!("{name} {number}"));
            known.collect::<Vec<_>>().join(", ")
        };
        for (name, number) in [("a", 1), ("b", 2), ("c", 3)] {
            ends.insert(name.into(), number);
        }
        ends.begin_copy(3);
        // One begins again and ends, another one begins again, and a third is one too many.
        ends.end("a", 4);
        ends.insert("a".into(), 5);
        ends.begin_copy(5);
        ends.begin_copy(5);
        ends.end("b", 6);
        for (name, number) in [("d", 7), ("e", 8), ("a", 9)] {
            ends.insert(name.into(), number);
        }
        assert_eq!(known(&ends, 3, 0), "a 1, b 2, c 3");
        assert_eq!(known(&ends, 3, 2), "c 3");
        assert_eq!(known(&ends, 3, 3), "");
        ends.end_copy(5);
        assert_eq!(known(&ends, 5, 0), "b 2, c 3, a 5");
        ends.end_copy(5);
        ends.end_copy(3);
        assert!(ends.copies.is_empty());
        assert_eq!(known(&ends, 9, 0), "d 7, e 8, a 9");
    }

    #[test]
    fn a_copy_names_the_ends_that_were_refused_meanwhile() {
        let mut ends = Ends::bounded(2);
        ends.note_refused(1);
        ends.begin_copy(1);
        ends.begin_copy(2);
        for number in [3, 5, 6] {
            ends.note_refused(number);
        }
        ends.end_copy(2);
        assert_eq!(ends.refused(), [3, 5], "no more than there is room for");
        let mut copied = Ends::bounded(2);
        ends.refused()
            .into_iter()
            .for_each(|number| copied.restore_refused(number));
        assert_eq!(
            [2, 3, 4, 5].map(|n| copied.is_refused(n)),
            [false, true, false, true]
        );
        assert!(!copied.is_refused(6) && copied.refused_ahead.is_empty());
        ends.end_copy(1);
        assert!(ends.refused().is_empty());
    }
}
