//! Requests for streams of clients that come from another node. They have seen events that
//! this node does not have yet, or that are lost, and the log does not say so yet.

use super::waiting::{GoOn, Loss};
use crate::hub::Hub;
use crate::hub::channel::Channel;
use crate::hub::id::Parsed;
use crate::hub::join::Start;

pub(crate) use super::waiting::{Awaited, Released, Waited};

impl Hub {
    /// Returns whether this is a node of a cluster.
    pub(crate) fn is_node(&self) -> bool {
        self.cluster.get().is_some()
    }

    /// Returns what a stream of these channels is to wait for: the event that the client has
    /// seen, if this node of a cluster may be about to apply it, or that its loss is said.
    pub(crate) fn awaited(&self, start: &Start, channels: &[Channel]) -> Option<Awaited> {
        let (Some(cluster), Start::After(id)) = (self.cluster.get(), start) else {
            return None;
        };
        let Parsed::Ours(number) = self.ids.parse(id) else {
            return None;
        };
        let term = {
            let state = self.lock();
            if number > state.sequence {
                return Some(Awaited::Event(number));
            }
            state.terms.jump_over(number)?.first
        };
        let channels = channels.iter().map(Channel::key).collect();
        let loss = Loss {
            channels,
            term,
            due_ms: cluster.losses_until(term, self.clock.now_ms())?,
        };
        (!self.is_said(&loss)).then_some(Awaited::Loss(loss))
    }

    /// Calls `go_on` when this node has applied what a client knows, or all that is in the log
    /// now, or when a loss was said. It may run at once, or on another thread.
    pub(crate) fn wait_for(&self, awaited: Awaited, go_on: GoOn) {
        let (Some(cluster), Some(proposals)) = (self.cluster.get(), &self.proposals) else {
            return go_on(Released::Applied);
        };
        let now_ms = self.clock.now_ms();
        match awaited {
            Awaited::Event(number) => {
                cluster.wait_for(number, proposals.next_n(), now_ms, go_on);
            }
            Awaited::Loss(loss) => {
                cluster.wait_for_loss(loss.clone(), now_ms, go_on);
                // It may have been said since the caller has looked. Very many may come at a
                // time, so all that wait are looked at in that case only.
                if self.is_said(&loss) {
                    self.release_said();
                }
            }
        }
    }

    /// Lets requests go on whose losses this hub has.
    pub(super) fn release_said(&self) {
        if let Some(cluster) = self.cluster.get() {
            cluster.release_said(|loss| self.is_said(loss));
        }
    }

    /// Returns whether one of the channels has the gap of a loss.
    fn is_said(&self, loss: &Loss) -> bool {
        let state = self.lock();
        let mut channels = loss.channels.iter().filter_map(|key| state.get(*key));
        channels.any(|channel| state.has_gap_of(channel.scope(), loss.term))
    }
}
