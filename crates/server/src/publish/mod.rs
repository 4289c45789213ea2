//! Publishing with POST.
//!
//! The path and the parameters `client`, `where.FIELD` and `not.FIELD` select the recipients.
//! The body contains the events, in the format of its `Content-Type`. The headers
//! `Idempotency-Key` and `If-Match` and the parameter `finish` are the [`demands`]. Everything
//! is checked before anything is published, except with `stream`: then [`lines`] publishes each
//! line when it is there.

mod demands;
mod events;
mod lines;
mod parameters;
mod reply;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::context::Context;
use super::errors::Problem;
use demands::Demands;
use events::{Events, check_keys};
pub(super) use lines::begin as begin_lines;
use parameters::Parameters;
use pushwheel::{
    Channel, PublishError, PublishOptions, Published, Request, Responder, Response, Target,
};
use reply::Reply;

/// `POST /channels/{channel}`
pub(super) fn to_one(request: &Request, context: &Context) -> Result<Response, Problem> {
    if context.has_log {
        return Ok(later(request, context, to_one_later));
    }
    let config = &*context.config();
    let parameters = Parameters::of(request, &config.access)?;
    let events = Events::checked(request, context, config, &parameters)?;
    let demands = Demands::of(request, context, config, &parameters, &events)?;
    let options = demands.options(&parameters.target);
    let name = request.param("channel").unwrap_or_default();
    let publish = |channel: &Channel| match &options {
        None => channel.publish(events.as_slice(), parameters.target.clone()),
        Some(options) => channel.publish_with(events.as_slice(), options),
    };
    let channels = request.channels();
    let channel = channels.get_or_create(name)?;
    check_keys(events.as_slice(), &channel)?;
    let published = match publish(&channel) {
        // Another thread has just removed the channel: create it again.
        Err(PublishError::Closed) => publish(&channels.get_or_create(name)?)?,
        published => published?,
    };
    let reply = Reply::new((request, context), config, Some(name), &parameters, &events);
    Ok(reply.answer(&published))
}

/// `POST /channels`
pub(super) fn to_all(request: &Request, context: &Context) -> Result<Response, Problem> {
    if context.has_log {
        return Ok(later(request, context, to_all_later));
    }
    let config = &*context.config();
    let parameters = Parameters::of_all(request, &config.access)?;
    let events = Events::checked(request, context, config, &parameters)?;
    let key = Demands::of(request, context, config, &parameters, &events)?.key;
    let channels = request.channels();
    let published = channels.publish_keyed(events.as_slice(), Target::All, key)?;
    let reply = Reply::new((request, context), config, None, &parameters, &events);
    Ok(reply.answer(&published))
}

/// Publishes, and takes the responder to respond when the journal has decided.
type Later = fn(&Request, &Context, &mut Option<Responder>) -> Result<(), Problem>;

fn later(request: &Request, context: &Context, publish: Later) -> Response {
    let (request, context) = (request.clone(), context.clone());
    Response::deferred(move |responder| {
        let mut responder = Some(responder);
        let published = publish(&request, &context, &mut responder);
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
    let channels = request.channels();
    let channel = channels.get_or_create(name)?;
    check_keys(events.as_slice(), &channel)?;
    let reply = Reply::new((request, context), config, Some(name), &parameters, &events);
    let Some(responder) = responder.take() else {
        return Ok(());
    };
    let waiting = Arc::new(Mutex::new(Some((reply, responder))));
    let respond = |waiting: &Mutex<Option<(Reply, Responder)>>, published: Result<_, Problem>| {
        let taken = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((reply, responder)) = taken {
            responder.respond(published.map(|published: Published| reply.answer(&published)));
        }
    };
    // Returns whether the channel was closed, which is known before the call returns.
    let publish = |channel: &Channel, is_last: bool| {
        let is_closed = Arc::new(AtomicBool::new(false));
        let (waiting, closed) = (waiting.clone(), is_closed.clone());
        let then = move |published| match published {
            Err(PublishError::Closed) if !is_last => closed.store(true, Relaxed),
            published => respond(&waiting, published.map_err(Problem::from)),
        };
        channel.publish_with_then(events.as_slice(), &options, then);
        is_closed.load(Relaxed)
    };
    if publish(&channel, false) {
        // Another thread has just removed the channel: create it again.
        match channels.get_or_create(name) {
            Ok(channel) => _ = publish(&channel, true),
            Err(error) => respond(&waiting, Err(error.into())),
        }
    }
    Ok(())
}

fn to_all_later(
    request: &Request,
    context: &Context,
    responder: &mut Option<Responder>,
) -> Result<(), Problem> {
    let config = &*context.config();
    let parameters = Parameters::of_all(request, &config.access)?;
    let events = Events::checked(request, context, config, &parameters)?;
    let key = Demands::of(request, context, config, &parameters, &events)?.key;
    let reply = Reply::new((request, context), config, None, &parameters, &events);
    if let Some(responder) = responder.take() {
        let then = reply.respond_with(responder);
        let channels = request.channels();
        channels.publish_keyed_then(events.as_slice(), Target::All, key, then);
    }
    Ok(())
}
