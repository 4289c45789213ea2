//! `pushwheel bench`: measures the cost of a server of event streams, reproducibly.
//!
//! The load is one thread of this process: many subscribers and a publisher, over real
//! sockets. It checks that every client receives every event once, in order and whole.
//! Servers are separate processes, so that `/proc` shows their CPU time and memory. Two
//! servers are measured in turns, in pairs of runs, and a ratio is the median over the
//! pairs: a disturbance of the machine affects both halves of a pair.
//!
//! | file | does |
//! | --- | --- |
//! | `options` | the command line |
//! | `run` | pairs of runs: starts servers, takes samples |
//! | `idle`, `fanout`, `each`, `churn`, `publish`, `cluster` | the scenarios (`burst` is a fan-out of several events together) |
//! | `load`, `client`, `publisher`, `pace`, `beside`, `stuck` | the load, and its checks |
//! | `server`, `broker`, `measured`, `bare`, `usage` | the measured servers, their start, and their CPU time and memory |
//! | `figure`, `histogram` | figures, medians, ratios |
//! | `table`, `page`, `plot` | their output |
//!
//! Linux only. An error in a stream ends the bench, because its figures would be
//! meaningless.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that measures time and prints what it finds"
)]

mod bare;
mod beside;
mod broker;
mod churn;
mod client;
mod cluster;
mod each;
mod fanout;
mod fault;
mod figure;
mod histogram;
mod idle;
mod load;
mod measured;
mod options;
mod pace;
mod page;
mod plot;
mod publish;
mod publisher;
mod run;
mod server;
mod stuck;
mod table;
mod usage;

use std::fs::{self, File};
use std::io;
use std::path::Path;

use clap::Subcommand;

pub use fault::Fault;

use bare::BareLoop;
use fault::{Result, fault};
use measured::Measured;
use options::{Bench, Scenario};
use run::Runs;

/// The command, and the hidden commands that it starts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure CPU time, memory and latency of a server
    Bench(Box<Bench>),
    /// The bare loop of send() that `bench` compares with
    #[command(hide = true)]
    BareLoop(BareLoop),
    /// A process that becomes a server
    #[command(hide = true)]
    Measured(Measured),
}

/// Runs the command.
///
/// # Errors
/// When a server cannot be started or read about, or does not deliver what it
/// should.
pub fn run(command: &Command) -> Result<()> {
    match command {
        Command::Bench(bench) => measure(bench),
        Command::BareLoop(options) => Ok(bare::serve(options)?),
        Command::Measured(options) => match measured::start(options)? {},
    }
}

/// Runs the scenario of the command line, and prints the results.
fn measure(bench: &Bench) -> Result<()> {
    let common = bench.scenario.common();
    common.html.as_deref().map_or(Ok(()), check_report)?;
    let mut runs = Runs::new(bench)?;
    match &bench.scenario {
        Scenario::Idle(options) => {
            runs.each(&options.clients, |run, clients| {
                idle::measure(run, options, clients)
            })?;
        }
        Scenario::Fanout(options) => {
            runs.each(&options.clients, |run, clients| {
                fanout::measure(run, options, clients)
            })?;
        }
        Scenario::Burst(options) => {
            runs.each(&options.clients, |run, clients| {
                fanout::measure_bursts(run, options, clients)
            })?;
        }
        Scenario::Churn(options) => {
            runs.each(&options.clients, |run, clients| {
                churn::measure(run, options, clients)
            })?;
        }
        Scenario::Publish(options) => {
            runs.each(&options.batch, |run, batch| {
                publish::measure(run, options, batch)
            })?;
        }
        Scenario::Each(options) => {
            runs.each(&options.channels, |run, channels| {
                each::measure(run, options, channels)
            })?;
        }
        Scenario::Cluster(options) => {
            runs.each(&[options.clients], |run, clients| {
                cluster::measure(run, options, clients)
            })?;
        }
    }
    let results = runs.finish();
    if common.json {
        table::print_json(&results);
    } else {
        table::print(&results);
    }
    if let Some(path) = &common.html {
        let written = fs::write(path, page::page(&results));
        written.map_err(|error| no_report(path, &error))?;
        eprintln!("wrote the report to {}", path.display());
    }
    Ok(())
}

/// Checks that the report can be written, before the measurement. An existing file stays
/// until there is a new report.
fn check_report(path: &Path) -> Result<()> {
    let opened = File::options().create(true).append(true).open(path);
    opened.map(drop).map_err(|error| no_report(path, &error))
}

fn no_report(path: &Path, error: &io::Error) -> Fault {
    Fault(format!("cannot write --html {} ({error})", path.display()))
}
