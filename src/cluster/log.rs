//! [`SharedLog`]: what a node asks of a broker.

use std::fmt;
use std::time::Duration;

use super::error::BrokerError;

/// Maximum terms of a log. Beyond this number, the log forgets the oldest.
pub const TERMS_MAX: usize = 64;

/// The most writers that a [`Memory`] names.
pub const WRITERS_MAX: usize = 1_024;

/// The size of the chunks of a snapshot, in bytes. The last one may be smaller.
pub const SNAPSHOT_CHUNK_BYTES: usize = 512 << 10;

/// A log that several nodes share. It opens sessions with the broker that keeps it.
///
/// Every call blocks, at most for its `timeout`, and never longer, whatever the broker
/// does.
pub trait SharedLog: fmt::Debug + Send + Sync + 'static {
    /// Opens a session that writes.
    ///
    /// It makes the log if there is none and `hello` has a [`Memory`]. It begins a new term
    /// if the broker is another process than the one that gave the newest numbers, or does
    /// not know `hello.known`.
    ///
    /// # Errors
    /// When there is no session.
    fn open_writer(
        &self,
        hello: &Hello<'_>,
        timeout: Duration,
    ) -> Result<(Box<dyn LogWriter>, Welcome), BrokerError>;

    /// Opens a session that reads, in the same way.
    ///
    /// # Errors
    /// When there is no session.
    fn open_reader(
        &self,
        hello: &Hello<'_>,
        timeout: Duration,
    ) -> Result<(Box<dyn LogReader>, Welcome), BrokerError>;

    /// Returns the address of the broker for messages, without a password.
    fn address(&self) -> String;

    /// Returns whether an append may be confirmed after its block can be read: when enough
    /// copies have it. A publish is then answered after both. Default: no.
    fn confirms_later(&self) -> bool {
        false
    }
}

/// The introduction of a node that opens a session.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Hello<'a> {
    /// The random number of the process.
    pub writer: u128,
    /// The newest assigned number that the node knows of; 0: none.
    pub known: u64,
    /// What the log is to begin with if there is none.
    pub memory: Option<Memory<'a>>,
}

impl<'a> Hello<'a> {
    /// Returns the introduction of a node that knows numbers up to `known`.
    #[must_use]
    pub fn new(writer: u128, known: u64, memory: Option<Memory<'a>>) -> Hello<'a> {
        Hello {
            writer,
            known,
            memory,
        }
    }
}

/// What a node remembers of a log, for a broker that has lost all of it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Memory<'a> {
    /// What the ids of events are made from. A log keeps it as it is.
    pub identity: &'a [u8],
    /// The terms, the oldest first. The log begins one more, after `applied`.
    pub terms: &'a [Term],
    /// The newest number that the node has applied; 0: none.
    pub applied: u64,
    /// The newest block of each writer, so that a block in doubt is not appended again.
    pub writers: &'a [WriterEnd],
}

impl<'a> Memory<'a> {
    /// Returns what a node remembers.
    #[must_use]
    pub fn new(
        identity: &'a [u8],
        terms: &'a [Term],
        applied: u64,
        writers: &'a [WriterEnd],
    ) -> Memory<'a> {
        Memory {
            identity,
            terms,
            applied,
            writers,
        }
    }
}

/// The newest block of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterEnd {
    /// The writer.
    pub writer: u128,
    /// The number of the block among those of the writer.
    pub n: u64,
    /// The number of its first event.
    pub first: u64,
}

/// The numbers that a log gives from one start of its broker to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// The newest number that had survived when the term began; 0: none.
    pub after: u64,
    /// The first number of the term; see [`first_at`](Self::first_at).
    pub first: u64,
}

/// 2026-01-01, in microseconds since 1970.
const NEW_YEAR_US: u64 = 1_767_225_600_000_000;

/// The numbers that a term leaves out at least if the clock of its broker is behind.
const LEFT_OUT: u64 = 1 << 24;

impl Term {
    /// Returns the first number of a term that begins at a time of the broker, in
    /// microseconds since 1970, when `known` is the newest number that is known of.
    ///
    /// It is higher than any number that was given before, also in terms that are not known
    /// any more, because the clock makes it: 1,024 numbers for each millisecond since the
    /// beginning of 2026. A broker appends fewer events than that, so the clock stays ahead
    /// of the numbers. Two terms that begin at different microseconds differ.
    #[must_use]
    pub fn first_at(wall_us: u64, known: u64) -> u64 {
        let since_us = wall_us.saturating_sub(NEW_YEAR_US);
        let (ms, us) = (since_us / 1_000, since_us % 1_000);
        let first = ms * 1_024 + us * 1_024 / 1_000;
        match first > known.saturating_add(1) {
            true => first,
            false => known.saturating_add(1 + LEFT_OUT),
        }
    }
}

/// The state that a log reports when a session is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Welcome {
    /// See [`Memory::identity`].
    pub identity: Vec<u8>,
    /// The terms, the oldest first: at least one, at most [`TERMS_MAX`].
    pub terms: Vec<Term>,
    /// The number that is given next.
    pub next: u64,
    /// The first number of the oldest block that there is.
    pub oldest: Option<u64>,
    /// The clock of the broker, in milliseconds since 1970.
    pub wall_ms: u64,
}

impl Welcome {
    /// Returns what a log says.
    #[must_use]
    pub fn new(
        identity: Vec<u8>,
        terms: Vec<Term>,
        next: u64,
        oldest: Option<u64>,
        wall_ms: u64,
    ) -> Welcome {
        Welcome {
            identity,
            terms,
            next,
            oldest,
            wall_ms,
        }
    }
}

/// A session that writes. One thread has it.
pub trait LogWriter: Send {
    /// Appends a block, unless it is there.
    ///
    /// # Errors
    /// [`Moved`](BrokerError::Moved) in a session of an earlier term. After any error but
    /// that and [`Full`](BrokerError::Full) the block may be in the log.
    fn append(&mut self, block: NewBlock<'_>, timeout: Duration) -> Result<Appended, BrokerError>;

    /// Removes the blocks that end before this number, or most of them.
    ///
    /// # Errors
    /// When it may not have been done.
    fn trim(&mut self, before: u64, timeout: Duration) -> Result<(), BrokerError>;

    /// Takes or renews a lease for this writer. Returns whether this writer has it.
    ///
    /// # Errors
    /// When that is unknown.
    fn lease(&mut self, name: &str, ttl: Duration, timeout: Duration) -> Result<bool, BrokerError>;

    /// Forgets the newest blocks of writers that do not write any more.
    ///
    /// # Errors
    /// When it may not have been done.
    fn forget_writers(&mut self, writers: &[u128], timeout: Duration) -> Result<(), BrokerError>;

    /// Keeps the next chunk of a snapshot, for an hour or until the snapshot is complete.
    ///
    /// # Errors
    /// When it may not have been done.
    fn put_snapshot_chunk(
        &mut self,
        name: SnapshotName,
        index: u32,
        chunk: &[u8],
        timeout: Duration,
    ) -> Result<(), BrokerError>;

    /// Makes a snapshot the one that readers get, and removes the one before, unless there
    /// is a later one.
    ///
    /// # Errors
    /// When it may not have been done.
    fn complete_snapshot(
        &mut self,
        snapshot: StoredSnapshot,
        timeout: Duration,
    ) -> Result<(), BrokerError>;

    /// Keeps a value under a key for some time.
    ///
    /// # Errors
    /// When it may not have been done.
    fn put_value(
        &mut self,
        key: &[u8],
        value: &[u8],
        ttl: Duration,
        timeout: Duration,
    ) -> Result<(), BrokerError>;

    /// Removes and returns the value of a key. Only one caller receives it.
    ///
    /// # Errors
    /// When it may have been taken.
    fn take_value(&mut self, key: &[u8], timeout: Duration)
    -> Result<Option<Vec<u8>>, BrokerError>;
}

/// A session that reads. One thread has it.
pub trait LogReader: Send {
    /// Adds the blocks that begin after a number to `blocks`, the oldest first: about
    /// `bytes_max` bytes, at least one block. If there is none it waits, at most for `wait`,
    /// and adds nothing. `timeout` is that of the answer, beyond `wait`.
    ///
    /// # Errors
    /// When the broker does not answer.
    fn read(
        &mut self,
        after: u64,
        bytes_max: usize,
        wait: Duration,
        timeout: Duration,
        blocks: &mut Vec<BlockRead>,
    ) -> Result<(), BrokerError>;

    /// Requests the state of the log again.
    ///
    /// # Errors
    /// As [`SharedLog::open_reader`].
    fn welcome(&mut self, hello: &Hello<'_>, timeout: Duration) -> Result<Welcome, BrokerError>;

    /// Returns the newest complete snapshot, if there is one.
    ///
    /// # Errors
    /// When the broker does not answer.
    fn snapshot(&mut self, timeout: Duration) -> Result<Option<StoredSnapshot>, BrokerError>;

    /// Returns a chunk of a snapshot. `None`: a later one has taken its place.
    ///
    /// # Errors
    /// When the broker does not answer.
    fn snapshot_chunk(
        &mut self,
        name: SnapshotName,
        index: u32,
        timeout: Duration,
    ) -> Result<Option<Vec<u8>>, BrokerError>;
}

/// A block that is to be appended.
#[derive(Clone, Copy, Debug)]
pub struct NewBlock<'a> {
    /// Together with `n` the name of the block.
    pub writer: u128,
    /// The number of the block among those of the writer, from 1.
    pub n: u64,
    /// Count of numbers that the block uses: at least 1.
    pub width: u64,
    /// Its content.
    pub bytes: &'a [u8],
}

/// The place of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The number of its first event. Of a block that was there: that of the newest block of
    /// the writer.
    pub first: u64,
    /// Whether it, or a later one of the writer, was there already.
    pub was_there: bool,
}

/// A block that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRead {
    /// The number of its first event.
    pub first: u64,
    /// When it was appended by the clock of the broker, in milliseconds since 1970.
    pub wall_ms: u64,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// The name of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotName {
    /// It has everything up to this number.
    pub at: u64,
    /// The node that has made it.
    pub writer: u128,
}

/// A complete snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// Its name.
    pub name: SnapshotName,
    /// The number of its chunks.
    pub chunks: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_begins_at_the_clock_or_beyond_what_is_known() {
        let at = |us| Term::first_at(NEW_YEAR_US + us, 0);
        assert_eq!([at(1_000), at(1_001), at(1_999)], [1_024, 1_025, 2_046]);
        assert_eq!(at(2_000), 2_048);
        // No two microseconds have one number.
        let numbers: Vec<u64> = (1_000..3_000).map(at).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
        // The clock may be behind.
        for (wall_us, known) in [(0, 7), (NEW_YEAR_US + 1_000, 1_023)] {
            let first = Term::first_at(wall_us, known);
            assert_eq!(first, known + 1 + LEFT_OUT, "{wall_us}");
        }
    }
}
