//! `--journal DIR`: the history, and what was published, over every end of the server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use pushwheel::{ChannelManager, JournalError, JournalOptions, JournalSync};
use pushwheel_server::{Config, Server};

use super::lock::Locked;
use crate::cli::Failure;
use pushwheel_check::numbers::{HOUR_S, from_one};

#[derive(Debug, Args)]
#[command(next_help_heading = "Journal")]
pub(crate) struct JournalArguments {
    /// Directory that keeps every event before it is published [default: none]
    ///
    /// A publish is answered when its events are written, so they survive every end of
    /// the server. After the next start ids go on, and clients resume without a gap. One
    /// server uses a directory at a time: another one waits until the first has ended.
    /// Use this, --state or --broker.
    #[arg(long, value_name = "DIR", env = "PUSHWHEEL_JOURNAL")]
    pub(super) journal: Option<PathBuf>,

    /// Time until events are on the disk, in seconds, or `always`
    ///
    /// With `always` they are on the disk before a publish is answered. Otherwise the end
    /// of the machine (not of the server) may take the events of this time, and clients
    /// receive an event `pushwheel.gap`.
    #[arg(long, value_name = "TIME", default_value = "1", value_parser = sync)]
    #[arg(env = "PUSHWHEEL_JOURNAL_SYNC")]
    journal_sync: Sync,

    /// Maximum size of the journal, in bytes
    ///
    /// It needs three times the histories and 128 MiB. At the maximum, publishing fails
    /// with 503 until there is room.
    #[arg(long, value_name = "BYTES", value_parser = from_one::<u64>, default_value_t = 1 << 30)]
    #[arg(env = "PUSHWHEEL_JOURNAL_BYTES")]
    journal_bytes: u64,
}

/// As [`JournalSync`], which clap cannot print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sync(JournalSync);

fn sync(text: &str) -> Result<Sync, String> {
    if text == "always" {
        return Ok(Sync(JournalSync::Always));
    }
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| (1..=HOUR_S).contains(seconds));
    let seconds = seconds.ok_or_else(|| format!("use always, or seconds from 1 to {HOUR_S}"))?;
    Ok(Sync(JournalSync::Every(Duration::from_secs(seconds))))
}

/// The time that a server may need to write what is queued after its shutdown.
const CLOSE_MAX: Duration = Duration::from_secs(10);

impl JournalArguments {
    /// Opens the journal in a directory. Waits for a server that uses it while it may be
    /// shutting down.
    pub(super) fn open(
        &self,
        directory: &Path,
        config: &Config,
        shutdown_max: Duration,
    ) -> Result<Server, Failure> {
        let options = JournalOptions::new()
            .sync(self.journal_sync.0)
            .bytes_max(self.journal_bytes);
        let open = || config.journaled_server(directory, options.clone());
        let opened = match open() {
            Err(JournalError::Locked { .. }) => {
                let locked = Locked {
                    kind: "journal",
                    option: "--journal DIR",
                    path: directory,
                    lock: &directory.join("lock"),
                };
                // The engine locks it itself.
                drop(locked.lock(shutdown_max.saturating_add(CLOSE_MAX))?);
                open()
            }
            opened => opened,
        };
        let server = opened
            .map_err(|error| format!("cannot use --journal {}: {error}", directory.display()))?;
        Ok(server)
    }
}

/// Logs what was in a journal.
pub(super) fn announce(directory: &Path, channels: &ChannelManager) {
    let stats = channels.stats();
    let events: usize = stats.channel_stats.iter().map(|c| c.history_events).sum();
    let (path, channels) = (directory.display(), stats.channels);
    log::info!("journal {path}: {channels} channels with {events} events");
}

/// Closes the journal of an engine that has stopped.
///
/// # Errors
/// When it could not be written, now or before.
pub(super) fn close(channels: &ChannelManager) -> Result<(), Failure> {
    let closed = channels.close_journal();
    closed.map_err(|error| format!("the journal does not have everything: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_or_always() {
        assert_eq!(sync("always"), Ok(Sync(JournalSync::Always)));
        let every = |seconds| Ok(Sync(JournalSync::Every(Duration::from_secs(seconds))));
        assert_eq!(sync("1"), every(1));
        assert_eq!(sync("3600"), every(3600));
        for wrong in ["0", "3601", "-1", "0.5", "never", ""] {
            assert!(sync(wrong).is_err(), "{wrong}");
        }
    }
}
