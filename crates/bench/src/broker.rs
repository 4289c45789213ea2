//! The Redis of a cluster: started for a run, or a running one.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::measured::Measured;
use super::{Fault, Result, fault, usage};

/// Which Redis.
#[derive(Clone, Debug)]
pub(crate) enum BrokerKind {
    /// One that the bench starts, without a file.
    Own {
        exe: PathBuf,
    },
    Running {
        url: String,
    },
}

/// A Redis that answers. One that the bench started ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    url: String,
    child: Option<Child>,
}

impl Broker {
    pub(crate) fn start(kind: &BrokerKind) -> Result<Broker> {
        match kind {
            BrokerKind::Running { url } => Ok(Broker {
                url: url.clone(),
                child: None,
            }),
            BrokerKind::Own { exe } => Broker::spawn(exe),
        }
    }

    fn spawn(exe: &Path) -> Result<Broker> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            // Redis needs to know its port. Another process may take it in between.
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let mut child = Measured::command(exe, false)?
                .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
                .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .map_err(|error| Fault(format!("cannot start {} ({error})", exe.display())))?;
            let begun = Instant::now();
            while begun.elapsed() < TIMEOUT {
                if answers(port) {
                    return Ok(Broker {
                        url: format!("redis://127.0.0.1:{port}"),
                        child: Some(child),
                    });
                }
                if let Some(end) = child.try_wait()? {
                    last = Some(end);
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let end = last.map_or_else(|| "no reply".to_owned(), |end| end.to_string());
        fault(format!(
            "{} did not start ({end}). Install Redis, or pass --redis-server or --broker",
            exe.display()
        ))
    }

    /// Returns the arguments of a node.
    pub(crate) fn arguments(&self) -> [String; 4] {
        // A running Redis may have the log of an earlier run.
        let name = format!("bench-{}-{}", std::process::id(), nanos());
        ["--broker", &self.url, "--broker-name", &name].map(str::to_owned)
    }

    /// Returns the CPU time, if the bench started it.
    pub(crate) fn cpu_ns(&self) -> Result<Option<u64>> {
        let pid = self.child.as_ref().map(Child::id);
        pid.map(usage::cpu_ns).transpose()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn answers(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut reply = [0; 5];
        stream.read_exact(&mut reply)?;
        std::io::Result::Ok(reply)
    };
    ask().is_ok_and(|reply| &reply == b"+PONG")
}

/// Distinguishes the runs of a process.
fn nanos() -> u128 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos())
}

const ATTEMPTS: usize = 5;
/// The maximum time for its start.
const TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_no_redis_is_named() {
        let exe = PathBuf::from("/bin/false");
        let reported = Broker::start(&BrokerKind::Own { exe })
            .unwrap_err()
            .to_string();
        assert!(reported.contains("/bin/false did not start"), "{reported}");
    }
}
