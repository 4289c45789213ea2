//! The beginning of a stream: the position after which it reads, and the gap or the id
//! that it opens with.

use super::channel_state::{ChannelState, Life};
use super::entry::Entry;
use super::gap::GapReason;
use super::id::{EventId, Parsed};
use super::ids::Ids;
use super::join::{Join, JoinError, Joined, Start};
use super::log::{Evicted, Log};
use super::looks::{LOOKS_MAX, Looks};
use super::merged::{ChannelReader, Merged};
use super::options::ChannelOptions;
use super::state::State;

/// A gap with which a stream begins: the id that the client has asked for, the position
/// after which it is sent history, and the reason.
type Missed<'a> = (Option<&'a str>, u64, GapReason);

/// What channels are to a client that joins them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lives {
    /// Whether all of them are finished.
    pub(super) are_finished: bool,
    /// Whether one of them has as many clients as it may have.
    pub(super) are_full: bool,
}

/// See the [module](self).
#[derive(Clone, Copy)]
pub(super) struct Beginning<'a> {
    merged: Merged<'a>,
    /// The newest number of the channels' sequence.
    now: u64,
    state: &'a State,
    join: &'a Join<'a>,
    ids: &'a Ids,
}

impl<'a> Beginning<'a> {
    pub(super) fn new(state: &'a State, join: &'a Join<'a>, ids: &'a Ids) -> Beginning<'a> {
        let merged = Merged::new(state, join.channels);
        Beginning {
            merged,
            now: merged.now(),
            state,
            join,
            ids,
        }
    }

    /// Returns where the stream begins. `before_last` is the position before the last
    /// events, if the client asks for these.
    ///
    /// # Errors
    /// When the client cannot join.
    pub(super) fn find(self, before_last: Option<u64>) -> Result<Joined, JoinError> {
        let lives = self.lives()?;
        let mut joined = self.joined(before_last);
        // A client that was cut off just before the end is owed the end.
        let has_missed = || joined.gap.is_some() || self.has_after(joined.seen);
        if lives.are_finished && !has_missed() {
            return Err(JoinError::Finished);
        }
        if lives.are_full {
            return Err(JoinError::Full);
        }
        joined.is_finished = lives.are_finished;
        Ok(joined)
    }

    /// Returns what the channels are to a client that joins them now.
    ///
    /// # Errors
    /// When one of them is over.
    pub(super) fn lives(self) -> Result<Lives, JoinError> {
        let mut lives = Lives {
            are_finished: true,
            are_full: false,
        };
        for key in self.join.channels {
            let channel = self.state.get(*key);
            let channel = channel.filter(|channel| !channel.life.is_over());
            let channel = channel.ok_or(JoinError::Closed)?;
            let replaces = channel.members.find(&self.join.id).is_some();
            lives.are_full |= channel.members.len() >= channel.options.clients_max && !replaces;
            lives.are_finished &= matches!(channel.life, Life::Finishing(_));
        }
        Ok(lives)
    }

    /// Returns where a stream or a reader begins, whether or not a client could join.
    pub(super) fn joined(self, before_last: Option<u64>) -> Joined {
        let merged = self.merged;
        let readers = merged.logs().map(|log| ChannelReader {
            slot: 0,
            forgiven: log.evicted(),
        });
        let state_after = merged.state_after();
        let mut joined = Joined {
            readers: readers.collect(),
            seen: self.now,
            now: self.now,
            head: merged.head(),
            options: ChannelOptions::of_all(merged.channels().map(|channel| &channel.options)),
            keyed_through: 0,
            conflates: state_after.is_some(),
            is_finished: false,
            is_private: merged.channels().any(|channel| channel.name().is_none()),
            compresses: merged.channels().all(|c| c.options.compress_from.is_some()),
            gap: None,
            needs_id: true,
            opening_id: None,
            ends_doubtfully: false,
        };
        if let Some((requested, position, reason)) = self.start(&mut joined, before_last) {
            joined.seen = position.max(self.history_after());
            if let Some(after) = state_after {
                // The gap is followed by the whole state, but not by what the
                // client has seen of the history.
                joined.keyed_through = position;
                joined.seen = joined.seen.min(after);
            }
            joined.needs_id = true;
            if !self.has_after(joined.seen) {
                // So that a client that comes back with the gap's id does not
                // receive the gap again.
                joined.seen = self.now;
            }
            let admits = |entry: &Entry| self.join.admits(entry);
            joined.gap = Some(merged.gap(requested, reason, admits, self.ids));
        }
        joined.opening_id = self.opening_id(joined.seen);
        joined.ends_doubtfully = self.ends_doubtfully(&joined);
        joined
    }

    /// Applies the start that the client asks for. Returns the gap that this makes.
    fn start(self, joined: &mut Joined, before_last: Option<u64>) -> Option<Missed<'a>> {
        let merged = self.merged;
        let state_after = merged.state_after();
        let history_after = self.history_after();
        let tail = state_after.map_or(history_after, |after| after.min(history_after));
        match self.join.start {
            Start::Live => {
                if let Some(after) = state_after {
                    joined.seen = after;
                    joined.keyed_through = self.now;
                }
                let is_complete = |c: &ChannelState| c.log.keyed().is_complete();
                let is_missing = !merged.channels().all(is_complete);
                is_missing.then_some((None, self.now, GapReason::Evicted))
            }
            Start::Earliest => {
                joined.seen = tail;
                let is_trimmed = merged.logs().any(Log::is_trimmed);
                is_trimmed.then_some((Some("earliest"), 0, GapReason::Evicted))
            }
            Start::Last(_) => {
                // Some of what was found may have been evicted meanwhile.
                joined.seen = before_last.unwrap_or(self.now).max(tail);
                None
            }
            Start::After(id) => match self.resolve(id) {
                Ok(position) => {
                    joined.seen = position;
                    joined.needs_id = false;
                    let reason = self.loss_after(position)?;
                    Some((Some(id), position, reason))
                }
                Err(reason) => Some((Some(id), 0, reason)),
            },
        }
    }

    /// Returns the position after which the logs hold all history.
    fn history_after(self) -> u64 {
        let evicted = self.merged.logs().map(Log::evicted);
        evicted.map(|evicted| evicted.history).min().unwrap_or(0)
    }

    /// Returns why a client that has seen everything up to `position` has missed
    /// events, or may have.
    fn loss_after(self, position: u64) -> Option<GapReason> {
        let is_loss = |evicted: Evicted| evicted.is_loss(position, position);
        if self.merged.logs().map(Log::evicted).any(is_loss) {
            // In a cluster, the first term begins after 0.
            let is_new = self.state.is_node && position == 0;
            let term = self.state.terms.first_after(position);
            // The gap of a later term was not evicted.
            let is_evicted =
                |first: &u64| !self.state.is_node || *first <= self.merged.evicted_through();
            return Some(match term.filter(|_| !is_new).filter(is_evicted) {
                Some(first) if !self.holds_gap_of(first) => GapReason::Lost,
                // It receives the gap in the place of what was lost, too.
                _ => GapReason::Evicted,
            });
        }
        if self.has_seen_lost(position) {
            return Some(GapReason::Lost);
        }
        let admits = |entry: &Entry| self.join.admits(entry);
        let is_generated = self.join.has_generated_id;
        let mut looks = Looks::new(LOOKS_MAX);
        let is_uncertain =
            |log: &Log| log.may_have_meant(position, &mut looks, is_generated, admits);
        self.merged
            .logs()
            .any(is_uncertain)
            .then_some(GapReason::Audience)
    }

    /// Returns whether one of the logs holds the gap of a term: in a journal the first entry
    /// of the term, in a cluster any later one.
    fn holds_gap_of(self, first: u64) -> bool {
        if self.state.is_node {
            let evicted = self.merged.evicted_through();
            let mut channels = self.merged.channels();
            return channels.any(|channel| {
                let gap = self.state.gap_of(channel.scope(), first);
                gap.is_some_and(|number| number > evicted)
            });
        }
        let entry = self.merged.at_or_before(first);
        entry.is_some_and(|entry| entry.sequence == first)
    }

    /// Returns an id that leads back to `position`, of whatever kind there is.
    pub(super) fn id_at(self, position: u64) -> EventId {
        let id = self.opening_id(position);
        id.unwrap_or_else(|| self.ids.id_of(position))
    }

    /// Returns whether a client may have seen what a cluster has lost, and what none of its
    /// channels says to be lost: the nodes that had it are gone, too.
    fn has_seen_lost(self, position: u64) -> bool {
        if !self.state.is_node {
            return false;
        }
        let Some(jump) = self.state.terms.jump_over(position) else {
            return false;
        };
        let mut channels = self.merged.channels();
        !channels.any(|channel| self.state.has_gap_of(channel.scope(), jump.first))
    }

    pub(super) fn has_after(self, position: u64) -> bool {
        self.merged
            .has_after(position, |entry| self.join.admits(entry))
    }

    /// Returns the position that an id names, or the reason why it names none.
    /// Events that are not for this client do not count. An id that events of
    /// several channels have names the first of them: too much is sent again
    /// rather than too little.
    fn resolve(self, id: &str) -> Result<u64, GapReason> {
        let parsed = self.ids.parse(id);
        match parsed {
            Parsed::Ours(sequence) if sequence <= self.now => return Ok(sequence),
            Parsed::Ours(_) => return Err(GapReason::Unknown),
            Parsed::Foreign | Parsed::Unknown => {}
        }
        // Some clients send a header in Latin-1, and some servers read it so.
        let latin1: Option<String> = (!id.is_ascii()).then(|| id.bytes().map(char::from).collect());
        for text in [Some(id), latin1.as_deref()].into_iter().flatten() {
            let places = self
                .merged
                .channels()
                .flat_map(|channel| self.state.places_of(channel, text));
            let mut places = places.filter(|place| self.join.is_of(place.audience));
            let Some(mut first) = places.next() else {
                continue;
            };
            for place in places {
                first.is_doubtful |= place.is_doubtful;
                first.sequence = first.sequence.min(place.sequence);
            }
            // The client may have seen the event before the restart, and may
            // have missed others since then.
            return match first.is_doubtful {
                true => Err(GapReason::Restart),
                false => Ok(first.sequence),
            };
        }
        match parsed {
            Parsed::Foreign => Err(GapReason::Restart),
            Parsed::Ours(_) | Parsed::Unknown => Err(GapReason::Unknown),
        }
    }

    /// Returns an id that leads back to `seen`. In channels whose events carry
    /// own ids that is the id of the newest event up to there, or none: a client
    /// of such a channel need not know what the engine's ids are.
    fn opening_id(self, seen: u64) -> Option<EventId> {
        let newest = self.merged.channels();
        let newest = newest.filter_map(|channel| self.state.newest_own_id(channel));
        let newest = newest.max_by_key(|(_, sequence)| *sequence);
        let Some((newest, _)) = newest else {
            return Some(self.ids.id_of(seen));
        };
        let held = self.merged.at_or_before(seen);
        let own_id = held.and_then(Entry::own_id).unwrap_or(newest);
        if let Ok(position) = self.resolve(own_id)
            && position <= seen
            && held.is_none_or(|entry| entry.sequence <= position)
            && self.merged.evicted_through() <= position
        {
            return Some(EventId::own(own_id.into()));
        }
        // Without an id, a client that is cut off before its first event asks
        // again for what it asked for. That misses nothing, unless it asked for
        // new events only.
        match self.join.start {
            Start::Earliest | Start::Last(_) => None,
            Start::Live | Start::After(_) => Some(self.ids.id_of(seen)),
        }
    }

    /// Returns whether the last event that the client is sent before new ones may
    /// have an own id that is doubtful. Looks only at the newest entry: if the
    /// client may not be sent that one, the answer is yes.
    fn ends_doubtfully(self, joined: &Joined) -> bool {
        let replays_doubtful = |log: &Log| log.own_ids().doubtful_through() > joined.seen;
        if !self.merged.logs().any(replays_doubtful) {
            return false;
        }
        let is_certain = |entry: &Entry| {
            // A newer event may replace one with a key before it is sent.
            let is_sent = entry.sequence > joined.keyed_through && !entry.has_key();
            let leads_back = |id: &str| self.resolve(id).is_ok();
            is_sent && self.join.admits(entry) && entry.own_id().is_none_or(leads_back)
        };
        !self.merged.at_or_before(joined.now).is_some_and(is_certain)
    }
}
