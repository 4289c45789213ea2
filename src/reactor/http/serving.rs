//! Connections that speak HTTP: bytes in, answers out, and how long that may
//! take.
//!
//! A connection is taken as far as its budget goes, then others have their
//! turn: one read may hold a thousand requests. What answers them is in
//! `answering`.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::http::{self, Refusal, Step};
use crate::hub::DisconnectCall;
use crate::hub::client::DisconnectReason;
use crate::reactor::io::connection::{Http, Pending, Phase, State};
use crate::reactor::io::counts::Full;
use crate::reactor::io::net::Net;
use crate::reactor::{Reactor, TICK_MS};

/// Answers are written when so many bytes of them have gathered.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// How much is read and forgotten of what comes behind the last request that is
/// answered.
const LINGER_BYTES_MAX: usize = 16 << 20;
/// For how long.
const LINGER: Duration = Duration::from_secs(2);

/// What becomes of a connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It takes the next one.
    Next,
    /// It waits: for an answer, or to be closed.
    Hold,
    /// It is none of ours any more: it streams, or is gone.
    Left,
}

impl<N: Net> Reactor<N> {
    pub(crate) fn on_readable(&mut self, key: u32) {
        match self.connections.get(key).state {
            // Those in the queue go first: what is reported again and again would
            // take all the steps of every turn from them.
            State::Http(_) if self.has_budget() && self.request_queue.is_empty() => {
                self.serve(key);
            }
            State::Http(_) => self.queue_http(key),
            State::Stream(_) => self.listen_to_subscriber(key),
        }
    }

    pub(crate) fn on_writable(&mut self, key: u32) {
        match &self.connections.get(key).state {
            State::Http(http) => {
                if !http.unsent.is_empty() {
                    self.queue_http(key);
                }
            }
            State::Stream(_) => self.queue_cursor(key),
        }
    }

    /// Whether the turn has room for another connection that speaks HTTP.
    pub(crate) fn has_budget(&self) -> bool {
        self.steps_left > 0 && self.requests_left > 0
    }

    /// Takes a connection as far as it goes, or as its budget lasts: writes what
    /// is unsent, then reads and answers.
    pub(crate) fn serve(&mut self, key: u32) {
        let token = self.connections.token(key);
        let mut slice = self.budgets.requests_a_slice;
        for _ in 0..self.budgets.reads_a_turn {
            self.steps_left = self.steps_left.saturating_sub(1);
            if !self.write_unsent(key) {
                return;
            }
            let Some(http) = self.connections.http_mut(key) else {
                return;
            };
            let flow = match &http.phase {
                Phase::Request if http.unread.is_empty() => self.read_and_answer(key, &mut slice),
                Phase::Request => self.answer_unread(key, &mut slice),
                Phase::Linger { .. } => Some(self.read_and_forget(key)),
                // A client that waits may leave, but not go on.
                Phase::Answer(_) => return,
            };
            match flow {
                Some(Flow::Next) => {}
                Some(Flow::Left) => return self.greet_subscriber(token),
                Some(Flow::Hold) => return,
                None => break,
            }
        }
        self.queue_http(key);
    }

    /// Reads once, and answers what that brings. Answers `None` when the slice
    /// is used up.
    fn read_and_answer(&mut self, key: u32, slice: &mut usize) -> Option<Flow> {
        let mut input = std::mem::take(&mut self.input);
        let socket = &mut self.connections.get_mut(key).socket;
        let read = self.net.read(socket, &mut input);
        let flow = match read {
            Ok(0) => {
                self.close(key, DisconnectReason::Gone);
                Some(Flow::Left)
            }
            Ok(count) => {
                let (flow, used) = self.take_input(key, &input[..count], slice);
                self.keep_unread(key, flow, slice, || Pending::of(&input[used..count]))
            }
            Err(error) if is_transient(&error) => Some(Flow::Hold),
            Err(_) => {
                self.close(key, DisconnectReason::Gone);
                Some(Flow::Left)
            }
        };
        self.input = input;
        flow
    }

    /// The same with what an earlier read left over.
    fn answer_unread(&mut self, key: u32, slice: &mut usize) -> Option<Flow> {
        let unread = self.connections.http_mut(key).map(|http| &mut http.unread);
        let mut unread = std::mem::take(unread?);
        let (flow, used) = self.take_input(key, unread.as_bytes(), slice);
        unread.take(used);
        self.keep_unread(key, flow, slice, || unread)
    }

    /// Keeps what of the input has to wait. Answers `None` when it waits for
    /// nothing but its turn.
    fn keep_unread(
        &mut self,
        key: u32,
        flow: Flow,
        slice: &usize,
        rest: impl FnOnce() -> Pending,
    ) -> Option<Flow> {
        if flow == Flow::Left {
            return Some(flow);
        }
        let http = self.connections.http_mut(key)?;
        http.unread = rest();
        let is_over = *slice == 0 || self.requests_left == 0 || !http.unread.is_empty();
        (flow == Flow::Hold || !is_over).then_some(flow)
    }

    /// A connection has left HTTP. If it streams, whatever came behind the
    /// request has to be read: it may be the connection's end.
    pub(crate) fn greet_subscriber(&mut self, token: u64) {
        if let Some(key) = self.connections.find(token) {
            self.listen_to_subscriber(key);
        }
    }

    fn queue_http(&mut self, key: u32) {
        if let Some(http) = self.connections.http_mut(key)
            && !std::mem::replace(&mut http.is_queued, true)
        {
            self.request_queue.push_back(self.connections.token(key));
        }
    }

    /// Parses and answers what was read, and writes the answers. Says how many
    /// bytes that took: not all, if the connection has to wait, or others have
    /// their turn.
    fn take_input(&mut self, key: u32, input: &[u8], slice: &mut usize) -> (Flow, usize) {
        let mut output = std::mem::take(&mut self.output);
        let (flow, used) = self.answer_all(key, input, &mut output, slice);
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
            true => (flow, used),
            false => (Flow::Left, used),
        }
    }

    fn answer_all(
        &mut self,
        key: u32,
        input: &[u8],
        output: &mut Vec<u8>,
        slice: &mut usize,
    ) -> (Flow, usize) {
        let mut used = 0;
        while used < input.len() {
            let Some(http) = self.connections.http_mut(key) else {
                return (Flow::Left, used);
            };
            if http.preface.is_some() {
                match self.read_preface(key, &input[used..], output) {
                    Ok(count) => used += count,
                    Err(flow) => return (flow, input.len()),
                }
                continue;
            }
            let step = match http.reader.push(&input[used..], &self.limits) {
                Ok((count, step)) => {
                    used += count;
                    step
                }
                Err(refusal) => {
                    self.refuse(key, &refusal, output);
                    // Where the next request would begin, nobody knows.
                    return (Flow::Hold, input.len());
                }
            };
            let flow = match step {
                Step::Request(message) => self.handle(key, message, output),
                Step::NeedMore | Step::SendContinue => {
                    if let Some(flow) = self.admit(key, output) {
                        return (flow, input.len());
                    }
                    if step == Step::SendContinue {
                        output.extend_from_slice(http::CONTINUE);
                    }
                    continue;
                }
            };
            *slice = slice.saturating_sub(1);
            self.requests_left = self.requests_left.saturating_sub(1);
            let is_over = *slice == 0 || self.requests_left == 0;
            if flow != Flow::Next || is_over || output.len() > ANSWER_BYTES_MAX {
                return (flow, used);
            }
        }
        (Flow::Next, used)
    }

    /// What is answered now is the last: the connection closes behind it, and
    /// whatever the client still sends is forgotten.
    pub(crate) fn answer_no_more(&mut self, key: u32) {
        if let Some(http) = self.connections.http_mut(key) {
            let bytes_left = LINGER_BYTES_MAX;
            http.phase = Phase::Linger { bytes_left };
        }
    }

    /// Sets the timer for a connection that may send what it likes next.
    pub(crate) fn await_request(&mut self, key: u32) {
        if !self.connections.contains(key) {
            return;
        }
        let idle_time = self.idle_time();
        let Some(http) = self.connections.http_mut(key) else {
            return;
        };
        if !http.unsent.is_empty() {
            // First it has to take what it asked for, and has so long.
            return;
        }
        let timeout = match http.is_idle() {
            true => idle_time,
            false if http.reader.is_in_body() => {
                // Each part gives it more time, but not beyond that for all.
                let all_ms = crate::reactor::as_ms(self.limits.body_timeout);
                let due_ms = self.now_ms.saturating_add(all_ms);
                let due_ms = *http.body_due_ms.get_or_insert(due_ms);
                if due_ms <= self.now_ms {
                    // The timer is due: one more part must not put it off.
                    return;
                }
                let left = Duration::from_millis(due_ms.saturating_sub(self.now_ms));
                self.limits.head_timeout.min(left)
            }
            // A head has one deadline, however slowly it drips in.
            false if !http.unread.is_empty() => return,
            false => {
                if http.is_in_head {
                    return;
                }
                http.is_in_head = true;
                self.limits.head_timeout
            }
        };
        if http.is_idle() || http.reader.is_in_body() {
            http.is_in_head = false;
        }
        self.set_http_timer(key, timeout);
    }

    /// Stops the timer of a connection that waits for us. That of an overflow connection runs on.
    pub(crate) fn await_answer(&mut self, key: u32) {
        if self.overflow(key).is_none() {
            self.wheel.cancel(&mut self.connections, key);
        }
    }

    /// Sets the timer of a connection that speaks HTTP. That of an overflow connection runs from its
    /// beginning to its end.
    fn set_http_timer(&mut self, key: u32, timeout: Duration) {
        if self.overflow(key).is_none() {
            self.set_timer(key, timeout);
        }
    }

    /// Why a connection is an overflow connection, if it is one.
    pub(crate) fn overflow(&self, key: u32) -> Option<Full> {
        match &self.connections.get(key).state {
            State::Http(http) => http.overflow,
            State::Stream(_) => None,
        }
    }

    pub(crate) fn write_answers(&mut self, key: u32, output: &[u8]) {
        if !self.connections.contains(key) {
            return;
        }
        let tick = self.tick32();
        let connection = self.connections.get_mut(key);
        let State::Http(http) = &mut connection.state else {
            return;
        };
        if !http.unsent.is_empty() {
            http.unsent.push(output);
            return;
        }
        connection.written_at = tick;
        match self.net.write(&mut connection.socket, output) {
            Ok(count) => http.unsent.push(&output[count..]),
            Err(error) if is_transient(&error) => http.unsent.push(output),
            Err(_) => return self.close(key, DisconnectReason::Gone),
        }
        if http.unsent.is_empty() {
            self.after_writing(key);
        } else {
            self.set_http_timer(key, self.limits.stall_timeout);
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
        match self
            .net
            .write(&mut connection.socket, http.unsent.as_bytes())
        {
            Ok(count) => {
                connection.written_at = tick;
                http.unsent.take(count);
            }
            Err(error) if is_transient(&error) => {}
            Err(_) => {
                self.close(key, DisconnectReason::Gone);
                return false;
            }
        }
        if !http.unsent.is_empty() {
            return false;
        }
        self.after_writing(key);
        true
    }

    /// A client has had its time to take its answers, or some of them. As with
    /// streams, it may have taken what nobody reported: it is written to once
    /// more.
    fn press_unsent(&mut self, key: u32) {
        let (token, stall_ticks) = (self.connections.token(key), self.stall_ticks());
        if self.silent_ticks(key) >= stall_ticks && self.write_unsent(key) {
            return self.queue_http(key);
        }
        if self.connections.find(token).is_none() {
            return;
        }
        match stall_ticks.saturating_sub(self.silent_ticks(key)) {
            0 => self.close(key, DisconnectReason::Gone),
            left => self.set_http_timer(key, Duration::from_millis(left * TICK_MS)),
        }
    }

    /// All answers are out.
    fn after_writing(&mut self, key: u32) {
        let connection = self.connections.get_mut(key);
        let State::Http(http) = &mut connection.state else {
            return;
        };
        match http.phase {
            Phase::Linger { .. } => {
                // "Out" is in the kernel's buffer. A socket that is closed with
                // bytes unread is reset, and the kernel drops what it has for a
                // client who sends on; so only this half is closed, until the
                // client has closed the other (RFC 9112 section 9.6).
                self.net.shutdown_write(&mut connection.socket);
                self.set_http_timer(key, LINGER);
                // What has come already is not reported again.
                self.queue_http(key);
            }
            Phase::Request => self.await_request(key),
            Phase::Answer(_) => self.await_answer(key),
        }
    }

    /// Reads once, and forgets, what a client still sends behind its last answer.
    fn read_and_forget(&mut self, key: u32) -> Flow {
        let connection = self.connections.get_mut(key);
        let State::Http(http) = &mut connection.state else {
            return Flow::Left;
        };
        let Phase::Linger { bytes_left } = &mut http.phase else {
            return Flow::Hold;
        };
        http.unread = Pending::default();
        match self.net.read(&mut connection.socket, &mut self.input) {
            Ok(count) if count > 0 && count < *bytes_left => *bytes_left -= count,
            Err(error) if is_transient(&error) => return Flow::Hold,
            Ok(_) | Err(_) => {
                self.close(key, DisconnectReason::Gone);
                return Flow::Left;
            }
        }
        Flow::Next
    }

    /// The time of a connection that speaks HTTP is up. What has arrived is read
    /// first: this loop may have been stopped, or busy, or not have asked for this
    /// connection's readiness yet. Only a connection that then has neither a new
    /// deadline nor more to read is given up.
    pub(crate) fn on_http_timeout(&mut self, key: u32) {
        let token = self.connections.token(key);
        let is_overflow = self.overflow(key).is_some();
        let unsent = |http: &mut Http| !http.unsent.is_empty();
        if !is_overflow && self.connections.http_mut(key).is_some_and(unsent) {
            return self.press_unsent(key);
        }
        self.serve(key);
        if self.connections.find(token).is_none() {
            return;
        }
        let connection = self.connections.get(key);
        let State::Http(http) = &connection.state else {
            return;
        };
        if connection.timer.is_set() {
            return;
        }
        if http.is_queued {
            // It stopped for its budget's sake, and reads on.
            return self.set_timer(key, Duration::from_millis(TICK_MS));
        }
        if matches!(http.phase, Phase::Request) && !http.is_idle() && !is_overflow {
            let refusal = Refusal {
                status: 408,
                code: "request_timeout",
                message: "the request did not arrive in time: send it again, faster".into(),
            };
            let mut output = Vec::new();
            self.refuse(key, &refusal, &mut output);
            self.write_answers(key, &output);
        } else {
            self.close(key, DisconnectReason::Gone);
        }
    }
}

/// The headers of a response, and of the defaults those that it does not set
/// itself.
pub(crate) fn with_defaults<'a>(
    own: &'a [&'a http::Headers],
    defaults: &'a http::Headers,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let is_unset = |(name, _): &(&str, &str)| own.iter().all(|list| list.get(name).is_none());
    let all_own = own.iter().flat_map(|list| list.iter());
    all_own.chain(defaults.iter().filter(is_unset))
}

/// The headers of a whole response: its own, the engine's defaults, and the
/// instruction not to store an error, or the end of a stream, that says nothing
/// else about caches. Caches may store some of these for as long as they see fit
/// (RFC 9111 section 4.2.2).
pub(crate) fn whole_headers<'a>(
    status: u16,
    own: &'a [&'a http::Headers],
    defaults: &'a http::Headers,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    const NAME: &str = "Cache-Control";
    let mut all = own.iter().copied().chain([defaults]);
    let is_silent = (status == 204 || status >= 400) && all.all(|list| list.get(NAME).is_none());
    let no_store = is_silent.then_some((NAME, "no-store"));
    with_defaults(own, defaults).chain(no_store)
}

/// Whether an operation may be tried again when the poller reports readiness.
/// One that was interrupted is tried again at once, in `metered`.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Runs code of the engine's user. A panic is logged, and affects nothing else.
pub(crate) fn guard<T>(what: impl fmt::Display, code: impl FnOnce() -> T) -> Option<T> {
    let logged = catch(code).map_err(|message| log::error!("{what} panicked: {message}"));
    logged.ok()
}

/// Runs code of the engine's user. Returns the message of a panic as an error.
pub(crate) fn catch<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        text.unwrap_or("no message").to_owned()
    })
}

/// Calls a client's `on_disconnect`, with nothing locked.
pub(crate) fn call_on_disconnect(disconnect_call: DisconnectCall, reason: DisconnectReason) {
    guard("on_disconnect", || {
        (disconnect_call.hook)(&disconnect_call.info, reason)
    });
}
