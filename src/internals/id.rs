//! Event ids as clients send them back.

use crate::hub::id;
pub use crate::hub::id::EventId;

/// One life of the sequencer.
#[derive(Clone, Copy, Debug)]
pub struct Epoch(id::Epoch);

/// What an id turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Of this epoch.
    Ours(u64),
    /// Of another one.
    Foreign,
    /// None of our making.
    Unknown,
}

impl Epoch {
    /// The epoch that a random number spells.
    pub fn from_random(random: u32) -> Epoch {
        Epoch(id::Epoch::from_random(random))
    }

    /// As it is in ids.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The id of an event.
    pub fn id(&self, sequence: u64) -> EventId {
        EventId::new(self.0, sequence)
    }

    /// Reads an id.
    pub fn parse(&self, text: &str) -> Parsed {
        match id::parse(text, &self.0) {
            id::Parsed::Ours(sequence) => Parsed::Ours(sequence),
            id::Parsed::Foreign => Parsed::Foreign,
            id::Parsed::Unknown => Parsed::Unknown,
        }
    }
}
