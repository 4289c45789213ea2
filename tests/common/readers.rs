//! Very many subscribers at once, read by one thread.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::PATIENCE;
use super::sse::{Dispatched, Parser};

/// Streams whose heads have not been read yet.
#[derive(Debug)]
pub struct Readers {
    poll: Poll,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    socket: TcpStream,
    /// The head, until it is there whole.
    head: Option<Vec<u8>>,
    parser: Parser,
    events: Vec<Dispatched>,
    has_ended: bool,
}

impl Readers {
    /// Opens `count` streams of `path`.
    pub fn open(address: SocketAddr, path: &str, count: usize) -> Readers {
        let poll = Poll::new().unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        let join = |token| {
            let mut socket = std::net::TcpStream::connect(address).expect("it listens");
            socket.write_all(request.as_bytes()).unwrap();
            socket.set_nonblocking(true).unwrap();
            let mut socket = TcpStream::from_std(socket);
            let registry = poll.registry();
            registry
                .register(&mut socket, Token(token), Interest::READABLE)
                .unwrap();
            Member {
                socket,
                head: Some(Vec::new()),
                parser: Parser::new(),
                events: Vec::new(),
                has_ended: false,
            }
        };
        let members = (0..count).map(join).collect();
        Readers { poll, members }
    }

    /// Reads, on a thread of its own, until each has got `count` events, and
    /// answers the events of each.
    pub fn read(mut self, count: usize) -> JoinHandle<Vec<Vec<Dispatched>>> {
        thread::spawn(move || {
            self.wait(count);
            let members = self.members.into_iter();
            members.map(|member| member.events).collect()
        })
    }

    /// Reads until each has got `count` events since it was opened, or since they
    /// were taken.
    pub fn wait(&mut self, count: usize) {
        let deadline = Instant::now() + 2 * PATIENCE;
        let mut events = Events::with_capacity(1024);
        let is_waiting = |member: &&Member| member.events.len() < count;
        let mut waiting = self.members.iter().filter(is_waiting).count();
        while waiting > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{waiting} have not got everything");
            self.poll.poll(&mut events, Some(left)).unwrap();
            for event in &events {
                let member = &mut self.members[event.token().0];
                let before = member.events.len();
                member.read();
                if before < count && member.events.len() >= count {
                    waiting -= 1;
                }
                assert!(!member.has_ended, "a stream ended");
            }
        }
    }

    /// Takes what each has got.
    pub fn take(&mut self) -> Vec<Vec<Dispatched>> {
        let members = self.members.iter_mut();
        members
            .map(|member| std::mem::take(&mut member.events))
            .collect()
    }
}

impl Member {
    fn read(&mut self) {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return self.has_ended = true,
                Ok(count) => self.take(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("a stream broke: {error}"),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let Some(mut head) = self.head.take() else {
            self.events.extend(self.parser.push(bytes));
            return;
        };
        head.extend_from_slice(bytes);
        match head.windows(4).position(|four| four == b"\r\n\r\n") {
            Some(end) => {
                assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"));
                self.events.extend(self.parser.push(&head[end + 4..]));
            }
            None => self.head = Some(head),
        }
    }
}
