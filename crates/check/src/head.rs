//! The head of a stream. Pure: headers in, findings out. `answer` has checked that the
//! response is a stream.

use std::time::Duration;

use ureq::http::HeaderMap;

use super::finding::Finding;

/// A delay of the head that a user of the page notices.
const SLOW: Duration = Duration::from_secs(2);

/// Returns the value of a header, or an empty text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

/// Returns the value of a header for a report.
pub(super) fn shown(value: &str) -> String {
    match value {
        "" => "none".to_owned(),
        value => format!("`{value}`"),
    }
}

/// Checks the head.
pub(super) fn judge(headers: &HeaderMap, took: Duration) -> Vec<Finding> {
    vec![
        time(took),
        content_type(text(headers, "content-type")),
        cache_control(text(headers, "cache-control")),
        accel_buffering(headers),
        content_length(headers),
        content_encoding(text(headers, "content-encoding")),
    ]
}

fn time(took: Duration) -> Finding {
    let seen = format!("the head arrived after {} ms", took.as_millis());
    match took < SLOW {
        true => Finding::ok("time_to_head", seen),
        false => Finding::warning(
            "time_to_head",
            seen,
            "send the head and the first byte of a stream immediately, before any lookup, and let \
             the proxy forward them without buffering",
        ),
    }
}

fn content_type(value: &str) -> Finding {
    const CODE: &str = "content_type";
    let mut parameters = value.split(';').skip(1);
    let charset = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("charset")
            .then(|| value.trim().trim_matches('"'))
    });
    match charset {
        Some(charset) if !charset.eq_ignore_ascii_case("utf-8") => Finding::warning(
            CODE,
            format!("`{value}`"),
            "browsers decode every event stream as UTF-8 and ignore the charset. Send UTF-8",
        ),
        _ => Finding::ok(CODE, format!("`{value}`")),
    }
}

fn cache_control(value: &str) -> Finding {
    const CODE: &str = "cache_control";
    let has = |wanted: &str| {
        let mut words = value.split(',').map(str::trim);
        words.any(|word| word.eq_ignore_ascii_case(wanted))
    };
    let seen = shown(value);
    let is_fresh = has("no-cache") || has("no-store");
    if is_fresh && has("no-transform") {
        return Finding::ok(CODE, seen);
    }
    let advice = match is_fresh {
        true => "without `no-transform` a proxy may compress the stream, and delay it",
        false => "a cache may store the stream, or send it to another client",
    };
    let advice = format!("{advice}. Send `Cache-Control: no-cache, no-transform`");
    Finding::warning(CODE, seen, advice)
}

fn accel_buffering(headers: &HeaderMap) -> Finding {
    const CODE: &str = "accel_buffering";
    let value = text(headers, "x-accel-buffering");
    let is_nginx = ["server", "via"]
        .iter()
        .any(|name| text(headers, name).to_ascii_lowercase().contains("nginx"));
    match value {
        "no" => Finding::ok(CODE, "`no`: nginx does not buffer the stream"),
        "" if is_nginx => Finding::ok(CODE, "none: nginx removes it from responses"),
        _ => Finding::warning(
            CODE,
            shown(value),
            "nginx buffers the stream by default. Send `X-Accel-Buffering: no`, or set \
             `proxy_buffering off`",
        ),
    }
}

fn content_length(headers: &HeaderMap) -> Finding {
    const CODE: &str = "content_length";
    match text(headers, "content-length") {
        "" => Finding::ok(CODE, "none"),
        value => Finding::failure(
            CODE,
            format!("`{value}`"),
            "the response ends after this many bytes. Remove the header, or the proxy that buffers \
             the whole response",
        ),
    }
}

fn content_encoding(value: &str) -> Finding {
    const CODE: &str = "content_encoding";
    match value {
        "" | "identity" => Finding::ok(CODE, "none"),
        value => Finding::failure(
            CODE,
            format!("`{value}`, which the request does not accept"),
            "clients cannot decode it. Compress only for requests with `Accept-Encoding`",
        ),
    }
}

/// Checks whether a page from `origin` may read the stream.
pub(super) fn cors(origin: Option<&str>, headers: &HeaderMap) -> Finding {
    const CODE: &str = "cors";
    let allowed = text(headers, "access-control-allow-origin");
    let Some(origin) = origin else {
        let why = match allowed {
            "" => "pages of other origins may not read it; check one with --origin",
            "*" => "pages of any origin may read it, without cookies",
            _ => "check the origin of your page with --origin",
        };
        return Finding::not_checked(CODE, why);
    };
    let with_cookies = text(headers, "access-control-allow-credentials") == "true";
    let varies = text(headers, "vary")
        .to_ascii_lowercase()
        .contains("origin");
    match allowed {
        "*" => Finding::ok(
            CODE,
            "`*`: pages of any origin may read it, without cookies",
        ),
        allowed if allowed == origin && !varies => Finding::warning(
            CODE,
            format!("`{allowed}`, without `Vary: Origin`"),
            "a cache may send the response for one origin to another. Send `Vary: Origin`",
        ),
        allowed if allowed == origin => Finding::ok(
            CODE,
            match with_cookies {
                true => format!("`{allowed}`, with cookies"),
                false => format!("`{allowed}`, without cookies"),
            },
        ),
        allowed => Finding::failure(
            CODE,
            match allowed {
                "" => format!("{origin} is not allowed"),
                allowed => format!("`{allowed}` is not {origin}"),
            },
            "pages of this origin cannot read the stream. Send `Access-Control-Allow-Origin` with \
             their origin, or `*`",
        ),
    }
}

/// Checks the response to the preflight of a client that uses `fetch`, which sends the id
/// in a header.
pub(super) fn preflight(origin: &str, status: u16, headers: &HeaderMap) -> Finding {
    const CODE: &str = "preflight";
    let origins = text(headers, "access-control-allow-origin");
    let names = text(headers, "access-control-allow-headers").to_ascii_lowercase();
    let allows_header = names
        .split(',')
        .any(|name| matches!(name.trim(), "*" | "last-event-id"));
    let allows_origin = origins == "*" || origins == origin;
    match (200..300).contains(&status) && allows_origin && allows_header {
        true => Finding::ok(CODE, format!("{status}: `Last-Event-ID` is allowed")),
        false => Finding::warning(
            CODE,
            format!("{status}, for the origin `{origins}` and the headers `{names}`"),
            "EventSource needs no preflight, but clients that use fetch do. Respond to OPTIONS \
             with `Access-Control-Allow-Headers: Last-Event-ID`",
        ),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::finding::Outcome;
    use super::*;

    pub(in super::super) fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair =
            |(name, value): &(&'static str, &str)| (name.parse().unwrap(), value.parse().unwrap());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_good_head_passes_all_checks() {
        let good = headers(&[
            ("content-type", "text/event-stream; charset=UTF-8"),
            ("cache-control", "no-cache, no-transform"),
            ("x-accel-buffering", "no"),
        ]);
        let findings = judge(&good, Duration::from_millis(3));
        assert!(
            findings.iter().all(|f| f.outcome == Outcome::Ok),
            "{findings:?}"
        );
    }

    #[test]
    fn each_fault_of_a_head_is_reported() {
        let bad = headers(&[
            ("content-type", "text/event-stream; charset=iso-8859-1"),
            ("content-length", "70"),
            ("content-encoding", "gzip"),
            ("cache-control", "no-cache"),
        ]);
        let outcomes: Vec<_> = judge(&bad, Duration::from_secs(3))
            .iter()
            .map(|finding| (finding.code, finding.outcome))
            .collect();
        assert_eq!(
            outcomes,
            [
                ("time_to_head", Outcome::Warning),
                ("content_type", Outcome::Warning),
                ("cache_control", Outcome::Warning),
                ("accel_buffering", Outcome::Warning),
                ("content_length", Outcome::Failure),
                ("content_encoding", Outcome::Failure),
            ]
        );
        assert_eq!(cache_control("max-age=60").outcome, Outcome::Warning);
        let behind_nginx = headers(&[("server", "nginx/1.22.1")]);
        assert_eq!(accel_buffering(&behind_nginx).outcome, Outcome::Ok);
    }

    #[test]
    fn an_origin_is_allowed_or_not() {
        let page = "https://app.example";
        let outcome = |pairs: &[(&'static str, &str)]| cors(Some(page), &headers(pairs)).outcome;
        let allow = "access-control-allow-origin";
        assert_eq!(outcome(&[(allow, "*")]), Outcome::Ok);
        assert_eq!(outcome(&[(allow, page), ("vary", "Origin")]), Outcome::Ok);
        assert_eq!(outcome(&[(allow, page)]), Outcome::Warning);
        assert_eq!(
            outcome(&[(allow, "https://other.example")]),
            Outcome::Failure
        );
        assert_eq!(outcome(&[]), Outcome::Failure);
        assert_eq!(cors(None, &headers(&[])).outcome, Outcome::NotChecked);

        let names = "access-control-allow-headers";
        let asked = |status, pairs: &[(&'static str, &str)]| {
            preflight(page, status, &headers(pairs)).outcome
        };
        let good = [(allow, page), (names, "Authorization, Last-Event-ID")];
        assert_eq!(asked(204, &good), Outcome::Ok);
        assert_eq!(asked(403, &good), Outcome::Warning);
        assert_eq!(asked(200, &[(allow, page)]), Outcome::Warning);
    }
}
