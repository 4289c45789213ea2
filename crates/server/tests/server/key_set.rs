//! `--token-jwks-url`: keys that the server fetches.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};

use super::commands::{Running, pushwheel, run};
use super::tls;
use crate::common::client::Answer;
use crate::common::{Connection, eventually};

const KEYS: &str = include_str!("keys/jwks.json");
const ADMIN: &str = "admin-s3cret-of-tests";

/// An identity provider: serves a key set over HTTP, and counts the requests.
struct Provider {
    url: String,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    status: u16,
    body: String,
    requests: usize,
}

impl Provider {
    fn start(status: u16, body: &str) -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/jwks?key=s3cret", listener.local_addr().unwrap());
        let shared = Shared {
            status,
            body: body.to_owned(),
            requests: 0,
        };
        let shared = Arc::new(Mutex::new(shared));
        let of_thread = shared.clone();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let mut lines = BufReader::new(&socket).lines();
                while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                // A client may not read all of a large response.
                let _ = socket.write_all(response(&of_thread).as_bytes());
            }
        });
        Provider { url, shared }
    }

    fn set(&self, status: u16, body: &str) {
        let mut shared = self.shared.lock().unwrap();
        (shared.status, shared.body) = (status, body.to_owned());
    }

    fn requests(&self) -> usize {
        self.shared.lock().unwrap().requests
    }

    /// Sends SIGHUP, and waits until the server has fetched the set.
    fn refetch(&self, server: &Running, address: SocketAddr) {
        let before = fetches(address);
        server.signal("HUP");
        eventually("the set is fetched", || fetches(address) > before);
    }
}

fn response(shared: &Mutex<Shared>) -> String {
    let mut shared = shared.lock().unwrap();
    shared.requests += 1;
    let (status, body) = (shared.status, &shared.body);
    let location = "Location: http://127.0.0.1:1/\r\n";
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\n{location}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// The set with only this key.
fn only(kid: &str) -> String {
    let set: Value = serde_json::from_str(KEYS).unwrap();
    let keys = set["keys"].as_array().unwrap().iter();
    let keys: Vec<_> = keys.filter(|key| key["kid"] == kid).collect();
    assert_eq!(keys.len(), 1);
    json!({ "keys": keys }).to_string()
}

/// A token of the key `ec` or `ed`.
fn token(kid: &str) -> String {
    let (algorithm, key) = match kid {
        "ec" => (
            Algorithm::ES256,
            EncodingKey::from_ec_pem(include_bytes!("keys/ec.pem")),
        ),
        _ => (
            Algorithm::EdDSA,
            EncodingKey::from_ed_pem(include_bytes!("keys/ed.pem")),
        ),
    };
    let mut header = Header::new(algorithm);
    header.kid = Some(kid.to_owned());
    let exp = get_current_timestamp() + 600;
    let claims = json!({"exp": exp, "iss": "us", "pushwheel": {"subscribe": ["a"]}});
    encode(&header, &claims, &key.unwrap()).unwrap()
}

fn serve(provider: &Provider, more: &[&str]) -> (Running, SocketAddr) {
    let url = format!("--token-jwks-url={}", provider.url);
    let admin = format!("--admin-key={ADMIN}");
    let arguments = ["serve", "--listen=127.0.0.1:0", &url, &admin];
    let mut server = Running::start(&[&arguments, more].concat());
    let address = server.address();
    (server, address)
}

fn ask(address: SocketAddr, method: &str, path: &str, credential: &str) -> Answer {
    let mut connection = Connection::open(address);
    connection.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {credential}\r\n\r\n"
    ));
    match method {
        "HEAD" => connection.head(),
        _ => connection.answer(),
    }
}

/// The status of a subscription with a token of this key.
fn status(address: SocketAddr, kid: &str) -> u16 {
    ask(address, "HEAD", "/channels/a", &token(kid)).status
}

/// Returns a figure of `/metrics`; 0 if there is none.
fn figure(address: SocketAddr, name: &str) -> f64 {
    let answer = ask(address, "GET", "/metrics", ADMIN);
    let value = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
    answer.text().lines().find_map(value).unwrap_or(0.0)
}

const DONE: &str = "pushwheel_token_key_fetches_total{result=\"ok\"}";
const FAILED: &str = "pushwheel_token_key_fetches_total{result=\"failed\"}";

fn fetches(address: SocketAddr) -> f64 {
    figure(address, DONE) + figure(address, FAILED)
}

#[test]
fn keys_are_fetched_at_the_start_and_replaced_by_a_new_set() {
    let provider = Provider::start(200, &only("ec"));
    let (server, address) = serve(&provider, &[]);
    assert_eq!((status(address, "ec"), status(address, "ed")), (200, 401));
    provider.set(200, &only("ed"));
    provider.refetch(&server, address);
    assert_eq!((status(address, "ec"), status(address, "ed")), (401, 200));
    // The same set again changes nothing, and is not logged.
    provider.refetch(&server, address);
    assert_eq!(status(address, "ed"), 200);
    assert_eq!(figure(address, DONE), 3.0);
    let fetched_at_s = figure(address, "pushwheel_token_keys_fetched_timestamp_seconds");
    assert!((get_current_timestamp() as f64 - fetched_at_s).abs() < 60.0);
    let log = server.end();
    let line = "fetched 1 keys for tokens from http://127.0.0.1:";
    assert_eq!(log.matches(line).count(), 2, "{log}");
    assert!(!log.contains("s3cret"), "{log}");
}

#[test]
fn the_last_good_keys_stay_while_fetches_fail() {
    let provider = Provider::start(200, &only("ec"));
    let (server, address) = serve(&provider, &[]);
    let large = format!("{{\"keys\": [], \"x\": \"{}\"}}", "x".repeat(600 << 10));
    for (status_of_set, body) in [
        (500, KEYS),
        (302, KEYS),
        (404, ""),
        (200, "<html>"),
        (200, "{\"keys\": []}"),
        (200, &*only("hmac")),
        (200, &*large),
    ] {
        provider.set(status_of_set, body);
        provider.refetch(&server, address);
        assert_eq!(status(address, "ec"), 200, "{status_of_set}");
    }
    assert_eq!((figure(address, DONE), figure(address, FAILED)), (1.0, 7.0));
    provider.set(200, &only("ec"));
    provider.refetch(&server, address);
    let log = server.end();
    assert_eq!(log.matches("The last keys stay valid").count(), 1, "{log}");
    assert!(log.contains("the keys have not changed"), "{log}");
}

#[test]
fn without_keys_yet_channels_are_closed_and_tokens_are_answered_503() {
    let provider = Provider::start(503, "");
    let (server, address) = serve(&provider, &[]);
    let answer = ask(address, "GET", "/channels/a", &token("ec"));
    assert_eq!(
        (answer.status, &*answer.error_code()),
        (503, "token_keys_missing")
    );
    assert!(answer.header("retry-after").is_some());
    let mut connection = Connection::open(address);
    assert_eq!(connection.get("/channels/a").error_code(), "token_missing");
    // The admin key does not depend on it.
    assert_eq!(ask(address, "GET", "/stats", ADMIN).status, 200);
    provider.set(200, KEYS);
    provider.refetch(&server, address);
    assert_eq!((status(address, "ec"), status(address, "ed")), (200, 200));
    server.end();
}

#[test]
fn a_reload_without_the_url_does_not_open_the_channels() {
    let provider = Provider::start(200, KEYS);
    let file = format!("pushwheel-key-set-{}.toml", std::process::id());
    let file = std::env::temp_dir().join(file);
    let with_url = format!(
        "token_jwks_url = \"{}\"\nadmin_key = \"{ADMIN}\"\n",
        provider.url
    );
    std::fs::write(&file, &with_url).unwrap();
    let config = format!("--config={}", file.display());
    let mut server = Running::start(&["serve", "--listen=127.0.0.1:0", &config]);
    let address = server.address();
    assert_eq!(status(address, "ec"), 200);
    std::fs::write(&file, format!("admin_key = \"{ADMIN}\"\n")).unwrap();
    provider.refetch(&server, address);
    assert_eq!(status(address, "ec"), 200);
    let mut connection = Connection::open(address);
    assert_eq!(connection.get("/channels/a").error_code(), "token_missing");
    std::fs::remove_file(&file).unwrap();
    let log = server.end();
    let line = "token_jwks_url: changed, but takes effect only after a restart";
    assert!(log.contains(line), "{log}");
}

#[test]
fn keys_are_fetched_at_the_interval() {
    let provider = Provider::start(200, &only("ec"));
    let (server, address) = serve(&provider, &["--token-jwks-interval=1"]);
    provider.set(200, &only("ed"));
    eventually("the new key is valid", || status(address, "ed") == 200);
    assert!(provider.requests() >= 2);
    server.end();
}

#[test]
fn keys_of_a_file_are_valid_beside_those_of_the_url() {
    let provider = Provider::start(200, &only("ec"));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/server/keys/ed.pub.pem");
    let file = format!("--token-public-key-file={file}");
    let (server, address) = serve(&provider, &[&file]);
    assert_eq!((status(address, "ec"), status(address, "ed")), (200, 200));
    server.signal("HUP");
    provider.set(200, &only("hmac"));
    provider.refetch(&server, address);
    assert_eq!((status(address, "ec"), status(address, "ed")), (200, 200));
    server.end();
}

#[test]
fn the_keys_of_a_url_can_be_limited_to_an_issuer() {
    for (issuer, wanted) in [("us", 200), ("them", 401)] {
        let provider = Provider::start(200, KEYS);
        // The first `=` separates the two, so this URL has no query.
        let url = provider.url.split('?').next().unwrap().to_owned();
        let provider = Provider { url, ..provider };
        let bound = format!("--token-key-issuer={}={issuer}", provider.url);
        let (server, address) = serve(&provider, &[&bound]);
        assert_eq!(status(address, "ec"), wanted, "{issuer}");
        server.end();
    }
}

#[test]
fn a_key_set_is_fetched_over_tls() {
    let url = tls::serve_text("localhost", KEYS);
    let authority = tls::file("ca");
    let check = |more: &[&str]| {
        let (ec, url) = (token("ec"), format!("--token-jwks-url={url}"));
        let output = run(&[&["token", "check", &ec, &url], more].concat());
        (
            output.status.success(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let cacert = format!("--token-jwks-cacert={authority}");
    assert_eq!(check(&[&cacert]), (true, String::new()));
    let (is_accepted, reported) = check(&[]);
    let fix = "not trusted). Pass the certificate of its CA with --token-jwks-cacert FILE";
    assert!(!is_accepted && reported.contains(fix), "{reported}");
}

#[test]
fn a_url_that_others_could_answer_is_rejected() {
    for (url, part) in [
        ("http://idp.example/jwks", "needs https"),
        ("keys.json", "not a URL"),
    ] {
        for command in [
            &["serve", "--listen=127.0.0.1:0"][..],
            &["config", "--check"],
        ] {
            let mut command = pushwheel(command);
            let command = command.env("PUSHWHEEL_TOKEN_JWKS_URL", url);
            let output = command.output().unwrap();
            let reported = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{reported}");
            assert!(reported.contains(part), "{reported}");
        }
    }
}
