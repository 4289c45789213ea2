//! The figures of the server: /metrics, /stats, /ready, and the files that use them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pushwheel::{DisconnectReason, JournalOptions};
use pushwheel_server::{Config, Key, Server};
use serde_json::{Value, json};

use crate::common::{Connection, Served, eventually};
use crate::directory::Directory;
use crate::{JSON, TEXT, ask, delete, get, json, publish, refusal, refused, start};

/// A page of /metrics: series with their values, and the type of each family.
struct Page {
    series: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Page {
    #[track_caller]
    fn of(served: &Served) -> Page {
        let answer = get(served, "/metrics");
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8")
        );
        Page::parse(answer.text())
    }

    /// Returns the page of a server that has a journal.
    fn of_journaled(directory: &Directory, fetches_keys: bool) -> Page {
        let (journal, options) = (directory.path().join("journal"), JournalOptions::new());
        let server = Config::new().journaled_server(journal, options);
        let Server { engine, reloader } = server.unwrap();
        if fetches_keys {
            reloader.count_token_key_fetch(true);
        }
        Page::of(&Served::start(engine))
    }

    /// Reads the part of the text format's grammar that the server uses.
    #[track_caller]
    fn parse(text: &str) -> Page {
        let (mut series, mut types) = (BTreeMap::new(), BTreeMap::new());
        let mut helped = BTreeSet::new();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a name and a text");
                assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a type");
                assert!(helped.contains(name), "HELP comes first: {line}");
                assert_eq!(
                    types.insert(name.to_owned(), kind.to_owned()),
                    None,
                    "{line}"
                );
            } else {
                let (name, value) = line.rsplit_once(' ').expect("a series and a value");
                let value = value.parse().expect("a number");
                assert_eq!(series.insert(name.to_owned(), value), None, "twice: {line}");
                let family = family(name);
                assert!(types.contains_key(family), "TYPE comes first: {line}");
            }
        }
        Page { series, types }
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        let value = self.series.get(series);
        *value.unwrap_or_else(|| panic!("there is no {series}: {:#?}", self.series.keys()))
    }

    fn names(&self) -> BTreeSet<&String> {
        self.series.keys().collect()
    }
}

/// What the names of metrics begin with that only a node of a cluster has.
pub(super) const CLUSTER: [&str; 2] = ["pushwheel_broker_", "pushwheel_cluster_"];

/// Returns the family of a series.
fn family(series: &str) -> &str {
    let name = series.split('{').next().unwrap();
    if name == "pushwheel_loop_turn_seconds" || name == "pushwheel_delivery_latency_seconds" {
        return name;
    }
    for ending in ["_bucket", "_sum", "_count"] {
        if let Some(histogram) = name.strip_suffix(ending) {
            return histogram;
        }
    }
    name
}

/// Returns the names that docs/observability.md explains.
pub(super) fn documented() -> BTreeSet<String> {
    let manual = std::fs::read_to_string("../../docs/observability.md").unwrap();
    let rows = manual.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter_map(|row| row.split(['`', '{']).next());
    let is_metric = |name: &&str| name.starts_with("pushwheel_") || name.starts_with("process_");
    names.filter(is_metric).map(str::to_owned).collect()
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_there() {
    let directory = Directory::new("metrics");
    let page = Page::of_journaled(&directory, true);
    let found: BTreeSet<String> = page.types.keys().cloned().collect();
    // Those of a node of a cluster are in the tests of clusters.
    let of_cluster = |name: &String| CLUSTER.iter().any(|prefix| name.starts_with(prefix));
    let mut documented = documented();
    documented.retain(|name| !of_cluster(name));
    assert_eq!(found, documented);
    for (name, kind) in &page.types {
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} {kind}");
        assert!(
            ["counter", "gauge", "histogram"].contains(&&**kind),
            "{name}"
        );
    }
}

#[test]
fn counters_move_with_what_is_done() {
    let served = start();
    let mut stream = served.subscribe("/channels/a");
    let mut kicked = served.subscribe("/channels/a?client=ann");
    for n in 0..3 {
        let published = publish(&served, "/channels/a", TEXT, &n.to_string());
        assert_eq!(published["clients"], 2);
    }
    stream.take(3);
    kicked.take(3);
    assert_eq!(delete(&served, "/channels/a/clients/ann").status, 200);
    kicked.expect_end();
    assert_eq!(
        ask(&served, "POST", "/channels/a", &[JSON], "{").status,
        400
    );
    assert_eq!(get(&served, "/nope").status, 404);
    let mut malformed = served.connect();
    malformed.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(malformed.answer().error_code(), "host_missing");

    // The loop adds its figures at the end of a turn.
    eventually("all is counted", || {
        Page::of(&served).value("pushwheel_deliveries_total") == 6.0
    });
    let page = Page::of(&served);
    for (series, value) in [
        ("pushwheel_clients", 1.0),
        ("pushwheel_streams_opened_total", 2.0),
        ("pushwheel_streams_ended_total{reason=\"kicked\"}", 1.0),
        ("pushwheel_streams_ended_total{reason=\"gone\"}", 0.0),
        ("pushwheel_channels", 1.0),
        ("pushwheel_events_published_total", 3.0),
        ("pushwheel_deliveries_total", 6.0),
        ("pushwheel_gaps_total", 0.0),
        ("pushwheel_clients_behind", 0.0),
        ("pushwheel_backlog_events", 0.0),
        ("pushwheel_log_events", 3.0),
        ("pushwheel_refusals_total{code=\"invalid_json\"}", 1.0),
        ("pushwheel_refusals_total{code=\"not_found\"}", 1.0),
        ("pushwheel_refusals_total{code=\"host_missing\"}", 1.0),
        ("pushwheel_refusals_total{code=\"other\"}", 0.0),
        ("pushwheel_responses_total{class=\"4xx\"}", 3.0),
        ("pushwheel_ready", 1.0),
    ] {
        assert_eq!(page.value(series), value, "{series}");
    }
    for (series, least) in [
        ("pushwheel_connections", 2.0),
        ("pushwheel_connections_accepted_total", 9.0),
        // Two streams, three publishes, one removal.
        ("pushwheel_responses_total{class=\"2xx\"}", 6.0),
        ("pushwheel_read_bytes_total", 500.0),
        ("pushwheel_written_bytes_total", 500.0),
        ("pushwheel_published_bytes_total", 20.0),
        ("pushwheel_log_bytes", 30.0),
        ("pushwheel_loop_turn_seconds_count", 10.0),
        ("pushwheel_uptime_seconds", f64::MIN_POSITIVE),
        ("process_resident_memory_bytes", 1e6),
        ("process_open_fds", 5.0),
        ("process_max_fds", 5.0),
        ("process_start_time_seconds", 1.7e9),
    ] {
        assert!(
            page.value(series) >= least,
            "{series} {}",
            page.value(series)
        );
    }
    assert_eq!(page.value("pushwheel_delivery_latency_seconds_count"), 3.0);

    drop(stream);
    eventually("the client is seen to be gone", || {
        let page = Page::of(&served);
        page.value("pushwheel_streams_ended_total{reason=\"gone\"}") == 1.0
            && page.value("pushwheel_clients") == 0.0
    });
}

#[test]
fn no_client_makes_a_series() {
    let served = start();
    let before = Page::of(&served);
    let mut streams = Vec::new();
    for n in 0..20 {
        let path = format!("/channels/c{n}?client=me{n}&meta.m{n}=x");
        streams.push(served.subscribe(&path));
        publish(&served, &format!("/channels/c{n}?event=e{n}"), TEXT, "x");
        get(&served, &format!("/nope{n}"));
        ask(&served, &format!("METHOD{n}"), "/", &[], "");
        delete(&served, &format!("/channels/none{n}"));
    }
    let after = Page::of(&served);
    assert_eq!(before.names(), after.names());
    assert_eq!(after.value("pushwheel_clients"), 20.0);
    let reasons: Vec<_> = DisconnectReason::ALL.iter().map(|r| r.as_str()).collect();
    for series in after.names() {
        let Some((_, labels)) = series.split_once('{') else {
            continue;
        };
        let (label, value) = labels.split_once("=\"").unwrap();
        let value = value.strip_suffix("\"}").expect("one label");
        match label {
            "reason" => assert!(reasons.contains(&value), "{series}"),
            "class" => assert!(value.ends_with("xx"), "{series}"),
            "version" => assert_eq!(value, env!("CARGO_PKG_VERSION")),
            "code" => assert!(
                value
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c))
            ),
            "le" => assert!(value == "+Inf" || value.parse::<f64>().is_ok(), "{series}"),
            _ => panic!("{series}"),
        }
    }
}

#[test]
fn the_classes_of_histograms_add_up() {
    let served = start();
    let mut stream = served.subscribe("/channels/a");
    publish(&served, "/channels/a", TEXT, "x");
    stream.next();
    eventually("the delivery is counted", || {
        Page::of(&served).value("pushwheel_delivery_latency_seconds_count") == 1.0
    });
    let page = Page::of(&served);
    for name in [
        "pushwheel_loop_turn_seconds",
        "pushwheel_delivery_latency_seconds",
    ] {
        let count = page.value(&format!("{name}_count"));
        assert_eq!(page.value(&format!("{name}_bucket{{le=\"+Inf\"}}")), count);
        let start = format!("{name}_bucket{{le=\"");
        let buckets = page.series.iter().filter_map(|(series, count)| {
            let bound = series.strip_prefix(&*start)?.strip_suffix("\"}")?;
            Some((bound.parse::<f64>().expect("a number"), *count))
        });
        let mut buckets: Vec<(f64, f64)> = buckets.collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert_eq!(buckets.len(), 19, "{name}");
        assert!(
            buckets.is_sorted_by(|a, b| a.1 <= b.1),
            "{name} {buckets:?}"
        );
        let sum = page.value(&format!("{name}_sum"));
        assert!((0.0..60.0).contains(&sum), "{name} {sum}");
    }
}

#[test]
fn a_client_that_is_behind_is_seen_with_what_waits_for_it() {
    let served = start();
    let mut stuck = Connection::very_narrow(served.address());
    stuck.send("GET /channels/a HTTP/1.1\r\nHost: test\r\n\r\n");
    stuck.head();
    let data = "x".repeat(100_000);
    for _ in 0..60 {
        publish(&served, "/channels/a", TEXT, &data);
    }
    eventually("it is behind", || {
        Page::of(&served).value("pushwheel_clients_behind") == 1.0
    });
    let page = Page::of(&served);
    let (events, bytes) = (
        page.value("pushwheel_backlog_events"),
        page.value("pushwheel_backlog_bytes"),
    );
    assert!(
        events >= 1.0 && bytes >= 100_000.0 * events,
        "{events} {bytes}"
    );
    assert!(page.value("pushwheel_log_events") >= events);
    drop(stuck);
    eventually("no event waits for a client", || {
        let page = Page::of(&served);
        page.value("pushwheel_clients_behind") == 0.0
            && page.value("pushwheel_backlog_events") == 0.0
    });
}

#[test]
fn the_figures_need_the_admin_key() {
    let config = Config::new()
        .publish_key(Key::new("publish-s3cret-of-tests").unwrap())
        .admin_key(Key::new("admin-s3cret-of-tests").unwrap());
    let served = Served::start(config.engine());
    assert_eq!(
        refusal(&get(&served, "/metrics")),
        refused(401, "key_missing")
    );
    let with = |key: &str| {
        let bearer = format!("Bearer {key}");
        ask(
            &served,
            "GET",
            "/metrics",
            &[("Authorization", &bearer)],
            "",
        )
        .status
    };
    assert_eq!(
        (
            with("publish-s3cret-of-tests"),
            with("admin-s3cret-of-tests")
        ),
        (403, 200)
    );
    // A load balancer has no key.
    assert_eq!(get(&served, "/ready").status, 200);
}

#[test]
fn ready_is_200_while_clients_can_be_served_and_503_while_draining() {
    let served = start();
    assert_eq!(json(&get(&served, "/ready")), json!({"status": "ready"}));
    let mut asking = served.connect();
    asking.send("GET /ready HTTP/1.1\r\n");
    let mut stream = served.subscribe("/channels/a");
    stream.wait_for_id();
    served.shutdown(Duration::from_secs(10));
    stream.expect_end();
    asking.send("Host: test\r\n\r\n");
    assert_eq!(refusal(&asking.answer()), refused(503, "draining"));
    served.join();
}

#[test]
fn a_full_server_is_not_ready_and_is_again_when_there_is_room() {
    let served = Served::start(Config::new().engine().connections_max(2));
    let mut keeping = served.connect();
    assert_eq!(keeping.get("/ready").status, 200);
    let mut stream = served.subscribe("/channels/a");
    stream.wait_for_id();
    eventually("it is full", || keeping.get("/ready").status == 503);
    assert_eq!(refusal(&keeping.get("/ready")), refused(503, "not_ready"));
    // A new connection gets the same response.
    assert_eq!(refusal(&get(&served, "/ready")), refused(503, "not_ready"));
    let page = Page::parse(keeping.get("/metrics").text());
    assert_eq!(page.value("pushwheel_ready"), 0.0);
    assert!(page.value("pushwheel_connections_refused_total") >= 1.0);
    drop(stream);
    eventually("there is room", || keeping.get("/ready").status == 200);
}

#[test]
fn stats_have_totals_that_outlive_their_channels() {
    let served = start();
    let mut stream = served.subscribe("/channels/a");
    publish(&served, "/channels/a", TEXT, "x");
    stream.next();
    delete(&served, "/channels/a");
    stream.expect_end();
    eventually("the delivery is counted", || {
        json(&get(&served, "/stats?totals"))["delivered"] == 1
    });
    let totals = json(&get(&served, "/stats?totals"));
    for (field, value) in [("published", 1), ("gaps", 0), ("streams", 0), ("behind", 0)] {
        assert_eq!(totals[field], value, "{field}");
    }
    assert!(totals["bytes_written"].as_u64() > Some(100));
    assert_eq!(totals.get("channel_stats"), None);
    let stats = json(&get(&served, "/stats"));
    assert_eq!(
        (&stats["channel_stats"], &stats["published"]),
        (&json!([]), &json!(0))
    );
    assert_eq!(totals["version"], stats["version"]);
    let fields = totals.as_object().unwrap().keys();
    for field in fields.filter(|field| *field != "version") {
        assert!(stats["totals"].get(field).is_some(), "{field}");
    }
}

/// Returns the names of metrics in a text, also within queries.
fn names_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c));
    let is_name = |word: &&str| word.starts_with("pushwheel_") || word.starts_with("process_");
    words.filter(is_name).map(str::to_owned).collect()
}

#[test]
fn the_dashboard_and_the_alerts_name_metrics_that_there_are() {
    let directory = Directory::new("dashboard");
    let page = Page::of_journaled(&directory, false);
    let series = page.series.keys();
    let there: BTreeSet<&str> = series.map(|name| name.split('{').next().unwrap()).collect();
    let dashboard = std::fs::read_to_string("../../deploy/grafana-dashboard.json").unwrap();
    let parsed: Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = parsed["panels"].as_array().unwrap();
    assert!(
        panels
            .iter()
            .all(|panel| !panel["targets"].as_array().unwrap().is_empty())
    );
    let alerts = std::fs::read_to_string("../../deploy/prometheus-alerts.yml").unwrap();
    let shown = names_in(&dashboard);
    for name in shown.iter().chain(&names_in(&alerts)) {
        assert!(there.contains(&**name), "{name}");
    }
    // The dashboard shows every figure of the server.
    for name in page
        .types
        .keys()
        .filter(|name| name.starts_with("pushwheel_"))
    {
        let is_shown = shown.iter().any(|other| other.starts_with(&**name));
        let is_needless = [
            "pushwheel_uptime_seconds",
            "pushwheel_connections_accepted_total",
            // It changes with the settings only.
            "pushwheel_batch_senders",
        ];
        assert!(is_shown || is_needless.contains(&&**name), "{name}");
    }
}
