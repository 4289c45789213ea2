//! The access log and the event log, as the program writes them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{ChildStderr, Command};

use serde_json::Value;

use super::commands::{Running, pushwheel};
use super::{TEXT, ask_over};
use crate::common::{Connection, Subscriber};

fn serve(more: &[&str]) -> Command {
    let mut command = pushwheel(&["serve", "--listen", "127.0.0.1:0"]);
    command.args(more);
    command
}

/// Ends the server, and returns its lines.
fn lines(server: Running) -> Vec<String> {
    server.end().lines().map(str::to_owned).collect()
}

/// A server that logs JSON, and whose log has the address at which it listens.
struct Logging {
    server: Running,
    log: BufReader<ChildStderr>,
    address: SocketAddr,
}

impl Logging {
    fn start(more: &[&str]) -> Logging {
        let mut command = serve(&["--log-format", "json"]);
        let mut server = Running::spawn(command.args(more));
        let mut log = BufReader::new(server.take_stderr());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let first = object(&line);
        assert_eq!(first["message"], "listening", "{line}");
        let address = first["address"].as_str().unwrap().parse().unwrap();
        Logging {
            server,
            log,
            address,
        }
    }

    /// Ends the server, and returns the other lines that it has logged.
    fn objects(mut self) -> Vec<Value> {
        self.server.signal("TERM");
        let lines = self.log.lines().map(|line| object(&line.unwrap()));
        let all: Vec<Value> = lines.collect();
        assert_eq!(self.server.exit_code(), Some(0), "{all:#?}");
        assert_eq!(self.server.try_address(), None, "its output is no JSON");
        all
    }
}

fn object(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// Returns the only record with these fields.
#[track_caller]
fn find<'a>(all: &'a [Value], fields: &[(&str, &str)]) -> &'a Value {
    let is_it = |object: &&Value| fields.iter().all(|(name, value)| object[name] == *value);
    let found: Vec<&Value> = all.iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{fields:?}: {all:#?}");
    found[0]
}

#[test]
fn every_request_is_an_object_in_the_access_log() {
    let logging = Logging::start(&["--access-log"]);
    let address = logging.address;
    let mut connection = Connection::open(address);
    let paths = [
        "/health",
        "/nope?token=s3cret&last=1",
        "/stats?ticket=s3cret",
    ];
    for path in paths {
        ask_over(&mut connection, "GET", path, &[], "");
    }
    ask_over(&mut connection, "POST", "/channels/a", &[TEXT], "x");
    let mut stream = Subscriber::open(address, "/channels/a?jwt=s3cret", &[]);
    connection.send("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: s3cret\u{1}\r\n\r\n");
    assert_eq!(connection.answer().status, 400);
    drop(connection);
    let all = logging.objects();
    stream.expect_end();
    let reported = serde_json::to_string(&all).unwrap();
    assert!(!reported.contains("s3cret"), "{reported}");

    let health = find(&all, &[("path", "/health")]);
    assert_eq!(health["status"], 200);
    assert_eq!(health["method"], "GET");
    assert_eq!(health["log"], "pushwheel::access");
    assert_eq!(health["bytes"], "{\"status\":\"ok\"}\n".len());
    assert!(health["duration_ms"].as_f64().is_some_and(|ms| ms >= 0.0));
    assert!(
        health["address"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );
    assert!(health["time"].as_str().unwrap().ends_with('Z'));
    assert_eq!(health.get("code"), None);

    let nope = find(&all, &[("path", "/nope?token=[hidden]&last=1")]);
    assert_eq!(
        (&nope["status"], &nope["code"]),
        (&404.into(), &"not_found".into())
    );
    // Responses of the worker too.
    assert_eq!(
        find(&all, &[("path", "/stats?ticket=[hidden]")])["status"],
        200
    );
    assert_eq!(find(&all, &[("path", "/channels/a")])["method"], "POST");
    let begun = find(&all, &[("path", "/channels/a?jwt=[hidden]")]);
    assert_eq!(
        (&begun["message"], begun.get("bytes")),
        (&"stream".into(), None)
    );
    let malformed = find(&all, &[("message", "malformed request")]);
    assert_eq!(malformed["code"], "header_invalid");
}

#[test]
fn streams_and_publishes_are_in_the_event_log() {
    let filter = "error,pushwheel::cli::serve::announcing=info";
    let logging = Logging::start(&["--event-log", "--log", filter]);
    let address = logging.address;
    let mut stream = Subscriber::open(address, "/events?channel=b&channel=a&client=ann", &[]);
    let mut connection = Connection::open(address);
    let answer = ask_over(&mut connection, "POST", "/channels/a", &[TEXT], "x");
    assert_eq!(answer.status, 200);
    stream.next();
    let id = stream.last_event_id().to_owned();
    let mut lines = Connection::open(address);
    lines.send(
        "POST /channels/a?stream HTTP/1.1\r\nHost: test\r\n\
         Content-Type: application/x-ndjson\r\nContent-Length: 11\r\n\r\n{\"data\":2}\n",
    );
    stream.next();
    let id_of_line = stream.last_event_id().to_owned();
    ask_over(
        &mut connection,
        "DELETE",
        "/channels/a/clients/ann",
        &[],
        "",
    );
    stream.expect_end();
    drop(connection);
    let all = logging.objects();

    let begun = find(&all, &[("message", "stream begins")]);
    let fields = |object: &Value| [object["client"].clone(), object["channels"].clone()];
    assert_eq!(fields(begun), ["ann", "b/a"]);
    let ended = find(&all, &[("message", "stream ends"), ("reason", "kicked")]);
    assert_eq!(fields(ended), ["ann", "b/a"]);
    let lasted = &ended["lasted_s"];
    assert!(lasted.as_f64().is_some_and(|s| (0.0..60.0).contains(&s)));
    // With six decimals.
    let digits = lasted.to_string();
    let behind_point = digits.split_once('.').map_or("", |(_, digits)| digits);
    assert!(behind_point.len() <= 6, "{digits}");
    for id in [&*id, &*id_of_line] {
        let published = find(&all, &[("message", "published"), ("id", id)]);
        assert_eq!(
            (&published["channel"], &published["clients"]),
            (&"a".into(), &1.into())
        );
    }
    // Without the access log, which is off, and without records below the level.
    assert_eq!(all.len(), 4, "{all:#?}");
}

#[test]
fn a_token_that_came_to_be_in_a_path_or_a_name_is_in_no_log() {
    let arguments = ["--access-log", "--event-log", "--log", "trace"];
    let mut server = Running::spawn(&mut serve(&arguments));
    let address = server.address();
    let token = "eyJhbGciOiJIUzI1NiJ9.eyJzZWNyZXQiOjF9.s3cret-S1GNATURE_";
    let mut connection = Connection::open(address);
    let paths = [
        format!("/channels/news&token={token}"),
        format!("/channels/news;token={token}"),
        format!("/channels/news%3Ftoken={token}"),
        format!("/channels/news%26token%3D{token}"),
        format!("/channels/{token}"),
        format!("/channels/news?client={token}&id={token}"),
        "/channels/news&ticket=s3cret".into(),
        "/channels/news%3bjwt%3ds3cret?last=1".into(),
    ];
    for path in &paths {
        let answer = ask_over(&mut connection, "POST", path, &[TEXT], "x");
        assert!([200, 400].contains(&answer.status), "{}", answer.text());
        let mut stream = Subscriber::open(address, path, &[]);
        stream.wait_for_id();
    }
    drop(connection);
    let lines = server.end();
    for secret in [token, "s3cret", "eyJzZWNyZXQi"] {
        assert!(!lines.contains(secret), "{lines}");
    }
    for shown in [
        "path=\"/channels/news&token=[hidden]\"",
        "channel=\"news&token=[hidden]\"",
        "channels=\"news;token=[hidden]\"",
        "client=[hidden]",
    ] {
        assert!(lines.contains(shown), "{shown}: {lines}");
    }
}

#[test]
fn a_client_forges_no_line() {
    let mut server = Running::spawn(&mut serve(&["--event-log", "--access-log"]));
    let address = server.address();
    let mut connection = Connection::open(address);
    let forged = "/x%0a%0d2026-01-01T00:00:00Z%20ERROR%20forged?id=%1b[2J";
    ask_over(&mut connection, "GET", forged, &[], "");
    let name = "/channels/a%20level=error%E2%80%AE%22";
    let answer = ask_over(&mut connection, "POST", name, &[TEXT], "x");
    assert_eq!(answer.status, 200, "{}", answer.text());
    drop(connection);
    for line in lines(server) {
        let rest = line.split_once(' ').map(|(_, rest)| rest).unwrap();
        let is_of_start = rest.contains("every program that reaches this port");
        assert!(
            is_of_start || rest.starts_with("INFO  pushwheel::"),
            "{line}"
        );
        assert!(
            !line.chars().any(|c| c.is_control() || c == '\u{202e}'),
            "{line:?}"
        );
        if line.contains("published") {
            let channel = "channel=\"a level=error\\u{202e}\\\"\"";
            assert!(line.contains(channel), "{line}");
        }
    }
}

#[test]
fn a_slow_reader_of_the_log_delays_no_request_and_lost_lines_are_counted() {
    // More than the pipe and the queue hold together, and no process reads the pipe.
    let mut server = Running::spawn(&mut serve(&["--access-log"]));
    let address = server.address();
    let mut connection = Connection::open(address);
    let path = format!("/nope/{}", "x".repeat(1000));
    let sent = 7_000;
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    for _ in 0..sent {
        connection.send(&request);
        assert_eq!(connection.answer().status, 404);
    }
    let (mut requests, mut lost) = (0, 0);
    let mut lines = BufReader::new(server.take_stderr()).lines();
    while requests + lost < sent {
        let line = lines.next().expect("each is logged or lost").unwrap();
        requests += usize::from(line.contains("path=/nope/xxx"));
        let reported = line.split_once("reader of the log is too slow lines=");
        lost += reported.map_or(0, |(_, count)| count.parse().unwrap());
    }
    assert!(lost > 100, "{lost}");
    assert_eq!(requests + lost, sent);
}

#[test]
fn logs_change_with_a_reload() {
    let name = format!("pushwheel-logs-{}.toml", std::process::id());
    let path = std::env::temp_dir().join(name);
    let write = |text: &str| {
        std::fs::File::create(&path)
            .unwrap()
            .write_all(text.as_bytes())
    };
    write("access_log = false\n").unwrap();
    let config = path.to_str().unwrap().to_owned();
    let mut server = Running::spawn(&mut serve(&["--config", &config]));
    let address = server.address();
    let mut connection = Connection::open(address);
    ask_over(&mut connection, "GET", "/health?client=before", &[], "");
    write("access_log = true\nlog_format = \"json\"\n").unwrap();
    server.signal("HUP");
    let mut stderr = BufReader::new(server.take_stderr());
    let mut reported = String::new();
    while !reported.contains("configuration reloaded") {
        assert!(stderr.read_line(&mut reported).unwrap() > 0, "{reported}");
    }
    ask_over(&mut connection, "GET", "/health?mine=s3cret", &[], "");
    drop(connection);
    server.signal("TERM");
    stderr.read_to_string(&mut reported).unwrap();
    assert_eq!(server.exit_code(), Some(0), "{reported}");
    std::fs::remove_file(path).unwrap();
    assert!(!reported.contains("client=before"), "{reported}");
    assert!(!reported.contains("s3cret"), "{reported}");
    let mut objects = reported.lines().filter(|line| line.starts_with('{'));
    assert!(
        objects.any(|line| line.contains("mine=[hidden]")),
        "{reported}"
    );
}

#[test]
fn an_invalid_filter_is_reported() {
    let output = serve(&["--log", "loud"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let reported = String::from_utf8(output.stderr).unwrap();
    assert!(
        reported.contains("--log") && reported.contains("Use a level"),
        "{reported}"
    );
}

/// Requests with paths of 8 KB, with which a client could fill a log at 70 MB/s. A stream of
/// several channels has two lines, and keeps its text until it ends.
#[test]
fn no_text_of_a_client_takes_more_than_a_kibibyte_of_a_line() {
    let logging = Logging::start(&["--access-log", "--event-log"]);
    let address = logging.address;
    let long = "x".repeat(7_000);
    let mut connection = Connection::open(address);
    ask_over(&mut connection, "GET", &format!("/{long}"), &[], "");
    let hidden = format!("/a?{}", "s3cret&".repeat(1_000));
    ask_over(&mut connection, "GET", &hidden, &[], "");
    ask_over(&mut connection, &"M".repeat(7_000), "/b", &[], "");
    drop(connection);
    let names: Vec<String> = (0..30)
        .map(|n| format!("channel={n}{}", "c".repeat(240)))
        .collect();
    let mut stream = Subscriber::open(address, &format!("/events?{}", names.join("&")), &[]);
    stream.wait_for_id();
    let all = logging.objects();
    stream.expect_end();
    let requests = all.iter().filter(|object| object["message"] == "request");
    assert_eq!(requests.count(), 3, "{all:#?}");
    let streams = all.iter().filter(|object| object.get("channels").is_some());
    assert_eq!(streams.count(), 2, "{all:#?}");
    for object in &all {
        for (name, value) in object.as_object().unwrap() {
            let bytes = value.as_str().map_or(0, str::len);
            assert!(bytes <= 1024 + "...".len(), "{name} has {bytes} bytes");
        }
    }
    let shown = serde_json::to_string(&all).unwrap();
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[test]
fn a_rejected_subscription_is_in_the_default_log_once_a_minute() {
    let secret = "--token-secret=a secret of a test, of 32 bytes!!";
    let mut server = Running::start(&["serve", "--listen=127.0.0.1:0", secret]);
    let address = server.address();
    for path in ["/channels/a?token=s3cret.b.c", "/channels/b", "/events"] {
        let status = crate::common::Connection::open(address).get(path).status;
        assert!((400..500).contains(&status), "{path}: {status}");
    }
    let log = server.end();
    let rejected = |line: &&str| line.contains("a subscription was rejected");
    let lines: Vec<&str> = log.lines().filter(rejected).collect();
    let [line] = lines[..] else {
        panic!("one line: {log}");
    };
    assert!(
        line.contains("WARN") && line.contains("token_invalid"),
        "{line}"
    );
    assert!(
        line.contains("/channels/a") && !line.contains("s3cret"),
        "{line}"
    );
}
