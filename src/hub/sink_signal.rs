//! What a private channel and its sink share.
//!
//! The sink waits in its [`SinkSignal`] until the client has been sent something, and finds
//! there why the stream has ended, when the channel is gone already.

use std::sync::{Condvar, OnceLock};

use super::client::DisconnectReason;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct SinkSignal {
    pub(super) changed: Condvar,
    ended: OnceLock<DisconnectReason>,
}

impl SinkSignal {
    /// Wakes a sink that waits.
    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Notes why the stream has ended; the first reason counts.
    pub(super) fn end(&self, reason: DisconnectReason) {
        let _ = self.ended.set(reason);
    }

    /// Returns why the stream has ended, if it has.
    pub(crate) fn ended(&self) -> Option<DisconnectReason> {
        self.ended.get().copied()
    }
}
