//! Publishing line by line: `?stream`.

use pushwheel::JournalOptions;
use pushwheel_server::{Config, Key, TokenKeys};
use serde_json::{Value, json};

use super::access::{SECRET, bearer, token};
use super::{LINES, TEXT, ask, events, publish, refusal, refused, start};
use crate::common::{Connection, Served, eventually, summaries};
use crate::directory::Directory;

/// A publish whose body goes on.
struct Stream(Connection);

impl Stream {
    #[track_caller]
    fn begin(served: &Served, path: &str, headers: &[(&str, &str)]) -> Stream {
        let mut stream = Stream(served.connect());
        let headers = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        let headers: String = headers.collect();
        stream.0.send(format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\
             Content-Type: application/x-ndjson\r\n{headers}\r\n"
        ));
        let head = stream.0.head();
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-type"), Some("application/x-ndjson"));
        stream
    }

    fn send(&mut self, text: &str) {
        self.0.send(format!("{:x}\r\n{text}\r\n", text.len()));
    }

    /// Reads the next line of the response.
    #[track_caller]
    fn reply(&mut self) -> Value {
        let mut size = Vec::new();
        while !size.ends_with(b"\r\n") {
            size.extend(self.0.bytes(1));
        }
        let size = str::from_utf8(&size).unwrap().trim_end();
        let size = usize::from_str_radix(size, 16).unwrap();
        assert!(size > 0, "the response has ended");
        let line = self.0.bytes(size + 2);
        serde_json::from_slice(&line).unwrap()
    }

    #[track_caller]
    fn end(mut self) -> Value {
        self.0.send("0\r\n\r\n");
        let last = self.reply();
        assert_eq!(self.0.bytes(5), b"0\r\n\r\n");
        last
    }
}

#[test]
fn each_line_is_published_and_acknowledged_when_it_is_complete() {
    let served = start();
    let mut subscriber = served.subscribe("/channels/a");
    subscriber.wait_for_id();
    let mut stream = Stream::begin(&served, "/channels/a?stream", &[]);
    stream.send("{\"data\": 1}\n");
    let first = stream.reply();
    assert_eq!(summaries(&subscriber.take(1)), ["1"]);
    assert_eq!(first["id"], subscriber.last_event_id());
    assert_eq!((&first["line"], &first["clients"]), (&json!(1), &json!(1)));
    stream.send("{\"data\"");
    stream.send(": 2}\n\n{\"event\": \"n\", \"data\": 3}\n");
    assert_eq!(stream.reply()["line"], 2);
    assert_eq!(stream.reply()["line"], 4);
    assert_eq!(summaries(&subscriber.take(2)), ["2", "n 3"]);
    assert_eq!(stream.end(), json!({"events": 3}));
}

#[test]
fn a_connection_that_is_cut_keeps_what_was_published_and_the_rest_can_be_sent_again() {
    let served = start();
    let key = [("Idempotency-Key", "answer-7")];
    let mut stream = Stream::begin(&served, "/channels/a?stream", &key);
    stream.send("{\"data\": 1}\n{\"data\": 2}\n{\"da");
    assert_eq!(
        (
            stream.reply()["line"].clone(),
            stream.reply()["line"].clone()
        ),
        (json!(1), json!(2))
    );
    drop(stream);
    eventually("two events are there", || {
        events(&served, "a") == ["1", "2"]
    });
    let mut stream = Stream::begin(&served, "/channels/a?stream", &key);
    stream.send("{\"data\": 1}\n{\"data\": 2}\n{\"data\": 3}\n");
    let replies = [stream.reply(), stream.reply(), stream.reply()];
    let duplicates = replies.map(|reply| reply.get("duplicate").is_some());
    assert_eq!(duplicates, [true, true, false]);
    stream.end();
    assert_eq!(events(&served, "a"), ["1", "2", "3"]);
    // A line may have a key of its own.
    let line = "{\"data\": 4, \"idempotency_key\": \"four\"}\n";
    let mut stream = Stream::begin(&served, "/channels/a?stream", &[]);
    stream.send(&line.repeat(2));
    assert_eq!(stream.reply().get("duplicate"), None);
    assert_eq!(stream.reply()["duplicate"], true);
    stream.end();
    assert_eq!(events(&served, "a"), ["1", "2", "3", "4"]);
}

#[test]
fn a_wrong_line_is_the_last_one() {
    let served = start();
    let mut stream = Stream::begin(&served, "/channels/a?stream", &[]);
    stream.send("{\"data\": 1}\nnot json\n{\"data\": 3}\n");
    assert_eq!(stream.reply()["line"], 1);
    let error = stream.reply();
    assert_eq!(
        (&error["line"], &error["error"]["code"]),
        (&json!(2), &json!("invalid_json"))
    );
    assert_eq!(stream.0.bytes(5), b"0\r\n\r\n");
    stream.0.expect_end();
    assert_eq!(events(&served, "a"), ["1"]);
    publish(&served, "/channels/a?finish", TEXT, "2");
    let mut stream = Stream::begin(&served, "/channels/a?stream", &[]);
    stream.send("{\"data\": 3}\n");
    assert_eq!(stream.reply()["error"]["code"], "channel_finished");
}

#[test]
fn what_is_not_for_lines_is_rejected_before_the_body() {
    let served = start();
    for (query, headers, status, code) in [
        ("stream", vec![TEXT], 415, "stream_type_unsupported"),
        ("stream", vec![], 415, "stream_type_unsupported"),
        ("stream&finish", vec![LINES], 400, "parameter_misplaced"),
        ("stream&raw", vec![LINES], 400, "parameter_misplaced"),
        ("stream&id=7", vec![LINES], 400, "parameter_misplaced"),
        ("stream&clinet=ann", vec![LINES], 400, "parameter_unknown"),
        ("stream=often", vec![LINES], 400, "parameter_invalid"),
        (
            "stream",
            vec![LINES, ("If-Match", "\"x\"")],
            400,
            "parameter_misplaced",
        ),
        (
            "stream",
            vec![LINES, ("Idempotency-Key", "")],
            400,
            "idempotency_key_invalid",
        ),
    ] {
        let path = format!("/channels/a?{query}");
        let answer = ask(&served, "POST", &path, &headers, "{\"data\": 1}\n");
        assert_eq!(
            refusal(&answer),
            refused(status, code),
            "{query} {headers:?}"
        );
    }
    assert!(!served.channels().has("a"));
    // Off, it is an ordinary batch.
    let answer = publish(
        &served,
        "/channels/a?stream=false",
        LINES,
        "{\"data\": 1}\n{\"data\": 2}",
    );
    assert_eq!(answer["events"], 2);
}

#[test]
fn each_line_needs_the_right_to_publish() {
    let secured = Config::new()
        .publish_key(Key::new("publish-s3cret-of-tests").unwrap())
        .token_keys(TokenKeys::secret(SECRET.as_bytes()).unwrap())
        .public_for("*".parse().unwrap(), true);
    let server = secured.server();
    let reloader = server.reloader.clone();
    let served = Served::start(server.engine);
    let answer = ask(
        &served,
        "POST",
        "/channels/a?stream",
        &[LINES],
        "{\"data\": 1}\n",
    );
    assert_eq!(refusal(&answer), refused(401, "token_missing"));
    let mine = bearer(&token(json!({"publish": ["a"]})));
    let mut stream = Stream::begin(&served, "/channels/a?stream", &[("Authorization", &mine)]);
    stream.send("{\"data\": 1}\n");
    assert_eq!(stream.reply()["line"], 1);
    // The operator takes the token's secret back.
    let other = TokenKeys::secret(b"another secret, that is as long..").unwrap();
    let config = Config::new()
        .token_keys(other)
        .public_for("*".parse().unwrap(), true);
    reloader.reload(&config);
    stream.send("{\"data\": 2}\n");
    assert_eq!(stream.reply()["error"]["code"], "token_invalid");
    assert_eq!(events(&served, "a"), ["1"]);
}

#[test]
fn lines_are_in_a_journal_in_their_order_when_they_are_acknowledged() {
    const COUNT: usize = 1_000;
    let directory = Directory::new("lines");
    let path = directory.path().join("journal");
    let server = Config::new().journaled_server(path, JournalOptions::new());
    let served = Served::start(server.unwrap().engine);
    let mut stream = Stream::begin(&served, "/channels/a?stream", &[]);
    let lines: String = (1..=COUNT)
        .map(|n| format!("{{\"data\": {n}}}\n"))
        .collect();
    stream.send(&lines);
    for n in 1..=COUNT {
        assert_eq!(stream.reply()["line"], n);
    }
    assert_eq!(stream.end(), json!({"events": COUNT}));
    let wanted: Vec<String> = (1..=COUNT).map(|n| n.to_string()).collect();
    let channel = served.channels().get("a").unwrap();
    let stored = channel.read(pushwheel::Start::Earliest);
    let found: Vec<String> = stored
        .map(|event| event.unwrap().event.data().to_owned())
        .collect();
    assert_eq!(found, wanted);
}
