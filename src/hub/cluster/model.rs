//! A broker in memory, with the faults of one, for tests.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::cluster::{
    Appended, BlockRead, BrokerError, Hello, LogReader, LogWriter, NewBlock, SharedLog,
    SnapshotName, StoredSnapshot, Term, Welcome, WriterEnd,
};

/// The time that a call takes, in microseconds.
const CALL_US: u64 = 30;

/// What a broker keeps.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    identity: Vec<u8>,
    pub(super) terms: Vec<Term>,
    next: u64,
    /// The process that gave the newest numbers.
    run: u64,
    pub(super) blocks: Vec<BlockRead>,
    writers: HashMap<u128, WriterEnd>,
    pub(super) snapshot: Option<StoredSnapshot>,
    pub(super) chunks: HashMap<(SnapshotName, u32), Vec<u8>>,
    values: HashMap<Vec<u8>, Vec<u8>>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// Nothing can be reached.
    pub(super) is_down: bool,
    /// The next append is done, and its answer is lost.
    pub(super) loses_answer: bool,
    /// The next append is not done, and its answer is lost.
    pub(super) loses_request: bool,
    /// Readers see no further than this many blocks.
    pub(super) shows: Option<usize>,
    /// The number of calls for a snapshot that fail.
    pub(super) failing_snapshots: u32,
}

#[derive(Debug, Default)]
pub(super) struct Broker {
    pub(super) kept: Kept,
    /// The process that runs.
    pub(super) run: u64,
    pub(super) faults: Faults,
    /// The clock, in microseconds since 1970.
    clock_us: u64,
    lease: Option<(u128, u64)>,
}

/// See the [module](self).
#[derive(Clone)]
pub(super) struct Model {
    broker: Arc<Mutex<Broker>>,
    pub(super) wall_ms: Arc<AtomicU64>,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").finish_non_exhaustive()
    }
}

fn gone(why: &str) -> BrokerError {
    BrokerError::Unreachable {
        why: why.to_owned(),
    }
}

impl Broker {
    /// Lets the time of a call pass. Returns the clock.
    fn tick(&mut self, wall_ms: u64) -> u64 {
        self.clock_us = (self.clock_us + CALL_US).max(wall_ms * 1_000);
        self.clock_us
    }
}

impl Model {
    pub(super) fn new(wall_ms: Arc<AtomicU64>) -> Model {
        Model {
            broker: Arc::default(),
            wall_ms,
        }
    }

    pub(super) fn broker(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().unwrap()
    }

    /// Another process takes over, with what it keeps.
    pub(super) fn fail_over(&self, kept: Kept) {
        let mut broker = self.broker();
        broker.kept = kept;
        broker.run += 1;
        broker.lease = None;
    }

    /// All is deleted, and the process runs on.
    pub(super) fn flush(&self) {
        let mut broker = self.broker();
        (broker.kept, broker.lease) = (Kept::default(), None);
    }

    fn open(&self, hello: &Hello<'_>) -> Result<(Session, Welcome), BrokerError> {
        let welcome = self.welcome(hello)?;
        let session = Session {
            model: self.clone(),
            writer: hello.writer,
            run: self.broker().run,
            identity: welcome.identity.clone(),
            is_broken: false,
        };
        Ok((session, welcome))
    }

    fn welcome(&self, hello: &Hello<'_>) -> Result<Welcome, BrokerError> {
        let wall_ms = self.wall_ms.load(Relaxed);
        let mut broker = self.broker();
        if broker.faults.is_down {
            return Err(gone("it is down"));
        }
        let (run, wall_us) = (broker.run, broker.tick(wall_ms));
        let kept = &mut broker.kept;
        if kept.identity.is_empty() {
            let memory = hello.memory.ok_or(BrokerError::Empty)?;
            let first = Term::first_at(wall_us, hello.known);
            // What is left has nothing to do with this log.
            (kept.blocks, kept.snapshot) = (Vec::new(), None);
            kept.identity = memory.identity.to_vec();
            kept.terms = memory.terms.to_vec();
            kept.terms.push(Term {
                after: memory.applied,
                first,
            });
            (kept.next, kept.run) = (first, run);
            let ends = memory.writers.iter().map(|end| (end.writer, *end));
            kept.writers = ends.collect();
        } else if kept.run != run || hello.known >= kept.next {
            let first = Term::first_at(wall_us, hello.known.max(kept.next - 1));
            kept.terms.push(Term {
                after: kept.next - 1,
                first,
            });
            (kept.next, kept.run) = (first, run);
        }
        let oldest = kept.blocks.first().map(|block| block.first);
        Ok(Welcome::new(
            kept.identity.clone(),
            kept.terms.clone(),
            kept.next,
            oldest,
            wall_ms,
        ))
    }
}

impl SharedLog for Model {
    fn open_writer(
        &self,
        hello: &Hello<'_>,
        _: Duration,
    ) -> Result<(Box<dyn LogWriter>, Welcome), BrokerError> {
        let (session, welcome) = self.open(hello)?;
        Ok((Box::new(session), welcome))
    }

    fn open_reader(
        &self,
        hello: &Hello<'_>,
        _: Duration,
    ) -> Result<(Box<dyn LogReader>, Welcome), BrokerError> {
        let (session, welcome) = self.open(hello)?;
        Ok((Box::new(session), welcome))
    }

    fn address(&self) -> String {
        "memory".to_owned()
    }
}

struct Session {
    model: Model,
    writer: u128,
    run: u64,
    identity: Vec<u8>,
    is_broken: bool,
}

impl Session {
    /// Calls the broker, if it is there and the session is in use.
    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Broker, u64) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        assert!(!self.is_broken, "a session is used after an error");
        let wall_ms = self.model.wall_ms.load(Relaxed);
        let mut broker = self.model.broker();
        let result = match broker.faults.is_down || broker.run != self.run {
            true => Err(gone("it is down")),
            false => {
                broker.tick(wall_ms);
                call(&mut broker, wall_ms)
            }
        };
        drop(broker);
        self.is_broken = result.is_err();
        result
    }
}

impl LogWriter for Session {
    fn append(&mut self, block: NewBlock<'_>, _: Duration) -> Result<Appended, BrokerError> {
        let identity = self.identity.clone();
        self.call(|broker, wall_ms| {
            if std::mem::take(&mut broker.faults.loses_request) {
                return Err(gone("the request is lost"));
            }
            let run = broker.run;
            let kept = &mut broker.kept;
            if kept.identity != identity || kept.run != run {
                return Err(BrokerError::Moved);
            }
            if let Some(end) = kept.writers.get(&block.writer)
                && end.n >= block.n
            {
                let first = end.first;
                return Ok(Appended {
                    first,
                    was_there: true,
                });
            }
            let first = kept.next;
            kept.next += block.width;
            kept.blocks.push(BlockRead {
                first,
                wall_ms,
                bytes: block.bytes.to_vec(),
            });
            let (writer, n) = (block.writer, block.n);
            kept.writers.insert(writer, WriterEnd { writer, n, first });
            match std::mem::take(&mut broker.faults.loses_answer) {
                true => Err(gone("the answer is lost")),
                false => Ok(Appended {
                    first,
                    was_there: false,
                }),
            }
        })
    }

    fn trim(&mut self, before: u64, _: Duration) -> Result<(), BrokerError> {
        self.call(|broker, _| {
            broker.kept.blocks.retain(|block| block.first >= before);
            Ok(())
        })
    }

    fn lease(&mut self, _: &str, ttl: Duration, _: Duration) -> Result<bool, BrokerError> {
        let writer = self.writer;
        self.call(|broker, wall_ms| {
            let until_ms = wall_ms + u64::try_from(ttl.as_millis()).unwrap();
            let is_free = |(owner, until): (u128, u64)| owner == writer || until <= wall_ms;
            let has = broker.lease.is_none_or(is_free);
            if has {
                broker.lease = Some((writer, until_ms));
            }
            Ok(has)
        })
    }

    fn forget_writers(&mut self, writers: &[u128], _: Duration) -> Result<(), BrokerError> {
        self.call(|broker, _| {
            writers.iter().for_each(|writer| {
                broker.kept.writers.remove(writer);
            });
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
        self.call(|broker, _| {
            broker.kept.chunks.insert((name, index), chunk.to_vec());
            Ok(())
        })
    }

    fn complete_snapshot(
        &mut self,
        snapshot: StoredSnapshot,
        _: Duration,
    ) -> Result<(), BrokerError> {
        self.call(|broker, _| {
            let kept = &mut broker.kept;
            if kept
                .snapshot
                .is_none_or(|old| old.name.at <= snapshot.name.at)
            {
                kept.snapshot = Some(snapshot);
                kept.chunks.retain(|(name, _), _| *name == snapshot.name);
            }
            Ok(())
        })
    }

    fn put_value(
        &mut self,
        key: &[u8],
        value: &[u8],
        _: Duration,
        _: Duration,
    ) -> Result<(), BrokerError> {
        self.call(|broker, _| {
            broker.kept.values.insert(key.to_vec(), value.to_vec());
            Ok(())
        })
    }

    fn take_value(&mut self, key: &[u8], _: Duration) -> Result<Option<Vec<u8>>, BrokerError> {
        self.call(|broker, _| Ok(broker.kept.values.remove(key)))
    }
}

impl LogReader for Session {
    fn read(
        &mut self,
        after: u64,
        _: usize,
        _: Duration,
        _: Duration,
        blocks: &mut Vec<BlockRead>,
    ) -> Result<(), BrokerError> {
        self.call(|broker, _| {
            let shown = broker.faults.shows.unwrap_or(usize::MAX);
            let all = broker.kept.blocks.iter().take(shown);
            blocks.extend(all.filter(|block| block.first > after).take(3).cloned());
            Ok(())
        })
    }

    fn welcome(&mut self, hello: &Hello<'_>, _: Duration) -> Result<Welcome, BrokerError> {
        self.call(|_, _| Ok(()))?;
        let welcome = self.model.welcome(hello);
        self.is_broken = welcome.is_err();
        welcome
    }

    fn snapshot(&mut self, _: Duration) -> Result<Option<StoredSnapshot>, BrokerError> {
        self.call(|broker, _| match &mut broker.faults.failing_snapshots {
            0 => Ok(broker.kept.snapshot),
            left => {
                *left -= 1;
                let why = "a snapshot fails".to_owned();
                Err(BrokerError::Unreachable { why })
            }
        })
    }

    fn snapshot_chunk(
        &mut self,
        name: SnapshotName,
        index: u32,
        _: Duration,
    ) -> Result<Option<Vec<u8>>, BrokerError> {
        self.call(|broker, _| Ok(broker.kept.chunks.get(&(name, index)).cloned()))
    }
}
