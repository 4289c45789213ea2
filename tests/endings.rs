//! How streams end by time: credentials that run out, age, and a shutdown
//! with its delay and window.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail, and an age needs a clock"
)]

mod common;

use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use common::{Connection, PATIENCE, Served, Subscriber, eventually, receive, sse, summaries};
use pushwheel::{
    Channel, ChannelManager, ChannelOptions, ClientInfo, DisconnectReason, Engine, EngineBuilder,
    Event, History, Response, Shutdown, Subscription,
};
use serde_json::json;

const RETRY_MS: std::ops::Range<u64> = 2_000..10_000;

/// A client that has gone: when it connected, and when and why it ended.
type Gone = (ClientInfo, Instant, Instant, DisconnectReason);

/// Channels that keep a history, and an engine that serves them as `/NAME`,
/// several as `/NAME+NAME`; with `?expires=MS`, with credentials that run out.
fn engine(
    names: &[&str],
    options: ChannelOptions,
) -> (EngineBuilder, Vec<Channel>, Receiver<Gone>) {
    let channels = ChannelManager::builder().defaults(options).build();
    let made = names
        .iter()
        .map(|name| channels.get_or_create(name).unwrap());
    let made: Vec<Channel> = made.collect();
    let (sender, gone) = mpsc::channel();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/{names}", move |request| {
            let names = request.param("names").unwrap().split('+');
            let mut named = names.map(|name| request.channels().get(name).unwrap());
            let first = Subscription::new(&named.next().unwrap());
            let mut subscription = named.fold(first, |all, one| all.and(&one));
            if let Some(ms) = request.query("expires") {
                let time = Duration::from_millis(ms.parse().unwrap());
                subscription = subscription.expires_in(time);
            }
            let number = request.query("n").map(std::borrow::Cow::into_owned);
            let (sender, came) = (sender.clone(), Instant::now());
            subscription
                .metadata(json!(number))
                .on_disconnect(move |client, reason| {
                    // A test that is over takes no more.
                    let _ = sender.send((client.clone(), came, Instant::now(), reason));
                })
        });
    (builder, made, gone)
}

fn history() -> ChannelOptions {
    ChannelOptions::new().history(History::events(1_000))
}

fn publish(channel: &Channel, data: &str) -> String {
    let published = channel.broadcast(Event::message(data)).unwrap();
    published.id.unwrap().to_string()
}

/// Reads to the end, which has to be that of credentials that ran out;
/// answers what came before it.
#[track_caller]
fn until_reauth(stream: &mut Subscriber) -> Vec<String> {
    let mut events = stream.rest();
    let last = events.pop().expect("at least its end");
    assert_eq!(last.name, "pushwheel.reauth");
    assert_eq!(last.data, r#"{"reason":"expired"}"#);
    assert_eq!(last.last_event_id, stream.last_event_id());
    assert!(RETRY_MS.contains(&stream.retry().unwrap()));
    summaries(&events)
}

#[test]
fn credentials_that_run_out_end_a_stream_and_nothing_is_missed_with_others() {
    let (builder, channels, gone) = engine(&["a", "b"], history());
    let served = Served::start(builder);
    for path in ["/a", "/a+b"] {
        let mut stream = served.subscribe(&format!("{path}?expires=3000"));
        let begun = stream.wait_for_id();
        let seen = publish(&channels[0], "seen");
        assert_eq!(until_reauth(&mut stream), ["seen"]);
        let (_, came, went, reason) = receive(&gone);
        assert_eq!(reason, DisconnectReason::Expired);
        assert!(went - came >= Duration::from_secs(3));
        assert_eq!(stream.last_event_id(), seen);
        assert_ne!(begun, seen);

        let missed = publish(&channels[0], "missed");
        let mut again = served.resubscribe(path, &seen);
        publish(&channels[0], "live");
        assert_eq!(summaries(&again.take(2)), ["missed", "live"]);
        assert_ne!(again.last_event_id(), missed);
        drop(again);
        assert_eq!(receive(&gone).3, DisconnectReason::Gone);
    }
    // A client without an event keeps the id with which its stream began.
    let mut stream = served.subscribe("/a?expires=1");
    let begun = stream.wait_for_id();
    assert_eq!(until_reauth(&mut stream), [""; 0]);
    assert_eq!(stream.last_event_id(), begun);
    assert!(
        gone.try_iter()
            .all(|gone| gone.3 == DisconnectReason::Expired)
    );
}

#[test]
fn a_compressed_stream_ends_with_an_event_that_can_be_read() {
    let (builder, channels, _gone) = engine(&["a"], history().compress_from(1));
    let served = Served::start(builder);
    let mut connection = served.connect();
    let request = "GET /a?expires=3000 HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip\r\n\r\n";
    connection.send(request);
    assert_eq!(connection.head().header("content-encoding"), Some("gzip"));
    publish(&channels[0], &"x".repeat(1_000));
    let bytes = connection.rest();
    // A stream is cut off, so a last, empty block is put behind it.
    let whole = [&bytes[10..], &[1, 0, 0, 0xff, 0xff]].concat();
    let text = miniz_oxide::inflate::decompress_to_vec(&whole).unwrap();
    let events = sse::Parser::new().push(&text);
    let names: Vec<&str> = events.iter().map(|event| &*event.name).collect();
    assert_eq!(names, ["message", "pushwheel.reauth"]);
}

#[test]
fn a_slow_client_with_expired_credentials_receives_its_backlog_and_nothing_newer() {
    let options = ChannelOptions::new().backlog_bytes_max(64 << 20);
    let (builder, channels, gone) = engine(&["a"], options);
    let served = Served::start(builder);
    let narrow = Connection::narrow(served.address());
    let mut slow = Subscriber::over(narrow, "/a?expires=6000&n=slow", &[]);
    slow.wait_for_id();
    let mut quick = served.subscribe("/a?expires=8000&n=quick");
    quick.wait_for_id();
    let data = "x".repeat(100_000);
    for _ in 0..100 {
        publish(&channels[0], &data);
    }
    // It ends later than the slow one's time, so that time is over then.
    assert_eq!(until_reauth(&mut quick).len(), 100);
    assert_eq!(channels[0].client_count(), 1);
    publish(&channels[0], "after its time");
    let rest = until_reauth(&mut slow);
    assert_eq!(rest.len(), 100);
    assert!(rest.iter().all(|event| *event == data));
    for _ in 0..2 {
        assert_eq!(receive(&gone).3, DisconnectReason::Expired);
    }
}

#[test]
fn a_stalled_client_with_expired_credentials_is_disconnected() {
    let options = ChannelOptions::new().backlog_bytes_max(64 << 20);
    let (builder, channels, gone) = engine(&["a"], options);
    let served = Served::start(builder.stall_timeout(Duration::from_secs(1)));
    let narrow = Connection::narrow(served.address());
    let mut stuck = Subscriber::over(narrow, "/a?expires=600", &[]);
    stuck.wait_for_id();
    let data = "x".repeat(500_000);
    for _ in 0..40 {
        publish(&channels[0], &data);
    }
    let (_, came, went, reason) = receive(&gone);
    let reasons = [DisconnectReason::Stalled, DisconnectReason::Expired];
    assert!(reasons.contains(&reason), "{reason}");
    assert!(went - came >= Duration::from_millis(600));
    assert_eq!(channels[0].client_count(), 0);
}

#[test]
fn streams_grow_old_each_at_an_age_of_its_own_and_resume() {
    const AGE: Duration = Duration::from_secs(4);
    const CLIENTS: usize = 40;
    let (builder, channels, gone) = engine(&["a"], history());
    let (sender, sinks) = mpsc::channel();
    let builder = builder.stream_age_max(AGE).get("/own/sink", move |_| {
        let sender = sender.clone();
        Response::stream(move |sink| sender.send(sink).unwrap())
    });
    let served = Served::start(builder);
    let mut own = served.subscribe("/own/sink");
    let sink = receive(&sinks);
    let mut streams: Vec<Subscriber> = (0..CLIENTS).map(|_| served.subscribe("/a")).collect();
    for stream in &mut streams {
        stream.wait_for_id();
    }
    let seen = publish(&channels[0], "seen");
    let gone: Vec<Gone> = (0..CLIENTS).map(|_| receive(&gone)).collect();
    for (_, came, went, reason) in &gone {
        assert_eq!(*reason, DisconnectReason::Aged);
        assert!(*went - *came >= AGE / 4 * 3);
    }
    let ages = gone.iter().map(|(_, came, went, _)| *went - *came);
    let (least, most) = (ages.clone().min().unwrap(), ages.max().unwrap());
    assert!(most - least >= Duration::from_millis(64), "not all at once");
    let mut retries = Vec::new();
    for stream in &mut streams {
        assert_eq!(summaries(&stream.rest()), ["seen"]);
        retries.push(stream.retry().unwrap());
    }
    assert!(retries.iter().all(|ms| RETRY_MS.contains(ms)));
    retries.sort_unstable();
    retries.dedup();
    assert!(retries.len() > CLIENTS / 2, "each its own: {retries:?}");

    publish(&channels[0], "missed");
    assert_eq!(
        summaries(&served.resubscribe("/a", &seen).take(1)),
        ["missed"]
    );
    // A stream for one client is its sink's affair.
    sink.send(Event::message("as old as it likes")).unwrap();
    assert_eq!(summaries(&own.take(1)), ["as old as it likes"]);
}

#[test]
fn during_the_delay_of_a_shutdown_only_health_checks_see_it() {
    let (builder, channels, _gone) = engine(&["a"], history());
    let builder = builder.get("/is/draining", |request| match request.is_draining() {
        true => "yes",
        false => "no",
    });
    let served = Served::start(builder);
    let mut before = served.subscribe("/a");
    before.wait_for_id();
    assert_eq!(served.connect().get("/is/draining").text(), "no");
    let delay = Duration::from_secs(6);
    let begun = Instant::now();
    served.shutdown(Shutdown::within(PATIENCE).delay(delay));
    eventually("a new connection gets the answer", || {
        served.connect().get("/is/draining").text() == "yes"
    });
    let mut during = served.subscribe("/a");
    during.wait_for_id();
    publish(&channels[0], "as ever");
    for stream in [&mut before, &mut during] {
        assert_eq!(summaries(&stream.rest()), ["as ever"]);
        assert!(RETRY_MS.contains(&stream.retry().unwrap()));
    }
    // It counts from the beginning of a turn, which may be before ours.
    assert!(begun.elapsed() > delay / 2);
    let address = served.address();
    served.join();
    assert!(TcpStream::connect(address).is_err(), "the port is closed");
}

#[test]
fn in_a_shutdown_streams_end_in_random_order_over_the_window() {
    const CLIENTS: usize = 60;
    let (builder, channels, gone) = engine(&["a"], history());
    let served = Served::start(builder);
    let paths = (0..CLIENTS).map(|n| format!("/a?n={n}"));
    let mut streams: Vec<Subscriber> = paths.map(|path| served.subscribe(&path)).collect();
    for stream in &mut streams {
        stream.wait_for_id();
    }
    publish(&channels[0], "before");
    let window = Duration::from_secs(6);
    served.shutdown(Shutdown::within(PATIENCE).window(window));
    let mut ends: Vec<Gone> = (0..CLIENTS / 4).map(|_| receive(&gone)).collect();
    publish(&channels[0], "during");
    while ends.len() < CLIENTS {
        ends.push(receive(&gone));
    }
    assert!(ends.iter().all(|end| end.3 == DisconnectReason::Shutdown));
    let spread = ends[CLIENTS - 1].2 - ends[0].2;
    assert!(spread >= window / 8 && spread < PATIENCE, "{spread:?}");
    let number = |end: &Gone| end.0.metadata.as_str().unwrap().parse::<usize>().unwrap();
    let order: Vec<usize> = ends.iter().map(number).collect();
    let rises = order.windows(2).filter(|two| two[0] < two[1]).count();
    assert!((1..CLIENTS - 1).contains(&rises), "in a row: {order:?}");

    let mut got_both = 0;
    for stream in &mut streams {
        let events = summaries(&stream.rest());
        assert_eq!(events[0], "before");
        match &events[1..] {
            [] => {}
            [during] => {
                assert_eq!(during, "during");
                got_both += 1;
            }
            more => panic!("{more:?}"),
        }
        assert!(RETRY_MS.contains(&stream.retry().unwrap()));
    }
    // The clients that were still connected a moment later: many, so early in the window.
    assert!(
        (1..=CLIENTS - CLIENTS / 4).contains(&got_both),
        "{got_both}"
    );
    served.join();
}

#[test]
fn a_second_shutdown_makes_the_end_sooner_and_never_later() {
    let (builder, _, gone) = engine(&["a"], history());
    let served = Served::start(builder);
    let mut stream = served.subscribe("/a");
    stream.wait_for_id();
    let hour = Duration::from_secs(3_600);
    served.shutdown(Shutdown::within(hour).delay(hour));
    served.shutdown(Duration::ZERO);
    served.shutdown(Shutdown::within(hour).delay(hour));
    assert_eq!(receive(&gone).3, DisconnectReason::Shutdown);
    assert_eq!(stream.rest(), []);
    served.join();
}

#[test]
fn a_second_shutdown_ends_streams_sooner_that_the_first_has_given_their_moments() {
    let (builder, _, gone) = engine(&["a"], history());
    let served = Served::start(builder);
    let mut streams: Vec<Subscriber> = (0..5).map(|_| served.subscribe("/a")).collect();
    for stream in &mut streams {
        stream.wait_for_id();
    }
    let mut idle = served.connect();
    assert_eq!(idle.get("/no/where").status, 404);
    let hour = Duration::from_secs(3_600);
    served.shutdown(Shutdown::within(hour).window(hour));
    // With it, all have received the retry when they end.
    idle.expect_end();
    served.shutdown(hour);
    for stream in &mut streams {
        assert_eq!(receive(&gone).3, DisconnectReason::Shutdown);
        assert_eq!(stream.rest(), []);
        assert!(RETRY_MS.contains(&stream.retry().unwrap()));
    }
    served.join();
}
