//! The keyed state of conflating channels: its bounds, its removals, and what
//! clients receive of both.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::time::Duration;

use common::{Connection, Served, Subscriber, eventually, summaries};
use pushwheel::{
    Channel, ChannelManager, ChannelOptions, Condition, Engine, Event, History, KeyedState,
    LagPolicy, PublishError, Subscription,
};

fn conflating() -> ChannelOptions {
    ChannelOptions::new().lag_policy(LagPolicy::Conflate)
}

/// A channel whose history ends with the next event or millisecond.
fn forgetful() -> ChannelOptions {
    let history = History::events(1).age_max(Duration::ZERO);
    conflating().history(history)
}

fn set(channel: &Channel, key: &str, data: &str) -> String {
    let event = Event::message(data).with_key(key);
    channel.broadcast(event).unwrap().id.unwrap().to_string()
}

/// A key is not evicted before every connected client has been sent it.
fn wait_for_evictions(channel: &Channel, count: u64) {
    eventually("a key is evicted", || {
        channel.stats().unwrap().keys_evicted == count
    });
}

fn gap_of(client: &mut Subscriber) -> serde_json::Value {
    let event = client.next();
    assert_eq!(event.name, "pushwheel.gap");
    serde_json::from_str(&event.data).unwrap()
}

#[test]
fn a_quiet_key_outlives_the_history_of_its_channel() {
    let (served, channel) = Served::channel(forgetful());
    for n in 0..1_500 {
        set(&channel, &format!("key {n}"), &n.to_string());
    }
    for _ in 0..10 {
        channel.broadcast(Event::message("without a key")).unwrap();
    }
    let mut client = served.subscribe("/stream");
    let state = client.take(1_500);
    let expected: Vec<String> = (0..1_500).map(|n| n.to_string()).collect();
    assert_eq!(summaries(&state), expected);
    channel.broadcast(Event::message("live")).unwrap();
    assert_eq!(summaries(&client.take(1)), ["live"]);
}

#[test]
fn a_snapshot_without_an_evicted_key_begins_with_a_gap_until_the_key_is_back() {
    let (served, channel) = Served::channel(conflating().keyed_state(KeyedState::keys(2)));
    for key in ["a", "b", "c"] {
        set(&channel, key, key);
    }
    let stats = channel.stats().unwrap();
    assert_eq!((stats.keys, stats.keys_evicted), (2, 1));
    let mut client = served.subscribe("/stream");
    let gap = gap_of(&mut client);
    assert_eq!(gap["reason"], "evicted");
    assert_eq!(gap["requested"], serde_json::Value::Null);
    assert_eq!(summaries(&client.take(2)), ["b", "c"]);

    // The missing key returns, and pushes out another one, which is removed.
    set(&channel, "a", "a again");
    wait_for_evictions(&channel, 2);
    assert_eq!(served.handle().metrics().keys_evicted, 2);
    channel.broadcast(Event::removal("b")).unwrap();
    let mut client = served.subscribe("/stream");
    assert_eq!(summaries(&client.take(2)), ["c", "a again"]);
}

#[test]
fn a_client_that_resumes_before_an_evicted_key_gets_a_gap_and_the_whole_state() {
    let (served, channel) = Served::channel(conflating().keyed_state(KeyedState::keys(3)));
    let first = set(&channel, "a", "a1");
    set(&channel, "b", "b1");
    channel.broadcast(Event::message("before")).unwrap();
    let seen = set(&channel, "c", "c1");
    let mut back = served.resubscribe("/stream", &seen);
    channel.broadcast(Event::message("after")).unwrap();
    assert_eq!(summaries(&back.take(1)), ["after"]);

    // The evicted key is one that it has seen.
    set(&channel, "d", "d1");
    wait_for_evictions(&channel, 1);
    let mut back = served.resubscribe("/stream", &first);
    assert_eq!(
        summaries(&back.take(5)),
        ["b1", "before", "c1", "after", "d1"]
    );
    // Now it is one that it has not, and that it may have to forget.
    set(&channel, "e", "e1");
    wait_for_evictions(&channel, 2);
    let mut back = served.resubscribe("/stream", &first);
    let gap = gap_of(&mut back);
    assert_eq!(
        (&gap["requested"], &gap["reason"]),
        (&first.into(), &"evicted".into())
    );
    assert_eq!(
        summaries(&back.take(5)),
        ["before", "c1", "after", "d1", "e1"]
    );
    // Before its own position it gets the state alone.
    set(&channel, "f", "f1");
    wait_for_evictions(&channel, 3);
    let mut back = served.resubscribe("/stream", &seen);
    assert_eq!(summaries(&back.take(3)), ["after", "d1", "e1"]);
    set(&channel, "g", "g1");
    set(&channel, "h", "h1");
    wait_for_evictions(&channel, 5);
    let mut back = served.resubscribe("/stream", &seen);
    gap_of(&mut back);
    assert_eq!(summaries(&back.take(4)), ["after", "f1", "g1", "h1"]);
}

#[test]
fn a_removed_key_is_an_event_for_connected_clients_only() {
    let (served, channel) = Served::channel(conflating());
    let mut there = served.subscribe("/stream");
    there.wait_for_id();
    let seen = set(&channel, "a", "a1");
    assert_eq!(summaries(&there.take(1)), ["a1"]);
    for (key, data) in [("b", "b1"), ("c", "c1")] {
        set(&channel, key, data);
        assert_eq!(summaries(&there.take(1)), [data]);
    }
    let removed = channel.broadcast(Event::removal("a")).unwrap();
    assert_eq!((removed.events, removed.clients), (1, 1));
    let own = Event::new("delisted", "b is no more").with_key("b");
    channel.broadcast(own.removing()).unwrap();
    let events = there.take(2);
    assert_eq!(events[0].name, "pushwheel.removed");
    assert_eq!(events[0].data, r#"{"key":"a"}"#);
    assert_eq!(summaries(&events[1..]), ["delisted b is no more"]);

    // In order for clients that come back,
    let mut back = served.resubscribe("/stream", &seen);
    let events = back.take(3);
    assert_eq!(events[0].data, "c1");
    assert_eq!(events[1].name, "pushwheel.removed");
    assert_eq!(events[2].name, "delisted");
    // and nothing of it for new ones, until the key is published again.
    let mut new = served.subscribe("/stream");
    assert_eq!(summaries(&new.take(1)), ["c1"]);
    set(&channel, "a", "a2");
    assert_eq!(summaries(&new.take(1)), ["a2"]);
    let stats = channel.stats().unwrap();
    assert_eq!((stats.keys, stats.keys_evicted), (2, 0));
}

#[test]
fn a_removal_is_for_the_clients_that_the_event_was_for() {
    let (served, channel) = Served::channel(conflating());
    let admins = [Condition::new("role", "admin")];
    set(&channel, "a", "for all");
    let event = |data: &'static str| Event::message(data).with_key("a");
    channel
        .broadcast_where(&admins, event("for admins"))
        .unwrap();
    assert_eq!(channel.stats().unwrap().keys, 2);
    channel
        .broadcast_where(&admins, event("gone").removing())
        .unwrap();
    assert_eq!(channel.stats().unwrap().keys, 1);
    let mut client = served.subscribe("/stream");
    assert_eq!(summaries(&client.take(1)), ["for all"]);
    let nameless = Event::message("x").removing();
    assert!(matches!(
        channel.broadcast(nameless),
        Err(PublishError::Event(_))
    ));
}

#[test]
fn where_keys_do_not_conflate_a_removal_is_an_event_like_any_other() {
    let (served, channel) = Served::channel(ChannelOptions::new().history(History::events(10)));
    set(&channel, "a", "a1");
    channel.broadcast(Event::removal("a")).unwrap();
    let mut client = served.subscribe("/stream?last_event_id=earliest");
    let events = client.take(2);
    assert_eq!(events[0].data, "a1");
    assert_eq!(events[1].name, "pushwheel.removed");
}

#[test]
fn a_client_that_loses_an_event_of_a_conflating_channel_gets_a_gap_and_the_whole_state() {
    let options = conflating().history(History::events(1));
    let (served, channel) = Served::channel(options.backlog_bytes_max(20_000));
    set(&channel, "a", "a1");
    set(&channel, "b", "b1");
    let narrow = Connection::narrow(served.address());
    let mut slow = Subscriber::over(narrow, "/stream", &[]);
    assert_eq!(summaries(&slow.take(2)), ["a1", "b1"]);
    // More than any buffer takes, of which no one replaces another.
    let data = "x".repeat(10_000);
    for n in 0..2_000 {
        channel.broadcast(Event::new(n.to_string(), &data)).unwrap();
        if n == 1_000 {
            channel.broadcast(Event::removal("a")).unwrap();
            set(&channel, "b", "b2");
        }
    }
    channel.broadcast(Event::message("end")).unwrap();
    // What it held for current may say nothing of the removal; what follows the
    // last gap is the whole state.
    let mut since_gap = Vec::new();
    loop {
        let event = slow.next();
        match event.name.as_str() {
            "pushwheel.gap" => since_gap.clear(),
            _ if event.data == "end" => break,
            _ if event.data.len() < 100 => since_gap.push(event.data),
            _ => {}
        }
    }
    assert!(channel.stats().unwrap().gaps > 0, "it was slow");
    assert_eq!(since_gap, ["b2"]);
}

/// So long that no test waits for it.
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn within_the_pace_only_the_newest_of_each_key_is_delivered() {
    let (served, channel) = Served::channel(conflating().pace(LONG));
    let mut client = served.subscribe("/stream");
    client.wait_for_id();
    set(&channel, "a", "a1");
    assert_eq!(
        summaries(&client.take(1)),
        ["a1"],
        "the first comes at once"
    );
    for data in ["a2", "a3", "a4"] {
        set(&channel, "a", data);
    }
    set(&channel, "b", "b1");
    channel.broadcast(Event::removal("b")).unwrap();
    channel.broadcast(Event::message("without a key")).unwrap();
    // A shutdown waits for no pace.
    served.shutdown(LONG);
    let rest = client.rest();
    let rest: Vec<&str> = rest.iter().map(|event| &*event.data).collect();
    assert_eq!(rest, ["a4", r#"{"key":"b"}"#, "without a key"]);
}

#[test]
fn a_pace_ends_and_is_set_while_the_engine_runs() {
    let (served, channel) = Served::channel(conflating().pace(Duration::from_millis(20)));
    let mut client = served.subscribe("/stream");
    client.wait_for_id();
    let mut seen = 0;
    for n in 1..=200 {
        set(&channel, "a", &n.to_string());
    }
    while seen < 200 {
        let next = client.next().data.parse().unwrap();
        assert!(next > seen);
        seen = next;
    }
    let options = conflating().pace(LONG);
    channel.set_options(options.clone());
    set(&channel, "a", "201");
    set(&channel, "a", "202");
    let first = client.next().data;
    if first != "202" {
        assert_eq!(first, "201");
    }
    channel.set_options(options.pace(Duration::ZERO));
    if first != "202" {
        assert_eq!(client.next().data, "202", "it waits no longer");
    }
}

#[test]
fn a_stream_with_a_channel_without_a_pace_waits_for_none() {
    let channels = ChannelManager::new();
    let make = |name: &str, options: ChannelOptions| {
        channels
            .get_or_create_with(name, || options.clone())
            .unwrap()
    };
    let paced = make("paced", conflating().pace(LONG));
    let other = make("other", ChannelOptions::new().pace(LONG));
    let both = (paced.clone(), other.clone());
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", move |_| Subscription::new(&both.0).and(&both.1));
    let served = Served::start(builder);
    let mut client = served.subscribe("/stream");
    client.wait_for_id();
    for n in 0..5 {
        set(&paced, "a", &n.to_string());
        assert_eq!(summaries(&client.take(1)), [n.to_string()]);
        other.broadcast(Event::message("x")).unwrap();
        assert_eq!(summaries(&client.take(1)), ["x"]);
    }
}
