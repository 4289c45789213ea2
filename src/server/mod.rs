//! The standalone server: what `pushwheel serve` answers, as routes of an
//! engine.
//!
//! It uses the crate's public names only, so whatever it does an embedder can
//! do. It keeps no state of its own: all there is, is in the engine's
//! channels.
//!
//! ```no_run
//! use pushwheel::server::Config;
//!
//! let engine = Config::new().engine().bind("127.0.0.1:8080")?;
//! engine.run()?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The builder that [`Config::engine`] gives takes more routes: a program can
//! have this interface and its own on one port.

mod clerk;
mod cors;
mod errors;
mod limiter;
mod manage;
pub(crate) mod message;
mod publish;
mod subscribe;

use std::time::Duration;

use crate::{
    ChannelManager, ChannelOptions, Engine, EngineBuilder, History, Rate, Request, Response,
    RouteError,
};
use clerk::Clerk;
use errors::Problem;
use limiter::Limiter;

/// What the server is run with.
#[derive(Clone, Debug)]
pub struct Config {
    channel_options: ChannelOptions,
    channels_max: usize,
    threads: usize,
    publish_rate_per_address: Option<Rate>,
}

impl Default for Config {
    fn default() -> Self {
        Config::new()
    }
}

impl Config {
    /// The server's defaults, as each method names its own.
    #[must_use]
    pub fn new() -> Config {
        Config {
            channel_options: channel_options(),
            channels_max: 100_000,
            threads: 1,
            publish_rate_per_address: None,
        }
    }

    /// What every channel is made with. Default: [`channel_options`].
    #[must_use]
    pub fn channel_options(mut self, options: ChannelOptions) -> Config {
        self.channel_options = options;
        self
    }

    /// How many channels there may be; anyone may make one. Default: 100,000.
    #[must_use]
    pub fn channels_max(mut self, channels: usize) -> Config {
        self.channels_max = channels;
        self
    }

    /// On how many threads the engine runs. Default: 1; see
    /// [`EngineBuilder::threads`].
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Config {
        self.threads = threads;
        self
    }

    /// How many events one address (of IPv6: one network of 64 bits) may
    /// publish; more are answered `429 Too Many Requests`. Default: no limit.
    #[must_use]
    pub fn publish_rate_per_address(mut self, rate: Rate) -> Config {
        self.publish_rate_per_address = Some(rate);
        self
    }

    /// An engine with the server's routes and channels, to be bound.
    ///
    /// # Panics
    /// Never: the server's routes do not overlap.
    pub fn engine(&self) -> EngineBuilder {
        let channels = ChannelManager::builder()
            .defaults(self.channel_options.clone())
            .channels_max(self.channels_max)
            .build();
        let engine = Engine::builder().channels(&channels).threads(self.threads);
        let limiter = Limiter::new(self.publish_rate_per_address);
        routes(cors::open(engine), &limiter).expect("the server's routes do not overlap")
    }
}

/// The options with which the server makes a channel: the last 1,000 events
/// are kept, of at most 1 MiB and ten minutes; a heartbeat after 15 s of
/// silence, because some proxies give up after 30; the library's defaults
/// otherwise.
#[must_use]
pub fn channel_options() -> ChannelOptions {
    ChannelOptions::new()
        .history(History::events(1000))
        .heartbeat(Duration::from_secs(15))
}

fn routes(engine: EngineBuilder, limiter: &Limiter) -> Result<EngineBuilder, RouteError> {
    let (one, all) = (limiter.clone(), limiter.clone());
    let clerk = Clerk::hire();
    let look = |look: manage::Look| {
        let clerk = clerk.clone();
        move |request: &Request| clerk.answer(request, look)
    };
    engine
        .get("/", |_| Response::text(HINT))?
        .get("/events", subscribe::several)?
        .get("/channels/{channel}", subscribe::one)?
        .post("/channels/{channel}", move |request| {
            publish::to_one(request, &one)
        })?
        .delete("/channels/{channel}", manage::remove)?
        .get("/channels", look(manage::names))?
        .post("/channels", move |request| publish::to_all(request, &all))?
        .delete("/channels", look(manage::remove_empty))?
        .get("/channels/", nameless)?
        .post("/channels/", nameless)?
        .delete("/channels/", nameless)?
        .get("/channels/{channel}/clients", look(manage::clients))?
        .get("/channels/{channel}/clients/{id}", manage::client)?
        .delete("/channels/{channel}/clients/{id}", manage::disconnect)?
        .get("/stats", look(manage::stats))?
        .get("/health", manage::health)
}

fn nameless(_: &Request) -> Problem {
    crate::ChannelError::Name.into()
}

const HINT: &str = "\
pushwheel: a push server over Server-Sent Events

GET    /channels/{channel}               its stream
GET    /events?channel=a&channel=b       one stream of several channels
POST   /channels/{channel}               publish: JSON {\"event\": ..., \"data\": ...} or text
POST   /channels                         publish to every channel
GET    /channels                         the channels' names
GET    /channels/{channel}/clients       who is there
DELETE /channels/{channel}?finish        end a channel
GET    /stats  /health                   how it is doing
";
