//! Subscribing with GET.
//!
//! Where a stream begins is for [`Request::start`] to read. What a client
//! says of itself (`client`, `meta.FIELD`) is believed: that is for servers
//! whose clients are all trusted. Unknown parameters are left alone, because
//! polyfills and caches' busters add their own.

use serde_json::{Map, Value};

use super::errors::Problem;
use crate::{ClientId, Request, Subscription};

/// The most channels that one stream may have. A publish looks at each
/// channel's streams, and a merge at each stream's channels.
pub(super) const STREAM_CHANNELS_MAX: usize = 64;

/// `GET /channels/{channel}`
pub(super) fn one(request: &Request) -> Result<Subscription, Problem> {
    let client = SelfDeclared::of(request)?;
    let name = request.param("channel").unwrap_or_default();
    let channel = request.channels().get_or_create(name)?;
    Ok(client.introduce(Subscription::new(&channel)))
}

/// `GET /events?channel=a&channel=b`
pub(super) fn several(request: &Request) -> Result<Subscription, Problem> {
    let client = SelfDeclared::of(request)?;
    let pairs = request.query_pairs();
    let names: Vec<_> = pairs
        .filter(|(name, _)| name == "channel")
        .map(|(_, value)| value)
        .take(STREAM_CHANNELS_MAX + 1)
        .collect();
    if names.len() > STREAM_CHANNELS_MAX {
        return Err(Problem::too_many_channels());
    }
    // A name that cannot be leaves the others unmade.
    for name in &names {
        crate::ChannelManager::check_name(name)?;
    }
    let mut subscription = None;
    for name in &names {
        let channel = request.channels().get_or_create(name)?;
        subscription = Some(match subscription {
            None => Subscription::new(&channel),
            Some(others) => Subscription::and(others, &channel),
        });
    }
    let subscription = subscription.ok_or_else(Problem::no_channels)?;
    Ok(client.introduce(subscription))
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
        for (name, value) in request.query_pairs() {
            match &*name {
                "client" => client.id = Some(ClientId::new(&value).map_err(Problem::client_id)?),
                "last" => check_last(&value)?,
                other => match other.strip_prefix("meta.") {
                    Some(field) if !field.is_empty() => client.say(field, value.into_owned()),
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
    let wanted = "how many of the history's last events you want, as in ?last=10";
    match text.parse::<usize>() {
        Ok(_) if is_number => Ok(()),
        _ => Err(Problem::parameter("last", wanted)),
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
        assert_eq!(check_last("0"), Ok(()));
        for bad in ["", "-1", "+1", "many", "1.5", "99999999999999999999999"] {
            assert!(check_last(bad).is_err(), "{bad}");
        }
    }
}
