//! Publishing.

use pushwheel::LagPolicy;
use pushwheel_server::Config;
use serde_json::json;

use crate::common::{Served, Subscriber, summaries};
use crate::{JSON, LINES, TEXT, ask, ask_over, json, publish, refusal, refused, start, text};

#[test]
fn json_has_an_event_and_its_answer_the_id_and_the_clients() {
    let served = start();
    let mut stream = served.subscribe("/channels/a");
    let body = r#"{"event": "n", "data": {"z": 1.50, "a": [ true ]}, "retry": 1500}"#;
    let answer = publish(&served, "/channels/a", JSON, body);
    assert_eq!(answer["events"], 1);
    assert_eq!(answer["clients"], 1);
    let event = stream.next();
    assert_eq!(
        (&*event.name, &*event.data),
        ("n", r#"{"z":1.50,"a":[true]}"#)
    );
    assert_eq!(event.last_event_id, text(&answer["id"]));
    assert_eq!(stream.retry(), Some(1500));
    let answer = publish(
        &served,
        "/channels/a",
        JSON,
        r#"{"data": "a \"s\"", "id": "mine \""}"#,
    );
    assert_eq!(answer["id"], "mine \"");
    let event = stream.next();
    assert_eq!(
        (&*event.data, &*event.last_event_id),
        ("a \"s\"", "mine \"")
    );
}

#[test]
fn a_key_is_removed_in_json_and_by_a_parameter() {
    let options = pushwheel_server::channel_options().lag_policy(LagPolicy::Conflate);
    let served = Served::start(Config::new().channel_options(options).engine());
    let path = "/channels/prices";
    for key in ["a", "b", "c", "d"] {
        publish(&served, &format!("{path}?key={key}"), TEXT, key);
    }
    let mut there = served.subscribe(path);
    assert_eq!(summaries(&there.take(4)), ["a", "b", "c", "d"]);
    publish(&served, path, JSON, r#"{"key": "a", "remove": true}"#);
    let gone = r#"{"event": "gone", "data": 7, "key": "b", "remove": true}"#;
    publish(&served, path, JSON, gone);
    publish(&served, &format!("{path}?key=c&remove"), TEXT, "");
    let events: Vec<_> = there.take(3);
    let events: Vec<_> = events.iter().map(|e| (&*e.name, &*e.data)).collect();
    let removed = "pushwheel.removed";
    assert_eq!(events[0], (removed, r#"{"key":"a"}"#));
    assert_eq!(events[1], ("gone", "7"));
    assert_eq!(events[2], (removed, r#"{"key":"c"}"#));
    let mut new = served.subscribe(path);
    assert_eq!(summaries(&new.take(1)), ["d"]);

    for (query, body) in [("remove", "x"), ("key=d&remove=maybe", "x")] {
        let answer = ask(&served, "POST", &format!("{path}?{query}"), &[TEXT], body);
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
    }
}

#[test]
fn a_key_is_rejected_by_a_channel_that_does_not_conflate() {
    let options = pushwheel_server::channel_options();
    let conflating = options.clone().lag_policy(LagPolicy::Conflate);
    let prices = "prices".parse().unwrap();
    let config = Config::new().channel_options(options);
    let served = Served::start(config.channel_options_for(prices, conflating).engine());
    let mut stream = served.subscribe("/events?channel=news&channel=prices");
    stream.wait_for_id();
    for (query, media_type, body) in [
        ("?key=k", TEXT, "x"),
        ("?key=k&remove", TEXT, ""),
        ("", JSON, r#"{"data": 1, "key": "k"}"#),
        ("", LINES, "{\"data\": 1}\n{\"data\": 2, \"key\": \"k\"}"),
    ] {
        let path = |channel: &str| format!("/channels/{channel}{query}");
        let answer = ask(&served, "POST", &path("news"), &[media_type], body);
        let wanted = refused(409, "channel_not_conflating");
        assert_eq!(refusal(&answer), wanted, "{query} {body}");
        let answer = ask(&served, "POST", &path("prices"), &[media_type], body);
        assert_eq!(answer.status, 200, "{query} {body}");
    }
    // All channels: those that conflate use the key.
    publish(&served, "/channels?key=all", TEXT, "for all");
    publish(&served, "/channels/prices", TEXT, "end");
    let events = summaries(&stream.take(7));
    let removed = r#"pushwheel.removed {"key":"k"}"#;
    let all = ["x", removed, "1", "1", "2", "for all", "end"];
    assert_eq!(events, all);
}

#[test]
fn an_event_for_all_channels_is_one_event() {
    let served = start();
    let mut both = served.subscribe("/events?channel=a&channel=b");
    let mut one = served.subscribe("/channels/a");
    for stream in [&mut both, &mut one] {
        stream.wait_for_id();
    }
    let answer = publish(&served, "/channels?id=order-17", TEXT, "1");
    let expected = json!({"id": "order-17", "events": 1, "clients": 2});
    assert_eq!(answer, expected);
    let again = publish(&served, "/channels?id=order-17", TEXT, "1");
    assert_eq!(
        (&again["events"], &again["duplicate"]),
        (&json!(0), &json!(true))
    );
    let other = ask(&served, "POST", "/channels?id=order-17", &[TEXT], "2");
    assert_eq!(refusal(&other), refused(422, "id_reused"));
    let second = publish(&served, "/channels", TEXT, "2");
    for stream in [&mut both, &mut one] {
        let events = stream.take(2);
        assert_eq!(summaries(&events), ["1", "2"]);
        assert_eq!(events[1].last_event_id, text(&second["id"]));
    }
    // A channel that is made later has it too.
    let mut later = served.subscribe("/channels/later?last=5");
    assert_eq!(summaries(&later.take(2)), ["1", "2"]);
}

#[test]
fn of_the_events_with_one_key_a_conflating_channel_keeps_the_newest() {
    let options = pushwheel_server::channel_options().lag_policy(LagPolicy::Conflate);
    let served = Served::start(Config::new().channel_options(options).engine());
    let path = "/channels/prices";
    publish(&served, path, JSON, r#"{"data": 1, "key": "EUR"}"#);
    publish(&served, path, TEXT, "first of all");
    publish(&served, &format!("{path}?key=USD"), TEXT, "2");
    publish(&served, &format!("{path}?key=EUR"), TEXT, "3");
    let lines = "{\"data\": 4, \"key\": \"USD\"}\n{\"data\": 5, \"key\": \"EUR\"}\n";
    publish(&served, path, LINES, lines);
    let mut stream = served.subscribe(&format!("{path}?last_event_id=earliest"));
    assert_eq!(summaries(&stream.take(3)), ["first of all", "4", "5"]);

    let long = "k".repeat(256);
    let answer = ask(&served, "POST", &format!("{path}?key={long}"), &[TEXT], "x");
    assert_eq!(answer.status, 400, "{}", answer.text());
    let answer = ask(
        &served,
        "POST",
        &format!("{path}?key=k"),
        &[JSON],
        r#"{"data": 1}"#,
    );
    assert_eq!(refusal(&answer), refused(400, "parameter_misplaced"));
}

#[test]
fn a_batch_of_lines_is_appended_in_order() {
    let served = start();
    let mut stream = served.subscribe("/channels/a");
    let body = "{\"data\": 1}\r\n\n{\"event\": \"two\", \"data\": \"2\"}\n{\"data\": null}";
    let answer = publish(&served, "/channels/a", LINES, body);
    assert_eq!(
        (&answer["events"], &answer["clients"]),
        (&json!(3), &json!(1))
    );
    let events = stream.take(3);
    assert_eq!(summaries(&events), ["1", "two 2", "null"]);
    assert_eq!(events[2].last_event_id, text(&answer["id"]));
}

#[test]
fn a_batch_is_appended_whole_or_not_at_all_and_the_error_names_the_line() {
    let served = start();
    let mut stream = served.subscribe("/channels/a");
    let huge = format!("{{\"data\":\"{}\"}}", "\\n".repeat(300_000));
    for (body, status, code) in [
        ("{\"data\": 1}\n{\"data\": }\n", 400, "invalid_json"),
        ("{\"data\": 1}\n{\"dat\": 2}\n", 400, "invalid_event"),
        (
            "{\"data\": 1}\n{\"data\": 2, \"id\": \"\"}",
            400,
            "event_id_empty",
        ),
        (&*format!("{{\"data\": 1}}\n{huge}"), 413, "event_too_large"),
        ("\n", 400, "batch_empty"),
    ] {
        let answer = ask(&served, "POST", "/channels/a", &[LINES], body);
        assert_eq!(refusal(&answer), refused(status, code));
        if code.starts_with("invalid") {
            assert!(
                answer.text().contains("line 2, column "),
                "{}",
                answer.text()
            );
        }
    }
    publish(&served, "/channels/a", TEXT, "fence");
    assert_eq!(summaries(&stream.take(1)), ["fence"]);
}

#[test]
fn of_any_other_type_the_body_is_the_data() {
    let served = start();
    let mut stream = served.subscribe("/channels/a");
    let path = "/channels/a?event=n%20m&id=mine&retry=0";
    publish(
        &served,
        path,
        ("Content-Type", "text/plain; charset=utf-8"),
        "ünï\r\ncode",
    );
    let event = stream.next();
    assert_eq!(
        (&*event.name, &*event.data, &*event.last_event_id),
        ("n m", "ünï\ncode", "mine")
    );
    assert_eq!(stream.retry(), Some(0));
    for content_type in [
        "application/x-www-form-urlencoded",
        "image/svg+xml",
        "application/jsonx",
    ] {
        publish(
            &served,
            "/channels/a",
            ("Content-Type", content_type),
            "{\"x\": 1}",
        );
        assert_eq!(stream.next().data, "{\"x\": 1}");
    }
    // No type, and no body at all.
    assert_eq!(ask(&served, "POST", "/channels/a", &[], "").status, 200);
    assert_eq!(stream.next().data, "");
}

#[test]
fn the_type_is_read_as_http_spells_it() {
    let served = start();
    let mut stream = served.subscribe("/channels/a");
    for content_type in [
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json ;x",
    ] {
        publish(
            &served,
            "/channels/a",
            ("Content-Type", content_type),
            "{\"data\": [1]}",
        );
        assert_eq!(stream.next().data, "[1]");
    }
}

#[test]
fn an_event_can_be_for_one_client_or_for_all_that_match() {
    let served = start();
    let open = |query: &str| served.subscribe(&format!("/channels/a?{query}"));
    let mut ann = open("client=ann&meta.role=admin&meta.team=x");
    let mut bob = open("client=bob&meta.role=admin&meta.team=y");
    let mut eve = open("client=eve");
    for (path, content_type, body, events, clients) in [
        ("/channels/a?client=ann", TEXT, "for ann", 1, 1),
        ("/channels/a?client=absent", TEXT, "for no client", 1, 0),
        ("/channels/a?where.role=admin", TEXT, "for admins", 1, 2),
        (
            "/channels/a?where.role=admin&where.team=y",
            JSON,
            "{\"data\": \"for y\"}",
            1,
            1,
        ),
        (
            "/channels/a?client=eve",
            LINES,
            "{\"data\": 1}\n{\"data\": 2}",
            2,
            1,
        ),
        (
            "/channels/a?where.team=x",
            LINES,
            "{\"data\": 3}\n{\"data\": 4}",
            2,
            1,
        ),
        ("/channels/a", TEXT, "for all", 1, 3),
    ] {
        let answer = publish(&served, path, content_type, body);
        assert_eq!(
            (&answer["events"], &answer["clients"]),
            (&json!(events), &json!(clients)),
            "{path}"
        );
    }
    let wanted: [(&mut Subscriber, &[&str]); 3] = [
        (&mut ann, &["for ann", "for admins", "3", "4", "for all"]),
        (&mut bob, &["for admins", "for y", "for all"]),
        (&mut eve, &["1", "2", "for all"]),
    ];
    for (stream, wanted) in wanted {
        assert_eq!(summaries(&stream.take(wanted.len())), wanted);
    }
}

#[test]
fn an_event_can_be_for_every_channel() {
    let served = start();
    let answer = publish(&served, "/channels", TEXT, "for no client");
    assert_eq!(
        (&answer["events"], &answer["clients"]),
        (&json!(1), &json!(0))
    );
    let mut a = served.subscribe("/channels/a");
    let mut b = served.subscribe("/channels/b");
    let answer = publish(&served, "/channels?event=n", TEXT, "for all");
    assert_eq!(
        (&answer["events"], &answer["clients"]),
        (&json!(1), &json!(2))
    );
    let answer = publish(&served, "/channels", LINES, "{\"data\": 1}\n{\"data\": 2}");
    assert_eq!(
        (&answer["events"], &answer["clients"]),
        (&json!(2), &json!(2))
    );
    for stream in [&mut a, &mut b] {
        assert_eq!(summaries(&stream.take(3)), ["n for all", "1", "2"]);
    }
}

#[test]
fn a_channel_comes_to_be_with_its_first_event() {
    let served = start();
    let answer = publish(&served, "/channels/new", TEXT, "first");
    assert_eq!(answer["clients"], 0);
    let mut stream = served.subscribe("/channels/new?last_event_id=earliest");
    assert_eq!(summaries(&stream.take(1)), ["first"]);
}

#[test]
fn what_cannot_be_published_is_refused_with_a_code() {
    let served = start();
    let mut stream = served.subscribe("/channels/a");
    let gzip = ("Content-Encoding", "gzip");
    for (path, headers, body, status, code) in [
        (
            "/channels/a",
            &[JSON][..],
            "{\"data\": ",
            400,
            "invalid_json",
        ),
        ("/channels/a", &[JSON], "", 400, "invalid_json"),
        ("/channels/a", &[JSON], "[1]", 400, "invalid_event"),
        (
            "/channels/a",
            &[JSON],
            "{\"event\": \"x\"}",
            400,
            "invalid_event",
        ),
        (
            "/channels/a",
            &[JSON],
            "{\"data\": 1, \"name\": \"x\"}",
            400,
            "invalid_event",
        ),
        (
            "/channels/a",
            &[JSON],
            "{\"data\": 1, \"event\": \"a\\nb\"}",
            400,
            "event_name_line_break",
        ),
        (
            "/channels/a",
            &[JSON],
            "{\"data\": 1, \"event\": \"pushwheel.gap\"}",
            400,
            "event_name_reserved",
        ),
        (
            "/channels/a",
            &[JSON],
            "{\"data\": 1, \"id\": \"a\\u0000\"}",
            400,
            "event_id_nul",
        ),
        (
            "/channels/a",
            &[JSON],
            "{\"data\": 1, \"retry\": 99999999999}",
            400,
            "event_retry_too_long",
        ),
        (
            "/channels/a?event=a%0Ab",
            &[],
            "x",
            400,
            "event_name_line_break",
        ),
        ("/channels/a?id=", &[], "x", 400, "event_id_empty"),
        ("/channels/a?retry=soon", &[], "x", 400, "parameter_invalid"),
        (
            "/channels/a?event=x",
            &[JSON],
            "{\"data\": 1}",
            400,
            "parameter_misplaced",
        ),
        (
            "/channels/a?cleint=ann",
            &[],
            "a secret",
            400,
            "parameter_unknown",
        ),
        (
            "/channels/a?where.=x",
            &[],
            "a secret",
            400,
            "parameter_unknown",
        ),
        (
            "/channels/a?client=a&client=b",
            &[],
            "x",
            400,
            "target_ambiguous",
        ),
        (
            "/channels/a?client=a&where.role=b",
            &[],
            "x",
            400,
            "target_ambiguous",
        ),
        (
            "/channels/a?where.role=b&client=a",
            &[],
            "x",
            400,
            "target_ambiguous",
        ),
        ("/channels/a?client=", &[], "x", 400, "client_id_invalid"),
        (
            "/channels?client=a",
            &[],
            "x",
            400,
            "target_without_channel",
        ),
        ("/channels/a", &[gzip], "x", 415, "encoding_unsupported"),
        ("/channels/a%2Fb", &[], "x", 400, "channel_name_invalid"),
        ("/channels/", &[], "x", 400, "channel_name_invalid"),
        ("/events", &[], "x", 405, "method_not_allowed"),
    ] {
        let answer = ask(&served, "POST", path, headers, body);
        assert_eq!(refusal(&answer), refused(status, code), "{path} {body}");
    }
    let answer = ask(
        &served,
        "POST",
        "/channels/a",
        &[JSON],
        "{\"data\": 1, \"name\": 2}",
    );
    assert!(
        answer.text().contains("unknown field `name`"),
        "{}",
        answer.text()
    );
    for body in [&b"a\xff\xfe"[..], b"{\"data\": \"\xc3\"}"] {
        for content_type in [TEXT, JSON, LINES] {
            let mut connection = served.connect();
            let answer = ask_over(
                &mut connection,
                "POST",
                "/channels/a",
                &[content_type],
                body,
            );
            assert_eq!(refusal(&answer), refused(400, "invalid_utf8"));
        }
    }
    publish(&served, "/channels/a", TEXT, "fence");
    assert_eq!(summaries(&stream.take(1)), ["fence"]);
}

#[test]
fn a_byte_order_mark_is_dropped_and_another_charset_refused() {
    let served = start();
    let mut stream = served.subscribe("/channels/a");
    let latin1 = ("Content-Type", "application/json; charset=ISO-8859-1");
    let quoted = ("Content-Type", "text/plain; charset=\"UTF-8\"");
    publish(&served, "/channels/a", JSON, "\u{feff}{\"data\": \"json\"}");
    let lines = "\u{feff}{\"data\": \"one\"}\n{\"data\": \"two\"}\n";
    publish(&served, "/channels/a", LINES, lines);
    publish(&served, "/channels/a", quoted, "\u{feff}text \u{feff}");
    assert_eq!(
        summaries(&stream.take(4)),
        ["json", "one", "two", "text \u{feff}"]
    );
    let ticket = "\u{feff}{\"subscribe\": [\"a\"]}";
    let answer = ask(&served, "POST", "/tickets", &[JSON], ticket);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = ask(&served, "POST", "/channels/a", &[latin1], "{\"data\": 1}");
    assert_eq!(refusal(&answer), refused(415, "charset_unsupported"));
    assert!(answer.text().contains("`ISO-8859-1`"), "{}", answer.text());
}

#[test]
fn a_body_beyond_the_limit_is_refused_before_it_is_sent() {
    let served = start();
    let mut connection = served.connect();
    connection
        .send("POST /channels/a HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999999\r\n\r\n");
    let answer = connection.answer();
    assert_eq!(refusal(&answer), refused(413, "payload_too_large"));
}

#[test]
fn requests_may_be_pipelined_and_are_done_in_order() {
    const COUNT: usize = 2_000;
    let served = start();
    let mut stream = served.subscribe("/channels/a");
    let mut connection = served.connect();
    let mut writer = connection.writer();
    let sending = std::thread::spawn(move || {
        use std::io::Write;
        let requests: String = (0..COUNT)
            .map(|n| {
                let body = n.to_string();
                let length = body.len();
                format!(
                    "POST /channels/a HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}"
                )
            })
            .collect();
        writer.write_all(requests.as_bytes()).unwrap();
    });
    let ids: Vec<_> = (0..COUNT)
        .map(|_| json(&connection.answer())["id"].clone())
        .collect();
    sending.join().unwrap();
    for (n, id) in ids.iter().enumerate() {
        let event = stream.next();
        assert_eq!(
            (event.data, &*event.last_event_id),
            (n.to_string(), text(id))
        );
    }
}

#[test]
fn an_event_that_is_published_again_is_a_duplicate_and_another_of_its_id_is_refused() {
    let served = start();
    let mut stream = served.subscribe("/channels/a");
    let body = r#"{"event": "order", "data": {"n": 17}, "id": "order-17"}"#;
    let first = publish(&served, "/channels/a", JSON, body);
    assert_eq!(first, json!({"id": "order-17", "events": 1, "clients": 1}));
    let again = publish(&served, "/channels/a", JSON, body);
    let duplicate = json!({
        "id": "order-17", "events": 0, "clients": 0, "duplicate": true, "duplicates": 1,
    });
    assert_eq!(again, duplicate);
    // The same event in another spelling.
    let path = "/channels/a?event=order&id=order-17";
    assert_eq!(publish(&served, path, TEXT, "{\"n\":17}"), duplicate);
    for (path, body) in [
        (path, "{\"n\":18}"),
        ("/channels/a?id=order-17", "{\"n\":17}"),
        (
            "/channels/a?event=order&id=order-17&client=ann",
            "{\"n\":17}",
        ),
    ] {
        let answer = ask(&served, "POST", path, &[TEXT], body);
        assert_eq!(refusal(&answer), refused(422, "id_reused"), "{path}");
    }
    let lines = "{\"data\": 1, \"id\": \"1\"}\n{\"data\": 2, \"id\": \"2\"}";
    let more = format!("{lines}\n{{\"data\": 3}}");
    publish(&served, "/channels/a", LINES, lines);
    let part = publish(&served, "/channels/a", LINES, &more);
    assert_eq!(
        (&part["events"], &part["duplicates"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(part.get("duplicate"), None);
    let events = ["order {\"n\":17}", "1", "2", "3"];
    assert_eq!(summaries(&stream.take(4)), events);
}

#[test]
fn an_event_can_exclude_clients_that_match() {
    let served = start();
    let open = |query: &str| served.subscribe(&format!("/channels/a?{query}"));
    let mut ann = open("client=ann&meta.user=7&meta.team=x");
    let mut bob = open("client=bob&meta.user=8&meta.team=x");
    let mut eve = open("client=eve");
    let answer = publish(&served, "/channels/a?not.user=7", TEXT, "not for 7");
    assert_eq!(answer["clients"], 2);
    let path = "/channels/a?where.team=x&not.user=8";
    assert_eq!(publish(&served, path, TEXT, "of x, not 8")["clients"], 1);
    publish(&served, "/channels/a", TEXT, "all");
    assert_eq!(summaries(&ann.take(2)), ["of x, not 8", "all"]);
    assert_eq!(summaries(&bob.take(2)), ["not for 7", "all"]);
    assert_eq!(summaries(&eve.take(2)), ["not for 7", "all"]);
    for path in [
        "where.user!=7",
        "where.age%3C=7",
        "where.age%3E=7",
        "not.user!=7",
    ] {
        let path = format!("/channels/a?{path}");
        let answer = ask(&served, "POST", &path, &[TEXT], "x");
        assert_eq!(
            refusal(&answer),
            refused(400, "parameter_invalid"),
            "{path}"
        );
        assert!(
            answer.text().contains("`not.FIELD=VALUE`"),
            "{}",
            answer.text()
        );
    }
}

#[test]
fn what_not_every_client_can_use_is_published_with_a_warning() {
    let served = start();
    let codes = |path: &str| {
        let answer = publish(&served, path, TEXT, "x");
        let warnings = answer["warnings"].as_array().cloned().unwrap_or_default();
        let code = |warning: serde_json::Value| warning["code"].as_str().unwrap().to_owned();
        warnings.into_iter().map(code).collect::<Vec<_>>()
    };
    assert_eq!(codes("/channels/a?event=error"), ["event_name_ambiguous"]);
    assert_eq!(codes("/channels/a?event=open"), ["event_name_ambiguous"]);
    assert_eq!(codes("/channels/a?id=caf%C3%A9"), ["event_id_not_ascii"]);
    assert_eq!(codes("/channels/a?id=order-17&event=opened"), [""; 0]);
    assert_eq!(codes("/channels?event=error&id=%C3%BC").len(), 2);
}

#[test]
fn the_ids_of_the_engines_form_are_not_a_publishers() {
    let served = start();
    let first = publish(&served, "/channels/a", TEXT, "x");
    let id = text(&first["id"]);
    let answer = ask(
        &served,
        "POST",
        &format!("/channels/a?id={id}"),
        &[TEXT],
        "y",
    );
    assert_eq!(refusal(&answer), refused(400, "event_id_reserved"));
}

#[test]
fn json_without_its_type_is_warned_of() {
    const EVENT: &str = r#"{"event": "a", "data": 1}"#;
    let served = start();
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let batch = format!("{EVENT}\n{EVENT}\n");
    let joined = format!("{EVENT}{EVENT}"); // by curl -d
    for (headers, body, is_warned) in [
        (&[][..], EVENT, true),
        (&[form], EVENT, true),
        (&[form], &*batch, true),
        (&[form], &*joined, true),
        (&[form], r#"{"data": 1}{"price": 1}"#, false),
        (&[form], r#"{"data": 1}, and more"#, false),
        (&[TEXT], EVENT, false),
        (&[JSON], EVENT, false),
        (&[form], r#"{"price": 1}"#, false),
        (&[form], "hello", false),
    ] {
        let answer = ask(&served, "POST", "/channels/a", headers, body);
        assert_eq!(answer.status, 200, "{body}");
        let answer = json(&answer);
        let code = answer["warnings"][0]["code"].as_str();
        assert_eq!(
            code,
            is_warned.then_some("json_as_text"),
            "{headers:?} {body}"
        );
    }
}

#[test]
fn joined_lines_of_a_batch_get_the_fix_for_curl() {
    let served = start();
    let body = r#"{"data": 1}{"data": 2}"#;
    let answer = ask(&served, "POST", "/channels/a", &[LINES], body);
    assert_eq!(refusal(&answer), refused(400, "invalid_json"));
    assert!(answer.text().contains("line 1 has more than one event"));
    assert!(answer.text().contains("--data-binary"), "{}", answer.text());
    let answer = ask(&served, "POST", "/channels/a", &[LINES], "{\"data\": 1}x");
    assert!(answer.text().contains("trailing characters"));
}

#[test]
fn a_batch_with_the_type_of_one_event_gets_the_right_type() {
    let served = start();
    for body in ["{\"data\": 1}\n{\"data\": 2}", r#"{"data": 1}{"data": 2}"#] {
        let answer = ask(&served, "POST", "/channels/a", &[JSON], body);
        assert_eq!(refusal(&answer), refused(400, "invalid_json"));
        let text = answer.text();
        assert!(text.contains("application/x-ndjson"), "{text}");
    }
    let answer = ask(&served, "POST", "/channels/a", &[JSON], "{\"data\": 1}x");
    assert!(answer.text().contains("trailing characters"));
}

#[test]
fn json_responses_end_with_a_line_end() {
    let served = start();
    for (method, path) in [
        ("POST", "/channels/a"),
        ("GET", "/stats"),
        ("GET", "/health"),
        ("GET", "/nothing"),
        ("PUT", "/health"),
    ] {
        let answer = ask(&served, method, path, &[], "x");
        assert!(answer.text().ends_with("}\n"), "{path}: {}", answer.text());
    }
}
