//! Blocks of the journal.

use std::sync::Arc;

use crate::hub::id::Epoch;
use crate::hub::ids::Ids;
use crate::hub::numbering::Numbering;
use crate::hub::ready::Ready;
use crate::journal::block::{Block, Sealed};
use crate::journal::record::Change;
use crate::{ChannelManager, ChannelOptions, History, LagPolicy};

pub use crate::journal::segment::set_checksums;

/// What a block says.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    /// The same block, written again.
    pub again: Vec<u8>,
    /// Each of its records.
    pub records: Vec<String>,
    /// Its events as clients receive them, without the hub's ids.
    pub frames: Vec<Vec<u8>>,
}

/// Applies a block, twice, to the channels of a new manager; `None` if it is not one.
#[must_use]
pub fn applied(bytes: &[u8]) -> Option<ChannelManager> {
    let manager = ChannelManager::builder().options_by_name(|name| {
        let options = ChannelOptions::new().history(History::events(3));
        match name.len() % 2 {
            0 => options.lag_policy(LagPolicy::Conflate),
            _ => options,
        }
    });
    let manager = manager.build();
    for _ in 0..2 {
        let block = Block::decode(bytes, manager.hub().ids.prefix()).ok()?;
        manager.hub().apply_first(block.records);
    }
    Some(manager)
}

/// What a record of a block says, as far as a test of clusters looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Logged {
    /// Events of a channel, or of all.
    Publish {
        /// The name of the channel.
        channel: Option<String>,
        /// The events as clients receive them, without the hub's ids.
        frames: Vec<String>,
    },
    /// Events of a channel, or of any, are lost.
    Lost {
        /// The first number of the term that has begun.
        term: u64,
        /// The newest number of those that are lost.
        had: u64,
        /// The name of the channel.
        channel: Option<String>,
    },
    /// Something else.
    Other,
}

/// Returns what the records of a block say, and how many numbers each of them takes.
///
/// # Errors
/// When it is not a block.
pub fn logged(bytes: &[u8]) -> Result<Vec<(u64, Logged)>, String> {
    let block = Block::decode(bytes, "").map_err(|error| error.to_string())?;
    let text = |name: &Arc<str>| name.to_string();
    let frames = |events: &[Ready]| {
        let frames = events.iter().map(|event| event.frame.as_bytes());
        let texts = frames.map(|frame| String::from_utf8_lossy(frame).into_owned());
        texts.collect()
    };
    let logged = block.records.iter().map(|record| {
        let logged = match &record.change {
            Change::Publish {
                channel, events, ..
            } => Logged::Publish {
                channel: Some(text(channel)),
                frames: frames(events),
            },
            Change::PublishAll { events, .. } => Logged::Publish {
                channel: None,
                frames: frames(events),
            },
            Change::LostIn { term, channel } => Logged::Lost {
                term: *term,
                had: record.basis,
                channel: channel.as_ref().map(text),
            },
            _ => Logged::Other,
        };
        (record.change.width(), logged)
    });
    Ok(logged.collect())
}

/// Appends its checksum to a block.
#[must_use]
pub fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    let sum = crc32fast::hash(bytes);
    [bytes, &sum.to_le_bytes()].concat()
}

/// Reads a block.
///
/// # Errors
/// When it is not one.
pub fn read(bytes: &[u8]) -> Result<Read, String> {
    let ids = Ids::new(Epoch::from_random(1), Numbering::new(None));
    let block = Block::decode(bytes, ids.prefix()).map_err(|error| error.to_string())?;
    let mut frames = Vec::new();
    for record in &block.records {
        let events = match &record.change {
            Change::Publish { events, .. }
            | Change::PublishTo { events, .. }
            | Change::PublishAll { events, .. } => &**events,
            Change::Finish { last, .. } => last.as_slice(),
            _ => &[],
        };
        frames.extend(events.iter().map(|event| event.frame.as_bytes().to_vec()));
    }
    Ok(Read {
        again: Sealed::new(block.writer, block.n, block.records.iter()).bytes,
        records: block.records.iter().map(|r| format!("{r:?}")).collect(),
        frames,
    })
}
