//! The codes of the engine's own errors. A refusal is counted by its code if that is one of
//! these, or one that the engine's builder was given, and otherwise as `other`: so the number
//! of counters is fixed, whatever handlers return.

/// The name under which all other codes count.
pub(crate) const OTHER: &str = "other";

pub(crate) const CODES: &[&str] = &[
    // Malformed requests.
    "ambiguous_framing",
    "chunk_invalid",
    "connect_unsupported",
    "content_length_invalid",
    "expectation_unknown",
    "head_too_large",
    "header_invalid",
    "host_invalid",
    "host_missing",
    "host_repeated",
    "line_end_invalid",
    "payload_too_large",
    "proxy_header_invalid",
    "request_line_invalid",
    "request_timeout",
    "target_invalid",
    "too_many_headers",
    "trailers_too_large",
    "transfer_coding_unsupported",
    "transfer_encoding_invalid",
    "uri_too_long",
    "version_unsupported",
    // Requests that no route answers.
    "internal_error",
    "invalid_path",
    "invalid_query",
    "method_not_allowed",
    "no_answer",
    "not_found",
    // Channels, clients and events.
    "broker_busy",
    "broker_unavailable",
    "channel_closed",
    "channel_finished",
    "channel_full",
    "channel_name_invalid",
    "client_id_invalid",
    "event_id_control",
    "event_id_empty",
    "event_id_in_welcome",
    "event_id_line_break",
    "event_id_nul",
    "event_id_of_several",
    "event_id_reserved",
    "event_id_space",
    "event_id_too_long",
    "event_key_too_long",
    "event_name_line_break",
    "event_name_reserved",
    "event_name_too_long",
    "event_retry_too_long",
    "event_removal_without_key",
    "event_too_large",
    "id_reused",
    "invalid_json",
    "invalid_utf8",
    "journal_busy",
    "journal_unavailable",
    "key_in_flight",
    "key_reused",
    "not_newest",
    "publish_unconfirmed",
    "rate_limited",
    "stream_ended",
    "stream_full",
    "too_many_channels",
    "too_many_channels_of_source",
    "too_many_entries",
    "too_many_unpublished_channels",
    // Limits.
    "address_full",
    "server_full",
    "too_many_in_flight",
];

#[cfg(test)]
#[path = "../../tests/common/codes.rs"]
mod source;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_code_that_this_package_answers_is_counted_by_itself() {
        let mut found = Vec::new();
        source::visit(Path::new("src"), &mut found);
        let is_found = |code: &&str| found.iter().any(|(_, other)| other == code);
        let here = CODES.iter().filter(|code| is_found(code)).count();
        assert!(here > 40, "the search finds too few: {here}");
        for (file, code) in &found {
            assert!(
                CODES.contains(&&**code),
                "{file}: {code} is in no list of codes"
            );
        }
    }
}
