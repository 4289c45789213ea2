//! The own ids of publishers that are remembered, of all channels.
//!
//! An id leads to a digest of its event, so that the event is not appended a second time
//! when its publisher repeats it, and to the event's number, so that a client that comes
//! back with the id resumes behind the event.
//!
//! The invariant to remember: *whether an id is known depends on the order and the times
//! of the publishes alone*. It is known while fewer than [`IDS_MAX`] newer ids were
//! published, while these and itself take at most [`BYTES_MAX`], and for [`AGE_MAX`]. What
//! a log evicts and which channels are removed makes no difference.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::audience::{Audience, Choice};
use super::clock::as_ms;
use super::id::EventId;

/// Maximum number of ids of all channels.
const IDS_MAX: usize = 131_072;

/// Maximum memory of these, in bytes: 256 an id.
const BYTES_MAX: u64 = 32 << 20;

/// The time for which an id is known.
const AGE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// What an id costs beyond its text, its channel's name and its audience: a record, a
/// slot of the map, and the allocation.
const ID_OVERHEAD_BYTES: usize = 120;

/// The largest audience that is remembered, in bytes. A client that comes back with the id
/// of an event for more clients than that receives a gap, unless the log holds the event.
const AUDIENCE_BYTES_MAX: usize = 1_024;

/// The records that are removed for one that is added. More than one, because a copy or
/// the time may leave many to be removed.
const REMOVED_FOR_ONE: usize = 4;

/// The scope of events for all channels. No channel has this name.
pub(super) const ALL: &str = "";

/// The own id of a publisher for an event, with a digest by which a repetition of the
/// event differs from another event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnId {
    pub(crate) text: Arc<str>,
    /// The [`digest`] of the event and its target.
    pub(crate) digest: u64,
    /// The event may be the repetition of one from before a restart.
    pub(crate) is_doubtful: bool,
}

impl OwnId {
    /// Returns it as the id of its event.
    pub(crate) fn event_id(&self) -> EventId {
        EventId::own(self.text.clone())
    }
}

/// What is remembered of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdRecord {
    /// The sequence number of its event.
    pub(crate) sequence: u64,
    /// The time of its event: of the hub's clock, or of the [log](Remembered::follow_log).
    pub(crate) at_ms: u64,
    pub(crate) digest: u64,
    pub(crate) is_doubtful: bool,
    /// The clients that the event is for; `None`: all.
    pub(crate) audience: Option<Arc<Audience>>,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    ids_max: usize,
    bytes_max: u64,
    age_max_ms: u64,
}

#[derive(Debug)]
struct Kept {
    key: Arc<str>,
    record: IdRecord,
    /// The bytes of all records before this one.
    bytes_before: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Remembered {
    bounds: Bounds,
    /// In the order of their numbers.
    kept: VecDeque<Kept>,
    /// The place of each key's record, counted from the first that there ever was.
    by_key: HashMap<Arc<str>, u64>,
    /// The number of records that were removed.
    removed: u64,
    /// The bytes of all records that there ever were.
    bytes: u64,
    /// The latest time of an event.
    latest_ms: u64,
    /// The time of the newest block, in milliseconds since 1970, if a log has the events.
    log_ms: Option<u64>,
    /// The records of a saved state that are newer than its beginning, by their numbers.
    /// The log that is applied behind the beginning has their events.
    ahead: BTreeMap<u64, (Arc<str>, IdRecord)>,
    /// Copies that are being made, which need all records of the moment they began.
    copies: usize,
}

impl Default for Remembered {
    fn default() -> Self {
        Remembered::bounded(IDS_MAX, BYTES_MAX, AGE_MAX)
    }
}

impl Remembered {
    pub(super) fn bounded(ids_max: usize, bytes_max: u64, age_max: Duration) -> Remembered {
        Remembered {
            bounds: Bounds {
                ids_max,
                bytes_max,
                age_max_ms: as_ms(age_max),
            },
            kept: VecDeque::new(),
            by_key: HashMap::new(),
            removed: 0,
            bytes: 0,
            latest_ms: 0,
            log_ms: None,
            ahead: BTreeMap::new(),
            copies: 0,
        }
    }

    /// Goes by the times of a log from now on: a replay has no other, and has to know the
    /// same ids. Records that are here already have such times.
    pub(super) fn follow_log(&mut self) {
        self.log_ms = Some(self.latest_ms);
    }

    /// Notes the time of the block that is applied.
    pub(super) fn begin_block(&mut self, wall_ms: u64) {
        if let Some(log_ms) = &mut self.log_ms {
            *log_ms = wall_ms.max(*log_ms);
        }
    }

    /// Returns whether times are in milliseconds since 1970.
    pub(super) fn has_wall_times(&self) -> bool {
        self.log_ms.is_some()
    }

    /// Adds a record of a saved state whose event is still to be applied, or is skipped
    /// because its channel has it.
    pub(super) fn insert_ahead(&mut self, key: Arc<str>, record: IdRecord) {
        self.ahead.insert(record.sequence, (key, record));
    }

    /// Remembers the events up to a number that were skipped.
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
        self.copies -= 1;
    }

    /// Returns whether a copy keeps all records.
    #[cfg(test)]
    pub(super) fn is_copied(&self) -> bool {
        self.copies > 0
    }

    /// Remembers the event of a key. It is newer than all before.
    pub(super) fn insert(&mut self, key: Arc<str>, record: IdRecord) {
        let at_ms = self.log_ms.unwrap_or(record.at_ms);
        self.put(key, IdRecord { at_ms, ..record });
    }

    fn put(&mut self, key: Arc<str>, mut record: IdRecord) {
        self.latest_ms = self.latest_ms.max(record.at_ms);
        if !self.ahead.is_empty() {
            self.ahead.remove(&record.sequence);
        }
        let audience = record.audience.as_ref();
        let mut audience_bytes = audience.map_or(0, |audience| audience.bytes());
        if audience_bytes > AUDIENCE_BYTES_MAX {
            audience_bytes = 0;
            record.audience = Some(Arc::new(Audience::clients(Vec::new(), Choice::Named)));
        }
        let place = self.removed + self.kept.len() as u64;
        let bytes = key.len() + ID_OVERHEAD_BYTES + audience_bytes;
        self.by_key.insert(key.clone(), place);
        self.kept.push_back(Kept {
            key,
            record,
            bytes_before: self.bytes,
        });
        self.bytes += bytes as u64;
        for _ in 0..REMOVED_FOR_ONE {
            if self.copies == 0 && !self.is_within(0, self.latest_ms) {
                self.remove_oldest();
            }
        }
    }

    fn remove_oldest(&mut self) {
        if let Some(oldest) = self.kept.pop_front() {
            // A later event may have the key, if this one was no longer known.
            if self.by_key.get(&oldest.key) == Some(&self.removed) {
                self.by_key.remove(&oldest.key);
            }
            self.removed += 1;
        }
    }

    /// Returns whether a record is within the bounds.
    fn is_within(&self, index: usize, now_ms: u64) -> bool {
        let Bounds {
            ids_max,
            bytes_max,
            age_max_ms,
        } = self.bounds;
        self.kept.get(index).is_some_and(|kept| {
            self.kept.len() - index <= ids_max
                && self.bytes - kept.bytes_before <= bytes_max
                && now_ms.saturating_sub(kept.record.at_ms) <= age_max_ms
        })
    }

    /// Returns the record of an id that is known when an event is published at `now_ms`, which
    /// is of the hub's clock or of the log, as all times here.
    pub(super) fn known(&self, scope: &str, id: &str, now_ms: u64) -> Option<&IdRecord> {
        let index = self.index_of(scope, id)?;
        let newest_ms = self.latest_ms.max(self.log_ms.unwrap_or_default());
        let is_known = self.is_within(index, newest_ms.max(now_ms));
        is_known.then(|| &self.kept[index].record)
    }

    /// Returns the record of an id, which is there for a while after it is known.
    pub(super) fn get(&self, scope: &str, id: &str) -> Option<&IdRecord> {
        let index = self.index_of(scope, id)?;
        self.kept.get(index).map(|kept| &kept.record)
    }

    fn index_of(&self, scope: &str, id: &str) -> Option<usize> {
        if self.kept.is_empty() {
            return None;
        }
        let place = self.by_key.get(&*key_of(scope, id))?;
        usize::try_from(place - self.removed).ok()
    }

    /// Returns the time of the oldest record, if it is of the hub's clock.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        let oldest = self.kept.front().filter(|_| !self.has_wall_times());
        oldest.map(|kept| kept.record.at_ms)
    }

    /// Returns the records after a number, in their order.
    pub(super) fn after(&self, sequence: u64) -> impl Iterator<Item = (&Arc<str>, &IdRecord)> {
        let from = self
            .kept
            .partition_point(|kept| kept.record.sequence <= sequence);
        self.kept
            .range(from..)
            .map(|kept| (&kept.key, &kept.record))
    }
}

/// Returns the key of an id within its scope: the name of a channel, or [`ALL`].
pub(super) fn key_of(scope: &str, id: &str) -> Arc<str> {
    [scope, "/", id].concat().into()
}

/// Returns the scope and the id of a key.
pub(super) fn parts_of(key: &str) -> Option<(&str, &str)> {
    // No name has a slash.
    key.split_once('/')
}

/// Returns the FNV-1a hash of `parts`, each with its length. It is the same in
/// every build, because saved states have it. It keeps no secret and guards
/// against no attacker: a publisher that looks for two events with one digest
/// deceives itself alone.
pub(crate) fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for part in parts {
        add(part);
        add(&(part.len() as u64).to_le_bytes());
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::client::ClientId;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn record(sequence: u64, at_ms: u64) -> IdRecord {
        IdRecord {
            sequence,
            at_ms,
            digest: sequence,
            is_doubtful: false,
            audience: None,
        }
    }

    fn insert(remembered: &mut Remembered, n: u64, at_ms: u64) {
        remembered.insert(key_of("a", &n.to_string()), record(n, at_ms));
    }

    fn knows(remembered: &Remembered, n: u64, now_ms: u64) -> bool {
        let known = remembered.known("a", &n.to_string(), now_ms);
        known.is_some_and(|known| known.sequence == n)
    }

    #[test]
    fn an_id_is_known_until_there_are_enough_newer_ones() {
        let mut remembered = Remembered::bounded(3, u64::MAX, HOUR);
        for n in 1..=5 {
            insert(&mut remembered, n, 0);
        }
        let known: Vec<u64> = (0..=5).filter(|n| knows(&remembered, *n, 0)).collect();
        assert_eq!(known, [3, 4, 5]);
        assert_eq!((remembered.kept.len(), remembered.by_key.len()), (3, 3));
        let after: Vec<u64> = remembered.after(3).map(|(_, r)| r.sequence).collect();
        assert_eq!(after, [4, 5]);
    }

    #[test]
    fn with_a_log_its_times_count_and_no_clock() {
        const DAY_MS: u64 = 24 * 3_600_000;
        let mut remembered = Remembered::bounded(100, u64::MAX, HOUR);
        remembered.follow_log();
        remembered.begin_block(DAY_MS);
        insert(&mut remembered, 1, 7);
        for (now_ms, is_known) in [(0, true), (DAY_MS + 3_600_000, true), (2 * DAY_MS, false)] {
            assert_eq!(knows(&remembered, 1, now_ms), is_known, "{now_ms}");
        }
        remembered.begin_block(DAY_MS - 5);
        remembered.begin_block(DAY_MS + 3_600_000);
        assert!(knows(&remembered, 1, 0));
        remembered.begin_block(DAY_MS + 3_600_001);
        assert!(!knows(&remembered, 1, 0));
    }

    #[test]
    fn an_id_is_known_for_a_time_however_late_it_is_removed() {
        let mut remembered = Remembered::bounded(100, u64::MAX, Duration::from_millis(10));
        for n in 1..=6 {
            insert(&mut remembered, n, n);
        }
        assert!(knows(&remembered, 1, 11) && !knows(&remembered, 1, 12));
        insert(&mut remembered, 7, 100);
        // Some are still there.
        assert_eq!(remembered.kept.len(), 3);
        assert!(remembered.get("a", "6").is_some());
        // Time does not go back, also if a thread has read it before.
        for n in 1..=6 {
            assert!(!knows(&remembered, n, 6), "{n}");
        }
        // The id is free again, and its old record goes without the new one.
        remembered.insert(key_of("a", "5"), record(8, 100));
        assert_eq!(remembered.known("a", "5", 100), Some(&record(8, 100)));
        insert(&mut remembered, 9, 100);
        assert_eq!(remembered.kept.len(), 3);
        assert_eq!(remembered.known("a", "5", 100), Some(&record(8, 100)));
    }

    #[test]
    fn a_copy_keeps_what_is_no_longer_known() {
        let mut remembered = Remembered::bounded(2, u64::MAX, HOUR);
        remembered.begin_copy();
        for n in 1..=10 {
            insert(&mut remembered, n, 0);
        }
        let known = |remembered: &Remembered| -> Vec<u64> {
            (0..=11).filter(|n| knows(remembered, *n, 0)).collect()
        };
        assert_eq!(
            (known(&remembered), remembered.kept.len()),
            (vec![9, 10], 10)
        );
        remembered.end_copy();
        insert(&mut remembered, 11, 0);
        assert_eq!(
            (known(&remembered), remembered.kept.len()),
            (vec![10, 11], 7)
        );
    }

    #[test]
    fn the_ids_that_are_known_have_a_bound_in_bytes() {
        let id = |n: u64| format!("{n:0>255}");
        let each = (256 + 1 + ID_OVERHEAD_BYTES) as u64;
        let mut remembered = Remembered::bounded(usize::MAX, 10 * each, HOUR);
        for n in 1..=100 {
            remembered.insert(key_of("a", &id(n)), record(n, 0));
        }
        assert_eq!(remembered.kept.len(), 10);
        assert!(remembered.known("a", &id(91), 0).is_some());
        assert!(remembered.known("a", &id(90), 0).is_none());
        // The usual ones all have room.
        let usual = "customer.2026/order.2026-11-30.00000017".len() + ID_OVERHEAD_BYTES;
        assert!((IDS_MAX * usual) as u64 <= BYTES_MAX);
    }

    #[test]
    fn a_channel_has_ids_of_its_own() {
        let mut remembered = Remembered::default();
        for (n, scope) in (1..).zip(["a", "b", ALL]) {
            remembered.insert(key_of(scope, "x/y"), record(n, 0));
        }
        for (n, scope) in (1..).zip(["a", "b", ALL]) {
            assert_eq!(remembered.known(scope, "x/y", 0), Some(&record(n, 0)));
            assert_eq!(parts_of(&key_of(scope, "x/y")), Some((scope, "x/y")));
        }
        assert!(remembered.get("c", "x/y").is_none());
    }

    #[test]
    fn a_large_audience_does_not_outlive_its_event() {
        let audience = |count: usize| {
            let ids = (0..count).map(|n| ClientId::new(&format!("client-{n}")).unwrap());
            Some(Arc::new(Audience::clients(ids.collect(), Choice::Named)))
        };
        let mut remembered = Remembered::default();
        for (n, id, count) in [(1, "few", 2), (2, "many", 1_000)] {
            let audience = audience(count);
            let record = IdRecord {
                audience,
                ..record(n, 0)
            };
            remembered.insert(key_of("a", id), record);
        }
        let first = ClientId::new("client-0").unwrap();
        let admits = |id| {
            let record = remembered.get("a", id).unwrap();
            record.audience.as_ref().unwrap().admits(&first, None)
        };
        assert!(admits("few"));
        assert!(!admits("many"));
    }

    #[test]
    fn a_digest_depends_on_each_part_and_on_nothing_else() {
        let of = |parts: &[&str]| digest(parts.iter().map(|part| part.as_bytes()));
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
        for other in [
            &["a", "bc"][..],
            &["abc"],
            &["ab", "c", ""],
            &["ab", "d"],
            &[],
        ] {
            assert_ne!(of(&["ab", "c"]), of(other), "{other:?}");
        }
        // Saved states have digests: the function must not change.
        assert_eq!(of(&["order-17"]), 0x00c0_b415_d41b_69a6);
    }
}
