//! Journaling: a change is in the log before it is in the hub.
//!
//! What is proposed is decided here, by this process: rights, sizes, rates and what it
//! knows of the channel. Then the record waits for its place in the log, and is
//! [applied](super::applying) there.
//!
//! ```text
//!  publisher ── check, encode ──► proposals ──► log: append a block ──► Hub::apply ──► outcome
//! ```
//!
//! A thread that may wait does so until its outcome comes. A thread of an engine never
//! waits: its changes are in order with what it has proposed before.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use super::Hub;
use super::applying::{BlockTime, Outcome};
use super::audience::Audience;
use super::channel_state::{ChannelState, Matched};
use super::client::DisconnectReason;
use super::clock::{Clock, as_ms};
use super::engine_thread::EngineThread;
use super::for_all::NAME_OF_ALL;
use super::key::ChannelKey;
use super::own_ids::OwnIds;
use super::proposals::{Proposals, Then, Waiting};
use super::published::{PublishError, Published};
use super::ready::Ready;
use super::remembered::ALL;
use super::saved::Saved;
use super::target::Target;
use crate::journal::error::JournalError;
use crate::journal::log::{BlockLog, SnapshotFile};
use crate::journal::record::{Change, Record};
use crate::journal::syncing::SyncThread;

/// The time from a snapshot that has failed or made no room until the next one, in
/// milliseconds.
const SNAPSHOT_PAUSE_MS: u64 = 10_000;

/// Writes what a snapshot has.
pub(super) type TakeSnapshot = fn(&Hub, &mut dyn Write) -> io::Result<Saved>;

/// Syncs what was written.
pub(super) type Sync = Box<dyn Fn() -> Result<(), JournalError> + Send>;

/// What is decided about a change.
enum Decided {
    /// It needs no record.
    Known(Published),
    /// The record, and the number of clients at present.
    New(Record, usize),
}

// ---- proposing ----

impl Hub {
    /// Returns whether changes go through a journal.
    #[inline]
    pub(super) fn has_journal(&self) -> bool {
        self.proposals.is_some()
    }

    /// Publishes to a channel, and waits for the journal where that is allowed.
    #[cold]
    pub(super) fn journal_publish(
        self: &Arc<Self>,
        key: ChannelKey,
        events: Vec<Ready>,
        target: Target,
    ) -> Result<Published, PublishError> {
        let count = events.len();
        let decided = self.decide_publish(key, events, target)?;
        self.propose_and_wait(decided, count)
    }

    /// Publishes to a channel, and passes the result on when it is there.
    #[cold]
    pub(super) fn journal_publish_then(
        self: &Arc<Self>,
        key: ChannelKey,
        events: Vec<Ready>,
        target: Target,
        then: Then,
    ) {
        self.propose_then(self.decide_publish(key, events, target), then);
    }

    /// Publishes to all channels, and waits for the journal where that is allowed.
    #[cold]
    pub(super) fn journal_publish_to_all(
        self: &Arc<Self>,
        events: Vec<Ready>,
        target: &Target,
    ) -> Result<Published, PublishError> {
        let count = events.len();
        let decided = self.decide_publish_to_all(events, target)?;
        self.propose_and_wait(decided, count)
    }

    /// Publishes to all channels, and passes the result on when it is there.
    #[cold]
    pub(super) fn journal_publish_to_all_then(
        self: &Arc<Self>,
        events: Vec<Ready>,
        target: &Target,
        then: Then,
    ) {
        self.propose_then(self.decide_publish_to_all(events, target), then);
    }

    /// Finishes a channel, and waits for the journal where that is allowed.
    #[cold]
    pub(super) fn journal_finish(
        self: &Arc<Self>,
        key: ChannelKey,
        last: Option<Ready>,
    ) -> Result<usize, PublishError> {
        let decided = self.decide_finish(key, last)?;
        let finished = self.propose_and_wait(decided, 0);
        finished.map(|published| published.clients)
    }

    /// Finishes a channel, and passes the result on when it is there.
    #[cold]
    pub(super) fn journal_finish_then(
        self: &Arc<Self>,
        key: ChannelKey,
        last: Option<Ready>,
        then: Then,
    ) {
        self.propose_then(self.decide_finish(key, last), then);
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
        match self.propose_and_wait(decided, 0) {
            Ok(published) => Some(published.clients),
            Err(error) => {
                ::log::warn!("a channel was not removed ({error})");
                None
            }
        }
    }

    /// Removes a channel, and passes the result on when it is there.
    #[cold]
    pub(super) fn journal_remove_then(self: &Arc<Self>, key: ChannelKey, then: Then) {
        let decided = self.decide_removal(key, |_| true).or_else(|removed| {
            Ok(Decided::Known(Published {
                id: None,
                events: 0,
                clients: removed.unwrap_or(0),
                duplicates: 0,
            }))
        });
        self.propose_then(decided, then);
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

    fn propose_and_wait(
        self: &Arc<Self>,
        decided: Decided,
        count: usize,
    ) -> Result<Published, PublishError> {
        let (record, clients) = match decided {
            Decided::Known(published) => return Ok(published),
            Decided::New(record, clients) => (record, clients),
        };
        if EngineThread::is_current() {
            let waiting = Waiting {
                clients,
                then: None,
            };
            self.propose(record, waiting).map_err(|(error, _)| error)?;
            return Ok(Published {
                id: None,
                events: count,
                clients,
                duplicates: 0,
            });
        }
        let (sender, outcome) = crossbeam_channel::bounded(1);
        let then: Then = Box::new(move |published| {
            // The receiver is there: it waits without a limit of its own.
            let _ = sender.send(published);
        });
        let waiting = Waiting {
            clients,
            then: Some(then),
        };
        self.propose(record, waiting).map_err(|(error, _)| error)?;
        outcome.recv().unwrap_or(Err(PublishError::Unconfirmed))
    }

    fn propose_then(self: &Arc<Self>, decided: Result<Decided, PublishError>, then: Then) {
        match decided {
            Err(error) => then(Err(error)),
            Ok(Decided::Known(published)) => then(Ok(published)),
            Ok(Decided::New(record, clients)) => {
                let then = Some(then);
                if let Err((error, waiting)) = self.propose(record, Waiting { clients, then }) {
                    waiting.tell(Err(error));
                }
            }
        }
    }

    fn propose(
        self: &Arc<Self>,
        record: Record,
        waiting: Waiting,
    ) -> Result<(), (PublishError, Waiting)> {
        let proposals = self.proposals.as_ref().expect("there is a journal");
        proposals.propose(self, record, waiting)
    }

    fn decide_publish(
        &self,
        key: ChannelKey,
        events: Vec<Ready>,
        target: Target,
    ) -> Result<Decided, PublishError> {
        let mut audience = target.into_audience();
        let mut own_ids = OwnIds::of(&events, audience.as_deref(), &self.ids)?;
        let (now_ms, wall_ms) = (self.clock.now_ms(), wall_ms(&self.clock));
        let matched = match &mut audience {
            Some(audience) => Some(self.matched_now(key, audience)?),
            None => None,
        };
        let mut state = self.lock();
        let basis = state.sequence;
        let channel = state.get(key).ok_or(PublishError::Closed)?;
        if let Some(own_ids) = &mut own_ids {
            own_ids.find_repetitions(&state.remembered, channel.scope(), wall_ms)?;
            if let Some(id) = own_ids.last_if_all_are_repeated(&events) {
                return Ok(Decided::Known(Published::repeated(id, events.len())));
            }
        }
        let channel = state.get_mut(key).ok_or(PublishError::Closed)?;
        channel.check(Ready::largest(&events))?;
        channel
            .take_tokens(events.len(), now_ms)
            .map_err(|retry_after| PublishError::RateLimited { retry_after })?;
        let clients = matched.map_or(channel.members.len(), |matched| matched.count);
        let name = channel.current_name().ok_or(PublishError::Closed)?.clone();
        drop(state);
        if events.is_empty() {
            return Ok(Decided::Known(Published {
                id: Some(self.ids.id_of(basis)),
                events: 0,
                clients,
                duplicates: 0,
            }));
        }
        let change = Change::Publish {
            channel: name,
            audience,
            events,
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

    fn decide_publish_to_all(
        &self,
        events: Vec<Ready>,
        target: &Target,
    ) -> Result<Decided, PublishError> {
        let options = self.options_of_name(NAME_OF_ALL);
        let mut audience = target.clone().into_audience();
        let mut own_ids = OwnIds::of(&events, audience.as_deref(), &self.ids)?;
        let clients = match &mut audience {
            Some(audience) => self.match_in_all(audience),
            None => self.streams(),
        };
        let max = options.event_bytes_max;
        let (now_ms, wall_ms) = (self.clock.now_ms(), wall_ms(&self.clock));
        let mut state = self.lock();
        let basis = state.sequence;
        if let Some(own_ids) = &mut own_ids {
            own_ids.find_repetitions(&state.remembered, ALL, wall_ms)?;
            if let Some(id) = own_ids.last_if_all_are_repeated(&events) {
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
            return Ok(Decided::Known(Published {
                id: Some(self.ids.id_of(basis)),
                events: 0,
                clients,
                duplicates: 0,
            }));
        }
        let change = Change::PublishAll { audience, events };
        Ok(Decided::New(Record { basis, change }, clients))
    }

    /// Returns the number of streams of open channels.
    fn streams(&self) -> usize {
        let mut streams = 0;
        self.for_each_channel(|_, channel| {
            let is_counted = channel.name().is_some() && channel.life.is_open();
            streams += if is_counted { channel.streams } else { 0 };
        });
        streams
    }

    fn decide_finish(&self, key: ChannelKey, last: Option<Ready>) -> Result<Decided, PublishError> {
        let mut own_ids = OwnIds::of(last.as_slice(), None, &self.ids)?;
        let wall_ms = wall_ms(&self.clock);
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
        };
        let basis = state.sequence;
        Ok(Decided::New(
            Record { basis, change },
            channel.members.len(),
        ))
    }
}

/// Returns the time, in milliseconds since 1970.
fn wall_ms(clock: &Clock) -> u64 {
    let since = clock.wall(clock.now_ms()).duration_since(UNIX_EPOCH);
    since.map_or(0, as_ms)
}

// ---- the threads ----

/// The log and what is done with it, for the thread that appends.
pub(super) struct Journaling {
    pub(super) log: Box<dyn BlockLog>,
    pub(super) take_snapshot: TakeSnapshot,
    /// Syncs beside appends, and the time between two syncs.
    pub(super) sync: Option<(Sync, Duration)>,
}

impl Journaling {
    /// Starts the threads. They end when the queue is closed.
    ///
    /// # Errors
    /// When the system has no thread.
    pub(super) fn start(self, proposals: &Arc<Proposals<Hub>>) -> io::Result<()> {
        let Journaling {
            log,
            take_snapshot,
            sync,
        } = self;
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = thread::Builder::new().name(name.to_owned());
            thread.spawn(run).map(drop)
        };
        let sync = match sync {
            Some((sync, every)) => Some(SyncThread::start(every, syncing(proposals, sync))?),
            None => None,
        };
        let appender = Appender {
            proposals: proposals.clone(),
            log,
            take_snapshot,
            no_snapshot_until_ms: 0,
            has_appended: false,
            is_full: false,
            sync,
        };
        // From here on `close` waits for the thread that appends.
        let (begun, has_begun) = crossbeam_channel::bounded(1);
        spawn("pushwheel-journal", Box::new(move || appender.run(&begun)))?;
        let _ = has_begun.recv();
        let watched = proposals.clone();
        spawn(
            "pushwheel-journal-time",
            Box::new(move || {
                let _here = EngineThread::enter();
                watched.watch_the_time();
            }),
        )?;
        Ok(())
    }
}

/// Returns a function that syncs, and notes how that went.
fn syncing(
    proposals: &Arc<Proposals<Hub>>,
    sync: Sync,
) -> impl FnMut() -> Result<(), ()> + Send + 'static {
    let proposals = proposals.clone();
    move || {
        let began_us = proposals.clock().now_us();
        match sync() {
            Ok(()) => {
                let took_us = proposals.clock().now_us() - began_us;
                proposals.syncs.observe(took_us);
                Ok(())
            }
            Err(error) => {
                proposals.fail(error);
                Err(())
            }
        }
    }
}

/// Appends the blocks and applies them.
struct Appender {
    proposals: Arc<Proposals<Hub>>,
    log: Box<dyn BlockLog>,
    take_snapshot: TakeSnapshot,
    /// When the next snapshot may begin, if the last one has failed or made no room.
    no_snapshot_until_ms: u64,
    /// Whether a block was appended since the last snapshot began.
    has_appended: bool,
    /// Whether the last block found no room.
    is_full: bool,
    sync: Option<SyncThread>,
}

impl Appender {
    fn run(self, begun: &crossbeam_channel::Sender<()>) {
        let proposals = self.proposals.clone();
        let _here = EngineThread::enter();
        let _end = proposals.enter(self.log.bytes());
        let _ = begun.send(());
        self.append_all(&proposals);
        // Nothing has the log any more, so another one can open it.
        proposals.wait_for_snapshot();
    }

    fn append_all(mut self, proposals: &Proposals<Hub>) {
        while let Some((block, hub)) = proposals.next_block() {
            let clock = proposals.clock();
            let time = BlockTime {
                wall_ms: wall_ms(clock),
                at_ms: clock.now_ms(),
            };
            let began_us = clock.now_us();
            match self.log.append(block.width, time.wall_ms, &block.bytes) {
                Ok(first) => {
                    (self.has_appended, self.is_full) = (true, false);
                    proposals.appends.observe(clock.now_us() - began_us);
                    let records = proposals.appended(block.n, self.log.bytes());
                    hub.apply(first, time, records, |waiting, outcome| {
                        if let Some(waiting) = waiting {
                            tell(waiting, outcome);
                        }
                    });
                    if self.log.needs_snapshot() {
                        self.try_snapshot(&hub);
                    }
                }
                Err(JournalError::Full { .. }) if self.try_snapshot(&hub) => {
                    proposals.put_off(block.n);
                }
                Err(JournalError::Full { max }) => {
                    if !std::mem::replace(&mut self.is_full, true) {
                        ::log::warn!("the journal has its maximum of {max} bytes");
                    }
                    proposals.refuse(block.n);
                }
                Err(error) => proposals.fail(error),
            }
        }
        if proposals.has_failed() {
            return proposals.give_up();
        }
        drop(self.sync);
        proposals.closed(self.log.close());
    }

    /// Begins a snapshot on a thread of its own, unless the last one was of no use a moment
    /// ago. Returns whether one is being made.
    fn try_snapshot(&mut self, hub: &Arc<Hub>) -> bool {
        let now_ms = self.proposals.clock().now_ms();
        if self.proposals.is_snapshotting() {
            return true;
        }
        let is_of_use = self.has_appended && !self.proposals.has_no_snapshot();
        if now_ms < self.no_snapshot_until_ms && !is_of_use {
            return false;
        }
        self.has_appended = false;
        self.no_snapshot_until_ms = now_ms.saturating_add(SNAPSHOT_PAUSE_MS);
        let begun = self.log.begin_snapshot().and_then(|file| {
            let snapshot = Snapshot {
                file,
                take: self.take_snapshot,
                hub: hub.clone(),
                proposals: self.proposals.clone(),
            };
            let thread = thread::Builder::new().name("pushwheel-journal-snapshot".to_owned());
            self.proposals.begin_snapshot();
            let begun = thread.spawn(move || snapshot.run());
            begun.map_err(|error| JournalError::Failed {
                why: format!("the system has no thread ({error})"),
            })
        });
        match begun {
            Ok(_) => true,
            Err(error) => {
                self.proposals.end_snapshot(true);
                ::log::warn!("the journal has no new snapshot: {error}");
                false
            }
        }
    }
}

/// A snapshot that is being made.
struct Snapshot {
    file: Box<dyn SnapshotFile>,
    take: TakeSnapshot,
    hub: Arc<Hub>,
    proposals: Arc<Proposals<Hub>>,
}

impl Snapshot {
    fn run(self) {
        let Snapshot {
            file,
            take,
            hub,
            proposals,
        } = self;
        let mut end = SnapshotEnd {
            proposals: &proposals,
            has_failed: true,
        };
        match Snapshot::write(file, take, &hub) {
            Ok(()) => end.has_failed = false,
            Err(error) => ::log::warn!("the journal has no new snapshot: {error}"),
        }
        // Before the hub, which may end here and then waits for the thread that waits for
        // this end.
        drop(end);
        drop(hub);
    }

    fn write(
        mut file: Box<dyn SnapshotFile>,
        take: TakeSnapshot,
        hub: &Hub,
    ) -> Result<(), JournalError> {
        take(hub, &mut file).map_err(|error| JournalError::Failed {
            why: error.to_string(),
        })?;
        file.commit()
    }
}

/// The end of a snapshot, also if its thread panics.
struct SnapshotEnd<'a> {
    proposals: &'a Proposals<Hub>,
    has_failed: bool,
}

impl Drop for SnapshotEnd<'_> {
    fn drop(&mut self) {
        self.proposals.end_snapshot(self.has_failed);
    }
}

/// Passes on what the log says of a proposal.
fn tell(waiting: Waiting, outcome: Outcome) {
    if let Err(error) = &outcome
        && waiting.then.is_none()
    {
        ::log::warn!("an event that waited for the journal was not published ({error})");
    }
    let published = outcome.map(|applied| Published {
        id: applied.id,
        events: applied.events,
        clients: applied.clients.unwrap_or(waiting.clients),
        duplicates: applied.duplicates,
    });
    waiting.tell(published);
}
