//! [`Keeper`]: makes snapshots of the channels and trims the log.
//!
//! One node does it, the one that has the lease. Two at a time do no harm: the later snapshot
//! wins, and what is trimmed is in a snapshot.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use super::base::write_ends;
use super::session::Session;
use super::shared::{CALL_TIMEOUT, Cluster, Next};
use crate::cluster::{
    BrokerError, Hello, LogWriter, SNAPSHOT_CHUNK_BYTES, SnapshotName, StoredSnapshot, Term,
};
use crate::hub::Hub;
use crate::hub::clock::as_ms;
use crate::hub::proposals::Proposals;

/// The name of the lease, its duration, and the time after which it is renewed.
const LEASE: &str = "keeper";
pub(super) const LEASE_MS: u64 = 10_000;
const RENEW_MS: u64 = 3_000;

/// The time between two checks, in milliseconds.
const LOOK_MS: u64 = 1_000;

/// The bytes of blocks after which a new snapshot is worth its bytes. Below, it is made after
/// [`LONGEST`] times the usual time.
const SNAPSHOT_AFTER_BYTES: u64 = 16 << 20;
const LONGEST: u64 = 10;

/// A snapshot that this node has made.
#[derive(Clone, Copy, Debug)]
struct Made {
    at: u64,
    at_ms: u64,
    block_bytes: u64,
}

/// See the [module](self).
pub(super) struct Keeper {
    cluster: Arc<Cluster>,
    proposals: Arc<Proposals<Hub>>,
    hub: Arc<Hub>,
    session: Session<Box<dyn LogWriter>>,
    /// The terms of the log when the session was opened.
    terms: Vec<Term>,
    renew_at_ms: u64,
    is_keeper: bool,
    made: Option<Made>,
}

impl Keeper {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        proposals: Arc<Proposals<Hub>>,
        hub: Arc<Hub>,
    ) -> Keeper {
        Keeper {
            cluster,
            proposals,
            hub,
            session: Session::default(),
            terms: Vec::new(),
            renew_at_ms: 0,
            is_keeper: false,
            made: None,
        }
    }

    /// Renews the lease, makes a snapshot, or trims the log.
    pub(super) fn step(&mut self) -> Next {
        let now_ms = self.proposals.clock().now_ms();
        if self.proposals.is_closed() {
            return Next::Ended;
        }
        let Some((terms, applied, rebuilt)) = self.cluster.in_sync() else {
            self.leave_off();
            return Next::At(now_ms + LOOK_MS);
        };
        if self.session.get(&self.cluster).is_none() || self.terms != terms {
            self.leave_off();
        }
        if let Some(until_ms) = self.session.wait(now_ms) {
            return Next::At(until_ms);
        }
        match self.keep(now_ms, &terms, applied, rebuilt) {
            Ok(()) => Next::At(now_ms + LOOK_MS),
            Err(error) => {
                self.session.failed(&self.cluster, now_ms, error);
                self.leave_off();
                Next::Again
            }
        }
    }

    /// Closes the session, and gives the lease back, so that another node need not wait for
    /// its end.
    fn leave_off(&mut self) {
        if self.is_keeper
            && let Some(session) = self.session.get(&self.cluster)
        {
            // If it fails, the lease ends later.
            let _ = session.lease(LEASE, Duration::from_millis(1), CALL_TIMEOUT);
        }
        self.session.close();
        (self.is_keeper, self.renew_at_ms) = (false, 0);
        self.cluster.set_keeper(false);
    }

    fn keep(
        &mut self,
        now_ms: u64,
        terms: &[Term],
        applied: u64,
        rebuilt: u64,
    ) -> Result<(), BrokerError> {
        if self.session.get(&self.cluster).is_none() {
            let open = |hello: &Hello<'_>| self.cluster.log.open_writer(hello, CALL_TIMEOUT);
            let Some(welcome) = self.session.open(&self.cluster, now_ms, open) else {
                return Ok(());
            };
            if welcome.terms != terms || !self.cluster.is_of_log(&welcome.identity) {
                // The reader is behind, or on another server.
                self.session.close();
                return Ok(());
            }
            self.session.succeeded();
            self.terms = welcome.terms;
        }
        let Some(session) = self.session.get(&self.cluster) else {
            return Ok(());
        };
        if now_ms >= self.renew_at_ms {
            let ttl = Duration::from_millis(LEASE_MS);
            let is_keeper = session.lease(LEASE, ttl, CALL_TIMEOUT)?;
            if is_keeper && !self.is_keeper {
                // Another one may have kept it for long.
                self.made = None;
            }
            self.is_keeper = is_keeper;
            self.renew_at_ms = now_ms + RENEW_MS;
            self.cluster.set_keeper(is_keeper);
        }
        if !self.is_keeper {
            return Ok(());
        }
        if self.is_due(now_ms, terms, applied) {
            self.snapshot(now_ms, applied, rebuilt)?;
        }
        let (Some(session), Some(made)) = (self.session.get(&self.cluster), self.made) else {
            return Ok(());
        };
        if let Some(before) = self.cluster.trim_before() {
            session.trim(before.min(made.at.saturating_add(1)), CALL_TIMEOUT)?;
        }
        let gone = self.cluster.forget_writers();
        match gone.is_empty() {
            true => Ok(()),
            false => session.forget_writers(&gone, CALL_TIMEOUT),
        }
    }

    /// Returns whether it is time for a snapshot. A term begins with one: a node that finds
    /// itself on another branch needs it.
    fn is_due(&self, now_ms: u64, terms: &[Term], applied: u64) -> bool {
        let Some(made) = self.made else {
            return true;
        };
        let term = terms.last().map_or(0, |term| term.first);
        let every_ms = as_ms(self.cluster.options.snapshot_every);
        let age_ms = now_ms.saturating_sub(made.at_ms);
        let bytes = self.cluster.block_bytes() - made.block_bytes;
        let is_worth_it =
            bytes >= SNAPSHOT_AFTER_BYTES || age_ms >= every_ms.saturating_mul(LONGEST);
        applied > made.at && (made.at < term || (age_ms >= every_ms && is_worth_it))
    }

    fn snapshot(&mut self, now_ms: u64, applied: u64, rebuilt: u64) -> Result<(), BrokerError> {
        let Some(session) = self.session.get(&self.cluster) else {
            return Ok(());
        };
        let block_bytes = self.cluster.block_bytes();
        let name = SnapshotName {
            at: applied,
            writer: self.cluster.writer,
        };
        let mut chunks = Chunks {
            session: &mut **session,
            cluster: &self.cluster,
            rebuilt,
            name,
            index: 0,
            chunk: Vec::new(),
            error: None,
        };
        let written = {
            let _not_replaced = self.cluster.building();
            let ends = write_ends(&self.cluster.timed_ends(), &mut chunks);
            let written = ends.and_then(|()| self.hub.write_snapshot(&mut chunks));
            written.and_then(|_| chunks.put())
        };
        if let Some(error) = chunks.error.take() {
            return Err(error);
        }
        if written.is_err() {
            // The hub is being rebuilt.
            return Ok(());
        }
        let snapshot = StoredSnapshot {
            name,
            chunks: chunks.index,
        };
        session.complete_snapshot(snapshot, CALL_TIMEOUT)?;
        self.made = Some(Made {
            at: applied,
            at_ms: now_ms,
            block_bytes,
        });
        Ok(())
    }
}

/// Puts what is written into the chunks of a snapshot.
struct Chunks<'a> {
    session: &'a mut dyn LogWriter,
    cluster: &'a Cluster,
    rebuilt: u64,
    name: SnapshotName,
    index: u32,
    chunk: Vec<u8>,
    error: Option<BrokerError>,
}

impl Chunks<'_> {
    /// Puts the last chunk.
    fn put(&mut self) -> io::Result<()> {
        let is_same = |(_, _, rebuilt): (_, _, u64)| rebuilt == self.rebuilt;
        if !self.cluster.in_sync().is_some_and(is_same) {
            return Err(io::Error::other("the channels are built anew"));
        }
        let put = self
            .session
            .put_snapshot_chunk(self.name, self.index, &self.chunk, CALL_TIMEOUT);
        self.chunk.clear();
        self.index += 1;
        put.map_err(|error| {
            self.error = Some(error);
            io::Error::other("the broker does not keep it")
        })
    }
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = SNAPSHOT_CHUNK_BYTES - self.chunk.len();
        let some = &bytes[..bytes.len().min(room)];
        self.chunk.extend_from_slice(some);
        if self.chunk.len() == SNAPSHOT_CHUNK_BYTES {
            self.put()?;
        }
        Ok(some.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
