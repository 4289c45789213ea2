//! [`Proposals`]: the changes that wait for the log, and their outcomes.
//!
//! Any thread proposes. One thread appends blocks of what waits, and passes each outcome
//! on when the record is applied. Another one watches the time, so that an outcome comes
//! even while a disk does not respond.
//!
//! The invariant to remember: *each proposal has one outcome, and the owner lives as long
//! as one is waited for*.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::clock::{Clock, as_ms};
use super::held_wakes::{self, Kind, Sleeper};
use super::idempotency::KeyInFlight;
use super::published::{ChangeLog, PublishError, Published};
use crate::journal::appender::{Appender, Busy, Do, Refused};
use crate::journal::block::Sealed;
use crate::journal::error::JournalError;
use crate::journal::record::Record;
use crate::metrics::{Histogram, Tally};

/// What receives the outcome of a proposal.
pub(super) type Then = Box<dyn FnOnce(Result<Published, PublishError>) + Send>;

/// Appends what waits on the current thread, unless that may wait for a disk. Returns whether
/// nothing is left.
pub(super) type AppendHere = Box<dyn Fn() -> bool + Send + Sync>;

/// The largest record, in bytes. It is alone in its block.
const RECORD_BYTES_MAX: usize = 512 << 20;

/// After which time to publish again what was refused.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An outcome that is waited for.
pub(super) struct Waiting {
    /// The number of clients when it was proposed.
    pub(super) clients: usize,
    /// `None`: its publisher did not wait.
    pub(super) then: Option<Then>,
    /// The idempotency key of its publish, until the outcome is passed on.
    pub(super) key: Option<KeyInFlight>,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").finish_non_exhaustive()
    }
}

impl Waiting {
    /// Passes the outcome on. The program's code must not end this thread.
    pub(super) fn report(mut self, outcome: Result<Published, PublishError>) {
        self.pass_on(outcome);
    }

    fn pass_on(&mut self, outcome: Result<Published, PublishError>) {
        self.key = None;
        if let Some(then) = self.then.take()
            && catch_unwind(AssertUnwindSafe(|| then(outcome))).is_err()
        {
            ::log::error!("a function that receives the result of a publish has panicked");
        }
    }
}

/// A panic on the way may leave the outcome open.
impl Drop for Waiting {
    fn drop(&mut self) {
        self.pass_on(Err(PublishError::Unconfirmed));
    }
}

/// What the handles of a program share. The end of the last one closes the log.
pub(crate) struct Handles<H>(Arc<Proposals<H>>);

impl<H> fmt::Debug for Handles<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handles").finish_non_exhaustive()
    }
}

impl<H> Drop for Handles<H> {
    fn drop(&mut self) {
        // An error was logged.
        let _ = self.0.close();
    }
}

/// The state of a manager's journal; see
/// [`ChannelManager::journal_status`](crate::ChannelManager::journal_status).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalStatus {
    /// Whether it accepts events.
    pub is_writable: bool,
    /// The error after which it accepts none until it is opened again.
    pub error: Option<String>,
    /// The size of its files, in bytes.
    pub bytes: u64,
    /// The number of publishes and other changes that wait to be written.
    pub queued: usize,
    /// Their size, in bytes.
    pub queued_bytes: usize,
    /// The number of those that were refused, or not confirmed in time.
    pub refused: u64,
    /// The durations of writes, with their syncs if each is synced.
    pub appends: Histogram,
    /// The durations of syncs that are made beside writes.
    pub syncs: Histogram,
}

/// What the thread that appends is to do.
pub(super) enum Next<H> {
    /// Append the block, and apply it to the owner.
    Append(Arc<Sealed>, Arc<H>),
    /// Wait for news, until this time at most.
    Idle { until_ms: Option<u64> },
    /// Nothing waits in a queue that is closed, or the log has failed.
    End,
}

/// See the [module](self). `H` is the owner: the hub.
pub(crate) struct Proposals<H> {
    queue: Mutex<Queue<H>>,
    /// The thread that appends waits for this.
    work: Condvar,
    /// The thread that watches the time waits for this.
    time: Condvar,
    /// For what waits for the end of the log, or of a snapshot.
    end: Condvar,
    clock: Clock,
    timeout: Duration,
    log: ChangeLog,
    handles: OnceLock<Weak<Handles<H>>>,
    append_here: OnceLock<AppendHere>,
    pub(super) appends: Tally,
    pub(super) syncs: Tally,
}

struct Queue<H> {
    appender: Appender<Waiting>,
    owner: Option<Arc<H>>,
    /// Whether something was proposed or closed, or has failed, since the thread that appends
    /// looked.
    has_news: bool,
    /// Whether the thread that appends, or the one that watches, waits to be woken.
    is_idle: bool,
    is_unwatched: bool,
    /// Whether something was proposed since the thread that watches looked.
    was_busy: bool,
    is_closing: bool,
    /// Whether the thread that appends has ended.
    is_closed: bool,
    failure: Option<String>,
    /// The result of the end, until it is asked for.
    result: Option<JournalError>,
    thread: Option<ThreadId>,
    /// Another thread that appends now.
    other_thread: Option<ThreadId>,
    is_snapshotting: bool,
    has_no_snapshot: bool,
    bytes: u64,
    refused: u64,
}

/// The thread that appends.
impl<H: Send + Sync + 'static> Sleeper for Proposals<H> {
    fn kind(&self) -> Kind {
        Kind::Journal
    }

    fn wake(&self) {
        let is_idle = std::mem::take(&mut self.queue().is_idle);
        if is_idle {
            self.work.notify_one();
        }
    }

    fn work_here(&self) -> bool {
        let append = self.append_here.get();
        append.is_some_and(|append| append())
    }
}

impl<H> Proposals<H> {
    /// Returns an empty queue for a log. `writer` is a random number.
    pub(super) fn new(
        writer: u128,
        clock: Clock,
        timeout: Duration,
        log: ChangeLog,
    ) -> Proposals<H> {
        Proposals {
            queue: Mutex::new(Queue {
                appender: Appender::new(writer, as_ms(timeout)),
                owner: None,
                has_news: false,
                is_idle: false,
                is_unwatched: false,
                was_busy: false,
                is_closing: false,
                is_closed: false,
                failure: None,
                result: None,
                thread: None,
                other_thread: None,
                is_snapshotting: false,
                has_no_snapshot: false,
                bytes: 0,
                refused: 0,
            }),
            work: Condvar::new(),
            time: Condvar::new(),
            end: Condvar::new(),
            clock,
            timeout,
            log,
            handles: OnceLock::new(),
            append_here: OnceLock::new(),
            appends: Tally::default(),
            syncs: Tally::default(),
        }
    }

    /// Returns what the first handle of a program has.
    pub(super) fn first_handle(self: &Arc<Self>) -> Arc<Handles<H>> {
        let handles = Arc::new(Handles(self.clone()));
        let is_first = self.handles.set(Arc::downgrade(&handles)).is_ok();
        debug_assert!(is_first, "others are made from it");
        handles
    }

    /// Returns what a further handle has.
    pub(super) fn handles(&self) -> Option<Arc<Handles<H>>> {
        self.handles.get()?.upgrade()
    }

    fn queue(&self) -> MutexGuard<'_, Queue<H>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the state, except for what only the log knows.
    pub(super) fn status(&self) -> JournalStatus {
        let queue = self.queue();
        let (queued, queued_bytes) = queue.appender.queued();
        JournalStatus {
            is_writable: queue.failure.is_none() && !queue.is_closing,
            error: queue.failure.clone(),
            bytes: queue.bytes,
            queued,
            queued_bytes,
            refused: queue.refused,
            appends: self.appends.histogram(),
            syncs: self.syncs.histogram(),
        }
    }

    /// Accepts no proposal any more, and returns when those that wait have their outcomes
    /// and the log is closed. On the thread that appends it returns at once.
    ///
    /// # Errors
    /// When the log could not be written or closed. It is reported once.
    pub(super) fn close(&self) -> Result<(), JournalError> {
        let mut queue = self.queue();
        (queue.is_closing, queue.has_news) = (true, true);
        self.work.notify_one();
        self.end.notify_all();
        let current = Some(thread::current().id());
        let is_own = [queue.thread, queue.other_thread].contains(&current);
        if !is_own && queue.thread.is_some() {
            while !queue.is_closed {
                queue = self.end.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
        queue.result.take().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
impl<H> Proposals<H> {
    /// Returns whether the thread that appends waits for news.
    pub(super) fn is_idle(&self) -> bool {
        self.queue().is_idle
    }
}

/// For the threads that propose.
impl<H: Send + Sync + 'static> Proposals<H> {
    /// Queues a record.
    ///
    /// # Errors
    /// When it is not accepted. The outcome is then still to be reported.
    pub(super) fn propose(
        self: &Arc<Self>,
        owner: &Arc<H>,
        record: Record,
        waiting: Waiting,
    ) -> Result<(), (PublishError, Waiting)> {
        let bytes = record.bytes();
        if bytes > RECORD_BYTES_MAX {
            let max = RECORD_BYTES_MAX;
            return Err((PublishError::TooLarge { bytes, max }, waiting));
        }
        let now_ms = self.clock.now_ms();
        let (log, retry_after) = (self.log, RETRY_AFTER);
        let mut queue = self.queue();
        if queue.is_closing || queue.failure.is_some() {
            queue.refused += 1;
            return Err((PublishError::Unavailable { log, retry_after }, waiting));
        }
        if let Err(Busy(waiting)) = queue.appender.propose(record, waiting, now_ms) {
            queue.refused += 1;
            return Err((PublishError::Busy { log, retry_after }, waiting));
        }
        queue.owner.get_or_insert_with(|| owner.clone());
        let (is_idle, is_unwatched) = (queue.is_idle, queue.is_unwatched);
        (queue.is_unwatched, queue.was_busy, queue.has_news) = (false, true, true);
        drop(queue);
        if is_idle {
            held_wakes::wake(self);
        }
        if is_unwatched {
            self.time.notify_one();
        }
        Ok(())
    }
}

/// For the thread that appends.
impl<H> Proposals<H> {
    /// Notes that the current thread appends, until what is returned is dropped.
    pub(super) fn enter(&self, bytes: u64) -> Appending<'_, H> {
        let mut queue = self.queue();
        queue.thread = Some(thread::current().id());
        queue.bytes = bytes;
        Appending(self)
    }

    /// Has reactors append with this function at the ends of their turns.
    pub(super) fn append_with(&self, append: AppendHere) {
        let is_first = self.append_here.set(append).is_ok();
        debug_assert!(is_first, "one thread appends");
    }

    /// Returns the bytes that wait, if the current thread may append them. It is known to
    /// append until what is returned is dropped.
    pub(super) fn enter_here(&self) -> Option<(AppendingHere<'_, H>, usize)> {
        let mut queue = self.queue();
        let is_open = queue.failure.is_none() && !queue.is_closing;
        let (records, bytes) = queue.appender.queued();
        if !is_open || records == 0 || queue.is_snapshotting {
            return None;
        }
        queue.other_thread = Some(thread::current().id());
        Some((AppendingHere(self), bytes))
    }

    /// Returns whether nothing waits.
    pub(super) fn is_done(&self) -> bool {
        let queue = self.queue();
        !queue.has_news && queue.appender.queued().0 == 0
    }

    /// Returns the next block with the owner, or for what to wait.
    pub(super) fn next_block(&self) -> Next<H> {
        let mut queue = self.queue();
        loop {
            queue.has_news = false;
            if queue.failure.is_some() {
                return Next::End;
            }
            let block = match queue.appender.next(self.clock.now_ms()) {
                Do::Seal(unsealed) => {
                    // Other threads propose meanwhile.
                    drop(queue);
                    let sealed = unsealed.seal();
                    queue = self.queue();
                    Ok(queue.appender.sealed(sealed))
                }
                Do::Append(block) => Ok(block),
                Do::Idle { until_ms } => Err(until_ms),
            };
            let until_ms = match block {
                Ok(block) => {
                    let owner = queue.owner.clone();
                    return Next::Append(block, owner.expect("it was proposed by its owner"));
                }
                Err(until_ms) => until_ms,
            };
            if queue.appender.queued().0 > 0 {
                return Next::Idle { until_ms };
            }
            let Some(owner) = queue.owner.take() else {
                return match queue.is_closing {
                    true => Next::End,
                    false => Next::Idle { until_ms },
                };
            };
            // The end of the owner closes the queue.
            drop(queue);
            drop(owner);
            queue = self.queue();
        }
    }

    /// Waits until there is something new for [`next_block`](Self::next_block), until this
    /// time at most.
    pub(super) fn wait_for_news(&self, until_ms: Option<u64>) {
        let mut queue = self.queue();
        while !queue.has_news {
            let now_ms = self.clock.now_ms();
            if until_ms.is_some_and(|until_ms| until_ms <= now_ms) {
                break;
            }
            queue.is_idle = true;
            queue = match until_ms {
                None => self
                    .work
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(until_ms) => {
                    let time = Duration::from_millis(until_ms - now_ms);
                    let waited = self.work.wait_timeout(queue, time);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            queue.is_idle = false;
        }
    }

    /// Waits until this time, or until the thread that appends has ended.
    pub(super) fn wait_until(&self, until_ms: u64) {
        let mut queue = self.queue();
        while !queue.is_closed {
            let now_ms = self.clock.now_ms();
            if until_ms <= now_ms {
                break;
            }
            let time = Duration::from_millis(until_ms - now_ms);
            let waited = self.end.wait_timeout(queue, time);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Notes that a block is in the log. Returns its records, to be applied in order.
    pub(super) fn appended(&self, n: u64, bytes: u64) -> Vec<(Record, Option<Waiting>)> {
        let mut queue = self.queue();
        queue.bytes = bytes;
        queue.appender.appended(n)
    }

    /// Notes that the log has accepted a block. It comes back from there until this time, or is
    /// appended again.
    pub(super) fn accepted(&self, n: u64, until_ms: u64) {
        self.queue().appender.accepted(n, until_ms);
    }

    /// Notes that a block has come back from the log. Returns its records, in order, with what
    /// waits for their outcomes.
    pub(super) fn came_back(&self, n: u64) -> Vec<(Record, Option<Waiting>)> {
        let mut queue = self.queue();
        let records = queue.appender.appended(n);
        queue.has_news = true;
        let is_idle = std::mem::replace(&mut queue.is_idle, false);
        drop(queue);
        if is_idle {
            self.work.notify_one();
        }
        records
    }

    /// Returns the number of the next block that is not sealed yet.
    pub(super) fn next_n(&self) -> u64 {
        self.queue().appender.next_n()
    }

    /// Returns whether the queue is closing, and nothing waits for an outcome.
    pub(super) fn is_abandoned(&self) -> bool {
        let queue = self.queue();
        queue.is_closing && !queue.appender.has_unanswered()
    }

    /// Returns whether the thread that appends has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.queue().is_closed
    }

    /// Has a block appended again a little later.
    pub(super) fn put_off(&self, n: u64) {
        let now_ms = self.clock.now_ms();
        self.queue().appender.failed(n, now_ms);
    }

    /// Gives up a block that is not in the log.
    pub(super) fn refuse(&self, n: u64) {
        let mut queue = self.queue();
        let refused = queue.appender.withdraw(n);
        queue.refused += refused.len() as u64;
        drop(queue);
        tell_all(
            self.log,
            refused
                .into_iter()
                .map(|waiting| (waiting, Refused::Unsent)),
        );
    }

    /// Refuses what waits, after a failure.
    pub(super) fn give_up(&self) {
        let mut queue = self.queue();
        let refused = queue.appender.give_up();
        queue.refused += refused.len() as u64;
        let owner = queue.owner.take();
        drop(queue);
        tell_all(self.log, refused);
        drop(owner);
    }

    /// Waits until the queue is closed. After a failure, the log stays locked meanwhile.
    pub(super) fn wait_until_closing(&self) {
        let mut queue = self.queue();
        while !queue.is_closing {
            queue = self
                .work
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes how closing the log has ended.
    pub(super) fn closed(&self, closed: Result<(), JournalError>) {
        if let Err(error) = closed {
            ::log::error!("the journal could not be closed: {error}");
            self.queue().result.get_or_insert(error);
        }
    }

    /// Notes that a snapshot begins.
    pub(super) fn begin_snapshot(&self) {
        self.queue().is_snapshotting = true;
    }

    pub(super) fn end_snapshot(&self, has_failed: bool) {
        let mut queue = self.queue();
        queue.is_snapshotting = false;
        queue.has_no_snapshot = has_failed;
        drop(queue);
        self.end.notify_all();
    }

    /// Returns when no snapshot is being made.
    pub(super) fn wait_for_snapshot(&self) {
        let is_made = |queue: &mut Queue<H>| queue.is_snapshotting;
        let waited = self.end.wait_while(self.queue(), is_made);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Returns whether the last snapshot has failed.
    pub(super) fn has_no_snapshot(&self) -> bool {
        self.queue().has_no_snapshot
    }

    pub(super) fn is_snapshotting(&self) -> bool {
        self.queue().is_snapshotting
    }

    pub(super) fn has_failed(&self) -> bool {
        self.queue().failure.is_some()
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// The thread that appends. Its end is the end of the queue, also if it panics.
pub(super) struct Appending<'a, H>(&'a Proposals<H>);

impl<H> Drop for Appending<'_, H> {
    fn drop(&mut self) {
        if thread::panicking() {
            let why = "the thread that writes it has panicked".to_owned();
            self.0.fail(JournalError::Failed { why });
        }
        let mut queue = self.0.queue();
        let refused = queue.appender.give_up();
        queue.is_closing = true;
        queue.is_closed = true;
        let owner = queue.owner.take();
        drop(queue);
        self.0.end.notify_all();
        self.0.time.notify_all();
        tell_all(self.0.log, refused);
        drop(owner);
    }
}

/// A reactor that appends.
pub(super) struct AppendingHere<'a, H>(&'a Proposals<H>);

impl<H> Drop for AppendingHere<'_, H> {
    fn drop(&mut self) {
        self.0.queue().other_thread = None;
        if thread::panicking() {
            let why = "a thread that writes it has panicked".to_owned();
            self.0.fail(JournalError::Failed { why });
        }
    }
}

/// For the threads beside it.
impl<H> Proposals<H> {
    /// Accepts nothing any more: the log cannot be written. The thread that appends refuses
    /// what waits: it calls the program's code, which may wait for the other threads.
    pub(super) fn fail(&self, error: JournalError) {
        let mut queue = self.queue();
        if queue.failure.is_none() {
            ::log::error!(
                "the journal cannot be written: {error}. Nothing is published until a restart"
            );
            queue.failure = Some(error.to_string());
            queue.result = Some(error);
        }
        queue.has_news = true;
        drop(queue);
        self.work.notify_one();
    }

    /// Refuses what has waited for too long. Returns whether there was something.
    pub(super) fn expire(&self) -> bool {
        let mut queue = self.queue();
        let expired = queue.appender.expire(self.clock.now_ms());
        queue.refused += expired.len() as u64;
        drop(queue);
        let are_some = !expired.is_empty();
        tell_all(self.log, expired);
        are_some
    }

    /// Refuses what has waited for too long, and wakes the thread that appends if what was
    /// proposed has not.
    pub(super) fn look(&self) {
        while self.expire() {}
        let queue = self.queue();
        if queue.is_idle && queue.has_news {
            self.work.notify_one();
        }
    }

    /// Refuses what has waited for too long, until the end.
    pub(super) fn watch_the_time(&self) {
        let tick = (self.timeout / 4).max(Duration::from_millis(1));
        loop {
            while self.expire() {}
            let mut queue = self.queue();
            if queue.is_closed {
                return;
            }
            let was_busy = std::mem::take(&mut queue.was_busy);
            if queue.appender.queued().0 == 0 && !was_busy {
                queue.is_unwatched = true;
                let waited = self.time.wait(queue);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            } else {
                let waited = self.time.wait_timeout(queue, tick);
                let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
                if queue.is_idle && queue.has_news {
                    // The thread that has proposed it holds the wake-up, and waits itself.
                    self.work.notify_one();
                }
            }
        }
    }
}

fn tell_all(log: ChangeLog, refused: impl IntoIterator<Item = (Waiting, Refused)>) {
    let mut unheard = 0;
    for (waiting, why) in refused {
        unheard += usize::from(waiting.then.is_none());
        waiting.report(Err(match why {
            Refused::Unsent => PublishError::Unavailable {
                log,
                retry_after: RETRY_AFTER,
            },
            Refused::Unconfirmed => PublishError::Unconfirmed,
        }));
    }
    if unheard > 0 {
        let log = log.name();
        ::log::warn!("{unheard} changes that waited for the {log} are not in its log");
    }
}
