//! `pushwheel sub`: an `EventSource` for terminals.
//!
//! It fails if the first connection fails. After that it reconnects with the last id
//! that it has received, until the server has nothing more to send (`204 No Content`).

use std::borrow::Cow;
use std::io::{self, IsTerminal, Read, Write};
use std::thread;
use std::time::Duration;

use clap::Args;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::{Failure, Secret};
use pushwheel_check::http::{self, Credential};
use pushwheel_check::stream::{Event, Reader};

/// The delay before a reconnection if the server sends no `retry:`, as in Chromium.
const RETRY: Duration = Duration::from_secs(3);

/// A connection that is silent for longer is dead. Servers send heartbeats: pushwheel
/// every 15 s, the slowest known one every 45 s.
const SILENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// URL of the stream, such as <http://127.0.0.1:8080/channels/news>
    url: String,

    /// Id of the event to start after; `earliest` for all kept events
    #[arg(long, value_name = "ID")]
    last_event_id: Option<String>,

    /// Number of kept events to start with
    #[arg(long, value_name = "N", conflicts_with = "last_event_id")]
    #[arg(value_parser = pushwheel_check::numbers::whole::<usize>)]
    last: Option<usize>,

    /// Token or key for subscribing
    #[arg(long, value_name = "TOKEN")]
    #[arg(env = "PUSHWHEEL_TOKEN", hide_env_values = true)]
    token: Option<Secret>,

    #[command(flatten)]
    tls: http::TlsArguments,
}

/// What to do after a stream.
enum Next {
    Reconnect {
        why: String,
        after: Option<Duration>,
        /// Whether the server has responded.
        responded: bool,
    },
    Stop,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    http::check_url(&arguments.url)?;
    let agent = http::agent(SILENCE, &arguments.tls)?;
    let mut url = arguments.url.clone();
    let mut reader = Reader::default();
    match (&arguments.last_event_id, arguments.last) {
        (Some(id), _) if id == "earliest" => url = http::with_parameter(&url, "last_event_id", id),
        (Some(id), _) => reader.last_id = Some(id.clone()),
        (None, Some(count)) => url = http::with_parameter(&url, "last", &count.to_string()),
        (None, None) => {}
    }
    let mut has_responded = false;
    loop {
        match follow(&agent, &url, arguments.token.as_ref(), &mut reader)? {
            Next::Stop => return Ok(()),
            // At the first connection a wrong address is more likely than an outage.
            Next::Reconnect { why, responded, .. } if !(responded || has_responded) => {
                return Err(why);
            }
            Next::Reconnect { why, after, .. } => {
                has_responded = true;
                let after = after.or(reader.retry).unwrap_or(RETRY);
                log::info!("{why}. Reconnecting in {} s", after.as_secs_f64());
                pause(after);
            }
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "there is nothing else to wait for"
)]
fn pause(time: Duration) {
    thread::sleep(time);
}

/// Reads one stream to its end.
fn follow(
    agent: &Agent,
    url: &str,
    token: Option<&Secret>,
    reader: &mut Reader,
) -> Result<Next, Failure> {
    let mut request = agent
        .get(url)
        .header("Accept", http::STREAM_TYPE)
        .header("Cache-Control", http::STREAM_CACHING);
    if let Some(Secret(token)) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    if let Some(id) = &reader.last_id {
        request = request.header("Last-Event-ID", id);
    }
    let mut response = match request.call() {
        Ok(response) => response,
        Err(error) => {
            return Ok(Next::Reconnect {
                why: format!("cannot connect to {url} {}", http::reason(&error)),
                after: None,
                responded: false,
            });
        }
    };
    match response.status().as_u16() {
        200 => {}
        204 => return Ok(Next::Stop),
        status => {
            let body = http::read_response(&mut response).unwrap_or_default();
            let why = http::rejection(status, &body, Credential::Token);
            return match status {
                429 | 500..=599 => {
                    let after = retry_after(&response);
                    Ok(Next::Reconnect {
                        why,
                        after,
                        responded: true,
                    })
                }
                _ => Err(why),
            };
        }
    }
    let media_type = header(&response, "content-type").unwrap_or_default();
    if !http::is_stream_type(media_type) {
        return Err(format!(
            "{url} is not an event stream (Content-Type: {media_type}). The URL of a channel is \
             http://HOST:PORT/channels/NAME"
        ));
    }
    read(response, reader)
}

fn read(response: Response<Body>, reader: &mut Reader) -> Result<Next, Failure> {
    reader.restart();
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 64 << 10];
    let mut text = Vec::new();
    let is_terminal = io::stdout().is_terminal();
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => return Ok(again("the stream ended")),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(again(&format!("the stream broke ({error})"))),
        };
        let pushed = reader.push(&buffer[..count], |event| {
            write_event(&mut text, &event, is_terminal);
        });
        let mut out = io::stdout().lock();
        if out.write_all(&text).and_then(|()| out.flush()).is_err() {
            // The reader of the output has closed it.
            return Ok(Next::Stop);
        }
        text.clear();
        pushed.map_err(|_| {
            "an event is larger than 64 MiB. Check the URL: this is not a normal event stream"
                .to_owned()
        })?;
    }
}

fn again(why: &str) -> Next {
    Next::Reconnect {
        why: why.to_owned(),
        after: None,
        responded: true,
    }
}

/// Writes an event in the format of a stream, for other tools. On a terminal, control
/// characters are left out: a publisher could set its title, move its cursor or make it
/// type.
fn write_event(out: &mut Vec<u8>, event: &Event, is_terminal: bool) {
    let mut field = |name: &str, value: &str| {
        let value = match is_terminal {
            true => without_controls(value),
            false => value.into(),
        };
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.push(b'\n');
    };
    if let Some(id) = &event.id {
        field("id", id);
    }
    if !event.name.is_empty() {
        field("event", &event.name);
    }
    for line in event.data.split('\n') {
        field("data", line);
    }
    out.push(b'\n');
}

/// Returns the text without control characters (C0, DEL and C1), except tabs.
fn without_controls(text: &str) -> Cow<'_, str> {
    let is_shown = |c: &char| *c == '\t' || !c.is_control();
    match text.chars().all(|c| is_shown(&c)) {
        true => text.into(),
        false => text.chars().filter(is_shown).collect::<String>().into(),
    }
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds = header(response, "retry-after")?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_printed_in_the_format_of_a_stream() {
        let event = Event {
            name: "news".into(),
            id: Some("k-1".into()),
            data: "a\n b\n".into(),
        };
        let mut out = Vec::new();
        write_event(&mut out, &event, false);
        assert_eq!(out, b"id: k-1\nevent: news\ndata: a\ndata:  b\ndata: \n\n");
    }

    #[test]
    fn a_terminal_gets_no_control_characters() {
        let title = "\u{1b}]0;owned\u{7}";
        let event = Event {
            name: format!("n{title}"),
            id: Some(format!("i\u{9b}2J{title}")),
            data: format!("a\tb\r{title}\u{1b}[2J\n\u{7f}ü\u{85}"),
        };
        let printed = |is_terminal| {
            let mut out = Vec::new();
            write_event(&mut out, &event, is_terminal);
            String::from_utf8(out).unwrap()
        };
        let shown = "id: i2J]0;owned\nevent: n]0;owned\ndata: a\tb]0;owned[2J\ndata: ü\n\n";
        assert_eq!(printed(true), shown);
        // Another program gets what was published.
        assert!(printed(false).contains(title));
    }
}
