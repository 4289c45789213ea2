//! `pushwheel health`: a health check for containers and machines without curl.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use pushwheel_check::http::{self, Credential};
use pushwheel_check::numbers::{HOUR_S, seconds};
use ureq::Agent;

use super::Failure;
use super::serve::announcing::reachable;
use super::serve::unix_path;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// URL of the server, such as <https://push.example> [default: the server on --listen]
    url: Option<String>,

    /// Check whether the server has room for more clients (/ready instead of /health)
    #[arg(long)]
    ready: bool,

    /// Maximum time until the response, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    #[arg(value_parser = seconds(1..=HOUR_S))]
    timeout: u64,

    /// Listen address of the server on this machine, for a check without URL
    ///
    /// An address and a port, or `unix:PATH`. Of several, the first is checked.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    #[arg(env = "PUSHWHEEL_LISTEN", value_delimiter = ',')]
    listen: Vec<String>,

    #[command(flatten)]
    tls: http::TlsArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let time = Duration::from_secs(arguments.timeout);
    let path = if arguments.ready { "/ready" } else { "/health" };
    let listen = arguments.listen.first().map_or("", |listen| listen);
    if let (None, Some(socket)) = (&arguments.url, unix_path(listen)) {
        return check_socket(socket, path, time);
    }
    let mut config = http::config(time, &arguments.tls)?.timeout_global(Some(time));
    let server = match &arguments.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => {
            // The variables of a proxy are for other machines.
            config = config.proxy(None);
            format!("http://{}", reached(listen))
        }
    };
    http::check_url(&server).map_err(|_| {
        format!("{server} is not a URL with http:// or https://. Use for example {EXAMPLE}")
    })?;
    let url = format!("{server}{path}");
    let failed = |error: ureq::Error| format!("cannot check {url} {}", http::reason(&error));
    let response = Agent::new_with_config(config.build()).get(&url).call();
    let mut response = response.map_err(failed)?;
    let body = http::read_response(&mut response).map_err(failed)?;
    match response.status().as_u16() {
        404 => Err(format!(
            "{url} does not exist (404). Use the URL of the server, such as {EXAMPLE}"
        )),
        status => result_of(status, &body),
    }
}

fn result_of(status: u16, body: &str) -> Result<(), Failure> {
    match status {
        200 => Ok(()),
        status => Err(http::rejection(status, body, Credential::Token)),
    }
}

/// Checks a server on a UNIX socket.
fn check_socket(socket: &Path, path: &str, time: Duration) -> Result<(), Failure> {
    let response = ask_socket(socket, path, time).map_err(|error| {
        let cause = match error.kind() {
            io::ErrorKind::WouldBlock => "timeout".to_owned(),
            _ => error.to_string(),
        };
        let socket = socket.display();
        format!("cannot check unix:{socket} ({cause}). Is the server running, on this path?")
    })?;
    let status = response.get(9..12).and_then(|digits| digits.parse().ok());
    let (_, body) = response.split_once("\r\n\r\n").unwrap_or_default();
    result_of(status.unwrap_or(0), body)
}

/// Sends a request and returns the response. Each wait takes at most `time`.
fn ask_socket(socket: &Path, path: &str, time: Duration) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(time))?;
    stream.set_write_timeout(Some(time))?;
    let head = "Host: localhost\r\nConnection: close\r\n\r\n";
    write!(stream, "GET {path} HTTP/1.1\r\n{head}")?;
    let mut response = String::new();
    stream
        .take(RESPONSE_BYTES_MAX)
        .read_to_string(&mut response)?;
    Ok(response)
}

const RESPONSE_BYTES_MAX: u64 = 64 << 10;

const EXAMPLE: &str = "http://127.0.0.1:8080";

/// Returns an address that reaches the listen address from this machine.
fn reached(listen: &str) -> String {
    listen.parse().map_or_else(
        |_| listen.to_owned(),
        |address| reachable(address).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_all_interfaces_is_reached_through_loopback() {
        for (listen, wanted) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("localhost:80", "localhost:80"),
        ] {
            assert_eq!(reached(listen), wanted);
        }
    }
}
