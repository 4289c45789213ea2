//! Publishing through a log in memory, which a test stops and breaks.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, RwLock, mpsc};
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::Join;
use super::applying::BlockTime;
use super::clock::Clock;
use super::engine_thread::EngineThread;
use super::journaling::{Journaling, Sync};
use super::looks::LOOKS_MAX;
use super::manager::{ChannelManager, ChannelManagerBuilder};
use super::proposals::{Proposals, Then};
use super::published::ChangeLog;
use super::state::State;
use super::{Hub, Randomness};
use crate::journal::block::Block;
use crate::journal::error::JournalError;
use crate::journal::log::{BlockLog, SnapshotFile};
use crate::journal::record::{Change, Record};
use crate::{
    Channel, ChannelOptions, Condition, Event, GapReason, History, JournalOptions, JournalSync,
    PublishError, Published, ReadError, Start, StoredEvent, Target,
};

/// A block with its first number.
type Stored = (u64, Vec<u8>);

/// The part of a log in memory that a test has.
#[derive(Default)]
pub(super) struct Shared {
    blocks: Mutex<Vec<Stored>>,
    /// The threads that have appended, one for each append.
    pub(super) threads: Mutex<Vec<ThreadId>>,
    /// Whether an append does not wait for a disk.
    pub(super) is_quick: AtomicBool,
    /// How long an append takes by a clock that a test has, in milliseconds.
    pub(super) append_ms: AtomicU64,
    pub(super) clock_ms: Arc<AtomicU64>,
    /// Whether appends wait.
    is_held: Mutex<bool>,
    let_go: Condvar,
    /// Appends that have begun.
    begun: Mutex<usize>,
    has_begun: Condvar,
    pub(super) fails: AtomicBool,
    is_full: AtomicBool,
    /// Whether a snapshot makes no room.
    stays_full: AtomicBool,
    pub(super) is_closed: AtomicBool,
    snapshots: Mutex<usize>,
    /// How often a block is to wait for a snapshot.
    waits: Mutex<usize>,
}

impl Shared {
    pub(super) fn hold(&self) {
        *self.is_held.lock().unwrap() = true;
    }

    pub(super) fn let_go(&self) {
        *self.is_held.lock().unwrap() = false;
        self.let_go.notify_all();
    }

    pub(super) fn wait_until_begun(&self, count: usize) {
        let begun = self.begun.lock().unwrap();
        let _begun = self.has_begun.wait_while(begun, |begun| *begun < count);
    }
}

struct InMemory(Arc<Shared>, u64);

impl BlockLog for InMemory {
    fn append(&mut self, width: u64, _: u64, block: &[u8]) -> Result<u64, JournalError> {
        let InMemory(shared, next) = self;
        let append_ms = shared.append_ms.load(Relaxed);
        shared.clock_ms.fetch_add(append_ms, Relaxed);
        shared.threads.lock().unwrap().push(thread::current().id());
        *shared.begun.lock().unwrap() += 1;
        shared.has_begun.notify_all();
        let held = shared.is_held.lock().unwrap();
        drop(shared.let_go.wait_while(held, |held| *held).unwrap());
        if shared.fails.load(Relaxed) {
            let why = "as the test wants it".to_owned();
            return Err(JournalError::Failed { why });
        }
        if shared.is_full.load(Relaxed) {
            return Err(JournalError::Full { max: 1 });
        }
        let first = *next;
        *next += width;
        shared.blocks.lock().unwrap().push((first, block.to_vec()));
        Ok(first)
    }

    fn is_quick(&self, _: usize) -> bool {
        self.0.is_quick.load(Relaxed)
    }

    fn must_wait(&self, _: usize) -> bool {
        let mut waits = self.0.waits.lock().unwrap();
        let waited = *waits;
        *waits = waited.saturating_sub(1);
        waited > 0
    }

    fn bytes(&self) -> u64 {
        let blocks = self.0.blocks.lock().unwrap();
        blocks.iter().map(|(_, block)| block.len() as u64).sum()
    }

    fn needs_snapshot(&self) -> bool {
        false
    }

    fn begin_snapshot(&mut self) -> Result<Box<dyn SnapshotFile>, JournalError> {
        *self.0.snapshots.lock().unwrap() += 1;
        Ok(Box::new(Emptied(self.0.clone())))
    }

    fn close(self: Box<Self>) -> Result<(), JournalError> {
        self.0.is_closed.store(true, Relaxed);
        Ok(())
    }
}

/// A snapshot after which the log usually has room again.
struct Emptied(Arc<Shared>);

impl Write for Emptied {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotFile for Emptied {
    fn commit(self: Box<Self>) -> Result<(), JournalError> {
        let stays_full = self.0.stays_full.load(Relaxed);
        self.0.is_full.fetch_and(stays_full, Relaxed);
        Ok(())
    }
}

pub(super) fn keeping() -> ChannelManagerBuilder {
    ChannelManager::builder().defaults(ChannelOptions::new().history(History::events(1_000_000)))
}

pub(super) fn open_with(
    builder: ChannelManagerBuilder,
    timeout: Duration,
) -> (ChannelManager, Arc<Shared>) {
    open_syncing(builder, timeout, None)
}

fn open_syncing(
    builder: ChannelManagerBuilder,
    timeout: Duration,
    sync: Option<(Sync, Duration)>,
) -> (ChannelManager, Arc<Shared>) {
    open_at(builder, (Clock::system(), Arc::default()), timeout, sync)
}

/// The second clock is moved by slow appends. It may be what the first one shows.
pub(super) fn open_at(
    builder: ChannelManagerBuilder,
    (clock, clock_ms): (Clock, Arc<AtomicU64>),
    timeout: Duration,
    sync: Option<(Sync, Duration)>,
) -> (ChannelManager, Arc<Shared>) {
    let proposals = Arc::new(Proposals::new(
        7,
        clock.clone(),
        timeout,
        ChangeLog::Journal,
    ));
    let randomness = Randomness::System;
    let ids = builder.new_ids(&randomness);
    let (state, options) = (State::new(builder.settings), builder.options_by_name);
    let hub = Hub::with_ids(
        ids,
        0,
        clock,
        randomness,
        state,
        options,
        Some(proposals.clone()),
    );
    let shared = Arc::new(Shared {
        clock_ms,
        ..Shared::default()
    });
    let journaling = Journaling {
        log: Box::new(InMemory(shared.clone(), 1)),
        take_snapshot: Hub::write_snapshot,
        sync,
    };
    let handles = Some(proposals.first_handle());
    journaling.start(&proposals).unwrap();
    (
        ChannelManager {
            _handles: handles,
            hub,
        },
        shared,
    )
}

pub(super) fn open() -> (ChannelManager, Arc<Shared>) {
    open_with(keeping(), Duration::from_secs(60))
}

pub(super) fn message(data: impl ToString) -> Event<'static> {
    Event::message(data.to_string())
}

fn stored(channel: &Channel) -> Vec<StoredEvent> {
    let mut stored = channel.read(Start::Earliest);
    let all: Result<Vec<_>, _> = stored.by_ref().collect();
    all.unwrap()
}

pub(super) fn datas(channel: &Channel) -> Vec<String> {
    let text = |stored: StoredEvent| stored.event.data().to_string();
    stored(channel).into_iter().map(text).collect()
}

/// Number, data, own id of an entry, and whether it is for some clients.
type Shown = (u64, String, Option<String>, bool);

fn entries(channel: &Channel) -> Vec<Shown> {
    let state = channel.hub().lock();
    let log = &state.get(channel.key()).unwrap().log;
    let entries = log.after(0).map(|entry| {
        let data = entry.frame.decode().data().to_owned();
        let own_id = entry.own_id().map(ToOwned::to_owned);
        (entry.sequence, data, own_id, entry.audience().is_some())
    });
    entries.collect()
}

/// A name of the test, and the result of the publish that it gave it to.
type Told = (&'static str, Result<Published, PublishError>);

/// A manager with what a log says. A snapshot may be ahead of its replay: each block twice
/// makes no difference.
fn replayed(log: &Shared) -> ChannelManager {
    replayed_by(keeping(), log)
}

fn replayed_by(builder: ChannelManagerBuilder, log: &Shared) -> ChannelManager {
    let manager = builder.build();
    let hub = manager.hub();
    let time = BlockTime {
        wall_ms: 0,
        at_ms: 0,
    };
    let blocks = log.blocks.lock().unwrap();
    for part in [&blocks[..blocks.len() / 2], &blocks[..]] {
        for (first, block) in part {
            let block = Block::decode(block, hub.ids.prefix()).unwrap();
            let records = block.records.into_iter().map(|record| (record, ()));
            hub.apply(*first, time, records, |(), _| {});
        }
    }
    manager
}

/// Receives results in the order in which they come.
fn results() -> (impl Fn(&'static str) -> Then, mpsc::Receiver<Told>) {
    let (sender, receiver) = mpsc::channel();
    let then = move |name| {
        let sender = sender.clone();
        let then: Then = Box::new(move |published| sender.send((name, published)).unwrap());
        then
    };
    (then, receiver)
}

#[test]
fn a_publish_returns_when_its_event_is_in_the_log_and_not_before() {
    let (manager, log) = open();
    let news = manager.get_or_create("news").unwrap();
    let first = news.broadcast(message(1)).unwrap();
    assert_eq!((first.events, first.clients), (1, 0));
    assert_eq!(log.blocks.lock().unwrap().len(), 1);
    log.hold();
    let waiting = {
        let news = news.clone();
        std::thread::spawn(move || news.broadcast(message(2)).unwrap())
    };
    log.wait_until_begun(2);
    assert_eq!(
        datas(&news),
        ["1"],
        "an event that is not in the log is visible"
    );
    assert!(!waiting.is_finished());
    assert_eq!(manager.journal_status().unwrap().queued, 1);
    log.let_go();
    let second = waiting.join().unwrap();
    assert!(second.id > first.id);
    assert_eq!(second.id, Some(news.position()));
    assert_eq!(datas(&news), ["1", "2"]);
}

#[test]
fn publishes_of_many_threads_are_in_the_order_of_the_log_and_share_blocks() {
    let (manager, log) = open();
    const THREADS: usize = 8;
    const EACH: usize = 200;
    log.hold();
    let mut ids = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let channel = manager.get_or_create("news").unwrap();
                scope.spawn(move || {
                    let publish = |n| channel.broadcast(message(format!("{thread} {n}")));
                    let ids = (0..EACH).map(|n| publish(n).unwrap().id.unwrap());
                    ids.collect::<Vec<_>>()
                })
            })
            .collect();
        log.wait_until_begun(1);
        log.let_go();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap());
        joined.collect::<Vec<_>>()
    });
    assert!(ids.iter().all(|ids| ids.is_sorted()));
    let all = stored(&manager.get("news").unwrap());
    assert_eq!(all.len(), THREADS * EACH);
    let mut flat: Vec<_> = ids.drain(..).flatten().collect();
    flat.sort_unstable();
    assert!(flat.iter().eq(all.iter().map(|stored| &stored.id)));
    let blocks = log.blocks.lock().unwrap();
    assert!(blocks.len() <= THREADS * EACH);
    let numbers = |(first, block): &Stored| {
        let block = Block::decode(block, "x-").unwrap();
        (*first, block.width)
    };
    let next = blocks.iter().map(numbers).fold(1, |next, (first, width)| {
        assert_eq!(first, next);
        first + width
    });
    assert_eq!(next, 1 + (THREADS * EACH) as u64);
}

#[test]
fn a_thread_of_the_engine_queues_in_order_and_waits_for_nothing() {
    let (manager, log) = open();
    let news = manager.get_or_create("news").unwrap();
    log.hold();
    let (then, results) = results();
    {
        let _here = EngineThread::enter();
        for n in 0..3 {
            let queued = news.broadcast(message(n)).unwrap();
            assert_eq!((queued.id, queued.events), (None, 1));
        }
        news.publish_then([message(3)], Target::All, then("last"));
        assert_eq!(news.finish(Some(message("end"))), Ok(0));
        assert!(datas(&news).is_empty());
    }
    assert!(results.try_recv().is_err());
    log.let_go();
    let (_, last) = results.recv().unwrap();
    assert!(last.unwrap().id.is_some());
    assert_eq!(news.broadcast(message(4)), Err(PublishError::Finished));
    assert_eq!(datas(&news), ["0", "1", "2", "3", "end"]);
}

#[test]
fn the_end_of_a_removed_channel_does_not_end_the_next_one_of_its_name() {
    let (manager, log) = open();
    let old = manager.get_or_create("news").unwrap();
    let (sender, ended) = mpsc::channel();
    let end = || {
        let sender = sender.clone();
        move |ended: Result<usize, PublishError>| sender.send(ended).unwrap()
    };
    log.hold();
    old.close_then(end());
    // In the log, this is the first event of another channel.
    old.publish_then([message("next")], Target::All, |_| {});
    old.close_then(end());
    old.finish_then(None, end());
    log.let_go();
    let ends = [(); 3].map(|()| ended.recv().unwrap());
    assert_eq!(ends, [Ok(0), Ok(0), Err(PublishError::Closed)]);
    for manager in [&manager, &replayed(&log)] {
        let next = manager.get("news").unwrap();
        assert_eq!(datas(&next), ["next"]);
        assert!(!next.is_finished());
    }
    manager.get("news").unwrap().close();
    assert!(manager.get("news").is_none());
}

#[test]
fn a_publish_that_raced_with_the_end_of_its_channel_is_refused_by_the_log() {
    let (manager, log) = open();
    let news = manager.get_or_create("news").unwrap();
    log.hold();
    let (then, results) = results();
    news.publish_then([message("before")], Target::All, then("before"));
    news.finish_then(None, |_| {});
    news.publish_then([message("after")], Target::All, then("after"));
    log.let_go();
    let [before, after] = [results.recv().unwrap(), results.recv().unwrap()];
    assert_eq!((before.0, before.1.unwrap().events), ("before", 1));
    assert_eq!(after, ("after", Err(PublishError::Finished)));
    assert_eq!(datas(&news), ["before"]);
}

#[test]
fn a_publish_to_several_channels_that_raced_with_the_end_of_one_is_in_none() {
    let (manager, log) = open();
    let [news, other] = ["news", "other"].map(|name| manager.get_or_create(name).unwrap());
    let both = [news.clone(), other.clone()];
    log.hold();
    let (then, results) = results();
    manager.publish_to_then(&both, &[message("before")], None, then("before"));
    other.finish_then(None, |_| {});
    manager.publish_to_then(&both, &[message("after")], None, then("after"));
    log.let_go();
    let [before, after] = [results.recv().unwrap(), results.recv().unwrap()];
    assert_eq!((before.0, before.1.unwrap().events), ("before", 1));
    assert_eq!(after, ("after", Err(PublishError::Finished)));
    for manager in [&manager, &replayed(&log)] {
        for name in ["news", "other"] {
            assert_eq!(datas(&manager.get(name).unwrap()), ["before"]);
        }
    }
    // Both were one record.
    let blocks = log.blocks.lock().unwrap();
    let widths = blocks
        .iter()
        .map(|(_, block)| Block::decode(block, "x-").unwrap().width);
    assert_eq!(widths.sum::<u64>(), 3);
}

#[test]
fn a_publish_after_a_removal_is_to_a_new_channel() {
    let (manager, _log) = open();
    let news = manager.get_or_create("news").unwrap();
    news.broadcast(message("old")).unwrap();
    assert_eq!(news.close(), 0);
    assert!(news.is_closed() && !manager.has("news"));
    assert_eq!(news.broadcast(message("late")), Err(PublishError::Closed));
    let again = manager.get_or_create("news").unwrap();
    again.broadcast(message("new")).unwrap();
    assert_eq!(datas(&again), ["new"]);
    assert!(manager.remove("news") && !manager.remove("news"));
}

#[test]
fn a_repeated_publish_is_found_before_the_log_and_in_it() {
    let (manager, log) = open();
    let news = manager.get_or_create("news").unwrap();
    let own = |data: &str| [message(data).with_id("mine")];
    log.hold();
    let (then, results) = results();
    for name in ["first", "second"] {
        news.publish_then(own("x"), Target::All, then(name));
    }
    news.publish_then(own("other"), Target::All, then("other"));
    log.let_go();
    let next = || results.recv().unwrap().1;
    assert_eq!(next().unwrap().events, 1);
    let second = next().unwrap();
    assert_eq!((second.events, second.duplicates), (0, 1));
    let id = "mine".to_owned();
    assert_eq!(next(), Err(PublishError::IdReused { id }));
    let blocks = log.blocks.lock().unwrap().len();
    assert_eq!(news.publish(own("x"), Target::All).unwrap().duplicates, 1);
    assert_eq!(log.blocks.lock().unwrap().len(), blocks);
    assert_eq!(datas(&news), ["x"]);
}

#[test]
fn a_log_that_fails_refuses_events_and_the_channels_stay_as_they_are() {
    let (manager, log) = open();
    let news = manager.get_or_create("news").unwrap();
    news.broadcast(message(1)).unwrap();
    log.hold();
    let (then, results) = results();
    news.publish_then([message(2)], Target::All, then("sent"));
    log.wait_until_begun(2);
    news.publish_then([message(3)], Target::All, then("queued"));
    log.fails.store(true, Relaxed);
    log.let_go();
    let mut told = [results.recv().unwrap(), results.recv().unwrap()];
    told.sort_by_key(|(name, _)| *name);
    let unavailable = || PublishError::Unavailable {
        log: ChangeLog::Journal,
        retry_after: Duration::from_secs(1),
    };
    assert_eq!(told[0], ("queued", Err(unavailable())));
    assert_eq!(told[1], ("sent", Err(PublishError::Unconfirmed)));
    assert_eq!(news.broadcast(message(4)), Err(unavailable()));
    assert_eq!(news.finish(None), Err(unavailable()));
    assert!(!manager.remove("news"));
    assert_eq!(datas(&news), ["1"]);
    let status = manager.journal_status().unwrap();
    assert!(!status.is_writable && status.refused >= 4);
    assert!(status.error.unwrap().contains("as the test wants it"));
    assert!(manager.close_journal().is_err(), "it is said once");
    assert!(manager.close_journal().is_ok());
    assert!(!log.is_closed.load(Relaxed));
}

#[test]
fn an_event_that_waits_for_too_long_is_refused_or_left_in_doubt() {
    let (manager, log) = open_with(keeping(), Duration::from_millis(20));
    let news = manager.get_or_create("news").unwrap();
    log.hold();
    let (then, results) = results();
    news.publish_then([message("sent")], Target::All, then("sent"));
    log.wait_until_begun(1);
    let waited = news.broadcast(message("queued"));
    assert!(matches!(waited, Err(PublishError::Unavailable { .. })));
    let unconfirmed = Err(PublishError::Unconfirmed);
    assert_eq!(results.recv().unwrap(), ("sent", unconfirmed));
    log.let_go();
    manager.close_journal().unwrap();
    // It came into the log, and so to the clients.
    assert_eq!(datas(&news), ["sent"]);
}

#[test]
fn a_full_log_waits_for_a_snapshot_and_then_refuses() {
    let (manager, log) = open();
    let news = manager.get_or_create("news").unwrap();
    for n in 1..=2 {
        log.is_full.store(true, Relaxed);
        news.broadcast(message(n)).unwrap();
        assert_eq!(*log.snapshots.lock().unwrap(), n);
    }
    log.is_full.store(true, Relaxed);
    log.stays_full.store(true, Relaxed);
    for _ in 0..3 {
        let refused = news.broadcast(message("refused"));
        assert!(matches!(refused, Err(PublishError::Unavailable { .. })));
    }
    assert_eq!(
        *log.snapshots.lock().unwrap(),
        3,
        "another one is of no use"
    );
    log.is_full.store(false, Relaxed);
    news.broadcast(message(3)).unwrap();
    assert_eq!(datas(&news), ["1", "2", "3"]);
    assert!(manager.journal_status().unwrap().is_writable);
}

#[test]
fn a_block_that_is_ahead_of_a_snapshot_waits_and_is_appended_later() {
    let (manager, log) = open();
    let news = manager.get_or_create("news").unwrap();
    *log.waits.lock().unwrap() = 2;
    for n in 1..=2 {
        news.broadcast(message(n)).unwrap();
    }
    assert_eq!(*log.waits.lock().unwrap(), 0);
    assert_eq!(datas(&news), ["1", "2"]);
}

#[test]
fn the_last_handle_closes_the_log_after_all_that_is_queued() {
    let (manager, log) = open();
    let news = manager.get_or_create("news").unwrap();
    log.hold();
    let (then, results) = results();
    news.publish_then([message(1)], Target::All, then("queued"));
    std::thread::scope(|scope| {
        log.wait_until_begun(1);
        let dropped = scope.spawn(|| drop((manager, news)));
        log.let_go();
        dropped.join().unwrap();
    });
    assert!(log.is_closed.load(Relaxed));
    assert_eq!(results.try_recv().unwrap().1.unwrap().events, 1);
    let (manager, log) = open();
    drop(manager);
    assert!(log.is_closed.load(Relaxed));
}

#[test]
fn a_journal_can_be_opened_again_when_the_last_handle_is_dropped() {
    let directory = Temporary::new("again");
    for n in 0..100 {
        let opened = keeping().open_journal(&directory.0, JournalOptions::new());
        let manager = opened.unwrap_or_else(|error| panic!("{n}: {error}"));
        let news = manager.get_or_create("news").unwrap();
        news.broadcast(message(n)).unwrap();
        drop((manager, news));
    }
}

#[test]
fn a_function_that_drops_the_last_handle_or_closes_does_not_wait_for_itself() {
    for fails in [false, true] {
        // Not before the append: a function of a publish that is refused at once is called
        // on the thread of the publisher.
        let may_fail = Arc::new(AtomicBool::new(false));
        let sync_fails = may_fail.clone();
        let sync: Sync = Box::new(move || match sync_fails.load(Relaxed) {
            false => Ok(()),
            true => Err(JournalError::Failed {
                why: "sync".to_owned(),
            }),
        });
        let every = Duration::from_millis(1);
        let timeout = Duration::from_secs(60);
        let (manager, log) = open_syncing(keeping(), timeout, Some((sync, every)));
        let news = manager.get_or_create("news").unwrap();
        log.hold();
        let (sender, last) = mpsc::channel::<(ChannelManager, Channel)>();
        let (done, is_done) = mpsc::channel();
        news.publish_then([message(1)], Target::All, move |_| {
            let (manager, news) = last.recv().unwrap();
            let _ = manager.close_journal();
            drop((manager, news));
            done.send(()).unwrap();
        });
        log.wait_until_begun(1);
        may_fail.store(fails, Relaxed);
        while fails && manager.journal_status().unwrap().is_writable {
            std::thread::yield_now();
        }
        sender.send((manager, news)).unwrap();
        log.let_go();
        is_done.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}

#[test]
fn a_locked_section_looks_at_the_clients_of_few_publishes() {
    let (manager, log) = open();
    let hub = manager.hub();
    hub.attach_idle();
    let news = manager.get_or_create("news").unwrap();
    for token in 0..LOOKS_MAX as u64 - 1 {
        hub.join(Join::of(&[news.key()], token, &Start::Live))
            .unwrap();
    }
    log.hold();
    let (then, results) = results();
    for n in 0..50 {
        let target = Target::Where(vec![Condition::not("role", "admin")]);
        news.publish_then([message(n)], target, then("one"));
    }
    log.let_go();
    // A debug build counts what a section looks at.
    for _ in 0..50 {
        let (_, published) = results.recv().unwrap();
        assert_eq!(published.unwrap().clients, LOOKS_MAX - 1);
    }
}

#[test]
fn options_that_panic_are_the_defaults_and_the_journal_goes_on() {
    let panics = Arc::new(AtomicBool::new(false));
    let asked = panics.clone();
    let builder = ChannelManager::builder().options_by_name(move |_| {
        assert!(!asked.load(Relaxed), "as the test wants it");
        ChannelOptions::new()
    });
    let (manager, _log) = open_with(builder, Duration::from_secs(60));
    let news = manager.get_or_create("news").unwrap();
    panics.store(true, Relaxed);
    let hub = manager.hub();
    let remove = || Record {
        basis: 0,
        change: Change::Finish {
            channel: "other".into(),
            until_ms: 0,
            last: None,
            begins_after: None,
        },
    };
    let time = BlockTime {
        wall_ms: 0,
        at_ms: 0,
    };
    hub.apply(1, time, [(remove(), ())], |(), outcome| {
        outcome.unwrap();
    });
    assert!(manager.get("other").unwrap().is_finished());
    panics.store(false, Relaxed);
    news.broadcast(message(1)).unwrap();
}

#[test]
fn a_function_that_panics_or_publishes_does_not_stop_the_log() {
    let (manager, _log) = open();
    let news = manager.get_or_create("news").unwrap();
    news.publish_then([message(1)], Target::All, |_| {
        panic!("as the test wants it")
    });
    let (sender, received) = mpsc::channel();
    let again = news.clone();
    news.publish_then([message(2)], Target::All, move |_| {
        sender.send(again.broadcast(message(3))).unwrap();
    });
    assert_eq!(received.recv().unwrap().unwrap().id, None);
    news.broadcast(message(4)).unwrap();
    assert_eq!(datas(&news), ["1", "2", "3", "4"]);
}

#[test]
fn a_replay_makes_the_same_channels() {
    let (manager, log) = open();
    for n in 0..300 {
        let name = format!("channel {}", n % 7);
        let channel = manager.get_or_create(&name).unwrap();
        match n % 50 {
            49 => {
                channel.close();
            }
            40 => drop(
                manager
                    .broadcast_all(message(format!("{n} to all")))
                    .unwrap(),
            ),
            30 => drop(
                channel
                    .send("ann", message(format!("{n} for ann")))
                    .unwrap(),
            ),
            20 => drop(channel.broadcast(message(n).with_id("repeated")).unwrap()),
            _ => {
                let batch = (0..1 + n % 3).map(|part| message(format!("{n} {part}")));
                channel.publish(batch, Target::All).unwrap();
            }
        }
    }
    manager.get("channel 3").unwrap().finish(None).unwrap();
    let other = replayed(&log);
    assert_eq!(other.names(), manager.names());
    for name in manager.names() {
        let [ours, theirs] = [&manager, &other].map(|m| m.get(&name).unwrap());
        assert_eq!(entries(&ours), entries(&theirs), "{name}");
        assert_eq!(ours.is_finished(), theirs.is_finished());
    }
}

#[test]
fn an_event_for_all_channels_is_one_record() {
    let (manager, log) = open();
    let channels = ["a", "b"].map(|name| manager.get_or_create(name).unwrap());
    let published = manager.broadcast_all(message("to all")).unwrap();
    assert_eq!((published.events, published.clients), (1, 0));
    assert_eq!(log.blocks.lock().unwrap().len(), 1);
    for channel in &channels {
        let stored = stored(channel);
        assert_eq!(Some(&stored[0].id), published.id.as_ref());
    }
    let (then, results) = results();
    manager.publish_then(&[message("again")], Target::All, then("again"));
    assert!(results.recv().unwrap().1.unwrap().id > published.id);
    let _here = EngineThread::enter();
    assert_eq!(manager.broadcast_all(message("queued")).unwrap().id, None);
}

#[test]
fn a_possible_loss_is_in_all_channels_in_its_place() {
    let (manager, _log) = open();
    let [kept, unkept] = [
        manager.get_or_create("kept").unwrap(),
        manager
            .get_or_create_with("unkept", ChannelOptions::new)
            .unwrap(),
    ];
    for channel in [&kept, &unkept] {
        channel.broadcast(message("before")).unwrap();
    }
    let hub = manager.hub();
    lose_after(hub, 2);
    let later = manager.get_or_create("later").unwrap();
    // The ids of the last event that is left, and of one that may have been seen and lost.
    for seen in [2, 500] {
        for channel in [&kept, &unkept, &later] {
            let start = Start::After(hub.id_of(seen).to_string());
            let told: Vec<_> = channel.read(start).collect();
            let [Err(ReadError::Gap(gap))] = &*told else {
                panic!("{} after {seen}: {told:?}", channel.name());
            };
            assert_eq!(gap.reason, GapReason::Lost);
            let newest = Start::After(gap.newest.to_string());
            assert_eq!(channel.read(newest).count(), 0, "it is said once");
        }
    }
}

/// A term of the journal begins at 1,000, and what was published behind `after` may be lost.
fn lose_after(hub: &Hub, after: u64) {
    let record = Record {
        basis: after,
        change: Change::Lost { after },
    };
    let time = BlockTime {
        wall_ms: 0,
        at_ms: 0,
    };
    hub.apply(1_000, time, [(record, ())], |(), outcome| {
        outcome.unwrap();
    });
}

/// The reasons of the gaps that a reader receives.
fn gaps(channel: &Channel, start: Start) -> Vec<GapReason> {
    let told = channel.read(start);
    let gap = |read: Result<StoredEvent, ReadError>| match read {
        Err(ReadError::Gap(gap)) => Some(gap.reason),
        _ => None,
    };
    told.filter_map(gap).collect()
}

fn datas_behind_gaps(channel: &Channel) -> Vec<String> {
    let read = channel.read(Start::Earliest).filter_map(Result::ok);
    read.map(|stored| stored.event.data().to_string()).collect()
}

#[test]
fn a_loss_is_said_once_also_where_older_events_are_evicted() {
    let builder = ChannelManager::builder();
    let builder = builder.defaults(ChannelOptions::new().history(History::events(3)));
    let (manager, _log) = open_with(builder, Duration::from_secs(60));
    let channel = manager.get_or_create("a").unwrap();
    for n in 1..=5 {
        channel.broadcast(message(n)).unwrap();
    }
    let hub = manager.hub();
    lose_after(hub, 5);
    for (seen, expected) in [
        (1, &[GapReason::Evicted, GapReason::Lost][..]),
        (4, &[GapReason::Lost]),
        (500, &[GapReason::Lost]),
        (1_000, &[]),
    ] {
        let start = Start::After(hub.id_of(seen).to_string());
        assert_eq!(gaps(&channel, start), expected, "after {seen}");
    }
}

/// Channels have a history, but nothing is kept for channels that are made later.
fn keeping_none_for_all() -> ChannelManagerBuilder {
    ChannelManager::builder().options_by_name(|name| match name {
        "" => ChannelOptions::new(),
        _ => ChannelOptions::new().history(History::events(9)),
    })
}

#[test]
fn an_event_for_all_from_before_the_first_record_is_not_missing_without_a_gap() {
    let (manager, log) = open_with(keeping_none_for_all(), Duration::from_secs(60));
    let [old, ended] = ["old", "ended"].map(|name| manager.get_or_create(name).unwrap());
    manager.broadcast_all(message("to all")).unwrap();
    let [new, new_and_ended] =
        ["new", "new and ended"].map(|name| manager.get_or_create(name).unwrap());
    for channel in [&old, &new] {
        channel.broadcast(message("own")).unwrap();
    }
    for channel in [&ended, &new_and_ended] {
        channel.finish(Some(message("own"))).unwrap();
    }
    let channels = [&old, &ended, &new, &new_and_ended];
    assert_eq!(channels.map(|channel| stored(channel).len()), [2, 2, 1, 1]);
    let other = replayed_by(keeping_none_for_all(), &log);
    let evicted = &[GapReason::Evicted][..];
    for (name, expected) in [
        ("old", evicted),
        ("ended", evicted),
        ("new", &[]),
        ("new and ended", &[]),
    ] {
        let channel = other.get(name).unwrap();
        assert_eq!(gaps(&channel, Start::Earliest), expected, "{name}");
    }
}

#[test]
fn a_publish_from_before_a_removal_does_not_say_where_the_next_channel_began() {
    // Whether an event of its own has made the first channel, and whether an event for all
    // channels is between the removal and the publish.
    for (is_recorded, is_between) in [(false, false), (true, false), (false, true), (true, true)] {
        let (manager, log) = open_with(keeping_none_for_all(), Duration::from_secs(60));
        let first = manager.get_or_create("a").unwrap();
        manager.broadcast_all(message("to all")).unwrap();
        if is_recorded {
            first.broadcast(message("own")).unwrap();
        }
        log.hold();
        let (then, results) = results();
        first.close_then(|closed| assert_eq!(closed, Ok(0)));
        if is_between {
            let events = [message("to all again")];
            manager.publish_then(&events, Target::All, then("to all"));
        }
        first.publish_then([message("next")], Target::All, then("next"));
        log.let_go();
        while results.recv().unwrap().0 != "next" {}
        // The log does not know whether a program had the next channel by then.
        let expected = match is_between {
            true => &[GapReason::Evicted][..],
            false => &[],
        };
        for manager in [&manager, &replayed_by(keeping_none_for_all(), &log)] {
            let next = manager.get("a").unwrap();
            assert_eq!(datas_behind_gaps(&next), ["next"]);
            let of = format!("recorded: {is_recorded}, between: {is_between}");
            assert_eq!(gaps(&next, Start::Earliest), expected, "{of}");
        }
    }
}

/// A directory of a test, which is removed with it.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Temporary {
        let name = format!("pushwheel-hub-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Temporary(path)
    }

    /// Copies the files as they are. A snapshot may be deleting some of them: then it is
    /// tried again.
    fn copy(&self, to: &Temporary) {
        while let Err(error) = self.try_copy(to) {
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
        }
    }

    fn try_copy(&self, to: &Temporary) -> io::Result<()> {
        let _ = fs::remove_dir_all(&to.0);
        fs::create_dir(&to.0)?;
        for file in fs::read_dir(&self.0)? {
            let file = file?;
            fs::copy(file.path(), to.0.join(file.file_name()))?;
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Name of a channel, whether it is finished, and its entries.
type Kept = (Arc<str>, bool, Vec<Shown>);

/// The channels with all that a restart keeps.
fn all_channels(manager: &ChannelManager) -> Vec<Kept> {
    let names = manager.names().into_iter();
    let all = names.map(|name| {
        let channel = manager.get(&name).unwrap();
        (name, channel.is_finished(), entries(&channel))
    });
    all.collect()
}

fn numbers(channels: &[Kept]) -> Vec<(&str, bool, Vec<u64>)> {
    let channels = channels.iter();
    let shown = channels.map(|(name, is_finished, entries)| {
        let numbers = entries.iter().map(|(number, ..)| *number).collect();
        (&**name, *is_finished, numbers)
    });
    shown.collect()
}

/// Ends the publishers, also when an assertion fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// One step of a publisher.
fn step(manager: &ChannelManager, rng: &mut fastrand::Rng) {
    let name = format!("channel {}", rng.u8(..12));
    let channel = manager.get_or_create(&name).unwrap();
    let data = rng.u64(..).to_string().repeat(rng.usize(1..20));
    let published = match rng.u8(..40) {
        0 => {
            channel.close();
            return;
        }
        1 => channel.finish(Some(message(data))).map(drop),
        2 => manager.broadcast_all(message(data)).map(drop),
        3 => channel.send("ann", message(data)).map(drop),
        4..8 => {
            let id = rng.u8(..20).to_string();
            channel.broadcast(message(&id).with_id(id)).map(drop)
        }
        8..12 => channel
            .broadcast_batch([message(&data), message(data)])
            .map(drop),
        _ => channel.broadcast(message(data)).map(drop),
    };
    match published {
        Ok(()) | Err(PublishError::Finished | PublishError::Closed) => {}
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_kill_at_any_moment_of_snapshots_leaves_what_was_accepted() {
    const KILLS: usize = 12;
    let directory = Temporary::new("kills");
    let builder = || {
        let history = History::events(40).age_max(Duration::MAX);
        let options = ChannelOptions::new().history(history);
        ChannelManager::builder().defaults(options)
    };
    let options = || {
        let sync = JournalSync::Every(Duration::from_millis(1));
        JournalOptions::new().sync(sync).segment_bytes(32 << 10)
    };
    let manager = builder().open_journal(&directory.0, options()).unwrap();
    let (pause, is_over) = (RwLock::new(()), AtomicBool::new(false));
    let snapshots = std::thread::scope(|scope| {
        let _end = Ending(&is_over);
        for thread in 0..4 {
            let (manager, pause, is_over) = (&manager, &pause, &is_over);
            let mut rng = fastrand::Rng::with_seed(thread);
            scope.spawn(move || {
                while !is_over.load(Relaxed) {
                    let _running = pause.read().unwrap();
                    for _ in 0..10 {
                        step(manager, &mut rng);
                    }
                }
            });
        }
        let mut snapshots = HashSet::new();
        for kill in 0..KILLS {
            // Each time another snapshot has been made, or is being made.
            let begun = manager.hub().newest_sequence();
            while manager.hub().newest_sequence() < begun + 400 + 150 * kill as u64 {
                std::thread::yield_now();
            }
            let copy = Temporary::new("killed");
            let expected = {
                let _paused = pause.write().unwrap();
                directory.copy(&copy);
                all_channels(&manager)
            };
            for file in fs::read_dir(&copy.0).unwrap() {
                let name = file.unwrap().file_name().into_string().unwrap();
                snapshots.extend(Some(name).filter(|name| name.starts_with("snapshot")));
            }
            let restored = builder().open_journal(&copy.0, options()).unwrap();
            // One that a publisher has opened, and that has only what was published to all,
            // is in no record.
            for (name, ..) in &expected {
                restored.get_or_create(name).unwrap();
            }
            let found = all_channels(&restored);
            assert_eq!(numbers(&found), numbers(&expected), "kill {kill}");
            assert!(found == expected, "kill {kill}: an event differs");
        }
        snapshots
    });
    assert!(snapshots.len() >= 3, "too few snapshots: {snapshots:?}");
    manager.close_journal().unwrap();
    let expected = all_channels(&manager);
    let restored = builder().open_journal(&directory.0, options()).unwrap();
    for (name, ..) in &expected {
        restored.get_or_create(name).unwrap();
    }
    assert!(all_channels(&restored) == expected);
}

#[test]
fn a_channel_that_no_record_has_made_is_removed_as_if_one_had() {
    let (manager, log) = open();
    manager.get_or_create("a").unwrap();
    manager.broadcast_all(message("to all")).unwrap();
    // Made by the program, with what was published to all, and removed.
    manager.get_or_create("b").unwrap();
    assert!(manager.remove("b"));
    let b = manager.get_or_create("b").unwrap();
    b.broadcast(message("new")).unwrap();
    assert_eq!(datas(&b), ["new"]);
    let other = replayed(&log);
    assert_eq!(entries(&other.get("b").unwrap()), entries(&b));
}

#[test]
fn a_journal_of_more_channels_than_there_may_be_is_opened_and_unused_ones_are_removed() {
    let directory = Temporary::new("many");
    let open = |channels_max| {
        ChannelManager::builder()
            .channels_max(channels_max)
            .empty_after(Some(Duration::ZERO))
            .open_journal(&directory.0, JournalOptions::new().segment_bytes(2_000))
            .unwrap()
    };
    // Each of them is removed for the next one, without a record.
    let manager = open(10);
    for n in 0..40 {
        let channel = manager.get_or_create(&format!("channel {n}")).unwrap();
        channel.broadcast(message(n)).unwrap();
    }
    manager.close_journal().unwrap();
    drop(manager);
    let manager = open(10);
    assert!(manager.names().len() <= 10, "{:?}", manager.names());
    drop(manager);
    // A snapshot of many, and then fewer are allowed.
    let manager = open(40);
    let channels = (0..40).map(|n| manager.get_or_create(&format!("channel {n}")));
    let channels: Vec<_> = channels.map(Result::unwrap).collect();
    let snapshot = || {
        let files = fs::read_dir(&directory.0).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut whole = names.filter(|name| name.starts_with("snapshot-"));
        whole.find(|name| !name.ends_with(".tmp"))
    };
    let before = snapshot();
    while snapshot() == before {
        channels[7].broadcast(message("x".repeat(1_000))).unwrap();
    }
    drop(channels);
    manager.close_journal().unwrap();
    drop(manager);
    let manager = open(10);
    assert!(manager.names().len() <= 10, "{:?}", manager.names());
}
