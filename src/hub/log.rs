//! A channel's log: an ordered queue of finished frames. Pure; it never
//! waits, never formats and never learns who reads it.
//!
//! ```text
//!   evicted ──►│ tail ........................... head │◄── append
//!              │                                       │
//!  cursor < tail: a gap      cursor: resumes here      cursor == head: caught up
//! ```
//!
//! Sequence numbers are the engine's, so they rise along a log but have
//! holes: the numbers between belong to other channels. The invariant to
//! remember: *a reader that has seen everything up to `s` misses nothing if
//! and only if `s >= evicted_through`*.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::audience::Audience;
use crate::frame::Frame;

/// What an entry costs beyond its frame's bytes, in the log's accounting.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// How much of a channel is kept for those who come back.
///
/// All three bounds hold at once: an entry goes as soon as one of them says
/// so, the oldest first, unless a connected client still waits for it (see
/// [`ChannelOptions::backlog_bytes_max`](crate::ChannelOptions::backlog_bytes_max)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct History {
    /// How many events at the most.
    pub events_max: usize,
    /// How many bytes at the most, frames and bookkeeping together.
    pub bytes_max: usize,
    /// For how long.
    pub age_max: Duration,
}

impl History {
    /// No history: an event is dropped once every connected client has it.
    /// The library's default.
    pub const NONE: History = History {
        events_max: 0,
        bytes_max: 0,
        age_max: Duration::ZERO,
    };

    /// The last `events_max` events, of at most 1 MiB and ten minutes.
    #[must_use]
    pub const fn events(events_max: usize) -> History {
        History {
            events_max,
            bytes_max: 1 << 20,
            age_max: Duration::from_secs(600),
        }
    }

    /// The same with another bound on bytes.
    #[must_use]
    pub const fn bytes_max(mut self, bytes: usize) -> History {
        self.bytes_max = bytes;
        self
    }

    /// The same with another bound on age.
    #[must_use]
    pub const fn age_max(mut self, age: Duration) -> History {
        self.age_max = age;
        self
    }

    /// Whether nothing is kept.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.events_max == 0
    }
}

/// One event in its place.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) sequence: u64,
    pub(crate) at_ms: u64,
    pub(crate) frame: Frame,
    /// What makes the entry more than a plain broadcast; rare, so boxed.
    pub(crate) rare: Option<Box<Rare>>,
}

/// What only some entries have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rare {
    /// For whom the entry is; `None` is everybody. All entries of a batch share
    /// it, and these stand side by side.
    pub(crate) audience: Option<Arc<Audience>>,
    /// The frame for streams that are compressed.
    pub(crate) packed: Option<Frame>,
    /// The id that the publisher gave.
    pub(crate) own_id: Option<Arc<str>>,
    /// The key under which a newer event replaces this one.
    pub(crate) key: Option<Arc<str>>,
}

/// What a newer entry has to be about to replace an older one: the same key,
/// and for the same clients, or somebody would lose what nobody else replaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Subject {
    key: Arc<str>,
    audience: Option<Arc<Audience>>,
}

impl Subject {
    fn of(rare: &Rare) -> Option<Subject> {
        Some(Subject {
            key: rare.key.clone()?,
            audience: rare.audience.clone(),
        })
    }
}

impl Entry {
    pub(crate) fn audience(&self) -> Option<&Arc<Audience>> {
        self.rare.as_ref()?.audience.as_ref()
    }

    pub(crate) fn has_key(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.key.is_some())
    }

    pub(crate) fn own_id(&self) -> Option<&str> {
        self.rare.as_ref()?.own_id.as_deref()
    }

    /// The frame for streams that are compressed, or for those that are not.
    pub(crate) fn frame(&self, is_packed: bool) -> &Frame {
        let packed = self.rare.as_ref().filter(|_| is_packed);
        packed
            .and_then(|rare| rare.packed.as_ref())
            .unwrap_or(&self.frame)
    }

    /// What the entry takes, but for its audience, which is not its alone.
    fn bytes(&self) -> usize {
        let rare = self.rare.as_ref().map_or(0, |rare| {
            size_of::<Rare>()
                + rare.packed.as_ref().map_or(0, Frame::len)
                + rare.own_id.as_ref().map_or(0, |id| 2 * id.len())
                + rare.key.as_ref().map_or(0, |key| 2 * key.len())
        });
        self.frame.len() + rare + ENTRY_OVERHEAD_BYTES
    }
}

/// What a log may hold: its history, and what connected clients wait for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) history: History,
    /// Entries that a connected client has yet to be sent are kept beyond
    /// the history, up to this many bytes in all, or one entry.
    pub(crate) backlog_bytes_max: usize,
}

/// The entries of one id of their publisher's. There should be one; where there
/// are more, whoever comes back with the id may have seen no more than the
/// first of them.
#[derive(Clone, Copy, Debug)]
struct Holders {
    first: u64,
    /// How many are held; with the last of them the id is forgotten.
    held: usize,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: VecDeque<Entry>,
    bytes: usize,
    head: u64,
    evicted_through: u64,
    /// Where to find the entries whose publisher gave them an id.
    own_ids: HashMap<Arc<str>, Holders>,
    /// The last of these, and where it was first, which is kept when its
    /// entries are not: whoever has seen it may have missed nothing.
    last_own_id: Option<(Arc<str>, u64)>,
    /// The last of these that was evicted, and where it was first: whoever has
    /// seen it may have missed nothing either.
    evicted_own_id: Option<(Arc<str>, u64)>,
    /// The newest entry of each key for each audience, in a log that conflates.
    keys: HashMap<Subject, u64>,
}

impl Log {
    /// An empty log of whose past, up to `evicted_through`, nothing is known.
    pub(crate) fn new(evicted_through: u64) -> Log {
        Log {
            evicted_through,
            head: evicted_through,
            ..Log::default()
        }
    }

    /// A log as it was saved; its entries are to be appended. `evicted_through`
    /// is at most `head`.
    pub(crate) fn restored(
        evicted_through: u64,
        head: u64,
        last_own_id: Option<(Arc<str>, u64)>,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Log {
        let mut log = Log::new(evicted_through);
        log.last_own_id = last_own_id;
        for entry in entries {
            log.append(entry);
        }
        log.head = log.head.max(head);
        log
    }

    /// The last id that a publisher gave, and where it was first.
    pub(crate) fn last_own_id(&self) -> Option<&(Arc<str>, u64)> {
        self.last_own_id.as_ref()
    }

    /// The sequence number of the newest entry that the log ever had.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// The newest sequence number that a reader may have missed for good.
    pub(crate) fn evicted_through(&self) -> u64 {
        self.evicted_through
    }

    /// Bytes held, by the log's own accounting.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many ids and how many keys there are to find entries by.
    #[cfg(feature = "internals")]
    pub(crate) fn indexed(&self) -> (usize, usize) {
        (self.own_ids.len(), self.keys.len())
    }

    pub(crate) fn oldest(&self) -> Option<&Entry> {
        self.entries.front()
    }

    pub(crate) fn newest(&self) -> Option<&Entry> {
        self.entries.back()
    }

    /// Puts `entry` at the head. Its sequence number must be higher than any
    /// before. An older entry of the same key and for the same clients goes
    /// away.
    pub(crate) fn append(&mut self, entry: Entry) {
        debug_assert!(entry.sequence > self.head, "sequence numbers rise");
        self.head = entry.sequence;
        if let Some(rare) = &entry.rare {
            if let Some(id) = &rare.own_id {
                let first = self.sequence_of(id).unwrap_or(entry.sequence);
                let unheld = Holders { first, held: 0 };
                self.own_ids.entry(id.clone()).or_insert(unheld).held += 1;
                self.last_own_id = Some((id.clone(), first));
            }
            if let Some(subject) = Subject::of(rare) {
                // Taken out and put in, so that the map has the audience that
                // the newest entry has, and not an equal one beside it.
                if let Some(older) = self.keys.remove(&subject) {
                    self.replace(older);
                }
                self.keys.insert(subject, entry.sequence);
            }
        }
        self.bytes += entry.bytes() + self.audience_bytes(self.entries.len(), &entry);
        self.entries.push_back(entry);
    }

    /// What is added by the audience of an entry that comes to stand at
    /// `index`, or stood there: nothing, if one beside it has the same.
    fn audience_bytes(&self, index: usize, entry: &Entry) -> usize {
        let Some(audience) = entry.audience() else {
            return 0;
        };
        let has_same = |other: &Entry| other.audience().is_some_and(|a| Arc::ptr_eq(a, audience));
        let before = index.checked_sub(1).and_then(|at| self.entries.get(at));
        let mut beside = before.into_iter().chain(self.entries.get(index));
        match beside.any(has_same) {
            true => 0,
            false => audience.bytes(),
        }
    }

    /// Takes out an entry that a newer one of its key replaces. That is no
    /// loss to anybody, so `evicted_through` stays.
    fn replace(&mut self, sequence: u64) {
        if let Ok(index) = self.index_of(sequence) {
            let entry = self.entries.remove(index).expect("the index was found");
            self.bytes -= entry.bytes() + self.audience_bytes(index, &entry);
            self.forget_id(&entry);
        }
    }

    /// Drops, oldest first, what the bounds do not allow to be kept.
    /// `needed_after`: everything up to it has been sent to every connected
    /// client.
    pub(crate) fn trim(&mut self, bounds: &Bounds, needed_after: u64, now_ms: u64) {
        let history = &bounds.history;
        let age_max_ms = u64::try_from(history.age_max.as_millis()).unwrap_or(u64::MAX);
        while let Some(oldest) = self.entries.front() {
            let beyond_history = self.entries.len() > history.events_max
                || self.bytes > history.bytes_max
                || now_ms.saturating_sub(oldest.at_ms) > age_max_ms;
            // The newest event is there for those who keep up, whatever its size.
            let has_room = self.bytes <= bounds.backlog_bytes_max || self.entries.len() == 1;
            let is_awaited = oldest.sequence > needed_after && has_room;
            if !beyond_history || is_awaited {
                break;
            }
            self.evict_oldest();
        }
        if self.entries.is_empty() && self.entries.capacity() > 64 {
            self.entries.shrink_to(16);
        }
    }

    fn evict_oldest(&mut self) {
        let Some(entry) = self.entries.pop_front() else {
            return;
        };
        self.bytes -= entry.bytes() + self.audience_bytes(0, &entry);
        self.evicted_through = entry.sequence;
        let Some(rare) = entry.rare.as_deref() else {
            return;
        };
        if let Some(gone) = self.forget_id(&entry) {
            self.evicted_own_id = Some(gone);
        }
        if let Some(subject) = Subject::of(rare)
            && self.keys.get(&subject) == Some(&entry.sequence)
        {
            self.keys.remove(&subject);
        }
    }

    /// Answers the id, and where it was first, if no entry has it any more.
    fn forget_id(&mut self, entry: &Entry) -> Option<(Arc<str>, u64)> {
        let id = entry.own_id()?;
        let holders = self.own_ids.get_mut(id)?;
        holders.held -= 1;
        let is_gone = holders.held == 0;
        let (id, holders) = is_gone.then(|| self.own_ids.remove_entry(id)).flatten()?;
        Some((id, holders.first))
    }

    /// The entries after `sequence`, oldest first.
    pub(crate) fn after(&self, sequence: u64) -> impl Iterator<Item = &Entry> {
        let start = match self.entries.back() {
            // The usual reader has seen all but the newest few.
            Some(newest) if newest.sequence <= sequence => self.entries.len(),
            _ => self.entries.partition_point(|e| e.sequence <= sequence),
        };
        self.entries.range(start..)
    }

    /// How many entries there are after `sequence`.
    pub(crate) fn count_after(&self, sequence: u64) -> usize {
        self.entries.len() - self.entries.partition_point(|e| e.sequence <= sequence)
    }

    /// Where the entry is, or was, to which its publisher gave this id; the
    /// first one, if there are several.
    pub(crate) fn sequence_of(&self, own_id: &str) -> Option<u64> {
        let held = self.own_ids.get(own_id).map(|holders| holders.first);
        let kept = [&self.last_own_id, &self.evicted_own_id];
        let mut kept = kept.into_iter().flatten();
        held.or_else(|| {
            kept.find(|(id, _)| **id == *own_id)
                .map(|(_, first)| *first)
        })
    }

    /// The position from which a reader gets the last `count` of the entries
    /// that `admits` lets it see.
    pub(crate) fn position_before_last(
        &self,
        count: usize,
        admits: impl Fn(&Entry) -> bool,
    ) -> u64 {
        let mut position = self.head;
        for entry in self.entries.iter().rev().filter(|e| admits(e)).take(count) {
            position = entry.sequence - 1;
        }
        position
    }

    fn index_of(&self, sequence: u64) -> Result<usize, usize> {
        self.entries
            .binary_search_by_key(&sequence, |entry| entry.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::client::ClientId;

    const KEEP_ALL: Bounds = Bounds {
        history: History::events(1_000),
        backlog_bytes_max: 1 << 20,
    };

    fn entry(sequence: u64) -> Entry {
        Entry {
            sequence,
            at_ms: sequence,
            frame: Frame::raw(b"data: x\n\n"),
            rare: None,
        }
    }

    fn with(sequence: u64, own_id: Option<&str>, key: Option<&str>) -> Entry {
        Entry {
            rare: Some(Box::new(Rare {
                own_id: own_id.map(Arc::from),
                key: key.map(Arc::from),
                ..Rare::default()
            })),
            ..entry(sequence)
        }
    }

    fn sequences(log: &Log, after: u64) -> Vec<u64> {
        log.after(after).map(|entry| entry.sequence).collect()
    }

    #[test]
    fn a_reader_gets_what_comes_after_its_position() {
        let mut log = Log::new(0);
        for sequence in [2, 5, 9] {
            log.append(entry(sequence));
        }
        assert_eq!(sequences(&log, 0), [2, 5, 9]);
        assert_eq!(sequences(&log, 2), [5, 9]);
        assert_eq!(sequences(&log, 4), [5, 9]);
        assert_eq!(sequences(&log, 9), [0; 0]);
        assert_eq!(log.count_after(2), 2);
    }

    #[test]
    fn eviction_is_remembered_exactly() {
        let mut log = Log::new(0);
        for sequence in 1..=5 {
            log.append(entry(sequence));
        }
        let two = Bounds {
            history: History::events(2),
            ..KEEP_ALL
        };
        log.trim(&two, u64::MAX, 5);
        assert_eq!(sequences(&log, 0), [4, 5]);
        assert_eq!(log.evicted_through(), 3);
        log.trim(&two, u64::MAX, 5 + 600_001);
        assert!(log.is_empty());
        assert_eq!((log.evicted_through(), log.bytes()), (5, 0));
    }

    #[test]
    fn what_a_connected_client_awaits_is_kept_up_to_the_backlog() {
        let mut log = Log::new(0);
        for sequence in 1..=10 {
            log.append(entry(sequence));
        }
        let none = Bounds {
            history: History::NONE,
            backlog_bytes_max: log.bytes() / 2,
        };
        log.trim(&none, 2, 10);
        assert_eq!(sequences(&log, 0), [6, 7, 8, 9, 10]);
        log.trim(&none, 8, 10);
        assert_eq!(sequences(&log, 0), [9, 10]);
    }

    #[test]
    fn an_entry_larger_than_the_backlog_is_kept_for_those_who_keep_up() {
        let tiny = Bounds {
            history: History::NONE,
            backlog_bytes_max: 1,
        };
        let mut log = Log::new(0);
        for sequence in 1..=3 {
            log.append(entry(sequence));
            log.trim(&tiny, 0, 3);
            assert_eq!(sequences(&log, 0), [sequence]);
        }
        log.trim(&tiny, 3, 3);
        assert!(log.is_empty());
    }

    #[test]
    fn a_newer_event_of_a_key_replaces_the_older_one_and_that_is_no_gap() {
        let mut log = Log::new(0);
        log.append(with(1, None, Some("a")));
        log.append(with(2, None, Some("b")));
        log.append(with(3, None, Some("a")));
        assert_eq!(sequences(&log, 0), [2, 3]);
        assert_eq!(log.evicted_through(), 0);
    }

    #[test]
    fn own_ids_are_found_until_they_are_evicted_and_the_last_one_even_then() {
        let mut log = Log::new(0);
        log.append(with(1, Some("w"), None));
        log.append(with(2, Some("x"), None));
        log.append(with(3, Some("y"), None));
        assert_eq!(log.sequence_of("w"), Some(1));
        let one = Bounds {
            history: History::events(1),
            ..KEEP_ALL
        };
        log.trim(&one, u64::MAX, 3);
        assert_eq!(log.sequence_of("w"), None);
        // Whoever has seen this one has missed nothing of what is left.
        assert_eq!((log.sequence_of("x"), log.evicted_through()), (Some(2), 2));
        assert_eq!(log.sequence_of("y"), Some(3));
        log.append(entry(4));
        log.trim(&one, u64::MAX, 4);
        assert_eq!((log.sequence_of("y"), log.evicted_through()), (Some(3), 3));
    }

    #[test]
    fn the_audience_of_a_batch_is_counted_once_as_long_as_one_of_it_is_held() {
        let to = |audience: &Arc<Audience>, sequence: u64, key: Option<&str>| Entry {
            rare: Some(Box::new(Rare {
                audience: Some(audience.clone()),
                key: key.map(Arc::from),
                ..Rare::default()
            })),
            ..entry(sequence)
        };
        let ids = (0..1_000).map(|n| ClientId::lookup(&format!("client-{n}")));
        let crowd = Arc::new(Audience::clients(ids.collect()));
        let mut log = Log::new(0);
        for sequence in 1..=10 {
            log.append(to(&crowd, sequence, (sequence % 2 == 0).then_some("k")));
        }
        // Of those with a key the last is left.
        assert_eq!(sequences(&log, 0), [1, 3, 5, 7, 9, 10]);
        assert!((crowd.bytes()..2 * crowd.bytes()).contains(&log.bytes()));
        // An equal one of another batch is another one, and takes its place.
        let again = Arc::new((*crowd).clone());
        log.append(to(&again, 11, Some("k")));
        assert!((2 * crowd.bytes()..3 * crowd.bytes()).contains(&log.bytes()));
        let one = Bounds {
            history: History::events(1),
            ..KEEP_ALL
        };
        log.trim(&one, u64::MAX, 11);
        assert_eq!(Arc::strong_count(&crowd), 1);
        assert!((crowd.bytes()..2 * crowd.bytes()).contains(&log.bytes()));
        log.trim(&one, u64::MAX, 11 + 600_001);
        assert_eq!((log.bytes(), Arc::strong_count(&again)), (0, 1));
    }

    #[test]
    fn an_id_that_occurs_again_leads_to_where_it_was_first() {
        let two = Bounds {
            history: History::events(2),
            ..KEEP_ALL
        };
        let mut log = Log::new(0);
        for (sequence, id) in [(1, "x"), (2, "y"), (3, "x")] {
            log.append(with(sequence, Some(id), None));
            assert_eq!(log.sequence_of("x"), Some(1));
        }
        log.trim(&two, u64::MAX, 3);
        assert_eq!(sequences(&log, 0), [2, 3]);
        assert_eq!(
            log.sequence_of("x"),
            Some(1),
            "as long as one of them is held"
        );

        // Also when the newer one takes the older one's place.
        let mut log = Log::new(0);
        log.append(with(1, Some("x"), Some("k")));
        log.append(with(2, Some("x"), Some("k")));
        assert_eq!(sequences(&log, 0), [2]);
        assert_eq!(log.sequence_of("x"), Some(1));

        // Also when one in between is replaced.
        let mut log = Log::new(0);
        log.append(with(1, Some("x"), None));
        log.append(with(2, Some("x"), Some("k")));
        log.append(with(3, Some("y"), Some("k")));
        log.append(with(4, Some("x"), None));
        assert_eq!(log.sequence_of("x"), Some(1));

        // Also when the last one is all that is remembered.
        log.trim(&two, u64::MAX, 600_005);
        assert!(log.is_empty());
        log.append(with(5, Some("x"), None));
        assert_eq!(log.sequence_of("x"), Some(1));
        let entries = log.after(0).cloned().collect::<Vec<_>>();
        let restored = Log::restored(4, 5, log.last_own_id().cloned(), entries);
        assert_eq!(restored.sequence_of("x"), Some(1));
    }

    #[test]
    fn the_last_n_are_counted_among_those_that_are_for_the_reader() {
        let mut log = Log::new(0);
        for sequence in 1..=6 {
            log.append(entry(sequence));
        }
        assert_eq!(log.position_before_last(2, |_| true), 4);
        assert_eq!(log.position_before_last(2, |e| e.sequence % 2 == 0), 3);
        assert_eq!(log.position_before_last(0, |_| true), 6);
        assert_eq!(log.position_before_last(99, |_| true), 0);
    }
}
