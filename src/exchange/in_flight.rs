//! The number of requests that wait for an answer from another thread.
//!
//! A request counts from its deferral until the reactor has read its answer, also if the
//! client has gone: the limit is on the threads' work and on the command queue, and both
//! continue without the client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The count, shared by an engine's reactors.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight(Arc<AtomicUsize>);

/// One request of the count.
#[derive(Debug)]
pub(crate) struct Ticket(InFlight);

impl InFlight {
    /// Counts one more, if there are fewer than `max`.
    pub(crate) fn admit(&self, max: usize) -> Option<Ticket> {
        let more = |count: usize| (count < max).then_some(count + 1);
        let admitted = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        admitted.is_ok().then(|| Ticket(self.clone()))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_again_when_a_ticket_is_dropped() {
        let in_flight = InFlight::default();
        let first = in_flight.admit(2).unwrap();
        let _second = in_flight.clone().admit(2).unwrap();
        assert!(in_flight.admit(2).is_none());
        drop(first);
        assert!(in_flight.admit(2).is_some());
        assert!(in_flight.admit(1).is_none(), "the limit was lowered");
        assert_eq!(in_flight.count(), 1);
    }
}
