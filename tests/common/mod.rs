//! What the tests on real sockets share: an engine that ends with its test, a client that
//! shares no code with the package, and waiting without sleeping.
//!
//! A test reads from a socket, receives a message from a callback, or polls a condition.
//! It fails if that takes longer than [`PATIENCE`].

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "each test takes its part of it; a deadline needs a clock"
)]

use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use pushwheel::{
    Channel, ChannelManager, ChannelOptions, Engine, EngineBuilder, EngineHandle, Request,
    Responder, Response, RunningEngine,
};

pub mod client;
pub mod readers;
pub mod sse;

pub use client::{Connection, Subscriber};

/// Deadline of each wait. Only a test that fails waits for all of it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An engine on a free port of this machine, shut down when it is dropped.
#[derive(Debug)]
pub struct Served {
    running: Option<RunningEngine>,
}

impl Served {
    pub fn start(builder: EngineBuilder) -> Served {
        let engine = builder.bind("127.0.0.1:0").expect("a port is free");
        let running = engine.spawn().expect("there is a thread to be had");
        Served {
            running: Some(running),
        }
    }

    /// An engine that streams one channel at `/stream`.
    pub fn channel(options: ChannelOptions) -> (Served, Channel) {
        // Nothing is published again from before a restart.
        let channels = ChannelManager::builder()
            .defaults(options)
            .republish_window(Duration::ZERO)
            .build();
        let channel = channels.get_or_create("news").unwrap();
        let stream = channel.clone();
        let builder = Engine::builder()
            .channels(&channels)
            .get("/stream", move |_| pushwheel::Subscription::new(&stream));
        (Served::start(builder), channel)
    }

    fn running(&self) -> &RunningEngine {
        self.running.as_ref().expect("it runs until it is dropped")
    }

    pub fn address(&self) -> SocketAddr {
        self.running().local_addr()
    }

    pub fn channels(&self) -> &ChannelManager {
        self.running().channels()
    }

    pub fn handle(&self) -> EngineHandle {
        self.running().handle()
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address())
    }

    pub fn subscribe(&self, path: &str) -> Subscriber {
        Subscriber::open(self.address(), path, &[])
    }

    /// As a browser does that comes back.
    pub fn resubscribe(&self, path: &str, last_event_id: &str) -> Subscriber {
        Subscriber::open(self.address(), path, &[("Last-Event-ID", last_event_id)])
    }

    pub fn shutdown(&self, how: impl Into<pushwheel::Shutdown>) {
        self.running().handle().shutdown(how);
    }

    /// Waits until the engine's thread has come to its end.
    pub fn join(mut self) {
        let running = self.running.take().expect("it runs until it is dropped");
        running.join().expect("the poller works");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let over = running.shutdown(Duration::ZERO);
            if !std::thread::panicking() {
                over.expect("the poller works");
            }
        }
    }
}

/// With `/later`, whose requests, GET or POST, are the test's to answer.
pub fn deferring(builder: EngineBuilder) -> (EngineBuilder, Receiver<Responder>) {
    let (sender, responders) = mpsc::channel();
    let later = move |_: &Request| {
        let sender = sender.clone();
        Response::deferred(move |responder: Responder| sender.send(responder).unwrap())
    };
    let builder = builder.get("/later", later.clone());
    (builder.post("/later", later), responders)
}

/// Waits until `condition` holds.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        // Gives up the processor; a test that only spun would starve the engine.
        std::thread::park_timeout(Duration::from_micros(200));
    }
}

/// Takes the next message that a callback or another thread has sent.
#[track_caller]
pub fn receive<T>(receiver: &Receiver<T>) -> T {
    match receiver.recv_timeout(PATIENCE) {
        Ok(message) => message,
        Err(RecvTimeoutError::Timeout) => panic!("no message came"),
        Err(RecvTimeoutError::Disconnected) => panic!("the sender is gone"),
    }
}

/// `name data` of each event, for comparing at a glance.
pub fn summaries(events: &[sse::Dispatched]) -> Vec<String> {
    let tell = |event: &sse::Dispatched| match event.name.as_str() {
        "message" => event.data.clone(),
        name => format!("{name} {}", event.data),
    };
    events.iter().map(tell).collect()
}

/// The sequence number in one of the engine's ids.
#[track_caller]
pub fn sequence(id: &str) -> u64 {
    let (_, digits) = id.rsplit_once('-').expect("an id of the engine's");
    digits.parse().expect("it ends with a number")
}
