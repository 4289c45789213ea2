//! Cleaning up: old histories, finished channels whose time is over, and channels that
//! are not in use.

use super::channel_state::{Finish, Kind, Life};
use super::client::DisconnectReason;
use super::clock::Clock;
use super::dropped::Dropped;
use super::key::ChannelKey;
use super::log::Log;
use super::looks::LOOKS_MAX;
use super::reactors::Wake;
use super::state::{Removed, State};

impl State {
    /// Looks at up to `left` channels, and at fewer if `removed` has no room for more:
    /// evicts history that is too old, frees the names of finished channels whose
    /// time is over, and removes channels without clients, history and handles;
    /// where there is no room for more channels, without waiting. Returns how many
    /// channels are left.
    pub(super) fn sweep(&mut self, left: usize, clock: &Clock, removed: &mut Removed) -> usize {
        let now_ms = clock.now_ms();
        let end = self.slots_end();
        let is_full =
            self.names.len() >= self.settings.channels_max || self.unpublished.check().is_err();
        let count = left.min(LOOKS_MAX);
        for looked in 0..count {
            if removed.entries.room() <= looked {
                return left - looked;
            }
            let slot = match self.swept + 1 < end {
                true => self.swept + 1,
                false => 0,
            };
            if let Some((key, _)) = self.at(slot)
                && self.sweep_channel(key, is_full, (now_ms, clock), removed)
            {
                // The rest of its history is next.
                return left - looked;
            }
            self.swept = slot;
        }
        left - count
    }

    /// Returns whether there is more to evict than `removed` had room for.
    fn sweep_channel(
        &mut self,
        key: ChannelKey,
        is_full: bool,
        (now_ms, clock): (u64, &Clock),
        removed: &mut Removed,
    ) -> bool {
        let is_unpublished = self.unpublished.contains(key.slot);
        let empty_after = self.settings.empty_after;
        let Some(channel) = self.get_mut(key) else {
            return false;
        };
        let has_more = channel.trim(now_ms, &mut removed.entries);
        // What an unpublished channel holds was published to all channels.
        let holds_nothing = channel.log.is_empty() || is_unpublished;
        let is_removed = match (&channel.kind, channel.life) {
            (Kind::Named(_), Life::Open) => {
                let empty_ms = u128::from(now_ms.saturating_sub(channel.empty_since_ms));
                channel.members.is_empty()
                    && holds_nothing
                    && channel.handles.strong_count() == 0
                    && empty_after.is_some_and(|after| is_full || empty_ms >= after.as_millis())
            }
            (Kind::Named(_), Life::Finishing(finish)) if finish.until_ms <= now_ms => {
                let wake = self.end_finishing(key, (now_ms, clock), &mut removed.entries);
                removed.wake.merge(wake);
                let channel = self.get(key);
                channel.is_some_and(|channel| channel.members.is_empty())
            }
            // The last client takes these with it.
            (Kind::Named(_), Life::Finishing(_) | Life::Over { .. } | Life::Closing)
            | (Kind::Private(_), _) => false,
        };
        self.settle(key);
        if is_removed {
            let channel = self.remove_empty(key, DisconnectReason::ChannelClosed);
            removed.channels.extend(channel);
            return false;
        }
        has_more
    }

    /// Ends the time of a finished channel. Its clients are sent what they are owed,
    /// however long they take. A new channel has the name if there are clients, so
    /// that one that comes back has missed nothing.
    pub(super) fn end_finishing(
        &mut self,
        key: ChannelKey,
        (now_ms, clock): (u64, &Clock),
        dropped: &mut Dropped,
    ) -> Wake {
        self.free_name(key);
        let Some(channel) = self.get_mut(key) else {
            return Wake::default();
        };
        let Life::Finishing(Finish { through, .. }) = channel.life else {
            return Wake::default();
        };
        channel.life = Life::Over { through };
        channel.trim(now_ms, dropped);
        if let Kind::Named(name) = &channel.kind
            && !channel.members.is_empty()
        {
            let (name, options, head) = (name.clone(), channel.options.clone(), channel.log.head());
            let key = self.insert(Kind::Named(name), options, now_ms);
            let successor = self.get_mut(key).expect("it was just made");
            successor.log = Log::new(head);
            self.seed(key, now_ms, dropped);
        }
        self.settle(key);
        // A stream that has other channels as well finds that it is to end.
        self.mark_dirty(key, clock.now_us())
    }
}

#[cfg(all(test, feature = "internals"))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;
    use crate::frame::Frame;
    use crate::hub::entry::Entry;
    use crate::hub::options::ChannelOptions;
    use crate::hub::retention::History;
    use crate::hub::state::Settings;

    fn swept(state: &mut State, clock: &Clock) -> (usize, Removed) {
        let mut removed = Removed::new();
        let left = state.sweep(state.slots_end(), clock, &mut removed);
        (left, removed)
    }

    #[test]
    fn a_channel_that_is_not_in_use_is_removed_when_its_time_is_over() {
        let now_ms = Arc::new(AtomicU64::new(0));
        let (clock, mut state) = (
            Clock::manual(now_ms.clone()),
            State::new(Settings::default()),
        );
        let kept = Arc::new(());
        for name in ["used", "unused"] {
            let options = Arc::new(ChannelOptions::new());
            let key = state.insert(Kind::Named(name.into()), options, 0);
            if name == "used" {
                state.get_mut(key).unwrap().handles = Arc::downgrade(&kept);
            }
            state.names.insert(name.into(), key);
        }
        for (at_ms, removed, names) in [(59_999, 0, 2), (60_000, 1, 1), (600_000, 0, 1)] {
            now_ms.store(at_ms, Relaxed);
            let (left, found) = swept(&mut state, &clock);
            assert_eq!(
                (left, found.channels.len(), state.names.len()),
                (0, removed, names)
            );
        }
        assert!(state.names.contains_key("used"));
    }

    #[test]
    fn a_long_history_that_is_too_old_is_evicted_in_several_sweeps() {
        const EVENTS: u64 = 2_500;
        let now_ms = Arc::new(AtomicU64::new(0));
        let (clock, mut state) = (
            Clock::manual(now_ms.clone()),
            State::new(Settings::default()),
        );
        let age_max = std::time::Duration::from_secs(1);
        let history = History::events(usize::MAX).age_max(age_max);
        let options = Arc::new(ChannelOptions::new().history(history));
        let key = state.insert(Kind::Named("long".into()), options, 0);
        for sequence in 1..=EVENTS {
            let entry = Entry {
                sequence,
                at_ms: 0,
                frame: Frame::raw(b"data: x\n\n"),
                attributes: None,
            };
            let log = &mut state.get_mut(key).unwrap().log;
            log.append(entry, &mut Dropped::new());
        }
        now_ms.store(2_000, Relaxed);
        let mut evicted = Vec::new();
        while {
            let (left, removed) = swept(&mut state, &clock);
            evicted.push(LOOKS_MAX - removed.entries.room());
            left > 0
        } {}
        assert_eq!(evicted, [1_024, 1_024, 452]);
        assert!(state.get(key).unwrap().log.is_empty());
    }

    #[test]
    fn the_history_of_a_finished_channel_does_not_age_until_its_time_is_over() {
        let now_ms = Arc::new(AtomicU64::new(0));
        let (clock, mut state) = (
            Clock::manual(now_ms.clone()),
            State::new(Settings::default()),
        );
        let second = std::time::Duration::from_secs(1);
        let history = History::events(10).age_max(second);
        let options = Arc::new(ChannelOptions::new().history(history));
        let key = state.insert(Kind::Named("answer".into()), options, 0);
        let entry = Entry {
            sequence: 1,
            at_ms: 0,
            frame: Frame::raw(b"data: x\n\n"),
            attributes: None,
        };
        let channel = state.get_mut(key).unwrap();
        channel.log.append(entry, &mut Dropped::new());
        let until_ms = 60_000;
        state.finish(
            key,
            Finish {
                through: 1,
                until_ms,
            },
        );
        for (at_ms, events) in [(2_000, Some(1)), (59_999, Some(1)), (60_000, None)] {
            now_ms.store(at_ms, Relaxed);
            swept(&mut state, &clock);
            let channel = state.get(key);
            assert_eq!(
                channel.map(|channel| channel.log.len()),
                events,
                "at {at_ms}"
            );
        }
    }
}
