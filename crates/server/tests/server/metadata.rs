//! Limits of the metadata in a query, a ticket and a token.

use pushwheel_server::{Config, Key};
use serde_json::{Map, Value, json};

use super::access::{SECRET, bearer, open, token};
use super::{ask, get, refusal, refused, start};
use crate::common::Served;
use pushwheel_server::TokenKeys;

/// The request with which a connection took 73 KB instead of 153 bytes.
#[test]
fn metadata_that_a_client_says_of_itself_is_bounded() {
    let served = start();
    let fields = |count: usize| {
        let fields: Vec<String> = (0..count).map(|n| format!("meta.{n}=")).collect();
        format!("/channels/a?{}", fields.join("&"))
    };
    let text = |bytes: usize| format!("/channels/a?meta.f={}", "x".repeat(bytes));
    let too_large = refused(400, "metadata_too_large");
    for path in [fields(700), fields(33), text(2048)] {
        assert_eq!(refusal(&get(&served, &path)), too_large, "{path}");
    }
    let same = "meta.tag=x&".repeat(33);
    let answer = get(&served, &format!("/events?channel=a&{same}"));
    assert_eq!(refusal(&answer), too_large);
    assert!(
        served.channels().names().is_empty(),
        "a refusal makes no channel"
    );
    for path in [fields(32), text(2047)] {
        let _stream = served.subscribe(&path);
    }
}

/// The body with which a ticket took 128 KB.
#[test]
fn metadata_of_a_ticket_is_bounded() {
    let served = start();
    let many: Map<String, Value> = (0..830).map(|n| (n.to_string(), json!(""))).collect();
    for metadata in [
        json!(many),
        json!({"a": vec![1; 1_000]}),
        json!({"a": "x".repeat(3_000)}),
    ] {
        let body = json!({"subscribe": ["a"], "metadata": metadata}).to_string();
        let answer = ask(&served, "POST", "/tickets", &[], &body);
        assert_eq!(
            refusal(&answer),
            refused(400, "metadata_too_large"),
            "{body}"
        );
    }
    let body = json!({"subscribe": ["a"], "metadata": {"roles": ["admin", "editor"]}});
    assert_eq!(
        ask(&served, "POST", "/tickets", &[], &body.to_string()).status,
        200
    );
}

#[test]
fn metadata_of_a_token_is_bounded() {
    let keys = TokenKeys::secret(SECRET.as_bytes()).unwrap();
    let served = Served::start(Config::new().token_keys(keys).engine());
    let of = |metadata: Value| bearer(&token(json!({"subscribe": ["a"], "metadata": metadata})));
    let large = of(json!({"a": vec![1; 1_000]}));
    let answer = ask(
        &served,
        "GET",
        "/channels/a",
        &[("Authorization", &large)],
        "",
    );
    assert_eq!(refusal(&answer), refused(401, "token_invalid"));
    let reported = "its claim `pushwheel.metadata` is too large, metadata has at most 32 values";
    assert!(answer.text().contains(reported), "{}", answer.text());
    let fine = of(json!({"a": vec![1; 31]}));
    let opened = open(&served, "/channels/a", &[("Authorization", &fine)]);
    assert_eq!(opened, (200, String::new()));
}

/// Each condition is compared with the metadata of every client.
#[test]
fn a_publish_has_as_many_conditions_as_clients_have_metadata() {
    let key = Key::new("publish-s3cret-of-tests").unwrap();
    let served = Served::start(Config::new().publish_key(key).engine());
    let header = ("Authorization", "Bearer publish-s3cret-of-tests");
    let path = |count: usize| {
        let all: Vec<String> = (0..count).map(|n| format!("where.{n}=")).collect();
        format!("/channels/a?{}", all.join("&"))
    };
    assert_eq!(ask(&served, "POST", &path(32), &[header], "x").status, 200);
    let answer = ask(&served, "POST", &path(33), &[header], "x");
    assert_eq!(refusal(&answer), refused(400, "conditions_too_many"));
}
