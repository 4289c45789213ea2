//! The time that a client has for its request, and for taking its response.
//!
//! A connection that speaks HTTP has one timer, for what it is waited for next. An
//! overflow connection's timer runs from its beginning to its end instead.

use std::time::Duration;

use crate::reactor::io::Io;
use crate::reactor::io::connection::Phase;
use crate::reactor::io::net::Net;

/// Sets the timer of a connection, unless it is an overflow connection.
pub(super) fn set<N: Net>(io: &mut Io<N>, key: u32, time: Duration) {
    if io.acceptor.overflow(key).is_none() {
        io.set_timer(key, time);
    }
}

/// Stops the timer of a connection whose client waits for a handler.
pub(super) fn stop<N: Net>(io: &mut Io<N>, key: u32) {
    if io.acceptor.overflow(key).is_none() {
        io.cancel_timer(key);
    }
}

/// Sets the timer of a connection whose client may send what it likes next.
pub(super) fn await_request<N: Net>(io: &mut Io<N>, key: u32) {
    let (head_timeout, body_timeout) = (io.limits.head_timeout, io.limits.body_timeout);
    let idle_time = io.turn.idle_time(&io.limits);
    let now_ms = io.turn.now_ms;
    let Some(state) = io.connections.http_mut(key) else {
        return;
    };
    if let Phase::Lines(lines) = &state.phase {
        // Also while its replies wait to be written. A timer that is due is not put off.
        let left_ms = lines.due_ms.saturating_sub(now_ms);
        if left_ms > 0 {
            set(io, key, Duration::from_millis(left_ms));
        }
        return;
    }
    if !state.unsent.is_empty() {
        // The client has to take its responses first, and has time for that.
        return;
    }
    let time = match state.is_idle() {
        true => idle_time,
        false if state.reader.is_in_body() => {
            // Each part extends the time, but not beyond that for the whole body.
            let due_ms = io.turn.due_ms(body_timeout);
            let due_ms = *state.body_due_ms.get_or_insert(due_ms);
            if due_ms <= io.turn.now_ms {
                // The timer is due: one more part must not put it off.
                return;
            }
            let left = Duration::from_millis(due_ms.saturating_sub(io.turn.now_ms));
            head_timeout.min(left)
        }
        // A head has one deadline, however slowly it drips in.
        false if !state.unread.is_empty() || state.is_in_head => return,
        false => {
            state.is_in_head = true;
            head_timeout
        }
    };
    if state.is_idle() || state.reader.is_in_body() {
        state.is_in_head = false;
    }
    set(io, key, time);
}
