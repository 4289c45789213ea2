//! `pushwheel serve`

mod access;
mod announcing;
mod arguments;
mod descriptors;
mod doubts;
mod ending;
mod keys;
mod limits;
mod listening;
mod memory;
mod observing;
mod proxies;
mod state;
mod systemd;

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use pushwheel::EngineHandle;
use pushwheel_server::{Config, Reloader};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::{Failure, log as cli_log, settings};
use announcing::announce;
pub(crate) use arguments::{Arguments, ChannelRule};
pub(crate) use doubts::doubts;
use ending::EndingArguments;
use keys::Reached;
use listening::cannot_listen;
use state::StateFile;

/// What takes effect only at the next start.
const FIXED: &[&str] = &[
    "listen",
    "max_channels",
    "republish_window",
    "opaque_ids",
    "max_unpublished_channels",
    "max_unpublished_channels_per_source",
    "history_total_bytes",
    "threads",
    "state",
    "send_buffer_bytes",
    "receive_buffer_bytes",
    "trusted_proxy",
    "proxy_protocol",
];

pub(crate) type Settings = settings::Settings<Arguments, ChannelRule>;

/// How a server is reached, whatever its settings say.
#[derive(Clone, Copy, Debug, Default)]
struct Reach {
    /// Where it listens already.
    address: Option<SocketAddr>,
    /// Whether it was started with trusted proxies.
    has_proxies: bool,
}

/// The configuration that settings come to, and where it is to listen.
pub(crate) fn configure(settings: &Settings) -> Result<(Config, Vec<SocketAddr>), Failure> {
    configure_on(settings, Reach::default())
}

/// The same of a server that has a socket, or runs: who reaches it is not for
/// new settings to say, only what they need then.
fn configure_on(settings: &Settings, reach: Reach) -> Result<(Config, Vec<SocketAddr>), Failure> {
    let arguments = &settings.arguments;
    let blame = |keys: &[&str], failure| settings.blame(keys, failure);
    let address = reach.address.map(|address| address.to_string());
    let listen = address.unwrap_or_else(|| arguments.listen.clone());
    let addresses = listen
        .to_socket_addrs()
        .map_err(|error| blame(&["listen"], cannot_listen(&listen, &error)))?;
    let addresses: Vec<SocketAddr> = addresses.collect();
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
        .map_err(|failure| blame(&EndingArguments::KEYS, failure))?;
    check_rules(settings)?;
    for rule in &settings.rules {
        config = config.channel_options_for(rule.pattern.clone(), rule.options.options());
    }
    let token_keys = arguments.access.token_keys();
    let token_keys = token_keys.map_err(|(key, failure)| blame(&[key], failure))?;
    let has_tokens = !token_keys.is_empty();
    config = arguments.access.apply(config, token_keys);
    for rule in &settings.rules {
        config = config.public_for(rule.pattern.clone(), rule.public);
    }
    if let Some(rate) = arguments.publish_rate_per_address {
        config = config.publish_rate_per_address(rate);
    }
    let proxies = arguments.proxies.check();
    proxies.map_err(|failure| blame(&["proxy_protocol"], failure))?;
    config = arguments.limits.apply(config);
    config = arguments.logs.observe(config);

    let is_loopback = addresses
        .iter()
        .all(|address| address.ip().to_canonical().is_loopback());
    let reached = Reached {
        listen: &listen,
        by_others: !is_loopback,
        by_proxies: reach.has_proxies || arguments.proxies.are_any(),
    };
    let config = keys::secure(settings, config, &reached, has_tokens)?;
    Ok((config, addresses))
}

/// Refuses a pattern that no channel can come to, because of one before it.
fn check_rules(settings: &Settings) -> Result<(), Failure> {
    for (index, rule) in settings.rules.iter().enumerate() {
        let mut before = settings.rules[..index].iter();
        if let Some(first) = before.find(|first| first.pattern.covers(&rule.pattern)) {
            let (pattern, first) = (&rule.pattern, &first.pattern);
            let told = format!(
                "no channel has this, for the first pattern that matches counts, and `{first}` \
                 before it is all of `{pattern}`: put this one before it, or take it out"
            );
            return Err(settings.blame_rule(index, &told));
        }
    }
    Ok(())
}

pub(crate) fn run(words: Vec<OsString>) -> Result<(), Failure> {
    // Before all else: by default each of these signals kills the process.
    let no_signals = |error| format!("cannot listen to signals: {error}");
    let (signals, is_starting) = listen_to_signals().map_err(no_signals)?;
    let settings = Settings::resolve(&words)?;
    let arguments = &settings.arguments;
    arguments.logs.apply()?;
    warn_of_doubts(&settings);
    let listener = systemd::listener()?;
    let given = listener.as_ref().map(TcpListener::local_addr).transpose();
    let given = given.map_err(|error| format!("the socket of systemd has no address: {error}"))?;
    let reach = Reach {
        address: given,
        has_proxies: false,
    };
    let (config, addresses) = configure_on(&settings, reach)?;
    let (mut state, server) = match &arguments.state {
        Some(path) => {
            let shutdown_max = Duration::from_secs(arguments.ending.deadline_s());
            let (state, server) = StateFile::load(path, &config, shutdown_max)?;
            (Some(state), server)
        }
        None => (None, config.server()),
    };
    let engine = arguments.proxies.apply(server.engine);
    let engine = descriptors::apply(engine, arguments.threads);
    let engine = match listener {
        Some(listener) => engine.listen_on(listener),
        None => engine.bind(&*addresses),
    };
    let engine = engine
        .map_err(|error| settings.blame(&["listen"], cannot_listen(&arguments.listen, &error)))?;
    warn_of_open_access(arguments, engine.local_addr(), config.has_tokens());
    let channels = engine.channels().clone();
    let started = Arc::new(settings);
    let desk = SignalDesk {
        handle: engine.handle(),
        reloader: server.reloader,
        reach: Reach {
            address: Some(engine.local_addr()),
            has_proxies: started.arguments.proxies.are_any(),
        },
        words,
        applied: started.clone(),
        started: started.clone(),
        has_tokens: config.has_tokens(),
        forced_by: Arc::default(),
    };
    let forced_by = desk.forced_by.clone();
    desk.open(signals).map_err(no_signals)?;
    is_starting.store(false, Ordering::SeqCst);
    // The engine's thread must not wait for whoever reads the log.
    cli_log::write_behind().map_err(|error| format!("there is no thread for the log: {error}"))?;
    systemd::watch(engine.handle())?;
    // Last of all that can fail: from here on the history is saved at the end.
    if let Some(state) = &mut state {
        state.consume(&channels)?;
    }
    announce(&started, engine.local_addr(), config.has_tokens());
    if !config.is_secured() && !started.arguments.keys.allow_missing_keys {
        log::warn!(
            "there are no keys: every program that reaches this port, also through a proxy, may \
             publish and manage. Set --admin-key and --publish-key before others can reach it"
        );
    }
    systemd::tell_ready();
    let ran = engine
        .run()
        .map_err(|error| format!("the server cannot go on: {error}"));
    // However it ended, what was published is there to be saved.
    let saved = state.map_or(Ok(()), |state| state.save(&channels));
    ran.and(saved)?;
    match forced_by.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => {
            log::logger().flush();
            process::exit(128 + signal)
        }
    }
}

fn warn_of_doubts(settings: &Settings) {
    for doubt in doubts(settings) {
        log::warn!("{doubt}");
    }
}

/// Warns of what every client that reaches the server may do.
fn warn_of_open_access(arguments: &Arguments, address: SocketAddr, has_tokens: bool) {
    let is_reached = !address.ip().to_canonical().is_loopback() || arguments.proxies.are_any();
    if !is_reached {
        return;
    }
    if arguments.keys.allow_missing_keys {
        log::warn!(
            "{address} can be reached by others, and --allow-missing-keys lets them do everything"
        );
    } else if !has_tokens && !arguments.access.all_are_public() {
        log::warn!(
            "every client that reaches {address} may subscribe to every channel. Set \
             --token-secret-file FILE to require tokens, or --public-channel '*' if all channels \
             are meant to be public"
        );
    }
}

/// Collects signals from here on, and has SIGINT and SIGTERM end the process while
/// the flag that it returns is true: until there is an engine to shut down, nothing
/// is lost by it. (The first process of a container would ignore them otherwise.)
/// SIGHUP is kept for [`SignalDesk::open`], which then reads the settings again.
fn listen_to_signals() -> io::Result<(Signals, Arc<AtomicBool>)> {
    let is_starting = Arc::new(AtomicBool::new(true));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 0, is_starting.clone())?;
    }
    Ok((Signals::new([SIGHUP, SIGINT, SIGTERM])?, is_starting))
}

/// What signals ask for.
struct SignalDesk {
    handle: EngineHandle,
    reloader: Reloader,
    reach: Reach,
    /// Those of the command line, to be read again.
    words: Vec<OsString>,
    /// Those that it was started with: what is fixed holds as they say.
    started: Arc<Settings>,
    /// Those that were read last: all else holds as they say.
    applied: Arc<Settings>,
    /// Whether channels are closed to clients without a token.
    has_tokens: bool,
    /// The signal that ended the shutdown before its time; 0: none.
    forced_by: Arc<AtomicI32>,
}

impl SignalDesk {
    /// Listens on a thread of its own. SIGHUP reads the configuration again;
    /// of the others the first one lets everybody finish, the second one ends
    /// at once, but for what was published, which is saved, and the third one
    /// does not wait for that.
    fn open(mut self, mut signals: Signals) -> io::Result<()> {
        let wait = move || {
            let mut ends = 0;
            for signal in signals.forever() {
                if signal == SIGHUP {
                    systemd::tell_reloading();
                    self.reload();
                    systemd::tell_ready();
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
        log::info!("shutting down within {seconds} s; once more to end at once");
        systemd::tell_stopping();
        self.handle.shutdown(shutdown);
    }

    /// Whatever is wrong with what is read, the server goes on with what it
    /// has.
    fn reload(&mut self) {
        let read = Settings::resolve(&self.words)
            .and_then(|settings| Ok((configure_on(&settings, self.reach)?.0, settings)));
        let read = read.and_then(|(config, settings)| {
            settings.arguments.logs.apply()?;
            Ok((config, settings))
        });
        let (config, settings) = match read {
            Ok(read) => read,
            Err(failure) => {
                log::error!("the configuration is not reloaded, the one before holds: {failure}");
                return;
            }
        };
        warn_of_doubts(&settings);
        self.reloader.reload(&config);
        if self.has_tokens && !config.has_tokens() {
            log::warn!(
                "there is no key for tokens any more: every client may subscribe to every channel. \
                 Set --token-secret, --token-public-key or --token-jwks-file to close them"
            );
        }
        self.has_tokens = config.has_tokens();
        let limits = settings.arguments.limits.limits();
        self.handle.set_limits(&limits);
        let is_fixed = |name: &String| FIXED.contains(&&**name);
        let mut fixed = self.started.differing(&settings);
        fixed.retain(is_fixed);
        let mut changed = self.applied.differing(&settings);
        changed.retain(|name| !is_fixed(name));
        let patterns = self.applied.differing_rules(&settings).into_iter();
        changed.extend(patterns.map(|pattern| format!("[[channel]] {pattern}")));
        if !fixed.is_empty() {
            let names = fixed.join(", ");
            log::warn!("{names}: what is set takes effect at the next start");
        }
        match changed.is_empty() {
            true => log::info!("reloaded the configuration"),
            false => log::info!("reloaded the configuration: {}", changed.join(", ")),
        }
        self.applied = Arc::new(settings);
    }
}
