//! Subscribing: from a request to a cursor, and out again.

use std::net::SocketAddr;
use std::sync::Arc;

use super::audience::Audience;
use super::client::{ClientId, ConnectionId, DisconnectReason, Extra, Member};
use super::gap::{Gap, GapReason};
use super::id::{EventId, Parsed};
use super::log::{Entry, Log};
use super::looks::{LOOKS_MAX, Looks};
use super::merge;
use super::options::ChannelOptions;
use super::reading::state_after;
use super::state::{ChannelReader, ChannelState, Kind, Life, MemberKey, Removed, State};
use super::{ChannelKey, DisconnectCall, Hub, Wake};

/// Where a stream begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With what is published from now on. The default.
    #[default]
    Live,
    /// After the event of this id. If events are missing, the stream begins with
    /// a `pushwheel.gap` event.
    After(String),
    /// With the first event that the channel ever had. If the history no longer
    /// holds it, the stream begins with a `pushwheel.gap` event, then the
    /// oldest event that the history holds. A channel that was removed and made
    /// again begins with its first event since then.
    Earliest,
    /// With the last so many events of the history, at most [`LAST_MAX`].
    /// Events for other clients do not count; at most the newest 16,384 entries
    /// of the channels are looked at.
    Last(usize),
}

/// The most events that [`Start::Last`] begins with.
pub const LAST_MAX: usize = 1_000;

/// Who wants to join which channels.
pub(crate) struct Join<'a> {
    pub(crate) channels: &'a [ChannelKey],
    pub(crate) id: ClientId,
    /// Whether the engine generated the id, so that the client comes back under
    /// another one.
    pub(crate) has_generated_id: bool,
    pub(crate) connection: ConnectionId,
    pub(crate) address: SocketAddr,
    pub(crate) extra: Option<Box<Extra>>,
    pub(crate) start: &'a Start,
}

impl Join<'_> {
    /// Whether an entry is for this client.
    fn admits(&self, entry: &Entry) -> bool {
        self.is_of(entry.audience())
    }

    /// Whether this client is one of an audience.
    fn is_of(&self, audience: Option<&Arc<Audience>>) -> bool {
        let metadata = self.extra.as_ref().map(|extra| &*extra.metadata);
        audience.is_none_or(|audience| audience.admits(&self.id, metadata))
    }
}

/// A place in each of the channels, and where to begin.
#[derive(Debug)]
pub(crate) struct Joined {
    /// One for each channel, in the order asked for.
    pub(crate) readers: Vec<ChannelReader>,
    /// Everything up to here counts as seen.
    pub(crate) seen: u64,
    /// The newest sequence number at that moment.
    pub(crate) now: u64,
    /// The newest entry in any of the channels. At `seen` or below: the
    /// client is caught up from the start.
    pub(crate) head: u64,
    /// What holds for the stream of all the channels.
    pub(crate) options: Arc<ChannelOptions>,
    /// Up to here, the client is sent only keyed events.
    pub(crate) keyed_through: u64,
    /// Whether one of the channels conflates.
    pub(crate) conflates: bool,
    /// Whether the channels are finished: the stream ends with what they hold.
    pub(crate) is_finished: bool,
    /// Whether the channel is private: the stream is for one client.
    pub(crate) is_private: bool,
    /// Whether the stream is compressed for a client that takes gzip.
    pub(crate) compresses: bool,
    /// The gap event with which the stream has to begin.
    pub(crate) gap: Option<Gap>,
    /// Whether the client holds no id that says where the stream begins.
    pub(crate) needs_id: bool,
    /// The id that says where the stream begins, if there is one.
    pub(crate) opening_id: Option<EventId>,
    /// Whether the last event of the replay may have a doubtful own id. A client
    /// that reconnects with that id receives a gap, although it misses nothing.
    pub(crate) ends_doubtfully: bool,
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
        let before_last = self.position_before_last(&join);
        let mut state = self.lock();
        let mut joined = state.receive(&join, before_last, self)?;
        let wake = state.admit(join, &mut joined, self);
        drop(state);
        self.wake(wake);
        Ok(joined)
    }

    /// Returns where a client would begin, without making it a member.
    pub(crate) fn could_join(&self, join: &Join<'_>) -> Result<Joined, JoinError> {
        let before_last = self.position_before_last(join);
        self.lock().receive(join, before_last, self)
    }

    /// Returns where a reader begins that is not a client.
    pub(super) fn start_of(&self, join: &Join<'_>) -> Joined {
        let before_last = self.position_before_last(join);
        self.lock().reader(join, before_last, self)
    }

    /// Finds the position before the last events that a client asks for, with the
    /// lock open between two steps. The client is sent what is published meanwhile
    /// too.
    fn position_before_last(&self, join: &Join<'_>) -> Option<u64> {
        let Start::Last(count) = join.start else {
            return None;
        };
        let mut look_back = merge::LookBack::new((*count).min(LAST_MAX));
        loop {
            let state = self.lock();
            let channels = join.channels.iter().filter_map(|key| state.get(*key));
            let logs = channels.map(|channel| &channel.log);
            let has_more = look_back.step(logs, |entry| join.admits(entry));
            let newest = state.sequence;
            drop(state);
            if !has_more {
                return look_back.position().or(Some(newest));
            }
            self.give_way();
        }
    }

    /// Takes a client out of its channels, unless that was done already.
    /// Returns the hook that is to be called for it, if it has one.
    pub(crate) fn leave(
        &self,
        member_keys: &[MemberKey],
        connection: ConnectionId,
        reason: DisconnectReason,
    ) -> Option<DisconnectCall> {
        let now_ms = self.clock.now_ms();
        let (mut told, mut unfinished) = (None, Vec::new());
        let mut removed = Removed::new();
        let mut state = self.lock();
        for MemberKey { channel: key, slot } in member_keys {
            let member = state
                .get(*key)
                .and_then(|channel| channel.members.get(*slot));
            if member.is_none_or(|member| member.connection() != connection) {
                continue;
            }
            if let Some((left, channel)) = state.remove_member(*key, *slot, reason, &self.clock) {
                told = told.or(left.disconnect_call);
                removed.channels.extend(channel);
                if state.trim(*key, now_ms, &mut removed.entries) {
                    unfinished.push(*key);
                }
            }
        }
        drop(state);
        self.finish_removals(removed);
        self.finish_trims(unfinished, now_ms);
        told
    }
}

impl Hub {
    /// Takes all clients of a reactor out of their channels, and calls
    /// `told` with the hooks of those that have one, with nothing locked.
    pub(crate) fn leave_all(
        &self,
        reactor: u16,
        reason: DisconnectReason,
        mut told: impl FnMut(DisconnectCall),
    ) {
        let mut next = (0, 0);
        loop {
            let now_ms = self.clock.now_ms();
            let (mut disconnect_calls, mut removed) = (Vec::new(), Removed::new());
            let mut state = self.lock();
            for _ in 0..LOOKS_MAX {
                if removed.entries.room() == 0 {
                    break;
                }
                let (slot, member_slot) = next;
                let Some((key, channel)) = state.at(slot) else {
                    next = (slot + 1, 0);
                    continue;
                };
                if channel.members_of(reactor) == 0 || member_slot >= channel.members.slots_end() {
                    next = (slot + 1, 0);
                    continue;
                }
                next = (slot, member_slot + 1);
                let member = channel.members.get(member_slot);
                if member.is_some_and(|member| member.reactor == reactor)
                    && let Some((left, channel)) =
                        state.remove_member(key, member_slot, reason, &self.clock)
                {
                    disconnect_calls.extend(left.disconnect_call);
                    removed.channels.extend(channel);
                    // What there is no room for goes with the next sweep.
                    state.trim(key, now_ms, &mut removed.entries);
                }
            }
            let is_done = next.0 >= state.channels_capacity();
            drop(state);
            self.finish_removals(removed);
            disconnect_calls.into_iter().for_each(&mut told);
            if is_done {
                return;
            }
        }
    }
}

impl State {
    /// Finds whether there is a connection, and where the stream begins.
    fn receive(
        &self,
        join: &Join<'_>,
        before_last: Option<u64>,
        hub: &Hub,
    ) -> Result<Joined, JoinError> {
        let (mut is_finished, mut is_full) = (true, false);
        for key in join.channels {
            let channel = self.get(*key).filter(|channel| !channel.life.is_over());
            let channel = channel.ok_or(JoinError::Closed)?;
            let replaces = channel.members.find(&join.id).is_some();
            is_full |= channel.members.len() >= channel.options.clients_max && !replaces;
            is_finished &= matches!(channel.life, Life::Finishing(_));
        }
        let mut joined = self.reader(join, before_last, hub);
        // A client that was cut off just before the end is owed the end.
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
    fn reader(&self, join: &Join<'_>, before_last: Option<u64>, hub: &Hub) -> Joined {
        let channels = || join.channels.iter().filter_map(|key| self.get(*key));
        let evicted = || channels().map(|channel| channel.log.evicted());
        // The history that the logs hold comes after this, and their keyed state
        // after that.
        let history_after = evicted().map(|evicted| evicted.history).min().unwrap_or(0);
        let state_after = state_after(channels());
        let tail = state_after.map_or(history_after, |after| after.min(history_after));
        let mut joined = Joined {
            readers: evicted()
                .map(|forgiven| ChannelReader { slot: 0, forgiven })
                .collect(),
            seen: self.sequence,
            now: self.sequence,
            head: channels()
                .map(|channel| channel.log.head())
                .max()
                .unwrap_or(0),
            options: ChannelOptions::of_all(channels().map(|channel| &channel.options)),
            keyed_through: 0,
            conflates: state_after.is_some(),
            is_finished: false,
            is_private: channels().any(|channel| channel.name().is_none()),
            compresses: channels().all(|channel| channel.options.compress_from.is_some()),
            gap: None,
            needs_id: true,
            opening_id: None,
            ends_doubtfully: false,
        };
        let asked = match join.start {
            Start::Live => {
                if let Some(after) = state_after {
                    joined.seen = after;
                    joined.keyed_through = self.sequence;
                }
                let is_complete = |c: &ChannelState| c.log.keyed().is_complete();
                let is_missing = !channels().all(is_complete);
                is_missing.then_some((None, self.sequence, GapReason::Evicted))
            }
            Start::Earliest => {
                joined.seen = tail;
                let is_trimmed = channels().any(|channel| channel.log.is_trimmed());
                is_trimmed.then_some((Some("earliest"), 0, GapReason::Evicted))
            }
            Start::Last(_) => {
                // Some of what was found may have been evicted meanwhile.
                let position = before_last.unwrap_or(self.sequence);
                joined.seen = position.max(tail);
                None
            }
            Start::After(id) => match self.resolve(id, join, hub) {
                Ok(position) => {
                    joined.seen = position;
                    joined.needs_id = false;
                    let is_evicted = evicted().any(|e| e.is_loss(position, position));
                    let is_uncertain = || {
                        let admits = |entry: &Entry| join.admits(entry);
                        let is_generated = join.has_generated_id;
                        let mut looks = Looks::new(LOOKS_MAX);
                        channels().any(|channel| {
                            let log = &channel.log;
                            log.may_have_meant(position, &mut looks, is_generated, admits)
                        })
                    };
                    if is_evicted {
                        Some((Some(&**id), position, GapReason::Evicted))
                    } else if is_uncertain() {
                        Some((Some(&**id), position, GapReason::Audience))
                    } else {
                        None
                    }
                }
                Err(reason) => Some((Some(&**id), 0, reason)),
            },
        };
        if let Some((requested, position, reason)) = asked {
            joined.seen = position.max(history_after);
            if let Some(after) = state_after {
                // The gap is followed by the whole state, but not by what the
                // client has seen of the history.
                joined.keyed_through = position;
                joined.seen = joined.seen.min(after);
            }
            joined.needs_id = true;
            if !self.has_after(join, joined.seen) {
                // So that a client that comes back with the gap's id does not
                // receive the gap again.
                joined.seen = self.sequence;
            }
            let admits = |entry: &Entry| join.admits(entry);
            joined.gap = Some(self.gap(join.channels, requested, reason, admits, hub));
        }
        joined.opening_id = self.opening_id(join, joined.seen, hub);
        joined.ends_doubtfully = self.ends_doubtfully(join, &joined, hub);
        joined
    }

    /// Returns the position that an id names, or the reason why it names none.
    /// Events that are not for this client do not count. An id that events of
    /// several channels have names the first of them: too much is sent again
    /// rather than too little.
    fn resolve(&self, id: &str, join: &Join<'_>, hub: &Hub) -> Result<u64, GapReason> {
        match hub.parse_id(id) {
            Parsed::Ours(sequence) if sequence <= self.sequence => return Ok(sequence),
            Parsed::Ours(_) => return Err(GapReason::Unknown),
            Parsed::Foreign | Parsed::Unknown => {}
        }
        // Some clients send a header in Latin-1, and some servers read it so.
        let latin1: Option<String> = (!id.is_ascii()).then(|| id.bytes().map(char::from).collect());
        let logs = || {
            join.channels
                .iter()
                .filter_map(|key| Some(&self.get(*key)?.log))
        };
        for text in [Some(id), latin1.as_deref()].into_iter().flatten() {
            let places = logs().filter_map(|log| log.remembered().get(text));
            let mut places = places.filter(|place| join.is_of(place.audience.as_ref()));
            let Some(mut first) = places.next() else {
                continue;
            };
            let mut is_doubtful = first.is_doubtful;
            for place in places {
                is_doubtful |= place.is_doubtful;
                if place.sequence < first.sequence {
                    first = place;
                }
            }
            // The client may have seen the event before the restart, and may
            // have missed others since then.
            return if is_doubtful {
                Err(GapReason::Restart)
            } else {
                Ok(first.sequence)
            };
        }
        match hub.parse_id(id) {
            Parsed::Foreign => Err(GapReason::Restart),
            Parsed::Ours(_) | Parsed::Unknown => Err(GapReason::Unknown),
        }
    }

    /// Returns an id that leads back to `seen`. In channels whose events carry
    /// own ids that is the id of the newest event up to there, or none: a client
    /// of such a channel need not know what the engine's ids are.
    fn opening_id(&self, join: &Join<'_>, seen: u64, hub: &Hub) -> Option<EventId> {
        let logs = || {
            join.channels
                .iter()
                .filter_map(|key| Some(&self.get(*key)?.log))
        };
        let newest = logs().filter_map(|log| log.remembered().newest());
        let newest = newest.max_by_key(|(_, place)| place.sequence);
        let Some((newest, _)) = newest else {
            return Some(hub.id_of(seen));
        };
        let held = logs().filter_map(|log| log.at_or_before(seen));
        let held = held.max_by_key(|entry| entry.sequence);
        let own_id = held.and_then(Entry::own_id).unwrap_or(newest);
        if let Ok(position) = self.resolve(own_id, join, hub)
            && position <= seen
            && held.is_none_or(|entry| entry.sequence <= position)
            && logs().all(|log| log.evicted_through() <= position)
        {
            return Some(EventId::own(own_id.into()));
        }
        // Without an id, a client that is cut off before its first event asks
        // again for what it asked for. That misses nothing, unless it asked for
        // new events only.
        match join.start {
            Start::Earliest | Start::Last(_) => None,
            Start::Live | Start::After(_) => Some(hub.id_of(seen)),
        }
    }

    /// Returns whether the last event that the client is sent before new ones may
    /// have an own id that is doubtful. Looks only at the newest entry: if the
    /// client may not be sent that one, the answer is yes.
    fn ends_doubtfully(&self, join: &Join<'_>, joined: &Joined, hub: &Hub) -> bool {
        let logs = || {
            let channels = join.channels.iter();
            channels.filter_map(|key| Some(&self.get(*key)?.log))
        };
        let replays_doubtful = |log: &Log| log.remembered().doubtful_through() > joined.seen;
        if !logs().any(replays_doubtful) {
            return false;
        }
        let newest = logs().filter_map(|log| log.at_or_before(joined.now));
        let newest = newest.max_by_key(|entry| entry.sequence);
        let is_certain = |entry: &Entry| {
            // A newer event may replace one with a key before it is sent.
            let is_sent = entry.sequence > joined.keyed_through && !entry.has_key();
            let leads_back = |id: &str| self.resolve(id, join, hub).is_ok();
            is_sent && join.admits(entry) && entry.own_id().is_none_or(leads_back)
        };
        !newest.is_some_and(is_certain)
    }

    /// Returns whether the logs hold something for this client after `position`.
    /// Looks at a bounded number of entries; beyond them they may.
    fn has_after(&self, join: &Join<'_>, position: u64) -> bool {
        let mut logs = join
            .channels
            .iter()
            .filter_map(|key| Some(&self.get(*key)?.log));
        let mut looks = Looks::new(LOOKS_MAX);
        logs.any(|log| {
            let mut entries = log.after(position);
            entries.any(|entry| !looks.take() || join.admits(entry))
        })
    }

    /// Returns a gap event. Names only events that `admits` lets the client see,
    /// and looks at a bounded number of them.
    pub(super) fn gap(
        &self,
        channels: &[ChannelKey],
        requested: Option<&str>,
        reason: GapReason,
        admits: impl Fn(&Entry) -> bool,
        hub: &Hub,
    ) -> Gap {
        let logs = || channels.iter().filter_map(|key| Some(&self.get(*key)?.log));
        let [mut oldest_looks, mut newest_looks] = [Looks::new(LOOKS_MAX / 2); 2];
        let oldest = logs().filter_map(|log| {
            let mut entries = log.after(0).take_while(|_| oldest_looks.take());
            entries.find(|entry| admits(entry))
        });
        let newest = logs().filter_map(|log| {
            let mut entries = log
                .newest_first(u64::MAX)
                .take_while(|_| newest_looks.take());
            entries.find(|entry| admits(entry))
        });
        let oldest = oldest.min_by_key(|entry| entry.sequence);
        let newest = newest.max_by_key(|entry| entry.sequence);
        let id_of = |entry: &Entry| hub.id_of_entry(entry);
        Gap {
            requested: requested.map(str::to_owned),
            oldest: oldest.map(id_of),
            newest: newest.map_or_else(|| hub.id_of(self.sequence), id_of),
            reason,
        }
    }

    /// Makes the client a member everywhere; one of the same id makes room.
    fn admit(&mut self, mut join: Join<'_>, joined: &mut Joined, hub: &Hub) -> Wake {
        let now_ms = hub.clock.now_ms();
        let mut wake = Wake::default();
        self.totals.gaps += u64::from(joined.gap.is_some());
        for (key, reader) in join.channels.iter().zip(&mut joined.readers) {
            let reason = DisconnectReason::Replaced;
            // A channel that can be joined is not removed with its last member.
            if let Some((woken, _)) = self.evict(*key, &join.id, reason, &hub.clock) {
                wake.merge(woken);
            }
            // All member_keys know the metadata, the first one whom to tell.
            let metadata = join.extra.as_ref().map(|extra| extra.metadata.clone());
            let others = metadata.map(|metadata| {
                Box::new(Extra {
                    metadata,
                    on_disconnect: None,
                })
            });
            let extra = std::mem::replace(&mut join.extra, others);
            let mut member = Member::new(
                join.id.clone(),
                join.connection,
                join.address,
                now_ms,
                extra,
            );
            member.has_generated_id = join.has_generated_id;
            let Some(channel) = self.get_mut(*key) else {
                continue;
            };
            reader.slot = channel.members.insert(member);
            channel.gaps += u64::from(joined.gap.is_some());
            let is_named = matches!(channel.kind, Kind::Named(_));
            let progress = channel.progress_mut(join.connection.reactor);
            progress.sent_through = match progress.members {
                0 => joined.seen,
                _ => progress.sent_through.min(joined.seen),
            };
            progress.members += 1;
            self.clients += usize::from(is_named);
        }
        wake
    }
}
