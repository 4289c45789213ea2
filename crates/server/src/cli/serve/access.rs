//! The settings of tokens, tickets and cross-origin pages.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use pushwheel::Rate;
use pushwheel_server::{AllowedOrigin, Config, Pattern, TokenKeyError, TokenKeys};

use crate::cli::words::{YES, boolean, rate};
use crate::cli::{Failure, Secret, files};
use pushwheel_check::numbers::{HOUR_S, YEAR_S, seconds, whole};

/// The keys and rules for tokens, and where requests contain them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tokens")]
pub(crate) struct AccessArguments {
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
    /// FILE is one of the files above: its keys are valid for tokens with this `iss`
    /// only. May be repeated, also for one file. [default: every key is valid for
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

    /// Name of a cookie that may contain a token [default: none]
    #[arg(long, value_name = "NAME", env = "PUSHWHEEL_TOKEN_COOKIE", value_parser = cookie)]
    token_cookie: Option<String>,

    /// Name of the query parameter that may contain a token
    #[arg(long, value_name = "NAME", default_value = "token")]
    #[arg(env = "PUSHWHEEL_TOKEN_PARAMETER", value_parser = parameter)]
    token_parameter: String,

    /// Channels that need no token: a name, or a prefix and `*`
    ///
    /// May be repeated. A table [[channel]] has `public` for the same.
    #[arg(
        long,
        value_name = "PATTERN",
        env = "PUSHWHEEL_PUBLIC_CHANNEL",
        value_delimiter = ','
    )]
    public_channel: Vec<Pattern>,

    /// Time in which a ticket can open a stream, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    #[arg(env = "PUSHWHEEL_TICKET_LIFETIME", value_parser = seconds(1..=HOUR_S))]
    ticket_lifetime: u64,

    /// Maximum tickets at a time, used ones included until they expire
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    #[arg(env = "PUSHWHEEL_MAX_TICKETS", default_value_t = 10_000)]
    max_tickets: usize,

    /// Maximum forged tokens verified per second per address
    ///
    /// Applies to RS256, ES256 and EdDSA. HS256 has no limit, because it costs
    /// little.
    #[arg(long, value_name = "N", value_parser = rate)]
    #[arg(env = "PUSHWHEEL_FORGED_TOKEN_RATE_PER_ADDRESS", default_value = "10")]
    forged_token_rate_per_address: Rate,

    /// Maximum wrong keys per second per address
    ///
    /// Over the limit, requests from this address with a key get `429`, unless it has
    /// sent a right key before.
    #[arg(long, value_name = "N", value_parser = rate)]
    #[arg(
        env = "PUSHWHEEL_WRONG_KEY_RATE_PER_ADDRESS",
        default_value = "10",
        help_heading = "Access"
    )]
    wrong_key_rate_per_address: Rate,

    /// Origin whose pages may read responses and send cookies
    ///
    /// For example https://app.example or chrome-extension://ID;
    /// https://*.app.example allows all subdomains. `*` allows pages of every origin
    /// to read streams, without cookies. May be repeated. [default: the server's own
    /// origin; on loopback, pages of loopback too]
    #[arg(
        long,
        value_name = "ORIGIN",
        env = "PUSHWHEEL_ALLOW_ORIGIN",
        value_delimiter = ',',
        help_heading = "Pages"
    )]
    allow_origin: Vec<Origin>,
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

#[derive(Clone, Debug)]
enum Origin {
    /// `*`
    Any,
    One(AllowedOrigin),
}

impl std::str::FromStr for Origin {
    type Err = <AllowedOrigin as std::str::FromStr>::Err;

    fn from_str(text: &str) -> Result<Origin, Self::Err> {
        match text {
            "*" => Ok(Origin::Any),
            one => one.parse().map(Origin::One),
        }
    }
}

impl Origin {
    fn is_any(&self) -> bool {
        matches!(self, Origin::Any)
    }

    fn one(&self) -> Option<AllowedOrigin> {
        match self {
            Origin::Any => None,
            Origin::One(origin) => Some(origin.clone()),
        }
    }
}

impl AccessArguments {
    /// Returns the keys that verify tokens, or an error with the setting that it is about.
    pub(super) fn token_keys(&self) -> Result<TokenKeys, (&'static str, Failure)> {
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
        let files = || {
            let secrets = self.token_secret_file.iter();
            let others = self.token_public_key_file.iter();
            secrets.chain(others).chain(&self.token_jwks_file)
        };
        let mut issuers = self.token_key_issuer.iter();
        match issuers.find(|bound| files().all(|file| *file != bound.file)) {
            None => Ok(()),
            Some(bound) => Err((
                "token_key_issuer",
                format!(
                    "--token-key-issuer: no keys are read from {}. Use a file of \
                     --token-secret-file, --token-public-key-file or --token-jwks-file",
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

    /// Returns whether every channel is public.
    pub(super) fn all_are_public(&self) -> bool {
        let all: Pattern = "*".parse().expect("this is a pattern");
        self.public_channel
            .iter()
            .any(|pattern| pattern.covers(&all))
    }

    /// Adds these settings to the configuration.
    pub(super) fn apply(&self, config: Config, keys: TokenKeys) -> Config {
        let mut config = config
            .token_keys(keys)
            .token_audiences(self.token_audience.iter().cloned())
            .token_issuers(self.token_issuer.iter().cloned())
            .token_leeway(Duration::from_secs(self.token_leeway))
            .token_needs_expiry(!self.token_without_expiry)
            .token_lifetime_max(self.token_max_lifetime.map(Duration::from_secs))
            .token_parameter(&self.token_parameter)
            .ticket_time(Duration::from_secs(self.ticket_lifetime))
            .tickets_max(self.max_tickets)
            .forged_tokens_per_address(self.forged_token_rate_per_address)
            .wrong_keys_per_address(self.wrong_key_rate_per_address)
            .allow_origins(self.allow_origin.iter().filter_map(Origin::one))
            .allow_any_origin_to_subscribe(self.allow_origin.iter().any(Origin::is_any));
        if let Some(name) = &self.token_cookie {
            config = config.token_cookie(name);
        }
        for pattern in &self.public_channel {
            config = config.public_for(pattern.clone(), true);
        }
        config
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

/// Parses the name of a parameter.
fn parameter(text: &str) -> Result<String, String> {
    match Config::is_token_parameter(text) {
        true => Ok(text.to_owned()),
        false => Err("the server uses this parameter itself. Choose another name".to_owned()),
    }
}

/// Parses the name of a cookie (RFC 6265 section 4.1.1).
fn cookie(text: &str) -> Result<String, String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_token) {
        true => Ok(text.to_owned()),
        false => Err("use the name of a cookie, such as push_token".to_owned()),
    }
}
