//! [`Writer`]: a session that appends.

use std::time::{Duration, Instant};

use std::sync::Arc;

use pushwheel::cluster::{
    Appended, BrokerError, LogWriter, NewBlock, SnapshotName, StoredSnapshot, Welcome,
};
use redis::Value;

use crate::broker::Broker;
use crate::clock::{now, remaining};
use crate::connection::{Fault, bytes, items, next, number, text};
use crate::keys::{Keys, hex};
use crate::scripts::Script;
use crate::session::Session;

/// The largest block that is appended, in bytes. A reader accepts this much, and some more.
pub(crate) const BLOCK_BYTES_MAX: usize = 32 << 20;

/// Time after which the chunks of an incomplete snapshot expire.
const CHUNKS_KEPT: Duration = Duration::from_secs(3_600);

/// Maximum attempts to complete a snapshot while other nodes complete theirs.
const COMPLETE_TRIES: usize = 4;

/// The part of the time for a block that is left for the answer when replicas do not have it.
const WAIT_MARGIN: Duration = Duration::from_millis(100);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Writer {
    broker: Arc<Broker>,
    session: Session,
    /// The log to which it appends: an append to another one fails.
    identity: Vec<u8>,
    /// The process whose leases these are.
    writer: u128,
}

impl Writer {
    pub(crate) fn new(
        broker: Arc<Broker>,
        session: Session,
        welcome: &Welcome,
        writer: u128,
    ) -> Writer {
        Writer {
            broker,
            session,
            identity: welcome.identity.clone(),
            writer,
        }
    }

    fn failed(&self) -> impl Fn(Fault) -> BrokerError {
        let broker = self.broker.clone();
        move |fault| broker.judge(&fault)
    }

    /// Appends, and waits for replicas.
    fn append_by(
        &mut self,
        block: &NewBlock<'_>,
        deadline: Instant,
    ) -> Result<(Value, u64), Fault> {
        let keys = &self.broker.keys;
        let keys = [&*keys.log, &*keys.meta];
        let field = Keys::writer(block.writer);
        let (n, width) = (block.n.to_string(), block.width.to_string());
        let run = self.session.run.clone();
        let arguments = [
            &*self.identity,
            run.as_bytes(),
            field.as_bytes(),
            n.as_bytes(),
            width.as_bytes(),
            block.bytes,
        ];
        let replicas = self.broker.replicas;
        if replicas == 0 {
            let reply = self
                .session
                .script(Script::Append, &keys, &arguments, deadline)?;
            return Ok((reply, 0));
        }
        let time = remaining(deadline)?.saturating_sub(WAIT_MARGIN);
        let mut wait = redis::cmd("WAIT");
        // 0 would be for ever.
        wait.arg(replicas).arg(time.as_millis().max(1).to_string());
        let session = &mut self.session;
        let replies = session.script_and(Script::Append, &keys, &arguments, &wait, deadline);
        let (reply, copies) = replies?;
        Ok((reply, number(copies)?))
    }

    /// Lets the whole log expire.
    ///
    /// # Errors
    /// When it may not have been done.
    pub(crate) fn expire_log(
        &mut self,
        seconds: u32,
        timeout: Duration,
    ) -> Result<(), BrokerError> {
        let keys = &self.broker.keys;
        let expire = [&keys.log, &keys.meta].map(|key| {
            let mut command = redis::cmd("EXPIRE");
            command.arg(key).arg(seconds);
            command
        });
        let [log, meta] = &expire;
        let done = self.session.call_all(&[log, meta], now() + timeout);
        done.map_err(self.failed())
    }

    /// Completes a snapshot if `before` is the newest one. Returns whether it is done.
    fn complete_after(
        &mut self,
        snapshot: &StoredSnapshot,
        before: Option<&StoredSnapshot>,
        deadline: Instant,
    ) -> Result<bool, Fault> {
        let keys = &self.broker.keys;
        let chunks = keys.chunks(&snapshot.name);
        let older = before.map_or_else(|| chunks.clone(), |before| keys.chunks(&before.name));
        let before = before.map(|before| (before.name.at.to_string(), hex(before.name.writer)));
        let (before_at, before_writer) = before.unwrap_or_default();
        let arguments = [
            snapshot.name.at.to_string(),
            hex(snapshot.name.writer),
            snapshot.chunks.to_string(),
            before_at,
            before_writer,
        ];
        let keys = [&*keys.snapshot, &*chunks, &*older];
        let reply = self
            .session
            .script(Script::Complete, &keys, &arguments, deadline)?;
        match &*text(reply)? {
            "ok" | "later" => Ok(true),
            "other" => Ok(false),
            _ => Err(Fault::Unexpected("chunks of a snapshot are missing")),
        }
    }
}

impl LogWriter for Writer {
    fn append(&mut self, block: NewBlock<'_>, timeout: Duration) -> Result<Appended, BrokerError> {
        let size = block.bytes.len();
        if size > BLOCK_BYTES_MAX {
            let why = format!("a block of {size} bytes is larger than {BLOCK_BYTES_MAX}");
            return Err(BrokerError::Refused { why });
        }
        let appended = self.append_by(&block, now() + timeout);
        let appended = appended.and_then(|(reply, copies)| {
            let mut parts = items(reply)?;
            let outcome = text(next(&mut parts)?)?;
            let was_there = match &*outcome {
                "moved" => return Ok(None),
                "ok" => false,
                "there" => true,
                _ => return Err(Fault::Unexpected("not the outcome of an append")),
            };
            let first = number(next(&mut parts)?)?;
            Ok(Some((Appended { first, was_there }, copies)))
        });
        let (appended, copies) = appended.map_err(self.failed())?.ok_or(BrokerError::Moved)?;
        let replicas = self.broker.replicas;
        match copies >= u64::from(replicas) {
            true => Ok(appended),
            false => Err(BrokerError::Unreachable {
                why: format!("{copies} of {replicas} replicas have the block"),
            }),
        }
    }

    fn trim(&mut self, before: u64, timeout: Duration) -> Result<(), BrokerError> {
        let Some(newest) = before.checked_sub(1) else {
            return Ok(());
        };
        let keys = &self.broker.keys;
        let (keys, arguments) = ([&*keys.log], [format!("{newest}-0")]);
        let deadline = now() + timeout;
        let trimmed = self
            .session
            .script(Script::Trim, &keys, &arguments, deadline);
        trimmed.map(drop).map_err(self.failed())
    }

    fn lease(&mut self, name: &str, ttl: Duration, timeout: Duration) -> Result<bool, BrokerError> {
        let key = self.broker.keys.lease(name);
        let arguments = [hex(self.writer), ttl.as_millis().max(1).to_string()];
        let deadline = now() + timeout;
        let reply = self
            .session
            .script(Script::Lease, &[&key], &arguments, deadline);
        let is_held = reply.and_then(number).map(|held| held == 1);
        is_held.map_err(self.failed())
    }

    fn forget_writers(&mut self, writers: &[u128], timeout: Duration) -> Result<(), BrokerError> {
        if writers.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("HDEL");
        command.arg(&self.broker.keys.meta);
        for writer in writers {
            command.arg(Keys::writer(*writer));
        }
        let done = self.session.call(&command, now() + timeout);
        done.map(drop).map_err(self.failed())
    }

    fn put_snapshot_chunk(
        &mut self,
        name: SnapshotName,
        index: u32,
        chunk: &[u8],
        timeout: Duration,
    ) -> Result<(), BrokerError> {
        let key = self.broker.keys.chunks(&name);
        let (mut set, mut expire) = (redis::cmd("HSET"), redis::cmd("EXPIRE"));
        set.arg(&key).arg(index).arg(chunk);
        expire.arg(&key).arg(CHUNKS_KEPT.as_secs());
        let done = self.session.call_all(&[&set, &expire], now() + timeout);
        done.map_err(self.failed())
    }

    fn complete_snapshot(
        &mut self,
        snapshot: StoredSnapshot,
        timeout: Duration,
    ) -> Result<(), BrokerError> {
        let deadline = now() + timeout;
        for _ in 0..COMPLETE_TRIES {
            let broker = &self.broker;
            let before = newest_snapshot(broker, &mut self.session, deadline);
            let before = before.map_err(self.failed())?;
            let done = self.complete_after(&snapshot, before.as_ref(), deadline);
            if done.map_err(self.failed())? {
                return Ok(());
            }
        }
        let why = "other nodes complete snapshots all the time".to_owned();
        Err(BrokerError::Unreachable { why })
    }

    fn put_value(
        &mut self,
        key: &[u8],
        value: &[u8],
        ttl: Duration,
        timeout: Duration,
    ) -> Result<(), BrokerError> {
        let mut command = redis::cmd("SET");
        let ttl_ms = ttl.as_millis().max(1).to_string();
        command
            .arg(self.broker.keys.value(key))
            .arg(value)
            .arg("PX")
            .arg(ttl_ms);
        let done = self.session.call(&command, now() + timeout);
        done.map(drop).map_err(self.failed())
    }

    fn take_value(
        &mut self,
        key: &[u8],
        timeout: Duration,
    ) -> Result<Option<Vec<u8>>, BrokerError> {
        let mut command = redis::cmd("GETDEL");
        command.arg(self.broker.keys.value(key));
        let taken = self.session.call(&command, now() + timeout);
        taken.and_then(bytes_or_nil).map_err(self.failed())
    }
}

/// Returns the newest complete snapshot.
pub(crate) fn newest_snapshot(
    broker: &Broker,
    session: &mut Session,
    deadline: Instant,
) -> Result<Option<StoredSnapshot>, Fault> {
    let mut command = redis::cmd("HMGET");
    command
        .arg(&broker.keys.snapshot)
        .arg(&["at", "writer", "chunks"]);
    let mut parts = items(session.call(&command, deadline)?)?;
    let at = match next(&mut parts)? {
        Value::Nil => return Ok(None),
        at => number(at)?,
    };
    let writer = u128::from_str_radix(&text(next(&mut parts)?)?, 16);
    let writer = writer.map_err(|_| Fault::Unexpected("not the number of a process"))?;
    let chunks = u32::try_from(number(next(&mut parts)?)?);
    let chunks = chunks.map_err(|_| Fault::Unexpected("too many chunks"))?;
    let name = SnapshotName { at, writer };
    Ok(Some(StoredSnapshot { name, chunks }))
}

/// Returns the bytes of a string, if there is one.
pub(crate) fn bytes_or_nil(value: Value) -> Result<Option<Vec<u8>>, Fault> {
    match value {
        Value::Nil => Ok(None),
        value => bytes(value).map(Some),
    }
}
