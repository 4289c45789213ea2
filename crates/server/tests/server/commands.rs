//! The command line: `serve`, `sub` and `pub`, as processes.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output};

use pushwheel::LagPolicy;
use pushwheel_server::Config;
use serde_json::{Value, json};

use crate::common::{Served, Subscriber, eventually, summaries};
pub(super) use crate::running::{Running, pushwheel};
use crate::{TEXT, delete, publish, start};

pub(super) fn run(arguments: &[&str]) -> Output {
    pushwheel(arguments).output().unwrap()
}

pub(super) fn url(served: &Served, path: &str) -> String {
    format!("http://{}{path}", served.address())
}

#[test]
fn serve_says_where_it_listens_and_drains_on_a_signal() {
    for signal in ["INT", "TERM"] {
        let mut server = Running::start(&["serve", "--listen", "127.0.0.1:0", "--heartbeat", "1"]);
        let line = server.line();
        let address = line.strip_prefix("pushwheel listens on http://").unwrap();
        let mut stream = Subscriber::open(address.parse().unwrap(), "/channels/news", &[]);
        stream.wait_for_id();
        for command in ["curl -N", "curl -d hello"] {
            let line = server.line();
            assert!(
                line.contains(&format!("{command} http://{address}/channels/news")),
                "{line}"
            );
        }
        server.signal(signal);
        stream.expect_end();
        assert_eq!(server.exit_code(), Some(0), "{signal}");
    }
}

#[test]
fn serve_shows_a_publish_with_the_key_that_it_needs() {
    const PUBLISH: &str = "publish-key-of-tests";
    const ADMIN: &str = "admin-key-of-the-tests";
    let secret = "--token-secret=a secret of a test, of 32 bytes!!";
    let [publish, admin] = [
        format!("--publish-key={PUBLISH}"),
        format!("--admin-key={ADMIN}"),
    ];
    let name = format!("pushwheel key {}", std::process::id());
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, format!("{PUBLISH}\n")).unwrap();
    let file = file.to_str().unwrap();
    let of_file = format!("--publish-key-file={file}");
    let cat = format!("$(cat '{file}')");
    for (arguments, variable, shown) in [
        (&[&*publish][..], None, "PUBLISH_KEY"),
        (&[&admin], None, "ADMIN_KEY"),
        (&[&admin, secret], None, "ADMIN_KEY"),
        (&[&publish, &admin], None, "PUBLISH_KEY"),
        (
            &[],
            Some(("PUSHWHEEL_ADMIN_KEY", ADMIN)),
            "$PUSHWHEEL_ADMIN_KEY",
        ),
        (
            &[&admin],
            Some(("PUSHWHEEL_PUBLISH_KEY", PUBLISH)),
            "$PUSHWHEEL_PUBLISH_KEY",
        ),
        (&[&admin, &of_file], None, &cat),
        (&[secret], None, "$TOKEN"),
    ] {
        let all = [&["serve", "--listen=127.0.0.1:0"], arguments].concat();
        let mut server = Running::spawn(pushwheel(&all).envs(variable));
        server.address();
        let (subscribe, publish) = (server.line(), server.line());
        let header = format!("-H \"Authorization: Bearer {shown}\" -d hello");
        assert!(publish.contains(&header), "{arguments:?}: {publish}");
        let needs_token = arguments.contains(&secret);
        assert_eq!(
            subscribe.contains("Bearer $TOKEN"),
            needs_token,
            "{subscribe}"
        );
        // A printed line without a placeholder works as it is.
        if shown.starts_with('$') && shown != "$TOKEN" {
            let (_, command) = publish.split_once("publish:").unwrap();
            let output = Command::new("sh")
                .args(["-c", command])
                .envs(variable)
                .output();
            let answer = String::from_utf8(output.unwrap().stdout).unwrap();
            assert!(answer.contains("\"events\":1"), "{command}: {answer}");
        }
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let mut server = Running::start(&["serve", "--listen=127.0.0.1:0", "--shutdown-deadline=60"]);
    let line = server.line();
    let address = line.strip_prefix("pushwheel listens on http://").unwrap();
    // A request that never ends keeps it from ending.
    let mut connection = crate::common::Connection::open(address.parse().unwrap());
    let mut stream = Subscriber::open(address.parse().unwrap(), "/channels/news", &[]);
    stream.wait_for_id();
    connection.send("POST /channels/news HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc");
    server.signal("TERM");
    stream.expect_end();
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(128 + 15));
}

#[test]
fn health_checks_see_a_shutdown_before_connections_are_refused() {
    let mut server = Running::start(&[
        "serve",
        "--listen=127.0.0.1:0",
        "--shutdown-delay=6",
        "--shutdown-window=1",
        "--shutdown-deadline=20",
    ]);
    let address = server.address();
    let health = || crate::common::Connection::open(address).get("/health");
    assert_eq!(health().status, 200);
    let mut stream = Subscriber::open(address, "/channels/news", &[]);
    stream.wait_for_id();
    server.signal("TERM");
    eventually("the health check fails", || health().status == 503);
    assert_eq!(health().error_code(), "draining");
    let probe = run(&["health", "--listen", &address.to_string()]);
    assert_eq!(probe.status.code(), Some(1));
    let said = String::from_utf8(probe.stderr).unwrap();
    assert!(
        said.contains("is shutting down") && said.contains("(503 draining)"),
        "{said}"
    );
    // Everything else continues meanwhile.
    let mut publisher = crate::common::Connection::open(address);
    assert_eq!(publisher.post("/channels/news", "hello").status, 200);
    assert_eq!(summaries(&stream.rest()), ["hello"]);
    assert!((2_000..10_000).contains(&stream.retry().unwrap()));
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_shutdown_that_cannot_be_is_refused_at_the_start() {
    let output = run(&["serve", "--listen=127.0.0.1:0", "--shutdown-delay=6"]);
    let reported = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        reported.contains("Set --shutdown-deadline to 9 or more"),
        "{reported}"
    );
}

#[test]
fn streams_of_the_server_grow_old() {
    let mut server = Running::start(&["serve", "--listen=127.0.0.1:0", "--max-stream-age=2"]);
    let mut stream = Subscriber::open(server.address(), "/channels/news", &[]);
    stream.expect_end();
    assert!((2_000..10_000).contains(&stream.retry().unwrap()));
}

#[test]
fn serve_says_why_it_cannot_listen() {
    let served = start();
    let output = run(&["serve", "--listen", &served.address().to_string()]);
    let reported = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        reported.contains("cannot listen on 127.0.0.1:") && reported.contains("--listen"),
        "{reported}"
    );
}

#[test]
fn pub_publishes_and_prints_the_answer() {
    let options = pushwheel_server::channel_options().lag_policy(LagPolicy::Conflate);
    let served = Served::start(Config::new().channel_options(options).engine());
    let mut stream = served.subscribe("/channels/news?client=ann");
    let url = url(&served, "/channels/news");
    let output = run(&[
        "pub",
        &url,
        "greeting",
        "- \"hello\"\nthere",
        "--id",
        "mine",
        "--retry",
        "70",
        "--client",
        "ann",
        "--conflation-key",
        "k",
    ]);
    assert!(output.status.success(), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer, json!({"id": "mine", "events": 1, "clients": 1}));
    assert_eq!(summaries(&stream.take(1)), ["greeting - \"hello\"\nthere"]);
    assert_eq!(stream.retry(), Some(70));
}

#[test]
fn pub_fails_with_the_servers_message() {
    let served = start();
    let news = url(&served, "/channels/news");
    for (url, event, part) in [
        (
            &*url(&served, "/channels/a%2Fb"),
            "x",
            "a channel's name is 1 to 255 bytes",
        ),
        (&news, "pushwheel.x", "Choose another name"),
        (
            "127.0.0.1/channels/a",
            "x",
            "is not a URL with http:// or https://. Use for example http://127.0.0.1/channels/a",
        ),
        (
            "http://127.0.0.1:1/channels/a",
            "x",
            "cannot publish to http://127.0.0.1:1",
        ),
    ] {
        let output = run(&["pub", url, event, "data"]);
        let reported = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{reported}");
        assert!(reported.contains(part), "{reported}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn sub_prints_events_comes_back_by_itself_and_stops_at_204() {
    let served = start();
    publish(&served, "/channels/a", TEXT, "one");
    publish(&served, "/channels/a?event=n", TEXT, "two\nlines");
    let mut sub = Running::start(&["sub", &url(&served, "/channels/a"), "--last", "1"]);
    assert_eq!(sub.event(), ["event: n", "data: two", "data: lines"]);
    publish(&served, "/channels/a?retry=10", TEXT, "three");
    assert_eq!(sub.event(), ["data: three"]);

    let channel = served.channels().get("a").unwrap();
    let [client] = &*channel.client_ids() else {
        panic!("one client");
    };
    assert!(channel.disconnect(client));
    publish(&served, "/channels/a", TEXT, "missed");
    assert_eq!(sub.event(), ["data: missed"]);

    publish(&served, "/channels/a", TEXT, "the last");
    delete(&served, "/channels/a?finish");
    assert_eq!(sub.event(), ["data: the last"]);
    assert_eq!(sub.exit_code(), Some(0));
}

#[test]
fn sub_starts_at_the_given_event() {
    let served = start();
    let first = publish(&served, "/channels/a", TEXT, "one");
    publish(&served, "/channels/a", TEXT, "two");
    let id = first["id"].as_str().unwrap();
    for (begin, wanted) in [(id, "data: two"), ("earliest", "data: one")] {
        let url = url(&served, "/channels/a");
        let mut sub = Running::start(&["sub", &url, "--last-event-id", begin]);
        assert_eq!(sub.event(), [wanted], "{begin}");
    }
}

#[test]
fn sub_fails_when_its_first_connection_does_and_reconnects_later() {
    let output = run(&["sub", "http://127.0.0.1:1/channels/a"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let wanted = "cannot connect to http://127.0.0.1:1/channels/a (connection refused). Is the";
    assert!(said.contains(wanted), "{said}");

    let served = start();
    publish(&served, "/channels/a?retry=10", TEXT, "one");
    let mut sub = Running::start(&["sub", &url(&served, "/channels/a"), "--last", "1"]);
    assert_eq!(sub.event(), ["data: one"]);
    let mut log = BufReader::new(sub.take_stderr()).lines();
    drop(served);
    let refused = |line: std::io::Result<String>| line.unwrap().contains("connection refused");
    assert!(log.any(refused), "it tries again");
    assert!(log.any(refused), "and again");
}

#[test]
fn sub_fails_where_there_is_no_stream() {
    let served = start();
    for (path, part) in [
        (
            "/health",
            "is not an event stream (Content-Type: application/json)",
        ),
        ("/nope", "this is not the URL of a channel"),
    ] {
        let output = run(&["sub", &url(&served, path)]);
        let reported = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{reported}");
        assert!(reported.contains(part), "{reported}");
    }
}
