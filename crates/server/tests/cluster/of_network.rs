//! Connections between nodes and Redis that break at any place, or carry nothing.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::eventually;
use crate::directory::Directory;
use crate::load::{Load, Size};
use crate::nodes::Node;
use crate::redis::Redis;
use crate::relay::{Cut, Relay, Way};
use crate::setting::{drawn, number_of, url};

/// The time after which a node has found out by itself that the network works again.
const HEALS_WITHIN: Duration = Duration::from_secs(5);

/// The address of the other namespace that `tests/run cluster` makes.
const FAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 2));

/// Two nodes, one of them behind a proxy. The publishers use that one.
struct Setting {
    relay: Relay,
    load: Load,
    nodes: [Node; 2],
    _redis: Redis,
    _directory: Directory,
}

fn start(name: &str) -> Setting {
    let directory = Directory::new(&format!("cluster-{name}"));
    let mut rng = drawn(name);
    let redis = Redis::start(directory.path(), "redis", &[]);
    let relay = Relay::to(redis.address());
    let nodes = [
        Node::start("behind", &url(relay.address()), &[]),
        Node::start("direct", &url(redis.address()), &[]),
    ];
    nodes.iter().for_each(Node::wait_until_ready);
    let addresses = nodes.each_ref().map(|node| node.address);
    let load = Load::start(&Size::default(), &mut rng, &addresses, &addresses[..1]);
    Setting {
        relay,
        load,
        nodes,
        _redis: redis,
        _directory: directory,
    }
}

/// The append is in the log once, and each publisher is answered 200.
#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn an_append_is_carried_out_once_wherever_its_connection_breaks() {
    let setting = start("cut");
    let rounds = number_of("PUSHWHEEL_ROUNDS").unwrap_or(3);
    for cut in (0..rounds).flat_map(|_| Cut::ALL) {
        setting.load.wait_for(20);
        setting.relay.cut_the_next(cut);
        eventually("the connection is cut", || setting.relay.has_cut());
        setting.load.wait_for(20);
    }
    let sums = setting.load.finish().check_that_nothing_is_lost();
    eprintln!("{sums:?}");
    assert_eq!((sums.refused, sums.doubtful), (0, 0));
    // Each cut has cost a session.
    let sessions = setting.nodes[0].metric("pushwheel_broker_sessions_total");
    assert!(sessions >= 4.0 * rounds as f64, "{sessions}");
}

/// Requests that were held back arrive late, when their block is in the log already.
#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn a_way_that_carries_nothing_is_found_out_in_both_directions() {
    let setting = start("one-way");
    for way in [Way::NoReplies, Way::BlackHole] {
        for seconds in [1, 4] {
            setting.load.wait_for(20);
            setting.relay.set(way);
            let began = Instant::now();
            eventually("the time is over", || {
                began.elapsed() > Duration::from_secs(seconds)
            });
            setting.relay.set(Way::Open);
            let opened = Instant::now();
            setting.load.wait_for(20);
            eprintln!("{way:?} for {seconds} s: heals in {:?}", opened.elapsed());
            assert!(opened.elapsed() < HEALS_WITHIN, "{:?}", opened.elapsed());
        }
    }
    let sums = setting.load.finish().check_that_nothing_is_lost();
    eprintln!("{sums:?}");
    assert_eq!(sums.streams, 200, "a stream has ended");
}

#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn a_slow_way_delays_events_and_nothing_else() {
    let setting = start("delayed");
    setting.load.wait_for(20);
    setting.relay.delay(Duration::from_millis(100));
    setting.load.wait_for(100);
    setting.relay.delay(Duration::ZERO);
    setting.load.wait_for(20);
    let sums = setting.load.finish().check_that_nothing_is_lost();
    eprintln!("{sums:?}");
    assert_eq!((sums.refused, sums.doubtful, sums.streams), (0, 0, 200));
}

/// Redis in a network of its own, whose cable is pulled out: no packet says so.
#[test]
#[ignore = "needs redis-server and network namespaces: tests/run cluster"]
fn a_black_hole_is_found_out_by_time_alone() {
    let Ok(peer) = std::env::var("PUSHWHEEL_PEER") else {
        // The step says that it was skipped.
        return;
    };
    let cable = |state: &str| {
        let arguments = ["-n", &peer, "link", "set", "far", state];
        assert!(
            Command::new("ip")
                .args(arguments)
                .status()
                .unwrap()
                .success()
        );
    };
    let directory = Directory::new("cluster-black-hole");
    let mut rng = drawn("black-hole");
    let redis = Redis::in_namespace(directory.path(), &peer, FAR);
    let broker = url(redis.address());
    let nodes = ["n1", "n2"].map(|name| Node::start(name, &broker, &[]));
    nodes.iter().for_each(Node::wait_until_ready);
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
    let load = Load::start(&Size::default(), &mut rng, &addresses, &addresses);
    load.wait_for(50);
    cable("down");
    let down = Instant::now();
    eventually("the time is over", || {
        down.elapsed() > Duration::from_secs(10)
    });
    assert!(load.clients.are_all_streaming(), "streams have ended");
    cable("up");
    let up = Instant::now();
    load.wait_for(50);
    eprintln!("heals in {:?}", up.elapsed());
    assert!(up.elapsed() < HEALS_WITHIN, "{:?}", up.elapsed());
    let sums = load.finish().check_that_nothing_is_lost();
    eprintln!("{sums:?}");
    assert_eq!(sums.streams, 200, "a stream has ended");
}
