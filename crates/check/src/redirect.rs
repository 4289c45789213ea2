//! Redirects, the status, and the responses to requests that differ from a browser's.

use ureq::http::Version;
use ureq::{Error, Timeout};

use super::finding::{Finding, Report};
use super::request::{Requester, Seen, StreamReader};
use super::{answer, head};
use crate::{Failure, http};

/// The maximum redirects that are followed; browsers follow 20.
const REDIRECTS_MAX: usize = 10;

/// The response after all redirects.
pub(super) enum Arrival {
    Stream(Seen),
    /// No head arrived within the timeout.
    NoHead,
    /// A response that is not a stream.
    NoStream,
}

/// Follows redirects to the stream and reports them. Later requests of the requester go to
/// the last URL.
///
/// # Errors
/// When a server is unreachable.
pub(super) fn arrive(requester: &mut Requester, report: &mut Report) -> Result<Arrival, Failure> {
    let mut hops: Vec<String> = Vec::new();
    let seen = loop {
        let seen = match requester.get(&[]) {
            Ok(seen) => seen,
            Err(Error::Timeout(Timeout::RecvResponse)) => {
                report.add(Finding::failure(
                    "time_to_head",
                    format!(
                        "{} accepted the request and sent no response head in time",
                        requester.url
                    ),
                    "a proxy waits for the end of the response, which a stream does not have. \
                     Switch off response buffering for this path (nginx: `proxy_buffering off`), \
                     and send a first byte immediately",
                ));
                return Ok(Arrival::NoHead);
            }
            Err(error) => return Err(unreachable(&requester.url, &hops, &error)),
        };
        let target = head::text(seen.headers(), "location");
        let is_redirect = matches!(seen.status(), 301 | 302 | 303 | 307 | 308);
        if !is_redirect || target.is_empty() {
            break seen;
        }
        if hops.len() == REDIRECTS_MAX {
            report.add(Finding::failure(
                "redirect",
                format!("more than {REDIRECTS_MAX} redirects, the last to {target}"),
                "the redirects are a loop. Use the URL of the stream itself",
            ));
            report.add(answer::nothing_else());
            return Ok(Arrival::NoStream);
        }
        let url = resolve(&requester.url, target);
        let mut hop = format!("{} to {url}", seen.status());
        // Another origin must not receive a token.
        if origin(&url) != origin(&requester.url) && !requester.headers.is_empty() {
            requester.headers.clear();
            hop.push_str(
                " (another origin, which does not receive the headers of --header. Check it \
                 separately)",
            );
        }
        hops.push(hop);
        requester.url = url;
    };
    report.add(redirects(&hops));
    report.add(tls(requester));
    if seen.is_stream() {
        report.add(answer::good());
        return Ok(Arrival::Stream(seen));
    }
    let (status, headers) = (seen.status(), seen.headers().clone());
    report.extend(answer::judge(
        status,
        &headers,
        &seen.beginning(requester.clock),
    ));
    Ok(Arrival::NoStream)
}

fn unreachable(url: &str, hops: &[String], error: &Error) -> Failure {
    let way = match hops.is_empty() {
        true => String::new(),
        false => format!(" after {}", hops.join(", ")),
    };
    format!("cannot examine {url}{way} {}", http::reason(error))
}

/// Resolves the target of a redirect against the URL that it came from.
fn resolve(url: &str, target: &str) -> String {
    let target = target.split('#').next().unwrap_or_default();
    // A path or a query may contain another URL, as that of a log-in does.
    let scheme = target.split(['/', '?']).next().unwrap_or_default();
    if scheme.ends_with(':') {
        return target.to_owned();
    }
    let origin = origin(url);
    if target.starts_with("//") {
        let (scheme, _) = origin.split_once("//").unwrap_or_default();
        return format!("{scheme}{target}");
    }
    if target.starts_with('/') {
        return format!("{origin}{target}");
    }
    let path = url.strip_prefix(origin).unwrap_or_default();
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if target.starts_with('?') {
        return format!("{origin}{path}{target}");
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{origin}{folder}/{target}")
}

/// Returns the scheme, host and port of a URL.
fn origin(url: &str) -> &str {
    let host_at = url.find("://").map_or(0, |at| at + "://".len());
    let length = url[host_at..].find(['/', '?', '#']);
    length.map_or(url, |length| &url[..host_at + length])
}

fn redirects(hops: &[String]) -> Finding {
    const CODE: &str = "redirect";
    match hops.is_empty() {
        true => Finding::ok(CODE, "none"),
        false => Finding::warning(
            CODE,
            hops.join(", "),
            "each reconnection follows them again. Use the last URL in the page",
        ),
    }
}

fn tls(requester: &Requester) -> Finding {
    const CODE: &str = "tls";
    if !requester.url.starts_with("https://") {
        return Finding::not_checked(CODE, "plain HTTP");
    }
    match requester.agent.config().tls_config().disable_verification() {
        true => Finding::warning(
            CODE,
            "the certificate was not verified, because of --insecure",
            "browsers verify it. Check with --cacert FILE",
        ),
        false => Finding::ok(CODE, "the certificate is valid"),
    }
}

/// Checks requests that differ from those of a browser for its own origin.
pub(super) fn others(requester: &Requester, origin: Option<&str>) -> Vec<Finding> {
    let mut findings = vec![http_1_0(requester), head_request(requester)];
    let asked_from = origin.unwrap_or("https://pushwheel-check.invalid");
    findings.push(match requester.get(&[("Origin", asked_from)]) {
        Ok(seen) => head::cors(origin, seen.headers()),
        Err(error) => Finding::not_checked("cors", http::reason(&error)),
    });
    if let Some(origin) = origin {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "last-event-id"),
        ];
        findings.push(match requester.ask("OPTIONS", Version::HTTP_11, &headers) {
            Ok(seen) => head::preflight(origin, seen.status(), seen.headers()),
            Err(error) => Finding::not_checked("preflight", http::reason(&error)),
        });
    }
    findings
}

/// nginx uses HTTP/1.0 by default.
fn http_1_0(requester: &Requester) -> Finding {
    const CODE: &str = "http_1_0";
    const ADVICE: &str = "nginx uses HTTP/1.0 by default (`proxy_http_version 1.1` changes it). \
                          Send a body without `Transfer-Encoding`, delimited by the end of the \
                          connection";
    let seen = match requester.ask("GET", Version::HTTP_10, &[]) {
        Ok(seen) => seen,
        Err(error) => return Finding::warning(CODE, http::reason(&error), ADVICE),
    };
    if !seen.is_stream() {
        return Finding::warning(CODE, status_and_type(&seen), ADVICE);
    }
    let coding = head::text(seen.headers(), "transfer-encoding");
    if !coding.is_empty() {
        let seen = format!("200, with `Transfer-Encoding: {coding}`");
        return Finding::warning(CODE, seen, ADVICE);
    }
    let Ok(mut reader) = StreamReader::new(seen, requester.clock) else {
        return Finding::not_checked(CODE, "cannot start a thread");
    };
    reader.await_first_byte();
    match reader.first_byte_at {
        Some(_) => Finding::ok(CODE, "a stream too"),
        None => Finding::warning(CODE, "200, but no byte of the stream within 3 s", ADVICE),
    }
}

fn head_request(requester: &Requester) -> Finding {
    const CODE: &str = "head_request";
    let advice = "monitors use HEAD. Respond as to GET, without the stream";
    match requester.ask("HEAD", Version::HTTP_11, &[]) {
        Ok(seen) if seen.is_stream() => Finding::ok(CODE, "200, the same as GET"),
        Ok(seen) => Finding::warning(CODE, status_and_type(&seen), advice),
        Err(error) => Finding::warning(CODE, http::reason(&error), advice),
    }
}

/// Describes a response that should be a stream.
fn status_and_type(seen: &Seen) -> String {
    let type_of = match head::text(seen.headers(), "content-type") {
        "" => "without a `Content-Type`".to_owned(),
        media_type => format!("with `Content-Type: {media_type}`"),
    };
    format!("{}, {type_of}", seen.status())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_resolved_against_its_url() {
        let url = "http://h:1/a/b?c=/d";
        for (target, wanted) in [
            ("https://x/y", "https://x/y"),
            ("//x/y", "http://x/y"),
            ("/y", "http://h:1/y"),
            ("y", "http://h:1/a/y"),
            ("?y", "http://h:1/a/b?y"),
            ("/y?next=http://x/z#top", "http://h:1/y?next=http://x/z"),
            ("y?next=http://x/z", "http://h:1/a/y?next=http://x/z"),
        ] {
            assert_eq!(resolve(url, target), wanted);
        }
        assert_eq!(resolve("http://h", "y"), "http://h/y");
    }
}
