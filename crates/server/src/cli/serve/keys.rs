//! The keys of the server, and whether it may run without them.

use std::fs;
use std::path::{Path, PathBuf};

use pushwheel_server::{Config, Key};

use super::Settings;
use super::arguments::KeyArguments;
use crate::cli::{Failure, Secret, files};

/// Who reaches a server.
pub(super) struct Reached<'a> {
    /// Where it listens.
    pub(super) listen: &'a str,
    /// Whether that is beyond this machine.
    pub(super) by_others: bool,
    /// Whether others come through proxies, wherever it listens.
    pub(super) by_proxies: bool,
}

/// Adds who may do what. With tokens, these may say who publishes; who manages
/// has a key.
pub(super) fn secure(
    settings: &Settings,
    mut config: Config,
    reached: &Reached<'_>,
    has_tokens: bool,
) -> Result<Config, Failure> {
    let arguments = &settings.arguments.keys;
    let given = arguments.given();
    let given = given.map_err(|(keys, failure)| settings.blame(keys, failure))?;
    let secrets = settings.arguments.access.secrets();
    let distinct = check_distinct(&given, &secrets);
    distinct.map_err(|failure| settings.blame(&PUBLISH_KEYS, failure))?;
    let [publish, admin] = given;
    let (can_publish, can_manage) = (!publish.is_empty() || has_tokens, !admin.is_empty());
    let is_private = !reached.by_others && !reached.by_proxies;
    let has_all = can_publish && can_manage;
    if !is_private && !arguments.allow_missing_keys && !has_all {
        let (listen, lacking) = (reached.listen, lacking(can_publish, can_manage));
        return Err(match reached.by_others {
            true => {
                let told = format!("{listen} can be reached by others, and {lacking}");
                settings.blame(&["listen"], told)
            }
            false => {
                let told = format!("through --trusted-proxy others reach {listen}, and {lacking}");
                settings.blame(&["trusted_proxy"], told)
            }
        });
    }
    if is_private {
        config = match arguments.allow_missing_keys {
            true => config.allow_loopback_origins(),
            false => config.loopback_for(arguments.allow_host.iter().cloned()),
        };
    }
    for given in publish {
        config = config.publish_key(given.key);
    }
    for given in admin {
        config = config.admin_key(given.key);
    }
    Ok(config)
}

/// The settings of the two keys.
const PUBLISH_KEYS: [&str; 2] = ["publish_key", "publish_key_file"];
const ADMIN_KEYS: [&str; 2] = ["admin_key", "admin_key_file"];

/// A key, and where it came from.
struct Given {
    key: Key,
    text: String,
    from: String,
}

impl Given {
    fn new(text: String, from: String) -> Result<Given, Failure> {
        let key = Key::new(&text).map_err(|error| format!("{from}: {error}"))?;
        Ok(Given { key, text, from })
    }
}

impl KeyArguments {
    /// The files of keys, each with its setting.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let publish = self.publish_key_file.iter();
        let publish = publish.map(|path| ("publish_key_file", &**path));
        let admin = self.admin_key_file.iter();
        publish.chain(admin.map(|path| ("admin_key_file", &**path)))
    }

    /// The keys for publishing and for managing; or what is wrong with one, and
    /// the settings that it may be of.
    fn given(&self) -> Result<[Vec<Given>; 2], (&'static [&'static str], Failure)> {
        let files = &self.publish_key_file;
        let publish = given("--publish-key", self.publish_key.as_ref(), files)
            .map_err(|failure| (&PUBLISH_KEYS[..], failure))?;
        let files = &self.admin_key_file;
        let admin = given("--admin-key", self.admin_key.as_ref(), files)
            .map_err(|failure| (&ADMIN_KEYS[..], failure))?;
        Ok([publish, admin])
    }
}

/// Refuses a secret that has two uses: a key of both roles gives each holder both
/// rights, and a token secret as a key lets its holders make tokens.
fn check_distinct(given: &[Vec<Given>; 2], secrets: &[String]) -> Result<(), Failure> {
    const FIX: &str = "Make each of them with `openssl rand -hex 32`";
    let [publish, admin] = given;
    for publish in publish {
        if let Some(admin) = admin.iter().find(|admin| admin.text == publish.text) {
            let (one, other) = (&publish.from, &admin.from);
            return Err(format!("{one} and {other} are the same key. {FIX}"));
        }
    }
    let mut given = given.iter().flatten();
    match given.find(|given| secrets.contains(&given.text)) {
        Some(Given { from, .. }) => Err(format!("{from} is the secret of tokens as well. {FIX}")),
        None => Ok(()),
    }
}

/// Which key a server lacks that others reach, or both, and what to do about it.
fn lacking(can_publish: bool, can_manage: bool) -> &'static str {
    match (can_publish, can_manage) {
        (true, _) => {
            "there is no admin key: give --admin-key KEY (or PUSHWHEEL_ADMIN_KEY, or \
             --admin-key-file FILE), or start without one by --allow-missing-keys"
        }
        (false, true) => {
            "there is no key for publishing: give --publish-key KEY (or PUSHWHEEL_PUBLISH_KEY, \
             or --publish-key-file FILE), or a key for tokens, or start without one by --allow-missing-keys"
        }
        (false, false) => {
            "there are no keys: give those that publishing and managing are to need, with \
             --publish-key and --admin-key (or PUSHWHEEL_PUBLISH_KEY and PUSHWHEEL_ADMIN_KEY, or \
             --publish-key-file and --admin-key-file), or say with --allow-missing-keys that everybody may. \
             For publishing a key for tokens will do as well"
        }
    }
}

/// Returns the keys of one role, from a text or from files.
fn given(flag: &str, text: Option<&Secret>, files: &[PathBuf]) -> Result<Vec<Given>, Failure> {
    let Some(Secret(text)) = text else {
        return files.iter().map(|file| given_in(flag, file)).collect();
    };
    let variable = flag.trim_start_matches('-').replace('-', "_");
    let variable = variable.to_uppercase();
    let from = format!("{flag} (or PUSHWHEEL_{variable})");
    Ok(vec![Given::new(text.clone(), from)?])
}

fn given_in(flag: &str, file: &Path) -> Result<Given, Failure> {
    let from = format!("{flag}-file {}", file.display());
    let text = fs::read_to_string(file).map_err(|error| {
        let advice = files::advice_to_read(&error);
        format!("cannot read {from}: {error}: {advice}")
    })?;
    // Editors end a file with a line end, which is not a part of the key.
    let text = text.trim_end_matches(['\r', '\n']).to_owned();
    Given::new(text, from)
}
