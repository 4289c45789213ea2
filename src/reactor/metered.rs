//! What the reactor counts: a [`Net`] that counts what goes through it, and the
//! stopwatch of the loop.
//!
//! What happens for each client is added up here, in plain numbers; once a turn
//! they are stored where others read them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::net::{Net, Readiness};
use crate::metrics::Meters;

/// A network, and what went through it.
pub(super) struct Metered<N> {
    pub(super) net: N,
    accepted: u64,
    closed: u64,
    refused: u64,
    is_full: bool,
    bytes_read: u64,
    bytes_written: u64,
}

impl<N: Net> Metered<N> {
    pub(super) fn new(net: N) -> Metered<N> {
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
    pub(super) fn write_uncounted(
        &mut self,
        socket: &mut N::Socket,
        bytes: &[u8],
    ) -> io::Result<usize> {
        self.net.write(socket, bytes)
    }

    /// A connection came for which there is no room.
    pub(super) fn count_refused(&mut self) {
        self.refused += 1;
    }

    pub(super) fn count_written(&mut self, bytes: u64) {
        self.bytes_written += bytes;
    }

    /// Lets others read what was counted. `is_full`: there is no room for more,
    /// whatever the network says.
    pub(super) fn publish(&self, meters: &Meters, is_full: bool) {
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
                self.is_full = !super::accepting::is_about_one_connection(error);
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
        let count = self.net.read(socket, buffer)?;
        self.bytes_read += count as u64;
        Ok(count)
    }

    #[inline]
    fn write(&mut self, socket: &mut N::Socket, bytes: &[u8]) -> io::Result<usize> {
        let count = self.net.write(socket, bytes)?;
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

/// Times the turns of the loop, and events on their way.
#[derive(Default)]
pub(super) struct Stopwatch {
    /// When the turn's work began, if one did.
    began_us: Option<u64>,
    /// When the events were published whose last write was in this turn.
    published_us: Vec<u64>,
}

impl Stopwatch {
    /// Whether a turn's work has begun and is not known to be done.
    pub(super) fn is_running(&self) -> bool {
        self.began_us.is_some()
    }

    /// The poll is over, and the turn's work begins.
    pub(super) fn begin(&mut self, now_us: u64) {
        self.began_us = Some(now_us);
    }

    /// All current clients have what was published then.
    pub(super) fn arrive(&mut self, published_us: u64) {
        self.published_us.push(published_us);
    }

    /// The turn's work is done.
    pub(super) fn end(&mut self, now_us: u64, meters: &Meters) {
        if let Some(began_us) = self.began_us.take() {
            meters.turns.observe(now_us.saturating_sub(began_us));
        }
        while let Some(published_us) = self.published_us.pop() {
            meters.latency.observe(now_us.saturating_sub(published_us));
        }
    }
}
