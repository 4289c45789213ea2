//! The command queue: how other threads reach a reactor, apart from events.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::in_flight::Ticket;
use super::responder::Responder;
use super::response::Response;
use super::shutdown::Shutdown;
use crate::hub::held_wakes::{self, Kind, Sleeper};
use crate::hub::{Attachment, EngineState, Hub};
use crate::limits::Limits;

/// A command to a reactor.
pub(crate) enum Command {
    /// The answer to a request that its handler deferred.
    Answer {
        token: u64,
        request: u32,
        response: Box<Response>,
        /// Until it is read, the request is in flight.
        ticket: Ticket,
    },
    /// The reply to a line of a request.
    Line {
        token: u64,
        request: u32,
        line: Option<String>,
        is_last: bool,
    },
    /// Shut down.
    Shutdown(Shutdown),
    /// Replace the limits.
    Limits(Box<Limits>),
    /// Respond, as a proof of life.
    Ping(Sender<()>),
}

/// The sending end of a reactor's command queue. Its answers are bounded by
/// `requests_in_flight_max`: each deferred request is answered once. Its replies to lines
/// are bounded by the lines that each connection has in flight. The other commands
/// come from calls of `EngineHandle`, one per call.
#[derive(Clone)]
pub(crate) struct CommandQueue(Arc<Sending>);

struct Sending {
    sender: Sender<Command>,
    hub: Arc<Hub>,
    engine: Arc<EngineState>,
    reactor: u16,
}

impl CommandQueue {
    pub(crate) fn new(attachment: &Attachment, reactor: u16) -> (CommandQueue, Receiver<Command>) {
        let (sender, receiver) = unbounded();
        let sending = Sending {
            sender,
            hub: attachment.hub().clone(),
            engine: attachment.engine().clone(),
            reactor,
        };
        (CommandQueue(Arc::new(sending)), receiver)
    }

    /// Returns the state of the reactor's engine.
    pub(crate) fn engine(&self) -> &Arc<EngineState> {
        &self.0.engine
    }

    /// Returns the responder to a deferred request.
    pub(crate) fn responder(&self, token: u64, request: u32, ticket: Ticket) -> Responder {
        let queue = self.clone();
        Responder::new(self.0.engine.clone(), move |response| {
            let response = Box::new(response);
            queue.send(Command::Answer {
                token,
                request,
                response,
                ticket,
            });
        })
    }

    /// Sends a command and wakes the reactor. A reactor that has ended drops it.
    pub(crate) fn send(&self, command: Command) {
        if self.0.sender.send(command).is_ok() {
            held_wakes::wake(&self.0);
        }
    }
}

/// The reactor.
impl Sleeper for Sending {
    fn kind(&self) -> Kind {
        Kind::Reactor
    }

    fn wake(&self) {
        self.hub.wake_reactor(self.reactor);
    }

    fn work_here(&self) -> bool {
        false
    }
}
