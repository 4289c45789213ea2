//! A network without cost: each client requests `/stream` and accepts all bytes at once, so
//! that only the work of the event loop is measured.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use pushwheel::EngineBuilder;
use pushwheel::internals::SimulatedEngine;
use pushwheel::internals::net::{LISTENER, Net, Readiness};

/// Returns the one loop of an engine, on a network of its own.
pub(crate) fn simulated(engine: EngineBuilder) -> SimulatedEngine<Takers> {
    engine
        .simulate(vec![(Takers::default(), Box::new(|| {}))])
        .expect("no other engine has the channels")
        .pop()
        .expect("one network makes one loop")
}

/// Clients that accept all bytes.
#[derive(Debug, Default)]
pub(crate) struct Takers {
    /// Number of connections that are not accepted yet.
    waiting: usize,
    /// The request of new clients; [`REQUEST`] by default.
    pub(crate) request: Option<&'static [u8]>,
    tokens: Vec<u64>,
    ready: Vec<Readiness>,
    /// Whether each client accepts a write in two halves.
    pub(crate) is_short: bool,
    /// Number of writes to all clients, and of bytes.
    pub(crate) writes: usize,
    pub(crate) bytes: usize,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Taker {
    request: &'static [u8],
    /// Number of reads: the first returns the request, the next nothing, and the one after
    /// that the end.
    reads: u8,
    token: u64,
    /// Whether it has accepted the first half.
    has_half: bool,
}

pub(crate) const REQUEST: &[u8] = b"GET /stream HTTP/1.1\r\nHost: localhost:8080\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/event-stream\r\nAccept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: identity\r\nReferer: http://localhost:8080/\r\n\
    Connection: keep-alive\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\n\
    Sec-Fetch-Site: same-origin\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n\r\n";

impl Takers {
    /// Adds clients.
    pub(crate) fn come(&mut self, clients: usize) {
        self.waiting += clients;
        self.report(LISTENER);
    }

    /// Disconnects all clients.
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
