//! Streams for one client: private channels, whose sender waits for the client.
//!
//! A private channel numbers its events itself, from 1. It takes no number of the
//! sequence of the named channels, so a busy sink does not move their ids.

use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

use super::Hub;
use super::channel_state::{Kind, Life};
use super::client::DisconnectReason;
use super::dropped::Dropped;
use super::key::ChannelKey;
use super::lock::Locked;
use super::options::ChannelOptions;
use super::ready::Ready;
use super::sink_signal::SinkSignal;
use super::state::{State, drop_channels};

/// Why a sink did not accept an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its client has yet to take what was sent before.
    Full,
    /// Its stream has ended.
    Ended(DisconnectReason),
}

/// The time that a sink's sender waits for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    None,
    Until(Instant),
    Forever,
}

impl Hub {
    /// Makes the private channel of a sink.
    pub(crate) fn open_private(&self, options: ChannelOptions) -> (ChannelKey, Arc<SinkSignal>) {
        let signal = Arc::new(SinkSignal::default());
        let (kind, options) = (Kind::Private(signal.clone()), Arc::new(options));
        let now_ms = self.clock.now_ms();
        let key = self.lock().insert(kind, options, now_ms);
        (key, signal)
    }

    /// Appends to a private channel when its client keeps up. Otherwise waits for
    /// `how_long`.
    pub(crate) fn feed(
        &self,
        key: ChannelKey,
        signal: &SinkSignal,
        ready: Ready,
        how_long: Wait,
    ) -> Result<(), Refused> {
        let mut dropped = Dropped::new();
        let mut state = self.lock();
        let sequence = loop {
            let reader = state.get(key).filter(|channel| !channel.members.is_empty());
            let Some(channel) = reader else {
                // A handler that feeds a sink before its client has joined.
                return Err(Refused::Ended(
                    signal.ended().unwrap_or(DisconnectReason::Gone),
                ));
            };
            // An event larger than all the room still goes out alone.
            let held = channel.log.bytes();
            if held == 0 || held + ready.frame.len() <= channel.options.backlog_bytes_max {
                break channel.log.head() + 1;
            }
            state = wait(state, &signal.changed, how_long).ok_or(Refused::Full)?;
        };
        let now_us = self.clock.now_us();
        let now_ms = now_us / 1000;
        self.append(&mut state, key, sequence, ready, now_ms, &mut dropped);
        state.shrink(None, &mut dropped);
        let wake = state.mark_dirty(key, now_us);
        drop(state);
        self.wake(wake);
        Ok(())
    }

    /// Ends a private channel once its client has been sent everything.
    pub(crate) fn finish_private(&self, key: ChannelKey) {
        let now_us = self.clock.now_us();
        let mut state = self.lock();
        let Some(channel) = state.get_mut(key) else {
            return;
        };
        let through = channel.log.head();
        channel.life = Life::Over { through };
        if channel.members.is_empty() {
            let removed = state.remove_empty(key, DisconnectReason::Finished);
            drop(state);
            return drop_channels(removed);
        }
        let wake = state.mark_dirty(key, now_us);
        drop(state);
        self.wake(wake);
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a condition variable counts system time"
)]
fn wait<'a>(
    state: Locked<'a, State>,
    changed: &Condvar,
    how_long: Wait,
) -> Option<Locked<'a, State>> {
    let timeout = match how_long {
        Wait::None => return None,
        Wait::Forever => None,
        Wait::Until(deadline) => Some(deadline.saturating_duration_since(Instant::now())),
    };
    (timeout != Some(Duration::ZERO)).then(|| state.wait(changed, timeout))
}

#[cfg(all(test, feature = "internals"))]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::hub::batch::Batch;
    use crate::hub::client::ConnectionId;
    use crate::hub::clock::Clock;
    use crate::hub::{Form, Join, Joined, MemberKey, Recipients, Source, Start};
    use crate::{ChannelManager, Event};

    const CONNECTION: ConnectionId = ConnectionId {
        token: 1,
        reactor: 0,
    };

    /// Makes a client the member of a private channel.
    fn join(hub: &Hub, channel: ChannelKey) -> Joined {
        let joined = hub.join(Join::of(&[channel], CONNECTION.token, &Start::Live));
        joined.expect("the channel is open")
    }

    #[test]
    fn a_sink_does_not_move_the_ids_of_named_channels() {
        let manager = ChannelManager::builder().build_simulated(Clock::manual(Arc::default()), 1);
        let hub = manager.hub();
        hub.attach_idle();
        let news = manager.get_or_create("news").unwrap();
        let publish = |n: u64| {
            let event = Event::message("to all");
            let published = news.broadcast(event).unwrap();
            assert_eq!(published.id, Some(hub.id_of(n)));
        };
        (1..=5).for_each(publish);
        let (key, signal) = hub.open_private(ChannelOptions::new());
        let joined = join(hub, key);
        assert_eq!((joined.seen, joined.now, joined.head), (0, 0, 0));
        for n in 1..=3 {
            let ready = hub.encode_private(&Event::message("to one")).unwrap();
            hub.feed(key, &signal, ready, Wait::None).unwrap();
            assert_eq!(news.position(), hub.id_of(4 + n));
            publish(5 + n);
        }
        hub.finish_private(key);
        let (mut batch, mut targets) = (Batch::default(), Vec::new());
        let recipients = Recipients {
            reactor: 0,
            clients: 1,
        };
        let source = Source {
            channels: &[key],
            form: Form::Plain,
        };
        let gathered = hub.gather(recipients, source, 0, 4096, &mut batch, &mut targets);
        let (gathered, _) = gathered.unwrap();
        let numbers: Vec<u64> = batch.pieces().iter().map(|p| p.sequence).collect();
        assert_eq!((gathered.through, &numbers[..]), (3, &[1, 2, 3][..]));
        assert_eq!(gathered.ends, Some(DisconnectReason::Finished));
    }

    #[test]
    fn a_closed_stream_lasts_as_long_as_its_client_and_is_removed_with_it() {
        let now_ms = Arc::new(AtomicU64::new(0));
        let manager = ChannelManager::builder().build_simulated(Clock::manual(now_ms.clone()), 1);
        let hub = manager.hub();
        hub.attach_idle();
        let (key, signal) = hub.open_private(ChannelOptions::new());
        let slot = join(hub, key).readers[0].slot;
        hub.finish_private(key);
        for _ in 0..10 {
            now_ms.fetch_add(3_600_000, Ordering::Relaxed);
            hub.sweep(hub.channels_capacity());
            assert_eq!((hub.channels_held(), signal.ended()), (1, None));
        }
        let member_key = MemberKey { channel: key, slot };
        hub.leave(&[member_key], CONNECTION, DisconnectReason::Finished);
        assert_eq!(hub.channels_held(), 0);
        assert_eq!(signal.ended(), Some(DisconnectReason::Finished));
    }
}
