//! Requests and answers.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::Reactor;
use super::connection::{Phase, State};
use super::net::Net;
use crate::exchange::{Kind, Request, Responder, Response};
use crate::http::{self, BodyLength, Message, Method, Persistence, Refusal, Step};
use crate::hub::client::DisconnectReason;

/// Answers are written when so many bytes of them have gathered.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// How much of a refused request is read and forgotten, so that the answer
/// is not lost with the connection's reset.
const LINGER_BYTES_MAX: usize = 16 << 20;
/// For how long.
const LINGER: Duration = Duration::from_secs(2);

/// What becomes of a connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// It takes the next one.
    Next,
    /// It waits: for an answer, or to be closed.
    Hold,
    /// It is none of ours any more: it streams, or is gone.
    Left,
}

impl<N: Net> Reactor<N> {
    pub(super) fn on_readable(&mut self, key: u32) {
        match self.connections.get(key).state {
            // Those who wait in the queue go first: what is reported again and
            // again would take all the steps of every turn from them.
            State::Http(_) if self.steps_left > 0 && self.run_queue.is_empty() => self.serve(key),
            State::Http(_) => self.queue_http(key),
            State::Stream(_) => self.listen_to_subscriber(key),
        }
    }

    pub(super) fn on_writable(&mut self, key: u32) {
        match &self.connections.get(key).state {
            State::Http(http) => {
                if !http.unsent.is_empty() {
                    self.queue_http(key);
                }
            }
            State::Stream(stream) => {
                if let Some(cursor) = self.cursors.get_mut(stream.cursor as usize) {
                    cursor.is_blocked = false;
                    self.queue_cursor(key);
                }
            }
        }
    }

    /// Takes a request that readiness has yet to tell of.
    pub(super) fn read_once_more(&mut self, key: u32) {
        if matches!(self.connections.get(key).state, State::Http(_)) {
            self.serve(key);
        }
    }

    /// Takes a connection as far as it goes: writes what is unsent, then
    /// reads and answers.
    pub(super) fn serve(&mut self, key: u32) {
        let token = self.connections.token(key);
        for _ in 0..self.budgets.reads_a_turn {
            self.steps_left = self.steps_left.saturating_sub(1);
            if !self.write_unsent(key) {
                return;
            }
            let Some(http) = self.connections.http_mut(key) else {
                return;
            };
            match &http.phase {
                Phase::Request => {}
                Phase::Linger { .. } => return self.linger(key),
                // A client that waits may leave, but not go on.
                Phase::Answer(_) | Phase::Flush => return,
            }
            if !http.unread.is_empty() {
                let unread = std::mem::take(&mut http.unread);
                if self.take_input(key, &unread) == Flow::Left {
                    return self.greet_subscriber(token);
                }
                continue;
            }
            let mut input = std::mem::take(&mut self.input);
            let socket = &mut self.connections.get_mut(key).socket;
            let read = self.net.read(socket, &mut input);
            let flow = match read {
                Ok(0) => {
                    self.hang_up(key, DisconnectReason::Gone);
                    Some(Flow::Left)
                }
                Ok(count) => match self.take_input(key, &input[..count]) {
                    Flow::Next => None,
                    flow => Some(flow),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(Flow::Hold),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
                Err(_) => {
                    self.hang_up(key, DisconnectReason::Gone);
                    Some(Flow::Left)
                }
            };
            self.input = input;
            match flow {
                None => {}
                Some(Flow::Left) => return self.greet_subscriber(token),
                Some(_) => return,
            }
        }
        self.queue_http(key);
    }

    /// A connection has left HTTP. If it streams, whatever came behind the
    /// request has to be read: it may be the connection's end.
    fn greet_subscriber(&mut self, token: u64) {
        if let Some(key) = self.connections.find(token) {
            self.listen_to_subscriber(key);
        }
    }

    fn queue_http(&mut self, key: u32) {
        if let Some(http) = self.connections.http_mut(key)
            && !std::mem::replace(&mut http.is_queued, true)
        {
            self.run_queue.push_back(self.connections.token(key));
        }
    }

    /// Parses and answers what was read, and writes the answers.
    fn take_input(&mut self, key: u32, input: &[u8]) -> Flow {
        let mut output = std::mem::take(&mut self.output);
        let flow = self.answer_all(key, input, &mut output);
        if flow != Flow::Left && !output.is_empty() {
            self.write_answers(key, &output);
        }
        output.clear();
        output.shrink_to(ANSWER_BYTES_MAX);
        self.output = output;
        if flow == Flow::Next {
            self.await_request(key);
        }
        match self.connections.contains(key) {
            true => flow,
            false => Flow::Left,
        }
    }

    fn answer_all(&mut self, key: u32, mut input: &[u8], output: &mut Vec<u8>) -> Flow {
        while !input.is_empty() {
            let Some(http) = self.connections.http_mut(key) else {
                return Flow::Left;
            };
            if http.preface.is_some() {
                match self.read_preface(key, input, output) {
                    Ok(count) => input = &input[count..],
                    Err(flow) => return flow,
                }
                continue;
            }
            let step = http.reader.push(input, &self.limits);
            let flow = match step {
                Ok((count, step)) => {
                    input = &input[count..];
                    match step {
                        Step::NeedMore => continue,
                        Step::SendContinue => {
                            output.extend_from_slice(http::CONTINUE);
                            continue;
                        }
                        Step::Request(message) => self.handle(key, message, output),
                    }
                }
                Err(refusal) => {
                    self.refuse(key, &refusal, output);
                    return Flow::Hold;
                }
            };
            if flow == Flow::Left {
                return flow;
            }
            if flow == Flow::Hold || output.len() > ANSWER_BYTES_MAX {
                if let Some(http) = self.connections.http_mut(key) {
                    http.unread.extend_from_slice(input);
                }
                return flow;
            }
        }
        Flow::Next
    }

    fn handle(&mut self, key: u32, message: Message, output: &mut Vec<u8>) -> Flow {
        let Some(http) = self.connections.http_mut(key) else {
            return Flow::Left;
        };
        // The head that had a deadline is complete; the next has its own.
        http.is_in_head = false;
        let client = self.proxies.client_of(http.source, &message.head);
        let mut request = Request::new(message, http.peer, self.channels.clone())
            .asked_by(client)
            .draining(self.drain.is_some());
        let service = self.service.clone();
        let response = guard("a handler", || service.call(&mut request));
        let response = response.unwrap_or_else(|| {
            Response::error(
                500,
                "internal_error",
                "the handler failed; the log says why",
            )
        });
        self.answer(key, request, response, output)
    }

    /// Puts a response into effect.
    pub(super) fn answer(
        &mut self,
        key: u32,
        request: Request,
        mut response: Response,
        output: &mut Vec<u8>,
    ) -> Flow {
        if !matches!(response.kind, Kind::Defer(_)) {
            let service = self.service.clone();
            guard("the last look at a response", || {
                service.finish(&request, &mut response);
            });
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
            Kind::Defer(defer) => {
                let token = self.connections.token(key);
                let Some(http) = self.connections.http_mut(key) else {
                    return Flow::Left;
                };
                http.deferred = http.deferred.wrapping_add(1);
                http.phase = Phase::Answer(Box::new(request));
                let responder = Responder::new(self.mailbox.clone(), token, http.deferred);
                self.wheel.cancel(&mut self.connections, key);
                guard("a handler that defers", || defer(responder));
                Flow::Hold
            }
        }
    }

    /// Writes a whole response, and says what becomes of the connection.
    pub(super) fn write_response(
        &mut self,
        key: u32,
        request: &Request,
        status: u16,
        headers: &http::Headers,
        body: &[u8],
        output: &mut Vec<u8>,
    ) -> Flow {
        let persistence = match self.drain {
            Some(_) => Persistence::Close,
            None => request.head().persistence(),
        };
        self.refresh_date();
        let own = [headers];
        let headers = with_defaults(&own, &self.headers);
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
            self.set_phase(key, Phase::Flush);
            return Flow::Hold;
        }
        Flow::Next
    }

    /// The answer to a deferred request has come.
    pub(super) fn on_answer(&mut self, token: u64, request: u32, response: Response) {
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
            self.serve(key);
        }
    }

    /// Answers a request that breaks a rule, after which nobody can say where
    /// the next one begins.
    pub(super) fn refuse(&mut self, key: u32, refusal: &Refusal, output: &mut Vec<u8>) {
        log::debug!("a request was refused: {}", refusal.message);
        let response = Response::error(refusal.status, refusal.code, &refusal.message);
        let Kind::Body(body) = &response.kind else {
            return;
        };
        self.refresh_date();
        http::write_head(
            output,
            refusal.status,
            with_defaults(&[&response.headers], &self.headers),
            BodyLength::Known(body.len() as u64),
            Persistence::Close,
            &self.date.text,
        );
        output.extend_from_slice(body);
        let bytes_left = LINGER_BYTES_MAX;
        self.set_phase(key, Phase::Linger { bytes_left });
    }

    fn set_phase(&mut self, key: u32, phase: Phase) {
        if let Some(http) = self.connections.http_mut(key) {
            http.phase = phase;
        }
    }

    /// Sets the timer for a connection that may send what it likes next.
    fn await_request(&mut self, key: u32) {
        if !self.connections.contains(key) {
            return;
        }
        let Some(http) = self.connections.http_mut(key) else {
            return;
        };
        if !http.unsent.is_empty() {
            // First it has to take what it asked for, and has so long.
            return;
        }
        let timeout = match http.is_idle() {
            true => self.timeouts.idle,
            false if http.reader.is_in_body() => self.timeouts.head,
            // A head has one deadline, however slowly it drips in.
            false if !http.unread.is_empty() => return,
            false => {
                if http.is_in_head {
                    return;
                }
                http.is_in_head = true;
                self.timeouts.head
            }
        };
        if http.is_idle() || http.reader.is_in_body() {
            http.is_in_head = false;
        }
        self.set_timer(key, timeout);
    }

    fn write_answers(&mut self, key: u32, output: &[u8]) {
        if !self.connections.contains(key) {
            return;
        }
        let tick = self.tick32();
        let connection = self.connections.get_mut(key);
        let State::Http(http) = &mut connection.state else {
            return;
        };
        if !http.unsent.is_empty() {
            http.unsent.extend_from_slice(output);
            return;
        }
        connection.written_at = tick;
        match self.net.write(&mut connection.socket, output) {
            Ok(count) => http.unsent.extend_from_slice(&output[count..]),
            Err(error) if is_transient(&error) => http.unsent.extend_from_slice(output),
            Err(_) => return self.hang_up(key, DisconnectReason::Gone),
        }
        if http.unsent.is_empty() {
            self.after_writing(key);
        } else {
            self.set_timer(key, self.timeouts.stall);
        }
    }

    /// Writes what an earlier write left; says whether that is all out, and
    /// the connection still there.
    fn write_unsent(&mut self, key: u32) -> bool {
        let tick = self.tick32();
        let connection = self.connections.get_mut(key);
        let State::Http(http) = &mut connection.state else {
            return false;
        };
        if http.unsent.is_empty() {
            return true;
        }
        match self.net.write(&mut connection.socket, &http.unsent) {
            Ok(count) => {
                connection.written_at = tick;
                http.unsent.drain(..count);
            }
            Err(error) if is_transient(&error) => {}
            Err(_) => {
                self.hang_up(key, DisconnectReason::Gone);
                return false;
            }
        }
        if !http.unsent.is_empty() {
            return false;
        }
        http.unsent = Vec::new();
        self.after_writing(key)
    }

    /// All answers are out. Says whether the connection is still there.
    fn after_writing(&mut self, key: u32) -> bool {
        let connection = self.connections.get_mut(key);
        let State::Http(http) = &mut connection.state else {
            return false;
        };
        match http.phase {
            Phase::Flush => {
                self.hang_up(key, DisconnectReason::Gone);
                false
            }
            Phase::Linger { .. } => {
                self.net.shutdown_write(&mut connection.socket);
                self.set_timer(key, LINGER);
                true
            }
            Phase::Request => {
                self.await_request(key);
                true
            }
            Phase::Answer(_) => true,
        }
    }

    /// Reads and forgets what a refused client still sends.
    fn linger(&mut self, key: u32) {
        let mut input = std::mem::take(&mut self.input);
        let is_over = loop {
            let connection = self.connections.get_mut(key);
            let State::Http(http) = &mut connection.state else {
                break false;
            };
            let Phase::Linger { bytes_left } = &mut http.phase else {
                break false;
            };
            match self.net.read(&mut connection.socket, &mut input) {
                Ok(0) => break true,
                Ok(count) if *bytes_left > count => *bytes_left -= count,
                Ok(_) => break true,
                Err(error) => break !is_transient(&error),
            }
        };
        self.input = input;
        if is_over {
            self.hang_up(key, DisconnectReason::Gone);
        }
    }

    /// A connection that speaks HTTP has had its time.
    pub(super) fn on_http_timeout(&mut self, key: u32) {
        let connection = self.connections.get(key);
        let State::Http(http) = &connection.state else {
            return;
        };
        let stall_ticks = super::as_ms(self.timeouts.stall) / super::TICK_MS;
        let waited = self.tick32().wrapping_sub(connection.written_at);
        if !http.unsent.is_empty() && u64::from(waited) < stall_ticks {
            // It does take something, only slowly.
            return self.set_timer(key, self.timeouts.stall);
        }
        let is_mid_request = matches!(http.phase, Phase::Request) && !http.is_idle();
        if is_mid_request && http.unsent.is_empty() {
            let refusal = Refusal {
                status: 408,
                code: "request_timeout",
                message: "the request did not arrive in time: send it again, faster".into(),
            };
            let mut output = Vec::new();
            self.refuse(key, &refusal, &mut output);
            self.write_answers(key, &output);
        } else {
            self.hang_up(key, DisconnectReason::Gone);
        }
    }
}

/// The headers of a response, and of the defaults those that it does not set
/// itself.
pub(super) fn with_defaults<'a>(
    own: &'a [&'a http::Headers],
    defaults: &'a http::Headers,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let is_unset = |(name, _): &(&str, &str)| own.iter().all(|list| list.get(name).is_none());
    let all_own = own.iter().flat_map(|list| list.iter());
    all_own.chain(defaults.iter().filter(is_unset))
}

/// Whether an operation may be tried again later.
pub(super) fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Runs code of the engine's user; a panic costs nobody else anything.
pub(super) fn guard<T>(what: &str, code: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(value) => Some(value),
        Err(panic) => {
            let message = panic
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("no message");
            log::error!("{what} panicked: {message}");
            None
        }
    }
}
