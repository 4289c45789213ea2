//! [`Subscription`]: the channels of a stream, and the hooks for its client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::welcome::Welcome;
use crate::http::{HeaderError, Headers, check_stream_header};
use crate::hub::channel::Channel;
use crate::hub::client::{ClientId, ClientInfo, DisconnectHook, DisconnectReason};
use crate::hub::{Start, Waited};

/// A stream of one or several channels, by method chaining.
///
/// The response has the id at which the stream begins in the header
/// `Last-Event-ID`. If the request has `Cache-Control: no-cache`, as that of
/// every `EventSource`, or the query parameter `cursor`, the stream also opens
/// with a block that contains only this id, so that a browser misses nothing if
/// its connection breaks before its first event. Some other clients read such a
/// block as an empty message; `cursor=false` declines it.
///
/// ```
/// use pushwheel::{ChannelManager, Subscription};
/// use serde_json::json;
///
/// let channels = ChannelManager::new();
/// let news = channels.get_or_create("news")?;
/// let subscription = Subscription::new(&news)
///     .metadata(json!({"role": "admin"}))
///     .on_disconnect(|client, reason| println!("{} is gone: {reason}", client.id));
/// # Ok::<(), pushwheel::ChannelError>(())
/// ```
#[must_use = "return it from a handler"]
pub struct Subscription {
    pub(crate) channels: Vec<Channel>,
    pub(crate) start: Option<Start>,
    pub(crate) client_id: Option<ClientId>,
    pub(crate) metadata: Option<Arc<Value>>,
    pub(crate) headers: Headers,
    pub(crate) expires_in: Option<Duration>,
    /// The longest time to wait for an event, if there is one answer instead of a stream.
    pub(crate) answer_once: Option<Duration>,
    pub(crate) names_channels: bool,
    pub(crate) on_connect: Option<ConnectHook>,
    pub(crate) on_disconnect: Option<DisconnectHook>,
    /// For what of the log of a cluster it has waited.
    pub(crate) waited: Waited,
}

pub(crate) type ConnectHook = Box<dyn FnOnce(&ClientInfo, &mut Welcome) + Send>;

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("channels", &self.channels)
            .field("start", &self.start)
            .field("client_id", &self.client_id)
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

impl Subscription {
    /// Returns a subscription to one channel.
    pub fn new(channel: &Channel) -> Subscription {
        Subscription {
            channels: vec![channel.clone()],
            start: None,
            client_id: None,
            metadata: None,
            headers: Headers::new(),
            expires_in: None,
            answer_once: None,
            names_channels: false,
            on_connect: None,
            on_disconnect: None,
            waited: Waited::default(),
        }
    }

    /// Adds a channel. The stream has the events of all channels in the order in which
    /// they were published. A channel that is added twice counts once.
    ///
    /// # Panics
    /// When the channels are not of the same [`ChannelManager`](crate::ChannelManager).
    pub fn and(mut self, channel: &Channel) -> Subscription {
        let first = self.channels.first().expect("a subscription has a channel");
        assert!(
            Arc::ptr_eq(first.hub(), channel.hub()),
            "the channels of a subscription are of one manager"
        );
        if !self.channels.iter().any(|c| c.key() == channel.key()) {
            self.channels.push(channel.clone());
        }
        self
    }

    /// Returns the channels.
    #[must_use]
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// Sets where the stream begins if the request does not say so, as a client's first
    /// request; see [`Request::start`](crate::Request::start). A client that comes back
    /// with its `Last-Event-ID` resumes after that event. Default: [`Start::Live`].
    pub fn start(mut self, start: Start) -> Subscription {
        self.start = Some(start);
        self
    }

    /// Sets the client's id. Default: a random UUID. If the channel has a client of this
    /// id, that one is disconnected: a browser that comes back must not be kept out by its
    /// broken connection.
    pub fn client_id(mut self, id: ClientId) -> Subscription {
        self.client_id = Some(id);
        self
    }

    /// Sets the client's metadata, for conditions, filters and the list of clients; any
    /// JSON. Default: `null`.
    ///
    /// They stay in memory while the client is connected. The caller has to limit their
    /// size if a client chooses them; the server accepts 32 values and 2 KiB.
    pub fn metadata(mut self, metadata: Value) -> Subscription {
        self.metadata = Some(Arc::new(metadata));
        self
    }

    /// Adds a header of the response.
    ///
    /// # Errors
    /// When the name or the value is invalid in a header, and when the engine sets
    /// the header itself, such as `Content-Type`.
    pub fn header(
        mut self,
        name: impl Into<std::borrow::Cow<'static, str>>,
        value: impl Into<std::borrow::Cow<'static, str>>,
    ) -> Result<Subscription, HeaderError> {
        let name = name.into();
        check_stream_header(&name)?;
        self.headers.insert(name, value)?;
        Ok(self)
    }

    /// Answers once instead of opening a stream: with the events that follow the start, as
    /// JSON. If there are none, the client waits for the first one, at most for `wait`.
    ///
    /// ```json
    /// {"events": [{"id": "3jcfgqk-7", "event": "order", "data": "7", "channel": "news",
    ///              "at_ms": 1770091506789}],
    ///  "newest": "3jcfgqk-7", "gap": null, "finished": false, "more": false}
    /// ```
    ///
    /// The next request begins after `newest`, which is the id of the newest event, also as
    /// the `ETag`, unless there is `more`: one answer has at most 1,024 events and 256 KiB of
    /// them. `gap` is the data of a `pushwheel.gap` event. `finished` is true if nothing
    /// follows, because all channels are finished.
    ///
    /// A client that waits is a member of its channels, costs as much as an idle stream,
    /// and receives line ends instead of heartbeats. The head of its response has no `ETag`,
    /// because it is sent before. What `on_connect` sends to its [`Welcome`] is dropped.
    pub fn answer_once(mut self, wait: Duration) -> Subscription {
        self.answer_once = Some(wait);
        self
    }

    /// Adds the name of its channel to each event, in a field `channel` in front. Parsers of
    /// event streams ignore fields that they do not know, as the one of browsers does. Such
    /// a stream is not compressed.
    pub fn name_channels(mut self) -> Subscription {
        self.names_channels = true;
        self
    }

    /// Sets the time for which the client's credentials are valid, counted from the
    /// beginning of its stream. Then the client receives an event named
    /// `pushwheel.reauth` with the data `{"reason": "expired"}` and a `retry` of its own,
    /// and the stream ends: the client comes back with new credentials and misses nothing.
    /// The event has no id, so the client keeps the id with which it comes back. Events
    /// that were published before that time are sent first, for at most
    /// [`stall_timeout`](crate::EngineBuilder::stall_timeout); later ones are not sent.
    ///
    /// Default: no limit. Accurate to 64 ms, never earlier; more than four years count as
    /// four.
    pub fn expires_in(mut self, time: Duration) -> Subscription {
        self.expires_in = Some(time);
        self
    }

    /// Sets a function that is called once the client is a member, on the engine's
    /// thread, before the client is sent anything. The function may call any method
    /// of any channel. The events that it sends to its [`Welcome`] are the first
    /// that the client receives, or follow the missed events of a client that comes
    /// back. Several functions are called in the order in which they were added.
    ///
    /// ```
    /// use pushwheel::{ChannelManager, Event, Subscription};
    ///
    /// let room = ChannelManager::new().get_or_create("room")?;
    /// let others = room.clone();
    /// let subscription = Subscription::new(&room).on_connect(move |client, welcome| {
    ///     let _ = welcome.send(Event::new("here", others.client_count().to_string()));
    ///     let joined = Event::new("joined", client.id.to_string());
    ///     let _ = others.broadcast_except(&client.id, joined);
    /// });
    /// # Ok::<(), pushwheel::ChannelError>(())
    /// ```
    pub fn on_connect(
        mut self,
        hook: impl FnOnce(&ClientInfo, &mut Welcome) + Send + 'static,
    ) -> Subscription {
        self.on_connect = Some(match self.on_connect.take() {
            None => Box::new(hook),
            Some(first) => Box::new(move |client, welcome| {
                first(client, welcome);
                hook(client, welcome);
            }),
        });
        self
    }

    /// Sets a function that is called exactly once when the client has gone, for whatever
    /// reason, on the engine's thread. The function may call any method of any channel.
    /// Several functions are called in the order in which they were added.
    ///
    /// For a client that was [`Replaced`](DisconnectReason::Replaced), it may be called
    /// after the `on_connect` of the client that has replaced it:
    /// [`Channel::has_client`] returns whether a client of the id is there.
    pub fn on_disconnect(
        mut self,
        hook: impl FnOnce(&ClientInfo, DisconnectReason) + Send + 'static,
    ) -> Subscription {
        self.on_disconnect = Some(match self.on_disconnect.take() {
            None => Box::new(hook),
            Some(first) => Box::new(move |client, reason| {
                first(client, reason);
                hook(client, reason);
            }),
        });
        self
    }
}
