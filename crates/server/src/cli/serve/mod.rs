//! `pushwheel serve`

mod access;
pub(super) mod announcing;
mod arguments;
#[cfg(feature = "redis")]
mod broker;
mod descriptors;
mod ending;
#[cfg(target_os = "linux")]
mod io_uring;
mod journal;
mod key_set;
mod keys;
mod limits;
mod listening;
mod lock;
mod memory;
mod observing;
mod proxies;
mod socket_file;
mod state;
mod systemd;
mod tokens;
mod warnings;

use std::ffi::OsString;
use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use pushwheel::{ChannelManager, EngineHandle};
use pushwheel_server::{Config, Reloader, Server};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::{Failure, log as cli_log};
use announcing::announce;
pub(crate) use arguments::{Arguments, ChannelRule, Settings};
use ending::EndingArguments;
use keys::Reached;
pub(super) use listening::unix_path;
use listening::{Endpoint, cannot_listen};
use state::StateFile;
pub(crate) use tokens::TokenArguments;
pub(crate) use warnings::warnings;

/// The settings that take effect only after a restart.
const FIXED: &[&str] = &[
    "listen",
    "socket_mode",
    "max_channels",
    "republish_window",
    "opaque_ids",
    "max_unpublished_channels",
    "max_unpublished_channels_per_source",
    "history_total_bytes",
    "threads",
    #[cfg(target_os = "linux")]
    "io_uring",
    "state",
    "journal",
    "journal_sync",
    "journal_bytes",
    "send_buffer_bytes",
    "receive_buffer_bytes",
    "trusted_proxy",
    "proxy_protocol",
    "token_jwks_url",
    "token_jwks_cacert",
    "token_jwks_interval",
];

/// How a running server is reached, whatever the new settings are.
#[derive(Clone, Debug, Default)]
struct Reach {
    /// Where it listens, if it has a socket already.
    endpoints: Vec<Endpoint>,
    /// Whether it was started with trusted proxies.
    has_proxies: bool,
}

/// Returns the configuration for the settings, and where to listen.
pub(crate) fn configure(settings: &Settings) -> Result<(Config, Vec<Endpoint>), Failure> {
    configure_on(settings, &Reach::default())
}

/// The same for a server that already has a socket or runs. New settings do not change how
/// it is reached, but have to fit to it.
fn configure_on(settings: &Settings, reach: &Reach) -> Result<(Config, Vec<Endpoint>), Failure> {
    let arguments = &settings.arguments;
    let with_place = |keys: &[&str], failure| settings.with_place(keys, failure);
    let mut endpoints = reach.endpoints.clone();
    if endpoints.is_empty() {
        let resolved = arguments
            .listen
            .iter()
            .map(|listen| Endpoint::resolve(listen));
        let resolved = resolved.collect::<Result<_, _>>();
        endpoints = resolved.map_err(|failure| with_place(&["listen"], failure))?;
    }
    let mut config = Config::new()
        .channel_options(arguments.channels.options())
        .channels_max(arguments.max_channels)
        .republish_window(Duration::from_secs(arguments.republish_window))
        .opaque_ids(arguments.opaque_ids)
        .threads(usize::from(arguments.threads));
    if let Some(max) = arguments.max_unpublished_channels {
        config = config.unpublished_channels_max(max);
    }
    if let Some(max) = arguments.max_unpublished_channels_per_source {
        config = config.unpublished_channels_per_source_max(max);
    }
    if let Some(bytes) = arguments.history_total_bytes.or_else(memory::history_total) {
        config = config.history_total(bytes);
    }
    let shutdown = arguments.ending.shutdown();
    shutdown
        .map(drop)
        .map_err(|failure| with_place(&EndingArguments::KEYS, failure))?;
    check_places(settings)?;
    check_rules(settings)?;
    for rule in &settings.rules {
        config = config.channel_options_for(rule.pattern.clone(), rule.options.options());
    }
    let token_keys = arguments.access.tokens.token_keys();
    let token_keys = token_keys.map_err(|(key, failure)| with_place(&[key], failure))?;
    // It is fetched later. A wrong URL is an error here.
    let key_set = arguments.access.tokens.key_set();
    key_set.map_err(|(key, failure)| with_place(&[key], failure))?;
    config = arguments.access.apply(config, token_keys);
    let has_tokens = config.has_tokens();
    for rule in &settings.rules {
        config = config.public_for(rule.pattern.clone(), rule.public);
        config = config.raw_for(rule.pattern.clone(), rule.raw);
    }
    if let Some(rate) = arguments.publish_rate_per_address {
        config = config.publish_rate_per_address(rate);
    }
    let proxies = arguments.proxies.check();
    proxies.map_err(|failure| with_place(&["proxy_protocol"], failure))?;
    config = arguments.limits.apply(config);
    #[cfg(feature = "redis")]
    {
        config = config.broker_grace(arguments.broker.grace());
    }
    config = arguments.logs.observe(config);

    let mut exposed = endpoints.iter().filter(|at| at.is_reached_by_others());
    let exposed = exposed.next();
    let first = exposed.or(endpoints.first()).map(Endpoint::to_string);
    let reached = Reached {
        listen: &first.unwrap_or_default(),
        by_others: exposed.is_some(),
        by_proxies: reach.has_proxies || arguments.proxies.are_any(),
    };
    let config = keys::secure(settings, config, &reached, has_tokens)?;
    Ok((config, endpoints))
}

/// Rejects more than one place for the history.
fn check_places(settings: &Settings) -> Result<(), Failure> {
    let arguments = &settings.arguments;
    let places = [
        ("state", arguments.state.is_some()),
        ("journal", arguments.journal.journal.is_some()),
        #[cfg(feature = "redis")]
        ("broker", arguments.broker.is_set()),
    ];
    let set = places.iter().filter(|(_, is_set)| *is_set);
    let set: Vec<&str> = set.map(|(key, _)| *key).collect();
    if set.len() > 1 {
        let failure = "a server keeps its history in one of --state, --journal and --broker. \
                       `pushwheel journal import` makes a journal from a state";
        return Err(settings.with_place(&set, failure.into()));
    }
    #[cfg(feature = "redis")]
    arguments
        .broker
        .log(arguments.limits.max_body_bytes)
        .map_err(|(keys, failure)| settings.with_place(keys, failure))?;
    Ok(())
}

/// Rejects a pattern that never applies, because an earlier one matches the same channels.
fn check_rules(settings: &Settings) -> Result<(), Failure> {
    for (index, rule) in settings.rules.iter().enumerate() {
        let mut before = settings.rules[..index].iter();
        if let Some(first) = before.find(|first| first.pattern.covers(&rule.pattern)) {
            let (pattern, first) = (&rule.pattern, &first.pattern);
            let text = format!(
                "the pattern `{pattern}` never applies, because the earlier pattern `{first}` \
                 matches the same channels. Move it up, or remove it"
            );
            return Err(settings.with_rule_place(index, &text));
        }
    }
    Ok(())
}

/// Makes the server, with the history that it has kept.
fn open(
    settings: &Settings,
    config: &Config,
    endpoints: &[Endpoint],
    shutdown_max: Duration,
) -> Result<(Option<StateFile>, Server), Failure> {
    let arguments = &settings.arguments;
    #[cfg(not(feature = "redis"))]
    let _ = endpoints;
    #[cfg(feature = "redis")]
    {
        let log = arguments.broker.log(arguments.limits.max_body_bytes);
        let log = log.map_err(|(keys, failure)| settings.with_place(keys, failure))?;
        if let Some(log) = log {
            return Ok((None, arguments.broker.join(log, config, endpoints)?));
        }
    }
    if let Some(path) = &arguments.state {
        let (state, server) = StateFile::load(path, config, shutdown_max)?;
        return Ok((Some(state), server));
    }
    let server = match &arguments.journal.journal {
        Some(directory) => arguments.journal.open(directory, config, shutdown_max)?,
        None => config.server(),
    };
    Ok((None, server))
}

pub(crate) fn run(words: Vec<OsString>) -> Result<(), Failure> {
    // First of all: by default each of these signals kills the process.
    let no_signals = |error| format!("cannot handle signals ({error})");
    let (signals, is_starting) = listen_to_signals().map_err(no_signals)?;
    let settings = Settings::resolve(&words)?;
    let arguments = &settings.arguments;
    arguments.logs.apply()?;
    log_warnings(&settings);
    let (mut listeners, given) = systemd::listeners()?;
    let reach = Reach {
        endpoints: given,
        has_proxies: false,
    };
    let (config, mut endpoints) = configure_on(&settings, &reach)?;
    let shutdown_max = Duration::from_secs(arguments.ending.deadline_s());
    let (mut state, server) = open(&settings, &config, &endpoints, shutdown_max)?;
    let key_set = arguments.access.tokens.key_set();
    let mut key_set = key_set.map_err(|(key, failure)| settings.with_place(&[key], failure))?;
    if let Some(key_set) = &mut key_set {
        key_set.update(&server.reloader);
    }
    let engine = arguments.proxies.apply(server.engine);
    let engine = descriptors::apply(engine, arguments.threads, endpoints.len());
    #[cfg(target_os = "linux")]
    let engine = io_uring::apply(engine, arguments.io_uring);
    let mut socket_files = Vec::new();
    if listeners.is_empty() {
        for endpoint in &mut endpoints {
            let listening = endpoint.listen(&engine, arguments.socket_mode);
            let listening = listening.map_err(|failure| settings.with_place(&["listen"], failure));
            let (listener, at, file) = listening?;
            listeners.push(listener);
            *endpoint = at;
            socket_files.extend(file);
        }
    }
    let engine = engine.listen_on_all(listeners).map_err(|error| {
        let listen = endpoints.first().map(Endpoint::to_string);
        let failure = cannot_listen(&listen.unwrap_or_default(), &error);
        settings.with_place(&["listen"], failure)
    })?;
    warn_of_open_access(arguments, &endpoints, config.has_tokens());
    let channels = engine.channels().clone();
    let interval = Duration::from_secs(arguments.access.token_jwks_interval);
    let key_fetcher = key_set.map(|set| set.keep_updated(server.reloader.clone(), interval));
    let key_fetcher = key_fetcher.transpose();
    let key_fetcher = key_fetcher
        .map_err(|error| format!("cannot start the thread that fetches keys ({error})"))?;
    let started = Arc::new(settings);
    let handler = SignalHandler {
        handle: engine.handle(),
        channels: channels.clone(),
        reloader: server.reloader,
        key_fetcher,
        reach: Reach {
            endpoints: endpoints.clone(),
            has_proxies: started.arguments.proxies.are_any(),
        },
        words,
        applied: started.clone(),
        started: started.clone(),
        has_tokens: config.has_tokens(),
        forced_by: Arc::default(),
    };
    let forced_by = handler.forced_by.clone();
    handler.start(signals).map_err(no_signals)?;
    is_starting.store(false, Ordering::SeqCst);
    // The engine's thread must not wait for a slow reader of the log.
    cli_log::write_behind()
        .map_err(|error| format!("cannot start the thread of the log ({error})"))?;
    systemd::watch(engine.handle())?;
    // The last step that can fail: from here on the history is saved at the end.
    if let Some(state) = &mut state {
        state.consume(&channels)?;
    }
    if let Some(directory) = &started.arguments.journal.journal {
        journal::announce(directory, &channels);
    }
    #[cfg(feature = "redis")]
    if started.arguments.broker.is_set() {
        let shutdown = started.arguments.ending.shutdown().expect("it was checked");
        broker::watch(&channels, engine.handle(), shutdown)
            .map_err(|error| format!("cannot start the thread of the cluster ({error})"))?;
        broker::announce(&channels);
    }
    announce(&started, &endpoints, config.has_tokens());
    if !config.is_secured() && !started.arguments.keys.allow_missing_keys {
        log::warn!(
            "there are no keys: every program that reaches this port, also through a proxy, can \
             publish and manage. Set --admin-key and --publish-key before others can reach it"
        );
    }
    systemd::notify_ready();
    let ran = engine
        .run()
        .map_err(|error| format!("the server failed ({error})"));
    drop(socket_files);
    // The history is saved however the server ended.
    let saved = state.map_or(Ok(()), |state| state.save(&channels));
    let closed = journal::close(&channels);
    let left = leave(&channels);
    ran.and(saved).and(closed).and(left)?;
    match forced_by.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => {
            log::logger().flush();
            process::exit(128 + signal)
        }
    }
}

/// Leaves the cluster of an engine that has stopped, if it is in one.
#[cfg(feature = "redis")]
fn leave(channels: &ChannelManager) -> Result<(), Failure> {
    broker::leave(channels)
}

#[cfg(not(feature = "redis"))]
fn leave(_: &ChannelManager) -> Result<(), Failure> {
    Ok(())
}

fn log_warnings(settings: &Settings) {
    for warning in warnings(settings) {
        log::warn!("{warning}");
    }
}

/// Warns about what every client that reaches the server can do.
fn warn_of_open_access(arguments: &Arguments, endpoints: &[Endpoint], has_tokens: bool) {
    let mut exposed = endpoints.iter().filter(|at| at.is_reached_by_others());
    let proxied = endpoints.first().filter(|_| arguments.proxies.are_any());
    let Some(address) = exposed.next().or(proxied) else {
        return;
    };
    if arguments.keys.allow_missing_keys {
        log::warn!(
            "other machines can reach {address}, and --allow-missing-keys allows them everything"
        );
    } else if !has_tokens && !arguments.access.all_are_public() {
        log::warn!(
            "every client that reaches {address} can subscribe to every channel. Set \
             --token-secret-file FILE to require tokens, or --public-channel '*' if all channels \
             are meant to be public"
        );
    }
}

/// Collects signals from here on. While the returned flag is true, SIGINT and SIGTERM end
/// the process: before there is an engine, nothing is lost. (The first process of a
/// container would otherwise ignore them.) A SIGHUP waits for [`SignalHandler::start`].
fn listen_to_signals() -> io::Result<(Signals, Arc<AtomicBool>)> {
    let is_starting = Arc::new(AtomicBool::new(true));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 0, is_starting.clone())?;
    }
    Ok((Signals::new([SIGHUP, SIGINT, SIGTERM])?, is_starting))
}

/// Shuts down or reloads on signals.
struct SignalHandler {
    handle: EngineHandle,
    channels: ChannelManager,
    reloader: Reloader,
    /// The thread that fetches keys for tokens, if there is one.
    key_fetcher: Option<Thread>,
    reach: Reach,
    /// The arguments of the command line, to parse again.
    words: Vec<OsString>,
    /// The settings at the start, for those that need a restart.
    started: Arc<Settings>,
    /// The current settings, for all others.
    applied: Arc<Settings>,
    /// Whether channels are closed to clients without a token.
    has_tokens: bool,
    /// The signal that ended the shutdown early; 0 for none.
    forced_by: Arc<AtomicI32>,
}

impl SignalHandler {
    /// Handles signals on a thread of its own. SIGHUP reads the configuration again. The
    /// first SIGINT or SIGTERM shuts down, the second one disconnects all clients
    /// immediately and saves the history, and the third one exits without saving.
    fn start(mut self, mut signals: Signals) -> io::Result<()> {
        let wait = move || {
            let mut ends = 0;
            for signal in signals.forever() {
                if signal == SIGHUP {
                    systemd::notify_reloading();
                    self.reload();
                    systemd::notify_ready();
                    continue;
                }
                ends += 1;
                match ends {
                    1 => self.shut_down(),
                    2 => {
                        self.forced_by.store(signal, Ordering::Relaxed);
                        self.handle.shutdown(Duration::ZERO);
                    }
                    _ => process::exit(128 + signal),
                }
            }
        };
        let thread = thread::Builder::new().name("pushwheel-signals".into());
        thread.spawn(wait).map(drop)
    }

    fn shut_down(&self) {
        let ending = &self.applied.arguments.ending;
        let shutdown = ending.shutdown().expect("it was checked");
        let seconds = ending.deadline_s();
        log::info!("shutting down (up to {seconds} s). Send the signal again to stop immediately");
        systemd::notify_stopping();
        // The other nodes of a cluster see it.
        self.channels.set_draining(true);
        self.handle.shutdown(shutdown);
    }

    /// Reads the settings again. If one is wrong, all previous settings stay.
    fn reload(&mut self) {
        let read = Settings::resolve(&self.words)
            .and_then(|settings| Ok((configure_on(&settings, &self.reach)?.0, settings)));
        let read = read.and_then(|(config, settings)| {
            settings.arguments.logs.apply()?;
            Ok((config, settings))
        });
        let (config, settings) = match read {
            Ok(read) => read,
            Err(failure) => {
                log::error!("configuration not reloaded, keeping the previous one. {failure}");
                return;
            }
        };
        log_warnings(&settings);
        // Without the URL the channels stay closed, until a restart.
        let config = config.fetches_token_keys(self.key_fetcher.is_some());
        self.reloader.reload(&config);
        if let Some(thread) = &self.key_fetcher {
            thread.unpark();
        }
        if self.has_tokens && !config.has_tokens() {
            log::warn!(
                "there is no key for tokens any more, so every client can subscribe to every \
                 channel. Set --token-secret-file, --token-public-key-file or --token-jwks-file"
            );
        }
        self.has_tokens = config.has_tokens();
        let limits = settings.arguments.limits.limits();
        self.handle.set_limits(&limits);
        #[cfg(feature = "redis")]
        let is_of_broker = |name: &str| broker::KEYS.contains(&name);
        #[cfg(not(feature = "redis"))]
        let is_of_broker = |_: &str| false;
        let is_fixed = |name: &String| FIXED.contains(&&**name) || is_of_broker(name);
        let mut fixed = self.started.differing(&settings);
        fixed.retain(is_fixed);
        let mut changed = self.applied.differing(&settings);
        changed.retain(|name| !is_fixed(name));
        let patterns = self.applied.differing_rules(&settings).into_iter();
        changed.extend(patterns.map(|pattern| format!("[[channel]] {pattern}")));
        if !fixed.is_empty() {
            let names = fixed.join(", ");
            log::warn!("{names}: changed, but takes effect only after a restart");
        }
        match changed.is_empty() {
            true => log::info!("configuration reloaded, nothing changed"),
            false => log::info!("configuration reloaded, changed: {}", changed.join(", ")),
        }
        self.applied = Arc::new(settings);
    }
}
