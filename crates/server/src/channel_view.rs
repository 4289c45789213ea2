//! Viewing the settings of one channel.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::clock::as_ms;
use super::context::Context;
use super::errors::Problem;
use super::manage::channel;
use pushwheel::{ChannelOptions, LagPolicy, Request, Response};

/// `GET /channels/{channel}/settings`
pub(super) fn settings(request: &Request, context: &Context) -> Result<Response, Problem> {
    let channel = channel(request)?;
    let options = channel.options();
    let options = options.ok_or_else(|| Problem::no_channel(channel.name()))?;
    let config = context.config();
    let mut patterns = config.patterns.iter();
    let pattern = patterns.find(|pattern| pattern.matches(channel.name()));
    Ok(Response::json(&SettingsBody {
        pattern: pattern.map(ToString::to_string),
        public: config.access.is_open(channel.name()),
        raw: config.is_raw(channel.name()),
        ..SettingsBody::from(&options)
    }))
}

/// The settings of a channel, with the names of the configuration file.
#[derive(Default, Serialize)]
struct SettingsBody {
    /// The pattern of the table that applies; `None` if only the general settings do.
    pattern: Option<String>,
    /// Whether subscribing needs no token.
    public: bool,
    /// Whether each published body is the data of one event.
    raw: bool,
    history_events: usize,
    history_bytes: usize,
    history_age: Option<f64>,
    finished_for: f64,
    heartbeat: Option<f64>,
    max_clients_per_channel: Option<usize>,
    lag_policy: &'static str,
    keyed_events: usize,
    keyed_bytes: usize,
    keyed_age: Option<f64>,
    pace_ms: Option<u64>,
    backlog_bytes: usize,
    max_event_bytes: usize,
    stream_header: BTreeMap<String, String>,
    compress_from_bytes: Option<usize>,
    metadata_index: Vec<String>,
    publish_rate: Option<f64>,
}

impl From<&ChannelOptions> for SettingsBody {
    fn from(options: &ChannelOptions) -> SettingsBody {
        let age = |time: Duration| (time != Duration::MAX).then_some(time.as_secs_f64());
        let headers = options.headers.iter();
        SettingsBody {
            history_events: options.history.events_max,
            history_bytes: options.history.bytes_max,
            history_age: age(options.history.age_max),
            finished_for: options.finished_for.as_secs_f64(),
            heartbeat: options.heartbeat.map(|time| time.as_secs_f64()),
            max_clients_per_channel: Some(options.clients_max).filter(|max| *max < usize::MAX),
            lag_policy: match options.lag_policy {
                LagPolicy::Skip => "skip",
                LagPolicy::Conflate => "conflate",
                _ => "disconnect",
            },
            keyed_events: options.keyed_state.keys_max,
            keyed_bytes: options.keyed_state.bytes_max,
            keyed_age: age(options.keyed_state.age_max),
            pace_ms: options.pace.map(as_ms),
            backlog_bytes: options.backlog_bytes_max,
            max_event_bytes: options.event_bytes_max,
            stream_header: headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            compress_from_bytes: options.compress_from,
            metadata_index: options.indexed.iter().map(ToString::to_string).collect(),
            publish_rate: options.publish_rate.map(|rate| rate.per_second),
            ..SettingsBody::default()
        }
    }
}
