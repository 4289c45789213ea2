//! A network in memory, for tests of the parts above it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::net::{Net, Readiness};

/// A network whose sockets the test holds the other ends of. It reports no readiness.
#[derive(Debug, Default)]
pub(crate) struct Memory;

/// A socket, as its peer sees it.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// The bytes that the socket takes before it blocks.
    pub(crate) room: usize,
    /// What the peer has received.
    pub(crate) received: Vec<u8>,
    /// What the peer has sent, read by read.
    pub(crate) sent: VecDeque<Vec<u8>>,
    pub(crate) is_closed: bool,
}

impl Wire {
    pub(crate) fn new(room: usize) -> Rc<RefCell<Wire>> {
        Rc::new(RefCell::new(Wire {
            room,
            ..Wire::default()
        }))
    }

    /// Returns what was received since the last call, as text.
    pub(crate) fn take_text(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.received)).unwrap()
    }
}

impl Net for Memory {
    type Socket = Rc<RefCell<Wire>>;

    fn poll(&mut self, _: &mut Vec<Readiness>, _: Option<Duration>) -> io::Result<()> {
        Ok(())
    }

    fn accept(&mut self) -> io::Result<(Self::Socket, SocketAddr)> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn stop_listening(&mut self) {}

    fn register(&mut self, _: &mut Self::Socket, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn read(&mut self, socket: &mut Self::Socket, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(bytes) = socket.borrow_mut().sent.pop_front() else {
            return Err(ErrorKind::WouldBlock.into());
        };
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn write(&mut self, socket: &mut Self::Socket, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = socket.borrow_mut();
        let count = bytes.len().min(wire.room);
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        wire.room -= count;
        wire.received.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn limit_unsent(&mut self, _: &mut Self::Socket) {}

    fn write_limited(&mut self, socket: &mut Self::Socket, bytes: &[u8]) -> io::Result<usize> {
        self.write(socket, bytes)
    }

    fn shutdown_write(&mut self, _: &mut Self::Socket) {}

    fn close(&mut self, socket: Self::Socket) {
        socket.borrow_mut().is_closed = true;
    }
}
