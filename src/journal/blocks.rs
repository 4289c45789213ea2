//! The blocks of a log, as they are read when it is opened.

use std::sync::Arc;

use super::disk::Disk;
use super::error::JournalError;
use super::examining::Segment;
use super::segment::{Found, Frames, Stored};

/// The blocks of a log that are not in its snapshot, from the oldest. They are read one by
/// one.
pub(crate) struct Blocks<D: Disk> {
    pub(super) disk: Arc<D>,
    pub(super) after: u64,
    pub(super) segments: std::vec::IntoIter<Segment>,
    pub(super) reading: Option<(String, Frames<D::File>)>,
    /// Where the last block begins in its file, in bytes.
    pub(super) place: u64,
}

impl<D: Disk> Blocks<D> {
    /// Returns the error for the last block, if its content cannot be used.
    pub(crate) fn damaged(&self, what: impl Into<String>) -> JournalError {
        let name = self.reading.as_ref().map_or("", |(name, _)| name);
        JournalError::damaged(&self.disk.path(name), self.place, what)
    }

    fn read(&mut self) -> Result<Option<Stored>, JournalError> {
        loop {
            let Some((name, frames)) = &mut self.reading else {
                let Some(segment) = self.segments.next() else {
                    return Ok(None);
                };
                let path = self.disk.path(&segment.name);
                let file = self.disk.open(&segment.name);
                let frames = file.and_then(|file| Frames::new(file, segment.begin));
                let frames = frames.map_err(JournalError::io("read", path))?;
                self.reading = Some((segment.name, frames));
                continue;
            };
            self.place = frames.at();
            let path = self.disk.path(name);
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
