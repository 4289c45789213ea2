//! A session with a simulated broker: what each call does on the server, and how it may fail.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pushwheel::cluster::{
    Appended, BlockRead, BrokerError, Hello, LogReader, LogWriter, NewBlock, SnapshotName,
    StoredSnapshot, Welcome,
};

use super::{
    BLOCKS_A_READ, Broker, Fault, Kept, Late, Remembered, SharedBroker, Stored, gone, lock,
};

/// A connection with a server.
pub struct Session {
    pub broker: SharedBroker,
    pub node: usize,
    pub process: usize,
    pub server: usize,
    pub number: u64,
    pub writer: u128,
    pub identity: Vec<u8>,
    pub is_broken: bool,
}

impl Session {
    /// Calls the server, unless the call fails before. `late` is carried out later where the
    /// request seems to be lost.
    fn call<T>(
        &mut self,
        timeout: Duration,
        late: Option<Late>,
        call: impl FnOnce(&mut Broker, &Session) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        assert!(!self.is_broken, "a session is used after an error");
        let broker = self.broker.clone();
        let mut broker = lock(&broker);
        let result = self.call_now(&mut broker, timeout, late, call);
        self.is_broken = result.is_err();
        result
    }

    fn call_now<T>(
        &self,
        broker: &mut Broker,
        timeout: Duration,
        late: Option<Late>,
        call: impl FnOnce(&mut Broker, &Session) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let fault = broker.draw(self.node, timeout)?;
        if broker.server_of(self.number) != self.server {
            return Err(gone("the server is another one now"));
        }
        match fault {
            Fault::None => call(broker, self),
            Fault::Answer => {
                let _ = call(broker, self);
                Err(gone("the answer is lost"))
            }
            Fault::Request => {
                if let Some(late) = late.filter(|_| broker.rng.bool()) {
                    let at = broker.now() + broker.rng.u64(0..4_000);
                    broker.late.push((at, self.server, late));
                }
                Err(gone("the request is lost"))
            }
        }
    }

    /// Changes what the server keeps.
    fn change<T>(
        &mut self,
        timeout: Duration,
        change: impl FnOnce(&mut Kept) -> T,
    ) -> Result<T, BrokerError> {
        self.call(timeout, None, |broker, session| {
            broker.note_change(session.server);
            Ok(change(&mut broker.servers[session.server].kept))
        })
    }
}

impl LogWriter for Session {
    fn append(&mut self, block: NewBlock<'_>, timeout: Duration) -> Result<Appended, BrokerError> {
        let late = Late::Append {
            identity: self.identity.clone(),
            writer: block.writer,
            n: block.n,
            width: block.width,
            bytes: block.bytes.to_vec(),
        };
        self.call(timeout, Some(late), |broker, session| {
            let (full, repeated) = (broker.faults.full, broker.faults.repeated);
            if broker.happens(full, "appends without room") {
                let why = "its memory is full".to_owned();
                return Err(BrokerError::Full { why });
            }
            let appended = broker.append(session.server, &session.identity, block)?;
            match broker.happens(repeated, "appends that are made twice") {
                true => broker.append(session.server, &session.identity, block),
                false => Ok(appended),
            }
        })
    }

    fn trim(&mut self, before: u64, timeout: Duration) -> Result<(), BrokerError> {
        self.change(timeout, |kept| {
            let is_over = |block: &Arc<Stored>| block.numbers().end <= before;
            while kept.blocks.front().is_some_and(is_over) {
                kept.blocks.pop_front();
            }
        })
    }

    fn lease(&mut self, _: &str, ttl: Duration, timeout: Duration) -> Result<bool, BrokerError> {
        self.call(timeout, None, |broker, session| {
            let now = broker.now();
            let lease = &mut broker.servers[session.server].lease;
            let is_free = |(owner, until): (u128, u64)| owner == session.writer || until <= now;
            let has = lease.is_none_or(is_free);
            if has {
                *lease = Some((session.writer, now + ttl.as_millis() as u64));
            }
            Ok(has)
        })
    }

    fn forget_writers(&mut self, writers: &[u128], timeout: Duration) -> Result<(), BrokerError> {
        self.change(timeout, |kept| {
            kept.writers.retain(|writer, _| !writers.contains(writer));
        })
    }

    fn put_snapshot_chunk(
        &mut self,
        name: SnapshotName,
        index: u32,
        chunk: &[u8],
        timeout: Duration,
    ) -> Result<(), BrokerError> {
        self.change(timeout, |kept| {
            let key = (name.at, name.writer, index);
            kept.chunks.insert(key, chunk.into());
        })
    }

    fn complete_snapshot(
        &mut self,
        snapshot: StoredSnapshot,
        timeout: Duration,
    ) -> Result<(), BrokerError> {
        let name = snapshot.name;
        let is_complete = self.change(timeout, |kept| {
            let is_later = |old: StoredSnapshot| old.name.at < name.at;
            let is_newest = kept.snapshot.is_none_or(is_later);
            let chunks = (0..snapshot.chunks).map(|index| (name.at, name.writer, index));
            let is_whole = chunks.clone().all(|key| kept.chunks.contains_key(&key));
            if is_newest && is_whole {
                kept.snapshot = Some(snapshot);
                let chunks: BTreeSet<_> = chunks.collect();
                kept.chunks.retain(|key, _| chunks.contains(key));
            }
            is_whole
        })?;
        match is_complete {
            true => Ok(()),
            false => {
                self.is_broken = true;
                Err(gone("it lacks chunks of the snapshot"))
            }
        }
    }

    fn put_value(
        &mut self,
        key: &[u8],
        value: &[u8],
        _: Duration,
        timeout: Duration,
    ) -> Result<(), BrokerError> {
        self.change(timeout, |kept| {
            kept.values.insert(key.to_vec(), value.to_vec());
        })
    }

    fn take_value(
        &mut self,
        key: &[u8],
        timeout: Duration,
    ) -> Result<Option<Vec<u8>>, BrokerError> {
        self.change(timeout, |kept| kept.values.remove(key))
    }
}

impl LogReader for Session {
    fn read(
        &mut self,
        after: u64,
        _: usize,
        _: Duration,
        timeout: Duration,
        blocks: &mut Vec<BlockRead>,
    ) -> Result<(), BrokerError> {
        self.call(timeout, None, |broker, session| {
            let count = broker.rng.usize(1..=BLOCKS_A_READ);
            let torn = broker.faults.torn_reads;
            let is_torn = broker.happens(torn, "reads that end in the middle");
            let kept = &broker.servers[session.server].kept;
            let from = kept.blocks.partition_point(|block| block.first <= after);
            let read = kept.blocks.range(from..).take(count);
            blocks.extend(read.map(|block| BlockRead {
                first: block.first,
                wall_ms: block.wall_ms,
                bytes: block.bytes.clone(),
            }));
            if is_torn {
                return Err(gone("the connection ends in the middle"));
            }
            let now = broker.now();
            let read_by = broker.read_by.entry(session.process).or_default();
            for block in blocks {
                read_by.blocks.entry(block.first).or_insert(now);
            }
            Ok(())
        })
    }

    fn welcome(&mut self, hello: &Hello<'_>, timeout: Duration) -> Result<Welcome, BrokerError> {
        let (known, memory) = (hello.known, hello.memory.map(Remembered::from));
        let late = Late::Hello {
            known,
            memory: memory.clone(),
        };
        self.call(timeout, Some(late), |broker, session| {
            broker.hello(session.server, known, memory)
        })
    }

    fn snapshot(&mut self, timeout: Duration) -> Result<Option<StoredSnapshot>, BrokerError> {
        self.call(timeout, None, |broker, session| {
            Ok(broker.servers[session.server].kept.snapshot)
        })
    }

    fn snapshot_chunk(
        &mut self,
        name: SnapshotName,
        index: u32,
        timeout: Duration,
    ) -> Result<Option<Vec<u8>>, BrokerError> {
        self.call(timeout, None, |broker, session| {
            let now = broker.now();
            let read_by = broker.read_by.entry(session.process).or_default();
            read_by.snapshots.entry(name.at).or_insert(now);
            let chunks = &broker.servers[session.server].kept.chunks;
            let chunk = chunks.get(&(name.at, name.writer, index));
            Ok(chunk.map(|chunk| chunk.to_vec()))
        })
    }
}
