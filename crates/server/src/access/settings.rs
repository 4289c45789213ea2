//! What the configuration says of access.

use std::time::Duration;

use super::credential::Places;
use super::keys::Keys;
use super::origins::Origins;
use super::token::Checks;
use super::token_keys::TokenKeys;
use crate::pattern::Pattern;
use pushwheel::Rate;

/// How long a ticket is good for, unless told otherwise.
const TICKET_TIME: Duration = Duration::from_secs(30);
/// How many tickets there may be at once, unless told otherwise.
const TICKETS_MAX: usize = 10_000;
/// How far clocks may differ, unless told otherwise.
const LEEWAY_S: f64 = 10.0;
/// How many forged tokens a second are verified for an address, unless told
/// otherwise.
const FORGED_PER_SECOND: f64 = 10.0;

/// Maximum wrong keys a second of an address, unless set otherwise.
const WRONG_KEYS_PER_SECOND: f64 = 10.0;

/// What the configuration says of access.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) keys: Keys,
    pub(crate) token_keys: TokenKeys,
    pub(crate) checks: Checks,
    pub(crate) places: Places,
    /// The first that matches counts.
    pub(crate) public: Vec<(Pattern, bool)>,
    pub(crate) ticket_time: Duration,
    pub(crate) tickets_max: usize,
    pub(crate) forged_per_address: Option<Rate>,
    pub(crate) wrong_keys_per_address: Option<Rate>,
    pub(crate) origins: Origins,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            keys: Keys::default(),
            token_keys: TokenKeys::default(),
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
