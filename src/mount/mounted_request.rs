//! A request that another server has read, as far as a stream depends on it.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;

use crate::http::{Limits, Message, Reader, Step};

/// Headers that describe the connection or the body of the other server's request, which
/// are not passed on.
const NOT_PASSED_ON: [&str; 9] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A request that the program's server has read, for [`Mount::respond`](crate::Mount::respond)
/// and [`Mount::call`](crate::Mount::call), by method chaining.
///
/// A stream depends on the method, the query, and the headers `Accept`, `Accept-Encoding`,
/// `Cache-Control` and `Last-Event-ID`.
#[derive(Clone, Debug)]
#[must_use = "pass it to `Mount::respond`"]
pub struct MountedRequest {
    peer: SocketAddr,
    /// The request line and the headers, as HTTP/1.1 writes them.
    head: Vec<u8>,
    body: Vec<u8>,
}

impl MountedRequest {
    /// Returns a request of this method for a path with its query. `peer` is the address of
    /// the client.
    pub fn new(method: &str, target: &str, peer: SocketAddr) -> MountedRequest {
        let mut head = Vec::with_capacity(256);
        for part in [method, " ", target, " HTTP/1.1\r\nConnection: close\r\n"] {
            head.extend_from_slice(part.as_bytes());
        }
        MountedRequest {
            peer,
            head,
            body: Vec::new(),
        }
    }

    /// Returns a GET request.
    pub fn get(target: &str, peer: SocketAddr) -> MountedRequest {
        MountedRequest::new("GET", target, peer)
    }

    /// Sets the requested host: the header `Host`, or the authority of an HTTP/2 request.
    pub fn host(mut self, host: &str) -> MountedRequest {
        self.push("Host", host.as_bytes());
        self
    }

    /// Adds a header. Those that describe the connection or the body, such as `Connection`
    /// and `Content-Length`, are left out.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> MountedRequest {
        let is_of_it = |other: &str| other.eq_ignore_ascii_case(name);
        if !NOT_PASSED_ON.into_iter().any(is_of_it) {
            self.push(name, value.as_ref());
        }
        self
    }

    /// Sets the address of the client.
    pub fn peer(mut self, peer: SocketAddr) -> MountedRequest {
        self.peer = peer;
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> MountedRequest {
        self.body = body.into();
        self
    }

    fn push(&mut self, name: &str, value: &[u8]) {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.head.extend_from_slice(part);
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.peer
    }

    /// Returns it as a handler sees it.
    ///
    /// # Errors
    /// When it is not a request of HTTP/1.1.
    pub(super) fn message(&self) -> Result<Message, MountError> {
        let mut bytes = self.head.clone();
        let has_host = bytes.windows(8).any(|window| window == b"\r\nHost: ");
        if !has_host {
            bytes.extend_from_slice(b"Host: localhost\r\n");
        }
        if !self.body.is_empty() {
            let length = format!("Content-Length: {}\r\n", self.body.len());
            bytes.extend_from_slice(length.as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        let limits = Limits {
            request_line_bytes_max: usize::MAX,
            head_bytes_max: usize::MAX,
            headers_max: usize::MAX,
            body_bytes_max: usize::MAX,
            ..Limits::default()
        };
        match Reader::new().push(&bytes, &limits) {
            Ok((used, Step::Request(message))) if used == bytes.len() => Ok(message),
            Ok(_) => Err(MountError::Invalid("it is not one request".into())),
            Err(refusal) => Err(MountError::Invalid(refusal.message.into())),
        }
    }
}

/// Why a mount does not answer a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MountError {
    /// The mount was shut down.
    Ended,
    /// The request is not a request of HTTP, for this reason.
    Invalid(Box<str>),
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MountError::Ended => f.write_str("the mount was shut down. Reconnect later"),
            MountError::Invalid(why) => write!(f, "the request is invalid ({why}). Correct it"),
        }
    }
}

impl Error for MountError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_passed_on_without_what_describes_its_connection() {
        let request = MountedRequest::new("POST", "/a?b=c", ([192, 0, 2, 1], 9).into());
        let request = request
            .host("example.org")
            .header("Accept", "text/event-stream");
        let request = request.header("Transfer-Encoding", "chunked");
        let request = request.header("content-length", "7").body("hello");
        let message = request.message().unwrap();
        assert_eq!(message.head.target(), "/a?b=c");
        assert_eq!(message.head.host(), Some("example.org"));
        assert_eq!(message.head.header_str("accept"), Some("text/event-stream"));
        assert_eq!(message.body, b"hello");
    }

    #[test]
    fn a_request_that_is_none_is_refused() {
        let peer = ([192, 0, 2, 1], 9).into();
        for request in [
            MountedRequest::get("/a b", peer),
            MountedRequest::new("GET / HTTP/1.1\r\n\r\nGET", "/", peer),
            MountedRequest::get("/", peer).header("a", "b\r\nHost: c\r\n\r\nx"),
        ] {
            let error = request.message().unwrap_err();
            assert!(matches!(error, MountError::Invalid(_)), "{error}");
        }
    }
}
