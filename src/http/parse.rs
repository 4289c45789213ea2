//! Parses the bytes of a complete head into a [`Head`], or into the reason for rejecting it.
//!
//! httparse parses the grammar of lines. The rest is checked here: the form of the target,
//! the host, the framing, the expectation. httparse also accepts a bare LF as a line end,
//! which the reader has rejected before.

use std::mem::MaybeUninit;
use std::ops::Range;

use httparse::Header;

use super::head::{Field, Framing, Head, Method, Version};
use super::{HEADERS_CEILING, Refusal};

/// Parses a whole head: from the first byte of the method through the empty line, with a
/// CR in front of every LF.
pub(super) fn parse(bytes: Vec<u8>) -> Result<Head, Refusal> {
    let mut slots = [const { MaybeUninit::uninit() }; HEADERS_CEILING];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(&bytes, &mut slots) {
        Ok(httparse::Status::Complete(end)) if end == bytes.len() => {}
        // The reader and httparse disagree about the end of the head: two parsers that
        // disagree are how requests are smuggled.
        Ok(_) => return Err(Refusal::request_line()),
        Err(error) => return Err(explain(error, &bytes)),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(Refusal::request_line());
    };
    let method = Method::from_name(method);
    let version = match minor {
        0 => Version::Http10,
        _ => Version::Http11,
    };
    let headers = &*request.headers;

    let parts = target_parts(&method, target)?;
    let host = host(headers, version)?;
    let framing = framing(headers, version)?;
    let expects_continue = expects_continue(headers)? && version == Version::Http11;
    let keep_alive = keep_alive(headers, version);

    let target = range_in(&bytes, target.as_bytes());
    let shift = |range: Range<usize>| target.start + range.start..target.start + range.end;
    let head = Head {
        method,
        version,
        path: shift(parts.path),
        query: parts.query.map(shift),
        // RFC 9112 section 3.2.2: a host in the target wins over `Host`.
        host: (parts.authority.map(shift)).or(host.map(|host| range_in(&bytes, host))),
        framing,
        expects_continue,
        keep_alive,
        fields: (headers.iter())
            .map(|header| Field {
                name: range_in(&bytes, header.name.as_bytes()),
                value: range_in(&bytes, header.value),
            })
            .collect(),
        target,
        bytes,
    };
    Ok(head)
}

/// Returns the range of `part`, a slice of `whole`.
fn range_in(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}

/// Returns the values of all headers of this name.
fn values<'a>(headers: &'a [Header<'_>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value)
}

/// Returns the elements of a comma-separated list without the spaces around them.
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// The ranges of the parts of a target.
struct TargetParts {
    authority: Option<Range<usize>>,
    path: Range<usize>,
    query: Option<Range<usize>>,
}

/// Splits a target by its form (RFC 9112 section 3.2).
fn target_parts(method: &Method, target: &str) -> Result<TargetParts, Refusal> {
    // The authority-form is for CONNECT alone, and CONNECT is for proxies.
    if method.as_str() == "CONNECT" {
        return Err(Refusal::connect());
    }
    if !target.is_ascii() {
        return Err(Refusal::target(
            "the path or query contains bytes that are not ASCII. Percent-encode them",
        ));
    }
    if target.contains('#') {
        return Err(Refusal::target(
            "a `#fragment` is not sent to servers. Leave it out, or write %23 for the character",
        ));
    }
    let authority = match scheme_length(target) {
        Some(start) => {
            let length = target[start..].find(['/', '?']);
            let end = length.map_or(target.len(), |length| start + length);
            // RFC 9110 section 4.2.1: an http URI with an empty host is invalid.
            // Userinfo (section 4.2.4) fails at its `@`, which no host contains.
            if start == end || !is_host(&target.as_bytes()[start..end]) {
                return Err(Refusal::target(
                    "the target's host is missing or invalid. Send `http://host:port/path`, or only the path",
                ));
            }
            Some(start..end)
        }
        None if target.starts_with('/') => None,
        None if target == "*" && *method == Method::Options => None,
        None => {
            return Err(Refusal::target(
                "the target is neither a path that begins with `/` nor an http URL (`*` is for OPTIONS alone). Send one of these",
            ));
        }
    };
    let start = authority.as_ref().map_or(0, |authority| authority.end);
    let mark = target[start..].find('?').map(|length| start + length);
    Ok(TargetParts {
        authority,
        path: start..mark.unwrap_or(target.len()),
        query: mark.map(|mark| mark + 1..target.len()),
    })
}

/// Returns the length of `http://` or `https://` in front of a target.
fn scheme_length(target: &str) -> Option<usize> {
    ["http://", "https://"]
        .into_iter()
        .find(|scheme| {
            target
                .get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })
        .map(str::len)
}

/// Returns the one `Host` (RFC 9112 section 3.2). It must be valid and not repeated, and in
/// HTTP/1.1 not missing. It may be empty, as for a URI without an authority.
fn host<'a>(headers: &'a [Header<'_>], version: Version) -> Result<Option<&'a [u8]>, Refusal> {
    let mut hosts = values(headers, "host");
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::host_repeated());
    }
    match host {
        None if version == Version::Http11 => Err(Refusal::host_missing()),
        Some(host) if !is_host(host) => Err(Refusal::host_invalid()),
        host => Ok(host),
    }
}

/// Returns whether these bytes are a host with an optional port (RFC 3986 section 3.2).
fn is_host(bytes: &[u8]) -> bool {
    let is_name_byte =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(byte);
    let port = if let Some(literal) = bytes.strip_prefix(b"[") {
        let Some(end) = memchr::memchr(b']', literal) else {
            return false;
        };
        let address = &literal[..end];
        if address.is_empty() || !(address.iter()).all(|byte| is_name_byte(byte) || *byte == b':') {
            return false;
        }
        &literal[end + 1..]
    } else {
        let end = memchr::memchr(b':', bytes).unwrap_or(bytes.len());
        // Only a value without a port may have an empty host.
        let is_port_alone = end == 0 && !bytes.is_empty();
        if is_port_alone || !bytes[..end].iter().all(is_name_byte) {
            return false;
        }
        &bytes[end..]
    };
    match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Returns the framing of the body (RFC 9112 section 6). Rejects framing that two parsers
/// could read in two ways: that is how requests are smuggled.
fn framing(headers: &[Header<'_>], version: Version) -> Result<Framing, Refusal> {
    let mut lengths = values(headers, "content-length");
    let length = lengths.next();
    let has_codings = values(headers, "transfer-encoding").next().is_some();

    // Section 6.3, rule 3: the two together "ought to be handled as an error".
    if has_codings && length.is_some() {
        return Err(Refusal::ambiguous_framing());
    }
    if has_codings {
        return transfer_encoding(headers, version);
    }
    // Section 6.3, rule 5, and RFC 9110 section 8.6: a repeated length may be
    // rejected even if all of them agree.
    match (length, lengths.next()) {
        (None, _) => Ok(Framing::None),
        (Some(length), None) => match decimal(length) {
            Some(0) => Ok(Framing::None),
            Some(length) => Ok(Framing::Length(length)),
            None => Err(Refusal::content_length()),
        },
        (Some(_), Some(_)) => Err(Refusal::content_length()),
    }
}

fn transfer_encoding(headers: &[Header<'_>], version: Version) -> Result<Framing, Refusal> {
    // Section 6.1: in HTTP/1.0 it is faulty framing.
    if version == Version::Http10 {
        return Err(Refusal::transfer_encoding(
            "HTTP/1.0 has no Transfer-Encoding. Send Content-Length, or HTTP/1.1",
        ));
    }
    let mut has_chunked = false;
    let mut has_unknown = false;
    for coding in values(headers, "transfer-encoding").flat_map(elements) {
        // Sections 6.1 and 6.3, rule 4.1: once, and last.
        if has_chunked {
            return Err(Refusal::transfer_encoding(
                "`chunked` is repeated or is not the last transfer coding. Send it once, at the end",
            ));
        }
        let name_end = memchr::memchr(b';', coding).unwrap_or(coding.len());
        let (name, parameters) = coding.split_at(name_end);
        let name = name.trim_ascii_end();
        if name.is_empty() || !name.iter().all(|&byte| super::is_token_byte(byte)) {
            return Err(Refusal::transfer_encoding(
                "Transfer-Encoding is not a list of codings. Send `chunked`, nothing else",
            ));
        }
        if !name.eq_ignore_ascii_case(b"chunked") {
            has_unknown = true;
        } else if parameters.is_empty() {
            has_chunked = true;
        } else {
            // Section 7: parameters of `chunked` should be treated as an error.
            return Err(Refusal::transfer_encoding(
                "`chunked` has no parameters. Send it alone",
            ));
        }
    }
    // Section 6.1: 501 for a coding that is not understood.
    if has_unknown {
        return Err(Refusal::transfer_coding_unsupported());
    }
    Ok(Framing::Chunked)
}

/// Parses a number of digits alone (`1*DIGIT`). `None` also if it does not fit into a
/// `u64`.
fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    bytes.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Returns whether the client waits for `100 Continue` (RFC 9110 section 10.1.1).
fn expects_continue(headers: &[Header<'_>]) -> Result<bool, Refusal> {
    let mut expects = false;
    for expectation in values(headers, "expect").flat_map(elements) {
        if !expectation.eq_ignore_ascii_case(b"100-continue") {
            return Err(Refusal::expectation());
        }
        expects = true;
    }
    Ok(expects)
}

/// Returns whether the connection stays open after this request (RFC 9112 section 9.3).
fn keep_alive(headers: &[Header<'_>], version: Version) -> bool {
    let has = |option: &[u8]| {
        values(headers, "connection")
            .flat_map(elements)
            .any(|element| element.eq_ignore_ascii_case(option))
    };
    match version {
        Version::Http11 => !has(b"close"),
        Version::Http10 => has(b"keep-alive") && !has(b"close"),
    }
}

/// Returns the refusal for an error of httparse.
fn explain(error: httparse::Error, bytes: &[u8]) -> Refusal {
    match error {
        httparse::Error::Version if names_a_version(bytes) => Refusal::version(),
        httparse::Error::Version | httparse::Error::Token | httparse::Error::Status => {
            Refusal::request_line()
        }
        httparse::Error::NewLine => Refusal::line_end(),
        httparse::Error::TooManyHeaders => Refusal::too_many_headers(HEADERS_CEILING),
        httparse::Error::HeaderValue => Refusal::header(
            "a header's value contains a control character. Send visible characters, spaces and tabs",
        ),
        httparse::Error::HeaderName => explain_name(bytes),
    }
}

/// Returns whether the request line ends with a version of HTTP, so that the version is
/// wrong and not the line.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|&byte| byte == b'\r').next().unwrap_or(bytes);
    let mut words = line.split(|&byte| byte == b' ').skip(2);
    matches!(
        (words.next(), words.next()),
        (
            Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']),
            None
        )
    )
}

/// Returns the refusal for the first invalid name of a header.
fn explain_name(bytes: &[u8]) -> Refusal {
    for line in bytes.split(|&byte| byte == b'\n').skip(1) {
        // RFC 9112 section 5.2.
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Refusal::header(
                "a header is folded over several lines, or a line begins with a space. Write each header on one line",
            );
        }
        let name_end = memchr::memchr(b':', line).unwrap_or(line.len());
        let name = &line[..name_end];
        // RFC 9112 section 5.1.
        if name.ends_with(b" ") || name.ends_with(b"\t") {
            return Refusal::header("a header has a space before its colon. Write `Name: value`");
        }
    }
    Refusal::header(
        "a header's name is empty, has no colon or contains an invalid character. Write `Name: value`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(bytes: &[u8]) -> Head {
        parse(bytes.to_vec()).unwrap_or_else(|refusal| {
            panic!("{} was refused: {refusal}", bytes.escape_ascii());
        })
    }

    fn refused(bytes: &[u8]) -> (u16, &'static str) {
        match parse(bytes.to_vec()) {
            Ok(head) => panic!("{} was taken: {head:?}", bytes.escape_ascii()),
            Err(refusal) => (refusal.status, refusal.code),
        }
    }

    /// A GET with these header lines besides its Host.
    fn with(lines: &str) -> Vec<u8> {
        format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n").into_bytes()
    }

    #[test]
    fn a_browsers_head_is_read() {
        let head = head(
            b"GET /channels/news%20all?last=5&x HTTP/1.1\r\n\
              Host: example.com:8080\r\n\
              accept: text/event-stream\r\n\
              Last-Event-ID:  k3x-17\t \r\n\
              X-Raw: \xff\xfe\r\n\
              Empty:\r\n\
              ACCEPT: */*\r\n\r\n",
        );
        assert_eq!(head.method(), &Method::Get);
        assert_eq!(head.version(), Version::Http11);
        assert_eq!(head.target(), "/channels/news%20all?last=5&x");
        assert_eq!(head.path(), "/channels/news%20all");
        assert_eq!(head.query(), Some("last=5&x"));
        assert_eq!(head.host(), Some("example.com:8080"));
        assert_eq!(head.header("Accept"), Some(&b"text/event-stream"[..]));
        assert_eq!(head.header_str("last-event-id"), Some("k3x-17"));
        assert_eq!(head.header("x-raw"), Some(&b"\xff\xfe"[..]));
        assert_eq!(head.header_str("x-raw"), None);
        assert_eq!(head.header("empty"), Some(&b""[..]));
        assert_eq!(head.header("missing"), None);
        let names: Vec<_> = head.headers().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "Host",
                "accept",
                "Last-Event-ID",
                "X-Raw",
                "Empty",
                "ACCEPT"
            ]
        );
        assert_eq!(head.framing(), Framing::None);
        assert!(head.keep_alive() && !head.expects_continue());
    }

    #[test]
    fn targets_are_taken_apart_by_their_form() {
        // target, path, query, host
        let forms = [
            ("/", "/", None, "x"),
            ("/?", "/", Some(""), "x"),
            ("/a?b?c", "/a", Some("b?c"), "x"),
            ("//a//b", "//a//b", None, "x"),
            ("/http://y/", "/http://y/", None, "x"),
            ("http://y", "/", None, "y"),
            ("http://y?q", "/", Some("q"), "y"),
            ("HTTPS://y:443/a?q", "/a", Some("q"), "y:443"),
            ("http://[::1]:80/a", "/a", None, "[::1]:80"),
        ];
        for (target, path, query, host) in forms {
            let head = head(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
            assert_eq!(head.target(), target);
            assert_eq!((head.path(), head.query()), (path, query), "{target}");
            assert_eq!(head.host(), Some(host), "{target}");
        }
        let head = head(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!((head.path(), head.query()), ("*", None));
    }

    #[test]
    fn odd_targets_are_refused() {
        let targets: &[&[u8]] = &[
            b"*", // for OPTIONS alone (RFC 9112 section 3.2.4)
            b"a",
            b"?q",
            b"x:80",
            b"ftp://x/",
            b"http:/a",
            b"http://",
            b"http:///a",
            b"http://:80/a",
            b"http://user@y/", // RFC 9110 section 4.2.4
            b"http://y:http/",
            b"/a#b",
            b"/gr\xc3\xbc\xc3\x9fe",
        ];
        for target in targets {
            let bytes = [b"GET ", *target, b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
            assert_eq!(refused(&bytes), (400, "target_invalid"));
        }
    }

    #[test]
    fn odd_request_lines_are_refused() {
        let lines: &[&[u8]] = &[
            b"GET /",                // HTTP/0.9
            b"GET / ",               // no version
            b"GET  / HTTP/1.1",      // two spaces (RFC 9112 section 3)
            b"GET /  HTTP/1.1",      //
            b"GET / HTTP/1.1 ",      // a space at the end
            b"GET /a b HTTP/1.1",    // a space in the target
            b"GET\t/ HTTP/1.1",      // a tab for a space
            b"GET /\tHTTP/1.1",      //
            b"GET / http/1.1",       // the version is case-sensitive
            b"GET / HTTP/1.1x",      //
            b"GET / HTTPS/1.1",      //
            b"GE(T / HTTP/1.1",      // no token
            b"GET /\0 HTTP/1.1",     // a NUL
            b"GET /\x7f HTTP/1.1",   // a DEL
            b"GET /\xff HTTP/1.1",   // not even UTF-8
            b"GET /a\rb HTTP/1.1",   // a bare CR (RFC 9112 section 2.2)
            b"GET / HTTP/1.1\rHost", //
        ];
        for line in lines {
            let bytes = [*line, b"\r\nHost: x\r\n\r\n"].concat();
            let (status, code) = refused(&bytes);
            assert_eq!(status, 400, "{}", bytes.escape_ascii());
            assert!(
                ["request_line_invalid", "line_end_invalid"].contains(&code),
                "{}: {code}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn other_versions_are_refused_as_such() {
        for version in ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3.0"] {
            let bytes = format!("GET / {version}\r\nHost: x\r\n\r\n");
            assert_eq!(refused(bytes.as_bytes()), (505, "version_unsupported"));
        }
        assert_eq!(
            refused(b"PRI * HTTP/2.0\r\n\r\n"),
            (505, "version_unsupported")
        );
    }

    #[test]
    fn tunnels_are_refused() {
        let bytes = b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(refused(bytes), (501, "connect_unsupported"));
    }

    #[test]
    fn other_methods_keep_their_names_and_their_case() {
        for name in ["PROPFIND", "get", "M-SEARCH"] {
            let head = head(format!("{name} / HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
            assert_eq!(head.method(), &Method::Other(name.into()));
            assert_eq!(head.method().as_str(), name);
        }
    }

    #[test]
    fn odd_headers_are_refused() {
        let lines: &[&[u8]] = &[
            b"Name : a",      // RFC 9112 section 5.1
            b"Name\t: a",     //
            b" Name: a",      // section 2.2: a space after the request line
            b"Name: a\r\n b", // folded, section 5.2
            b"Name:\r\n\tb",  //
            b"Name",          // no colon
            b": a",           // no name
            b"Na me: a",      //
            b"Na(me: a",      //
            b"N\xc3\xa4me: a",
            b"Na\0me: a",
            b"Na\rme: a",
            b"Name: a\0b", // RFC 9110 section 5.5
            b"Name: a\rb", // a bare CR (RFC 9112 section 2.2)
            b"Name: a\r\r",
            b"Name: a\x01b",
            b"Name: a\x0bb",
            b"Name: a\x7fb",
            b"Name: \x1b[31m",
        ];
        for line in lines {
            let bytes = [b"GET / HTTP/1.1\r\nHost: x\r\n", *line, b"\r\n\r\n"].concat();
            assert_eq!(
                refused(&bytes),
                (400, "header_invalid"),
                "{}",
                bytes.escape_ascii()
            );
            let first = [b"GET / HTTP/1.1\r\n", *line, b"\r\nHost: x\r\n\r\n"].concat();
            assert_eq!(
                refused(&first),
                (400, "header_invalid"),
                "{}",
                first.escape_ascii()
            );
        }
    }

    #[test]
    fn every_control_character_is_refused_wherever_it_stands() {
        for byte in (0..=0x1f).chain([0x7f]) {
            for head in [
                "G_T / HTTP/1.1",
                "GET /_ HTTP/1.1",
                "GET / HTTP/1.1\r\nN_: a",
            ] {
                // Long enough for httparse's vectored paths too.
                let long = head.replace('_', &format!("{}_", "a".repeat(40)));
                let bytes: Vec<u8> = format!("{long}\r\nHost: x\r\n\r\n")
                    .bytes()
                    .map(|other| if other == b'_' { byte } else { other })
                    .collect();
                assert_eq!(refused(&bytes).0, 400, "{}", bytes.escape_ascii());
            }
            let value = [&b"a".repeat(40)[..], &[byte], b"b"].concat();
            let bytes = [
                b"GET / HTTP/1.1\r\nHost: x\r\nName: ",
                &value[..],
                b"\r\n\r\n",
            ]
            .concat();
            if byte == b'\t' {
                assert_eq!(head(&bytes).header("name"), Some(&value[..]));
            } else {
                assert_eq!(refused(&bytes).0, 400, "{}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn a_folded_header_and_a_space_before_the_colon_have_different_errors() {
        let message = |lines: &str| parse(with(lines)).unwrap_err().message;
        assert!(message("Name: a\r\n b\r\n").contains("folded"));
        assert!(message("Name : a\r\n").contains("before its colon"));
        assert!(message("Name\r\n").contains("no colon"));
    }

    #[test]
    fn a_host_is_there_once_and_is_one() {
        // RFC 9112 section 3.2.
        assert_eq!(refused(b"GET / HTTP/1.1\r\n\r\n"), (400, "host_missing"));
        assert_eq!(
            refused(b"GET http://x/ HTTP/1.1\r\n\r\n"),
            (400, "host_missing")
        );
        assert_eq!(refused(&with("Host: x\r\n")), (400, "host_repeated"));
        assert_eq!(refused(&with("hOsT: y\r\n")), (400, "host_repeated"));
        let twice = b"GET / HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n";
        assert_eq!(refused(twice), (400, "host_repeated"));
        assert_eq!(head(b"GET / HTTP/1.0\r\n\r\n").host(), None);

        for host in [
            "",
            "x",
            "x:",
            "x:80",
            "a_b.example",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:80",
            "%C3%BC",
        ] {
            let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(head(bytes.as_bytes()).host(), Some(host));
        }
        for host in [
            ":", ":80", "x y", "x/", "user@x", "x:80:80", "x:8a", "x:808080", "::1", "[::1", "[]",
            "[::1]x", "[::1 ]", "x\ty", "ü", "x\\y", "<x>", "x?", "x#",
        ] {
            let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(refused(bytes.as_bytes()), (400, "host_invalid"), "{host}");
        }
    }

    #[test]
    fn both_framings_at_once_are_refused() {
        // RFC 9112 section 6.3, rule 3.
        for lines in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
            "Content-Length: 0\r\nTransfer-Encoding: identity\r\n",
        ] {
            assert_eq!(refused(&with(lines)), (400, "ambiguous_framing"));
        }
    }

    #[test]
    fn a_repeated_or_odd_content_length_is_refused() {
        // RFC 9110 section 8.6, RFC 9112 section 6.3, rule 5.
        for lines in [
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: 5,5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 5.0\r\n",
            "Content-Length: five\r\n",
            "Content-Length: \u{0665}\r\n",
            "Content-Length:\r\n",
            "Content-Length:  \r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Content-Length: 99999999999999999999999999\r\n",
        ] {
            assert_eq!(
                refused(&with(lines)),
                (400, "content_length_invalid"),
                "{lines}"
            );
        }
        let largest = with("Content-Length: 18446744073709551615\r\n");
        assert_eq!(head(&largest).framing(), Framing::Length(u64::MAX));
        assert_eq!(
            head(&with("Content-Length: 007\r\n")).framing(),
            Framing::Length(7)
        );
        assert_eq!(
            head(&with("Content-Length: 0\r\n")).framing(),
            Framing::None
        );
    }

    #[test]
    fn the_only_transfer_coding_is_one_chunked() {
        assert_eq!(
            head(&with("Transfer-Encoding: chunked\r\n")).framing(),
            Framing::Chunked
        );
        assert_eq!(
            head(&with("Transfer-Encoding: Chunked \r\n")).framing(),
            Framing::Chunked
        );

        // RFC 9112 section 6.1: not understood.
        for value in [
            "gzip",
            "gzip, chunked",
            "identity",
            "xchunked",
            "gzip;q=1, chunked",
        ] {
            let bytes = with(&format!("Transfer-Encoding: {value}\r\n"));
            assert_eq!(
                refused(&bytes),
                (501, "transfer_coding_unsupported"),
                "{value}"
            );
        }
        // RFC 9112 section 6.3, rule 4.1, and section 7.
        for value in [
            "chunked, chunked",
            "chunked, gzip",
            "chunked,",
            ",chunked",
            "",
            "chunked;a=b",
            "chun ked",
            "\"chunked\"",
            "chunked\r\nTransfer-Encoding: chunked",
            "chunked\r\nTransfer-Encoding: gzip",
        ] {
            let bytes = with(&format!("Transfer-Encoding: {value}\r\n"));
            assert_eq!(
                refused(&bytes),
                (400, "transfer_encoding_invalid"),
                "{value}"
            );
        }
        // RFC 9112 section 6.1: not in HTTP/1.0.
        let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(refused(old), (400, "transfer_encoding_invalid"));
    }

    #[test]
    fn an_expectation_is_known_or_refused() {
        // RFC 9110 section 10.1.1.
        assert!(head(&with("Expect: 100-Continue\r\n")).expects_continue());
        let old = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n";
        assert!(!head(old).expects_continue());
        for value in ["", "200-ok", "100-continue, other", "100-continue;a=b"] {
            let bytes = with(&format!("Expect: {value}\r\n"));
            assert_eq!(refused(&bytes), (417, "expectation_unknown"), "{value}");
        }
    }

    #[test]
    fn the_connection_stays_as_its_version_says() {
        // RFC 9112 section 9.3. version, Connection, stays
        let cases = [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: TE, Close\r\n", false),
            ("1.1", "Connection: TE\r\nConnection: close\r\n", false),
            ("1.1", "Connection: keep-alive\r\n", true),
            ("1.1", "Connection: closed\r\n", true),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ];
        for (version, lines, stays) in cases {
            let bytes = format!("GET / HTTP/{version}\r\nHost: x\r\n{lines}\r\n");
            assert_eq!(head(bytes.as_bytes()).keep_alive(), stays, "{bytes}");
        }
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let bytes = b"GET /a?token=secret HTTP/1.1\r\nHost: x\r\nAuthorization: secret\r\n\r\n";
        let shown = format!("{:?}", head(bytes));
        assert!(
            shown.contains("Authorization") && !shown.contains("secret"),
            "{shown}"
        );
    }
}
