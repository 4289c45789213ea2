//! Subscriptions that are answered once: a page of events instead of a stream.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::sync::mpsc;
use std::time::Duration;

use common::client::Answer;
use common::{Connection, Served, eventually, receive};
use pushwheel::{
    Channel, ChannelManager, ChannelOptions, ClientId, DisconnectReason, Engine, Event, History,
    LagPolicy, Request, Subscription,
};
use serde_json::{Value, json};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(60);

/// An engine that answers `/page` at once, and `/wait` and `/wait/a-client` with a page of
/// the channels `news` and `sport`.
struct Pages {
    served: Served,
    news: Channel,
    sport: Channel,
    ended: mpsc::Receiver<DisconnectReason>,
}

fn pages(options: ChannelOptions, wait: Duration) -> Pages {
    let channels = ChannelManager::builder()
        .defaults(options)
        .republish_window(Duration::ZERO)
        .build();
    let [news, sport] = ["news", "sport"].map(|name| channels.get_or_create(name).unwrap());
    let (sender, ended) = mpsc::channel();
    let subscription = {
        let (news, sport) = (news.clone(), sport.clone());
        move |request: &Request| {
            let sender = sender.clone();
            let mut subscription = Subscription::new(&news).and(&sport);
            if let Some(client) = request.query("client") {
                subscription = subscription.client_id(ClientId::new(&client).unwrap());
            }
            if let Some(role) = request.query("role") {
                subscription = subscription.metadata(json!({"role": role}));
            }
            subscription.on_disconnect(move |_, reason| sender.send(reason).unwrap())
        }
    };
    let waiting = subscription.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/page", move |r: &Request| {
            subscription(r).answer_once(Duration::ZERO)
        })
        .get("/wait", move |r: &Request| waiting(r).answer_once(wait));
    Pages {
        served: Served::start(builder),
        news,
        sport,
        ended,
    }
}

fn keeping(events: usize) -> ChannelOptions {
    let heartbeat = Duration::from_secs(1);
    ChannelOptions::new()
        .history(History::events(events))
        .heartbeat(heartbeat)
}

fn publish(channel: &Channel, data: &str) -> String {
    let published = channel.broadcast(Event::message(data)).unwrap();
    published.id.unwrap().to_string()
}

#[track_caller]
fn json_of(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let cache = answer.header("cache-control");
    assert_eq!(cache, Some("private, no-cache"));
    let vary = answer.all("vary").join(", ");
    assert_eq!(vary, "Accept, Authorization, Last-Event-ID");
    serde_json::from_slice(&answer.body).unwrap()
}

/// A page that has been waited for, or is waited for now.
#[track_caller]
fn waited(connection: &mut Connection, mut head: Answer) -> Value {
    head.body = connection.rest();
    json_of(&head)
}

fn data(page: &Value) -> Vec<&str> {
    let events = page["events"].as_array().unwrap().iter();
    events
        .map(|event| event["data"].as_str().unwrap())
        .collect()
}

impl Pages {
    /// Asks for a page on a connection that is kept.
    fn page(&self, path: &str) -> Value {
        let mut connection = self.served.connect();
        let page = json_of(&connection.get(path));
        assert_eq!(json_of(&connection.get(path))["newest"], page["newest"]);
        page
    }

    /// Begins to wait. Returns when the head is there.
    fn wait(&self, path: &str) -> (Connection, Answer) {
        let mut connection = self.served.connect();
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let head = connection.head();
        assert_eq!(head.header("etag"), None);
        assert_eq!(head.header("connection"), Some("close"));
        (connection, head)
    }
}

#[test]
fn a_page_has_the_events_of_all_channels_in_order_and_the_next_one_begins_after_it() {
    let pages = pages(keeping(100), LONG);
    let first = publish(&pages.news, "one");
    let second = pages.sport.broadcast(Event::new("goal", "two")).unwrap();
    let second = second.id.unwrap().to_string();
    let page = pages.page("/page?last_event_id=earliest");
    let at = |n: usize| page["events"][n]["at_ms"].clone();
    assert!(at(0).as_u64() > Some(1_700_000_000_000));
    let expected = json!({
        "events": [
            {"id": first, "data": "one", "channel": "news", "at_ms": at(0)},
            {"id": second, "event": "goal", "data": "two", "channel": "sport", "at_ms": at(1)},
        ],
        "newest": second, "gap": null, "finished": false, "more": false,
    });
    assert_eq!(page, expected);
    let answer = pages.served.connect().get("/page");
    assert_eq!(answer.header("etag"), Some(&*format!("\"{second}\"")));
    assert_eq!(
        json_of(&answer)["events"],
        json!([]),
        "without a start it is live"
    );

    let after = |id: &str| pages.page(&format!("/page?last_event_id={id}"));
    assert_eq!(data(&after(&first)), ["two"]);
    assert_eq!(data(&after(&second)), [""; 0]);
    assert_eq!(data(&pages.page("/page?last=1")), ["two"]);
    assert_eq!(pages.served.channels().stats().clients, 0);
}

#[test]
fn an_own_id_is_the_newest_one_and_leads_back() {
    let pages = pages(keeping(100), LONG);
    let own = Event::message("mine").with_id("order-7");
    pages.news.broadcast(own).unwrap();
    let answer = pages.served.connect().get("/page");
    assert_eq!(answer.header("etag"), Some("\"order-7\""));
    publish(&pages.news, "next");
    assert_eq!(data(&pages.page("/page?last_event_id=order-7")), ["next"]);
    let quoted = Event::message("x").with_id("a\"b");
    pages.news.broadcast(quoted).unwrap();
    let answer = pages.served.connect().get("/page");
    assert_eq!(
        (answer.header("etag"), &json_of(&answer)["newest"]),
        (None, &json!("a\"b"))
    );
}

#[test]
fn head_has_the_newest_id_and_waits_for_nothing() {
    let pages = pages(keeping(100), LONG);
    let newest = publish(&pages.news, "one");
    let mut connection = pages.served.connect();
    connection.send("HEAD /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = connection.head();
    assert_eq!(head.header("etag"), Some(&*format!("\"{newest}\"")));
    // The connection goes on, behind no body.
    assert_eq!(json_of(&connection.get("/page"))["newest"], newest);
}

#[test]
fn a_large_history_comes_in_pages_that_miss_nothing() {
    let pages = pages(keeping(5_000), LONG);
    let sizes = (0..2_500).map(|n| format!("{n} {}", "x".repeat(n % 400)));
    let published: Vec<String> = sizes.collect();
    for text in &published {
        publish(&pages.news, text);
    }
    let (mut read, mut path) = (Vec::new(), "/page?last_event_id=earliest".to_owned());
    let mut count = 0;
    loop {
        let page = pages.page(&path);
        let events = data(&page);
        assert!(events.len() <= 1_024);
        read.extend(events.into_iter().map(str::to_owned));
        count += 1;
        if page["more"] == false {
            break;
        }
        path = format!("/page?last_event_id={}", page["newest"].as_str().unwrap());
    }
    assert!(count > 2, "{count}");
    assert_eq!(read, published);
}

#[test]
fn lost_events_are_a_gap() {
    let pages = pages(keeping(2), LONG);
    let first = publish(&pages.news, "1");
    for n in 2..6 {
        publish(&pages.news, &n.to_string());
    }
    let page = pages.page(&format!("/page?last_event_id={first}"));
    assert_eq!(page["gap"]["reason"], "evicted");
    assert_eq!(page["gap"]["requested"], first);
    assert_eq!(data(&page), ["4", "5"]);
    let next = format!("/page?last_event_id={}", page["newest"].as_str().unwrap());
    assert_eq!(pages.page(&next)["gap"], Value::Null);
    let unknown = pages.page("/page?last_event_id=nothing");
    assert_eq!(unknown["gap"]["reason"], "unknown");
}

#[test]
fn a_page_is_for_its_client() {
    let pages = pages(keeping(10), LONG);
    pages.news.send("ann", Event::message("for Ann")).unwrap();
    let admins = [pushwheel::Condition::new("role", "admin")];
    let for_admins = Event::message("for admins");
    pages.news.broadcast_where(&admins, for_admins).unwrap();
    publish(&pages.news, "for all");
    for (query, expected) in [
        ("", &["for all"][..]),
        ("&client=ann", &["for Ann", "for all"]),
        ("&role=admin", &["for admins", "for all"]),
    ] {
        let page = pages.page(&format!("/page?last=10{query}"));
        assert_eq!(data(&page), expected, "{query}");
    }
}

#[test]
fn a_client_that_waits_receives_the_first_event_for_it() {
    let pages = pages(keeping(100), LONG);
    let (mut ann, ann_head) = pages.wait("/wait?client=ann");
    let (mut bob, bob_head) = pages.wait("/wait?client=bob");
    // One is a client of both channels until it is answered.
    assert_eq!(pages.sport.client_count(), 2);
    pages.sport.send("bob", Event::message("for Bob")).unwrap();
    let page = waited(&mut bob, bob_head);
    assert_eq!(
        (data(&page), page["more"].clone()),
        (vec!["for Bob"], json!(false))
    );
    assert_eq!(receive(&pages.ended), DisconnectReason::Answered);
    assert_eq!(pages.sport.client_count(), 1);
    let id = publish(&pages.news, "for all");
    let page = waited(&mut ann, ann_head);
    assert_eq!(
        (data(&page), &page["newest"]),
        (vec!["for all"], &json!(id))
    );
    // What came between two pages is on the second one, and nothing twice.
    publish(&pages.news, "between");
    let again = pages.page(&format!("/wait?client=ann&last_event_id={id}"));
    assert_eq!(data(&again), ["between"]);
}

#[test]
fn a_client_that_has_waited_in_vain_receives_an_empty_page() {
    let pages = pages(keeping(100), Duration::from_secs(2));
    let newest = publish(&pages.news, "before");
    let (mut connection, mut head) = pages.wait("/wait");
    head.body = connection.rest();
    // A line end goes out while nothing comes, so no proxy gives up.
    assert_eq!(head.body[0], b'\n');
    let page = json_of(&head);
    let expected = json!({
        "events": [], "newest": newest, "gap": null, "finished": false, "more": false,
    });
    assert_eq!(page, expected);
    assert_eq!(receive(&pages.ended), DisconnectReason::Answered);
}

#[test]
fn the_end_of_all_channels_is_on_the_page() {
    let pages = pages(keeping(100), LONG);
    let first = publish(&pages.news, "one");
    let (mut connection, head) = pages.wait("/wait");
    pages.sport.finish(None).unwrap();
    publish(&pages.news, "last");
    assert_eq!(waited(&mut connection, head)["finished"], false);
    let path = format!("/wait?last_event_id={first}");
    assert_eq!(data(&pages.page(&path)), ["last"]);
    let (mut connection, head) = pages.wait("/wait");
    pages.news.finish(None).unwrap();
    let page = waited(&mut connection, head);
    assert_eq!((data(&page), &page["finished"]), (vec![], &json!(true)));
    let reasons = [receive(&pages.ended), receive(&pages.ended)];
    assert_eq!(
        reasons,
        [DisconnectReason::Answered, DisconnectReason::Finished]
    );
    // The last events and the end are on one page, also for a client that comes later.
    let page = pages.page(&path);
    assert_eq!(
        (data(&page), &page["finished"]),
        (vec!["last"], &json!(true))
    );
    assert_eq!(pages.page("/wait")["finished"], true);
}

#[test]
fn a_shutdown_and_a_closed_channel_end_the_waiting() {
    let pages = pages(keeping(100), LONG);
    let (mut connection, head) = pages.wait("/wait");
    pages.served.shutdown(Duration::from_secs(1));
    let page = waited(&mut connection, head);
    assert_eq!(page["events"], json!([]));
    assert_eq!(receive(&pages.ended), DisconnectReason::Shutdown);
}

#[test]
fn a_page_of_a_channel_that_conflates_is_its_state() {
    let pages = pages(keeping(2).lag_policy(LagPolicy::Conflate), LONG);
    let price = |key: &'static str, data: &'static str| {
        let event = Event::message(data).with_key(key);
        pages.news.broadcast(event).unwrap();
    };
    for (key, data) in [("a", "1"), ("b", "2"), ("a", "3")] {
        price(key, data);
    }
    let page = pages.page("/page");
    assert_eq!(data(&page), ["2", "3"]);
    price("b", "4");
    let next = format!("/page?last_event_id={}", page["newest"].as_str().unwrap());
    assert_eq!(data(&pages.page(&next)), ["4"]);
}

#[test]
fn every_event_is_on_one_page_of_clients_that_ask_again_and_again() {
    const EVENTS: usize = 300;
    let pages = pages(keeping(1_000), LONG);
    let start = publish(&pages.news, "start");
    let publisher = {
        let (news, sport) = (pages.news.clone(), pages.sport.clone());
        std::thread::spawn(move || {
            for n in 0..EVENTS {
                publish(if n % 3 == 0 { &sport } else { &news }, &n.to_string());
                if n % 7 == 0 {
                    std::thread::yield_now();
                }
            }
        })
    };
    let (mut read, mut after) = (Vec::new(), start);
    while read.len() < EVENTS {
        let mut connection = pages.served.connect();
        connection.send(format!(
            "GET /wait?last_event_id={after} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        ));
        let mut head = connection.head();
        head.body = connection.rest();
        let page = json_of(&head);
        assert_eq!(page["gap"], Value::Null);
        read.extend(data(&page).into_iter().map(str::to_owned));
        page["newest"].as_str().unwrap().clone_into(&mut after);
    }
    publisher.join().unwrap();
    let expected: Vec<String> = (0..EVENTS).map(|n| n.to_string()).collect();
    assert_eq!(read, expected);
    eventually("no client waits", || pages.news.client_count() == 0);
}

#[test]
fn a_stream_names_the_channel_of_each_event_on_request() {
    let channels = ChannelManager::new();
    let options = || keeping(10).compress_from(0);
    let [news, sport] =
        ["news", "sport"].map(|name| channels.get_or_create_with(name, options).unwrap());
    publish(&news, "one");
    let both = Subscription::new;
    let (first, second) = (news.clone(), sport.clone());
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", move |_| {
            both(&first).and(&second).name_channels()
        });
    let served = Served::start(builder);
    let mut connection = served.connect();
    connection.send("GET /stream?last=5 HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!(connection.head().header("content-encoding"), None);
    let mut read = move |end: &str| {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            text.extend(connection.bytes(1));
        }
        String::from_utf8(text).unwrap()
    };
    assert!(read("data: one\n\n").contains("\nchannel: news\nid: "));
    publish(&sport, "two");
    assert!(read("data: two\n\n").starts_with("channel: sport\nid: "));
}
