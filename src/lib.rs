//! **pushwheel** pushes events to very many browsers from one thread, over
//! [Server-Sent Events]. It is an engine to embed: no framework, no async
//! runtime, HTTP/1.1 by hand on raw sockets. (The package `pushwheel-server` is a
//! server to run, `pushwheel serve`; this is the manual of the library.)
//!
//! [Server-Sent Events]: https://html.spec.whatwg.org/multipage/server-sent-events.html
//!
//! ```
//! use std::time::Duration;
//! use pushwheel::{ChannelManager, ChannelOptions, Engine, Event, History, Response};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // A channel that keeps its last 100 events for those who come back.
//!     let channels = ChannelManager::new();
//!     let options = || ChannelOptions::new().history(History::events(100));
//!     let news = channels.get_or_create_with("news", options)?;
//!
//!     let (stream, publisher) = (news.clone(), news.clone());
//!     let engine = Engine::builder()
//!         .channels(&channels)
//!         .get("/news", move |_| Response::subscribe(&stream))
//!         .post("/news", move |request| {
//!             let text = request.text().unwrap_or("(not text)");
//!             publisher.broadcast(Event::new("headline", text))
//!                 .map(|published| format!("sent to {}\n", published.clients))
//!         })
//!         .bind("127.0.0.1:0")?; // 0: any free port
//!     println!("curl -N http://{}/news", engine.local_addr());
//!
//!     let running = engine.spawn()?; // or engine.run(), on this thread
//!     news.broadcast(Event::new("headline", "published from any thread"))?;
//!     running.shutdown(Duration::from_secs(5))?;
//!     Ok(())
//! }
//! ```
//!
//! # What is what
//!
//! | you want to | use |
//! | --- | --- |
//! | make channels, find them, count their clients | [`ChannelManager`] |
//! | choose history, heartbeat, limits | [`ChannelOptions`], [`History`], [`KeyedState`], [`LagPolicy`] |
//! | say what is published | [`Event`] |
//! | publish to all, to one, to some | [`Channel::publish`] to a [`Target`]; [`Channel::broadcast`], [`Channel::send`], [`Channel::broadcast_where`] … for short |
//! | answer requests | [`Engine::builder`], [`Request`], [`Response`] |
//! | subscribe a client, name it, be told when it comes and goes | [`Subscription`] |
//! | stream to one client alone | [`Response::stream`], [`Sink`] |
//! | answer later, from another thread | [`Response::deferred`], [`Responder`] |
//! | know who asks, behind a proxy | [`EngineBuilder::proxy_protocol`], [`EngineBuilder::trusted_proxies`], [`Request::client_address`] |
//! | see how it is doing | [`EngineHandle::metrics`], [`ChannelManager::stats`] |
//! | stop in good order | [`EngineHandle::shutdown`] |
//! | keep the history over a restart | [`ChannelManager::save`], [`ChannelManagerBuilder::restore`] |
//!
//! # How it works
//!
//! Everything that reaches a client goes through its channel's *log*, an
//! ordered queue of finished frames; a client is a *position* in it. An event
//! is encoded once, by the thread that publishes it. The engine's one thread
//! gathers what is new once, and writes it to every client that is caught up
//! with one system call each. A client that is slow keeps its position and
//! goes on from there: it holds up nobody and has no queue of its own. A
//! client that comes back with its `Last-Event-ID` simply begins at an older
//! position. Where the log no longer reaches, the client is told of the gap,
//! by an event named `pushwheel.gap`; it never misses something unknowingly.
//!
//! # What holds
//!
//! - A client sees the events that are for it in the order in which they were
//!   published, each whole, each once, with no hole that it is not told of.
//! - Memory is bounded by [`ChannelOptions`] and [`Limits`], whatever clients
//!   and publishers do.
//! - Methods of [`Channel`] and [`ChannelManager`] answer at once and exactly,
//!   from any thread, callbacks of the engine included.
//! - What is published never turns into another field or event on the wire.
//! - A handler or callback that panics costs nobody else anything.

// What is public inside the modules below is so for `internals`.
#![cfg_attr(not(feature = "internals"), allow(unreachable_pub))]

mod engine;
mod event;
mod exchange;
mod frame;
mod http;
mod hub;
mod limits;
mod metrics;
mod packed;
mod proxies;
mod reactor;
mod router;
mod serialize;

pub use engine::{Engine, EngineBuilder, EngineHandle, RunningEngine};
pub use event::{
    Event, EventError, ID_BYTES_MAX, KEY_BYTES_MAX, NAME_BYTES_MAX, RESERVED_NAME_PREFIX,
    RETRY_MS_MAX,
};
pub use exchange::{
    BodyError, Extensions, IntoResponse, Rejection, Request, Responder, Response, Shutdown, Sink,
    SinkError, SinkOptions, Subscription, WELCOME_BYTES_MAX, Welcome,
};
pub use http::{HeaderError, Headers, Method, Version};
pub use hub::audience::Condition;
pub use hub::channel::{AsClientId, Candidate, Channel, ChannelStats, PublishError, Published};
pub use hub::client::{CLIENT_ID_BYTES_MAX, ClientId, ClientIdError, ClientInfo, DisconnectReason};
pub use hub::finish_on_drop::FinishOnDrop;
pub use hub::id::EventId;
pub use hub::keyed::KeyedState;
pub use hub::log::History;
pub use hub::manager::{
    CHANNEL_NAME_BYTES_MAX, ChannelError, ChannelManager, ChannelManagerBuilder, Stats,
};
pub use hub::options::{ChannelOptions, LagPolicy};
pub use hub::rate::{Bucket, Rate};
pub use hub::saved::{RestoreError, Saved};
pub use hub::target::Target;
pub use hub::{LAST_MAX, Start};
pub use limits::Limits;
pub use metrics::{Backlog, Histogram, Metrics};
pub use proxies::{Network, NetworkError};
pub use router::RouteError;

// The pages of the manual: what they show is compiled and run.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../docs/choosing.md")]
    struct Choosing;
    #[doc = include_str!("../docs/coming-from-lockness.md")]
    struct ComingFromLockness;
    #[doc = include_str!("../docs/observability.md")]
    struct Observability;
    #[doc = include_str!("../docs/reconnection.md")]
    struct Reconnection;
}

/// The pure parts and the loop, for this package's own fuzz targets, benches
/// and simulator. Nothing in here is a promise.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::engine::SimulatedEngine;
    pub use crate::hub::clock::Clock;
    pub use crate::reactor::Budgets;

    /// Events to bytes.
    pub mod frame {
        pub use crate::frame::*;
    }

    /// Bytes to requests.
    pub mod http {
        pub use crate::http::*;
    }

    pub mod id;

    /// The hub's lock.
    pub mod lock {
        pub use crate::hub::looks::longest::measure as longest_section;
    }

    pub mod log;

    /// The network's seam.
    pub mod net {
        pub use crate::reactor::net::*;
    }

    /// What proxies say of a connection.
    pub mod proxies {
        pub use crate::proxies::*;
    }

    pub mod routing;

    /// Timers.
    pub mod wheel {
        pub use crate::reactor::io::wheel::*;
    }
}
