//! The codes of the engine's own errors. A refusal is counted by its code if
//! that is one of these, or one that the engine's builder was told of, and as
//! `other` if not: so there is a fixed number of counters, whatever handlers
//! answer.

/// What every other code counts as.
pub(crate) const OTHER: &str = "other";

pub(crate) const CODES: &[&str] = &[
    // What is wrong with a request's HTTP.
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
    // What no route answers.
    "internal_error",
    "invalid_path",
    "invalid_query",
    "method_not_allowed",
    "no_answer",
    "not_found",
    // Channels, clients and events.
    "channel_closed",
    "channel_finished",
    "channel_full",
    "channel_name_invalid",
    "client_id_invalid",
    "event_id_control",
    "event_id_empty",
    "event_id_line_break",
    "event_id_nul",
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
    "rate_limited",
    "too_many_channels",
    "too_many_channels_of_source",
    "too_many_unpublished_channels",
    // For want of room.
    "address_full",
    "server_full",
    "too_many_in_flight",
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The codes that a file of this package answers errors with, as far as
    /// they stand where an error is made, or in a `fn code`.
    fn codes_in(source: &str) -> Vec<String> {
        let tests = source.find("#[cfg(test)]").unwrap_or(source.len());
        let code_only = source[..tests].lines().map(|line| match line.trim() {
            comment if comment.starts_with("//") => "",
            line => line,
        });
        let text: String = code_only.collect();
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let literal = |at: &str| Some(at.strip_prefix('"')?.split('"').next()?.to_owned());
        let after_status = |at: &str| literal(at.get(3..)?.strip_prefix(',')?);
        let mut codes = Vec::new();
        for (maker, _) in text.match_indices("::error(") {
            codes.extend(after_status(&text[maker + "::error(".len()..]));
        }
        for maker in ["Problem::new(", "Refusal::new("] {
            let made = text.match_indices(maker);
            codes.extend(made.filter_map(|(at, _)| after_status(&text[at + maker.len()..])));
        }
        for (start, end) in [
            ("code:\"", ","),
            ("letcode=match", "};"),
            ("fncode(&self)->&'staticstr{", "}}"),
        ] {
            for (at, _) in text.match_indices(start) {
                let body = text[at..].split(end).next().unwrap_or_default();
                let strings = body.split('"').skip(1).step_by(2);
                codes.extend(strings.map(str::to_owned));
            }
        }
        codes
    }

    fn visit(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let source = fs::read_to_string(&path).unwrap();
                let name = path.display().to_string();
                found.extend(codes_in(&source).into_iter().map(|c| (name.clone(), c)));
            }
        }
    }

    #[test]
    fn every_code_that_this_package_answers_is_counted_by_itself() {
        #[cfg(feature = "server")]
        let known = [CODES, crate::server::CODES].concat();
        #[cfg(not(feature = "server"))]
        let known = CODES;
        let mut found = Vec::new();
        visit(Path::new("src"), &mut found);
        // The core alone knows nothing of the server's.
        let is_built = |file: &str| cfg!(feature = "server") || !file.contains("server");
        found.retain(|(file, _)| is_built(file));
        let is_found = |code: &&str| found.iter().any(|(_, other)| other == code);
        let here = CODES.iter().filter(|code| is_found(code)).count();
        assert!(here > 40, "the search finds too few: {here}");
        for (file, code) in &found {
            assert!(
                known.contains(&&**code),
                "{file}: {code} is in no list of codes"
            );
        }
    }
}
