//! The parts that are measured by time (`pure`, `longest_lock`), by instructions
//! (`instructions`) and by allocations (`tests/allocations.rs`). Each function
//! prepares one and returns its step.
#![allow(dead_code, reason = "each of the four uses some of it")]

pub(crate) mod net;

use std::hint::black_box;
use std::time::Duration;

use net::Takers;
use pushwheel::internals::SimulatedEngine;
use pushwheel::internals::frame::Frame;
use pushwheel::internals::http::{Limits, Reader, Step};
use pushwheel::internals::wheel::{Link, Links, Wheel};
use pushwheel::{
    Channel, ChannelManager, ChannelOptions, Engine, Event, History, IdempotencyKey, IntoResponse,
    KeyedState, LagPolicy, PublishOptions, Response, Start, Subscription,
};

/// Encodes an event of so many bytes and stamps its id.
pub(crate) fn encode(bytes: usize) -> impl FnMut() {
    let data = "x".repeat(bytes);
    let mut sequence = 1_000_000;
    move || {
        let event = Event::new("news", black_box(&data[..]));
        let mut frame = Frame::encode(&event, "k3x9qa-").expect("a valid event");
        sequence += 1;
        frame.stamp("k3x9qa-", sequence);
        black_box(frame);
    }
}

/// Parses the head of a browser's request.
pub(crate) fn parse_head() -> impl FnMut() {
    let (limits, mut reader) = (Limits::default(), Reader::new());
    move || {
        let pushed = reader.push(black_box(net::REQUEST), &limits);
        let (_, Step::Request(message)) = pushed.expect("a valid head") else {
            panic!("the head is complete");
        };
        black_box(message);
    }
}

/// Publishes to a channel that keeps so many events and has no clients: encode,
/// lock, append, evict.
pub(crate) fn publish(history: usize) -> impl FnMut() {
    let channel = channel(&ChannelManager::new(), history);
    let data = "x".repeat(128);
    move || {
        let event = Event::new("news", black_box(&data[..]));
        black_box(channel.broadcast(event).expect("nothing forbids it"));
    }
}

/// Publishes as [`publish`] does, each time with another idempotency key. As many keys as are
/// remembered are there.
pub(crate) fn publish_once(history: usize) -> impl FnMut() {
    let channel = channel(&ChannelManager::new(), history);
    let (data, mut last) = ("x".repeat(128), 0_u128);
    let mut step = move || {
        last += 1;
        let key = IdempotencyKey::from_digest(last.to_le_bytes());
        let options = PublishOptions::new().idempotency_key(key);
        let event = Event::new("news", black_box(&data[..]));
        let published = channel.publish_with([event], &options);
        black_box(published.expect("nothing forbids it"));
    };
    (0..KEYS_REMEMBERED).for_each(|_| step());
    step
}

/// The idempotency keys that a manager remembers.
const KEYS_REMEMBERED: usize = 131_072;

/// Publishes to a channel that conflates and has so many keys, the one that has
/// not changed for the longest time.
pub(crate) fn publish_keyed(keys: usize) -> impl FnMut() {
    let options = || {
        ChannelOptions::new()
            .lag_policy(LagPolicy::Conflate)
            .keyed_state(KeyedState::keys(keys).bytes_max(usize::MAX))
    };
    let channel = ChannelManager::new().get_or_create_with("prices", options);
    let channel = channel.expect("a valid name");
    let (data, names) = ("x".repeat(128), (0..keys).map(|n| format!("key {n}")));
    let names: Vec<String> = names.collect();
    let mut next = 0;
    let mut step = move || {
        let event = Event::new("price", black_box(&data[..])).with_key(&names[next % keys]);
        next += 1;
        black_box(channel.broadcast(event).expect("nothing forbids it"));
    };
    (0..keys).for_each(|_| step());
    step
}

/// Publishes so many events at once, and takes them to so many clients, whose
/// sockets take everything.
pub(crate) fn deliver(clients: usize, together: usize) -> impl FnMut() {
    let mut room = Room::new(clients);
    move || room.deliver(together)
}

/// Events that a [`replay`] carries, in all of its channels together.
pub(crate) const REPLAYED: usize = 64_000;

/// One client of so many channels reads their whole history, and goes. The
/// events were published to the channels in turn.
pub(crate) fn replay(channels: usize) -> impl FnMut() {
    let mut replay = Replay::new(channels);
    move || replay.run()
}

/// A client comes, gets its stream, and goes.
pub(crate) fn visit() -> impl FnMut() {
    let mut room = Room::new(0);
    move || {
        room.come(1);
        room.leave();
    }
}

/// Of so many timers, one is moved, as when a client is written to, and time
/// goes on.
pub(crate) fn move_timer(timers: u32) -> impl FnMut() {
    let mut links = Timers((0..timers).map(|_| Link::default()).collect());
    let mut wheel = Wheel::new(0);
    for key in 0..timers {
        wheel.set(&mut links, key, 1 + u64::from(key) % 234);
    }
    let (mut key, mut now) = (0, 0);
    move || {
        key = (key + 7919) % timers;
        wheel.set(&mut links, key, now + 234);
        now += u64::from(key.is_multiple_of(64));
        while let Some(due) = wheel.pop(&mut links, now) {
            wheel.set(&mut links, due, now + 234);
        }
    }
}

/// Clients of one channel, on a network that takes everything.
pub(crate) struct Room {
    engine: SimulatedEngine<Takers>,
    pub(crate) channel: Channel,
    clients: usize,
    data: String,
}

impl Room {
    pub(crate) fn new(clients: usize) -> Room {
        let channels = ChannelManager::new();
        let channel = channel(&channels, 100);
        let stream = channel.clone();
        let engine = Engine::builder().channels(&channels);
        let engine = engine.get("/stream", move |_| Response::subscribe(&stream));
        let engine = net::simulated(engine);
        let mut room = Room {
            engine,
            channel,
            clients: 0,
            data: "x".repeat(128),
        };
        room.come(clients);
        room
    }

    /// So many more come, and get their streams.
    pub(crate) fn come(&mut self, clients: usize) {
        self.clients += clients;
        self.engine.net().come(clients);
        while self.channel.client_count() < self.clients {
            self.turn();
        }
    }

    /// From now on each client takes what it is sent in two halves.
    pub(crate) fn take_halves(&mut self) {
        self.engine.net().is_short = true;
    }

    /// All go.
    pub(crate) fn leave(&mut self) {
        self.clients = 0;
        self.engine.net().go();
        while self.channel.client_count() > 0 {
            self.turn();
        }
    }

    /// Publishes so many events at once, and takes them to every client.
    pub(crate) fn deliver(&mut self, together: usize) {
        let writes = self.clients * (1 + usize::from(self.engine.net().is_short));
        let goal = self.engine.net().writes + writes;
        let event = || Event::new("news", &self.data[..]);
        let published = match together {
            1 => self.channel.broadcast(event()),
            _ => self.channel.broadcast_batch((0..together).map(|_| event())),
        };
        published.expect("nothing forbids it");
        while self.engine.net().writes < goal {
            self.turn();
        }
        // The one that reports to the hub.
        self.turn();
        assert_eq!(self.engine.net().writes, goal, "one write carries all");
    }

    fn turn(&mut self) {
        self.engine.turn().expect("this network does not fail");
    }
}

/// Channels with a history, on a network that takes everything.
struct Replay {
    engine: SimulatedEngine<Takers>,
    channels: ChannelManager,
}

impl Replay {
    fn new(count: usize) -> Replay {
        let manager = ChannelManager::new();
        let history = History::events(REPLAYED / count).bytes_max(64 << 20);
        let options = || ChannelOptions::new().history(history);
        let channel = |n| manager.get_or_create_with(&format!("c{n}"), options);
        let channels: Vec<Channel> = (0..count)
            .map(|n| channel(n).expect("a valid name"))
            .collect();
        let data = "x".repeat(128);
        for channel in channels.iter().cycle().take(REPLAYED) {
            let event = Event::new("news", &data[..]);
            channel.broadcast(event).expect("nothing forbids it");
        }
        let engine = Engine::builder().channels(&manager);
        let engine = engine.get("/stream", move |_| {
            let (first, others) = channels.split_first().expect("at least one channel");
            let merged = Subscription::new(first).start(Start::Earliest);
            let merged = others.iter().fold(merged, Subscription::and);
            merged.into_response()
        });
        Replay {
            engine: net::simulated(engine),
            channels: manager,
        }
    }

    fn run(&mut self) {
        let before = self.engine.net().bytes;
        self.engine.net().come(1);
        while self.channels.total_clients() == 0 || self.is_behind() {
            self.turn();
        }
        assert!(self.engine.net().bytes - before > REPLAYED * 128);
        self.engine.net().go();
        while self.channels.total_clients() > 0 {
            self.turn();
        }
    }

    /// Whether the client was sent something in the turn that this makes.
    fn is_behind(&mut self) -> bool {
        let before = self.engine.net().bytes;
        self.turn();
        self.engine.net().bytes > before
    }

    fn turn(&mut self) {
        self.engine.turn().expect("this network does not fail");
    }
}

pub(crate) fn channel(channels: &ChannelManager, history: usize) -> Channel {
    // Heartbeats would be writes without an event.
    let options = || {
        ChannelOptions::new()
            .history(History::events(history))
            .heartbeat(Duration::ZERO)
    };
    let channel = channels.get_or_create_with("news", options);
    channel.expect("a valid name")
}

struct Timers(Vec<Link>);

impl Links for Timers {
    fn link(&mut self, key: u32) -> &mut Link {
        &mut self.0[key as usize]
    }
}
