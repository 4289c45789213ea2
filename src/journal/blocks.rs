//! The blocks of a log, as they are read when it is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::vec;

use super::block::{Block, BlockError};
use super::disk::Disk;
use super::error::JournalError;
use super::examining::Segment;
use super::segment::{Found, Frames, Stored};

/// The blocks of a log that are not in its snapshot, from the oldest. They are read one by
/// one.
pub(crate) struct Blocks<D: Disk> {
    disk: Arc<D>,
    after: u64,
    segments: vec::IntoIter<Segment>,
    reading: Option<(Segment, Frames<D::File>)>,
    /// Where the last block begins in its file, in bytes.
    place: u64,
}

impl<D: Disk> Blocks<D> {
    /// Begins behind a number.
    pub(super) fn new(disk: Arc<D>, after: u64, segments: Vec<Segment>) -> Blocks<D> {
        Blocks {
            disk,
            after,
            segments: segments.into_iter(),
            reading: None,
            place: 0,
        }
    }

    /// Returns the error for the last block, if its content cannot be used.
    pub(crate) fn damaged(&self, what: impl Into<String>) -> JournalError {
        JournalError::damaged(&self.path(), self.place, what)
    }

    /// Returns what is in the last block.
    ///
    /// # Errors
    /// When it is damaged, or of a newer release.
    pub(crate) fn decode(&self, stored: &Stored, id_prefix: &str) -> Result<Block, JournalError> {
        let block = Block::decode(&stored.block, id_prefix);
        let block = block.map_err(|error| self.unreadable(error))?;
        match block.width == u64::from(stored.width) {
            true => Ok(block),
            false => Err(self.damaged("a block takes other numbers than its frame states")),
        }
    }

    /// Returns the error for the last block, if it cannot be read.
    pub(crate) fn unreadable(&self, error: BlockError) -> JournalError {
        match error {
            BlockError::Damaged { what } => self.damaged(what),
            BlockError::Version { .. } | BlockError::Kind { .. } => JournalError::Newer {
                path: self.path(),
                what: format!("at byte {}, {error}", self.place),
            },
        }
    }

    /// Returns the path of the file with the last block.
    fn path(&self) -> PathBuf {
        let reading = self.reading.as_ref();
        self.disk
            .path(reading.map_or("", |(segment, _)| &segment.name))
    }

    fn read(&mut self) -> Result<Option<Stored>, JournalError> {
        loop {
            let path = self.path();
            let Some((segment, frames)) = &mut self.reading else {
                let Some(segment) = self.segments.next() else {
                    return Ok(None);
                };
                let path = self.disk.path(&segment.name);
                let file = self.disk.open(&segment.name);
                let frames =
                    file.and_then(|file| Frames::new(file, segment.begin, segment.header.salt));
                let frames = frames.map_err(JournalError::io("read", path))?;
                self.reading = Some((segment, frames));
                continue;
            };
            self.place = frames.at();
            if self.place >= segment.end {
                self.reading = None;
                continue;
            }
            match frames.next().map_err(JournalError::io("read", path))? {
                Found::Frame { stored, .. } if stored.last() <= self.after => {}
                Found::Frame { stored, .. } => return Ok(Some(stored)),
                Found::Closed { .. } | Found::Nothing => self.reading = None,
                Found::Torn(what) => return Err(self.damaged(what)),
            }
        }
    }
}

impl<D: Disk> Iterator for Blocks<D> {
    type Item = Result<Stored, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}
