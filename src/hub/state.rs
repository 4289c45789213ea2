//! What the hub's lock protects, and the steps that keep it whole.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use slab::Slab;

use super::bounds::Pressure;
use super::channel::Shared;
use super::client::{ClientInfo, DisconnectReason, Member};
use super::clock::Clock;
use super::lists::{List, Lists};
use super::log::{Dropped, Evicted, Log};
use super::looks::{LOOKS_MAX, SLOTS_MAX, looked_at};
use super::members::Members;
use super::options::ChannelOptions;
use super::private::Room;
use super::rate::Bucket;
use super::{ChannelKey, Departure, DisconnectCall, Wake, Work};

/// Limits and times of the hub as a whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// How many named channels there may be.
    pub(crate) channels_max: usize,
    /// The most named channels that subscriptions made and no publisher has
    /// published to; `None` is a part of all.
    pub(crate) unpublished_max: Option<usize>,
    /// The most of these that one source may have; `None` is a part of all.
    pub(crate) unpublished_per_source_max: Option<usize>,
    /// The most bytes of all logs together.
    pub(crate) log_bytes_max: usize,
    /// After how long without clients, history and handles a channel goes.
    pub(crate) empty_after: Option<Duration>,
    /// How long after a start without a saved state publishers may repeat
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

/// One client's slot in one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemberKey {
    pub(crate) channel: ChannelKey,
    pub(crate) slot: u32,
}

/// A reader's place in one channel: its member's slot, and up to where a
/// loss was known, and told, when it began to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChannelReader {
    pub(crate) slot: u32,
    pub(crate) forgiven: Evicted,
}

/// What one reactor has to do with one channel.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// How many of the channel's members it has.
    pub(super) members: u32,
    /// The [number](ReactorState::work_number) of the last work that the channel
    /// is in as dirty; 0 is none.
    dirty_in: u64,
    /// Up to where all of its members have been sent everything.
    pub(super) sent_through: u64,
}

/// A member that was taken out of a channel.
pub(super) struct Left {
    pub(super) member: Member,
    pub(super) disconnect_call: Option<DisconnectCall>,
}

/// A reactor, as the hub sees it.
struct ReactorState {
    /// Whether it will look at its work without being woken.
    is_awake: bool,
    work: Work,
    /// Rises whenever the reactor takes its work. So the marks of all channels in
    /// that work are void at once, however many they are.
    work_number: u64,
}

/// What a channel is for.
pub(super) enum Kind {
    /// Clients subscribe by its name.
    Named(Arc<str>),
    /// It is the stream of one client, and is removed with it.
    Private(Arc<Room>),
}

/// How a channel was finished.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finish {
    /// Its last entry is at or before this. A client that has been sent
    /// everything up to here is done.
    pub(super) through: u64,
    /// Until when it keeps its name, for clients that come back.
    pub(super) until_ms: u64,
}

/// Where a channel is in its life. It only ever goes on to the next stage.
#[derive(Clone, Copy, Debug)]
pub(super) enum Life {
    /// It accepts events.
    Open,
    /// It accepts no more events; clients can subscribe to what it has.
    Finishing(Finish),
    /// Its name is free for another channel, and no client can join. It is
    /// there for the clients that it has, and removed with the last of them.
    Over {
        /// As in [`Finish`].
        through: u64,
    },
    /// It is being removed: its clients are being disconnected, some at a time.
    Closing,
}

impl Life {
    /// The last sequence number that its clients are owed, if it takes no
    /// more events.
    pub(super) fn through(&self) -> Option<u64> {
        match self {
            Life::Open | Life::Closing => None,
            Life::Finishing(finish) => Some(finish.through),
            Life::Over { through } => Some(*through),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Life::Open)
    }

    /// Whether its name is free, and no client can join.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Life::Over { .. } | Life::Closing)
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self, Life::Closing)
    }
}

/// A channel, as the lock protects it.
pub(super) struct ChannelState {
    pub(super) tenant: u32,
    pub(super) kind: Kind,
    pub(super) life: Life,
    pub(super) options: Arc<ChannelOptions>,
    pub(super) log: Log,
    pub(super) members: Members,
    pub(super) progress: Vec<Progress>,
    /// The handles to it.
    pub(super) shared: Weak<Shared>,
    /// Since when nobody was subscribed to it.
    pub(super) lonely_since_ms: u64,
    /// What is left of the rate at which it may be published to.
    pub(super) bucket: Option<Bucket>,
    /// The source of requests that this unpublished channel is counted for.
    pub(super) source: Option<u64>,
    /// What of its log is in `State::log_bytes`.
    pub(super) counted_bytes: usize,
    /// How many evicted keys are counted there.
    pub(super) counted_evictions: u64,
    pub(super) published: u64,
    pub(super) delivered: u64,
    pub(super) gaps: u64,
}

impl ChannelState {
    pub(super) fn needed_after(&self) -> u64 {
        let active = self.progress.iter().filter(|progress| progress.members > 0);
        active
            .map(|progress| progress.sent_through)
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Returns whether there is more to trim than `dropped` had room for.
    pub(super) fn trim(&mut self, now_ms: u64, dropped: &mut Dropped) -> bool {
        let needed_after = self.needed_after();
        let mut bounds = self.options.bounds();
        if !self.life.is_open() || matches!(self.kind, Kind::Private(_)) {
            // What is finished does not grow, and a sink waits for room: nothing
            // is lost to make some.
            bounds.backlog_bytes_max = usize::MAX;
        }
        self.log.trim(&bounds, needed_after, now_ms, dropped)
    }

    /// Returns how many keys were evicted from the log since the last call.
    pub(super) fn newly_evicted_keys(&mut self) -> u64 {
        let count = self.log.keyed().evictions();
        count.saturating_sub(std::mem::replace(&mut self.counted_evictions, count))
    }

    pub(super) fn progress_mut(&mut self, reactor: u16) -> &mut Progress {
        let reactor = usize::from(reactor);
        if self.progress.len() <= reactor {
            self.progress.resize(reactor + 1, Progress::default());
        }
        &mut self.progress[reactor]
    }

    /// How many of its members a reactor has.
    pub(super) fn members_of(&self, reactor: u16) -> u32 {
        let progress = self.progress.get(usize::from(reactor));
        progress.map_or(0, |progress| progress.members)
    }

    /// The name, if it has ever had one.
    pub(super) fn name(&self) -> Option<&Arc<str>> {
        match &self.kind {
            Kind::Named(name) => Some(name),
            Kind::Private(_) => None,
        }
    }

    /// Whether it is there for the clients that it has, and for nothing else.
    fn ends_with_last_member(&self) -> bool {
        matches!(self.kind, Kind::Private(_)) || self.life.is_over()
    }

    /// Takes a member out, whoever it belongs to.
    pub(super) fn remove_member(&mut self, slot: u32, now_ms: u64) -> Option<Member> {
        let member = self.members.remove(slot)?;
        self.progress_mut(member.reactor).members -= 1;
        if self.members.is_empty() {
            self.lonely_since_ms = now_ms;
        }
        Some(member)
    }

    pub(super) fn info(&self, member: &Member, clock: &Clock) -> ClientInfo {
        ClientInfo {
            id: member.id.clone(),
            metadata: member.metadata().cloned().unwrap_or_default(),
            address: member.address(),
            since: clock.wall(member.since_ms()),
            behind: self.log.count_after(member.seen),
        }
    }

    pub(super) fn disconnect_call(
        &self,
        member: &mut Member,
        clock: &Clock,
    ) -> Option<DisconnectCall> {
        let hook = member.extra.as_mut()?.on_disconnect.take()?;
        let info = self.info(member, clock);
        Some(DisconnectCall { info, hook })
    }
}

/// Frees channels that were removed, whose logs may be large, and wakes the
/// sinks that wait for room in them. The lock is open.
pub(super) fn drop_removed(removed: impl IntoIterator<Item = ChannelState>) {
    for channel in removed {
        if let Kind::Private(room) = &channel.kind {
            room.notify();
        }
    }
}

/// What a locked section has taken out of the hub. Its caller drops it, and goes on
/// with the removals, when the lock is open.
pub(super) struct Removed {
    pub(super) entries: Dropped,
    pub(super) channels: Vec<ChannelState>,
    /// Channels whose removal has begun.
    pub(super) closing: Vec<ChannelKey>,
    pub(super) wake: Wake,
}

impl Removed {
    pub(super) fn new() -> Removed {
        Removed {
            entries: Dropped::new(),
            channels: Vec::new(),
            closing: Vec::new(),
            wake: Wake::default(),
        }
    }
}

fn key_at(slot: usize, channel: &ChannelState) -> ChannelKey {
    ChannelKey {
        slot: u32::try_from(slot).expect("fewer channels than 2^32"),
        tenant: channel.tenant,
    }
}

/// See the [module](self).
pub(super) struct State {
    pub(super) settings: Settings,
    /// The last sequence number that was given.
    pub(super) sequence: u64,
    /// The newest entry that went with a channel's removal. A channel that is
    /// made anew may have had a past up to here.
    pub(super) removed_through: u64,
    tenants: u32,
    channels: Slab<ChannelState>,
    pub(super) names: HashMap<Arc<str>, ChannelKey>,
    reactors: Vec<ReactorState>,
    /// Clients of named channels, a merged stream once for each of them.
    pub(super) clients: usize,
    pub(super) totals: Totals,
    /// What all logs hold, streams of one client included.
    pub(super) log_bytes: usize,
    /// Named channels with a history.
    pub(super) kept: Lists,
    /// Channels that subscriptions made and no publisher has published to.
    pub(super) unpublished: Lists,
    /// How many of these each source has.
    pub(super) sources: HashMap<u64, usize>,
    pub(super) pressure: Pressure,
    /// Where the next sweep goes on.
    sweep_at: usize,
}

/// What all channels come to, those that are gone included.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) published: u64,
    /// As they go over the wire to one client.
    pub(super) published_bytes: u64,
    pub(super) delivered: u64,
    pub(super) gaps: u64,
}

impl State {
    pub(super) fn new(settings: Settings) -> State {
        State {
            settings,
            sequence: 0,
            removed_through: 0,
            tenants: 0,
            channels: Slab::new(),
            names: HashMap::new(),
            reactors: Vec::new(),
            clients: 0,
            totals: Totals::default(),
            log_bytes: 0,
            kept: Lists::new(),
            unpublished: Lists::new(),
            sources: HashMap::new(),
            pressure: Pressure::default(),
            sweep_at: 0,
        }
    }

    /// Replaces the reactors of the last engine. Their numbers of work go on, because
    /// the channels still have marks of the earlier ones.
    pub(super) fn attach(&mut self, reactors: usize) {
        let earlier = self.reactors.iter().map(|reactor| reactor.work_number);
        let work_number = earlier.max().unwrap_or(0) + 1;
        self.reactors.clear();
        self.reactors.resize_with(reactors, || ReactorState {
            is_awake: false,
            work: Work::default(),
            work_number,
        });
    }

    pub(super) fn get(&self, key: ChannelKey) -> Option<&ChannelState> {
        self.channels
            .get(key.slot as usize)
            .filter(|channel| channel.tenant == key.tenant)
    }

    pub(super) fn get_mut(&mut self, key: ChannelKey) -> Option<&mut ChannelState> {
        self.channels
            .get_mut(key.slot as usize)
            .filter(|channel| channel.tenant == key.tenant)
    }

    pub(super) fn channels(&self) -> impl Iterator<Item = (ChannelKey, &ChannelState)> {
        let channels = self.channels.iter();
        channels.map(|(slot, channel)| (key_at(slot, channel), channel))
    }

    /// The channel of a slot, if there is one.
    pub(super) fn at(&self, slot: usize) -> Option<(ChannelKey, &ChannelState)> {
        let channel = self.channels.get(slot)?;
        looked_at(1);
        Some((key_at(slot, channel), channel))
    }

    /// Makes a channel.
    pub(super) fn insert(
        &mut self,
        kind: Kind,
        options: Arc<ChannelOptions>,
        now_ms: u64,
    ) -> ChannelKey {
        let (past, name) = match &kind {
            Kind::Named(name) => (self.removed_through, Some(name.clone())),
            Kind::Private(_) => (0, None),
        };
        self.tenants = self.tenants.wrapping_add(1);
        let tenant = self.tenants;
        let slot = self.channels.insert(ChannelState {
            tenant,
            kind,
            life: Life::Open,
            log: Log::new(past),
            members: Members::new(&options.indexed),
            options,
            progress: Vec::new(),
            shared: Weak::new(),
            lonely_since_ms: now_ms,
            bucket: None,
            source: None,
            counted_bytes: 0,
            counted_evictions: 0,
            published: 0,
            delivered: 0,
            gaps: 0,
        });
        let key = key_at(slot, &self.channels[slot]);
        if let Some(name) = name {
            self.names.insert(name, key);
        }
        key
    }

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
        self.kept.remove(key.slot);
        self.unpublished.remove(key.slot);
        self.release(key);
    }

    /// Disconnects some of the clients of a channel that is being removed, from
    /// `slot` on. Returns where to continue, or `None` and the channel when it is
    /// removed.
    pub(super) fn disconnect_some(
        &mut self,
        key: ChannelKey,
        slot: u32,
        reason: DisconnectReason,
        clock: &Clock,
        wake: &mut Wake,
    ) -> (Option<u32>, Option<ChannelState>) {
        let end = self
            .get(key)
            .map_or(0, |channel| channel.members.slots_end());
        let slice = slot..end.min(slot.saturating_add(SLOTS_MAX));
        let next = slice.end;
        for slot in slice {
            looked_at(1);
            if let Some((left, channel)) = self.remove_member(key, slot, reason, clock) {
                wake.merge(self.depart(&left.member, reason, left.disconnect_call));
                if channel.is_some() {
                    return (None, channel);
                }
            }
        }
        match next < end {
            true => (Some(next), None),
            false => (None, self.take(key)),
        }
    }

    /// Takes out a channel that has no clients. The caller gives it to
    /// [`drop_removed`] when the lock is open again.
    fn take(&mut self, key: ChannelKey) -> Option<ChannelState> {
        let channel = self.get(key)?;
        debug_assert!(channel.members.is_empty(), "its clients are disconnected");
        self.log_bytes -= channel.counted_bytes;
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

    /// Takes the channel's name from it, if it has one still. A channel that
    /// is made under it later may have had a past up to here.
    fn free_name(&mut self, key: ChannelKey) {
        let Some(channel) = self.get(key) else {
            return;
        };
        if let Kind::Named(name) = &channel.kind
            && !channel.life.is_over()
        {
            let (name, head) = (name.clone(), channel.log.head());
            self.names.remove(&name);
            self.removed_through = self.removed_through.max(head);
        }
    }

    /// Takes a member out, for `reason`. Returns it as it was, and the channel
    /// if that is removed with it: the caller gives it to [`drop_removed`]. What was
    /// kept for the member stays until the next [`trim`](Self::trim): another
    /// member may be about to need it.
    pub(super) fn remove_member(
        &mut self,
        key: ChannelKey,
        slot: u32,
        reason: DisconnectReason,
        clock: &Clock,
    ) -> Option<(Left, Option<ChannelState>)> {
        let now_ms = clock.now_ms();
        let channel = self.get_mut(key)?;
        let mut member = channel.remove_member(slot, now_ms)?;
        let disconnect_call = channel.disconnect_call(&mut member, clock);
        let is_named = channel.name().is_some();
        let is_empty = channel.members.is_empty();
        let is_last = is_empty && channel.ends_with_last_member();
        self.clients -= usize::from(is_named);
        if is_empty {
            self.release(key);
        }
        let removed = match is_last {
            true => self.remove_empty(key, reason),
            false => None,
        };
        let left = Left {
            member,
            disconnect_call,
        };
        Some((left, removed))
    }

    /// Evicts the entries that a channel need not keep any longer. Returns whether
    /// there are more than `dropped` had room for.
    pub(super) fn trim(&mut self, key: ChannelKey, now_ms: u64, dropped: &mut Dropped) -> bool {
        let channel = self.get_mut(key);
        let has_more = channel.is_some_and(|channel| channel.trim(now_ms, dropped));
        self.settle(key);
        has_more
    }

    /// Hands a client that is no member any more to its reactor.
    pub(super) fn depart(
        &mut self,
        member: &Member,
        reason: DisconnectReason,
        disconnect_call: Option<DisconnectCall>,
    ) -> Wake {
        let reactor = usize::from(member.reactor);
        let reactor_state = &mut self.reactors[reactor];
        reactor_state.work.departures.push(Departure {
            token: member.token,
            reason,
            disconnect_call,
        });
        self.wake_reactor(reactor)
    }

    /// Puts the channel on the lists of all reactors that have members of it,
    /// with the time at which it got there.
    pub(super) fn mark_dirty(&mut self, key: ChannelKey, now_us: u64) -> Wake {
        let mut wake = Wake::default();
        let Some(channel) = self.channels.get_mut(key.slot as usize) else {
            return wake;
        };
        for (reactor, progress) in channel.progress.iter_mut().enumerate() {
            if progress.members == 0 {
                continue;
            }
            let reactor_state = &mut self.reactors[reactor];
            if progress.dirty_in == reactor_state.work_number {
                continue;
            }
            progress.dirty_in = reactor_state.work_number;
            reactor_state.work.dirty.push((key, now_us));
            if !reactor_state.is_awake {
                reactor_state.is_awake = true;
                wake.add(reactor);
            }
        }
        wake
    }

    pub(super) fn wake_reactor(&mut self, reactor: usize) -> Wake {
        let mut wake = Wake::default();
        // A thread may still hold the command queue of an engine that has ended, and
        // that had more reactors.
        let state = self.reactors.get_mut(reactor);
        if state.is_some_and(|state| !std::mem::replace(&mut state.is_awake, true)) {
            wake.add(reactor);
        }
        wake
    }

    /// Swaps the reactor's work with the empty `work`; it counts as awake.
    pub(super) fn take_work(&mut self, reactor: u16, work: &mut Work) {
        let reactor_state = &mut self.reactors[usize::from(reactor)];
        reactor_state.is_awake = true;
        reactor_state.work_number += 1;
        std::mem::swap(&mut reactor_state.work, work);
    }

    /// Has a reactor look at the channel's options.
    pub(super) fn note_changed(&mut self, reactor: usize, key: ChannelKey) {
        self.reactors[reactor].work.changed.push(key);
    }

    /// Whether there are clients whom the reactor has yet to disconnect.
    pub(super) fn has_departures(&self, reactor: u16) -> bool {
        !self.reactors[usize::from(reactor)]
            .work
            .departures
            .is_empty()
    }

    /// Whether the reactor may sleep; if so, whoever brings work wakes it.
    pub(super) fn may_sleep(&mut self, reactor: u16) -> bool {
        let reactor_state = &mut self.reactors[usize::from(reactor)];
        let work = &reactor_state.work;
        let has_work =
            !work.dirty.is_empty() || !work.departures.is_empty() || !work.changed.is_empty();
        reactor_state.is_awake = has_work;
        !has_work
    }

    pub(super) fn channels_capacity(&self) -> usize {
        self.channels.capacity()
    }

    /// Looks at up to `left` channels, and at fewer if `removed` has no room for more:
    /// evicts history that is too old, frees the names of finished channels whose
    /// time is over, and removes channels without clients, history and handles;
    /// where there is no room for more channels, without waiting. Returns how many
    /// channels are left.
    pub(super) fn sweep(&mut self, left: usize, clock: &Clock, removed: &mut Removed) -> usize {
        let now_ms = clock.now_ms();
        let end = self.channels.capacity();
        let unpublished = self.unpublished.len(List::Unpublished);
        let is_full = self.names.len() >= self.settings.channels_max
            || unpublished >= self.settings.unpublished_max();
        let count = left.min(LOOKS_MAX);
        for looked in 0..count {
            if removed.entries.len() + looked >= LOOKS_MAX {
                return left - looked;
            }
            let slot = match self.sweep_at + 1 < end {
                true => self.sweep_at + 1,
                false => 0,
            };
            if let Some((key, _)) = self.at(slot)
                && self.sweep_channel(key, now_ms, is_full, clock, removed)
            {
                // The rest of its history is next.
                return left - looked;
            }
            self.sweep_at = slot;
        }
        left - count
    }

    /// Returns whether there is more to evict than `removed` had room for.
    fn sweep_channel(
        &mut self,
        key: ChannelKey,
        now_ms: u64,
        is_full: bool,
        clock: &Clock,
        removed: &mut Removed,
    ) -> bool {
        let is_unpublished = self.unpublished.of(key.slot).is_some();
        let empty_after = self.settings.empty_after;
        let Some(channel) = self.get_mut(key) else {
            return false;
        };
        let has_more = channel.trim(now_ms, &mut removed.entries);
        // What an unpublished channel holds was published to all channels.
        let holds_nothing = channel.log.is_empty() || is_unpublished;
        let is_removed = match (&channel.kind, channel.life) {
            (Kind::Named(_), Life::Open) => {
                let lonely_ms = u128::from(now_ms.saturating_sub(channel.lonely_since_ms));
                channel.members.is_empty()
                    && holds_nothing
                    && channel.shared.strong_count() == 0
                    && empty_after.is_some_and(|a| is_full || lonely_ms >= a.as_millis())
            }
            (Kind::Named(_), Life::Finishing(finish)) if finish.until_ms <= now_ms => {
                removed
                    .wake
                    .merge(self.end_finishing(key, clock, &mut removed.entries));
                let channel = self.get(key);
                channel.is_some_and(|channel| channel.members.is_empty())
            }
            // The last client takes these with it.
            (Kind::Named(_), Life::Finishing(_) | Life::Over { .. } | Life::Closing)
            | (Kind::Private(_), _) => false,
        };
        self.settle(key);
        if is_removed {
            let channel = self.remove_empty(key, DisconnectReason::ChannelClosed);
            removed.channels.extend(channel);
            return false;
        }
        has_more
    }

    /// A finished channel has had its time. The clients that it has are sent
    /// what they are owed, however long they take, and the name goes to a new
    /// channel, so that a client that comes back has missed nothing.
    fn end_finishing(&mut self, key: ChannelKey, clock: &Clock, dropped: &mut Dropped) -> Wake {
        self.free_name(key);
        let Some(channel) = self.get_mut(key) else {
            return Wake::default();
        };
        let Life::Finishing(Finish { through, .. }) = channel.life else {
            return Wake::default();
        };
        channel.life = Life::Over { through };
        channel.trim(clock.now_ms(), dropped);
        self.settle(key);
        let Some(channel) = self.get(key) else {
            return Wake::default();
        };
        let heir = match &channel.kind {
            Kind::Named(name) if !channel.members.is_empty() => {
                Some((name.clone(), channel.options.clone(), channel.log.head()))
            }
            _ => None,
        };
        if let Some((name, options, head)) = heir {
            let heir = self.insert(Kind::Named(name), options, clock.now_ms());
            let heir = self.get_mut(heir).expect("it was just made");
            heir.log = Log::new(head);
        }
        // A stream that has other channels as well finds that it is to end.
        self.mark_dirty(key, clock.now_us())
    }
}
