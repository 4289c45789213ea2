//! What of access reads untrusted text, for the fuzz targets.

#![allow(unreachable_pub, reason = "it is not where the server is a binary's")]

use super::settings::Settings;
use super::token_keys::TokenKeys;
use super::{credential, redact, token};

/// The value of a cookie in a header `Cookie`.
#[must_use]
pub fn cookie<'a>(cookies: &'a str, name: &str) -> Option<&'a str> {
    credential::value_of(cookies, name)
}

/// Whether a text is looked at as a token.
#[must_use]
pub fn has_shape(token: &str) -> bool {
    token.len() <= token::TOKEN_BYTES_MAX && token::has_form(token)
}

/// The code with which a server refuses a token whose keys nobody knows, and
/// whether it verified a signature; `None` accepts it.
///
/// # Panics
///
/// When the set is none.
#[must_use]
pub fn judged(token: &str, jwks: &str, now_s: f64) -> (Option<&'static str>, bool) {
    let keys = TokenKeys::jwks(jwks).expect("the set is the caller's own");
    let verifier = token::Verifier::new(keys, Settings::default().checks);
    let mut was_tried = false;
    let may_try = || {
        was_tried = true;
        Ok(())
    };
    let grant = verifier.grant(token, now_s, may_try, || {});
    (grant.err().map(|refused| refused.code()), was_tried)
}

/// A target as it may be logged.
#[must_use]
pub fn redacted(target: &str) -> String {
    redact::redact(target).into_owned()
}
