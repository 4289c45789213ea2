//! Full channels, finished channels, and an engine that shuts down.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail, and a deadline needs a clock"
)]

mod common;

use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::{Connection, PATIENCE, Served, Subscriber, eventually, receive, sse, summaries};
use pushwheel::{
    ChannelError, ChannelManager, ChannelOptions, ClientId, Condition, DisconnectReason, Engine,
    EngineHandle, Event, History, PublishError, Response, Subscription,
};

const GET: &str = "GET /stream HTTP/1.1\r\nHost: test\r\n\r\n";

#[test]
fn a_full_channel_sends_a_browser_a_retry_and_others_a_retry_after() {
    let (served, channel) = Served::channel(ChannelOptions::new().max_clients(2));
    let first = served.subscribe("/stream");
    let _second = served.subscribe("/stream");

    // A browser gives up for good at any status but 200.
    let mut third = served.subscribe("/stream");
    third.expect_end();
    let retry = third.retry().unwrap();
    assert!((2_000..10_000).contains(&retry), "{retry}");
    let mut connection = served.connect();
    let answer = connection.get("/stream");
    assert_eq!(
        (answer.status, &*answer.error_code()),
        (503, "channel_full")
    );
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((2..=10).contains(&seconds));
    assert_eq!(channel.client_count(), 2);
    // To ask by HEAD is to hear the same, and takes no place.
    const HEAD: &str = "HEAD /stream HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut asking = served.connect();
    asking.send(HEAD);
    assert_eq!(asking.head().status, 503);

    drop(first);
    eventually("there is room", || channel.client_count() == 1);
    let mut asking = served.connect();
    asking.send(HEAD);
    let head = asking.head();
    assert_eq!((head.status, channel.client_count()), (200, 1));
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    connection.send(GET);
    let mut third = Subscriber::begun(connection);
    channel.broadcast(Event::message("welcome")).unwrap();
    assert_eq!(third.next().data, "welcome");
}

#[test]
fn clients_are_counted_listed_and_disconnected_by_conditions() {
    let channels = ChannelManager::new();
    let channel = channels.get_or_create("news").unwrap();
    let stream = channel.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream/{user}", move |request| {
            let user = request.param("user").unwrap();
            Subscription::new(&stream).metadata(serde_json::json!({"user": user}))
        });
    let served = Served::start(builder);
    let [mut first, mut second, mut other] =
        ["7", "7", "8"].map(|user| served.subscribe(&format!("/stream/{user}")));
    let (seven, not_seven) = (Condition::new("user", "7"), Condition::not("user", "7"));
    assert_eq!(channel.count_where(std::slice::from_ref(&seven)), 2);
    assert_eq!(channel.count_where(std::slice::from_ref(&not_seven)), 1);
    assert_eq!(channel.count_where(&[]), 3);
    let listed = channel.clients_where(&[not_seven]);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].metadata["user"], "8");
    assert_eq!(channel.disconnect_where(&[seven]), 2);
    first.expect_end();
    second.expect_end();
    assert_eq!(channel.client_count(), 1);
    channel.broadcast(Event::message("still here")).unwrap();
    assert_eq!(other.next().data, "still here");
}

#[test]
fn a_client_that_begins_at_a_position_misses_nothing_or_receives_a_gap() {
    let (served, channel) = Served::channel(ChannelOptions::new());
    let published = channel.broadcast(Event::message("in the state")).unwrap();
    assert_eq!(channel.stats().unwrap().newest, None, "there is no history");
    let position = channel.position();
    assert_eq!(Some(&position), published.id.as_ref());
    let mut client = served.resubscribe("/stream", &position.to_string());
    channel.broadcast(Event::message("after it")).unwrap();
    assert_eq!(client.next().data, "after it");
    let mut late = served.resubscribe("/stream", &position.to_string());
    assert_eq!(late.next().name, "pushwheel.gap");
}

#[test]
fn an_engine_is_not_joined_on_its_own_thread() {
    let (sender, running) = mpsc::channel::<pushwheel::RunningEngine>();
    let running = std::sync::Mutex::new(running);
    let builder = Engine::builder().get("/quit", move |_| {
        let running = receive(&running.lock().unwrap());
        running.shutdown(PATIENCE).unwrap_err().to_string()
    });
    let running = builder.bind("127.0.0.1:0").unwrap().spawn().unwrap();
    let address = running.local_addr();
    sender.send(running).unwrap();
    let answer = Connection::open(address).get("/quit");
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("own thread"), "{}", answer.text());
}

#[test]
fn a_client_that_comes_back_to_a_full_channel_gets_its_own_place() {
    let channels = ChannelManager::new();
    let one = ChannelOptions::new().max_clients(1);
    let channel = channels.get_or_create_with("news", || one).unwrap();
    let stream = channel.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", move |_| {
            Subscription::new(&stream).client_id(ClientId::new("ann").unwrap())
        });
    let served = Served::start(builder);
    let mut old = served.subscribe("/stream");
    let mut client = served.subscribe("/stream");
    old.expect_end();
    channel.broadcast(Event::message("hi")).unwrap();
    assert_eq!(client.next().data, "hi");
}

#[test]
fn a_finished_channel_sends_its_last_event_then_the_end_and_then_204() {
    let (served, channel) = Served::channel(ChannelOptions::new().history(History::events(10)));
    let mut clients: Vec<Subscriber> = (0..5).map(|_| served.subscribe("/stream")).collect();
    channel.broadcast(Event::message("one")).unwrap();
    assert_eq!(channel.finish(Some(Event::new("complete", "100"))), Ok(5));
    for client in &mut clients {
        assert_eq!(summaries(&client.rest()), ["one", "complete 100"]);
    }
    let last_id = clients[0].last_event_id().to_owned();
    for headers in ["", &format!("Last-Event-ID: {last_id}\r\n")] {
        let mut connection = served.connect();
        connection.send(format!(
            "GET /stream HTTP/1.1\r\nHost: test\r\n{headers}\r\n"
        ));
        let answer = connection.answer();
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("content-length"), None);
        // The connection is kept, as after any other response.
        assert_eq!(connection.get("/stream").status, 204);
        connection.send("HEAD /stream HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(connection.head().status, 204);
    }
    // The channel still has its name, and accepts no event.
    assert!(served.channels().has("news") && !channel.is_closed());
    let late = Event::message("late");
    assert_eq!(channel.broadcast(&late), Err(PublishError::Finished));
    assert_eq!(channel.send("ann", &late), Err(PublishError::Finished));
    assert_eq!(channel.finish(Some(late)), Err(PublishError::Finished));
}

#[test]
fn a_finished_channel_frees_its_name_after_a_while() {
    let options = ChannelOptions::new().finished_for(Duration::from_millis(20));
    let (served, channel) = Served::channel(options);
    let mut client = served.subscribe("/stream");
    assert_eq!(channel.finish(None), Ok(1));
    client.expect_end();
    let channels = served.channels();
    eventually("its name is free", || !channels.has("news"));
    assert!(channel.is_closed());
    let again = channels.get_or_create("news").unwrap();
    assert!(again.broadcast(Event::message("in the next one")).is_ok());
}

#[test]
fn a_client_cut_off_before_the_end_receives_the_rest_and_then_204() {
    let (served, channel) = Served::channel(ChannelOptions::new().history(History::events(10)));
    let mut client = served.subscribe("/stream");
    let seen = channel.broadcast(Event::message("50")).unwrap().id.unwrap();
    assert_eq!(summaries(&client.take(1)), ["50"]);
    drop(client);
    channel.broadcast(Event::message("90")).unwrap();
    channel.finish(Some(Event::new("complete", "100"))).unwrap();
    let mut again = served.resubscribe("/stream", &seen.to_string());
    assert_eq!(summaries(&again.rest()), ["90", "complete 100"]);
    let last_id = again.last_event_id().to_owned();
    let mut connection = served.connect();
    connection.send(format!(
        "GET /stream HTTP/1.1\r\nHost: test\r\nLast-Event-ID: {last_id}\r\n\r\n"
    ));
    assert_eq!(connection.answer().status, 204);
}

/// Comes back, as a browser does, until it is answered 204; answers what it was
/// sent until then.
fn come_back(served: &Served, path: &str, last_event_id: &str) -> Vec<String> {
    let mut last_event_id = last_event_id.to_owned();
    let mut events = Vec::new();
    for _ in 0..3 {
        let mut connection = served.connect();
        connection.send(format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nLast-Event-ID: {last_event_id}\r\n\r\n"
        ));
        let head = connection.head();
        if head.status == 204 {
            return events;
        }
        let mut client = Subscriber::begun_with(head, connection);
        events.extend(client.rest().into_iter().map(|event| event.name));
        if !client.last_event_id().is_empty() {
            last_event_id = client.last_event_id().to_owned();
        }
    }
    panic!("it comes back without end: {events:?}");
}

#[test]
fn a_client_with_all_its_events_of_a_finished_channel_stops_reconnecting() {
    let (served, channel) = Served::channel(ChannelOptions::new().history(History::events(3)));
    let publish = |name: &str| channel.broadcast(Event::new(name, "")).unwrap().id.unwrap();
    let first = publish("first").to_string();
    let all = publish("for all").to_string();
    channel.send("ann", Event::new("for ann", "")).unwrap();
    channel.finish(None).unwrap();
    assert_eq!(come_back(&served, "/stream", &all), [""; 0]);
    assert_eq!(come_back(&served, "/stream", &first), ["for all"]);
    let from_before = come_back(&served, "/stream", "another-1");
    assert_eq!(from_before, ["pushwheel.gap", "first", "for all"]);
}

#[test]
fn a_gap_is_sent_once_even_if_no_event_follows() {
    let channels = ChannelManager::new();
    let [a, b] = ["a", "b"].map(|name| channels.get_or_create(name).unwrap());
    let both = [a.clone(), b.clone()];
    let builder = Engine::builder()
        .channels(&channels)
        .get("/both", move |_| Subscription::new(&both[0]).and(&both[1]));
    let served = Served::start(builder);
    let id = served.subscribe("/both").wait_for_id();
    eventually("it has gone", || channels.total_clients() == 0);
    for channel in [&a, &b, &a] {
        channel.broadcast(Event::message("missed")).unwrap();
    }
    a.finish(None).unwrap();
    b.finish(None).unwrap();
    assert_eq!(come_back(&served, "/both", &id), ["pushwheel.gap"]);
}

#[test]
fn a_slow_client_of_a_finished_channel_is_sent_everything_before_the_end() {
    let (served, channel) = Served::channel(ChannelOptions::new().backlog_bytes_max(64 << 20));
    let narrow = Connection::narrow(served.address());
    let mut slow = Subscriber::over(narrow, "/stream", &[]);
    let data = "x".repeat(100_000);
    for _ in 0..200 {
        channel.broadcast(Event::message(&data)).unwrap();
    }
    channel.finish(Some(Event::message("last"))).unwrap();
    let all = slow.rest();
    assert_eq!(all.len(), 201);
    assert!(all[..200].iter().all(|event| event.data == data));
    assert_eq!(all[200].data, "last");
}

#[test]
fn a_stream_of_several_channels_ends_when_all_of_them_are_finished() {
    let channels = ChannelManager::new();
    let [a, b] = ["a", "b"].map(|name| channels.get_or_create(name).unwrap());
    let both = [a.clone(), b.clone()];
    let builder = Engine::builder()
        .channels(&channels)
        .get("/both", move |_| Subscription::new(&both[0]).and(&both[1]));
    let served = Served::start(builder);
    let mut client = served.subscribe("/both");
    a.finish(Some(Event::message("last of a"))).unwrap();
    b.broadcast(Event::message("b goes on")).unwrap();
    assert_eq!(summaries(&client.take(2)), ["last of a", "b goes on"]);
    let mut late = served.subscribe("/both");
    b.finish(Some(Event::message("last of b"))).unwrap();
    assert_eq!(summaries(&client.rest()), ["last of b"]);
    assert_eq!(summaries(&late.rest()), ["last of b"]);
    assert_eq!(served.connect().get("/both").status, 204);
}

#[test]
fn a_finished_channel_is_over_in_time_though_a_stream_of_others_has_it() {
    let channels = ChannelManager::builder()
        .defaults(ChannelOptions::new().finished_for(Duration::from_millis(50)))
        .build();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/both", |request| {
            let [job, news] = ["job", "news"].map(|name| request.channels().get_or_create(name));
            job.and_then(|job| Ok(Subscription::new(&job).and(&news?)))
        });
    let served = Served::start(builder);
    let [job, news, other] = ["job", "news", "other"].map(|n| channels.get_or_create(n).unwrap());
    let mut client = served.subscribe("/both");
    job.finish(Some(Event::message("done"))).unwrap();
    assert_eq!(summaries(&client.take(1)), ["done"]);
    // What goes with other channels is no loss to this stream.
    other.broadcast(Event::message("elsewhere")).unwrap();
    other.close();
    client.expect_end();
    assert!(job.is_closed() && !news.is_closed());

    let mut client = served.resubscribe("/both", client.last_event_id());
    let job = channels.get("job").unwrap();
    for channel in [&news, &job] {
        channel.broadcast(Event::message(channel.name())).unwrap();
    }
    assert_eq!(summaries(&client.take(2)), ["news", "job"]);
}

#[test]
fn a_client_that_reads_steadily_has_all_of_a_finished_channel_though_its_time_is_over() {
    let (sender, ended) = mpsc::channel();
    let options = ChannelOptions::new().finished_for(Duration::from_millis(50));
    let channels = ChannelManager::builder().defaults(options).build();
    let builder = Engine::builder()
        .channels(&channels)
        .send_buffer_bytes(16 << 10)
        .get("/{channel}", move |request| {
            let (name, sender) = (request.param("channel").unwrap(), sender.clone());
            let channel = request.channels().get_or_create(name)?;
            let tell = move |_: &_, reason| sender.send(reason).unwrap();
            Ok::<_, ChannelError>(Subscription::new(&channel).on_disconnect(tell))
        });
    let served = Served::start(builder);
    let job = channels.get_or_create("job").unwrap();
    let narrow = Connection::narrow(served.address());
    let mut slow = Subscriber::over(narrow, "/job", &[]);
    eventually("it has joined", || job.client_count() == 1);
    let last = "x".repeat(900_000);
    job.finish(Some(Event::message(&last))).unwrap();
    slow.read(1 << 14);
    eventually("its time is over", || job.is_closed());

    // The name is another channel's, while the client is still here.
    let next = channels.get_or_create("job").unwrap();
    assert_eq!((job.client_count(), next.client_count()), (1, 0));
    assert_eq!(job.broadcast(Event::message("")), Err(PublishError::Closed));
    next.broadcast(Event::message("of the next")).unwrap();
    assert_eq!(channels.names(), ["job".into()]);
    assert!(ended.try_recv().is_err());
    assert_eq!(summaries(&slow.rest()), [last]);
    assert_eq!(receive(&ended), DisconnectReason::Finished);
    eventually("it is removed", || job.stats().is_none());

    // Only events that it does not have are reported as missed.
    let mut back = served.resubscribe("/job", slow.last_event_id());
    next.broadcast(Event::message("and on")).unwrap();
    let events = back.take(2);
    assert_eq!(events[0].name, "pushwheel.gap");
    assert_eq!(events[1].data, "and on");
}

#[test]
fn an_unused_channel_is_removed() {
    let channels = ChannelManager::builder()
        .empty_after(Some(Duration::from_millis(50)))
        .build();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/{channel}", |request| {
            let name = request.param("channel").unwrap();
            request
                .channels()
                .get_or_create(name)
                .map(|c| Subscription::new(&c))
        });
    let served = Served::start(builder);
    let held = channels.get_or_create("held").unwrap();
    let history = || ChannelOptions::new().history(History::events(1));
    let kept = channels.get_or_create_with("kept", history).unwrap();
    kept.broadcast(Event::message("x")).unwrap();
    drop(kept);
    let short = || ChannelOptions::new().finished_for(Duration::from_millis(50));
    let finished = channels.get_or_create_with("finished", short).unwrap();
    finished.finish(None).unwrap();
    channels.get_or_create("passing").unwrap();
    let left = served.subscribe("/left");
    let mut busy = served.subscribe("/busy");
    drop(left);
    eventually("those that are over have gone", || {
        channels.names().len() == 3
    });
    let names = channels.names();
    assert_eq!(names, ["busy".into(), "held".into(), "kept".into()]);
    assert!(!held.is_closed() && finished.is_closed());
    channels
        .broadcast_all(Event::message("still there"))
        .unwrap();
    assert_eq!(busy.next().data, "still there");
    drop((busy, held));
    eventually("only a history is left", || channels.names().len() == 1);
    assert_eq!(
        channels.remove_empty(),
        1,
        "its history goes with a channel"
    );
}

#[test]
fn a_shutdown_delivers_all_events_and_sends_browsers_a_retry() {
    let (served, channel) = Served::channel(ChannelOptions::new());
    let mut clients: Vec<Subscriber> = (0..20).map(|_| served.subscribe("/stream")).collect();
    let mut idle = served.connect();
    assert_eq!(idle.get("/nothing").status, 404);
    let expected: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    for data in &expected {
        channel.broadcast(Event::message(data)).unwrap();
    }
    served.shutdown(PATIENCE);
    let mut retries = Vec::new();
    for client in &mut clients {
        assert_eq!(summaries(&client.rest()), expected);
        retries.push(client.retry().unwrap());
    }
    assert!(retries.iter().all(|ms| (2_000..10_000).contains(ms)));
    retries.dedup();
    assert!(retries.len() > 1, "not all at once");
    idle.expect_end();
    let address = served.address();
    served.join();
    assert!(TcpStream::connect(address).is_err(), "the port is closed");
    assert_eq!(channel.client_count(), 0);
}

#[test]
fn a_shutdown_answers_the_requests_under_way_and_sends_the_slow_everything() {
    let channels = ChannelManager::builder()
        .defaults(ChannelOptions::new().backlog_bytes_max(64 << 20))
        .build();
    let channel = channels.get_or_create("news").unwrap();
    let stream = channel.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", move |_| Response::subscribe(&stream));
    let (builder, responders) = common::deferring(builder);
    let served = Served::start(builder);
    let mut waiting = served.connect();
    waiting.send("GET /later HTTP/1.1\r\nHost: test\r\n\r\n");
    let responder = receive(&responders);
    let narrow = Connection::narrow(served.address());
    let mut slow = Subscriber::over(narrow, "/stream", &[]);
    slow.wait_for_id();
    let data = "x".repeat(100_000);
    for _ in 0..150 {
        channel.broadcast(Event::message(&data)).unwrap();
    }
    let mut idle = served.connect();

    assert!(!responder.is_draining());
    served.shutdown(PATIENCE);
    idle.expect_end();
    assert!(responder.is_draining());
    responder.respond("in time");
    let answer = waiting.answer();
    assert_eq!(answer.text(), "in time");
    assert_eq!(answer.header("connection"), Some("close"));
    waiting.expect_end();
    assert_eq!(slow.rest().len(), 150);
    served.join();
}

#[test]
fn a_shutdown_waits_no_longer_than_its_deadline() {
    let (served, channel) = Served::channel(ChannelOptions::new().backlog_bytes_max(64 << 20));
    let narrow = Connection::narrow(served.address());
    let mut stuck = Subscriber::over(narrow, "/stream", &[]);
    stuck.wait_for_id();
    let mut reading = served.subscribe("/stream");
    let data = "x".repeat(500_000);
    for _ in 0..20 {
        channel.broadcast(Event::message(&data)).unwrap();
    }
    let begun = Instant::now();
    let deadline = Duration::from_secs(5);
    served.shutdown(deadline);
    // What it reads is understood afterwards: the deadline leaves time for reading.
    let read = reading.connection().rest();
    served.join();
    assert_eq!(sse::Parser::new().push(&read).len(), 20);
    // It counts from the beginning of a turn, which may be before ours.
    assert!(begun.elapsed() > deadline / 2 && begun.elapsed() < PATIENCE);
    // What it had taken is whole, up to the last.
    let taken = stuck.rest();
    assert!(taken.len() < 20 && taken.iter().all(|event| event.data == data));
}

#[test]
fn an_engine_may_run_on_the_callers_thread() {
    let channels = ChannelManager::new();
    let engine = Engine::builder().channels(&channels).get("/", |_| "here");
    let engine = engine.bind("127.0.0.1:0").unwrap();
    let (address, handle) = (engine.local_addr(), engine.handle());
    assert_ne!(address.port(), 0);
    let client = thread::spawn(move || {
        let mut connection = Connection::open(address);
        assert_eq!(connection.get("/").text(), "here");
        handle.shutdown(PATIENCE);
        connection.expect_end();
    });
    engine.run().unwrap();
    client.join().unwrap();
}

#[test]
fn the_channels_of_one_engine_cannot_be_served_by_another() {
    let (served, channel) = Served::channel(ChannelOptions::new());
    let again = Engine::builder().channels(served.channels());
    let refused = again.bind("127.0.0.1:0").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ResourceBusy);
    assert!(refused.to_string().contains("another engine"), "{refused}");
    let taken = Engine::builder().bind(served.address()).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    let mut client = served.subscribe("/stream");
    channel.broadcast(Event::message("undisturbed")).unwrap();
    assert_eq!(client.next().data, "undisturbed");
}

#[test]
fn a_channel_is_open_then_finished_then_closed() {
    let news = ChannelManager::new().get_or_create("news").unwrap();
    assert!(!news.is_finished() && !news.is_closed());
    news.finish(None).unwrap();
    assert!(news.is_finished() && !news.is_closed());
    news.close();
    assert!(!news.is_finished() && news.is_closed());
}

#[test]
fn a_manager_is_served_again_after_its_engine_ended_and_clients_resume_without_a_gap() {
    let options = ChannelOptions::new().history(History::events(100));
    let channels = ChannelManager::builder().defaults(options).build();
    let channel = channels.get_or_create("news").unwrap();
    let serve = |threads: usize| {
        let stream = channel.clone();
        let builder = Engine::builder().threads(threads).channels(&channels);
        Served::start(builder.get("/stream", move |_| Subscription::new(&stream)))
    };
    let mut last_id = channel.position().to_string();
    let mut ended: Vec<EngineHandle> = Vec::new();
    let (mut published, mut received) = (Vec::new(), Vec::new());
    let publish = |published: &mut Vec<String>| {
        let data = published.len().to_string();
        let clients = channel.broadcast(Event::message(&data)).unwrap().clients;
        published.push(data);
        clients
    };
    for (round, threads) in (0..).zip([3, 1, 2]) {
        // An engine that was bound and never ran does not prevent the next one.
        let idle = Engine::builder().channels(&channels).bind("127.0.0.1:0");
        drop(idle.unwrap());
        publish(&mut published);
        let served = serve(threads);
        // A handle of an engine that has ended reaches no other engine.
        ended
            .iter()
            .for_each(|handle| handle.shutdown(Duration::ZERO));
        let mut client = served.resubscribe("/stream", &last_id);
        assert_eq!(publish(&mut published), 1);
        received.extend(client.take(published.len() - received.len()));
        let handle = served.handle();
        served.shutdown(PATIENCE);
        publish(&mut published);
        received.extend(client.rest());
        last_id = client.last_event_id().to_owned();
        served.join();
        assert_eq!(channel.client_count(), 0);
        let metrics = handle.metrics();
        assert_eq!(metrics.streams_opened, round + 1);
        assert_eq!((metrics.connections, metrics.clients), (0, 0));
        assert_eq!(metrics.connections_accepted, metrics.streams_opened);
        ended.push(handle);
    }
    let served = serve(1);
    let mut client = served.resubscribe("/stream", &last_id);
    publish(&mut published);
    received.extend(client.take(published.len() - received.len()));
    assert_eq!(summaries(&received), published);
}

#[test]
fn requests_in_the_accept_queue_are_answered_during_a_shutdown() {
    let (entered, is_in) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let channels = ChannelManager::new();
    let channel = channels.get_or_create("news").unwrap();
    let to = channel.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/block", move |_| {
            entered.send(()).unwrap();
            let _ = released.lock().unwrap().recv();
            "done"
        })
        .post("/", move |_| {
            to.broadcast(Event::message("taken"))
                .unwrap()
                .id
                .unwrap()
                .to_string()
        });
    let served = Served::start(builder);
    let mut blocking = served.connect();
    blocking.send("GET /block HTTP/1.1\r\nHost: test\r\n\r\n");
    receive(&is_in);
    // The engine's thread is busy, and accepts no connection meanwhile.
    let mut waiting: Vec<Connection> = (0..100).map(|_| served.connect()).collect();
    for connection in &mut waiting {
        connection.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
    }
    served.shutdown(PATIENCE);
    release.send(()).unwrap();
    assert_eq!(blocking.answer().text(), "done");
    for connection in &mut waiting {
        let answer = connection.answer();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("connection"), Some("close"));
        connection.expect_end();
    }
    served.join();
}
