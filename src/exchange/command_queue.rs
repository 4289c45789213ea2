//! The command_queue: how other threads hand a reactor what is not an event.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::in_flight::Ticket;
use super::response::Response;
use super::shutdown::Shutdown;
use crate::hub::Hub;
use crate::limits::Limits;

/// What a reactor finds in its command_queue.
pub(crate) enum Command {
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

/// One end of a reactor's command_queue. Its commands are bounded by
/// `requests_in_flight_max`: each deferred request is answered once.
#[derive(Clone)]
pub(crate) struct CommandQueue {
    sender: Sender<Command>,
    hub: Arc<Hub>,
    reactor: u16,
}

impl CommandQueue {
    pub(crate) fn new(hub: &Arc<Hub>, reactor: u16) -> (CommandQueue, Receiver<Command>) {
        let (sender, receiver) = unbounded();
        let command_queue = CommandQueue {
            sender,
            hub: hub.clone(),
            reactor,
        };
        (command_queue, receiver)
    }

    /// Whether the reactor's engine has begun to shut down.
    pub(crate) fn is_draining(&self) -> bool {
        self.hub.is_draining()
    }

    /// Delivers a command and sees to it that it is read. A reactor that is
    /// gone reads nothing, and has nobody to answer either.
    pub(crate) fn send(&self, command: Command) {
        if self.sender.send(command).is_ok() {
            self.hub.wake_reactor(self.reactor);
        }
    }
}
