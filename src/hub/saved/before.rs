//! Reads the versions 2 and 3 of a saved state, which older releases have written.
//!
//! ```text
//! magic · version · epoch · key of ids · sequence · removed_through
//! · heads of removed channels, from version 3 on: name, number
//! · channels: name, log's bounds, counts, finish · entries: sequence, time, frame, flags ...
//! · CRC-32 of all that · end of file
//! ```
//!
//! Numbers are little-endian and have 8 bytes; texts and frames have their length in front,
//! in 4 bytes. There is one sum for all, so all of it is read before any is used.

use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::error::RestoreError;
use super::parts::{Begin, End, Part, SavedChannel};
use crate::frame::Frame;
use crate::hub::audience::{Audience, Choice, Condition};
use crate::hub::channel_state::Finish;
use crate::hub::client::ClientId;
use crate::hub::entry::{Attributes, Entry};
use crate::hub::heads::Absent;
use crate::hub::id::Epoch;
use crate::hub::ids::Ids;
use crate::hub::log::{Evicted, SavedBounds};
use crate::hub::numbering::Numbering;
use crate::hub::remembered::{IdRecord, OwnId, key_of};

/// The versions that are read here.
pub(super) const VERSIONS: RangeInclusive<u32> = 2..=3;

/// The first version with heads of removed channels.
const VERSION_HEADS: u32 = 3;

const HAS_OWN_ID: u8 = 1;
const HAS_KEY: u8 = 2;
const HAS_AUDIENCE: u8 = 4;

/// The kinds of an audience.
const NAMED: u8 = 0;
const GENERATED: u8 = 1;
const FILTERED: u8 = 2;
const EXCEPT: u8 = 3;
const WHERE: u8 = 4;

/// Reads a state behind its version, to its last byte. `sum` is that of what was read.
pub(super) fn read(
    from: impl Read,
    sum: crc32fast::Hasher,
    version: u32,
) -> Result<Vec<Part>, RestoreError> {
    let mut reader = Reader { from, sum, version };
    let parts = reader.parts()?;
    let sum = reader.sum.clone().finalize();
    ensure(
        reader.array()? == sum.to_le_bytes(),
        "the checksum does not match",
    )?;
    let rest = reader.from.read(&mut [0]).map_err(RestoreError::Read)?;
    ensure(rest == 0, "data follows the end")?;
    Ok(parts)
}

/// Reads, and sums up what it reads.
struct Reader<R: Read> {
    from: R,
    sum: crc32fast::Hasher,
    version: u32,
}

fn damaged<T>(what: &'static str) -> Result<T, RestoreError> {
    Err(RestoreError::Damaged { what })
}

fn ensure(is_so: bool, what: &'static str) -> Result<(), RestoreError> {
    if is_so { Ok(()) } else { damaged(what) }
}

impl<R: Read> Reader<R> {
    fn parts(&mut self) -> Result<Vec<Part>, RestoreError> {
        let Some(epoch) = Epoch::from_text(&self.text()?) else {
            return damaged("invalid epoch");
        };
        let key = match self.flag()? {
            true => Some(u128::from_le_bytes(self.array()?)),
            false => None,
        };
        let (sequence, removed_through) = (self.number()?, self.number()?);
        let mut heads = Vec::new();
        if self.version >= VERSION_HEADS {
            for _ in 0..self.number()? {
                let name = self.text()?;
                let (through, head) = (sequence, self.number()?);
                heads.push((name, Absent { through, head }));
            }
        }
        let (mut channels, mut oldest_ms) = (Vec::new(), u64::MAX);
        let mut own_ids = Vec::new();
        let count = self.number()?;
        for _ in 0..count {
            let (channel, entries) = self.channel(sequence, &mut own_ids)?;
            let times = entries.iter().map(|entry| entry.at_ms);
            oldest_ms = times.fold(oldest_ms, u64::min);
            channels.push(Part::Channel(Box::new(channel)));
            channels.push(Part::Entries(entries));
        }
        let mut parts = vec![Part::Begin(Begin {
            ids: Ids::new(epoch, Numbering::new(key)),
            at: sequence,
            oldest_ms,
            channels: usize::try_from(count).unwrap_or(usize::MAX),
            jumps: Vec::new(),
        })];
        parts.extend(channels);
        own_ids.sort_by_key(|(_, record)| record.sequence);
        parts.push(Part::OwnIds(own_ids));
        parts.push(Part::Heads(heads));
        parts.push(Part::End(End {
            sequence,
            removed_through,
        }));
        Ok(parts)
    }

    /// Reads a channel and its entries, and adds their own ids to those of all channels.
    fn channel(
        &mut self,
        through: u64,
        own_ids: &mut Vec<(Arc<str>, IdRecord)>,
    ) -> Result<(SavedChannel, Vec<Entry>), RestoreError> {
        let name = self.text()?;
        let bounds = SavedBounds {
            began_after: self.number()?,
            evicted: Evicted {
                history: self.number()?,
                keyed: self.number()?,
            },
            head: self.number()?,
        };
        let has_more = self.flag()?;
        let mut missing = Vec::new();
        for _ in 0..self.number()? {
            missing.push(self.text()?);
        }
        let counts = [self.number()?, self.number()?, self.number()?];
        for _ in 0..self.number()? {
            let (id, record) = self.record()?;
            own_ids.push((key_of(&name, &id), record));
        }
        let finish = match self.flag()? {
            true => Some(Finish {
                through: self.number()?,
                until_ms: self.number()?,
            }),
            false => None,
        };
        let mut entries = Vec::new();
        for _ in 0..self.number()? {
            let entry = self.entry()?;
            let record = entry.record();
            own_ids.extend(record.map(|(id, record)| (key_of(&name, &id), record)));
            entries.push(entry);
        }
        let channel = SavedChannel {
            name,
            through,
            bounds,
            missing_keys: (missing, has_more),
            counts,
            finish,
        };
        Ok((channel, entries))
    }

    fn record(&mut self) -> Result<(Arc<str>, IdRecord), RestoreError> {
        let id = self.text()?;
        let record = IdRecord {
            sequence: self.number()?,
            // It has no time, and counts as published when the state is restored.
            at_ms: u64::MAX,
            digest: self.number()?,
            is_doubtful: self.flag()?,
            audience: match self.flag()? {
                true => Some(Arc::new(self.audience()?)),
                false => None,
            },
        };
        Ok((id, record))
    }

    fn entry(&mut self) -> Result<Entry, RestoreError> {
        let (sequence, at_ms) = (self.number()?, self.number()?);
        let Some(frame) = Frame::from_event(&self.sized()?) else {
            return damaged("an event is not one event");
        };
        let [flags] = self.array()?;
        let all = HAS_OWN_ID | HAS_KEY | HAS_AUDIENCE;
        ensure(flags & !all == 0, "an event has something unknown")?;
        let mut attributes = Attributes::default();
        if flags & HAS_OWN_ID != 0 {
            attributes.own_id = Some(OwnId {
                text: self.text()?,
                digest: self.number()?,
                is_doubtful: self.flag()?,
            });
        }
        if flags & HAS_KEY != 0 {
            attributes.key = Some(self.text()?);
        }
        if flags & HAS_AUDIENCE != 0 {
            attributes.audience = Some(Arc::new(self.audience()?));
        }
        Ok(Entry {
            sequence,
            at_ms,
            frame,
            attributes: (flags != 0).then(|| Box::new(attributes)),
        })
    }

    fn audience(&mut self) -> Result<Audience, RestoreError> {
        let [kind] = self.array()?;
        let count = self.number()?;
        if kind == WHERE {
            let mut conditions = Vec::new();
            for _ in 0..count {
                let (field, value) = (self.text()?, self.text()?);
                conditions.push(match self.flag()? {
                    true => Condition::not(&*field, &*value),
                    false => Condition::new(&*field, &*value),
                });
            }
            return Ok(Audience::Where(conditions.into()));
        }
        let mut ids = Vec::new();
        for _ in 0..count {
            // Any text: an event may have been for an impossible client.
            ids.push(ClientId::lookup(&self.text()?));
        }
        match kind {
            NAMED => Ok(Audience::clients(ids, Choice::Named)),
            GENERATED => Ok(Audience::clients(ids, Choice::Generated)),
            FILTERED => Ok(Audience::clients(ids, Choice::Filtered)),
            EXCEPT => Ok(Audience::except(ids)),
            _ => damaged("an audience is of an unknown kind"),
        }
    }

    /// Up to `len` bytes, as far as they are there.
    fn some(&mut self, len: usize) -> Result<Vec<u8>, RestoreError> {
        let mut bytes = Vec::new();
        let mut part = (&mut self.from).take(len as u64);
        part.read_to_end(&mut bytes).map_err(RestoreError::Read)?;
        self.sum.update(&bytes);
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RestoreError> {
        let mut bytes = [0; N];
        match self.from.read_exact(&mut bytes) {
            Ok(()) => {
                self.sum.update(&bytes);
                Ok(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                damaged("it ends too soon")
            }
            Err(error) => Err(RestoreError::Read(error)),
        }
    }

    fn flag(&mut self) -> Result<bool, RestoreError> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => damaged("a yes or no is neither"),
        }
    }

    fn number(&mut self) -> Result<u64, RestoreError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn sized(&mut self) -> Result<Vec<u8>, RestoreError> {
        let len = u32::from_le_bytes(self.array()?) as usize;
        let bytes = self.some(len)?;
        ensure(bytes.len() == len, "it ends too soon")?;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<Arc<str>, RestoreError> {
        match String::from_utf8(self.sized()?) {
            Ok(text) => Ok(text.into()),
            Err(_) => damaged("a text is none"),
        }
    }
}
