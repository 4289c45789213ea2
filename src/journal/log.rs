//! [`BlockLog`]: what keeps the blocks of a hub, as far as the hub asks for it. The files of
//! a journal are one.

use std::io::Write;

use super::disk::Disk;
use super::error::JournalError;
use super::snapshots::SnapshotWriter;
use super::store::Store;

/// A log to which blocks are appended. One thread has it.
pub(crate) trait BlockLog: Send {
    /// Appends a block that takes `width` numbers, and returns the first of them. The block
    /// is kept from then on, as far as the log promises it.
    ///
    /// # Errors
    /// [`Full`](JournalError::Full) until a snapshot has made room. Any other error is final.
    fn append(&mut self, width: u64, wall_ms: u64, block: &[u8]) -> Result<u64, JournalError>;

    /// Returns whether a block of this size is appended without waiting for a disk, as far
    /// as is known now.
    fn is_quick(&self, bytes: usize) -> bool;

    /// Returns whether a block of this size waits for the snapshot that is being written.
    fn must_wait(&self, bytes: usize) -> bool;

    /// Returns the size of all that is kept, in bytes.
    fn bytes(&self) -> u64;

    /// Returns whether it is time for a snapshot.
    fn needs_snapshot(&self) -> bool;

    /// Begins a snapshot of all blocks that were appended.
    ///
    /// # Errors
    /// When it cannot be written.
    fn begin_snapshot(&mut self) -> Result<Box<dyn SnapshotFile>, JournalError>;

    /// Closes the log: the next start knows that nothing is missing.
    ///
    /// # Errors
    /// When it cannot be written.
    fn close(self: Box<Self>) -> Result<(), JournalError>;
}

/// A snapshot that is being written, beside appends.
pub(crate) trait SnapshotFile: Write + Send {
    /// Ends the snapshot, which then replaces the blocks before it.
    ///
    /// # Errors
    /// When it cannot be written. The log goes on.
    fn commit(self: Box<Self>) -> Result<(), JournalError>;
}

impl<D: Disk> BlockLog for Store<D> {
    fn append(&mut self, width: u64, wall_ms: u64, block: &[u8]) -> Result<u64, JournalError> {
        Store::append(self, width, wall_ms, block)
    }

    fn is_quick(&self, bytes: usize) -> bool {
        Store::is_quick(self, bytes)
    }

    fn must_wait(&self, bytes: usize) -> bool {
        Store::must_wait(self, bytes)
    }

    fn bytes(&self) -> u64 {
        Store::bytes(self)
    }

    fn needs_snapshot(&self) -> bool {
        Store::needs_snapshot(self)
    }

    fn begin_snapshot(&mut self) -> Result<Box<dyn SnapshotFile>, JournalError> {
        Ok(Box::new(Store::begin_snapshot(self)?))
    }

    fn close(self: Box<Self>) -> Result<(), JournalError> {
        Store::close(*self)
    }
}

impl<D: Disk> SnapshotFile for SnapshotWriter<D> {
    fn commit(self: Box<Self>) -> Result<(), JournalError> {
        SnapshotWriter::commit(*self)
    }
}
