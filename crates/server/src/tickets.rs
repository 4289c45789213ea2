//! `POST /tickets`: makes a ticket, the credential of a page, whose `EventSource` cannot
//! send headers. A program that has a token or a key gets one and hands it to the page.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::access::{Access, Channels, Grant, Refused, TicketContent};
use super::context::Context;
use super::errors::Problem;
use super::limits::{TICKET_CHANNELS_MAX, TOKEN_BYTES_MAX};
use super::metadata;
use pushwheel::{ClientId, Method, Request, Response, SharedValues};

/// The body of a request, with the names of a token's claims.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    subscribe: Option<Vec<String>>,
    client: Option<String>,
    metadata: Option<Map<String, Value>>,
    stream_seconds: Option<u64>,
}

/// `POST /tickets`
pub(super) fn make(request: &Request, context: &Context) -> Result<Response, Problem> {
    let config = context.config();
    let maker = config.access.ticket_maker(request, &context.access)?;
    let content = content(request, &maker)?;
    let ticket = (config.access).make_ticket(request, &maker, content, &context.access)?;
    let body = json!({"ticket": ticket.name, "expires_in": ticket.time.as_secs()});
    let answer = Response::json(&body);
    let Some(cluster) = &context.cluster else {
        return Ok(answer);
    };
    let shared = Access::share_ticket(&ticket.name, &context.access);
    let (key, content) = shared.ok_or(Refused::TicketUnknown)?;
    let values = cluster.values.clone();
    Ok(Response::deferred(move |responder| {
        values.put(key, content, ticket.time, move |kept| {
            let answer = kept.map(|()| answer);
            responder.respond(answer.map_err(|_| Problem::from(Refused::NoBroker)));
        });
    }))
}

/// Answers a request after its ticket was taken from the broker. Returns `None` if there is
/// nothing to take: no cluster, or no ticket.
///
/// The ticket is then one of this node, for the answer only.
pub(super) fn after_taking(
    request: &Request,
    context: &Context,
    answer: impl FnOnce(&Request, &Context) -> Response + Send + 'static,
) -> Option<Response> {
    let cluster = context.cluster.as_ref()?;
    let (name, key) = context.config().access.shared_ticket(request)?;
    let (request, context) = (request.clone(), context.clone());
    let values = cluster.values.clone();
    Some(Response::deferred(move |responder| {
        let again = (values.clone(), key.clone());
        values.take(key, move |taken| {
            let content = match taken {
                Ok(content) => content,
                Err(_) => return responder.respond(Problem::from(Refused::NoBroker)),
            };
            if let Some(content) = &content {
                Access::receive_ticket(&name, content, &context.access);
            }
            let response = answer(&request, &context);
            match content.filter(|_| *request.method() == Method::Head) {
                None => responder.respond(response),
                Some(content) => {
                    let then = move || responder.respond(response);
                    put_back(again, &name, content, &context, then);
                }
            }
        });
    }))
}

/// Puts a ticket back that a HEAD request has not used, and then answers. It is valid for its
/// whole time again.
fn put_back(
    (values, key): (SharedValues, Vec<u8>),
    name: &str,
    content: Vec<u8>,
    context: &Context,
    then: impl FnOnce() + Send + 'static,
) {
    // It must not be valid here, too.
    let _ = Access::share_ticket(name, &context.access);
    let time = context.config().access.ticket_time();
    // Without the broker the ticket is lost, and the client gets another one.
    values.put(key, content, time, |_| then());
}

/// Reads the body of a request.
fn content(request: &Request, maker: &Grant) -> Result<TicketContent, Problem> {
    let body: Body = match request.body().len() {
        0 => Body::default(),
        bytes if bytes > TOKEN_BYTES_MAX => {
            return Err(Problem::ticket_too_large(TOKEN_BYTES_MAX));
        }
        _ => request.json()?,
    };
    let subscribe = match &body.subscribe {
        Some(texts) if texts.len() > TICKET_CHANNELS_MAX => {
            return Err(Problem::ticket_of_too_many(TICKET_CHANNELS_MAX));
        }
        Some(texts) => Some(Channels::parse(texts).map_err(Problem::pattern)?),
        // A token lists channels, a key does not.
        None if maker.is_believed => return Err(Problem::ticket_of_nothing()),
        None => None,
    };
    let client = body.client.as_deref().map(ClientId::new).transpose();
    if let Some(metadata) = &body.metadata {
        metadata::check(metadata).map_err(Problem::metadata)?;
    }
    Ok(TicketContent {
        subscribe,
        client: client.map_err(Problem::client_id)?,
        metadata: body.metadata.map(Arc::new),
        stream_time: body.stream_seconds.map(Duration::from_secs),
    })
}
