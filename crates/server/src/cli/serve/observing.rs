//! The settings of what the server tells of itself.

use clap::Args;
use pushwheel_server::Config;

use super::arguments::YES;
use crate::cli::Failure;
use crate::cli::log::{self, Format};
use crate::cli::words::boolean;

#[derive(Debug, Args)]
#[command(next_help_heading = "Logs")]
pub(crate) struct LogArguments {
    /// What is logged: a level (error, warn, info, debug, trace, off), or levels
    /// of parts, as in `info,pushwheel::reactor=debug`.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    #[arg(env = "PUSHWHEEL_LOG", value_parser = filter)]
    log: String,

    /// How lines are written: as text, or each as an object of JSON.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    #[arg(env = "PUSHWHEEL_LOG_FORMAT")]
    log_format: Format,

    /// Log every request with its client, its answer and the time that it took.
    #[arg(long, env = "PUSHWHEEL_ACCESS_LOG", value_name = "true|false")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = YES)]
    #[arg(default_value_t = false, value_parser = boolean, action = clap::ArgAction::Set)]
    access_log: bool,

    /// Log when streams begin and end, and what is published.
    #[arg(long, env = "PUSHWHEEL_EVENT_LOG", value_name = "true|false")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = YES)]
    #[arg(default_value_t = false, value_parser = boolean, action = clap::ArgAction::Set)]
    event_log: bool,
}

fn filter(text: &str) -> Result<String, String> {
    log::filter_of(text).map(|_| text.to_owned())
}

impl LogArguments {
    /// Adds what the server logs.
    pub(super) fn observe(&self, config: Config) -> Config {
        config.access_log(self.access_log).event_log(self.event_log)
    }

    pub(super) fn format(&self) -> Format {
        self.log_format
    }

    /// Has the program log as these say.
    pub(super) fn apply(&self) -> Result<(), Failure> {
        log::change(log::filter_of(&self.log)?, self.log_format);
        Ok(())
    }
}
