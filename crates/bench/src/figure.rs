//! Figures by server and case, and statistics over several runs.

use serde_json::{Value, json};

use super::histogram::Histogram;

/// A measured quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// Its name in JSON, with the unit last.
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
/// Replaces a percentile of few values.
pub(crate) const LAST_MOST: Figure = Figure {
    name: "last client has it, most",
    unit: "ms",
    key: "last_client_most_ms",
};
pub(crate) const RATE: Figure = Figure {
    name: "events in a second, reached",
    unit: "",
    key: "reached_events_per_s",
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

pub(crate) const BROKER_CPU: Figure = Figure {
    name: "CPU of Redis for each event",
    unit: "µs",
    key: "broker_cpu_us",
};

/// The conditions of a measurement; 0 if one does not apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) clients: usize,
    pub(crate) event_bytes: usize,
    /// Events published together.
    pub(crate) together: usize,
    /// The number of publications per run, which the times of a run are from.
    pub(crate) publications: usize,
}

impl Case {
    pub(crate) fn name(&self) -> String {
        let together = match self.together {
            1 => "1 event at a time".to_owned(),
            more => format!("{} events together", count(more)),
        };
        let often = match self.together {
            0 => counted(self.publications, "event"),
            _ => counted(self.publications, "time"),
        };
        let parts = [
            (self.clients, counted(self.clients, "client")),
            (self.event_bytes, counted(self.event_bytes, "byte")),
            (self.together, together),
            (self.publications, often),
        ];
        let parts = parts.into_iter().filter(|(number, _)| *number > 0);
        let parts: Vec<String> = parts.map(|(_, text)| text).collect();
        match parts.is_empty() {
            true => "no other clients".to_owned(),
            false => parts.join(", "),
        }
    }
}

/// One run of one server in one case.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) case: Case,
    /// The index of the server.
    pub(crate) server: usize,
    pub(crate) round: usize,
    pub(crate) figures: Vec<(Figure, f64)>,
    pub(crate) latencies: Histogram,
}

/// All samples, and the machine.
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
    /// Notes for the reader.
    pub(crate) notes: Vec<String>,
}

/// The median, the minimum and the maximum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// The 95% interval of the median. `None` with fewer than six values.
    pub(crate) interval: Option<(f64, f64)>,
}

/// A figure in a case: of each server over the rounds, and the ratio of the first server
/// to the second over the pairs.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) figure: Figure,
    /// `None` if it is not known for a server.
    pub(crate) servers: Vec<Option<Spread>>,
    pub(crate) ratio: Option<Spread>,
}

impl Results {
    pub(crate) fn cases(&self) -> Vec<Case> {
        distinct(self.samples.iter().map(|sample| sample.case))
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        let cases = self.cases().into_iter();
        cases
            .flat_map(|case| {
                let figures = self.figures(case).into_iter();
                figures.map(move |figure| self.row(case, figure))
            })
            .collect()
    }

    /// Returns all figures of a case, of all servers and rounds.
    fn figures(&self, case: Case) -> Vec<Figure> {
        let samples = self.samples.iter().filter(|sample| sample.case == case);
        let figures = samples.flat_map(|sample| &sample.figures);
        distinct(figures.map(|(figure, _)| *figure))
    }

    fn row(&self, case: Case, figure: Figure) -> Row {
        let rounds = || 0..self.rounds;
        let spread = |server| {
            let values = rounds().filter_map(|round| self.value(case, figure, server, round));
            Spread::of(values.collect())
        };
        let pair = |round| {
            let theirs = self.value(case, figure, 1, round)?;
            let ours = self.value(case, figure, 0, round)?;
            (theirs != 0.0).then(|| ours / theirs)
        };
        Row {
            case,
            figure,
            servers: (0..self.servers.len()).map(spread).collect(),
            ratio: Spread::of(rounds().filter_map(pair).collect()),
        }
    }

    fn value(&self, case: Case, figure: Figure, server: usize, round: usize) -> Option<f64> {
        let mut samples = self.samples.iter();
        let sample = samples
            .find(|sample| (sample.case, sample.server, sample.round) == (case, server, round))?;
        let mut figures = sample.figures.iter();
        let (_, value) = figures.find(|(other, _)| *other == figure)?;
        Some(*value)
    }

    /// Returns the latencies of all rounds of a server in a case.
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
        let rank = interval_rank(values.len());
        Some(Spread {
            median,
            min,
            max,
            interval: rank.map(|rank| (values[rank - 1], values[values.len() - rank])),
        })
    }

    pub(crate) fn json(&self) -> Value {
        let mut json = json!({ "median": self.median, "min": self.min, "max": self.max });
        if let Some((from, to)) = self.interval {
            json["interval_95"] = json!([from, to]);
        }
        json
    }
}

/// Returns the rank, from the smallest and from the largest value, that bounds the 95%
/// interval of the median: the number of values below the median is binomial, whatever their
/// distribution.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank"
)]
fn interval_rank(values: usize) -> Option<usize> {
    let values = values as f64;
    let rank = (values / 2.0 - 0.98 * values.sqrt()).round();
    (rank >= 1.0).then_some(rank as usize)
}

/// Returns each value once, in the order of first appearance.
pub(crate) fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for item in items {
        if !found.contains(&item) {
            found.push(item);
        }
    }
    found
}

/// Returns a number with a noun.
pub(crate) fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", count(number))
}

/// Returns a number with thousands separators.
pub(crate) fn count(number: usize) -> String {
    grouped(&number.to_string())
}

/// Returns a figure with its significant digits.
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

    fn sample(server: usize, round: usize, figures: Vec<(Figure, f64)>) -> Sample {
        Sample {
            case: Case::default(),
            server,
            round,
            figures,
            latencies: Histogram::default(),
        }
    }

    fn results(samples: Vec<Sample>) -> Results {
        Results {
            scenario: "fanout",
            servers: vec!["a".into(), "b".into()],
            rounds: 3,
            setting: String::new(),
            command: String::new(),
            samples,
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_ratio_is_the_median_over_the_pairs() {
        let cpu = |server, round, value| sample(server, round, vec![(DELIVERY_CPU, value)]);
        // The machine was slow during the second pair.
        let results = results(vec![
            cpu(0, 0, 2.0),
            cpu(1, 0, 1.0),
            cpu(1, 1, 10.0),
            cpu(0, 1, 20.0),
            cpu(0, 2, 3.0),
            cpu(1, 2, 1.0),
        ]);
        let row = &results.rows()[0];
        let ratio = row.ratio.unwrap();
        assert_eq!((ratio.median, ratio.min, ratio.max), (2.0, 2.0, 3.0));
        assert_eq!(row.servers[0].unwrap().median, 3.0);
    }

    #[test]
    fn the_interval_of_a_median_has_95_percent() {
        let bounds = |count: u32| Spread::of((1..=count).map(f64::from).collect());
        assert_eq!(bounds(5).unwrap().interval, None);
        assert_eq!(bounds(6).unwrap().interval, Some((1.0, 6.0)));
        assert_eq!(bounds(20).unwrap().interval, Some((6.0, 15.0)));
        for count in 6..200 {
            // The chance that fewer values than this rank are below the median.
            let rank = interval_rank(count).unwrap();
            let mut term = 0.5_f64.powi(i32::try_from(count).unwrap());
            let mut outside = 0.0;
            for below in 0..rank {
                outside += term;
                term *= (count - below) as f64 / (below + 1) as f64;
            }
            assert!(outside <= 0.025 && outside + term > 0.015, "{count}");
        }
    }

    #[test]
    fn figures_of_some_runs_are_compared_within_these() {
        // The second server has memory in its first run only, and the first one differs
        // after that.
        let results = results(vec![
            sample(1, 0, vec![(DELIVERY_CPU, 1.0), (MEMORY, 100.0)]),
            sample(0, 0, vec![(DELIVERY_CPU, 1.0), (MEMORY, 50.0)]),
            sample(1, 1, vec![(DELIVERY_CPU, 1.0)]),
            sample(0, 1, vec![(DELIVERY_CPU, 1.0), (MEMORY, 70.0)]),
        ]);
        let rows = results.rows();
        let memory = rows.iter().find(|row| row.figure == MEMORY).unwrap();
        assert_eq!(memory.ratio.unwrap().max, 0.5);
        assert_eq!(memory.servers[0].unwrap().max, 70.0);
        assert_eq!(memory.servers[1].unwrap().median, 100.0);
    }

    #[test]
    fn a_server_without_a_figure_leaves_its_place_empty() {
        let results = results(vec![sample(0, 0, vec![(MEMORY, 50.0)])]);
        let row = &results.rows()[0];
        assert!(row.servers[0].is_some() && row.servers[1].is_none());
        assert!(row.ratio.is_none());
    }

    #[test]
    fn one_of_a_kind_is_singular() {
        let case = |clients, together, publications| Case {
            clients,
            event_bytes: 0,
            together,
            publications,
        };
        assert_eq!(case(1, 0, 1).name(), "1 client, 1 event");
        assert_eq!(case(1, 1, 1).name(), "1 client, 1 event at a time, 1 time");
        assert_eq!(
            case(1000, 2, 3).name(),
            "1,000 clients, 2 events together, 3 times"
        );
        assert_eq!(case(0, 0, 0).name(), "no other clients");
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
