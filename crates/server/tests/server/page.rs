//! The page at `/`, as far as it can be tested without a browser.

use pushwheel_server::{Config, Key};
use serde_json::{Value, json};

use super::{ask, get, json as body, publish, refusal, refused, start, text};
use crate::TEXT;
use crate::common::Served;
use crate::common::client::Answer;

/// The `Accept` of Chromium when it opens an address.
const BROWSER: (&str, &str) = (
    "Accept",
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
);

/// Returns the files that a text loads: `_page/NAME` in markup, `./NAME` in scripts.
fn files_in(text: &str) -> Vec<String> {
    let of = |prefix: &str, end: char| -> Vec<String> {
        let parts = text.split(prefix).skip(1);
        parts
            .map(|part| part.split(end).next().unwrap().to_owned())
            .collect()
    };
    [of("\"_page/", '"'), of("from './", '\'')].concat()
}

#[track_caller]
fn assert_is_guarded(answer: &Answer) {
    let policy = answer.header("content-security-policy").unwrap();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
    ] {
        let mut parts = policy.split("; ");
        assert!(parts.any(|found| found == part), "{part}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
}

#[test]
fn a_browser_gets_the_page_and_a_terminal_the_hint() {
    let served = start();
    let page = ask(&served, "GET", "/", &[BROWSER], "");
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(page.header("vary"), Some("Accept"));
    assert!(page.text().starts_with("<!doctype html>"));
    assert_is_guarded(&page);
    let head = ask(&served, "HEAD", "/", &[BROWSER], "");
    assert_eq!(head.header("content-length"), page.header("content-length"));

    for headers in [&[][..], &[("Accept", "*/*")], &[("Accept", "text/plain")]] {
        let hint = ask(&served, "GET", "/", headers, "");
        assert_eq!(
            hint.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(hint.header("vary"), Some("Accept"));
        assert!(hint.text().contains("GET    /channels/{channel}"));
    }
}

#[test]
fn every_file_that_the_page_asks_for_is_served_with_its_type() {
    let served = start();
    let page = ask(&served, "GET", "/", &[BROWSER], "");
    let mut wanted = files_in(page.text());
    let mut seen = Vec::new();
    while let Some(name) = wanted.pop() {
        if seen.contains(&name) {
            continue;
        }
        let file = get(&served, &format!("/_page/{name}"));
        assert_eq!(file.status, 200, "{name}");
        let media_type = match name.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!(file.header("content-type"), Some(media_type), "{name}");
        assert_is_guarded(&file);
        wanted.extend(files_in(file.text()));
        seen.push(name);
    }
    assert_eq!(seen.len(), 15, "{seen:?}");
    for path in ["/_page/nope.js", "/_page/page.html", "/_page/..%2Fpage.rs"] {
        assert_eq!(refusal(&get(&served, path)), refused(404, "not_found"));
    }
}

#[test]
fn the_page_needs_no_key_and_holds_nothing_of_the_server() {
    let key = Key::new("admin-s3cret-of-tests").unwrap();
    let served = Served::start(Config::new().admin_key(key).engine());
    let mut stream = served.subscribe("/channels/only-here");
    stream.wait_for_id();
    let open = start();
    for path in ["/", "/_page/page.js"] {
        let guarded = ask(&served, "GET", path, &[BROWSER], "");
        assert_eq!(guarded.status, 200, "{path}");
        let same = ask(&open, "GET", path, &[BROWSER], "");
        assert_eq!(guarded.body, same.body, "{path}");
    }
    assert_eq!(get(&served, "/stats").status, 401);
}

#[test]
fn the_page_can_ask_for_the_rights_of_a_key() {
    let key = |text| Key::new(text).unwrap();
    let (publish, admin) = (key("publish-s3cret-of-tests"), key("admin-s3cret-of-tests"));
    let both = Config::new().publish_key(publish.clone()).admin_key(admin);
    let both = Served::start(both.engine());
    let one = Served::start(Config::new().publish_key(publish).engine());
    let none = start();
    let rights = |manage: bool, publish: bool, has_admin_key: bool| json!({"manage": manage, "publish": publish, "has_admin_key": has_admin_key});
    for (served, key, wanted) in [
        (&none, None, rights(true, true, false)),
        (&both, None, rights(false, false, true)),
        (&both, Some("wrong"), rights(false, false, true)),
        (
            &both,
            Some("publish-s3cret-of-tests"),
            rights(false, true, true),
        ),
        (
            &both,
            Some("admin-s3cret-of-tests"),
            rights(true, true, true),
        ),
        (
            &one,
            Some("publish-s3cret-of-tests"),
            rights(false, true, false),
        ),
    ] {
        let authorization = key.map(|key| format!("Bearer {key}"));
        let headers: Vec<_> = authorization
            .iter()
            .map(|value| ("Authorization", value.as_str()))
            .collect();
        let answer = ask(served, "GET", "/_page/rights", &headers, "");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(body(&answer), wanted, "{key:?}");
    }
}

/// Returns the names in the order of the response.
fn names(stats: &Value) -> Vec<&str> {
    let channels = stats["channel_stats"].as_array().unwrap();
    let names = channels.iter();
    names.map(|channel| text(&channel["name"])).collect()
}

#[test]
fn stats_have_the_selected_channels_and_the_totals_of_all() {
    let served = start();
    for (name, events) in [("a", 1), ("b", 3), ("Big", 2), ("c", 3)] {
        for _ in 0..events {
            publish(&served, &format!("/channels/{name}"), TEXT, "12345");
        }
    }
    let mut stream = served.subscribe("/channels/a");
    stream.wait_for_id();
    let whole = body(&get(&served, "/stats"));
    for (query, wanted, found) in [
        ("", &["Big", "a", "b", "c"][..], 4),
        ("?top=2", &["Big", "a"], 4),
        ("?top=0", &[], 4),
        ("?top=2&by=published", &["b", "c"], 4),
        ("?top=3&by=bytes", &["b", "c", "Big"], 4),
        ("?by=clients&top=1", &["a"], 4),
        ("?by=delivered", &["Big", "a", "b", "c"], 4),
        ("?by=gaps&top=1", &["Big"], 4),
        ("?search=B", &["Big", "b"], 2),
        ("?search=absent", &[], 0),
        ("?top=1&channel=c", &["Big", "c"], 4),
        ("?top=1&channel=Big", &["Big"], 4),
        ("?top=0&channel=none", &[], 4),
    ] {
        let stats = body(&get(&served, &format!("/stats{query}")));
        assert_eq!(names(&stats), wanted, "{query}");
        assert_eq!(stats["found"], found, "{query}");
        for (total, value) in [
            ("channels", 4),
            ("clients", 1),
            ("published", 9),
            ("delivered", 0),
        ] {
            assert_eq!(stats[total], value, "{query}: {total}");
        }
        assert_eq!(stats["history"], whole["history"], "{query}");
    }
    assert_eq!(whole["history"]["events"], 9);
    for bad in ["?top=", "?top=-1", "?top=many", "?by=size", "?by="] {
        let answer = get(&served, &format!("/stats{bad}"));
        assert_eq!(refusal(&answer), refused(400, "parameter_invalid"), "{bad}");
    }
}
