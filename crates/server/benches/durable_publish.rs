//! The cost of a journal for publishers, beside the disk's own sync and another server.
//!
//! ```text
//! cargo bench --bench durable_publish
//! cargo bench --bench durable_publish -- PROGRAM    # another build of pushwheel
//! ```
//!
//! Each connection has one publish of 200 bytes in flight. The servers run in processes of
//! their own and are measured in turn, in each round. Their directories are in
//! `target/tmp`, beside the file whose syncs are timed. Each value is the median of the
//! rounds. A comparison is made within a round, and has the minimum and maximum.
//!
//! A round takes 18 seconds, with the other server 22, so all of them take less than two
//! minutes. A server that does not respond for ten seconds ends the bench with an error.
//!
//! With `DURABLE_STREAMS_SERVER=PROGRAM`, the server of the crate `durable-streams`
//! (`cargo install durable-streams`) is measured too, with its own protocol. All
//! connections append to one stream.

#![allow(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "it measures time, at a pace"
)]

mod common;

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Seek, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Publisher, STUCK, Server};

const BODY_BYTES: usize = 200;
const CONNECTIONS: [usize; 3] = [1, 16, 256];
const ROUNDS: usize = 5;
/// Of a rate, and of the syncs. It has one of the syncs that are made each second.
const MEASURED: Duration = Duration::from_secs(1);
/// Of the publishes to another channel: 600.
const MEASURED_BESIDE: Duration = Duration::from_secs(2);
/// Before each measurement of the rate.
const WARM_UP: Duration = Duration::from_millis(200);
/// For `cargo test`, which only checks that the program works.
const TRIED: Duration = Duration::from_millis(50);
/// The load beside the publishes to another channel. It is the same for each server, far
/// below the rates: a faster server would otherwise have more of it.
const BESIDE: (usize, f64) = (16, 1_000.0);
/// Between two publishes to the other channel.
const PACE: Duration = Duration::from_millis(3);

fn main() -> Result<()> {
    let (is_bench, program) = common::arguments();
    let (rounds, time, time_beside) = match is_bench {
        true => (ROUNDS, MEASURED, MEASURED_BESIDE),
        false => (1, TRIED, TRIED),
    };
    let directory = Directory::new()?;
    let mut contenders = start(&program, &directory.0)?;
    let mut syncs = Vec::new();
    for _ in 0..rounds {
        syncs.push(sync(&directory.0, time)?);
        for connections in CONNECTIONS {
            for Contender {
                server,
                path,
                rates,
                ..
            } in &mut contenders
            {
                let mut load = Load::connect(server.address, path, connections)?;
                load.run(WARM_UP.min(time), None)?;
                rates.push(load.run(time, None)?);
            }
        }
        for contender in &mut contenders[..=ALWAYS] {
            let p99 = publish_beside(contender, time_beside)?;
            contender.beside_ms.push(p99);
        }
    }
    print(&contenders, &syncs)
}

/// A directory that is removed when this is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Directory> {
        let name = format!("durable_publish-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path)?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server, the path to publish to, and its measurements, round by round.
struct Contender {
    name: &'static str,
    server: Server,
    path: &'static str,
    /// For each number of connections, in each round.
    rates: Vec<Rate>,
    /// The 99th percentile of publishes to another channel, in each round.
    beside_ms: Vec<f64>,
}

struct Rate {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// The order of the contenders.
const NONE: usize = 0;
const DEFAULT: usize = 1;
const ALWAYS: usize = 2;
const OTHER: usize = 3;

fn start(program: &str, directory: &Path) -> Result<Vec<Contender>> {
    let contender = |name, path, server| Contender {
        name,
        server,
        path,
        rates: Vec::new(),
        beside_ms: Vec::new(),
    };
    let mut contenders = Vec::new();
    for (name, options) in [
        ("no journal", None),
        ("journal", Some(&[][..])),
        ("journal, always", Some(&["--journal-sync", "always"][..])),
    ] {
        let server = Server::start_with(|address| {
            let mut command = Command::new(program);
            command.args(["serve", "--listen", &address.to_string()]);
            if let Some(options) = options {
                command.arg("--journal").arg(directory.join(name));
                command.args(options);
            }
            command
        })?;
        contenders.push(contender(name, "/channels/x", server));
    }
    if let Some(other) = std::env::var_os("DURABLE_STREAMS_SERVER") {
        let server = Server::start_with(|address| {
            let mut command = Command::new(other);
            command.args(["--host", &address.ip().to_string()]);
            command.args(["--port", &address.port().to_string()]);
            command.args(["--durability", "wal", "--data-dir"]);
            command.arg(directory.join("durable-streams"));
            command
        })?;
        let mut socket = TcpStream::connect(server.address)?;
        socket.write_all(
            b"PUT /x HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
              Content-Length: 0\r\n\r\n",
        )?;
        let mut response = [0; 12];
        socket.read_exact(&mut response)?;
        if response != *b"HTTP/1.1 201" {
            return Err(Error::other("durable-streams did not create the stream"));
        }
        contenders.push(contender("durable-streams", "/x", server));
    }
    Ok(contenders)
}

/// Returns the median time of a write and its sync, in milliseconds. The file does not grow,
/// as a journal does not with most of its syncs.
fn sync(directory: &Path, time: Duration) -> Result<f64> {
    const WRITES: usize = 5_000;
    let mut file = File::create(directory.join("synced"))?;
    file.write_all(&[0; WRITES * BODY_BYTES])?;
    file.sync_all()?;
    let (mut times, begun) = (Vec::new(), Instant::now());
    while begun.elapsed() < time {
        if times.len() % WRITES == 0 {
            file.rewind()?;
        }
        let written = Instant::now();
        file.write_all(&[b'x'; BODY_BYTES])?;
        file.sync_data()?;
        times.push(written.elapsed());
    }
    times.sort_unstable();
    Ok(percentile_ms(&times, 50))
}

/// Returns the 99th percentile of publishes to another channel beside a load, in
/// milliseconds.
fn publish_beside(contender: &Contender, time: Duration) -> Result<f64> {
    let (server, (connections, per_second)) = (contender.server.address, BESIDE);
    let mut load = Load::connect(server, contender.path, connections)?;
    let mut publisher = Publisher::connect(server)?;
    let body = "x".repeat(BODY_BYTES);
    std::thread::scope(|scope| {
        let loading = scope.spawn(move || load.run(time, Some(per_second)));
        let (mut times, begun) = (Vec::new(), Instant::now());
        while begun.elapsed() < time {
            let sent = Instant::now();
            publisher.publish("other", "text/plain", &body)?;
            times.push(sent.elapsed());
            std::thread::sleep(PACE);
        }
        loading.join().expect("it returns its errors")?;
        times.sort_unstable();
        Ok(percentile_ms(&times, 99))
    })
}

/// Connections that publish, each with one request in flight.
struct Load {
    poll: mio::Poll,
    connections: Vec<Connection>,
    request: Vec<u8>,
}

struct Connection {
    socket: mio::net::TcpStream,
    sent: Instant,
    /// What has arrived of the response.
    response: Vec<u8>,
}

impl Load {
    fn connect(server: SocketAddr, path: &str, connections: usize) -> Result<Load> {
        let poll = mio::Poll::new()?;
        let connect = |index| {
            let socket = TcpStream::connect(server)?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            let mut socket = mio::net::TcpStream::from_std(socket);
            let (token, readable) = (mio::Token(index), mio::Interest::READABLE);
            poll.registry().register(&mut socket, token, readable)?;
            Ok(Connection {
                socket,
                sent: Instant::now(),
                response: Vec::new(),
            })
        };
        let connections = (0..connections).map(connect).collect::<Result<_>>()?;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
             Content-Length: {BODY_BYTES}\r\n\r\n{:x<BODY_BYTES$}",
            ""
        );
        Ok(Load {
            poll,
            connections,
            request: request.into_bytes(),
        })
    }

    /// Publishes for a time, at a rate or as fast as responses arrive, until the last
    /// response.
    fn run(&mut self, time: Duration, per_second: Option<f64>) -> Result<Rate> {
        let mut events = mio::Events::with_capacity(CONNECTIONS[2]);
        let mut idle: Vec<usize> = (0..self.connections.len()).collect();
        let (mut times, mut sent, begun) = (Vec::new(), 0, Instant::now());
        let mut responded = begun;
        loop {
            let elapsed = begun.elapsed();
            let is_over = elapsed >= time;
            if is_over && idle.len() == self.connections.len() {
                break;
            }
            let due = per_second.map_or(f64::INFINITY, |rate| rate * elapsed.as_secs_f64());
            while !is_over
                && f64::from(sent) < due
                && let Some(index) = idle.pop()
            {
                let connection = &mut self.connections[index];
                connection.sent = Instant::now();
                connection.socket.write_all(&self.request)?;
                sent += 1;
            }
            self.poll
                .poll(&mut events, Some(Duration::from_millis(1)))?;
            match events.is_empty() && idle.len() < self.connections.len() {
                true if responded.elapsed() > STUCK => return Err(ErrorKind::TimedOut.into()),
                true => {}
                false => responded = Instant::now(),
            }
            for event in &events {
                let index = event.token().0;
                let connection = &mut self.connections[index];
                if connection.read()? {
                    times.push(connection.sent.elapsed());
                    idle.push(index);
                }
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        times.sort_unstable();
        Ok(Rate {
            per_second: times.len() as f64 / seconds,
            p50_ms: percentile_ms(&times, 50),
            p99_ms: percentile_ms(&times, 99),
        })
    }
}

impl Connection {
    /// Reads the bytes that have arrived. Returns whether they complete the response.
    fn read(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        while !self.is_complete()? {
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.response.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.response.clear();
        Ok(true)
    }

    fn is_complete(&self) -> Result<bool> {
        let response = String::from_utf8_lossy(&self.response);
        let Some((head, body)) = response.split_once("\r\n\r\n") else {
            return Ok(false);
        };
        if !head.starts_with("HTTP/1.1 2") {
            return Err(Error::other(format!("unexpected response ({response})")));
        }
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse::<usize>())
        });
        Ok(body.len() >= length.transpose().map_err(Error::other)?.unwrap_or(0))
    }
}

fn print(contenders: &[Contender], syncs: &[f64]) -> Result<()> {
    let mut out = std::io::stdout();
    let name = "write and fdatasync";
    writeln!(
        out,
        "{:<20} {:>11}  answers/s     p50 ms     p99 ms",
        "", "connections"
    )?;
    writeln!(
        out,
        "{name:<20} {:>11} {:>10} {:>10.3}",
        "",
        "",
        median(syncs)
    )?;
    for contender in contenders {
        for (case, connections) in CONNECTIONS.iter().enumerate() {
            let of = |value: fn(&Rate) -> f64| median(&contender.each(case, value));
            writeln!(
                out,
                "{:<20} {connections:>11} {:>10.0} {:>10.3} {:>10.3}",
                contender.name,
                of(|rate| rate.per_second),
                of(|rate| rate.p50_ms),
                of(|rate| rate.p99_ms),
            )?;
        }
    }
    writeln!(out, "\np99 of publishes to another channel, ms")?;
    for contender in &contenders[..=ALWAYS] {
        writeln!(
            out,
            "{:<20} {:>10.3}",
            contender.name,
            median(&contender.beside_ms)
        )?;
    }
    writeln!(out, "\n{:<48} {:>8}  (min to max)  goal", "", "median")?;
    let mut compare = |what: &str, goal: &str, values: Vec<f64>| {
        let (least, most) = (
            values.iter().copied().fold(f64::INFINITY, f64::min),
            values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        );
        writeln!(
            out,
            "{what:<48} {:>8.3}  ({least:.3} to {most:.3})  {goal}",
            median(&values)
        )
    };
    let pairs = |a: &[f64], b: &[f64], compared: fn(f64, f64) -> f64| -> Vec<f64> {
        a.iter().zip(b).map(|(a, b)| compared(*a, *b)).collect()
    };
    for contender in &contenders[DEFAULT..=ALWAYS] {
        let p50s = contender.each(0, |rate| rate.p50_ms);
        compare(
            &format!("{}: p50 of one - sync, ms", contender.name),
            "at most 0.15",
            pairs(&p50s, syncs, |p50, sync| p50 - sync),
        )?;
    }
    let of = |index: usize, case| contenders[index].each(case, |rate| rate.per_second);
    for (case, connections) in CONNECTIONS.iter().enumerate() {
        compare(
            &format!("journal / no journal: answers/s, {connections}"),
            "at least 0.8",
            pairs(&of(DEFAULT, case), &of(NONE, case), |a, b| a / b),
        )?;
        if contenders.len() > OTHER {
            compare(
                &format!("always / durable-streams: answers/s, {connections}"),
                "at least 1",
                pairs(&of(ALWAYS, case), &of(OTHER, case), |a, b| a / b),
            )?;
        }
    }
    for contender in &contenders[DEFAULT..=ALWAYS] {
        compare(
            &format!("{} / no journal: p99 of another", contender.name),
            "at most 1.1",
            pairs(&contender.beside_ms, &contenders[NONE].beside_ms, |a, b| {
                a / b
            }),
        )?;
    }
    Ok(())
}

impl Contender {
    /// Returns the values of one number of connections, round by round.
    fn each(&self, case: usize, value: impl Fn(&Rate) -> f64) -> Vec<f64> {
        let rounds = self.rates.chunks(CONNECTIONS.len());
        rounds.map(|round| value(&round[case])).collect()
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Of sorted times. Without any, it is not a number.
fn percentile_ms(times: &[Duration], percent: usize) -> f64 {
    let index = times.len().saturating_sub(1) * percent / 100;
    let time = times.get(index).map(Duration::as_secs_f64);
    time.map_or(f64::NAN, |seconds| seconds * 1e3)
}
