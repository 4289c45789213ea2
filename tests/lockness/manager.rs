//! `ChannelManager`.

use std::sync::Arc;
use std::time::Duration;

use pushwheel::{
    CHANNEL_NAME_BYTES_MAX, Channel, ChannelError, ChannelManager, ChannelOptions,
    DisconnectReason, Engine, Event, History, PublishError, Rate, Response, Subscription,
};

use crate::common::{Served, Subscriber, eventually, receive};
use crate::{Room, known};

/// An engine that streams each channel at its name, and creates it.
fn serve(channels: &ChannelManager) -> Served {
    let builder = Engine::builder().channels(channels);
    let builder = builder.get("/{channel}", |request| -> Result<Subscription, Response> {
        let name = request.param("channel").unwrap();
        let channel = request.channels().get_or_create(name)?;
        Ok(known(Subscription::new(&channel), request))
    });
    Served::start(builder)
}

fn names(channels: &ChannelManager) -> Vec<String> {
    channels.names().iter().map(Arc::to_string).collect()
}

#[test]
fn get_or_create_makes_a_channel_once_with_the_options_of_the_first() {
    let one = ChannelOptions::new().history(History::events(1));
    let channels = ChannelManager::builder().defaults(one).build();
    let two = || ChannelOptions::new().history(History::events(2));
    let default = channels.get_or_create("default").unwrap();
    let own = channels.get_or_create_with("own", two).unwrap();
    let again = channels.get_or_create("own").unwrap();
    channels.get_or_create_with("default", two).unwrap();
    for data in ["1", "2", "3"] {
        default.broadcast(Event::message(data)).unwrap();
        own.broadcast(Event::message(data)).unwrap();
    }
    assert_eq!(default.stats().unwrap().history_events, 1);
    assert_eq!(again.stats().unwrap().history_events, 2);
    assert_eq!(names(&channels), ["default", "own"]);
}

#[test]
fn get_or_create_says_which_names_there_cannot_be_and_how_many_channels() {
    let channels = ChannelManager::builder().channels_max(2).build();
    let longest = "x".repeat(CHANNEL_NAME_BYTES_MAX);
    for name in ["", "a/b", "a\nb", "\u{85}", &format!("{longest}x")] {
        assert_eq!(ChannelManager::check_name(name), Err(ChannelError::Name));
        let refused = channels.get_or_create(name).unwrap_err();
        assert_eq!(refused, ChannelError::Name);
    }
    let held = [&*longest, "Grüße, Ann?"].map(|name| channels.get_or_create(name).unwrap());
    let refused = channels.get_or_create("third").unwrap_err();
    assert_eq!(refused, ChannelError::TooMany { max: 2 });
    assert!(channels.get_or_create(&longest).is_ok(), "it is there");
    assert!(channels.remove(&longest));
    assert!(channels.get_or_create("third").is_ok());
    // A channel without handles, clients and history makes room.
    drop(held);
    assert!(channels.get_or_create("fourth").is_ok());
}

#[test]
fn get_and_has_find_a_channel_and_make_none() {
    let channels = ChannelManager::new();
    assert!(channels.get("news").is_none() && !channels.has("news"));
    assert!(channels.names().is_empty());
    let news = channels.get_or_create("news").unwrap();
    news.broadcast(Event::message("x")).unwrap();
    let found = channels.get("news").unwrap();
    assert_eq!((found.name(), found.stats()), ("news", news.stats()));
    assert!(channels.has("news") && !channels.has("New"));
}

#[test]
fn channel_names_are_in_order() {
    let channels = ChannelManager::new();
    for name in ["naïve room 🎡", "b", "a", "c"] {
        channels.get_or_create(name).unwrap();
    }
    assert_eq!(names(&channels), ["a", "b", "c", "naïve room 🎡"]);
}

#[test]
fn total_clients_counts_the_clients_of_all_channels() {
    let channels = ChannelManager::new();
    let served = serve(&channels);
    assert_eq!(channels.total_clients(), 0);
    let a = ["/a", "/a"].map(|path| served.subscribe(path));
    let _b = served.subscribe("/b");
    assert_eq!(channels.total_clients(), 3);
    drop(a);
    eventually("two have left", || channels.total_clients() == 1);
    channels.remove("b");
    assert_eq!(channels.total_clients(), 0);
}

#[test]
fn broadcast_all_reaches_the_clients_of_every_channel() {
    let channels = ChannelManager::new();
    let served = serve(&channels);
    let all = Event::new("maintenance", "in five minutes");
    let published = channels.broadcast_all(&all).unwrap();
    assert_eq!((published.events, published.clients), (1, 0));
    let mut clients = ["/a", "/a", "/b", "/c"].map(|path| served.subscribe(path));
    let published = channels.broadcast_all(&all).unwrap();
    assert_eq!((published.events, published.clients), (1, 4));
    let two = ["1", "2"].map(Event::message);
    let published = channels.broadcast_batch_all(&two).unwrap();
    assert_eq!((published.events, published.clients), (2, 4));
    for client in &mut clients {
        assert_eq!(client.next().name, "maintenance");
        assert_eq!([client.next().data, client.next().data], ["1", "2"]);
    }
    let refused = channels.broadcast_all(Event::new("two\nlines", ""));
    assert!(matches!(refused, Err(PublishError::Event(_))));
}

#[test]
fn broadcast_all_goes_by_the_default_limits_and_leaves_finished_channels_out() {
    let defaults = ChannelOptions::new()
        .event_bytes_max(100)
        .publish_rate(Rate::per_second(0.001).burst(2));
    let channels = ChannelManager::builder().defaults(defaults).build();
    let make = |name: &str, options: fn() -> ChannelOptions| {
        channels.get_or_create_with(name, options).unwrap()
    };
    let limited = make("limited", || {
        ChannelOptions::new().publish_rate(Rate::per_second(0.001))
    });
    let small = make("small", || ChannelOptions::new().event_bytes_max(10));
    let finished = make("finished", ChannelOptions::new);
    limited
        .broadcast(Event::message("all that its rate allows"))
        .unwrap();
    finished.finish(None).unwrap();
    let refused = channels.broadcast_all(Event::message("x".repeat(100)));
    assert!(matches!(
        refused,
        Err(PublishError::TooLarge { max: 100, .. })
    ));
    let two = ["1", "more than 10 bytes"].map(Event::message);
    let published = channels.broadcast_batch_all(&two);
    assert_eq!(published.map(|published| published.events), Ok(2));
    let refused = channels.broadcast_all(Event::message("3"));
    assert!(matches!(refused, Err(PublishError::RateLimited { .. })));
    for (channel, published) in [(limited, 3), (small, 2), (finished, 0)] {
        assert_eq!(channel.stats().unwrap().published, published, "{channel:?}");
    }
}

#[test]
fn remove_closes_the_channel() {
    let room = Room::open(ChannelOptions::new());
    let mut client = room.served.subscribe("/stream?id=ann");
    assert!(room.channels.remove("room"));
    client.expect_end();
    let closed = ("ann".to_owned(), DisconnectReason::ChannelClosed);
    assert_eq!(receive(&room.left), closed);
    assert!(room.channel.is_closed() && !room.channels.has("room"));
    assert!(!room.channels.remove("room"));
}

#[test]
fn remove_empty_removes_the_channels_without_clients_and_no_others() {
    let channels = ChannelManager::new();
    let served = serve(&channels);
    let mut client = served.subscribe("/busy");
    let empty = ["empty", "deserted"].map(|name| channels.get_or_create(name).unwrap());
    assert_eq!(channels.remove_empty(), 2);
    assert!(empty.iter().all(Channel::is_closed));
    assert_eq!(names(&channels), ["busy"]);
    assert_eq!(channels.remove_empty(), 0);
    channels.broadcast_all(Event::message("still on")).unwrap();
    assert_eq!(client.next().data, "still on");
}

#[test]
fn close_all_closes_every_channel() {
    let channels = ChannelManager::new();
    let served = serve(&channels);
    let mut clients = ["/a", "/b", "/b"].map(|path| served.subscribe(path));
    channels.get_or_create("c").unwrap();
    assert_eq!(channels.close_all(), 3);
    for client in &mut clients {
        client.expect_end();
    }
    assert_eq!((names(&channels).len(), channels.total_clients()), (0, 0));
    assert_eq!(channels.close_all(), 0);
}

#[test]
fn get_stats_has_totals_and_each_channel() {
    let options = ChannelOptions::new().history(History::events(10));
    let channels = ChannelManager::builder().defaults(options).build();
    let served = serve(&channels);
    let mut clients: Vec<Subscriber> = (0..3).map(|_| served.subscribe("/b")).collect();
    channels.get_or_create("a").unwrap();
    let b = channels.get("b").unwrap();
    let oldest = b.broadcast(Event::message("1")).unwrap().id.unwrap();
    let newest = b.broadcast(Event::message("2")).unwrap().id.unwrap();
    for client in &mut clients {
        client.take(2);
    }
    eventually("what was delivered is counted", || {
        b.stats().unwrap().delivered == 6
    });
    let stats = channels.stats();
    assert_eq!((stats.channels, stats.clients), (2, 3));
    let [a, b] = &*stats.channel_stats else {
        panic!("{stats:?}");
    };
    assert_eq!((&*a.name, a.clients, a.published), ("a", 0, 0));
    assert_eq!((&*b.name, b.clients, b.published), ("b", 3, 2));
    assert_eq!((b.history_events, b.gaps), (2, 0));
    assert!(b.history_bytes > 0);
    assert_eq!((&b.oldest, &b.newest), (&Some(oldest), &Some(newest)));
}

#[test]
fn empty_channels_stay_if_the_option_is_set() {
    let [lasting, passing] = [None, Some(Duration::ZERO)].map(|time| {
        let channels = ChannelManager::builder().empty_after(time).build();
        channels.get_or_create("news").unwrap();
        let served = serve(&channels);
        (channels, served)
    });
    // The other one measures the time.
    eventually("the other has gone", || !passing.0.has("news"));
    assert!(lasting.0.has("news"));
}
