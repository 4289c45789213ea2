//! Publishing: from an event to an entry in a log.

use std::borrow::Borrow;
use std::sync::{Arc, Condvar, MutexGuard};
use std::time::{Duration, Instant};

use super::audience::{Audience, Condition};
use super::channel::{PublishError, Published};
use super::client::ClientId;
use super::id::EventId;
use super::log::{Entry, Rare};
use super::rate::Bucket;
use super::state::{ChannelState, Finish, State, bury};
use super::{ChannelKey, DisconnectReason, Hub, Wake};
use crate::event::Event;
use crate::frame::Frame;

/// For whom an event is.
pub(crate) enum Target<'a> {
    Everybody,
    One(ClientId),
    Where(&'a [Condition]),
    /// Those whom a filter let through.
    Chosen(Vec<ClientId>),
}

impl Target<'_> {
    /// `None` is everybody.
    #[inline]
    fn into_audience(self) -> Option<Arc<Audience>> {
        let audience = match self {
            Target::Everybody => return None,
            Target::One(id) => Audience::clients(vec![id]),
            Target::Where(conditions) => Audience::Where(conditions.into()),
            Target::Chosen(ids) => Audience::clients(ids),
        };
        Some(Arc::new(audience))
    }
}

/// An event that is encoded and checked, and needs only its place.
pub(crate) struct Ready {
    pub(super) frame: Frame,
    /// The same for streams that are compressed, if the channel has any.
    packed: Option<Frame>,
    /// Whether the hub gives it an id.
    is_sequenced: bool,
    pub(super) own_id: Option<Arc<str>>,
    key: Option<Arc<str>>,
}

impl Ready {
    pub(crate) fn raw(bytes: &[u8]) -> Ready {
        Ready {
            frame: Frame::raw(bytes),
            packed: None,
            is_sequenced: false,
            own_id: None,
            key: None,
        }
    }
}

/// Why a sink did not take an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its client has yet to take what was sent before.
    Full,
    /// Its client is gone.
    Gone,
}

/// How long a sink's sender waits for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    None,
    Until(Instant),
    Forever,
}

impl Hub {
    /// Encodes an event; its sequence number is filled in when it has one.
    pub(crate) fn encode(
        &self,
        event: &Event<'_>,
        compress_from: Option<usize>,
    ) -> Result<Ready, PublishError> {
        let frame = Frame::encode(event, &self.id_prefix)?;
        Ok(Ready {
            packed: compress_from.map(|bytes| frame.pack(bytes)),
            frame,
            is_sequenced: true,
            own_id: event.id().map(Arc::from),
            key: event.key().filter(|key| !key.is_empty()).map(Arc::from),
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
        target: Target<'_>,
    ) -> Result<Published, PublishError> {
        let all = events.as_ref();
        let count = all.len();
        if let Target::One(id) = &target
            && let Some(published) = self.add_to_welcome(key, id, all)?
        {
            return Ok(published);
        }
        let audience = target.into_audience();
        let now_us = self.clock.now_us();
        let now_ms = now_us / 1000;
        let mut state = self.lock();
        let channel = state.get_mut(key).ok_or(PublishError::Closed)?;
        channel.check(all)?;
        channel
            .draw(count, now_ms)
            .map_err(|retry_after| PublishError::RateLimited { retry_after })?;
        let clients = channel.count(audience.as_deref());
        let mut last = None;
        for ready in events {
            last = Some(self.append(&mut state, key, ready, audience.clone(), now_ms));
        }
        let wake = state.mark_dirty(key, now_us);
        let id = last.unwrap_or_else(|| self.id_of(state.sequence));
        drop(state);
        self.wake(wake);
        Ok(Published {
            id,
            events: count,
            clients,
        })
    }

    /// Appends events to each of the named channels.
    pub(crate) fn publish_to_all<'a, E: Borrow<Event<'a>>>(
        &self,
        events: &[E],
    ) -> Result<Published, PublishError> {
        // Each channel needs frames of its own: the ids differ.
        let encode = |compress_from| -> Result<Vec<Ready>, PublishError> {
            let encode = |event: &E| self.encode(event.borrow(), compress_from);
            events.iter().map(encode).collect()
        };
        encode(None)?;
        let mut keys = self.lock().keys_to_publish();
        keys.sort_unstable();
        let mut total = Published {
            id: self.id_of(self.lock().sequence),
            events: 0,
            clients: 0,
        };
        for (key, compress_from) in keys {
            match self.publish(key, encode(compress_from)?, Target::Everybody) {
                Ok(published) => {
                    total.id = published.id;
                    total.events += published.events;
                    total.clients += published.clients;
                }
                // Closed or finished since the list was made: not one of all.
                Err(PublishError::Closed | PublishError::Finished) => {}
                Err(error @ (PublishError::TooLarge { .. } | PublishError::RateLimited { .. })) => {
                    ::log::debug!("one of all channels was left out: {error}")
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
        let mut state = self.lock();
        let channel = state.get(key).ok_or(PublishError::Closed)?;
        channel.check(event.as_slice())?;
        let clients = channel.members.len();
        let lasts_ms = u64::try_from(channel.options.finished_for.as_millis()).unwrap_or(u64::MAX);
        if let Some(ready) = event {
            self.append(&mut state, key, ready, None, now_ms);
        }
        let through = state.sequence;
        if let Some(channel) = state.get_mut(key) {
            channel.finish = Some(Finish {
                through,
                until_ms: now_ms.saturating_add(lasts_ms),
            });
        }
        let wake = state.mark_dirty(key, now_us);
        drop(state);
        self.wake(wake);
        Ok(clients)
    }

    fn append(
        &self,
        state: &mut State,
        key: ChannelKey,
        ready: Ready,
        audience: Option<Arc<Audience>>,
        now_ms: u64,
    ) -> EventId {
        let sequence = state.sequence + 1;
        state.sequence = sequence;
        let Ready {
            mut frame,
            mut packed,
            is_sequenced,
            own_id,
            key: conflation_key,
        } = ready;
        let channel = state.get_mut(key).expect("the caller has found it");
        let conflation_key = conflation_key.filter(|_| channel.options.conflates());
        if is_sequenced {
            frame.stamp(&self.id_prefix, sequence);
            if let Some(packed) = &mut packed {
                packed.stamp(&self.id_prefix, sequence);
            }
        }
        let bytes = frame.len() as u64;
        let id = match &own_id {
            Some(own) => EventId::own(own.clone()),
            None => self.id_of(sequence),
        };
        let is_plain =
            audience.is_none() && packed.is_none() && own_id.is_none() && conflation_key.is_none();
        let rare = (!is_plain).then(|| {
            Box::new(Rare {
                audience,
                packed,
                own_id,
                key: conflation_key,
            })
        });
        channel.log.append(Entry {
            sequence,
            at_ms: now_ms,
            frame,
            rare,
        });
        channel.published += 1;
        channel.trim(now_ms);
        state.totals.published += 1;
        state.totals.published_bytes += bytes;
        id
    }
}

impl State {
    /// All named channels, and from which size on they compress.
    fn keys_to_publish(&self) -> Vec<(ChannelKey, Option<usize>)> {
        let named = self
            .channels()
            .filter(|(_, channel)| !channel.name.is_empty());
        named
            .map(|(key, channel)| (key, channel.options.compress_from))
            .collect()
    }
}

impl ChannelState {
    /// Whether the channel takes these events at all.
    pub(super) fn check(&self, events: &[Ready]) -> Result<(), PublishError> {
        if self.finish.is_some() {
            return Err(PublishError::Finished);
        }
        let max = self.options.event_bytes_max;
        match events.iter().map(|ready| ready.frame.len()).max() {
            Some(bytes) if bytes > max => Err(PublishError::TooLarge { bytes, max }),
            _ => Ok(()),
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

    /// How many members an event is for.
    #[inline]
    fn count(&self, audience: Option<&Audience>) -> usize {
        let Some(audience) = audience else {
            return self.members.len();
        };
        let mut count = 0;
        self.members.visit(audience, |_| count += 1);
        count
    }
}

/// Streams for one client: private channels, whose sender feels the client's
/// pace.
impl Hub {
    /// Makes the private channel of a sink.
    pub(crate) fn open_private(
        &self,
        options: super::options::ChannelOptions,
    ) -> (ChannelKey, Arc<Condvar>) {
        let room = Arc::new(Condvar::new());
        let now_ms = self.clock.now_ms();
        let key = self
            .lock()
            .insert(Arc::from(""), Arc::new(options), Some(room.clone()), now_ms);
        (key, room)
    }

    /// Appends to a private channel when its client keeps up; else waits as
    /// long as `patience` lasts.
    pub(crate) fn feed(
        &self,
        key: ChannelKey,
        room: &Condvar,
        ready: Ready,
        patience: Patience,
    ) -> Result<(), Refused> {
        let mut state = self.lock();
        loop {
            let channel = state.get(key).ok_or(Refused::Gone)?;
            if channel.members.is_empty() || channel.finish.is_some() {
                return Err(Refused::Gone);
            }
            // An event larger than all the room still goes out alone.
            let held = channel.log.bytes();
            if held == 0 || held + ready.frame.len() <= channel.options.backlog_bytes_max {
                break;
            }
            state = self.wait(state, room, patience).ok_or(Refused::Full)?;
        }
        let now_us = self.clock.now_us();
        self.append(&mut state, key, ready, None, now_us / 1000);
        let wake = state.mark_dirty(key, now_us);
        drop(state);
        self.wake(wake);
        Ok(())
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "a condition variable counts system time"
    )]
    fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        room: &Condvar,
        patience: Patience,
    ) -> Option<MutexGuard<'a, State>> {
        use std::sync::PoisonError;
        match patience {
            Patience::None => None,
            Patience::Forever => Some(room.wait(state).unwrap_or_else(PoisonError::into_inner)),
            Patience::Until(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left == Duration::ZERO {
                    return None;
                }
                let (state, _) = room
                    .wait_timeout(state, left)
                    .unwrap_or_else(PoisonError::into_inner);
                Some(state)
            }
        }
    }

    /// Whether somebody still reads a private channel.
    pub(crate) fn has_reader(&self, key: ChannelKey) -> bool {
        let state = self.lock();
        state
            .get(key)
            .is_some_and(|channel| !channel.members.is_empty() && channel.finish.is_none())
    }

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
        let channel = state.get(key).filter(|channel| condition(channel))?;
        let clients = channel.members.len();
        let (removed, wake) = state.remove(key, reason, &self.clock);
        drop(state);
        bury(removed);
        self.wake(wake);
        Some(clients)
    }

    /// Disconnects one client of a channel; says whether it was there.
    pub(crate) fn kick(&self, key: ChannelKey, id: &ClientId, reason: DisconnectReason) -> bool {
        let now_ms = self.clock.now_ms();
        let mut state = self.lock();
        let wake = state.evict(key, id, reason, now_ms, &self.clock);
        if let Some(channel) = state.get_mut(key) {
            // Nobody may be left who waits for what is beyond the history.
            channel.trim(now_ms);
        }
        drop(state);
        wake.map(|wake| self.wake(wake)).is_some()
    }
}

impl State {
    /// Takes the client of this id out of the channel and hands it to its
    /// reactor to be disconnected, if it is there.
    pub(super) fn evict(
        &mut self,
        key: ChannelKey,
        id: &ClientId,
        reason: DisconnectReason,
        now_ms: u64,
        clock: &super::clock::Clock,
    ) -> Option<Wake> {
        let channel = self.get_mut(key)?;
        let slot = channel.members.find(id)?;
        let mut member = channel.remove_member(slot, now_ms)?;
        let farewell = channel.farewell(&mut member, clock);
        if !channel.name.is_empty() {
            self.clients -= 1;
        }
        Some(self.depart(&member, reason, farewell))
    }
}
