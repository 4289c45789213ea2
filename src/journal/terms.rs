//! [`Terms`]: the ranges of numbers that may be lost.
//!
//! A log that may have lost its newest events begins a new *term*: its numbers jump, so
//! that none is given a second time. The numbers that a jump leaves out belong to no event
//! any more, although clients may have seen them.

use std::collections::VecDeque;

/// The most terms that are remembered. Beyond them, the oldest are forgotten.
const TERMS_MAX: usize = 64;

/// A term begins at a multiple of this, and at least half of it is left out. No log gives so
/// many numbers between two syncs.
const TERM_NUMBERS: u64 = 1 << 36;

/// Returns the first number of a term that begins when `after` is the newest number that
/// survived.
pub(crate) fn first_of_term(after: u64) -> u64 {
    let left_out = after.saturating_add(TERM_NUMBERS / 2);
    (left_out / TERM_NUMBERS + 1).saturating_mul(TERM_NUMBERS)
}

/// A range of numbers that was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Jump {
    /// The newest number before it.
    pub(crate) after: u64,
    /// The first number behind it.
    pub(crate) first: u64,
}

/// Terms that a copy of a log leaves out, at least: more than a log begins by itself.
const COPY_TERMS_MIN: u64 = 1 << 10;

/// Returns the first number of a copy of a log, whose original may have gone on in terms of
/// its own, and of which there may be other copies. `random` keeps them apart.
pub(crate) fn first_of_copy(after: u64, random: u16) -> u64 {
    let left_out = (COPY_TERMS_MIN + u64::from(random)) * TERM_NUMBERS;
    first_of_term(after.saturating_add(left_out))
}

/// See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// In ascending order.
    jumps: VecDeque<Jump>,
}

impl Terms {
    /// Notes that a term begins. An older one than the newest is not noted.
    pub(crate) fn note(&mut self, jump: Jump) {
        let newest = self.jumps.back().map_or(0, |newest| newest.first);
        if jump.after < newest || jump.first <= jump.after {
            return;
        }
        if self.jumps.len() == TERMS_MAX {
            self.jumps.pop_front();
        }
        self.jumps.push_back(jump);
    }

    /// Returns the jump that leaves out a number, which may be that of an event that was lost.
    pub(crate) fn jump_over(&self, number: u64) -> Option<Jump> {
        let at = self.jumps.partition_point(|jump| jump.first <= number);
        let jump = self.jumps.get(at).copied();
        jump.filter(|jump| jump.after < number)
    }

    /// Returns the first number of the first term that has begun after a number.
    pub(crate) fn first_after(&self, number: u64) -> Option<u64> {
        let at = self.jumps.partition_point(|jump| jump.first <= number);
        self.jumps.get(at).map(|jump| jump.first)
    }

    /// Returns the jumps, the oldest first.
    pub(crate) fn jumps(
        &self,
    ) -> impl ExactSizeIterator<Item = &Jump> + DoubleEndedIterator + Clone {
        self.jumps.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_term_begins_beyond_all_numbers_that_were_given() {
        assert_eq!(first_of_term(0), TERM_NUMBERS);
        assert_eq!(first_of_term(TERM_NUMBERS / 2 - 1), TERM_NUMBERS);
        assert_eq!(first_of_term(TERM_NUMBERS / 2), 2 * TERM_NUMBERS);
        assert_eq!(first_of_term(TERM_NUMBERS), 2 * TERM_NUMBERS);
        assert_eq!(first_of_term(u64::MAX), u64::MAX);
    }

    #[test]
    fn only_the_newest_terms_are_remembered() {
        let mut terms = Terms::default();
        for term in 0..=TERMS_MAX as u64 {
            let after = 10 * term;
            let first = after + 5;
            terms.note(Jump { after, first });
        }
        assert_eq!(terms.jumps().len(), TERMS_MAX);
        assert!(terms.jump_over(3).is_none());
        assert_eq!(
            terms.jump_over(13),
            Some(Jump {
                after: 10,
                first: 15
            })
        );
        let before = terms.clone();
        terms.note(Jump { after: 3, first: 9 });
        assert_eq!(terms, before);
    }

    proptest! {
        #[test]
        fn a_number_is_lost_if_a_jump_left_it_out(
            lengths in prop::collection::vec((0..4_u64, 0..4_u64), 0..TERMS_MAX),
        ) {
            let mut terms = Terms::default();
            let mut is_lost = vec![false];
            for (given, left_out) in lengths {
                is_lost.extend((0..given).map(|_| false));
                let after = is_lost.len() as u64 - 1;
                is_lost.extend((0..left_out).map(|_| true));
                let first = is_lost.len() as u64;
                is_lost.push(false);
                terms.note(Jump { after, first });
            }
            for (number, is_lost) in is_lost.into_iter().enumerate() {
                prop_assert_eq!(terms.jump_over(number as u64).is_some(), is_lost);
            }
        }
    }
}
