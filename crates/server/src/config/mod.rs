//! The configuration of the server, and the server that it makes.

use std::io::{Read, Seek};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

mod access;

use ring::digest::SHA256;

use crate::access::{Access, AccessSettings, Hosts, TokenKeys};
use crate::context::{Context, CurrentConfig};
use crate::errors::CODES;
use crate::limits::{channel_options, limits};
use crate::pattern::Pattern;
use crate::{access_log, cors, loopback, routes};
use pushwheel::cluster::{BrokerError, ClusterOptions, SharedLog};
use pushwheel::{
    ChannelManager, ChannelManagerBuilder, ChannelOptions, Engine, EngineBuilder, JournalError,
    JournalOptions, Limits, Rate, RestoreError,
};

/// The headers of every response that does not set them itself. A response describes the
/// present: a cache would return it when it is no longer true. Streams and the page's files
/// set their own.
const DEFAULT_HEADERS: [(&str, &str); 2] = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
];

/// The configuration of a server, by method chaining.
#[derive(Clone, Debug)]
pub struct Config {
    channel_options: ChannelOptions,
    /// The first pattern that matches counts.
    options_by_pattern: Vec<(Pattern, ChannelOptions)>,
    raw: Vec<(Pattern, bool)>,
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
    access: AccessSettings,
    access_log: bool,
    event_log: bool,
    /// Whether requests are checked for the hosts of loopback.
    checks_hosts: bool,
    broker_grace: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Config::new()
    }
}

impl Config {
    /// Returns the default configuration. Each method names its default.
    #[must_use]
    pub fn new() -> Config {
        Config {
            channel_options: channel_options(),
            options_by_pattern: Vec::new(),
            raw: Vec::new(),
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
            access: AccessSettings::default(),
            access_log: false,
            event_log: false,
            checks_hosts: false,
            broker_grace: None,
        }
    }

    /// Sets the options of channels that match no pattern. Default: [`channel_options`].
    #[must_use]
    pub fn channel_options(mut self, options: ChannelOptions) -> Config {
        self.channel_options = options;
        self
    }

    /// Adds options for the channels whose names match a pattern. If several match, the
    /// first one added counts. Default: none.
    #[must_use]
    pub fn channel_options_for(mut self, pattern: Pattern, options: ChannelOptions) -> Config {
        self.options_by_pattern.push((pattern, options));
        self
    }

    /// Sets whether the body of each publish to the channels whose names match is the data of
    /// one event, whatever its `Content-Type`. The parameter `raw` of a request overrides it.
    /// If several patterns match, the first one added counts. Default: false.
    #[must_use]
    pub fn raw_for(mut self, pattern: Pattern, is_raw: bool) -> Config {
        self.raw.push((pattern, is_raw));
        self
    }

    /// Sets the maximum number of channels. Default: 100,000.
    #[must_use]
    pub fn channels_max(mut self, channels: usize) -> Config {
        self.channels_max = channels;
        self
    }

    /// Sets the time after the start in which publishers may repeat, with the same ids,
    /// events from before a restart; see
    /// [`ChannelManagerBuilder::republish_window`]. Default: 60 s.
    #[must_use]
    pub fn republish_window(mut self, time: Duration) -> Config {
        self.republish_window = time;
        self
    }

    /// Sets whether the ids of events hide the number of events; see
    /// [`ChannelManagerBuilder::opaque_ids`]. Default: false.
    #[must_use]
    pub fn opaque_ids(mut self, opaque: bool) -> Config {
        self.opaque_ids = opaque;
        self
    }

    /// Sets the maximum number of channels that subscriptions created and no publisher has
    /// published to. At the maximum of all channels, a publisher's new channel replaces one
    /// of these. Default: seven eighths of
    /// [`channels_max`](Self::channels_max).
    #[must_use]
    pub fn unpublished_channels_max(mut self, channels: usize) -> Config {
        self.unpublished_channels_max = Some(channels);
        self
    }

    /// Sets the maximum number of unpublished channels of one source of subscriptions: a
    /// token, or the address of a request without one (IPv6: a network of 64 bits). A
    /// request that may publish to all channels has no such limit. Default: a
    /// sixteenth of [`channels_max`](Self::channels_max).
    #[must_use]
    pub fn unpublished_channels_per_source_max(mut self, channels: usize) -> Config {
        self.unpublished_channels_per_source_max = Some(channels);
        self
    }

    /// Sets the maximum bytes of all channels together: histories, and events that slow
    /// clients have not received yet. Default: no limit; see
    /// [`ChannelManagerBuilder::history_total`]. `pushwheel serve` sets half of
    /// the memory that the process may use.
    #[must_use]
    pub fn history_total(mut self, bytes: usize) -> Config {
        self.history_total = Some(bytes);
        self
    }

    /// Sets the number of threads of the engine. Default: 1; see
    /// [`EngineBuilder::threads`].
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Config {
        self.threads = threads;
        self
    }

    /// Sets the limits of connections, of the size of requests, and of the time that a
    /// client may take. Default: [`limits`].
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Config {
        self.limits = limits;
        self
    }

    /// Sets the bytes that the kernel holds for each client that does not read. Default:
    /// the system's; see
    /// [`EngineBuilder::send_buffer_bytes`].
    #[must_use]
    pub fn send_buffer_bytes(mut self, bytes: usize) -> Config {
        self.send_buffer_bytes = Some(bytes);
        self
    }

    /// Sets the bytes that the kernel holds for each client that sends faster than the
    /// engine reads. Default: the system's; see [`EngineBuilder::receive_buffer_bytes`].
    #[must_use]
    pub fn receive_buffer_bytes(mut self, bytes: usize) -> Config {
        self.receive_buffer_bytes = Some(bytes);
        self
    }

    /// Sets the rate of events that one address (IPv6: a network of 64 bits) may publish.
    /// Beyond it the response is `429 Too Many Requests`. Default: no limit.
    #[must_use]
    pub fn publish_rate_per_address(mut self, rate: Rate) -> Config {
        self.publish_rate_per_address = Some(rate);
        self
    }

    /// Sets whether every request is logged, with the crate `log`, level info and the target
    /// [`ACCESS_LOG`](crate::ACCESS_LOG). Default: false.
    #[must_use]
    pub fn access_log(mut self, is_on: bool) -> Config {
        self.access_log = is_on;
        self
    }

    /// Sets whether starts and ends of streams and published events are logged, with the
    /// target [`EVENT_LOG`](crate::EVENT_LOG). Takes some hundred bytes per client. Default:
    /// false.
    #[must_use]
    pub fn event_log(mut self, is_on: bool) -> Config {
        self.event_log = is_on;
        self
    }

    /// Protects a server that listens on loopback only. It refuses requests for a host
    /// other than loopback and `hosts` (`421`, against DNS rebinding): all of browsers, and
    /// those of programs that need no credential, if the host has a dot. Without keys and
    /// tokens it also refuses to publish and manage for pages of other hosts (`403`). Pages
    /// of these hosts, on any port, may read responses. Default: refuses nothing, and only
    /// pages of the server's own origin may read.
    #[must_use]
    pub fn loopback_for(mut self, hosts: impl IntoIterator<Item = String>) -> Config {
        let hosts = Hosts {
            named: hosts.into_iter().collect(),
        };
        self.access.origins.local = Some(hosts);
        self.checks_hosts = true;
        self
    }

    /// Lets pages of loopback, on any port, read responses; for a server that listens on
    /// loopback only. [`loopback_for`](Self::loopback_for) includes it. Default: only pages
    /// of the server's own origin may read.
    #[must_use]
    pub fn allow_loopback_origins(mut self) -> Config {
        self.access.origins.local.get_or_insert_default();
        self
    }

    /// Sets the time without the broker after which a node of a cluster is not ready.
    /// Default: it stays ready.
    #[must_use]
    pub fn broker_grace(mut self, time: Option<Duration>) -> Config {
        self.broker_grace = time;
        self
    }

    /// Returns an engine with the server's routes and channels, ready to be bound.
    pub fn engine(&self) -> EngineBuilder {
        self.server().engine
    }

    /// Returns such an engine, and a [`Reloader`] for it.
    #[must_use]
    pub fn server(&self) -> Server {
        self.server_of(&self.channels().build())
    }

    /// Returns a server with the channels that [`ChannelManager::save`] has written; see
    /// [`ChannelManagerBuilder::restore`] for the conditions.
    ///
    /// # Errors
    /// If they cannot be restored.
    pub fn restored_server(&self, from: impl Read) -> Result<Server, RestoreError> {
        Ok(self.server_of(&self.channels().restore(from)?))
    }

    /// Returns a server with the channels that a journal has, which writes all further
    /// events to it; see [`ChannelManagerBuilder::open_journal`]. With it a publish is
    /// answered when the journal has it.
    ///
    /// # Errors
    /// If the journal cannot be opened.
    pub fn journaled_server(
        &self,
        directory: impl AsRef<Path>,
        options: JournalOptions,
    ) -> Result<Server, JournalError> {
        Ok(self.server_of(&self.channels().open_journal(directory, options)?))
    }

    /// Returns a node of a cluster, with the channels that its log has; see
    /// [`ChannelManagerBuilder::join_cluster`]. A publish is answered when this node has
    /// read it from the log. The digest of the options is that of this configuration.
    ///
    /// # Errors
    /// If the node cannot join.
    pub fn clustered_server(
        &self,
        log: impl SharedLog,
        options: ClusterOptions,
    ) -> Result<Server, BrokerError> {
        let options = options.options_digest(self.options_digest());
        Ok(self.server_of(&self.channels().join_cluster(log, options)?))
    }

    /// Returns a number that is the same for equal options of channels.
    fn options_digest(&self) -> u64 {
        let options = (&self.channel_options, &self.options_by_pattern);
        let digest = ring::digest::digest(&SHA256, format!("{options:?}").as_bytes());
        let (first, _) = digest
            .as_ref()
            .split_first_chunk()
            .expect("it has 32 bytes");
        u64::from_le_bytes(*first)
    }

    /// Begins a journal with a saved state; see [`ChannelManagerBuilder::import_journal`].
    ///
    /// # Errors
    /// If the state cannot be used, or the directory has a journal.
    pub fn import_journal(
        &self,
        directory: impl AsRef<Path>,
        state: impl Read + Seek,
    ) -> Result<(), JournalError> {
        self.channels().import_journal(directory, state)
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

    /// Returns the function that maps a channel's name to its options.
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

    /// Returns the part that a reload replaces.
    fn current(&self, fetched_keys: TokenKeys) -> CurrentConfig {
        let patterns = self.options_by_pattern.iter();
        CurrentConfig {
            checks_hosts: self.checks_hosts,
            access: Access::new(self.access.clone(), fetched_keys),
            patterns: patterns.map(|(pattern, _)| pattern.clone()).collect(),
            raw: self.raw.clone(),
            publish_rate_per_address: self.publish_rate_per_address,
            access_log: self.access_log,
            event_log: self.event_log,
        }
    }

    fn server_of(&self, channels: &ChannelManager) -> Server {
        let context = Context::new(
            self.current(TokenKeys::default()),
            channels,
            self.broker_grace,
        );
        let engine = Engine::builder()
            .channels(channels)
            .threads(self.threads)
            .error_codes(CODES);
        let mut engine = cors::install(engine.limits(self.limits.clone()), &context);
        for (name, value) in DEFAULT_HEADERS {
            engine = engine.header(name, value);
        }
        if let Some(bytes) = self.send_buffer_bytes {
            engine = engine.send_buffer_bytes(bytes);
        }
        if let Some(bytes) = self.receive_buffer_bytes {
            engine = engine.receive_buffer_bytes(bytes);
        }
        let engine = loopback::install(engine, &context);
        let engine = access_log::install(engine, &context);
        Server {
            engine: routes::add(engine, &context),
            reloader: Reloader {
                context,
                channels: channels.clone(),
                order: Arc::default(),
            },
        }
    }
}

/// A server that is not bound yet.
#[derive(Debug)]
pub struct Server {
    /// The engine, with the server's routes and channels.
    pub engine: EngineBuilder,
    /// Changes the configuration later.
    pub reloader: Reloader,
}

/// Changes the configuration of a running server.
#[derive(Clone, Debug)]
pub struct Reloader {
    context: Context,
    channels: ChannelManager,
    /// Held during a reload, so that after two at once the requests and the channels have
    /// the same configuration.
    order: Arc<Mutex<()>>,
}

impl Reloader {
    /// Replaces the configuration of the server. No client is disconnected.
    ///
    /// Keys, tokens, origins, hosts and rates apply from the next request on. Channels get
    /// their options as by [`Channel::set_options`](pushwheel::Channel::set_options). The
    /// numbers of channels and threads do not change. For the engine's limits there is
    /// [`EngineHandle::set_limits`](pushwheel::EngineHandle::set_limits).
    pub fn reload(&self, config: &Config) {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let fetched = self.context.access.fetched_keys();
        self.context.set_config(config.current(fetched));
        self.channels.set_options_by_name(config.options_by_name());
    }

    /// Replaces the keys for tokens that the program has fetched; see
    /// [`Config::fetches_token_keys`]. They count from the next request on, and stay over a
    /// reload.
    pub fn set_fetched_token_keys(&self, keys: TokenKeys) {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        self.context.access.set_fetched_keys(keys.clone());
        let config = self.context.config();
        self.context.set_config(CurrentConfig {
            access: config.access.with_fetched_keys(keys),
            patterns: config.patterns.clone(),
            raw: config.raw.clone(),
            ..*config
        });
    }

    /// Counts a fetch of keys for tokens, for `/metrics`.
    pub fn count_token_key_fetch(&self, is_done: bool) {
        self.context.access.count_key_fetch(is_done);
    }
}
