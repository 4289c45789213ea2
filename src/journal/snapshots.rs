//! Snapshots: what all blocks up to a number have made, so that they can be deleted.
//!
//! ```text
//! snapshot := magic, 16 · version, 4 · at, 8 · content · length of the content, 8 · CRC-32, 4
//! ```
//!
//! A snapshot is written beside the log under another name, synced, and renamed: a file with
//! the name of a snapshot is complete. It may contain more than the blocks up to `at`, but
//! only what is in the log.

use std::io::{self, BufReader, Read, Take, Write};
use std::sync::Arc;

use super::bytes::{Damaged, Input, ensure};
use super::disk::{Disk, DiskFile, ReadFrom};
use super::error::JournalError;
use super::segment::NUMBER_MAX;
use super::syncing::Shared;

const MAGIC: &[u8; 16] = b"pushwheel snap\x1a\n";

/// The format of the file around the content that is written and read.
const VERSION: u32 = 1;

const HEAD_BYTES: usize = 16 + 4 + 8;
const TAIL_BYTES: usize = 8 + SUM_BYTES;
const SUM_BYTES: usize = 4;

const PREFIX: &str = "snapshot-";

/// What the names of files end with that are not complete.
pub(super) const INCOMPLETE: &str = ".tmp";

/// Bytes that are written at once, or read.
const CHUNK_BYTES: usize = 256 * 1024;

/// Bytes after which a snapshot is synced. So it goes on at the pace of the disk, and what
/// the log writes and syncs meanwhile does not wait for all of it.
const SYNC_BYTES: u64 = 4 << 20;

pub(crate) fn snapshot_name(at: u64) -> String {
    format!("{PREFIX}{at:020}")
}

/// Returns the number that a snapshot of this name stands at.
pub(super) fn at_of(name: &str) -> Option<u64> {
    let at = name.strip_prefix(PREFIX)?.parse().ok()?;
    (snapshot_name(at) == name && at < NUMBER_MAX).then_some(at)
}

/// A snapshot that is being written. Its file is complete when it is finished.
#[derive(Debug)]
pub(super) struct Writer<F> {
    file: F,
    /// What is in the file.
    written: u64,
    /// How much of it is on the disk.
    synced: u64,
    pending: Vec<u8>,
    sum: crc32fast::Hasher,
}

impl<F: DiskFile> Writer<F> {
    pub(super) fn new(file: F, at: u64) -> Writer<F> {
        let mut pending = MAGIC.to_vec();
        pending.extend_from_slice(&VERSION.to_le_bytes());
        pending.extend_from_slice(&at.to_le_bytes());
        Writer {
            file,
            written: 0,
            synced: 0,
            pending,
            sum: crc32fast::Hasher::new(),
        }
    }

    /// Writes the end and syncs the file. Returns its size, in bytes.
    pub(super) fn finish(&mut self) -> io::Result<u64> {
        let content = self.written + self.pending.len() as u64 - HEAD_BYTES as u64;
        self.write_all(&content.to_le_bytes())?;
        self.sum.update(&self.pending);
        let sum = self.sum.clone().finalize();
        self.pending.extend_from_slice(&sum.to_le_bytes());
        self.file.write_all_at(self.written, &self.pending)?;
        self.file.sync()?;
        Ok(self.written + self.pending.len() as u64)
    }
}

impl<F: DiskFile> Write for Writer<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(self.written, &self.pending)?;
        self.sum.update(&self.pending);
        self.written += self.pending.len() as u64;
        self.pending.clear();
        if self.written - self.synced >= SYNC_BYTES {
            self.file.sync()?;
            self.synced = self.written;
        }
        Ok(())
    }
}

/// A snapshot that is being written, besides appends. If it is dropped before it is
/// complete, its file is removed.
pub(crate) struct SnapshotWriter<D: Disk> {
    at: u64,
    /// `None` when it is complete.
    writer: Option<Writer<D::File>>,
    shared: Arc<Shared<D>>,
}

impl<D: Disk> SnapshotWriter<D> {
    /// Begins a snapshot of all blocks up to `at`.
    ///
    /// # Errors
    /// When its file cannot be made.
    pub(super) fn begin(shared: Arc<Shared<D>>, at: u64) -> Result<Self, JournalError> {
        let name = incomplete_name(at);
        let file = shared.disk.create(&name);
        let file = file.map_err(JournalError::io("create", shared.disk.path(&name)))?;
        let writer = Some(Writer::new(file, at));
        Ok(SnapshotWriter { at, writer, shared })
    }

    /// Returns the number that all blocks up to are in it.
    #[cfg(test)]
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Ends the snapshot, and deletes what it makes unnecessary.
    ///
    /// # Errors
    /// When a file cannot be written, renamed or deleted. The log goes on.
    pub(crate) fn commit(mut self) -> Result<(), JournalError> {
        let shared = self.shared.clone();
        let disk = &shared.disk;
        let name = snapshot_name(self.at);
        let io = |doing| JournalError::io(doing, disk.path(&name));
        let writer = self.writer.as_mut().expect("it is not complete");
        let bytes = writer.finish().map_err(io("write"))?;
        // Then it has nothing that the log could lose.
        shared.sync()?;
        disk.rename(&incomplete_name(self.at), &name)
            .map_err(io("rename"))?;
        self.writer = None;
        let mut progress = shared.progress();
        progress.incomplete_bytes = 0;
        progress.snapshot_bytes = bytes;
        drop(progress);
        disk.sync().map_err(io("rename"))?;
        let older: Vec<String> = {
            let mut progress = shared.progress();
            let firsts = progress.segments.iter().skip(1).map(|next| next.first);
            let older = firsts.take_while(|first| *first <= self.at + 1).count();
            progress
                .segments
                .drain(..older)
                .map(|segment| segment.name)
                .collect()
        };
        let names = disk.names().map_err(io("read"))?;
        let snapshots = names
            .into_iter()
            .filter(|n| at_of(n).is_some_and(|at| at < self.at));
        for name in snapshots.chain(older) {
            disk.remove(&name)
                .map_err(JournalError::io("remove", disk.path(&name)))?;
        }
        Ok(())
    }
}

impl<D: Disk> Drop for SnapshotWriter<D> {
    fn drop(&mut self) {
        if self.writer.is_some() {
            self.shared.progress().incomplete_bytes = 0;
            // If this fails, the next start removes it.
            let _ = self.shared.disk.remove(&incomplete_name(self.at));
        }
    }
}

impl<D: Disk> Write for SnapshotWriter<D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let writer = self.writer.as_mut().expect("it is not complete");
        let written = writer.write(bytes)?;
        if writer.pending.is_empty() {
            self.shared.progress().incomplete_bytes = writer.written;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let writer = self.writer.as_mut().expect("it is not complete");
        writer.flush()?;
        self.shared.progress().incomplete_bytes = writer.written;
        Ok(())
    }
}

fn incomplete_name(at: u64) -> String {
    format!("{}{INCOMPLETE}", snapshot_name(at))
}

/// A snapshot that is whole.
pub(crate) struct Snapshot<F> {
    /// It contains all blocks up to this number.
    pub(crate) at: u64,
    /// The size of its file.
    pub(super) bytes: u64,
    content: Take<BufReader<ReadFrom<Arc<F>>>>,
}

impl<F: DiskFile> Snapshot<F> {
    /// Opens a snapshot, and reads it once to see that it is whole.
    pub(super) fn open<D: Disk<File = F>>(disk: &D, at: u64) -> Result<Snapshot<F>, JournalError> {
        let name = snapshot_name(at);
        let path = disk.path(&name);
        let io = |error| JournalError::io("read", path.clone())(error);
        let file = disk.open(&name).map_err(io)?;
        let bytes = file.len().map_err(io)?;
        match check(&file, bytes, at).map_err(io)? {
            Ok(None) => {}
            Ok(Some(found)) => return Err(JournalError::newer(&path, found, VERSION)),
            Err(Damaged(what)) => return Err(JournalError::damaged(&path, 0, what)),
        }
        let at_content = HEAD_BYTES as u64;
        let file = Arc::new(file);
        let reader = ReadFrom {
            file,
            at: at_content,
        };
        let content = BufReader::with_capacity(CHUNK_BYTES, reader);
        let content = content.take(bytes - at_content - TAIL_BYTES as u64);
        Ok(Snapshot { at, bytes, content })
    }
}

/// Returns the version if it is a newer one.
fn check(
    file: &impl DiskFile,
    bytes: u64,
    expected_at: u64,
) -> io::Result<Result<Option<u32>, Damaged>> {
    let Some(content) = bytes.checked_sub((HEAD_BYTES + TAIL_BYTES) as u64) else {
        return Ok(Err(Damaged("it is incomplete")));
    };
    let mut reader = ReadFrom { file, at: 0 };
    let mut head = [0; HEAD_BYTES];
    reader.read_exact(&mut head)?;
    match head_of(&head, expected_at) {
        Ok(VERSION) => {}
        Ok(newer) => return Ok(Ok(Some(newer))),
        Err(damaged) => return Ok(Err(damaged)),
    }
    let mut sum = crc32fast::Hasher::new();
    sum.update(&head);
    let mut summed = reader.take(content + (TAIL_BYTES - SUM_BYTES) as u64);
    let mut some = vec![0; CHUNK_BYTES];
    loop {
        match summed.read(&mut some)? {
            0 => break,
            read => sum.update(&some[..read]),
        }
    }
    let mut found = [0; SUM_BYTES];
    summed.into_inner().read_exact(&mut found)?;
    // The sum covers the length, which so cannot differ.
    Ok(ensure(
        found == sum.finalize().to_le_bytes(),
        "the checksum does not match",
    )
    .map(|()| None))
}

/// Returns the version.
fn head_of(head: &[u8], expected_at: u64) -> Result<u32, Damaged> {
    let mut input = Input(head);
    ensure(
        input.array()? == *MAGIC,
        "it is not a snapshot of pushwheel",
    )?;
    let version = u32::from_le_bytes(input.array()?);
    if version > VERSION {
        return Ok(version);
    }
    ensure(version == VERSION, "no release has written this version")?;
    let at = u64::from_le_bytes(input.array()?);
    ensure(at == expected_at, "it is of another place in the log")?;
    Ok(version)
}

impl<F: DiskFile> Read for Snapshot<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.content.read(into)
    }
}
