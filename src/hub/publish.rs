//! Publishing: from an event to an entry in a log.

use std::borrow::Borrow;
use std::sync::Arc;

use super::Hub;
use super::audience::Audience;
use super::channel_state::{Finish, Life, Matched};
use super::client::Member;
use super::clock::as_ms;
use super::dropped::Dropped;
use super::id::EventId;
use super::key::ChannelKey;
use super::own_ids::OwnIds;
use super::published::{PublishError, Published};
use super::ready::Ready;
use super::remembered::OwnId;
use super::state::State;
use super::target::Target;
use crate::event::Event;

/// What a publish is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// The channel, which counts as published from then on.
    Channel,
    /// All channels: this one does not count as published for it.
    All,
}

/// Where the events of one publish go, and what they have in common.
#[derive(Clone, Copy)]
pub(super) struct Placing<'a> {
    pub(super) key: ChannelKey,
    /// The own ids of the events, if they have any.
    pub(super) own_ids: Option<&'a OwnIds>,
    /// The clients that the events are for; `None`: all.
    pub(super) audience: Option<&'a Arc<Audience>>,
    /// The time at which they are published.
    pub(super) at_ms: u64,
}

impl Hub {
    /// Encodes an event; its sequence number is filled in when it has one.
    pub(crate) fn encode(
        &self,
        event: &Event<'_>,
        compress_from: Option<usize>,
    ) -> Result<Ready, PublishError> {
        Ready::encode(event, compress_from, &self.ids)
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
        let mut audience = target.into_audience();
        let mut own_ids = OwnIds::of(all, audience.as_deref(), &self.ids)?;
        let now_us = self.clock.now_us();
        let now_ms = now_us / 1000;
        let mut dropped = Dropped::for_batch(count);
        let mut state = self.lock();
        let mut matched = Matched::default();
        if let Some(audience) = &mut audience {
            let channel = state.get(key).ok_or(PublishError::Closed)?;
            matched = match channel.matched(audience) {
                Some(matched) => matched,
                None => {
                    drop(state);
                    let matched = self.match_in_steps(key, audience);
                    state = self.lock();
                    matched
                }
            };
            matched.note_in(audience);
        }
        state.allow_batch(count);
        let channel = state.get_mut(key).ok_or(PublishError::Closed)?;
        if let Some(own_ids) = &mut own_ids {
            own_ids.find_repetitions(&channel.log)?;
            if let Some(id) = own_ids.last_if_all_are_repeated(all) {
                return Ok(Published::repeated(id, count));
            }
        }
        channel.check(Ready::largest(all))?;
        channel
            .take_tokens(count, now_ms)
            .map_err(|retry_after| PublishError::RateLimited { retry_after })?;
        let clients = match audience {
            None => channel.members.len(),
            Some(_) => matched.count,
        };
        if scope == Scope::Channel {
            state.note_published(key);
        }
        let placing = Placing {
            key,
            own_ids: own_ids.as_deref(),
            audience: audience.as_ref(),
            at_ms: now_ms,
        };
        let number = |state: &mut State, _| state.next_sequence();
        let (last, duplicates) = self.place(&mut state, placing, events, number, &mut dropped);
        state.shrink(Some(key), &mut dropped);
        let wake = state.mark_dirty(key, now_us);
        let id = last.unwrap_or_else(|| self.ids.id_of(state.sequence));
        drop(state);
        self.wake(wake);
        Ok(Published {
            id: Some(id),
            events: count - duplicates,
            clients,
            duplicates,
        })
    }

    /// Places the events of one publish in their channel, except those that it has
    /// already. `number` gives an event its number, which is higher than any in the
    /// channel. Returns the id of the last event, and the number of repetitions.
    #[inline(always)]
    pub(super) fn place(
        &self,
        state: &mut State,
        placing: Placing<'_>,
        events: impl IntoIterator<Item = Ready>,
        mut number: impl FnMut(&mut State, usize) -> u64,
        dropped: &mut Dropped,
    ) -> (Option<EventId>, usize) {
        let Placing {
            key,
            own_ids,
            audience,
            at_ms,
        } = placing;
        let (mut last, mut duplicates) = (None, 0);
        for (index, mut ready) in events.into_iter().enumerate() {
            if let Some(own_ids) = own_ids {
                own_ids.count_target(&mut ready);
                if own_ids.is_repeated(index) {
                    duplicates += 1;
                    last = ready.own_id().map(OwnId::event_id);
                    continue;
                }
            }
            if let Some(audience) = audience {
                ready.set_audience(audience.clone());
            }
            let sequence = number(state, index);
            last = Some(self.append(state, key, sequence, ready, at_ms, dropped));
        }
        (last, duplicates)
    }

    /// Finds the members of a large channel that an audience admits, with the lock open
    /// between two steps. A client that comes or goes meanwhile may be counted or not.
    #[cold]
    fn match_in_steps(&self, key: ChannelKey, audience: &Audience) -> Matched {
        let (mut matched, mut next) = (Matched::default(), Some(0));
        while let Some(from) = next {
            self.give_way();
            let state = self.lock();
            next = state.get(key).and_then(|channel| {
                let add = |member: &Member| matched.add(member);
                channel.members.visit(audience, from, add)
            });
        }
        matched
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
            id: Some(self.ids.id_of(self.newest_sequence())),
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
        let mut own_ids = OwnIds::of(event.as_slice(), None, &self.ids)?;
        let mut dropped = Dropped::new();
        let mut state = self.lock();
        let channel = state.get(key).ok_or(PublishError::Closed)?;
        if let Some(own_ids) = &mut own_ids {
            own_ids.find_repetitions(&channel.log)?;
        }
        channel.check(Ready::largest(event.as_slice()))?;
        let clients = channel.members.len();
        let lasts_ms = as_ms(channel.options.finished_for);
        state.note_published(key);
        let is_repeated = own_ids
            .as_ref()
            .is_some_and(|own_ids| own_ids.is_repeated(0));
        if let Some(mut ready) = event.filter(|_| !is_repeated) {
            if let Some(own_ids) = &own_ids {
                own_ids.count_target(&mut ready);
            }
            let sequence = state.next_sequence();
            self.append(&mut state, key, sequence, ready, now_ms, &mut dropped);
            state.shrink(Some(key), &mut dropped);
        }
        let through = state.sequence;
        if let Some(channel) = state.get_mut(key) {
            channel.life = Life::Finishing(Finish {
                through,
                until_ms: now_ms.saturating_add(lasts_ms),
            });
        }
        state.memory.note_finished(key.slot);
        let wake = state.mark_dirty(key, now_us);
        drop(state);
        self.wake(wake);
        Ok(clients)
    }

    /// Appends an event under the number that its caller gives.
    #[inline(never)]
    pub(super) fn append(
        &self,
        state: &mut State,
        key: ChannelKey,
        sequence: u64,
        ready: Ready,
        now_ms: u64,
        dropped: &mut Dropped,
    ) -> EventId {
        let is_doubtful = now_ms < self.in_doubt_until_ms;
        let numbered = ready.numbered(&self.ids, sequence, now_ms, is_doubtful);
        state.place(key, numbered, dropped)
    }
}
