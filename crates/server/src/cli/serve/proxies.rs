//! The settings of trusted proxies.

use clap::Args;
use pushwheel::{EngineBuilder, Network};

use super::Failure;
use crate::cli::words::{YES, boolean};

#[derive(Debug, Args)]
#[command(next_help_heading = "Proxies")]
pub(crate) struct ProxyArguments {
    /// Proxy or network of proxies to trust for client addresses
    ///
    /// For example 127.0.0.1 or 10.0.0.0/8. The client address is the rightmost one
    /// in `X-Forwarded-For` that is not in a trusted network. May be repeated.
    #[arg(long, value_name = "NETWORK", env = "PUSHWHEEL_TRUSTED_PROXY")]
    #[arg(value_delimiter = ',')]
    trusted_proxy: Vec<Network>,

    /// Require the PROXY protocol (version 1 or 2) from trusted proxies
    ///
    /// Other connections from a trusted proxy are rejected.
    #[arg(long, env = "PUSHWHEEL_PROXY_PROTOCOL", value_name = "BOOL")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = YES)]
    #[arg(default_value_t = false, value_parser = boolean, action = clap::ArgAction::Set)]
    proxy_protocol: bool,
}

/// The widest networks of a single operator: 10.0.0.0/8 is private, and a shorter prefix
/// of IPv6 belongs to several providers.
const PREFIX_BITS_MIN_OF_IPV4: u8 = 8;
const PREFIX_BITS_MIN_OF_IPV6: u8 = 16;

impl ProxyArguments {
    /// Returns whether other machines reach the server through a proxy, also a server that
    /// listens on loopback.
    pub(super) fn are_any(&self) -> bool {
        !self.trusted_proxy.is_empty()
    }

    /// Returns a network that is too wide to contain only proxies.
    pub(super) fn wide_network(&self) -> Option<Network> {
        let is_wide = |network: &&Network| {
            let bits_min = match network.is_ipv4() {
                true => PREFIX_BITS_MIN_OF_IPV4,
                false => PREFIX_BITS_MIN_OF_IPV6,
            };
            network.prefix_bits() < bits_min
        };
        self.trusted_proxy.iter().find(is_wide).copied()
    }

    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.proxy_protocol && !self.are_any() {
            true => {
                Err("--proxy-protocol needs trusted proxies. Set --trusted-proxy NETWORK".into())
            }
            false => Ok(()),
        }
    }

    /// Adds the proxies to the engine. With the PROXY protocol, `X-Forwarded-For` still
    /// counts if the announced address is that of a trusted proxy too.
    pub(super) fn apply(&self, engine: EngineBuilder) -> EngineBuilder {
        let networks = || self.trusted_proxy.iter().copied();
        let engine = engine.trusted_proxies(networks());
        match self.proxy_protocol {
            true => engine.proxy_protocol(networks()),
            false => engine,
        }
    }
}
