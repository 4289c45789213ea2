//! [`Reader`]: a session that reads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pushwheel::cluster::{
    BlockRead, BrokerError, Hello, LogReader, SNAPSHOT_CHUNK_BYTES, SnapshotName, StoredSnapshot,
    Welcome,
};
use redis::Value;

use crate::broker::Broker;
use crate::clock::now;
use crate::connection::{Fault, bytes, items, next, number, text};
use crate::session::{Session, first_of};
use crate::writer::{BLOCK_BYTES_MAX, bytes_or_nil, newest_snapshot};

/// The number of blocks that a read asks for when nothing is known of their size: less than
/// a reply may have, also if each has the usual size.
const COUNT: usize = 16;

/// The most blocks that a read asks for. Small ones come in replies like this while a node
/// catches up.
const COUNT_MAX: usize = 1_024;

/// The most bytes of a reply. One with more is asked for again, block by block.
const REPLY_BYTES_MAX: usize = 2 * BLOCK_BYTES_MAX;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Reader {
    broker: Arc<Broker>,
    session: Session,
    /// How many blocks the next read asks for.
    count: usize,
}

impl Reader {
    pub(crate) fn new(broker: Arc<Broker>, session: Session) -> Reader {
        let count = match broker.read_count.swap(0, Ordering::Relaxed) {
            0 => COUNT,
            count => count,
        };
        Reader {
            broker,
            session,
            count,
        }
    }

    fn failed(&self) -> impl Fn(Fault) -> BrokerError {
        let broker = self.broker.clone();
        move |fault| broker.judge(&fault)
    }

    /// Sets how many blocks the next read asks for, by what the last one has had.
    fn adapt(&mut self, blocks: usize, bytes: usize, bytes_max: usize) {
        let is_behind = blocks == self.count;
        self.count = match is_behind {
            true if bytes <= bytes_max / 2 => (self.count * 2).min(COUNT_MAX),
            true if bytes <= bytes_max => self.count,
            true => (self.count / 2).max(1),
            false => COUNT.min(self.count.max(1) * 2),
        };
    }
}

impl LogReader for Reader {
    fn read(
        &mut self,
        after: u64,
        bytes_max: usize,
        wait: Duration,
        timeout: Duration,
        blocks: &mut Vec<BlockRead>,
    ) -> Result<(), BrokerError> {
        let mut command = redis::cmd("XREAD");
        // 0 would be for ever.
        let wait_ms = wait.as_millis().max(1).to_string();
        command
            .arg("COUNT")
            .arg(self.count)
            .arg("BLOCK")
            .arg(wait_ms);
        let after = format!("{after}-0");
        command.arg("STREAMS").arg(&self.broker.keys.log).arg(after);
        let deadline = now() + wait + timeout;
        let reply = self.session.call_large(&command, REPLY_BYTES_MAX, deadline);
        let read = reply.and_then(read_blocks).map_err(self.failed())?;
        let bytes = read.iter().map(|block| block.bytes.len()).sum();
        self.adapt(read.len(), bytes, bytes_max);
        blocks.extend(read);
        Ok(())
    }

    fn welcome(&mut self, hello: &Hello<'_>, timeout: Duration) -> Result<Welcome, BrokerError> {
        self.session.hello(&self.broker, hello, now() + timeout)
    }

    fn snapshot(&mut self, timeout: Duration) -> Result<Option<StoredSnapshot>, BrokerError> {
        let newest = newest_snapshot(&self.broker, &mut self.session, now() + timeout);
        newest.map_err(self.failed())
    }

    fn snapshot_chunk(
        &mut self,
        name: SnapshotName,
        index: u32,
        timeout: Duration,
    ) -> Result<Option<Vec<u8>>, BrokerError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.broker.keys.chunks(&name)).arg(index);
        let bytes_max = 2 * SNAPSHOT_CHUNK_BYTES;
        let chunk = self
            .session
            .call_large(&command, bytes_max, now() + timeout);
        chunk.and_then(bytes_or_nil).map_err(self.failed())
    }
}

/// Reads a reply of `XREAD` for one stream.
fn read_blocks(reply: Value) -> Result<Vec<BlockRead>, Fault> {
    if reply == Value::Nil {
        return Ok(Vec::new());
    }
    let mut stream = items(next(&mut items(reply)?)?)?;
    let _key = next(&mut stream)?;
    let entries = items(next(&mut stream)?)?;
    let blocks = entries.map(|entry| {
        let mut entry = items(entry)?;
        let first = first_of(&text(next(&mut entry)?)?)?;
        let mut fields = items(next(&mut entry)?)?;
        let (mut wall_us, mut block) = (None, None);
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            match &*bytes(name)? {
                b"t" => wall_us = Some(number(value)?),
                b"b" => block = Some(bytes(value)?),
                _ => {}
            }
        }
        let (Some(wall_us), Some(bytes)) = (wall_us, block) else {
            return Err(Fault::Unexpected("an entry is not a block"));
        };
        Ok(BlockRead {
            first,
            wall_ms: wall_us / 1_000,
            bytes,
        })
    });
    blocks.collect()
}
