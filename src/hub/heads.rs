//! The heads of the logs of removed channels, by name: a channel that comes back begins
//! after its own past and not after that of all removed channels, so its clients resume
//! without a false gap.
//!
//! The number of heads and their bytes are bounded. A head that is forgotten raises
//! `removed_through`: a channel that is not here may have had a past up to it. So a head that
//! is not higher is not kept, and the lowest head goes first, because it raises the bound the
//! least.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// The number of heads: with the longest names 93 MB in all.
const HEADS_MAX: usize = 262_144;

/// What a head takes beside its name, in bytes: a place in each of two maps, and the
/// allocation of the name.
const HEAD_BYTES: usize = 100;

/// Heads take at most this part of what all logs may hold, which makes room for them.
const SHARE: usize = 16;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Heads {
    max: usize,
    bytes: usize,
    bytes_max: usize,
    by_name: HashMap<Arc<str>, u64>,
    /// The same in the order of their heads.
    in_order: BTreeSet<(u64, Arc<str>)>,
    /// The highest head that was forgotten. A channel that is made under a name that is
    /// not here may have had a past up to it.
    removed_through: u64,
    /// The copies that are being made.
    copies: usize,
    /// The names that had no channel for a moment meanwhile, which a copy could miss.
    absent: HashMap<Arc<str>, Absent>,
    /// What of a log that is applied again is known to be over, by name: up to these
    /// numbers, and up to the highest of them.
    over: HashMap<Arc<str>, u64>,
    over_through: u64,
}

/// A name without a channel, when everything up to a number had been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Absent {
    pub(super) through: u64,
    /// The head of the channel that had the name.
    pub(super) head: u64,
}

impl Default for Heads {
    fn default() -> Self {
        Heads::new(0, usize::MAX)
    }
}

impl Heads {
    /// Returns no heads. A channel may have had a past up to `removed_through`, and all logs
    /// together hold at most `log_bytes_max` bytes.
    pub(super) fn new(removed_through: u64, log_bytes_max: usize) -> Heads {
        Heads::bounded(removed_through, HEADS_MAX, log_bytes_max / SHARE)
    }

    fn bounded(removed_through: u64, max: usize, bytes_max: usize) -> Heads {
        Heads {
            max,
            bytes: 0,
            bytes_max,
            by_name: HashMap::new(),
            in_order: BTreeSet::new(),
            removed_through,
            copies: 0,
            absent: HashMap::new(),
            over: HashMap::new(),
            over_through: 0,
        }
    }

    /// Remembers the head of a channel that loses its name.
    pub(super) fn insert(&mut self, name: Arc<str>, head: u64) {
        if head <= self.removed_through {
            return;
        }
        self.bytes += HEAD_BYTES + name.len();
        if let Some(before) = self.by_name.insert(name.clone(), head) {
            self.bytes -= HEAD_BYTES + name.len();
            self.in_order.remove(&(before, name.clone()));
        }
        self.in_order.insert((head, name));
        while (self.in_order.len() > self.max || self.bytes > self.bytes_max)
            && let Some((head, name)) = self.in_order.pop_first()
        {
            self.bytes -= HEAD_BYTES + name.len();
            self.by_name.remove(&name);
            self.removed_through = head;
        }
    }

    /// Returns the bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns up to where a channel that is made under this name may have had a past.
    /// Forgets it, because the channel's log knows it now.
    pub(super) fn take(&mut self, name: &str) -> u64 {
        let Some((name, head)) = self.by_name.remove_entry(name) else {
            return self.removed_through;
        };
        self.bytes -= HEAD_BYTES + name.len();
        self.in_order.remove(&(head, name));
        head.max(self.removed_through)
    }

    // ---- copies ----

    /// Notes that a name has no channel when everything up to `through` has been applied,
    /// if a copy is being made.
    #[inline]
    pub(super) fn note_absent(&mut self, name: &Arc<str>, absent: Absent) {
        if self.copies > 0 {
            self.note_for_copies(name, absent);
        }
    }

    #[cold]
    fn note_for_copies(&mut self, name: &Arc<str>, absent: Absent) {
        if self.absent.len() < self.max || self.absent.contains_key(name) {
            self.absent.insert(name.clone(), absent);
        } else {
            self.removed_through = self.removed_through.max(absent.head);
        }
    }

    /// Remembers from now on which names have no channel at times, until the copy ends.
    pub(super) fn begin_copy(&mut self) {
        self.copies += 1;
    }

    pub(super) fn end_copy(&mut self) {
        // What a node has built may have taken the place of what the copy began with.
        self.copies = self.copies.saturating_sub(1);
        if self.copies == 0 {
            self.absent = HashMap::new();
        }
    }

    /// Returns the names that had no channel for a moment since a copy was begun, in no
    /// order.
    pub(super) fn absent(&self) -> Vec<(Arc<str>, Absent)> {
        let absent = self.absent.iter();
        absent
            .map(|(name, absent)| (name.clone(), *absent))
            .collect()
    }

    /// Remembers the head of a channel as a copy has it.
    pub(super) fn restore(&mut self, name: Arc<str>, absent: Absent) {
        self.over_through = self.over_through.max(absent.through);
        self.over.insert(name.clone(), absent.through);
        self.insert(name, absent.head);
    }

    /// Returns whether the copy knows what the change with this number did to the channel
    /// of a name: it was removed since.
    #[inline]
    pub(super) fn is_over(&mut self, name: &str, number: u64) -> bool {
        if self.over.is_empty() {
            return false;
        }
        if number > self.over_through {
            self.over = HashMap::new();
        }
        self.over
            .get(name)
            .is_some_and(|through| number <= *through)
    }

    /// Returns up to where a channel may have had a past that is not known here.
    pub(super) fn removed_through(&self) -> u64 {
        self.removed_through
    }

    /// Returns the heads after one of them, in ascending order.
    pub(super) fn after<'a>(
        &'a self,
        last: Option<&(u64, Arc<str>)>,
    ) -> impl Iterator<Item = &'a (u64, Arc<str>)> {
        let from = match last {
            Some(last) => Bound::Excluded(last.clone()),
            None => Bound::Unbounded,
        };
        self.in_order.range((from, Bound::Unbounded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_that_comes_back_begins_after_its_own_past() {
        let mut heads = Heads::bounded(5, 8, usize::MAX);
        heads.insert("a".into(), 7);
        heads.insert("b".into(), 9);
        heads.insert("old".into(), 5);
        assert_eq!(heads.take("unknown"), 5);
        assert_eq!(heads.take("old"), 5);
        assert_eq!(heads.take("a"), 7);
        // Its log knows it now, and names it again when the channel is removed.
        assert_eq!(heads.take("a"), 5);
        heads.insert("b".into(), 12);
        assert_eq!((heads.take("b"), heads.in_order.len()), (12, 0));
        assert_eq!(heads.bytes(), 0);
    }

    #[test]
    fn the_lowest_head_is_forgotten_first_and_raises_the_bound() {
        for (max, bytes_max) in [(2, usize::MAX), (8, 2 * (HEAD_BYTES + 1))] {
            let mut heads = Heads::bounded(0, max, bytes_max);
            for (name, head) in [("c", 30), ("a", 10), ("b", 20)] {
                heads.insert(name.into(), head);
            }
            assert_eq!((heads.removed_through, heads.in_order.len()), (10, 2));
            assert_eq!(["a", "b", "c"].map(|name| heads.take(name)), [10, 20, 30]);
            assert!(heads.by_name.is_empty());
        }
    }

    #[test]
    fn a_copy_covers_names_without_a_channel_that_come_and_go_meanwhile() {
        let mut heads = Heads::bounded(0, 2, usize::MAX);
        let absent = |through, head| Absent { through, head };
        heads.note_absent(&"early".into(), absent(5, 5));
        heads.begin_copy();
        heads.begin_copy();
        for (name, through, head) in [("a", 10, 7), ("b", 20, 0), ("a", 30, 25), ("c", 40, 35)] {
            heads.note_absent(&name.into(), absent(through, head));
        }
        heads.end_copy();
        let known: std::collections::BTreeMap<_, _> = heads.absent().into_iter().collect();
        let expected = [("a".into(), absent(30, 25)), ("b".into(), absent(20, 0))];
        assert_eq!(known, expected.into());
        assert_eq!(heads.removed_through(), 35, "too many raise the bound");
        heads.end_copy();
        assert!(heads.absent().is_empty());
    }

    #[test]
    fn what_a_copy_knows_to_be_over_is_not_applied_again() {
        let mut heads = Heads::bounded(0, 8, usize::MAX);
        for (name, through, head) in [("a", 20, 10), ("b", 30, 5)] {
            heads.restore(name.into(), Absent { through, head });
        }
        for (name, number, is_over) in [
            ("a", 20, true),
            ("a", 21, false),
            ("b", 21, true),
            ("c", 1, false),
            ("b", 31, false),
        ] {
            assert_eq!(heads.is_over(name, number), is_over, "{name} {number}");
        }
        assert!(heads.over.is_empty(), "the copy is behind");
        assert_eq!([heads.take("a"), heads.take("b")], [10, 5]);
    }
}
