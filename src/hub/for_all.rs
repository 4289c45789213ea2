//! The events that were published to all channels.
//!
//! Such an event has one number and one frame for all channels. It is placed in a
//! channel's log when its turn comes, or before anything else is read from the log or
//! placed in it. So the numbers of each log rise. The invariant to remember: *an open
//! named channel has its place behind an event for all channels exactly if the head of
//! its log is not below the event's number*.
//!
//! The newest events stay here, within the bounds of a history. A channel that is made
//! later begins with those that are newer than its past, as if it had been there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::clock::as_ms;
use super::dropped::Dropped;
use super::entry::{Attributes, Entry};
use super::looks::LOOKS_MAX;
use super::options::ChannelOptions;
use super::rate::{Bucket, Rate};
use super::remembered::ALL;
use super::retention::{History, PartBounds};
use crate::frame::Frame;

/// The name for which the options are asked that hold for events for all channels. No
/// channel can have it.
pub(super) const NAME_OF_ALL: &str = ALL;

/// An event for all channels.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The entry with everything that one of the channels may need, but for the packed
    /// frame.
    pub(super) entry: Entry,
    /// The frame for streams that are compressed.
    pub(super) packed: Option<Frame>,
    /// Whether it removes its key.
    pub(super) removes: bool,
    /// The term of a loss, if it is the gap of one.
    pub(super) lost_in: Option<u64>,
}

impl Held {
    /// Returns an event that each of several channels has, and no other.
    pub(super) fn of_several(mut entry: Entry, removes: bool) -> Held {
        let attributes = entry.attributes.as_mut();
        let packed = attributes.and_then(|attributes| attributes.packed.take());
        Held {
            entry,
            packed,
            removes,
            lost_in: None,
        }
    }

    /// Returns the entry for a channel with these options. It shares the frames.
    pub(super) fn entry_for(&self, options: &ChannelOptions) -> Entry {
        let Entry {
            sequence, at_ms, ..
        } = self.entry;
        let mut attributes = match &self.entry.attributes {
            Some(attributes) => (**attributes).clone(),
            None => Attributes::default(),
        };
        // As in a publish to the channel: a removal is not part of the keyed state.
        if self.removes || !options.conflates() {
            attributes.key = None;
        }
        attributes.packed = self
            .packed
            .clone()
            .filter(|_| options.compress_from.is_some());
        Entry {
            sequence,
            at_ms,
            frame: self.entry.frame.clone(),
            attributes: (!attributes.is_empty()).then(|| Box::new(attributes)),
        }
    }

    /// Returns the key that the event removes from a channel with these options.
    pub(super) fn removed_key(&self, options: &ChannelOptions) -> Option<&Arc<str>> {
        let is_removed = self.removes && options.conflates();
        self.entry.key().filter(|_| is_removed)
    }

    /// Returns the entry with all that the event holds.
    fn into_entry(self) -> Entry {
        let mut entry = self.entry;
        if let Some(packed) = self.packed {
            entry.attributes.get_or_insert_default().packed = Some(packed);
        }
        entry
    }

    fn bytes(&self) -> usize {
        let audience = self.entry.audience().map_or(0, |audience| audience.bytes());
        self.entry.bytes() + audience + self.packed.as_ref().map_or(0, Frame::len)
    }
}

/// The events that not all channels have yet, and the way that is left.
#[derive(Debug)]
struct Spread {
    /// Those after this.
    after: u64,
    /// The channels before this slot have them.
    next_slot: usize,
    /// When they were published, in microseconds.
    now_us: u64,
    /// The streams of the channels that have them.
    streams: Arc<AtomicUsize>,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct ForAll {
    /// In the order of their numbers.
    held: VecDeque<Held>,
    bytes: usize,
    history: History,
    /// The newest event that is no longer here. A channel that is made later may have
    /// missed everything up to it.
    evicted_through: u64,
    bucket: Option<(Rate, Bucket)>,
    spread: Option<Spread>,
    /// The smallest size from which a channel compresses events, if one does.
    compress_from: Option<usize>,
}

impl Default for ForAll {
    fn default() -> Self {
        ForAll::new()
    }
}

impl ForAll {
    pub(super) fn new() -> ForAll {
        ForAll {
            held: VecDeque::new(),
            bytes: 0,
            history: History::NONE,
            evicted_through: 0,
            bucket: None,
            spread: None,
            compress_from: None,
        }
    }

    /// Returns the events as they were saved, for the next publish to trim.
    pub(super) fn restored(
        history: History,
        evicted_through: u64,
        held: impl IntoIterator<Item = Held>,
    ) -> ForAll {
        let mut for_all = ForAll {
            evicted_through,
            history,
            ..ForAll::new()
        };
        for held in held {
            for_all.push(held);
        }
        for_all
    }

    /// Returns whether there are events that a channel may not have yet.
    #[inline]
    pub(super) fn is_spreading(&self) -> bool {
        self.spread.is_some()
    }

    /// Returns the newest number that an event for all channels has had.
    pub(super) fn head(&self) -> u64 {
        let newest = self.held.back();
        newest.map_or(self.evicted_through, |held| held.entry.sequence)
    }

    pub(super) fn evicted_through(&self) -> u64 {
        self.evicted_through
    }

    /// The events after `sequence`, oldest first.
    pub(super) fn after(&self, sequence: u64) -> impl ExactSizeIterator<Item = &Held> {
        let from = self.held.partition_point(|h| h.entry.sequence <= sequence);
        self.held.range(from..)
    }

    /// Takes tokens from the bucket of the rate, if there is one.
    ///
    /// # Errors
    /// When too few are left: the time after which there are enough.
    pub(super) fn take_tokens(
        &mut self,
        rate: Option<Rate>,
        count: usize,
        now_ms: u64,
    ) -> Result<(), Duration> {
        let Some(rate) = rate else {
            self.bucket = None;
            return Ok(());
        };
        let is_other = self.bucket.is_none_or(|(before, _)| before != rate);
        if is_other {
            self.bucket = Some((rate, Bucket::new(rate, now_ms)));
        }
        let (_, bucket) = self.bucket.as_mut().expect("it was just set");
        bucket.take(rate, count, now_ms)
    }

    /// Notes that there is a channel with these options.
    pub(super) fn note_options(&mut self, options: &ChannelOptions) {
        let Some(bytes) = options.compress_from else {
            return;
        };
        if self.compress_from.is_none() {
            self.pack();
        }
        let least = self.compress_from.map_or(bytes, |least| least.min(bytes));
        self.compress_from = Some(least);
    }

    /// Returns the size from which events are to be compressed, if a channel does that.
    pub(super) fn compress_from(&self) -> Option<usize> {
        self.compress_from
    }

    /// Makes the packed frames of events that were published before there was a channel
    /// that compresses. They are stored as they are: the hub's lock is held.
    fn pack(&mut self) {
        for held in &mut self.held {
            let packed = Frame::raw(held.entry.frame.as_bytes()).pack(usize::MAX);
            self.bytes += packed.len();
            held.packed = Some(packed);
        }
    }

    /// Notes that the event of this number is the gap of a loss.
    pub(super) fn note_loss(&mut self, sequence: u64, term: u64) {
        let is_it = |held: &&mut Held| held.entry.sequence == sequence;
        if let Some(held) = self.held.iter_mut().rev().find(is_it) {
            held.lost_in = Some(term);
        }
    }

    /// Adds an event. Its number is higher than any before.
    pub(super) fn push(&mut self, held: Held) {
        self.bytes += held.bytes();
        self.held.push_back(held);
    }

    // ---- on the way ----

    /// Begins to place the events that are added from now on, when all before are placed.
    /// Returns where the streams of the channels that have them are counted. What is kept
    /// for channels that are made later goes by `history`.
    pub(super) fn begin(&mut self, now_us: u64, history: History) -> Arc<AtomicUsize> {
        debug_assert!(!self.is_spreading(), "one at a time is on its way");
        let streams = Arc::new(AtomicUsize::new(0));
        self.history = history;
        self.spread = Some(Spread {
            after: self.head(),
            next_slot: 0,
            now_us,
            streams: streams.clone(),
        });
        streams
    }

    /// Returns the events on the way that a channel does not have whose log ends at
    /// `head`.
    pub(super) fn missing(&self, head: u64) -> Vec<Held> {
        match &self.spread {
            Some(spread) => self.after(spread.after.max(head)).cloned().collect(),
            None => Vec::new(),
        }
    }

    /// Returns the number of events on the way.
    pub(super) fn len_on_the_way(&self) -> usize {
        let spread = self.spread.as_ref();
        spread.map_or(0, |spread| self.after(spread.after).len())
    }

    /// Returns the next slot, and when the events were published.
    pub(super) fn next_slot(&self) -> Option<(usize, u64)> {
        let spread = self.spread.as_ref()?;
        Some((spread.next_slot, spread.now_us))
    }

    /// Notes that the channels before `slot` have the events, with so many streams more.
    pub(super) fn advance(&mut self, slot: usize, streams: usize) {
        if let Some(spread) = &mut self.spread {
            spread.next_slot = slot;
            spread.streams.fetch_add(streams, Relaxed);
        }
    }

    /// Notes that all channels have the events.
    pub(super) fn end(&mut self, now_ms: u64, dropped: &mut Dropped) {
        self.spread = None;
        self.trim(now_ms, dropped);
    }

    /// Evicts the events that the bounds do not allow to be kept for channels that are
    /// made later, unless a channel does not have them yet.
    pub(super) fn trim(&mut self, now_ms: u64, dropped: &mut Dropped) {
        if self.is_spreading() {
            return;
        }
        let bounds = PartBounds {
            entries_max: self.history.events_max.min(LOOKS_MAX),
            bytes_max: self.history.bytes_max,
            age_max_ms: as_ms(self.history.age_max),
            backlog_bytes_max: 0,
            needed_after: u64::MAX,
            now_ms,
        };
        while let Some(oldest) = self.held.front()
            && bounds.evict(&oldest.entry, self.held.len(), self.bytes)
            && let Some(oldest) = self.held.pop_front()
        {
            self.bytes -= oldest.bytes();
            self.evicted_through = oldest.entry.sequence;
            dropped.push(oldest.into_entry());
        }
    }
}
