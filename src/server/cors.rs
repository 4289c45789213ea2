//! Cross-origin requests: pages of any origin may read, and may publish unless
//! `origin` has a reason to refuse. There are no cookies here, so a page can do
//! nothing in its visitor's name.

use crate::{EngineBuilder, HeaderError, Method, Request, Response};

/// For how long a browser may remember the answer to a preflight: a day, of
/// which Chromium takes two hours.
const PREFLIGHT_MAX_AGE_S: &str = "86400";

/// Adds what browsers ask for.
pub(super) fn open(engine: EngineBuilder) -> EngineBuilder {
    let with_headers = |engine: EngineBuilder| {
        engine
            .header("Access-Control-Allow-Origin", "*")?
            .header("Access-Control-Expose-Headers", "Allow, Retry-After")
    };
    with_headers(engine)
        .expect("these can be headers")
        .before(preflight)
}

/// Answers a preflight, whatever path it is for.
fn preflight(request: &Request) -> Option<Response> {
    let is_preflight = *request.method() == Method::Options
        && request.header("origin").is_some()
        && request.header("access-control-request-method").is_some();
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
