//! Terms as branches: how the terms that a node knows and those that a log says compare.
//!
//! A log that has lost its newest blocks goes on in a new term, after what has survived. A
//! node that had applied more is on another branch from there on.

use super::log::{Term, Welcome};

/// Returns the newest number that two logs with these terms have in common; `None`: one of
/// them may be the same as the other, or its future.
pub(crate) fn divergence(known: &[Term], served: &[Term]) -> Option<u64> {
    // Each may have forgotten its oldest terms.
    let first_of = |terms: &[Term]| terms.first().map_or(0, |term| term.first);
    let from = first_of(known).max(first_of(served));
    let later = |terms: &[Term]| -> Vec<Term> {
        let later = terms.iter().filter(|term| term.first >= from);
        later.copied().collect()
    };
    let (known, served) = (later(known), later(served));
    let same = known
        .iter()
        .zip(&served)
        .take_while(|(a, b)| a == b)
        .count();
    // A node that has applied little may begin a term after less than the term before.
    let others = known[same..].iter().chain(&served[same..]);
    others.map(|term| term.after).min()
}

/// Returns the number that a block follows whose first number is `first`.
pub(crate) fn predecessor(terms: &[Term], first: u64) -> u64 {
    let begun_at = |number: u64| terms.iter().rev().find(|term| term.first == number);
    let Some(term) = begun_at(first) else {
        return first.saturating_sub(1);
    };
    let mut after = term.after;
    // Terms without a block.
    while let Some(term) = after.checked_add(1).and_then(begun_at)
        && term.after < after
    {
        after = term.after;
    }
    after
}

/// Returns the number behind which the blocks of a log begin. Older ones are not there any more.
pub(crate) fn begins_after(welcome: &Welcome) -> u64 {
    predecessor(&welcome.terms, welcome.oldest.unwrap_or(welcome.next))
}

/// Returns whether a number was given, if ever, to an event that the log has lost.
pub(crate) fn is_lost(terms: &[Term], number: u64) -> bool {
    let is_left_out = |term: &Term| term.after < number && number < term.first;
    terms.iter().any(is_left_out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn terms(pairs: &[(u64, u64)]) -> Vec<Term> {
        let term = |(after, first): &(u64, u64)| Term {
            after: *after,
            first: *first,
        };
        pairs.iter().map(term).collect()
    }

    #[test]
    fn logs_divide_at_the_first_term_that_differs() {
        let old = terms(&[(0, 100), (150, 1_000)]);
        assert_eq!(divergence(&old, &old), None);
        let newer = terms(&[(0, 100), (150, 1_000), (1_020, 5_000)]);
        assert_eq!(divergence(&old, &newer), Some(1_020));
        assert_eq!(divergence(&newer, &old), Some(1_020));
        let other = terms(&[(0, 100), (140, 7_000)]);
        assert_eq!(divergence(&newer, &other), Some(140));
        // The oldest terms were forgotten.
        assert_eq!(divergence(&newer, &newer[1..]), None);
        assert_eq!(
            divergence(&newer, &terms(&[(150, 1_000), (1_010, 6_000)])),
            Some(1_010)
        );
        assert_eq!(divergence(&[], &newer), Some(0));
        // The last term was begun by a node that had not applied much.
        let forgetful = terms(&[(0, 100), (150, 1_000), (120, 5_000)]);
        assert_eq!(divergence(&old[..1], &forgetful), Some(120));
    }

    #[test]
    fn a_term_without_a_block_is_passed_over() {
        let terms = terms(&[(0, 100), (150, 1_000), (999, 5_000), (4_999, 9_000)]);
        assert_eq!(predecessor(&terms, 9_000), 150);
        assert_eq!(predecessor(&terms, 1_000), 150);
        assert_eq!(predecessor(&terms, 100), 0);
        assert_eq!(predecessor(&terms, 9_001), 9_000);
        for (number, lost) in [(150, false), (151, true), (999, true), (1_000, true)] {
            assert_eq!(is_lost(&terms, number), lost, "{number}");
        }
    }

    proptest! {
        /// Two logs that share a past, and go on each in terms of its own.
        #[test]
        fn what_two_logs_have_in_common_is_found(
            shared in prop::collection::vec((0..5_u64, 1..5_u64), 1..6),
            one in prop::collection::vec((0..5_u64, 1..5_u64), 0..4),
            other in prop::collection::vec((0..5_u64, 1..5_u64), 0..4),
            end in 0..5_u64,
            forgotten in 0..6_usize,
        ) {
            let add = |terms: &mut Vec<Term>, next: &mut u64, steps: &[(u64, u64)], stride: u64| {
                for (given, skipped) in steps {
                    *next += given;
                    let after = *next - 1;
                    *next += skipped * stride;
                    terms.push(Term { after, first: *next });
                }
            };
            let (mut terms, mut next) = (Vec::new(), 1);
            add(&mut terms, &mut next, &shared, 1);
            let common = next + end - 1;
            let branch = |steps: &[(u64, u64)], stride| {
                let (mut terms, mut next) = (terms.clone(), common + 1);
                add(&mut terms, &mut next, steps, stride);
                terms
            };
            // Numbers are never given twice, so the branches begin at different ones.
            let (one, other_terms) = (branch(&one, 1_000_000), branch(&other, 1_000_001));
            let known = &one[forgotten.min(shared.len() - 1)..];
            let found = divergence(known, &other_terms);
            match (one.len(), other_terms.len()) {
                (a, b) if a == b && a == shared.len() => prop_assert_eq!(found, None),
                _ => {
                    let afters = [one.get(shared.len()), other_terms.get(shared.len())];
                    let least = afters.into_iter().flatten().map(|term| term.after).min();
                    prop_assert_eq!(found, least);
                }
            }
            prop_assert_eq!(divergence(&other_terms, known), found);
        }
    }
}
