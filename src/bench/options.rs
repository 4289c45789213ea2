//! What the command line asks for.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// The arguments of `pushwheel bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) scenario: Scenario,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// Clients to whom nothing is published: memory, connecting, heartbeats
    Idle(Idle),
    /// One event at a time to all clients: CPU for each delivery, and latency
    Fanout(Fanout),
    /// Several events published together to all clients
    Burst(Burst),
    /// Clients that come, get a head, and go
    Churn(Churn),
    /// POST requests, pipelined on one kept connection, while nobody subscribes
    Publish(Publish),
}

impl Scenario {
    pub(crate) fn common(&self) -> &Common {
        match self {
            Scenario::Idle(options) => &options.common,
            Scenario::Fanout(options) => &options.common,
            Scenario::Burst(options) => &options.common,
            Scenario::Churn(options) => &options.common,
            Scenario::Publish(options) => &options.common,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Scenario::Idle(_) => "idle",
            Scenario::Fanout(_) => "fanout",
            Scenario::Burst(_) => "burst",
            Scenario::Churn(_) => "churn",
            Scenario::Publish(_) => "publish",
        }
    }
}

/// Which servers, how often, and how to show it.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// A running server instead of our own: where to subscribe
    #[arg(long, requires_all = ["publish_url", "pid"])]
    pub(crate) url: Option<String>,
    /// Where to publish to it, with POST
    #[arg(long, value_name = "URL", requires = "url")]
    pub(crate) publish_url: Option<String>,
    /// Its process, whose CPU time and memory are read
    #[arg(long, requires = "url")]
    pub(crate) pid: Option<u32>,
    /// Another build of pushwheel instead of this one
    #[arg(long, value_name = "PATH", conflicts_with = "url")]
    pub(crate) exe: Option<PathBuf>,
    /// A server to pair it with, run by run: `bare` (a loop of send() over the
    /// sockets), `alone` (itself without what is beside it), `one-thread` (itself
    /// without `--threads`), the URL of one that runs, or the path of another
    /// pushwheel
    #[arg(long, value_name = "SERVER")]
    pub(crate) against: Option<String>,
    /// Where to publish to a running server that is paired
    #[arg(long, value_name = "URL", requires = "against")]
    pub(crate) against_publish_url: Option<String>,
    /// The process of a running server that is paired
    #[arg(long, value_name = "PID", requires = "against")]
    pub(crate) against_pid: Option<u32>,
    /// Runs, or pairs of runs
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: u16,
    /// Threads of our own server; more than one leaves it unpinned
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Print JSON, one object a line, instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// Write a report with plots
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Further arguments of our own server (`pushwheel serve`)
    #[arg(last = true, value_name = "SERVE_ARGUMENTS")]
    pub(crate) serve: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Idle {
    /// How many clients; each takes a descriptor here and in the server
    #[arg(long, value_delimiter = ',', default_value = "1000,18000")]
    pub(crate) clients: Vec<usize>,
    /// Measure heartbeats too: how long to watch them, in seconds. Have the
    /// server send some in that time
    #[arg(long, value_name = "SECONDS")]
    pub(crate) heartbeats_for: Option<f64>,
    /// How often the bare loop sends one, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    pub(crate) bare_heartbeat_ms: u64,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Fanout {
    /// How many clients; each takes a descriptor here and in the server
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    pub(crate) clients: Vec<usize>,
    /// Bytes of an event's data
    #[arg(long, value_delimiter = ',', default_value = "128,1024", value_parser = event_bytes)]
    pub(crate) bytes: Vec<usize>,
    /// Events of each size in a run [default: some 150,000 deliveries]
    #[arg(long)]
    pub(crate) events: Option<usize>,
    /// Events per second [default: one when all clients have the last]
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    #[command(flatten)]
    pub(crate) beside: Beside,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What else our own server has to do.
#[derive(Debug, Args)]
pub(crate) struct Beside {
    /// Clients of other channels
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) beside_clients: usize,
    /// How many other channels, among which those clients are spread
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) beside_channels: usize,
    /// Broadcast to the first of the other channels without pause
    #[arg(long)]
    pub(crate) beside_busy: bool,
    /// Clients of the channel itself that never read, and whose sockets are full
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) stuck: usize,
}

impl Beside {
    /// Whether it has channels beside the one that is measured.
    pub(super) fn has_channels(&self) -> bool {
        self.beside_clients > 0 || self.beside_channels > 1
    }
}

#[derive(Debug, Args)]
pub(crate) struct Burst {
    /// How many clients; each takes a descriptor here and in the server
    #[arg(long, value_delimiter = ',', default_value = "5000")]
    pub(crate) clients: Vec<usize>,
    /// Bytes of an event's data
    #[arg(long, value_delimiter = ',', default_value = "128", value_parser = event_bytes)]
    pub(crate) bytes: Vec<usize>,
    /// Events published together, as one NDJSON body
    #[arg(long, default_value_t = 32)]
    pub(crate) together: usize,
    /// As so many pipelined requests, for servers that know no batches
    #[arg(long)]
    pub(crate) pipelined: bool,
    /// Bursts in a run
    #[arg(long, default_value_t = 20)]
    pub(crate) bursts: usize,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Churn {
    /// Clients that are connected all the while
    #[arg(long, value_delimiter = ',', default_value = "0")]
    pub(crate) clients: Vec<usize>,
    /// Clients that come and go in a run
    #[arg(long, default_value_t = 10_000)]
    pub(crate) visits: usize,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// Events in a request; more than one make an NDJSON body
    #[arg(long, value_delimiter = ',', default_value = "1,100")]
    pub(crate) batch: Vec<usize>,
    /// Bytes of an event's data
    #[arg(long, default_value_t = 32, value_parser = event_bytes)]
    pub(crate) bytes: usize,
    /// Events in a run
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) events: usize,
    /// Events on their way at the same time, in no fewer than four requests
    #[arg(long, default_value_t = 512)]
    pub(crate) depth: usize,
    #[command(flatten)]
    pub(crate) common: Common,
}

fn event_bytes(text: &str) -> Result<usize, String> {
    let bytes = text.parse().map_err(|_| "not a number".to_owned())?;
    if bytes < EVENT_BYTES_MIN {
        return Err(format!(
            "an event needs {EVENT_BYTES_MIN} bytes for its number"
        ));
    }
    Ok(bytes)
}

/// The digits of an event's number, and a space.
pub(crate) const EVENT_BYTES_MIN: usize = 11;
