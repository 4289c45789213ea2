//! Builds a hub from the parts of a saved state, as they are read.
//!
//! No more of the state is held than the hub is to keep: after each part the channel's
//! options and the bound on all histories are applied.
//!
//! What is read is not trusted. An error leaves nothing behind.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::RestoreError;
use super::parts::{Begin, End, Part, SavedChannel, SavedForAll};
use crate::frame::Frame;
use crate::hub::channel_state::{Counts, Finish, Kind, Life};
use crate::hub::clock::Clock;
use crate::hub::dropped::Dropped;
use crate::hub::entry::{Attributes, Entry};
use crate::hub::for_all::{ForAll, Held};
use crate::hub::heads::{Absent, Heads};
use crate::hub::idempotency::{KeyId, KeyRecord};
use crate::hub::ids::Ids;
use crate::hub::key::ChannelKey;
use crate::hub::log::{Log, SavedBounds};
use crate::hub::losses::term_of;
use crate::hub::names::check_name;
use crate::hub::options::ChannelOptions;
use crate::hub::remembered::{ALL, IdRecord, parts_of};
use crate::hub::retention::History;
use crate::hub::state::{Settings, State};
use crate::journal::bytes::{Damaged, ensure};
use crate::journal::terms::Terms;

/// An event that is older counts as this old: the engine's clock must not
/// begin too late. One year.
const AGE_MAX_MS: u64 = 365 * 24 * 3_600_000;

/// No sequence number is higher: there is always a next one.
const SEQUENCE_MAX: u64 = u64::MAX >> 1;

/// The state that has been read so far.
pub(super) struct Restoring<F> {
    state: State,
    origin: Origin,
    /// What is kept of the events for all channels.
    for_all: History,
    /// The options of a channel by its name.
    options: F,
    begin: Begin,
    clock: Clock,
    /// The clock's time and the wall clock's when it began.
    now_ms: u64,
    wall_ms: u64,
    channel: Option<Opened>,
    heads: HashMap<Arc<str>, Absent>,
    /// The number of the last own id.
    last_own_id: u64,
    /// The number of the last idempotency key.
    last_key: u64,
    /// The highest number that is named.
    newest: u64,
}

/// The channel whose entries are read.
struct Opened {
    key: ChannelKey,
    options: Arc<ChannelOptions>,
    bounds: SavedBounds,
    missing_keys: (Vec<Arc<str>>, bool),
    /// The number of the last entry.
    last: u64,
}

impl<F: FnMut(&str) -> ChannelOptions> Restoring<F> {
    /// Begins with the first part. `clock` is any clock of the source that the new one is to
    /// have, and `for_all` is what is kept of the events for all channels.
    ///
    /// # Errors
    /// When it is another one, or has more channels than there may be.
    pub(super) fn new(
        first: Part,
        clock: &Clock,
        settings: Settings,
        origin: Origin,
        for_all: History,
        options: F,
    ) -> Result<Restoring<F>, RestoreError> {
        let Part::Begin(begin) = first else {
            return Err(Damaged("it does not begin").into());
        };
        let (found, max) = (begin.channels, settings.channels_max);
        let mut oldest_ms = begin.oldest_ms;
        match origin {
            Origin::State if found > max => {
                return Err(RestoreError::TooManyChannels { found, max });
            }
            Origin::State | Origin::Cluster => {}
            Origin::Log { older_ms } => oldest_ms = oldest_ms.min(older_ms.unwrap_or(u64::MAX)),
        }
        let wall_ms = clock.read_wall_ms();
        let clock = match origin {
            Origin::Cluster => clock.clone(),
            Origin::State | Origin::Log { .. } => clock.of_history_since(oldest_ms),
        };
        let mut state = State::new(settings);
        state.terms = Terms::default();
        for jump in &begin.jumps {
            state.terms.note(*jump);
        }
        Ok(Restoring {
            state,
            origin,
            for_all,
            options,
            now_ms: clock.now_ms(),
            wall_ms,
            clock,
            channel: None,
            heads: HashMap::new(),
            last_own_id: 0,
            last_key: 0,
            newest: begin.at,
            begin,
        })
    }

    /// Adds the next part. Returns whether it was the last.
    ///
    /// # Errors
    /// When no hub has such a part there.
    pub(super) fn add(&mut self, part: Part) -> Result<bool, RestoreError> {
        if !matches!(part, Part::Entries(_)) {
            self.close_channel();
        }
        match part {
            Part::Begin(_) => Err(Damaged("it begins twice"))?,
            Part::Unknown(through) => {
                self.note_number(through)?;
                self.state.unknown_through = through;
            }
            Part::ForAll(for_all) => self.add_for_all(for_all)?,
            Part::Finishes(finishes) => {
                for (name, number) in finishes {
                    self.note_number(number)?;
                    self.state.finishes.insert(name, number);
                }
            }
            Part::Removals(removals) => {
                for (name, number) in removals {
                    self.note_number(number)?;
                    self.state.removals.insert(name, number);
                }
            }
            Part::Channel(channel) => self.open_channel(*channel)?,
            Part::Entries(entries) => self.add_entries(entries)?,
            Part::OwnIds(records) => self.add_own_ids(records)?,
            Part::Keys(keys) => self.add_keys(keys)?,
            Part::Heads(heads) => self.add_heads(heads)?,
            Part::Refused(numbers) => {
                for number in numbers {
                    self.note_number(number)?;
                    self.state.finishes.restore_refused(number);
                }
            }
            Part::End(end) => {
                self.end(&end)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the bytes of all histories.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.state.memory.bytes()
    }

    fn note_number(&mut self, number: u64) -> Result<(), Damaged> {
        self.newest = self.newest.max(number);
        ensure(number <= SEQUENCE_MAX, "its sequence is at its end")
    }

    fn at_ms_of(&self, wall_ms: u64) -> u64 {
        let ago_ms = self.wall_ms.saturating_sub(wall_ms);
        self.now_ms.saturating_sub(ago_ms)
    }

    fn add_for_all(&mut self, for_all: SavedForAll) -> Result<(), RestoreError> {
        let SavedForAll {
            evicted_through,
            entries,
        } = for_all;
        self.note_number(evicted_through)?;
        let mut last = evicted_through;
        let mut held = Vec::new();
        for (entry, removes) in entries {
            ensure(entry.sequence > last, "events are out of order")?;
            last = entry.sequence;
            held.push(Held {
                entry: Entry {
                    at_ms: self.at_ms_of(entry.at_ms),
                    ..entry
                },
                packed: None,
                removes,
                lost_in: None,
            });
        }
        self.note_number(last)?;
        self.state.for_all = ForAll::restored(self.for_all, evicted_through, held);
        Ok(())
    }

    fn open_channel(&mut self, saved: SavedChannel) -> Result<(), RestoreError> {
        ensure(
            check_name(&saved.name).is_ok(),
            "no channel has such a name",
        )?;
        let is_new = !self.state.names.contains_key(&saved.name);
        ensure(is_new, "a channel comes twice")?;
        let is_counted = self.state.names.len() < self.begin.channels;
        ensure(is_counted, "there are too many channels")?;
        let SavedBounds { head, evicted, .. } = saved.bounds;
        let are_ordered = saved.bounds.began_after <= evicted.history.min(evicted.keyed)
            && !evicted.is_loss(head, head)
            && head <= saved.through;
        ensure(are_ordered, "a log ends before it begins")?;
        self.note_number(saved.through)?;
        // Counters go on counting; these would not be reached in any life.
        let can_count = saved.counts.iter().all(|count| *count <= SEQUENCE_MAX);
        ensure(can_count, "a count is at its end")?;
        if let Some(finish) = saved.finish {
            let is_past = finish.through <= saved.through;
            ensure(is_past, "a channel ends after an event to come")?;
        }
        let options = Arc::new((self.options)(&saved.name));
        let kind = Kind::Named(saved.name);
        let key = self.state.insert(kind, options.clone(), self.now_ms);
        let channel = self.state.get_mut(key).expect("it was just made");
        channel.log = Log::restored(saved.bounds);
        channel.restored_through = saved.through;
        if let Some(finish) = saved.finish {
            let left_ms = u128::from(finish.until_ms.saturating_sub(self.wall_ms));
            // The wall clock may have been set: no longer than ever.
            let left_ms = left_ms.min(options.finished_for.as_millis());
            let left_ms = u64::try_from(left_ms).unwrap_or(u64::MAX);
            channel.life = Life::Finishing(Finish {
                until_ms: self.now_ms.saturating_add(left_ms),
                ..finish
            });
        }
        let [published, delivered, gaps] = saved.counts;
        channel.counts = Counts {
            published,
            delivered,
            gaps,
        };
        self.channel = Some(Opened {
            key,
            options,
            bounds: saved.bounds,
            missing_keys: saved.missing_keys,
            last: 0,
        });
        Ok(())
    }

    fn add_entries(&mut self, entries: Vec<Entry>) -> Result<(), RestoreError> {
        let (now_ms, wall_ms) = (self.now_ms, self.wall_ms);
        let Some(opened) = &mut self.channel else {
            return Err(Damaged("events have no channel").into());
        };
        let Some(channel) = self.state.get_mut(opened.key) else {
            return Ok(());
        };
        for entry in entries {
            let is_next = entry.sequence > opened.last && entry.sequence <= opened.bounds.head;
            ensure(is_next, "events are out of order")?;
            let is_evicted = entry.has_key() && entry.sequence <= opened.bounds.evicted.keyed;
            ensure(!is_evicted, "an event is there that was evicted")?;
            opened.last = entry.sequence;
            let ago_ms = wall_ms.saturating_sub(entry.at_ms);
            let entry = Entry {
                at_ms: now_ms.saturating_sub(ago_ms),
                attributes: fitting(entry.attributes, &entry.frame, &opened.options),
                ..entry
            };
            channel.log.append(entry, &mut Dropped::new());
        }
        while channel.trim(now_ms, &mut Dropped::new()) {}
        let key = opened.key;
        self.note_appended(key);
        Ok(())
    }

    /// Has the memory of all channels be as if the channel had been published to.
    fn note_appended(&mut self, key: ChannelKey) {
        self.state.note_appended(key);
        let channel = self.state.get(key);
        if channel.is_some_and(|channel| !channel.life.is_open()) {
            self.state.memory.note_finished(key.slot);
        }
        while self.state.memory.excess() > 0 {
            let before = self.state.memory.bytes();
            self.state.shrink(None, &mut Dropped::new());
            if self.state.memory.bytes() == before {
                break;
            }
        }
    }

    /// Completes the channel whose entries were read.
    fn close_channel(&mut self) {
        let Some(opened) = self.channel.take() else {
            return;
        };
        if let Some(channel) = self.state.get_mut(opened.key) {
            channel.log.note_head(opened.bounds.head);
            if opened.options.conflates() {
                let (missing, has_more) = opened.missing_keys;
                channel.log.keyed_mut().restore_missing(missing, has_more);
            }
            while channel.trim(self.now_ms, &mut Dropped::new()) {}
        }
        self.note_appended(opened.key);
    }

    fn add_own_ids(&mut self, records: Vec<(Arc<str>, IdRecord)>) -> Result<(), Damaged> {
        for (key, record) in records {
            let (scope, id) = parts_of(&key).ok_or(Damaged("an id is of no channel"))?;
            ensure(record.sequence > self.last_own_id, "ids are out of order")?;
            self.last_own_id = record.sequence;
            self.note_number(record.sequence)?;
            if let Some(term) = term_of(id) {
                // It is the id of no event.
                if scope == ALL {
                    self.state.for_all.note_loss(record.sequence, term);
                }
            } else if let Some(channel) = self.state.names.get(scope).copied()
                && let Some(channel) = self.state.get_mut(channel)
            {
                let (sequence, is_doubtful) = (record.sequence, record.is_doubtful);
                channel.log.note_own_id(&id.into(), sequence, is_doubtful);
            }
            let at_ms = match self.origin {
                Origin::State => self.at_ms_of(record.at_ms),
                Origin::Log { .. } | Origin::Cluster => record.at_ms,
            };
            let record = IdRecord { at_ms, ..record };
            match record.sequence <= self.begin.at {
                true => self.state.remembered.insert(key, record),
                false => self.state.remembered.insert_ahead(key, record),
            }
        }
        Ok(())
    }

    fn add_keys(&mut self, keys: Vec<(KeyId, KeyRecord)>) -> Result<(), Damaged> {
        for (id, record) in keys {
            ensure(record.sequence > self.last_key, "keys are out of order")?;
            self.last_key = record.sequence;
            self.note_number(record.sequence)?;
            let at_ms = match self.origin {
                Origin::State => self.at_ms_of(record.at_ms),
                Origin::Log { .. } | Origin::Cluster => record.at_ms,
            };
            let record = KeyRecord { at_ms, ..record };
            match record.sequence <= self.begin.at {
                true => self.state.keys.insert(id, record),
                false => self.state.keys.insert_ahead(id, record),
            }
        }
        Ok(())
    }

    fn add_heads(&mut self, heads: Vec<(Arc<str>, Absent)>) -> Result<(), Damaged> {
        for (name, absent) in heads {
            ensure(check_name(&name).is_ok(), "no channel has such a name")?;
            let is_past = absent.head <= absent.through;
            ensure(is_past, "a removed channel ends after an event to come")?;
            self.note_number(absent.through)?;
            let known = self.heads.entry(name).or_insert(absent);
            if known.through < absent.through {
                *known = absent;
            }
        }
        Ok(())
    }

    fn end(&mut self, end: &End) -> Result<(), Damaged> {
        self.note_number(end.removed_through)?;
        let is_newest = self.newest <= end.sequence && end.sequence <= SEQUENCE_MAX;
        ensure(is_newest, "an event is to come")?;
        let log_bytes_max = self.state.settings.log_bytes_max;
        self.state.heads = Heads::new(end.removed_through, log_bytes_max);
        for (name, absent) in self.heads.drain() {
            // One that was removed when it had been copied has its head in its log.
            if !self.state.names.contains_key(&name) {
                self.state.heads.restore(name, absent);
            }
        }
        self.state.memory.count_heads(self.state.heads.bytes());
        self.state.shrink(None, &mut Dropped::new());
        self.state.sequence = end.sequence;
        Ok(())
    }

    /// Returns what was restored, after the last part.
    pub(super) fn into_restored(self) -> Restored {
        Restored {
            ids: self.begin.ids,
            clock: self.clock,
            state: self.state,
            at: self.begin.at,
        }
    }
}

/// Where a saved state is from.
#[derive(Clone, Copy, Debug)]
pub(in crate::hub) enum Origin {
    /// It is all that there is.
    State,
    /// A log goes on behind it, whose oldest event has this time, in milliseconds since
    /// 1970. A log may name more channels than there may be at a time: those that are not in
    /// use are removed after the replay. Times of own ids stay those of the log.
    Log { older_ms: Option<u64> },
    /// The same for the log of a cluster, and a clock that there is: that of the hub whose
    /// content it is to be.
    Cluster,
}

/// What a hub goes on with.
pub(in crate::hub) struct Restored {
    pub(in crate::hub) ids: Ids,
    pub(in crate::hub) clock: Clock,
    pub(in crate::hub) state: State,
    /// Everything up to this number is in the state. A log that goes on behind it is to be
    /// applied from there; channels that have more of it skip that.
    pub(in crate::hub) at: u64,
}

impl Clock {
    /// Returns a clock of the same source for a history whose oldest event has this time, in
    /// milliseconds since 1970.
    pub(in crate::hub) fn of_history_since(&self, oldest_ms: u64) -> Clock {
        let ago_ms = self.read_wall_ms().saturating_sub(oldest_ms);
        self.begun_ago(ago_ms.min(AGE_MAX_MS))
    }
}

/// What of an entry's attributes fits the options of today.
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
