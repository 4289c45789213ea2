//! Engines that listen on several sockets, of TCP and UNIX.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use common::{Connection, Subscriber, eventually, summaries};
use pushwheel::{
    Channel, ChannelManager, ChannelOptions, Engine, EngineBuilder, Event, History, LagPolicy,
    Listener, RunningEngine, Subscription,
};

/// A UNIX socket in the directory for temporary files, and its path.
struct Unix {
    socket: Option<UnixListener>,
    path: PathBuf,
}

impl Unix {
    fn new(name: &str) -> Unix {
        let name = format!("pushwheel-{name}-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        // A killed process with this id may have left it.
        let _ = std::fs::remove_file(&path);
        let socket = Some(UnixListener::bind(&path).unwrap());
        Unix { socket, path }
    }

    fn listener(&mut self) -> Listener {
        self.socket.take().unwrap().into()
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A builder with `/stream` and `/address`, and its channel.
fn builder(options: ChannelOptions) -> (EngineBuilder, Channel) {
    let channels = ChannelManager::builder().defaults(options).build();
    let channel = channels.get_or_create("news").unwrap();
    let stream = channel.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", move |_| Subscription::new(&stream))
        .get("/address", |request| request.client_address().to_string());
    (builder, channel)
}

fn on_unix(unix: &mut Unix, options: ChannelOptions) -> (RunningEngine, Channel) {
    let (builder, channel) = builder(options);
    let engine = builder.listen_on(unix.listener()).unwrap();
    (engine.spawn().unwrap(), channel)
}

#[test]
fn all_sockets_are_served_by_all_threads_and_closed_together() {
    let mut unix = Unix::new("all");
    let (builder, channel) = builder(ChannelOptions::new());
    let builder = builder.threads(2);
    let [one, other] = [(); 2].map(|()| builder.listener_at("127.0.0.1:0").unwrap());
    let [first, second] = [&one, &other].map(|one| one.local_addr().unwrap().unwrap());
    let listeners = [one, unix.listener(), other];
    assert_eq!(listeners[1].local_addr().unwrap(), None);
    let engine = builder.listen_on_all(listeners).unwrap();
    assert_eq!(engine.local_addr(), first);
    let running = engine.spawn().unwrap();
    // More than one for each thread and socket.
    let connect = |n: usize| match n % 3 {
        0 => Connection::open(first),
        1 => Connection::open(second),
        _ => Connection::unix(&unix.path),
    };
    let open = |n| Subscriber::over(connect(n), "/stream", &[]);
    let mut all: Vec<Subscriber> = (0..24).map(open).collect();
    eventually("all have joined", || channel.client_count() == all.len());
    channel.broadcast(Event::message("for all")).unwrap();
    for client in &mut all {
        assert_eq!(summaries(&client.take(1)), ["for all"]);
    }
    running.shutdown(Duration::ZERO).unwrap();
    for client in &mut all {
        client.expect_end();
    }
    assert!(std::os::unix::net::UnixStream::connect(&unix.path).is_err());
    for address in [first, second] {
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}

#[test]
fn a_peer_of_a_unix_socket_has_the_address_of_loopback() {
    let mut unix = Unix::new("peer");
    let (builder, _) = builder(ChannelOptions::new());
    let builder = builder.trusted_proxies(["127.0.0.1".parse().unwrap()]);
    let engine = builder.listen_on(unix.listener()).unwrap();
    assert_eq!(engine.local_addr().to_string(), "0.0.0.0:0");
    let running = engine.spawn().unwrap();
    let mut connection = Connection::unix(&unix.path);
    assert_eq!(connection.get("/address").text(), "127.0.0.1:0");
    // A proxy of this machine.
    let request = "GET /address HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
    connection.send(request);
    assert_eq!(connection.answer().text(), "192.0.2.7:0");
    running.shutdown(Duration::ZERO).unwrap();
}

#[test]
fn a_slow_client_of_a_unix_socket_receives_everything_in_order() {
    const EVENTS: usize = 2_000;
    let mut unix = Unix::new("slow");
    let history = History::events(EVENTS).bytes_max(64 << 20);
    let options = ChannelOptions::new().history(history);
    let (running, channel) = on_unix(&mut unix, options.backlog_bytes_max(64 << 20));
    let mut slow = Subscriber::over(Connection::unix(&unix.path), "/stream", &[]);
    eventually("it has joined", || channel.client_count() == 1);
    // Much more than the socket holds.
    let data = |n: usize| format!("{n} {}", "x".repeat(2_000));
    for n in 0..EVENTS {
        channel.broadcast(Event::message(data(n))).unwrap();
    }
    eventually("it is behind", || channel.clients()[0].behind > 0);
    for n in 0..EVENTS {
        assert_eq!(slow.next().data, data(n));
    }
    running.shutdown(Duration::ZERO).unwrap();
    slow.expect_end();
}

#[test]
fn a_slow_client_of_a_unix_socket_receives_the_newest_value_of_a_key() {
    let mut unix = Unix::new("conflate");
    let options = ChannelOptions::new().lag_policy(LagPolicy::Conflate);
    let (running, channel) = on_unix(&mut unix, options);
    let mut slow = Subscriber::over(Connection::unix(&unix.path), "/stream", &[]);
    eventually("it has joined", || channel.client_count() == 1);
    let data = |n: usize| format!("{n} {}", "x".repeat(2_000));
    let mut published = 0;
    eventually("it is behind", || {
        channel
            .broadcast(Event::message(data(published)).with_key("k"))
            .unwrap();
        published += 1;
        channel.clients()[0].behind > 0
    });
    for n in published..published + 100 {
        channel
            .broadcast(Event::message(data(n)).with_key("k"))
            .unwrap();
    }
    let last = data(published + 99);
    let mut received = 0;
    while slow.next().data != last {
        received += 1;
    }
    assert!(received < published + 99, "{received} of {published}");
    running.shutdown(Duration::ZERO).unwrap();
}

#[test]
fn an_engine_needs_a_socket() {
    let error = Engine::builder().listen_on_all([]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}
