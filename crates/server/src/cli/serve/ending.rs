//! The settings of how the server ends.

use std::time::Duration;

use clap::Args;
use pushwheel::Shutdown;

use crate::cli::Failure;
use pushwheel_check::numbers::{DAY_S, seconds};

/// How the server shuts down.
///
/// The defaults fit into the ten seconds that containers are given
/// before they are killed, with the time to save the history.
#[derive(Debug, Args)]
#[command(next_help_heading = "Shutdown")]
pub(crate) struct EndingArguments {
    /// For how long after the first SIGTERM or SIGINT all goes on, but for
    /// /health, which answers 503: the time that a load balancer needs to
    /// find out.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0..=DAY_S), default_value_t = 0)]
    #[arg(env = "PUSHWHEEL_SHUTDOWN_DELAY")]
    shutdown_delay: u64,

    /// Over which time after that the streams end, each at a random moment,
    /// so that they do not all come back at once. Nobody is accepted
    /// meanwhile.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0..=DAY_S), default_value_t = 3)]
    #[arg(env = "PUSHWHEEL_SHUTDOWN_WINDOW")]
    shutdown_window: u64,

    /// How long all of it may take; then whoever is left is disconnected, and
    /// the history saved.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0..=DAY_S), default_value_t = 8)]
    #[arg(env = "PUSHWHEEL_SHUTDOWN_DEADLINE")]
    shutdown_deadline: u64,
}

impl EndingArguments {
    /// What they are called in the file, the one to change first.
    pub(super) const KEYS: [&str; 3] = ["shutdown_deadline", "shutdown_window", "shutdown_delay"];

    /// How long the whole shutdown may take, in seconds.
    pub(super) fn deadline_s(&self) -> u64 {
        self.shutdown_deadline
    }

    /// How the server shuts down.
    pub(super) fn shutdown(&self) -> Result<Shutdown, Failure> {
        let (delay, window) = (self.shutdown_delay, self.shutdown_window);
        let (deadline, needed) = (self.shutdown_deadline, delay.saturating_add(window));
        if needed > deadline {
            return Err(format!(
                "a shutdown with a delay of {delay} s and a window of {window} s does not fit \
                 into {deadline} s: give --shutdown-deadline {needed} or more"
            ));
        }
        let [deadline, delay, window] = [deadline, delay, window].map(Duration::from_secs);
        Ok(Shutdown::within(deadline).delay(delay).window(window))
    }
}
