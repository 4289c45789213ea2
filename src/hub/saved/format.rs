//! The bytes of a saved state.
//!
//! ```text
//! magic · version · epoch · sequence · removed_through
//! · channels: name, log's bounds, counts, finish · entries: sequence, time, frame, flags ...
//! · CRC-32 of all that · end of file
//! ```
//!
//! Numbers are little-endian, texts and frames have their length in front.
//! Times are the wall clock's, in milliseconds since 1970, so that a history
//! goes on ageing while nobody serves it.
//!
//! What is read is not trusted: memory grows with the bytes that are there,
//! not with what a length claims, and nothing is given out before the sum is
//! right.

use std::collections::HashSet;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::sync::Arc;

use super::{RestoreError, SavedChannel, Snapshot};
use crate::frame::Frame;
use crate::hub::audience::{Audience, Condition};
use crate::hub::client::ClientId;
use crate::hub::id::Epoch;
use crate::hub::log::{Entry, Rare};
use crate::hub::manager::check_name;
use crate::hub::state::Finish;

pub(super) const MAGIC: &[u8; 16] = b"pushwheel state\n";

/// The format that is written, and the only one that is read.
const VERSION: u32 = 1;

/// No sequence number is higher: there is always a next one.
const SEQUENCE_MAX: u64 = u64::MAX >> 1;

const HAS_OWN_ID: u8 = 1;
const HAS_KEY: u8 = 2;
const FOR_CLIENTS: u8 = 4;
const FOR_CONDITIONS: u8 = 8;

/// Writes a state.
pub(super) fn write(snapshot: &Snapshot, to: impl Write) -> io::Result<()> {
    let mut out = Writer {
        to: BufWriter::new(to),
        sum: crc32fast::Hasher::new(),
    };
    out.snapshot(snapshot)?;
    out.finish()
}

/// Reads a state, to its last byte.
pub(super) fn read(from: impl Read) -> Result<Snapshot, RestoreError> {
    Reader::whole(from)
}

/// Writes, and sums up what it writes.
struct Writer<W: Write> {
    to: BufWriter<W>,
    sum: crc32fast::Hasher,
}

impl<W: Write> Writer<W> {
    fn snapshot(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        self.bytes(MAGIC)?;
        self.bytes(&VERSION.to_le_bytes())?;
        self.text(snapshot.epoch.as_str())?;
        self.number(snapshot.sequence)?;
        self.number(snapshot.removed_through)?;
        self.number(snapshot.channels.len() as u64)?;
        for channel in &snapshot.channels {
            self.channel(channel)?;
        }
        Ok(())
    }

    fn channel(&mut self, channel: &SavedChannel) -> io::Result<()> {
        self.text(&channel.name)?;
        self.number(channel.evicted_through)?;
        self.number(channel.head)?;
        for count in channel.counts {
            self.number(count)?;
        }
        self.bytes(&[u8::from(channel.last_own_id.is_some())])?;
        if let Some((id, sequence)) = &channel.last_own_id {
            self.text(id)?;
            self.number(*sequence)?;
        }
        self.bytes(&[u8::from(channel.finish.is_some())])?;
        if let Some(finish) = &channel.finish {
            self.number(finish.through)?;
            self.number(finish.until_ms)?;
        }
        self.number(channel.entries.len() as u64)?;
        for entry in &channel.entries {
            self.entry(entry)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.number(entry.sequence)?;
        self.number(entry.at_ms)?;
        self.sized(entry.frame.as_bytes())?;
        let Some(rare) = &entry.rare else {
            return self.bytes(&[0]);
        };
        let audience = rare.audience.as_deref();
        let mut flags = 0;
        for (flag, is_set) in [
            (HAS_OWN_ID, rare.own_id.is_some()),
            (HAS_KEY, rare.key.is_some()),
            (FOR_CLIENTS, matches!(audience, Some(Audience::Clients(_)))),
            (FOR_CONDITIONS, matches!(audience, Some(Audience::Where(_)))),
        ] {
            flags |= if is_set { flag } else { 0 };
        }
        self.bytes(&[flags])?;
        for text in [&rare.own_id, &rare.key].into_iter().flatten() {
            self.text(text)?;
        }
        match audience {
            None => {}
            Some(Audience::Clients(ids)) => {
                self.number(ids.len() as u64)?;
                for id in ids {
                    self.text(&id.to_string())?;
                }
            }
            Some(Audience::Where(conditions)) => {
                self.number(conditions.len() as u64)?;
                for Condition { field, value } in conditions {
                    self.text(field)?;
                    self.text(value)?;
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        let sum = self.sum.clone().finalize();
        self.to.write_all(&sum.to_le_bytes())?;
        self.to.flush()
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.to.write_all(bytes)
    }

    fn number(&mut self, number: u64) -> io::Result<()> {
        self.bytes(&number.to_le_bytes())
    }

    fn sized(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, "an event has more than 4 GiB")
        })?;
        self.bytes(&len.to_le_bytes())?;
        self.bytes(bytes)
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        self.sized(text.as_bytes())
    }
}

/// Reads, sums up what it reads, and believes nothing.
struct Reader<R: Read> {
    from: BufReader<R>,
    sum: crc32fast::Hasher,
}

fn damaged<T>(what: &'static str) -> Result<T, RestoreError> {
    Err(RestoreError::Damaged { what })
}

fn ensure(is_so: bool, what: &'static str) -> Result<(), RestoreError> {
    if is_so { Ok(()) } else { damaged(what) }
}

impl<R: Read> Reader<R> {
    fn whole(from: R) -> Result<Snapshot, RestoreError> {
        let mut reader = Reader {
            from: BufReader::new(from),
            sum: crc32fast::Hasher::new(),
        };
        let snapshot = reader.snapshot()?;
        let sum = reader.sum.clone().finalize();
        ensure(reader.array()? == sum.to_le_bytes(), "its sum is wrong")?;
        let rest = reader.from.read(&mut [0]).map_err(RestoreError::Read)?;
        ensure(rest == 0, "something follows its end")?;
        Ok(snapshot)
    }

    fn snapshot(&mut self) -> Result<Snapshot, RestoreError> {
        let magic = self.some(MAGIC.len())?;
        if !MAGIC.starts_with(&magic) {
            return Err(RestoreError::Foreign);
        }
        ensure(magic == MAGIC, "it ends too soon")?;
        let version = u32::from_le_bytes(self.array()?);
        if version != VERSION {
            return Err(RestoreError::Version {
                found: version,
                known: VERSION,
            });
        }
        let Some(epoch) = Epoch::from_text(&self.text()?) else {
            return damaged("its epoch is none");
        };
        let sequence = self.number()?;
        ensure(sequence <= SEQUENCE_MAX, "its sequence is at its end")?;
        let removed_through = self.number()?;
        ensure(
            removed_through <= sequence,
            "what was removed is yet to come",
        )?;
        let mut names = HashSet::new();
        let mut channels = Vec::new();
        for _ in 0..self.number()? {
            let channel = self.channel(sequence)?;
            ensure(names.insert(channel.name.clone()), "a channel comes twice")?;
            channels.push(channel);
        }
        Ok(Snapshot {
            epoch,
            sequence,
            removed_through,
            channels,
        })
    }

    fn channel(&mut self, newest: u64) -> Result<SavedChannel, RestoreError> {
        let name = self.text()?;
        ensure(check_name(&name).is_ok(), "no channel has such a name")?;
        let (evicted_through, head) = (self.number()?, self.number()?);
        let are_ordered = evicted_through <= head && head <= newest;
        ensure(are_ordered, "a log ends before it begins")?;
        let counts = [self.number()?, self.number()?, self.number()?];
        // Counters go on counting; these would not be reached in any life.
        ensure(
            counts.iter().all(|count| *count <= SEQUENCE_MAX),
            "a count is at its end",
        )?;
        let last_own_id = match self.flag()? {
            true => Some((self.text()?, self.number()?)),
            false => None,
        };
        ensure(
            last_own_id.as_ref().is_none_or(|(_, at)| *at <= head),
            "an id is of an event to come",
        )?;
        let finish = match self.flag()? {
            true => Some(Finish {
                through: self.number()?,
                until_ms: self.number()?,
            }),
            false => None,
        };
        ensure(
            finish.is_none_or(|finish| finish.through <= newest),
            "a channel ends after an event to come",
        )?;
        let mut entries = Vec::new();
        let mut last = evicted_through;
        for _ in 0..self.number()? {
            let entry = self.entry()?;
            let is_next = entry.sequence > last && entry.sequence <= head;
            ensure(is_next, "events are out of order")?;
            last = entry.sequence;
            entries.push(entry);
        }
        Ok(SavedChannel {
            name,
            evicted_through,
            head,
            counts,
            last_own_id,
            finish,
            entries,
        })
    }

    fn entry(&mut self) -> Result<Entry, RestoreError> {
        let (sequence, at_ms) = (self.number()?, self.number()?);
        let frame = self.sized()?;
        ensure(frame.ends_with(b"\n\n"), "an event has no end")?;
        let [flags] = self.array()?;
        let all = HAS_OWN_ID | HAS_KEY | FOR_CLIENTS | FOR_CONDITIONS;
        let both = FOR_CLIENTS | FOR_CONDITIONS;
        ensure(flags & !all == 0, "an event has something unknown")?;
        ensure(flags & both != both, "an event has two audiences")?;
        let mut rare = Rare::default();
        if flags & HAS_OWN_ID != 0 {
            rare.own_id = Some(self.text()?);
        }
        if flags & HAS_KEY != 0 {
            rare.key = Some(self.text()?);
        }
        if flags & both != 0 {
            let audience = self.audience(flags & FOR_CLIENTS != 0)?;
            rare.audience = Some(Arc::new(audience));
        }
        Ok(Entry {
            sequence,
            at_ms,
            frame: Frame::raw(&frame),
            rare: (flags != 0).then(|| Box::new(rare)),
        })
    }

    fn audience(&mut self, is_clients: bool) -> Result<Audience, RestoreError> {
        let count = self.number()?;
        if is_clients {
            let mut ids = Vec::new();
            for _ in 0..count {
                // Any text: an event may have been for an impossible client.
                ids.push(ClientId::lookup(&self.text()?));
            }
            return Ok(Audience::clients(ids));
        }
        let mut conditions = Vec::new();
        for _ in 0..count {
            conditions.push(Condition::new(&*self.text()?, &*self.text()?));
        }
        Ok(Audience::Where(conditions.into()))
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
