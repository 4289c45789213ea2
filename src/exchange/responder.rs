//! [`Responder`]: the response to a request from another thread.

use std::fmt;
use std::sync::Arc;

use super::response::{IntoResponse, Response};
use crate::hub::EngineState;

/// Responds to one request, from any thread; see [`Response::deferred`]. If it is dropped
/// without a response, the client receives `500 Internal Server Error`.
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

    /// Responds with any value that a handler may return, including subscriptions and
    /// streams. If the client has gone, the response is dropped.
    pub fn respond(mut self, response: impl IntoResponse) {
        self.send(response.into_response());
    }

    /// Returns whether the engine has begun to shut down. A request without a response at
    /// the deadline of the shutdown receives none.
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
            let message = "the handler sent no response. The server's log may have the cause";
            self.send(Response::error(500, "no_answer", message));
        }
    }
}
