//! The HTTP interface of one node about the channels and clients of all.

use serde_json::{Value, json};

use crate::common::client::Answer;
use crate::common::{Connection, Subscriber, eventually};
use crate::nodes::Node;
use crate::setting::Cluster;

fn ask(node: &Node, method: &str, path: &str, body: &str) -> Answer {
    let mut connection = Connection::open(node.address);
    let length = body.len();
    connection.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    ));
    connection.answer()
}

#[track_caller]
fn json_of(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

#[track_caller]
fn publish(node: &Node, path: &str, data: &str) -> Value {
    json_of(&ask(
        node,
        "POST",
        path,
        &json!({ "data": data }).to_string(),
    ))
}

fn next(subscriber: &mut Subscriber) -> String {
    subscriber.next().data
}

/// Events for some clients, for all channels, and the ends of clients and channels.
#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn what_is_asked_of_one_node_reaches_the_clients_of_another() {
    let cluster = Cluster::start("http", 2, &[]);
    let [here, there] = &cluster.nodes[..] else {
        panic!("two nodes");
    };
    let open = |path: &str| Subscriber::open(there.address, path, &[]);
    let mut ann = open("/channels/a?client=ann&meta.role=admin");
    let mut bob = open("/channels/a?client=bob");
    let mut other = open("/channels/b");
    publish(here, "/channels/a?client=ann", "for ann");
    publish(here, "/channels/a?where.role=admin", "for admins");
    publish(here, "/channels/a", "for a");
    publish(here, "/channels", "for all");
    assert_eq!(
        [(); 4].map(|()| next(&mut ann)),
        ["for ann", "for admins", "for a", "for all"]
    );
    assert_eq!([(); 2].map(|()| next(&mut bob)), ["for a", "for all"]);
    assert_eq!(next(&mut other), "for all");

    let kicked = ask(here, "DELETE", "/channels/a/clients/bob", "");
    assert!(kicked.status < 300, "{} {}", kicked.status, kicked.text());
    bob.expect_end();
    json_of(&ask(here, "DELETE", "/channels/a?finish", ""));
    ann.expect_end();
    json_of(&ask(here, "DELETE", "/channels/b", ""));
    other.expect_end();
    for node in &cluster.nodes {
        let refused = ask(node, "POST", "/channels/a", "{\"data\": \"too late\"}");
        assert_eq!(
            (refused.status, &*refused.error_code()),
            (409, "channel_finished")
        );
        let refused = ask(node, "DELETE", "/channels?empty", "");
        assert_eq!(
            (refused.status, &*refused.error_code()),
            (501, "cluster_unsupported")
        );
    }
}

/// A ticket of one node opens one stream on another, once.
#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn a_ticket_is_valid_on_any_node_once() {
    let cluster = Cluster::start("tickets", 2, &[]);
    let [here, there] = &cluster.nodes[..] else {
        panic!("two nodes");
    };
    let ticket = json_of(&ask(
        here,
        "POST",
        "/tickets",
        "{\"subscribe\": [\"news\"]}",
    ));
    let path = format!(
        "/channels/news?ticket={}",
        ticket["ticket"].as_str().unwrap()
    );
    let mut stream = Subscriber::open(there.address, &path, &[]);
    publish(here, "/channels/news", "hello");
    assert_eq!(next(&mut stream), "hello");
    for node in &cluster.nodes {
        assert_eq!(ask(node, "GET", &path, "").status, 401, "{}", node.name);
    }
}

/// An own id is known to all nodes: published again, it is not there twice.
#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn an_event_with_an_own_id_can_be_published_again_to_another_node() {
    let cluster = Cluster::start("own-ids", 2, &[]);
    let [here, there] = &cluster.nodes[..] else {
        panic!("two nodes");
    };
    let mut stream = Subscriber::open(here.address, "/channels/news", &[]);
    let body = json!({ "data": "hello", "id": "own.1" }).to_string();
    for node in [here, there] {
        json_of(&ask(node, "POST", "/channels/news", &body));
    }
    publish(there, "/channels/news", "after");
    assert_eq!([(); 2].map(|()| next(&mut stream)), ["hello", "after"]);
    // And a client of one node resumes behind it on the other.
    let headers = [("Last-Event-ID", "own.1")];
    let mut resumed = Subscriber::open(there.address, "/channels/news", &headers);
    assert_eq!(next(&mut resumed), "after");
}

#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn the_statistics_of_each_node_list_all_nodes() {
    let mut cluster = Cluster::start("stats", 3, &[]);
    let names = |node: &Node| {
        let stats = json_of(&node.get("/stats"));
        let nodes = stats["totals"]["cluster"]["nodes"]
            .as_array()
            .expect("a list")
            .clone();
        let name = |node: Value| node["name"].as_str().unwrap().to_owned();
        let mut names: Vec<String> = nodes.into_iter().map(name).collect();
        names.sort();
        names
    };
    for node in &cluster.nodes {
        eventually("each node has heard of all", || {
            names(node) == ["n1", "n2", "n3"]
        });
    }
    cluster.nodes[2].kill();
    for node in &cluster.nodes[..2] {
        eventually("a node that is gone is not listed", || {
            names(node) == ["n1", "n2"]
        });
    }
}

/// The bench delivers every event to clients of all nodes, or it fails.
#[test]
#[ignore = "needs redis-server: tests/run cluster"]
fn the_bench_measures_nodes_against_one_server() {
    let mut bench = crate::running::pushwheel(&[
        "bench",
        "cluster",
        "--json",
        "--rounds",
        "1",
        "--nodes",
        "2",
        "--events",
        "100",
        "--throughput-events",
        "2000",
        "--clients",
        "20",
    ]);
    let output = bench.output().unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problem}");
    let text = String::from_utf8(output.stdout).unwrap();
    for figure in [
        "last_client_median_ms",
        "last_client_p99_ms",
        "broker_cpu_us",
        "events_per_s",
        "delivery_cpu_us",
    ] {
        assert!(text.contains(figure), "{figure}: {text}");
    }
}
