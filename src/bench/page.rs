//! The report: one HTML file that needs nothing else, with the figures, plots
//! and how they were taken.

use std::fmt::Write;

use super::figure::{
    CONNECT_CPU, DELIVERY_CPU, Figure, HEARTBEAT_CPU, MEMORY, Results, Row, VISIT_CPU, count,
};
use super::plot::{Axis, Line, Plot, Point, escape};
use super::table::{with_spread, with_unit};

/// The page of these results.
pub(crate) fn page(results: &Results) -> String {
    let rows = results.rows();
    let title = format!(
        "{}: {}",
        results.scenario,
        results.servers.join(" against ")
    );
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{0}</title>\n<style>{STYLE}</style>\n<main>\n<h1>{0}</h1>\n",
        escape(&title)
    );
    let _ = write!(
        out,
        "<p class=\"setting\">{}</p>\n<pre>{}</pre>\n",
        escape(&results.setting),
        escape(&results.command)
    );
    for plot in plots(results, &rows) {
        out.push_str(&plot.svg());
    }
    table(&mut out, results, &rows);
    out.push_str("</main>\n</html>\n");
    out
}

fn plots(results: &Results, rows: &[Row]) -> Vec<Plot> {
    let mut plots = latency_plots(results);
    for (figure, title) in BY_CLIENTS {
        let lines = lines_by_clients(results, rows, figure);
        if lines.is_empty() {
            continue;
        }
        let mut clients: Vec<usize> = rows.iter().map(|row| row.case.clients).collect();
        clients.dedup();
        let labels = clients.iter();
        let labels = labels.map(|&number| (decades(number), count(number)));
        plots.push(Plot {
            title: title.to_owned(),
            x: Axis {
                name: "clients",
                labels: labels.collect(),
            },
            y: figure.unit,
            lines,
        });
    }
    plots
}

const BY_CLIENTS: [(Figure, &str); 5] = [
    (DELIVERY_CPU, "The server's CPU for each delivered event"),
    (MEMORY, "The server's resident memory for each client"),
    (CONNECT_CPU, "The server's CPU for each client that comes"),
    (HEARTBEAT_CPU, "The server's CPU for each heartbeat"),
    (
        VISIT_CPU,
        "The server's CPU for each client that comes and goes",
    ),
];

/// A line for each server and size of event.
fn lines_by_clients(results: &Results, rows: &[Row], figure: Figure) -> Vec<Line> {
    let rows = || rows.iter().filter(|row| row.figure == figure);
    let mut sizes: Vec<usize> = Vec::new();
    for row in rows() {
        if !sizes.contains(&row.case.event_bytes) {
            sizes.push(row.case.event_bytes);
        }
    }
    // Memory does not depend on what is published later.
    if figure == MEMORY {
        sizes.truncate(1);
    }
    let mut lines = Vec::new();
    for (dash, &size) in sizes.iter().enumerate() {
        for (server, name) in results.servers.iter().enumerate() {
            let rows = rows().filter(|row| row.case.event_bytes == size);
            let points = rows.map(|row| Point {
                x: decades(row.case.clients),
                y: row.servers[server].median,
                spread: (row.servers[server].min, row.servers[server].max),
            });
            lines.push(Line {
                name: match (sizes.len(), size) {
                    (1, _) => name.clone(),
                    _ => format!("{name}, {} bytes", count(size)),
                },
                colour: server,
                dash,
                points: points.collect(),
                is_marked: true,
            });
        }
    }
    lines
}

/// One plot for each number of clients: how long a delivery took, by the share
/// of deliveries that took no longer, the rare ones drawn apart.
fn latency_plots(results: &Results) -> Vec<Plot> {
    let cases = results.cases();
    let mut clients: Vec<usize> = cases.iter().map(|case| case.clients).collect();
    clients.dedup();
    let mut plots = Vec::new();
    for clients in clients {
        let cases = cases.iter().filter(|case| case.clients == clients);
        let mut lines = Vec::new();
        for (dash, case) in cases.enumerate() {
            for (server, name) in results.servers.iter().enumerate() {
                let latencies = results.latencies(*case, server);
                if latencies.is_empty() {
                    continue;
                }
                // No further than there are deliveries to tell of.
                let nines_max = (latencies.total() as f64).log10().min(4.0);
                let steps = (0..=120).map(|step| nines_max * f64::from(step) / 120.0);
                let points = steps.map(|nines| {
                    let y = latencies.quantile_ms(1.0 - 0.1_f64.powf(nines));
                    Point {
                        x: nines,
                        y,
                        spread: (y, y),
                    }
                });
                lines.push(Line {
                    name: format!("{name}, {} bytes", count(case.event_bytes)),
                    colour: server,
                    dash,
                    points: points.collect(),
                    is_marked: false,
                });
            }
        }
        if lines.is_empty() {
            continue;
        }
        let labels = [0.5, 0.9, 0.99, 0.999, 0.9999].map(|share: f64| {
            let name = format!("{}%", digits_of_share(share));
            (-(1.0 - share).log10(), name)
        });
        plots.push(Plot {
            title: format!(
                "From publishing until a client has it: {} clients",
                count(clients)
            ),
            x: Axis {
                name: "share of deliveries that took no longer",
                labels: labels.into(),
            },
            y: "ms",
            lines,
        });
    }
    plots
}

/// Clients come in decades: 100, 1,000, 10,000.
fn decades(clients: usize) -> f64 {
    (clients.max(1) as f64).log10()
}

fn digits_of_share(share: f64) -> String {
    let percent = format!("{:.2}", share * 100.0);
    percent
        .trim_end_matches('0')
        .trim_end_matches('.')
        .to_owned()
}

fn table(out: &mut String, results: &Results, rows: &[Row]) {
    out.push_str("<table>\n<thead><tr><th>");
    for name in &results.servers {
        let _ = write!(out, "<th>{}", escape(name));
    }
    if results.servers.len() > 1 {
        out.push_str("<th>ratio of the pairs");
    }
    out.push_str("</thead>\n");
    let mut case = None;
    for row in rows {
        if case != Some(row.case) {
            case = Some(row.case);
            let columns = results.servers.len() + 2;
            let name = escape(&row.case.name());
            let _ = writeln!(out, "<tr><th colspan=\"{columns}\" class=\"case\">{name}");
        }
        let _ = write!(out, "<tr><th>{}", escape(&with_unit(row)));
        for server in &row.servers {
            let _ = write!(out, "<td>{}", with_spread(server));
        }
        if let Some(ratio) = row.ratio {
            let (median, min, max) = (ratio.median, ratio.min, ratio.max);
            let _ = write!(out, "<td>{median:.3} ({min:.3} to {max:.3})");
        }
        out.push('\n');
    }
    out.push_str("</table>\n");
}

const STYLE: &str = "
:root { color-scheme: light dark;
  --paper: light-dark(#fcfcfb, #191918); --ink: light-dark(#1c1b1a, #ecebe8);
  --quiet: light-dark(#6b6963, #a3a19a); --rule: light-dark(#e4e2dc, #353431);
  --c0: light-dark(#1f6fd0, #5a9bf0); --c1: light-dark(#c2541d, #ef8a55); }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; }
.setting { color: var(--quiet); margin: 0 0 .75rem; }
pre { background: light-dark(#f1f0ec, #242321); padding: .6rem .8rem; border-radius: 6px; overflow-x: auto; font-size: .85rem; }
figure { margin: 2.25rem 0 0; max-width: 46rem; }
figcaption { font-weight: 600; }
figure > svg { width: 100%; height: auto; display: block; margin-top: .4rem; }
.legend { margin: .25rem 0 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .85rem; color: var(--quiet); }
.legend svg { width: 28px; height: 8px; margin-right: .45rem; }
svg text { font-size: 11.5px; fill: var(--quiet); font-family: inherit; }
text.x { text-anchor: middle; } text.y { text-anchor: end; }
.grid { stroke: var(--rule); stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.spread { stroke-width: 1.5; opacity: .55; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); }
.dot { stroke: var(--paper); stroke-width: 1.5; } .dot.c0 { fill: var(--c0); } .dot.c1 { fill: var(--c1); }
table { border-collapse: collapse; margin-top: 2.5rem; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .28rem .9rem .28rem 0; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { font-weight: 400; } tr > th:first-child { text-align: left; }
thead th, th.case { font-weight: 600; } th.case { padding-top: 1.1rem; }
@media (max-width: 44rem) { table { display: block; overflow-x: auto; } }
";
