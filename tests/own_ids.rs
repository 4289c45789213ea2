//! Ids of publishers' own: an event is published once however often it is
//! repeated, and a client that comes back with its id resumes behind it, or is
//! receives the reason.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::time::Duration;

use common::sse::Dispatched;
use common::{Served, Subscriber, summaries};
use pushwheel::{
    Channel, ChannelManager, ChannelOptions, Engine, Event, EventError, History, PublishError,
    Published, Subscription,
};
use serde_json::Value;

fn keeping(events: usize) -> ChannelOptions {
    ChannelOptions::new().history(History::events(events))
}

fn own(id: &str, data: &str) -> Event<'static> {
    Event::message(data.to_owned()).with_id(id.to_owned())
}

fn publish(channel: &Channel, id: &str, data: &str) -> Published {
    channel.broadcast(own(id, data)).unwrap()
}

/// The content of a gap event.
#[track_caller]
fn gap(event: &Dispatched) -> Value {
    assert_eq!(event.name, "pushwheel.gap");
    serde_json::from_str(&event.data).unwrap()
}

#[test]
fn ids_of_the_publishers_own_are_found() {
    let (served, channel) = Served::channel(keeping(10));
    for n in 1..=4 {
        let event = Event::message(n.to_string()).with_id(format!("order {n}/é"));
        channel.broadcast(event).unwrap();
    }
    let mut client = served.resubscribe("/stream", "order 2/é");
    assert_eq!(summaries(&client.take(2)), ["3", "4"]);
    assert_eq!(client.last_event_id(), "order 4/é");
    let mut client = served.subscribe("/stream?last_event_id=order%203/%C3%A9");
    assert_eq!(summaries(&client.take(1)), ["4"]);
    let mut client = served.resubscribe("/stream", "order 9");
    assert_eq!(gap(&client.next())["oldest"], "order 1/é");
}

#[test]
fn a_client_with_the_own_id_of_the_last_evicted_event_has_missed_nothing() {
    let (served, channel) = Served::channel(keeping(3));
    for n in 1..=6 {
        let event = Event::message(n.to_string()).with_id(format!("order {n}"));
        channel.broadcast(event).unwrap();
    }
    let mut client = served.resubscribe("/stream", "order 3");
    assert_eq!(summaries(&client.take(3)), ["4", "5", "6"]);
    let mut client = served.resubscribe("/stream", "order 2");
    let reported_by = gap(&client.next());
    assert_eq!(
        (&reported_by["reason"], &reported_by["oldest"]),
        (&"evicted".into(), &"order 4".into())
    );
}

#[test]
fn an_event_that_is_repeated_is_not_appended_again() {
    let (served, channel) = Served::channel(keeping(5));
    let mut client = served.subscribe("/stream");
    client.wait_for_id();
    publish(&channel, "order-17", "17");
    for n in 0..2 {
        channel
            .broadcast(Event::message(format!("other {n}")))
            .unwrap();
    }
    for n in 1..=8 {
        publish(&channel, &format!("y{n}"), &format!("{n}"));
    }
    // Long gone from the history, and known all the same.
    let again = publish(&channel, "order-17", "17");
    assert_eq!(again.id.unwrap().to_string(), "order-17");
    assert_eq!((again.events, again.clients, again.duplicates), (0, 0, 1));
    publish(&channel, "z", "z");
    let mut all = vec!["17", "other 0", "other 1"];
    all.extend(["1", "2", "3", "4", "5", "6", "7", "8", "z"]);
    assert_eq!(summaries(&client.take(12)), all);
    let mut back = served.resubscribe("/stream", "order-17");
    assert_eq!(gap(&back.next())["reason"], "evicted");
    assert_eq!(summaries(&back.take(5)), ["5", "6", "7", "8", "z"]);
    assert_eq!(channel.stats().unwrap().published, 12);
}

#[test]
fn another_event_of_an_id_is_refused() {
    let (_served, channel) = Served::channel(keeping(5));
    channel
        .broadcast(own("1", "data").with_name("name").with_key("k"))
        .unwrap();
    let same = || own("1", "data").with_name("name").with_key("k");
    assert_eq!(channel.broadcast(same()).unwrap().duplicates, 1);
    let refused = Err(PublishError::IdReused { id: "1".to_owned() });
    for other in [
        own("1", "other").with_name("name").with_key("k"),
        own("1", "data").with_name("other").with_key("k"),
        own("1", "data").with_name("name"),
        same().with_retry(Duration::from_secs(1)),
    ] {
        assert_eq!(channel.broadcast(other), refused);
    }
    assert_eq!(channel.send("ann", same()), refused);
    assert_eq!(channel.stats().unwrap().published, 1);
    // To clients that are chosen, it is the choice that counts.
    channel.send("ann", own("2", "x")).unwrap();
    assert_eq!(channel.send("ann", own("2", "x")).unwrap().duplicates, 1);
    assert!(channel.send("bob", own("2", "x")).is_err());
    channel.broadcast_to(|_| true, own("3", "x")).unwrap();
    let again = channel.broadcast_to(|_| false, own("3", "x")).unwrap();
    assert_eq!(
        again.duplicates, 1,
        "a filter finds other clients the next time"
    );
    // Each channel remembers for itself.
    let (_served, other) = Served::channel(keeping(5));
    assert_eq!(publish(&other, "1", "other").events, 1);
}

#[test]
fn a_batch_is_repeated_in_part_or_refused_whole() {
    let (served, channel) = Served::channel(keeping(10));
    let mut client = served.subscribe("/stream");
    client.wait_for_id();
    let batch = |ids: &[&str]| ids.iter().map(|id| own(id, id)).collect::<Vec<_>>();
    let first = channel.broadcast_batch(batch(&["a", "b"])).unwrap();
    assert_eq!((first.events, first.duplicates), (2, 0));
    let part = channel
        .broadcast_batch(batch(&["b", "c", "c", "a"]))
        .unwrap();
    assert_eq!((part.events, part.duplicates, part.clients), (1, 3, 1));
    assert_eq!(part.id.unwrap().to_string(), "a");
    let whole = channel.broadcast_batch(batch(&["a", "b", "c"])).unwrap();
    assert_eq!((whole.events, whole.duplicates, whole.clients), (0, 3, 0));
    assert_eq!(whole.id.unwrap().to_string(), "c");
    let refused = |id: &str| Err(PublishError::IdReused { id: id.to_owned() });
    let other = [own("new", "x"), own("b", "other")];
    assert_eq!(channel.broadcast_batch(other), refused("b"));
    let within = [own("new", "x"), own("new", "y")];
    assert_eq!(channel.broadcast_batch(within), refused("new"));
    publish(&channel, "new", "new");
    assert_eq!(summaries(&client.take(4)), ["a", "b", "c", "new"]);
}

#[test]
fn a_finished_channel_knows_what_is_published_to_it_again() {
    let (served, channel) = Served::channel(keeping(10));
    publish(&channel, "1", "1");
    channel.finish(Some(own("2", "2"))).unwrap();
    assert_eq!(publish(&channel, "2", "2").duplicates, 1);
    assert_eq!(
        channel.broadcast(own("3", "3")),
        Err(PublishError::Finished)
    );
    let mut client = served.resubscribe("/stream", "1");
    assert_eq!(summaries(&client.take(1)), ["2"]);
    client.expect_end();

    let (served, channel) = Served::channel(keeping(10));
    publish(&channel, "1", "1");
    channel.finish(Some(own("1", "1"))).unwrap();
    let mut client = served.subscribe("/stream?last_event_id=earliest");
    assert_eq!(summaries(&client.take(1)), ["1"]);
    client.expect_end();
}

#[test]
fn an_id_outlives_its_event_and_its_channel() {
    let (served, channel) = Served::channel(keeping(2));
    for n in 0..1_100 {
        publish(&channel, &format!("order-{n}"), "x");
    }
    for (id, reason) in [
        ("order-17", "evicted"),
        ("order-1000", "evicted"),
        ("order-1100", "unknown"),
    ] {
        let mut client = served.resubscribe("/stream", id);
        let reported_by = gap(&client.next());
        assert_eq!(reported_by["reason"], reason, "{id}");
        assert_eq!(reported_by["requested"], id);
        assert_eq!(reported_by["oldest"], "order-1098");
    }
    assert_eq!(publish(&channel, "order-17", "x").duplicates, 1);
    channel.close();
    let again = served.channels().get_or_create("news").unwrap();
    assert_eq!(publish(&again, "order-17", "x").duplicates, 1);
    let refused = again.broadcast(own("order-17", "y"));
    assert!(matches!(refused, Err(PublishError::IdReused { .. })));
    // Each channel has ids of its own.
    let other = served.channels().get_or_create("other").unwrap();
    assert_eq!(publish(&other, "order-17", "y").events, 1);
}

#[test]
fn an_id_of_the_engines_form_is_the_engines_to_give() {
    let (_served, channel) = Served::channel(keeping(10));
    let engines = channel
        .broadcast(Event::message("x"))
        .unwrap()
        .id
        .unwrap()
        .to_string();
    let (epoch, _) = engines.split_once('-').unwrap();
    let reserved = Err(PublishError::Event(EventError::IdReserved));
    for id in [
        engines.clone(),
        format!("{epoch}-0"),
        format!("{epoch}-999"),
    ] {
        assert_eq!(channel.broadcast(own(&id, "x")), reserved, "{id}");
    }
    for id in [
        format!("{epoch}-01"),
        format!("{epoch}-"),
        format!("x{engines}"),
    ] {
        publish(&channel, &id, "x");
    }
}

/// A channel that began just now, after a crash or for the first time.
fn begun(republish_window: Duration) -> (Served, Channel) {
    let channels = ChannelManager::builder()
        .defaults(keeping(10))
        .republish_window(republish_window)
        .build();
    let channel = channels.get_or_create("orders").unwrap();
    let stream = channel.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", move |_| Subscription::new(&stream));
    (Served::start(builder), channel)
}

#[test]
fn after_a_crash_an_id_from_before_it_is_a_restart() {
    // `order-17` was seen before the crash, and x was lost with it.
    let (served, channel) = begun(Duration::from_secs(3_600));
    publish(&channel, "y", "y");
    publish(&channel, "order-17", "17");
    publish(&channel, "z", "z");
    let mut page = served.resubscribe("/stream", "order-17");
    let reported_by = gap(&page.next());
    assert_eq!(
        (&reported_by["reason"], &reported_by["requested"]),
        (&"restart".into(), &"order-17".into())
    );
    let replay = page.take(3);
    assert_eq!(summaries(&replay), ["y", "17", "z"]);
    // An id is the publisher's, verbatim.
    assert_eq!(replay[2].last_event_id, "z");

    // Nothing is repeated any more.
    let (served, channel) = begun(Duration::ZERO);
    publish(&channel, "order-17", "17");
    publish(&channel, "z", "z");
    let mut page = served.resubscribe("/stream", "order-17");
    assert_eq!(summaries(&page.take(1)), ["z"]);
}

/// Reads on until the stream's id is another one than `id`.
#[track_caller]
fn id_after(client: &mut Subscriber, id: &str) -> String {
    while client.last_event_id() == id {
        assert!(client.read(64 << 10), "the stream ended");
    }
    client.last_event_id().to_owned()
}

#[test]
fn a_client_receives_the_gap_of_a_doubtful_id_once() {
    let (served, channel) = begun(Duration::from_secs(3_600));
    let mut live = served.subscribe("/stream");
    live.wait_for_id();
    publish(&channel, "order-16", "16");
    publish(&channel, "order-17", "17");
    assert_eq!(summaries(&live.take(2)), ["16", "17"]);
    drop(live);
    // It receives the whole history, and then an id that leads there.
    let mut page = served.resubscribe("/stream", "order-17");
    assert_eq!(gap(&page.next())["reason"], "restart");
    assert_eq!(summaries(&page.take(2)), ["16", "17"]);
    let end = id_after(&mut page, "order-17");
    drop(page);
    // However often the page is cut from then on, it is in order.
    let page = served.resubscribe("/stream", &end);
    assert_eq!(page.head.header("last-event-id"), Some(&*end));
    drop(page);
    let mut page = served.resubscribe("/stream", &end);
    publish(&channel, "order-18", "18");
    assert_eq!(summaries(&page.take(1)), ["18"]);
    assert_eq!(page.last_event_id(), "order-18");
}

#[test]
fn a_replay_that_ends_with_a_doubtful_id_is_followed_by_the_engines() {
    for (query, count) in [
        ("last_event_id=earliest", 3),
        ("last=1", 1),
        ("last_event_id={engines}", 1),
        ("last_event_id=order-1", 4), // The first of them is the gap.
    ] {
        let (served, channel) = begun(Duration::from_secs(3_600));
        publish(&channel, "order-1", "1");
        let engines = channel.broadcast(Event::message("2")).unwrap().id.unwrap();
        publish(&channel, "order-3", "3");
        let query = query.replace("{engines}", &engines.to_string());
        let mut page = served.subscribe(&format!("/stream?{query}"));
        assert_eq!(page.take(count).last().unwrap().last_event_id, "order-3");
        let end = id_after(&mut page, "order-3");
        let mut back = served.resubscribe("/stream", &end);
        let new = channel
            .broadcast(Event::message("new"))
            .unwrap()
            .id
            .unwrap();
        for client in [&mut page, &mut back] {
            assert_eq!(summaries(&client.take(1)), ["new"], "{query}");
            assert_eq!(client.last_event_id(), new.to_string());
        }
    }
    // An id that leads back needs no other after it.
    let (served, channel) = begun(Duration::from_secs(3_600));
    publish(&channel, "order-1", "1");
    let newest = channel.broadcast(Event::message("2")).unwrap().id.unwrap();
    let mut page = served.subscribe("/stream?last=2");
    assert_eq!(summaries(&page.take(2)), ["1", "2"]);
    assert_eq!(page.last_event_id(), newest.to_string());
}

#[test]
fn a_new_client_never_begins_with_a_doubtful_id() {
    let (served, channel) = begun(Duration::from_secs(3_600));
    publish(&channel, "order-1", "1");
    let mut client = served.subscribe("/stream");
    let id = client.wait_for_id();
    assert_ne!(id, "order-1");
    assert_eq!(client.head.header("last-event-id"), Some(&*id));
    drop(client);
    let mut back = served.resubscribe("/stream", &id);
    publish(&channel, "order-2", "2");
    assert_eq!(summaries(&back.take(1)), ["2"]);
}

#[test]
fn a_restored_state_remembers_ids_and_its_own_doubts() {
    let before = ChannelManager::builder()
        .defaults(keeping(2))
        .republish_window(Duration::ZERO)
        .build();
    let channel = before.get_or_create("orders").unwrap();
    for n in 1..=5 {
        publish(&channel, &format!("order-{n}"), "x");
    }
    let mut state = Vec::new();
    before.save(&mut state).unwrap();
    let after = ChannelManager::builder().defaults(keeping(2));
    let after = after.restore(&*state).unwrap();
    let channel = after.get("orders").unwrap();
    for n in 1..=5 {
        let again = publish(&channel, &format!("order-{n}"), "x");
        assert_eq!((again.events, again.duplicates), (0, 1));
        assert!(channel.broadcast(own(&format!("order-{n}"), "y")).is_err());
    }
    publish(&channel, "order-6", "x");
    let stream = channel.clone();
    let builder = Engine::builder()
        .channels(&after)
        .get("/stream", move |_| Subscription::new(&stream));
    let served = Served::start(builder);
    let mut page = served.resubscribe("/stream", "order-6");
    publish(&channel, "order-7", "new");
    assert_eq!(summaries(&page.take(1)), ["new"]);
    let mut page = served.resubscribe("/stream", "order-2");
    assert_eq!(gap(&page.next())["reason"], "evicted");
}

#[test]
fn a_stream_of_a_channel_with_own_ids_begins_with_an_own_id() {
    let (served, channel) = Served::channel(keeping(0));
    publish(&channel, "order-1", "1");
    let mut client = served.subscribe("/stream");
    assert_eq!(client.wait_for_id(), "order-1");
    drop(client);
    publish(&channel, "order-2", "2");
    let mut back = served.resubscribe("/stream", "order-1");
    assert_eq!(gap(&back.next())["reason"], "evicted");
    // Of mixed channels only the engine's id says where the stream begins.
    let between = channel.broadcast(Event::message("3")).unwrap().id.unwrap();
    let mut client = served.subscribe("/stream");
    assert_eq!(client.wait_for_id(), between.to_string());
}

#[test]
fn opaque_ids_resume_and_say_nothing_of_how_many_there_were() {
    let options = keeping(3);
    let build = || {
        ChannelManager::builder()
            .defaults(options.clone())
            .opaque_ids(true)
    };
    let before = build().build();
    let channel = before.get_or_create("news").unwrap();
    let say = |channel: &Channel, data: &str| {
        let published = channel.broadcast(Event::message(data.to_owned())).unwrap();
        published.id.unwrap().to_string()
    };
    let ids: Vec<String> = (1..=5).map(|n| say(&channel, &n.to_string())).collect();
    let number = |id: &String| id.split_once('-').unwrap().1.parse::<u64>().unwrap();
    let numbers: Vec<u64> = ids.iter().map(number).collect();
    assert!(
        numbers.iter().all(|number| *number > 1_000_000),
        "{numbers:?}"
    );
    let mut state = Vec::new();
    before.save(&mut state).unwrap();

    // Whatever is asked for now, ids stay what they were.
    let builder = ChannelManager::builder().defaults(options.clone());
    let after = builder.restore(&*state).unwrap();
    let channel = after.get("news").unwrap();
    let stream = channel.clone();
    let builder = Engine::builder()
        .channels(&after)
        .get("/stream", move |_| Subscription::new(&stream));
    let served = Served::start(builder);
    let newest = say(&channel, "6");
    let mut client = served.resubscribe("/stream", &ids[3]);
    assert_eq!(summaries(&client.take(2)), ["5", "6"]);
    assert_eq!(client.last_event_id(), newest);
    let mut client = served.resubscribe("/stream", &ids[0]);
    let reported_by = gap(&client.next());
    assert_eq!(reported_by["reason"], "evicted");
    assert_eq!(reported_by["oldest"], ids[3]);
    // The next number is not the next id, and is not used.
    let (epoch, _) = newest.split_once('-').unwrap();
    let guessed = format!("{epoch}-{}", number(&newest).wrapping_add(1));
    let mut client = served.resubscribe("/stream", &guessed);
    assert_eq!(gap(&client.next())["reason"], "unknown");
    let mut fresh = served.subscribe("/stream");
    let opening = fresh.wait_for_id();
    assert_eq!(opening, newest);
}

#[test]
fn an_id_that_comes_back_in_latin_1_is_found() {
    let (served, channel) = Served::channel(keeping(10));
    // As Node's fetch sends them: a byte for each character.
    let latin1 = |id: &str| -> Vec<u8> { id.chars().map(|c| u8::try_from(c).unwrap()).collect() };
    let utf8 = |id: &str| id.as_bytes().to_vec();
    for id in ["caf\u{e9}", "\u{c3}\u{a9}", "order/\u{fc}"] {
        publish(&channel, id, id);
    }
    publish(&channel, "last", "last");
    for (sent, left) in [
        (latin1("caf\u{e9}"), 3),
        (utf8("caf\u{e9}"), 3),
        // This one is UTF-8 too, of an id that there is not.
        (latin1("\u{c3}\u{a9}"), 2),
        (utf8("\u{c3}\u{a9}"), 2),
        (latin1("order/\u{fc}"), 1),
    ] {
        let mut connection = served.connect();
        let head = b"GET /stream HTTP/1.1\r\nHost: test\r\nLast-Event-ID: ";
        connection.send([head.as_slice(), &sent, b"\r\n\r\n"].concat());
        let mut client = Subscriber::begun(connection);
        assert_eq!(client.take(left).last().unwrap().data, "last", "{sent:?}");
    }
}
