//! Protects a server on loopback, which may run without keys: from requests that a proxy
//! forwards, and from web pages that the developer visits.
//!
//! **Proxies.** Such a server is for programs on the same machine. A proxy on that machine
//! opens it to other clients, and most proxies rewrite `Host`, so that no other check
//! notices. But most of them add headers. A request with one of these is refused.
//!
//! **Pages.** A developer visits pages of other sites with a browser on the same machine,
//! and these pages can send requests to loopback. A page cannot hide its origin: the browser
//! sends `Origin` with every POST and DELETE. With DNS rebinding, where the name of the
//! page's site resolves to 127.0.0.1, the name stays in `Host`. So both are checked; `cors`
//! hides the responses from pages of other origins.
//!
//! A rebound page reads without `Origin`, and over plain HTTP without `Sec-Fetch-Site`, like
//! a program. So `Host` is checked for programs too, if their request needs no credential,
//! but only a name with a dot is refused: an address cannot be rebound, and a name without a
//! dot is not in the public DNS.

use super::access::{Access, Hosts, Refused, is_public_name};
use super::context::Context;
use super::errors::{PROXY_FIX, Problem};
use super::throttle::Throttle;
use pushwheel::{EngineBuilder, IntoResponse, Method, Request};

/// The headers that proxies add. A proxy that adds none looks like a program on
/// this machine.
const ADDED_BY_PROXIES: [&str; 6] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "forwarded",
    "x-real-ip",
    "via",
];

/// Adds the checks, for a configuration that has hosts to check for.
pub(super) fn install(engine: EngineBuilder, context: &Context) -> EngineBuilder {
    let context = context.clone();
    engine.before(move |request| {
        let config = context.config();
        let local = config.access.origins().local.as_ref();
        let hosts = local.filter(|_| config.checks_hosts)?;
        let checked = check_proxy(request, &config.access, &context.proxy_warning)
            .and_then(|()| check_page(request, hosts, &config.access));
        Some(Problem::from(checked.err()?).into_response())
    })
}

/// Refuses a request that a proxy has forwarded to a server without keys.
fn check_proxy(request: &Request, access: &Access, warning: &Throttle) -> Result<(), Refused> {
    if access.is_secured() || !is_forwarded(request) || is_about_health(request) {
        return Ok(());
    }
    if warning.is_due() {
        let proxy = request.client_address();
        log::warn!(
            "refused a request that the proxy at {proxy} forwarded to this server without keys. \
             {PROXY_FIX}"
        );
    }
    Err(Refused::Forwarded)
}

fn is_forwarded(request: &Request) -> bool {
    let is_added = |name: &str| {
        let mut added = ADDED_BY_PROXIES.iter();
        added.any(|added| name.eq_ignore_ascii_case(added))
    };
    request.headers().any(|(name, _)| is_added(name))
}

/// Refuses a request that a browser sends for a page of another origin, or may have sent.
fn check_page(request: &Request, hosts: &Hosts, access: &Access) -> Result<(), Refused> {
    let origin = request.header("origin");
    let site = request.header("sec-fetch-site");
    let host = request.host().unwrap_or_default();
    if origin.is_none() && site.is_none() {
        // The cheap checks first, because they run for every request.
        let is_foreign = is_public_name(host) && !hosts.is_ours(host);
        let is_rebound = is_foreign && !is_about_health(request) && access.is_exposed_to(request);
        return refuse_if(is_rebound, Refused::Host);
    }
    if !hosts.is_ours(host) {
        return Err(Refused::Host);
    }
    let changes = !matches!(
        request.method(),
        Method::Get | Method::Head | Method::Options
    );
    // With keys or tokens any page that has one may send it.
    if !changes || access.is_secured() {
        return Ok(());
    }
    let is_foreign = match origin {
        Some(origin) => !hosts.have_page_of(origin) && !access.origins().is_listed(origin),
        None => site == Some("cross-site"),
    };
    refuse_if(is_foreign, Refused::PageOrigin)
}

fn refuse_if(is_refused: bool, refused: Refused) -> Result<(), Refused> {
    match is_refused {
        true => Err(refused),
        false => Ok(()),
    }
}

/// Whether a request is a health check. A load balancer sends it with any `Host`, and the
/// response contains no secret.
fn is_about_health(request: &Request) -> bool {
    ["/health", "/ready"].contains(&request.path())
}
