//! [`Net`] over mio: the sockets of the system.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4};
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
#[cfg(unix)]
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

#[cfg(unix)]
use mio::net::UnixListener;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

#[cfg(target_os = "linux")]
use super::batch::{BatchSenders, Batching, SendOutcome};
use super::net::{Exception, LISTENER, Net, Readiness, Targets, write_to_each};
#[cfg(target_os = "linux")]
use super::net::{Gone, write_once};
use crate::proxies::canonical;

/// How many reports one poll takes. More wait for the next.
const EVENTS_MAX: usize = 1024;

/// The token of the waker, which only ends a poll.
const WAKER: u64 = u64::MAX - 1;

/// The sockets of the system, behind one poller.
pub(crate) struct Sockets {
    poll: Poll,
    events: Events,
    /// None once it has stopped listening.
    listeners: Vec<Listening>,
    /// The listener whose turn it is.
    next: usize,
    waker: Arc<Waker>,
    #[cfg(target_os = "linux")]
    batching: Option<Batching>,
    /// Makes what sends in batches, on the thread that uses it.
    #[cfg(target_os = "linux")]
    make_sender: Option<Arc<BatchSenders>>,
}

/// A socket that listens, and does not block.
#[derive(Debug)]
pub(crate) enum Listening {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

/// The fewest sockets that are worth a batch.
#[cfg(target_os = "linux")]
const BATCH_MIN: usize = 4;

/// The address of the peers of UNIX sockets, which are on this machine and have none.
pub(crate) const UNIX_PEER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

impl Listening {
    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Listening::Tcp(listener) => {
                let (socket, peer) = listener.accept()?;
                Ok((socket, canonical(peer)))
            }
            // From here on only the descriptor counts: the same system calls read, write
            // and shut it down. The options of TCP have no effect on it.
            #[cfg(unix)]
            Listening::Unix(listener) => {
                let (socket, _) = listener.accept()?;
                Ok((OwnedFd::from(socket).into(), UNIX_PEER))
            }
        }
    }
}

impl Sockets {
    /// Polls `listeners`.
    ///
    /// # Errors
    /// When the system has no poller to give.
    pub(crate) fn new(mut listeners: Vec<Listening>) -> io::Result<Sockets> {
        let poll = Poll::new()?;
        let (registry, interest) = (poll.registry(), Interest::READABLE);
        for listener in &mut listeners {
            match listener {
                Listening::Tcp(listener) => {
                    registry.register(listener, token(LISTENER), interest)?;
                }
                #[cfg(unix)]
                Listening::Unix(listener) => {
                    registry.register(listener, token(LISTENER), interest)?;
                }
            }
        }
        let waker = Arc::new(Waker::new(poll.registry(), token(WAKER))?);
        Ok(Sockets {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            listeners,
            next: 0,
            waker,
            #[cfg(target_os = "linux")]
            batching: None,
            #[cfg(target_os = "linux")]
            make_sender: None,
        })
    }

    /// Writes to several sockets by a sender from the first poll on.
    #[cfg(target_os = "linux")]
    pub(crate) fn send_in_batches(&mut self, make: Arc<BatchSenders>) {
        self.make_sender = Some(make);
    }

    /// Ends a poll, from any thread.
    #[must_use]
    pub(crate) fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "mio's tokens are as wide as a pointer"
)]
fn token(token: u64) -> Token {
    const { assert!(size_of::<usize>() == 8, "tokens need 64 bits") };
    Token(token as usize)
}

impl Net for Sockets {
    type Socket = TcpStream;

    fn poll(&mut self, ready: &mut Vec<Readiness>, timeout: Option<Duration>) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Some(make) = self.make_sender.take() {
            self.batching = make.make();
        }
        match self.poll.poll(&mut self.events, timeout) {
            // A signal, such as the one that goes on with a stopped process. It
            // says nothing of what is ready, and time may have passed.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.poll.poll(&mut self.events, Some(Duration::ZERO))?;
            }
            other => other?,
        }
        let events = self.events.iter().map(|event| Readiness {
            token: event.token().0 as u64,
            is_readable: event.is_readable() || event.is_read_closed() || event.is_error(),
            is_writable: event.is_writable(),
        });
        ready.extend(events.filter(|readiness| readiness.token != WAKER));
        Ok(())
    }

    fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        // Each in turn, so that none waits behind a busy one.
        for _ in 0..self.listeners.len() {
            let listener = &self.listeners[self.next];
            self.next = (self.next + 1) % self.listeners.len();
            match listener.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn stop_listening(&mut self) {
        self.listeners.clear();
    }

    fn register(&mut self, socket: &mut TcpStream, key: u64) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(socket, token(key), interest)
    }

    fn read(&mut self, socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        socket.read(buffer)
    }

    fn write(&mut self, socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
        socket.write(bytes)
    }

    #[cfg(target_os = "linux")]
    fn limit_unsent(&mut self, socket: &mut TcpStream) {
        limited::limit_unsent(socket);
    }

    #[cfg(target_os = "linux")]
    fn write_limited(&mut self, socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
        limited::write(socket, bytes)
    }

    #[cfg(not(target_os = "linux"))]
    fn limit_unsent(&mut self, _: &mut TcpStream) {}

    #[cfg(not(target_os = "linux"))]
    fn write_limited(&mut self, socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
        self.write(socket, bytes)
    }

    #[inline]
    fn write_to_all(
        &mut self,
        targets: &mut impl Targets<TcpStream>,
        bytes: &[u8],
        is_limited: bool,
        exceptions: &mut Vec<Exception>,
    ) {
        #[cfg(target_os = "linux")]
        if self.batching.is_some()
            && targets.count() >= BATCH_MIN
            && (!is_limited || bytes.len() <= limited::PIECE_BYTES)
        {
            return self.write_batch(targets, bytes, is_limited, exceptions);
        }
        write_to_each(self, targets, bytes, is_limited, exceptions);
    }

    #[cfg(target_os = "linux")]
    fn sends_in_batches(&self) -> bool {
        self.batching.is_some()
    }

    fn shutdown_write(&mut self, socket: &mut TcpStream) {
        // A connection that is gone already has no half to close.
        let _ = socket.shutdown(Shutdown::Write);
    }

    #[cfg(unix)]
    fn release(&mut self, mut socket: TcpStream) -> Option<std::net::TcpStream> {
        self.poll.registry().deregister(&mut socket).ok()?;
        Some(OwnedFd::from(socket).into())
    }

    fn close(&mut self, socket: TcpStream) {
        // Closing takes it out of the poller as well.
        drop(socket);
    }
}

#[cfg(target_os = "linux")]
impl Sockets {
    /// [`write_to_all`](Net::write_to_all) by the sender of batches.
    #[cold]
    fn write_batch(
        &mut self,
        targets: &mut impl Targets<TcpStream>,
        bytes: &[u8],
        is_limited: bool,
        exceptions: &mut Vec<Exception>,
    ) {
        let Some(mut batching) = self.batching.take() else {
            return;
        };
        batching.sockets.clear();
        for index in 0..targets.count() {
            let descriptor = targets.socket(index).as_raw_fd();
            batching.sockets.push(descriptor);
        }
        let sent = batching.send(bytes, is_limited);
        for (index, outcome) in batching.outcomes.iter().enumerate() {
            let outcome = match outcome {
                SendOutcome::Sent(count) => Ok(*count),
                SendOutcome::WouldBlock => Ok(0),
                SendOutcome::Failed => Err(Gone),
                SendOutcome::Unsent => write_once(self, targets.socket(index), bytes, is_limited),
            };
            if outcome != Ok(bytes.len()) {
                exceptions.push(Exception { index, outcome });
            }
        }
        match sent {
            Ok(()) => self.batching = Some(batching),
            Err(error) => log::warn!(
                "cannot send to many clients in one system call ({error}). Each is written to \
                 by itself from now on"
            ),
        }
    }
}

/// Sockets of which Linux holds few unsent bytes.
///
/// Linux compares the unsent bytes with the low-water mark (`TCP_NOTSENT_LOWAT`)
/// only when it begins a segment, and appends up to 64 KiB to a segment that is
/// there. So each piece ends its segment (`MSG_EOR`): at most a piece is beyond the
/// mark.
#[cfg(target_os = "linux")]
mod limited {
    use std::io::{self, ErrorKind};

    use mio::net::TcpStream;
    use nix::libc::{MSG_EOR, MSG_NOSIGNAL};
    use socket2::SockRef;

    use super::super::net::UNSENT_BYTES_MAX;

    pub(super) const PIECE_BYTES: usize = UNSENT_BYTES_MAX / 2;
    #[allow(clippy::cast_possible_truncation, reason = "some kilobytes")]
    const LOW_WATER_BYTES: u32 = (UNSENT_BYTES_MAX - PIECE_BYTES) as u32;

    pub(crate) fn limit_unsent(socket: &TcpStream) {
        // A connection that is gone already has no use for it.
        let _ = SockRef::from(socket).set_tcp_notsent_lowat(LOW_WATER_BYTES);
    }

    pub(crate) fn write(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        let socket = SockRef::from(socket);
        let mut written = 0;
        while written < bytes.len() {
            let piece = &bytes[written..bytes.len().min(written + PIECE_BYTES)];
            match socket.send_with_flags(piece, MSG_EOR | MSG_NOSIGNAL) {
                Ok(count) => {
                    written += count;
                    if count < piece.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The next write meets the error again, or the poller reports it.
                Err(_) if written > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    #[cfg(test)]
    mod tests {
        use std::net::{Ipv4Addr, TcpListener};

        use socket2::{Domain, Socket, Type};

        use super::*;

        #[test]
        fn a_peer_that_reads_nothing_is_sent_little_beyond_its_own_buffer() {
            const READERS_BYTES: usize = 8 << 10;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let reader = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            reader.set_recv_buffer_size(READERS_BYTES).unwrap();
            let address = listener.local_addr().unwrap();
            reader.connect(&address.into()).unwrap();
            let (socket, _) = listener.accept().unwrap();
            socket.set_nonblocking(true).unwrap();
            let socket = TcpStream::from_std(socket);
            limit_unsent(&socket);
            let (mut total, event) = (0, [b'x'; 500]);
            loop {
                match write(&socket, &event.repeat(20)) {
                    Ok(count) => total += count,
                    Err(error) => break assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            // Linux doubles the size of a receive buffer for its own bookkeeping.
            let held = total.saturating_sub(2 * READERS_BYTES);
            assert!(held <= UNSENT_BYTES_MAX, "{total} bytes were taken");
            assert!(total >= PIECE_BYTES, "{total} bytes were taken");
        }
    }
}
