//! Replacing what the channels have, while their clients stay.
//!
//! A node that has to begin again builds its channels beside the hub. Then their logs take the
//! places of the hub's. No number is assigned twice, so clients keep their positions: what is
//! newer than a position is sent, and what the log no longer holds is a gap.
//!
//! The invariant to remember: *nothing is read beyond the sequence*. The logs are replaced one
//! by one, with the lock open between them, and the sequence goes on when all are there.

use std::mem;
use std::sync::Arc;

use crate::hub::Hub;
use crate::hub::channel_state::{ChannelState, Kind, Life};
use crate::hub::dropped::Dropped;
use crate::hub::idempotency::no_keys;
use crate::hub::key::ChannelKey;
use crate::hub::log::Log;
use crate::hub::looks::LOOKS_MAX;
use crate::hub::reactors::Wake;
use crate::hub::state::State;

/// Maximum channels that a loss names. A loss in more channels is reported to all channels.
const NAMED_MAX: usize = 1_024;

/// What a channel has in the state that was built.
struct Content {
    log: Log,
    life: Life,
    restored_through: u64,
}

impl Content {
    fn take(state: &mut State, key: ChannelKey) -> Option<Content> {
        let channel = state.get_mut(key)?;
        Some(Content {
            log: mem::take(&mut channel.log),
            life: channel.life,
            restored_through: channel.restored_through,
        })
    }

    /// Puts it into a channel. Returns what the channel had.
    fn put(self, state: &mut State, key: ChannelKey) -> Option<Log> {
        let channel = state.get_mut(key)?;
        channel.restored_through = self.restored_through;
        if matches!(channel.life, Life::Open | Life::Finishing(_)) {
            channel.life = self.life;
        }
        let old = mem::replace(&mut channel.log, self.log);
        let is_finishing = matches!(channel.life, Life::Finishing(_));
        let is_published = channel.log.head() > 0;
        let options = channel.options.clone();
        state.for_all.note_options(&options);
        state.note_replaced(key);
        if is_finishing {
            state.memory.note_finished(key.slot);
        }
        if is_published {
            state.note_published(key);
        }
        Some(old)
    }
}

impl Hub {
    /// Returns the channels that had something newer than a number, by name, each with its
    /// newest number; `None`: any may have.
    pub(super) fn channels_beyond(&self, after: u64) -> Option<Vec<(Arc<str>, u64)>> {
        let mut names: Vec<(Arc<str>, u64)> = Vec::new();
        {
            let state = self.lock();
            if state.for_all.head() > after || state.heads.removed_through() > after {
                return None;
            }
            // Behind all names that end at the number itself.
            let last = (after, Arc::from("\u{10ffff}"));
            let removed = state.heads.after(Some(&last)).take(NAMED_MAX + 1);
            names.extend(removed.map(|(head, name)| (name.clone(), *head)));
        }
        self.for_each_channel(|_, channel| {
            if channel.log.head() > after && names.len() <= NAMED_MAX {
                let name = channel.name().cloned();
                names.extend(name.map(|name| (name, channel.log.head())));
            }
        });
        names.sort_unstable_by(|a, b| b.cmp(a));
        names.dedup_by(|a, b| a.0 == b.0);
        (names.len() <= NAMED_MAX).then_some(names)
    }

    /// Replaces what the channels have by what those of another state have. The other state
    /// is of the same log. Nothing is published meanwhile.
    pub(super) fn replace(&self, mut fresh: State) {
        let old = {
            let mut state = self.lock();
            state.memory.count_heads(fresh.heads.bytes());
            state.unknown_through = fresh.unknown_through;
            (
                mem::replace(&mut state.heads, mem::take(&mut fresh.heads)),
                mem::replace(&mut state.finishes, mem::take(&mut fresh.finishes)),
                mem::replace(&mut state.removals, mem::take(&mut fresh.removals)),
                mem::replace(&mut state.for_all, mem::take(&mut fresh.for_all)),
                mem::replace(&mut state.remembered, mem::take(&mut fresh.remembered)),
                mem::replace(&mut state.keys, mem::replace(&mut fresh.keys, no_keys())),
                mem::replace(&mut state.terms, mem::take(&mut fresh.terms)),
            )
        };
        drop(old);
        for key in self.keys_of_names() {
            self.replace_one(key, &mut fresh);
        }
        let mut left: Vec<(Arc<str>, ChannelKey)> = fresh.names.drain().collect();
        left.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (name, from) in left {
            let Some(content) = Content::take(&mut fresh, from) else {
                continue;
            };
            let Some(options) = fresh.get(from).map(|channel| channel.options.clone()) else {
                continue;
            };
            let now_ms = self.clock.now_ms();
            let mut state = self.lock();
            // A subscription may have made it meanwhile.
            let key = match state.names.get(&name).copied() {
                Some(key) => key,
                None => state.insert(Kind::Named(name), options, now_ms),
            };
            let old = content.put(&mut state, key);
            drop(state);
            drop(old);
            self.give_way();
        }
        {
            let mut state = self.lock();
            state.sequence = state.sequence.max(fresh.sequence);
        }
        self.wake_all_channels();
    }

    fn keys_of_names(&self) -> Vec<ChannelKey> {
        let mut keys = Vec::new();
        let has_name = |channel: &ChannelState| channel.current_name().is_some();
        self.for_each_channel(|key, channel| keys.extend(has_name(channel).then_some(key)));
        keys
    }

    /// Replaces what a channel has. One that the other state does not have is empty, and
    /// has had a past.
    fn replace_one(&self, key: ChannelKey, fresh: &mut State) {
        let mut state = self.lock();
        let name = state.get(key).and_then(|channel| channel.current_name());
        let Some(name) = name.cloned() else {
            return;
        };
        let from = fresh.names.remove(&name);
        let found = from.and_then(|from| Content::take(fresh, from));
        let is_new = found.is_none();
        let content = found.unwrap_or_else(|| Content {
            log: Log::new(state.take_head(&name)),
            life: Life::Open,
            restored_through: 0,
        });
        let old = content.put(&mut state, key);
        let mut dropped = Dropped::new();
        if is_new {
            // As one that is made now.
            state.note_unknown_past(key);
            state.seed(key, self.clock.now_ms(), &mut dropped);
            state.note_replaced(key);
        }
        drop(state);
        drop((old, dropped));
        self.give_way();
    }

    /// Has all reactors look at all of their channels.
    fn wake_all_channels(&self) {
        let (mut from, now_us) = (0, self.clock.now_us());
        loop {
            let mut wake = Wake::default();
            let mut state = self.lock();
            let end = state.slots_end();
            let slots = from..end.min(from + LOOKS_MAX);
            from = slots.end;
            for slot in slots {
                if let Some((key, _)) = state.at(slot) {
                    wake.merge(state.mark_dirty(key, now_us));
                }
            }
            drop(state);
            self.wake(wake);
            if from >= end {
                return;
            }
            self.give_way();
        }
    }
}
