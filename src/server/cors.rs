//! Cross-origin requests: which pages may read what is answered.
//!
//! Without a list pages of any origin may, by `*`, for which browsers send no
//! cookies. With a list an origin that is on it is named in the answer, and may
//! send cookies; any other gets no such header, so its browser keeps the answer
//! from it. `*` and cookies never come together.

use std::fmt;
use std::str::FromStr;

use super::live::Live;
use crate::{EngineBuilder, HeaderError, Method, Request, Response};

/// For how long a browser may remember the answer to a preflight: a day, of
/// which Chromium takes two hours.
const PREFLIGHT_MAX_AGE_S: &str = "86400";
const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";
/// An origin that no page has (RFC 6761 section 6.4). It takes the place of the
/// `*` with which a server started that has a list since a reload.
const NOBODY: &str = "https://nobody.invalid";
const EXPOSED: &str = "Allow, Last-Event-ID, Retry-After, WWW-Authenticate";

/// An origin whose pages may read: `https://app.example`, or, for all names
/// below one, `https://*.app.example`.
///
/// ```
/// use pushwheel::server::AllowedOrigin;
///
/// let origin: AllowedOrigin = "https://app.example:8443".parse()?;
/// assert!("https://app.example/page".parse::<AllowedOrigin>().is_err());
/// # Ok::<(), pushwheel::server::OriginError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedOrigin {
    /// `https`
    scheme: Box<str>,
    /// `app.example:8443`, or what names below end with: `.app.example`.
    authority: Box<str>,
    is_below: bool,
}

/// A text that is no origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginError;

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an origin is a scheme, a host and a port unless it is the scheme's own, in small \
             letters and without a path, as `https://app.example` or `http://localhost:3000`; \
             `https://*.app.example` is all names below",
        )
    }
}

impl std::error::Error for OriginError {}

impl FromStr for AllowedOrigin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<AllowedOrigin, OriginError> {
        let (scheme, authority) = text.split_once("://").ok_or(OriginError)?;
        let below = authority.strip_prefix('*');
        let authority = below.unwrap_or(authority);
        let is_host = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte)
        };
        // A browser leaves out the port that is the scheme's own.
        let has_own_port = match scheme {
            "http" => authority.ends_with(":80"),
            "https" => authority.ends_with(":443"),
            _ => false,
        };
        let is_scheme = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_lowercase());
        let is_origin = is_scheme
            && !authority.is_empty()
            && authority.bytes().all(is_host)
            && !has_own_port
            && (below.is_some() == authority.starts_with('.'))
            && authority != ".";
        match is_origin {
            true => Ok(AllowedOrigin {
                scheme: scheme.into(),
                authority: authority.into(),
                is_below: below.is_some(),
            }),
            false => Err(OriginError),
        }
    }
}

impl AllowedOrigin {
    /// Whether a browser's `Origin` is this one.
    fn is(&self, origin: &str) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else {
            return false;
        };
        let is_authority = match self.is_below {
            true => authority
                .strip_suffix(&*self.authority)
                .is_some_and(|name| !name.is_empty()),
            false => *self.authority == *authority,
        };
        *self.scheme == *scheme && is_authority
    }
}

/// Whose pages may read.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins {
    /// None: everybody's, without cookies.
    listed: Vec<AllowedOrigin>,
}

impl FromIterator<AllowedOrigin> for Origins {
    fn from_iter<I: IntoIterator<Item = AllowedOrigin>>(origins: I) -> Origins {
        Origins {
            listed: origins.into_iter().collect(),
        }
    }
}

impl Origins {
    fn are_all(&self) -> bool {
        self.listed.is_empty()
    }

    /// Whether an origin was named.
    pub(super) fn is_listed(&self, origin: &str) -> bool {
        self.listed.iter().any(|listed| listed.is(origin))
    }

    /// Whether a cookie counts that comes with a request of this origin to this
    /// host: of pages that were served from here, or that were named.
    pub(super) fn may_have_cookies(&self, origin: &str, host: &str) -> bool {
        // Behind a proxy the scheme is not known here. A page of `http` on this
        // very host and port is taken for one of `https`.
        let is_own = origin
            .split_once("://")
            .is_some_and(|(_, own)| !own.is_empty() && own.eq_ignore_ascii_case(host));
        self.is_listed(origin) || is_own
    }

    /// Says in an answer whether this page may read it.
    fn mark(&self, request: &Request, response: &mut Response) -> Result<(), HeaderError> {
        let headers = response.headers_mut();
        if self.are_all() {
            headers.insert(ALLOW_ORIGIN, "*")?;
            return headers.insert("Access-Control-Expose-Headers", EXPOSED);
        }
        // A cache must not give one page's answer to another.
        headers.append("Vary", "Origin")?;
        let origin = request.header("origin");
        if let Some(origin) = origin.filter(|origin| self.is_listed(origin)) {
            headers.insert(ALLOW_ORIGIN, origin.to_owned())?;
            headers.insert("Access-Control-Allow-Credentials", "true")?;
            headers.insert("Access-Control-Expose-Headers", EXPOSED)?;
        }
        Ok(())
    }
}

/// Adds what browsers ask for. Of a request that was not understood nobody knows
/// whose page it is from: the answer has `*` if the server starts without a list,
/// else nothing.
pub(super) fn install(engine: EngineBuilder, live: &Live) -> EngineBuilder {
    let starts_open = live.rules().access.origins().are_all();
    let engine = match starts_open {
        true => engine
            .header(ALLOW_ORIGIN, "*")
            .expect("this can be a header"),
        false => engine,
    };
    let live = live.clone();
    engine.before(preflight).after(move |request, response| {
        let rules = live.rules();
        let marked = rules.access.origins().mark(request, response);
        marked.expect("what came in a header can go in one");
        if starts_open && response.headers().get(ALLOW_ORIGIN).is_none() {
            let set = response.headers_mut().insert(ALLOW_ORIGIN, NOBODY);
            set.expect("this can be a header");
        }
    })
}

/// Answers a preflight, whatever path it is for.
fn preflight(request: &Request) -> Option<Response> {
    let is_preflight = *request.method() == Method::Options
        && request.header("origin").is_some()
        && request.header("access-control-request-method").is_some();
    is_preflight.then(|| allow().expect("these can be headers"))
}

fn allow() -> Result<Response, HeaderError> {
    Response::status(204)
        .with_header(
            "Access-Control-Allow-Methods",
            "GET, HEAD, POST, DELETE, OPTIONS",
        )?
        .with_header(
            "Access-Control-Allow-Headers",
            "Last-Event-ID, Authorization, Cache-Control, Content-Type",
        )?
        .with_header("Access-Control-Max-Age", PREFLIGHT_MAX_AGE_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(texts: &[&str]) -> Origins {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for bad in [
            "",
            "*",
            "null",
            "app.example",
            "https://",
            "https://*",
            "https://*.",
            "https://*app.example",
            "https://.app.example",
            "https://app.example/",
            "https://app.example/page",
            "https://App.example",
            "HTTPS://app.example",
            "https://app.example:443",
            "http://app.example:80",
            "https://a b",
            "https://a@b",
            "://app.example",
        ] {
            assert_eq!(bad.parse::<AllowedOrigin>(), Err(OriginError), "{bad}");
        }
    }

    #[test]
    fn an_origin_is_listed_as_a_whole() {
        let listed = origins(&[
            "https://app.example",
            "http://localhost:3000",
            "https://*.wide.example",
            "http://[::1]:8080",
        ]);
        for origin in [
            "https://app.example",
            "http://localhost:3000",
            "https://a.wide.example",
            "https://a.b.wide.example",
            "http://[::1]:8080",
        ] {
            assert!(listed.is_listed(origin), "{origin}");
        }
        for origin in [
            "",
            "null",
            "http://app.example",
            "https://app.example:8443",
            "https://app.example.evil.example",
            "https://evil-app.example",
            "https://wide.example",
            "https://.wide.example",
            "https://evilwide.example",
            "http://a.wide.example",
            "http://localhost",
        ] {
            assert!(!listed.is_listed(origin), "{origin}");
        }
    }

    #[test]
    fn cookies_are_for_listed_pages_and_the_servers_own() {
        let listed = origins(&["https://app.example"]);
        let host = "push.example";
        assert!(listed.may_have_cookies("https://app.example", host));
        for origins in [&listed, &Origins::default()] {
            assert!(origins.may_have_cookies("https://push.example", host));
            assert!(origins.may_have_cookies("http://127.0.0.1:8080", "127.0.0.1:8080"));
            for foreign in [
                "null",
                "",
                "https://evil.example",
                "https://push.example:8443",
                "https://push.example.evil.example",
            ] {
                assert!(!origins.may_have_cookies(foreign, host), "{foreign}");
            }
            assert!(!origins.may_have_cookies("https://", ""), "no host");
        }
    }
}
