//! [`Store`]: blocks on the disk, in order, with numbers.
//!
//! A block is appended with one write. It survives the end of the process from then on, and
//! the end of the machine when it was synced: by each append, or by [`Syncer`] from another
//! thread. What is in a block is not known here.
//!
//! The invariant to remember: *no number is given twice*. A log that may have lost blocks,
//! because the machine has died before they were synced, goes on with numbers that are far
//! beyond.

use std::io::{self, Write};
use std::sync::Arc;

use super::blocks::Blocks;
use super::disk::{Disk, DiskFile};
use super::error::JournalError;
use super::examining::{Examined, Segment, Tear, is_segment, segment_name, segments_above};
use super::segment::{BLOCK_BYTES_MAX, Header, NUMBER_MAX, Salt, end_mark, frame_bytes, put_frame};
use super::snapshots::{self, INCOMPLETE, Snapshot, SnapshotWriter, at_of, snapshot_name};
use super::syncing::{Kept, Progress, Shared, Syncer};
use super::terms::{first_of_copy, first_of_term};

const SEGMENT_BYTES: u64 = 64 << 20;

/// Segments after which a snapshot is made, however small they are: each start begins one.
const SEGMENTS_MAX: usize = 128;

/// How far appends go while a snapshot is written: all files are at most as large as this
/// many snapshots and so many bytes. A snapshot begins with half of these bytes left.
const SNAPSHOTS_MAX: u64 = 3;
const BESIDE_SNAPSHOTS_BYTES: u64 = 2 * SEGMENT_BYTES;

const AHEAD_BYTES: usize = 1 << 20;

/// A frame of this size is written from memory that is kept.
const KEPT_BUFFER_BYTES: usize = 1 << 20;

/// How a store is opened.
#[derive(Clone, Debug)]
pub(crate) struct StoreOptions {
    /// What the ids of events are made from, at most 255 bytes. A log that exists keeps its
    /// own.
    pub(crate) identity: Vec<u8>,
    /// A random number, by which what this process writes is known.
    pub(crate) salt: Salt,
    /// Whether numbers may have been given that the log does not have: it is a copy.
    pub(crate) is_copy: bool,
    /// Whether each append is synced before it returns.
    pub(crate) syncs_always: bool,
    /// The maximum size of all files, in bytes.
    pub(crate) bytes_max: u64,
    /// The size of a segment, in bytes, after which the next one begins.
    pub(crate) segment_bytes: u64,
    /// Room that is written ahead if each append is synced, in bytes. A sync is faster if
    /// the file does not grow.
    pub(crate) ahead_bytes: usize,
}

impl StoreOptions {
    pub(crate) fn new(identity: Vec<u8>) -> StoreOptions {
        StoreOptions {
            identity,
            salt: uuid::Uuid::new_v4().into_bytes(),
            is_copy: false,
            syncs_always: false,
            bytes_max: 1 << 30,
            segment_bytes: SEGMENT_BYTES,
            ahead_bytes: AHEAD_BYTES,
        }
    }
}

/// A log that is written. One thread has it.
pub(crate) struct Store<D: Disk> {
    shared: Arc<Shared<D>>,
    options: StoreOptions,
    /// What the next segment begins with, but for its place.
    header: Header,
    /// The number that is given next.
    next: u64,
    file: Arc<D::File>,
    /// Where the next frame begins in the file.
    len: u64,
    /// Where the file ends: zeros are in between.
    allocated: u64,
    /// Whether the file has a frame.
    has_frames: bool,
    buffer: Vec<u8>,
}

/// What a log has when it is opened: first the snapshot, then the blocks.
pub(crate) struct Recovery<D: Disk> {
    /// What the ids of its events are made from.
    pub(crate) identity: Vec<u8>,
    pub(crate) snapshot: Option<Snapshot<D::File>>,
    pub(crate) blocks: Blocks<D>,
    /// The newest number that there is.
    pub(crate) newest: u64,
    /// Whether later numbers may have been given and shown. The first record that is
    /// appended says so.
    pub(crate) may_have_lost: bool,
    /// What was cut off.
    pub(crate) tear: Option<Tear>,
}

/// A log that was examined. Nothing is changed before it is begun.
pub(crate) struct Opening<D: Disk> {
    disk: Arc<D>,
    options: StoreOptions,
    /// What the segment to be written begins with.
    header: Header,
    segments: Vec<Kept>,
    /// From which segment on the disk may lack what is read: a sync may have failed.
    unsynced_from: usize,
    snapshot_bytes: u64,
    obsolete: Vec<String>,
    tear: Option<Tear>,
}

impl<D: Disk> Opening<D> {
    /// Reads the log, if there is one, and finds its end.
    ///
    /// # Errors
    /// When a file cannot be read, is damaged, or of a newer release.
    pub(crate) fn examine(
        disk: D,
        options: StoreOptions,
    ) -> Result<(Opening<D>, Recovery<D>), JournalError> {
        let boot = disk.boot();
        let Contents {
            snapshot,
            mut log,
            obsolete,
        } = Contents::read(&disk)?;
        let lacks_numbers = options.is_copy || log.may_lack_numbers(boot.as_deref());
        let may_have_lost = lacks_numbers || log.has_untold_loss();
        let [random, more, ..] = options.salt;
        let next = match lacks_numbers {
            _ if options.is_copy => first_of_copy(log.next - 1, u16::from_le_bytes([random, more])),
            true => first_of_term(log.next - 1),
            false => log.next,
        };
        if next > NUMBER_MAX / 2 {
            let what = "its numbers are at their end";
            return Err(JournalError::damaged(&disk.path(""), 0, what));
        }
        let identity = log.segments.last().map(|last| last.header.identity.clone());
        let identity = identity.unwrap_or_else(|| options.identity.clone());
        let disk = Arc::new(disk);
        let opening = Opening {
            disk: disk.clone(),
            header: Header {
                first: next,
                synced: log.next - 1,
                syncs_always: options.syncs_always,
                follows_loss: may_have_lost,
                salt: options.salt,
                identity: identity.clone(),
                boot: boot.unwrap_or_default(),
            },
            options,
            segments: log.segments.iter().map(Kept::of).collect(),
            unsynced_from: log.unsynced_from(),
            snapshot_bytes: snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes),
            obsolete,
            tear: log.tear.clone(),
        };
        // One without a block may be replaced by the one to be written.
        log.segments.retain(|segment| segment.blocks > 0);
        let after = snapshot.as_ref().map_or(0, |snapshot| snapshot.at);
        let recovery = Recovery {
            identity,
            blocks: Blocks::new(disk, after, log.segments),
            snapshot,
            newest: log.newest,
            may_have_lost,
            tear: log.tear,
        };
        Ok((opening, recovery))
    }

    /// Returns the number that is given next.
    pub(crate) fn next(&self) -> u64 {
        self.header.first
    }

    /// Cuts off what is not whole at the end, and begins a segment.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn begin(self) -> Result<Store<D>, JournalError> {
        let Opening {
            disk,
            options,
            header,
            mut segments,
            unsynced_from,
            snapshot_bytes,
            obsolete,
            tear,
        } = self;
        if let Some(tear) = &tear {
            tear.cut(&*disk)?;
        }
        for (index, segment) in segments.iter().enumerate() {
            let again = index >= unsynced_from;
            settle(&*disk, segment, again)
                .map_err(JournalError::io("sync", disk.path(&segment.name)))?;
        }
        for name in &obsolete {
            disk.remove(name)
                .map_err(JournalError::io("remove", disk.path(name)))?;
        }
        let (file, len) = create_whole(&*disk, &header)?;
        let first = header.first;
        // A segment without a block had the same name.
        segments.retain(|segment| segment.first != first);
        let (name, bytes) = (segment_name(first), len);
        segments.push(Kept { name, first, bytes });
        let file = Arc::new(file);
        let progress = Progress::new(segments, file.clone(), snapshot_bytes);
        Ok(Store {
            shared: Arc::new(Shared::new(disk, progress)),
            options,
            header,
            next: first,
            file,
            len,
            allocated: len,
            has_frames: false,
            buffer: Vec::new(),
        })
    }
}

impl<D: Disk> Store<D> {
    /// Prepares a copy of a log to be used: clients may have seen what it does not have. When
    /// it is opened, numbers go on far beyond, and it may have lost something.
    ///
    /// # Errors
    /// When there is no log, and as [`Opening`].
    pub(crate) fn prepare_copy(disk: D, options: StoreOptions) -> Result<(), JournalError> {
        Contents::read(&disk)?.check(&disk)?;
        let options = StoreOptions {
            is_copy: true,
            ..options
        };
        let (opening, _) = Opening::examine(disk, options)?;
        opening.begin().map(drop)
    }

    /// Begins a log behind a number, with a snapshot of what is before. Returns when both
    /// are on the disk.
    ///
    /// # Errors
    /// When there is a log, or a file cannot be written.
    pub(crate) fn import(
        disk: &D,
        options: &StoreOptions,
        at: u64,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), JournalError> {
        let path = disk.path("");
        let names = disk
            .names()
            .map_err(JournalError::io("read", path.clone()))?;
        if names.iter().any(|name| is_of_a_journal(name)) {
            return Err(JournalError::NotEmpty { path });
        }
        let name = snapshot_name(at);
        let incomplete = format!("{name}{INCOMPLETE}");
        let io = || JournalError::io("write", disk.path(&name));
        let mut writer = snapshots::Writer::new(disk.create(&incomplete).map_err(io())?, at);
        content(&mut writer)
            .and_then(|()| writer.finish())
            .map_err(io())?;
        let header = Header {
            first: at + 1,
            synced: at,
            syncs_always: options.syncs_always,
            follows_loss: false,
            salt: options.salt,
            identity: options.identity.clone(),
            boot: disk.boot().unwrap_or_default(),
        };
        let (file, len) = create_whole(disk, &header)?;
        let closed = file
            .write_all_at(len, &end_mark(&header.salt, at + 1))
            .and_then(|()| file.sync());
        // Without the snapshot the log is refused: it lacks what precedes it.
        closed
            .and_then(|()| disk.rename(&incomplete, &name))
            .and_then(|()| disk.sync())
            .map_err(io())
    }

    /// Appends a block that takes `width` numbers, and returns the first of them.
    ///
    /// # Errors
    /// [`Full`](JournalError::Full) until a snapshot has made room. Any other error is final.
    ///
    /// # Panics
    /// When the block takes no number, or has more than [`BLOCK_BYTES_MAX`].
    pub(crate) fn append(
        &mut self,
        width: u64,
        wall_ms: u64,
        block: &[u8],
    ) -> Result<u64, JournalError> {
        assert!(width > 0 && block.len() <= BLOCK_BYTES_MAX, "not a block");
        let width = u32::try_from(width).expect("an event has more than one byte");
        let bytes = frame_bytes(block);
        let synced = {
            let progress = self.shared.progress();
            progress.check()?;
            let max = self.options.bytes_max;
            // What tells of a loss has room in a log that is full.
            let tells_loss = self.header.follows_loss && !self.has_frames;
            if progress.bytes() + bytes > max && !tells_loss {
                return Err(JournalError::Full { max });
            }
            progress.synced
        };
        if self.has_frames && self.len + bytes > self.options.segment_bytes {
            self.begin_segment()?;
        }
        let first = self.next;
        self.buffer.clear();
        let numbers = [first, wall_ms, synced];
        put_frame(&mut self.buffer, &self.header.salt, numbers, width, block);
        if let Err(error) = self.write() {
            // It is refused, so it must not be there after a restart. If this fails as well,
            // it is cut off then if it is not whole.
            let _ = self.file.set_len(self.len);
            return Err(self.fail("write", error));
        }
        self.len += bytes;
        self.next += u64::from(width);
        self.has_frames = true;
        if self.buffer.capacity() > KEPT_BUFFER_BYTES {
            self.buffer = Vec::new();
        }
        let mut progress = self.shared.progress();
        progress.written = self.next - 1;
        if self.options.syncs_always {
            progress.synced = progress.written;
        }
        let written = progress.segments.last_mut().expect("one is written");
        written.bytes = self.len.max(self.allocated);
        Ok(first)
    }

    /// Returns whether a block of this size is only a write into the memory of the system,
    /// as far as is known now: into the same file, and while nothing is synced.
    pub(crate) fn is_quick(&self, block_bytes: usize) -> bool {
        let end = self.len + block_bytes as u64;
        !self.options.syncs_always
            && end <= self.options.segment_bytes
            && !self.needs_snapshot()
            && !self.shared.is_syncing()
    }

    /// Returns whether a block of this size waits for the snapshot that is being written.
    /// Otherwise a slow one would let the log become as large as is published meanwhile.
    pub(crate) fn must_wait(&self, block_bytes: usize) -> bool {
        let progress = self.shared.progress();
        let snapshot_bytes = progress.snapshot_bytes.max(progress.incomplete_bytes);
        let max = SNAPSHOTS_MAX * snapshot_bytes + BESIDE_SNAPSHOTS_BYTES;
        progress.incomplete_bytes > 0 && progress.bytes() + block_bytes as u64 > max
    }

    fn write(&mut self) -> io::Result<()> {
        let end = self.len + self.buffer.len() as u64;
        if self.options.syncs_always && end > self.allocated {
            let zeros = vec![0; self.options.ahead_bytes];
            self.file.write_all_at(end, &zeros)?;
            self.allocated = end + zeros.len() as u64;
        }
        self.file.write_all_at(self.len, &self.buffer)?;
        match self.options.syncs_always {
            true => self.file.sync(),
            false => Ok(()),
        }
    }

    /// Ends the segment and begins the next one.
    fn begin_segment(&mut self) -> Result<(), JournalError> {
        self.header.first = self.next;
        self.header.synced = self.shared.progress().synced;
        self.header.follows_loss = false;
        let header = self.header.encode();
        let name = segment_name(self.next);
        let always = self.options.syncs_always;
        let disk = &self.shared.disk;
        let create = || {
            if self.allocated > self.len {
                self.file.set_len(self.len)?;
            }
            let file = disk.create(&name)?;
            file.write_all_at(0, &header)?;
            if always {
                file.sync()?;
                disk.sync()?;
            }
            Ok(Arc::new(file))
        };
        self.file = create().map_err(|error| self.fail("create", error))?;
        self.len = header.len() as u64;
        self.allocated = self.len;
        self.has_frames = false;
        let mut progress = self.shared.progress();
        if always {
            progress.unsynced.clear();
        }
        progress.unsynced.push(self.file.clone());
        progress.has_new_names |= !always;
        let (first, bytes) = (self.next, self.len);
        progress.segments.push(Kept { name, first, bytes });
        Ok(())
    }

    fn fail(&self, doing: &'static str, error: io::Error) -> JournalError {
        let progress = self.shared.progress();
        let name = &progress.segments.last().expect("one is written").name;
        let path = self.shared.disk.path(name);
        drop(progress);
        let error = JournalError::io(doing, path)(error);
        self.shared.fail(&error);
        error
    }

    /// Returns when all that was appended survives the end of the machine.
    ///
    /// # Errors
    /// When a write or a sync has failed. This is final.
    pub(crate) fn sync(&self) -> Result<(), JournalError> {
        self.shared.sync()
    }

    /// Returns what syncs from another thread, without holding up appends.
    pub(crate) fn syncer(&self) -> Syncer<D> {
        Syncer(self.shared.clone())
    }

    /// Returns the number that is given next.
    #[cfg(test)]
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Returns the size of all files, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.progress().bytes()
    }

    /// Returns whether the log is so much larger than the last snapshot that it is time for
    /// the next one, is nearly full, so that no append waits for it, or has many segments.
    pub(crate) fn needs_snapshot(&self) -> bool {
        let progress = self.shared.progress();
        let max = self.options.bytes_max;
        let log_bytes = progress.segment_bytes();
        let is_nearly_full = progress.bytes() > max / 4 * 3 && log_bytes > max / 8;
        let are_many = progress.segments.len() > SEGMENTS_MAX;
        are_many
            || is_nearly_full
            || log_bytes > self.options.segment_bytes.max(progress.snapshot_bytes)
    }

    /// Begins a snapshot of all blocks that were appended. It is written from any thread,
    /// beside appends.
    ///
    /// # Errors
    /// When a file cannot be made. If it is one of the log, this is final.
    pub(crate) fn begin_snapshot(&mut self) -> Result<SnapshotWriter<D>, JournalError> {
        self.shared.progress().check()?;
        // First what may fail: a segment that was begun in vain is one more file.
        let snapshot = SnapshotWriter::begin(self.shared.clone(), self.next - 1)?;
        if self.has_frames {
            // So all older segments can be deleted.
            self.begin_segment()?;
        }
        Ok(snapshot)
    }

    /// Closes the log: the next start knows that nothing is missing.
    ///
    /// # Errors
    /// When a write or a sync fails, or has failed.
    pub(crate) fn close(self) -> Result<(), JournalError> {
        self.shared.sync()?;
        let mark = end_mark(&self.header.salt, self.next);
        let write = || {
            self.file.write_all_at(self.len, &mark)?;
            self.file.set_len(self.len + mark.len() as u64)?;
            self.file.sync()
        };
        write().map_err(|error| self.fail("close", error))
    }
}

/// What a directory has.
pub(super) struct Contents<D: Disk> {
    pub(super) snapshot: Option<Snapshot<D::File>>,
    pub(super) log: Examined,
    /// Names of files that are not needed.
    obsolete: Vec<String>,
}

impl<D: Disk> Contents<D> {
    /// Checks that there is a journal.
    pub(super) fn check(&self, disk: &D) -> Result<(), JournalError> {
        let path = disk.path("");
        match self.snapshot.is_none() && self.log.segments.is_empty() {
            true => Err(JournalError::Missing { path }),
            false => Ok(()),
        }
    }

    /// Reads a directory, and changes nothing.
    pub(super) fn read(disk: &D) -> Result<Contents<D>, JournalError> {
        let names = disk
            .names()
            .map_err(JournalError::io("read", disk.path("")))?;
        let at = names.iter().filter_map(|name| at_of(name)).max();
        let snapshot = at.map(|at| Snapshot::open(disk, at)).transpose()?;
        let at = at.unwrap_or(0);
        let (segments, mut obsolete) = segments_above(&names, at);
        let is_obsolete =
            |name: &&String| at_of(name).is_some_and(|older| older < at) || is_incomplete(name);
        obsolete.extend(names.iter().filter(is_obsolete).cloned());
        let log = Examined::read(disk, segments, at)?;
        Ok(Contents {
            snapshot,
            log,
            obsolete,
        })
    }
}

fn is_of_a_journal(name: &str) -> bool {
    at_of(name).is_some() || is_segment(name) || is_incomplete(name)
}

/// Returns whether a file of ours was not complete when the process ended.
fn is_incomplete(name: &str) -> bool {
    let complete = name.strip_suffix(INCOMPLETE);
    complete.is_some_and(|name| at_of(name).is_some() || is_segment(name))
}

/// Cuts off zeros that were written ahead, and syncs what another process may not have.
///
/// After a sync has failed, the system takes what it could not write for written, and the
/// next sync reports success. So a process that has not closed the log may have left memory
/// that the disk does not have, and it is written `again`.
fn settle<D: Disk>(disk: &D, segment: &Kept, again: bool) -> io::Result<()> {
    let file = disk.open(&segment.name)?;
    if file.len()? > segment.bytes {
        file.set_len(segment.bytes)?;
    }
    if again {
        let mut chunk = vec![0; AHEAD_BYTES];
        let mut at = 0;
        while at < segment.bytes {
            match file.read_at(at, &mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => {
                    file.write_all_at(at, &chunk[..read])?;
                    at += read as u64;
                }
            }
        }
    }
    file.sync()
}

/// Makes a segment without a block, which is on the disk when this returns. One of the same
/// name is replaced. Returns where its first frame begins.
fn create_whole<D: Disk>(disk: &D, header: &Header) -> Result<(D::File, u64), JournalError> {
    let name = segment_name(header.first);
    let incomplete = format!("{name}{INCOMPLETE}");
    let bytes = header.encode();
    let create = || {
        let file = disk.create(&incomplete)?;
        file.write_all_at(0, &bytes)?;
        file.sync()?;
        disk.rename(&incomplete, &name)?;
        disk.sync()?;
        Ok(file)
    };
    let file = create().map_err(JournalError::io("create", disk.path(&name)))?;
    Ok((file, bytes.len() as u64))
}

impl Kept {
    fn of(segment: &Segment) -> Kept {
        Kept {
            name: segment.name.clone(),
            first: segment.header.first,
            bytes: segment.end,
        }
    }
}
