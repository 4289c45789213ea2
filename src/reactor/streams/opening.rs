//! A stream that is about to begin.

use std::time::Duration;

use super::cursor::ReplayEnd;
use crate::hub::{ChannelKey, Form, Joined};
use crate::packed::Sum;

/// A client that has joined its channels, and whose stream has begun to be written:
/// what was written is out, or among what its connection has not sent yet.
///
/// It has to be [started](super::Streams::start), for the hub has the client.
pub(crate) struct Opening {
    /// In order.
    pub(crate) channels: Vec<ChannelKey>,
    pub(crate) joined: Joined,
    pub(crate) form: Form,
    /// The time after which a client that has received no page receives an empty one.
    pub(crate) wait: Option<Duration>,
    /// The sum of the bytes so far, if the stream is compressed.
    pub(crate) packed: Option<Sum>,
    /// What follows the replay, if there is a replay and anything to follow it.
    pub(crate) replay_end: Option<ReplayEnd>,
    /// Whether heartbeats name the client's position.
    pub(crate) names_position: bool,
    pub(crate) expires_in: Option<Duration>,
    /// The user's code to be called when the stream has started.
    pub(crate) on_open: Option<Box<dyn FnOnce()>>,
    /// Whether the connection has failed meanwhile.
    pub(crate) is_gone: bool,
}
