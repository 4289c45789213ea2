//! From the listen queue to a connection that counts.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Io;
use super::acceptor::{WARNING_MS, is_about_one_connection};
use super::counts::{Full, NOWHERE};
use super::net::Net;

/// The time for which nothing is accepted after the descriptors ran out, unless a
/// connection ends before.
const ACCEPT_PAUSE_MS: u64 = 500;
/// The time that an overflow connection may stay in all. A request takes one round
/// trip from here.
const OVERFLOW_TIME: Duration = Duration::from_secs(5);

/// What [`Io::accept`] found.
pub(crate) enum Accepted<S> {
    /// A connection, and its peer.
    Connection(S, SocketAddr),
    /// A connection that was lost while it waited.
    Lost,
    /// There is nothing to accept for now.
    Nothing,
}

impl<N: Net> Io<N> {
    /// Begins a turn's accepts. Returns whether there may be something to accept.
    pub(crate) fn begin_accepting(&mut self) -> bool {
        let paused_until_ms = &mut self.acceptor.paused_until_ms;
        paused_until_ms.take_if(|until_ms| *until_ms <= self.turn.now_ms);
        if !self.acceptor.is_busy() || !self.turn.is_open() {
            return false;
        }
        if std::mem::take(&mut self.acceptor.is_room_wanted) {
            self.close_oldest_overflow();
        }
        true
    }

    /// Takes the next connection of the listen queue.
    pub(crate) fn accept(&mut self) -> Accepted<N::Socket> {
        let error = match self.net.accept() {
            Ok((socket, peer)) => {
                self.traffic.accepted += 1;
                self.traffic.is_out_of_descriptors = false;
                return Accepted::Connection(socket, peer);
            }
            Err(error) => error,
        };
        if error.kind() == io::ErrorKind::WouldBlock {
            self.traffic.is_out_of_descriptors = false;
            self.acceptor.has_pending = false;
            let warned_ms = &mut self.acceptor.warned_of_descriptors_ms;
            warned_ms.take_if(|at_ms| self.turn.now_ms >= *at_ms + WARNING_MS);
            return Accepted::Nothing;
        }
        self.traffic.refused += 1;
        self.traffic.is_out_of_descriptors = !is_about_one_connection(&error);
        if !self.traffic.is_out_of_descriptors {
            return Accepted::Lost;
        }
        if self.acceptor.warned_of_descriptors_ms.is_none() {
            self.acceptor.warned_of_descriptors_ms = Some(self.turn.now_ms);
            log::warn!(
                "cannot accept a connection with {} open ({error}). Raise the limit on open files \
                 (ulimit -n)",
                self.connections.len()
            );
        }
        // Not before the next turn, in which an overflow connection that has come in
        // this one is heard.
        self.acceptor.is_room_wanted = !self.acceptor.overflows.is_empty();
        if !self.acceptor.is_room_wanted {
            self.acceptor.paused_until_ms = Some(self.turn.now_ms + ACCEPT_PAUSE_MS);
        }
        Accepted::Nothing
    }

    /// Adds an accepted connection, with its timer set. `own_address` is its
    /// client's, if that is known. Returns its key, unless the poller takes no more.
    pub(crate) fn insert(
        &mut self,
        socket: N::Socket,
        peer: SocketAddr,
        own_address: Option<IpAddr>,
    ) -> Option<u32> {
        let counted = self.acceptor.counts.enter(own_address, &self.limits);
        if counted.is_err() {
            self.make_room();
        }
        let key = self.connections.insert(socket, peer, self.turn.tick32());
        match counted {
            Ok(network) => {
                self.acceptor.origins.note(key, network);
                self.set_timer(key, self.turn.idle_time(&self.limits));
            }
            Err(full) => self.add_overflow(key, full, peer),
        }
        let token = self.connections.token(key);
        let socket = &mut self.connections.get_mut(key).socket;
        if let Err(error) = self.net.register(socket, token) {
            log::warn!("cannot poll a connection ({error})");
            self.close(key);
            return None;
        }
        Some(key)
    }

    /// Counts the address of a connection, now that a proxy has sent it.
    pub(crate) fn count_address(&mut self, key: u32, client: SocketAddr, own_address: IpAddr) {
        if self.acceptor.overflow(key).is_some() {
            return;
        }
        match self.acceptor.counts.enter_from(own_address, &self.limits) {
            Ok(network) => self.acceptor.origins.note(key, network),
            Err(full) => {
                self.acceptor.counts.leave(NOWHERE);
                self.make_room();
                self.add_overflow(key, full, client);
            }
        }
    }

    fn add_overflow(&mut self, key: u32, full: Full, client: SocketAddr) {
        let acceptor = &mut self.acceptor;
        acceptor.warn_of_room(&self.limits, full, client, self.turn.now_ms);
        acceptor.overflows.insert(key, full);
        acceptor.queue.push_back(self.connections.token(key));
        self.traffic.refused += 1;
        self.set_timer(key, OVERFLOW_TIME);
    }

    /// Has the reserve take one more overflow connection.
    fn make_room(&mut self) {
        let reserve = self.turn.budgets.overflow_max;
        while self.acceptor.overflows.len() >= reserve && self.close_oldest_overflow() {}
        if self.acceptor.queue.len() >= 2 * reserve {
            let connections = &self.connections;
            let is_here = |token: &u64| connections.find(*token).is_some();
            self.acceptor.queue.retain(is_here);
        }
    }

    /// Closes the oldest overflow connection, if there is one. It never streams.
    fn close_oldest_overflow(&mut self) -> bool {
        while let Some(token) = self.acceptor.queue.pop_front() {
            if let Some(key) = self.connections.find(token) {
                self.close(key);
                return true;
            }
        }
        false
    }
}
