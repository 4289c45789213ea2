//! The one spelling of an address.

use std::net::{IpAddr, SocketAddr};

/// Returns an IPv4-mapped address of IPv6 (`::ffff:192.0.2.1`), as sockets for both
/// protocols and some proxies have it, as IPv4. Every address passes through here when it
/// arrives, so limits, logs and lists of clients have one spelling of each.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}
