//! Publishing line by line, while the body arrives: `POST /channels/{channel}?stream`.
//!
//! Each line is published when it is complete. So a connection that is cut leaves what was
//! published, and the response has acknowledged some or all of it.

use serde::Serialize;

use super::attempts::{Then, attempt_then};
use super::demands::{DemandHeaders, checked_key};
use super::events::{check_charset, check_keys, check_rate, check_retry};
use super::parameters::Parameters;
use super::reply::may_count;
use crate::access::Right;
use crate::access_log;
use crate::context::Context;
use crate::errors::Problem;
use crate::message::{self, JsonEvent};
use pushwheel::{
    EventId, IntoResponse, LineReply, PublishOptions, Published, ReadLines, Request, Response,
    Target,
};

/// Returns the response to a request that is to be read line by line, or its error. `None`:
/// it is another one.
pub(crate) fn begin(request: &Request, context: &Context) -> Option<Response> {
    // Most requests have no query.
    request.query("stream")?;
    match Lines::of(request, context) {
        Ok(None) => None,
        Ok(Some(lines)) => Some(Response::lines("application/x-ndjson", lines)),
        Err(problem) => Some(problem.into_response()),
    }
}

/// The publisher of the lines of one request.
struct Lines {
    request: Request,
    context: Context,
    target: Target,
    /// The idempotency key of the request, of which each line has its own.
    key: Option<String>,
    published: u64,
}

/// The reply to a line.
#[derive(Serialize)]
struct Acknowledged<'a> {
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clients: Option<usize>,
    /// The clients are those of one of this many nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<usize>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

impl Lines {
    fn of(request: &Request, context: &Context) -> Result<Option<Lines>, Problem> {
        let config = context.config();
        let parameters = Parameters::of(request, &config.access)?;
        if !parameters.streams {
            return Ok(None);
        }
        parameters.check_without_event()?;
        if parameters.finishes || parameters.is_raw == Some(true) {
            return Err(Problem::parameter_of_stream());
        }
        let media_type = check_charset(request)?;
        if !media_type.eq_ignore_ascii_case("application/x-ndjson") {
            return Err(Problem::stream_of_other_type());
        }
        let headers = DemandHeaders::of(request);
        if headers.has_if_match() {
            return Err(Problem::parameter_of_stream());
        }
        Ok(Some(Lines {
            key: headers.key()?.map(str::to_owned),
            target: parameters.target.clone(),
            request: request.clone(),
            context: context.clone(),
            published: 0,
        }))
    }

    /// Publishes a line, and takes the reply to send when it is published.
    fn publish(
        &self,
        number: u64,
        line: &[u8],
        reply: &mut Option<LineReply>,
    ) -> Result<(), Problem> {
        let Lines {
            request, context, ..
        } = self;
        let config = &*context.config();
        // A credential may expire meanwhile, or be taken back.
        config
            .access
            .check(Right::Publish, request, &context.access)?;
        let line = str::from_utf8(line).map_err(|error| Problem::line_not_utf_8(number, &error))?;
        let line_number = usize::try_from(number).unwrap_or(usize::MAX);
        let JsonEvent {
            event,
            idempotency_key,
        } = message::from_line(line, line_number)?;
        let events = std::slice::from_ref(&event);
        check_retry(events, &config.access, request)?;
        check_rate(events.len(), context, config, request)?;
        let name = request.param("channel").unwrap_or_default();
        let mut options = PublishOptions::new().target(self.target.clone());
        let key = match (&idempotency_key, &self.key) {
            (Some(key), _) => Some(checked_key(key.as_bytes())?.to_owned()),
            (None, Some(key)) => Some(format!("{key}\n{number}")),
            (None, None) => None,
        };
        if let Some(key) = key {
            let access = &config.access;
            options =
                options.idempotency_key(access.idempotency_key(request, &key, &context.access)?);
        }
        let publish = |then: Then| {
            let channel = request.channels().get_or_create(name)?;
            check_keys(events, &channel)?;
            channel.publish_with_then(events, &options, then);
            Ok(())
        };
        let may_count = may_count(&self.target, &config.access, request);
        let nodes = context.nodes(request);
        let logged = config
            .event_log
            .then(|| (vec![name.to_owned()], request.client_address()));
        let Some(reply) = reply.take() else {
            return Ok(());
        };
        attempt_then(publish, move |published| match published {
            Ok(published) => {
                if let Some((channels, address)) = &logged {
                    access_log::log_publish(*address, channels, &published);
                }
                let clients = may_count.then_some((published.clients, nodes));
                reply.send(acknowledged(number, &published, clients));
            }
            Err(problem) => reply.end(failed(number, &problem)),
        });
        Ok(())
    }
}

impl ReadLines for Lines {
    fn line(&mut self, number: u64, line: &[u8], reply: LineReply) {
        let mut reply = Some(reply);
        let published = self.publish(number, line, &mut reply);
        if let (Err(problem), Some(reply)) = (published, reply) {
            reply.end(failed(number, &problem));
        }
        self.published += 1;
    }

    fn end(&mut self) -> Option<String> {
        let events = self.published;
        Some(serde_json::json!({ "events": events }).to_string())
    }
}

/// Returns the reply to a line that was published, with the number of its clients and of the
/// nodes of a cluster, of which they are clients of one.
fn acknowledged(
    line: u64,
    published: &Published,
    clients: Option<(usize, Option<usize>)>,
) -> String {
    let acknowledged = Acknowledged {
        line,
        id: published.id.as_ref(),
        clients: clients.map(|(clients, _)| clients),
        nodes: clients.and_then(|(_, nodes)| nodes),
        duplicate: published.is_repeated || published.events == 0,
    };
    serde_json::to_string(&acknowledged).expect("it has no keys that are not texts")
}

fn failed(line: u64, problem: &Problem) -> String {
    let (code, message) = problem.code_and_message();
    serde_json::json!({"line": line, "error": {"code": code, "message": message}}).to_string()
}
