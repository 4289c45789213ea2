//! What an engine says of itself: [`Metrics`], a picture of its counters.
//!
//! Nothing in here grows with what clients do: there is a fixed number of
//! counters, and no name that a client chose.
//!
//! | file | has |
//! | --- | --- |
//! | `codes` | the codes of refusals that are counted each by itself |
//! | `histogram` | how long things take |
//! | `meters` | the counters, as a reactor keeps them |

pub(crate) mod codes;
mod histogram;
mod meters;

use std::time::Duration;

use crate::hub::client::DisconnectReason;

pub use histogram::Histogram;
pub(crate) use meters::Meters;

/// The figures of a manager's channels and of the engines that have served it; see
/// [`EngineHandle::metrics`](crate::EngineHandle::metrics) and
/// [`Request::metrics`](crate::Request::metrics).
///
/// Counters only rise, also when another engine serves the manager later. They are
/// read one after the other while the engine runs, so two of them may be a moment
/// apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Time since the manager was made.
    pub uptime: Duration,
    /// Connections that are open, streams and others.
    pub connections: u64,
    /// Connections that were accepted.
    pub connections_accepted: u64,
    /// How often a connection found no room, for want of descriptors or by a
    /// limit, or was gone before it was accepted.
    pub connections_refused: u64,
    /// Whether there is no room for more connections: there are as many as there
    /// may be, or the descriptors have run out.
    pub is_full: bool,
    /// Streams that are open. Each has one client.
    pub clients: u64,
    /// Streams that began.
    pub streams_opened: u64,
    /// Streams that ended, by why they did: each reason there is, in the order
    /// of [`DisconnectReason::ALL`].
    pub streams_ended: Vec<(DisconnectReason, u64)>,
    /// Requests that were answered, by the first digit of the status: 1 to 5.
    /// A stream is answered when it begins.
    pub answers: [u64; 5],
    /// Requests that were refused, by the code of the error: each code that the
    /// engine knows, and at last `other`.
    pub refusals: Vec<(&'static str, u64)>,
    /// Named channels.
    pub channels: u64,
    /// Named channels that subscriptions made and no publisher has published to:
    /// see [`ChannelManager::get_or_create_for_subscriber`](crate::ChannelManager::get_or_create_for_subscriber).
    pub channels_unpublished: u64,
    /// Such channels that were closed to make room for a publisher's channel.
    pub channels_displaced: u64,
    /// Bytes that all channels hold: histories, events that slow clients have
    /// yet to be sent, and bookkeeping.
    pub log_bytes: u64,
    /// The most that this may be, if it has a limit:
    /// [`ChannelManagerBuilder::history_total`](crate::ChannelManagerBuilder::history_total).
    pub log_bytes_max: Option<u64>,
    /// Events that were evicted because of this limit.
    pub events_evicted: u64,
    /// Keys that were evicted from the state of channels that conflate, because of
    /// [`ChannelOptions::keyed_state`](crate::ChannelOptions::keyed_state) or the
    /// limit on all logs.
    pub keys_evicted: u64,
    /// Events that were published, to channels and to streams of one client.
    pub events_published: u64,
    /// The bytes of these, as they go over the wire to one client.
    pub event_bytes_published: u64,
    /// Events that were written whole, once for each client.
    pub deliveries: u64,
    /// Gaps that clients were told of.
    pub gaps: u64,
    /// Heartbeats that were due and sent.
    pub heartbeats: u64,
    /// Bytes that were read from all connections.
    pub bytes_read: u64,
    /// Bytes that the system took for all connections.
    pub bytes_written: u64,
    /// Clients that have not taken all that there is for them.
    pub clients_behind: u64,
    /// How long the loop was busy in each of its turns, without its sleep.
    pub turns: Histogram,
    /// How long it took from the publishing of an event until the last client
    /// that keeps up had it. Of events that are gathered together the oldest
    /// counts, and the end of the turn of the last write: some hundred
    /// microseconds too much at the most. Not measured are events for some
    /// clients only, and what clients get that are behind.
    pub latency: Histogram,
}

impl Metrics {
    /// Sets to zero the numbers of connections and clients that there are, as when an
    /// engine has ended.
    pub(crate) fn close_all(&mut self) {
        self.connections = 0;
        self.is_full = false;
        self.clients = 0;
        self.clients_behind = 0;
    }
}

/// What waits for clients that are behind, and what the logs hold: see
/// [`ChannelManager::backlog`](crate::ChannelManager::backlog).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// Events that some connected client has yet to be sent.
    pub events: u64,
    /// The bytes of these, as they go over the wire.
    pub bytes: u64,
    /// Events that the logs hold, those that wait included.
    pub log_events: u64,
    /// The bytes that these take, bookkeeping included.
    pub log_bytes: u64,
}
