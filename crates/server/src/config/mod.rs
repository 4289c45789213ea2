//! What the server is run with.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

mod access;

use crate::access::{Access, Hosts, Settings};
use crate::context::{Live, Rules};
use crate::errors::CODES;
use crate::pattern::Pattern;
use crate::{access_log, cors, loopback, routes};
use pushwheel::{
    ChannelManager, ChannelManagerBuilder, ChannelOptions, Engine, EngineBuilder, History, Limits,
    Rate, RestoreError,
};

/// The headers of every answer that does not set them itself. Answers hold what is
/// true now: a cache that stored a health check, or a finished channel, would
/// serve it when it is not. Streams and the page's files set their own.
const DEFAULT_HEADERS: [(&str, &str); 2] = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
];

/// What the server is run with, by method chaining.
#[derive(Clone, Debug)]
pub struct Config {
    channel_options: ChannelOptions,
    /// The first that matches counts.
    options_by_pattern: Vec<(Pattern, ChannelOptions)>,
    channels_max: usize,
    republish_window: Duration,
    opaque_ids: bool,
    unpublished_channels_max: Option<usize>,
    unpublished_channels_per_source_max: Option<usize>,
    history_total: Option<usize>,
    threads: usize,
    limits: Limits,
    send_buffer_bytes: Option<usize>,
    receive_buffer_bytes: Option<usize>,
    publish_rate_per_address: Option<Rate>,
    access: Settings,
    access_log: bool,
    event_log: bool,
    /// Of a server on loopback whose requests are checked.
    checked_hosts: Option<Hosts>,
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
            options_by_pattern: Vec::new(),
            channels_max: 100_000,
            republish_window: Duration::from_secs(60),
            opaque_ids: false,
            unpublished_channels_max: None,
            unpublished_channels_per_source_max: None,
            history_total: None,
            threads: 1,
            limits: limits(),
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
            publish_rate_per_address: None,
            access: Settings::default(),
            access_log: false,
            event_log: false,
            checked_hosts: None,
        }
    }

    /// What a channel is made with that no pattern matches. Default:
    /// [`channel_options`].
    #[must_use]
    pub fn channel_options(mut self, options: ChannelOptions) -> Config {
        self.channel_options = options;
        self
    }

    /// What channels are made with whose names match; of several patterns
    /// that do, the first one added counts. Default: none.
    #[must_use]
    pub fn channel_options_for(mut self, pattern: Pattern, options: ChannelOptions) -> Config {
        self.options_by_pattern.push((pattern, options));
        self
    }

    /// Maximum channels. Default: 100,000.
    #[must_use]
    pub fn channels_max(mut self, channels: usize) -> Config {
        self.channels_max = channels;
        self
    }

    /// Time after the start in which publishers may repeat, under the same own
    /// ids, events from before a restart; see
    /// [`ChannelManagerBuilder::republish_window`]. Default: 60 s.
    #[must_use]
    pub fn republish_window(mut self, time: Duration) -> Config {
        self.republish_window = time;
        self
    }

    /// Whether the ids of events hide how many events there were; see
    /// [`ChannelManagerBuilder::opaque_ids`]. Default: false.
    #[must_use]
    pub fn opaque_ids(mut self, opaque: bool) -> Config {
        self.opaque_ids = opaque;
        self
    }

    /// Maximum channels that subscriptions made and no publisher has published
    /// to. A publisher's new channel takes the place of one of them where there
    /// are as many channels as there may be. Default: seven eighths of
    /// [`channels_max`](Self::channels_max).
    #[must_use]
    pub fn unpublished_channels_max(mut self, channels: usize) -> Config {
        self.unpublished_channels_max = Some(channels);
        self
    }

    /// Maximum channels of this kind for one source of subscriptions: a token,
    /// or the address of a request without one (IPv6: a network of 64 bits). A
    /// request that may publish to all channels has no such limit. Default: a
    /// sixteenth of [`channels_max`](Self::channels_max).
    #[must_use]
    pub fn unpublished_channels_per_source_max(mut self, channels: usize) -> Config {
        self.unpublished_channels_per_source_max = Some(channels);
        self
    }

    /// Maximum bytes of all channels together: histories, and events that slow
    /// clients have yet to be sent. Default: no limit; see
    /// [`ChannelManagerBuilder::history_total`]. `pushwheel serve` sets half of
    /// the memory that the process may use.
    #[must_use]
    pub fn history_total(mut self, bytes: usize) -> Config {
        self.history_total = Some(bytes);
        self
    }

    /// On how many threads the engine runs. Default: 1; see
    /// [`EngineBuilder::threads`].
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Config {
        self.threads = threads;
        self
    }

    /// How many connections and requests there may be at once, how large a
    /// request may be, and how long a client may take. Default: [`limits`].
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Config {
        self.limits = limits;
        self
    }

    /// How many bytes the kernel holds for each client that does not take what
    /// was written to it. Default: the system's; see
    /// [`EngineBuilder::send_buffer_bytes`].
    #[must_use]
    pub fn send_buffer_bytes(mut self, bytes: usize) -> Config {
        self.send_buffer_bytes = Some(bytes);
        self
    }

    /// The same for each client that sends more than is read. Default: the
    /// system's; see [`EngineBuilder::receive_buffer_bytes`].
    #[must_use]
    pub fn receive_buffer_bytes(mut self, bytes: usize) -> Config {
        self.receive_buffer_bytes = Some(bytes);
        self
    }

    /// How many events one address (of IPv6: one network of 64 bits) may
    /// publish; more are answered `429 Too Many Requests`. Default: no limit.
    #[must_use]
    pub fn publish_rate_per_address(mut self, rate: Rate) -> Config {
        self.publish_rate_per_address = Some(rate);
        self
    }

    /// Whether every request is logged: by the crate `log`, as a record of level
    /// info and target [`ACCESS_LOG`](crate::ACCESS_LOG). Default: false.
    #[must_use]
    pub fn access_log(mut self, is_on: bool) -> Config {
        self.access_log = is_on;
        self
    }

    /// Whether it is logged when streams begin and end and when events are
    /// published, under the target [`EVENT_LOG`](crate::EVENT_LOG). Costs some
    /// hundred bytes for each client. Default: false.
    #[must_use]
    pub fn event_log(mut self, is_on: bool) -> Config {
        self.event_log = is_on;
        self
    }

    /// For a server that listens on loopback alone: refuses requests for another
    /// host than loopback or one of `hosts`, of browsers always, of programs where
    /// they need no credential and the host has a dot (`421`, which ends DNS
    /// rebinding); and, without keys and tokens, publishing and managing by pages
    /// of other hosts (`403`). Pages of these hosts, on any port, may read answers.
    /// Default: nothing is refused, and only pages of the server's own origin may
    /// read.
    #[must_use]
    pub fn loopback_for(mut self, hosts: impl IntoIterator<Item = String>) -> Config {
        let hosts = Hosts {
            named: hosts.into_iter().collect(),
        };
        self.access.origins.local = Some(hosts.clone());
        self.checked_hosts = Some(hosts);
        self
    }

    /// For a server that listens on loopback alone: lets pages of loopback, on any
    /// port, read answers. [`loopback_for`](Self::loopback_for) includes it.
    /// Default: only pages of the server's own origin may read.
    #[must_use]
    pub fn allow_loopback_origins(mut self) -> Config {
        self.access.origins.local.get_or_insert_default();
        self
    }

    /// An engine with the server's routes and channels, to be bound.
    pub fn engine(&self) -> EngineBuilder {
        self.server().engine
    }

    /// The same, with what changes the configuration while it runs.
    #[must_use]
    pub fn server(&self) -> Server {
        self.server_of(&self.channels().build())
    }

    /// The same with the channels that [`ChannelManager::save`] has written;
    /// see [`ChannelManagerBuilder::restore`] for what has to be minded.
    ///
    /// # Errors
    /// When they cannot be restored.
    pub fn restored_server(&self, from: impl Read) -> Result<Server, RestoreError> {
        Ok(self.server_of(&self.channels().restore(from)?))
    }

    fn channels(&self) -> ChannelManagerBuilder {
        let mut channels = ChannelManager::builder()
            .options_by_name(self.options_by_name())
            .channels_max(self.channels_max)
            .republish_window(self.republish_window)
            .opaque_ids(self.opaque_ids);
        if let Some(max) = self.unpublished_channels_max {
            channels = channels.unpublished_channels_max(max);
        }
        if let Some(max) = self.unpublished_channels_per_source_max {
            channels = channels.unpublished_channels_per_source_max(max);
        }
        if let Some(bytes) = self.history_total {
            channels = channels.history_total(bytes);
        }
        channels
    }

    /// What a channel of a name is made with.
    fn options_by_name(&self) -> impl Fn(&str) -> ChannelOptions + Send + Sync + use<> {
        let (all, others) = (
            self.options_by_pattern.clone(),
            self.channel_options.clone(),
        );
        move |name| {
            let mut all = all.iter();
            let found = all.find(|(pattern, _)| pattern.matches(name));
            found.map_or(&others, |(_, options)| options).clone()
        }
    }

    /// The part that may change while the server runs.
    fn rules(&self) -> Rules {
        Rules {
            hosts: self.checked_hosts.clone(),
            access: Access::new(self.access.clone()),
            publish_rate_per_address: self.publish_rate_per_address,
            access_log: self.access_log,
            event_log: self.event_log,
        }
    }

    fn server_of(&self, channels: &ChannelManager) -> Server {
        let live = Live::new(self.rules());
        let engine = Engine::builder()
            .channels(channels)
            .threads(self.threads)
            .error_codes(CODES);
        let mut engine = cors::install(engine.limits(self.limits.clone()), &live);
        for (name, value) in DEFAULT_HEADERS {
            engine = engine.header(name, value);
        }
        if let Some(bytes) = self.send_buffer_bytes {
            engine = engine.send_buffer_bytes(bytes);
        }
        if let Some(bytes) = self.receive_buffer_bytes {
            engine = engine.receive_buffer_bytes(bytes);
        }
        let hosts = live.clone();
        let engine = engine.before(move |request| {
            let rules = hosts.rules();
            let checked = rules.hosts.as_ref()?;
            loopback::check_proxy(request, &rules.access, &hosts.proxy_warning)
                .or_else(|| loopback::check_page(checked, request, &rules.access))
        });
        let engine = access_log::keep(engine, &live);
        Server {
            engine: routes::add(engine, &live),
            reloader: Reloader {
                live,
                channels: channels.clone(),
                order: Arc::default(),
            },
        }
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

/// Changes the configuration of a server that runs.
#[derive(Clone, Debug)]
pub struct Reloader {
    live: Live,
    channels: ChannelManager,
    /// Held while it reloads: of two at once, the rules and the channels get
    /// the same.
    order: Arc<Mutex<()>>,
}

impl Reloader {
    /// Has the server go on with another configuration. Nobody is
    /// disconnected.
    ///
    /// Keys, tokens, origins, hosts and rates hold from the next request on. Channels are given
    /// their options as [`Channel::set_options`](pushwheel::Channel::set_options)
    /// does. How many channels and threads there may be stays as the server
    /// was made, and so do the engine's limits: these are for
    /// [`EngineHandle::set_limits`](pushwheel::EngineHandle::set_limits).
    pub fn reload(&self, config: &Config) {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        self.live.replace_rules(config.rules());
        self.channels.set_options_by_name(config.options_by_name());
    }
}

/// The limits of the server: the library's, and an age of one day for streams.
/// That is long enough to be no burden (one reconnection a second for each
/// 75,000 clients, who resume), and short enough that connections are spread
/// over several servers anew, and credentials looked at again, within it.
#[must_use]
pub fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.stream_age_max = Duration::from_secs(24 * 3600);
    limits
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
