//! The result of a publish.

use std::fmt;
use std::time::Duration;

use super::id::EventId;
use crate::event::EventError;

/// The result of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The id of the (last) event, as clients see it. `None` only where the events are
    /// queued for a journal and have no id yet: after a publish from a callback or
    /// another call on a thread of the engine, which does not wait for the journal.
    pub id: Option<EventId>,
    /// The number of events that were appended.
    pub events: usize,
    /// The number of connected clients that they are for.
    pub clients: usize,
    /// Number of events that were not appended, because their own
    /// ids are known: their publisher had published them before.
    pub duplicates: usize,
    /// Whether this is the result of an earlier publish with the same
    /// [idempotency key](crate::PublishOptions::idempotency_key): nothing was done this
    /// time. `clients` may then be 0 if the first publish was before a restart.
    pub is_repeated: bool,
}

impl Published {
    /// Returns the result of a publish of no events.
    pub(super) fn nothing(id: Option<EventId>, clients: usize) -> Published {
        Published {
            id,
            events: 0,
            clients,
            duplicates: 0,
            is_repeated: false,
        }
    }

    /// Returns the result for events that were all published before.
    pub(super) fn repeated(id: EventId, count: usize) -> Published {
        Published {
            id: Some(id),
            events: 0,
            clients: 0,
            duplicates: count,
            is_repeated: false,
        }
    }
}

/// The log in which changes are kept before they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeLog {
    /// A [journal](crate::ChannelManagerBuilder::open_journal) on this machine.
    Journal,
    /// The log of a [cluster](crate::ChannelManagerBuilder::join_cluster), at its broker.
    Broker,
}

impl ChangeLog {
    /// Returns its name in a sentence.
    pub(super) fn name(self) -> &'static str {
        match self {
            ChangeLog::Journal => "journal",
            ChangeLog::Broker => "broker",
        }
    }
}

/// Why an event was not published. Nothing of it was appended, except that
/// [`Unconfirmed`](Self::Unconfirmed) leaves it open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// The event cannot be written as it is.
    Event(EventError),
    /// The event is larger on the wire than the channel accepts.
    TooLarge {
        /// Its size, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// The channel was closed or removed.
    Closed,
    /// The channel is finished.
    Finished,
    /// More is published to the channel than its options allow.
    RateLimited {
        /// The time after which there is room for the events.
        retry_after: Duration,
    },
    /// Another event with the same own id is known, or two events of one batch share
    /// an own id.
    IdReused {
        /// The id.
        id: String,
    },
    /// The idempotency key is that of another publish.
    KeyReused,
    /// A publish with the idempotency key waits for the journal or the broker.
    KeyInFlight {
        /// The time after which to publish again.
        retry_after: Duration,
    },
    /// The channel has an event after the one that was to be its newest.
    NotNewest {
        /// The newest event, if there ever was one.
        newest: Option<EventId>,
    },
    /// The events times the channels of a publish to several channels are too many.
    TooManyEntries {
        /// Their number.
        entries: usize,
        /// The limit.
        max: usize,
    },
    /// The log cannot be written, or did not accept the events in time. They are not
    /// published.
    Unavailable {
        /// The log.
        log: ChangeLog,
        /// The time after which to publish again.
        retry_after: Duration,
    },
    /// The journal or the broker has not confirmed the events in time. They may have been
    /// published, or may be later.
    Unconfirmed,
    /// Too many events wait for the log. These are not published.
    Busy {
        /// The log.
        log: ChangeLog,
        /// The time after which to publish again.
        retry_after: Duration,
    },
}

impl PublishError {
    /// Returns a stable name for the error, which the server's JSON uses.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            PublishError::Event(error) => error.code(),
            PublishError::TooLarge { .. } => "event_too_large",
            PublishError::Closed => "channel_closed",
            PublishError::Finished => "channel_finished",
            PublishError::RateLimited { .. } => "rate_limited",
            PublishError::IdReused { .. } => "id_reused",
            PublishError::KeyReused => "key_reused",
            PublishError::KeyInFlight { .. } => "key_in_flight",
            PublishError::NotNewest { .. } => "not_newest",
            PublishError::TooManyEntries { .. } => "too_many_entries",
            PublishError::Unavailable { log, .. } => match log {
                ChangeLog::Journal => "journal_unavailable",
                ChangeLog::Broker => "broker_unavailable",
            },
            PublishError::Unconfirmed => "publish_unconfirmed",
            PublishError::Busy { log, .. } => match log {
                ChangeLog::Journal => "journal_busy",
                ChangeLog::Broker => "broker_busy",
            },
        }
    }

    /// Returns the time after which to publish again, for an error that passes.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            PublishError::RateLimited { retry_after }
            | PublishError::KeyInFlight { retry_after }
            | PublishError::Unavailable { retry_after, .. }
            | PublishError::Busy { retry_after, .. } => Some(*retry_after),
            PublishError::Event(_)
            | PublishError::TooLarge { .. }
            | PublishError::Closed
            | PublishError::Finished
            | PublishError::IdReused { .. }
            | PublishError::KeyReused
            | PublishError::NotNewest { .. }
            | PublishError::TooManyEntries { .. }
            | PublishError::Unconfirmed => None,
        }
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Event(error) => error.fmt(f),
            PublishError::TooLarge { bytes, max } => write!(
                f,
                "the event has {bytes} bytes, but the channel accepts {max}. Send less, or a link"
            ),
            PublishError::Closed => f.write_str(
                "the channel was closed. Get it from the manager again to open a new one",
            ),
            PublishError::Finished => f.write_str(
                "the channel is finished and accepts no more events. Publish to another one",
            ),
            PublishError::RateLimited { retry_after } => write!(
                f,
                "too many events for the rate limit. Retry after {} ms",
                retry_after.as_millis()
            ),
            PublishError::IdReused { id } => write!(
                f,
                "the id `{id}` belongs to another event. Use a different id for each event, and \
                 repeat an event without changes"
            ),
            PublishError::KeyReused => f.write_str(
                "the idempotency key belongs to another publish. Use a different key for each \
                 publish, and repeat a publish without changes",
            ),
            PublishError::KeyInFlight { .. } => f.write_str(
                "a publish with this idempotency key is in progress. Repeat it later to get its \
                 result",
            ),
            PublishError::NotNewest { newest } => match newest {
                Some(id) => write!(
                    f,
                    "the channel has newer events, up to `{id}`. Read these, and publish again"
                ),
                None => f.write_str(
                    "the channel has no events, so none is its newest. Publish without a condition",
                ),
            },
            PublishError::TooManyEntries { entries, max } => write!(
                f,
                "the events for all of the channels are {entries}, and the maximum is {max}. Publish \
                 fewer events at once, or to fewer channels"
            ),
            PublishError::Unavailable { log, .. } => write!(
                f,
                "the {} cannot be written, so nothing was published. Publish again later",
                log.name()
            ),
            PublishError::Unconfirmed => f.write_str(
                "the events were not confirmed in time, so they may have been published. Publish \
                 again with the same idempotency key, which prevents duplicates",
            ),
            PublishError::Busy { log, .. } => write!(
                f,
                "too many events wait for the {}, so these were not published. Publish again later",
                log.name()
            ),
        }
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            PublishError::Event(error) => Some(error),
            _ => None,
        }
    }
}

impl From<EventError> for PublishError {
    fn from(error: EventError) -> Self {
        PublishError::Event(error)
    }
}
