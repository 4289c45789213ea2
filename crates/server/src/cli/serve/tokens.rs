//! The keys of tokens and the checks of their claims, for `serve` and `token`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use pushwheel_server::{Config, TokenKeyError, TokenKeys};

use super::key_set::KeySet;
use crate::cli::words::{YES, boolean};
use crate::cli::{Failure, Secret, files};
use pushwheel_check::numbers::{YEAR_S, seconds};

/// The keys of tokens, and the checks of their claims.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tokens")]
pub(crate) struct TokenArguments {
    /// Secret of tokens signed with HS256, at least 32 bytes
    ///
    /// With any key for tokens, subscribing needs a token, except for public
    /// channels. Prefer the file: other users of the machine can read a command line.
    #[arg(long, value_name = "SECRET")]
    #[arg(env = "PUSHWHEEL_TOKEN_SECRET", hide_env_values = true)]
    token_secret: Option<Secret>,

    /// File with the secret of tokens signed with HS256
    ///
    /// At least 32 bytes; `openssl rand -hex 32` creates one. May be repeated, for
    /// example while a secret is replaced. With any key for tokens, subscribing needs
    /// a token, except for public channels.
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    #[arg(env = "PUSHWHEEL_TOKEN_SECRET_FILE")]
    token_secret_file: Vec<PathBuf>,

    /// Public key of tokens signed with RS256, ES256 or EdDSA, in PEM
    #[arg(long, value_name = "PEM", env = "PUSHWHEEL_TOKEN_PUBLIC_KEY")]
    token_public_key: Option<String>,

    /// File with the public key of tokens, in PEM
    ///
    /// RSA for RS256, P-256 for ES256, Ed25519 for EdDSA. May be repeated.
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    #[arg(env = "PUSHWHEEL_TOKEN_PUBLIC_KEY_FILE")]
    token_public_key_file: Vec<PathBuf>,

    /// File with a JSON Web Key Set for tokens
    ///
    /// The `kid` of a token selects the key. The files of all token keys are read
    /// again on SIGHUP.
    #[arg(long, value_name = "FILE", env = "PUSHWHEEL_TOKEN_JWKS_FILE")]
    token_jwks_file: Option<PathBuf>,

    /// URL of a JSON Web Key Set for tokens, as an identity provider publishes it
    ///
    /// Fetched at the start, on SIGHUP and at --token-jwks-interval. While a fetch
    /// fails, the last keys stay valid. Has to begin with https, except on loopback.
    #[arg(long, value_name = "URL", env = "PUSHWHEEL_TOKEN_JWKS_URL")]
    token_jwks_url: Option<String>,

    /// File with certificates to trust (PEM) for --token-jwks-url [default: the
    /// public ones]
    #[arg(long, value_name = "FILE", env = "PUSHWHEEL_TOKEN_JWKS_CACERT")]
    token_jwks_cacert: Option<PathBuf>,

    /// Required value of the claim `aud` of tokens
    ///
    /// May be repeated: one of them has to match. [default: tokens without `aud`]
    #[arg(
        long,
        value_name = "NAME",
        env = "PUSHWHEEL_TOKEN_AUDIENCE",
        value_delimiter = ','
    )]
    token_audience: Vec<String>,

    /// Required claim `iss` of tokens
    ///
    /// May be repeated: one of them has to match. [default: any]
    #[arg(
        long,
        value_name = "NAME",
        env = "PUSHWHEEL_TOKEN_ISSUER",
        value_delimiter = ','
    )]
    token_issuer: Vec<String>,

    /// Issuer that the keys of a token key file are limited to
    ///
    /// FILE is one of the files above, or the URL: its keys are valid for tokens with
    /// this `iss` only. May be repeated, also for one file. [default: every key is valid for
    /// every accepted issuer]
    #[arg(
        long,
        value_name = "FILE=ISSUER",
        env = "PUSHWHEEL_TOKEN_KEY_ISSUER",
        value_delimiter = ','
    )]
    token_key_issuer: Vec<KeyIssuer>,

    /// Maximum lifetime of a token, in seconds [default: none]
    ///
    /// Counted from `iat`, or from now in a token without it, to `exp`.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(1..=YEAR_S))]
    #[arg(env = "PUSHWHEEL_TOKEN_MAX_LIFETIME")]
    token_max_lifetime: Option<u64>,

    /// Allowed clock skew for the times in tokens, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    #[arg(env = "PUSHWHEEL_TOKEN_LEEWAY", value_parser = seconds(0..=60))]
    token_leeway: u64,

    /// Accept tokens without `exp`
    ///
    /// Such a token is valid until its key is removed.
    #[arg(long, env = "PUSHWHEEL_TOKEN_WITHOUT_EXPIRY", value_name = "BOOL")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = YES)]
    #[arg(default_value_t = false, value_parser = boolean, action = clap::ArgAction::Set)]
    token_without_expiry: bool,
}

/// An issuer, and the file of the keys that sign for it.
#[derive(Clone, Debug)]
struct KeyIssuer {
    file: PathBuf,
    issuer: String,
}

impl std::str::FromStr for KeyIssuer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<KeyIssuer, Self::Err> {
        match text.split_once('=') {
            Some((file, issuer)) if !file.is_empty() && !issuer.is_empty() => Ok(KeyIssuer {
                file: file.into(),
                issuer: issuer.to_owned(),
            }),
            _ => Err("use FILE=ISSUER, such as keys.json=https://idp.example"),
        }
    }
}

impl TokenArguments {
    /// Returns the keys that verify tokens, or an error with the setting that it is about.
    pub(crate) fn token_keys(&self) -> Result<TokenKeys, (&'static str, Failure)> {
        let mut keys = TokenKeys::default();
        let mut add = |key, from: &str, more: Result<TokenKeys, TokenKeyError>| {
            let all = more.and_then(|more| std::mem::take(&mut keys).and(more));
            keys = all.map_err(|error| (key, format!("{from}: {error}")))?;
            Ok(())
        };
        if let Some(Secret(secret)) = &self.token_secret {
            add(
                "token_secret",
                "--token-secret",
                TokenKeys::secret(secret.as_bytes()),
            )?;
        }
        for file in &self.token_secret_file {
            const KEY: &str = "token_secret_file";
            let (from, text) = read(KEY, file)?;
            // Editors end a file with a line end, which is not a part of the secret.
            let secret = text.trim_end_matches(['\r', '\n']);
            let keys = TokenKeys::secret(secret.as_bytes());
            add(KEY, &from, keys.map(|keys| self.bound(file, keys)))?;
        }
        if let Some(pem) = &self.token_public_key {
            add(
                "token_public_key",
                "--token-public-key",
                TokenKeys::public_pem(pem),
            )?;
        }
        for file in &self.token_public_key_file {
            const KEY: &str = "token_public_key_file";
            let (from, text) = read(KEY, file)?;
            let keys = TokenKeys::public_pem(&text);
            add(KEY, &from, keys.map(|keys| self.bound(file, keys)))?;
        }
        if let Some(file) = &self.token_jwks_file {
            const KEY: &str = "token_jwks_file";
            let (from, text) = read(KEY, file)?;
            let keys = TokenKeys::jwks(&text);
            add(KEY, &from, keys.map(|keys| self.bound(file, keys)))?;
        }
        self.check_issuers()?;
        Ok(keys)
    }

    /// Returns the key set of the URL, if there is one, or an error with the setting that
    /// it is about.
    pub(crate) fn key_set(&self) -> Result<Option<KeySet>, (&'static str, Failure)> {
        let Some(url) = &self.token_jwks_url else {
            return Ok(None);
        };
        let issuers = self.token_key_issuer.iter();
        let issuers = issuers.filter(|bound| bound.file == Path::new(url));
        let issuers = issuers.map(|bound| bound.issuer.clone()).collect();
        KeySet::new(url, self.token_jwks_cacert.as_deref(), issuers).map(Some)
    }

    /// Returns the files of keys for tokens, each with its setting and whether it may
    /// contain a secret.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, &Path, bool)> {
        let secrets = self.token_secret_file.iter();
        let secrets = secrets.map(|path| ("token_secret_file", &**path, true));
        let public = self.token_public_key_file.iter();
        let public = public.map(|path| ("token_public_key_file", &**path, false));
        // A set may have keys of HS256.
        let sets = self.token_jwks_file.iter();
        let sets = sets.map(|path| ("token_jwks_file", &**path, true));
        secrets.chain(public).chain(sets)
    }

    /// Binds the keys of a file to its issuers.
    fn bound(&self, file: &Path, keys: TokenKeys) -> TokenKeys {
        let issuers = self.token_key_issuer.iter();
        let issuers = issuers.filter(|bound| bound.file == file);
        issuers.fold(keys, |keys, bound| keys.issued_by(&bound.issuer))
    }

    /// Rejects an issuer of a file that is not read: its keys would not be bound.
    fn check_issuers(&self) -> Result<(), (&'static str, Failure)> {
        let mut issuers = self.token_key_issuer.iter();
        let is_read = |source: &Path| {
            let url = self.token_jwks_url.as_ref().map(Path::new);
            url == Some(source) || self.files().any(|(_, file, _)| file == source)
        };
        match issuers.find(|bound| !is_read(&bound.file)) {
            None => Ok(()),
            Some(bound) => Err((
                "token_key_issuer",
                format!(
                    "--token-key-issuer: no keys are read from {}. Use a file of \
                     --token-secret-file, --token-public-key-file or --token-jwks-file, or the \
                     --token-jwks-url",
                    bound.file.display()
                ),
            )),
        }
    }

    /// Returns the secrets of tokens, without those of files that cannot be read,
    /// which [`token_keys`](Self::token_keys) reports.
    pub(super) fn secrets(&self) -> Vec<String> {
        let files = self.token_secret_file.iter();
        let texts = files.filter_map(|file| fs::read_to_string(file).ok());
        let texts = texts.map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
        let secret = self.token_secret.iter();
        secret
            .map(|Secret(text)| text.clone())
            .chain(texts)
            .collect()
    }

    /// Adds these settings to the configuration.
    pub(crate) fn apply(&self, config: Config, keys: TokenKeys) -> Config {
        config
            .token_keys(keys)
            .fetches_token_keys(self.token_jwks_url.is_some())
            .token_audiences(self.token_audience.iter().cloned())
            .token_issuers(self.token_issuer.iter().cloned())
            .token_leeway(Duration::from_secs(self.token_leeway))
            .token_needs_expiry(!self.token_without_expiry)
            .token_lifetime_max(self.token_max_lifetime.map(Duration::from_secs))
    }
}

/// Returns the name of a setting's file for error messages, and its text.
fn read(key: &'static str, file: &Path) -> Result<(String, String), (&'static str, Failure)> {
    let from = format!("--{} {}", key.replace('_', "-"), file.display());
    match fs::read_to_string(file) {
        Ok(text) => Ok((from, text)),
        Err(error) => {
            let reason = files::reason_to_read(&error);
            Err((key, format!("cannot read {from} {reason}")))
        }
    }
}
