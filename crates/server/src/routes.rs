//! The routes of the server, and the right that each one needs.

use std::sync::Arc;

use super::access::Right;
use super::context::Context;
use super::errors::Problem;
use super::worker::{Handler, Worker};
use super::{access_log, assets, channel_view, manage, metrics, page, publish, subscribe, tickets};
use pushwheel::{
    ChannelError, EngineBuilder, IntoResponse, Method, Request, Response, Subscription,
};

pub(super) fn add(engine: EngineBuilder, context: &Context) -> EngineBuilder {
    let with = |handler: WithContext| {
        let context = context.clone();
        move |request: &Request| handler(request, &context)
    };
    let shared = context.clone();
    let publish_lines = move |request: &Request| publish::begin_lines(request, &shared);
    let worker = Worker::start();
    let slow = |handler: WithContext| {
        let (worker, handler): (_, Handler) = (worker.clone(), Arc::new(with(handler)));
        move |request: &Request| worker.answer(request, handler.clone())
    };
    let logged = |subscribe: Subscribe| {
        let context = context.clone();
        let answer = move |request: &Request, context: &Context| match subscribe(request, context) {
            Ok(stream) => access_log::log_stream(context, request, stream).into_response(),
            Err(problem) => {
                let response = problem.into_response();
                access_log::warn_of_rejection(context, request, &response);
                response
            }
        };
        move |request: &Request| {
            tickets::after_taking(request, &context, answer)
                .unwrap_or_else(|| answer(request, &context))
        }
    };
    let engine = assets::routes(engine);
    let engine = page::routes(engine, context, HINT)
        .get("/health", manage::health)
        .get("/ready", with(manage::ready))
        .get("/events", logged(subscribe::several))
        .get("/channels/{channel}", logged(subscribe::one))
        .get("/channels/", no_name)
        .post("/channels/", no_name)
        .delete("/channels/", no_name)
        .lines(Method::Post, "/channels/{channel}", publish_lines);
    Guarded { engine, context }
        .post("/channels/{channel}", Right::Publish, with(publish::to_one))
        .post("/channels", Right::Publish, with(publish::to_several))
        .post("/tickets", Right::MakeTickets, with(tickets::make))
        .get("/channels", slow(manage::names))
        .get("/channels/{channel}/clients", slow(manage::clients))
        .get("/channels/{channel}/clients/{id}", manage::client)
        .get("/channels/{channel}/settings", with(channel_view::settings))
        .get("/stats", slow(manage::stats))
        .get("/metrics", slow(metrics::metrics))
        .delete("/channels/{channel}", with(manage::remove))
        .delete("/channels", slow(manage::remove_empty))
        .delete("/channels/{channel}/clients", slow(manage::disconnect_some))
        .delete("/channels/{channel}/clients/{id}", with(manage::disconnect))
        .engine
}

/// Adds routes that need a right.
struct Guarded<'a> {
    engine: EngineBuilder,
    context: &'a Context,
}

impl Guarded<'_> {
    fn post<R: IntoResponse>(
        self,
        path: &str,
        right: Right,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Self {
        self.route(Method::Post, path, right, handler)
    }

    fn get<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Self {
        self.route(Method::Get, path, Right::Manage, handler)
    }

    fn delete<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Self {
        self.route(Method::Delete, path, Right::Manage, handler)
    }

    fn route<R: IntoResponse>(
        mut self,
        method: Method,
        path: &str,
        right: Right,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Self {
        let context = self.context.clone();
        let check = move |request: &mut Request| {
            let config = context.config();
            let checked = config.access.check(right, request, &context.access);
            let refused = checked.err()?;
            Some(Problem::from(refused).into_response())
        };
        let engine = self.engine.guard(method.clone(), path, check);
        self.engine = engine.route(method, path, handler);
        self
    }
}

/// A handler of a request.
type WithContext = fn(&Request, &Context) -> Result<Response, Problem>;

/// A handler that answers with a stream.
type Subscribe = fn(&Request, &Context) -> Result<Subscription, Problem>;

fn no_name(_: &Request) -> Problem {
    ChannelError::Name.into()
}

const HINT: &str = "\
pushwheel: a push server over Server-Sent Events

GET    /channels/{channel}               subscribe to a channel; with Accept: application/json
                                         read its events
GET    /events?channel=a&channel=b       subscribe to several channels
POST   /channels/{channel}               publish: JSON {\"event\": ..., \"data\": ...} or text
POST   /channels                         publish to every channel, or to several:
                                         POST /channels?channel=a&channel=b
POST   /tickets                          make a ticket that opens one stream
GET    /channels                         list the channels
GET    /channels/{channel}/clients       list the clients of a channel
GET    /channels/{channel}/settings      view the settings of a channel
DELETE /channels/{channel}?finish        finish a channel
GET    /stats  /metrics                  view figures
GET    /health  /ready                   check the server
";
