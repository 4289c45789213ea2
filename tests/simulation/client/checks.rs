//! What must hold of a client's connection, as the client sees it.

use super::{Client, PAGE_MS_MAX, Role};
use crate::network::Network;
use crate::oracle::{BEAT_SLACK_MS, Oracle, SLACK_MS, TICK_MS};

impl Client {
    /// Checks that no connection was closed before a timeout without a response.
    pub(super) fn check_unanswered(&self, network: &Network, oracle: &mut Oracle) {
        let socket = network.socket(self.socket.expect("it has ended"));
        let is_answered = self.reader.stream.is_some() || self.expected.is_empty();
        let is_hostile = matches!(self.role, Role::Hostile);
        let is_opened = self
            .stream
            .is_some_and(|stream| oracle.streams[stream].is_opened());
        // At a limit, the oldest overflow connection is closed for the next one
        // (docs/limits.md).
        let is_excused =
            is_opened || socket.is_refused || self.ended_sending_at.is_some() || oracle.is_limited;
        // Whatever the time, what has come is read first. A client that took nothing
        // of what came before has stalled.
        let is_ignored = socket.is_closed_unread && self.reads_since == self.connected_at;
        let is_early = network.now() < self.connected_at + 900 || is_ignored;
        if !is_answered
            && !is_hostile
            && !is_excused
            && is_early
            && !oracle.has_shut_down(self.connected_at)
        {
            let what = format!("{:?} was closed and not answered", self.expected);
            let at = network.now();
            let socket = self.socket;
            oracle
                .failures
                .push(format!("at {at} ms: {what} ({socket:?})"));
        }
    }

    /// No answer is cut short before any time is up, whatever the client sends
    /// behind its request.
    pub(super) fn check_whole(&self, network: &Network, oracle: &mut Oracle) {
        let now = network.now();
        let is_cut_short = self.reader.body_left > 0 || !self.reader.head.is_empty();
        let socket = network.socket(self.socket.expect("it has ended"));
        let is_late = oracle.is_past_deadline(self.connected_at);
        let is_opened = self
            .stream
            .is_some_and(|stream| oracle.streams[stream].is_opened());
        let is_excused = is_late || is_opened || socket.is_refused || oracle.is_limited;
        let is_early = now < self.connected_at + 900;
        if is_cut_short && is_early && !is_excused {
            let (status, left) = (self.reader.status, self.reader.body_left);
            oracle.failures.push(format!(
                "at {now} ms: an answer ({status}) is cut short by {left} bytes"
            ));
        }
    }

    /// What must hold of a client that reads whatever comes.
    pub fn check(&self, network: &Network, oracle: &Oracle) -> Result<(), String> {
        let (now, jumped_at) = (network.now(), network.jumped_at());
        let Some(socket) = self.socket.map(|number| network.socket(number)) else {
            return Ok(());
        };
        // An overflow connection has its time, whatever it reads.
        let overflow_ms = if oracle.is_limited { 5_000 } else { 0 };
        let stall_ms = overflow_ms.max(oracle.stall_ms);
        if socket
            .full_since
            .is_some_and(|since| now > since.max(jumped_at) + stall_ms + 2 * SLACK_MS)
        {
            return Err("takes nothing, and is not disconnected".to_owned());
        }
        let (Some(stream), true) = (self.stream, self.is_streaming()) else {
            return self
                .check_page(network, oracle)
                .and_then(|()| self.check_answers(network, oracle));
        };
        let state = &oracle.streams[stream];
        if socket.is_closed {
            // What is left to read says nothing of the engine.
            return Ok(());
        }
        if state.has_joined()
            && self
                .ended_sending_at
                .is_some_and(|at| now > at.max(jumped_at) + 2 * SLACK_MS)
            && now > self.reads_since + 2 * SLACK_MS
        {
            return Err(format!("stream {stream}: half-closed, and still there"));
        }
        if now < self.stalled_until || state.is_cut || state.gone.is_some() {
            return Ok(());
        }
        let silent_since = self.byte_at.max(self.reads_since).max(jumped_at);
        if let Some(beat_ms) = oracle.heartbeat_ms(stream)
            && now > silent_since + beat_ms + TICK_MS + BEAT_SLACK_MS
        {
            return Err(format!(
                "stream {stream}: silent for {} ms, longer than {beat_ms}",
                now - silent_since
            ));
        }
        if let Some(since) = oracle.waits_since(stream)
            && now > since.max(silent_since) + oracle.pace_ms(stream) + SLACK_MS
        {
            return Err(format!("stream {stream}: waits for an event since {since}"));
        }
        Ok(())
    }

    /// Checks that a request is answered soon, unless descriptors have run out.
    fn check_answers(&self, network: &Network, oracle: &Oracle) -> Result<(), String> {
        let now = network.now();
        let is_on_hold = now < self.stalled_until || oracle.has_shut_down(self.connected_at);
        if !self.awaits_answer() || self.is_deferred() || is_on_hold {
            return Ok(());
        }
        let times = [
            self.send_at,
            self.byte_at,
            self.reads_since,
            network.exhausted_at(),
            network.jumped_at(),
        ];
        let since = times.into_iter().max().unwrap_or(0);
        match now > since + 3 * SLACK_MS {
            true => Err(format!("{:?} is not answered since {since}", self.expected)),
            false => Ok(()),
        }
    }

    /// Checks that a client does not wait for its page for too long.
    fn check_page(&self, network: &Network, oracle: &Oracle) -> Result<(), String> {
        let (Some((_, since)), Some(stream)) = (&self.reader.page, self.stream) else {
            return Ok(());
        };
        let (now, state) = (network.now(), &oracle.streams[stream]);
        let since = (*since).max(self.reads_since).max(network.jumped_at());
        let is_excused = now < self.stalled_until || state.is_cut || state.gone.is_some();
        match !is_excused && now > since + PAGE_MS_MAX + 3 * SLACK_MS {
            true => Err(format!("stream {stream} waits for its page since {since}")),
            false => Ok(()),
        }
    }

    /// Whether it has asked for something, as it should, that it has yet to get.
    pub(super) fn awaits_answer(&self) -> bool {
        let has_asked = self.socket.is_some() && self.pieces.is_empty();
        let is_hostile = matches!(self.role, Role::Hostile);
        has_asked && !is_hostile && !self.is_streaming() && !self.expected.is_empty()
    }
}
