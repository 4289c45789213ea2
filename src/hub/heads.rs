//! The heads of the logs of removed channels, by name: a channel that comes back begins
//! after its own past and not after that of all removed channels, so its clients resume
//! without a false gap.
//!
//! The number of heads is bounded. A head that is forgotten raises `removed_through`: a
//! channel that is not here may have had a past up to it. So a head that is not higher is
//! not kept, and the lowest head goes first, because it raises the bound the least.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// The number of heads. One takes about 100 bytes and its name: with the longest names
/// 96 MB in all.
const HEADS_MAX: usize = 262_144;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Heads {
    max: usize,
    by_name: HashMap<Arc<str>, u64>,
    /// The same in the order of their heads.
    in_order: BTreeSet<(u64, Arc<str>)>,
    /// The highest head that was forgotten. A channel that is made under a name that is
    /// not here may have had a past up to it.
    removed_through: u64,
    /// The copies that are being made.
    copies: usize,
    /// The heads that channels have taken back meanwhile, which a copy could miss.
    taken: HashMap<Arc<str>, u64>,
}

impl Heads {
    /// Returns no heads. A channel may have had a past up to `removed_through`.
    pub(super) fn new(removed_through: u64) -> Heads {
        Heads::bounded(removed_through, HEADS_MAX)
    }

    fn bounded(removed_through: u64, max: usize) -> Heads {
        Heads {
            max,
            by_name: HashMap::new(),
            in_order: BTreeSet::new(),
            removed_through,
            copies: 0,
            taken: HashMap::new(),
        }
    }

    /// Remembers the head of a channel that loses its name.
    pub(super) fn insert(&mut self, name: Arc<str>, head: u64) {
        if head <= self.removed_through {
            return;
        }
        if let Some(before) = self.by_name.insert(name.clone(), head) {
            self.in_order.remove(&(before, name.clone()));
        }
        self.in_order.insert((head, name));
        if self.in_order.len() > self.max
            && let Some((head, name)) = self.in_order.pop_first()
        {
            self.by_name.remove(&name);
            self.removed_through = head;
        }
    }

    /// Returns up to where a channel that is made under this name may have had a past.
    /// Forgets it, because the channel's log knows it now.
    pub(super) fn take(&mut self, name: &str) -> u64 {
        let Some((name, head)) = self.by_name.remove_entry(name) else {
            return self.removed_through;
        };
        self.in_order.remove(&(head, name.clone()));
        if self.copies > 0 {
            self.note_taken(name, head);
        }
        head.max(self.removed_through)
    }

    #[cold]
    fn note_taken(&mut self, name: Arc<str>, head: u64) {
        if self.taken.len() < self.max || self.taken.contains_key(&name) {
            self.taken.insert(name, head);
        } else {
            self.removed_through = self.removed_through.max(head);
        }
    }

    /// Remembers from now on what channels take back, until the copy ends.
    pub(super) fn begin_copy(&mut self) {
        self.copies += 1;
    }

    pub(super) fn end_copy(&mut self) {
        self.copies -= 1;
        if self.copies == 0 {
            self.taken = HashMap::new();
        }
    }

    /// Returns whether a copy is being made.
    pub(super) fn is_copied(&self) -> bool {
        self.copies > 0
    }

    /// Returns the heads that were taken back since a copy was begun, in no order.
    pub(super) fn taken(&self) -> Vec<(Arc<str>, u64)> {
        let taken = self.taken.iter();
        taken.map(|(name, head)| (name.clone(), *head)).collect()
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
        let mut heads = Heads::bounded(5, 8);
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
    }

    #[test]
    fn the_lowest_head_is_forgotten_first_and_raises_the_bound() {
        let mut heads = Heads::bounded(0, 2);
        for (name, head) in [("c", 30), ("a", 10), ("b", 20)] {
            heads.insert(name.into(), head);
        }
        assert_eq!((heads.removed_through, heads.in_order.len()), (10, 2));
        assert_eq!(["a", "b", "c"].map(|name| heads.take(name)), [10, 20, 30]);
        assert!(heads.by_name.is_empty());
    }

    #[test]
    fn a_copy_covers_a_head_that_is_taken_back_meanwhile() {
        let mut heads = Heads::bounded(0, 2);
        for (name, head) in [("a", 10), ("b", 20)] {
            heads.insert(name.into(), head);
        }
        heads.begin_copy();
        heads.take("a");
        assert_eq!(heads.taken(), [("a".into(), 10)]);
        let left: Vec<_> = heads.after(None).collect();
        assert_eq!(left, [&(20, "b".into())]);
        assert_eq!(heads.after(Some(left[0])).count(), 0);
        // A channel that comes and goes has its newest head there, and too many raise the
        // bound.
        for (name, head) in [("a", 30), ("b", 40), ("c", 50)] {
            heads.insert(name.into(), head);
            heads.take(name);
        }
        let taken: std::collections::BTreeMap<_, _> = heads.taken().into_iter().collect();
        assert_eq!(taken, [("a".into(), 30), ("b".into(), 40)].into());
        assert_eq!(heads.removed_through(), 50);
        heads.end_copy();
        assert!(heads.taken().is_empty() && !heads.is_copied());
    }
}
