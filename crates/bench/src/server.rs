//! The measured servers, each a separate process.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};

use ureq::http::Uri;
use ureq::http::uri::PathAndQuery;

use super::bare::BareLoop;
use super::broker::{Broker, BrokerKind};
use super::figure::counted;
use super::measured::Measured;
use super::options::{Cluster, Common, Scenario};
use super::{Fault, Result, fault, usage};

/// The kind of a server.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// The bare loop, with its time between heartbeats.
    Bare { heartbeat_ms: u64, by_uring: bool },
    /// `pushwheel serve` of this program, with further arguments.
    Pushwheel { exe: PathBuf, serve: Vec<String> },
    /// Several nodes of that, on one Redis.
    Cluster {
        exe: PathBuf,
        serve: Vec<String>,
        nodes: usize,
        broker: BrokerKind,
    },
    /// A running server.
    Running {
        subscribe: Url,
        publish: Url,
        pids: Vec<u32>,
    },
}

/// A server of the comparison: its kind, its name, and what its load has.
#[derive(Clone, Debug)]
pub(crate) struct Contestant {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) has_background: bool,
    /// Whether its requests have idempotency keys, if any have.
    pub(crate) has_keys: bool,
}

/// A server that listens. One that the bench started ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) subscribe: Url,
    pub(crate) publish: Url,
    /// The URL of other channels of the own server, without their name.
    pub(crate) channels: Option<Url>,
    /// The other nodes of its cluster.
    pub(crate) others: Vec<Server>,
    pub(crate) broker: Option<Broker>,
    /// The ids of its process and its workers.
    pids: Vec<u32>,
    /// With its output, which must stay open while it may print.
    child: Option<(Child, BufReader<ChildStdout>)>,
}

/// The target of requests.
#[derive(Clone, Debug)]
pub(crate) struct Url {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
    pub(crate) path: String,
}

/// Returns the measured server, and the one that it is compared with, if any.
pub(crate) fn contestants(scenario: &Scenario) -> Result<Vec<Contestant>> {
    let common = scenario.common();
    let (first, name) = match (&common.url, &common.publish_url) {
        (Some(url), Some(publish)) => (running(url, publish, &common.pid)?, url.clone()),
        _ => match &common.exe {
            Some(exe) => (pushwheel(common, program(exe)?), exe.display().to_string()),
            None => {
                let me = std::env::current_exe()?;
                (pushwheel(common, me), "pushwheel".to_owned())
            }
        },
    };
    if let Scenario::Cluster(options) = scenario {
        return cluster(options, first, name);
    }
    let first = Contestant {
        kind: first,
        name,
        has_background: true,
        has_keys: true,
    };
    let Some(against) = &common.against else {
        return Ok(vec![first]);
    };
    let second = Contestant {
        kind: second(scenario, &first.kind, against)?,
        name: against.clone(),
        has_background: against != "alone",
        has_keys: against != "plain",
    };
    Ok(vec![first, second])
}

/// Returns the server that the first one is compared with.
fn second(scenario: &Scenario, first: &Kind, against: &str) -> Result<Kind> {
    let common = scenario.common();
    Ok(match against {
        "alone" | "plain" => first.clone(),
        "one-thread" => first.with_arguments(against, |_| common.serve.clone())?,
        "send" => first.with_arguments(against, without_io_uring)?,
        "bare" | "bare-uring" => Kind::Bare {
            by_uring: against == "bare-uring",
            heartbeat_ms: match scenario {
                Scenario::Fanout(fanout) if fanout.beside.has_channels() => {
                    return fault(
                        "the bare loop has only one channel. With --beside options, use --against \
                         alone or another server",
                    );
                }
                Scenario::Idle(idle) if idle.heartbeats_for.is_some() => idle.bare_heartbeat_ms,
                _ => 0,
            },
        },
        url if url.contains("://") => {
            let pids = &common.against_pid;
            let publish = common.against_publish_url.as_ref();
            let Some(publish) = publish.filter(|_| !pids.is_empty()) else {
                return fault("--against URL needs --against-publish-url and --against-pid");
            };
            running(url, publish, pids)?
        }
        path => match program(Path::new(path)) {
            Ok(exe) => pushwheel(common, exe),
            Err(why) => return fault(format!("cannot use --against {path} ({why}). {OTHERS}")),
        },
    })
}

impl Kind {
    /// Returns the same server with other arguments.
    fn with_arguments(
        &self,
        against: &str,
        change: impl FnOnce(&[String]) -> Vec<String>,
    ) -> Result<Kind> {
        match self {
            Kind::Pushwheel { exe, serve } => Ok(Kind::Pushwheel {
                exe: exe.clone(),
                serve: change(serve),
            }),
            _ => fault(format!(
                "--against {against} needs a server that the bench starts. Omit --url"
            )),
        }
    }
}

/// Returns arguments without `--io-uring` and its value.
fn without_io_uring(serve: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut arguments = serve.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--io-uring" {
            arguments.next();
        } else if !argument.starts_with("--io-uring=") {
            kept.push(argument.clone());
        }
    }
    kept
}

/// Returns a cluster, and one server alone.
fn cluster(options: &Cluster, alone: Kind, name: String) -> Result<Vec<Contestant>> {
    let Kind::Pushwheel { exe, serve } = alone.clone() else {
        return fault("bench cluster starts its servers itself. Omit --url");
    };
    if options.common.against.is_some() {
        return fault("bench cluster compares with one server. Omit --against");
    }
    let broker = match &options.broker {
        Some(url) => BrokerKind::Running { url: url.clone() },
        None => BrokerKind::Own {
            exe: options.redis_server.clone(),
        },
    };
    let nodes = Kind::Cluster {
        exe,
        serve,
        nodes: options.nodes,
        broker,
    };
    let contestant = |kind, name| Contestant {
        kind,
        name,
        has_background: false,
        has_keys: false,
    };
    Ok(vec![
        contestant(nodes, counted(options.nodes, "node")),
        contestant(alone, format!("{name} alone")),
    ])
}

/// The values of `--against`.
const OTHERS: &str = "Use `bare`, `bare-uring`, `send`, `alone`, `plain`, `one-thread`, the URL of \
                        a running server (http://HOST:PORT/PATH), or the path of another pushwheel program";

/// Returns the path of a program, for any directory and `PATH`.
fn program(path: &Path) -> Result<PathBuf> {
    match path.canonicalize() {
        Ok(exe) if exe.is_file() => Ok(exe),
        _ => fault(format!("no program at {}", path.display())),
    }
}

fn pushwheel(common: &Common, exe: PathBuf) -> Kind {
    let mut serve = common.serve.clone();
    if let Some(threads) = common.threads {
        serve.extend(["--threads".to_owned(), threads.to_string()]);
    }
    Kind::Pushwheel { exe, serve }
}

fn running(url: &str, publish: &str, pids: &[u32]) -> Result<Kind> {
    Ok(Kind::Running {
        subscribe: Url::parse(url)?,
        publish: Url::parse(publish)?,
        pids: pids.to_vec(),
    })
}

impl Server {
    /// Starts a server, or uses the running one; on core 0 if `pinned`.
    pub(crate) fn start(kind: &Kind, pinned: bool) -> Result<Server> {
        match kind {
            Kind::Bare {
                heartbeat_ms,
                by_uring,
            } => {
                let me = std::env::current_exe()?;
                Server::spawn(&me, &BareLoop::arguments(*heartbeat_ms, *by_uring), pinned)
            }
            Kind::Pushwheel { exe, serve } => Server::spawn(exe, &serve_arguments(serve), pinned),
            Kind::Cluster {
                exe,
                serve,
                nodes,
                broker,
            } => {
                let broker = Broker::start(broker)?;
                let mut arguments = serve_arguments(serve);
                arguments.extend(broker.arguments());
                let start = |_| Server::spawn(exe, &arguments, pinned);
                let mut nodes = (0..*nodes).map(start).collect::<Result<Vec<Server>>>()?;
                let mut first = nodes.remove(0);
                first.others = nodes;
                first.broker = Some(broker);
                Ok(first)
            }
            Kind::Running {
                subscribe,
                publish,
                pids,
            } => Ok(Server {
                subscribe: subscribe.clone(),
                publish: publish.clone(),
                channels: None,
                others: Vec::new(),
                broker: None,
                pids: pids.clone(),
                child: None,
            }),
        }
    }

    fn spawn(exe: &Path, arguments: &[String], pinned: bool) -> Result<Server> {
        // The child becomes the server, so its process id is the server's.
        let mut child = Measured::command(exe, pinned)?
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Fault(format!("cannot start {} ({error})", exe.display())))?;
        let pid = child.id();
        let mut output = BufReader::new(child.stdout.take().expect("its output is piped"));
        let Some(base) = listening_at(&mut output) else {
            let end = child.wait()?;
            return fault(format!(
                "{} did not print its listen address ({end})",
                exe.display()
            ));
        };
        let channels = Url::parse(&format!("{base}/channels/"))?;
        Ok(Server {
            subscribe: channels.join("bench"),
            publish: channels.join("bench"),
            channels: Some(channels),
            others: Vec::new(),
            broker: None,
            pids: vec![pid],
            child: Some((child, output)),
        })
    }

    /// Returns whether it is new, and has served no client before.
    pub(crate) fn is_started_here(&self) -> bool {
        self.child.is_some()
    }

    /// Returns the URLs of a channel on this server and on the other nodes of its cluster.
    pub(crate) fn on_all(&self, channel: &str) -> Vec<Url> {
        let all = std::iter::once(self).chain(&self.others);
        let channels = all.filter_map(|server| server.channels.as_ref());
        channels.map(|channels| channels.join(channel)).collect()
    }

    /// Returns the CPU time of all its processes, without the other nodes of its cluster.
    pub(crate) fn cpu_ns(&self) -> Result<u64> {
        self.pids.iter().map(|pid| usage::cpu_ns(*pid)).sum()
    }

    /// Returns the resident memory of all its processes. Shared pages count for each
    /// process, but hardly grow with clients.
    pub(crate) fn rss_bytes(&self) -> Result<u64> {
        self.pids.iter().map(|pid| usage::rss_bytes(*pid)).sum()
    }
}

fn serve_arguments(further: &[String]) -> Vec<String> {
    let own = ["serve", "--listen", "127.0.0.1:0"].map(String::from);
    [&own[..], further].concat()
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.child {
            // It may have ended already, which the load has noticed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Url {
    fn parse(text: &str) -> Result<Url> {
        let wrong = || Fault(format!("invalid URL {text}. Use http://HOST:PORT/PATH"));
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let host = match uri.authority() {
            Some(host) if uri.scheme_str() == Some("http") => host.as_str(),
            _ => return Err(wrong()),
        };
        let address = match uri.port() {
            Some(_) => host.to_socket_addrs(),
            None => format!("{host}:{HTTP_PORT}").to_socket_addrs(),
        };
        let address = address.ok().and_then(|mut addresses| addresses.next());
        Ok(Url {
            address: address.ok_or_else(|| {
                Fault(format!(
                    "unknown host {host} in {text}. Check \
                                                          its spelling"
                ))
            })?,
            host: host.into(),
            path: uri
                .path_and_query()
                .map_or("/", PathAndQuery::as_str)
                .into(),
        })
    }

    pub(crate) fn join(&self, name: &str) -> Url {
        Url {
            path: format!("{}{name}", self.path),
            ..self.clone()
        }
    }
}

const HTTP_PORT: u16 = 80;

/// Returns the first `http://HOST:PORT` that a server prints.
fn listening_at(output: &mut impl BufRead) -> Option<String> {
    output.lines().map_while(|line| line.ok()).find_map(|line| {
        let url = &line[line.find("http://")?..];
        let is_outside = |c: char| c != ':' && c != '.' && !c.is_ascii_alphanumeric();
        let end = url["http://".len()..].find(is_outside);
        Some(url[..end.map_or(url.len(), |end| end + "http://".len())].to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_with_send_has_all_other_arguments() {
        let serve = "--heartbeat 1 --io-uring auto --io-uring=off --threads 2";
        let serve: Vec<String> = serve.split(' ').map(String::from).collect();
        let kept = without_io_uring(&serve).join(" ");
        assert_eq!(kept, "--heartbeat 1 --threads 2");
    }

    #[test]
    fn a_url_without_a_port_has_that_of_http() {
        let url = Url::parse("http://127.0.0.1/events?a=b").unwrap();
        assert_eq!(url.address.to_string(), "127.0.0.1:80");
        assert_eq!((&*url.host, &*url.path), ("127.0.0.1", "/events?a=b"));
        let url = Url::parse("http://[::1]").unwrap();
        assert_eq!((&*url.address.to_string(), &*url.path), ("[::1]:80", "/"));
        let url = Url::parse("http://[::1]:8080/").unwrap();
        assert_eq!((url.address.port(), &*url.host), (8080, "[::1]:8080"));
        for wrong in [
            "https://127.0.0.1/",
            "127.0.0.1",
            "http:///x",
            "",
            "http://127.0.0.1:x/",
        ] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
    }
}
