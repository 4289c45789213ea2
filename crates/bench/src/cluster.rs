//! `bench cluster`: several nodes on one Redis against one server alone: the time until
//! clients of all nodes have an event, the throughput, and the CPU per delivery of a node.

use std::thread;
use std::time::{Duration, Instant};

use super::client::BODIES_MAX;
use super::fanout::{self, Work};
use super::figure::{BROKER_CPU, Case, EVENTS, counted};
use super::histogram::Histogram;
use super::load::{Load, TIMEOUT, Together};
use super::options::Cluster;
use super::run::{Run, difference};
use super::server::{Server, Url};
use super::{Fault, Result, fault};

/// All three, with a new server.
pub(crate) fn measure(run: &mut Run<'_>, options: &Cluster, clients: usize) -> Result<()> {
    // Clients come before the first event: a node may receive that later than its publisher
    // has the response.
    latency(run, options)?;
    throughput(run, options)?;
    delivery(run, options, clients)
}

/// Events at a rate to one client of each node, or to as many clients of one server.
fn latency(run: &mut Run<'_>, options: &Cluster) -> Result<()> {
    for channel in nodes_of(run.server, "bench", options.nodes) {
        run.load.subscribe_to(&channel);
        run.load.connect(1)?;
    }
    fanout::warm_connections(run)?;
    let work = Work {
        case: Case {
            clients: options.nodes,
            event_bytes: options.bytes,
            together: 0,
            publications: options.events,
        },
        how: Together::Ndjson,
        rate: Some(options.rate),
        // Their CPU time is mostly that of publishing.
        is_busy: true,
    };
    run.say(work.case.name());
    let before_ns = broker_cpu_ns(run.server)?;
    let (mut figures, latencies) = fanout::figures(run, &work)?;
    if let (Some(before_ns), Some(now_ns)) = (before_ns, broker_cpu_ns(run.server)?) {
        let each_ns = difference(before_ns, now_ns)? as f64 / options.events as f64;
        figures.push((BROKER_CPU, each_ns / 1e3));
    }
    run.add(work.case, figures, latencies);
    run.load.disconnect();
    Ok(())
}

/// As many events as possible from a publisher at each node, each to a channel with a client
/// of every node.
fn throughput(run: &mut Run<'_>, options: &Cluster) -> Result<()> {
    let requests = (options.throughput_events / options.nodes).div_ceil(BATCH);
    let events = requests * BATCH * options.nodes;
    run.say(counted(events, "event"));
    let publisher = |number: usize| {
        let channels = nodes_of(run.server, &format!("bench-{number}"), options.nodes);
        move || publish(&channels, number, requests, options.bytes)
    };
    let publishers: Vec<_> = (0..options.nodes).map(publisher).collect();
    let seconds = thread::scope(|scope| {
        let threads: Vec<_> = publishers.into_iter().map(|run| scope.spawn(run)).collect();
        let times = threads
            .into_iter()
            .map(|thread| thread.join().expect("it does not panic"));
        times.collect::<Result<Vec<(Instant, Instant)>>>()
    })?;
    let begin = seconds.iter().map(|(begin, _)| *begin).min();
    let end = seconds.iter().map(|(_, end)| *end).max();
    let time = begin.zip(end).map(|(begin, end)| end - begin);
    let time = time.ok_or_else(|| Fault("there is no node".into()))?;
    let case = Case {
        clients: options.nodes,
        event_bytes: options.bytes,
        together: BATCH,
        publications: requests * options.nodes,
    };
    let figures = vec![(EVENTS, events as f64 / time.as_secs_f64())];
    run.add(case, figures, Histogram::default());
    Ok(())
}

/// Publishes to one node until clients of all nodes have all events, and returns when that
/// began and ended.
fn publish(
    channels: &[Url],
    node: usize,
    requests: usize,
    bytes: usize,
) -> Result<(Instant, Instant)> {
    let to = &channels[node];
    let mut load = Load::new(to, to, EVENTS_A_TURN)?;
    for channel in channels {
        load.subscribe_to(channel);
        load.connect(1)?;
    }
    let begin = Instant::now();
    let deliveries = requests * BATCH * channels.len();
    let (mut asked, mut received) = (0, 0);
    let mut progressed = Instant::now();
    while received < deliveries || load.publisher.unanswered() > 0 {
        // No client may be further behind than the load remembers.
        let missing = asked * BATCH * channels.len() - received;
        if asked < requests && missing + BATCH <= BODIES_MAX {
            load.publish_together(BATCH, bytes, Together::Ndjson)?;
            asked += 1;
            continue;
        }
        let events = load.turn(TURN)?.events;
        received += events;
        if events > 0 {
            progressed = Instant::now();
        } else if progressed.elapsed() > TIMEOUT {
            return fault(format!("no client received an event for {TIMEOUT:?}"));
        }
    }
    Ok((begin, Instant::now()))
}

/// Single events to many clients of one node. The other nodes have none.
fn delivery(run: &mut Run<'_>, options: &Cluster, clients: usize) -> Result<()> {
    let node = run.server.subscribe.clone();
    run.load.subscribe_to(&node);
    run.say(format!("connecting {}", counted(clients, "client")));
    run.load.connect(clients)?;
    fanout::warm_connections(run)?;
    let work = Work {
        case: Case {
            clients,
            event_bytes: options.bytes,
            together: 0,
            publications: fanout::events_for(clients),
        },
        how: Together::Ndjson,
        rate: None,
        is_busy: false,
    };
    run.say(work.case.name());
    let (figures, latencies) = fanout::figures(run, &work)?;
    run.add(work.case, figures, latencies);
    Ok(())
}

/// Returns the URL of a channel on each of `count` nodes: always the same one for a server
/// alone.
fn nodes_of(server: &Server, channel: &str, count: usize) -> Vec<Url> {
    let nodes = server.on_all(channel);
    nodes.iter().cycle().take(count).cloned().collect()
}

fn broker_cpu_ns(server: &Server) -> Result<Option<u64>> {
    server
        .broker
        .as_ref()
        .map_or(Ok(None), |broker| broker.cpu_ns())
}

/// Events in a body.
const BATCH: usize = 100;
const EVENTS_A_TURN: usize = 64;
const TURN: Duration = Duration::from_millis(100);
