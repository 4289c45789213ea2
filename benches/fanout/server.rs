//! The servers that are measured, each a process of its own.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::options::Kind;
use crate::{bare, usage};

/// A server that listens. One that was started here ends when this is dropped.
pub(crate) struct Server {
    pub(crate) subscribe: Url,
    pub(crate) publish: Url,
    pid: u32,
    /// With its output, which must stay open as long as it may print.
    child: Option<(Child, BufReader<ChildStdout>)>,
}

/// Where requests go.
pub(crate) struct Url {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
    pub(crate) path: String,
}

impl Server {
    /// Starts one, or takes the one that runs; on core 0, if `pinned`.
    pub(crate) fn start(kind: &Kind, pinned: bool) -> Server {
        match kind {
            Kind::Bare => {
                let me = std::env::current_exe().expect("this program has a path");
                Server::spawn(&me, &[bare::COMMAND], pinned)
            }
            Kind::Pushwheel(exe) => {
                Server::spawn(exe, &["serve", "--listen", "127.0.0.1:0"], pinned)
            }
            Kind::Running {
                subscribe,
                publish,
                pid,
            } => Server {
                subscribe: Url::parse(subscribe),
                publish: Url::parse(publish),
                pid: *pid,
                child: None,
            },
        }
    }

    fn spawn(exe: &Path, arguments: &[&str], pinned: bool) -> Server {
        // taskset becomes the server, so the child's process id is the server's.
        let mut command = if pinned {
            let mut command = Command::new("taskset");
            command.args(["-c", "0"]).arg(exe);
            command
        } else {
            Command::new(exe)
        };
        let mut child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", exe.display()));
        let pid = child.id();
        let mut output = BufReader::new(child.stdout.take().expect("its output is piped"));
        let base = listening_at(&mut output);
        let channel = || Url::parse(&format!("{base}/channels/bench"));
        Server {
            subscribe: channel(),
            publish: channel(),
            pid,
            child: Some((child, output)),
        }
    }

    pub(crate) fn cpu_ns(&self) -> u64 {
        usage::cpu_ns(self.pid)
    }

    pub(crate) fn rss_bytes(&self) -> u64 {
        usage::rss_bytes(self.pid)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.child {
            // It may have ended by itself, which the load has noticed by now.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Url {
    fn parse(text: &str) -> Url {
        let rest = text
            .strip_prefix("http://")
            .expect("a URL begins with http://");
        let (host, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        let address = host
            .to_socket_addrs()
            .ok()
            .and_then(|mut addresses| addresses.next());
        Url {
            address: address.unwrap_or_else(|| panic!("{text}: http://HOST:PORT/PATH is needed")),
            host: host.into(),
            path: path.into(),
        }
    }
}

/// The first `http://HOST:PORT` that a server prints.
fn listening_at(output: &mut impl BufRead) -> String {
    let lines = output.lines().map_while(Result::ok);
    let found = lines.filter_map(|line| {
        let url = &line[line.find("http://")?..];
        let end =
            url["http://".len()..].find(|c: char| c != ':' && c != '.' && !c.is_alphanumeric());
        Some(
            end.map_or(url, |end| &url[..end + "http://".len()])
                .to_owned(),
        )
    });
    let mut found = found;
    found.next().expect("the server prints where it listens")
}
