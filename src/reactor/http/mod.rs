//! HTTP: from bytes to responses.
//!
//! [`Http`] accepts connections, reads requests from them, runs the handlers, and
//! writes the responses, in order. It does not know streams: a request for one ends
//! with an [`Opening`], which its caller starts.
//!
//! | file | content |
//! | --- | --- |
//! | `requests` | a connection's requests and responses, in order, within the budgets |
//! | `listener`, `preface` | accepted connections, and the PROXY header before their first request |
//! | `answers` | a request, its handler and the answer |
//! | `lines` | requests that are read line by line, with a response beside them |
//! | `opening` | answers that open a stream |
//! | `paging` | subscriptions that are answered once |
//! | `responses` | answers as bytes |
//! | `exchanges` | requests that another server has read |
//! | `handing_over` | connections that the program serves itself |
//! | `replies`, `timeouts` | what comes from other threads, and timers that have fired |
//! | `deadlines` | the time that a client has for its request and its response |
//!
//! The invariants: one read is used up before the next, so a connection holds at most
//! one read of input that waits; and what a slice leaves over is queued.

mod answers;
mod deadlines;
mod exchanges;
mod handing_over;
mod lines;
mod listener;
mod next;
mod opening;
mod paging;
mod preface;
mod replies;
mod requests;
mod responses;
#[cfg(test)]
mod tests;
mod timeouts;

use std::collections::VecDeque;
use std::sync::Arc;

use super::streams::opening::Opening;
use crate::exchange::{CommandQueue, HandedOver, InFlight, Rejection, Request, Response};
use crate::http::Headers;
use crate::hub::manager::ChannelManager;
use crate::hub::{Attachment, Hub};
use crate::proxies::Proxies;

/// What answers requests: the router, as the reactor sees it.
pub(crate) trait Service: Send + Sync {
    /// Answers at once; a panic is caught and answered for it.
    fn call(&self, request: &mut Request) -> Response;

    /// Answers a request whose body has yet to arrive, if it needs none of it.
    fn admit(&self, request: &mut Request) -> Option<Response>;

    /// Looks at every answer before it is written.
    fn finish(&self, request: &Request, response: &mut Response);

    /// Whether the program serves some connections itself.
    fn hands_over(&self) -> bool {
        false
    }

    /// Whether no route takes this request.
    fn is_for_program(&self, _method: &str, _path: &str) -> bool {
        false
    }

    /// Receives a connection that the program serves itself.
    fn hand_over(&self, _connection: HandedOver) {}

    /// Receives each malformed request and the response to it.
    fn on_refusal(&self, rejection: &Rejection<'_>);
}

/// See the [module](self).
pub(crate) struct Http {
    service: Arc<dyn Service>,
    channels: ChannelManager,
    /// Sinks are ended through it.
    attachment: Arc<Attachment>,
    in_flight: InFlight,
    /// Whether the program serves connections whose requests no route takes.
    hands_over: bool,
    /// On every response.
    headers: Headers,
    proxies: Proxies,
    /// Where deferred answers come from.
    command_queue: CommandQueue,
    date: Date,
    /// Connections that stopped for their budget's sake, by token.
    queue: VecDeque<u64>,
    /// Answers before they are written: those of one connection at a time.
    output: Vec<u8>,
}

/// The value of the header `Date`, made once a second.
struct Date {
    second: u64,
    text: String,
}

impl Http {
    pub(crate) fn new(
        service: Arc<dyn Service>,
        channels: ChannelManager,
        attachment: Arc<Attachment>,
        in_flight: InFlight,
        headers: Headers,
        proxies: Proxies,
        command_queue: CommandQueue,
    ) -> Http {
        Http {
            date: Date {
                second: u64::MAX,
                text: String::new(),
            },
            hands_over: service.hands_over(),
            service,
            channels,
            attachment,
            in_flight,
            headers,
            proxies,
            command_queue,
            queue: VecDeque::new(),
            output: Vec::new(),
        }
    }

    /// How other threads reach this reactor.
    pub(crate) fn command_queue(&self) -> &CommandQueue {
        &self.command_queue
    }

    /// Whether connections wait for their turn.
    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    fn hub(&self) -> &Arc<Hub> {
        self.channels.hub()
    }
}
