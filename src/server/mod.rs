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
mod keys;
mod limiter;
mod manage;
pub(crate) mod message;
mod origin;
mod publish;
mod subscribe;

use std::io::Read;
use std::time::Duration;

use crate::{
    ChannelManager, ChannelManagerBuilder, ChannelOptions, Engine, EngineBuilder, History, Rate,
    Request, Response, RestoreError, RouteError,
};
use clerk::Clerk;
use errors::Problem;
use keys::{Keys, Right};
use limiter::Limiter;
use origin::Hosts;

pub use keys::{Key, KeyError};

/// What the server is run with.
#[derive(Clone, Debug)]
pub struct Config {
    channel_options: ChannelOptions,
    channels_max: usize,
    threads: usize,
    publish_rate_per_address: Option<Rate>,
    keys: Keys,
    /// The names of a server on loopback besides loopback's own.
    loopback_hosts: Option<Vec<String>>,
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
            keys: Keys::default(),
            loopback_hosts: None,
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

    /// The key that POST needs. Default: none. Once there is one of the two
    /// keys, whatever needs the other is open to nobody.
    #[must_use]
    pub fn publish_key(mut self, key: Key) -> Config {
        self.keys.publish = Some(key);
        self
    }

    /// The key that DELETE, `/stats`, the names of the channels and their
    /// clients need; it may publish as well. Default: none.
    #[must_use]
    pub fn admin_key(mut self, key: Key) -> Config {
        self.keys.admin = Some(key);
        self
    }

    /// Whether any key was given.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        !self.keys.are_none()
    }

    /// For a server that listens on loopback alone: what browsers send is
    /// refused when they ask for another host than loopback or one of `hosts`
    /// (`421`, which ends DNS rebinding), and, without keys, when a page from
    /// elsewhere wants to publish or to manage (`403`). Default: nothing is
    /// refused.
    #[must_use]
    pub fn loopback_for(mut self, hosts: impl IntoIterator<Item = String>) -> Config {
        self.loopback_hosts = Some(hosts.into_iter().collect());
        self
    }

    /// An engine with the server's routes and channels, to be bound.
    ///
    /// # Panics
    /// Never: the server's routes do not overlap.
    pub fn engine(&self) -> EngineBuilder {
        self.engine_of(&self.channels().build())
    }

    /// The same with the channels that [`ChannelManager::save`] has written;
    /// see [`ChannelManagerBuilder::restore`] for what has to be minded.
    ///
    /// # Errors
    /// When they cannot be restored.
    pub fn restored_engine(&self, from: impl Read) -> Result<EngineBuilder, RestoreError> {
        Ok(self.engine_of(&self.channels().restore(from)?))
    }

    fn channels(&self) -> ChannelManagerBuilder {
        ChannelManager::builder()
            .defaults(self.channel_options.clone())
            .channels_max(self.channels_max)
    }

    fn engine_of(&self, channels: &ChannelManager) -> EngineBuilder {
        let engine = Engine::builder().channels(channels).threads(self.threads);
        let mut engine = cors::open(engine);
        if let Some(named) = self.loopback_hosts.clone() {
            let has_keys = self.has_keys();
            let hosts = Hosts { named, has_keys };
            engine = engine.before(move |request| hosts.check(request));
        }
        let limiter = Limiter::new(self.publish_rate_per_address);
        routes(engine, &limiter, &self.keys).expect("the server's routes do not overlap")
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

fn routes(
    engine: EngineBuilder,
    limiter: &Limiter,
    keys: &Keys,
) -> Result<EngineBuilder, RouteError> {
    let (one, all) = (limiter.clone(), limiter.clone());
    let to_one = move |request: &Request| publish::to_one(request, &one);
    let to_all = move |request: &Request| publish::to_all(request, &all);
    let clerk = Clerk::hire();
    let look = |look: manage::Look| {
        let clerk = clerk.clone();
        keys.guard(Right::Manage, move |request| clerk.answer(request, look))
    };
    let manage = |answer: manage::Look| keys.guard(Right::Manage, answer);
    engine
        .get("/", |_| Response::text(HINT))?
        .get("/health", manage::health)?
        .get("/events", subscribe::several)?
        .get("/channels/{channel}", subscribe::one)?
        .post("/channels/{channel}", keys.guard(Right::Publish, to_one))?
        .post("/channels", keys.guard(Right::Publish, to_all))?
        .delete("/channels/{channel}", manage(manage::remove))?
        .get("/channels", look(manage::names))?
        .delete("/channels", look(manage::remove_empty))?
        .get("/channels/", nameless)?
        .post("/channels/", nameless)?
        .delete("/channels/", nameless)?
        .get("/channels/{channel}/clients", look(manage::clients))?
        .get("/channels/{channel}/clients/{id}", manage(manage::client))?
        .delete(
            "/channels/{channel}/clients/{id}",
            manage(manage::disconnect),
        )?
        .get("/stats", look(manage::stats))
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
