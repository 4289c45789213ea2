//! The handle to a channel that programs hold.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::Hub;
use super::audience::Condition;
use super::channel_state::ChannelState;
use super::client::{ClientId, ClientInfo, DisconnectReason};
use super::id::EventId;
use super::key::ChannelKey;
use super::looks::SLOTS_MAX;
use super::options::ChannelOptions;
use super::proposals::Handles;
use super::proposing::Decided;
use super::publish::One;
use super::publish_options::{Demands, PublishOptions};
use super::published::{PublishError, Published};
use super::ready::Ready;
use super::stats::ChannelStats;
use super::target::Target;
use crate::event::Event;

/// What many clients subscribe to: a named, ordered log of events.
///
/// A `Channel` is a cheap handle: clone it, keep it, send it to other threads. Every
/// method returns at once and may be called from anywhere, callbacks of the engine
/// included; none waits for the network. (With a
/// [journal](crate::ChannelManagerBuilder::open_journal), methods that change the channel
/// wait for it, except in callbacks.) A channel lives in its
/// [`ChannelManager`](crate::ChannelManager) until it is closed, and works before any
/// engine runs.
///
/// ```
/// use pushwheel::{ChannelManager, Event};
///
/// let channels = ChannelManager::new();
/// let news = channels.get_or_create("news")?;
/// let published = news.broadcast(Event::new("headline", "It works"))?;
/// assert_eq!(published.clients, 0); // no client has subscribed yet
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Channel {
    /// Before the hub: its end may need it.
    _handles: Option<Arc<Handles<Hub>>>,
    hub: Arc<Hub>,
    key: ChannelKey,
    name: Arc<str>,
    /// As the channel was made, for as long as it is there.
    compress_from: Option<usize>,
    /// Shared by the handles to one channel. While there is one, the channel is not
    /// cleaned up.
    _alive: Arc<()>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// The encoded events of one publish.
enum Encoded {
    One(One),
    Several(Vec<Ready>),
}

/// A client as a filter sees it; see [`Channel::filter`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Candidate {
    /// The client's id.
    pub id: ClientId,
    /// The metadata that its subscription has set; `null` by default.
    pub metadata: Arc<Value>,
}

impl Channel {
    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Publishes events to the clients of `target`: all of the events or none, in
    /// their order and with no other event between. The result has the id of the
    /// last event.
    ///
    /// Each event is encoded once, on the calling thread. The cost grows with the
    /// number of clients only for a target that has to be searched for: see
    /// [`Target`] and [`ChannelOptions::index`].
    ///
    /// ```
    /// use pushwheel::{ChannelManager, Condition, Event, Target};
    ///
    /// let orders = ChannelManager::new().get_or_create("orders")?;
    /// let events = ["created", "paid"].map(|name| Event::new(name, "17"));
    /// let admins = Target::Where(vec![Condition::new("role", "admin")]);
    /// let published = orders.publish(events, admins)?;
    /// assert_eq!((published.events, published.clients), (2, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When an event cannot be written or is too large, and when the channel is
    /// closed, finished or over its rate. Then none of the events is published.
    pub fn publish<'a, E: Borrow<Event<'a>>>(
        &self,
        events: impl IntoIterator<Item = E>,
        target: Target,
    ) -> Result<Published, PublishError> {
        let Channel { hub, key, .. } = self;
        if hub.has_journal() {
            let events = self.encode_all(events)?;
            let (audience, demands) = (target.into_audience(), Demands::default());
            return hub.propose_and_wait(hub.decide_publish(*key, events, audience, demands));
        }
        match self.encode_some(events)? {
            Encoded::One(event) => hub.publish(*key, event, target),
            Encoded::Several(events) => hub.publish(*key, events, target),
        }
    }

    /// Publishes as [`publish`](Self::publish) does, with options: so that it can be
    /// repeated safely, only if the channel has no newer events, or as the end of the channel.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), and when the options do not allow it. Then nothing is
    /// done.
    pub fn publish_with<'a, E: Borrow<Event<'a>>>(
        &self,
        events: impl IntoIterator<Item = E>,
        options: &PublishOptions,
    ) -> Result<Published, PublishError> {
        let Channel { hub, key, name, .. } = self;
        if hub.has_journal() {
            let events = self.encode_all(events)?;
            return hub.propose_and_wait(self.decide_publish_with(events, options));
        }
        let audience = options.target.audience();
        let demands = |events| Demands::of(options, name, events, audience.as_deref());
        match self.encode_some(events)? {
            Encoded::One(event) => {
                let demands = demands(event.as_ref());
                hub.publish_with(*key, event, audience, demands)
            }
            Encoded::Several(events) => {
                let demands = demands(&events);
                hub.publish_with(*key, events, audience, demands)
            }
        }
    }

    /// Publishes as [`publish_with`](Self::publish_with) does, and passes the result to
    /// `then` as [`publish_then`](Self::publish_then) does.
    pub fn publish_with_then<'a, E: Borrow<Event<'a>>>(
        &self,
        events: impl IntoIterator<Item = E>,
        options: &PublishOptions,
        then: impl FnOnce(Result<Published, PublishError>) + Send + 'static,
    ) {
        if !self.hub.has_journal() {
            return then(self.publish_with(events, options));
        }
        match self.encode_all(events) {
            Ok(events) => {
                let decided = self.decide_publish_with(events, options);
                self.hub.propose_then(decided, Box::new(then));
            }
            Err(error) => then(Err(error)),
        }
    }

    fn decide_publish_with(
        &self,
        events: Vec<Ready>,
        options: &PublishOptions,
    ) -> Result<Decided, PublishError> {
        let audience = options.target.audience();
        let demands = Demands::of(options, &self.name, &events, audience.as_deref());
        self.hub.decide_publish(self.key, events, audience, demands)
    }

    /// Publishes as [`publish`](Self::publish) does, and passes the result to `then`.
    ///
    /// It never waits, on any thread. Without a journal, `then` runs before this returns.
    /// With one, it runs once on a thread of the journal or of an engine, as soon as the events
    /// are in the journal: it must return at once. That the channel is closed is reported before
    /// this returns.
    ///
    /// ```
    /// use pushwheel::{ChannelManager, Event, Target};
    ///
    /// let orders = ChannelManager::new().get_or_create("orders")?;
    /// orders.publish_then([Event::new("paid", "17")], Target::All, |published| {
    ///     match published {
    ///         Ok(published) => println!("{} clients", published.clients),
    ///         Err(error) => eprintln!("not published: {error}"),
    ///     }
    /// });
    /// # Ok::<(), pushwheel::ChannelError>(())
    /// ```
    pub fn publish_then<'a, E: Borrow<Event<'a>>>(
        &self,
        events: impl IntoIterator<Item = E>,
        target: Target,
        then: impl FnOnce(Result<Published, PublishError>) + Send + 'static,
    ) {
        let Channel { hub, key, .. } = self;
        if !hub.has_journal() {
            return then(self.publish(events, target));
        }
        match self.encode_all(events) {
            Ok(events) => {
                let (audience, demands) = (target.into_audience(), Demands::default());
                let decided = hub.decide_publish(*key, events, audience, demands);
                hub.propose_then(decided, Box::new(then));
            }
            Err(error) => then(Err(error)),
        }
    }

    /// Publishes to all clients of the channel.
    ///
    /// The event is encoded once, here. The cost does not grow with the
    /// number of clients.
    ///
    /// # Errors
    /// When the event cannot be written or is too large, and when the channel
    /// was closed or is finished.
    pub fn broadcast<'a>(&self, event: impl Borrow<Event<'a>>) -> Result<Published, PublishError> {
        self.publish_one(event.borrow(), Target::All)
    }

    /// Publishes several events to all clients of the channel, as
    /// [`publish`](Self::publish) does.
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast), for any of the events.
    pub fn broadcast_batch<'a, E: Borrow<Event<'a>>>(
        &self,
        events: impl IntoIterator<Item = E>,
    ) -> Result<Published, PublishError> {
        self.publish(events, Target::All)
    }

    /// Publishes to the client with this id. `clients` of the result is 1 if the client
    /// is connected, otherwise 0.
    ///
    /// The event is in order with the broadcasts and is kept in the history, for this
    /// id only: a client that comes back under the same id is sent it. A client whose
    /// id the engine generated comes back under another id, and receives a
    /// `pushwheel.gap` event with the reason `audience` instead.
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast).
    pub fn send<'a>(
        &self,
        client: impl AsClientId,
        event: impl Borrow<Event<'a>>,
    ) -> Result<Published, PublishError> {
        self.publish_one(event.borrow(), Target::Client(client.as_client_id()))
    }

    /// Publishes several events to the client with this id, as
    /// [`broadcast_batch`](Self::broadcast_batch) does to all.
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast), for any of the events.
    pub fn send_batch<'a, E: Borrow<Event<'a>>>(
        &self,
        client: impl AsClientId,
        events: impl IntoIterator<Item = E>,
    ) -> Result<Published, PublishError> {
        self.publish(events, Target::Client(client.as_client_id()))
    }

    /// Publishes to all clients but the one with this id.
    ///
    /// The id is kept with the event, so a client that comes back with its
    /// `Last-Event-ID` receives the event unless it has this id. A client whose
    /// id the engine generated has another id when it comes back, and then
    /// receives the event too. To prevent that, choose the id
    /// ([`Subscription::client_id`](crate::Subscription::client_id)), or use
    /// [`broadcast_where`](Self::broadcast_where) with
    /// [`Condition::not`](crate::Condition::not).
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast).
    pub fn broadcast_except<'a>(
        &self,
        client: impl AsClientId,
        event: impl Borrow<Event<'a>>,
    ) -> Result<Published, PublishError> {
        self.publish_one(event.borrow(), Target::Except(client.as_client_id()))
    }

    /// Publishes to the clients that `filter` admits: `publish` to
    /// [`filter`](Self::filter).
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast).
    pub fn broadcast_to<'a>(
        &self,
        filter: impl FnMut(&Candidate) -> bool,
        event: impl Borrow<Event<'a>>,
    ) -> Result<Published, PublishError> {
        self.publish_one(event.borrow(), self.filter(filter))
    }

    /// Returns the connected clients that `filter` admits, as a target.
    ///
    /// A client that was away cannot be judged later: when it comes back, it
    /// receives a `pushwheel.gap` event with the reason `audience`.
    /// [`broadcast_where`](Self::broadcast_where) and
    /// [`broadcast_except`](Self::broadcast_except) have no such limit.
    ///
    /// The filter runs once for each client, on the calling thread and with nothing
    /// locked: it may call any method of any channel.
    #[must_use]
    pub fn filter(&self, mut filter: impl FnMut(&Candidate) -> bool) -> Target {
        let mut admitted = Vec::new();
        self.for_each_candidate(|candidate| {
            if filter(&candidate) {
                admitted.push(candidate.id);
            }
        });
        Target::Filtered(admitted)
    }

    /// Publishes to the clients whose metadata meet all of `conditions`.
    ///
    /// The conditions are kept with the event: a client that comes back with
    /// its `Last-Event-ID` is sent it if its metadata meet them then.
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast).
    pub fn broadcast_where<'a>(
        &self,
        conditions: &[Condition],
        event: impl Borrow<Event<'a>>,
    ) -> Result<Published, PublishError> {
        self.publish_one(event.borrow(), Target::Where(conditions.to_vec()))
    }

    /// Publishes several events to the clients whose metadata meet all of
    /// `conditions`, as [`broadcast_batch`](Self::broadcast_batch) does to
    /// all.
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast), for any of the events.
    pub fn broadcast_batch_where<'a, E: Borrow<Event<'a>>>(
        &self,
        conditions: &[Condition],
        events: impl IntoIterator<Item = E>,
    ) -> Result<Published, PublishError> {
        self.publish(events, Target::Where(conditions.to_vec()))
    }

    /// Publishes one event, without the cost of a list.
    fn publish_one(&self, event: &Event<'_>, target: Target) -> Result<Published, PublishError> {
        let Channel { hub, key, .. } = self;
        if hub.has_journal() {
            let (events, demands) = (vec![self.encode(event)?], Demands::default());
            let audience = target.into_audience();
            return hub.propose_and_wait(hub.decide_publish(*key, events, audience, demands));
        }
        hub.publish(*key, One(self.encode(event)?), target)
    }

    /// Encodes events, one of them without the cost of a list.
    #[inline(always)]
    fn encode_some<'a, E: Borrow<Event<'a>>>(
        &self,
        events: impl IntoIterator<Item = E>,
    ) -> Result<Encoded, PublishError> {
        let mut events = events.into_iter();
        let Some(first) = events.next() else {
            return Ok(Encoded::Several(Vec::new()));
        };
        let first = self.encode(first.borrow())?;
        let Some(second) = events.next() else {
            return Ok(Encoded::One(One(first)));
        };
        let mut all = vec![first, self.encode(second.borrow())?];
        for event in events {
            all.push(self.encode(event.borrow())?);
        }
        Ok(Encoded::Several(all))
    }

    fn encode_all<'a, E: Borrow<Event<'a>>>(
        &self,
        events: impl IntoIterator<Item = E>,
    ) -> Result<Vec<Ready>, PublishError> {
        let events = events.into_iter();
        events.map(|event| self.encode(event.borrow())).collect()
    }

    /// Returns the size from which events are compressed.
    pub(super) fn compress_from(&self) -> Option<usize> {
        self.compress_from
    }

    fn encode(&self, event: &Event<'_>) -> Result<Ready, PublishError> {
        self.hub.encode(event, self.compress_from)
    }

    /// Sets the options of the channel, at once and for its present clients too. No
    /// client is disconnected: a lower [`max_clients`](ChannelOptions::max_clients)
    /// rejects further clients.
    ///
    /// Three options stay as the channel was made, because its history and its
    /// clients' streams depend on them:
    /// [`compress_from`](ChannelOptions::compress_from),
    /// [`index`](ChannelOptions::index), and whether it
    /// [conflates](crate::LagPolicy::Conflate).
    pub fn set_options(&self, options: ChannelOptions) {
        self.hub.set_options(self.key, options);
    }

    /// Returns the options that apply to the channel now, or `None` if it was removed.
    #[must_use]
    pub fn options(&self) -> Option<ChannelOptions> {
        let options = |channel: &ChannelState| channel.options.clone();
        let options = self.hub.view(self.key, options)?;
        Some(Arc::unwrap_or_clone(options))
    }

    /// Ends the channel: its clients are sent the events that they are owed, then
    /// `last`, then the end of the stream. Returns the number of clients.
    ///
    /// For [`ChannelOptions::finished_for`](crate::ChannelOptions::finished_for),
    /// clients that come back are sent the events that they have missed. A client that
    /// has missed nothing receives `204 No Content`, and browsers stop reconnecting.
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast), except that no rate limits it.
    pub fn finish(&self, last: Option<Event<'_>>) -> Result<usize, PublishError> {
        let last = match last {
            Some(event) => Some(self.encode(&event)?),
            None => None,
        };
        let Channel { hub, key, .. } = self;
        if hub.has_journal() {
            let finished = hub.propose_and_wait(hub.decide_finish(*key, last));
            return finished.map(|published| published.clients);
        }
        hub.finish(*key, last)
    }

    /// Finishes as [`finish`](Self::finish) does, and passes the result to `then` as
    /// [`publish_then`](Self::publish_then) does.
    pub fn finish_then(
        &self,
        last: Option<Event<'_>>,
        then: impl FnOnce(Result<usize, PublishError>) + Send + 'static,
    ) {
        if !self.hub.has_journal() {
            return then(self.finish(last));
        }
        match last.map(|event| self.encode(&event)).transpose() {
            Ok(last) => {
                let then = |finished: Result<Published, _>| {
                    then(finished.map(|published| published.clients));
                };
                let decided = self.hub.decide_finish(self.key, last);
                self.hub.propose_then(decided, Box::new(then));
            }
            Err(error) => then(Err(error)),
        }
    }

    /// Removes the channel and disconnects its clients. Returns their number. From now
    /// on the name can be used for a new channel. If there is a journal that cannot be
    /// written, the channel stays, and the result is 0.
    pub fn close(&self) -> usize {
        let Channel { hub, key, .. } = self;
        let removed = match hub.has_journal() {
            true => hub.journal_remove(*key, |_| true),
            false => hub.remove(*key, DisconnectReason::ChannelClosed),
        };
        removed.unwrap_or(0)
    }

    /// Closes as [`close`](Self::close) does, and passes the result to `then` as
    /// [`publish_then`](Self::publish_then) does. Only a journal refuses it.
    pub fn close_then(&self, then: impl FnOnce(Result<usize, PublishError>) + Send + 'static) {
        if !self.hub.has_journal() {
            return then(Ok(self.close()));
        }
        let then = |removed: Result<Published, _>| {
            then(removed.map(|published| published.clients));
        };
        let decided = self.hub.decide_close(self.key);
        self.hub.propose_then(decided, Box::new(then));
    }

    /// Returns whether the channel was closed or removed, or was finished and its time
    /// is over ([`ChannelOptions::finished_for`](crate::ChannelOptions::finished_for)).
    /// Then its name can be used for a new channel.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let is_over = |channel: &ChannelState| channel.life.is_over();
        self.hub.view(self.key, is_over).unwrap_or(true)
    }

    /// Returns whether the channel was finished. Once its time is over and its last
    /// client has gone, it [is closed](Self::is_closed) instead.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        let is_finished = |channel: &ChannelState| !channel.life.is_open();
        let hub = &self.hub;
        hub.view(self.key, is_finished).unwrap_or(false)
    }

    /// Returns whether the channel conflates
    /// ([`LagPolicy::Conflate`](crate::LagPolicy::Conflate)). Only then the keys of its
    /// events have an effect. False for a closed channel.
    #[must_use]
    pub fn conflates(&self) -> bool {
        let conflates = |channel: &ChannelState| channel.options.conflates();
        self.hub.view(self.key, conflates).unwrap_or(false)
    }

    /// Returns the id after which a client misses nothing that is published from
    /// now on. Unlike [`ChannelStats::newest`] it exists without a history too.
    ///
    /// For state that is sent apart from the stream: take the position, then read
    /// the state, and send both. The client subscribes with the position as its
    /// `Last-Event-ID` or the query parameter `lastEventId`. If anything was
    /// published since that the channel no longer holds, it receives a gap.
    ///
    /// The numbers of ids are shared by all channels of a manager, so a position is
    /// the id of the newest event only if no other channel has published since.
    #[must_use]
    pub fn position(&self) -> EventId {
        let hub = &self.hub;
        hub.id_of(hub.newest_sequence())
    }

    /// Disconnects one client. Returns whether it was subscribed. In a
    /// [cluster](crate::ChannelManagerBuilder::join_cluster) the other nodes disconnect it as
    /// well, a moment later; the result is that of this node.
    pub fn disconnect(&self, client: impl AsClientId) -> bool {
        let reason = DisconnectReason::Kicked;
        let id = client.as_client_id();
        self.hub.kick_elsewhere(&self.name, &id);
        self.hub.disconnect(self.key, &id, reason)
    }

    /// Returns the number of clients.
    #[must_use]
    pub fn client_count(&self) -> usize {
        let count = self.hub.view(self.key, |channel| channel.members.len());
        count.unwrap_or(0)
    }

    /// Returns the ids of the clients. The cost grows with their number.
    #[must_use]
    pub fn client_ids(&self) -> Vec<ClientId> {
        let mut ids = Vec::new();
        self.for_each_candidate(|candidate| ids.push(candidate.id));
        ids
    }

    /// Returns whether a client with this id is subscribed.
    #[must_use]
    pub fn has_client(&self, client: impl AsClientId) -> bool {
        let id = client.as_client_id();
        let found = self.hub.view(self.key, |channel| channel.members.find(&id));
        found.flatten().is_some()
    }

    /// Returns the client with this id, if it is subscribed.
    #[must_use]
    pub fn client(&self, client: impl AsClientId) -> Option<ClientInfo> {
        let id = client.as_client_id();
        let hub = &self.hub;
        hub.view(self.key, |channel| {
            let member = channel.members.get(channel.members.find(&id)?)?;
            Some(channel.info(member, &hub.clock))
        })?
    }

    /// Returns all clients. The cost grows with their number.
    #[must_use]
    pub fn clients(&self) -> Vec<ClientInfo> {
        let ids = self.client_ids();
        ids.iter().filter_map(|id| self.client(id)).collect()
    }

    /// Returns the channel's figures, or `None` if it was closed.
    #[must_use]
    pub fn stats(&self) -> Option<ChannelStats> {
        let hub = &self.hub;
        hub.view(self.key, |channel| channel.stats(&hub.ids))
    }

    /// Calls `visit` for each client, with the lock open.
    fn for_each_candidate(&self, mut visit: impl FnMut(Candidate)) {
        let mut slice: Vec<Candidate> = Vec::new();
        let mut from = 0;
        while let Some(end) = self.hub.view(self.key, |channel| {
            let members = channel.members.range(from, from.saturating_add(SLOTS_MAX));
            slice.extend(members.map(|member| Candidate {
                id: member.id.clone(),
                metadata: member.metadata().cloned().unwrap_or_default(),
            }));
            channel.members.slots_end()
        }) {
            slice.drain(..).for_each(&mut visit);
            self.hub.give_way();
            from = from.saturating_add(SLOTS_MAX);
            if from >= end {
                break;
            }
        }
    }

    pub(crate) fn new(
        (handles, hub): (Option<Arc<Handles<Hub>>>, &Arc<Hub>),
        key: ChannelKey,
        name: Arc<str>,
        compress_from: Option<usize>,
        alive: Arc<()>,
    ) -> Channel {
        Channel {
            _handles: handles,
            hub: hub.clone(),
            key,
            name,
            compress_from,
            _alive: alive,
        }
    }

    pub(crate) fn key(&self) -> ChannelKey {
        self.key
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }
}

/// The id of a client: a [`ClientId`] or its text.
pub trait AsClientId {
    /// Returns the id.
    fn as_client_id(&self) -> ClientId;
}

impl AsClientId for ClientId {
    fn as_client_id(&self) -> ClientId {
        self.clone()
    }
}

impl AsClientId for str {
    fn as_client_id(&self) -> ClientId {
        ClientId::lookup(self)
    }
}

impl AsClientId for String {
    fn as_client_id(&self) -> ClientId {
        ClientId::lookup(self)
    }
}

impl<T: AsClientId + ?Sized> AsClientId for &T {
    fn as_client_id(&self) -> ClientId {
        (**self).as_client_id()
    }
}
