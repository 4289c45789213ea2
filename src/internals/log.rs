//! A channel's log and the batches that cursors write, with as much of them in
//! sight as a model can be held against.

use std::sync::Arc;

use crate::hub::audience::{Audience, Choice};
use crate::hub::remembered::OwnId;
use crate::hub::{batch, dropped, entry, log, merge, retention};
use crate::internals::frame::Frame;
use crate::{ClientId, History, KeyedState};

/// What is appended.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its sequence number.
    pub sequence: u64,
    /// When it came.
    pub at_ms: u64,
    /// Its bytes.
    pub frame: Frame,
    /// The id that its publisher gave.
    pub own_id: Option<String>,
    /// What a newer one replaces it by.
    pub key: Option<String>,
    /// The client that it is for; `None` is all clients.
    pub client: Option<ClientId>,
}

impl Entry {
    fn into_inner(self) -> entry::Entry {
        let audience = |client| Arc::new(Audience::clients(vec![client], Choice::Named));
        let attributes = entry::Attributes {
            audience: self.client.map(audience),
            packed: None,
            own_id: self.own_id.map(|text| OwnId {
                text: text.into(),
                digest: 0,
                is_doubtful: false,
            }),
            key: self.key.map(Arc::from),
        };
        entry::Entry {
            sequence: self.sequence,
            at_ms: self.at_ms,
            frame: self.frame,
            attributes: (!attributes.is_empty()).then(|| Box::new(attributes)),
        }
    }
}

/// The log.
#[derive(Debug)]
pub struct Log(log::Log);

impl Log {
    /// An empty one whose past is not known.
    pub fn new(evicted_through: u64) -> Log {
        Log(log::Log::new(evicted_through))
    }

    /// Puts an entry at the head.
    pub fn append(&mut self, entry: Entry) {
        self.0
            .append(entry.into_inner(), &mut dropped::Dropped::new());
    }

    /// Removes a key that was published to `client` or to all clients.
    pub fn remove_key(&mut self, key: &str, client: Option<ClientId>) {
        let audience = |client| Arc::new(Audience::clients(vec![client], Choice::Named));
        let dropped = &mut dropped::Dropped::new();
        self.0.remove_key(key.into(), client.map(audience), dropped);
    }

    /// Drops what need not be kept.
    pub fn trim(
        &mut self,
        history: History,
        keyed: KeyedState,
        backlog_max: usize,
        needed_after: u64,
        now_ms: u64,
    ) {
        let bounds = retention::Bounds {
            history,
            keyed,
            backlog_bytes_max: backlog_max,
        };
        while self
            .0
            .trim(&bounds, needed_after, now_ms, &mut dropped::Dropped::new())
        {}
    }

    /// The newest number that it ever had.
    pub fn head(&self) -> u64 {
        self.0.head()
    }

    /// Whether no key is missing.
    pub fn has_all_keys(&self) -> bool {
        self.0.keyed().is_complete()
    }

    /// The newest number that a reader may have missed for good.
    pub fn evicted_through(&self) -> u64 {
        self.0.evicted_through()
    }

    /// Bytes held, by its own accounting.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// How many entries it holds.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The numbers of the oldest and the newest entry.
    pub fn ends(&self) -> Option<(u64, u64)> {
        Some((self.0.oldest()?.sequence, self.0.newest()?.sequence))
    }

    /// How many ids and how many keys it can find entries by.
    pub fn indexed(&self) -> (usize, usize) {
        self.0.indexed()
    }

    /// What `client` may see of what comes after `sequence`.
    pub fn after(&self, sequence: u64, client: &ClientId) -> Vec<(u64, Frame)> {
        let entries = self.0.after(sequence);
        entries
            .filter(|entry| admits(entry, client))
            .map(|entry| (entry.sequence, entry.frame.clone()))
            .collect()
    }

    /// How many entries come after `sequence`.
    pub fn count_after(&self, sequence: u64) -> usize {
        self.0.count_after(sequence)
    }

    /// Where the entry with this id of its publisher's is.
    pub fn sequence_of(&self, own_id: &str) -> Option<u64> {
        self.0.own_ids().get(own_id)
    }

    /// From where `client` gets the last `count` of what it may see.
    pub fn position_before_last(&self, count: usize, client: &ClientId) -> u64 {
        let mut look_back = merge::LookBack::new(count);
        while look_back.step([&self.0].into_iter(), |entry| admits(entry, client)) {}
        look_back.position().unwrap_or(self.0.head())
    }
}

fn admits(entry: &entry::Entry, client: &ClientId) -> bool {
    entry
        .audience()
        .is_none_or(|audience| audience.admits(client, None))
}

/// Frames that are written at once.
#[derive(Debug, Default)]
pub struct Batch(batch::Batch);

impl Batch {
    /// Puts a frame behind the others.
    pub fn push(&mut self, sequence: u64, frame: &Frame) {
        self.0.push(sequence, 0, frame.clone());
    }

    /// All of it.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The numbers of the frames that are out whole after `written` bytes, and
    /// the frame of which only so many bytes are.
    pub fn split(&self, written: usize) -> (Vec<u64>, Option<(u64, Frame, usize)>) {
        let (whole, torn) = self.0.split(written);
        (
            whole.iter().map(|piece| piece.sequence).collect(),
            torn.map(|(piece, bytes)| (piece.sequence, piece.frame.clone(), bytes)),
        )
    }
}
