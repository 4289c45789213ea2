//! The acceptor: from the listen queue to a connection.
//!
//! Whoever finds room counts from here to its end. Whoever does not is a
//! *overflow connection*: it is let in all the same, in a small reserve, for a short time and
//! one request, so that it is told why it has to come back, and so that a
//! health check is answered by a full engine. Where the reserve is full too,
//! the overflow connection who has been there longest makes room: it has had its chance, and
//! whoever says nothing keeps nobody out. So the acceptor never waits, and a flood
//! costs no more than the reserve.
//!
//! Where descriptors run out before the limit is reached, that is full as well.
//! An engine that knows how many there are keeps the reserve free from the
//! beginning. One that does not learns it from the system, when the next one
//! cannot be accepted: then overflow connections make room, if there are any.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::hub::client::DisconnectReason;
use crate::limits::Limits;
use crate::proxies::Preface;
use crate::reactor::Reactor;
use crate::reactor::io::connection::{Connection, State};
use crate::reactor::io::counts::{ConnectionCounts, Full, NOWHERE, Origins};
use crate::reactor::io::net::Net;
use crate::reactor::shutdown::Drain;

/// For how long nothing is accepted after the descriptors ran out, unless a
/// connection ends before.
const ACCEPT_PAUSE_MS: u64 = 500;
/// For how long a complaint is not repeated: at a limit, there is room for one
/// with every connection that ends.
const COMPLAINT_MS: u64 = 60_000;
/// How long an overflow connection may stay, in all. A request takes one round trip from here.
const OVERFLOW_TIME: Duration = Duration::from_secs(5);

/// See the [module](self).
pub(crate) struct Acceptor {
    counts: Arc<ConnectionCounts>,
    origins: Origins,
    /// The overflow connections in the order in which they came, by token; some of them may
    /// be gone.
    queue: VecDeque<u64>,
    overflows: usize,
    /// Whether somebody may wait in the listen queue.
    pub(crate) has_pending: bool,
    pub(crate) paused_until_ms: Option<u64>,
    /// Whether somebody could not be accepted for whom an overflow connection is to make room.
    is_room_wanted: bool,
    /// When it was said that the descriptors ran out, until they are to be had
    /// again.
    complained_at_ms: Option<u64>,
    /// When it was said last that there is no room.
    full_said_at_ms: Option<u64>,
}

impl Acceptor {
    pub(crate) fn new(counts: Arc<ConnectionCounts>) -> Acceptor {
        Acceptor {
            counts,
            origins: Origins::default(),
            queue: VecDeque::new(),
            overflows: 0,
            has_pending: true,
            paused_until_ms: None,
            is_room_wanted: false,
            complained_at_ms: None,
            full_said_at_ms: None,
        }
    }

    /// Whether there is somebody to be let in now.
    pub(crate) fn is_busy(&self) -> bool {
        self.has_pending && self.paused_until_ms.is_none()
    }

    /// Whether the next one would be an overflow connection, whoever it is.
    pub(crate) fn is_full(&self, limits: &Limits) -> bool {
        self.counts.connections() >= self.counts.room(limits)
    }

    /// Connections and addresses that count, and overflow connections.
    #[cfg(feature = "internals")]
    pub(crate) fn holdings(&self) -> [usize; 3] {
        let counts = &self.counts;
        [counts.connections(), counts.networks(), self.overflows]
    }

    /// A connection is gone: there is room, and a descriptor, for somebody who
    /// waits.
    pub(crate) fn see_out<S>(&mut self, key: u32, connection: &Connection<S>) {
        self.paused_until_ms = None;
        match &connection.state {
            State::Http(http) if http.overflow.is_some() => self.overflows -= 1,
            _ => self.counts.leave(self.origins.take(key)),
        }
    }
}

impl<N: Net> Reactor<N> {
    /// Whether somebody may be waiting who is to be let in.
    pub(crate) fn may_accept(&self) -> bool {
        self.acceptor.is_busy() && self.drain.as_ref().is_none_or(Drain::is_open)
    }

    pub(crate) fn accept(&mut self) {
        let now_ms = self.now_ms;
        self.acceptor
            .paused_until_ms
            .take_if(|until| *until <= now_ms);
        if !self.may_accept() {
            return;
        }
        if std::mem::take(&mut self.acceptor.is_room_wanted) {
            self.close_oldest_overflow();
        }
        for _ in 0..self.budgets.accepts_a_turn {
            match self.net.accept() {
                Ok((socket, peer)) => self.welcome(socket, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.acceptor.has_pending = false;
                    // Nobody waits any more.
                    self.acceptor
                        .complained_at_ms
                        .take_if(|at| now_ms >= *at + COMPLAINT_MS);
                    return;
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    if self.acceptor.complained_at_ms.is_none() {
                        self.acceptor.complained_at_ms = Some(now_ms);
                        log::warn!(
                            "no connection can be accepted with {} open: {error}. \
                             Raise the limit on open files (ulimit -n)",
                            self.connections.len()
                        );
                    }
                    // Not before the next turn, in which an overflow connection who has come in
                    // this one is heard.
                    self.acceptor.is_room_wanted = self.acceptor.overflows > 0;
                    if !self.acceptor.is_room_wanted {
                        self.acceptor.paused_until_ms = Some(now_ms + ACCEPT_PAUSE_MS);
                    }
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, socket: N::Socket, peer: SocketAddr) {
        let own = self.proxies.own_address(peer);
        let entered = self.acceptor.counts.enter(own, &self.limits);
        if entered.is_err() {
            self.make_room();
        }
        let key = self.connections.insert(socket, peer, self.tick32());
        if self.proxies.expects_preface(peer)
            && let Some(http) = self.connections.http_mut(key)
        {
            http.preface = Some(Box::new(Preface::new()));
        }
        match entered {
            Ok(network) => {
                self.acceptor.origins.note(key, network);
                let idle_time = self.idle_time();
                self.set_timer(key, idle_time);
            }
            Err(full) => self.add_overflow(key, full, peer),
        }
        let token = self.connections.token(key);
        let socket = &mut self.connections.get_mut(key).socket;
        if let Err(error) = self.net.register(socket, token) {
            log::warn!("a connection cannot be polled: {error}");
            self.close(key, DisconnectReason::Gone);
        }
    }

    fn add_overflow(&mut self, key: u32, full: Full, client: SocketAddr) {
        self.warn_full(full, client);
        self.net.count_refused();
        self.acceptor.overflows += 1;
        self.acceptor.queue.push_back(self.connections.token(key));
        if let Some(http) = self.connections.http_mut(key) {
            http.overflow = Some(full);
        }
        self.set_timer(key, OVERFLOW_TIME);
    }

    /// A proxy has said whose connection it is. That address counts from here,
    /// unless it is one of a further proxy's.
    pub(crate) fn note_client(&mut self, key: u32, client: SocketAddr) {
        let Some(own) = self.proxies.direct(client) else {
            return;
        };
        if self.overflow(key).is_some() {
            return;
        }
        match self.acceptor.counts.enter_from(own, &self.limits) {
            Ok(network) => self.acceptor.origins.note(key, network),
            Err(full) => {
                self.acceptor.counts.leave(NOWHERE);
                self.make_room();
                self.add_overflow(key, full, client);
            }
        }
    }

    /// Nobody is turned away without a word while there is room for an overflow connection.
    fn make_room(&mut self) {
        while self.acceptor.overflows >= self.budgets.overflow_max && self.close_oldest_overflow() {
        }
        if self.acceptor.queue.len() >= 2 * self.budgets.overflow_max {
            self.acceptor
                .queue
                .retain(|token| self.connections.find(*token).is_some());
        }
    }

    /// Disconnects the overflow connection who has been there longest, if there is one.
    fn close_oldest_overflow(&mut self) -> bool {
        while let Some(token) = self.acceptor.queue.pop_front() {
            if let Some(key) = self.connections.find(token) {
                self.close(key, DisconnectReason::Gone);
                return true;
            }
        }
        false
    }

    /// Says that there is no room, once a minute at the most.
    fn warn_full(&mut self, full: Full, peer: SocketAddr) {
        let is_due = |at: u64| self.now_ms >= at + COMPLAINT_MS;
        if !self.acceptor.full_said_at_ms.is_none_or(is_due) {
            return;
        }
        self.acceptor.full_said_at_ms = Some(self.now_ms);
        match full {
            Full::Engine if self.acceptor.counts.is_short_of_descriptors(&self.limits) => {
                log::warn!(
                    "no stream begins with {} connections open: there are descriptors for no \
                 more. Raise the limit on open files (ulimit -n)",
                    self.acceptor.counts.connections()
                )
            }
            Full::Engine => log::warn!(
                "no stream begins with {} connections open: raise the limit on connections, \
                 or have fewer clients",
                self.limits.connections_max
            ),
            Full::Address => log::warn!(
                "{} has {} connections open and gets no more streams: if many clients share \
                 that address, raise the limit on connections of one address",
                peer.ip(),
                self.limits.connections_per_address_max
            ),
        }
    }
}

/// Whether a failed `accept` says nothing about the next one.
pub(crate) fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::PermissionDenied
    )
}
