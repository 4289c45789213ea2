//! A client over a plain blocking socket: HTTP as far as the tests need it, and
//! streams read by the tests' own parser.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::PATIENCE;
use super::sse::{Dispatched, Parser};

/// One connection, and what was read from it and not looked at yet.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    unread: Vec<u8>,
    has_ended: bool,
}

/// A response: its head, and its body as far as there is one.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(other, _)| other.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// The values of all headers of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let headers = self.headers.iter();
        let named = headers.filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| &**value).collect()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// The code of an error that is answered as JSON.
    #[track_caller]
    pub fn error_code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        let message = body["error"]["message"].as_str().expect("a message");
        assert!(!message.is_empty());
        body["error"]["code"].as_str().expect("a code").to_owned()
    }
}

impl Connection {
    pub fn open(address: SocketAddr) -> Connection {
        Connection::over(TcpStream::connect(address).expect("it listens"))
    }

    /// A connection to a UNIX socket. From here on only the descriptor counts.
    #[cfg(unix)]
    pub fn unix(path: &std::path::Path) -> Connection {
        let socket = std::os::unix::net::UnixStream::connect(path).expect("it listens");
        Connection::with_times(std::os::fd::OwnedFd::from(socket).into())
    }

    /// A connection from this address of the machine's own.
    pub fn from_address(source: IpAddr, address: SocketAddr) -> Connection {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
        socket.connect(&address.into()).expect("it listens");
        Connection::over(socket.into())
    }

    /// A connection whose kernel takes as little as it can for a client that
    /// does not read.
    pub fn narrow(address: SocketAddr) -> Connection {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).expect("it listens");
        Connection::over(socket.into())
    }

    /// A narrow connection of small packets, for which the engine's kernel too
    /// takes little: some ten kilobytes instead of a megabyte or two.
    #[cfg(target_os = "linux")]
    pub fn very_narrow(address: SocketAddr) -> Connection {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.set_tcp_mss(536).unwrap();
        socket.connect(&address.into()).expect("it listens");
        Connection::over(socket.into())
    }

    fn over(socket: TcpStream) -> Connection {
        socket.set_nodelay(true).unwrap();
        Connection::with_times(socket)
    }

    fn with_times(socket: TcpStream) -> Connection {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Connection {
            socket,
            unread: Vec::new(),
            has_ended: false,
        }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).expect("it is read");
    }

    /// Sends bytes that the engine may not want: whether they get there is all
    /// the same.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.socket.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends until there is no room for more; says how many bytes that took.
    pub fn fill(&mut self) -> usize {
        self.socket.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while let Ok(count) = self.socket.write(&[b'x'; 64 << 10]) {
            sent += count;
        }
        self.socket.set_nonblocking(false).unwrap();
        sent
    }

    /// Says that nothing more will come.
    pub fn finish_sending(&mut self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Breaks the connection off: the other side sees a reset.
    pub fn reset(self) {
        let socket = Socket::from(self.socket);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// A second hold on the socket, for another thread to write to.
    pub fn writer(&self) -> TcpStream {
        self.socket.try_clone().unwrap()
    }

    /// Sends one byte after another until the engine has had enough; what it
    /// said then.
    #[track_caller]
    pub fn drip(mut self) -> Answer {
        let mut writer = self.writer();
        let dripping = thread::spawn(move || {
            super::eventually("it is given up", || writer.write_all(b"x").is_err());
        });
        let answer = self.answer();
        self.rest();
        drop(self);
        dripping.join().unwrap();
        answer
    }

    /// Sends a GET request and takes the answer.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.answer()
    }

    /// Sends a POST request and takes the answer.
    #[track_caller]
    pub fn post(&mut self, path: &str, body: &str) -> Answer {
        let length = body.len();
        self.send(format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        self.answer()
    }

    /// Reads a response with a body of a known length.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().expect("a number");
            answer.body = self.bytes(length);
        }
        answer
    }

    /// Reads the head of a response.
    #[track_caller]
    pub fn head(&mut self) -> Answer {
        let end = loop {
            let found = self.unread.windows(4).position(|four| four == b"\r\n\r\n");
            match found {
                Some(end) => break end,
                None => assert!(self.read_some(), "it ended before a head was there"),
            }
        };
        let head = self.bytes(end + 4);
        let head = std::str::from_utf8(&head).expect("a head is text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().expect("a status line");
        let status = status.strip_prefix("HTTP/1.1 ").expect("HTTP/1.1");
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").expect("name: value");
            (name.to_owned(), value.to_owned())
        });
        Answer {
            status: status[..3].parse().expect("three digits"),
            headers: headers.collect(),
            body: Vec::new(),
        }
    }

    /// Reads so many bytes.
    #[track_caller]
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(self.read_some(), "it ended too early: {:?}", self.unread);
        }
        self.unread.drain(..count).collect()
    }

    /// Reads to the end of the connection.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        while self.read_some() {}
        std::mem::take(&mut self.unread)
    }

    /// Waits for the end, before which nothing may come.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }

    /// Waits for more bytes and puts them behind those that are unread. Says
    /// whether the connection goes on.
    #[track_caller]
    fn read_some(&mut self) -> bool {
        let mut buffer = [0; 64 << 10];
        match self.read_into(&mut buffer) {
            0 => false,
            count => {
                self.unread.extend_from_slice(&buffer[..count]);
                true
            }
        }
    }

    /// Waits for bytes; none is the end.
    #[track_caller]
    fn read_into(&mut self, buffer: &mut [u8]) -> usize {
        if self.has_ended {
            return 0;
        }
        let count = loop {
            match self.socket.read(buffer) {
                Ok(count) => break count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break 0,
                Err(error) => panic!("nothing came: {error}"),
            }
        };
        self.has_ended = count == 0;
        count
    }
}

/// A stream of events, as a browser reads it.
#[derive(Debug)]
pub struct Subscriber {
    connection: Connection,
    pub head: Answer,
    parser: Parser,
    events: VecDeque<Dispatched>,
}

impl Subscriber {
    /// Subscribes as an `EventSource` does, and waits until the stream has begun.
    #[track_caller]
    pub fn open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Subscriber {
        Subscriber::over(Connection::open(address), path, headers)
    }

    #[track_caller]
    pub fn over(mut connection: Connection, path: &str, headers: &[(&str, &str)]) -> Subscriber {
        let is_cache = |(name, _): &(&str, &str)| name.eq_ignore_ascii_case("cache-control");
        let cache = [("Cache-Control", "no-cache")];
        let headers = headers
            .iter()
            .chain(cache.iter().filter(|_| !headers.iter().any(is_cache)))
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        connection.send(format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n{}\r\n",
            headers.collect::<String>()
        ));
        Subscriber::begun(connection)
    }

    /// Reads the head of a stream that was asked for.
    #[track_caller]
    pub fn begun(mut connection: Connection) -> Subscriber {
        let head = connection.head();
        Subscriber::begun_with(head, connection)
    }

    /// A stream whose head was read.
    #[track_caller]
    pub fn begun_with(head: Answer, connection: Connection) -> Subscriber {
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        Subscriber {
            connection,
            head,
            parser: Parser::new(),
            events: VecDeque::new(),
        }
    }

    /// Waits for the next event.
    #[track_caller]
    pub fn next(&mut self) -> Dispatched {
        match self.next_or_end() {
            Some(event) => event,
            None => panic!("the stream ended"),
        }
    }

    /// Waits for the next event, or the end of the stream.
    #[track_caller]
    pub fn next_or_end(&mut self) -> Option<Dispatched> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if !self.read(64 << 10) {
                return None;
            }
        }
    }

    /// Waits for so many events.
    #[track_caller]
    pub fn take(&mut self, count: usize) -> Vec<Dispatched> {
        (0..count).map(|_| self.next()).collect()
    }

    /// Reads the stream to its end.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<Dispatched> {
        let mut events = Vec::new();
        while let Some(event) = self.next_or_end() {
            events.push(event);
        }
        events
    }

    /// Waits for the end, before which no event may come.
    #[track_caller]
    pub fn expect_end(&mut self) {
        assert_eq!(self.rest(), []);
    }

    /// Waits for bytes, of which it takes `bytes_max` at the most. Says whether
    /// the stream goes on.
    #[track_caller]
    pub fn read(&mut self, bytes_max: usize) -> bool {
        let unread = std::mem::take(&mut self.connection.unread);
        self.events.extend(self.parser.push(&unread));
        if !unread.is_empty() {
            return true;
        }
        let mut buffer = vec![0; bytes_max];
        let count = self.connection.read_into(&mut buffer);
        self.events.extend(self.parser.push(&buffer[..count]));
        count > 0
    }

    /// The events that were read and not taken yet.
    pub fn arrived(&mut self) -> Vec<Dispatched> {
        self.events.drain(..).collect()
    }

    /// Waits until the stream has brought an id, which is the first thing that
    /// one without a gap brings.
    #[track_caller]
    pub fn wait_for_id(&mut self) -> String {
        while self.last_event_id().is_empty() {
            assert!(self.read(64 << 10), "the stream ended");
        }
        self.last_event_id().to_owned()
    }

    /// What a browser would send when it comes back.
    pub fn last_event_id(&self) -> &str {
        self.parser.last_event_id()
    }

    /// When it would come back, in milliseconds, if the stream has said so.
    pub fn retry(&self) -> Option<u64> {
        self.parser.retry()
    }

    /// Returns how many lines there have been that open a stream or keep it
    /// alive.
    pub fn pings(&self) -> usize {
        self.parser.pings()
    }

    /// The connection below, for what no subscriber does.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }
}
