//! What `sub`, `pub` and `check` share: the client, and what a server's
//! refusal says.

use std::io::{self, ErrorKind};
use std::time::Duration;

use serde_json::Value;
use ureq::config::ConfigBuilder;
use ureq::http::Response;
use ureq::typestate::AgentScope;
use ureq::{Agent, Body, Error};

use super::Failure;

/// What a stream is asked for as, and is.
pub(super) const STREAM_TYPE: &str = "text/event-stream";

/// The `Cache-Control` of a request for a stream, as every `EventSource` sends it:
/// to it the server sends the id at which the stream begins.
pub(super) const STREAM_CACHING: &str = "no-cache";

/// How much of an answer that is no stream is read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// How much of it is shown.
pub(super) const BEGINNING_CHARS_MAX: usize = 200;

const NO_CHANNEL: &str = "there is nothing at this path: the URL of a channel is \
                          http://HOST:PORT/channels/NAME, with no `/` in NAME";

/// A client that gives answers of any status, and gives up on a server that
/// is silent for `silence`.
pub(super) fn agent(silence: Duration) -> Agent {
    Agent::new_with_config(config(silence).build())
}

/// How such a client is made, to be added to.
pub(super) fn config(silence: Duration) -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_recv_response(Some(Duration::from_secs(30)))
        .timeout_per_read(Some(silence))
}

/// Refuses what this command line cannot reach, before it is tried.
pub(super) fn check_url(url: &str) -> Result<(), Failure> {
    match url.starts_with("http://") || url.starts_with("https://") {
        true => Ok(()),
        false => Err(format!(
            "{url} is no URL of a channel: try http://127.0.0.1:8080/channels/news"
        )),
    }
}

/// The URL with a parameter more.
pub(super) fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let mark = if url.contains('?') { '&' } else { '?' };
    let value: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
    format!("{url}{mark}{name}={value}")
}

/// What to do about a server that cannot be asked.
pub(super) fn advice(url: &str, error: &Error) -> &'static str {
    let kind = match error {
        Error::Io(error) => Some(error.kind()),
        _ => None,
    };
    match error {
        _ if kind == Some(ErrorKind::ConnectionRefused) => {
            "nothing listens there: is the server running, and this its host and port?"
        }
        Error::HostNotFound => "check the spelling of its host",
        Error::Io(error) if is_of_a_name(error) => "check the spelling of its host",
        Error::BadUri(_) | Error::Http(_) => {
            "percent-encode what a URL cannot have (%20 for a space), and take line breaks out \
             of keys and ids"
        }
        Error::Timeout(_) => "the host is silent: check the address, and what is on the way to it",
        _ if url.starts_with("https://") => {
            "where the server speaks no TLS, as `pushwheel serve` by itself, ask by http://"
        }
        _ => "check the URL",
    }
}

/// What the system says of a name has no kind of its own.
fn is_of_a_name(error: &io::Error) -> bool {
    error.to_string().contains("lookup")
}

/// Whether it went wrong before anything of TLS could.
pub(super) fn is_before_tls(error: &io::Error) -> bool {
    error.kind() == ErrorKind::ConnectionRefused || is_of_a_name(error)
}

/// Whether a `Content-Type` is an event stream's, whatever its parameters.
pub(crate) fn is_stream_type(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(STREAM_TYPE)
}

pub(super) fn read_answer(answer: &mut Response<Body>) -> Result<String, Error> {
    let body = answer.body_mut().with_config();
    body.limit(ANSWER_BYTES_MAX).read_to_string()
}

/// What a refusal says: the message of its JSON, or its status.
pub(super) fn refusal(status: u16, body: &str) -> Failure {
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
pub(super) fn beginning(text: &str) -> String {
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
    fn only_http_is_spoken() {
        assert!(check_url("http://127.0.0.1/x").is_ok());
        assert!(check_url("https://h/x").is_ok());
        assert!(check_url("ftp://h/x").is_err());
        assert!(check_url("news").is_err());
    }
}
