//! What the hub's lock protects: all channels, their names and their reactors, and
//! the steps that keep them whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use super::audience::Audience;
use super::channel_state::{ChannelState, Kind, Life};
use super::client::{ClientId, DisconnectReason, Member};
use super::clock::Clock;
use super::dropped::Dropped;
use super::ends::Ends;
use super::entry::Entry;
use super::for_all::ForAll;
use super::heads::{Absent, Heads};
use super::id::EventId;
use super::idempotency::{Keys, no_keys};
use super::key::ChannelKey;
use super::log::Log;
use super::looks::{LOOKS_MAX, looked_at};
use super::members::Freed;
use super::memory::Memory;
use super::options::ChannelOptions;
use super::reactors::{Departure, DisconnectCall, Reactors, Wake};
use super::ready::Numbered;
use super::remembered::{ALL, Remembered, key_of};
use super::unpublished::Unpublished;
use crate::journal::terms::Terms;

/// Slots of a channel whose members are disconnected in one locked section. A member that
/// is removed costs as much as several that are looked at.
const REMOVALS_MAX: u32 = 256;

/// Limits and times of the hub as a whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Maximum number of named channels.
    pub(crate) channels_max: usize,
    /// Maximum number of unpublished channels; `None`: a part of all.
    pub(crate) unpublished_max: Option<usize>,
    /// Maximum number of unpublished channels of one source; `None`: a part of all.
    pub(crate) unpublished_per_source_max: Option<usize>,
    /// Maximum bytes of all logs together.
    pub(crate) log_bytes_max: usize,
    /// The time without clients, history and handles after which a channel is removed.
    pub(crate) empty_after: Option<Duration>,
    /// The time after a start without a saved state in which publishers may repeat
    /// events from before it.
    pub(crate) republish_window: Duration,
    /// Whether ids hide the sequence numbers that they stand for.
    pub(crate) opaque_ids: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            channels_max: 1_000_000,
            unpublished_max: None,
            unpublished_per_source_max: None,
            log_bytes_max: usize::MAX,
            empty_after: Some(Duration::from_secs(60)),
            republish_window: Duration::from_secs(60),
            opaque_ids: false,
        }
    }
}

/// A member that was taken out of a channel.
pub(super) struct Left {
    pub(super) member: Member,
    pub(super) disconnect_call: Option<DisconnectCall>,
    /// The memory of the channel's members, if it was the last one.
    #[cfg_attr(not(test), expect(dead_code, reason = "dropped when the lock is open"))]
    freed: Option<Freed>,
    /// What its removal has looked at.
    pub(super) looks: usize,
}

/// What a locked section has taken out of the hub. Its caller drops it, and goes on
/// with the removals, when the lock is open.
pub(super) struct Removed {
    pub(super) entries: Dropped,
    /// The usual case, one member, needs no memory for a list.
    first: Option<Left>,
    rest: Vec<Left>,
    pub(super) channels: Vec<ChannelState>,
    /// Channels whose removal has begun.
    pub(super) closing: Vec<ChannelKey>,
    pub(super) wake: Wake,
}

impl Removed {
    pub(super) fn new() -> Removed {
        Removed {
            entries: Dropped::new(),
            first: None,
            rest: Vec::new(),
            channels: Vec::new(),
            closing: Vec::new(),
            wake: Wake::default(),
        }
    }

    /// Keeps what is to be dropped of a member. Returns the call of its hook.
    pub(super) fn keep(&mut self, mut left: Left) -> Option<DisconnectCall> {
        let disconnect_call = left.disconnect_call.take();
        match self.first {
            None => self.first = Some(left),
            Some(_) => self.rest.push(left),
        }
        disconnect_call
    }
}

/// Sums over all channels, those that are gone included.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) published: u64,
    /// As they go over the wire to one client.
    pub(super) published_bytes: u64,
    pub(super) delivered: u64,
    pub(super) gaps: u64,
    /// Unpublished channels that made room for a publisher's.
    pub(super) displaced: u64,
}

/// Where an event of an own id is or was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) sequence: u64,
    /// Whether it may be the repetition of one from before a restart.
    pub(super) is_doubtful: bool,
    /// The clients that it is for; `None`: all.
    pub(super) audience: Option<&'a Arc<Audience>>,
}

/// See the [module](self).
pub(super) struct State {
    pub(super) settings: Settings,
    /// The last sequence number that was given to an event of a named channel.
    pub(super) sequence: u64,
    /// What is known of channels that have lost their names.
    pub(super) heads: Heads,
    /// The finishes that a log has.
    pub(super) finishes: Ends,
    /// The last removals of names that it has.
    pub(super) removals: Ends,
    /// The ranges of numbers that may be lost.
    pub(super) terms: Terms,
    /// Up to here the log of a cluster is not known, and no node has what was there: any
    /// channel may have had events.
    pub(super) unknown_through: u64,
    /// Whether the log is that of a cluster: a loss is said to the channels concerned.
    pub(super) is_node: bool,
    pub(super) for_all: ForAll,
    /// The own ids of publishers.
    pub(super) remembered: Remembered,
    /// The idempotency keys of publishers.
    pub(super) keys: Keys,
    generations: u32,
    channels: Slab<ChannelState>,
    pub(super) names: HashMap<Arc<str>, ChannelKey>,
    pub(super) reactors: Reactors,
    /// Clients of named channels, a merged stream once for each of them.
    pub(super) clients: usize,
    pub(super) totals: Totals,
    pub(super) memory: Memory,
    pub(super) unpublished: Unpublished,
    /// The slot that was swept last.
    pub(super) swept: usize,
}

impl State {
    pub(super) fn new(settings: Settings) -> State {
        State {
            settings,
            sequence: 0,
            heads: Heads::new(0, settings.log_bytes_max),
            finishes: Ends::new(),
            removals: Ends::new(),
            for_all: ForAll::new(),
            remembered: Remembered::default(),
            keys: no_keys(),
            terms: Terms::default(),
            unknown_through: 0,
            is_node: false,
            generations: 0,
            channels: Slab::new(),
            names: HashMap::new(),
            reactors: Reactors::default(),
            clients: 0,
            totals: Totals::default(),
            memory: Memory::new(settings.log_bytes_max),
            unpublished: Unpublished::new(
                settings.channels_max,
                settings.unpublished_max,
                settings.unpublished_per_source_max,
            ),
            swept: 0,
        }
    }

    #[inline]
    pub(super) fn get(&self, key: ChannelKey) -> Option<&ChannelState> {
        let channel = self.channels.get(key.slot as usize);
        channel.filter(|channel| channel.generation == key.generation)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: ChannelKey) -> Option<&mut ChannelState> {
        let channel = self.channels.get_mut(key.slot as usize);
        channel.filter(|channel| channel.generation == key.generation)
    }

    /// Returns the channel of a slot, if there is one.
    pub(super) fn at(&self, slot: usize) -> Option<(ChannelKey, &ChannelState)> {
        looked_at(1);
        let channel = self.channels.get(slot)?;
        let key = ChannelKey {
            slot: u32::try_from(slot).expect("fewer channels than 2^32"),
            generation: channel.generation,
        };
        Some((key, channel))
    }

    /// Returns one more than the highest slot that may be in use.
    pub(super) fn slots_end(&self) -> usize {
        self.channels.capacity()
    }

    /// Makes a channel.
    pub(super) fn insert(
        &mut self,
        kind: Kind,
        options: Arc<ChannelOptions>,
        now_ms: u64,
    ) -> ChannelKey {
        let (past, name) = match &kind {
            Kind::Named(name) => {
                self.for_all.note_options(&options);
                let past = self.take_head(name);
                self.note_absent(name, past);
                (past, Some(name.clone()))
            }
            Kind::Private(_) => (0, None),
        };
        self.generations = self.generations.wrapping_add(1);
        let generation = self.generations;
        let channel = ChannelState::new(generation, kind, options, Log::new(past), now_ms);
        let slot = self.channels.insert(channel);
        let slot = u32::try_from(slot).expect("fewer channels than 2^32");
        let key = ChannelKey { slot, generation };
        if let Some(name) = name {
            self.names.insert(name, key);
            self.note_unknown_past(key);
        }
        key
    }

    /// Notes behind which number a channel began that was just made: a process had it before
    /// there was a record of it. It may have had events for all channels that are not kept.
    pub(super) fn note_began(&mut self, key: ChannelKey, after: u64) {
        if let Some(channel) = self.get_mut(key)
            && channel.log.note_began(after)
            && channel.options.conflates()
        {
            channel.log.keyed_mut().restore_missing(Vec::new(), true);
        }
    }

    /// Notes of a channel that was just made that it may have had events that are not known,
    /// unless it has a later past.
    pub(super) fn note_unknown_past(&mut self, key: ChannelKey) {
        let is_unknown = |channel: &ChannelState| channel.log.head() <= self.unknown_through;
        if self.get(key).is_some_and(is_unknown) {
            self.note_began(key, 0);
        }
    }

    /// Notes the time of the block that is applied.
    pub(super) fn begin_block(&mut self, wall_ms: u64) {
        self.remembered.begin_block(wall_ms);
        self.keys.begin_block(wall_ms);
    }

    // ---- logs ----

    /// Returns the next number of the sequence that orders the events of all named
    /// channels.
    #[inline]
    pub(super) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Places an entry in a channel, which must be there. The caller has given the
    /// entry its number, which is higher than any in the channel. Returns its id.
    /// Inlined so that the entry is not copied on its way.
    #[inline(always)]
    pub(super) fn place(
        &mut self,
        key: ChannelKey,
        numbered: Numbered,
        dropped: &mut Dropped,
    ) -> EventId {
        let Numbered {
            mut entry,
            id,
            removes,
        } = numbered;
        let channel = self.channels.get_mut(key.slot as usize);
        let channel = channel.filter(|channel| channel.generation == key.generation);
        let channel = channel.expect("the caller has found it");
        let (at_ms, bytes) = (entry.at_ms, entry.frame.len() as u64);
        if let Some(mut attributes) = entry.attributes.take() {
            let conflates = channel.options.conflates();
            // A removal is not part of the keyed state.
            if (removes || !conflates)
                && let Some(key) = attributes.key.take()
                && conflates
            {
                channel
                    .log
                    .remove_key(key, attributes.audience.clone(), dropped);
            }
            entry.attributes = Some(attributes).filter(|attributes| !attributes.is_empty());
            remember(&mut self.remembered, channel, &entry);
        }
        channel.log.append(entry, dropped);
        channel.counts.published += 1;
        channel.trim(at_ms, dropped);
        let is_named = channel.name().is_some();
        let (log, counted) = (&channel.log, &mut channel.counted);
        self.memory.note_appended(key.slot, is_named, log, counted);
        self.totals.published += 1;
        self.totals.published_bytes += bytes;
        id
    }

    /// Returns the own id that was published to a channel last, with its number, if it is
    /// remembered or the log holds its event.
    pub(super) fn newest_own_id<'a>(
        &'a self,
        channel: &'a ChannelState,
    ) -> Option<(&'a Arc<str>, u64)> {
        let newest = channel.log.own_ids().newest();
        newest.filter(|(id, _)| self.places_of(channel, id).next().is_some())
    }

    /// Returns the events of an own id that a channel has or had: the number of each,
    /// whether it may be from before a restart, and the clients that it is for.
    pub(super) fn places_of<'a>(
        &'a self,
        channel: &'a ChannelState,
        id: &'a str,
    ) -> impl Iterator<Item = Place<'a>> {
        let held = channel.log.event_of(id).map(|entry| Place {
            sequence: entry.sequence,
            is_doubtful: entry.has_doubtful_id(),
            audience: entry.audience(),
        });
        let scopes = [channel.scope(), ALL].into_iter();
        let records = scopes.filter_map(|scope| self.remembered.get(scope, id));
        let remembered = records.map(|record| Place {
            sequence: record.sequence,
            is_doubtful: record.is_doubtful,
            audience: record.audience.as_ref(),
        });
        held.into_iter().chain(remembered)
    }

    /// Counts what a channel's log holds now.
    pub(super) fn settle(&mut self, key: ChannelKey) {
        let channel = self.channels.get_mut(key.slot as usize);
        if let Some(channel) = channel.filter(|channel| channel.generation == key.generation) {
            self.memory
                .settle(key.slot, &channel.log, &mut channel.counted);
        }
    }

    /// Counts a log that has taken the place of another one.
    pub(super) fn note_replaced(&mut self, key: ChannelKey) {
        if let Some(channel) = self.channels.get_mut(key.slot as usize) {
            let (log, counted) = (&channel.log, &mut channel.counted);
            self.memory.note_replaced(key.slot, log, counted);
        }
    }

    /// Does the same after an append.
    #[inline]
    pub(super) fn note_appended(&mut self, key: ChannelKey) {
        if let Some(channel) = self.channels.get_mut(key.slot as usize) {
            let is_named = channel.name().is_some();
            let (log, counted) = (&channel.log, &mut channel.counted);
            self.memory.note_appended(key.slot, is_named, log, counted);
        }
    }

    /// Evicts the entries that a channel need not keep any longer. Returns whether
    /// there are more than `dropped` had room for.
    pub(super) fn trim(&mut self, key: ChannelKey, now_ms: u64, dropped: &mut Dropped) -> bool {
        let channel = self.channels.get_mut(key.slot as usize);
        let Some(channel) = channel.filter(|channel| channel.generation == key.generation) else {
            return false;
        };
        let has_more = channel.trim(now_ms, dropped);
        self.memory
            .settle(key.slot, &channel.log, &mut channel.counted);
        has_more
    }

    /// Puts a channel on the lists of all reactors that have members of it.
    #[inline(always)]
    pub(super) fn mark_dirty(&mut self, key: ChannelKey, now_us: u64) -> Wake {
        match self.channels.get_mut(key.slot as usize) {
            Some(channel) => self.reactors.mark_dirty(key, &mut channel.progress, now_us),
            None => Wake::default(),
        }
    }

    /// Has all reactors that have members of a channel look at its options.
    pub(super) fn mark_changed(&mut self, key: ChannelKey) -> Wake {
        match self.channels.get_mut(key.slot as usize) {
            Some(channel) => self.reactors.mark_changed(key, &mut channel.progress),
            None => Wake::default(),
        }
    }

    /// Notes that a publisher has published to a channel, or has finished it.
    #[inline]
    pub(super) fn note_published(&mut self, key: ChannelKey) {
        if self.unpublished.contains(key.slot) {
            self.unpublished.remove(key.slot);
            self.release_source(key);
        }
    }

    fn release_source(&mut self, key: ChannelKey) {
        if let Some(channel) = self.channels.get_mut(key.slot as usize) {
            self.unpublished.release(&mut channel.source);
        }
    }

    /// Counts a channel for the source of a subscription.
    pub(super) fn charge_source(&mut self, key: ChannelKey, source: Option<u64>) {
        if let Some(channel) = self.channels.get_mut(key.slot as usize) {
            self.unpublished.charge(&mut channel.source, source);
        }
    }

    // ---- removal ----

    /// Begins to remove a channel: from now on nothing finds it but the reactors of
    /// its clients, which are still to be [disconnected](Self::disconnect_some).
    pub(super) fn start_removal(&mut self, key: ChannelKey, reason: DisconnectReason) {
        self.free_name(key);
        let Some(channel) = self.get_mut(key) else {
            return;
        };
        channel.life = Life::Closing;
        if let Kind::Private(room) = &channel.kind {
            room.end(reason);
        }
        self.memory.exempt(key.slot);
        self.unpublished.remove(key.slot);
        self.release_source(key);
    }

    /// Takes the channel's name from it, if it still has one.
    pub(super) fn free_name(&mut self, key: ChannelKey) {
        let Some(channel) = self.get(key) else {
            return;
        };
        if let Some(name) = channel.current_name() {
            let (name, head) = (name.clone(), channel.log.head());
            self.names.remove(&name);
            self.note_absent(&name, head);
            self.keep_head(name, head);
        }
    }

    /// Remembers the head of a channel that loses its name.
    pub(super) fn keep_head(&mut self, name: Arc<str>, head: u64) {
        self.heads.insert(name, head);
        self.memory.count_heads(self.heads.bytes());
    }

    /// Returns up to where a channel that is made under this name may have had a past, and
    /// forgets it.
    pub(super) fn take_head(&mut self, name: &str) -> u64 {
        let head = self.heads.take(name);
        self.memory.count_heads(self.heads.bytes());
        head
    }

    /// Notes that a name has no channel now, for a copy.
    pub(super) fn note_absent(&mut self, name: &Arc<str>, head: u64) {
        let through = self.sequence;
        self.heads.note_absent(name, Absent { through, head });
    }

    /// Disconnects some of the clients of a channel that is being removed, from
    /// `slot` on. Returns where to continue, or `None` when the channel is removed.
    pub(super) fn disconnect_some(
        &mut self,
        key: ChannelKey,
        slot: u32,
        reason: DisconnectReason,
        now: (u64, &Clock),
        removed: &mut Removed,
    ) -> Option<u32> {
        let end = self
            .get(key)
            .map_or(0, |channel| channel.members.slots_end());
        let slice = slot..end.min(slot.saturating_add(REMOVALS_MAX));
        let next = slice.end;
        let mut looks = 0;
        for slot in slice {
            looked_at(1);
            if let Some((left, channel)) = self.remove_member(key, slot, reason, now) {
                looks += left.looks;
                self.depart(left, reason, removed);
                if channel.is_some() {
                    removed.channels.extend(channel);
                    return None;
                }
            }
            if looks > LOOKS_MAX {
                return Some(slot + 1);
            }
        }
        if next < end {
            return Some(next);
        }
        removed.channels.extend(self.take(key));
        None
    }

    /// Takes out a channel that has no clients. The caller gives it to
    /// [`drop_channels`] when the lock is open.
    fn take(&mut self, key: ChannelKey) -> Option<ChannelState> {
        let channel = self.get(key)?;
        debug_assert!(channel.members.is_empty(), "its clients are disconnected");
        self.memory.forget(channel.counted);
        Some(self.channels.remove(key.slot as usize))
    }

    /// Removes a channel that has no clients.
    pub(super) fn remove_empty(
        &mut self,
        key: ChannelKey,
        reason: DisconnectReason,
    ) -> Option<ChannelState> {
        self.start_removal(key, reason);
        self.take(key)
    }

    /// Takes a member out, for `reason`. Returns it as it was, and the channel if that
    /// is removed with it: the caller gives it to [`drop_channels`]. The backlog of
    /// the member stays until the next [`trim`](Self::trim), because another member
    /// may be about to need it.
    pub(super) fn remove_member(
        &mut self,
        key: ChannelKey,
        slot: u32,
        reason: DisconnectReason,
        (now_ms, clock): (u64, &Clock),
    ) -> Option<(Left, Option<ChannelState>)> {
        let channel = self.get_mut(key)?;
        let (mut member, freed) = channel.remove_member(slot, now_ms)?;
        let disconnect_call = channel.disconnect_call(&mut member, clock);
        let counted = disconnect_call.as_ref().map_or(0, |call| call.info.behind);
        let looks = 1 + counted.min(channel.log.keyed().len()).min(LOOKS_MAX);
        let is_named = channel.name().is_some();
        let is_empty = channel.members.is_empty();
        let is_last = is_empty && channel.ends_with_last_member();
        self.clients -= usize::from(is_named);
        if is_empty {
            self.release_source(key);
        }
        let removed = match is_last {
            true => self.remove_empty(key, reason),
            false => None,
        };
        let left = Left {
            member,
            disconnect_call,
            freed,
            looks,
        };
        Some((left, removed))
    }

    /// Takes the client of this id out of a channel and hands it to its reactor. Returns
    /// whether it was there.
    pub(super) fn disconnect(
        &mut self,
        key: ChannelKey,
        id: &ClientId,
        reason: DisconnectReason,
        now: (u64, &Clock),
        removed: &mut Removed,
    ) -> bool {
        let slot = self.get(key).and_then(|channel| channel.members.find(id));
        let left = slot.and_then(|slot| self.remove_member(key, slot, reason, now));
        let Some((left, channel)) = left else {
            return false;
        };
        self.depart(left, reason, removed);
        removed.channels.extend(channel);
        true
    }

    /// Hands a client that is no member any longer to its reactor.
    fn depart(&mut self, left: Left, reason: DisconnectReason, removed: &mut Removed) {
        let (token, reactor) = (left.member.token, left.member.reactor);
        let departure = Departure {
            token,
            reason,
            disconnect_call: removed.keep(left),
        };
        removed.wake.merge(self.reactors.depart(reactor, departure));
    }
}

/// Frees channels that were removed, whose logs may be large, and wakes the sinks that
/// wait for room in them. The lock is open.
pub(super) fn drop_channels(removed: impl IntoIterator<Item = ChannelState>) {
    for channel in removed {
        if let Kind::Private(room) = &channel.kind {
            room.notify();
        }
    }
}

/// Remembers the own id of an entry of a named channel, if it has one.
#[inline(never)]
fn remember(remembered: &mut Remembered, channel: &ChannelState, entry: &Entry) {
    if let Some((id, record)) = entry.record()
        && let Some(name) = channel.name()
    {
        remembered.insert(key_of(name, &id), record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::client::ConnectionId;

    fn state() -> State {
        let mut state = State::new(Settings::default());
        state.reactors.attach(1).unwrap();
        state
    }

    fn open(state: &mut State, name: &str) -> ChannelKey {
        let options = Arc::new(ChannelOptions::new());
        state.insert(Kind::Named(name.into()), options, 0)
    }

    fn join(state: &mut State, key: ChannelKey, token: u64) -> u32 {
        let connection = ConnectionId { token, reactor: 0 };
        let address = "127.0.0.1:9".parse().unwrap();
        let id = ClientId::lookup(&token.to_string());
        let channel = state.get_mut(key).unwrap();
        channel.progress_mut(0).members += 1;
        let slot = channel
            .members
            .insert(Member::new(id, connection, address, 0, None));
        state.clients += 1;
        slot
    }

    #[test]
    fn an_entry_is_placed_under_the_number_that_it_has() {
        use crate::event::Event;
        use crate::hub::id::Epoch;
        use crate::hub::ids::Ids;
        use crate::hub::numbering::Numbering;
        use crate::hub::ready::Ready;

        let ids = Ids::new(Epoch::from_random(7), Numbering::new(None));
        let mut state = state();
        let options = ChannelOptions::new().history(crate::History::events(2));
        let key = state.insert(Kind::Named("a".into()), Arc::new(options), 0);
        let mut dropped = Dropped::new();
        for sequence in [3, 1_000, 1_001] {
            let ready = Ready::encode(&Event::message("x"), None, &ids).unwrap();
            let numbered = ready.numbered(&ids, sequence, 5, false);
            assert_eq!(
                state.place(key, numbered, &mut dropped),
                ids.id_of(sequence)
            );
        }
        let log = &state.get(key).unwrap().log;
        let numbers: Vec<u64> = log.after(0).map(|entry| entry.sequence).collect();
        assert_eq!(
            (&numbers[..], log.evicted_through()),
            (&[1_000, 1_001][..], 3)
        );
        assert_eq!((state.sequence, state.totals.published), (0, 3));
    }

    #[test]
    fn a_slot_of_another_generation_is_another_channel() {
        let mut state = state();
        let first = open(&mut state, "a");
        assert!(
            state
                .remove_empty(first, DisconnectReason::ChannelClosed)
                .is_some()
        );
        let second = open(&mut state, "a");
        assert_eq!(first.slot, second.slot);
        assert!(state.get(first).is_none() && state.get(second).is_some());
        assert_eq!(state.names.get("a"), Some(&second));
        assert!(
            state
                .remove_empty(first, DisconnectReason::ChannelClosed)
                .is_none()
        );
    }

    #[test]
    fn a_channel_that_is_being_removed_has_no_name_and_goes_with_its_last_member() {
        let (mut state, clock) = (state(), Clock::system());
        let key = open(&mut state, "a");
        for token in 0..3 {
            join(&mut state, key, token);
        }
        let reason = DisconnectReason::ChannelClosed;
        state.start_removal(key, reason);
        assert!(state.names.is_empty() && state.get(key).is_some());
        let mut removed = Removed::new();
        let next = state.disconnect_some(key, 0, reason, (0, &clock), &mut removed);
        assert!(next.is_none() && removed.wake.contains(0));
        let left: Vec<&Left> = removed.first.iter().chain(&removed.rest).collect();
        let freed = left.iter().filter(|left| left.freed.is_some());
        let counts = [removed.channels.len(), left.len(), freed.count()];
        assert_eq!(counts, [1, 3, 1], "it is dropped when the lock is open");
        assert_eq!((state.clients, state.get(key).is_none()), (0, true));
        assert!(state.reactors.has_departures(0));
    }

    #[test]
    fn a_member_that_leaves_an_open_channel_leaves_the_channel() {
        let (mut state, clock) = (state(), Clock::system());
        let key = open(&mut state, "a");
        let slot = join(&mut state, key, 1);
        let reason = DisconnectReason::Gone;
        let left = state.remove_member(key, slot, reason, (5, &clock));
        let (left, removed) = left.unwrap();
        assert_eq!((left.member.token, removed.is_none()), (1, true));
        assert_eq!(
            state.get(key).map(|channel| channel.empty_since_ms),
            Some(5)
        );
        assert!(
            state
                .remove_member(key, slot, reason, (6, &clock))
                .is_none()
        );
    }
}
