//! Publishing: from an event to an entry in a log.

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
        if state.for_all.is_spreading() {
            state = self.serve(state, &[key]);
        }
        state.allow_batch(count);
        if let Some(own_ids) = &mut own_ids {
            let channel = state.get(key).ok_or(PublishError::Closed)?;
            own_ids.find_repetitions(&state.remembered, channel.scope(), now_ms)?;
            if let Some(id) = own_ids.last_if_all_are_repeated(all) {
                return Ok(Published::repeated(id, count));
            }
        }
        let channel = state.get_mut(key).ok_or(PublishError::Closed)?;
        channel.check(Ready::largest(all))?;
        channel
            .take_tokens(count, now_ms)
            .map_err(|retry_after| PublishError::RateLimited { retry_after })?;
        let clients = match audience {
            None => channel.members.len(),
            Some(_) => matched.count,
        };
        state.note_published(key);
        let placing = Placing {
            key,
            own_ids: own_ids.as_deref(),
            audience: audience.as_ref(),
            at_ms: now_ms,
        };
        let number = |state: &mut State, _| state.next_sequence();
        let last = self.place(&mut state, placing, events, number, &mut dropped);
        state.shrink(Some(key), &mut dropped);
        let wake = state.mark_dirty(key, now_us);
        let id = last.unwrap_or_else(|| self.ids.id_of(state.sequence));
        drop(state);
        self.wake(wake);
        dropped.free();
        let duplicates = own_ids.map_or(0, |own_ids| own_ids.duplicates());
        Ok(Published {
            id: Some(id),
            events: count - duplicates,
            clients,
            duplicates,
        })
    }

    /// Places the events of one publish in their channel, except those that it has
    /// already. `number` gives an event its number, which is higher than any in the
    /// channel. Returns the id of the last event.
    #[inline(always)]
    pub(super) fn place(
        &self,
        state: &mut State,
        placing: Placing<'_>,
        events: impl IntoIterator<Item = Ready>,
        mut number: impl FnMut(&mut State, usize) -> u64,
        dropped: &mut Dropped,
    ) -> Option<EventId> {
        let Placing {
            key,
            own_ids,
            audience,
            at_ms,
        } = placing;
        let mut last = None;
        for (index, mut ready) in events.into_iter().enumerate() {
            if let Some(own_ids) = own_ids {
                own_ids.count_target(&mut ready);
                if own_ids.is_repeated(index) {
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
        last
    }

    /// Finds the members of a large channel that an audience admits, with the lock open
    /// between two steps. A client that comes or goes meanwhile may be counted or not.
    #[cold]
    pub(super) fn match_in_steps(&self, key: ChannelKey, audience: &Audience) -> Matched {
        let mut matched = Matched::default();
        self.visit_in_steps(key, audience, |member| matched.add(member));
        matched
    }

    /// Visits the members of a channel that an audience admits, with the lock open
    /// between two steps.
    pub(super) fn visit_in_steps(
        &self,
        key: ChannelKey,
        audience: &Audience,
        mut visit: impl FnMut(&Member),
    ) {
        let mut next = Some(0);
        while let Some(from) = next {
            self.give_way();
            let state = self.lock();
            next = state
                .get(key)
                .and_then(|channel| channel.members.visit(audience, from, &mut visit));
        }
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
        let mut state = self.lock_served(&[key]);
        let channel = state.get(key).ok_or(PublishError::Closed)?;
        if let Some(own_ids) = &mut own_ids {
            own_ids.find_repetitions(&state.remembered, channel.scope(), now_ms)?;
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
        let numbered = ready.numbered(&self.ids, sequence, now_ms, self.is_doubtful(now_ms));
        state.place(key, numbered, dropped)
    }

    /// Returns whether an own id that is published now may be that of an event from
    /// before a restart.
    #[inline]
    pub(super) fn is_doubtful(&self, now_ms: u64) -> bool {
        now_ms < self.in_doubt_until_ms
    }
}
