//! The head of a response, written into the buffer that is sent.

use super::head::{Persistence, Version};

/// The response to [`Step::SendContinue`](super::Step::SendContinue).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The framing of a response's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// The size of the body in bytes; for a `HEAD` request the size that it would have.
    Known(u64),
    /// The body ends when the connection is closed, as that of a stream.
    UntilClose,
    /// The body is chunked (RFC 9112 section 7.1). Only for a client of HTTP/1.1.
    Chunked,
}

/// Appends the head of a final response to `out`: the status line, `Date`,
/// `Content-Length` and `Connection` where they are needed, then `headers` in their order,
/// and the empty line.
///
/// - `status` has three digits. The version is always `HTTP/1.1` (RFC 9110 section 2.5),
///   also for a client with another version.
/// - A status without a body ([`has_body`]) has no `Content-Length`, for any `body`. Write
///   no body after it.
/// - [`BodyLength::UntilClose`] closes the connection, for any `persistence`.
/// - `headers` come from [`Headers`](super::Headers), which has checked them; here they are
///   copied.
/// - `date` is an IMF-fixdate: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn write_head<'a>(
    out: &mut Vec<u8>,
    status: u16,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: BodyLength,
    persistence: Persistence,
    date: &str,
) {
    debug_assert!((100..=999).contains(&status), "a status has three digits");
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\nDate: ");
    out.extend_from_slice(date.as_bytes());
    out.extend_from_slice(b"\r\n");

    let mut persistence = persistence;
    if has_body(status) {
        match body {
            BodyLength::Known(length) => {
                out.extend_from_slice(b"Content-Length: ");
                out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            BodyLength::UntilClose => persistence = Persistence::Close,
            BodyLength::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        }
    }
    match persistence {
        Persistence::Close => out.extend_from_slice(b"Connection: close\r\n"),
        Persistence::KeepAlive(Version::Http10) => {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        Persistence::KeepAlive(Version::Http11) => {}
    }
    for (name, value) in headers {
        debug_assert!(!name.contains(['\r', '\n']) && !value.contains(['\r', '\n']));
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Returns whether responses with this status have a body, even an empty one: all but 1xx,
/// 204 and 304 (RFC 9112 section 6.3).
pub fn has_body(status: u16) -> bool {
    !matches!(status, 100..=199 | 204 | 304)
}

/// Returns the reason phrase of a status. Empty, which is allowed, for one that is in
/// neither RFC 9110 nor RFC 6585.
pub(super) fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        511 => "Network Authentication Required",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::super::Headers;
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn written(status: u16, body: BodyLength, persistence: Persistence) -> String {
        let mut out = Vec::new();
        write_head(&mut out, status, [], body, persistence, DATE);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answer_says_its_length_and_keeps_the_connection() {
        let mut headers = Headers::new();
        headers.insert("Content-Type", "text/plain").unwrap();
        headers.append("Vary", "Origin").unwrap();
        let mut out = b"the answer before".to_vec();
        let stays = Persistence::KeepAlive(Version::Http11);
        write_head(
            &mut out,
            200,
            headers.iter(),
            BodyLength::Known(5),
            stays,
            DATE,
        );
        assert_eq!(
            str::from_utf8(&out).unwrap(),
            "the answer beforeHTTP/1.1 200 OK\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Length: 5\r\n\
             Content-Type: text/plain\r\n\
             Vary: Origin\r\n\r\n"
        );
    }

    #[test]
    fn a_stream_always_closes() {
        let stays = Persistence::KeepAlive(Version::Http11);
        assert_eq!(
            written(200, BodyLength::UntilClose, stays),
            format!("HTTP/1.1 200 OK\r\nDate: {DATE}\r\nConnection: close\r\n\r\n")
        );
    }

    #[test]
    fn a_client_of_http_1_0_receives_connection_keep_alive() {
        let stays = Persistence::KeepAlive(Version::Http10);
        assert_eq!(
            written(404, BodyLength::Known(0), stays),
            format!(
                "HTTP/1.1 404 Not Found\r\nDate: {DATE}\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"
            )
        );
    }

    #[test]
    fn a_status_without_a_body_says_no_length() {
        let stays = Persistence::KeepAlive(Version::Http11);
        for (status, phrase) in [(204, "No Content"), (304, "Not Modified")] {
            for body in [BodyLength::Known(7), BodyLength::UntilClose] {
                assert_eq!(
                    written(status, body, stays),
                    format!("HTTP/1.1 {status} {phrase}\r\nDate: {DATE}\r\n\r\n")
                );
            }
        }
    }

    #[test]
    fn an_unknown_status_has_an_empty_reason_and_its_space() {
        let head = written(299, BodyLength::Known(0), Persistence::Close);
        assert!(head.starts_with("HTTP/1.1 299 \r\n"));
    }
}
