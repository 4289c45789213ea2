//! The page at `/`: live figures, and a place to watch a stream and to publish
//! to it.
//!
//! The page is a shell: markup, style and scripts, which are the same for
//! everybody and hold nothing of this server. So it needs no key, and could
//! not ask for one: a browser that opens an address sends no `Authorization`.
//! All that is secret comes through the routes of `manage` and `publish`,
//! which the page's scripts ask with the key that its reader types in.
//!
//! A terminal that asks for `/` is told in plain text what there is.

use serde::Serialize;

use super::access::Refused;
use super::context::Live;
use pushwheel::{EngineBuilder, HeaderError, Request, Response};

/// The page's files: name, media type, text.
const FILES: [(&str, &str, &str); 10] = [
    ("page.css", CSS, include_str!("assets/page/page.css")),
    ("icon.svg", SVG, include_str!("assets/page/icon.svg")),
    ("page.js", JS, include_str!("assets/page/page.js")),
    ("server.js", JS, include_str!("assets/page/server.js")),
    ("parts.js", JS, include_str!("assets/page/parts.js")),
    ("figures.js", JS, include_str!("assets/page/figures.js")),
    ("channels.js", JS, include_str!("assets/page/channels.js")),
    ("channel.js", JS, include_str!("assets/page/channel.js")),
    ("publish.js", JS, include_str!("assets/page/publish.js")),
    ("watch.js", JS, include_str!("assets/page/watch.js")),
];
const PAGE: &str = include_str!("assets/page/page.html");
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// The page takes its own files and asks its own server, and nothing else.
/// Nothing can turn text into markup: no script may make any
/// (`require-trusted-types-for`), and none but the files' runs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// Adds `/` and what the page needs besides the server's interface. `hint` is
/// for those who do not ask for a page.
pub(super) fn routes(engine: EngineBuilder, live: &Live, hint: &'static str) -> EngineBuilder {
    let live = live.clone();
    engine
        .get("/", move |request| root(request, hint))
        .get("/_page/rights", move |request| rights(request, &live))
        .get("/_page/{file}", file)
}

/// `GET /`
fn root(request: &Request, hint: &'static str) -> Response {
    let response = match request.accepts("text/html") {
        true => guarded(Response::html(PAGE)),
        false => Ok(Response::text(hint)),
    };
    let response = response.and_then(|response| response.with_header("Vary", "Accept"));
    response.expect("these can be headers")
}

/// `GET /_page/{file}`
fn file(request: &Request) -> Response {
    let wanted = request.param("file").unwrap_or_default();
    match FILES.iter().find(|(name, _, _)| *name == wanted) {
        Some((_, media_type, text)) => {
            guarded(Response::typed(media_type, text.as_bytes())).expect("these can be headers")
        }
        None => Response::error(404, "not_found", "the page has no such file: open /"),
    }
}

fn guarded(response: Response) -> Result<Response, HeaderError> {
    response
        .with_header("Content-Security-Policy", POLICY)?
        .with_header("Referrer-Policy", "no-referrer")?
        // Another version of the server has another page.
        .with_header("Cache-Control", "no-cache")
}

/// What whoever asks may do with the key that was sent, or without one; so
/// that the page can ask for a key, and can tell a wrong one from one that
/// opens another door. It says no more than the guarded routes themselves.
#[derive(Serialize)]
struct Rights {
    manage: bool,
    publish: bool,
    /// Without an admin key, but with another or with tokens, looking is open to nobody.
    has_admin_key: bool,
}

/// `GET /_page/rights`
fn rights(request: &Request, live: &Live) -> Result<Response, Refused> {
    let access = &live.rules().access;
    let holder = access.key_holder(request, &live.office)?;
    let rights = Rights {
        manage: access.may_manage(request, holder).is_ok(),
        publish: access.may_publish_by_key(request),
        has_admin_key: access.has_admin_key(),
    };
    Ok(Response::json(&rights))
}
