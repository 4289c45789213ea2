//! Publishing: from an event to an entry in a log.

use std::sync::Arc;

use super::Hub;
use super::audience::Audience;
use super::channel_state::{ChannelState, Finish, Life, Matched};
use super::client::Member;
use super::clock::as_ms;
use super::dropped::Dropped;
use super::id::{EventId, Parsed};
use super::idempotency::{record_of, repeated};
use super::ids::Ids;
use super::key::ChannelKey;
use super::own_ids::OwnIds;
use super::publish_options::Demands;
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

/// One event, which needs no memory for a list, and is moved less often than in an array.
pub(super) struct One(pub(super) Ready);

impl AsRef<[Ready]> for One {
    fn as_ref(&self) -> &[Ready] {
        std::slice::from_ref(&self.0)
    }
}

impl IntoIterator for One {
    type Item = Ready;
    type IntoIter = std::option::IntoIter<Ready>;

    fn into_iter(self) -> Self::IntoIter {
        Some(self.0).into_iter()
    }
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
        self.publish_demanding(key, events, target.into_audience(), Demands::default())
    }

    /// Publishes with demands.
    #[inline(never)]
    pub(super) fn publish_with(
        &self,
        key: ChannelKey,
        events: impl AsRef<[Ready]> + IntoIterator<Item = Ready>,
        audience: Option<Arc<Audience>>,
        demands: Demands<'_>,
    ) -> Result<Published, PublishError> {
        self.publish_demanding(key, events, audience, demands)
    }

    /// Inlined, so that a publish without demands does not pay for them.
    #[inline(always)]
    fn publish_demanding(
        &self,
        key: ChannelKey,
        events: impl AsRef<[Ready]> + IntoIterator<Item = Ready>,
        mut audience: Option<Arc<Audience>>,
        demands: Demands<'_>,
    ) -> Result<Published, PublishError> {
        let Demands {
            keyed,
            newest,
            finishes,
        } = demands;
        let all = events.as_ref();
        let count = all.len();
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
        if let Some(keyed) = keyed
            && let Some(first) = repeated(&state.keys, keyed, now_ms, all, &self.ids)?
        {
            return Ok(first);
        }
        if let Some(own_ids) = &mut own_ids {
            let channel = state.get(key).ok_or(PublishError::Closed)?;
            own_ids.find_repetitions(&state.remembered, channel.scope(), now_ms)?;
            if let Some(id) = own_ids.last_if_all_are_repeated(all)
                && keyed.is_none()
                && !finishes
            {
                return Ok(Published::repeated(id, count));
            }
        }
        if let Some(id) = newest {
            let channel = state.get(key).ok_or(PublishError::Closed)?;
            state.check_newest(channel, id, &self.ids)?;
        }
        let channel = state.get_mut(key).ok_or(PublishError::Closed)?;
        channel.check(Ready::largest(all))?;
        // A channel can be finished at any rate.
        if count > 1 || !finishes {
            channel
                .take_tokens(count, now_ms)
                .map_err(|retry_after| PublishError::RateLimited { retry_after })?;
        }
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
        let duplicates = match own_ids {
            None => 0,
            Some(own_ids) => own_ids.duplicates(),
        };
        if let Some(keyed) = keyed {
            if duplicates == count {
                state.next_sequence();
            }
            let through = state.sequence;
            let record = record_of(keyed, through, now_ms, count - duplicates, clients);
            state.keys.insert(keyed.id, record);
        }
        if finishes && let Some(channel) = state.get(key) {
            let until_ms = now_ms.saturating_add(as_ms(channel.options.finished_for));
            let through = state.sequence;
            state.finish(key, Finish { through, until_ms });
        }
        let wake = state.mark_dirty(key, now_us);
        let id = last.unwrap_or_else(|| self.ids.id_of(state.sequence));
        drop(state);
        self.wake(wake);
        dropped.free();
        Ok(Published {
            id: Some(id),
            events: count - duplicates,
            clients,
            duplicates,
            is_repeated: false,
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
        let demands = Demands {
            finishes: true,
            ..Demands::default()
        };
        let events = Vec::from_iter(event);
        let finished = self.publish_with(key, events, None, demands);
        finished.map(|published| published.clients)
    }

    /// Appends an event under the number that its caller gives.
    #[inline(always)]
    pub(super) fn append(
        &self,
        state: &mut State,
        key: ChannelKey,
        sequence: u64,
        ready: Ready,
        now_ms: u64,
        dropped: &mut Dropped,
    ) -> EventId {
        let is_doubtful = self.is_doubtful(now_ms) || state.is_republished(key, &ready);
        let numbered = ready.numbered(&self.ids, sequence, now_ms, is_doubtful);
        state.place(key, numbered, dropped)
    }

    /// Returns whether an own id that is published now may be that of an event from
    /// before a restart.
    #[inline]
    pub(super) fn is_doubtful(&self, now_ms: u64) -> bool {
        now_ms < self.in_doubt_until_ms
    }
}

impl State {
    /// Returns whether the own id of an event may be that of one which a cluster has lost.
    #[inline]
    fn is_republished(&self, key: ChannelKey, ready: &Ready) -> bool {
        let channel = ready.own_id().and_then(|_| self.get(key));
        channel.is_some_and(|channel| self.may_be_republished(channel.scope()))
    }

    /// Returns the id of the newest event of a channel, if it ever had one.
    pub(super) fn newest_id(&self, channel: &ChannelState, ids: &Ids) -> Option<EventId> {
        let head = channel.log.head();
        let own_id = self.newest_own_id(channel);
        match own_id.filter(|(_, sequence)| *sequence == head) {
            Some((id, _)) => Some(EventId::own(id.clone())),
            None => (head > 0).then(|| ids.id_of(head)),
        }
    }

    /// Checks that a channel has no event after that of an id, or after the position that
    /// the id names.
    pub(super) fn check_newest(
        &self,
        channel: &ChannelState,
        id: &EventId,
        ids: &Ids,
    ) -> Result<(), PublishError> {
        let (head, text) = (channel.log.head(), id.text());
        let is_newest = match ids.parse(&text) {
            Parsed::Ours(sequence) => (head..=self.sequence).contains(&sequence),
            Parsed::Foreign | Parsed::Unknown => self
                .places_of(channel, &text)
                .any(|place| place.sequence >= head),
        };
        match is_newest {
            true => Ok(()),
            false => Err(PublishError::NotNewest {
                newest: self.newest_id(channel, ids),
            }),
        }
    }

    /// Lets a channel accept no more events.
    pub(super) fn finish(&mut self, key: ChannelKey, finish: Finish) {
        if let Some(channel) = self.get_mut(key) {
            channel.life = Life::Finishing(finish);
        }
        self.memory.note_finished(key.slot);
    }
}
