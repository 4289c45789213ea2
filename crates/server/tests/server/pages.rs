//! Reading without a stream.

use pushwheel_server::{Config, HeaderName, Key, TokenKeys};
use serde_json::json;

use crate::common::client::Answer;
use crate::common::{Connection, Served, eventually};
use crate::{LINES, TEXT, ask, delete, get, json as body, publish, refusal, refused, start, text};

const ACCEPT: (&str, &str) = ("Accept", "application/json");

#[track_caller]
fn read(served: &Served, path: &str) -> Answer {
    ask(served, "GET", path, &[ACCEPT], "")
}

#[test]
fn events_are_read_as_json() {
    let served = start();
    let lines = "{\"data\":\"one\"}\n{\"event\":\"price\",\"id\":\"mine\",\"data\":{\"n\":12345678901234567890}}";
    publish(&served, "/channels/a", LINES, lines);
    publish(&served, "/channels/a?client=ann", TEXT, "for Ann");
    let answer = read(&served, "/channels/a?last=10");
    let page = body(&answer);
    let newest = text(&page["newest"]);
    assert_eq!(answer.header("etag"), Some(&*format!("\"{newest}\"")));
    assert_eq!(
        answer.all("vary"),
        ["Origin", "Accept, Authorization, Last-Event-ID"]
    );
    assert_eq!(answer.all("cache-control"), ["private, no-cache"]);
    let second = &page["events"][1];
    assert_eq!(
        (
            &second["id"],
            &second["event"],
            &second["data"],
            &second["channel"]
        ),
        (
            &json!("mine"),
            &json!("price"),
            &json!("{\"n\":12345678901234567890}"),
            &json!("a")
        )
    );
    assert_eq!(page["events"].as_array().unwrap().len(), 2);
    let of_ann = body(&read(&served, "/channels/a?last=10&client=ann"));
    assert_eq!(of_ann["events"][2]["data"], "for Ann");
    // The same cursor opens a stream.
    publish(&served, "/channels/b", TEXT, "other");
    publish(&served, "/channels/a", TEXT, "four");
    let mut stream = served.resubscribe("/channels/a", newest);
    assert_eq!(stream.next().data, "four");
    let both = body(&read(&served, "/events?channel=a&channel=b&last=2"));
    assert_eq!(both["events"][0]["channel"], "b");
    assert_eq!(both["events"][1]["channel"], "a");
}

#[test]
fn the_tag_of_a_page_is_a_condition_for_a_publish() {
    let served = start();
    let first = publish(&served, "/channels/a", TEXT, "one");
    let tag = read(&served, "/channels/a")
        .header("etag")
        .unwrap()
        .to_owned();
    assert_eq!(tag, format!("\"{}\"", text(&first["id"])));
    let head = ask(&served, "HEAD", "/channels/a", &[ACCEPT], "");
    assert_eq!(head.header("etag"), Some(&*tag));
    let post = |tag: &str| {
        let headers = [TEXT, ("If-Match", tag)];
        ask(&served, "POST", "/channels/a", &headers, "next")
    };
    // What happens in other channels does not matter.
    publish(&served, "/channels/b", TEXT, "other");
    assert_eq!(read(&served, "/channels/a").header("etag"), Some(&*tag));
    assert_eq!(post(&tag).status, 200);
    let late = post(&tag);
    assert_eq!(refusal(&late), refused(412, "not_newest"));
    let newest = read(&served, "/channels/a")
        .header("etag")
        .unwrap()
        .to_owned();
    assert_eq!(late.header("etag"), Some(&*newest));
    assert_eq!(post(&newest).status, 200);
}

#[test]
fn only_a_request_for_json_alone_is_answered_with_a_page() {
    let served = start();
    for (accept, is_page) in [
        ("application/json", true),
        ("application/json;q=0.9, text/plain", true),
        ("application/json, text/plain, */*", false),
        ("text/event-stream, application/json", false),
        ("*/*", false),
        ("text/html", false),
    ] {
        let mut connection = served.connect();
        connection.send(format!(
            "GET /channels/a HTTP/1.1\r\nHost: test\r\nAccept: {accept}\r\n\r\n"
        ));
        let content_type = connection.head().header("content-type").map(str::to_owned);
        let expected = match is_page {
            true => "application/json",
            false => "text/event-stream",
        };
        assert_eq!(content_type.as_deref(), Some(expected), "{accept}");
    }
}

#[test]
fn a_request_that_waits_is_a_client_until_it_is_answered() {
    let served = start();
    for (wait, code) in [("61", 400), ("soon", 400), ("1.5", 400), ("", 400)] {
        let answer = read(&served, &format!("/channels/a?wait={wait}"));
        assert_eq!(
            refusal(&answer),
            refused(code, "parameter_invalid"),
            "{wait}"
        );
    }
    let mut waiting = served.connect();
    waiting.send(
        "GET /channels/a?wait=60&client=ann HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n",
    );
    waiting.head();
    let clients = body(&get(&served, "/channels/a/clients"));
    assert_eq!(clients[0]["id"], "ann");
    let published = publish(&served, "/channels/a", TEXT, "news");
    assert_eq!(published["clients"], 1);
    let page: serde_json::Value = serde_json::from_slice(&waiting.rest()).unwrap();
    assert_eq!(page["events"][0]["data"], "news");
    assert_eq!(page["newest"], published["id"]);
    eventually("no client", || {
        body(&get(&served, "/channels/a/clients")) == json!([])
    });
    // A finished channel keeps nothing waiting.
    delete(&served, "/channels/a?finish");
    let page = body(&read(&served, "/channels/a?wait=60&last=1"));
    assert_eq!(
        (&page["finished"], &page["events"][0]["data"]),
        (&json!(true), &json!("news"))
    );
    assert_eq!(
        body(&read(&served, "/channels/a?wait=60"))["finished"],
        true
    );
}

#[test]
fn a_page_needs_the_rights_of_a_stream() {
    let secret = TokenKeys::secret(b"0123456789abcdef0123456789abcdef").unwrap();
    let config = Config::new()
        .admin_key(Key::new("admin-s3cret-of-tests").unwrap())
        .token_keys(secret);
    let served = Served::start(config.engine());
    let answer = read(&served, "/channels/a");
    assert_eq!(answer.status, 401, "{}", answer.text());
    let admin = [ACCEPT, ("Authorization", "Bearer admin-s3cret-of-tests")];
    assert_eq!(ask(&served, "GET", "/channels/a", &admin, "").status, 200);
}

#[test]
fn pages_of_other_origins_may_send_the_headers_of_the_interface_and_those_of_a_setting() {
    let names = ["traceparent", "X-Request-ID"];
    let names = names.map(|name| name.parse::<HeaderName>().unwrap());
    let served = Served::start(Config::new().allow_headers(names).engine());
    let preflight = [
        ("Origin", "https://app.example"),
        ("Access-Control-Request-Method", "GET"),
    ];
    let answer = ask(&served, "OPTIONS", "/channels/a", &preflight, "");
    let allowed = answer.header("access-control-allow-headers").unwrap();
    let allowed: Vec<&str> = allowed.split(", ").collect();
    for name in ["Last-Event-ID", "If-Match", "traceparent", "X-Request-ID"] {
        assert!(allowed.contains(&name), "{name}");
    }
}

#[test]
fn the_channel_of_each_event_is_named_on_request() {
    let served = start();
    let mut connection = Connection::open(served.address());
    connection.send("GET /events?channel=a&channel=b&channel_names HTTP/1.1\r\nHost: test\r\n\r\n");
    connection.head();
    publish(&served, "/channels/b", TEXT, "x");
    let mut read = Vec::new();
    while !read.ends_with(b"data: x\n\n") {
        read.extend(connection.bytes(1));
    }
    assert!(
        String::from_utf8(read)
            .unwrap()
            .contains("channel: b\nid: ")
    );
    let answer = get(&served, "/channels/a?channel_names=maybe");
    assert_eq!(refusal(&answer), refused(400, "parameter_invalid"));
}
