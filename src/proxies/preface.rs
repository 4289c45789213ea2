//! The PROXY protocol, versions 1 and 2: the client's address, in front of the first
//! request of a connection.
//!
//! ```text
//! v1   PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 CR LF        (107 bytes at most)
//! v2   CR LF CR LF NUL CR LF "QUIT" LF · 2|command · family|kind · length
//!      · source address · target address · source port · target port · more
//! ```
//!
//! Where a header is expected, anything else is an error, as the specification demands:
//! otherwise a client could send a header of its own. The result depends on the bytes
//! alone, not on how they were split.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::canonical;

/// Maximum length of a header, in bytes. Addresses take 52; the rest is for TLS data and
/// names that proxies add, a few hundred bytes.
pub const PREFACE_BYTES_MAX: usize = 4096;

/// Maximum length of the line of version 1 with its line end, in bytes.
const LINE_BYTES_MAX: usize = 107;
const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 in front of its addresses.
const FIXED_BYTES: usize = 16;

/// The source of a connection, according to its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The proxy opened it for this client.
    Client(SocketAddr),
    /// The proxy opened it for itself, as for a health check, or for a client without an
    /// address: the connection's own peer counts.
    Peer,
}

/// Bytes that are not a header of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefaceError(&'static str);

impl fmt::Display for PrefaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for PrefaceError {}

/// Reads the header of one connection, in any pieces. Holds at most
/// [`PREFACE_BYTES_MAX`] bytes, and none if the header comes in one piece.
#[derive(Debug, Default)]
pub struct Preface {
    bytes: Vec<u8>,
}

impl Preface {
    /// Returns a reader for the beginning of a connection.
    #[must_use]
    pub fn new() -> Preface {
        Preface::default()
    }

    /// Returns whether no byte of the header has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Reads the next bytes of the connection. Returns `None` if the header continues
    /// after them; otherwise the number of these bytes that belong to the header, and its
    /// content. The rest belongs to the first request.
    ///
    /// # Errors
    /// When this is not a header. The connection cannot be used.
    pub fn push(&mut self, input: &[u8]) -> Result<Option<(usize, Source)>, PrefaceError> {
        if self.bytes.is_empty() {
            let parsed = parse(input)?;
            if parsed.is_none() {
                self.bytes.extend_from_slice(input);
            }
            return Ok(parsed);
        }
        let before = self.bytes.len();
        let room = PREFACE_BYTES_MAX.saturating_sub(before);
        self.bytes
            .extend_from_slice(&input[..input.len().min(room)]);
        let parsed = parse(&self.bytes)?;
        Ok(parsed.map(|(end, source)| (end - before, source)))
    }
}

/// Parses the header at the beginning of `bytes`. Returns its end and its content, or
/// `None` if it is not complete.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Source)>, PrefaceError> {
    let is_begun = |signature: &[u8]| {
        let length = bytes.len().min(signature.len());
        bytes[..length] == signature[..length]
    };
    if is_begun(SIGNATURE_V1) {
        parse_v1(bytes)
    } else if is_begun(SIGNATURE_V2) {
        parse_v2(bytes)
    } else {
        Err(PrefaceError(
            "it does not begin with a header of the PROXY protocol",
        ))
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Option<(usize, Source)>, PrefaceError> {
    let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = memchr::memchr(b'\n', line) else {
        return match line.len() < LINE_BYTES_MAX {
            true => Ok(None),
            false => Err(PrefaceError("the line of the PROXY header is too long")),
        };
    };
    let text = line[..end].strip_suffix(b"\r");
    let text = text.and_then(|text| str::from_utf8(text).ok());
    let source = text.and_then(source_v1);
    let source = source.ok_or(PrefaceError("the line of the PROXY header cannot be read"))?;
    Ok(Some((end + 1, source)))
}

fn source_v1(line: &str) -> Option<Source> {
    let mut words = line.strip_prefix("PROXY ")?.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // The specification says to ignore the rest of the line.
        return Some(Source::Peer);
    }
    let (source, target) = (words.next()?, words.next()?);
    let (source_port, target_port) = (port(words.next()?)?, port(words.next()?)?);
    let _ = target_port;
    if words.next().is_some() {
        return None;
    }
    let source: IpAddr = match family {
        "TCP4" => {
            target.parse::<Ipv4Addr>().ok()?;
            source.parse::<Ipv4Addr>().ok()?.into()
        }
        "TCP6" => {
            target.parse::<Ipv6Addr>().ok()?;
            source.parse::<Ipv6Addr>().ok()?.into()
        }
        _ => return None,
    };
    let source = SocketAddr::new(source, source_port);
    Some(Source::Client(canonical(source)))
}

/// A port without sign and leading zeros.
fn port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    let is_plain = text == "0" || text.starts_with(|c: char| ('1'..='9').contains(&c));
    is_plain.then_some(port)
}

fn parse_v2(bytes: &[u8]) -> Result<Option<(usize, Source)>, PrefaceError> {
    // Each byte is checked as soon as it is there, so that a split changes nothing.
    let command = bytes.get(12).copied();
    if command.is_some_and(|command| !matches!(command, 0x20 | 0x21)) {
        return Err(PrefaceError(
            "the version or command of the PROXY header is unknown",
        ));
    }
    let family = bytes.get(13).copied();
    if family.is_some_and(|family| family >> 4 > 3 || family & 0xf > 2) {
        return Err(PrefaceError(
            "the address family of the PROXY header is unknown",
        ));
    }
    let (Some(command), Some(family), Some(&[high, low])) = (command, family, bytes.get(14..16))
    else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let end = FIXED_BYTES + length;
    if end > PREFACE_BYTES_MAX {
        return Err(PrefaceError("the PROXY header is too long"));
    }
    let is_client = command == 0x21;
    let addresses_bytes = match family {
        0x11 if is_client => 12,
        0x21 if is_client => 36,
        // The proxy's own, a Unix socket's or no address: none of them is used.
        _ => 0,
    };
    if length < addresses_bytes {
        return Err(PrefaceError(
            "the PROXY header is too short for its addresses",
        ));
    }
    let Some(block) = bytes.get(FIXED_BYTES..end) else {
        return Ok(None);
    };
    let source = match *block {
        [a, b, c, d, _, _, _, _, high, low, ..] if addresses_bytes == 12 => {
            client(Ipv4Addr::new(a, b, c, d).into(), [high, low])
        }
        _ if addresses_bytes == 36 => {
            let mut octets = [0; 16];
            octets.copy_from_slice(&block[..16]);
            client(Ipv6Addr::from(octets).into(), [block[32], block[33]])
        }
        _ => Source::Peer,
    };
    Ok(Some((end, source)))
}

fn client(ip: IpAddr, port: [u8; 2]) -> Source {
    let address = SocketAddr::new(ip, u16::from_be_bytes(port));
    Source::Client(canonical(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of version 2.
    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [SIGNATURE_V2, &[command, family], &length, block].concat()
    }

    fn v4_block() -> Vec<u8> {
        vec![192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb]
    }

    fn client(address: &str) -> Source {
        Source::Client(address.parse().unwrap())
    }

    /// Reads `bytes` whole, byte by byte and in every two pieces, which has to
    /// come to the same.
    fn read(bytes: &[u8]) -> Result<Option<(usize, Source)>, PrefaceError> {
        let whole = Preface::new().push(bytes);
        let in_pieces = |pieces: &[&[u8]]| {
            let (mut preface, mut before) = (Preface::new(), 0);
            for piece in pieces {
                if let Some((end, source)) = preface.push(piece)? {
                    return Ok(Some((before + end, source)));
                }
                before += piece.len();
            }
            Ok(None)
        };
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(in_pieces(&single), whole);
        for at in 0..bytes.len() {
            assert_eq!(
                in_pieces(&[&bytes[..at], &bytes[at..]]),
                whole,
                "split at {at}"
            );
        }
        whole
    }

    #[test]
    fn a_line_of_version_1_is_read() {
        for (line, source) in [
            (
                "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n",
                client("192.0.2.1:56324"),
            ),
            (
                "PROXY TCP4 192.0.2.1 198.51.100.2 0 0\r\n",
                client("192.0.2.1:0"),
            ),
            (
                "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
                client("[2001:db8::1]:1"),
            ),
            ("PROXY UNKNOWN\r\n", Source::Peer),
            ("PROXY UNKNOWN whatever this is\r\n", Source::Peer),
        ] {
            let bytes = [line.as_bytes(), b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(read(&bytes), Ok(Some((line.len(), source))), "{line}");
            assert_eq!(read(&line.as_bytes()[..line.len() - 1]), Ok(None), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_not_exact_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES_MAX));
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXYTCP4",
            "proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 65536 2\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n",
            "PROXY UNKNOWN\n",
            &*long,
        ] {
            assert!(read(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn a_header_of_version_2_is_read() {
        let mut v6 = vec![0; 36];
        v6[..2].copy_from_slice(&[0x20, 0x01]);
        v6[15] = 7;
        v6[33] = 9;
        let with_more = [v4_block(), vec![0x04, 0, 3, 1, 2, 3]].concat();
        for (header, source) in [
            (v2(0x21, 0x11, &v4_block()), client("192.0.2.1:56324")),
            (v2(0x21, 0x11, &with_more), client("192.0.2.1:56324")),
            (v2(0x21, 0x21, &v6), client("[2001::7]:9")),
            (v2(0x20, 0x00, b""), Source::Peer),
            (v2(0x20, 0x11, &v4_block()), Source::Peer),
            (v2(0x21, 0x00, b"ignored"), Source::Peer),
            (v2(0x21, 0x31, &[7; 216]), Source::Peer),
        ] {
            let bytes = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(read(&bytes), Ok(Some((header.len(), source))), "{header:?}");
            assert_eq!(read(&header[..header.len() - 1]), Ok(None), "{header:?}");
        }
    }

    #[test]
    fn a_header_of_version_2_that_is_not_exact_is_refused() {
        let too_long = vec![0; PREFACE_BYTES_MAX - FIXED_BYTES + 1];
        for header in [
            v2(0x11, 0x11, &v4_block()),
            v2(0x22, 0x11, &v4_block()),
            v2(0x21, 0x41, &v4_block()),
            v2(0x21, 0x13, &v4_block()),
            v2(0x21, 0x11, &v4_block()[..11]),
            v2(0x21, 0x21, &v4_block()),
            v2(0x20, 0x00, &too_long),
            b"\r\n\r\nGET / HTTP/1.1".to_vec(),
        ] {
            assert!(read(&header).is_err(), "{header:?}");
        }
        let longest = vec![0; PREFACE_BYTES_MAX - FIXED_BYTES];
        let header = v2(0x20, 0x00, &longest);
        assert_eq!(read(&header), Ok(Some((PREFACE_BYTES_MAX, Source::Peer))));
    }
}
