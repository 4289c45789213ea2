//! The load: many subscribers and one publisher on one thread.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::client::{Client, Expected, Progress};
use super::histogram::Histogram;
use super::publisher::{PUBLISHER, Publisher, connect, source};
use super::server::Url;
use super::{Result, fault};

/// Subscribers and a publisher of one channel.
#[derive(Debug)]
pub(crate) struct Load {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    clients: Vec<Client>,
    subscribe_to: SocketAddr,
    subscribe: Vec<u8>,
    publish_path: String,
    pub(crate) publisher: Publisher,
    expected: Expected,
    /// The maximum time for every action of the server.
    timeout: Duration,
    /// Read in the same turns, but a little at a time.
    pub(crate) background: Option<Box<dyn Background>>,
}

/// A load of other channels of the same server.
pub(crate) trait Background: std::fmt::Debug {
    /// Starts to broadcast without pause, if the options have that.
    fn begin(&mut self);

    /// Reads a little, and publishes if needed. Returns whether it has to be called again
    /// immediately.
    fn turn(&mut self) -> Result<bool>;
}

/// The way to publish several events together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Together {
    /// In one body, one event per line.
    Ndjson,
    /// In separate requests, sent together.
    Pipelined,
}

/// The time of one publication until all clients had it.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    /// Until the last client had it.
    pub(crate) last: Duration,
    /// The times of all deliveries.
    pub(crate) all: Histogram,
}

impl Load {
    /// `events_a_turn` is the maximum number of sockets per poll.
    pub(crate) fn new(subscribe: &Url, publish: &Url, events_a_turn: usize) -> Result<Load> {
        Ok(Load {
            poll: Poll::new()?,
            events: Events::with_capacity(events_a_turn),
            buffer: vec![0; 64 << 10],
            clients: Vec::new(),
            subscribe_to: subscribe.address,
            subscribe: subscription(subscribe),
            publish_path: publish.path.clone(),
            publisher: Publisher::new(publish),
            expected: Expected::default(),
            timeout: TIMEOUT,
            background: None,
        })
    }

    /// Sets the name of events that clients read and do not count.
    pub(crate) fn ignore(&mut self, event: &str) {
        self.expected.ignore(event);
    }

    pub(crate) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Returns the number of the last published event.
    pub(super) fn newest(&self) -> u64 {
        self.expected.newest()
    }

    /// Connects further subscribers to another channel, or to another server.
    pub(crate) fn subscribe_to(&mut self, channel: &Url) {
        self.subscribe_to = channel.address;
        self.subscribe = subscription(channel);
    }

    /// Connects more clients, and waits for the head of each. Connects in batches that
    /// fit into a listen queue: a full queue costs a second.
    pub(crate) fn connect(&mut self, clients: usize) -> Result<()> {
        let mut left = clients;
        while left > 0 {
            let batch = CONNECT_BATCH.min(left);
            for _ in 0..batch {
                self.connect_one()?;
            }
            left -= batch;
            let mut heads = 0;
            self.wait(|progress| {
                heads += progress.heads;
                heads == batch
            })?;
        }
        Ok(())
    }

    fn connect_one(&mut self) -> Result<()> {
        let number = self.clients.len();
        let mut stream = connect(self.subscribe_to, source(number))?;
        stream.write_all(&self.subscribe)?;
        self.poll
            .registry()
            .register(&mut stream, Token(number), Interest::READABLE)?;
        self.clients
            .push(Client::new(stream, self.expected.newest()));
        Ok(())
    }

    pub(crate) fn disconnect(&mut self) {
        self.clients.clear();
    }

    /// Publishes several events together.
    pub(crate) fn publish_together(
        &mut self,
        events: usize,
        bytes: usize,
        how: Together,
    ) -> Result<()> {
        self.add(events, bytes, how);
        self.send()
    }

    /// Queues a publication after those that are not sent yet.
    pub(crate) fn add(&mut self, events: usize, bytes: usize, how: Together) {
        let path = &self.publish_path;
        let mut batch = Vec::new();
        for _ in 0..events {
            let body = self.expected.add(bytes);
            if how == Together::Pipelined || events == 1 {
                self.publisher.add(path, "text/plain", body);
                continue;
            }
            batch.extend_from_slice(br#"{"data":""#);
            batch.extend_from_slice(body);
            batch.extend_from_slice(b"\"}\n");
        }
        if !batch.is_empty() {
            self.publisher.add(path, "application/x-ndjson", &batch);
        }
    }

    pub(crate) fn send(&mut self) -> Result<()> {
        self.publisher.send(self.poll.registry())
    }

    /// Publishes events together. Returns when every client has them and the publisher
    /// has its responses.
    pub(crate) fn deliver(
        &mut self,
        events: usize,
        bytes: usize,
        how: Together,
    ) -> Result<Delivered> {
        let published = Instant::now();
        self.publish_together(events, bytes, how)?;
        let mut delivered = Delivered::default();
        let mut waiting = self.clients.len() * events;
        while waiting > 0 {
            let progress = self.turn_with(self.timeout, |_, events| {
                delivered.last = published.elapsed();
                delivered.all.add(delivered.last, events);
            })?;
            waiting -= progress.events;
            if published.elapsed() > self.timeout {
                return fault(format!(
                    "not all {} clients received all events within {:?}. {waiting} deliveries \
                     are missing",
                    self.clients.len(),
                    self.timeout
                ));
            }
        }
        self.await_answers()?;
        Ok(delivered)
    }

    pub(crate) fn await_answers(&mut self) -> Result<()> {
        self.await_answers_but(0)
    }

    /// Waits until at most so many requests have no response.
    pub(crate) fn await_answers_but(&mut self, unanswered_max: usize) -> Result<()> {
        let (mut since, mut unanswered) = (Instant::now(), self.publisher.unanswered());
        while unanswered > unanswered_max {
            self.turn(self.timeout)?;
            let now = self.publisher.unanswered();
            if now < unanswered {
                (since, unanswered) = (Instant::now(), now);
            } else if since.elapsed() > self.timeout {
                let time = self.timeout;
                return fault(format!("a request got no response within {time:?}"));
            }
        }
        Ok(())
    }

    /// Reads for a time in which clients receive only heartbeats.
    pub(crate) fn idle(&mut self, time: Duration) -> Result<Progress> {
        let until = Instant::now() + time;
        let mut total = Progress::default();
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            total += self.turn(left)?;
        }
        match total.events {
            0 => Ok(total),
            _ => fault("a client received an event that was not published"),
        }
    }

    /// Reads until `done` returns true for the result of a turn.
    fn wait(&mut self, mut done: impl FnMut(Progress) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !done(self.turn(self.timeout)?) {
            if begun.elapsed() > self.timeout {
                let time = self.timeout;
                return fault(format!(
                    "not all clients received a response head within {time:?}"
                ));
            }
        }
        Ok(())
    }

    /// Waits for readiness, and reads.
    pub(crate) fn turn(&mut self, timeout: Duration) -> Result<Progress> {
        self.turn_with(timeout, |_, _| {})
    }

    /// Calls `on_events` for each client that receives events, with the number of its
    /// newest event and how many there are.
    pub(super) fn turn_with(
        &mut self,
        timeout: Duration,
        mut on_events: impl FnMut(u64, usize),
    ) -> Result<Progress> {
        let is_busy = match &mut self.background {
            Some(background) => background.turn()?,
            None => false,
        };
        let timeout = if is_busy { Duration::ZERO } else { timeout };
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Progress::default()),
            result => result?,
        }
        let mut total = Progress::default();
        for event in &self.events {
            if event.token() == PUBLISHER {
                self.publisher.read(&mut self.buffer)?;
                if event.is_writable() {
                    self.publisher.send(self.poll.registry())?;
                }
            } else if let Some(client) = self.clients.get_mut(event.token().0) {
                let progress = client.read(&mut self.buffer, &self.expected)?;
                if progress.events > 0 {
                    on_events(client.newest(), progress.events);
                }
                total += progress;
            }
        }
        Ok(total)
    }
}

/// Returns the request of a subscriber.
pub(super) fn subscription(to: &Url) -> Vec<u8> {
    let Url { path, host, .. } = to;
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n\r\n").into_bytes()
}

const CONNECT_BATCH: usize = 100;
/// The maximum time for every action of a server.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_server_without_responses_is_a_fault_after_the_timeout() {
        // The kernel accepts the connection and the request. No response comes.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let url = Url {
            address,
            host: address.to_string(),
            path: "/channels/a".to_owned(),
        };
        let mut load = Load::new(&url, &url, 16).unwrap();
        load.timeout = Duration::from_millis(20);
        for _ in 0..3 {
            load.publisher.add(&url.path, "text/plain", b"event");
        }
        load.send().unwrap();
        assert!(load.await_answers_but(3).is_ok());
        let error = load.await_answers_but(2).unwrap_err().to_string();
        assert_eq!(error, "a request got no response within 20ms");
    }
}
