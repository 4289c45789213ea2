//! The limits of connections and requests.

use std::time::Duration;

use clap::Args;
use pushwheel::Limits;
use pushwheel_server::Config;

use pushwheel_check::numbers::{DAY_S, YEAR_S, from_one, limit, seconds, within};

/// The fields of [`Limits`].
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArguments {
    /// Maximum connections
    ///
    /// A connection over the limit gets no stream. Other requests on it are answered,
    /// a few at a time.
    #[arg(long, value_name = "N", value_parser = from_one::<usize>, default_value_t = Limits::default().connections_max)]
    #[arg(env = "PUSHWHEEL_MAX_CONNECTIONS")]
    max_connections: usize,

    /// Maximum connections per client address [default: none]
    ///
    /// An IPv6 network of 64 bits counts as one address. With the PROXY protocol the
    /// client's own address counts. Connections from a trusted proxy have no limit.
    #[arg(long, value_name = "N", value_parser = limit)]
    #[arg(env = "PUSHWHEEL_MAX_CONNECTIONS_PER_ADDRESS")]
    max_connections_per_address: Option<usize>,

    /// Maximum requests without a response yet
    ///
    /// Only requests whose response takes time count.
    #[arg(long, value_name = "N", value_parser = from_one::<usize>, default_value_t = Limits::default().requests_in_flight_max)]
    #[arg(env = "PUSHWHEEL_MAX_REQUESTS_IN_FLIGHT")]
    max_requests_in_flight: usize,

    /// Maximum size of a request line (path and query), in bytes
    #[arg(long, value_name = "BYTES", value_parser = from_one::<usize>, default_value_t = Limits::default().request_line_bytes_max)]
    #[arg(env = "PUSHWHEEL_MAX_REQUEST_LINE_BYTES")]
    max_request_line_bytes: usize,

    /// Maximum size of a request head, headers included, in bytes
    #[arg(long, value_name = "BYTES", value_parser = from_one::<usize>, default_value_t = Limits::default().head_bytes_max)]
    #[arg(env = "PUSHWHEEL_MAX_HEAD_BYTES")]
    max_head_bytes: usize,

    /// Maximum headers of a request, at most 256
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(env = "PUSHWHEEL_MAX_HEADERS", value_parser = within(1..=256_u16))]
    max_headers: u16,

    /// Maximum size of a request body, in bytes
    #[arg(long, value_name = "BYTES", value_parser = from_one::<usize>, default_value_t = Limits::default().body_bytes_max)]
    #[arg(env = "PUSHWHEEL_MAX_BODY_BYTES")]
    pub(super) max_body_bytes: usize,

    /// Timeout for a request head, and between parts of a body, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    #[arg(env = "PUSHWHEEL_HEAD_TIMEOUT", value_parser = seconds(1..=DAY_S))]
    head_timeout: u64,

    /// Timeout for a whole request body, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    #[arg(env = "PUSHWHEEL_BODY_TIMEOUT", value_parser = seconds(1..=DAY_S))]
    body_timeout: u64,

    /// Timeout between two lines of a publish with `stream`, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    #[arg(env = "PUSHWHEEL_LINE_TIMEOUT", value_parser = seconds(1..=DAY_S))]
    line_timeout: u64,

    /// Timeout for an idle connection between requests, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    #[arg(env = "PUSHWHEEL_IDLE_TIMEOUT", value_parser = seconds(1..=DAY_S))]
    idle_timeout: u64,

    /// Timeout for a client that reads nothing of what was sent, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    #[arg(env = "PUSHWHEEL_STALL_TIMEOUT", value_parser = seconds(1..=DAY_S))]
    stall_timeout: u64,

    /// Maximum age of a stream, in seconds; 0 for no limit
    ///
    /// Each stream ends at a random age between three quarters of the limit and the
    /// limit. The client reconnects and resumes.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0..=YEAR_S), default_value_t = pushwheel_server::limits().stream_age_max.as_secs())]
    #[arg(env = "PUSHWHEEL_MAX_STREAM_AGE")]
    max_stream_age: u64,

    /// Kernel send buffer per connection, in bytes [default: the system's]
    ///
    /// It bounds the memory of clients that do not read: 16384 or 32768 for very many
    /// clients.
    #[arg(long, value_name = "BYTES")]
    #[arg(env = "PUSHWHEEL_SEND_BUFFER_BYTES", value_parser = from_one::<u32>)]
    send_buffer_bytes: Option<u32>,

    /// Kernel receive buffer per connection, in bytes [default: the system's]
    ///
    /// At least 16384.
    #[arg(long, value_name = "BYTES")]
    #[arg(env = "PUSHWHEEL_RECEIVE_BUFFER_BYTES", value_parser = within(16_384..=u32::MAX))]
    receive_buffer_bytes: Option<u32>,
}

impl LimitArguments {
    /// Returns the limits.
    pub(crate) fn limits(&self) -> Limits {
        let per_address = self.max_connections_per_address;
        let mut limits = Limits::default();
        limits.connections_max = self.max_connections;
        limits.connections_per_address_max = per_address.unwrap_or(usize::MAX);
        limits.requests_in_flight_max = self.max_requests_in_flight;
        limits.request_line_bytes_max = self.max_request_line_bytes;
        limits.head_bytes_max = self.max_head_bytes;
        limits.headers_max = usize::from(self.max_headers);
        limits.body_bytes_max = self.max_body_bytes;
        limits.head_timeout = Duration::from_secs(self.head_timeout);
        limits.body_timeout = Duration::from_secs(self.body_timeout);
        limits.line_timeout = Duration::from_secs(self.line_timeout);
        limits.idle_timeout = Duration::from_secs(self.idle_timeout);
        limits.stall_timeout = Duration::from_secs(self.stall_timeout);
        limits.stream_age_max = match self.max_stream_age {
            0 => Duration::MAX,
            seconds => Duration::from_secs(seconds),
        };
        limits
    }

    /// Adds the limits to the configuration.
    pub(crate) fn apply(&self, config: Config) -> Config {
        let mut config = config.limits(self.limits());
        if let Some(bytes) = self.send_buffer_bytes {
            config = config.send_buffer_bytes(bytes as usize);
        }
        if let Some(bytes) = self.receive_buffer_bytes {
            config = config.receive_buffer_bytes(bytes as usize);
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::serve::Arguments;
    use clap::{Arg, Command, Parser};

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        limits: LimitArguments,
    }

    #[test]
    fn without_flags_the_limits_are_the_configurations_defaults() {
        let alone = Alone::try_parse_from(["serve"]).unwrap();
        assert_eq!(alone.limits.limits(), pushwheel_server::limits());
    }

    #[test]
    fn each_limit_is_in_the_manual_wherever_its_flag_is_defined() {
        let manual = include_str!("../../../../../docs/limits.md");
        let command = Arguments::augment_args(Command::new("serve"));
        let is_limit = |flag: &&Arg| {
            let id = flag.get_id().as_str();
            let is_rate = id.contains("_rate");
            let is_of_tickets = ["max_tickets", "ticket_lifetime"].contains(&id);
            flag.get_help_heading() == Some("Limits") || is_rate || is_of_tickets
        };
        for flag in command.get_arguments().filter(is_limit) {
            let long = flag.get_long().expect("each has a long name");
            assert!(manual.contains(&format!("`--{long}`")), "--{long}");
        }
    }
}
