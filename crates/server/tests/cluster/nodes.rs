//! Nodes: processes of `pushwheel serve --broker`, and the balancer in front of them.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::common::client::Answer;
use crate::common::{Connection, eventually};
use crate::redis::free_port;
use crate::running::Running;

/// A server of the cluster. It is killed when this is dropped.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    arguments: Vec<String>,
    running: Option<Running>,
    log: Arc<Mutex<String>>,
}

impl Node {
    /// Starts a node, and waits until it listens.
    pub(crate) fn start(name: &str, broker: &str, further: &[&str]) -> Node {
        let own = [
            "serve",
            "--broker",
            broker,
            "--node-name",
            name,
            // Often, so that positions in heartbeats matter.
            "--heartbeat",
            "1",
            "--history-events",
            "1000000",
            "--history-bytes",
            "1000000000",
            "--history-age",
            "86400",
            "--allow-missing-keys",
            "--trusted-proxy",
            "127.0.0.1",
        ];
        let arguments = [&own[..], further].concat();
        let mut node = Node {
            name: name.to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], free_port())),
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            running: None,
            log: Arc::default(),
        };
        node.start_again();
        node
    }

    /// Starts it on its port, after a kill.
    pub(crate) fn start_again(&mut self) {
        let address = self.address.to_string();
        let mut arguments: Vec<&str> = self.arguments.iter().map(|word| &**word).collect();
        arguments.extend(["--listen", &address]);
        eventually("the port is free", || {
            let mut running = Running::start(&arguments);
            if running.try_address().is_some() {
                let stderr = running.take_stderr();
                let log = self.log.clone();
                thread::spawn(move || collect(stderr, &log));
                self.running = Some(running);
                return true;
            }
            let reported = running.complaints();
            assert!(reported.contains("cannot listen on"), "{reported}");
            false
        });
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the test has not killed it")
    }

    /// Ends it without a warning.
    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    pub(crate) fn signal(&self, name: &str) {
        self.running().signal(name);
    }

    /// Ends it as a deploy does, and waits for that.
    pub(crate) fn end(&mut self) {
        let mut running = self.running.take().expect("it runs");
        running.signal("TERM");
        assert_eq!(
            running.exit_code(),
            Some(0),
            "{}: {}",
            self.name,
            self.log()
        );
    }

    /// Returns what it has logged.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        Connection::open(self.address).get(path)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.get("/ready").status == 200
    }

    pub(crate) fn wait_until_ready(&self) {
        eventually("the node is ready", || self.is_ready());
    }

    /// Returns the value of a metric without labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let answer = self.get("/metrics");
        let text = answer.text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.unwrap_or_else(|| panic!("no {name} in {text}"));
        value.parse().unwrap()
    }
}

fn collect(mut stderr: impl Read, log: &Mutex<String>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stderr.read(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]);
        log.lock().unwrap().push_str(&text);
    }
}

/// HAProxy with the file of deploy/, on a port without TLS.
pub(crate) struct Balancer {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Balancer {
    pub(crate) fn start(directory: &Path, nodes: &[Node]) -> Balancer {
        let port = free_port();
        let original = include_str!("../../../../deploy/haproxy-cluster.cfg");
        let bind = "bind :443 ssl crt /etc/haproxy/push.example.com.pem alpn h2,http/1.1";
        let mut configuration = original
            .replace(bind, &format!("bind 127.0.0.1:{port}"))
            .replace("maxconn 50000", "maxconn 5000")
            // All clients of the test have one address.
            .replace("sc0_conn_cur gt 100", "sc0_conn_cur gt 100000");
        assert_ne!(configuration, original);
        for (at, node) in nodes.iter().enumerate() {
            let placeholder = format!("10.0.0.{}:8080", at + 1);
            assert!(configuration.contains(&placeholder), "{configuration}");
            configuration = configuration.replace(&placeholder, &node.address.to_string());
        }
        let file = directory.join("haproxy.cfg");
        std::fs::write(&file, configuration).unwrap();
        let child = Command::new("haproxy")
            .arg("-db")
            .arg("-f")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .expect("haproxy is installed, and /usr/sbin is in PATH");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        eventually("HAProxy leads to a node", || {
            let connected = std::net::TcpStream::connect(address);
            connected.is_ok() && Connection::open(address).get("/health").status == 200
        });
        Balancer { address, child }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
