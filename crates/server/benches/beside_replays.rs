//! How long a publish to one channel takes beside clients that replay 64 others.
//!
//! ```text
//! cargo bench --bench beside_replays
//! cargo bench --bench beside_replays -- PROGRAM    # another build of pushwheel
//! ```
//!
//! The server runs with its default settings, in a process of its own. Each
//! client reads the whole history of 64 channels as one stream, leaves, and
//! comes back, for as long as is measured.

#![allow(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "it measures time, at a pace"
)]

use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const CHANNELS: usize = 64;
const EVENTS: usize = 1_000;
const EVENT_BYTES: usize = 128;
const CLIENTS: [usize; 3] = [0, 20, 100];
const MEASURED: Duration = Duration::from_secs(10);
/// Where cargo tests, and does not bench: it shows that the program works.
const TRIED: Duration = Duration::from_millis(100);
/// Between two publishes.
const PACE: Duration = Duration::from_millis(10);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let time = match arguments.iter().any(|word| word == "--bench") {
        true => MEASURED,
        false => TRIED,
    };
    let program = arguments.into_iter().find(|word| !word.starts_with("--"));
    let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_pushwheel").to_owned());
    let server = Server::start(&program)?;
    for n in 0..CHANNELS {
        let event = format!("{{\"data\":\"{}\"}}\n", "x".repeat(EVENT_BYTES));
        let mut publisher = Publisher::connect(server.address)?;
        publisher.publish(
            &format!("c{n}"),
            "application/x-ndjson",
            &event.repeat(EVENTS),
        )?;
    }
    let mut out = std::io::stdout();
    writeln!(
        out,
        "clients  replays/s     p50 ms     p99 ms     max ms  publishes"
    )?;
    for clients in CLIENTS {
        let (mut times, replays) = measure(server.address, clients, time)?;
        times.sort_unstable();
        let at = |part: usize| times[(times.len() - 1) * part / 1000].as_secs_f64() * 1e3;
        writeln!(
            out,
            "{clients:>7} {:>10.1} {:>10.2} {:>10.2} {:>10.2} {:>10}",
            replays as f64 / time.as_secs_f64(),
            at(500),
            at(990),
            at(1000),
            times.len(),
        )?;
    }
    Ok(())
}

/// Returns how long each publish took, and how many replays were read whole.
fn measure(server: SocketAddr, clients: usize, time: Duration) -> Result<(Vec<Duration>, usize)> {
    let (is_over, replays) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    if replay(server, &is_over).is_ok_and(|is_whole| is_whole) {
                        replays.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        // Until the clients are at it.
        while replays.load(Ordering::Relaxed) < clients.min(2) {
            std::thread::yield_now();
        }
        replays.store(0, Ordering::Relaxed);
        let result = publish_for(time, server);
        is_over.store(true, Ordering::Relaxed);
        Ok((result?, replays.load(Ordering::Relaxed)))
    })
}

fn publish_for(time: Duration, server: SocketAddr) -> Result<Vec<Duration>> {
    let mut publisher = Publisher::connect(server)?;
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        let sent = Instant::now();
        publisher.publish("other", "text/plain", "hello")?;
        times.push(sent.elapsed());
        std::thread::sleep(PACE.saturating_sub(sent.elapsed()));
    }
    Ok(times)
}

/// Reads the history of all channels. Returns whether it came to the end.
fn replay(server: SocketAddr, is_over: &AtomicBool) -> Result<bool> {
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let channels: Vec<_> = (0..CHANNELS).map(|n| format!("channel=c{n}")).collect();
    let query = channels.join("&");
    write!(
        socket,
        "GET /events?{query}&last_event_id=earliest HTTP/1.1\r\nHost: localhost\r\n\
         Accept: text/event-stream\r\n\r\n"
    )?;
    let (mut left, mut buffer) = (CHANNELS * EVENTS * EVENT_BYTES, vec![0; 256 << 10]);
    while left > 0 && !is_over.load(Ordering::Relaxed) {
        match socket.read(&mut buffer) {
            Ok(0) => return Ok(false),
            // The data alone is counted; what is around it makes up for the rest.
            Ok(count) => left = left.saturating_sub(count),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(left == 0)
}

/// A connection that publishes.
struct Publisher(BufReader<TcpStream>);

impl Publisher {
    fn connect(server: SocketAddr) -> Result<Publisher> {
        let socket = TcpStream::connect(server)?;
        socket.set_nodelay(true)?;
        Ok(Publisher(BufReader::new(socket)))
    }

    fn publish(&mut self, channel: &str, media_type: &str, body: &str) -> Result<()> {
        let request = format!(
            "POST /channels/{channel} HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: {media_type}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes())?;
        let (mut line, mut length) = (String::new(), 0);
        self.0.read_line(&mut line)?;
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        while line != "\r\n" {
            line.clear();
            self.0.read_line(&mut line)?;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().expect("a number");
            }
        }
        self.0.read_exact(&mut vec![0; length])
    }
}

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(program: &str) -> Result<Server> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let child = Command::new(program)
            .args(["serve", "--listen", &free.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Server {
            child,
            address: free,
        };
        while TcpStream::connect(free).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
