//! Cross-origin requests: the pages that may read responses.
//!
//! A browser lets every page read the responses of the page's own server. A page of another
//! origin may read a response only if a header names that origin. This module adds that
//! header:
//!
//! | origin of the page | responses | cookies |
//! | --- | --- | --- |
//! | one of `--allow-origin` | all | yes |
//! | loopback, and hosts of `--allow-host`, where the server is on loopback | all | no |
//! | any, with `--allow-origin '*'` | streams (`*`) | no |
//!
//! Streams are the responses to `GET /events` and `GET /channels/NAME`, errors, pages of
//! events and `204 No Content` included: a page has to see why a stream ends.
//!
//! A page of another origin may send the headers of the interface, and those of
//! `--allow-header`.

use super::access::Origins;
use super::context::Context;
use pushwheel::{EngineBuilder, HeaderError, Method, Request, Response};

/// Maximum time for which a browser remembers a preflight: a day, of which Chromium uses
/// two hours.
const PREFLIGHT_MAX_AGE_S: &str = "86400";
const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";
const REQUEST_METHOD: &str = "access-control-request-method";
const EXPOSED: &str = "Allow, ETag, Last-Event-ID, Retry-After, WWW-Authenticate";

/// The headers of the interface that a page may set.
const SENT: &str = "Last-Event-ID, Authorization, Cache-Control, Content-Type, \
                    Idempotency-Key, If-Match";

/// Answers preflights, and adds the headers to all responses except those to malformed
/// requests.
pub(super) fn install(engine: EngineBuilder, context: &Context) -> EngineBuilder {
    let (preflights, context) = (context.clone(), context.clone());
    engine
        .before(move |request| preflight(request, &preflights))
        .after(move |request, response| {
            let config = context.config();
            let allowed = allow_page(config.access.origins(), request, response);
            allowed.expect("a value from a header is valid in a header");
        })
}

/// Adds the origin that may read the response.
fn allow_page(
    origins: &Origins,
    request: &Request,
    response: &mut Response,
) -> Result<(), HeaderError> {
    let headers = response.headers_mut();
    // A cache must not return the response for one page to another page.
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

/// Answers a preflight for any path.
fn preflight(request: &Request, context: &Context) -> Option<Response> {
    let is_preflight = *request.method() == Method::Options
        && request.header("origin").is_some()
        && request.header(REQUEST_METHOD).is_some();
    is_preflight.then(|| {
        let config = context.config();
        let sent = config.access.origins().sent_headers.iter();
        let sent = sent.fold(SENT.to_owned(), |all, name| format!("{all}, {name}"));
        allow(sent).expect("the values are valid in headers")
    })
}

fn allow(sent: String) -> Result<Response, HeaderError> {
    Response::status(204)
        .with_header(
            "Access-Control-Allow-Methods",
            "GET, HEAD, POST, DELETE, OPTIONS",
        )?
        .with_header("Access-Control-Allow-Headers", sent)?
        .with_header("Access-Control-Max-Age", PREFLIGHT_MAX_AGE_S)
}
