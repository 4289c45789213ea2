//! Settings that are valid but probably wrong. The server warns about them, and
//! `pushwheel config --check` rejects them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use super::{Arguments, Settings};
use crate::cli::{Failure, settings};

/// Returns a warning, with a fix, for each such setting.
pub(crate) fn warnings(settings: &Settings) -> Vec<Failure> {
    let mut warnings = settings::unknown_variables::<Arguments>();
    warnings.extend(events_larger_than_bodies(settings));
    warnings.extend(wide_networks_of_proxies(settings));
    warnings.extend(exposed_files(settings));
    warnings
}

/// A trusted network that is so wide that clients are probably in it, and can choose their
/// own address.
fn wide_networks_of_proxies(settings: &Settings) -> Option<Failure> {
    const KEY: &str = "trusted_proxy";
    let network = settings.arguments.proxies.wide_network()?;
    let warning = format!(
        "all of {network} is trusted for client addresses, so a client can choose its own. Set \
         --trusted-proxy to the networks of your proxies only"
    );
    Some(settings.with_place(&[KEY], warning))
}

/// The settings of secrets that the configuration file may contain.
const SECRETS: [&str; 4] = ["publish_key", "admin_key", "token_secret", "broker"];

/// The rights of other users, as bits of a file's mode.
const READ: u32 = 0o004;
const WRITE: u32 = 0o002;

/// Files of secrets that other users can read, and files of settings that they can
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
    let tokens = arguments.access.tokens.files();
    let tokens = tokens.map(|(key, path, is_secret)| match is_secret {
        true => (key, path, READ | WRITE),
        false => (key, path, WRITE),
    });
    let files = keys.chain(tokens).chain(config);
    #[cfg(feature = "redis")]
    let files = files.chain(
        arguments
            .broker
            .files()
            .map(|(key, path)| (key, path, READ | WRITE)),
    );
    let exposed = files.filter_map(|(key, path, bits)| {
        let exposed = exposure(path, bits)?;
        Some(settings.with_place(&[key], exposed))
    });
    exposed.collect()
}

/// Returns a warning if other users of the machine have one of these rights to a file.
fn exposure(path: &Path, bits: u32) -> Option<Failure> {
    if is_for_this_process(path) {
        return None;
    }
    let mode = fs::metadata(path).ok()?.permissions().mode();
    let can = match (mode & bits & READ != 0, mode & bits & WRITE != 0) {
        (_, true) => "change",
        (true, false) => "read",
        (false, false) => return None,
    };
    let path = path.display();
    Some(format!(
        "other users can {can} {path}. Run `chmod o= {path}`"
    ))
}

/// Returns whether a file is in a directory that a service manager makes for the process.
/// Its mode does not show which users reach it.
fn is_for_this_process(path: &Path) -> bool {
    let of_systemd = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let of_containers = PathBuf::from("/run/secrets");
    let mut directories = of_systemd.into_iter().chain([of_containers]);
    directories.any(|directory| path.starts_with(directory))
}

/// Limits on events that exceed the limit on request bodies.
fn events_larger_than_bodies(settings: &Settings) -> Vec<Failure> {
    const KEY: &str = "max_event_bytes";
    let arguments = &settings.arguments;
    let body_bytes = arguments.limits.max_body_bytes;
    let warning = |event_bytes: usize| {
        format!(
            "an event of {event_bytes} bytes cannot arrive, because a body has at most \
             {body_bytes} bytes. Set --max-body-bytes to {event_bytes} or more, or lower \
             --max-event-bytes"
        )
    };
    let for_all = arguments.channels.max_event_bytes;
    let mut warnings = Vec::new();
    // A limit on bodies below the default limit on events is meant for all events.
    if settings.is_set(KEY) && for_all > body_bytes {
        warnings.push(settings.with_place(&[KEY], warning(for_all)));
    }
    for (index, rule) in settings.rules.iter().enumerate() {
        let event_bytes = rule.options.max_event_bytes;
        if event_bytes != for_all && event_bytes > body_bytes {
            warnings.push(settings.with_rule_place(index, &warning(event_bytes)));
        }
    }
    warnings
}
