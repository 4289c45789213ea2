//! The server without free file descriptors.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::commands::{Running, pushwheel};
use super::{TEXT, ask_over, refusal, refused};
use crate::common::client::Answer;
use crate::common::{Connection, Subscriber, eventually};

const LIMIT: usize = 200;
const CLIENTS: usize = 300;

/// A server with a limit on open files.
struct Limited {
    running: Running,
    address: SocketAddr,
}

impl Limited {
    /// `option` is the option of `ulimit` that selects the limit.
    fn start(option: &str, more: &[&str]) -> Limited {
        let serve = pushwheel(&["serve", "--listen", "127.0.0.1:0"]);
        let mut command = Command::new("bash");
        let script = format!("ulimit {option} {LIMIT}; exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(serve.get_program());
        command.args(serve.get_args()).args(more);
        for (name, value) in serve.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let mut running = Running::spawn(command.stderr(Stdio::piped()));
        let address = running.address();
        Limited { running, address }
    }

    /// Sends a request on a new connection.
    fn get(&self, path: &str) -> Answer {
        ask_over(&mut Connection::open(self.address), "GET", path, &[], "")
    }

    /// Subscribes as a browser does. `None` if the server refuses.
    fn subscribe(&self) -> Option<Subscriber> {
        let accept = ("Accept", "text/event-stream");
        let mut stream = Subscriber::open(self.address, "/channels/a", &[accept]);
        let has_room = stream.read(1 << 10) && stream.retry().is_none();
        has_room.then_some(stream)
    }
}

#[test]
fn without_descriptors_the_server_stays_up_says_so_once_and_goes_on_later() {
    let server = Limited::start("-n", &[]);
    let mut publisher = Connection::open(server.address);
    let answer = ask_over(&mut publisher, "GET", "/ready", &[], "");
    assert_eq!(answer.status, 200);

    // Many of them get one, and the others an error.
    let streams = (0..CLIENTS).filter_map(|_| server.subscribe());
    let mut served: Vec<Subscriber> = streams.collect();
    let count = served.len();
    assert!((LIMIT / 2..LIMIT).contains(&count), "{count}");
    assert_eq!(server.get("/health").status, 200);
    eventually("it is not ready for more", || {
        refusal(&server.get("/ready")) == refused(503, "not_ready")
    });

    // Connected clients receive events, and publishers get responses.
    for round in 0..3 {
        let body = format!("round {round}");
        let answer = ask_over(&mut publisher, "POST", "/channels/a", &[TEXT], &body);
        assert_eq!(answer.status, 200);
        for stream in &mut served {
            assert_eq!(stream.next().data, body);
        }
    }

    // When they leave, as many others can connect.
    drop(served);
    let mut again = Vec::new();
    eventually("there is room", || {
        again.extend(server.subscribe());
        again.len() == count
    });
    drop(publisher);
    let reported = server.running.end();
    let complaints = reported.matches("Raise the limit on open files").count();
    assert_eq!(complaints, 1, "{reported}");
}

#[test]
fn silent_connections_with_all_descriptors_keep_no_health_check_out() {
    for (more, count) in [(&["--max-connections", "50"][..], 1_000), (&[], 400)] {
        let server = Limited::start("-n", more);
        let mut silent = Vec::new();
        for n in 0..count {
            silent.push(Connection::open(server.address));
            if n % 100 == 99 {
                assert_eq!(server.get("/health").status, 200, "after {n}");
            }
        }
        assert_eq!(server.get("/ready").status, 503);
        // The first clients are still connected.
        let first = &mut silent[0];
        assert_eq!(ask_over(first, "GET", "/health", &[], "").status, 200);
        drop(silent);
        eventually("there is room", || server.subscribe().is_some());
        let reported = server.running.end();
        assert!(
            !reported.contains("cannot accept a connection"),
            "{reported}"
        );
    }
}

#[test]
fn the_limit_on_open_files_is_raised_as_far_as_it_may_be() {
    let server = Limited::start("-Sn", &["--log", "debug"]);
    let streams = (0..CLIENTS).map(|_| server.subscribe().expect("there is room"));
    let streams: Vec<Subscriber> = streams.collect();
    drop(streams);
    let reported = server.running.end();
    let raised = format!("raised the limit on open files from {LIMIT}");
    assert!(reported.contains(&raised), "{reported}");
}
