//! The channels' histories as bytes: saved when a program ends, restored when
//! it starts again, so that clients resume over the restart.
//!
//! The invariant to remember: *a restored manager continues in the same epoch, so one
//! saved state may have one future only*. A program that publishes after a save, dies
//! and restores the earlier state uses ids a second time.
//!
//! Members and options are not saved.

mod format;
mod snapshot;

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::sync::Arc;

use super::channel_state::{Counts, Finish, Kind, Life};
use super::clock::{Clock, wall_now_ms};
use super::dropped::Dropped;
use super::entry::{Attributes, Entry};
use super::for_all::NAME_OF_ALL;
use super::heads::Heads;
use super::key::ChannelKey;
use super::log::{Log, SavedBounds};
use super::looks::LOOKS_MAX;
use super::manager::{ChannelManager, ChannelManagerBuilder};
use super::options::ChannelOptions;
use super::state::State;
use super::{Hub, Randomness};
use crate::frame::Frame;
use snapshot::{SavedChannel, SavedForAll, Snapshot};

pub use snapshot::RestoreError;

/// An event that is older counts as this old: the engine's clock must not
/// begin too late. One year.
const AGE_MAX_MS: u64 = 365 * 24 * 3_600_000;

/// The size of a state that [`ChannelManager::save`] has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Saved {
    /// The number of channels.
    pub channels: usize,
    /// The number of events of all channels.
    pub events: usize,
}

impl ChannelManager {
    /// Writes what a later [`ChannelManagerBuilder::restore`] needs for clients
    /// to resume as if nothing had happened: each channel's history, and the
    /// sequence that ids are made of. Clients and options are not saved.
    ///
    /// Save when the engine has stopped and no thread publishes any longer. Later events
    /// are not in the state, and their ids would be used again: a state that was
    /// followed by more events must not be restored.
    ///
    /// The histories are copied in steps, between which other threads can publish;
    /// events themselves are shared. They are written with nothing locked.
    ///
    /// # Errors
    /// When `to` cannot be written, or an event has more than 4 GiB.
    pub fn save(&self, to: &mut impl Write) -> io::Result<Saved> {
        let snapshot = self.hub.snapshot();
        let saved = Saved {
            channels: snapshot.channels.len(),
            events: snapshot.channels.iter().map(|c| c.entries.len()).sum(),
        };
        format::write(&snapshot, to)?;
        Ok(saved)
    }
}

impl ChannelManagerBuilder {
    /// Makes the manager with the channels that [`ChannelManager::save`] has
    /// written, and goes on where it ended: same epoch, next sequence number,
    /// so that a client's `Last-Event-ID` from before is still valid. Channels get the default options, and keep of their history what
    /// these allow; ages count on.
    ///
    /// **Restore a state once.** Remove it before anything is published, so
    /// that a program that dies without saving begins a new epoch and its
    /// clients receive a gap.
    ///
    /// ```
    /// use pushwheel::{ChannelManager, ChannelOptions, Event, History};
    ///
    /// let options = ChannelOptions::new().history(History::events(100));
    /// let before = ChannelManager::builder().defaults(options.clone()).build();
    /// before.get_or_create("news")?.broadcast(Event::message("hello"))?;
    /// let mut state = Vec::new();
    /// before.save(&mut state)?;
    ///
    /// let after = ChannelManager::builder().defaults(options).restore(&*state)?;
    /// assert_eq!(after.stats().channel_stats[0].history_events, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When it cannot be read, is torn or damaged, of another version, or
    /// something else; and when it has more channels than there may be.
    pub fn restore(self, from: impl Read) -> Result<ChannelManager, RestoreError> {
        let options = self.options_by_name.clone();
        self.restore_with(from, |name| options.of(name))
    }

    /// Does the same with options for each channel, by its name.
    ///
    /// # Errors
    /// As [`restore`](Self::restore).
    ///
    /// # Panics
    /// When `options` does.
    pub fn restore_with(
        self,
        from: impl Read,
        mut options: impl FnMut(&str) -> ChannelOptions,
    ) -> Result<ChannelManager, RestoreError> {
        let snapshot = format::read(from)?;
        let (found, max) = (snapshot.channels.len(), self.settings.channels_max);
        if found > max {
            return Err(RestoreError::TooManyChannels { found, max });
        }
        let wall_ms = wall_now_ms();
        let for_all = snapshot.for_all.entries.iter().map(|(entry, _)| entry);
        let entries = snapshot.channels.iter().flat_map(|c| &c.entries);
        let entries = entries.chain(for_all);
        let oldest_ms = entries.map(|e| e.at_ms).min().unwrap_or(wall_ms);
        let clock = Clock::system_begun_ago(wall_ms.saturating_sub(oldest_ms).min(AGE_MAX_MS));
        let now_ms = clock.now_ms();

        let mut state = State::new(self.settings);
        state.sequence = snapshot.sequence;
        state.heads = Heads::new(snapshot.removed_through);
        for (name, head) in snapshot.heads {
            state.heads.insert(name, head);
        }
        let for_all = self.options_by_name.of(NAME_OF_ALL).history;
        state.for_all = snapshot.for_all.into_events(for_all, |entry| Entry {
            at_ms: now_ms.saturating_sub(wall_ms.saturating_sub(entry.at_ms)),
            ..entry
        });
        let mut newest = Vec::new();
        for saved in snapshot.channels {
            let options = Arc::new(options(&saved.name));
            let kind = Kind::Named(saved.name.clone());
            let key = state.insert(kind, options.clone(), now_ms);
            let channel = state.get_mut(key).expect("it was just made");
            let entries = saved.entries.into_iter().map(|entry| Entry {
                at_ms: now_ms.saturating_sub(wall_ms.saturating_sub(entry.at_ms)),
                attributes: fitting(entry.attributes, &entry.frame, &options),
                ..entry
            });
            channel.log = Log::restored(saved.bounds, saved.released, entries);
            if options.conflates() {
                let (missing, has_more) = saved.missing_keys;
                channel.log.keyed_mut().restore_missing(missing, has_more);
            }
            if let Some(finish) = saved.finish {
                let left_ms = u128::from(finish.until_ms.saturating_sub(wall_ms));
                // The wall clock may have been set: no longer than ever.
                let left_ms = left_ms.min(options.finished_for.as_millis());
                let left_ms = u64::try_from(left_ms).unwrap_or(u64::MAX);
                channel.life = Life::Finishing(Finish {
                    until_ms: now_ms.saturating_add(left_ms),
                    ..finish
                });
            }
            let [published, delivered, gaps] = saved.counts;
            channel.counts = Counts {
                published,
                delivered,
                gaps,
            };
            while channel.trim(now_ms, &mut Dropped::new()) {}
            newest.push((channel.log.head(), key));
        }
        // As they would be if they had been published to in this run.
        newest.sort_unstable();
        for (_, key) in newest {
            state.note_appended(key);
            if state
                .get(key)
                .is_some_and(|channel| !channel.life.is_open())
            {
                state.memory.note_finished(key.slot);
            }
        }
        while state.memory.excess() > 0 {
            state.shrink(None, &mut Dropped::new());
        }
        Ok(ChannelManager {
            hub: Hub::with_ids(
                snapshot.ids,
                // It knows the ids from before.
                0,
                clock,
                Randomness::System,
                state,
                self.options_by_name,
            ),
        })
    }
}

/// What of an entry's extras fits the options of today.
fn fitting(
    attributes: Option<Box<Attributes>>,
    frame: &Frame,
    options: &ChannelOptions,
) -> Option<Box<Attributes>> {
    let mut attributes = *attributes.unwrap_or_default();
    attributes.key = attributes.key.filter(|_| options.conflates());
    attributes.packed = options.compress_from.map(|bytes| frame.pack(bytes));
    (!attributes.is_empty()).then(|| Box::new(attributes))
}

impl Hub {
    /// Copies all that is to be saved, with the lock open between two steps.
    fn snapshot(&self) -> Snapshot {
        let (wall_ms, now_ms) = (wall_now_ms(), self.clock.now_ms());
        let wall_of = |at_ms: u64| {
            let past_ms = now_ms.saturating_sub(at_ms);
            let ahead_ms = at_ms.saturating_sub(now_ms);
            wall_ms.saturating_sub(past_ms).saturating_add(ahead_ms)
        };
        let takes = self.lock().heads.takes();
        let mut keys = Vec::new();
        // Not those that are over: no client comes back to them.
        self.for_each_channel(|key, channel| {
            keys.extend(channel.current_name().map(|_| key));
        });
        let saved = keys.into_iter();
        let saved = saved.filter_map(|key| self.saved_channel(key, wall_of));
        let mut channels: Vec<SavedChannel> = saved.collect();
        channels.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        // A channel that was removed and made again meanwhile.
        channels.dedup_by(|a, b| a.name == b.name);
        let mut heads: Vec<(u64, Arc<str>)> = Vec::new();
        let for_all;
        let (sequence, removed_through) = loop {
            let state = self.lock();
            let before = heads.len();
            let some = state.heads.after(heads.last()).take(LOOKS_MAX);
            let some: Vec<_> = some.cloned().collect();
            heads.extend(some);
            if heads.len() - before < LOOKS_MAX {
                for_all = SavedForAll::of(&state.for_all, wall_of);
                break (state.sequence, state.heads.removed_through_since(takes));
            }
            drop(state);
            self.give_way();
        };
        // A channel that was removed when it had been copied has its head in its log.
        let is_removed = |name: &str| {
            let found = channels.binary_search_by(|channel| (*channel.name).cmp(name));
            found.is_err()
        };
        heads.retain(|(_, name)| is_removed(name));
        let heads = heads.into_iter().map(|(head, name)| (name, head));
        Snapshot {
            ids: self.ids.clone(),
            sequence,
            removed_through,
            heads: heads.collect(),
            channels,
            for_all,
        }
    }

    /// Copies a channel; `None` if it is gone.
    fn saved_channel(&self, key: ChannelKey, wall_of: impl Fn(u64) -> u64) -> Option<SavedChannel> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut saved = loop {
            let state = self.lock_served(&[key]);
            let channel = state.get(key).filter(|channel| !channel.life.is_over())?;
            let after = entries.last().map_or(0, |last| last.sequence);
            let some = channel.log.after(after).take(LOOKS_MAX);
            let before = entries.len();
            entries.extend(some.map(|entry| Entry {
                at_ms: wall_of(entry.at_ms),
                ..entry.clone()
            }));
            if entries.len() - before < LOOKS_MAX {
                break SavedChannel::of(channel, &wall_of)?;
            }
            drop(state);
            self.give_way();
        };
        // What was evicted or replaced meanwhile is not there.
        let SavedBounds { evicted, .. } = saved.bounds;
        let released: HashSet<u64> = saved.released.iter().map(|(_, r)| r.sequence).collect();
        entries.retain(|entry| {
            let evicted_through = match entry.has_key() {
                true => evicted.keyed,
                false => evicted.history,
            };
            let is_released = entry.own_id().is_some() && released.contains(&entry.sequence);
            entry.sequence > evicted_through && !is_released
        });
        saved.entries = entries;
        Some(saved)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{Condition, Event, History, KeyedState, LagPolicy};

    fn keeping() -> ChannelManagerBuilder {
        ChannelManager::builder().defaults(ChannelOptions::new().history(History::events(10)))
    }

    fn conflating(name: &str) -> ChannelOptions {
        let options = ChannelOptions::new().history(History::events(10));
        match name {
            "keyed" => options
                .lag_policy(LagPolicy::Conflate)
                .keyed_state(KeyedState::keys(2)),
            _ => options,
        }
    }

    /// One of everything.
    fn eventful() -> ChannelManager {
        eventful_in(keeping().build())
    }

    fn eventful_in(manager: ChannelManager) -> ChannelManager {
        let news = manager.get_or_create("news").unwrap();
        for n in 0..13 {
            let event = Event::message(format!("{n}"));
            let event = match n {
                2 => event.with_id("released"),
                _ => event,
            };
            news.broadcast(event).unwrap();
        }
        news.broadcast(Event::message("own").with_id("mine"))
            .unwrap();
        news.send("ann", Event::message("for ann")).unwrap();
        let admins = [Condition::new("role", "admin")];
        news.broadcast_where(&admins, Event::message("for admins"))
            .unwrap();
        let others = [Condition::not("role", "admin")];
        news.broadcast_where(&others, Event::message("for others").with_id("theirs"))
            .unwrap();
        news.broadcast_except("ann", Event::message("not for ann"))
            .unwrap();
        news.broadcast_to(|_| true, Event::message("for none"))
            .unwrap();
        let keyed = manager
            .get_or_create_with("keyed", || conflating("keyed"))
            .unwrap();
        for (key, data) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("d", "5")] {
            let event = Event::message(data).with_key(key);
            keyed.broadcast(event).unwrap();
        }
        keyed.broadcast(Event::removal("d")).unwrap();
        let done = manager.get_or_create("done").unwrap();
        done.finish(Some(Event::message("the last"))).unwrap();
        manager.get_or_create("empty").unwrap();
        let gone = manager.get_or_create("gone").unwrap();
        gone.broadcast(Event::message("lost")).unwrap();
        manager.remove("gone");
        for event in [
            Event::message("for all").with_id("all"),
            Event::removal("e"),
        ] {
            manager.broadcast_all(event).unwrap();
        }
        manager
    }

    fn saved(manager: &ChannelManager) -> Vec<u8> {
        let mut bytes = Vec::new();
        manager.save(&mut bytes).unwrap();
        bytes
    }

    /// The content of a state without its times.
    fn story(bytes: &[u8]) -> String {
        let mut snapshot = format::read(bytes).unwrap();
        let Snapshot {
            ids,
            sequence,
            removed_through,
            heads,
            channels,
            for_all,
        } = &mut snapshot;
        for (entry, _) in &mut for_all.entries {
            entry.at_ms = 0;
        }
        let mut story = format!("{ids:?} {sequence} {removed_through} {heads:?}\n");
        story += &format!("{for_all:#?}\n");
        for channel in channels {
            for entry in &mut channel.entries {
                entry.at_ms = 0;
            }
            if let Some(finish) = &mut channel.finish {
                finish.until_ms = 0;
            }
            let SavedChannel { name, counts, .. } = channel;
            story += &format!("{name} {:?} {counts:?}", channel.bounds);
            story += &format!(" {:?}", channel.missing_keys);
            story += &format!(" {:?} {:?}\n", channel.released, channel.finish);
            story += &format!("{:#?}\n", channel.entries);
        }
        story
    }

    /// The same bytes with a sum that is right for them.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let end = bytes.len().saturating_sub(4);
        bytes.truncate(end);
        let sum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    #[test]
    fn what_was_saved_is_restored_however_often() {
        let opaque = saved(&eventful_in(keeping().opaque_ids(true).build()));
        let first = saved(&eventful());
        for first in [&opaque, &first] {
            let mut bytes = first.clone();
            for _ in 0..3 {
                let again = keeping().restore_with(&*bytes, conflating).unwrap();
                bytes = saved(&again);
                assert_eq!(story(&bytes), story(first));
            }
        }
        let reported = story(&first);
        for part in [
            "for ann",
            "for admins",
            "\"mine\"",
            "\"released\"",
            "role",
            "the last",
            "\"all\"",
            "([\"a\", \"b\"], false)",
            "pushwheel.removed",
        ] {
            assert!(reported.contains(part), "{part}: {reported}");
        }
        assert!(!reported.contains("lost"));
    }

    #[test]
    fn ids_go_on_where_they_ended() {
        let manager = eventful();
        let before = manager.get_or_create("news").unwrap();
        let before = before
            .broadcast(Event::message("before"))
            .unwrap()
            .id
            .unwrap();
        let again = keeping().restore(&*saved(&manager)).unwrap();
        let after = again.get("news").unwrap();
        let after = after
            .broadcast(Event::message("after"))
            .unwrap()
            .id
            .unwrap();
        let (epoch, number) = before.to_string().rsplit_once('-').map(own).unwrap();
        assert_eq!(after.to_string(), format!("{epoch}-{}", number + 1));
        assert!(
            again
                .get("done")
                .unwrap()
                .broadcast(Event::message("x"))
                .is_err()
        );

        fn own((epoch, number): (&str, &str)) -> (String, u64) {
            (epoch.to_owned(), number.parse().unwrap())
        }
    }

    #[test]
    fn a_history_ages_while_no_engine_serves_it() {
        let bytes = saved(&eventful());
        let mut snapshot = format::read(&*bytes).unwrap();
        for channel in &mut snapshot.channels {
            for (n, entry) in channel.entries.iter_mut().rev().enumerate() {
                // A minute between any two.
                entry.at_ms -= 60_000 * n as u64;
            }
        }
        let mut aged = Vec::new();
        format::write(&snapshot, &mut aged).unwrap();
        let history = History::events(10).age_max(Duration::from_secs(150));
        let options = ChannelOptions::new().history(history);
        let manager = keeping().restore_with(&*aged, |_| options.clone()).unwrap();
        let stats = manager.get("news").unwrap().stats().unwrap();
        assert_eq!(stats.history_events, 3);
    }

    #[test]
    fn what_the_options_no_longer_allow_is_dropped_and_known_to_be_lost() {
        let bytes = saved(&eventful());
        let none = ChannelManager::builder().restore(&*bytes).unwrap();
        let news = format::read(&*saved(&none)).unwrap();
        let news = news.channels.iter().find(|c| &*c.name == "news").unwrap();
        assert!(news.entries.is_empty());
        assert_eq!(news.bounds.evicted.history, news.bounds.head);

        let few = ChannelManager::builder().channels_max(3).restore(&*bytes);
        let reported = few.unwrap_err().to_string();
        assert!(
            reported.contains("4 channels, but the limit is 3"),
            "{reported}"
        );
    }

    #[test]
    fn a_state_that_was_cut_or_changed_anywhere_is_refused() {
        let bytes = saved(&eventful());
        for len in 0..bytes.len() {
            let error = keeping().restore(&bytes[..len]).unwrap_err();
            assert!(
                matches!(error, RestoreError::Damaged { .. }),
                "{len}: {error}"
            );
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(keeping().restore(&*flipped).is_err(), "{at}");
        }
        let longer = [&*bytes, b"\n"].concat();
        let error = keeping().restore(&*longer).unwrap_err();
        assert!(error.to_string().contains("data follows"), "{error}");
    }

    #[test]
    fn a_state_of_the_version_before_is_read() {
        let manager = keeping().build();
        let news = manager.get_or_create("news").unwrap();
        news.broadcast(Event::message("hello")).unwrap();
        let now = saved(&manager);
        let mut before = now.clone();
        let version = format::MAGIC.len();
        before[version] = 2;
        // Epoch, key of ids, sequence and removed_through; then the number of heads.
        let heads = version + 4 + (4 + 7) + 1 + 16;
        assert_eq!(before[heads..heads + 8], [0; 8]);
        before.drain(heads..heads + 8);
        // Events for all channels: evicted_through, own ids and entries, before the sum.
        let for_all = before.len() - 4 - 24;
        assert_eq!(before[for_all..for_all + 24], [0; 24]);
        before.drain(for_all..for_all + 24);
        let restored = keeping().restore(&*sealed(before)).unwrap();
        assert_eq!(story(&saved(&restored)), story(&now));
    }

    #[test]
    fn a_removed_channel_begins_after_its_own_past_over_a_restart() {
        let manager = keeping().build();
        for name in ["a", "b"] {
            let channel = manager.get_or_create(name).unwrap();
            channel.broadcast(Event::message("x")).unwrap();
            manager.remove(name);
        }
        let restored = keeping().restore(&*saved(&manager)).unwrap();
        for manager in [manager, restored] {
            for (name, head) in [("a", 1), ("b", 2), ("c", 0)] {
                let key = manager.get_or_create(name).unwrap().key();
                let state = manager.hub().lock();
                assert_eq!(state.get(key).unwrap().log.evicted_through(), head);
            }
        }
    }

    #[test]
    fn another_file_and_another_version_have_different_errors() {
        let error = keeping().restore(&b"#!/bin/sh\necho hello\n"[..]);
        assert!(matches!(error, Err(RestoreError::Foreign)));
        let mut newer = saved(&eventful());
        newer[format::MAGIC.len()] = 99;
        let reported = keeping().restore(&*sealed(newer)).unwrap_err().to_string();
        assert_eq!(
            reported,
            "it has version 99 of the format, but this program reads version 4"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        /// A right sum proves nothing: each state that is accepted makes a whole manager.
        #[test]
        fn a_forged_state_is_refused_or_makes_a_whole_manager(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in prop::option::of((any::<prop::sample::Index>(), 0_usize..40)),
        ) {
            let mut bytes = saved(&eventful());
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some((at, len)) = cut {
                let at = at.index(bytes.len());
                let end = bytes.len().min(at + len);
                bytes.drain(at..end);
            }
            if let Ok(manager) = keeping().restore(&*sealed(bytes)) {
                // A channel may be finished; no other answer and no panic.
                let _ = manager.broadcast_all(Event::message("more").with_key("a"));
                let again = saved(&manager);
                let restored = keeping().restore(&*again).unwrap();
                prop_assert_eq!(story(&saved(&restored)), story(&again));
                let _ = manager.stats();
            }
        }
    }
}
