//! Servers for a test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use pushwheel::cluster::{
    BlockRead, BrokerError, Hello, LogReader, LogWriter, Memory, NewBlock, SharedLog, Welcome,
};
use pushwheel_redis::{RedisLog, RedisOptions};

/// Deadline of each wait. Only a test that fails waits for all of it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The time for one call.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// A file of a server's directory.
const CONFIGURATION: &str = "redis.conf";

/// A server, which ends with its test.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    directory: TemporaryDirectory,
    arguments: Vec<String>,
}

impl Server {
    /// Starts a server that keeps what it has over a restart.
    pub(crate) fn start() -> Server {
        Server::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub(crate) fn with(arguments: &[&str]) -> Server {
        let server = Server::spawn("", arguments);
        server.await_answer();
        server
    }

    /// Starts a sentinel with a configuration.
    pub(crate) fn sentinel(configuration: &str) -> Server {
        let sentinel = Server::spawn(configuration, &["--sentinel"]);
        sentinel.await_answer();
        sentinel
    }

    fn spawn(configuration: &str, arguments: &[&str]) -> Server {
        let directory = TemporaryDirectory::new("server");
        fs::write(directory.path(CONFIGURATION), configuration).unwrap();
        let port = free_port();
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        let child = run(port, &directory.0, &arguments);
        Server {
            child,
            port,
            directory,
            arguments,
        }
    }

    /// Kills the server and starts it again, with more arguments.
    pub(crate) fn restart(&mut self, more: &[&str]) {
        self.kill();
        self.arguments
            .extend(more.iter().map(|word| (*word).to_owned()));
        self.child = run(self.port, &self.directory.0, &self.arguments);
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal to the server.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(kill.success());
    }

    pub(crate) fn await_answer(&self) {
        eventually("the server answers", || {
            let pong = self
                .connect()
                .and_then(|mut connection| redis::cmd("PING").query::<String>(&mut connection));
            match pong {
                Ok(_) => true,
                // It is there, and wants a password or loads.
                Err(error) => error.code().is_some_and(|code| code == "NOAUTH"),
            }
        });
    }

    fn connect(&self) -> redis::RedisResult<redis::Connection> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        client.get_connection_with_timeout(Duration::from_secs(1))
    }

    /// Runs a command by the client of the crate `redis`.
    #[track_caller]
    pub(crate) fn run<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut self.connect().unwrap()).unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn log(&self) -> RedisLog {
        log_at(&self.url())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A directory that goes with its test.
#[derive(Debug)]
pub(crate) struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    pub(crate) fn new(name: &str) -> TemporaryDirectory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = format!("pushwheel-{name}-{}-{count}", process::id());
        let directory = env::temp_dir().join(directory);
        fs::create_dir_all(&directory).unwrap();
        TemporaryDirectory(directory)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(port: u16, directory: &Path, arguments: &Vec<String>) -> Child {
    // Another server of the same protocol, such as Valkey.
    let program = env::var_os("PUSHWHEEL_REDIS_SERVER");
    let mut command = Command::new(program.unwrap_or_else(|| "redis-server".into()));
    command
        .arg(directory.join(CONFIGURATION))
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--daemonize", "no"])
        .arg("--dir")
        .arg(directory)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?} ({error}): install redis-server"))
}

/// Each test takes a port that no other has had.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub(crate) fn log_at(url: &str) -> RedisLog {
    RedisLog::new(url.parse().unwrap(), &RedisOptions::new()).unwrap()
}

/// What a node says that has nothing.
pub(crate) fn newcomer() -> Hello<'static> {
    let memory = Memory::new(b"identity", &[], 0, &[]);
    Hello::new(1, 0, Some(memory))
}

pub(crate) fn writer(log: &RedisLog) -> (Box<dyn LogWriter>, Welcome) {
    log.open_writer(&newcomer(), TIMEOUT).unwrap()
}

pub(crate) fn reader(log: &RedisLog) -> Box<dyn LogReader> {
    log.open_reader(&newcomer(), TIMEOUT).unwrap().0
}

/// A block of the writer 1.
pub(crate) fn block(n: u64, width: u64, bytes: &[u8]) -> NewBlock<'_> {
    NewBlock {
        writer: 1,
        n,
        width,
        bytes,
    }
}

/// Reads all blocks after a number.
pub(crate) fn read_all(
    reader: &mut dyn LogReader,
    after: u64,
) -> Result<Vec<BlockRead>, BrokerError> {
    let mut blocks: Vec<BlockRead> = Vec::new();
    loop {
        let after = blocks.last().map_or(after, |block| block.first);
        let count = blocks.len();
        let wait = Duration::from_millis(1);
        reader.read(after, 4 << 20, wait, TIMEOUT, &mut blocks)?;
        if blocks.len() == count {
            return Ok(blocks);
        }
    }
}
