//! The lock of a state file: one server uses it at a time.
//!
//! A save replaces FILE, so the lock is on FILE.lock, an empty file that stays. A server
//! that removed it could remove the lock of another one. The system releases the lock of a
//! process that has ended, however it ended.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::cli::{Failure, files};

/// Locks FILE while the returned file is open. Waits at most `patience` for a server that
/// has the lock and may be shutting down.
pub(super) fn lock(file: &Path, patience: Duration) -> Result<File, Failure> {
    let path = beside(file, ".lock");
    let (file, seconds) = (file.display(), patience.as_secs());
    let unlockable = |error: io::Error| {
        let (lock, reason) = (path.display(), files::reason(&error));
        format!("cannot lock {lock}, which --state {file} needs {reason}")
    };
    let lock = open(&path).map_err(unlockable)?;
    match lock.try_lock() {
        Ok(()) => return Ok(lock),
        Err(TryLockError::Error(error)) => return Err(unlockable(error)),
        Err(TryLockError::WouldBlock) => {}
    }
    log::info!("another server uses the state {file}, waiting up to {seconds} s for its end");
    let (sender, locked) = mpsc::channel();
    // After the timeout the process exits, and the result is not needed.
    let wait = move || sender.send(lock.lock().map(|()| lock));
    let thread = thread::Builder::new().name("pushwheel-lock".into());
    thread.spawn(wait).map_err(unlockable)?;
    match locked.recv_timeout(patience) {
        Ok(locked) => locked.map_err(unlockable),
        Err(_) => Err(format!(
            "another server uses the state {file} and did not end within {seconds} s. Stop it, or \
             set another --state FILE for each server"
        )),
    }
}

/// Opens the lock file, which no other user can open and lock.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.mode(0o600).open(path)
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(suffix);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_stays_taken_is_an_error_with_a_fix() {
        let name = format!("pushwheel-lock-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        let held = lock(&file, Duration::ZERO).unwrap();
        let error = lock(&file, Duration::ZERO).unwrap_err();
        assert!(
            error.contains("another --state FILE for each server"),
            "{error}"
        );
        drop(held);
        lock(&file, Duration::MAX).unwrap();
        std::fs::remove_file(beside(&file, ".lock")).unwrap();
    }
}
