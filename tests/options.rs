//! Options that change while clients are there.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use common::{Served, receive, summaries};
use pushwheel::{ChannelManager, ChannelOptions, Event, History, LagPolicy, PublishError, Rate};

#[test]
fn connected_clients_get_the_new_heartbeat() {
    let silent = || ChannelOptions::new().heartbeat(Duration::ZERO);
    let (served, news) = Served::channel(silent());
    let mut client = served.subscribe("/stream");
    // The line that opens the stream counts too.
    while client.pings() < 1 {
        client.read(1);
    }
    news.set_options(silent().heartbeat(Duration::from_millis(100)));
    while client.pings() < 3 {
        client.read(1);
    }
    // Off again: the next thing that it receives is the event.
    news.set_options(silent());
    news.broadcast(Event::message("here")).unwrap();
    assert_eq!(summaries(&[client.next()]), ["here"]);
}

#[test]
fn new_limits_and_headers_apply_to_new_clients_only() {
    let (served, news) = Served::channel(ChannelOptions::new());
    let mut ann = served.subscribe("/stream");
    let one = ChannelOptions::new().max_clients(1);
    news.set_options(one.header("X-Room", "small").unwrap());
    let refused = served.connect().get("/stream");
    assert_eq!(
        (refused.status, refused.header("x-room")),
        (503, Some("small"))
    );
    assert_eq!(refused.error_code(), "channel_full");
    news.set_options(ChannelOptions::new());
    let mut bea = served.subscribe("/stream");
    news.broadcast(Event::message("both")).unwrap();
    for client in [&mut ann, &mut bea] {
        assert_eq!(summaries(&[client.next()]), ["both"]);
    }
}

#[test]
fn the_history_is_cut_and_grows_as_the_new_options_say() {
    let keeping = |events| ChannelOptions::new().history(History::events(events));
    let channels = ChannelManager::builder().defaults(keeping(10)).build();
    let news = channels.get_or_create("news").unwrap();
    let publish = |count| {
        for n in 0..count {
            news.broadcast(Event::message(n.to_string())).unwrap();
        }
        news.stats().unwrap().history_events
    };
    assert_eq!(publish(10), 10);
    news.set_options(keeping(3));
    assert_eq!(news.stats().unwrap().history_events, 3);
    news.set_options(keeping(5));
    assert_eq!(publish(10), 5);
}

#[test]
fn a_new_rate_begins_with_a_full_bucket() {
    let hourly = |burst| Rate::per_second(1.0 / 3600.0).burst(burst);
    let options = |burst| ChannelOptions::new().publish_rate(hourly(burst));
    let channels = ChannelManager::builder().defaults(options(1)).build();
    let news = channels.get_or_create("news").unwrap();
    let publish = || news.broadcast(Event::message("x"));
    assert!(publish().is_ok());
    assert!(matches!(publish(), Err(PublishError::RateLimited { .. })));
    news.set_options(options(2));
    assert!(publish().is_ok() && publish().is_ok());
    assert!(matches!(publish(), Err(PublishError::RateLimited { .. })));
    news.set_options(ChannelOptions::new());
    assert!(publish().is_ok());
}

#[test]
fn a_channel_made_to_conflate_or_not_stays_so() {
    let history = || ChannelOptions::new().history(History::events(10));
    let conflating = || history().lag_policy(LagPolicy::Conflate);
    for (made_with, given, kept) in [(conflating(), history(), 1), (history(), conflating(), 2)] {
        let channels = ChannelManager::builder().defaults(made_with).build();
        let prices = channels.get_or_create("prices").unwrap();
        prices.set_options(given);
        for price in ["1", "2"] {
            prices
                .broadcast(Event::message(price).with_key("a"))
                .unwrap();
        }
        assert_eq!(prices.stats().unwrap().history_events, kept);
    }
}

#[test]
fn channels_are_made_and_changed_by_their_names() {
    let by_name = |long: usize| {
        move |name: &str| match name.starts_with("log.") {
            true => ChannelOptions::new().history(History::events(long)),
            false => ChannelOptions::new(),
        }
    };
    let channels = ChannelManager::builder()
        .options_by_name(by_name(4))
        .build();
    let kept = |name: &str| {
        let channel = channels.get_or_create(name).unwrap();
        for _ in 0..10 {
            channel.broadcast(Event::message("x")).unwrap();
        }
        channel.stats().unwrap().history_events
    };
    assert_eq!((kept("log.a"), kept("news")), (4, 0));
    channels.set_options_by_name(by_name(2));
    let stats = channels.get("log.a").unwrap().stats().unwrap();
    assert_eq!(stats.history_events, 2);
    assert_eq!((kept("log.b"), kept("news")), (2, 0));
}

#[test]
fn a_channel_that_is_made_while_the_options_change_has_the_last_ones() {
    let (asked, was_asked) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let may_go_on = Mutex::new(may_go_on);
    let slow = move |_: &str| {
        asked.send(()).unwrap();
        may_go_on.lock().unwrap().recv().unwrap();
        ChannelOptions::new()
    };
    let channels = ChannelManager::builder().options_by_name(slow).build();
    let made = thread::scope(|scope| {
        let maker = scope.spawn(|| channels.get_or_create("news").unwrap());
        was_asked.recv().unwrap();
        let two = |_: &str| ChannelOptions::new().history(History::events(2));
        channels.set_options_by_name(two);
        go_on.send(()).unwrap();
        maker.join().unwrap()
    });
    for _ in 0..3 {
        made.broadcast(Event::message("x")).unwrap();
    }
    assert_eq!(made.stats().unwrap().history_events, 2);
}

#[test]
fn of_two_changes_at_once_the_newest_options_hold_for_every_channel() {
    let keeping = |events| ChannelOptions::new().history(History::events(events));
    let channels = ChannelManager::new();
    let news = channels.get_or_create("news").unwrap();
    let (asked, was_asked) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let may_go_on = Mutex::new(may_go_on);
    thread::scope(|scope| {
        let channels = &channels;
        let older = scope.spawn(move || {
            channels.set_options_by_name(move |_| {
                asked.send(()).unwrap();
                may_go_on.lock().unwrap().recv().unwrap();
                keeping(1)
            });
        });
        was_asked.recv().unwrap();
        channels.set_options_by_name(move |_| keeping(2));
        go_on.send(()).unwrap();
        older.join().unwrap();
    });
    for made in [news, channels.get_or_create("more").unwrap()] {
        for _ in 0..3 {
            made.broadcast(Event::message("x")).unwrap();
        }
        assert_eq!(made.stats().unwrap().history_events, 2);
    }
}

#[test]
fn the_longest_heartbeat_means_never_and_is_harmless() {
    let longest = || ChannelOptions::new().heartbeat(Duration::MAX);
    let (served, news) = Served::channel(longest());
    let mut clients: Vec<_> = (0..3).map(|_| served.subscribe("/stream")).collect();
    news.set_options(ChannelOptions::new());
    news.set_options(longest());
    news.broadcast(Event::message("here")).unwrap();
    for client in &mut clients {
        assert_eq!(summaries(&[client.next()]), ["here"]);
    }
}

#[test]
fn options_that_are_replaced_may_call_the_manager_when_they_are_dropped() {
    struct AtTheEnd(ChannelManager, mpsc::Sender<usize>);

    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            self.0.get_or_create("made at the end").unwrap();
            _ = self.1.send(self.0.names().len());
        }
    }

    let channels = ChannelManager::new();
    let (sender, names) = mpsc::channel();
    let at_the_end = AtTheEnd(channels.clone(), sender);
    channels.set_options_by_name(move |_| {
        let _held = &at_the_end;
        ChannelOptions::new()
    });
    let replaced = thread::spawn(move || channels.set_options_by_name(|_| ChannelOptions::new()));
    assert_eq!(receive(&names), 1);
    replaced.join().unwrap();
}

#[test]
fn the_options_of_a_channel_are_those_that_apply() {
    let channels = ChannelManager::new();
    let made = || ChannelOptions::new().max_clients(7).compress_from(100);
    let news = channels.get_or_create_with("news", made).unwrap();
    let conflating = ChannelOptions::new().lag_policy(LagPolicy::Conflate);
    news.set_options(conflating.publish_rate(Rate::per_second(2.0)));
    let options = news.options().unwrap();
    assert_eq!(options.clients_max, usize::MAX);
    assert_eq!(options.publish_rate, Some(Rate::per_second(2.0)));
    // These two stay as the channel was made.
    assert_eq!(options.compress_from, Some(100));
    assert_eq!(options.lag_policy, LagPolicy::Skip);
    news.close();
    assert!(news.options().is_none());
}
