//! The load: many subscribers and one publisher on one thread, which checks that
//! every client gets every event once, in order and whole. The next event is
//! published only when all have the last one, so "once and in order" means that
//! nobody ever sees another one than the current.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use crate::client::{Client, Expected, Progress};
use crate::options::SIZE_MIN;
use crate::server::Url;

pub(crate) struct Load {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    clients: Vec<Client>,
    subscribe_to: SocketAddr,
    subscribe: Vec<u8>,
    publish_to: SocketAddr,
    publish: String,
    /// The kept connection for publishing, and what has come of an answer.
    publisher: Option<TcpStream>,
    answer: Vec<u8>,
    expected: Expected,
}

impl Load {
    pub(crate) fn new(subscribe: &Url, publish: &Url) -> Load {
        Load {
            poll: Poll::new().expect("an epoll instance"),
            events: Events::with_capacity(1024),
            buffer: vec![0; 64 << 10],
            clients: Vec::new(),
            subscribe_to: subscribe.address,
            subscribe: format!(
                "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n",
                subscribe.path, subscribe.host
            )
            .into_bytes(),
            publish_to: publish.address,
            publish: format!(
                "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\n",
                publish.path, publish.host
            ),
            publisher: None,
            answer: Vec::new(),
            expected: Expected {
                number: 0,
                body: Vec::new(),
            },
        }
    }

    /// Connects so many clients, and waits until each has its head. In batches
    /// that fit any server's listen queue: a full one costs a second.
    pub(crate) fn connect(&mut self, clients: usize) {
        while self.clients.len() < clients {
            let batch = CONNECT_BATCH.min(clients - self.clients.len());
            for _ in 0..batch {
                self.connect_one();
            }
            let mut waiting = batch;
            self.wait(|progress| {
                waiting -= progress.heads;
                waiting == 0
            });
        }
    }

    fn connect_one(&mut self) {
        let number = self.clients.len();
        let mut stream = connect(self.subscribe_to, source(number));
        stream
            .write_all(&self.subscribe)
            .expect("a new socket takes a head");
        let (token, interest) = (Token(number), Interest::READABLE);
        self.poll
            .registry()
            .register(&mut stream, token, interest)
            .expect("a new socket");
        self.clients.push(Client::new(stream, self.expected.number));
    }

    pub(crate) fn disconnect(&mut self) {
        self.clients.clear();
    }

    /// Publishes an event of so many bytes, and returns when every client has it
    /// and the publisher its answer: how long the last client has waited.
    pub(crate) fn deliver(&mut self, size: usize) -> Duration {
        let number = self.expected.number + 1;
        let body = format!("{number:010} {:x<1$}", "", size - SIZE_MIN).into_bytes();
        self.expected = Expected { number, body };
        let published = Instant::now();
        self.publish();
        let (mut waiting, mut last_client) = (self.clients.len(), Duration::ZERO);
        self.wait(|progress| {
            if progress.events > 0 {
                waiting -= progress.events;
                last_client = published.elapsed();
            }
            waiting == 0
        });
        while !is_complete(&self.answer) {
            self.turn(Some(TIMEOUT));
        }
        assert_eq!(
            self.answer.get(8..10),
            Some(&b" 2"[..]),
            "{}",
            text(&self.answer)
        );
        last_client
    }

    /// One event while nobody has subscribed.
    pub(crate) fn publish_to_nobody(&mut self) {
        assert!(self.clients.is_empty());
        self.deliver(SIZE_MIN);
    }

    /// Reads for so long; nobody should be sent more than a heartbeat.
    pub(crate) fn idle(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let progress = self.turn(Some(left));
            assert_eq!(progress.events, 0, "an event that nobody published");
        }
    }

    /// Reads until `done` says so, of what each turn brought.
    fn wait(&mut self, mut done: impl FnMut(Progress) -> bool) {
        if self.clients.is_empty() {
            return;
        }
        let begun = Instant::now();
        while !done(self.turn(Some(TIMEOUT))) {
            assert!(
                begun.elapsed() < TIMEOUT,
                "not every client got everything in {TIMEOUT:?}"
            );
        }
    }

    fn turn(&mut self, timeout: Option<Duration>) -> Progress {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Progress::default(),
            result => result.expect("epoll waits"),
        }
        let mut total = Progress::default();
        for event in &self.events {
            if event.token() == PUBLISHER {
                read_answer(&mut self.publisher, &mut self.buffer, &mut self.answer);
            } else if let Some(client) = self.clients.get_mut(event.token().0) {
                let progress = client.read(&mut self.buffer, &self.expected);
                total.heads += progress.heads;
                total.events += progress.events;
            }
        }
        total
    }

    fn publish(&mut self) {
        let publisher = self.publisher.get_or_insert_with(|| {
            let mut stream = connect(self.publish_to, source(usize::MAX));
            let registered =
                self.poll
                    .registry()
                    .register(&mut stream, PUBLISHER, Interest::READABLE);
            registered.expect("a new socket");
            stream
        });
        let mut request = self.publish.clone().into_bytes();
        let length = self.expected.body.len();
        request.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
        request.extend_from_slice(&self.expected.body);
        self.answer.clear();
        publisher
            .write_all(&request)
            .expect("the publisher's connection takes a request");
    }
}

/// Reads what has come; a server may close after an answer.
fn read_answer(publisher: &mut Option<TcpStream>, buffer: &mut [u8], answer: &mut Vec<u8>) {
    let Some(stream) = publisher else { return };
    loop {
        match stream.read(buffer) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("publishing broke: {error}"),
        }
    }
    assert!(
        is_complete(answer),
        "the server closed instead of an answer: {}",
        text(answer)
    );
    *publisher = None;
}

/// Whether an answer has come whole: its length is given, or it is chunked, or
/// it has no body.
fn is_complete(answer: &[u8]) -> bool {
    let answer = text(answer).to_ascii_lowercase();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    match length.and_then(|length| length.trim().parse().ok()) {
        Some(length) => body.len() >= length,
        None => !head.contains("chunked") || body.ends_with("0\r\n\r\n"),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Connects from an address; the call returns at once while the server's listen
/// queue has room.
fn connect(to: SocketAddr, from: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)
        .expect("a descriptor a client: fewer --clients, or a higher `ulimit -n`");
    if to.ip().is_loopback() && to.is_ipv4() {
        socket
            .bind(&from.into())
            .expect("an address of 127.0.0.0/8");
    }
    socket
        .connect(&to.into())
        .unwrap_or_else(|error| panic!("cannot connect to {to}: {error}"));
    socket
        .set_tcp_nodelay(true)
        .expect("TCP_NODELAY on a TCP socket");
    socket
        .set_nonblocking(true)
        .expect("a socket can be non-blocking");
    TcpStream::from_std(socket.into())
}

/// Clients come from many addresses, so that ports do not run out.
fn source(number: usize) -> SocketAddr {
    let last = 2 + u8::try_from(number % 200).expect("below 200");
    SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0))
}

const PUBLISHER: Token = Token(usize::MAX);
const CONNECT_BATCH: usize = 100;
const TIMEOUT: Duration = Duration::from_secs(30);
