//! What other threads send to connections that speak HTTP: the answers to deferred requests,
//! and the replies to lines.

use super::next::Next;
use super::{Http, Opening, deadlines};
use crate::exchange::Response;
use crate::reactor::io::Io;
use crate::reactor::io::connection::Phase;
use crate::reactor::io::lines::Lines;
use crate::reactor::io::net::Net;

/// The bytes of replies that wait until the client takes them. Further ones are left out.
const REPLIES_BYTES_MAX: usize = 64 << 10;

impl Http {
    /// The answer to a deferred request has come. Returns the stream that the
    /// connection becomes, if it does.
    pub(crate) fn on_answer<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        request: u32,
        response: Response,
    ) -> Option<Box<Opening>> {
        let state = io.connections.http_mut(key)?;
        if state.deferred != request || !matches!(state.phase, Phase::Answer(_)) {
            return None;
        }
        let Phase::Answer(request) = std::mem::replace(&mut state.phase, Phase::Request) else {
            return None;
        };
        let requests = io.turn.spent.requests;
        let next = self.answer(io, key, *request, response);
        // Its page is work of a command: requests that wait for their turn are not passed over.
        let spent = &mut io.turn.spent;
        spent.commands += std::mem::replace(&mut spent.requests, requests) - requests;
        match self.finish_answers(io, key, next) {
            Next::Open(opening) => Some(opening),
            // What came behind the request has waited.
            Next::Request => self.on_readable(io, key),
            Next::Hold | Next::HandOver | Next::Closed => None,
        }
    }

    /// The reply to a line has come.
    pub(crate) fn on_line_reply<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        request: u32,
        line: Option<String>,
        is_last: bool,
    ) -> Option<Box<Opening>> {
        let state = io.connections.http_mut(key)?;
        let Phase::Lines(lines) = &mut state.phase else {
            return None;
        };
        if lines.request != request {
            return None;
        }
        lines.note_reply();
        match line {
            Some(line) if is_last => lines.fail(line),
            Some(line) if state.unsent.as_bytes().len() < REPLIES_BYTES_MAX => {
                let mut reply = Vec::with_capacity(line.len() + 16);
                Lines::put(&mut reply, &line, lines.is_chunked);
                state.unsent.push(&reply);
            }
            _ => {}
        }
        let next = self.advance_lines(io, key);
        // The replies of a turn are written together.
        self.enqueue(io, key);
        match next {
            Some(next) => match self.finish_answers(io, key, next) {
                Next::Open(opening) => Some(opening),
                _ => None,
            },
            None => {
                deadlines::await_request(io, key);
                None
            }
        }
    }
}
