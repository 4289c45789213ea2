//! `pushwheel check` accepts this server, and finds the faults of others.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use pushwheel_server::Config;

use crate::commands::run;
use crate::common::Served;
use crate::{TEXT, publish, start};

/// The lines of a report.
struct Report {
    status: Option<i32>,
    body: Value,
}

impl Report {
    fn outcome(&self, code: &str) -> &str {
        self.finding(code)["outcome"].as_str().unwrap()
    }

    #[track_caller]
    fn finding(&self, code: &str) -> &Value {
        let findings = self.body["findings"].as_array().unwrap();
        let found = findings.iter().find(|finding| finding["code"] == code);
        found.unwrap_or_else(|| panic!("no finding {code}: {}", self.body))
    }

    fn codes(&self) -> Vec<&str> {
        let findings = self.body["findings"].as_array().unwrap();
        let codes = findings.iter().map(|finding| finding["code"].as_str());
        codes.map(Option::unwrap).collect()
    }

    /// Whether a failure or warning contains this, and has a fix.
    #[track_caller]
    fn expect(&self, code: &str, outcome: &str, part: &str) {
        let finding = self.finding(code);
        assert_eq!(finding["outcome"], outcome, "{finding}");
        let seen = finding["seen"].as_str().unwrap();
        assert!(seen.contains(part), "{finding}");
        assert!(!finding["advice"].as_str().unwrap().is_empty());
    }
}

fn examine(url: &str, publish_url: Option<&str>, more: &[&str]) -> Report {
    let mut arguments = vec!["check", url, "--json"];
    if let Some(url) = publish_url {
        arguments.extend(["--publish-url", url]);
    }
    arguments.extend(more);
    let output = run(&arguments);
    let body = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    Report {
        status: output.status.code(),
        body,
    }
}

#[test]
fn our_server_is_in_good_health() {
    let origin = "https://app.example".parse().unwrap();
    let served = Served::start(Config::new().allow_origins([origin]).engine());
    let url = format!("http://{}/channels/health", served.address());
    let more = ["--idle", "1", "--strict", "--origin", "https://app.example"];
    // A busy machine may delay a ping, but not every time.
    let reports = (0..5).map(|_| examine(&url, Some(&url), &more));
    let report = { reports }.find(|report| report.status == Some(0));
    let report = report.expect("it finds nothing wrong");
    for code in [
        "redirect",
        "status",
        "time_to_head",
        "content_type",
        "cache_control",
        "accel_buffering",
        "content_length",
        "content_encoding",
        "http_1_0",
        "head_request",
        "cors",
        "preflight",
        "first_byte",
        "publish",
        "buffering",
        "compression",
        "ids",
        "resumption",
        "resumption_by_query",
        "unknown_id",
        "injection",
        "idle_cut_off",
    ] {
        assert_eq!(report.outcome(code), "ok", "{}", report.finding(code));
    }
    assert_eq!(report.outcome("tls"), "not_checked");
    assert_eq!(report.outcome("heartbeat"), "not_checked");
    assert_eq!(
        (&report.body["failures"], &report.body["warnings"]),
        (&0.into(), &0.into())
    );
}

#[test]
fn without_a_place_to_publish_to_it_looks_at_what_comes() {
    let served = start();
    for data in ["one", "two", "three"] {
        publish(&served, "/channels/busy", TEXT, data);
    }
    let url = format!("http://{}/channels/busy?last=3", served.address());
    let report = examine(&url, None, &["--idle", "1"]);
    assert_eq!(report.status, Some(0), "{}", report.body);
    for code in ["ids", "resumption", "idle_cut_off"] {
        assert_eq!(report.outcome(code), "ok", "{}", report.finding(code));
    }
    assert_eq!(report.outcome("buffering"), "not_checked");
    let why = report.finding("buffering")["seen"].as_str().unwrap();
    assert!(why.contains("--publish-url"), "{why}");
}

#[test]
fn a_greeting_needs_no_id_and_a_stream_that_starts_again_resumes_nothing() {
    let greeted = Bad::start(Fault::Greets);
    let report = examine(&greeted.url("/stream"), None, &["--idle", "1"]);
    assert_eq!(report.outcome("ids"), "ok", "{}", report.finding("ids"));
    report.expect("resumption", "failure", "arrived again");
}

#[test]
fn a_stream_that_is_compressed_event_by_event_is_fine() {
    let options = pushwheel_server::channel_options().compress_from(1);
    let config = pushwheel_server::Config::new().channel_options(options);
    let served = crate::common::Served::start(config.engine());
    let url = format!("http://{}/channels/packed", served.address());
    let report = { (0..5).map(|_| examine(&url, Some(&url), &["--idle", "0"])) }
        .find(|report| report.outcome("compression") == "ok");
    let report = report.expect("each ping comes");
    let seen = report.finding("compression")["seen"].as_str().unwrap();
    assert!(seen.starts_with("gzip"), "{seen}");
}

#[test]
fn what_it_finds_is_printed_with_advice() {
    let bad = Bad::start(Fault::Type);
    let output = run(&["check", &bad.url("/stream")]);
    let reported = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let line = "FAILURE  content_type         `text/html`, body: hello \\u{1b}[31m\n";
    assert!(reported.contains(line), "{reported}");
    assert!(reported.contains("=> a browser rejects it"), "{reported}");
    assert!(
        reported.contains("-        stream               not checked"),
        "{reported}"
    );
}

#[test]
fn what_cannot_be_looked_at_is_exit_status_2() {
    for arguments in [
        &["check", "http://127.0.0.1:1/stream"][..],
        &["check", "not a URL"],
        &["check", "http://127.0.0.1:1/", "--publish-url", "nowhere"],
        &["check", "http://127.0.0.1:1/", "--header", "no colon"],
        &["check", "http://127.0.0.1:1/", "--cacert", "/nonexistent"],
        &["check"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_refused_key_is_reported() {
    let key = pushwheel_server::Key::new("the-key-of-this-test").unwrap();
    let config = pushwheel_server::Config::new().publish_key(key);
    let served = crate::common::Served::start(config.engine());
    let url = format!("http://{}/channels/locked", served.address());
    let report = examine(&url, Some(&url), &["--idle", "0"]);
    report.expect("publish", "failure", "401");
    assert_eq!(report.outcome("buffering"), "not_checked");
    assert_eq!(report.status, Some(1));
    let with_key = ["--idle", "0", "--publish-key", "the-key-of-this-test"];
    let report = examine(&url, Some(&url), &with_key);
    assert_eq!(report.outcome("publish"), "ok");
}

#[test]
fn events_in_clumps_are_found_out() {
    let report = Bad::start(Fault::Clumps).examine(&[]);
    report.expect("buffering", "failure", "groups of up to 5");
    assert_eq!(report.status, Some(1));
}

#[test]
fn a_buffer_is_found_out_by_what_pushes_it_out() {
    let bad = Bad::start(Fault::Buffer);
    // A busy machine may delay an event, but not every time.
    let is_found = |report: &Report| report.finding("buffering").to_string().contains("64 KiB");
    let report = { (0..5).map(|_| bad.examine(&[])) }.find(is_found);
    let report = report.expect("it is pushed out");
    report.expect("buffering", "failure", "64 KiB");
    assert_eq!(report.outcome("resumption"), "not_checked");
}

#[test]
fn a_response_that_is_not_a_stream_is_reported_by_its_cause_alone() {
    let report = Bad::start(Fault::Type).examine(&[]);
    report.expect("content_type", "failure", "`text/html`, body: hello");
    assert_eq!(
        report.codes(),
        ["redirect", "tls", "status", "content_type", "stream"]
    );
    assert_eq!(report.status, Some(2));

    let served = start();
    let url = format!("http://{}/nowhere", served.address());
    let report = examine(&url, None, &[]);
    report.expect("status", "failure", "404, body: {\"error\"");
    assert_eq!(report.codes(), ["redirect", "tls", "status", "stream"]);
    assert_eq!(report.body["failures"], 1);
    assert_eq!(report.status, Some(2));
}

#[test]
fn a_body_that_never_ends_is_not_waited_for() {
    let report = Bad::start(Fault::Endless).examine(&[]);
    report.expect("content_type", "failure", "none, body: {}");
    assert_eq!(report.status, Some(2));
}

#[test]
fn a_length_is_found_out() {
    let bad = Bad::start(Fault::Length);
    let report = examine(&bad.url("/stream"), None, &["--idle", "0"]);
    report.expect("content_length", "failure", "5");
    report.expect("cache_control", "warning", "none");
    report.expect("accel_buffering", "warning", "none");
    assert_eq!(report.status, Some(1));
}

#[test]
fn an_end_in_silence_is_found_out() {
    let bad = Bad::start(Fault::Ends);
    let report = examine(&bad.url("/stream"), None, &["--idle", "60"]);
    report.expect("idle_cut_off", "failure", "of silence");
    report.expect("heartbeat", "warning", "before the stream ended");
    assert_eq!(report.outcome("buffering"), "not_checked");
}

#[test]
fn events_without_ids_are_found_out() {
    let report = Bad::start(Fault::NoIds).examine_prompt(&[]);
    report.expect("ids", "failure", "without ids");
    assert_eq!(report.outcome("resumption"), "not_checked");
}

#[test]
fn a_server_that_resumes_nothing_is_found_out() {
    let report = Bad::start(Fault::NoHistory).examine_prompt(&["--origin", "https://app.example"]);
    assert_eq!(report.outcome("ids"), "ok");
    report.expect("resumption", "failure", "2 of 3 events did not arrive");
    report.expect("resumption_by_query", "warning", "did not arrive");
    report.expect("unknown_id", "warning", "ignored");
    report.expect("cors", "failure", "is not allowed");
    report.expect("preflight", "warning", "");
}

#[test]
fn forged_fields_and_events_are_found_out() {
    let report = Bad::start(Fault::Injection).examine_prompt(&[]);
    for part in ["LF in data", "CR in names", "CR LF in ids"] {
        report.expect("injection", "failure", part);
    }
}

#[test]
fn redirects_are_followed_and_reported() {
    let bad = Bad::start(Fault::NoHistory);
    let report = examine(&bad.url("/to?/stream"), None, &["--idle", "0"]);
    report.expect("redirect", "warning", "302 to ");
    assert_eq!(report.outcome("status"), "ok");
    let report = examine(&bad.url("/circle"), None, &["--idle", "0"]);
    report.expect("redirect", "failure", "more than 10");
    assert_eq!(report.codes(), ["redirect", "stream"]);
    assert_eq!(report.status, Some(2));
}

#[test]
fn a_token_is_not_sent_to_another_origin() {
    let [here, there] = [(); 2].map(|()| Bad::start(Fault::NoHistory));
    let with_token = ["--idle", "0", "--header", "Authorization: Bearer x"];
    let to = |path: &str| here.url(&format!("/to?{path}"));
    let report = examine(&to("/locked"), None, &with_token);
    assert_eq!(report.outcome("status"), "ok");
    let report = examine(&to(&there.url("/locked")), None, &with_token);
    report.expect(
        "redirect",
        "warning",
        "another origin, which does not receive",
    );
    report.expect("status", "failure", "401");
}

#[test]
fn an_end_of_the_way_without_an_answer_reports_the_way() {
    let bad = Bad::start(Fault::NoHistory);
    let output = run(&["check", &bad.url("/to?http://127.0.0.1:1/stream")]);
    assert_eq!(output.status.code(), Some(2));
    let reported = String::from_utf8(output.stderr).unwrap();
    let wanted = "cannot examine http://127.0.0.1:1/stream after 302 to \
                  http://127.0.0.1:1/stream (connection refused). Is";
    assert!(reported.contains(wanted), "{reported}");
}

#[test]
fn warnings_count_when_they_are_to() {
    let bad = Bad::start(Fault::NoHistory);
    let url = bad.url("/stream");
    let report = examine(&url, None, &["--idle", "0"]);
    assert_eq!(report.status, Some(0), "{}", report.body);
    assert!(report.body["warnings"].as_u64() > Some(0));
    assert_eq!(
        examine(&url, None, &["--idle", "0", "--strict"]).status,
        Some(1)
    );
}

// ---- servers with one fault ------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Sends events in groups of five.
    Clumps,
    /// Sends events when they are 64 KiB.
    Buffer,
    /// Answers with an HTML page.
    Type,
    /// Sends no `Content-Type`, and never ends the body.
    Endless,
    /// A stream with `Content-Length`.
    Length,
    /// Ends a stream 3 s after its first event.
    Ends,
    /// Starts each stream with an event without an id, and two others.
    Greets,
    NoIds,
    NoHistory,
    /// Writes data, names and ids without checking them.
    Injection,
}

/// A server with a thread for each connection. It ends with the test.
struct Bad {
    address: SocketAddr,
}

#[derive(Default)]
struct Streams {
    open: Vec<TcpStream>,
    held: Vec<u8>,
    published: usize,
}

impl Bad {
    fn start(fault: Fault) -> Bad {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let streams = Arc::new(Mutex::new(Streams::default()));
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let streams = streams.clone();
                thread::spawn(move || serve(socket, fault, &streams));
            }
        });
        Bad { address }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn examine(&self, more: &[&str]) -> Report {
        let mut arguments = vec!["--idle", "0"];
        arguments.extend(more);
        let (url, publish_url) = (self.url("/stream"), self.url("/publish"));
        examine(&url, Some(&publish_url), &arguments)
    }

    /// Returns the report of a server that sends events at once. A busy machine may delay a
    /// ping, but not every time.
    #[track_caller]
    fn examine_prompt(&self, more: &[&str]) -> Report {
        let reports = (0..5).map(|_| self.examine(more));
        let report = { reports }.find(|report| report.outcome("buffering") != "failure");
        report.expect("its pings come one by one")
    }
}

/// Answers one request, with the fault.
fn serve(mut socket: TcpStream, fault: Fault, streams: &Mutex<Streams>) -> Option<()> {
    let mut reader = BufReader::new(socket.try_clone().ok()?);
    let mut request = String::new();
    reader.read_line(&mut request).ok()?;
    let (mut length, mut has_token) = (0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        has_token |= line.starts_with("authorization:");
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut words = request.split(' ');
    match (words.next()?, words.next()?) {
        ("POST", _) => {
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            streams
                .lock()
                .unwrap()
                .publish(fault, &serde_json::from_slice(&body).ok()?);
            let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            socket.write_all(answer.as_bytes()).ok()
        }
        ("GET", "/locked") if !has_token => {
            let answer =
                "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            socket.write_all(answer.as_bytes()).ok()
        }
        ("GET", path) if path == "/circle" || path.starts_with("/to?") => {
            let target = path.strip_prefix("/to?").unwrap_or(path);
            let answer = format!(
                "HTTP/1.1 302 Found\r\nLocation: {target}\r\nConnection: close\r\n\
                 Content-Length: 0\r\n\r\n"
            );
            socket.write_all(answer.as_bytes()).ok()
        }
        (_, _) if fault == Fault::Type => {
            let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 11\r\n\
                          Connection: close\r\n\r\nhello\n\x1b[31m";
            socket.write_all(answer.as_bytes()).ok()
        }
        (_, _) if fault == Fault::Length => {
            let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                          Content-Length: 5\r\nConnection: close\r\n\r\n:\n\n:\n";
            socket.write_all(answer.as_bytes()).ok()
        }
        (_, _) if fault == Fault::Endless => {
            let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}\n";
            socket.write_all(answer.as_bytes()).ok()?;
            streams.lock().unwrap().open.push(socket);
            Some(())
        }
        (method, _) => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                        Cache-Control: no-cache\r\nConnection: close\r\n\r\n";
            socket.write_all(head.as_bytes()).ok()?;
            if method != "GET" {
                return None;
            }
            // A client that has the first byte receives all later events.
            let mut all = streams.lock().unwrap();
            socket.write_all(b":\n\n").ok()?;
            if fault == Fault::Ends {
                drop(all);
                socket.write_all(b"data: hello\n\n").ok()?;
                // Nothing arrives until the timeout.
                socket.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
                let _ = socket.read(&mut [0]);
                return None;
            }
            if fault == Fault::Greets {
                let events = b"data: hello\n\nid: 1\ndata: a\n\nid: 2\ndata: b\n\n";
                socket.write_all(events).ok()?;
            }
            all.open.push(socket);
            Some(())
        }
    }
}

impl Streams {
    fn publish(&mut self, fault: Fault, message: &Value) {
        self.published += 1;
        let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
        let (name, data) = (text("event"), text("data"));
        let number = self.published.to_string();
        let id = message["id"].as_str().unwrap_or(&number);
        let frame = match fault {
            Fault::NoIds => format!("data: {data}\n\n"),
            Fault::Injection => format!("id: {id}\nevent: {name}\ndata: {data}\n\n"),
            _ => format!(
                "id: {number}\ndata: {}\n\n",
                data.replace(['\r', '\n'], " ")
            ),
        };
        self.held.extend_from_slice(frame.as_bytes());
        let is_held = match fault {
            Fault::Clumps => !self.published.is_multiple_of(5),
            Fault::Buffer => self.held.len() < 64 << 10,
            _ => false,
        };
        if is_held {
            return;
        }
        let held = std::mem::take(&mut self.held);
        self.open
            .retain_mut(|stream| stream.write_all(&held).is_ok());
    }
}
