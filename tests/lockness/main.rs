//! The features of Lockness SSE, one test for each, and what goes beyond them. The
//! modules are the headings of that list.
//!
//! A feature that another file tests more thoroughly has no second test here:
//!
//! | feature | test |
//! | --- | --- |
//! | streams for one client | `streams.rs` |
//! | a channel without a running server | `channels.rs` |
//! | `maxClients` | `lifecycle.rs`: `a_full_channel_sends_a_browser_a_retry_and_others_a_retry_after` |
//! | the data of `onConnect`, a welcome | `callbacks.rs` |
//! | reconnection without a loss | `replay.rs` |
//! | empty channels are removed | `lifecycle.rs`: `an_unused_channel_is_removed` |
//! | the use cases | `browser/examples.mjs`, in a real browser |

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail, and a deadline needs a clock"
)]

#[path = "../common/mod.rs"]
mod common;

mod advice;
mod callbacks;
mod channel;
mod conflation;
mod handler;
mod headers;
mod manager;
mod targets;
mod threads;
mod use_cases;

use std::sync::mpsc;
use std::time::Duration;

use common::Served;
use pushwheel::{
    Channel, ChannelManager, ChannelOptions, ClientId, DisconnectReason, Engine, EngineBuilder,
    Request, Subscription,
};
use serde_json::Value;

/// An engine that streams one channel at `/stream`. The query has the client's `id` and
/// `expires_ms`; any other name is a text of its metadata.
struct Room {
    served: Served,
    channels: ChannelManager,
    channel: Channel,
    /// Client ids and reasons of the calls of `on_disconnect`.
    left: mpsc::Receiver<(String, DisconnectReason)>,
}

impl Room {
    fn open(options: ChannelOptions) -> Room {
        Room::open_with(options, |builder| builder)
    }

    fn open_with(
        options: ChannelOptions,
        configure: impl FnOnce(EngineBuilder) -> EngineBuilder,
    ) -> Room {
        let channels = ChannelManager::builder().defaults(options).build();
        let channel = channels.get_or_create("room").unwrap();
        let (sender, left) = mpsc::channel();
        let stream = channel.clone();
        let builder = Engine::builder().channels(&channels);
        let builder = builder.get("/stream", move |request| {
            let sender = sender.clone();
            known(Subscription::new(&stream), request)
                .on_disconnect(move |client, why| _ = sender.send((client.id.to_string(), why)))
        });
        Room {
            served: Served::start(configure(builder)),
            channels,
            channel,
            left,
        }
    }
}

/// Adds the client id, the expiry and the metadata of the query.
fn known(subscription: Subscription, request: &Request) -> Subscription {
    let is_field = |name: &str| !matches!(name, "id" | "expires_ms");
    let fields = request.query_pairs().filter(|(name, _)| is_field(name));
    let metadata: Value = fields
        .map(|(name, value)| (name.into_owned(), Value::from(value)))
        .collect();
    let mut subscription = subscription.metadata(metadata);
    if let Some(ms) = request.query("expires_ms") {
        subscription = subscription.expires_in(Duration::from_millis(ms.parse().unwrap()));
    }
    match request.query("id") {
        Some(id) => subscription.client_id(ClientId::new(&id).unwrap()),
        None => subscription,
    }
}

/// Returns the texts of the ids, sorted.
fn sorted(ids: Vec<ClientId>) -> Vec<String> {
    let mut texts: Vec<String> = ids.iter().map(ClientId::to_string).collect();
    texts.sort();
    texts
}
