//! The server's routes, and which of them need a right.

use super::access::Right;
use super::context::Live;
use super::errors::Problem;
use super::worker::Clerk;
use super::{access_log, assets, manage, metrics, page, publish, subscribe};
use pushwheel::{EngineBuilder, IntoResponse, Method, Request, Subscription};

pub(super) fn add(engine: EngineBuilder, live: &Live) -> EngineBuilder {
    let (one, all, tickets) = (live.clone(), live.clone(), live.clone());
    let to_one = move |request: &Request| publish::to_one(request, &one);
    let to_all = move |request: &Request| publish::to_all(request, &all);
    let ticket = move |request: &Request| tickets.rules().access.ticket(request, &tickets.office);
    let clerk = Clerk::hire();
    let look = |look: manage::Look| {
        let clerk = clerk.clone();
        move |request: &Request| clerk.answer(request, look)
    };
    let follow = |subscribe: Subscribe| {
        let live = live.clone();
        move |request: &Request| {
            let stream = subscribe(request, &live)?;
            Ok::<_, Problem>(access_log::follow(&live, request, stream))
        }
    };
    let engine = assets::routes(engine);
    let engine = page::routes(engine, live, HINT)
        .get("/health", manage::health)
        .get("/ready", manage::ready)
        .get("/events", follow(subscribe::several))
        .get("/channels/{channel}", follow(subscribe::one))
        .get("/channels/", nameless)
        .post("/channels/", nameless)
        .delete("/channels/", nameless);
    Guarded { engine, live }
        .post("/channels/{channel}", Right::Publish, to_one)
        .post("/channels", Right::Publish, to_all)
        .post("/tickets", Right::MakeTickets, ticket)
        .get("/channels", look(manage::names))
        .get("/channels/{channel}/clients", look(manage::clients))
        .get("/channels/{channel}/clients/{id}", manage::client)
        .get("/stats", look(manage::stats))
        .get("/metrics", look(metrics::metrics))
        .delete("/channels/{channel}", manage::remove)
        .delete("/channels", look(manage::remove_empty))
        .delete("/channels/{channel}/clients/{id}", manage::disconnect)
        .engine
}

/// Routes that are not for everybody.
struct Guarded<'a> {
    engine: EngineBuilder,
    live: &'a Live,
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

    /// Looking at what there is.
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
        let look = self.live.guard(right);
        let engine = self.engine.guard(method.clone(), path, look);
        self.engine = engine.route(method, path, handler);
        self
    }
}

/// What answers with a stream.
type Subscribe = fn(&Request, &Live) -> Result<Subscription, Problem>;

fn nameless(_: &Request) -> Problem {
    pushwheel::ChannelError::Name.into()
}

const HINT: &str = "\
pushwheel: a push server over Server-Sent Events

GET    /channels/{channel}               its stream
GET    /events?channel=a&channel=b       one stream of several channels
POST   /channels/{channel}               publish: JSON {\"event\": ..., \"data\": ...} or text
POST   /channels                         publish to every channel
POST   /tickets                          a ticket that opens one stream
GET    /channels                         the channels' names
GET    /channels/{channel}/clients       who is there
DELETE /channels/{channel}?finish        end a channel
GET    /stats  /metrics                  how it is doing
GET    /health  /ready                   whether it is
";
