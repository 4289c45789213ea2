//! Connections that the program serves itself, on the engine's port.

#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![cfg(unix)]

mod common;

use std::io::{Read, Write};
use std::sync::mpsc::{self, Receiver};

use common::{Connection, PATIENCE, Served, eventually, receive};
use pushwheel::{ChannelManager, Engine, EngineBuilder, Event, HandedOver, Response};

/// An engine that streams `/events` and answers `/hello`, and what it hands over.
fn engine(
    configure: impl FnOnce(EngineBuilder) -> EngineBuilder,
) -> (Served, Receiver<HandedOver>) {
    let channels = ChannelManager::new();
    let news = channels.get_or_create("news").unwrap();
    let (sender, connections) = mpsc::channel();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/events", move |_| Response::subscribe(&news))
        .get("/hello", |_| "hello")
        .post("/posted", |_| "posted")
        .hand_over(move |connection| sender.send(connection).unwrap());
    (Served::start(configure(builder)), connections)
}

/// Reads on from a connection that was handed over, up to `bytes` in all.
fn read_on(connection: &mut HandedOver, bytes: usize) -> String {
    connection.socket.set_nonblocking(false).unwrap();
    connection.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all = connection.read.clone();
    while all.len() < bytes {
        let mut some = vec![0; bytes - all.len()];
        let count = connection.socket.read(&mut some).unwrap();
        assert!(count > 0, "the rest comes");
        all.extend_from_slice(&some[..count]);
    }
    String::from_utf8(all).unwrap()
}

#[test]
fn a_request_that_no_route_takes_goes_to_the_program_as_it_was_sent() {
    let (engine, connections) = engine(|builder| builder);
    let requests = [
        "GET /page?x=1 HTTP/1.1\r\nHost: a\r\nOdd:   spaces \r\n\r\n",
        "\r\nDELETE /hello HTTP/1.1\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\nbegun",
    ];
    for request in requests {
        let mut client = engine.connect();
        client.send(request);
        let mut connection = receive(&connections);
        assert_eq!(read_on(&mut connection, request.len()), request);
        connection
            .socket
            .write_all(b"HTTP/1.1 204 None\r\n\r\n")
            .unwrap();
        assert_eq!(client.head().status, 204);
        assert_eq!(connection.peer, connection.client);
    }
    eventually("none counts", || engine.handle().connections() == 0);
}

#[test]
fn a_request_in_pieces_is_handed_over_whole() {
    let (engine, connections) = engine(|builder| builder);
    let request = "GET /page HTTP/1.1\r\nHost: a\r\n\r\n";
    for pieces in [1, 3, 10, 17, 18, 19, 25] {
        let mut client = engine.connect();
        let (first, rest) = request.split_at(pieces);
        client.send(first);
        // So that the first piece is read alone, another connection is answered behind it.
        assert_eq!(engine.connect().get("/hello").text(), "hello");
        client.send(rest);
        let mut connection = receive(&connections);
        assert_eq!(read_on(&mut connection, request.len()), request);
    }
}

#[test]
fn a_kept_connection_is_handed_over_behind_its_responses() {
    let (engine, connections) = engine(|builder| builder);
    let mut client = engine.connect();
    assert_eq!(client.get("/hello").text(), "hello");
    let page = "GET /page HTTP/1.1\r\nHost: a\r\n\r\n";
    let behind = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(format!("{behind}{behind}{page}{behind}"));
    let mut connection = receive(&connections);
    assert_eq!(
        read_on(&mut connection, page.len() + behind.len()),
        format!("{page}{behind}")
    );
    for _ in 0..2 {
        assert_eq!(client.answer().text(), "hello");
    }
    connection
        .socket
        .write_all(b"HTTP/1.1 204 None\r\n\r\n")
        .unwrap();
    assert_eq!(client.head().status, 204);
}

#[test]
fn what_a_route_takes_stays_with_the_engine() {
    let (engine, connections) = engine(|builder| builder);
    let mut stream = engine.subscribe("/events");
    let news = engine.channels().get("news").unwrap();
    news.broadcast(Event::message("x")).unwrap();
    assert_eq!(stream.next().data, "x");
    assert_eq!(engine.connect().get("/hello?a").text(), "hello");
    assert_eq!(engine.connect().post("/posted", "a body").text(), "posted");
    let mut client = engine.connect();
    client.send("OPTIONS /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status, 204);
    let mut client = engine.connect();
    client.send("HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().status, 200);
    let mut client = engine.connect();
    client.send("no request\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    drop(engine);
    assert!(connections.try_recv().is_err());
}

#[test]
fn a_full_engine_hands_nothing_over() {
    let (engine, connections) = engine(|builder| builder.connections_max(1));
    let _stream = engine.subscribe("/events");
    let answer = engine.connect().get("/page");
    assert_eq!((answer.status, &*answer.error_code()), (503, "server_full"));
    assert_eq!(engine.connect().get("/hello").text(), "hello");
    assert!(connections.try_recv().is_err());
}

#[test]
fn a_hook_that_panics_ends_only_its_connection() {
    let engine = Served::start(Engine::builder().get("/hello", |_| "hello").hand_over(|_| {
        panic!("a mistake of the program");
    }));
    let mut client = engine.connect();
    client.send("GET /page HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_end();
    assert_eq!(
        Connection::open(engine.address()).get("/hello").text(),
        "hello"
    );
}
