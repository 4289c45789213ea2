//! Requests whose body is read line by line, with a response beside it
//! ([`Lines`](crate::reactor::io::lines)).
//!
//! The response begins with the head of the request. A client that reads while it writes
//! receives each reply at once; one that does not, receives some of them and the last one
//! (`replies`). So it is never waited for.

use std::sync::atomic::Ordering::Relaxed;

use super::next::Next;
use super::responses::answer_no_more;
use super::{Http, deadlines};
use crate::exchange::{Command, LineReply, ReadLines, Request, Response};
use crate::http::{self, Headers, Persistence, Refusal, Step, Version};
use crate::reactor::guard::guard;
use crate::reactor::io::Io;
use crate::reactor::io::connection::Phase;
use crate::reactor::io::lines::Lines;
use crate::reactor::io::net::Net;

impl Http {
    /// Begins to read the body of a request by its lines. If it has not all arrived, its
    /// caller writes the [head](Self::begin_response_of_lines) of the response.
    pub(super) fn begin_lines<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        mut request: Request,
        headers: Headers,
        reader: Box<dyn ReadLines>,
    ) -> Next {
        if let Some(full) = io.acceptor.overflow(key) {
            return self.refuse_for_room(io, key, &request, full.why(), &headers);
        }
        let due_ms = io.turn.due_ms(io.limits.line_timeout);
        let Some(state) = io.connections.http_mut(key) else {
            return Next::Closed;
        };
        state.deferred = state.deferred.wrapping_add(1);
        let is_chunked = request.version() == Version::Http11;
        let persistence = match is_chunked {
            true => request.head().persistence(),
            false => Persistence::Close,
        };
        let mut lines = Lines::new(reader, state.deferred, headers, persistence, is_chunked);
        lines.due_ms = due_ms;
        let is_whole = !state.reader.is_in_body();
        lines.push(&request.take_body(), is_whole);
        (state.is_in_head, state.body_due_ms, state.admitted) = (false, None, None);
        state.phase = Phase::Lines(Box::new(lines));
        if !is_whole {
            return Next::Request;
        }
        self.begin_response_of_lines(io, key);
        self.advance_lines(io, key).unwrap_or(Next::Hold)
    }

    /// Writes the head of the response.
    pub(super) fn begin_response_of_lines<N: Net>(&mut self, io: &mut Io<N>, key: u32) {
        if let Some(lines) = lines_mut(io, key)
            && let Some(headers) = lines.head.take()
        {
            let (persistence, is_chunked) = (lines.persistence, lines.is_chunked);
            self.write_head_of_lines(io, &headers, persistence, is_chunked);
        }
    }

    /// Reads on in the input, which is of a body. Returns how many bytes of it that used,
    /// and what follows if nothing more is to be read now.
    ///
    /// # Errors
    /// What follows, if the rest of the input is of no use.
    pub(super) fn read_lines<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        input: &[u8],
    ) -> Result<(usize, Option<Next>), Next> {
        let state = io.connections.http_mut(key).ok_or(Next::Closed)?;
        let (count, body, is_complete) = match state.reader.push(input, &io.limits) {
            Ok((count, Step::Request(message))) => (count, message.body, true),
            Ok((count, _)) => (count, state.reader.take_body(), false),
            Err(refusal) => {
                io.meters.count_refusal(refusal.code);
                return Err(self.fail_lines(io, key, &refusal).unwrap_or(Next::Hold));
            }
        };
        if let Some(lines) = lines_mut(io, key) {
            lines.push(&body, is_complete);
        }
        Ok((count, self.advance_lines(io, key)))
    }

    /// Passes lines on. Returns what follows if nothing more is to be read now.
    pub(super) fn advance_lines<N: Net>(&mut self, io: &mut Io<N>, key: u32) -> Option<Next> {
        let token = io.connections.token(key);
        let line_due_ms = io.turn.due_ms(io.limits.line_timeout);
        let (line_max, is_draining) = (io.limits.body_bytes_max, io.turn.is_draining());
        let state = io.connections.http_mut(key)?;
        let Phase::Lines(mut lines) = std::mem::replace(&mut state.phase, Phase::Request) else {
            return None;
        };
        while let Some((number, line)) = lines.next() {
            lines.due_ms = line_due_ms;
            let (queue, request) = (self.command_queue.clone(), lines.request);
            let is_ended = lines.end_flag();
            let reply = LineReply::new(move |line, is_last| {
                is_ended.fetch_or(is_last, Relaxed);
                queue.send(Command::Line {
                    token,
                    request,
                    line,
                    is_last,
                });
            });
            // A panic leaves the line without a reply of its own, and the others are read.
            let buffer = lines.take_buffer();
            let reader = &mut lines.reader;
            guard("a reader of lines", || {
                reader.line(number, &buffer[line], reply);
            });
            lines.put_buffer(buffer);
        }
        if lines.begun_bytes() > line_max && !lines.waits() {
            let limits = &io.limits;
            lines.fail(text_of(&Refusal::payload_too_large(limits)));
        } else if is_draining && !lines.waits() {
            let message = "the server is shutting down. Go on with another server";
            lines.fail(text(503, "draining", message));
        }
        let (is_over, waits) = (lines.is_over(), lines.waits());
        if is_over {
            return Some(self.end_lines(io, key, *lines));
        }
        if let Some(state) = io.connections.http_mut(key) {
            state.phase = Phase::Lines(lines);
        }
        if waits {
            deadlines::stop(io, key);
            return Some(Next::Hold);
        }
        None
    }

    /// Ends the response with an error, behind the replies to the lines before.
    pub(super) fn fail_lines<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        refusal: &Refusal,
    ) -> Option<Next> {
        lines_mut(io, key)?.fail(text_of(refusal));
        self.advance_lines(io, key)
    }

    /// Ends the response.
    fn end_lines<N: Net>(&mut self, io: &mut Io<N>, key: u32, mut lines: Lines) -> Next {
        let (last, has_failed) = lines.last();
        if let Some(line) = last {
            Lines::put(&mut self.output, &line, lines.is_chunked);
        }
        if lines.is_chunked {
            self.output.extend_from_slice(http::LAST_CHUNK);
        }
        // From here on the client has to take what is left.
        deadlines::set(io, key, io.limits.stall_timeout);
        let closes = has_failed || lines.persistence == Persistence::Close;
        if closes || io.turn.is_draining() {
            answer_no_more(io, key);
            return Next::Hold;
        }
        Next::Request
    }

    /// Whether a connection reads lines, also while its replies wait to be written.
    pub(super) fn reads_lines<N: Net>(io: &mut Io<N>, token: u64) -> bool {
        let key = io.connections.find(token);
        key.and_then(|key| lines_mut(io, key))
            .is_some_and(|lines| !lines.waits())
    }
}

fn lines_mut<N: Net>(io: &mut Io<N>, key: u32) -> Option<&mut Lines> {
    match &mut io.connections.http_mut(key)?.phase {
        Phase::Lines(lines) => Some(lines),
        Phase::Request | Phase::Answer(_) | Phase::Linger { .. } => None,
    }
}

/// Returns an error as a line of a response.
fn text(status: u16, code: &'static str, message: &str) -> String {
    let response = Response::error(status, code, message);
    let body = response.body().unwrap_or_default();
    String::from_utf8_lossy(body).trim_end().to_owned()
}

fn text_of(refusal: &Refusal) -> String {
    text(refusal.status, refusal.code, &refusal.message)
}
