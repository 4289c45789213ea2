//! The channels' histories as bytes: saved when a program ends, restored when
//! it starts again, so that clients resume over the restart.
//!
//! The invariant to remember: *a restored manager continues in the same epoch, so one
//! saved state may have one future only*. A program that publishes after a save, dies
//! and restores the earlier state uses ids a second time.
//!
//! Members and options are not saved.

mod before;
mod copying;
mod error;
mod format;
#[cfg(test)]
mod fuzzy_tests;
mod parts;
mod restoring;

use std::io::{self, BufWriter, Read, Write};

use super::clock::Clock;
use super::for_all::NAME_OF_ALL;
use super::manager::{ChannelManager, ChannelManagerBuilder};
use super::options::ChannelOptions;
use super::retention::History;
use super::state::Settings;
use super::{Hub, Randomness};
use format::{Reader, Writer};
use restoring::Restoring;

pub use error::RestoreError;
pub(super) use restoring::{Origin, Restored};

/// The bytes of entries that are written, and read, at once: or one that is larger.
const ENTRIES_BYTES: usize = 256 << 10;

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
    /// When `to` cannot be written.
    pub fn save(&self, to: &mut impl Write) -> io::Result<Saved> {
        self.hub.write_snapshot(to)
    }
}

impl Hub {
    /// Writes what a manager that goes on here needs, part by part. The hub may be in use
    /// meanwhile.
    pub(super) fn write_snapshot(&self, to: &mut dyn Write) -> io::Result<Saved> {
        let mut writer = Writer::new(BufWriter::new(to))?;
        self.copy(|part| writer.write(&part))
    }
}

impl ChannelManagerBuilder {
    /// Makes the manager with the channels that [`ChannelManager::save`] has
    /// written, and goes on where it ended: same epoch, next sequence number,
    /// so that a client's `Last-Event-ID` from before is still valid. Channels get the default
    /// options, and keep of their history what these and the bound on all histories allow;
    /// ages count on. No more of the state is held in memory than is kept.
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
        options: impl FnMut(&str) -> ChannelOptions,
    ) -> Result<ChannelManager, RestoreError> {
        let for_all = self.options_by_name.of(NAME_OF_ALL).history;
        let restored = Restored::read(
            from,
            &Clock::system(),
            self.settings,
            Origin::State,
            for_all,
            options,
        )?;
        let Restored {
            ids,
            clock,
            mut state,
            ..
        } = restored;
        // No log follows.
        state.remembered.catch_up(u64::MAX);
        state.keys.catch_up(u64::MAX);
        Ok(ChannelManager {
            _handles: None,
            hub: Hub::with_ids(
                ids,
                // It knows the ids from before.
                0,
                clock,
                Randomness::System,
                state,
                self.options_by_name,
                None,
            ),
        })
    }
}

impl Restored {
    /// Reads a saved state. `clock` is any clock of the source that the new one is to have,
    /// and `for_all` is what is kept of the events for all channels.
    pub(super) fn read(
        from: impl Read,
        clock: &Clock,
        settings: Settings,
        origin: Origin,
        for_all: History,
        options: impl FnMut(&str) -> ChannelOptions,
    ) -> Result<Restored, RestoreError> {
        let mut reader = Reader::new(from)?;
        let mut restoring =
            Restoring::new(reader.read()?, clock, settings, origin, for_all, options)?;
        while !restoring.add(reader.read()?)? {}
        Ok(restoring.into_restored())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::parts::Part;
    use super::*;
    use crate::hub::entry::Entry;
    use crate::journal::bytes::{Input, put_number};
    use crate::{Condition, Event, KeyedState, LagPolicy};

    fn keeping() -> ChannelManagerBuilder {
        ChannelManager::builder().defaults(ChannelOptions::new().history(History::events(10)))
    }

    /// Keeps what is of any age: a file has the times of the day it was made.
    fn of_any_age(name: &str) -> ChannelOptions {
        let options = conflating(name);
        let history = History::events(10).age_max(Duration::MAX);
        let keyed = KeyedState::keys(2).age_max(Duration::MAX);
        options.history(history).keyed_state(keyed)
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

    /// All parts of a state.
    fn parts(bytes: &[u8]) -> Result<Vec<Part>, RestoreError> {
        let mut reader = Reader::new(bytes)?;
        let mut parts = Vec::new();
        loop {
            parts.push(reader.read()?);
            if let Some(Part::End(_)) = parts.last() {
                return Ok(parts);
            }
        }
    }

    /// The bytes of a state of these parts.
    fn written(parts: &[Part]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes).unwrap();
        parts.iter().for_each(|part| writer.write(part).unwrap());
        bytes
    }

    /// The content of a state without its times.
    fn story(bytes: &[u8]) -> String {
        let mut parts = parts(bytes).unwrap();
        for part in &mut parts {
            match part {
                Part::Begin(begin) => begin.oldest_ms = 0,
                Part::ForAll(for_all) => {
                    for_all.entries.iter_mut().for_each(|(e, _)| e.at_ms = 0);
                }
                Part::Channel(channel) => {
                    channel.finish.iter_mut().for_each(|f| f.until_ms = 0);
                }
                Part::Entries(entries) => entries.iter_mut().for_each(|e| e.at_ms = 0),
                Part::OwnIds(records) => records.iter_mut().for_each(|(_, r)| r.at_ms = 0),
                Part::Keys(keys) => keys.iter_mut().for_each(|(_, key)| key.at_ms = 0),
                Part::Heads(heads) => heads.sort_unstable_by(|a, b| a.0.cmp(&b.0)),
                Part::Unknown(_)
                | Part::Finishes(_)
                | Part::Removals(_)
                | Part::Refused(_)
                | Part::End(_) => {}
            }
        }
        let lines = parts.iter().map(|part| format!("{part:?}\n"));
        lines.collect()
    }

    /// The sections of a state: where the length and where the content of each is.
    fn sections(bytes: &[u8]) -> Vec<(usize, std::ops::Range<usize>)> {
        let (mut sections, mut at) = (Vec::new(), format::MAGIC.len() + 4);
        while at < bytes.len() {
            let mut input = Input(&bytes[at + 1..]);
            let len = usize::try_from(input.number().unwrap()).unwrap();
            let begin = bytes.len() - input.len();
            sections.push((at + 1, begin..begin + len));
            at = begin + len + 4;
        }
        sections
    }

    /// The same bytes with sums that are right for them.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        for (_, section) in sections(&bytes) {
            let sum = crc32fast::hash(&bytes[..section.end]);
            bytes[section.end..section.end + 4].copy_from_slice(&sum.to_le_bytes());
        }
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
            "\"news/released\"",
            "role",
            "the last",
            "\"/all\"",
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
        let mut parts = parts(&saved(&eventful())).unwrap();
        for part in &mut parts {
            match part {
                Part::Begin(begin) => begin.oldest_ms -= 3_600_000,
                Part::Entries(entries) => {
                    for (n, entry) in entries.iter_mut().rev().enumerate() {
                        // A minute between any two.
                        entry.at_ms -= 60_000 * n as u64;
                    }
                }
                _ => {}
            }
        }
        let aged = written(&parts);
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
        let parts = parts(&saved(&none)).unwrap();
        assert!(!parts.iter().any(|part| matches!(part, Part::Entries(_))));
        let news = parts.iter().find_map(|part| match part {
            Part::Channel(channel) if &*channel.name == "news" => Some(channel),
            _ => None,
        });
        let news = news.unwrap();
        assert_eq!(news.bounds.evicted.history, news.bounds.head);

        let few = ChannelManager::builder().channels_max(3).restore(&*bytes);
        let reported = few.unwrap_err().to_string();
        assert!(
            reported.contains("4 channels, but the limit is 3"),
            "{reported}"
        );
    }

    #[test]
    fn no_more_is_held_than_is_kept() {
        let manager = keeping().build();
        for name in ["a", "b", "c", "d"] {
            let channel = manager.get_or_create(name).unwrap();
            for n in 0..10 {
                let event = Event::message(format!("{n}{}", "x".repeat(64 << 10)));
                channel.broadcast(event).unwrap();
            }
        }
        let bytes = saved(&manager);
        let bound = 128 << 10;
        let settings = Settings {
            log_bytes_max: bound,
            ..keeping().settings
        };
        let mut reader = Reader::new(&*bytes).unwrap();
        let options = |name: &str| conflating(name);
        let first = reader.read().unwrap();
        let mut restoring = Restoring::new(
            first,
            &Clock::system(),
            settings,
            Origin::State,
            History::NONE,
            options,
        )
        .unwrap();
        loop {
            let part = reader.read().unwrap();
            if let Part::Entries(entries) = &part {
                let bytes = entries.iter().map(Entry::bytes).sum::<usize>();
                assert!(bytes <= ENTRIES_BYTES + (65 << 10));
            }
            let is_last = restoring.add(part).unwrap();
            assert!(restoring.held_bytes() <= bound);
            if is_last {
                break;
            }
        }
        let state = restoring.into_restored().state;
        // The newest events are there, and a client of the others receives a gap.
        let channel = |name| state.get(state.names[name]).unwrap();
        assert!(["a", "b", "c"].map(|name| channel(name).log.len()) == [0; 3]);
        assert_eq!(channel("d").log.len(), 1);
        assert_eq!(channel("d").log.evicted_through(), 39);
        assert_eq!(channel("a").log.evicted_through(), 10);
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
    fn states_of_older_releases_are_read() {
        let bytes = include_bytes!("../../tests/golden/state-2.bin");
        let restored = keeping().restore_with(&bytes[..], of_any_age).unwrap();
        let news = restored.get("news").unwrap();
        assert_eq!(restored.names().len(), 1);
        assert_eq!(news.stats().unwrap().history_events, 1);

        // One of everything, as `eventful` makes it, but for events for all channels.
        let bytes = include_bytes!("../../tests/golden/state-3.bin");
        let restored = keeping().restore_with(&bytes[..], of_any_age).unwrap();
        let reported = story(&saved(&restored));
        for part in [
            "for ann",
            "for admins",
            "\"mine\"",
            "\"news/released\"",
            "role",
            "the last",
            "pushwheel.removed",
            "\"gone\"",
        ] {
            assert!(reported.contains(part), "{part}: {reported}");
        }
        for end in 0..bytes.len() {
            assert!(keeping().restore(&bytes[..end]).is_err(), "{end}");
            let mut flipped = bytes.to_vec();
            flipped[end] ^= 1 << (end % 8);
            assert!(keeping().restore(&*flipped).is_err(), "{end}");
        }
    }

    /// `BLESS=1` rewrites the file: before a release, and never after it.
    #[test]
    fn the_bytes_of_a_state_are_those_of_this_format() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/state-4.bin");
        if std::env::var_os("BLESS").is_some_and(|bless| bless == "1") {
            std::fs::write(path, saved(&eventful())).unwrap();
        }
        let golden = &*std::fs::read(path).unwrap();
        let parts = parts(golden).unwrap();
        assert_eq!(written(&parts), golden);
        let restored = keeping().restore_with(golden, of_any_age).unwrap();
        assert_eq!(story(&saved(&restored)), story(golden));
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
    fn an_own_id_of_a_removed_channel_is_not_of_the_one_that_has_its_name() {
        let manager = keeping().build();
        let own = Event::message("x").with_id("own");
        manager.get_or_create("a").unwrap().broadcast(own).unwrap();
        manager.remove("a");
        let again = manager.get_or_create("a").unwrap();
        again.broadcast(Event::message("y")).unwrap();
        let restored = keeping().restore(&*saved(&manager)).unwrap();
        for manager in [manager, restored] {
            let key = manager.get("a").unwrap().key();
            let state = manager.hub().lock();
            assert!(state.get(key).unwrap().log.own_ids().newest().is_none());
            assert!(state.remembered.get("a", "own").is_some());
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
            changes in prop::collection::vec(
                (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()),
                0..4,
            ),
            cut in prop::option::of((
                any::<prop::sample::Index>(),
                any::<prop::sample::Index>(),
                0_usize..40,
            )),
        ) {
            // In one of the sections, whose length stays right.
            let mut bytes = saved(&eventful());
            for (section, at, byte) in changes {
                let (_, section) = section.get(&sections(&bytes)).clone();
                bytes[section.start + at.index(section.len())] = byte;
            }
            if let Some((section, at, len)) = cut {
                let (length_at, section) = section.get(&sections(&bytes)).clone();
                let mut content = bytes[section.clone()].to_vec();
                let begin = at.index(content.len());
                content.drain(begin..content.len().min(begin + len));
                let mut length = Vec::new();
                put_number(&mut length, content.len() as u64);
                bytes.splice(length_at..section.end, [length, content].concat());
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
