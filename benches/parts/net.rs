//! A network on which every client asks for `/stream` and takes whatever it is
//! sent at once: what is left is the loop's own work.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use pushwheel::internals::net::{LISTENER, Net, Readiness};

/// Clients that take everything.
#[derive(Debug, Default)]
pub(crate) struct Takers {
    /// How many have yet to be accepted.
    waiting: usize,
    /// What those ask for who come from now on; [`REQUEST`] if nothing is said.
    pub(crate) request: Option<&'static [u8]>,
    tokens: Vec<u64>,
    ready: Vec<Readiness>,
    /// Whether each takes what it is sent in two halves.
    pub(crate) is_short: bool,
    /// Writes to all of them, and bytes.
    pub(crate) writes: usize,
    pub(crate) bytes: usize,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Taker {
    request: &'static [u8],
    /// How often it was read from: first it says what it wants, then nothing,
    /// then that it is gone.
    reads: u8,
    token: u64,
    /// Whether it has taken the first half.
    has_half: bool,
}

pub(crate) const REQUEST: &[u8] = b"GET /stream HTTP/1.1\r\nHost: localhost:8080\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/event-stream\r\nAccept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: identity\r\nReferer: http://localhost:8080/\r\n\
    Connection: keep-alive\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\n\
    Sec-Fetch-Site: same-origin\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n\r\n";

impl Takers {
    /// So many more clients come.
    pub(crate) fn come(&mut self, clients: usize) {
        self.waiting += clients;
        self.report(LISTENER);
    }

    /// All who are there go.
    pub(crate) fn go(&mut self) {
        for token in std::mem::take(&mut self.tokens) {
            self.report(token);
        }
    }

    fn report(&mut self, token: u64) {
        self.ready.push(Readiness {
            token,
            is_readable: true,
            is_writable: false,
        });
    }
}

impl Net for Takers {
    type Socket = Taker;

    fn poll(&mut self, ready: &mut Vec<Readiness>, _: Option<Duration>) -> io::Result<()> {
        ready.append(&mut self.ready);
        Ok(())
    }

    fn accept(&mut self) -> io::Result<(Taker, SocketAddr)> {
        let left = self.waiting.checked_sub(1);
        self.waiting = left.ok_or(io::ErrorKind::WouldBlock)?;
        let taker = Taker {
            request: self.request.unwrap_or(REQUEST),
            reads: 0,
            token: 0,
            has_half: false,
        };
        Ok((taker, (Ipv4Addr::LOCALHOST, 1).into()))
    }

    fn stop_listening(&mut self) {}

    fn register(&mut self, taker: &mut Taker, token: u64) -> io::Result<()> {
        taker.token = token;
        self.tokens.push(token);
        self.report(token);
        Ok(())
    }

    fn read(&mut self, socket: &mut Taker, buffer: &mut [u8]) -> io::Result<usize> {
        socket.reads += 1;
        match socket.reads {
            1 => {
                buffer[..socket.request.len()].copy_from_slice(socket.request);
                Ok(socket.request.len())
            }
            2 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(0),
        }
    }

    fn write(&mut self, taker: &mut Taker, bytes: &[u8]) -> io::Result<usize> {
        self.writes += 1;
        taker.has_half = self.is_short && !taker.has_half;
        if taker.has_half {
            self.ready.push(Readiness {
                token: taker.token,
                is_readable: false,
                is_writable: true,
            });
            self.bytes += bytes.len() / 2;
            return Ok(bytes.len() / 2);
        }
        self.bytes += bytes.len();
        Ok(bytes.len())
    }

    fn limit_unsent(&mut self, _: &mut Taker) {}

    fn write_limited(&mut self, socket: &mut Taker, bytes: &[u8]) -> io::Result<usize> {
        self.write(socket, bytes)
    }

    fn shutdown_write(&mut self, _: &mut Taker) {}

    fn close(&mut self, _: Taker) {}
}
