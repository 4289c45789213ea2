//! What a server knows of its cluster: the nodes, and values that all nodes share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

use super::clock::{Stopwatch, as_ms};
use pushwheel::cluster::{ClusterStatus, NodeStatus};
use pushwheel::{ChannelManager, SharedValues};

/// How old the number of nodes in an answer may be. Nodes report themselves each second.
const COUNT_AGE_MAX: Duration = Duration::from_millis(250);

/// A node's view of its cluster. All clones share it.
#[derive(Clone)]
pub(super) struct Cluster {
    pub(super) values: SharedValues,
    /// The time without the broker after which this node is not ready.
    grace: Option<Duration>,
    count: Arc<Count>,
}

/// The number of nodes, at the time when it was counted.
struct Count {
    stopwatch: Stopwatch,
    nodes: AtomicUsize,
    counted_at_ms: AtomicU64,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    /// Returns the cluster of which the channels are a node, if there is one.
    pub(super) fn of(channels: &ChannelManager, grace: Option<Duration>) -> Option<Cluster> {
        Some(Cluster {
            values: channels.shared_values()?,
            grace,
            count: Arc::new(Count {
                stopwatch: Stopwatch::start(),
                nodes: AtomicUsize::new(0),
                counted_at_ms: AtomicU64::new(0),
            }),
        })
    }

    /// Returns the number of nodes: an answer that has it is about this node only.
    pub(super) fn nodes(&self, channels: &ChannelManager) -> usize {
        let count = &*self.count;
        let now_ms = as_ms(count.stopwatch.now());
        let counted_at_ms = count.counted_at_ms.load(Relaxed);
        let nodes = count.nodes.load(Relaxed);
        let age = Duration::from_millis(now_ms.saturating_sub(counted_at_ms));
        if nodes > 0 && age < COUNT_AGE_MAX {
            return nodes;
        }
        let status = channels.cluster_status();
        let nodes = status.map_or(1, |status| status.nodes.len().max(1));
        count.nodes.store(nodes, Relaxed);
        count.counted_at_ms.store(now_ms, Relaxed);
        nodes
    }

    /// Whether the node has been without its broker for too long, or for good.
    pub(super) fn is_cut_off(&self, channels: &ChannelManager) -> bool {
        channels.cluster_status().is_some_and(|status| {
            let is_over = |grace| status.disconnected_for.is_some_and(|time| time >= grace);
            status.stopped.is_some() || self.grace.is_some_and(is_over)
        })
    }
}

/// The cluster in `GET /stats`.
#[derive(Serialize)]
pub(super) struct ClusterBody {
    broker: String,
    connected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnected_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<String>,
    applied: u64,
    lag_ms: f64,
    queued: usize,
    refused: u64,
    lost: u64,
    keeper: bool,
    nodes: Vec<NodeBody>,
}

/// A node of the cluster, as its newest report has it.
#[derive(Serialize)]
struct NodeBody {
    id: String,
    name: String,
    version: String,
    this: bool,
    applied: u64,
    clients: u64,
    channels: u64,
    draining: bool,
    other_options: bool,
    age_ms: f64,
}

impl From<ClusterStatus> for ClusterBody {
    fn from(status: ClusterStatus) -> ClusterBody {
        ClusterBody {
            broker: status.broker,
            connected: status.is_connected,
            disconnected_s: status.disconnected_for.map(|time| time.as_secs_f64()),
            error: status.error,
            stopped: status.stopped,
            applied: status.applied,
            lag_ms: ms(status.lag),
            queued: status.queued,
            refused: status.refused,
            lost: status.lost,
            keeper: status.is_keeper,
            nodes: status.nodes.into_iter().map(NodeBody::from).collect(),
        }
    }
}

impl From<NodeStatus> for NodeBody {
    fn from(node: NodeStatus) -> NodeBody {
        NodeBody {
            id: node.id.to_string(),
            name: node.name,
            version: node.version,
            this: node.is_this,
            applied: node.applied,
            clients: node.clients,
            channels: node.channels,
            draining: node.is_draining,
            other_options: node.has_other_options,
            age_ms: ms(node.age),
        }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
