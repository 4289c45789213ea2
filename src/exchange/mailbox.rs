//! The mailbox: how other threads hand a reactor what is not an event.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::in_flight::Ticket;
use super::response::Response;
use super::shutdown::Shutdown;
use crate::hub::Hub;
use crate::limits::Limits;

/// What a reactor finds in its mailbox.
pub(crate) enum Letter {
    /// The answer to a request that its handler deferred.
    Answer {
        token: u64,
        request: u32,
        response: Box<Response>,
        /// Until it is read, the request is in flight.
        ticket: Ticket,
    },
    /// Finish what is under way, and end.
    Shutdown(Shutdown),
    /// Let these hold from now on.
    Limits(Box<Limits>),
    /// Say that you are there.
    Ping(Sender<()>),
}

/// One end of a reactor's mailbox. Its letters are bounded by
/// `requests_in_flight_max`: each deferred request is answered once.
#[derive(Clone)]
pub(crate) struct Mailbox {
    sender: Sender<Letter>,
    hub: Arc<Hub>,
    reactor: u16,
}

impl Mailbox {
    pub(crate) fn new(hub: &Arc<Hub>, reactor: u16) -> (Mailbox, Receiver<Letter>) {
        let (sender, receiver) = unbounded();
        let mailbox = Mailbox {
            sender,
            hub: hub.clone(),
            reactor,
        };
        (mailbox, receiver)
    }

    /// Whether the reactor's engine has begun to shut down.
    pub(crate) fn is_draining(&self) -> bool {
        self.hub.is_draining()
    }

    /// Delivers a letter and sees to it that it is read. A reactor that is
    /// gone reads nothing, and has nobody to answer either.
    pub(crate) fn send(&self, letter: Letter) {
        if self.sender.send(letter).is_ok() {
            self.hub.rouse(self.reactor);
        }
    }
}
