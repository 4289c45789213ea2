//! What was measured, as a table or as JSON lines.

use serde_json::{Value, json};

use crate::options::Options;
use crate::usage;

/// One run over one size of events.
pub(crate) struct Fanout {
    /// Not the bare loop's.
    pub(crate) ours: bool,
    pub(crate) clients: usize,
    pub(crate) event_bytes: usize,
    pub(crate) cpu_ns_per_delivery: f64,
    /// From publishing until the last client has the event: the run's median.
    pub(crate) last_client_ms: f64,
}

/// What one run's connections cost, each.
pub(crate) struct Connections {
    pub(crate) ours: bool,
    pub(crate) clients: usize,
    pub(crate) rss_bytes_per_client: f64,
    /// Accept, read the head and answer it.
    pub(crate) connect_cpu_ns: f64,
    pub(crate) close_cpu_ns: f64,
}

pub(crate) struct Report {
    name: String,
    setting: String,
    clients: Vec<usize>,
    sizes: Vec<usize>,
    pub(crate) fanouts: Vec<Fanout>,
    pub(crate) connections: Vec<Connections>,
}

/// A figure of both servers: the medians over the rounds, and the ratios of the
/// pairs, which say more, since the halves of a pair ran at the same time.
struct Pair {
    bare: f64,
    ours: f64,
    ratio: f64,
    ratio_min: f64,
    ratio_max: f64,
}

impl Report {
    pub(crate) fn new(options: &Options, pinned: bool) -> Report {
        let cores = match pinned {
            true => "servers on core 0, the load on core 1 (taskset)",
            false => "nothing pinned to a core (taskset or a second core is missing)",
        };
        Report {
            name: options.server.name().to_owned(),
            setting: format!(
                "{cores}; medians of {} pairs of runs; load average at the start {}",
                options.rounds,
                usage::load_average(),
            ),
            clients: options.clients.clone(),
            sizes: options.sizes.clone(),
            fanouts: Vec::new(),
            connections: Vec::new(),
        }
    }

    pub(crate) fn print(&self, json: bool) {
        match json {
            true => self.print_json(),
            false => self.print_tables(),
        }
    }

    fn print_tables(&self) {
        let Report { name, setting, .. } = self;
        println!("\n{name} beside a bare loop of send()\n{setting}\n");
        println!("CPU of the server's process for each delivered event, one event at a time");
        println!(
            "clients   bytes      bare µs      ours µs   ratio (of the pairs)    last client: bare, ours ms"
        );
        for &clients in &self.clients {
            for &size in &self.sizes {
                let cpu = self.fanout(clients, size, |run| run.cpu_ns_per_delivery / 1e3);
                let last = self.fanout(clients, size, |run| run.last_client_ms);
                println!(
                    "{clients:>7} {size:>7} {:>12.2} {:>12.2} {} {:>20.1}, {:.1}",
                    cpu.bare,
                    cpu.ours,
                    cpu.ratio_and_spread(),
                    last.bare,
                    last.ours
                );
            }
        }
        println!("\na connection");
        println!("clients                        bare         ours   ratio (of the pairs)");
        for &clients in &self.clients {
            for (what, figure) in CONNECTION_FIGURES {
                let pair = self.connection(clients, figure);
                println!(
                    "{clients:>7} {what:<16} {:>11.2} {:>12.2} {}",
                    pair.bare,
                    pair.ours,
                    pair.ratio_and_spread()
                );
            }
        }
    }

    fn print_json(&self) {
        let side = |ours| if ours { &self.name[..] } else { "bare" };
        for run in &self.fanouts {
            let line = json!({
                "kind": "fanout", "server": side(run.ours),
                "clients": run.clients, "event_bytes": run.event_bytes,
                "cpu_ns_per_delivery": run.cpu_ns_per_delivery, "last_client_ms": run.last_client_ms,
            });
            println!("{line}");
        }
        for run in &self.connections {
            let line = json!({
                "kind": "connections", "server": side(run.ours), "clients": run.clients,
                "rss_bytes_per_client": run.rss_bytes_per_client,
                "connect_cpu_ns": run.connect_cpu_ns, "close_cpu_ns": run.close_cpu_ns,
            });
            println!("{line}");
        }
        for &clients in &self.clients {
            for &size in &self.sizes {
                let pair = self.fanout(clients, size, |run| run.cpu_ns_per_delivery / 1e3);
                println!(
                    "{}",
                    pair.summary("delivery CPU µs", clients, Some(size), &self.setting)
                );
            }
            for (what, figure) in CONNECTION_FIGURES {
                let pair = self.connection(clients, figure);
                println!("{}", pair.summary(what, clients, None, &self.setting));
            }
        }
    }

    fn fanout(&self, clients: usize, size: usize, figure: impl Fn(&Fanout) -> f64) -> Pair {
        let runs = || {
            self.fanouts
                .iter()
                .filter(|run| (run.clients, run.event_bytes) == (clients, size))
        };
        let side = |ours| runs().filter(|run| run.ours == ours).map(&figure).collect();
        Pair::new(side(false), side(true))
    }

    fn connection(&self, clients: usize, figure: fn(&Connections) -> f64) -> Pair {
        let runs = || self.connections.iter().filter(|run| run.clients == clients);
        let side = |ours| runs().filter(|run| run.ours == ours).map(figure).collect();
        Pair::new(side(false), side(true))
    }
}

impl Pair {
    /// Of the rounds of both, in order.
    fn new(bare: Vec<f64>, ours: Vec<f64>) -> Pair {
        let mut ratios: Vec<f64> = bare
            .iter()
            .zip(&ours)
            .map(|(bare, ours)| ours / bare)
            .collect();
        ratios.sort_by(f64::total_cmp);
        Pair {
            ratio_min: ratios[0],
            ratio_max: ratios[ratios.len() - 1],
            ratio: median(ratios),
            bare: median(bare),
            ours: median(ours),
        }
    }

    fn ratio_and_spread(&self) -> String {
        format!(
            "{:>7.3} ({:.3} to {:.3})",
            self.ratio, self.ratio_min, self.ratio_max
        )
    }

    fn summary(&self, what: &str, clients: usize, size: Option<usize>, setting: &str) -> Value {
        json!({
            "kind": "summary", "what": what, "clients": clients, "event_bytes": size,
            "bare": self.bare, "ours": self.ours, "ratio": self.ratio,
            "ratio_min": self.ratio_min, "ratio_max": self.ratio_max, "setting": setting,
        })
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() % 2 {
        0 => (figures[middle - 1] + figures[middle]) / 2.0,
        _ => figures[middle],
    }
}

/// The name of a figure, its unit last, and where it is found.
type ConnectionFigure = (&'static str, fn(&Connections) -> f64);

const CONNECTION_FIGURES: [ConnectionFigure; 4] = [
    ("idle RSS bytes", |run| run.rss_bytes_per_client),
    ("connect CPU µs", |run| run.connect_cpu_ns / 1e3),
    ("close CPU µs", |run| run.close_cpu_ns / 1e3),
    ("both CPU µs", |run| {
        (run.connect_cpu_ns + run.close_cpu_ns) / 1e3
    }),
];
