//! The publisher: one connection, on which requests may be pipelined and responses are
//! counted.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Socket, Type};

use super::server::Url;
use super::{Fault, Result, fault};

/// One connection for publishing.
#[derive(Debug)]
pub(crate) struct Publisher {
    token: Token,
    to: SocketAddr,
    host: String,
    stream: Option<TcpStream>,
    unsent: Vec<u8>,
    /// The number of sent bytes.
    sent: usize,
    /// Received bytes of an incomplete response.
    started: Vec<u8>,
    unanswered: usize,
    /// The number of the next idempotency key, if requests have them.
    next_key: Option<u64>,
}

impl Publisher {
    pub(crate) fn new(to: &Url) -> Publisher {
        Publisher::with_token(to, PUBLISHER)
    }

    /// Returns one of several publishers of a load.
    pub(crate) fn with_token(to: &Url, token: Token) -> Publisher {
        Publisher {
            token,
            to: to.address,
            host: to.host.clone(),
            stream: None,
            unsent: Vec::new(),
            sent: 0,
            started: Vec::new(),
            unanswered: 0,
            next_key: None,
        }
    }

    /// Sets whether later requests have idempotency keys, each another one.
    pub(crate) fn set_keyed(&mut self, is_keyed: bool) {
        self.next_key = is_keyed.then_some(0);
    }

    /// Requests without a response yet.
    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Queues a request after those that are not sent yet.
    pub(crate) fn add(&mut self, path: &str, content_type: &str, body: &[u8]) {
        let (host, length) = (&self.host, body.len());
        // Writing into a Vec cannot fail.
        let _ = write!(
            self.unsent,
            "POST {path} HTTP/1.1\r\nHost: {host}\r\n\
             Content-Type: {content_type}\r\nContent-Length: {length}\r\n"
        );
        if let Some(key) = &mut self.next_key {
            let _ = write!(self.unsent, "Idempotency-Key: bench-{key:032}\r\n");
            *key += 1;
        }
        self.unsent.extend_from_slice(b"\r\n");
        self.unsent.extend_from_slice(body);
        self.unanswered += 1;
    }

    /// Sends as much as the socket accepts.
    pub(crate) fn send(&mut self, registry: &Registry) -> Result<()> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let mut stream = connect(self.to, source(usize::MAX))?;
                let interest = Interest::READABLE | Interest::WRITABLE;
                registry.register(&mut stream, self.token, interest)?;
                none.insert(stream)
            }
        };
        while self.sent < self.unsent.len() {
            match stream.write(&self.unsent[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return fault(format!("publishing failed ({error})")),
            }
        }
        self.unsent.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads the responses that have arrived. A server may close the connection after
    /// one.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        loop {
            let length = match stream.read(buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return fault(format!("publishing failed ({error})")),
            };
            self.started.extend_from_slice(&buffer[..length]);
            let mut answered = 0;
            while let Some(length) = answer(&self.started[answered..])? {
                answered += length;
                self.unanswered = self.unanswered.checked_sub(1).ok_or_else(|| {
                    Fault("the server sent more responses than there were requests".into())
                })?;
            }
            self.started.drain(..answered);
        }
        if self.unanswered > 0 {
            return fault(format!(
                "the server closed the connection before {} responses. It sent last: {}",
                self.unanswered,
                String::from_utf8_lossy(&self.started)
            ));
        }
        self.stream = None;
        Ok(())
    }
}

/// Returns the length of the first response, if it is complete. It has a length, is
/// chunked, or has no body.
fn answer(bytes: &[u8]) -> Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let begin = match head.parse(bytes) {
        Ok(httparse::Status::Complete(begin)) => begin,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return fault(format!("a response is not HTTP ({error})")),
    };
    if !(200..300).contains(&head.code.unwrap_or(0)) {
        let text = String::from_utf8_lossy(bytes);
        return fault(format!("the server rejected a publish. It sent: {text}"));
    }
    let body = &bytes[begin..];
    let mut length = 0;
    for header in head.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let digits = std::str::from_utf8(header.value).unwrap_or_default();
            length = digits
                .trim()
                .parse()
                .map_err(|_| Fault(format!("a response has the invalid length {digits}")))?;
        }
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            match memchr::memmem::find(body, b"0\r\n\r\n") {
                Some(end) => length = end + 5,
                None => return Ok(None),
            }
        }
    }
    Ok((body.len() >= length).then_some(begin + length))
}

/// Connects from an address. The call returns immediately while the listen queue of the
/// server has room.
pub(crate) fn connect(to: SocketAddr, from: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).map_err(|error| {
        Fault(format!(
            "cannot open a socket ({error}). Use fewer clients, or raise `ulimit -n`"
        ))
    })?;
    if to.ip().is_loopback() && to.is_ipv4() {
        socket.bind(&from.into())?;
    }
    socket.connect(&to.into()).map_err(|error| {
        Fault(format!(
            "cannot connect to {to} ({error}). Is the server running?"
        ))
    })?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(TcpStream::from_std(socket.into()))
}

/// Clients use many addresses, so that ports do not run out.
pub(crate) fn source(number: usize) -> SocketAddr {
    let last = 2 + u8::try_from(number % 200).expect("below 200");
    SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0))
}

pub(crate) const PUBLISHER: Token = Token(usize::MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_where_they_say() {
        let with_length = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1";
        assert_eq!(answer(with_length).unwrap(), Some(with_length.len() - 8));
        assert_eq!(answer(&with_length[..39]).unwrap(), None);
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
        assert_eq!(answer(chunked).unwrap(), Some(chunked.len()));
        assert_eq!(answer(&chunked[..55]).unwrap(), None);
        let nothing = b"HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(answer(nothing).unwrap(), Some(nothing.len()));
        assert!(answer(b"HTTP/1.1 404 Not Found\r\n\r\n").is_err());
    }
}
