//! Why the server cannot listen where it is to, and what to do about it.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;

use super::Failure;

const EXAMPLE: &str = "127.0.0.1:8080";

pub(super) fn cannot_listen(listen: &str, error: &Error) -> Failure {
    format!("cannot listen on {listen}: {}", advice(listen, error))
}

fn advice(listen: &str, error: &Error) -> String {
    match error.kind() {
        _ if port_of(listen).is_none() => format!(
            "give an address and a port from 0 to 65535, as --listen {EXAMPLE}, or \
             --listen 0.0.0.0:8080 for others to reach it"
        ),
        ErrorKind::AddrInUse => format!(
            "another program listens there (`ss -ltnp` shows which): end that one, or choose \
             another port, as --listen {}",
            other_port(listen)
        ),
        ErrorKind::PermissionDenied => format!(
            "{error}. Ports below 1024 are for who has the right CAP_NET_BIND_SERVICE: choose \
             one above, as --listen {EXAMPLE}, behind a proxy that has the right; or have \
             systemd give it (AmbientCapabilities=CAP_NET_BIND_SERVICE)"
        ),
        ErrorKind::AddrNotAvailable => format!(
            "this machine does not have that address: choose one of its own (`ip address` \
             shows them), or --listen 0.0.0.0:{} for all of them",
            port_of(listen).unwrap_or_default()
        ),
        // Of a name nothing else is known, not even its kind of error.
        _ if listen.parse::<SocketAddr>().is_err() => format!(
            "{error}. Check the spelling of the name, or give an address, as --listen {EXAMPLE}"
        ),
        _ => format!("{error}. Choose another address with --listen"),
    }
}

/// The port of what has a host before it that could be one.
fn port_of(listen: &str) -> Option<u16> {
    let (host, port) = listen.rsplit_once(':')?;
    let is_host = !host.is_empty() && !host.contains('/');
    port.parse().ok().filter(|_| is_host)
}

/// The same address with the port after it.
fn other_port(listen: &str) -> String {
    let host = listen
        .rsplit_once(':')
        .map_or("127.0.0.1", |(host, _)| host);
    let port = port_of(listen).and_then(|port| port.checked_add(1));
    format!("{host}:{}", port.unwrap_or(8081))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_says_what_to_do() {
        let kind = |kind: ErrorKind| Error::from(kind);
        let lookup = || Error::other("failed to lookup address information");
        for (listen, error, told) in [
            (
                "8080",
                kind(ErrorKind::InvalidInput),
                "as --listen 127.0.0.1:8080",
            ),
            (":8080", lookup(), "an address and a port"),
            (
                "localhost",
                kind(ErrorKind::InvalidInput),
                "an address and a port",
            ),
            (
                "127.0.0.1:99999",
                kind(ErrorKind::InvalidInput),
                "0 to 65535",
            ),
            ("http://127.0.0.1:8080", lookup(), "an address and a port"),
            ("nohost.invalid:80", lookup(), "spelling of the name"),
            (
                "[::1]:8080",
                kind(ErrorKind::AddrInUse),
                "--listen [::1]:8081",
            ),
            (
                "[::1]:65535",
                kind(ErrorKind::AddrInUse),
                "--listen [::1]:8081",
            ),
            (
                "127.0.0.1:80",
                kind(ErrorKind::PermissionDenied),
                "below 1024",
            ),
            (
                "10.9.9.9:81",
                kind(ErrorKind::AddrNotAvailable),
                "--listen 0.0.0.0:81",
            ),
            (
                "127.0.0.1:81",
                kind(ErrorKind::OutOfMemory),
                "Choose another",
            ),
        ] {
            let said = cannot_listen(listen, &error);
            assert!(said.starts_with(&format!("cannot listen on {listen}: ")));
            assert!(said.contains(told), "{said}");
        }
    }
}
