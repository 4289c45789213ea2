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
use super::remembered::{OwnId, Place, Remembered};
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
    pub(crate) own_id: Option<OwnId>,
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
        Some(&self.rare.as_ref()?.own_id.as_ref()?.text)
    }

    /// What there is to remember of the publisher's own id.
    fn place(&self) -> Option<(Arc<str>, Place)> {
        let rare = self.rare.as_ref()?;
        let own_id = rare.own_id.as_ref()?;
        let place = Place {
            sequence: self.sequence,
            digest: own_id.digest,
            is_doubtful: own_id.is_doubtful,
            audience: rare.audience.clone(),
        };
        Some((own_id.text.clone(), place))
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
                + rare.own_id.as_ref().map_or(0, |id| 2 * id.text.len())
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

/// The sequence numbers of a log that is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SavedBounds {
    pub(crate) began_after: u64,
    pub(crate) evicted_through: u64,
    pub(crate) head: u64,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: VecDeque<Entry>,
    bytes: usize,
    head: u64,
    evicted_through: u64,
    /// Up to here, nothing was ever in this log: it began after that.
    began_after: u64,
    /// Where the events are whose publisher gave them an id.
    remembered: Remembered,
    /// The newest entry that may have been meant for a client that it does not
    /// admit; see [`Audience::may_have_meant`].
    newest_uncertain: u64,
    /// The newest entry of each key for each audience, in a log that conflates.
    keys: HashMap<Subject, u64>,
}

impl Log {
    /// An empty log of whose past, up to `evicted_through`, nothing is known.
    pub(crate) fn new(evicted_through: u64) -> Log {
        Log {
            evicted_through,
            began_after: evicted_through,
            head: evicted_through,
            ..Log::default()
        }
    }

    /// Returns a log as it was saved, with `bounds` that are whole:
    /// `began_after <= evicted_through <= head`. Its entries are to be appended.
    pub(crate) fn restored(
        bounds: SavedBounds,
        released: impl IntoIterator<Item = (Arc<str>, Place)>,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Log {
        let mut log = Log {
            began_after: bounds.began_after,
            ..Log::new(bounds.evicted_through)
        };
        for (id, place) in released {
            log.remembered.insert(id.clone(), place);
            log.remembered.release(&id);
        }
        for entry in entries {
            log.append(entry);
        }
        log.head = log.head.max(bounds.head);
        log
    }

    /// Returns what a saved log needs beside its entries.
    pub(crate) fn saved_bounds(&self) -> SavedBounds {
        SavedBounds {
            began_after: self.began_after,
            evicted_through: self.evicted_through,
            head: self.head,
        }
    }

    /// The own ids of publishers that it remembers.
    pub(crate) fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    /// Returns whether something of what was ever in the log was evicted.
    pub(crate) fn is_trimmed(&self) -> bool {
        self.evicted_through > self.began_after
    }

    /// Returns whether an entry after `position` may have been meant for a
    /// client although it does not admit it. Looks at `looks_max` entries at
    /// most; beyond them it may.
    pub(crate) fn may_have_meant(
        &self,
        position: u64,
        looks_max: usize,
        has_generated_id: bool,
        admits: impl Fn(&Entry) -> bool,
    ) -> bool {
        if self.newest_uncertain <= position {
            return false;
        }
        let mut looks = 0;
        self.after(position).any(|entry| {
            looks += 1;
            let is_uncertain = || {
                let audience = entry.audience();
                audience.is_some_and(|audience| audience.may_have_meant(has_generated_id))
            };
            looks > looks_max || (is_uncertain() && !admits(entry))
        })
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
        (self.remembered.len(), self.keys.len())
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
            if rare
                .audience
                .as_ref()
                .is_some_and(|a| a.may_have_meant(true))
            {
                self.newest_uncertain = entry.sequence;
            }
            if let Some((id, place)) = entry.place() {
                self.remembered.insert(id, place);
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
            self.release_id(&entry);
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
        self.release_id(&entry);
        if let Some(subject) = Subject::of(rare)
            && self.keys.get(&subject) == Some(&entry.sequence)
        {
            self.keys.remove(&subject);
        }
    }

    fn release_id(&mut self, entry: &Entry) {
        if let Some(id) = entry.own_id() {
            self.remembered.release(id);
        }
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

    /// Returns the oldest and the newest entry that `admits` lets a reader see.
    /// Looks at `looks_max` entries from each end.
    pub(crate) fn ends_for(
        &self,
        looks_max: usize,
        admits: impl Fn(&Entry) -> bool,
    ) -> (Option<&Entry>, Option<&Entry>) {
        let oldest = self.entries.iter().take(looks_max).find(|e| admits(e));
        let newest = self
            .entries
            .iter()
            .rev()
            .take(looks_max)
            .find(|e| admits(e));
        (oldest, newest)
    }

    /// Returns the newest entry at `sequence` or before it.
    pub(crate) fn at_or_before(&self, sequence: u64) -> Option<&Entry> {
        let end = self.entries.partition_point(|e| e.sequence <= sequence);
        self.entries.get(end.checked_sub(1)?)
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
    use crate::hub::audience::Choice;
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
                own_id: own_id.map(|text| OwnId {
                    text: text.into(),
                    digest: 0,
                    is_doubtful: false,
                }),
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

    fn place_of(log: &Log, id: &str) -> Option<u64> {
        log.remembered().get(id).map(|place| place.sequence)
    }

    #[test]
    fn own_ids_are_found_when_their_events_are_gone() {
        let mut log = Log::new(0);
        log.append(with(1, Some("w"), None));
        log.append(with(2, Some("x"), Some("k")));
        log.append(with(3, Some("y"), Some("k")));
        assert_eq!(sequences(&log, 0), [1, 3]);
        let one = Bounds {
            history: History::events(1),
            ..KEEP_ALL
        };
        log.trim(&one, u64::MAX, 3);
        assert_eq!(sequences(&log, 0), [3]);
        for (id, place) in [("w", Some(1)), ("x", Some(2)), ("y", Some(3)), ("z", None)] {
            assert_eq!(place_of(&log, id), place, "{id}");
        }
        let released = log.remembered().released();
        let released: Vec<_> = released
            .map(|(id, place)| (id.clone(), place.clone()))
            .collect();
        let entries: Vec<_> = log.after(0).cloned().collect();
        let restored = Log::restored(log.saved_bounds(), released, entries);
        for (id, place) in [("w", Some(1)), ("x", Some(2)), ("y", Some(3)), ("z", None)] {
            assert_eq!(place_of(&restored, id), place, "{id}");
        }
        assert_eq!(
            restored.remembered().newest().map(|(id, _)| &**id),
            Some("y")
        );
    }

    #[test]
    fn a_log_is_trimmed_once_something_of_it_was_evicted() {
        let mut log = Log::new(7);
        assert!(!log.is_trimmed());
        log.append(with(8, None, Some("k")));
        log.append(with(9, None, Some("k")));
        assert!(!log.is_trimmed(), "a replaced event is no loss");
        log.trim(&KEEP_ALL, u64::MAX, 600_010);
        assert!(log.is_trimmed());
    }

    #[test]
    fn an_event_that_may_have_been_for_an_absent_client_is_found() {
        let to = |sequence: u64, choice| {
            let ids = vec![ClientId::lookup("ann")];
            Entry {
                rare: Some(Box::new(Rare {
                    audience: Some(Arc::new(Audience::clients(ids, choice))),
                    ..Rare::default()
                })),
                ..entry(sequence)
            }
        };
        let mut log = Log::new(0);
        log.append(to(1, Choice::Filtered));
        log.append(to(2, Choice::Generated));
        log.append(to(3, Choice::Named));
        log.append(entry(4));
        let may = |position, looks_max, is_generated| {
            log.may_have_meant(position, looks_max, is_generated, |e| {
                e.audience().is_none()
            })
        };
        for (position, is_generated, expected) in [
            (0, false, true),
            (0, true, true),
            (1, false, false),
            (1, true, true),
            (2, true, false),
        ] {
            assert_eq!(
                may(position, 10, is_generated),
                expected,
                "{position} {is_generated}"
            );
        }
        assert!(may(1, 0, false), "what was not looked at may have been");
        assert!(!log.may_have_meant(0, 10, true, |_| true));
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
        let crowd = Arc::new(Audience::clients(ids.collect(), Choice::Named));
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
