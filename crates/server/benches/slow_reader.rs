//! The age of the events that a slow client of a conflating channel reads.
//!
//! ```text
//! cargo bench --bench slow_reader
//! cargo bench --bench slow_reader -- --seconds 20 PROGRAM    # another build of pushwheel
//! ```
//!
//! A publisher sends 190 KB/s: 100 keys, events of 500 bytes. The client reads 50 KB/s and
//! has a receive buffer (`SO_RCVBUF`) of 64 KiB. The server runs in a process of its own.
//! Each event contains the time of its publish.

#![allow(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "it measures time, at a pace"
)]

mod common;

use std::fmt::Write as _;
use std::io::{Error, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Publisher, Server};
use socket2::{Domain, Socket, Type};

const KEYS: usize = 100;
const EVENT_BYTES: usize = 500;
const BATCH_EVENTS: usize = 19;
const PUBLISHED_BYTES_PER_SECOND: f64 = 190e3;
const READ_BYTES_PER_SECOND: f64 = 50e3;
const READ_BYTES: usize = 2_500;
const RECEIVE_BUFFER_BYTES: usize = 64 << 10;
const SECONDS: u64 = 60;
const SECONDS_AT_THE_END: u64 = 5;
/// For `cargo test`, which only checks that the program works.
const TRIED: Duration = Duration::from_millis(300);
const CONFIGURATION: &str = "[[channel]]\npattern = \"prices\"\nlag_policy = \"conflate\"\n";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut time, mut program) = (TRIED, env!("CARGO_BIN_EXE_pushwheel").to_owned());
    let (mut is_bench, mut seconds) = (false, SECONDS);
    while let Some(word) = arguments.next() {
        match &*word {
            "--bench" => is_bench = true,
            "--seconds" => {
                let value = arguments.next().and_then(|value| value.parse().ok());
                seconds = value.ok_or_else(|| Error::other("--seconds needs a number"))?;
            }
            word if word.starts_with("--") => {}
            _ => program = word,
        }
    }
    if is_bench {
        time = Duration::from_secs(seconds);
    }
    let server = Server::start(&program, CONFIGURATION)?;
    let ages = measure(server.address, time)?;
    let end = time.saturating_sub(Duration::from_secs(SECONDS_AT_THE_END));
    let mut late: Vec<f64> = Vec::new();
    late.extend(ages.iter().filter(|(at, _)| *at >= end).map(|(_, age)| age));
    let mut all: Vec<f64> = ages.iter().map(|(_, age)| *age).collect();
    late.sort_unstable_by(f64::total_cmp);
    all.sort_unstable_by(f64::total_cmp);
    let (Some(newest_max), Some(max)) = (late.last(), all.last()) else {
        return Err(Error::other("the client received no event"));
    };
    let mut out = std::io::stdout();
    writeln!(
        out,
        "events  median s    max s  max s of the last {SECONDS_AT_THE_END} s"
    )?;
    writeln!(
        out,
        "{:>6} {:>9.2} {max:>8.2} {newest_max:>8.2}",
        all.len(),
        all[all.len() / 2]
    )
}

/// Returns for each event the time of its read, since the beginning, and its age at that
/// time in seconds.
fn measure(server: SocketAddr, time: Duration) -> Result<Vec<(Duration, f64)>> {
    let (begun, is_over) = (Instant::now(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish(server, begun, &is_over));
        let ages = read(server, begun, time);
        is_over.store(true, Ordering::Relaxed);
        publisher.join().expect("the publisher does not panic")?;
        ages
    })
}

fn publish(server: SocketAddr, begun: Instant, is_over: &AtomicBool) -> Result<()> {
    let (mut publisher, mut published) = (Publisher::connect(server)?, 0);
    while !is_over.load(Ordering::Relaxed) {
        let mut body = String::new();
        for number in published..published + BATCH_EVENTS {
            let (key, age) = (number % KEYS, begun.elapsed().as_micros());
            // The other 60 bytes of an event are its key and its id.
            let data = format!("{age} {:x<1$}", "", EVENT_BYTES - 60);
            writeln!(body, r#"{{"key":"k{key}","data":"{data}"}}"#).map_err(Error::other)?;
        }
        published += BATCH_EVENTS;
        publisher.publish("prices", "application/x-ndjson", &body)?;
        keep_pace(
            begun,
            (published * EVENT_BYTES) as f64 / PUBLISHED_BYTES_PER_SECOND,
        );
    }
    Ok(())
}

fn read(server: SocketAddr, begun: Instant, time: Duration) -> Result<Vec<(Duration, f64)>> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.connect(&server.into())?;
    let mut socket = TcpStream::from(socket);
    socket.write_all(
        b"GET /channels/prices HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n",
    )?;
    let (mut ages, mut count) = (Vec::new(), 0);
    let (mut buffer, mut unparsed) = (vec![0; READ_BYTES], Vec::new());
    while begun.elapsed() < time {
        let read = socket.read(&mut buffer)?;
        if read == 0 {
            return Err(Error::other("the server closed the stream"));
        }
        let now = begun.elapsed();
        count += read;
        unparsed.extend_from_slice(&buffer[..read]);
        while let Some(end) = unparsed.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unparsed.drain(..=end).collect();
            let published = line.strip_prefix(b"data: ").and_then(|data| {
                let digits = data.split(|byte| *byte == b' ').next()?;
                std::str::from_utf8(digits).ok()?.parse().ok()
            });
            if let Some(published) = published {
                let age = now.saturating_sub(Duration::from_micros(published));
                ages.push((now, age.as_secs_f64()));
            }
        }
        keep_pace(begun, count as f64 / READ_BYTES_PER_SECOND);
    }
    Ok(ages)
}

/// Waits until so many seconds have passed.
fn keep_pace(begun: Instant, seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds).saturating_sub(begun.elapsed()));
}
