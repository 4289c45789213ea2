//! [`JournalReport`]: what is in a journal, read without changing it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blocks::Blocks;
use super::disk::{Directory, Disk};
use super::error::JournalError;
use super::snapshots::snapshot_name;
use super::store::Contents;

/// What is in a journal. Nothing was changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JournalReport {
    /// The files of the log, from the oldest.
    pub segments: Vec<JournalSegment>,
    /// The snapshot that makes older segments unnecessary.
    pub snapshot: Option<JournalSnapshot>,
    /// The number of blocks in the segments.
    pub blocks: u64,
    /// The number of records in them: publishes, and other changes.
    pub records: u64,
    /// The number of the newest event.
    pub newest: u64,
    /// What the next start will cut off.
    pub torn: Option<JournalTear>,
    /// Whether the last process that used it has closed it.
    pub is_closed: bool,
    /// Whether a process uses it now. What it appends meanwhile may look torn.
    pub is_in_use: bool,
}

/// A file of the log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JournalSegment {
    /// The file.
    pub path: PathBuf,
    /// The number of its first event.
    pub first: u64,
    /// The number of its blocks.
    pub blocks: u64,
    /// The size of what is used of it, in bytes.
    pub bytes: u64,
}

/// A snapshot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JournalSnapshot {
    /// The file.
    pub path: PathBuf,
    /// The number of the newest event that is in it for certain.
    pub at: u64,
    /// Its size, in bytes.
    pub bytes: u64,
}

/// Something at the end of the log that is not whole.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JournalTear {
    /// The file.
    pub path: PathBuf,
    /// The place in the file, in bytes from its beginning.
    pub offset: u64,
    /// The bytes from there on, later files included.
    pub bytes: u64,
    /// What is wrong there.
    pub what: &'static str,
}

impl JournalReport {
    /// Reads a journal and decodes each block. Nothing is changed, so a server may use it
    /// meanwhile.
    ///
    /// # Errors
    /// When there is none, or it cannot be read, is damaged, or of a newer release.
    pub fn read(directory: impl AsRef<Path>) -> Result<JournalReport, JournalError> {
        let directory = Directory::unlocked(directory.as_ref());
        let is_in_use = directory.is_locked()?;
        JournalReport::of(directory, is_in_use)
    }

    fn of<D: Disk>(disk: D, is_in_use: bool) -> Result<JournalReport, JournalError> {
        let contents = Contents::read(&disk)?;
        contents.check(&disk)?;
        let Contents { snapshot, log, .. } = contents;
        let path = |name: &str| disk.path(name);
        let mut report = JournalReport {
            segments: Vec::new(),
            snapshot: snapshot.map(|snapshot| JournalSnapshot {
                path: path(&snapshot_name(snapshot.at)),
                at: snapshot.at,
                bytes: snapshot.bytes,
            }),
            blocks: 0,
            records: 0,
            newest: log.newest,
            torn: log.tear.as_ref().map(|tear| JournalTear {
                path: path(&tear.name),
                offset: tear.offset,
                bytes: tear.bytes,
                what: tear.what,
            }),
            is_closed: log.segments.last().is_some_and(|last| last.is_closed),
            is_in_use,
        };
        for segment in &log.segments {
            report.blocks += segment.blocks;
            report.segments.push(JournalSegment {
                path: path(&segment.name),
                first: segment.header.first,
                blocks: segment.blocks,
                bytes: segment.end,
            });
        }
        let mut blocks = Blocks::new(Arc::new(disk), 0, log.segments);
        while let Some(stored) = blocks.next() {
            let block = blocks.decode(&stored?, "")?;
            report.records += block.records.len() as u64;
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::Sealed;
    use super::super::record::{Change, Record};
    use super::super::simulated_disk::SimulatedDisk;
    use super::super::store::{Opening, Store, StoreOptions};
    use super::*;

    fn block(n: u64, records: usize) -> Sealed {
        let change = |_| Change::Remove {
            channel: "news".into(),
        };
        let record = |n| Record {
            basis: 0,
            change: change(n),
        };
        let records: Vec<Record> = (0..records).map(record).collect();
        Sealed::new(7, n, records.iter())
    }

    #[test]
    fn a_report_counts_blocks_and_records_and_changes_nothing() {
        let disk = SimulatedDisk::default();
        let options = StoreOptions::new(b"identity".to_vec());
        let (opening, _) = Opening::examine(disk.clone(), options).unwrap();
        let mut store = opening.begin().unwrap();
        let append = |store: &mut Store<SimulatedDisk>, n, records| {
            let Sealed { width, bytes, .. } = block(n, records);
            store.append(width, 0, &bytes).unwrap();
        };
        append(&mut store, 1, 2);
        store.begin_snapshot().unwrap().commit().unwrap();
        append(&mut store, 2, 1);
        append(&mut store, 3, 4);
        let disk = disk.killed();
        let last = "00000000000000000003.log";
        disk.change(last, |bytes| bytes.truncate(bytes.len() - 3));
        let before = disk.contents();
        let report = JournalReport::of(disk.clone(), false).unwrap();
        assert_eq!(disk.contents(), before);
        assert_eq!((report.blocks, report.records, report.newest), (1, 1, 3));
        assert_eq!(report.snapshot.unwrap().at, 2);
        let [segment] = &report.segments[..] else {
            panic!("{:?}", report.segments)
        };
        assert!(segment.path.ends_with(last) && segment.first == 3);
        let torn = report.torn.unwrap();
        assert_eq!(torn.offset, segment.bytes);
        assert_eq!(torn.offset + torn.bytes, before[last].len() as u64);
        assert!(!report.is_closed);

        let options = StoreOptions::new(Vec::new());
        let disk = disk.killed();
        let (opening, _) = Opening::examine(disk.clone(), options).unwrap();
        let store = opening.begin().unwrap();
        store.close().unwrap();
        let report = JournalReport::of(disk, false).unwrap();
        assert!(report.is_closed && report.torn.is_none());
    }

    #[test]
    fn a_block_that_cannot_be_decoded_is_named() {
        let disk = SimulatedDisk::default();
        let options = StoreOptions::new(b"identity".to_vec());
        let (opening, _) = Opening::examine(disk.clone(), options).unwrap();
        let mut store = opening.begin().unwrap();
        let mut sealed = block(1, 1);
        store.append(1, 0, &sealed.bytes).unwrap();
        sealed.bytes[0] = 9;
        store.append(1, 0, &sealed.bytes).unwrap();
        let error = JournalReport::of(disk.killed(), false).unwrap_err();
        assert!(matches!(error, JournalError::Newer { .. }), "{error}");
        assert!(error.to_string().contains("at byte "), "{error}");
    }
}
