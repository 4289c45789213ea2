//! A network that a seed makes up: sockets in memory, a clock of its own, and
//! the faults that real networks have.
//!
//! It keeps to the contract of [`Net`] and no more: readiness is reported once, and
//! again only after an operation that found nothing or did less than it was
//! asked for; it comes late, twice, in any order, and for sockets that are
//! closed by now. Time stands still but in [`Net::poll`].
//!
//! ```text
//!   engine ── write ──► outgoing (bounded) ──► take ── client
//!   engine ◄── read ─── incoming ◄── (later) ── send ── client
//! ```
//!
//! While the engine polls, others act: clients, and publishers on threads of
//! their own. [`Actors::act`] stands for all of them. Work for a sleeping engine without
//! a wake-up is a failure.
//!
//! An engine of several threads has a loop on each, and each loop a [`Seam`] of
//! its own: the others turn while the first one polls, which is what they do to
//! each other on threads. So they sleep at the same time, and one may publish,
//! end or wake what another is about to look at.

mod batches;
mod seam;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fastrand::Rng;
use pushwheel::internals::net::{LISTENER, Readiness};

pub use batches::Batches;
pub use seam::Seam;

/// Polls in a row that neither wait nor find anything, after which the loop is
/// said to spin.
const EMPTY_POLLS_MAX: usize = 2_000;
/// How often one socket is read from in one turn, however much has come. A
/// subscriber that talks is heard a hundred times.
const READS_A_TURN_MAX: u32 = 128;

/// The actor while the engine polls.
pub trait Actors {
    /// Does what is due. Says whether that made work for the engine which did
    /// not come through a socket: an event, a response, a disconnect.
    fn act(&mut self, actor: Act) -> bool;
    /// The engine is about to sleep: what must hold then?
    fn before_sleep(&mut self);
    /// A client loses its connection while the engine writes, if it still has it: only where
    /// such [`Batches`] are drawn.
    fn lose(&mut self, _client: usize, _socket: usize) {}
}

/// What acts next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// This client looks at its socket and its plans.
    Client(usize),
    /// Publishers, administrators and other holders of handles.
    Publisher,
    /// The journal, which is due.
    Journal,
    /// What refuses proposals that have waited for too long.
    Timeouts,
    /// The clock goes forward by so many milliseconds at once.
    Jump(u64),
    /// A part of a node of a cluster takes a step.
    Step(usize, Part),
    /// What a seed has drawn for this moment happens to a cluster.
    Happening(usize),
}

/// What takes steps for a node of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Writer,
    Reader,
    Keeper,
    Pulse,
}

/// How often what goes wrong: each is a chance in a thousand, or a maximum.
#[derive(Clone, Debug)]
pub struct Faults {
    pub partial_reads: u32,
    pub partial_writes: u32,
    /// `WouldBlock` though there is something.
    pub spurious_blocks: u32,
    /// Readiness that is reported twice, or of nothing.
    pub repeated: u32,
    pub stale_tokens: u32,
    /// By how many milliseconds readiness may be late.
    pub late_ms_max: u64,
    pub aborted_accepts: u32,
    pub failed_registrations: u32,
    pub interrupted_reads: u32,
    pub interrupted_writes: u32,
    /// Maximum open descriptors.
    pub descriptors_max: usize,
    /// Maximum bytes that a socket takes while its peer does not read.
    pub send_bytes_max: usize,
    /// Maximum time that bytes are on the way.
    pub latency_ms_max: u64,
}

/// What befalls few runs, and then seldom.
#[derive(Clone, Debug, Default)]
pub struct RareFaults {
    /// When the clock goes forward at once, and by how many milliseconds.
    pub clock_jumps: Vec<(u64, u64)>,
    /// How often clients vanish: a chance in a thousand.
    pub vanishes: u32,
    /// Time until the system gives up a client that has vanished.
    pub lost_after_ms: u64,
    /// In how many of 50 turns a millisecond goes by.
    pub slow_turns: u32,
    /// How often something is due while the engine has a turn of its own before
    /// it happens: a chance in a thousand.
    pub overlaps: u32,
    /// Whether clients come with ids that look like the engine's and are none.
    pub forges: bool,
    /// Whether hostile clients send far more than they are answered for.
    pub floods: bool,
}

enum Event {
    Report(usize),
    /// To this loop.
    ReportListener(usize),
    Stale(usize, Readiness),
    Bytes(usize, Vec<u8>),
    End(usize),
    Reset(usize),
    Act(Act),
}

/// One connection, from both sides.
pub struct Socket {
    client: usize,
    /// Whose it is, of the engine's loops.
    owner: usize,
    incoming: VecDeque<u8>,
    /// The turn in which it was last read from, and how often in that.
    reads: (u64, u32),
    /// When the last that the client sent arrives.
    arrives_at: u64,
    /// The client's end has arrived, and was reported to the engine.
    has_end: bool,
    is_end_reported: bool,
    /// The client is gone: whatever is written brings a reset.
    is_client_gone: bool,
    is_reset: bool,
    outgoing: VecDeque<u8>,
    outgoing_max: usize,
    /// Whether the engine has limited what it holds.
    is_limited: bool,
    /// Since when the engine has more than fits, and nothing was taken.
    pub full_since: Option<u64>,
    /// When the client last took something.
    pub taken_at: u64,
    /// The engine writes no more.
    is_shut: bool,
    /// The engine has closed it.
    pub is_closed: bool,
    /// The network has broken it, or the engine never had it.
    pub is_refused: bool,
    /// It was reset because bytes of the client were unread.
    pub is_broken_off: bool,
    /// The engine has closed it without a read of the bytes that were there.
    pub is_closed_unread: bool,
    /// The turn in which a read last said that there was nothing, though there
    /// was.
    deceived_in: u64,
    /// The turn in which a write last said that there was no room.
    blocked_in: u64,
    /// An answer that the request is late was written, or was to be.
    is_reported_late: bool,
    token: Option<u64>,
    armed: Edges,
    /// What has come to be and is not reported yet.
    edges: Edges,
    is_report_due: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Edges {
    read: bool,
    write: bool,
}

/// What the network has for one of the engine's loops.
struct Side {
    woken: Arc<AtomicBool>,
    backlog: VecDeque<usize>,
    is_listening: bool,
    is_listener_armed: bool,
    /// The reports of its next poll.
    ready: Vec<Readiness>,
    /// Until when its poll may last; `None`: until it is woken.
    deadline: Option<u64>,
    /// Whether others have to wake it, should they have work for it.
    is_asleep: bool,
    /// It does not turn any more.
    is_over: bool,
    /// It does not turn before this time, whatever comes.
    frozen_until: u64,
    old_tokens: Vec<u64>,
    has_acted: bool,
    empty_polls: usize,
    /// Whether a signal ends its poll, which then reports nothing.
    is_interrupted: bool,
}

impl Side {
    fn new() -> Side {
        Side {
            woken: Arc::default(),
            backlog: VecDeque::new(),
            is_listening: true,
            is_listener_armed: false,
            ready: Vec::new(),
            deadline: None,
            is_asleep: false,
            is_over: false,
            frozen_until: 0,
            old_tokens: Vec::new(),
            has_acted: false,
            empty_polls: 0,
            is_interrupted: false,
        }
    }

    /// Whether its poll has something to return for.
    fn is_due(&self, now: u64) -> bool {
        let is_late = self.deadline.is_some_and(|at| at <= now);
        let is_reported = !self.ready.is_empty() || self.woken.load(Ordering::Relaxed);
        !self.is_over && now >= self.frozen_until && (is_late || is_reported)
    }
}

/// See the [module](self).
pub struct Network {
    rng: Rng,
    clock: Arc<AtomicU64>,
    sides: Vec<Side>,
    faults: Faults,
    /// How long the system takes to give up a peer that says nothing.
    lost_after_ms: u64,
    slow_turns: u32,
    overlaps: u32,
    /// Whether room in a socket is reported only once a third of it is free, as
    /// Linux does (`sk_stream_is_writeable`); a write finds whatever there is.
    pub withholds_room: bool,
    /// Whether a process that goes on after a stop has its poll end with nothing
    /// reported, whatever has come in between, as with `SIGCONT`.
    pub interrupts: bool,
    /// What befalls writes to many at once.
    pub batches: Option<Batches>,
    events: BTreeMap<(u64, u32, u64), Event>,
    events_ever: u64,
    sockets: Vec<Socket>,
    open: usize,
    /// By how much the clock has jumped in all, and when it last did.
    jumped_ms: u64,
    jumped_at: u64,
    /// When descriptors were last wanting.
    exhausted_at: u64,
    /// From now on polls fail.
    pub has_failed: bool,
    pub turns: u64,
    /// Faults by kind, as injected.
    pub injected: BTreeMap<&'static str, u64>,
}

impl Network {
    pub fn new(rng: Rng, clock: Arc<AtomicU64>, loops: usize, faults: Faults) -> Self {
        Network {
            rng,
            clock,
            sides: (0..loops).map(|_| Side::new()).collect(),
            faults,
            lost_after_ms: 0,
            slow_turns: 1,
            overlaps: 0,
            withholds_room: false,
            interrupts: false,
            batches: None,
            events: BTreeMap::new(),
            events_ever: 0,
            sockets: Vec::new(),
            open: 0,
            jumped_ms: 0,
            jumped_at: 0,
            exhausted_at: 0,
            has_failed: false,
            turns: 0,
            injected: BTreeMap::new(),
        }
    }

    /// What wakes a loop.
    pub fn waker(&self, side: usize) -> Box<dyn Fn() + Send + Sync> {
        let woken = self.sides[side].woken.clone();
        Box::new(move || woken.store(true, Ordering::Relaxed))
    }

    pub fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// The time without what the clock has jumped.
    pub fn lived_ms(&self) -> u64 {
        self.now() - self.jumped_ms
    }

    /// Since when the clock has not jumped: whatever took long before that may
    /// have had no time at all.
    pub fn jumped_at(&self) -> u64 {
        self.jumped_at
    }

    /// When the engine last wanted a descriptor and there was none.
    pub fn exhausted_at(&self) -> u64 {
        self.exhausted_at
    }

    /// Another engine begins to listen. Reports for the last one are dropped.
    pub fn restart(&mut self) {
        for side in &mut self.sides {
            *side = Side::new();
        }
        let is_for_last =
            |event: &Event| matches!(event, Event::ReportListener(_) | Event::Stale(..));
        self.events.retain(|_, event| !is_for_last(event));
        for socket in &mut self.sockets {
            socket.token = None;
        }
    }

    /// The process ends: its connections break, and what is under way is lost.
    pub fn break_all(&mut self) {
        for number in 0..self.sockets.len() {
            let socket = &mut self.sockets[number];
            (socket.is_closed, socket.full_since) = (true, None);
            if !socket.is_reset {
                self.arrive(Event::Reset(number));
            }
        }
        self.open = 0;
    }

    /// The process of a loop ends: its connections break, and another one may listen.
    pub fn end_process(&mut self, side: usize) {
        let waiting = std::mem::replace(&mut self.sides[side], Side::new()).backlog;
        for number in 0..self.sockets.len() {
            let socket = &mut self.sockets[number];
            if socket.owner != side || socket.is_closed {
                continue;
            }
            (socket.is_closed, socket.full_since, socket.token) = (true, None, None);
            if !socket.is_reset {
                self.arrive(Event::Reset(number));
            }
            self.open -= usize::from(!waiting.contains(&number));
        }
        self.sides[side].is_listening = false;
        self.retire(side);
    }

    /// A process begins to listen.
    pub fn begin_process(&mut self, side: usize) {
        self.sides[side] = Side::new();
    }

    /// A loop does not turn for a while.
    pub fn freeze(&mut self, side: usize, for_ms: u64) {
        self.sides[side].frozen_until = self.now() + for_ms;
    }

    /// Until when a loop has not turned, or does not.
    pub fn frozen_until(&self, side: usize) -> u64 {
        self.sides[side].frozen_until
    }

    /// The number of loops.
    pub fn sides(&self) -> usize {
        self.sides.len()
    }

    /// A loop has come to its end.
    pub fn retire(&mut self, side: usize) {
        let side = &mut self.sides[side];
        (side.is_over, side.is_asleep) = (true, true);
        side.deadline = None;
    }

    /// Whether all loops sleep, and nothing is there that ends that.
    fn sleeps(&self) -> bool {
        let now = self.now();
        let mut sides = self.sides.iter();
        sides.all(|side| side.is_asleep && !side.is_due(now))
    }

    /// Goes on to the next moment at which there is something to do.
    fn let_time_pass(&mut self) {
        let event = self.events.first_key_value().map(|((at, _, _), _)| *at);
        let frozen = |side: &Side, at: u64| at.max(side.frozen_until);
        let sides = self.sides.iter().filter(|side| !side.is_over);
        let deadlines = sides.filter_map(|side| Some(frozen(side, side.deadline?)));
        let next = deadlines.chain(event).min();
        let next = next.expect("the loop sleeps for ever, and nothing is going to happen");
        let now = self.now();
        self.clock.store(next.max(now), Ordering::Relaxed);
    }

    /// Moves the clock forward.
    pub fn jump(&mut self, by_ms: u64) {
        self.count("clock jumps");
        self.jumped_ms += by_ms;
        self.jumped_at = self.now() + by_ms;
        self.clock.store(self.jumped_at, Ordering::Relaxed);
        for side in &mut self.sides {
            side.is_interrupted = self.interrupts;
        }
    }

    /// How many sockets the engine has.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Has these happen.
    pub fn befall(&mut self, rare_faults: &RareFaults) {
        self.lost_after_ms = rare_faults.lost_after_ms;
        self.slow_turns = rare_faults.slow_turns.max(1);
        self.overlaps = rare_faults.overlaps;
        for (at_ms, by_ms) in &rare_faults.clock_jumps {
            self.plan(*at_ms, Act::Jump(*by_ms));
        }
    }

    pub fn socket(&self, number: usize) -> &Socket {
        &self.sockets[number]
    }

    /// Ends all faults, and makes room, so that what is owed can be delivered.
    pub fn calm_down(&mut self) {
        for socket in &mut self.sockets {
            socket.outgoing_max = socket.outgoing_max.max(50_000);
        }
        self.events
            .retain(|_, event| !matches!(event, Event::Act(Act::Jump(_))));
        self.batches = None;
        self.faults = Faults {
            partial_reads: 0,
            partial_writes: 0,
            spurious_blocks: 0,
            repeated: 0,
            stale_tokens: 0,
            aborted_accepts: 0,
            failed_registrations: 0,
            interrupted_reads: 0,
            interrupted_writes: 0,
            descriptors_max: usize::MAX,
            ..self.faults
        };
    }

    /// Plans an act `after_ms` from now.
    pub fn plan(&mut self, after_ms: u64, act: Act) {
        self.schedule(self.now() + after_ms, Event::Act(act));
    }

    /// A client connects; answers its socket's number.
    pub fn connect(&mut self, client: usize) -> usize {
        let outgoing_max = self.draw_room();
        // The system chooses one of the listeners.
        let owner = match self.sides.len() {
            1 => 0,
            several => self.rng.usize(0..several),
        };
        self.connect_socket(client, owner, outgoing_max)
    }

    /// A client connects to one of the listeners.
    pub fn connect_to(&mut self, client: usize, owner: usize) -> usize {
        let outgoing_max = self.draw_room();
        self.connect_socket(client, owner, outgoing_max)
    }

    /// Draws how much a socket takes.
    fn draw_room(&mut self) -> usize {
        match self.rng.u32(0..8) {
            0 => self.rng.usize(1..=self.faults.send_bytes_max.min(64)),
            _ => self.rng.usize(1..=self.faults.send_bytes_max),
        }
    }

    fn connect_socket(&mut self, client: usize, owner: usize, outgoing_max: usize) -> usize {
        let number = self.sockets.len();
        let now = self.now();
        self.sockets.push(Socket {
            client,
            owner,
            incoming: VecDeque::new(),
            reads: (0, 0),
            arrives_at: now,
            has_end: false,
            is_end_reported: false,
            is_client_gone: false,
            is_reset: false,
            outgoing: VecDeque::new(),
            outgoing_max,
            is_limited: false,
            full_since: None,
            taken_at: now,
            is_shut: false,
            is_closed: false,
            is_refused: false,
            is_broken_off: false,
            is_closed_unread: false,
            deceived_in: 0,
            blocked_in: 0,
            is_reported_late: false,
            token: None,
            armed: Edges::default(),
            edges: Edges::default(),
            is_report_due: false,
        });
        let side = &mut self.sides[owner];
        if !side.is_listening {
            self.sockets[number].is_reset = true;
            self.sockets[number].is_closed = true;
            self.tell_client(number);
            return number;
        }
        side.backlog.push_back(number);
        if std::mem::take(&mut side.is_listener_armed) {
            let at = self.now() + self.lateness();
            self.schedule(at, Event::ReportListener(owner));
        }
        number
    }

    /// The client sends bytes. They arrive later, and in order.
    pub fn send(&mut self, number: usize, bytes: &[u8]) {
        let at = self.arrival(number);
        self.schedule(at, Event::Bytes(number, bytes.to_vec()));
    }

    /// The client says that it sends no more; it may go on reading.
    pub fn finish(&mut self, number: usize) {
        self.count("half-closed by the client");
        let at = self.arrival(number);
        self.schedule(at, Event::End(number));
    }

    /// The client closes the socket: it neither sends nor reads.
    pub fn leave(&mut self, number: usize) {
        self.count("closed by the client");
        let at = self.arrival(number);
        self.sockets[number].is_client_gone = true;
        self.schedule(at, Event::End(number));
    }

    /// The connection breaks, together with whatever is under way.
    pub fn reset(&mut self, number: usize) {
        self.count("resets");
        let at = self.now() + self.rng.u64(0..=self.faults.latency_ms_max);
        self.sockets[number].is_client_gone = true;
        self.schedule(at, Event::Reset(number));
    }

    /// The client is gone without a word, as when a cable is pulled: it takes
    /// nothing, and the system gives it up after a while. Answers when.
    pub fn vanish(&mut self, number: usize) -> u64 {
        self.count("peers that vanish");
        let at = self.now() + self.lost_after_ms;
        self.schedule(at, Event::Reset(number));
        at
    }

    /// The client takes what has come, up to `max` bytes, and learns whether
    /// that was the last of it.
    pub fn take(&mut self, number: usize, max: usize) -> (Vec<u8>, bool) {
        let now = self.now();
        let socket = &mut self.sockets[number];
        let count = max.min(socket.outgoing.len());
        let bytes: Vec<u8> = socket.outgoing.drain(..count).collect();
        if count > 0 {
            socket.taken_at = now;
            socket.full_since = None;
            if socket.armed.write && self.is_roomy(number) {
                self.edge(number, |edges| edges.write = true);
            }
        }
        let socket = &self.sockets[number];
        let is_over = socket.outgoing.is_empty() && (socket.is_shut || socket.is_closed);
        (bytes, is_over || socket.is_reset)
    }

    /// Whether the engine may be waiting until it can write.
    pub fn is_blocked(&self, number: usize) -> bool {
        let socket = &self.sockets[number];
        !socket.outgoing.is_empty() || socket.armed.write || socket.edges.write
    }

    /// A socket's state in one line, for the report of a failure.
    pub fn describe(&self, number: usize) -> String {
        let socket = &self.sockets[number];
        format!(
            "socket {number}: {} bytes in, end {} (reported {}), {} of {} bytes out, armed {:?}, \
             unreported {:?}, closed {}",
            socket.incoming.len(),
            socket.has_end,
            socket.is_end_reported,
            socket.outgoing.len(),
            socket.outgoing_max,
            socket.armed,
            socket.edges,
            socket.is_closed,
        )
    }

    /// Whether there is something to take.
    pub fn has_bytes_for_client(&self, number: usize) -> bool {
        !self.sockets[number].outgoing.is_empty()
    }

    pub fn count(&mut self, what: &'static str) {
        *self.injected.entry(what).or_default() += 1;
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.events_ever += 1;
        let key = (at, self.rng.u32(..), self.events_ever);
        self.events.insert(key, event);
    }

    fn arrival(&mut self, number: usize) -> u64 {
        let at = self.now() + self.rng.u64(0..=self.faults.latency_ms_max);
        let socket = &mut self.sockets[number];
        socket.arrives_at = at.max(socket.arrives_at + 1);
        socket.arrives_at
    }

    fn lateness(&mut self) -> u64 {
        match self.rng.u32(0..4) {
            0 => self.rng.u64(0..=self.faults.late_ms_max),
            _ => 0,
        }
    }

    fn happens(&mut self, in_thousand: u32, what: &'static str) -> bool {
        let happens = in_thousand > 0 && self.rng.u32(0..1000) < in_thousand;
        if happens {
            self.count(what);
        }
        happens
    }

    fn tell_client(&mut self, number: usize) {
        let client = self.sockets[number].client;
        let after_ms = self.rng.u64(0..=self.faults.latency_ms_max);
        self.plan(after_ms, Act::Client(client));
    }

    /// Notes a change of readiness that the engine has to learn of.
    fn edge(&mut self, number: usize, set: impl FnOnce(&mut Edges)) {
        let socket = &mut self.sockets[number];
        set(&mut socket.edges);
        if socket.token.is_some() && !std::mem::replace(&mut socket.is_report_due, true) {
            let at = self.now() + self.lateness();
            self.schedule(at, Event::Report(number));
        }
    }

    /// An operation did less than it was asked for: what is there by now, or
    /// comes later, is reported again.
    fn arm_read(&mut self, number: usize) {
        let socket = &mut self.sockets[number];
        socket.armed.read = true;
        let has_more = !socket.incoming.is_empty() || (socket.has_end && !socket.is_end_reported);
        if has_more || socket.is_reset {
            self.edge(number, |edges| edges.read = true);
        }
    }

    fn arm_write(&mut self, number: usize) {
        self.sockets[number].armed.write = true;
        if self.is_roomy(number) || self.sockets[number].is_reset {
            self.edge(number, |edges| edges.write = true);
        }
    }

    /// Whether a socket has so much room that it is reported.
    fn is_roomy(&self, number: usize) -> bool {
        let socket = &self.sockets[number];
        let room = socket.outgoing_max - socket.outgoing.len();
        let wanted = match self.withholds_room {
            true => socket.outgoing_max / 3,
            false => 0,
        };
        room > 0 && room >= wanted
    }

    /// What arrives on a socket.
    fn arrive(&mut self, event: Event) {
        match event {
            Event::Bytes(number, bytes) => {
                let socket = &mut self.sockets[number];
                if socket.is_reset {
                    return;
                }
                if socket.is_closed {
                    return self.break_off(number);
                }
                socket.incoming.extend(bytes);
                // Reported again only after a read that found nothing, or, as real
                // pollers do, always.
                if socket.armed.read || self.rng.bool() {
                    self.edge(number, |edges| edges.read = true);
                }
            }
            Event::End(number) => {
                let socket = &mut self.sockets[number];
                socket.has_end = true;
                if !socket.is_closed && (socket.armed.read || self.rng.bool()) {
                    self.edge(number, |edges| edges.read = true);
                }
            }
            Event::Reset(number) => {
                let socket = &mut self.sockets[number];
                socket.is_reset = true;
                socket.is_refused = true;
                socket.incoming.clear();
                socket.outgoing.clear();
                if !socket.is_closed {
                    self.edge(number, |edges| (edges.read, edges.write) = (true, true));
                }
                self.tell_client(number);
            }
            Event::Report(number) => self.report(number),
            Event::ReportListener(side) => {
                let side = &mut self.sides[side];
                if side.is_listening {
                    side.ready.push(readiness(LISTENER, true, false));
                }
            }
            Event::Stale(side, readiness) => self.sides[side].ready.push(readiness),
            Event::Act(_) => unreachable!("acts are for the actors"),
        }
    }

    /// A socket was closed with bytes unread, or is sent some after that: as real
    /// systems do, this one answers with a reset, and forgets what the client has
    /// yet to take.
    fn break_off(&mut self, number: usize) {
        self.count("bytes for a socket that is closed");
        let socket = &mut self.sockets[number];
        (socket.is_reset, socket.is_broken_off) = (true, true);
        socket.incoming.clear();
        socket.outgoing.clear();
        self.tell_client(number);
    }

    fn report(&mut self, number: usize) {
        let socket = &mut self.sockets[number];
        let owner = socket.owner;
        socket.is_report_due = false;
        let edges = std::mem::take(&mut socket.edges);
        let Some(token) = socket.token else {
            return;
        };
        if edges.read {
            socket.armed.read = false;
            socket.is_end_reported = socket.has_end;
        }
        if edges.write {
            socket.armed.write = false;
        }
        let reported = readiness(token, edges.read, edges.write);
        let is_closed = socket.is_closed;
        if is_closed && !self.happens(500, "readiness of closed sockets") {
            return;
        }
        self.sides[owner].ready.push(reported);
        if self.happens(self.faults.repeated, "readiness repeated") {
            let at = self.now() + self.rng.u64(0..=self.faults.late_ms_max);
            self.schedule(at, Event::Stale(owner, reported));
        }
        if self.happens(self.faults.repeated, "readiness of nothing") {
            self.sides[owner].ready.push(readiness(token, true, true));
        }
        if let Some(&token) = self.sides[owner].old_tokens.last()
            && self.happens(self.faults.stale_tokens, "stale tokens")
        {
            let count = self.sides[owner].old_tokens.len();
            let back = self.rng.usize(0..count.min(8));
            let side = &mut self.sides[owner];
            let token = side.old_tokens.iter().rev().nth(back).map_or(token, |t| *t);
            side.ready.push(readiness(token, true, true));
        }
    }
}

fn readiness(token: u64, is_readable: bool, is_writable: bool) -> Readiness {
    Readiness {
        token,
        is_readable,
        is_writable,
    }
}
