//! Redis that stops, dies, forgets and fails over. What it loses is told in the streams that
//! had it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::eventually;
use crate::directory::Directory;
use crate::load::{Load, Size};
use crate::nodes::Node;
use crate::oracle::{Outcome, Sums};
use crate::redis::{PRIMARY, Redis};
use crate::relay::{Relay, Way};
use crate::setting::{Cluster, drawn, number_of, url};

/// The longest time until publishes are accepted again.
const HEALS_WITHIN: Duration = Duration::from_secs(5);

/// Own ids are published again after a loss, and then they are there twice.
fn size() -> Size {
    Size {
        has_own_ids: false,
        ..Size::default()
    }
}

fn told(outcome: &Outcome, nodes: &[Node]) -> Sums {
    let nodes: Vec<&Node> = nodes.iter().collect();
    let sums = outcome.check_that_losses_are_told(&nodes, true);
    eprintln!("{sums:?}");
    sums
}

/// Publishes wait for a second, and are refused or unconfirmed after five.
#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn publishes_wait_while_redis_stands_still() {
    let mut cluster = Cluster::start("still", 3, &[]);
    let addresses = cluster.addresses();
    let load = Load::start(&Size::default(), &mut cluster.rng, &addresses, &addresses);
    for seconds in [1, 10] {
        load.wait_for(50);
        cluster.redis.signal(Signal::SIGSTOP);
        let stopped = Instant::now();
        eventually("the time is over", || {
            stopped.elapsed() > Duration::from_secs(seconds)
        });
        let streaming = load.clients.are_all_streaming();
        cluster.redis.signal(Signal::SIGCONT);
        let goes_on = Instant::now();
        assert!(streaming, "streams have ended");
        load.wait_for(50);
        eprintln!("{seconds} s: heals in {:?}", goes_on.elapsed());
        assert!(goes_on.elapsed() < HEALS_WITHIN, "{:?}", goes_on.elapsed());
    }
    let sums = load.finish().check_that_nothing_is_lost();
    eprintln!("{sums:?}");
    assert_eq!(sums.streams, 200, "a stream has ended");
    assert!(
        sums.refused > 0 && sums.doubtful > 0,
        "no publish has failed: {sums:?}"
    );
    for node in &cluster.nodes {
        let log = node.log();
        let lines = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        // Once: a second is too short to be reported.
        assert_eq!((lines("is lost"), lines("is back")), (1, 1), "{log}");
    }
}

#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn redis_may_be_killed_and_started_with_its_file() {
    let mut cluster = Cluster::start("killed-redis", 3, &[]);
    let addresses = cluster.addresses();
    let load = Load::start(&size(), &mut cluster.rng, &addresses, &addresses);
    for _ in 0..number_of("PUSHWHEEL_ROUNDS").unwrap_or(3) {
        load.wait_for(50);
        cluster.redis.kill();
        load.wait_for_requests(8);
        cluster.redis.restart();
        load.wait_for(50);
    }
    let sums = told(&load.finish(), &cluster.nodes);
    assert_eq!(sums.streams, 200, "a stream has ended");
}

#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn a_redis_without_memory_gets_it_from_a_node() {
    let mut cluster = Cluster::start("empty", 3, &[]);
    let addresses = cluster.addresses();
    let load = Load::start(&size(), &mut cluster.rng, &addresses, &addresses);
    for round in 0..number_of("PUSHWHEEL_ROUNDS").unwrap_or(4) {
        load.wait_for(50);
        if round % 2 == 0 {
            cluster.redis.restart_empty();
        } else {
            cluster.redis.ask(&["flushall"]);
        }
    }
    load.wait_for(50);
    let sums = told(&load.finish(), &cluster.nodes);
    assert_eq!(sums.streams, 200, "a stream has ended");
}

/// A primary and a replica behind an address that moves, as a managed service has it. The
/// replication stands still before the primary dies, so its last blocks are lost.
fn lose_a_tail(name: &str, options: &[&str]) -> Sums {
    let directory = Directory::new(&format!("cluster-{name}"));
    let mut rng = drawn(name);
    let mut primary = Redis::start(directory.path(), "a", &[]);
    let replication = Relay::to(primary.address());
    let replica = replica_of(&directory, "b", replication.address());
    // As soon as that is the primary, this one is its replica.
    let _next = replica_of(&directory, "c", replica.address());
    let front = Relay::to(primary.address());
    let broker = url(front.address());
    let nodes: Vec<Node> = (1..=3)
        .map(|n| Node::start(&format!("n{n}"), &broker, options))
        .collect();
    nodes.iter().for_each(Node::wait_until_ready);
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
    let load = Load::start(&size(), &mut rng, &addresses, &addresses);
    load.wait_for(100);
    replication.set(Way::BlackHole);
    // With --broker-replicas, each of the eight publishers waits.
    load.wait_for_requests(24);
    primary.kill();
    front.set(Way::Closed);
    front.cut();
    assert_eq!(replica.ask(&["replicaof", "no", "one"]), "OK");
    front.lead_to(replica.address());
    front.set(Way::Open);
    load.wait_for(100);
    told(&load.finish(), &nodes)
}

#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn the_tail_that_a_failover_loses_is_told() {
    let sums = lose_a_tail("tail", &[]);
    assert!(sums.lost > 0, "nothing was lost: {sums:?}");
    assert!(sums.gaps["lost"] >= 200, "{sums:?}");
}

#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn nothing_that_a_replica_has_confirmed_is_lost() {
    let sums = lose_a_tail(
        "replicas",
        &["--broker-replicas", "1", "--broker-timeout", "2"],
    );
    assert_eq!(sums.lost, 0, "{sums:?}");
    assert!(
        sums.doubtful > 0,
        "the replica was not waited for: {sums:?}"
    );
}

/// Returns the value of a field in a reply.
fn value<'a>(reply: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = reply.lines().skip_while(|line| *line != name);
    lines.nth(1)
}

/// Starts a replica, and waits until it has what its primary has.
fn replica_of(directory: &Directory, name: &str, primary: SocketAddr) -> Redis {
    let (host, port) = (primary.ip().to_string(), primary.port().to_string());
    let replica = Redis::start(directory.path(), name, &["--replicaof", &host, &port]);
    eventually("the replica follows", || {
        replica.info("master_link_status") == "up"
    });
    replica
}

#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn sentinels_fail_over_under_load() {
    let directory = Directory::new("cluster-sentinel");
    let mut rng = drawn("sentinel");
    let primary = Redis::start(directory.path(), "a", &[]);
    let replica = replica_of(&directory, "b", primary.address());
    let sentinels =
        ["s1", "s2", "s3"].map(|name| Redis::sentinel(directory.path(), name, &primary));
    eventually("the sentinels know each other and the replica", || {
        let known = |sentinel: &Redis| {
            let primary = sentinel.ask(&["sentinel", "master", PRIMARY]);
            let others = value(&primary, "num-other-sentinels");
            (value(&primary, "num-slaves"), others) == (Some("1"), Some("2"))
        };
        sentinels.iter().all(known)
    });
    let addresses = sentinels
        .each_ref()
        .map(|sentinel| sentinel.address().to_string());
    let broker = format!("redis+sentinel://{}/{PRIMARY}", addresses.join(","));
    let nodes: Vec<Node> = (1..=3)
        .map(|n| Node::start(&format!("n{n}"), &broker, &[]))
        .collect();
    nodes.iter().for_each(Node::wait_until_ready);
    let at: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
    // All clients have one thread, and a node ends the stream of a client that does not read.
    let size = Size {
        pause_us: 200_000,
        ..size()
    };
    let load = Load::start(&size, &mut rng, &at, &at);
    let mut servers = [primary, replica];
    for way in ["asked", "killed", "asked"] {
        load.wait_for(100);
        let is_primary = |redis: &Redis| redis.info("role") == "master";
        let old = servers
            .iter()
            .position(is_primary)
            .expect("one is the primary");
        if way == "asked" {
            assert_eq!(sentinels[0].ask(&["sentinel", "failover", PRIMARY]), "OK");
        } else {
            servers[old].kill();
        }
        eventually("the other one is the primary", || {
            is_primary(&servers[1 - old])
        });
        load.wait_for(100);
        if way == "killed" {
            servers[old].restart();
        }
        eventually("the old primary follows the new one", || {
            let follows = servers[old].info("master_link_status") == "up";
            let state = sentinels[0].ask(&["sentinel", "replicas", PRIMARY]);
            // Otherwise it would not be promoted again.
            follows && value(&state, "flags") == Some("slave")
        });
    }
    let sums = told(&load.finish(), &nodes);
    assert_eq!(sums.streams, 200, "a stream has ended");
}
