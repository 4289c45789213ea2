//! The way to a stream: redirects, its status, and what other requests than a
//! browser's are answered.

use ureq::http::Version;
use ureq::{Error, Timeout};

use super::finding::{Finding, Report};
use super::visit::{Seen, Tap, Visitor};
use super::{answer, head};
use crate::{Failure, http};

/// How many redirects are followed; browsers follow 20.
const REDIRECTS_MAX: usize = 10;

/// What is at the end of the way.
pub(super) enum Arrival {
    Stream(Seen),
    /// The request was taken, and no head of an answer came.
    NoHead,
    /// Another answer.
    NoStream,
}

/// Follows redirects to the stream, where the visitor asks from then on, and
/// tells of them.
///
/// # Errors
/// When the first request finds nobody.
pub(super) fn arrive(visitor: &mut Visitor, report: &mut Report) -> Result<Arrival, Failure> {
    let mut hops: Vec<String> = Vec::new();
    let seen = loop {
        let seen = match visitor.get(&[]) {
            Ok(seen) => seen,
            Err(Error::Timeout(Timeout::RecvResponse)) => {
                report.add(Finding::failure(
                    "time_to_head",
                    format!(
                        "{} took the request and sent no head of an answer in time",
                        visitor.url
                    ),
                    "something on the way waits for the whole answer, which a stream never ends: \
                     switch off response buffering for this path (nginx: `proxy_buffering off`), \
                     and have the server send a first byte at once",
                ));
                return Ok(Arrival::NoHead);
            }
            Err(error) => return Err(unreachable(&visitor.url, &hops, &error)),
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
                "the addresses lead in a circle: give the stream's own",
            ));
            report.add(answer::nothing_else());
            return Ok(Arrival::NoStream);
        }
        let url = resolve(&visitor.url, target);
        let mut hop = format!("{} to {url}", seen.status());
        // What is for one server is not for whom it names: a token would be theirs.
        if origin(&url) != origin(&visitor.url) && !visitor.headers.is_empty() {
            visitor.headers.clear();
            hop.push_str(
                " (another origin, which is not sent what --header says: check it by itself)",
            );
        }
        hops.push(hop);
        visitor.url = url;
    };
    report.add(redirects(&hops));
    report.add(tls(visitor));
    if seen.is_stream() {
        report.add(answer::good());
        return Ok(Arrival::Stream(seen));
    }
    let (status, headers) = (seen.status(), seen.headers().clone());
    report.extend(answer::judge(
        status,
        &headers,
        &seen.beginning(visitor.clock),
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

/// Where a redirect leads, from the URL that gave it.
fn resolve(url: &str, target: &str) -> String {
    let target = target.split('#').next().unwrap_or_default();
    // A path or a query may have another URL in it, as those of log-ins do.
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

/// The scheme, host and port of a URL.
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
            "each reconnection goes all of this way again: give browsers the last address",
        ),
    }
}

fn tls(visitor: &Visitor) -> Finding {
    const CODE: &str = "tls";
    if !visitor.url.starts_with("https://") {
        return Finding::not_checked(CODE, "this is plain HTTP");
    }
    match visitor.agent.config().tls_config().disable_verification() {
        true => Finding::warning(
            CODE,
            "the certificate was not looked at, as --insecure says",
            "browsers do look at it: check with --cacert FILE",
        ),
        false => Finding::ok(CODE, "the certificate is good"),
    }
}

/// Other requests than a browser's for its own page.
pub(super) fn others(visitor: &Visitor, origin: Option<&str>) -> Vec<Finding> {
    let mut findings = vec![http_1_0(visitor), head_request(visitor)];
    let asked_from = origin.unwrap_or("https://pushwheel-check.invalid");
    findings.push(match visitor.get(&[("Origin", asked_from)]) {
        Ok(seen) => head::cors(origin, seen.headers()),
        Err(error) => Finding::not_checked("cors", error.to_string()),
    });
    if let Some(origin) = origin {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "last-event-id"),
        ];
        findings.push(match visitor.ask("OPTIONS", Version::HTTP_11, &headers) {
            Ok(seen) => head::preflight(origin, seen.status(), seen.headers()),
            Err(error) => Finding::not_checked("preflight", error.to_string()),
        });
    }
    findings
}

/// As nginx asks for it, unless it is told otherwise.
fn http_1_0(visitor: &Visitor) -> Finding {
    const CODE: &str = "http_1_0";
    const ADVICE: &str = "nginx asks in HTTP/1.0 unless it is told otherwise \
                          (`proxy_http_version 1.1`): answer it with a body that the connection's \
                          end delimits, and without `Transfer-Encoding`";
    let seen = match visitor.ask("GET", Version::HTTP_10, &[]) {
        Ok(seen) => seen,
        Err(error) => return Finding::warning(CODE, error.to_string(), ADVICE),
    };
    if !seen.is_stream() {
        return Finding::warning(CODE, status_and_type(&seen), ADVICE);
    }
    let coding = head::text(seen.headers(), "transfer-encoding");
    if !coding.is_empty() {
        let seen = format!("200, with `Transfer-Encoding: {coding}`");
        return Finding::warning(CODE, seen, ADVICE);
    }
    let Ok(mut tap) = Tap::new(seen, visitor.clock) else {
        return Finding::not_checked(CODE, "there is no thread to be had");
    };
    tap.await_first_byte();
    match tap.first_byte_at {
        Some(_) => Finding::ok(CODE, "streams too"),
        None => Finding::warning(CODE, "200, and no byte of the stream within 3 s", ADVICE),
    }
}

fn head_request(visitor: &Visitor) -> Finding {
    const CODE: &str = "head_request";
    let advice = "monitors ask with HEAD: answer it as GET, without the stream";
    match visitor.ask("HEAD", Version::HTTP_11, &[]) {
        Ok(seen) if seen.is_stream() => Finding::ok(CODE, "200, as GET is answered"),
        Ok(seen) => Finding::warning(CODE, status_and_type(&seen), advice),
        Err(error) => Finding::warning(CODE, error.to_string(), advice),
    }
}

/// What an answer has that should be a stream's.
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
    fn a_redirect_leads_from_where_it_was_given() {
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
