//! How the hub writes and reads the ids of its events.

use super::entry::Entry;
use super::id::{Epoch, EventId, Parsed, parse};
use super::numbering::Numbering;

/// An epoch, and the numbers that its ids have.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    epoch: Epoch,
    numbering: Numbering,
    /// `<epoch>-`, with which every id begins.
    prefix: Box<str>,
}

impl Ids {
    pub(crate) fn new(epoch: Epoch, numbering: Numbering) -> Ids {
        let prefix = format!("{}-", epoch.as_str()).into();
        Ids {
            epoch,
            numbering,
            prefix,
        }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn numbering(&self) -> &Numbering {
        &self.numbering
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the number that stands for a sequence number in ids.
    pub(crate) fn number(&self, sequence: u64) -> u64 {
        self.numbering.written(sequence)
    }

    pub(crate) fn id_of(&self, sequence: u64) -> EventId {
        EventId::new(self.epoch, self.number(sequence))
    }

    /// Returns the id under which clients see an entry.
    pub(crate) fn of_entry(&self, entry: &Entry) -> EventId {
        let own_id = entry
            .attributes
            .as_ref()
            .and_then(|attributes| attributes.own_id.as_ref());
        match own_id {
            Some(own_id) => own_id.event_id(),
            None => self.id_of(entry.sequence),
        }
    }

    /// Reads an id that a client or a publisher has sent.
    pub(crate) fn parse(&self, text: &str) -> Parsed {
        match parse(text, &self.epoch) {
            Parsed::Ours(number) => Parsed::Ours(self.numbering.read(number)),
            other => other,
        }
    }
}
