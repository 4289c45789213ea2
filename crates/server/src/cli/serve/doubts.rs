//! Settings that the server starts with and that are hardly what was meant: it
//! warns of them, and a check takes them for mistakes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use super::{Arguments, Settings};
use crate::cli::{Failure, settings};

/// What is doubtful about settings, each with what to do about it.
pub(crate) fn doubts(settings: &Settings) -> Vec<Failure> {
    let mut doubts = settings::strange_variables::<Arguments>();
    doubts.extend(events_beyond_bodies(settings));
    doubts.extend(wide_networks_of_proxies(settings));
    doubts.extend(exposed_files(settings));
    doubts
}

/// Networks of proxies so wide that almost any client is one of them, and chooses
/// its own address.
fn wide_networks_of_proxies(settings: &Settings) -> Option<Failure> {
    const KEY: &str = "trusted_proxy";
    let network = settings.arguments.proxies.wide_network()?;
    let doubt = format!(
        "the server believes what all of {network} say of client addresses, so a client can \
         choose its own. Set --trusted-proxy to the networks of your proxies alone"
    );
    Some(settings.blame(&[KEY], doubt))
}

/// The settings of secrets, which the configuration file may hold.
const SECRETS: [&str; 3] = ["publish_key", "admin_key", "token_secret"];

/// What others may do with a file, as bits of its mode.
const READ: u32 = 0o004;
const WRITE: u32 = 0o002;

/// Files of secrets that other users may read, and files of settings that they may
/// change.
fn exposed_files(settings: &Settings) -> Vec<Failure> {
    let arguments = &settings.arguments;
    let holds_secret = SECRETS.iter().any(|key| settings.is_in_file(key));
    let of_config = match holds_secret {
        true => READ | WRITE,
        false => WRITE,
    };
    let config = arguments
        .config
        .iter()
        .map(|path| ("config", &**path, of_config));
    let keys = arguments
        .keys
        .files()
        .map(|(key, path)| (key, path, READ | WRITE));
    let tokens = arguments.access.files();
    let tokens = tokens.map(|(key, path, is_secret)| match is_secret {
        true => (key, path, READ | WRITE),
        false => (key, path, WRITE),
    });
    let files = keys.chain(tokens).chain(config);
    let exposed = files.filter_map(|(key, path, bits)| {
        let exposed = exposure(path, bits)?;
        Some(settings.blame(&[key], exposed))
    });
    exposed.collect()
}

/// Returns what other users of the machine may do with a file, if it is one of
/// these.
fn exposure(path: &Path, bits: u32) -> Option<Failure> {
    if is_for_this_process(path) {
        return None;
    }
    let mode = fs::metadata(path).ok()?.permissions().mode();
    let may = match (mode & bits & READ != 0, mode & bits & WRITE != 0) {
        (_, true) => "change",
        (true, false) => "read",
        (false, false) => return None,
    };
    let path = path.display();
    Some(format!(
        "other users may {may} {path}. Run `chmod o= {path}`"
    ))
}

/// Whether a file is in a directory that a service manager makes for the process:
/// there the mode says nothing of who reaches it.
fn is_for_this_process(path: &Path) -> bool {
    let of_systemd = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let of_containers = PathBuf::from("/run/secrets");
    let mut directories = of_systemd.into_iter().chain([of_containers]);
    directories.any(|directory| path.starts_with(directory))
}

/// Events that may be larger than the bodies that they come in.
fn events_beyond_bodies(settings: &Settings) -> Vec<Failure> {
    const KEY: &str = "max_event_bytes";
    let arguments = &settings.arguments;
    let body_bytes = arguments.limits.max_body_bytes;
    let doubt = |event_bytes: usize| {
        format!(
            "an event can hardly have {event_bytes} bytes, for the body that it comes in has \
             {body_bytes} at most: give --max-body-bytes {event_bytes} or more, or a smaller \
             --max-event-bytes"
        )
    };
    let for_all = arguments.channels.max_event_bytes;
    let mut doubts = Vec::new();
    // Whoever has made bodies smaller than the default means all events.
    if settings.is_set(KEY) && for_all > body_bytes {
        doubts.push(settings.blame(&[KEY], doubt(for_all)));
    }
    for (index, rule) in settings.rules.iter().enumerate() {
        let event_bytes = rule.options.max_event_bytes;
        if event_bytes != for_all && event_bytes > body_bytes {
            doubts.push(settings.blame_rule(index, &doubt(event_bytes)));
        }
    }
    doubts
}
