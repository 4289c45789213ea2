//! The bytes of a saved state.
//!
//! ```text
//! magic · version · epoch · key of ids · sequence · removed_through
//! · heads of removed channels: name, number
//! · channels: name, log's bounds, counts, finish · entries: sequence, time, frame, flags ...
//! · events for all channels: evicted_through · own ids · entries, each with a flag
//! · CRC-32 of all that · end of file
//! ```
//!
//! Numbers are little-endian, texts and frames have their length in front.
//! Times are the wall clock's, in milliseconds since 1970, so that a history
//! ages while no engine serves it.
//!
//! What is read is not trusted: memory grows with the bytes that are there,
//! not with what a length claims, and nothing is given out before the sum is
//! right.

use std::collections::HashSet;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::sync::Arc;

use super::snapshot::{RestoreError, SavedChannel, SavedForAll, Snapshot};
use crate::frame::Frame;
use crate::hub::audience::{Audience, Choice, Condition};
use crate::hub::channel_state::Finish;
use crate::hub::client::ClientId;
use crate::hub::entry::{Attributes, Entry};
use crate::hub::id::Epoch;
use crate::hub::ids::Ids;
use crate::hub::log::{Evicted, SavedBounds};
use crate::hub::names::check_name;
use crate::hub::numbering::Numbering;
use crate::hub::remembered::{IdRecord, OwnId};

pub(super) const MAGIC: &[u8; 16] = b"pushwheel state\n";

/// The format that is written.
const VERSION: u32 = 4;

/// The first format with events for all channels.
const VERSION_FOR_ALL: u32 = 4;

/// The oldest format that is read. It has no heads of removed channels.
const VERSION_MIN: u32 = 2;

/// No sequence number is higher: there is always a next one.
const SEQUENCE_MAX: u64 = u64::MAX >> 1;

const HAS_OWN_ID: u8 = 1;
const HAS_KEY: u8 = 2;
const HAS_AUDIENCE: u8 = 4;

/// The kinds of an audience.
const NAMED: u8 = 0;
const GENERATED: u8 = 1;
const FILTERED: u8 = 2;
const EXCEPT: u8 = 3;
const WHERE: u8 = 4;

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
        self.text(snapshot.ids.epoch().as_str())?;
        let key = snapshot.ids.numbering().key();
        self.flag(key.is_some())?;
        if let Some(key) = key {
            self.bytes(&key.to_le_bytes())?;
        }
        self.number(snapshot.sequence)?;
        self.number(snapshot.removed_through)?;
        self.number(snapshot.heads.len() as u64)?;
        for (name, head) in &snapshot.heads {
            self.text(name)?;
            self.number(*head)?;
        }
        self.number(snapshot.channels.len() as u64)?;
        for channel in &snapshot.channels {
            self.channel(channel)?;
        }
        self.for_all(&snapshot.for_all)
    }

    fn for_all(&mut self, for_all: &SavedForAll) -> io::Result<()> {
        self.number(for_all.evicted_through)?;
        self.records(&for_all.released)?;
        self.number(for_all.entries.len() as u64)?;
        for (entry, removes) in &for_all.entries {
            self.flag(*removes)?;
            self.entry(entry)?;
        }
        Ok(())
    }

    fn channel(&mut self, channel: &SavedChannel) -> io::Result<()> {
        self.text(&channel.name)?;
        let bounds = &channel.bounds;
        let evicted = [bounds.evicted.history, bounds.evicted.keyed];
        for number in [bounds.began_after, evicted[0], evicted[1], bounds.head] {
            self.number(number)?;
        }
        let (missing, has_more) = &channel.missing_keys;
        self.flag(*has_more)?;
        self.number(missing.len() as u64)?;
        for key in missing {
            self.text(key)?;
        }
        for count in channel.counts {
            self.number(count)?;
        }
        self.records(&channel.released)?;
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

    fn records(&mut self, records: &[(Arc<str>, IdRecord)]) -> io::Result<()> {
        self.number(records.len() as u64)?;
        for (id, record) in records {
            self.text(id)?;
            self.number(record.sequence)?;
            self.number(record.digest)?;
            self.flag(record.is_doubtful)?;
            self.flag(record.audience.is_some())?;
            if let Some(audience) = &record.audience {
                self.audience(audience)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.number(entry.sequence)?;
        self.number(entry.at_ms)?;
        self.sized(entry.frame.as_bytes())?;
        let Some(attributes) = &entry.attributes else {
            return self.bytes(&[0]);
        };
        let audience = attributes.audience.as_deref();
        let mut flags = 0;
        for (flag, is_set) in [
            (HAS_OWN_ID, attributes.own_id.is_some()),
            (HAS_KEY, attributes.key.is_some()),
            (HAS_AUDIENCE, audience.is_some()),
        ] {
            flags |= if is_set { flag } else { 0 };
        }
        self.bytes(&[flags])?;
        if let Some(own_id) = &attributes.own_id {
            self.text(&own_id.text)?;
            self.number(own_id.digest)?;
            self.flag(own_id.is_doubtful)?;
        }
        if let Some(key) = &attributes.key {
            self.text(key)?;
        }
        audience.map_or(Ok(()), |audience| self.audience(audience))
    }

    fn audience(&mut self, audience: &Audience) -> io::Result<()> {
        let (kind, ids) = match audience {
            Audience::Clients { ids, choice } => match choice {
                Choice::Named => (NAMED, ids),
                Choice::Generated => (GENERATED, ids),
                Choice::Filtered => (FILTERED, ids),
            },
            Audience::Except(ids) => (EXCEPT, ids),
            Audience::Where(conditions) => {
                self.bytes(&[WHERE])?;
                self.number(conditions.len() as u64)?;
                for condition in conditions {
                    self.text(condition.field())?;
                    self.text(condition.value())?;
                    self.flag(condition.is_negated())?;
                }
                return Ok(());
            }
        };
        self.bytes(&[kind])?;
        self.number(ids.len() as u64)?;
        for id in ids {
            self.text(&id.to_string())?;
        }
        Ok(())
    }

    fn flag(&mut self, flag: bool) -> io::Result<()> {
        self.bytes(&[u8::from(flag)])
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
        ensure(
            reader.array()? == sum.to_le_bytes(),
            "the checksum does not match",
        )?;
        let rest = reader.from.read(&mut [0]).map_err(RestoreError::Read)?;
        ensure(rest == 0, "data follows the end")?;
        Ok(snapshot)
    }

    fn snapshot(&mut self) -> Result<Snapshot, RestoreError> {
        let magic = self.some(MAGIC.len())?;
        if !MAGIC.starts_with(&magic) {
            return Err(RestoreError::Foreign);
        }
        ensure(magic == MAGIC, "it ends too soon")?;
        let version = u32::from_le_bytes(self.array()?);
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(RestoreError::Version {
                found: version,
                known: VERSION,
            });
        }
        let Some(epoch) = Epoch::from_text(&self.text()?) else {
            return damaged("invalid epoch");
        };
        let key = match self.flag()? {
            true => Some(u128::from_le_bytes(self.array()?)),
            false => None,
        };
        let sequence = self.number()?;
        ensure(sequence <= SEQUENCE_MAX, "its sequence is at its end")?;
        let removed_through = self.number()?;
        ensure(
            removed_through <= sequence,
            "a removed channel is newer than the sequence",
        )?;
        let mut names = HashSet::new();
        let mut heads = Vec::new();
        if version > VERSION_MIN {
            for _ in 0..self.number()? {
                let (name, head) = (self.text()?, self.number()?);
                ensure(check_name(&name).is_ok(), "no channel has such a name")?;
                ensure(
                    head <= sequence,
                    "a removed channel ends after an event to come",
                )?;
                ensure(names.insert(name.clone()), "a channel comes twice")?;
                heads.push((name, head));
            }
        }
        let mut channels = Vec::new();
        for _ in 0..self.number()? {
            let channel = self.channel(sequence)?;
            ensure(names.insert(channel.name.clone()), "a channel comes twice")?;
            channels.push(channel);
        }
        let for_all = match version >= VERSION_FOR_ALL {
            true => self.for_all(sequence)?,
            false => SavedForAll::default(),
        };
        Ok(Snapshot {
            ids: Ids::new(epoch, Numbering::new(key)),
            sequence,
            removed_through,
            heads,
            channels,
            for_all,
        })
    }

    fn for_all(&mut self, newest: u64) -> Result<SavedForAll, RestoreError> {
        let evicted_through = self.number()?;
        ensure(
            evicted_through <= newest,
            "an event for all channels is to come",
        )?;
        let released = self.records(newest)?;
        let (mut entries, mut last) = (Vec::new(), evicted_through);
        for _ in 0..self.number()? {
            let (removes, entry) = (self.flag()?, self.entry()?);
            let is_next = entry.sequence > last && entry.sequence <= newest;
            ensure(is_next, "events are out of order")?;
            last = entry.sequence;
            entries.push((entry, removes));
        }
        Ok(SavedForAll {
            evicted_through,
            released,
            entries,
        })
    }

    /// Reads records of own ids, each of another id and of an event up to `newest`.
    fn records(&mut self, newest: u64) -> Result<Vec<(Arc<str>, IdRecord)>, RestoreError> {
        let mut ids = HashSet::new();
        let mut records = Vec::new();
        for _ in 0..self.number()? {
            let (id, record) = self.record()?;
            ensure(record.sequence <= newest, "an id is of an event to come")?;
            ensure(ids.insert(id.clone()), "an id comes twice")?;
            records.push((id, record));
        }
        Ok(records)
    }

    fn channel(&mut self, newest: u64) -> Result<SavedChannel, RestoreError> {
        let name = self.text()?;
        ensure(check_name(&name).is_ok(), "no channel has such a name")?;
        let bounds = SavedBounds {
            began_after: self.number()?,
            evicted: Evicted {
                history: self.number()?,
                keyed: self.number()?,
            },
            head: self.number()?,
        };
        let SavedBounds { head, evicted, .. } = bounds;
        let are_ordered = bounds.began_after <= evicted.history.min(evicted.keyed)
            && !evicted.is_loss(head, head)
            && head <= newest;
        ensure(are_ordered, "a log ends before it begins")?;
        let has_more = self.flag()?;
        let mut missing = Vec::new();
        for _ in 0..self.number()? {
            missing.push(self.text()?);
        }
        let counts = [self.number()?, self.number()?, self.number()?];
        // Counters go on counting; these would not be reached in any life.
        ensure(
            counts.iter().all(|count| *count <= SEQUENCE_MAX),
            "a count is at its end",
        )?;
        let released = self.records(head)?;
        let is_gone: HashSet<u64> = released.iter().map(|(_, r)| r.sequence).collect();
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
        let mut last = 0;
        for _ in 0..self.number()? {
            let entry = self.entry()?;
            let is_next = entry.sequence > last && entry.sequence <= head;
            ensure(is_next, "events are out of order")?;
            let is_evicted = entry.has_key() && entry.sequence <= evicted.keyed;
            ensure(!is_evicted, "an event is there that was evicted")?;
            last = entry.sequence;
            let is_released = entry.own_id().is_some() && is_gone.contains(&entry.sequence);
            ensure(!is_released, "an event is there that was evicted")?;
            entries.push(entry);
        }
        Ok(SavedChannel {
            name,
            bounds,
            missing_keys: (missing, has_more),
            counts,
            released,
            finish,
            entries,
        })
    }

    fn record(&mut self) -> Result<(Arc<str>, IdRecord), RestoreError> {
        let id = self.text()?;
        let record = IdRecord {
            sequence: self.number()?,
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
        let frame = self.sized()?;
        ensure(frame.ends_with(b"\n\n"), "an event has no end")?;
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
            frame: Frame::raw(&frame),
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
