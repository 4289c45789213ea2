//! `serve --journal DIR` and `pushwheel journal`.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use crate::commands::{Running, pushwheel, run};
use crate::common::{Connection, Subscriber, summaries};
use crate::directory::Directory;

struct Server {
    running: Running,
    address: SocketAddr,
}

impl Server {
    fn start(directory: &Directory, more: &[&str]) -> Server {
        let journal = journal_of(directory);
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--journal", &journal];
        let arguments: Vec<&str> = arguments.iter().chain(more).copied().collect();
        Server::of(Running::start(&arguments))
    }

    fn of(mut running: Running) -> Server {
        let address = running.address();
        Server { running, address }
    }

    fn publish(&self, path: &str, body: &str) -> Value {
        let answer = Connection::open(self.address).post(path, body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    #[track_caller]
    fn refuses_as_finished(&self, path: &str) {
        let answer = Connection::open(self.address).post(path, "too late");
        assert_eq!(answer.status, 409, "{}", answer.text());
        assert_eq!(answer.error_code(), "channel_finished");
    }

    fn get(&self, path: &str) -> (u16, String) {
        let answer = Connection::open(self.address).get(path);
        (answer.status, answer.text().to_owned())
    }

    fn delete(&self, path: &str) -> (u16, String) {
        let mut connection = Connection::open(self.address);
        connection.send(format!("DELETE {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let answer = connection.answer();
        (answer.status, answer.text().to_owned())
    }

    fn kill(self) {
        drop(self.running);
    }
}

fn journal_of(directory: &Directory) -> String {
    directory
        .path()
        .join("journal")
        .to_str()
        .unwrap()
        .to_owned()
}

fn check(directory: &Directory) -> (Option<i32>, String, String) {
    let checked = run(&["journal", "check", &journal_of(directory)]);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        checked.status.code(),
        text(checked.stdout),
        text(checked.stderr),
    )
}

#[test]
fn what_was_published_and_changed_is_there_after_a_kill() {
    let directory = Directory::new("journal");
    let server = Server::start(&directory, &[]);
    let first = server.publish("/channels/news", "1")["id"]
        .as_str()
        .unwrap()
        .to_owned();
    server.publish("/channels/news", "2");
    server.publish("/channels/news?client=ann", "for ann");
    server.publish("/channels", "for all");
    let repeated = "/channels/news?id=own-1";
    server.publish(repeated, "3");
    server.publish("/channels/finished", "before the end");
    server.publish("/channels/removed", "away");
    assert_eq!(
        server.delete("/channels/finished?finish"),
        (200, "{\"clients\":0}\n".to_owned())
    );
    assert_eq!(
        server.delete("/channels/removed"),
        (200, "{\"clients\":0}\n".to_owned())
    );
    server.refuses_as_finished("/channels/finished");
    server.kill();

    let server = Server::start(&directory, &[]);
    let path = "/channels/news?client=ann";
    let mut ann = Subscriber::open(server.address, path, &[("Last-Event-ID", &first)]);
    assert_eq!(summaries(&ann.take(4)), ["2", "for ann", "for all", "3"]);
    let again = server.publish(repeated, "3");
    assert_eq!(again["duplicate"], true, "{again}");
    server.publish("/channels/news", "4");
    assert_eq!(summaries(&ann.take(1)), ["4"]);
    let path = "/channels/finished?last_event_id=earliest";
    let mut finished = Subscriber::open(server.address, path, &[]);
    assert_eq!(summaries(&finished.rest()), ["for all", "before the end"]);
    server.refuses_as_finished("/channels/finished");
    assert_eq!(
        server.get("/channels"),
        (200, "[\"finished\",\"news\"]\n".to_owned())
    );
}

#[test]
fn a_server_that_ends_closes_its_journal() {
    let directory = Directory::new("journal-closed");
    let server = Server::start(&directory, &["--journal-sync", "always"]);
    server.publish("/channels/news", "1");
    let (code, out, _) = check(&directory);
    assert_eq!(code, Some(0));
    assert!(out.contains("a server uses it"), "{out}");
    server.running.end();
    let (code, out, _) = check(&directory);
    assert_eq!(code, Some(0));
    assert!(out.contains("state      closed"), "{out}");
    assert!(
        out.contains("1 blocks, 1 records, newest number 1"),
        "{out}"
    );
}

#[test]
fn a_second_server_waits_for_the_journal_of_the_first() {
    let directory = Directory::new("journal-two");
    let server = Server::start(&directory, &[]);
    let first = server.publish("/channels/news", "1")["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let journal = journal_of(&directory);
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--journal", &journal];
    let mut second = Running::start(&arguments);
    let stderr = second.take_stderr();
    let waits = std::io::BufRead::lines(std::io::BufReader::new(stderr));
    let line = waits
        .map(Result::unwrap)
        .find(|line| line.contains("waiting up to"));
    assert!(line.is_some_and(|line| line.contains("uses the journal")));
    server.publish("/channels/news", "2");
    server.running.end();
    let second = Server::of(second);
    let mut ann = Subscriber::open(
        second.address,
        "/channels/news",
        &[("Last-Event-ID", &first)],
    );
    assert_eq!(summaries(&ann.take(1)), ["2"]);
}

#[test]
fn a_damaged_journal_is_refused_with_the_place_and_left_as_it_is() {
    let directory = Directory::new("journal-damaged");
    let server = Server::start(&directory, &[]);
    server.publish("/channels/news", "the first event");
    server.publish("/channels/news", "the second event");
    server.kill();
    let file = fs::read_dir(journal_of(&directory)).unwrap();
    let mut files = file.map(|file| file.unwrap().path());
    let file = files
        .find(|file| file.extension().is_some_and(|kind| kind == "log"))
        .unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(5).position(|part| part == b"first").unwrap();
    bytes[at] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let (code, _, err) = check(&directory);
    assert_eq!(code, Some(1));
    let name = file.to_str().unwrap();
    assert!(
        err.contains(name) && err.contains("is damaged at byte"),
        "{err}"
    );
    let journal = journal_of(&directory);
    let refused = run(&["serve", "--listen", "127.0.0.1:0", "--journal", &journal]);
    let err = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        err.contains(name) && err.contains("is damaged at byte"),
        "{err}"
    );
    assert_eq!(fs::read(&file).unwrap(), bytes);
    // What is cut short is no damage: it was not acknowledged.
    bytes[at] ^= 1;
    bytes.truncate(bytes.len() - 1);
    fs::write(&file, &bytes).unwrap();
    let (code, out, _) = check(&directory);
    assert_eq!(code, Some(0));
    assert!(out.contains("incomplete"), "{out}");
    let server = Server::start(&directory, &[]);
    let mut news = Subscriber::open(server.address, "/channels/news?last_event_id=earliest", &[]);
    assert_eq!(summaries(&news.take(1)), ["the first event"]);
}

/// With a limit on the size of files: writes fail then as on a disk that is full.
#[cfg(target_os = "linux")]
#[test]
fn a_journal_that_cannot_be_written_stops_publishers_and_no_streams() {
    let directory = Directory::new("journal-full");
    let journal = journal_of(&directory);
    let serve = pushwheel(&["serve", "--listen", "127.0.0.1:0", "--journal", &journal]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""]);
    limited.arg(serve.get_program()).args(serve.get_args());
    limited.stderr(std::process::Stdio::piped());
    let mut server = Server::of(Running::spawn(&mut limited));
    let mut news = Subscriber::open(server.address, "/channels/news", &[]);
    news.wait_for_id();
    let body = "x".repeat(1_000);
    let mut accepted = 0;
    // The first one was under way, so the server does not say what became of it.
    let mut first = None;
    let refused = loop {
        let answer = Connection::open(server.address).post("/channels/news", &body);
        match answer.status {
            200 => accepted += 1,
            504 if first.is_none() => first = Some(answer.error_code()),
            _ => break answer,
        }
    };
    assert_eq!(first.as_deref(), Some("publish_unconfirmed"));
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.error_code(), "journal_unavailable");
    assert!(refused.header("retry-after").is_some());
    assert!(accepted > 10, "{accepted}");
    assert_eq!(news.take(accepted).len(), accepted);
    let (status, text) = server.get("/ready");
    assert!(
        status == 503 && text.contains("the journal cannot be written"),
        "{text}"
    );
    assert_eq!(server.get("/health").0, 200);
    let (_, metrics) = server.get("/metrics");
    for line in ["pushwheel_journal_up 0.0", "pushwheel_ready 0.0"] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let (_, stats) = server.get("/stats?totals");
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(stats["journal"]["writable"], false, "{stats}");
    // History is served as before.
    let mut late = Subscriber::open(server.address, "/channels/news?last_event_id=earliest", &[]);
    assert_eq!(late.take(accepted).len(), accepted);
    server.running.signal("TERM");
    let reported = server.running.complaints();
    assert_eq!(server.running.exit_code(), Some(1), "{reported}");
    assert!(
        reported.contains("the journal does not have everything"),
        "{reported}"
    );
    // What was accepted is there, and the next server goes on.
    let server = Server::start(&directory, &[]);
    let mut news = Subscriber::open(server.address, "/channels/news?last_event_id=earliest", &[]);
    assert_eq!(news.take(accepted).len(), accepted);
    server.publish("/channels/news", "on");
    assert_eq!(summaries(&news.take(1)), ["on"]);
}

#[test]
fn a_journal_goes_on_where_a_saved_state_ended() {
    let directory = Directory::new("journal-import");
    let (journal, state) = (journal_of(&directory), directory.path().join("state"));
    let state = state.to_str().unwrap();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--state", state];
    let server = Server::of(Running::start(&arguments));
    let first = server.publish("/channels/news", "1")["id"].clone();
    server.publish("/channels/news", "2");
    server.running.end();
    let import = ["journal", "import", "--state", state, &journal];
    assert_eq!(run(&import).status.code(), Some(0));
    let again = run(&import);
    assert_eq!(again.status.code(), Some(1));
    let err = String::from_utf8(again.stderr).unwrap();
    assert!(err.contains("has a journal already"), "{err}");
    let (code, out, _) = check(&directory);
    assert_eq!(code, Some(0));
    assert!(out.contains("through number 2, "), "{out}");
    let server = Server::start(&directory, &[]);
    let headers = [("Last-Event-ID", first.as_str().unwrap())];
    let mut news = Subscriber::open(server.address, "/channels/news", &headers);
    assert_eq!(summaries(&news.take(1)), ["2"]);
    server.publish("/channels/news", "3");
    assert_eq!(summaries(&news.take(1)), ["3"]);
}

#[test]
fn a_restored_copy_gives_no_id_twice_and_tells_of_what_it_lacks() {
    let directory = Directory::new("journal-restored");
    let (journal, copy) = (
        directory.path().join("journal"),
        directory.path().join("copy"),
    );
    let server = Server::start(&directory, &[]);
    let first = server.publish("/channels/news", "1")["id"].clone();
    server.running.end();
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(&journal).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let server = Server::start(&directory, &[]);
    let second = server.publish("/channels/news", "2")["id"].clone();
    server.kill();
    fs::remove_dir_all(&journal).unwrap();
    fs::rename(&copy, &journal).unwrap();
    let restored = run(&["journal", "restored", journal.to_str().unwrap()]);
    assert_eq!(restored.status.code(), Some(0));

    let server = Server::start(&directory, &[]);
    let third = server.publish("/channels/news", "3")["id"].clone();
    assert!(third != second && third != first, "{third}");
    for id in [&first, &second] {
        let headers = [("Last-Event-ID", id.as_str().unwrap())];
        let mut news = Subscriber::open(server.address, "/channels/news", &headers);
        let gap = news.next();
        assert_eq!(gap.name, "pushwheel.gap");
        assert!(gap.data.contains("\"reason\":\"lost\""), "{}", gap.data);
        assert_eq!(summaries(&news.take(1)), ["3"]);
    }
}

#[test]
fn a_directory_without_a_journal_is_an_error_of_the_commands() {
    let directory = Directory::new("journal-none");
    for command in ["check", "restored"] {
        for path in [directory.path().to_owned(), directory.path().join("none")] {
            let done = run(&["journal", command, path.to_str().unwrap()]);
            assert_eq!(done.status.code(), Some(1), "{command}");
            let reported = String::from_utf8(done.stderr).unwrap();
            assert!(reported.contains(path.to_str().unwrap()), "{reported}");
        }
    }
}

#[test]
fn settings_that_exclude_each_other_or_are_wrong_are_refused() {
    let directory = Directory::new("journal-settings");
    let (journal, state) = (journal_of(&directory), directory.path().join("state"));
    let state = state.to_str().unwrap();
    let refused = run(&["serve", "--journal", &journal, "--state", state]);
    let err = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        err.contains("one of --state, --journal and --broker"),
        "{err}"
    );
    let refused = run(&[
        "serve",
        "--journal",
        &journal,
        "--journal-sync",
        "sometimes",
    ]);
    let err = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        err.contains("use always, or seconds from 1 to 3600"),
        "{err}"
    );
}
