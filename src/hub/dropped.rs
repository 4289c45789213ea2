//! Entries on their way from a log to the allocator.

use std::collections::VecDeque;

use super::entry::Entry;
use super::looks::{LOOKS_MAX, looked_at};

/// Entries that a locked section has taken out of logs. Its caller drops them when
/// the lock is open, because to free an entry takes longer than to take it out.
#[derive(Debug)]
pub(crate) struct Dropped {
    /// How many more entries may be evicted in this locked section.
    room: usize,
    /// The usual case: a publish evicts one entry, and needs no memory for a list.
    first: Option<Entry>,
    rest: Option<Box<Rest>>,
}

#[derive(Debug, Default)]
struct Rest {
    entries: Vec<Entry>,
    /// The memory of logs that have become empty.
    histories: Vec<VecDeque<Entry>>,
}

impl Dropped {
    /// Returns an empty list with room for 1,024 entries.
    pub(crate) fn new() -> Dropped {
        Dropped::for_batch(1)
    }

    /// Returns an empty list for a publish. Each of its events may replace one entry and
    /// evict another.
    pub(crate) fn for_batch(events: usize) -> Dropped {
        Dropped {
            room: LOOKS_MAX.max(2 * events),
            first: None,
            rest: None,
        }
    }

    /// Returns how many more entries may be evicted in this locked section.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// Counts other work of the section as evictions.
    pub(super) fn spend(&mut self, looks: usize) {
        looked_at(looks);
        self.room = self.room.saturating_sub(looks);
    }

    #[inline]
    pub(super) fn push(&mut self, entry: Entry) {
        looked_at(1);
        self.room = self.room.saturating_sub(1);
        match self.first {
            None => self.first = Some(entry),
            Some(_) => self.push_to_rest(entry),
        }
    }

    #[inline(never)]
    fn push_to_rest(&mut self, entry: Entry) {
        self.rest_mut().entries.push(entry);
    }

    pub(super) fn push_history(&mut self, history: VecDeque<Entry>) {
        self.rest_mut().histories.push(history);
    }

    /// Drops the entries. A locked section that runs once per publish ends with it: it
    /// does less than the end of a scope when there is no list.
    #[inline]
    pub(super) fn free(self) {
        let Dropped { first, rest, .. } = self;
        drop(first);
        if let Some(rest) = rest {
            drop(rest);
        }
    }

    fn rest_mut(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    /// Returns how many entries, and how many empty histories it has.
    #[cfg(test)]
    pub(super) fn lens(&self) -> (usize, usize) {
        let rest = self.rest.as_deref();
        let [entries, histories] = [
            rest.map_or(0, |rest| rest.entries.len()),
            rest.map_or(0, |rest| rest.histories.len()),
        ];
        (self.first.iter().len() + entries, histories)
    }
}
