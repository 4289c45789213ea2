//! Forged, invalid and too powerful tokens: their cost, and the reasons in the errors.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use pushwheel::Rate;
use pushwheel_server::{Config, Key, Server, TokenKeys};
use serde_json::{Value, json};

use super::access::{SECRET, bearer, open, token, token_by};
use super::{ask, refusal, refused};
use crate::common::client::Answer;
use crate::common::{Served, Subscriber};

const OTHER_SECRET: &str = "another secret, that is as long..";
const KEY: (&str, &str) = ("Authorization", "Bearer publish-s3cret-of-tests");

/// A server for tokens of a public key, which take most time to verify.
fn config_of_ec() -> Config {
    Config::new()
        .publish_key(Key::new("publish-s3cret-of-tests").unwrap())
        .token_keys(TokenKeys::public_pem(include_str!("keys/ec.pub.pem")).unwrap())
}

/// Returns a token of ES256 with these claims.
fn signed_by_ec(claims: &Value) -> String {
    let key = EncodingKey::from_ec_pem(include_bytes!("keys/ec.pem")).unwrap();
    encode(&Header::new(Algorithm::ES256), claims, &key).unwrap()
}

fn token_of_ec(own: &Value) -> String {
    signed_by_ec(&json!({"exp": get_current_timestamp() + 600, "pushwheel": own}))
}

/// Returns the token with another signature.
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
    // A forged token is counted whatever its claims are. This one has expired.
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
    // A browser, which may be innocent, gets a time to reconnect.
    let header = bearer(&good_later);
    let headers = [("Authorization", &*header), ("Connection", "close")];
    let mut stream = Subscriber::open(served.address(), "/channels/a", &headers);
    stream.expect_end();
    assert!(stream.retry().is_some_and(|ms| ms >= 2000));
    // A token that was verified before is accepted, and so is a key.
    assert_eq!(ask_as(&served, &good, "HEAD", "/channels/a").status, 200);
    assert_eq!(ask(&served, "POST", "/channels/a", &[KEY], "x").status, 200);
}

/// With 47 forged tokens per second of one client, 15 of 20 other clients behind the same
/// address received 429. That saved nothing, because HS256 is fast to verify.
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

/// An error for a token that was not verified does not depend on its claims, not even on
/// its expiry.
#[test]
fn an_error_reveals_nothing_of_a_token_before_its_signature_is_verified() {
    let served = Served::start(config_of_ec().engine());
    for claims in [
        json!({"exp": 1}),
        json!({"exp": 1e300, "aud": "others"}),
        json!({}),
    ] {
        let token = signed_by_ec(&claims);
        let answer = ask_as(&served, &forged(&token), "GET", "/channels/a");
        assert_eq!(refusal(&answer), refused(401, "token_invalid"), "{claims}");
        let reported = "none of this server's keys has signed it";
        assert!(answer.text().contains(reported), "{}", answer.text());
    }
    let answer = ask_as(
        &served,
        &signed_by_ec(&json!({"exp": 1})),
        "GET",
        "/channels/a",
    );
    assert_eq!(refusal(&answer), refused(401, "token_expired"));
}

// ---- keys and issuers ----

/// The keys of two issuers, each of which signed for both.
#[test]
fn a_key_that_is_bound_signs_for_its_issuer_only() {
    let [one, other] = [SECRET, OTHER_SECRET];
    let bound = |secret: &str, issuer| {
        let keys = TokenKeys::secret(secret.as_bytes()).unwrap();
        keys.issued_by(issuer)
    };
    let keys = bound(one, "idp-a").and(bound(other, "idp-b").issued_by("idp-c"));
    let unbound = TokenKeys::public_pem(include_str!("keys/ec.pub.pem")).unwrap();
    let config = Config::new()
        .token_keys(keys.unwrap().and(unbound).unwrap())
        .token_issuers(["idp-d".to_owned()]);
    let served = Served::start(config.engine());
    let claims = |issuer: Option<&str>| {
        let exp = get_current_timestamp() + 600;
        json!({"exp": exp, "iss": issuer, "pushwheel": {"subscribe": ["a"]}})
    };
    let by = |secret: &str, issuer| {
        let key = EncodingKey::from_secret(secret.as_bytes());
        encode(&Header::default(), &claims(issuer), &key).unwrap()
    };
    let wrong = refused(401, "token_issuer");
    let fine = (200, String::new());
    for (token, wanted) in [
        (by(one, Some("idp-a")), &fine),
        (by(one, Some("idp-b")), &wrong),
        (by(one, Some("idp-d")), &wrong),
        (by(one, None), &wrong),
        (by(other, Some("idp-b")), &fine),
        (by(other, Some("idp-c")), &fine),
        (by(other, Some("idp-a")), &wrong),
        (signed_by_ec(&claims(Some("idp-d"))), &fine),
        (signed_by_ec(&claims(Some("idp-a"))), &wrong),
    ] {
        let header = bearer(&token);
        let opened = open(&served, "/channels/a", &[("Authorization", &header)]);
        assert_eq!(opened, *wanted);
    }
}

#[test]
fn a_token_is_valid_for_no_longer_than_it_may_be() {
    let keys = TokenKeys::secret(SECRET.as_bytes()).unwrap();
    let config = Config::new().token_keys(keys);
    let short = config.clone().token_lifetime_max(Duration::from_secs(3600));
    let (any, short) = (
        Served::start(config.engine()),
        Served::start(short.engine()),
    );
    let now = get_current_timestamp();
    for (exp, by_any, by_short) in [
        (json!(now + 600), 200, 200),
        (json!(now + 7200), 200, 401),
        // Later than every clock, as from a program that counts milliseconds.
        (json!(1e300), 401, 401),
        (json!(now * 1000), 401, 401),
    ] {
        let claims = json!({"exp": exp, "pushwheel": {"subscribe": ["a"]}});
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let header = bearer(&encode(&Header::default(), &claims, &key).unwrap());
        let header = [("Authorization", &*header)];
        let status = |served| open(served, "/channels/a", &header).0;
        assert_eq!((status(&any), status(&short)), (by_any, by_short), "{exp}");
    }
}

// ---- effects of a token on other clients ----

/// With `?retry=2147483647` every `EventSource` waits 24.8 days after its next
/// disconnection, and with `?retry=0` not at all.
#[test]
fn a_token_chooses_no_delay_that_keeps_clients_away() {
    let keys = TokenKeys::secret(SECRET.as_bytes()).unwrap();
    let key = Key::new("publish-s3cret-of-tests").unwrap();
    let served = Served::start(Config::new().token_keys(keys).publish_key(key).engine());
    let mine = bearer(&token(json!({"publish": ["*"]})));
    let mine = ("Authorization", &*mine);
    let refused = refused(403, "retry_not_allowed");
    let fine = (200, String::new());
    let ask_with = |header, path: &str, media_type, body: &str| {
        let answer = ask(
            &served,
            "POST",
            path,
            &[header, ("Content-Type", media_type)],
            body,
        );
        match answer.status {
            200 => (200, String::new()),
            _ => refusal(&answer),
        }
    };
    for (ms, by_token) in [
        ("0", &refused),
        ("999", &refused),
        ("1000", &fine),
        ("60000", &fine),
        ("60001", &refused),
        ("2147483647", &refused),
    ] {
        let event = format!("{{\"data\": 1, \"retry\": {ms}}}");
        let events = format!("{{\"data\": 1}}\n{event}\n");
        for (path, media_type, body) in [
            (format!("/channels/a?retry={ms}"), "text/plain", "x"),
            ("/channels/a".to_owned(), "application/json", &*event),
            ("/channels".to_owned(), "application/json", &event),
            ("/channels/a".to_owned(), "application/x-ndjson", &events),
        ] {
            assert_eq!(
                ask_with(mine, &path, media_type, body),
                *by_token,
                "{path} {body}"
            );
            assert_eq!(
                ask_with(KEY, &path, media_type, body),
                fine,
                "{path} {body}"
            );
        }
    }
}

// ---- tickets and the keys behind them ----

#[test]
fn a_ticket_dies_with_the_key_behind_it() {
    let secret = |text: &str| TokenKeys::secret(text.as_bytes()).unwrap();
    let key = |text| Key::new(text).unwrap();
    let config = Config::new()
        .publish_key(key("publish-s3cret-of-tests"))
        .token_keys(secret(SECRET).and(secret(OTHER_SECRET)).unwrap());
    let Server { engine, reloader } = config.server();
    let served = Served::start(engine);
    let make = |header: &str| {
        let body = json!({"subscribe": ["a"]}).to_string();
        let answer = ask(
            &served,
            "POST",
            "/tickets",
            &[("Authorization", header)],
            &body,
        );
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        format!("/channels/a?ticket={}", answer["ticket"].as_str().unwrap())
    };
    let own = json!({"subscribe": ["a"]});
    let of_secret = bearer(&token(own.clone()));
    let of_other = bearer(&token_by(OTHER_SECRET, own));
    let opened = |path: &str| open(&served, path, &[]);
    let fine = (200, String::new());
    let unknown = refused(401, "ticket_unknown");
    // A reload with the same keys keeps the tickets.
    let paths = [&of_secret, &of_other, KEY.1].map(make);
    reloader.reload(&config);
    assert_eq!(
        paths.each_ref().map(|path| opened(path)),
        [(); 3].map(|()| fine.clone())
    );
    // Two of the keys are removed, and with them the tickets that they made.
    let paths = [&of_secret, &of_other, KEY.1].map(make);
    let config = Config::new().publish_key(key("another-s3cret-of-tests"));
    reloader.reload(&config.clone().token_keys(secret(OTHER_SECRET)));
    let wanted = [unknown.clone(), fine, unknown.clone()];
    assert_eq!(paths.each_ref().map(|path| opened(path)), wanted);
    // Without tokens in the configuration all tickets are removed.
    let path = make(&of_other);
    reloader.reload(&config);
    assert_eq!(opened(&path), unknown);
}

/// Tickets of an open server are invalid once it has keys.
#[test]
fn a_ticket_of_an_open_server_is_worth_nothing_on_a_closed_one() {
    let Server { engine, reloader } = Config::new().server();
    let served = Served::start(engine);
    let answer = ask(&served, "POST", "/tickets", &[], r#"{"subscribe": ["a"]}"#);
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    let path = format!("/channels/a?ticket={}", answer["ticket"].as_str().unwrap());
    let keys = TokenKeys::secret(SECRET.as_bytes()).unwrap();
    reloader.reload(&Config::new().token_keys(keys));
    assert_eq!(open(&served, &path, &[]), refused(401, "ticket_unknown"));
}
