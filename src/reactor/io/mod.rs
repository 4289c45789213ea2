//! Sockets and timers: what the other parts know of the network.
//!
//! [`Io`] holds the connections of a reactor, one timer for each, the acceptor's
//! bookkeeping, and the [turn](super::turn) that is under way. It moves bytes, and returns [`Gone`] when a peer is gone. It never ends
//! a stream, and never calls the hub or the user's code: the caller acts on what comes
//! back.
//!
//! The invariant: a connection is in the slab, registered with the network and
//! counted by the acceptor from [`insert`](Io::insert) to [`close`](Io::close).

mod accept;
pub(crate) mod acceptor;
#[cfg(target_os = "linux")]
pub(crate) mod batch;
pub(crate) mod connection;
pub(crate) mod counts;
pub(crate) mod lines;
#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod net;
pub(crate) mod sockets;
mod traffic;
pub(crate) mod wheel;

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use super::turn::{TICK_MS, Turn};
use crate::exchange::Exchange;
use crate::hub::client::ConnectionId;
use crate::hub::clock::as_ms;
use crate::limits::Limits;
use crate::metrics::Meters;
pub(crate) use accept::Accepted;
use acceptor::Acceptor;
use connection::{Connections, StreamKey};
use counts::ConnectionCounts;
pub(crate) use net::Gone;
use net::{Exception, Net, Readiness, Targets, uninterrupted, write_once};
use traffic::Traffic;
use wheel::Wheel;

/// See the [module](self).
pub(crate) struct Io<N: Net> {
    net: N,
    /// Which of the engine's reactors this is.
    pub(crate) index: u16,
    pub(crate) turn: Turn,
    pub(crate) limits: Limits,
    pub(crate) meters: Arc<Meters>,
    pub(crate) connections: Connections<N::Socket>,
    pub(crate) acceptor: Acceptor,
    wheel: Wheel,
    traffic: Traffic,
    /// Where all connections are read into. Taken out while what was read is in
    /// use.
    pub(crate) input: Vec<u8>,
}

/// The sockets of streams that are being written to.
struct Streaming<'a, S> {
    connections: &'a mut Connections<S>,
    keys: &'a [StreamKey],
    /// The tick that it is.
    tick: u32,
}

impl<S> Targets<S> for Streaming<'_, S> {
    #[inline]
    fn count(&self) -> usize {
        self.keys.len()
    }

    #[inline]
    fn socket(&mut self, index: usize) -> &mut S {
        let connection = self.connections.get_mut(self.keys[index].key());
        connection.written_at = self.tick;
        &mut connection.socket
    }
}

impl<N: Net> Io<N> {
    pub(crate) fn new(
        net: N,
        index: u16,
        limits: Limits,
        meters: Arc<Meters>,
        counts: Arc<ConnectionCounts>,
        turn: Turn,
    ) -> Io<N> {
        Io {
            net,
            index,
            limits,
            meters,
            connections: Connections::new(),
            acceptor: Acceptor::new(counts),
            wheel: Wheel::new(turn.tick()),
            traffic: Traffic::default(),
            input: vec![0; turn.budgets.buffer_bytes],
            turn,
        }
    }

    /// The network, for a simulator to act on.
    #[cfg(feature = "internals")]
    pub(crate) fn net_mut(&mut self) -> &mut N {
        &mut self.net
    }

    /// The number of timers that are set.
    #[cfg(feature = "internals")]
    pub(crate) fn timers(&self) -> usize {
        self.wheel.len()
    }

    /// Waits until something is ready, or the time is up.
    ///
    /// # Errors
    /// When the network fails as a whole.
    pub(crate) fn poll(
        &mut self,
        ready: &mut Vec<Readiness>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.net.poll(ready, timeout)
    }

    /// Stops listening, for good.
    pub(crate) fn stop_listening(&mut self) {
        self.net.stop_listening();
    }

    /// Lets other threads read what was counted.
    pub(crate) fn publish_traffic(&self) {
        let is_full = self.acceptor.is_full(&self.limits);
        let sends_in_batches = self.net.sends_in_batches();
        self.meters.batch_senders.set(u64::from(sends_in_batches));
        self.traffic.publish(&self.meters, is_full);
    }

    /// The name under which the hub knows a connection.
    pub(crate) fn connection_id(&self, key: u32) -> ConnectionId {
        ConnectionId {
            token: self.connections.token(key),
            reactor: self.index,
        }
    }

    /// Reads once into `input`. Returns the number of bytes, or `None` when there
    /// is nothing to read before readiness is reported again.
    #[inline]
    pub(crate) fn read(&mut self, key: u32, input: &mut [u8]) -> Result<Option<usize>, Gone> {
        let socket = &mut self.connections.get_mut(key).socket;
        match uninterrupted(|| self.net.read(socket, input)) {
            Ok(0) => Err(Gone),
            Ok(count) => {
                self.traffic.bytes_read += count as u64;
                Ok(Some(count))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(_) => Err(Gone),
        }
    }

    /// Writes as much as there is room for. Returns the number of bytes: fewer than
    /// given until the connection is reported as writable.
    #[inline]
    pub(crate) fn write(&mut self, key: u32, bytes: &[u8]) -> Result<usize, Gone> {
        self.write_events(key, bytes, false)
    }

    /// [`write`](Self::write) for events. `is_limited`: the socket has a limit on
    /// its unsent bytes, see [`limit_unsent`](Self::limit_unsent).
    #[inline]
    pub(crate) fn write_events(
        &mut self,
        key: u32,
        bytes: &[u8],
        is_limited: bool,
    ) -> Result<usize, Gone> {
        let socket = &mut self.connections.get_mut(key).socket;
        let count = write_once(&mut self.net, socket, bytes, is_limited)?;
        self.traffic.bytes_written += count as u64;
        Ok(count)
    }

    /// Writes the same bytes to several streams, without counting: what is written to very
    /// many clients is counted at once by [`count_written`](Self::count_written). Notes
    /// those that did not take all of it, in ascending order.
    #[inline]
    pub(crate) fn write_to_all(
        &mut self,
        keys: &[StreamKey],
        bytes: &[u8],
        is_limited: bool,
        exceptions: &mut Vec<Exception>,
    ) {
        let mut targets = Streaming {
            connections: &mut self.connections,
            keys,
            tick: self.turn.tick32(),
        };
        let net = &mut self.net;
        net.write_to_all(&mut targets, bytes, is_limited, exceptions);
    }

    /// Takes a connection whose request another server has read, if there is one.
    #[inline]
    pub(crate) fn take_exchange(&mut self) -> Option<(N::Socket, Exchange)> {
        self.net.take_exchange()
    }

    /// Writes the last bytes of a stream, which is closed next. Returns whether all of
    /// them were written.
    pub(crate) fn write_last(&mut self, key: u32, bytes: &[u8]) -> bool {
        let socket = &mut self.connections.get_mut(key).socket;
        let count = uninterrupted(|| self.net.write_last(socket, bytes)).unwrap_or(0);
        self.traffic.bytes_written += count as u64;
        count == bytes.len()
    }

    pub(crate) fn count_written(&mut self, bytes: u64) {
        self.traffic.bytes_written += bytes;
    }

    /// Limits the unsent bytes that the system holds for a connection, from now on.
    pub(crate) fn limit_unsent(&mut self, key: u32) {
        let socket = &mut self.connections.get_mut(key).socket;
        self.net.limit_unsent(socket);
    }

    /// Closes the writing half of a connection.
    pub(crate) fn shutdown_write(&mut self, key: u32) {
        let socket = &mut self.connections.get_mut(key).socket;
        self.net.shutdown_write(socket);
    }

    /// Closes a connection and forgets it. If it streams, its stream has to be
    /// ended before.
    pub(crate) fn close(&mut self, key: u32) {
        let socket = self.forget(key);
        self.net.close(socket);
    }

    /// Forgets a connection that speaks HTTP, and returns its socket to the program, if
    /// it is one of the system's.
    pub(crate) fn release(&mut self, key: u32) -> Option<std::net::TcpStream> {
        let socket = self.forget(key);
        self.net.release(socket)
    }

    fn forget(&mut self, key: u32) -> N::Socket {
        self.wheel.cancel(&mut self.connections, key);
        let connection = self.connections.remove(key);
        self.acceptor.forget(key);
        self.traffic.closed += 1;
        connection.socket
    }

    /// Sets the timer of a connection for so long after now, rounded up to a tick.
    pub(crate) fn set_timer(&mut self, key: u32, time: Duration) {
        let due_ms = self.turn.due_ms(time);
        self.set_timer_at(key, due_ms.div_ceil(TICK_MS));
    }

    pub(crate) fn set_timer_at(&mut self, key: u32, tick: u64) {
        self.wheel.set(&mut self.connections, key, tick);
    }

    pub(crate) fn cancel_timer(&mut self, key: u32) {
        self.wheel.cancel(&mut self.connections, key);
    }

    /// The next connection whose timer is due. Its timer is no longer set.
    pub(crate) fn pop_timer(&mut self, tick: u64) -> Option<u32> {
        self.wheel.pop(&mut self.connections, tick)
    }

    /// The time of the next timer, or before it, in milliseconds.
    pub(crate) fn next_timer_ms(&self) -> Option<u64> {
        self.wheel.next_due().map(|tick| tick * TICK_MS)
    }

    /// The ticks since a connection was last written to.
    pub(crate) fn silent_ticks(&self, key: u32) -> u64 {
        let written_at = self.connections.get(key).written_at;
        u64::from(self.turn.tick32().wrapping_sub(written_at))
    }

    /// The ticks after which a peer that takes nothing has stalled.
    pub(crate) fn stall_ticks(&self) -> u64 {
        as_ms(self.limits.stall_timeout).div_ceil(TICK_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::memory::{Memory, Wire};
    use super::*;
    use crate::reactor::budgets::Budgets;

    fn io(limits: Limits, turn: Turn) -> Io<Memory> {
        let counts = Arc::new(ConnectionCounts::new(usize::MAX));
        Io::new(Memory, 0, limits, Arc::new(Meters::new(&[])), counts, turn)
    }

    #[test]
    fn a_connection_is_counted_and_timed_until_it_is_closed() {
        let turn = Turn::new(Budgets::default(), 1_000);
        let mut io = io(Limits::default(), turn);
        let wire = Wire::new(4);
        let peer = ([127, 0, 0, 1], 1).into();
        let key = io.insert(wire.clone(), peer, None).unwrap();
        assert!(io.next_timer_ms().is_some());
        assert_eq!(
            io.write(key, b"hello"),
            Ok(4),
            "as much as there is room for"
        );
        assert_eq!(io.write(key, b"o"), Ok(0));
        let mut input = vec![0; 8];
        assert_eq!(io.read(key, &mut input), Ok(None));
        wire.borrow_mut().sent.extend([b"hi".to_vec(), Vec::new()]);
        assert_eq!(io.read(key, &mut input), Ok(Some(2)));
        assert_eq!(io.read(key, &mut input), Err(Gone), "the peer has closed");
        io.close(key);
        assert!(wire.borrow().is_closed && io.connections.is_empty());
        assert_eq!(io.next_timer_ms(), None);
    }

    #[test]
    fn a_full_reserve_closes_the_oldest_overflow_connection() {
        let budgets = Budgets {
            overflow_max: 2,
            ..Budgets::default()
        };
        let limits = Limits {
            connections_max: 1,
            ..Limits::default()
        };
        let turn = Turn::new(budgets, 0);
        let mut io = io(limits, turn);
        let wires = [0; 4].map(|_| Wire::new(0));
        let peer = ([127, 0, 0, 1], 1).into();
        for wire in &wires {
            assert!(io.insert(wire.clone(), peer, None).is_some());
        }
        let closed = wires.map(|wire| wire.borrow().is_closed);
        assert_eq!(closed, [false, true, false, false]);
    }
}
