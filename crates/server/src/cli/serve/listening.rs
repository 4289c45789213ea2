//! The addresses of `--listen`, and how to fix errors with them.

use std::fmt;
use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use pushwheel::{EngineBuilder, Listener};

use super::Failure;
use super::socket_file::{self, SocketFile};

const EXAMPLE: &str = "127.0.0.1:8080";

/// The beginning of a value of `--listen` that is the path of a UNIX socket.
const UNIX: &str = "unix:";

/// Returns the path in a value of `--listen`, if it is that of a UNIX socket.
pub(in crate::cli) fn unix_path(listen: &str) -> Option<&Path> {
    listen.strip_prefix(UNIX).map(Path::new)
}

/// A value of `--listen`.
#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    Tcp {
        text: String,
        /// The addresses of the name. The first that can be bound counts.
        addresses: Vec<SocketAddr>,
    },
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp { text, .. } => f.write_str(text),
            Endpoint::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl Endpoint {
    /// Parses a value, and resolves its name.
    pub(super) fn resolve(listen: &str) -> Result<Endpoint, Failure> {
        if let Some(path) = unix_path(listen) {
            return match path.as_os_str().is_empty() {
                true => Err(format!("{UNIX} has no path. {USE_A_PATH}")),
                false => Ok(Endpoint::Unix(path.to_owned())),
            };
        }
        let addresses = listen.to_socket_addrs();
        let addresses = addresses.map_err(|error| cannot_listen(listen, &error))?;
        Ok(Endpoint::Tcp {
            text: listen.to_owned(),
            addresses: addresses.collect(),
        })
    }

    pub(super) fn at(address: SocketAddr) -> Endpoint {
        Endpoint::Tcp {
            text: address.to_string(),
            addresses: vec![address],
        }
    }

    /// Whether other machines reach it.
    pub(super) fn is_reached_by_others(&self) -> bool {
        match self {
            Endpoint::Tcp { addresses, .. } => {
                let is_loopback = |at: &SocketAddr| at.ip().to_canonical().is_loopback();
                !addresses.iter().all(is_loopback)
            }
            Endpoint::Unix(_) => false,
        }
    }

    /// Listens. Also returns where, with a port instead of 0, and the file to remove at the
    /// end.
    pub(super) fn listen(
        &self,
        engine: &EngineBuilder,
        mode: u32,
    ) -> Result<(Listener, Endpoint, Option<SocketFile>), Failure> {
        let failed = |error: &Error| cannot_listen(&self.to_string(), error);
        match self {
            Endpoint::Tcp { addresses, .. } => {
                let listener = engine.listener_at(&**addresses);
                let listener = listener.map_err(|error| failed(&error))?;
                let address = listener.local_addr().map_err(|error| failed(&error))?;
                let endpoint = address.map_or_else(|| self.clone(), Endpoint::at);
                Ok((listener, endpoint, None))
            }
            Endpoint::Unix(path) => {
                let bound = socket_file::listen(path, mode);
                let (listener, file) = bound.map_err(|error| failed(&error))?;
                Ok((listener.into(), self.clone(), Some(file)))
            }
        }
    }
}

const USE_A_PATH: &str = "Use for example --listen unix:/run/pushwheel/pushwheel.sock";

pub(super) fn cannot_listen(listen: &str, error: &Error) -> Failure {
    format!("cannot listen on {listen} {}", reason(listen, error))
}

/// Returns the cause in parentheses, and the fix.
fn reason(listen: &str, error: &Error) -> String {
    if unix_path(listen).is_some() {
        return reason_of_path(error);
    }
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

/// Returns the same for the path of a UNIX socket.
fn reason_of_path(error: &Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => "(another program listens there). Stop it (`ss -lxp` shows it), \
                                 or choose another path"
            .to_owned(),
        ErrorKind::AlreadyExists => {
            "(a file that is not a socket is there). Choose another path".to_owned()
        }
        ErrorKind::NotFound => "(no such directory). Create it, or use RuntimeDirectory= in the \
                                systemd unit"
            .to_owned(),
        ErrorKind::PermissionDenied => {
            format!("({error}). Use a directory in which this user may create files")
        }
        // The address of a socket has room for about 107 bytes.
        ErrorKind::InvalidInput => format!("(the path is too long). {USE_A_PATH}"),
        _ => format!("({error}). {USE_A_PATH}"),
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
            (
                "unix:/run/p.sock",
                kind(ErrorKind::AddrInUse),
                "another program listens there",
            ),
            (
                "unix:/run/p.sock",
                kind(ErrorKind::AlreadyExists),
                "not a socket",
            ),
            (
                "unix:/x/p.sock",
                kind(ErrorKind::NotFound),
                "no such directory",
            ),
            (
                "unix:/xxxx",
                kind(ErrorKind::InvalidInput),
                "path is too long",
            ),
        ] {
            let text = cannot_listen(listen, &error);
            assert!(text.starts_with(&format!("cannot listen on {listen} (")));
            assert!(text.contains(part), "{text}");
        }
    }
}
