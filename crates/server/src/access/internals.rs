//! The parsers of untrusted text in `access`, for the fuzz targets.

use super::settings::AccessSettings;
use super::token_keys::TokenKeys;
use super::{credential, redact, token};
use crate::limits::TOKEN_BYTES_MAX;

/// Returns the value of a cookie in a header `Cookie`.
#[must_use]
pub fn cookie<'a>(cookies: &'a str, name: &str) -> Option<&'a str> {
    credential::value_of(cookies, name)
}

/// Whether a text has the form and length of a token.
#[must_use]
pub fn has_shape(token: &str) -> bool {
    token.len() <= TOKEN_BYTES_MAX && token::has_form(token)
}

/// Returns the code with which a server with these keys refuses a token, `None` if it
/// accepts the token; and whether it verified a signature with a public key.
///
/// # Panics
///
/// If `jwks` is not a key set.
#[must_use]
pub fn judged(token: &str, jwks: &str, now_s: f64) -> (Option<&'static str>, bool) {
    let keys = TokenKeys::jwks(jwks).expect("the caller passes a valid key set");
    let verifier = token::Verifier::new(keys, AccessSettings::default().checks);
    let mut was_tried = false;
    let may_verify = || {
        was_tried = true;
        Ok(())
    };
    let grant = verifier.grant(token, now_s, may_verify, || {});
    (grant.err().map(|refused| refused.code()), was_tried)
}

/// Returns a target as a log shows it.
#[must_use]
pub fn redacted(target: &str) -> String {
    redact::redact(target).into_owned()
}
