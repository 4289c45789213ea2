//! [`Block`]: records that are appended to the log together, whole or not at all.
//!
//! ```text
//! block := version · flags, 0 · writer, 16 bytes · n, 8 bytes · width, 8 bytes
//!          · number of records · record* · CRC-32 of all that, 4 bytes
//! ```
//!
//! Fixed numbers are little-endian. The writer is a random number of the process, and `n`
//! counts its blocks from 1: both together name the block, however often it is sent. Its
//! place in the log, the number of its first event, is the store's to say.
//!
//! Nothing is read from a block that is not whole.

use std::error::Error;
use std::fmt;

use super::bytes::{Damaged, Input, NUMBER_BYTES_MAX, ensure, put_number};
use super::record::{RECORD_BYTES_MIN, Reader, Record, RecordError, Writer};

/// The format that is written.
const VERSION: u8 = 1;

/// The bytes of a block without its records, at most.
const HEAD_BYTES_MAX: usize = 2 + 16 + 8 + 8 + NUMBER_BYTES_MAX + SUM_BYTES;

const SUM_BYTES: usize = 4;

/// A block that was read.
#[derive(Debug)]
pub(crate) struct Block {
    /// The process that has written it.
    pub(crate) writer: u128,
    /// Its number among those of its writer.
    pub(crate) n: u64,
    /// How many numbers its records take.
    pub(crate) width: u64,
    pub(crate) records: Vec<Record>,
}

/// A block that is ready to be appended.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// Its number among those of its writer.
    pub(crate) n: u64,
    /// How many numbers its records take.
    pub(crate) width: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Sealed {
    /// Writes records as a block.
    pub(crate) fn new<'a>(
        writer: u128,
        n: u64,
        records: impl ExactSizeIterator<Item = &'a Record> + Clone,
    ) -> Sealed {
        let width = records.clone().map(|record| record.change.width()).sum();
        let bytes_max: usize = records.clone().map(Record::bytes).sum();
        let mut bytes = Vec::with_capacity(HEAD_BYTES_MAX + bytes_max);
        bytes.extend_from_slice(&[VERSION, 0]);
        bytes.extend_from_slice(&writer.to_le_bytes());
        bytes.extend_from_slice(&n.to_le_bytes());
        bytes.extend_from_slice(&u64::to_le_bytes(width));
        put_number(&mut bytes, records.len() as u64);
        let mut writer = Writer::default();
        for record in records {
            writer.put(&mut bytes, record);
        }
        let sum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        debug_assert!(bytes.len() <= HEAD_BYTES_MAX + bytes_max, "a record lies");
        Sealed { n, width, bytes }
    }
}

impl Block {
    /// Returns the writer of a block that can be read, and its number among those of the
    /// writer.
    pub(crate) fn name_of(bytes: &[u8]) -> Option<(u128, u64)> {
        let mut input = Input(bytes.get(2..)?);
        let writer = u128::from_le_bytes(input.array().ok()?);
        let n = u64::from_le_bytes(input.array().ok()?);
        Some((writer, n))
    }

    /// Reads a block. `id_prefix` is what ids of the engine begin with; events get room for
    /// an id.
    ///
    /// # Errors
    /// When it is damaged or of a newer release.
    pub(crate) fn decode(bytes: &[u8], id_prefix: &str) -> Result<Block, BlockError> {
        let version = Input(bytes).byte()?;
        if version != VERSION {
            return Err(BlockError::Version { found: version });
        }
        let (bytes, sum) = bytes
            .split_last_chunk::<SUM_BYTES>()
            .ok_or(Damaged("it ends too soon"))?;
        let is_whole = *sum == crc32fast::hash(bytes).to_le_bytes();
        ensure(is_whole, "the checksum does not match")?;
        let mut input = Input(bytes);
        let [_, flags] = input.array()?;
        ensure(flags == 0, "a block has something unknown")?;
        let writer = u128::from_le_bytes(input.array()?);
        let n = u64::from_le_bytes(input.array()?);
        let width = u64::from_le_bytes(input.array()?);
        let count = input.count(RECORD_BYTES_MIN)?;
        let mut records = Vec::with_capacity(count);
        let mut reader = Reader::new(id_prefix);
        for _ in 0..count {
            records.extend(reader.record(&mut input)?);
        }
        input.end()?;
        let widths = records.iter().map(|record: &Record| record.change.width());
        ensure(
            widths.sum::<u64>() == width,
            "the width is not that of the records",
        )?;
        ensure(width > 0, "a block takes no number")?;
        Ok(Block {
            writer,
            n,
            width,
            records,
        })
    }
}

/// Why a block cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockError {
    /// It is not as any release has written it.
    Damaged { what: &'static str },
    /// It is of another format.
    Version { found: u8 },
    /// It has a record of an unknown kind that must not be skipped.
    Kind { found: u8 },
}

impl From<Damaged> for BlockError {
    fn from(Damaged(what): Damaged) -> BlockError {
        BlockError::Damaged { what }
    }
}

impl From<RecordError> for BlockError {
    fn from(error: RecordError) -> BlockError {
        match error {
            RecordError::Damaged(damaged) => damaged.into(),
            RecordError::Kind(found) => BlockError::Kind { found },
        }
    }
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockError::Damaged { what } => write!(f, "the block is damaged ({what})"),
            BlockError::Version { found } => write!(
                f,
                "the block has format {found}, and this release reads format {VERSION}. Use the \
                 release that has written it, or a newer one"
            ),
            BlockError::Kind { found } => write!(
                f,
                "the block has a record of the unknown kind {found}. Use the release that has \
                 written it, or a newer one"
            ),
        }
    }
}

impl Error for BlockError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Event;
    use crate::hub::audience::{Audience, Choice, Condition};
    use crate::hub::client::ClientId;
    use crate::hub::idempotency::{KeyId, Keyed};
    use crate::journal::generated::{ID_PREFIX, ready, records};
    use crate::journal::probe::Probe;
    use crate::journal::record::{Begun, Change, Options};

    /// A record of every kind, audience and kind of event.
    fn one_of_each() -> Vec<Record> {
        let id = |text| ClientId::new(text).unwrap();
        let publish =
            |channel: &str, audience: Option<Audience>, events: Vec<Event<'_>>| Change::Publish {
                channel: channel.into(),
                audience: audience.map(Into::into),
                events: events.iter().map(ready).collect(),
                options: Options::default(),
            };
        let audiences = [
            Audience::clients(vec![id("ann"), id("bob")], Choice::Named),
            Audience::clients(
                vec![id("67e55044-10b1-426f-9247-bb680e5fe0c8")],
                Choice::Generated,
            ),
            Audience::clients(vec![], Choice::Filtered),
            Audience::except(vec![id("eve")]),
            Audience::Where([Condition::new("role", "admin"), Condition::not("a", "")].into()),
        ];
        let mut changes = vec![
            publish(
                "news",
                None,
                vec![
                    Event::new("n", "d"),
                    Event::message("two\nlines").with_id("own"),
                    Event::message("").with_key("k"),
                    Event::removal("k"),
                ],
            ),
            Change::PublishAll {
                audience: None,
                events: vec![ready(&Event::message("for all channels"))],
                options: Options::default(),
            },
            Change::Finish {
                channel: "news".into(),
                until_ms: 1_796_000_000_000,
                last: None,
                begins_after: None,
            },
            Change::Finish {
                channel: "other".into(),
                until_ms: 0,
                last: Some(ready(&Event::message("bye"))),
                begins_after: None,
            },
            Change::Remove {
                channel: "other".into(),
            },
            Change::Lost { after: 17 },
        ];
        let new = [
            Change::Kick {
                channel: "news".into(),
                client: id("eve"),
            },
            Change::Probe(Box::new(Probe {
                name: "one".to_owned(),
                version: "1.0".to_owned(),
                applied: 1_000_000,
                clients: 7,
                channels: 3,
                options_digest: 300,
                is_draining: true,
            })),
            Change::LostIn {
                term: 1 << 40,
                channel: Some("third".into()),
            },
            Change::LostIn {
                term: 5,
                channel: None,
            },
        ];
        changes.extend(new);
        changes.push(Change::Publish {
            channel: "news".into(),
            audience: None,
            events: vec![ready(&Event::message("with all options"))],
            options: Options {
                keyed: Some(Keyed {
                    id: KeyId([7; 16]),
                    digest: 1 << 63,
                }),
                is_conditional: true,
                finish_until_ms: Some(1_796_000_000_000),
                begins_after: Some(300),
            },
        });
        for audience in audiences {
            changes.push(publish("news", Some(audience), vec![Event::message("x")]));
        }
        changes.push(Change::PublishTo {
            channels: [("fourth", Some(300)), ("news", None)]
                .map(|(name, begins_after)| Begun {
                    name: name.into(),
                    begins_after,
                })
                .to_vec(),
            events: vec![ready(&Event::message("for two channels"))],
            keyed: None,
        });
        changes.push(Change::Finish {
            channel: "fifth".into(),
            until_ms: 1_796_000_000_000,
            last: Some(ready(&Event::message("bye"))),
            begins_after: Some(300),
        });
        let changes = changes.into_iter().enumerate();
        let record = |(at, change)| Record {
            basis: 100 * at as u64,
            change,
        };
        changes.map(record).collect()
    }

    fn sealed(records: &[Record]) -> Vec<u8> {
        Sealed::new(0x1234, 7, records.iter()).bytes
    }

    fn decoded(bytes: &[u8]) -> Result<Block, BlockError> {
        Block::decode(bytes, ID_PREFIX)
    }

    /// Sets the checksum of a block that was changed.
    fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
        let end = bytes.len() - SUM_BYTES;
        let sum = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// `BLESS=1` rewrites the file: before a release, and never after it.
    #[test]
    fn the_bytes_of_a_block_are_those_of_this_format() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/block.hex");
        let bytes = sealed(&one_of_each());
        let lines = bytes.chunks(32).map(|line| {
            let digits = line.iter().map(|byte| format!("{byte:02x}"));
            digits.collect::<String>() + "\n"
        });
        let lines: String = lines.collect();
        if std::env::var_os("BLESS").is_some_and(|bless| bless == "1") {
            std::fs::write(path, &lines).unwrap();
        }
        assert_eq!(lines, std::fs::read_to_string(path).unwrap());
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_found() {
        let bytes = sealed(&one_of_each());
        assert!(decoded(&bytes).is_ok());
        for end in 0..bytes.len() {
            assert!(decoded(&bytes[..end]).is_err(), "{end}");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[end] ^= 1 << bit;
                assert!(decoded(&flipped).is_err(), "{end} {bit}");
            }
        }
        assert!(decoded(&[&*bytes, &[0]].concat()).is_err());
    }

    #[test]
    fn a_newer_format_or_kind_is_named() {
        let bytes = sealed(&[Record {
            basis: 1,
            change: Change::Lost { after: 0 },
        }]);
        let newer = summed([&[2], &bytes[1..]].concat());
        let error = decoded(&newer).unwrap_err();
        assert_eq!(error, BlockError::Version { found: 2 });
        assert!(error.to_string().contains("format 2"));
        let kind_at = bytes.len() - SUM_BYTES - 4;
        assert_eq!(bytes[kind_at], 6);
        let with_kind = |kind| {
            let mut bytes = bytes.clone();
            bytes[kind_at] = kind;
            summed(bytes)
        };
        let error = decoded(&with_kind(10)).unwrap_err();
        assert_eq!(error, BlockError::Kind { found: 10 });
        assert!(error.to_string().contains("kind 10"));
        // That of a record that may be skipped, which takes no number.
        let mut skipped = with_kind(0x89);
        skipped[26..34].fill(0);
        let error = decoded(&summed(skipped)).unwrap_err();
        let what = "a block takes no number";
        assert_eq!(error, BlockError::Damaged { what });
    }

    #[test]
    fn records_of_unknown_kinds_and_unknown_options_are_skipped() {
        let mut bytes = sealed(&[Record {
            basis: 1,
            change: Change::PublishAll {
                audience: None,
                events: vec![ready(&Event::message("x"))],
                options: Options::default(),
            },
        }]);
        let record_at = 35;
        assert_eq!(bytes[record_at..record_at + 5], [0x01, 1, 14, 0, 0]);
        // Two options, in front of the audience.
        bytes[record_at + 2] += 6;
        let options = [6, 8, 2, b'a', b'b', 9, 0];
        bytes.splice(record_at + 3..record_at + 4, options);
        // A record behind it.
        let end = bytes.len() - SUM_BYTES;
        bytes.splice(end..end, [0x85, 3, 2, b'?', b'?']);
        bytes[record_at - 1] = 2;
        let block = decoded(&summed(bytes)).unwrap();
        assert_eq!((block.width, block.records.len()), (1, 1));
        let Change::PublishAll { events, .. } = &block.records[0].change else {
            panic!("{:?}", block.records);
        };
        assert_eq!(events[0].frame.as_bytes(), b"data: x\n\n");
    }

    #[test]
    fn a_plain_event_costs_little_beyond_its_bytes() {
        let publish = |_| Record {
            basis: 1_000_000,
            change: Change::Publish {
                channel: "news".into(),
                audience: None,
                events: vec![ready(&Event::new("n", "x".repeat(128)))],
                options: Options::default(),
            },
        };
        let frame_bytes = 9 + 6 + 128 + 2;
        let alone = sealed(&[publish(0)]).len();
        assert_eq!(alone, frame_bytes + 57);
        let all: Vec<Record> = (0..100).map(publish).collect();
        let each = (sealed(&all).len() - 39) / 100;
        assert_eq!(each, frame_bytes + 13);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn what_was_sealed_is_read(records in records(), writer: u128, n: u64) {
            let sealed = Sealed::new(writer, n, records.iter());
            let block = decoded(&sealed.bytes).unwrap();
            prop_assert_eq!((block.writer, block.n), (writer, n));
            prop_assert_eq!(block.width, sealed.width);
            prop_assert_eq!(format!("{:?}", block.records), format!("{records:?}"));
            let bytes_max = records.iter().map(Record::bytes).sum::<usize>() + HEAD_BYTES_MAX;
            prop_assert!(sealed.bytes.len() <= bytes_max);
            let again = Sealed::new(writer, n, block.records.iter());
            prop_assert_eq!(again.bytes, sealed.bytes);
        }

        /// What follows a right checksum is not trusted either.
        #[test]
        fn a_forged_block_is_refused_or_read(
            records in records(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = sealed(&records);
            let end = bytes.len() - SUM_BYTES;
            for (at, byte) in changes {
                bytes[at.index(end - 1) + 1] = byte;
            }
            if let Ok(block) = decoded(&summed(bytes)) {
                let again = Sealed::new(block.writer, block.n, block.records.iter());
                let reread = decoded(&again.bytes).unwrap();
                prop_assert_eq!(format!("{reread:?}"), format!("{block:?}"));
            }
        }
    }
}
