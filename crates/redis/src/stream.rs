//! [`Stream`]: bytes to and from a server, with or without TLS. Each call ends by the
//! deadline that was set last.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::clock::remaining;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Stream(Transport);

#[derive(Debug)]
enum Transport {
    Plain(Timed),
    Tls(Box<StreamOwned<ClientConnection, Timed>>),
}

impl Stream {
    /// Connects to the first of the addresses that accepts. With `tls`, `host` is the name
    /// that the server's certificate has to have; its handshake runs with the first bytes.
    ///
    /// # Errors
    /// When none accepts in time.
    pub(crate) fn connect(
        addresses: &[SocketAddr],
        host: &str,
        tls: Option<&Arc<ClientConfig>>,
        deadline: Instant,
    ) -> io::Result<Stream> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for (index, address) in addresses.iter().enumerate() {
            // One that does not answer leaves time for the others.
            let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            let time = remaining(deadline)? / left;
            match TcpStream::connect_timeout(address, time.max(TIME_MIN)) {
                Ok(tcp) => return Stream::new(tcp, host, tls, deadline),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn new(
        tcp: TcpStream,
        host: &str,
        tls: Option<&Arc<ClientConfig>>,
        deadline: Instant,
    ) -> io::Result<Stream> {
        tcp.set_nodelay(true)?;
        let timed = Timed { tcp, deadline };
        let Some(config) = tls else {
            return Ok(Stream(Transport::Plain(timed)));
        };
        let wrong = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong("not a host name"))?;
        let session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        let stream = StreamOwned::new(session, timed);
        Ok(Stream(Transport::Tls(Box::new(stream))))
    }

    /// Sets the time by which later calls end.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        let timed = match &mut self.0 {
            Transport::Plain(timed) => timed,
            Transport::Tls(stream) => &mut stream.sock,
        };
        timed.deadline = deadline;
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Transport::Plain(timed) => timed.read(buffer),
            Transport::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Transport::Plain(timed) => timed.write(bytes),
            Transport::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Transport::Plain(timed) => timed.flush(),
            Transport::Tls(stream) => stream.flush(),
        }
    }
}

/// The shortest time that a socket can wait.
const TIME_MIN: Duration = Duration::from_millis(1);

/// A socket whose calls end by a deadline. A peer that sends a byte now and then gets no
/// more time for it.
#[derive(Debug)]
struct Timed {
    tcp: TcpStream,
    deadline: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let time = remaining(self.deadline)?.max(TIME_MIN);
        self.tcp.set_read_timeout(Some(time))?;
        self.tcp.read(buffer).map_err(timed_out)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let time = remaining(self.deadline)?.max(TIME_MIN);
        self.tcp.set_write_timeout(Some(time))?;
        self.tcp.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

/// A socket reports the end of its time as if it did not block.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}
