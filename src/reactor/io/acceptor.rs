//! The acceptor's bookkeeping: which connections count, and which are beyond a limit.
//!
//! A connection that finds room counts from here to its end. One that does not is an
//! *overflow connection*: it is let in all the same, in a small reserve, for a short
//! time and one request, so that it receives the reason and a time to come back, and
//! so that a full engine answers a health check. Where the reserve is full too, the
//! oldest overflow connection makes room: it has had its chance, and a client that
//! sends nothing keeps no other one out. So the acceptor never waits, and a flood
//! costs no more than the reserve.
//!
//! Where descriptors run out before the limit is reached, that is full as well.
//! An engine that knows how many there are keeps the reserve free from the
//! beginning. One that does not learns it from the system, when the next connection
//! cannot be accepted: then overflow connections make room, if there are any.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hashbrown::HashMap;

use super::counts::{ConnectionCounts, Full, Origins};
use crate::limits::Limits;

/// The time for which a warning is not repeated: at a limit, every connection that
/// ends makes room for one more.
pub(super) const WARNING_MS: u64 = 60_000;

/// See the [module](self).
pub(crate) struct Acceptor {
    pub(super) counts: Arc<ConnectionCounts>,
    pub(super) origins: Origins,
    /// The overflow connections, by key: which limit they came to.
    pub(super) overflows: HashMap<u32, Full>,
    /// The overflow connections by token, the oldest first. Some may be gone.
    pub(super) queue: VecDeque<u64>,
    /// Whether connections may wait in the listen queue.
    pub(crate) has_pending: bool,
    /// Nothing is accepted before this time, unless a connection ends.
    pub(crate) paused_until_ms: Option<u64>,
    /// Whether an overflow connection is to make room for one that could not be
    /// accepted.
    pub(super) is_room_wanted: bool,
    /// When the warning about descriptors was logged, until there are some again.
    pub(super) warned_of_descriptors_ms: Option<u64>,
    /// When the warning that there is no room was logged last.
    warned_of_room_ms: Option<u64>,
}

impl Acceptor {
    pub(super) fn new(counts: Arc<ConnectionCounts>) -> Acceptor {
        Acceptor {
            counts,
            origins: Origins::default(),
            overflows: HashMap::new(),
            queue: VecDeque::new(),
            has_pending: true,
            paused_until_ms: None,
            is_room_wanted: false,
            warned_of_descriptors_ms: None,
            warned_of_room_ms: None,
        }
    }

    /// Whether a connection may be accepted now.
    pub(crate) fn is_busy(&self) -> bool {
        self.has_pending && self.paused_until_ms.is_none()
    }

    /// Whether the next connection would be an overflow connection.
    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        self.counts.connections() >= self.counts.room(limits)
    }

    /// The limit that made a connection an overflow connection, if it is one.
    pub(crate) fn overflow(&self, key: u32) -> Option<Full> {
        self.overflows.get(&key).copied()
    }

    /// Connections and addresses that count, and overflow connections.
    #[cfg(feature = "internals")]
    pub(crate) fn holdings(&self) -> [usize; 3] {
        let counts = &self.counts;
        let overflows = self.overflows.len();
        [counts.connections(), counts.networks(), overflows]
    }

    /// A connection is gone: there is room, and a descriptor, for another one.
    pub(super) fn forget(&mut self, key: u32) {
        self.paused_until_ms = None;
        if self.overflows.remove(&key).is_none() {
            self.counts.leave(self.origins.take(key));
        }
    }

    /// Logs that there is no room, at most once a minute.
    pub(super) fn warn_of_room(
        &mut self,
        limits: &Limits,
        full: Full,
        client: SocketAddr,
        now_ms: u64,
    ) {
        let is_due = |at_ms: u64| now_ms >= at_ms + WARNING_MS;
        if !self.warned_of_room_ms.is_none_or(is_due) {
            return;
        }
        self.warned_of_room_ms = Some(now_ms);
        match full {
            Full::Engine if self.counts.is_short_of_descriptors(limits) => {
                log::warn!(
                    "no new streams with {} connections open, because the file descriptors have \
                     run out. Raise the limit on open files (ulimit -n)",
                    self.counts.connections()
                )
            }
            Full::Engine => log::warn!(
                "no new streams with {} connections open, the maximum. Raise the limit on \
                 connections, or use fewer clients",
                limits.connections_max
            ),
            Full::Address => log::warn!(
                "{} has reached the limit of {} connections per address, and its new streams \
                 are rejected. If many clients share the address, raise the limit",
                client.ip(),
                limits.connections_per_address_max
            ),
        }
    }
}

/// Whether a failed `accept` says nothing about the next one.
pub(super) fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::PermissionDenied
    )
}
