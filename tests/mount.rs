//! Streams without sockets, and a channel's events in the program itself.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use common::{Served, eventually, receive, sse};
use pushwheel::{
    Channel, ChannelManager, ChannelOptions, DisconnectReason, Engine, Event, GapReason, History,
    Mount, MountError, Mounted, MountedRequest, ReadError, Response, Shutdown, Start, Subscription,
};

fn channels(options: ChannelOptions) -> ChannelManager {
    let builder = ChannelManager::builder().defaults(options);
    builder.republish_window(Duration::ZERO).build()
}

fn keeping(events: usize) -> ChannelOptions {
    ChannelOptions::new().history(History::events(events))
}

fn publish(channel: &Channel, data: &str) {
    channel.broadcast(Event::message(data)).unwrap();
}

fn get(target: &str) -> MountedRequest {
    let request = MountedRequest::get(target, ([192, 0, 2, 1], 4000).into());
    request.header("Accept", "text/event-stream")
}

/// The data of the next events of a stream.
struct Stream {
    response: Mounted,
    parser: sse::Parser,
    events: std::collections::VecDeque<sse::Dispatched>,
}

impl Stream {
    fn of(response: Mounted) -> Stream {
        assert_eq!(response.status, 200);
        Stream {
            response,
            parser: sse::Parser::default(),
            events: std::collections::VecDeque::new(),
        }
    }

    /// Returns the data of the next event; `None` at the end.
    fn next(&mut self) -> Option<String> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event.data);
            }
            let bytes = self.response.body.next_bytes()?;
            self.events.extend(self.parser.push(&bytes));
        }
    }
}

fn subscribe(mount: &Mount, channel: &Channel) -> Stream {
    let answer = mount.respond(&get("/"), Response::subscribe(channel));
    Stream::of(answer.wait().unwrap())
}

/// A subscription whose end is reported.
fn watched(channel: &Channel) -> (Subscription, Receiver<DisconnectReason>) {
    let (sender, ends) = mpsc::channel();
    let subscription = Subscription::new(channel);
    let subscription = subscription.on_disconnect(move |_, reason| sender.send(reason).unwrap());
    (subscription, ends)
}

#[test]
fn a_mounted_stream_is_a_client_until_its_body_is_dropped() {
    let channels = channels(ChannelOptions::new());
    let news = channels.get_or_create("news").unwrap();
    let mount: Mount = Mount::new(&channels).unwrap();
    let (subscription, ends) = watched(&news);
    let response = mount.respond(&get("/"), subscription).wait().unwrap();
    let headers: Vec<&str> = response.headers.iter().map(|(name, _)| &**name).collect();
    assert_eq!(
        headers,
        [
            "Content-Type",
            "Cache-Control",
            "X-Accel-Buffering",
            "Last-Event-ID"
        ]
    );
    assert_eq!(news.client_count(), 1);
    let mut stream = Stream::of(response);
    for n in 0..100 {
        publish(&news, &n.to_string());
        assert_eq!(stream.next(), Some(n.to_string()));
    }
    assert_eq!(mount.handle().connections(), 1);
    drop(stream);
    assert_eq!(receive(&ends), DisconnectReason::Gone);
    assert!(ends.recv().is_err(), "it is called once");
    assert_eq!(news.client_count(), 0);
    eventually("the connection is forgotten", || {
        mount.handle().connections() == 0
    });
}

#[test]
fn a_future_that_is_dropped_leaves_no_client() {
    let channels = channels(ChannelOptions::new());
    let news = channels.get_or_create("news").unwrap();
    let mount: Mount = Mount::new(&channels).unwrap();
    let (subscription, ends) = watched(&news);
    drop(mount.respond(&get("/"), subscription));
    assert_eq!(receive(&ends), DisconnectReason::Gone);
}

#[test]
fn a_body_that_is_not_read_holds_little_and_its_client_stays_behind() {
    let options = keeping(10).lag_policy(pushwheel::LagPolicy::Skip);
    let channels = channels(options.backlog_bytes_max(1 << 20));
    let news = channels.get_or_create("news").unwrap();
    let mount: Mount = Mount::new(&channels).unwrap();
    let mut slow = subscribe(&mount, &news);
    let mut fast = subscribe(&mount, &news);
    let data = "x".repeat(10_000);
    for n in 0..500 {
        publish(&news, &format!("{n} {data}"));
        assert!(fast.next().unwrap().starts_with(&format!("{n} ")));
    }
    // The slow one was sent the first events, then a gap, then the last ones.
    let mut seen = Vec::new();
    while seen.last().map(String::as_str) != Some("499") {
        let data = slow.next().unwrap();
        let first = data.split(' ').next().unwrap();
        seen.push(first[..first.len().min(10)].to_owned());
    }
    assert_eq!(seen[0], "0");
    assert!(seen.iter().any(|data| data.starts_with('{')), "{seen:?}");
    assert!(seen.len() < 200, "{seen:?}");
}

#[test]
fn an_engine_and_mounts_serve_the_same_channel() {
    let channels = channels(ChannelOptions::new());
    let news = channels.get_or_create("news").unwrap();
    let first: Mount = Mount::new(&channels).unwrap();
    let stream = news.clone();
    let builder = Engine::builder().channels(&channels);
    let engine = Served::start(builder.get("/", move |_| Response::subscribe(&stream)));
    let second: Mount = Mount::new(&channels).unwrap();
    let mut mounted = [&first, &second].map(|mount| subscribe(mount, &news));
    let mut socket = engine.subscribe("/");
    eventually("all have joined", || news.client_count() == 3);
    publish(&news, "to all");
    assert_eq!(socket.next().data, "to all");
    for stream in &mut mounted {
        assert_eq!(stream.next().unwrap(), "to all");
    }
    // One ends, the others go on.
    drop(first);
    assert_eq!(mounted[0].next(), None);
    drop(engine);
    publish(&news, "to one");
    assert_eq!(mounted[1].next().unwrap(), "to one");
    assert_eq!(channels.stats().clients, 1);
}

#[test]
fn a_shutdown_delivers_and_ends_each_stream_with_a_delay_of_its_own() {
    let channels = channels(ChannelOptions::new());
    let news = channels.get_or_create("news").unwrap();
    let mount: Mount = Mount::new(&channels).unwrap();
    let streams: Vec<Stream> = (0..100).map(|_| subscribe(&mount, &news)).collect();
    publish(&news, "last");
    mount.shutdown(Shutdown::within(common::PATIENCE));
    let mut delays: Vec<u64> = Vec::new();
    for mut stream in streams {
        assert_eq!(stream.next().as_deref(), Some("last"));
        assert_eq!(stream.next(), None);
        delays.extend(stream.parser.retry());
    }
    assert_eq!(delays.len(), 100);
    delays.sort_unstable();
    delays.dedup();
    assert!(delays.len() > 50, "{delays:?}");
    eventually("it ends", || {
        let answer = mount.respond(&get("/"), Response::subscribe(&news)).wait();
        matches!(answer, Err(MountError::Ended))
    });
}

#[test]
fn a_mount_without_handles_ends_its_streams() {
    let channels = channels(ChannelOptions::new());
    let news = channels.get_or_create("news").unwrap();
    let mount: Mount = Mount::new(&channels).unwrap();
    let mut stream = subscribe(&mount, &news);
    drop(mount);
    assert_eq!(stream.next(), None);
    eventually("its client has left", || news.client_count() == 0);
}

#[test]
fn a_client_for_which_there_is_no_room_is_told_when_to_come_back() {
    let channels = channels(ChannelOptions::new().max_clients(1));
    let news = channels.get_or_create("news").unwrap();
    let mount: Mount = Mount::new(&channels).unwrap();
    let _first = subscribe(&mount, &news);
    let mut browser = subscribe(&mount, &news);
    assert_eq!(browser.next(), None);
    assert!(browser.parser.retry().is_some());
    let other = MountedRequest::get("/", ([192, 0, 2, 1], 4000).into());
    let answer = mount
        .respond(&other, Response::subscribe(&news))
        .wait()
        .unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.headers.iter().any(|(name, _)| name == "Retry-After"));
}

#[test]
fn a_finished_channel_ends_its_streams_and_is_not_asked_for_again() {
    let channels = channels(keeping(10).finished_for(Duration::from_secs(60)));
    let news = channels.get_or_create("news").unwrap();
    let mount: Mount = Mount::new(&channels).unwrap();
    let mut stream = subscribe(&mount, &news);
    let id = news.broadcast(Event::message("all")).unwrap().id.unwrap();
    news.finish(None).unwrap();
    assert_eq!(stream.next().as_deref(), Some("all"));
    assert_eq!(stream.next(), None);
    let again = get("/").header("Last-Event-ID", id.to_string());
    let answer = mount.respond(&again, Response::subscribe(&news)).wait();
    assert_eq!(answer.unwrap().status, 204);
}

#[test]
fn a_mount_has_routes_too() {
    let channels = channels(ChannelOptions::new());
    let builder = Engine::builder().channels(&channels);
    let builder = builder.post("/echo", |request: &pushwheel::Request| {
        Response::text(request.text().unwrap().to_owned())
    });
    let builder = builder.header("X-Served-By", "a mount");
    let mount: Mount = builder.mount().unwrap();
    let peer = ([192, 0, 2, 1], 4000).into();
    let request = MountedRequest::new("POST", "/echo", peer).body("hello");
    let mut answer = mount.call(&request).wait().unwrap();
    assert_eq!(answer.status, 200);
    let header = answer
        .headers
        .iter()
        .find(|(name, _)| name == "X-Served-By");
    assert_eq!(header.unwrap().1, "a mount");
    assert_eq!(&*answer.body.next_bytes().unwrap(), b"hello");
    assert_eq!(answer.body.next_bytes(), None);
    assert!(answer.body.is_end());
    let missing = mount.call(&get("/missing")).wait().unwrap();
    assert_eq!(missing.status, 404);
    let invalid = mount.call(&get("/ /")).wait();
    assert!(matches!(invalid, Err(MountError::Invalid(_))));
}

// ---- events in the program ----

/// The data of events, and the reasons of gaps in brackets.
fn shown(item: Result<pushwheel::LiveEvent, ReadError>) -> String {
    match item {
        Ok(live) => live.event.data().to_owned(),
        Err(ReadError::Gap(gap)) => format!("[{}]", gap.reason),
        Err(error) => format!("[{error}]"),
    }
}

#[test]
fn a_program_reads_its_own_channel_until_it_is_finished() {
    let channels = channels(keeping(100));
    let news = channels.get_or_create("news").unwrap();
    publish(&news, "before");
    let live = news.events(Start::Live).unwrap();
    let mut all = news.events(Start::Earliest).unwrap();
    assert_eq!(news.client_count(), 2);
    let publisher = news.clone();
    let thread = thread::spawn(move || {
        for n in 0..1_000 {
            publish(&publisher, &n.to_string());
        }
        publisher
            .finish(Some(Event::new("end", "two\nlines")))
            .unwrap();
    });
    let first = all.next().unwrap().unwrap();
    assert_eq!(first.event.data(), "before");
    let expected: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    let expected: Vec<String> = expected.into_iter().chain(["two\nlines".into()]).collect();
    assert_eq!(live.map(shown).collect::<Vec<_>>(), expected);
    assert_eq!(all.map(shown).collect::<Vec<_>>(), expected);
    thread.join().unwrap();
    // Where one has ended, the next one begins.
    let rest = news.events(Start::After(first.id.to_string())).unwrap();
    let rest: Vec<String> = rest.map(shown).collect();
    assert_eq!(
        (rest.len(), &*rest[0], &*rest[1]),
        (101, "[evicted]", "901")
    );
}

#[test]
fn missing_events_are_items_and_reading_goes_on_behind_them() {
    let channels = channels(keeping(3));
    let news = channels.get_or_create("news").unwrap();
    for n in 0..10 {
        publish(&news, &n.to_string());
    }
    let mut events = news.events(Start::Earliest).unwrap();
    let Some(Err(ReadError::Gap(gap))) = events.next() else {
        panic!("events are missing");
    };
    assert_eq!(gap.reason, GapReason::Evicted);
    assert_eq!(gap.newest, news.position());
    assert_eq!(gap.requested.as_deref(), Some("earliest"));
    let rest: Vec<String> = events.by_ref().take(3).map(shown).collect();
    assert_eq!(rest, ["7", "8", "9"]);
    news.close();
    assert_eq!(events.next(), Some(Err(ReadError::Closed)));
    assert_eq!((events.next(), events.next()), (None, None));
}

#[test]
fn a_slow_reader_in_the_program_falls_behind_and_comes_back_with_a_gap() {
    let options = keeping(3).backlog_bytes_max(100_000);
    let channels = channels(options.lag_policy(pushwheel::LagPolicy::Disconnect));
    let news = channels.get_or_create("news").unwrap();
    let mut events = news.events(Start::Live).unwrap();
    let data = "x".repeat(10_000);
    publish(&news, "first");
    assert_eq!(shown(events.next().unwrap()), "first");
    for n in 0..100 {
        publish(&news, &format!("{n} {data}"));
    }
    let mut seen: Vec<String> = Vec::new();
    while seen.last().map(String::as_str) != Some("99") {
        let item = shown(events.next().unwrap());
        seen.push(item.split(' ').next().unwrap().to_owned());
    }
    assert_eq!(
        seen.iter().filter(|item| *item == "[evicted]").count(),
        1,
        "{seen:?}"
    );
    publish(&news, "next");
    assert_eq!(shown(events.next().unwrap()), "next");
}

#[test]
fn a_channel_that_is_full_has_no_room_for_a_reader_in_the_program() {
    let channels = channels(ChannelOptions::new().max_clients(1));
    let news = channels.get_or_create("news").unwrap();
    let first = news.events(Start::Live).unwrap();
    let mut second = news.events(Start::Live).unwrap();
    assert_eq!(second.next(), Some(Err(ReadError::Full)));
    assert_eq!(second.next(), None);
    drop(first);
    eventually("it has left", || news.client_count() == 0);
}

#[test]
fn a_reader_on_another_thread_is_woken() {
    let channels = channels(ChannelOptions::new());
    let news = channels.get_or_create("news").unwrap();
    let events = news.events(Start::Live).unwrap();
    let (sender, received) = mpsc::channel();
    let thread = thread::spawn(move || {
        for event in events {
            sender.send(shown(event)).unwrap();
        }
    });
    for n in 0..10 {
        publish(&news, &n.to_string());
        assert_eq!(receive(&received), n.to_string());
    }
    news.finish(None).unwrap();
    thread.join().unwrap();
}
