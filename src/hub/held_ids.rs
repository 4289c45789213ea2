//! The own ids of the events that a log holds: an id leads to its event.

use std::collections::HashMap;
use std::sync::Arc;

use super::remembered::OwnId;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct HeldIds {
    /// The sequence numbers of the events.
    numbers: HashMap<Arc<str>, u64>,
    /// The own id that was published last, and its number. The log may no longer hold it.
    newest: Option<(Arc<str>, u64)>,
    /// The number of the newest event with a doubtful id.
    doubtful_through: u64,
}

impl HeldIds {
    /// Adds the id of an event. If another event has it too, the older one keeps it: a
    /// client that comes back with it is sent too much rather than too little. Not inlined:
    /// most events have no own id, and their way is shorter without it.
    #[inline(never)]
    pub(crate) fn insert(&mut self, own_id: &OwnId, sequence: u64) {
        self.note(&own_id.text, sequence, own_id.is_doubtful);
        let held = self.numbers.entry(own_id.text.clone());
        held.or_insert(sequence);
    }

    /// Notes an id whose event the log may no longer hold.
    pub(crate) fn note(&mut self, id: &Arc<str>, sequence: u64, is_doubtful: bool) {
        let newest = self.newest.as_ref();
        if newest.is_none_or(|(_, newest)| *newest < sequence) {
            self.newest = Some((id.clone(), sequence));
        }
        if is_doubtful {
            self.doubtful_through = self.doubtful_through.max(sequence);
        }
    }

    /// Removes the id of an event that goes. Not inlined, for the same reason.
    #[inline(never)]
    pub(crate) fn remove(&mut self, id: &str, sequence: u64) {
        if self.numbers.get(id) == Some(&sequence) {
            self.numbers.remove(id);
        }
    }

    /// Returns the number of the event of an id.
    pub(crate) fn get(&self, id: &str) -> Option<u64> {
        self.numbers.get(id).copied()
    }

    /// Returns the id that was published last, and its number.
    pub(crate) fn newest(&self) -> Option<(&Arc<str>, u64)> {
        let (id, sequence) = self.newest.as_ref()?;
        Some((id, *sequence))
    }

    /// Returns the number of the newest event with a doubtful id, or 0.
    pub(crate) fn doubtful_through(&self) -> u64 {
        self.doubtful_through
    }

    #[cfg(feature = "internals")]
    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_to_the_oldest_event_that_has_it_and_is_there() {
        let own_id = |text: &str, is_doubtful| OwnId {
            text: text.into(),
            digest: 0,
            is_doubtful,
        };
        let mut held = HeldIds::default();
        assert!(held.newest().is_none());
        held.insert(&own_id("a", true), 1);
        held.insert(&own_id("b", false), 2);
        held.insert(&own_id("a", false), 3);
        assert_eq!(
            (held.get("a"), held.get("b"), held.get("c")),
            (Some(1), Some(2), None)
        );
        assert_eq!(
            (held.newest(), held.doubtful_through()),
            (Some((&"a".into(), 3)), 1)
        );
        held.remove("a", 3);
        assert_eq!(held.get("a"), Some(1));
        held.remove("a", 1);
        assert_eq!(held.get("a"), None);
        // An id from before, of a saved state.
        held.note(&"z".into(), 2, true);
        assert_eq!(
            (held.newest(), held.doubtful_through()),
            (Some((&"a".into(), 3)), 2)
        );
    }
}
