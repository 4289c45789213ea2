//! Streams that are compressed once for all who take them.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;

use common::{Served, sse};
use pushwheel::{Channel, ChannelOptions, Event, History};

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

/// What a browser makes of the bytes of a compressed stream.
fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let (header, blocks) = bytes.split_at(10);
    assert_eq!(header, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
    // A stream is cut off, so a last, empty block is put behind it.
    let whole = [blocks, &[1, 0, 0, 0xff, 0xff]].concat();
    miniz_oxide::inflate::decompress_to_vec(&whole).unwrap()
}

fn events(bytes: &[u8]) -> Vec<(String, String, String)> {
    let events = sse::Parser::new().push(bytes);
    events
        .into_iter()
        .map(|event| (event.name, event.data, event.last_event_id))
        .collect()
}

#[test]
fn who_takes_gzip_is_sent_the_same_events_in_fewer_bytes() {
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
