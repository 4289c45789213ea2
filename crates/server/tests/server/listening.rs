//! `serve --listen`: several addresses, and UNIX sockets.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::TEXT;
use super::ask_over;
use super::commands::{Running, pushwheel, run};
use crate::common::{Connection, Subscriber};

/// A path for a socket, in a directory of its own.
struct Place {
    directory: PathBuf,
    path: PathBuf,
    listen: String,
}

impl Place {
    fn new(name: &str) -> Place {
        let directory = format!("pushwheel-listen-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(directory);
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("p.sock");
        let listen = format!("--listen=unix:{}", path.display());
        Place {
            directory,
            path,
            listen,
        }
    }

    fn mode(&self) -> u32 {
        fs::metadata(&self.path).unwrap().permissions().mode() & 0o777
    }

    /// Returns the error of a server that cannot listen here.
    fn refusal(&self) -> String {
        let output = run(&["serve", &self.listen]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

#[test]
fn several_addresses_and_a_unix_socket_are_served() {
    let place = Place::new("several");
    let tcp = "--listen=127.0.0.1:0";
    let mut server = Running::start(&["serve", tcp, tcp, &place.listen, "--threads=2"]);
    let addresses = [server.address(), server.address()];
    assert_ne!(addresses[0], addresses[1]);
    let unix = format!("pushwheel listens on unix:{}", place.path.display());
    assert_eq!(server.line(), unix);
    assert_eq!(place.mode(), 0o660);
    let connect = || Connection::unix(&place.path);
    let mut stream = Subscriber::over(connect(), "/channels/a", &[]);
    stream.wait_for_id();
    for address in addresses {
        let mut publisher = Connection::open(address);
        let answer = ask_over(&mut publisher, "POST", "/channels/a", &[TEXT], "x");
        assert_eq!(answer.status, 200);
        assert_eq!(stream.next().data, "x");
    }
    // A reload keeps them all.
    server.signal("HUP");
    assert_eq!(connect().get("/health").status, 200);
    let reported = server.end();
    assert!(reported.contains("configuration reloaded"), "{reported}");
    stream.expect_end();
    assert!(!place.path.exists(), "the file is removed at the end");
}

#[test]
fn the_file_of_a_killed_server_is_replaced_and_that_of_a_running_one_is_not() {
    let place = Place::new("left");
    let start = || {
        let mut server = Running::start(&["serve", &place.listen, "--socket-mode=600"]);
        server.line();
        server
    };
    let killed = start();
    assert_eq!(place.mode(), 0o600);
    drop(killed);
    assert!(is_socket(&place.path));
    let second = start();
    assert_eq!(Connection::unix(&place.path).get("/health").status, 200);
    let reported = place.refusal();
    assert!(
        reported.contains("another program listens there"),
        "{reported}"
    );
    assert_eq!(Connection::unix(&place.path).get("/health").status, 200);
    second.end();

    fs::write(&place.path, "a file").unwrap();
    let reported = place.refusal();
    assert!(reported.contains("not a socket"), "{reported}");
    assert_eq!(fs::read_to_string(&place.path).unwrap(), "a file");
    fs::remove_dir_all(&place.directory).unwrap();
    let reported = place.refusal();
    assert!(reported.contains("no such directory"), "{reported}");
}

#[test]
fn a_server_leaves_the_file_of_its_successor() {
    let place = Place::new("successor");
    let mut server = Running::start(&["serve", &place.listen]);
    server.line();
    fs::remove_file(&place.path).unwrap();
    let mut successor = Running::start(&["serve", &place.listen]);
    successor.line();
    server.end();
    assert_eq!(Connection::unix(&place.path).get("/health").status, 200);
    successor.end();
    assert!(!place.path.exists());
}

#[test]
fn a_unix_socket_is_local_like_loopback() {
    let place = Place::new("local");
    // Without keys. A name of the public DNS in `Host` is refused, as on loopback.
    let mut server = Running::start(&["serve", &place.listen]);
    assert!(server.line().starts_with("pushwheel listens on unix:"));
    let curl = format!("--unix-socket {} http://localhost/", place.path.display());
    assert!(server.line().contains(&curl));
    for (host, status) in [("localhost", 200), ("evil.example", 421)] {
        let mut connection = Connection::unix(&place.path);
        connection.send(format!("GET /channels HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(connection.answer().status, status, "{host}");
    }
    server.end();
    // Beside an address that others reach, keys are needed.
    let output = run(&["serve", &place.listen, "--listen=0.0.0.0:0"]);
    let reported = String::from_utf8(output.stderr).unwrap();
    assert!(
        reported.contains("other machines can reach 0.0.0.0:0"),
        "{reported}"
    );
}

#[test]
fn health_checks_a_unix_socket() {
    let place = Place::new("health");
    let mut server = Running::start(&["serve", &place.listen]);
    server.line();
    for arguments in [
        &["health", &place.listen][..],
        &["health", "--ready", &place.listen],
    ] {
        let output = run(arguments);
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout.is_empty() && output.stderr.is_empty());
    }
    let mut of_environment = pushwheel(&["health"]);
    let listen = format!("unix:{},127.0.0.1:1", place.path.display());
    of_environment.env("PUSHWHEEL_LISTEN", listen);
    assert!(of_environment.output().unwrap().status.success());
    server.end();
    let output = run(&["health", &place.listen]);
    let reported = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{reported}");
    assert!(reported.contains("Is the server running"), "{reported}");
}

#[test]
fn an_invalid_address_or_mode_has_a_fix() {
    for (arguments, part) in [
        (&["--listen=unix:"][..], "has no path"),
        (
            &["--listen=127.0.0.1:0", "--listen=8080"],
            "not an address and a port",
        ),
        (&["--socket-mode=rw"], "three octal digits"),
        (&["--socket-mode=888"], "three octal digits"),
        (&["--socket-mode=1777"], "three octal digits"),
    ] {
        let output = run(&[&["serve"], arguments].concat());
        let reported = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{reported}");
        assert!(reported.contains(part), "{reported}");
    }
    let long = format!("--listen=unix:/tmp/{}", "x".repeat(200));
    let output = run(&["serve", &long]);
    let reported = String::from_utf8(output.stderr).unwrap();
    assert!(reported.contains("the path is too long"), "{reported}");
}
