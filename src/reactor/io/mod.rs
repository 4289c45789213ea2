//! Sockets and timers.

pub(crate) mod acceptor;
pub(crate) mod connection;
pub(crate) mod counts;
pub(crate) mod metered;
pub(crate) mod net;
pub(crate) mod sockets;
pub(crate) mod wheel;
