//! The numbers in event ids: the sequence numbers, or numbers that hide them.
//!
//! Sequence numbers count the events of all channels, so a client that compares two ids
//! knows the volume between them. A keyed permutation of 64 bits (a Feistel network of
//! eight rounds) hides it. It is not a cipher, and protects nothing else. Only the hub
//! reads ids, so their order does not matter.

/// See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbering {
    key: Option<u128>,
    rounds: [u64; ROUNDS],
}

const ROUNDS: usize = 8;

impl Numbering {
    /// Returns the numbering that hides sequence numbers, or with no `key` the
    /// one that shows them.
    pub(crate) fn new(key: Option<u128>) -> Numbering {
        let mut rounds = [0; ROUNDS];
        let key_bytes = key.unwrap_or_default().to_le_bytes();
        let (low, high) = key_bytes.split_at(8);
        let half = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |all, byte| all << 8 | u64::from(*byte))
        };
        let mut state = half(low);
        for round in &mut rounds {
            state = mixed(state ^ half(high)).wrapping_add(0x9e37_79b9_7f4a_7c15);
            *round = mixed(state);
        }
        Numbering { key, rounds }
    }

    /// Returns the key, to be saved.
    pub(crate) fn key(&self) -> Option<u128> {
        self.key
    }

    /// Returns the number that an id has for a sequence number.
    pub(crate) fn written(&self, sequence: u64) -> u64 {
        if self.key.is_none() {
            return sequence;
        }
        let (left, right) = self
            .rounds
            .iter()
            .fold(halves(sequence), |(left, right), key| {
                (right, left ^ scrambled(right, *key))
            });
        u64::from(left) << 32 | u64::from(right)
    }

    /// Returns the sequence number for the number that an id has.
    pub(crate) fn read(&self, number: u64) -> u64 {
        if self.key.is_none() {
            return number;
        }
        let rounds = self.rounds.iter().rev();
        let (left, right) = rounds.fold(halves(number), |(left, right), key| {
            (right ^ scrambled(left, *key), left)
        });
        u64::from(left) << 32 | u64::from(right)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "each takes its half")]
fn halves(number: u64) -> (u32, u32) {
    ((number >> 32) as u32, number as u32)
}

#[allow(clippy::cast_possible_truncation, reason = "any half will do")]
fn scrambled(half: u32, key: u64) -> u32 {
    mixed(u64::from(half) ^ key) as u32
}

/// Returns a number in which each bit depends on all bits of `number`.
pub(super) fn mixed(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for key in [None, Some(0), Some(7), Some(u128::MAX)] {
            let numbering = Numbering::new(key);
            for sequence in (0..10_000).chain([u64::MAX >> 1, u64::MAX - 1, u64::MAX]) {
                assert_eq!(numbering.read(numbering.written(sequence)), sequence);
            }
        }
        assert_eq!(Numbering::new(None).written(17), 17);
    }

    #[test]
    fn hidden_numbers_reveal_neither_order_nor_distance() {
        let numbering = Numbering::new(Some(0x0123_4567_89ab_cdef));
        let written: Vec<u64> = (0..10_000).map(|n| numbering.written(n)).collect();
        let rises = written.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((4_700..5_300).contains(&rises), "{rises}");
        let distances = written.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
        let distances: HashSet<u64> = distances.collect();
        assert_eq!(distances.len(), 9_999);
        // Each bit is set as often as not.
        for bit in 0..64 {
            let set = written
                .iter()
                .filter(|number| **number >> bit & 1 == 1)
                .count();
            assert!((4_700..5_300).contains(&set), "bit {bit}: {set}");
        }
        let other = Numbering::new(Some(0x0123_4567_89ab_cdee));
        let equal = (0..10_000)
            .filter(|n| other.written(*n) == numbering.written(*n))
            .count();
        assert_eq!(equal, 0);
    }
}
