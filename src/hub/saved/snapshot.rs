//! What is saved of the hub, and why it cannot be restored.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::hub::channel_state::{ChannelState, Finish, Life};
use crate::hub::entry::Entry;
use crate::hub::for_all::{ForAll, Held};
use crate::hub::ids::Ids;
use crate::hub::log::SavedBounds;
use crate::hub::remembered::IdRecord;
use crate::hub::retention::History;

/// The reason why a saved state was not restored. Nothing of it is used.
#[derive(Debug)]
#[non_exhaustive]
pub enum RestoreError {
    /// Reading failed.
    Read(io::Error),
    /// It is not a saved state.
    Foreign,
    /// Another version of this package has written it.
    Version {
        /// The version of its format.
        found: u32,
        /// The version that this package reads.
        known: u32,
    },
    /// A part is missing or has changed.
    Damaged {
        /// The part.
        what: &'static str,
    },
    /// It has more channels than the limit.
    TooManyChannels {
        /// The number of its channels.
        found: usize,
        /// The maximum number of channels.
        max: usize,
    },
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Read(error) => write!(f, "it cannot be read ({error})"),
            RestoreError::Foreign => f.write_str("it is not a saved state of pushwheel"),
            RestoreError::Version { found, known } => write!(
                f,
                "it has version {found} of the format, but this program reads version {known}"
            ),
            RestoreError::Damaged { what } => write!(f, "it is incomplete or damaged ({what})"),
            RestoreError::TooManyChannels { found, max } => write!(
                f,
                "it has {found} channels, but the limit is {max}. Raise the limit"
            ),
        }
    }
}

impl std::error::Error for RestoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RestoreError::Read(error) => Some(error),
            _ => None,
        }
    }
}

/// All that is saved. Times are the wall clock's.
pub(super) struct Snapshot {
    pub(super) ids: Ids,
    pub(super) sequence: u64,
    pub(super) removed_through: u64,
    /// The heads of removed channels, by name.
    pub(super) heads: Vec<(Arc<str>, u64)>,
    /// In the order of their names.
    pub(super) channels: Vec<SavedChannel>,
    pub(super) for_all: SavedForAll,
}

/// What is saved of the events for all channels.
#[derive(Debug, Default)]
pub(super) struct SavedForAll {
    pub(super) evicted_through: u64,
    /// The own ids that are remembered beyond their events.
    pub(super) released: Vec<(Arc<str>, IdRecord)>,
    /// Each with whether it removes its key.
    pub(super) entries: Vec<(Entry, bool)>,
}

pub(super) struct SavedChannel {
    pub(super) name: Arc<str>,
    pub(super) bounds: SavedBounds,
    /// The keys that were evicted and are known, and whether there are more.
    pub(super) missing_keys: (Vec<Arc<str>>, bool),
    /// Published, delivered, gaps.
    pub(super) counts: [u64; 3],
    /// The own ids that are remembered beyond their events.
    pub(super) released: Vec<(Arc<str>, IdRecord)>,
    pub(super) finish: Option<Finish>,
    pub(super) entries: Vec<Entry>,
}

impl SavedChannel {
    /// Copies all of a channel but its entries.
    pub(super) fn of(channel: &ChannelState, wall_of: impl Fn(u64) -> u64) -> Option<SavedChannel> {
        let released = channel.log.remembered().released();
        let released = released.map(|(id, record)| (id.clone(), record.clone()));
        Some(SavedChannel {
            name: channel.name()?.clone(),
            bounds: channel.log.saved_bounds(),
            missing_keys: channel.log.keyed().missing(),
            counts: [
                channel.counts.published,
                channel.counts.delivered,
                channel.counts.gaps,
            ],
            released: released.collect(),
            finish: match channel.life {
                Life::Finishing(finish) => Some(Finish {
                    until_ms: wall_of(finish.until_ms),
                    ..finish
                }),
                Life::Open | Life::Over { .. } | Life::Closing => None,
            },
            entries: Vec::new(),
        })
    }
}

impl SavedForAll {
    /// Copies the events for all channels.
    pub(super) fn of(for_all: &ForAll, wall_of: impl Fn(u64) -> u64) -> SavedForAll {
        let released = for_all.remembered().released();
        let released = released.map(|(id, record)| (id.clone(), record.clone()));
        let entries = for_all.after(0).map(|held| {
            let at_ms = wall_of(held.entry.at_ms);
            let entry = held.entry.clone();
            (Entry { at_ms, ..entry }, held.removes)
        });
        SavedForAll {
            evicted_through: for_all.evicted_through(),
            released: released.collect(),
            entries: entries.collect(),
        }
    }

    /// Returns the events with the times of this run.
    pub(super) fn into_events(self, history: History, timed: impl Fn(Entry) -> Entry) -> ForAll {
        let held = self.entries.into_iter().map(|(entry, removes)| Held {
            entry: timed(entry),
            packed: None,
            removes,
        });
        ForAll::restored(history, self.evicted_through, self.released, held)
    }
}
