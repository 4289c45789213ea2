//! A response from another thread.

use std::fmt;
use std::sync::Arc;

use super::response::{IntoResponse, Response};
use crate::hub::EngineState;

/// The right, and the duty, to respond to one request; see [`Response::deferred`]. If it is
/// dropped without a response, the client receives `500 Internal Server Error`.
#[must_use = "the client waits for the response"]
pub struct Responder {
    /// Called once. `None` after that.
    send: Option<Box<dyn FnOnce(Response) + Send + Sync>>,
    engine: Arc<EngineState>,
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}

impl Responder {
    pub(crate) fn new(
        engine: Arc<EngineState>,
        send: impl FnOnce(Response) + Send + Sync + 'static,
    ) -> Responder {
        Responder {
            send: Some(Box::new(send)),
            engine,
        }
    }

    /// Responds with anything that a handler may return, subscriptions and streams
    /// included. If the client has disconnected, the response is dropped.
    pub fn respond(mut self, response: impl IntoResponse) {
        self.send(response.into_response());
    }

    /// Whether the engine has begun to shut down. A request without a response at the
    /// shutdown's deadline gets none.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.engine.is_draining()
    }

    fn send(&mut self, response: Response) {
        if let Some(send) = self.send.take() {
            send(response);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.send.is_some() {
            let message = "the handler gave no answer: its responder was dropped";
            self.send(Response::error(500, "no_answer", message));
        }
    }
}
