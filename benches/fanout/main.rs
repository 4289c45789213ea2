//! How far the engine is from the machine's limit: the CPU that one delivered
//! event costs the server's process, beside a bare loop of `send()` over as many
//! sockets, in pairs of runs.
//!
//! ```text
//! cargo bench --bench fanout                                    about a minute
//! cargo bench --bench fanout -- --clients 18000 --sizes 128     memory and heads of 18,000
//! cargo bench --bench fanout -- --json                          one JSON object a line
//! cargo bench --bench fanout -- --url http://127.0.0.1:3000/events \
//!     --publish-url http://127.0.0.1:3000/publish --pid 4711    any other server
//! ```
//!
//! Servers are processes of their own, so that their CPU time and memory can be
//! read from `/proc`: this program starts itself again as the bare loop, and
//! `pushwheel serve` from the same build. Linux only.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that measures time and prints what it finds"
)]

mod bare;
mod client;
mod load;
mod options;
mod report;
mod server;
mod usage;

use std::process::{Command, Stdio};
use std::time::Duration;

use load::Load;
use options::Options;
use report::{Connections, Fanout, Report};
use server::Server;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .first()
        .is_some_and(|first| first == bare::COMMAND)
    {
        return bare::serve();
    }
    let options = options::parse(&arguments).unwrap_or_else(|problem| {
        eprintln!("{problem}\n\n{}", options::USAGE);
        std::process::exit(2);
    });
    let pinned = pin_load();
    let mut report = Report::new(&options, pinned);
    for &clients in &options.clients {
        for round in 0..options.rounds {
            // Which one comes first alternates, so that a drift of the machine
            // weighs on both.
            for ours in [round % 2 == 1, round % 2 == 0] {
                measure(&options, ours, clients, pinned, &mut report);
            }
            eprintln!(
                "{clients} clients: pair {} of {}",
                round + 1,
                options.rounds
            );
        }
    }
    report.print(options.json);
}

/// One server's part of a pair: so many clients come, are idle, get events of
/// each size one at a time, and go.
fn measure(options: &Options, ours: bool, clients: usize, pinned: bool, report: &mut Report) {
    let server = if ours {
        Server::start(&options.server, pinned)
    } else {
        Server::start(&options::Kind::Bare, pinned)
    };
    let mut load = Load::new(&server.subscribe, &server.publish);
    // The first request warms what is made once, for however many clients.
    load.publish_to_nobody();

    let cpu_at_rest_ns = settled_cpu_ns(&server, &mut load);
    let rss_before = server.rss_bytes();
    load.connect(clients);
    let cpu_connected_ns = settled_cpu_ns(&server, &mut load);
    let rss_idle = server.rss_bytes();

    for _ in 0..WARM_EVENTS {
        load.deliver(options.sizes[0]);
    }
    let events = options.events_for(clients);
    for &size in &options.sizes {
        let before_ns = settled_cpu_ns(&server, &mut load);
        let mut last_client: Vec<Duration> = (0..events).map(|_| load.deliver(size)).collect();
        let spent_ns = settled_cpu_ns(&server, &mut load) - before_ns;
        last_client.sort();
        report.fanouts.push(Fanout {
            ours,
            clients,
            event_bytes: size,
            cpu_ns_per_delivery: spent_ns as f64 / (events * clients) as f64,
            last_client_ms: last_client[events / 2].as_secs_f64() * 1e3,
        });
    }

    let cpu_before_close_ns = settled_cpu_ns(&server, &mut load);
    load.disconnect();
    let cpu_closed_ns = settled_cpu_ns(&server, &mut load);
    let each = |total: f64| total / clients as f64;
    report.connections.push(Connections {
        ours,
        clients,
        rss_bytes_per_client: each(rss_idle as f64 - rss_before as f64),
        connect_cpu_ns: each((cpu_connected_ns - cpu_at_rest_ns) as f64),
        close_cpu_ns: each((cpu_closed_ns - cpu_before_close_ns) as f64),
    });
}

/// The server's CPU time once it no longer spends any: a thread's time is only
/// exact when it sleeps, and work may go on after the last client has its event.
fn settled_cpu_ns(server: &Server, load: &mut Load) -> u64 {
    let mut before = server.cpu_ns();
    for _ in 0..SETTLE_LOOKS_MAX {
        load.idle(Duration::from_millis(10));
        let now = server.cpu_ns();
        if now - before < SETTLED_NS {
            return now;
        }
        before = now;
    }
    before
}

/// Puts this process on core 1; whether there are two cores and `taskset`, so
/// that servers can have core 0 for themselves.
fn pin_load() -> bool {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let me = std::process::id().to_string();
    let pin = || {
        Command::new("taskset")
            .args(["-cp", "1", &me])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    };
    cores > 1 && pin().is_ok_and(|status| status.success())
}

/// Linux acknowledges the first 16 segments of a connection each at once, which
/// costs the sender a third more. A stream that lives long is past that.
const WARM_EVENTS: usize = 17;
/// Less than this in 10 ms is a server's own ticking, not work of ours.
const SETTLED_NS: u64 = 100_000;
/// A server that is never quiet is measured after two seconds anyway.
const SETTLE_LOOKS_MAX: usize = 200;
