//! `X-Forwarded-For`: each proxy writes whom it was asked by behind what was
//! there, so the list is believed from its end, and only as far as the proxies
//! that wrote it are trusted.

use std::net::{IpAddr, SocketAddr};

use super::address::canonical;

/// The nearest address, from the connection's source backwards through the
/// list, that is no trusted proxy; the farthest proxy if all of them are.
///
/// An entry that is no address ends the list: behind it nobody vouches for
/// anything. The port is 0 where the list names none.
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
            // An empty element of a list says nothing.
            None if entry.trim_ascii().is_empty() => {}
            None => break,
        }
    }
    client
}

/// `192.0.2.1`, `2001:db8::1`, and as some proxies write them: with a port, and
/// IPv6 in brackets.
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

    fn said(values: &[&str]) -> String {
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
            // Whoever claims to be somebody else stands left of who he is.
            (&["198.51.100.9, 192.0.2.1"], "192.0.2.1:0"),
            (
                &["198.51.100.9, 192.0.2.1,10.0.0.2 , 10.0.0.3"],
                "192.0.2.1:0",
            ),
            (&["198.51.100.9", "192.0.2.1, 10.0.0.2"], "192.0.2.1:0"),
            (&["192.0.2.1", "10.0.0.2"], "192.0.2.1:0"),
            (&["192.0.2.1,, "], "192.0.2.1:0"),
            // From within: the farthest of ours.
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3:0"),
            // Behind what is no address nobody vouches for anything.
            (&["192.0.2.1, unknown"], "10.0.0.1:5000"),
            (&["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2:0"),
            (&["192.0.2.1, 10.0.0.256"], "10.0.0.1:5000"),
        ] {
            assert_eq!(said(values), client, "{values:?}");
        }
    }

    #[test]
    fn a_stranger_claims_nothing() {
        let source = "192.0.2.7:5000".parse().unwrap();
        let claim = [&b"198.51.100.9"[..]].into_iter();
        assert_eq!(client(source, claim, |_| false), source);
    }
}
