//! Web origins: the pages that may read answers, and whose cookies count. Pure.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::header_name::HeaderName;
use super::hosts::Hosts;

/// An origin whose pages may read responses: `https://app.example`,
/// `chrome-extension://ID`, or `https://*.app.example` for all names below one.
///
/// ```
/// use pushwheel_server::AllowedOrigin;
///
/// let origin: AllowedOrigin = "https://app.example:8443".parse()?;
/// assert!("https://app.example/page".parse::<AllowedOrigin>().is_err());
/// # Ok::<(), pushwheel_server::OriginError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedOrigin {
    /// `https`
    scheme: Box<str>,
    /// `app.example:8443`; for all names below one their common end, `.app.example`. In
    /// lowercase, and without the default port of the scheme.
    authority: Box<str>,
    is_below: bool,
}

/// A text that is not an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginError;

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an origin is a scheme, a host and a port, without a path. Examples: \
             `https://app.example`, `http://localhost:3000`, `chrome-extension://ID`; \
             `https://*.app.example` is all names below. Write a name with other letters than \
             a-z in its ASCII form (`xn--...`). `null` cannot be allowed, because every page can \
             have it",
        )
    }
}

impl std::error::Error for OriginError {}

impl FromStr for AllowedOrigin {
    type Err = OriginError;

    /// Reads an origin as browsers serialize it (RFC 6454 section 6.2), and the
    /// same origin written in capitals or with its scheme's own port.
    fn from_str(text: &str) -> Result<AllowedOrigin, OriginError> {
        let text = text.to_ascii_lowercase();
        let (scheme, authority) = text.split_once("://").ok_or(OriginError)?;
        let below = authority.strip_prefix('*');
        let authority = below.unwrap_or(authority);
        // A browser leaves out the default port of the scheme.
        let default_port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => "",
        };
        let authority = authority.strip_suffix(default_port).unwrap_or(authority);
        let authority = with_short_address(authority);
        let is_origin = is_scheme(scheme)
            && !authority.is_empty()
            && authority.bytes().all(is_of_authority)
            && (below.is_some() == authority.starts_with('.'))
            && authority != ".";
        match is_origin {
            true => Ok(AllowedOrigin {
                scheme: scheme.into(),
                authority: authority.into(),
                is_below: below.is_some(),
            }),
            false => Err(OriginError),
        }
    }
}

/// Whether a byte can be part of a host or a port. A `/` before `.app.example` would end
/// the host.
fn is_of_authority(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte)
}

/// Whether a text is a scheme: RFC 3986 section 3.1, in lowercase.
fn is_scheme(text: &str) -> bool {
    let is_part =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_lowercase()) && text.bytes().all(is_part)
}

/// Returns the authority with an IPv6 address in its short form, as browsers
/// write it: `[0:0::1]:80` as `[::1]:80`.
fn with_short_address(authority: &str) -> String {
    let parts = authority
        .strip_prefix('[')
        .and_then(|text| text.split_once(']'));
    match parts.map(|(address, port)| (address.parse::<Ipv6Addr>(), port)) {
        Some((Ok(address), port)) => format!("[{address}]{port}"),
        _ => authority.to_owned(),
    }
}

impl AllowedOrigin {
    /// Whether a browser's `Origin` is this one.
    fn is(&self, origin: &str) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else {
            return false;
        };
        let name_bytes = authority.len().checked_sub(self.authority.len());
        let end = name_bytes.and_then(|at| authority.get(at..));
        let is_authority = end.is_some_and(|end| end.eq_ignore_ascii_case(&self.authority))
            && (name_bytes > Some(0)) == self.is_below
            && authority.bytes().all(is_of_authority);
        self.scheme.eq_ignore_ascii_case(scheme) && is_authority
    }
}

/// The origins whose pages may read responses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins {
    /// Pages of these origins may read all responses, and their cookies count.
    pub(crate) listed: Vec<AllowedOrigin>,
    /// Whether pages of any origin may read streams.
    pub(crate) any_reads_streams: bool,
    /// Pages of these hosts may read all responses. Set for a server on loopback.
    pub(crate) local: Option<Hosts>,
    /// Headers that pages may send beside those of the interface.
    pub(crate) sent_headers: Vec<HeaderName>,
}

impl Origins {
    /// Whether the settings list this origin.
    pub(crate) fn is_listed(&self, origin: &str) -> bool {
        self.listed.iter().any(|listed| listed.is(origin))
    }

    /// Whether a cookie counts in a request with these headers `Origin` and `Host`: for
    /// pages of this server, and of listed origins.
    pub(crate) fn may_have_cookies(&self, origin: &str, host: &str) -> bool {
        // Behind a proxy the scheme is unknown, so `http` and `https` on this host and port
        // count as the same origin.
        let is_own = origin
            .split_once("://")
            .is_some_and(|(_, own)| !own.is_empty() && own.eq_ignore_ascii_case(host));
        self.is_listed(origin) || is_own
    }

    pub(crate) fn is_local(&self, origin: &str) -> bool {
        let local = self.local.as_ref();
        local.is_some_and(|hosts| hosts.have_page_of(origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(texts: &[&str]) -> Origins {
        Origins {
            listed: texts.iter().map(|text| text.parse().unwrap()).collect(),
            ..Origins::default()
        }
    }

    #[test]
    fn a_text_that_is_not_an_origin_is_refused() {
        for bad in [
            "",
            "*",
            "null",
            "app.example",
            "https://",
            "https://*",
            "https://*.",
            "https://*app.example",
            "https://.app.example",
            "https://app.example/",
            "https://app.example/page",
            "https://m\u{fc}ller.example",
            "https://:443",
            "1ttp://app.example",
            "https://a b",
            "https://a@b",
            "://app.example",
        ] {
            assert_eq!(bad.parse::<AllowedOrigin>(), Err(OriginError), "{bad}");
        }
    }

    #[test]
    fn an_origin_is_listed_as_a_whole() {
        let listed = origins(&[
            "https://app.example",
            "http://localhost:3000",
            "https://*.wide.example",
            "http://[0:0::1]:8080",
            "HTTPS://Upper.example:443",
            "chrome-extension://aeblfdkhhhdcdjpifhhbdiojplfjncoa",
            "moz-extension://8a4bf6b0-5f4a-4a2e-9d5e-2a1b5c3d4e5f",
            "safari-web-extension://8A4BF6B0-5F4A-4A2E-9D5E-2A1B5C3D4E5F",
            "capacitor://localhost",
            "ms-appx-web://app",
        ]);
        for origin in [
            "https://app.example",
            "http://localhost:3000",
            "https://a.wide.example",
            "https://a.b.wide.example",
            "http://[::1]:8080",
            "https://upper.example",
            "chrome-extension://aeblfdkhhhdcdjpifhhbdiojplfjncoa",
            "moz-extension://8a4bf6b0-5f4a-4a2e-9d5e-2a1b5c3d4e5f",
            "safari-web-extension://8A4BF6B0-5F4A-4A2E-9D5E-2A1B5C3D4E5F",
            "capacitor://localhost",
            "ms-appx-web://app",
        ] {
            assert!(listed.is_listed(origin), "{origin}");
        }
        for origin in [
            "",
            "null",
            "http://app.example",
            "https://app.example:8443",
            "https://app.example.evil.example",
            "https://evil-app.example",
            "https://wide.example",
            "https://.wide.example",
            "https://evilwide.example",
            "https://evil.example/.wide.example",
            "https://evil.example?.wide.example",
            "https://evil@a.wide.example",
            "http://a.wide.example",
            "http://localhost",
            "ionic://localhost",
            "chrome-extension://beblfdkhhhdcdjpifhhbdiojplfjncoa",
        ] {
            assert!(!listed.is_listed(origin), "{origin}");
        }
    }

    #[test]
    fn cookies_are_for_listed_pages_and_the_servers_own() {
        let listed = origins(&["https://app.example"]);
        let host = "push.example";
        assert!(listed.may_have_cookies("https://app.example", host));
        for origins in [&listed, &Origins::default()] {
            assert!(origins.may_have_cookies("https://push.example", host));
            assert!(origins.may_have_cookies("http://127.0.0.1:8080", "127.0.0.1:8080"));
            for foreign in [
                "null",
                "",
                "https://evil.example",
                "https://push.example:8443",
                "https://push.example.evil.example",
            ] {
                assert!(!origins.may_have_cookies(foreign, host), "{foreign}");
            }
            assert!(!origins.may_have_cookies("https://", ""), "no host");
        }
    }

    #[test]
    fn only_pages_of_loopback_are_local_to_a_server_on_loopback() {
        let local = Origins {
            local: Some(Hosts {
                named: vec!["push.test".into()],
            }),
            ..Origins::default()
        };
        for origin in ["http://localhost:3000", "https://[::1]", "http://push.test"] {
            assert!(local.is_local(origin), "{origin}");
            assert!(!Origins::default().is_local(origin), "{origin}");
        }
        for origin in [
            "null",
            "",
            "localhost",
            "ftp://localhost",
            "https://app.example",
        ] {
            assert!(!local.is_local(origin), "{origin}");
        }
    }
}
