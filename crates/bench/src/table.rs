//! Results as a table, and as JSON lines.

use serde_json::{Map, Value, json};

use super::figure::{Results, Row, Spread, digits};

/// Prints a table for people.
pub(crate) fn print(results: &Results) {
    println!(
        "\n{}: {}",
        results.scenario,
        results.servers.join(" against ")
    );
    println!("{}", results.setting);
    for line in aligned(&table(results)) {
        println!("{line}");
    }
    if !results.notes.is_empty() {
        println!();
    }
    for note in &results.notes {
        println!("{note}");
    }
}

/// Returns the cells of each line: for each case an empty line, a head, and its rows.
fn table(results: &Results) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    let mut case = None;
    for row in &results.rows() {
        if case != Some(row.case) {
            case = Some(row.case);
            let mut head = vec![row.case.name()];
            head.extend(results.servers.iter().map(|name| tail(name).to_owned()));
            if results.servers.len() > 1 {
                head.push("ratio of the pairs".to_owned());
            }
            lines.extend([Vec::new(), head]);
        }
        let mut line = vec![format!("  {}", with_unit(row))];
        line.extend(row.servers.iter().map(|server| with_spread(*server)));
        line.extend(row.ratio.map(ratio_with_spread));
        lines.push(line);
    }
    lines
}

/// Pads columns to their widest cell; the first column is aligned to the left.
fn aligned(lines: &[Vec<String>]) -> Vec<String> {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| {
        let cells = lines.iter().filter_map(|cells| cells.get::<usize>(column));
        let widths = cells.map(|cell| cell.chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let lines = lines.iter().map(|cells| {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            match column {
                0 => line.push_str(&format!("{cell:<width$}")),
                _ => line.push_str(&format!("   {cell:>width$}")),
            }
        }
        line
    });
    lines.collect()
}

/// Returns the end of a long URL or path.
fn tail(name: &str) -> &str {
    let begin = name.char_indices().rev().nth(TAIL_CHARS - 1);
    &name[begin.map_or(0, |(at, _)| at)..]
}

const TAIL_CHARS: usize = 24;

/// Returns the name of a figure with its unit.
pub(crate) fn with_unit(row: &Row) -> String {
    match row.figure.unit {
        "" => row.figure.name.to_owned(),
        unit => format!("{}, {unit}", row.figure.name),
    }
}

/// Returns a median with the minimum and the maximum.
pub(crate) fn with_spread(spread: Option<Spread>) -> String {
    let Some(Spread {
        median, min, max, ..
    }) = spread
    else {
        return "–".to_owned();
    };
    let [median, min, max] = [median, min, max].map(digits);
    format!("{median} ({min} to {max})")
}

/// Returns the same for a ratio, with the 95% interval of the median.
pub(crate) fn ratio_with_spread(ratio: Spread) -> String {
    let Spread {
        median, min, max, ..
    } = ratio;
    let interval = ratio.interval;
    let interval = interval.map(|(from, to)| format!(" [{from:.3} to {to:.3}]"));
    let interval = interval.unwrap_or_default();
    format!("{median:.3}{interval} ({min:.3} to {max:.3})")
}

/// Prints a line for the setup, one per run, and one per row of the table.
pub(crate) fn print_json(results: &Results) {
    println!(
        "{}",
        json!({
            "kind": "setting", "scenario": results.scenario, "servers": results.servers,
            "rounds": results.rounds, "setting": results.setting, "command": results.command,
            "notes": results.notes,
        })
    );
    for sample in &results.samples {
        let figures = sample.figures.iter();
        let figures: Map<String, Value> = figures
            .map(|(figure, value)| (figure.key.to_owned(), json!(value)))
            .collect();
        println!(
            "{}",
            json!({
                "kind": "run", "scenario": results.scenario, "round": sample.round,
                "server": results.servers[sample.server],
                "clients": sample.case.clients, "event_bytes": sample.case.event_bytes,
                "together": sample.case.together, "publications": sample.case.publications,
                "figures": figures,
            })
        );
    }
    for row in results.rows() {
        let servers = results.servers.iter().zip(&row.servers);
        let servers: Vec<Value> = servers
            .map(|(name, spread)| json!({ "server": name, "figure": spread.map(|spread| spread.json()) }))
            .collect();
        println!(
            "{}",
            json!({
                "kind": "summary", "scenario": results.scenario, "figure": row.figure.key,
                "clients": row.case.clients, "event_bytes": row.case.event_bytes,
                "together": row.case.together, "publications": row.case.publications,
                "servers": servers,
                "ratio": row.ratio.map(|ratio| ratio.json()),
            })
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let line = |cells: [&str; 3]| cells.map(String::from).to_vec();
        let lines = [
            line(["10 clients", "pushwheel", "bare"]),
            line(["  µs", "285,825 (285,825 to 310,050)", "963,697"]),
            Vec::new(),
        ];
        assert_eq!(
            aligned(&lines),
            [
                "10 clients                      pushwheel      bare",
                "  µs         285,825 (285,825 to 310,050)   963,697",
                "",
            ]
        );
    }

    #[test]
    fn a_long_name_is_shortened_to_its_end() {
        assert_eq!(tail("bare"), "bare");
        assert_eq!(
            tail("http://127.0.0.1:8080/channels/news"),
            "0.0.1:8080/channels/news"
        );
    }
}
