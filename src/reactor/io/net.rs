//! The seam between the loop and the network.
//!
//! The loop is generic over [`Net`]: in production that is mio, in tests a
//! network that a seed makes up. Dispatch is static, so the seam costs
//! nothing.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::exchange::Exchange;

/// What a poll reports of one socket, or of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The token that the socket was registered with, or [`LISTENER`].
    pub token: u64,
    /// There may be bytes, or an end, to read; or connections to accept.
    pub is_readable: bool,
    /// There may be room to write.
    pub is_writable: bool,
}

/// The token of the listener.
pub const LISTENER: u64 = u64::MAX;

/// Maximum unsent bytes of a socket after [`Net::limit_unsent`].
///
/// An event that waits there is stale when it arrives: no newer one can replace it
/// any more. With the usual buffers of some megabytes that is a minute for a client
/// that reads 50 KB/s.
pub const UNSENT_BYTES_MAX: usize = 16 << 10;

/// A network, as the loop needs it.
///
/// Readiness is edge-triggered: it is reported once when it comes to be, and
/// again only after an operation has returned
/// [`WouldBlock`](io::ErrorKind::WouldBlock), or has done less than it was
/// asked for. A caller that stops before that has to come back by itself. Reports
/// may be late, repeated, or about a socket that is closed by now.
pub trait Net {
    /// A connected socket.
    type Socket;

    /// Waits until something is ready, a thread wakes the loop, or the time
    /// is up (`None`: never), and reports what is ready.
    ///
    /// # Errors
    /// Only when the network is of no further use.
    fn poll(&mut self, ready: &mut Vec<Readiness>, timeout: Option<Duration>) -> io::Result<()>;

    /// Takes one connection.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; anything else is about this
    /// connection, or about resources that are exhausted.
    fn accept(&mut self) -> io::Result<(Self::Socket, SocketAddr)>;

    /// Stops listening, for good.
    fn stop_listening(&mut self);

    /// Has the socket's readiness reported under `token`.
    ///
    /// # Errors
    /// When the poller takes no more.
    fn register(&mut self, socket: &mut Self::Socket, token: u64) -> io::Result<()>;

    /// Reads what is there.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing, `Interrupted` when it may be tried
    /// again at once; else the connection is lost.
    fn read(&mut self, socket: &mut Self::Socket, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room, `Interrupted` when it may be tried
    /// again at once; else the connection is lost.
    fn write(&mut self, socket: &mut Self::Socket, bytes: &[u8]) -> io::Result<usize>;

    /// Limits the unsent bytes that the system holds of this socket to
    /// [`UNSENT_BYTES_MAX`], so that the next bytes are as new as they can be. All
    /// later writes of events go through [`write_limited`](Self::write_limited).
    /// Where the system cannot do that, it takes as much as ever.
    fn limit_unsent(&mut self, socket: &mut Self::Socket);

    /// Writes as much as there is room for below the limit that
    /// [`limit_unsent`](Self::limit_unsent) has set.
    ///
    /// # Errors
    /// As [`write`](Self::write), but never `Interrupted`.
    fn write_limited(&mut self, socket: &mut Self::Socket, bytes: &[u8]) -> io::Result<usize>;

    /// Announces bytes that are about to be written to many sockets with
    /// [`write_shared`](Self::write_shared).
    #[inline]
    fn share(&mut self, _bytes: &[u8]) {}

    /// Writes the bytes that [`share`](Self::share) has announced, as
    /// [`write`](Self::write) or, if `is_limited`,
    /// [`write_limited`](Self::write_limited).
    ///
    /// # Errors
    /// As these.
    #[inline]
    fn write_shared(
        &mut self,
        socket: &mut Self::Socket,
        bytes: &[u8],
        is_limited: bool,
    ) -> io::Result<usize> {
        match is_limited {
            true => self.write_limited(socket, bytes),
            false => self.write(socket, bytes),
        }
    }

    /// Takes a connection whose request another server has read, if there is one.
    #[inline]
    fn take_exchange(&mut self) -> Option<(Self::Socket, Exchange)> {
        None
    }

    /// Returns the socket to the program, if it is one of the system's. It is no longer
    /// polled.
    fn release(&mut self, _socket: Self::Socket) -> Option<TcpStream> {
        None
    }

    /// Closes the writing half: the peer reads to an end.
    fn shutdown_write(&mut self, socket: &mut Self::Socket);

    /// Closes the socket.
    fn close(&mut self, socket: Self::Socket);
}
