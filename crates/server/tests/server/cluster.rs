//! `serve --broker URL` on a real Redis server, and `pushwheel check` of one.

use std::collections::BTreeSet;
use std::env;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::commands::{Running, run};
use crate::common::client::Answer;
use crate::common::sse::Dispatched;
use crate::common::{Connection, Subscriber, eventually, summaries};
use crate::directory::Directory;
use crate::metrics::{CLUSTER, documented};

/// A Redis server, which ends with its test.
struct Redis {
    child: Child,
    port: u16,
    directory: Directory,
    arguments: Vec<String>,
}

impl Redis {
    fn start(arguments: &[&str]) -> Redis {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let directory = Directory::new(&format!("redis-{port}"));
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        let child = Redis::spawn(port, &directory, &arguments);
        let redis = Redis {
            child,
            port,
            directory,
            arguments,
        };
        redis.await_port();
        redis
    }

    fn spawn(port: u16, directory: &Directory, arguments: &Vec<String>) -> Child {
        let program = env::var_os("PUSHWHEEL_REDIS_SERVER");
        Command::new(program.unwrap_or_else(|| "redis-server".into()))
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--dir"])
            .arg(directory.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed")
    }

    fn await_port(&self) {
        eventually("the server listens", || {
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn restart(&mut self) {
        self.child = Redis::spawn(self.port, &self.directory, &self.arguments);
        self.await_port();
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A node of a cluster.
struct Node {
    running: Running,
    address: SocketAddr,
}

const KEY: &str = "admin-key-of-tests";

impl Node {
    fn start(redis: &Redis, name: &str) -> Node {
        Node::with(redis, name, &[])
    }

    fn with(redis: &Redis, name: &str, more: &[&str]) -> Node {
        let url = redis.url();
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--broker", &url];
        let arguments = arguments.into_iter().chain(["--node-name", name]);
        let arguments: Vec<&str> = arguments.chain(more.iter().copied()).collect();
        let mut running = Running::start(&arguments);
        let address = running.address();
        Node { running, address }
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut connection = Connection::open(self.address);
        let length = body.len();
        connection.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        ));
        connection.answer()
    }

    fn json(&self, method: &str, path: &str) -> (u16, Value) {
        let answer = self.ask(method, path, "", "");
        (answer.status, serde_json::from_str(answer.text()).unwrap())
    }

    #[track_caller]
    fn publish(&self, channel: &str, text: &str) -> Value {
        let answer = Connection::open(self.address).post(&format!("/channels/{channel}"), text);
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    fn subscribe(&self, path: &str) -> Subscriber {
        Subscriber::open(self.address, path, &[])
    }

    fn status(&self) -> Value {
        self.json("GET", "/stats?totals").1["cluster"].take()
    }

    /// Waits until the node sees this many nodes.
    fn await_nodes(&self, count: usize) {
        eventually("the nodes see each other", || {
            self.status()["nodes"].as_array().map(Vec::len) == Some(count)
        });
    }
}

/// Reads some events.
fn take(client: &mut Subscriber, count: usize) -> Vec<Dispatched> {
    (0..count).map(|_| client.next()).collect()
}

#[test]
fn an_event_reaches_the_clients_of_all_nodes_in_one_order() {
    let redis = Redis::start(&[]);
    let [one, other] = ["one", "other"].map(|name| Node::start(&redis, name));
    let mut clients = [&one, &other].map(|node| node.subscribe("/channels/news"));
    for n in 0..10 {
        let node = if n % 2 == 0 { &one } else { &other };
        node.publish("news", &n.to_string());
    }
    let read = clients.each_mut().map(|client| take(client, 10));
    assert_eq!(
        summaries(&read[0]),
        ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
    );
    let ids = |events: &[Dispatched]| -> Vec<String> {
        events
            .iter()
            .map(|event| event.last_event_id.clone())
            .collect()
    };
    assert_eq!(ids(&read[0]), ids(&read[1]));
    // A client moves with its id.
    let last = ids(&read[0])[4].clone();
    let headers = [("Last-Event-ID", &*last)];
    let mut moved = Subscriber::open(other.address, "/channels/news", &headers);
    assert_eq!(summaries(&take(&mut moved, 5)), ["5", "6", "7", "8", "9"]);
}

#[test]
fn a_request_can_be_repeated_at_another_node_also_one_to_several_channels() {
    let redis = Redis::start(&[]);
    let [one, other] = ["one", "other"].map(|name| Node::start(&redis, name));
    let mut client = other.subscribe("/events?channel=a&channel=b");
    for (path, text) in [("/channels?channel=a&channel=b", "1"), ("/channels/b", "2")] {
        let publish = |node: &Node| -> Value {
            let headers = "Content-Type: text/plain\r\nIdempotency-Key: k\r\n";
            let answer = node.ask("POST", path, headers, text);
            assert_eq!(answer.status, 200, "{}", answer.text());
            serde_json::from_str(answer.text()).unwrap()
        };
        let (first, again) = (publish(&one), publish(&other));
        assert_eq!(first.get("duplicate"), None, "{path}");
        assert_eq!(
            (&again["id"], &again["duplicate"]),
            (&first["id"], &json!(true)),
            "{path}"
        );
    }
    assert_eq!(summaries(&take(&mut client, 2)), ["1", "2"]);
}

#[test]
fn answers_are_marked_with_the_number_of_nodes() {
    let redis = Redis::start(&[]);
    let [one, other] = ["one", "other"].map(|name| Node::start(&redis, name));
    one.await_nodes(2);
    other.await_nodes(2);
    let nodes = one.status()["nodes"].take();
    let names: Vec<&str> = nodes
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["one", "other"]);
    assert_eq!(
        nodes
            .as_array()
            .unwrap()
            .iter()
            .filter(|node| node["this"] == true)
            .count(),
        1
    );

    let _client = other.subscribe("/channels/news?client=ann");
    eventually("the answers have both nodes", || {
        one.publish("news", "x")["nodes"] == 2
    });
    // HTTP/1.0 has no chunks.
    let mut lines = Connection::open(one.address);
    lines.send(
        "POST /channels/news?stream HTTP/1.0\r\nContent-Type: application/x-ndjson\r\n\
         Content-Length: 12\r\n\r\n{\"data\": 1}\n",
    );
    assert_eq!(lines.head().status, 200);
    let replies = String::from_utf8(lines.rest()).unwrap();
    let reply: Value = serde_json::from_str(replies.lines().next().unwrap()).unwrap();
    assert_eq!((&reply["clients"], &reply["nodes"]), (&json!(0), &json!(2)));
    let here = one.publish("news", "x");
    assert_eq!((&here["clients"], &here["nodes"]), (&json!(0), &json!(2)));
    assert_eq!(other.publish("news", "x")["clients"], 1);
    let counted = other.json("GET", "/channels/news/clients?count");
    assert_eq!(counted, (200, json!({"clients": 1, "nodes": 2})));
    let names = one.ask("GET", "/channels", "", "");
    assert_eq!(names.header("pushwheel-nodes"), Some("2"));
    let empty = one.json("DELETE", "/channels?empty");
    assert_eq!(
        (empty.0, &empty.1["error"]["code"]),
        (501, &json!("cluster_unsupported"))
    );

    // A client of another node is disconnected a moment later.
    let away = one.json("DELETE", "/channels/news/clients/ann");
    assert_eq!(away, (202, json!({"clients": 0, "nodes": 2})));
    eventually("the other node has disconnected it", || {
        other.json("GET", "/channels/news/clients?count").1["clients"] == 0
    });
    let _client = other.subscribe("/channels/news");
    let removed = one.json("DELETE", "/channels/news");
    assert_eq!(removed, (200, json!({"clients": 0, "nodes": 2})));
    eventually("it is removed there", || {
        other.json("GET", "/channels").1 == json!([])
    });
}

#[test]
fn a_ticket_of_one_node_opens_one_stream_on_any() {
    let redis = Redis::start(&[]);
    let secret = "token-secret-of-these-tests-which-is-long";
    let more = ["--token-secret", secret, "--admin-key", KEY];
    let [one, other] = ["one", "other"].map(|name| Node::with(&redis, name, &more));
    let make = |node: &Node| {
        let key = format!("Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n");
        let made = node.ask(
            "POST",
            "/tickets",
            &key,
            r#"{"subscribe": ["news"], "client": "ann"}"#,
        );
        assert_eq!(made.status, 200, "{}", made.text());
        let made: Value = serde_json::from_slice(&made.body).unwrap();
        made["ticket"].as_str().unwrap().to_owned()
    };
    let path = |ticket: &str| format!("/channels/news?ticket={ticket}");
    let used = |node: &Node, ticket: &str| {
        let answer = node.ask("GET", &path(ticket), "", "");
        (answer.status, answer.error_code())
    };
    let ticket = make(&one);
    // Looking does not use it up.
    assert_eq!(other.ask("HEAD", &path(&ticket), "", "").status, 200);
    let stream = other.subscribe(&path(&ticket));
    for node in [&one, &other] {
        assert_eq!(used(node, &ticket), (401, "ticket_unknown".to_owned()));
    }
    let key = format!("Authorization: Bearer {KEY}\r\n");
    let client = other.ask("GET", "/channels/news/clients/ann", &key, "");
    assert_eq!(client.status, 200, "{}", client.text());
    drop(stream);
    // On its own node, too.
    let ticket = make(&one);
    let _stream = one.subscribe(&path(&ticket));
    assert_eq!(used(&one, &ticket).1, "ticket_unknown");
    assert_eq!(used(&other, "forged").1, "ticket_unknown");
}

#[test]
fn without_the_broker_publishing_fails_and_all_else_goes_on() {
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let more = [
        "--broker-timeout",
        "1",
        "--broker-grace",
        "1",
        "--admin-key",
        KEY,
    ];
    let node = Node::with(
        &redis,
        "one",
        &[&more[..], &["--publish-key", "publish-key-of-tests"]].concat(),
    );
    let key = format!("Authorization: Bearer {KEY}\r\n");
    let publish = |text: &str| node.ask("POST", "/channels/news", &key, text);
    assert_eq!(publish("before").status, 200);
    assert_eq!(node.ask("GET", "/ready", "", "").status, 200);
    redis.kill();
    let failed = publish("lost");
    assert!([503, 504].contains(&failed.status), "{}", failed.text());
    let failed = publish("lost again");
    assert_eq!(failed.status, 503, "{}", failed.text());
    assert!(failed.header("retry-after").is_some());
    let ticket = node.ask("POST", "/tickets", &key, r#"{"subscribe": ["news"]}"#);
    assert_eq!(
        (ticket.status, &*ticket.error_code()),
        (503, "broker_unavailable")
    );
    // A replay is from memory.
    let mut replay = node.subscribe("/channels/news?last_event_id=earliest");
    assert_eq!(summaries(&take(&mut replay, 1)), ["before"]);
    eventually("the grace is over", || {
        node.ask("GET", "/ready", "", "").status == 503
    });
    let metrics = node.ask("GET", "/metrics", &key, "");
    assert!(
        metrics.text().contains("\npushwheel_broker_up 0"),
        "{}",
        metrics.text()
    );
    redis.restart();
    eventually("it heals", || publish("after").status == 200);
    eventually("it is ready", || {
        node.ask("GET", "/ready", "", "").status == 200
    });
    let metrics = || node.ask("GET", "/metrics", &key, "").text().to_owned();
    eventually("the probe of the node comes back", || {
        metrics().contains("\npushwheel_broker_up 1")
    });
    let metrics = metrics();
    let is_of_cluster = |name: &str| CLUSTER.iter().any(|prefix| name.starts_with(prefix));
    let types = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let names = types.filter_map(|line| line.split(' ').next());
    let found: BTreeSet<String> = names.map(str::to_owned).collect();
    let documented: BTreeSet<String> = documented().into_iter().collect();
    let of_cluster = |names: &BTreeSet<String>| -> BTreeSet<String> {
        let names = names.iter().filter(|name| is_of_cluster(name));
        names
            .map(|name| name.trim_end_matches("_total").to_owned())
            .collect()
    };
    assert_eq!(of_cluster(&found), of_cluster(&documented));
    for line in [
        "pushwheel_broker_terms_total 1",
        "pushwheel_cluster_nodes 1",
    ] {
        assert!(metrics.contains(&format!("\n{line}")), "{line}\n{metrics}");
    }
}

#[test]
fn a_node_without_a_broker_does_not_start_and_says_why() {
    let redis = Redis::start(&["--requirepass", "right"]);
    let host = format!("127.0.0.1:{}", redis.port);
    let start = |words: &[&str]| {
        let ended = run(&[&["serve", "--listen", "127.0.0.1:0"], words].concat());
        assert_ne!(ended.status.code(), Some(0));
        String::from_utf8(ended.stderr).unwrap()
    };
    let wrong = format!("redis://:hunter2@{host}");
    let said = start(&["--broker", &wrong]);
    assert!(
        said.contains("wrong user or password") && said.contains(&host),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
    let said = start(&["--broker", "localhost:6379"]);
    assert!(said.contains("redis://localhost"), "{said}");
    let said = start(&["--broker", &wrong, "--state", "/tmp/state"]);
    assert!(
        said.contains("one of --state, --journal and --broker"),
        "{said}"
    );
    let printed = run(&["config", "--broker", &wrong]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("# broker is set, but not shown") && !printed.contains("hunter2"));
}

#[test]
fn a_broker_is_checked() {
    let redis = Redis::start(&[]);
    let check = |words: &[&str]| {
        let checked = run(&[&["check", "--json"], words].concat());
        let report: Value = serde_json::from_slice(&checked.stdout).unwrap_or_default();
        (checked.status.code(), report)
    };
    let (code, report) = check(&[&redis.url()]);
    assert_eq!(code, Some(0), "{report}");
    let outcome = |code: &str| {
        let findings = report["findings"].as_array().unwrap();
        let found = findings.iter().find(|finding| finding["code"] == code);
        found.unwrap_or_else(|| panic!("{code}"))["outcome"].clone()
    };
    for (code, wanted) in [
        ("connect", "ok"),
        ("append", "ok"),
        ("restarts", "ok"),
        ("persistence", "warning"),
        ("memory_policy", "ok"),
        ("memory", "warning"),
        ("replicas", "warning"),
        ("log", "ok"),
    ] {
        assert_eq!(outcome(code), wanted, "{code}");
    }
    let (code, _) = check(&["--strict", &redis.url()]);
    assert_eq!(code, Some(1));
    let evicting = Redis::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let (code, report) = check(&[&evicting.url()]);
    assert_eq!(code, Some(1), "{report}");
    let (code, report) = check(&[&format!("redis://:hunter2@127.0.0.1:{}", free_port())]);
    assert_eq!(code, Some(2), "{report}");
    assert!(!report.to_string().contains("hunter2"), "{report}");
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn a_node_that_ends_is_gone_for_the_others() {
    let redis = Redis::start(&[]);
    let [one, other] = ["one", "other"].map(|name| Node::start(&redis, name));
    one.await_nodes(2);
    other.publish("news", "kept");
    drop(other.running);
    one.await_nodes(1);
    // A node that starts has what was published before.
    let late = Node::start(&redis, "late");
    let mut replay = late.subscribe("/channels/news?last_event_id=earliest");
    assert_eq!(summaries(&take(&mut replay, 1)), ["kept"]);
}
