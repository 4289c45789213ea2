//! The client for browsers, as the server sends it.

use miniz_oxide::inflate::decompress_to_vec;
use pushwheel_server::{Config, Key};

use super::{ask, get, start};
use crate::common::Served;
use crate::common::client::Answer;

const BOTH: [(&str, &str); 2] = [
    ("/pushwheel.js", "text/javascript; charset=utf-8"),
    ("/pushwheel.d.ts", "application/typescript; charset=utf-8"),
];

/// Maximum bytes of the compressed client: 3.5 KB, of 1,000 bytes each.
const SCRIPT_BYTES_MAX: usize = 3500;

const GZIP: (&str, &str) = ("Accept-Encoding", "br, gzip;q=0.8");

#[track_caller]
fn inflated(answer: &Answer) -> String {
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    let (body, trailer) = answer.body.split_at(answer.body.len() - 8);
    let bytes = decompress_to_vec(&body[10..]).expect("deflated");
    let (checksum, length) = trailer.split_at(4);
    assert_eq!(checksum, crc32fast::hash(&bytes).to_le_bytes());
    assert_eq!(length, u32::try_from(bytes.len()).unwrap().to_le_bytes());
    String::from_utf8(bytes).expect("text")
}

#[test]
fn the_client_and_its_types_are_served_typed_to_pages_of_allowed_origins() {
    let origin = "https://a.example".parse().unwrap();
    let served = Served::start(Config::new().allow_origins([origin]).engine());
    for (path, content_type) in BOTH {
        let answer = ask(&served, "GET", path, &[("Origin", "https://a.example")], "");
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some(content_type));
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, Some("https://a.example"));
        assert_eq!(answer.header("content-encoding"), None);
        assert!(
            answer
                .text()
                .contains("export class PushWheel extends EventTarget {")
        );
        assert_eq!(ask(&served, "HEAD", path, &[], "").status, 200);
        assert_eq!(ask(&served, "POST", path, &[], "").status, 405);
    }
}

#[test]
fn the_client_is_small_when_compressed_and_its_source_but_for_comments() {
    let served = start();
    let script = get(&served, "/pushwheel.js");
    let packed = ask(&served, "GET", "/pushwheel.js", &[GZIP], "");
    assert_eq!(inflated(&packed), script.text());
    println!(
        "/pushwheel.js: {} bytes, {} compressed",
        script.body.len(),
        packed.body.len()
    );
    assert!(
        packed.body.len() < SCRIPT_BYTES_MAX,
        "{}",
        packed.body.len()
    );
    let is_comment = |line: &str| line.starts_with("//") || line.starts_with("/**");
    let source = include_str!("../../src/assets/pushwheel.js").lines();
    let code = source.filter(|line| !is_comment(line.trim_start()));
    assert!(code.eq(script.text().lines()));
}

#[test]
fn a_browser_with_the_script_does_not_load_it_again() {
    let served = start();
    for (path, _) in BOTH {
        let answer = ask(&served, "GET", path, &[GZIP], "");
        assert_eq!(answer.header("cache-control"), Some("public, max-age=3600"));
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
        let etag = answer.header("etag").expect("an ETag").to_owned();
        for known in [&*etag, &format!("\"other\", {etag}")] {
            let again = ask(&served, "GET", path, &[("If-None-Match", known)], "");
            assert_eq!((again.status, again.body.len()), (304, 0), "{known}");
            assert_eq!(again.header("etag"), Some(&*etag));
        }
        let other = ask(&served, "GET", path, &[("If-None-Match", "\"other\"")], "");
        assert_eq!(other.status, 200);
    }
}

#[test]
fn the_client_needs_no_key() {
    let key = Key::new("s3cret-of-the-tests").unwrap();
    let served = Served::start(Config::new().admin_key(key).engine());
    assert_eq!(get(&served, "/stats").status, 401);
    for (path, _) in BOTH {
        assert_eq!(get(&served, path).status, 200, "{path}");
    }
}
