//! The report: one self-contained HTML file with the figures, plots and the method.

use std::fmt::Write;

use super::figure::{
    CONNECT_CPU, Case, DELIVERY_CPU, EVENTS, Figure, HEARTBEAT_CPU, MEMORY, PUBLISH_CPU, Results,
    Row, VISIT_CPU, count, counted, distinct,
};
use super::histogram::Histogram;
use super::plot::{Axis, DASHES, Line, Plot, Point, escape};
use super::table::{ratio_with_spread, with_spread, with_unit};

/// Returns the page of the results.
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
    for note in &results.notes {
        let _ = writeln!(out, "<p class=\"note\">{}</p>", escape(note));
    }
    out.push_str("</main>\n</html>\n");
    out
}

fn plots(results: &Results, rows: &[Row]) -> Vec<Plot> {
    let mut plots = latency_plots(results);
    for (figure, along, title) in &FIGURES {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.figure == *figure).collect();
        let mut sizes = distinct(rows.iter().map(|row| row.case.event_bytes));
        // Memory does not depend on later publications.
        if *figure == MEMORY {
            sizes.truncate(1);
        }
        // As many sizes as there are dash styles.
        for part in sizes.chunks(DASHES.len()) {
            let lines = lines(results, &rows, part, along);
            if lines.is_empty() {
                continue;
            }
            let places = distinct(rows.iter().map(|row| (along.of)(&row.case)));
            let labels = places.into_iter();
            let labels = labels.map(|number| (decades(number), count(number)));
            plots.push(Plot {
                title: of_sizes(title, part, sizes.len()),
                x: Axis {
                    name: along.name,
                    labels: labels.collect(),
                },
                y: figure.unit,
                lines,
            });
        }
    }
    plots
}

/// Returns the title of a plot, with the event sizes if there are several.
fn of_sizes(title: &str, sizes: &[usize], all: usize) -> String {
    match *sizes {
        _ if sizes.len() == all => title.to_owned(),
        [least, .., most] => format!("{title}, {} to {}", count(least), counted(most, "byte")),
        [size] => format!("{title}, {}", counted(size, "byte")),
        [] => title.to_owned(),
    }
}

/// The quantities of the horizontal axis, in the order of cases.
struct Along {
    name: &'static str,
    of: fn(&Case) -> usize,
}

const CLIENTS: Along = Along {
    name: "clients",
    of: |case| case.clients,
};
const BATCH: Along = Along {
    name: "events in a request",
    of: |case| case.together,
};

const FIGURES: [(Figure, Along, &str); 7] = [
    (
        DELIVERY_CPU,
        CLIENTS,
        "The server's CPU for each delivered event",
    ),
    (
        MEMORY,
        CLIENTS,
        "The server's resident memory for each client",
    ),
    (
        CONNECT_CPU,
        CLIENTS,
        "The server's CPU for each client that comes",
    ),
    (
        HEARTBEAT_CPU,
        CLIENTS,
        "The server's CPU for each heartbeat",
    ),
    (
        VISIT_CPU,
        CLIENTS,
        "The server's CPU for each client that comes and goes",
    ),
    (EVENTS, BATCH, "Events that are taken in a second"),
    (
        PUBLISH_CPU,
        BATCH,
        "The server's CPU for each event that is taken",
    ),
];

/// A line per server and event size.
fn lines(results: &Results, rows: &[&Row], sizes: &[usize], along: &Along) -> Vec<Line> {
    let mut lines = Vec::new();
    for (dash, &size) in sizes.iter().enumerate() {
        for (server, name) in results.servers.iter().enumerate() {
            let rows = rows.iter().filter(|row| row.case.event_bytes == size);
            let points = rows.filter_map(|row| {
                // A value that is not above zero was too small to measure.
                let spread = row.servers[server].filter(|spread| spread.median > 0.0)?;
                Some(Point {
                    x: decades((along.of)(&row.case)),
                    y: spread.median,
                    spread: (spread.min, spread.max),
                })
            });
            lines.push(Line {
                name: match (sizes.len(), size) {
                    (1, _) => name.clone(),
                    _ => format!("{name}, {}", counted(size, "byte")),
                },
                colour: server,
                dash,
                points: points.collect(),
                is_marked: true,
            });
        }
    }
    lines.retain(|line| !line.points.is_empty());
    lines
}

/// A plot per number of clients: the time of a delivery by the share of deliveries that
/// took at most as long, with the rare ones spread out.
fn latency_plots(results: &Results) -> Vec<Plot> {
    let cases = results.cases();
    let mut plots = Vec::new();
    for cases in cases.chunk_by(|one, next| one.clients == next.clients) {
        // As many as there are dash styles.
        for part in cases.chunks(DASHES.len()) {
            plots.extend(latency_plot(results, part, cases.len()));
        }
    }
    plots
}

/// Returns the plot of some cases with the same number of clients. `None` if nothing was
/// delivered.
fn latency_plot(results: &Results, cases: &[Case], all: usize) -> Option<Plot> {
    let clients = cases.first()?.clients;
    let title = format!(
        "Until a client has it (all runs together): {}",
        counted(clients, "client")
    );
    let sizes: Vec<usize> = cases.iter().map(|case| case.event_bytes).collect();
    let mut lines = Vec::new();
    for (dash, case) in cases.iter().enumerate() {
        for (server, name) in results.servers.iter().enumerate() {
            let latencies = results.latencies(*case, server);
            if !latencies.is_empty() {
                lines.push(Line {
                    name: format!("{name}, {}", counted(case.event_bytes, "byte")),
                    colour: server,
                    dash,
                    points: latency_points(&latencies),
                    is_marked: false,
                });
            }
        }
    }
    let labels = [0.5, 0.9, 0.99, 0.999, 0.9999].map(|share: f64| {
        let name = format!("{}%", digits_of_share(share));
        (-(1.0 - share).log10(), name)
    });
    (!lines.is_empty()).then(|| Plot {
        title: of_sizes(&title, &sizes, all),
        x: Axis {
            name: "share of deliveries that took no longer",
            labels: labels.into(),
        },
        y: "ms",
        lines,
    })
}

/// Limits the axis to the number of deliveries.
fn latency_points(latencies: &Histogram) -> Vec<Point> {
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
    points.collect()
}

/// Numbers are in decades: 100, 1,000, 10,000.
fn decades(number: usize) -> f64 {
    (number.max(1) as f64).log10()
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
            let _ = write!(out, "<td>{}", with_spread(*server));
        }
        if let Some(ratio) = row.ratio {
            let _ = write!(out, "<td>{}", ratio_with_spread(ratio));
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
.note { color: var(--quiet); margin: .75rem 0 0; font-size: .9rem; }
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
