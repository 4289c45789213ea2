//! Streams for one client: a sink that any thread may own.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail, and a deadline needs a clock"
)]

mod common;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::{Connection, PATIENCE, Served, Subscriber, eventually, receive, summaries};
use pushwheel::{
    ChannelManager, DisconnectReason, Engine, Event, PublishError, Responder, Response, Sink,
    SinkError, SinkOptions, Start, Subscription,
};

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
fn a_task_on_a_thread_of_its_own_reports_its_progress_and_the_stream_ends() {
    let builder = Engine::builder().get("/progress/{task}", |request| {
        let task = request.param("task").unwrap().to_owned();
        Response::stream(move |sink| {
            thread::spawn(move || {
                for percent in 0..=100 {
                    let event = Event::new("progress", format!("{task} {percent}"));
                    sink.send(event).unwrap();
                }
                sink.send(Event::new("complete", &task)).unwrap();
            });
        })
    });
    let served = Served::start(builder);
    let mut clients: Vec<Subscriber> = (0..50)
        .map(|task| served.subscribe(&format!("/progress/{task}")))
        .collect();
    for (task, client) in clients.iter_mut().enumerate() {
        let mut expected: Vec<String> = (0..=100).map(|p| format!("progress {task} {p}")).collect();
        expected.push(format!("complete {task}"));
        assert_eq!(summaries(&client.rest()), expected);
    }
}

#[test]
fn a_sink_sends_what_it_is_given_and_nothing_of_the_engines() {
    let (served, sinks) = streaming(SinkOptions::new());
    let mut connection = served.connect();
    connection.send("GET /stream HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = connection.head();
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    let sink = receive(&sinks);
    sink.send(Event::message("plain")).unwrap();
    let event = Event::new("full", "two\nlines")
        .with_id("own")
        .with_retry(Duration::from_secs(3));
    sink.send(&event).unwrap();
    sink.send_raw(b": raw\r\rdata").unwrap();
    sink.try_send_raw(b": in pieces\n\n").unwrap();
    sink.close();
    let expected = "ping:\ndata: plain\n\n\
                    event: full\nid: own\nretry: 3000\ndata: two\ndata: lines\n\n\
                    : raw\r\rdata: in pieces\n\n";
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let rest = String::from_utf8(connection.rest()).unwrap();
    // In which order an event's fields come is for the golden files to say.
    assert_eq!(sorted(&rest), sorted(expected), "{rest:?}");
}

#[test]
fn raw_bytes_of_a_stream_are_sent_unchecked() {
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

#[test]
fn an_event_that_cannot_be_written_is_refused_and_the_stream_goes_on() {
    let (served, sinks) = streaming(SinkOptions::new());
    let mut client = served.subscribe("/stream");
    let sink = receive(&sinks);
    let refused = sink.send(Event::new("two\nlines", "")).unwrap_err();
    assert!(matches!(
        refused,
        SinkError::Invalid(PublishError::Event(_))
    ));
    let refused = sink.try_send(Event::message("").with_id("")).unwrap_err();
    assert!(matches!(refused, SinkError::Invalid(_)));
    sink.send(Event::message("fine")).unwrap();
    drop(sink);
    assert_eq!(summaries(&client.rest()), ["fine"]);
    assert_eq!(client.last_event_id(), "", "a sink's events have no ids");
}

/// A client that reads nothing of its stream, and the sink, filled.
fn filled() -> (Served, Connection, Sink, usize) {
    let (served, sinks) = streaming(SinkOptions::new().buffer_bytes_max(100_000));
    let mut connection = Connection::narrow(served.address());
    connection.send("GET /stream HTTP/1.1\r\nHost: test\r\n\r\n");
    let sink = receive(&sinks);
    let mut sent = 0;
    // The kernel takes some megabytes, and as it takes them there is room for
    // more: it is full for good when a whole wait has not helped.
    loop {
        let soon = Instant::now() + Duration::from_secs(1);
        match sink.send_by(Event::message(large(sent)), soon) {
            Ok(()) => sent += 1,
            Err(SinkError::Full) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(sent > 1);
    (served, connection, sink, sent)
}

fn large(n: usize) -> String {
    format!("{n} {}", "x".repeat(30_000))
}

#[test]
fn a_full_sink_answers_so_or_waits_until_its_client_reads() {
    let (_served, connection, sink, sent) = filled();
    assert_eq!(
        sink.try_send(Event::message(large(0))),
        Err(SinkError::Full)
    );
    assert_eq!(sink.try_send_raw(&[b'x'; 90_000]), Err(SinkError::Full));
    let late = Instant::now() + Duration::from_millis(50);
    let late_result = sink.send_by(Event::message(large(0)), late);
    assert_eq!(late_result, Err(SinkError::Full));
    assert!(Instant::now() >= late, "it has waited");

    let (done, is_done) = mpsc::channel();
    let sender = thread::spawn(move || {
        sink.send(Event::message(large(sent))).unwrap();
        done.send(()).unwrap();
        for n in sent + 1..sent + 50 {
            sink.send(Event::message(large(n))).unwrap();
        }
    });
    assert!(is_done.try_recv().is_err(), "it waits");
    let mut client = Subscriber::begun(connection);
    for n in 0..sent + 50 {
        assert_eq!(client.next().data, large(n));
    }
    client.expect_end();
    receive(&is_done);
    sender.join().unwrap();
}

#[test]
fn a_sender_that_waits_learns_that_its_client_has_gone() {
    let (_served, connection, sink, _) = filled();
    let sender = thread::spawn(move || (sink.send(Event::message(large(0))), sink));
    drop(connection);
    let (result, sink) = sender.join().unwrap();
    let gone = SinkError::Ended(DisconnectReason::Gone);
    assert_eq!(result, Err(gone.clone()));
    assert_eq!(sink.try_send(Event::message("")), Err(gone));
    assert!(sink.is_closed());
}

#[test]
fn a_sink_learns_that_its_client_has_gone_though_it_sends_nothing() {
    let (served, sinks) = streaming(SinkOptions::new());
    let client = served.subscribe("/stream");
    let sink = receive(&sinks);
    assert!(!sink.is_closed());
    drop(client);
    eventually("it learns", || sink.is_closed());
    let soon = Instant::now() + Duration::from_secs(5);
    let gone = || Err(SinkError::Ended(DisconnectReason::Gone));
    assert_eq!(sink.send(Event::message("")), gone());
    assert_eq!(sink.send_raw(b"x"), gone());
    assert_eq!(sink.send_by(Event::message(""), soon), gone());
    assert_eq!(sink.ended(), Some(DisconnectReason::Gone));
}

#[test]
fn an_event_larger_than_all_the_room_goes_out_alone() {
    let (served, sinks) = streaming(SinkOptions::new().buffer_bytes_max(1_000));
    let mut client = served.subscribe("/stream");
    let sink = receive(&sinks);
    for n in 0..5 {
        sink.send(Event::message(large(n))).unwrap();
    }
    drop(sink);
    let all: Vec<String> = (0..5).map(large).collect();
    assert_eq!(summaries(&client.rest()), all);
}

#[test]
fn a_sink_on_the_engines_thread_does_not_wait_and_delivers_accepted_events() {
    // Small events too fill a sink: what keeps them counts.
    for size in [1, 100, 1_000, 30_000, 60_000] {
        let data = move |n: u32| format!("{n} {}", "x".repeat(size));
        let (sender, results) = mpsc::channel();
        let builder = Engine::builder().get("/stream", move |_| {
            let sender = sender.clone();
            Response::stream(move |sink| {
                let mut sent = 0;
                let refused = loop {
                    match sink.send(Event::message(data(sent))) {
                        Ok(()) => sent += 1,
                        Err(error) => break error,
                    }
                };
                sender.send((sent, refused)).unwrap();
            })
        });
        let served = Served::start(builder);
        let mut client = served.subscribe("/stream");
        let (sent, refused) = receive(&results);
        assert_eq!(refused, SinkError::Full);
        let all: Vec<String> = (0..sent).map(data).collect();
        assert_eq!(summaries(&client.rest()), all);
    }
}

#[test]
fn a_stream_may_resume_by_ids_of_its_own() {
    let builder = Engine::builder().get("/count", |request| {
        let from = match request.start() {
            Start::After(id) => id.parse::<u32>().unwrap() + 1,
            _ => 0,
        };
        Response::stream(move |sink| {
            thread::spawn(move || {
                for n in from..10 {
                    let event = Event::message(n.to_string()).with_id(n.to_string());
                    sink.send(event).unwrap();
                }
            });
        })
    });
    let served = Served::start(builder);
    let mut client = served.subscribe("/count");
    assert_eq!(summaries(&client.take(4)), ["0", "1", "2", "3"]);
    drop(client);
    let mut client = served.resubscribe("/count", "3");
    assert_eq!(summaries(&client.rest()), ["4", "5", "6", "7", "8", "9"]);
}

#[test]
fn a_stream_may_be_the_answer_from_another_thread() {
    let builder = Engine::builder().get("/later", |_| {
        Response::deferred(|responder: Responder| {
            thread::spawn(move || {
                responder.respond(Response::stream(|sink| {
                    sink.send(Event::message("at last")).unwrap();
                }));
            });
        })
    });
    let served = Served::start(builder);
    assert_eq!(summaries(&served.subscribe("/later").rest()), ["at last"]);
}

#[test]
fn a_silent_stream_has_heartbeats_too() {
    let options = SinkOptions::new().heartbeat(Duration::from_millis(100));
    let (served, sinks) = streaming(options);
    let mut client = served.subscribe("/stream");
    let sink = receive(&sinks);
    while client.pings() < 4 {
        assert!(client.read(1_000));
    }
    drop(sink);
    client.expect_end();
}

#[test]
fn streams_for_one_client_are_no_channels() {
    let channels = ChannelManager::new();
    let (sender, sinks) = mpsc::channel();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", move |_| {
            let sender = sender.clone();
            Response::stream(move |sink| sender.send(sink).unwrap())
        });
    let served = Served::start(builder);
    let mut client = served.subscribe("/stream");
    let sink = receive(&sinks);
    let stats = channels.stats();
    assert_eq!((stats.channels, stats.clients), (0, 0));
    assert_eq!(channels.remove_empty(), 0);
    assert_eq!(channels.close_all(), 0);
    assert_eq!(
        channels.broadcast_all(Event::message("x")).unwrap().clients,
        0
    );
    sink.send(Event::message("mine")).unwrap();
    drop(sink);
    assert_eq!(summaries(&client.rest()), ["mine"]);
}

#[test]
fn a_shutdown_leaves_a_sink_its_deadline_and_the_sink_can_ask_whether_there_is_one() {
    let (served, sinks) = streaming(SinkOptions::new());
    let mut client = served.subscribe("/stream");
    let mut idle = served.connect();
    let sink = receive(&sinks);
    sink.send(Event::message("before")).unwrap();
    assert!(!sink.is_draining());
    served.shutdown(PATIENCE);
    assert!(sink.is_draining());
    // Idle connections have had their last moment when this one has ended.
    idle.expect_end();
    assert_eq!(sink.ended(), None);
    sink.send(Event::message("meanwhile")).unwrap();
    sink.close();
    assert_eq!(summaries(&client.rest()), ["before", "meanwhile"]);
    served.join();
}

#[test]
fn a_sink_learns_that_it_was_the_shutdown_that_ended_its_stream() {
    let (served, sinks) = streaming(SinkOptions::new());
    let mut client = served.subscribe("/stream");
    let sink = receive(&sinks);
    for n in 0..10 {
        sink.send(Event::message(n.to_string())).unwrap();
    }
    served.shutdown(Duration::from_millis(300));
    assert_eq!(client.rest().len(), 10);
    assert!(client.retry().is_some());
    served.join();
    let shut_down = SinkError::Ended(DisconnectReason::Shutdown);
    assert!(shut_down.to_string().contains("the engine has shut down"));
    assert_eq!(sink.send(Event::message("")), Err(shut_down.clone()));

    let (served, _connection, sink, _) = filled();
    let sender = thread::spawn(move || sink.send(Event::message(large(0))));
    served.shutdown(Duration::from_millis(300));
    assert_eq!(sender.join().unwrap(), Err(shut_down));
}

/// A logger that fails, and the engine's thread with it.
struct Failing;

impl log::Log for Failing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let message = record.args().to_string();
        assert!(!message.contains("and the log fails"), "the log fails");
    }

    fn flush(&self) {}
}

#[test]
fn an_engine_whose_thread_panics_disconnects_its_clients_and_wakes_its_sinks() {
    // Nothing else in this program logs such a message.
    log::set_logger(&Failing).unwrap();
    log::set_max_level(log::LevelFilter::Error);
    let (sender, sinks) = mpsc::channel();
    let (reported, reasons) = mpsc::channel();
    let builder = Engine::builder()
        .get("/stream", move |_| {
            let sender = sender.clone();
            Response::stream(move |sink| sender.send(sink).unwrap())
        })
        .get("/channels", move |request| {
            let [a, b] = ["a", "b"].map(|name| request.channels().get_or_create(name).unwrap());
            let reported = reported.clone();
            let tell = move |_: &_, reason| reported.send(reason).unwrap();
            Subscription::new(&a).and(&b).on_disconnect(tell)
        })
        .get("/panic", |_| -> &str {
            panic!("a handler panics, and the log fails")
        });
    let running = builder.bind("127.0.0.1:0").unwrap().spawn().unwrap();
    let (address, channels) = (running.local_addr(), running.channels().clone());
    let mut member = Subscriber::open(address, "/channels", &[]);
    eventually("it has joined", || channels.total_clients() == 2);
    let mut connection = Connection::narrow(address);
    connection.send("GET /stream HTTP/1.1\r\nHost: test\r\n\r\n");
    let sink = receive(&sinks);
    let sender = thread::spawn(move || {
        while sink.send(Event::message(large(0))).is_ok() {}
        sink.send(Event::message(""))
    });
    let mut panicking = Connection::open(address);
    panicking.send("GET /panic HTTP/1.1\r\nHost: test\r\n\r\n");

    assert!(running.join().is_err());
    let failed = SinkError::Ended(DisconnectReason::Failed);
    assert_eq!(sender.join().unwrap(), Err(failed));
    assert_eq!(receive(&reasons), DisconnectReason::Failed);
    assert!(reasons.try_recv().is_err(), "once");
    assert_eq!(channels.total_clients(), 0);
    member.expect_end();
}

#[test]
fn a_thread_that_ran_an_engine_may_wait_for_a_client_again() {
    let engine = Engine::builder().bind("127.0.0.1:0").unwrap();
    engine.handle().shutdown(Duration::ZERO);
    engine.run().unwrap();

    let (served, sinks) = streaming(SinkOptions::new().buffer_bytes_max(1));
    let mut client = served.subscribe("/stream");
    let sink = receive(&sinks);
    let reading = thread::spawn(move || client.rest().len());
    for n in 0..1_000 {
        assert_eq!(sink.send(Event::message(n.to_string())), Ok(()));
    }
    drop(sink);
    assert_eq!(reading.join().unwrap(), 1_000);
}
