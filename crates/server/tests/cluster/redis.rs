//! Redis servers and sentinels of a test.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use fastrand::Rng;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::eventually;

/// Ports below those that Linux uses for connections of clients, so that a server finds
/// its port free when it starts again.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The name of the primary for the sentinels.
pub(crate) const PRIMARY: &str = "main";

/// A Redis server. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Redis {
    program: String,
    arguments: Vec<String>,
    directory: PathBuf,
    host: IpAddr,
    port: u16,
    child: Child,
}

impl Redis {
    /// Starts a server with an append-only file in a directory of its own, `name`, and waits
    /// until it answers. Options are those of its configuration, as words.
    pub(crate) fn start(parent: &Path, name: &str, options: &[&str]) -> Redis {
        let directory = parent.join(name);
        std::fs::create_dir(&directory).unwrap();
        let own = [
            &["--bind", "127.0.0.1", "--logfile", "log", "--save", ""][..],
            &["--appendonly", "yes", "--appendfsync", "everysec"],
            &["--maxmemory-policy", "noeviction"],
            options,
        ];
        let arguments = own.concat().iter().map(|word| (*word).to_owned()).collect();
        Redis::start_on_a_free_port(program(), arguments, directory, LOCALHOST)
    }

    /// Starts a server in a network namespace, where it has this address.
    pub(crate) fn in_namespace(parent: &Path, namespace: &str, host: IpAddr) -> Redis {
        let directory = parent.join("redis");
        std::fs::create_dir(&directory).unwrap();
        let server = program();
        let words = [
            &["netns", "exec", namespace, &server][..],
            &["--protected-mode", "no", "--logfile", "log", "--save", ""],
        ];
        let arguments = words
            .concat()
            .iter()
            .map(|word| (*word).to_owned())
            .collect();
        Redis::start_on_a_free_port("ip".to_owned(), arguments, directory, host)
    }

    /// Starts a sentinel that watches the server, and agrees with one other.
    pub(crate) fn sentinel(parent: &Path, name: &str, primary: &Redis) -> Redis {
        let directory = parent.join(name);
        std::fs::create_dir(&directory).unwrap();
        let file = directory.join("sentinel.conf");
        let port = primary.port;
        let configuration = format!(
            "bind 127.0.0.1\nlogfile {}/log\n\
             sentinel monitor {PRIMARY} 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds {PRIMARY} 1000\n\
             sentinel failover-timeout {PRIMARY} 5000\n",
            directory.display(),
        );
        std::fs::write(&file, configuration).unwrap();
        let arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
        Redis::start_on_a_free_port(program(), arguments, directory, LOCALHOST)
    }

    fn start_on_a_free_port(
        program: String,
        arguments: Vec<String>,
        directory: PathBuf,
        host: IpAddr,
    ) -> Redis {
        let port = free_port();
        let child = spawn(&program, &arguments, &directory, port);
        let mut redis = Redis {
            program,
            arguments,
            directory,
            host,
            port,
            child,
        };
        eventually("Redis answers", || {
            if redis.child.try_wait().unwrap().is_some() {
                // Another process was faster.
                redis.port = free_port();
                redis.child = redis.spawn();
            }
            redis.answers()
        });
        redis
    }

    fn spawn(&self) -> Child {
        spawn(&self.program, &self.arguments, &self.directory, self.port)
    }

    fn answers(&self) -> bool {
        self.ask(&["ping"]) == "PONG"
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// Sends a command, and returns the reply as redis-cli prints it.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        String::from_utf8_lossy(&self.raw(command))
            .trim_end()
            .to_owned()
    }

    /// As `ask`, with the bytes of the reply.
    pub(crate) fn raw(&self, command: &[&str]) -> Vec<u8> {
        let (host, port) = (self.host.to_string(), self.port.to_string());
        let output = Command::new("redis-cli")
            .args(["-h", &host, "-p", &port])
            .args(command)
            .output();
        output.expect("redis-cli is installed").stdout
    }

    /// Returns a line of `INFO`.
    pub(crate) fn info(&self, name: &str) -> String {
        let info = self.ask(&["info"]);
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim_end().to_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(pid), signal).expect("it runs");
    }

    /// Ends it without a warning.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on its port, with what is on its disk.
    pub(crate) fn restart(&mut self) {
        self.kill();
        eventually("Redis is back", || {
            if self.child.try_wait().unwrap().is_some() {
                self.child = self.spawn();
            }
            self.answers()
        });
    }

    /// Starts it again on its port, with nothing.
    pub(crate) fn restart_empty(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.directory.join("appendonlydir")).unwrap();
        self.restart();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(program: &str, arguments: &[String], directory: &Path, port: u16) -> Child {
    let port = port.to_string();
    let mut command = Command::new(program);
    // A configuration file comes first.
    command.args(arguments).args(["--port", &port]);
    command.current_dir(directory);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let spawned = command.spawn();
    spawned.unwrap_or_else(|error| panic!("cannot start {program} ({error})"))
}

/// Returns the server to test with: `PUSHWHEEL_REDIS_SERVER` may be Valkey's.
fn program() -> String {
    let program = std::env::var("PUSHWHEEL_REDIS_SERVER");
    program.unwrap_or_else(|_| "redis-server".to_owned())
}

/// The ports that tests have been given: tests run at the same time, and a port is free until
/// its server listens.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Returns a port that nothing uses at the moment.
pub(crate) fn free_port() -> u16 {
    let mut rng = Rng::new();
    loop {
        let port = rng.u16(PORTS);
        let is_new = GIVEN.lock().unwrap().insert(port);
        if is_new && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
