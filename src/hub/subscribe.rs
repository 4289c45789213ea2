//! Subscribing: from a request to a cursor, and out again.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;

use super::client::{ClientId, DisconnectReason, Extra, Member, Place};
use super::id::{self, Parsed};
use super::log::Entry;
use super::options::ChannelOptions;
use super::state::{Membership, Seat, State, bury};
use super::{ChannelKey, Farewell, Hub, Wake};

/// Where a stream begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With what is published from now on. The default.
    #[default]
    Live,
    /// After the event of this id; a hole is told as a gap.
    After(String),
    /// With the oldest event that the history holds.
    Earliest,
    /// With the last so many events of the history.
    Last(usize),
}

/// Who wants to join which channels.
pub(crate) struct Join<'a> {
    pub(crate) channels: &'a [ChannelKey],
    pub(crate) id: ClientId,
    pub(crate) place: Place,
    pub(crate) address: SocketAddr,
    pub(crate) extra: Option<Box<Extra>>,
    pub(crate) start: &'a Start,
}

impl Join<'_> {
    /// Whether an entry is for this client.
    fn admits(&self, entry: &Entry) -> bool {
        let metadata = self.extra.as_ref().map(|extra| &*extra.metadata);
        let audience = entry.audience();
        audience.is_none_or(|audience| audience.admits(&self.id, metadata))
    }
}

/// A place in each of the channels, and where to begin.
#[derive(Debug)]
pub(crate) struct Joined {
    /// One for each channel, in the order asked for.
    pub(crate) seats: Vec<Seat>,
    /// Everything up to here counts as seen.
    pub(crate) seen: u64,
    /// The newest sequence number at that moment.
    pub(crate) now: u64,
    /// The newest entry in any of the channels. At `seen` or below: the
    /// client is caught up from the start.
    pub(crate) head: u64,
    /// What holds for the stream of all the channels.
    pub(crate) options: Arc<ChannelOptions>,
    /// Of what there was before the client came, up to here, it is sent only
    /// events with a key.
    pub(crate) keyed_through: u64,
    /// Whether the channels are finished: the stream ends with what they hold.
    pub(crate) is_finished: bool,
    /// Whether the stream is compressed for a client that takes gzip.
    pub(crate) compresses: bool,
    /// The data of the gap event with which the stream has to begin.
    pub(crate) gap: Option<String>,
    /// Whether the client holds no id that says where the stream begins.
    pub(crate) needs_id: bool,
}

/// Why a client cannot join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinError {
    /// A channel has as many clients as it may have.
    Full,
    /// Every channel is finished, and the client has seen all of it.
    Finished,
    /// A channel was removed in the meantime.
    Closed,
}

impl Hub {
    /// Makes a client a member of all the channels at once, so that it sees
    /// a consistent cut of them.
    pub(crate) fn join(&self, join: Join<'_>) -> Result<Joined, JoinError> {
        let mut state = self.lock();
        let mut joined = state.receive(&join, self)?;
        let wake = state.admit(join, &mut joined, self);
        drop(state);
        self.wake(wake);
        Ok(joined)
    }

    /// Returns where a client would begin, without making it a member.
    pub(crate) fn could_join(&self, join: &Join<'_>) -> Result<Joined, JoinError> {
        self.lock().receive(join, self)
    }

    /// Takes a client out of its channels, unless that was done already;
    /// whoever is to be told comes back.
    pub(crate) fn leave(&self, memberships: &[Membership], place: Place) -> Option<Farewell> {
        let now_ms = self.clock.now_ms();
        let mut told = None;
        let mut removed = Vec::new();
        let mut state = self.lock();
        for Membership { channel: key, slot } in memberships {
            let Some(channel) = state.get_mut(*key) else {
                continue;
            };
            let is_its = channel
                .members
                .get(*slot)
                .is_some_and(|m| m.place() == place);
            if !is_its {
                continue;
            }
            let member = channel.remove_member(*slot, now_ms);
            told = told.or(member.and_then(|mut m| channel.farewell(&mut m, &self.clock)));
            let is_private = channel.name.is_empty();
            if is_private {
                let (channel, _) = state.remove(*key, DisconnectReason::Gone, &self.clock);
                removed.extend(channel);
            } else {
                channel.trim(now_ms);
                state.clients -= 1;
            }
        }
        drop(state);
        bury(removed);
        told
    }
}

impl State {
    /// Finds whether there is a place, and where the stream begins.
    fn receive(&self, join: &Join<'_>, hub: &Hub) -> Result<Joined, JoinError> {
        let (mut is_finished, mut is_full) = (true, false);
        for key in join.channels {
            let channel = self.get(*key).ok_or(JoinError::Closed)?;
            let replaces = channel.members.find(&join.id).is_some();
            is_full |= channel.members.len() >= channel.options.clients_max && !replaces;
            is_finished &= channel.finish.is_some();
        }
        let mut joined = self.seat(join, hub);
        // Whoever was cut off just before the end is owed the end.
        let has_missed = || joined.gap.is_some() || self.has_after(join, joined.seen);
        if is_finished && !has_missed() {
            return Err(JoinError::Finished);
        }
        if is_full {
            return Err(JoinError::Full);
        }
        joined.is_finished = is_finished;
        Ok(joined)
    }

    /// Finds where the stream begins.
    fn seat(&self, join: &Join<'_>, hub: &Hub) -> Joined {
        let channels = || join.channels.iter().filter_map(|key| self.get(*key));
        let evicted = || channels().map(|channel| channel.log.evicted_through());
        // Everything that the logs hold comes after this.
        let tail = evicted().min().unwrap_or(0);
        let mut joined = Joined {
            seats: evicted()
                .map(|forgiven| Seat { slot: 0, forgiven })
                .collect(),
            seen: self.sequence,
            now: self.sequence,
            head: channels()
                .map(|channel| channel.log.head())
                .max()
                .unwrap_or(0),
            options: ChannelOptions::of_all(channels().map(|channel| &channel.options)),
            keyed_through: 0,
            is_finished: false,
            compresses: channels().all(|channel| channel.options.compress_from.is_some()),
            gap: None,
            needs_id: true,
        };
        match join.start {
            Start::Live => {
                let conflating = channels().filter(|channel| channel.options.conflates());
                if let Some(tail) = conflating.map(|c| c.log.evicted_through()).min() {
                    joined.seen = tail;
                    joined.keyed_through = self.sequence;
                }
            }
            // What is gone is gone: a newcomer has lost nothing.
            Start::Earliest => joined.seen = tail,
            Start::Last(count) => joined.seen = self.position_before_last(join, *count),
            Start::After(id) => {
                let (position, reason) = match self.resolve(id, join.channels, hub) {
                    Ok(position) if evicted().all(|through| through <= position) => {
                        joined.seen = position;
                        joined.needs_id = false;
                        return joined;
                    }
                    Ok(position) => (position, "evicted"),
                    Err(reason) => (0, reason),
                };
                joined.seen = position.max(tail);
                if !self.has_after(join, joined.seen) {
                    // So that one who comes back with the gap's id is not
                    // told of it again.
                    joined.seen = self.sequence;
                }
                joined.gap = Some(self.gap(join.channels, id, reason, hub));
            }
        }
        joined
    }

    /// Finds the position that an id names. One that was given more than once,
    /// by publishers or by the engine and a publisher who took it from there,
    /// names the first of its events: rather too much is sent again than too
    /// little.
    fn resolve(&self, text: &str, channels: &[ChannelKey], hub: &Hub) -> Result<u64, &'static str> {
        let own = channels
            .iter()
            .filter_map(|key| self.get(*key)?.log.sequence_of(text))
            .min();
        let ours = match id::parse(text, &hub.epoch) {
            Parsed::Ours(sequence) if sequence <= self.sequence => Ok(sequence),
            Parsed::Ours(_) | Parsed::Unknown => Err("unknown"),
            Parsed::Foreign => Err("restart"),
        };
        own.into_iter().chain(ours.ok()).min().map_or(ours, Ok)
    }

    /// Whether the logs hold something for this client after `position`.
    fn has_after(&self, join: &Join<'_>, position: u64) -> bool {
        let mut channels = join.channels.iter().filter_map(|key| self.get(*key));
        channels.any(|channel| channel.log.after(position).any(|entry| join.admits(entry)))
    }

    fn position_before_last(&self, join: &Join<'_>, count: usize) -> u64 {
        let admits = |entry: &Entry| join.admits(entry);
        let mut newest: Vec<u64> = Vec::new();
        for channel in join.channels.iter().filter_map(|key| self.get(*key)) {
            let position = channel.log.position_before_last(count, admits);
            let entries = channel.log.after(position).filter(|e| join.admits(e));
            newest.extend(entries.map(|entry| entry.sequence));
        }
        newest.sort_unstable_by(|a, b| b.cmp(a));
        match newest.get(..count).unwrap_or(&newest) {
            [] => self.sequence,
            [.., oldest] => oldest - 1,
        }
    }

    /// The data of a gap event.
    pub(super) fn gap(
        &self,
        channels: &[ChannelKey],
        requested: &str,
        reason: &str,
        hub: &Hub,
    ) -> String {
        let logs = || channels.iter().filter_map(|key| Some(&self.get(*key)?.log));
        let id_of = |entry: &Entry| match entry.own_id() {
            Some(own) => own.to_owned(),
            None => hub.id_of(entry.sequence).to_string(),
        };
        let oldest = logs().filter_map(|l| l.oldest()).min_by_key(|e| e.sequence);
        let newest = logs().filter_map(|l| l.newest()).max_by_key(|e| e.sequence);
        json!({
            "requested": requested,
            "oldest": oldest.map(id_of),
            "newest": newest.map_or_else(|| hub.id_of(self.sequence).to_string(), id_of),
            "reason": reason,
        })
        .to_string()
    }

    /// Makes the client a member everywhere; one of the same id makes room.
    fn admit(&mut self, mut join: Join<'_>, joined: &mut Joined, hub: &Hub) -> Wake {
        let now_ms = hub.clock.now_ms();
        let mut wake = Wake::default();
        self.totals.gaps += u64::from(joined.gap.is_some());
        for (key, seat) in join.channels.iter().zip(&mut joined.seats) {
            let reason = DisconnectReason::Replaced;
            if let Some(woken) = self.evict(*key, &join.id, reason, now_ms, &hub.clock) {
                wake.merge(woken);
            }
            // All memberships know the metadata, the first one whom to tell.
            let metadata = join.extra.as_ref().map(|extra| extra.metadata.clone());
            let others = metadata.map(|metadata| {
                Box::new(Extra {
                    metadata,
                    on_disconnect: None,
                })
            });
            let extra = std::mem::replace(&mut join.extra, others);
            let member = Member::new(join.id.clone(), join.place, join.address, now_ms, extra);
            let Some(channel) = self.get_mut(*key) else {
                continue;
            };
            seat.slot = channel.members.insert(member);
            channel.gaps += u64::from(joined.gap.is_some());
            let is_named = !channel.name.is_empty();
            let reach = channel.reach_mut(join.place.reactor);
            reach.sent_through = match reach.members {
                0 => joined.seen,
                _ => reach.sent_through.min(joined.seen),
            };
            reach.members += 1;
            self.clients += usize::from(is_named);
        }
        wake
    }
}
