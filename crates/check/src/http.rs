//! What `sub`, `pub` and `check` share: the client, the reasons why it cannot
//! connect, and what a server's refusal says.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
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

/// What a stream is asked for as, and is.
pub const STREAM_TYPE: &str = "text/event-stream";

/// The `Cache-Control` of a request for a stream, as every `EventSource` sends it:
/// to it the server sends the id at which the stream begins.
pub const STREAM_CACHING: &str = "no-cache";

/// How much of an answer that is no stream is read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// How much of it is shown.
pub const BEGINNING_CHARS_MAX: usize = 200;

const NO_CHANNEL: &str = "there is nothing at this path: the URL of a channel is \
                          http://HOST:PORT/channels/NAME, with no `/` in NAME";

/// Which certificates of servers are accepted.
#[derive(Debug, Args)]
pub struct TlsArguments {
    /// A file with certificates (PEM) to trust instead of the web's.
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,

    /// Accept any certificate.
    #[arg(long, conflicts_with = "cacert")]
    insecure: bool,
}

impl TlsArguments {
    fn config(&self) -> Result<TlsConfig, Failure> {
        let tls = TlsConfig::builder().disable_verification(self.insecure);
        let Some(path) = &self.cacert else {
            return Ok(tls.build());
        };
        let pem = fs::read(path).map_err(|error| {
            let (path, advice) = (path.display(), files::advice_to_read(&error));
            format!("cannot read --cacert {path}: {error}: {advice}")
        })?;
        let certificates = parse_pem(&pem).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        });
        let certificates: Vec<Certificate<'static>> = certificates.collect();
        if certificates.is_empty() {
            let path = path.display();
            return Err(format!(
                "--cacert {path} has no certificate. Use a PEM file"
            ));
        }
        let roots = RootCerts::from(certificates.into_iter());
        Ok(tls.root_certs(roots).build())
    }
}

/// Returns a client that gives answers of any status, and gives up on a server
/// that is silent for `silence`.
///
/// # Errors
/// When the certificates to trust cannot be read.
pub fn agent(silence: Duration, tls: &TlsArguments) -> Result<Agent, Failure> {
    Ok(Agent::new_with_config(config(silence, tls)?.build()))
}

/// Returns how such a client is made, to be added to.
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

/// Checks that a URL is one that the command line can reach.
///
/// # Errors
/// When the URL begins with neither `http://` nor `https://`.
pub fn check_url(url: &str) -> Result<(), Failure> {
    match url.starts_with("http://") || url.starts_with("https://") {
        true => Ok(()),
        false => Err(format!(
            "{url} is no URL of a channel: try http://127.0.0.1:8080/channels/news"
        )),
    }
}

/// The URL with a parameter more.
pub fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let mark = if url.contains('?') { '&' } else { '?' };
    let value: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
    format!("{url}{mark}{name}={value}")
}

/// Returns why a server cannot be asked, and what to do about it: `(cause). Fix`.
pub fn reason(error: &Error) -> String {
    let (cause, fix) = match error {
        Error::HostNotFound => ("unknown host", CHECK_HOST),
        Error::BadUri(_) | Error::Http(_) => (
            "this is not a URL",
            "Percent-encode what a URL cannot have (%20 for a space), and take line breaks out of \
             keys and ids",
        ),
        Error::Timeout(_) => (
            "no answer in time",
            "Check the address, and the network between",
        ),
        Error::Rustls(error) => reason_of_tls(error),
        Error::Io(error) => match of_tls(error) {
            Some(error) => reason_of_tls(error),
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
        // What the system says of a name has no kind of its own.
        _ if error.to_string().contains("lookup") => format!("(unknown host). {CHECK_HOST}"),
        ErrorKind::UnexpectedEof => {
            "(the server closed the connection). Check the URL, and the server's log".into()
        }
        _ => format!("({error}). Check the URL"),
    }
}

/// The error of TLS in one of reading or writing.
fn of_tls(error: &io::Error) -> Option<&TlsError> {
    error.get_ref()?.downcast_ref()
}

fn reason_of_tls(error: &TlsError) -> (&'static str, &'static str) {
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
            "Use a name in the URL that the certificate has",
        ),
        // It has no name of its own; `openssl req -x509` makes such certificates.
        TlsError::InvalidCertificate(other)
            if format!("{other:?}").contains("CaUsedAsEndEntity") =>
        {
            (
                "the server's certificate is that of an authority (CA:TRUE)",
                "Make one for a server, with basicConstraints=CA:FALSE, or pass --insecure",
            )
        }
        TlsError::InvalidCertificate(_) => (
            "the server's certificate is not trusted",
            "Pass the certificate of its authority with --cacert FILE, or --insecure to accept any",
        ),
        TlsError::InvalidMessage(_) => (
            "the server does not speak TLS",
            "Use http:// in the URL, as for `pushwheel serve` without a proxy",
        ),
        TlsError::PeerIncompatible(_) => (
            "the server and this program share no version of TLS",
            "Enable TLS 1.2 or 1.3 on the server",
        ),
        _ => (
            "the TLS handshake failed",
            "Check the host name, and the TLS settings and the log of the server",
        ),
    }
}

/// Whether a `Content-Type` is an event stream's, whatever its parameters.
pub fn is_stream_type(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(STREAM_TYPE)
}

/// Reads the body of an answer, at most 1 MiB of it.
///
/// # Errors
/// When the body is larger, or the connection fails.
pub fn read_answer(answer: &mut Response<Body>) -> Result<String, Error> {
    let body = answer.body_mut().with_config();
    body.limit(ANSWER_BYTES_MAX).read_to_string()
}

/// What a refusal says: the message of its JSON, or its status.
pub fn refusal(status: u16, body: &str) -> Failure {
    let error: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |name| error["error"][name].as_str();
    match (text("code"), text("message")) {
        (Some("not_found"), Some(_)) => {
            format!("{NO_CHANNEL} ({status} not_found)")
        }
        (Some(code), Some(message)) => format!("{message} ({status} {code})"),
        _ => format!(
            "the server answered {status}, and not as pushwheel does: check the URL. It said: {}",
            beginning(body)
        ),
    }
}

/// What begins a text, in one line: a proxy's page may be long.
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
    fn a_refusal_is_the_servers_message() {
        let body = r#"{"error": {"code": "gone", "message": "it is gone: do x"}}"#;
        assert_eq!(refusal(404, body), "it is gone: do x (404 gone)");
        let page = refusal(502, "<h1>bad\n gateway</h1>\n");
        assert!(page.ends_with("It said: <h1>bad gateway</h1>"), "{page}");
        assert!(refusal(502, &"ä".repeat(300)).ends_with("ä …"));
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
    fn only_http_is_spoken() {
        assert!(check_url("http://127.0.0.1/x").is_ok());
        assert!(check_url("https://h/x").is_ok());
        assert!(check_url("ftp://h/x").is_err());
        assert!(check_url("news").is_err());
    }
}
