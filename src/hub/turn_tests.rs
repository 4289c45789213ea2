//! Publishing in the turns of reactors, through a log in memory.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::engine_thread::EngineThread;
use super::held_wakes::{self, HeldWakes, Kind};
use super::journal_tests::{Shared, datas, keeping, message, open, open_with};
use crate::{Channel, ChannelManager, PublishError, Published, Target};

/// The result of a publish, and the thread that passed it on.
type Told = (Result<Published, PublishError>, ThreadId);

/// Marks the current thread as a reactor's.
fn reactor() -> (EngineThread, HeldWakes) {
    (EngineThread::enter(), HeldWakes::begin(&[Kind::Journal]))
}

/// Publishes so many events, and returns their results as they come.
fn publish(channel: &Channel, events: usize) -> mpsc::Receiver<Told> {
    let (sender, results) = mpsc::channel();
    for n in 0..events {
        let sender = sender.clone();
        channel.publish_then([message(n)], Target::All, move |published| {
            sender.send((published, thread::current().id())).unwrap();
        });
    }
    results
}

/// Returns whether the journal's own thread waits for news.
fn is_idle(manager: &ChannelManager) -> bool {
    manager.hub().proposals.as_ref().unwrap().is_idle()
}

fn appends(log: &Shared) -> usize {
    log.threads.lock().unwrap().len()
}

fn open_quick() -> (ChannelManager, Channel, Arc<Shared>) {
    let (manager, log) = open();
    log.is_quick.store(true, Relaxed);
    let news = manager.get_or_create("news").unwrap();
    // From here on its thread waits.
    news.broadcast(message("first")).unwrap();
    while !is_idle(&manager) {
        thread::yield_now();
    }
    (manager, news, log)
}

#[test]
fn the_publishes_of_a_turn_are_one_append_on_its_thread() {
    let (_manager, news, log) = open_quick();
    let _here = reactor();
    let results = publish(&news, 3);
    assert_eq!(appends(&log), 1);
    assert!(held_wakes::release());
    let own = thread::current().id();
    let told: Vec<_> = results.try_iter().collect();
    assert_eq!(told.len(), 3);
    assert!(
        told.iter()
            .all(|(result, thread)| result.is_ok() && *thread == own)
    );
    assert_eq!((appends(&log), log.threads.lock().unwrap()[1]), (2, own));
    assert_eq!(datas(&news), ["first", "0", "1", "2"]);
    assert!(!held_wakes::release());
}

#[test]
fn a_turn_with_much_to_append_has_it_appended_beside_it() {
    let (_manager, news, log) = open_quick();
    let _here = reactor();
    let results = publish(&news, 40);
    // Before the turn has ended.
    let own = thread::current().id();
    assert!((0..32).all(|_| results.recv().unwrap().1 != own));
    held_wakes::release();
    assert_eq!(results.iter().count(), 8);
    assert!(appends(&log) >= 2);
}

#[test]
fn many_publishes_of_a_turn_are_appended_between_its_connections() {
    let (_manager, news, log) = open_quick();
    let _here = reactor();
    let own = thread::current().id();
    let mut results = Vec::new();
    for count in [15, 1] {
        held_wakes::release_many();
        assert_eq!(appends(&log), 1);
        results.push(publish(&news, count));
    }
    held_wakes::release_many();
    assert_eq!(log.threads.lock().unwrap()[1..], [own]);
    assert_eq!(datas(&news).len(), 17);
}

#[test]
fn a_turn_leaves_to_the_journal_what_may_wait_for_the_disk() {
    let (_manager, news, log) = open_quick();
    log.is_quick.store(false, Relaxed);
    let _here = reactor();
    let results = publish(&news, 3);
    assert!(held_wakes::release());
    let own = thread::current().id();
    assert!(
        results
            .iter()
            .all(|(result, thread)| result.is_ok() && thread != own)
    );
    assert_eq!(appends(&log), 2);
    let large = message("x".repeat(100_000));
    log.is_quick.store(true, Relaxed);
    let (sender, results) = mpsc::channel();
    news.publish_then([large], Target::All, move |_| {
        sender.send(thread::current().id()).unwrap();
    });
    held_wakes::release();
    assert_ne!(results.recv().unwrap(), own, "so much takes long");
}

#[test]
fn a_function_that_publishes_or_closes_on_the_thread_of_a_turn_waits_for_nothing() {
    let (manager, news, log) = open_quick();
    let here = reactor();
    let (sender, results) = mpsc::channel();
    let (again, closing) = (news.clone(), manager.clone());
    news.publish_then([message(1)], Target::All, move |published| {
        published.unwrap();
        again.publish_then([message(2)], Target::All, move |published| {
            sender.send(published).unwrap();
        });
        closing.close_journal().unwrap();
    });
    held_wakes::release();
    assert!(results.recv().unwrap().is_ok());
    drop(here);
    manager.close_journal().unwrap();
    assert!(log.is_closed.load(Relaxed));
    assert_eq!(datas(&news), ["first", "1", "2"]);
}

#[test]
fn a_handler_that_waits_for_its_own_publish_receives_the_result() {
    let (manager, _log) = open_with(keeping(), Duration::from_millis(400));
    let news = manager.get_or_create("news").unwrap();
    news.broadcast(message("first")).unwrap();
    let _here = reactor();
    let (result, _) = publish(&news, 1).recv().unwrap();
    assert!(result.unwrap().id.is_some());
}

#[test]
fn a_failed_write_of_a_turn_ends_the_journal() {
    let (manager, news, log) = open_quick();
    log.fails.store(true, Relaxed);
    let here = reactor();
    let results = publish(&news, 1);
    held_wakes::release();
    assert_eq!(results.recv().unwrap().0, Err(PublishError::Unconfirmed));
    drop(here);
    assert!(manager.journal_status().unwrap().error.is_some());
    let refused = news.broadcast(message(2)).unwrap_err();
    assert!(matches!(refused, PublishError::Unavailable { .. }));
}

#[cfg(feature = "internals")]
#[test]
fn after_a_slow_write_turns_write_nothing_for_a_while() {
    use super::clock::Clock;
    use super::journal_tests::open_at;

    let now_ms = Arc::default();
    let clock = Clock::manual(Arc::clone(&now_ms));
    let timeout = Duration::from_secs(60);
    let (manager, log) = open_at(keeping(), (clock, now_ms.clone()), timeout, None);
    log.is_quick.store(true, Relaxed);
    log.append_ms.store(10, Relaxed);
    let news = manager.get_or_create("news").unwrap();
    news.broadcast(message("slow")).unwrap();
    log.append_ms.store(0, Relaxed);
    let _here = reactor();
    let own = thread::current().id();
    for (after_ms, is_here) in [(0, false), (600, false), (100, true)] {
        while !is_idle(&manager) {
            thread::yield_now();
        }
        now_ms.fetch_add(after_ms, Relaxed);
        let results = publish(&news, 1);
        held_wakes::release();
        let (_, thread) = results.recv().unwrap();
        assert_eq!(thread == own, is_here, "{after_ms}");
    }
}
