//! What [`Config`] takes about access.

use std::time::Duration;

use super::Config;
use crate::access::{AllowedOrigin, Key, TICKET, TokenKeys, is_harmless};
use crate::pattern::Pattern;
use pushwheel::Rate;

impl Config {
    /// The key that POST needs. Default: none. Once there is one of the two
    /// keys, whatever needs the other is open to nobody.
    ///
    /// A second call adds a key: while keys are changed, the old and the new one hold.
    #[must_use]
    pub fn publish_key(mut self, key: Key) -> Config {
        self.access.keys.publish.push(key);
        self
    }

    /// The key that DELETE, `/stats`, the names of the channels and their
    /// clients need; it may publish as well. Default: none.
    ///
    /// A second call adds a key, as with [`publish_key`](Config::publish_key).
    #[must_use]
    pub fn admin_key(mut self, key: Key) -> Config {
        self.access.keys.admin.push(key);
        self
    }

    /// The keys that tokens are verified with. With any, channels are closed:
    /// subscribing needs a token that lists the channel, a ticket or a key,
    /// unless the channel [is public](Config::public_for); publishing needs a
    /// key, or a token that lists the channel. Default: none.
    #[must_use]
    pub fn token_keys(mut self, keys: TokenKeys) -> Config {
        self.access.token_keys = keys;
        self
    }

    /// Whether any key for tokens was given.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        !self.access.token_keys.is_empty()
    }

    /// Whether publishing and managing need a key or a token.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        self.has_tokens() || !self.access.keys.are_none()
    }

    /// For whom tokens are: one of these has to be in `aud`. Default: nobody,
    /// and then a token has no `aud`.
    #[must_use]
    pub fn token_audiences(mut self, names: impl IntoIterator<Item = String>) -> Config {
        self.access.checks.audiences = names.into_iter().collect();
        self
    }

    /// Who makes tokens: `iss` has to be one of these. Default: whoever has a
    /// key.
    #[must_use]
    pub fn token_issuers(mut self, names: impl IntoIterator<Item = String>) -> Config {
        self.access.checks.issuers = names.into_iter().collect();
        self
    }

    /// How far the clocks of this server and of those who make tokens may
    /// differ. Default: 10 s.
    #[must_use]
    pub fn token_leeway(mut self, time: Duration) -> Config {
        self.access.checks.leeway_s = time.as_secs_f64();
        self
    }

    /// Whether tokens have to have an `exp`. Default: yes.
    #[must_use]
    pub fn token_needs_expiry(mut self, needs: bool) -> Config {
        self.access.checks.needs_expiry = needs;
        self
    }

    /// Sets the longest time for which a token may be valid, from its `iat`, or
    /// from now without one, to its `exp`. With it, a token needs an `exp`. `None`:
    /// no limit but the year 9999. Default: none.
    #[must_use]
    pub fn token_lifetime_max(mut self, time: impl Into<Option<Duration>>) -> Config {
        self.access.checks.lifetime_max_s = time.into().map(|time| time.as_secs_f64());
        self
    }

    /// The cookie that a token may come in. Default: none.
    #[must_use]
    pub fn token_cookie(mut self, name: &str) -> Config {
        self.access.places.cookie = Some(name.into());
        self
    }

    /// The query's parameter that a token may come in. Default: `token`.
    ///
    /// # Panics
    /// When [`is_token_parameter`](Config::is_token_parameter) says that it
    /// cannot be one.
    #[must_use]
    pub fn token_parameter(mut self, name: &str) -> Config {
        assert!(
            Config::is_token_parameter(name),
            "`{name}` is a parameter of the server's own"
        );
        self.access.places.parameter = name.into();
        self
    }

    /// Whether a parameter of this name may hold a token: those that the server
    /// has a use for may not, for their values are logged.
    #[must_use]
    pub fn is_token_parameter(name: &str) -> bool {
        let is_ours = is_harmless(name) || name.starts_with("meta.") || name == TICKET;
        !name.is_empty() && !is_ours
    }

    /// Whether everybody may subscribe to the channels whose names match; of
    /// several patterns that do, the first one added counts. Default: no
    /// channel is public once there are keys for tokens, and all are before.
    #[must_use]
    pub fn public_for(mut self, pattern: Pattern, is_public: bool) -> Config {
        self.access.public.push((pattern, is_public));
        self
    }

    /// How long a ticket is good for. Default: 30 s.
    #[must_use]
    pub fn ticket_time(mut self, time: Duration) -> Config {
        self.access.ticket_time = time;
        self
    }

    /// How many tickets may be out at once, used or not; one more is answered
    /// `503`. One token may have a tenth of them out, whoever has a key all.
    /// Default: 10,000, each made by a body of at most 8 KiB that lists at most
    /// 64 channels.
    #[must_use]
    pub fn tickets_max(mut self, tickets: usize) -> Config {
        self.access.tickets_max = tickets;
        self
    }

    /// Sets how many forged tokens of RS256, ES256 and EdDSA are verified for one
    /// address (of IPv6: one network of 64 bits); then the answer is `429` without
    /// verifying. HS256 has no limit, because it costs little. `None`: no limit.
    /// Default: 10 a second.
    #[must_use]
    pub fn forged_tokens_per_address(mut self, rate: impl Into<Option<Rate>>) -> Config {
        self.access.forged_per_address = rate.into();
        self
    }

    /// Sets how many wrong keys one address (of IPv6: one network of 64 bits) may
    /// send; then every key from there is answered `429`, the right one too, unless
    /// a right key has come from there before. `None`: no limit. Default: 10 a
    /// second.
    #[must_use]
    pub fn wrong_keys_per_address(mut self, rate: impl Into<Option<Rate>>) -> Config {
        self.access.wrong_keys_per_address = rate.into();
        self
    }

    /// The origins whose pages may read all answers, and use cookies. Default: only
    /// pages of the server's own origin may read; on loopback also pages of
    /// loopback, see [`loopback_for`](Config::loopback_for).
    #[must_use]
    pub fn allow_origins(mut self, origins: impl IntoIterator<Item = AllowedOrigin>) -> Config {
        self.access.origins.listed = origins.into_iter().collect();
        self
    }

    /// Whether pages of any origin may read streams, without cookies
    /// (`Access-Control-Allow-Origin: *`). Default: false.
    #[must_use]
    pub fn allow_any_origin_to_subscribe(mut self, is_allowed: bool) -> Config {
        self.access.origins.any_reads_streams = is_allowed;
        self
    }
}
