//! The configuration that holds now, and the state that requests share.
//!
//! A handler loads the configuration once, so it never sees parts of two. A reload replaces
//! the configuration as a whole and leaves the state.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::access::{Access, AccessState};
use super::clock::Stopwatch;
use super::cluster::Cluster;
use super::limiter::Limiter;
use super::pattern::Pattern;
use super::throttle::Throttle;
use pushwheel::{ChannelManager, Rate, Request, Response};

/// The part of the configuration that a reload replaces.
#[derive(Debug)]
pub(super) struct CurrentConfig {
    pub(super) access: Access,
    /// The patterns of channels with settings of their own. The first one that matches
    /// applies.
    pub(super) patterns: Vec<Pattern>,
    /// Whether bodies are data as they are. The first pattern that matches applies.
    pub(super) raw: Vec<(Pattern, bool)>,
    /// Whether requests are checked for the hosts of loopback.
    pub(super) checks_hosts: bool,
    pub(super) publish_rate_per_address: Option<Rate>,
    pub(super) access_log: bool,
    pub(super) event_log: bool,
}

impl CurrentConfig {
    /// Returns whether the body of a publish to a channel is data, whatever its type.
    pub(super) fn is_raw(&self, channel: &str) -> bool {
        let found = self
            .raw
            .iter()
            .find(|(pattern, _)| pattern.matches(channel));
        found.is_some_and(|(_, is_raw)| *is_raw)
    }
}

/// The context of every request. All clones share it.
#[derive(Clone, Debug)]
pub(super) struct Context(Arc<Shared>);

/// What a [`Context`] has.
#[derive(Debug)]
pub(super) struct Shared {
    config: ArcSwap<CurrentConfig>,
    pub(super) access: AccessState,
    pub(super) publish_limiter: Limiter,
    pub(super) stopwatch: Stopwatch,
    /// Whether the answer to a change waits for a journal or a broker.
    pub(super) has_log: bool,
    /// What the nodes of a cluster share, if this is one.
    pub(super) cluster: Option<Cluster>,
    /// Limits the warnings of a proxy before a server without keys.
    pub(super) proxy_warning: Throttle,
    /// Limits the warnings of rejected subscriptions.
    pub(super) subscription_warning: Throttle,
}

impl Context {
    pub(super) fn new(
        config: CurrentConfig,
        channels: &ChannelManager,
        broker_grace: Option<Duration>,
    ) -> Context {
        let cluster = Cluster::of(channels, broker_grace);
        let has_journal = channels.journal_status().is_some();
        Context(Arc::new(Shared {
            config: ArcSwap::from_pointee(config),
            access: AccessState::new(),
            publish_limiter: Limiter::new(),
            stopwatch: Stopwatch::start(),
            has_log: has_journal || cluster.is_some(),
            cluster,
            proxy_warning: Throttle::new(),
            subscription_warning: Throttle::new(),
        }))
    }

    /// Returns the number of nodes in a cluster: an answer that has it is about this node.
    pub(super) fn nodes(&self, request: &Request) -> Option<usize> {
        let cluster = self.cluster.as_ref()?;
        Some(cluster.nodes(request.channels()))
    }

    /// Marks a response that is about this node of a cluster only.
    pub(super) fn of_this_node(&self, request: &Request, mut response: Response) -> Response {
        if let Some(nodes) = self.nodes(request) {
            let set = response
                .headers_mut()
                .insert("Pushwheel-Nodes", nodes.to_string());
            set.expect("a number is valid in a header");
        }
        response
    }

    pub(super) fn config(&self) -> Arc<CurrentConfig> {
        self.config.load_full()
    }

    /// Sets the configuration of later requests.
    pub(super) fn set_config(&self, config: CurrentConfig) {
        self.config.store(Arc::new(config));
    }
}

impl Deref for Context {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
