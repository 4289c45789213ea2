//! Faults of all kinds, drawn from a seed, and in the end the log in Redis itself against
//! what each client has received.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::eventually;
use crate::directory::Directory;
use crate::load::{Load, Size};
use crate::nodes::{Balancer, Node};
use crate::oracle::Outcome;
use crate::redis::Redis;
use crate::relay::{Cut, Relay, Way};
use crate::setting::{drawn, number_of, url};

/// What is done to the cluster.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillNode,
    RestartNode,
    StopNode,
    StopRedis,
    KillRedis,
    CutAppend(Cut),
    CutAll,
    NoReplies,
    BlackHole,
    Delay,
}

impl Fault {
    fn drawn(rng: &mut fastrand::Rng) -> Fault {
        match rng.u8(..10) {
            0 => Fault::KillNode,
            1 => Fault::RestartNode,
            2 => Fault::StopNode,
            3 => Fault::StopRedis,
            4 => Fault::KillRedis,
            5 => Fault::CutAppend(*rng.choice(&Cut::ALL).expect("there are four")),
            6 => Fault::CutAll,
            7 => Fault::NoReplies,
            8 => Fault::BlackHole,
            _ => Fault::Delay,
        }
    }
}

/// Redis writes each block to its disk before its reply and never drops one, so nothing may
/// be lost.
#[test]
#[ignore = "needs redis-server and haproxy: tests/run cluster"]
fn nothing_is_lost_by_any_faults_while_redis_keeps_its_log() {
    let mut rng = drawn("soak");
    let seconds = number_of("PUSHWHEEL_SECONDS").unwrap_or(60);
    let directory = Directory::new("cluster-soak");
    let mut redis = Redis::start(directory.path(), "redis", &["--appendfsync", "always"]);
    let relays: Vec<Relay> = (0..3).map(|_| Relay::to(redis.address())).collect();
    // Without trimming.
    let options = [
        "--broker-retain",
        "86400",
        "--broker-retain-bytes",
        "4000000000",
    ];
    let node = |n: usize| Node::start(&format!("n{n}"), &url(relays[n].address()), &options);
    let mut nodes: Vec<Node> = (0..3).map(node).collect();
    nodes.iter().for_each(Node::wait_until_ready);
    let balancer = Balancer::start(directory.path(), &nodes);
    let at = [balancer.address];
    let load = Load::start(&Size::of_many(300), &mut rng, &at, &at);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        load.wait_for(10);
        let fault = Fault::drawn(&mut rng);
        let of = rng.usize(..nodes.len());
        let time = Duration::from_millis(rng.u64(10..4_000));
        eprintln!(
            "{:5.1} s: {fault:?} of n{of} for {time:?}",
            began.elapsed().as_secs_f64()
        );
        let since = Instant::now();
        let waited = || eventually("the time is over", || since.elapsed() > time);
        let (node, relay) = (&mut nodes[of], &relays[of]);
        match fault {
            Fault::KillNode => {
                node.kill();
                waited();
                node.start_again();
            }
            Fault::RestartNode => {
                node.end();
                node.start_again();
            }
            Fault::StopNode => {
                node.signal("STOP");
                waited();
                node.signal("CONT");
            }
            Fault::StopRedis => {
                redis.signal(Signal::SIGSTOP);
                waited();
                redis.signal(Signal::SIGCONT);
            }
            Fault::KillRedis => {
                redis.kill();
                waited();
                redis.restart();
            }
            Fault::CutAppend(cut) => relay.cut_the_next(cut),
            Fault::CutAll => relay.cut(),
            Fault::NoReplies | Fault::BlackHole => {
                let is_one_way = matches!(fault, Fault::NoReplies);
                relay.set(if is_one_way {
                    Way::NoReplies
                } else {
                    Way::BlackHole
                });
                waited();
                relay.set(Way::Open);
            }
            Fault::Delay => {
                relay.delay(Duration::from_millis(rng.u64(1..50)));
                waited();
                relay.delay(Duration::ZERO);
            }
        }
    }
    nodes.iter().for_each(Node::wait_until_ready);
    let outcome = load.finish();
    let sums = outcome.check_that_nothing_is_lost();
    outcome.check_nodes(&nodes);
    eprintln!("{sums:?}");
    check_log(&outcome, &redis);
}

/// Reads the log in Redis without the code that writes it: the data of the events are in the
/// blocks as they are sent to clients.
fn check_log(outcome: &Outcome, redis: &Redis) {
    let blocks = redis.raw(&["xrange", "{pushwheel}:log", "-", "+"]);
    let mut of_channels: Vec<Vec<String>> = vec![Vec::new(); outcome.channels.len()];
    let mut own_ids = BTreeSet::new();
    for at in memchr::memmem::find_iter(&blocks, b"data: ") {
        let rest = &blocks[at + b"data: ".len()..];
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b' ' | b'\n'))
            .unwrap();
        let name = String::from_utf8_lossy(&rest[..end]).into_owned();
        let Some((publisher, _)) = name.split_once('.') else {
            continue;
        };
        let publisher: usize = publisher.parse().unwrap();
        let channel = publisher % outcome.channels.len();
        // An event with an own id may be proposed twice, and is applied once.
        if channel + 1 < outcome.channels.len() || own_ids.insert(name.clone()) {
            of_channels[channel].push(name);
        }
    }
    for (channel, names) in of_channels.iter().enumerate() {
        let events = outcome.received.channels[channel].events.iter();
        let received = events.filter_map(|event| {
            let name = event.data.split(' ').next().expect("there is a first word");
            name.contains('.').then_some(name)
        });
        let received: Vec<&str> = received.collect();
        let differs = (0..received.len().max(names.len()))
            .find(|at| received.get(*at).copied() != names.get(*at).map(String::as_str));
        if let Some(at) = differs {
            let around = at.saturating_sub(3)..at + 5;
            let around = |list: &[&str]| list.get(around.clone()).map(|list| list.join(" "));
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            panic!(
                "{}: the log differs at {at} of {} and {}: received {:?}, the log has {:?}",
                outcome.channels[channel],
                received.len(),
                names.len(),
                around(&received),
                around(&names),
            );
        }
    }
}
