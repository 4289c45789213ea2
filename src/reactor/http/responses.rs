//! Answers as bytes: whole responses, and the heads of streams.
//!
//! Everything here is appended to the output, which is written when the
//! connection's requests so far are answered.

use std::time::Duration;

use super::next::Next;
use super::{Date, Http};
use crate::exchange::{Kind, Rejection, Request, Response};
use crate::http::{self, BodyLength, Headers, Method, Persistence, Refusal};
use crate::hub::clock::as_ms;
use crate::reactor::guard::guard;
use crate::reactor::io::Io;
use crate::reactor::io::connection::Phase;
use crate::reactor::io::net::Net;
use crate::reactor::retry::{retry_line, retry_ms};
use crate::reactor::turn::Turn;

/// The bytes that are read and forgotten behind the last request that is answered.
const LINGER_BYTES_MAX: usize = 16 << 20;

/// The headers of every stream: the bytes are events, and must not be stored,
/// changed or held back (`X-Accel-Buffering` is nginx's).
const STREAM_HEADERS: [(&str, &str); 3] = [
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-cache, no-transform"),
    ("X-Accel-Buffering", "no"),
];

impl Http {
    /// Writes a whole response. Returns what becomes of the connection.
    pub(super) fn write_response<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        request: &Request,
        response: &Response,
    ) -> Next {
        let state = io.connections.http_mut(key);
        // Where the next request would begin is unknown.
        let is_cut_short = state.is_some_and(|state| state.reader.is_in_body());
        let is_overflow = io.acceptor.overflow(key).is_some();
        let persistence = match is_cut_short || io.turn.is_draining() || is_overflow {
            true => Persistence::Close,
            false => request.head().persistence(),
        };
        let has_body = *request.method() != Method::Head;
        self.append_response(io, response, persistence, has_body);
        if persistence == Persistence::Close {
            answer_no_more(io, key);
            return Next::Hold;
        }
        Next::Request
    }

    /// Answers a request that breaks a rule. Where the next one would begin is
    /// unknown, so it is the last.
    pub(super) fn refuse<N: Net>(&mut self, io: &mut Io<N>, key: u32, refusal: &Refusal) {
        log::debug!("rejected a request ({})", refusal.message);
        io.meters.count_refusal(refusal.code);
        let mut is_of_head = false;
        if let Some(state) = io.connections.http_mut(key) {
            is_of_head = state.reader.is_of_head();
            let (address, service) = (state.source, self.service.clone());
            guard("the hook `on_refusal`", || {
                service.on_refusal(&Rejection {
                    address,
                    status: refusal.status,
                    code: refusal.code,
                    message: &refusal.message,
                });
            });
        }
        let response = Response::error(refusal.status, refusal.code, &refusal.message);
        self.append_response(io, &response, Persistence::Close, !is_of_head);
        answer_no_more(io, key);
    }

    /// Answers a request for which there is no room, with a code and a message.
    pub(super) fn refuse_for_room<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        request: &Request,
        (code, message): (&str, &str),
        headers: &Headers,
    ) -> Next {
        io.meters.count_refusal(code);
        let mut response = Response::error(503, code, message);
        for (name, value) in headers.iter() {
            let added = response.headers.append(name.to_owned(), value.to_owned());
            added.expect("it was checked before");
        }
        self.turn_away(io, key, request, response, Duration::ZERO)
    }

    /// Answers with an error that passes, not before `delay` is over. A browser
    /// that asks for a stream gives up for good at any status but 200, so it gets
    /// that, and when to come back.
    pub(super) fn turn_away<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        request: &Request,
        mut response: Response,
        delay: Duration,
    ) -> Next {
        let retry_ms = retry_ms(self.hub()).saturating_add(as_ms(delay));
        if request.is_for_a_stream() {
            response.headers.remove("Retry-After");
            self.write_stream_head(io, &response.headers, []);
            self.output.extend_from_slice(&retry_line(retry_ms));
            answer_no_more(io, key);
            return Next::Hold;
        }
        let seconds = (retry_ms / 1000).saturating_add(1).to_string();
        let added = response.headers.insert("Retry-After", seconds);
        added.expect("a number can be a header");
        self.write_response(io, key, request, &response)
    }

    /// Writes the head of a stream: the headers of every stream, `headers`, and what
    /// the engine adds for this one.
    pub(super) fn write_stream_head<'a, N: Net>(
        &'a mut self,
        io: &Io<N>,
        headers: &'a Headers,
        added: impl IntoIterator<Item = (&'a str, &'a str), IntoIter: Clone>,
    ) {
        self.write_open_head(io, STREAM_HEADERS, headers, added);
    }

    /// Writes the head of a response whose body ends with its connection: `fixed`, which no
    /// other header replaces, `headers`, and what the engine adds for this one.
    pub(super) fn write_open_head<'a, N: Net, const F: usize>(
        &'a mut self,
        io: &Io<N>,
        fixed: [(&'static str, &'static str); F],
        headers: &'a Headers,
        added: impl IntoIterator<Item = (&'a str, &'a str), IntoIter: Clone>,
    ) {
        io.meters.count_answer(200);
        self.refresh_date(&io.turn);
        // A browser takes the last type of several, and would not read on.
        let is_free = |(name, _): &(&str, &str)| !name.eq_ignore_ascii_case("Content-Type");
        let added = added.into_iter();
        let own = headers.iter().filter(is_free).chain(added.clone());
        // The engine's defaults are for answers that do not set a header themselves.
        let is_unset = |(name, _): &(&str, &str)| {
            let set = fixed.into_iter().chain(headers.iter());
            let mut set = set.chain(added.clone());
            !set.any(|(set, _)| set.eq_ignore_ascii_case(name))
        };
        let defaults = self.headers.iter().filter(is_unset);
        let all = fixed.into_iter().chain(own).chain(defaults);
        let (until_close, close) = (BodyLength::UntilClose, Persistence::Close);
        let date = &self.date.text;
        http::write_head(&mut self.output, 200, all, until_close, close, date);
    }

    /// Writes the head of the response to a request that is read line by line.
    pub(super) fn write_head_of_lines<N: Net>(
        &mut self,
        io: &Io<N>,
        headers: &Headers,
        persistence: Persistence,
        is_chunked: bool,
    ) {
        io.meters.count_answer(200);
        self.refresh_date(&io.turn);
        let length = match is_chunked {
            true => BodyLength::Chunked,
            false => BodyLength::UntilClose,
        };
        let headers = whole_headers(200, headers, &self.headers);
        let date = &self.date.text;
        http::write_head(&mut self.output, 200, headers, length, persistence, date);
    }

    fn append_response<N: Net>(
        &mut self,
        io: &Io<N>,
        response: &Response,
        persistence: Persistence,
        has_body: bool,
    ) {
        let (status, body) = match &response.kind {
            Kind::Body(body) => (response.status, &**body),
            // A hook has put it in the place of an error that passes.
            _ => (response.status, &[][..]),
        };
        io.meters.count_answer(status);
        self.refresh_date(&io.turn);
        let headers = whole_headers(status, &response.headers, &self.headers);
        let length = BodyLength::Known(body.len() as u64);
        let date = &self.date.text;
        http::write_head(&mut self.output, status, headers, length, persistence, date);
        if has_body && http::has_body(status) {
            self.output.extend_from_slice(body);
        }
    }

    fn refresh_date(&mut self, turn: &Turn) {
        let second = turn.now_ms / 1000;
        if self.date.second != second {
            let text = httpdate::fmt_http_date(self.hub().clock.wall(turn.now_ms));
            self.date = Date { second, text };
        }
    }
}

/// The response that is being written is the last: the connection closes behind it,
/// and what the client still sends is forgotten.
pub(super) fn answer_no_more<N: Net>(io: &mut Io<N>, key: u32) {
    if let Some(state) = io.connections.http_mut(key) {
        let bytes_left = LINGER_BYTES_MAX;
        state.phase = Phase::Linger { bytes_left };
    }
}

/// The headers of a whole response: its own, those of the engine's defaults that it
/// does not set, and the instruction not to store an error, or the end of a stream,
/// that has no `Cache-Control`. Caches may store some of these for as long as they
/// see fit (RFC 9111 section 4.2.2).
fn whole_headers<'a>(
    status: u16,
    own: &'a Headers,
    defaults: &'a Headers,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    const NAME: &str = "Cache-Control";
    let has_none = own.get(NAME).is_none() && defaults.get(NAME).is_none();
    let is_silent = (status == 204 || status >= 400) && has_none;
    let no_store = is_silent.then_some((NAME, "no-store"));
    let is_unset = |(name, _): &(&str, &str)| own.get(name).is_none();
    let defaults = defaults.iter().filter(is_unset);
    own.iter().chain(defaults).chain(no_store)
}
