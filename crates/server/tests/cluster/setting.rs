//! What each test starts: Redis, nodes, and the seed.

use std::net::SocketAddr;
use std::path::Path;

use fastrand::Rng;

use crate::directory::Directory;
use crate::nodes::Node;
use crate::redis::Redis;

/// A cluster on this machine. Dropped, all of it ends.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) redis: Redis,
    pub(crate) directory: Directory,
    pub(crate) rng: Rng,
}

impl Cluster {
    /// Starts a Redis and nodes that reach it directly.
    pub(crate) fn start(name: &str, nodes: usize, options: &[&str]) -> Cluster {
        let directory = Directory::new(&format!("cluster-{name}"));
        let redis = Redis::start(directory.path(), "redis", &[]);
        let url = url(redis.address());
        let nodes = (1..=nodes)
            .map(|n| Node::start(&format!("n{n}"), &url, options))
            .collect();
        let cluster = Cluster {
            nodes,
            redis,
            directory,
            rng: drawn(name),
        };
        cluster.wait_until_ready();
        cluster
    }

    pub(crate) fn wait_until_ready(&self) {
        for node in &self.nodes {
            node.wait_until_ready();
        }
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("redis://{address}")
}

/// Returns the value of an environment variable.
pub(crate) fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Returns random numbers from `PUSHWHEEL_SEED` or from a seed that is printed.
pub(crate) fn drawn(name: &str) -> Rng {
    let seed = number_of("PUSHWHEEL_SEED").unwrap_or_else(|| Rng::new().u64(..));
    eprintln!("{name}: PUSHWHEEL_SEED={seed}");
    Rng::with_seed(seed)
}
