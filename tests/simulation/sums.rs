//! What came of runs, added up.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What came of a run, or of many.
#[derive(Default)]
pub struct Sums {
    pub seeds: u64,
    pub simulated_ms: u64,
    pub turns: u64,
    pub digest: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub figures: BTreeMap<&'static str, u64>,
}

impl Sums {
    /// All of it in a line.
    pub fn by_the_minute(&self, took: Duration) -> String {
        let minutes = took.as_secs_f64() / 60.0;
        let a_minute = |count: u64| count as f64 / minutes;
        let faults = self.faults.values().sum();
        format!(
            "a minute: {:.0} runs, {:.1} simulated hours, {:.1} million turns, \
             {:.0} thousand faults of {} kinds, {:.0} thousand deliveries checked",
            a_minute(self.seeds),
            a_minute(self.simulated_ms) / 3_600_000.0,
            a_minute(self.turns) / 1e6,
            a_minute(faults) / 1e3,
            self.faults.len(),
            a_minute(self.figures.get("deliveries").copied().unwrap_or(0)) / 1e3,
        )
    }

    pub fn add(&mut self, other: Sums) {
        self.seeds += other.seeds;
        self.simulated_ms += other.simulated_ms;
        self.turns += other.turns;
        self.digest ^= other.digest;
        for (sums, others) in [
            (&mut self.faults, other.faults),
            (&mut self.figures, other.figures),
        ] {
            for (name, count) in others {
                *sums.entry(name).or_default() += count;
            }
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated_ms as f64 / 3_600_000.0;
        writeln!(
            f,
            "{} seeds, {hours:.2} simulated hours, {} turns",
            self.seeds, self.turns
        )?;
        for (title, counts) in [("faults injected", &self.faults), ("seen", &self.figures)] {
            writeln!(f, "{title}: {}", counts.values().sum::<u64>())?;
            for (name, count) in counts {
                writeln!(f, "{count:>12} {name}")?;
            }
        }
        Ok(())
    }
}
