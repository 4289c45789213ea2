//! What of access reads untrusted text, for the fuzz targets.

#![allow(unreachable_pub, reason = "it is not where the server is a binary's")]

use super::{credential, redact, token};

/// The value of a cookie in a header `Cookie`.
#[must_use]
pub fn cookie<'a>(cookies: &'a str, name: &str) -> Option<&'a str> {
    credential::value_of(cookies, name)
}

/// Whether a text is looked at as a token.
#[must_use]
pub fn has_shape(token: &str) -> bool {
    token::has_shape(token)
}

/// A target as it may be logged.
#[must_use]
pub fn redacted(target: &str) -> String {
    redact::redact(target).into_owned()
}
