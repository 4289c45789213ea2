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
    let shared = || context.clone();
    let (one, all, tickets, settings) = (shared(), shared(), shared(), shared());
    let publish_to_one = move |request: &Request| publish::to_one(request, &one);
    let publish_to_all = move |request: &Request| publish::to_all(request, &all);
    let removed_by = shared();
    let remove = move |request: &Request| manage::remove(request, &removed_by);
    let make_ticket = move |request: &Request| tickets::make(request, &tickets);
    let view_settings = move |request: &Request| channel_view::settings(request, &settings);
    let worker = Worker::start();
    let slow_with = |handler: Handler| {
        let worker = worker.clone();
        move |request: &Request| worker.answer(request, handler.clone())
    };
    let slow = |handler: fn(&Request) -> Result<Response, Problem>| slow_with(Arc::new(handler));
    let measured = shared();
    let metrics = Arc::new(move |request: &Request| metrics::metrics(request, &measured));
    let logged = |subscribe: Subscribe| {
        let context = context.clone();
        move |request: &Request| match subscribe(request, &context) {
            Ok(stream) => Ok(access_log::log_stream(&context, request, stream)),
            Err(problem) => {
                let response = problem.into_response();
                access_log::warn_of_rejection(&context, request, &response);
                Err(response)
            }
        }
    };
    let engine = assets::routes(engine);
    let engine = page::routes(engine, context, HINT)
        .get("/health", manage::health)
        .get("/ready", manage::ready)
        .get("/events", logged(subscribe::several))
        .get("/channels/{channel}", logged(subscribe::one))
        .get("/channels/", no_name)
        .post("/channels/", no_name)
        .delete("/channels/", no_name);
    Guarded { engine, context }
        .post("/channels/{channel}", Right::Publish, publish_to_one)
        .post("/channels", Right::Publish, publish_to_all)
        .post("/tickets", Right::MakeTickets, make_ticket)
        .get("/channels", slow(manage::names))
        .get("/channels/{channel}/clients", slow(manage::clients))
        .get("/channels/{channel}/clients/{id}", manage::client)
        .get("/channels/{channel}/settings", view_settings)
        .get("/stats", slow(manage::stats))
        .get("/metrics", slow_with(metrics))
        .delete("/channels/{channel}", remove)
        .delete("/channels", slow(manage::remove_empty))
        .delete("/channels/{channel}/clients", slow(manage::disconnect_some))
        .delete("/channels/{channel}/clients/{id}", manage::disconnect)
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
POST   /channels                         publish to every channel
POST   /tickets                          make a ticket that opens one stream
GET    /channels                         list the channels
GET    /channels/{channel}/clients       list the clients of a channel
GET    /channels/{channel}/settings      view the settings of a channel
DELETE /channels/{channel}?finish        finish a channel
GET    /stats  /metrics                  view figures
GET    /health  /ready                   check the server
";
