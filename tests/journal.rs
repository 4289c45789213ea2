//! The journal of a program that embeds the library, over real files. What a process leaves
//! behind that is killed is the directory as it is at that moment: a copy of it.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;
#[path = "common/temporary.rs"]
mod temporary;

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use common::{Served, eventually};
use pushwheel::{
    Channel, ChannelManager, ChannelManagerBuilder, ChannelOptions, Engine, Event, EventId,
    History, JournalError, JournalOptions, JournalSync, PublishError, Start, Subscription, Target,
};
use temporary::Temporary;

fn segments(directory: &Temporary) -> Vec<PathBuf> {
    let files = fs::read_dir(&directory.0)
        .unwrap()
        .map(|file| file.unwrap().path());
    let mut segments: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort_unstable();
    segments
}

fn keeping() -> ChannelManagerBuilder {
    ChannelManager::builder().defaults(ChannelOptions::new().history(History::events(1_000)))
}

fn open(directory: &Temporary) -> ChannelManager {
    keeping()
        .open_journal(&directory.0, JournalOptions::new())
        .unwrap()
}

fn publish(channel: &Channel, data: impl ToString) -> EventId {
    let published = channel.broadcast(Event::message(data.to_string()));
    published
        .unwrap()
        .id
        .expect("it has waited for the journal")
}

fn read(manager: &ChannelManager, name: &str) -> Vec<(EventId, String)> {
    let channel = manager.get(name).unwrap();
    let all = channel.read(Start::Earliest).map(|stored| {
        let stored = stored.unwrap();
        (stored.id, stored.event.data().to_owned())
    });
    all.collect()
}

#[test]
fn what_was_published_is_there_after_a_kill_and_after_a_clean_end() {
    for sync in [
        JournalSync::Always,
        JournalSync::Every(Duration::from_millis(5)),
    ] {
        let directory = Temporary::new(&format!("kill-{sync:?}"));
        let options = JournalOptions::new().sync(sync);
        let open = |directory: &Temporary| {
            keeping()
                .open_journal(&directory.0, options.clone())
                .unwrap()
        };
        let manager = open(&directory);
        let news = manager.get_or_create("news").unwrap();
        let mut expected: Vec<(EventId, String)> = Vec::new();
        for n in 0..30 {
            expected.push((publish(&news, n), n.to_string()));
            if n % 10 == 0 {
                let killed = directory.killed(&format!("killed-{sync:?}"));
                let after = open(&killed);
                assert_eq!(read(&after, "news"), expected);
                let id = publish(&after.get_or_create("news").unwrap(), "later");
                assert!(id > expected.last().unwrap().0, "ids go on");
            }
        }
        drop((news, manager));
        assert_eq!(read(&open(&directory), "news"), expected);
    }
}

#[test]
fn a_client_resumes_over_a_kill_without_a_gap() {
    let directory = Temporary::new("resumes");
    let serve = |manager: &ChannelManager| {
        let news = manager.get_or_create("news").unwrap();
        let stream = news.clone();
        let builder = Engine::builder().channels(manager);
        (
            Served::start(builder.get("/stream", move |_| Subscription::new(&stream))),
            news,
        )
    };
    let manager = open(&directory);
    let (served, news) = serve(&manager);
    let mut client = served.subscribe("/stream");
    eventually("the client has joined", || news.client_count() == 1);
    publish(&news, 1);
    publish(&news, 2);
    let first = client.next();
    assert_eq!(first.data, "1");
    let seen = first.last_event_id;
    let killed = directory.killed("resumed");
    let manager = open(&killed);
    let (served, news) = serve(&manager);
    publish(&news, 3);
    let mut client = served.resubscribe("/stream", &seen);
    assert_eq!([client.next().data, client.next().data], ["2", "3"]);
}

#[test]
fn finished_and_removed_channels_are_so_after_a_restart() {
    let directory = Temporary::new("finished");
    let manager = open(&directory);
    for name in ["finished", "removed", "again"] {
        publish(&manager.get_or_create(name).unwrap(), name);
    }
    let finished = manager.get("finished").unwrap();
    assert_eq!(finished.finish(Some(Event::message("end"))), Ok(0));
    assert!(manager.remove("removed"));
    manager.get("again").unwrap().close();
    publish(&manager.get_or_create("again").unwrap(), "new");
    let manager = open(&directory.killed("finished-killed"));
    assert_eq!(manager.names(), ["again".into(), "finished".into()]);
    let finished = manager.get("finished").unwrap();
    assert!(finished.is_finished());
    assert_eq!(
        finished.broadcast(Event::message("late")),
        Err(PublishError::Finished)
    );
    let datas = |name| read(&manager, name).into_iter().map(|(_, data)| data);
    assert_eq!(datas("finished").collect::<Vec<_>>(), ["finished", "end"]);
    assert_eq!(datas("again").collect::<Vec<_>>(), ["new"]);
}

#[test]
fn a_handler_publishes_without_waiting_and_its_events_survive() {
    let directory = Temporary::new("handlers");
    let manager = open(&directory);
    let news = manager.get_or_create("news").unwrap();
    let (sender, published) = mpsc::channel();
    let channel = news.clone();
    let builder = Engine::builder()
        .channels(&manager)
        .post("/publish", move |_| {
            let queued = channel.broadcast(Event::message("queued")).unwrap();
            assert_eq!(queued.id, None);
            let sender = sender.clone();
            let then = move |published| sender.send(published).unwrap();
            channel.publish_then([Event::message("then")], Target::All, then);
        });
    let served = Served::start(builder);
    let mut connection = served.connect();
    assert_eq!(connection.post("/publish", "").status, 204);
    let then: pushwheel::Published = published.recv().unwrap().unwrap();
    let manager = open(&directory.killed("handlers-killed"));
    let stored = read(&manager, "news");
    assert_eq!(stored[0].1, "queued");
    assert_eq!(
        (Some(&stored[1].0), &*stored[1].1),
        (then.id.as_ref(), "then")
    );
}

#[test]
fn a_journal_takes_snapshots_and_keeps_few_files() {
    let directory = Temporary::new("snapshots");
    let options = JournalOptions::new().sync(JournalSync::Always);
    let options = options.bytes_max(24 << 20);
    let manager = keeping().open_journal(&directory.0, options).unwrap();
    let news = manager.get_or_create("news").unwrap();
    // 80 MiB, of which the history holds 1.
    let data = "x".repeat(8 << 10);
    for _ in 0..1_000 {
        let batch = (0..10).map(|_| Event::message(&data));
        news.publish(batch, Target::All).unwrap();
    }
    assert!(manager.journal_status().unwrap().bytes <= 24 << 20);
    let held = read_all_but_the_gap(&manager, "news");
    assert!(held.len() > 100);
    manager.close_journal().unwrap();
    let manager = open(&directory);
    assert_eq!(read_all_but_the_gap(&manager, "news"), held);
}

fn read_all_but_the_gap(manager: &ChannelManager, name: &str) -> Vec<EventId> {
    let channel = manager.get(name).unwrap();
    let stored = channel.read(Start::Earliest).flatten();
    stored.map(|stored| stored.id).collect()
}

#[test]
fn an_incomplete_end_is_cut_off_and_damage_is_refused_and_left() {
    let directory = Temporary::new("damage");
    let manager = open(&directory);
    let news = manager.get_or_create("news").unwrap();
    for n in 0..3 {
        publish(&news, n);
    }
    let torn = directory.killed("torn");
    let [segment] = &*segments(&torn) else {
        panic!("one is enough");
    };
    let len = fs::metadata(segment).unwrap().len();
    fs::OpenOptions::new()
        .write(true)
        .open(segment)
        .unwrap()
        .set_len(len - 1)
        .unwrap();
    let manager = open(&torn);
    assert_eq!(read(&manager, "news").len(), 2);

    let damaged = directory.killed("damaged");
    let [segment] = &*segments(&damaged) else {
        panic!("one is enough");
    };
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(segment)
        .unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(len / 2)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(len / 2)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
    drop(file);
    let before = fs::read(segment).unwrap();
    let refused = keeping().open_journal(&damaged.0, JournalOptions::new());
    let error = refused.unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
    assert_eq!(fs::read(segment).unwrap(), before);
}

#[test]
fn one_process_uses_a_journal_at_a_time() {
    let directory = Temporary::new("lock");
    let manager = open(&directory);
    let second = keeping().open_journal(&directory.0, JournalOptions::new());
    assert!(matches!(second.unwrap_err(), JournalError::Locked { .. }));
    manager.close_journal().unwrap();
    let late = manager
        .get_or_create("news")
        .unwrap()
        .broadcast(Event::message("late"));
    assert!(matches!(late, Err(PublishError::Unavailable { .. })));
    assert!(!manager.journal_status().unwrap().is_writable);
    // The files are free although there are handles.
    open(&directory);
}

#[cfg(unix)]
#[test]
fn files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Temporary::new("modes");
    let manager = open(&directory);
    publish(&manager.get_or_create("news").unwrap(), "secret");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory.0), 0o700);
    for file in fs::read_dir(&directory.0).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}
