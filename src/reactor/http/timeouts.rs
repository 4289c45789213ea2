//! Timers that have fired for connections that speak HTTP.

use std::time::Duration;

use super::next::Next;
use super::{Http, Opening, deadlines};
use crate::http::Refusal;
use crate::reactor::io::Io;
use crate::reactor::io::connection::{HttpState, Phase, State};
use crate::reactor::io::net::Net;
use crate::reactor::turn::TICK_MS;

impl Http {
    /// The time of a connection that speaks HTTP is up. What has arrived is read
    /// first: this loop may have been stopped, or busy, or not have asked for this
    /// connection's readiness yet. Only a connection that then has neither a new
    /// deadline nor more to read is closed.
    pub(crate) fn on_timeout<N: Net>(&mut self, io: &mut Io<N>, key: u32) -> Option<Box<Opening>> {
        let token = io.connections.token(key);
        let is_overflow = io.acceptor.overflow(key).is_some();
        let has_lines = |state: &mut HttpState| matches!(state.phase, Phase::Lines(_));
        if io.connections.http_mut(key).is_some_and(has_lines) {
            return self.on_line_timeout(io, key);
        }
        if !is_overflow && Self::has_unsent(io, key) {
            self.retry_unsent(io, key);
            return None;
        }
        let opening = self.serve(io, key);
        if opening.is_some() || io.connections.find(token).is_none() {
            return opening;
        }
        let connection = io.connections.get(key);
        let State::Http(state) = &connection.state else {
            return None;
        };
        if connection.timer.is_set() {
            return None;
        }
        if state.is_queued {
            // It stopped for its budget's sake, and reads on.
            io.set_timer(key, Duration::from_millis(TICK_MS));
        } else if matches!(state.phase, Phase::Request) && !state.is_idle() && !is_overflow {
            let refusal = Refusal {
                status: 408,
                code: "request_timeout",
                message: "timeout while waiting for the request. Send it again".into(),
            };
            self.refuse(io, key, &refusal);
            self.finish_answers(io, key, Next::Hold);
        } else {
            io.close(key);
        }
        None
    }

    /// A client has had its time to take its responses, or some of them. It may have
    /// taken what was not reported, so it is written to once more.
    fn retry_unsent<N: Net>(&mut self, io: &mut Io<N>, key: u32) {
        let (token, stall_ticks) = (io.connections.token(key), io.stall_ticks());
        if io.silent_ticks(key) >= stall_ticks && self.write_unsent(io, key) {
            return self.enqueue(io, key);
        }
        if io.connections.find(token).is_none() {
            return;
        }
        match stall_ticks.saturating_sub(io.silent_ticks(key)) {
            0 => io.close(key),
            left => deadlines::set(io, key, Duration::from_millis(left * TICK_MS)),
        }
    }

    /// The time for a line is up. What has arrived is read first.
    fn on_line_timeout<N: Net>(&mut self, io: &mut Io<N>, key: u32) -> Option<Box<Opening>> {
        let token = io.connections.token(key);
        let opening = self.serve(io, key);
        if opening.is_some() || io.connections.find(token).is_none() {
            return opening;
        }
        let has_timer = io.connections.get(key).timer.is_set();
        let state = io.connections.http_mut(key)?;
        let is_queued = state.is_queued;
        let Phase::Lines(lines) = &state.phase else {
            return None;
        };
        let (due_ms, waits) = (lines.due_ms, lines.waits());
        if has_timer || waits {
            return None;
        }
        if due_ms > io.turn.now_ms {
            deadlines::await_request(io, key);
            return None;
        }
        if is_queued {
            io.set_timer(key, Duration::from_millis(TICK_MS));
            return None;
        }
        let refusal = Refusal {
            status: 408,
            code: "request_timeout",
            message: "timeout while waiting for the next line. Send what follows again".into(),
        };
        io.meters.count_refusal(refusal.code);
        if let Some(next) = self.fail_lines(io, key, &refusal) {
            self.finish_answers(io, key, next);
        }
        None
    }
}
