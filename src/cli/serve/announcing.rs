//! How the server says where it listens.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Settings;
use crate::cli::log::Format;

/// Says it: to people on the standard output, with what to try first; to
/// programs in the log, as all else.
pub(super) fn announce(settings: &Settings, address: SocketAddr, has_tokens: bool) {
    match settings.arguments.logs.format() {
        Format::Json => log::info!(address:% = address; "listens"),
        // Whether anybody reads it or not, the server runs.
        Format::Text => drop(show(settings, address, has_tokens)),
    }
}

fn show(settings: &Settings, address: SocketAddr, has_tokens: bool) -> io::Result<()> {
    let bearer = |variable: &str| format!(" -H \"Authorization: Bearer ${variable}\"");
    let token = match has_tokens {
        true => bearer("TOKEN"),
        false => String::new(),
    };
    let key = settings.arguments.keys.variable_to_publish();
    let key = key.map_or(token.clone(), bearer);
    let url = format!("http://{}", reachable(address));
    let mut out = io::stdout().lock();
    writeln!(out, "pushwheel listens on http://{address}")?;
    writeln!(out, "  subscribe:  curl -N{token} {url}/channels/news")?;
    writeln!(out, "  publish:    curl{key} -d hello {url}/channels/news")?;
    out.flush()
}

/// The address under which this machine reaches a server that listens on all
/// of its addresses.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_reached_on_loopback() {
        for (address, url) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(reachable(address.parse().unwrap()).to_string(), url);
        }
    }
}
