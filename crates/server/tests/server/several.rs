//! Publishing to several named channels.

use pushwheel::{JournalOptions, LagPolicy, Rate};
use pushwheel_server::{Config, Key, TokenKeys, channel_options};
use serde_json::json;

use super::access::{SECRET, bearer, token};
use super::{JSON, LINES, TEXT, ask, events, json, publish, refusal, refused, start};
use crate::common::{Served, eventually, summaries};
use crate::directory::Directory;

const BOTH: &str = "/channels?channel=a&channel=b";

#[test]
fn several_channels_have_an_event_under_one_id_and_a_stream_of_them_once() {
    let served = start();
    let mut stream = served.subscribe("/events?channel=a&channel=b&channel=c");
    let mut one = served.subscribe("/channels/b");
    let answer = publish(&served, &format!("{BOTH}&event=n"), TEXT, "1");
    // The stream counts in each of its channels.
    let wanted = json!({"id": answer["id"], "events": 1, "clients": 3});
    assert_eq!(answer, wanted);
    let lines = "{\"data\": 2}\n{\"data\": 3}\n";
    assert_eq!(publish(&served, BOTH, LINES, lines)["events"], 2);
    publish(&served, "/channels/c", TEXT, "4");
    // A name that is there twice counts once.
    let once = publish(&served, "/channels?channel=b&channel=b", TEXT, "5");
    assert_eq!(once["clients"], 2);
    assert_eq!(summaries(&stream.take(5)), ["n 1", "2", "3", "4", "5"]);
    assert_eq!(summaries(&one.take(4)), ["n 1", "2", "3", "5"]);
    assert_eq!(events(&served, "a"), ["1", "2", "3"]);
}

#[test]
fn none_of_several_channels_has_what_one_of_them_rejects() {
    let slow = channel_options().publish_rate(Rate::per_second(0.01).burst(1));
    let conflating = channel_options().lag_policy(LagPolicy::Conflate);
    let config = Config::new()
        .channel_options_for("slow".parse().unwrap(), slow)
        .channel_options_for("state".parse().unwrap(), conflating);
    let served = Served::start(config.engine());
    publish(&served, "/channels/done", TEXT, "last");
    ask(&served, "DELETE", "/channels/done?finish", &[], "");
    publish(&served, "/channels/slow", TEXT, "spent");
    let many = "{\"data\": 1}\n".repeat(513);
    let long: String = (0..65).map(|n| format!("channel={n}&")).collect();
    let long = format!("/channels?{long}");
    for (path, (header, body), status, code) in [
        (
            &*format!("{BOTH}&channel=done"),
            (TEXT, "x"),
            409,
            "channel_finished",
        ),
        (
            &format!("{BOTH}&channel=slow"),
            (TEXT, "x"),
            429,
            "rate_limited",
        ),
        (
            &format!("{BOTH}&channel=x%2Fy"),
            (TEXT, "x"),
            400,
            "channel_name_invalid",
        ),
        (
            &format!("{BOTH}&channel="),
            (TEXT, "x"),
            400,
            "channel_name_invalid",
        ),
        (
            &format!("{BOTH}&client=ann"),
            (TEXT, "x"),
            400,
            "target_without_channel",
        ),
        (
            &format!("{BOTH}&where.role=a"),
            (TEXT, "x"),
            400,
            "target_without_channel",
        ),
        (
            &format!("{BOTH}&finish"),
            (TEXT, "x"),
            400,
            "target_without_channel",
        ),
        (
            &format!("{BOTH}&id=own"),
            (TEXT, "x"),
            400,
            "event_id_of_several",
        ),
        (
            &format!("{BOTH}&key=k"),
            (TEXT, "x"),
            409,
            "channel_not_conflating",
        ),
        (
            &format!("{BOTH}&stream"),
            (LINES, "{\"data\": 1}"),
            400,
            "target_without_channel",
        ),
        (BOTH, (LINES, &many), 400, "too_many_entries"),
        (&long, (TEXT, "x"), 400, "publish_channels_too_many"),
        (
            "/channels/a?channel=b",
            (TEXT, "x"),
            400,
            "parameter_unknown",
        ),
    ] {
        let answer = ask(&served, "POST", path, &[header], body);
        assert_eq!(refusal(&answer), refused(status, code), "{path}");
    }
    assert!(events(&served, "a").is_empty());
    // A key has its effect in one of these.
    let keyed = r#"{"data": 2, "key": "k"}"#;
    publish(&served, "/channels?channel=a&channel=state", JSON, keyed);
    assert_eq!(events(&served, "state"), ["2"]);
}

#[test]
fn a_token_may_publish_to_each_of_its_channels() {
    let config = Config::new()
        .publish_key(Key::new("publish-s3cret-of-tests").unwrap())
        .token_keys(TokenKeys::secret(SECRET.as_bytes()).unwrap());
    let served = Served::start(config.engine());
    let holder = bearer(&token(json!({"publish": ["a", "b"]})));
    let post = |path: &str| {
        let headers = [TEXT, ("Authorization", &*holder), ("Idempotency-Key", "k")];
        ask(&served, "POST", path, &headers, "x")
    };
    assert_eq!(json(&post(BOTH))["events"], 1);
    assert_eq!(
        json(&post("/channels?channel=b&channel=a"))["duplicate"],
        true
    );
    let missing = refused(403, "channel_not_allowed");
    assert_eq!(refusal(&post(&format!("{BOTH}&channel=c"))), missing);
    assert_eq!(refusal(&post("/channels")), missing);
    assert_eq!(ask(&served, "POST", BOTH, &[TEXT], "x").status, 401);
}

#[test]
fn several_channels_have_an_event_in_a_journal_or_none_has() {
    let directory = Directory::new("several");
    let open = || {
        let path = directory.path().join("journal");
        let server = Config::new().journaled_server(path, JournalOptions::new());
        Served::start(server.unwrap().engine)
    };
    let served = open();
    let headers = [TEXT, ("Idempotency-Key", "k")];
    let first = json(&ask(&served, "POST", BOTH, &headers, "1"));
    ask(&served, "DELETE", "/channels/b?finish", &[], "");
    eventually("the channel is finished", || {
        let answer = ask(&served, "POST", BOTH, &[TEXT], "2");
        refusal(&answer) == refused(409, "channel_finished")
    });
    drop(served);
    let served = open();
    for channel in ["a", "b"] {
        assert_eq!(events(&served, channel), ["1"]);
    }
    let again = json(&ask(&served, "POST", BOTH, &headers, "1"));
    assert_eq!(
        (&again["id"], &again["duplicate"]),
        (&first["id"], &json!(true))
    );
}
