//! The sums of compressed streams, with which they end.
//!
//! A stream's sum is of all frames that it was sent or owes the rest of. Streams
//! that are not compressed have none, and cost nothing here.

use crate::hub::batch::Piece;
use crate::packed::{Suffix, Sum};
use crate::reactor::Reactor;
use crate::reactor::io::connection::{NONE, State};
use crate::reactor::io::net::Net;

/// The sums by the keys of their connections: 8 bytes for each key up to the
/// highest of a compressed stream.
#[derive(Default)]
pub(crate) struct Sums {
    by_key: Vec<Sum>,
}

impl Sums {
    /// A compressed stream begins with bytes of this sum.
    pub(crate) fn begin(&mut self, key: u32, opening: Sum) {
        let at = key as usize;
        if self.by_key.len() <= at {
            self.by_key.resize(at + 1, Sum::default());
        }
        self.by_key[at] = opening;
    }

    /// A compressed stream was sent more, or owes it.
    #[inline]
    pub(crate) fn add(&mut self, key: u32, more: &Suffix) {
        let sum = &mut self.by_key[key as usize];
        *sum = more.behind(*sum);
    }

    pub(crate) fn add_all<'a>(&mut self, key: u32, pieces: impl Iterator<Item = &'a Piece>) {
        let sums = pieces.map(|piece| piece.frame.packed_sum());
        self.add(key, &Suffix::new(sums.fold(Sum::default(), Sum::then)));
    }

    fn get(&self, key: u32) -> Sum {
        self.by_key[key as usize]
    }
}

impl<N: Net> Reactor<N> {
    /// Counts bytes of the loop's own, as `bytes` before they were packed, if the
    /// client's stream is compressed.
    pub(crate) fn add_own(&mut self, key: u32, bytes: &[u8]) {
        let feed = self.connections.stream(key).feed;
        if self.feeds.get(feed).is_packed {
            self.sums.add(key, &Suffix::new(Sum::of(bytes)));
        }
    }

    /// The bytes with which a client's stream ends: none if it is not compressed.
    pub(crate) fn end_of(&self, key: u32) -> Vec<u8> {
        let feed = self.connections.stream(key).feed;
        match self.feeds.get(feed).is_packed {
            true => self.sums.get(key).end().to_vec(),
            false => Vec::new(),
        }
    }

    /// Ends the compressed stream of a client that owes nothing, if there is room
    /// for that; its connection is about to be closed.
    pub(crate) fn finish_packed(&mut self, key: u32) {
        let State::Stream(stream) = self.connections.get(key).state else {
            return;
        };
        if !self.feeds.get(stream.feed).is_packed {
            return;
        }
        let is_between_frames = stream.cursor == NONE || {
            let cursor = &self.cursors[stream.cursor as usize];
            let is_ended = cursor.end.as_ref().is_some_and(|end| end.is_said);
            cursor.owed.is_none() && !is_ended
        };
        if is_between_frames {
            let end = self.end_of(key);
            let socket = &mut self.connections.get_mut(key).socket;
            // Whether it gets there is all the same: the connection ends.
            let _ = self.net.write(socket, &end);
        }
    }
}
