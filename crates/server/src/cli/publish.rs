//! `pushwheel pub`

use std::io::{self, Read, Write};
use std::time::Duration;

use clap::Args;
use pushwheel::Event;
use pushwheel_check::command::{Failure, Secret};
use pushwheel_check::http;
use pushwheel_check::message::Message;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The channel's URL, such as <http://127.0.0.1:8080/channels/news>.
    url: String,
    /// The event's name; "" for none, which a browser hears as `message`.
    event: String,
    /// The event's data, sent as it is; - reads it from the standard input.
    #[arg(allow_hyphen_values = true)]
    data: String,

    /// The event's id [default: the server gives one].
    #[arg(long)]
    id: Option<String>,

    /// After how long a browser that loses its stream is to come back.
    #[arg(long, value_name = "MILLISECONDS", value_parser = pushwheel_check::numbers::whole::<u64>)]
    retry: Option<u64>,

    /// For a channel that conflates: of the events with one key, only the newest
    /// is kept for clients that are behind.
    #[arg(long, value_name = "KEY")]
    conflation_key: Option<String>,

    /// Remove the conflation key: new clients do not receive its last event any
    /// more. Connected clients receive this event, or, if its name and data are
    /// empty, `pushwheel.removed`.
    #[arg(long, requires = "conflation_key")]
    remove: bool,

    /// The key, or the token, that the server wants for publishing.
    #[arg(long, value_name = "KEY")]
    #[arg(env = "PUSHWHEEL_PUBLISH_KEY", hide_env_values = true)]
    publish_key: Option<Secret>,

    /// Publish to the client with this id alone.
    #[arg(long, value_name = "ID")]
    client: Option<String>,

    #[command(flatten)]
    tls: http::TlsArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    http::check_url(&arguments.url)?;
    let mut url = arguments.url.clone();
    if let Some(client) = &arguments.client {
        url = http::with_parameter(&url, "client", client);
    }
    let mut data = arguments.data.clone();
    if data == "-" {
        data.clear();
        let read = io::stdin().read_to_string(&mut data);
        read.map_err(|error| format!("the data cannot be read: {error}"))?;
    }
    let is_plain_removal = arguments.remove && arguments.event.is_empty() && data.is_empty();
    let removed = arguments.conflation_key.as_deref();
    let removal = removed.filter(|_| is_plain_removal).map(Event::removal);
    let (event, data) = match &removal {
        Some(removal) => (removal.name().unwrap_or_default(), removal.data()),
        None => (&*arguments.event, &*data),
    };
    let message = Message {
        event,
        data,
        id: arguments.id.as_deref(),
        retry: arguments.retry,
        key: arguments.conflation_key.as_deref(),
        remove: arguments.remove,
    };
    let body = message.to_json();

    let failed = |error: ureq::Error| format!("cannot publish to {url} {}", http::reason(&error));
    let mut request = http::agent(Duration::from_secs(30), &arguments.tls)?
        .post(&url)
        .header("Content-Type", "application/json");
    if let Some(Secret(key)) = &arguments.publish_key {
        request = request.header("Authorization", format!("Bearer {key}"));
    }
    let answer = request.send(&body[..]);
    let mut answer = answer.map_err(failed)?;
    let body = http::read_answer(&mut answer).map_err(failed)?;
    let status = answer.status().as_u16();
    if status != 200 {
        return Err(http::refusal(status, &body));
    }
    let printed = writeln!(io::stdout(), "{}", body.trim_end());
    printed.map_err(|error| format!("published, but the answer cannot be printed: {error}"))
}
