//! The settings of access in a [`Config`].

use std::time::Duration;

use serde_json::{Map, Value};

use super::Config;
use crate::access::{AllowedOrigin, HeaderName, Key, TICKET, TokenError, TokenKeys, is_harmless};
use crate::clock::unix_seconds;
use crate::pattern::Pattern;
use pushwheel::Rate;

impl Config {
    /// Adds a key for publishing (POST). Default: none. With an admin key and no publish
    /// key, publishing needs the admin key.
    ///
    /// Several keys are valid at the same time, for the time in which one replaces another.
    #[must_use]
    pub fn publish_key(mut self, key: Key) -> Config {
        self.access.keys.publish.push(key);
        self
    }

    /// Adds a key for managing: DELETE, `/stats`, `/metrics`, the lists of channels and
    /// clients. It may publish too. Default: none. With another key or tokens, and no admin
    /// key, managing is not possible.
    ///
    /// Several keys are valid at the same time, as with [`publish_key`](Config::publish_key).
    #[must_use]
    pub fn admin_key(mut self, key: Key) -> Config {
        self.access.keys.admin.push(key);
        self
    }

    /// Sets whether publish keys may finish channels with a publish (`?finish`), as admin keys
    /// may. Default: false.
    #[must_use]
    pub fn publish_keys_may_finish(mut self, may: bool) -> Config {
        self.access.publish_keys_finish = may;
        self
    }

    /// Sets the keys that verify tokens. With any, subscribing needs a token that lists the
    /// channel, a ticket or a key, except for [public](Config::public_for) channels.
    /// Publishing needs a key, or a token that lists the channel. Default: none.
    #[must_use]
    pub fn token_keys(mut self, keys: TokenKeys) -> Config {
        self.access.token_keys = keys;
        self
    }

    /// Sets whether the program fetches keys for tokens, and passes them to
    /// [`Reloader::set_fetched_token_keys`](crate::Reloader::set_fetched_token_keys), beside
    /// those of [`token_keys`](Self::token_keys). Subscribing then needs a token before the
    /// first keys have arrived too; a token of an unknown key is answered `503` until
    /// then. Default: false.
    #[must_use]
    pub fn fetches_token_keys(mut self, fetches: bool) -> Config {
        self.access.fetches_token_keys = fetches;
        self
    }

    /// Whether there is a key for tokens, or keys are fetched.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        self.access.has_tokens()
    }

    /// Whether publishing and managing need a key or a token.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        self.has_tokens() || !self.access.keys.are_none()
    }

    /// Sets the accepted audiences: the `aud` of a token has to contain one of these.
    /// Default: none, and tokens must not have `aud`.
    #[must_use]
    pub fn token_audiences(mut self, names: impl IntoIterator<Item = String>) -> Config {
        self.access.checks.audiences = names.into_iter().collect();
        self
    }

    /// Sets the accepted issuers: the `iss` of a token has to be one of these. Default: all
    /// issuers.
    #[must_use]
    pub fn token_issuers(mut self, names: impl IntoIterator<Item = String>) -> Config {
        self.access.checks.issuers = names.into_iter().collect();
        self
    }

    /// Sets the maximum difference between the clocks of this server and of the programs
    /// that make tokens. Default: 10 s.
    #[must_use]
    pub fn token_leeway(mut self, time: Duration) -> Config {
        self.access.checks.leeway_s = time.as_secs_f64();
        self
    }

    /// Sets whether tokens need an `exp`. Default: true.
    #[must_use]
    pub fn token_needs_expiry(mut self, needs: bool) -> Config {
        self.access.checks.needs_expiry = needs;
        self
    }

    /// Sets the maximum time for which a token is valid, from its `iat` (now, for a token
    /// without it) to its `exp`. With it, a token needs an `exp`. `None`: until the year
    /// 9999. Default: `None`.
    #[must_use]
    pub fn token_lifetime_max(mut self, time: impl Into<Option<Duration>>) -> Config {
        self.access.checks.lifetime_max_s = time.into().map(|time| time.as_secs_f64());
        self
    }

    /// Returns a token that a server with this configuration accepts for `lifetime`. It is
    /// signed with the first secret of [`token_keys`](Config::token_keys), for the first
    /// audience and of the first issuer. `own` is its claim `pushwheel`, with the fields
    /// `subscribe`, `publish`, `finish`, `client` and `metadata`.
    ///
    /// # Errors
    /// If there is no secret, or if the server would reject the token: for an invalid field
    /// of `own`, or a lifetime above the maximum.
    pub fn make_token(
        &self,
        own: &Map<String, Value>,
        lifetime: Duration,
    ) -> Result<String, TokenError> {
        self.access.make_token(own, lifetime, unix_seconds())
    }

    /// Checks whether a server with this configuration accepts a token now.
    ///
    /// # Errors
    /// If it does not. The error has the text of the server's response.
    pub fn check_token(&self, token: &str) -> Result<(), TokenError> {
        self.access.check_token(token, unix_seconds())
    }

    /// Sets the name of the cookie that may contain a token. Default: none.
    #[must_use]
    pub fn token_cookie(mut self, name: &str) -> Config {
        self.access.places.cookie = Some(name.into());
        self
    }

    /// Sets the name of the query's parameter that may contain a token. Default: `token`.
    ///
    /// # Panics
    /// If [`is_token_parameter`](Config::is_token_parameter) returns false for it.
    #[must_use]
    pub fn token_parameter(mut self, name: &str) -> Config {
        assert!(
            Config::is_token_parameter(name),
            "`{name}` is a parameter of the server's own"
        );
        self.access.places.parameter = name.into();
        self
    }

    /// Whether a parameter with this name may contain a token. The server's own parameters
    /// may not, because their values are logged.
    #[must_use]
    pub fn is_token_parameter(name: &str) -> bool {
        let is_ours = is_harmless(name) || name.starts_with("meta.") || name == TICKET;
        !name.is_empty() && !is_ours
    }

    /// Sets whether clients may subscribe without a credential to the channels whose names
    /// match. If several patterns match, the first one added counts. Default: with keys for
    /// tokens no channel is public, without them all are.
    #[must_use]
    pub fn public_for(mut self, pattern: Pattern, is_public: bool) -> Config {
        self.access.public.push((pattern, is_public));
        self
    }

    /// Sets the time for which a ticket is valid. Default: 30 s.
    #[must_use]
    pub fn ticket_time(mut self, time: Duration) -> Config {
        self.access.ticket_time = time;
        self
    }

    /// Sets the maximum number of tickets that have not expired, used or not. Beyond it the
    /// response is `503`. One token may have a tenth of them. Default: 10,000, each from a
    /// body of at most 8 KiB that lists at most 64 channels.
    #[must_use]
    pub fn tickets_max(mut self, tickets: usize) -> Config {
        self.access.tickets_max = tickets;
        self
    }

    /// Sets the rate of forged tokens of RS256, ES256 and `EdDSA` that are verified for one
    /// address (IPv6: a network of 64 bits). Beyond it the response is `429` without a
    /// verification. HS256 has no limit, because it takes little time. `None`: no limit.
    /// Default: 10 per second.
    #[must_use]
    pub fn forged_tokens_per_address(mut self, rate: impl Into<Option<Rate>>) -> Config {
        self.access.forged_per_address = rate.into();
        self
    }

    /// Sets the rate of wrong keys that one address (IPv6: a network of 64 bits) may send.
    /// Beyond it the response to every key from there is `429`, even to the right one,
    /// unless a right key came from there before. `None`: no limit. Default: 10 per second.
    #[must_use]
    pub fn wrong_keys_per_address(mut self, rate: impl Into<Option<Rate>>) -> Config {
        self.access.wrong_keys_per_address = rate.into();
        self
    }

    /// Sets the origins whose pages may read all responses, and use cookies. Default: only
    /// pages of the server's own origin may read; on loopback also pages of loopback, see
    /// [`loopback_for`](Config::loopback_for).
    #[must_use]
    pub fn allow_origins(mut self, origins: impl IntoIterator<Item = AllowedOrigin>) -> Config {
        self.access.origins.listed = origins.into_iter().collect();
        self
    }

    /// Sets whether pages of any origin may read streams, without cookies
    /// (`Access-Control-Allow-Origin: *`). Default: false.
    #[must_use]
    pub fn allow_any_origin_to_subscribe(mut self, is_allowed: bool) -> Config {
        self.access.origins.any_reads_streams = is_allowed;
        self
    }

    /// Sets the headers that pages of other origins may send, beside those of the interface.
    /// Default: none.
    #[must_use]
    pub fn allow_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Config {
        self.access.origins.sent_headers = names.into_iter().collect();
        self
    }
}
