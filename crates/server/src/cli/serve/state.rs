//! `--state FILE`: the history over a restart.
//!
//! These steps ensure that no id is assigned twice and no file is lost:
//!
//! 1. The server locks FILE from its start to its end, see [`Locked`]. Its successor waits
//!    until FILE is saved.
//! 2. FILE is read and checked as a whole. If it has an error, the server does not start,
//!    and FILE does not change.
//! 3. After the address is bound and before the first connection is served, FILE is
//!    removed, and the directory is synced. After a `kill -9` there is no FILE: the next
//!    start begins a new epoch, and clients receive a gap. An older FILE would not contain
//!    the ids that were assigned since.
//! 4. After the engine has stopped, every published event is in a log. The state is
//!    written to FILE.tmp and synced, FILE.tmp is renamed to FILE, and the directory is
//!    synced. FILE is always complete or absent. An incomplete FILE.tmp is removed
//!    immediately, or at the next start.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pushwheel::ChannelManager;
use pushwheel_server::{Config, Server};

use super::lock::Locked;
use crate::cli::{Failure, files};

/// A state file that was loaded, or that does not exist.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    exists: bool,
    /// No other server uses the file while this is open.
    _lock: File,
}

/// The time that a server may need to save after its shutdown.
const SAVE_MAX: Duration = Duration::from_secs(10);

impl StateFile {
    /// Restores the channels from the file, if it exists. Waits for a server that uses the
    /// file while it may be shutting down.
    pub(crate) fn load(
        path: &Path,
        config: &Config,
        shutdown_max: Duration,
    ) -> Result<(StateFile, Server), Failure> {
        let refused = |error: &dyn std::fmt::Display| {
            let path = path.display();
            format!(
                "cannot use the saved state {path} ({error}). The file has not changed: move it \
                 away, or start without --state"
            )
        };
        check_kind(path)?;
        let locked = Locked {
            kind: "state",
            option: "--state FILE",
            path,
            lock: &beside(path, ".lock"),
        };
        let lock = locked.lock(shutdown_max.saturating_add(SAVE_MAX))?;
        let mut state = StateFile {
            path: path.to_owned(),
            exists: false,
            _lock: lock,
        };
        // A directory without write permission is reported now, not at the save. This
        // also removes the file of a server that was killed.
        state
            .create()
            .and_then(|_| fs::remove_file(state.temporary()))
            .map_err(|error| state.unwritable(&error))?;
        let (exists, server) = match File::open(path) {
            Ok(file) => {
                let server = config.restored_server(file);
                (true, server.map_err(|error| refused(&error))?)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => (false, config.server()),
            Err(error) => return Err(refused(&error)),
        };
        state.exists = exists;
        Ok((state, server))
    }

    /// Removes the file, because it does not contain later events.
    pub(crate) fn consume(&mut self, channels: &ChannelManager) -> Result<(), Failure> {
        let path = self.path.display();
        if !self.exists {
            log::info!("no saved state {path}, starting with an empty history");
            return Ok(());
        }
        fs::remove_file(&self.path)
            .and_then(|()| self.sync_directory())
            .map_err(|error| {
                format!(
                    "cannot remove the saved state {path} {}",
                    files::reason(&error)
                )
            })?;
        self.exists = false;
        let stats = channels.stats();
        let events: usize = stats.channel_stats.iter().map(|c| c.history_events).sum();
        let channels = stats.channels;
        log::info!("restored {channels} channels with {events} events from {path}");
        Ok(())
    }

    /// Saves the channels of an engine that has stopped.
    pub(crate) fn save(&self, channels: &ChannelManager) -> Result<(), Failure> {
        let write = || {
            let mut file = self.create()?;
            let saved = channels.save(&mut file)?;
            file.sync_all()?;
            fs::rename(self.temporary(), &self.path)?;
            self.sync_directory()?;
            Ok(saved)
        };
        let saved = write().map_err(|error| {
            // An incomplete file is useless and takes space.
            let _ = fs::remove_file(self.temporary());
            self.unwritable(&error)
        })?;
        let (channels, events) = (saved.channels, saved.events);
        let path = self.path.display();
        log::info!("saved {channels} channels with {events} events to {path}");
        Ok(())
    }

    /// Creates FILE.tmp, which only this user can read: it contains events.
    fn create(&self) -> io::Result<File> {
        let path = self.temporary();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).open(path)
    }

    fn temporary(&self) -> PathBuf {
        beside(&self.path, ".tmp")
    }

    fn sync_directory(&self) -> io::Result<()> {
        let parent = self.path.parent().filter(|p| !p.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn unwritable(&self, error: &io::Error) -> Failure {
        let path = self.path.display();
        let reason = files::reason(error);
        format!("cannot save the state to --state {path} {reason}")
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(suffix);
    path.into()
}

/// Rejects a path that a save cannot replace by a file. Opening a pipe would even wait for
/// a writer.
fn check_kind(path: &Path) -> Result<(), Failure> {
    // The error of a path that cannot be examined is reported when it is opened.
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let problem = match found.file_type() {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a directory. Use a file in it",
        kind if kind.is_symlink() => "a symbolic link. Use the file that it points to",
        _ => "not a regular file. Use another path",
    };
    Err(format!("--state {} is {problem}", path.display()))
}
