//! Streams that are compressed once for all clients that accept it.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;

use std::time::Duration;

use common::{Connection, Served, eventually, sse};
use pushwheel::{Channel, ChannelManager, ChannelOptions, Engine, Event, History, Subscription};

const GZIP: (&str, &str) = ("Accept-Encoding", "br, gzip;q=0.8");

fn compressing() -> (Served, Channel) {
    let options = ChannelOptions::new()
        .history(History::events(100))
        .compress_from(200);
    Served::channel(options)
}

/// Asks for the stream; answers its head and all of its bytes.
fn stream(served: &Served, headers: &[(&str, &str)]) -> (Head, Vec<u8>) {
    let mut connection = served.connect();
    let mut request = String::from("GET /stream HTTP/1.1\r\nHost: test\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    connection.send(request + "\r\n");
    let answer = connection.head();
    assert_eq!(answer.status, 200);
    let head = Head {
        encoding: answer.header("content-encoding").map(str::to_owned),
        vary: answer.header("vary").map(str::to_owned),
    };
    (head, connection.rest())
}

#[derive(Debug)]
struct Head {
    encoding: Option<String>,
    vary: Option<String>,
}

/// What a strict reader, such as Python's, makes of a whole compressed stream: it
/// has a last block, and its trailer is right.
#[track_caller]
fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let (header, rest) = bytes.split_at(10);
    assert_eq!(header, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
    let (blocks, trailer) = rest.split_at(rest.len() - 8);
    let data = miniz_oxide::inflate::decompress_to_vec(blocks).expect("there is a last block");
    let length = u32::try_from(data.len()).unwrap();
    assert_eq!(trailer[..4], crc32fast::hash(&data).to_le_bytes());
    assert_eq!(trailer[4..], length.to_le_bytes());
    data
}

fn events(bytes: &[u8]) -> Vec<(String, String, String)> {
    let events = sse::Parser::new().push(bytes);
    events
        .into_iter()
        .map(|event| (event.name, event.data, event.last_event_id))
        .collect()
}

#[test]
fn a_client_that_accepts_gzip_receives_the_same_events_in_fewer_bytes() {
    let (served, news) = compressing();
    let long = "the same thing again and again, ".repeat(300);
    news.broadcast(Event::new("small", "one")).unwrap();
    news.broadcast(Event::new("large", &*long)).unwrap();
    news.broadcast(Event::new("own", &*long).with_id("mine-1"))
        .unwrap();
    let all = ("Last-Event-ID", "nothing-of-ours");

    std::thread::scope(|threads| {
        let plain = threads.spawn(|| stream(&served, &[all]));
        let packed = threads.spawn(|| stream(&served, &[all, GZIP]));
        common::eventually("both are there", || news.client_count() == 2);
        // Live events too, to all and to some.
        news.broadcast(Event::new("live", &*long)).unwrap();
        let ids = news.client_ids();
        news.broadcast_to(
            |client| ids.contains(&client.id),
            Event::new("some", &*long),
        )
        .unwrap();
        news.finish(Some(Event::new("last", "end"))).unwrap();

        let (plain_head, plain) = plain.join().unwrap();
        let (packed_head, packed) = packed.join().unwrap();
        assert_eq!(plain_head.encoding, None);
        assert_eq!(plain_head.vary.as_deref(), Some("Accept-Encoding"));
        assert_eq!(packed_head.encoding.as_deref(), Some("gzip"));
        assert_eq!(events(&unpacked(&packed)), events(&plain));
        assert_eq!(events(&plain).len(), 7, "a gap, three kept, three live");
        assert!(
            packed.len() < plain.len() / 10,
            "{} of {}",
            packed.len(),
            plain.len()
        );
    });
}

#[test]
fn an_event_for_all_channels_is_compressed_where_the_channel_compresses() {
    let (served, news) = compressing();
    let plain = ChannelOptions::new().history(History::events(1));
    let plain = served.channels().get_or_create_with("plain", || plain);
    let long = "the same thing again and again, ".repeat(300);
    std::thread::scope(|threads| {
        let packed = threads.spawn(|| stream(&served, &[GZIP]));
        common::eventually("it is there", || news.client_count() == 1);
        let published = served.channels().broadcast_all(Event::message(&*long));
        assert_eq!(published.unwrap().clients, 1);
        news.finish(None).unwrap();
        let (head, packed) = packed.join().unwrap();
        assert_eq!(head.encoding.as_deref(), Some("gzip"));
        assert_eq!(events(&unpacked(&packed))[0].1, long);
        assert!(packed.len() < long.len() / 10);
    });
    let plain = plain.unwrap();
    let mut kept = plain.read(pushwheel::Start::Earliest);
    assert_eq!(kept.next().unwrap().unwrap().event.data(), long);
}

#[test]
fn a_client_that_refuses_gzip_gets_plain_bytes() {
    let (served, news) = compressing();
    let refusal = ("Accept-Encoding", "gzip;q=0, identity");
    std::thread::scope(|threads| {
        let client = threads.spawn(|| stream(&served, &[refusal]));
        common::eventually("it is there", || news.client_count() == 1);
        news.finish(Some(Event::new("last", "end"))).unwrap();
        let (head, bytes) = client.join().unwrap();
        assert_eq!(head.encoding, None);
        assert_eq!(events(&bytes).len(), 1);
    });
}

#[test]
fn nothing_is_compressed_unless_the_channel_says_so() {
    let (served, news) = Served::channel(ChannelOptions::new());
    std::thread::scope(|threads| {
        let client = threads.spawn(|| stream(&served, &[GZIP]));
        common::eventually("it is there", || news.client_count() == 1);
        news.finish(Some(Event::new("last", "x".repeat(1000))))
            .unwrap();
        let (head, bytes) = client.join().unwrap();
        assert_eq!((head.encoding, head.vary), (None, None));
        assert_eq!(events(&bytes).len(), 1);
    });
}

/// A channel that compresses everything, at `/stream`: with a welcome, heartbeats,
/// and, with `?expires`, credentials that run out.
fn lively() -> (Served, Channel) {
    let options = ChannelOptions::new()
        .history(History::events(100))
        .heartbeat(Duration::from_millis(70))
        .compress_from(1);
    let channels = ChannelManager::builder().defaults(options).build();
    let channel = channels.get_or_create("news").unwrap();
    let stream = channel.clone();
    let engine = Engine::builder()
        .channels(&channels)
        .get("/stream", move |request| {
            let subscription = Subscription::new(&stream).on_connect(|_, welcome| {
                welcome.send(Event::message("welcome")).unwrap();
            });
            match request.query("expires") {
                Some(_) => subscription.expires_in(Duration::from_millis(300)),
                None => subscription,
            }
        });
    (Served::start(engine), channel)
}

/// Asks for a compressed stream, and reads its head.
fn open(mut connection: Connection, query: &str, last_event_id: &str) -> Connection {
    connection.send(format!(
        "GET /stream{query} HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip\r\n\
         Cache-Control: no-cache\r\nLast-Event-ID: {last_event_id}\r\n\r\n"
    ));
    assert_eq!(connection.head().header("content-encoding"), Some("gzip"));
    connection
}

#[test]
fn a_compressed_stream_that_ends_cleanly_ends_its_gzip_stream() {
    type End = fn(&Served, &Channel);
    let ends: [(&str, &str, End); 6] = [
        ("finished", "", |_, news| {
            news.finish(Some(Event::message("last"))).unwrap();
        }),
        ("disconnected", "", |_, news| {
            for id in news.client_ids() {
                assert!(news.disconnect(&id));
            }
        }),
        ("closed", "", |_, news| assert_eq!(news.close(), 3)),
        ("expired", "?expires", |_, _| {}),
        ("shut down in a window", "", |served, _| {
            served.shutdown(pushwheel::Shutdown::within(Duration::from_secs(10)));
        }),
        ("shut down at once", "", |served, _| {
            served.shutdown(Duration::ZERO)
        }),
    ];
    for (end, query, end_all) in ends {
        let (served, news) = lively();
        let first = news
            .broadcast(Event::new("first", "1"))
            .unwrap()
            .id
            .unwrap()
            .to_string();
        news.broadcast(Event::message("kept, ".repeat(100)))
            .unwrap();
        // A new client, one with a replay, and one with a gap.
        let mut clients = ["", &first, "unknown"].map(|id| open(served.connect(), query, id));
        eventually("all are there", || news.client_count() == 3);
        news.broadcast(Event::new("live", "live, ".repeat(1_000)))
            .unwrap();
        let one = news.client_ids().remove(0);
        news.send(&one, Event::message("to one")).unwrap();
        // Heartbeats have come behind the events.
        let beat = b"\0\x06\0\xf9\xffping:\n";
        let begun = clients.each_mut().map(|client| {
            let mut bytes = client.bytes(1);
            while bytes
                .windows(beat.len())
                .filter(|part| part == beat)
                .count()
                < 3
            {
                bytes.extend(client.bytes(1));
            }
            bytes
        });
        end_all(&served, &news);
        for (client, begun) in clients.iter_mut().zip(begun) {
            let events = events(&unpacked(&[begun, client.rest()].concat()));
            let data = |wanted: &str| events.iter().any(|(_, data, _)| data.starts_with(wanted));
            assert!(data("live, live") && data("welcome"), "{end}: {events:?}");
        }
    }
}

#[test]
fn a_slow_reader_of_a_compressed_stream_gets_a_right_end_too() {
    let (served, news) = lively();
    let mut slow = open(Connection::very_narrow(served.address()), "", "");
    let mut random = fastrand::Rng::with_seed(5);
    let mut noise = || -> String { (0..50_000).map(|_| random.alphanumeric()).collect() };
    // More than the kernel takes, so that frames are torn.
    while news.clients().iter().all(|client| client.behind == 0) {
        news.broadcast(Event::message(noise())).unwrap();
    }
    news.finish(Some(Event::message("last"))).unwrap();
    let events = events(&unpacked(&slow.rest()));
    assert_eq!(events.last().unwrap().1, "last");
}
