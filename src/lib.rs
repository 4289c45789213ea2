//! A push engine that holds very many idle browsers on one thread and reaches
//! all of them at once, over Server-Sent Events.

mod engine;
mod event;
mod exchange;
mod frame;
mod http;
mod hub;
mod reactor;
mod router;

pub use engine::{Engine, EngineBuilder, EngineHandle, RunningEngine};
pub use event::{
    Event, EventError, ID_BYTES_MAX, KEY_BYTES_MAX, NAME_BYTES_MAX, RESERVED_NAME_PREFIX,
    RETRY_MS_MAX,
};
pub use exchange::{
    BodyError, IntoResponse, Request, Responder, Response, Sink, SinkError, SinkOptions,
    Subscription,
};
pub use http::{HeaderError, Headers, Limits, Method, Version};
pub use hub::Start;
pub use hub::audience::Condition;
pub use hub::channel::{AsClientId, Candidate, Channel, ChannelStats, PublishError, Published};
pub use hub::client::{CLIENT_ID_BYTES_MAX, ClientId, ClientIdError, ClientInfo, DisconnectReason};
pub use hub::id::EventId;
pub use hub::log::History;
pub use hub::manager::{
    CHANNEL_NAME_BYTES_MAX, ChannelError, ChannelManager, ChannelManagerBuilder, Stats,
};
pub use hub::options::{ChannelOptions, LagPolicy};
pub use router::RouteError;

/// The pure parts and the loop, for this package's own fuzz targets, benches
/// and simulator. Nothing in here is a promise.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::engine::SimulatedEngine;
    pub use crate::hub::clock::Clock;

    /// Events to bytes.
    pub mod frame {
        pub use crate::frame::*;
    }

    /// Bytes to requests.
    pub mod http {
        pub use crate::http::*;
    }

    /// The network's seam.
    pub mod net {
        pub use crate::reactor::net::*;
    }

    /// Timers.
    pub mod wheel {
        pub use crate::reactor::wheel::*;
    }
}
