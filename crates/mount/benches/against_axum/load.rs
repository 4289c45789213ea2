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
    /// Starts a server of this kind.
    pub(crate) fn start(kind: &str) -> Load {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let child = child.args(["serve", kind]).stdout(Stdio::piped());
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

    /// Opens the subscribers' streams.
    pub(crate) fn connect(&mut self, clients: usize) {
        for index in 0..clients {
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
            self.received.push(0);
        }
    }

    /// Publishes so many events at once, and waits until each subscriber has them.
    pub(crate) fn publish(&mut self, count: usize) {
        let request =
            format!("POST /publish/{count} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        self.publisher.write_all(request.as_bytes()).unwrap();
        self.published += count;
        let mut waiting = self.subscribers.len();
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 64 << 10];
        let deadline = Instant::now() + Duration::from_secs(60);
        while waiting > 0 {
            self.poll
                .poll(&mut events, Some(Duration::from_secs(10)))
                .unwrap();
            assert!(
                Instant::now() < deadline,
                "{waiting} subscribers miss events"
            );
            for event in &events {
                let index = event.token().0;
                loop {
                    match self.subscribers[index].read(&mut buffer) {
                        Ok(0) => panic!("a stream has ended"),
                        Ok(bytes) => {
                            let ends = buffer[..bytes].iter().filter(|byte| **byte == END).count();
                            let before = self.received[index];
                            self.received[index] += ends;
                            let is_complete = self.received[index] == self.published;
                            waiting -= usize::from(is_complete && before < self.published);
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }
        let mut answer = [0; 4096];
        let count = self.publisher.read(&mut answer).unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 200"));
    }

    /// Returns the resident memory of the server.
    pub(crate) fn resident_bytes(&self) -> i64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
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
