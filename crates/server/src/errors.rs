//! Every error of the server, with the status, code and message of its response. The codes
//! are part of the interface: they never change.

mod refused;

use std::fmt::Display;

use super::access::Refused;
use super::limits::{CONDITIONS_MAX, PUBLISH_CHANNELS_MAX, STREAM_CHANNELS_MAX};
use super::metadata::MetadataTooLarge;
use pushwheel::{BodyError, ChannelError, IntoResponse, PublishError, Response};

pub(super) use refused::{PROXY_FIX, message as refusal_text};

/// The codes that the server adds to the engine's, for the metrics. A test checks that the
/// list is complete.
pub(crate) const CODES: &[&str] = &[
    "batch_empty",
    "broker_unavailable",
    "busy",
    "channel_missing",
    "channel_not_allowed",
    "channel_not_conflating",
    "channel_not_found",
    "charset_unsupported",
    "client_id_invalid",
    "client_not_found",
    "cluster_unsupported",
    "conditions_too_many",
    "draining",
    "encoding_unsupported",
    "host_not_allowed",
    "idempotency_key_invalid",
    "if_match_invalid",
    "invalid_event",
    "invalid_json",
    "key_missing",
    "key_wrong",
    "metadata_too_large",
    "not_ready",
    "origin_not_allowed",
    "parameter_invalid",
    "parameter_misplaced",
    "parameter_missing",
    "parameter_unknown",
    "pattern_invalid",
    "proxy_not_trusted",
    "publish_channels_too_many",
    "retry_not_allowed",
    "stream_channels_too_many",
    "stream_type_unsupported",
    "target_ambiguous",
    "target_without_channel",
    "ticket_channels_missing",
    "ticket_not_allowed",
    "ticket_too_large",
    "ticket_unknown",
    "token_audience",
    "token_expired",
    "token_invalid",
    "token_issuer",
    "token_keys_missing",
    "token_missing",
    "token_not_yet_valid",
    "too_many_forged",
    "too_many_tickets",
    "too_many_wrong_keys",
];

/// The reason why a request fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    Channel(ChannelError),
    Publish(PublishError),
    Body(BodyError),
    Refused(Refused),
    Request {
        status: u16,
        code: &'static str,
        message: String,
    },
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        match self {
            Problem::Channel(error) => error.into_response(),
            Problem::Publish(error) => error.into_response(),
            Problem::Body(error) => error.into_response(),
            Problem::Refused(refused) => refused::response(&refused),
            Problem::Request {
                status,
                code,
                message,
            } => Response::error(status, code, &message),
        }
    }
}

impl From<ChannelError> for Problem {
    fn from(error: ChannelError) -> Self {
        Problem::Channel(error)
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        Problem::Publish(error)
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        Problem::Body(error)
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        Problem::Refused(refused)
    }
}

impl Problem {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Problem {
        Problem::Request {
            status,
            code,
            message: message.into(),
        }
    }

    /// Returns what an error has in JSON.
    pub(super) fn code_and_message(&self) -> (&str, String) {
        match self {
            Problem::Channel(error) => (error.code(), error.to_string()),
            Problem::Publish(error) => (error.code(), error.to_string()),
            Problem::Body(error) => ("invalid_utf8", error.to_string()),
            Problem::Refused(refused) => (refused.code(), refused::message(refused)),
            Problem::Request { code, message, .. } => (code, message.clone()),
        }
    }

    // ---- things that do not exist ----

    pub(super) fn no_page_file() -> Problem {
        Problem::new(404, "not_found", "the page has no such file. Open /")
    }

    pub(super) fn no_channel(name: &str) -> Problem {
        let message = format!("there is no channel `{name}`. GET /channels lists all channels");
        Problem::new(404, "channel_not_found", message)
    }

    pub(super) fn no_client(channel: &str, id: &str) -> Problem {
        let message = format!(
            "the channel `{channel}` has no client `{id}`. GET /channels/{channel}/clients lists \
             all clients"
        );
        Problem::new(404, "client_not_found", message)
    }

    // ---- parameters ----

    /// A parameter of the query with an invalid value.
    pub(super) fn parameter(name: &str, wanted: &str) -> Problem {
        let message = format!("invalid value for the parameter `{name}`. Use {wanted}");
        Problem::new(400, "parameter_invalid", message)
    }

    /// An unknown parameter of a publish. It is refused, because with a misspelled `client`
    /// all clients would receive an event for one.
    pub(super) fn unknown_parameter(name: &str) -> Problem {
        let message = format!(
            "`{name}` is not a parameter of a publish. Use client, where.FIELD, not.FIELD, finish, \
             raw and stream, and with a text body also event, id, retry and key"
        );
        Problem::new(400, "parameter_unknown", message)
    }

    /// A condition with an operator that does not exist.
    pub(super) fn operator(name: &str) -> Problem {
        let message = format!(
            "`{name}` has an operator in the name of its field. Use `where.FIELD=VALUE`, or \
             `not.FIELD=VALUE` for the clients whose field does not have the value"
        );
        Problem::new(400, "parameter_invalid", message)
    }

    /// An unknown parameter of a DELETE.
    pub(super) fn parameter_of_delete(name: &str, known: Option<&str>) -> Problem {
        let known = known.map_or("none".to_owned(), |known| format!("only `{known}`"));
        let message = format!("`{name}` is not a parameter of this DELETE. It accepts {known}");
        Problem::new(400, "parameter_unknown", message)
    }

    /// An unknown parameter of a request about the clients of a channel.
    pub(super) fn parameter_of_clients(name: &str) -> Problem {
        let message = format!(
            "`{name}` is not a parameter of this request. Use `where.FIELD=VALUE` and \
             `not.FIELD=VALUE`, and with GET `count`"
        );
        Problem::new(400, "parameter_unknown", message)
    }

    /// A DELETE of clients without a condition, which may be a mistake.
    pub(super) fn no_condition() -> Problem {
        let message = "disconnecting clients needs a condition. Use `where.FIELD=VALUE` or \
                       `not.FIELD=VALUE`; for all clients, DELETE /channels/{channel}";
        Problem::new(400, "parameter_missing", message)
    }

    /// A parameter for a field of the event, in a request whose body is JSON.
    pub(super) fn misplaced_parameter(name: &str) -> Problem {
        let message = format!(
            "`{name}` is not a parameter of a publish with a JSON body. Set the \
                               field `{name}` of the JSON"
        );
        Problem::new(400, "parameter_misplaced", message)
    }

    /// An event with a key, for a channel that ignores keys.
    pub(super) fn key_without_effect(channel: &str) -> Problem {
        let message = format!(
            "the channel `{channel}` does not conflate, so a `key` has no effect. Leave it out, or \
             set `lag_policy = \"conflate\"` for the channel"
        );
        Problem::new(409, "channel_not_conflating", message)
    }

    pub(super) fn no_empty() -> Problem {
        let message = "the parameter `empty` is missing. Use DELETE /channels?empty, which \
                       removes all empty channels";
        Problem::new(400, "parameter_missing", message)
    }

    pub(super) fn client_id(error: impl Display) -> Problem {
        Problem::new(400, "client_id_invalid", error.to_string())
    }

    pub(super) fn two_targets() -> Problem {
        let message = "`client` and conditions cannot be combined. Use `client` once, or \
                       `where.FIELD` and `not.FIELD`";
        Problem::new(400, "target_ambiguous", message)
    }

    pub(super) fn target_of_all() -> Problem {
        let message = "`client`, `where.FIELD` and `not.FIELD` select clients of one channel. Use \
                       POST /channels/{channel}";
        Problem::new(400, "target_without_channel", message)
    }

    pub(super) fn no_channels() -> Problem {
        let message = "the stream has no channel. Use GET /events?channel=a&channel=b";
        Problem::new(400, "channel_missing", message)
    }

    pub(super) fn too_many_channels() -> Problem {
        let message = format!(
            "a stream has at most {STREAM_CHANNELS_MAX} channels. Open several streams, or use \
             fewer channels"
        );
        Problem::new(400, "stream_channels_too_many", message)
    }

    pub(super) fn too_many_channels_of_publish() -> Problem {
        let message = format!(
            "a publish names at most {PUBLISH_CHANNELS_MAX} channels. Publish several times, or use \
             POST /channels without `channel` for every channel"
        );
        Problem::new(400, "publish_channels_too_many", message)
    }

    pub(super) fn too_many_conditions() -> Problem {
        let message = format!(
            "a request has at most {CONDITIONS_MAX} conditions `where.FIELD` and \
             `not.FIELD`. Leave some out"
        );
        Problem::new(400, "conditions_too_many", message)
    }

    pub(super) fn metadata(error: MetadataTooLarge) -> Problem {
        let message = format!("{error}. Remove some");
        Problem::new(400, "metadata_too_large", message)
    }

    pub(super) fn retry_of_token() -> Problem {
        let message = "a token may set a `retry` of 1,000 to 60,000 ms only. Use such a delay, or \
                       publish with a key";
        Problem::new(403, "retry_not_allowed", message)
    }

    // ---- demands ----

    pub(super) fn idempotency_key() -> Problem {
        let message = "the idempotency key is not 1 to 255 visible ASCII characters without \
                       quotes. Use for example a UUID";
        Problem::new(400, "idempotency_key_invalid", message)
    }

    pub(super) fn two_idempotency_keys() -> Problem {
        let message = "the request has two idempotency keys. Use the header Idempotency-Key or \
                       the field `idempotency_key`";
        Problem::new(400, "idempotency_key_invalid", message)
    }

    pub(super) fn idempotency_key_of_line(line: usize) -> Problem {
        let message = format!(
            "line {line} has an idempotency key of its own. Send one for the whole batch in the \
             header Idempotency-Key"
        );
        Problem::new(400, "idempotency_key_invalid", message)
    }

    pub(super) fn if_match() -> Problem {
        let message = "If-Match is not one id of an event in quotes. Send for example \
                       `If-Match: \"3jcfgqk-7\"`, as the header ETag has it";
        Problem::new(400, "if_match_invalid", message)
    }

    /// A condition or an end for all channels.
    pub(super) fn demand_of_all() -> Problem {
        let message = "`finish`, `stream` and If-Match are for one channel. Use POST \
                       /channels/{channel}";
        Problem::new(400, "target_without_channel", message)
    }

    pub(super) fn parameter_of_stream() -> Problem {
        let message = "`finish`, `raw` and If-Match are not for a publish with `stream`. Leave \
                       them out, and finish the channel with a request of its own";
        Problem::new(400, "parameter_misplaced", message)
    }

    // ---- bodies ----

    pub(super) fn stream_of_other_type() -> Problem {
        let message = "a publish with `stream` reads lines of JSON. Send it with `Content-Type: \
                       application/x-ndjson`";
        Problem::new(415, "stream_type_unsupported", message)
    }

    pub(super) fn line_not_utf_8(line: u64, error: &std::str::Utf8Error) -> Problem {
        let message = format!("line {line} is not UTF-8 ({error}). Encode UTF-8");
        Problem::new(400, "invalid_utf8", message)
    }

    pub(super) fn encoded(encoding: &str) -> Problem {
        let message = format!(
            "the content encoding `{encoding}` is not supported. Send the body without \
                     encoding"
        );
        Problem::new(415, "encoding_unsupported", message)
    }

    pub(super) fn charset(charset: &str) -> Problem {
        let message = format!(
            "the charset `{charset}` is not supported. Send UTF-8, with `charset=utf-8` or no \
             charset in `Content-Type`"
        );
        Problem::new(415, "charset_unsupported", message)
    }

    /// A body that is not JSON.
    pub(super) fn json(message: String) -> Problem {
        Problem::new(400, "invalid_json", message)
    }

    /// JSON that is not an event.
    pub(super) fn event(message: String) -> Problem {
        Problem::new(400, "invalid_event", message)
    }

    /// A line of a batch with several events, as `curl -d` makes of several lines.
    pub(super) fn joined_lines(line: usize) -> Problem {
        let message = format!(
            "line {line} has more than one event. Send one JSON object per line; with curl use \
             --data-binary, because -d removes line ends"
        );
        Problem::new(400, "invalid_json", message)
    }

    /// A batch in a body of `application/json`.
    pub(super) fn several_events() -> Problem {
        let message = "the body has more than one event. Send a batch with `Content-Type: \
                       application/x-ndjson`, one JSON object per line";
        Problem::new(400, "invalid_json", message)
    }

    pub(super) fn empty_batch() -> Problem {
        let message = "the batch has no events. Send one JSON object per line";
        Problem::new(400, "batch_empty", message)
    }

    // ---- tickets ----

    pub(super) fn ticket_too_large(bytes_max: usize) -> Problem {
        let message = format!(
            "the ticket request is larger than {bytes_max} bytes. List fewer \
                               channels, or less metadata"
        );
        Problem::new(413, "ticket_too_large", message)
    }

    pub(super) fn ticket_of_too_many(patterns_max: usize) -> Problem {
        let message = format!(
            "a ticket lists at most {patterns_max} channels. List fewer, or a prefix such as \
             `user.7.*`"
        );
        Problem::new(413, "ticket_too_large", message)
    }

    pub(super) fn ticket_of_nothing() -> Problem {
        let message = "the ticket request has no channels. Send for example {\"subscribe\": \
                       [\"news\", \"user.7.*\"]}";
        Problem::new(400, "ticket_channels_missing", message)
    }

    pub(super) fn pattern(error: impl Display) -> Problem {
        Problem::new(400, "pattern_invalid", error.to_string())
    }

    // ---- the server's own state ----

    pub(super) fn no_metrics() -> Problem {
        let message = "the metrics cannot be written. The log has the reason";
        Problem::new(500, "internal_error", message)
    }

    pub(super) fn busy() -> Problem {
        let message = "too many queries about channels are in progress. Retry later";
        Problem::new(503, "busy", message)
    }

    pub(super) fn draining() -> Problem {
        let message = "the server is shutting down. Use another server";
        Problem::new(503, "draining", message)
    }

    pub(super) fn not_ready() -> Problem {
        let message = "the server has no room for more connections. Use another server, or raise \
                       the limit on connections or open files";
        Problem::new(503, "not_ready", message)
    }

    /// A node without its broker, for longer than the operator allows.
    pub(super) fn cut_off() -> Problem {
        let message = "this node has lost the broker that all nodes share. The server's log has \
                       the cause";
        Problem::new(503, "not_ready", message)
    }

    /// What needs to know the clients of all nodes.
    pub(super) fn cluster_unsupported() -> Problem {
        let message = "a node of a cluster knows only its own clients, so it cannot tell which \
                       channels are empty. Close them by name: `DELETE /channels/NAME`";
        Problem::new(501, "cluster_unsupported", message)
    }

    /// The server's log has the cause, which may contain a path.
    pub(super) fn journal_failed() -> Problem {
        let message = "the journal cannot be written, so nothing can be published. The server's \
                       log has the cause. Restart the server after it is removed";
        Problem::new(503, "not_ready", message)
    }
}

#[cfg(test)]
#[path = "../../../tests/common/codes.rs"]
mod source;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_code_that_the_server_answers_is_counted_by_itself() {
        let engine = include_str!("../../../src/metrics/codes.rs");
        let mut found = Vec::new();
        source::visit(Path::new("src"), &mut found);
        let is_found = |code: &&str| found.iter().any(|(_, other)| other == code);
        let here = CODES.iter().filter(|code| is_found(code)).count();
        assert!(here > 25, "the search finds too few: {here}");
        for (file, code) in &found {
            let is_counted = CODES.contains(&&**code) || engine.contains(&format!("\"{code}\""));
            assert!(is_counted, "{file}: {code} is in no list of codes");
        }
    }

    #[test]
    fn each_problem_has_its_status() {
        for (problem, status) in [
            (ChannelError::Name.into(), 400),
            (ChannelError::TooMany { max: 1 }.into(), 503),
            (ChannelError::TooManyUnpublished { max: 1 }.into(), 503),
            (ChannelError::TooManyOfSource { max: 1 }.into(), 429),
            (PublishError::Finished.into(), 409),
            (PublishError::TooLarge { bytes: 2, max: 1 }.into(), 413),
            (BodyError::Utf8 { valid_up_to: 0 }.into(), 400),
            (Problem::no_channel("x"), 404),
            (Problem::encoded("gzip"), 415),
            (Problem::charset("latin1"), 415),
            (Problem::busy(), 503),
        ] {
            let problem: Problem = problem;
            assert_eq!(problem.into_response().status_code(), status);
        }
    }
}
