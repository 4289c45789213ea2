//! Records for properties.

use std::sync::Arc;

use proptest::prelude::*;

use super::probe::Probe;
use super::record::{Begun, Change, Options, Record};
use crate::Event;
use crate::hub::audience::{Audience, Choice, Condition};
use crate::hub::client::ClientId;
use crate::hub::id::Epoch;
use crate::hub::idempotency::{KeyId, Keyed};
use crate::hub::ids::Ids;
use crate::hub::numbering::Numbering;
use crate::hub::ready::Ready;

/// What ids begin with.
pub(crate) const ID_PREFIX: &str = "0000016-";

/// The ids of a hub.
pub(crate) fn ids() -> Ids {
    let ids = Ids::new(Epoch::from_random(1), Numbering::new(None));
    assert_eq!(ids.prefix(), ID_PREFIX);
    ids
}

/// Encodes an event as a channel does.
pub(crate) fn ready(event: &Event<'_>) -> Ready {
    Ready::encode(event, None, &ids()).expect("the event is valid")
}

pub(crate) fn events() -> impl Strategy<Value = Event<'static>> {
    let key = prop::option::of("[a-c]{0,2}");
    let retry_ms = prop::option::of(0..10_000_u64);
    let event = (
        "[a-z:]{0,3}",
        "(?s).{0,9}",
        prop::option::of("[a-e]"),
        key,
        retry_ms,
    );
    let removal = ("[a-c]", any::<bool>());
    let event = event.prop_map(|(name, data, id, key, retry_ms)| {
        let mut event = Event::new(name, data);
        if let Some(id) = id {
            event = event.with_id(id);
        }
        if let Some(key) = key {
            event = event.with_key(key);
        }
        if let Some(ms) = retry_ms {
            event = event.with_retry(std::time::Duration::from_millis(ms));
        }
        event
    });
    let removal = removal.prop_map(|(key, has_id)| match has_id {
        true => Event::removal(key).with_id("removal"),
        false => Event::removal(key),
    });
    prop_oneof![9 => event, 1 => removal]
}

pub(crate) fn audiences() -> impl Strategy<Value = Option<Arc<Audience>>> {
    let texts = prop_oneof![
        Just("67e55044-10b1-426f-9247-bb680e5fe0c8".to_owned()),
        "[a-z]{1,3}",
    ];
    let ids = texts.prop_map(|text| ClientId::new(&text).expect("the id is valid"));
    let ids = prop::collection::vec(ids, 0..4);
    let condition = ("[a-z]{0,2}", "[a-z]{0,2}", any::<bool>());
    let condition = condition.prop_map(|(field, value, is_negated)| match is_negated {
        true => Condition::not(field, value),
        false => Condition::new(field, value),
    });
    let choice = prop::sample::select(&Choice::ALL[..]);
    let audience = prop_oneof![
        (ids.clone(), choice).prop_map(|(ids, choice)| Audience::clients(ids, choice)),
        ids.prop_map(Audience::except),
        prop::collection::vec(condition, 0..3).prop_map(|all| Audience::Where(all.into())),
    ];
    prop::option::weighted(0.3, audience.prop_map(Arc::new))
}

/// In the order of their names.
const CHANNELS: [&str; 3] = ["b", "c d", "news"];

fn channels() -> impl Strategy<Value = Arc<str>> {
    prop::sample::select(&CHANNELS[..]).prop_map(Arc::from)
}

/// Few keys, so that they are repeated.
fn keys() -> impl Strategy<Value = Option<Keyed>> {
    let keyed = (0..6_u8, 0..3_u64).prop_map(|(id, digest)| Keyed {
        id: KeyId([id; 16]),
        digest: digest / 2,
    });
    prop::option::weighted(0.3, keyed)
}

fn beginnings() -> impl Strategy<Value = Option<u64>> {
    prop::option::weighted(0.3, prop_oneof![0..20_u64, any::<u64>()])
}

fn options() -> impl Strategy<Value = Options> {
    let until_ms = prop::option::weighted(0.1, any::<u64>());
    let options = (keys(), prop::bool::weighted(0.1), until_ms, beginnings());
    options.prop_map(
        |(keyed, is_conditional, finish_until_ms, begins_after)| Options {
            keyed,
            is_conditional,
            finish_until_ms,
            begins_after,
        },
    )
}

pub(crate) fn changes() -> impl Strategy<Value = Change> {
    let ready = || events().prop_map(|event| ready(&event));
    let some = || prop::collection::vec(ready(), 1..4);
    let some_without_ids = || {
        let event = events().prop_filter("it has an id", |event| event.id().is_none());
        prop::collection::vec(event.prop_map(|event| self::ready(&event)), 1..4)
    };
    prop_oneof![
        8 => (channels(), audiences(), some(), options()).prop_map(
            |(channel, audience, events, options)| {
                Change::Publish { channel, audience, events, options }
            }
        ),
        2 => (audiences(), some(), keys()).prop_map(|(audience, events, keyed)| {
            let options = Options::of_key(keyed);
            Change::PublishAll { audience, events, options }
        }),
        2 => (prop::sample::subsequence(&CHANNELS[..], 1..=3), some_without_ids(), keys())
            .prop_map(|(channels, events, keyed)| {
                let channels = channels.into_iter().enumerate().map(|(n, name)| Begun {
                    name: name.into(),
                    begins_after: (n != 1).then_some(7 * n as u64),
                });
                let channels = channels.collect();
                Change::PublishTo { channels, events, keyed }
            }),
        1 => (channels(), any::<u64>(), keys()).prop_map(|(channel, until_ms, keyed)| {
            let options = Options { keyed, finish_until_ms: Some(until_ms), ..Options::default() };
            Change::Publish { channel, audience: None, events: Vec::new(), options }
        }),
        1 => (channels(), any::<u64>(), prop::option::of(ready()), beginnings()).prop_map(
            |(channel, until_ms, last, begins_after)| {
                Change::Finish { channel, until_ms, last, begins_after }
            }
        ),
        1 => channels().prop_map(|channel| Change::Remove { channel }),
        1 => any::<u64>().prop_map(|after| Change::Lost { after }),
        1 => (channels(), "[a-z]{1,3}").prop_map(|(channel, client)| Change::Kick {
            channel,
            client: ClientId::new(&client).expect("the id is valid"),
        }),
        1 => (0..3_u64, prop::option::of(channels()))
            .prop_map(|(term, channel)| Change::LostIn { term, channel }),
        1 => ("[a-z]{0,3}", any::<u64>(), any::<bool>()).prop_map(|(name, applied, is_draining)| {
            Change::Probe(Box::new(Probe {
                version: name.clone(),
                name,
                applied,
                clients: applied / 3,
                channels: applied / 5,
                options_digest: applied / 7,
                is_draining,
            }))
        }),
    ]
}

pub(crate) fn records() -> impl Strategy<Value = Vec<Record>> {
    let record = (any::<u64>(), changes()).prop_map(|(basis, change)| Record { basis, change });
    prop::collection::vec(record, 1..9)
}
