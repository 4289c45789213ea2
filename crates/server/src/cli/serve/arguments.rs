//! The settings of the server. Each is a flag, an environment variable and a key of the
//! configuration file.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use pushwheel::{ChannelOptions, History, KeyedState, LagPolicy, Rate};
use pushwheel_server::Pattern;

use super::access::AccessArguments;
#[cfg(feature = "redis")]
use super::broker::BrokerArguments;
use super::ending::EndingArguments;
#[cfg(target_os = "linux")]
use super::io_uring::IoUring;
use super::journal::JournalArguments;
use super::limits::LimitArguments;
use super::observing::LogArguments;
use super::proxies::ProxyArguments;
use crate::cli::words::{YES, boolean, rate};
use crate::cli::{Secret, settings};
use pushwheel_check::numbers::{DAY_S, HOUR_S, YEAR_S, from_one, limit, seconds, whole, within};

/// The settings of all places.
pub(crate) type Settings = settings::Settings<Arguments, ChannelRule>;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Configuration file, in TOML
    ///
    /// The environment overrides the file, and flags override both. The server reads
    /// the file again on SIGHUP.
    #[arg(long, value_name = "FILE", env = "PUSHWHEEL_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// Address and port to listen on, or `unix:PATH` for a UNIX socket
    ///
    /// Port 0 picks a free port. On an address that other machines can reach, the
    /// server needs an admin key, and a publish key or a key for tokens. May be
    /// repeated.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    #[arg(env = "PUSHWHEEL_LISTEN", value_delimiter = ',')]
    pub(crate) listen: Vec<String>,

    /// Mode of the files of UNIX sockets, in octal
    ///
    /// A client needs the right to write. By default the user and the group of the
    /// server have it.
    #[arg(long, value_name = "MODE", default_value = "660")]
    #[arg(env = "PUSHWHEEL_SOCKET_MODE", value_parser = file_mode)]
    pub(crate) socket_mode: u32,

    /// Number of threads that serve connections
    ///
    /// Start with one, and add threads when it is busy all the time.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(env = "PUSHWHEEL_THREADS", value_parser = within(1..=64_u16))]
    pub(crate) threads: u16,

    /// Use of io_uring on Linux, to send an event to many clients in one system call
    ///
    /// With `auto`, if the kernel does not allow it, the server logs that and sends to each
    /// client separately.
    #[cfg(target_os = "linux")]
    #[arg(long, value_name = "MODE", default_value = "off")]
    #[arg(env = "PUSHWHEEL_IO_URING")]
    pub(crate) io_uring: IoUring,

    /// File that keeps the history over a restart [default: none]
    ///
    /// The server loads the file at the start and saves it at exit, so that clients
    /// resume after a restart. One server uses a file at a time: another one waits
    /// until the first has ended. A server that is killed saves nothing: --journal keeps
    /// the history then, and so does --broker.
    #[arg(long, value_name = "FILE", env = "PUSHWHEEL_STATE")]
    pub(crate) state: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) journal: JournalArguments,

    #[cfg(feature = "redis")]
    #[command(flatten)]
    pub(crate) broker: BrokerArguments,

    #[command(flatten)]
    pub(crate) keys: KeyArguments,

    #[command(flatten)]
    pub(crate) access: AccessArguments,

    #[command(flatten)]
    pub(crate) proxies: ProxyArguments,

    #[command(flatten)]
    pub(crate) logs: LogArguments,

    #[command(flatten)]
    pub(crate) channels: ChannelArguments,

    #[command(flatten)]
    pub(crate) ending: EndingArguments,

    /// Settings for channels whose names match a pattern, as a TOML table
    ///
    /// For example `{ pattern = "log.*", history_events = 5000 }`, or an array of
    /// such tables. In the file, write a table [[channel]] for each pattern. The
    /// first pattern that matches applies.
    #[arg(long, value_name = "TABLE", help_heading = "Channels")]
    #[arg(env = "PUSHWHEEL_CHANNEL")]
    pub(crate) channel: Vec<String>,

    /// Maximum channels
    #[arg(long, value_name = "N", value_parser = from_one::<usize>, default_value_t = 100_000)]
    #[arg(env = "PUSHWHEEL_MAX_CHANNELS", help_heading = "Limits")]
    pub(crate) max_channels: usize,

    /// Time after a crash in which events may be published again, in seconds
    ///
    /// Publishers repeat events from before the crash under the same own ids in this
    /// time. A client that reconnects with an own id from this time receives the gap
    /// `restart`. No effect after a start with a saved state.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    #[arg(env = "PUSHWHEEL_REPUBLISH_WINDOW", help_heading = "Channels")]
    pub(crate) republish_window: u64,

    /// Event ids that do not reveal how many events there were
    ///
    /// Each event is then about 13 bytes longer. A saved state keeps its ids.
    #[arg(long, env = "PUSHWHEEL_OPAQUE_IDS", value_name = "BOOL")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = YES)]
    #[arg(default_value_t = false, value_parser = boolean, action = clap::ArgAction::Set)]
    #[arg(help_heading = "Channels")]
    pub(crate) opaque_ids: bool,

    /// Maximum channels that subscriptions created and no event was published to
    ///
    /// [default: seven eighths of --max-channels]
    #[arg(long, value_name = "N", value_parser = from_one::<usize>)]
    #[arg(env = "PUSHWHEEL_MAX_UNPUBLISHED_CHANNELS", help_heading = "Limits")]
    pub(crate) max_unpublished_channels: Option<usize>,

    /// Maximum unpublished channels per token, or per address without a token
    ///
    /// An IPv6 network of 64 bits counts as one address. [default: a sixteenth of
    /// --max-channels]
    #[arg(long, value_name = "N", value_parser = from_one::<usize>)]
    #[arg(
        env = "PUSHWHEEL_MAX_UNPUBLISHED_CHANNELS_PER_SOURCE",
        help_heading = "Limits"
    )]
    pub(crate) max_unpublished_channels_per_source: Option<usize>,

    /// Maximum size of the events of all channels, in bytes
    ///
    /// Histories and the backlogs of slow clients count. At the limit the oldest
    /// events are evicted. [default: half of the memory that the process may use]
    #[arg(long, value_name = "BYTES", value_parser = from_one::<usize>)]
    #[arg(env = "PUSHWHEEL_HISTORY_TOTAL_BYTES", help_heading = "Limits")]
    pub(crate) history_total_bytes: Option<usize>,

    /// Maximum events per second per publishing address [default: none]
    ///
    /// This is an average: as many events may come at once.
    #[arg(long, value_name = "N", value_parser = rate, help_heading = "Limits")]
    #[arg(env = "PUSHWHEEL_PUBLISH_RATE_PER_ADDRESS")]
    pub(crate) publish_rate_per_address: Option<Rate>,

    #[command(flatten)]
    pub(crate) limits: LimitArguments,
}

/// The keys of the server, and how it may be reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct KeyArguments {
    /// Key for publishing
    ///
    /// Clients send it as `Authorization: Bearer KEY`. It has at least 16 characters.
    /// Other users of the machine can read a command line, so prefer the file or the
    /// environment.
    #[arg(long, value_name = "KEY")]
    #[arg(env = "PUSHWHEEL_PUBLISH_KEY", hide_env_values = true)]
    pub(crate) publish_key: Option<Secret>,

    /// File with the key for publishing
    ///
    /// Replaces --publish-key. May be repeated: all keys are valid, for example while
    /// one is replaced.
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    #[arg(env = "PUSHWHEEL_PUBLISH_KEY_FILE")]
    pub(crate) publish_key_file: Vec<PathBuf>,

    /// Right of publish keys to finish channels with their last event
    ///
    /// Admin keys have it, and tokens that list the channel in `pushwheel.finish`.
    #[arg(long, env = "PUSHWHEEL_PUBLISH_KEYS_MAY_FINISH", value_name = "BOOL")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = YES)]
    #[arg(default_value_t = false, value_parser = boolean, action = clap::ArgAction::Set)]
    pub(crate) publish_keys_may_finish: bool,

    /// Key for statistics and for managing channels
    ///
    /// It also allows publishing.
    #[arg(long, value_name = "KEY")]
    #[arg(env = "PUSHWHEEL_ADMIN_KEY", hide_env_values = true)]
    pub(crate) admin_key: Option<Secret>,

    /// File with the key for statistics and for managing channels
    ///
    /// Replaces --admin-key. May be repeated: all keys are valid.
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    #[arg(env = "PUSHWHEEL_ADMIN_KEY_FILE")]
    pub(crate) admin_key_file: Vec<PathBuf>,

    /// Start without keys on an address that others can reach
    ///
    /// Every client that reaches the server can then do what no key protects, and the
    /// checks of the headers Host and Origin for servers on loopback are off.
    #[arg(long, env = "PUSHWHEEL_ALLOW_MISSING_KEYS", value_name = "BOOL")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = YES)]
    #[arg(default_value_t = false, value_parser = boolean, action = clap::ArgAction::Set)]
    pub(crate) allow_missing_keys: bool,

    /// Additional name in the header Host to accept on loopback
    ///
    /// A server on loopback accepts localhost and loopback addresses, as a protection
    /// against DNS rebinding. Add the name under which a reverse proxy on this
    /// machine forwards requests. Pages of this host may publish. May be repeated.
    #[arg(
        long,
        value_name = "NAME",
        env = "PUSHWHEEL_ALLOW_HOST",
        value_delimiter = ',',
        value_parser = host
    )]
    pub(crate) allow_host: Vec<String>,
}

/// The settings that may differ between channels.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Channels")]
pub(crate) struct ChannelArguments {
    /// Maximum events kept per channel; 0 keeps none
    ///
    /// Clients that reconnect receive the events that they missed from this history.
    #[arg(long, value_name = "N", value_parser = whole::<usize>, default_value_t = 1000)]
    #[arg(env = "PUSHWHEEL_HISTORY_EVENTS")]
    history_events: usize,

    /// Maximum size of the history per channel, in bytes
    #[arg(long, value_name = "BYTES", value_parser = whole::<usize>, default_value_t = History::events(0).bytes_max)]
    #[arg(env = "PUSHWHEEL_HISTORY_BYTES")]
    history_bytes: usize,

    /// Maximum age of kept events, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0..=YEAR_S), default_value_t = History::events(0).age_max.as_secs())]
    #[arg(env = "PUSHWHEEL_HISTORY_AGE")]
    history_age: u64,

    /// Time for which a finished channel answers, in seconds
    ///
    /// Clients that reconnect receive what they missed, and then `204`, so that browsers
    /// stop reconnecting. The history does not age meanwhile.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(60..=30 * DAY_S), default_value_t = 60)]
    #[arg(env = "PUSHWHEEL_FINISHED_FOR")]
    finished_for: u64,

    /// Silence before a heartbeat, in seconds; 0 sends none
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0..=HOUR_S), default_value_t = 15)]
    #[arg(env = "PUSHWHEEL_HEARTBEAT")]
    heartbeat: u64,

    /// Maximum clients per channel [default: none]
    #[arg(long, value_name = "N", value_parser = limit, env = "PUSHWHEEL_MAX_CLIENTS_PER_CHANNEL")]
    max_clients_per_channel: Option<usize>,

    /// Action for clients that fall behind the kept events
    ///
    /// `disconnect` ends the stream, and the client reconnects; `skip` continues with
    /// the newest event. In both cases the client receives an event `pushwheel.gap`.
    /// `conflate` keeps only the newest event per key, so that a slow client skips
    /// older values.
    #[arg(long, value_name = "POLICY", default_value = "disconnect")]
    #[arg(env = "PUSHWHEEL_LAG_POLICY")]
    lag_policy: Lag,

    /// Maximum keys per channel whose newest event is kept
    ///
    /// Applies to the lag policy conflate.
    #[arg(long, value_name = "N", value_parser = from_one::<usize>, default_value_t = KeyedState::default().keys_max)]
    #[arg(env = "PUSHWHEEL_KEYED_EVENTS")]
    keyed_events: usize,

    /// Maximum size of the newest events of all keys per channel, in bytes
    ///
    /// Applies to the lag policy conflate.
    #[arg(long, value_name = "BYTES", value_parser = from_one::<usize>, default_value_t = KeyedState::default().bytes_max)]
    #[arg(env = "PUSHWHEEL_KEYED_BYTES")]
    keyed_bytes: usize,

    /// Maximum time that a key is kept without a new event, in seconds [default:
    /// none]
    ///
    /// Applies to the lag policy conflate.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(1..=YEAR_S))]
    #[arg(env = "PUSHWHEEL_KEYED_AGE")]
    keyed_age: Option<u64>,

    /// Minimum time between two deliveries per channel, in milliseconds
    ///
    /// Applies to the lag policy conflate. [default: events are delivered at once]
    #[arg(long, value_name = "MILLISECONDS", value_parser = within(1..=60_000_u64))]
    #[arg(env = "PUSHWHEEL_PACE_MS")]
    pace_ms: Option<u64>,

    /// Maximum size of the events that slow clients still need, per channel, in bytes
    ///
    /// At the limit the lag policy applies to the slowest clients.
    #[arg(long, value_name = "BYTES", value_parser = from_one::<usize>, default_value_t = 8 << 20)]
    #[arg(env = "PUSHWHEEL_BACKLOG_BYTES")]
    backlog_bytes: usize,

    /// Maximum size of an event, in bytes
    ///
    /// The request body has its own limit, --max-body-bytes.
    #[arg(long, value_name = "BYTES", value_parser = from_one::<usize>, default_value_t = 1 << 20)]
    #[arg(env = "PUSHWHEEL_MAX_EVENT_BYTES")]
    pub(super) max_event_bytes: usize,

    /// Additional header of the responses that open streams
    ///
    /// May be repeated.
    #[arg(long, value_name = "NAME: VALUE", env = "PUSHWHEEL_STREAM_HEADER", value_parser = header)]
    stream_header: Vec<(String, String)>,

    /// Minimum size of an event to compress, in bytes [default: no compression]
    ///
    /// An event is compressed once for all clients that accept gzip.
    #[arg(long, value_name = "BYTES", value_parser = whole::<usize>, env = "PUSHWHEEL_COMPRESS_FROM_BYTES")]
    compress_from_bytes: Option<usize>,

    /// Metadata field to index, so that `where.FIELD` costs less
    ///
    /// May be repeated.
    #[arg(
        long,
        value_name = "FIELD",
        env = "PUSHWHEEL_METADATA_INDEX",
        value_delimiter = ','
    )]
    metadata_index: Vec<String>,

    /// Maximum events per second per channel [default: none]
    ///
    /// This is an average: as many events may come at once.
    #[arg(long, value_name = "N", value_parser = rate, env = "PUSHWHEEL_PUBLISH_RATE")]
    publish_rate: Option<Rate>,
}

/// The settings of the channels that match a pattern.
#[derive(Debug, Args)]
pub(crate) struct ChannelRule {
    /// Name of a channel, or a prefix followed by `*`
    #[arg(long, value_name = "PATTERN", required = true)]
    pub(crate) pattern: Pattern,

    /// Whether clients may subscribe to these channels without a token
    #[arg(long, value_name = "BOOL", default_value_t = false)]
    #[arg(value_parser = boolean, action = clap::ArgAction::Set)]
    pub(crate) public: bool,

    /// Whether each body published to these channels is the data of one event
    ///
    /// Whatever its Content-Type, as with the parameter `raw` of a publish.
    #[arg(long, value_name = "BOOL", default_value_t = false)]
    #[arg(value_parser = boolean, action = clap::ArgAction::Set)]
    pub(crate) raw: bool,

    #[command(flatten)]
    pub(crate) options: ChannelArguments,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Lag {
    Disconnect,
    Skip,
    Conflate,
}

impl ChannelArguments {
    pub(crate) fn options(&self) -> ChannelOptions {
        let history = History::events(self.history_events)
            .bytes_max(self.history_bytes)
            .age_max(Duration::from_secs(self.history_age));
        let mut keyed_state = KeyedState::keys(self.keyed_events).bytes_max(self.keyed_bytes);
        if let Some(seconds) = self.keyed_age {
            keyed_state = keyed_state.age_max(Duration::from_secs(seconds));
        }
        let mut options = pushwheel_server::channel_options()
            .history(history)
            .keyed_state(keyed_state)
            .pace(Duration::from_millis(self.pace_ms.unwrap_or(0)))
            .heartbeat(Duration::from_secs(self.heartbeat))
            .finished_for(Duration::from_secs(self.finished_for))
            .max_clients(self.max_clients_per_channel.unwrap_or(usize::MAX))
            .backlog_bytes_max(self.backlog_bytes)
            .event_bytes_max(self.max_event_bytes)
            .lag_policy(match self.lag_policy {
                Lag::Disconnect => LagPolicy::Disconnect,
                Lag::Skip => LagPolicy::Skip,
                Lag::Conflate => LagPolicy::Conflate,
            });
        for (name, value) in &self.stream_header {
            options = options
                .header(name.clone(), value.clone())
                .expect("the value parser has checked it");
        }
        if let Some(bytes) = self.compress_from_bytes {
            options = options.compress_from(bytes);
        }
        if let Some(rate) = self.publish_rate {
            options = options.publish_rate(rate);
        }
        for field in &self.metadata_index {
            options = options.index(&**field);
        }
        options
    }
}

/// Parses the mode of a file.
fn file_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok();
    let mode = mode.filter(|mode| *mode <= 0o777 && !text.starts_with('+'));
    mode.ok_or_else(|| "use three octal digits, such as 660".to_owned())
}

/// Parses a name for the header `Host`. An IPv6 address may be in brackets, as in a URL.
fn host(text: &str) -> Result<String, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match bare.unwrap_or(text).parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => Err(
            "not a name that the header Host can have. To listen on all addresses, use --listen \
             0.0.0.0:8080"
                .to_owned(),
        ),
        Ok(address) => Ok(address.to_string()),
        Err(_) if is_name(text) => Ok(text.to_owned()),
        Err(_) => Err(
            "use only the host name, without scheme, port and path, such as push.example.com"
                .to_owned(),
        ),
    }
}

/// Returns whether a text can be a host name.
fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !text.is_empty() && text.bytes().all(is_part)
}

/// The headers that the server itself sets for a stream.
const OWN_HEADERS: [&str; 5] = [
    "Connection",
    "Content-Length",
    "Content-Type",
    "Date",
    "Transfer-Encoding",
];

/// Parses a header that a stream can have.
fn header(text: &str) -> Result<(String, String), String> {
    let Some((name, value)) = text.split_once(':') else {
        return Err("use a name and a value, such as `X-Robots-Tag: none`".to_owned());
    };
    let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
    if OWN_HEADERS
        .iter()
        .any(|own| own.eq_ignore_ascii_case(&name))
    {
        return Err("the server sets this header itself. Remove it".to_owned());
    }
    let checked = ChannelOptions::new().header(name.clone(), value.clone());
    checked.map_err(|error| error.to_string())?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Command;

    #[test]
    fn a_host_is_a_name_or_an_address_without_its_brackets() {
        for (text, name) in [
            ("push.example.com", Some("push.example.com")),
            ("192.0.2.1", Some("192.0.2.1")),
            ("FD00:0::1", Some("fd00::1")),
            ("[fd00::1]", Some("fd00::1")),
            ("https://a.example", None),
            ("a.example:80", None),
            ("[fd00::1]:80", None),
            ("a/b", None),
            ("", None),
            ("0.0.0.0", None),
        ] {
            assert_eq!(host(text).ok().as_deref(), name, "{text}");
        }
    }

    #[test]
    fn every_setting_has_a_variable_of_its_name_and_a_help_text() {
        let command = Arguments::augment_args(Command::new("serve"));
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            let long = arg
                .get_long()
                .unwrap_or_else(|| panic!("{id} is not a flag"));
            assert_eq!(long.replace('-', "_"), id);
            let variable = format!("PUSHWHEEL_{}", id.to_uppercase());
            let env = arg.get_env().unwrap_or_else(|| panic!("{id}: {variable}"));
            assert_eq!(env, &*variable);
            assert!(arg.get_help().is_some(), "{id} has no help");
        }
    }
}
