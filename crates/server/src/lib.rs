//! The standalone server: what `pushwheel serve` answers, as routes of an
//! engine.
//!
//! It uses the crate's public names only, so whatever it does an embedder can
//! do. It keeps no state of its own: all there is, is in the engine's
//! channels.
//!
//! ```no_run
//! use pushwheel_server::Config;
//!
//! let engine = Config::new().engine().bind("127.0.0.1:8080")?;
//! engine.run()?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The builder that [`Config::engine`] gives takes more routes: a program can
//! have this interface and its own on one port.

pub(crate) mod access;
mod assets;
mod choice;
mod clerk;
mod config;
mod cors;
mod errors;
mod forwarded;
mod journal;
mod keys;
mod limiter;
mod live;
mod manage;
pub(crate) mod message;
mod metadata;
mod metrics;
mod origin;
mod page;
mod pattern;
mod publish;
mod subscribe;
mod throttle;

use clerk::Clerk;
pub(crate) use errors::CODES;
use errors::Problem;
use keys::Right;
use live::Live;
use pushwheel::{EngineBuilder, IntoResponse, Method, Request, RouteError, Subscription};

pub use access::{TokenKeyError, TokenKeys, redact};
pub use config::{Config, channel_options, limits};
pub use cors::{AllowedOrigin, OriginError};
pub use journal::{ACCESS_LOG, EVENT_LOG};
pub use keys::{KEY_CHARACTERS_MIN, Key, KeyError};
pub use live::Reloader;
pub use pattern::{Pattern, PatternError};

/// Parsers of untrusted text, for this workspace's own fuzz targets. Nothing in
/// here is a promise.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    /// Cookies, tokens and what is redacted.
    pub mod access {
        pub use crate::access::internals::*;
    }

    /// Publishers' JSON.
    pub mod message {
        pub use crate::message::internals::*;
    }
}

/// A server to be bound, and to be changed while it runs.
#[derive(Debug)]
pub struct Server {
    /// With the server's routes and channels.
    pub engine: EngineBuilder,
    /// What takes another configuration later.
    pub reloader: Reloader,
}

fn routes(engine: EngineBuilder, live: &Live) -> Result<EngineBuilder, RouteError> {
    let (one, all, tickets) = (live.clone(), live.clone(), live.clone());
    let to_one = move |request: &Request| publish::to_one(request, &one);
    let to_all = move |request: &Request| publish::to_all(request, &all);
    let ticket = move |request: &Request| tickets.rules().access.ticket(request, &tickets.office);
    let clerk = Clerk::hire();
    let look = |look: manage::Look| {
        let clerk = clerk.clone();
        move |request: &Request| clerk.answer(request, look)
    };
    let follow = |subscribe: Subscribe| {
        let live = live.clone();
        move |request: &Request| {
            let stream = subscribe(request, &live)?;
            Ok::<_, Problem>(journal::follow(&live, request, stream))
        }
    };
    let engine = assets::routes(engine)?;
    let engine = page::routes(engine, live, HINT)?
        .get("/health", manage::health)?
        .get("/ready", manage::ready)?
        .get("/events", follow(subscribe::several))?
        .get("/channels/{channel}", follow(subscribe::one))?
        .get("/channels/", nameless)?
        .post("/channels/", nameless)?
        .delete("/channels/", nameless)?;
    Guarded { engine, live }
        .post("/channels/{channel}", Right::Publish, to_one)?
        .post("/channels", Right::Publish, to_all)?
        .post("/tickets", Right::MakeTickets, ticket)?
        .get("/channels", look(manage::names))?
        .get("/channels/{channel}/clients", look(manage::clients))?
        .get("/channels/{channel}/clients/{id}", manage::client)?
        .get("/stats", look(manage::stats))?
        .get("/metrics", look(metrics::metrics))?
        .delete("/channels/{channel}", manage::remove)?
        .delete("/channels", look(manage::remove_empty))?
        .delete("/channels/{channel}/clients/{id}", manage::disconnect)
        .map(|guarded| guarded.engine)
}

/// Routes that are not for everybody.
struct Guarded<'a> {
    engine: EngineBuilder,
    live: &'a Live,
}

impl Guarded<'_> {
    fn post<R: IntoResponse>(
        self,
        path: &str,
        right: Right,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Result<Self, RouteError> {
        self.route(Method::Post, path, right, handler)
    }

    /// Looking at what there is.
    fn get<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Result<Self, RouteError> {
        self.route(Method::Get, path, Right::Manage, handler)
    }

    fn delete<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Result<Self, RouteError> {
        self.route(Method::Delete, path, Right::Manage, handler)
    }

    fn route<R: IntoResponse>(
        mut self,
        method: Method,
        path: &str,
        right: Right,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Result<Self, RouteError> {
        let look = self.live.guard(right);
        let engine = self.engine.guard(method.clone(), path, look)?;
        self.engine = engine.route(method, path, handler)?;
        Ok(self)
    }
}

/// What answers with a stream.
type Subscribe = fn(&Request, &Live) -> Result<Subscription, Problem>;

fn nameless(_: &Request) -> Problem {
    pushwheel::ChannelError::Name.into()
}

const HINT: &str = "\
pushwheel: a push server over Server-Sent Events

GET    /channels/{channel}               its stream
GET    /events?channel=a&channel=b       one stream of several channels
POST   /channels/{channel}               publish: JSON {\"event\": ..., \"data\": ...} or text
POST   /channels                         publish to every channel
POST   /tickets                          a ticket that opens one stream
GET    /channels                         the channels' names
GET    /channels/{channel}/clients       who is there
DELETE /channels/{channel}?finish        end a channel
GET    /stats  /metrics                  how it is doing
GET    /health  /ready                   whether it is
";
