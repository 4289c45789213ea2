//! Simulated clients: browsers that reconnect with the last id they received, and clients
//! that read slowly, never read, or send bytes without a request.
//!
//! A client has its own parsers of HTTP and event streams, and passes what it has read
//! to the oracle.

mod checks;
mod reading;

use std::collections::VecDeque;

use fastrand::Rng;

use super::network::{Act, Network};
use super::oracle::{Oracle, Want};
use super::sse::Parser;

/// The body that `/hello` answers.
pub const HELLO: &str = "hello, hello, hello";
/// How many bytes `/large` answers.
pub const LARGE_BYTES: usize = 30_000;

/// The longest time for which a client waits for a page.
pub const PAGE_MS_MAX: u64 = 5_000;

/// Bytes that a flooding client sends after its request.
const FLOOD_BYTES: usize = 20_000;

/// What a client requests.
#[derive(Clone, Debug)]
pub enum Role {
    /// Streams of these channels, again and again.
    Subscriber {
        names: Vec<String>,
        is_deferred: bool,
    },
    /// A stream of its own.
    Sink,
    /// Nothing good.
    Hostile,
}

/// How a client behaves: chances in a thousand, each time it looks around.
#[derive(Clone, Debug)]
pub struct Behavior {
    pub stalls: u32,
    pub stall_ms_max: u64,
    pub cuts: u32,
    pub half_closes: u32,
    pub vanishes: u32,
    pub floods: bool,
    pub junk: u32,
    pub read_max: usize,
    pub is_blind: bool,
}

pub struct Client {
    index: usize,
    role: Role,
    behavior: Behavior,
    custom_id: Option<String>,
    /// Whether it asks for the id at which its streams begin, as an
    /// `EventSource` does.
    asks_for_id: bool,
    /// Whether it asks for its position in heartbeats too.
    asks_for_positions: bool,
    /// Whether it asks for one page after another instead of streams.
    asks_for_pages: bool,
    metadata_role: Option<u8>,
    socket: Option<usize>,
    /// The oracle's record of the current stream.
    stream: Option<usize>,
    pieces: VecDeque<Vec<u8>>,
    send_at: u64,
    connect_at: u64,
    connected_at: u64,
    look_at: u64,
    stalled_until: u64,
    /// Since when it reads whatever comes.
    reads_since: u64,
    byte_at: u64,
    ended_sending_at: Option<u64>,
    /// When the clock last jumped.
    jumped_at: u64,
    reader: Reader,
    expected: VecDeque<Expected>,
    last_event_id: String,
    /// Where the current stream begins, as its head says.
    opening_id: String,
    /// Streams and heads that it has read in all.
    pub digest: u64,
    is_calm: bool,
    is_done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Hello,
    Large,
    Stream,
    /// Whatever it is, it has no body: a HEAD's.
    Head,
    Anything,
}

/// What has been read of the connection.
#[derive(Default)]
struct Reader {
    head: Vec<u8>,
    body_left: usize,
    body: Vec<u8>,
    status: u16,
    stream: Option<Parser>,
    /// What has come of a page that ends with its connection, and how long it may take.
    page: Option<(Vec<u8>, u64)>,
    /// The page has come, on a connection that goes on.
    is_page_read: bool,
}

impl Client {
    pub fn new(index: usize, role: Role, behavior: Behavior, rng: &mut Rng) -> Client {
        Client {
            index,
            role,
            behavior,
            asks_for_id: true,
            asks_for_positions: false,
            asks_for_pages: false,
            custom_id: (rng.u32(0..3) == 0).then(|| format!("client-{}", rng.u8(0..20))),
            metadata_role: rng.bool().then(|| rng.u8(0..3)),
            socket: None,
            stream: None,
            pieces: VecDeque::new(),
            send_at: 0,
            connect_at: rng.u64(0..2_000),
            connected_at: 0,
            look_at: 0,
            stalled_until: 0,
            reads_since: 0,
            byte_at: 0,
            ended_sending_at: None,
            jumped_at: 0,
            reader: Reader::default(),
            expected: VecDeque::new(),
            last_event_id: String::new(),
            opening_id: String::new(),
            digest: 0,
            is_calm: false,
            is_done: false,
        }
    }

    /// Asks for no id, as `fetch` does by default.
    pub fn without_opening_id(mut self) -> Client {
        self.asks_for_id = false;
        self
    }

    /// Asks for its position in heartbeats, as pushwheel.js does.
    pub fn with_positions(mut self) -> Client {
        self.asks_for_positions = true;
        self
    }

    /// Asks for pages of one channel, as a client behind some proxies does.
    pub fn with_pages(mut self) -> Client {
        if let Role::Subscriber { names, is_deferred } = &mut self.role {
            names.truncate(1);
            *is_deferred = false;
            self.asks_for_pages = true;
        }
        self
    }

    pub fn socket(&self) -> Option<usize> {
        self.socket
    }

    pub fn stream(&self) -> Option<usize> {
        self.stream
    }

    pub fn is_streaming(&self) -> bool {
        self.socket.is_some() && self.reader.stream.is_some()
    }

    /// From now on it reads what comes, and does nothing else.
    pub fn calm_down(&mut self, now: u64) {
        self.is_calm = true;
        self.behavior.is_blind = false;
        self.behavior.read_max = usize::MAX;
        if self.stalled_until > now {
            self.stalled_until = now;
            self.reads_since = now;
        }
    }

    /// Closes what it has open.
    pub fn go(&mut self, network: &mut Network, oracle: &mut Oracle) {
        self.is_done = true;
        if self.socket.is_some() {
            self.cut(oracle, network.now());
            network.leave(self.socket.expect("looked at above"));
            self.forget_socket();
        }
    }

    /// The network breaks a connection, which may be one that it has left.
    pub fn lose(&self, socket: usize, oracle: &mut Oracle, now: u64) {
        if self.socket == Some(socket) {
            self.cut(oracle, now);
        }
    }

    /// Does what is due.
    pub fn act(&mut self, network: &mut Network, oracle: &mut Oracle, rng: &mut Rng) {
        let now = network.now();
        self.jumped_at = network.jumped_at();
        if self.socket.is_none() {
            if !self.is_done && !self.is_calm && now >= self.connect_at {
                self.connect(network, oracle, rng);
            }
            return;
        }
        self.send_piece(network, rng);
        self.read(network, oracle, rng);
        if self.socket.is_some() && now >= self.look_at {
            self.look_around(network, oracle, rng);
        }
    }

    fn connect(&mut self, network: &mut Network, oracle: &mut Oracle, rng: &mut Rng) {
        let now = network.now();
        let socket = network.connect(self.index);
        self.socket = Some(socket);
        self.reader = Reader::default();
        self.expected.clear();
        self.stream = None;
        self.ended_sending_at = None;
        self.connected_at = now;
        self.look_at = now + rng.u64(0..1_000);
        self.stalled_until = 0;
        self.reads_since = now;
        self.byte_at = now;
        if self.behavior.is_blind {
            self.stalled_until = u64::MAX;
        }
        let mut request = String::new();
        for _ in 0..rng.u32(0..6).saturating_sub(3) {
            let (path, expected) = match rng.u32(0..4) {
                0 => ("large", Expected::Large),
                _ => ("hello", Expected::Hello),
            };
            request.push_str(&format!("GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n"));
            self.expected.push_back(expected);
        }
        match self.role.clone() {
            Role::Subscriber { names, is_deferred } => {
                let request_line = self.subscribe(names, is_deferred, oracle, rng);
                request.push_str(&request_line);
                self.expected.push_back(Expected::Stream);
            }
            Role::Sink => {
                let stream = oracle.request(Want::Live, None);
                oracle.streams[stream].sink = Some(Default::default());
                self.stream = Some(stream);
                request.push_str(&format!(
                    "GET /sink?stream={stream} HTTP/1.1\r\nHost: x\r\n\r\n"
                ));
                self.expected.push_back(Expected::Stream);
            }
            Role::Hostile => {
                self.expected.clear();
                request = hostile_request(rng);
                self.expected.push_back(match request.starts_with("HEAD ") {
                    true => Expected::Head,
                    false => Expected::Anything,
                });
                if self.behavior.floods {
                    request.push_str(&"x".repeat(FLOOD_BYTES));
                }
            }
        }
        let mut rest = request.into_bytes();
        while !rest.is_empty() {
            let count = match rng.u32(0..3) {
                0 => rng.usize(1..=rest.len().min(40)),
                _ => rest.len(),
            };
            self.pieces.push_back(rest.drain(..count).collect());
        }
        self.send_at = now;
        network.plan(0, Act::Client(self.index));
        network.plan(self.look_at - now, Act::Client(self.index));
    }

    fn subscribe(
        &mut self,
        names: Vec<String>,
        is_deferred: bool,
        oracle: &mut Oracle,
        rng: &mut Rng,
    ) -> String {
        let good = self.last_event_id.clone();
        let want = match rng.u32(0..20) {
            0 => Want::Live,
            1 => Want::Earliest,
            2 => Want::Last(rng.usize(0..20)),
            3 => Want::After(format!("formerw-{}", rng.u32(0..100))),
            4 => Want::After(oracle.forged_id()),
            5 => Want::After(["17", "a b", "own.0", "é-1"][rng.usize(0..4)].to_owned()),
            6..9 => oracle.some_id().map_or(Want::Live, Want::After),
            _ if good.is_empty() => Want::Live,
            _ => {
                if let Some(stream) = self.stream {
                    oracle.on_reconnect(stream, &good);
                }
                Want::After(good)
            }
        };
        oracle.count(match &want {
            Want::After(id) if *id == self.last_event_id => "reconnections with the last id",
            Want::After(_) => "reconnections with old, foreign and forged ids",
            _ => "connections without an id",
        });
        let stream = oracle.request(want.clone(), self.metadata_role);
        oracle.streams[stream].accepts_ids = self.asks_for_id;
        oracle.streams[stream].asks_for_positions = self.asks_for_positions;
        self.stream = Some(stream);
        let path = if is_deferred { "later" } else { "events" };
        let mut query = format!("stream={stream}");
        if self.asks_for_pages {
            let state = &mut oracle.streams[stream];
            state.asks_for_page = true;
            state.id = self.custom_id.clone().unwrap_or_default();
            query.push_str(&format!("&wait={}", [0, 300, PAGE_MS_MAX][rng.usize(0..3)]));
        }
        for name in &names {
            query.push_str(&format!("&channel={name}"));
        }
        if let Some(id) = &self.custom_id {
            query.push_str(&format!("&id={id}"));
        }
        let mut headers = "Host: x\r\n".to_owned();
        if rng.bool() {
            headers.push_str("Accept: text/event-stream\r\n");
        }
        if self.asks_for_pages {
            // It is of no account for a page.
        } else if self.asks_for_positions {
            query.push_str("&cursor");
        } else if self.asks_for_id {
            headers.push_str("Cache-Control: no-cache\r\n");
        }
        match want {
            Want::Live => {}
            Want::Earliest => query.push_str("&last_event_id=earliest"),
            Want::Last(count) => query.push_str(&format!("&last={count}")),
            Want::After(id) => headers.push_str(&format!("Last-Event-ID: {id}\r\n")),
        }
        format!("GET /{path}?{query} HTTP/1.1\r\n{headers}\r\n")
    }

    fn send_piece(&mut self, network: &mut Network, rng: &mut Rng) {
        let now = network.now();
        let Some(socket) = self.socket.filter(|_| now >= self.send_at) else {
            return;
        };
        if let Some(piece) = self.pieces.pop_front() {
            network.send(socket, &piece);
            let pause_ms = if rng.u32(0..4) == 0 {
                rng.u64(0..60)
            } else {
                0
            };
            self.send_at = now + pause_ms;
            network.plan(pause_ms, Act::Client(self.index));
        }
    }

    fn read(&mut self, network: &mut Network, oracle: &mut Oracle, rng: &mut Rng) {
        let now = network.now();
        let Some(socket) = self.socket.filter(|_| now >= self.stalled_until) else {
            return;
        };
        let max = match rng.bool() {
            true => self.behavior.read_max,
            false => rng.usize(1..=self.behavior.read_max.min(100_000)),
        };
        let (bytes, is_over) = network.take(socket, max);
        if let Some(stream) = self.stream {
            oracle.on_taken(stream, network.socket(socket).taken_at);
        }
        if !bytes.is_empty() {
            self.byte_at = now;
            for byte in &bytes {
                self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
            self.take_bytes(&bytes, oracle);
        }
        if is_over {
            self.end(network, oracle, rng);
        } else if self.reader.is_page_read {
            self.cut(oracle, now);
            network.leave(socket);
            self.come_back(network, rng);
        } else if network.has_bytes_for_client(socket) {
            network.plan(rng.u64(0..5), Act::Client(self.index));
        }
    }

    /// The server has ended the connection.
    fn end(&mut self, network: &mut Network, oracle: &mut Oracle, rng: &mut Rng) {
        let socket = self.socket.expect("it has ended");
        if network.socket(socket).is_broken_off
            && self
                .stream
                .is_some_and(|stream| oracle.streams[stream].junk_bytes > 0)
        {
            // A subscriber that talks may miss the end of its stream.
            self.cut(oracle, network.now());
        }
        if let Some(stream) = self.stream
            && self.reader.stream.is_some()
        {
            let retry_ms = self.reader.stream.as_ref().and_then(Parser::retry);
            let is_torn = self.reader.stream.as_ref().is_some_and(Parser::is_in_event);
            oracle.on_end(stream, retry_ms, is_torn);
        }
        if let Some((page, _)) = self.reader.page.take() {
            self.take_page(&page, oracle);
        }
        self.check_unanswered(network, oracle);
        self.check_whole(network, oracle);
        network.leave(socket);
        self.cut(oracle, network.now());
        self.forget_socket();
        let pause_ms = match rng.u32(0..4) {
            0 => rng.u64(0..3_000),
            _ => rng.u64(0..200),
        };
        self.connect_at = network.now() + pause_ms;
        network.plan(pause_ms, Act::Client(self.index));
    }

    fn forget_socket(&mut self) {
        self.socket = None;
        self.pieces.clear();
    }

    /// Its stream may end at any time from here on, and is over at `by_ms`.
    fn cut(&self, oracle: &mut Oracle, by_ms: u64) {
        if let Some(stream) = self.stream {
            oracle.streams[stream].is_cut = true;
            oracle.streams[stream].is_over_at = Some(by_ms);
        }
    }

    /// Now and then it does something else than to read.
    fn look_around(&mut self, network: &mut Network, oracle: &mut Oracle, rng: &mut Rng) {
        let now = network.now();
        let pause_ms = rng.u64(20..800);
        self.look_at = now + pause_ms;
        network.plan(pause_ms, Act::Client(self.index));
        let socket = self.socket.expect("the caller has seen one");
        let mut happens = |in_thousand: u32| rng.u32(0..1000) < in_thousand;
        if self.is_calm {
            return;
        }
        if happens(self.behavior.cuts) {
            self.cut(oracle, now);
            match happens(500) {
                true => network.reset(socket),
                false => network.leave(socket),
            }
            self.come_back(network, rng);
        } else if self.behavior.vanishes > 0 && happens(self.behavior.vanishes) {
            let given_up_at = network.vanish(socket);
            self.cut(oracle, given_up_at);
            self.come_back(network, rng);
        } else if happens(self.behavior.half_closes)
            && self.ended_sending_at.is_none()
            && self.pieces.is_empty()
        {
            self.cut(oracle, u64::MAX);
            self.ended_sending_at = Some(now);
            network.finish(socket);
        } else if happens(self.behavior.junk)
            && self.is_streaming()
            && self.ended_sending_at.is_none()
        {
            let count = rng.usize(1..200);
            network.count("junk from subscribers");
            network.send(socket, &vec![b'x'; count]);
            if let Some(stream) = self.stream {
                oracle.streams[stream].junk_bytes += count;
            }
        } else if happens(self.behavior.stalls) && now >= self.stalled_until {
            network.count("readers that stall");
            let stall_ms = rng.u64(0..=self.behavior.stall_ms_max);
            self.stalled_until = now + stall_ms;
            self.reads_since = self.stalled_until;
            network.plan(stall_ms, Act::Client(self.index));
        }
    }

    /// It has left its socket, and connects again before long.
    fn come_back(&mut self, network: &mut Network, rng: &mut Rng) {
        self.forget_socket();
        let pause_ms = rng.u64(0..1_000);
        self.connect_at = network.now() + pause_ms;
        network.plan(pause_ms, Act::Client(self.index));
    }

    fn is_deferred(&self) -> bool {
        let is_deferred = |role: &Role| {
            matches!(
                role,
                Role::Subscriber {
                    is_deferred: true,
                    ..
                }
            )
        };
        is_deferred(&self.role)
    }

    /// Whether it waits for nothing any more.
    pub fn is_content(&self, oracle: &Oracle) -> bool {
        match (self.socket, self.stream) {
            (Some(_), Some(stream)) if self.is_streaming() => {
                let has_all = oracle.waits_since(stream).is_none() && !oracle.awaits_id(stream);
                oracle.streams[stream].is_cut || has_all
            }
            _ => !self.awaits_answer(),
        }
    }
}

/// A request that deserves no good answer, or none at all.
fn hostile_request(rng: &mut Rng) -> String {
    let requests = [
        "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde",
        "GET / HTTP/1.1\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01\x02",
        "GET /hello HTTP/1.1\r\nHos",
        "",
        "GET /panic HTTP/1.1\r\nHost: x\r\n\r\nGET /hello HTTP/1.1\r\nHost: x\r\n\r\n",
        "HEAD /events?channel=c0&stream=none HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /hello HTTP/1.0\r\n\r\n",
        "POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    ];
    requests[rng.usize(0..requests.len())].to_owned()
}
