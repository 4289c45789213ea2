//! The settings of access: where requests contain tokens, tickets, and cross-origin pages.

use std::time::Duration;

use clap::Args;
use pushwheel::Rate;
use pushwheel_server::{AllowedOrigin, Config, HeaderName, Pattern, TokenKeys};

use super::tokens::TokenArguments;
use crate::cli::words::rate;
use pushwheel_check::numbers::{DAY_S, HOUR_S, seconds, whole};

/// The rules for tokens, where requests contain them, and the pages that may read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tokens")]
pub(crate) struct AccessArguments {
    #[command(flatten)]
    pub(super) tokens: TokenArguments,

    /// Time between two fetches of --token-jwks-url, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    #[arg(env = "PUSHWHEEL_TOKEN_JWKS_INTERVAL", value_parser = seconds(1..=DAY_S))]
    pub(super) token_jwks_interval: u64,

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

    /// Header that pages of other origins may send
    ///
    /// For example traceparent or X-Request-ID; the headers of the interface are always
    /// allowed. May be repeated.
    #[arg(
        long,
        value_name = "NAME",
        env = "PUSHWHEEL_ALLOW_HEADER",
        value_delimiter = ',',
        help_heading = "Pages"
    )]
    allow_header: Vec<HeaderName>,
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
    /// Returns whether every channel is public.
    pub(super) fn all_are_public(&self) -> bool {
        let all: Pattern = "*".parse().expect("this is a pattern");
        self.public_channel
            .iter()
            .any(|pattern| pattern.covers(&all))
    }

    /// Adds these settings to the configuration.
    pub(super) fn apply(&self, config: Config, keys: TokenKeys) -> Config {
        let config = self.tokens.apply(config, keys);
        let mut config = config
            .token_parameter(&self.token_parameter)
            .ticket_time(Duration::from_secs(self.ticket_lifetime))
            .tickets_max(self.max_tickets)
            .forged_tokens_per_address(self.forged_token_rate_per_address)
            .wrong_keys_per_address(self.wrong_key_rate_per_address)
            .allow_origins(self.allow_origin.iter().filter_map(Origin::one))
            .allow_any_origin_to_subscribe(self.allow_origin.iter().any(Origin::is_any))
            .allow_headers(self.allow_header.iter().cloned());
        if let Some(name) = &self.token_cookie {
            config = config.token_cookie(name);
        }
        for pattern in &self.public_channel {
            config = config.public_for(pattern.clone(), true);
        }
        config
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
