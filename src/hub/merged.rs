//! The channels of one stream, whose logs are read as one.

use super::channel_state::{ChannelState, Life};
use super::client::DisconnectReason;
use super::entry::Entry;
use super::gap::{Gap, GapReason};
use super::ids::Ids;
use super::key::ChannelKey;
use super::log::{Evicted, Log};
use super::looks::{LOOKS_MAX, Looks};
use super::merge;
use super::state::State;

/// A reader's place in one channel: the slot of its member, and the loss that was known
/// and reported when it began to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChannelReader {
    pub(crate) slot: u32,
    pub(crate) forgiven: Evicted,
}

/// A reader's loss, and where it continues if its stream does.
///
/// Without conflating channels that is the newest entry. With them it is the whole of
/// their state, from its oldest entry on: which keys were removed or evicted meanwhile
/// is not known, so the client has to begin again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lag {
    pub(crate) gap: Gap,
    /// What counts as seen.
    pub(crate) seen: u64,
    /// Up to here, only keyed events are read.
    pub(crate) keyed_through: u64,
    /// For each channel, the loss that the gap event reports.
    pub(crate) forgiven: Box<[Evicted]>,
}

/// See the [module](self).
#[derive(Clone, Copy)]
pub(super) struct Merged<'a> {
    state: &'a State,
    keys: &'a [ChannelKey],
}

impl<'a> Merged<'a> {
    pub(super) fn new(state: &'a State, keys: &'a [ChannelKey]) -> Merged<'a> {
        Merged { state, keys }
    }

    /// Returns the channels that are there.
    pub(super) fn channels(self) -> impl Iterator<Item = &'a ChannelState> {
        self.keys.iter().filter_map(move |key| self.state.get(*key))
    }

    pub(super) fn logs(self) -> impl Iterator<Item = &'a Log> {
        self.channels().map(|channel| &channel.log)
    }

    /// Returns the newest number of the sequence that these channels take theirs from:
    /// that of all named channels, or a private channel's own.
    pub(super) fn now(self) -> u64 {
        let first = self.channels().next();
        let private = first.filter(|channel| channel.name().is_none());
        private.map_or(self.state.sequence, |channel| channel.log.head())
    }

    /// Visits the entries in `(after, through]`; see [`merge::walk`].
    pub(super) fn walk(
        self,
        after: u64,
        through: u64,
        visit: impl FnMut(usize, &'a Entry) -> bool,
    ) -> (u64, bool) {
        let keys = self.keys.iter().enumerate();
        let logs = keys.filter_map(|(index, key)| Some((index, &self.state.get(*key)?.log)));
        merge::walk(logs, after, through, visit)
    }

    /// Returns the newest entry that any of the logs ever had.
    pub(super) fn head(self) -> u64 {
        self.logs().map(Log::head).max().unwrap_or(0)
    }

    /// Returns the newest sequence number that a reader may have missed for good.
    pub(super) fn evicted_through(self) -> u64 {
        self.logs().map(Log::evicted_through).max().unwrap_or(0)
    }

    /// Returns the position from which a reader gets the newest entry of all, if the
    /// logs still hold it.
    pub(super) fn before_newest(self) -> u64 {
        let before = self.head().saturating_sub(1);
        before.max(self.evicted_through())
    }

    /// Returns the position from which a reader gets the whole keyed state of those
    /// channels that conflate; `None` if none of them does.
    pub(super) fn state_after(self) -> Option<u64> {
        let conflating = self
            .channels()
            .filter(|channel| channel.options.conflates());
        conflating.map(|channel| channel.log.evicted().keyed).min()
    }

    /// Returns why a stream ends that has been sent everything `through` here, if it
    /// does: all of its channels are finished; or one of several is over, and its name
    /// may be another channel's.
    pub(super) fn ends(self, through: u64) -> Option<DisconnectReason> {
        let lives = || self.channels().map(|channel| channel.life);
        let has_all = |life: &Life| life.through().is_some_and(|last| last <= through);
        if lives().all(|life| has_all(&life)) {
            return Some(DisconnectReason::Finished);
        }
        let is_left = lives().any(|life| life.is_over() && has_all(&life));
        is_left.then_some(DisconnectReason::ChannelClosed)
    }

    /// Returns whether the logs hold an entry after `position` that `admits` lets
    /// through. Looks at a bounded number of entries; beyond them they may.
    pub(super) fn has_after(self, position: u64, admits: impl Fn(&Entry) -> bool) -> bool {
        let mut looks = Looks::new(LOOKS_MAX);
        self.logs().any(|log| {
            let mut entries = log.after(position);
            entries.any(|entry| !looks.take() || admits(entry))
        })
    }

    /// Returns the newest entry up to `sequence`.
    pub(super) fn at_or_before(self, sequence: u64) -> Option<&'a Entry> {
        let newest = self.logs().filter_map(|log| log.at_or_before(sequence));
        newest.max_by_key(|entry| entry.sequence)
    }

    /// Returns a gap event. Names only events that `admits` lets the client see, and
    /// looks at a bounded number of them.
    pub(super) fn gap(
        self,
        requested: Option<&str>,
        reason: GapReason,
        admits: impl Fn(&Entry) -> bool,
        ids: &Ids,
    ) -> Gap {
        let [mut oldest_looks, mut newest_looks] = [Looks::new(LOOKS_MAX / 2); 2];
        let oldest = self.logs().filter_map(|log| {
            let mut entries = log.after(0).take_while(|_| oldest_looks.take());
            entries.find(|entry| admits(entry))
        });
        let newest = self.logs().filter_map(|log| {
            let mut entries = log
                .newest_first(u64::MAX)
                .take_while(|_| newest_looks.take());
            entries.find(|entry| admits(entry))
        });
        let oldest = oldest.min_by_key(|entry| entry.sequence);
        let newest = newest.max_by_key(|entry| entry.sequence);
        let id_of = |entry: &Entry| ids.of_entry(entry);
        Gap {
            requested: requested.map(str::to_owned),
            oldest: oldest.map(id_of),
            newest: newest.map_or_else(|| ids.id_of(self.now()), id_of),
            reason,
        }
    }

    /// Returns where a reader continues that has lost entries.
    pub(super) fn lag(self, admits: impl Fn(&Entry) -> bool, ids: &Ids) -> Lag {
        let newest = self.before_newest();
        Lag {
            gap: self.gap(None, GapReason::Slow, admits, ids),
            seen: self.state_after().unwrap_or(newest),
            keyed_through: newest,
            forgiven: self.logs().map(Log::evicted).collect(),
        }
    }
}
