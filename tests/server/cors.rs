//! Which pages may read: the list of origins, cookies, preflights.

use pushwheel::server::{AllowedOrigin, Config};

use super::commands::{Running, pushwheel};
use super::{ask, ask_over, get, start};
use crate::access::Scratch;
use crate::common::client::Answer;
use crate::common::{Connection, Served, Subscriber, eventually};

const APP: (&str, &str) = ("Origin", "https://app.example");
const EVIL: (&str, &str) = ("Origin", "https://evil.example");

fn listed() -> Served {
    let origins = ["https://app.example", "https://*.wide.example"];
    let origins = origins.map(|origin| origin.parse::<AllowedOrigin>().unwrap());
    Served::start(Config::new().allow_origins(origins).engine())
}

/// What an answer says of origins.
fn said(answer: &Answer) -> [Option<&str>; 3] {
    [
        answer.header("access-control-allow-origin"),
        answer.header("access-control-allow-credentials"),
        answer.header("vary"),
    ]
}

#[test]
fn without_a_list_everybody_reads_and_nobody_with_cookies() {
    let served = start();
    for headers in [&[][..], &[APP], &[EVIL], &[("Origin", "null")]] {
        let answer = ask(&served, "GET", "/channels", headers, "");
        assert_eq!(said(&answer), [Some("*"), None, None], "{headers:?}");
    }
    let mut connection = served.connect();
    connection.send("what is this\r\n\r\n");
    let answer = connection.answer();
    assert_eq!(answer.status, 400);
    assert_eq!(answer.all("access-control-allow-origin"), ["*"]);
}

#[test]
fn a_listed_origin_is_named_and_another_gets_nothing() {
    let served = listed();
    for (origin, is_listed) in [
        ("https://app.example", true),
        ("https://a.wide.example", true),
        ("https://evil.example", false),
        ("https://app.example.evil.example", false),
        ("http://app.example", false),
        ("null", false),
    ] {
        for (method, path, body) in [
            ("GET", "/channels", ""),
            ("HEAD", "/channels/a", ""),
            ("POST", "/channels/a", "x"),
            ("GET", "/nothing", ""),
            ("DELETE", "/channels/gone", ""),
        ] {
            let answer = ask(&served, method, path, &[("Origin", origin)], body);
            let wanted = match is_listed {
                true => [Some(origin), Some("true"), Some("Origin")],
                false => [None, None, Some("Origin")],
            };
            assert_eq!(said(&answer), wanted, "{method} {path} {origin}");
        }
        let stream = Subscriber::open(served.address(), "/channels/a", &[("Origin", origin)]);
        let wanted = is_listed.then_some(origin);
        assert_eq!(said(&stream.head)[0], wanted);
    }
    // Without an origin too: what a cache keeps must not go to a page.
    assert_eq!(
        said(&get(&served, "/channels")),
        [None, None, Some("Origin")]
    );
    let mut connection = served.connect();
    connection.send("what is this\r\n\r\n");
    assert_eq!(said(&connection.answer()), [None, None, None]);
}

#[test]
fn preflights_are_for_listed_origins() {
    let served = listed();
    for (origin, allowed) in [(APP, Some(APP.1)), (EVIL, None)] {
        let headers = [
            origin,
            ("Access-Control-Request-Method", "POST"),
            (
                "Access-Control-Request-Headers",
                "authorization, last-event-id",
            ),
        ];
        for path in ["/channels/a", "/tickets", "/events", "/stats"] {
            let answer = ask(&served, "OPTIONS", path, &headers, "");
            assert_eq!(answer.status, 204, "{path}");
            assert_eq!(answer.header("access-control-allow-origin"), allowed);
            let credentials = answer.header("access-control-allow-credentials");
            assert_eq!(credentials, allowed.map(|_| "true"));
            assert_eq!(answer.header("vary"), Some("Origin"));
            let names = answer.header("access-control-allow-headers").unwrap();
            for name in [
                "Authorization",
                "Last-Event-ID",
                "Cache-Control",
                "Content-Type",
            ] {
                assert!(names.contains(name), "{names}");
            }
        }
    }
}

#[test]
fn a_list_comes_and_goes_with_a_reload() {
    let scratch = Scratch::new("origins");
    let file = scratch.write("p.toml", "listen = \"127.0.0.1:0\"\n");
    let mut server = Running::spawn(&mut pushwheel(&["serve", "--config", &file]));
    let address = server.address();
    let mut connection = Connection::open(address);
    let mut said_to = |origin| {
        let answer = ask_over(&mut connection, "GET", "/health", &[origin], "");
        let all = answer.all("access-control-allow-origin");
        assert_eq!(all.len(), 1, "{all:?}");
        all[0].to_owned()
    };
    assert_eq!(said_to(EVIL), "*");
    let list = "listen = \"127.0.0.1:0\"\nallow_origin = [\"https://app.example\"]\n";
    scratch.write("p.toml", list);
    server.signal("HUP");
    eventually("the list holds", || said_to(APP) == "https://app.example");
    // It started with `*`, which nothing but another origin can take away.
    assert_eq!(said_to(EVIL), "https://nobody.invalid");
    scratch.write("p.toml", "listen = \"127.0.0.1:0\"\nallow_origin = \"*\"\n");
    server.signal("HUP");
    eventually("the list is gone", || said_to(EVIL) == "*");
}

#[test]
fn on_loopback_a_listed_page_may_publish() {
    let origin: AllowedOrigin = "https://app.example".parse().unwrap();
    let config = Config::new().loopback_for([]).allow_origins([origin]);
    let served = Served::start(config.engine());
    for (origin, status) in [(APP, 200), (EVIL, 403)] {
        let mut connection = served.connect();
        let (name, value) = origin;
        connection.send(format!(
            "POST /channels/a HTTP/1.1\r\nHost: localhost\r\n{name}: {value}\r\nContent-Length: 1\r\n\r\nx"
        ));
        assert_eq!(connection.answer().status, status, "{value}");
    }
}
