//! What the reactor counts: a [`Net`] that counts what goes through it, and the
//! stopwatch of the loop.
//!
//! What happens for each client is added up here, in plain numbers; before the
//! loop sleeps, and every few turns, they are stored where others read them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::metrics::Meters;
use crate::reactor::io::net::{Net, Readiness};

/// After how many turns without a sleep others may read what was counted: some
/// milliseconds.
const UNTOLD_TURNS_MAX: u8 = 16;

/// A network, and what went through it.
pub(crate) struct Metered<N> {
    pub(crate) net: N,
    accepted: u64,
    closed: u64,
    refused: u64,
    is_full: bool,
    bytes_read: u64,
    bytes_written: u64,
}

impl<N: Net> Metered<N> {
    pub(crate) fn new(net: N) -> Metered<N> {
        Metered {
            net,
            accepted: 0,
            closed: 0,
            refused: 0,
            is_full: false,
            bytes_read: 0,
            bytes_written: 0,
        }
    }

    /// Writes without counting: for what is written to very many, and counted
    /// all at once, with [`count_written`](Self::count_written).
    #[inline]
    pub(crate) fn write_uncounted(
        &mut self,
        socket: &mut N::Socket,
        bytes: &[u8],
    ) -> io::Result<usize> {
        uninterrupted(|| self.net.write(socket, bytes))
    }

    /// As [`write_uncounted`](Self::write_uncounted), of events: to a socket with a
    /// limit on unsent bytes if the feed is one of state.
    #[inline]
    pub(crate) fn write_events_uncounted(
        &mut self,
        socket: &mut N::Socket,
        bytes: &[u8],
        is_limited: bool,
    ) -> io::Result<usize> {
        match is_limited {
            true => self.net.write_limited(socket, bytes),
            false => self.write_uncounted(socket, bytes),
        }
    }

    /// Writes events, and counts them.
    #[inline]
    pub(crate) fn write_events(
        &mut self,
        socket: &mut N::Socket,
        bytes: &[u8],
        is_limited: bool,
    ) -> io::Result<usize> {
        let count = self.write_events_uncounted(socket, bytes, is_limited)?;
        self.bytes_written += count as u64;
        Ok(count)
    }

    /// A connection came for which there is no room.
    pub(crate) fn count_refused(&mut self) {
        self.refused += 1;
    }

    pub(crate) fn count_written(&mut self, bytes: u64) {
        self.bytes_written += bytes;
    }

    /// Lets others read what was counted. `is_full`: there is no room for more,
    /// whatever the network says.
    pub(crate) fn publish(&self, meters: &Meters, is_full: bool) {
        meters.connections_accepted.set(self.accepted);
        meters.connections_closed.set(self.closed);
        meters.connections_refused.set(self.refused);
        meters.is_full.set(u64::from(self.is_full || is_full));
        meters.bytes_read.set(self.bytes_read);
        meters.bytes_written.set(self.bytes_written);
    }
}

impl<N: Net> Net for Metered<N> {
    type Socket = N::Socket;

    #[inline]
    fn poll(&mut self, ready: &mut Vec<Readiness>, timeout: Option<Duration>) -> io::Result<()> {
        self.net.poll(ready, timeout)
    }

    fn accept(&mut self) -> io::Result<(N::Socket, SocketAddr)> {
        let accepted = self.net.accept();
        match &accepted {
            Ok(_) => (self.accepted, self.is_full) = (self.accepted + 1, false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_full = false,
            Err(error) => {
                self.refused += 1;
                self.is_full = !crate::reactor::io::acceptor::is_about_one_connection(error);
            }
        }
        accepted
    }

    fn stop_listening(&mut self) {
        self.net.stop_listening();
    }

    fn register(&mut self, socket: &mut N::Socket, token: u64) -> io::Result<()> {
        self.net.register(socket, token)
    }

    #[inline]
    fn read(&mut self, socket: &mut N::Socket, buffer: &mut [u8]) -> io::Result<usize> {
        let count = uninterrupted(|| self.net.read(socket, buffer))?;
        self.bytes_read += count as u64;
        Ok(count)
    }

    #[inline]
    fn write(&mut self, socket: &mut N::Socket, bytes: &[u8]) -> io::Result<usize> {
        let count = self.write_uncounted(socket, bytes)?;
        self.bytes_written += count as u64;
        Ok(count)
    }

    fn limit_unsent(&mut self, socket: &mut N::Socket) {
        self.net.limit_unsent(socket);
    }

    fn write_limited(&mut self, socket: &mut N::Socket, bytes: &[u8]) -> io::Result<usize> {
        let count = self.net.write_limited(socket, bytes)?;
        self.bytes_written += count as u64;
        Ok(count)
    }

    fn shutdown_write(&mut self, socket: &mut N::Socket) {
        self.net.shutdown_write(socket);
    }

    fn close(&mut self, socket: N::Socket) {
        self.closed += 1;
        self.net.close(socket);
    }
}

/// Repeats an operation that a signal has interrupted: the poller reports no
/// readiness for what has only been interrupted.
#[inline]
fn uninterrupted<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Times the turns of the loop, and events on their way.
#[derive(Default)]
pub(crate) struct Stopwatch {
    began_us: u64,
    is_running: bool,
    /// Turns since it was time to tell.
    untold: u8,
    /// When the events were published whose last write was in this turn.
    published_us: Vec<u64>,
    /// From when on the next slow handler is logged.
    slow_log_due_us: u64,
}

/// A handler that runs for longer than this is logged: it holds up all clients of
/// its thread.
const SLOW_HANDLER_US: u64 = 100_000;
/// The time between two such log lines of a thread.
const SLOW_LOG_US: u64 = 60_000_000;

impl Stopwatch {
    /// Whether a turn's work has begun and is not known to be done.
    pub(crate) fn is_running(&self) -> bool {
        self.is_running
    }

    /// When this turn's work began, or the last one's.
    pub(crate) fn began_us(&self) -> u64 {
        self.began_us
    }

    /// Whether it is time to let others read what was counted: before a sleep,
    /// and after so many turns without one.
    pub(crate) fn is_due(&mut self, sleeps: bool) -> bool {
        self.untold = (self.untold + 1) % UNTOLD_TURNS_MAX;
        sleeps || self.untold == 0
    }

    /// The poll is over, and the turn's work begins.
    pub(crate) fn begin(&mut self, now_us: u64) {
        (self.began_us, self.is_running) = (now_us, true);
    }

    /// Returns how long a handler ran, in milliseconds, if that is to be logged: it
    /// was slow, and no other one was logged in the last minute.
    pub(crate) fn slow_ms(&mut self, began_us: u64, now_us: u64) -> Option<u64> {
        let took_us = now_us.saturating_sub(began_us);
        if took_us < SLOW_HANDLER_US || now_us < self.slow_log_due_us {
            return None;
        }
        self.slow_log_due_us = now_us.saturating_add(SLOW_LOG_US);
        Some(took_us / 1000)
    }

    /// All current clients have what was published then.
    pub(crate) fn arrive(&mut self, published_us: u64) {
        self.published_us.push(published_us);
    }

    /// The turn's work is done.
    pub(crate) fn end(&mut self, now_us: u64, meters: &Meters) {
        if std::mem::take(&mut self.is_running) {
            meters.turns.observe(now_us.saturating_sub(self.began_us));
        }
        while let Some(published_us) = self.published_us.pop() {
            meters.latency.observe(now_us.saturating_sub(published_us));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_handler_is_reported_at_most_once_a_minute() {
        let mut stopwatch = Stopwatch::default();
        assert_eq!(stopwatch.slow_ms(5, SLOW_HANDLER_US), None, "not slow");
        assert_eq!(stopwatch.slow_ms(0, SLOW_HANDLER_US), Some(100));
        let due_us = SLOW_HANDLER_US + SLOW_LOG_US;
        assert_eq!(stopwatch.slow_ms(0, due_us - 1), None, "too soon");
        assert_eq!(stopwatch.slow_ms(due_us - 700_000, due_us), Some(700));
    }

    #[test]
    fn an_operation_that_is_interrupted_is_repeated_at_once() {
        let mut results = [
            Err(io::ErrorKind::Interrupted),
            Err(io::ErrorKind::Interrupted),
            Ok(7),
            Err(io::ErrorKind::WouldBlock),
        ]
        .into_iter();
        let mut next = || {
            results
                .next()
                .expect("no more is asked for")
                .map_err(Into::into)
        };
        assert_eq!(uninterrupted(&mut next).unwrap(), 7);
        let error: io::Error = uninterrupted(&mut next).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
