//! The replies of a broker: the same in whatever pieces they arrive, and never more than the
//! limit of their size. A reply that is cut off anywhere is not a reply.
//!
//! What follows bytes that are not a reply is not compared: there the connection ends.

use std::io::{self, Read};

use pushwheel_redis::internals::{Replies, ReplyError};

/// The most replies that are looked at.
const REPLIES_MAX: usize = 64;

pub fn check(input: &[u8]) {
    let (whole, is_valid) = all(input, usize::MAX);
    for piece in [1, 7, 4_096] {
        let (pieces, _) = all(input, piece);
        let same = pieces.get(..whole.len());
        assert_eq!(same, Some(&*whole), "in pieces of {piece}");
        assert!(!is_valid || pieces.len() == whole.len(), "{pieces:?}");
    }
    let reads = |bytes: &[u8], max| Replies::new(bytes).next(max);
    if reads(input, input.len()).is_err() {
        return;
    }
    // The first reply ends where a shorter limit is too short.
    let sizes: Vec<usize> = (0..=input.len()).collect();
    let size = sizes.partition_point(|max| reads(input, *max).is_err());
    for max in [0, size / 2, size.saturating_sub(1)] {
        if max < size {
            let limited = reads(input, max);
            assert!(matches!(limited, Err(ReplyError::TooLarge)), "{limited:?}");
            let cut = reads(&input[..max], size);
            assert!(matches!(cut, Err(ReplyError::Ended)), "{cut:?}");
        }
    }
}

/// Returns all replies as text, and whether nothing but replies came.
fn all(input: &[u8], piece: usize) -> (Vec<String>, bool) {
    let mut replies = Replies::new(Pieces(input, piece));
    let mut texts = Vec::new();
    while texts.len() < REPLIES_MAX {
        match replies.next(input.len() + 1) {
            Ok(value) => texts.push(format!("{value:?}")),
            Err(error) => return (texts, matches!(error, ReplyError::Ended)),
        }
    }
    (texts, true)
}

/// Returns at most some bytes at a time.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(self.0.len()).min(into.len());
        let (now, later) = self.0.split_at(count);
        into[..count].copy_from_slice(now);
        self.0 = later;
        Ok(count)
    }
}
