//! `--broker URL`: nodes that share one log in Redis or Valkey.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::Args;
use pushwheel::cluster::{BrokerError, ClusterOptions};
use pushwheel::{ChannelManager, EngineHandle, Shutdown};
use pushwheel_redis::RedisLog;
use pushwheel_server::{Config, Server};

use super::listening::Endpoint;
use crate::cli::{Failure, Secret};
use pushwheel_check::broker::BrokerSettings;
use pushwheel_check::numbers::{DAY_S, HOUR_S, from_one, seconds, within};

/// The settings, which take effect only after a restart.
pub(super) const KEYS: &[&str] = &[
    "broker",
    "broker_password_file",
    "broker_ca",
    "broker_cert",
    "broker_key",
    "broker_name",
    "broker_timeout",
    "broker_replicas",
    "broker_retain",
    "broker_retain_bytes",
    "broker_snapshot",
    "broker_grace",
    "node_name",
];

/// The largest body of a request: an event is at most a few times as large in the log, and
/// the log has a maximum.
const BODY_BYTES_MAX: usize = 8 << 20;

#[derive(Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct BrokerArguments {
    /// URL of the Redis or Valkey server that all nodes share [default: none]
    ///
    /// An event that is published to one node reaches the clients of all nodes, and
    /// clients resume on any node. For example redis://:PASSWORD@HOST:6379,
    /// rediss://HOST for TLS, or redis+sentinel://HOST,HOST,HOST/NAME. Use this,
    /// --journal or --state.
    #[arg(
        long,
        value_name = "URL",
        env = "PUSHWHEEL_BROKER",
        hide_env_values = true
    )]
    broker: Option<Secret>,

    /// File with the password for --broker
    ///
    /// Replaces a password in the URL.
    #[arg(long, value_name = "FILE", env = "PUSHWHEEL_BROKER_PASSWORD_FILE")]
    broker_password_file: Option<PathBuf>,

    /// File with the certificates that verify the broker, in PEM
    ///
    /// Replaces the public certificate authorities.
    #[arg(long, value_name = "FILE", env = "PUSHWHEEL_BROKER_CA")]
    broker_ca: Option<PathBuf>,

    /// File with the certificate of this node for the broker, in PEM
    #[arg(long, value_name = "FILE", env = "PUSHWHEEL_BROKER_CERT")]
    broker_cert: Option<PathBuf>,

    /// File with the key of --broker-cert, in PEM
    #[arg(long, value_name = "FILE", env = "PUSHWHEEL_BROKER_KEY")]
    broker_key: Option<PathBuf>,

    /// Name of the cluster
    ///
    /// Clusters that share a broker have different names.
    #[arg(long, value_name = "NAME", default_value = "pushwheel")]
    #[arg(env = "PUSHWHEEL_BROKER_NAME")]
    broker_name: String,

    /// Maximum time that a publish waits for the broker, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    #[arg(env = "PUSHWHEEL_BROKER_TIMEOUT", value_parser = seconds(1..=60))]
    broker_timeout: u64,

    /// Number of replicas that have an event before a publish is answered
    ///
    /// With 0, a failover of the broker may lose the newest events. Clients then
    /// receive an event `pushwheel.gap`.
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(env = "PUSHWHEEL_BROKER_REPLICAS", value_parser = within(0..=16_u16))]
    broker_replicas: u16,

    /// Time for which the broker keeps events that a snapshot has, in seconds
    ///
    /// A node that is away for longer continues with the snapshot.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    #[arg(env = "PUSHWHEEL_BROKER_RETAIN", value_parser = seconds(10..=DAY_S))]
    broker_retain: u64,

    /// Size of the events in the broker above which it keeps none that a snapshot has, in
    /// bytes
    #[arg(long, value_name = "BYTES", value_parser = from_one::<u64>, default_value_t = 256 << 20)]
    #[arg(env = "PUSHWHEEL_BROKER_RETAIN_BYTES")]
    broker_retain_bytes: u64,

    /// Time between two snapshots of the histories in the broker, in seconds
    ///
    /// A node that starts reads the newest one. One of the nodes writes them.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    #[arg(env = "PUSHWHEEL_BROKER_SNAPSHOT", value_parser = seconds(1..=HOUR_S))]
    broker_snapshot: u64,

    /// Time without the broker after which `GET /ready` is 503, in seconds [default: none]
    ///
    /// Set it if your load balancer sends requests to nodes that are not ready when no
    /// node is. Otherwise a broker that is away for all nodes stops all requests.
    #[arg(long, value_name = "SECONDS", env = "PUSHWHEEL_BROKER_GRACE", value_parser = seconds(1..=DAY_S))]
    broker_grace: Option<u64>,

    /// Name of this node, for operators [default: host name and port]
    #[arg(long, value_name = "NAME", env = "PUSHWHEEL_NODE_NAME", value_parser = node_name)]
    node_name: Option<String>,
}

/// The longest name of a node, in bytes.
const NODE_NAME_BYTES_MAX: usize = 64;

fn node_name(text: &str) -> Result<String, String> {
    let is_visible = |character: char| !character.is_control();
    match (1..=NODE_NAME_BYTES_MAX).contains(&text.len()) && text.chars().all(is_visible) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "use 1 to {NODE_NAME_BYTES_MAX} characters on one line"
        )),
    }
}

/// An error, and the settings that it is about.
type Wrong = (&'static [&'static str], Failure);

impl BrokerArguments {
    /// Returns whether this server is a node of a cluster.
    pub(super) fn is_set(&self) -> bool {
        self.broker.is_some()
    }

    /// The files of secrets, each with its setting.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let password = self.broker_password_file.iter();
        let password = password.map(|path| ("broker_password_file", &**path));
        let key = self.broker_key.iter().map(|path| ("broker_key", &**path));
        password.chain(key)
    }

    /// Returns the log, without a connection, if there is a broker.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub(super) fn log(&self, body_bytes_max: usize) -> Result<Option<RedisLog>, Wrong> {
        let Some(Secret(url)) = &self.broker else {
            return Ok(None);
        };
        if body_bytes_max > BODY_BYTES_MAX {
            let failure = format!(
                "with --broker, --max-body-bytes is at most {BODY_BYTES_MAX}, because an event is \
                 kept as one piece there"
            );
            return Err((&["max_body_bytes"], failure));
        }
        let settings = BrokerSettings {
            password_file: self.broker_password_file.as_deref(),
            name: &self.broker_name,
            replicas: self.broker_replicas.into(),
            authorities: self.broker_ca.as_deref(),
            certificate: (self.broker_cert.as_deref(), self.broker_key.as_deref()),
        };
        settings.log(url).map(Some)
    }

    fn options(&self, endpoints: &[Endpoint]) -> ClusterOptions {
        let name = self.node_name.clone();
        let name = name.unwrap_or_else(|| default_name(endpoints));
        ClusterOptions::new(name)
            .version(env!("CARGO_PKG_VERSION"))
            .publish_timeout(Duration::from_secs(self.broker_timeout))
            .retention(Duration::from_secs(self.broker_retain))
            .retention_bytes(self.broker_retain_bytes)
            .snapshot_every(Duration::from_secs(self.broker_snapshot))
    }

    /// Joins the cluster: waits until this node has what the others have.
    ///
    /// # Errors
    /// When the broker cannot be used.
    pub(super) fn join(
        &self,
        log: RedisLog,
        config: &Config,
        endpoints: &[Endpoint],
    ) -> Result<Server, Failure> {
        let address = pushwheel::cluster::SharedLog::address(&log);
        let server = config.clustered_server(log, self.options(endpoints));
        server.map_err(|error| {
            let fix = match error {
                BrokerError::Refused { .. } => "",
                _ => ". Run `pushwheel check` with its URL for details",
            };
            format!("cannot use --broker {address}: {error}{fix}")
        })
    }

    /// Returns the time without the broker after which the node is not ready.
    pub(super) fn grace(&self) -> Option<Duration> {
        self.broker_grace.map(Duration::from_secs)
    }
}

/// Returns the name of the machine, with the port if the node listens on one.
fn default_name(endpoints: &[Endpoint]) -> String {
    let host = nix::unistd::gethostname().ok();
    let host = host.and_then(|name| name.into_string().ok());
    let host = host.unwrap_or_else(|| "node".to_owned());
    let port = endpoints.iter().find_map(|endpoint| match endpoint {
        Endpoint::Tcp { addresses, .. } => Some(addresses.first()?.port()),
        Endpoint::Unix(_) => None,
    });
    match port {
        Some(port @ 1..) => format!("{host}:{port}"),
        _ => format!("{host}:{}", std::process::id()),
    }
}

/// The time between two checks of the node's state.
const WATCH: Duration = Duration::from_secs(1);

/// Shuts the server down when the node cannot follow the log any more. The engine logs why.
///
/// # Errors
/// When there is no thread.
pub(super) fn watch(
    channels: &ChannelManager,
    handle: EngineHandle,
    shutdown: Shutdown,
) -> std::io::Result<()> {
    let channels = channels.clone();
    let wait = move || {
        let has_stopped = || {
            let status = channels.cluster_status();
            status.is_some_and(|status| status.stopped.is_some())
        };
        while !has_stopped() {
            thread::park_timeout(WATCH);
        }
        handle.shutdown(shutdown);
    };
    let thread = thread::Builder::new().name("pushwheel-cluster".into());
    thread.spawn(wait).map(drop)
}

/// Logs the cluster that this node has joined.
pub(super) fn announce(channels: &ChannelManager) {
    let Some(status) = channels.cluster_status() else {
        return;
    };
    let (broker, channels) = (&status.broker, channels.stats().channels);
    log::info!("joined the cluster at {broker}: {channels} channels");
}

/// Leaves the cluster when the engine has stopped.
///
/// # Errors
/// When the node could not follow the log any more.
pub(super) fn leave(channels: &ChannelManager) -> Result<(), Failure> {
    let stopped = channels.cluster_status().and_then(|status| status.stopped);
    channels.leave_cluster();
    match stopped {
        Some(why) => Err(format!(
            "this node could not follow the log of the cluster: {why}"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        broker: BrokerArguments,
    }

    fn log(words: &[&str]) -> Result<Option<RedisLog>, Wrong> {
        let words = ["pushwheel"].iter().chain(words);
        Command::parse_from(words).broker.log(1 << 20)
    }

    #[test]
    fn settings_that_do_not_fit_say_what_does() {
        assert!(log(&[]).unwrap().is_none());
        assert!(log(&["--broker", "redis://h"]).unwrap().is_some());
        for (words, part) in [
            (&["--broker", "h:6379"][..], "redis://localhost"),
            (
                &["--broker", "redis://h", "--broker-name", "a b"],
                "1 to 64",
            ),
            (&["--broker", "redis://h", "--broker-ca", "x"], "rediss:"),
            (
                &["--broker", "rediss://h", "--broker-ca", "/no"],
                "/no has no",
            ),
            (
                &["--broker", "rediss://h", "--broker-cert", "x"],
                "belong together",
            ),
            (
                &["--broker", "redis://h", "--broker-password-file", "/no"],
                "cannot read",
            ),
        ] {
            let (keys, failure) = log(words).unwrap_err();
            assert!(failure.contains(part) && !keys.is_empty(), "{failure}");
        }
        // A password is in no message.
        let (_, failure) = log(&["--broker", "redis://:hunter2@h:x"]).unwrap_err();
        assert!(!failure.contains("hunter2"), "{failure}");
    }

    #[test]
    fn a_body_has_to_fit_into_the_log() {
        let command = Command::parse_from(["pushwheel", "--broker", "redis://h"]);
        assert!(command.broker.log(BODY_BYTES_MAX).is_ok());
        let (keys, _) = command.broker.log(BODY_BYTES_MAX + 1).unwrap_err();
        assert_eq!(keys, ["max_body_bytes"]);
    }

    #[test]
    fn a_node_has_a_name() {
        assert!(default_name(&[]).contains(':'));
        assert!(node_name("eu-1").is_ok());
        for wrong in ["", "a\nb", &"x".repeat(65)] {
            assert!(node_name(wrong).is_err());
        }
    }
}
