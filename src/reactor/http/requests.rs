//! A connection's requests and responses, in order: bytes in, bytes out.
//!
//! A connection is taken as far as its budget goes, then others have their turn:
//! one read may hold a thousand requests.

use std::time::Duration;

use super::next::Next;
use super::{Http, Opening, deadlines};
use crate::http::{self, Step};
use crate::reactor::io::connection::{Pending, Phase, State};
use crate::reactor::io::net::Net;
use crate::reactor::io::{Gone, Io};

/// Responses are written when so many bytes of them have gathered.
const OUTPUT_BYTES_MAX: usize = 256 << 10;
/// The time for which a client may go on sending behind the last request that is
/// answered.
const LINGER: Duration = Duration::from_secs(2);

impl Http {
    /// A connection that speaks HTTP is readable.
    pub(crate) fn on_readable<N: Net>(&mut self, io: &mut Io<N>, key: u32) -> Option<Box<Opening>> {
        // Connections in the queue go first: one that is reported again and again
        // would take all the steps of every turn from them.
        if io.turn.may_serve() && self.queue.is_empty() {
            return self.serve(io, key);
        }
        self.enqueue(io, key);
        None
    }

    /// A connection that speaks HTTP is writable.
    pub(crate) fn on_writable<N: Net>(&mut self, io: &mut Io<N>, key: u32) {
        let state = io.connections.http_mut(key);
        if state.is_some_and(|state| !state.unsent.is_empty()) {
            self.enqueue(io, key);
        }
    }

    /// Takes the next connection out of the queue. The caller then
    /// [serves](Self::serve) it.
    pub(crate) fn next_queued<N: Net>(&mut self, io: &mut Io<N>) -> Option<u32> {
        loop {
            let token = self.queue.pop_front()?;
            if let Some(key) = io.connections.find(token)
                && let Some(state) = io.connections.http_mut(key)
            {
                state.is_queued = false;
                return Some(key);
            }
        }
    }

    pub(crate) fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Takes a connection as far as it goes, or as its budget lasts: writes what is
    /// unsent, then reads and answers. Returns the stream that it becomes, if it
    /// does.
    pub(crate) fn serve<N: Net>(&mut self, io: &mut Io<N>, key: u32) -> Option<Box<Opening>> {
        let mut slice = io.turn.budgets.requests_a_slice;
        for _ in 0..io.turn.budgets.reads_a_turn {
            io.turn.spent.steps += 1;
            let token = io.connections.token(key);
            if !self.write_unsent(io, key) && !Self::reads_lines(io, token) {
                return None;
            }
            let state = io.connections.http_mut(key)?;
            let next = match &state.phase {
                Phase::Lines(lines) if lines.waits() => return None,
                Phase::Request | Phase::Lines(_) if state.unread.is_empty() => {
                    self.read_and_answer(io, key, &mut slice)
                }
                Phase::Request | Phase::Lines(_) => self.answer_unread(io, key, &mut slice),
                Phase::Linger { .. } => Some(Self::read_and_forget(io, key)),
                // A client that waits may leave, but not go on.
                Phase::Answer(_) => return None,
            };
            match next {
                Some(Next::Request) => {}
                Some(Next::Open(opening)) => return Some(opening),
                Some(Next::Hold | Next::HandOver | Next::Closed) => return None,
                None => break,
            }
        }
        self.enqueue(io, key);
        None
    }

    /// Reads once, and answers what that brings. Returns `None` when the slice is
    /// used up.
    fn read_and_answer<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        slice: &mut usize,
    ) -> Option<Next> {
        let mut input = std::mem::take(&mut io.input);
        let next = match io.read(key, &mut input) {
            Ok(Some(count)) => {
                let (next, used) = self.answer_all(io, key, &input[..count], slice);
                let unread = || Pending::of(&input[used..count]);
                self.keep_unread(io, key, next, slice, unread)
            }
            Ok(None) => Some(Next::Hold),
            Err(Gone) => {
                io.close(key);
                Some(Next::Closed)
            }
        };
        io.input = input;
        next
    }

    /// Answers what an earlier read left over. Returns `None` when the slice is used
    /// up.
    fn answer_unread<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        slice: &mut usize,
    ) -> Option<Next> {
        let state = io.connections.http_mut(key)?;
        let mut unread = std::mem::take(&mut state.unread);
        let (next, used) = self.answer_all(io, key, unread.as_bytes(), slice);
        unread.take(used);
        self.keep_unread(io, key, next, slice, || unread)
    }

    /// Keeps the input that has to wait. Returns `None` when it only waits for its
    /// turn.
    fn keep_unread<N: Net>(
        &self,
        io: &mut Io<N>,
        key: u32,
        next: Next,
        slice: &usize,
        rest: impl FnOnce() -> Pending,
    ) -> Option<Next> {
        let is_held = match next {
            Next::Open(_) | Next::Closed => return Some(next),
            Next::HandOver => {
                self.hand_over(io, key, rest().as_bytes());
                return Some(next);
            }
            Next::Hold => true,
            Next::Request => false,
        };
        let state = io.connections.http_mut(key)?;
        state.unread = rest();
        let is_over = *slice == 0 || !io.turn.may_answer() || !state.unread.is_empty();
        (is_held || !is_over).then_some(next)
    }

    pub(super) fn enqueue<N: Net>(&mut self, io: &mut Io<N>, key: u32) {
        if let Some(state) = io.connections.http_mut(key)
            && !std::mem::replace(&mut state.is_queued, true)
        {
            self.queue.push_back(io.connections.token(key));
        }
    }

    /// Parses and answers what was read, and writes the responses. Returns how many
    /// bytes that used: not all, if the connection has to wait, or others have their
    /// turn.
    fn answer_all<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        input: &[u8],
        slice: &mut usize,
    ) -> (Next, usize) {
        let mut used = 0;
        let next = loop {
            if used == input.len() {
                break Next::Request;
            }
            if self.hands_over && self.is_for_program(io, key, &input[used..]) {
                break Next::HandOver;
            }
            let (count, next) = match self.answer_next(io, key, &input[used..]) {
                Ok(answered) => answered,
                // Where the next request would begin is unknown.
                Err(next) => {
                    used = input.len();
                    break next;
                }
            };
            used += count;
            let Some(next) = next else { continue };
            *slice = slice.saturating_sub(1);
            io.turn.spent.requests += 1;
            let is_over = *slice == 0 || !io.turn.may_answer();
            if !matches!(next, Next::Request) || is_over || self.output.len() > OUTPUT_BYTES_MAX {
                break next;
            }
        };
        (self.finish_answers(io, key, next), used)
    }

    /// Reads on in the input. Returns how many bytes of it that used, and, if a
    /// request was complete and answered, what follows.
    ///
    /// # Errors
    /// What follows, if the rest of the input is of no use.
    fn answer_next<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        input: &[u8],
    ) -> Result<(usize, Option<Next>), Next> {
        let state = io.connections.http_mut(key).ok_or(Next::Closed)?;
        if matches!(state.phase, Phase::Lines(_)) {
            return self.read_lines(io, key, input);
        }
        if state.preface.is_some() {
            let count = self.read_preface(io, key, input)?;
            return Ok((count, None));
        }
        let (count, step) = match state.reader.push(input, &io.limits) {
            Ok(read) => read,
            Err(refusal) => {
                self.refuse(io, key, &refusal);
                return Err(Next::Hold);
            }
        };
        if let Step::Request(message) = step {
            let next = self.handle(io, key, message);
            return Ok((count, Some(next)));
        }
        let admitted = self.admit(io, key);
        let token = io.connections.token(key);
        let reads_lines = Self::reads_lines(io, token);
        if let Some(next) = admitted
            && !reads_lines
        {
            return Err(next);
        }
        if step == Step::SendContinue {
            self.output.extend_from_slice(http::CONTINUE);
        }
        if reads_lines {
            self.begin_response_of_lines(io, key);
            let begun = self.read_lines(io, key, &[])?;
            return Ok((count, begun.1));
        }
        Ok((count, None))
    }

    /// Writes the responses that have gathered, and sets the timer for what follows.
    pub(super) fn finish_answers<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        mut next: Next,
    ) -> Next {
        if !self.output.is_empty() {
            let written = self.write_output(io, key);
            self.output.clear();
            self.output.shrink_to(OUTPUT_BYTES_MAX);
            match &mut next {
                // Its stream has begun, and has to be ended.
                Next::Open(opening) => opening.is_gone = written.is_err(),
                _ if written.is_err() => {
                    io.close(key);
                    next = Next::Closed;
                }
                _ => {}
            }
        }
        if matches!(next, Next::HandOver) && Self::has_unsent(io, key) {
            // The client has to take its responses first.
            return Next::Hold;
        }
        if matches!(next, Next::Request) {
            deadlines::await_request(io, key);
        }
        next
    }

    /// Writes the output, behind what is unsent of earlier responses.
    fn write_output<N: Net>(&mut self, io: &mut Io<N>, key: u32) -> Result<(), Gone> {
        let connection = io.connections.get_mut(key);
        let State::Http(state) = &mut connection.state else {
            return Ok(());
        };
        if !state.unsent.is_empty() {
            state.unsent.push(&self.output);
            return Ok(());
        }
        connection.written_at = io.turn.tick32();
        let count = io.write(key, &self.output)?;
        if count == self.output.len() {
            self.after_writing(io, key);
        } else if let Some(state) = io.connections.http_mut(key) {
            state.unsent.push(&self.output[count..]);
            if !matches!(state.phase, Phase::Lines(_)) {
                deadlines::set(io, key, io.limits.stall_timeout);
            }
        }
        Ok(())
    }

    /// Writes what an earlier write left. Returns whether that is all out, and the
    /// connection still there.
    pub(super) fn write_unsent<N: Net>(&mut self, io: &mut Io<N>, key: u32) -> bool {
        let Some(state) = io.connections.http_mut(key) else {
            return false;
        };
        if state.unsent.is_empty() {
            return true;
        }
        let unsent = std::mem::take(&mut state.unsent);
        let Ok(count) = io.write(key, unsent.as_bytes()) else {
            io.close(key);
            return false;
        };
        if count > 0 {
            io.connections.get_mut(key).written_at = io.turn.tick32();
        }
        let Some(state) = io.connections.http_mut(key) else {
            return false;
        };
        state.unsent = unsent;
        state.unsent.take(count);
        if !state.unsent.is_empty() {
            return false;
        }
        self.after_writing(io, key);
        true
    }

    /// All responses are out.
    fn after_writing<N: Net>(&mut self, io: &mut Io<N>, key: u32) {
        let Some(state) = io.connections.http_mut(key) else {
            return;
        };
        match state.phase {
            Phase::Linger { .. } => {
                // "Out" is in the kernel's buffer. A socket that is closed with
                // bytes unread is reset, and the kernel drops what it has for a
                // client that goes on sending; so only this half is closed, until the
                // client has closed the other (RFC 9112 section 9.6).
                io.shutdown_write(key);
                deadlines::set(io, key, LINGER);
                // What has come already is not reported again.
                self.enqueue(io, key);
            }
            Phase::Request => deadlines::await_request(io, key),
            Phase::Answer(_) => deadlines::stop(io, key),
            // Its time is that of the next line.
            Phase::Lines(_) => {}
        }
    }

    /// Reads once, and forgets, what a client still sends behind its last request.
    fn read_and_forget<N: Net>(io: &mut Io<N>, key: u32) -> Next {
        let mut input = std::mem::take(&mut io.input);
        let read = io.read(key, &mut input);
        io.input = input;
        let Some(state) = io.connections.http_mut(key) else {
            return Next::Closed;
        };
        state.unread = Pending::default();
        let Phase::Linger { bytes_left } = &mut state.phase else {
            return Next::Hold;
        };
        match read {
            Ok(None) => Next::Hold,
            Ok(Some(count)) if count < *bytes_left => {
                *bytes_left -= count;
                Next::Request
            }
            Ok(Some(_)) | Err(Gone) => {
                io.close(key);
                Next::Closed
            }
        }
    }
}
