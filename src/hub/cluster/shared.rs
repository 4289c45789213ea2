//! [`Cluster`]: what the parts of a node know of each other.

use std::collections::VecDeque;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::calls::SharedValues;
use super::nodes::Nodes;
use super::unconfirmed::{Outcomes, Unconfirmed};
use super::waiting::{Awaited, GoOn, Released, Waiting};
use crate::cluster::{
    BrokerError, ClusterOptions, ClusterStatus, Hello, Memory, SharedLog, Term, WriterEnd,
};
use crate::hub::clock::as_ms;
use crate::hub::numbering::mixed;
use crate::journal::probe::Probe;

/// How long each call to a broker may take.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// The time after which a block that the log has accepted is expected back.
pub(super) const BACK_MS: u64 = 3_000;

/// The pause after the first failure, in milliseconds, and the longest one.
const PAUSES_MS: (u64, u64) = (50, 2_000);

/// What a step leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Take another step.
    Again,
    /// Take another step at this time, or when there is news.
    At(u64),
    /// Nothing any more.
    Ended,
}

/// The pauses between attempts, doubled up to the longest.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    failures: u32,
    until_ms: u64,
}

impl Pauses {
    /// Notes a failure. `random` is any number.
    pub(super) fn failed(&mut self, now_ms: u64, random: u64) {
        let (first_ms, longest_ms) = PAUSES_MS;
        let doubled = first_ms << self.failures.min(10);
        let half = doubled.min(longest_ms) / 2;
        self.failures += 1;
        // So that not all nodes come back at once.
        self.until_ms = now_ms + half + random % (half + 1);
    }

    pub(super) fn succeeded(&mut self) {
        *self = Pauses::default();
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// Returns until when to wait, if it is not over.
    pub(super) fn wait(&self, now_ms: u64) -> Option<u64> {
        (now_ms < self.until_ms).then_some(self.until_ms)
    }
}

/// Blocks that the log keeps.
#[derive(Clone, Copy, Debug)]
struct Kept {
    first: u64,
    wall_ms: u64,
    bytes: u64,
}

/// Events of a channel, or of any, that this node had and the log has lost.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    /// The first number of the term that lacks them.
    pub(super) term: u64,
    /// The newest number that is lost.
    pub(super) had: u64,
    pub(super) channel: Option<Arc<str>>,
}

/// What is known of the log.
#[derive(Debug, Default)]
struct Known {
    identity: Vec<u8>,
    terms: Vec<Term>,
    /// The newest number that was applied.
    applied: u64,
    /// The writers of what was applied, and of nothing else: an empty broker refuses what they
    /// are said to have appended.
    nodes: Nodes,
    /// The number up to which a hub that is built beside began with the log.
    base: u64,
    /// The newest number of which it is known that it was given.
    given: u64,
    kept: VecDeque<Kept>,
    kept_bytes: u64,
    /// The log need not keep blocks before this number for longer: they are too old or too
    /// many. `None` until this node has seen that of one. A node that has begun with a
    /// snapshot does not know the age of the blocks before it.
    expired_before: Option<u64>,
    /// Whether the hub has all of the log up to `applied`.
    is_in_sync: bool,
    /// Number of times that the hub was rebuilt.
    rebuilt: u64,
    /// Number of times that all sessions had to be opened again.
    sessions_from: u64,
    /// When a block of this node has come back last.
    back_ms: u64,
    is_cut_off: bool,
    error: Option<BrokerError>,
    /// Losses that are not in the log yet.
    losses: Vec<Lost>,
    /// Those, and those that are on their way.
    open_losses: usize,
    figures: ClusterStatus,
}

impl Known {
    fn follow(&mut self, identity: &[u8], terms: &[Term], applied: u64) {
        let newest = |terms: &[Term]| terms.last().map_or(0, |term| term.first);
        if !self.terms.is_empty() && newest(terms) > newest(&self.terms) {
            self.figures.terms += 1;
        }
        self.identity = identity.to_vec();
        self.terms = terms.to_vec();
        self.applied = applied;
        self.given = self.given.max(applied);
    }
}

/// See the [module](self).
pub(in crate::hub) struct Cluster {
    pub(super) log: Box<dyn SharedLog>,
    pub(super) options: ClusterOptions,
    /// The random number of this process.
    pub(super) writer: u128,
    known: Mutex<Known>,
    waiting: Mutex<Waiting>,
    unconfirmed: Mutex<Unconfirmed>,
    /// Held while the channels are copied, and while they are replaced.
    building: Mutex<()>,
    attempts: AtomicU64,
    is_draining: AtomicBool,
    values: OnceLock<SharedValues>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    pub(super) fn new(
        log: Box<dyn SharedLog>,
        options: ClusterOptions,
        writer: u128,
        now_ms: u64,
    ) -> Cluster {
        let known = Known {
            back_ms: now_ms,
            ..Known::default()
        };
        Cluster {
            log,
            options,
            writer,
            known: Mutex::new(known),
            unconfirmed: Mutex::default(),
            waiting: Mutex::default(),
            building: Mutex::default(),
            attempts: AtomicU64::new(0),
            is_draining: AtomicBool::new(false),
            values: OnceLock::new(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a number for the jitter of pauses.
    #[allow(clippy::cast_possible_truncation, reason = "any bits will do")]
    pub(super) fn random(&self) -> u64 {
        let attempt = self.attempts.fetch_add(1, Relaxed);
        mixed(self.writer as u64 ^ attempt)
    }

    /// Keeps the channels from being copied and replaced at a time.
    pub(super) fn building(&self) -> MutexGuard<'_, ()> {
        self.building.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- sessions ----

    /// Calls `open` with what this node says when it opens a session. Nothing is locked
    /// meanwhile.
    pub(super) fn hello<T>(&self, open: impl FnOnce(&Hello<'_>) -> T) -> T {
        let (identity, terms, applied, given, ends) = {
            let known = self.known();
            (
                known.identity.clone(),
                known.terms.clone(),
                known.applied,
                known.given,
                known.nodes.ends(),
            )
        };
        let memory = Memory::new(&identity, &terms, applied, &ends);
        let memory = (!identity.is_empty()).then_some(memory);
        open(&Hello::new(self.writer, given, memory))
    }

    /// Notes that a session was opened.
    pub(super) fn note_session(&self) {
        self.known().figures.sessions += 1;
    }

    /// Returns the newest error, and forgets it.
    pub(super) fn take_error(&self) -> Option<BrokerError> {
        self.known().error.take()
    }

    pub(super) fn note_error(&self, error: BrokerError) {
        self.known().error = Some(error);
    }

    /// Returns the number of the sessions that are in use. Those of a lower one are closed.
    pub(super) fn sessions_from(&self) -> u64 {
        self.known().sessions_from
    }

    // ---- the log ----

    /// Notes the branch of the log that this node follows, and how far.
    pub(super) fn follow(&self, identity: &[u8], terms: &[Term], applied: u64) {
        self.known().follow(identity, terms, applied);
    }

    /// Notes that the hub was rebuilt from the log up to a number, and that the log has lost so
    /// many numbers that the hub had.
    pub(super) fn follow_rebuilt(&self, terms: &[Term], applied: u64, nodes: Nodes, lost: u64) {
        let mut known = self.known();
        let identity = known.identity.clone();
        known.follow(&identity, terms, applied);
        known.nodes = nodes;
        known.base = 0;
        known.rebuilt += 1;
        known.figures.lost += lost;
        known.figures.resyncs += 1;
        (known.kept, known.kept_bytes) = (VecDeque::new(), 0);
        known.expired_before = None;
    }

    /// Returns whether a log is the one that this node follows.
    pub(super) fn is_of_log(&self, identity: &[u8]) -> bool {
        self.known().identity == identity
    }

    /// Returns the newest number that was applied.
    pub(super) fn applied(&self) -> u64 {
        self.known().applied
    }

    /// Notes that a hub is built beside on a base that has everything up to a number.
    pub(super) fn note_base(&self, at: u64) {
        self.known().base = at;
    }

    /// Returns whether what this node has, or builds, begins behind a number.
    pub(super) fn is_past(&self, number: u64) -> bool {
        let known = self.known();
        number <= known.applied.max(known.base)
    }

    /// Returns the bytes of all blocks that were read.
    pub(super) fn block_bytes(&self) -> u64 {
        self.known().figures.block_bytes
    }

    /// Notes that a number was given.
    pub(super) fn note_given(&self, number: u64) {
        let mut known = self.known();
        known.given = known.given.max(number);
    }

    /// Counts a block that was read.
    pub(super) fn count_block(&self, bytes: u64) {
        let mut known = self.known();
        known.figures.blocks += 1;
        known.figures.block_bytes += bytes;
    }

    /// Notes a block that was applied, with which everything up to `applied` was.
    pub(super) fn note_block(
        &self,
        applied: u64,
        (end, wall_ms): (WriterEnd, u64),
        bytes: u64,
        probe: Option<Probe>,
    ) {
        let mut known = self.known();
        known.applied = applied;
        known.given = known.given.max(applied);
        known.nodes.note(end, wall_ms, probe);
        known.kept_bytes += bytes;
        // A list of seconds.
        match known.kept.back_mut() {
            Some(newest) if newest.wall_ms / 1_000 == wall_ms / 1_000 => newest.bytes += bytes,
            _ => known.kept.push_back(Kept {
                first: end.first,
                wall_ms,
                bytes,
            }),
        }
        let retention_ms = as_ms(self.options.retention);
        while let Some(oldest) = known.kept.front().copied()
            && known.kept.len() > 1
            && (wall_ms.saturating_sub(oldest.wall_ms) > retention_ms
                || known.kept_bytes > self.options.retention_bytes)
        {
            known.kept.pop_front();
            known.kept_bytes -= oldest.bytes;
            known.expired_before = known.kept.front().map(|oldest| oldest.first);
        }
    }

    /// Lets requests go on that have waited for a number that was applied, or for a block of
    /// this node that has come back.
    pub(super) fn note_applied(&self, applied: u64, back: Option<u64>, now_ms: u64) {
        if back.is_some() {
            self.known().back_ms = now_ms;
        }
        let released = self.waiting().applied(applied, back);
        go_on(released, Released::Applied);
    }

    /// Holds the outcomes of an own block until the log has confirmed its append.
    pub(super) fn hold(&self, n: u64, now_ms: u64, outcomes: Outcomes) {
        let until_ms = now_ms.saturating_add(as_ms(self.options.publish_timeout));
        let confirmed = self.unconfirmed().hold(n, until_ms, outcomes);
        pass_on(confirmed);
    }

    /// Notes that the log has confirmed these own blocks, all of one session.
    pub(super) fn confirm(&self, blocks: RangeInclusive<u64>) {
        let (confirmed, unknown) = self.unconfirmed().confirm(blocks);
        pass_on(confirmed);
        drop(unknown);
    }

    /// Ends what waits for a confirmation for too long: it may be in the log.
    pub(super) fn expire_unconfirmed(&self, now_ms: u64) {
        let expired = self.unconfirmed().expire(now_ms);
        drop(expired);
    }

    fn unconfirmed(&self) -> MutexGuard<'_, Unconfirmed> {
        self.unconfirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number before which the log need not keep blocks that a snapshot has.
    pub(super) fn trim_before(&self) -> Option<u64> {
        self.known().expired_before
    }

    /// Returns the terms that this node follows, if it has all of the log up to the number
    /// that is returned, and how often the hub was rebuilt.
    pub(super) fn in_sync(&self) -> Option<(Vec<Term>, u64, u64)> {
        let known = self.known();
        let terms = known.is_in_sync.then(|| known.terms.clone())?;
        Some((terms, known.applied, known.rebuilt))
    }

    pub(super) fn set_in_sync(&self, is_in_sync: bool) {
        self.known().is_in_sync = is_in_sync;
    }

    pub(super) fn note_repeated(&self) {
        self.known().figures.repeated += 1;
    }

    /// Takes the newest blocks of writers from a snapshot.
    pub(super) fn reset_writers(&self, ends: Vec<(WriterEnd, u64)>) {
        self.known().nodes.reset(ends);
    }

    /// Returns the nodes as they are known in a snapshot with these newest blocks of writers.
    pub(super) fn nodes_of(&self, ends: Vec<(WriterEnd, u64)>) -> Nodes {
        let mut nodes = self.known().nodes.clone();
        nodes.reset(ends);
        nodes
    }

    /// Returns the newest block of each writer with its time, for a snapshot.
    pub(super) fn timed_ends(&self) -> Vec<(WriterEnd, u64)> {
        self.known().nodes.timed_ends()
    }

    pub(super) fn forget_writers(&self) -> Vec<u128> {
        self.known().nodes.forget_old()
    }

    pub(super) fn set_keeper(&self, is_keeper: bool) {
        self.known().figures.is_keeper = is_keeper;
    }

    // ---- losses ----

    /// Queues a loss for the log.
    pub(super) fn add_losses(&self, losses: impl IntoIterator<Item = Lost>) {
        let mut known = self.known();
        let before = known.losses.len();
        known.losses.extend(losses);
        known.open_losses += known.losses.len() - before;
    }

    /// Queues again a loss that the log may not have.
    pub(super) fn put_back_loss(&self, lost: Lost) {
        self.known().losses.push(lost);
    }

    /// Forgets the losses that are not on their way to the log: nothing is lost. Those that
    /// are on their way are void there.
    pub(super) fn forget_losses(&self) {
        let mut known = self.known();
        known.open_losses -= std::mem::take(&mut known.losses).len();
    }

    /// Notes that a loss is in the log.
    pub(super) fn loss_is_said(&self) {
        self.known().open_losses -= 1;
    }

    /// Returns the number of losses that are not known to be in the log.
    pub(super) fn open_losses(&self) -> usize {
        self.known().open_losses
    }

    pub(super) fn take_losses(&self) -> Vec<Lost> {
        std::mem::take(&mut self.known().losses)
    }

    // ---- shared values ----

    pub(super) fn set_values(&self, values: SharedValues) {
        let is_first = self.values.set(values).is_ok();
        debug_assert!(is_first, "a node has one thread for them");
    }

    pub(super) fn values(&self) -> Option<SharedValues> {
        self.values.get().cloned()
    }

    // ---- requests that wait ----

    /// Has a request wait until this node has something, or `block` of it has come back.
    pub(in crate::hub) fn wait_for(&self, awaited: Awaited, block: u64, now_ms: u64, go_on: GoOn) {
        let over = self.waiting().add(awaited, block, now_ms, go_on);
        // It may have been applied since the caller has looked.
        let applied = self.known().applied;
        let released = self.waiting().applied(applied, None);
        self::go_on(over.into_iter().chain(released), Released::Applied);
    }

    /// Notes that a term has begun. What it has lost may not be in the log yet.
    pub(super) fn expect_losses(&self, term: u64, now_ms: u64) {
        self.waiting().expect_losses(term, now_ms);
    }

    /// Returns until when nodes may say what a term has lost.
    pub(in crate::hub) fn losses_until(&self, term: u64, now_ms: u64) -> Option<u64> {
        self.waiting().losses_until(term, now_ms)
    }

    /// Returns how many requests wait for own ids.
    pub(in crate::hub) fn own_ids_awaited(&self) -> usize {
        self.waiting().own_ids()
    }

    /// Lets requests go on for which the hub has what they wait for. `is_found` is called with
    /// the requests locked.
    pub(in crate::hub) fn release_found(&self, is_found: impl Fn(&Awaited) -> bool) {
        let found = self.waiting().found(is_found);
        go_on(found, Released::Applied);
    }

    /// Lets requests go on that have waited for too long.
    pub(super) fn release_late(&self, now_ms: u64) {
        let late = self.waiting().too_late(now_ms);
        for (why, go_on) in late {
            go_on(why);
        }
    }

    pub(super) fn release_all(&self) {
        let all = self.waiting().all();
        go_on(all, Released::TooLate);
    }

    // ---- whether the broker is there ----

    /// Notes that this node has joined: it appends from now on.
    pub(super) fn note_joined(&self, now_ms: u64) {
        self.known().back_ms = now_ms;
    }

    /// Looks whether blocks of this node come back. Logs when that begins to fail, and when
    /// it heals.
    pub(super) fn look(&self, now_ms: u64) {
        let mut known = self.known();
        let silent_ms = now_ms.saturating_sub(known.back_ms);
        let is_cut_off = silent_ms > BACK_MS;
        if is_cut_off == known.is_cut_off {
            return;
        }
        known.is_cut_off = is_cut_off;
        if is_cut_off {
            known.sessions_from += 1;
        }
        let error = known.error.take();
        known.error = error.clone().filter(|_| is_cut_off);
        drop(known);
        let broker = self.log.address();
        match (is_cut_off, error) {
            (true, Some(error)) => ::log::error!(
                "the broker {broker} is lost: {error}. Streams go on, and publishes wait"
            ),
            (true, None) => ::log::error!(
                "the broker {broker} is lost: it does not return what this node appends. Streams \
                 go on, and publishes wait"
            ),
            (false, _) => ::log::info!("the broker {broker} is back"),
        }
    }

    /// Notes that this node no longer follows the log.
    pub(super) fn stop(&self, why: String) {
        ::log::error!("this node follows the log no longer: {why}. Start it again");
        let mut known = self.known();
        known.is_in_sync = false;
        known.figures.stopped.get_or_insert(why);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.known().figures.stopped.is_some()
    }

    /// Returns the state, except for what is queued.
    pub(in crate::hub) fn status(&self, now_ms: u64) -> ClusterStatus {
        let waiting_joins = self.waiting().len();
        let known = self.known();
        let silent = Duration::from_millis(now_ms.saturating_sub(known.back_ms));
        let is_connected = !known.is_cut_off && known.figures.stopped.is_none();
        ClusterStatus {
            broker: self.log.address(),
            is_connected,
            disconnected_for: (!is_connected).then_some(silent),
            error: known.error.as_ref().map(ToString::to_string),
            applied: known.applied,
            waiting_joins,
            nodes: known.nodes.alive(self.writer, self.options.options_digest),
            ..known.figures.clone()
        }
    }

    pub(super) fn set_lag(&self, lag: Duration) {
        self.known().figures.lag = lag;
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Relaxed)
    }

    pub(super) fn set_draining(&self, is_draining: bool) {
        self.is_draining.store(is_draining, Relaxed);
    }
}

fn go_on(all: impl IntoIterator<Item = GoOn>, released: Released) {
    for go_on in all {
        go_on(released);
    }
}

/// Passes outcomes on, with nothing locked.
fn pass_on(outcomes: Outcomes) {
    for pass_on in outcomes {
        pass_on();
    }
}
