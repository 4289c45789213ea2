//! Requests and what is answered to them.

use std::error::Error;
use std::fmt;

use crate::exchange::{Defer, Kind, Rejection, Request, Responder, Response};
use crate::http::{self, BodyLength, Message, Method, Persistence, Refusal};
use crate::reactor::Reactor;
use crate::reactor::Service;
use crate::reactor::http::serving::{Flow, catch, guard, whole_headers};
use crate::reactor::io::connection::{Phase, State};
use crate::reactor::io::net::Net;

impl<N: Net> Reactor<N> {
    pub(crate) fn handle(&mut self, key: u32, message: Message, output: &mut Vec<u8>) -> Flow {
        let Some(http) = self.connections.http_mut(key) else {
            return Flow::Left;
        };
        // The head that had a deadline is complete; the next has its own.
        http.is_in_head = false;
        http.body_due_ms = None;
        let admitted = http.admitted.take();
        let mut request = self.request(key, message).admitted(admitted);
        let call = |service: &dyn Service, request: &mut Request| service.call(request);
        let response = self.run_for("a handler", &mut request, call);
        self.answer(
            key,
            request,
            response.unwrap_or_else(Response::internal),
            output,
        )
    }

    /// Asks, once for each body that does not come with its head, whether it may
    /// come. If not, the request is answered, and nothing of the body is kept.
    pub(crate) fn admit(&mut self, key: u32, output: &mut Vec<u8>) -> Option<Flow> {
        let http = self.connections.http_mut(key)?;
        let head = http.reader.head_of_body()?.clone();
        if http.admitted.is_some() {
            return None;
        }
        let body = Vec::new();
        let mut request = self.request(key, Message { head, body });
        let admit = |service: &dyn Service, request: &mut Request| service.admit(request);
        let response = self.run_for("a guard", &mut request, admit);
        let Some(response) = response.unwrap_or_else(|| Some(Response::internal())) else {
            self.connections.http_mut(key)?.admitted = Some(request.take_extensions());
            return None;
        };
        Some(self.answer(key, request, response, output))
    }

    /// Runs the user's code for a request. Logs a panic, and code that holds the
    /// loop for long.
    fn run_for<T>(
        &mut self,
        what: &str,
        request: &mut Request,
        code: impl FnOnce(&dyn Service, &mut Request) -> T,
    ) -> Option<T> {
        let service = self.service.clone();
        let began_us = self.hub.clock.now_us();
        let result = catch(|| code(&*service, request));
        let value = match result {
            Ok(value) => value,
            Err(message) => {
                log::error!("{what} panicked ({}): {message}", Origin(request));
                return None;
            }
        };
        // A panic, with its backtrace, would often be slow too.
        let now_us = self.hub.clock.now_us();
        if let Some(ms) = self.stopwatch.slow_ms(began_us, now_us) {
            log::warn!(
                "{what} held the engine's thread for {ms} ms ({}). Answer with \
                 `Response::deferred`, and do slow work on another thread",
                Origin(request)
            );
        }
        Some(value)
    }

    /// A request of this connection's, as its handler sees it.
    fn request(&self, key: u32, message: Message) -> Request {
        let State::Http(http) = &self.connections.get(key).state else {
            unreachable!("what speaks HTTP has sent it")
        };
        let client = self.proxies.client_of(http.source, &message.head);
        Request::new(message, http.peer, self.channels.clone())
            .asked_by(client)
            .came_at(self.stopwatch.began_us())
            .draining(self.drain.is_some())
    }

    /// Puts a response into effect.
    pub(crate) fn answer(
        &mut self,
        key: u32,
        request: Request,
        mut response: Response,
        output: &mut Vec<u8>,
    ) -> Flow {
        let is_whole = matches!(response.kind, Kind::Body(_));
        let passes_after = response.passes_after.filter(|_| is_whole);
        if passes_after.is_some() && request.is_for_a_stream() {
            response.status = 200;
        }
        if let Some(error) = response.failure.take() {
            log::error!(
                "a handler failed ({}): {}",
                Origin(&request),
                Chain(&*error)
            );
        }
        if !matches!(response.kind, Kind::Defer(_)) {
            let service = self.service.clone();
            guard(
                format_args!("the hook `after` ({})", Origin(&request)),
                || {
                    service.finish(&request, &mut response);
                },
            );
            if let Some(code) = response.error_code() {
                self.meters.count_refusal(code);
            }
        }
        if let Some(delay) = passes_after {
            return self.turn_away(key, &request, response, delay, output);
        }
        match response.kind {
            Kind::Body(body) => {
                let (status, headers) = (response.status, &response.headers);
                self.write_response(key, &request, status, headers, &body, output)
            }
            Kind::Subscribe(subscription) => {
                self.open_subscription(key, &request, *subscription, response.headers, output)
            }
            Kind::Stream(plan) => self.open_sink(key, &request, *plan, response.headers, output),
            Kind::Defer(defer) => self.defer(key, request, defer, output),
        }
    }

    /// Leaves the answer to another thread, if these have room for it.
    fn defer(&mut self, key: u32, request: Request, defer: Defer, output: &mut Vec<u8>) -> Flow {
        let Some(ticket) = self.in_flight.admit(self.limits.requests_in_flight_max) else {
            let mut response = Response::status(503);
            let service = self.service.clone();
            guard(
                format_args!("the hook `after` ({})", Origin(&request)),
                || {
                    service.finish(&request, &mut response);
                },
            );
            let message = "as many requests wait for their answers as may: ask again later";
            let why = ("too_many_in_flight", message);
            return self.has_no_room(key, &request, why, &response.headers, output);
        };
        let token = self.connections.token(key);
        let Some(http) = self.connections.http_mut(key) else {
            return Flow::Left;
        };
        http.deferred = http.deferred.wrapping_add(1);
        http.phase = Phase::Answer(Box::new(request));
        let responder = Responder::new(self.command_queue.clone(), token, http.deferred, ticket);
        self.await_answer(key);
        guard("a handler that defers", || defer(responder));
        Flow::Hold
    }

    /// Writes a whole response, and says what becomes of the connection.
    pub(crate) fn write_response(
        &mut self,
        key: u32,
        request: &Request,
        status: u16,
        headers: &http::Headers,
        body: &[u8],
        output: &mut Vec<u8>,
    ) -> Flow {
        let http = self.connections.http_mut(key);
        // Where the next request would begin, nobody knows.
        let is_cut_short = http.is_some_and(|http| http.reader.is_in_body());
        let is_last = is_cut_short || self.drain.is_some() || self.overflow(key).is_some();
        let persistence = match is_last {
            true => Persistence::Close,
            false => request.head().persistence(),
        };
        self.refresh_date();
        self.meters.count_answer(status);
        let own = [headers];
        let headers = whole_headers(status, &own, &self.headers);
        let length = BodyLength::Known(body.len() as u64);
        http::write_head(
            output,
            status,
            headers,
            length,
            persistence,
            &self.date.text,
        );
        if http::has_body(status) && *request.method() != Method::Head {
            output.extend_from_slice(body);
        }
        if persistence == Persistence::Close {
            self.answer_no_more(key);
            return Flow::Hold;
        }
        Flow::Next
    }

    /// The answer to a deferred request has come.
    pub(crate) fn on_answer(&mut self, token: u64, request: u32, response: Response) {
        let Some(key) = self.connections.find(token) else {
            return;
        };
        let Some(http) = self.connections.http_mut(key) else {
            return;
        };
        if http.deferred != request || !matches!(http.phase, Phase::Answer(_)) {
            return;
        }
        let Phase::Answer(request) = std::mem::replace(&mut http.phase, Phase::Request) else {
            return;
        };
        let mut output = std::mem::take(&mut self.output);
        let flow = self.answer(key, *request, response, &mut output);
        if flow != Flow::Left && !output.is_empty() {
            self.write_answers(key, &output);
        }
        output.clear();
        self.output = output;
        if flow == Flow::Left {
            self.greet_subscriber(token);
        } else if flow == Flow::Next && self.connections.find(token).is_some() {
            self.await_request(key);
            // What came behind it has waited.
            self.on_readable(key);
        }
    }

    /// Answers a request that breaks a rule, after which nobody can say where
    /// the next one begins.
    pub(crate) fn refuse(&mut self, key: u32, refusal: &Refusal, output: &mut Vec<u8>) {
        log::debug!("a request was refused: {}", refusal.message);
        self.meters.count_answer(refusal.status);
        self.meters.count_refusal(refusal.code);
        let mut is_of_head = false;
        if let Some(http) = self.connections.http_mut(key) {
            is_of_head = http.reader.is_of_head();
            let (source, service) = (http.source, self.service.clone());
            guard("what is told of refusals", || {
                service.on_refusal(&Rejection {
                    address: source,
                    status: refusal.status,
                    code: refusal.code,
                    message: &refusal.message,
                });
            });
        }
        let response = Response::error(refusal.status, refusal.code, &refusal.message);
        let Kind::Body(body) = &response.kind else {
            return;
        };
        self.refresh_date();
        http::write_head(
            output,
            refusal.status,
            whole_headers(refusal.status, &[&response.headers], &self.headers),
            BodyLength::Known(body.len() as u64),
            Persistence::Close,
            &self.date.text,
        );
        if !is_of_head {
            output.extend_from_slice(body);
        }
        self.answer_no_more(key);
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
