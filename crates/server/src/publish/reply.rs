//! The response to a publish: its result, and warnings.

use std::net::SocketAddr;

use serde::Serialize;

use super::events::Events;
use super::parameters::Parameters;
use crate::access::Access;
use crate::access_log;
use crate::context::{Context, CurrentConfig};
use crate::errors::Problem;
use pushwheel::{Event, EventId, Published, Request, Responder, Response, Target};

/// What the answer to a publish has besides its result.
pub(super) struct Reply {
    /// The channels, none for all, and the publisher's address, if the event log is on.
    logged: Option<(Vec<String>, SocketAddr)>,
    may_count: bool,
    /// The number of nodes, in a cluster.
    nodes: Option<usize>,
    warnings: Vec<Warning>,
}

impl Reply {
    pub(super) fn new(
        (request, context): (&Request, &Context),
        config: &CurrentConfig,
        parameters: &Parameters<'_>,
        events: &Events<'_>,
    ) -> Reply {
        let logged = || {
            let several = parameters.channels.iter().map(|name| &**name);
            let channels = request.param("channel").into_iter().chain(several);
            let channels = channels.map(str::to_owned).collect();
            (channels, request.client_address())
        };
        Reply {
            logged: config.event_log.then(logged),
            may_count: may_count(&parameters.target, &config.access, request),
            nodes: context.nodes(request),
            warnings: warnings(events),
        }
    }

    pub(super) fn answer(self, published: &Published) -> Response {
        if let Some((channels, address)) = &self.logged {
            access_log::log_publish(*address, channels, published);
        }
        Response::json(&Answer {
            id: published.id.as_ref(),
            events: published.events,
            clients: self.may_count.then_some(published.clients),
            nodes: self.nodes.filter(|_| self.may_count),
            duplicate: published.is_repeated || (published.events == 0 && published.duplicates > 0),
            duplicates: published.duplicates,
            warnings: self.warnings,
        })
    }

    pub(super) fn respond_with(
        self,
        responder: Responder,
    ) -> impl FnOnce(Result<Published, Problem>) + Send + 'static {
        move |published| {
            let response = published.map(|published| self.answer(&published));
            responder.respond(response);
        }
    }
}

/// Returns whether a publisher may know the number of recipients: it reveals which clients
/// are connected and their metadata, and a token may not have the right to view either.
pub(super) fn may_count(target: &Target, access: &Access, request: &Request) -> bool {
    *target == Target::All || access.may_publish_by_key(request)
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a EventId>,
    events: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    clients: Option<usize>,
    /// The clients are those of one of this many nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<usize>,
    /// Whether nothing was appended, because all had been published before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
    #[serde(skip_serializing_if = "is_zero")]
    duplicates: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A warning in the response to a publish, which was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Warning {
    code: &'static str,
    message: &'static str,
}

impl Warning {
    const fn new(code: &'static str, message: &'static str) -> Warning {
        Warning { code, message }
    }
}

const NAME_AMBIGUOUS: Warning = Warning::new(
    "event_name_ambiguous",
    "a browser's EventSource fires events of its own named `open` and `error`. Choose \
              another name",
);

const ID_NOT_ASCII: Warning = Warning::new(
    "event_id_not_ascii",
    "not every client can send this id back in a header. Use letters, digits, `.`, `_` \
              and `-`",
);

const JSON_AS_TEXT: Warning = Warning::new(
    "json_as_text",
    "the body is an event in JSON and was published as text. Send it with `Content-Type: \
     application/json`, a batch with `application/x-ndjson` (with curl also --data-binary, \
     because -d removes line ends), or text with `text/plain`",
);

/// Returns the warnings for the events, each once, and logs them.
fn warnings(events: &Events<'_>) -> Vec<Warning> {
    let is_json_as_text = events.are_json_as_text();
    let events = events.as_slice();
    let is_ambiguous = |event: &Event<'_>| matches!(event.name(), Some("open" | "error"));
    let has_odd_id = |event: &Event<'_>| event.id().is_some_and(|id| !id.is_ascii());
    let mut warnings = Vec::new();
    for (warning, applies) in [
        (NAME_AMBIGUOUS, events.iter().any(is_ambiguous)),
        (ID_NOT_ASCII, events.iter().any(has_odd_id)),
        (JSON_AS_TEXT, is_json_as_text),
    ] {
        if applies {
            log::info!("a publish was answered with the warning {}", warning.code);
            warnings.push(warning);
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_work_in_every_client_is_warned_of() {
        let codes = |event: Event<'static>| {
            let warnings = warnings(&Events::batch(vec![Event::message("x"), event]));
            warnings
                .iter()
                .map(|warning| warning.code)
                .collect::<Vec<_>>()
        };
        assert_eq!(codes(Event::new("error", "x")), ["event_name_ambiguous"]);
        assert_eq!(codes(Event::new("open", "x")), ["event_name_ambiguous"]);
        let odd = Event::message("x").with_id("caf\u{e9}");
        assert_eq!(codes(odd), ["event_id_not_ascii"]);
        let plain = Event::new("errors", "x").with_id("orders.17");
        assert!(codes(plain).is_empty());
    }
}
