//! A response that is not a stream. Pure: a response in, findings out.

use ureq::http::HeaderMap;

use super::finding::Finding;
use super::head;
use super::http;

/// The maximum size of a body that is read, in bytes.
pub(super) const BODY_BYTES_MAX: u64 = 4 << 10;

const STATUS: &str = "status";

/// Returns whether a response is a stream that a browser reads.
pub(super) fn is_stream(status: u16, headers: &HeaderMap) -> bool {
    status == 200 && http::is_stream_type(head::text(headers, "content-type"))
}

/// The finding for the status of a stream.
pub(super) fn good() -> Finding {
    Finding::ok(STATUS, "200")
}

/// Returns why a response is not a stream, by its status or its media type.
pub(super) fn judge(status: u16, headers: &HeaderMap, body: &[u8]) -> Vec<Finding> {
    let excerpt = excerpt(body);
    if status == 200 {
        return vec![good(), content_type(headers, &excerpt), nothing_else()];
    }
    let finding = Finding::failure(
        STATUS,
        format!("{status}, {excerpt}"),
        advice(status, headers),
    );
    vec![finding, nothing_else()]
}

fn content_type(headers: &HeaderMap, excerpt: &str) -> Finding {
    let media_type = head::shown(head::text(headers, "content-type"));
    Finding::failure(
        "content_type",
        format!("{media_type}, {excerpt}"),
        "a browser rejects it and does not reconnect. Check the path. For a log-in page, pass \
         `--header 'Cookie: NAME=VALUE'`. If it is the stream, send \
         `Content-Type: text/event-stream`",
    )
}

/// The finding for all checks that need a stream.
pub(super) fn nothing_else() -> Finding {
    Finding::not_checked(
        "stream",
        "there is no stream, so there are no results for headers, HTTP/1.0, HEAD, CORS, \
         buffering, compression, ids, resumption, injection and heartbeats",
    )
}

/// Returns the fix for a status.
fn advice(status: u16, headers: &HeaderMap) -> String {
    let advice = match status {
        204 => "the channel is finished, and browsers do not reconnect",
        300..=399 => {
            "the redirect has no `Location`. Check the path, and the configuration of the server"
        }
        401 | 403 => "pass a credential, for example `--header 'Authorization: Bearer TOKEN'`",
        404 | 410 => "check the path. The streams of `pushwheel serve` are at /channels/NAME",
        405 | 406 => "check the path. This one has no event stream for GET",
        429 | 503 if headers.contains_key("retry-after") => {
            let after = head::text(headers, "retry-after");
            return format!("try again after {after} s (`Retry-After`)");
        }
        502..=504 => {
            "the proxy does not reach the server, or the server is not ready. Check that it runs, \
             and check its stream without the proxy"
        }
        400..=499 => "check the URL and each `--header`",
        500..=599 => "the server failed. Read its log",
        _ => "EventSource gives up after any status except 200. Return 200",
    };
    advice.to_owned()
}

/// Returns the beginning of a body, in one line.
fn excerpt(body: &[u8]) -> String {
    match &*http::beginning(&String::from_utf8_lossy(body)) {
        "" => "without a body".to_owned(),
        line => format!("body: {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Outcome;
    use super::super::head::tests::headers;
    use super::*;

    #[test]
    fn a_stream_has_its_status_and_its_type() {
        let stream = headers(&[("content-type", "Text/Event-Stream; charset=utf-8")]);
        assert!(is_stream(200, &stream));
        assert!(!is_stream(201, &stream));
        assert!(!is_stream(200, &headers(&[("content-type", "text/html")])));
        assert!(!is_stream(200, &headers(&[])));
    }

    #[test]
    fn each_status_has_its_advice() {
        for (status, part) in [
            (204, "finished"),
            (206, "Return 200"),
            (302, "`Location`"),
            (401, "--header 'Authorization: Bearer TOKEN'"),
            (403, "--header 'Authorization: Bearer TOKEN'"),
            (404, "check the path"),
            (418, "each `--header`"),
            (500, "log"),
            (502, "proxy"),
        ] {
            let findings = judge(status, &headers(&[]), b"");
            assert_eq!(findings[0].outcome, Outcome::Failure, "{status}");
            let advice = findings[0].advice.as_deref().unwrap();
            assert!(advice.contains(part), "{status}: {advice}");
            assert_eq!(findings[1], nothing_else());
        }
        let later = headers(&[("retry-after", "7")]);
        assert!(advice(503, &later).contains("after 7 s"));
    }

    #[test]
    fn the_excerpt_of_a_body_is_one_short_line() {
        assert_eq!(excerpt(b" \n"), "without a body");
        assert_eq!(excerpt(b"<h1>not\n  here</h1>"), "body: <h1>not here</h1>");
        let long = "ä".repeat(300);
        let wanted = format!("body: {} …", "ä".repeat(http::BEGINNING_CHARS_MAX));
        assert_eq!(excerpt(long.as_bytes()), wanted);
    }
}
