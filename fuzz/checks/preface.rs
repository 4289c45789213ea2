//! The PROXY header of a connection is read alike in any pieces, is bounded, and leaves the
//! bytes behind it untouched.
//!
//! The first line of the input has the lengths of the pieces, one byte each (less one),
//! used in turn; the rest is what a connection sends. Valid headers with addresses made of
//! the input are read back as well.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use pushwheel::internals::proxies::{PREFACE_BYTES_MAX, Preface, PrefaceError, Source};

use super::input::{Input, pieces};

type Read = Result<Option<(usize, Source)>, PrefaceError>;

pub fn check(input: &[u8]) {
    let mut input = Input(input);
    let (lengths, bytes) = match input.0.contains(&b'\n') {
        true => (input.line(), input.0),
        false => (&[][..], input.0),
    };
    let whole = check_pieces(bytes, lengths);
    if let Ok(Some((end, _))) = whole {
        assert!(end <= PREFACE_BYTES_MAX && end <= bytes.len());
        assert_eq!(read([&bytes[..end]]), whole, "what is behind it counts");
        assert_eq!(
            read([&bytes[..end - 1]]),
            Ok(None),
            "it ends before its end"
        );
    }
    if whole == Ok(None) {
        assert!(bytes.len() < PREFACE_BYTES_MAX);
    }
    check_own(bytes, lengths);
}

fn check_pieces(bytes: &[u8], lengths: &[u8]) -> Read {
    let whole = read([bytes]);
    assert_eq!(read(pieces(bytes, lengths)), whole);
    assert_eq!(read(bytes.chunks(1)), whole);
    whole
}

/// Returns where the header ends and the address in it, or nothing if it is incomplete.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let (mut preface, mut before) = (Preface::new(), 0);
    for piece in pieces {
        match preface.push(piece)? {
            Some((end, source)) => {
                assert!(end <= piece.len());
                return Ok(Some((before + end, source)));
            }
            None => before += piece.len(),
        }
    }
    Ok(None)
}

/// Valid headers with addresses made of these bytes.
fn check_own(bytes: &[u8], lengths: &[u8]) {
    let mut input = Input(bytes);
    let port = u16::from(input.byte()) << 8 | u16::from(input.byte());
    let wide = u128::from(input.number()) << 64 | u128::from(input.number());
    let v6 = Ipv6Addr::from(wide);
    // An IPv4-mapped address has one spelling, that of IPv4.
    let client_v6 = SocketAddr::from((IpAddr::V6(v6).to_canonical(), port));
    let [a, b, c, d, ..] = v6.octets();
    let v4 = Ipv4Addr::new(a, b, c, d);
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    let zeros = [0; 18];
    let port_bytes = port.to_be_bytes();
    let rest = [&v4.octets()[..], &zeros[..4], &port_bytes, &zeros[..2]].concat();
    let short = [&signature[..], b"\x21\x11\0\x0c", &rest].concat();
    let rest = [&v6.octets()[..], &zeros[..16], &port_bytes, &zeros[..2]].concat();
    let long = [&signature[..], b"\x21\x21\0\x24", &rest].concat();
    for (header, address) in [
        (
            format!("PROXY TCP4 {v4} {v4} {port} 1\r\n").into_bytes(),
            SocketAddr::from((v4, port)),
        ),
        (
            format!("PROXY TCP6 {v6} {v6} {port} 1\r\n").into_bytes(),
            client_v6,
        ),
        (short, SocketAddr::from((v4, port))),
        (long, client_v6),
    ] {
        let end = header.len();
        let sent = [&header, bytes].concat();
        let wanted = Ok(Some((end, Source::Client(address))));
        assert_eq!(check_pieces(&sent, lengths), wanted);
    }
}
