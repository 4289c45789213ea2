//! [`Writer`]: appends the blocks of this node to the log.
//!
//! One block is under way at a time, from its append until the reader has it back. If an
//! answer is missing, or the block does not come back, it is appended again under the same
//! name, and the log refuses what it has.

use std::sync::Arc;

use super::session::Session;
use super::shared::{BACK_MS, CALL_TIMEOUT, Cluster, Next};
use crate::cluster::{Appended, BrokerError, Hello, LogWriter, NewBlock};
use crate::hub::Hub;
use crate::hub::proposals::{self, Proposals};
use crate::hub::published::Published;
use crate::journal::block::Sealed;

/// How long it waits for news at most, in milliseconds.
const IDLE_MS: u64 = 1_000;

/// See the [module](self).
pub(super) struct Writer {
    cluster: Arc<Cluster>,
    proposals: Arc<Proposals<Hub>>,
    session: Session<Box<dyn LogWriter>>,
    /// The first block that the session has appended.
    session_from: Option<u64>,
}

impl Writer {
    pub(super) fn new(cluster: Arc<Cluster>, proposals: Arc<Proposals<Hub>>) -> Writer {
        Writer {
            cluster,
            proposals,
            session: Session::default(),
            session_from: None,
        }
    }

    /// Appends the next block, if there is one, or opens a session.
    pub(super) fn step(&mut self) -> Next {
        let now_ms = self.proposals.clock().now_ms();
        let is_abandoned = self.proposals.is_abandoned();
        if self.session.get(&self.cluster).is_none() {
            if is_abandoned && self.proposals.status().queued > 0 && self.session.has_failed() {
                // What is left was answered, and may be in the log.
                self.proposals.give_up();
                return Next::Ended;
            }
            if let Some(until_ms) = self.session.wait(now_ms) {
                return Next::At(until_ms);
            }
            return self.open(now_ms);
        }
        match self.proposals.next_block() {
            proposals::Next::Append(block, _) => {
                self.append(&block);
                Next::Again
            }
            proposals::Next::Idle { until_ms } => {
                let latest_ms = now_ms + IDLE_MS;
                Next::At(until_ms.map_or(latest_ms, |until_ms| until_ms.min(latest_ms)))
            }
            proposals::Next::End => Next::Ended,
        }
    }

    fn open(&mut self, now_ms: u64) -> Next {
        let open = |hello: &Hello<'_>| self.cluster.log.open_writer(hello, CALL_TIMEOUT);
        if let Some(welcome) = self.session.open(&self.cluster, now_ms, open) {
            match self.cluster.is_of_log(&welcome.identity) {
                true => {
                    self.session_from = None;
                    self.session.succeeded();
                }
                // The reader finds out, and says so.
                false => self
                    .session
                    .failed(&self.cluster, now_ms, BrokerError::Moved),
            }
        }
        Next::Again
    }

    fn append(&mut self, block: &Sealed) {
        let Some(session) = self.session.get(&self.cluster) else {
            return self.proposals.put_off(block.n);
        };
        let clock = self.proposals.clock();
        let began_us = clock.now_us();
        let new = NewBlock {
            writer: self.cluster.writer,
            n: block.n,
            width: block.width,
            bytes: &block.bytes,
        };
        match session.append(new, CALL_TIMEOUT) {
            Ok(appended) => {
                let now_us = clock.now_us();
                self.proposals.appends.observe(now_us - began_us);
                self.proposals.accepted(block.n, now_us / 1000 + BACK_MS);
                let first = *self.session_from.get_or_insert(block.n);
                self.cluster.confirm(first..=block.n);
                self.accepted(block, appended);
            }
            Err(error) => {
                self.proposals.put_off(block.n);
                self.session.failed(&self.cluster, clock.now_ms(), error);
            }
        }
    }

    fn accepted(&self, block: &Sealed, appended: Appended) {
        let last = appended.first + block.width - 1;
        self.cluster.note_given(last);
        if !appended.was_there {
            return;
        }
        self.cluster.note_repeated();
        if !self.cluster.is_past(last) {
            return;
        }
        // It is in a part of the log that this node has from a snapshot, or that no node has.
        is_in_snapshot(&self.proposals, block.n);
    }
}

/// Reports the outcomes of a block whose records were applied elsewhere. What became of a
/// publish there is not known: its channel may have been finished, or have had its events.
pub(super) fn is_in_snapshot(proposals: &Proposals<Hub>, n: u64) {
    for (record, waiting) in proposals.came_back(n) {
        match waiting {
            Some(waiting) if record.change.is_of_node() => {
                waiting.report(Ok(Published::nothing(None, 0)));
            }
            // Dropping it says so.
            waiting => drop(waiting),
        }
    }
}
