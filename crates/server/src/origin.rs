//! The protection of a server on loopback from pages that its developer visits.
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

use std::net::IpAddr;

use super::access::Access;
use pushwheel::{Method, Request, Response};

/// The names and addresses of loopback, and others that stand for it: a server
/// there may be asked for by these, and pages of these may read and publish.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    pub(super) named: Vec<String>,
}

impl Hosts {
    /// Refuses what a browser sends for a foreign page, or may have sent.
    pub(super) fn check(&self, request: &Request, access: &Access) -> Option<Response> {
        let origin = request.header("origin");
        let site = request.header("sec-fetch-site");
        let host = request.host().unwrap_or_default();
        if origin.is_none() && site.is_none() {
            // What is cheap first: each request comes by here.
            let is_foreign = is_public_name(host) && !self.is_ours(host);
            let is_rebound =
                is_foreign && !is_about_health(request) && access.is_exposed_to(request);
            return is_rebound.then(host_not_allowed);
        }
        if !self.is_ours(host) {
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
            Some(origin) => !self.have_page_of(origin) && !access.origins().is_listed(origin),
            None => site == Some("cross-site"),
        };
        is_foreign.then(origin_not_allowed)
    }

    /// Whether a page of this origin is one of these hosts'. `null` is not: it is
    /// a page without an origin, which any page can make.
    pub(super) fn have_page_of(&self, origin: &str) -> bool {
        let parts = origin.split_once("://");
        parts.is_some_and(|(scheme, host)| {
            let is_web = ["http", "https"]
                .iter()
                .any(|web| web.eq_ignore_ascii_case(scheme));
            is_web && self.is_ours(host)
        })
    }

    /// Whether an authority, `HOST` or `HOST:PORT`, is loopback or one of
    /// those that were named.
    fn is_ours(&self, authority: &str) -> bool {
        let host = host_of(authority);
        if let Ok(ip) = host.parse::<IpAddr>() {
            let ip = ip.to_canonical();
            let named = self
                .named
                .iter()
                .filter_map(|name| name.parse::<IpAddr>().ok());
            return ip.is_loopback() || named.into_iter().any(|name| name.to_canonical() == ip);
        }
        // Browsers have all of `.localhost` stand for loopback, whatever DNS
        // says (RFC 6761 section 6.3).
        let is_local = host
            .rsplit('.')
            .next()
            .is_some_and(|last| last.eq_ignore_ascii_case("localhost"));
        is_local || self.is_named(host)
    }

    fn is_named(&self, host: &str) -> bool {
        let mut named = self.named.iter();
        named.any(|name| host_of(name).eq_ignore_ascii_case(host))
    }
}

/// Whether an authority's host is a name that a stranger can have in the public
/// DNS, and have stand for 127.0.0.1.
fn is_public_name(authority: &str) -> bool {
    let host = host_of(authority);
    host.contains('.') && host.parse::<IpAddr>().is_err()
}

/// An authority's host: without its port, the brackets of an address, and the
/// dot behind a name that is whole.
fn host_of(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_end_matches('.');
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Whether a request is a load balancer's, which asks by whatever name, and
/// whose answer tells nothing worth hiding.
pub(super) fn is_about_health(request: &Request) -> bool {
    ["/health", "/ready"].contains(&request.path())
}

fn host_not_allowed() -> Response {
    let message = "this server listens on loopback and was asked for by another name, as in DNS \
                   rebinding: ask for localhost, or start it with --host NAME; behind a proxy \
                   with --trusted-proxy";
    Response::error(421, "host_not_allowed", message)
}

fn origin_not_allowed() -> Response {
    let message = "a page of another origin may not publish or manage here. Serve the page from \
                   localhost, allow it with --allow-origin ORIGIN, or use keys";
    Response::error(403, "origin_not_allowed", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_what_was_named_is_ours() {
        let hosts = Hosts {
            named: vec![
                "push.example.com".into(),
                "whole.example.".into(),
                "fd00::1".into(),
                "192.0.2.9".into(),
            ],
        };
        for ours in [
            "localhost",
            "LOCALHOST:8080",
            "app.localhost:1",
            "localhost.",
            "127.0.0.1",
            "127.8.8.8:80",
            "[::1]",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:8080",
            "Push.Example.com:443",
            "[fd00::1]:8080",
            "[FD00::1]",
            "[fd00:0::1]",
            "192.0.2.9",
            "[::ffff:192.0.2.9]:80",
            "whole.example",
            "whole.example.:80",
        ] {
            assert!(hosts.is_ours(ours), "{ours}");
        }
        for foreign in [
            "",
            "example.com",
            "localhost.example.com",
            "notlocalhost",
            "127.0.0.1.example.com",
            "192.0.2.1:8080",
            "0.0.0.0:8080",
            "[::2]",
            "push.example.com.evil.example",
        ] {
            assert!(!hosts.is_ours(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_name_that_a_stranger_can_have_has_a_dot() {
        for public in [
            "evil.example",
            "evil.example.:8080",
            "127.0.0.1.example",
            "1.2",
        ] {
            assert!(is_public_name(public), "{public}");
        }
        for other in [
            "",
            ":80",
            "x",
            "test.:8080",
            "127.0.0.1",
            "192.0.2.1:8080",
            "[::2]:80",
            "[::ffff:192.0.2.1]",
        ] {
            assert!(!is_public_name(other), "{other}");
        }
    }
}
