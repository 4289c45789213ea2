//! The part of the configuration that may change while the server runs.
//!
//! Every request is judged by the rules that hold when it comes: it takes
//! them once, and they are replaced as a whole.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::access::{Access, Hosts, Office, Right};
use super::clock::Stopwatch;
use super::limiter::Limiter;
use super::throttle::Throttle;
use pushwheel::{IntoResponse, Rate, Request, Response};

/// What holds for requests.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) access: Access,
    /// Of a server on loopback.
    pub(super) hosts: Option<Hosts>,
    pub(super) publish_rate_per_address: Option<Rate>,
    /// Whether requests are logged.
    pub(super) access_log: bool,
    /// Whether streams and what is published are logged.
    pub(super) event_log: bool,
}

/// The rules of the moment, and what is counted for them.
#[derive(Clone, Debug)]
pub(super) struct Live {
    rules: Arc<ArcSwap<Rules>>,
    pub(super) limiter: Limiter,
    pub(super) office: Office,
    pub(super) stopwatch: Stopwatch,
    /// For the warning of a proxy before a server without keys.
    pub(super) proxy_warning: Throttle,
}

impl Live {
    pub(super) fn new(rules: Rules) -> Live {
        Live {
            rules: Arc::new(ArcSwap::from_pointee(rules)),
            limiter: Limiter::new(),
            office: Office::new(),
            stopwatch: Stopwatch::start(),
            proxy_warning: Throttle::new(),
        }
    }

    pub(super) fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Requests that come from now on are judged by these rules.
    pub(super) fn replace_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// What keeps those from a route who do not have the right.
    pub(super) fn guard(
        &self,
        right: Right,
    ) -> impl Fn(&mut Request) -> Option<Response> + Send + Sync + 'static {
        let live = self.clone();
        move |request: &mut Request| {
            let access = &live.rules().access;
            let may = match right {
                Right::Publish => access.publish(request, request.param("channel"), &live.office),
                Right::MakeTickets => access.make_tickets(request, &live.office),
                Right::Manage => access.manage(request, &live.office),
            };
            may.err().map(IntoResponse::into_response)
        }
    }
}
