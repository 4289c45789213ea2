//! [`Unconfirmed`]: outcomes of blocks that can be read already, and that the log has not
//! confirmed yet. A log may confirm an append when enough copies have the block.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

/// Passes an outcome on. Dropped, it reports that the outcome is not known.
pub(super) type PassOn = Box<dyn FnOnce() + Send>;

pub(super) type Outcomes = Vec<PassOn>;

/// See the [module](self).
pub(super) struct Unconfirmed {
    /// The blocks that are confirmed.
    confirmed: RangeInclusive<u64>,
    /// Oldest first.
    held: VecDeque<Held>,
}

struct Held {
    n: u64,
    until_ms: u64,
    outcomes: Outcomes,
}

impl Default for Unconfirmed {
    fn default() -> Unconfirmed {
        Unconfirmed {
            confirmed: RangeInclusive::new(1, 0),
            held: VecDeque::new(),
        }
    }
}

impl Unconfirmed {
    /// Holds the outcomes of a block, and returns them if it is confirmed.
    pub(super) fn hold(&mut self, n: u64, until_ms: u64, outcomes: Outcomes) -> Outcomes {
        if self.confirmed.contains(&n) || outcomes.is_empty() {
            return outcomes;
        }
        self.held.push_back(Held {
            n,
            until_ms,
            outcomes,
        });
        Outcomes::new()
    }

    /// Returns the outcomes of these blocks, which one session has appended, the last of them
    /// confirmed; and those of earlier sessions. A failover may have lost the latter, so it
    /// is not known whether they are in the log.
    pub(super) fn confirm(&mut self, blocks: RangeInclusive<u64>) -> (Outcomes, Outcomes) {
        let unknown = self.take(|held| held.n < *blocks.start());
        let confirmed = self.take(|held| held.n <= *blocks.end());
        self.confirmed = blocks;
        (confirmed, unknown)
    }

    /// Returns the outcomes that are confirmed too late.
    pub(super) fn expire(&mut self, now_ms: u64) -> Outcomes {
        self.take(|held| held.until_ms <= now_ms)
    }

    fn take(&mut self, is_due: impl Fn(&Held) -> bool) -> Outcomes {
        let count = self.held.iter().take_while(|held| is_due(held)).count();
        let due = self.held.drain(..count);
        due.flat_map(|held| held.outcomes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn outcomes(count: usize) -> Outcomes {
        (0..count).map(|_| Box::new(|| ()) as PassOn).collect()
    }

    #[test]
    fn outcomes_are_held_until_their_block_or_a_later_one_is_confirmed() {
        let mut unconfirmed = Unconfirmed::default();
        assert!(unconfirmed.hold(1, 100, outcomes(1)).is_empty());
        assert!(unconfirmed.hold(2, 100, outcomes(2)).is_empty());
        assert!(unconfirmed.hold(3, 100, outcomes(4)).is_empty());
        let confirm = |unconfirmed: &mut Unconfirmed, blocks| {
            let (confirmed, unknown) = unconfirmed.confirm(blocks);
            (confirmed.len(), unknown.len())
        };
        assert_eq!(confirm(&mut unconfirmed, 1..=2), (3, 0));
        assert_eq!(confirm(&mut unconfirmed, 1..=2), (0, 0));
        // The confirmation may come first.
        assert_eq!(confirm(&mut unconfirmed, 1..=4), (4, 0));
        assert_eq!(unconfirmed.hold(4, 100, outcomes(1)).len(), 1);
        // A session confirms nothing of the one before.
        assert!(unconfirmed.hold(5, 100, outcomes(2)).is_empty());
        assert_eq!(confirm(&mut unconfirmed, 6..=6), (0, 2));
    }

    #[test]
    fn outcomes_are_not_held_for_ever() {
        let mut unconfirmed = Unconfirmed::default();
        unconfirmed.hold(1, 100, outcomes(1));
        unconfirmed.hold(2, 200, outcomes(2));
        assert_eq!(unconfirmed.expire(99).len(), 0);
        assert_eq!(unconfirmed.expire(100).len(), 1);
        assert_eq!(unconfirmed.confirm(1..=1).0.len(), 0);
        assert_eq!(unconfirmed.expire(200).len(), 2);
    }
}
