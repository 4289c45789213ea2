//! Tests the server over raw sockets, with a test for each promise of its HTTP interface.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "../shared/accepted.rs"]
mod accepted;
#[path = "../../../../tests/common/mod.rs"]
mod common;
#[path = "../shared/directory.rs"]
mod directory;
#[path = "../shared/running.rs"]
mod running;

mod access;
mod access_commands;
mod assets;
mod bounds;
mod channel_view;
mod check;
mod cluster;
mod command_options;
mod commands;
mod cors;
mod crashes;
mod descriptors;
mod exposed;
mod forwarded;
mod guesses;
mod journal;
mod key_set;
mod limits;
mod lines;
#[cfg(unix)]
mod listening;
mod logs;
mod manage;
mod metadata;
mod metrics;
mod page;
mod pages;
mod publish;
mod repeats;
mod security;
mod settings;
mod several;
mod state;
#[cfg(target_os = "linux")]
mod stopped;
mod subscribe;
#[cfg(unix)]
mod systemd;
mod tls;
mod token_command;
mod tokens;

use common::client::Answer;
use common::{Connection, Served};
use pushwheel_server::Config;
use serde_json::Value;

/// The server as `pushwheel serve` runs it, on a free port.
fn start() -> Served {
    Served::start(Config::new().engine())
}

/// Sends one request on a new connection, and returns the response.
#[track_caller]
fn ask(served: &Served, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    ask_over(&mut served.connect(), method, path, headers, body)
}

#[track_caller]
fn ask_over(
    connection: &mut Connection,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Answer {
    let body = body.as_ref();
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n").into_bytes();
    for (name, value) in headers {
        request.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    request.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    request.extend_from_slice(body);
    connection.send(request);
    match method {
        "HEAD" => connection.head(),
        _ => connection.answer(),
    }
}

#[track_caller]
fn get(served: &Served, path: &str) -> Answer {
    ask(served, "GET", path, &[], "")
}

#[track_caller]
fn delete(served: &Served, path: &str) -> Answer {
    ask(served, "DELETE", path, &[], "")
}

const JSON: (&str, &str) = ("Content-Type", "application/json");
const LINES: (&str, &str) = ("Content-Type", "application/x-ndjson");
const TEXT: (&str, &str) = ("Content-Type", "text/plain");

/// Publishes, and returns the response's JSON.
#[track_caller]
fn publish(served: &Served, path: &str, content_type: (&str, &str), body: &str) -> Value {
    let answer = ask(served, "POST", path, &[content_type], body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    json(&answer)
}

/// Returns the data of the events that a channel has.
#[track_caller]
fn events(served: &Served, channel: &str) -> Vec<String> {
    let path = format!("/channels/{channel}?last_event_id=earliest");
    let answer = ask(served, "GET", &path, &[("Accept", "application/json")], "");
    let page = json(&answer);
    let events = page["events"].as_array().unwrap().iter();
    events
        .map(|event| event["data"].as_str().unwrap().to_owned())
        .collect()
}

#[track_caller]
fn json(answer: &Answer) -> Value {
    assert_eq!(answer.header("content-type"), Some("application/json"));
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// Returns the status and the code of an error.
#[track_caller]
fn refusal(answer: &Answer) -> (u16, String) {
    (answer.status, answer.error_code())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}
