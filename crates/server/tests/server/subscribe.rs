//! Subscribing.

use pushwheel::{Event, History};
use pushwheel_server::Config;
use serde_json::{Value, json};

use crate::common::{Connection, Served, Subscriber, eventually, summaries};
use crate::{TEXT, ask, delete, get, json, publish, refusal, refused, start, text};

fn fill(served: &Served, channel: &str, count: usize) -> Vec<String> {
    let path = format!("/channels/{channel}");
    let fill_one = |n| text(&publish(served, &path, TEXT, &format!("{channel}{n}"))["id"]).into();
    (1..=count).map(fill_one).collect()
}

#[test]
fn a_stream_opens_with_its_headers_and_then_a_line_without_meaning_at_once() {
    let served = start();
    let mut stream = served.subscribe("/channels/news");
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),
        ("connection", "close"),
    ] {
        assert_eq!(stream.head.header(name), Some(value), "{name}");
    }
    assert_eq!(stream.head.header("content-length"), None);
    assert_eq!(stream.connection().bytes(6), b"ping:\n");
}

/// Opens a stream, publishes, and returns the head's id and all bytes of the
/// body up to and with the event.
fn opening(served: &Served, query: &str, headers: &str) -> (Option<String>, String) {
    let mut connection = served.connect();
    connection.send(format!(
        "GET /channels/a?{query} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
    ));
    let head = connection.head();
    assert_eq!(head.status, 200, "{head:?}");
    publish(served, "/channels/a", TEXT, "live");
    let mut body = Vec::new();
    while !body.ends_with(b"data: live\n\n") {
        body.extend(connection.bytes(1));
    }
    let id = head.header("last-event-id").map(str::to_owned);
    (id, String::from_utf8(body).unwrap())
}

#[test]
fn the_starting_id_is_in_every_head_and_in_a_block_for_event_sources_and_on_request() {
    let served = start();
    let before = fill(&served, "a", 1).remove(0);
    for (query, headers, has_block) in [
        ("", "", false),
        ("", "Cache-Control: max-age=0\r\n", false),
        ("", "Cache-Control: no-cache\r\n", true),
        ("", "Cache-Control: max-age=0, No-Cache\r\n", true),
        ("cursor", "", true),
        ("cursor=true", "", true),
        ("cursor=false", "Cache-Control: no-cache\r\n", false),
    ] {
        let (id, body) = opening(&served, query, headers);
        let id = id.expect("the head has an id");
        let block = if has_block {
            format!("id: {id}\n\n")
        } else {
            String::new()
        };
        let (opening, _) = body.split_at(body.rfind("id: ").unwrap());
        assert_eq!(opening, format!("ping:\n{block}"), "{query:?} {headers:?}");
        // The id is that of the start of the stream.
        let mut again = served.resubscribe("/channels/a", &id);
        assert_eq!(summaries(&again.take(1)), ["live"]);
    }
    // A client with an id needs no other.
    let last = format!("Last-Event-ID: {before}\r\nCache-Control: no-cache\r\n");
    let (id, body) = opening(&served, "", &last);
    assert_eq!(id, Some(before));
    assert!(
        body.starts_with("ping:\nid: ") && body.contains("data: live"),
        "{body}"
    );
    assert!(!body.contains("\n\nid: \n"), "{body}");
}

#[test]
fn head_says_what_get_does_of_where_a_stream_begins() {
    let served = start();
    let id = fill(&served, "a", 1).remove(0);
    let mut connection = served.connect();
    connection.send("HEAD /channels/a HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = connection.head();
    assert_eq!(head.header("last-event-id"), Some(&*id));
    connection.expect_end();
}

#[test]
fn a_stream_is_live_only_unless_it_says_otherwise() {
    let served = start();
    fill(&served, "a", 2);
    let mut stream = served.subscribe("/channels/a");
    publish(&served, "/channels/a", TEXT, "live");
    assert_eq!(summaries(&stream.take(1)), ["live"]);
}

#[test]
fn what_was_missed_comes_first_and_the_header_wins_over_the_query() {
    let served = start();
    let ids = fill(&served, "a", 4);
    let wanted = ["a3", "a4", "live"];
    let mut streams = vec![
        served.resubscribe("/channels/a", &ids[1]),
        served.resubscribe("/channels/a?last_event_id=earliest", &ids[1]),
        served.resubscribe(&format!("/channels/a?lastEventId={}", ids[3]), &ids[1]),
        served.subscribe(&format!("/channels/a?last_event_id={}", ids[1])),
        served.subscribe(&format!("/channels/a?lastEventId={}&last=1", ids[1])),
    ];
    publish(&served, "/channels/a", TEXT, "live");
    for stream in &mut streams {
        assert_eq!(summaries(&stream.take(3)), wanted);
    }
}

#[test]
fn earliest_is_all_of_the_history_and_last_its_last_n() {
    let served = start();
    fill(&served, "a", 3);
    for (query, wanted) in [
        ("last_event_id=earliest", &["a1", "a2", "a3", "live"][..]),
        ("last=2", &["a2", "a3", "live"]),
        ("last=99", &["a1", "a2", "a3", "live"]),
        ("last=0", &["live"]),
    ] {
        let mut stream = served.subscribe(&format!("/channels/a?{query}"));
        let live = publish(&served, "/channels/a", TEXT, "live");
        assert_eq!(summaries(&stream.take(wanted.len())), wanted, "{query}");
        delete(&served, "/channels/a");
        assert_eq!(live["clients"], 1);
        fill(&served, "a", 3);
    }
}

#[test]
fn several_channels_are_merged_in_publishing_order_and_one_id_resumes_them_all() {
    let served = start();
    let mut stream = served.subscribe("/events?channel=a&channel=b");
    let mut ids = Vec::new();
    for n in 1..=3 {
        for channel in ["b", "a", "other"] {
            let path = format!("/channels/{channel}");
            let published = publish(&served, &path, TEXT, &format!("{channel}{n}"));
            ids.push(text(&published["id"]).to_owned());
        }
    }
    let wanted = ["b1", "a1", "b2", "a2", "b3", "a3"];
    assert_eq!(summaries(&stream.take(6)), wanted);
    let mut stream = served.resubscribe("/events?channel=b&channel=a", &ids[1]);
    assert_eq!(summaries(&stream.take(4)), wanted[2..]);
}

fn gap_of(stream: &mut Subscriber) -> Value {
    let event = stream.next();
    assert_eq!(event.name, "pushwheel.gap");
    serde_json::from_str(&event.data).unwrap()
}

#[test]
fn a_stream_that_cannot_be_resumed_begins_with_the_gap_and_its_reason() {
    let options = pushwheel_server::channel_options().history(History::events(2));
    let served = Served::start(Config::new().channel_options(options).engine());
    let ids = fill(&served, "a", 4);
    let (oldest, newest) = (&ids[2], &ids[3]);
    let (epoch, _) = ids[0].split_once('-').unwrap();
    for (id, reason) in [
        (&*ids[0], "evicted"),
        ("another-1", "unknown"),
        ("0ther-1", "unknown"),
        ("order-17", "unknown"),
        ("zzzzzzf-1", "restart"),
        (&format!("{epoch}-999"), "unknown"),
    ] {
        let gap = gap_of(&mut served.resubscribe("/channels/a", id));
        let wanted = json!({"requested": id, "oldest": oldest, "newest": newest, "reason": reason});
        assert_eq!(gap, wanted);
    }
    for odd in ["(){}", "-", "\u{e9}", &"x".repeat(600)] {
        let mut stream = served.resubscribe("/channels/a", odd);
        assert_eq!(gap_of(&mut stream)["requested"], odd);
        assert_eq!(summaries(&stream.take(2)), ["a3", "a4"]);
    }
}

#[test]
fn a_full_channel_sends_browsers_a_time_to_reconnect_and_programs_503() {
    let options = pushwheel_server::channel_options().max_clients(1);
    let served = Served::start(Config::new().channel_options(options).engine());
    let mut first = served.subscribe("/channels/a");
    first.wait_for_id();
    let mut second = served.subscribe("/channels/a");
    second.expect_end();
    assert!(second.retry().is_some_and(|ms| ms >= 1000));
    let answer = get(&served, "/channels/a");
    assert_eq!(refusal(&answer), refused(503, "channel_full"));
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    publish(&served, "/channels/a", TEXT, "still there");
    assert_eq!(summaries(&first.take(1)), ["still there"]);
}

#[test]
fn with_too_many_channels_all_get_a_time_to_reconnect() {
    let config = Config::new()
        .channels_max(2)
        .allow_any_origin_to_subscribe(true);
    let served = Served::start(config.engine());
    for channel in ["/channels/a", "/channels/b"] {
        publish(&served, channel, TEXT, "kept");
    }
    for method in ["GET", "POST"] {
        let answer = ask(&served, method, "/channels/c", &[], "");
        assert_eq!(refusal(&answer), refused(503, "too_many_channels"));
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((3..=10).contains(&seconds));
    }
    let close = [("Connection", "close")];
    let mut browser = Subscriber::open(served.address(), "/channels/c", &close);
    browser.expect_end();
    assert!(
        browser
            .retry()
            .is_some_and(|ms| (2000..10_000).contains(&ms))
    );
    assert_eq!(
        browser.head.header("access-control-allow-origin"),
        Some("*")
    );
    assert_eq!(
        browser.head.header("cache-control"),
        Some("no-cache, no-transform")
    );
    // Channels without clients and events do not block publishers.
    assert_eq!(served.channels().remove_empty(), 2);
    assert_eq!(
        ask(&served, "HEAD", "/events?channel=x&channel=y", &[], "").status,
        200
    );
    publish(&served, "/channels/c", TEXT, "there is room");
}

#[test]
fn a_finished_channel_sends_its_last_event_ends_and_answers_204() {
    let served = start();
    let mut stream = served.subscribe("/channels/a");
    publish(&served, "/channels/a", TEXT, "the last");
    let answer = delete(&served, "/channels/a?finish");
    assert_eq!((answer.status, json(&answer)), (200, json!({"clients": 1})));
    assert_eq!(summaries(&stream.rest()), ["the last"]);
    let id = stream.last_event_id().to_owned();
    for headers in [
        &[][..],
        &[("Accept", "text/event-stream")],
        &[("Last-Event-ID", &*id)],
    ] {
        let mut connection = served.connect();
        let answer = crate::ask_over(&mut connection, "GET", "/channels/a", headers, "");
        assert_eq!(answer.status, 204, "{headers:?}");
        assert_eq!(answer.body, b"");
    }
    let answer = ask(&served, "POST", "/channels/a", &[], "too late");
    assert_eq!(refusal(&answer), refused(409, "channel_finished"));
}

#[test]
fn http_1_0_gets_the_same_stream() {
    let served = start();
    let mut connection = Connection::open(served.address());
    connection.send("GET /channels/a HTTP/1.0\r\nCache-Control: no-cache\r\n\r\n");
    let mut stream = Subscriber::begun(connection);
    stream.wait_for_id();
    publish(&served, "/channels/a", TEXT, "hello");
    assert_eq!(summaries(&stream.take(1)), ["hello"]);
    assert_eq!(stream.head.header("transfer-encoding"), None);
}

#[test]
fn a_client_may_say_its_id_and_metadata_on_an_open_server() {
    let served = start();
    let path = "/channels/a?client=ann%20b&meta.role=admin&meta.tag=x&meta.tag=y";
    let mut stream = served.subscribe(path);
    stream.wait_for_id();
    let answer = get(&served, "/channels/a/clients/ann%20b");
    let client = json(&answer);
    assert_eq!(client["id"], "ann b");
    assert_eq!(
        client["metadata"],
        json!({"role": "admin", "tag": ["x", "y"]})
    );
    // A dead connection with the same id is replaced.
    let mut again = served.subscribe(path);
    stream.expect_end();
    again.wait_for_id();
    eventually("one is left", || served.channels().total_clients() == 1);
}

#[test]
fn a_request_for_a_stream_that_cannot_be_is_refused() {
    let served = start();
    let too_many: String = (0..65).map(|n| format!("channel={n}&")).collect();
    for (path, status, code) in [
        ("/events", 400, "channel_missing"),
        ("/events?channels=a", 400, "channel_missing"),
        ("/events?channel=", 400, "channel_name_invalid"),
        (
            "/events?channel=a&channel=b%2Fc",
            400,
            "channel_name_invalid",
        ),
        (
            &*format!("/events?{too_many}"),
            400,
            "stream_channels_too_many",
        ),
        ("/channels/a%2Fb", 400, "channel_name_invalid"),
        ("/channels/a%0Ab", 400, "channel_name_invalid"),
        ("/channels/a%FF", 400, "invalid_path"),
        ("/events?channel=%FF", 400, "invalid_query"),
        ("/channels/", 400, "channel_name_invalid"),
        (
            &*format!("/channels/{}", "n".repeat(256)),
            400,
            "channel_name_invalid",
        ),
        ("/channels/a?last=many", 400, "parameter_invalid"),
        ("/events?channel=a&last=-1", 400, "parameter_invalid"),
        ("/channels/a?client=", 400, "client_id_invalid"),
    ] {
        assert_eq!(
            refusal(&get(&served, path)),
            refused(status, code),
            "{path}"
        );
    }
    assert_eq!(served.channels().names(), [], "nothing was made");
    let many: String = (0..64).map(|n| format!("channel={n}&")).collect();
    served.subscribe(&format!("/events?{many}")).wait_for_id();
    served
        .subscribe(&format!("/channels/{}", "n".repeat(255)))
        .wait_for_id();
}

#[test]
fn a_name_may_be_any_utf_8_after_decoding() {
    let served = start();
    let mut stream = served.subscribe("/channels/caf%C3%A9%20%26%20%F0%9F%A6%80");
    served
        .channels()
        .get("café & 🦀")
        .expect("it was made by its subscriber")
        .broadcast(Event::message("hello"))
        .unwrap();
    assert_eq!(summaries(&stream.take(1)), ["hello"]);
}
