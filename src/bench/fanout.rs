//! `bench fanout` and `bench burst`: what a delivered event costs, and how long
//! it takes until the last client has it.

use std::time::{Duration, Instant};

use super::Result;
use super::beside::Company;
use super::figure::{Case, DELIVERY_CPU, Figure, LAST_MEDIAN, LAST_P99, MEMORY};
use super::histogram::Histogram;
use super::load::Together;
use super::options::{Burst, EVENT_BYTES_MIN, Fanout};
use super::run::Run;
use super::stuck::Stuck;

/// One event at a time, of each size.
pub(crate) fn measure(run: &mut Run<'_>, options: &Fanout, clients: usize) -> Result<()> {
    run.warm_up()?;
    if run.has_company {
        run.say("the clients beside come");
        run.load.company = Company::new(run.server, &options.beside)?;
    }
    let memory = connect(run, clients)?;
    if let Some(company) = &mut run.load.company {
        company.set_busy(&options.beside);
    }
    let mut stuck = None;
    if run.has_company {
        run.say("the clients that never read come");
        stuck = Stuck::new(run.server, &mut run.load, options.beside.stuck)?;
    }
    warm_connections(run)?;
    let is_busy = options.beside.beside_busy && run.load.company.is_some();
    let events = options.events.unwrap_or_else(|| events_for(clients));
    for &event_bytes in &options.bytes {
        run.say(format!("{clients} clients, {event_bytes} bytes"));
        let case = Case {
            clients,
            event_bytes,
            together: 0,
        };
        let work = Work {
            publications: events,
            case,
            how: Together::Ndjson,
            rate: options.rate,
            is_busy,
        };
        publish(run, &work, memory)?;
    }
    stuck.map_or(Ok(()), |stuck| stuck.check())
}

/// Several events at a time.
pub(crate) fn measure_bursts(run: &mut Run<'_>, options: &Burst, clients: usize) -> Result<()> {
    run.warm_up()?;
    let memory = connect(run, clients)?;
    warm_connections(run)?;
    for &event_bytes in &options.bytes {
        run.say(format!("{clients} clients, {event_bytes} bytes"));
        let case = Case {
            clients,
            event_bytes,
            together: options.together,
        };
        let work = Work {
            publications: options.bursts,
            case,
            how: match options.pipelined {
                true => Together::Pipelined,
                false => Together::Ndjson,
            },
            rate: None,
            is_busy: false,
        };
        publish(run, &work, memory)?;
    }
    Ok(())
}

/// Connects the clients; says what memory each took.
fn connect(run: &mut Run<'_>, clients: usize) -> Result<f64> {
    run.settled_cpu_ns()?;
    let resident = run.server.rss_bytes()?;
    run.say(format!("{clients} clients come"));
    run.load.connect(clients)?;
    run.settled_cpu_ns()?;
    let grown = run.server.rss_bytes()? as f64 - resident as f64;
    Ok(grown / clients as f64)
}

/// Right before anything is measured: a connection is as good as new again when
/// nothing comes for longer than its retransmission time-out, 200 ms at least.
fn warm_connections(run: &mut Run<'_>) -> Result<()> {
    for _ in 0..WARM_EVENTS {
        run.load.deliver(1, EVENT_BYTES_MIN, Together::Ndjson)?;
    }
    Ok(())
}

struct Work {
    publications: usize,
    case: Case,
    how: Together,
    /// Publications in a second.
    rate: Option<f64>,
    /// With a server that never rests, CPU time says nothing of this channel.
    is_busy: bool,
}

fn publish(run: &mut Run<'_>, work: &Work, memory: f64) -> Result<()> {
    let Case {
        clients,
        event_bytes,
        together,
    } = work.case;
    let together = together.max(1);
    let interval = work.rate.map(|rate| 1.0 / rate.max(0.001));
    let interval = interval.map_or(Duration::ZERO, Duration::from_secs_f64);
    let before_ns = match work.is_busy {
        true => 0,
        false => run.settled_cpu_ns()?,
    };
    let mut latencies = Histogram::default();
    let mut last = Vec::with_capacity(work.publications);
    let mut due = Instant::now();
    for _ in 0..work.publications {
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            run.load.idle(wait)?;
        }
        due += interval;
        let delivered = run.load.deliver(together, event_bytes, work.how)?;
        latencies.merge(&delivered.all);
        last.push(delivered.last);
    }
    last.sort();
    let milliseconds = |share: f64| quantile(&last, share).as_secs_f64() * 1e3;
    let mut figures: Vec<(Figure, f64)> = Vec::new();
    if !work.is_busy {
        let spent_ns = run.settled_cpu_ns_since(before_ns)?;
        let deliveries = work.publications * together * clients;
        figures.push((DELIVERY_CPU, spent_ns as f64 / deliveries as f64 / 1e3));
    }
    figures.push((LAST_MEDIAN, milliseconds(0.5)));
    figures.push((LAST_P99, milliseconds(0.99)));
    figures.push((MEMORY, memory));
    run.add(work.case, figures, latencies);
    Ok(())
}

/// The least that this share of the sorted times does not exceed.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank"
)]
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// As many events as make a run of about a second.
fn events_for(clients: usize) -> usize {
    (DELIVERIES_A_RUN / clients).clamp(3, 200)
}

const DELIVERIES_A_RUN: usize = 150_000;
/// Linux acknowledges the first 16 segments of a connection each at once, which
/// costs the sender a third more. A stream that lives long is past that.
const WARM_EVENTS: usize = 17;
