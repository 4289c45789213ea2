//! The data of a gap event: what a client asked for, and what there is instead.

use std::fmt;

use serde_json::json;

use super::id::EventId;

/// A hole in a client's stream. Displays as the JSON of the event `pushwheel.gap`,
/// which is written when the hub's lock is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The id after which events are missing, as the client wrote it.
    pub(crate) requested: Option<String>,
    /// The oldest event that is there for the client.
    pub(crate) oldest: Option<EventId>,
    /// The newest event that is there for the client, or the newest number.
    pub(crate) newest: EventId,
    pub(crate) reason: &'static str,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = json!({
            "requested": self.requested,
            "oldest": self.oldest.as_ref().map(EventId::text),
            "newest": self.newest.text(),
            "reason": self.reason,
        });
        json.fmt(f)
    }
}
