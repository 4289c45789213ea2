//! Clients of a cluster: browsers that come back to any node with the last id that they have
//! received.

use fastrand::Rng;

use super::channel;
use super::judge::{Item, Judge, LOSSES_MS};
use crate::network::{Act, Network};
use crate::oracle::{GAP, SLACK_MS};
use crate::sse::{Dispatched, Parser};

/// How long a request waits for an event and then for a loss at most, with what looks whether
/// it has.
const WAIT_MS: u64 = 2_000 + LOSSES_MS + 300;

/// How a client behaves: chances in a thousand, each time it looks around.
#[derive(Clone, Debug)]
pub struct Behavior {
    pub leaves: u32,
    pub stalls: u32,
    pub read_max: usize,
    pub asks_for_positions: bool,
}

/// Where a client begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    Live,
    Earliest,
}

/// See the [module](self).
pub struct Client {
    number: usize,
    channels: Vec<usize>,
    begins: Begins,
    behavior: Behavior,
    /// The node to which it always comes.
    node: Option<usize>,
    /// Its socket, the node that it is connected to, and since when.
    connection: Option<(usize, usize, u64)>,
    head: Vec<u8>,
    stream: Option<Parser>,
    /// Whether the answer was not a stream.
    is_refused: bool,
    last_event_id: String,
    connect_at: u64,
    look_at: u64,
    stalled_until: u64,
    is_calm: bool,
    is_gone: bool,
    /// Streams and heads that it has read in all.
    pub digest: u64,
}

impl Client {
    pub fn new(number: usize, channels: Vec<usize>, begins: Begins, behavior: Behavior) -> Client {
        Client {
            number,
            channels,
            begins,
            behavior,
            node: None,
            connection: None,
            head: Vec::new(),
            stream: None,
            is_refused: false,
            last_event_id: String::new(),
            connect_at: 0,
            look_at: 0,
            stalled_until: 0,
            is_calm: false,
            is_gone: false,
            digest: 0,
        }
    }

    /// Always comes to one node, and does nothing but read.
    pub fn of_node(mut self, node: usize) -> Client {
        self.node = Some(node);
        self.is_calm = true;
        self
    }

    pub fn number(&self) -> usize {
        self.number
    }

    pub fn channels(&self) -> &[usize] {
        &self.channels
    }

    /// From now on it reads what comes, and stays.
    pub fn calm_down(&mut self) {
        self.is_calm = true;
        self.stalled_until = 0;
        self.behavior.read_max = usize::MAX;
    }

    /// Leaves for good.
    pub fn go(&mut self, network: &mut Network) {
        self.is_gone = true;
        if let Some((socket, ..)) = self.connection.take() {
            network.leave(socket);
        }
    }

    /// Does what is due.
    pub fn act(&mut self, network: &mut Network, judge: &mut Judge, rng: &mut Rng) {
        let now = network.now();
        let Some((socket, ..)) = self.connection else {
            if !self.is_gone && now >= self.connect_at {
                self.connect(network, judge, rng);
            }
            return;
        };
        if now >= self.stalled_until {
            self.read(socket, network, judge, rng);
        }
        if self.connection.is_some() && now >= self.look_at {
            self.look_around(socket, network, rng);
        }
    }

    fn connect(&mut self, network: &mut Network, judge: &mut Judge, rng: &mut Rng) {
        let now = network.now();
        let nodes = network.sides();
        let node = self.node.unwrap_or_else(|| rng.usize(0..nodes));
        let socket = network.connect_to(self.number, node);
        self.connection = Some((socket, node, now));
        (self.head, self.stream, self.is_refused) = (Vec::new(), None, false);
        let names = self.channels.iter().map(|number| channel(*number));
        let query: Vec<String> = names.map(|name| format!("channel={name}")).collect();
        let mut query = query.join("&");
        let mut headers = "Host: x\r\n".to_owned();
        match self.behavior.asks_for_positions {
            true => query.push_str("&cursor"),
            false => headers.push_str("Cache-Control: no-cache\r\n"),
        }
        if !self.last_event_id.is_empty() {
            headers.push_str(&format!("Last-Event-ID: {}\r\n", self.last_event_id));
        } else if self.begins == Begins::Earliest {
            query.push_str("&last_event_id=earliest");
        }
        judge.count(match self.last_event_id.is_empty() {
            true => "connections without an id",
            false => "reconnections with the last id",
        });
        judge.on_ask(self.number, node, now);
        let request = format!("GET /events?{query} HTTP/1.1\r\n{headers}\r\n");
        network.send(socket, request.as_bytes());
        self.look_at = now + rng.u64(0..1_500);
        network.plan(self.look_at - now, Act::Client(self.number));
    }

    fn read(&mut self, socket: usize, network: &mut Network, judge: &mut Judge, rng: &mut Rng) {
        let max = match rng.bool() {
            true => self.behavior.read_max,
            false => rng.usize(1..=self.behavior.read_max.min(100_000)),
        };
        let (bytes, is_over) = network.take(socket, max);
        let now = network.now();
        for byte in bytes {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            self.take_byte(byte, now, judge);
        }
        if is_over || self.is_refused {
            network.leave(socket);
            self.come_back(network, rng);
        } else if network.has_bytes_for_client(socket) {
            network.plan(rng.u64(0..5), Act::Client(self.number));
        }
    }

    fn take_byte(&mut self, byte: u8, now: u64, judge: &mut Judge) {
        let Some(parser) = &mut self.stream else {
            self.head.push(byte);
            if self.head.ends_with(b"\r\n\r\n") {
                self.end_head(judge);
            }
            return;
        };
        let events = parser.push(&[byte]);
        let id = parser.last_event_id();
        let is_moved = !id.is_empty() && id != self.last_event_id;
        if is_moved {
            id.clone_into(&mut self.last_event_id);
            if events.is_empty() {
                judge.on_position(self.number, id);
            }
        }
        for event in &events {
            self.on_event(event, now, judge);
        }
    }

    fn on_event(&self, event: &Dispatched, now: u64, judge: &mut Judge) {
        match event.name == GAP {
            true => judge.on_gap(self.number, event, now),
            false => judge.on_event(self.number, event),
        }
    }

    fn end_head(&mut self, judge: &mut Judge) {
        let head = String::from_utf8_lossy(&self.head).into_owned();
        if !head.to_ascii_lowercase().contains("text/event-stream") {
            // The body says why, and is left alone.
            let is_known = head.starts_with("HTTP/1.1 503 ");
            self.is_refused = true;
            judge.count("answers that are not a stream");
            if !is_known {
                judge.fail(format!("client {} is answered {head}", self.number));
            }
            return;
        }
        self.stream = Some(Parser::new());
        let opening_id = head
            .lines()
            .find_map(|line| line.strip_prefix("Last-Event-ID: "))
            .unwrap_or_default();
        if self.last_event_id.is_empty() {
            match self.begins {
                Begins::Earliest => judge.note(self.number, Item::Began(0)),
                Begins::Live if !opening_id.is_empty() => {
                    judge.on_beginning(self.number, opening_id);
                    opening_id.clone_into(&mut self.last_event_id);
                }
                // A node that is cut off asks the client to come back.
                Begins::Live => {}
            }
        }
    }

    /// Now and then it does something else than to read.
    fn look_around(&mut self, socket: usize, network: &mut Network, rng: &mut Rng) {
        let pause_ms = rng.u64(20..800);
        self.look_at = network.now() + pause_ms;
        network.plan(pause_ms, Act::Client(self.number));
        if self.is_calm {
            return;
        }
        if rng.u32(0..1_000) < self.behavior.leaves {
            match rng.bool() {
                true => network.reset(socket),
                false => network.leave(socket),
            }
            self.come_back(network, rng);
        } else if rng.u32(0..1_000) < self.behavior.stalls {
            network.count("readers that stall");
            let stall_ms = rng.u64(0..3_000);
            self.stalled_until = network.now() + stall_ms;
            network.plan(stall_ms, Act::Client(self.number));
        }
    }

    /// It has left its socket, and connects again before long.
    fn come_back(&mut self, network: &mut Network, rng: &mut Rng) {
        self.connection = None;
        let pause_ms = match rng.u32(0..4) {
            0 => rng.u64(0..2_000),
            _ => rng.u64(1..300),
        };
        self.connect_at = network.now() + pause_ms;
        network.plan(pause_ms, Act::Client(self.number));
    }

    /// Checks that its request is answered in time.
    pub fn check(&self, network: &Network, judge: &mut Judge) {
        let Some((socket, node, since)) = self.connection else {
            return;
        };
        let now = network.now();
        let since = since.max(network.frozen_until(node));
        let is_open = !network.socket(socket).is_closed && !network.socket(socket).is_refused;
        let is_answered = self.stream.is_some() || !self.head.is_empty();
        let is_stalled = now < self.stalled_until + SLACK_MS;
        if is_open && !is_answered && !is_stalled && now > since + WAIT_MS + 2 * SLACK_MS {
            judge.fail(format!(
                "at {now} ms: a request of client {} waits since {since}",
                self.number
            ));
        }
    }

    /// Whether it reads a stream.
    pub fn is_streaming(&self) -> bool {
        self.connection.is_some() && self.stream.is_some()
    }
}
