//! Publishing: from an event to an entry in a log.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::audience::{Audience, Choice};
use super::channel::{PublishError, Published};
use super::client::{ClientId, Member};
use super::id::{EventId, Parsed};
use super::lock::Locked;
use super::log::{Dropped, Entry, Log, Rare};
use super::looks::LOOKS_MAX;
use super::rate::Bucket;
use super::remembered::{OwnId, digest};
use super::state::{ChannelState, Finish, Left, Life, State, drop_removed};
use super::target::Target;
use super::{ChannelKey, DisconnectReason, Hub, Wake};
use crate::event::{Event, EventError};
use crate::frame::Frame;

/// An event that is encoded and checked, and needs only its place.
pub(crate) struct Ready {
    pub(super) frame: Frame,
    /// Whether the hub gives it an id.
    is_sequenced: bool,
    /// Whether it removes its key.
    removes: bool,
    /// What makes it more than a plain event, but for its audience. The digest of
    /// its own id is that of the event without its target.
    rare: Option<Box<Rare>>,
}

impl Ready {
    pub(crate) fn raw(bytes: &[u8]) -> Ready {
        Ready {
            frame: Frame::raw(bytes),
            is_sequenced: false,
            removes: false,
            rare: None,
        }
    }

    /// Returns the id that the publisher gave.
    pub(super) fn own_id(&self) -> Option<&OwnId> {
        self.rare.as_ref()?.own_id.as_ref()
    }
}

/// What a publish is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// The channel, which counts as published from then on.
    Channel,
    /// All channels, so that it says nothing of this one.
    All,
}

impl Hub {
    /// Encodes an event; its sequence number is filled in when it has one.
    pub(crate) fn encode(
        &self,
        event: &Event<'_>,
        compress_from: Option<usize>,
    ) -> Result<Ready, PublishError> {
        let frame = Frame::encode(event, &self.id_prefix)?;
        let is_plain = event.id().is_none() && event.key().is_none() && compress_from.is_none();
        Ok(Ready {
            rare: (!is_plain).then(|| Box::new(rare_of(event, &frame, compress_from))),
            frame,
            is_sequenced: true,
            removes: event.is_removal(),
        })
    }

    /// Encodes an event of a stream that has no ids but its publisher's.
    pub(crate) fn encode_private(&self, event: &Event<'_>) -> Result<Ready, PublishError> {
        Ok(Ready {
            is_sequenced: false,
            ..self.encode(event, None)?
        })
    }

    /// Appends events to a channel, all of them or none, with nothing between.
    pub(crate) fn publish(
        &self,
        key: ChannelKey,
        events: impl AsRef<[Ready]> + IntoIterator<Item = Ready>,
        target: Target,
    ) -> Result<Published, PublishError> {
        self.publish_as(key, events, target, Scope::Channel)
    }

    fn publish_as(
        &self,
        key: ChannelKey,
        events: impl AsRef<[Ready]> + IntoIterator<Item = Ready>,
        target: Target,
        scope: Scope,
    ) -> Result<Published, PublishError> {
        let all = events.as_ref();
        let count = all.len();
        let audience = target.into_audience();
        let mut own_ids = self.own_ids(all, audience.as_deref())?;
        let now_us = self.clock.now_us();
        let now_ms = now_us / 1000;
        let mut dropped = Dropped::for_batch(count);
        let mut state = self.lock();
        let channel = state.get(key).ok_or(PublishError::Closed)?;
        let mut recipients = channel.recipients(audience.as_deref());
        if let (None, Some(audience)) = (recipients, &audience) {
            drop(state);
            recipients = Some(self.count_in_steps(key, audience));
            state = self.lock();
        }
        let recipients = recipients.unwrap_or_default();
        state.allow_batch(count);
        let channel = state.get_mut(key).ok_or(PublishError::Closed)?;
        if let Some(own_ids) = &mut own_ids {
            own_ids.find_repetitions(&channel.log)?;
            if let Some(id) = own_ids.last_if_all_are_repeated(all) {
                return Ok(Published::repeated(id, count));
            }
        }
        channel.check(all)?;
        channel
            .draw(count, now_ms)
            .map_err(|retry_after| PublishError::RateLimited { retry_after })?;
        let audience = audience.map(|audience| recipients.noted_in(audience));
        if scope == Scope::Channel {
            state.note_published(key);
        }
        let mut last = None;
        let mut duplicates = 0;
        for (index, mut ready) in events.into_iter().enumerate() {
            if let Some(own_ids) = &own_ids {
                own_ids.count_target(&mut ready);
                if own_ids.is_repeated(index) {
                    duplicates += 1;
                    last = ready.own_id().map(OwnId::event_id);
                    continue;
                }
            }
            let audience = audience.clone();
            last = Some(self.append(&mut state, key, ready, audience, now_ms, &mut dropped));
        }
        state.shrink(Some(key), &mut dropped);
        let wake = state.mark_dirty(key, now_us);
        let id = last.unwrap_or_else(|| self.id_of(state.sequence));
        drop(state);
        self.wake(wake);
        Ok(Published {
            id,
            events: count - duplicates,
            clients: recipients.count,
            duplicates,
        })
    }

    /// Counts the members of a large channel that an audience admits, with the lock
    /// open between two steps. A client that comes or goes meanwhile may be counted
    /// or not.
    #[cold]
    fn count_in_steps(&self, key: ChannelKey, audience: &Audience) -> Recipients {
        let (mut recipients, mut next) = (Recipients::default(), Some(0));
        while let Some(from) = next {
            self.give_way();
            let state = self.lock();
            next = state.get(key).and_then(|channel| {
                let count = |member: &Member| recipients.add(member);
                channel.members.visit(audience, from, count)
            });
        }
        recipients
    }

    /// Returns what there is to know of the own ids of events, if they have any.
    ///
    /// # Errors
    /// When the engine itself may give one of the ids to an event, and when two
    /// events share an id.
    fn own_ids(
        &self,
        events: &[Ready],
        audience: Option<&Audience>,
    ) -> Result<Option<OwnIds>, PublishError> {
        if events.iter().all(|ready| ready.own_id().is_none()) {
            return Ok(None);
        }
        self.find_own_ids(events, audience).map(Some)
    }

    #[cold]
    fn find_own_ids(
        &self,
        events: &[Ready],
        audience: Option<&Audience>,
    ) -> Result<OwnIds, PublishError> {
        for own_id in events.iter().filter_map(Ready::own_id) {
            if let Parsed::Ours(_) = self.parse_id(&own_id.text) {
                return Err(EventError::IdReserved.into());
            }
        }
        OwnIds::of(events, audience)
    }

    /// Appends events to each of the named channels.
    pub(crate) fn publish_to_all<'a, E: Borrow<Event<'a>>>(
        &self,
        events: &[E],
        target: &Target,
    ) -> Result<Published, PublishError> {
        // Each channel needs frames of its own: the ids differ.
        let encode = |compress_from| -> Result<Vec<Ready>, PublishError> {
            let encode = |event: &E| self.encode(event.borrow(), compress_from);
            events.iter().map(encode).collect()
        };
        encode(None)?;
        let mut keys = Vec::new();
        self.for_each_channel(|key, channel| {
            if channel.name().is_some() && channel.life.is_open() {
                keys.push((key, channel.options.compress_from));
            }
        });
        keys.sort_unstable();
        let mut total = Published {
            id: self.id_of(self.lock().sequence),
            events: 0,
            clients: 0,
            duplicates: 0,
        };
        for (key, compress_from) in keys {
            match self.publish_as(key, encode(compress_from)?, target.clone(), Scope::All) {
                Ok(published) => {
                    total.id = published.id;
                    total.events += published.events;
                    total.clients += published.clients;
                    total.duplicates += published.duplicates;
                }
                // Closed or finished since the list was made: not one of all.
                Err(PublishError::Closed | PublishError::Finished) => {}
                Err(
                    error @ (PublishError::TooLarge { .. }
                    | PublishError::RateLimited { .. }
                    | PublishError::IdReused { .. }),
                ) => {
                    ::log::debug!("a publish to all channels left one out ({error})")
                }
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    /// Ends a channel once its clients have everything, `event` being the
    /// last of it.
    pub(crate) fn finish(
        &self,
        key: ChannelKey,
        event: Option<Ready>,
    ) -> Result<usize, PublishError> {
        let now_us = self.clock.now_us();
        let now_ms = now_us / 1000;
        let mut own_ids = self.own_ids(event.as_slice(), None)?;
        let mut dropped = Dropped::new();
        let mut state = self.lock();
        let channel = state.get(key).ok_or(PublishError::Closed)?;
        if let Some(own_ids) = &mut own_ids {
            own_ids.find_repetitions(&channel.log)?;
        }
        channel.check(event.as_slice())?;
        let clients = channel.members.len();
        let lasts_ms = u64::try_from(channel.options.finished_for.as_millis()).unwrap_or(u64::MAX);
        state.note_published(key);
        let is_repeated = own_ids
            .as_ref()
            .is_some_and(|own_ids| own_ids.is_repeated(0));
        if let Some(mut ready) = event.filter(|_| !is_repeated) {
            if let Some(own_ids) = &own_ids {
                own_ids.count_target(&mut ready);
            }
            self.append(&mut state, key, ready, None, now_ms, &mut dropped);
            state.shrink(Some(key), &mut dropped);
        }
        let through = state.sequence;
        if let Some(channel) = state.get_mut(key) {
            channel.life = Life::Finishing(Finish {
                through,
                until_ms: now_ms.saturating_add(lasts_ms),
            });
        }
        state.note_finished(key);
        let wake = state.mark_dirty(key, now_us);
        drop(state);
        self.wake(wake);
        Ok(clients)
    }

    pub(super) fn append(
        &self,
        state: &mut State,
        key: ChannelKey,
        ready: Ready,
        audience: Option<Arc<Audience>>,
        now_ms: u64,
        dropped: &mut Dropped,
    ) -> EventId {
        let sequence = state.sequence + 1;
        state.sequence = sequence;
        let Ready {
            mut frame,
            is_sequenced,
            removes,
            rare,
        } = ready;
        let channel = state.get_mut(key).expect("the caller has found it");
        let number = self.numbering.written(sequence);
        if is_sequenced {
            frame.stamp(&self.id_prefix, number);
        }
        let bytes = frame.len() as u64;
        let mut id = EventId::new(self.epoch, number);
        let mut entry = Entry {
            sequence,
            at_ms: now_ms,
            frame,
            rare: None,
        };
        if rare.is_some() || audience.is_some() {
            let mut rare = rare.unwrap_or_default();
            rare.audience = audience;
            if is_sequenced && let Some(packed) = &mut rare.packed {
                packed.stamp(&self.id_prefix, number);
            }
            if let Some(own_id) = &mut rare.own_id {
                own_id.is_doubtful = now_ms < self.in_doubt_until_ms;
                id = own_id.event_id();
            }
            if removes || !channel.options.conflates() {
                channel.drop_key(&mut rare, dropped);
            }
            entry.rare = Some(rare).filter(|rare| !rare.is_empty());
        }
        channel.log.append(entry, dropped);
        channel.published += 1;
        channel.trim(now_ms, dropped);
        state.note_appended(key);
        state.totals.published += 1;
        state.totals.published_bytes += bytes;
        id
    }
}

/// Returns what makes an event more than a plain one.
fn rare_of(event: &Event<'_>, frame: &Frame, compress_from: Option<usize>) -> Rare {
    let key: Option<Arc<str>> = event.key().filter(|key| !key.is_empty()).map(Arc::from);
    let own_id = event.id().map(|id| OwnId {
        text: id.into(),
        digest: digest([
            frame.as_bytes(),
            key.as_deref().unwrap_or_default().as_bytes(),
            if event.is_removal() { b"removal" } else { b"" },
        ]),
        is_doubtful: false,
    });
    Rare {
        audience: None,
        packed: compress_from.map(|bytes| frame.pack(bytes)),
        own_id,
        key,
    }
}

/// The events with own ids among those that are published at once.
struct OwnIds {
    /// The digest of their target.
    target: u64,
    /// Each with its place among the events, its id and its digest.
    all: Vec<(usize, Arc<str>, u64)>,
    /// The places of the events that are not to be appended, in ascending order.
    repeated: Vec<usize>,
}

impl OwnIds {
    /// Finds them. An event that stands twice in one batch is a repetition.
    ///
    /// # Errors
    /// When two events of the batch share an id.
    fn of(events: &[Ready], audience: Option<&Audience>) -> Result<OwnIds, PublishError> {
        let mut own_ids = OwnIds {
            target: 0,
            all: Vec::new(),
            repeated: Vec::new(),
        };
        let parts = audience.map(Audience::parts).unwrap_or_default();
        own_ids.target = digest(parts.iter().map(|part| &**part));
        let mut known: HashMap<&str, u64> = HashMap::new();
        for (index, ready) in events.iter().enumerate() {
            let Some(own_id) = ready.own_id() else {
                continue;
            };
            let digest = own_ids.with_target(own_id.digest);
            match known.insert(&own_id.text, digest) {
                None => own_ids.all.push((index, own_id.text.clone(), digest)),
                Some(first) if first == digest => own_ids.repeated.push(index),
                Some(_) => return Err(reused(&own_id.text)),
            }
        }
        Ok(own_ids)
    }

    /// Finds the events that the channel has already.
    ///
    /// # Errors
    /// When the channel remembers another event of one of the ids.
    fn find_repetitions(&mut self, log: &Log) -> Result<(), PublishError> {
        for (index, id, digest) in &self.all {
            match log.remembered().get(id) {
                None => {}
                Some(place) if place.digest == *digest => self.repeated.push(*index),
                Some(_) => return Err(reused(id)),
            }
        }
        self.repeated.sort_unstable();
        Ok(())
    }

    fn is_repeated(&self, index: usize) -> bool {
        self.repeated.binary_search(&index).is_ok()
    }

    /// Returns the id of the last event if none of them is to be appended.
    fn last_if_all_are_repeated(&self, events: &[Ready]) -> Option<EventId> {
        let own_id = events.last()?.own_id()?;
        (self.repeated.len() == events.len()).then(|| own_id.event_id())
    }

    fn with_target(&self, event: u64) -> u64 {
        digest([&event.to_le_bytes()[..], &self.target.to_le_bytes()])
    }

    /// Has the digest of an event count its target.
    fn count_target(&self, ready: &mut Ready) {
        if let Some(rare) = &mut ready.rare
            && let Some(own_id) = &mut rare.own_id
        {
            own_id.digest = self.with_target(own_id.digest);
        }
    }
}

fn reused(id: &str) -> PublishError {
    PublishError::IdReused { id: id.to_owned() }
}

/// The members that an event is for.
#[derive(Clone, Copy, Debug, Default)]
struct Recipients {
    count: usize,
    /// Whether the engine generated the id of one of them.
    has_generated_id: bool,
}

impl Recipients {
    fn add(&mut self, member: &Member) {
        self.count += 1;
        self.has_generated_id |= member.has_generated_id;
    }

    /// Returns the audience, which knows then whether one of its named clients has a
    /// generated id.
    fn noted_in(self, mut audience: Arc<Audience>) -> Arc<Audience> {
        if self.has_generated_id
            && let Some(Audience::Clients { choice, .. }) = Arc::get_mut(&mut audience)
            && *choice == Choice::Named
        {
            *choice = Choice::Generated;
        }
        audience
    }
}

impl ChannelState {
    /// Whether the channel takes these events at all.
    pub(super) fn check(&self, events: &[Ready]) -> Result<(), PublishError> {
        match self.life {
            Life::Open => {}
            Life::Finishing(_) => return Err(PublishError::Finished),
            Life::Over { .. } | Life::Closing => return Err(PublishError::Closed),
        }
        let max = self.options.event_bytes_max;
        match events.iter().map(|ready| ready.frame.len()).max() {
            Some(bytes) if bytes > max => Err(PublishError::TooLarge { bytes, max }),
            _ => Ok(()),
        }
    }

    /// Takes the key from an event that is not to be part of the keyed state: in a
    /// channel that does not conflate, or because it removes the key.
    fn drop_key(&mut self, rare: &mut Rare, dropped: &mut Dropped) {
        if let Some(key) = rare.key.take()
            && self.options.conflates()
        {
            self.log.remove_key(key, rare.audience.clone(), dropped);
        }
    }

    /// Draws from the channel's rate, if it has one.
    fn draw(&mut self, count: usize, now_ms: u64) -> Result<(), Duration> {
        let Some(rate) = self.options.publish_rate else {
            return Ok(());
        };
        let bucket = self.bucket.get_or_insert_with(|| Bucket::new(rate, now_ms));
        bucket.draw(rate, count, now_ms)
    }

    /// Returns the members that an event is for, unless that needs a search of more
    /// than one step.
    #[inline]
    fn recipients(&self, audience: Option<&Audience>) -> Option<Recipients> {
        let of_all = |count| Recipients {
            count,
            has_generated_id: false,
        };
        let Some(audience) = audience else {
            return Some(of_all(self.members.len()));
        };
        if let Some(count) = self.members.count(audience) {
            return Some(of_all(count));
        }
        let mut recipients = Recipients::default();
        let is_one_step = self.members.looks(audience) <= LOOKS_MAX;
        is_one_step.then(|| {
            self.members
                .visit(audience, 0, |member| recipients.add(member));
            recipients
        })
    }
}

/// Removing channels and clients.
impl Hub {
    /// Removes a channel and disconnects its clients; says how many they were,
    /// if it was there.
    pub(crate) fn remove(&self, key: ChannelKey, reason: DisconnectReason) -> Option<usize> {
        self.remove_if(key, reason, |_| true)
    }

    /// The same, if it meets a condition at that moment.
    pub(super) fn remove_if(
        &self,
        key: ChannelKey,
        reason: DisconnectReason,
        condition: impl FnOnce(&ChannelState) -> bool,
    ) -> Option<usize> {
        let mut state = self.lock();
        let is_there = |channel: &&ChannelState| !channel.life.is_closing();
        let channel = state.get(key).filter(is_there);
        let channel = channel.filter(|channel| condition(channel))?;
        let clients = channel.members.len();
        state.start_removal(key, reason);
        self.finish_removal(state, key, reason);
        Some(clients)
    }

    /// Disconnects the clients of a channel whose removal has begun, some of them
    /// under each lock, the first ones under that of `state`. Then removes it.
    pub(super) fn finish_removal<'a>(
        &'a self,
        mut state: Locked<'a, State>,
        key: ChannelKey,
        reason: DisconnectReason,
    ) {
        let mut next = 0;
        loop {
            let mut wake = Wake::default();
            let (slot, removed) = state.disconnect_some(key, next, reason, &self.clock, &mut wake);
            drop(state);
            drop_removed(removed);
            self.wake(wake);
            match slot {
                Some(slot) => next = slot,
                None => return,
            }
            self.give_way();
            state = self.lock();
        }
    }

    /// Disconnects one client of a channel; says whether it was there.
    pub(crate) fn kick(&self, key: ChannelKey, id: &ClientId, reason: DisconnectReason) -> bool {
        let evicted = self.lock().evict(key, id, reason, &self.clock);
        let Some((wake, removed)) = evicted else {
            return false;
        };
        self.finish_trims(vec![key], self.clock.now_ms());
        drop_removed(removed);
        self.wake(wake);
        true
    }
}

impl State {
    /// Takes the client of this id out of the channel and hands it to its
    /// reactor to be disconnected, if it is there. Returns the channel too if
    /// that is removed with it: the caller gives it to [`drop_removed`].
    pub(super) fn evict(
        &mut self,
        key: ChannelKey,
        id: &ClientId,
        reason: DisconnectReason,
        clock: &super::clock::Clock,
    ) -> Option<(Wake, Option<ChannelState>)> {
        let slot = self.get(key)?.members.find(id)?;
        let (left, removed) = self.remove_member(key, slot, reason, clock)?;
        let Left {
            member,
            disconnect_call,
        } = left;
        Some((self.depart(&member, reason, disconnect_call), removed))
    }
}
