//! The reasons why clients are disconnected.

use std::fmt;

/// The reason why a client was disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The client closed the connection, or the network did.
    Gone,
    /// It fell further behind than its channel's log reaches.
    Lagged,
    /// It read nothing for
    /// [`Limits::stall_timeout`](crate::Limits::stall_timeout).
    Stalled,
    /// It kept sending bytes, which a subscriber has no reason to do.
    Misbehaved,
    /// Another client subscribed with the same id.
    Replaced,
    /// [`Channel::disconnect`](crate::Channel::disconnect) was called.
    Kicked,
    /// Its channel was closed; or one of its several channels was finished and its
    /// time is over, see
    /// [`ChannelOptions::finished_for`](crate::ChannelOptions::finished_for).
    ChannelClosed,
    /// Its channel or sink was finished, and it was sent everything.
    Finished,
    /// It was [answered once](crate::Subscription::answer_once): it has received its page.
    Answered,
    /// Its credentials ran out, see
    /// [`Subscription::expires_in`](crate::Subscription::expires_in).
    Expired,
    /// Its stream was as old as a stream may become, see
    /// [`Limits::stream_age_max`](crate::Limits::stream_age_max).
    Aged,
    /// The engine shut down.
    Shutdown,
    /// The engine failed: the system's poller did, or a thread of the engine
    /// panicked.
    Failed,
}

impl DisconnectReason {
    /// All reasons.
    pub const ALL: &[DisconnectReason] = &[
        DisconnectReason::Gone,
        DisconnectReason::Lagged,
        DisconnectReason::Stalled,
        DisconnectReason::Misbehaved,
        DisconnectReason::Replaced,
        DisconnectReason::Kicked,
        DisconnectReason::ChannelClosed,
        DisconnectReason::Finished,
        DisconnectReason::Answered,
        DisconnectReason::Expired,
        DisconnectReason::Aged,
        DisconnectReason::Shutdown,
        DisconnectReason::Failed,
    ];

    /// Returns a stable name for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DisconnectReason::Gone => "gone",
            DisconnectReason::Lagged => "lagged",
            DisconnectReason::Stalled => "stalled",
            DisconnectReason::Misbehaved => "misbehaved",
            DisconnectReason::Replaced => "replaced",
            DisconnectReason::Kicked => "kicked",
            DisconnectReason::ChannelClosed => "channel_closed",
            DisconnectReason::Finished => "finished",
            DisconnectReason::Answered => "answered",
            DisconnectReason::Expired => "expired",
            DisconnectReason::Aged => "aged",
            DisconnectReason::Shutdown => "shutdown",
            DisconnectReason::Failed => "failed",
        }
    }
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
