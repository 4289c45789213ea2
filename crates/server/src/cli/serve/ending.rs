//! The settings of a shutdown.

use std::time::Duration;

use clap::Args;
use pushwheel::Shutdown;

use crate::cli::Failure;
use pushwheel_check::numbers::{DAY_S, seconds};

/// The times of a shutdown.
///
/// A container is killed ten seconds after SIGTERM. The defaults leave time to save the
/// history before that.
#[derive(Debug, Args)]
#[command(next_help_heading = "Shutdown")]
pub(crate) struct EndingArguments {
    /// Time between SIGTERM and the end of the first stream, in seconds
    ///
    /// The server keeps serving in this time, and /health returns 503 so that a load
    /// balancer stops sending clients.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0..=DAY_S), default_value_t = 0)]
    #[arg(env = "PUSHWHEEL_SHUTDOWN_DELAY")]
    shutdown_delay: u64,

    /// Time in which the streams end, each at a random moment, in seconds
    ///
    /// Spreads the reconnections of the clients. The server accepts no connections in
    /// this time.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0..=DAY_S), default_value_t = 3)]
    #[arg(env = "PUSHWHEEL_SHUTDOWN_WINDOW")]
    shutdown_window: u64,

    /// Maximum time for the whole shutdown, in seconds
    ///
    /// At the deadline the server disconnects the remaining clients and saves the
    /// history.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0..=DAY_S), default_value_t = 8)]
    #[arg(env = "PUSHWHEEL_SHUTDOWN_DEADLINE")]
    shutdown_deadline: u64,
}

impl EndingArguments {
    /// Their keys in the file, first the one to change.
    pub(super) const KEYS: [&str; 3] = ["shutdown_deadline", "shutdown_window", "shutdown_delay"];

    /// Returns the maximum time for the whole shutdown, in seconds.
    pub(super) fn deadline_s(&self) -> u64 {
        self.shutdown_deadline
    }

    /// Returns the times.
    ///
    /// # Errors
    /// When the delay and the window are longer than the deadline.
    pub(super) fn shutdown(&self) -> Result<Shutdown, Failure> {
        let (delay, window) = (self.shutdown_delay, self.shutdown_window);
        let (deadline, needed) = (self.shutdown_deadline, delay.saturating_add(window));
        if needed > deadline {
            return Err(format!(
                "a shutdown delay of {delay} s and a window of {window} s exceed the deadline of \
                 {deadline} s. Set --shutdown-deadline to {needed} or more"
            ));
        }
        let [deadline, delay, window] = [deadline, delay, window].map(Duration::from_secs);
        Ok(Shutdown::within(deadline).delay(delay).window(window))
    }
}
