//! **pushwheel** pushes events to very many browsers from one thread, over
//! [Server-Sent Events]. It is an engine to embed, without a framework or an async
//! runtime: its HTTP/1.1 runs on raw sockets, without TLS. (The package
//! `pushwheel-server` is a server to run, `pushwheel serve`; this is the manual of the
//! library.)
//!
//! [Server-Sent Events]: https://html.spec.whatwg.org/multipage/server-sent-events.html
//!
//! ```
//! use std::time::Duration;
//! use pushwheel::{ChannelManager, ChannelOptions, Engine, Event, History, Response};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // A channel that keeps its last 100 events for clients that come back.
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
//! # Overview
//!
//! | task | types and methods |
//! | --- | --- |
//! | create and find channels, count their clients | [`ChannelManager`] |
//! | configure history, heartbeat, limits | [`ChannelOptions`], [`History`], [`KeyedState`], [`LagPolicy`] |
//! | describe an event | [`Event`] |
//! | publish to all clients, to one, to some | [`Channel::publish`] to a [`Target`]; [`Channel::broadcast`], [`Channel::send`], [`Channel::broadcast_where`] … for short |
//! | repeat a publish safely, publish on a condition, publish and finish | [`Channel::publish_with`], [`PublishOptions`] |
//! | read the events that a channel holds | [`Channel::read`] |
//! | answer requests | [`Engine::builder`], [`Request`], [`Response`] |
//! | check access, pass a value to the handler | [`EngineBuilder::guard`], [`Extensions`] |
//! | subscribe a client, with an id, metadata and hooks | [`Subscription`] |
//! | read a request line by line while it arrives, and reply to each | [`EngineBuilder::lines`], [`Response::lines`] |
//! | stream to one client only | [`Response::stream`], [`Sink`] |
//! | answer later, from another thread | [`Response::deferred`], [`Responder`] |
//! | find the client's address behind a proxy | [`EngineBuilder::proxy_protocol`], [`EngineBuilder::trusted_proxies`], [`Request::client_address`] |
//! | monitor | [`EngineHandle::metrics`], [`ChannelManager::stats`] |
//! | shut down | [`EngineHandle::shutdown`] |
//! | keep the history over a restart | [`ChannelManager::save`], [`ChannelManagerBuilder::restore`] |
//! | share the channels with other processes | [`ChannelManagerBuilder::join_cluster`], [`cluster`] |
//! | lose nothing in a crash | [`ChannelManagerBuilder::open_journal`], [`JournalOptions`], [`Channel::publish_then`] |
//!
//! # How it works
//!
//! Everything that reaches a client goes through its channel's *log*, an ordered queue
//! of encoded events; a client is a *position* in it. An event is encoded once, by the
//! thread that publishes it. The engine's one thread gathers new events once, and
//! writes them to every client without a backlog with one system call each. A slow
//! client keeps its position and continues from there: it delays no other client and
//! has no queue of its own. A client that comes back with its `Last-Event-ID` begins at
//! an older position. If the log no longer holds the events after it, the client
//! receives an event named `pushwheel.gap`: it never misses an event without a notice.
//!
//! # Durability
//!
//! Without more, a history is gone with its process. A [saved](ChannelManager::save) state
//! survives a clean end. With a [journal](ChannelManagerBuilder::open_journal) an event is
//! published when it is written:
//!
//! | what was published survives | no journal | [`JournalSync::Every`] | [`JournalSync::Always`] |
//! | --- | --- | --- | --- |
//! | a clean end | if it was saved | yes | yes |
//! | a panic, `kill -9`, the lack of memory | no | yes | yes |
//! | the end of the machine | no | except for the newest events; clients receive a gap, reason `lost` | yes |
//!
//! "Yes" is for what a publish has returned `Ok` for: ids go on, and clients resume without
//! a gap. A journal that cannot be written refuses events
//! ([`PublishError::Unavailable`]), while streams and replays go on;
//! [`ChannelManager::journal_status`] has the reason.
//!
//! # Guarantees
//!
//! - A client receives its events in the order in which they were published, each
//!   complete and once, and a gap event wherever events are missing.
//! - [`ChannelOptions`] and [`Limits`] bound memory, whatever clients and publishers do.
//! - Methods of [`Channel`] and [`ChannelManager`] return at once with an exact result, on
//!   any thread, including callbacks of the engine. With a journal, those that change a
//!   channel wait for it, at most for
//!   [`publish_timeout`](JournalOptions::publish_timeout); in callbacks they never wait, and
//!   an event has no id yet.
//! - Nothing that is published turns into another field or event on the wire.
//! - A handler or callback that panics affects no other request or client.

// Items inside the modules below are public for `internals`.
#![cfg_attr(not(feature = "internals"), allow(unreachable_pub))]

pub mod cluster;
mod disconnect_reason;
mod engine;
mod event;
mod exchange;
mod frame;
mod http;
mod hub;
mod journal;
mod limits;
mod metrics;
mod mount;
mod packed;
mod proxies;
mod reactor;
mod router;
mod serialize;

pub use disconnect_reason::DisconnectReason;
pub use engine::{Engine, EngineBuilder, EngineHandle, Listener, RunningEngine};
pub use event::{
    Event, EventError, ID_BYTES_MAX, KEY_BYTES_MAX, NAME_BYTES_MAX, RESERVED_NAME_PREFIX,
    RETRY_MS_MAX,
};
pub use exchange::{
    BodyError, Extensions, HandedOver, IntoResponse, LineReply, ReadLines, Rejection, Request,
    Responder, Response, Shutdown, Sink, SinkError, SinkOptions, Subscription, WELCOME_BYTES_MAX,
    Welcome,
};
pub use http::{HeaderError, Headers, Method, Version};
pub use hub::audience::Condition;
pub use hub::channel::{AsClientId, Candidate, Channel};
pub use hub::client::{CLIENT_ID_BYTES_MAX, ClientId, ClientIdError, ClientInfo};
pub use hub::cluster::calls::SharedValues;
pub use hub::finish_on_drop::FinishOnDrop;
pub use hub::gap::{Gap, GapReason};
pub use hub::id::EventId;
pub use hub::idempotency::IdempotencyKey;
pub use hub::journal::{JournalOptions, JournalSync};
pub use hub::keyed::KeyedState;
pub use hub::manager::{ChannelManager, ChannelManagerBuilder};
pub use hub::names::{CHANNEL_NAME_BYTES_MAX, ChannelError};
pub use hub::options::{ChannelOptions, LagPolicy};
pub use hub::proposals::JournalStatus;
pub use hub::publish_options::PublishOptions;
pub use hub::published::{ChangeLog, PublishError, Published};
pub use hub::rate::{Bucket, Rate};
pub use hub::reader::{ReadError, Reader, StoredEvent};
pub use hub::retention::History;
pub use hub::saved::{RestoreError, Saved};
pub use hub::several::ENTRIES_OF_PUBLISH_MAX;
pub use hub::stats::{ChannelStats, Stats};
pub use hub::target::Target;
pub use hub::{LAST_MAX, Start};
pub use journal::error::JournalError;
pub use journal::report::{JournalReport, JournalSegment, JournalSnapshot, JournalTear};
pub use limits::Limits;
pub use metrics::{Backlog, Histogram, Metrics};
pub use mount::{
    Answering, Chunk, Events, LiveEvent, Mount, MountError, Mounted, MountedBody, MountedRequest,
};
pub use proxies::{Network, NetworkError};
#[cfg(target_os = "linux")]
pub use reactor::batch::{BatchSender, SendOutcome};
pub use router::RouteError;

// The pages of the manual: their examples are compiled and run.
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

/// The pure parts and the loop, for this package's own fuzz targets, benches and simulator.
/// Not a public API.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::engine::SimulatedEngine;
    pub use crate::hub::clock::Clock;
    pub use crate::hub::cluster::node::{SteppedJoining, SteppedNode};
    pub use crate::hub::cluster::shared::Next as NextStep;
    pub use crate::hub::journaling::stepped::{LoggedBlock, SteppedJournal};
    pub use crate::journal::simulated_disk::SimulatedDisk;
    pub use crate::reactor::{Budgets, Spent};

    /// Events to bytes.
    pub mod frame {
        pub use crate::frame::*;
    }

    /// Bytes to requests.
    pub mod http {
        pub use crate::http::*;
    }

    pub mod id;

    pub mod journal;

    /// The hub's lock.
    pub mod lock {
        pub use crate::hub::looks::longest::measure as longest_section;
    }

    pub mod log;

    /// The interface to the network.
    pub mod net {
        pub use crate::reactor::net::*;
    }

    /// Clients' addresses behind proxies.
    pub mod proxies {
        pub use crate::proxies::*;
    }

    pub mod routing;

    /// Timers.
    pub mod wheel {
        pub use crate::reactor::io::wheel::*;
    }
}
