//! The events that `on_connect` sends to its client.

use std::borrow::Borrow;
use std::fmt;

use crate::event::{Event, EventError};
use crate::frame::Frame;
use crate::hub::published::PublishError;

/// Maximum size of a [`Welcome`], in bytes on the wire: that of a channel's backlog
/// by default.
pub const WELCOME_BYTES_MAX: usize = 8 << 20;

/// The first events of a stream that are for its client alone; see
/// [`Subscription::on_connect`](crate::Subscription::on_connect).
///
/// They follow the missed events that the client is sent, and come before all
/// events that are published while `on_connect` runs. They are not kept in a
/// channel: they have no ids, and a client that comes back is sent a new welcome.
#[derive(Default)]
pub struct Welcome {
    bytes: Vec<u8>,
}

impl fmt::Debug for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Welcome")
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

impl Welcome {
    /// Adds an event.
    ///
    /// # Errors
    /// When the event cannot be written or has an id, and when the welcome would
    /// have more than [`WELCOME_BYTES_MAX`] bytes. Then the event is left out.
    pub fn send<'a>(&mut self, event: impl Borrow<Event<'a>>) -> Result<(), PublishError> {
        let event = event.borrow();
        if event.id().is_some() {
            return Err(EventError::IdInWelcome.into());
        }
        let frame = Frame::encode(event, "")?;
        let bytes = self.bytes.len() + frame.len();
        if bytes > WELCOME_BYTES_MAX {
            let max = WELCOME_BYTES_MAX;
            return Err(PublishError::TooLarge { bytes, max });
        }
        self.bytes.extend_from_slice(frame.as_bytes());
        Ok(())
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_welcome_is_its_events_in_a_row_without_ids() {
        let mut welcome = Welcome::default();
        welcome.send(Event::new("hello", "ann")).unwrap();
        let with_id = welcome.send(Event::message("x").with_id("order-17"));
        assert_eq!(with_id, Err(EventError::IdInWelcome.into()));
        assert!(welcome.send(Event::new("a\nb", "x")).is_err());
        welcome.send(Event::message("here")).unwrap();
        assert_eq!(
            welcome.into_bytes(),
            b"event: hello\ndata: ann\n\ndata: here\n\n"
        );
    }

    #[test]
    fn a_welcome_has_a_maximum_size() {
        let mut welcome = Welcome::default();
        let half = "x".repeat(WELCOME_BYTES_MAX / 2);
        welcome.send(Event::message(&half)).unwrap();
        let too_large = welcome.send(Event::message(&half));
        assert!(matches!(too_large, Err(PublishError::TooLarge { .. })));
        welcome.send(Event::message("x")).unwrap();
    }
}
