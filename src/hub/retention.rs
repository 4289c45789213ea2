//! The retention of a log: the bounds beyond which it evicts entries.

use std::time::Duration;

use super::entry::Entry;
use super::keyed::KeyedState;

/// The events that a channel keeps for clients that come back.
///
/// All three bounds hold at once: beyond one of them the oldest event is evicted, unless
/// a connected client has yet to be sent it (see
/// [`ChannelOptions::backlog_bytes_max`](crate::ChannelOptions::backlog_bytes_max)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct History {
    /// Maximum number of events.
    pub events_max: usize,
    /// Maximum bytes, bookkeeping included.
    pub bytes_max: usize,
    /// Maximum age.
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

    /// Returns a history of the last `events_max` events, of at most 1 MiB and ten minutes.
    #[must_use]
    pub const fn events(events_max: usize) -> History {
        History {
            events_max,
            bytes_max: 1 << 20,
            age_max: Duration::from_secs(600),
        }
    }

    /// Sets the maximum bytes.
    #[must_use]
    pub const fn bytes_max(mut self, bytes: usize) -> History {
        self.bytes_max = bytes;
        self
    }

    /// Sets the maximum age.
    #[must_use]
    pub const fn age_max(mut self, age: Duration) -> History {
        self.age_max = age;
        self
    }

    /// Returns whether nothing is kept.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.events_max == 0
    }
}

/// What a log may hold: its history, its keyed state, and the entries that
/// connected clients wait for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) history: History,
    pub(crate) keyed: KeyedState,
    /// Entries that a connected client has yet to be sent are kept beyond the
    /// bounds of their part, as long as the part has at most this many bytes or
    /// one entry.
    pub(crate) backlog_bytes_max: usize,
}

/// The bounds of one part of a log at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartBounds {
    pub(super) entries_max: usize,
    pub(super) bytes_max: usize,
    pub(super) age_max_ms: u64,
    pub(super) backlog_bytes_max: usize,
    pub(super) needed_after: u64,
    pub(super) now_ms: u64,
}

impl PartBounds {
    /// Returns whether the oldest of the part's `entries` has to go.
    pub(super) fn evict(&self, oldest: &Entry, entries: usize, bytes: usize) -> bool {
        let is_beyond = entries > self.entries_max
            || bytes > self.bytes_max
            || self.now_ms.saturating_sub(oldest.at_ms) > self.age_max_ms;
        // The newest event is there for clients that keep up, whatever its size.
        let has_room = bytes <= self.backlog_bytes_max || entries == 1;
        let is_awaited = oldest.sequence > self.needed_after && has_room;
        is_beyond && !is_awaited
    }
}
