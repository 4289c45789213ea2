//! Peers that disappear without closing: the network fails, and within a minute the lost
//! clients are not counted any more and their ends are reported.
//!
//! `tests/run cable` creates the other machine: a network namespace named in
//! `PUSHWHEEL_PEER`, and a pair of interfaces between that (`far`) and the namespace of
//! this test (`near`, with the address below).

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail, and measures a time"
)]

mod common;

use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use common::{Subscriber, eventually, receive};
use pushwheel::{
    Channel, ChannelManager, ChannelOptions, DisconnectReason, Engine, Event, RunningEngine,
    Subscription,
};

const NEAR: &str = "10.77.0.1:0";
/// Maximum time until the end of a lost client is reported.
const HONEST_WITHIN: Duration = Duration::from_secs(60);
/// Channels, and their heartbeats in seconds.
const CHANNELS: [(&str, u64); 3] = [("beating", 15), ("silent", 0), ("busy", 0)];
/// Clients of each channel on the other side.
const LOST: usize = 20;

type Ended = (String, DisconnectReason, Instant);

struct Setup {
    engine: RunningEngine,
    channels: Vec<Channel>,
    reported: Receiver<Ended>,
}

fn set_up() -> Setup {
    let manager = ChannelManager::builder().build();
    let (tell, reported) = channel();
    let mut channels = Vec::new();
    let mut builder = Engine::builder().channels(&manager);
    for (name, heartbeat) in CHANNELS {
        let options = ChannelOptions::new().heartbeat(Duration::from_secs(heartbeat));
        let channel = manager.get_or_create_with(name, || options).unwrap();
        channels.push(channel.clone());
        let tell: Sender<Ended> = tell.clone();
        builder = builder.get(&format!("/{name}"), move |_| {
            let tell = tell.clone();
            Subscription::new(&channel).on_disconnect(move |_, reason| {
                let reported = (name.to_owned(), reason, Instant::now());
                tell.send(reported).unwrap();
            })
        });
    }
    Setup {
        engine: builder.bind(NEAR).unwrap().spawn().unwrap(),
        channels,
        reported,
    }
}

/// Subscribers beyond the cable, in a process that is killed with this.
struct Beyond(Child);

impl Beyond {
    fn open(peer: &str, port: u16) -> Beyond {
        let paths = CHANNELS.map(|(name, _)| format!("/{name}")).join(" ");
        let script = format!(
            "for path in {paths}; do for _ in $(seq {LOST}); do
                exec {{socket}}<>/dev/tcp/10.77.0.1/{port}
                printf 'GET %s HTTP/1.1\\r\\nHost: test\\r\\n\\r\\n' $path >&$socket
            done; done; read"
        );
        let mut command = Command::new("ip");
        command.args(["netns", "exec", peer, "bash", "-c", &script]);
        let child = command.stdin(Stdio::piped()).spawn();
        Beyond(child.expect("ip is installed"))
    }
}

impl Drop for Beyond {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pull_the_cable(peer: &str) {
    let arguments = ["-n", peer, "link", "set", "far", "down"];
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "takes a minute and network namespaces: tests/run cable"]
fn a_peer_that_disappears_is_reported_within_a_minute() {
    let peer = std::env::var("PUSHWHEEL_PEER").expect("set by tests/run cable");
    let Setup {
        engine,
        channels,
        reported,
    } = set_up();
    let address = engine.local_addr();
    let mut near: Vec<Subscriber> = CHANNELS
        .map(|(name, _)| Subscriber::open(address, &format!("/{name}"), &[]))
        .into();
    let beyond = Beyond::open(&peer, address.port());
    eventually("all are there", || {
        channels.iter().all(|c| c.client_count() == LOST + 1)
    });

    pull_the_cable(&peer);
    let cut = Instant::now();
    // The lost peers do not acknowledge an event, a heartbeat or a probe.
    channels[2].broadcast(Event::message("unanswered")).unwrap();
    assert_eq!(near[2].next().data, "unanswered");

    // Each report comes within the promised time; the slowest one is printed.
    let mut slowest = CHANNELS.map(|_| Duration::ZERO);
    for _ in 0..LOST * CHANNELS.len() {
        let left = HONEST_WITHIN.saturating_sub(cut.elapsed());
        let (name, reason, at) = reported
            .recv_timeout(left)
            .expect("each end is reported within a minute");
        assert_eq!(reason, DisconnectReason::Gone, "{name}");
        let number = CHANNELS.iter().position(|(other, _)| *other == name);
        let slowest = &mut slowest[number.unwrap()];
        *slowest = (*slowest).max(at - cut);
    }
    for (channel, ((name, heartbeat), slowest)) in channels.iter().zip(CHANNELS.iter().zip(slowest))
    {
        println!(
            "{name} (heartbeat {heartbeat} s): all {LOST} reported {:.1} s after the cut",
            slowest.as_secs_f64()
        );
        assert_eq!(channel.client_count(), 1, "{name}");
    }

    // The clients on this side are still there, and no end is reported twice.
    for (channel, reader) in channels.iter().zip(&mut near) {
        channel.broadcast(Event::message("still here")).unwrap();
        assert_eq!(reader.next().data, "still here");
    }
    drop((near, beyond));
    for _ in CHANNELS {
        receive(&reported);
    }
    engine.shutdown(Duration::ZERO).unwrap();
    assert!(reported.try_recv().is_err(), "an end is reported twice");
}
