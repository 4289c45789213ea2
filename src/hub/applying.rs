//! Applying: what the log says, carried out in the hub.
//!
//! The invariant to remember: *what a record does to the channels depends on the log
//! alone*. No clock decides it but the block's time, no options, no limit, no member. So
//! every replay of a log makes the same histories, except for what is trimmed and swept,
//! and those only shorten.
//!
//! A record whose number a channel has reached already is skipped for that channel: a
//! snapshot may be ahead of the record at which its replay begins.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Hub;
use super::channel_state::Finish;
use super::client::{ClientId, DisconnectReason};
use super::clock::{Clock, as_ms};
use super::dropped::Dropped;
use super::for_all::NAME_OF_ALL;
use super::gap::{GAP_NAME, Gap, GapReason};
use super::held_wakes::{HeldWakes, Kind as Sleeping};
use super::id::EventId;
use super::idempotency::{record_of, repeated};
use super::key::ChannelKey;
use super::looks::LOOKS_MAX;
use super::options::{ChannelOptions, OptionsByName};
use super::own_ids::OwnIds;
use super::publish::Placing;
use super::published::{PublishError, Published};
use super::ready::Ready;
use super::remembered::ALL;
use super::spreading::PlacingInAll;
use super::state::{Removed, State};
use crate::frame::Frame;
use crate::journal::record::{Change, Options as RecordOptions, Record};
use crate::journal::terms::Jump;

/// Records that one locked section applies.
const RECORDS_MAX: usize = 64;

/// Events after which a locked section applies no further record.
const EVENTS_MAX: usize = 256;

/// The time of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockTime {
    /// In milliseconds since 1970.
    pub(super) wall_ms: u64,
    /// The same time of the hub's clock.
    pub(super) at_ms: u64,
}

impl BlockTime {
    /// Returns the time of the hub's clock for a later one since 1970.
    fn at_ms_of(self, wall_ms: u64) -> u64 {
        let later_ms = wall_ms.saturating_sub(self.wall_ms);
        self.at_ms.saturating_add(later_ms)
    }
}

/// What a node says to be lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct LostIn {
    /// The first number of the term in which it was lost.
    pub(super) term: u64,
    /// The newest number of it, 0 if that is not known.
    pub(super) had: u64,
    /// The number under which it is said.
    pub(super) said_at: u64,
}

/// What a record has done.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) id: Option<EventId>,
    pub(super) events: usize,
    pub(super) duplicates: usize,
    /// `None` if they are too many to be looked at under the lock.
    pub(super) clients: Option<usize>,
    /// Whether it is the result of an earlier record with its idempotency key.
    pub(super) is_repeated: bool,
}

impl From<Published> for Applied {
    fn from(published: Published) -> Applied {
        Applied {
            id: published.id,
            events: published.events,
            duplicates: published.duplicates,
            clients: Some(published.clients),
            is_repeated: published.is_repeated,
        }
    }
}

impl Applied {
    /// Returns the result for events that were all published before.
    fn repeated(id: EventId, count: usize) -> Applied {
        Applied {
            id: Some(id),
            events: 0,
            duplicates: count,
            clients: Some(0),
            is_repeated: false,
        }
    }
}

/// The outcome of a record. A record that is refused is in the log and changes nothing.
pub(super) type Outcome = Result<Applied, PublishError>;

/// A record with its numbers.
pub(super) struct Step {
    /// The first one.
    pub(super) number: u64,
    pub(super) last: u64,
    basis: u64,
    pub(super) change: Change,
    own_ids: Result<Option<Box<OwnIds>>, PublishError>,
    /// The gap of a loss in one channel.
    gap: Option<Ready>,
    lost_in: Option<LostIn>,
}

impl Step {
    /// Returns the name of the channel to which it adds something, if it is one.
    fn channel(&self) -> Option<Arc<str>> {
        match &self.change {
            Change::Publish { channel, .. } | Change::Finish { channel, .. } => {
                Some(channel.clone())
            }
            Change::LostIn { channel, .. } => channel.clone(),
            _ => None,
        }
    }

    /// What only some publishes have.
    fn options(&self) -> RecordOptions {
        match &self.change {
            Change::Publish { options, .. } | Change::PublishAll { options, .. } => *options,
            _ => RecordOptions::default(),
        }
    }

    /// Returns the number behind which the channel that this makes may have begun, if it may
    /// have had events before.
    pub(super) fn makes_after(&self, state: &State, name: &str) -> Option<u64> {
        match self.removal_since(state, name) {
            // What it says is of the channel that was removed. The program may have opened
            // the next one any time since then.
            Some(removal) if self.lost_in.is_none() => Some(removal),
            _ => self.begins_after(name),
        }
    }

    /// Returns the number behind which the log of a channel begins, if it says so.
    fn begins_after(&self, name: &str) -> Option<u64> {
        match &self.change {
            Change::PublishTo { channels, .. } => {
                let mut channels = channels.iter();
                channels
                    .find(|channel| *channel.name == *name)?
                    .begins_after
            }
            Change::Finish { begins_after, .. } => *begins_after,
            _ => self.options().begins_after,
        }
    }

    fn is_for_all(&self) -> bool {
        matches!(
            self.change,
            Change::PublishAll { .. } | Change::Lost { .. } | Change::LostIn { channel: None, .. }
        )
    }

    pub(super) fn events(&mut self) -> &mut [Ready] {
        match &mut self.change {
            Change::Publish { events, .. }
            | Change::PublishTo { events, .. }
            | Change::PublishAll { events, .. } => events,
            Change::Finish { last, .. } => last.as_mut_slice(),
            Change::LostIn { .. } => self.gap.as_mut_slice(),
            _ => &mut [],
        }
    }

    /// Returns whether it was proposed before the end of a channel came into the log. This
    /// depends on the log alone, whatever the channel has already.
    pub(super) fn is_after_finish(&self, state: &State, name: &str) -> bool {
        let finish = state.finishes.before(name, self.number);
        finish.is_some_and(|finish| self.basis < finish)
    }

    /// Returns the removal of a name that came into the log after this was proposed.
    fn removal_since(&self, state: &State, name: &str) -> Option<u64> {
        let removal = state.removals.before(name, self.number);
        removal.filter(|removal| self.basis < *removal)
    }

    /// Returns whether a name was removed after this was proposed for its channel.
    pub(super) fn is_for_removed(&self, state: &State, name: &str) -> bool {
        self.removal_since(state, name).is_some()
    }
}

/// What a step needs that is not made under the lock.
pub(super) enum Lacks {
    /// The options of a channel that is to be made.
    Options(Arc<str>),
    /// The packed frames of events, from this size on.
    Packed(usize),
}

/// What a record finds under the name of its channel.
pub(super) enum Found {
    /// The channel, which is open.
    Open(ChannelKey),
    /// One that has the record already.
    Applied,
    /// One that was finished before the record, which was proposed without that knowledge.
    Finished,
    /// The record is for a channel that was removed before.
    Removed,
}

/// Options of channels that are made, by name.
pub(super) struct Options {
    by_name: OptionsByName,
    pub(super) found: HashMap<Arc<str>, Arc<ChannelOptions>>,
    pub(super) made: Vec<(Arc<str>, ChannelKey)>,
}

impl Hub {
    /// Applies the records of a block, in their order. `first` is the number of the first
    /// one. Passes each outcome on, with nothing locked.
    pub(super) fn apply<T>(
        &self,
        first: u64,
        time: BlockTime,
        records: impl IntoIterator<Item = (Record, T)>,
        mut report: impl FnMut(T, Outcome),
    ) {
        let mut options = Options {
            by_name: self.options_by_name(),
            found: HashMap::new(),
            made: Vec::new(),
        };
        let mut number = first;
        let steps = records.into_iter().map(|(record, waiting)| {
            let step = self.step(number, record);
            number += step.change.width();
            (step, waiting)
        });
        let mut steps = steps.peekable();
        while steps.peek().is_some() {
            let count = steps.size_hint().0.min(RECORDS_MAX);
            let (mut slice, mut events) = (VecDeque::with_capacity(count), 0);
            while slice.len() < RECORDS_MAX
                && events < EVENTS_MAX
                && let Some((step, waiting)) = steps.next_if(|(step, _)| !step.is_for_all())
            {
                events += step.change.entries().max(1);
                slice.push_back((step, waiting));
            }
            self.apply_slice(slice, events, time, &mut options, &mut report);
            while let Some((step, waiting)) = steps.next_if(|(step, _)| step.is_for_all()) {
                report(waiting, self.apply_to_all(step, time));
            }
        }
    }

    /// Applies a record that concerns all channels.
    fn apply_to_all(&self, step: Step, time: BlockTime) -> Outcome {
        let (audience, events, options) = match step.change {
            Change::Lost { after } => {
                let first = step.number;
                self.lock().terms.note(Jump { after, first });
                (None, vec![self.lost(first)], RecordOptions::default())
            }
            Change::LostIn { .. } => (
                None,
                step.gap.into_iter().collect(),
                RecordOptions::default(),
            ),
            Change::PublishAll {
                audience,
                events,
                options,
            } => (audience, events, options),
            _ => unreachable!("it concerns one channel"),
        };
        let history = options_of(&self.options_by_name(), NAME_OF_ALL).history;
        let (mut state, packed) = self.lock_for_all(&events);
        state.begin_block(time.wall_ms);
        let is_applied = step.last <= state.for_all.head();
        state.sequence = state.sequence.max(step.last);
        if let Some(keyed) = options.keyed
            && let Some(first) = repeated(&state.keys, keyed, time.wall_ms, &events, &self.ids)?
        {
            return Ok(first.into());
        }
        let mut own_ids = step.own_ids?;
        if is_applied {
            state.remembered.catch_up(step.last);
            state.keys.catch_up(step.last);
            return Ok(Applied::default());
        }
        if let Some(lost) = step.lost_in
            && !state.note_loss(ALL, lost, time)
        {
            return Ok(Applied::default());
        }
        let count = events.len();
        if let Some(own_ids) = &mut own_ids {
            own_ids.find_repetitions(&state.remembered, ALL, time.wall_ms)?;
            if let Some(id) = own_ids.last_if_all_are_repeated(&events)
                && options.keyed.is_none()
            {
                return Ok(Applied::repeated(id, count));
            }
        }
        let duplicates = own_ids.as_ref().map_or(0, |own_ids| own_ids.duplicates());
        if let Some(keyed) = options.keyed {
            // In the section that gives the numbers, so that no copy comes between. The
            // streams are counted later.
            let record = record_of(keyed, step.last, time.wall_ms, count - duplicates, 0);
            state.keys.insert(keyed.id, record);
        }
        let placing = PlacingInAll {
            own_ids: own_ids.as_deref(),
            audience: audience.as_ref(),
            at_us: time.at_ms.saturating_mul(1000),
            history,
            lost_in: step.lost_in.map(|lost| lost.term),
        };
        let number = |_: &mut State, index: usize| step.number + index as u64;
        let events = events.into_iter().zip(packed);
        let placed = self.place_in_all(state, placing, events, number);
        Ok(Applied {
            id: Some(placed.last),
            events: count - placed.duplicates,
            duplicates: placed.duplicates,
            clients: audience.is_none().then_some(placed.streams),
            is_repeated: false,
        })
    }

    /// Returns the gap that clients receive in the place where events may be lost.
    fn lost(&self, number: u64) -> Ready {
        let newest = self.ids.id_of(number);
        let id = newest.text();
        let gap = Gap {
            requested: None,
            oldest: None,
            newest,
            reason: GapReason::Lost,
        };
        Ready {
            frame: Frame::internal(GAP_NAME, Some(&id), None, &gap.to_string()),
            is_sequenced: false,
            removes: false,
            attributes: None,
        }
    }

    /// Applies records as a log has them that begins with them.
    #[cfg(feature = "internals")]
    pub(crate) fn apply_first(&self, records: Vec<Record>) {
        let time = BlockTime {
            wall_ms: 0,
            at_ms: self.clock.now_ms(),
        };
        let records = records.into_iter().map(|record| (record, ()));
        self.apply(1, time, records, |(), _| {});
    }

    fn step(&self, number: u64, record: Record) -> Step {
        let Record { basis, change } = record;
        let own_ids = match &change {
            Change::Publish {
                audience, events, ..
            }
            | Change::PublishAll {
                audience, events, ..
            } => OwnIds::of(events, audience.as_deref(), &self.ids),
            Change::Finish { last, .. } => OwnIds::of(last.as_slice(), None, &self.ids),
            _ => Ok(None),
        };
        let lost_in = match &change {
            Change::LostIn { term, .. } => Some(LostIn {
                term: *term,
                had: basis,
                said_at: number,
            }),
            _ => None,
        };
        Step {
            number,
            last: number + change.width() - 1,
            // A loss does not make a finished channel again.
            basis: if lost_in.is_some() { 0 } else { basis },
            change,
            own_ids,
            gap: lost_in.map(|_| self.lost(number)),
            lost_in,
        }
    }

    /// Applies steps in as few locked sections as possible.
    fn apply_slice<T>(
        &self,
        mut slice: VecDeque<(Step, T)>,
        events: usize,
        time: BlockTime,
        options: &mut Options,
        report: &mut impl FnMut(T, Outcome),
    ) {
        let mut outcomes = Vec::with_capacity(slice.len());
        while !slice.is_empty() {
            let mut removed = Removed::new();
            removed.entries = Dropped::for_batch(events);
            let now_us = self.clock.now_us();
            let mut lacks = None;
            let mut looks = 0;
            let mut state = self.lock();
            state.begin_block(time.wall_ms);
            state.allow_batch(events);
            // A channel that is made may begin with many events for all channels.
            while options.made.is_empty()
                && let Some((step, _)) = slice.front_mut()
            {
                let before = looks;
                looks += looks_for_clients(&state, &step.change);
                if before > 0 && looks > LOOKS_MAX {
                    break;
                }
                match self.apply_step(&mut state, step, time, now_us, options, &mut removed) {
                    Ok(outcome) => {
                        state.sequence = state.sequence.max(step.last);
                        let done = slice.pop_front();
                        outcomes.extend(done.map(|(_, waiting)| (waiting, outcome)));
                    }
                    Err(needed) => {
                        lacks = Some(needed);
                        break;
                    }
                }
            }
            drop(state);
            self.finish_removals(removed);
            for (name, key) in options.made.drain(..) {
                self.keep_current(&name, key, options.by_name.clone());
            }
            let held = HeldWakes::begin(&[Sleeping::Journal, Sleeping::Reactor]);
            for (waiting, outcome) in outcomes.drain(..) {
                report(waiting, outcome);
            }
            drop(held);
            match lacks {
                Some(Lacks::Options(name)) => {
                    let made = Arc::new(options_of(&options.by_name, &name));
                    options.found.insert(name, made);
                }
                Some(Lacks::Packed(bytes)) => {
                    if let Some((step, _)) = slice.front_mut() {
                        step.events().iter_mut().for_each(|ready| ready.pack(bytes));
                    }
                }
                None => {}
            }
            self.give_way();
        }
    }

    fn apply_step(
        &self,
        state: &mut State,
        step: &mut Step,
        time: BlockTime,
        now_us: u64,
        options: &mut Options,
        removed: &mut Removed,
    ) -> Result<Outcome, Lacks> {
        if let Change::PublishTo { .. } = step.change {
            return self.apply_to_each(state, step, (time, now_us), options, removed);
        }
        let Some(name) = step.channel() else {
            return Ok(Ok(self.apply_beside(state, step, now_us, removed)));
        };
        // Whatever has become of the channel since.
        if let Some(keyed) = step.options().keyed {
            match repeated(&state.keys, keyed, time.wall_ms, step.events(), &self.ids) {
                Ok(None) => {}
                Ok(Some(first)) => return Ok(Ok(first.into())),
                Err(error) => return Ok(Err(error)),
            }
        }
        let found = self.find_for(state, &name, step, now_us, options, removed)?;
        if !matches!(found, Found::Open(_)) {
            // A copy knows the ids of what it has, also where its channel is gone.
            state.remembered.catch_up(step.last);
            state.keys.catch_up(step.last);
        }
        let key = match found {
            Found::Open(key) => key,
            Found::Applied => return Ok(Ok(Applied::default())),
            Found::Finished => return Ok(Err(PublishError::Finished)),
            Found::Removed => return Ok(Err(PublishError::Closed)),
        };
        let channel = state.get_mut(key).expect("it was just found");
        channel.is_recorded = true;
        if let Some(bytes) = channel.options.compress_from
            && step.events().iter().any(|ready| !ready.is_packed())
        {
            return Err(Lacks::Packed(bytes));
        }
        if let Err(outcome) = self.decide(state, key, &name, step, time) {
            if finish_of(&step.change).is_some() {
                state.finishes.note_refused(step.last);
            }
            return Ok(outcome);
        }
        let dropped = &mut removed.entries;
        let applied = self.place_step(state, key, step, time, dropped);
        if let Some(until_ms) = finish_of(&step.change) {
            // The wall clock may have been set since it was proposed.
            let channel = state.get(key).expect("it was just found");
            let finished_for = as_ms(channel.options.finished_for);
            let latest_ms = time.at_ms.saturating_add(finished_for);
            let finish = Finish {
                through: step.last,
                until_ms: time.at_ms_of(until_ms).min(latest_ms),
            };
            state.finish(key, finish);
            state.finishes.insert(name, step.last);
        }
        state.note_published(key);
        state.shrink(Some(key), dropped);
        removed.wake.merge(state.mark_dirty(key, now_us));
        Ok(Ok(applied))
    }

    /// Applies a record that adds nothing to a channel.
    fn apply_beside(
        &self,
        state: &mut State,
        step: &Step,
        now_us: u64,
        removed: &mut Removed,
    ) -> Applied {
        let clients = match &step.change {
            Change::Remove { channel } => Some(remove(state, channel, step, removed)),
            Change::Kick { channel, client } => {
                let now = (now_us / 1000, &self.clock);
                Some(kick(state, channel, client, now, removed))
            }
            _ => None,
        };
        Applied {
            clients,
            ..Applied::default()
        }
    }

    /// Decides whether a record adds anything to the channel that it has found.
    ///
    /// # Errors
    /// When it does not: its outcome.
    fn decide(
        &self,
        state: &mut State,
        key: ChannelKey,
        name: &str,
        step: &mut Step,
        time: BlockTime,
    ) -> Result<(), Outcome> {
        let options = step.options();
        let own_ids = step.own_ids.as_mut().map_err(|error| Err(error.clone()))?;
        if let Some(own_ids) = own_ids {
            let found = own_ids.find_repetitions(&state.remembered, name, time.wall_ms);
            found.map_err(Err)?;
        }
        if let Some(lost) = step.lost_in
            && !state.note_loss(name, lost, time)
        {
            return Err(Ok(Applied::default()));
        }
        let channel = state.get(key).expect("it was just found");
        if options.is_conditional && channel.log.head() > step.basis {
            let newest = state.newest_id(channel, &self.ids);
            return Err(Err(PublishError::NotNewest { newest }));
        }
        if let (Ok(Some(own_ids)), Change::Publish { events, .. }) = (&step.own_ids, &step.change)
            && let Some(id) = own_ids.last_if_all_are_repeated(events)
            && options.keyed.is_none()
            && !options.is_conditional
            && options.finish_until_ms.is_none()
        {
            return Err(Ok(Applied::repeated(id, events.len())));
        }
        Ok(())
    }

    /// Adds the events of a record to its channel.
    fn place_step(
        &self,
        state: &mut State,
        key: ChannelKey,
        step: &mut Step,
        time: BlockTime,
        dropped: &mut Dropped,
    ) -> Applied {
        let keyed = step.options().keyed;
        let (number, last) = (step.number, step.last);
        let own_ids = step.own_ids.as_ref().ok().and_then(Option::as_deref);
        let channel = state.get(key).expect("it was just found");
        let mut clients = Some(channel.members.len());
        let (events, audience) = match &mut step.change {
            Change::Publish {
                audience, events, ..
            } => {
                if let Some(audience) = audience {
                    clients = channel.matched(audience).map(|matched| matched.count);
                }
                (std::mem::take(events), audience.as_ref())
            }
            Change::Finish { last, .. } => (last.take().into_iter().collect(), None),
            _ => (step.gap.take().into_iter().collect(), None),
        };
        let count = events.len();
        let placing = Placing {
            key,
            own_ids,
            audience,
            at_ms: time.at_ms,
        };
        let number = |_: &mut State, index: usize| number + index as u64;
        let id = self.place(state, placing, events, number, dropped);
        if !matches!(step.change, Change::Publish { .. }) {
            return Applied {
                id,
                clients,
                ..Applied::default()
            };
        }
        let duplicates = own_ids.map_or(0, OwnIds::duplicates);
        let events = count - duplicates;
        if let Some(keyed) = keyed {
            let clients = clients.unwrap_or_default();
            let record = record_of(keyed, last, time.wall_ms, events, clients);
            state.keys.insert(keyed.id, record);
        }
        Applied {
            id: id.or_else(|| Some(self.ids.id_of(last))),
            events,
            duplicates,
            clients,
            is_repeated: false,
        }
    }
}

/// Returns the options of a name. The program's code must not end the thread that appends.
fn options_of(by_name: &OptionsByName, name: &str) -> ChannelOptions {
    catch_unwind(AssertUnwindSafe(|| by_name.of(name))).unwrap_or_else(|_| {
        ::log::error!("the function for the options of channels has panicked");
        ChannelOptions::new()
    })
}

/// Returns how many members are looked at to count those that events are for.
fn looks_for_clients(state: &State, change: &Change) -> usize {
    let Change::Publish {
        channel,
        audience: Some(audience),
        ..
    } = change
    else {
        return 0;
    };
    let channel = state.names.get(channel).and_then(|key| state.get(*key));
    let looks = channel.map_or(0, |channel| channel.members.looks(audience));
    // More of them are not counted under the lock.
    if looks <= LOOKS_MAX { looks } else { 0 }
}

/// Begins to remove a channel. Returns the number of its clients.
///
/// One that was proposed for a channel before is not for the channel that has its name now.
fn remove(state: &mut State, name: &Arc<str>, step: &Step, removed: &mut Removed) -> usize {
    let number = step.number;
    // A copy has to know that this record has taken the name.
    state.sequence = state.sequence.max(number);
    if step.is_for_removed(state, name) {
        return 0;
    }
    state.finishes.end(name, number);
    state.removals.insert(name.clone(), number);
    let Some(key) = state.names.get(name).copied() else {
        if !state.heads.is_over(name, number) {
            // A channel that a program opens is in no record. Its place would be behind the
            // events for all channels.
            let head = state.take_head(name).max(state.for_all.head());
            state.note_absent(name, head);
            state.keep_head(name.clone(), head);
        }
        return 0;
    };
    let channel = state.get(key).expect("names lead to channels");
    if number <= channel.through() {
        return 0;
    }
    let clients = channel.members.len();
    state.start_removal(key, DisconnectReason::ChannelClosed);
    removed.closing.push(key);
    clients
}

/// Returns until when a channel is finished by a change, in milliseconds since 1970.
pub(super) fn finish_of(change: &Change) -> Option<u64> {
    match change {
        Change::Publish { options, .. } => options.finish_until_ms,
        Change::Finish { until_ms, .. } => Some(*until_ms),
        _ => None,
    }
}

/// Disconnects a client of a channel, if it is there. Returns the number of clients that are
/// gone.
fn kick(
    state: &mut State,
    name: &str,
    client: &ClientId,
    now: (u64, &Clock),
    removed: &mut Removed,
) -> usize {
    let Some(key) = state.names.get(name).copied() else {
        return 0;
    };
    usize::from(state.disconnect(key, client, DisconnectReason::Kicked, now, removed))
}
