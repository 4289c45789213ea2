//! Cross-origin requests: the pages that may read answers.
//!
//! A browser lets every page read the answers of the page's own server. It shows
//! an answer to a page of another origin only if a header of the answer names that
//! origin. This module adds that header:
//!
//! | origin of the page | which answers | cookies |
//! | --- | --- | --- |
//! | one of `--allow-origin` | all | yes |
//! | loopback, and hosts of `--allow-host`, where the server is on loopback | all | no |
//! | any, with `--allow-origin '*'` | streams (`*`) | no |
//!
//! Streams are what `GET /events` and `GET /channels/NAME` answer, errors and
//! `204 No Content` included: a browser has to see why a stream ends.

use super::access::Origins;
use super::context::Live;
use pushwheel::{EngineBuilder, HeaderError, Method, Request, Response};

/// How long a browser may remember the answer to a preflight: a day, of which
/// Chromium uses two hours.
const PREFLIGHT_MAX_AGE_S: &str = "86400";
const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";
const REQUEST_METHOD: &str = "access-control-request-method";
const EXPOSED: &str = "Allow, Last-Event-ID, Retry-After, WWW-Authenticate";

/// Adds these headers to answers, and answers preflights. Answers to malformed
/// requests have no such header.
pub(super) fn install(engine: EngineBuilder, live: &Live) -> EngineBuilder {
    let live = live.clone();
    engine
        .before(|request| preflight(request))
        .after(move |request, response| {
            let rules = live.rules();
            let marked = mark(rules.access.origins(), request, response);
            marked.expect("what came in a header can go in one");
        })
}

/// Adds to an answer which page may read it.
fn mark(origins: &Origins, request: &Request, response: &mut Response) -> Result<(), HeaderError> {
    let headers = response.headers_mut();
    // A cache must not hand the answer to one page to another.
    headers.append("Vary", "Origin")?;
    let origin = request.header("origin").unwrap_or_default();
    let is_listed = origins.is_listed(origin);
    let allowed = match is_listed || origins.is_local(origin) {
        true => origin.to_owned(),
        false if origins.any_reads_streams && is_about_stream(request) => "*".to_owned(),
        false => return Ok(()),
    };
    headers.insert(ALLOW_ORIGIN, allowed)?;
    headers.insert("Access-Control-Expose-Headers", EXPOSED)?;
    match is_listed {
        true => headers.insert("Access-Control-Allow-Credentials", "true"),
        false => Ok(()),
    }
}

/// Whether a request is for a stream, or a preflight for such a request.
fn is_about_stream(request: &Request) -> bool {
    let reads = match request.method() {
        Method::Get | Method::Head => true,
        Method::Options => request.header(REQUEST_METHOD) == Some("GET"),
        _ => false,
    };
    let channel = request.path().strip_prefix("/channels/");
    let is_channel = channel.is_some_and(|name| !name.is_empty() && !name.contains('/'));
    reads && (is_channel || request.path() == "/events")
}

/// Answers a preflight, whatever path it is for.
fn preflight(request: &Request) -> Option<Response> {
    let is_preflight = *request.method() == Method::Options
        && request.header("origin").is_some()
        && request.header(REQUEST_METHOD).is_some();
    is_preflight.then(|| allow().expect("these can be headers"))
}

fn allow() -> Result<Response, HeaderError> {
    Response::status(204)
        .with_header(
            "Access-Control-Allow-Methods",
            "GET, HEAD, POST, DELETE, OPTIONS",
        )?
        .with_header(
            "Access-Control-Allow-Headers",
            "Last-Event-ID, Authorization, Cache-Control, Content-Type",
        )?
        .with_header("Access-Control-Max-Age", PREFLIGHT_MAX_AGE_S)
}
