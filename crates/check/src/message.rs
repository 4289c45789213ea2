//! An event as JSON, in the body of a publisher's request.

use serde::Serialize;

/// The body of a request that publishes one event.
#[derive(Debug, Default, Serialize)]
pub struct Message<'a> {
    /// The event's name; empty for none.
    pub event: &'a str,
    /// The event's data.
    pub data: &'a str,
    /// The event's id, if the publisher sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// The reconnection delay, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<u64>,
    /// The conflation key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a str>,
    /// Whether the event removes its key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub remove: bool,
}

impl Message<'_> {
    /// Returns the message as JSON.
    ///
    /// # Panics
    /// Never: strings and numbers are JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers are JSON")
    }
}
