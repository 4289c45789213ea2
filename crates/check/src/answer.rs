//! An answer that is no stream: what it says, and what to do about it. Pure:
//! an answer in, findings out.

use ureq::http::HeaderMap;

use super::finding::Finding;
use super::head;
use super::http;

/// How much of its body is read.
pub(super) const BODY_BYTES_MAX: u64 = 4 << 10;

const STATUS: &str = "status";

/// Whether an answer is a stream that a browser reads.
pub(super) fn is_stream(status: u16, headers: &HeaderMap) -> bool {
    status == 200 && http::is_stream_type(head::text(headers, "content-type"))
}

/// The status of a stream.
pub(super) fn good() -> Finding {
    Finding::ok(STATUS, "200")
}

/// Why an answer is no stream, by its status or its type, and what it says.
pub(super) fn judge(status: u16, headers: &HeaderMap, body: &[u8]) -> Vec<Finding> {
    let said = said(body);
    if status == 200 {
        return vec![good(), content_type(headers, &said), nothing_else()];
    }
    let finding = Finding::failure(STATUS, format!("{status}, {said}"), advice(status, headers));
    vec![finding, nothing_else()]
}

fn content_type(headers: &HeaderMap, said: &str) -> Finding {
    let media_type = head::shown(head::text(headers, "content-type"));
    Finding::failure(
        "content_type",
        format!("{media_type}, {said}"),
        "a browser refuses it and never comes back: check the path; if a page asks to log in, \
         give `--header 'Cookie: NAME=VALUE'`; if it is the stream, have it sent with \
         `Content-Type: text/event-stream`",
    )
}

/// What was not looked at, as there is no stream.
pub(super) fn nothing_else() -> Finding {
    Finding::not_checked(
        "stream",
        "there is none, and so nothing was looked at of head, HTTP/1.0, HEAD, CORS, buffering, \
         compression, ids, resumption, injection and heartbeats",
    )
}

/// What to do about a status.
fn advice(status: u16, headers: &HeaderMap) -> String {
    let advice = match status {
        204 => {
            "it says that there is nothing to come for, and browsers stay away: the channel has \
             been finished"
        }
        300..=399 => "it leads nowhere, without a `Location`: check the path, and ask the server",
        401 | 403 => "give what the server wants, as `--header 'Authorization: Bearer TOKEN'`",
        404 | 410 => "check the path: `pushwheel serve` has its streams at /channels/NAME",
        405 | 406 => "check the path: this one gives no event stream to who asks for it by GET",
        429 | 503 if headers.contains_key("retry-after") => {
            let after = head::text(headers, "retry-after");
            return format!("ask again later, as `Retry-After: {after}` says");
        }
        502..=504 => {
            "a proxy does not reach the server, or the server is not ready: see whether it runs, \
             and ask it past the proxy"
        }
        400..=499 => "do what it says: check the URL and each `--header`",
        500..=599 => "the server has failed: its log says why",
        _ => "a browser's EventSource gives up for good at any status but 200: answer 200",
    };
    advice.to_owned()
}

/// What begins a body, in one line.
fn said(body: &[u8]) -> String {
    match &*http::beginning(&String::from_utf8_lossy(body)) {
        "" => "without a body".to_owned(),
        line => format!("saying: {line}"),
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
            (206, "answer 200"),
            (302, "`Location`"),
            (401, "--header 'Authorization: Bearer TOKEN'"),
            (403, "--header 'Authorization: Bearer TOKEN'"),
            (404, "check the path"),
            (418, "do what it says"),
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
        assert!(advice(503, &later).contains("`Retry-After: 7`"));
    }

    #[test]
    fn what_it_says_is_one_short_line() {
        assert_eq!(said(b" \n"), "without a body");
        assert_eq!(said(b"<h1>not\n  here</h1>"), "saying: <h1>not here</h1>");
        let long = "ä".repeat(300);
        let wanted = format!("saying: {} …", "ä".repeat(http::BEGINNING_CHARS_MAX));
        assert_eq!(said(long.as_bytes()), wanted);
    }
}
