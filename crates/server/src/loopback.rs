//! The protection of a server on loopback: from a proxy before it, and from pages that
//! its developer visits.
//!
//! # A proxy
//!
//! Such a server listens on loopback, for programs of its own machine. A proxy on
//! that machine lets clients of any other in, and most proxies rewrite `Host`, so
//! that no other check sees it. But most of them add headers. A request with one
//! of these is refused, whatever it asks for.
//!
//! # Pages
//!
//! A developer runs the server without keys, and visits pages of others with a
//! browser on the same machine. The browser reaches loopback too. A page cannot
//! hide its origin: the browser sends `Origin` with every POST and DELETE, and
//! with DNS rebinding, where the page's own name is made to point to 127.0.0.1,
//! the name stays in `Host`. So both are checked. `cors` keeps the answers from
//! pages of other origins.
//!
//! A page that was rebound reads without `Origin`, and over plain HTTP without
//! `Sec-Fetch-Site`, as programs do. So the `Host` of programs is checked too,
//! where their request needs no credential; but only a name with a dot is
//! refused. An address cannot be rebound, and a name without a dot cannot be in
//! the public DNS.

use super::access::{Access, Hosts, is_public_name};
use super::throttle::Throttle;
use pushwheel::{Method, Request, Response};

/// The headers that proxies add. A proxy that adds none cannot be told from a
/// program of this machine.
const ADDED_BY_PROXIES: [&str; 6] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "forwarded",
    "x-real-ip",
    "via",
];

const FIX: &str = "Set --admin-key, --publish-key and --trusted-proxy; or --allow-missing-keys, if every client \
                   of the proxy may publish and manage";

/// Refuses a request that a proxy has forwarded to a server without keys.
pub(super) fn check_proxy(
    request: &Request,
    access: &Access,
    warning: &Throttle,
) -> Option<Response> {
    if access.is_secured() || !is_forwarded(request) || is_about_health(request) {
        return None;
    }
    if warning.is_due() {
        let proxy = request.client_address();
        log::warn!(
            "the proxy at {proxy} forwards requests to a server without keys: refused. {FIX}"
        );
    }
    let message = format!("a proxy has forwarded this request to a server without keys. {FIX}");
    Some(Response::error(403, "proxy_not_trusted", &message))
}

fn is_forwarded(request: &Request) -> bool {
    let is_added = |name: &str| {
        let mut added = ADDED_BY_PROXIES.iter();
        added.any(|added| name.eq_ignore_ascii_case(added))
    };
    request.headers().any(|(name, _)| is_added(name))
}

/// Refuses what a browser sends for a foreign page, or may have sent.
pub(super) fn check_page(hosts: &Hosts, request: &Request, access: &Access) -> Option<Response> {
    let origin = request.header("origin");
    let site = request.header("sec-fetch-site");
    let host = request.host().unwrap_or_default();
    if origin.is_none() && site.is_none() {
        // What is cheap first: each request comes by here.
        let is_foreign = is_public_name(host) && !hosts.is_ours(host);
        let is_rebound = is_foreign && !is_about_health(request) && access.is_exposed_to(request);
        return is_rebound.then(host_not_allowed);
    }
    if !hosts.is_ours(host) {
        return Some(host_not_allowed());
    }
    let changes = !matches!(
        request.method(),
        Method::Get | Method::Head | Method::Options
    );
    // With keys or tokens it does not matter which page sends them.
    if !changes || access.is_secured() {
        return None;
    }
    let is_foreign = match origin {
        Some(origin) => !hosts.have_page_of(origin) && !access.origins().is_listed(origin),
        None => site == Some("cross-site"),
    };
    is_foreign.then(origin_not_allowed)
}

/// Whether a request is a load balancer's, which asks by whatever name, and
/// whose answer tells nothing worth hiding.
fn is_about_health(request: &Request) -> bool {
    ["/health", "/ready"].contains(&request.path())
}

fn host_not_allowed() -> Response {
    let message = "this server listens on loopback and was asked for by another name, as in DNS \
                   rebinding: ask for localhost, or start it with --allow-host NAME; behind a proxy \
                   with --trusted-proxy";
    Response::error(421, "host_not_allowed", message)
}

fn origin_not_allowed() -> Response {
    let message = "a page of another origin may not publish or manage here. Serve the page from \
                   localhost, allow it with --allow-origin ORIGIN, or use keys";
    Response::error(403, "origin_not_allowed", message)
}
