//! Each client receives its events once, in order and whole, and a slow client does not
//! delay the others.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail, and one of heartbeats needs a clock"
)]

mod common;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::readers::Readers;
use common::{Connection, Served, Subscriber, eventually, receive, sequence, summaries};
use pushwheel::{
    Channel, ChannelManager, ChannelOptions, Condition, DisconnectReason, Engine, Event, LagPolicy,
    PublishError, Subscription,
};
use serde_json::json;

#[test]
fn three_thousand_clients_get_every_event_once_in_order_and_whole() {
    const CLIENTS: usize = 3_000;
    let (served, channel) = Served::channel(ChannelOptions::new());
    let readers = Readers::open(served.address(), "/stream", CLIENTS);
    eventually("all have joined", || channel.client_count() == CLIENTS);

    let expected: Vec<String> = (0..40)
        .map(|n| format!("number {n}\nof many: {}", "é…".repeat(n * n / 8)))
        .collect();
    let readers = readers.read(expected.len());
    for data in &expected {
        let published = channel.broadcast(Event::new("n", data)).unwrap();
        assert_eq!(published.clients, CLIENTS);
    }

    for events in readers.join().unwrap() {
        assert!(events.iter().map(|event| &event.data).eq(&expected));
        assert!(events.iter().all(|event| event.name == "n"));
        let ids: Vec<u64> = events.iter().map(|e| sequence(&e.last_event_id)).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    }
    let all = CLIENTS * expected.len();
    eventually("what was delivered is counted", || {
        channel.stats().unwrap().delivered == all as u64
    });
}

#[test]
fn of_several_publishers_at_once_every_client_sees_the_same_order() {
    const PUBLISHERS: usize = 4;
    const EVENTS: usize = 250;
    let (served, channel) = Served::channel(ChannelOptions::new());
    let readers = Readers::open(served.address(), "/stream", 100);
    eventually("all have joined", || channel.client_count() == 100);

    let readers = readers.read(PUBLISHERS * EVENTS);
    let publish = |publisher: usize| {
        let channel = channel.clone();
        thread::spawn(move || {
            let publish = |n| {
                let data = format!("{publisher} {n}");
                let published = channel.broadcast(Event::message(&data)).unwrap();
                (published.id.unwrap().to_string(), data)
            };
            (0..EVENTS).map(publish).collect::<Vec<_>>()
        })
    };
    let publishers: Vec<_> = (0..PUBLISHERS).map(publish).collect();
    // The ids that publishers are answered are those that clients see, and
    // their order is the order of the log.
    let mut expected: Vec<(String, String)> = publishers
        .into_iter()
        .flat_map(|publisher| publisher.join().unwrap())
        .collect();
    expected.sort_by_key(|(id, _)| sequence(id));

    for events in readers.join().unwrap() {
        let seen = events.into_iter().map(|e| (e.last_event_id, e.data));
        assert!(seen.eq(expected.iter().cloned()));
    }
}

#[test]
fn a_batch_stays_together_beside_other_publishers() {
    let (served, channel) = Served::channel(ChannelOptions::new());
    let mut client = served.subscribe("/stream");
    let publish = |letter: &'static str| {
        let channel = channel.clone();
        thread::spawn(move || {
            for _ in 0..50 {
                let batch = (0..4).map(|n| Event::message(format!("{letter}{n}")));
                assert_eq!(channel.broadcast_batch(batch).unwrap().events, 4);
            }
        })
    };
    for publisher in [publish("a"), publish("b")] {
        publisher.join().unwrap();
    }
    for batch in summaries(&client.take(400)).chunks(4) {
        let letter = &batch[0][..1];
        let whole: Vec<String> = (0..4).map(|n| format!("{letter}{n}")).collect();
        assert_eq!(batch, whole);
    }
}

#[test]
fn a_batch_with_one_bad_event_is_not_published_at_all() {
    let (served, channel) = Served::channel(ChannelOptions::new().event_bytes_max(200));
    let mut client = served.subscribe("/stream");
    let bad_name = [Event::message("1"), Event::new("two\nlines", "2")];
    assert!(channel.broadcast_batch(bad_name).is_err());
    let too_large = [Event::message("3"), Event::message("x".repeat(300))];
    let refused = channel.broadcast_batch(too_large).unwrap_err();
    assert!(matches!(refused, PublishError::TooLarge { max: 200, .. }));
    channel.broadcast(Event::message("4")).unwrap();
    assert_eq!(summaries(&client.take(1)), ["4"]);
}

#[test]
fn whatever_an_event_holds_arrives_as_it_is_and_as_nothing_else() {
    let (served, channel) = Served::channel(ChannelOptions::new());
    let mut client = served.subscribe("/stream");
    let large = "x".repeat(1 << 19);
    for (data, arrives) in [
        ("plain", "plain"),
        (" a space and a colon: first", " a space and a colon: first"),
        (
            "id: 7\nevent: forged\n\ndata: more",
            "id: 7\nevent: forged\n\ndata: more",
        ),
        ("three\r\nline\rends\n", "three\nline\nends\n"),
        ("naïve — 漢字 🎡 \u{feff}\0", "naïve — 漢字 🎡 \u{feff}\0"),
        (&large, &large),
    ] {
        let published = channel.broadcast(Event::new("name", data)).unwrap();
        let event = client.next();
        assert_eq!((&*event.name, &*event.data), ("name", arrives));
        assert_eq!(event.last_event_id, published.id.unwrap().to_string());
    }
    let own = Event::new("own", "")
        .with_id("my id")
        .with_retry(Duration::from_millis(1500));
    assert_eq!(
        channel.broadcast(&own).unwrap().id.unwrap().to_string(),
        "my id"
    );
    // A parser dispatches no event without data, so it is written with empty data.
    let event = client.next();
    assert_eq!((&*event.data, &*event.last_event_id), ("", "my id"));
    assert_eq!(client.retry(), Some(1500));
}

#[test]
fn published_bytes_are_counted_as_they_go_over_the_wire() {
    let (served, channel) = Served::channel(ChannelOptions::new());
    let mut wire = String::new();
    for n in 8..12 {
        let data = "x".repeat(n);
        let id = channel
            .broadcast(Event::message(&data))
            .unwrap()
            .id
            .unwrap();
        wire.push_str(&format!("id: {id}\ndata: {data}\n\n"));
    }
    let metrics = served.handle().metrics();
    assert_eq!(metrics.event_bytes_published, wire.len() as u64);
}

#[test]
fn an_event_larger_than_the_backlog_reaches_current_clients() {
    let (served, channel) = Served::channel(ChannelOptions::new().backlog_bytes_max(1_000));
    let mut clients = [served.subscribe("/stream"), served.subscribe("/stream")];
    for n in 0..10 {
        let data = n.to_string().repeat(50_000);
        channel.broadcast(Event::message(&data)).unwrap();
        for client in &mut clients {
            assert_eq!(client.next().data, data);
        }
    }
}

/// A channel whose clients send their id and role: `/stream?id=…&role=…`.
fn directory(options: ChannelOptions) -> (Served, Channel) {
    let channels = ChannelManager::builder().defaults(options).build();
    let channel = channels.get_or_create("news").unwrap();
    let stream = channel.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", move |request| {
            let role = request.query("role").unwrap_or_default();
            let subscription = Subscription::new(&stream).metadata(json!({"role": role}));
            match request.query("id") {
                Some(id) => subscription.client_id(pushwheel::ClientId::new(&id).unwrap()),
                None => subscription,
            }
        });
    (Served::start(builder), channel)
}

#[test]
fn a_directed_event_reaches_its_recipients_in_order_with_broadcasts() {
    let (served, channel) = directory(ChannelOptions::new());
    let mut ann = served.subscribe("/stream?id=ann&role=admin");
    let mut bob = served.subscribe("/stream?id=bob&role=user");
    let mut cyd = served.subscribe("/stream?id=cyd&role=user");

    assert_eq!(channel.broadcast(Event::message("1")).unwrap().clients, 3);
    let sent = channel.send("ann", Event::message("2 ann")).unwrap();
    assert_eq!(sent.clients, 1);
    channel.broadcast(Event::message("3")).unwrap();
    let users = |c: &pushwheel::Candidate| c.metadata["role"] == "user";
    let sent = channel.broadcast_to(users, Event::message("4 users"));
    assert_eq!(sent.unwrap().clients, 2);
    let admins = [Condition::new("role", "admin")];
    let sent = channel.broadcast_where(&admins, Event::message("5 admins"));
    assert_eq!(sent.unwrap().clients, 1);
    let sent = channel.send("absent", Event::message("6 absent")).unwrap();
    assert_eq!(sent.clients, 0);
    channel.broadcast(Event::message("7")).unwrap();

    assert_eq!(
        summaries(&ann.take(5)),
        ["1", "2 ann", "3", "5 admins", "7"]
    );
    assert_eq!(summaries(&bob.take(4)), ["1", "3", "4 users", "7"]);
    assert_eq!(summaries(&cyd.take(4)), ["1", "3", "4 users", "7"]);
}

#[test]
fn thousands_of_directed_events_between_broadcasts_stay_in_order() {
    let (served, channel) = directory(ChannelOptions::new());
    let mut ann = served.subscribe("/stream?id=ann");
    let mut bob = served.subscribe("/stream?id=bob");
    let (mut for_ann, mut for_bob) = (Vec::new(), Vec::new());
    for n in 0..4_500 {
        let data = n.to_string();
        let event = Event::message(&data);
        match n % 3 {
            0 => channel.broadcast(event).unwrap(),
            1 => channel.send("ann", event).unwrap(),
            _ => channel.send("bob", event).unwrap(),
        };
        if n % 3 != 2 {
            for_ann.push(data.clone());
        }
        if n % 3 != 1 {
            for_bob.push(data);
        }
    }
    assert_eq!(summaries(&ann.take(for_ann.len())), for_ann);
    assert_eq!(summaries(&bob.take(for_bob.len())), for_bob);
}

#[test]
fn a_batch_for_many_weighs_no_more_than_one_for_all() {
    let (served, channel) = directory(ChannelOptions::new().backlog_bytes_max(64 << 10));
    let mut readers = Readers::open(served.address(), "/stream?role=a", 200);
    let mut bob = served.subscribe("/stream?role=b");
    eventually("all are there", || channel.client_count() == 201);
    let batch = || (0..80).map(|n| Event::message(n.to_string()));
    let only_a = [Condition::new("role", "a")];
    let sent = channel.broadcast_batch_where(&only_a, batch()).unwrap();
    assert_eq!((sent.events, sent.clients), (80, 200));
    channel.broadcast(Event::message("all")).unwrap();
    readers.wait(81);
    assert!(readers.take().iter().all(|events| events.len() == 81));
    assert_eq!(summaries(&bob.take(1)), ["all"]);
    assert_eq!(channel.client_count(), 201);
}

#[test]
fn a_client_that_moves_while_a_filter_runs_receives_the_event_it_was_selected_for() {
    let (served, channel) = directory(ChannelOptions::new());
    let (mut ann, mut bob) = (Some(served.subscribe("/stream?id=ann")), None);
    let comes_back = |_: &pushwheel::Candidate| {
        drop(ann.take());
        eventually("she has gone", || channel.client_count() == 0);
        bob = Some(served.subscribe("/stream?id=bob"));
        ann = Some(served.subscribe("/stream?id=ann"));
        true
    };
    let sent = channel.broadcast_to(comes_back, Event::message("for ann"));
    assert_eq!(sent.unwrap().clients, 1);
    channel.broadcast(Event::message("for all")).unwrap();
    assert_eq!(summaries(&ann.unwrap().take(2)), ["for ann", "for all"]);
    assert_eq!(summaries(&bob.unwrap().take(1)), ["for all"]);
}

/// A channel whose `on_disconnect` calls are sent to the test.
fn with_ends(
    options: ChannelOptions,
    stall_timeout: Duration,
) -> (Served, Channel, mpsc::Receiver<(String, DisconnectReason)>) {
    let channels = ChannelManager::builder().defaults(options).build();
    let channel = channels.get_or_create("news").unwrap();
    let stream = channel.clone();
    let (sender, ends) = mpsc::channel();
    let builder = Engine::builder()
        .channels(&channels)
        .stall_timeout(stall_timeout)
        .get("/stream", move |request| {
            let sender = sender.clone();
            let subscription = Subscription::new(&stream)
                .on_disconnect(move |c, reason| _ = sender.send((c.id.to_string(), reason)));
            match request.query("id") {
                Some(id) => subscription.client_id(pushwheel::ClientId::new(&id).unwrap()),
                None => subscription,
            }
        });
    (Served::start(builder), channel, ends)
}

/// A subscriber that reads the beginning of its stream and then nothing.
fn stuck(served: &Served, path: &str) -> Subscriber {
    let mut stuck = Subscriber::over(Connection::narrow(served.address()), path, &[]);
    stuck.wait_for_id();
    stuck
}

#[test]
fn a_client_that_stops_reading_costs_the_others_nothing_and_the_engine_no_more_than_its_log() {
    const BACKLOG: usize = 1 << 20;
    let options = ChannelOptions::new().backlog_bytes_max(BACKLOG);
    let (served, channel, ends) = with_ends(options, Duration::from_secs(30));
    let mut others: Vec<Subscriber> = (0..5).map(|_| served.subscribe("/stream")).collect();
    let mut stuck = stuck(&served, "/stream?id=stuck");
    eventually("all have joined", || channel.client_count() == 6);

    // What the kernel takes for a client that does not read is a few
    // megabytes; the rest waits in the log.
    let data = "x".repeat(64 << 10);
    let mut was_behind = false;
    for n in 0..400 {
        let event = Event::new(n.to_string(), &data);
        let id = channel.broadcast(&event).unwrap().id.unwrap().to_string();
        for client in &mut others {
            let event = client.next();
            assert_eq!((event.name, event.data.len()), (n.to_string(), data.len()));
            assert_eq!(event.last_event_id, id);
        }
        let bytes = channel.stats().unwrap().history_bytes;
        assert!(bytes <= BACKLOG, "the log has {bytes} bytes");
        was_behind |= channel.client("stuck").is_some_and(|c| c.behind > 0);
    }
    assert!(was_behind, "its backlog is reported");
    let left = receive(&ends);
    assert_eq!(left, ("stuck".to_owned(), DisconnectReason::Lagged));
    assert_eq!(channel.client_count(), 5);
    eventually("nothing is kept for it", || {
        channel.stats().unwrap().history_bytes == 0
    });

    // What it was sent before that is in order and whole.
    for (n, event) in stuck.rest().into_iter().enumerate() {
        assert_eq!((event.name, event.data), (n.to_string(), data.clone()));
    }
    drop(others);
    let left: Vec<_> = (0..5).map(|_| receive(&ends)).collect();
    assert!(left.iter().all(|(_, r)| *r == DisconnectReason::Gone));
    assert!(ends.try_recv().is_err(), "each departure is reported once");
}

#[test]
fn a_client_that_takes_nothing_for_too_long_is_disconnected() {
    let options = ChannelOptions::new().backlog_bytes_max(64 << 20);
    let (served, channel, ends) = with_ends(options, Duration::from_secs(2));
    let mut client = served.subscribe("/stream");
    let _stuck = stuck(&served, "/stream?id=stuck");
    let data = "x".repeat(512 << 10);
    for _ in 0..32 {
        channel.broadcast(Event::message(&data)).unwrap();
        assert_eq!(client.next().data.len(), data.len());
    }
    let left = receive(&ends);
    assert_eq!(left, ("stuck".to_owned(), DisconnectReason::Stalled));
    eventually("nothing is kept for it", || {
        channel.stats().unwrap().history_bytes == 0
    });
}

#[test]
fn a_slow_client_that_goes_on_reading_gets_everything_in_order_and_whole() {
    let options = ChannelOptions::new().backlog_bytes_max(64 << 20);
    let (served, channel) = Served::channel(options);
    let mut slow = Subscriber::over(Connection::narrow(served.address()), "/stream", &[]);
    slow.wait_for_id();
    let data = |n: usize| format!("{n} {}", "y".repeat(n * 7919 % 60_000));
    for n in 0..300 {
        channel.broadcast(Event::message(data(n))).unwrap();
    }
    let mut seen = 0;
    while seen < 300 {
        assert!(slow.read(10_007), "the stream ended");
        for event in slow.arrived() {
            assert_eq!(event.data, data(seen));
            seen += 1;
        }
    }
    channel.broadcast(Event::message("at last")).unwrap();
    assert_eq!(slow.next().data, "at last");
}

#[test]
fn clients_that_skip_receive_the_gap_and_continue_with_the_newest_event() {
    let options = ChannelOptions::new()
        .backlog_bytes_max(1 << 20)
        .lag_policy(LagPolicy::Skip);
    let (served, channel, ends) = with_ends(options, Duration::from_secs(30));
    let mut slow = stuck(&served, "/stream?id=slow");
    let mut quick = served.subscribe("/stream");
    let data = "x".repeat(64 << 10);
    let mut newest = String::new();
    for n in 0..400 {
        let event = Event::new(n.to_string(), &data);
        newest = channel.broadcast(event).unwrap().id.unwrap().to_string();
        quick.next();
    }

    let mut n = 0;
    let gap = loop {
        let event = slow.next();
        if event.name == "pushwheel.gap" {
            break event;
        }
        assert_eq!((event.name, event.data.len()), (n.to_string(), data.len()));
        n += 1;
    };
    let reported_by: serde_json::Value = serde_json::from_str(&gap.data).unwrap();
    assert_eq!(reported_by["reason"], "slow");
    assert_eq!(reported_by["newest"], newest);
    let requested = sequence(reported_by["requested"].as_str().unwrap());
    let oldest = sequence(reported_by["oldest"].as_str().unwrap());
    assert!(requested + 1 < oldest, "{reported_by}");

    let event = slow.next();
    assert_eq!((event.name, event.last_event_id), ("399".into(), newest));
    channel.broadcast(Event::message("next")).unwrap();
    assert_eq!(slow.next().data, "next");
    eventually("the gap is counted", || channel.stats().unwrap().gaps == 1);
    assert!(ends.try_recv().is_err(), "it stayed");
}

#[test]
fn a_silent_stream_is_kept_alive_by_heartbeats() {
    let options = ChannelOptions::new().heartbeat(Duration::from_millis(100));
    let (served, channel) = Served::channel(options);
    let mut client = served.subscribe("/stream");
    while client.pings() < 5 {
        assert!(client.read(64 << 10));
    }
    assert_eq!(client.arrived(), [], "a heartbeat is no event");
    channel.broadcast(Event::message("and on")).unwrap();
    assert_eq!(client.next().data, "and on");
}

#[test]
fn heartbeats_are_skipped_while_data_flows() {
    let interval = Duration::from_secs(1);
    let (served, channel) = Served::channel(ChannelOptions::new().heartbeat(interval));
    let mut client = served.subscribe("/stream");
    let begun = Instant::now();
    let mut pauses = 0;
    while begun.elapsed() < interval * 5 / 2 {
        let sent = Instant::now();
        channel.broadcast(Event::message("data")).unwrap();
        client.next();
        // A machine that is busy with something else may make a pause.
        pauses += usize::from(sent.elapsed() > interval / 2);
    }
    // One comment is there from the beginning.
    assert!(client.pings() <= 1 + pauses, "{}", client.pings());
}

#[test]
fn a_channel_has_no_heartbeats_when_they_are_turned_off() {
    // A channel with heartbeats beside it measures the time.
    let channels = ChannelManager::new();
    let silent = ChannelOptions::new().heartbeat(Duration::ZERO);
    let silent = channels.get_or_create_with("silent", || silent).unwrap();
    let lively = ChannelOptions::new().heartbeat(Duration::from_millis(70));
    let lively = channels.get_or_create_with("lively", || lively).unwrap();
    let stream = silent.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/silent", move |_| Subscription::new(&stream))
        .get("/lively", move |_| Subscription::new(&lively));
    let served = Served::start(builder);
    let mut quiet = served.subscribe("/silent");
    let mut clock = served.subscribe("/lively");
    while clock.pings() < 8 {
        assert!(clock.read(64 << 10));
    }
    silent.broadcast(Event::message("first")).unwrap();
    quiet.next();
    assert_eq!(quiet.pings(), 1);
}
