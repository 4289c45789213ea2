//! The options of the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use pushwheel_check::numbers::{from_one, within};

/// The arguments of `pushwheel bench`.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    pub(crate) scenario: Scenario,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// Idle clients: memory, connecting, heartbeats
    Idle(Idle),
    /// One event at a time to all clients: CPU per delivery, and latency
    Fanout(Fanout),
    /// Several events published together to all clients
    Burst(Burst),
    /// Many channels with one client each: CPU per event, and latency
    Each(Each),
    /// Clients that connect, receive a head, and disconnect
    Churn(Churn),
    /// POST requests, pipelined on one connection, without subscribers
    Publish(Publish),
    /// Several nodes on one Redis: latency, throughput, and CPU per delivery
    Cluster(Cluster),
}

impl Scenario {
    pub(crate) fn common(&self) -> &Common {
        match self {
            Scenario::Idle(options) => &options.common,
            Scenario::Fanout(options) => &options.common,
            Scenario::Burst(options) => &options.common,
            Scenario::Each(options) => &options.common,
            Scenario::Churn(options) => &options.common,
            Scenario::Publish(options) => &options.common,
            Scenario::Cluster(options) => &options.common,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Scenario::Idle(_) => "idle",
            Scenario::Fanout(_) => "fanout",
            Scenario::Burst(_) => "burst",
            Scenario::Each(_) => "each",
            Scenario::Churn(_) => "churn",
            Scenario::Publish(_) => "publish",
            Scenario::Cluster(_) => "cluster",
        }
    }
}

/// The servers, the number of runs, and the output.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// URL to subscribe to on a running server, instead of an own one
    #[arg(long, requires_all = ["publish_url", "pid"])]
    pub(crate) url: Option<String>,
    /// URL to publish to on that server, with POST
    #[arg(long, value_name = "URL", requires = "url")]
    pub(crate) publish_url: Option<String>,
    /// Process ids of that server, to read CPU time and memory
    ///
    /// The values of several processes are added up.
    #[arg(long, value_delimiter = ',', requires = "url", value_parser = from_one::<u32>)]
    pub(crate) pid: Vec<u32>,
    /// Name of the events of running servers that are not published ones
    ///
    /// The load reads them and does not count them.
    #[arg(long, value_name = "EVENT", requires = "url")]
    pub(crate) ignore_event: Option<String>,
    /// Path of another pushwheel program to measure
    #[arg(long, value_name = "PATH", conflicts_with = "url")]
    pub(crate) exe: Option<PathBuf>,
    /// Second server, measured in turns with the first one
    ///
    /// `bare` (a loop of send() over the sockets), `bare-uring` (the same with one system
    /// call for many sockets, by io_uring), `send` (this server without --io-uring),
    /// `alone` (this server without the --beside options), `plain` (this server without
    /// --keyed), `one-thread` (this server without --threads), the URL of a running server,
    /// or the path of another pushwheel program.
    #[arg(long, value_name = "SERVER")]
    pub(crate) against: Option<String>,
    /// URL to publish to on the second server, if that is running
    #[arg(long, value_name = "URL", requires = "against")]
    pub(crate) against_publish_url: Option<String>,
    /// Process ids of the second server, if that is running
    #[arg(long, value_name = "PID", value_delimiter = ',', requires = "against",
        value_parser = from_one::<u32>)]
    pub(crate) against_pid: Vec<u32>,
    /// Number of runs, or of pairs of runs
    #[arg(long, default_value_t = 5, value_parser = from_one::<u16>)]
    pub(crate) rounds: u16,
    /// Number of threads of the own server; it is not pinned with more than one
    #[arg(long, value_name = "N", value_parser = from_one::<usize>)]
    pub(crate) threads: Option<usize>,
    /// Print JSON, one object per line, instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// File for a report with plots
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Additional arguments for the own server (`pushwheel serve`)
    #[arg(last = true, value_name = "SERVE_ARGUMENTS")]
    pub(crate) serve: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Idle {
    /// Number of clients; each needs a descriptor in the bench and in the server
    #[arg(long, value_delimiter = ',', default_value = "1000,18000",
        value_parser = within(1..=CLIENTS_MAX))]
    pub(crate) clients: Vec<usize>,
    /// Time to measure heartbeats, in seconds [default: not measured]
    ///
    /// The server has to send some in this time: pass for example `-- --heartbeat 1`.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) heartbeats_for: Option<f64>,
    /// Time between two heartbeats of the bare loop, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = from_one::<u64>)]
    pub(crate) bare_heartbeat_ms: u64,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Fanout {
    /// Number of clients; each needs a descriptor in the bench and in the server
    #[arg(long, value_delimiter = ',', default_value = "1000,10000",
        value_parser = within(1..=CLIENTS_MAX))]
    pub(crate) clients: Vec<usize>,
    /// Size of an event's data, in bytes
    #[arg(long, value_delimiter = ',', default_value = "128,1024",
        value_parser = within(EVENT_BYTES_MIN..=EVENT_BYTES_MAX))]
    pub(crate) bytes: Vec<usize>,
    /// Number of events of each size per run [default: for about 150,000 deliveries]
    #[arg(long, value_parser = within(1..=PUBLICATIONS_MAX))]
    pub(crate) events: Option<usize>,
    /// Events per second [default: the next one when all clients have the last one]
    ///
    /// Latency counts from the time at which an event is due.
    #[arg(long, value_parser = rate)]
    pub(crate) rate: Option<f64>,
    #[command(flatten)]
    pub(crate) beside: Beside,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Additional load for the own server.
#[derive(Debug, Args)]
pub(crate) struct Beside {
    /// Number of clients of other channels
    #[arg(long, value_name = "N", value_parser = within(1..=CLIENTS_MAX))]
    pub(crate) beside_clients: Option<usize>,
    /// Number of other channels that these clients are distributed over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = from_one::<usize>)]
    pub(crate) beside_channels: usize,
    /// Publish to the first of the other channels without pause
    #[arg(long, requires = "beside_clients")]
    pub(crate) beside_busy: bool,
    /// Number of clients of the channel that never read, so that their sockets are full
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) stuck: usize,
}

impl Beside {
    /// Whether it has channels beside the one that is measured.
    pub(super) fn has_channels(&self) -> bool {
        self.beside_clients.is_some() || self.beside_channels > 1
    }
}

#[derive(Debug, Args)]
pub(crate) struct Burst {
    /// Number of clients; each needs a descriptor in the bench and in the server
    #[arg(long, value_delimiter = ',', default_value = "5000",
        value_parser = within(1..=CLIENTS_MAX))]
    pub(crate) clients: Vec<usize>,
    /// Size of an event's data, in bytes
    #[arg(long, value_delimiter = ',', default_value = "128",
        value_parser = within(EVENT_BYTES_MIN..=EVENT_BYTES_MAX))]
    pub(crate) bytes: Vec<usize>,
    /// Number of events published together, as one NDJSON body
    #[arg(long, default_value_t = 32, value_parser = within(1..=TOGETHER_MAX))]
    pub(crate) together: usize,
    /// Publish them as pipelined requests, for servers without batches
    #[arg(long)]
    pub(crate) pipelined: bool,
    /// Number of bursts per run
    #[arg(long, default_value_t = 20, value_parser = within(1..=PUBLICATIONS_MAX))]
    pub(crate) bursts: usize,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Each {
    /// Number of channels; each has one client
    #[arg(long, value_delimiter = ',', default_value = "1000",
        value_parser = within(1..=CLIENTS_MAX))]
    pub(crate) channels: Vec<usize>,
    /// Size of an event's data, in bytes
    #[arg(long, default_value_t = 32, value_parser = within(EVENT_BYTES_MIN..=EVENT_BYTES_MAX))]
    pub(crate) bytes: usize,
    /// Number of events per run, each to the next channel
    #[arg(long, default_value_t = 50_000, value_parser = within(1..=PUBLICATIONS_MAX))]
    pub(crate) events: usize,
    /// Events per second, to all channels together [default: the next one when a publisher
    /// has its response]
    ///
    /// Latency counts from the time at which an event is due.
    #[arg(long, value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Number of connections to publish on, each for a part of the channels
    #[arg(long, default_value_t = 1, value_parser = within(1..=PUBLISHERS_MAX))]
    pub(crate) publishers: usize,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Churn {
    /// Number of clients that stay connected
    #[arg(long, value_delimiter = ',', default_value = "0", value_parser = within(0..=CLIENTS_MAX))]
    pub(crate) clients: Vec<usize>,
    /// Number of clients that connect and disconnect per run
    #[arg(long, default_value_t = 10_000, value_parser = from_one::<usize>)]
    pub(crate) visits: usize,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// Number of events per request; more than one are an NDJSON body
    #[arg(long, value_delimiter = ',', default_value = "1,100",
        value_parser = within(1..=PUBLICATIONS_MAX))]
    pub(crate) batch: Vec<usize>,
    /// Size of an event's data, in bytes
    #[arg(long, default_value_t = 32, value_parser = within(EVENT_BYTES_MIN..=EVENT_BYTES_MAX))]
    pub(crate) bytes: usize,
    /// Number of events per run
    #[arg(long, default_value_t = 1_000_000, value_parser = from_one::<usize>)]
    pub(crate) events: usize,
    /// Number of events in flight, in at least four requests
    #[arg(long, default_value_t = 512, value_parser = within(1..=PUBLICATIONS_MAX))]
    pub(crate) depth: usize,
    /// An idempotency key in each request
    #[arg(long)]
    pub(crate) keyed: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Cluster {
    /// Number of nodes
    #[arg(long, default_value_t = 3, value_parser = within(1..=NODES_MAX))]
    pub(crate) nodes: usize,
    /// URL of a running Redis [default: the bench starts one, without a file]
    #[arg(long, value_name = "URL")]
    pub(crate) broker: Option<String>,
    /// Program to start as Redis
    #[arg(
        long,
        value_name = "PATH",
        default_value = "redis-server",
        conflicts_with = "broker"
    )]
    pub(crate) redis_server: PathBuf,
    /// Events per second for the latency
    ///
    /// The latency counts from the time at which an event is due, until clients of all
    /// nodes have it.
    #[arg(long, default_value_t = 1000.0, value_parser = rate)]
    pub(crate) rate: f64,
    /// Number of events per run for the latency
    #[arg(long, default_value_t = 5_000, value_parser = within(1..=PUBLICATIONS_MAX))]
    pub(crate) events: usize,
    /// Size of an event's data, in bytes
    #[arg(long, default_value_t = 128, value_parser = within(EVENT_BYTES_MIN..=EVENT_BYTES_MAX))]
    pub(crate) bytes: usize,
    /// Number of events per run for the throughput, from a publisher at each node
    #[arg(long, default_value_t = 600_000, value_parser = within(1..=THROUGHPUT_EVENTS_MAX))]
    pub(crate) throughput_events: usize,
    /// Number of clients of one node for the CPU per delivery
    #[arg(long, default_value_t = 10_000, value_parser = within(1..=CLIENTS_MAX))]
    pub(crate) clients: usize,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Parses a rate per second.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok();
    let rate = rate.filter(|rate| (RATE_MIN..=RATE_MAX).contains(rate));
    rate.ok_or_else(|| format!("use a number per second from {RATE_MIN} to {RATE_MAX}"))
}

/// Parses a time in seconds.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok();
    let seconds = seconds.filter(|seconds| (SECONDS_MIN..=SECONDS_MAX).contains(seconds));
    seconds.ok_or_else(|| format!("use seconds from {SECONDS_MIN} to {SECONDS_MAX}"))
}

/// The digits of an event's number, and a space.
pub(crate) const EVENT_BYTES_MIN: usize = 11;
const EVENT_BYTES_MAX: usize = 1 << 20;
/// More clients than a machine has descriptors.
const CLIENTS_MAX: usize = 10_000_000;
const PUBLICATIONS_MAX: usize = 1_000_000;
const PUBLISHERS_MAX: usize = 10_000;
const THROUGHPUT_EVENTS_MAX: usize = 1_000_000_000;
const NODES_MAX: usize = 100;
/// The load still has all of them when a client receives the first one.
const TOGETHER_MAX: usize = super::client::BODIES_MAX;
const RATE_MIN: f64 = 0.01;
const RATE_MAX: f64 = 1e6;
const SECONDS_MIN: f64 = 0.01;
const SECONDS_MAX: f64 = 86_400.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_times_are_positive_and_finite() {
        assert_eq!((rate("2.5"), seconds("4.5")), (Ok(2.5), Ok(4.5)));
        for text in ["0", "-1", "1e9", "inf", "NaN", "often", ""] {
            assert!(rate(text).unwrap_err().contains("per second"), "{text}");
            assert!(seconds(text).unwrap_err().contains("use seconds"), "{text}");
        }
    }
}
