//! The limit of wrong keys from one address.

use std::net::IpAddr;

use pushwheel::Rate;
use pushwheel_server::{Config, Key, TokenKeys};

use super::access::SECRET;
use super::commands::{Running, pushwheel};
use super::{ask_over, refusal, refused};
use crate::common::{Connection, Served};

const KEY: &str = "publish-s3cret-of-tests";
const ADMIN: &str = "admin-s3cret-of-tests";

fn config() -> Config {
    Config::new()
        .publish_key(Key::new(KEY).unwrap())
        .admin_key(Key::new(ADMIN).unwrap())
        .wrong_keys_per_address(Rate::per_second(0.001).burst(3))
}

/// Returns the status and code for a request with this key from this address.
#[track_caller]
fn ask_from(source: &str, served: &Served, key: &str, method: &str, path: &str) -> (u16, String) {
    let source: IpAddr = source.parse().unwrap();
    let mut connection = Connection::from_address(source, served.address());
    let header = format!("Bearer {key}");
    let header = [("Authorization", &*header)];
    let answer = ask_over(&mut connection, method, path, &header, "x");
    match answer.status {
        200 => (200, String::new()),
        429 => {
            assert!(answer.header("retry-after").is_some());
            refusal(&answer)
        }
        _ => refusal(&answer),
    }
}

/// The requests of an attack that tried 52,000 keys per second, none of them logged.
#[test]
fn an_address_guesses_only_so_often() {
    let fine = (200, String::new());
    let too_many = refused(429, "too_many_wrong_keys");
    for (method, path, wrong) in [
        ("GET", "/_page/rights", fine.clone()),
        ("GET", "/stats", refused(403, "key_wrong")),
        ("DELETE", "/channels/a", refused(403, "key_wrong")),
        ("POST", "/channels/a", refused(403, "key_wrong")),
        ("POST", "/tickets", refused(403, "key_wrong")),
    ] {
        let served = Served::start(config().engine());
        let guess = |key| ask_from("127.0.0.2", &served, key, method, path);
        for key in ["a", "b", "c"] {
            assert_eq!(guess(key), wrong, "{method} {path}");
        }
        // Now even the right key is refused.
        for key in ["d", KEY, ADMIN] {
            assert_eq!(guess(key), too_many, "{method} {path}");
        }
        // Requests without a key, and other addresses, are not affected.
        let mut connection =
            Connection::from_address("127.0.0.2".parse().unwrap(), served.address());
        assert_eq!(
            ask_over(&mut connection, "GET", "/health", &[], "").status,
            200
        );
        let publish = |from| ask_from(from, &served, KEY, "POST", "/channels/a");
        assert_eq!(publish("127.0.0.3"), fine);
    }
}

/// Behind a proxy that is not trusted, a publisher has the same address as an attacker.
#[test]
fn guesses_lock_no_publisher_out() {
    let served = Served::start(config().engine());
    let publish = || ask_from("127.0.0.2", &served, KEY, "POST", "/channels/a");
    assert_eq!(publish(), (200, String::new()));
    for _ in 0..10 {
        let wrong = ask_from("127.0.0.2", &served, "guess", "GET", "/stats");
        assert_eq!(wrong, refused(403, "key_wrong"));
    }
    assert_eq!(publish(), (200, String::new()));
}

/// A subscriber's bearer text that is neither a key nor a token counts as a wrong key.
#[test]
fn guesses_by_subscribing_count_where_there_are_tokens() {
    let keys = TokenKeys::secret(SECRET.as_bytes()).unwrap();
    let served = Served::start(config().token_keys(keys).engine());
    let guess = || ask_from("127.0.0.2", &served, "guess", "GET", "/channels/a");
    for _ in 0..3 {
        assert_eq!(guess(), refused(401, "token_invalid"));
    }
    assert_eq!(guess(), refused(429, "too_many_wrong_keys"));
    // A text in the form of a token does not count as a wrong key.
    let answer = ask_from("127.0.0.2", &served, "eyJh.e30.c2ln", "GET", "/channels/a");
    assert_eq!(answer, refused(401, "token_invalid"));
}

#[test]
fn a_wrong_key_is_logged_once_a_minute_and_is_not_shown() {
    let mut command = pushwheel(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("PUSHWHEEL_ADMIN_KEY", ADMIN);
    let mut server = Running::spawn(&mut command);
    let mut connection = Connection::open(server.address());
    for _ in 0..5 {
        let header = [("Authorization", "Bearer gu3ssed")];
        let answer = ask_over(&mut connection, "GET", "/stats", &header, "");
        assert_eq!(refusal(&answer), refused(403, "key_wrong"));
    }
    drop(connection);
    let log = server.end();
    let reported = "a client at 127.0.0.1 sent a wrong key";
    assert_eq!(log.matches(reported).count(), 1, "{log}");
    assert!(!log.contains("gu3ssed"), "{log}");
}
