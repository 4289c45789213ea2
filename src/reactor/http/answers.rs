//! A request, its handler, and the answer.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::next::Next;
use super::{Http, Service, deadlines};
use crate::exchange::{Defer, Kind, Request, Responder, Response, Subscription};
use crate::http::{Headers, Message};
use crate::hub::{Awaited, Released};
use crate::reactor::guard::{catch, guard};
use crate::reactor::io::Io;
use crate::reactor::io::connection::{Phase, State};
use crate::reactor::io::net::Net;
use crate::reactor::turn::Turn;

impl Http {
    /// Runs the handler of a request that is complete.
    pub(super) fn handle<N: Net>(&mut self, io: &mut Io<N>, key: u32, message: Message) -> Next {
        let Some(state) = io.connections.http_mut(key) else {
            return Next::Closed;
        };
        // The head that had a deadline is complete; the next has its own.
        state.is_in_head = false;
        state.body_due_ms = None;
        let admitted = state.admitted.take();
        let mut request = self.request(io, key, message).admitted(admitted);
        if self.hands_over
            && let Some(full) = io.acceptor.overflow(key)
            && self
                .service
                .is_for_program(request.method().as_str(), request.path())
        {
            return self.refuse_for_room(io, key, &request, full.why(), &Headers::new());
        }
        let call = |service: &dyn Service, request: &mut Request| service.call(request);
        let response = self.run_for(&mut io.turn, "a handler", &mut request, call);
        self.answer(
            io,
            key,
            request,
            response.unwrap_or_else(Response::internal),
        )
    }

    /// Asks, once for each body that does not come with its head, whether it may
    /// come. If not, the request is answered, and nothing of the body is kept.
    pub(super) fn admit<N: Net>(&mut self, io: &mut Io<N>, key: u32) -> Option<Next> {
        let state = io.connections.http_mut(key)?;
        let head = state.reader.head_of_body()?.clone();
        if state.admitted.is_some() {
            return None;
        }
        let body = Vec::new();
        let mut request = self.request(io, key, Message { head, body });
        let admit = |service: &dyn Service, request: &mut Request| service.admit(request);
        let response = self.run_for(&mut io.turn, "a guard", &mut request, admit);
        let Some(response) = response.unwrap_or_else(|| Some(Response::internal())) else {
            io.connections.http_mut(key)?.admitted = Some(request.take_extensions());
            return None;
        };
        Some(self.answer(io, key, request, response))
    }

    /// Runs the user's code for a request. Logs a panic, and code that holds the
    /// loop for long.
    fn run_for<T>(
        &self,
        turn: &mut Turn,
        what: &str,
        request: &mut Request,
        code: impl FnOnce(&dyn Service, &mut Request) -> T,
    ) -> Option<T> {
        let clock = &self.hub().clock;
        let began_us = clock.now_us();
        let value = match catch(|| code(&*self.service, request)) {
            Ok(value) => value,
            Err(message) => {
                log::error!("{what} panicked ({}): {message}", Origin(request));
                return None;
            }
        };
        // A panic, with its backtrace, would often be slow too.
        if let Some(ms) = turn.stopwatch.slow_ms(began_us, clock.now_us()) {
            log::warn!(
                "{what} held the engine's thread for {ms} ms ({}). Answer with \
                 `Response::deferred`, and do slow work on another thread",
                Origin(request)
            );
        }
        Some(value)
    }

    /// A request of a connection, as its handler sees it.
    pub(super) fn request<N: Net>(&self, io: &Io<N>, key: u32, message: Message) -> Request {
        let State::Http(state) = &io.connections.get(key).state else {
            unreachable!("requests come from connections that speak HTTP")
        };
        let client = self.proxies.client_of(state.source, &message.head);
        Request::new(message, state.peer, self.channels.clone())
            .asked_by(client)
            .came_at(io.turn.stopwatch.began_us())
            .draining(io.turn.is_draining())
    }

    /// Puts a response into effect. Returns what becomes of the connection.
    pub(super) fn answer<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        request: Request,
        mut response: Response,
    ) -> Next {
        if let Some(error) = response.failure.take() {
            let (origin, error) = (Origin(&request), Chain(&*error));
            log::error!("a handler failed ({origin}): {error}");
        }
        if let Kind::Subscribe(subscription) = &mut response.kind
            && let Some(awaited) = self.awaited(&request, subscription)
        {
            return self.wait_for_the_log(io, key, request, response, awaited);
        }
        let is_whole = matches!(response.kind, Kind::Body(_));
        let passes_after = response.passes_after.filter(|_| is_whole);
        if passes_after.is_some() && request.is_for_a_stream() {
            response.status = 200;
        }
        if !matches!(response.kind, Kind::Defer(_)) {
            self.run_after(&request, &mut response);
            if let Some(code) = response.error_code() {
                io.meters.count_refusal(code);
            }
        }
        if let Some(delay) = passes_after {
            return self.turn_away(io, key, &request, response, delay);
        }
        match response.kind {
            Kind::Body(_) => self.write_response(io, key, &request, &response),
            Kind::Subscribe(subscription) if !self.has_channels_of(&subscription) => {
                log::error!("a subscription is to a channel of another manager than the engine's");
                let message = "the subscription is invalid. See the log of the server";
                let response = Response::error(500, "internal_error", message);
                self.answer(io, key, request, response)
            }
            Kind::Subscribe(mut subscription) if subscription.answer_once.is_some() => {
                self.answer_once(io, key, &request, &mut subscription, response.headers)
            }
            Kind::Subscribe(mut subscription) => {
                self.open_subscription(io, key, &request, &mut subscription, response.headers)
            }
            Kind::Stream(plan) => self.open_sink(io, key, &request, *plan, response.headers),
            Kind::Defer(defer) => self.defer(io, key, request, defer),
            Kind::Lines(reader) => self.begin_lines(io, key, request, response.headers, reader),
        }
    }

    /// Returns what the client has seen on another node, and this one may be about to read of
    /// the log.
    fn awaited(&self, request: &Request, subscription: &mut Subscription) -> Option<Awaited> {
        if !self.hub().is_node() {
            return None;
        }
        let named = request.named_start();
        let start = named.as_ref().or(subscription.start.as_ref())?;
        let awaited = self.hub().awaited(start, &subscription.channels)?;
        let is_next = awaited.waited() > subscription.waited;
        subscription.waited = subscription.waited.max(awaited.waited());
        is_next.then_some(awaited)
    }

    /// Leaves the answer until the log has said more.
    #[cold]
    fn wait_for_the_log<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        request: Request,
        response: Response,
        awaited: Awaited,
    ) -> Next {
        let hub = self.hub().clone();
        let wait = move |_: &Request, responder: Responder| {
            let go_on = move |released| match released {
                Released::Applied | Released::Unsaid => responder.respond(response),
                Released::TooLate => {
                    let message = "this node has lost the broker of its cluster. Retry later";
                    let error = Response::error(503, "broker_unavailable", message);
                    responder.respond(error.come_back_after(Duration::ZERO));
                }
            };
            hub.wait_for(awaited, Box::new(go_on));
        };
        self.defer(io, key, request, Box::new(wait))
    }

    /// Runs the hook `after` on a response.
    fn run_after(&self, request: &Request, response: &mut Response) {
        guard(
            format_args!("the hook `after` ({})", Origin(request)),
            || self.service.finish(request, response),
        );
    }

    fn has_channels_of(&self, subscription: &Subscription) -> bool {
        let mut channels = subscription.channels.iter();
        channels.all(|channel| Arc::ptr_eq(channel.hub(), self.hub()))
    }

    /// Leaves the answer to another thread, if there is room for one more request in
    /// flight.
    fn defer<N: Net>(&mut self, io: &mut Io<N>, key: u32, request: Request, defer: Defer) -> Next {
        let Some(ticket) = self.in_flight.admit(io.limits.requests_in_flight_max) else {
            let mut response = Response::status(503);
            self.run_after(&request, &mut response);
            let message = "too many requests in flight. Retry later";
            let why = ("too_many_in_flight", message);
            return self.refuse_for_room(io, key, &request, why, &response.headers);
        };
        let token = io.connections.token(key);
        let Some(state) = io.connections.http_mut(key) else {
            return Next::Closed;
        };
        state.deferred = state.deferred.wrapping_add(1);
        let responder = self.command_queue.responder(token, state.deferred, ticket);
        guard("a handler that defers", || defer(&request, responder));
        // An answer that is there already waits in the command queue.
        state.phase = Phase::Answer(Box::new(request));
        deadlines::stop(io, key);
        Next::Hold
    }
}

/// The method, the path and the peer of a request, for logs.
struct Origin<'a>(&'a Request);

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin(request) = self;
        // A client chooses how long these are.
        write!(
            f,
            "{:.32} {:.256}",
            request.method().as_str(),
            request.path()
        )?;
        write!(f, " from {}", request.client_address())
    }
}

/// An error and its causes, for logs.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut error = self.0;
        write!(f, "{error}")?;
        while let Some(source) = error.source() {
            write!(f, ", caused by: {source}")?;
            error = source;
        }
        Ok(())
    }
}
