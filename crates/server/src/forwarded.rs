//! The protection of a server without keys from a proxy before it.
//!
//! Such a server listens on loopback, for programs of its own machine. A proxy on
//! that machine lets clients of any other in, and most proxies rewrite `Host`, so
//! that no other check sees it. But most of them add headers. A request with one
//! of these is refused, whatever it asks for.

use super::access::Access;
use super::origin::is_about_health;
use super::throttle::Throttle;
use pushwheel::{Request, Response};

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

const FIX: &str = "Set --admin-key, --publish-key and --trusted-proxy; or --open, if every client \
                   of the proxy may publish and manage";

/// Refuses a request that a proxy has forwarded to a server without keys.
pub(super) fn check(request: &Request, access: &Access, warning: &Throttle) -> Option<Response> {
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
