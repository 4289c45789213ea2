//! The settings that say which proxies are before the server.

use clap::Args;
use pushwheel::{EngineBuilder, Network};

use super::Failure;
use super::arguments::YES;
use crate::cli::words::boolean;

#[derive(Debug, Args)]
#[command(next_help_heading = "Proxies")]
pub(crate) struct ProxyArguments {
    /// A network of proxies, such as 10.0.0.0/8 or 127.0.0.1, that are
    /// believed who asks; may be given several times. Without
    /// --proxy-protocol they say it with the header X-Forwarded-For, whose
    /// rightmost address that is of none of these networks counts.
    #[arg(long, value_name = "NETWORK", env = "PUSHWHEEL_TRUSTED_PROXY")]
    #[arg(value_delimiter = ',')]
    trusted_proxy: Vec<Network>,

    /// Trusted proxies begin each connection with a header of the PROXY
    /// protocol, version 1 or 2; what comes from them without it is refused.
    #[arg(long, env = "PUSHWHEEL_PROXY_PROTOCOL", value_name = "true|false")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = YES)]
    #[arg(default_value_t = false, value_parser = boolean, action = clap::ArgAction::Set)]
    proxy_protocol: bool,
}

/// The widest networks that one operator has: 10.0.0.0/8 is private, and a prefix of
/// IPv6 shorter than this is several providers'.
const PREFIX_BITS_MIN_OF_IPV4: u8 = 8;
const PREFIX_BITS_MIN_OF_IPV6: u8 = 16;

impl ProxyArguments {
    /// Whether there is one that others may come through, also to a server
    /// that listens on loopback.
    pub(super) fn are_any(&self) -> bool {
        !self.trusted_proxy.is_empty()
    }

    /// Returns a network that is too wide to be one of proxies.
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
            true => Err(
                "--proxy-protocol needs to know whose word is taken: name the proxies \
                         with --trusted-proxy NETWORK"
                    .into(),
            ),
            false => Ok(()),
        }
    }

    /// Tells the engine. With the PROXY protocol the header X-Forwarded-For
    /// still counts where the announced address is one of a trusted proxy too.
    pub(super) fn apply(&self, engine: EngineBuilder) -> EngineBuilder {
        let networks = || self.trusted_proxy.iter().copied();
        let engine = engine.trusted_proxies(networks());
        match self.proxy_protocol {
            true => engine.proxy_protocol(networks()),
            false => engine,
        }
    }
}
