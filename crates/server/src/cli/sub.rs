//! `pushwheel sub`: an `EventSource` for terminals.
//!
//! It fails if the first connection fails. After that it reconnects by itself, with
//! the last id that it has seen, until the server has nothing more to send
//! (`204 No Content`).

use std::borrow::Cow;
use std::io::{self, IsTerminal, Read, Write};
use std::thread;
use std::time::Duration;

use clap::Args;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::{Failure, Secret};
use pushwheel_check::http;
use pushwheel_check::stream::{Event, Reader};

/// When to come back if the server does not say: as Chromium does.
const RETRY: Duration = Duration::from_secs(3);

/// A line that is silent for so long is dead: servers send heartbeats, ours
/// every 15 s, the slowest known every 45.
const SILENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The stream's URL, such as <http://127.0.0.1:8080/channels/news>.
    url: String,

    /// Begin after the event with this id; `earliest`: with all there is.
    #[arg(long, value_name = "ID")]
    last_event_id: Option<String>,

    /// Begin with the last N events of the history.
    #[arg(long, value_name = "N", conflicts_with = "last_event_id")]
    #[arg(value_parser = pushwheel_check::numbers::whole::<usize>)]
    last: Option<usize>,

    /// The token, or the key, that the server wants for subscribing.
    #[arg(long, value_name = "TOKEN")]
    #[arg(env = "PUSHWHEEL_TOKEN", hide_env_values = true)]
    token: Option<Secret>,

    #[command(flatten)]
    tls: http::TlsArguments,
}

/// What to do after a stream.
enum Next {
    Return {
        why: String,
        after: Option<Duration>,
        /// Whether there was a server.
        answered: bool,
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
    let mut was_answered = false;
    loop {
        match follow(&agent, &url, arguments.token.as_ref(), &mut reader)? {
            Next::Stop => return Ok(()),
            // Rather a wrong address than a server that is away for a moment.
            Next::Return { why, answered, .. } if !(answered || was_answered) => return Err(why),
            Next::Return { why, after, .. } => {
                was_answered = true;
                let after = after.or(reader.retry).unwrap_or(RETRY);
                log::info!("{why}; reconnecting in {} s", after.as_secs_f64());
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
    let mut answer = match request.call() {
        Ok(answer) => answer,
        Err(error) => {
            return Ok(Next::Return {
                why: format!("cannot connect to {url} {}", http::reason(&error)),
                after: None,
                answered: false,
            });
        }
    };
    match answer.status().as_u16() {
        200 => {}
        204 => return Ok(Next::Stop),
        status => {
            let body = http::read_answer(&mut answer).unwrap_or_default();
            let why = http::refusal(status, &body);
            return match status {
                429 | 500..=599 => {
                    let after = retry_after(&answer);
                    Ok(Next::Return {
                        why,
                        after,
                        answered: true,
                    })
                }
                _ => Err(why),
            };
        }
    }
    let media_type = header(&answer, "content-type").unwrap_or_default();
    if !http::is_stream_type(media_type) {
        return Err(format!(
            "{url} is no event stream but `{media_type}`: the URL of a channel is \
             http://HOST:PORT/channels/NAME"
        ));
    }
    read(answer, reader)
}

fn read(answer: Response<Body>, reader: &mut Reader) -> Result<Next, Failure> {
    reader.restart();
    let mut body = answer.into_body().into_reader();
    let mut buffer = vec![0; 64 << 10];
    let mut text = Vec::new();
    let is_terminal = io::stdout().is_terminal();
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => return Ok(again("the stream has ended")),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(again(&format!("the stream broke off: {error}"))),
        };
        let pushed = reader.push(&buffer[..count], |event| {
            write_event(&mut text, &event, is_terminal);
        });
        let mut out = io::stdout().lock();
        if out.write_all(&text).and_then(|()| out.flush()).is_err() {
            // Whoever read along has gone.
            return Ok(Next::Stop);
        }
        text.clear();
        pushed.map_err(|_| "an event is larger than 64 MiB: this is no place for it".to_owned())?;
    }
}

fn again(why: &str) -> Next {
    Next::Return {
        why: why.to_owned(),
        after: None,
        answered: true,
    }
}

/// Writes an event as a stream has it, so that other tools can read on. For a
/// terminal without the control characters by which a publisher could set its
/// title, move its cursor or have it type.
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

/// Leaves out the control characters of a text (C0, DEL and C1), except tabs.
fn without_controls(text: &str) -> Cow<'_, str> {
    let is_shown = |c: &char| *c == '\t' || !c.is_control();
    match text.chars().all(|c| is_shown(&c)) {
        true => text.into(),
        false => text.chars().filter(is_shown).collect::<String>().into(),
    }
}

fn header<'a>(answer: &'a Response<Body>, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

fn retry_after(answer: &Response<Body>) -> Option<Duration> {
    let seconds = header(answer, "retry-after")?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_printed_as_a_stream_has_them() {
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
