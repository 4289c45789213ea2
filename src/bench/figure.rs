//! Figures, by server and case, and what can be said of several runs.

use serde_json::{Value, json};

use super::histogram::Histogram;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// In JSON, its unit last.
    pub(crate) key: &'static str,
}

pub(crate) const DELIVERY_CPU: Figure = Figure {
    name: "CPU for each delivery",
    unit: "µs",
    key: "delivery_cpu_us",
};
pub(crate) const LAST_MEDIAN: Figure = Figure {
    name: "last client has it, median",
    unit: "ms",
    key: "last_client_median_ms",
};
pub(crate) const LAST_P99: Figure = Figure {
    name: "last client has it, p99",
    unit: "ms",
    key: "last_client_p99_ms",
};
pub(crate) const MEMORY: Figure = Figure {
    name: "resident memory of a client",
    unit: "bytes",
    key: "client_resident_bytes",
};
pub(crate) const KERNEL_MEMORY: Figure = Figure {
    name: "kernel's, both ends",
    unit: "bytes",
    key: "connection_kernel_bytes",
};
pub(crate) const CONNECT_CPU: Figure = Figure {
    name: "CPU to connect and get a head",
    unit: "µs",
    key: "connect_cpu_us",
};
pub(crate) const CLOSE_CPU: Figure = Figure {
    name: "CPU to close",
    unit: "µs",
    key: "close_cpu_us",
};
pub(crate) const VISIT_CPU: Figure = Figure {
    name: "CPU to connect, get a head, close",
    unit: "µs",
    key: "visit_cpu_us",
};
pub(crate) const HEARTBEAT_CPU: Figure = Figure {
    name: "CPU for each heartbeat",
    unit: "µs",
    key: "heartbeat_cpu_us",
};
pub(crate) const REQUESTS: Figure = Figure {
    name: "requests in a second",
    unit: "",
    key: "requests_per_s",
};
pub(crate) const EVENTS: Figure = Figure {
    name: "events in a second",
    unit: "",
    key: "events_per_s",
};
pub(crate) const PUBLISH_CPU: Figure = Figure {
    name: "CPU for each event",
    unit: "µs",
    key: "publish_cpu_us",
};

/// Under which conditions; 0 where something plays no part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) clients: usize,
    pub(crate) event_bytes: usize,
    /// Events published together.
    pub(crate) together: usize,
}

impl Case {
    pub(crate) fn name(&self) -> String {
        let parts = [
            (self.clients, "clients"),
            (self.event_bytes, "bytes"),
            (self.together, "events together"),
        ];
        let parts = parts.into_iter().filter(|(number, _)| *number > 0);
        let parts: Vec<String> = parts
            .map(|(n, what)| format!("{} {what}", count(n)))
            .collect();
        match parts.is_empty() {
            true => "nobody else there".to_owned(),
            false => parts.join(", "),
        }
    }
}

/// One run of one server in one case.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) case: Case,
    /// Which of the contestants.
    pub(crate) server: usize,
    pub(crate) round: usize,
    pub(crate) figures: Vec<(Figure, f64)>,
    pub(crate) latencies: Histogram,
}

/// All that was measured, and where.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) scenario: &'static str,
    /// One or two.
    pub(crate) servers: Vec<String>,
    pub(crate) rounds: usize,
    /// The machine, the cores, the load before.
    pub(crate) setting: String,
    pub(crate) command: String,
    pub(crate) samples: Vec<Sample>,
}

/// The median, the least and the most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// One figure in one case: of each server over the rounds, and the ratio of the
/// first to the second over the pairs.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) figure: Figure,
    pub(crate) servers: Vec<Spread>,
    pub(crate) ratio: Option<Spread>,
}

impl Results {
    pub(crate) fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for sample in &self.samples {
            if !cases.contains(&sample.case) {
                cases.push(sample.case);
            }
        }
        cases
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for case in self.cases() {
            let first = self.samples.iter().find(|sample| sample.case == case);
            for (figure, _) in &first.expect("a case is a sample's").figures {
                let of = |server| self.values(case, server, *figure);
                let all: Vec<Vec<f64>> = (0..self.servers.len()).map(of).collect();
                let ratio = match &all[..] {
                    [ours, theirs] => {
                        let pairs = ours
                            .iter()
                            .zip(theirs)
                            .filter(|(_, theirs)| **theirs != 0.0);
                        Spread::of(pairs.map(|(ours, theirs)| ours / theirs).collect())
                    }
                    _ => None,
                };
                let servers: Vec<Spread> = all.into_iter().filter_map(Spread::of).collect();
                if servers.len() == self.servers.len() {
                    rows.push(Row {
                        case,
                        figure: *figure,
                        servers,
                        ratio,
                    });
                }
            }
        }
        rows
    }

    fn values(&self, case: Case, server: usize, figure: Figure) -> Vec<f64> {
        let samples = self.samples.iter();
        let samples = samples.filter(|sample| (sample.case, sample.server) == (case, server));
        let figures = samples.flat_map(|sample| &sample.figures);
        let values = figures.filter(|(other, _)| *other == figure);
        values.map(|(_, value)| *value).collect()
    }

    /// The latencies of all rounds of one server in one case.
    pub(crate) fn latencies(&self, case: Case, server: usize) -> Histogram {
        let mut all = Histogram::default();
        for sample in &self.samples {
            if (sample.case, sample.server) == (case, server) {
                all.merge(&sample.latencies);
            }
        }
        all
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => (values[middle - 1] + values[middle]) / 2.0,
            _ => values[middle],
        };
        Some(Spread { median, min, max })
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

/// A number with commas.
pub(crate) fn count(number: usize) -> String {
    grouped(&number.to_string())
}

/// A figure with as many digits as mean something.
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => grouped(&format!("{value:.0}")),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn grouped(digits: &str) -> String {
    let mut out = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_over_the_pairs() {
        let sample = |server, round, value| Sample {
            case: Case::default(),
            server,
            round,
            figures: vec![(DELIVERY_CPU, value)],
            latencies: Histogram::default(),
        };
        let results = Results {
            scenario: "fanout",
            servers: vec!["a".into(), "b".into()],
            rounds: 3,
            setting: String::new(),
            command: String::new(),
            // The machine was slow during the second pair.
            samples: vec![
                sample(0, 0, 2.0),
                sample(1, 0, 1.0),
                sample(1, 1, 10.0),
                sample(0, 1, 20.0),
                sample(0, 2, 3.0),
                sample(1, 2, 1.0),
            ],
        };
        let row = &results.rows()[0];
        let ratio = row.ratio.unwrap();
        assert_eq!((ratio.median, ratio.min, ratio.max), (2.0, 2.0, 3.0));
        assert_eq!(row.servers[0].median, 3.0);
    }

    #[test]
    fn figures_are_short_to_read() {
        assert_eq!(digits(1_234_567.8), "1,234,568");
        assert_eq!(digits(-1_234.0), "-1,234");
        assert_eq!(digits(123.4), "123");
        assert_eq!(digits(12.34), "12.3");
        assert_eq!(digits(1.234), "1.23");
    }
}
