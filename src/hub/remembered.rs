//! The own ids of publishers that are remembered, of all channels.
//!
//! An id leads to a digest of its event, so that the event is not appended a second time
//! when its publisher repeats it, and to the event's number, so that a client that comes
//! back with the id resumes behind the event. The [table](super::table) states for how long.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use super::audience::{Audience, Choice};
use super::id::EventId;
use super::table::{Bounds, Record, Table};

/// How long ids are known: 256 bytes an id.
const BOUNDS: Bounds = Bounds {
    entries_max: 131_072,
    bytes_max: 32 << 20,
    age_max: Duration::from_secs(24 * 3_600),
};

/// What an id costs beyond its text, its channel's name and its audience: a record, a
/// slot of the map, and the allocation.
const ID_OVERHEAD_BYTES: usize = 120;

/// The largest audience that is remembered, in bytes. A client that comes back with the id
/// of an event for more clients than that receives a gap, unless the log holds the event.
const AUDIENCE_BYTES_MAX: usize = 1_024;

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

impl Record<Arc<str>> for IdRecord {
    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn at_ms(&self) -> u64 {
        self.at_ms
    }

    fn set_at_ms(&mut self, at_ms: u64) {
        self.at_ms = at_ms;
    }

    fn reduce(&mut self, key: &Arc<str>) -> usize {
        let audience = self.audience.as_ref();
        let mut audience_bytes = audience.map_or(0, |audience| audience.bytes());
        if audience_bytes > AUDIENCE_BYTES_MAX {
            audience_bytes = 0;
            self.audience = Some(Arc::new(Audience::clients(Vec::new(), Choice::Named)));
        }
        key.len() + ID_OVERHEAD_BYTES + audience_bytes
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Remembered(Table<Arc<str>, IdRecord>);

impl Default for Remembered {
    fn default() -> Self {
        Remembered(Table::new(BOUNDS))
    }
}

impl Deref for Remembered {
    type Target = Table<Arc<str>, IdRecord>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Remembered {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Remembered {
    #[cfg(test)]
    pub(super) fn bounded(entries_max: usize, bytes_max: u32, age_max: Duration) -> Remembered {
        Remembered(Table::new(Bounds {
            entries_max,
            bytes_max,
            age_max,
        }))
    }

    /// Returns the record of an id that is known when an event is published at `now_ms`,
    /// which is of the hub's clock or of the log.
    pub(super) fn known(&self, scope: &str, id: &str, now_ms: u64) -> Option<&IdRecord> {
        (!self.is_empty()).then(|| self.0.known(&*key_of(scope, id), now_ms))?
    }

    /// Returns the record of an id, which is there for a while after it is known.
    pub(super) fn get(&self, scope: &str, id: &str) -> Option<&IdRecord> {
        (!self.is_empty()).then(|| self.0.get(&*key_of(scope, id)))?
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
    use crate::hub::table::REMOVED_TOGETHER;

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
        let mut remembered = Remembered::bounded(3, u32::MAX, HOUR);
        for n in 1..=5 {
            insert(&mut remembered, n, 0);
        }
        let known: Vec<u64> = (0..=5).filter(|n| knows(&remembered, *n, 0)).collect();
        assert_eq!(known, [3, 4, 5]);
        let after: Vec<u64> = remembered.after(3).map(|(_, r)| r.sequence).collect();
        assert_eq!(after, [4, 5]);
        for n in 6..=1_000 {
            insert(&mut remembered, n, 0);
            let (records, keys) = remembered.lens();
            assert!((3..3 + REMOVED_TOGETHER).contains(&records) && keys == records);
        }
    }

    #[test]
    fn with_a_log_its_times_count_and_no_clock() {
        const DAY_MS: u64 = 24 * 3_600_000;
        let mut remembered = Remembered::bounded(100, u32::MAX, HOUR);
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
        let mut remembered = Remembered::bounded(100, u32::MAX, Duration::from_millis(10));
        let old = REMOVED_TOGETHER as u64 - 1;
        for n in 1..=old {
            insert(&mut remembered, n, n.min(6));
        }
        assert!(knows(&remembered, 1, 11) && !knows(&remembered, 1, 12));
        insert(&mut remembered, old + 1, 100);
        // The old ones are still there.
        assert!(remembered.get("a", "1").is_some());
        // Time does not go back, also if a thread has read it before.
        for n in 1..=old {
            assert!(!knows(&remembered, n, 6), "{n}");
        }
        // The id is free again, and its old record goes without the new one.
        let new = record(old + 2, 100);
        remembered.insert(key_of("a", "5"), new.clone());
        assert_eq!(remembered.known("a", "5", 100), Some(&new));
        insert(&mut remembered, old + 3, 200);
        assert_eq!(remembered.lens().0, 2);
        assert_eq!(remembered.get("a", "5"), Some(&new));
    }

    #[test]
    fn a_copy_keeps_what_is_no_longer_known() {
        let mut remembered = Remembered::bounded(2, u32::MAX, HOUR);
        remembered.begin_copy();
        for n in 1..=100 {
            insert(&mut remembered, n, 0);
        }
        let known = |remembered: &Remembered| -> Vec<u64> {
            (0..=101).filter(|n| knows(remembered, *n, 0)).collect()
        };
        assert_eq!(known(&remembered), [99, 100]);
        assert_eq!(remembered.lens().0, 100);
        remembered.end_copy();
        insert(&mut remembered, 101, 0);
        assert_eq!(known(&remembered), [100, 101]);
        assert_eq!(remembered.lens().0, 101 - REMOVED_TOGETHER);
    }

    #[test]
    fn the_ids_that_are_known_have_a_bound_in_bytes() {
        let id = |n: u64| format!("{n:0>255}");
        let each = u32::try_from(256 + 1 + ID_OVERHEAD_BYTES).unwrap();
        let mut remembered = Remembered::bounded(usize::MAX, 10 * each, HOUR);
        for n in 1..=100 {
            remembered.insert(key_of("a", &id(n)), record(n, 0));
        }
        assert!(remembered.lens().0 < 10 + REMOVED_TOGETHER);
        assert!(remembered.known("a", &id(91), 0).is_some());
        assert!(remembered.known("a", &id(90), 0).is_none());
        // The usual ones all have room.
        let usual = "customer.2026/order.2026-11-30.00000017".len() + ID_OVERHEAD_BYTES;
        assert!(BOUNDS.entries_max * usual <= BOUNDS.bytes_max as usize);
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
