//! The settings for what the engine takes from its peers.

use std::time::Duration;

use clap::Args;
use pushwheel::Limits;
use pushwheel_server::Config;

use pushwheel_check::numbers::{DAY_S, YEAR_S, from_one, limit, seconds, within};

/// See [`Limits`], whose fields they are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArguments {
    /// How many connections there may be at once. Those beyond get no stream;
    /// their other requests are answered, a few at a time.
    #[arg(long, value_name = "N", value_parser = from_one::<usize>, default_value_t = Limits::default().connections_max)]
    #[arg(env = "PUSHWHEEL_MAX_CONNECTIONS")]
    max_connections: usize,

    /// How many of them one address may have, of IPv6 one network of 64 bits.
    /// With the PROXY protocol it is the client's own that counts; from a
    /// trusted proxy there may be any number [default: no limit].
    #[arg(long, value_name = "N", value_parser = limit)]
    #[arg(env = "PUSHWHEEL_MAX_CONNECTIONS_PER_ADDRESS")]
    max_connections_per_address: Option<usize>,

    /// How many requests may wait for an answer that takes time.
    #[arg(long, value_name = "N", value_parser = from_one::<usize>, default_value_t = Limits::default().requests_in_flight_max)]
    #[arg(env = "PUSHWHEEL_MAX_REQUESTS_IN_FLIGHT")]
    max_requests_in_flight: usize,

    /// How many bytes a request's first line may have: its path and query.
    #[arg(long, value_name = "BYTES", value_parser = from_one::<usize>, default_value_t = Limits::default().request_line_bytes_max)]
    #[arg(env = "PUSHWHEEL_MAX_REQUEST_LINE_BYTES")]
    max_request_line_bytes: usize,

    /// How many bytes a request's head may have, headers included.
    #[arg(long, value_name = "BYTES", value_parser = from_one::<usize>, default_value_t = Limits::default().head_bytes_max)]
    #[arg(env = "PUSHWHEEL_MAX_HEAD_BYTES")]
    max_head_bytes: usize,

    /// How many headers a request may have, 256 at the most.
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(env = "PUSHWHEEL_MAX_HEADERS", value_parser = within(1..=256_u16))]
    max_headers: u16,

    /// How many bytes a request's body may have.
    #[arg(long, value_name = "BYTES", value_parser = from_one::<usize>, default_value_t = Limits::default().body_bytes_max)]
    #[arg(env = "PUSHWHEEL_MAX_BODY_BYTES")]
    pub(super) max_body_bytes: usize,

    /// How long a client may take for a request's head, and between the parts
    /// of its body.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    #[arg(env = "PUSHWHEEL_HEAD_TIMEOUT", value_parser = seconds(1..=DAY_S))]
    head_timeout: u64,

    /// How long a client may take for a body in all.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    #[arg(env = "PUSHWHEEL_BODY_TIMEOUT", value_parser = seconds(1..=DAY_S))]
    body_timeout: u64,

    /// How long a connection may be idle between requests.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    #[arg(env = "PUSHWHEEL_IDLE_TIMEOUT", value_parser = seconds(1..=DAY_S))]
    idle_timeout: u64,

    /// How long a client may take nothing of what is written to it.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    #[arg(env = "PUSHWHEEL_STALL_TIMEOUT", value_parser = seconds(1..=DAY_S))]
    stall_timeout: u64,

    /// How old a stream may become; then it ends, and its client comes back
    /// and resumes. Each ends at an age of its own, from three quarters of
    /// this on; 0: no limit.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0..=YEAR_S), default_value_t = pushwheel_server::limits().stream_age_max.as_secs())]
    #[arg(env = "PUSHWHEEL_MAX_STREAM_AGE")]
    max_stream_age: u64,

    /// How many bytes the kernel holds for each client that does not take what
    /// was written to it; 16384 or 32768 where there are very many [default:
    /// the system's].
    #[arg(long, value_name = "BYTES")]
    #[arg(env = "PUSHWHEEL_SEND_BUFFER_BYTES", value_parser = from_one::<u32>)]
    send_buffer_bytes: Option<u32>,

    /// How many bytes the kernel holds for each client that sends more than is
    /// read; not less than 16384 [default: the system's].
    #[arg(long, value_name = "BYTES")]
    #[arg(env = "PUSHWHEEL_RECEIVE_BUFFER_BYTES", value_parser = within(16_384..=u32::MAX))]
    receive_buffer_bytes: Option<u32>,
}

impl LimitArguments {
    /// The limits that they say.
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
        limits.idle_timeout = Duration::from_secs(self.idle_timeout);
        limits.stall_timeout = Duration::from_secs(self.stall_timeout);
        limits.stream_age_max = match self.max_stream_age {
            0 => Duration::MAX,
            seconds => Duration::from_secs(seconds),
        };
        limits
    }

    /// Adds them to the server's configuration.
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
    fn without_flags_the_limits_are_those_of_the_servers_configuration() {
        let alone = Alone::try_parse_from(["serve"]).unwrap();
        assert_eq!(alone.limits.limits(), pushwheel_server::limits());
    }

    #[test]
    fn each_limit_is_in_the_manual_wherever_its_flag_is_defined() {
        let manual = include_str!("../../../../../docs/limits.md");
        let command = Arguments::augment_args(Command::new("serve"));
        let is_limit = |flag: &&Arg| {
            let id = flag.get_id().as_str();
            flag.get_help_heading() == Some("Limits") || id == "ticket_lifetime"
        };
        for flag in command.get_arguments().filter(is_limit) {
            let long = flag.get_long().expect("each has a long name");
            assert!(manual.contains(&format!("`--{long}`")), "--{long}");
        }
    }
}
