//! The refusals of malformed requests: the one place where a fault in a peer's HTTP gets its
//! status, code and message.
//!
//! | status | codes |
//! | --- | --- |
//! | 400 | `request_line_invalid`, `target_invalid`, `line_end_invalid`, `header_invalid`, `host_missing`, `host_repeated`, `host_invalid`, `ambiguous_framing`, `content_length_invalid`, `transfer_encoding_invalid`, `chunk_invalid`, `proxy_header_invalid` |
//! | 413 | `payload_too_large` |
//! | 414 | `uri_too_long` |
//! | 417 | `expectation_unknown` |
//! | 431 | `head_too_large`, `too_many_headers`, `trailers_too_large` |
//! | 501 | `transfer_coding_unsupported`, `connect_unsupported` |
//! | 505 | `version_unsupported` |

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use super::Limits;

/// The response to a malformed request, after which the connection is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The code, for programs: stable, in snake case.
    pub code: &'static str,
    /// The message, for people: cause and fix. It never contains bytes that the client
    /// sent.
    pub message: Cow<'static, str>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.message)
    }
}

impl Error for Refusal {}

impl Refusal {
    fn new(status: u16, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Refusal {
            status,
            code,
            message: message.into(),
        }
    }

    pub(super) fn request_line() -> Self {
        Refusal::new(
            400,
            "request_line_invalid",
            "the first line is not `METHOD /path HTTP/1.1` with single spaces. Send plain HTTP/1.1 (no TLS, no HTTP/2) to this port",
        )
    }

    /// A proxy's connection does not begin with a valid PROXY header.
    pub(crate) fn proxy_header(reason: impl fmt::Display) -> Self {
        let message = format!(
            "{reason}: have the proxy send one (`send-proxy-v2` in HAProxy), or take its address \
             from those that are to send it"
        );
        Refusal::new(400, "proxy_header_invalid", message)
    }

    pub(super) fn target(message: &'static str) -> Self {
        Refusal::new(400, "target_invalid", message)
    }

    pub(super) fn line_end() -> Self {
        Refusal::new(
            400,
            "line_end_invalid",
            "a line of the head does not end with CR LF. End every line with both, and send neither of them alone",
        )
    }

    pub(super) fn too_many_empty_lines() -> Self {
        Refusal::new(
            400,
            "line_end_invalid",
            "too many empty lines before a request. Begin with the request line",
        )
    }

    pub(super) fn header(message: &'static str) -> Self {
        Refusal::new(400, "header_invalid", message)
    }

    pub(super) fn host_missing() -> Self {
        Refusal::new(
            400,
            "host_missing",
            "an HTTP/1.1 request needs a Host header. Add the name and port that you connect to",
        )
    }

    pub(super) fn host_repeated() -> Self {
        Refusal::new(
            400,
            "host_repeated",
            "the request has more than one Host header. Send exactly one",
        )
    }

    pub(super) fn host_invalid() -> Self {
        Refusal::new(
            400,
            "host_invalid",
            "the Host header is not a host name or address with an optional port. Send `name`, `name:port` or `[address]:port`",
        )
    }

    pub(super) fn ambiguous_framing() -> Self {
        Refusal::new(
            400,
            "ambiguous_framing",
            "the request has both Content-Length and Transfer-Encoding. Send only one of them",
        )
    }

    pub(super) fn content_length() -> Self {
        Refusal::new(
            400,
            "content_length_invalid",
            "Content-Length is repeated or is not a plain decimal number. Send it once, digits only",
        )
    }

    pub(super) fn transfer_encoding(message: &'static str) -> Self {
        Refusal::new(400, "transfer_encoding_invalid", message)
    }

    pub(super) fn transfer_coding_unsupported() -> Self {
        Refusal::new(
            501,
            "transfer_coding_unsupported",
            "the only supported transfer coding is `chunked`. Send the body with that alone, or with Content-Length",
        )
    }

    pub(super) fn chunk(message: &'static str) -> Self {
        Refusal::new(400, "chunk_invalid", message)
    }

    pub(super) fn trailers_too_large(bytes_max: usize) -> Self {
        Refusal::new(
            431,
            "trailers_too_large",
            format!(
                "the trailers after the body are longer than {bytes_max} bytes. Leave them out"
            ),
        )
    }

    pub(crate) fn payload_too_large(limits: &Limits) -> Self {
        let bytes_max = limits.body_bytes_max;
        Refusal::new(
            413,
            "payload_too_large",
            format!("the body is longer than {bytes_max} bytes. Send less, or in several requests"),
        )
    }

    pub(super) fn uri_too_long(bytes_max: usize) -> Self {
        Refusal::new(
            414,
            "uri_too_long",
            format!(
                "the request line is longer than {bytes_max} bytes. Shorten the path or the query"
            ),
        )
    }

    pub(super) fn head_too_large(bytes_max: usize) -> Self {
        Refusal::new(
            431,
            "head_too_large",
            format!(
                "the head of the request is longer than {bytes_max} bytes. Send fewer or shorter headers"
            ),
        )
    }

    pub(super) fn too_many_headers(headers_max: usize) -> Self {
        Refusal::new(
            431,
            "too_many_headers",
            format!("the request has more than {headers_max} headers. Send fewer"),
        )
    }

    pub(super) fn expectation() -> Self {
        Refusal::new(
            417,
            "expectation_unknown",
            "the only supported expectation is `100-continue`. Leave out the Expect header",
        )
    }

    pub(super) fn connect() -> Self {
        Refusal::new(
            501,
            "connect_unsupported",
            "this server is not a proxy and opens no tunnels. Do not send CONNECT here",
        )
    }

    pub(super) fn version() -> Self {
        Refusal::new(
            505,
            "version_unsupported",
            "the only supported versions are HTTP/1.1 and HTTP/1.0. Send one of them",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_a_status_a_code_and_a_fix() {
        let limits = Limits {
            body_bytes_max: 10,
            ..Limits::default()
        };
        assert_eq!(
            Refusal::payload_too_large(&limits).to_string(),
            "413 payload_too_large: the body is longer than 10 bytes. Send less, or in several requests"
        );
    }
}
