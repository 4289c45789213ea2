//! Copies a hub part by part, while it is in use.
//!
//! The lock is open between two steps, and while a part is written. A channel is copied as
//! it was in the first of its steps: what is published to it meanwhile is left out. Entries
//! that are evicted meanwhile may be missing, and then the channel says so.

use std::io;
use std::sync::Arc;

use super::parts::{Begin, End, Part, SavedChannel, SavedForAll};
use super::{ENTRIES_BYTES, Saved};
use crate::hub::Hub;
use crate::hub::channel_state::{ChannelState, Finish, Life};
use crate::hub::ends::Ends;
use crate::hub::entry::Entry;
use crate::hub::for_all::ForAll;
use crate::hub::heads::Absent;
use crate::hub::idempotency::{KeyId, KeyRecord};
use crate::hub::key::ChannelKey;
use crate::hub::looks::LOOKS_MAX;
use crate::hub::remembered::IdRecord;
use crate::hub::state::State;

/// The wall clock at a time of the hub's clock.
#[derive(Clone, Copy)]
struct WallClock {
    wall_ms: u64,
    now_ms: u64,
}

impl WallClock {
    fn of(self, at_ms: u64) -> u64 {
        let past_ms = self.now_ms.saturating_sub(at_ms);
        let ahead_ms = at_ms.saturating_sub(self.now_ms);
        self.wall_ms
            .saturating_sub(past_ms)
            .saturating_add(ahead_ms)
    }

    fn timed(self, entry: &Entry) -> Entry {
        Entry {
            at_ms: self.of(entry.at_ms),
            ..entry.clone()
        }
    }
}

/// Has a part of the hub remember, until it is dropped, what a copy could miss.
struct Copying<'a> {
    hub: &'a Hub,
    /// The number at which it was begun.
    at: u64,
    end: fn(&mut State, u64),
}

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        (self.end)(&mut self.hub.lock(), self.at);
    }
}

impl Hub {
    /// Copies all that is to be saved.
    pub(super) fn copy(&self, mut put: impl FnMut(Part) -> io::Result<()>) -> io::Result<Saved> {
        let clock = WallClock {
            wall_ms: self.clock.read_wall_ms(),
            now_ms: self.clock.now_ms(),
        };
        let (at, unknown_through, for_all, oldest_own_id, jumps) = {
            let mut state = self.lock();
            let at = state.sequence;
            state.heads.begin_copy();
            state.finishes.begin_copy(at);
            state.removals.begin_copy(at);
            state.remembered.begin_copy();
            state.keys.begin_copy();
            let jumps = state.terms.jumps().copied().collect();
            let oldest = [state.remembered.oldest_ms(), state.keys.oldest_ms()];
            let oldest_own_id = oldest
                .into_iter()
                .flatten()
                .min()
                .map(|at_ms| clock.of(at_ms));
            let for_all = saved_for_all(&state.for_all, clock);
            let unknown_through = state.unknown_through;
            (at, unknown_through, for_all, oldest_own_id, jumps)
        };
        let hub = self;
        let copying_ids = Copying {
            hub,
            at,
            end: |state, _| {
                state.remembered.end_copy();
                state.keys.end_copy();
            },
        };
        let copying = Copying {
            hub,
            at,
            end: |state, at| {
                state.heads.end_copy();
                state.finishes.end_copy(at);
                state.removals.end_copy(at);
            },
        };
        // Nothing is written meanwhile: as long as a disk may take, no id may be forgotten.
        let own_ids = self.copy_own_ids(0, at, clock);
        let remembered_keys = self.copy_keys(0, at, clock);
        drop(copying_ids);
        let mut keys = Vec::new();
        let held = for_all.entries.iter().map(|(entry, _)| entry.at_ms);
        let oldest_ms = held.chain(oldest_own_id).min();
        let mut oldest_ms = oldest_ms.unwrap_or(clock.wall_ms);
        // Not those that are over: no client comes back to them.
        self.for_each_channel(|key, channel| {
            if channel.current_name().is_some() {
                keys.push((channel.log.head(), key));
                let oldest = channel.log.oldest().map(|entry| clock.of(entry.at_ms));
                oldest_ms = oldest_ms.min(oldest.unwrap_or(u64::MAX));
            }
        });
        // Those that were published to last are restored last, and evicted from last.
        keys.sort_unstable();
        put(Part::Begin(Begin {
            ids: self.ids.clone(),
            at,
            oldest_ms,
            channels: keys.len(),
            jumps,
        }))?;
        if unknown_through > 0 {
            put(Part::Unknown(unknown_through))?;
        }
        put(Part::ForAll(for_all))?;
        put(Part::Finishes(self.copy_ends(at, |state| &state.finishes)))?;
        let removals = self.copy_ends(at, |state| &state.removals);
        if !removals.is_empty() {
            put(Part::Removals(removals))?;
        }
        let mut saved = Saved {
            channels: 0,
            events: 0,
        };
        for (_, key) in keys {
            if let Some((channel, entries)) = self.copy_channel(key, clock) {
                saved.channels += 1;
                saved.events += entries.len();
                put(Part::Channel(Box::new(channel)))?;
                put_entries(entries, &mut put)?;
            }
        }
        let (end, refused) = self.copy_heads(&mut put)?;
        put_own_ids(own_ids, &mut put)?;
        put_own_ids(self.copy_own_ids(at, end.sequence, clock), &mut put)?;
        put_keys(remembered_keys, &mut put)?;
        put_keys(self.copy_keys(at, end.sequence, clock), &mut put)?;
        for some in refused.chunks(LOOKS_MAX) {
            put(Part::Refused(some.to_vec()))?;
        }
        put(Part::End(end))?;
        drop(copying);
        Ok(saved)
    }

    /// Copies the ends that a log has up to `at`. What comes behind it is decided by these.
    fn copy_ends(&self, at: u64, of: impl Fn(&State) -> &Ends) -> Vec<(Arc<str>, u64)> {
        let mut ends: Vec<(Arc<str>, u64)> = Vec::new();
        loop {
            let state = self.lock();
            let before = ends.len();
            let last = ends.last().map_or(0, |(_, number)| *number);
            let some = of(&state).of_copy(at, last).take(LOOKS_MAX);
            ends.extend(some.map(|(name, number)| (name.clone(), number)));
            drop(state);
            if ends.len() - before < LOOKS_MAX {
                return ends;
            }
            self.give_way();
        }
    }

    /// Copies a channel; `None` if it is gone.
    fn copy_channel(
        &self,
        key: ChannelKey,
        clock: WallClock,
    ) -> Option<(SavedChannel, Vec<Entry>)> {
        let (mut saved, mut entries) = (None, Vec::<Entry>::new());
        loop {
            let state = self.lock_served(&[key]);
            let channel = state.get(key)?;
            let name = channel.current_name()?;
            let saved = saved.get_or_insert_with(|| SavedChannel {
                through: state.sequence,
                ..saved_channel(name.clone(), channel, clock)
            });
            let after = entries.last().map_or(0, |last| last.sequence);
            let some = channel.log.after(after).take(LOOKS_MAX);
            let some = some.take_while(|entry| entry.sequence <= saved.through);
            let before = entries.len();
            entries.extend(some.map(|entry| clock.timed(entry)));
            if entries.len() - before < LOOKS_MAX {
                // What was evicted meanwhile may not have been copied before.
                let evicted = &mut saved.bounds.evicted;
                let now = channel.log.evicted();
                evicted.history = now.history.min(saved.bounds.head);
                evicted.keyed = now.keyed.min(saved.bounds.head);
                let evicted = *evicted;
                drop(state);
                entries.retain(|entry| match entry.has_key() {
                    true => entry.sequence > evicted.keyed,
                    false => entry.sequence > evicted.history,
                });
                break;
            }
            drop(state);
            self.give_way();
        }
        saved.map(|saved| (saved, entries))
    }

    /// Copies the own ids that are remembered of the events after a number, up to another.
    fn copy_own_ids(&self, after: u64, through: u64, clock: WallClock) -> OwnIds {
        let mut own_ids = OwnIds::new();
        loop {
            let state = self.lock();
            let before = own_ids.len();
            let last = own_ids.last().map_or(after, |(_, record)| record.sequence);
            let some = state.remembered.after(last).take(LOOKS_MAX);
            let some = some.take_while(|(_, record)| record.sequence <= through);
            own_ids.extend(some.map(|(key, record)| {
                let at_ms = match state.remembered.has_wall_times() {
                    true => record.at_ms,
                    false => clock.of(record.at_ms),
                };
                let record = record.clone();
                (key.clone(), IdRecord { at_ms, ..record })
            }));
            drop(state);
            if own_ids.len() - before < LOOKS_MAX {
                return own_ids;
            }
            self.give_way();
        }
    }

    /// Copies the idempotency keys that are remembered of the publishes after a number, up to
    /// another.
    fn copy_keys(&self, after: u64, through: u64, clock: WallClock) -> Keys {
        let mut keys = Keys::new();
        loop {
            let state = self.lock();
            let before = keys.len();
            let last = keys.last().map_or(after, |(_, record)| record.sequence);
            let some = state.keys.after(last).take(LOOKS_MAX);
            let some = some.take_while(|(_, record)| record.sequence <= through);
            keys.extend(some.map(|(id, record)| {
                let at_ms = match state.keys.has_wall_times() {
                    true => record.at_ms,
                    false => clock.of(record.at_ms),
                };
                (*id, KeyRecord { at_ms, ..*record })
            }));
            drop(state);
            if keys.len() - before < LOOKS_MAX {
                return keys;
            }
            self.give_way();
        }
    }

    /// Copies what is known of removed channels. Returns what comes last, and the finishes that
    /// were refused until then.
    fn copy_heads(
        &self,
        put: &mut impl FnMut(Part) -> io::Result<()>,
    ) -> io::Result<(End, Vec<u64>)> {
        let mut last: Option<(u64, Arc<str>)> = None;
        loop {
            let state = self.lock();
            let some = state.heads.after(last.as_ref()).take(LOOKS_MAX);
            let some: Vec<_> = some.cloned().collect();
            let is_all = some.len() < LOOKS_MAX;
            let (mut others, mut refused) = (Vec::new(), Vec::new());
            if is_all {
                others = state.heads.absent();
                refused = state.finishes.refused();
            }
            let end = End {
                sequence: state.sequence,
                removed_through: state.heads.removed_through(),
            };
            drop(state);
            last = some.last().cloned();
            let through = end.sequence;
            let absent = |(head, name)| (name, Absent { through, head });
            let some = some.into_iter().map(absent);
            put(Part::Heads(some.chain(others).collect()))?;
            if is_all {
                return Ok((end, refused));
            }
            self.give_way();
        }
    }
}

/// Records of own ids, by their keys.
type OwnIds = Vec<(Arc<str>, IdRecord)>;

/// Idempotency keys with their records.
type Keys = Vec<(KeyId, KeyRecord)>;

/// Passes keys on, some at a time.
fn put_keys(keys: Keys, put: &mut impl FnMut(Part) -> io::Result<()>) -> io::Result<()> {
    for some in keys.chunks(LOOKS_MAX) {
        put(Part::Keys(some.to_vec()))?;
    }
    Ok(())
}

/// Passes own ids on, some at a time.
fn put_own_ids(own_ids: OwnIds, put: &mut impl FnMut(Part) -> io::Result<()>) -> io::Result<()> {
    let mut own_ids = own_ids.into_iter();
    while own_ids.len() > 0 {
        put(Part::OwnIds(own_ids.by_ref().take(LOOKS_MAX).collect()))?;
    }
    Ok(())
}

/// Passes entries on, some at a time.
fn put_entries(
    entries: Vec<Entry>,
    put: &mut impl FnMut(Part) -> io::Result<()>,
) -> io::Result<()> {
    let (mut some, mut bytes) = (Vec::new(), 0);
    for entry in entries {
        bytes += entry.bytes();
        some.push(entry);
        if bytes >= ENTRIES_BYTES {
            put(Part::Entries(std::mem::take(&mut some)))?;
            bytes = 0;
        }
    }
    match some.is_empty() {
        true => Ok(()),
        false => put(Part::Entries(some)),
    }
}

/// Copies all of a channel but its entries.
fn saved_channel(name: Arc<str>, channel: &ChannelState, clock: WallClock) -> SavedChannel {
    SavedChannel {
        name,
        through: 0,
        bounds: channel.log.saved_bounds(),
        missing_keys: channel.log.keyed().missing(),
        counts: [
            channel.counts.published,
            channel.counts.delivered,
            channel.counts.gaps,
        ],
        finish: match channel.life {
            Life::Finishing(finish) => Some(Finish {
                until_ms: clock.of(finish.until_ms),
                ..finish
            }),
            Life::Open | Life::Over { .. } | Life::Closing => None,
        },
    }
}

fn saved_for_all(for_all: &ForAll, clock: WallClock) -> SavedForAll {
    let entries = for_all.after(0);
    let entries = entries.map(|held| (clock.timed(&held.entry), held.removes));
    SavedForAll {
        evicted_through: for_all.evicted_through(),
        entries: entries.collect(),
    }
}
