//! The client's address behind a proxy: the PROXY protocol and `X-Forwarded-For`, from
//! trusted and other peers.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::time::Duration;

use common::{Connection, Served, Subscriber};
use pushwheel::{
    ChannelManager, Engine, EngineBuilder, Network, Rejection, Response, Subscription,
};

const GET: &str = "GET /address HTTP/1.1\r\nHost: test\r\n\r\n";
const V1: &str = "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";
/// `V1`'s addresses in version 2, with three bytes more that say nothing.
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x12\xc0\0\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb\
                    \x04\0\x03abc";

fn networks(networks: &[&str]) -> Vec<Network> {
    networks
        .iter()
        .map(|network| network.parse().unwrap())
        .collect()
}

/// An engine that responds with the address of the client.
fn engine() -> EngineBuilder {
    Engine::builder()
        .get("/address", |request| {
            Response::text(request.client_address().to_string())
        })
        .get("/peer", |request| {
            Response::text(request.peer().ip().to_string())
        })
}

/// Behind a proxy on this machine that sends PROXY headers.
fn behind_proxy() -> Served {
    Served::start(engine().proxy_protocol(networks(&["127.0.0.0/8"])))
}

fn address(connection: &mut Connection) -> String {
    connection.answer().text().to_owned()
}

#[test]
fn a_proxy_sends_the_address_of_its_client() {
    let served = behind_proxy();
    for header in [V1.as_bytes(), V2] {
        let mut connection = served.connect();
        connection.send([header, GET.as_bytes(), GET.as_bytes()].concat());
        // It holds for all of the connection's requests.
        assert_eq!(address(&mut connection), "192.0.2.1:56324");
        assert_eq!(address(&mut connection), "192.0.2.1:56324");
        assert_eq!(connection.get("/address").text(), "192.0.2.1:56324");
        assert_eq!(connection.get("/peer").text(), "127.0.0.1");
    }
}

#[test]
fn a_header_may_come_byte_by_byte() {
    let served = behind_proxy();
    for header in [V1.as_bytes(), V2] {
        let mut connection = served.connect();
        for byte in [header, GET.as_bytes()].concat() {
            connection.send([byte]);
        }
        assert_eq!(address(&mut connection), "192.0.2.1:56324");
    }
}

#[test]
fn what_a_proxy_opens_for_itself_is_its_own() {
    let served = behind_proxy();
    for header in [&b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..], b"PROXY UNKNOWN\r\n"] {
        let mut connection = served.connect();
        connection.send([header, GET.as_bytes()].concat());
        assert!(address(&mut connection).starts_with("127.0.0.1:"));
    }
}

#[test]
fn a_trusted_proxy_without_its_header_is_refused_with_the_reason() {
    let served = behind_proxy();
    for header in ["", "PROXY TCP4 nonsense\r\n", "\r\n"] {
        let mut connection = served.connect();
        connection.send([header, GET].concat());
        let answer = connection.answer();
        assert_eq!(answer.status, 400, "{header:?}");
        assert_eq!(answer.error_code(), "proxy_header_invalid");
        assert!(answer.text().contains("send-proxy"));
        connection.expect_end();
    }
}

#[test]
fn a_stranger_cannot_claim_an_address() {
    let served = Served::start(
        engine()
            .proxy_protocol(networks(&["10.0.0.0/8"]))
            .trusted_proxies(networks(&["10.0.0.0/8"])),
    );
    for header in [V1.as_bytes(), V2] {
        let mut connection = served.connect();
        connection.send([header, GET.as_bytes()].concat());
        assert_eq!(connection.answer().status, 400);
        connection.expect_end();
    }
    let mut connection = served.connect();
    connection.send("GET /address HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n");
    assert!(address(&mut connection).starts_with("127.0.0.1:"));
}

#[test]
fn a_second_header_is_no_request() {
    let served = behind_proxy();
    let mut connection = served.connect();
    connection.send([V1, "PROXY TCP4 192.0.2.9 198.51.100.2 1 443\r\n", GET].concat());
    assert_eq!(connection.answer().error_code(), "request_line_invalid");
}

#[test]
fn a_malformed_request_is_reported_with_the_address_from_the_proxy() {
    let (sender, reported) = std::sync::mpsc::channel();
    let builder = engine()
        .proxy_protocol(networks(&["127.0.0.1"]))
        .on_refusal(move |rejection| {
            let Rejection {
                address,
                status,
                code,
                ..
            } = *rejection;
            sender.send((address, status, code)).unwrap();
        });
    let served = Served::start(builder);
    let mut connection = served.connect();
    connection.send([V1, "nonsense\r\n\r\n"].concat());
    assert_eq!(connection.answer().status, 400);
    let source = "192.0.2.1:56324".parse().unwrap();
    assert_eq!(
        common::receive(&reported),
        (source, 400, "request_line_invalid")
    );
}

#[test]
fn half_a_header_has_the_time_of_a_head() {
    let served = Served::start(
        engine()
            .proxy_protocol(networks(&["127.0.0.1"]))
            .head_timeout(Duration::from_millis(100)),
    );
    let mut connection = served.connect();
    connection.send("PROXY TCP4 192.0");
    assert_eq!(connection.answer().status, 408);
    connection.expect_end();
}

#[test]
fn the_rightmost_address_that_is_no_proxy_is_the_client() {
    let served = Served::start(engine().trusted_proxies(networks(&["127.0.0.1", "10.0.0.0/8"])));
    for (headers, client) in [
        ("X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1:0"),
        (
            "x-forwarded-for: 198.51.100.1, 192.0.2.1, 10.1.1.1\r\n",
            "192.0.2.1:0",
        ),
        (
            "X-Forwarded-For: 198.51.100.1\r\nA: b\r\nX-Forwarded-For: 192.0.2.1\r\n",
            "192.0.2.1:0",
        ),
        ("X-Forwarded-For: [2001:db8::1]:8\r\n", "[2001:db8::1]:8"),
    ] {
        let mut connection = served.connect();
        connection.send(format!(
            "GET /address HTTP/1.1\r\nHost: test\r\n{headers}\r\n"
        ));
        assert_eq!(address(&mut connection), client, "{headers}");
        // The next request is another client's, as proxies mix them.
        assert!(connection.get("/address").text().starts_with("127.0.0.1:"));
    }
}

#[test]
fn both_ways_add_up() {
    // A CDN, 203.0.113.0/24, before the proxy on this machine.
    let served = Served::start(
        engine()
            .proxy_protocol(networks(&["127.0.0.1"]))
            .trusted_proxies(networks(&["203.0.113.0/24"])),
    );
    for (source, client) in [("203.0.113.5", "192.0.2.1:0"), ("192.0.2.8", "192.0.2.8:7")] {
        let mut connection = served.connect();
        connection.send(format!(
            "PROXY TCP4 {source} 198.51.100.2 7 443\r\nGET /address HTTP/1.1\r\nHost: test\r\n\
             X-Forwarded-For: 192.0.2.1\r\n\r\n"
        ));
        assert_eq!(address(&mut connection), client);
    }
}

#[test]
fn a_subscriber_is_known_by_its_real_address() {
    let channels = ChannelManager::new();
    let news = channels.get_or_create("news").unwrap();
    let stream = news.clone();
    let served = Served::start(
        Engine::builder()
            .channels(&channels)
            .proxy_protocol(networks(&["127.0.0.1"]))
            .get("/stream", move |_| Subscription::new(&stream)),
    );
    let mut connection = served.connect();
    connection.send([V2, b"GET /stream HTTP/1.1\r\nHost: test\r\n\r\n"].concat());
    let _subscriber = Subscriber::begun(connection);
    let [id] = &*news.client_ids() else {
        panic!("one client");
    };
    let info = news.client(id).unwrap();
    assert_eq!(info.address, "192.0.2.1:56324".parse().unwrap());
}

/// An engine that streams one channel, with one connection for each address.
fn one_each() -> EngineBuilder {
    let channels = ChannelManager::new();
    let channel = channels.get_or_create("news").unwrap();
    Engine::builder()
        .channels(&channels)
        .get("/stream", move |_| Subscription::new(&channel))
        .connections_per_address_max(1)
}

#[test]
fn the_limit_for_an_address_is_that_of_the_one_that_a_proxy_names() {
    let proxies = networks(&["127.0.0.0/8"]);
    let served = Served::start(one_each().proxy_protocol(proxies));
    let ask = |client: &str| {
        let mut connection = served.connect();
        let header = format!("PROXY TCP4 {client} 198.51.100.2 56324 443\r\n");
        connection.send(header + "GET /stream HTTP/1.1\r\nHost: test\r\n\r\n");
        connection
    };
    let mut inside = [ask("192.0.2.1"), ask("192.0.2.2")];
    for connection in &mut inside {
        assert_eq!(connection.head().status, 200);
    }
    let refused = ask("192.0.2.1").answer();
    assert_eq!(
        (refused.status, &*refused.error_code()),
        (503, "address_full")
    );
    // Once it has gone, there is room for another from there.
    let [first, _second] = inside;
    drop(first);
    common::eventually("there is room again", || {
        let mut again = ask("192.0.2.1");
        again.head().status == 200
    });
}

#[test]
fn a_proxy_that_forwards_many_has_as_many_connections_as_it_needs() {
    let served = Served::start(one_each().trusted_proxies(networks(&["127.0.0.0/8"])));
    let streams: Vec<Subscriber> = (0..3).map(|_| served.subscribe("/stream")).collect();
    for stream in &streams {
        assert_eq!(stream.head.status, 200);
    }
}
