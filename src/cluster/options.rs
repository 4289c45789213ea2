//! The options of a node.

use std::time::Duration;

/// The options of a node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterOptions {
    /// The name of the node in [`ClusterStatus`](super::ClusterStatus).
    pub node_name: String,
    /// The version of the program there.
    pub version: String,
    /// A number that is the same on nodes whose channels have the same options.
    pub options_digest: u64,
    /// See [`join_timeout`](Self::join_timeout).
    pub join_timeout: Duration,
    /// See [`publish_timeout`](Self::publish_timeout).
    pub publish_timeout: Duration,
    /// See [`retention`](Self::retention).
    pub retention: Duration,
    /// See [`retention_bytes`](Self::retention_bytes).
    pub retention_bytes: u64,
    /// See [`snapshot_every`](Self::snapshot_every).
    pub snapshot_every: Duration,
}

impl ClusterOptions {
    /// Returns the defaults, which the methods document, for a node of this name.
    #[must_use]
    pub fn new(node_name: impl Into<String>) -> ClusterOptions {
        ClusterOptions {
            node_name: node_name.into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            options_digest: 0,
            join_timeout: Duration::from_secs(30),
            publish_timeout: Duration::from_secs(5),
            retention: Duration::from_secs(600),
            retention_bytes: 256 << 20,
            snapshot_every: Duration::from_secs(60),
        }
    }

    /// Sets the version of the program, for operators. Default: that of this package.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Sets a number that is the same on nodes whose channels have the same options, such as
    /// a hash of the configuration. Nodes with different options keep different histories.
    /// Default: 0.
    #[must_use]
    pub fn options_digest(mut self, digest: u64) -> Self {
        self.options_digest = digest;
        self
    }

    /// Sets the maximum time for which joining waits for the broker, and for the log to be
    /// read. Default: 30 s.
    #[must_use]
    pub fn join_timeout(mut self, time: Duration) -> Self {
        self.join_timeout = time;
        self
    }

    /// Sets the maximum time for which a publish waits for the broker. Default: 5 s.
    #[must_use]
    pub fn publish_timeout(mut self, time: Duration) -> Self {
        self.publish_timeout = time;
        self
    }

    /// Sets the time for which the log keeps a block that a snapshot has. Default: ten
    /// minutes.
    #[must_use]
    pub fn retention(mut self, time: Duration) -> Self {
        self.retention = time;
        self
    }

    /// Sets the size of all blocks beyond which the log keeps no block that a snapshot has.
    /// Default: 256 MiB.
    #[must_use]
    pub fn retention_bytes(mut self, bytes: u64) -> Self {
        self.retention_bytes = bytes;
        self
    }

    /// Sets the time between two snapshots of the cluster. Default: a minute.
    #[must_use]
    pub fn snapshot_every(mut self, time: Duration) -> Self {
        self.snapshot_every = time;
        self
    }
}
