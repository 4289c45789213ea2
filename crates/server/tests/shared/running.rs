//! The program as processes that a test starts, signals and reads from.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses a part of this file; a test may fail"
)]

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

use crate::common::eventually;

/// A command that runs in the background, and is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn start(arguments: &[&str]) -> Running {
        Running::spawn(&mut pushwheel(arguments))
    }

    pub(crate) fn spawn(command: &mut Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Running { child, out }
    }

    /// Returns the address at which the server prints that it listens.
    pub(crate) fn address(&mut self) -> SocketAddr {
        self.try_address().expect("it listens")
    }

    /// `None` if it ends without printing an address.
    pub(crate) fn try_address(&mut self) -> Option<SocketAddr> {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        let address = line
            .trim_end()
            .strip_prefix("pushwheel listens on http://")?;
        Some(address.parse().unwrap())
    }

    /// Returns its standard error until it ends.
    pub(crate) fn complaints(&mut self) -> String {
        let mut reported = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut reported).unwrap();
        reported
    }

    /// Ends it with SIGTERM, and returns its standard error.
    #[track_caller]
    pub(crate) fn end(mut self) -> String {
        self.signal("TERM");
        let reported = self.complaints();
        assert_eq!(self.exit_code(), Some(0), "{reported}");
        reported
    }

    /// Returns its standard error, to be read while it runs.
    pub(crate) fn take_stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().unwrap()
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "its output ended: {line}");
        line.trim_end().to_owned()
    }

    /// Returns the next event that `sub` prints, without its id.
    pub(crate) fn event(&mut self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        loop {
            match self.line() {
                line if line.is_empty() => return lines,
                line if line.starts_with("id: ") => {}
                line => lines.push(line),
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        // The shell's built-in `kill`, because a small system has no such program.
        assert!(
            Command::new("sh")
                .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Returns the state of its process as a letter of Linux: `T` is stopped.
    #[cfg(target_os = "linux")]
    pub(crate) fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("the process is there");
        stat.rsplit_once(") ")?.1.chars().next()
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let child = &mut self.child;
        eventually("it exits", || child.try_wait().unwrap().is_some());
        child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn pushwheel(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushwheel"));
    command
        .args(arguments)
        .stderr(Stdio::piped())
        .stdin(Stdio::null());
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    let ours = std::env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| name.to_string_lossy().starts_with("PUSHWHEEL_")) {
        command.env_remove(name);
    }
    command
}
