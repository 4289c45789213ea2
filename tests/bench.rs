//! `pushwheel bench`: the smallest run of each scenario, whose load checks
//! every event of every client by itself.

use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushwheel"));
    // Without the proxies and settings of whoever runs the test.
    let command = command.env_clear().arg("bench");
    let command = command.args(arguments.split(' '));
    command.output().expect("cargo has built pushwheel")
}

/// The figures of the summary lines.
fn figures(arguments: &str) -> Vec<String> {
    let output = bench(&arguments.replacen(' ', " --rounds 1 --json ", 1));
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {problem}");
    let text = String::from_utf8(output.stdout).expect("JSON is text");
    let lines = text.lines().map(|line| -> Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
    });
    let summaries = lines.filter(|line| line["kind"] == "summary");
    let figures = summaries.map(|line| line["figure"].as_str().unwrap_or_default().to_owned());
    figures.collect()
}

#[test]
fn idle_counts_memory_and_heartbeats() {
    let found = figures("idle --clients 30 --against bare --heartbeats-for 5 -- --heartbeat 1");
    for figure in [
        "client_resident_bytes",
        "connect_cpu_us",
        "heartbeat_cpu_us",
    ] {
        assert!(found.iter().any(|found| found == figure), "{found:?}");
    }
}

#[test]
fn fanout_counts_cpu_and_latency() {
    let found = figures("fanout --clients 10,30 --bytes 64 --events 3 --against bare");
    let delivery = found.iter().filter(|found| *found == "delivery_cpu_us");
    assert_eq!(delivery.count(), 2, "{found:?}");
    let beside = "--beside-clients 20 --beside-channels 3 --against alone";
    figures(&format!(
        "fanout --clients 5 --bytes 64 --events 3 {beside}"
    ));
    figures("fanout --clients 2 --events 3 --rate 50 --beside-clients 20 --beside-busy");
}

#[test]
fn those_who_never_read_are_there_to_the_end() {
    figures("fanout --clients 20 --bytes 64 --events 3 --stuck 10 --against alone");
    figures("fanout --clients 20 --bytes 64 --events 3 --stuck 10 --against bare");
}

#[test]
fn bursts_are_one_body_or_pipelined() {
    figures("burst --clients 20 --bursts 3 --together 5 --against bare");
    figures("burst --clients 20 --bursts 3 --together 5 --pipelined --against bare");
}

#[test]
fn visitors_come_and_go() {
    assert_eq!(
        figures("churn --visits 200 --against bare"),
        ["visit_cpu_us"]
    );
}

#[test]
fn publishing_is_counted_without_clients() {
    let found = figures("publish --events 2000 --batch 1,7 --against bare");
    assert_eq!(
        found[..3],
        ["requests_per_s", "events_per_s", "publish_cpu_us"]
    );
}

#[test]
fn the_table_and_the_page_show_every_case() {
    let page = std::env::temp_dir().join(format!("pushwheel-bench-{}.html", std::process::id()));
    let output = bench(&format!(
        "fanout --clients 5,10 --bytes 64 --events 3 --rounds 1 --against bare --html {}",
        page.display()
    ));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("10 clients, 64 bytes"), "{table}");
    let html = std::fs::read_to_string(&page).unwrap();
    std::fs::remove_file(page).unwrap();
    assert_eq!(html.matches("<figure>").count(), 4);
    assert!(!html.contains("NaN") && !html.contains("http://www"));
}

#[test]
fn a_server_that_is_none_is_named() {
    let output = bench("fanout --exe /bin/true --clients 1");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        problem.contains("/bin/true did not print where it listens"),
        "{problem}"
    );
}

#[test]
fn the_bare_loop_has_one_channel_and_says_so() {
    let output = bench("fanout --clients 5 --beside-clients 5 --against bare --rounds 1");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{told}");
    assert!(
        told.contains("--against alone, or another server"),
        "{told}"
    );
}
