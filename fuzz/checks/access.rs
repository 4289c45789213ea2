//! Tokens, cookies and logged targets of clients that are not authenticated.
//!
//! The input is used as a token, as a `Cookie` header, and as the text around a secret in
//! a query.

use pushwheel_server::internals::access::{cookie, has_shape, judged, redacted};

/// Keys of all kinds, with names that a token may contain.
const JWKS: &str = include_str!("../../crates/server/tests/server/keys/jwks.json");
const SECRET: &str = "S3cretOfNobody";

pub fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    check_token(text);
    check_cookie(text);
    check_redaction(text);
}

/// No input is accepted, and an input without the form of a token is not verified.
fn check_token(text: &str) {
    let parts: Vec<&str> = text.split('.').collect();
    let is_base64url = |part: &&str| {
        let is_digit = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !part.is_empty() && part.chars().all(is_digit)
    };
    let wanted = text.len() <= 8192 && parts.len() == 3 && parts.iter().all(is_base64url);
    assert_eq!(has_shape(text), wanted);
    let (code, was_tried) = judged(text, JWKS, 1000.0);
    let code = code.expect("the input has no key to sign with");
    assert!(code.starts_with("token_"), "{code}");
    assert!(wanted || !was_tried, "{text}");
}

/// A cookie is found behind any others.
fn check_cookie(text: &str) {
    if !text.contains("mine") {
        let with = format!("{text}; mine=a.b-c_d");
        assert_eq!(cookie(&with, "mine"), Some("a.b-c_d"), "{with}");
        assert_eq!(cookie(text, "mine"), None);
    }
    for pair in text.split(';') {
        let Some((name, _)) = pair.trim().split_once('=') else {
            continue;
        };
        if let Some(value) = cookie(text, name) {
            assert!(!value.is_empty() && !value.contains(';'));
            assert!(text.contains(&format!("{name}={value}")) || text.contains('"'));
        }
    }
}

/// A redacted target never contains the secret, and redacting it again changes nothing.
fn check_redaction(text: &str) {
    let (before, after) = text.split_once('\n').unwrap_or((text, ""));
    let (before, after) = (before.replace(SECRET, ""), after.replace(SECRET, ""));
    for name in ["token", "ticket", "%74oken", "x"] {
        let target = format!("/a?{before}&{name}={SECRET}{after}");
        let shown = redacted(&target);
        assert!(!shown.contains(SECRET), "{target}: {shown}");
        assert_eq!(redacted(&shown), shown, "{target}");
        let ampersands = |text: &str| text.matches('&').count();
        assert_eq!(ampersands(&shown), ampersands(&target));
    }
}
