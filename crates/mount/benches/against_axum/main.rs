//! Compares servers of event streams in one program: mounted streams with axum's `Sse` over
//! `tokio::sync::broadcast`, and with the least that a body in hyper can do; and an engine
//! that shares its port with axum with an engine alone.
//!
//! ```text
//! cargo bench -p pushwheel-mount --all-features --bench against_axum -- 1000 --rounds 5
//! cargo bench -p pushwheel-mount --all-features --bench against_axum -- 10000 --rounds 3
//! ```
//!
//! The load is this process. Each server is a process of its own, with the same runtime, and
//! the figures are what that process has used: CPU time by the scheduler's count, and
//! resident memory without files. The servers of a round are measured one after the other, and
//! a ratio is the median over the rounds. An idle client has received one event, and the
//! memory of the first one, which is also what all share, is not counted. Linux only.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a program that measures and prints what it finds"
)]

mod load;
mod server;

use std::process::ExitCode;
use std::time::Duration;

use load::Load;

/// The pairs of servers: the first is compared with the second.
const PAIRS: [[&str; 2]; 4] = [
    ["mount", "axum"],
    // What hyper allows.
    ["floor", "axum"],
    ["mount", "floor"],
    ["one-port", "engine"],
];

/// The interval of heartbeats while they are measured.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The interval while deliveries are measured.
const RARE: Duration = Duration::from_secs(30);

/// What one server needed.
#[derive(Clone, Copy, Debug)]
struct Figures {
    idle_bytes: f64,
    delivery_ns: f64,
    burst_delivery_ns: f64,
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_bench = arguments.iter().any(|argument| argument == "--bench");
    arguments.retain(|argument| argument != "--bench");
    if let [serve, kind, heartbeat] = &*arguments
        && serve == "serve"
    {
        server::run(kind, Duration::from_secs(heartbeat.parse().unwrap()));
        return ExitCode::SUCCESS;
    }
    let number = |text: Option<&String>, or: usize| text.and_then(|t| t.parse().ok()).unwrap_or(or);
    let rounds = arguments.iter().position(|argument| argument == "--rounds");
    let rounds = rounds.and_then(|at| arguments.get(at + 1));
    // For `cargo test`: a tiny run checks that the program works.
    let (clients, rounds) = match is_bench {
        true => (number(arguments.first(), 1_000), number(rounds, 5)),
        false => (20, 1),
    };
    let only = arguments.iter().position(|argument| argument == "--only");
    let only = only.and_then(|at| arguments.get(at + 1));
    for pair in PAIRS {
        if only.is_none_or(|only| pair[1] == *only) {
            compare(pair, clients, rounds, is_bench);
        }
    }
    if only.is_none_or(|only| only == "heartbeats") {
        compare_heartbeats(clients, rounds, is_bench);
    }
    ExitCode::SUCCESS
}

fn compare(pair: [&str; 2], clients: usize, rounds: usize, is_bench: bool) {
    // About a second of CPU time each.
    let events = match is_bench {
        true => (200_000 / clients).max(20),
        false => 2,
    };
    println!(
        "{} against {}, {clients} clients, 128 bytes",
        pair[0], pair[1]
    );
    let mut all: Vec<[Figures; 2]> = Vec::new();
    for round in 0..rounds {
        let figures = pair.map(|kind| measure(kind, clients, events));
        for (kind, figures) in pair.iter().zip(&figures) {
            println!(
                "  round {round} {kind:>9}: {:7.0} bytes an idle client, {:6.0} ns a delivery, {:6.0} ns in bursts of 32",
                figures.idle_bytes, figures.delivery_ns, figures.burst_delivery_ns
            );
        }
        all.push(figures);
    }
    let ratio = |of: fn(&Figures) -> f64| {
        ratio(all.iter().map(|[one, other]| of(one) / of(other)).collect())
    };
    println!("  memory of an idle client: {}", ratio(|f| f.idle_bytes));
    println!("  CPU of a delivery:        {}", ratio(|f| f.delivery_ns));
    println!(
        "  CPU of one in a burst:    {}",
        ratio(|f| f.burst_delivery_ns)
    );
}

/// Compares heartbeats: by the mount's thread, and by a timer of the runtime for each client.
fn compare_heartbeats(clients: usize, rounds: usize, is_bench: bool) {
    println!("heartbeats of mount against axum, {clients} clients, one a second each");
    let time = match is_bench {
        true => Duration::from_secs(8),
        false => HEARTBEAT * 2,
    };
    let mut ratios = Vec::new();
    for round in 0..rounds {
        let [mount, axum] = ["mount", "axum"].map(|kind| {
            let mut load = Load::start(kind, HEARTBEAT);
            load.connect(clients);
            let mut count = 0;
            let cpu = load.cpu_ns_of(|load| count = load.rest(time));
            cpu as f64 / count as f64
        });
        println!("  round {round}: mount {mount:6.0} ns, axum {axum:6.0} ns a heartbeat");
        ratios.push(mount / axum);
    }
    println!("  CPU of a heartbeat:       {}", ratio(ratios));
}

/// Returns the median of ratios with the least and the greatest.
fn ratio(mut ratios: Vec<f64>) -> String {
    ratios.sort_by(f64::total_cmp);
    let (least, greatest) = (ratios[0], ratios[ratios.len() - 1]);
    let median = ratios[ratios.len() / 2];
    format!("{median:.2} x (min {least:.2}, max {greatest:.2})")
}

/// Measures one server.
fn measure(kind: &str, clients: usize, events: usize) -> Figures {
    let mut load = Load::start(kind, RARE);
    // A first client needs what all share.
    load.connect(1);
    load.publish(1);
    let before = load.resident_bytes();
    load.connect(clients - 1);
    // Buffers have their size, and the threads their rhythm.
    load.publish(1);
    let idle = (load.resident_bytes() - before) as f64 / (clients - 1) as f64;
    load.publish(32);
    let single = load.cpu_ns_of(|load| (0..events).for_each(|_| load.publish(1)));
    let bursts = (events / 8).max(2);
    let burst = load.cpu_ns_of(|load| (0..bursts).for_each(|_| load.publish(32)));
    Figures {
        idle_bytes: idle,
        delivery_ns: single as f64 / (clients * events) as f64,
        burst_delivery_ns: burst as f64 / (clients * bursts * 32) as f64,
    }
}
