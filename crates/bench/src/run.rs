//! Runs: each has its own server, and two servers are compared in pairs of runs.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::figure::{Case, Figure, Results, Sample, counted};
use super::histogram::Histogram;
use super::load::{Load, Together};
use super::options::{Bench, EVENT_BYTES_MIN, Scenario};
use super::server::{Contestant, Server, contestants};
use super::{Fault, Result, measured, usage};

/// All runs of a bench.
#[derive(Debug)]
pub(crate) struct Runs {
    contestants: Vec<Contestant>,
    rounds: usize,
    /// Whether servers are on core 0 and the load is on core 1.
    pinned: bool,
    /// The name of events that are not published ones.
    ignored_event: Option<String>,
    bar: ProgressBar,
    results: Results,
}

/// A run, as a scenario uses it.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) server: &'a Server,
    pub(crate) load: Load,
    /// Whether the server has the additional load.
    pub(crate) has_background: bool,
    /// Whether requests have idempotency keys, if any have.
    pub(crate) has_keys: bool,
    bar: &'a ProgressBar,
    at: (usize, usize),
    /// Whether the server has served no client before, as far as is known.
    is_fresh: bool,
    results: &'a mut Results,
}

impl Runs {
    pub(crate) fn new(bench: &Bench) -> Result<Runs> {
        let common = bench.scenario.common();
        let contestants = contestants(&bench.scenario)?;
        // Before this process is pinned, which hides a core.
        let machine = usage::machine();
        let load_average = usage::load_average();
        let pinned = may_pin(&bench.scenario) && measured::pin_load();
        let cores = match pinned {
            true => "servers started here on core 0, the load on core 1",
            false => "nothing pinned to a core",
        };
        let rounds = usize::from(common.rounds);
        let runs = match (contestants.len(), rounds) {
            (1, _) => counted(rounds, "run"),
            (_, 1) => "1 pair of runs".to_owned(),
            _ => format!("{rounds} pairs of runs"),
        };
        let results = Results {
            scenario: bench.scenario.name(),
            servers: contestants.iter().map(|one| one.name.clone()).collect(),
            rounds,
            setting: format!(
                "{machine}; {cores}; medians of {runs} (least to most; of ratios also their \
                 [95% interval]); load average before: {load_average}"
            ),
            command: command_line(),
            samples: Vec::new(),
            notes: Vec::new(),
        };
        Ok(Runs {
            contestants,
            rounds,
            pinned,
            ignored_event: common.ignore_event.clone(),
            bar: ProgressBar::new(0).with_style(style()),
            results,
        })
    }

    /// Measures each size in all rounds, the smallest first.
    pub(crate) fn each(
        &mut self,
        sizes: &[usize],
        mut measure: impl FnMut(&mut Run<'_>, usize) -> Result<()>,
    ) -> Result<()> {
        let sizes = ascending(sizes);
        let runs = sizes.len() * self.rounds * self.contestants.len();
        self.bar.set_length(runs as u64);
        self.bar.enable_steady_tick(Duration::from_millis(200));
        for size in sizes {
            for round in 0..self.rounds {
                // The order alternates, so that a drift of the machine affects both.
                let mut order: Vec<usize> = (0..self.contestants.len()).collect();
                order.rotate_left(round % self.contestants.len());
                for number in order {
                    let contestant = &self.contestants[number];
                    self.bar.set_message(contestant.name.clone());
                    let server = Server::start(&contestant.kind, self.pinned)?;
                    let mut samples = self.results.samples.iter();
                    let has_served = samples.any(|sample| sample.server == number);
                    let mut load = Load::new(&server.subscribe, &server.publish, EVENTS_A_TURN)?;
                    if let Some(event) = &self.ignored_event {
                        load.ignore(event);
                    }
                    let mut run = Run {
                        server: &server,
                        load,
                        has_background: contestant.has_background,
                        has_keys: contestant.has_keys,
                        bar: &self.bar,
                        at: (number, round),
                        is_fresh: server.is_started_here() || !has_served,
                        results: &mut self.results,
                    };
                    measure(&mut run, size)?;
                    self.bar.inc(1);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Results {
        self.bar.finish_and_clear();
        self.results
    }
}

impl Run<'_> {
    /// Shows the current step.
    pub(crate) fn say(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }

    /// Publishes an event and waits until all clients have it. The first request causes
    /// allocations that do not depend on the number of clients.
    pub(crate) fn deliver_one(&mut self) -> Result<()> {
        self.load
            .deliver(1, EVENT_BYTES_MIN, Together::Ndjson)
            .map(|_| ())
    }

    /// Adds a note for the reader, once.
    pub(crate) fn note(&mut self, note: String) {
        if !self.results.notes.contains(&note) {
            self.results.notes.push(note);
        }
    }

    /// Returns the resident memory per client that was added since `before`. `None` if
    /// the server has freed memory of earlier clients, which new clients reuse.
    pub(crate) fn memory_since(&mut self, before: u64, clients: usize) -> Result<Option<f64>> {
        let grown = self.server.rss_bytes()? as f64 - before as f64;
        let name = &self.results.servers[self.at.0];
        if !self.server.is_started_here() {
            self.note(format!(
                "memory of {name}: of its first run, and right if it had no clients before; \
                 later ones are given what the first have left"
            ));
        } else if grown <= 0.0 {
            self.note(format!(
                "memory of {name}: 0 where clients had room in the pages that it had already"
            ));
        }
        Ok(self.is_fresh.then_some(grown / clients as f64))
    }

    pub(crate) fn add(&mut self, case: Case, figures: Vec<(Figure, f64)>, latencies: Histogram) {
        let (server, round) = self.at;
        self.results.samples.push(Sample {
            case,
            server,
            round,
            figures,
            latencies,
        });
    }

    /// Returns the CPU time of the server when it no longer increases: work may continue
    /// after the last client has its event.
    pub(crate) fn settled_cpu_ns(&mut self) -> Result<u64> {
        let mut before = self.server.cpu_ns()?;
        for _ in 0..SETTLE_LOOKS_MAX {
            self.load.idle(Duration::from_millis(10))?;
            let now = self.server.cpu_ns()?;
            if difference(before, now)? < SETTLED_NS {
                return Ok(now);
            }
            before = now;
        }
        Ok(before)
    }

    /// Returns the CPU time since a start, when it no longer increases.
    pub(crate) fn settled_cpu_ns_since(&mut self, before_ns: u64) -> Result<u64> {
        difference(before_ns, self.settled_cpu_ns()?)
    }
}

/// Returns the difference of two CPU times.
pub(crate) fn difference(before_ns: u64, now_ns: u64) -> Result<u64> {
    now_ns.checked_sub(before_ns).ok_or_else(|| {
        Fault("the CPU time of the server decreased. Did its process restart?".into())
    })
}

/// Returns sizes in ascending order, each once.
pub(crate) fn ascending(sizes: &[usize]) -> Vec<usize> {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// A server with several threads needs all cores, and so do several servers.
fn may_pin(scenario: &Scenario) -> bool {
    let has_one_thread = scenario.common().threads.is_none_or(|threads| threads == 1);
    has_one_thread && !matches!(scenario, Scenario::Cluster(_))
}

/// Returns the command that reproduces the results, without the path of the report.
fn command_line() -> String {
    let mut line = "pushwheel".to_owned();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--html" {
            words.next();
        } else if !word.starts_with("--html=") {
            line.push(' ');
            line.push_str(&word);
        }
    }
    line
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:30} run {pos}/{len}, {eta} left · {msg}")
        .expect("the template is well formed")
}

const EVENTS_A_TURN: usize = 1024;
/// Less CPU time than this in 10 ms is housekeeping of the server.
const SETTLED_NS: u64 = 100_000;
/// A busy server is measured after two seconds anyway.
const SETTLE_LOOKS_MAX: usize = 200;
