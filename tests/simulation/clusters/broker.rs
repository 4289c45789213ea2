//! A broker in memory, as a seed draws its faults: calls that are lost before or after they
//! are carried out, appends that are carried out late, reads that lag, and processes that
//! are down, take over with a lost tail, or lose everything.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use pushwheel::cluster::{
    Appended, BlockRead, BrokerError, Hello, LogReader, LogWriter, NewBlock, SharedLog,
    SnapshotName, StoredSnapshot, Term, Welcome, WriterEnd,
};

/// 2026-01-01, in milliseconds since 1970.
pub const NEW_YEAR_MS: u64 = 1_767_225_600_000;

/// A block with its name and the numbers that it takes.
#[derive(Clone, Debug)]
pub struct Block {
    pub read: BlockRead,
    writer: u128,
    n: u64,
    width: u64,
}

impl Block {
    fn last(&self) -> u64 {
        self.read.first + self.width - 1
    }
}

/// What the process that runs has.
#[derive(Debug, Default)]
struct Kept {
    identity: Vec<u8>,
    terms: Vec<Term>,
    next: u64,
    /// The process that gave the newest numbers.
    run: u64,
    /// How many of the oldest blocks of the log are trimmed.
    trimmed: usize,
    writers: BTreeMap<u128, WriterEnd>,
    snapshots: Vec<StoredSnapshot>,
    /// How many blocks of the log were there before the newest snapshot.
    sure: usize,
    chunks: BTreeMap<(u64, u128, u32), Vec<u8>>,
}

/// How often what goes wrong, in a thousand calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub lost_requests: u32,
    pub lost_answers: u32,
    pub late_appends: u32,
    pub lagging_reads: u32,
}

pub struct State {
    rng: Rng,
    clock: Arc<AtomicU64>,
    kept: Kept,
    /// All blocks that the log has, those that are trimmed included: the truth.
    pub log: Vec<Block>,
    /// All blocks that were ever appended.
    ever: Vec<Block>,
    run: u64,
    began_ms: u64,
    pub faults: Faults,
    pub down_until_ms: u64,
    lease: Option<(u128, u64)>,
    /// Appends that are carried out at some later time.
    late: Vec<(u64, u64, Block)>,
    pub injected: BTreeMap<&'static str, u64>,
}

/// See the [module](self). Clones are the same broker.
#[derive(Clone)]
pub struct Broker(Arc<Mutex<State>>);

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}

/// Whether a term has left out a number.
pub fn is_lost(number: u64, terms: &[Term]) -> bool {
    let mut terms = terms.iter();
    terms.any(|term| term.after < number && number < term.first)
}

fn gone(why: &str) -> BrokerError {
    BrokerError::Unreachable {
        why: why.to_owned(),
    }
}

impl Broker {
    pub fn new(rng: Rng, clock: Arc<AtomicU64>, faults: Faults) -> Broker {
        Broker(Arc::new(Mutex::new(State {
            rng,
            clock,
            kept: Kept::default(),
            log: Vec::new(),
            ever: Vec::new(),
            run: 1,
            began_ms: 0,
            faults,
            down_until_ms: 0,
            lease: None,
            late: Vec::new(),
            injected: BTreeMap::new(),
        })))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn session(&self, hello: &Hello<'_>) -> Result<(Session, Welcome), BrokerError> {
        let mut state = self.state();
        let welcome = state.welcome(hello)?;
        let session = Session {
            broker: self.clone(),
            writer: hello.writer,
            run: state.run,
            identity: welcome.identity.clone(),
            is_broken: false,
        };
        Ok((session, welcome))
    }
}

impl State {
    fn now_ms(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn count(&mut self, what: &'static str) {
        *self.injected.entry(what).or_default() += 1;
    }

    fn happens(&mut self, in_thousand: u32, what: &'static str) -> bool {
        let happens = self.rng.u32(0..1_000) < in_thousand;
        if happens {
            self.count(what);
        }
        happens
    }

    fn is_down(&self) -> bool {
        self.now_ms() < self.down_until_ms
    }

    /// Returns the terms that the log knows.
    pub fn terms(&self) -> &[Term] {
        &self.kept.terms
    }

    /// For how long the process has run, in milliseconds, if its log does not depend on what
    /// nodes remember.
    pub fn has_run_ms(&self) -> u64 {
        match self.has_snapshot() {
            true => self.now_ms() - self.began_ms,
            false => 0,
        }
    }

    /// Whether the past of the log does not depend on what nodes remember.
    pub fn has_snapshot(&self) -> bool {
        !self.kept.snapshots.is_empty()
    }

    /// Another process takes over, without the newest blocks. It has the newest snapshot, and
    /// so all that was appended before that.
    pub fn fail_over(&mut self, lost: usize) {
        let sure = self.kept.sure;
        let left = self.log.len().saturating_sub(lost).max(sure);
        if left == 0 {
            return;
        }
        self.count("failovers");
        if left < self.log.len() {
            self.count("failovers that lose blocks");
            self.log.truncate(left);
            let next = self.log.last().map_or(1, |last| last.last() + 1);
            let kept = &mut self.kept;
            kept.next = next;
            kept.terms.retain(|term| term.first < next);
            kept.writers.clear();
            for block in &self.log {
                let (writer, n, first) = (block.writer, block.n, block.read.first);
                kept.writers.insert(writer, WriterEnd { writer, n, first });
            }
        }
        self.run += 1;
        self.began_ms = self.now_ms();
        self.lease = None;
    }

    /// The process is started again, empty.
    pub fn empty(&mut self) {
        self.count("empty starts");
        self.kept = Kept::default();
        self.run += 1;
        self.began_ms = self.now_ms();
        self.lease = None;
    }

    /// Opens a session, in the way of the scripts of a broker.
    fn welcome(&mut self, hello: &Hello<'_>) -> Result<Welcome, BrokerError> {
        let wall_ms = self.now_ms();
        if self.is_down() || self.happens(self.faults.lost_requests, "sessions that fail") {
            return Err(gone("it is down"));
        }
        let clock = wall_ms.saturating_sub(NEW_YEAR_MS) * 1_024;
        let jump = |from: u64| clock.max(from + (1 << 24));
        let kept = &mut self.kept;
        if kept.identity.is_empty() {
            let memory = hello.memory.ok_or(BrokerError::Empty)?;
            let first = jump(hello.known + 1);
            kept.identity = memory.identity.to_vec();
            kept.terms = memory.terms.to_vec();
            let after = memory.applied;
            kept.terms.push(Term { after, first });
            (kept.next, kept.run) = (first, self.run);
            let ends = memory.writers.iter().map(|end| (end.writer, *end));
            kept.writers = ends.collect();
            // What the node remembers is in the log again, whatever was lost before.
            let is_remembered = |block: &&Block| {
                let first = block.read.first;
                block.last() <= after && !is_lost(first, &kept.terms)
            };
            let log: Vec<Block> = self.ever.iter().filter(is_remembered).cloned().collect();
            self.log = log;
            kept.trimmed = self.log.len();
        } else if kept.run != self.run || hello.known >= kept.next {
            let first = jump(kept.next.max(hello.known + 1));
            let after = kept.next - 1;
            kept.terms.push(Term { after, first });
            (kept.next, kept.run) = (first, self.run);
        }
        let kept = &self.kept;
        let oldest = self.log.get(kept.trimmed).map(|block| block.read.first);
        let (identity, terms) = (kept.identity.clone(), kept.terms.clone());
        Ok(Welcome::new(identity, terms, kept.next, oldest, wall_ms))
    }

    /// Appends a block, unless it is there.
    fn append(&mut self, run: u64, block: Block) -> Result<Appended, BrokerError> {
        if self.run != run || self.kept.run != run {
            return Err(BrokerError::Moved);
        }
        let end = self.kept.writers.get(&block.writer);
        if let Some(end) = end.filter(|end| end.n >= block.n) {
            let first = end.first;
            self.count("blocks that are there already");
            let was_there = true;
            return Ok(Appended { first, was_there });
        }
        let mut block = block;
        let first = self.kept.next;
        block.read.first = first;
        block.read.wall_ms = self.now_ms();
        self.kept.next += block.width;
        let (writer, n) = (block.writer, block.n);
        let end = WriterEnd { writer, n, first };
        self.kept.writers.insert(writer, end);
        self.ever.push(block.clone());
        self.log.push(block);
        self.count("blocks");
        let was_there = false;
        Ok(Appended { first, was_there })
    }

    /// Carries out what is late.
    fn carry_out(&mut self) {
        let now_ms = self.now_ms();
        let late = std::mem::take(&mut self.late);
        let (due, later) = late.into_iter().partition(|(at, ..)| *at <= now_ms);
        self.late = later;
        let due: Vec<(u64, u64, Block)> = due;
        for (_, run, block) in due {
            // Nothing waits for the answer.
            let _ = self.append(run, block);
        }
    }
}

impl SharedLog for Broker {
    fn open_writer(
        &self,
        hello: &Hello<'_>,
        _: Duration,
    ) -> Result<(Box<dyn LogWriter>, Welcome), BrokerError> {
        let (session, welcome) = self.session(hello)?;
        Ok((Box::new(session), welcome))
    }

    fn open_reader(
        &self,
        hello: &Hello<'_>,
        _: Duration,
    ) -> Result<(Box<dyn LogReader>, Welcome), BrokerError> {
        let (session, welcome) = self.session(hello)?;
        Ok((Box::new(session), welcome))
    }

    fn address(&self) -> String {
        "memory".to_owned()
    }
}

struct Session {
    broker: Broker,
    writer: u128,
    run: u64,
    identity: Vec<u8>,
    is_broken: bool,
}

impl Session {
    /// Calls the broker. What it answers may be lost on the way.
    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut State, &Session) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        assert!(!self.is_broken, "a session is used after an error");
        let mut state = self.broker.state();
        state.carry_out();
        let faults = state.faults;
        let result = if state.is_down() || state.run != self.run {
            Err(gone("it is down"))
        } else if state.kept.identity != self.identity {
            Err(BrokerError::Moved)
        } else if state.happens(faults.lost_requests, "lost requests") {
            Err(gone("the request is lost"))
        } else {
            let result = call(&mut state, self);
            match state.happens(faults.lost_answers, "lost answers") {
                true => Err(gone("the answer is lost")),
                false => result,
            }
        };
        drop(state);
        self.is_broken = result.is_err();
        result
    }
}

impl LogWriter for Session {
    fn append(&mut self, block: NewBlock<'_>, _: Duration) -> Result<Appended, BrokerError> {
        let block = Block {
            read: BlockRead {
                first: 0,
                wall_ms: 0,
                bytes: block.bytes.to_vec(),
            },
            writer: block.writer,
            n: block.n,
            width: block.width,
        };
        self.call(|state, session| {
            if state.happens(state.faults.late_appends, "late appends") {
                let at_ms = state.now_ms() + state.rng.u64(0..3_000);
                state.late.push((at_ms, session.run, block));
                return Err(gone("the answer comes late"));
            }
            state.append(session.run, block)
        })
    }

    fn trim(&mut self, before: u64, _: Duration) -> Result<(), BrokerError> {
        self.call(|state, _| {
            let older = state.log.iter().take_while(|block| block.last() < before);
            let older = older.count();
            if older > state.kept.trimmed {
                state.kept.trimmed = older;
                state.count("trims");
            }
            Ok(())
        })
    }

    fn lease(&mut self, _: &str, ttl: Duration, _: Duration) -> Result<bool, BrokerError> {
        self.call(|state, session| {
            let now_ms = state.now_ms();
            let is_free = |(owner, until): (u128, u64)| owner == session.writer || until <= now_ms;
            let has = state.lease.is_none_or(is_free);
            if has {
                state.lease = Some((session.writer, now_ms + ttl.as_millis() as u64));
            }
            Ok(has)
        })
    }

    fn forget_writers(&mut self, writers: &[u128], _: Duration) -> Result<(), BrokerError> {
        self.call(|state, _| {
            let kept = &mut state.kept.writers;
            kept.retain(|writer, _| !writers.contains(writer));
            Ok(())
        })
    }

    fn put_snapshot_chunk(
        &mut self,
        name: SnapshotName,
        index: u32,
        chunk: &[u8],
        _: Duration,
    ) -> Result<(), BrokerError> {
        self.call(|state, _| {
            let key = (name.at, name.writer, index);
            state.kept.chunks.insert(key, chunk.to_vec());
            Ok(())
        })
    }

    fn complete_snapshot(
        &mut self,
        snapshot: StoredSnapshot,
        _: Duration,
    ) -> Result<(), BrokerError> {
        self.call(|state, _| {
            let snapshots = &mut state.kept.snapshots;
            let newest = snapshots.last().map_or(0, |newest| newest.name.at);
            if newest <= snapshot.name.at {
                snapshots.push(snapshot);
                state.kept.sure = state.log.len();
                state.count("snapshots");
            }
            Ok(())
        })
    }

    fn put_value(
        &mut self,
        _: &[u8],
        _: &[u8],
        _: Duration,
        _: Duration,
    ) -> Result<(), BrokerError> {
        Ok(())
    }

    fn take_value(&mut self, _: &[u8], _: Duration) -> Result<Option<Vec<u8>>, BrokerError> {
        Ok(None)
    }
}

impl LogReader for Session {
    fn read(
        &mut self,
        after: u64,
        bytes_max: usize,
        _: Duration,
        _: Duration,
        blocks: &mut Vec<BlockRead>,
    ) -> Result<(), BrokerError> {
        let read = self.call(|state, _| {
            let left = &state.log[state.kept.trimmed..];
            let from = left.partition_point(|block| block.read.first <= after);
            let left = left[from..].to_vec();
            let mut max = left.len();
            if max > 0 && state.happens(state.faults.lagging_reads, "reads that lag") {
                max = state.rng.usize(0..=max);
            }
            let mut bytes = 0;
            let fits = |block: &&Block| {
                let is_first = bytes == 0;
                bytes += block.read.bytes.len();
                is_first || bytes <= bytes_max
            };
            let some = left.iter().take(max).take_while(fits);
            Ok(some.map(|block| block.read.clone()).collect::<Vec<_>>())
        })?;
        blocks.extend(read);
        Ok(())
    }

    fn welcome(&mut self, hello: &Hello<'_>, _: Duration) -> Result<Welcome, BrokerError> {
        let run = self.run;
        let mut state = self.broker.state();
        if state.run != run {
            drop(state);
            self.is_broken = true;
            return Err(gone("it is down"));
        }
        let welcome = state.welcome(hello);
        drop(state);
        self.is_broken = welcome.is_err();
        welcome
    }

    fn snapshot(&mut self, _: Duration) -> Result<Option<StoredSnapshot>, BrokerError> {
        self.call(|state, _| Ok(state.kept.snapshots.last().copied()))
    }

    fn snapshot_chunk(
        &mut self,
        name: SnapshotName,
        index: u32,
        _: Duration,
    ) -> Result<Option<Vec<u8>>, BrokerError> {
        self.call(|state, _| {
            let key = (name.at, name.writer, index);
            Ok(state.kept.chunks.get(&key).cloned())
        })
    }
}
