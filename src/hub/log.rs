//! A channel's log: an ordered queue of finished frames. Pure: it never waits, formats
//! nothing and does not know its readers.
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
//!
//! A log has two parts, which are read as one, in the order of their sequence
//! numbers. The *history* is a queue. The *keyed* part ([`Keyed`]) holds the
//! newest event of each key; the history's bounds do not apply to it, because an
//! old entry there is a state that still holds. Each part evicts its oldest
//! entries first and has bounds of its own ([`Evicted`]).

use std::collections::VecDeque;
use std::sync::Arc;

use super::audience::Audience;
use super::clock::as_ms;
use super::dropped::Dropped;
use super::entry::{Entry, audience_bytes_beside};
use super::held_ids::HeldIds;
use super::keyed::{InOrder, Keyed, Subject};
use super::looks::{LOOKS_MAX, Looks, looked_at};
use super::retention::{Bounds, PartBounds};

/// The capacity of a history that stays when the history has become empty.
const HISTORY_CAPACITY_KEPT: usize = 64;

/// The newest sequence number that each part of a log has evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evicted {
    pub(crate) history: u64,
    pub(crate) keyed: u64,
}

impl Evicted {
    /// Whether a reader has lost an entry. It has seen the history up to
    /// `history` and the keyed state up to `keyed`, or has no claim to what was
    /// before.
    pub(crate) fn is_loss(self, history: u64, keyed: u64) -> bool {
        self.history > history || self.keyed > keyed
    }
}

/// The sequence numbers of a log that is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SavedBounds {
    pub(crate) began_after: u64,
    pub(crate) evicted: Evicted,
    pub(crate) head: u64,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Log {
    history: VecDeque<Entry>,
    history_bytes: usize,
    keyed: Keyed,
    head: u64,
    /// The newest entry that the history has evicted.
    evicted_through: u64,
    /// Up to here, nothing was ever in this log: it began after that.
    began_after: u64,
    /// The events whose publishers have set an id.
    own_ids: HeldIds,
    /// The newest entry that may have been meant for a client that it does not
    /// admit; see [`Audience::may_have_meant`].
    newest_uncertain: u64,
}

impl Log {
    /// Returns an empty log whose past, up to `evicted_through`, is unknown.
    pub(crate) fn new(evicted_through: u64) -> Log {
        Log {
            evicted_through,
            began_after: evicted_through,
            head: evicted_through,
            keyed: Keyed::new(evicted_through),
            ..Log::default()
        }
    }

    /// Returns a log as it was saved, with `bounds` that are whole:
    /// `began_after <= evicted <= head` for both parts. Its entries are to be appended, and
    /// then its head noted.
    pub(crate) fn restored(bounds: SavedBounds) -> Log {
        Log {
            began_after: bounds.began_after,
            evicted_through: bounds.evicted.history,
            keyed: Keyed::new(bounds.evicted.keyed),
            ..Log::default()
        }
    }

    /// Notes that the log had entries up to `head`.
    pub(crate) fn note_head(&mut self, head: u64) {
        self.head = self.head.max(head);
    }

    /// Returns the number behind which it began.
    pub(crate) fn began_after(&self) -> u64 {
        self.began_after
    }

    /// Notes that it began behind a number up to which it is empty, and so may have lost what
    /// was there. Returns whether it may have.
    pub(crate) fn note_began(&mut self, after: u64) -> bool {
        let may_have_lost = after < self.began_after;
        self.began_after = self.began_after.min(after);
        may_have_lost
    }

    /// Returns what a saved log needs beside its entries.
    pub(crate) fn saved_bounds(&self) -> SavedBounds {
        SavedBounds {
            began_after: self.began_after,
            evicted: self.evicted(),
            head: self.head,
        }
    }

    /// The own ids of the events that it holds.
    pub(crate) fn own_ids(&self) -> &HeldIds {
        &self.own_ids
    }

    /// Notes an own id of an event that it may no longer hold. One from before its beginning
    /// is of another channel that had the name.
    pub(crate) fn note_own_id(&mut self, id: &Arc<str>, sequence: u64, is_doubtful: bool) {
        if sequence > self.began_after {
            self.own_ids.note(id, sequence, is_doubtful);
        }
    }

    /// Returns the event of an own id.
    pub(crate) fn event_of(&self, id: &str) -> Option<&Entry> {
        self.at_or_before(self.own_ids.get(id)?)
    }

    /// Returns whether something of what was ever in the log was evicted.
    pub(crate) fn is_trimmed(&self) -> bool {
        self.evicted_through() > self.began_after
    }

    /// Returns whether an entry after `position` may have been meant for a
    /// client although it does not admit it. Where no looks are left, it may.
    pub(crate) fn may_have_meant(
        &self,
        position: u64,
        looks: &mut Looks,
        has_generated_id: bool,
        admits: impl Fn(&Entry) -> bool,
    ) -> bool {
        if self.newest_uncertain <= position {
            return false;
        }
        self.after(position).any(|entry| {
            let is_uncertain = || {
                let audience = entry.audience();
                audience.is_some_and(|audience| audience.may_have_meant(has_generated_id))
            };
            !looks.take() || (is_uncertain() && !admits(entry))
        })
    }

    /// Returns the sequence number of the newest entry that the log ever had.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Returns the newest sequence number that a reader may have missed for good.
    pub(crate) fn evicted_through(&self) -> u64 {
        self.evicted_through.max(self.keyed.evicted_through())
    }

    /// Returns the same for each of the two parts.
    pub(crate) fn evicted(&self) -> Evicted {
        Evicted {
            history: self.evicted_through,
            keyed: self.keyed.evicted_through(),
        }
    }

    /// The newest event of each key.
    pub(crate) fn keyed(&self) -> &Keyed {
        &self.keyed
    }

    pub(crate) fn keyed_mut(&mut self) -> &mut Keyed {
        &mut self.keyed
    }

    /// Returns the bytes that it holds, by its own accounting.
    pub(crate) fn bytes(&self) -> usize {
        self.history_bytes + self.keyed.bytes() + self.keyed.missing_bytes()
    }

    pub(crate) fn len(&self) -> usize {
        self.history.len() + self.keyed.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.history.is_empty() && self.keyed.is_empty()
    }

    /// Returns the numbers of ids and of keys by which entries are found.
    #[cfg(feature = "internals")]
    pub(crate) fn indexed(&self) -> (usize, usize) {
        (self.own_ids.len(), self.keyed.indexed())
    }

    pub(crate) fn oldest(&self) -> Option<&Entry> {
        let ends = [self.history.front(), self.keyed.oldest()];
        ends.into_iter().flatten().min_by_key(|e| e.sequence)
    }

    pub(crate) fn newest(&self) -> Option<&Entry> {
        let ends = [self.history.back(), self.keyed.newest()];
        ends.into_iter().flatten().max_by_key(|e| e.sequence)
    }

    /// Puts `entry` at the head. Its sequence number must be higher than any
    /// before. An older entry of the same key and for the same clients goes
    /// away, which is a loss to no reader: `evicted_through` stays.
    pub(crate) fn append(&mut self, entry: Entry, dropped: &mut Dropped) {
        debug_assert!(entry.sequence > self.head, "sequence numbers rise");
        self.head = entry.sequence;
        if entry.audience().is_some_and(|a| a.may_have_meant(true)) {
            self.newest_uncertain = entry.sequence;
        }
        if let Some(attributes) = &entry.attributes
            && let Some(own_id) = &attributes.own_id
        {
            self.own_ids.insert(own_id, entry.sequence);
        }
        if let Some(subject) = Subject::of(&entry) {
            if let Some(older) = self.keyed.insert(subject, entry) {
                self.release_id(&older);
                dropped.push(older);
            }
            return;
        }
        self.history_bytes += entry.bytes() + self.audience_bytes(self.history.len(), &entry);
        self.history.push_back(entry);
    }

    /// Removes the entries of a key for these clients, however they were chosen.
    /// The caller appends an event by which readers learn of it.
    pub(crate) fn remove_key(
        &mut self,
        key: Arc<str>,
        audience: Option<Arc<Audience>>,
        dropped: &mut Dropped,
    ) {
        for subject in Subject::of_each_choice(key, audience) {
            if let Some(entry) = self.keyed.remove(&subject) {
                self.release_id(&entry);
                dropped.push(entry);
            }
        }
    }

    /// The bytes that the audience of an entry adds that comes to stand at
    /// `index` in the history, or stood there: 0 if a neighbour has the same.
    fn audience_bytes(&self, index: usize, entry: &Entry) -> usize {
        let Some(audience) = entry.audience() else {
            return 0;
        };
        let before = index.checked_sub(1).and_then(|at| self.history.get(at));
        let beside = [before, self.history.get(index)];
        audience_bytes_beside(audience, beside)
    }

    /// Evicts, oldest first in each part, the entries that the bounds do not allow
    /// to be kept, as far as `dropped` has room for them. Returns whether there are
    /// more. `needed_after`: everything up to it has been sent to every connected
    /// client.
    pub(crate) fn trim(
        &mut self,
        bounds: &Bounds,
        needed_after: u64,
        now_ms: u64,
        dropped: &mut Dropped,
    ) -> bool {
        let history = PartBounds {
            entries_max: bounds.history.events_max,
            bytes_max: bounds.history.bytes_max,
            age_max_ms: as_ms(bounds.history.age_max),
            backlog_bytes_max: bounds.backlog_bytes_max,
            needed_after,
            now_ms,
        };
        while let Some(oldest) = self.history.front()
            && history.evict(oldest, self.history.len(), self.history_bytes)
        {
            if dropped.room() == 0 {
                return true;
            }
            self.evict_history(dropped);
        }
        if self.history.is_empty() && self.history.capacity() > HISTORY_CAPACITY_KEPT {
            dropped.push_history(std::mem::take(&mut self.history));
        }
        if self.keyed.is_empty() {
            return false;
        }
        let keyed = PartBounds {
            entries_max: bounds.keyed.keys_max,
            bytes_max: bounds.keyed.bytes_max,
            age_max_ms: as_ms(bounds.keyed.age_max),
            ..history
        };
        while let Some(oldest) = self.keyed.oldest()
            && keyed.evict(oldest, self.keyed.len(), self.keyed.bytes())
        {
            if dropped.room() == 0 {
                return true;
            }
            self.evict_keyed(dropped);
        }
        false
    }

    /// Evicts entries up to `through`, oldest first, the history before the keyed
    /// state, until they had `bytes`, as far as `dropped` has room for them.
    pub(crate) fn evict(&mut self, through: u64, bytes: usize, dropped: &mut Dropped) {
        let goal = self.bytes().saturating_sub(bytes);
        let may_go = |entry: &Entry| entry.sequence <= through;
        while self.bytes() > goal && dropped.room() > 0 {
            if self.history.front().is_some_and(may_go) {
                self.evict_history(dropped);
            } else if self.keyed.oldest().is_some_and(may_go) {
                self.evict_keyed(dropped);
            } else {
                return;
            }
        }
    }

    fn evict_history(&mut self, dropped: &mut Dropped) {
        if let Some(entry) = self.history.pop_front() {
            self.history_bytes -= entry.bytes() + self.audience_bytes(0, &entry);
            self.evicted_through = self.evicted_through.max(entry.sequence);
            self.release_id(&entry);
            dropped.push(entry);
        }
    }

    fn evict_keyed(&mut self, dropped: &mut Dropped) {
        if let Some(entry) = self.keyed.evict_oldest() {
            self.release_id(&entry);
            dropped.push(entry);
        }
    }

    fn release_id(&mut self, entry: &Entry) {
        if let Some(id) = entry.own_id() {
            self.own_ids.remove(id, entry.sequence);
        }
    }

    /// The entries after `sequence`, oldest first.
    pub(crate) fn after(&self, sequence: u64) -> impl Iterator<Item = &Entry> {
        let history = self.history.range(self.index_after(sequence)..);
        InOrder::oldest_first(history, self.keyed.after(sequence))
    }

    /// Returns the number of entries after `sequence`. Of the keyed ones at most
    /// [`LOOKS_MAX`] are counted: a tree has to be walked.
    pub(crate) fn count_after(&self, sequence: u64) -> usize {
        let history = self.history.len() - self.index_after(sequence);
        let keyed = self.keyed.after(sequence).take(LOOKS_MAX).count();
        looked_at(keyed);
        history + keyed
    }

    /// The index of the first entry of the history after `sequence`.
    ///
    /// A stream of many channels searches each of their logs with every read, so
    /// this begins where the entry would be if the numbers rose evenly. A guess
    /// that is right looks at two entries, which the reader needs next.
    fn index_after(&self, sequence: u64) -> usize {
        let is_seen = |entry: &Entry| entry.sequence <= sequence;
        let (Some(oldest), Some(newest)) = (self.history.front(), self.history.back()) else {
            return 0;
        };
        if !is_seen(oldest) {
            return 0;
        }
        // The usual reader has seen all but the newest few.
        if is_seen(newest) {
            return self.history.len();
        }
        let (mut low, mut high) = (0, self.history.len() - 1);
        let part = (sequence - oldest.sequence).saturating_mul(high as u64);
        let guess = part / (newest.sequence - oldest.sequence);
        let guess = usize::try_from(guess).map_or(high, |guess| guess.min(high));
        // `low` is seen and `high` is not; the distance to the guess doubles until
        // the border is between them.
        let mut distance = 1;
        if is_seen(&self.history[guess]) {
            low = guess;
            while low + distance < high && is_seen(&self.history[low + distance]) {
                low += distance;
                distance *= 2;
            }
            high = high.min(low + distance);
        } else {
            high = guess;
            while high - low > distance && !is_seen(&self.history[high - distance]) {
                high -= distance;
                distance *= 2;
            }
            low = low.max(high.saturating_sub(distance));
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match is_seen(&self.history[middle]) {
                true => low = middle,
                false => high = middle,
            }
        }
        high
    }

    /// The entries up to `sequence`, newest first.
    pub(crate) fn newest_first(&self, sequence: u64) -> impl Iterator<Item = &Entry> {
        let history = self.history.range(..self.index_after(sequence)).rev();
        InOrder::newest_first(history, self.keyed.until(sequence).rev())
    }

    /// Returns the newest entry at `sequence` or before it.
    pub(crate) fn at_or_before(&self, sequence: u64) -> Option<&Entry> {
        let end = self.history.partition_point(|e| e.sequence <= sequence);
        let history = end.checked_sub(1).and_then(|at| self.history.get(at));
        let both = [history, self.keyed.until(sequence).next_back()];
        both.into_iter().flatten().max_by_key(|e| e.sequence)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::frame::Frame;
    use crate::hub::audience::Choice;
    use crate::hub::client::ClientId;
    use crate::hub::entry::Attributes;
    use crate::hub::keyed::KeyedState;
    use crate::hub::remembered::OwnId;
    use crate::hub::retention::History;

    const KEEP_ALL: Bounds = Bounds {
        history: History::events(1_000),
        keyed: KeyedState::keys(1_000),
        backlog_bytes_max: 1 << 20,
    };

    fn entry(sequence: u64) -> Entry {
        Entry {
            sequence,
            at_ms: sequence,
            frame: Frame::raw(b"data: x\n\n"),
            attributes: None,
        }
    }

    fn with(sequence: u64, own_id: Option<&str>, key: Option<&str>) -> Entry {
        Entry {
            attributes: Some(Box::new(Attributes {
                own_id: own_id.map(|text| OwnId {
                    text: text.into(),
                    digest: 0,
                    is_doubtful: false,
                }),
                key: key.map(Arc::from),
                ..Attributes::default()
            })),
            ..entry(sequence)
        }
    }

    fn append(log: &mut Log, entry: Entry) {
        log.append(entry, &mut Dropped::new());
    }

    fn trim(log: &mut Log, bounds: &Bounds, needed_after: u64, now_ms: u64) {
        while log.trim(bounds, needed_after, now_ms, &mut Dropped::new()) {}
    }

    fn remove_key(log: &mut Log, key: &str, audience: Option<Arc<Audience>>) {
        log.remove_key(key.into(), audience, &mut Dropped::new());
    }

    fn sequences(log: &Log, after: u64) -> Vec<u64> {
        log.after(after).map(|entry| entry.sequence).collect()
    }

    #[test]
    fn a_reader_gets_what_comes_after_its_position() {
        let mut log = Log::new(0);
        for sequence in [2, 5, 9] {
            append(&mut log, entry(sequence));
        }
        assert_eq!(sequences(&log, 0), [2, 5, 9]);
        assert_eq!(sequences(&log, 2), [5, 9]);
        assert_eq!(sequences(&log, 4), [5, 9]);
        assert_eq!(sequences(&log, 9), [0; 0]);
        assert_eq!(log.count_after(2), 2);
    }

    #[test]
    fn positions_are_found_however_the_numbers_rise() {
        let evenly: Vec<u64> = (1..=200).map(|n| 3 * n).collect();
        let in_bursts = (0..200).map(|n| n / 20 * 1_000_000 + n % 20 + 1).collect();
        let ever_faster = (0..60).map(|n| 1 << n).collect();
        for numbers in [evenly, in_bursts, ever_faster, vec![7], vec![]] {
            let mut log = Log::new(0);
            for &sequence in &numbers {
                append(&mut log, entry(sequence));
            }
            for position in numbers.iter().flat_map(|&n| [n - 1, n, n + 1]).chain([0]) {
                let wanted = numbers.iter().filter(|&&n| n > position).count();
                assert_eq!(log.count_after(position), wanted, "{numbers:?} {position}");
                assert_eq!(log.after(position).count(), wanted);
            }
        }
    }

    #[test]
    fn eviction_is_remembered_exactly() {
        let mut log = Log::new(0);
        for sequence in 1..=5 {
            append(&mut log, entry(sequence));
        }
        let two = Bounds {
            history: History::events(2),
            ..KEEP_ALL
        };
        trim(&mut log, &two, u64::MAX, 5);
        assert_eq!(sequences(&log, 0), [4, 5]);
        assert_eq!(log.evicted_through(), 3);
        trim(&mut log, &two, u64::MAX, 5 + 600_001);
        assert!(log.is_empty());
        assert_eq!((log.evicted_through(), log.bytes()), (5, 0));
    }

    #[test]
    fn what_a_connected_client_awaits_is_kept_up_to_the_backlog() {
        let mut log = Log::new(0);
        for sequence in 1..=10 {
            append(&mut log, entry(sequence));
        }
        let none = Bounds {
            history: History::NONE,
            backlog_bytes_max: log.bytes() / 2,
            ..KEEP_ALL
        };
        trim(&mut log, &none, 2, 10);
        assert_eq!(sequences(&log, 0), [6, 7, 8, 9, 10]);
        trim(&mut log, &none, 8, 10);
        assert_eq!(sequences(&log, 0), [9, 10]);
    }

    #[test]
    fn an_entry_larger_than_the_backlog_is_kept_for_current_clients() {
        let tiny = Bounds {
            history: History::NONE,
            backlog_bytes_max: 1,
            ..KEEP_ALL
        };
        let mut log = Log::new(0);
        for sequence in 1..=3 {
            append(&mut log, entry(sequence));
            trim(&mut log, &tiny, 0, 3);
            assert_eq!(sequences(&log, 0), [sequence]);
        }
        trim(&mut log, &tiny, 3, 3);
        assert!(log.is_empty());
    }

    #[test]
    fn a_newer_event_of_a_key_replaces_the_older_one_and_that_is_no_gap() {
        let mut log = Log::new(0);
        append(&mut log, with(1, None, Some("a")));
        append(&mut log, with(2, None, Some("b")));
        append(&mut log, with(3, None, Some("a")));
        assert_eq!(sequences(&log, 0), [2, 3]);
        assert_eq!(log.evicted_through(), 0);
    }

    #[test]
    fn an_own_id_leads_to_its_event_while_the_log_holds_it() {
        let mut log = Log::new(0);
        append(&mut log, with(1, Some("w"), None));
        append(&mut log, with(2, Some("x"), Some("k")));
        append(&mut log, with(3, Some("y"), Some("k")));
        assert_eq!(sequences(&log, 0), [1, 3]);
        let number_of = |log: &Log, id| log.event_of(id).map(|entry| entry.sequence);
        let numbers = |log: &Log| ["w", "x", "y", "z"].map(|id| number_of(log, id));
        assert_eq!(numbers(&log), [Some(1), None, Some(3), None]);
        let none = Bounds {
            history: History::NONE,
            ..KEEP_ALL
        };
        trim(&mut log, &none, u64::MAX, 3);
        assert_eq!(numbers(&log), [None, None, Some(3), None]);
        let entries: Vec<_> = log.after(0).cloned().collect();
        let mut restored = Log::restored(log.saved_bounds());
        for entry in entries {
            restored.append(entry, &mut Dropped::new());
        }
        restored.note_head(log.head());
        assert_eq!(numbers(&restored), [None, None, Some(3), None]);
        assert_eq!(restored.own_ids().newest(), Some((&"y".into(), 3)));
    }

    #[test]
    fn a_log_is_trimmed_once_something_of_it_was_evicted() {
        let mut log = Log::new(7);
        assert!(!log.is_trimmed());
        append(&mut log, with(8, None, Some("k")));
        append(&mut log, with(9, None, Some("k")));
        assert!(!log.is_trimmed(), "a replaced event is no loss");
        let none = Bounds {
            keyed: KeyedState::keys(0),
            ..KEEP_ALL
        };
        trim(&mut log, &none, u64::MAX, 9);
        assert!(log.is_trimmed());
    }

    #[test]
    fn an_event_that_may_have_been_for_an_absent_client_is_found() {
        let to = |sequence: u64, choice| {
            let ids = vec![ClientId::lookup("ann")];
            Entry {
                attributes: Some(Box::new(Attributes {
                    audience: Some(Arc::new(Audience::clients(ids, choice))),
                    ..Attributes::default()
                })),
                ..entry(sequence)
            }
        };
        let mut log = Log::new(0);
        append(&mut log, to(1, Choice::Filtered));
        append(&mut log, to(2, Choice::Generated));
        append(&mut log, to(3, Choice::Named));
        append(&mut log, entry(4));
        let may = |position, looks_max, is_generated| {
            let looks = &mut Looks::new(looks_max);
            log.may_have_meant(position, looks, is_generated, |e| e.audience().is_none())
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
        assert!(!log.may_have_meant(0, &mut Looks::new(10), true, |_| true));
    }

    #[test]
    fn a_key_outlives_the_history_and_goes_by_the_bounds_of_keys() {
        let mut log = Log::new(0);
        for (sequence, key) in [(1, Some("a")), (2, None), (3, Some("b")), (4, None)] {
            append(&mut log, with(sequence, None, key));
        }
        let mut bounds = Bounds {
            history: History::events(1).age_max(Duration::from_millis(10)),
            ..KEEP_ALL
        };
        // A year later: the quiet keys are there, the rest is gone by its age.
        trim(&mut log, &bounds, u64::MAX, 365 * 86_400_000);
        assert_eq!(sequences(&log, 0), [1, 3]);
        let evicted = Evicted {
            history: 4,
            keyed: 0,
        };
        assert_eq!((log.evicted(), log.evicted_through()), (evicted, 4));
        assert!(log.keyed().is_complete());

        // One key too many, by number and by age.
        bounds.keyed = KeyedState::keys(2);
        append(&mut log, with(5, None, Some("c")));
        trim(&mut log, &bounds, u64::MAX, 5);
        assert_eq!(sequences(&log, 0), [3, 5]);
        assert_eq!(log.evicted().keyed, 1);
        bounds.keyed = KeyedState::keys(2).age_max(Duration::from_millis(10));
        trim(&mut log, &bounds, u64::MAX, 14);
        assert_eq!(sequences(&log, 0), [5]);
        bounds.keyed = KeyedState::keys(2).bytes_max(1);
        trim(&mut log, &bounds, u64::MAX, 5);
        assert!(log.is_empty());
        assert_eq!(log.keyed().evictions(), 3);
        assert!(log.bytes() > 0, "the missing keys are counted");
    }

    #[test]
    fn a_key_that_a_client_waits_for_is_kept_up_to_the_backlog() {
        let mut log = Log::new(0);
        for (sequence, key) in [(1, "a"), (2, "b"), (3, "c")] {
            append(&mut log, with(sequence, None, Some(key)));
        }
        let mut bounds = Bounds {
            keyed: KeyedState::keys(1),
            ..KEEP_ALL
        };
        trim(&mut log, &bounds, 1, 3);
        assert_eq!(sequences(&log, 0), [2, 3]);
        bounds.backlog_bytes_max = 1;
        trim(&mut log, &bounds, 1, 3);
        assert_eq!(sequences(&log, 0), [3]);
    }

    #[test]
    fn the_state_is_complete_again_when_each_missing_key_is_published_or_removed() {
        let one = Bounds {
            keyed: KeyedState::keys(1),
            ..KEEP_ALL
        };
        let mut log = Log::new(0);
        for (sequence, key) in [(1, "a"), (2, "b"), (3, "c")] {
            append(&mut log, with(sequence, None, Some(key)));
            trim(&mut log, &one, u64::MAX, sequence);
        }
        assert_eq!(sequences(&log, 0), [3]);
        assert_eq!(log.keyed().missing(), (vec!["a".into(), "b".into()], false));
        remove_key(&mut log, "a", None);
        assert!(!log.keyed().is_complete());
        append(&mut log, with(4, None, Some("b")));
        assert!(log.keyed().is_complete());
        remove_key(&mut log, "b", None);
        remove_key(&mut log, "c", None);
        remove_key(&mut log, "never there", None);
        assert!(log.is_empty() && log.keyed().is_complete());
        assert_eq!((log.bytes(), log.evicted().keyed), (0, 2));
    }

    #[test]
    fn an_event_replaces_none_whose_clients_were_chosen_otherwise() {
        let id = ClientId::lookup("a");
        let to = |choice| Arc::new(Audience::clients(vec![id.clone()], choice));
        let with = |sequence, choice| Entry {
            attributes: Some(Box::new(Attributes {
                audience: Some(to(choice)),
                key: Some("k".into()),
                ..Attributes::default()
            })),
            ..entry(sequence)
        };
        let mut log = Log::new(0);
        append(&mut log, with(1, Choice::Filtered));
        append(&mut log, with(2, Choice::Generated));
        append(&mut log, with(3, Choice::Named));
        append(&mut log, with(4, Choice::Named));
        assert_eq!(sequences(&log, 0), [1, 2, 4]);
        let may_have_meant = |has_generated_id| {
            [0, 1, 2].map(|at| {
                let looks = &mut Looks::new(10);
                log.may_have_meant(at, looks, has_generated_id, |_| false)
            })
        };
        assert_eq!(may_have_meant(false), [true, false, false]);
        assert_eq!(may_have_meant(true), [true, true, false]);
        remove_key(&mut log, "k", Some(to(Choice::Named)));
        assert!(log.is_empty() && log.keyed().is_complete());
        assert_eq!(log.bytes(), 0);
    }

    #[test]
    fn missing_keys_are_remembered_up_to_a_number() {
        let none = Bounds {
            keyed: KeyedState::keys(0),
            ..KEEP_ALL
        };
        let mut log = Log::new(0);
        for sequence in 1..=2_000 {
            let key = format!("key {sequence}");
            append(&mut log, with(sequence, None, Some(&key)));
            trim(&mut log, &none, u64::MAX, sequence);
        }
        let (missing, has_more) = log.keyed().missing();
        assert_eq!((missing.len(), has_more), (1024, true));
        for key in missing {
            remove_key(&mut log, &key, None);
        }
        assert!(!log.keyed().is_complete(), "others are missing still");
        assert_eq!(log.bytes(), 0);
    }

    #[test]
    fn the_audience_of_a_batch_is_counted_once_in_each_part_that_holds_one_of_it() {
        let to = |audience: &Arc<Audience>, sequence: u64, key: Option<&str>| Entry {
            attributes: Some(Box::new(Attributes {
                audience: Some(audience.clone()),
                key: key.map(Arc::from),
                ..Attributes::default()
            })),
            ..entry(sequence)
        };
        let ids = (0..1_000).map(|n| ClientId::lookup(&format!("client-{n}")));
        let recipients = Arc::new(Audience::clients(ids.collect(), Choice::Named));
        let mut log = Log::new(0);
        for sequence in 1..=10 {
            let key = (sequence % 2 == 0).then_some("k");
            append(&mut log, to(&recipients, sequence, key));
        }
        let counted = |log: &Log| log.bytes() / recipients.bytes();
        // Only the last event of the key is left.
        assert_eq!(sequences(&log, 0), [1, 3, 5, 7, 9, 10]);
        assert_eq!(counted(&log), 2);
        // An equal audience of another batch is another one, and takes its place.
        let again = Arc::new((*recipients).clone());
        append(&mut log, to(&again, 11, Some("k")));
        assert_eq!((counted(&log), Arc::strong_count(&again)), (2, 3));
        append(&mut log, to(&again, 12, Some("l")));
        assert_eq!(counted(&log), 2);
        let one = Bounds {
            history: History::NONE,
            ..KEEP_ALL
        };
        trim(&mut log, &one, u64::MAX, 12);
        assert_eq!((counted(&log), Arc::strong_count(&recipients)), (1, 1));
        let none = Bounds {
            keyed: KeyedState::keys(0),
            ..one
        };
        trim(&mut log, &none, u64::MAX, 12);
        assert_eq!((log.bytes(), Arc::strong_count(&again)), (0, 1));
    }

    #[test]
    fn a_trim_takes_out_a_bounded_number_of_entries_and_the_next_one_goes_on() {
        let none = Bounds {
            history: History::NONE,
            keyed: KeyedState::keys(0),
            ..KEEP_ALL
        };
        let max = LOOKS_MAX as u64;
        let mut log = Log::new(0);
        for sequence in 1..=max + 10 {
            append(&mut log, entry(sequence));
        }
        for sequence in max + 11..=2 * max + 20 {
            append(&mut log, with(sequence, None, Some(&sequence.to_string())));
        }
        let mut sections = Vec::new();
        loop {
            let mut dropped = Dropped::new();
            let has_more = log.trim(&none, u64::MAX, 0, &mut dropped);
            sections.push(dropped.lens());
            if !has_more {
                break;
            }
        }
        assert_eq!(sections, [(LOOKS_MAX, 0), (LOOKS_MAX, 1), (20, 0)]);
        assert!(log.is_empty());
    }
}
