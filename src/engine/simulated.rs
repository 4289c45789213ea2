//! The loop without sockets, for the simulator.

use std::io;

use super::EngineHandle;
use crate::reactor::net::Net;
use crate::reactor::{Reactor, Spent};

/// A loop on a simulated network, whose owner runs its turns.
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "for the simulator alone")]
pub struct SimulatedEngine<N: Net> {
    pub(super) reactor: Reactor<N>,
    pub(super) handle: EngineHandle,
}

#[allow(
    missing_docs,
    missing_debug_implementations,
    clippy::missing_errors_doc
)]
impl<N: Net> SimulatedEngine<N> {
    /// Runs one turn: a poll, and the work that follows from it.
    pub fn turn(&mut self) -> io::Result<()> {
        self.reactor.turn()
    }

    /// Returns the network.
    pub fn net(&mut self) -> &mut N {
        self.reactor.net_mut()
    }

    /// Returns a handle, which shuts it down.
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Returns whether a shutdown is complete.
    pub fn is_over(&self) -> bool {
        self.reactor.is_over()
    }

    /// Returns the number of channels: with a name, without one, and private.
    pub fn channels_held(&self) -> usize {
        self.handle.channels.hub().channels_held()
    }

    /// Returns what the last turn has done.
    pub fn spent(&self) -> Spent {
        self.reactor.spent()
    }

    /// Returns what the loop holds: connections, feeds, cursors, readers, timers;
    /// connections and addresses that count, overflow connections.
    pub fn holdings(&self) -> [usize; 8] {
        self.reactor.holdings()
    }
}
