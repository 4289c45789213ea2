//! Rates per address: of published events, forged tokens and wrong keys.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pushwheel::{Bucket, Rate};

/// Maximum addresses that are counted: counting does not stop a flood from so many
/// addresses.
const ADDRESSES_MAX: usize = 100_000;

/// Values of the addresses that were active lately, at most a fixed number.
///
/// Two maps, so that no call looks at all addresses: when the first has half of the
/// maximum, it becomes the second, and the addresses of the old second are forgotten. An
/// active address moves back to the first.
#[derive(Debug)]
struct Recent<V> {
    newer: HashMap<IpAddr, V>,
    older: HashMap<IpAddr, V>,
    addresses_max: usize,
}

impl<V: Copy> Recent<V> {
    fn new(addresses_max: usize) -> Recent<V> {
        Recent {
            newer: HashMap::new(),
            older: HashMap::new(),
            addresses_max,
        }
    }

    fn get(&self, address: IpAddr) -> Option<V> {
        let found = self.newer.get(&address);
        found.or_else(|| self.older.get(&address)).copied()
    }

    /// Returns the value of an address. Sets it to `first` if there is none.
    fn get_or_insert_with(&mut self, address: IpAddr, first: impl FnOnce() -> V) -> &mut V {
        let older = self.older.remove(&address);
        if self.newer.len() >= self.addresses_max / 2 && !self.newer.contains_key(&address) {
            // Clearing drops no value, and keeps the memory for the next addresses.
            self.older.clear();
            std::mem::swap(&mut self.newer, &mut self.older);
        }
        let value = || older.unwrap_or_else(first);
        self.newer.entry(address).or_insert_with(value)
    }
}

/// The buckets of the addresses that were active lately. All clones share them.
#[derive(Clone, Debug)]
pub(super) struct Limiter {
    buckets: Arc<Mutex<Recent<Bucket>>>,
    started: Instant,
}

impl Limiter {
    #[allow(
        clippy::disallowed_methods,
        reason = "the edge: milliseconds are counted from here"
    )]
    pub(super) fn new() -> Limiter {
        Limiter {
            buckets: Arc::new(Mutex::new(Recent::new(ADDRESSES_MAX))),
            started: Instant::now(),
        }
    }

    /// Counts `events` from `address`. Without a rate it counts and limits nothing.
    ///
    /// # Errors
    /// If that is beyond the rate: the time after which it is not.
    #[allow(clippy::cast_possible_truncation, reason = "584 million years")]
    pub(super) fn admit(
        &self,
        rate: Option<Rate>,
        address: IpAddr,
        events: usize,
    ) -> Result<(), Duration> {
        match rate {
            Some(rate) => {
                let now_ms = self.started.elapsed().as_millis() as u64;
                self.admit_at(rate, address, events, now_ms)
            }
            None => Ok(()),
        }
    }

    /// Whether [`admit`](Self::admit) would accept one more event. Counts nothing.
    ///
    /// # Errors
    /// If not: the time after which it would.
    #[allow(clippy::cast_possible_truncation, reason = "584 million years")]
    pub(super) fn has_room(&self, rate: Option<Rate>, address: IpAddr) -> Result<(), Duration> {
        let Some(rate) = rate else {
            return Ok(());
        };
        let now_ms = self.started.elapsed().as_millis() as u64;
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.get(network_of(address));
        bucket.map_or(Ok(()), |mut bucket| bucket.take(rate, 1, now_ms))
    }

    fn admit_at(
        &self,
        rate: Rate,
        address: IpAddr,
        events: usize,
        now_ms: u64,
    ) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let full = || Bucket::new(rate, now_ms);
        let bucket = buckets.get_or_insert_with(network_of(address), full);
        bucket.take(rate, events, now_ms)
    }
}

/// Limits wrong keys per address.
///
/// Beyond the rate it refuses a right key too, otherwise the rate would stop no guess. A
/// client could then lock out a publisher with the same address, as all clients of a proxy
/// that is not trusted have. So an address that has sent a right key before has no rate.
#[derive(Clone, Debug)]
pub(super) struct WrongKeyLimiter {
    limiter: Limiter,
    known: Arc<Mutex<Recent<()>>>,
}

/// Maximum addresses that are remembered for a right key.
const KNOWN_ADDRESSES_MAX: usize = 10_000;

impl WrongKeyLimiter {
    pub(super) fn new() -> WrongKeyLimiter {
        WrongKeyLimiter {
            limiter: Limiter::new(),
            known: Arc::new(Mutex::new(Recent::new(KNOWN_ADDRESSES_MAX))),
        }
    }

    /// Counts a key from `address`.
    ///
    /// # Errors
    /// If the address has sent too many wrong keys: the time after which it may send
    /// another.
    pub(super) fn admit(
        &self,
        rate: Option<Rate>,
        address: IpAddr,
        is_right: bool,
    ) -> Result<(), Duration> {
        let network = network_of(address);
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known().get(network).is_some() {
            return Ok(());
        }
        if !is_right {
            return self.limiter.admit(rate, address, 1);
        }
        self.limiter.has_room(rate, address)?;
        known().get_or_insert_with(network, || ());
        Ok(())
    }
}

/// Returns the address for which all addresses of a network count. A subscriber of IPv6 has
/// a network of 2^64 addresses.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// Returns the number of the network for which an address counts.
pub(super) fn network_number(address: IpAddr) -> u64 {
    match network_of(address) {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).expect("64 of its 128 bits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_rate_and_a_network_of_ipv6_one() {
        let rate = Rate::per_second(1.0).burst(2);
        let limiter = Limiter::new();
        let admit = |address: &str| limiter.admit_at(rate, address.parse().unwrap(), 1, 0);
        for address in ["10.0.0.1", "10.0.0.2", "2001:db8::1"] {
            assert_eq!([admit(address), admit(address)], [Ok(()), Ok(())]);
        }
        for address in ["10.0.0.1", "::ffff:10.0.0.2", "2001:db8::2"] {
            assert_eq!(admit(address), Err(Duration::from_secs(1)), "{address}");
        }
        assert_eq!(admit("2001:db8:0:1::1"), Ok(()));
    }

    #[test]
    fn wrong_keys_hold_back_an_address_that_never_sent_a_right_one() {
        let rate = Some(Rate::per_second(0.001).burst(2));
        let limiter = WrongKeyLimiter::new();
        let admit = |address: &str, is_right| {
            let admitted = limiter.admit(rate, address.parse().unwrap(), is_right);
            admitted.is_ok()
        };
        assert!(admit("10.0.0.1", true));
        for _ in 0..5 {
            assert!(admit("10.0.0.1", false) && admit("10.0.0.1", true));
        }
        assert!(admit("10.0.0.2", false) && admit("10.0.0.2", false));
        // Beyond the rate the right key is refused too.
        for is_right in [false, true] {
            assert!(!admit("10.0.0.2", is_right));
        }
        assert!(admit("10.0.0.3", true));
        for n in 0..u32::try_from(KNOWN_ADDRESSES_MAX).unwrap() + 10 {
            assert!(limiter.admit(rate, IpAddr::V4(n.into()), true).is_ok());
            let known = limiter.known.lock().unwrap();
            assert!(known.newer.len() + known.older.len() <= KNOWN_ADDRESSES_MAX);
        }
    }

    #[test]
    fn a_flood_of_addresses_is_forgotten_and_an_active_address_is_not() {
        let rate = Rate::per_second(1.0);
        let limiter = Limiter::new();
        let active: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(limiter.admit_at(rate, active, 1, 0), Ok(()));
        for n in 0..3 * u32::try_from(ADDRESSES_MAX).unwrap() {
            let address = IpAddr::V4(n.into());
            assert_eq!(limiter.admit_at(rate, address, 1, 0), Ok(()));
            if n % 1_000 == 0 {
                assert!(limiter.admit_at(rate, active, 1, 0).is_err(), "{n}");
                let buckets = limiter.buckets.lock().unwrap();
                assert!(buckets.newer.len() + buckets.older.len() <= ADDRESSES_MAX);
            }
        }
        let first = IpAddr::V4(0.into());
        assert_eq!(limiter.admit_at(rate, first, 1, 0), Ok(()));
    }

    #[test]
    fn room_is_looked_up_without_being_used() {
        let rate = Some(Rate::per_second(0.001).burst(1));
        let limiter = Limiter::new();
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        for _ in 0..3 {
            assert_eq!(limiter.has_room(rate, address), Ok(()));
        }
        assert_eq!(limiter.admit(rate, address, 1), Ok(()));
        assert!(
            limiter
                .has_room(rate, "2001:db8::2".parse().unwrap())
                .is_err()
        );
        assert_eq!(limiter.has_room(None, address), Ok(()));
        assert_eq!(limiter.admit(None, address, usize::MAX), Ok(()));
    }

    #[test]
    fn addresses_of_one_network_have_one_number() {
        let number = |address: &str| network_number(address.parse().unwrap());
        assert_eq!(number("192.0.2.1"), number("::ffff:192.0.2.1"));
        assert_eq!(number("2001:db8::1"), number("2001:db8::ffff"));
        assert_ne!(number("2001:db8::1"), number("2001:db8:0:1::1"));
    }
}
