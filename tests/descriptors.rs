//! An engine that knows nothing of the limit on open files, and comes to it. The
//! limit is the process's, so the test has one of its own.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::fs::File;

use common::Connection;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pushwheel::Engine;

const LIMIT: u64 = 500;
const CLIENTS: usize = 200;
/// What there is for the engine's connections, in the end.
const DESCRIPTORS: usize = 20;

#[test]
fn where_descriptors_run_out_an_overflow_connection_makes_room_for_the_next() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, LIMIT, hard).unwrap();
    let engine = Engine::builder().get("/hello", |_| "hello");
    let engine = engine.connections_max(DESCRIPTORS / 2);
    let engine = engine.bind("127.0.0.1:0").unwrap();
    let address = engine.local_addr();
    // The kernel connects them all, and the last one alone says something.
    let mut waiting: Vec<Connection> = (0..CLIENTS).map(|_| Connection::open(address)).collect();
    let last = waiting.last_mut().unwrap();
    last.send("GET /hello HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut files: Vec<File> = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    files.truncate(files.len() - DESCRIPTORS);
    let running = engine.spawn().unwrap();
    assert_eq!(last.answer().text(), "hello");
    drop(files);
    running.shutdown(std::time::Duration::ZERO).unwrap();
}
