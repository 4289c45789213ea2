//! Frames on their way from a log to sockets: gathered once, written to many.

use std::sync::Arc;

use crate::frame::Frame;
use crate::packed::Sum;

/// One frame of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) sequence: u64,
    /// Which of the feed's channels it is from.
    pub(crate) channel_index: usize,
    /// Where it ends in the batch's bytes.
    end: usize,
    pub(crate) frame: Frame,
}

/// Consecutive frames as one run of bytes.
///
/// A single frame, the usual case, is not copied: its bytes are the batch's.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pieces: Vec<Piece>,
    joined: Vec<u8>,
    len: usize,
    /// The names that the frames are still to begin with, one for each piece.
    names: Vec<Arc<str>>,
}

impl Batch {
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.joined.clear();
        self.len = 0;
        self.names.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes gathered so far.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns whether `len` more bytes fit into a batch of about `bytes_max`, of which the
    /// first frame may be larger.
    pub(crate) fn has_room(&self, len: usize, bytes_max: usize) -> bool {
        self.is_empty() || self.len + len <= bytes_max
    }

    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    pub(crate) fn push(&mut self, sequence: u64, channel_index: usize, frame: Frame) {
        match &*self.pieces {
            [] => {}
            [only] => {
                self.joined.extend_from_slice(only.frame.as_bytes());
                self.joined.extend_from_slice(frame.as_bytes());
            }
            _ => self.joined.extend_from_slice(frame.as_bytes()),
        }
        let len = frame.len();
        self.add(sequence, channel_index, frame, len);
    }

    /// Adds a frame that is to begin with the name of its channel. The caller holds a lock,
    /// so the name is not written here: the bytes of the batch are complete after
    /// [`write_names`](Self::write_names).
    pub(crate) fn push_named(
        &mut self,
        sequence: u64,
        channel_index: usize,
        frame: Frame,
        name: Arc<str>,
    ) {
        let len = frame.named_len(&name);
        self.add(sequence, channel_index, frame, len);
        self.names.push(name);
    }

    /// Writes the names in front of their frames, if that is still to be done.
    pub(crate) fn write_names(&mut self) {
        if self.names.is_empty() {
            return;
        }
        for (piece, name) in self.pieces.iter_mut().zip(self.names.drain(..)) {
            piece.frame = piece.frame.naming(&name);
        }
        if let [_, _, ..] = *self.pieces {
            let frames = self.pieces.iter();
            frames.for_each(|piece| self.joined.extend_from_slice(piece.frame.as_bytes()));
        }
    }

    fn add(&mut self, sequence: u64, channel_index: usize, frame: Frame, len: usize) {
        self.len += len;
        self.pieces.push(Piece {
            sequence,
            channel_index,
            end: self.len,
            frame,
        });
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &*self.pieces {
            [only] => only.frame.as_bytes(),
            _ => &self.joined,
        }
    }

    /// The sum of what the blocks of a compressed batch hold.
    pub(crate) fn packed_sum(&self) -> Sum {
        let sums = self.pieces.iter().map(|piece| piece.frame.packed_sum());
        sums.fold(Sum::default(), Sum::then)
    }

    /// Splits the pieces after `written` bytes: into those that are written whole, and
    /// the one that is written in part, with the number of its bytes that are.
    pub(crate) fn split(&self, written: usize) -> (&[Piece], Option<(&Piece, usize)>) {
        let whole = self.pieces.partition_point(|piece| piece.end <= written);
        let start = whole.checked_sub(1).map_or(0, |last| self.pieces[last].end);
        let torn = (written > start).then(|| (&self.pieces[whole], written - start));
        (&self.pieces[..whole], torn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_its_frames_in_a_row() {
        let mut batch = Batch::default();
        for (sequence, text) in [(1, "abc"), (4, "de"), (5, "f")] {
            batch.push(sequence, 0, Frame::raw(text.as_bytes()));
            assert_eq!(batch.as_bytes().len(), batch.len());
        }
        assert_eq!(batch.as_bytes(), b"abcdef");
        batch.clear();
        assert!(batch.is_empty() && batch.as_bytes().is_empty());
    }

    #[test]
    fn names_are_written_in_front_of_their_frames() {
        let (mut batch, mut plain) = (Batch::default(), Batch::default());
        for events in [&["abc"][..], &["abc", "de", "f"]] {
            batch.clear();
            plain.clear();
            for (sequence, text) in (1..).zip(events) {
                let frame = Frame::raw(text.as_bytes());
                plain.push(sequence, 0, frame.naming("news"));
                batch.push_named(sequence, 0, frame, "news".into());
            }
            let len = batch.len();
            batch.write_names();
            assert_eq!((batch.as_bytes(), len), (plain.as_bytes(), plain.len()));
            let torn = |batch: &Batch| {
                let (piece, written) = batch.split(len - 1).1.expect("a byte is missing");
                (piece.sequence, written)
            };
            assert_eq!(torn(&batch), torn(&plain));
        }
    }

    #[test]
    fn a_partial_write_is_split_at_its_frame() {
        let mut batch = Batch::default();
        for (sequence, text) in [(1, "abc"), (4, "de"), (5, "f")] {
            batch.push(sequence, 0, Frame::raw(text.as_bytes()));
        }
        for (written, whole, torn) in [
            (0, 0, None),
            (1, 0, Some((1, 1))),
            (3, 1, None),
            (4, 1, Some((4, 1))),
            (5, 2, None),
            (6, 3, None),
        ] {
            let (pieces, part) = batch.split(written);
            assert_eq!(pieces.len(), whole, "{written}");
            assert_eq!(part.map(|(p, n)| (p.sequence, n)), torn, "{written}");
        }
    }
}
