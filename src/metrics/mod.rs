//! [`Metrics`]: the counters of a manager and its engines at one moment.
//!
//! Nothing here grows with the actions of clients: the number of counters is fixed, and no
//! name comes from a client.
//!
//! | file | has |
//! | --- | --- |
//! | `codes` | the codes of refusals that have a counter of their own |
//! | `histogram` | durations |
//! | `meters` | the counters of one reactor |

pub(crate) mod codes;
mod histogram;
mod meters;

use std::time::Duration;

use crate::disconnect_reason::DisconnectReason;

pub use histogram::Histogram;
pub(crate) use meters::{Meters, Tally};

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
    /// Open connections, streams and others.
    pub connections: u64,
    /// Accepted connections.
    pub connections_accepted: u64,
    /// Connections that were not accepted, because of a limit or without descriptors, or
    /// that were gone before.
    pub connections_refused: u64,
    /// Whether the engine accepts no more connections: it has as many as a limit allows, or
    /// the process has no more descriptors.
    pub is_full: bool,
    /// Threads of the engine that write to many clients with one system call; see
    /// [`EngineBuilder::batch_senders`](crate::EngineBuilder::batch_senders).
    pub batch_senders: u64,
    /// Open streams. Each has one client.
    pub clients: u64,
    /// Streams that began.
    pub streams_opened: u64,
    /// Streams that ended, by reason, in the order of [`DisconnectReason::ALL`].
    pub streams_ended: Vec<(DisconnectReason, u64)>,
    /// Requests that were answered, by the first digit of the status, 1 to 5. A stream
    /// counts when it begins.
    pub answers: [u64; 5],
    /// Requests that were answered with an error, by its code: the engine's codes, those of
    /// [`EngineBuilder::error_codes`](crate::EngineBuilder::error_codes), and `other`.
    pub refusals: Vec<(&'static str, u64)>,
    /// Named channels.
    pub channels: u64,
    /// Named channels that subscriptions made and no publisher has published to:
    /// see [`ChannelManager::get_or_create_for_subscriber`](crate::ChannelManager::get_or_create_for_subscriber).
    pub channels_unpublished: u64,
    /// Such channels that were closed to make room for a publisher's channel.
    pub channels_displaced: u64,
    /// Bytes that all channels hold: histories, backlogs of slow clients, and bookkeeping.
    pub log_bytes: u64,
    /// The limit on these bytes, if there is one:
    /// [`ChannelManagerBuilder::history_total`](crate::ChannelManagerBuilder::history_total).
    pub log_bytes_max: Option<u64>,
    /// Events that were evicted because of this limit.
    pub events_evicted: u64,
    /// Keys that were evicted from the state of channels that conflate, because of
    /// [`ChannelOptions::keyed_state`](crate::ChannelOptions::keyed_state) or the
    /// limit on all logs.
    pub keys_evicted: u64,
    /// Published events, to channels and to streams for one client.
    pub events_published: u64,
    /// Bytes of the published events, as they go over the wire to one client.
    pub event_bytes_published: u64,
    /// Events that were written completely, once for each client.
    pub deliveries: u64,
    /// `pushwheel.gap` events that clients received.
    pub gaps: u64,
    /// Heartbeats that were sent.
    pub heartbeats: u64,
    /// Bytes read from all connections.
    pub bytes_read: u64,
    /// Bytes written to all connections.
    pub bytes_written: u64,
    /// Clients with a backlog.
    pub clients_behind: u64,
    /// Duration of each turn of the loop, without its sleep.
    pub turns: Histogram,
    /// Time from the publishing of an event until it was written to the last client without
    /// a backlog. Of events that are written together the oldest counts, and the end of the
    /// turn of the last write, which is at most some hundred microseconds late. Events for
    /// some clients only, and clients with a backlog, are not measured.
    pub latency: Histogram,
}

impl Metrics {
    /// Sets the numbers of open connections and clients to zero, when an engine has ended.
    pub(crate) fn close_all(&mut self) {
        self.connections = 0;
        self.is_full = false;
        self.batch_senders = 0;
        self.clients = 0;
        self.clients_behind = 0;
    }
}

/// The backlogs of clients and the content of the logs; see
/// [`ChannelManager::backlog`](crate::ChannelManager::backlog).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// Events that wait for at least one connected client.
    pub events: u64,
    /// Bytes of these events, as they go over the wire to one client.
    pub bytes: u64,
    /// Events in the logs, including those that wait.
    pub log_events: u64,
    /// Bytes of the logs, including bookkeeping.
    pub log_bytes: u64,
}
