//! [`Appender`]: the queue of what is proposed, and the block that is on its way.
//!
//! One block is on its way at a time, and meanwhile the next one fills: under load many
//! publishes share a write. No publish waits for others to come.
//!
//! ```text
//!            propose            next               appended
//!  Record ────────────► queue ────────► the block ──────────► to be applied
//!                         │ expire        │ expire
//!                         ▼               ▼
//!                       Unsent        Unconfirmed: the block stays, and is sent again
//! ```
//!
//! It does no I/O and reads no clock. `O` is what waits for the outcome of a record: it
//! comes back exactly once.
//!
//! The invariant to remember: *a record is in one block, and a block keeps its number until
//! it is in the log*. So the log can tell a block that is sent a second time.

use std::collections::VecDeque;
use std::sync::Arc;

use super::block::Sealed;
use super::record::Record;

/// The most records that wait, those on their way included.
pub(crate) const QUEUE_RECORDS_MAX: usize = 65_536;

/// The most bytes of these. One record may be larger if no other waits.
pub(crate) const QUEUE_BYTES_MAX: usize = 8 << 20;

/// The most records of a block.
pub(crate) const BLOCK_RECORDS_MAX: usize = 4_096;

/// The most bytes of a block. One record may be larger, alone.
pub(crate) const BLOCK_BYTES_MAX: usize = 256 << 10;

/// What a record costs in the queue beyond its bytes.
const RECORD_OVERHEAD_BYTES: usize = 96;

/// How long a block that failed waits before it is sent again, in milliseconds.
const RETRY_MS: u64 = 100;

/// A record that waits.
#[derive(Debug)]
struct Waiting<O> {
    record: Record,
    /// See [`Record::bytes`].
    bytes: usize,
    /// `None`: it was given back.
    outcome: Option<O>,
    deadline_ms: u64,
}

/// The block that is on its way.
#[derive(Debug)]
struct Sent<O> {
    block: Arc<Sealed>,
    records: Vec<Waiting<O>>,
    /// When it is to be sent again, if it failed.
    retry_at_ms: Option<u64>,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Appender<O> {
    /// The random number of this process.
    writer: u128,
    /// How long an outcome may take, in milliseconds.
    timeout_ms: u64,
    /// The number of the newest block.
    n: u64,
    queue: VecDeque<Waiting<O>>,
    sent: Option<Sent<O>>,
    /// The records of both.
    records: usize,
    /// Their bytes, with what each costs beyond them.
    bytes: usize,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Do {
    /// Nothing before this time, unless something is proposed.
    Idle { until_ms: Option<u64> },
    /// Append the block, unless it is in the log already. Then call
    /// [`appended`](Appender::appended), [`failed`](Appender::failed) or
    /// [`give_up`](Appender::give_up).
    Append(Arc<Sealed>),
}

/// The queue is full. The outcome comes back.
#[derive(Debug)]
pub(crate) struct Busy<O>(pub(crate) O);

/// Why a record has no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It was not sent, and will not be.
    Unsent,
    /// It was sent, and may be in the log or come into it.
    Unconfirmed,
}

impl<O> Appender<O> {
    /// Returns an appender. `writer` is a random number.
    pub(crate) fn new(writer: u128, timeout_ms: u64) -> Appender<O> {
        Appender {
            writer,
            timeout_ms,
            n: 0,
            queue: VecDeque::new(),
            sent: None,
            records: 0,
            bytes: 0,
        }
    }

    /// Queues a record.
    ///
    /// # Errors
    /// When the queue is full.
    pub(crate) fn propose(
        &mut self,
        record: Record,
        outcome: O,
        now_ms: u64,
    ) -> Result<(), Busy<O>> {
        let record_bytes = record.bytes();
        let cost = record_bytes + RECORD_OVERHEAD_BYTES;
        let has_room = self.records == 0
            || self.records < QUEUE_RECORDS_MAX && self.bytes + cost <= QUEUE_BYTES_MAX;
        if !has_room {
            return Err(Busy(outcome));
        }
        self.records += 1;
        self.bytes += cost;
        self.queue.push_back(Waiting {
            record,
            bytes: record_bytes,
            outcome: Some(outcome),
            deadline_ms: now_ms.saturating_add(self.timeout_ms),
        });
        Ok(())
    }

    /// Returns what is to be done. All that is queued goes into the next block, as far as
    /// it fits.
    pub(crate) fn next(&mut self, now_ms: u64) -> Do {
        let retry_at_ms = match &mut self.sent {
            None if self.queue.is_empty() => return Do::Idle { until_ms: None },
            None => return Do::Append(self.seal()),
            Some(sent) => match sent.retry_at_ms {
                Some(at_ms) if at_ms <= now_ms => {
                    sent.retry_at_ms = None;
                    return Do::Append(sent.block.clone());
                }
                at_ms => at_ms,
            },
        };
        let deadline_ms = self.unanswered().map(|first| first.deadline_ms).next();
        Do::Idle {
            until_ms: retry_at_ms.into_iter().chain(deadline_ms).min(),
        }
    }

    /// Moves what is queued into a block.
    fn seal(&mut self) -> Arc<Sealed> {
        let mut bytes = 0;
        let fits = |waiting: &&Waiting<O>| {
            bytes += waiting.bytes;
            bytes <= BLOCK_BYTES_MAX
        };
        let count = self
            .queue
            .iter()
            .take(BLOCK_RECORDS_MAX)
            .take_while(fits)
            .count();
        let records: Vec<Waiting<O>> = self.queue.drain(..count.max(1)).collect();
        self.n += 1;
        let all = records.iter().map(|waiting| &waiting.record);
        let block = Arc::new(Sealed::new(self.writer, self.n, all));
        self.sent = Some(Sent {
            block: block.clone(),
            records,
            retry_at_ms: None,
        });
        block
    }

    /// Takes note that block `n` is in the log. Returns its records, in order, with the
    /// outcomes that are still waited for. Nothing if it was known.
    pub(crate) fn appended(&mut self, n: u64) -> Vec<(Record, Option<O>)> {
        let Some(sent) = self.sent.take_if(|sent| sent.block.n == n) else {
            return Vec::new();
        };
        let mut appended = Vec::with_capacity(sent.records.len());
        for waiting in sent.records {
            self.release(waiting.bytes);
            appended.push((waiting.record, waiting.outcome));
        }
        appended
    }

    /// Takes note that block `n` may not be in the log. It is to be appended again.
    pub(crate) fn failed(&mut self, n: u64, now_ms: u64) {
        if let Some(sent) = self.sent.as_mut().filter(|sent| sent.block.n == n) {
            sent.retry_at_ms = Some(now_ms.saturating_add(RETRY_MS));
        }
    }

    /// Forgets all records, because nothing can be appended any more.
    pub(crate) fn give_up(&mut self) -> Vec<(O, Refused)> {
        let mut refused = Vec::new();
        for waiting in self.sent.take().into_iter().flat_map(|sent| sent.records) {
            refused.extend(
                waiting
                    .outcome
                    .map(|outcome| (outcome, Refused::Unconfirmed)),
            );
        }
        for waiting in self.queue.drain(..) {
            refused.extend(waiting.outcome.map(|outcome| (outcome, Refused::Unsent)));
        }
        (self.records, self.bytes) = (0, 0);
        refused
    }

    /// Returns the outcomes that have waited for too long. What is queued is not sent any
    /// more; what was sent stays.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<(O, Refused)> {
        let mut expired = Vec::new();
        let is_over = |waiting: &Waiting<O>| waiting.deadline_ms <= now_ms;
        for waiting in self.sent.iter_mut().flat_map(|sent| &mut sent.records) {
            if is_over(waiting) {
                let outcome = waiting.outcome.take();
                expired.extend(outcome.map(|outcome| (outcome, Refused::Unconfirmed)));
            }
        }
        while self.queue.front().is_some_and(is_over)
            && let Some(waiting) = self.queue.pop_front()
        {
            self.release(waiting.bytes);
            expired.extend(waiting.outcome.map(|outcome| (outcome, Refused::Unsent)));
        }
        expired
    }

    /// Returns the records that wait for their outcomes, the oldest first.
    fn unanswered(&self) -> impl Iterator<Item = &Waiting<O>> {
        let sent = self.sent.iter().flat_map(|sent| &sent.records);
        let all = sent.chain(&self.queue);
        all.filter(|waiting| waiting.outcome.is_some())
    }

    fn release(&mut self, record_bytes: usize) {
        self.records -= 1;
        self.bytes -= record_bytes + RECORD_OVERHEAD_BYTES;
    }

    /// Returns how many records wait, those on their way included, and their bytes.
    pub(crate) fn queued(&self) -> (usize, usize) {
        (self.records, self.bytes)
    }
}
