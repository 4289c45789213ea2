//! The finishes that a log has: which names were finished, and not begun again since.
//!
//! An event that was proposed before its channel was finished, and comes into the log
//! behind the finish, is refused. A channel that is over may be swept sooner or later, so
//! the channel cannot decide that.
//!
//! The invariant to remember: *what is known depends on the log alone*. The newest
//! [`FINISHES_MAX`] are known. More cannot be between the proposal of an event and its
//! place in the log, because all that is proposed waits in one queue.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Maximum number of finishes: more than there is room for in the queue of an
/// [`Appender`](crate::journal::appender::Appender). One takes about 100 bytes and its
/// name.
const FINISHES_MAX: usize = 65_536;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Finishes {
    max: usize,
    by_name: HashMap<Arc<str>, u64>,
    /// The same by their numbers.
    in_order: BTreeMap<u64, Arc<str>>,
}

impl Default for Finishes {
    fn default() -> Self {
        Finishes::new()
    }
}

impl Finishes {
    pub(super) fn new() -> Finishes {
        Finishes::bounded(FINISHES_MAX)
    }

    fn bounded(max: usize) -> Finishes {
        Finishes {
            max,
            by_name: HashMap::new(),
            in_order: BTreeMap::new(),
        }
    }

    /// Remembers that a channel was finished.
    pub(super) fn insert(&mut self, name: Arc<str>, number: u64) {
        if let Some(before) = self.by_name.insert(name.clone(), number) {
            self.in_order.remove(&before);
        }
        self.in_order.insert(number, name);
        if self.in_order.len() > self.max
            && let Some((_, name)) = self.in_order.pop_first()
        {
            self.by_name.remove(&name);
        }
    }

    /// Returns the finish of a name before `number`.
    pub(super) fn before(&self, name: &str, number: u64) -> Option<u64> {
        let finish = self.by_name.get(name).copied();
        finish.filter(|finish| *finish < number)
    }

    /// Forgets the finish of a name before `number`: the name begins again there.
    pub(super) fn end(&mut self, name: &str, number: u64) {
        if let Some(finish) = self.before(name, number) {
            self.by_name.remove(name);
            self.in_order.remove(&finish);
        }
    }

    /// Returns the finishes after a number, the oldest first.
    pub(super) fn after(&self, number: u64) -> impl Iterator<Item = (&Arc<str>, u64)> {
        let later = self.in_order.range(number.saturating_add(1)..);
        later.map(|(number, name)| (name, *number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_finishes_are_known_until_their_names_begin_again() {
        let mut finishes = Finishes::bounded(2);
        for (name, number) in [("a", 1), ("b", 2), ("b", 3)] {
            finishes.insert(name.into(), number);
        }
        assert_eq!(finishes.before("a", 2), Some(1));
        assert_eq!(finishes.before("b", 3), None, "it is not finished there");
        assert_eq!(finishes.before("b", 4), Some(3));
        finishes.insert("c".into(), 5);
        assert_eq!(finishes.before("a", 9), None, "there were two since");
        finishes.end("b", 3);
        finishes.end("c", 6);
        let left: Vec<_> = finishes.after(0).collect();
        assert_eq!(left, [(&"b".into(), 3)]);
        assert_eq!(finishes.after(3).count(), 0);
    }
}
