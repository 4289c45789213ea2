//! Streams that are sent to by a ring: each client receives each event once and in order,
//! whatever its socket takes and whenever the ring fails.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail, and waits for what comes in real time"
)]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::RawFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pushwheel::{
    BatchSender, ChannelManager, ChannelOptions, Engine, Event, History, Response, SendOutcome,
};
use pushwheel_uring::UringSender;

const CLIENTS: usize = 150;
const EVENTS: usize = 400;

/// A ring that fails at some call, when it has sent to half of the sockets.
#[derive(Debug)]
struct Failing {
    ring: UringSender,
    calls_left: usize,
}

impl BatchSender for Failing {
    fn send_to_all(
        &mut self,
        sockets: &[RawFd],
        bytes: &[u8],
        ends_segment: bool,
        outcomes: &mut [SendOutcome],
    ) -> io::Result<()> {
        let half = match self.calls_left {
            0 => sockets.len() / 2,
            _ => sockets.len(),
        };
        let (sockets, outcomes) = (&sockets[..half], &mut outcomes[..half]);
        self.ring
            .send_to_all(sockets, bytes, ends_segment, outcomes)?;
        self.calls_left = self
            .calls_left
            .checked_sub(1)
            .ok_or_else(|| io::Error::other("told to"))?;
        Ok(())
    }
}

fn data(number: usize) -> String {
    // Some are larger than what a socket takes at once.
    format!("{number}:{}", "x".repeat(number * 7919 % 5_000))
}

/// Reads the events of a stream until the last one. Returns their numbers.
fn numbers(client: &mut TcpStream) -> Vec<usize> {
    let mut text = String::new();
    let mut buffer = vec![0; 64 << 10];
    let last = format!("data: {}\n\n", data(EVENTS - 1));
    while !text.ends_with(&last) {
        let count = client.read(&mut buffer).unwrap();
        assert!(count > 0, "the stream has ended");
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| {
        let number = data.split(':').next().unwrap().parse().unwrap();
        assert_eq!(data, self::data(number));
        number
    })
    .collect()
}

fn run(calls: Option<usize>) {
    let options = || {
        ChannelOptions::new()
            .history(History::events(EVENTS))
            .backlog_bytes_max(64 << 20)
    };
    let channels = ChannelManager::new();
    let news = channels.get_or_create_with("news", options).unwrap();
    let stream = news.clone();
    let engine = Engine::builder()
        .channels(&channels)
        .get("/news", move |_| Response::subscribe(&stream))
        .batch_senders(move || {
            let ring = UringSender::new()?;
            Ok(match calls {
                Some(calls_left) => Box::new(Failing { ring, calls_left }),
                None => Box::new(ring),
            })
        })
        .bind("127.0.0.1:0")
        .unwrap();
    let running = engine.spawn().unwrap();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = TcpStream::connect(running.local_addr()).unwrap();
        client
            .write_all(b"GET /news HTTP/1.1\r\nHost: test\r\n\r\n")
            .unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        clients.push(client);
    }
    while news.client_count() < CLIENTS {
        std::thread::yield_now();
    }
    for number in 0..EVENTS {
        news.broadcast(Event::message(data(number))).unwrap();
        // None reads before the end, and a few are gone.
        if number == EVENTS / 2 {
            clients.truncate(CLIENTS - 5);
        }
    }
    let expected: Vec<_> = (0..EVENTS).collect();
    for client in &mut clients {
        assert_eq!(numbers(client), expected);
    }
    let handle = running.handle();
    let expected = u64::from(calls.is_none() && UringSender::new().is_ok());
    let deadline = Instant::now() + Duration::from_secs(60);
    while handle.metrics().batch_senders != expected {
        assert!(Instant::now() < deadline, "{calls:?}: it still sends");
        std::thread::yield_now();
    }
    running.shutdown(Duration::ZERO).unwrap();
}

/// Keeps what is logged of senders.
struct Kept(Mutex<Vec<String>>);

static KEPT: Kept = Kept(Mutex::new(Vec::new()));

impl log::Log for Kept {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = record.args().to_string();
        if line.contains("a filter says no") {
            self.0.lock().unwrap().push(line);
        }
    }

    fn flush(&self) {}
}

#[test]
fn an_engine_whose_threads_are_refused_a_ring_says_so_once() {
    log::set_logger(&KEPT).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let engine = Engine::builder()
        .threads(3)
        .batch_senders(|| Err(io::Error::other("a filter says no")))
        .bind("127.0.0.1:0")
        .unwrap();
    let running = engine.spawn().unwrap();
    assert_eq!(running.handle().metrics().batch_senders, 0);
    running.shutdown(Duration::ZERO).unwrap();
    let kept = KEPT.0.lock().unwrap();
    let expected = "cannot send to many clients in one system call (a filter says no). Each is \
                    written to by itself";
    assert_eq!(*kept, [expected]);
}

#[test]
fn a_ring_sends_each_event_once_and_in_order() {
    run(None);
}

#[test]
fn streams_go_on_without_a_gap_when_the_ring_fails() {
    for calls in [0, 1, 7, 40] {
        run(Some(calls));
    }
}
