//! A broker that a seed makes up: servers that keep the log of a cluster, and the ways that
//! nodes have to them.
//!
//! A call is carried out when it is made, and then takes the time that is drawn for it. It may
//! fail before or after it is carried out, and a request that seems to be lost may be carried
//! out later.

mod session;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use pushwheel::cluster::{
    Appended, BrokerError, Hello, LogReader, LogWriter, Memory, NewBlock, SharedLog,
    StoredSnapshot, TERMS_MAX, Term, Welcome, WriterEnd,
};

use session::Session;

/// What the clocks of servers show when a run begins, in milliseconds.
const BEGIN_MS: u64 = 1_000_000;
/// The time that is 0 for numbers of terms: the beginning of 2026, in microseconds since 1970.
const NUMBERS_FROM_US: u64 = 1_767_225_600_000_000;
/// Changes of a server that a replica may lack.
const LAG_MAX: usize = 60;
/// Blocks that a read returns at most.
const BLOCKS_A_READ: usize = 16;

/// How often what goes wrong, in a thousand, and how long calls take.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub call_ms_max: u64,
    /// Calls that take seconds.
    pub stalls: u32,
    pub lost_requests: u32,
    pub lost_answers: u32,
    pub torn_reads: u32,
    /// Requests that are carried out twice.
    pub repeated: u32,
    pub full: u32,
}

/// A block, as its server has appended it.
#[derive(Debug)]
pub struct Stored {
    pub first: u64,
    pub width: u64,
    /// The first number of its term.
    pub term: u64,
    wall_ms: u64,
    pub bytes: Vec<u8>,
}

impl Stored {
    pub fn numbers(&self) -> Range<u64> {
        self.first..self.first + self.width
    }
}

/// What a server keeps.
#[derive(Clone, Debug, Default)]
struct Kept {
    identity: Vec<u8>,
    terms: Vec<Term>,
    next: u64,
    /// The process that gave the newest numbers.
    run: usize,
    blocks: VecDeque<Arc<Stored>>,
    writers: BTreeMap<u128, WriterEnd>,
    snapshot: Option<StoredSnapshot>,
    chunks: BTreeMap<(u64, u128, u32), Arc<[u8]>>,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug, Default)]
struct Server {
    kept: Kept,
    /// What it kept before its newest changes, the oldest first.
    before: VecDeque<Kept>,
    lease: Option<(u128, u64)>,
    /// When another one took over, and until when it can be reached at most.
    replaced: Option<(u64, u64)>,
}

/// What a node remembers of a log.
#[derive(Clone, Debug)]
struct Remembered {
    identity: Vec<u8>,
    terms: Vec<Term>,
    applied: u64,
    writers: Vec<WriterEnd>,
}

impl From<Memory<'_>> for Remembered {
    fn from(memory: Memory<'_>) -> Remembered {
        Remembered {
            identity: memory.identity.to_vec(),
            terms: memory.terms.to_vec(),
            applied: memory.applied,
            writers: memory.writers.to_vec(),
        }
    }
}

/// A request that is carried out late.
enum Late {
    Append {
        identity: Vec<u8>,
        writer: u128,
        n: u64,
        width: u64,
        bytes: Vec<u8>,
    },
    Hello {
        known: u64,
        memory: Option<Remembered>,
    },
}

/// When a process has first read each block and each snapshot.
#[derive(Default)]
pub struct Readings {
    /// By their first numbers.
    pub blocks: BTreeMap<u64, u64>,
    /// By the numbers up to which they go.
    pub snapshots: BTreeMap<u64, u64>,
}

/// All servers, of which one is the broker.
pub struct Broker {
    rng: Rng,
    clock: Arc<AtomicU64>,
    faults: Faults,
    servers: Vec<Server>,
    /// Until when nodes reach no server.
    cut_until: Vec<u64>,
    /// How long the calls of the step that is taken have taken.
    took_ms: u64,
    late: Vec<(u64, usize, Late)>,
    sessions: u64,
    /// All blocks that any server has had, and all terms.
    pub all: BTreeMap<u64, Arc<Stored>>,
    pub terms: Vec<Term>,
    /// Behind which numbers logs have begun on empty servers: what was before is known to
    /// those nodes alone that have it.
    pub begun_after: BTreeSet<u64>,
    /// What each process has read.
    pub read_by: BTreeMap<usize, Readings>,
    /// Whether a log has begun without the one before.
    pub has_forgotten: bool,
    pub injected: BTreeMap<&'static str, u64>,
}

pub type SharedBroker = Arc<Mutex<Broker>>;

fn gone(why: &str) -> BrokerError {
    BrokerError::Unreachable {
        why: why.to_owned(),
    }
}

/// Returns whether a log with these terms has a block.
fn is_on(terms: &[Term], block: &Stored) -> bool {
    let own = terms.iter().position(|term| term.first == block.term);
    let last = block.first + block.width - 1;
    own.is_some_and(|own| terms[own + 1..].iter().all(|term| last <= term.after))
}

impl Broker {
    pub fn new(rng: Rng, clock: Arc<AtomicU64>, nodes: usize, faults: Faults) -> SharedBroker {
        Arc::new(Mutex::new(Broker {
            rng,
            clock,
            faults,
            servers: vec![Server::default()],
            cut_until: vec![0; nodes],
            took_ms: 0,
            late: Vec::new(),
            sessions: 0,
            all: BTreeMap::new(),
            terms: Vec::new(),
            begun_after: BTreeSet::new(),
            read_by: BTreeMap::new(),
            has_forgotten: false,
            injected: BTreeMap::new(),
        }))
    }

    fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn wall_ms(&self) -> u64 {
        BEGIN_MS + self.now()
    }

    fn count(&mut self, what: &'static str) {
        *self.injected.entry(what).or_default() += 1;
    }

    fn happens(&mut self, in_thousand: u32, what: &'static str) -> bool {
        let happens = in_thousand > 0 && self.rng.u32(0..1_000) < in_thousand;
        if happens {
            self.count(what);
        }
        happens
    }

    /// Returns how long the calls of the last step have taken.
    pub fn take_time(&mut self) -> u64 {
        std::mem::take(&mut self.took_ms)
    }

    // ---- what happens to it ----

    /// Ends all faults.
    pub fn calm_down(&mut self) {
        self.faults = Faults::default();
        self.cut_until.fill(0);
        self.late.clear();
        let now = self.now();
        for server in &mut self.servers {
            server.replaced = server.replaced.map(|(at, _)| (at, now));
        }
    }

    /// Cuts a node off, or all.
    pub fn cut(&mut self, node: Option<usize>, for_ms: u64) {
        self.count(match node {
            Some(_) => "a node is cut off from the broker",
            None => "the broker is down",
        });
        let until = self.now() + for_ms;
        let nodes = node.map_or(0..self.cut_until.len(), |node| node..node + 1);
        for cut_until in &mut self.cut_until[nodes] {
            *cut_until = until.max(*cut_until);
        }
    }

    /// Another server takes over, which lacks the newest changes. The one before goes on for
    /// those that reach it, for a while.
    pub fn fail_over(&mut self, lacks: usize, for_ms: u64) {
        let now = self.now();
        let server = self.servers.last_mut().expect("there is one");
        let at = server.before.len().saturating_sub(lacks);
        let mut before = server.before.range(at..);
        // One that has no log yet has lost everything.
        let before = before.find(|kept| !kept.identity.is_empty());
        let before = before.filter(|_| lacks > 0).cloned();
        let kept = before.unwrap_or_else(|| server.kept.clone());
        server.replaced = Some((now, now + for_ms));
        self.count(match (lacks, for_ms) {
            (0, 0) => "the broker starts again",
            (0, _) => "failovers beside a server that goes on",
            _ => "failovers that lose the newest blocks",
        });
        self.servers.push(Server {
            kept,
            ..Server::default()
        });
    }

    /// Everything is deleted.
    pub fn flush(&mut self) {
        self.count("the broker loses everything");
        let server = self.servers.last_mut().expect("there is one");
        (server.kept, server.before, server.lease) = (Kept::default(), VecDeque::new(), None);
    }

    /// Whether a process has read the block of a number.
    pub fn has_read(&self, process: usize, number: u64) -> bool {
        let blocks = self.read_by.get(&process).map(|read| &read.blocks);
        let first = blocks.and_then(|blocks| blocks.range(..=number).next_back());
        first.is_some_and(|(first, _)| self.all[first].numbers().contains(&number))
    }

    /// Whether it has read a snapshot that may have the number.
    pub fn has_in_snapshot(&self, process: usize, number: u64) -> bool {
        let read = self.read_by.get(&process);
        read.is_some_and(|read| read.snapshots.range(number..).next().is_some())
    }

    /// Carries out what comes late and is due.
    pub fn carry_out_late(&mut self) {
        let now = self.now();
        while let Some(at) = self.late.iter().position(|(at, ..)| *at <= now) {
            let (_, server, late) = self.late.swap_remove(at);
            self.count("requests that are carried out late");
            // The answer has no receiver.
            match late {
                Late::Append {
                    identity,
                    writer,
                    n,
                    width,
                    bytes,
                } => {
                    let bytes = &bytes[..];
                    let block = NewBlock {
                        writer,
                        n,
                        width,
                        bytes,
                    };
                    let _ = self.append(server, &identity, block);
                }
                Late::Hello { known, memory } => drop(self.hello(server, known, memory)),
            }
        }
    }

    // ---- what it is asked ----

    /// The blocks of the log as it is now, also those that were trimmed.
    pub fn truth(&self) -> impl Iterator<Item = &Arc<Stored>> {
        let kept = &self.servers.last().expect("there is one").kept;
        let terms = &kept.terms;
        assert!(terms.len() < TERMS_MAX, "the terms of a run are known");
        self.all.values().filter(|block| is_on(terms, block))
    }

    /// The newest number of the log, 0 if it is empty.
    pub fn newest(&self) -> u64 {
        self.truth()
            .last()
            .map_or(0, |block| block.numbers().end - 1)
    }

    /// Whether the log has a number.
    pub fn has(&self, number: u64) -> bool {
        self.truth().any(|block| block.numbers().contains(&number))
    }

    fn note_change(&mut self, server: usize) {
        let server = &mut self.servers[server];
        server.before.push_back(server.kept.clone());
        if server.before.len() > LAG_MAX {
            server.before.pop_front();
        }
    }

    fn first_of_term(&self, known: u64) -> Result<u64, BrokerError> {
        let first = Term::first_at(NUMBERS_FROM_US + 1_000 * self.wall_ms(), known);
        // No two servers begin a term in the same millisecond.
        match self.terms.iter().any(|term| term.first == first) {
            true => Err(gone("it starts")),
            false => Ok(first),
        }
    }

    fn hello(
        &mut self,
        server: usize,
        known: u64,
        memory: Option<Remembered>,
    ) -> Result<Welcome, BrokerError> {
        let kept = &self.servers[server].kept;
        let (next, is_same_run) = (kept.next, kept.run == server);
        if kept.identity.is_empty() {
            let memory = memory.ok_or(BrokerError::Empty)?;
            let first = self.first_of_term(known + 1)?;
            let after = memory.applied;
            let term = Term { after, first };
            self.note_change(server);
            self.has_forgotten |= after == 0 && !self.terms.is_empty();
            self.terms.push(term);
            self.begun_after.insert(after);
            let mut terms = memory.terms;
            terms.push(term);
            let writers = memory.writers.iter().map(|end| (end.writer, *end));
            self.servers[server].kept = Kept {
                identity: memory.identity,
                terms,
                next: first,
                run: server,
                writers: writers.collect(),
                ..Kept::default()
            };
        } else if !is_same_run || known >= next {
            let first = self.first_of_term(next.max(known + 1))?;
            let after = next - 1;
            let term = Term { after, first };
            self.note_change(server);
            self.terms.push(term);
            self.count("terms");
            let kept = &mut self.servers[server].kept;
            kept.terms.push(term);
            (kept.next, kept.run) = (first, server);
        }
        let wall_ms = self.wall_ms();
        let kept = &self.servers[server].kept;
        let oldest = kept.blocks.front().map(|block| block.first);
        let (identity, terms) = (kept.identity.clone(), kept.terms.clone());
        Ok(Welcome::new(identity, terms, kept.next, oldest, wall_ms))
    }

    fn append(
        &mut self,
        server: usize,
        identity: &[u8],
        block: NewBlock<'_>,
    ) -> Result<Appended, BrokerError> {
        let kept = &self.servers[server].kept;
        if kept.identity != identity || kept.run != server {
            return Err(BrokerError::Moved);
        }
        if let Some(end) = kept.writers.get(&block.writer)
            && end.n >= block.n
        {
            let first = end.first;
            self.count("blocks that were there");
            return Ok(Appended {
                first,
                was_there: true,
            });
        }
        self.note_change(server);
        let wall_ms = self.wall_ms();
        let kept = &mut self.servers[server].kept;
        let stored = Arc::new(Stored {
            first: kept.next,
            width: block.width,
            term: kept.terms.last().expect("a log has one").first,
            wall_ms,
            bytes: block.bytes.to_vec(),
        });
        kept.next += block.width;
        kept.blocks.push_back(stored.clone());
        let (first, writer, n) = (stored.first, block.writer, block.n);
        kept.writers.insert(writer, WriterEnd { writer, n, first });
        let before = self.all.range(..first + block.width).next_back();
        let is_new = before.is_none_or(|(_, before)| before.numbers().end <= first);
        assert!(is_new, "the number {first} is given twice");
        self.all.insert(first, stored);
        Ok(Appended {
            first,
            was_there: false,
        })
    }
}

/// The log, as a node reaches it.
#[derive(Clone)]
pub struct SimulatedLog {
    pub broker: SharedBroker,
    pub node: usize,
    pub process: usize,
}

impl fmt::Debug for SimulatedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedLog").finish_non_exhaustive()
    }
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Request,
    Answer,
}

/// The simulation has one thread, so the lock is free.
pub fn lock(broker: &SharedBroker) -> MutexGuard<'_, Broker> {
    broker.try_lock().expect("one thread")
}

impl Broker {
    /// Returns the server that a node or a session reaches, of the newest: clients of one that
    /// was replaced find the next one at times of their own.
    fn server_of(&self, of: u64) -> usize {
        let now = self.now();
        let reaches = |server: &Server| {
            server.replaced.is_none_or(|(at, until)| {
                let mut rng = Rng::with_seed(at ^ (of << 32));
                now < at + rng.u64(0..=until.saturating_sub(at))
            })
        };
        let found = self.servers.iter().position(reaches);
        found.expect("the newest one is not replaced")
    }

    /// Draws how long a call takes, and what goes wrong.
    fn draw(&mut self, node: usize, timeout: Duration) -> Result<Fault, BrokerError> {
        let timeout_ms = timeout.as_millis() as u64;
        if self.cut_until[node] > self.now() {
            // A refused connection, or a black hole.
            self.took_ms += self.rng.u64(0..=timeout_ms) * u64::from(self.rng.bool());
            return Err(gone("it is not there"));
        }
        let (lost_requests, lost_answers) = (self.faults.lost_requests, self.faults.lost_answers);
        let fault = match () {
            () if self.happens(lost_requests, "requests that are lost") => Fault::Request,
            () if self.happens(lost_answers, "answers that are lost") => Fault::Answer,
            () => Fault::None,
        };
        let stalls = self.faults.stalls;
        self.took_ms += match fault {
            _ if self.happens(stalls, "calls that take seconds") => timeout_ms,
            Fault::None => self.rng.u64(0..=self.faults.call_ms_max),
            Fault::Request | Fault::Answer => {
                self.rng.u64(0..=timeout_ms) * u64::from(self.rng.bool())
            }
        };
        Ok(fault)
    }
}

impl SimulatedLog {
    fn open(
        &self,
        hello: &Hello<'_>,
        timeout: Duration,
    ) -> Result<(Session, Welcome), BrokerError> {
        let mut broker = lock(&self.broker);
        let fault = broker.draw(self.node, timeout)?;
        let server = broker.server_of(self.node as u64);
        let memory = hello.memory.map(Remembered::from);
        if fault == Fault::Request {
            if broker.rng.bool() {
                let at = broker.now() + broker.rng.u64(0..4_000);
                let known = hello.known;
                broker
                    .late
                    .push((at, server, Late::Hello { known, memory }));
            }
            return Err(gone("the request is lost"));
        }
        let welcome = broker.hello(server, hello.known, memory)?;
        if fault == Fault::Answer {
            return Err(gone("the answer is lost"));
        }
        broker.sessions += 1;
        let session = Session {
            broker: self.broker.clone(),
            node: self.node,
            process: self.process,
            server,
            number: 1_000 + broker.sessions,
            writer: hello.writer,
            identity: welcome.identity.clone(),
            is_broken: false,
        };
        Ok((session, welcome))
    }
}

impl SharedLog for SimulatedLog {
    fn open_writer(
        &self,
        hello: &Hello<'_>,
        timeout: Duration,
    ) -> Result<(Box<dyn LogWriter>, Welcome), BrokerError> {
        let (session, welcome) = self.open(hello, timeout)?;
        Ok((Box::new(session), welcome))
    }

    fn open_reader(
        &self,
        hello: &Hello<'_>,
        timeout: Duration,
    ) -> Result<(Box<dyn LogReader>, Welcome), BrokerError> {
        let (session, welcome) = self.open(hello, timeout)?;
        Ok((Box::new(session), welcome))
    }

    fn address(&self) -> String {
        "a simulated broker".to_owned()
    }
}
