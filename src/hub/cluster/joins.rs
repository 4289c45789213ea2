//! Requests for streams of clients that come from another node. They have seen events that
//! this node does not have yet, or that are lost, and the log does not say so yet.

use super::waiting::{AwaitedId, GoOn, Loss};
use crate::hub::Hub;
use crate::hub::channel::Channel;
use crate::hub::id::Parsed;
use crate::hub::join::Start;

pub(crate) use super::waiting::{Awaited, Released, Waited};

/// The most own ids that are looked for after each block. If there are more, their requests wait
/// for a block of this node.
const OWN_IDS_MAX: usize = 64;

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
        let channels = channels.iter().map(Channel::key).collect();
        let Parsed::Ours(number) = self.ids.parse(id) else {
            let own = AwaitedId {
                channels,
                id: (**id).into(),
            };
            return (!self.is_known(&own)).then_some(Awaited::OwnId(own));
        };
        let term = {
            let state = self.lock();
            if number > state.sequence {
                return Some(Awaited::Event(number));
            }
            state.terms.jump_over(number)?.first
        };
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
        let (now_ms, block) = (self.clock.now_ms(), proposals.next_n());
        cluster.wait_for(awaited.clone(), block, now_ms, go_on);
        // It may be there since the caller has looked. Very many may come at a time, so all
        // that wait are looked at in that case only.
        if self.has(&awaited) {
            self.release(|awaited| self.has(awaited));
        }
    }

    /// Lets requests go on whose losses this hub has.
    pub(super) fn release_said(&self) {
        self.release(|awaited| matches!(awaited, Awaited::Loss(loss) if self.is_said(loss)));
    }

    /// Lets requests go on whose own ids this hub knows, unless they are many.
    pub(super) fn release_known(&self) {
        let awaited = self.cluster.get().map_or(0, |c| c.own_ids_awaited());
        if !(1..=OWN_IDS_MAX).contains(&awaited) {
            return;
        }
        self.release(|awaited| matches!(awaited, Awaited::OwnId(own) if self.is_known(own)));
    }

    fn release(&self, is_found: impl Fn(&Awaited) -> bool) {
        if let Some(cluster) = self.cluster.get() {
            cluster.release_found(is_found);
        }
    }

    /// Returns whether the hub has what a request waits for, if numbers do not tell.
    fn has(&self, awaited: &Awaited) -> bool {
        match awaited {
            Awaited::Event(_) => false,
            Awaited::OwnId(own) => self.is_known(own),
            Awaited::Loss(loss) => self.is_said(loss),
        }
    }

    /// Returns whether one of the channels has the gap of a loss.
    fn is_said(&self, loss: &Loss) -> bool {
        let state = self.lock();
        let mut channels = loss.channels.iter().filter_map(|key| state.get(*key));
        channels.any(|channel| state.has_gap_of(channel.scope(), loss.term))
    }

    /// Returns whether one of the channels has or had the event of an own id.
    fn is_known(&self, own: &AwaitedId) -> bool {
        let state = self.lock();
        let mut channels = own.channels.iter().filter_map(|key| state.get(*key));
        channels.any(|channel| state.places_of(channel, &own.id).next().is_some())
    }
}
