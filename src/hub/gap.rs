//! Gaps: events that a client or a reader has missed for good.

use std::fmt;

use super::id::EventId;

/// The name of the event that says it.
pub(crate) const GAP_NAME: &str = "pushwheel.gap";

/// Missing events. On a stream it is the event `pushwheel.gap`, whose data is this value
/// as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The id after which events are missing, as the client sent it.
    pub requested: Option<String>,
    /// The oldest event that the channel holds for the client.
    pub oldest: Option<EventId>,
    /// The newest event that the channel holds for the client, or the newest id.
    pub newest: EventId,
    /// Why they are missing.
    pub reason: GapReason,
}

impl fmt::Display for Gap {
    /// Writes the JSON of the event `pushwheel.gap`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A map of JSON has its keys in order.
        let json = serde_json::to_value(self).map_err(|_| fmt::Error)?;
        json.fmt(f)
    }
}

/// Why events are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapReason {
    /// A filter chose the clients of an event while this client was away, so it is unknown
    /// whether the event was for it.
    Audience,
    /// The channel no longer holds them.
    Evicted,
    /// The machine has died before they were on the disk, so they may be lost for all
    /// clients.
    Lost,
    /// The id is from before a restart without a saved history, or may be.
    Restart,
    /// The client was too slow.
    Slow,
    /// The id is unknown.
    Unknown,
}

impl GapReason {
    /// Returns the name in the event `pushwheel.gap`, which never changes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::Audience => "audience",
            GapReason::Evicted => "evicted",
            GapReason::Lost => "lost",
            GapReason::Restart => "restart",
            GapReason::Slow => "slow",
            GapReason::Unknown => "unknown",
        }
    }

    /// Returns the reason of this name.
    pub(crate) fn from_name(name: &str) -> Option<GapReason> {
        let all = [
            GapReason::Audience,
            GapReason::Evicted,
            GapReason::Lost,
            GapReason::Restart,
            GapReason::Slow,
            GapReason::Unknown,
        ];
        all.into_iter().find(|reason| reason.as_str() == name)
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
