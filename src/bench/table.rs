//! Results as a table, and as JSON lines.

use serde_json::{Map, Value, json};

use super::figure::{Case, Results, Row, Spread, digits};

/// Prints a table for people.
pub(crate) fn print(results: &Results) {
    let rows = results.rows();
    println!(
        "\n{}: {}",
        results.scenario,
        results.servers.join(" against ")
    );
    println!("{}", results.setting);
    let mut case = None;
    for row in &rows {
        if case != Some(row.case) {
            case = Some(row.case);
            print_head(results, row.case);
        }
        print!("  {:<36}", with_unit(row));
        for server in &row.servers {
            print!("{:>26}", with_spread(server));
        }
        if let Some(ratio) = row.ratio {
            print!(
                "{:>26}",
                format!("{:.3} ({:.3} to {:.3})", ratio.median, ratio.min, ratio.max)
            );
        }
        println!();
    }
}

fn print_head(results: &Results, case: Case) {
    print!("\n{:<38}", case.name());
    for name in &results.servers {
        // Of a long URL or path, the end says most.
        let tail = name.char_indices().rev().nth(23).map_or(0, |(at, _)| at);
        print!("{:>26}", &name[tail..]);
    }
    match results.servers.len() {
        1 => println!(),
        _ => println!("{:>26}", "ratio of the pairs"),
    }
}

/// A figure's name with its unit.
pub(crate) fn with_unit(row: &Row) -> String {
    match row.figure.unit {
        "" => row.figure.name.to_owned(),
        unit => format!("{}, {unit}", row.figure.name),
    }
}

/// A median with the least and the most.
pub(crate) fn with_spread(spread: &Spread) -> String {
    let (min, max) = (digits(spread.min), digits(spread.max));
    format!("{} ({min} to {max})", digits(spread.median))
}

/// Prints a line for the setting, one for each run, and one for each row of
/// the table.
pub(crate) fn print_json(results: &Results) {
    println!(
        "{}",
        json!({
            "kind": "setting", "scenario": results.scenario, "servers": results.servers,
            "rounds": results.rounds, "setting": results.setting, "command": results.command,
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
                "together": sample.case.together, "figures": figures,
            })
        );
    }
    for row in results.rows() {
        let servers = results.servers.iter().zip(&row.servers);
        let servers: Vec<Value> = servers
            .map(|(name, spread)| json!({ "server": name, "figure": spread.json() }))
            .collect();
        println!(
            "{}",
            json!({
                "kind": "summary", "scenario": results.scenario, "figure": row.figure.key,
                "clients": row.case.clients, "event_bytes": row.case.event_bytes,
                "together": row.case.together, "servers": servers,
                "ratio": row.ratio.map(|ratio| ratio.json()),
            })
        );
    }
}
