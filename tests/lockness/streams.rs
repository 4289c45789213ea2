//! Streams for one client: `createCustomSSEHandler` and `createSSEStream`.

use std::sync::mpsc;
use std::thread;

use pushwheel::{DisconnectReason, Engine, Event, Response, Sink, SinkError, SinkOptions};

use crate::common::{Connection, Served, Subscriber, receive, told};

/// An engine that hands the test the sink of every stream of `/stream`.
fn streaming(options: SinkOptions) -> (Served, mpsc::Receiver<Sink>) {
    let (sender, sinks) = mpsc::channel();
    let builder = Engine::builder().get("/stream", move |_| {
        let sender = sender.clone();
        Response::stream_with(options.clone(), move |sink| sender.send(sink).unwrap())
    });
    (Served::start(builder), sinks)
}

#[test]
fn create_custom_sse_handler_answers_a_route_with_a_stream_that_ends_when_the_handler_is_done() {
    fn may_go_to_any_thread<T: Send + 'static>() {}
    may_go_to_any_thread::<Sink>();
    let builder = Engine::builder().get("/stream", |_| {
        Response::stream(|sink| {
            thread::spawn(move || {
                sink.send(Event::new("greeting", "hello")).unwrap();
                sink.send_raw(b"data: in bytes\n\n").unwrap();
            });
        })
    });
    let served = Served::start(builder);
    let mut client = served.subscribe("/stream");
    assert_eq!(told(&client.rest()), ["greeting hello", "in bytes"]);
}

#[test]
fn close_ends_the_stream_though_the_handler_goes_on() {
    let (go_on, waits) = mpsc::channel::<()>();
    let (served, sinks) = streaming(SinkOptions::new());
    let mut client = served.subscribe("/stream");
    let sink = receive(&sinks);
    let handler = thread::spawn(move || {
        sink.send(Event::message("last")).unwrap();
        sink.close();
        receive(&waits);
    });
    assert_eq!(told(&client.rest()), ["last"]);
    go_on.send(()).unwrap();
    handler.join().unwrap();
}

#[test]
fn a_sender_fails_or_waits_as_it_chooses_when_its_client_cannot_keep_up() {
    let (served, sinks) = streaming(SinkOptions::new().buffer_bytes_max(10_000));
    let narrow = Connection::narrow(served.address());
    let mut client = Subscriber::over(narrow, "/stream", &[]);
    let sink = receive(&sinks);
    let data = |n: usize| format!("{n} {}", "x".repeat(9_000));
    let (is_full, full) = mpsc::channel();
    let sender = thread::spawn(move || {
        let mut sent = 0;
        let refused = loop {
            match sink.try_send(Event::message(data(sent))) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        is_full.send((sent, refused)).unwrap();
        // More than all buffers hold: it can only go out as it is read.
        for n in sent..sent + 2_000 {
            sink.send(Event::message(data(n))).unwrap();
        }
    });
    let (sent, refused) = receive(&full);
    assert_eq!(refused, SinkError::Full);
    for n in 0..sent + 2_000 {
        assert_eq!(client.next().data, data(n));
    }
    client.expect_end();
    sender.join().unwrap();
}

#[test]
fn a_sender_learns_that_its_client_has_gone() {
    let (served, sinks) = streaming(SinkOptions::new());
    let client = served.subscribe("/stream");
    let sink = receive(&sinks);
    assert!(!sink.is_closed());
    drop(client);
    let gone = SinkError::Ended(DisconnectReason::Gone);
    while sink.send(Event::message("still there?")) != Err(gone.clone()) {}
    assert!(sink.is_closed());
}

#[test]
fn create_sse_stream_enqueues_the_raw_bytes_of_a_stream_unchecked() {
    let (served, sinks) = streaming(SinkOptions::new());
    let mut connection = served.connect();
    connection.send("GET /stream HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(connection.head().status, 200);
    let sink = receive(&sinks);
    let pieces: [&[u8]; 4] = [b"data: a pie", b"ce\r\revent:", b"\0\xff\xfe", b"no end"];
    for piece in pieces {
        sink.send_raw(piece).unwrap();
    }
    sink.close();
    let expected = [b"ping:\n", &*pieces.concat()].concat();
    assert_eq!(connection.rest(), expected);
}
