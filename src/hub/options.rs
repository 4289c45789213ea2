//! What can be chosen for a channel.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::keyed::KeyedState;
use super::rate::Rate;
use super::retention::{Bounds, History};
use crate::http::{HeaderError, Headers, check_stream_header};

/// What happens to a client that falls further behind than the log reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LagPolicy {
    /// Its connection is closed. A browser reconnects with its `Last-Event-ID` and is
    /// sent the events that the history holds, or a gap event. The default.
    #[default]
    Disconnect,
    /// It receives a gap event and continues with the newest event.
    Skip,
    /// The log keeps only the newest of the events with the same key
    /// ([`Event::with_key`](crate::Event::with_key)) for the same clients (for
    /// all, for one, or for the same conditions). It replaces the older one for
    /// every client that is behind, which is not a gap. A new client first
    /// receives the newest event of each key, and then, with nothing lost between,
    /// all events that follow.
    ///
    /// These events are state: they are kept within the bounds of
    /// [`keyed_state`](ChannelOptions::keyed_state), until they are replaced, or
    /// removed with [`Event::removal`](crate::Event::removal). The history's
    /// bounds apply to events without a key and to removals; with
    /// [`History::NONE`] these bounds are 1,000 events of 1 MiB and any age.
    ///
    /// A client that loses an event nevertheless receives a gap event and then
    /// the whole state, as a new client does.
    Conflate,
}

/// The history of a conflating channel whose options name none.
const CONFLATED: History = History::events(1_000).age_max(Duration::MAX);

/// The default options of channels, by their names.
#[derive(Clone)]
pub(crate) struct OptionsByName(Arc<dyn Fn(&str) -> ChannelOptions + Send + Sync>);

impl OptionsByName {
    pub(crate) fn new(options: impl Fn(&str) -> ChannelOptions + Send + Sync + 'static) -> Self {
        OptionsByName(Arc::new(options))
    }

    pub(crate) fn of(&self, name: &str) -> ChannelOptions {
        (self.0)(name)
    }

    /// Returns whether they are the same function.
    pub(crate) fn is_same(&self, other: &OptionsByName) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Default for OptionsByName {
    fn default() -> Self {
        OptionsByName::new(|_| ChannelOptions::new())
    }
}

impl fmt::Debug for OptionsByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OptionsByName(..)")
    }
}

/// The options of a channel, by method chaining.
///
/// ```
/// use std::time::Duration;
/// use pushwheel::{ChannelOptions, History};
///
/// let options = ChannelOptions::new()
///     .history(History::events(100))
///     .heartbeat(Duration::from_secs(15))
///     .max_clients(5_000);
/// ```
///
/// The fields can be read, for example those of [`Channel::options`](crate::Channel::options).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChannelOptions {
    /// See [`history`](Self::history()).
    pub history: History,
    /// See [`keyed_state`](Self::keyed_state()).
    pub keyed_state: KeyedState,
    /// See [`pace`](Self::pace()).
    pub pace: Option<Duration>,
    /// See [`heartbeat`](Self::heartbeat()).
    pub heartbeat: Option<Duration>,
    /// See [`max_clients`](Self::max_clients); `usize::MAX` is no limit.
    pub clients_max: usize,
    /// See [`header`](Self::header).
    pub headers: Headers,
    /// See [`lag_policy`](Self::lag_policy()).
    pub lag_policy: LagPolicy,
    /// See [`backlog_bytes_max`](Self::backlog_bytes_max()).
    pub backlog_bytes_max: usize,
    /// See [`event_bytes_max`](Self::event_bytes_max()).
    pub event_bytes_max: usize,
    /// See [`finished_for`](Self::finished_for()).
    pub finished_for: Duration,
    /// See [`index`](Self::index).
    pub indexed: Vec<Box<str>>,
    /// See [`publish_rate`](Self::publish_rate()).
    pub publish_rate: Option<Rate>,
    /// See [`compress_from`](Self::compress_from()).
    pub compress_from: Option<usize>,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        ChannelOptions::new()
    }
}

impl ChannelOptions {
    /// Returns the library's defaults, which each method names.
    #[must_use]
    pub fn new() -> ChannelOptions {
        ChannelOptions {
            history: History::NONE,
            keyed_state: KeyedState::default(),
            pace: None,
            heartbeat: Some(Duration::from_secs(30)),
            clients_max: usize::MAX,
            headers: Headers::new(),
            lag_policy: LagPolicy::Disconnect,
            backlog_bytes_max: 8 << 20,
            event_bytes_max: 1 << 20,
            finished_for: Duration::from_secs(60),
            indexed: Vec::new(),
            publish_rate: None,
            compress_from: None,
        }
    }

    /// Sets the history for clients that come back. Default: [`History::NONE`].
    #[must_use]
    pub fn history(mut self, history: History) -> Self {
        self.history = history;
        self
    }

    /// Sets the bounds of the keyed state of a channel that conflates
    /// ([`LagPolicy::Conflate`]). Default: 10,000 keys, 8 MiB, any age.
    #[must_use]
    pub fn keyed_state(mut self, bounds: KeyedState) -> Self {
        self.keyed_state = bounds;
        self
    }

    /// Sets the shortest time between two deliveries of a channel that conflates
    /// ([`LagPolicy::Conflate`]): an event that is published within it waits, and
    /// one that is replaced meanwhile is not delivered. All streams of the channel
    /// share the interval. A stream of several channels waits only if all of them
    /// conflate and have a pace, for the shortest one. `Duration::ZERO` turns
    /// the pace off, which is the default.
    #[must_use]
    pub fn pace(mut self, interval: Duration) -> Self {
        self.pace = (!interval.is_zero()).then_some(interval);
        self
    }

    /// Sets the longest silence on a stream: a heartbeat line is sent when nothing else
    /// was. `Duration::ZERO` turns heartbeats off. Default: 30 s, which
    /// is below the idle time-out of every common proxy. A stream of several
    /// channels has the shortest interval of theirs.
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = (!interval.is_zero()).then_some(interval);
        self
    }

    /// Sets the maximum number of clients. Another client receives a response to retry
    /// later. Default: no limit.
    #[must_use]
    pub fn max_clients(mut self, clients: usize) -> Self {
        self.clients_max = clients;
        self
    }

    /// Adds a header to every response that opens a stream of this channel.
    ///
    /// # Errors
    /// When the name or the value is invalid in a header, and when the engine sets
    /// the header itself, such as `Content-Type`.
    pub fn header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Result<Self, HeaderError> {
        let name = name.into();
        check_stream_header(&name)?;
        self.headers.insert(name, value)?;
        Ok(self)
    }

    /// Sets the policy for a client that falls too far behind. Default:
    /// [`LagPolicy::Disconnect`]. A stream of several channels is disconnected if one
    /// of them has this policy.
    #[must_use]
    pub fn lag_policy(mut self, policy: LagPolicy) -> Self {
        self.lag_policy = policy;
        self
    }

    /// Sets the maximum backlog of the slowest connected client, in bytes. The backlog
    /// is in the channel's log, once for all slow clients. One event always has room.
    /// Default: 8 MiB.
    #[must_use]
    pub fn backlog_bytes_max(mut self, bytes: usize) -> Self {
        self.backlog_bytes_max = bytes;
        self
    }

    /// Sets the maximum size of one event on the wire, in bytes. A larger one is
    /// rejected. Default: 1 MiB.
    #[must_use]
    pub fn event_bytes_max(mut self, bytes: usize) -> Self {
        self.event_bytes_max = bytes;
        self
    }

    /// The time for which a finished channel keeps its name and answers
    /// `204 No Content`, so that browsers stop reconnecting. Then the name is
    /// free for a new channel. Until then its history does not age. Clients that are still reading receive all of
    /// the finished one, however slowly they read
    /// ([`Limits::stall_timeout`](crate::Limits::stall_timeout)). A stream that
    /// has other channels as well ends when it was sent all of this one: it
    /// misses nothing when it comes back, to the new channel of that name if
    /// the route makes one. Default: 60 s.
    #[must_use]
    pub fn finished_for(mut self, duration: Duration) -> Self {
        self.finished_for = duration;
        self
    }

    /// Indexes a field of the clients' metadata. Then the cost of
    /// [`broadcast_where`](crate::Channel::broadcast_where) with a condition on the field
    /// grows with the matching clients and not with all. Each client that has the field
    /// needs some 150 bytes more. Default: none.
    #[must_use]
    pub fn index(mut self, field: impl Into<Box<str>>) -> Self {
        let field = field.into();
        if !self.indexed.contains(&field) {
            self.indexed.push(field);
        }
        self
    }

    /// Sets the maximum rate of events that are published to the channel, with a burst.
    /// More are rejected with
    /// [`PublishError::RateLimited`](crate::PublishError::RateLimited).
    /// Default: no limit.
    #[must_use]
    pub fn publish_rate(mut self, rate: Rate) -> Self {
        self.publish_rate = Some(rate);
        self
    }

    /// Streams to clients that take gzip are compressed: events of `bytes` or
    /// more once for all of them, by the thread that publishes; smaller ones
    /// go out as they are. No client costs more memory for it, and no event
    /// waits for another. The log holds each event in both forms. Default:
    /// nothing is compressed. A stream of several channels is compressed if
    /// all of them are.
    #[must_use]
    pub fn compress_from(mut self, bytes: usize) -> Self {
        self.compress_from = Some(bytes);
        self
    }

    /// What holds for a stream of all these channels: the shortest heartbeat,
    /// no skipping where one of them disconnects, and a pace where all have one.
    pub(crate) fn of_all<'a>(
        mut all: impl Iterator<Item = &'a Arc<ChannelOptions>>,
    ) -> Arc<ChannelOptions> {
        let mut options = all.next().cloned().unwrap_or_default();
        let mut pace = options.pace.filter(|_| options.conflates());
        for other in all {
            let others = other.pace.filter(|_| other.conflates());
            pace = pace.zip(others).map(|(one, other)| one.min(other));
            let heartbeats = options.heartbeat.into_iter().chain(other.heartbeat);
            let heartbeat = heartbeats.min();
            let lag_policy = match other.lag_policy {
                LagPolicy::Disconnect => LagPolicy::Disconnect,
                _ => options.lag_policy,
            };
            if (heartbeat, lag_policy) != (options.heartbeat, options.lag_policy) {
                let options = Arc::make_mut(&mut options);
                (options.heartbeat, options.lag_policy) = (heartbeat, lag_policy);
            }
        }
        if options.pace != pace {
            Arc::make_mut(&mut options).pace = pace;
        }
        options
    }

    pub(crate) fn conflates(&self) -> bool {
        self.lag_policy == LagPolicy::Conflate
    }

    pub(crate) fn bounds(&self) -> Bounds {
        let keeps_others = self.conflates() && self.history.is_none();
        Bounds {
            history: if keeps_others {
                CONFLATED
            } else {
                self.history
            },
            keyed: self.keyed_state,
            backlog_bytes_max: self.backlog_bytes_max,
        }
    }
}
