//! The page at `/`, which shows live figures, streams channels and publishes.
//!
//! The page itself is markup, style and scripts, which are the same on every server. So it
//! needs no key, and a browser that opens an address could not send one. Everything secret
//! comes through the routes of `manage` and `publish`. The page's scripts send them the key
//! that the reader enters.
//!
//! A client that does not accept HTML receives a list of the routes as plain text.

use serde::Serialize;

use super::context::Context;
use super::errors::Problem;
use pushwheel::{EngineBuilder, HeaderError, Request, Response};

/// The page's files: name, media type, text.
const FILES: [(&str, &str, &str); 15] = [
    ("page.css", CSS, include_str!("assets/page/page.css")),
    ("icon.svg", SVG, include_str!("assets/page/icon.svg")),
    ("page.js", JS, include_str!("assets/page/page.js")),
    ("server.js", JS, include_str!("assets/page/server.js")),
    ("parts.js", JS, include_str!("assets/page/parts.js")),
    ("figures.js", JS, include_str!("assets/page/figures.js")),
    ("channels.js", JS, include_str!("assets/page/channels.js")),
    ("channel.js", JS, include_str!("assets/page/channel.js")),
    ("cluster.js", JS, include_str!("assets/page/cluster.js")),
    ("publish.js", JS, include_str!("assets/page/publish.js")),
    ("outage.js", JS, include_str!("assets/page/outage.js")),
    ("panel.js", JS, include_str!("assets/page/panel.js")),
    ("rates.js", JS, include_str!("assets/page/rates.js")),
    ("settings.js", JS, include_str!("assets/page/settings.js")),
    ("watch.js", JS, include_str!("assets/page/watch.js")),
];
const PAGE: &str = include_str!("assets/page/page.html");
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// The page loads its own files and sends requests to its own server only. Only the files'
/// scripts run, and no script can turn text into markup (`require-trusted-types-for`).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// Adds `/` and the routes that only the page uses. `hint` is the plain text for clients
/// that do not accept HTML.
pub(super) fn routes(
    engine: EngineBuilder,
    context: &Context,
    hint: &'static str,
) -> EngineBuilder {
    let context = context.clone();
    engine
        .get("/", move |request| root(request, hint))
        .get("/_page/rights", move |request| rights(request, &context))
        .get("/_page/{file}", file)
}

/// `GET /`
fn root(request: &Request, hint: &'static str) -> Response {
    let response = match request.accepts("text/html") {
        true => guarded(Response::html(PAGE)),
        false => Ok(Response::text(hint)),
    };
    let response = response.and_then(|response| response.with_header("Vary", "Accept"));
    response.expect("the values are valid in headers")
}

/// `GET /_page/{file}`
fn file(request: &Request) -> Result<Response, Problem> {
    let wanted = request.param("file").unwrap_or_default();
    let file = FILES.iter().find(|(name, _, _)| *name == wanted);
    let (_, media_type, text) = file.ok_or_else(Problem::no_page_file)?;
    let response = guarded(Response::typed(*media_type, text.as_bytes()));
    Ok(response.expect("the values are valid in headers"))
}

fn guarded(response: Response) -> Result<Response, HeaderError> {
    response
        .with_header("Content-Security-Policy", POLICY)?
        .with_header("Referrer-Policy", "no-referrer")?
        // Another version of the server has another page.
        .with_header("Cache-Control", "no-cache")
}

/// The rights of a request, with its key or without one. They let the page ask for a key,
/// and distinguish a wrong key from one with other rights. The routes themselves reveal the
/// same.
#[derive(Serialize)]
struct Rights {
    manage: bool,
    publish: bool,
    /// Without an admin key, but with another key or tokens, no request may view.
    has_admin_key: bool,
}

/// `GET /_page/rights`
fn rights(request: &Request, context: &Context) -> Result<Response, Problem> {
    let access = &context.config().access;
    let holder = access.key_holder(request, &context.access)?;
    let rights = Rights {
        manage: access.may_manage(request, holder).is_ok(),
        publish: access.may_publish_by_key(request),
        has_admin_key: access.has_admin_key(),
    };
    Ok(Response::json(&rights))
}
