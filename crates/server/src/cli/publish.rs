//! `pushwheel pub`

use std::io::{self, Read, Write};
use std::time::Duration;

use clap::Args;
use pushwheel::Event;
use pushwheel_check::command::{Failure, Secret};
use pushwheel_check::http::{self, Credential};
use pushwheel_check::message::Message;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// URL of the channel, such as <http://127.0.0.1:8080/channels/news>
    url: String,
    /// Name of the event; "" for none (a browser dispatches `message`)
    event: String,
    /// Data of the event; - reads it from standard input
    #[arg(allow_hyphen_values = true)]
    data: String,

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

    /// Id of the only client to publish to
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
        read.map_err(|error| format!("cannot read the data from standard input ({error})"))?;
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
