//! Hostile and broken clients on real sockets: the others are served, each end is reported
//! once, and memory does not grow.
//!
//! The tests run one after another, because they count the allocations of the process and
//! compare times.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail, and a comparison of times needs a clock"
)]

mod common;

use std::alloc::System;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::readers::Readers;
use common::{Connection, PATIENCE, Served, Subscriber, eventually, receive, sequence, summaries};
use pushwheel::{
    Channel, ChannelManager, ChannelOptions, ClientId, Condition, DisconnectReason, Engine,
    EngineBuilder, Event, History, LagPolicy, Response, Subscription,
};
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many bytes the process has allocated and not freed.
fn bytes_held() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

const HELLO: &str = "GET /hello HTTP/1.1\r\nHost: test\r\n\r\n";
const STREAM: &str = "GET /stream HTTP/1.1\r\nHost: test\r\n\r\n";

/// The clients that connected and disconnected, by the callbacks.
#[derive(Clone, Debug, Default)]
struct Register {
    came: Arc<Mutex<Vec<String>>>,
    left: Arc<Mutex<HashMap<String, Vec<DisconnectReason>>>>,
}

impl Register {
    fn enter(&self, subscription: Subscription) -> Subscription {
        let (came, left) = (self.came.clone(), self.left.clone());
        subscription
            .on_connect(move |client, _| came.lock().unwrap().push(client.id.to_string()))
            .on_disconnect(move |client, reason| {
                let mut left = left.lock().unwrap();
                left.entry(client.id.to_string()).or_default().push(reason);
            })
    }

    fn has_left(&self) -> usize {
        self.left.lock().unwrap().len()
    }

    /// Checks that each client that came has left, once, for one of these reasons.
    #[track_caller]
    fn check_all_left_once(&self, reasons: &[DisconnectReason]) -> usize {
        let (came, left) = (self.came.lock().unwrap(), self.left.lock().unwrap());
        for id in &*came {
            let reasons_given = left.get(id).expect("its end was reported");
            assert_eq!(reasons_given.len(), 1, "{id}: {reasons_given:?}");
            assert!(
                reasons.contains(&reasons_given[0]),
                "{id}: {reasons_given:?}"
            );
        }
        assert_eq!(came.len(), left.len(), "each client that left had come");
        came.len()
    }
}

/// An engine with a channel at `/stream`, and a page at `/hello`.
fn engine(options: ChannelOptions) -> (EngineBuilder, Channel, Register) {
    let channels = ChannelManager::builder().defaults(options).build();
    let channel = channels.get_or_create("news").unwrap();
    let register = Register::default();
    let (stream, entering) = (channel.clone(), register.clone());
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", move |request| {
            let subscription = entering.enter(Subscription::new(&stream));
            match request.query("id") {
                Some(id) => subscription
                    .client_id(ClientId::new(&id).unwrap())
                    .metadata(json!({"role": "stalled"})),
                None => subscription,
            }
        })
        .get("/hello", |_| "hello")
        .post("/echo", |request| Response::bytes(request.body().to_vec()));
    (builder, channel, register)
}

/// The events `range`, each published when all of the readers have the one before;
/// answers how long the middle one of them took.
fn deliver(channel: &Channel, readers: &mut Readers, events: usize) -> Duration {
    let mut times: Vec<Duration> = (0..events)
        .map(|n| {
            let begun = Instant::now();
            channel.broadcast(Event::message(n.to_string())).unwrap();
            readers.wait(n + 1);
            begun.elapsed()
        })
        .collect();
    let expected: Vec<String> = (0..events).map(|n| n.to_string()).collect();
    for events in readers.take() {
        assert_eq!(summaries(&events), expected);
    }
    times.sort();
    times[events / 2]
}

#[test]
fn five_hundred_stuck_clients_do_not_delay_two_thousand_readers() {
    const STALLED: usize = 500;
    const READERS: usize = 2_000;
    let _turn = alone();
    let options = ChannelOptions::new().backlog_bytes_max(8 << 20);
    let (builder, channel, register) = engine(options);
    let served = Served::start(builder.stall_timeout(Duration::from_secs(600)));
    let mut readers = Readers::open(served.address(), "/stream", READERS);
    eventually("all are there", || channel.client_count() == READERS);
    let before = deliver(&channel, &mut readers, 20);

    let stalled: Vec<Connection> = (0..STALLED)
        .map(|n| {
            let mut connection = Connection::very_narrow(served.address());
            connection.send(format!(
                "GET /stream?id=stalled-{n} HTTP/1.1\r\nHost: test\r\n\r\n"
            ));
            connection
        })
        .collect();
    eventually("all are there", || {
        channel.client_count() == READERS + STALLED
    });
    let to_stalled = [Condition::new("role", "stalled")];
    let flood = "x".repeat(64 << 10);
    let is_stuck = |n: usize| {
        let client = channel.client(format!("stalled-{n}").as_str());
        client.is_some_and(|client| client.behind > 2)
    };
    for _ in 0..16 {
        channel
            .broadcast_where(&to_stalled, Event::message(&flood))
            .unwrap();
    }
    eventually("they are stuck", || (0..STALLED).all(is_stuck));

    // All readers have each event while all stuck clients are still connected. The
    // least of three: the machine may have been busy with something else.
    let beside = (0..3).map(|_| deliver(&channel, &mut readers, 20));
    let beside = beside.min().unwrap();
    assert_eq!(register.has_left(), 0, "no client was disconnected for it");
    assert!(channel.stats().unwrap().history_bytes <= 8 << 20);

    // What waits for them has a limit, however many they are.
    for _ in 0..128 {
        channel
            .broadcast_where(&to_stalled, Event::message(&flood))
            .unwrap();
        assert!(channel.stats().unwrap().history_bytes <= 8 << 20);
    }
    eventually("they are given up", || channel.client_count() == READERS);
    let after = deliver(&channel, &mut readers, 20);
    println!("the middle event: {before:?} before, {beside:?} beside them, {after:?} after");
    assert!(
        beside < 3 * before.max(after),
        "{before:?} {beside:?} {after:?}"
    );
    drop((stalled, readers));
    eventually("all have left", || register.has_left() == READERS + STALLED);
    let left = register.left.lock().unwrap();
    for (id, reasons) in &*left {
        let expected = match id.starts_with("stalled-") {
            true => DisconnectReason::Lagged,
            false => DisconnectReason::Gone,
        };
        assert_eq!(reasons, &[expected], "{id}");
    }
}

#[test]
fn slow_heads_and_bodies_are_408_and_the_others_are_served() {
    let _turn = alone();
    let (builder, channel, _) = engine(ChannelOptions::new());
    let served = Served::start(builder.head_timeout(Duration::from_millis(700)));
    let mut reader = served.subscribe("/stream");
    let mut polite = served.connect();
    let mut slow: Vec<Connection> = (0..200).map(|_| served.connect()).collect();
    for (n, connection) in slow.iter_mut().enumerate() {
        connection.send(match n % 4 {
            0 => "GET /hello HTTP/1.1\r\nHost: test\r\nX: ",
            1 => "G",
            2 => "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\nb",
            _ => "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5;",
        });
    }
    // Those with a head go on with a byte at a time, which moves no deadline.
    let mut writers: Vec<_> = slow.iter().step_by(4).map(Connection::writer).collect();
    let dripping = thread::spawn(move || {
        eventually("all are given up", || {
            writers.retain_mut(|writer| std::io::Write::write_all(writer, b"x").is_ok());
            writers.is_empty()
        });
    });
    let mut n = 0;
    while !dripping.is_finished() {
        assert_eq!(polite.get("/hello").text(), "hello");
        channel.broadcast(Event::message(n.to_string())).unwrap();
        assert_eq!(reader.next().data, n.to_string());
        n += 1;
    }
    dripping.join().unwrap();
    for (n, connection) in slow.iter_mut().enumerate() {
        let answer = connection.answer();
        let code = answer.error_code();
        assert_eq!((answer.status, &*code), (408, "request_timeout"), "{n}");
        connection.rest();
    }
}

#[test]
fn many_silent_connections_are_closed_and_the_others_are_served() {
    let _turn = alone();
    let (builder, channel, _) = engine(ChannelOptions::new());
    let served = Served::start(builder.idle_timeout(Duration::from_secs(3)));
    let mut reader = served.subscribe("/stream");
    let held = bytes_held();
    let mut silent: Vec<Connection> = (0..2_000).map(|_| served.connect()).collect();
    for n in 0..50 {
        assert_eq!(served.connect().get("/hello").text(), "hello");
        channel.broadcast(Event::message(n.to_string())).unwrap();
        assert_eq!(reader.next().data, n.to_string());
    }
    for connection in &mut silent {
        connection.expect_end();
    }
    drop(silent);
    channel.broadcast(Event::message("still here")).unwrap();
    assert_eq!(reader.next().data, "still here");
    // The table of connections keeps its size, and no more is kept.
    eventually("nothing is kept of them", || {
        bytes_held() < held + 2_048 * 256
    });
}

#[test]
fn resets_at_any_moment_leave_no_client_behind() {
    let _turn = alone();
    let (builder, channel, register) = engine(ChannelOptions::new().backlog_bytes_max(64 << 20));
    let (builder, responders) = common::deferring(builder);
    let served = Served::start(builder);
    let mut reader = served.subscribe("/stream");
    let is_over = Arc::new(AtomicBool::new(false));
    let publishing = thread::spawn({
        let (channel, is_over) = (channel.clone(), is_over.clone());
        move || {
            let mut published = 0;
            while !is_over.load(Ordering::Relaxed) {
                let data = format!("{published} {}", "x".repeat(2_000));
                channel.broadcast(Event::message(data)).unwrap();
                published += 1;
                thread::park_timeout(Duration::from_micros(500));
            }
            published
        }
    });
    let reading = thread::spawn(move || {
        let mut seen = 0;
        while let Some(event) = reader.next_or_end() {
            if event.name == "end" {
                break;
            }
            assert!(event.data.starts_with(&format!("{seen} ")), "in order");
            seen += 1;
        }
        (seen, reader)
    });
    let mut sockets = Vec::new();
    for n in 0..1_200 {
        let mut connection = match n % 8 {
            3 => Connection::very_narrow(served.address()),
            _ => served.connect(),
        };
        connection.send(match n % 8 {
            0 => String::new(),
            1 => STREAM[..20].into(),
            2 => "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf".into(),
            3 | 4 => STREAM.into(),
            5 => format!("{STREAM}and more"),
            6 => "GET /later HTTP/1.1\r\nHost: test\r\n\r\n".into(),
            _ => format!("{}{STREAM}", HELLO.repeat(20)),
        });
        if n % 16 == 4 {
            connection.head();
        }
        sockets.push(connection);
        if sockets.len() == 100 {
            for connection in sockets.drain(..) {
                connection.reset();
            }
        }
    }
    for responder in responders.try_iter() {
        responder.respond("too late");
    }
    eventually("all are gone", || channel.client_count() == 1);
    is_over.store(true, Ordering::Relaxed);
    let published = publishing.join().unwrap();
    channel.broadcast(Event::new("end", "")).unwrap();
    let (seen, reader) = reading.join().unwrap();
    assert_eq!(seen, published, "a client that stays misses nothing");
    drop(reader);
    eventually("all have left", || channel.client_count() == 0);
    served.shutdown(PATIENCE);
    served.join();
    // A stalled one that is reset is gone, or was given up just before.
    let reasons = [DisconnectReason::Gone, DisconnectReason::Lagged];
    let came = register.check_all_left_once(&reasons);
    assert!(came > 150, "{came}");
}

#[test]
fn a_half_closed_connection_is_answered_or_found_gone() {
    let _turn = alone();
    let (builder, channel, register) = engine(ChannelOptions::new());
    let served = Served::start(builder);
    let mut reader = served.subscribe("/stream");
    for n in 0..100 {
        let mut connection = served.connect();
        connection.send(match n % 4 {
            0 => "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody",
            1 => STREAM,
            // Half a request has no answer.
            2 => "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nbody",
            _ => "GET /hel",
        });
        connection.finish_sending();
        match n % 4 {
            0 => assert_eq!(connection.answer().text(), "body"),
            1 => assert!(connection.rest().starts_with(b"HTTP/1.1 200 OK\r\n")),
            _ => {}
        }
        connection.expect_end();
    }
    channel.broadcast(Event::message("still here")).unwrap();
    assert_eq!(reader.next().data, "still here");
    assert_eq!(channel.client_count(), 1);
    drop(reader);
    eventually("all have left", || register.has_left() == 26);
    register.check_all_left_once(&[DisconnectReason::Gone]);
}

/// Bytes, and the status and code of the last answer to them.
fn garbage() -> Vec<(Vec<u8>, u16, &'static str)> {
    let post = |rest: &str| {
        let head = "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}{rest}").into_bytes()
    };
    let get = |headers: &str| format!("GET /hello HTTP/1.1\r\nHost: test\r\n{headers}");
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    vec![
        (tls, 400, "request_line_invalid"),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
            505,
            "version_unsupported",
        ),
        (vec![0; 1_000], 400, "request_line_invalid"),
        ("\r\n".repeat(10_000).into(), 400, "line_end_invalid"),
        (
            format!("GET /{}", "x".repeat(1 << 20)).into(),
            414,
            "uri_too_long",
        ),
        (
            get(&format!("X: {}", "x".repeat(1 << 20))).into(),
            431,
            "head_too_large",
        ),
        (
            get(&"X: 1\r\n".repeat(10_000)).into(),
            431,
            "too_many_headers",
        ),
        (
            post(&format!("5;{}", "x".repeat(1 << 20))),
            400,
            "chunk_invalid",
        ),
        (
            post(&"1;ext=1234\r\nx\r\n".repeat(10_000)),
            400,
            "chunk_invalid",
        ),
        (post("5\r\nlonger\r\n"), 400, "chunk_invalid"),
        (post("fffffffffffffff\r\n"), 413, "payload_too_large"),
        (
            post(&format!("0\r\n{}", "X: 1\r\n".repeat(10_000))),
            431,
            "trailers_too_large",
        ),
        (
            format!("{HELLO}\x01\x02\x03\x04").into(),
            400,
            "request_line_invalid",
        ),
        (
            format!("{}nonsense\r\n\r\n", HELLO.repeat(50)).into(),
            400,
            "request_line_invalid",
        ),
    ]
}

/// Sends all of the garbage, each with an end behind it, and looks at the answers.
fn attack(served: &Served, seed: u64) {
    for (bytes, status, code) in garbage() {
        let mut connection = served.connect();
        connection.try_send(&bytes);
        let mut answer = connection.answer();
        while answer.status == 200 {
            answer = connection.answer();
        }
        assert_eq!((answer.status, &*answer.error_code()), (status, code));
        assert_eq!(answer.header("connection"), Some("close"));
    }
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..100 {
        let mut connection = served.connect();
        let mut bytes = match random.bool() {
            true => STREAM.as_bytes().to_vec(),
            false => HELLO.as_bytes().to_vec(),
        };
        if random.bool() {
            bytes = (0..random.usize(1..5_000)).map(|_| random.u8(..)).collect();
        } else {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        connection.try_send(&bytes);
        connection.try_send("\r\n\r\n");
        _ = connection.writer().shutdown(std::net::Shutdown::Write);
        let answer = connection.rest();
        let is_answer = answer.is_empty() || answer.starts_with(b"HTTP/1.1 ");
        assert!(is_answer, "seed {seed}: {bytes:?}");
    }
}

#[test]
fn garbage_is_refused_as_documented_and_leaves_nothing_behind() {
    let _turn = alone();
    let (builder, channel, _) = engine(ChannelOptions::new());
    let served = Served::start(builder);
    let mut reader = served.subscribe("/stream");
    let attack_and_rest = |seed| {
        attack(&served, seed);
        eventually("they are gone", || channel.client_count() == 1);
    };
    for seed in 0..3 {
        attack_and_rest(seed);
    }
    let held = bytes_held();
    for seed in 3..12 {
        attack_and_rest(seed);
    }
    // A thousand attacks more; a connection that speaks HTTP takes some hundred bytes.
    eventually("nothing is left of them", || {
        bytes_held() < held + (16 << 10)
    });
    channel.broadcast(Event::message("still here")).unwrap();
    assert_eq!(reader.next().data, "still here");
}

/// Publishes faster than the clients read, and checks the limit of the log.
fn flood(channel: &Channel, events: usize, backlog_bytes: usize) {
    let data = "x".repeat(10_000);
    for n in 0..events {
        channel.broadcast(Event::new(n.to_string(), &data)).unwrap();
        let bytes = channel.stats().unwrap().history_bytes;
        assert!(bytes <= backlog_bytes, "the log has {bytes} bytes");
    }
}

#[test]
fn a_flood_of_events_is_bounded_and_clients_that_skip_receive_each_gap() {
    const BACKLOG: usize = 1 << 20;
    let _turn = alone();
    let options = ChannelOptions::new()
        .backlog_bytes_max(BACKLOG)
        .lag_policy(LagPolicy::Skip);
    let (builder, channel, _) = engine(options);
    let served = Served::start(builder.stall_timeout(Duration::from_secs(600)));
    let mut slow: Vec<Subscriber> = (0..20)
        .map(|_| Subscriber::over(Connection::very_narrow(served.address()), "/stream", &[]))
        .collect();
    let held = bytes_held();
    flood(&channel, 5_000, BACKLOG);
    let grown = bytes_held().saturating_sub(held);
    assert!(grown < 4 * BACKLOG, "50 MB took {grown} bytes");
    channel.broadcast(Event::new("end", "")).unwrap();
    for client in &mut slow {
        let (mut before, mut gaps, mut is_after_gap) = (None::<u64>, 0, false);
        loop {
            let event = client.next();
            let here = sequence(&event.last_event_id);
            if event.name == "pushwheel.gap" {
                (gaps, is_after_gap) = (gaps + 1, true);
                continue;
            }
            let is_next = before.is_none_or(|before| here == before + 1);
            let is_later = before.is_none_or(|before| here > before);
            assert!(is_next || (is_after_gap && is_later), "a hole is reported");
            (before, is_after_gap) = (Some(here), false);
            if event.name == "end" {
                break;
            }
        }
        assert!(gaps > 0);
    }
}

#[test]
fn a_flood_of_events_disconnects_slow_clients_which_resume_with_a_gap() {
    const BACKLOG: usize = 1 << 20;
    let _turn = alone();
    let options = ChannelOptions::new()
        .backlog_bytes_max(BACKLOG)
        .history(History::events(10));
    let (builder, channel, register) = engine(options);
    let served = Served::start(builder);
    let mut slow: Vec<Subscriber> = (0..20)
        .map(|_| Subscriber::over(Connection::very_narrow(served.address()), "/stream", &[]))
        .collect();
    flood(&channel, 5_000, BACKLOG);
    eventually("they are given up", || register.has_left() == 20);
    assert_eq!(channel.client_count(), 0);
    register.check_all_left_once(&[DisconnectReason::Lagged]);
    for client in &mut slow {
        let whole = client.rest();
        assert!(whole.iter().all(|event| event.data.len() == 10_000));
        let mut again = served.resubscribe("/stream", client.last_event_id());
        assert_eq!(again.next().name, "pushwheel.gap");
        let names = (4_990..5_000).map(|n| n.to_string());
        assert!(again.take(10).into_iter().map(|e| e.name).eq(names));
    }
}

#[test]
fn a_subscriber_that_goes_on_asking_is_not_heard_and_is_disconnected() {
    let _turn = alone();
    let (builder, channel, register) = engine(ChannelOptions::new());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let builder = builder.get("/count", move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        "counted"
    });
    let served = Served::start(builder);
    let mut reader = served.subscribe("/stream");
    let request = "GET /count HTTP/1.1\r\nHost: test\r\n\r\n";
    for _ in 0..10 {
        let mut talker = served.connect();
        talker.send(format!("{STREAM}{}", request.repeat(500)));
        eventually("it is cut off", || !talker.try_send(request.repeat(500)));
        channel.broadcast(Event::message("and on")).unwrap();
        assert_eq!(reader.next().data, "and on");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    eventually("all are reported", || register.has_left() == 10);
    assert_eq!(channel.client_count(), 1);
    drop(reader);
    eventually("the reader too", || register.has_left() == 11);
    let left = register.left.lock().unwrap();
    let misbehaved = [DisconnectReason::Misbehaved];
    assert_eq!(left.values().filter(|r| **r == misbehaved).count(), 10);
}

#[test]
fn endless_requests_on_many_connections_starve_no_client() {
    let _turn = alone();
    let (builder, channel, _) = engine(ChannelOptions::new().history(History::events(100)));
    let served = Served::start(builder);
    let first = channel.broadcast(Event::message("0")).unwrap().id.unwrap();
    for n in 1..50 {
        channel.broadcast(Event::message(n.to_string())).unwrap();
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let (sender, begun) = mpsc::channel();
    let flooders: Vec<_> = (0..48)
        .map(|_| {
            let (mut connection, is_over) = (served.connect(), is_over.clone());
            let sender = sender.clone();
            thread::spawn(move || {
                let requests = HELLO.repeat(200);
                connection.send(&requests);
                while !is_over.load(Ordering::Relaxed) {
                    connection.send(&requests);
                    for _ in 0..200 {
                        connection.answer();
                    }
                    _ = sender.send(());
                }
            })
        })
        .collect();
    for _ in 0..48 {
        receive(&begun);
    }
    // Neither a client that resumes nor a connected one waits until they have finished.
    let mut listener = served.subscribe("/stream");
    for n in 0..3 {
        let mut again = served.resubscribe("/stream", &first.to_string());
        assert_eq!(again.take(49).len(), 49);
        channel
            .broadcast(Event::message(format!("live {n}")))
            .unwrap();
        assert_eq!(listener.next().data, format!("live {n}"));
    }
    is_over.store(true, Ordering::Relaxed);
    for flooder in flooders {
        flooder.join().unwrap();
    }
}

#[test]
fn a_deadline_for_a_head_is_that_heads_alone() {
    let _turn = alone();
    let (builder, _, _) = engine(ChannelOptions::new());
    let time = Duration::from_secs(2);
    let served = Served::start(builder.head_timeout(time));
    // Each packet ends one head and begins the next: there always is half a one.
    let mut connection = served.connect();
    let begun = Instant::now();
    let (first, rest) = HELLO.split_at(10);
    connection.send(first);
    while begun.elapsed() < time * 3 / 2 {
        connection.send(format!("{rest}{first}"));
        assert_eq!(connection.answer().status, 200);
    }
}
