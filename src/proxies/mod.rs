//! Who asks, when a proxy stands between: whose word is taken for it, and what
//! they say.
//!
//! Anybody can claim any address, so nothing is believed but what comes over a
//! connection from a network that was named. Two ways are understood: the PROXY
//! protocol, one header before the first request of a connection (`preface`),
//! and `X-Forwarded-For` in each request (`forwarded`). They add up: behind a
//! proxy of the first kind there may be one of the second.
//!
//! Pure: bytes and addresses in, an address out.

mod address;
mod forwarded;
mod network;
mod preface;

use std::net::{IpAddr, SocketAddr};

pub(crate) use address::canonical;
pub use network::{Network, NetworkError};
#[cfg(feature = "internals")]
pub use preface::{PREFACE_BYTES_MAX, PrefaceError};
pub use preface::{Preface, Source};

use crate::http::Head;

/// The proxies that are believed. By default none is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    /// From here connections begin with a header of the PROXY protocol.
    pub(crate) with_preface: Vec<Network>,
    /// From here `X-Forwarded-For` is believed.
    pub(crate) forwarding: Vec<Network>,
}

impl Proxies {
    /// Whether a connection from `peer` has to begin with a PROXY header.
    pub(crate) fn expects_preface(&self, peer: SocketAddr) -> bool {
        contains(&self.with_preface, peer.ip())
    }

    /// The address of the client whose connection from `peer` this is, if it is
    /// one client's: not before a PROXY header, nor from a proxy that has many.
    pub(crate) fn own_address(&self, peer: SocketAddr) -> Option<IpAddr> {
        self.direct(peer).filter(|_| !self.expects_preface(peer))
    }

    /// The address of `source`, unless it forwards the requests of others.
    pub(crate) fn direct(&self, source: SocketAddr) -> Option<IpAddr> {
        (!contains(&self.forwarding, source.ip())).then_some(source.ip())
    }

    /// Who sent this request over a connection that came from `source`.
    pub(crate) fn client_of(&self, source: SocketAddr, head: &Head) -> SocketAddr {
        if !contains(&self.forwarding, source.ip()) {
            return source;
        }
        let values = head.headers().filter_map(|(name, value)| {
            let is_it = name.eq_ignore_ascii_case("x-forwarded-for");
            is_it.then_some(value)
        });
        forwarded::client(source, values, |ip| contains(&self.forwarding, ip))
    }
}

fn contains(networks: &[Network], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(ip))
}
