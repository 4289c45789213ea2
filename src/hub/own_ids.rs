//! The own ids of the events of one publish: which of the events are repetitions.

use std::collections::HashMap;
use std::sync::Arc;

use super::audience::Audience;
use super::id::{EventId, Parsed};
use super::ids::Ids;
use super::published::PublishError;
use super::ready::Ready;
use super::remembered::{ALL, Remembered, digest};
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

    /// Finds the events that were published already, when they are published at `at_ms` to
    /// the channel of this name or to [`ALL`].
    ///
    /// # Errors
    /// When another event of one of the ids is known.
    pub(super) fn find_repetitions(
        &mut self,
        remembered: &Remembered,
        scope: &str,
        at_ms: u64,
    ) -> Result<(), PublishError> {
        for (index, id, digest) in &self.all {
            let known = remembered.known(scope, id, at_ms);
            match known.or_else(|| remembered.known(ALL, id, at_ms)) {
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

    /// Returns the number of events that are not to be appended.
    pub(super) fn duplicates(&self) -> usize {
        self.repeated.len()
    }

    /// Returns the id of the last event if none of them is to be appended.
    pub(super) fn last_if_all_are_repeated(&self, events: &[Ready]) -> Option<EventId> {
        let own_id = events.last()?.own_id()?;
        (self.duplicates() == events.len()).then(|| own_id.event_id())
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

#[cfg(test)]
#[cfg(feature = "internals")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::time::Duration;

    use proptest::prelude::*;

    use crate::hub::clock::Clock;
    use crate::hub::remembered::Remembered;
    use crate::{ChannelManager, ChannelOptions, Event, History, PublishError, Published};

    /// A publish of events with these ids and data, to a channel or to all.
    #[derive(Clone, Debug)]
    struct Publish {
        channel: Option<u8>,
        events: Vec<(Option<u8>, u8)>,
        after_ms: u64,
        /// What one of the hubs does before it, and the other one does not.
        meanwhile: u8,
    }

    fn publishes() -> impl Strategy<Value = Vec<Publish>> {
        let event = (prop::option::of(0_u8..12), 0_u8..2);
        let publish = (
            prop::option::weighted(0.8, 0_u8..3),
            prop::collection::vec(event, 1..4),
            prop_oneof![4 => 0_u64..5, 1 => 0_u64..150],
            0_u8..8,
        );
        let publish = publish.prop_map(|(channel, events, after_ms, meanwhile)| Publish {
            channel,
            events,
            after_ms,
            meanwhile,
        });
        prop::collection::vec(publish, 1..60)
    }

    /// A manager with small bounds of own ids.
    fn manager(now_ms: &Arc<AtomicU64>, history: History) -> ChannelManager {
        let manager = ChannelManager::builder()
            .defaults(ChannelOptions::new().history(history))
            .empty_after(Some(Duration::ZERO))
            .build_simulated(Clock::manual(now_ms.clone()), 7);
        let remembered = Remembered::bounded(8, 1_200, Duration::from_millis(100));
        manager.hub().lock().remembered = remembered;
        manager
    }

    fn apply(manager: &ChannelManager, publish: &Publish) -> Result<Published, PublishError> {
        let events = publish.events.iter().map(|(id, data)| {
            let event = Event::message(data.to_string());
            match id {
                Some(id) => event.with_id(format!("order-{id}")),
                None => event,
            }
        });
        let events: Vec<Event<'_>> = events.collect();
        match publish.channel {
            Some(channel) => {
                let channel = manager.get_or_create(&channel.to_string()).unwrap();
                channel.broadcast_batch(&events)
            }
            None => manager.broadcast_batch_all(&events),
        }
    }

    proptest! {
        #[test]
        fn two_hubs_with_other_histories_and_sweeps_decide_the_same(publishes in publishes()) {
            let now_ms = Arc::new(AtomicU64::new(0));
            let [keeping, other] = [History::events(100), History::events(1)]
                .map(|history| manager(&now_ms, history));
            for (index, publish) in publishes.iter().enumerate() {
                now_ms.fetch_add(publish.after_ms, Relaxed);
                match publish.meanwhile {
                    0 => drop(other.hub().sweep(100)),
                    1 => drop(other.remove_empty()),
                    2 => drop(other.remove("1")),
                    3 => {
                        let channel = other.get_or_create("0").unwrap();
                        channel.set_options(ChannelOptions::new());
                    }
                    _ => {}
                }
                let [one, two] = [&keeping, &other].map(|manager| apply(manager, publish));
                let shown = |result: Result<Published, PublishError>| {
                    result.map(|p| (p.id, p.events, p.duplicates))
                };
                prop_assert_eq!(shown(one), shown(two), "publish {}", index);
            }
        }
    }
}
