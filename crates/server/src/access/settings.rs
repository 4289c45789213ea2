//! The settings of access.

use std::time::Duration;

use super::credential::Places;
use super::keys::Keys;
use super::origins::Origins;
use super::token::Checks;
use super::token_keys::TokenKeys;
use crate::pattern::Pattern;
use pushwheel::Rate;

/// Default time for which a ticket is valid.
const TICKET_TIME: Duration = Duration::from_secs(30);
/// Default maximum of valid tickets.
const TICKETS_MAX: usize = 10_000;
/// Default maximum difference between clocks.
const LEEWAY_S: f64 = 10.0;
/// Default maximum of forged tokens from an address that are verified.
const FORGED_PER_SECOND: f64 = 10.0;
/// Default maximum of wrong keys from an address.
const WRONG_KEYS_PER_SECOND: f64 = 10.0;

/// The settings of access, as [`Config`](crate::Config) collects them.
#[derive(Clone, Debug)]
pub(crate) struct AccessSettings {
    pub(crate) keys: Keys,
    /// Whether publish keys may finish channels.
    pub(crate) publish_keys_finish: bool,
    pub(crate) token_keys: TokenKeys,
    /// Whether the program fetches more keys, so that tokens are needed without any.
    pub(crate) fetches_token_keys: bool,
    pub(crate) checks: Checks,
    pub(crate) places: Places,
    /// The first pattern that matches a channel decides whether it is public.
    pub(crate) public: Vec<(Pattern, bool)>,
    pub(crate) ticket_time: Duration,
    pub(crate) tickets_max: usize,
    pub(crate) forged_per_address: Option<Rate>,
    pub(crate) wrong_keys_per_address: Option<Rate>,
    pub(crate) origins: Origins,
}

impl AccessSettings {
    /// Whether channels that are not public need a credential.
    pub(crate) fn has_tokens(&self) -> bool {
        self.fetches_token_keys || !self.token_keys.is_empty()
    }
}

impl Default for AccessSettings {
    fn default() -> AccessSettings {
        AccessSettings {
            keys: Keys::default(),
            publish_keys_finish: false,
            token_keys: TokenKeys::default(),
            fetches_token_keys: false,
            checks: Checks {
                audiences: Vec::new(),
                issuers: Vec::new(),
                leeway_s: LEEWAY_S,
                needs_expiry: true,
                lifetime_max_s: None,
            },
            places: Places {
                parameter: "token".into(),
                cookie: None,
            },
            public: Vec::new(),
            ticket_time: TICKET_TIME,
            tickets_max: TICKETS_MAX,
            forged_per_address: Some(Rate::per_second(FORGED_PER_SECOND)),
            wrong_keys_per_address: Some(Rate::per_second(WRONG_KEYS_PER_SECOND)),
            origins: Origins::default(),
        }
    }
}
