//! The settings of the logs.

use clap::Args;
use pushwheel_server::Config;

use crate::cli::Failure;
use crate::cli::log::{self, Format};
use crate::cli::words::{YES, boolean};

#[derive(Debug, Args)]
#[command(next_help_heading = "Logs")]
pub(crate) struct LogArguments {
    /// Log filter: a level, or TARGET=LEVEL
    ///
    /// Levels are error, warn, info, debug, trace and off. Separate several filters by
    /// commas, for example `info,pushwheel::reactor=debug`.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    #[arg(env = "PUSHWHEEL_LOG", value_parser = filter)]
    log: String,

    /// Format of log lines
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    #[arg(env = "PUSHWHEEL_LOG_FORMAT")]
    log_format: Format,

    /// Log each request: client, response and duration
    #[arg(long, env = "PUSHWHEEL_ACCESS_LOG", value_name = "BOOL")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = YES)]
    #[arg(default_value_t = false, value_parser = boolean, action = clap::ArgAction::Set)]
    access_log: bool,

    /// Log the start and the end of each stream, and each publish
    #[arg(long, env = "PUSHWHEEL_EVENT_LOG", value_name = "BOOL")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = YES)]
    #[arg(default_value_t = false, value_parser = boolean, action = clap::ArgAction::Set)]
    event_log: bool,
}

fn filter(text: &str) -> Result<String, String> {
    log::filter_of(text).map(|_| text.to_owned())
}

impl LogArguments {
    /// Adds the logs of requests and events to the configuration.
    pub(super) fn observe(&self, config: Config) -> Config {
        config.access_log(self.access_log).event_log(self.event_log)
    }

    pub(super) fn format(&self) -> Format {
        self.log_format
    }

    /// Changes the log of the program.
    pub(super) fn apply(&self) -> Result<(), Failure> {
        log::change(log::filter_of(&self.log)?, self.log_format);
        Ok(())
    }
}
