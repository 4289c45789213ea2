//! Viewing and managing; HEAD, OPTIONS and preflights.

use std::time::Duration;

use pushwheel_server::Config;
use serde_json::json;

use crate::common::Served;
use crate::{TEXT, ask, delete, get, json, publish, refusal, refused, start, text};

#[test]
fn stats_count_channels_clients_and_what_went_through() {
    let served = start();
    let mut stream = served.subscribe("/channels/b");
    let id = publish(&served, "/channels/b", TEXT, "x")["id"].clone();
    publish(&served, "/channels/a", TEXT, "x");
    stream.next();
    let stats = json(&get(&served, "/stats"));
    assert_eq!(
        (&stats["channels"], &stats["clients"]),
        (&json!(2), &json!(1))
    );
    let channels = stats["channel_stats"].as_array().unwrap();
    let names: Vec<_> = channels.iter().map(|c| text(&c["name"])).collect();
    assert_eq!(names, ["a", "b"]);
    let b = &channels[1];
    for (field, value) in [
        ("clients", 1),
        ("published", 1),
        ("delivered", 1),
        ("gaps", 0),
    ] {
        assert_eq!(b[field], value, "{field}");
    }
    assert_eq!(b["history"]["events"], 1);
    assert!(
        b["history"]["bytes"]
            .as_u64()
            .is_some_and(|bytes| bytes > 0)
    );
    assert_eq!(
        (&b["history"]["oldest"], &b["history"]["newest"]),
        (&id, &id)
    );
}

#[test]
fn channels_are_named_in_order() {
    let served = start();
    assert_eq!(json(&get(&served, "/channels")), json!([]));
    for name in ["b", "a%20b", "a"] {
        publish(&served, &format!("/channels/{name}"), TEXT, "x");
    }
    assert_eq!(json(&get(&served, "/channels")), json!(["a", "a b", "b"]));
}

#[test]
fn the_clients_of_a_channel_can_be_listed() {
    let served = start();
    let mut ann = served.subscribe("/channels/a?client=ann&meta.role=admin");
    ann.wait_for_id();
    let mut nameless = served.subscribe("/channels/a");
    nameless.wait_for_id();
    let clients = json(&get(&served, "/channels/a/clients"));
    let clients = clients.as_array().unwrap();
    assert_eq!(clients.len(), 2);
    for client in clients {
        let path = format!("/channels/a/clients/{}", text(&client["id"]));
        assert_eq!(json(&get(&served, &path)), *client);
        assert!(text(&client["address"]).starts_with("127.0.0.1:"));
        let since = text(&client["since"]);
        assert!(
            since.len() == 20 && since.starts_with("20") && since.ends_with('Z'),
            "{since}"
        );
    }
    let ann = json(&get(&served, "/channels/a/clients/ann"));
    assert_eq!(ann["metadata"], json!({"role": "admin"}));
    assert_eq!(ann["behind"], 0);
}

#[test]
fn a_client_can_be_disconnected() {
    let served = start();
    let mut ann = served.subscribe("/channels/a?client=ann");
    let mut bob = served.subscribe("/channels/a?client=bob");
    ann.wait_for_id();
    assert_eq!(delete(&served, "/channels/a/clients/ann").status, 200);
    ann.expect_end();
    assert_eq!(
        refusal(&delete(&served, "/channels/a/clients/ann")),
        refused(404, "client_not_found")
    );
    publish(&served, "/channels/a", TEXT, "still there");
    assert_eq!(bob.next().data, "still there");
}

#[test]
fn clients_that_meet_conditions_are_listed_counted_and_disconnected() {
    let served = start();
    let subscribe = |client: &str| {
        let mut stream = served.subscribe(&format!("/channels/a?client={client}"));
        stream.wait_for_id();
        stream
    };
    let mut ann = subscribe("ann&meta.role=admin&meta.user=7");
    let mut bob = subscribe("bob&meta.role=admin&meta.user=8");
    let mut cleo = subscribe("cleo&meta.user=7");
    let clients = "/channels/a/clients";
    for (query, expected) in [
        ("", vec!["ann", "bob", "cleo"]),
        ("where.role=admin", vec!["ann", "bob"]),
        ("not.role=admin", vec!["cleo"]),
        ("where.user=7&not.role=admin", vec!["cleo"]),
        ("where.user=7&where.user=8", vec![]),
    ] {
        let listed = json(&get(&served, &format!("{clients}?{query}")));
        let listed = listed.as_array().unwrap().iter();
        let mut ids: Vec<&str> = listed.map(|client| text(&client["id"])).collect();
        ids.sort_unstable();
        assert_eq!(ids, expected, "{query}");
        let counted = json(&get(&served, &format!("{clients}?count&{query}")));
        assert_eq!(counted, json!({"clients": expected.len()}), "{query}");
    }
    let disconnected = delete(&served, &format!("{clients}?where.user=7"));
    assert_eq!(json(&disconnected), json!({"clients": 2}));
    ann.expect_end();
    cleo.expect_end();
    let again = delete(&served, &format!("{clients}?where.user=7"));
    assert_eq!(json(&again), json!({"clients": 0}));
    publish(&served, "/channels/a", TEXT, "still there");
    assert_eq!(bob.next().data, "still there");
}

#[test]
fn a_condition_that_is_misspelled_chooses_no_clients() {
    let served = start();
    let mut stream = served.subscribe("/channels/a?client=ann&meta.x=1");
    stream.wait_for_id();
    let too_many = vec!["where.x=1"; 33].join("&");
    for (query, code) in [
        ("", "parameter_missing"),
        ("wher.x=1", "parameter_unknown"),
        ("where.=1", "parameter_unknown"),
        ("where.x=1&count", "parameter_unknown"),
        ("where.x!=1", "parameter_invalid"),
        ("where.x%3C=1", "parameter_invalid"),
        ("where.x%3E=1", "parameter_invalid"),
        (&too_many, "conditions_too_many"),
    ] {
        let path = format!("/channels/a/clients?{query}");
        let answer = delete(&served, &path);
        assert_eq!(refusal(&answer), refused(400, code), "{query}");
        let is_operator = code == "parameter_invalid";
        assert!(!is_operator || answer.text().contains("`not.FIELD=VALUE`"));
        let is_for_get = query.is_empty() || query.ends_with("count");
        if !is_for_get {
            assert_eq!(refusal(&get(&served, &path)), refused(400, code), "{query}");
        }
    }
    let count = get(&served, "/channels/a/clients?count=no");
    assert_eq!(refusal(&count), refused(400, "parameter_invalid"));
    publish(&served, "/channels/a", TEXT, "still there");
    assert_eq!(stream.next().data, "still there");
}

#[test]
fn a_channel_can_be_closed_and_removed() {
    let served = start();
    let mut stream = served.subscribe("/channels/a");
    stream.wait_for_id();
    let answer = delete(&served, "/channels/a");
    assert_eq!(json(&answer), json!({"clients": 1}));
    stream.expect_end();
    assert_eq!(json(&get(&served, "/channels")), json!([]));
    assert_eq!(
        refusal(&delete(&served, "/channels/a")),
        refused(404, "channel_not_found")
    );
    // The name can be used again.
    publish(&served, "/channels/a", TEXT, "again");
}

#[test]
fn the_empty_channels_can_be_removed() {
    let served = start();
    let mut stream = served.subscribe("/channels/full");
    stream.wait_for_id();
    for name in ["x", "y", "finished"] {
        publish(&served, &format!("/channels/{name}"), TEXT, "x");
    }
    // This one is removed by itself, after the time for browsers to reconnect.
    delete(&served, "/channels/finished?finish");
    assert_eq!(
        refusal(&delete(&served, "/channels")),
        refused(400, "parameter_missing")
    );
    assert_eq!(
        json(&delete(&served, "/channels?empty")),
        json!({"channels": 2})
    );
    assert_eq!(
        json(&get(&served, "/channels")),
        json!(["finished", "full"])
    );
    assert_eq!(get(&served, "/channels/finished").status, 204);
}

#[test]
fn a_parameter_that_is_misspelled_deletes_nothing() {
    let served = start();
    let mut stream = served.subscribe("/channels/a?client=ann");
    stream.wait_for_id();
    for (path, code) in [
        ("/channels/a?finsh", "parameter_unknown"),
        ("/channels/a?finish&last=1", "parameter_unknown"),
        ("/channels/a?finish=no", "parameter_invalid"),
        ("/channels?emtpy", "parameter_unknown"),
        ("/channels?empty=no", "parameter_invalid"),
        ("/channels/a/clients/ann?finish", "parameter_unknown"),
    ] {
        assert_eq!(
            refusal(&delete(&served, path)),
            refused(400, code),
            "{path}"
        );
    }
    publish(&served, "/channels/a", TEXT, "still there");
    assert_eq!(stream.next().data, "still there");
    assert_eq!(delete(&served, "/channels/a?finish=true").status, 200);
    stream.expect_end();
}

#[test]
fn a_boolean_parameter_has_the_same_values_in_every_request() {
    let served = start();
    publish(&served, "/channels/a", TEXT, "x");
    for (value, is_on) in [("", true), ("=1", true), ("=true", true), ("=0", false)] {
        let totals = json(&get(&served, &format!("/stats?totals{value}")));
        assert_eq!(totals["channel_stats"].is_null(), is_on, "{value}");
        let clients = json(&get(&served, &format!("/channels/a/clients?count{value}")));
        assert_eq!(clients.is_object(), is_on, "{value}");
    }
    for path in ["/stats?totals=no", "/channels/a/clients?count=yes"] {
        let answer = get(&served, path);
        assert_eq!(
            refusal(&answer),
            refused(400, "parameter_invalid"),
            "{path}"
        );
    }
    let missing = refused(400, "parameter_missing");
    assert_eq!(refusal(&delete(&served, "/channels?empty=false")), missing);
    // Without the parameter, and with `false`, the channel is removed.
    assert_eq!(delete(&served, "/channels/a?finish=false").status, 200);
    assert_eq!(json(&get(&served, "/channels")), json!([]));
}

#[test]
fn what_is_not_there_is_404_and_a_name_that_cannot_be_is_400() {
    let served = start();
    publish(&served, "/channels/a", TEXT, "x");
    for (method, path, status, code) in [
        ("GET", "/nope", 404, "not_found"),
        ("GET", "/channels/a/nope", 404, "not_found"),
        ("GET", "/channels/b/clients", 404, "channel_not_found"),
        ("GET", "/channels/b/clients/x", 404, "channel_not_found"),
        ("GET", "/channels/a/clients/x", 404, "client_not_found"),
        ("DELETE", "/channels/b?finish", 404, "channel_not_found"),
        (
            "GET",
            "/channels/b%2Fc/clients",
            400,
            "channel_name_invalid",
        ),
        ("DELETE", "/channels/b%00", 400, "channel_name_invalid"),
        ("PUT", "/channels/a", 405, "method_not_allowed"),
        ("DELETE", "/stats", 405, "method_not_allowed"),
    ] {
        let answer = ask(&served, method, path, &[], "");
        assert_eq!(refusal(&answer), refused(status, code), "{method} {path}");
        if status == 405 {
            assert!(
                answer
                    .header("allow")
                    .is_some_and(|allow| allow.contains("GET, "))
            );
        }
    }
    assert_eq!(
        served.channels().names(),
        ["a".into()],
        "looking makes nothing"
    );
}

#[test]
fn health_is_200_while_serving_and_503_while_draining() {
    let served = start();
    assert_eq!(get(&served, "/health").status, 200);
    // This request has started when the server starts to drain. A stream that ends shows
    // that.
    let mut asking = served.connect();
    asking.send("GET /health HTTP/1.1\r\n");
    let mut stream = served.subscribe("/channels/a");
    stream.wait_for_id();
    served.shutdown(Duration::from_secs(10));
    stream.expect_end();
    asking.send("Host: test\r\n\r\n");
    let answer = asking.answer();
    assert_eq!(refusal(&answer), refused(503, "draining"));
    assert_eq!(answer.header("connection"), Some("close"));
    served.join();
}

#[test]
fn a_shutdown_ends_streams_after_what_was_published() {
    let served = start();
    let mut stream = served.subscribe("/channels/a");
    publish(&served, "/channels/a", TEXT, "the last");
    served.shutdown(Duration::from_secs(10));
    let events = stream.rest();
    assert_eq!(events.len(), 1);
    assert!(stream.retry().is_some(), "when to come back");
    served.join();
}

#[test]
fn head_works_wherever_get_does() {
    let served = start();
    publish(&served, "/channels/a", TEXT, "x");
    for path in ["/", "/health", "/stats", "/channels", "/channels/a/clients"] {
        let mut connection = served.connect();
        let head = crate::ask_over(&mut connection, "HEAD", path, &[], "");
        assert_eq!(head.status, 200, "{path}");
        // The head has no body: the next response follows it.
        let body = connection.get(path).body;
        assert_eq!(
            head.header("content-length"),
            Some(&*body.len().to_string())
        );
    }
    let mut connection = served.connect();
    let head = crate::ask_over(&mut connection, "HEAD", "/channels/a", &[], "");
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    connection.expect_end();
}

#[test]
fn preflights_are_answered_everywhere() {
    let origin = "http://example.test".parse().unwrap();
    let served = Served::start(Config::new().allow_origins([origin]).engine());
    let headers = [
        ("Origin", "http://example.test"),
        ("Access-Control-Request-Method", "POST"),
        (
            "Access-Control-Request-Headers",
            "content-type, last-event-id",
        ),
    ];
    for path in ["/channels/a", "/events?channel=a", "/stats", "/nope"] {
        let answer = ask(&served, "OPTIONS", path, &headers, "");
        assert_eq!(answer.status, 204, "{path}");
        for (name, value) in [
            ("access-control-allow-origin", "http://example.test"),
            (
                "access-control-allow-methods",
                "GET, HEAD, POST, DELETE, OPTIONS",
            ),
            (
                "access-control-allow-headers",
                "Last-Event-ID, Authorization, Cache-Control, Content-Type, Idempotency-Key, \
                 If-Match",
            ),
            ("access-control-max-age", "86400"),
        ] {
            assert_eq!(answer.header(name), Some(value));
        }
    }
    assert_eq!(served.channels().names(), []);
}

#[test]
fn options_without_a_preflight_lists_the_methods() {
    let served = start();
    let answer = ask(&served, "OPTIONS", "/channels/a", &[], "");
    assert_eq!(answer.status, 204);
    assert_eq!(
        answer.header("allow"),
        Some("GET, POST, DELETE, HEAD, OPTIONS")
    );
    assert_eq!(ask(&served, "OPTIONS", "*", &[], "").status, 204);
}
