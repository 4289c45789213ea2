//! A server in a process of its own, and a connection that publishes to it.

use std::io::{BufRead, BufReader, Error, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The longest time without a response, after which a server counts as stuck.
pub(crate) const STUCK: Duration = Duration::from_secs(10);

/// Returns whether `cargo bench` runs this, and not `cargo test`, and the program to
/// measure: the argument, or this package's own.
#[allow(dead_code, reason = "one bench has more arguments")]
pub(crate) fn arguments() -> (bool, String) {
    let (options, mut programs): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|word| word.starts_with("--"));
    let is_bench = options.iter().any(|option| option == "--bench");
    let own = || env!("CARGO_BIN_EXE_pushwheel").to_owned();
    (is_bench, programs.pop().unwrap_or_else(own))
}

/// A server that ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts a build of pushwheel with a configuration, and waits until it listens.
    #[allow(dead_code, reason = "one bench sets options")]
    pub(crate) fn start(program: &str, configuration: &str) -> Result<Server> {
        let file = std::env::temp_dir().join(format!("bench-{}.toml", std::process::id()));
        std::fs::write(&file, configuration)?;
        let server = Server::start_with(|address| {
            let mut command = Command::new(program);
            command.args(["serve", "--listen", &address.to_string(), "--config"]);
            command.arg(&file);
            command
        });
        let _ = std::fs::remove_file(&file);
        server
    }

    /// Starts the command for an address, and waits until the server listens there.
    pub(crate) fn start_with(command: impl FnOnce(SocketAddr) -> Command) -> Result<Server> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let child = command(address)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut server = Server { child, address };
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(Error::other(format!("the server ended ({status})")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that publishes.
pub(crate) struct Publisher(BufReader<TcpStream>);

impl Publisher {
    pub(crate) fn connect(server: SocketAddr) -> Result<Publisher> {
        let socket = TcpStream::connect(server)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(STUCK))?;
        Ok(Publisher(BufReader::new(socket)))
    }

    /// Publishes, and reads the response.
    pub(crate) fn publish(&mut self, channel: &str, media_type: &str, body: &str) -> Result<()> {
        self.request(&format!(
            "POST /channels/{channel} HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: {media_type}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// Sends a GET request, and reads the response.
    #[allow(dead_code, reason = "not every bench has one")]
    pub(crate) fn get(&mut self, path: &str) -> Result<()> {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    fn request(&mut self, request: &str) -> Result<()> {
        self.0.get_mut().write_all(request.as_bytes())?;
        let (mut line, mut length) = (String::new(), 0);
        self.0.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 200") {
            return Err(Error::other(format!(
                "unexpected response ({})",
                line.trim()
            )));
        }
        while line != "\r\n" {
            line.clear();
            self.0.read_line(&mut line)?;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().map_err(Error::other)?;
            }
        }
        self.0.read_exact(&mut vec![0; length])
    }
}
