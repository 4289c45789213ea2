//! The own ids of publishers that a channel remembers.
//!
//! An id leads to its event's place in the log, so that a client that comes
//! back with the id resumes behind that event, and to a digest of the event, so
//! that the event is not appended a second time when its publisher repeats it.
//!
//! The invariant to remember: *an id is remembered for as long as the log holds
//! its event, and then until [`RELEASED_MAX`] others, or [`RELEASED_BYTES_MAX`] of
//! them, were released after it*. So a remembered id has exactly one record.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::audience::{Audience, Choice};
use super::id::EventId;

/// The most ids of a channel that are remembered beyond their events.
pub(crate) const RELEASED_MAX: usize = 1_024;

/// The most memory that these may take, in bytes: enough for all of them if
/// their ids are short and their events for all clients.
pub(crate) const RELEASED_BYTES_MAX: usize = 256 << 10;

/// What an id costs beyond its text and its audience: both maps' slots, and the
/// allocation.
const ID_OVERHEAD_BYTES: usize = 128;

/// The largest audience that is remembered beyond its event, in bytes. A client
/// that comes back with the id of an event for more clients than that receives
/// a gap.
const AUDIENCE_BYTES_MAX: usize = 1_024;

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
    pub(crate) digest: u64,
    pub(crate) is_doubtful: bool,
    /// The clients that the event is for; `None`: all.
    pub(crate) audience: Option<Arc<Audience>>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    records: HashMap<Arc<str>, IdRecord>,
    /// The ids whose events are no longer in the log, in the order in which the
    /// events went.
    released: VecDeque<Arc<str>>,
    released_bytes: usize,
    /// The id that was given last.
    newest: Option<Arc<str>>,
    /// The sequence number of the newest event with a doubtful id.
    doubtful_through: u64,
}

impl Remembered {
    /// Remembers where the event of an id is. An id that was remembered before keeps its
    /// record: a client that comes back with it is sent too much rather than too little.
    pub(crate) fn insert(&mut self, id: Arc<str>, record: IdRecord) {
        if record.is_doubtful {
            self.doubtful_through = self.doubtful_through.max(record.sequence);
        }
        if self.records.contains_key(&id) {
            return;
        }
        let is_newest = self
            .newest()
            .is_none_or(|(_, newest)| newest.sequence < record.sequence);
        if is_newest {
            self.newest = Some(id.clone());
        }
        self.records.insert(id, record);
    }

    /// Notes that the log no longer holds the event of an id and a number. Forgets the
    /// ids that were released first where too many are remembered.
    pub(crate) fn release(&mut self, id: &str, sequence: u64) {
        let record = self.records.get_key_value(id);
        let Some((id, _)) = record.filter(|(_, record)| record.sequence == sequence) else {
            return;
        };
        let id = id.clone();
        if let Some(record) = self.records.get_mut(&id)
            && let Some(audience) = &record.audience
            && audience.bytes() > AUDIENCE_BYTES_MAX
        {
            record.audience = Some(Arc::new(Audience::clients(Vec::new(), Choice::Named)));
        }
        self.released_bytes += self.bytes_of(&id);
        self.released.push_back(id);
        while (self.released.len() > RELEASED_MAX || self.released_bytes > RELEASED_BYTES_MAX)
            && let Some(oldest) = self.released.pop_front()
        {
            self.released_bytes -= self.bytes_of(&oldest);
            self.records.remove(&oldest);
            self.newest = self.newest.take().filter(|newest| *newest != oldest);
        }
    }

    fn bytes_of(&self, id: &str) -> usize {
        let record = self.records.get(id);
        let audience = record.and_then(|record| record.audience.as_ref());
        id.len() + ID_OVERHEAD_BYTES + audience.map_or(0, |audience| audience.bytes())
    }

    pub(crate) fn get(&self, id: &str) -> Option<&IdRecord> {
        self.records.get(id)
    }

    /// Returns the id that was given last, if it is remembered.
    pub(crate) fn newest(&self) -> Option<(&Arc<str>, &IdRecord)> {
        let newest = self.newest.as_ref()?;
        self.records.get_key_value(newest)
    }

    /// Returns the sequence number of the newest event with a doubtful id, or 0.
    pub(crate) fn doubtful_through(&self) -> u64 {
        self.doubtful_through
    }

    /// Returns the ids that are remembered beyond their events, in the order in
    /// which they were released.
    pub(crate) fn released(&self) -> impl Iterator<Item = (&Arc<str>, &IdRecord)> {
        self.released
            .iter()
            .filter_map(|id| self.records.get_key_value(id))
    }

    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }
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

    fn record(sequence: u64) -> IdRecord {
        IdRecord {
            sequence,
            digest: sequence,
            is_doubtful: false,
            audience: None,
        }
    }

    #[test]
    fn an_id_outlives_its_event_until_enough_others_were_released() {
        let mut remembered = Remembered::default();
        let id = |n: u64| Arc::from(format!("order-{n}"));
        for n in 0..=RELEASED_MAX as u64 {
            remembered.insert(id(n), record(n));
        }
        for n in 0..RELEASED_MAX as u64 {
            remembered.release(&id(n), n);
        }
        assert_eq!(remembered.get("order-0"), Some(&record(0)));
        assert_eq!(remembered.len(), RELEASED_MAX + 1);
        remembered.release(&id(RELEASED_MAX as u64), RELEASED_MAX as u64);
        assert_eq!(remembered.get("order-0"), None);
        assert_eq!(remembered.get("order-1"), Some(&record(1)));
        assert_eq!(remembered.len(), RELEASED_MAX);
        remembered.release("never given", 1);
        assert_eq!(remembered.released().count(), RELEASED_MAX);
    }

    #[test]
    fn ids_that_are_remembered_beyond_their_events_have_a_bound_in_bytes() {
        let ids = (0..20).map(|n| ClientId::new(&format!("client-{n}")).unwrap());
        let audience = Audience::clients(ids.collect(), Choice::Named);
        let each = 255 + ID_OVERHEAD_BYTES + audience.bytes();
        let audience = Some(Arc::new(audience));
        let mut remembered = Remembered::default();
        for n in 0..RELEASED_MAX as u64 {
            let audience = audience.clone();
            let id: Arc<str> = format!("{n:0>255}").into();
            remembered.insert(
                id.clone(),
                IdRecord {
                    audience,
                    ..record(n)
                },
            );
            remembered.release(&id, n);
            assert!(remembered.released_bytes <= RELEASED_BYTES_MAX);
        }
        assert_eq!(remembered.len(), RELEASED_BYTES_MAX / each);
        assert_eq!(remembered.released_bytes, remembered.len() * each);
        // Short ones for all clients all have room.
        let mut remembered = Remembered::default();
        for n in 0..RELEASED_MAX as u64 {
            let id: Arc<str> = format!("order.2026-11-30.{n:08}").into();
            remembered.insert(id.clone(), record(n));
            remembered.release(&id, n);
        }
        assert_eq!(remembered.len(), RELEASED_MAX);
    }

    #[test]
    fn the_newest_id_is_that_of_the_newest_event() {
        let mut remembered = Remembered::default();
        assert!(remembered.newest().is_none());
        // A saved state has its released ids first.
        for (id, sequence) in [("b", 2), ("c", 3), ("a", 1)] {
            remembered.insert(id.into(), record(sequence));
        }
        let newest = remembered.newest().map(|(id, at)| (&**id, at.sequence));
        assert_eq!(newest, Some(("c", 3)));
    }

    #[test]
    fn a_large_audience_does_not_outlive_its_event() {
        let audience = |count: usize| {
            let ids = (0..count).map(|n| ClientId::new(&format!("client-{n}")).unwrap());
            Some(Arc::new(Audience::clients(ids.collect(), Choice::Named)))
        };
        let mut remembered = Remembered::default();
        for (id, count) in [("few", 2), ("many", 1_000)] {
            let audience = audience(count);
            remembered.insert(
                id.into(),
                IdRecord {
                    audience,
                    ..record(1)
                },
            );
            remembered.release(id, 1);
        }
        let first = ClientId::new("client-0").unwrap();
        let admits = |id| {
            let record: &IdRecord = remembered.get(id).unwrap();
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
