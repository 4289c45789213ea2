//! `--state FILE`: the history over a restart.
//!
//! The protocol, so that no id is ever given twice and no file is lost:
//!
//! 1. At start FILE is locked until the server has ended, see [`lock`]. A
//!    server that another one is about to follow saves first.
//! 2. FILE is read whole and checked. If anything is wrong with it the server
//!    does not start, and FILE stays as it is.
//! 3. When the address is bound, and before the first connection is served,
//!    FILE is removed for good (the directory is synced). From here on a
//!    `kill -9` leaves no FILE: the next start begins a new epoch, and clients
//!    are told of the gap. A FILE from before could not know the ids given
//!    since.
//! 4. When the engine has stopped, and so every publish that was answered is
//!    in a log, the state is written to FILE.tmp, synced, renamed to FILE, and
//!    the directory synced. FILE is always whole or not there. A FILE.tmp that
//!    could not be written whole is removed at once, or at the next start.

mod lock;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pushwheel::ChannelManager;
use pushwheel_server::{Config, Server};

use crate::cli::{Failure, files};

/// A state file that was read, or found not to be there.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    is_there: bool,
    /// No other server has the file while this is open.
    _lock: File,
}

/// How long a save may take a server that has shut down.
const SAVE_MAX: Duration = Duration::from_secs(10);

impl StateFile {
    /// Restores from the file, if there is one. A server that has it is waited
    /// for while it may be shutting down.
    pub(crate) fn load(
        path: &Path,
        config: &Config,
        shutdown_max: Duration,
    ) -> Result<(StateFile, Server), Failure> {
        let refused = |error: &dyn std::fmt::Display| {
            let path = path.display();
            format!(
                "the saved state {path} is not used: {error}. \
                 It is left as it is: move it away, or start without --state"
            )
        };
        check_kind(path)?;
        let lock = lock::lock(path, shutdown_max.saturating_add(SAVE_MAX))?;
        let mut state = StateFile {
            path: path.to_owned(),
            is_there: false,
            _lock: lock,
        };
        // Better to learn it now than when there is something to lose. What a server
        // that was killed has left there goes with it.
        state
            .create()
            .and_then(|_| fs::remove_file(state.temporary()))
            .map_err(|error| state.unwritable(&error))?;
        let (is_there, server) = match File::open(path) {
            Ok(file) => {
                let server = config.restored_server(file);
                (true, server.map_err(|error| refused(&error))?)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => (false, config.server()),
            Err(error) => return Err(refused(&error)),
        };
        state.is_there = is_there;
        Ok((state, server))
    }

    /// Uses the file up: what is published from now on is not in it.
    pub(crate) fn consume(&mut self, channels: &ChannelManager) -> Result<(), Failure> {
        let path = self.path.display();
        if !self.is_there {
            log::info!("there is no saved state {path}: the history begins anew");
            return Ok(());
        }
        fs::remove_file(&self.path)
            .and_then(|()| self.sync_directory())
            .map_err(|error| format!("cannot remove the saved state {path}: {error}"))?;
        self.is_there = false;
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
            // A torn file is of no use, and takes the room of the next one.
            let _ = fs::remove_file(self.temporary());
            self.unwritable(&error)
        })?;
        let (channels, events) = (saved.channels, saved.events);
        let path = self.path.display();
        log::info!("saved {channels} channels with {events} events to {path}");
        Ok(())
    }

    /// A new FILE.tmp, for nobody else to read: it holds what was published.
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
        let advice = files::advice(error);
        format!("the state cannot be saved to {path}: {error}: {advice} (--state FILE)")
    }
}

/// Refuses what a save could not replace by a file. To open a pipe would even
/// be to wait for somebody who writes to it.
fn check_kind(path: &Path) -> Result<(), Failure> {
    // Who opens what cannot be looked at is told why.
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let what = match found.file_type() {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a directory: name a file in it",
        kind if kind.is_symlink() => "a link: name the file that it leads to",
        _ => "no regular file: name another one",
    };
    Err(format!("--state {} is {what}", path.display()))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(suffix);
    path.into()
}
