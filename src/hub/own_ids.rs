//! The own ids of the events of one publish: which of the events are repetitions.

use std::collections::HashMap;
use std::sync::Arc;

use super::audience::Audience;
use super::id::{EventId, Parsed};
use super::ids::Ids;
use super::published::PublishError;
use super::ready::Ready;
use super::remembered::{Remembered, digest};
use crate::event::EventError;

/// The events with own ids among those that are published at once.
pub(super) struct OwnIds {
    /// The digest of their target.
    target: u64,
    /// Each with its place among the events, its id and its digest.
    all: Vec<(usize, Arc<str>, u64)>,
    /// The indexes of the events that are not to be appended, in ascending order.
    repeated: Vec<usize>,
}

impl OwnIds {
    /// Returns the own ids of events, if they have any. An event that is twice in one
    /// batch is a repetition.
    ///
    /// # Errors
    /// When the engine itself may give one of the ids to an event, and when two
    /// events share an id.
    pub(super) fn of(
        events: &[Ready],
        audience: Option<&Audience>,
        ids: &Ids,
    ) -> Result<Option<Box<OwnIds>>, PublishError> {
        if events.iter().all(|ready| ready.own_id().is_none()) {
            return Ok(None);
        }
        OwnIds::find(events, audience, ids).map(|own_ids| Some(Box::new(own_ids)))
    }

    #[cold]
    fn find(
        events: &[Ready],
        audience: Option<&Audience>,
        ids: &Ids,
    ) -> Result<OwnIds, PublishError> {
        for own_id in events.iter().filter_map(Ready::own_id) {
            if let Parsed::Ours(_) = ids.parse(&own_id.text) {
                return Err(EventError::IdReserved.into());
            }
        }
        let mut own_ids = OwnIds {
            target: 0,
            all: Vec::new(),
            repeated: Vec::new(),
        };
        let parts = audience.map(Audience::parts).unwrap_or_default();
        own_ids.target = digest(parts.iter().map(|part| &**part));
        let mut known: HashMap<&str, u64> = HashMap::new();
        for (index, ready) in events.iter().enumerate() {
            let Some(own_id) = ready.own_id() else {
                continue;
            };
            let digest = own_ids.with_target(own_id.digest);
            match known.insert(&own_id.text, digest) {
                None => own_ids.all.push((index, own_id.text.clone(), digest)),
                Some(first) if first == digest => own_ids.repeated.push(index),
                Some(_) => return Err(reused(&own_id.text)),
            }
        }
        Ok(own_ids)
    }

    /// Finds the events that were published already, by what is remembered of the channel
    /// and of all channels.
    ///
    /// # Errors
    /// When another event of one of the ids is remembered.
    pub(super) fn find_repetitions<const N: usize>(
        &mut self,
        remembered: [&Remembered; N],
    ) -> Result<(), PublishError> {
        for (index, id, digest) in &self.all {
            match remembered.iter().find_map(|known| known.get(id)) {
                None => {}
                Some(record) if record.digest == *digest => self.repeated.push(*index),
                Some(_) => return Err(reused(id)),
            }
        }
        self.repeated.sort_unstable();
        Ok(())
    }

    pub(super) fn is_repeated(&self, index: usize) -> bool {
        self.repeated.binary_search(&index).is_ok()
    }

    /// Returns the id of the last event if none of them is to be appended.
    pub(super) fn last_if_all_are_repeated(&self, events: &[Ready]) -> Option<EventId> {
        let own_id = events.last()?.own_id()?;
        (self.repeated.len() == events.len()).then(|| own_id.event_id())
    }

    fn with_target(&self, event: u64) -> u64 {
        digest([&event.to_le_bytes()[..], &self.target.to_le_bytes()])
    }

    /// Has the digest of an event count its target.
    pub(super) fn count_target(&self, ready: &mut Ready) {
        if let Some(attributes) = &mut ready.attributes
            && let Some(own_id) = &mut attributes.own_id
        {
            own_id.digest = self.with_target(own_id.digest);
        }
    }
}

fn reused(id: &str) -> PublishError {
    PublishError::IdReused { id: id.to_owned() }
}
