//! [`Appender`]: the queue of what is proposed, and the block that is on its way.
//!
//! One block is on its way at a time, and meanwhile the next one fills: under load many
//! publishes share a write. No publish waits for others to come.
//!
//! ```text
//!            propose            next, sealed       appended
//!  Record ────────────► queue ────────────► the block ──────────► to be applied
//!                         │ expire            │ expire
//!                         ▼                   ▼
//!                       Unsent        Unconfirmed: the block stays, and is sent again
//! ```
//!
//! The owner makes the bytes of a block, with nothing locked: others propose meanwhile.
//!
//! It does no I/O and reads no clock. `O` is what waits for the outcome of a record: it
//! comes back exactly once.
//!
//! The invariant to remember: *a record is in one block, and a block keeps its number until
//! it is in the log*. So the log can tell a block that is sent a second time.

use std::collections::VecDeque;
use std::sync::Arc;

use super::block::Sealed;
use super::record::{Change, Record};

/// The most bytes of records that wait, those on their way included: about 50,000 small
/// ones. One large record may wait besides, and the ends of channels, which are small.
pub(crate) const QUEUE_BYTES_MAX: usize = 8 << 20;

/// From this size on a record is large, in bytes: it does not take the room of others, and
/// they do not keep it out.
const LARGE_BYTES: usize = QUEUE_BYTES_MAX / 2;

/// The most records that wait: more than have room by their bytes. Only ends of channels
/// come to it.
pub(crate) const QUEUE_RECORDS_MAX: usize = 65_536;

/// The most records of a block.
pub(crate) const BLOCK_RECORDS_MAX: usize = 4_096;

/// The most bytes of a block. One record may be larger, alone.
pub(crate) const BLOCK_BYTES_MAX: usize = 256 << 10;

/// What a record costs in the queue beyond its bytes.
const RECORD_OVERHEAD_BYTES: usize = 96;

/// How long a block that failed waits before it is sent again, in milliseconds.
const RETRY_MS: u64 = 100;

/// What waits for a record.
#[derive(Debug)]
struct Waiting<O> {
    /// See [`Record::bytes`].
    bytes: usize,
    /// `None`: it was given back.
    outcome: Option<O>,
    deadline_ms: u64,
}

/// The block that is on its way.
#[derive(Debug)]
struct Sent<O> {
    n: u64,
    /// The block and its records; `None` while its bytes are made.
    sealed: Option<(Arc<Sealed>, Vec<Record>)>,
    waiting: Vec<Waiting<O>>,
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
    queue: VecDeque<(Record, Waiting<O>)>,
    sent: Option<Sent<O>>,
    /// The records of both.
    records: usize,
    /// Their bytes, with what each costs beyond them.
    bytes: usize,
    /// Those of the large record.
    large_bytes: usize,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Do {
    /// Nothing before this time, unless something is proposed.
    Idle { until_ms: Option<u64> },
    /// Make the bytes of a block, and pass it to [`sealed`](Appender::sealed).
    Seal(Unsealed),
    /// Append the block, unless it is in the log already. Then call
    /// [`appended`](Appender::appended), [`failed`](Appender::failed) or
    /// [`give_up`](Appender::give_up).
    Append(Arc<Sealed>),
}

/// The records of a block whose bytes are to be made.
#[derive(Debug)]
pub(crate) struct Unsealed {
    writer: u128,
    n: u64,
    records: Vec<Record>,
}

impl Unsealed {
    /// Makes the bytes. The cost grows with them.
    pub(crate) fn seal(self) -> (Sealed, Vec<Record>) {
        let block = Sealed::new(self.writer, self.n, self.records.iter());
        (block, self.records)
    }
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
            large_bytes: 0,
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
        let has_room = match cost >= LARGE_BYTES {
            true => self.large_bytes == 0,
            false => self.bytes - self.large_bytes + cost <= QUEUE_BYTES_MAX,
        };
        let may_exceed = is_an_end(&record.change) && self.records < QUEUE_RECORDS_MAX;
        if !has_room && !may_exceed {
            return Err(Busy(outcome));
        }
        if cost >= LARGE_BYTES {
            self.large_bytes = cost;
        }
        self.records += 1;
        self.bytes += cost;
        let waiting = Waiting {
            bytes: record_bytes,
            outcome: Some(outcome),
            deadline_ms: now_ms.saturating_add(self.timeout_ms),
        };
        self.queue.push_back((record, waiting));
        Ok(())
    }

    /// Returns what is to be done. All that is queued goes into the next block, as far as
    /// it fits.
    pub(crate) fn next(&mut self, now_ms: u64) -> Do {
        let retry_at_ms = match &mut self.sent {
            None if self.queue.is_empty() => return Do::Idle { until_ms: None },
            None => return Do::Seal(self.take_block()),
            Some(sent) => match (sent.retry_at_ms, &sent.sealed) {
                (Some(at_ms), Some((block, _))) if at_ms <= now_ms => {
                    sent.retry_at_ms = None;
                    return Do::Append(block.clone());
                }
                (at_ms, _) => at_ms,
            },
        };
        let deadline_ms = self.unanswered().map(|first| first.deadline_ms).next();
        Do::Idle {
            until_ms: retry_at_ms.into_iter().chain(deadline_ms).min(),
        }
    }

    /// Moves what is queued into a block.
    fn take_block(&mut self) -> Unsealed {
        let mut bytes = 0;
        let fits = |(_, waiting): &&(Record, Waiting<O>)| {
            bytes += waiting.bytes;
            bytes <= BLOCK_BYTES_MAX
        };
        let count = self
            .queue
            .iter()
            .take(BLOCK_RECORDS_MAX)
            .take_while(fits)
            .count();
        let (records, waiting) = self.queue.drain(..count.max(1)).unzip();
        self.n += 1;
        self.sent = Some(Sent {
            n: self.n,
            sealed: None,
            waiting,
            retry_at_ms: None,
        });
        Unsealed {
            writer: self.writer,
            n: self.n,
            records,
        }
    }

    /// Takes note of the block that was to be sealed. Returns it, to be appended.
    pub(crate) fn sealed(&mut self, (block, records): (Sealed, Vec<Record>)) -> Arc<Sealed> {
        let block = Arc::new(block);
        if let Some(sent) = self.sent.as_mut().filter(|sent| sent.n == block.n) {
            sent.sealed = Some((block.clone(), records));
        }
        block
    }

    /// Takes note that block `n` is in the log. Returns its records, in order, with the
    /// outcomes that are still waited for. Nothing if it was known.
    pub(crate) fn appended(&mut self, n: u64) -> Vec<(Record, Option<O>)> {
        let Some(sent) = self.sent.take_if(|sent| sent.n == n) else {
            return Vec::new();
        };
        let (_, records) = sent.sealed.expect("a block that is appended was sealed");
        let mut appended = Vec::with_capacity(records.len());
        for (record, waiting) in records.into_iter().zip(sent.waiting) {
            self.release(waiting.bytes);
            appended.push((record, waiting.outcome));
        }
        appended
    }

    /// Takes note that block `n` may not be in the log. It is to be appended again.
    pub(crate) fn failed(&mut self, n: u64, now_ms: u64) {
        if let Some(sent) = self.sent.as_mut().filter(|sent| sent.n == n) {
            sent.retry_at_ms = Some(now_ms.saturating_add(RETRY_MS));
        }
    }

    /// Takes note that the log has accepted block `n`, which comes back from there. Unless
    /// that is so until `until_ms`, it is to be appended again.
    pub(crate) fn accepted(&mut self, n: u64, until_ms: u64) {
        if let Some(sent) = self.sent.as_mut().filter(|sent| sent.n == n) {
            sent.retry_at_ms = Some(until_ms);
        }
    }

    /// Returns the number of the next block that is not sealed yet.
    pub(crate) fn next_n(&self) -> u64 {
        self.n + 1
    }

    /// Returns whether an outcome is waited for.
    pub(crate) fn has_unanswered(&self) -> bool {
        self.unanswered().next().is_some()
    }

    /// Takes note that block `n` is not in the log and cannot be appended. Returns what
    /// waits for its records.
    pub(crate) fn withdraw(&mut self, n: u64) -> Vec<O> {
        let withdrawn = self.appended(n);
        withdrawn
            .into_iter()
            .filter_map(|(_, outcome)| outcome)
            .collect()
    }

    /// Forgets all records, because nothing can be appended any more.
    pub(crate) fn give_up(&mut self) -> Vec<(O, Refused)> {
        let mut refused = Vec::new();
        for waiting in self.sent.take().into_iter().flat_map(|sent| sent.waiting) {
            refused.extend(
                waiting
                    .outcome
                    .map(|outcome| (outcome, Refused::Unconfirmed)),
            );
        }
        for (_, waiting) in self.queue.drain(..) {
            refused.extend(waiting.outcome.map(|outcome| (outcome, Refused::Unsent)));
        }
        (self.records, self.bytes, self.large_bytes) = (0, 0, 0);
        refused
    }

    /// Returns the outcomes that have waited for too long. What is queued is not sent any
    /// more; what was sent stays.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<(O, Refused)> {
        let mut expired = Vec::new();
        let is_over = |waiting: &Waiting<O>| waiting.deadline_ms <= now_ms;
        for waiting in self.sent.iter_mut().flat_map(|sent| &mut sent.waiting) {
            if is_over(waiting) {
                let outcome = waiting.outcome.take();
                expired.extend(outcome.map(|outcome| (outcome, Refused::Unconfirmed)));
            }
        }
        while self.queue.front().is_some_and(|(_, first)| is_over(first))
            && let Some((_, waiting)) = self.queue.pop_front()
        {
            self.release(waiting.bytes);
            expired.extend(waiting.outcome.map(|outcome| (outcome, Refused::Unsent)));
        }
        expired
    }

    /// Returns the records that wait for their outcomes, the oldest first.
    fn unanswered(&self) -> impl Iterator<Item = &Waiting<O>> {
        let sent = self.sent.iter().flat_map(|sent| &sent.waiting);
        let all = sent.chain(self.queue.iter().map(|(_, waiting)| waiting));
        all.filter(|waiting| waiting.outcome.is_some())
    }

    fn release(&mut self, record_bytes: usize) {
        let cost = record_bytes + RECORD_OVERHEAD_BYTES;
        self.records -= 1;
        self.bytes -= cost;
        if cost >= LARGE_BYTES {
            self.large_bytes = 0;
        }
    }

    /// Returns how many records wait, those on their way included, and their bytes.
    pub(crate) fn queued(&self) -> (usize, usize) {
        (self.records, self.bytes)
    }
}

/// Returns whether a change ends a channel and has no event. It is not refused for its
/// bytes: a worker that ends has no time to try again.
fn is_an_end(change: &Change) -> bool {
    match change {
        Change::Publish { events, .. } => events.is_empty(),
        Change::Finish { last, .. } => last.is_none(),
        Change::Remove { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Event;
    use crate::journal::block::Block;
    use crate::journal::generated::{ID_PREFIX, ready};
    use crate::journal::record::{Change, Options};

    const TIMEOUT_MS: u64 = 1_000;

    /// A record whose event has that much data, and whose basis names it.
    fn record(name: u64, bytes: usize) -> Record {
        Record {
            basis: name,
            change: Change::Publish {
                channel: "news".into(),
                audience: None,
                events: vec![ready(&Event::message("x".repeat(bytes)))],
                options: Options::default(),
            },
        }
    }

    fn small(name: u64) -> Record {
        let change = Change::Lost { after: 0 };
        Record {
            basis: name,
            change,
        }
    }

    fn appender() -> Appender<u64> {
        Appender::new(1, TIMEOUT_MS)
    }

    fn names(block: &Sealed) -> Vec<u64> {
        let block = Block::decode(&block.bytes, ID_PREFIX).unwrap();
        block.records.iter().map(|record| record.basis).collect()
    }

    /// Returns the block that is to be sent, or until when nothing is to be done.
    fn next(appender: &mut Appender<u64>, now_ms: u64) -> Result<Arc<Sealed>, Option<u64>> {
        match appender.next(now_ms) {
            Do::Seal(unsealed) => Ok(appender.sealed(unsealed.seal())),
            Do::Append(block) => Ok(block),
            Do::Idle { until_ms } => Err(until_ms),
        }
    }

    fn sent(appender: &mut Appender<u64>, now_ms: u64) -> Arc<Sealed> {
        next(appender, now_ms).expect("a block is to be sent")
    }

    fn idle(appender: &mut Appender<u64>, now_ms: u64) -> Option<u64> {
        next(appender, now_ms).expect_err("nothing is to be done")
    }

    #[test]
    fn a_block_has_all_that_waits_and_the_next_one_fills_meanwhile() {
        let mut appender = appender();
        assert_eq!(idle(&mut appender, 0), None);
        appender.propose(small(1), 1, 0).unwrap();
        let first = sent(&mut appender, 0);
        assert_eq!(names(&first), [1]);
        appender.propose(small(2), 2, 5).unwrap();
        appender.propose(small(3), 3, 5).unwrap();
        assert_eq!(idle(&mut appender, 5), Some(TIMEOUT_MS));
        let outcomes: Vec<_> = appender
            .appended(first.n)
            .into_iter()
            .map(|a| a.1)
            .collect();
        assert_eq!(outcomes, [Some(1)]);
        let second = sent(&mut appender, 5);
        assert_eq!((second.n, names(&second)), (2, vec![2, 3]));
        assert!(appender.appended(first.n).is_empty());
        assert_eq!(appender.appended(second.n).len(), 2);
        assert_eq!(appender.queued(), (0, 0));
    }

    #[test]
    fn a_block_is_closed_at_its_bounds_and_a_larger_record_is_alone() {
        let mut appender = appender();
        let half = BLOCK_BYTES_MAX / 2;
        for (name, bytes) in [(1, half), (2, half), (3, 2 * BLOCK_BYTES_MAX), (4, 10)] {
            appender.propose(record(name, bytes), name, 0).unwrap();
        }
        let mut blocks = Vec::new();
        for _ in 0..4 {
            let block = sent(&mut appender, 0);
            assert!(block.bytes.len() <= BLOCK_BYTES_MAX || names(&block) == [3]);
            blocks.push(names(&block));
            appender.appended(block.n);
        }
        assert_eq!(blocks, [[1], [2], [3], [4]]);
        for name in 0..=BLOCK_RECORDS_MAX as u64 {
            appender.propose(small(name), name, 0).unwrap();
        }
        let block = sent(&mut appender, 0);
        assert_eq!(names(&block).len(), BLOCK_RECORDS_MAX);
    }

    #[test]
    fn a_full_queue_refuses_but_has_room_for_one_large_record_and_the_ends_of_channels() {
        let mut appender = appender();
        let mut queued = 0;
        let Busy(refused) = loop {
            match appender.propose(small(queued), queued, 0) {
                Ok(()) => queued += 1,
                Err(busy) => break busy,
            }
        };
        assert_eq!(refused, queued);
        let cost = small(0).bytes() + RECORD_OVERHEAD_BYTES;
        assert_eq!(queued, (QUEUE_BYTES_MAX / cost) as u64);
        let huge = || record(1, QUEUE_BYTES_MAX);
        let channel: Arc<str> = "news".into();
        let remove = Change::Remove { channel };
        appender.propose(huge(), queued, 0).unwrap();
        appender.propose(huge(), 1, 0).unwrap_err();
        let end = Record {
            basis: 0,
            change: remove,
        };
        appender.propose(end, queued + 1, 0).unwrap();
        assert_eq!(appender.expire(TIMEOUT_MS).len() as u64, queued + 2);
        assert_eq!((appender.queued(), appender.large_bytes), ((0, 0), 0));
        appender.propose(huge(), 1, 0).unwrap();
        appender.propose(small(2), 2, 0).unwrap();
        let block = sent(&mut appender, 0);
        appender.propose(huge(), 3, 0).unwrap_err();
        appender.appended(block.n);
        appender.propose(huge(), 3, 0).unwrap();
    }

    #[test]
    fn what_is_too_late_is_unsent_or_unconfirmed_and_the_block_stays() {
        let mut appender = appender();
        appender.propose(small(1), 1, 0).unwrap();
        let block = sent(&mut appender, 0);
        appender.propose(small(2), 2, 10).unwrap();
        appender.failed(block.n, 20);
        assert_eq!(idle(&mut appender, 20), Some(20 + RETRY_MS));
        assert_eq!(sent(&mut appender, 20 + RETRY_MS).bytes, block.bytes);
        assert_eq!(appender.expire(TIMEOUT_MS - 1), []);
        assert_eq!(appender.expire(TIMEOUT_MS), [(1, Refused::Unconfirmed)]);
        assert_eq!(idle(&mut appender, TIMEOUT_MS), Some(TIMEOUT_MS + 10));
        assert_eq!(appender.expire(TIMEOUT_MS + 10), [(2, Refused::Unsent)]);
        assert_eq!(idle(&mut appender, 2 * TIMEOUT_MS), None);
        appender.failed(block.n, 2 * TIMEOUT_MS);
        assert_eq!(sent(&mut appender, 3 * TIMEOUT_MS).n, block.n);
        let appended = appender.appended(block.n);
        assert_eq!(appended.len(), 1);
        assert_eq!((appended[0].0.basis, appended[0].1), (1, None));
    }

    #[test]
    fn an_end_refuses_all_that_waits() {
        let mut appender = appender();
        appender.propose(small(1), 1, 0).unwrap();
        let block = sent(&mut appender, 0);
        appender.propose(small(2), 2, 0).unwrap();
        let refused = appender.give_up();
        assert_eq!(refused, [(1, Refused::Unconfirmed), (2, Refused::Unsent)]);
        assert!(appender.appended(block.n).is_empty());
        assert_eq!(appender.queued(), (0, 0));
        assert_eq!(idle(&mut appender, 0), None);
    }

    /// What happens next.
    #[derive(Clone, Debug)]
    enum Step {
        /// A record of so many bytes is proposed.
        Propose(usize),
        /// So many milliseconds pass.
        Pass(u64),
        /// The thread asks what is to be done.
        Next,
        /// A block that was sent comes into the log; the newest or an earlier one.
        Arrive(prop::sample::Index),
        /// The answer to a block that is in the log comes.
        Answer(prop::sample::Index),
        /// The connection is gone, with or without the block.
        Fail(prop::sample::Index),
        /// The thread asks what is too late.
        Expire,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let bytes = prop_oneof![
            6 => Just(1),
            2 => Just(1_000),
            2 => Just(100 << 10),
            1 => Just(2 << 20),
        ];
        let step = prop_oneof![
            6 => bytes.prop_map(Step::Propose),
            2 => (0..400_u64).prop_map(Step::Pass),
            4 => Just(Step::Next),
            4 => any::<prop::sample::Index>().prop_map(Step::Arrive),
            4 => any::<prop::sample::Index>().prop_map(Step::Answer),
            2 => any::<prop::sample::Index>().prop_map(Step::Fail),
            2 => Just(Step::Expire),
        ];
        prop::collection::vec(step, 0..60)
    }

    /// A log that keeps each block once, and all that is known of the records.
    #[derive(Default)]
    struct Model {
        /// Each time that a block was sent.
        sent: Vec<Arc<Sealed>>,
        log: Vec<Arc<Sealed>>,
        /// The deadline of each record that waits, by its name.
        waiting: std::collections::BTreeMap<u64, u64>,
        /// `None`: it was appended.
        outcomes: std::collections::BTreeMap<u64, Option<Refused>>,
        now_ms: u64,
    }

    impl Model {
        fn end(&mut self, name: u64, outcome: Option<Refused>) {
            self.waiting.remove(&name);
            let before = self.outcomes.insert(name, outcome);
            assert_eq!(before, None, "record {name} has two outcomes");
        }

        fn arrive(&mut self, block: &Arc<Sealed>) {
            let newest = self.log.last().map_or(0, |block| block.n);
            assert!(block.n <= newest + 1, "a block was left out");
            if block.n > newest {
                self.log.push(block.clone());
            }
        }

        fn answer(&mut self, appender: &mut Appender<u64>, n: u64) {
            let block = self.log.iter().find(|block| block.n == n);
            let names = block.map(|block| names(block)).unwrap_or_default();
            let appended = appender.appended(n);
            let appended_names: Vec<u64> = appended.iter().map(|a| a.0.basis).collect();
            assert!(appended.is_empty() || appended_names == names);
            for (record, outcome) in appended {
                match outcome {
                    Some(name) => {
                        assert_eq!(name, record.basis);
                        self.end(name, None);
                    }
                    None => assert_eq!(
                        self.outcomes.get(&record.basis),
                        Some(&Some(Refused::Unconfirmed))
                    ),
                }
            }
        }

        fn expire(&mut self, appender: &mut Appender<u64>) {
            for (name, refused) in appender.expire(self.now_ms) {
                assert!(self.waiting[&name] <= self.now_ms);
                self.end(name, Some(refused));
            }
            let next = self.waiting.values().min();
            assert!(next.is_none_or(|deadline_ms| *deadline_ms > self.now_ms));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn each_record_has_one_outcome_and_one_place(steps in steps()) {
            let mut appender = appender();
            let mut model = Model::default();
            let mut proposed = 0;
            for step in steps {
                match step {
                    Step::Propose(bytes) => {
                        let small_bytes = appender.bytes - appender.large_bytes;
                        let record = record(proposed, bytes);
                        let cost = record.bytes() + RECORD_OVERHEAD_BYTES;
                        let has_room = match cost < LARGE_BYTES {
                            true => small_bytes + cost <= QUEUE_BYTES_MAX,
                            false => appender.large_bytes == 0,
                        };
                        let is_queued = appender.propose(record, proposed, model.now_ms).is_ok();
                        prop_assert_eq!(is_queued, has_room);
                        if is_queued {
                            model.waiting.insert(proposed, model.now_ms + TIMEOUT_MS);
                        }
                        proposed += 1;
                    }
                    Step::Pass(ms) => model.now_ms += ms,
                    Step::Next => match next(&mut appender, model.now_ms) {
                        Ok(block) => model.sent.push(block),
                        Err(until_ms) => {
                            let sent_n = model.sent.last().map_or(0, |block| block.n);
                            let deadline_ms = model.waiting.values().min().copied();
                            // Without a block on its way nothing can wait.
                            if appender.sent.is_none() {
                                prop_assert_eq!(deadline_ms, None);
                            }
                            prop_assert!(sent_n > 0 || deadline_ms.is_none());
                            prop_assert!(
                                until_ms.unwrap_or(u64::MAX) <= deadline_ms.unwrap_or(u64::MAX)
                            );
                        }
                    },
                    Step::Arrive(at) => {
                        // A connection may deliver late what was sent a second time since.
                        if !model.sent.is_empty() {
                            let block = at.get(&model.sent).clone();
                            model.arrive(&block);
                        }
                    }
                    Step::Answer(at) => {
                        if !model.log.is_empty() {
                            let n = at.get(&model.log).n;
                            model.answer(&mut appender, n);
                        }
                    }
                    Step::Fail(at) => {
                        if !model.sent.is_empty() {
                            appender.failed(at.get(&model.sent).n, model.now_ms);
                        }
                    }
                    Step::Expire => model.expire(&mut appender),
                }
            }
            // The log can be written again: all that waits comes into it or is too late.
            loop {
                model.now_ms += RETRY_MS;
                model.expire(&mut appender);
                if let Some(sent) = &appender.sent {
                    let (block, _) = sent.sealed.as_ref().unwrap();
                    let block = block.clone();
                    model.arrive(&block);
                    model.answer(&mut appender, block.n);
                }
                match next(&mut appender, model.now_ms) {
                    Ok(block) => model.sent.push(block),
                    Err(_) => break,
                }
            }
            prop_assert_eq!(appender.queued(), (0, 0));
            prop_assert!(model.waiting.is_empty());
            let log: Vec<u64> = model.log.iter().flat_map(|block| names(block)).collect();
            prop_assert!(log.is_sorted_by(|a, b| a < b), "not in order, or twice: {log:?}");
            for (name, outcome) in &model.outcomes {
                let is_there = log.binary_search(name).is_ok();
                match outcome {
                    None => prop_assert!(is_there),
                    Some(Refused::Unsent) => prop_assert!(!is_there),
                    Some(Refused::Unconfirmed) => {}
                }
            }
        }
    }
}
