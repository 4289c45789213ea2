//! The state of a node and of its cluster, for operators.

use std::time::Duration;

use uuid::Uuid;

use crate::metrics::Histogram;

/// The state of a node of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// The address of the broker, without a password.
    pub broker: String,
    /// Whether what this node appends to the log comes back to it.
    pub is_connected: bool,
    /// The time for which this node has been disconnected.
    pub disconnected_for: Option<Duration>,
    /// The newest error of the broker, while the node is not connected.
    pub error: Option<String>,
    /// Why this node no longer follows the log. The node has to be restarted.
    pub stopped: Option<String>,
    /// The newest number that this node has applied.
    pub applied: u64,
    /// The time from an append to the moment at which this node has applied it, as its
    /// newest probe has had it.
    pub lag: Duration,
    /// The number of publishes and other changes that wait to be appended, or to be read.
    pub queued: usize,
    /// Their size, in bytes.
    pub queued_bytes: usize,
    /// The number of those that were refused, or not confirmed in time.
    pub refused: u64,
    /// The durations of appends.
    pub appends: Histogram,
    /// The number of blocks that were read.
    pub blocks: u64,
    /// The bytes of these blocks.
    pub block_bytes: u64,
    /// The number of blocks that were appended when an answer was missing, and were in the
    /// log already.
    pub repeated: u64,
    /// The number of sessions that were opened.
    pub sessions: u64,
    /// The number of terms of the log that have begun since the node has joined.
    pub terms: u64,
    /// Count of numbers that this node had applied and the log has lost.
    pub lost: u64,
    /// The number of times that this node has fallen behind what the log keeps.
    pub resyncs: u64,
    /// The number of requests for streams that wait for the log.
    pub waiting_joins: usize,
    /// Whether this node makes snapshots and trims the log.
    pub is_keeper: bool,
    /// The nodes, this one included, by name.
    pub nodes: Vec<NodeStatus>,
}

/// The state of one of the nodes, as it was at its newest probe: at most about a second ago,
/// or up to five if it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStatus {
    /// The random number of the process.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The version of its program.
    pub version: String,
    /// Whether it is this node.
    pub is_this: bool,
    /// The newest number that it had applied.
    pub applied: u64,
    /// The number of its clients. A stream of several channels counts once for each.
    pub clients: u64,
    /// The number of its channels.
    pub channels: u64,
    /// Whether it ends its streams because it is shut down.
    pub is_draining: bool,
    /// Whether the options of its channels differ from those of this node.
    pub has_other_options: bool,
    /// The age of its probe.
    pub age: Duration,
}
