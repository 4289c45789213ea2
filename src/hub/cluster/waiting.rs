//! [`Waiting`]: requests for streams of clients that know a newer event than this node.
//!
//! A client that comes from another node may have seen an event that this one is about to
//! apply. Its request waits until that is so. Everything that was in the log when the request
//! came is applied when a block of this node that was sealed later comes back. If the number
//! is still not reached then, it was never given.

use std::collections::VecDeque;

/// The most requests that wait. Beyond them, the oldest goes on as it is.
const WAITING_MAX: usize = 4_096;

/// How long a request waits.
const WAIT_MS: u64 = 2_000;

/// Why a request waits no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Released {
    /// The node has applied all that the request may have waited for.
    Applied,
    /// The log does not come back in time.
    TooLate,
}

/// What goes on with a request.
pub(crate) type GoOn = Box<dyn FnOnce(Released) + Send>;

struct Request {
    /// The number that the client knows.
    number: u64,
    /// The block of this node that comes back after it, at the latest.
    block: u64,
    due_ms: u64,
    go_on: GoOn,
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct Waiting {
    /// In the order in which they came.
    requests: VecDeque<Request>,
}

impl Waiting {
    /// Adds a request. Returns one that is to go on for lack of room.
    pub(super) fn add(
        &mut self,
        number: u64,
        block: u64,
        now_ms: u64,
        go_on: GoOn,
    ) -> Option<GoOn> {
        self.requests.push_back(Request {
            number,
            block,
            due_ms: now_ms.saturating_add(WAIT_MS),
            go_on,
        });
        let is_full = self.requests.len() > WAITING_MAX;
        let oldest = is_full.then(|| self.requests.pop_front()).flatten();
        oldest.map(|request| request.go_on)
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Returns what goes on now that everything up to `applied` is applied, and `block` of
    /// this node has come back.
    pub(super) fn applied(&mut self, applied: u64, block: Option<u64>) -> Vec<GoOn> {
        let is_released = |request: &Request| {
            request.number <= applied || block.is_some_and(|block| request.block <= block)
        };
        self.take(is_released)
    }

    /// Returns what has waited for too long.
    pub(super) fn too_late(&mut self, now_ms: u64) -> Vec<GoOn> {
        self.take(|request| request.due_ms <= now_ms)
    }

    /// Returns all that waits.
    pub(super) fn all(&mut self) -> Vec<GoOn> {
        self.take(|_| true)
    }

    fn take(&mut self, is_taken: impl Fn(&Request) -> bool) -> Vec<GoOn> {
        if !self.requests.iter().any(&is_taken) {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.requests);
        let (taken, left): (Vec<_>, Vec<_>) = all.into_iter().partition(is_taken);
        self.requests = left.into();
        taken.into_iter().map(|request| request.go_on).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_for_its_number_or_a_later_block_and_not_for_ever() {
        let mut waiting = Waiting::default();
        let mut add = |number, block, now_ms| {
            let over = waiting.add(number, block, now_ms, Box::new(|_| ()));
            over.is_some()
        };
        assert!(!add(10, 3, 0));
        assert!(!add(20, 3, 5));
        assert!(!add(30, 4, 9));
        assert_eq!(waiting.applied(9, Some(2)).len(), 0);
        assert_eq!(waiting.applied(10, Some(2)).len(), 1);
        assert_eq!(waiting.applied(11, Some(3)).len(), 1);
        assert_eq!(waiting.too_late(WAIT_MS + 8).len(), 0);
        assert_eq!(waiting.too_late(WAIT_MS + 9).len(), 1);
        assert_eq!(waiting.len(), 0);
    }

    #[test]
    fn the_oldest_goes_on_if_too_many_wait() {
        let mut waiting = Waiting::default();
        for n in 0..WAITING_MAX {
            assert!(waiting.add(1, 1, n as u64, Box::new(|_| ())).is_none());
        }
        assert!(waiting.add(1, 1, 0, Box::new(|_| ())).is_some());
        assert_eq!(waiting.len(), WAITING_MAX);
        assert_eq!(waiting.all().len(), WAITING_MAX);
    }
}
