//! [`Follower`]: which block of the log is applied next.
//!
//! It does no I/O. Blocks may come in any order and more than once; each record is applied
//! once, in the order of the log.
//!
//! The invariant to remember: *all records up to `applied` were applied, and none behind
//! it*. A block that does not follow is not applied: something between is missing.

use super::block::{Block, BlockError};
use super::bytes::{Damaged, ensure};
use super::record::{Change, Record};

/// No number is higher: there is always a next one.
const NUMBER_MAX: u64 = u64::MAX >> 1;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Follower {
    applied: u64,
    /// What follows has all records up to here.
    copied: u64,
}

/// What a block turns out to be.
#[derive(Debug)]
pub(crate) enum Arrived {
    /// It was applied before.
    Seen,
    /// These are to be applied now. The first of them begins with this number. There are none
    /// if a snapshot has them all.
    Apply { first: u64, records: Vec<Record> },
    /// Blocks before it are missing. The records behind `applied` have to come from
    /// somewhere else, or a snapshot.
    Hole,
}

impl Follower {
    /// Returns the follower of a log that was applied through this number.
    pub(crate) fn new(applied: u64) -> Follower {
        Follower::behind(applied, applied)
    }

    /// Returns the follower of a log that arrives from behind `applied`, for a snapshot that
    /// has all records up to `copied`. Those are not applied again.
    pub(crate) fn behind(applied: u64, copied: u64) -> Follower {
        Follower { applied, copied }
    }

    /// Returns the number through which the log was applied.
    pub(crate) fn applied(&self) -> u64 {
        self.applied
    }

    /// Looks at a block whose first number is `first`. It follows the number before, or
    /// begins a term and says so. What it returns is to be applied before the next call.
    ///
    /// # Errors
    /// When the log cannot have such a block there. Nothing behind it may be applied.
    pub(crate) fn arrived(&mut self, first: u64, block: Block) -> Result<Arrived, BlockError> {
        let begins_term = first > self.applied + 1 && begins_term(&block.records, self.applied);
        let after = match begins_term {
            true => self.applied,
            false => first.saturating_sub(1),
        };
        self.arrived_after(after, first, block)
    }

    /// Does the same for a block that follows the number `after`.
    ///
    /// # Errors
    /// As [`arrived`](Self::arrived).
    pub(crate) fn arrived_after(
        &mut self,
        after: u64,
        first: u64,
        block: Block,
    ) -> Result<Arrived, BlockError> {
        let last = first.saturating_add(block.width.saturating_sub(1));
        ensure(
            first > 0 && last <= NUMBER_MAX,
            "a block has a number that there is not",
        )?;
        if last <= self.applied {
            return Ok(Arrived::Seen);
        }
        let Block { mut records, .. } = block;
        if after > self.applied {
            return Ok(Arrived::Hole);
        }
        let mut first = first;
        let mut seen = 0;
        let through = last.min(self.applied.max(self.copied));
        while first <= through {
            first += records[seen].change.width();
            seen += 1;
        }
        if seen > 0 {
            let is_whole = first == through + 1;
            is_whole
                .then_some(())
                .ok_or(Damaged("a record was applied in part"))?;
            records.drain(..seen);
        }
        self.applied = last;
        Ok(Arrived::Apply { first, records })
    }
}

/// Returns whether records begin a term in which all after `applied` is lost.
fn begins_term(records: &[Record], applied: u64) -> bool {
    let first = records.first().map(|record| &record.change);
    matches!(first, Some(Change::Lost { after }) if *after == applied)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::block::Sealed;
    use crate::journal::generated::{ID_PREFIX, changes};

    fn block(changes: impl IntoIterator<Item = Change>) -> Block {
        let record = |change| Record { basis: 0, change };
        let records: Vec<Record> = changes.into_iter().map(record).collect();
        let sealed = Sealed::new(1, 1, records.iter());
        Block::decode(&sealed.bytes, ID_PREFIX).unwrap()
    }

    fn removal() -> Change {
        Change::Remove {
            channel: "news".into(),
        }
    }

    #[test]
    fn a_jump_is_a_hole_unless_the_block_says_what_is_lost() {
        let mut follower = Follower::new(10);
        for (first, change) in [
            (12, removal()),
            (100, Change::Lost { after: 9 }),
            (100, Change::Lost { after: 11 }),
        ] {
            let arrived = follower.arrived(first, block([change])).unwrap();
            assert!(matches!(arrived, Arrived::Hole), "{first}");
        }
        let lost_later = block([removal(), Change::Lost { after: 10 }]);
        let arrived = follower.arrived(100, lost_later).unwrap();
        assert!(matches!(arrived, Arrived::Hole));
        let lost = || block([Change::Lost { after: 10 }, removal()]);
        let arrived = follower.arrived(100, lost()).unwrap();
        assert!(matches!(arrived, Arrived::Apply { first: 100, records } if records.len() == 2));
        assert_eq!(follower.applied(), 101);
        assert!(matches!(
            follower.arrived(100, lost()).unwrap(),
            Arrived::Seen
        ));
    }

    #[test]
    fn what_was_applied_in_part_goes_on_behind_it() {
        let both = || block([Change::Lost { after: 0 }, removal(), removal()]);
        let mut follower = Follower::new(8);
        let arrived = follower.arrived(7, both()).unwrap();
        assert!(matches!(arrived, Arrived::Apply { first: 9, records } if records.len() == 1));
    }

    #[test]
    fn what_a_snapshot_has_is_followed_and_not_applied_again() {
        let both = || block([removal(), removal()]);
        let mut follower = Follower::behind(6, 9);
        for (at, expected) in [(7, 9), (9, 10), (11, 11)] {
            let arrived = follower.arrived(at, both()).unwrap();
            let Arrived::Apply { first, records } = arrived else {
                panic!("{at}: {arrived:?}");
            };
            assert_eq!((first, records.len() as u64), (expected, at + 2 - expected));
            assert_eq!(follower.applied(), at + 1);
        }
    }

    #[test]
    fn impossible_numbers_end_the_reading() {
        let mut follower = Follower::new(0);
        for first in [0, NUMBER_MAX + 1, u64::MAX] {
            assert!(follower.arrived(first, block([removal()])).is_err());
        }
        let arrived = follower.arrived(NUMBER_MAX, block([removal()]));
        assert!(matches!(arrived, Ok(Arrived::Hole)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Blocks arrive in any order, again, and not at all: what is applied is the log
        /// from its begin, and what is next always can be.
        #[test]
        fn the_log_is_applied_in_order_and_once(
            log in prop::collection::vec(
                (prop::collection::vec(changes(), 1..4), prop::bool::weighted(0.2)),
                1..8,
            ),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
            begin in any::<prop::sample::Index>(),
        ) {
            // The log, its records by their numbers, and where a snapshot may end.
            let mut blocks = Vec::new();
            let mut expected = Vec::new();
            let mut ends = vec![0];
            let mut newest = 0;
            for (mut changes, is_term) in log {
                if is_term {
                    changes.insert(0, Change::Lost { after: newest });
                }
                let first = match is_term {
                    true => super::super::terms::first_of_term(newest),
                    false => newest + 1,
                };
                newest = first - 1;
                let records: Vec<Record> =
                    changes.into_iter().map(|change| Record { basis: 0, change }).collect();
                for record in &records {
                    expected.push((newest + 1, format!("{record:?}")));
                    newest += record.change.width();
                    ends.push(newest);
                }
                blocks.push((first, newest, Sealed::new(1, 1, records.iter()).bytes));
            }
            let begin = *begin.get(&ends);
            let mut follower = Follower::new(begin);
            let mut applied = Vec::new();
            let mut arrive = |follower: &mut Follower, at: usize| {
                let (first, last, bytes) = &blocks[at];
                let before = follower.applied();
                let block = Block::decode(bytes, ID_PREFIX).unwrap();
                match follower.arrived(*first, block).unwrap() {
                    Arrived::Seen => assert!(*last <= before),
                    Arrived::Hole => assert!(at > 0 && before < blocks[at - 1].1),
                    Arrived::Apply { first, records } => {
                        assert!(at == 0 || before >= blocks[at - 1].1);
                        let mut number = first;
                        for record in records {
                            applied.push((number, format!("{record:?}")));
                            number += record.change.width();
                        }
                        assert_eq!(follower.applied(), number - 1);
                    }
                }
            };
            for at in order {
                arrive(&mut follower, at.index(blocks.len()));
            }
            for at in 0..blocks.len() {
                arrive(&mut follower, at);
            }
            expected.retain(|(number, _)| *number > begin);
            prop_assert_eq!(applied, expected);
            prop_assert_eq!(follower.applied(), newest);
        }
    }
}
