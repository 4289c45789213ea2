//! What of a log is on the disk: shared by the thread that writes and the one that syncs.
//!
//! A sync is made with nothing locked, so it does not hold up a write. The invariant to
//! remember: *after a write or a sync has failed, neither is tried again*. The system may
//! have dropped what it could not write, and a second sync would report success.

use std::fmt::Display;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::disk::{Disk, DiskFile};
use super::error::JournalError;

/// The log's files, and how far they are written and synced.
pub(super) struct Shared<D: Disk> {
    pub(super) disk: Arc<D>,
    /// One sync is made at a time: the next one may not end before it.
    one_sync: Mutex<()>,
    progress: Mutex<Progress<D>>,
}

pub(super) struct Progress<D: Disk> {
    /// The segments, from the oldest. The last one is written.
    pub(super) segments: Vec<Kept>,
    /// The size of the newest snapshot, and of the one that is being written, in bytes.
    pub(super) snapshot_bytes: u64,
    pub(super) incomplete_bytes: u64,
    /// Files that may have something that was not synced. The last one is written.
    pub(super) unsynced: Vec<Arc<D::File>>,
    /// Whether names have changed since the directory was synced.
    pub(super) has_new_names: bool,
    /// The newest number that was written, and the newest one that was synced with all
    /// before it.
    pub(super) written: u64,
    pub(super) synced: u64,
    /// The error after which nothing is written.
    failed: Option<String>,
}

/// A segment.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) first: u64,
    pub(super) bytes: u64,
}

impl<D: Disk> Progress<D> {
    /// Begins with a file that is written, all of which is synced.
    pub(super) fn new(segments: Vec<Kept>, file: Arc<D::File>, snapshot_bytes: u64) -> Progress<D> {
        let first = segments.last().map_or(1, |written| written.first);
        Progress {
            segments,
            snapshot_bytes,
            incomplete_bytes: 0,
            unsynced: vec![file],
            has_new_names: false,
            written: first - 1,
            synced: first - 1,
            failed: None,
        }
    }

    /// Returns the size of all files, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.segment_bytes() + self.snapshot_bytes + self.incomplete_bytes
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Returns the error after which nothing is written, if there was one.
    pub(super) fn check(&self) -> Result<(), JournalError> {
        match &self.failed {
            None => Ok(()),
            Some(why) => Err(JournalError::Failed { why: why.clone() }),
        }
    }
}

impl<D: Disk> Shared<D> {
    pub(super) fn new(disk: Arc<D>, progress: Progress<D>) -> Shared<D> {
        Shared {
            disk,
            one_sync: Mutex::default(),
            progress: Mutex::new(progress),
        }
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress<D>> {
        // A thread that panics leaves each number as it was or as it should be.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an error after which nothing is written.
    pub(super) fn fail(&self, error: &dyn Display) {
        self.progress()
            .failed
            .get_or_insert_with(|| error.to_string());
    }

    /// Returns whether a sync is being made.
    pub(super) fn is_syncing(&self) -> bool {
        self.one_sync.try_lock().is_err()
    }

    /// Returns when all that was written before is on the disk.
    pub(super) fn sync(&self) -> Result<(), JournalError> {
        let _one = self.one_sync.lock().unwrap_or_else(PoisonError::into_inner);
        let (files, has_new_names, written) = {
            let mut progress = self.progress();
            progress.check()?;
            if progress.synced == progress.written && !progress.has_new_names {
                return Ok(());
            }
            let has_new_names = std::mem::take(&mut progress.has_new_names);
            (progress.unsynced.clone(), has_new_names, progress.written)
        };
        let sync = || -> io::Result<()> {
            files.iter().try_for_each(|file| file.sync())?;
            if has_new_names {
                self.disk.sync()?;
            }
            Ok(())
        };
        sync().map_err(|error| {
            let error = JournalError::io("sync", self.disk.path(""))(error);
            self.fail(&error);
            error
        })?;
        let mut progress = self.progress();
        progress.synced = progress.synced.max(written);
        // All but the one that was the last is not written again.
        progress.unsynced.drain(..files.len() - 1);
        Ok(())
    }
}

/// Syncs a log beside the thread that writes it.
pub(crate) struct Syncer<D: Disk>(pub(super) Arc<Shared<D>>);

impl<D: Disk> Syncer<D> {
    /// Returns when all that was appended before survives the end of the machine.
    ///
    /// # Errors
    /// When a write or a sync has failed. This is final.
    pub(crate) fn sync(&self) -> Result<(), JournalError> {
        self.0.sync()
    }

    /// Returns the size of all files, in bytes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        self.0.progress().bytes()
    }
}

/// A thread that syncs a log again and again. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct SyncThread {
    /// Its end ends the thread.
    running: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SyncThread {
    /// Calls `sync` on a thread, each time `every` has passed since the last call, until it
    /// returns an error.
    ///
    /// # Errors
    /// When the system makes no thread.
    pub(crate) fn start(
        every: Duration,
        mut sync: impl FnMut() -> Result<(), ()> + Send + 'static,
    ) -> io::Result<SyncThread> {
        // No time at all would be a loop.
        let every = every.max(Duration::from_millis(1));
        let (running, ended) = mpsc::channel();
        let work = move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) && sync().is_ok() {}
        };
        let thread = thread::Builder::new().name("pushwheel-journal-sync".into());
        Ok(SyncThread {
            running: Some(running),
            thread: Some(thread.spawn(work)?),
        })
    }
}

impl Drop for SyncThread {
    fn drop(&mut self) {
        drop(self.running.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_thread_syncs_again_and_again_until_it_is_dropped() {
        let (called, calls) = mpsc::channel();
        let thread = SyncThread::start(Duration::from_millis(1), move || {
            called.send(()).map_err(drop)
        });
        for _ in 0..3 {
            calls.recv_timeout(Duration::from_secs(60)).unwrap();
        }
        drop(thread.unwrap());
        while calls.try_recv().is_ok() {}
        assert_eq!(calls.recv(), Err(mpsc::RecvError));
    }
}
