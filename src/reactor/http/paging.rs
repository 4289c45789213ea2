//! Subscriptions that are answered once: with a page of what there is, or of what comes.
//!
//! A page that is there is a response like any other. A client that waits for one receives
//! the head of its response at once, and joins its channels as the client of a stream does:
//! what it costs from then on does not depend on its request.

use super::next::Next;
use super::opening::Asked;
use super::{Http, Opening};
use crate::exchange::{Request, Response, Subscription};
use crate::http::{Headers, Method};
use crate::hub::{Asking, Form};
use crate::reactor::io::Io;
use crate::reactor::io::net::Net;

/// The headers of every page: what it holds depends on the credentials and on the position
/// of the request, and is right only at that moment.
const PAGE_HEADERS: [(&str, &str); 2] = [
    ("Content-Type", "application/json"),
    ("Cache-Control", "private, no-cache"),
];

/// The headers of a request that a page depends on.
const VARY: &str = "Accept, Authorization, Last-Event-ID";

/// The events on a page that are as much work as one request. So a page of as many events as
/// one locked section looks at is as much work as 64.
const EVENTS_A_REQUEST: usize = 16;

impl Http {
    /// Answers with a page of the subscription's channels. If there is nothing for the
    /// client, it waits for so long.
    pub(super) fn answer_once<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        request: &Request,
        subscription: &mut Subscription,
        headers: Headers,
    ) -> Next {
        let mut headers = self.all_headers(headers, subscription);
        let added = headers.append("Vary", VARY);
        added.expect("a list of names is valid in a header");
        if let Some(full) = io.acceptor.overflow(key) {
            return self.refuse_for_room(io, key, request, full.why(), &headers);
        }
        let wait = subscription.answer_once.unwrap_or_default();
        let waits = !wait.is_zero() && *request.method() != Method::Head;
        let mut asked = Asked::of(self.hub(), request, subscription);
        let (connection, address) = (io.connection_id(key), request.client_address());
        let asking = self.hub().ask(asked.join(connection, address), waits);
        let reading = match asking {
            Ok(Asking::Reads(reading)) => reading,
            Ok(Asking::Waits(joined)) => {
                self.write_open_head(io, PAGE_HEADERS, &headers, []);
                // There is no place in a page for what the hook sends.
                self.call_on_connect(&io.turn, request, subscription, asked.id);
                return Next::Open(Box::new(Opening {
                    channels: asked.channels,
                    joined,
                    form: Form::Page,
                    wait: Some(wait),
                    packed: None,
                    replay_end: None,
                    names_position: false,
                    expires_in: subscription.expires_in,
                    on_open: None,
                    is_gone: false,
                }));
            }
            Err(error) => return self.refuse_join(io, key, request, error, &headers),
        };
        let page = self.hub().page(reading);
        let mut response = Response::json(&page);
        // A page is as much work as so many requests without one.
        io.turn.spent.requests += page.events.len() / EVENTS_A_REQUEST;
        response.headers = headers;
        for (name, value) in PAGE_HEADERS {
            let added = response.headers.insert(name, value);
            added.expect("a name and a value of the engine's own are valid");
        }
        response.set_etag(&page.newest);
        self.write_response(io, key, request, &response)
    }
}
