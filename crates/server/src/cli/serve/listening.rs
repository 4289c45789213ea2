//! Errors of listening, and how to fix them.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;

use super::Failure;

const EXAMPLE: &str = "127.0.0.1:8080";

pub(super) fn cannot_listen(listen: &str, error: &Error) -> Failure {
    format!("cannot listen on {listen} {}", reason(listen, error))
}

/// Returns the cause in parentheses, and the fix.
fn reason(listen: &str, error: &Error) -> String {
    match error.kind() {
        _ if port_of(listen).is_none() => format!(
            "(not an address and a port). Use for example --listen {EXAMPLE}, or \
             --listen 0.0.0.0:8080 for all addresses of this machine; ports are 0 to 65535"
        ),
        ErrorKind::AddrInUse => format!(
            "(address in use). Stop the other program (`ss -ltnp` shows it), or choose another \
             port, for example --listen {}",
            other_port(listen)
        ),
        ErrorKind::PermissionDenied => format!(
            "({error}). Ports below 1024 need CAP_NET_BIND_SERVICE. Use a higher port, for \
             example --listen {EXAMPLE}, behind a proxy, or set \
             AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit"
        ),
        ErrorKind::AddrNotAvailable => format!(
            "(not an address of this machine). Choose one that `ip address` shows, or \
             --listen 0.0.0.0:{} for all of them",
            port_of(listen).unwrap_or_default()
        ),
        // A failed lookup of a name has no error kind of its own.
        _ if listen.parse::<SocketAddr>().is_err() => format!(
            "({error}). Check the spelling of the name, or use an address, for example \
             --listen {EXAMPLE}"
        ),
        _ => format!("({error}). Choose another address with --listen"),
    }
}

/// Returns the port, if a possible host is in front of it.
fn port_of(listen: &str) -> Option<u16> {
    let (host, port) = listen.rsplit_once(':')?;
    let is_host = !host.is_empty() && !host.contains('/');
    port.parse().ok().filter(|_| is_host)
}

/// Returns the same address with the next port.
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
    fn each_error_has_a_fix() {
        let kind = |kind: ErrorKind| Error::from(kind);
        let lookup = || Error::other("failed to lookup address information");
        for (listen, error, part) in [
            (
                "8080",
                kind(ErrorKind::InvalidInput),
                "example --listen 127.0.0.1:8080",
            ),
            (":8080", lookup(), "not an address and a port"),
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
            ("http://127.0.0.1:8080", lookup(), "not an address"),
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
            let text = cannot_listen(listen, &error);
            assert!(text.starts_with(&format!("cannot listen on {listen} (")));
            assert!(text.contains(part), "{text}");
        }
    }
}
