//! The bytes of a saved state.
//!
//! ```text
//! state   := "pushwheel state\n" · version, 4 bytes · section*
//! section := kind · length of the content · content · CRC-32 of the state up to here, 4 bytes
//! ```
//!
//! A section is a [`Part`], the first one the begin and the last one the end; nothing
//! follows it. Numbers and texts are those of [`bytes`](crate::journal::bytes).
//!
//! What is read is not trusted: memory grows with the bytes that are there, not with what
//! a length claims, and no section is read before its sum is right.

use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;

use super::before;
use super::error::RestoreError;
use super::parts::{Begin, End, Part, SavedChannel, SavedForAll};
use crate::frame::Frame;
use crate::hub::channel_state::Finish;
use crate::hub::entry::{Attributes, Entry};
use crate::hub::heads::Absent;
use crate::hub::id::Epoch;
use crate::hub::idempotency::{KeyId, KeyRecord};
use crate::hub::ids::Ids;
use crate::hub::log::{Evicted, SavedBounds};
use crate::hub::numbering::Numbering;
use crate::hub::remembered::{IdRecord, OwnId};
use crate::journal::bytes::{
    Damaged, Input, NUMBER_BYTES_MAX, ensure, put_number, put_sized, put_text,
};
use crate::journal::event::{audience, put_audience};
use crate::journal::terms::Jump;

pub(super) const MAGIC: &[u8; 16] = b"pushwheel state\n";

/// The format that is written.
const VERSION: u32 = 4;

/// The kinds of sections.
const BEGIN: u8 = 1;
const FOR_ALL: u8 = 2;
const CHANNEL: u8 = 3;
const ENTRIES: u8 = 4;
const HEADS: u8 = 5;
const END: u8 = 6;
const OWN_IDS: u8 = 7;
const FINISHES: u8 = 8;
const KEYS: u8 = 9;
const REMOVALS: u8 = 10;
const UNKNOWN: u8 = 11;
const REFUSED: u8 = 12;

/// The flags of an entry.
const HAS_OWN_ID: u8 = 1;
const HAS_KEY: u8 = 2;
const IS_DOUBTFUL: u8 = 4;
/// Its audience is that of the entry before.
const SAME_AUDIENCE: u8 = 8;

/// The least bytes of an entry: sequence, time, flags, audience and the length of its frame.
const ENTRY_BYTES_MIN: usize = 5;

/// The least bytes of a key: its own, its digest, and four numbers.
const KEY_BYTES_MIN: usize = 16 + 8 + 4;

/// Writes a state.
pub(super) struct Writer<W> {
    to: W,
    sum: crc32fast::Hasher,
    content: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(to: W) -> io::Result<Writer<W>> {
        let mut writer = Writer {
            to,
            sum: crc32fast::Hasher::new(),
            content: Vec::new(),
        };
        writer.put(MAGIC)?;
        writer.put(&VERSION.to_le_bytes())?;
        Ok(writer)
    }

    /// Writes the next part.
    pub(super) fn write(&mut self, part: &Part) -> io::Result<()> {
        let mut content = std::mem::take(&mut self.content);
        content.clear();
        let kind = put_part(&mut content, part);
        let mut head = vec![kind];
        put_number(&mut head, content.len() as u64);
        self.put(&head)?;
        self.put(&content)?;
        let sum = self.sum.clone().finalize().to_le_bytes();
        self.put(&sum)?;
        self.content = content;
        match part {
            Part::End(_) => self.to.flush(),
            _ => Ok(()),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.to.write_all(bytes)
    }
}

fn put_part(out: &mut Vec<u8>, part: &Part) -> u8 {
    match part {
        Part::Begin(begin) => {
            put_text(out, begin.ids.epoch().as_str());
            let key = begin.ids.numbering().key();
            out.push(u8::from(key.is_some()));
            out.extend(key.iter().flat_map(|key| key.to_le_bytes()));
            put_number(out, begin.at);
            put_number(out, begin.oldest_ms);
            put_number(out, begin.channels as u64);
            put_number(out, begin.jumps.len() as u64);
            for jump in &begin.jumps {
                put_number(out, jump.after);
                put_number(out, jump.first);
            }
            BEGIN
        }
        Part::ForAll(for_all) => {
            put_number(out, for_all.evicted_through);
            put_number(out, for_all.entries.len() as u64);
            let mut before = None;
            for (entry, removes) in &for_all.entries {
                out.push(u8::from(*removes));
                put_entry(out, entry, before.replace(entry));
            }
            FOR_ALL
        }
        Part::Unknown(through) => {
            put_number(out, *through);
            UNKNOWN
        }
        Part::Finishes(finishes) => {
            put_ends(out, finishes);
            FINISHES
        }
        Part::Removals(removals) => {
            put_ends(out, removals);
            REMOVALS
        }
        Part::Channel(channel) => {
            put_channel(out, channel);
            CHANNEL
        }
        Part::Entries(entries) => {
            put_number(out, entries.len() as u64);
            let mut before = None;
            for entry in entries {
                put_entry(out, entry, before.replace(entry));
            }
            ENTRIES
        }
        Part::OwnIds(records) => {
            put_records(out, records);
            OWN_IDS
        }
        Part::Keys(keys) => {
            put_keys(out, keys);
            KEYS
        }
        Part::Heads(heads) => {
            put_number(out, heads.len() as u64);
            for (name, absent) in heads {
                put_text(out, name);
                put_number(out, absent.through);
                put_number(out, absent.head);
            }
            HEADS
        }
        Part::Refused(numbers) => {
            put_number(out, numbers.len() as u64);
            for number in numbers {
                put_number(out, *number);
            }
            REFUSED
        }
        Part::End(end) => {
            put_number(out, end.sequence);
            put_number(out, end.removed_through);
            END
        }
    }
}

fn put_channel(out: &mut Vec<u8>, channel: &SavedChannel) {
    put_text(out, &channel.name);
    let SavedBounds {
        began_after,
        evicted,
        head,
    } = channel.bounds;
    for number in [
        channel.through,
        began_after,
        evicted.history,
        evicted.keyed,
        head,
    ] {
        put_number(out, number);
    }
    let (missing, has_more) = &channel.missing_keys;
    out.push(u8::from(*has_more));
    put_number(out, missing.len() as u64);
    for key in missing {
        put_text(out, key);
    }
    for count in channel.counts {
        put_number(out, count);
    }
    out.push(u8::from(channel.finish.is_some()));
    if let Some(finish) = &channel.finish {
        put_number(out, finish.through);
        put_number(out, finish.until_ms);
    }
}

fn put_records(out: &mut Vec<u8>, records: &[(Arc<str>, IdRecord)]) {
    put_number(out, records.len() as u64);
    for (key, record) in records {
        put_text(out, key);
        put_number(out, record.sequence);
        put_number(out, record.at_ms);
        out.extend_from_slice(&record.digest.to_le_bytes());
        out.push(u8::from(record.is_doubtful));
        put_audience(out, record.audience.as_deref());
    }
}

fn put_ends(out: &mut Vec<u8>, ends: &[(Arc<str>, u64)]) {
    put_number(out, ends.len() as u64);
    for (name, number) in ends {
        put_text(out, name);
        put_number(out, *number);
    }
}

fn put_keys(out: &mut Vec<u8>, keys: &[(KeyId, KeyRecord)]) {
    put_number(out, keys.len() as u64);
    for (id, record) in keys {
        out.extend_from_slice(&id.0);
        put_number(out, record.sequence);
        put_number(out, record.at_ms);
        out.extend_from_slice(&record.digest.to_le_bytes());
        put_number(out, u64::from(record.events));
        put_number(out, u64::from(record.clients));
    }
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry, before: Option<&Entry>) {
    let own_id = entry.attributes.as_ref().and_then(|a| a.own_id.as_ref());
    let audience = entry.audience();
    let same = before.and_then(Entry::audience);
    let is_same = same.zip(audience).is_some_and(|(a, b)| Arc::ptr_eq(a, b));
    let mut flags = 0;
    for (flag, is_set) in [
        (HAS_OWN_ID, own_id.is_some()),
        (HAS_KEY, entry.has_key()),
        (IS_DOUBTFUL, own_id.is_some_and(|id| id.is_doubtful)),
        (SAME_AUDIENCE, is_same),
    ] {
        flags |= if is_set { flag } else { 0 };
    }
    put_number(out, entry.sequence);
    put_number(out, entry.at_ms);
    out.push(flags);
    if let Some(own_id) = own_id {
        put_text(out, &own_id.text);
        out.extend_from_slice(&own_id.digest.to_le_bytes());
    }
    if let Some(key) = entry.key() {
        put_text(out, key);
    }
    if !is_same {
        put_audience(out, audience.map(|audience| &**audience));
    }
    put_sized(out, entry.frame.as_bytes());
}

/// Reads a state.
pub(super) struct Reader<R> {
    from: BufReader<R>,
    sum: crc32fast::Hasher,
    /// The parts of a state of an older version.
    before: Option<std::vec::IntoIter<Part>>,
}

impl<R: Read> Reader<R> {
    /// # Errors
    /// When it is not a state, or of a version that is not read.
    pub(super) fn new(from: R) -> Result<Reader<R>, RestoreError> {
        let mut reader = Reader {
            from: BufReader::new(from),
            sum: crc32fast::Hasher::new(),
            before: None,
        };
        let magic = reader.some(MAGIC.len())?;
        if !MAGIC.starts_with(&magic) {
            return Err(RestoreError::Foreign);
        }
        ensure(magic == MAGIC, TOO_SHORT)?;
        let version = u32::from_le_bytes(reader.array()?);
        if before::VERSIONS.contains(&version) {
            let parts = before::read(&mut reader.from, reader.sum.clone(), version)?;
            reader.before = Some(parts.into_iter());
        } else if version != VERSION {
            return Err(RestoreError::Version {
                found: version,
                known: VERSION,
            });
        }
        Ok(reader)
    }

    /// Reads the next part.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub(super) fn read(&mut self) -> Result<Part, RestoreError> {
        if let Some(before) = &mut self.before {
            return Ok(before.next().ok_or(Damaged(TOO_SHORT))?);
        }
        let [kind] = self.array()?;
        let len = self.number()?;
        let content = self.some(usize::try_from(len).unwrap_or(usize::MAX))?;
        ensure(content.len() as u64 == len, TOO_SHORT)?;
        let sum = self.sum.clone().finalize().to_le_bytes();
        ensure(self.array()? == sum, "the checksum does not match")?;
        let mut input = Input(&content);
        let part = part(kind, &mut input)?;
        input.end()?;
        if matches!(part, Part::End(_)) {
            let rest = self.from.read(&mut [0]).map_err(RestoreError::Read)?;
            ensure(rest == 0, "data follows the end")?;
        }
        Ok(part)
    }

    /// Reads a number of which no byte is known yet.
    fn number(&mut self) -> Result<u64, RestoreError> {
        let mut bytes = Vec::new();
        while bytes.len() < NUMBER_BYTES_MAX {
            let [byte] = self.array()?;
            bytes.push(byte);
            if byte & 0x80 == 0 {
                break;
            }
        }
        Ok(Input(&bytes).number()?)
    }

    /// Reads up to `len` bytes, as far as they are there.
    fn some(&mut self, len: usize) -> Result<Vec<u8>, RestoreError> {
        let mut bytes = Vec::new();
        let mut part = (&mut self.from).take(len as u64);
        part.read_to_end(&mut bytes).map_err(RestoreError::Read)?;
        self.sum.update(&bytes);
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RestoreError> {
        let bytes = self.some(N)?;
        Ok(Input(&bytes).array()?)
    }
}

const TOO_SHORT: &str = "it ends too soon";

fn part(kind: u8, input: &mut Input<'_>) -> Result<Part, Damaged> {
    Ok(match kind {
        BEGIN => Part::Begin(begin(input)?),
        FOR_ALL => {
            let evicted_through = input.number()?;
            let mut entries: Vec<(Entry, bool)> = Vec::new();
            for _ in 0..input.count(ENTRY_BYTES_MIN + 1)? {
                let removes = input.flag()?;
                let before = entries.last().map(|(entry, _)| entry);
                let entry = entry(input, before)?;
                entries.push((entry, removes));
            }
            Part::ForAll(SavedForAll {
                evicted_through,
                entries,
            })
        }
        UNKNOWN => Part::Unknown(input.number()?),
        FINISHES => Part::Finishes(ends(input)?),
        REMOVALS => Part::Removals(ends(input)?),
        CHANNEL => Part::Channel(Box::new(channel(input)?)),
        ENTRIES => {
            let mut entries: Vec<Entry> = Vec::new();
            for _ in 0..input.count(ENTRY_BYTES_MIN)? {
                let entry = entry(input, entries.last())?;
                entries.push(entry);
            }
            Part::Entries(entries)
        }
        OWN_IDS => Part::OwnIds(records(input)?),
        KEYS => Part::Keys(keys(input)?),
        HEADS => {
            let mut heads = Vec::new();
            for _ in 0..input.count(3)? {
                let name = input.text()?.into();
                let absent = Absent {
                    through: input.number()?,
                    head: input.number()?,
                };
                heads.push((name, absent));
            }
            Part::Heads(heads)
        }
        REFUSED => {
            let mut numbers = Vec::new();
            for _ in 0..input.count(1)? {
                numbers.push(input.number()?);
            }
            Part::Refused(numbers)
        }
        END => Part::End(End {
            sequence: input.number()?,
            removed_through: input.number()?,
        }),
        _ => return Err(Damaged("a section is of an unknown kind")),
    })
}

fn begin(input: &mut Input<'_>) -> Result<Begin, Damaged> {
    let Some(epoch) = Epoch::from_text(input.text()?) else {
        return Err(Damaged("invalid epoch"));
    };
    let key = match input.flag()? {
        true => Some(u128::from_le_bytes(input.array()?)),
        false => None,
    };
    let (at, oldest_ms) = (input.number()?, input.number()?);
    let channels = input.number()?;
    let mut jumps = Vec::new();
    for _ in 0..input.count(2)? {
        jumps.push(Jump {
            after: input.number()?,
            first: input.number()?,
        });
    }
    Ok(Begin {
        ids: Ids::new(epoch, Numbering::new(key)),
        at,
        oldest_ms,
        channels: usize::try_from(channels).unwrap_or(usize::MAX),
        jumps,
    })
}

fn channel(input: &mut Input<'_>) -> Result<SavedChannel, Damaged> {
    let name = input.text()?.into();
    let through = input.number()?;
    let bounds = SavedBounds {
        began_after: input.number()?,
        evicted: Evicted {
            history: input.number()?,
            keyed: input.number()?,
        },
        head: input.number()?,
    };
    let has_more = input.flag()?;
    let mut missing = Vec::new();
    for _ in 0..input.count(1)? {
        missing.push(input.text()?.into());
    }
    Ok(SavedChannel {
        name,
        through,
        bounds,
        missing_keys: (missing, has_more),
        counts: [input.number()?, input.number()?, input.number()?],
        finish: match input.flag()? {
            true => Some(Finish {
                through: input.number()?,
                until_ms: input.number()?,
            }),
            false => None,
        },
    })
}

fn records(input: &mut Input<'_>) -> Result<Vec<(Arc<str>, IdRecord)>, Damaged> {
    let mut records = Vec::new();
    for _ in 0..input.count(13)? {
        let key = input.text()?.into();
        let record = IdRecord {
            sequence: input.number()?,
            at_ms: input.number()?,
            digest: u64::from_le_bytes(input.array()?),
            is_doubtful: input.flag()?,
            audience: audience(input)?,
        };
        records.push((key, record));
    }
    Ok(records)
}

fn ends(input: &mut Input<'_>) -> Result<Vec<(Arc<str>, u64)>, Damaged> {
    let count = input.count(2)?;
    let end = |_| Ok((input.text()?.into(), input.number()?));
    (0..count).map(end).collect()
}

fn keys(input: &mut Input<'_>) -> Result<Vec<(KeyId, KeyRecord)>, Damaged> {
    const TOO_MANY: Damaged = Damaged("a publish has too many events");
    let mut keys = Vec::new();
    for _ in 0..input.count(KEY_BYTES_MIN)? {
        let id = KeyId(input.array()?);
        let record = KeyRecord {
            sequence: input.number()?,
            at_ms: input.number()?,
            digest: u64::from_le_bytes(input.array()?),
            events: u32::try_from(input.number()?).map_err(|_| TOO_MANY)?,
            clients: u32::try_from(input.number()?).map_err(|_| TOO_MANY)?,
        };
        keys.push((id, record));
    }
    Ok(keys)
}

fn entry(input: &mut Input<'_>, before: Option<&Entry>) -> Result<Entry, Damaged> {
    let (sequence, at_ms) = (input.number()?, input.number()?);
    let flags = input.byte()?;
    let all = HAS_OWN_ID | HAS_KEY | IS_DOUBTFUL | SAME_AUDIENCE;
    ensure(flags & !all == 0, "an event has something unknown")?;
    let mut attributes = Attributes::default();
    if flags & HAS_OWN_ID != 0 {
        attributes.own_id = Some(OwnId {
            text: input.text()?.into(),
            digest: u64::from_le_bytes(input.array()?),
            is_doubtful: flags & IS_DOUBTFUL != 0,
        });
    }
    if flags & HAS_KEY != 0 {
        attributes.key = Some(input.text()?.into());
    }
    attributes.audience = match flags & SAME_AUDIENCE != 0 {
        true => before.and_then(Entry::audience).cloned(),
        false => audience(input)?,
    };
    let is_there = flags & SAME_AUDIENCE == 0 || attributes.audience.is_some();
    ensure(is_there, "an audience is not there")?;
    let frame = Frame::from_event(input.sized()?);
    Ok(Entry {
        sequence,
        at_ms,
        frame: frame.ok_or(Damaged("an event is not one event"))?,
        attributes: (!attributes.is_empty()).then(|| Box::new(attributes)),
    })
}
