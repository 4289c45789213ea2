//! The hosts that stand for a server on loopback. Pure.

use std::net::IpAddr;

/// The hosts of a server on loopback: the names and addresses of loopback, and those that
/// a setting adds. Requests may name them in `Host`, and their pages may read and publish.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts {
    pub(crate) named: Vec<String>,
}

impl Hosts {
    /// Whether an origin has one of these hosts. The origin `null` does not: any page can
    /// open a page without an origin.
    pub(crate) fn have_page_of(&self, origin: &str) -> bool {
        let parts = origin.split_once("://");
        parts.is_some_and(|(scheme, host)| {
            let is_web = ["http", "https"]
                .iter()
                .any(|web| web.eq_ignore_ascii_case(scheme));
            is_web && self.is_ours(host)
        })
    }

    /// Whether the host of an authority, `HOST` or `HOST:PORT`, is one of these.
    pub(crate) fn is_ours(&self, authority: &str) -> bool {
        let host = host_of(authority);
        if let Ok(ip) = host.parse::<IpAddr>() {
            let ip = ip.to_canonical();
            let named = self
                .named
                .iter()
                .filter_map(|name| name.parse::<IpAddr>().ok());
            return ip.is_loopback() || named.into_iter().any(|name| name.to_canonical() == ip);
        }
        // Browsers resolve all names below `.localhost` to loopback (RFC 6761 section 6.3).
        let is_local = host
            .rsplit('.')
            .next()
            .is_some_and(|last| last.eq_ignore_ascii_case("localhost"));
        is_local || self.is_named(host)
    }

    fn is_named(&self, host: &str) -> bool {
        let mut named = self.named.iter();
        named.any(|name| host_of(name).eq_ignore_ascii_case(host))
    }
}

/// Whether the host of an authority is a name that the public DNS can have, so that an
/// attacker can let it resolve to 127.0.0.1.
pub(crate) fn is_public_name(authority: &str) -> bool {
    let host = host_of(authority);
    host.contains('.') && host.parse::<IpAddr>().is_err()
}

/// Returns the host of an authority, without its port, the brackets of an IPv6 address,
/// and the dot at the end of a fully qualified name.
fn host_of(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_end_matches('.');
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_what_was_named_is_ours() {
        let hosts = Hosts {
            named: vec![
                "push.example.com".into(),
                "whole.example.".into(),
                "fd00::1".into(),
                "192.0.2.9".into(),
            ],
        };
        for ours in [
            "localhost",
            "LOCALHOST:8080",
            "app.localhost:1",
            "localhost.",
            "127.0.0.1",
            "127.8.8.8:80",
            "[::1]",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:8080",
            "Push.Example.com:443",
            "[fd00::1]:8080",
            "[FD00::1]",
            "[fd00:0::1]",
            "192.0.2.9",
            "[::ffff:192.0.2.9]:80",
            "whole.example",
            "whole.example.:80",
        ] {
            assert!(hosts.is_ours(ours), "{ours}");
        }
        for foreign in [
            "",
            "example.com",
            "localhost.example.com",
            "notlocalhost",
            "127.0.0.1.example.com",
            "192.0.2.1:8080",
            "0.0.0.0:8080",
            "[::2]",
            "push.example.com.evil.example",
        ] {
            assert!(!hosts.is_ours(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_name_in_the_public_dns_has_a_dot() {
        for public in [
            "evil.example",
            "evil.example.:8080",
            "127.0.0.1.example",
            "1.2",
        ] {
            assert!(is_public_name(public), "{public}");
        }
        for other in [
            "",
            ":80",
            "x",
            "test.:8080",
            "127.0.0.1",
            "192.0.2.1:8080",
            "[::2]:80",
            "[::ffff:192.0.2.1]",
        ] {
            assert!(!is_public_name(other), "{other}");
        }
    }
}
