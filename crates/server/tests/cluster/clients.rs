//! Many clients on one thread. Each keeps a stream of one channel, comes back with its last
//! event id when that ends, and remembers all that it has received.

use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::accepted::{Seen, short};
use crate::common::sse::{Dispatched, Parser};

/// The longest turn.
const TURN: Duration = Duration::from_millis(20);

/// The pause before a client comes back, in milliseconds.
const COMES_BACK_MS: Range<u64> = 20..200;

/// The data of the first event of each channel.
pub(crate) const BEGIN: &str = "begin";

/// The data of the last event of each channel.
pub(crate) const END: &str = "end";

/// What a client has received, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// Events of its channel, by their indices.
    Events(Range<usize>),
    Gap {
        reason: String,
        id: String,
    },
}

/// The events of a channel that some client has received, in the order of the first
/// reception.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) events: Vec<Seen>,
    indices: HashMap<Seen, usize>,
}

impl Known {
    fn index(&mut self, event: Seen) -> usize {
        let next = self.events.len();
        *self.indices.entry(event).or_insert_with_key(|event| {
            self.events.push(event.clone());
            next
        })
    }
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) channel: usize,
    /// Whether it asks for positions in heartbeats.
    pub(crate) has_cursor: bool,
    pub(crate) story: Vec<Item>,
    pub(crate) streams: usize,
    last_id: String,
    has_ended: bool,
    comes_back_at: Instant,
    last_read: Instant,
    stream: Option<Stream>,
}

impl Client {
    /// Returns the events of its channel that it has not received.
    pub(crate) fn missing<'a>(&self, events: &'a [Seen]) -> Vec<&'a Seen> {
        let has = |at: &usize| {
            let mut story = self.story.iter();
            story.any(|item| matches!(item, Item::Events(range) if range.contains(at)))
        };
        let missing = (0..events.len()).filter(|at| !has(at));
        missing.map(|at| &events[at]).collect()
    }
}

#[derive(Debug)]
struct Stream {
    socket: TcpStream,
    is_asked: bool,
    head: Option<Vec<u8>>,
    parser: Parser,
}

/// How the clients behave.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where to connect, drawn for each stream.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The channels, each with the id that its clients begin behind.
    pub(crate) channels: Vec<(String, String)>,
    pub(crate) clients: usize,
    /// A stream without a byte for this long is closed: heartbeats come each second.
    pub(crate) silence_max: Duration,
    pub(crate) seed: u64,
}

/// What a test sees of the clients while they run.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) streaming: AtomicUsize,
    pub(crate) received: AtomicUsize,
    pub(crate) ended: AtomicUsize,
    is_over: AtomicBool,
    /// Responses other than 200, by their status.
    pub(crate) refused: Mutex<BTreeMap<String, usize>>,
}

/// The running clients.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) progress: Arc<Progress>,
    count: usize,
    thread: JoinHandle<Received>,
}

/// The end of a run.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) channels: Vec<Known>,
    pub(crate) clients: Vec<Client>,
}

impl Clients {
    pub(crate) fn start(plan: Plan) -> Clients {
        let progress = Arc::<Progress>::default();
        let (shared, count) = (progress.clone(), plan.clients);
        let thread = thread::spawn(move || Loop::new(plan, shared).run());
        Clients {
            progress,
            count,
            thread,
        }
    }

    pub(crate) fn streaming(&self) -> usize {
        self.progress.streaming.load(Ordering::SeqCst)
    }

    pub(crate) fn received(&self) -> usize {
        self.progress.received.load(Ordering::SeqCst)
    }

    pub(crate) fn are_all_streaming(&self) -> bool {
        self.streaming() == self.count
    }

    /// Waits until each client has received the last event of its channel, or for so long.
    pub(crate) fn finish(self, patience: Duration) -> Received {
        let deadline = Instant::now() + patience;
        let ended = || self.progress.ended.load(Ordering::SeqCst);
        while ended() < self.count && Instant::now() < deadline {
            assert!(!self.thread.is_finished(), "the clients have failed");
            thread::park_timeout(TURN);
        }
        let (ended, count) = (ended(), self.count);
        self.progress.is_over.store(true, Ordering::SeqCst);
        let received = self.thread.join().expect("the clients have not failed");
        if ended < count {
            let client = received.clients.iter().find(|client| !client.has_ended);
            panic!(
                "{} of {count} clients have not received the end: {client:?}; refused: {:?}",
                count - ended,
                self.progress.refused.lock().unwrap(),
            );
        }
        received
    }
}

struct Loop {
    plan: Plan,
    rng: Rng,
    poll: Poll,
    progress: Arc<Progress>,
    channels: Vec<Known>,
    clients: Vec<Client>,
}

impl Loop {
    fn new(plan: Plan, progress: Arc<Progress>) -> Loop {
        let now = Instant::now();
        let client = |number: usize| {
            let channel = number % plan.channels.len();
            Client {
                channel,
                has_cursor: (number / plan.channels.len()).is_multiple_of(2),
                story: Vec::new(),
                streams: 0,
                last_id: plan.channels[channel].1.clone(),
                has_ended: false,
                comes_back_at: now,
                last_read: now,
                stream: None,
            }
        };
        Loop {
            rng: Rng::with_seed(plan.seed),
            poll: Poll::new().unwrap(),
            progress,
            channels: plan.channels.iter().map(|_| Known::default()).collect(),
            clients: (0..plan.clients).map(client).collect(),
            plan,
        }
    }

    fn run(mut self) -> Received {
        let mut events = Events::with_capacity(1024);
        let mut looked = Instant::now();
        while !self.progress.is_over.load(Ordering::SeqCst) {
            match self.poll.poll(&mut events, Some(TURN)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result.unwrap(),
            }
            for event in &events {
                self.serve(event.token().0);
            }
            if looked.elapsed() >= TURN {
                looked = Instant::now();
                self.look(looked);
            }
        }
        Received {
            channels: self.channels,
            clients: self.clients,
        }
    }

    /// Connects the clients that come back, and closes streams that are silent.
    fn look(&mut self, now: Instant) {
        for number in 0..self.clients.len() {
            if self.is_silent(number, now) {
                // This thread may be late, and the bytes are in the socket.
                self.serve(number);
            }
            let client = &self.clients[number];
            if self.is_silent(number, now) {
                self.close(number);
            } else if client.stream.is_none() && !client.has_ended && client.comes_back_at <= now {
                self.connect(number);
            }
        }
        let is_streaming = |client: &&Client| {
            client.has_ended
                || client
                    .stream
                    .as_ref()
                    .is_some_and(|stream| stream.head.is_none())
        };
        let streaming = self.clients.iter().filter(is_streaming).count();
        self.progress.streaming.store(streaming, Ordering::SeqCst);
    }

    fn is_silent(&self, number: usize, now: Instant) -> bool {
        let client = &self.clients[number];
        let silent = now.saturating_duration_since(client.last_read);
        client.stream.is_some() && silent > self.plan.silence_max
    }

    fn connect(&mut self, number: usize) {
        let address = self.rng.choice(&self.plan.addresses).expect("there is one");
        let client = &mut self.clients[number];
        client.last_read = Instant::now();
        client.streams += 1;
        let mut socket = TcpStream::connect(*address).unwrap();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut socket, Token(number), interest)
            .unwrap();
        client.stream = Some(Stream {
            socket,
            is_asked: false,
            head: Some(Vec::new()),
            parser: Parser::new(),
        });
    }

    fn close(&mut self, number: usize) {
        let pause = Duration::from_millis(self.rng.u64(COMES_BACK_MS));
        let client = &mut self.clients[number];
        client.stream = None;
        client.comes_back_at = Instant::now() + pause;
    }

    /// Asks, or reads what has arrived.
    fn serve(&mut self, number: usize) {
        let client = &mut self.clients[number];
        // An event of a connection that has just been closed.
        let Some(stream) = &mut client.stream else {
            return;
        };
        if !stream.is_asked {
            match stream.socket.take_error() {
                Ok(None) if stream.socket.peer_addr().is_ok() => {}
                Ok(None) => return,
                _ => return self.close(number),
            }
            let (channel, _) = &self.plan.channels[client.channel];
            let cursor = if client.has_cursor { "?cursor" } else { "" };
            let request = format!(
                "GET /channels/{channel}{cursor} HTTP/1.1\r\nHost: localhost\r\n\
                 Last-Event-ID: {}\r\n\r\n",
                client.last_id
            );
            // An empty socket buffer takes all of it.
            if stream.socket.write_all(request.as_bytes()).is_err() {
                return self.close(number);
            }
            stream.is_asked = true;
        }
        let mut buffer = [0; 16 * 1024];
        loop {
            let Some(stream) = &mut self.clients[number].stream else {
                return;
            };
            match stream.socket.read(&mut buffer) {
                Ok(length @ 1..) => self.take(number, &buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                _ => return self.close(number),
            }
        }
    }

    fn take(&mut self, number: usize, bytes: &[u8]) {
        let client = &mut self.clients[number];
        client.last_read = Instant::now();
        let stream = client.stream.as_mut().expect("it was read from");
        let mut body = bytes.to_vec();
        if let Some(head) = &mut stream.head {
            head.extend_from_slice(bytes);
            let Some(end) = memchr::memmem::find(head, b"\r\n\r\n") else {
                return;
            };
            let text = String::from_utf8_lossy(&head[..end]).into_owned();
            let status = text.split(' ').nth(1).unwrap_or_default();
            if status != "200" {
                let mut refused = self.progress.refused.lock().unwrap();
                *refused.entry(status.to_owned()).or_default() += 1;
                drop(refused);
                return self.close(number);
            }
            assert!(!text.to_lowercase().contains("transfer-encoding"), "{text}");
            body = head.split_off(end + 4);
            stream.head = None;
        }
        let events = stream.parser.push(&body);
        let last_id = stream.parser.last_event_id();
        if !last_id.is_empty() {
            last_id.clone_into(&mut client.last_id);
        }
        for event in events {
            self.receive(number, event);
        }
    }

    fn receive(&mut self, number: usize, event: Dispatched) {
        let client = &mut self.clients[number];
        assert!(!client.has_ended, "after the end: {event:?}");
        match &*event.name {
            "message" => {
                let (id, data) = (event.last_event_id, short(&event.data));
                let is_end = data == END;
                let index = self.channels[client.channel].index(Seen { id, data });
                match client.story.last_mut() {
                    Some(Item::Events(range)) if range.end == index => range.end += 1,
                    _ => client.story.push(Item::Events(index..index + 1)),
                }
                self.progress.received.fetch_add(1, Ordering::SeqCst);
                if is_end {
                    client.has_ended = true;
                    client.stream = None;
                    self.progress.ended.fetch_add(1, Ordering::SeqCst);
                }
            }
            "pushwheel.gap" => {
                let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
                let reason = data["reason"].as_str().unwrap().to_owned();
                let id = event.last_event_id;
                client.story.push(Item::Gap { reason, id });
            }
            _ => panic!("{}: {event:?}", client.last_id),
        }
    }
}
