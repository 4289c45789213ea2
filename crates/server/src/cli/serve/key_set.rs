//! `--token-jwks-url`: a key set that is fetched in the background.
//!
//! The last good set stays valid while fetches fail: an identity provider that is down for an
//! hour disconnects no client. The set is public, so a secret in it is left out.

use std::io;
use std::path::Path;
use std::thread::{self, Thread};
use std::time::Duration;

use pushwheel_check::http;
use pushwheel_server::{Reloader, TokenKeys};
use ureq::http::Uri;
use ureq::tls::TlsConfig;
use ureq::{Agent, Error};

use crate::cli::Failure;

/// Maximum time of a fetch.
const FETCH_MAX: Duration = Duration::from_secs(10);
/// Maximum bytes of a key set. A key of RSA with 4096 bits takes about 1 KB, with a
/// certificate some more.
const SET_BYTES_MAX: u64 = 512 << 10;
/// Maximum time between two fetches while they fail.
const RETRY_MAX: Duration = Duration::from_secs(10);

const TRUST: &str = "Pass the certificate of its CA with --token-jwks-cacert FILE";

/// A key set, by its URL.
#[derive(Debug)]
pub(crate) struct KeySet {
    url: String,
    agent: Agent,
    /// The issuers that the keys are limited to.
    issuers: Vec<String>,
    /// The text of the last good set.
    last: Option<String>,
    is_failing: bool,
}

impl KeySet {
    /// Returns a key set that is not fetched yet.
    ///
    /// # Errors
    /// If other programs could replace the keys on the way, because the URL has no TLS, or
    /// the certificates to trust cannot be read.
    pub(super) fn new(
        url: &str,
        cacert: Option<&Path>,
        issuers: Vec<String>,
    ) -> Result<KeySet, (&'static str, Failure)> {
        let is_local = check_url(url).map_err(|failure| ("token_jwks_url", failure))?;
        let mut tls = TlsConfig::builder();
        if let Some(path) = cacert {
            let roots = http::certificates("--token-jwks-cacert", path);
            tls = tls.root_certs(roots.map_err(|failure| ("token_jwks_cacert", failure))?);
        }
        let mut config = Agent::config_builder()
            .https_only(!is_local)
            .timeout_global(Some(FETCH_MAX))
            .tls_config(tls.build());
        if is_local {
            // The variables of a proxy are for other machines, and a redirect could lead
            // to another machine without TLS.
            config = config.proxy(None).max_redirects(0);
        }
        Ok(KeySet {
            url: url.to_owned(),
            agent: Agent::new_with_config(config.build()),
            issuers,
            last: None,
            is_failing: false,
        })
    }

    /// Fetches the set. Returns its text and its keys.
    pub(crate) fn fetch(&self) -> Result<(String, TokenKeys), Failure> {
        let failed = |reason: &str| format!("cannot fetch {} {reason}", self.name());
        let asked = self.agent.get(&self.url).call();
        let text = asked.and_then(|mut response| match response.status().as_u16() {
            200 => {
                let body = response.body_mut().with_config();
                body.limit(SET_BYTES_MAX).read_to_string()
            }
            // A redirect that is not followed.
            status => Err(Error::StatusCode(status)),
        });
        let text = text.map_err(|error| {
            failed(&match error {
                Error::StatusCode(status) => {
                    format!("(the response has the status {status}). Check the URL")
                }
                Error::BodyExceedsLimit(bytes) => {
                    format!("(the key set is larger than {bytes} bytes). Check the URL")
                }
                error => http::reason_with(&error, TRUST),
            })
        })?;
        let keys = TokenKeys::public_jwks(&text);
        let keys = keys.map_err(|error| failed(&format!("({error})")))?;
        let issued_by = |keys: TokenKeys, issuer: &String| keys.issued_by(issuer);
        Ok((text, self.issuers.iter().fold(keys, issued_by)))
    }

    /// Fetches the set, and passes it to the server if it has changed.
    pub(super) fn update(&mut self, reloader: &Reloader) {
        let fetched = self.fetch();
        reloader.count_token_key_fetch(fetched.is_ok());
        match fetched {
            Ok((text, keys)) => {
                if self.last.as_ref() != Some(&text) {
                    log::info!(
                        "fetched {} keys for tokens from {}",
                        keys.count(),
                        self.name()
                    );
                    reloader.set_fetched_token_keys(keys);
                    self.last = Some(text);
                } else if self.is_failing {
                    log::info!("fetched {} again, the keys have not changed", self.name());
                }
                self.is_failing = false;
            }
            Err(failure) => {
                // Once, not every ten seconds.
                if !self.is_failing {
                    let effect = match self.last {
                        Some(_) => "The last keys stay valid",
                        None => "Until it is fetched, tokens of its keys are answered 503",
                    };
                    log::error!("{failure}. {effect}");
                }
                self.is_failing = true;
            }
        }
    }

    /// Updates it on a thread of its own, at `interval` and when the thread is unparked.
    pub(super) fn keep_updated(
        mut self,
        reloader: Reloader,
        interval: Duration,
    ) -> io::Result<Thread> {
        let update = move || {
            loop {
                let pause = match self.is_failing {
                    true => interval.min(RETRY_MAX),
                    false => interval,
                };
                thread::park_timeout(pause);
                self.update(&reloader);
            }
        };
        let thread = thread::Builder::new().name("pushwheel-keys".into());
        Ok(thread.spawn(update)?.thread().clone())
    }

    /// Returns the URL without its query, which may contain a secret.
    fn name(&self) -> &str {
        self.url.split(['?', '#']).next().unwrap_or_default()
    }
}

/// Checks the URL. Returns whether it is without TLS, which only loopback may be.
fn check_url(url: &str) -> Result<bool, Failure> {
    let failed = |why: &str| {
        format!("--token-jwks-url {why}. Use for example https://idp.example/.well-known/jwks.json")
    };
    let parsed: Uri = url.parse().map_err(|_| failed("is not a URL"))?;
    let host = parsed.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<std::net::IpAddr>();
    let is_loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    match parsed.scheme_str() {
        _ if host.is_empty() => Err(failed("has no host")),
        Some("https") => Ok(false),
        Some("http") if is_loopback => Ok(true),
        Some("http") => Err(failed(
            "needs https, because other programs could replace the keys on the way",
        )),
        _ => Err(failed("is not a URL with https")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_needs_no_tls() {
        for (url, is_local) in [
            ("https://idp.example/jwks", false),
            ("https://127.0.0.1/jwks", false),
            ("http://127.0.0.1:9000/jwks", true),
            ("http://[::1]:9000/jwks", true),
            ("http://localhost/jwks", true),
        ] {
            assert_eq!(check_url(url), Ok(is_local), "{url}");
        }
        for (url, part) in [
            ("http://idp.example/jwks", "needs https"),
            ("http://127.0.0.1.evil.example/jwks", "needs https"),
            ("ftp://idp.example/jwks", "not a URL with https"),
            ("/etc/keys.json", "has no host"),
            ("https://", "not a URL"),
            ("", "not a URL"),
        ] {
            let error = check_url(url).unwrap_err();
            assert!(error.contains(part), "{url}: {error}");
        }
    }
}
