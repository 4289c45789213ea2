//! How public values serialise: ids and reasons as their text, figures as maps of
//! their fields, times as whole numbers with the unit in the name.
//!
//! The implementations are written out because the derive macro would be a
//! dependency of every embedder. Each one names all fields of its type, so that the
//! compiler reports a field that is missing.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::ser::{Serialize, SerializeMap, SerializeSeq, SerializeStruct, Serializer};

use crate::hub::client::{ClientId, ClientInfo, DisconnectReason};
use crate::hub::gap::{Gap, GapReason};
use crate::hub::id::EventId;
use crate::hub::page::{Page, PagedEvent};
use crate::hub::published::Published;
use crate::hub::reader::StoredEvent;
use crate::hub::stats::{ChannelStats, Stats};
use crate::metrics::{Backlog, Histogram, Metrics};

macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

as_text!(EventId, ClientId, DisconnectReason, GapReason);

/// Implements `Serialize` for a struct. Each field is written under its own name,
/// unless another name and value follow it.
macro_rules! as_fields {
    ($type:ident { $($field:ident $(as $name:literal = $value:expr)?),* $(,)? }) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let $type { $($field),* } = self;
                let count = [$(stringify!($field)),*].len();
                let mut fields = serializer.serialize_struct(stringify!($type), count)?;
                $(as_fields!(@write fields, $field $(, $name, $value)?);)*
                fields.end()
            }
        }
    };
    (@write $fields:ident, $field:ident) => {
        $fields.serialize_field(stringify!($field), $field)?
    };
    (@write $fields:ident, $field:ident, $name:literal, $value:expr) => {
        $fields.serialize_field($name, &$value($field))?
    };
}

as_fields!(Gap {
    requested,
    oldest,
    newest,
    reason,
});

/// The fields of the event are named as in the JSON of a publish.
impl Serialize for StoredEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let StoredEvent { id, at, event } = self;
        let mut fields = serializer.serialize_struct("StoredEvent", 6)?;
        fields.serialize_field("id", id)?;
        fields.serialize_field("event", &event.name())?;
        fields.serialize_field("data", event.data())?;
        fields.serialize_field("key", &event.key())?;
        fields.serialize_field("retry", &event.retry().map(|retry| as_ms(&retry)))?;
        fields.serialize_field("at_ms", &since_1970_ms(at))?;
        fields.end()
    }
}

impl Serialize for Page {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Page {
            events,
            newest,
            gap,
            is_finished,
            has_more,
            reached: _,
        } = self;
        let mut fields = serializer.serialize_struct("Page", 5)?;
        fields.serialize_field("events", events)?;
        fields.serialize_field("newest", newest)?;
        fields.serialize_field("gap", gap)?;
        fields.serialize_field("finished", is_finished)?;
        fields.serialize_field("more", has_more)?;
        fields.end()
    }
}

/// An event without a name has no `event`, as in the JSON of a publish.
impl Serialize for PagedEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let PagedEvent {
            channel_index: _,
            channel,
            id,
            at,
            event,
        } = self;
        let mut fields = serializer.serialize_map(None)?;
        fields.serialize_entry("id", id)?;
        if let Some(name) = event.name() {
            fields.serialize_entry("event", name)?;
        }
        fields.serialize_entry("data", event.data())?;
        fields.serialize_entry("channel", &**channel)?;
        fields.serialize_entry("at_ms", &since_1970_ms(at))?;
        fields.end()
    }
}

as_fields!(Published {
    id,
    events,
    clients,
    duplicates,
    is_repeated,
});

as_fields!(ClientInfo {
    id,
    metadata as "metadata" = AsRef::as_ref,
    address,
    since as "since_ms" = since_1970_ms,
    behind,
});

as_fields!(ChannelStats {
    name as "name" = AsRef::<str>::as_ref,
    clients,
    published,
    delivered,
    gaps,
    history_events,
    history_bytes,
    keys,
    keys_evicted,
    oldest,
    newest,
});

as_fields!(Stats {
    channels,
    clients,
    channel_stats,
});

as_fields!(Backlog {
    events,
    bytes,
    log_events,
    log_bytes,
});

as_fields!(Metrics {
    uptime as "uptime_ms" = as_ms,
    connections,
    connections_accepted,
    connections_refused,
    is_full,
    batch_senders,
    clients,
    streams_opened,
    streams_ended as "streams_ended" = Counts,
    answers,
    refusals as "refusals" = Counts,
    channels,
    channels_unpublished,
    channels_displaced,
    log_bytes,
    log_bytes_max,
    events_evicted,
    keys_evicted,
    events_published,
    event_bytes_published,
    deliveries,
    gaps,
    heartbeats,
    bytes_read,
    bytes_written,
    clients_behind,
    turns,
    latency,
});

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Histogram", 3)?;
        fields.serialize_field("count", &self.count())?;
        fields.serialize_field("sum_us", &as_us(&self.sum()))?;
        fields.serialize_field("classes", &Classes(self))?;
        fields.end()
    }
}

/// The classes of a histogram: pairs of the longest time, in microseconds (`null`
/// for the last class), and the count.
struct Classes<'a>(&'a Histogram);

impl Serialize for Classes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.classes().count()))?;
        for (longest, count) in self.0.classes() {
            list.serialize_element(&(longest.as_ref().map(as_us), count))?;
        }
        list.end()
    }
}

/// Counts by name, as a map in their order.
struct Counts<'a, N>(&'a Vec<(N, u64)>);

impl<N: fmt::Display> Serialize for Counts<'_, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, count) in self.0 {
            map.serialize_entry(&format_args!("{name}"), count)?;
        }
        map.end()
    }
}

fn as_ms(time: &Duration) -> u64 {
    crate::hub::clock::as_ms(*time)
}

fn as_us(time: &Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970; 0 before.
fn since_1970_ms(time: &SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| as_ms(&since))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::{ChannelManager, ChannelOptions, Event, History};

    fn as_json(value: &impl Serialize) -> Value {
        serde_json::to_value(value).unwrap()
    }

    #[test]
    fn what_a_channel_reports_serialises_under_the_names_of_its_fields() {
        let channels = ChannelManager::new();
        let options = || ChannelOptions::new().history(History::events(5));
        let news = channels.get_or_create_with("news", options).unwrap();
        let first = news.broadcast(Event::new("n", "one")).unwrap();
        let second = news.broadcast(Event::new("n", "two")).unwrap();
        let ids = [&first, &second].map(|published| published.id.as_ref().unwrap().to_string());
        assert_eq!(
            as_json(&second),
            json!({
                "id": ids[1], "events": 1, "clients": 0, "duplicates": 0, "is_repeated": false,
            })
        );
        let stats = channels.stats();
        let written = as_json(&stats);
        assert_eq!(written["channels"], 1);
        let channel = &written["channel_stats"][0];
        assert_eq!(channel["name"], "news");
        assert_eq!(channel["published"], 2);
        assert_eq!(channel["oldest"], ids[0]);
        assert_eq!(channel["newest"], ids[1]);
        assert_eq!(as_json(&channels.backlog())["log_events"], 2);
    }

    #[test]
    fn a_client_serialises_with_its_time_in_milliseconds() {
        let client = ClientInfo {
            id: ClientId::new("ann").unwrap(),
            metadata: Arc::new(json!({"role": "admin"})),
            address: ([127, 0, 0, 1], 80).into(),
            since: SystemTime::UNIX_EPOCH + Duration::from_millis(1_234),
            behind: 3,
        };
        let expected = json!({
            "id": "ann",
            "metadata": {"role": "admin"},
            "address": "127.0.0.1:80",
            "since_ms": 1_234,
            "behind": 3,
        });
        assert_eq!(as_json(&client), expected);
    }

    #[test]
    fn metrics_serialise_with_counts_by_name_and_times_in_their_units() {
        let metrics = Metrics {
            uptime: Duration::from_secs(2),
            streams_ended: vec![(DisconnectReason::Lagged, 4)],
            refusals: vec![("uri_too_long", 1), ("other", 0)],
            ..Metrics::default()
        };
        let written = as_json(&metrics);
        assert_eq!(written["uptime_ms"], 2_000);
        assert_eq!(written["streams_ended"], json!({"lagged": 4}));
        assert_eq!(written["refusals"], json!({"uri_too_long": 1, "other": 0}));
        assert_eq!(written["turns"]["classes"][0], json!([64, 0]));
        let classes = written["turns"]["classes"].as_array().unwrap();
        assert_eq!(*classes.last().unwrap(), json!([null, 0]));
    }
}
