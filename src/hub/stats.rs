//! The figures of channels.

use std::sync::Arc;

use super::id::EventId;

/// The figures of one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelStats {
    /// The channel's name.
    pub name: Arc<str>,
    /// How many clients are subscribed.
    pub clients: usize,
    /// How many events were published, ever.
    pub published: u64,
    /// How many events were written to clients, ever: each client counts.
    pub delivered: u64,
    /// How many times a client was told of a gap.
    pub gaps: u64,
    /// How many events its log holds.
    pub history_events: usize,
    /// How many bytes these take, bookkeeping included.
    pub history_bytes: usize,
    /// How many keys have an event in it, in a channel that conflates.
    pub keys: usize,
    /// How many keys were evicted by the bounds of the keyed state, ever.
    pub keys_evicted: u64,
    /// The id of the oldest of them.
    pub oldest: Option<EventId>,
    /// The id of the newest of them.
    pub newest: Option<EventId>,
}

/// The figures of all channels.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// How many channels there are.
    pub channels: usize,
    /// How many clients they have, a stream of several channels counted once
    /// for each.
    pub clients: usize,
    /// Each channel's own figures, in the order of their names.
    pub channel_stats: Vec<ChannelStats>,
}
