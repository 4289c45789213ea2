//! Connections that the program serves itself, because no route takes their request.
//!
//! The first line of a request decides, before anything else of it is parsed: the program
//! receives the request as it was sent, and a body of any length. It also receives the
//! beginning of HTTP/2 without TLS, whose first line is a request of the method `PRI`.

use std::borrow::Cow;

use super::Http;
use crate::exchange::HandedOver;
use crate::reactor::guard::guard;
use crate::reactor::io::Io;
use crate::reactor::io::connection::State;
use crate::reactor::io::net::Net;

impl Http {
    /// Returns whether the next request of a connection, whose bytes go on with `input`, is
    /// for the program. If its line is not complete, or does not end in `input`, the answer
    /// is no.
    pub(super) fn is_for_program<N: Net>(&self, io: &Io<N>, key: u32, input: &[u8]) -> bool {
        let State::Http(state) = &io.connections.get(key).state else {
            return false;
        };
        if state.preface.is_some() || io.acceptor.overflow(key).is_some() {
            return false;
        }
        let Some(begun) = state.reader.begun() else {
            return false;
        };
        let line = first_line(begun, input);
        let target = line.as_deref().and_then(method_and_path);
        target.is_some_and(|(method, path)| self.service.is_for_program(method, path))
    }

    /// Whether responses wait until the client takes them.
    pub(super) fn has_unsent<N: Net>(io: &Io<N>, key: u32) -> bool {
        match &io.connections.get(key).state {
            State::Http(state) => !state.unsent.is_empty(),
            State::Stream(_) => false,
        }
    }

    /// Hands a connection over to the program. `unread` is what was read of it and not
    /// used.
    pub(super) fn hand_over<N: Net>(&self, io: &mut Io<N>, key: u32, unread: &[u8]) {
        let Some(state) = io.connections.http_mut(key) else {
            return;
        };
        let mut read = state.reader.begun().unwrap_or_default().to_vec();
        read.extend_from_slice(unread);
        let (peer, client) = (state.peer, state.source);
        let Some(socket) = io.release(key) else {
            return;
        };
        let connection = HandedOver {
            socket,
            read,
            peer,
            client,
        };
        guard("the hook `hand_over`", || {
            self.service.hand_over(connection)
        });
    }
}

/// Returns the line that is next, without its end, if it ends in `input`. Empty lines in
/// front of a request do not count.
fn first_line<'a>(begun: &'a [u8], input: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    let is_line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    if begun.is_empty() {
        let start = input.iter().position(|byte| !is_line_end(byte))?;
        let input = &input[start..];
        let length = memchr::memchr(b'\n', input)?;
        return Some(Cow::Borrowed(&input[..length]));
    }
    if memchr::memchr(b'\n', begun).is_some() {
        return None;
    }
    let length = memchr::memchr(b'\n', input)?;
    Some(Cow::Owned([begun, &input[..length]].concat()))
}

/// Returns the method and the path of a request line. `None` if it is none, which the
/// parser reports.
fn method_and_path(line: &[u8]) -> Option<(&str, &str)> {
    let line = str::from_utf8(line).ok()?.trim_end_matches('\r');
    let mut words = line.split(' ');
    let [method, target, version] = [words.next()?, words.next()?, words.next()?];
    if words.next().is_some() || !version.starts_with("HTTP/") {
        return None;
    }
    let target = match target.split_once("://") {
        // The absolute form (RFC 9112 section 3.2.2).
        Some((_, rest)) if !target.starts_with('/') => &rest[rest.find('/')?..],
        _ => target,
    };
    Some((method, target.split('?').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_decides_when_it_is_complete() {
        let line = |begun: &str, input: &str| {
            let line = first_line(begun.as_bytes(), input.as_bytes());
            line.map(|line| String::from_utf8(line.into_owned()).unwrap())
        };
        assert_eq!(line("", "GET /a HTTP/1.1"), None);
        assert_eq!(line("", "\r\n\r\n"), None);
        assert_eq!(line("", "\r\nGET /a\r\nHost"), Some("GET /a\r".into()));
        assert_eq!(line("GET ", "/a\r\nHost"), Some("GET /a\r".into()));
        assert_eq!(line("GET /a\r\n", "Host: x\r\n"), None, "it was looked at");
    }

    #[test]
    fn a_request_line_is_a_method_and_a_path() {
        let parts = |line: &str| {
            let parts = method_and_path(line.as_bytes());
            parts.map(|(method, path)| format!("{method} {path}"))
        };
        for (line, expected) in [
            ("GET /a?b HTTP/1.1\r", Some("GET /a")),
            ("PRI * HTTP/2.0\r", Some("PRI *")),
            ("GET http://a.example/b?c HTTP/1.1", Some("GET /b")),
            ("GET /?to=http://a/b HTTP/1.1", Some("GET /")),
            ("GET /a b HTTP/1.1", None),
            ("GET /a", None),
            ("GET /a SPDY/3", None),
        ] {
            assert_eq!(parts(line).as_deref(), expected, "{line}");
        }
    }
}
