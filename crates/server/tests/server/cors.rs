//! The pages that may read responses: listed origins, cookies, preflights.

use pushwheel_server::{AllowedOrigin, Config};

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

/// The headers of a response about origins.
fn said(answer: &Answer) -> [Option<&str>; 3] {
    [
        answer.header("access-control-allow-origin"),
        answer.header("access-control-allow-credentials"),
        answer.header("vary"),
    ]
}

/// A request of each kind: for streams, and for other paths.
const STREAMS: [(&str, &str); 4] = [
    ("GET", "/channels/a"),
    ("HEAD", "/events?channel=a"),
    ("GET", "/events"),
    ("GET", "/channels/%ff"),
];
const OTHERS: [(&str, &str); 13] = [
    ("GET", "/"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/stats"),
    ("GET", "/metrics"),
    ("GET", "/channels"),
    ("GET", "/channels/a/clients"),
    ("GET", "/channels/a/settings"),
    ("GET", "/pushwheel.js"),
    ("GET", "/nothing"),
    ("POST", "/channels/a"),
    ("POST", "/tickets"),
    ("DELETE", "/channels/gone"),
];

/// The origin that a response allows, for a page of `origin`.
fn allowed(served: &Served, (method, path): (&str, &str), origin: &str) -> Option<String> {
    let mut connection = served.connect();
    connection.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nContent-Length: 0\r\n\r\n"
    ));
    let answer = connection.head();
    let all = answer.all("access-control-allow-origin");
    assert!(all.len() <= 1, "{all:?}");
    assert!(answer.all("vary").contains(&"Origin"), "{method} {path}");
    let credentials = answer.header("access-control-allow-credentials");
    assert_eq!(credentials, None, "{method} {path}: no origin is listed");
    all.first().map(|origin| (*origin).to_owned())
}

#[test]
fn a_server_on_loopback_is_read_by_pages_of_loopback_alone() {
    let served = Served::start(Config::new().loopback_for(["app.test".to_owned()]).engine());
    for request in STREAMS.into_iter().chain(OTHERS) {
        for local in [
            "http://localhost:3000",
            "http://app.localhost",
            "https://127.0.0.1:5173",
            "http://[::1]",
            "http://app.test:3000",
        ] {
            let named = allowed(&served, request, local);
            assert_eq!(named.as_deref(), Some(local), "{request:?}");
        }
        for foreign in [
            "https://evil.example",
            "http://localhost.evil.example",
            "http://192.0.2.1",
            "capacitor://localhost",
            "null",
        ] {
            assert_eq!(
                allowed(&served, request, foreign),
                None,
                "{request:?} {foreign}"
            );
        }
    }
}

#[test]
fn a_server_on_loopback_that_is_open_is_read_by_pages_of_loopback_too() {
    let mut server = Running::start(&["serve", "--listen=127.0.0.1:0", "--allow-missing-keys"]);
    let address = server.address();
    for (origin, named) in [("http://localhost:3000", true), (EVIL.1, false)] {
        let headers = [("Origin", origin)];
        let answer = ask_over(
            &mut Connection::open(address),
            "GET",
            "/stats",
            &headers,
            "",
        );
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, named.then_some(origin));
    }
}

#[test]
fn any_other_server_is_read_by_its_own_pages_alone() {
    let served = start();
    for request in STREAMS.into_iter().chain(OTHERS) {
        for origin in ["http://localhost", "http://127.0.0.1:3000", APP.1, "null"] {
            assert_eq!(
                allowed(&served, request, origin),
                None,
                "{request:?} {origin}"
            );
        }
    }
    let mut connection = served.connect();
    connection.send("what is this\r\n\r\n");
    let answer = connection.answer();
    assert_eq!((answer.status, said(&answer)), (400, [None; 3]));
}

#[test]
fn a_setting_lets_pages_of_any_origin_read_streams_and_nothing_else() {
    let config = Config::new().allow_any_origin_to_subscribe(true);
    let served = Served::start(config.loopback_for([]).engine());
    for origin in [EVIL.1, "null", "chrome-extension://abc"] {
        for request in STREAMS {
            let named = allowed(&served, request, origin);
            assert_eq!(named.as_deref(), Some("*"), "{request:?}");
        }
        for request in OTHERS {
            assert_eq!(
                allowed(&served, request, origin),
                None,
                "{request:?} {origin}"
            );
        }
    }
    let preflight = |method| {
        let headers = [EVIL, ("Access-Control-Request-Method", method)];
        let answer = ask(&served, "OPTIONS", "/channels/a", &headers, "");
        answer
            .header("access-control-allow-origin")
            .map(str::to_owned)
    };
    assert_eq!(preflight("GET").as_deref(), Some("*"));
    assert_eq!(preflight("POST"), None);
    let local = allowed(&served, ("GET", "/stats"), "http://localhost");
    assert_eq!(local.as_deref(), Some("http://localhost"));
}

#[test]
fn caches_store_nothing_but_files_and_no_type_is_guessed() {
    let served = start();
    let cache = |method: &str, path: &str| {
        let answer = ask(&served, method, path, &[], "");
        let sniffing = answer.header("x-content-type-options");
        assert_eq!(sniffing, Some("nosniff"), "{method} {path}");
        let all = answer.all("cache-control");
        assert_eq!(all.len(), 1, "{method} {path}: {all:?}");
        all[0].to_owned()
    };
    for (method, path) in OTHERS {
        let wanted = match path {
            "/pushwheel.js" => "public, max-age=3600",
            _ => "no-store",
        };
        assert_eq!(cache(method, path), wanted, "{method} {path}");
    }
    assert_eq!(cache("GET", "/_page/page.js"), "no-cache");
    assert_eq!(cache("HEAD", "/channels/a"), "no-cache, no-transform");
    // A browser that subscribes to a finished channel receives 204, which caches may store.
    assert_eq!(cache("DELETE", "/channels/a?finish"), "no-store");
    let answer = get(&served, "/channels/a");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let mut connection = served.connect();
    connection.send("what is this\r\n\r\n");
    let answer = connection.answer();
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
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
    // Also without an origin: a cache must not return the response to a page.
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
    let said_to = |origin| {
        let headers = [origin];
        let answer = ask_over(
            &mut Connection::open(address),
            "HEAD",
            "/channels/a",
            &headers,
            "",
        );
        let allowed = answer.header("access-control-allow-origin");
        allowed.unwrap_or("none").to_owned()
    };
    assert_eq!(said_to(EVIL), "none");
    assert_eq!(
        said_to(("Origin", "http://localhost:1")),
        "http://localhost:1"
    );
    let list = "listen = \"127.0.0.1:0\"\nallow_origin = [\"https://app.example\"]\n";
    scratch.write("p.toml", list);
    server.signal("HUP");
    eventually("the list holds", || said_to(APP) == "https://app.example");
    assert_eq!(said_to(EVIL), "none");
    let any = "listen = \"127.0.0.1:0\"\nallow_origin = [\"*\", \"https://app.example\"]\n";
    scratch.write("p.toml", any);
    server.signal("HUP");
    eventually("pages of any origin subscribe", || said_to(EVIL) == "*");
    assert_eq!(said_to(APP), "https://app.example");
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
