//! A client that joins channels: what it asks for, and what it receives.

use std::net::SocketAddr;
use std::sync::Arc;

use super::audience::Audience;
use super::client::{ClientId, ConnectionId, Extra};
use super::entry::Entry;
use super::gap::Gap;
use super::id::EventId;
use super::key::ChannelKey;
use super::merged::ChannelReader;
use super::options::ChannelOptions;

/// Where a stream begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With what is published from now on. The default.
    #[default]
    Live,
    /// After the event of this id. If events are missing, the stream begins with
    /// a `pushwheel.gap` event.
    After(String),
    /// With the first event that the channel ever had. If the history no longer
    /// holds it, the stream begins with a `pushwheel.gap` event, then the
    /// oldest event that the history holds. A channel that was removed and made
    /// again begins with its first event since then.
    Earliest,
    /// With this number of the last events of the history, at most [`LAST_MAX`].
    /// Events for other clients do not count. The newest 16,384 entries of the channels
    /// are searched.
    Last(usize),
}

/// The most events that [`Start::Last`] begins with.
pub const LAST_MAX: usize = 1_000;

/// A client, and the channels that it joins.
pub(crate) struct Join<'a> {
    pub(crate) channels: &'a [ChannelKey],
    pub(crate) id: ClientId,
    /// Whether the engine generated the id, so that the client comes back under
    /// another one.
    pub(crate) has_generated_id: bool,
    pub(crate) connection: ConnectionId,
    pub(crate) address: SocketAddr,
    pub(crate) extra: Option<Box<Extra>>,
    pub(crate) start: &'a Start,
}

#[cfg(test)]
impl<'a> Join<'a> {
    /// Returns the join of a client without metadata, whose id is of the token.
    pub(super) fn of(channels: &'a [ChannelKey], token: u64, start: &'a Start) -> Join<'a> {
        Join {
            channels,
            id: ClientId::lookup(&format!("client {token}")),
            has_generated_id: false,
            connection: ConnectionId { token, reactor: 0 },
            address: ([127, 0, 0, 1], 9).into(),
            extra: None,
            start,
        }
    }
}

impl Join<'_> {
    /// Returns whether an entry is for this client.
    pub(super) fn admits(&self, entry: &Entry) -> bool {
        self.is_of(entry.audience())
    }

    /// Returns the extra of the member in the next channel. All of them have the
    /// metadata, the first one the hook.
    pub(super) fn extra_of_next(&mut self) -> Option<Box<Extra>> {
        let metadata = self.extra.as_ref().map(|extra| extra.metadata.clone());
        let others = metadata.map(|metadata| {
            Box::new(Extra {
                metadata,
                on_disconnect: None,
            })
        });
        std::mem::replace(&mut self.extra, others)
    }

    /// Returns whether this client is one of an audience.
    pub(super) fn is_of(&self, audience: Option<&Arc<Audience>>) -> bool {
        let metadata = self.extra.as_ref().map(|extra| &*extra.metadata);
        audience.is_none_or(|audience| audience.admits(&self.id, metadata))
    }
}

/// A place in each of the channels, and where to begin.
#[derive(Debug)]
pub(crate) struct Joined {
    /// One for each channel, in the order asked for.
    pub(crate) readers: Vec<ChannelReader>,
    /// Everything up to here counts as seen.
    pub(crate) seen: u64,
    /// The newest number of the channels' sequence at that moment.
    pub(crate) now: u64,
    /// The newest entry in any of the channels. At `seen` or below: the
    /// client is caught up from the start.
    pub(crate) head: u64,
    /// What holds for the stream of all the channels.
    pub(crate) options: Arc<ChannelOptions>,
    /// Up to here, the client is sent only keyed events.
    pub(crate) keyed_through: u64,
    /// Whether one of the channels conflates.
    pub(crate) conflates: bool,
    /// Whether the channels are finished: the stream ends with what they hold.
    pub(crate) is_finished: bool,
    /// Whether the channel is private: the stream is for one client.
    pub(crate) is_private: bool,
    /// Whether the stream is compressed for a client that takes gzip.
    pub(crate) compresses: bool,
    /// The gap event with which the stream has to begin.
    pub(crate) gap: Option<Gap>,
    /// Whether the client has no id of the position at which the stream begins.
    pub(crate) needs_id: bool,
    /// The id of the position at which the stream begins, if there is one.
    pub(crate) opening_id: Option<EventId>,
    /// Whether the last event of the replay may have a doubtful own id. A client
    /// that reconnects with that id receives a gap, although it misses nothing.
    pub(crate) ends_doubtfully: bool,
}

/// Why a client cannot join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinError {
    /// A channel has as many clients as it may have.
    Full,
    /// Every channel is finished, and the client has seen all of it.
    Finished,
    /// A channel was removed in the meantime.
    Closed,
}
