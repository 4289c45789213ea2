//! What protects a server on loopback from the pages that its owner visits.
//!
//! Whoever develops runs the server without keys, and visits foreign pages in
//! the same machine's browser, which reaches loopback too. A page cannot hide
//! where it is from: its browser sends `Origin` with every POST and DELETE,
//! and with DNS rebinding, where a page's own name is made to stand for
//! 127.0.0.1, the name stays in `Host`. So both are checked. Programs send
//! neither `Origin` nor `Sec-Fetch-Site`, and are left alone: a program on
//! this machine needs no browser to get here.

use std::net::IpAddr;

use super::cors::Origins;
use crate::{Method, Request, Response};

/// The names by which browsers may ask for this server, and from which pages
/// may publish: loopback's, and these.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    pub(super) named: Vec<String>,
    /// Those whose pages were said to be allowed.
    pub(super) origins: Origins,
    /// Whether keys or tokens protect what changes anything; then it does not
    /// matter which page sends them.
    pub(super) has_keys: bool,
}

impl Hosts {
    /// Refuses what a browser sends for a foreign page.
    pub(super) fn check(&self, request: &Request) -> Option<Response> {
        let origin = request.header("origin");
        let site = request.header("sec-fetch-site");
        if origin.is_none() && site.is_none() {
            return None;
        }
        let host = request.host().unwrap_or_default();
        if !self.is_ours(host) {
            return Some(host_not_allowed());
        }
        let changes = !matches!(
            request.method(),
            Method::Get | Method::Head | Method::Options
        );
        if !changes || self.has_keys {
            return None;
        }
        let is_foreign = match origin {
            // `null` is a page without an origin, which any page can make.
            Some(origin) => origin
                .split_once("://")
                .is_none_or(|(_, host)| !self.is_ours(host) && !self.origins.is_listed(origin)),
            None => site == Some("cross-site"),
        };
        is_foreign.then(origin_not_allowed)
    }

    /// Whether an authority, `HOST` or `HOST:PORT`, is loopback or one of
    /// those that were named.
    fn is_ours(&self, authority: &str) -> bool {
        let host = without_port(authority).trim_end_matches('.');
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return ip.to_canonical().is_loopback() || self.is_named(bare);
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
        named.any(|name| name.eq_ignore_ascii_case(host))
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn host_not_allowed() -> Response {
    let message = "this server listens on loopback and was asked for by another name, as in DNS \
                   rebinding: ask for localhost, or start it with --host NAME";
    Response::error(421, "host_not_allowed", message)
}

fn origin_not_allowed() -> Response {
    let message = "a page from elsewhere may read here, and not publish or manage: serve the \
                   page from localhost, name its host with --host NAME, or use keys";
    Response::error(403, "origin_not_allowed", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_what_was_named_is_ours() {
        let hosts = Hosts {
            named: vec!["push.example.com".into(), "fd00::1".into()],
            origins: Origins::default(),
            has_keys: false,
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
}
