//! Requests for streams of clients that come from another node and know more than this one.

use super::waiting::GoOn;
use crate::hub::Hub;
use crate::hub::id::Parsed;
use crate::hub::join::Start;

pub(crate) use super::waiting::Released;

impl Hub {
    /// Returns whether this is a node of a cluster.
    pub(crate) fn is_node(&self) -> bool {
        self.cluster.get().is_some()
    }

    /// Returns the number of the event that a client has seen, if this node of a cluster may
    /// be about to apply it.
    pub(crate) fn ahead(&self, start: &Start) -> Option<u64> {
        let Start::After(id) = start else {
            return None;
        };
        match self.ids.parse(id) {
            Parsed::Ours(number) => (number > self.newest_sequence()).then_some(number),
            Parsed::Foreign | Parsed::Unknown => None,
        }
    }

    /// Calls `go_on` when this node has applied a number, or all that is in the log now. It
    /// may run at once, or on another thread.
    pub(crate) fn wait_for(&self, number: u64, go_on: GoOn) {
        match (self.cluster.get(), &self.proposals) {
            (Some(cluster), Some(proposals)) => {
                let block = proposals.next_n();
                cluster.wait_for(number, block, self.clock.now_ms(), go_on);
            }
            _ => go_on(Released::Applied),
        }
    }
}
