//! Where a log ends, and whether all of it is there. Nothing is changed here.
//!
//! The log ends at the first place that is not whole, its *tear*. What is behind it decides:
//!
//! - A whole frame that states that the place of the tear was on the disk: something was
//!   destroyed later. That is damage, and the log is not used.
//! - The same if the machine has not been started again since: what was written is not
//!   missing then.
//! - Otherwise the process or the machine died during a write or before a sync. What is
//!   behind the tear was not acknowledged, or was not on the disk yet, and is cut off.

use std::io::{self, Read};

use super::disk::{Disk, DiskFile, ReadFrom};
use super::error::JournalError;
use super::segment::{Found, Frames, Head, Header, Salt, VERSION, synced_behind};

/// A segment that is whole, to its `end`.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) header: Header,
    /// The place of its first frame, in bytes.
    pub(super) begin: u64,
    /// The place behind its last frame or end mark, in bytes.
    pub(super) end: u64,
    pub(super) blocks: u64,
    pub(super) is_closed: bool,
}

/// Something that is not whole, at the end of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tear {
    /// The name of the file.
    pub(crate) name: String,
    /// The place in it, in bytes.
    pub(crate) offset: u64,
    /// The bytes from there on, in this file and later ones.
    pub(crate) bytes: u64,
    /// What is wrong there.
    pub(crate) what: &'static str,
    /// The names of later files.
    later: Vec<String>,
}

/// What is in a log.
#[derive(Debug)]
pub(super) struct Examined {
    /// From the oldest.
    pub(super) segments: Vec<Segment>,
    /// The number that would be given next.
    pub(super) next: u64,
    /// The newest number of a block.
    pub(super) newest: u64,
    pub(super) tear: Option<Tear>,
}

/// Returns the name of the segment that begins with a number.
pub(super) fn segment_name(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

const SUFFIX: &str = ".log";

const INCOMPLETE: &str = "the header is incomplete";

fn first_of(name: &str) -> Option<u64> {
    let first = name.strip_suffix(SUFFIX)?.parse().ok()?;
    (segment_name(first) == name).then_some(first)
}

pub(super) fn is_segment(name: &str) -> bool {
    first_of(name).is_some()
}

/// Returns the segments among some names that have numbers above `at`, from the oldest, and
/// those that have not.
pub(super) fn segments_above(names: &[String], at: u64) -> (Vec<String>, Vec<String>) {
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| first_of(name)).collect();
    firsts.sort_unstable();
    let older = firsts
        .iter()
        .skip(1)
        .filter(|first| **first <= at + 1)
        .count();
    let newer = firsts.split_off(older);
    let named = |firsts: Vec<u64>| firsts.into_iter().map(segment_name).collect();
    (named(newer), named(firsts))
}

impl Examined {
    /// Reads the segments, which a snapshot at `at` precedes. 0 if there is none.
    ///
    /// # Errors
    /// When one cannot be read, is damaged, or of a newer release.
    pub(super) fn read<D: Disk>(
        disk: &D,
        names: Vec<String>,
        at: u64,
    ) -> Result<Examined, JournalError> {
        let mut log = Examined {
            segments: Vec::new(),
            next: at + 1,
            newest: at,
            tear: None,
        };
        for (index, name) in names.iter().enumerate() {
            let path = disk.path(name);
            let read = log.segment(disk, name, at);
            let torn = read.map_err(|error| error.of(&path))?;
            if let Some((name, offset, what)) = torn {
                let later = names[index..].iter().filter(|later| **later != name);
                let later = later.cloned().collect();
                let tear = Tear {
                    name,
                    offset,
                    bytes: 0,
                    what,
                    later,
                };
                log.tear = log.judged(disk, tear)?;
                break;
            }
        }
        Ok(log)
    }

    /// Reads one segment. Returns the file and place of a tear.
    fn segment<D: Disk>(
        &mut self,
        disk: &D,
        name: &str,
        at: u64,
    ) -> Result<Option<(String, u64, &'static str)>, Error> {
        let file = disk.open(name)?;
        let (header, begin) = match Header::read(&file)? {
            Head::Whole(header, begin) => (header, begin),
            Head::Incomplete if self.segments.is_empty() => return Err(Error::at(0, INCOMPLETE)),
            Head::Incomplete => return Ok(Some((name.into(), 0, INCOMPLETE))),
            Head::Damaged(what) => return Err(Error::at(0, what)),
            Head::Newer { version } => return Err(Error::Newer { version }),
        };
        let first = header.first;
        if segment_name(first) != name {
            return Err(Error::at(0, "it is of another place in the log"));
        }
        match self.segments.last() {
            None if first <= at + 1 || header.follows_loss => {}
            None => return Err(Error::at(0, "what precedes it is missing")),
            Some(last) if last.header.identity != header.identity => {
                return Err(Error::at(0, "it is of another journal"));
            }
            Some(_) if first == self.next || first > self.next && header.follows_loss => {}
            Some(_) if first < self.next => {
                return Err(Error::at(0, "it has numbers of the one before"));
            }
            Some(last) => {
                let tear = (last.name.clone(), last.end, "what follows is missing");
                return Ok(Some(tear));
            }
        }
        self.next = first;
        let mut frames = Frames::new(file, begin, header.salt)?;
        let (mut blocks, mut is_closed) = (0, false);
        let torn = loop {
            let place = frames.at();
            match frames.next()? {
                Found::Nothing => break None,
                Found::Torn(what) => break Some(what),
                _ if is_closed => return Err(Error::at(place, "data follows the end")),
                Found::Closed { number } if number == self.next => is_closed = true,
                Found::Frame { stored, .. } if stored.first == self.next => {
                    self.next = stored.last() + 1;
                    self.newest = self.newest.max(stored.last());
                    blocks += 1;
                }
                _ => return Err(Error::at(place, "a number does not follow")),
            }
        };
        let end = frames.at();
        self.segments.push(Segment {
            name: name.into(),
            header,
            begin,
            end,
            blocks,
            is_closed,
        });
        Ok(torn.map(|what| (name.into(), end, what)))
    }

    /// Returns the tear with its size, if it may be cut off.
    fn judged<D: Disk>(&self, disk: &D, mut tear: Tear) -> Result<Option<Tear>, JournalError> {
        let last = self
            .segments
            .last()
            .expect("the first segment is whole or damaged");
        let mut proof = last.is_closed.then_some(self.next);
        let mut names = vec![(tear.name.clone(), tear.offset)];
        names.extend(tear.later.iter().map(|name| (name.clone(), 0)));
        for (name, offset) in names {
            let path = disk.path(&name);
            let io = JournalError::io("read", path);
            let salt = (offset > 0).then_some(last.header.salt);
            let (bytes, synced) = behind(disk, &name, offset, salt, self.next).map_err(io)?;
            tear.bytes += bytes;
            proof = proof.max(synced);
        }
        let was_on_disk = proof.is_some_and(|synced| synced >= self.next);
        let is_same_start = disk.boot().is_some_and(|boot| boot == last.header.boot);
        if was_on_disk || proof.is_some() && is_same_start {
            let path = disk.path(&tear.name);
            let what = format!("{}, and whole data follows", tear.what);
            return Err(JournalError::damaged(&path, tear.offset, what));
        }
        Ok(Some(tear))
    }

    /// Returns whether the last segment begins after a loss that no block tells of yet.
    pub(super) fn has_untold_loss(&self) -> bool {
        let last = self.segments.last();
        last.is_some_and(|last| last.header.follows_loss && last.blocks == 0)
    }

    /// Returns whether numbers from `next` on may have been given and shown: the machine has
    /// died, or the log is gone.
    pub(super) fn may_lack_numbers(&self, boot: Option<&str>) -> bool {
        let Some(last) = self.segments.last() else {
            return self.newest > 0;
        };
        let is_same_start = boot.is_some_and(|boot| boot == last.header.boot);
        !(last.is_closed || last.header.syncs_always || is_same_start)
    }
}

impl Examined {
    /// Returns the index of the first segment that may not be on the disk as it is read, because
    /// its process has not closed the log: the last one, and those that were not synced when
    /// it was begun.
    pub(super) fn unsynced_from(&self) -> usize {
        let Some(last) = self.segments.last().filter(|last| !last.is_closed) else {
            return self.segments.len();
        };
        let nexts = self.segments.iter().skip(1);
        nexts
            .take_while(|next| next.header.first <= last.header.synced + 1)
            .count()
    }
}

/// Returns how many bytes a file has from `offset` on, and the highest number that whole
/// frames or a header among them state to be on the disk. Without a salt the file's header
/// has it.
fn behind<D: Disk>(
    disk: &D,
    name: &str,
    offset: u64,
    mut salt: Option<Salt>,
    number: u64,
) -> io::Result<(u64, Option<u64>)> {
    let file = disk.open(name)?;
    let len = file.len()?;
    let mut synced = None;
    if salt.is_none()
        && let Head::Whole(header, _) = Header::read(&file)?
    {
        synced = Some(header.synced);
        salt = Some(header.salt);
    }
    if let Some(salt) = salt {
        let mut bytes = Vec::new();
        let mut rest = ReadFrom {
            file: &file,
            at: offset,
        };
        rest.read_to_end(&mut bytes)?;
        synced = synced.max(synced_behind(&bytes, &salt, number));
    }
    Ok((len - offset, synced))
}

/// What is wrong with a segment.
enum Error {
    Io(io::Error),
    Damaged { offset: u64, what: &'static str },
    Newer { version: u32 },
}

impl Error {
    fn at(offset: u64, what: &'static str) -> Error {
        Error::Damaged { offset, what }
    }

    fn of(self, path: &std::path::Path) -> JournalError {
        match self {
            Error::Io(error) => JournalError::io("read", path.to_owned())(error),
            Error::Damaged { offset, what } => JournalError::damaged(path, offset, what),
            Error::Newer { version } => JournalError::newer(path, version, VERSION),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Io(error)
    }
}

impl Tear {
    /// Cuts it off: later files first, so that the tear is there until all is done.
    pub(super) fn cut<D: Disk>(&self, disk: &D) -> Result<(), JournalError> {
        for name in self.later.iter().rev() {
            let removed = disk.remove(name);
            removed.map_err(JournalError::io("remove", disk.path(name)))?;
        }
        let io = || JournalError::io("cut", disk.path(&self.name));
        if !self.later.is_empty() {
            disk.sync().map_err(io())?;
        }
        if self.offset == 0 {
            disk.remove(&self.name).map_err(io())?;
            return disk.sync().map_err(io());
        }
        let file = disk.open(&self.name).map_err(io())?;
        file.set_len(self.offset).map_err(io())?;
        file.sync().map_err(io())
    }
}
