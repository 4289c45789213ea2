//! The lock of what one server uses at a time: a state, or a journal.
//!
//! A save replaces FILE, so the lock is on FILE.lock, an empty file that stays. A server
//! that removed it could remove the lock of another one. The system releases the lock of a
//! process that has ended, however it ended.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::cli::{Failure, files};

/// What is locked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Locked<'a> {
    /// Its kind, such as `state`.
    pub(super) kind: &'a str,
    /// The option that sets it, with a placeholder for its value.
    pub(super) option: &'a str,
    /// Its path.
    pub(super) path: &'a Path,
    /// The path of the file to lock.
    pub(super) lock: &'a Path,
}

impl Locked<'_> {
    /// Locks it while the returned file is open. Waits at most `patience` for a server that
    /// has the lock and may be shutting down.
    pub(super) fn lock(self, patience: Duration) -> Result<File, Failure> {
        let Locked { kind, option, .. } = self;
        let (path, seconds) = (self.path.display(), patience.as_secs());
        let unlockable = |error: io::Error| {
            let (lock, reason) = (self.lock.display(), files::reason(&error));
            format!("cannot lock {lock}, which the {kind} {path} needs {reason}")
        };
        let lock = open(self.lock).map_err(unlockable)?;
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::Error(error)) => return Err(unlockable(error)),
            Err(TryLockError::WouldBlock) => {}
        }
        log::info!("another server uses the {kind} {path}, waiting up to {seconds} s for its end");
        let (sender, locked) = mpsc::channel();
        // After the timeout the process exits, and the result is not needed.
        let wait = move || sender.send(lock.lock().map(|()| lock));
        let thread = thread::Builder::new().name("pushwheel-lock".into());
        thread.spawn(wait).map_err(unlockable)?;
        match locked.recv_timeout(patience) {
            Ok(locked) => locked.map_err(unlockable),
            Err(_) => Err(format!(
                "another server uses the {kind} {path} and did not end within {seconds} s. Stop \
                 it, or set another {option} for each server"
            )),
        }
    }
}

/// Opens the lock file, which no other user can open and lock.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_stays_taken_is_an_error_with_a_fix() {
        let name = format!("pushwheel-lock-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        let locked = Locked {
            kind: "state",
            option: "--state FILE",
            path: Path::new("state"),
            lock: &file,
        };
        let held = locked.lock(Duration::ZERO).unwrap();
        let error = locked.lock(Duration::ZERO).unwrap_err();
        assert!(
            error.contains("another --state FILE for each server"),
            "{error}"
        );
        drop(held);
        locked.lock(Duration::MAX).unwrap();
        std::fs::remove_file(file).unwrap();
    }
}
