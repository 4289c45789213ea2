//! Requests that are read line by line, with a response beside them.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Connection, Served, eventually};
use pushwheel::{Engine, Limits, LineReply, Method, ReadLines, Response};

/// What a reader does with a line.
type Handle = Arc<dyn Fn(u64, &str, LineReply) + Send + Sync>;

struct Reader(Handle);

impl ReadLines for Reader {
    fn line(&mut self, number: u64, line: &[u8], reply: LineReply) {
        (self.0)(number, str::from_utf8(line).unwrap(), reply);
    }

    fn end(&mut self) -> Option<String> {
        Some("the end".to_owned())
    }
}

fn start(limits: Limits, handle: impl Fn(u64, &str, LineReply) + Send + Sync + 'static) -> Served {
    let handle: Handle = Arc::new(handle);
    let builder = Engine::builder()
        .limits(limits)
        .post("/", |request: &pushwheel::Request| request.body().to_vec())
        .lines(Method::Post, "/", move |request| {
            let is_asked_for = request.query("lines").is_some();
            is_asked_for.then(|| Response::lines("text/plain", Reader(handle.clone())))
        });
    Served::start(builder)
}

/// A server that replies to each line with it and its number.
fn echo() -> Served {
    start(Limits::default(), |number, line, reply| {
        match line.strip_prefix("fail ") {
            Some(why) => reply.end(format!("failed: {why}")),
            None => reply.send(format!("{number} {line}")),
        }
    })
}

#[test]
fn the_handler_is_asked_once_for_each_request() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let builder = Engine::builder()
        .post("/", |request: &pushwheel::Request| request.body().to_vec())
        .lines(Method::Post, "/", move |_| {
            counted.fetch_add(1, Relaxed);
            None
        });
    let served = Served::start(builder);
    let mut connection = served.connect();
    connection.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n");
    eventually("it is asked before the body has come", || {
        asked.load(Relaxed) == 1
    });
    connection.send("later");
    assert_eq!(connection.answer().text(), "later");
    connection.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nat");
    assert_eq!(connection.answer().text(), "at");
    assert_eq!(asked.load(Relaxed), 2);
}

fn begin(served: &Served, headers: &str) -> Connection {
    let mut connection = served.connect();
    connection.send(format!("POST /?lines HTTP/1.1\r\nHost: x\r\n{headers}\r\n"));
    connection
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// Reads the chunk of a response that has this text.
#[track_caller]
fn expect_chunk(connection: &mut Connection, line: &str) {
    let wanted = chunk(&format!("{line}\n"));
    let found = connection.bytes(wanted.len());
    assert_eq!(String::from_utf8_lossy(&found), wanted);
}

#[track_caller]
fn expect_end(connection: &mut Connection) {
    expect_chunk(connection, "the end");
    assert_eq!(connection.bytes(5), b"0\r\n\r\n");
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

#[test]
fn each_line_has_its_reply_while_the_request_goes_on() {
    let served = echo();
    let mut connection = begin(&served, CHUNKED);
    // The head comes before any line.
    let head = connection.head();
    assert_eq!(
        (head.status, head.header("transfer-encoding")),
        (200, Some("chunked"))
    );
    assert_eq!(head.header("x-accel-buffering"), Some("no"));
    connection.send(chunk("one\n"));
    expect_chunk(&mut connection, "1 one");
    // A line in two chunks, and two lines in one.
    connection.send(chunk("tw"));
    connection.send(chunk("o\r\n\nfour\n"));
    expect_chunk(&mut connection, "2 two");
    expect_chunk(&mut connection, "4 four");
    connection.send(chunk("last"));
    connection.send("0\r\n\r\n");
    expect_chunk(&mut connection, "5 last");
    expect_end(&mut connection);
    // The connection goes on.
    connection.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nagain");
    assert_eq!(connection.answer().text(), "again");
}

#[test]
fn a_body_that_comes_with_its_head_is_read_the_same_way() {
    let served = echo();
    let mut connection = begin(&served, "Content-Length: 8\r\n");
    connection.send("a\nb\nc\nd\nPOST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nnext");
    assert_eq!(connection.head().status, 200);
    for line in ["1 a", "2 b", "3 c", "4 d"] {
        expect_chunk(&mut connection, line);
    }
    expect_end(&mut connection);
    assert_eq!(connection.answer().text(), "next");
}

#[test]
fn a_client_that_waits_is_told_to_go_on() {
    let served = echo();
    let mut connection = begin(&served, &format!("{CHUNKED}Expect: 100-continue\r\n"));
    assert_eq!(connection.head().status, 100);
    assert_eq!(connection.head().status, 200);
    connection.send(chunk("x\n") + "0\r\n\r\n");
    expect_chunk(&mut connection, "1 x");
    expect_end(&mut connection);
}

#[test]
fn a_client_of_http_1_0_has_the_connections_end_as_the_responses() {
    let served = echo();
    let mut connection = served.connect();
    connection.send("POST /?lines HTTP/1.0\r\nContent-Length: 4\r\n\r\na\nb\n");
    let head = connection.head();
    assert_eq!((head.status, head.header("transfer-encoding")), (200, None));
    assert_eq!(connection.rest(), b"1 a\n2 b\nthe end\n");
}

#[test]
fn a_fault_ends_the_response_and_the_connection() {
    let served = echo();
    let mut connection = begin(&served, CHUNKED);
    connection.head();
    connection.send(chunk("a\nfail x\nb\n"));
    expect_chunk(&mut connection, "1 a");
    expect_chunk(&mut connection, "failed: x");
    assert_eq!(connection.bytes(5), b"0\r\n\r\n");
    connection.expect_end();
    // What is not a chunk.
    let mut connection = begin(&served, CHUNKED);
    connection.head();
    connection.send(chunk("a\n"));
    expect_chunk(&mut connection, "1 a");
    connection.send("no size\r\n");
    let rest = String::from_utf8(connection.rest()).unwrap();
    assert!(
        rest.contains("\"chunk_invalid\"") && rest.ends_with("0\r\n\r\n"),
        "{rest}"
    );
}

#[test]
fn replies_come_from_other_threads_and_the_end_waits_for_them() {
    let waiting = Arc::new(Mutex::new(Vec::new()));
    let kept = waiting.clone();
    let served = start(Limits::default(), move |number, line, reply| {
        kept.lock()
            .unwrap()
            .push((format!("{number} {line}"), reply));
    });
    let mut connection = begin(&served, CHUNKED);
    connection.head();
    // More than may wait: the rest is read when there are replies.
    let lines: String = (1..=300).map(|n| format!("{n}\n")).collect();
    connection.send(chunk(&lines) + "0\r\n\r\n");
    eventually("the lines are there", || {
        waiting.lock().unwrap().len() == 256
    });
    let mut next = 1;
    while next <= 300 {
        let some: Vec<_> = waiting.lock().unwrap().drain(..).collect();
        for (line, reply) in some {
            assert_eq!(line, format!("{next} {next}"));
            next += 1;
            reply.send(line);
        }
    }
    for n in 1..=300 {
        expect_chunk(&mut connection, &format!("{n} {n}"));
    }
    expect_end(&mut connection);
}

#[test]
fn a_client_that_does_not_read_can_write_all_of_its_lines() {
    const LINES: usize = 30_000;
    let served = start(Limits::default(), |number, _, reply| {
        reply.send(format!("{number} {}", "x".repeat(512)));
    });
    let mut connection = begin(&served, CHUNKED);
    let mut writer = connection.writer();
    for _ in 0..LINES / 1000 {
        use std::io::Write;
        writer
            .write_all(chunk(&"line\n".repeat(1000)).as_bytes())
            .unwrap();
    }
    connection.send("0\r\n\r\n");
    connection.head();
    // The last one is there, and some before it may not be.
    let mut tail = Vec::new();
    while !tail.ends_with(b"0\r\n\r\n") {
        let some = connection.bytes(1);
        tail.extend_from_slice(&some);
        if tail.len() > 2000 {
            tail.drain(..1000);
        }
    }
    let tail = String::from_utf8_lossy(&tail);
    assert!(tail.contains("the end\n"), "{tail}");
}

#[test]
fn a_line_has_a_time_and_a_size() {
    let mut limits = Limits::default();
    limits.line_timeout = Duration::from_millis(300);
    limits.body_bytes_max = 1000;
    let served = start(limits, |number, line, reply| {
        reply.send(format!("{number} {}", line.len()));
    });
    let mut connection = begin(&served, CHUNKED);
    connection.head();
    // All lines together may be larger, and take longer.
    for n in 1..=5 {
        connection.send(chunk(&format!("{}\n", "x".repeat(900))));
        expect_chunk(&mut connection, &format!("{n} 900"));
    }
    connection.send(chunk(&"x".repeat(600)));
    connection.send(chunk(&"x".repeat(600)));
    let rest = String::from_utf8(connection.rest()).unwrap();
    assert!(rest.contains("\"payload_too_large\""), "{rest}");
    // A part of a line does not put the time off.
    let mut connection = begin(&served, CHUNKED);
    connection.head();
    connection.send(chunk("a\nb"));
    expect_chunk(&mut connection, "1 1");
    let rest = String::from_utf8(connection.rest()).unwrap();
    assert!(
        rest.contains("\"request_timeout\"") && rest.ends_with("0\r\n\r\n"),
        "{rest}"
    );
}

#[test]
fn a_reader_that_panics_leaves_one_line_without_a_reply() {
    let served = start(Limits::default(), |number, line, reply| {
        assert_ne!(line, "panic");
        reply.send(format!("{number} {line}"));
    });
    let mut connection = begin(&served, CHUNKED);
    connection.head();
    connection.send(chunk("a\npanic\nb\n") + "0\r\n\r\n");
    expect_chunk(&mut connection, "1 a");
    expect_chunk(&mut connection, "3 b");
    expect_end(&mut connection);
}

#[test]
fn a_reader_ends_with_its_connection() {
    struct Dropped(Arc<Mutex<bool>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = true;
        }
    }
    impl ReadLines for Dropped {
        fn line(&mut self, _: u64, _: &[u8], reply: LineReply) {
            reply.send("x");
        }
    }
    let is_dropped = Arc::new(Mutex::new(false));
    let shared = is_dropped.clone();
    let builder = Engine::builder()
        .post("/", |_: &pushwheel::Request| ())
        .lines(Method::Post, "/", move |_| {
            Some(Response::lines("text/plain", Dropped(shared.clone())))
        });
    let served = Served::start(builder);
    let mut connection = begin(&served, CHUNKED);
    connection.head();
    connection.send(chunk("a\n"));
    expect_chunk(&mut connection, "x");
    drop(connection);
    eventually("it is dropped", || *is_dropped.lock().unwrap());
}

#[test]
fn a_request_without_lines_is_handled_as_any_other() {
    let served = echo();
    let mut connection = served.connect();
    connection.send(format!("POST / HTTP/1.1\r\nHost: x\r\n{CHUNKED}\r\n"));
    connection.send(chunk("a\nb\n") + "0\r\n\r\n");
    assert_eq!(connection.answer().text(), "a\nb\n");
}

#[test]
fn a_refusal_before_the_body_is_an_ordinary_response() {
    let builder = Engine::builder()
        .post("/", |_: &pushwheel::Request| ())
        .lines(Method::Post, "/", |_| {
            Some(Response::error(403, "no", "not this"))
        });
    let served = Served::start(builder);
    let mut connection = begin(&served, CHUNKED);
    assert_eq!(connection.answer().status, 403);
    connection.expect_end();
}
