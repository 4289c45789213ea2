//! [`Network`]: a network of addresses, as a configuration spells it.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A network of addresses in CIDR notation, or a single address:
/// `10.0.0.0/8`, `2001:db8::/32`, `127.0.0.1`.
///
/// ```
/// use pushwheel::Network;
///
/// let network: Network = "10.1.0.0/16".parse()?;
/// assert!(network.contains("10.1.2.3".parse()?));
/// assert!(!network.contains("10.2.0.1".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Returns whether the address is in this network. An IPv4-mapped IPv6 address
    /// (`::ffff:10.0.0.1`) counts as IPv4.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }

    /// Returns the length of the prefix that all addresses of the network share.
    #[must_use]
    pub fn prefix_bits(&self) -> u8 {
        self.0.prefix_len()
    }

    /// Returns whether this is a network of IPv4 addresses.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.0.addr().is_ipv4()
    }
}

impl From<IpAddr> for Network {
    /// Returns the network of this one address.
    fn from(ip: IpAddr) -> Network {
        Network(ip.to_canonical().into())
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(ip.into());
        }
        let network: IpNet = text.parse().map_err(|_| NetworkError {
            text: text.to_owned(),
        })?;
        Ok(Network(canonical(network.trunc())))
    }
}

/// Number of bits in front of the IPv4 address in its IPv4-mapped form (RFC 4291
/// section 2.5.5.2).
const MAPPED_PREFIX_BITS: u8 = 96;

/// Returns a network whose addresses are all IPv4-mapped as one of IPv4.
fn canonical(network: IpNet) -> IpNet {
    let bits = network.prefix_len().checked_sub(MAPPED_PREFIX_BITS);
    match (network.addr().to_canonical(), bits) {
        (IpAddr::V4(ip), Some(bits)) if network.addr().is_ipv6() => {
            IpNet::new(ip.into(), bits).unwrap_or(network)
        }
        _ => network,
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is not a [`Network`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkError {
    text: String,
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a network. Use an address with or without a prefix length, such as \
             10.0.0.0/8, 127.0.0.1 or 2001:db8::/32",
            self.text
        )
    }
}

impl Error for NetworkError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_however_they_are_written() {
        for (network, ip, is_in) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.9.9.9/8", "10.0.0.1", true),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("::ffff:127.0.0.1", "127.0.0.1", true),
            ("::ffff:127.0.0.0/104", "127.9.9.9", true),
            ("::ffff:127.0.0.0/104", "::ffff:127.9.9.9", true),
            ("::ffff:127.0.0.0/104", "128.0.0.1", false),
            ("::ffff:0:0/96", "192.0.2.1", true),
            ("::ffff:0:0/96", "2001:db8::1", false),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "10.0.0.1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(
                parsed.contains(ip.parse().unwrap()),
                is_in,
                "{network} {ip}"
            );
        }
    }

    #[test]
    fn an_invalid_network_gets_an_error_with_an_example() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "localhost",
            "10.0.0.1 ",
            "::/129",
        ] {
            let error = text.parse::<Network>().unwrap_err();
            assert!(error.to_string().contains("10.0.0.0/8"), "{text}");
        }
    }
}
