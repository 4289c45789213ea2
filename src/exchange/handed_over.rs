//! A connection that the program serves itself.

use std::net::{SocketAddr, TcpStream};

/// A connection with a request that no route takes; see
/// [`EngineBuilder::hand_over`](crate::EngineBuilder::hand_over).
#[derive(Debug)]
#[non_exhaustive]
pub struct HandedOver {
    /// The socket, which does not block. If the engine listens on a UNIX socket, it is one
    /// of these, whose calls for addresses fail.
    pub socket: TcpStream,
    /// What was read of it already: the request from its first byte on, and perhaps more.
    pub read: Vec<u8>,
    /// The other end of the socket.
    pub peer: SocketAddr,
    /// The address of the client: the one in a PROXY header, otherwise the peer.
    pub client: SocketAddr,
}
