//! [`Net`] over pipes: the network of a mount.
//!
//! A batch for many clients is copied once, and each of their pipes holds a reference to
//! it. The bytes that are copied do not grow with the clients, except for those that are
//! behind.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::inbox::{Inbox, KEPT_MAX};
use super::pipe::{Arrival, Chunk, Gone, Writer};
use crate::exchange::Exchange;
use crate::reactor::net::{self, Exception, Net, Readiness, Targets};

/// Maximum bytes of one piece that is written to one client: a larger event goes out in
/// several, so a client that is behind holds no more.
const PIECE_BYTES: usize = 64 << 10;
/// Maximum bytes of a piece that is kept for the next client: a heartbeat.
const SMALL_BYTES: usize = 64;

/// See the [module](self).
pub(super) struct Pipes<C> {
    inbox: Arc<Inbox<Arrival<C>>>,
    arrived: VecDeque<Arrival<C>>,
    /// The bytes that were written to several last.
    shared: C,
    /// The last small piece.
    small: C,
}

impl<C: Chunk> Pipes<C> {
    pub(super) fn new(inbox: Arc<Inbox<Arrival<C>>>) -> Pipes<C> {
        Pipes {
            inbox,
            arrived: VecDeque::new(),
            shared: Vec::new().into(),
            small: Vec::new().into(),
        }
    }
}

impl<C: Chunk> Net for Pipes<C> {
    type Socket = Writer<C>;

    fn poll(&mut self, ready: &mut Vec<Readiness>, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = match self.arrived.is_empty() {
            true => {
                self.arrived.shrink_to(KEPT_MAX);
                timeout
            }
            false => Some(Duration::ZERO),
        };
        self.inbox.wait(timeout, ready, &mut self.arrived);
        Ok(())
    }

    fn accept(&mut self) -> io::Result<(Self::Socket, SocketAddr)> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn take_exchange(&mut self) -> Option<(Self::Socket, Exchange)> {
        self.arrived.pop_front()
    }

    fn stop_listening(&mut self) {}

    fn register(&mut self, pipe: &mut Self::Socket, token: u64) -> io::Result<()> {
        pipe.register(token);
        Ok(())
    }

    fn read(&mut self, pipe: &mut Self::Socket, _: &mut [u8]) -> io::Result<usize> {
        match pipe.is_dropped() {
            true => Ok(0),
            false => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn write(&mut self, pipe: &mut Self::Socket, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE_BYTES);
        let piece = &bytes[..count];
        let written = pipe.write(count, count < bytes.len(), || {
            if count > SMALL_BYTES {
                return piece.to_vec().into();
            }
            if self.small.as_ref() != piece {
                self.small = piece.to_vec().into();
            }
            self.small.clone()
        });
        counted(written, count)
    }

    fn write_to_all(
        &mut self,
        targets: &mut impl Targets<Self::Socket>,
        bytes: &[u8],
        _is_limited: bool,
        exceptions: &mut Vec<Exception>,
    ) {
        // The slices of one batch share one copy.
        if self.shared.as_ref() != bytes {
            self.shared = bytes.to_vec().into();
        }
        for index in 0..targets.count() {
            let pipe = targets.socket(index);
            let outcome = match pipe.write(bytes.len(), false, || self.shared.clone()) {
                Ok(true) => continue,
                Ok(false) => Ok(0),
                Err(Gone) => Err(net::Gone),
            };
            exceptions.push(Exception { index, outcome });
        }
    }

    fn write_last(&mut self, pipe: &mut Self::Socket, bytes: &[u8]) -> io::Result<usize> {
        let written = pipe.write_last(bytes.to_vec().into());
        counted(written.map(|()| true), bytes.len())
    }

    fn limit_unsent(&mut self, pipe: &mut Self::Socket) {
        pipe.limit();
    }

    fn write_limited(&mut self, pipe: &mut Self::Socket, bytes: &[u8]) -> io::Result<usize> {
        self.write(pipe, bytes)
    }

    fn shutdown_write(&mut self, pipe: &mut Self::Socket) {
        pipe.end();
    }

    fn close(&mut self, pipe: Self::Socket) {
        drop(pipe);
    }
}

impl<C> Drop for Pipes<C> {
    fn drop(&mut self) {
        // Requests that are left are not answered: their pipes end.
        drop(self.inbox.close());
    }
}

fn counted(written: Result<bool, Gone>, count: usize) -> io::Result<usize> {
    match written {
        Ok(true) => Ok(count),
        Ok(false) => Err(ErrorKind::WouldBlock.into()),
        Err(Gone) => Err(ErrorKind::BrokenPipe.into()),
    }
}
