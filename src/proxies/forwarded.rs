//! `X-Forwarded-For`: each proxy appends the address of its peer, so the list is read
//! from its end, as long as the proxy that wrote an entry is trusted.

use std::net::{IpAddr, SocketAddr};

use super::address::canonical;

/// Returns the address nearest to the connection's source, backwards through the list,
/// that is not a trusted proxy; the farthest proxy if all of them are trusted.
///
/// An invalid entry ends the list, because no proxy has confirmed what is left of it.
/// The port is 0 if the entry has none.
pub(super) fn client<'a>(
    source: SocketAddr,
    values: impl DoubleEndedIterator<Item = &'a [u8]>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> SocketAddr {
    let mut client = source;
    // Several headers of one name are one list (RFC 9110 section 5.3).
    let entries = values
        .rev()
        .flat_map(|value| value.rsplit(|&byte| byte == b','));
    for entry in entries {
        if !is_trusted(client.ip()) {
            break;
        }
        match address(entry.trim_ascii()) {
            Some(address) => client = address,
            // An empty element of a list is allowed (RFC 9110 section 5.6.1).
            None if entry.trim_ascii().is_empty() => {}
            None => break,
        }
    }
    client
}

/// Reads `192.0.2.1` or `2001:db8::1`. Some proxies add a port, and brackets around IPv6.
fn address(entry: &[u8]) -> Option<SocketAddr> {
    let text = str::from_utf8(entry).ok()?;
    if let Ok(address) = text.parse() {
        return Some(canonical(address));
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let ip: IpAddr = bare.unwrap_or(text).parse().ok()?;
    Some(canonical(SocketAddr::new(ip, 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_in(values: &[&str]) -> String {
        let source = "10.0.0.1:5000".parse().unwrap();
        let values = values.iter().map(|value| value.as_bytes());
        let is_trusted = |ip: IpAddr| ip.to_string().starts_with("10.");
        client(source, values, is_trusted).to_string()
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_is_the_client() {
        for (values, client) in [
            (&[][..], "10.0.0.1:5000"),
            (&[""], "10.0.0.1:5000"),
            (&["192.0.2.1"], "192.0.2.1:0"),
            (&["192.0.2.1:77"], "192.0.2.1:77"),
            (&["2001:db8::1"], "[2001:db8::1]:0"),
            (&["[2001:db8::1]"], "[2001:db8::1]:0"),
            (&["[2001:db8::1]:77"], "[2001:db8::1]:77"),
            (&["::ffff:192.0.2.1"], "192.0.2.1:0"),
            (&["[::ffff:192.0.2.1]:77"], "192.0.2.1:77"),
            // A client that writes a false address is itself to the right of it.
            (&["198.51.100.9, 192.0.2.1"], "192.0.2.1:0"),
            (
                &["198.51.100.9, 192.0.2.1,10.0.0.2 , 10.0.0.3"],
                "192.0.2.1:0",
            ),
            (&["198.51.100.9", "192.0.2.1, 10.0.0.2"], "192.0.2.1:0"),
            (&["192.0.2.1", "10.0.0.2"], "192.0.2.1:0"),
            (&["192.0.2.1,, "], "192.0.2.1:0"),
            // From inside: the farthest trusted proxy.
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3:0"),
            // An invalid entry ends the list.
            (&["192.0.2.1, unknown"], "10.0.0.1:5000"),
            (&["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2:0"),
            (&["192.0.2.1, 10.0.0.256"], "10.0.0.1:5000"),
        ] {
            assert_eq!(client_in(values), client, "{values:?}");
        }
    }

    #[test]
    fn the_header_of_an_untrusted_peer_is_ignored() {
        let source = "192.0.2.7:5000".parse().unwrap();
        let claim = [&b"198.51.100.9"[..]].into_iter();
        assert_eq!(client(source, claim, |_| false), source);
    }
}
