//! The sums of compressed streams, with which they end.
//!
//! A stream's sum is of all frames that it was sent or owes the rest of. Streams
//! that are not compressed have none, and cost nothing here.

use crate::hub::batch::Piece;
use crate::packed::{Suffix, Sum};

/// The sums by the keys of their connections: 8 bytes for each key up to the
/// highest of a compressed stream.
#[derive(Default)]
pub(super) struct Sums {
    by_key: Vec<Sum>,
}

impl Sums {
    /// A compressed stream begins with bytes of this sum.
    pub(super) fn begin(&mut self, key: u32, opening: Sum) {
        let at = key as usize;
        if self.by_key.len() <= at {
            self.by_key.resize(at + 1, Sum::default());
        }
        self.by_key[at] = opening;
    }

    /// A compressed stream was sent more, or owes it.
    #[inline]
    pub(super) fn add(&mut self, key: u32, more: &Suffix) {
        let sum = &mut self.by_key[key as usize];
        *sum = more.behind(*sum);
    }

    pub(super) fn add_all<'a>(&mut self, key: u32, pieces: impl Iterator<Item = &'a Piece>) {
        let sums = pieces.map(|piece| piece.frame.packed_sum());
        self.add(key, &Suffix::new(sums.fold(Sum::default(), Sum::then)));
    }

    pub(super) fn get(&self, key: u32) -> Sum {
        self.by_key[key as usize]
    }
}
