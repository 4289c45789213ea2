//! Listening sockets, and the options that their connections inherit.

use std::io;
use std::net::{SocketAddr, TcpListener};
#[cfg(unix)]
use std::os::unix::net::UnixListener;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::reactor::sockets::Listening;

/// Maximum connections that wait to be accepted. The kernel caps it at
/// `net.core.somaxconn`, 4096 by default.
const LISTEN_QUEUE: i32 = 4096;

/// A socket that listens, for [`EngineBuilder::listen_on`](crate::EngineBuilder::listen_on)
/// and [`listen_on_all`](crate::EngineBuilder::listen_on_all): from
/// [`listener_at`](crate::EngineBuilder::listener_at), or a socket of the standard library,
/// such as one from systemd.
///
/// The peer of a UNIX socket has no address. Its clients count as clients of `127.0.0.1`
/// with the port 0, for limits per address and for trusted proxies too. The sizes of the
/// kernel's buffers, and the time for which a peer may disappear, are options of TCP and do
/// not apply.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    /// One for each thread of an engine, or one that they share.
    Tcp(Vec<TcpListener>),
    #[cfg(unix)]
    Unix(UnixListener),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Listener {
        Listener(Kind::Tcp(vec![listener]))
    }
}

#[cfg(unix)]
impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Listener {
        Listener(Kind::Unix(listener))
    }
}

impl Listener {
    /// Listens on an address, with a socket for each thread.
    pub(super) fn bind(address: SocketAddr, threads: usize) -> io::Result<Listener> {
        listen_all(address, threads).map(|sockets| Listener(Kind::Tcp(sockets)))
    }

    /// Returns the address of TCP on which it listens; `None` for a UNIX socket.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        match &self.0 {
            Kind::Tcp(sockets) => sockets[0].local_addr().map(Some),
            #[cfg(unix)]
            Kind::Unix(_) => Ok(None),
        }
    }

    /// Returns a socket for each of an engine's threads. With fewer, threads share one.
    pub(super) fn into_sockets(
        self,
        threads: usize,
        buffers: Buffers,
    ) -> io::Result<Vec<Listening>> {
        match self.0 {
            Kind::Tcp(mut sockets) => {
                sockets.truncate(threads);
                while sockets.len() < threads {
                    sockets.push(sockets[0].try_clone()?);
                }
                let ready = |socket: TcpListener| {
                    socket.set_nonblocking(true)?;
                    detect_dead_peers(&SockRef::from(&socket))?;
                    buffers.set(&SockRef::from(&socket))?;
                    Ok(Listening::Tcp(mio::net::TcpListener::from_std(socket)))
                };
                sockets.into_iter().map(ready).collect()
            }
            #[cfg(unix)]
            Kind::Unix(socket) => {
                socket.set_nonblocking(true)?;
                let ready = |_| {
                    let socket = socket.try_clone()?;
                    Ok(Listening::Unix(mio::net::UnixListener::from_std(socket)))
                };
                (0..threads).map(ready).collect()
            }
        }
    }
}

/// Returns a listening socket for each thread, all on one address. The kernel distributes
/// the connections among them.
fn listen_all(mut address: SocketAddr, threads: usize) -> io::Result<Vec<TcpListener>> {
    let is_shared = threads > 1;
    if is_shared {
        // Sockets that share an address also share it with those of any other engine,
        // which would receive half of the connections. A socket that does not share cannot
        // be bound to an address in use. (Two engines that start at the same instant could
        // both pass this check.)
        bind(address, false)?;
    }
    let mut listeners = Vec::with_capacity(threads);
    for _ in 0..threads {
        let listener = listen(address, is_shared)?;
        // If the port was 0, all get the port of the first one.
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Returns a listening socket.
fn listen(address: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let socket = bind(address, is_shared)?;
    socket.listen(LISTEN_QUEUE)?;
    Ok(socket.into())
}

/// Returns a socket that is bound to an address.
fn bind(address: SocketAddr, is_shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(is_shared)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Maximum time for which a peer may not acknowledge data, before its connection is closed.
/// With a heartbeat at least every 30 s, which would not be acknowledged, a peer that has
/// disappeared is found within a minute.
const UNANSWERED_MAX: Duration = Duration::from_secs(25);

/// Sets options on a listener with which its connections detect peers that have
/// disappeared: probes while nothing is sent, a deadline while something is. Also sends small
/// writes without delay. Connections inherit them, which saves system calls for each.
fn detect_dead_peers(listener: &SockRef<'_>) -> io::Result<()> {
    listener.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    listener.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    listener.set_tcp_user_timeout(Some(UNANSWERED_MAX))?;
    Ok(())
}

/// Sizes of the kernel's buffers of each connection, in bytes; `None` means the system's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Buffers {
    pub(super) send_bytes: Option<usize>,
    pub(super) receive_bytes: Option<usize>,
}

impl Buffers {
    /// Sets them on a listener. Its connections inherit them.
    fn set(self, listener: &SockRef<'_>) -> io::Result<()> {
        if let Some(bytes) = self.send_bytes {
            listener.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.receive_bytes {
            listener.set_recv_buffer_size(bytes)?;
        }
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::Engine;
    use std::io::ErrorKind;
    use std::net::TcpStream;

    #[test]
    fn an_address_is_one_engines_however_many_threads_there_are() {
        for (threads, others) in [(2, 2), (2, 1), (1, 2)] {
            let engine = Engine::builder().threads(threads).bind("127.0.0.1:0");
            let address = engine.as_ref().unwrap().local_addr();
            let other = Engine::builder().threads(others).bind(address);
            assert_eq!(other.unwrap_err().kind(), ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn connections_inherit_the_detection_of_dead_peers() {
        let listener = listen(([127, 0, 0, 1], 0).into(), false).unwrap();
        // As from systemd: a socket that already listens.
        let given = TcpListener::bind("127.0.0.1:0").unwrap();
        for listener in [listener, given] {
            let other = listener.try_clone().unwrap();
            let engine = Engine::builder().listen_on(listener).unwrap();
            let _peer = TcpStream::connect(engine.local_addr()).unwrap();
            other.set_nonblocking(false).unwrap();
            let (accepted, _) = other.accept().unwrap();
            let accepted = SockRef::from(&accepted);
            assert!(accepted.tcp_nodelay().unwrap());
            assert!(accepted.keepalive().unwrap());
            let seconds = Duration::from_secs;
            assert_eq!(accepted.tcp_keepalive_time().unwrap(), seconds(30));
            assert_eq!(accepted.tcp_keepalive_interval().unwrap(), seconds(10));
            assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(UNANSWERED_MAX));
        }
    }

    #[test]
    fn connections_inherit_the_sizes_of_the_kernels_buffers() {
        let listener = listen(([127, 0, 0, 1], 0).into(), false).unwrap();
        let other = listener.try_clone().unwrap();
        let builder = Engine::builder().send_buffer_bytes(20_000);
        let builder = builder.receive_buffer_bytes(30_000);
        let engine = builder.listen_on(listener).unwrap();
        let _peer = TcpStream::connect(engine.local_addr()).unwrap();
        other.set_nonblocking(false).unwrap();
        let (accepted, _) = other.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        // Linux doubles them.
        assert_eq!(accepted.send_buffer_size().unwrap(), 40_000);
        assert_eq!(accepted.recv_buffer_size().unwrap(), 60_000);
    }
}
