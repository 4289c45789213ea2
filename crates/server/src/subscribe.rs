//! Subscribing with GET.
//!
//! Where a stream begins is for [`Request::start`] to read. What is known of a
//! client is what its token or ticket says; what it says of itself (`client`,
//! `meta.FIELD`) is believed where no token is needed, or with a key. Unknown
//! parameters are left alone, because polyfills and caches' busters add their
//! own.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::access::Grant;
use super::context::Live;
use super::errors::Problem;
use super::limiter::number_of_network;
use super::metadata::Room;
use pushwheel::{ChannelManager, ClientId, LAST_MAX, Request, Subscription};

/// The most channels that one stream may have. A publish looks at each
/// channel's streams, and a merge at each stream's channels.
pub(super) const STREAM_CHANNELS_MAX: usize = 64;

/// `GET /channels/{channel}`
pub(super) fn one(request: &Request, live: &Live) -> Result<Subscription, Problem> {
    let name = request.param("channel").unwrap_or_default();
    subscribe(request, live, &[name.into()])
}

/// `GET /events?channel=a&channel=b`
pub(super) fn several(request: &Request, live: &Live) -> Result<Subscription, Problem> {
    let pairs = request.query_pairs();
    let names: Vec<_> = pairs
        .filter(|(name, _)| name == "channel")
        .map(|(_, value)| value)
        .take(STREAM_CHANNELS_MAX + 1)
        .collect();
    if names.len() > STREAM_CHANNELS_MAX {
        return Err(Problem::too_many_channels());
    }
    subscribe(request, live, &names)
}

fn subscribe(
    request: &Request,
    live: &Live,
    names: &[Cow<'_, str>],
) -> Result<Subscription, Problem> {
    for (_, value) in request.query_pairs().filter(|(name, _)| name == "last") {
        check_last(&value)?;
    }
    // A name that cannot be leaves the others unmade, and a ticket unused.
    for name in names {
        ChannelManager::check_name(name)?;
    }
    let (first, others) = names.split_first().ok_or_else(Problem::no_channels)?;
    let grant = live
        .rules()
        .access
        .subscribe(request, names, &live.office)?;
    let said = grant.is_believed.then(|| SelfDeclared::of(request));
    let said = said.transpose()?;
    let source = source(request, live, &grant);
    let channel = |name: &str| {
        let channels = request.channels();
        channels.get_or_create_for_subscriber(name, source)
    };
    let mut subscription = Subscription::new(&channel(first)?);
    for name in others {
        subscription = subscription.and(&channel(name)?);
    }
    let subscription = match said {
        Some(said) => said.introduce(subscription),
        None => introduce(&grant, subscription),
    };
    Ok(match grant.stream_time_left() {
        Some(time) => subscription.expires_in(time),
        None => subscription,
    })
}

/// Returns the number of the source that the channels are counted for which this
/// request makes: that of its token, or of its address.
///
/// A request that may publish to all channels could make as many by publishing,
/// so it has none.
fn source(request: &Request, live: &Live, grant: &Grant) -> Option<u64> {
    if live.rules().access.may_publish_by_key(request) {
        return None;
    }
    let address = || number_of_network(request.client_address().ip());
    Some(grant.token.unwrap_or_else(address))
}

/// Says who a client is by what was granted to it.
fn introduce(grant: &Grant, mut subscription: Subscription) -> Subscription {
    if let Some(id) = &grant.client {
        subscription = subscription.client_id(id.clone());
    }
    if let Some(metadata) = &grant.metadata {
        subscription = subscription.metadata(Value::Object((**metadata).clone()));
    }
    subscription
}

/// What a client says of itself.
struct SelfDeclared {
    id: Option<ClientId>,
    metadata: Map<String, Value>,
}

impl SelfDeclared {
    fn of(request: &Request) -> Result<Self, Problem> {
        let mut client = SelfDeclared {
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
                        client.say(field, value.into_owned());
                    }
                    _ => {}
                },
            }
        }
        Ok(client)
    }

    /// A field that is said twice has both values, as an array.
    fn say(&mut self, field: &str, value: String) {
        let value = Value::String(value);
        match self.metadata.get_mut(field) {
            None => {
                self.metadata.insert(field.to_owned(), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }

    fn introduce(self, mut subscription: Subscription) -> Subscription {
        if let Some(id) = self.id {
            subscription = subscription.client_id(id);
        }
        if !self.metadata.is_empty() {
            subscription = subscription.metadata(Value::Object(self.metadata));
        }
        subscription
    }
}

fn check_last(text: &str) -> Result<(), Problem> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<usize>() {
        Ok(count) if is_number && count <= LAST_MAX => Ok(()),
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
        let mut client = SelfDeclared {
            id: None,
            metadata: Map::new(),
        };
        for (field, value) in [("role", "admin"), ("tag", "a"), ("tag", "b"), ("tag", "c")] {
            client.say(field, value.to_owned());
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
