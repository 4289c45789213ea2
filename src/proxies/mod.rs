//! The address of a client behind proxies.
//!
//! Any client can write any address, so a claim counts only on a connection from a
//! configured network. There are two forms: the PROXY protocol, one header before the
//! first request of a connection (`preface`), and `X-Forwarded-For` in each request
//! (`forwarded`). They add up: a proxy of the first kind may be in front of one of the
//! second.
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

/// The trusted proxies. Default: none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    /// Connections from these networks begin with a header of the PROXY protocol.
    pub(crate) with_preface: Vec<Network>,
    /// `X-Forwarded-For` counts in requests from these networks.
    pub(crate) forwarding: Vec<Network>,
}

impl Proxies {
    /// Returns whether a connection from `peer` has to begin with a PROXY header.
    pub(crate) fn expects_preface(&self, peer: SocketAddr) -> bool {
        contains(&self.with_preface, peer.ip())
    }

    /// Returns the address of the client of a connection from `peer`, if it has exactly
    /// one: not before a PROXY header, and not from a proxy that forwards requests.
    pub(crate) fn own_address(&self, peer: SocketAddr) -> Option<IpAddr> {
        self.direct(peer).filter(|_| !self.expects_preface(peer))
    }

    /// Returns the address of `source`, unless it is a proxy that forwards requests.
    pub(crate) fn direct(&self, source: SocketAddr) -> Option<IpAddr> {
        (!contains(&self.forwarding, source.ip())).then_some(source.ip())
    }

    /// Returns the address of the client that sent a request, on a connection from
    /// `source`.
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
