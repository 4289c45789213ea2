//! Publishing to several channels: one number and one encoding for all of them.
//!
//! All of it happens in one locked section, and is one record of a log. So each channel has
//! the events or none has.

use std::borrow::Borrow;
use std::sync::Arc;

use super::Hub;
use super::applying::{Applied, BlockTime, Found, Lacks, Options, Outcome, Step};
use super::channel::Channel;
use super::dropped::Dropped;
use super::for_all::Held;
use super::id::EventId;
use super::idempotency::{IdempotencyKey, Keyed, record_of, repeated};
use super::key::ChannelKey;
use super::manager::ChannelManager;
use super::proposing::Decided;
use super::published::{PublishError, Published};
use super::reactors::Wake;
use super::ready::Ready;
use super::state::{Removed, State};
use crate::event::{Event, EventError};
use crate::journal::record::{Begun, Change, Record};

/// Maximum number of entries, events times channels, of one publish to several channels: what
/// one locked section appends.
pub const ENTRIES_OF_PUBLISH_MAX: usize = 1024;

impl ChannelManager {
    /// Publishes events to all clients of each of `channels`: to all of these channels, in the
    /// order of the events and with no other event between, or to none of them.
    ///
    /// An event is encoded once and has one id in all of the channels. A stream of several of
    /// them is sent it once, and counts once for each in `clients` of the result. The events
    /// have no ids of their own, and with the number of channels they are at most
    /// [`ENTRIES_OF_PUBLISH_MAX`]. A channel that is there twice counts once.
    ///
    /// With a `key`, the publish can be repeated safely; see
    /// [`PublishOptions::idempotency_key`](crate::PublishOptions::idempotency_key). Each set of
    /// channels has keys of its own.
    ///
    /// ```
    /// use pushwheel::{ChannelManager, Event};
    ///
    /// let channels = ChannelManager::new();
    /// let both = [channels.get_or_create("orders")?, channels.get_or_create("customer.7")?];
    /// let published = channels.publish_to(&both, &[Event::new("paid", "17")], None)?;
    /// assert_eq!(published.id, Some(both[0].position()));
    /// assert_eq!(published.id, Some(both[1].position()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When one of the channels would reject one of the events, see
    /// [`Channel::publish_with`], when an event has an id, and when there are too many. Then
    /// nothing is published.
    ///
    /// # Panics
    /// When a channel is of another manager.
    pub fn publish_to<'a, E: Borrow<Event<'a>>>(
        &self,
        channels: &[Channel],
        events: &[E],
        key: impl Into<Option<IdempotencyKey>>,
    ) -> Result<Published, PublishError> {
        let (hub, publish) = (&self.hub, self.several(channels, events, key.into())?);
        match hub.has_journal() {
            true => hub.propose_and_wait(hub.decide_publish_to(publish)),
            false => hub.publish_to(publish),
        }
    }

    /// Publishes as [`publish_to`](Self::publish_to) does, and passes the result to `then` as
    /// [`Channel::publish_then`] does.
    ///
    /// # Panics
    /// When a channel is of another manager.
    pub fn publish_to_then<'a, E: Borrow<Event<'a>>>(
        &self,
        channels: &[Channel],
        events: &[E],
        key: impl Into<Option<IdempotencyKey>>,
        then: impl FnOnce(Result<Published, PublishError>) + Send + 'static,
    ) {
        let publish = self.several(channels, events, key.into());
        if self.hub.has_journal() {
            let decided = publish.and_then(|publish| self.hub.decide_publish_to(publish));
            self.hub.propose_then(decided, Box::new(then));
        } else {
            then(publish.and_then(|publish| self.hub.publish_to(publish)));
        }
    }

    fn several<'a, E: Borrow<Event<'a>>>(
        &self,
        channels: &[Channel],
        events: &[E],
        key: Option<IdempotencyKey>,
    ) -> Result<Several, PublishError> {
        let is_own = |channel: &Channel| Arc::ptr_eq(channel.hub(), &self.hub);
        assert!(
            channels.iter().all(is_own),
            "the channels of a publish are of its manager"
        );
        let mut channels: Vec<&Channel> = channels.iter().collect();
        channels.sort_by_key(|channel| channel.name());
        channels.dedup_by_key(|channel| channel.key());
        let entries = channels.len().saturating_mul(events.len());
        if entries > ENTRIES_OF_PUBLISH_MAX {
            let max = ENTRIES_OF_PUBLISH_MAX;
            return Err(PublishError::TooManyEntries { entries, max });
        }
        if events.iter().any(|event| event.borrow().id().is_some()) {
            return Err(EventError::IdOfSeveral.into());
        }
        let compress_from = channels
            .iter()
            .filter_map(|channel| channel.compress_from());
        let compress_from = compress_from.min();
        let encode = |event: &E| self.hub.encode(event.borrow(), compress_from);
        let events = events.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let keyed = key.map(|key| {
            let names: Vec<&str> = channels.iter().map(|channel| channel.name()).collect();
            Keyed::of(key, &names.join("/"), &events, None, false)
        });
        let keys = channels.iter().map(|channel| channel.key()).collect();
        Ok(Several {
            keys,
            events,
            keyed,
        })
    }
}

/// A publish to several channels.
struct Several {
    /// The channels, in the order of their names.
    keys: Vec<ChannelKey>,
    events: Vec<Ready>,
    keyed: Option<Keyed>,
}

impl Hub {
    fn publish_to(&self, publish: Several) -> Result<Published, PublishError> {
        let Several {
            keys,
            events,
            keyed,
        } = publish;
        let (now_us, count) = (self.clock.now_us(), events.len());
        let now_ms = now_us / 1000;
        let mut dropped = Dropped::for_batch(count * keys.len());
        let mut state = self.lock_served(&keys);
        state.allow_batch(count * keys.len());
        if let Some(keyed) = keyed
            && let Some(first) = repeated(&state.keys, keyed, now_ms, &events, &self.ids)?
        {
            return Ok(first);
        }
        let clients = state.check_each(&keys, &events, now_ms)?;
        if keys.is_empty() || events.is_empty() {
            let id = self.ids.id_of(state.sequence);
            return Ok(Published::nothing(Some(id), clients));
        }
        let first = state.sequence + 1;
        state.sequence += count as u64;
        let id = self.place_in_each(&mut state, &keys, events, (first, now_ms), &mut dropped);
        let last = state.sequence;
        if let Some(keyed) = keyed {
            let record = record_of(keyed, last, now_ms, count, clients);
            state.keys.insert(keyed.id, record);
        }
        let wake = state.note_each(&keys, now_us, &mut dropped);
        drop(state);
        self.wake(wake);
        dropped.free();
        Ok(Published {
            id: Some(id.unwrap_or_else(|| self.ids.id_of(last))),
            events: count,
            clients,
            duplicates: 0,
            is_repeated: false,
        })
    }

    /// Decides on a publish to several channels.
    #[cold]
    fn decide_publish_to(&self, publish: Several) -> Result<Decided, PublishError> {
        let Several {
            keys,
            events,
            keyed,
        } = publish;
        let (now_ms, wall_ms) = (self.clock.now_ms(), self.clock.wall_ms());
        let mut state = self.lock();
        let basis = state.sequence;
        if let Some(keyed) = keyed
            && let Some(first) = repeated(&state.keys, keyed, wall_ms, &events, &self.ids)?
        {
            return Ok(Decided::Known(first));
        }
        let clients = state.check_each(&keys, &events, now_ms)?;
        let channels = keys.iter().filter_map(|key| {
            let channel = state.get(*key)?;
            Some(Begun {
                name: channel.current_name()?.clone(),
                begins_after: channel.begins_after(),
            })
        });
        let channels: Vec<Begun> = channels.collect();
        drop(state);
        if channels.is_empty() || events.is_empty() {
            return Ok(Decided::nothing(Some(self.ids.id_of(basis)), clients));
        }
        let change = Change::PublishTo {
            channels,
            events,
            keyed,
        };
        Ok(Decided::New(Record { basis, change }, clients))
    }

    /// Applies the record of a publish to several channels.
    pub(super) fn apply_to_each(
        &self,
        state: &mut State,
        step: &mut Step,
        (time, now_us): (BlockTime, u64),
        options: &mut Options,
        removed: &mut Removed,
    ) -> Result<Outcome, Lacks> {
        let Change::PublishTo {
            channels, keyed, ..
        } = &step.change
        else {
            unreachable!("it is for several channels");
        };
        let channels: Vec<Arc<str>> = channels.iter().map(|c| c.name.clone()).collect();
        let keyed = *keyed;
        if let Some(keyed) = keyed {
            let events = step.events();
            match repeated(&state.keys, keyed, time.wall_ms, events, &self.ids) {
                Ok(None) => {}
                Ok(Some(first)) => return Ok(Ok(first.into())),
                Err(error) => return Ok(Err(error)),
            }
        }
        // Decided for all, before a channel is made for one of them.
        if channels
            .iter()
            .any(|name| step.is_after_finish(state, name))
        {
            state.keys.catch_up(step.last);
            return Ok(Err(PublishError::Finished));
        }
        let (mut keys, mut compress_from) = (Vec::new(), None);
        for name in &channels {
            // A copy may have the events in some of the channels.
            if let Found::Open(key) = self.find_for(state, name, step, now_us, options, removed)? {
                let channel = state.get_mut(key).expect("it was just found");
                channel.is_recorded = true;
                let least = [compress_from, channel.options.compress_from];
                compress_from = least.into_iter().flatten().min();
                keys.push(key);
            }
        }
        if keys.is_empty() {
            state.keys.catch_up(step.last);
            return Ok(Ok(Applied::default()));
        }
        if let Some(bytes) = compress_from
            && !step.events().iter().all(Ready::is_packed)
        {
            return Err(Lacks::Packed(bytes));
        }
        let Change::PublishTo { events, .. } = &mut step.change else {
            unreachable!("it is for several channels");
        };
        let events = std::mem::take(events);
        let count = events.len();
        let clients = keys.iter().filter_map(|key| state.get(*key));
        let clients = clients.map(|channel| channel.members.len()).sum();
        let dropped = &mut removed.entries;
        let id = self.place_in_each(state, &keys, events, (step.number, time.at_ms), dropped);
        if let Some(keyed) = keyed {
            let record = record_of(keyed, step.last, time.wall_ms, count, clients);
            state.keys.insert(keyed.id, record);
        }
        removed.wake.merge(state.note_each(&keys, now_us, dropped));
        Ok(Ok(Applied {
            id,
            events: count,
            duplicates: 0,
            clients: Some(clients),
            is_repeated: false,
        }))
    }

    /// Places events in each of some channels, under numbers from `first` on. Returns the id
    /// of the last event.
    fn place_in_each(
        &self,
        state: &mut State,
        keys: &[ChannelKey],
        events: Vec<Ready>,
        (first, at_ms): (u64, u64),
        dropped: &mut Dropped,
    ) -> Option<EventId> {
        let mut last = None;
        for (sequence, ready) in (first..).zip(events) {
            let numbered = ready.numbered(&self.ids, sequence, at_ms, false);
            let held = Held::of_several(numbered.entry, numbered.removes);
            state.totals.published += 1;
            state.totals.published_bytes += held.entry.frame.len() as u64;
            for key in keys {
                state.put(*key, &held, at_ms, dropped);
                if let Some(channel) = state.get_mut(*key) {
                    channel.counts.published += 1;
                }
            }
            last = Some(numbered.id);
        }
        last
    }
}

impl State {
    /// Checks that each of some channels accepts events now, and takes them from its rate.
    /// Returns the number of their clients.
    fn check_each(
        &mut self,
        keys: &[ChannelKey],
        events: &[Ready],
        now_ms: u64,
    ) -> Result<usize, PublishError> {
        let (mut clients, mut buckets) = (0, Vec::with_capacity(keys.len()));
        for key in keys {
            let channel = self.get(*key).ok_or(PublishError::Closed)?;
            channel.check(Ready::largest(events))?;
            clients += channel.members.len();
            buckets.push(channel.bucket);
        }
        for (index, key) in keys.iter().enumerate() {
            let channel = self.get_mut(*key).expect("it was just checked");
            if let Err(retry_after) = channel.take_tokens(events.len(), now_ms) {
                // Nothing is taken from the others.
                for (key, bucket) in keys.iter().zip(buckets).take(index) {
                    if let Some(channel) = self.get_mut(*key) {
                        channel.bucket = bucket;
                    }
                }
                return Err(PublishError::RateLimited { retry_after });
            }
        }
        Ok(clients)
    }

    /// Notes that events were placed in each of some channels. Returns the reactors to wake.
    fn note_each(&mut self, keys: &[ChannelKey], now_us: u64, dropped: &mut Dropped) -> Wake {
        let mut wake = Wake::default();
        for key in keys {
            self.note_published(*key);
            self.shrink(Some(*key), dropped);
            wake.merge(self.mark_dirty(*key, now_us));
        }
        wake
    }
}
