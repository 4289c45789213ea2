//! `bench churn`: clients that connect, receive a head, and disconnect.

use super::Result;
use super::figure::{Case, VISIT_CPU, counted};
use super::histogram::Histogram;
use super::load::Load;
use super::options::Churn;
use super::run::Run;

/// Runs the visits, a hundred at the same time, while `clients` others stay connected.
pub(crate) fn measure(run: &mut Run<'_>, options: &Churn, clients: usize) -> Result<()> {
    run.deliver_one()?;
    run.load.connect(clients)?;
    let mut visitors = Load::new(&run.server.subscribe, &run.server.publish, VISITORS)?;
    // The server allocates for this many connections now, before the measurement.
    for _ in 0..WARM_ROUNDS {
        visitors.connect(VISITORS)?;
        visitors.disconnect();
    }
    run.say(format!(
        "connecting and disconnecting {}",
        counted(options.visits, "client")
    ));
    let before_ns = run.settled_cpu_ns()?;
    let rounds = options.visits.div_ceil(VISITORS);
    for _ in 0..rounds {
        visitors.connect(VISITORS)?;
        visitors.disconnect();
    }
    let spent_ns = run.settled_cpu_ns_since(before_ns)?;
    let visit_us = spent_ns as f64 / (rounds * VISITORS) as f64 / 1e3;
    let case = Case {
        clients,
        ..Case::default()
    };
    run.add(case, vec![(VISIT_CPU, visit_us)], Histogram::default());
    Ok(())
}

const VISITORS: usize = 100;
const WARM_ROUNDS: usize = 5;
