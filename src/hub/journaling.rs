//! Journaling: the threads that append to the log what is proposed, and apply it.
//!
//! One thread appends a block, applies it and passes the outcomes on. Another one syncs, and
//! one more makes a snapshot when it is time for one.
//!
//! A reactor has no time to wait for a disk. But a few records are a write of microseconds
//! into the memory of the system, and a thread that is woken for it costs more. So at the end
//! of its turn a reactor [appends itself](Appender::append_here), as long as the disk has no
//! sync and no snapshot to write, for which a write would wait, and writes have been quick.
//!
//! [`Appender`] is what the first of them does, a step at a time, and waits for nothing but
//! the log. So the simulator runs the same steps without threads.

#[cfg(feature = "internals")]
pub(crate) mod stepped;

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::Hub;
use super::applying::{BlockTime, Outcome};
use super::engine_thread::EngineThread;
use super::proposals::{Next, Proposals, Waiting};
use super::published::Published;
use super::saved::Saved;
use crate::journal::block::Sealed;
use crate::journal::error::JournalError;
use crate::journal::log::{BlockLog, SnapshotFile};
use crate::journal::syncing::SyncThread;

/// The time from a snapshot that has failed or made no room until the next one, in
/// milliseconds.
const SNAPSHOT_PAUSE_MS: u64 = 10_000;

/// The most bytes that a reactor appends itself.
const BYTES_HERE_MAX: usize = 64 << 10;

/// The duration of a write, in microseconds, after which no reactor writes for this many
/// times as long. So a disk that is busy holds up a reactor for a small part of the time.
const SLOW_US: u64 = 2_000;
const SLOW_PAUSES: u64 = 64;

/// Writes what a snapshot has.
pub(super) type TakeSnapshot = fn(&Hub, &mut dyn Write) -> io::Result<Saved>;

/// Syncs what was written.
pub(super) type Sync = Box<dyn Fn() -> Result<(), JournalError> + Send>;

/// Runs a snapshot beside the appends.
pub(super) type Spawn = Box<dyn Fn(Snapshot) -> io::Result<()> + Send>;

/// The log and what is done with it, for the thread that appends.
pub(super) struct Journaling {
    pub(super) log: Box<dyn BlockLog>,
    pub(super) take_snapshot: TakeSnapshot,
    /// Syncs beside appends, and the time between two syncs.
    pub(super) sync: Option<(Sync, Duration)>,
}

impl Journaling {
    /// Starts the threads. They end when the queue is closed.
    ///
    /// # Errors
    /// When the system has no thread.
    pub(super) fn start(self, proposals: &Arc<Proposals<Hub>>) -> io::Result<()> {
        let Journaling {
            log,
            take_snapshot,
            sync,
        } = self;
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = thread::Builder::new().name(name.to_owned());
            thread.spawn(run).map(drop)
        };
        let sync = match sync {
            Some((sync, every)) => Some(SyncThread::start(every, syncing(proposals, sync))?),
            None => None,
        };
        let on_a_thread = |snapshot: Snapshot| {
            let thread = thread::Builder::new().name("pushwheel-journal-snapshot".to_owned());
            thread.spawn(move || snapshot.run()).map(drop)
        };
        let bytes = log.bytes();
        let appender = Appender::new(proposals.clone(), log, take_snapshot, Box::new(on_a_thread));
        let appender = Arc::new(AppenderLock(Mutex::new(Some(appender))));
        let shared = appender.clone();
        proposals.append_with(Box::new(move || shared.append_here()));
        // From here on `close` waits for the thread that appends.
        let (begun, has_begun) = crossbeam_channel::bounded(1);
        let queue = proposals.clone();
        spawn(
            "pushwheel-journal",
            Box::new(move || appender.run(&queue, bytes, sync, &begun)),
        )?;
        let _ = has_begun.recv();
        let watched = proposals.clone();
        spawn(
            "pushwheel-journal-time",
            Box::new(move || {
                let _here = EngineThread::enter();
                watched.watch_the_time();
            }),
        )?;
        Ok(())
    }
}

/// Returns a function that syncs, and notes how that went.
fn syncing(
    proposals: &Arc<Proposals<Hub>>,
    sync: Sync,
) -> impl FnMut() -> Result<(), ()> + Send + 'static {
    let proposals = proposals.clone();
    move || {
        let began_us = proposals.clock().now_us();
        match sync() {
            Ok(()) => {
                let took_us = proposals.clock().now_us() - began_us;
                proposals.syncs.observe(took_us);
                Ok(())
            }
            Err(error) => {
                proposals.fail(error);
                Err(())
            }
        }
    }
}

/// What a step of the [`Appender`] leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Take another step.
    More,
    /// Wait for news, until this time at most.
    Idle { until_ms: Option<u64> },
    /// Nothing: the queue is closed and empty, or the log has failed.
    End,
}

/// The appender, for one thread at a time. `None` after its end.
struct AppenderLock(Mutex<Option<Appender>>);

impl AppenderLock {
    /// Takes steps until the end, and then closes the log.
    fn run(
        &self,
        proposals: &Proposals<Hub>,
        bytes: u64,
        sync: Option<SyncThread>,
        begun: &crossbeam_channel::Sender<()>,
    ) {
        let _here = EngineThread::enter();
        let _end = proposals.enter(bytes);
        let _ = begun.send(());
        let appender = loop {
            // What a thread that has panicked did not complete is not continued: the journal
            // has failed then.
            let mut lock = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let step = lock.as_mut().map_or(Step::End, Appender::step);
            match step {
                Step::More => {}
                Step::Idle { until_ms } => {
                    drop(lock);
                    proposals.wait_for_news(until_ms);
                }
                Step::End => break lock.take(),
            }
        };
        if proposals.has_failed() {
            proposals.give_up();
            proposals.wait_until_closing();
            drop((sync, appender));
        } else {
            drop(sync);
            if let Some(appender) = appender {
                appender.close();
            }
        }
        // Nothing has the log any more, so another one can open it.
        proposals.wait_for_snapshot();
    }

    /// Appends what waits on the thread of a reactor, if nothing has to be waited for. Returns
    /// whether nothing is left.
    fn append_here(&self) -> bool {
        match self.0.try_lock() {
            Ok(mut appender) => appender.as_mut().is_some_and(Appender::append_here),
            Err(_) => false,
        }
    }
}

/// Appends the blocks and applies them.
pub(super) struct Appender {
    proposals: Arc<Proposals<Hub>>,
    log: Box<dyn BlockLog>,
    take_snapshot: TakeSnapshot,
    spawn: Spawn,
    /// When the next snapshot may begin, if the last one has failed or made no room.
    no_snapshot_until_ms: u64,
    /// Whether a block was appended since the last snapshot began.
    has_appended: bool,
    /// Whether the last block found no room.
    is_full: bool,
    /// Until when the disk counts as busy, because a write has taken long.
    slow_until_ms: u64,
}

impl Appender {
    pub(super) fn new(
        proposals: Arc<Proposals<Hub>>,
        log: Box<dyn BlockLog>,
        take_snapshot: TakeSnapshot,
        spawn: Spawn,
    ) -> Appender {
        Appender {
            proposals,
            log,
            take_snapshot,
            spawn,
            no_snapshot_until_ms: 0,
            has_appended: false,
            is_full: false,
            slow_until_ms: 0,
        }
    }

    /// Appends and applies the next block, if there is one.
    pub(super) fn step(&mut self) -> Step {
        match self.proposals.next_block() {
            Next::Append(block, hub) => {
                self.append(&block, &hub);
                Step::More
            }
            Next::Idle { until_ms } => Step::Idle { until_ms },
            Next::End => Step::End,
        }
    }

    /// Takes a step, if what waits is a write that is likely to be quick. Returns whether
    /// nothing is left.
    fn append_here(&mut self) -> bool {
        let proposals = self.proposals.clone();
        let Some((here, bytes)) = proposals.enter_here() else {
            return false;
        };
        let is_fast = self.slow_until_ms <= proposals.clock().now_ms();
        if bytes > BYTES_HERE_MAX || !is_fast || !self.log.is_quick(bytes) {
            return false;
        }
        self.step();
        drop(here);
        proposals.is_done()
    }

    /// Closes the log, when nothing waits any more.
    pub(super) fn close(self) {
        self.proposals.closed(self.log.close());
    }

    fn append(&mut self, block: &Sealed, hub: &Arc<Hub>) {
        if self.log.must_wait(block.bytes.len()) {
            return self.proposals.put_off(block.n);
        }
        let clock = self.proposals.clock();
        let time = BlockTime {
            wall_ms: clock.wall_ms(),
            at_ms: clock.now_ms(),
        };
        let began_us = clock.now_us();
        let appended = self.log.append(block.width, time.wall_ms, &block.bytes);
        let took_us = clock.now_us() - began_us;
        if took_us > SLOW_US {
            self.slow_until_ms = clock.now_ms() + took_us * SLOW_PAUSES / 1_000;
        }
        match appended {
            Ok(first) => {
                (self.has_appended, self.is_full) = (true, false);
                self.proposals.appends.observe(took_us);
                let records = self.proposals.appended(block.n, self.log.bytes());
                hub.apply(first, time, records, |waiting, outcome| {
                    if let Some(waiting) = waiting {
                        report(waiting, outcome);
                    }
                });
                if self.log.needs_snapshot() {
                    self.try_snapshot(hub);
                }
            }
            Err(JournalError::Full { .. }) if self.try_snapshot(hub) => {
                self.proposals.put_off(block.n);
            }
            Err(JournalError::Full { max }) => {
                if !std::mem::replace(&mut self.is_full, true) {
                    ::log::warn!("the journal has its maximum of {max} bytes");
                }
                self.proposals.refuse(block.n);
            }
            Err(error) => self.proposals.fail(error),
        }
    }

    /// Begins a snapshot beside the appends, unless the last one was of no use a moment ago.
    /// Returns whether one is being made.
    fn try_snapshot(&mut self, hub: &Arc<Hub>) -> bool {
        let now_ms = self.proposals.clock().now_ms();
        if self.proposals.is_snapshotting() {
            return true;
        }
        let is_of_use = self.has_appended && !self.proposals.has_no_snapshot();
        if now_ms < self.no_snapshot_until_ms && !is_of_use {
            return false;
        }
        self.has_appended = false;
        self.no_snapshot_until_ms = now_ms.saturating_add(SNAPSHOT_PAUSE_MS);
        let begun = self.log.begin_snapshot().and_then(|file| {
            let snapshot = Snapshot {
                file,
                take: self.take_snapshot,
                hub: hub.clone(),
                proposals: self.proposals.clone(),
            };
            self.proposals.begin_snapshot();
            (self.spawn)(snapshot).map_err(|error| JournalError::Failed {
                why: format!("the system has no thread ({error})"),
            })
        });
        match begun {
            Ok(()) => true,
            Err(error) => {
                self.proposals.end_snapshot(true);
                ::log::warn!("the journal has no new snapshot: {error}");
                false
            }
        }
    }
}

/// A snapshot that is being made.
pub(super) struct Snapshot {
    file: Box<dyn SnapshotFile>,
    take: TakeSnapshot,
    hub: Arc<Hub>,
    proposals: Arc<Proposals<Hub>>,
}

impl Snapshot {
    /// Writes it, and commits it.
    pub(super) fn run(self) {
        let Snapshot {
            file,
            take,
            hub,
            proposals,
        } = self;
        let mut end = SnapshotEnd {
            proposals: &proposals,
            has_failed: true,
        };
        match Snapshot::write(file, take, &hub) {
            Ok(()) => end.has_failed = false,
            Err(error) => ::log::warn!("the journal has no new snapshot: {error}"),
        }
        // Before the hub, which may end here and then waits for the thread that waits for
        // this end.
        drop(end);
        drop(hub);
    }

    fn write(
        mut file: Box<dyn SnapshotFile>,
        take: TakeSnapshot,
        hub: &Hub,
    ) -> Result<(), JournalError> {
        take(hub, &mut file).map_err(|error| JournalError::Failed {
            why: error.to_string(),
        })?;
        file.commit()
    }
}

/// The end of a snapshot, also if its thread panics.
struct SnapshotEnd<'a> {
    proposals: &'a Proposals<Hub>,
    has_failed: bool,
}

impl Drop for SnapshotEnd<'_> {
    fn drop(&mut self) {
        self.proposals.end_snapshot(self.has_failed);
    }
}

/// Passes on what the log says of a proposal.
pub(super) fn report(waiting: Waiting, outcome: Outcome) {
    if let Err(error) = &outcome
        && waiting.then.is_none()
    {
        ::log::warn!("an event that waited for the journal was not published ({error})");
    }
    let published = outcome.map(|applied| Published {
        id: applied.id,
        events: applied.events,
        clients: applied.clients.unwrap_or(waiting.clients),
        duplicates: applied.duplicates,
        is_repeated: applied.is_repeated,
    });
    waiting.report(published);
}
