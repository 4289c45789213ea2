//! The seam between the loop and the network.
//!
//! The loop is generic over [`Net`]: in production that is mio, in tests a
//! network that a seed makes up. Dispatch is static, so the seam costs
//! nothing.

use std::io::{self, ErrorKind};
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

/// The peer has closed the connection, or it has failed. Nothing more can be read
/// or written; the connection stays until it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// Sockets that are written the same bytes.
pub trait Targets<S> {
    /// Returns their number.
    fn count(&self) -> usize;

    /// Returns one of them.
    fn socket(&mut self, index: usize) -> &mut S;
}

/// A socket that did not take all of what was written to several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its index among them.
    pub index: usize,
    /// The number of bytes that it took.
    pub outcome: Result<usize, Gone>,
}

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

    /// Writes the last few bytes of a stream that ends, whether or not there is room for
    /// other ones.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    #[inline]
    fn write_last(&mut self, socket: &mut Self::Socket, bytes: &[u8]) -> io::Result<usize> {
        self.write(socket, bytes)
    }

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

    /// Writes the same bytes to several sockets: as [`write`](Self::write) would to each,
    /// or [`write_limited`](Self::write_limited) if they are limited. Notes those that did
    /// not take all of it, in ascending order.
    ///
    /// A network may write in any order, and to all in one go.
    #[inline]
    fn write_to_all(
        &mut self,
        targets: &mut impl Targets<Self::Socket>,
        bytes: &[u8],
        is_limited: bool,
        exceptions: &mut Vec<Exception>,
    ) {
        write_to_each(self, targets, bytes, is_limited, exceptions);
    }

    /// Whether [`write_to_all`](Self::write_to_all) takes fewer system calls than sockets.
    fn sends_in_batches(&self) -> bool {
        false
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

/// Writes as much as there is room for. Returns the number of bytes.
///
/// # Errors
/// When the connection is lost.
#[inline]
pub fn write_once<N: Net + ?Sized>(
    net: &mut N,
    socket: &mut N::Socket,
    bytes: &[u8],
    is_limited: bool,
) -> Result<usize, Gone> {
    let written = match is_limited {
        true => net.write_limited(socket, bytes),
        false => uninterrupted(|| net.write(socket, bytes)),
    };
    match written {
        Ok(count) => Ok(count),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        Err(_) => Err(Gone),
    }
}

/// [`write_to_all`](Net::write_to_all) with a system call for each socket.
#[inline]
pub(super) fn write_to_each<N: Net + ?Sized>(
    net: &mut N,
    targets: &mut impl Targets<N::Socket>,
    bytes: &[u8],
    is_limited: bool,
    exceptions: &mut Vec<Exception>,
) {
    for index in 0..targets.count() {
        let outcome = write_once(net, targets.socket(index), bytes, is_limited);
        if outcome != Ok(bytes.len()) {
            exceptions.push(Exception { index, outcome });
        }
    }
}

/// Repeats an operation that a signal has interrupted: the poller reports no
/// readiness for what has only been interrupted.
#[inline]
pub(super) fn uninterrupted<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_that_is_interrupted_is_repeated_at_once() {
        let mut results = [
            Err(ErrorKind::Interrupted),
            Err(ErrorKind::Interrupted),
            Ok(7),
            Err(ErrorKind::WouldBlock),
        ]
        .into_iter();
        let mut next = || {
            let result = results.next().expect("no more is asked for");
            result.map_err(Into::into)
        };
        assert_eq!(uninterrupted(&mut next).unwrap(), 7);
        let error: io::Error = uninterrupted(&mut next).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}
