//! The settings of the server: flags, each an environment variable and a key of
//! the configuration file too.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use pushwheel::{ChannelOptions, History, KeyedState, LagPolicy, Rate};
use pushwheel_server::Pattern;

use super::access::AccessArguments;
use super::ending::EndingArguments;
use super::limits::LimitArguments;
use super::observing::LogArguments;
use super::proxies::ProxyArguments;
use crate::cli::Secret;
use crate::cli::words::boolean;
use pushwheel_check::numbers::{HOUR_S, YEAR_S, from_one, limit, seconds, whole, within};

/// What stands for a flag that is given without a value.
pub(super) const YES: &str = "true";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The configuration file. Flags and the environment win over it.
    #[arg(long, value_name = "FILE", env = "PUSHWHEEL_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    #[arg(env = "PUSHWHEEL_LISTEN")]
    pub(crate) listen: String,

    /// On how many threads the server runs. One reaches very many clients.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(env = "PUSHWHEEL_THREADS", value_parser = within(1..=64_u16))]
    pub(crate) threads: u16,

    /// Where the history is saved at exit, and loaded from at the next start,
    /// so that clients resume over a restart [default: it is not]. It is for one
    /// server at a time: another one waits until that has ended.
    #[arg(long, value_name = "FILE", env = "PUSHWHEEL_STATE")]
    pub(crate) state: Option<PathBuf>,

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

    /// Other options for the channels whose names match a pattern, as a TOML
    /// table: `{ pattern = "log.*", history_events = 5000 }`, or an array of
    /// them. In the file, a table [[channel]] for each.
    #[arg(long, value_name = "TABLE", help_heading = "Channels")]
    #[arg(env = "PUSHWHEEL_CHANNEL")]
    pub(crate) channel: Vec<String>,

    /// Maximum channels.
    #[arg(long, value_name = "N", value_parser = from_one::<usize>, default_value_t = 100_000)]
    #[arg(env = "PUSHWHEEL_MAX_CHANNELS", help_heading = "Limits")]
    pub(crate) max_channels: usize,

    /// Seconds after the start in which publishers may repeat, under the same
    /// own ids, events from before a restart. A client that comes back with an
    /// own id from this time is sent the gap `restart`. Without effect after a
    /// start with a saved state.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    #[arg(env = "PUSHWHEEL_REPUBLISH_WINDOW", help_heading = "Channels")]
    pub(crate) republish_window: u64,

    /// Hide in the ids of events how many events there were. Each event is then
    /// about 13 bytes longer. A saved state keeps the ids that it has.
    #[arg(long, env = "PUSHWHEEL_OPAQUE_IDS", value_name = "true|false")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = YES)]
    #[arg(default_value_t = false, value_parser = boolean, action = clap::ArgAction::Set)]
    #[arg(help_heading = "Channels")]
    pub(crate) opaque_ids: bool,

    /// Maximum channels that subscriptions made and no publisher has published
    /// to [default: seven eighths of --max-channels].
    #[arg(long, value_name = "N", value_parser = from_one::<usize>)]
    #[arg(env = "PUSHWHEEL_MAX_UNPUBLISHED_CHANNELS", help_heading = "Limits")]
    pub(crate) max_unpublished_channels: Option<usize>,

    /// Maximum channels of this kind for each token, or for each address that
    /// subscribes without one (IPv6: a network of 64 bits) [default: a sixteenth
    /// of --max-channels].
    #[arg(long, value_name = "N", value_parser = from_one::<usize>)]
    #[arg(
        env = "PUSHWHEEL_MAX_UNPUBLISHED_CHANNELS_PER_SOURCE",
        help_heading = "Limits"
    )]
    pub(crate) max_unpublished_channels_per_source: Option<usize>,

    /// Maximum bytes of all channels together: histories, and events that slow
    /// clients have yet to be sent. Beyond it the oldest events are evicted
    /// [default: half of the memory that the process may use].
    #[arg(long, value_name = "BYTES", value_parser = from_one::<usize>)]
    #[arg(env = "PUSHWHEEL_HISTORY_TOTAL_BYTES", help_heading = "Limits")]
    pub(crate) history_total_bytes: Option<usize>,

    /// How many events a second each address may publish on average; up to as
    /// many at once [default: no limit].
    #[arg(long, value_name = "N", value_parser = rate, help_heading = "Limits")]
    #[arg(env = "PUSHWHEEL_PUBLISH_RATE_PER_ADDRESS")]
    pub(crate) publish_rate_per_address: Option<Rate>,

    #[command(flatten)]
    pub(crate) limits: LimitArguments,
}

/// Who may do what.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct KeyArguments {
    /// The key that publishing needs, sent as `Authorization: Bearer KEY`.
    /// Others on this machine can read the command line: prefer the
    /// environment or a file.
    #[arg(long, value_name = "KEY")]
    #[arg(env = "PUSHWHEEL_PUBLISH_KEY", hide_env_values = true)]
    pub(crate) publish_key: Option<Secret>,

    /// A file with the key that publishing needs, instead of --publish-key.
    /// May be given several times, as while keys are changed.
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    #[arg(env = "PUSHWHEEL_PUBLISH_KEY_FILE")]
    pub(crate) publish_key_file: Vec<PathBuf>,

    /// The key that looking and managing need; it may publish too.
    #[arg(long, value_name = "KEY")]
    #[arg(env = "PUSHWHEEL_ADMIN_KEY", hide_env_values = true)]
    pub(crate) admin_key: Option<Secret>,

    /// A file with the key that looking and managing need, instead of --admin-key.
    /// May be given several times.
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    #[arg(env = "PUSHWHEEL_ADMIN_KEY_FILE")]
    pub(crate) admin_key_file: Vec<PathBuf>,

    /// Listen without keys even where others reach it: whoever does may
    /// publish and manage.
    #[arg(long, env = "PUSHWHEEL_ALLOW_MISSING_KEYS", value_name = "true|false")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = YES)]
    #[arg(default_value_t = false, value_parser = boolean, action = clap::ArgAction::Set)]
    pub(crate) allow_missing_keys: bool,

    /// A name by which a server that listens on loopback is asked for, besides
    /// localhost, as behind a proxy; pages from there may publish. May be given
    /// several times.
    #[arg(
        long,
        value_name = "NAME",
        env = "PUSHWHEEL_ALLOW_HOST",
        value_delimiter = ',',
        value_parser = host
    )]
    pub(crate) allow_host: Vec<String>,
}

/// What may differ from channel to channel.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Channels")]
pub(crate) struct ChannelArguments {
    /// How many events each channel keeps for clients that come back; 0: none.
    #[arg(long, value_name = "N", value_parser = whole::<usize>, default_value_t = 1000)]
    #[arg(env = "PUSHWHEEL_HISTORY_EVENTS")]
    history_events: usize,

    /// How many bytes of events each channel keeps.
    #[arg(long, value_name = "BYTES", value_parser = whole::<usize>, default_value_t = History::events(0).bytes_max)]
    #[arg(env = "PUSHWHEEL_HISTORY_BYTES")]
    history_bytes: usize,

    /// How long each channel keeps its events.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0..=YEAR_S), default_value_t = History::events(0).age_max.as_secs())]
    #[arg(env = "PUSHWHEEL_HISTORY_AGE")]
    history_age: u64,

    /// Longest silence on a stream before a heartbeat is sent; 0: no
    /// heartbeats.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0..=HOUR_S), default_value_t = 15)]
    #[arg(env = "PUSHWHEEL_HEARTBEAT")]
    heartbeat: u64,

    /// How many clients each channel may have at once [default: no limit].
    #[arg(long, value_name = "N", value_parser = limit, env = "PUSHWHEEL_MAX_CLIENTS_PER_CHANNEL")]
    max_clients_per_channel: Option<usize>,

    /// What happens to a client that falls further behind than the channel
    /// keeps: it is disconnected and comes back, or it skips to the newest
    /// event; either way it is told of the gap. Or, of events with one key,
    /// only the newest is kept.
    #[arg(long, value_name = "POLICY", default_value = "disconnect")]
    #[arg(env = "PUSHWHEEL_LAG_POLICY")]
    lag_policy: Lag,

    /// With the policy conflate: maximum number of keys of each channel whose
    /// newest event is kept.
    #[arg(long, value_name = "N", value_parser = from_one::<usize>, default_value_t = KeyedState::default().keys_max)]
    #[arg(env = "PUSHWHEEL_KEYED_EVENTS")]
    keyed_events: usize,

    /// With the policy conflate: maximum bytes of these events.
    #[arg(long, value_name = "BYTES", value_parser = from_one::<usize>, default_value_t = KeyedState::default().bytes_max)]
    #[arg(env = "PUSHWHEEL_KEYED_BYTES")]
    keyed_bytes: usize,

    /// With the policy conflate: maximum time that a key is kept without a change
    /// [default: no limit].
    #[arg(long, value_name = "SECONDS", value_parser = seconds(1..=YEAR_S))]
    #[arg(env = "PUSHWHEEL_KEYED_AGE")]
    keyed_age: Option<u64>,

    /// With the policy conflate: shortest time between two deliveries of a
    /// channel [default: events are delivered at once].
    #[arg(long, value_name = "MILLISECONDS", value_parser = within(1..=60_000_u64))]
    #[arg(env = "PUSHWHEEL_PACE_MS")]
    pace_ms: Option<u64>,

    /// How many bytes of events may wait for a channel's slowest client.
    #[arg(long, value_name = "BYTES", value_parser = from_one::<usize>, default_value_t = 8 << 20)]
    #[arg(env = "PUSHWHEEL_BACKLOG_BYTES")]
    backlog_bytes: usize,

    /// How many bytes one event may have. The body that it comes in has a limit
    /// of its own: --max-body-bytes.
    #[arg(long, value_name = "BYTES", value_parser = from_one::<usize>, default_value_t = 1 << 20)]
    #[arg(env = "PUSHWHEEL_MAX_EVENT_BYTES")]
    pub(super) max_event_bytes: usize,

    /// A header of the responses that open streams, as `Name: value`; may be
    /// given several times.
    #[arg(long, value_name = "NAME: VALUE", env = "PUSHWHEEL_STREAM_HEADER", value_parser = header)]
    stream_header: Vec<(String, String)>,

    /// From how many bytes on events are compressed, once for all clients that
    /// take gzip [default: nothing is compressed].
    #[arg(long, value_name = "BYTES", value_parser = whole::<usize>, env = "PUSHWHEEL_COMPRESS_FROM_BYTES")]
    compress_from_bytes: Option<usize>,

    /// A field of the clients' metadata by which `where.FIELD` finds them at
    /// once; may be given several times.
    #[arg(
        long,
        value_name = "FIELD",
        env = "PUSHWHEEL_METADATA_INDEX",
        value_delimiter = ','
    )]
    metadata_index: Vec<String>,

    /// How many events a second each channel takes on average; up to as many
    /// at once [default: no limit].
    #[arg(long, value_name = "N", value_parser = rate, env = "PUSHWHEEL_PUBLISH_RATE")]
    publish_rate: Option<Rate>,
}

/// The options of the channels of one pattern.
#[derive(Debug, Args)]
pub(crate) struct ChannelRule {
    /// A channel's name, or how names begin, with `*` at the end.
    #[arg(long, value_name = "PATTERN", required = true)]
    pub(crate) pattern: Pattern,

    /// Whether clients may subscribe to these channels without a token.
    #[arg(long, value_name = "true|false", default_value_t = false)]
    #[arg(value_parser = boolean, action = clap::ArgAction::Set)]
    pub(crate) public: bool,

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
            .max_clients(self.max_clients_per_channel.unwrap_or(usize::MAX))
            .backlog_bytes_max(self.backlog_bytes)
            .event_bytes_max(self.max_event_bytes)
            .lag_policy(match self.lag_policy {
                Lag::Disconnect => LagPolicy::Disconnect,
                Lag::Skip => LagPolicy::Skip,
                Lag::Conflate => LagPolicy::Conflate,
            });
        for (name, value) in &self.stream_header {
            options = options.header(name, value).expect("it was checked");
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

/// Reads a name that browsers ask for; not where to listen, which is what
/// other servers' `--allow-host` is. An address of IPv6 may be in brackets, as a URL
/// has it.
fn host(text: &str) -> Result<String, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match bare.unwrap_or(text).parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => Err(
            "this is no name that a browser asks for: to be reached by others, give --listen \
             0.0.0.0:8080"
                .to_owned(),
        ),
        Ok(address) => Ok(address.to_string()),
        Err(_) if is_name(text) => Ok(text.to_owned()),
        Err(_) => Err(
            "give the name alone, without scheme, port and path, as push.example.com".to_owned(),
        ),
    }
}

/// Whether a text can be a host's name.
fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !text.is_empty() && text.bytes().all(is_part)
}

/// Reads so many events a second.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    match text.parse::<f64>() {
        Ok(count) if count.is_finite() && count > 0.0 => Ok(Rate::per_second(count)),
        _ => Err("give a number of events a second above 0, such as 100 or 0.5".to_owned()),
    }
}

/// What a stream says of itself, whatever is set.
const OWN_HEADERS: [&str; 5] = [
    "Connection",
    "Content-Length",
    "Content-Type",
    "Date",
    "Transfer-Encoding",
];

/// Reads a header that a stream can have.
fn header(text: &str) -> Result<(String, String), String> {
    let Some((name, value)) = text.split_once(':') else {
        return Err("give a name and a value, as `X-Robots-Tag: none`".to_owned());
    };
    let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
    if OWN_HEADERS
        .iter()
        .any(|own| own.eq_ignore_ascii_case(&name))
    {
        return Err("the server gives this header itself: leave it out".to_owned());
    }
    let checked = ChannelOptions::new().header(&name, &value);
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
    fn every_setting_has_a_variable_of_its_name_and_says_what_it_is_for() {
        let command = Arguments::augment_args(Command::new("serve"));
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            let long = arg.get_long().unwrap_or_else(|| panic!("{id} is no flag"));
            assert_eq!(long.replace('-', "_"), id);
            let variable = format!("PUSHWHEEL_{}", id.to_uppercase());
            let env = arg.get_env().unwrap_or_else(|| panic!("{id}: {variable}"));
            assert_eq!(env, &*variable);
            assert!(arg.get_help().is_some(), "{id} says nothing");
        }
    }
}
