//! The yardstick: the least that a server can do. Accept, answer one head, and
//! for a published event one `send()` of the same bytes for each socket. It
//! trusts its only peer, the load of this bench.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use socket2::{Domain, Socket, Type};

/// The first argument that makes this program the bare loop.
pub(crate) const COMMAND: &str = "bare-loop";

struct Connection {
    stream: TcpStream,
    is_subscriber: bool,
}

/// The sockets, by the number in their token; closed ones are used again.
#[derive(Default)]
struct Connections {
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
}

/// Listens, says where, and serves until it is killed.
pub(crate) fn serve() {
    let listener = listen();
    let address = listener.local_addr().expect("it is bound");
    println!("the bare loop listens on http://{address}");
    turn(listener).expect("the bare loop needs only sockets");
}

fn listen() -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // What is accepted inherits it, so it costs no call a connection.
    socket
        .set_tcp_nodelay(true)
        .expect("TCP_NODELAY on a TCP socket");
    socket
        .set_nonblocking(true)
        .expect("a socket can be non-blocking");
    socket
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .expect("a free port");
    socket.listen(4096).expect("it is bound");
    TcpListener::from_std(socket.into())
}

fn turn(mut listener: TcpListener) -> std::io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut connections = Connections::default();
    let mut buffer = vec![0; 64 << 10];
    let mut published = 0_u64;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    loop {
        poll.poll(&mut events, None)?;
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
                Ok(0) => &[],
                Ok(length) => &buffer[..length],
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(_) => &[],
            };
            if bytes.is_empty() {
                connections.slots[number] = None;
                connections.free.push(number);
            } else if bytes.starts_with(b"GET ") {
                connection.is_subscriber = true;
                connection.stream.write_all(HEAD)?;
            } else {
                published += 1;
                let frame = frame(published, bytes);
                connections.send_to_all(&frame);
                answer(&mut connections, number)?;
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
            self.slots[number] = Some(Connection {
                stream,
                is_subscriber: false,
            });
        }
    }

    fn send_to_all(&mut self, frame: &[u8]) {
        for connection in self.slots.iter_mut().flatten() {
            if connection.is_subscriber {
                let sent = connection.stream.write(frame);
                assert!(
                    sent.is_ok_and(|length| length == frame.len()),
                    "the load reads too slowly"
                );
            }
        }
    }
}

fn answer(connections: &mut Connections, number: usize) -> std::io::Result<()> {
    let publisher = connections.slots[number]
        .as_mut()
        .expect("it has just published");
    publisher
        .stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
}

/// As many bytes as ours has: an id of the usual length, and the body as data.
fn frame(published: u64, request: &[u8]) -> Vec<u8> {
    let head = request.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let body = &request[head.expect("the load publishes with one write") + 4..];
    let mut frame = format!("id: bareloop-{published}\ndata: ").into_bytes();
    frame.extend_from_slice(body);
    frame.extend_from_slice(b"\n\n");
    frame
}

const LISTENER: Token = Token(usize::MAX);

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\nConnection: close\r\n\r\n:\n\n";
