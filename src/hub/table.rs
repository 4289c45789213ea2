//! [`Table`]: records of publishes by key, for as long as they are known.
//!
//! The invariant to remember: *whether a record is known depends on the order and the times
//! of the publishes alone*. It is known while fewer than [`entries_max`](Bounds) newer ones
//! were added, while these and itself take at most [`bytes_max`](Bounds), and for
//! [`age_max`](Bounds). What a log evicts and which channels are removed makes no difference.

use std::borrow::Borrow;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::clock::as_ms;

/// As soon as so many records are no longer known, they are removed together. The index has each
/// one at a place that is probably in no cache, and a processor loads several such places at a
/// time.
pub(super) const REMOVED_TOGETHER: usize = 32;

/// A full list grows by one part of so many, and not to twice its size.
const GROWTH_PART: usize = 4;

/// What a table remembers of a key.
pub(super) trait Record<K>: Clone {
    /// Returns the sequence number of its publish. Later ones are higher.
    fn sequence(&self) -> u64;

    /// Returns the time of its publish: of the hub's clock, or of the
    /// [log](Table::follow_log).
    fn at_ms(&self) -> u64;

    fn set_at_ms(&mut self, at_ms: u64);

    /// Removes what a record does not keep. Returns the bytes of the rest, with its key.
    fn reduce(&mut self, key: &K) -> usize;
}

/// The bounds of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) entries_max: usize,
    /// At most 1 GiB.
    pub(super) bytes_max: u32,
    pub(super) age_max: Duration,
}

#[derive(Debug)]
struct Kept<K, R> {
    key: K,
    record: R,
    /// The bytes of all records before this one. It wraps.
    bytes_before: u32,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Table<K, R> {
    bounds: Bounds,
    /// In the order of their numbers.
    kept: VecDeque<Kept<K, R>>,
    /// The place of each key's newest record, by the hash of the key. Places are counted from
    /// the first that there ever was, and wrap.
    by_key: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The number of records that were removed. It wraps.
    removed: u32,
    /// The bytes of all records that there ever were. It wraps.
    bytes: u32,
    /// The latest time of a record.
    latest_ms: u64,
    /// The time of the newest block, in milliseconds since 1970, if a log has the publishes.
    log_ms: Option<u64>,
    /// The records of a saved state that are newer than its beginning, by their numbers.
    /// The log that is applied behind the beginning has their publishes.
    ahead: BTreeMap<u64, (K, R)>,
    /// Copies that are being made, which need all records of the moment they began.
    copies: usize,
}

impl<K: Clone + Eq + Hash, R: Record<K>> Table<K, R> {
    pub(super) fn new(bounds: Bounds) -> Table<K, R> {
        Table {
            bounds,
            kept: VecDeque::new(),
            by_key: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            removed: 0,
            bytes: 0,
            latest_ms: 0,
            log_ms: None,
            ahead: BTreeMap::new(),
            copies: 0,
        }
    }

    /// Goes by the times of a log from now on: a replay has no other, and has to know the
    /// same records. Records that are here already have such times.
    pub(super) fn follow_log(&mut self) {
        self.log_ms = Some(self.latest_ms);
    }

    /// Notes the time of the block that is applied.
    pub(super) fn begin_block(&mut self, wall_ms: u64) {
        if let Some(log_ms) = &mut self.log_ms {
            *log_ms = wall_ms.max(*log_ms);
        }
    }

    /// Returns the time of the newest block, in milliseconds since 1970, if a log has the
    /// publishes.
    pub(super) fn log_ms(&self) -> Option<u64> {
        self.log_ms
    }

    /// Returns whether times are in milliseconds since 1970.
    pub(super) fn has_wall_times(&self) -> bool {
        self.log_ms.is_some()
    }

    /// Adds a record of a saved state whose publish is still to be applied, or is skipped
    /// because its channel has it.
    pub(super) fn insert_ahead(&mut self, key: K, record: R) {
        self.ahead.insert(record.sequence(), (key, record));
    }

    /// Remembers the publishes up to a number that were skipped.
    pub(super) fn catch_up(&mut self, sequence: u64) {
        while let Some((number, (key, record))) = self.ahead.pop_first() {
            if number > sequence {
                self.ahead.insert(number, (key, record));
                return;
            }
            self.put(key, record);
        }
    }

    /// Keeps all records until the [end](Self::end_copy) of a copy.
    pub(super) fn begin_copy(&mut self) {
        self.copies += 1;
    }

    pub(super) fn end_copy(&mut self) {
        // What a node has built may have taken the place of what the copy began with.
        self.copies = self.copies.saturating_sub(1);
    }

    /// Returns whether a copy keeps all records.
    #[cfg(test)]
    pub(super) fn is_copied(&self) -> bool {
        self.copies > 0
    }

    /// Remembers the publish of a key. It is newer than all before.
    pub(super) fn insert(&mut self, key: K, mut record: R) {
        if let Some(log_ms) = self.log_ms {
            record.set_at_ms(log_ms);
        }
        self.put(key, record);
    }

    fn put(&mut self, key: K, mut record: R) {
        self.latest_ms = self.latest_ms.max(record.at_ms());
        if !self.ahead.is_empty() {
            self.ahead.remove(&record.sequence());
        }
        let bytes = u32::try_from(record.reduce(&key)).unwrap_or(u32::MAX);
        self.note_place(&key);
        if self.kept.len() == self.kept.capacity() {
            self.kept
                .reserve_exact(self.kept.len() / GROWTH_PART + GROWTH_PART);
        }
        self.kept.push_back(Kept {
            key,
            record,
            bytes_before: self.bytes,
        });
        self.bytes = self.bytes.wrapping_add(bytes);
        let last = REMOVED_TOGETHER - 1;
        if self.copies == 0 && self.kept.len() > last && !self.is_within(last, self.latest_ms) {
            self.remove_oldest();
        }
    }

    /// Lets the key lead to the place of the next record.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "places wrap, and there are fewer records than places"
    )]
    fn note_place(&mut self, key: &K) {
        let (kept, hasher, removed) = (&self.kept, &self.hasher, self.removed);
        let key_at = |place: &u32| &kept[place.wrapping_sub(removed) as usize].key;
        let place = removed.wrapping_add(kept.len() as u32);
        let found = self.by_key.entry(
            hasher.hash_one(key),
            |other| key_at(other) == key,
            |other| hasher.hash_one(key_at(other)),
        );
        match found {
            Entry::Occupied(mut found) => *found.get_mut() = place,
            Entry::Vacant(free) => _ = free.insert(place),
        }
    }

    /// Removes the oldest records as far as they are no longer known.
    fn remove_oldest(&mut self) {
        for _ in 0..REMOVED_TOGETHER {
            if self.is_within(0, self.latest_ms) {
                break;
            }
            let Some(oldest) = self.kept.pop_front() else {
                break;
            };
            // The key leads to a later record, if this one was no longer known by then.
            let hash = self.hasher.hash_one(&oldest.key);
            let place = self.removed;
            if let Ok(found) = self.by_key.find_entry(hash, |other| *other == place) {
                found.remove();
            }
            self.removed = place.wrapping_add(1);
        }
    }

    /// Returns whether a record is within the bounds.
    fn is_within(&self, index: usize, now_ms: u64) -> bool {
        let Bounds {
            entries_max,
            bytes_max,
            age_max,
        } = self.bounds;
        self.kept.get(index).is_some_and(|kept| {
            self.kept.len() - index <= entries_max
                && self.bytes.wrapping_sub(kept.bytes_before) <= bytes_max
                && now_ms.saturating_sub(kept.record.at_ms()) <= as_ms(age_max)
        })
    }

    /// Returns the record of a key that is known when something is published at `now_ms`,
    /// which is of the hub's clock or of the log, as all times here.
    pub(super) fn known<Q: Eq + Hash + ?Sized>(&self, key: &Q, now_ms: u64) -> Option<&R>
    where
        K: Borrow<Q>,
    {
        let index = self.index_of(key)?;
        let newest_ms = self.latest_ms.max(self.log_ms.unwrap_or_default());
        let is_known = self.is_within(index, newest_ms.max(now_ms));
        is_known.then(|| &self.kept[index].record)
    }

    /// Returns the record of a key, which is there for a while after it is known.
    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&R>
    where
        K: Borrow<Q>,
    {
        let index = self.index_of(key)?;
        self.kept.get(index).map(|kept| &kept.record)
    }

    fn index_of<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        let index = |place: &u32| place.wrapping_sub(self.removed) as usize;
        let is_it = |place: &u32| <K as Borrow<Q>>::borrow(&self.kept[index(place)].key) == key;
        let hash = self.hasher.hash_one(key);
        self.by_key.find(hash, is_it).map(index)
    }

    /// Returns whether it remembers nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Returns the time of the oldest record, if it is of the hub's clock.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        let oldest = self.kept.front().filter(|_| !self.has_wall_times());
        oldest.map(|kept| kept.record.at_ms())
    }

    /// Returns the records after a number, in their order.
    pub(super) fn after(&self, sequence: u64) -> impl Iterator<Item = (&K, &R)> {
        let from = self
            .kept
            .partition_point(|kept| kept.record.sequence() <= sequence);
        self.kept
            .range(from..)
            .map(|kept| (&kept.key, &kept.record))
    }
}

/// For tests: the number of records, and of keys.
#[cfg(test)]
impl<K, R> Table<K, R> {
    pub(super) fn lens(&self) -> (usize, usize) {
        (self.kept.len(), self.by_key.len())
    }
}
