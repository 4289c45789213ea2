//! Publishing with POST.
//!
//! The path and the parameters `channel`, `client`, `where.FIELD` and `not.FIELD` select the
//! recipients.
//! The body contains the events, in the format of its `Content-Type`. The headers
//! `Idempotency-Key` and `If-Match` and the parameter `finish` are the [`demands`]. Everything
//! is checked before anything is published, except with `stream`: then [`lines`] publishes each
//! line when it is there.

mod attempts;
mod demands;
mod events;
mod lines;
mod parameters;
mod reply;

use super::context::Context;
use super::errors::Problem;
use attempts::{Then, attempt, attempt_then};
use demands::Demands;
use events::{Events, check_keys};
pub(super) use lines::begin as begin_lines;
use parameters::Parameters;
use pushwheel::{Channel, PublishOptions, Request, Responder, Response, Target};
use reply::Reply;

/// `POST /channels/{channel}`
pub(super) fn to_one(request: &Request, context: &Context) -> Result<Response, Problem> {
    if context.has_log {
        return Ok(later(context, to_one_later));
    }
    let config = &*context.config();
    let parameters = Parameters::of(request, &config.access)?;
    let events = Events::checked(request, context, config, &parameters)?;
    let demands = Demands::of(request, context, config, &parameters, &events)?;
    let options = demands.options(&parameters.target);
    let name = request.param("channel").unwrap_or_default();
    let published = attempt(|| {
        let channel = request.channels().get_or_create(name)?;
        check_keys(events.as_slice(), &channel)?;
        Ok(match &options {
            None => channel.publish(events.as_slice(), parameters.target.clone())?,
            Some(options) => channel.publish_with(events.as_slice(), options)?,
        })
    })?;
    let reply = Reply::new((request, context), config, &parameters, &events);
    Ok(reply.answer(&published))
}

/// `POST /channels`: to all channels, or to those that the query names
pub(super) fn to_several(request: &Request, context: &Context) -> Result<Response, Problem> {
    if context.has_log {
        return Ok(later(context, to_several_later));
    }
    let config = &*context.config();
    let parameters = Parameters::of_several(request, &config.access)?;
    let events = Events::checked(request, context, config, &parameters)?;
    let key = Demands::of(request, context, config, &parameters, &events)?.key;
    let manager = request.channels();
    let published = match parameters.channels.is_empty() {
        true => manager.publish_keyed(events.as_slice(), Target::All, key)?,
        false => attempt(|| {
            let channels = open_each(request, &parameters, &events)?;
            Ok(manager.publish_to(&channels, events.as_slice(), key)?)
        })?,
    };
    let reply = Reply::new((request, context), config, &parameters, &events);
    Ok(reply.answer(&published))
}

/// Returns the channels that a query names.
fn open_each(
    request: &Request,
    parameters: &Parameters<'_>,
    events: &Events<'_>,
) -> Result<Vec<Channel>, Problem> {
    let names = parameters.channels.iter();
    let channels = names.map(|name| request.channels().get_or_create(name));
    let channels = channels.collect::<Result<Vec<_>, _>>()?;
    // A key is wrong if none of the channels conflates.
    let checked = channels
        .iter()
        .map(|channel| check_keys(events.as_slice(), channel));
    match checked.reduce(Result::or) {
        Some(Err(problem)) => Err(problem),
        _ => Ok(channels),
    }
}

/// Publishes, and takes the responder to respond when the journal has decided.
type Later = fn(&Request, &Context, &mut Option<Responder>) -> Result<(), Problem>;

fn later(context: &Context, publish: Later) -> Response {
    let context = context.clone();
    Response::deferred_with_request(move |request, responder| {
        let mut responder = Some(responder);
        let published = publish(request, &context, &mut responder);
        if let (Err(problem), Some(responder)) = (published, responder) {
            responder.respond(problem);
        }
    })
}

fn to_one_later(
    request: &Request,
    context: &Context,
    responder: &mut Option<Responder>,
) -> Result<(), Problem> {
    let config = &*context.config();
    let parameters = Parameters::of(request, &config.access)?;
    let events = Events::checked(request, context, config, &parameters)?;
    let demands = Demands::of(request, context, config, &parameters, &events)?;
    let options = demands.options(&parameters.target);
    let options =
        options.unwrap_or_else(|| PublishOptions::new().target(parameters.target.clone()));
    let name = request.param("channel").unwrap_or_default();
    let reply = Reply::new((request, context), config, &parameters, &events);
    let publish = |then: Then| {
        let channel = request.channels().get_or_create(name)?;
        check_keys(events.as_slice(), &channel)?;
        channel.publish_with_then(events.as_slice(), &options, then);
        Ok(())
    };
    if let Some(responder) = responder.take() {
        attempt_then(publish, reply.respond_with(responder));
    }
    Ok(())
}

fn to_several_later(
    request: &Request,
    context: &Context,
    responder: &mut Option<Responder>,
) -> Result<(), Problem> {
    let config = &*context.config();
    let parameters = Parameters::of_several(request, &config.access)?;
    let events = Events::checked(request, context, config, &parameters)?;
    let key = Demands::of(request, context, config, &parameters, &events)?.key;
    let reply = Reply::new((request, context), config, &parameters, &events);
    let manager = request.channels();
    let publish = |then: Then| {
        if parameters.channels.is_empty() {
            manager.publish_keyed_then(events.as_slice(), Target::All, key, then);
        } else {
            let channels = open_each(request, &parameters, &events)?;
            manager.publish_to_then(&channels, events.as_slice(), key, then);
        }
        Ok(())
    };
    if let Some(responder) = responder.take() {
        attempt_then(publish, reply.respond_with(responder));
    }
    Ok(())
}
