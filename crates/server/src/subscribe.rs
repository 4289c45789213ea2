//! Subscribing with GET.
//!
//! The answer is a stream, or one page of events as JSON if the request asks for that alone.
//!
//! [`Request::start`] reads where a stream starts. The id and metadata of a client come from
//! its token or ticket. The parameters `client` and `meta.FIELD` count where no token is
//! needed, or with a key. Unknown parameters are ignored, because polyfills and scripts that
//! bypass caches add their own.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Map, Value};

use super::access::{Access, Grant};
use super::channel_names;
use super::clock::unix_seconds;
use super::context::Context;
use super::errors::Problem;
use super::limiter::network_number;
use super::limits::STREAM_CHANNELS_MAX;
use super::metadata::Room;
use super::parameters;
use pushwheel::{ChannelManager, ClientId, LAST_MAX, Request, Subscription};

/// Maximum time that a request for a page waits, in seconds: proxies give up after a minute.
const WAIT_S_MAX: u64 = 60;

/// `GET /channels/{channel}`
pub(super) fn one(request: &Request, context: &Context) -> Result<Subscription, Problem> {
    let name = request.param("channel").unwrap_or_default();
    subscribe(request, context, &[name.into()])
}

/// `GET /events?channel=a&channel=b`
pub(super) fn several(request: &Request, context: &Context) -> Result<Subscription, Problem> {
    let names = channel_names::of(request).take(STREAM_CHANNELS_MAX + 1);
    let names: Vec<_> = names.collect();
    if names.len() > STREAM_CHANNELS_MAX {
        return Err(Problem::too_many_channels());
    }
    subscribe(request, context, &names)
}

fn subscribe(
    request: &Request,
    context: &Context,
    names: &[Cow<'_, str>],
) -> Result<Subscription, Problem> {
    for (_, value) in request.query_pairs().filter(|(name, _)| name == "last") {
        check_last(&value)?;
    }
    let names_channels = request.query("channel_names");
    let names_channels = names_channels.map_or(Ok(false), |value| {
        parameters::boolean("channel_names", &value)
    })?;
    // An invalid name creates none of the channels, and uses no ticket.
    for name in names {
        ChannelManager::check_name(name)?;
    }
    let (first, others) = names.split_first().ok_or_else(Problem::no_channels)?;
    let access = &context.config().access;
    let grant = access.subscribe(request, names, &context.access)?;
    let wait = wants_page(request).then(|| wait_of(request)).transpose()?;
    let declared = grant.is_believed.then(|| Declared::of(request));
    let declared = declared.transpose()?;
    let source = source(request, access, &grant);
    let channel = |name: &str| {
        let channels = request.channels();
        channels.get_or_create_for_subscriber(name, source)
    };
    let mut subscription = Subscription::new(&channel(first)?);
    for name in others {
        subscription = subscription.and(&channel(name)?);
    }
    let mut subscription = match declared {
        Some(declared) => declared.identify(subscription),
        None => identify(&grant, subscription),
    };
    if names_channels {
        subscription = subscription.name_channels();
    }
    if let Some(wait) = wait {
        subscription = subscription.answer_once(wait);
    }
    Ok(match grant.time_left(unix_seconds()) {
        Some(time) => subscription.expires_in(time),
        None => subscription,
    })
}

/// Returns the number of the source for which the channels count that this request creates:
/// of its token, or of its address.
///
/// A request that may publish to all channels has none: it could create as many channels by
/// publishing.
fn source(request: &Request, access: &Access, grant: &Grant) -> Option<u64> {
    if access.may_publish_by_key(request) {
        return None;
    }
    let address = || network_number(request.client_address().ip());
    Some(grant.token.unwrap_or_else(address))
}

/// Sets the client id and metadata that a credential grants.
fn identify(grant: &Grant, mut subscription: Subscription) -> Subscription {
    if let Some(id) = &grant.client {
        subscription = subscription.client_id(id.clone());
    }
    if let Some(metadata) = &grant.metadata {
        subscription = subscription.metadata(Value::Object((**metadata).clone()));
    }
    subscription
}

/// The client id and metadata in the query.
struct Declared {
    id: Option<ClientId>,
    metadata: Map<String, Value>,
}

impl Declared {
    fn of(request: &Request) -> Result<Self, Problem> {
        let mut client = Declared {
            id: None,
            metadata: Map::new(),
        };
        let mut room = Room::new();
        for (name, value) in request.query_pairs() {
            match &*name {
                "client" => client.id = Some(ClientId::new(&value).map_err(Problem::client_id)?),
                other => match other.strip_prefix("meta.") {
                    Some(field) if !field.is_empty() => {
                        room.take(field.len() + value.len())
                            .map_err(Problem::metadata)?;
                        client.add(field, value.into_owned());
                    }
                    _ => {}
                },
            }
        }
        Ok(client)
    }

    /// Adds a field. A field that the query has twice gets both values, as an array.
    fn add(&mut self, field: &str, value: String) {
        let value = Value::String(value);
        match self.metadata.get_mut(field) {
            None => {
                self.metadata.insert(field.to_owned(), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }

    fn identify(self, mut subscription: Subscription) -> Subscription {
        if let Some(id) = self.id {
            subscription = subscription.client_id(id);
        }
        if !self.metadata.is_empty() {
            subscription = subscription.metadata(Value::Object(self.metadata));
        }
        subscription
    }
}

/// Whether a request is for a page: it accepts JSON, and neither a stream nor everything, as
/// some HTTP libraries do that name JSON first.
fn wants_page(request: &Request) -> bool {
    request.accepts("application/json")
        && !request.accepts("text/event-stream")
        && !request.accepts("*/*")
}

/// Returns the time for which a request for a page waits.
fn wait_of(request: &Request) -> Result<Duration, Problem> {
    let Some(text) = request.query("wait") else {
        return Ok(Duration::ZERO);
    };
    match parameters::whole::<u64>(&text) {
        Some(seconds) if seconds <= WAIT_S_MAX => Ok(Duration::from_secs(seconds)),
        _ => {
            let wanted = format!("a number of seconds, at most {WAIT_S_MAX}, as in ?wait=30");
            Err(Problem::parameter("wait", &wanted))
        }
    }
}

fn check_last(text: &str) -> Result<(), Problem> {
    match parameters::whole::<usize>(text) {
        Some(count) if count <= LAST_MAX => Ok(()),
        _ => {
            let wanted = format!(
                "the number of events to begin with, at most {LAST_MAX}, as in ?last=10. \
                 For the whole history use ?last_event_id=earliest"
            );
            Err(Problem::parameter("last", &wanted))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_said_twice_is_an_array() {
        let mut client = Declared {
            id: None,
            metadata: Map::new(),
        };
        for (field, value) in [("role", "admin"), ("tag", "a"), ("tag", "b"), ("tag", "c")] {
            client.add(field, value.to_owned());
        }
        let wanted = serde_json::json!({"role": "admin", "tag": ["a", "b", "c"]});
        assert_eq!(Value::Object(client.metadata), wanted);
    }

    #[test]
    fn last_is_a_count() {
        assert_eq!([check_last("0"), check_last("1000")], [Ok(()), Ok(())]);
        for bad in [
            "",
            "-1",
            "+1",
            "many",
            "1.5",
            "1001",
            "99999999999999999999999",
        ] {
            assert!(check_last(bad).is_err(), "{bad}");
        }
    }
}
