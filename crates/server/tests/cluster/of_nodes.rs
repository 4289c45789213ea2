//! Nodes that are killed, deployed, started late and slow. Redis keeps all that it has
//! accepted, so nothing is lost.

use std::time::{Duration, Instant};

use crate::common::{Subscriber, eventually};
use crate::load::{Load, Size};
use crate::nodes::{Balancer, Node};
use crate::oracle::history;
use crate::setting::{Cluster, number_of, url};

#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn an_event_published_on_any_node_reaches_all_clients_in_one_order() {
    let mut cluster = Cluster::start("any", 3, &[]);
    let addresses = cluster.addresses();
    let size = Size {
        pause_us: 10_000,
        ..Size::default()
    };
    let load = Load::start(&size, &mut cluster.rng, &addresses, &addresses);
    load.wait_for(1_000);
    let outcome = load.finish();
    let sums = outcome.check_that_nothing_is_lost();
    eprintln!("{sums:?}");
    assert_eq!((sums.refused, sums.doubtful), (0, 0));
    assert_eq!(sums.streams, size.clients, "a stream has ended");
    // What one node has, all have.
    let nodes: Vec<&Node> = cluster.nodes.iter().collect();
    outcome.check_that_losses_are_told(&nodes, true);
}

/// Behind HAProxy, with publishers behind it too: a request to a killed node has no answer,
/// and its event is there or not.
#[test]
#[ignore = "needs redis-server and haproxy: tests/run cluster"]
fn nothing_is_lost_when_nodes_are_killed() {
    let rounds = number_of("PUSHWHEEL_ROUNDS").unwrap_or(20);
    let mut cluster = Cluster::start("killed", 3, &[]);
    let balancer = Balancer::start(cluster.path(), &cluster.nodes);
    let at = [balancer.address];
    let size = Size::of_many(500);
    let load = Load::start(&size, &mut cluster.rng, &at, &at);
    for _ in 0..rounds {
        load.wait_for(20);
        let killed = cluster.rng.usize(..cluster.nodes.len());
        cluster.nodes[killed].kill();
        load.wait_for(20);
        cluster.nodes[killed].start_again();
        cluster.nodes[killed].wait_until_ready();
    }
    let outcome = load.finish();
    outcome.check_nodes(&cluster.nodes);
    let sums = outcome.check_that_nothing_is_lost();
    eprintln!("{rounds} kills: {sums:?}");
    assert!(sums.streams > size.clients, "no client came back");
}

/// As a deploy does it: one after the other, each ready before the next one ends.
#[test]
#[ignore = "needs redis-server and haproxy: tests/run cluster"]
fn a_rolling_restart_costs_no_client_an_event_or_a_gap() {
    let mut cluster = Cluster::start("rolling", 3, &["--shutdown-window", "2"]);
    let balancer = Balancer::start(cluster.path(), &cluster.nodes);
    let at = [balancer.address];
    let size = Size::of_many(1_000);
    let load = Load::start(&size, &mut cluster.rng, &at, &at);
    for node in &mut cluster.nodes {
        load.wait_for(20);
        node.end();
        node.start_again();
        node.wait_until_ready();
    }
    load.wait_for(20);
    let outcome = load.finish();
    outcome.check_nodes(&cluster.nodes);
    let sums = outcome.check_that_nothing_is_lost();
    eprintln!("{sums:?}");
    assert!(sums.streams > size.clients, "no client came back");
}

#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn a_node_that_starts_late_has_what_the_others_have() {
    let mut cluster = Cluster::start("late", 2, &[]);
    let addresses = cluster.addresses();
    let load = Load::start(&Size::default(), &mut cluster.rng, &addresses, &addresses);
    load.wait_for(200);
    let late = Node::start("late", &url(cluster.redis.address()), &[]);
    late.wait_until_ready();
    load.wait_for(100);
    let outcome = load.finish();
    outcome.check_that_nothing_is_lost();
    for channel in &outcome.channels {
        assert_eq!(
            history(&late, channel),
            history(&cluster.nodes[0], channel),
            "{channel}"
        );
    }
}

/// The client that saw an event on one node resumes on another, and misses nothing, also if
/// that node has not read the event yet.
#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn a_client_that_is_ahead_of_a_node_waits_for_it() {
    let cluster = Cluster::start("ahead", 2, &[]);
    let [first, second] = &cluster.nodes[..] else {
        panic!("two nodes");
    };
    let post = |data: &str| {
        let mut connection = crate::common::Connection::open(first.address);
        let answer = connection.post("/channels/ahead", data);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        answer["id"].as_str().unwrap().to_owned()
    };
    post("1");
    for round in 0..20 {
        second.signal("STOP");
        let id = post(&format!("{round} before"));
        second.signal("CONT");
        let headers = [("Last-Event-ID", &*id)];
        let mut ahead = Subscriber::open(second.address, "/channels/ahead", &headers);
        let after = format!("{round} after");
        post(&after);
        let event = ahead.next();
        assert_eq!((&*event.name, &*event.data), ("message", &*after));
    }
    // An id that no node has ever given is a gap, soon.
    let (epoch, number) = post("2")
        .rsplit_once('-')
        .map(|(e, n)| (e.to_owned(), n.to_owned()))
        .unwrap();
    let forged = format!("{epoch}-{}", number.parse::<u64>().unwrap() + 1_000_000);
    let asked = Instant::now();
    let mut ahead = Subscriber::open(
        second.address,
        "/channels/ahead",
        &[("Last-Event-ID", &forged)],
    );
    let gap = ahead.next();
    assert_eq!(gap.name, "pushwheel.gap");
    assert!(gap.data.contains("unknown"), "{}", gap.data);
    assert!(
        asked.elapsed() < Duration::from_secs(3),
        "{:?}",
        asked.elapsed()
    );
}

/// A node that stands still hinders no other one, and goes on where it was.
#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn a_node_that_stands_still_goes_on_where_it_was() {
    let mut cluster = Cluster::start("slow", 3, &[]);
    let addresses = cluster.addresses();
    let size = Size {
        silence_max: Duration::from_secs(60),
        has_own_ids: false,
        ..Size::default()
    };
    let load = Load::start(&size, &mut cluster.rng, &addresses, &addresses[1..]);
    load.wait_for(50);
    cluster.nodes[0].signal("STOP");
    let stopped = Instant::now();
    let still = number_of("PUSHWHEEL_SECONDS").unwrap_or(8);
    while stopped.elapsed() < Duration::from_secs(still) {
        load.wait_for(50);
    }
    cluster.nodes[0].signal("CONT");
    load.wait_for(50);
    let outcome = load.finish();
    outcome.check_nodes(&cluster.nodes);
    let sums = outcome.check_that_nothing_is_lost();
    eprintln!("{sums:?}");
    assert_eq!(sums.streams, size.clients, "a stream has ended");
}

/// It was away for longer than the log in Redis reaches back: it takes a snapshot over, and
/// its streams go on.
#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn a_node_that_was_away_for_too_long_takes_a_snapshot_over() {
    // What a snapshot has goes beyond 64 KiB, however young it is.
    let options = ["--broker-retain-bytes", "65536", "--broker-snapshot", "1"];
    let mut cluster = Cluster::start("away", 3, &options);
    let addresses = cluster.addresses();
    let size = Size {
        silence_max: Duration::from_secs(60),
        has_own_ids: false,
        pause_us: 20_000,
        ..Size::default()
    };
    let load = Load::start(&size, &mut cluster.rng, &addresses, &addresses[1..]);
    load.wait_for(50);
    cluster.nodes[0].signal("STOP");
    let newest = || {
        cluster
            .redis
            .ask(&["xrevrange", "{pushwheel}:log", "+", "-", "count", "1"])
    };
    let newest_id = newest().lines().next().unwrap_or_default().to_owned();
    eventually("Redis has dropped what the node has not read", || {
        let oldest = cluster
            .redis
            .ask(&["xrange", "{pushwheel}:log", "-", "+", "count", "1"]);
        let oldest_id = oldest.lines().next().unwrap_or_default().to_owned();
        let number = |id: &str| id.split('-').next().and_then(|n| n.parse::<u64>().ok());
        number(&oldest_id) > number(&newest_id)
    });
    cluster.nodes[0].signal("CONT");
    load.wait_for(50);
    let outcome = load.finish();
    let nodes: Vec<&Node> = cluster.nodes.iter().collect();
    let sums = outcome.check_that_losses_are_told(&nodes, true);
    eprintln!("{sums:?}");
    assert_eq!(
        (sums.streams, sums.lost),
        (size.clients, 0),
        "a stream has ended"
    );
    assert!(cluster.nodes[0].metric("pushwheel_broker_resyncs_total") >= 1.0);
}
