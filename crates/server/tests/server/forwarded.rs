//! A server without keys behind a proxy.

use pushwheel_server::{Config, Key};

use super::commands::{Running, pushwheel};
use super::{ask, ask_over, refusal, refused};
use crate::common::{Connection, Served};

/// The headers that nginx and Apache add, with `Host` rewritten to the server's.
const ADDED: [(&str, &str); 6] = [
    ("X-Forwarded-For", "198.51.100.7"),
    ("X-Forwarded-Host", "push.example"),
    ("x-forwarded-proto", "https"),
    ("Forwarded", "for=198.51.100.7"),
    ("X-Real-IP", "198.51.100.7"),
    ("Via", "1.1 proxy"),
];

#[test]
fn without_keys_nothing_is_answered_through_a_proxy() {
    let served = Served::start(Config::new().loopback_for([]).engine());
    for header in ADDED {
        let headers = [("Host", "127.0.0.1:8080"), header];
        for (method, path) in [
            ("POST", "/channels/a"),
            ("GET", "/channels"),
            ("GET", "/channels/a"),
            ("DELETE", "/channels/a"),
        ] {
            let answer = ask(&served, method, path, &headers[1..], "x");
            let not_trusted = refused(403, "proxy_not_trusted");
            assert_eq!(refusal(&answer), not_trusted, "{method} {path} {header:?}");
            assert!(
                answer.text().contains("--trusted-proxy"),
                "{}",
                answer.text()
            );
        }
        // A load balancer sends it, and the response has no secret.
        for path in ["/health", "/ready"] {
            assert_eq!(ask(&served, "GET", path, &headers[1..], "").status, 200);
        }
    }
    assert!(served.channels().names().is_empty());
    assert_eq!(ask(&served, "POST", "/channels/a", &[], "x").status, 200);
}

#[test]
fn with_keys_or_open_a_proxy_is_no_matter() {
    let key = Key::new("publish-s3cret-of-tests").unwrap();
    let secured = Config::new().publish_key(key).loopback_for([]);
    let bearer = ("Authorization", "Bearer publish-s3cret-of-tests");
    for config in [secured, Config::new()] {
        let served = Served::start(config.engine());
        let answer = ask(&served, "POST", "/channels/a", &[bearer, ADDED[0]], "x");
        assert_eq!(answer.status, 200);
    }
}

#[test]
fn serve_warns_of_a_proxy_and_of_missing_keys() {
    let started = "there are no keys: every program that reaches this port";
    let forwarded = "forwarded to this server without keys. Set --admin-key";
    let mut server = Running::start(&["serve", "--listen", "127.0.0.1:0"]);
    let mut connection = Connection::open(server.address());
    for _ in 0..3 {
        let answer = ask_over(&mut connection, "GET", "/stats", &ADDED[..1], "");
        assert_eq!(refusal(&answer), refused(403, "proxy_not_trusted"));
    }
    drop(connection);
    let log = server.end();
    assert_eq!(log.matches(started).count(), 1, "{log}");
    assert_eq!(log.matches(forwarded).count(), 1, "{log}");
    // With --allow-missing-keys there is no warning.
    let mut command = pushwheel(&["serve", "--listen", "127.0.0.1:0", "--allow-missing-keys"]);
    let mut server = Running::spawn(&mut command);
    let mut connection = Connection::open(server.address());
    let answer = ask_over(&mut connection, "GET", "/stats", &ADDED, "");
    assert_eq!(answer.status, 200);
    drop(connection);
    let log = server.end();
    assert!(!log.contains("keys"), "{log}");
}
