//! Notifications to systemd, and the sockets that systemd passes.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::commands::{Running, pushwheel};
use super::{TEXT, ask_over};
use crate::common::{Connection, PATIENCE, Subscriber, eventually};

/// The socket at which systemd would listen.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(name: &str) -> Manager {
        let name = format!("pushwheel-{name}-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        // A killed process with this id may have left it.
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, path }
    }

    fn next(&self) -> String {
        let mut message = [0; 1024];
        let count = self.socket.recv(&mut message).expect("a message comes");
        String::from_utf8(message[..count].to_vec()).unwrap()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn systemd_is_notified_of_the_start_of_reloads_and_of_the_end() {
    let manager = Manager::new("notify");
    let mut command = pushwheel(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &manager.path);
    let mut server = Running::spawn(&mut command);
    let address = server.address();
    assert_eq!(manager.next(), "READY=1\n");
    // It is: requests get responses.
    let mut stream = Subscriber::open(address, "/channels/a", &[]);
    stream.wait_for_id();
    server.signal("HUP");
    let reloading = manager.next();
    let since = reloading
        .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
        .unwrap();
    assert!(
        since.trim_end().parse::<u64>().is_ok_and(|us| us > 0),
        "{reloading}"
    );
    assert_eq!(manager.next(), "READY=1\n");
    server.signal("TERM");
    assert_eq!(manager.next(), "STOPPING=1\n");
    stream.expect_end();
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn the_watchdog_is_fed_as_long_as_the_loop_turns() {
    let manager = Manager::new("watchdog");
    let mut command = pushwheel(&["serve", "--listen", "127.0.0.1:0", "--threads", "2"]);
    command.env("NOTIFY_SOCKET", &manager.path);
    command.env("WATCHDOG_USEC", "200000");
    let mut server = Running::spawn(&mut command);
    server.address();
    let mut fed = 0;
    while fed < 5 {
        match &*manager.next() {
            "WATCHDOG=1\n" => fed += 1,
            other => assert_eq!(other, "READY=1\n"),
        }
    }
    // A stopped process sends nothing to the watchdog.
    server.signal("STOP");
    manager.socket.set_nonblocking(true).unwrap();
    eventually("the socket is empty", || {
        manager.socket.recv(&mut [0; 1024]).is_err()
    });
    manager.socket.set_nonblocking(false).unwrap();
    manager
        .socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    assert!(manager.socket.recv(&mut [0; 1024]).is_err());
    manager.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    server.signal("CONT");
    assert_eq!(manager.next(), "WATCHDOG=1\n");
    server.signal("TERM");
    // Without a reader the full socket would make it wait.
    while manager.next() != "STOPPING=1\n" {}
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_manager_that_does_not_read_holds_up_neither_a_reload_nor_the_end() {
    let manager = Manager::new("deaf");
    let mut command = pushwheel(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &manager.path);
    let mut server = Running::spawn(&mut command);
    let mut stream = Subscriber::open(server.address(), "/channels/a", &[]);
    stream.wait_for_id();
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send_to(b"STATUS=full", &manager.path).is_ok() {}
    server.signal("HUP");
    server.signal("TERM");
    stream.expect_end();
    assert_eq!(server.exit_code(), Some(0));
}

/// Starts the server as systemd does: with sockets as descriptors from 3 on.
/// (`exec` keeps the process id, which is part of it.)
fn activate(sockets: &[TcpListener], arguments: &[&str]) -> Command {
    use std::os::fd::AsRawFd;
    let launcher = "\
import os, sys
fds = [os.dup(int(fd)) for fd in sys.argv[1].split(',')]
fds = [os.dup2(fd, 40 + n, True) for n, fd in enumerate(fds)]
for n, fd in enumerate(fds): os.dup2(fd, 3 + n, True)
os.environ.update(LISTEN_FDS=str(len(fds)), LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
";
    let serve = pushwheel(arguments);
    let fds: Vec<String> = sockets.iter().map(|s| s.as_raw_fd().to_string()).collect();
    let mut command = Command::new("python3");
    command.args(["-c", launcher, &fds.join(",")]);
    command.arg(serve.get_program()).args(serve.get_args());
    for (name, value) in serve.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Returns a listener that a child process can inherit.
fn inheritable() -> TcpListener {
    let socket = socket2::Socket::from(TcpListener::bind("127.0.0.1:0").unwrap());
    socket.set_cloexec(false).unwrap();
    socket.into()
}

#[test]
fn a_socket_of_systemds_is_served_in_place_of_the_address() {
    let socket = inheritable();
    let address = socket.local_addr().unwrap();
    // A client that connects before the server runs waits for it.
    let mut early = Connection::open(address);
    early.send("GET /health HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut server = Running::spawn(&mut activate(
        &[socket],
        &["serve", "--listen", "192.0.2.1:1"],
    ));
    assert_eq!(server.address(), address);
    assert_eq!(early.answer().status, 200);
    let mut stream = Subscriber::open(address, "/channels/a", &[]);
    let answer = ask_over(&mut early, "POST", "/channels/a", &[TEXT], "x");
    assert_eq!(answer.status, 200);
    assert_eq!(stream.next().data, "x");
    // A reload uses the address of the socket.
    server.signal("HUP");
    drop(early);
    server.signal("TERM");
    stream.expect_end();
    let reported = server.complaints();
    assert!(reported.contains("configuration reloaded"), "{reported}");
    assert_eq!(server.exit_code(), Some(0), "{reported}");
}

#[test]
fn all_sockets_of_systemd_are_served_also_unix_sockets() {
    let manager = Manager::new("listens");
    let path = manager.path.with_extension("stream");
    let _ = std::fs::remove_file(&path);
    let unix = socket2::Socket::from(UnixListener::bind(&path).unwrap());
    unix.set_cloexec(false).unwrap();
    let sockets = [inheritable(), inheritable(), OwnedFd::from(unix).into()];
    let addresses = [&sockets[0], &sockets[1]].map(|socket| socket.local_addr().unwrap());
    let mut server = Running::spawn(&mut activate(&sockets, &["serve"]));
    for address in addresses {
        assert_eq!(server.address(), address);
    }
    let wanted = format!("pushwheel listens on unix:{}", path.display());
    assert_eq!(server.line(), wanted);
    for address in addresses {
        assert_eq!(Connection::open(address).get("/health").status, 200);
    }
    assert_eq!(Connection::unix(&path).get("/health").status, 200);
    server.end();
    // It is the file of systemd.
    assert!(path.exists());
    std::fs::remove_file(&path).unwrap();
}
