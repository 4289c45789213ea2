//! [`SteppedJournal`]: a journal without threads, for the simulator. Its owner takes the
//! steps of the thread that appends, syncs, lets time run out, and writes snapshots a piece
//! at a time.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::{Appender, Snapshot, Step, Sync};
use crate::hub::Hub;
use crate::hub::Randomness;
use crate::hub::clock::Clock;
use crate::hub::journal::JournalOptions;
use crate::hub::manager::{ChannelManager, ChannelManagerBuilder};
use crate::hub::proposals::Proposals;
use crate::journal::block::Block;
use crate::journal::error::JournalError;
use crate::journal::log::{BlockLog, SnapshotFile};
use crate::journal::simulated_disk::SimulatedDisk;
use crate::journal::store::{Opening, StoreOptions};

/// A block and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedBlock {
    /// Its first number; `None` if it was not appended.
    pub first: Option<u64>,
    /// The numbers that each of its records takes.
    pub widths: Vec<u64>,
}

/// A journal whose steps its owner takes.
#[allow(missing_debug_implementations, reason = "for the simulator alone")]
pub struct SteppedJournal {
    proposals: Arc<Proposals<Hub>>,
    appender: Option<Appender>,
    sync: Sync,
    /// The last block that was to be appended.
    last: Arc<Mutex<Option<LoggedBlock>>>,
    /// Snapshots that are to be written.
    begun: Arc<Mutex<VecDeque<Snapshot>>>,
    writing: Option<Writing>,
    has_given_up: bool,
    /// The number of the record that says that events may be lost, if this start has made
    /// one, and the newest number before it.
    pub lost: Option<(u64, u64)>,
}

impl ChannelManagerBuilder {
    /// Makes the manager with the channels that the journal on a simulated disk has. `clock`
    /// is one with a wall clock.
    ///
    /// # Errors
    /// As [`open_journal`](Self::open_journal).
    pub fn open_journal_stepped(
        self,
        disk: &SimulatedDisk,
        options: &JournalOptions,
        clock: &Clock,
        seed: u64,
    ) -> Result<(ChannelManager, SteppedJournal), JournalError> {
        let randomness = Randomness::Seeded(Mutex::new(seed));
        let opened = self.open_log(disk.clone(), options, clock, randomness)?;
        let (proposals, syncer) = (opened.proposals, opened.store.syncer());
        let last = Arc::default();
        let begun: Arc<Mutex<VecDeque<Snapshot>>> = Arc::default();
        let log = Watched {
            log: Box::new(opened.store),
            last: Arc::clone(&last),
        };
        let spawn = {
            let begun = begun.clone();
            Box::new(move |snapshot| {
                let begun = begun.lock();
                let mut begun = begun.unwrap_or_else(PoisonError::into_inner);
                begun.push_back(snapshot);
                Ok(())
            })
        };
        let take = Hub::write_snapshot;
        let appender = Appender::new(proposals.clone(), Box::new(log), take, spawn);
        let journal = SteppedJournal {
            proposals,
            appender: Some(appender),
            sync: Box::new(move || syncer.sync()),
            last,
            begun,
            writing: None,
            has_given_up: false,
            lost: opened.lost,
        };
        Ok((opened.manager, journal))
    }
}

impl SteppedJournal {
    /// Returns the blocks of a log, but for those that its snapshot has replaced.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn blocks(disk: &SimulatedDisk) -> Result<Vec<LoggedBlock>, JournalError> {
        let options = StoreOptions::new(Vec::new());
        let (_, recovery) = Opening::examine(disk.clone(), options)?;
        let mut blocks = recovery.blocks;
        let mut all = Vec::new();
        while let Some(stored) = blocks.next().transpose()? {
            // Ids are not looked at.
            let block = blocks.decode(&stored, "")?;
            all.push(LoggedBlock {
                first: Some(stored.first),
                widths: widths_of(&block),
            });
        }
        Ok(all)
    }

    /// Appends and applies the next block. Returns `None` when nothing is to be done.
    pub fn step(&mut self) -> Option<LoggedBlock> {
        self.last().take();
        let step = self.appender.as_mut()?.step();
        if step == Step::End && self.has_failed() && !self.has_given_up {
            self.has_given_up = true;
            self.proposals.give_up();
        }
        let last = self.last().take();
        last.filter(|_| step == Step::More)
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<LoggedBlock>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses what has waited for too long.
    pub fn expire(&self) {
        while self.proposals.expire() {}
    }

    /// Syncs what was written.
    pub fn sync(&self) {
        if let Err(error) = (self.sync)() {
            self.proposals.fail(error);
        }
    }

    /// Returns whether nothing is published any more.
    pub fn has_failed(&self) -> bool {
        self.proposals.has_failed()
    }

    /// Returns the number of records that wait.
    pub fn queued(&self) -> usize {
        self.proposals.status().queued
    }

    /// Writes the next piece of a snapshot. Returns whether there was one.
    pub fn write_snapshot(&mut self) -> bool {
        if self.writing.is_none() {
            let begun = self.begun.lock();
            let next = begun.unwrap_or_else(PoisonError::into_inner).pop_front();
            self.writing = next.map(Writing::begin);
        }
        let Some(writing) = &self.writing else {
            return false;
        };
        if !writing.write() {
            self.writing = None;
        }
        true
    }

    /// Closes the log, as at a clean end.
    pub fn close(mut self) {
        // What waits has its outcome first.
        let _ = self.proposals.close();
        while self.step().is_some() {}
        while self.write_snapshot() {}
        if let Some(appender) = self.appender.take()
            && !self.has_failed()
        {
            appender.close();
        }
    }
}

/// A snapshot on a thread of its own, which runs only while its owner waits for it.
struct Writing {
    go_on: SyncSender<()>,
    paused: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Writing {
    fn begin(mut snapshot: Snapshot) -> Writing {
        let (go_on, may_go_on) = mpsc::sync_channel(0);
        let (pause, paused) = mpsc::sync_channel(0);
        let run = move || {
            if may_go_on.recv().is_err() {
                return;
            }
            let file = snapshot.file;
            snapshot.file = Box::new(Paused {
                file,
                pause,
                may_go_on,
            });
            snapshot.run();
        };
        Writing {
            go_on,
            paused,
            thread: Some(thread::spawn(run)),
        }
    }

    /// Lets it go on until it writes the next piece. Returns false when it is over.
    fn write(&self) -> bool {
        self.go_on.send(()).is_ok() && self.paused.recv().is_ok()
    }
}

/// The end of a process in the middle of a snapshot: the next write fails.
impl Drop for Writing {
    fn drop(&mut self) {
        let (closed, _) = mpsc::sync_channel(0);
        self.go_on = closed;
        let (_, never) = mpsc::sync_channel(0);
        self.paused = never;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// The file of a snapshot, which waits before each write.
struct Paused {
    file: Box<dyn SnapshotFile>,
    pause: SyncSender<()>,
    may_go_on: Receiver<()>,
}

impl Write for Paused {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_there = self.pause.send(()).is_ok() && self.may_go_on.recv().is_ok();
        match is_there {
            true => self.file.write(bytes),
            false => Err(io::Error::other("the process has ended")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl SnapshotFile for Paused {
    fn commit(self: Box<Self>) -> Result<(), JournalError> {
        self.file.commit()
    }
}

/// A log that notes what is appended.
struct Watched {
    log: Box<dyn BlockLog>,
    last: Arc<Mutex<Option<LoggedBlock>>>,
}

impl BlockLog for Watched {
    fn append(&mut self, width: u64, wall_ms: u64, block: &[u8]) -> Result<u64, JournalError> {
        let appended = self.log.append(width, wall_ms, block);
        let read = Block::decode(block, "").expect("it was sealed by this process");
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(LoggedBlock {
            first: appended.as_ref().ok().copied(),
            widths: widths_of(&read),
        });
        appended
    }

    fn is_quick(&self, bytes: usize) -> bool {
        self.log.is_quick(bytes)
    }

    fn must_wait(&self, bytes: usize) -> bool {
        self.log.must_wait(bytes)
    }

    fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    fn needs_snapshot(&self) -> bool {
        self.log.needs_snapshot()
    }

    fn begin_snapshot(&mut self) -> Result<Box<dyn SnapshotFile>, JournalError> {
        self.log.begin_snapshot()
    }

    fn close(self: Box<Self>) -> Result<(), JournalError> {
        self.log.close()
    }
}

fn widths_of(block: &Block) -> Vec<u64> {
    let records = block.records.iter();
    records.map(|record| record.change.width()).collect()
}
