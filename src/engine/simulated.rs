//! The loop without sockets, for the simulator.

use std::io;

use super::EngineHandle;
use crate::reactor::Reactor;
use crate::reactor::net::Net;

/// A loop on a network of another making: whoever holds it turns it.
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
    /// One turn: a poll, and what follows from it.
    pub fn turn(&mut self) -> io::Result<()> {
        self.reactor.turn()
    }

    /// The network, to act on.
    pub fn net(&mut self) -> &mut N {
        self.reactor.net_mut()
    }

    /// What others need to shut it down.
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Whether a shutdown has come to its end.
    pub fn is_over(&self) -> bool {
        self.reactor.is_over()
    }

    /// How many channels there are: with a name, without one, and private.
    pub fn channels_held(&self) -> usize {
        self.handle.channels.hub().channels_held()
    }

    /// What the loop holds: connections, feeds, cursors, readers, timers;
    /// connections and addresses that count, overflow connections.
    pub fn holdings(&self) -> [usize; 8] {
        self.reactor.holdings()
    }
}
