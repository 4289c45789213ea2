//! Clients of the measured channel that never read: their sockets are full before the
//! measurement, and stay full.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::load::Load;
use super::publisher::source;
use super::server::{Server, Url};
use super::{Fault, Result, fault};

/// Clients that never read.
#[derive(Debug)]
pub(crate) struct Stuck {
    sockets: Vec<TcpStream>,
    channel: Url,
}

impl Stuck {
    /// Connects clients to the channel of `load`, and publishes only to them until their
    /// sockets are full.
    pub(crate) fn new(server: &Server, load: &mut Load, clients: usize) -> Result<Stuck> {
        if server.channels.is_none() {
            return fault("--stuck needs a server that the bench starts. Omit --url");
        }
        let channel = server.subscribe.clone();
        let connect = |number| connect(&channel, number);
        let sockets = (0..clients).map(connect).collect::<Result<_>>()?;
        let stuck = Stuck { sockets, channel };
        stuck.wait(|counts| counts.there == clients + load.clients())?;
        let to_them = format!("{}?where.role={ROLE}", server.publish.path);
        let filling = vec![b'x'; FILLING_BYTES];
        for _ in 0..FILLING_EVENTS {
            load.publisher.add(&to_them, "text/plain", &filling);
            load.send()?;
            load.await_answers()?;
        }
        stuck.wait(|counts| counts.behind == clients)?;
        Ok(stuck)
    }

    /// Checks that all of them are connected and behind. Otherwise the figures would be
    /// wrong.
    pub(crate) fn check(&self) -> Result<()> {
        let (behind, all) = (self.counts()?.behind, self.sockets.len());
        if behind == all {
            return Ok(());
        }
        fault(format!(
            "the server disconnected {} of {all} clients that never read before the end. Use \
             fewer --events or --clients, so that the run is shorter than the server's stall \
             timeout",
            all - behind
        ))
    }

    fn wait(&self, is_reached: impl Fn(Counts) -> bool) -> Result<()> {
        let begun = Instant::now();
        loop {
            let counts = self.counts()?;
            if is_reached(counts) {
                return Ok(());
            }
            if begun.elapsed() > TIMEOUT {
                return fault(format!(
                    "of {} clients that never read, only {} are behind after {TIMEOUT:?}. {} \
                     clients are connected",
                    self.sockets.len(),
                    counts.behind,
                    counts.there
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn counts(&self) -> Result<Counts> {
        let url = format!("http://{}{}/clients", self.channel.host, self.channel.path);
        let wrong = |error: &dyn std::fmt::Display| Fault(format!("cannot read {url} ({error})"));
        let mut response = ureq::get(&url).call().map_err(|error| wrong(&error))?;
        let body = response.body_mut().read_to_string();
        let body = body.map_err(|error| wrong(&error))?;
        let clients: Vec<Value> = serde_json::from_str(&body).map_err(|error| wrong(&error))?;
        let is_behind = |client: &&Value| client["behind"].as_u64().is_some_and(|n| n > 0);
        Ok(Counts {
            there: clients.len(),
            behind: clients.iter().filter(is_behind).count(),
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Counts {
    there: usize,
    /// The number of clients that are behind.
    behind: usize,
}

/// Returns a subscriber whose socket is full soon: both ends have small buffers.
fn connect(channel: &Url, number: usize) -> Result<TcpStream> {
    let to = channel.address;
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_recv_buffer_size(RECEIVE_BYTES)?;
    socket.set_tcp_mss(SEGMENT_BYTES)?;
    if to.is_ipv4() {
        socket.bind(&source(number).into())?;
    }
    socket.connect(&to.into())?;
    let mut stream = TcpStream::from(socket);
    let Url { path, host, .. } = channel;
    // In one write, as the bare loop expects it.
    let request = format!(
        "GET {path}?meta.role={ROLE} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

/// The metadata that selects them among the clients of the channel.
const ROLE: &str = "stuck";
const RECEIVE_BYTES: usize = 4096;
const SEGMENT_BYTES: u32 = 536;
/// In total more than such a socket holds, and less than the server's backlog limit.
const FILLING_EVENTS: usize = 16;
const FILLING_BYTES: usize = 64 << 10;
const TIMEOUT: Duration = Duration::from_secs(20);
