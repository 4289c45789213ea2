//! The time of a publish to one channel while clients replay 64 other channels.
//!
//! ```text
//! cargo bench --bench beside_replays
//! cargo bench --bench beside_replays -- PROGRAM    # another build of pushwheel
//! ```
//!
//! The server runs with its default settings, in a process of its own. Each client reads
//! the whole history of 64 channels as one stream, closes it, and starts again until the
//! measurement ends.

#![allow(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "it measures time, at a pace"
)]

mod common;

use std::io::{Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Publisher, Server};

const CHANNELS: usize = 64;
const EVENTS: usize = 1_000;
const EVENT_BYTES: usize = 128;
const CLIENTS: [usize; 3] = [0, 20, 100];
const MEASURED: Duration = Duration::from_secs(10);
/// For `cargo test`, which only checks that the program works.
const TRIED: Duration = Duration::from_millis(100);
/// Between two publishes.
const PACE: Duration = Duration::from_millis(10);

fn main() -> Result<()> {
    let (is_bench, program) = common::arguments();
    let time = if is_bench { MEASURED } else { TRIED };
    let server = Server::start(&program, "")?;
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

/// Returns the time of each publish, and the number of complete replays.
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
        // Wait until the clients replay.
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

/// Reads the history of all channels. Returns whether it was complete.
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
            // `left` counts data only. The bytes around it end the replay a little earlier.
            Ok(count) => left = left.saturating_sub(count),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(left == 0)
}
