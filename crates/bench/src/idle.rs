//! `bench idle`: the cost of clients that receive no events.

use std::time::Duration;

use super::figure::{CLOSE_CPU, CONNECT_CPU, Case, HEARTBEAT_CPU, KERNEL_MEMORY, MEMORY, counted};
use super::histogram::Histogram;
use super::options::Idle;
use super::run::{Run, difference};
use super::{Result, fault, usage};

/// Connects clients, leaves them idle, measures heartbeats if requested, and disconnects
/// them.
pub(crate) fn measure(run: &mut Run<'_>, options: &Idle, clients: usize) -> Result<()> {
    run.deliver_one()?;
    let each = |total: f64| total / clients as f64;
    let cpu_ns = run.settled_cpu_ns()?;
    let resident = run.server.rss_bytes()?;
    let kernel = usage::kernel_bytes()?;
    run.say(format!("connecting {}", counted(clients, "client")));
    run.load.connect(clients)?;
    let connect_ns = run.settled_cpu_ns_since(cpu_ns)?;
    let memory = run.memory_since(resident, clients)?;
    let kernel = usage::kernel_bytes()? as f64 - kernel as f64;
    let mut figures: Vec<_> = memory.map(|memory| (MEMORY, memory)).into_iter().collect();
    figures.extend([
        (KERNEL_MEMORY, each(kernel)),
        (CONNECT_CPU, each(connect_ns as f64) / 1e3),
    ]);

    if let Some(seconds) = options.heartbeats_for {
        run.say(format!(
            "sending heartbeats to {}",
            counted(clients, "client")
        ));
        // From here on all clients have been silent for the same time, on each server.
        run.deliver_one()?;
        let before_ns = run.settled_cpu_ns()?;
        let heartbeats = run.load.idle(Duration::from_secs_f64(seconds))?.idle_lines;
        let spent_ns = difference(before_ns, run.server.cpu_ns()?)?;
        if heartbeats < clients {
            return fault(format!(
                "only {heartbeats} heartbeats arrived in {seconds} s. Raise --heartbeats-for, or \
                 pass --heartbeat to the server after --"
            ));
        }
        figures.push((HEARTBEAT_CPU, spent_ns as f64 / heartbeats as f64 / 1e3));
    }

    let before_ns = run.settled_cpu_ns()?;
    run.load.disconnect();
    let close_ns = run.settled_cpu_ns_since(before_ns)?;
    figures.push((CLOSE_CPU, each(close_ns as f64) / 1e3));
    let case = Case {
        clients,
        ..Case::default()
    };
    run.add(case, figures, Histogram::default());
    Ok(())
}
