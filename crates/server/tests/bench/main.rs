//! `pushwheel bench`: the smallest run of each scenario. Its load checks every event of every
//! client. For Linux only.
#![cfg(target_os = "linux")]

use std::fs;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

#[path = "../../../../tests/common/mod.rs"]
mod common;
mod plain_server;

use common::eventually;
use plain_server::{EVENT_STREAM, PlainServer};

fn command(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushwheel"));
    // Without the proxies and settings of the developer's environment.
    command.env_clear().arg("bench").args(arguments.split(' '));
    command
}

fn bench(arguments: &str) -> Output {
    let output = command(arguments).output();
    output.expect("cargo has built pushwheel")
}

/// The error that it prints instead of figures.
fn refusal(arguments: &str) -> String {
    let output = bench(arguments);
    let reported = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{arguments}: {reported}");
    assert!(!reported.contains("panicked"), "{arguments}: {reported}");
    assert!(output.stdout.is_empty(), "{arguments}: {output:?}");
    reported
}

/// The lines of JSON.
fn lines(arguments: &str) -> Vec<Value> {
    let output = bench(&arguments.replacen(' ', " --json ", 1));
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {problem}");
    let text = String::from_utf8(output.stdout).expect("JSON is text");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")));
    lines.collect()
}

/// The figures of the summary lines.
fn figures(arguments: &str) -> Vec<String> {
    let lines = lines(&arguments.replacen(' ', " --rounds 1 ", 1)).into_iter();
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
}

#[test]
fn at_a_rate_the_reached_rate_is_reported() {
    let beside = "--beside-clients 20 --beside-busy";
    let found = figures(&format!("fanout --clients 2 --events 3 --rate 50 {beside}"));
    assert!(
        found.contains(&"reached_events_per_s".to_owned()),
        "{found:?}"
    );
    // More than the machine can do: the load continues and reports it.
    let lines = lines("fanout --clients 20 --bytes 64 --events 300 --rate 1000000 --rounds 1");
    let notes = lines[0]["notes"].to_string();
    assert!(notes.contains("the rate was not reached"), "{notes}");
}

#[test]
fn a_percentile_needs_a_hundred_times() {
    let figure = |events| {
        let found = figures(&format!("fanout --clients 2 --bytes 64 --events {events}"));
        let mut found = found.into_iter();
        found.find(|name| name.contains("p99") || name.contains("most"))
    };
    assert_eq!(figure(99).unwrap(), "last_client_most_ms");
    assert_eq!(figure(100).unwrap(), "last_client_p99_ms");
}

#[test]
fn clients_that_never_read_stay_to_the_end() {
    figures("fanout --clients 20 --bytes 64 --events 3 --stuck 10 --against alone");
    figures("fanout --clients 20 --bytes 64 --events 3 --stuck 10 --against bare");
}

#[test]
fn bursts_are_one_body_or_pipelined() {
    figures("burst --clients 20 --bursts 3 --together 5 --against bare");
    figures("burst --clients 20 --bursts 3 --together 5 --pipelined --against bare");
}

#[test]
fn each_channel_has_its_own_events() {
    for pace in ["", " --rate 2000 --publishers 3"] {
        let found = figures(&format!(
            "each --channels 5 --events 50 --against bare{pace}"
        ));
        for figure in ["publish_cpu_us", "last_client_p99_ms"] {
            assert!(found.iter().any(|other| other == figure), "{found:?}");
        }
    }
    let reported = refusal(
        "each --channels 1 --url http://127.0.0.1:9/a --publish-url \
                            http://127.0.0.1:9/a --pid 1",
    );
    assert!(reported.contains("Omit --url"), "{reported}");
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
    figures("publish --events 2000 --batch 1 --keyed --against plain");
}

#[test]
fn the_table_and_the_page_show_every_case() {
    let page = std::env::temp_dir().join(format!("pushwheel-bench-{}.html", std::process::id()));
    let shown = |arguments: &str| {
        let output = bench(&format!("{arguments} --html {}", page.display()));
        let table = String::from_utf8(output.stdout).unwrap();
        let html = fs::read_to_string(&page).unwrap();
        assert!(!html.contains("NaN") && !html.contains("http://www"));
        (table, html)
    };
    let (table, html) =
        shown("fanout --clients 10,5 --bytes 64 --events 3 --rounds 1 --against bare");
    let [few, more] = ["5 clients, 64 bytes", "10 clients, 64 bytes"].map(|case| table.find(case));
    assert!(few.is_some() && few < more, "{table}");
    assert!(table.contains("medians of 1 pair of runs"), "{table}");
    assert_eq!(html.matches("Until a client has it").count(), 4);
    assert_eq!(html.matches("CPU for each delivered event").count(), 2);

    // Dashes distinguish four sizes, so the fifth is in a second plot.
    let (_, html) = shown("fanout --clients 5 --bytes 16,32,64,128,256 --events 3 --rounds 1");
    assert_eq!(html.matches("Until a client has it").count(), 4);

    let (table, html) = shown("publish --events 2000 --batch 10,1 --rounds 1");
    assert!(table.contains("32 bytes, 1 event at a time"), "{table}");
    assert_eq!(html.matches("<figure>").count(), 2);
    fs::remove_file(page).unwrap();
}

#[test]
fn a_server_that_is_none_is_named() {
    let reported = refusal("fanout --exe /bin/true --clients 1");
    let expected = "true did not print its listen address";
    assert!(reported.contains(expected), "{reported}");
    let reported = refusal("fanout --exe nonsense --clients 1");
    assert!(reported.contains("no program at nonsense"), "{reported}");
    let reported = refusal("fanout --against nonsense --clients 1");
    assert!(
        reported.contains("--against nonsense") && reported.contains("`one-thread`"),
        "{reported}"
    );
    assert!(!reported.contains("listens"), "{reported}");
}

#[test]
fn the_bare_loop_has_one_channel_and_says_so() {
    let reported = refusal("fanout --clients 5 --beside-clients 5 --against bare --rounds 1");
    assert!(
        reported.contains("use --against alone or another server"),
        "{reported}"
    );
}

#[test]
fn what_cannot_be_measured_is_refused_with_a_reason() {
    for (arguments, reported) in [
        ("fanout --clients 0", "from 1 to"),
        ("fanout --events 0", "from 1 to"),
        ("fanout --rate=-1", "per second from"),
        ("fanout --rate 0", "per second from"),
        ("fanout --bytes 10", "from 11 to"),
        (
            "fanout --beside-channels 0 --beside-clients 5",
            "at least 1",
        ),
        ("fanout --beside-busy", "--beside-clients"),
        ("burst --clients 0", "from 1 to"),
        ("burst --bursts 0", "from 1 to"),
        ("burst --together 0", "from 1 to"),
        ("idle --clients 0", "from 1 to"),
        ("idle --heartbeats-for 0", "use seconds"),
        ("churn --visits 0", "at least 1"),
        ("publish --batch 0", "from 1 to"),
        ("publish --events 0", "at least 1"),
        ("publish --depth 0", "from 1 to"),
        ("fanout --threads 0", "at least 1"),
        ("fanout --rounds 0", "at least 1"),
        ("each --channels 0", "from 1 to"),
        ("each --publishers 0", "from 1 to"),
        ("cluster --nodes 0", "from 1 to"),
        ("cluster --throughput-events 0", "from 1 to"),
        (
            "cluster --redis-server /bin/false",
            "/bin/false did not start",
        ),
        ("cluster --against bare", "Omit --against"),
    ] {
        let problem = refusal(arguments);
        assert!(problem.contains(reported), "{arguments}: {problem}");
    }
}

#[test]
fn an_unwritable_report_fails_before_anything_is_measured() {
    // More events than the time of this test allows.
    let reported = refusal("publish --events 1000000000000 --html /nonexistent/x.html");
    assert!(
        reported.contains("--html /nonexistent/x.html"),
        "{reported}"
    );
}

#[test]
fn threads_that_end_count_for_their_server() {
    let server = PlainServer::start(EVENT_STREAM, |number| format!("id: {number}\n"));
    let lines = lines(&format!(
        "idle --clients 20 --rounds 1 {}",
        server.arguments()
    ));
    let closing = lines.iter().find(|line| line["figure"] == "close_cpu_us");
    let figure = &closing.expect("it is measured")["servers"][0]["figure"]["median"];
    // At most a second for each. A sum that wrapped is 10^13 and more.
    assert!((0.0..1e6).contains(&figure.as_f64().unwrap()), "{figure}");
}

#[test]
fn processes_of_one_server_are_added_up() {
    let server = PlainServer::start(EVENT_STREAM, |_| String::new());
    let mut worker = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let with_worker = format!("{},{}", server.arguments(), worker.id());
    figures(&format!(
        "fanout --clients 3 --bytes 64 --events 3 {with_worker}"
    ));
    drop(worker.stdin.take());
    worker.wait().unwrap();
    let reported = refusal(&format!(
        "fanout --clients 3 --bytes 64 --events 3 {with_worker}"
    ));
    assert!(
        reported.contains(&format!("process {} of the server", worker.id())),
        "{reported}"
    );
}

#[test]
fn memory_of_a_server_that_goes_on_is_of_its_first_run() {
    let server = PlainServer::start(EVENT_STREAM, |_| String::new());
    let lines = lines(&format!(
        "idle --clients 5,10 --rounds 2 {}",
        server.arguments()
    ));
    let runs = lines.iter().filter(|line| line["kind"] == "run");
    let memory = runs.map(|run| run["figures"].get("client_resident_bytes"));
    let is_reported: Vec<bool> = memory.map(|figure| figure.is_some()).collect();
    assert_eq!(is_reported, [true, false, false, false]);
    assert!(lines[0]["notes"].to_string().contains("of its first run"));
}

#[test]
fn what_is_no_good_stream_ends_the_bench() {
    let ids = |number| format!("id: {number}\n");
    let wrong = |server: &PlainServer| {
        refusal(&format!(
            "fanout --clients 3 --bytes 64 --events 3 {}",
            server.arguments()
        ))
    };
    let reported = wrong(&PlainServer::start("text/html", ids));
    assert!(
        reported.contains("Content-Type is not text/event-stream"),
        "{reported}"
    );
    let reported = wrong(&PlainServer::start(EVENT_STREAM, |_| "id: 7\n".to_owned()));
    assert!(reported.contains("have the same id"), "{reported}");
}

#[test]
fn a_server_ends_with_the_bench_however_that_ends() {
    // Far more than it will send.
    let mut bench = command("churn --visits 100000000 --rounds 1");
    let mut bench = bench.stderr(Stdio::null()).spawn().unwrap();
    let mut server = None;
    eventually("the bench has its server", || {
        server = child_of(&bench);
        server.is_some()
    });
    bench.kill().unwrap();
    bench.wait().unwrap();
    let server = server.unwrap();
    eventually("the server has ended", || has_ended(server));
}

/// Returns the server that a bench has started, once it runs.
fn child_of(bench: &Child) -> Option<u32> {
    let id = bench.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    let child: u32 = children.split_whitespace().next()?.parse().ok()?;
    let command = fs::read_to_string(format!("/proc/{child}/cmdline")).ok()?;
    (command.split('\0').nth(1) == Some("serve")).then_some(child)
}

/// Whether a process has ended, or waits only for its parent to read its exit status.
fn has_ended(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat"));
    status.map_or(true, |status| status.contains(") Z "))
}
