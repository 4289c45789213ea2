//! Tokens that are forged, unfit or too good: what they cost, and what they are
//! refused for.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use pushwheel::Rate;
use pushwheel::server::{Config, Key, TokenKeys};
use serde_json::{Value, json};

use super::access::{SECRET, bearer, open, token, token_by};
use super::{ask, refusal, refused};
use crate::common::client::Answer;
use crate::common::{Served, Subscriber};

const OTHER_SECRET: &str = "another secret, that is as long..";
const KEY: (&str, &str) = ("Authorization", "Bearer publish-s3cret-of-tests");

/// A server for tokens of one public key, which cost most to verify.
fn config_of_ec() -> Config {
    Config::new()
        .publish_key(Key::new("publish-s3cret-of-tests").unwrap())
        .token_keys(TokenKeys::public_pem(include_str!("keys/ec.pub.pem")).unwrap())
}

/// A token of ES256 with these claims.
fn signed_by_ec(claims: &Value) -> String {
    let key = EncodingKey::from_ec_pem(include_bytes!("keys/ec.pem")).unwrap();
    encode(&Header::new(Algorithm::ES256), claims, &key).unwrap()
}

fn token_of_ec(own: &Value) -> String {
    signed_by_ec(&json!({"exp": get_current_timestamp() + 600, "pushwheel": own}))
}

/// The same token with another signature.
fn forged(token: &str) -> String {
    format!("{}AAAA", &token[..token.len() - 4])
}

#[track_caller]
fn ask_as(served: &Served, token: &str, method: &str, path: &str) -> Answer {
    let header = bearer(token);
    ask(served, method, path, &[("Authorization", &header)], "x")
}

#[test]
fn forged_tokens_are_verified_only_so_often() {
    let rate = Rate::per_second(0.001).burst(3);
    let served = Served::start(config_of_ec().forged_tokens_per_address(rate).engine());
    let all = json!({"subscribe": ["a"]});
    let (good, good_later) = (
        token_of_ec(&all),
        token_of_ec(&json!({"subscribe": ["a", "b"]})),
    );
    assert_eq!(ask_as(&served, &good, "HEAD", "/channels/a").status, 200);
    // A text without the form of a token costs nothing, and is not counted.
    for _ in 0..10 {
        let answer = ask_as(&served, "a.b.c", "GET", "/channels/a");
        assert_eq!(refusal(&answer), refused(401, "token_invalid"));
    }
    // A forged token is counted whatever it says: here, that it has expired.
    let patterns: Vec<String> = (0..500).map(|n| format!("c{n}")).collect();
    let old = json!({"exp": 1, "pushwheel": {"subscribe": patterns}});
    for forgery in [forged(&good), forged(&signed_by_ec(&old)), forged(&good)] {
        let answer = ask_as(&served, &forgery, "GET", "/channels/a");
        assert_eq!(refusal(&answer), refused(401, "token_invalid"));
    }
    for token in [&forged(&good), &forged(&signed_by_ec(&old)), &good_later] {
        let answer = ask_as(&served, token, "GET", "/channels/a");
        assert_eq!(refusal(&answer), refused(429, "too_many_forged"));
        assert!(answer.header("retry-after").is_some());
    }
    // A browser, which may have done nothing wrong, is to come back.
    let header = bearer(&good_later);
    let headers = [("Authorization", &*header), ("Connection", "close")];
    let mut stream = Subscriber::open(served.address(), "/channels/a", &headers);
    stream.expect_end();
    assert!(stream.retry().is_some_and(|ms| ms >= 2000));
    // A token that was verified before is accepted, and so is a key.
    assert_eq!(ask_as(&served, &good, "HEAD", "/channels/a").status, 200);
    assert_eq!(ask(&served, "POST", "/channels/a", &[KEY], "x").status, 200);
}

/// 47 forged tokens a second of one client answered 15 of 20 other clients behind
/// the same address with 429, and saved nothing: HS256 is verified in a moment.
#[test]
fn forged_tokens_of_a_secret_lock_no_client_out() {
    let rate = Rate::per_second(0.001).burst(3);
    let keys = TokenKeys::secret(SECRET.as_bytes()).unwrap();
    let config = Config::new()
        .token_keys(keys)
        .forged_tokens_per_address(rate);
    let served = Served::start(config.engine());
    let forged = token_by(OTHER_SECRET, json!({"subscribe": ["a"]}));
    for n in 0..20 {
        let answer = ask_as(&served, &forged, "GET", "/channels/a");
        assert_eq!(refusal(&answer), refused(401, "token_invalid"));
        let new = bearer(&token(json!({"subscribe": ["a", n.to_string()]})));
        let opened = open(&served, "/channels/a", &[("Authorization", &new)]);
        assert_eq!(opened, (200, String::new()), "client {n}");
    }
}

/// What a token that was not verified says is not told: of an expired one not
/// even that it has expired.
#[test]
fn nothing_is_told_of_a_token_before_its_signature_is_verified() {
    let served = Served::start(config_of_ec().engine());
    for claims in [
        json!({"exp": 1}),
        json!({"exp": 1e300, "aud": "others"}),
        json!({}),
    ] {
        let token = signed_by_ec(&claims);
        let answer = ask_as(&served, &forged(&token), "GET", "/channels/a");
        assert_eq!(refusal(&answer), refused(401, "token_invalid"), "{claims}");
        let told = "none of this server's keys has signed it";
        assert!(answer.text().contains(told), "{}", answer.text());
    }
    let answer = ask_as(
        &served,
        &signed_by_ec(&json!({"exp": 1})),
        "GET",
        "/channels/a",
    );
    assert_eq!(refusal(&answer), refused(401, "token_expired"));
}
