//! Proposing: a change is decided by this process, and is in the log before it is in the
//! hub.
//!
//! What is decided here is what a record does not say: rights, sizes, rates and what this
//! process knows of the channel. Then the record waits for its place in the log
//! ([`journaling`](super::journaling)), and is [applied](super::applying) there.
//!
//! ```text
//!  publisher ── check, encode ──► proposals ──► log: append a block ──► Hub::apply ──► outcome
//! ```
//!
//! A thread that may wait does so until its outcome comes. A thread of an engine never
//! waits: its changes are in order with what it has proposed before.

use std::sync::Arc;

use super::Hub;
use super::audience::Audience;
use super::channel_state::{ChannelState, Matched};
use super::client::{ClientId, DisconnectReason};
use super::clock::as_ms;
use super::engine_thread::EngineThread;
use super::for_all::NAME_OF_ALL;
use super::id::EventId;
use super::idempotency::{IdempotencyKey, Keyed, repeated};
use super::key::ChannelKey;
use super::own_ids::OwnIds;
use super::proposals::{RETRY_AFTER, Then, Waiting};
use super::publish_options::Demands;
use super::published::{PublishError, Published};
use super::ready::Ready;
use super::remembered::ALL;
use super::target::Target;
use crate::journal::record::{Change, Options, Record};

/// What is decided about a change.
pub(super) enum Decided {
    /// It needs no record.
    Known(Published),
    /// The record, and the number of clients at present.
    New(Record, usize),
}

impl Decided {
    /// Returns the decision that nothing is to be done.
    pub(super) fn nothing(id: Option<EventId>, clients: usize) -> Decided {
        Decided::Known(Published::nothing(id, clients))
    }
}

impl Hub {
    /// Returns whether changes go through a journal.
    #[inline]
    pub(super) fn has_journal(&self) -> bool {
        self.proposals.is_some()
    }

    /// Removes a channel if it meets a condition now, and waits for the journal where that
    /// is allowed. Returns the number of its clients, or `None` if it is not removed.
    #[cold]
    pub(super) fn journal_remove(
        self: &Arc<Self>,
        key: ChannelKey,
        condition: impl FnOnce(&ChannelState) -> bool,
    ) -> Option<usize> {
        let decided = match self.decide_removal(key, condition) {
            Ok(decided) => decided,
            Err(removed) => return removed,
        };
        match self.propose_and_wait(Ok(decided)) {
            Ok(published) => Some(published.clients),
            Err(error) => {
                ::log::warn!("a channel was not removed ({error})");
                None
            }
        }
    }

    /// Decides on the removal of a channel, whatever it is.
    #[cold]
    pub(super) fn decide_close(&self, key: ChannelKey) -> Result<Decided, PublishError> {
        let decided = self.decide_removal(key, |_| true);
        decided.or_else(|removed| Ok(Decided::nothing(None, removed.unwrap_or(0))))
    }

    /// Returns the number of clients that were disconnected if the removal needs no record.
    fn decide_removal(
        &self,
        key: ChannelKey,
        condition: impl FnOnce(&ChannelState) -> bool,
    ) -> Result<Decided, Option<usize>> {
        let (name, basis, clients) = {
            let state = self.lock();
            let is_there = |channel: &&ChannelState| !channel.life.is_closing();
            let channel = state.get(key).filter(is_there);
            let channel = channel.filter(|channel| condition(channel)).ok_or(None)?;
            let name = channel.current_name().cloned();
            (name, state.sequence, channel.members.len())
        };
        let Some(channel) = name else {
            // It is over: only its clients are left, and they are this process's.
            return Err(self.remove(key, DisconnectReason::ChannelClosed));
        };
        let change = Change::Remove { channel };
        Ok(Decided::New(Record { basis, change }, clients))
    }

    /// Proposes a change, and waits for the journal where that is allowed.
    #[cold]
    pub(super) fn propose_and_wait(
        self: &Arc<Self>,
        decided: Result<Decided, PublishError>,
    ) -> Result<Published, PublishError> {
        let (record, clients) = match decided? {
            Decided::Known(published) => return Ok(published),
            Decided::New(record, clients) => (record, clients),
        };
        if EngineThread::is_current() {
            let events = record.change.events();
            self.propose(record, clients, None)
                .map_err(|(error, _)| error)?;
            return Ok(Published {
                id: None,
                events,
                clients,
                duplicates: 0,
                is_repeated: false,
            });
        }
        let (sender, outcome) = crossbeam_channel::bounded(1);
        let then: Then = Box::new(move |published| {
            // The receiver is there: it waits without a limit of its own.
            let _ = sender.send(published);
        });
        self.propose(record, clients, Some(then))
            .map_err(|(error, _)| error)?;
        outcome.recv().unwrap_or(Err(PublishError::Unconfirmed))
    }

    /// Proposes a change, and passes the result on when it is there.
    #[cold]
    pub(super) fn propose_then(
        self: &Arc<Self>,
        decided: Result<Decided, PublishError>,
        then: Then,
    ) {
        match decided {
            Err(error) => then(Err(error)),
            Ok(Decided::Known(published)) => then(Ok(published)),
            Ok(Decided::New(record, clients)) => {
                if let Err((error, waiting)) = self.propose(record, clients, Some(then)) {
                    waiting.report(Err(error));
                }
            }
        }
    }

    /// Has the other nodes of a cluster disconnect a client.
    pub(super) fn kick_elsewhere(self: &Arc<Self>, channel: &Arc<str>, client: &ClientId) {
        if self.cluster.get().is_none() {
            return;
        }
        let change = Change::Kick {
            channel: channel.clone(),
            client: client.clone(),
        };
        let basis = self.newest_sequence();
        if let Err((error, _)) = self.propose(Record { basis, change }, 0, None) {
            ::log::warn!("a client was not disconnected from the other nodes ({error})");
        }
    }

    fn propose(
        self: &Arc<Self>,
        record: Record,
        clients: usize,
        then: Option<Then>,
    ) -> Result<(), (PublishError, Waiting)> {
        let mut waiting = Waiting {
            clients,
            then,
            key: None,
        };
        if let Some(keyed) = record.change.keyed() {
            waiting.key = self.keys_in_flight.enter(keyed.id);
            if waiting.key.is_none() {
                let retry_after = RETRY_AFTER;
                return Err((PublishError::KeyInFlight { retry_after }, waiting));
            }
        }
        let proposals = self.proposals.as_ref().expect("there is a journal");
        proposals.propose(self, record, waiting)
    }

    /// Decides on a publish to a channel.
    #[cold]
    pub(super) fn decide_publish(
        &self,
        key: ChannelKey,
        events: Vec<Ready>,
        mut audience: Option<Arc<Audience>>,
        demands: Demands<'_>,
    ) -> Result<Decided, PublishError> {
        let Demands {
            keyed,
            newest,
            finishes,
        } = demands;
        let mut own_ids = OwnIds::of(&events, audience.as_deref(), &self.ids)?;
        let now_ms = self.clock.now_ms();
        // Few publishes need it, and it is several readings of clocks.
        let needs_wall = keyed.is_some() || own_ids.is_some() || finishes;
        let wall_ms = if needs_wall { self.clock.wall_ms() } else { 0 };
        let matched = match &mut audience {
            Some(audience) => Some(self.matched_now(key, audience)?),
            None => None,
        };
        let mut state = self.lock();
        let basis = state.sequence;
        if let Some(keyed) = keyed
            && let Some(first) = repeated(&state.keys, keyed, wall_ms, &events, &self.ids)?
        {
            return Ok(Decided::Known(first));
        }
        let channel = state.get(key).ok_or(PublishError::Closed)?;
        if let Some(own_ids) = &mut own_ids {
            own_ids.find_repetitions(&state.remembered, channel.scope(), wall_ms)?;
            if let Some(id) = own_ids.last_if_all_are_repeated(&events)
                && keyed.is_none()
                && !finishes
            {
                return Ok(Decided::Known(Published::repeated(id, events.len())));
            }
        }
        if let Some(id) = newest {
            state.check_newest(channel, id, &self.ids)?;
        }
        let channel = state.get_mut(key).ok_or(PublishError::Closed)?;
        channel.check(Ready::largest(&events))?;
        // A channel can be finished at any rate.
        if events.len() > 1 || !finishes {
            channel
                .take_tokens(events.len(), now_ms)
                .map_err(|retry_after| PublishError::RateLimited { retry_after })?;
        }
        let finished_for = finishes.then(|| as_ms(channel.options.finished_for));
        let options = Options {
            keyed,
            is_conditional: newest.is_some(),
            finish_until_ms: finished_for.map(|ms| wall_ms.saturating_add(ms)),
            begins_after: channel.begins_after(),
        };
        let clients = matched.map_or(channel.members.len(), |matched| matched.count);
        let name = channel.current_name().ok_or(PublishError::Closed)?.clone();
        drop(state);
        if events.is_empty() && !finishes {
            return Ok(Decided::nothing(Some(self.ids.id_of(basis)), clients));
        }
        let change = Change::Publish {
            channel: name,
            audience,
            events,
            options,
        };
        Ok(Decided::New(Record { basis, change }, clients))
    }

    /// Finds the members that an audience admits now.
    fn matched_now(
        &self,
        key: ChannelKey,
        audience: &mut Arc<Audience>,
    ) -> Result<Matched, PublishError> {
        let matched = {
            let state = self.lock();
            let channel = state.get(key).ok_or(PublishError::Closed)?;
            channel.matched(audience)
        };
        let matched = matched.unwrap_or_else(|| self.match_in_steps(key, audience));
        matched.note_in(audience);
        Ok(matched)
    }

    /// Decides on a publish to all channels.
    #[cold]
    pub(super) fn decide_publish_to_all(
        &self,
        events: Vec<Ready>,
        target: Target,
        key: Option<IdempotencyKey>,
    ) -> Result<Decided, PublishError> {
        let options = self.options_of_name(NAME_OF_ALL);
        let mut audience = target.into_audience();
        let keyed = key.map(|key| Keyed::of(key, ALL, &events, audience.as_deref(), false));
        let mut own_ids = OwnIds::of(&events, audience.as_deref(), &self.ids)?;
        let clients = match &mut audience {
            Some(audience) => self.match_in_all(audience),
            None => self.streams(),
        };
        let max = options.event_bytes_max;
        let (now_ms, wall_ms) = (self.clock.now_ms(), self.clock.wall_ms());
        let mut state = self.lock();
        let basis = state.sequence;
        if let Some(keyed) = keyed
            && let Some(first) = repeated(&state.keys, keyed, wall_ms, &events, &self.ids)?
        {
            return Ok(Decided::Known(first));
        }
        if let Some(own_ids) = &mut own_ids {
            own_ids.find_repetitions(&state.remembered, ALL, wall_ms)?;
            if let Some(id) = own_ids.last_if_all_are_repeated(&events)
                && keyed.is_none()
            {
                return Ok(Decided::Known(Published::repeated(id, events.len())));
            }
        }
        if let Some(bytes) = Ready::largest(&events).filter(|bytes| *bytes > max) {
            return Err(PublishError::TooLarge { bytes, max });
        }
        state
            .for_all
            .take_tokens(options.publish_rate, events.len(), now_ms)
            .map_err(|retry_after| PublishError::RateLimited { retry_after })?;
        drop(state);
        if events.is_empty() {
            return Ok(Decided::nothing(Some(self.ids.id_of(basis)), clients));
        }
        let options = Options::of_key(keyed);
        let change = Change::PublishAll {
            audience,
            events,
            options,
        };
        Ok(Decided::New(Record { basis, change }, clients))
    }

    /// Decides on the end of a channel.
    #[cold]
    pub(super) fn decide_finish(
        &self,
        key: ChannelKey,
        last: Option<Ready>,
    ) -> Result<Decided, PublishError> {
        let mut own_ids = OwnIds::of(last.as_slice(), None, &self.ids)?;
        let wall_ms = self.clock.wall_ms();
        let state = self.lock();
        let channel = state.get(key).ok_or(PublishError::Closed)?;
        if let Some(own_ids) = &mut own_ids {
            own_ids.find_repetitions(&state.remembered, channel.scope(), wall_ms)?;
        }
        channel.check(Ready::largest(last.as_slice()))?;
        let change = Change::Finish {
            channel: channel.current_name().ok_or(PublishError::Closed)?.clone(),
            until_ms: wall_ms.saturating_add(as_ms(channel.options.finished_for)),
            last,
            begins_after: channel.begins_after(),
        };
        let basis = state.sequence;
        Ok(Decided::New(
            Record { basis, change },
            channel.members.len(),
        ))
    }
}
