//! `pushwheel pub`

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use pushwheel::Event;
use pushwheel_check::command::{Failure, Secret};
use pushwheel_check::files;
use pushwheel_check::http::{self, Credential};
use pushwheel_check::message::Message;

#[derive(Debug, Args)]
#[command(
    override_usage = "pushwheel pub [OPTIONS] <URL> <EVENT> <DATA>\n       \
                            pushwheel pub [OPTIONS] <URL> --file <FILE>"
)]
pub(crate) struct Arguments {
    /// URL of the channel, such as <http://127.0.0.1:8080/channels/news>
    ///
    /// A URL with `/channels?channel=a&channel=b` publishes to several channels, and one with
    /// `/channels` to all.
    url: String,
    /// Name of the event; "" for none (a browser dispatches `message`)
    #[arg(required_unless_present = "file")]
    event: Option<String>,
    /// Data of the event; - reads it from standard input
    #[arg(allow_hyphen_values = true, required_unless_present = "file")]
    data: Option<String>,

    /// File with a batch of events instead of one; - reads standard input
    ///
    /// Each line is a JSON object: data, and optionally event, id, retry, key, remove.
    /// The server publishes all events or none.
    #[arg(long, value_name = "FILE")]
    #[arg(conflicts_with_all = ["event", "data", "id", "retry", "conflation_key"])]
    file: Option<PathBuf>,

    /// Id of the event [default: assigned by the server]
    #[arg(long)]
    id: Option<String>,

    /// Time before a browser reconnects after it loses the stream, in milliseconds
    #[arg(long, value_name = "MILLISECONDS", value_parser = pushwheel_check::numbers::whole::<u64>)]
    retry: Option<u64>,

    /// Key of the event, on a channel with the lag policy conflate
    ///
    /// Only the newest event of each key is kept for clients that lag or reconnect.
    #[arg(long, value_name = "KEY")]
    conflation_key: Option<String>,

    /// Remove the key from the channel's kept state
    ///
    /// New clients no longer receive its last event. Connected clients receive this
    /// event, or `pushwheel.removed` if its name and data are empty.
    #[arg(long, requires = "conflation_key")]
    remove: bool,

    /// Publish key, admin key or token for publishing
    #[arg(long, value_name = "KEY")]
    #[arg(env = "PUSHWHEEL_PUBLISH_KEY", hide_env_values = true)]
    publish_key: Option<Secret>,

    /// File with the key or token; takes precedence over --publish-key
    #[arg(long, value_name = "FILE")]
    publish_key_file: Option<PathBuf>,

    /// Id of the only client to publish to
    #[arg(long, value_name = "ID")]
    client: Option<String>,

    /// Metadata that a client needs in order to receive the event
    ///
    /// May be repeated: all conditions have to match.
    #[arg(long = "where", value_name = "FIELD=VALUE", value_parser = condition)]
    #[arg(conflicts_with = "client")]
    conditions: Vec<(String, String)>,

    /// Metadata of the clients that do not receive the event
    ///
    /// May be repeated.
    #[arg(long, value_name = "FIELD=VALUE", value_parser = condition)]
    #[arg(conflicts_with = "client")]
    not: Vec<(String, String)>,

    #[command(flatten)]
    tls: http::TlsArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    http::check_url(&arguments.url)?;
    let mut url = arguments.url.clone();
    if let Some(client) = &arguments.client {
        url = http::with_parameter(&url, "client", client);
    }
    for (kind, conditions) in [("where", &arguments.conditions), ("not", &arguments.not)] {
        for (field, value) in conditions {
            url = http::with_parameter(&url, &format!("{kind}.{field}"), value);
        }
    }
    let (media_type, body) = match &arguments.file {
        Some(file) => ("application/x-ndjson", batch(file)?),
        None => ("application/json", message(arguments)?),
    };
    let key = match &arguments.publish_key_file {
        Some(file) => Some(Secret::read("--publish-key-file", file)?),
        None => arguments.publish_key.clone(),
    };

    let failed = |error: ureq::Error| format!("cannot publish to {url} {}", http::reason(&error));
    let mut request = http::agent(Duration::from_secs(30), &arguments.tls)?
        .post(&url)
        .header("Content-Type", media_type);
    if let Some(Secret(key)) = &key {
        request = request.header("Authorization", format!("Bearer {key}"));
    }
    let response = request.send(&body[..]);
    let mut response = response.map_err(failed)?;
    let body = http::read_response(&mut response).map_err(failed)?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(http::rejection(status, &body, Credential::PublishKey));
    }
    let printed = writeln!(io::stdout(), "{}", body.trim_end());
    printed.map_err(|error| format!("published, but cannot print the response ({error})"))
}

/// Returns the body for one event.
fn message(arguments: &Arguments) -> Result<Vec<u8>, Failure> {
    let name = arguments.event.as_deref().unwrap_or_default();
    let data = match arguments.data.as_deref().unwrap_or_default() {
        "-" => {
            let read = io::read_to_string(io::stdin());
            read.map_err(|error| format!("cannot read the data from standard input ({error})"))?
        }
        data => data.to_owned(),
    };
    let is_plain_removal = arguments.remove && name.is_empty() && data.is_empty();
    let removed = arguments.conflation_key.as_deref();
    let removal = removed.filter(|_| is_plain_removal).map(Event::removal);
    let (event, data) = match &removal {
        Some(removal) => (removal.name().unwrap_or_default(), removal.data()),
        None => (name, &*data),
    };
    let message = Message {
        event,
        data,
        id: arguments.id.as_deref(),
        retry: arguments.retry,
        key: arguments.conflation_key.as_deref(),
        remove: arguments.remove,
    };
    Ok(message.to_json())
}

/// Reads a batch of events.
fn batch(file: &Path) -> Result<Vec<u8>, Failure> {
    if file.as_os_str() == "-" {
        let mut body = Vec::new();
        let read = io::stdin().read_to_end(&mut body);
        let failed = |error| format!("cannot read the events from standard input ({error})");
        return read.map(|_| body).map_err(failed);
    }
    fs::read(file).map_err(|error| {
        let (file, reason) = (file.display(), files::reason_to_read(&error));
        format!("cannot read --file {file} {reason}")
    })
}

/// Parses a condition on the metadata of clients.
fn condition(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((field, value)) if !field.is_empty() => Ok((field.to_owned(), value.to_owned())),
        _ => Err("use FIELD=VALUE, such as role=admin"),
    }
}
