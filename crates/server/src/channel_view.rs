//! Viewing one channel: its settings, and the events of its history, without a stream.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::context::Context;
use super::errors::Problem;
use super::manage::channel;
use super::parameters;
use pushwheel::{ChannelOptions, LAST_MAX, LagPolicy, Request, Response, Start, StoredEvent};

/// The number of events without `last`.
const EVENTS_DEFAULT: usize = 100;

/// Maximum bytes of data in a response, except that one event always has room.
const DATA_BYTES_MAX: usize = 4 << 20;

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
        ..SettingsBody::from(&options)
    }))
}

/// `GET /channels/{channel}/history?last=N`
pub(super) fn history(request: &Request) -> Result<Response, Problem> {
    let channel = channel(request)?;
    let mut last = EVENTS_DEFAULT;
    for (name, value) in request.query_pairs() {
        match &*name {
            "last" => last = count_of(&value)?,
            _ => return Err(Problem::parameter_of_history(&name)),
        }
    }
    let mut reader = channel.read(Start::Last(last));
    let mut newest: VecDeque<StoredEvent> = VecDeque::new();
    let mut bytes = 0;
    // A history that has lost its oldest events meanwhile is a shorter history.
    for stored in reader.by_ref().flatten() {
        bytes += stored.event.data().len();
        newest.push_back(stored);
        while bytes > DATA_BYTES_MAX && newest.len() > 1 {
            let oldest = newest.pop_front();
            bytes -= oldest.map_or(0, |stored| stored.event.data().len());
        }
    }
    let events: Vec<EventBody<'_>> = newest.iter().map(EventBody::from).collect();
    let response = Response::json(&events);
    let response = response.with_header("Last-Event-ID", reader.position().to_string());
    Ok(response.expect("an id is valid in a header"))
}

/// Reads the value of `last`.
fn count_of(text: &str) -> Result<usize, Problem> {
    let count = parameters::whole(text).filter(|count| *count <= LAST_MAX);
    count.ok_or_else(|| {
        let wanted = format!("a number of events, at most {LAST_MAX}, as in ?last=10");
        Problem::parameter("last", &wanted)
    })
}

/// The settings of a channel, with the names of the configuration file.
#[derive(Default, Serialize)]
struct SettingsBody {
    /// The pattern of the table that applies; `None` if only the general settings do.
    pattern: Option<String>,
    /// Whether subscribing needs no token.
    public: bool,
    history_events: usize,
    history_bytes: usize,
    history_age: Option<f64>,
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
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let headers = options.headers.iter();
        SettingsBody {
            history_events: options.history.events_max,
            history_bytes: options.history.bytes_max,
            history_age: age(options.history.age_max),
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
            pace_ms: options.pace.map(ms),
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

#[derive(Serialize)]
struct EventBody<'a> {
    id: String,
    at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    data: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

impl<'a> From<&'a StoredEvent> for EventBody<'a> {
    fn from(stored: &'a StoredEvent) -> EventBody<'a> {
        EventBody {
            id: stored.id.to_string(),
            at: time(stored.at),
            event: stored.event.name(),
            data: stored.event.data(),
            key: stored.event.key(),
        }
    }
}

/// Returns a time as `2026-02-03T04:05:06.789Z`, or `None` beyond the year 9999.
fn time(at: SystemTime) -> Option<String> {
    let time = jiff::Timestamp::try_from(at).ok()?;
    let time = jiff::Timestamp::from_millisecond(time.as_millisecond()).ok()?;
    Some(format!("{time:.3}"))
}
