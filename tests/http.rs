//! HTTP/1.1 on a socket: requests in any pieces, responses in order, and errors that
//! affect only their own connection.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::error::Error;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::{Connection, Served, Subscriber, eventually, receive};
use pushwheel::{
    Engine, EngineBuilder, Event, Limits, Method, Request, Responder, Response, Version,
};
use serde_json::{Value, json};

/// Routes that tell what they were asked.
fn echo() -> EngineBuilder {
    Engine::builder()
        .get("/hello", |_| "hello")
        .get("/rooms/{room}", |request| {
            let query: Vec<_> = request.query_pairs().collect();
            let version = match request.version() {
                Version::Http10 => "1.0",
                _ => "1.1",
            };
            Response::json(&json!({
                "room": request.param("room"),
                "query": query,
                "version": version,
                "header": request.header("x-test"),
            }))
        })
        .post("/echo", |request| Response::bytes(request.body().to_vec()))
        .delete("/rooms/{room}", |_| Response::status(204))
        .get("/panic", |_| -> Response { panic!("as a test wants it") })
}

fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

#[test]
fn a_connection_is_kept_for_request_after_request() {
    let served = Served::start(echo());
    let mut connection = served.connect();
    for n in 0..50 {
        let answer = connection.get("/hello");
        assert_eq!((answer.status, answer.text()), (200, "hello"));
        assert!(answer.header("date").is_some());
        let body = format!("body {n}");
        assert_eq!(connection.post("/echo", &body).text(), body);
    }
    connection.send("GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let answer = connection.answer();
    assert_eq!(answer.header("connection"), Some("close"));
    connection.expect_end();
}

#[test]
fn requests_in_one_piece_are_answered_one_after_another() {
    let served = Served::start(echo());
    let mut connection = served.connect();
    let requests: String = (0..2_000)
        .map(|n| format!("GET /rooms/{n} HTTP/1.1\r\nHost: test\r\n\r\n"))
        .collect();
    let mut writer = connection.writer();
    let sending = thread::spawn(move || writer.write_all(requests.as_bytes()).unwrap());
    for n in 0..2_000 {
        let answer = connection.answer();
        assert_eq!(json(&answer.body)["room"], n.to_string());
    }
    sending.join().unwrap();
    assert_eq!(connection.get("/hello").text(), "hello");
}

#[test]
fn a_client_that_asks_much_and_reads_nothing_is_not_answered_without_end() {
    let large = "x".repeat(1 << 20);
    let asked = Arc::new(Mutex::new(0));
    let count = asked.clone();
    let builder =
        Engine::builder()
            .stall_timeout(Duration::from_secs(2))
            .get("/large", move |_| {
                *count.lock().unwrap() += 1;
                large.clone()
            });
    let served = Served::start(builder);
    let mut greedy = Connection::narrow(served.address());
    let request = "GET /large HTTP/1.1\r\nHost: test\r\n\r\n";
    greedy.send(request.repeat(1_000));
    // What it does not take stops it, and after a time it is given up.
    let mut polite = served.connect();
    assert_eq!(polite.get("/large").body.len(), 1 << 20);
    let received = greedy_end(&mut greedy);
    assert!(received < 900 << 20, "{received}");
    assert!(*asked.lock().unwrap() < 100);
}

/// Waits, without reading, until the connection is gone; answers how many
/// bytes had arrived.
fn greedy_end(connection: &mut Connection) -> usize {
    eventually("it is given up", || !connection.try_send("x"));
    connection.rest().len()
}

#[test]
fn a_head_may_come_byte_by_byte_and_so_may_a_body() {
    let served = Served::start(echo());
    let mut connection = served.connect();
    let request = "GET /rooms/a%20b%2Fc?x=1&x=%C3%A9+e HTTP/1.1\r\nHost: test\r\nX-Test: yes\r\n\r\n\
                   POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nwhole";
    for byte in request.as_bytes() {
        connection.send([*byte]);
    }
    let answer = connection.answer();
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(
        json(&answer.body),
        json!({
            "room": "a b/c",
            "query": [["x", "1"], ["x", "é e"]],
            "version": "1.1",
            "header": "yes",
        })
    );
    assert_eq!(connection.answer().text(), "whole");
}

#[test]
fn a_chunked_body_is_put_together() {
    let served = Served::start(echo());
    let mut connection = served.connect();
    connection.send("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in [
        "5\r\nfirst",
        "\r\n",
        "c;ext=1\r\n, then m",
        "ore.\r\n",
        "0\r\n",
        "X-T: 1\r\n",
    ] {
        connection.send(piece);
    }
    connection.send("\r\nGET /hello HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(connection.answer().text(), "first, then more.");
    assert_eq!(connection.answer().text(), "hello");
}

#[test]
fn a_client_that_expects_100_continue_receives_it() {
    let served = Served::start(echo());
    let mut connection = served.connect();
    connection.send(
        "POST /echo HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
    );
    assert_eq!(connection.head().status, 100);
    connection.send("body");
    assert_eq!(connection.answer().text(), "body");
}

#[test]
fn http_1_0_is_answered_and_closed_and_streamed_to() {
    let (served, channel) = Served::channel(pushwheel::ChannelOptions::new());
    let mut connection = served.connect();
    connection.send("GET /nothing HTTP/1.0\r\n\r\n");
    let answer = connection.answer();
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("connection"), Some("close"));
    connection.expect_end();

    let mut connection = served.connect();
    connection.send("GET /nothing HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(connection.answer().header("connection"), Some("keep-alive"));
    connection.send("GET /stream HTTP/1.0\r\n\r\n");
    let mut client = Subscriber::begun(connection);
    assert_eq!(client.head.header("transfer-encoding"), None);
    channel.broadcast(Event::message("to old and new")).unwrap();
    assert_eq!(client.next().data, "to old and new");
}

#[test]
fn head_is_answered_as_get_without_the_body() {
    let (served, channel) = Served::channel(pushwheel::ChannelOptions::new());
    let mut connection = served.connect();
    connection.send("HEAD /nothing HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = connection.head();
    assert_eq!(head.status, 404);
    assert_ne!(head.header("content-length"), Some("0"));
    connection.send("HEAD /stream HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = connection.head();
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    connection.expect_end();
    assert_eq!(channel.client_count(), 0, "there is no subscriber");
}

#[test]
fn options_is_answered_with_the_methods_that_there_are() {
    let served = Served::start(echo());
    let mut connection = served.connect();
    for (target, allow) in [
        ("/rooms/1", Some("GET, DELETE, HEAD, OPTIONS")),
        ("/echo", Some("POST, OPTIONS")),
        ("*", None),
    ] {
        connection.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let answer = connection.answer();
        assert_eq!((answer.status, answer.header("allow")), (204, allow));
    }
}

#[test]
fn a_wrong_path_is_404_and_a_wrong_method_405_and_the_connection_goes_on() {
    let served = Served::start(echo());
    let mut connection = served.connect();
    let answer = connection.get("/rooms");
    assert_eq!((answer.status, &*answer.error_code()), (404, "not_found"));
    let answer = connection.post("/hello", "x");
    let code = answer.error_code();
    assert_eq!((answer.status, &*code), (405, "method_not_allowed"));
    assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
    connection.send("BREW /hello HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(connection.answer().status, 405);
    let answer = connection.get("/rooms/%ff");
    assert_eq!(
        (answer.status, &*answer.error_code()),
        (400, "invalid_path")
    );
    let answer = connection.get("/rooms/1?a=%c3%a9&b=%c3");
    assert_eq!(
        (answer.status, &*answer.error_code()),
        (400, "invalid_query")
    );
    assert_eq!(connection.get("/hello").text(), "hello");
}

#[test]
fn what_http_forbids_is_refused_as_json_and_the_connection_closed() {
    let mut limits = Limits::default();
    limits.request_line_bytes_max = 200;
    limits.head_bytes_max = 1_000;
    limits.headers_max = 5;
    limits.body_bytes_max = 100;
    let served = Served::start(echo().limits(limits));
    let long = "x".repeat(300);
    let very_long = "x".repeat(2_000);
    let with = |headers: &str| format!("POST /echo HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
    for (request, status, code) in [
        ("nonsense\r\n\r\n".into(), 400, "request_line_invalid"),
        (
            "\x16\x03\x01\x02\x00\x01".into(),
            400,
            "request_line_invalid",
        ),
        (
            format!("GET /{long} HTTP/1.1\r\nHost: test\r\n\r\n"),
            414,
            "uri_too_long",
        ),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400, "host_missing"),
        (with("Host: again\r\n"), 400, "host_repeated"),
        (with(&format!("X: {very_long}\r\n")), 431, "head_too_large"),
        (with(&"X: 1\r\n".repeat(6)), 431, "too_many_headers"),
        (with("Bad : 1\r\n"), 400, "header_invalid"),
        (with("X: 1\r\n folded\r\n"), 400, "header_invalid"),
        (with("X: a\rb\r\n"), 400, "header_invalid"),
        (
            "GET / HTTP/1.1\nHost: test\n\n".into(),
            400,
            "line_end_invalid",
        ),
        (
            with("Content-Length: 1_0\r\n"),
            400,
            "content_length_invalid",
        ),
        (
            with("Content-Length: 1\r\nContent-Length: 1\r\n"),
            400,
            "content_length_invalid",
        ),
        (
            with("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
            400,
            "ambiguous_framing",
        ),
        (
            with("Transfer-Encoding: gzip\r\n"),
            501,
            "transfer_coding_unsupported",
        ),
        (with("Expect: miracles\r\n"), 417, "expectation_unknown"),
        (with("Content-Length: 101\r\n"), 413, "payload_too_large"),
        (
            with("Transfer-Encoding: chunked\r\n") + "65\r\n",
            413,
            "payload_too_large",
        ),
        (
            with("Transfer-Encoding: chunked\r\n") + "zz\r\n",
            400,
            "chunk_invalid",
        ),
        (
            "GET / HTTP/2.0\r\nHost: test\r\n\r\n".into(),
            505,
            "version_unsupported",
        ),
    ] {
        let mut connection = served.connect();
        connection.send(&request);
        let answer = connection.answer();
        let got = (answer.status, answer.error_code());
        assert_eq!(got, (status, code.to_owned()), "{request:?}");
        assert_eq!(answer.header("connection"), Some("close"));
        connection.expect_end();
    }
}

#[test]
fn a_malformed_head_request_is_answered_without_a_body() {
    let served = Served::start(echo());
    let long = format!("HEAD /{} HTTP/1.1\r\nHost: test\r\n\r\n", "x".repeat(9_000));
    let many = format!("HEAD / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(200));
    for (request, status) in [
        ("HEAD / HTTP/1.1\r\n\r\n", 400),
        ("\r\n\r\nHEAD / HTTP/1.1\r\nHost: te st\r\n\r\n", 400),
        ("HEAD / HTTP/1.1\r\nHost: test\r\nBad name: x\r\n\r\n", 400),
        ("HEAD / HTTP/1.1\nHost: test\n\n", 400),
        ("HEAD nowhere HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        ("HEAD / HTTP/3.0\r\nHost: test\r\n\r\n", 505),
        (&long, 414),
        (&many, 431),
        (
            "HEAD / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            400,
        ),
    ] {
        // As a whole, and the method in two pieces.
        for cut in [0, 2] {
            let mut connection = served.connect();
            connection.send(&request[..cut]);
            if cut > 0 {
                // Its answer says that the piece has been read.
                assert_eq!(served.connect().get("/hello").status, 200);
            }
            connection.send(&request[cut..]);
            let answer = connection.head();
            assert_eq!(answer.status, status, "{request:?}");
            let length: usize = answer.header("content-length").unwrap().parse().unwrap();
            assert!(length > 0, "what a GET would be answered: {answer:?}");
            connection.expect_end();
        }
    }
    // Of another method the answer has its body.
    let mut connection = served.connect();
    connection.send("HEADS / HTTP/1.1\r\n\r\n");
    assert_eq!(connection.answer().error_code(), "host_missing");
}

#[test]
fn a_head_request_that_does_not_come_in_time_is_answered_without_a_body() {
    let mut limits = Limits::default();
    limits.head_timeout = Duration::from_millis(100);
    let served = Served::start(echo().limits(limits));
    let mut connection = served.connect();
    connection.send("HEAD /hello HTTP/1.1\r\nHost: te");
    assert_eq!(connection.head().status, 408);
    connection.expect_end();
}

#[test]
fn what_was_right_before_a_mistake_is_answered_first() {
    let served = Served::start(echo());
    let mut connection = served.connect();
    connection.send("GET /hello HTTP/1.1\r\nHost: test\r\n\r\nnonsense\r\n\r\n");
    assert_eq!(connection.answer().text(), "hello");
    assert_eq!(connection.answer().status, 400);
    connection.expect_end();
}

#[test]
fn the_answer_to_a_body_too_large_is_read_although_the_client_sends_on() {
    let served = Served::start(echo());
    for head in [
        "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4194304\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n400000\r\n",
    ] {
        let mut connection = served.connect();
        connection.send(head);
        // As most clients do, it sends all of it before it looks for an answer.
        let piece = vec![b'x'; 1 << 20];
        for sent in 0..4 {
            assert!(connection.try_send(&piece), "stuck after {sent} MiB");
        }
        let answer = connection.answer();
        let code = answer.error_code();
        assert_eq!((answer.status, &*code), (413, "payload_too_large"));
        connection.expect_end();
    }
}

/// An engine whose `/block` holds up all of it, until the test lets it go on.
fn blocked() -> (Served, mpsc::Sender<()>) {
    let (started, has_started) = mpsc::channel();
    let (go_on, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let builder = echo().get("/block", move |_| {
        started.send(()).unwrap();
        _ = gate.lock().unwrap().recv();
        "went on"
    });
    let served = Served::start(builder);
    served
        .connect()
        .send("GET /block HTTP/1.1\r\nHost: test\r\n\r\n");
    receive(&has_started);
    (served, go_on)
}

#[test]
fn the_answer_to_a_body_too_large_is_read_although_all_the_buffers_are_full_of_it() {
    let (served, go_on) = blocked();
    let mut connection = served.connect();
    connection.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 104857600\r\n\r\n");
    let sent = connection.fill();
    assert!(sent < 100 << 20, "{sent}");
    go_on.send(()).unwrap();
    assert!(connection.try_send(vec![b'x'; 1 << 20]), "it is read on");
    assert_eq!(connection.answer().status, 413);
}

#[test]
fn the_last_answer_is_read_whole_although_the_client_sends_on() {
    const BYTES: usize = 200_000;
    let builder = echo().get("/large", |_| "x".repeat(BYTES));
    let served = Served::start(builder);
    // Most of the answer waits in the engine's kernel for this one.
    let mut connection = Connection::narrow(served.address());
    connection.send("GET /large HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    connection.try_send(vec![b'x'; 1 << 20]);
    assert_eq!(connection.answer().body.len(), BYTES);
    connection.expect_end();
}

#[test]
fn a_panic_in_a_handler_is_a_500_for_its_request_only() {
    let served = Served::start(echo());
    let mut other = served.connect();
    assert_eq!(other.get("/hello").status, 200);
    let mut connection = served.connect();
    connection
        .send("GET /hello HTTP/1.1\r\nHost: test\r\n\r\nGET /panic HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(connection.answer().text(), "hello");
    let answer = connection.answer();
    let code = answer.error_code();
    assert_eq!((answer.status, &*code), (500, "internal_error"));
    assert_eq!(connection.get("/hello").status, 200);
    assert_eq!(other.get("/hello").status, 200);
}

/// An engine that hands the test every responder of `/later`.
fn deferring() -> (Served, mpsc::Receiver<Responder>) {
    let (builder, responders) = common::deferring(echo());
    (Served::start(builder), responders)
}

const LATER: &str = "GET /later HTTP/1.1\r\nHost: test\r\n\r\n";
const HELLO: &str = "GET /hello HTTP/1.1\r\nHost: test\r\n\r\n";

#[test]
fn an_answer_may_come_from_another_thread_and_the_engine_serves_others_meanwhile() {
    let (served, responders) = deferring();
    let mut connection = served.connect();
    for n in 0..3 {
        connection.send(LATER);
        let responder = receive(&responders);
        assert_eq!(served.connect().get("/hello").text(), "hello");
        thread::spawn(move || responder.respond(format!("answer {n}")));
        assert_eq!(connection.answer().text(), format!("answer {n}"));
    }
}

#[test]
fn requests_behind_a_deferred_one_are_answered_after_it() {
    let (served, responders) = deferring();
    let mut connection = served.connect();
    connection.send([HELLO, LATER, LATER, HELLO].concat());
    assert_eq!(connection.answer().text(), "hello");
    let first = receive(&responders);
    // More, while it waits.
    connection.send(HELLO);
    assert!(responders.try_recv().is_err(), "one at a time");
    first.respond("first");
    assert_eq!(connection.answer().text(), "first");
    receive(&responders).respond("second");
    assert_eq!(connection.answer().text(), "second");
    assert_eq!(connection.answer().text(), "hello");
    assert_eq!(connection.answer().text(), "hello");
}

#[test]
fn a_responder_that_is_dropped_answers_500() {
    let (served, responders) = deferring();
    let mut connection = served.connect();
    connection.send([LATER, HELLO].concat());
    drop(receive(&responders));
    let answer = connection.answer();
    assert_eq!((answer.status, &*answer.error_code()), (500, "no_answer"));
    assert_eq!(connection.answer().text(), "hello");
}

#[test]
fn an_answer_to_a_client_that_has_gone_goes_nowhere() {
    let (served, responders) = deferring();
    let mut connection = served.connect();
    connection.send(LATER);
    let responder = receive(&responders);
    drop(connection);
    // A connection that takes its slot must not get its response.
    let mut others: Vec<Connection> = (0..10).map(|_| served.connect()).collect();
    for other in &mut others {
        other.send(LATER);
    }
    let theirs: Vec<Responder> = (0..10).map(|_| receive(&responders)).collect();
    responder.respond("for the closed one");
    for responder in theirs {
        responder.respond("for this one");
    }
    for other in &mut others {
        assert_eq!(other.answer().text(), "for this one");
    }
}

#[test]
fn a_head_that_drips_in_too_slowly_is_408() {
    let served = Served::start(echo().head_timeout(Duration::from_millis(300)));
    let mut connection = served.connect();
    assert_eq!(connection.get("/hello").status, 200);
    // However often another byte comes: the head has one deadline.
    connection.send("GET /hello HTTP/1.1\r\nX: ");
    let answer = connection.drip();
    let code = answer.error_code();
    assert_eq!((answer.status, &*code), (408, "request_timeout"));
}

#[test]
fn empty_lines_begin_a_head() {
    let served = Served::start(echo().head_timeout(Duration::from_millis(200)));
    for lines in ["\r", "\r\n\r\n"] {
        let mut connection = served.connect();
        connection.send([HELLO, lines].concat());
        assert_eq!(connection.answer().text(), "hello");
        assert_eq!(connection.answer().status, 408);
        connection.expect_end();
    }
}

#[test]
fn a_status_that_none_can_be_is_a_500() {
    let builder = echo().get("/status/{code}", |request| {
        Response::status(request.param("code").unwrap().parse().unwrap())
    });
    let served = Served::start(builder);
    let mut connection = served.connect();
    for (status, answered) in [(0, 500), (42, 500), (100, 500), (1000, 500), (999, 999)] {
        let answer = connection.get(&format!("/status/{status}"));
        assert_eq!(answer.status, answered);
    }
}

#[test]
fn a_body_that_does_not_come_is_408() {
    let served = Served::start(echo().head_timeout(Duration::from_millis(200)));
    let mut connection = served.connect();
    connection.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nbod");
    assert_eq!(connection.answer().status, 408);
    connection.expect_end();
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let served = Served::start(echo().idle_timeout(Duration::from_secs(2)));
    let mut never_asked = served.connect();
    let mut asked = served.connect();
    assert_eq!(asked.get("/hello").status, 200);
    never_asked.expect_end();
    asked.expect_end();
}

#[test]
fn a_client_that_waits_for_a_deferred_response_is_not_idle() {
    let (builder, responders) = common::deferring(echo());
    let builder = builder
        .idle_timeout(Duration::from_secs(2))
        .head_timeout(Duration::from_secs(2));
    let served = Served::start(builder);
    let mut connection = served.connect();
    connection.send(LATER);
    let responder = receive(&responders);
    // Others, which are idle, measure the time.
    for _ in 0..2 {
        served.connect().expect_end();
    }
    responder.respond("at last");
    assert_eq!(connection.answer().text(), "at last");
}

#[test]
fn a_client_that_waits_for_a_second_deferred_response_has_not_stalled() {
    const BYTES: usize = 200_000;
    let (builder, responders) = common::deferring(echo());
    let builder = builder
        .idle_timeout(Duration::from_secs(2))
        .stall_timeout(Duration::from_secs(2))
        .send_buffer_bytes(4096)
        .get("/large", |_| "x".repeat(BYTES));
    let served = Served::start(builder);
    let mut connection = Connection::narrow(served.address());
    let large = "GET /large HTTP/1.1\r\nHost: test\r\n\r\n";
    connection.send([large, LATER].concat());
    let responder = receive(&responders);
    assert_eq!(connection.answer().body.len(), BYTES);
    // Others, which are idle, measure the time.
    for _ in 0..2 {
        served.connect().expect_end();
    }
    responder.respond("at last");
    assert_eq!(connection.answer().text(), "at last");
}

#[test]
fn a_client_that_says_it_will_send_no_more_still_gets_its_answer_and_is_let_go() {
    // Whether the engine sees the request and its end together
    let (served, go_on) = blocked();
    let mut connection = served.connect();
    connection.send(HELLO);
    connection.finish_sending();
    go_on.send(()).unwrap();
    assert_eq!(connection.answer().text(), "hello");
    connection.expect_end();

    // or one after the other.
    let (served, responders) = deferring();
    let mut connection = served.connect();
    connection.send(LATER);
    let responder = receive(&responders);
    connection.finish_sending();
    responder.respond("later");
    assert_eq!(connection.answer().text(), "later");
    connection.expect_end();
}

#[test]
fn hooks_see_every_request_and_every_answer() {
    let builder = echo()
        .before(|request| {
            let is_allowed = request.header("x-key") == Some("sesame");
            (!is_allowed).then(|| Response::error(401, "no_key", "send the header X-Key"))
        })
        .after(|request, response| {
            let path = request.path().to_owned();
            response.headers_mut().insert("X-Path", path).unwrap();
        })
        .header("X-Everywhere", "yes");
    let served = Served::start(builder);
    let mut connection = served.connect();
    let refused = connection.get("/hello");
    assert_eq!((refused.status, &*refused.error_code()), (401, "no_key"));
    assert_eq!(refused.header("x-path"), Some("/hello"));
    connection.send("GET /rooms/1 HTTP/1.1\r\nHost: test\r\nX-Key: sesame\r\n\r\n");
    let answer = connection.answer();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-everywhere"), Some("yes"));
    connection.send("nonsense\r\n\r\n");
    let refused = connection.answer();
    assert_eq!(refused.header("x-everywhere"), Some("yes"));
}

/// A builder whose POST /rooms/{room} needs a key, and counts the checked requests.
fn guarded() -> (EngineBuilder, Arc<AtomicUsize>) {
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = looks.clone();
    let builder = Engine::builder()
        .before(move |request| {
            assert!(request.body().is_empty());
            counted.fetch_add(1, Ordering::Relaxed);
            None
        })
        .guard(Method::Post, "/rooms/{room}", |request| {
            assert!(request.body().is_empty());
            let key = request.header("x-key")?;
            let is_right = Some(key) == request.param("room");
            (!is_right).then(|| Response::error(403, "wrong_key", "send the room's key"))
        })
        .post("/rooms/{room}", |request| {
            request.text().unwrap().to_owned()
        });
    (builder, looks)
}

/// What a guard has found out about a request.
struct User(String);

#[test]
fn a_guard_passes_a_value_to_the_handler_whether_the_body_comes_with_its_head_or_later() {
    let checks = Arc::new(AtomicUsize::new(0));
    let count = checks.clone();
    let builder = Engine::builder()
        .before(|request| {
            request.extensions_mut().insert(7_u32);
            None
        })
        .guard(Method::Post, "/inbox", move |request| {
            count.fetch_add(1, Ordering::Relaxed);
            let user = request.header("x-user").unwrap_or("anonymous").to_owned();
            request.extensions_mut().insert(User(user));
            None
        })
        .post("/inbox", |request| {
            let values = request.extensions();
            let user = values.get::<User>().map(|user| user.0.as_str());
            format!("{user:?} {:?} {:?}", values.get::<u32>(), request.text())
        });
    let served = Served::start(builder);
    let mut connection = served.connect();
    let head = |user| {
        format!("POST /inbox HTTP/1.1\r\nHost: test\r\nX-User: {user}\r\nContent-Length: 2\r\n\r\n")
    };
    connection.send(format!("{}hi", head("ann")));
    assert_eq!(
        connection.answer().text(),
        r#"Some("ann") Some(7) Ok("hi")"#
    );
    // The guard runs once, before the body arrives.
    connection.send(head("bob"));
    eventually("the guard runs", || checks.load(Ordering::Relaxed) == 2);
    connection.send("ho");
    assert_eq!(
        connection.answer().text(),
        r#"Some("bob") Some(7) Ok("ho")"#
    );
    assert_eq!(checks.load(Ordering::Relaxed), 2);
}

#[test]
fn a_guard_of_a_path_without_a_route_keeps_the_engine_from_being_bound() {
    let refuse = |_: &mut Request| Some(Response::status(403));
    let builder = Engine::builder()
        .post("/rooms/{room}", |_| "a message")
        // Misspelled: without the error, it would protect nothing.
        .guard(Method::Post, "/room/{room}", refuse);
    let error = builder.bind("127.0.0.1:0").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    let inner = error.into_inner().unwrap();
    assert!(inner.is::<pushwheel::RouteError>(), "{inner}");
    assert!(inner.to_string().contains("`POST /room/{room}`"), "{inner}");
}

#[test]
fn a_request_that_is_refused_is_answered_before_its_body_arrives() {
    let (builder, looks) = guarded();
    let served = Served::start(builder);
    let head = |key: &str, more: &str| {
        format!(
            "POST /rooms/a HTTP/1.1\r\nHost: test\r\nX-Key: {key}\r\n\
             Content-Length: 900000\r\n{more}\r\n"
        )
    };
    for more in ["", "Expect: 100-continue\r\n"] {
        let mut connection = served.connect();
        connection.send(head("b", more));
        let refused = connection.answer();
        assert_eq!((refused.status, &*refused.error_code()), (403, "wrong_key"));
        assert_eq!(refused.header("connection"), Some("close"));
        connection.expect_end();
    }
    // Nor is a body awaited for which there is no route.
    let mut connection = served.connect();
    connection.send(head("a", "").replace("/rooms/a", "/nowhere"));
    assert_eq!(connection.answer().status, 404);
    connection.expect_end();
    // Each was looked at once.
    assert_eq!(looks.load(Ordering::Relaxed), 3);
}

#[test]
fn a_request_with_a_body_is_checked_once_however_the_body_arrives() {
    let (builder, looks) = guarded();
    let served = Served::start(builder);
    let mut connection = served.connect();
    let request =
        "POST /rooms/a HTTP/1.1\r\nHost: test\r\nX-Key: a\r\nContent-Length: 6\r\n\r\nabcdef";
    let looks = || looks.load(Ordering::Relaxed);
    for split in [0, 20, request.len() - 6, request.len() - 3] {
        let before = looks();
        connection.send(&request[..split]);
        if split >= request.len() - 6 {
            eventually("its head is looked at", || looks() == before + 1);
        }
        connection.send(&request[split..]);
        let answer = connection.answer();
        assert_eq!((answer.status, answer.text()), (200, "abcdef"));
        assert_eq!(looks(), before + 1, "split at {split}");
    }
}

#[test]
fn the_body_of_a_get_is_read_and_not_kept() {
    let builder = Engine::builder().get("/", |request| request.body().len().to_string());
    let served = Served::start(builder);
    let mut connection = served.connect();
    for _ in 0..2 {
        connection.send("GET / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nabcde");
        assert_eq!(connection.answer().text(), "0");
    }
}

#[test]
fn what_a_client_takes_may_stand_in_several_headers_and_a_weight_of_0_is_a_no() {
    let builder = Engine::builder().get("/", |request| {
        let takes = request.accepts("text/event-stream");
        let packed = request.accepts_encoding("gzip");
        format!("{takes} {packed}")
    });
    let served = Served::start(builder);
    let mut connection = served.connect();
    for (headers, expected) in [
        ("", "false false"),
        (
            "Accept: text/html\r\nAccept: text/event-stream\r\n",
            "true false",
        ),
        ("accept: a/b, Text/Event-Stream;q=0.5\r\n", "true false"),
        ("Accept: text/event-stream;q=0, */*\r\n", "false false"),
        ("Accept: text/event-stream ; Q=0.0\r\n", "false false"),
        (
            "Accept-Encoding: br\r\nAccept-Encoding: gzip\r\n",
            "false true",
        ),
        ("Accept-Encoding: gzip;q=0, identity\r\n", "false false"),
    ] {
        connection.send(format!("GET / HTTP/1.1\r\nHost: test\r\n{headers}\r\n"));
        assert_eq!(connection.answer().text(), expected, "{headers}");
    }
}

#[test]
fn a_route_that_cannot_be_says_why() {
    let refused = Engine::builder()
        .get("/{room", |_| "x")
        .bind("127.0.0.1:0")
        .unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    assert!(refused.to_string().contains("/{room"), "{refused}");
    let overlapping = Engine::builder()
        .get("/{a}", |_| "x")
        .get("/{b}", |_| "x")
        .get("/{", |_| "the first mistake is reported")
        .bind("127.0.0.1:0");
    let overlapping = overlapping.unwrap_err().to_string();
    assert!(overlapping.contains("/{b}"), "{overlapping}");
    let builder = Engine::builder().route(Method::Put, "/x", |_| "put");
    let served = Served::start(builder.get("/x", |_| "get"));
    let mut connection = served.connect();
    assert_eq!(connection.get("/x").text(), "get");
    connection.send("PUT /x HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(connection.answer().text(), "put");
}

/// Keeps what is logged of the paths below `/logged/`.
struct Kept(Mutex<Vec<String>>);

static KEPT: Kept = Kept(Mutex::new(Vec::new()));

impl log::Log for Kept {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}", record.level(), record.args());
        if line.contains(" /logged/") {
            self.0.lock().unwrap().push(line);
        }
    }

    fn flush(&self) {}
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the handler is slow on purpose")]
fn a_handler_that_panics_or_fails_or_is_slow_is_logged_with_its_request() {
    log::set_logger(&KEPT).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let long = format!("/logged/{}", "x".repeat(1_000));
    let builder = Engine::builder()
        .get("/logged/panic", |_| -> Response { panic!("a mistake") })
        .get("/logged/{name}", |_| {
            thread::sleep(Duration::from_millis(150));
            "late"
        });
    let builder = builder.get("/logged/failed", |_| {
        Ok::<_, Box<dyn Error + Send + Sync>>("seven".parse::<u8>()?.to_string())
    });
    let served = Served::start(builder);
    let mut connection = served.connect();
    assert_eq!(connection.get("/logged/panic?secret=1").status, 500);
    let failed = connection.get("/logged/failed");
    assert_eq!(failed.status, 500);
    assert!(!failed.text().contains("digit"), "{}", failed.text());
    assert_eq!(connection.get(&long).status, 200);
    // Within a minute of the first, so it is not logged.
    assert_eq!(connection.get("/logged/again").status, 200);
    let kept = KEPT.0.lock().unwrap();
    let [panicked, failed, slow] = &**kept else {
        panic!("not three lines: {kept:?}");
    };
    let begin = "ERROR a handler failed (GET /logged/failed from 127.0.0.1:";
    assert!(failed.starts_with(begin), "{failed}");
    assert!(
        failed.ends_with("): invalid digit found in string"),
        "{failed}"
    );
    let begin = "ERROR a handler panicked (GET /logged/panic from 127.0.0.1:";
    assert!(panicked.starts_with(begin), "{panicked}");
    assert!(panicked.ends_with("): a mistake"), "{panicked}");
    let begin = "WARN a handler held the engine's thread for ";
    assert!(slow.starts_with(begin), "{slow}");
    assert!(
        slow.contains(&long[..256]) && !slow.contains(&long[..257]),
        "{slow}"
    );
}
