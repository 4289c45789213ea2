//! The figures of channels.

use std::sync::Arc;

use super::id::EventId;

/// The figures of one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelStats {
    /// The channel's name.
    pub name: Arc<str>,
    /// The number of clients.
    pub clients: usize,
    /// Events published since the channel was made.
    pub published: u64,
    /// Events written to clients since then: each client counts.
    pub delivered: u64,
    /// Gap events written to clients.
    pub gaps: u64,
    /// Events in its log.
    pub history_events: usize,
    /// Bytes of these events, bookkeeping included.
    pub history_bytes: usize,
    /// Keys with an event in the log, in a channel that conflates.
    pub keys: usize,
    /// Keys that were evicted since the channel was made.
    pub keys_evicted: u64,
    /// The id of the oldest event in the log.
    pub oldest: Option<EventId>,
    /// The id of the newest event in the log.
    pub newest: Option<EventId>,
}

/// The figures of all channels.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The number of channels.
    pub channels: usize,
    /// The number of their clients. A stream of several channels counts once for each.
    pub clients: usize,
    /// The figures of each channel, in the order of their names.
    pub channel_stats: Vec<ChannelStats>,
}
