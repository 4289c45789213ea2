//! Targets and queries: a handler gets the parameters of its path and of the query, decoded
//! by the URL Standard. No handler is called for an unknown path or a query that is not
//! UTF-8.
//!
//! The input is the request's target.

use std::borrow::Cow;

use pushwheel::ChannelManager;
use pushwheel::internals::http::Limits;
use pushwheel::internals::routing::{request, routed};

use super::wire::run;

const PATHS: &[&str] = &["/", "/a/{x}", "/a/{x}/b/{y}", "/w/{*rest}"];

pub fn check(input: &[u8]) {
    let bytes = [b"GET ", input, b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
    let Some(message) = run([&*bytes], &Limits::default())
        .messages
        .into_iter()
        .next()
    else {
        return;
    };
    let request = request(message, &channels());
    // A target may contain a whole request, which is not what this checks.
    let Some(target) = str::from_utf8(input)
        .ok()
        .filter(|t| *t == request.target())
    else {
        return;
    };

    check_query(&request, target);
    let path = request.path().to_owned();
    let (status, seen) = routed(PATHS, request).expect("the paths go together");
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let is_text = String::from_utf8(percent_decoded(query)).is_ok();
    let wanted = expected(&path).and_then(|params| is_text.then_some(params).ok_or(400));
    match (wanted, seen) {
        (Ok(params), Some(seen)) => {
            assert_eq!(status, 204);
            for name in ["x", "y", "rest"] {
                let wanted = params.iter().find(|(key, _)| *key == name);
                assert_eq!(
                    seen.param(name),
                    wanted.map(|(_, value)| &**value),
                    "{name}"
                );
            }
        }
        (Err(wanted), None) => assert_eq!(status, wanted, "{path:?}"),
        (wanted, seen) => panic!("{path:?}: {wanted:?}, but {status}, {seen:?}"),
    }
}

thread_local! {
    static CHANNELS: ChannelManager = ChannelManager::new();
}

/// Returns channels that all checks share, because these do not check them.
pub fn channels() -> ChannelManager {
    CHANNELS.with(ChannelManager::clone)
}

fn check_query(request: &pushwheel::Request, target: &str) {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let wanted = form(query);
    let pairs: Vec<_> = request.query_pairs().collect();
    assert_eq!(pairs, wanted);
    for (name, _) in &wanted {
        let first = wanted.iter().find(|(other, _)| other == name);
        assert_eq!(request.query(name), first.map(|(_, v)| v.clone()));
    }
}

/// Returns the parameters of `path` by [`PATHS`], or the status without a handler.
fn expected(path: &str) -> Result<Vec<(&'static str, String)>, u16> {
    let segments: Vec<&str> = path.split('/').collect();
    let raw = match &*segments {
        ["", ""] => vec![],
        ["", "a", x] if !x.is_empty() => vec![("x", *x)],
        ["", "a", x, "b", y] if !x.is_empty() && !y.is_empty() => vec![("x", *x), ("y", *y)],
        ["", "w", _, ..] if path.len() > 3 => vec![("rest", &path[3..])],
        _ => return Err(404),
    };
    raw.into_iter()
        .map(
            |(name, value)| match String::from_utf8(percent_decoded(value)) {
                Ok(value) => Ok((name, value)),
                Err(_) => Err(400),
            },
        )
        .collect()
}

/// Decodes `application/x-www-form-urlencoded` (URL Standard, section 5.1).
pub fn form(query: &str) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    let text = |part: &str| {
        let bytes = percent_decoded(&part.replace('+', " "));
        String::from_utf8_lossy(&bytes).into_owned().into()
    };
    let sequences = query.split('&').filter(|sequence| !sequence.is_empty());
    sequences
        .map(|sequence| sequence.split_once('=').unwrap_or((sequence, "")))
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

/// Decodes percent-encoded bytes (URL Standard, section 1.3).
fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).expect("two digits are a byte"));
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}
