//! [`Net`] over mio: the sockets of the system.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

use super::net::{LISTENER, Net, Readiness};
use crate::proxies::canonical;

/// How many reports one poll takes. More wait for the next.
const EVENTS_MAX: usize = 1024;

/// The token of the waker, which only ends a poll.
const WAKER: u64 = u64::MAX - 1;

/// The sockets of the system, behind one poller.
#[derive(Debug)]
pub(crate) struct Sockets {
    poll: Poll,
    events: Events,
    listener: Option<TcpListener>,
    waker: Arc<Waker>,
}

impl Sockets {
    /// Polls `listener`, which has to be non-blocking and to listen already.
    ///
    /// # Errors
    /// When the system has no poller to give.
    pub(crate) fn new(listener: std::net::TcpListener) -> io::Result<Sockets> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::from_std(listener);
        poll.registry()
            .register(&mut listener, token(LISTENER), Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), token(WAKER))?);
        Ok(Sockets {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            listener: Some(listener),
            waker,
        })
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
        match &self.listener {
            Some(listener) => {
                let (socket, peer) = listener.accept()?;
                Ok((socket, canonical(peer)))
            }
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn stop_listening(&mut self) {
        self.listener = None;
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

    fn limit_unsent(&mut self, socket: &mut TcpStream, bytes: u32) {
        // A connection that is gone already has no use for it.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket2::SockRef::from(&*socket).set_tcp_notsent_lowat(bytes);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = (socket, bytes);
    }

    fn shutdown_write(&mut self, socket: &mut TcpStream) {
        // A connection that is gone already cannot be told.
        let _ = socket.shutdown(Shutdown::Write);
    }

    fn close(&mut self, socket: TcpStream) {
        // Closing takes it out of the poller as well.
        drop(socket);
    }
}
