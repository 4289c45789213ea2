//! `pushwheel serve`

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

use clap::Args;
use pushwheel::server::{self, Config, Key};
use pushwheel::{Engine, EngineHandle, History, Rate};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::state::StateFile;
use super::{Failure, Secret};

/// How long streams and requests have to end after a signal.
const SHUTDOWN: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    #[arg(env = "PUSHWHEEL_LISTEN")]
    listen: String,

    /// The key that publishing needs, sent as `Authorization: Bearer KEY`.
    /// Others on this machine can read the command line: prefer the
    /// environment or a file.
    #[arg(long, value_name = "KEY")]
    #[arg(env = "PUSHWHEEL_PUBLISH_KEY", hide_env_values = true)]
    publish_key: Option<Secret>,

    /// A file with the key that publishing needs.
    #[arg(long, value_name = "FILE", conflicts_with = "publish_key")]
    #[arg(env = "PUSHWHEEL_PUBLISH_KEY_FILE")]
    publish_key_file: Option<PathBuf>,

    /// The key that looking and managing need; it may publish too.
    #[arg(long, value_name = "KEY")]
    #[arg(env = "PUSHWHEEL_ADMIN_KEY", hide_env_values = true)]
    admin_key: Option<Secret>,

    /// A file with the key that looking and managing need.
    #[arg(long, value_name = "FILE", conflicts_with = "admin_key")]
    #[arg(env = "PUSHWHEEL_ADMIN_KEY_FILE")]
    admin_key_file: Option<PathBuf>,

    /// Listen without keys even where others reach it: whoever does may
    /// publish and manage.
    #[arg(long)]
    #[arg(env = "PUSHWHEEL_OPEN")]
    open: bool,

    /// A name by which browsers ask for a server that listens on loopback,
    /// besides localhost, as behind a proxy; pages from there may publish. May
    /// be given several times.
    #[arg(long, value_name = "NAME")]
    #[arg(env = "PUSHWHEEL_HOST", value_delimiter = ',')]
    host: Vec<String>,

    /// How many events each channel keeps for clients that come back; 0: none.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    #[arg(env = "PUSHWHEEL_HISTORY_EVENTS")]
    history_events: usize,

    /// How many bytes of events each channel keeps.
    #[arg(long, value_name = "BYTES", default_value_t = History::events(0).bytes_max)]
    #[arg(env = "PUSHWHEEL_HISTORY_BYTES")]
    history_bytes: usize,

    /// How long each channel keeps its events.
    #[arg(long, value_name = "SECONDS", default_value_t = History::events(0).age_max.as_secs())]
    #[arg(env = "PUSHWHEEL_HISTORY_AGE")]
    history_age: u64,

    /// The longest silence on a stream, after which a comment is sent; 0: no
    /// heartbeats.
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    #[arg(env = "PUSHWHEEL_HEARTBEAT")]
    heartbeat: u64,

    /// How many clients each channel may have at once [default: no limit].
    #[arg(long, value_name = "N")]
    #[arg(env = "PUSHWHEEL_MAX_CLIENTS")]
    max_clients: Option<usize>,

    /// From how many bytes on events are compressed, once for all clients that
    /// take gzip [default: nothing is compressed].
    #[arg(long, value_name = "BYTES")]
    #[arg(env = "PUSHWHEEL_COMPRESS_FROM")]
    compress_from: Option<usize>,

    /// A field of the clients' metadata by which `where.FIELD` finds them at
    /// once; may be given several times.
    #[arg(long, value_name = "FIELD")]
    #[arg(env = "PUSHWHEEL_INDEX", value_delimiter = ',')]
    index: Vec<String>,

    /// How many events a second each channel takes on average; up to as many
    /// at once [default: no limit].
    #[arg(long, value_name = "N", value_parser = rate)]
    #[arg(env = "PUSHWHEEL_PUBLISH_RATE")]
    publish_rate: Option<Rate>,

    /// The same for each address that publishes [default: no limit].
    #[arg(long, value_name = "N", value_parser = rate)]
    #[arg(env = "PUSHWHEEL_PUBLISH_RATE_PER_ADDRESS")]
    publish_rate_per_address: Option<Rate>,

    /// On how many threads the server runs. One reaches very many clients.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(env = "PUSHWHEEL_THREADS", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,

    /// How many channels there may be.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    #[arg(env = "PUSHWHEEL_MAX_CHANNELS")]
    max_channels: usize,

    /// Where the history is saved at exit, and loaded from at the next start,
    /// so that clients resume over a restart [default: it is not].
    #[arg(long, value_name = "FILE")]
    #[arg(env = "PUSHWHEEL_STATE")]
    state: Option<PathBuf>,
}

impl Arguments {
    fn config(&self) -> Config {
        let history = History::events(self.history_events)
            .bytes_max(self.history_bytes)
            .age_max(Duration::from_secs(self.history_age));
        let mut options = server::channel_options()
            .history(history)
            .heartbeat(Duration::from_secs(self.heartbeat))
            .max_clients(self.max_clients.unwrap_or(usize::MAX));
        if let Some(bytes) = self.compress_from {
            options = options.compress_from(bytes);
        }
        if let Some(rate) = self.publish_rate {
            options = options.publish_rate(rate);
        }
        for field in &self.index {
            options = options.index(&**field);
        }
        let config = Config::new()
            .channel_options(options)
            .channels_max(self.max_channels)
            .threads(usize::from(self.threads));
        match self.publish_rate_per_address {
            Some(rate) => config.publish_rate_per_address(rate),
            None => config,
        }
    }
}

/// Reads so many events a second.
fn rate(text: &str) -> Result<Rate, String> {
    match text.parse::<f64>() {
        Ok(count) if count.is_finite() && count > 0.0 => Ok(Rate::per_second(count)),
        _ => Err("give a number of events a second above 0, such as 100 or 0.5".to_owned()),
    }
}

/// The key that was given as text or in a file.
fn key(flag: &str, text: Option<&Secret>, file: Option<&Path>) -> Result<Option<Key>, Failure> {
    let (text, from) = match (text, file) {
        (Some(Secret(text)), _) => (text.clone(), flag.to_owned()),
        (None, Some(file)) => {
            let text = fs::read_to_string(file)
                .map_err(|error| format!("cannot read {flag}-file {}: {error}", file.display()))?;
            // Editors end a file with a line end, which is no part of the key.
            let text = text.trim_end_matches(['\r', '\n']).to_owned();
            (text, format!("{flag}-file {}", file.display()))
        }
        (None, None) => return Ok(None),
    };
    let key = Key::new(&text).map_err(|error| format!("{from}: {error}"))?;
    Ok(Some(key))
}

impl Arguments {
    /// Adds who may do what.
    fn secure(&self, config: Config, addresses: &[SocketAddr]) -> Result<Config, Failure> {
        let publish_file = self.publish_key_file.as_deref();
        let publish_key = key("--publish-key", self.publish_key.as_ref(), publish_file)?;
        let admin_file = self.admin_key_file.as_deref();
        let admin_key = key("--admin-key", self.admin_key.as_ref(), admin_file)?;
        let is_loopback = addresses
            .iter()
            .all(|address| address.ip().to_canonical().is_loopback());
        let has_both = publish_key.is_some() && admin_key.is_some();
        if !is_loopback && !has_both && !self.open {
            let listen = &self.listen;
            return Err(format!(
                "{listen} can be reached by others: give the keys that publishing and managing \
                 are to need, with --publish-key and --admin-key (or PUSHWHEEL_PUBLISH_KEY and \
                 PUSHWHEEL_ADMIN_KEY, or --publish-key-file and --admin-key-file), or say with \
                 --open that everybody may"
            ));
        }
        let mut config = config;
        if is_loopback && !self.open {
            config = config.loopback_for(self.host.iter().cloned());
        }
        if let Some(key) = publish_key {
            config = config.publish_key(key);
        }
        if let Some(key) = admin_key {
            config = config.admin_key(key);
        }
        Ok(config)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let listen = &arguments.listen;
    let cannot_listen = |error: io::Error| {
        format!("cannot listen on {listen}: {error}. Choose another address with --listen")
    };
    let addresses = listen.to_socket_addrs().map_err(cannot_listen)?;
    let addresses: Vec<SocketAddr> = addresses.collect();
    let config = arguments.secure(arguments.config(), &addresses)?;
    let has_keys = config.has_keys();
    let (mut state, engine) = match &arguments.state {
        Some(path) => {
            let (state, engine) = StateFile::load(path, &config)?;
            (Some(state), engine)
        }
        None => (None, config.engine()),
    };
    let engine = engine.bind(&*addresses).map_err(cannot_listen)?;
    if arguments.open && !engine.local_addr().ip().is_loopback() {
        let address = engine.local_addr();
        log::warn!("{address} can be reached by others, and --open lets them publish and manage");
    }
    shut_down_on_signals(engine.handle())
        .map_err(|error| format!("cannot listen to signals: {error}"))?;
    let channels = engine.channels().clone();
    if let Some(state) = &mut state {
        state.consume(&channels)?;
    }
    // Whether anybody reads it or not, the server runs.
    let _ = announce(&engine, has_keys);
    let ran = engine
        .run()
        .map_err(|error| format!("the server cannot go on: {error}"));
    // However it ended, what was published is there to be saved.
    let saved = state.map_or(Ok(()), |state| state.save(&channels));
    ran.and(saved)
}

/// The first signal lets everybody finish; the second one ends at once.
fn shut_down_on_signals(handle: EngineHandle) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let wait = move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            let seconds = SHUTDOWN.as_secs();
            log::info!("shutting down within {seconds} s; once more to end at once");
            handle.shutdown(SHUTDOWN);
        }
        if let Some(signal) = signals.next() {
            process::exit(128 + signal);
        }
    };
    let thread = thread::Builder::new().name("pushwheel-signals".into());
    thread.spawn(wait).map(drop)
}

fn announce(engine: &Engine, has_keys: bool) -> io::Result<()> {
    let address = engine.local_addr();
    let key = match has_keys {
        true => " -H \"Authorization: Bearer $PUSHWHEEL_PUBLISH_KEY\"",
        false => "",
    };
    let url = format!("http://{}", reachable(address));
    let mut out = io::stdout().lock();
    writeln!(out, "pushwheel listens on http://{address}")?;
    writeln!(out, "  subscribe:  curl -N {url}/channels/news")?;
    writeln!(out, "  publish:    curl{key} -d hello {url}/channels/news")?;
    out.flush()
}

/// The address under which this machine reaches a server that listens on all
/// of its addresses.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_reached_on_loopback() {
        for (address, url) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(reachable(address.parse().unwrap()).to_string(), url);
        }
    }
}
