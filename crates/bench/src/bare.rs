//! The bare loop: the minimum that a server can do. It accepts connections, sends one
//! head, and calls `send()` with the same bytes once per socket of the channel for a
//! published event. It trusts its only peer, the load of this bench: whole, well-formed
//! requests, and readers that keep up or announce that they never read.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use pushwheel::{BatchSender, SendOutcome};
use pushwheel_uring::UringSender;
use socket2::{Domain, Socket, Type};

/// The arguments of the hidden command `bare-loop`.
#[derive(Debug, clap::Args)]
pub struct BareLoop {
    /// Time between two heartbeats, in milliseconds; 0 sends none
    #[arg(long, default_value_t = 0)]
    heartbeat_ms: u64,
    /// Send to many sockets in one system call, by io_uring
    #[arg(long)]
    uring: bool,
}

impl BareLoop {
    /// Returns the command line of the loop.
    pub(super) fn arguments(heartbeat_ms: u64, by_uring: bool) -> Vec<String> {
        let heartbeat = format!("--heartbeat-ms={heartbeat_ms}");
        let mut arguments = vec!["bare-loop".to_owned(), heartbeat];
        arguments.extend(by_uring.then(|| "--uring".to_owned()));
        arguments
    }
}

struct Connection {
    stream: TcpStream,
    role: Role,
    /// Distinguishes it from others in the same place.
    serial: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Publishes, or requests the clients.
    Asks,
    Reads,
    /// Never reads: its socket is filled once, and then not written to.
    NeverReads {
        is_full: bool,
    },
}

/// The sockets, by the number in their token. Free places are reused.
#[derive(Default)]
struct Connections {
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    accepted: u64,
    /// Place and serial of the readers, by the path of their channel. The next event removes
    /// those that are gone.
    channels: HashMap<Vec<u8>, Vec<(usize, u64)>>,
    /// What sends to all of them, if that is not a loop of `send()`.
    sender: Option<UringSender>,
}

/// Listens, prints the address, and serves until it is killed.
pub(crate) fn serve(options: &BareLoop) -> std::io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Accepted sockets inherit it, which saves a call per connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(4096)?;
    let listener = TcpListener::from_std(socket.into());
    let address = listener.local_addr()?;
    println!("the bare loop listens on http://{address}");
    let sender = options.uring.then(UringSender::new).transpose()?;
    turn(
        listener,
        Duration::from_millis(options.heartbeat_ms),
        sender,
    )
}

fn turn(
    mut listener: TcpListener,
    heartbeat: Duration,
    sender: Option<UringSender>,
) -> std::io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut connections = Connections {
        sender,
        ..Connections::default()
    };
    let mut publisher = Publisher::default();
    let mut buffer = vec![0; 64 << 10];
    let mut next_heartbeat = (!heartbeat.is_zero()).then(|| Instant::now() + heartbeat);
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    loop {
        let timeout = next_heartbeat.map(|at| at.saturating_duration_since(Instant::now()));
        poll.poll(&mut events, timeout)?;
        if let Some(at) = next_heartbeat.filter(|at| *at <= Instant::now()) {
            connections.send_to_all(HEARTBEAT);
            next_heartbeat = Some(at + heartbeat);
        }
        for event in &events {
            if event.token() == LISTENER {
                connections.accept(&listener, poll.registry())?;
                continue;
            }
            let number = event.token().0;
            let Some(connection) = &mut connections.slots[number] else {
                continue;
            };
            let bytes = match connection.stream.read(&mut buffer) {
                Ok(length) => &buffer[..length],
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(_) => &[],
            };
            if bytes.is_empty() {
                connections.slots[number] = None;
                connections.free.push(number);
            } else if bytes.starts_with(b"GET ") {
                let target = target(bytes);
                if target.ends_with(b"/clients") {
                    connections.list(number)?;
                    continue;
                }
                connection.role = match memchr::memmem::find(target, NEVER_READS) {
                    Some(_) => Role::NeverReads { is_full: false },
                    None => Role::Reads,
                };
                connection.stream.write_all(HEAD)?;
                let reader = (number, connection.serial);
                let channel = path(target).to_vec();
                connections
                    .channels
                    .entry(channel)
                    .or_default()
                    .push(reader);
            } else {
                publisher.take(bytes, &mut connections);
                loop {
                    publisher.answer(&mut connections, number);
                    // Readiness is reported once, so everything has to be read now.
                    let connection = connections.slots[number].as_mut();
                    let stream = &mut connection.expect("it is not closed").stream;
                    match stream.read(&mut buffer) {
                        Ok(length) if length > 0 => {
                            publisher.take(&buffer[..length], &mut connections);
                        }
                        _ => break,
                    }
                }
            }
        }
    }
}

impl Connections {
    fn accept(&mut self, listener: &TcpListener, registry: &Registry) -> std::io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let number = self.free.pop().unwrap_or_else(|| {
                self.slots.push(None);
                self.slots.len() - 1
            });
            registry.register(&mut stream, Token(number), Interest::READABLE)?;
            self.accepted += 1;
            self.slots[number] = Some(Connection {
                stream,
                role: Role::Asks,
                serial: self.accepted,
            });
        }
    }

    fn send_to_all(&mut self, frame: &[u8]) {
        let connections = self.slots.iter().flatten();
        send(&mut self.sender, connections, frame);
    }

    fn send_to(&mut self, channel: &[u8], frame: &[u8]) {
        let Some(readers) = self.channels.get_mut(channel) else {
            return;
        };
        readers.retain(|(number, serial)| {
            let connection = self.slots[*number].as_ref();
            connection.is_some_and(|connection| connection.serial == *serial)
        });
        let connections = readers
            .iter()
            .map(|(number, _)| self.slots[*number].as_ref().expect("it is kept"));
        send(&mut self.sender, connections, frame);
    }

    /// Sends it to the clients that never read, until their sockets are full.
    fn fill(&mut self, frame: &[u8]) {
        for Connection { stream, role, .. } in self.slots.iter_mut().flatten() {
            if *role == (Role::NeverReads { is_full: false }) {
                let sent = stream.write(frame);
                let is_taken = sent.is_ok_and(|length| length == frame.len());
                *role = Role::NeverReads { is_full: !is_taken };
            }
        }
    }

    /// Responds with the clients, and whether they are behind.
    fn list(&mut self, asked_by: usize) -> std::io::Result<()> {
        let behind = |connection: &Connection| match connection.role {
            Role::Asks => None,
            Role::Reads | Role::NeverReads { is_full: false } => Some(0),
            Role::NeverReads { is_full: true } => Some(1),
        };
        let clients = self.slots.iter().flatten().filter_map(behind);
        let clients: Vec<_> = clients
            .map(|behind| serde_json::json!({ "behind": behind }))
            .collect();
        let body = serde_json::Value::Array(clients).to_string();
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        let connection = self.slots[asked_by].as_mut();
        let stream = &mut connection.expect("it has just asked").stream;
        let mut unsent = answer.as_bytes();
        while !unsent.is_empty() {
            match stream.write(unsent) {
                Ok(length) => unsent = &unsent[length..],
                // The requester reads immediately.
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Sends it to those that read.
fn send<'a>(
    sender: &mut Option<UringSender>,
    connections: impl Iterator<Item = &'a Connection>,
    frame: &[u8],
) {
    let readers = connections.filter(|connection| connection.role == Role::Reads);
    let is_sent = match sender {
        Some(sender) => {
            let sockets: Vec<_> = readers.map(|reader| reader.stream.as_raw_fd()).collect();
            let mut outcomes = vec![SendOutcome::Unsent; sockets.len()];
            let sent = sender.send_to_all(&sockets, frame, false, &mut outcomes);
            let whole = SendOutcome::Sent(frame.len());
            sent.is_ok() && outcomes.iter().all(|outcome| *outcome == whole)
        }
        None => readers
            .map(|reader| (&reader.stream).write(frame))
            .all(|sent| sent.is_ok_and(|length| length == frame.len())),
    };
    assert!(is_sent, "the load reads too slowly");
}

/// The connections that publish.
#[derive(Default)]
struct Publisher {
    published: u64,
    /// Received bytes of an incomplete request.
    started: Vec<u8>,
    unanswered: usize,
    unsent: Vec<u8>,
}

impl Publisher {
    fn take(&mut self, bytes: &[u8], connections: &mut Connections) {
        self.started.extend_from_slice(bytes);
        let started = std::mem::take(&mut self.started);
        let mut rest = &started[..];
        while let Some((body, length)) = request(rest) {
            let target = target(rest);
            let is_filling = memchr::memmem::find(target, NEVER_READS).is_some();
            // A batch has one line per event; a single event is a batch of one.
            for line in body.split(|byte| *byte == b'\n') {
                if !line.is_empty() {
                    self.published += 1;
                    let frame = frame(self.published, line);
                    match is_filling {
                        true => connections.fill(&frame),
                        false => connections.send_to(path(target), &frame),
                    }
                }
            }
            self.unanswered += 1;
            rest = &rest[length..];
        }
        self.started = rest.to_vec();
    }

    fn answer(&mut self, connections: &mut Connections, number: usize) {
        for _ in 0..std::mem::take(&mut self.unanswered) {
            self.unsent.extend_from_slice(ANSWER);
        }
        let connection = connections.slots[number].as_mut();
        let stream = &mut connection.expect("it has just published").stream;
        if !self.unsent.is_empty() {
            let sent = stream.write(&self.unsent);
            assert!(
                sent.is_ok_and(|length| length == self.unsent.len()),
                "the load reads too slowly"
            );
            self.unsent.clear();
        }
    }
}

/// Returns the target of a request whose first line is complete.
fn target(request: &[u8]) -> &[u8] {
    request.split(|byte| *byte == b' ').nth(1).unwrap_or(&[])
}

/// Returns a target without its query.
fn path(target: &[u8]) -> &[u8] {
    target.split(|byte| *byte == b'?').next().unwrap_or(&[])
}

/// Returns the body of the first request and the length of the request, if it is
/// complete.
fn request(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let body = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let field = memchr::memmem::find(&bytes[..body], LENGTH)? + LENGTH.len();
    let digits = bytes[field..].iter().take_while(|b| b.is_ascii_digit());
    let length = digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
    Some((bytes.get(body..body + length)?, body + length))
}

/// Returns an event of the same size as pushwheel's: an id of the usual length, and the
/// data.
fn frame(published: u64, line: &[u8]) -> Vec<u8> {
    let data = line.strip_prefix(br#"{"data":""#).unwrap_or(line);
    let data = data.strip_suffix(br#""}"#).unwrap_or(data);
    let mut frame = format!("id: bareloop-{published}\ndata: ").into_bytes();
    frame.extend_from_slice(data);
    frame.extend_from_slice(b"\n\n");
    frame
}

const LISTENER: Token = Token(usize::MAX);
const HEARTBEAT: &[u8] = b"ping:\n";
/// A part of a target: to subscribe as a client that never reads, and to publish to these
/// only.
const NEVER_READS: &[u8] = b".role=stuck";
const LENGTH: &[u8] = b"Content-Length: ";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\nConnection: close\r\n\r\nping:\n";
