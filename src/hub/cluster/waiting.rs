//! [`Waiting`]: requests for streams of clients that know what this node is about to apply.
//!
//! A client that comes from another node may have seen an event that this one is about to
//! apply. Its request waits until that is so. Everything that was in the log when the request
//! came is applied when a block of this node that was sealed later comes back. If the number
//! is still not reached then, it was never given. The same holds for an own id that this node
//! does not know.
//!
//! A client may have seen an event that the log has lost. The nodes that had it say so soon
//! after a term has begun. Until then the request waits, so that the client receives the gap
//! once, in its place.

use std::collections::VecDeque;

use crate::hub::key::ChannelKey;

/// The most requests that wait. Beyond them, the oldest goes on as it is.
const WAITING_MAX: usize = 4_096;

/// How long a request waits for an event.
const WAIT_MS: u64 = 2_000;

/// How long nodes may take to say what a term has lost: two pauses between attempts to reach
/// the broker, and a little.
const LOSSES_MS: u64 = 5_000;

/// The most terms whose losses are expected at a time.
const TERMS_MAX: usize = 64;

/// What a request waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// The event of this number.
    Event(u64),
    OwnId(AwaitedId),
    Loss(Loss),
}

/// The event of an own id in one of some channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AwaitedId {
    pub(in crate::hub) channels: Box<[ChannelKey]>,
    pub(in crate::hub) id: Box<str>,
}

/// The gap of a loss in one of some channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(in crate::hub) channels: Box<[ChannelKey]>,
    /// The first number of the term that has lost something.
    pub(in crate::hub) term: u64,
    /// Until when nodes may say it.
    pub(super) due_ms: u64,
}

/// For what a subscription has waited. It waits for each once, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Waited {
    #[default]
    Nothing,
    ForEvent,
    ForLoss,
}

impl Awaited {
    pub(crate) fn waited(&self) -> Waited {
        match self {
            Awaited::Event(_) | Awaited::OwnId(_) => Waited::ForEvent,
            Awaited::Loss(_) => Waited::ForLoss,
        }
    }
}

/// Why a request waits no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Released {
    /// The node has applied all that the request may have waited for.
    Applied,
    /// No node has said what is lost.
    Unsaid,
    /// The log does not come back in time.
    TooLate,
}

/// What goes on with a request.
pub(crate) type GoOn = Box<dyn FnOnce(Released) + Send>;

struct Request {
    awaited: Awaited,
    /// The block of this node that comes back after the event, at the latest.
    block: u64,
    due_ms: u64,
    go_on: GoOn,
}

impl Request {
    /// Why it goes on when its time is over.
    fn too_late(&self) -> Released {
        match self.awaited {
            Awaited::Event(_) | Awaited::OwnId(_) => Released::TooLate,
            Awaited::Loss(_) => Released::Unsaid,
        }
    }
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct Waiting {
    /// In the order in which they came.
    requests: VecDeque<Request>,
    /// The first numbers of terms, and until when their losses are expected.
    terms: VecDeque<(u64, u64)>,
}

impl Waiting {
    /// Adds a request. Returns one that is to go on for lack of room.
    pub(super) fn add(
        &mut self,
        awaited: Awaited,
        block: u64,
        now_ms: u64,
        go_on: GoOn,
    ) -> Option<GoOn> {
        let due_ms = match &awaited {
            Awaited::Event(_) | Awaited::OwnId(_) => now_ms.saturating_add(WAIT_MS),
            Awaited::Loss(loss) => loss.due_ms,
        };
        self.requests.push_back(Request {
            awaited,
            block,
            due_ms,
            go_on,
        });
        let is_full = self.requests.len() > WAITING_MAX;
        let oldest = is_full.then(|| self.requests.pop_front()).flatten();
        oldest.map(|request| request.go_on)
    }

    /// Returns how many requests wait for own ids.
    pub(super) fn own_ids(&self) -> usize {
        let all = self.requests.iter();
        all.filter(|request| matches!(request.awaited, Awaited::OwnId(_)))
            .count()
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Returns what goes on now that everything up to `applied` is applied, and `block` of
    /// this node has come back.
    pub(super) fn applied(&mut self, applied: u64, block: Option<u64>) -> Vec<GoOn> {
        let is_back = |request: &Request| block.is_some_and(|block| request.block <= block);
        let is_released = |request: &Request| match request.awaited {
            Awaited::Event(number) => number <= applied || is_back(request),
            Awaited::OwnId(_) => is_back(request),
            Awaited::Loss(_) => false,
        };
        go_on(self.take(is_released))
    }

    /// Returns what goes on now that the hub has it.
    pub(super) fn found(&mut self, is_found: impl Fn(&Awaited) -> bool) -> Vec<GoOn> {
        go_on(self.take(|request| is_found(&request.awaited)))
    }

    /// Returns what has waited for too long.
    pub(super) fn too_late(&mut self, now_ms: u64) -> Vec<(Released, GoOn)> {
        let late = self.take(|request| request.due_ms <= now_ms);
        let late = late.into_iter();
        late.map(|request| (request.too_late(), request.go_on))
            .collect()
    }

    /// Returns all that waits.
    pub(super) fn all(&mut self) -> Vec<GoOn> {
        go_on(self.take(|_| true))
    }

    /// Notes that a term has begun, whose losses are to be expected from now on.
    pub(super) fn expect_losses(&mut self, term: u64, now_ms: u64) {
        if self.terms.iter().any(|(first, _)| *first == term) {
            return;
        }
        if self.terms.len() == TERMS_MAX {
            self.terms.pop_front();
        }
        let until_ms = now_ms.saturating_add(LOSSES_MS);
        self.terms.push_back((term, until_ms));
    }

    /// Returns until when nodes may say what a term has lost.
    pub(super) fn losses_until(&self, term: u64, now_ms: u64) -> Option<u64> {
        let mut terms = self.terms.iter().rev();
        let (_, until_ms) = terms.find(|(first, _)| *first == term)?;
        (now_ms < *until_ms).then_some(*until_ms)
    }

    fn take(&mut self, is_taken: impl Fn(&Request) -> bool) -> Vec<Request> {
        if !self.requests.iter().any(&is_taken) {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.requests);
        let (taken, left): (Vec<_>, Vec<_>) = all.into_iter().partition(is_taken);
        self.requests = left.into();
        taken
    }
}

fn go_on(requests: Vec<Request>) -> Vec<GoOn> {
    let requests = requests.into_iter();
    requests.map(|request| request.go_on).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_for_its_number_or_a_later_block_and_not_for_ever() {
        let mut waiting = Waiting::default();
        let mut add = |number, block, now_ms| {
            let over = waiting.add(Awaited::Event(number), block, now_ms, Box::new(|_| ()));
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
            let over = waiting.add(Awaited::Event(1), 1, n as u64, Box::new(|_| ()));
            assert!(over.is_none());
        }
        let over = waiting.add(Awaited::Event(1), 1, 0, Box::new(|_| ()));
        assert!(over.is_some());
        assert_eq!(waiting.len(), WAITING_MAX);
        assert_eq!(waiting.all().len(), WAITING_MAX);
    }

    #[test]
    fn a_request_waits_for_a_loss_while_nodes_may_say_it() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.losses_until(100, 0), None);
        for term in 1..=TERMS_MAX as u64 {
            waiting.expect_losses(100 * term, 7);
        }
        waiting.expect_losses(9_000, 8);
        assert_eq!(
            waiting.losses_until(100, 8),
            None,
            "the oldest is forgotten"
        );
        assert_eq!(waiting.losses_until(200, 8), Some(LOSSES_MS + 7));
        assert_eq!(waiting.losses_until(200, LOSSES_MS + 7), None);
        for term in [200, 9_000] {
            let loss = Loss {
                channels: Box::default(),
                term,
                due_ms: waiting.losses_until(term, 8).unwrap(),
            };
            let over = waiting.add(Awaited::Loss(loss), 1, 8, Box::new(|_| ()));
            assert!(over.is_none());
        }
        // Events that are applied, and blocks that come back, say nothing of it.
        assert_eq!(waiting.applied(u64::MAX, Some(u64::MAX)).len(), 0);
        assert_eq!(
            waiting
                .found(|one| matches!(one, Awaited::Loss(loss) if loss.term == 200))
                .len(),
            1
        );
        assert_eq!(waiting.too_late(LOSSES_MS + 7).len(), 0);
        let late = waiting.too_late(LOSSES_MS + 8);
        let why: Vec<Released> = late.iter().map(|(why, _)| *why).collect();
        assert_eq!(why, [Released::Unsaid]);
    }
}
