//! `POST /tickets`: makes a ticket, the credential of a page, whose `EventSource` cannot
//! send headers. A program that has a token or a key gets one and hands it to the page.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::access::{Channels, Grant, TicketContent};
use super::context::Context;
use super::errors::Problem;
use super::limits::{TICKET_CHANNELS_MAX, TOKEN_BYTES_MAX};
use super::metadata;
use pushwheel::{ClientId, Request, Response};

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
    Ok(Response::json(&body))
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
