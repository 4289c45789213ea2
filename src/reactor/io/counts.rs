//! How many connections there are: in all, and from each address.
//!
//! All reactors of an engine share the counts. The total is an atomic counter. The
//! table by address is behind a lock, held for nanoseconds when a connection comes or
//! goes, and only while a limit for addresses is set. The number of descriptors is a
//! limit too, whatever the configured limits are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::limits::Limits;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct ConnectionCounts {
    connections: AtomicUsize,
    descriptors: usize,
    networks: Mutex<HashMap<u64, u32>>,
}

/// The limit that a connection has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// That of all connections.
    Engine,
    /// That of one address.
    Address,
}

impl Full {
    /// Returns the code and the message for a client that gets no stream for it.
    pub(crate) fn why(self) -> (&'static str, &'static str) {
        match self {
            Full::Engine => (
                "server_full",
                "the server has reached its limit of connections. Retry later",
            ),
            Full::Address => (
                "address_full",
                "your address has reached its limit of connections. Close some, or retry later",
            ),
        }
    }
}

/// What a connection counts for besides itself: its address, or [`NOWHERE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network(u64);

/// Not counted by address. As an IPv6 network this is in ff00::/8, which is
/// multicast and no client's address.
pub(crate) const NOWHERE: Network = Network(u64::MAX);

impl Network {
    /// The address in 8 bytes: of IPv6 the upper half, for one subscriber has a
    /// network of 2^64 addresses. An IPv4 address stands for itself; as an IPv6
    /// network it would be in ::/32, which holds no client but loopback.
    fn of(address: IpAddr) -> Network {
        match address.to_canonical() {
            IpAddr::V4(v4) => Network(u64::from(v4.to_bits())),
            IpAddr::V6(v6) => {
                let upper = v6.to_bits() >> 64;
                Network(u64::try_from(upper).expect("64 of 128 bits are left"))
            }
        }
    }
}

impl ConnectionCounts {
    /// Counts up to so many connections, for which there are descriptors.
    pub(crate) fn new(descriptors: usize) -> ConnectionCounts {
        ConnectionCounts {
            connections: AtomicUsize::new(0),
            descriptors,
            networks: Mutex::default(),
        }
    }

    /// Whether descriptors end before the limit is reached.
    pub(crate) fn is_short_of_descriptors(&self, limits: &Limits) -> bool {
        self.descriptors < limits.connections_max
    }

    /// For how many connections there is room.
    pub(crate) fn room(&self, limits: &Limits) -> usize {
        limits.connections_max.min(self.descriptors)
    }

    /// Counts a connection, if there is room for it. `address` is `None` where it is
    /// not the client's own.
    pub(crate) fn enter(&self, address: Option<IpAddr>, limits: &Limits) -> Result<Network, Full> {
        let room = self.room(limits);
        let more = |count: usize| (count < room).then_some(count + 1);
        let order = Ordering::Relaxed;
        let entered = self.connections.fetch_update(order, order, more);
        entered.map_err(|_| Full::Engine)?;
        let entered = address.map_or(Ok(NOWHERE), |address| self.enter_from(address, limits));
        if entered.is_err() {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
        entered
    }

    /// Counts the address of a connection that is counted already, if there is
    /// room for one more from there.
    pub(crate) fn enter_from(&self, address: IpAddr, limits: &Limits) -> Result<Network, Full> {
        if limits.connections_per_address_max == usize::MAX {
            return Ok(NOWHERE);
        }
        let network = Network::of(address);
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        let count = networks.entry(network.0).or_default();
        if (*count as usize) < limits.connections_per_address_max {
            *count += 1;
            return Ok(network);
        }
        if *count == 0 {
            networks.remove(&network.0);
        }
        Err(Full::Address)
    }

    /// A connection that was counted is gone.
    pub(crate) fn leave(&self, network: Network) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        if network == NOWHERE {
            return;
        }
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = networks.get_mut(&network.0) {
            *count -= 1;
            if *count == 0 {
                networks.remove(&network.0);
            }
        }
    }

    /// How many connections are counted.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// From how many addresses, as far as these are counted.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn networks(&self) -> usize {
        self.networks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

/// Where a reactor's connections are from, by their keys: 8 bytes each, and
/// nothing while addresses are not counted.
#[derive(Debug, Default)]
pub(crate) struct Origins(Vec<u64>);

impl Origins {
    pub(crate) fn note(&mut self, key: u32, network: Network) {
        let index = key as usize;
        if network == NOWHERE && index >= self.0.len() {
            return;
        }
        if index >= self.0.len() {
            self.0.resize(index + 1, NOWHERE.0);
        }
        self.0[index] = network.0;
    }

    pub(crate) fn take(&mut self, key: u32) -> Network {
        let place = self.0.get_mut(key as usize);
        place.map_or(NOWHERE, |place| {
            Network(std::mem::replace(place, NOWHERE.0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections_max: usize, connections_per_address_max: usize) -> Limits {
        Limits {
            connections_max,
            connections_per_address_max,
            ..Limits::default()
        }
    }

    #[test]
    fn each_address_is_counted_and_a_network_of_ipv6_is_one() {
        let (counts, limits) = (ConnectionCounts::new(usize::MAX), limits(100, 1));
        let enter = |address: &str| counts.enter(Some(address.parse().unwrap()), &limits);
        let mut inside = Vec::new();
        for address in [
            "10.0.0.1",
            "10.0.0.2",
            "2001:db8::1",
            "2001:db8:0:1::1",
            "::1",
        ] {
            inside.push(enter(address).unwrap());
        }
        for address in ["10.0.0.1", "::ffff:10.0.0.2", "2001:db8::ffff", "::1"] {
            assert_eq!(enter(address), Err(Full::Address), "{address}");
        }
        assert_eq!((counts.connections(), counts.networks()), (5, 5));
        for network in inside {
            counts.leave(network);
        }
        assert_eq!((counts.connections(), counts.networks()), (0, 0));
        assert!(enter("10.0.0.1").is_ok());
    }

    #[test]
    fn all_together_are_counted_whatever_their_address() {
        let (counts, limits) = (ConnectionCounts::new(usize::MAX), limits(2, usize::MAX));
        let enter = |address: &str| counts.enter(Some(address.parse().unwrap()), &limits);
        let first = enter("10.0.0.1").unwrap();
        enter("10.0.0.2").unwrap();
        assert_eq!(enter("10.0.0.3"), Err(Full::Engine));
        counts.leave(first);
        assert!(enter("10.0.0.3").is_ok());
        assert_eq!(counts.networks(), 0, "no table without a limit");
    }

    #[test]
    fn no_more_are_counted_than_there_are_descriptors_for() {
        let counts = ConnectionCounts::new(1);
        let enter = |max| counts.enter(None, &limits(max, usize::MAX));
        assert_eq!(enter(0), Err(Full::Engine));
        assert!(enter(100).is_ok());
        assert_eq!(enter(100), Err(Full::Engine));
        assert!(counts.is_short_of_descriptors(&limits(2, 0)));
        assert!(!counts.is_short_of_descriptors(&limits(1, 0)));
    }

    #[test]
    fn a_limit_that_is_unset_and_set_again_counts_the_connections_it_saw() {
        let counts = ConnectionCounts::new(usize::MAX);
        let mut origins = Origins::default();
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        for (key, per_address) in [(0, usize::MAX), (1, 2), (2, 2), (3, usize::MAX)] {
            let network = counts
                .enter(Some(address), &limits(100, per_address))
                .unwrap();
            origins.note(key, network);
        }
        assert_eq!(
            counts.enter(Some(address), &limits(100, 2)),
            Err(Full::Address)
        );
        for key in [0, 3, 1, 2] {
            counts.leave(origins.take(key));
        }
        assert_eq!((counts.connections(), counts.networks()), (0, 0));
        assert_eq!(origins.take(1), NOWHERE, "it was taken");
    }

    #[test]
    fn an_address_that_may_have_no_connection_gets_none() {
        let counts = ConnectionCounts::new(usize::MAX);
        let entered = counts.enter(Some("10.0.0.1".parse().unwrap()), &limits(1, 0));
        assert_eq!(entered, Err(Full::Address));
        assert_eq!((counts.connections(), counts.networks()), (0, 0));
    }
}
