//! Channels and their manager as a program has them, with no engine running:
//! what can be made, asked and closed.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::thread;
use std::time::Duration;

use common::sequence;
use pushwheel::{
    Channel, ChannelError, ChannelManager, ChannelOptions, Condition, Event, EventError, History,
    PublishError, Published, Subscription, Target,
};

fn channel(options: ChannelOptions) -> Channel {
    let channels = ChannelManager::builder().defaults(options).build();
    channels.get_or_create("news").unwrap()
}

#[test]
fn without_a_journal_a_result_is_passed_on_before_the_call_returns() {
    let manager = ChannelManager::new();
    let news = manager.get_or_create("news").unwrap();
    let (sender, results) = std::sync::mpsc::channel();
    let event = || [Event::message("x")];
    let events_of = |sender: &std::sync::mpsc::Sender<_>| {
        let sender = sender.clone();
        move |published: Result<Published, _>| {
            sender
                .send(published.map(|published| published.events))
                .unwrap();
        }
    };
    news.publish_then(event(), Target::All, events_of(&sender));
    assert_eq!(results.try_recv(), Ok(Ok(1)));
    manager.publish_then(&event(), Target::All, events_of(&sender));
    assert_eq!(results.try_recv(), Ok(Ok(1)));
    let finished = sender.clone();
    news.finish_then(None, move |clients| finished.send(clients).unwrap());
    assert_eq!(results.try_recv(), Ok(Ok(0)));
    news.publish_then(event(), Target::All, events_of(&sender));
    assert_eq!(results.try_recv(), Ok(Err(PublishError::Finished)));
}

#[test]
fn a_channel_works_before_any_engine_runs() {
    let news = channel(ChannelOptions::new().history(History::events(2)));
    assert_eq!(news.name(), "news");
    assert_eq!((news.client_count(), news.client_ids()), (0, vec![]));
    assert!(news.clients().is_empty());
    assert!(!news.has_client("ann") && news.client("ann").is_none());
    assert!(!news.disconnect("ann"));

    let first = news.broadcast(Event::new("n", "1")).unwrap();
    assert_eq!((first.clients, first.events), (0, 1));
    let batch = news.broadcast_batch([Event::message("2"), Event::message("3")]);
    let batch = batch.unwrap();
    assert_eq!((batch.clients, batch.events), (0, 2));
    assert!(sequence(&first.id.unwrap().to_string()) < sequence(&batch.id.unwrap().to_string()));
    assert_eq!(news.send("ann", Event::message("4")).unwrap().clients, 0);
    let all = |_: &pushwheel::Candidate| true;
    let sent = news.broadcast_to(all, Event::message("5")).unwrap();
    assert_eq!(sent.clients, 0);
    let admins = [Condition::new("role", "admin")];
    let last = news.broadcast_where(&admins, Event::message("6")).unwrap();
    assert_eq!(last.clients, 0);

    let stats = news.stats().unwrap();
    assert_eq!((&*stats.name, stats.clients), ("news", 0));
    assert_eq!((stats.published, stats.delivered, stats.gaps), (6, 0, 0));
    assert_eq!(stats.history_events, 2);
    assert!(stats.history_bytes > 0);
    assert_eq!(stats.newest, last.id);
    assert_eq!(stats.oldest, sent.id);

    assert_eq!(news.close(), 0);
    assert!(news.is_closed() && news.stats().is_none());
}

#[test]
fn without_a_history_and_clients_nothing_is_kept() {
    let news = channel(ChannelOptions::new());
    for _ in 0..100 {
        news.broadcast(Event::message("x")).unwrap();
    }
    let stats = news.stats().unwrap();
    assert_eq!((stats.published, stats.history_bytes), (100, 0));
    assert_eq!((stats.oldest, stats.newest), (None, None));
}

#[test]
fn an_event_that_cannot_be_written_is_refused_and_says_why() {
    let news = channel(ChannelOptions::new().event_bytes_max(100));
    let long = "x".repeat(300);
    for (event, error) in [
        (Event::new("a\nb", ""), EventError::NameLineBreak),
        (Event::new("a\rb", ""), EventError::NameLineBreak),
        (
            Event::new(&long, ""),
            EventError::NameTooLong { bytes: 300 },
        ),
        (Event::new("pushwheel.gap", ""), EventError::NameReserved),
        (Event::message("").with_id(""), EventError::IdEmpty),
        (Event::message("").with_id("a\n"), EventError::IdLineBreak),
        (Event::message("").with_id("a\0"), EventError::IdNul),
        (
            Event::message("").with_retry(Duration::from_secs(1 << 32)),
            EventError::RetryTooLong,
        ),
    ] {
        let refused = news.broadcast(&event).unwrap_err();
        assert!(!refused.code().is_empty() && refused.to_string().contains(' '));
        assert_eq!(refused, PublishError::Event(error));
    }
    let large = Event::message("x".repeat(100));
    let refused = [
        news.broadcast(&large).map(|sent| sent.clients),
        news.finish(Some(large)),
    ];
    for refused in refused {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, PublishError::TooLarge { max: 100, .. }));
    }
    assert_eq!(news.stats().unwrap().published, 0);
    assert_eq!(news.finish(None), Ok(0), "it was not finished before");
}

#[test]
fn threads_that_make_the_same_channel_at_once_get_the_same_one() {
    let channels = ChannelManager::new();
    let publish = || {
        for n in 0..100 {
            let channel = channels.get_or_create(&format!("{}", n % 10)).unwrap();
            channel.broadcast(Event::message("x")).unwrap();
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(publish);
        }
    });
    let stats = channels.stats();
    assert_eq!(stats.channels, 10);
    assert!(stats.channel_stats.iter().all(|c| c.published == 40));
}

#[test]
fn unused_empty_channels_make_room() {
    let options = ChannelOptions::new().history(History::events(1));
    let manager = ChannelManager::builder().defaults(options);
    let channels = manager.clone().channels_max(1000).build();
    let fill = |channels: &ChannelManager| {
        for n in 0..998 {
            channels.get_or_create(&format!("empty {n}")).unwrap();
        }
        let held = channels.get_or_create("held").unwrap();
        let full = channels.get_or_create("full").unwrap();
        full.broadcast(Event::message("kept")).unwrap();
        held
    };
    let _held = fill(&channels);
    for n in 0..5000 {
        channels.get_or_create(&format!("new {n}")).unwrap();
    }
    assert!(channels.has("held") && channels.has("full"));
    assert!(channels.names().len() <= 1000);

    // Channels with the option to stay stay.
    let channels = manager.empty_after(None).channels_max(1000).build();
    let _held = fill(&channels);
    let refused = channels.get_or_create("new").unwrap_err();
    assert_eq!(refused, ChannelError::TooMany { max: 1000 });
}

#[test]
#[should_panic(expected = "of one manager")]
fn a_stream_cannot_merge_channels_of_two_managers() {
    let (one, other) = (
        channel(ChannelOptions::new()),
        channel(ChannelOptions::new()),
    );
    _ = Subscription::new(&one).and(&other);
}
