//! The channels of a program, by name.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::Duration;

use super::bounds::Maker;
use super::channel::Channel;
use super::channel_state::ChannelState;
use super::client::DisconnectReason;
use super::clock::Clock;
use super::idempotency::IdempotencyKey;
use super::key::ChannelKey;
use super::names::{ChannelError, check_name};
use super::options::{ChannelOptions, OptionsByName};
use super::proposals::Handles;
use super::published::{PublishError, Published};
use super::ready::Ready;
use super::state::{Removed, Settings};
use super::stats::{ChannelStats, Stats};
use super::target::Target;
use super::{Hub, Randomness};
use crate::event::Event;
use crate::metrics::Backlog;

/// The channels of a program: made, found and closed by name.
///
/// A cheap handle, as [`Channel`] is. An [`Engine`](crate::Engine) serves the
/// channels of one manager.
///
/// ```
/// use pushwheel::ChannelManager;
///
/// let channels = ChannelManager::new();
/// channels.get_or_create("news")?;
/// assert!(channels.has("news"));
/// assert_eq!(channels.names(), ["news".into()]);
/// # Ok::<(), pushwheel::ChannelError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChannelManager {
    /// Before the hub: its end may need it.
    pub(super) _handles: Option<Arc<Handles<Hub>>>,
    pub(super) hub: Arc<Hub>,
}

impl Default for ChannelManager {
    fn default() -> Self {
        ChannelManager::new()
    }
}

/// The settings of a manager; see [`ChannelManager::builder`].
#[derive(Clone, Debug, Default)]
pub struct ChannelManagerBuilder {
    pub(super) settings: Settings,
    pub(super) options_by_name: OptionsByName,
}

impl ChannelManager {
    /// Returns a handle to a hub's channels.
    pub(crate) fn of(hub: &Arc<Hub>) -> ChannelManager {
        let proposals = hub.proposals.as_ref();
        ChannelManager {
            _handles: proposals.and_then(|proposals| proposals.handles()),
            hub: hub.clone(),
        }
    }
}

impl ChannelManagerBuilder {
    /// Sets the default options of channels.
    #[must_use]
    pub fn defaults(self, options: ChannelOptions) -> Self {
        self.options_by_name(move |_| options.clone())
    }

    /// Sets the default options of each channel by its name, instead of
    /// [`defaults`](Self::defaults). The function is also called with an empty name, which
    /// no channel has, for the limits of events to all channels
    /// ([`ChannelManager::publish`]).
    ///
    /// ```
    /// use std::time::Duration;
    /// use pushwheel::{ChannelManager, ChannelOptions, History};
    ///
    /// let channels = ChannelManager::builder()
    ///     .options_by_name(|name| match name.starts_with("log.") {
    ///         true => ChannelOptions::new().history(History::events(10_000)),
    ///         false => ChannelOptions::new(),
    ///     })
    ///     .build();
    /// ```
    #[must_use]
    pub fn options_by_name(
        mut self,
        options: impl Fn(&str) -> ChannelOptions + Send + Sync + 'static,
    ) -> Self {
        self.options_by_name = OptionsByName::new(options);
        self
    }

    /// Sets the maximum number of channels. At the limit, channels that are not in use
    /// are removed without waiting for [`empty_after`](Self::empty_after). Default:
    /// 1,000,000.
    #[must_use]
    pub fn channels_max(mut self, channels: usize) -> Self {
        self.settings.channels_max = channels;
        self
    }

    /// Sets the maximum number of channels that subscriptions made
    /// ([`get_or_create_for_subscriber`](ChannelManager::get_or_create_for_subscriber))
    /// and that no publisher has published to. Default: seven eighths of
    /// [`channels_max`](Self::channels_max). Publishers always have the rest.
    #[must_use]
    pub fn unpublished_channels_max(mut self, channels: usize) -> Self {
        self.settings.unpublished_max = Some(channels);
        self
    }

    /// Sets the maximum number of these channels for one source of subscriptions.
    /// Default: a sixteenth of [`channels_max`](Self::channels_max).
    #[must_use]
    pub fn unpublished_channels_per_source_max(mut self, channels: usize) -> Self {
        self.settings.unpublished_per_source_max = Some(channels);
        self
    }

    /// Sets the maximum bytes of all channels together: histories, events that slow
    /// clients have yet to be sent, and where the histories of removed channels have ended
    /// (at most a sixteenth of it). Default: no limit.
    ///
    /// Beyond it the oldest events are evicted: first of finished channels, the
    /// one that finished longest ago first; then of the channel that was
    /// published to longest ago. A client that comes back to evicted events
    /// receives a gap, reason `evicted`. Events that a slow client has yet to be
    /// sent are evicted only if nothing else is left, and the client is treated
    /// by its channel's [`LagPolicy`](crate::LagPolicy). Publishing never fails
    /// for it, and the newest event of a channel that is published to stays.
    #[must_use]
    pub fn history_total(mut self, bytes: usize) -> Self {
        self.settings.log_bytes_max = bytes;
        self
    }

    /// Sets the time after which a channel without clients, history and handles is
    /// removed; `None`: never. Default: 60 s.
    #[must_use]
    pub fn empty_after(mut self, time: Option<Duration>) -> Self {
        self.settings.empty_after = time;
        self
    }

    /// Sets the time after the start in which publishers may repeat, under the same own
    /// ids, events from before a restart. A client that comes back with an own
    /// id that was given in this time may have seen the event before the
    /// restart: it receives a `pushwheel.gap` event with the reason `restart`,
    /// and everything that the history holds. Default: 60 s. Without effect on a
    /// restored manager, which remembers the ids from before. Pass zero if no
    /// event is ever repeated after a restart.
    #[must_use]
    pub fn republish_window(mut self, time: Duration) -> Self {
        self.settings.republish_window = time;
        self
    }

    /// Sets whether the ids of events hide the number of events. Default:
    /// false, and an id such as `k3x9q2d-80` is that of the 80th event of all
    /// channels. If true, the number is one of 64 bits that means nothing to
    /// clients, which makes each event about 13 bytes longer. A restored
    /// manager goes on with the ids that it had.
    #[must_use]
    pub fn opaque_ids(mut self, opaque: bool) -> Self {
        self.settings.opaque_ids = opaque;
        self
    }

    /// Makes the manager.
    #[must_use]
    pub fn build(self) -> ChannelManager {
        self.build_with(Clock::system(), Randomness::System)
    }

    /// Makes a manager with the clock and the ids of a test.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn build_simulated(self, clock: Clock, seed: u64) -> ChannelManager {
        self.build_with(clock, Randomness::Seeded(std::sync::Mutex::new(seed)))
    }

    fn build_with(self, clock: Clock, randomness: Randomness) -> ChannelManager {
        ChannelManager {
            _handles: None,
            hub: Hub::new(clock, randomness, self.settings, self.options_by_name),
        }
    }
}

impl ChannelManager {
    /// Returns a manager with the library's defaults.
    #[must_use]
    pub fn new() -> ChannelManager {
        ChannelManager::builder().build()
    }

    /// Returns a builder, to configure a manager.
    #[must_use]
    pub fn builder() -> ChannelManagerBuilder {
        ChannelManagerBuilder::default()
    }

    /// Returns the channel of this name. It is made with the default options if there is
    /// none.
    ///
    /// # Errors
    /// When no channel can have the name, or there are too many.
    pub fn get_or_create(&self, name: &str) -> Result<Channel, ChannelError> {
        if let Some(channel) = self.get(name) {
            return Ok(channel);
        }
        check_name(name)?;
        self.hub.open_by_name(name, Maker::Publisher)
    }

    /// Returns the channel of this name for a subscription, and makes it with the
    /// default options if there is none.
    ///
    /// Where subscribers choose the names of channels, this keeps them from
    /// taking all channels that there may be. A channel that it makes counts as
    /// unpublished until something is published to it, other than by
    /// [`broadcast_all`](Self::broadcast_all). Unpublished channels have a share
    /// of their own
    /// ([`unpublished_channels_max`](ChannelManagerBuilder::unpublished_channels_max)),
    /// and where [`get_or_create`](Self::get_or_create) finds no room, the newest
    /// of them is closed: its clients missed nothing, and come back.
    ///
    /// `source` is a number for what the limit
    /// [`unpublished_channels_per_source_max`](ChannelManagerBuilder::unpublished_channels_per_source_max)
    /// is for, such as a hash of the client's address or account; `None` is not
    /// limited.
    ///
    /// # Errors
    /// When no channel can have the name, or there are too many.
    pub fn get_or_create_for_subscriber(
        &self,
        name: &str,
        source: Option<u64>,
    ) -> Result<Channel, ChannelError> {
        let maker = Maker::Subscription { source };
        if let Some(channel) = self.hub.find(name, maker)? {
            return Ok(channel);
        }
        check_name(name)?;
        self.hub.open_by_name(name, maker)
    }

    /// Sets the default options of channels by their names, and those of existing
    /// channels, as [`Channel::set_options`] does. The cost grows with the number of
    /// channels.
    pub fn set_options_by_name(
        &self,
        options: impl Fn(&str) -> ChannelOptions + Send + Sync + 'static,
    ) {
        self.hub.set_options_by_name(&OptionsByName::new(options));
    }

    /// Returns the channel of this name. It is made with `options` if there is none; an
    /// existing channel keeps its own.
    ///
    /// # Errors
    /// When no channel can have the name, or there are too many.
    pub fn get_or_create_with(
        &self,
        name: &str,
        options: impl FnOnce() -> ChannelOptions,
    ) -> Result<Channel, ChannelError> {
        if let Some(channel) = self.get(name) {
            return Ok(channel);
        }
        check_name(name)?;
        let options = Arc::new(options());
        self.hub.open(name, options, Maker::Publisher)
    }

    /// Returns the channel of this name, if there is one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Channel> {
        self.hub.find(name, Maker::Publisher).ok().flatten()
    }

    /// Checks whether a channel can have this name.
    ///
    /// # Errors
    /// When it is empty, longer than 255 bytes, or has a control character or
    /// a slash.
    pub fn check_name(name: &str) -> Result<(), ChannelError> {
        check_name(name)
    }

    /// Returns whether there is a channel of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.hub.lock().names.contains_key(name)
    }

    /// Returns the names of all channels, in order.
    #[must_use]
    pub fn names(&self) -> Vec<Arc<str>> {
        let mut names = Vec::new();
        self.hub.for_each_channel(|_, channel| {
            names.extend(channel.current_name().cloned());
        });
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Returns the number of clients of all channels. A stream of several channels
    /// counts once for each.
    #[must_use]
    pub fn total_clients(&self) -> usize {
        self.hub.lock().clients
    }

    /// Publishes events to the clients of `target` in every channel that is not
    /// finished: all of the events, in their order and with no other event between.
    ///
    /// An event is encoded once and has one id in all channels. A stream of several
    /// channels is sent it once, and counts once in `clients` of the result; it may be
    /// missing there if one of its channels is finished. A channel that is made later
    /// begins with the event, within the bounds of a [history](ChannelOptions::history),
    /// as if it had been there.
    ///
    /// The size, the rate and that history are bounded by the default options. With
    /// [`options_by_name`](ChannelManagerBuilder::options_by_name), these are the options
    /// of the empty name, which no channel has. The limits of single channels do not
    /// apply. An own id is known in all channels from then on.
    ///
    /// The cost grows with the number of channels.
    ///
    /// # Errors
    /// When one of the events cannot be written or is too large, when there are more
    /// than the rate allows, or when an own id belongs to another event for all channels.
    /// Then none is published.
    pub fn publish<'a, E: Borrow<Event<'a>>>(
        &self,
        events: &[E],
        target: Target,
    ) -> Result<Published, PublishError> {
        self.publish_keyed(events, target, None)
    }

    /// Publishes as [`publish`](Self::publish) does, so that it can be repeated safely; see
    /// [`PublishOptions::idempotency_key`](crate::PublishOptions::idempotency_key).
    ///
    /// # Errors
    /// As [`publish`](Self::publish), and when the key is that of another publish to all
    /// channels.
    pub fn publish_keyed<'a, E: Borrow<Event<'a>>>(
        &self,
        events: &[E],
        target: Target,
        key: impl Into<Option<IdempotencyKey>>,
    ) -> Result<Published, PublishError> {
        let (hub, key) = (&self.hub, key.into());
        if hub.has_journal() {
            let events = self.encode_all(events)?;
            return hub.propose_and_wait(hub.decide_publish_to_all(events, target, key));
        }
        hub.publish_to_all(events, &target, key)
    }

    /// Publishes as [`publish`](Self::publish) does, and passes the result to `then` as
    /// [`Channel::publish_then`] does.
    pub fn publish_then<'a, E: Borrow<Event<'a>>>(
        &self,
        events: &[E],
        target: Target,
        then: impl FnOnce(Result<Published, PublishError>) + Send + 'static,
    ) {
        self.publish_keyed_then(events, target, None, then);
    }

    /// Publishes as [`publish_keyed`](Self::publish_keyed) does, and passes the result to
    /// `then` as [`Channel::publish_then`] does.
    pub fn publish_keyed_then<'a, E: Borrow<Event<'a>>>(
        &self,
        events: &[E],
        target: Target,
        key: impl Into<Option<IdempotencyKey>>,
        then: impl FnOnce(Result<Published, PublishError>) + Send + 'static,
    ) {
        let key = key.into();
        if !self.hub.has_journal() {
            return then(self.publish_keyed(events, target, key));
        }
        match self.encode_all(events) {
            Ok(events) => {
                let hub = &self.hub;
                let decided = hub.decide_publish_to_all(events, target, key);
                hub.propose_then(decided, Box::new(then));
            }
            Err(error) => then(Err(error)),
        }
    }

    fn encode_all<'a, E: Borrow<Event<'a>>>(
        &self,
        events: &[E],
    ) -> Result<Vec<Ready>, PublishError> {
        let encode = |event: &E| self.hub.encode(event.borrow(), None);
        events.iter().map(encode).collect()
    }

    /// Publishes an event to all clients of every channel, as
    /// [`publish`](Self::publish) does.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn broadcast_all<'a>(
        &self,
        event: impl Borrow<Event<'a>>,
    ) -> Result<Published, PublishError> {
        self.publish(&[event], Target::All)
    }

    /// Publishes several events to all clients of every channel, as
    /// [`publish`](Self::publish) does.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn broadcast_batch_all<'a, E: Borrow<Event<'a>>>(
        &self,
        events: &[E],
    ) -> Result<Published, PublishError> {
        self.publish(events, Target::All)
    }

    /// Closes and removes the channel of this name. Returns whether there was one. If there
    /// is a journal that cannot be written, the channel stays, and the result is false.
    pub fn remove(&self, name: &str) -> bool {
        let key = self.hub.lock().names.get(name).copied();
        let removed = key.and_then(|key| self.remove_if(key, |_| true));
        removed.is_some()
    }

    /// Removes the channels without clients, with their history, and returns their
    /// number. Finished channels stay for their time
    /// ([`ChannelOptions::finished_for`](crate::ChannelOptions::finished_for)), so that
    /// browsers stop reconnecting.
    pub fn remove_empty(&self) -> usize {
        self.remove_where(|channel| channel.members.is_empty() && channel.life.is_open())
    }

    /// Closes and removes all channels, and returns their number.
    pub fn close_all(&self) -> usize {
        self.remove_where(|_| true)
    }

    fn remove_where(&self, condition: impl Fn(&ChannelState) -> bool) -> usize {
        let keys = self.hub.named_keys().into_iter();
        keys.filter_map(|key| self.remove_if(key, &condition))
            .count()
    }

    fn remove_if(
        &self,
        key: ChannelKey,
        condition: impl FnOnce(&ChannelState) -> bool,
    ) -> Option<usize> {
        let reason = DisconnectReason::ChannelClosed;
        match self.hub.has_journal() {
            true => self.hub.journal_remove(key, condition),
            false => self.hub.remove_if(key, reason, condition),
        }
    }

    /// Returns the figures of all channels. The cost grows with their number.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let names = self.names();
        let stats = |name: &Arc<str>| self.get(name)?.stats();
        let channel_stats: Vec<ChannelStats> = names.iter().filter_map(stats).collect();
        Stats {
            channels: channel_stats.len(),
            clients: self.total_clients(),
            channel_stats,
        }
    }

    /// Returns the backlog of clients that are behind, and the size of the logs, streams
    /// of one client included. The cost grows with the number of channels and of events
    /// in the backlog.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        self.hub.backlog()
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }
}

/// The hub, as handles use it.
impl Hub {
    /// Calls `look` with a channel, under the lock.
    pub(super) fn view<T>(
        &self,
        key: ChannelKey,
        look: impl FnOnce(&ChannelState) -> T,
    ) -> Option<T> {
        let state = self.lock();
        let channel = state.get(key).filter(|channel| !channel.life.is_closing());
        channel.map(look)
    }

    fn find(self: &Arc<Self>, name: &str, maker: Maker) -> Result<Option<Channel>, ChannelError> {
        let mut state = self.lock();
        let Some(key) = state.find(name, maker)? else {
            return Ok(None);
        };
        let channel = state.get_mut(key);
        Ok(channel.map(|channel| self.handle(channel, name, key)))
    }

    pub(super) fn open(
        self: &Arc<Self>,
        name: &str,
        options: Arc<ChannelOptions>,
        maker: Maker,
    ) -> Result<Channel, ChannelError> {
        let mut removed = Removed::new();
        let mut state = self.lock();
        let key = state.find_or_insert(name, options, maker, &self.clock, &mut removed);
        let handle = key.map(|key| {
            let channel = state.get_mut(key).expect("names lead to channels");
            self.handle(channel, name, key)
        });
        drop(state);
        self.finish_removals(removed);
        handle
    }

    fn handle(
        self: &Arc<Self>,
        channel: &mut ChannelState,
        name: &str,
        key: ChannelKey,
    ) -> Channel {
        let alive = channel.handles.upgrade().unwrap_or_default();
        channel.handles = Arc::downgrade(&alive);
        let name = channel.name().cloned().unwrap_or_else(|| name.into());
        let proposals = self.proposals.as_ref();
        let handles = proposals.and_then(|proposals| proposals.handles());
        let compress_from = channel.options.compress_from;
        Channel::new((handles, self), key, name, compress_from, alive)
    }

    fn named_keys(&self) -> Vec<ChannelKey> {
        let mut keys = Vec::new();
        self.for_each_channel(|key, channel| keys.extend(channel.name().map(|_| key)));
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Join, Start};

    #[test]
    fn a_channel_is_removed_only_if_it_is_empty_at_that_moment() {
        let manager = ChannelManager::new();
        let hub = manager.hub();
        hub.attach_idle();
        for name in ["a", "b"] {
            manager.get_or_create(name).unwrap();
        }
        let keys = hub.named_keys();
        hub.join(Join::of(&keys[..1], 1, &Start::Live)).unwrap();
        let remove = |key: &ChannelKey| {
            let reason = DisconnectReason::ChannelClosed;
            hub.remove_if(*key, reason, |channel| channel.members.is_empty())
        };
        assert_eq!([remove(&keys[0]), remove(&keys[1])], [None, Some(0)]);
        assert_eq!(remove(&keys[1]), None, "it is gone already");
        assert_eq!(manager.names(), ["a".into()]);
        assert_eq!(manager.remove_empty(), 0);
        assert_eq!(manager.close_all(), 1);
    }
}
