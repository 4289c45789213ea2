//! The keys of the server, and whether it may run without them.

use std::path::{Path, PathBuf};

use pushwheel_server::{Config, Key};

use super::Settings;
use super::arguments::KeyArguments;
use crate::cli::{Failure, Secret};

/// How a server can be reached.
pub(super) struct Reached<'a> {
    /// The listen address.
    pub(super) listen: &'a str,
    /// Whether other machines reach the listen address.
    pub(super) by_others: bool,
    /// Whether other machines reach the server through proxies.
    pub(super) by_proxies: bool,
}

/// Adds the keys to the configuration. A server that other machines reach needs an admin
/// key, and a publish key or a key for tokens.
pub(super) fn secure(
    settings: &Settings,
    mut config: Config,
    reached: &Reached<'_>,
    has_tokens: bool,
) -> Result<Config, Failure> {
    let arguments = &settings.arguments.keys;
    let given = arguments.given();
    let given = given.map_err(|(keys, failure)| settings.with_place(keys, failure))?;
    let secrets = settings.arguments.access.tokens.secrets();
    let distinct = check_distinct(&given, &secrets);
    distinct.map_err(|failure| settings.with_place(&PUBLISH_KEYS, failure))?;
    let [publish, admin] = given;
    let (can_publish, can_manage) = (!publish.is_empty() || has_tokens, !admin.is_empty());
    let is_private = !reached.by_others && !reached.by_proxies;
    let has_all = can_publish && can_manage;
    if !is_private && !arguments.allow_missing_keys && !has_all {
        let (listen, lacking) = (reached.listen, lacking(can_publish, can_manage));
        return Err(match reached.by_others {
            true => {
                let text = format!("other machines can reach {listen}, and {lacking}");
                settings.with_place(&["listen"], text)
            }
            false => {
                let text =
                    format!("other machines reach {listen} through --trusted-proxy, and {lacking}");
                settings.with_place(&["trusted_proxy"], text)
            }
        });
    }
    if is_private {
        config = match arguments.allow_missing_keys {
            true => config.allow_loopback_origins(),
            false => config.loopback_for(arguments.allow_host.iter().cloned()),
        };
    }
    config = config.publish_keys_may_finish(arguments.publish_keys_may_finish);
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

/// A key, and its source.
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

    /// Returns the keys for publishing and for managing, or an error with the settings
    /// that it is about.
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

/// Rejects a secret that has two uses: a key of both roles gives each holder both
/// rights, and a token secret as a key lets its holders make tokens.
fn check_distinct(given: &[Vec<Given>; 2], secrets: &[String]) -> Result<(), Failure> {
    const FIX: &str = "Create each of them with `openssl rand -hex 32`";
    let [publish, admin] = given;
    for publish in publish {
        if let Some(admin) = admin.iter().find(|admin| admin.text == publish.text) {
            let (one, other) = (&publish.from, &admin.from);
            return Err(format!("{one} and {other} are the same key. {FIX}"));
        }
    }
    let mut given = given.iter().flatten();
    match given.find(|given| secrets.contains(&given.text)) {
        Some(Given { from, .. }) => Err(format!("{from} is also the secret of tokens. {FIX}")),
        None => Ok(()),
    }
}

/// Returns which keys are missing, and how to set them.
fn lacking(can_publish: bool, can_manage: bool) -> &'static str {
    match (can_publish, can_manage) {
        (true, _) => {
            "there is no admin key. Set --admin-key-file FILE (or --admin-key, or \
             PUSHWHEEL_ADMIN_KEY), or pass --allow-missing-keys"
        }
        (false, true) => {
            "there is no key for publishing. Set --publish-key-file FILE (or --publish-key, or \
             PUSHWHEEL_PUBLISH_KEY) or a key for tokens, or pass --allow-missing-keys"
        }
        (false, false) => {
            "there are no keys. Set --publish-key-file and --admin-key-file (or --publish-key and \
             --admin-key, or PUSHWHEEL_PUBLISH_KEY and PUSHWHEEL_ADMIN_KEY), or pass \
             --allow-missing-keys to allow every request. A key for tokens can replace the publish \
             key"
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
    let flag = format!("{flag}-file");
    let Secret(text) = Secret::read(&flag, file)?;
    Given::new(text, format!("{flag} {}", file.display()))
}
