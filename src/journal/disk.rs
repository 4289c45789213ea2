//! The files of a journal, as far as the system is asked for them.
//!
//! [`Disk`] is a directory of files. The real one is [`Directory`]; tests use a simulated
//! one that fails, tears writes and loses power.
//!
//! What was written survives the end of the process. It survives the end of the machine
//! when its file was synced, and its name when the directory was.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
#[cfg(not(unix))]
use std::io::{Seek, SeekFrom, Write};
use std::ops::Deref;
#[cfg(unix)]
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::JournalError;

/// A directory of files.
pub(crate) trait Disk: Send + Sync + 'static {
    type File: DiskFile;

    /// Returns the names of all files, in any order.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Opens a file that exists.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Makes an empty file. One of the same name is replaced.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Gives a file another name. A file that has that name is replaced, whole or not at
    /// all.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Returns when all changes of names survive the end of the machine.
    fn sync(&self) -> io::Result<()>;
    /// Returns what tells this start of the machine from all others, if the system says it.
    fn boot(&self) -> Option<String>;
    /// Returns the path of a file, or of the directory for no name. It is for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// A file. One thread writes; others may sync and read meanwhile.
pub(crate) trait DiskFile: Send + Sync + 'static {
    fn len(&self) -> io::Result<u64>;
    /// Reads some bytes; none at the end.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Writes some of the bytes, at least one.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<usize>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Returns when all that was written before survives the end of the machine.
    fn sync(&self) -> io::Result<()>;

    fn write_all_at(&self, mut at: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(at, bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    at += written as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Reads a file from a place on.
#[derive(Debug)]
pub(super) struct ReadFrom<P> {
    pub(super) file: P,
    pub(super) at: u64,
}

impl<P: Deref<Target: DiskFile>> Read for ReadFrom<P> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(self.at, into)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// A directory of the system, which no other process uses as a journal meanwhile.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// The system releases the lock of a process that has ended, however it ended. `None`
    /// if the directory is only read.
    lock: Option<File>,
}

/// The lock is on a file of its own, which stays: a process that removed it could remove the
/// lock of another one.
const LOCK: &str = "lock";

impl Directory {
    /// Makes the directory if there is none, and locks it.
    ///
    /// # Errors
    /// When the system refuses it, or another process has the lock.
    pub(crate) fn lock(path: &Path) -> Result<Directory, JournalError> {
        let io = |doing| JournalError::io(doing, path.to_owned());
        let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        builder.mode(0o700);
        builder.recursive(true).create(path).map_err(io("create"))?;
        for parent in missing.iter().filter_map(|path| path.parent()) {
            sync_directory(parent).map_err(io("create"))?;
        }
        warn_of_others(path);
        let lock = OpenOptions::new();
        let lock = owned(lock).truncate(false).open(path.join(LOCK));
        let lock = lock.map_err(io("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let path = path.to_owned();
                return Err(JournalError::Locked { path });
            }
            Err(TryLockError::Error(error)) => return Err(io("lock")(error)),
        }
        Ok(Directory {
            path: path.to_owned(),
            lock: Some(lock),
        })
    }

    /// Returns the directory to read it only, whether a process uses it or not.
    pub(crate) fn unlocked(path: &Path) -> Directory {
        Directory {
            path: path.to_owned(),
            lock: None,
        }
    }
}

impl Directory {
    /// Returns whether another process has the lock.
    ///
    /// # Errors
    /// When the system refuses to say it.
    pub(super) fn is_locked(&self) -> Result<bool, JournalError> {
        let io = || JournalError::io("lock", self.path.clone());
        let lock = match File::open(self.path.join(LOCK)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io()(error)),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(io()(error)),
        }
    }
}

/// Warns about a directory that was there before and that other users can enter. They can
/// still read no file.
fn warn_of_others(path: &Path) {
    #[cfg(unix)]
    if path
        .metadata()
        .is_ok_and(|found| found.permissions().mode() & 0o077 != 0)
    {
        let path = path.display();
        log::warn!("other users can enter the journal {path}. Set its mode to 0700");
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// Files have events in them, which are for this user alone.
fn owned(mut options: OpenOptions) -> OpenOptions {
    #[cfg(unix)]
    options.mode(0o600);
    options.read(true).write(true).create(true);
    options
}

impl Disk for Directory {
    type File = File;

    fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name()));
        // A file with another name than text is not of a journal.
        let names = names.filter_map(|name| name.map(|n| n.into_string().ok()).transpose());
        names.collect()
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let islocked = self.lock.is_some();
        let mut options = OpenOptions::new();
        options.read(true).write(islocked).open(self.path(name))
    }

    fn create(&self, name: &str) -> io::Result<File> {
        owned(OpenOptions::new())
            .truncate(true)
            .open(self.path(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync(&self) -> io::Result<()> {
        sync_directory(&self.path)
    }

    fn boot(&self) -> Option<String> {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().to_owned())
    }

    fn path(&self, name: &str) -> PathBuf {
        match name.is_empty() {
            true => self.path.clone(),
            false => self.path.join(name),
        }
    }
}

/// Only Unix opens a directory as a file. Elsewhere a name may be lost with the machine.
fn sync_directory(path: &Path) -> io::Result<()> {
    let path = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    match cfg!(unix) {
        true => File::open(path)?.sync_all(),
        false => Ok(()),
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    #[cfg(unix)]
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, into, at)
    }

    #[cfg(unix)]
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        FileExt::write_at(self, bytes, at)
    }

    #[cfg(not(unix))]
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut file = self;
        file.seek(SeekFrom::Start(at))?;
        file.read(into)
    }

    #[cfg(not(unix))]
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self;
        file.seek(SeekFrom::Start(at))?;
        file.write(bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
