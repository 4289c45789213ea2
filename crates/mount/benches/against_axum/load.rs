//! The load: subscribers over sockets, read by one thread, and a publisher.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use crate::server::END;

/// A server, its subscribers and its publisher.
pub(crate) struct Load {
    child: Child,
    address: SocketAddr,
    poll: Poll,
    subscribers: Vec<mio::net::TcpStream>,
    /// The events that each has received.
    received: Vec<usize>,
    published: usize,
    publisher: TcpStream,
}

impl Load {
    /// Starts a server of this kind with this interval between heartbeats.
    pub(crate) fn start(kind: &str, heartbeat: Duration) -> Load {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let heartbeat = heartbeat.as_secs().to_string();
        let child = child.args(["serve", kind, &heartbeat]);
        let child = child.stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address: SocketAddr = line.trim().parse().expect("the server prints its address");
        let publisher = TcpStream::connect(address).unwrap();
        publisher.set_nodelay(true).unwrap();
        Load {
            child,
            address,
            poll: Poll::new().unwrap(),
            subscribers: Vec::new(),
            received: Vec::new(),
            published: 0,
            publisher,
        }
    }

    /// Opens the streams of more subscribers.
    pub(crate) fn connect(&mut self, clients: usize) {
        for _ in 0..clients {
            let index = self.subscribers.len();
            let mut socket = TcpStream::connect(self.address).unwrap();
            let head = "GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n";
            socket.write_all(head.as_bytes()).unwrap();
            let mut answer = Vec::new();
            // The head, and the first bytes of a stream that has some.
            while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
                let mut some = [0; 1024];
                let count = socket.read(&mut some).unwrap();
                assert!(count > 0, "the server streams");
                answer.extend_from_slice(&some[..count]);
            }
            assert!(
                answer.starts_with(b"HTTP/1.1 200"),
                "{}",
                answer.escape_ascii()
            );
            socket.set_nonblocking(true).unwrap();
            let mut socket = mio::net::TcpStream::from_std(socket);
            let registry = self.poll.registry();
            registry
                .register(&mut socket, Token(index), Interest::READABLE)
                .unwrap();
            self.subscribers.push(socket);
            // A new one receives what is published from now on.
            self.received.push(self.published);
        }
    }

    /// Publishes so many events at once, and waits until each subscriber has them.
    pub(crate) fn publish(&mut self, count: usize) {
        let request =
            format!("POST /publish/{count} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        self.publisher.write_all(request.as_bytes()).unwrap();
        self.published += count;
        let mut waiting = self.subscribers.len();
        let deadline = Instant::now() + Duration::from_secs(60);
        while waiting > 0 {
            assert!(
                Instant::now() < deadline,
                "{waiting} subscribers miss events"
            );
            self.read(Duration::from_secs(10), |load, index, bytes| {
                let ends = bytes.iter().filter(|byte| **byte == END).count();
                let before = load.received[index];
                load.received[index] += ends;
                let is_complete = load.received[index] == load.published;
                waiting -= usize::from(is_complete && before < load.published);
            });
        }
        let mut answer = [0; 4096];
        let count = self.publisher.read(&mut answer).unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 200"));
    }

    /// Reads heartbeats for so long. Returns how many came.
    pub(crate) fn rest(&mut self, time: Duration) -> usize {
        let mut count = 0;
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.read(left, |_, _, bytes| {
                // Each has one.
                count += bytes.iter().filter(|byte| **byte == b':').count();
            });
        }
        count
    }

    /// Waits for bytes, and passes all that have come.
    fn read(&mut self, patience: Duration, mut each: impl FnMut(&mut Load, usize, &[u8])) {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 64 << 10];
        self.poll.poll(&mut events, Some(patience)).unwrap();
        for event in &events {
            let index = event.token().0;
            loop {
                match self.subscribers[index].read(&mut buffer) {
                    Ok(0) => panic!("a stream has ended"),
                    Ok(count) => each(self, index, &buffer[..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    /// Returns the resident memory of the server, without its files.
    pub(crate) fn resident_bytes(&self) -> i64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .unwrap();
        let kib: i64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib * 1024
    }

    /// Returns the CPU time that the server needs for `work`.
    pub(crate) fn cpu_ns_of(&mut self, work: impl FnOnce(&mut Load)) -> u64 {
        let before = self.cpu_ns();
        work(self);
        self.cpu_ns() - before
    }

    /// Returns the CPU time of all threads of the server.
    fn cpu_ns(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let of_thread = |task: std::io::Result<fs::DirEntry>| {
            let figures = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            figures.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        tasks.map(of_thread).sum()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.child.kill().expect("it is this program's own child");
        self.child.wait().expect("it is this program's own child");
    }
}
