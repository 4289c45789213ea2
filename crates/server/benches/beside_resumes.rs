//! The latency of one channel while clients resume another one again and again.
//!
//! ```text
//! cargo bench --bench beside_resumes
//! cargo bench --bench beside_resumes -- PROGRAM    # another build of pushwheel
//! ```
//!
//! The server runs with its default settings, in a process of its own. Each client reads
//! the whole history of a channel, closes the stream, and starts again until the
//! measurement ends. Beside them three things are timed in turn: a health check, an event
//! for one client of another channel and a broadcast to it, each until it is read.

#![allow(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "it measures time, at a pace"
)]

mod common;

use std::io::{BufRead, BufReader, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Publisher, Server};

const EVENTS: usize = 1_000;
const EVENT_BYTES: usize = 256;
const CLIENTS: [usize; 3] = [0, 100, 1_000];
const MEASURED: Duration = Duration::from_secs(10);
/// For `cargo test`, which only checks that the program works.
const TRIED: Duration = Duration::from_millis(100);
const TRIED_CLIENTS: [usize; 2] = [0, 5];
/// Between two probes.
const PACE: Duration = Duration::from_millis(5);

/// What is timed.
type Probes = Vec<(&'static str, Vec<Duration>)>;

fn main() -> Result<()> {
    let (is_bench, program) = common::arguments();
    let (time, counts) = match is_bench {
        true => (MEASURED, &CLIENTS[..]),
        false => (TRIED, &TRIED_CLIENTS[..]),
    };
    let server = Server::start(&program, "")?;
    let event = format!("{{\"data\":\"{}\"}}\n", "x".repeat(EVENT_BYTES));
    let events = event.repeat(EVENTS);
    let mut publisher = Publisher::connect(server.address)?;
    publisher.publish("resumed", "application/x-ndjson", &events)?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "clients  resumes/s       what     p50 ms     p99 ms     max ms  probes"
    )?;
    for &clients in counts {
        let (probes, resumes) = measure(server.address, clients, time)?;
        for (what, mut times) in probes {
            times.sort_unstable();
            let at = |part: usize| times[(times.len() - 1) * part / 1000].as_secs_f64() * 1e3;
            writeln!(
                out,
                "{clients:>7} {:>10.1} {what:>10} {:>10.2} {:>10.2} {:>10.2} {:>7}",
                resumes as f64 / time.as_secs_f64(),
                at(500),
                at(990),
                at(1000),
                times.len(),
            )?;
        }
    }
    Ok(())
}

/// Returns the times of the probes, and the number of complete resumes meanwhile.
fn measure(server: SocketAddr, clients: usize, time: Duration) -> Result<(Probes, usize)> {
    let (is_over, resumes) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let resuming = scope.spawn(|| resume(server, clients, &is_over, &resumes));
        while resumes.load(Ordering::Relaxed) < clients && !resuming.is_finished() {
            std::thread::sleep(PACE);
        }
        resumes.store(0, Ordering::Relaxed);
        let probes = probe(server, time);
        let count = resumes.load(Ordering::Relaxed);
        is_over.store(true, Ordering::Relaxed);
        resuming.join().expect("it returns its errors")?;
        Ok((probes?, count))
    })
}

/// Times health checks, events for one client and broadcasts, in turn.
fn probe(server: SocketAddr, time: Duration) -> Result<Probes> {
    let mut publisher = Publisher::connect(server)?;
    let mut subscriber = Subscriber::connect(server)?;
    let mut probes: Probes = ["health", "send", "broadcast"]
        .map(|what| (what, Vec::new()))
        .into();
    let begun = Instant::now();
    while begun.elapsed() < time {
        for (what, times) in &mut probes {
            let sent = Instant::now();
            match *what {
                "health" => publisher.get("/health")?,
                "send" => publisher.publish("probed?client=ann", "text/plain", "hello")?,
                _ => publisher.publish("probed", "text/plain", "hello")?,
            }
            if *what != "health" {
                subscriber.read_until("data: hello\n")?;
            }
            times.push(sent.elapsed());
            std::thread::sleep(PACE);
        }
    }
    Ok(probes)
}

/// The client of the other channel.
struct Subscriber(BufReader<TcpStream>);

impl Subscriber {
    fn connect(server: SocketAddr) -> Result<Subscriber> {
        let mut socket = TcpStream::connect(server)?;
        write!(
            socket,
            "GET /channels/probed?client=ann HTTP/1.1\r\nHost: localhost\r\n\
             Accept: text/event-stream\r\n\r\n"
        )?;
        let mut subscriber = Subscriber(BufReader::new(socket));
        subscriber.read_until("ping:\n")?;
        Ok(subscriber)
    }

    fn read_until(&mut self, last: &str) -> Result<()> {
        let mut line = String::new();
        while line != last {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

/// A client that resumes: its socket, and the bytes that it has yet to read, once it has
/// sent its request.
struct Client(mio::net::TcpStream, Option<usize>);

impl Client {
    fn connect(server: SocketAddr, poll: &mio::Poll, index: usize) -> Result<Client> {
        let mut socket = mio::net::TcpStream::connect(server)?;
        let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
        let registry = poll.registry();
        registry.register(&mut socket, mio::Token(index), interest)?;
        Ok(Client(socket, None))
    }

    /// Sends the request, once. Reads what is there. Returns whether it has come to the
    /// end of the history.
    fn advance(&mut self, buffer: &mut [u8]) -> Result<bool> {
        const REQUEST: &[u8] = b"GET /channels/resumed?last_event_id=earliest HTTP/1.1\r\n\
            Host: localhost\r\nAccept: text/event-stream\r\n\r\n";
        let Client(socket, left) = self;
        if left.is_none() {
            match socket.write_all(REQUEST) {
                // It is not connected yet.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
                sent => sent?,
            }
        }
        let left = left.get_or_insert(EVENTS * EVENT_BYTES);
        while *left > 0 {
            match socket.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                // The data alone is counted; what is around it makes up for the rest.
                Ok(count) => *left = left.saturating_sub(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Has clients resume until it is over, all from one thread.
fn resume(
    server: SocketAddr,
    clients: usize,
    is_over: &AtomicBool,
    resumes: &AtomicUsize,
) -> Result<()> {
    let mut poll = mio::Poll::new()?;
    let mut events = mio::Events::with_capacity(1024);
    let connect = |poll: &mio::Poll, index| Client::connect(server, poll, index);
    let mut all: Vec<Client> = (0..clients)
        .map(|index| connect(&poll, index))
        .collect::<Result<_>>()?;
    let mut buffer = vec![0; 256 << 10];
    while !is_over.load(Ordering::Relaxed) {
        poll.poll(&mut events, Some(PACE))?;
        for event in &events {
            let index = event.token().0;
            if all[index].advance(&mut buffer)? {
                resumes.fetch_add(1, Ordering::Relaxed);
                all[index] = connect(&poll, index)?;
            }
        }
    }
    Ok(())
}
