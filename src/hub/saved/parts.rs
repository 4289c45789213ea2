//! The parts of a saved state, in the order in which they are written and read.
//!
//! ```text
//! begin · unknown* · events for all channels · finishes* · removals* · (channel · entries*)*
//! · heads* · own ids* · keys* · refused* · end
//! ```
//!
//! Times are the wall clock's, in milliseconds since 1970.
//!
//! The invariant to remember: *a state is not of one moment*. Each channel is as it was
//! when all numbers up to its `through` had been applied, and everything up to `at` is in
//! it. A name that has no channel is as it was at a number of its own, too. So a log is applied
//! again from `at`, and each channel and name skips what it has.

use std::sync::Arc;

use crate::hub::channel_state::Finish;
use crate::hub::entry::Entry;
use crate::hub::heads::Absent;
use crate::hub::idempotency::{KeyId, KeyRecord};
use crate::hub::ids::Ids;
use crate::hub::log::SavedBounds;
use crate::hub::remembered::IdRecord;
use crate::journal::terms::Jump;

/// A part of a state.
#[derive(Debug)]
pub(super) enum Part {
    Begin(Begin),
    /// Up to this number the log is not known, and any channel may have had events.
    Unknown(u64),
    ForAll(SavedForAll),
    /// Some finishes that a log has up to `at`, by name. Older releases have later ones, too,
    /// which may hide those.
    Finishes(Vec<(Arc<str>, u64)>),
    /// The last removals of some names that a log has up to `at`, by name.
    Removals(Vec<(Arc<str>, u64)>),
    Channel(Box<SavedChannel>),
    /// Some entries of the channel before, the oldest first.
    Entries(Vec<Entry>),
    /// Some own ids of publishers by their keys, in the order of their numbers: those that
    /// were remembered at `at`, and all later ones.
    OwnIds(Vec<(Arc<str>, IdRecord)>),
    /// Some idempotency keys, in the order of their numbers, as with own ids.
    Keys(Vec<(KeyId, KeyRecord)>),
    /// Some names of removed channels.
    Heads(Vec<(Arc<str>, Absent)>),
    /// The finishes after `at` that were refused, by their numbers, in ascending order.
    Refused(Vec<u64>),
    End(End),
}

/// What comes first.
#[derive(Debug)]
pub(super) struct Begin {
    pub(super) ids: Ids,
    /// Everything up to this number is in the state.
    pub(super) at: u64,
    /// When the oldest entry was published.
    pub(super) oldest_ms: u64,
    /// There are not more channels.
    pub(super) channels: usize,
    /// The ranges of numbers that may be lost.
    pub(super) jumps: Vec<Jump>,
}

/// What is saved of the events for all channels. It is as it was at `at`.
#[derive(Debug, Default)]
pub(super) struct SavedForAll {
    pub(super) evicted_through: u64,
    /// Each with whether it removes its key.
    pub(super) entries: Vec<(Entry, bool)>,
}

/// A channel without its entries.
#[derive(Debug)]
pub(super) struct SavedChannel {
    pub(super) name: Arc<str>,
    /// Everything up to this number was applied, and nothing behind it.
    pub(super) through: u64,
    pub(super) bounds: SavedBounds,
    /// The keys that were evicted and are known, and whether there are more.
    pub(super) missing_keys: (Vec<Arc<str>>, bool),
    /// Published, delivered, gaps.
    pub(super) counts: [u64; 3],
    pub(super) finish: Option<Finish>,
}

/// What comes last.
#[derive(Debug)]
pub(super) struct End {
    /// No number was given that is higher.
    pub(super) sequence: u64,
    /// The highest head of a removed channel that is not here.
    pub(super) removed_through: u64,
}
