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
    /// The number of heads that channels have taken back.
    takes: u64,
    /// The highest of these.
    taken_through: u64,
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
            takes: 0,
            taken_through: 0,
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
        self.in_order.remove(&(head, name));
        self.takes += 1;
        self.taken_through = self.taken_through.max(head);
        head.max(self.removed_through)
    }

    /// Returns how many heads channels have taken back.
    pub(super) fn takes(&self) -> u64 {
        self.takes
    }

    /// Returns a bound for a copy that was begun after `takes`: with it, the copy also
    /// covers the heads that were taken back meanwhile.
    pub(super) fn removed_through_since(&self, takes: u64) -> u64 {
        match self.takes == takes {
            true => self.removed_through,
            false => self.removed_through.max(self.taken_through),
        }
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
        assert_eq!(heads.takes(), 0);
        assert_eq!(heads.take("a"), 7);
        // Its log knows it now, and names it again when the channel is removed.
        assert_eq!((heads.take("a"), heads.takes()), (5, 1));
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
        let mut heads = Heads::bounded(0, 8);
        heads.insert("a".into(), 10);
        heads.insert("b".into(), 20);
        let takes = heads.takes();
        assert_eq!(heads.removed_through_since(takes), 0);
        heads.take("a");
        assert_eq!(heads.removed_through_since(takes), 10);
        let left: Vec<_> = heads.after(None).collect();
        assert_eq!(left, [&(20, "b".into())]);
        assert_eq!(heads.after(Some(left[0])).count(), 0);
    }
}
