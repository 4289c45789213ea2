//! Publishes that can be repeated, that depend on the newest event, and that end their
//! channel; and bodies that are published as they are.

use pushwheel_server::{Config, Key, TokenKeys, channel_options};
use serde_json::{Value, json};

use super::access::{SECRET, bearer, token};
use super::{JSON, LINES, TEXT, ask, events, get, json, publish, refusal, refused, start, text};
use crate::common::client::Answer;
use crate::common::{Served, summaries};

const PUBLISHER: &str = "publish-s3cret-of-tests";
const ADMIN: &str = "admin-s3cret-of-tests";

fn secured() -> Config {
    Config::new()
        .publish_key(Key::new(PUBLISHER).unwrap())
        .admin_key(Key::new(ADMIN).unwrap())
        .token_keys(TokenKeys::secret(SECRET.as_bytes()).unwrap())
        .public_for("*".parse().unwrap(), true)
}

#[track_caller]
fn with_key(served: &Served, path: &str, key: &str, body: &str) -> Answer {
    ask(
        served,
        "POST",
        path,
        &[TEXT, ("Idempotency-Key", key)],
        body,
    )
}

/// Publishes as the holder of a credential.
#[track_caller]
fn as_holder(served: &Served, credential: &str, path: &str, key: &str) -> Answer {
    let header = bearer(credential);
    let headers = [TEXT, ("Authorization", &*header), ("Idempotency-Key", key)];
    ask(served, "POST", path, &headers, "x")
}

#[test]
fn a_repeated_request_is_answered_as_the_first_one() {
    let served = start();
    let mut stream = served.subscribe("/channels/a");
    stream.wait_for_id();
    let first = json(&with_key(&served, "/channels/a", "\"order-17\"", "1"));
    assert_eq!(
        (&first["events"], &first["clients"], first.get("duplicate")),
        (&json!(1), &json!(1), None)
    );
    publish(&served, "/channels/a", TEXT, "2");
    // With quotes and without them.
    for key in ["\"order-17\"", "order-17", " order-17 "] {
        let again = json(&with_key(&served, "/channels/a", key, "1"));
        let wanted = json!({"id": first["id"], "events": 1, "clients": 1, "duplicate": true});
        assert_eq!(again, wanted, "{key}");
    }
    let other = with_key(&served, "/channels/a", "order-17", "3");
    assert_eq!(refusal(&other), refused(422, "key_reused"));
    let other = with_key(&served, "/channels/a?client=ann", "order-17", "1");
    assert_eq!(refusal(&other), refused(422, "key_reused"));
    // Another channel, and all channels.
    for path in ["/channels/b", "/channels"] {
        let first = json(&with_key(&served, path, "order-17", "1"));
        let again = json(&with_key(&served, path, "order-17", "1"));
        assert_eq!(first.get("duplicate"), None, "{path}");
        assert_eq!(
            (&again["id"], &again["duplicate"]),
            (&first["id"], &json!(true))
        );
    }
    assert_eq!(summaries(&stream.take(3)), ["1", "2", "1"]);
}

#[test]
fn json_has_its_key_in_a_field_and_a_batch_in_the_header() {
    let served = start();
    let body = r#"{"data": 1, "idempotency_key": "k"}"#;
    let first = publish(&served, "/channels/a", JSON, body);
    let again = publish(&served, "/channels/a", JSON, body);
    assert_eq!(
        (&again["id"], &again["duplicate"]),
        (&first["id"], &json!(true))
    );
    let lines = "{\"data\": 2}\n{\"data\": 3}\n";
    let headers = [LINES, ("Idempotency-Key", "batch")];
    let batch = || json(&ask(&served, "POST", "/channels/a", &headers, lines));
    let (first, again) = (batch(), batch());
    assert_eq!(
        (&again["id"], &again["events"], &again["duplicate"]),
        (&first["id"], &json!(2), &json!(true))
    );
    assert_eq!(events(&served, "a"), ["1", "2", "3"]);
    for (headers, body) in [
        (vec![JSON, ("Idempotency-Key", "k")], body),
        (
            vec![LINES],
            "{\"data\": 1}\n{\"data\": 2, \"idempotency_key\": \"k\"}",
        ),
        (vec![TEXT, ("Idempotency-Key", "\"\"")], "x"),
        (vec![TEXT, ("Idempotency-Key", "a\"b")], "x"),
        (vec![TEXT, ("Idempotency-Key", "caf\u{e9}")], "x"),
        (vec![JSON], r#"{"data": 1, "idempotency_key": ""}"#),
    ] {
        let answer = ask(&served, "POST", "/channels/a", &headers, body);
        let wanted = refused(400, "idempotency_key_invalid");
        assert_eq!(refusal(&answer), wanted, "{headers:?} {body}");
    }
}

#[test]
fn each_credential_has_keys_of_its_own() {
    let served = Served::start(secured().engine());
    let of_client = |client: &str, padding: u64| {
        token(json!({"publish": ["a"], "client": client, "metadata": {"n": padding}}))
    };
    let (anonymous, other) = (
        token(json!({"publish": ["a"]})),
        token(json!({"publish": ["a", "b"]})),
    );
    let is_first = |credential: &str| {
        let answer = as_holder(&served, credential, "/channels/a", "k");
        json(&answer).get("duplicate").is_none()
    };
    for credential in [PUBLISHER, ADMIN, &anonymous, &other, &of_client("ann", 1)] {
        assert!(is_first(credential), "{credential}");
        assert!(!is_first(credential), "{credential}");
    }
    // A token that was renewed is of the same client.
    assert!(!is_first(&of_client("ann", 2)));
    assert!(is_first(&of_client("bob", 1)));
}

#[test]
fn a_publish_on_a_condition_needs_the_newest_id() {
    let served = start();
    let first = publish(&served, "/channels/a", TEXT, "1");
    let on = |id: &str, body: &str| {
        let condition = format!("\"{id}\"");
        ask(
            &served,
            "POST",
            "/channels/a",
            &[TEXT, ("If-Match", &condition)],
            body,
        )
    };
    let second = json(&on(text(&first["id"]), "2"));
    publish(&served, "/channels/b", TEXT, "x");
    let refusal_of_first = on(text(&first["id"]), "?");
    assert_eq!(refusal(&refusal_of_first), refused(412, "not_newest"));
    let newest = format!("\"{}\"", text(&second["id"]));
    assert_eq!(refusal_of_first.header("etag"), Some(&*newest));
    // The id of a finite reading is the same.
    let accept = [("Accept", "application/json")];
    let page = ask(&served, "GET", "/channels/a?last=1", &accept, "");
    let etag = page.header("etag").unwrap().to_owned();
    let headers = [TEXT, ("If-Match", &*etag)];
    let third = ask(&served, "POST", "/channels/a", &headers, "3");
    assert_eq!(third.status, 200, "{}", third.text());
    for condition in ["x", "*", "\"a\", \"b\"", "W/\"a\"", "\"\""] {
        let headers = [TEXT, ("If-Match", condition)];
        let answer = ask(&served, "POST", "/channels/a", &headers, "?");
        assert_eq!(
            refusal(&answer),
            refused(400, "if_match_invalid"),
            "{condition}"
        );
    }
    let headers = [TEXT, ("If-Match", &*etag)];
    let answer = ask(&served, "POST", "/channels", &headers, "?");
    assert_eq!(refusal(&answer), refused(400, "target_without_channel"));
    assert_eq!(events(&served, "a"), ["1", "2", "3"]);
}

#[test]
fn the_last_event_ends_the_channel() {
    let served = start();
    let mut stream = served.subscribe("/channels/answer");
    stream.wait_for_id();
    publish(&served, "/channels/answer", TEXT, "token");
    let path = "/channels/answer?finish&event=done";
    let first = json(&with_key(&served, path, "end", "all"));
    assert_eq!(
        (&first["events"], &first["clients"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(summaries(&stream.take(2)), ["token", "done all"]);
    stream.expect_end();
    let again = json(&with_key(&served, path, "end", "all"));
    assert_eq!(
        (&again["id"], &again["duplicate"]),
        (&first["id"], &json!(true))
    );
    let more = ask(&served, "POST", "/channels/answer", &[TEXT], "more");
    assert_eq!(refusal(&more), refused(409, "channel_finished"));
    let id = [("Last-Event-ID", text(&first["id"]))];
    assert_eq!(ask(&served, "GET", "/channels/answer", &id, "").status, 204);
    // Without an event, and with a batch.
    let none = ask(&served, "POST", "/channels/none?finish", &[], "");
    assert_eq!(json(&none)["events"], 0);
    let lines = "{\"data\": 1}\n{\"data\": 2}\n";
    let two = publish(&served, "/channels/two?finish", LINES, lines);
    assert_eq!(two["events"], 2);
    for channel in ["none", "two"] {
        let path = format!("/channels/{channel}");
        let more = ask(&served, "POST", &path, &[TEXT], "more");
        assert_eq!(
            refusal(&more),
            refused(409, "channel_finished"),
            "{channel}"
        );
    }
    let all = ask(&served, "POST", "/channels?finish", &[TEXT], "x");
    assert_eq!(refusal(&all), refused(400, "target_without_channel"));
}

#[test]
fn finishing_needs_a_right_of_its_own() {
    let served = Served::start(secured().engine());
    let allowed = Served::start(secured().publish_keys_may_finish(true).engine());
    let may_publish = token(json!({"publish": ["*"]}));
    let may_finish = token(json!({"publish": ["*"], "finish": ["mine.*"]}));
    let may_only_finish = token(json!({"finish": ["mine.*"]}));
    let mut key = 0;
    let mut ask_for = |served: &Served, credential: &str, channel: &str| {
        key += 1;
        let path = format!("/channels/{channel}?finish");
        let answer = as_holder(served, credential, &path, &key.to_string());
        match answer.status {
            200 => (200, String::new()),
            _ => refusal(&answer),
        }
    };
    let (may, not_listed) = ((200, String::new()), refused(403, "channel_not_allowed"));
    assert_eq!(ask_for(&served, ADMIN, "mine.1"), may);
    assert_eq!(
        ask_for(&served, PUBLISHER, "mine.2"),
        refused(403, "key_wrong")
    );
    assert_eq!(ask_for(&allowed, PUBLISHER, "mine.2"), may);
    assert_eq!(ask_for(&served, &may_publish, "mine.3"), not_listed);
    assert_eq!(ask_for(&served, &may_finish, "mine.3"), may);
    assert_eq!(ask_for(&served, &may_finish, "other"), not_listed);
    assert_eq!(ask_for(&served, &may_only_finish, "mine.4"), not_listed);
    // Nothing was published with a request that was refused.
    assert!(!served.channels().has("other"));
}

#[test]
fn a_finished_channel_answers_for_its_own_time() {
    let finished_for =
        |seconds| channel_options().finished_for(std::time::Duration::from_secs(seconds));
    let config = Config::new().channel_options_for("job.*".parse().unwrap(), finished_for(3_600));
    let served = Served::start(config.engine());
    for (channel, seconds) in [("job.1", 3_600.0), ("other", 60.0)] {
        publish(&served, &format!("/channels/{channel}"), TEXT, "x");
        let settings = json(&get(&served, &format!("/channels/{channel}/settings")));
        assert_eq!(settings["finished_for"], seconds, "{channel}");
    }
}

#[test]
fn any_body_is_an_event_where_it_is_published_raw() {
    let config = Config::new().raw_for("hooks.*".parse().unwrap(), true);
    let served = Served::start(config.engine());
    let payload = "{\"action\": \"opened\",\n \"number\": 7}";
    let refused_payload = ask(&served, "POST", "/channels/a", &[JSON], payload);
    assert_eq!(refusal(&refused_payload), refused(400, "invalid_event"));
    assert!(
        refused_payload.text().contains("?raw"),
        "{}",
        refused_payload.text()
    );
    let cloud = (
        "Content-Type",
        "application/cloudevents+json; charset=UTF-8",
    );
    for (path, content_type) in [
        ("/channels/a?raw", JSON),
        ("/channels/a?raw=true&event=push", LINES),
        ("/channels/a?raw", cloud),
        ("/channels/hooks.github", JSON),
    ] {
        let answer = publish(&served, path, content_type, payload);
        assert_eq!(
            (&answer["events"], answer.get("warnings")),
            (&json!(1), None),
            "{path}"
        );
    }
    assert_eq!(events(&served, "a"), [payload; 3]);
    assert_eq!(events(&served, "hooks.github"), [payload]);
    let settings: Value = json(&get(&served, "/channels/hooks.github/settings"));
    assert_eq!(settings["raw"], true);
    // The request decides.
    let event = publish(
        &served,
        "/channels/hooks.github?raw=false",
        JSON,
        r#"{"data": 1}"#,
    );
    assert_eq!(event["events"], 1);
    assert_eq!(events(&served, "hooks.github"), [payload, "1"]);
}
