//! Which server has a state file: one at a time.
//!
//! A save replaces FILE, so what is locked is FILE.lock beside it: an empty file
//! that stays. Whoever removed it could remove what another server has just
//! locked. The system takes the lock from a server that is gone, however it
//! went.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::beside;
use crate::cli::{Failure, files};

/// Locks FILE for as long as what is answered is open. A server that has it may
/// be about to end: that is waited for, as long as `patience` lasts.
pub(super) fn lock(file: &Path, patience: Duration) -> Result<File, Failure> {
    let path = beside(file, ".lock");
    let (file, seconds) = (file.display(), patience.as_secs());
    let unlockable = |error: io::Error| {
        let (lock, advice) = (path.display(), files::advice(&error));
        format!(
            "the state cannot be saved to {file} without the lock {lock}: {error}: {advice} \
             (--state FILE)"
        )
    };
    let lock = open(&path).map_err(unlockable)?;
    match lock.try_lock() {
        Ok(()) => return Ok(lock),
        Err(TryLockError::Error(error)) => return Err(unlockable(error)),
        Err(TryLockError::WouldBlock) => {}
    }
    log::info!("another server has the state {file}: waiting for it to end, {seconds} s at most");
    let (sender, locked) = mpsc::channel();
    // Whoever does not wait for it any more is about to exit.
    let wait = move || sender.send(lock.lock().map(|()| lock));
    let thread = thread::Builder::new().name("pushwheel-lock".into());
    thread.spawn(wait).map_err(unlockable)?;
    match locked.recv_timeout(patience) {
        Ok(locked) => locked.map_err(unlockable),
        Err(_) => Err(format!(
            "another server has the state {file} and has not ended within {seconds} s: end that \
             one, or give each server a file of its own (--state FILE)"
        )),
    }
}

/// Nobody else can open it, and so lock it.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_lock_in_vain_is_told_what_to_do() {
        let name = format!("pushwheel-lock-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        let held = lock(&file, Duration::ZERO).unwrap();
        let told = lock(&file, Duration::ZERO).unwrap_err();
        assert!(
            told.contains("give each server a file of its own"),
            "{told}"
        );
        drop(held);
        lock(&file, Duration::MAX).unwrap();
        std::fs::remove_file(beside(&file, ".lock")).unwrap();
    }
}
