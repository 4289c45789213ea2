//! The HTTP client of `sub`, `pub` and `check`: connecting, and error messages.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rustls::{CertificateError, Error as TlsError};
use serde_json::Value;
use ureq::config::ConfigBuilder;
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::typestate::AgentScope;
use ureq::{Agent, Body, Error};

use super::command::Failure;
use super::files;

/// The media type of an event stream.
pub const STREAM_TYPE: &str = "text/event-stream";

/// The `Cache-Control` of a request for a stream, as every `EventSource` sends it. The
/// server then sends the id at which the stream begins.
pub const STREAM_CACHING: &str = "no-cache";

/// The maximum size of a response that is not a stream, in bytes.
const RESPONSE_BYTES_MAX: u64 = 1 << 20;

/// The number of characters of a response that messages contain.
pub const BEGINNING_CHARS_MAX: usize = 200;

const NO_CHANNEL: &str = "this is not the URL of a channel. Use \
                          http://HOST:PORT/channels/NAME, without `/` in NAME";

/// The option of a command for its credential.
#[derive(Clone, Copy, Debug)]
pub enum Credential {
    /// `--publish-key`
    PublishKey,
    /// `--token`
    Token,
}

impl Credential {
    fn fix(self) -> &'static str {
        match self {
            Credential::PublishKey => {
                "Pass the right one with --publish-key, or set PUSHWHEEL_PUBLISH_KEY"
            }
            Credential::Token => "Pass the right one with --token, or set PUSHWHEEL_TOKEN",
        }
    }
}

/// The server certificates to accept.
#[derive(Debug, Args)]
pub struct TlsArguments {
    /// File with certificates to trust (PEM), instead of the public ones
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,

    /// Accept any server certificate
    #[arg(long, conflicts_with = "cacert")]
    insecure: bool,
}

impl TlsArguments {
    /// Returns the file of certificates to trust, for connections that are not HTTP.
    ///
    /// # Errors
    /// When any certificate would be accepted.
    #[cfg(feature = "redis")]
    pub(crate) fn authorities(&self) -> Result<Option<PathBuf>, Failure> {
        match self.insecure {
            false => Ok(self.cacert.clone()),
            true => Err("a broker is always verified. Use --cacert instead of --insecure".into()),
        }
    }

    fn config(&self) -> Result<TlsConfig, Failure> {
        let tls = TlsConfig::builder().disable_verification(self.insecure);
        Ok(match &self.cacert {
            Some(path) => tls.root_certs(certificates("--cacert", path)?).build(),
            None => tls.build(),
        })
    }
}

/// Reads the certificates to trust from the PEM file of an option.
///
/// # Errors
/// When it cannot be read, or has no certificate.
pub fn certificates(option: &str, path: &Path) -> Result<RootCerts, Failure> {
    let pem = fs::read(path).map_err(|error| {
        let (path, reason) = (path.display(), files::reason_to_read(&error));
        format!("cannot read {option} {path} {reason}")
    })?;
    let certificates = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<Certificate<'static>> = certificates.collect();
    if certificates.is_empty() {
        let path = path.display();
        return Err(format!(
            "{option} {path} has no certificate. Use a PEM file"
        ));
    }
    Ok(RootCerts::from(certificates.into_iter()))
}

/// Returns a client that accepts responses of any status. A read fails after `silence`
/// without data.
///
/// # Errors
/// When the certificates to trust cannot be read.
pub fn agent(silence: Duration, tls: &TlsArguments) -> Result<Agent, Failure> {
    Ok(Agent::new_with_config(config(silence, tls)?.build()))
}

/// Returns the configuration of such a client.
///
/// # Errors
/// As [`agent`].
pub fn config(silence: Duration, tls: &TlsArguments) -> Result<ConfigBuilder<AgentScope>, Failure> {
    Ok(Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_recv_response(Some(Duration::from_secs(30)))
        .timeout_per_read(Some(silence))
        .tls_config(tls.config()?))
}

/// Checks the scheme of a URL.
///
/// # Errors
/// When the URL begins with neither `http://` nor `https://`.
pub fn check_url(url: &str) -> Result<(), Failure> {
    match url.starts_with("http://") || url.starts_with("https://") {
        true => Ok(()),
        false => Err(format!(
            "{url} is not a URL with http:// or https://. Use for example {}",
            suggestion(url)
        )),
    }
}

/// Returns a URL for one without a scheme, or else an example.
fn suggestion(url: &str) -> String {
    match url.split_once('/') {
        Some((host, _)) if host.contains([':', '.']) && !url.contains("://") => {
            format!("http://{url}")
        }
        _ => "http://127.0.0.1:8080/channels/news".to_owned(),
    }
}

/// Returns a URL with one more parameter.
pub fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let mark = if url.contains('?') { '&' } else { '?' };
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect();
    let (name, value): (String, String) = (encoded(name), encoded(value));
    format!("{url}{mark}{name}={value}")
}

/// Returns the cause and the fix of a failed request: `(cause). Fix`.
pub fn reason(error: &Error) -> String {
    let trust = "Pass the certificate of its CA with --cacert FILE, or --insecure to accept any";
    reason_with(error, trust)
}

/// Returns the same, with the fix for a certificate that is not trusted.
pub fn reason_with(error: &Error, trust: &'static str) -> String {
    let (cause, fix) = match error {
        Error::HostNotFound => ("unknown host", CHECK_HOST),
        Error::BadUri(_) | Error::Http(_) => (
            "invalid URL or header",
            "Percent-encode special characters in the URL (%20 for a space), and remove line \
             breaks from keys and ids",
        ),
        Error::Timeout(_) => ("timeout", "Check the address, and the network on the way"),
        Error::Rustls(error) => reason_of_tls(error, trust),
        Error::Io(error) => match of_tls(error) {
            Some(error) => reason_of_tls(error, trust),
            None => return reason_of_io(error),
        },
        other => return format!("({other}). Check the URL"),
    };
    format!("({cause}). {fix}")
}

const CHECK_HOST: &str = "Check the spelling of the host";

fn reason_of_io(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            "(connection refused). Is the server running, and are its host and port right?".into()
        }
        // A failed lookup has no error kind of its own.
        _ if error.to_string().contains("lookup") => format!("(unknown host). {CHECK_HOST}"),
        ErrorKind::UnexpectedEof => {
            "(the server closed the connection). Check the URL, and the log of the server".into()
        }
        _ => format!("({error}). Check the URL"),
    }
}

/// Returns the TLS error inside an I/O error, if any.
fn of_tls(error: &io::Error) -> Option<&TlsError> {
    error.get_ref()?.downcast_ref()
}

fn reason_of_tls(error: &TlsError, trust: &'static str) -> (&'static str, &'static str) {
    match error {
        TlsError::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => (
            "the server's certificate has expired",
            "Renew it on the server",
        ),
        TlsError::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => (
            "the server's certificate is not valid yet",
            "Check the clocks of both machines",
        ),
        TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => (
            "the server's certificate is for another host name",
            "Use a host name of the certificate in the URL",
        ),
        // rustls has no variant for it. `openssl req -x509` creates such certificates.
        TlsError::InvalidCertificate(other)
            if format!("{other:?}").contains("CaUsedAsEndEntity") =>
        {
            (
                "the server's certificate is a CA certificate (CA:TRUE)",
                "Create one for the server, with basicConstraints=CA:FALSE, or pass --insecure",
            )
        }
        TlsError::InvalidCertificate(_) => ("the server's certificate is not trusted", trust),
        TlsError::InvalidMessage(_) => (
            "the server does not speak TLS",
            "Use http:// in the URL, as for `pushwheel serve` without a proxy",
        ),
        TlsError::PeerIncompatible(_) => (
            "the server supports no common version of TLS",
            "Enable TLS 1.2 or 1.3 on the server",
        ),
        _ => (
            "the TLS handshake failed",
            "Check the host name, and the TLS settings of the server",
        ),
    }
}

/// Returns whether a `Content-Type` is that of an event stream, with any parameters.
pub fn is_stream_type(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(STREAM_TYPE)
}

/// Reads the body of a response, at most 1 MiB of it.
///
/// # Errors
/// When the body is larger, or the connection fails.
pub fn read_response(response: &mut Response<Body>) -> Result<String, Error> {
    let body = response.body_mut().with_config();
    body.limit(RESPONSE_BYTES_MAX).read_to_string()
}

/// Returns the error message for a rejected request: the server's, with the fix for the
/// command line where the credential is wrong.
pub fn rejection(status: u16, body: &str, credential: Credential) -> Failure {
    let error: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |name| error["error"][name].as_str();
    let (Some(code), Some(message)) = (text("code"), text("message")) else {
        return format!(
            "the server returned {status}, and not a response of pushwheel. Check the URL. It \
             begins with: {}",
            beginning(body)
        );
    };
    let cause = message.split(". ").next().unwrap_or(message);
    match code {
        "not_found" | "method_not_allowed" => format!("{NO_CHANNEL} ({status} {code})"),
        "key_missing" | "key_wrong" | "token_missing" | "token_invalid" | "token_expired" => {
            format!("{cause}. {} ({status} {code})", credential.fix())
        }
        _ => format!("{message} ({status} {code})"),
    }
}

/// Returns the beginning of a text, in one line: the page of a proxy may be long.
pub fn beginning(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(BEGINNING_CHARS_MAX) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_encoded_and_appended() {
        let url = with_parameter("http://h/channels/a", "client", "a b&c");
        assert_eq!(url, "http://h/channels/a?client=a+b%26c");
        assert_eq!(
            with_parameter(&url, "last", "3"),
            "http://h/channels/a?client=a+b%26c&last=3"
        );
    }

    #[test]
    fn a_rejection_has_the_servers_cause_and_the_commands_fix() {
        let rejected = |status, body: &str| rejection(status, body, Credential::Token);
        let body = r#"{"error": {"code": "gone", "message": "it is gone. Do x"}}"#;
        assert_eq!(rejected(404, body), "it is gone. Do x (404 gone)");
        let body = r#"{"error": {"code": "token_expired", "message": "it has expired. Do y"}}"#;
        let wanted = "it has expired. Pass the right one with --token, or set PUSHWHEEL_TOKEN \
                      (401 token_expired)";
        assert_eq!(rejected(401, body), wanted);
        let page = rejected(502, "<h1>bad\n gateway</h1>\n");
        assert!(
            page.ends_with("It begins with: <h1>bad gateway</h1>"),
            "{page}"
        );
        assert!(rejected(502, &"ä".repeat(300)).ends_with("ä …"));
    }

    #[test]
    fn a_reason_is_a_cause_and_a_fix_without_debug_output() {
        let io = |kind: ErrorKind| Error::Io(kind.into());
        let invalid = |error| TlsError::InvalidCertificate(error);
        let within_io = Error::Io(io::Error::new(
            ErrorKind::InvalidData,
            invalid(CertificateError::UnknownIssuer),
        ));
        for (error, wanted) in [
            (
                io(ErrorKind::ConnectionRefused),
                "(connection refused). Is the server",
            ),
            (
                io(ErrorKind::UnexpectedEof),
                "(the server closed the connection). ",
            ),
            (Error::HostNotFound, "(unknown host). Check"),
            (within_io, "(the server's certificate is not trusted). Pass"),
            (
                Error::Rustls(invalid(CertificateError::Expired)),
                "(the server's certificate has expired). Renew",
            ),
            (
                Error::Rustls(invalid(CertificateError::NotValidForName)),
                "(the server's certificate is for another host name). Use",
            ),
            (
                Error::Rustls(TlsError::HandshakeNotComplete),
                "(the TLS handshake failed). Check",
            ),
        ] {
            let reason = reason(&error);
            assert!(reason.starts_with(wanted), "{reason}");
            assert!(!reason.contains("Error"), "{reason}");
        }
    }

    #[test]
    fn only_http_urls_are_accepted() {
        assert!(check_url("http://127.0.0.1/x").is_ok());
        assert!(check_url("https://h/x").is_ok());
        assert!(check_url("ftp://h/x").is_err());
        let example = "Use for example http://127.0.0.1:8080/channels/news";
        assert!(check_url("news").unwrap_err().ends_with(example));
        let error = check_url("host:1/channels/a").unwrap_err();
        assert!(
            error.ends_with("Use for example http://host:1/channels/a"),
            "{error}"
        );
    }
}
