//! [`Resolver`]: the addresses of a name, by a deadline.
//!
//! The system's look-up has no time limit of ours, so a thread waits for it. Of each name
//! there is at most one look-up at a time: a look-up that takes longer than a call is there
//! for the next call.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use crate::clock::remaining;
use crate::url::ServerAddress;

/// The most look-ups at a time.
const LOOKUPS_MAX: usize = 32;

type Answer = io::Result<Vec<SocketAddr>>;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    /// Look-ups that have not answered in time.
    pending: Mutex<HashMap<ServerAddress, Receiver<Answer>>>,
}

impl Resolver {
    /// Returns the addresses of a server, at least one.
    ///
    /// # Errors
    /// When the name has none, or is not resolved in time.
    pub(crate) fn resolve(&self, server: &ServerAddress, deadline: Instant) -> Answer {
        if let Ok(ip) = server.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, server.port)]);
        }
        let time = remaining(deadline)?;
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let lookup = match pending.remove(server) {
            Some(lookup) => lookup,
            None if pending.len() >= LOOKUPS_MAX => {
                return Err(io::Error::other("too many names are being resolved"));
            }
            None => look_up(server.clone())?,
        };
        drop(pending);
        match lookup.recv_timeout(time) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the look-up failed")),
            Err(RecvTimeoutError::Timeout) => {
                let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
                pending.insert(server.clone(), lookup);
                let text = format!("the name {} is not resolved in time", server.host);
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
        }
    }
}

fn look_up(server: ServerAddress) -> io::Result<Receiver<Answer>> {
    let (sender, receiver) = channel();
    let resolve = move || {
        let addresses = (&*server.host, server.port).to_socket_addrs();
        let addresses = addresses.map(Iterator::collect::<Vec<_>>);
        // The call may have given up.
        let _ = sender.send(addresses.and_then(|addresses| match addresses.is_empty() {
            true => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the name has no address",
            )),
            false => Ok(addresses),
        }));
    };
    let thread = thread::Builder::new().name("pushwheel-lookup".into());
    thread.spawn(resolve)?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::now;

    fn soon() -> Instant {
        now() + Duration::from_secs(10)
    }

    #[test]
    fn addresses_and_names() {
        let resolver = Resolver::default();
        let address = ServerAddress::new("::1", 7);
        let resolved = resolver.resolve(&address, soon()).unwrap();
        assert_eq!(resolved, ["[::1]:7".parse().unwrap()]);
        let resolved = resolver.resolve(&ServerAddress::new("localhost", 7), soon());
        assert!(resolved.unwrap().iter().all(|at| at.ip().is_loopback()));
    }

    #[test]
    fn a_slow_look_up_is_there_for_the_next_call() {
        let resolver = Resolver::default();
        let server = ServerAddress::new("slow.example", 7);
        let (sender, receiver) = channel();
        let mut pending = resolver.pending.lock().unwrap();
        pending.insert(server.clone(), receiver);
        drop(pending);
        let deadline = now() + Duration::from_millis(5);
        let error = resolver.resolve(&server, deadline).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let address = "192.0.2.1:7".parse().unwrap();
        sender.send(Ok(vec![address])).unwrap();
        assert_eq!(resolver.resolve(&server, soon()).unwrap(), [address]);
        assert!(resolver.pending.lock().unwrap().is_empty());
    }
}
