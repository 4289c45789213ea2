//! `serve --state FILE`: restarts that clients do not notice, and restarts that cause a gap.
//! With the real program.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command};
use std::thread;

use serde_json::{Value, json};

use crate::commands::{Running, run};
use crate::common::{Connection, Subscriber, eventually, summaries};
use crate::directory::Directory;

impl Directory {
    fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.path()).unwrap();
        let mut names: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

struct Server {
    running: Running,
    address: SocketAddr,
}

/// Starts a server that may have to wait for the state.
fn spawn(listen: &str, state: &Path) -> Running {
    Running::start(&[
        "serve",
        "--listen",
        listen,
        "--state",
        state.to_str().unwrap(),
        // No publisher repeats events from before a restart.
        "--republish-window",
        "0",
        "--history-events",
        "1000000",
        "--history-bytes",
        "100000000",
    ])
}

impl Server {
    fn start(listen: &str, state: &Path) -> Server {
        let mut server = None;
        eventually("the port is free", || {
            let mut running = spawn(listen, state);
            match running.try_address() {
                Some(address) => server = Some(Server { running, address }),
                // A connection of another test may have used the port in between.
                None => {
                    let reported = running.complaints();
                    assert!(reported.contains("cannot listen on"), "{reported}");
                }
            }
            server.is_some()
        });
        server.unwrap()
    }

    fn publish(&self, path: &str, body: &str) -> String {
        let answer = Connection::open(self.address).post(path, body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        answer["id"].as_str().unwrap().to_owned()
    }

    fn resubscribe(&self, path: &str, id: &str) -> Subscriber {
        Subscriber::open(self.address, path, &[("Last-Event-ID", id)])
    }

    /// Ends it, and starts it again on the same address.
    fn restart(mut self, signal: &str, code: Option<i32>, state: &Path) -> Server {
        self.running.signal(signal);
        assert_eq!(self.running.exit_code(), code);
        Server::start(&self.address.to_string(), state)
    }
}

/// The clients that were connected when the server ended, and reconnect.
fn last_id(mut stream: Subscriber, events: &[&str]) -> String {
    assert_eq!(summaries(&stream.take(events.len())), events);
    stream.last_event_id().to_owned()
}

#[test]
fn clients_resume_over_a_restart_with_no_gap_no_hole_and_nothing_twice() {
    let directory = Directory::new("resume");
    let state = directory.state();
    let mut server = Server::start("127.0.0.1:0", &state);
    let first = server.publish("/channels/news", "1");
    let open = |server: &Server, client: &str, id: &str| {
        server.resubscribe(&format!("/channels/news?client={client}"), id)
    };
    let stream = open(&server, "ann", &first);
    server.publish("/channels/news", "2");
    let mut ann = last_id(stream, &["2"]);
    let mut bob = first;
    let mut all_of_bob: Vec<String> = vec!["2".to_owned()];
    for life in 0..3 {
        for n in 0..5 {
            server.publish("/channels/news", &format!("{life}.{n}"));
            server.publish("/channels/news?client=ann", &format!("ann {life}.{n}"));
            server.publish(&format!("/channels/other?id=own-{life}.{n}"), "other");
            all_of_bob.push(format!("{life}.{n}"));
        }
        server = server.restart("TERM", Some(0), &state);
        assert_eq!(directory.names(), ["state.lock"], "the file is used up");
        // Events published before they reconnect come after those that they missed.
        server.publish("/channels/news", &format!("{life} after"));
        all_of_bob.push(format!("{life} after"));

        let mut stream = open(&server, "ann", &ann);
        let missed = (0..5).flat_map(|n| [format!("{life}.{n}"), format!("ann {life}.{n}")]);
        let missed: Vec<String> = missed.chain([format!("{life} after")]).collect();
        assert_eq!(summaries(&stream.take(11)), missed);
        server.publish("/channels/news", "live");
        all_of_bob.push("live".to_owned());
        assert_eq!(summaries(&stream.take(1)), ["live"]);
        ann = stream.last_event_id().to_owned();

        let mut stream = server.resubscribe("/channels/other", &format!("own-{life}.3"));
        assert_eq!(summaries(&stream.take(1)), ["other"]);
        assert_eq!(stream.last_event_id(), format!("own-{life}.4"));
    }
    // Bob was disconnected all the time.
    let mut stream = open(&server, "bob", &bob);
    assert_eq!(summaries(&stream.take(all_of_bob.len())), all_of_bob);
    bob = stream.last_event_id().to_owned();
    assert_eq!(bob, ann);
}

#[test]
fn a_stream_that_waits_at_the_shutdown_resumes_with_the_id_it_has() {
    let directory = Directory::new("waits");
    let server = Server::start("127.0.0.1:0", &directory.state());
    let mut stream = Subscriber::open(server.address, "/channels/news", &[]);
    let id = stream.wait_for_id();
    let server = server.restart("TERM", Some(0), &directory.state());
    stream.expect_end();
    let mut stream = server.resubscribe("/channels/news", &id);
    server.publish("/channels/news", "the first");
    assert_eq!(summaries(&stream.take(1)), ["the first"]);
}

#[test]
fn kill_9_leaves_a_gap_event() {
    let directory = Directory::new("kill");
    let state = directory.state();
    let server = Server::start("127.0.0.1:0", &state);
    let before = server.publish("/channels/news", "saved");
    let server = server.restart("TERM", Some(0), &state);
    // An id that the saved state could not know.
    let beyond = server.publish("/channels/news", "not saved");
    let server = server.restart("KILL", None, &state);
    server.publish("/channels/news", "another life");
    for id in [before, beyond] {
        let mut stream = server.resubscribe("/channels/news", &id);
        let gap = stream.next();
        assert_eq!(gap.name, "pushwheel.gap");
        let gap: Value = serde_json::from_str(&gap.data).unwrap();
        assert_eq!(
            (&gap["reason"], &gap["requested"]),
            (&json!("restart"), &json!(id))
        );
        assert_eq!(summaries(&stream.take(1)), ["another life"]);
    }
}

#[test]
fn a_state_that_cannot_be_trusted_is_refused_and_left_as_it_is() {
    let directory = Directory::new("refused");
    let state = directory.state();
    let mut server = Server::start("127.0.0.1:0", &state);
    server.publish("/channels/news", "precious");
    server.running.signal("TERM");
    assert_eq!(server.running.exit_code(), Some(0));
    let whole = fs::read(&state).unwrap();
    let torn = "it is incomplete or damaged";
    let mut cases: Vec<(Vec<u8>, &str)> = [0, 3, 20, 40, whole.len() / 2, whole.len() - 1]
        .map(|len| (whole[..len].to_vec(), torn))
        .into();
    let with = |at: usize, mask: u8| {
        let mut bytes = whole.clone();
        bytes[at] ^= mask;
        bytes
    };
    cases.push((with(whole.len() - 20, 4), torn));
    cases.push((with(16, 2), "version 6 of the format"));
    cases.push((
        b"root:x:0:0::/root:/bin/sh\n".into(),
        "not a saved state of pushwheel",
    ));
    for (bytes, part) in cases {
        fs::write(&state, &bytes).unwrap();
        let output = run(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--state",
            state.to_str().unwrap(),
        ]);
        let reported = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{reported}");
        assert!(reported.contains(part), "{reported}");
        assert!(
            reported.contains("move it away, or start without --state"),
            "{reported}"
        );
        assert_eq!(fs::read(&state).unwrap(), bytes, "the file is untouched");
        assert_eq!(directory.names(), ["state", "state.lock"]);
    }
    // The complete file is still usable.
    fs::write(&state, &whole).unwrap();
    let server = Server::start("127.0.0.1:0", &state);
    let mut stream = Subscriber::open(server.address, "/channels/news?last=1", &[]);
    assert_eq!(summaries(&stream.take(1)), ["precious"]);
}

/// Starts a server while another one has the state, and waits until it reports that it waits.
fn wait_for_another(state: &Path) -> (Running, BufReader<ChildStderr>) {
    let mut waiting = spawn("127.0.0.1:0", state);
    let mut log = BufReader::new(waiting.take_stderr());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    assert!(line.contains("waiting up to"), "{line}");
    (waiting, log)
}

#[test]
fn a_server_that_starts_before_another_has_ended_waits_for_its_history() {
    let directory = Directory::new("overlap");
    let state = directory.state();
    let mut old = Server::start("127.0.0.1:0", &state);
    let seen = old.publish("/channels/news", "seen");
    let (mut running, _log) = wait_for_another(&state);
    old.publish("/channels/news", "missed");
    old.running.signal("TERM");
    assert_eq!(old.running.exit_code(), Some(0));
    let address = running.address();
    let new = Server { running, address };
    let mut stream = new.resubscribe("/channels/news", &seen);
    new.publish("/channels/news", "live");
    assert_eq!(summaries(&stream.take(2)), ["missed", "live"]);
}

#[test]
fn a_signal_ends_a_server_that_waits_for_a_history() {
    let directory = Directory::new("no-wait");
    let state = directory.state();
    let mut old = Server::start("127.0.0.1:0", &state);
    for signal in ["TERM", "INT"] {
        let (mut waiting, _log) = wait_for_another(&state);
        waiting.signal(signal);
        assert_eq!(waiting.exit_code(), Some(0));
    }
    // The other server has lost nothing.
    old.publish("/channels/news", "kept");
    old.running.signal("TERM");
    assert_eq!(old.running.exit_code(), Some(0));
    let new = Server::start("127.0.0.1:0", &state);
    let mut stream = Subscriber::open(new.address, "/channels/news?last=1", &[]);
    assert_eq!(summaries(&stream.take(1)), ["kept"]);
}

#[test]
fn a_reload_that_is_asked_for_before_the_server_listens_comes_when_it_does() {
    let directory = Directory::new("early-reload");
    let state = directory.state();
    let mut old = Server::start("127.0.0.1:0", &state);
    let (mut waiting, log) = wait_for_another(&state);
    waiting.signal("HUP");
    old.running.signal("TERM");
    assert_eq!(old.running.exit_code(), Some(0));
    waiting.address();
    let mut lines = log.lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("configuration reloaded")));
    waiting.signal("TERM");
    assert_eq!(waiting.exit_code(), Some(0));
}

#[test]
fn a_torn_save_does_not_stay() {
    let directory = Directory::new("torn");
    let state = directory.state();
    let torn = directory.path().join("state.tmp");
    fs::write(&torn, "torn").unwrap();
    // No file may have more than a few hundred bytes.
    let program = env!("CARGO_BIN_EXE_pushwheel");
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" serve --listen 127.0.0.1:0 --state \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, program]).arg(&state);
    command.stderr(std::process::Stdio::piped());
    let mut running = Running::spawn(&mut command);
    let address = running.address();
    let is_there = || fs::exists(&torn).unwrap();
    assert!(!is_there(), "the one of a server that was killed");
    let server = Server { running, address };
    server.publish("/channels/news", &"x".repeat(20_000));
    let Server { mut running, .. } = server;
    running.signal("TERM");
    let reported = running.complaints();
    assert_eq!(running.exit_code(), Some(1), "{reported}");
    assert!(reported.contains("cannot save"), "{reported}");
    assert!(!is_there(), "the one that could not be written");
}

#[test]
fn what_is_no_regular_file_is_refused_at_once_and_left_as_it_is() {
    let directory = Directory::new("kinds");
    let named = |name: &str| directory.path().join(name);
    let [folder, link, pipe] = ["folder", "link", "pipe"].map(named);
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink("elsewhere", &link).unwrap();
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    for (path, part) in [
        (&*folder, "is a directory. Use a file in it"),
        (&*link, "is a symbolic link. Use the file"),
        (&*pipe, "is not a regular file"),
        (Path::new("/dev/null"), "is not a regular file"),
    ] {
        let mut server = spawn("127.0.0.1:0", path);
        assert_eq!(server.exit_code(), Some(1));
        let reported = server.complaints();
        assert!(reported.contains(part), "{reported}");
    }
    assert_eq!(directory.names(), ["folder", "link", "pipe"]);
}

#[test]
fn an_address_that_is_taken_costs_no_state() {
    let directory = Directory::new("taken");
    let state = directory.state();
    let mut server = Server::start("127.0.0.1:0", &state);
    server.publish("/channels/news", "kept");
    server.running.signal("TERM");
    assert_eq!(server.running.exit_code(), Some(0));
    let whole = fs::read(&state).unwrap();
    let taken = crate::start();
    let listen = taken.address().to_string();
    let output = run(&[
        "serve",
        "--listen",
        &listen,
        "--state",
        state.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read(&state).unwrap(), whole);
}

#[test]
fn a_place_that_cannot_be_written_is_said_at_the_start_and_at_the_end() {
    let directory = Directory::new("unwritable");
    let nowhere = directory.path().join("nowhere").join("state");
    let output = run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--state",
        nowhere.to_str().unwrap(),
    ]);
    let reported = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{reported}");
    assert!(reported.contains("cannot lock"), "{reported}");

    let mut server = Server::start("127.0.0.1:0", &directory.state());
    fs::remove_dir_all(directory.path()).unwrap();
    server.running.signal("TERM");
    assert_eq!(server.running.exit_code(), Some(1));
}

#[cfg(unix)]
#[test]
fn a_saved_state_is_not_readable_by_other_users() {
    let directory = Directory::new("mode");
    let mut server = Server::start("127.0.0.1:0", &directory.state());
    server.running.signal("TERM");
    assert_eq!(server.running.exit_code(), Some(0));
    let listed = Command::new("ls")
        .arg("-l")
        .arg(directory.state())
        .output()
        .unwrap();
    assert!(listed.stdout.starts_with(b"-rw------- "), "{listed:?}");
    assert_eq!(directory.names(), ["state", "state.lock"]);
}

/// Publishes until the server ends, and returns the events that it has confirmed.
fn publish_without_end(address: SocketAddr, number: usize) -> Vec<String> {
    let mut taken = Vec::new();
    for n in 0.. {
        let data = format!("{number}.{n}");
        match try_publish(address, &data) {
            Some(()) => taken.push(data),
            None => return taken,
        }
    }
    taken
}

/// Publishes an event over a new connection. `None` if the response is not 200.
fn try_publish(address: SocketAddr, data: &str) -> Option<()> {
    let mut socket = TcpStream::connect(address).ok()?;
    let length = data.len();
    let request = format!(
        "POST /channels/news HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{data}"
    );
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).ok()?;
    (answer == *b"HTTP/1.1 200").then_some(())
}

#[test]
fn what_was_answered_200_during_a_shutdown_is_in_the_saved_state() {
    for signals in [&["TERM"][..], &["TERM", "INT"]] {
        let directory = Directory::new(&format!("under-way-{}", signals.len()));
        let state = directory.state();
        let mut server = Server::start("127.0.0.1:0", &state);
        let address = server.address;
        // A request that never ends keeps it running until a second signal.
        let mut endless = Connection::open(address);
        if signals.len() > 1 {
            endless.send("POST /channels/news HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc");
        }
        let mut watching = Subscriber::open(address, "/channels/news", &[]);
        watching.wait_for_id();
        let publishers: Vec<_> = (0..4)
            .map(|number| thread::spawn(move || publish_without_end(address, number)))
            .collect();
        watching.take(50);
        for signal in signals {
            server.running.signal(signal);
        }
        let taken = publishers.into_iter().flat_map(|p| p.join().unwrap());
        let taken: BTreeSet<String> = taken.collect();
        // If two signals are pending, either may arrive second.
        let codes: &[i32] = match signals.len() {
            1 => &[0],
            _ => &[128 + 2, 128 + 15],
        };
        let code = server.running.exit_code().unwrap();
        assert!(codes.contains(&code), "{code}");
        // All events that clients received, except one of each publisher without a response.
        assert!(taken.len() >= 46, "{}", taken.len());

        let server = Server::start(&address.to_string(), &state);
        let mut kept = Subscriber::open(address, "/channels/news?last_event_id=earliest", &[]);
        let mut kept_data = BTreeSet::new();
        server.publish("/channels/news", "the end");
        loop {
            let event = kept.next();
            if event.data == "the end" {
                break;
            }
            kept_data.insert(event.data);
        }
        // Events whose response did not arrive may be in it too.
        let lost: Vec<_> = taken.difference(&kept_data).collect();
        assert_eq!(lost, [""; 0], "after {signals:?}");
    }
}
