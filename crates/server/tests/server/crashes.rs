//! `serve --journal DIR` that is killed again and again, at random moments, while publishers
//! publish and clients reconnect.
//!
//! What was answered 200 is there after the next start, once, and each client has received
//! it. No id is given twice, no client misses an event or sees one that is taken back, and
//! none receives a gap.
//!
//! `PUSHWHEEL_ROUNDS` is how often the server is killed, and `PUSHWHEEL_SEED` repeats the
//! moments of a run.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use fastrand::Rng;

use crate::accepted::{Answer, Published, Publisher, Seen, compare, post, short};
use crate::commands::Running;
use crate::common::eventually;
use crate::common::sse::Parser;
use crate::directory::Directory;

const PUBLISHERS: usize = 8;
const CLIENTS: usize = 100;
const CHANNELS: usize = 4;

/// The publishers to this channel set the ids of their events, and publish an event again
/// until it is answered 200.
const WITH_OWN_IDS: usize = CHANNELS - 1;

/// The time after which a read looks whether the server has ended, or the run.
const LOOK: Duration = Duration::from_millis(200);

/// The longest time between a start and the next kill.
const ROUND_MAX_MS: u64 = 250;

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn nothing_accepted_is_lost_by_kill_9_with_the_default_sync() {
    run("default", "1");
}

#[test]
fn nothing_accepted_is_lost_by_kill_9_if_each_write_is_synced() {
    run("always", "always");
}

/// What the threads share.
struct Shared {
    address: SocketAddr,
    /// Whether the publishers end.
    is_over: AtomicBool,
    /// Notified when a server has started.
    starts: Condvar,
    start: Mutex<()>,
}

fn run(name: &str, sync: &str) {
    let rounds = number_of("PUSHWHEEL_ROUNDS").unwrap_or(20);
    let seed = number_of("PUSHWHEEL_SEED").unwrap_or_else(|| Rng::new().u64(..));
    eprintln!("PUSHWHEEL_ROUNDS={rounds} PUSHWHEEL_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let directory = Directory::new(&format!("crashes-{name}"));
    let journal = directory.path().join("journal");
    let (mut server, address) = start("127.0.0.1:0", &journal, sync);
    let shared = Arc::new(Shared {
        address,
        is_over: AtomicBool::new(false),
        starts: Condvar::new(),
        start: Mutex::default(),
    });
    let begins: Vec<String> = (0..CHANNELS)
        .map(|channel| shared.mark(channel, "begin"))
        .collect();
    let clients: Vec<JoinHandle<Vec<Seen>>> = (0..CLIENTS)
        .map(|client| {
            let channel = client % CHANNELS;
            let (shared, begin) = (shared.clone(), begins[channel].clone());
            thread::spawn(move || shared.subscribe(channel, begin))
        })
        .collect();
    let (pace, paced) = bounded::<()>(0);
    let publishers: Vec<JoinHandle<Published>> = (0..PUBLISHERS)
        .map(|publisher| {
            let (shared, paced) = (shared.clone(), paced.clone());
            let rng = Rng::with_seed(rng.u64(..));
            thread::spawn(move || shared.publish(publisher, rng, &paced))
        })
        .collect();
    for _ in 0..rounds {
        // A random moment: nothing is waited for.
        let moment = Duration::from_millis(rng.u64(..ROUND_MAX_MS));
        let _ = paced.recv_timeout(moment);
        drop(server);
        server = start(&address.to_string(), &journal, sync).0;
        shared.starts.notify_all();
    }
    shared.is_over.store(true, Ordering::SeqCst);
    drop(pace);
    let published: Vec<Published> = publishers.into_iter().map(|p| p.join().unwrap()).collect();
    for channel in 0..CHANNELS {
        shared.mark(channel, "end");
    }
    let seen: Vec<Vec<Seen>> = clients.into_iter().map(|c| c.join().unwrap()).collect();
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0), "{}", server.complaints());

    let mut events = 0;
    for channel in 0..CHANNELS {
        let of_channel: Vec<&Vec<Seen>> = seen.iter().skip(channel).step_by(CHANNELS).collect();
        events += of_channel[0].len();
        let of_publishers = published.iter().skip(channel).step_by(CHANNELS);
        check_channel(channel, &of_channel, &of_publishers.collect::<Vec<_>>());
    }
    // Each number is given once, in all channels together.
    let mut numbers = BTreeMap::new();
    for event in seen.iter().flatten() {
        let Some(number) = event.number() else {
            continue;
        };
        let known = numbers.insert(number, event);
        assert!(
            known.is_none_or(|known| known == event),
            "{known:?} {event:?}"
        );
    }
    let accepted = published.iter().map(|p| p.accepted.len()).sum::<usize>();
    let doubtful = published.iter().map(|p| p.doubtful.len()).sum::<usize>();
    eprintln!(
        "{rounds} kills: {accepted} accepted, {doubtful} without a response, {events} events"
    );
    assert!(
        accepted as u64 > rounds,
        "too little was published: {accepted}"
    );
}

fn start(listen: &str, journal: &Path, sync: &str) -> (Running, SocketAddr) {
    let journal = journal.to_str().unwrap();
    let arguments = [
        "serve",
        "--listen",
        listen,
        "--journal",
        journal,
        "--journal-sync",
        sync,
    ];
    let bounds = [
        "--history-events",
        "1000000",
        "--history-bytes",
        "1000000000",
    ];
    let arguments: Vec<&str> = arguments.into_iter().chain(bounds).collect();
    let mut started = None;
    eventually("the port is free", || {
        let mut running = Running::start(&arguments);
        match running.try_address() {
            Some(address) => started = Some((running, address)),
            // A connection of another test may have used the port in between.
            None => {
                let reported = running.complaints();
                assert!(reported.contains("cannot listen on"), "{reported}");
            }
        }
        started.is_some()
    });
    started.unwrap()
}

/// Compares what the clients of a channel have received with what was published to it.
fn check_channel(channel: usize, seen: &[&Vec<Seen>], published: &[&Published]) {
    let first = seen[0];
    for others in seen {
        // What one client has seen, all have: nothing was taken back.
        if let Some(at) =
            (0..first.len().max(others.len())).find(|n| first.get(*n) != others.get(*n))
        {
            panic!(
                "channel {channel}, event {at}: {:?} or {:?}",
                first.get(at),
                others.get(at)
            );
        }
    }
    let channel = name_of(channel);
    let missing = compare(&channel, first, published);
    assert!(
        missing.is_empty(),
        "{channel}: accepted and lost: {missing:?}"
    );
    for publisher in published {
        assert!(publisher.refused.is_empty(), "{:?}", publisher.refused);
    }
}

fn name_of(channel: usize) -> String {
    format!("crash-{channel}")
}

impl Shared {
    /// Waits until a server has started, or a moment: it may have done so before.
    fn wait_for_a_start(&self) {
        let start = self.start.lock().unwrap();
        drop(self.starts.wait_timeout(start, LOOK).unwrap());
    }

    /// Receives until the end, over all kills.
    fn subscribe(&self, channel: usize, mut last_id: String) -> Vec<Seen> {
        let mut seen = Vec::new();
        loop {
            let Ok(mut stream) = TcpStream::connect(self.address) else {
                self.wait_for_a_start();
                continue;
            };
            stream.set_read_timeout(Some(LOOK)).unwrap();
            let request = format!(
                "GET /channels/{} HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: \
                 {last_id}\r\n\r\n",
                name_of(channel)
            );
            if stream.write_all(request.as_bytes()).is_err() {
                continue;
            }
            let mut head = Vec::new();
            let mut parser = Parser::new();
            let mut is_head = true;
            let mut buffer = [0; 16 * 1024];
            loop {
                let bytes = match stream.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => &buffer[..read],
                    Err(error) if is_timeout(&error) => continue,
                    Err(_) => break,
                };
                let mut body = bytes.to_vec();
                if is_head {
                    head.extend_from_slice(bytes);
                    let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else {
                        continue;
                    };
                    let text = String::from_utf8_lossy(&head[..end]);
                    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
                    assert!(!text.to_lowercase().contains("transfer-encoding"), "{text}");
                    body = head.split_off(end + 4);
                    is_head = false;
                }
                let events = parser.push(&body);
                if !parser.last_event_id().is_empty() {
                    parser.last_event_id().clone_into(&mut last_id);
                }
                for event in events {
                    assert_eq!(event.name, "message", "{last_id}: {event:?}");
                    let (id, data) = (event.last_event_id, short(&event.data));
                    let is_end = data == "end";
                    seen.push(Seen { id, data });
                    if is_end {
                        return seen;
                    }
                }
            }
        }
    }

    /// Publishes until the run is over.
    fn publish(&self, publisher: usize, rng: Rng, paced: &Receiver<()>) -> Published {
        let channel = publisher % CHANNELS;
        let mut publisher =
            Publisher::new(publisher, name_of(channel), channel == WITH_OWN_IDS, rng);
        while !self.is_over.load(Ordering::SeqCst) {
            publisher.publish(|| {
                loop {
                    match TcpStream::connect(self.address) {
                        Ok(stream) => return Some(stream),
                        Err(_) => self.wait_for_a_start(),
                    }
                }
            });
            let pause = Duration::from_micros(publisher.draw(4_000));
            let _ = paced.recv_timeout(pause);
        }
        publisher.into_published()
    }

    /// Publishes a mark, which no publisher has.
    fn mark(&self, channel: usize, mark: &str) -> String {
        let mut connection = TcpStream::connect(self.address).unwrap();
        match post(&mut connection, &name_of(channel), mark, None, None) {
            Ok(Answer::Accepted(answer)) => answer["id"].as_str().unwrap().to_owned(),
            other => panic!("{other:?}"),
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock)
}
