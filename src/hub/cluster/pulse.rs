//! [`Pulse`]: the periodic work of a node. It appends a probe to the log each second,
//! and ends requests that have waited for too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::shared::{Cluster, Lost, Next};
use crate::hub::Hub;
use crate::hub::proposals::{Proposals, Waiting};
use crate::journal::probe::{Probe, TEXT_BYTES_MAX};
use crate::journal::record::{Change, Record};

/// The time between two probes, in milliseconds.
const PROBE_MS: u64 = 1_000;

/// The time between two checks, in milliseconds.
const LOOK_MS: u64 = 100;

/// See the [module](self).
pub(super) struct Pulse {
    cluster: Arc<Cluster>,
    proposals: Arc<Proposals<Hub>>,
    hub: Arc<Hub>,
    probe_at_ms: u64,
    /// Whether a probe is on its way.
    is_probing: Arc<AtomicBool>,
}

impl Pulse {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        proposals: Arc<Proposals<Hub>>,
        hub: Arc<Hub>,
    ) -> Pulse {
        Pulse {
            cluster,
            proposals,
            hub,
            probe_at_ms: 0,
            is_probing: Arc::default(),
        }
    }

    pub(super) fn step(&mut self) -> Next {
        let now_ms = self.proposals.clock().now_ms();
        if self.proposals.is_closed() {
            return Next::Ended;
        }
        self.proposals.look();
        self.cluster.look(now_ms);
        self.cluster.release_late(now_ms);
        self.cluster.expire_unconfirmed(now_ms);
        if now_ms >= self.probe_at_ms && !self.is_probing.swap(true, Relaxed) {
            self.probe_at_ms = now_ms + PROBE_MS;
            self.probe(now_ms);
        }
        for lost in self.cluster.take_losses() {
            self.say_lost(lost);
        }
        Next::At(now_ms + LOOK_MS)
    }

    fn probe(&self, now_ms: u64) {
        let (clients, channels) = {
            let state = self.hub.lock();
            (state.clients as u64, state.names.len() as u64)
        };
        let options = &self.cluster.options;
        let applied = self.cluster.applied();
        let probe = Probe {
            name: shortened(&options.node_name),
            version: shortened(&options.version),
            applied,
            clients,
            channels,
            options_digest: options.options_digest,
            is_draining: self.cluster.is_draining(),
        };
        let (cluster, is_probing) = (self.cluster.clone(), self.is_probing.clone());
        let clock = self.proposals.clock().clone();
        let record = Record {
            basis: applied,
            change: Change::Probe(Box::new(probe)),
        };
        self.propose(record, move |is_applied| {
            is_probing.store(false, Relaxed);
            if is_applied {
                let lag_ms = clock.now_ms().saturating_sub(now_ms);
                cluster.set_lag(Duration::from_millis(lag_ms));
            }
        });
    }

    /// Says in the log that events of a channel, or of any, are lost.
    fn say_lost(&self, lost: Lost) {
        let cluster = self.cluster.clone();
        let record = Record {
            basis: lost.had,
            change: Change::LostIn {
                term: lost.term,
                channel: lost.channel.clone(),
            },
        };
        self.propose(record, move |is_applied| match is_applied {
            true => cluster.loss_is_said(),
            false => cluster.put_back_loss(lost),
        });
    }

    fn propose(&self, record: Record, then: impl FnOnce(bool) + Send + 'static) {
        use crate::hub::published::PublishError;
        let waiting = Waiting {
            clients: 0,
            key: None,
            then: Some(Box::new(move |outcome| {
                // What is refused where it is applied was in the log.
                let is_applied = matches!(outcome, Ok(_) | Err(PublishError::Finished));
                then(is_applied);
            })),
        };
        if let Err((error, waiting)) = self.proposals.propose(&self.hub, record, waiting) {
            waiting.report(Err(error));
        }
    }
}

/// Returns the text, or as much of it as there is room for.
fn shortened(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
