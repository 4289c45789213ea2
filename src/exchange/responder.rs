//! An answer from another thread.

use std::fmt;

use super::command_queue::{Command, CommandQueue};
use super::in_flight::Ticket;
use super::response::{IntoResponse, Response};

/// The right, and the duty, to answer one request; see
/// [`Response::deferred`]. One that is dropped without an answer gives
/// `500 Internal Server Error`.
#[must_use = "the client waits for the answer"]
pub struct Responder {
    /// Taken by the answer.
    address: Option<(CommandQueue, u64, u32, Ticket)>,
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}

impl Responder {
    pub(crate) fn new(
        command_queue: CommandQueue,
        token: u64,
        request: u32,
        ticket: Ticket,
    ) -> Responder {
        Responder {
            address: Some((command_queue, token, request, ticket)),
        }
    }

    /// Answers, with anything that a handler may return, subscriptions and
    /// streams included. If the client has gone, the answer goes nowhere.
    pub fn respond(mut self, response: impl IntoResponse) {
        self.send(response.into_response());
    }

    /// Whether the engine has begun to shut down. A request that is not
    /// answered at the shutdown's deadline is not answered at all.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        let address = self.address.as_ref();
        address.is_some_and(|(command_queue, ..)| command_queue.engine().is_draining())
    }

    fn send(&mut self, response: Response) {
        if let Some((command_queue, token, request, ticket)) = self.address.take() {
            let response = Box::new(response);
            command_queue.send(Command::Answer {
                token,
                request,
                response,
                ticket,
            });
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.address.is_some() {
            let message = "the handler gave no answer: its responder was dropped";
            self.send(Response::error(500, "no_answer", message));
        }
    }
}
