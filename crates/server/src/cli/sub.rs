//! `pushwheel sub`: an `EventSource` for terminals.
//!
//! It fails if the first connection fails. After that it reconnects with the last id
//! that it has received, until the server has nothing more to send (`204 No Content`).
//! `--retry` limits both.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::{Failure, Secret};
use pushwheel_check::http::{self, Credential};
use pushwheel_check::numbers::{from_one, whole};
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
    #[arg(value_parser = whole::<usize>)]
    last: Option<usize>,

    /// Number of events to print before exiting [default: no limit]
    ///
    /// Counts every printed event, those of the server such as `pushwheel.gap` too.
    #[arg(long, value_name = "N", value_parser = from_one::<u64>)]
    count: Option<u64>,

    /// Maximum reconnections in a row that open no stream
    ///
    /// Also applies to the first connection. [default: 0 for the first connection, no
    /// limit later]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    retry: Option<u64>,

    /// Print each event as a JSON object on one line
    ///
    /// Fields: data, and if present id and event; channel, if the URL names one channel.
    #[arg(long)]
    json: bool,

    /// Token or key for subscribing
    #[arg(long, value_name = "TOKEN")]
    #[arg(env = "PUSHWHEEL_TOKEN", hide_env_values = true)]
    token: Option<Secret>,

    /// File with the token or key; takes precedence over --token
    ///
    /// Read before each connection, so that another program can renew the token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    tls: http::TlsArguments,
}

/// What to do after a stream.
enum Next {
    Reconnect {
        why: String,
        after: Option<Duration>,
        response: Received,
    },
    Stop,
}

/// The response to a request for a stream.
#[derive(Clone, Copy, PartialEq)]
enum Received {
    Nothing,
    Error,
    Stream,
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
    let mut printer = Printer::new(arguments);
    // At the first connection a wrong address is more likely than an outage.
    let mut retries_max = arguments.retry.unwrap_or(0);
    let mut retries = 0;
    loop {
        let token = match &arguments.token_file {
            Some(file) => Some(Secret::read("--token-file", file)?),
            None => arguments.token.clone(),
        };
        let next = follow(&agent, &url, token.as_ref(), &mut reader, &mut printer)?;
        let Next::Reconnect {
            why,
            after,
            response,
        } = next
        else {
            return Ok(());
        };
        if response != Received::Nothing {
            retries_max = arguments.retry.unwrap_or(u64::MAX);
        }
        if response == Received::Stream {
            retries = 0;
        }
        if retries == retries_max {
            return Err(match retries {
                0 => why,
                1 => format!("{why} (gave up after 1 reconnection)"),
                _ => format!("{why} (gave up after {retries} reconnections)"),
            });
        }
        retries += 1;
        let after = after.or(reader.retry).unwrap_or(RETRY);
        // Some causes end with a question.
        let stop = if why.ends_with('?') { "" } else { "." };
        log::info!("{why}{stop} Reconnecting in {} s", after.as_secs_f64());
        pause(after);
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
    printer: &mut Printer,
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
                response: Received::Nothing,
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
                        response: Received::Error,
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
    read(response, reader, printer)
}

fn read(
    response: Response<Body>,
    reader: &mut Reader,
    printer: &mut Printer,
) -> Result<Next, Failure> {
    reader.restart();
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => return Ok(again("the stream ended")),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(again(&format!("the stream broke ({error})"))),
        };
        let pushed = reader.push(&buffer[..count], |event| printer.add(&event));
        // A failure means that the reader of the output has closed it.
        if printer.flush().is_err() || printer.left == Some(0) {
            return Ok(Next::Stop);
        }
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
        response: Received::Stream,
    }
}

/// Prints events.
struct Printer {
    is_json: bool,
    /// The channel that the URL names.
    channel: Option<String>,
    /// On a terminal, control characters are left out: a publisher could set its title,
    /// move its cursor or make it type.
    is_terminal: bool,
    /// The number of events that are still to be printed, if it is limited.
    left: Option<u64>,
    text: Vec<u8>,
}

impl Printer {
    fn new(arguments: &Arguments) -> Printer {
        Printer {
            is_json: arguments.json,
            channel: channel_of(&arguments.url),
            is_terminal: io::stdout().is_terminal(),
            left: arguments.count,
            text: Vec::new(),
        }
    }

    /// Adds an event to the text, unless all events have been printed.
    fn add(&mut self, event: &Event) {
        match &mut self.left {
            Some(0) => return,
            Some(left) => *left -= 1,
            None => {}
        }
        match self.is_json {
            true => self.add_json(event),
            false => self.add_block(event),
        }
    }

    /// Writes an event in the format of a stream, for other tools.
    fn add_block(&mut self, event: &Event) {
        if let Some(id) = &event.id {
            self.line("id: ", id);
        }
        if !event.name.is_empty() {
            self.line("event: ", &event.name);
        }
        for line in event.data.split('\n') {
            self.line("data: ", line);
        }
        self.text.push(b'\n');
    }

    fn add_json(&mut self, event: &Event) {
        let object = Object {
            channel: self.channel.as_deref(),
            id: event.id.as_deref(),
            event: &event.name,
            data: &event.data,
        };
        let json = serde_json::to_string(&object).expect("strings are JSON");
        self.line("", &json);
    }

    fn line(&mut self, field: &str, value: &str) {
        let value = match self.is_terminal {
            true => without_controls(value),
            false => value.into(),
        };
        self.text.extend_from_slice(field.as_bytes());
        self.text.extend_from_slice(value.as_bytes());
        self.text.push(b'\n');
    }

    /// Prints the text.
    fn flush(&mut self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(&self.text)?;
        self.text.clear();
        out.flush()
    }
}

/// An event of `--json`.
#[derive(Serialize)]
struct Object<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    event: &'a str,
    data: &'a str,
}

/// Returns the channel in a URL that ends with `/channels/NAME`.
fn channel_of(url: &str) -> Option<String> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let (_, name) = path.rsplit_once("/channels/")?;
    let name = percent_decode_str(name).decode_utf8().ok()?;
    (!name.is_empty()).then(|| name.into_owned())
}

/// Returns the text without control characters (C0, DEL and C1), except tabs.
pub(super) fn without_controls(text: &str) -> Cow<'_, str> {
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

    fn printed(event: &Event, is_json: bool, is_terminal: bool) -> String {
        let mut printer = Printer {
            is_json,
            channel: Some("c".into()),
            is_terminal,
            left: None,
            text: Vec::new(),
        };
        printer.add(event);
        String::from_utf8(printer.text).unwrap()
    }

    #[test]
    fn events_are_printed_in_the_format_of_a_stream_or_as_json() {
        let event = Event {
            name: "news".into(),
            id: Some("k-1".into()),
            data: "a\n b\n".into(),
        };
        let block = "id: k-1\nevent: news\ndata: a\ndata:  b\ndata: \n\n";
        assert_eq!(printed(&event, false, false), block);
        let json = r#"{"channel":"c","id":"k-1","event":"news","data":"a\n b\n"}"#;
        assert_eq!(printed(&event, true, false), format!("{json}\n"));
        let json = r#"{"channel":"c","data":""}"#;
        assert_eq!(printed(&Event::default(), true, false), format!("{json}\n"));
    }

    #[test]
    fn a_terminal_gets_no_control_characters() {
        let title = "\u{1b}]0;owned\u{7}";
        let event = Event {
            name: format!("n{title}"),
            id: Some(format!("i\u{9b}2J{title}")),
            data: format!("a\tb\r{title}\u{1b}[2J\n\u{7f}ü\u{85}"),
        };
        let shown = "id: i2J]0;owned\nevent: n]0;owned\ndata: a\tb]0;owned[2J\ndata: ü\n\n";
        assert_eq!(printed(&event, false, true), shown);
        let json = printed(&event, true, true);
        assert!(!json.trim_end().contains(char::is_control), "{json}");
        // Another program gets what was published.
        assert!(printed(&event, false, false).contains(title));
    }

    #[test]
    fn the_channel_is_the_end_of_the_path() {
        for (url, channel) in [
            ("http://h/channels/a?last=1", Some("a")),
            ("http://h/push/channels/order%207", Some("order 7")),
            ("http://h/events?channel=a", None),
            ("http://h/channels/", None),
        ] {
            assert_eq!(channel_of(url).as_deref(), channel, "{url}");
        }
    }
}
