//! The engine's limits on real sockets: what a client receives at each, and that there is
//! room again afterwards. `http.rs` has the limits of a request's size and time,
//! `channels.rs` those of channels.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::io::{Read, Write};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::client::Answer;
use common::{Connection, Served, Subscriber, eventually, receive};
use pushwheel::{
    Channel, ChannelManager, Engine, EngineBuilder, EngineHandle, Event, Limits, Request,
    Responder, Response,
};

/// An engine with a channel at `/stream`, a sink at `/sink` and a page at
/// `/hello`.
fn engine() -> (EngineBuilder, Channel) {
    let channels = ChannelManager::new();
    let channel = channels.get_or_create("news").unwrap();
    let stream = channel.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", move |_| Response::subscribe(&stream))
        .get("/sink", |_| Response::stream(drop))
        .get("/hello", |_| "hello")
        .post("/echo", |request| Response::bytes(request.body().to_vec()));
    (builder, channel)
}

/// The request of a browser's `EventSource`.
fn browser(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n\r\n")
}

/// The request of another client.
fn plain(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// Checks the response at a limit to a client that is not a browser.
#[track_caller]
fn check_turned_away(answer: &Answer, code: &str) {
    assert_eq!((answer.status, &*answer.error_code()), (503, code));
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((2..=10).contains(&seconds), "{seconds}");
}

/// Checks the response at a limit to a browser: a stream that ends, with a `retry`.
#[track_caller]
fn check_sent_off(mut stream: Subscriber) {
    stream.expect_end();
    let retry_ms = stream.retry().expect("it says when to come back");
    assert!((2_000..10_000).contains(&retry_ms), "{retry_ms}");
}

/// Asks as a browser, until there is room.
fn subscribe_when_there_is_room(served: &Served) -> Subscriber {
    let mut found = None;
    eventually("there is room", || {
        let mut stream = served.subscribe("/stream");
        let has_room = stream.read(1 << 10) && stream.retry().is_none();
        found = has_room.then_some(stream);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_full_engine_sends_browsers_off_with_200_and_others_with_503_and_answers_the_rest() {
    let (builder, channel) = engine();
    let served = Served::start(builder.connections_max(3));
    let mut inside: Vec<Subscriber> = (0..3).map(|_| served.subscribe("/stream")).collect();
    for path in ["/stream", "/sink"] {
        check_sent_off(served.subscribe(path));
        let mut other = served.connect();
        let answer = other.get(path);
        check_turned_away(&answer, "server_full");
        assert_eq!(answer.header("connection"), Some("close"));
        other.expect_end();
    }
    // A request for something else than a stream is answered, once.
    let mut extra = served.connect();
    extra.send([plain("/hello"), plain("/hello")].concat());
    let answer = extra.answer();
    assert_eq!(
        (answer.text(), answer.header("connection")),
        ("hello", Some("close"))
    );
    extra.expect_end();
    let mut wrong = served.connect();
    wrong.send("no HTTP\r\n\r\n");
    assert_eq!(wrong.answer().status, 400);

    channel.broadcast(Event::message("inside")).unwrap();
    for stream in &mut inside {
        assert_eq!(stream.next().data, "inside");
    }
    inside.pop();
    let mut latecomer = subscribe_when_there_is_room(&served);
    channel.broadcast(Event::message("again")).unwrap();
    assert_eq!(latecomer.next().data, "again");
}

#[test]
fn a_flood_of_connections_over_the_limit_does_not_affect_accepted_ones() {
    let (builder, channel) = engine();
    let served = Served::start(builder.connections_max(20));
    let mut inside: Vec<Subscriber> = (0..20).map(|_| served.subscribe("/stream")).collect();
    // Ten times as many as there are overflow places. They send nothing or half
    // a word.
    let mut flood = Vec::new();
    for n in 0..2_560 {
        let mut connection = served.connect();
        if n % 2 == 0 {
            connection.try_send("GET /str");
        }
        flood.push(connection);
        if n % 128 == 0 {
            channel.broadcast(Event::message(n.to_string())).unwrap();
            for stream in &mut inside {
                assert_eq!(stream.next().data, n.to_string());
            }
            // There is a place for the next: the eldest has made room.
            assert_eq!(served.connect().get("/hello").text(), "hello");
            check_sent_off(served.subscribe("/stream"));
        }
    }
    // The engine holds no more of them than there are places for.
    #[cfg(target_os = "linux")]
    {
        let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
        assert!(open < flood.len() + 800, "{open} descriptors are open");
    }
    // A connection that made room is closed, and nothing of it is left.
    for connection in &mut flood[..2_000] {
        connection.expect_end();
    }
    drop(flood);
    drop(inside);
    for _ in 0..20 {
        subscribe_when_there_is_room(&served);
    }
}

#[test]
fn a_silent_overflow_connection_is_closed_after_five_seconds() {
    let (builder, _) = engine();
    let served = Served::start(builder.connections_max(0));
    let mut silent = served.connect();
    let mut slow = served.connect();
    slow.send("GET /hello HT");
    silent.expect_end();
    slow.expect_end();
}

#[test]
fn an_engine_is_full_when_its_descriptors_are_taken_but_for_an_eighth() {
    let (builder, _) = engine();
    let served = Served::start(builder.descriptors_max(80));
    let _inside: Vec<Subscriber> = (0..70).map(|_| served.subscribe("/stream")).collect();
    assert_eq!(served.handle().connections(), 70);
    check_sent_off(served.subscribe("/stream"));
    let mut silent: Vec<Connection> = (0..100).map(|_| served.connect()).collect();
    assert_eq!(served.connect().get("/hello").text(), "hello");
    // Ten of them are overflow connections, and the others have made room.
    for connection in &mut silent[..90] {
        connection.expect_end();
    }
    // Other limits leave the descriptors what they are.
    served.handle().set_limits(&Limits::default());
    check_sent_off(served.subscribe("/stream"));
}

#[test]
fn an_address_has_so_many_connections_and_others_have_theirs() {
    let (builder, channel) = engine();
    let served = Served::start(builder.connections_per_address_max(2));
    let from = |last: u8| Connection::from_address([127, 0, 0, last].into(), served.address());
    let subscribe = |last| Subscriber::over(from(last), "/stream", &[]);
    let mut inside: Vec<Subscriber> = [5, 5, 6].map(subscribe).into();
    check_sent_off(subscribe(5));
    check_turned_away(&from(5).get("/stream"), "address_full");
    assert_eq!(from(5).get("/hello").text(), "hello");
    inside.push(subscribe(6));
    channel.broadcast(Event::message("to all four")).unwrap();
    for stream in &mut inside {
        assert_eq!(stream.next().data, "to all four");
    }
    check_sent_off(subscribe(6));
    // A connection counts for its address from its first to its last moment.
    drop(inside.remove(0));
    eventually("there is room for the address", || {
        let mut stream = subscribe(5);
        stream.read(1 << 10) && stream.retry().is_none()
    });
}

#[test]
fn a_limit_holds_for_all_threads_together() {
    let (builder, _) = engine();
    let builder = builder.threads(3).connections_max(8);
    let engine = builder.bind("127.0.0.1:0").unwrap();
    let (handle, address) = (engine.handle(), engine.local_addr());
    let running = engine.spawn().unwrap();
    let mut inside = Vec::new();
    for _ in 0..40 {
        let mut stream = Subscriber::open(address, "/stream", &[]);
        match stream.read(1 << 10) && stream.retry().is_none() {
            true => inside.push(stream),
            false => check_sent_off(stream),
        }
    }
    assert_eq!((inside.len(), handle.connections()), (8, 8));
    drop(inside);
    eventually("no connection counts any more", || {
        handle.connections() == 0
    });
    running.shutdown(Duration::ZERO).unwrap();
}

/// An engine whose `/later` leaves its responders to the test.
fn deferring(limits: Limits) -> (Served, EngineHandle, mpsc::Receiver<Responder>) {
    let (builder, responders) = common::deferring(engine().0.limits(limits));
    let served = Served::start(builder.after(|_, response| {
        let set = response.headers_mut().insert("X-Seen", "yes");
        set.unwrap();
    }));
    let handle = served.handle();
    (served, handle, responders)
}

#[test]
fn too_many_requests_in_flight_are_503_until_one_is_answered() {
    let mut limits = Limits::default();
    limits.requests_in_flight_max = 2;
    let (served, handle, responders) = deferring(limits);
    let mut waiting = [served.connect(), served.connect()];
    for connection in &mut waiting {
        connection.send(plain("/later"));
    }
    let (first, second) = (receive(&responders), receive(&responders));
    assert_eq!(handle.requests_in_flight(), 2);
    let mut other = served.connect();
    let answer = other.get("/later");
    check_turned_away(&answer, "too_many_in_flight");
    assert_eq!(answer.header("x-seen"), Some("yes"));
    assert_eq!(
        other.get("/hello").text(),
        "hello",
        "its connection goes on"
    );
    let mut asked = served.connect();
    asked.send(browser("/later"));
    check_sent_off(Subscriber::begun(asked));
    // Another method gets no stream.
    other.send(browser("/later").replacen("GET", "POST", 1));
    check_turned_away(&other.answer(), "too_many_in_flight");
    other.send(browser("/later").replacen("GET", "HEAD", 1));
    let head = other.head();
    assert_eq!(
        (head.status, head.header("content-type")),
        (503, Some("application/json"))
    );
    assert_eq!(other.get("/hello").text(), "hello", "there was no body");

    // The request of a client that has gone counts until it is answered.
    let [gone, mut patient] = waiting;
    gone.reset();
    check_turned_away(&other.get("/later"), "too_many_in_flight");
    first.respond("too late");
    second.respond("at last");
    let _ = patient.answer();
    eventually("both are answered", || handle.requests_in_flight() == 0);
    other.send(plain("/later"));
    receive(&responders).respond("there is room");
    assert_eq!(other.answer().text(), "there is room");
    // A request whose responder is dropped is answered too.
    other.send(plain("/later"));
    drop(receive(&responders));
    assert_eq!(other.answer().status, 500);
    eventually("it is over", || handle.requests_in_flight() == 0);
}

#[test]
fn a_thousand_requests_in_one_read_let_others_have_their_turn() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (go, gate) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    let gate = Mutex::new(gate);
    let book = asked.clone();
    let builder = Engine::builder()
        .get("/wait", move |_| {
            begun.send(()).unwrap();
            gate.lock().unwrap().recv().unwrap();
            "go"
        })
        .get("/{name}", move |request| {
            let name = request.param("name").unwrap().to_owned();
            book.lock().unwrap().push(name.clone());
            name
        });
    let served = Served::start(builder);
    let mut greedy = served.connect();
    greedy.send([plain("/wait"), plain("/greedy").repeat(1_500)].concat());
    receive(&has_begun);
    // While the engine is held up, another one asks.
    let mut polite = served.connect();
    polite.send(plain("/polite"));
    go.send(()).unwrap();
    assert_eq!(polite.answer().text(), "polite");
    for name in std::iter::once("go").chain(std::iter::repeat_n("greedy", 1_500)) {
        assert_eq!(greedy.answer().text(), name);
    }
    let asked = asked.lock().unwrap();
    let before = asked.iter().position(|name| name == "polite").unwrap();
    assert!(before < 700, "{before} of 1,500 came first");
}

#[test]
fn a_body_that_drips_in_has_a_deadline_in_all() {
    let (builder, _) = engine();
    let builder = builder.body_timeout(Duration::from_millis(500));
    // Between two parts there is time enough.
    let served = Served::start(builder.head_timeout(Duration::from_secs(60)));
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let mut connection = served.connect();
        connection.send(format!(
            "POST /echo HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n5;"
        ));
        let answer = connection.drip();
        let code = answer.error_code();
        assert_eq!((answer.status, &*code), (408, "request_timeout"));
    }
    // The next body has its own time.
    let mut connection = served.connect();
    for _ in 0..3 {
        assert_eq!(connection.post("/echo", "all of it").text(), "all of it");
    }
}

#[test]
fn an_engine_takes_other_limits_while_it_runs() {
    let (builder, _) = engine();
    let mut limits = Limits::default();
    limits.connections_max = 2;
    let served = Served::start(builder.limits(limits.clone()));
    let mut inside = vec![served.subscribe("/stream"), served.subscribe("/stream")];
    check_sent_off(served.subscribe("/stream"));
    let mut others = limits.clone();
    others.connections_max = 3;
    others.body_bytes_max = 4;
    served.handle().set_limits(&others);
    inside.push(subscribe_when_there_is_room(&served));
    check_sent_off(served.subscribe("/stream"));
    assert_eq!(served.connect().post("/echo", "four").text(), "four");
    let answer = served.connect().post("/echo", "fives");
    assert_eq!(
        (answer.status, &*answer.error_code()),
        (413, "payload_too_large")
    );

    // A lower limit closes no connection, and admits no new one.
    served.handle().set_limits(&limits);
    eventually("the limit is lower", || {
        served.connect().post("/echo", "fives").status == 200
    });
    inside.pop();
    eventually("one has gone", || served.handle().connections() == 2);
    check_sent_off(served.subscribe("/stream"));
    assert!(inside.iter_mut().all(|stream| stream.arrived().is_empty()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_rush_of_connections_waits_in_the_listen_queue_until_it_is_accepted() {
    // The usual queue of 128 would leave some of them to the kernel's retries.
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let rush = somaxconn.trim().parse::<usize>().unwrap().min(300);
    let engine = engine().0.bind("127.0.0.1:0").unwrap();
    let connect = |_| {
        let time = Duration::from_secs(20);
        std::net::TcpStream::connect_timeout(&engine.local_addr(), time).unwrap()
    };
    let mut waiting: Vec<_> = (0..rush).map(connect).collect();
    let running = engine.spawn().unwrap();
    for stream in &mut waiting {
        stream.write_all(plain("/hello").as_bytes()).unwrap();
    }
    for stream in &mut waiting {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    running.shutdown(Duration::ZERO).unwrap();
}

#[test]
fn an_engine_has_at_most_64_threads() {
    let bind = |threads| Engine::builder().threads(threads).bind("127.0.0.1:0");
    assert!(bind(64).is_ok());
    for threads in [0, 65] {
        let bound = std::panic::catch_unwind(|| bind(threads).map(drop));
        assert!(bound.is_err(), "{threads}");
    }
}

#[test]
fn an_error_that_passes_says_when_to_come_back() {
    let not_yet = |_: &Request| {
        Response::error(503, "not_yet", "the game has not begun: come back")
            .come_back_after(Duration::from_secs(60))
    };
    let builder = Engine::builder().get("/game", not_yet);
    let served = Served::start(builder.post("/game", not_yet));
    let mut connection = served.connect();
    connection.send(browser("/game"));
    let mut stream = Subscriber::begun(connection);
    stream.expect_end();
    let retry_ms = stream.retry().unwrap();
    assert!((62_000..70_000).contains(&retry_ms), "{retry_ms}");
    let post = browser("/game").replacen("GET", "POST", 1);
    for request in [plain("/game"), post] {
        let mut connection = served.connect();
        connection.send(request);
        let answer = connection.answer();
        assert_eq!((answer.status, &*answer.error_code()), (503, "not_yet"));
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((63..=70).contains(&seconds), "{seconds}");
    }
}
