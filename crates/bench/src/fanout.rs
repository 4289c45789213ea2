//! `bench fanout` and `bench burst`: the cost of a delivered event, and the time until
//! the last client has it.

use std::time::Duration;

use super::beside::OtherChannels;
use super::figure::{
    Case, DELIVERY_CPU, Figure, LAST_MEDIAN, LAST_MOST, LAST_P99, MEMORY, RATE, counted,
};
use super::histogram::Histogram;
use super::load::Together;
use super::options::{Burst, EVENT_BYTES_MIN, Fanout};
use super::pace::Times;
use super::run::{Run, ascending};
use super::stuck::Stuck;
use super::{Result, pace};

/// One event at a time, of each size.
pub(crate) fn measure(run: &mut Run<'_>, options: &Fanout, clients: usize) -> Result<()> {
    run.deliver_one()?;
    if run.has_background && options.beside.has_channels() {
        run.say("connecting the clients of other channels");
        run.load.background = Some(OtherChannels::new(run.server, &options.beside)?);
    }
    let memory = connect(run, clients)?;
    if let Some(background) = &mut run.load.background {
        background.begin();
    }
    let mut stuck = None;
    if run.has_background && options.beside.stuck > 0 {
        run.say("connecting the clients that never read");
        stuck = Some(Stuck::new(run.server, &mut run.load, options.beside.stuck)?);
    }
    warm_connections(run)?;
    let is_busy = options.beside.beside_busy && run.load.background.is_some();
    let events = options.events.unwrap_or_else(|| events_for(clients));
    for event_bytes in ascending(&options.bytes) {
        let case = Case {
            clients,
            event_bytes,
            together: 0,
            publications: events,
        };
        let work = Work {
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
    run.deliver_one()?;
    let memory = connect(run, clients)?;
    warm_connections(run)?;
    for event_bytes in ascending(&options.bytes) {
        let case = Case {
            clients,
            event_bytes,
            together: options.together,
            publications: options.bursts,
        };
        let work = Work {
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

/// Connects the clients, and returns the memory per client.
fn connect(run: &mut Run<'_>, clients: usize) -> Result<Option<f64>> {
    run.settled_cpu_ns()?;
    let resident = run.server.rss_bytes()?;
    run.say(format!("connecting {}", counted(clients, "client")));
    run.load.connect(clients)?;
    run.settled_cpu_ns()?;
    run.memory_since(resident, clients)
}

/// Runs just before a measurement: after 200 ms of silence or more, a connection starts
/// slowly again.
pub(crate) fn warm_connections(run: &mut Run<'_>) -> Result<()> {
    for _ in 0..WARM_EVENTS {
        run.load.deliver(1, EVENT_BYTES_MIN, Together::Ndjson)?;
    }
    Ok(())
}

/// Publications of one case.
pub(crate) struct Work {
    pub(crate) case: Case,
    pub(crate) how: Together,
    /// Publications per second.
    pub(crate) rate: Option<f64>,
    /// If the server never rests, CPU time is not that of this channel.
    pub(crate) is_busy: bool,
}

fn publish(run: &mut Run<'_>, work: &Work, memory: Option<f64>) -> Result<()> {
    run.say(work.case.name());
    let (mut figures, latencies) = figures(run, work)?;
    figures.extend(memory.map(|memory| (MEMORY, memory)));
    run.add(work.case, figures, latencies);
    Ok(())
}

/// Publishes, and returns the figures, and the latencies of all deliveries.
pub(crate) fn figures(run: &mut Run<'_>, work: &Work) -> Result<(Vec<(Figure, f64)>, Histogram)> {
    let before_ns = match work.is_busy {
        true => 0,
        false => run.settled_cpu_ns()?,
    };
    let mut times = work.times(run)?;
    let mut figures: Vec<(Figure, f64)> = Vec::new();
    if !work.is_busy {
        let spent_ns = run.settled_cpu_ns_since(before_ns)?;
        let each_ns = spent_ns as f64 / work.deliveries() as f64;
        figures.push((DELIVERY_CPU, each_ns / 1e3));
    }
    if let Some(rate) = work.rate
        && let Some(reached) = times.reached(interval(rate))
    {
        figures.push((RATE, reached));
        if reached < rate * REACHED_SHARE_MIN {
            run.note(format!(
                "the rate was not reached ({}), so times grow with --events",
                work.case.name()
            ));
        }
    }
    times.last.sort();
    let (largest, share) = match times.last.len() {
        ..P99_TIMES_MIN => (LAST_MOST, 1.0),
        _ => (LAST_P99, 0.99),
    };
    for (figure, share) in [(LAST_MEDIAN, 0.5), (largest, share)] {
        figures.push((figure, quantile(&times.last, share).as_secs_f64() * 1e3));
    }
    Ok((figures, times.all))
}

impl Work {
    /// The number of events per publication.
    fn together(&self) -> usize {
        self.case.together.max(1)
    }

    fn deliveries(&self) -> usize {
        self.case.publications * self.together() * self.case.clients
    }

    /// Publishes.
    fn times(&self, run: &mut Run<'_>) -> Result<Times> {
        let (publications, bytes) = (self.case.publications, self.case.event_bytes);
        let load = &mut run.load;
        match self.rate {
            Some(rate) => pace::at_intervals(load, publications, bytes, interval(rate)),
            None => pace::one_after_the_other(publications, || {
                load.deliver(self.together(), bytes, self.how)
            }),
        }
    }
}

/// The time between two publications.
fn interval(rate: f64) -> Duration {
    Duration::from_secs_f64(1.0 / rate)
}

/// Returns the smallest time that this share of the sorted times does not exceed.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank"
)]
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// Returns the number of events for a run of about a second.
pub(crate) fn events_for(clients: usize) -> usize {
    (DELIVERIES_A_RUN / clients).clamp(3, 200)
}

/// With fewer times, the 99th percentile is the maximum.
const P99_TIMES_MIN: usize = 100;
/// A rate counts as reached from this share on.
const REACHED_SHARE_MIN: f64 = 0.95;
const DELIVERIES_A_RUN: usize = 150_000;
/// Linux acknowledges each of the first 16 segments of a connection immediately, which
/// costs the sender a third more. A long stream does not have this cost.
const WARM_EVENTS: usize = 17;
