//! A client that resumes with the id of its last event misses nothing and receives nothing
//! twice, or receives a gap.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::readers::Readers;
use common::sse::Dispatched;
use common::{Served, Subscriber, eventually, sequence, summaries};
use pushwheel::{
    Channel, ChannelManager, ChannelOptions, ClientId, Condition, Engine, Event, History, Request,
    Start, Subscription,
};
use serde_json::{Value, json};

fn keeping(events: usize) -> ChannelOptions {
    ChannelOptions::new().history(History::events(events))
}

fn publish(channel: &Channel, data: &str) -> String {
    let published = channel.broadcast(Event::message(data)).unwrap();
    published.id.unwrap().to_string()
}

/// The content of a gap event.
#[track_caller]
fn gap(event: &Dispatched) -> Value {
    assert_eq!(event.name, "pushwheel.gap");
    serde_json::from_str(&event.data).unwrap()
}

#[test]
fn a_client_cut_again_and_again_misses_nothing_and_sees_nothing_twice() {
    const EVENTS: usize = 1_500;
    let (served, channel) = Served::channel(keeping(1_000));
    let mut client = served.subscribe("/stream");
    // A browser keeps the id when it loses its connection.
    let mut last_event_id = client.wait_for_id();
    // The publisher goes on while the client is away, and is at most so many
    // events ahead of it.
    let (seen, ahead) = mpsc::sync_channel(300);
    let publisher = thread::spawn(move || {
        for n in 0..EVENTS {
            seen.send(()).unwrap();
            publish(&channel, &format!("{n} {}", "z".repeat(n % 700)));
        }
    });

    let mut expected = 0;
    for life in 1.. {
        // Each life is cut after another number of bytes, mostly in the middle
        // of an event, with more on the way.
        let mut bytes_left: usize = life * 997 % 20_000;
        while bytes_left > 0 && expected < EVENTS {
            let step = bytes_left.min(1 + life * 31 % 4096);
            bytes_left -= step;
            assert!(client.read(step), "the stream ended");
            for event in client.arrived() {
                let number = event.data.split_once(' ').unwrap().0;
                assert_eq!(number, expected.to_string());
                expected += 1;
                last_event_id = event.last_event_id;
                ahead.recv().unwrap();
            }
        }
        if expected == EVENTS {
            break;
        }
        client = served.resubscribe("/stream", &last_event_id);
    }
    publisher.join().unwrap();
}

#[test]
fn a_client_cut_before_its_first_event_misses_nothing() {
    let (served, channel) = Served::channel(keeping(10));
    publish(&channel, "before it came");
    let mut client = served.subscribe("/stream");
    let id = client.wait_for_id();
    drop(client);
    eventually("it has gone", || channel.client_count() == 0);
    publish(&channel, "while it was away");

    let mut client = served.resubscribe("/stream", &id);
    assert_eq!(summaries(&client.take(1)), ["while it was away"]);
}

#[test]
fn a_channel_without_a_history_reports_a_gap_only_for_missed_events() {
    let (served, channel) = Served::channel(ChannelOptions::new());
    let mut client = served.subscribe("/stream");
    let first = publish(&channel, "first");
    client.next();
    drop(client);
    eventually("it has gone", || channel.client_count() == 0);

    let mut client = served.resubscribe("/stream", &first);
    let second = publish(&channel, "second");
    assert_eq!(summaries(&client.take(1)), ["second"], "nothing was missed");

    let mut client = served.resubscribe("/stream", &first);
    let reported_by = gap(&client.next());
    assert_eq!(reported_by["reason"], "evicted");
    assert_eq!(reported_by["requested"], first);
    assert_eq!(client.last_event_id(), second, "from here on it is sure");
    publish(&channel, "third");
    assert_eq!(summaries(&client.take(1)), ["third"]);
}

#[test]
fn a_trimmed_history_is_a_gap_followed_by_the_kept_events() {
    let (served, channel) = Served::channel(keeping(3));
    let ids: Vec<String> = (1..=10)
        .map(|n| publish(&channel, &n.to_string()))
        .collect();

    let mut client = served.resubscribe("/stream", &ids[1]);
    assert_eq!(
        gap(&client.next()),
        json!({
            "reason": "evicted",
            "requested": ids[1],
            "oldest": ids[7],
            "newest": ids[9],
        })
    );
    assert_eq!(summaries(&client.take(3)), ["8", "9", "10"]);
    assert_eq!(client.last_event_id(), ids[9]);
    assert_eq!(channel.stats().unwrap().gaps, 1);

    // The oldest that is kept is the next after this one: no hole.
    let mut client = served.resubscribe("/stream", &ids[6]);
    assert_eq!(summaries(&client.take(3)), ["8", "9", "10"]);
    assert_eq!(channel.stats().unwrap().gaps, 1);
}

#[test]
fn a_client_cut_right_after_a_gap_does_not_receive_it_again() {
    let (served, channel) = Served::channel(keeping(2));
    let ids: Vec<String> = (1..=5).map(|n| publish(&channel, &n.to_string())).collect();
    let mut client = served.resubscribe("/stream", &ids[0]);
    let reported_by = client.next();
    gap(&reported_by);
    let mut again = served.resubscribe("/stream", &reported_by.last_event_id);
    assert_eq!(summaries(&again.take(2)), ["4", "5"]);
}

#[test]
fn an_id_from_before_a_restart_and_a_forged_one_have_different_gaps() {
    let (_before, channel) = Served::channel(keeping(10));
    let from_before = publish(&channel, "of another life");
    let (served, channel) = Served::channel(keeping(10));
    let newest = publish(&channel, "of this life");
    let from_the_future = newest.replace("-1", "-99");
    assert_ne!(newest, from_the_future);
    for (requested, reason) in [
        (from_before.as_str(), "restart"),
        (&from_the_future, "unknown"),
        ("forged", "unknown"),
        ("%7B%22<script>", "unknown"),
        (&"9".repeat(300), "unknown"),
    ] {
        let mut client = served.resubscribe("/stream", requested);
        let reported_by = gap(&client.next());
        assert_eq!(reported_by["reason"], reason, "{requested}");
        assert_eq!(reported_by["requested"], requested);
        assert_eq!(reported_by["oldest"], newest);
        assert_eq!(reported_by["newest"], newest);
        assert_eq!(summaries(&client.take(1)), ["of this life"]);
    }
}

#[test]
fn an_id_that_is_no_text_is_a_gap_like_any_unknown_one() {
    let (served, channel) = Served::channel(keeping(10));
    publish(&channel, "kept");
    let mut connection = served.connect();
    connection.send(b"GET /stream HTTP/1.1\r\nHost: test\r\nLast-Event-ID: \xff\xfe\r\n\r\n");
    let mut client = Subscriber::begun(connection);
    assert_eq!(gap(&client.next())["reason"], "unknown");
    assert_eq!(summaries(&client.take(1)), ["kept"]);
}

#[test]
fn a_new_client_chooses_where_its_stream_begins() {
    for (query, header, expected) in [
        ("", "", &[][..]),
        ("?last_event_id=earliest", "", &["5", "6", "7", "8", "9"]),
        ("?lastEventId=earliest", "", &["5", "6", "7", "8", "9"]),
        ("?last=2", "", &["8", "9"]),
        ("?last=0", "", &[]),
        ("?last=99", "", &["5", "6", "7", "8", "9"]),
        ("?last=nonsense", "", &[]),
        ("?last_event_id=#7", "", &["8", "9"]),
        ("?lastEventId=#4", "", &["5", "6", "7", "8", "9"]),
        // The URL is the one with which the page began; what the browser has
        // seen since is in the header.
        ("?last_event_id=#5", "#8", &["9"]),
        ("?last_event_id=earliest", "#9", &[]),
        ("?last=3", "#7", &["8", "9"]),
    ] {
        let (served, channel) = Served::channel(keeping(5));
        let mut ids = vec![String::new()];
        ids.extend((1..=9).map(|n| publish(&channel, &n.to_string())));
        // `#7` stands for the id of the seventh event.
        let fill = |text: &str| match text.split_once('#') {
            Some((before, n)) => format!("{before}{}", ids[n.parse::<usize>().unwrap()]),
            None => text.to_owned(),
        };
        let path = format!("/stream{}", fill(query));
        let mut client = match header {
            "" => served.subscribe(&path),
            header => served.resubscribe(&path, &fill(header)),
        };
        publish(&channel, "live");
        if query.ends_with("=earliest") && header.is_empty() {
            let reported_by = gap(&client.next());
            assert_eq!(reported_by["reason"], "evicted");
            assert_eq!(reported_by["requested"], "earliest");
            assert_eq!(reported_by["oldest"], ids[5]);
        }
        let mut seen = summaries(&client.take(expected.len() + 1));
        assert_eq!(seen.pop().as_deref(), Some("live"), "{query} {header}");
        assert_eq!(seen, expected, "{query} {header}");
    }
}

/// Two channels, apart at `/a` and `/b` and on one stream at `/both`. Clients
/// send their id and role: `?id=…&role=…`.
fn two_channels(options: ChannelOptions) -> (Served, Channel, Channel) {
    let channels = ChannelManager::builder()
        .defaults(options)
        .republish_window(Duration::ZERO)
        .build();
    let (a, b) = (
        channels.get_or_create("a").unwrap(),
        channels.get_or_create("b").unwrap(),
    );
    let known = |subscription: Subscription, request: &Request| {
        let role = request.query("role").unwrap_or_default();
        let subscription = subscription.metadata(json!({"role": role}));
        match request.query("id") {
            Some(id) => subscription.client_id(ClientId::new(&id).unwrap()),
            None => subscription,
        }
    };
    let (only_a, only_b, both) = (a.clone(), b.clone(), (a.clone(), b.clone()));
    let builder = Engine::builder()
        .channels(&channels)
        .get("/a", move |r| known(Subscription::new(&only_a), r))
        .get("/b", move |r| known(Subscription::new(&only_b), r))
        .get("/both", move |r| {
            known(Subscription::new(&both.1).and(&both.0).and(&both.1), r)
        });
    (Served::start(builder), a, b)
}

#[test]
fn merged_channels_are_one_stream_in_the_order_of_publishing_and_resume_from_one_id() {
    let (served, a, b) = two_channels(keeping(100));
    let mut client = served.subscribe("/both");
    let mut ids = Vec::new();
    for n in 0..20 {
        let channel = if n % 3 == 0 { &a } else { &b };
        ids.push(publish(channel, &n.to_string()));
    }
    let all: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(summaries(&client.take(20)), all);
    drop(client);
    for (n, id) in ids.iter().enumerate() {
        let mut client = served.resubscribe("/both", id);
        assert_eq!(summaries(&client.take(19 - n)), all[n + 1..]);
    }
    let mut client = served.subscribe("/both?last=5");
    assert_eq!(summaries(&client.take(5)), all[15..]);
    // An id says as much of one channel as of both.
    let mut client = served.resubscribe("/a", &ids[13]);
    assert_eq!(summaries(&client.take(2)), ["15", "18"]);
}

#[test]
fn the_few_of_a_merged_stream_find_what_is_for_them_among_the_many_of_a_channel() {
    let (served, a, _b) = two_channels(keeping(0));
    let mut many = Readers::open(served.address(), "/a?role=user", 40);
    let mut ann = served.subscribe("/both?id=ann&role=admin");
    let mut bob = served.subscribe("/both?id=bob&role=user");
    eventually("all are there", || a.client_count() == 42);
    let role = |role| [Condition::new("role", role)];
    a.broadcast(Event::message("1")).unwrap();
    a.broadcast_where(&role("admin"), Event::message("2"))
        .unwrap();
    a.broadcast(Event::message("3")).unwrap();
    let users = a.broadcast_where(&role("user"), Event::message("4"));
    assert_eq!(users.unwrap().clients, 41);
    a.send("ann", Event::message("5")).unwrap();
    a.broadcast(Event::message("6")).unwrap();
    assert_eq!(summaries(&ann.take(5)), ["1", "2", "3", "5", "6"]);
    assert_eq!(summaries(&bob.take(4)), ["1", "3", "4", "6"]);
    many.wait(4);
    for events in many.take() {
        assert_eq!(summaries(&events), ["1", "3", "4", "6"]);
    }
}

#[test]
fn an_id_that_occurs_twice_on_a_stream_resumes_after_the_first() {
    let (served, a, b) = two_channels(keeping(10));
    for (channel, name, id) in [
        (&a, "a", "1"),
        (&a, "a", "2"),
        (&b, "b", "x1"),
        (&a, "a", "3"),
        (&b, "b", "2"),
        (&b, "b", "4"),
    ] {
        let event = Event::message(format!("{name}/{id}")).with_id(id);
        channel.broadcast(event).unwrap();
    }
    let mut client = served.resubscribe("/both", "2");
    assert_eq!(summaries(&client.take(4)), ["b/x1", "a/3", "b/2", "b/4"]);
    let mut client = served.resubscribe("/b", "2");
    assert_eq!(summaries(&client.take(1)), ["b/4"]);
}

#[test]
fn of_merged_channels_one_that_was_trimmed_is_a_gap_and_one_that_was_not_is_whole() {
    let (served, a, b) = two_channels(keeping(3));
    let first = publish(&a, "a1");
    publish(&b, "b1");
    let ids: Vec<String> = (2..=6).map(|n| publish(&a, &format!("a{n}"))).collect();
    let mut client = served.resubscribe("/both", &first);
    let reported_by = gap(&client.next());
    assert_eq!(reported_by["reason"], "evicted");
    assert_eq!(reported_by["newest"], ids[4]);
    assert_eq!(summaries(&client.take(4)), ["b1", "a4", "a5", "a6"]);
    let mut client = served.resubscribe("/b", &first);
    assert_eq!(summaries(&client.take(1)), ["b1"]);
}

#[test]
fn many_cut_clients_of_merged_channels_miss_nothing_while_publishing_goes_on() {
    let (served, a, b) = two_channels(keeping(5_000));
    let publishers: Vec<_> = [(a, "a"), (b, "b")]
        .into_iter()
        .map(|(channel, name)| {
            thread::spawn(move || {
                for n in 0..1_000 {
                    publish(&channel, &format!("{name}{n}"));
                }
            })
        })
        .collect();
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let address = served.address();
            thread::spawn(move || {
                let path = "/both?last_event_id=earliest";
                let mut client = Subscriber::open(address, path, &[]);
                let mut seen = Vec::new();
                while seen.len() < 2_000 {
                    for _ in 0..100 + reader * 7 {
                        if seen.len() < 2_000 {
                            seen.push(client.next());
                        }
                    }
                    let id = seen.last().unwrap().last_event_id.clone();
                    client = Subscriber::open(address, path, &[("Last-Event-ID", &id)]);
                }
                seen
            })
        })
        .collect();
    for publisher in publishers {
        publisher.join().unwrap();
    }
    for reader in readers {
        let seen = reader.join().unwrap();
        for name in ["a", "b"] {
            let mine = seen.iter().filter(|event| event.data.starts_with(name));
            let expected = (0..1_000).map(|n| format!("{name}{n}"));
            assert!(mine.map(|event| event.data.clone()).eq(expected));
        }
        assert!(seen.is_sorted_by_key(|event| sequence(&event.last_event_id)));
    }
}

#[test]
fn directed_events_are_replayed_in_order_to_their_recipients_only() {
    let (served, channel, _) = two_channels(keeping(100));
    let before = publish(&channel, "1");
    channel.send("ann", Event::message("2 ann")).unwrap();
    publish(&channel, "3");
    let admins = [Condition::new("role", "admin")];
    let to_admins = Event::message("4 admins");
    channel.broadcast_where(&admins, to_admins).unwrap();
    publish(&channel, "5");

    for (query, expected) in [
        ("?id=ann", &["2 ann", "3", "5"][..]),
        ("?id=bob", &["3", "5"]),
        ("?id=cyd&role=admin", &["3", "4 admins", "5"]),
        ("?id=ann&role=admin", &["2 ann", "3", "4 admins", "5"]),
    ] {
        let mut client = served.resubscribe(&format!("/a{query}"), &before);
        assert_eq!(summaries(&client.take(expected.len())), expected, "{query}");
        let mut client = served.resubscribe(&format!("/both{query}"), &before);
        assert_eq!(summaries(&client.take(expected.len())), expected, "{query}");
        // And the last so many are counted among those that are for it.
        let mut client = served.subscribe(&format!("/a{query}&last=2"));
        let expected = &expected[expected.len() - 2..];
        assert_eq!(summaries(&client.take(2)), expected, "{query}");
    }
}

#[test]
fn the_recipients_of_a_filter_are_remembered_for_reconnections() {
    let (served, channel, _) = two_channels(keeping(100));
    let mut ann = served.subscribe("/a?id=ann&role=admin");
    let _bob = served.subscribe("/a?id=bob");
    let before = ann.wait_for_id();
    let admin = |c: &pushwheel::Candidate| c.metadata["role"] == "admin";
    let sent = channel.broadcast_to(admin, Event::message("admins"));
    assert_eq!(sent.unwrap().clients, 1);
    publish(&channel, "all");

    let mut ann = served.resubscribe("/a?id=ann&role=demoted", &before);
    assert_eq!(summaries(&ann.take(2)), ["admins", "all"]);
    // The filter was not asked about the changed metadata of bob.
    let mut bob = served.resubscribe("/a?id=bob&role=admin", &before);
    assert_eq!(gap(&bob.next())["reason"], "audience");
    assert_eq!(summaries(&bob.take(1)), ["all"]);
}

#[test]
fn a_client_with_a_generated_id_receives_a_gap_for_events_to_its_old_id() {
    let (served, channel, _) = two_channels(keeping(100));
    let mut client = served.subscribe("/a");
    let before = client.wait_for_id();
    eventually("it is there", || channel.client_count() == 1);
    let id = channel.client_ids().remove(0);
    drop(client);
    eventually("it has gone", || channel.client_count() == 0);
    // No client has the id, and the publisher gets a count of 0.
    assert_eq!(channel.send(&id, Event::message("0")).unwrap().clients, 0);
    let mut client = served.resubscribe("/a", &before);
    publish(&channel, "1");
    assert_eq!(summaries(&client.take(1)), ["1"]);

    let before = client.last_event_id().to_owned();
    let id = channel.client_ids().remove(0);
    assert_eq!(channel.send(&id, Event::message("2")).unwrap().clients, 1);
    publish(&channel, "3");
    let mut again = served.resubscribe("/a", &before);
    let reported_by = gap(&again.next());
    assert_eq!(reported_by["reason"], "audience");
    assert_ne!(reported_by["newest"], Value::Null);
    assert_eq!(summaries(&again.take(1)), ["3"]);
    // Once is enough, and a client that chose its id receives no gap.
    let mut once = served.resubscribe("/a", again.last_event_id());
    let mut ann = served.resubscribe("/a?id=ann", &before);
    publish(&channel, "4");
    assert_eq!(summaries(&once.take(1)), ["4"]);
    assert_eq!(summaries(&ann.take(2)), ["3", "4"]);
}

#[test]
fn an_event_for_all_but_one_client_excludes_it_after_a_reconnection_too() {
    let (served, channel, _) = two_channels(keeping(100));
    let mut ann = served.subscribe("/a?id=ann&role=x");
    let mut other = served.subscribe("/a?role=y");
    let before = [ann.wait_for_id(), other.wait_for_id()];
    eventually("both are there", || channel.client_count() == 2);
    drop(other);
    eventually("one has gone", || channel.client_count() == 1);
    let but_ann = channel.broadcast_except("ann", Event::message("1"));
    assert_eq!(but_ann.unwrap().clients, 0);
    let not_x = [Condition::not("role", "x")];
    channel
        .broadcast_where(&not_x, Event::message("2"))
        .unwrap();
    publish(&channel, "3");
    assert_eq!(summaries(&ann.take(1)), ["3"]);
    let mut other = served.resubscribe("/a?role=y", &before[1]);
    assert_eq!(summaries(&other.take(3)), ["1", "2", "3"]);
    let mut ann = served.resubscribe("/a?id=ann&role=x", &before[0]);
    assert_eq!(summaries(&ann.take(1)), ["3"]);
}

#[test]
fn a_gap_names_only_events_that_the_client_may_see() {
    let (served, channel, _) = two_channels(keeping(100));
    let own = |id: &'static str| Event::message("secret").with_id(id);
    channel.send("bob", own("invoice-4711-bob")).unwrap();
    let mine = channel
        .send("ann", own("invoice-1-ann"))
        .unwrap()
        .id
        .unwrap();
    channel.send("bob", own("invoice-4712-bob")).unwrap();
    for id in ["nosuch", "invoice-4711-bob", "invoice-4712-bob"] {
        let mut ann = served.resubscribe("/a?id=ann", id);
        let reported_by = gap(&ann.next());
        assert_eq!(reported_by["reason"], "unknown", "{id}");
        assert_eq!(reported_by["oldest"], mine.to_string());
        assert_eq!(reported_by["newest"], mine.to_string());
        let mut eve = served.resubscribe("/a?id=eve", id);
        let reported_by = gap(&eve.next());
        assert_eq!(
            (&reported_by["reason"], &reported_by["oldest"]),
            (&json!("unknown"), &Value::Null)
        );
        assert!(!reported_by.to_string().contains("ann"), "{reported_by}");
    }
    // And no opening id does.
    let mut eve = served.subscribe("/a?id=eve");
    assert!(!eve.wait_for_id().contains("bob"));
}

#[test]
fn a_start_of_the_handlers_is_where_a_client_begins_that_does_not_say_where() {
    let channels = ChannelManager::builder().defaults(keeping(10)).build();
    let channel = channels.get_or_create("chat").unwrap();
    let stream = channel.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/chat", move |_| {
            Subscription::new(&stream).start(Start::Earliest)
        });
    let served = Served::start(builder);
    for n in 1..=3 {
        publish(&channel, &n.to_string());
    }
    let mut client = served.subscribe("/chat");
    assert_eq!(summaries(&client.take(3)), ["1", "2", "3"]);
    let mut again = served.resubscribe("/chat", client.last_event_id());
    let mut last = served.subscribe("/chat?last=1");
    publish(&channel, "4");
    assert_eq!(summaries(&again.take(1)), ["4"]);
    assert_eq!(summaries(&last.take(2)), ["3", "4"]);
}

#[test]
fn a_replay_from_the_beginning_reports_a_trimmed_history() {
    let (served, channel) = Served::channel(keeping(3));
    let earliest = "/stream?last_event_id=earliest";
    // Nothing was there yet, then all of it.
    let mut early = served.subscribe(earliest);
    for n in 1..=3 {
        publish(&channel, &n.to_string());
    }
    assert_eq!(summaries(&early.take(3)), ["1", "2", "3"]);
    assert_eq!(
        summaries(&served.subscribe(earliest).take(3)),
        ["1", "2", "3"]
    );
    publish(&channel, "4");
    let mut client = served.subscribe(earliest);
    assert_eq!(gap(&client.next())["reason"], "evicted");
    assert_eq!(summaries(&client.take(3)), ["2", "3", "4"]);
    // The last few are the last few, whatever was before.
    assert_eq!(
        summaries(&served.subscribe("/stream?last=3").take(1)),
        ["2"]
    );

    // Without a history all is gone, and a channel that is made again begins.
    let (served, channel) = Served::channel(keeping(0));
    publish(&channel, "gone");
    let mut client = served.subscribe(earliest);
    assert_eq!(gap(&client.next())["reason"], "evicted");
    publish(&channel, "live");
    assert_eq!(summaries(&client.take(1)), ["live"]);
    channel.finish(None).unwrap();
    client.expect_end();
    // It has seen nothing, and it receives no gap for that.
    let mut client = served.subscribe(earliest);
    assert_eq!(gap(&client.next())["reason"], "evicted");
    let id = client.last_event_id().to_owned();
    client.expect_end();
    let mut connection = served.connect();
    connection.send(format!(
        "GET {earliest} HTTP/1.1\r\nHost: test\r\nLast-Event-ID: {id}\r\n\r\n"
    ));
    assert_eq!(connection.head().status, 204);

    let channels = ChannelManager::builder().defaults(keeping(3)).build();
    let again = channels.get_or_create("again").unwrap();
    publish(&again, "of another life");
    channels.remove("again");
    let again = channels.get_or_create("again").unwrap();
    publish(&again, "1");
    let builder = Engine::builder()
        .channels(&channels)
        .get("/again", move |_| Subscription::new(&again));
    let served = Served::start(builder);
    let mut client = served.subscribe("/again?last_event_id=earliest");
    assert_eq!(summaries(&client.take(1)), ["1"]);
}

#[test]
fn a_history_is_bounded_by_its_bytes_too() {
    let history = History::events(1_000).bytes_max(10_000);
    let (served, channel) = Served::channel(ChannelOptions::new().history(history));
    for n in 0..100 {
        publish(&channel, &format!("{n} {}", "x".repeat(1_000)));
        assert!(channel.stats().unwrap().history_bytes <= 10_000);
    }
    let mut client = served.subscribe("/stream?last_event_id=earliest");
    let kept = channel.stats().unwrap().history_events;
    assert!((5..10).contains(&kept), "{kept}");
    gap(&client.next());
    let first = client.take(kept).remove(0);
    assert!(first.data.starts_with(&format!("{} ", 100 - kept)));
}

#[test]
fn a_history_goes_with_its_age() {
    let history = History::events(1_000).age_max(Duration::from_millis(1));
    let (_served, channel) = Served::channel(ChannelOptions::new().history(history));
    publish(&channel, "soon forgotten");
    // Whether or not anything is published after it.
    eventually("it is forgotten", || {
        channel.stats().unwrap().history_events == 0
    });
    assert_eq!(channel.stats().unwrap().history_bytes, 0);
}
