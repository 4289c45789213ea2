//! Tokens, cookies, tickets and public channels.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use pushwheel_server::{Config, Key, Pattern, TokenKeys};
use serde_json::{Value, json};

use super::{ask, get, json as json_of, refusal, refused, text};
use crate::common::client::Answer;
use crate::common::{Served, Subscriber, summaries};

pub(super) const SECRET: &str = "a secret of a test, of 32 bytes!!";
const OTHER_SECRET: &str = "another secret, that is as long..";
const KEY: (&str, &str) = ("Authorization", "Bearer publish-s3cret-of-tests");
const ADMIN: (&str, &str) = ("Authorization", "Bearer admin-s3cret-of-tests");

/// A directory that is removed when this is dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(name: &str) -> Scratch {
        let directory = format!("pushwheel-access-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(directory);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        // The server warns of a secret that other users can read.
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Ten minutes from now.
fn soon() -> u64 {
    get_current_timestamp() + 600
}

/// A token of HS256 with these fields in its claim `pushwheel`.
pub(super) fn token(own: Value) -> String {
    token_by(SECRET, own)
}

pub(super) fn token_by(secret: &str, own: Value) -> String {
    let claims = json!({"exp": soon(), "pushwheel": own});
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::default(), &claims, &key).unwrap()
}

pub(super) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A server with keys and a secret for tokens, before it is started.
fn config() -> Config {
    Config::new()
        .publish_key(Key::new("publish-s3cret-of-tests").unwrap())
        .admin_key(Key::new("admin-s3cret-of-tests").unwrap())
        .token_keys(TokenKeys::secret(SECRET.as_bytes()).unwrap())
}

fn start() -> Served {
    Served::start(config().engine())
}

#[track_caller]
fn ask_as(served: &Served, token: &str, method: &str, path: &str) -> Answer {
    let header = bearer(token);
    ask(served, method, path, &[("Authorization", &header)], "x")
}

/// The status of a GET that may open a stream, whose body never ends.
#[track_caller]
pub(super) fn open(served: &Served, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut connection = served.connect();
    let headers = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    let headers: String = headers.collect();
    connection.send(format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n{headers}\r\n"
    ));
    let mut answer = connection.head();
    match answer.status {
        200 => (200, String::new()),
        _ => {
            let length = answer.header("content-length").unwrap().parse().unwrap();
            answer.body = connection.bytes(length);
            refusal(&answer)
        }
    }
}

fn fine() -> (u16, String) {
    (200, String::new())
}

// ---- tokens ----

#[test]
fn without_a_token_a_channel_is_closed_and_nothing_is_made() {
    let served = start();
    for path in [
        "/channels/a",
        "/channels/a?last=10",
        "/channels/a?last_event_id=earliest",
        "/events?channel=a&channel=b",
    ] {
        assert_eq!(
            open(&served, path, &[]),
            refused(401, "token_missing"),
            "{path}"
        );
        let answer = ask(&served, "HEAD", path, &[], "");
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    for path in ["/channels/a", "/channels"] {
        let answer = ask(&served, "POST", path, &[], "x");
        assert_eq!(refusal(&answer), refused(401, "token_missing"), "{path}");
    }
    let wrong = token_by(OTHER_SECRET, json!({"subscribe": ["*"]}));
    let answer = ask_as(&served, &wrong, "GET", "/channels/a");
    assert_eq!(refusal(&answer), refused(401, "token_invalid"));
    let challenge = answer.header("www-authenticate");
    assert_eq!(challenge, Some("Bearer error=\"invalid_token\""));
    assert_eq!(served.channels().names().len(), 0);
    // Other requests still need no token.
    for path in ["/", "/health"] {
        assert_eq!(get(&served, path).status, 200, "{path}");
    }
    assert_eq!(ask(&served, "OPTIONS", "/channels/a", &[], "").status, 204);
}

#[test]
fn a_token_opens_what_it_lists() {
    let served = start();
    let token = token(json!({"subscribe": ["news", "user.7.*"], "publish": ["chat.*"]}));
    let header = bearer(&token);
    let with = [("Authorization", &*header)];
    let closed = refused(403, "channel_not_allowed");
    for (path, wanted) in [
        ("/channels/news", fine()),
        ("/channels/user.7.inbox", fine()),
        ("/channels/%6Eews", fine()),
        ("/channels/user.8.inbox", closed.clone()),
        ("/channels/news2", closed.clone()),
        ("/channels/user.7", closed.clone()),
        ("/channels/chat.1", closed.clone()),
        ("/channels/user.8.inbox?last=5", closed.clone()),
        ("/events?channel=news&channel=user.7.a", fine()),
        ("/events?channel=news&channel=user.8.a", closed.clone()),
        ("/events", refused(400, "channel_missing")),
        ("/channels/a%2Fb", refused(400, "channel_name_invalid")),
    ] {
        let (status, code) = open(&served, path, &with);
        // The code for an invalid name comes after the right to the channel.
        let wanted = if wanted.0 == 400 {
            (400, code.clone())
        } else {
            wanted
        };
        assert_eq!((status, code), wanted, "{path}");
    }
    for (method, path, wanted) in [
        ("POST", "/channels/chat.1", 200),
        ("POST", "/channels/news", 403),
        ("POST", "/channels", 403),
        ("HEAD", "/channels/news", 200),
        ("HEAD", "/channels/user.8", 403),
        ("GET", "/stats", 403),
        ("GET", "/channels", 403),
        ("GET", "/channels/news/clients", 403),
        ("DELETE", "/channels/news", 403),
    ] {
        let answer = ask_as(&served, &token, method, path);
        assert_eq!(answer.status, wanted, "{method} {path}");
    }
    let all = super::access::token(json!({"publish": ["*"]}));
    assert_eq!(ask_as(&served, &all, "POST", "/channels").status, 200);
    for key in [KEY, ADMIN] {
        assert_eq!(
            ask(&served, "POST", "/channels/any", &[key], "x").status,
            200
        );
        assert_eq!(open(&served, "/channels/any", &[key]), fine());
    }
    let wrong = ("Authorization", "Bearer publish-s3creT-of-tests");
    let answer = ask(&served, "POST", "/channels/any", &[wrong], "x");
    assert_eq!(refusal(&answer), refused(403, "key_wrong"));
    let long = super::access::token(json!({"publish": vec!["a"; 3000]}));
    let answer = ask_as(&served, &long, "POST", "/channels/a");
    assert_eq!(refusal(&answer), refused(401, "token_invalid"));
    assert!(answer.text().contains("longer than 8 KiB"));
}

#[test]
fn what_is_neither_a_key_nor_a_token_is_taken_for_what_is_likelier() {
    let served = start();
    let none = "eyJhbGciOiJub25lIn0.eyJleHAiOjl9.";
    for bad in [
        "abc",
        "publish-s3creT-of-tests",
        none,
        "eyJhbGciOiJIUzI1",
        "a.b.c",
    ] {
        // A page, which has no key and needs another token.
        let answer = ask_as(&served, bad, "GET", "/channels/a");
        assert_eq!(refusal(&answer), refused(401, "token_invalid"), "{bad}");
        // A program of the operator, unless the text looks like a token.
        let wanted = match bad {
            "abc" | "publish-s3creT-of-tests" => refused(403, "key_wrong"),
            _ => refused(401, "token_invalid"),
        };
        for path in ["/channels/a", "/tickets"] {
            let answer = ask_as(&served, bad, "POST", path);
            assert_eq!(refusal(&answer), wanted, "{path} {bad}");
        }
        let answer = ask_as(&served, bad, "GET", "/stats");
        assert_eq!(refusal(&answer), refused(403, "key_wrong"), "{bad}");
    }
    let answer = ask_as(&served, none, "GET", "/channels/a");
    assert!(answer.text().contains("HEADER.CLAIMS.SIGNATURE"));
    // Without keys no text is a key; without tokens every text is.
    let secret = TokenKeys::secret(SECRET.as_bytes()).unwrap();
    let served = Served::start(Config::new().token_keys(secret).engine());
    let answer = ask_as(&served, "abc", "POST", "/channels/a");
    assert_eq!(refusal(&answer), refused(401, "token_invalid"));
    let key = Key::new("publish-s3cret-of-tests").unwrap();
    let served = Served::start(Config::new().publish_key(key).engine());
    let answer = ask_as(&served, none, "POST", "/channels/a");
    assert_eq!(refusal(&answer), refused(403, "key_wrong"));
    assert!(answer.text().contains("another key or a token"));
}

#[test]
fn replay_needs_the_right_to_subscribe() {
    let served = start();
    ask(&served, "POST", "/channels/news", &[KEY], "kept");
    let mine = bearer(&token(json!({"subscribe": ["news"]})));
    let mut stream = Subscriber::open(
        served.address(),
        "/channels/news?last=1",
        &[("Authorization", &mine)],
    );
    assert_eq!(stream.next().data, "kept");
    let id = stream.last_event_id().to_owned();
    let others = bearer(&token(json!({"subscribe": ["other"]})));
    let headers = [("Authorization", &*others), ("Last-Event-ID", &id)];
    let closed = refused(403, "channel_not_allowed");
    assert_eq!(open(&served, "/channels/news", &headers), closed);
}

#[test]
fn the_error_of_a_token_names_the_claim() {
    let served = start();
    let misspelled = token(json!({"subscibe": ["news"]}));
    let mine = token(json!({"subscribe": ["news"], "publish": ["chat"]}));
    for (token, method, path, reported) in [
        (
            &misspelled,
            "GET",
            "/channels/news",
            "its claim `pushwheel` has an unknown field `subscibe` (known are subscribe, \
             publish, finish, client, metadata). Correct the program that makes the tokens",
        ),
        (
            &mine,
            "GET",
            "/channels/chat",
            "the token does not list the channel `chat` in its `pushwheel.subscribe`",
        ),
        (
            &mine,
            "POST",
            "/channels/news",
            "the token does not list the channel `news` in its `pushwheel.publish`",
        ),
        (
            &mine,
            "POST",
            "/channels",
            "a token that lists `*` in its `pushwheel.publish`",
        ),
    ] {
        let answer = ask_as(&served, token, method, path);
        assert!(answer.text().contains(reported), "{}", answer.text());
    }
    let ticket = ticket(&served, KEY, &json!({"subscribe": ["news"]}));
    let answer = get(&served, &format!("/channels/chat?ticket={ticket}"));
    let reported = "the ticket does not list the channel `chat` in its `subscribe`";
    assert!(answer.text().contains(reported), "{}", answer.text());
    // The error for a forged token does not quote it.
    let forged = token_by(OTHER_SECRET, json!({"subscibe": ["news"]}));
    let answer = ask_as(&served, &forged, "GET", "/channels/news");
    assert_eq!(refusal(&answer), refused(401, "token_invalid"));
    assert!(!answer.text().contains("subscibe"), "{}", answer.text());
}

#[test]
fn each_algorithm_is_its_keys_own() {
    let rsa = include_bytes!("keys/rsa.pem");
    let ec = include_bytes!("keys/ec.pem");
    let ed = include_bytes!("keys/ed.pem");
    let signers = [
        (
            Algorithm::HS256,
            EncodingKey::from_secret(SECRET.as_bytes()),
        ),
        (Algorithm::RS256, EncodingKey::from_rsa_pem(rsa).unwrap()),
        (Algorithm::ES256, EncodingKey::from_ec_pem(ec).unwrap()),
        (Algorithm::EdDSA, EncodingKey::from_ed_pem(ed).unwrap()),
    ];
    let pem = |pem| TokenKeys::public_pem(pem).unwrap();
    let verifiers = [
        (
            Algorithm::HS256,
            TokenKeys::secret(SECRET.as_bytes()).unwrap(),
        ),
        (Algorithm::RS256, pem(include_str!("keys/rsa.pub.pem"))),
        (Algorithm::ES256, pem(include_str!("keys/ec.pub.pem"))),
        (Algorithm::EdDSA, pem(include_str!("keys/ed.pub.pem"))),
    ];
    let claims = json!({"exp": soon(), "pushwheel": {"subscribe": ["news"]}});
    let sign = |algorithm, kid: Option<&str>, key: &EncodingKey| {
        let mut header = Header::new(algorithm);
        header.kid = kid.map(str::to_owned);
        encode(&header, &claims, key).unwrap()
    };
    for (algorithm, keys) in verifiers {
        let served = Served::start(Config::new().token_keys(keys).engine());
        for (other, key) in &signers {
            let header = bearer(&sign(*other, None, key));
            let (status, code) = open(&served, "/channels/news", &[("Authorization", &header)]);
            let wanted = if algorithm == *other {
                fine()
            } else {
                refused(401, "token_invalid")
            };
            assert_eq!(
                (status, code),
                wanted,
                "{other:?} where {algorithm:?} is wanted"
            );
        }
    }
    // A key set has all of them, by name.
    let set = TokenKeys::jwks(include_str!("keys/jwks.json")).unwrap();
    let served = Served::start(Config::new().token_keys(set).engine());
    for ((algorithm, key), own) in signers.iter().zip(["hmac", "rsa", "ec", "ed"]) {
        for (kid, wanted) in [
            (Some(own), fine()),
            (None, fine()),
            (Some("unknown"), refused(401, "token_invalid")),
            (Some("for encryption"), refused(401, "token_invalid")),
        ] {
            let header = bearer(&sign(*algorithm, kid, key));
            let found = open(&served, "/channels/news", &[("Authorization", &header)]);
            assert_eq!(found, wanted, "{algorithm:?} {kid:?}");
        }
    }
}

#[test]
fn times_audience_and_issuer_are_checked() {
    let config = config()
        .token_audiences(["push".to_owned()])
        .token_issuers(["app".to_owned()]);
    let served = Served::start(config.engine());
    let now = get_current_timestamp();
    for (change, wanted) in [
        (json!({}), fine()),
        (json!({"exp": now - 60}), refused(401, "token_expired")),
        (json!({"exp": null}), refused(401, "token_invalid")),
        (
            json!({"nbf": now + 60}),
            refused(401, "token_not_yet_valid"),
        ),
        (json!({"aud": "other"}), refused(401, "token_audience")),
        (json!({"aud": ["other", "push"]}), fine()),
        (json!({"iss": "other"}), refused(401, "token_issuer")),
    ] {
        let mut claims = json!({"exp": now + 60, "aud": "push", "iss": "app",
            "pushwheel": {"subscribe": ["news"]}});
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let header = bearer(&encode(&Header::default(), &claims, &key).unwrap());
        let found = open(&served, "/channels/news", &[("Authorization", &header)]);
        assert_eq!(found, wanted, "{change}");
    }
}

#[test]
fn a_client_has_the_id_and_metadata_of_its_token() {
    let served = start();
    let token = token(json!({
        "subscribe": ["a"], "client": "seven", "metadata": {"role": "admin", "n": 7},
    }));
    let header = bearer(&token);
    let path = "/channels/a?client=other&meta.role=guest&meta.more=x";
    let mut stream = Subscriber::open(served.address(), path, &[("Authorization", &header)]);
    let clients = json_of(&ask(&served, "GET", "/channels/a/clients", &[ADMIN], ""));
    assert_eq!(clients[0]["id"], "seven");
    assert_eq!(clients[0]["metadata"], json!({"role": "admin", "n": 7}));
    for (path, count) in [
        ("/channels/a?where.role=guest", 0),
        ("/channels/a?where.more=x", 0),
        ("/channels/a?client=other", 0),
        ("/channels/a?where.role=admin", 1),
        ("/channels/a?client=seven", 1),
    ] {
        let answer = json_of(&ask(&served, "POST", path, &[KEY], path));
        assert_eq!(answer["clients"], count, "{path}");
    }
    let wanted = ["/channels/a?where.role=admin", "/channels/a?client=seven"];
    assert_eq!(summaries(&stream.take(2)), wanted);
    // A credential that does not count cannot be wrong.
    let path = "/channels/a?client=&meta.role=guest";
    assert_eq!(open(&served, path, &[("Authorization", &header)]), fine());
    // With a key the client id and metadata of the query count.
    let path = "/channels/b?client=other&meta.role=guest";
    let _stream = Subscriber::open(served.address(), path, &[KEY]);
    let clients = json_of(&ask(&served, "GET", "/channels/b/clients", &[ADMIN], ""));
    assert_eq!(clients[0]["id"], "other");
}

#[test]
fn header_query_and_cookie_count_in_this_order() {
    let config = config().token_cookie("push").token_parameter("jwt");
    let served = Served::start(config.engine());
    let good = token(json!({"subscribe": ["a"], "publish": ["a"]}));
    let header = bearer(&good);
    let cookie = format!("theme=dark; push={good}");
    let (header, cookie) = (("Authorization", &*header), ("Cookie", &*cookie));
    let bad = ("Authorization", "Bearer a.b.c");
    let bad_cookie = ("Cookie", "push=a.b.c");
    let invalid = refused(401, "token_invalid");
    let missing = refused(401, "token_missing");
    let query = format!("/channels/a?jwt={good}");
    for (path, headers, wanted) in [
        ("/channels/a", &[header][..], fine()),
        ("/channels/a", &[cookie], fine()),
        (&query, &[], fine()),
        ("/channels/a?jwt=a.b.c", &[header, bad_cookie], fine()),
        (&query, &[bad], invalid.clone()),
        (&query, &[bad_cookie], fine()),
        ("/channels/a?jwt=a.b.c", &[cookie], invalid.clone()),
        ("/channels/a", &[bad_cookie], invalid.clone()),
        (
            "/channels/a",
            &[("Authorization", "Basic eA=="), cookie],
            fine(),
        ),
        (&query.replace("jwt=", "token="), &[], missing.clone()),
        ("/channels/a", &[("Cookie", "other=1")], missing),
    ] {
        assert_eq!(open(&served, path, headers), wanted, "{path} {headers:?}");
    }
    // The token's parameter is accepted in a publish, other unknown parameters are not.
    assert_eq!(ask(&served, "POST", &query, &[], "x").status, 200);
    let answer = ask(&served, "POST", &format!("{query}&token=x"), &[], "x");
    assert_eq!(refusal(&answer), refused(400, "parameter_unknown"));
}

#[test]
fn a_cookie_counts_for_pages_that_are_known() {
    let config = config()
        .token_cookie("push")
        .allow_origins(["https://app.example".parse().unwrap()]);
    let served = Served::start(config.engine());
    let all = json!({"subscribe": ["a"], "publish": ["a"]});
    let cookie = format!("push={}", token(all));
    let cookie = ("Cookie", &*cookie);
    let foreign = refused(403, "origin_not_allowed");
    for (origin, may_read, may_write) in [
        (None, true, false),
        (Some(("Origin", "https://app.example")), true, true),
        // The tests send `Host: test`.
        (Some(("Origin", "http://test")), true, true),
        (Some(("Origin", "https://evil.example")), false, false),
        (Some(("Origin", "null")), false, false),
        (Some(("Sec-Fetch-Site", "cross-site")), false, false),
        (Some(("Sec-Fetch-Site", "same-origin")), true, false),
    ] {
        let mut headers = vec![cookie];
        headers.extend(origin);
        let wanted = if may_read { fine() } else { foreign.clone() };
        assert_eq!(open(&served, "/channels/a", &headers), wanted, "{origin:?}");
        for path in ["/channels/a", "/tickets"] {
            let answer = ask(&served, "POST", path, &headers, "");
            match may_write {
                true => assert_eq!(answer.status, 200, "{path} {origin:?}"),
                false => assert_eq!(refusal(&answer), foreign, "{path} {origin:?}"),
            }
        }
    }
    // With the same token in a header, pages of all origins are accepted.
    let header = bearer(cookie.1.strip_prefix("push=").unwrap());
    let headers = [
        ("Authorization", &*header),
        ("Origin", "https://evil.example"),
    ];
    assert_eq!(
        ask(&served, "POST", "/channels/a", &headers, "x").status,
        200
    );
    // A cookie never gives the right to manage.
    let headers = [
        ("Cookie", "push=admin-s3cret-of-tests"),
        ("Origin", "https://app.example"),
    ];
    let answer = ask(&served, "DELETE", "/channels/a", &headers, "");
    assert_eq!(refusal(&answer), refused(401, "key_missing"));
}

#[test]
fn public_channels_need_no_token() {
    let pattern = |text: &str| text.parse::<Pattern>().unwrap();
    let config = config()
        .public_for(pattern("news.secret"), false)
        .public_for(pattern("news.*"), true);
    let served = Served::start(config.engine());
    let missing = refused(401, "token_missing");
    let mine = bearer(&token(json!({"subscribe": ["mine"]})));
    let mine = ("Authorization", &*mine);
    for (path, headers, wanted) in [
        (
            "/channels/news.de?client=admin&meta.role=admin",
            &[][..],
            fine(),
        ),
        ("/channels/news.secret", &[], missing.clone()),
        ("/channels/other", &[], missing.clone()),
        ("/events?channel=news.de&channel=other", &[], missing),
        ("/events?channel=news.de&channel=mine", &[mine], fine()),
        (
            "/channels/news.de",
            &[("Authorization", "Bearer a.b.c")],
            refused(401, "token_invalid"),
        ),
    ] {
        assert_eq!(open(&served, path, headers), wanted, "{path}");
    }
    let _stream = served.subscribe("/channels/news.en?client=admin&meta.role=admin");
    let clients = json_of(&ask(
        &served,
        "GET",
        "/channels/news.en/clients",
        &[ADMIN],
        "",
    ));
    assert_ne!(clients[0]["id"], "admin");
    assert_eq!(clients[0]["metadata"], Value::Null);
    let answer = ask(&served, "POST", "/channels/news.de", &[], "x");
    assert_eq!(refusal(&answer), refused(401, "token_missing"));
}

// ---- tickets ----

#[track_caller]
fn ticket(served: &Served, header: (&str, &str), body: &Value) -> String {
    let answer = ask(served, "POST", "/tickets", &[header], &body.to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let answer = json_of(&answer);
    assert_eq!(answer["expires_in"], 30);
    text(&answer["ticket"]).to_owned()
}

#[test]
fn a_ticket_opens_one_stream() {
    let served = start();
    let own = json!({"subscribe": ["a", "b.*"], "client": "seven", "metadata": {"n": 7}});
    let mine = bearer(&token(own));
    let mine = ("Authorization", &*mine);
    let unknown = refused(401, "ticket_unknown");
    let ticket_of = |body| ticket(&served, mine, &body);
    let one = ticket_of(json!({}));
    let path = format!("/channels/a?ticket={one}");
    // HEAD does not use it up.
    assert_eq!(ask(&served, "HEAD", &path, &[], "").status, 200);
    let _stream = served.subscribe(&path);
    assert_eq!(open(&served, &path, &[]), unknown);
    assert_eq!(ask(&served, "HEAD", &path, &[], "").status, 401);
    let clients = json_of(&ask(&served, "GET", "/channels/a/clients", &[ADMIN], ""));
    assert_eq!(clients[0]["id"], "seven");
    assert_eq!(clients[0]["metadata"], json!({"n": 7}));
    // It opens its channels only, and never publishes or makes another ticket.
    let narrow = ticket_of(json!({"subscribe": ["b.1"]}));
    let closed = refused(403, "channel_not_allowed");
    assert_eq!(
        open(&served, &format!("/channels/a?ticket={narrow}"), &[]),
        closed
    );
    let wide = ticket_of(json!({}));
    for path in ["/channels/a", "/tickets"] {
        let answer = ask(&served, "POST", &format!("{path}?ticket={wide}"), &[], "{}");
        assert_eq!(refusal(&answer), refused(401, "token_missing"), "{path}");
    }
    let path = format!("/events?channel=a&channel=b.2&ticket={wide}");
    assert_eq!(open(&served, &path, &[]), fine());
    for never in ["", "0", &"0".repeat(64)] {
        assert_eq!(
            open(&served, &format!("/channels/a?ticket={never}"), &[]),
            unknown
        );
    }
}

#[test]
fn a_token_gives_tickets_for_less_and_a_key_for_anything() {
    let served = start();
    let mine = bearer(&token(json!({"subscribe": ["a", "b.*"]})));
    let mine = ("Authorization", &*mine);
    let beyond = refused(403, "ticket_not_allowed");
    let listing = |count| json!({"subscribe": vec!["a"; count]}).to_string();
    for (header, body, wanted) in [
        (
            mine,
            r#"{"subscribe": ["b.*", "a"], "stream_seconds": 60}"#,
            fine(),
        ),
        (mine, "", fine()),
        (mine, r#"{"subscribe": ["c"]}"#, beyond.clone()),
        (mine, r#"{"subscribe": ["*"]}"#, beyond.clone()),
        (mine, r#"{"client": "other"}"#, beyond.clone()),
        (mine, r#"{"metadata": {}}"#, beyond),
        (
            mine,
            r#"{"subscribe": ["a*b"]}"#,
            refused(400, "pattern_invalid"),
        ),
        (mine, r#"{"subcribe": ["a"]}"#, refused(400, "invalid_json")),
        (
            KEY,
            r#"{"subscribe": ["*"], "client": "c", "metadata": {"n": 1}}"#,
            fine(),
        ),
        (
            KEY,
            r#"{"subscribe": ["a"], "client": ""}"#,
            refused(400, "client_id_invalid"),
        ),
        (KEY, "{}", refused(400, "ticket_channels_missing")),
        (KEY, &" ".repeat(9000), refused(413, "ticket_too_large")),
        (mine, &listing(64), fine()),
        (mine, &listing(65), refused(413, "ticket_too_large")),
        (
            ("Authorization", "Bearer no-key"),
            "{}",
            refused(403, "key_wrong"),
        ),
        (("X-Nothing", "here"), "{}", refused(401, "token_missing")),
    ] {
        let answer = ask(&served, "POST", "/tickets", &[header], body);
        let found = match answer.status {
            200 => fine(),
            _ => refusal(&answer),
        };
        assert_eq!(found, wanted, "{header:?} {body}");
    }
    let body = json!({"subscribe": ["any"], "client": "c", "metadata": {"n": 1}});
    let path = format!("/channels/any?ticket={}", ticket(&served, KEY, &body));
    let _stream = served.subscribe(&path);
    let clients = json_of(&ask(&served, "GET", "/channels/any/clients", &[ADMIN], ""));
    assert_eq!(clients[0]["id"], "c");
}

#[test]
fn a_stream_ends_with_what_opened_it_and_goes_on_with_other_credentials() {
    let served = Served::start(config().token_leeway(Duration::ZERO).engine());
    let claims = json!({
        "exp": get_current_timestamp() + 8,
        "pushwheel": {"subscribe": ["a"]},
    });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let short = bearer(&encode(&Header::default(), &claims, &key).unwrap());
    let body = json!({"subscribe": ["a"], "stream_seconds": 2});
    let ticket = ticket(&served, KEY, &body);
    let by_token = [("Authorization", &*short)];
    let by_ticket = format!("/channels/a?ticket={ticket}");
    let streams = [("/channels/a", &by_token[..]), (&by_ticket, &[])];
    let streams = streams.map(|(path, headers)| {
        let mut stream = Subscriber::open(served.address(), path, headers);
        let id = stream.wait_for_id();
        (stream, id)
    });
    let ids = streams.map(|(mut stream, id)| {
        let events = stream.rest();
        assert_eq!(
            summaries(&events),
            [r#"pushwheel.reauth {"reason":"expired"}"#]
        );
        assert_eq!(stream.last_event_id(), id);
        id
    });
    assert_eq!(ask(&served, "POST", "/channels/a", &[KEY], "x").status, 200);
    for id in ids {
        let other = bearer(&token(json!({"subscribe": ["a"]})));
        let headers = [("Authorization", &*other), ("Last-Event-ID", &*id)];
        let mut again = Subscriber::open(served.address(), "/channels/a", &headers);
        assert_eq!(again.next().data, "x");
    }
}

#[test]
fn tickets_are_bounded_and_expire() {
    let served = Served::start(config().tickets_max(2).engine());
    let body = r#"{"subscribe": ["a"]}"#;
    for status in [200, 200, 503] {
        let answer = ask(&served, "POST", "/tickets", &[KEY], body);
        assert_eq!(answer.status, status);
        if status == 503 {
            assert_eq!(answer.error_code(), "too_many_tickets");
            let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            // 30 s, and the random part that spreads reconnections.
            assert!((3..=40).contains(&seconds), "{seconds}");
        }
    }
    let served = Served::start(config().tickets_max(1).ticket_time(Duration::ZERO).engine());
    for _ in 0..3 {
        let answer = json_of(&ask(&served, "POST", "/tickets", &[KEY], body));
        let path = format!("/channels/a?ticket={}", text(&answer["ticket"]));
        assert_eq!(open(&served, &path, &[]), refused(401, "ticket_unknown"));
    }
}

#[test]
fn without_tokens_tickets_work_and_channels_stay_open() {
    let served = super::start();
    let body = json!({"subscribe": ["a"], "client": "c"});
    let one = ticket(&served, ("X-Nothing", "here"), &body);
    let closed = refused(403, "channel_not_allowed");
    assert_eq!(
        open(&served, &format!("/channels/b?ticket={one}"), &[]),
        closed
    );
    assert_eq!(open(&served, "/channels/b?token=a.b.c", &[]), fine());
    let header = ("Authorization", "Bearer whatever");
    assert_eq!(open(&served, "/channels/b", &[header]), fine());
}

#[test]
fn a_ticket_is_worth_nothing_when_its_token_has_expired() {
    let served = Served::start(config().token_leeway(Duration::ZERO).engine());
    let exp = get_current_timestamp() + 5;
    let claims = json!({"exp": exp, "pushwheel": {"subscribe": ["a"]}});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let mine = bearer(&encode(&Header::default(), &claims, &key).unwrap());
    let one = ticket(&served, ("Authorization", &mine), &json!({}));
    while get_current_timestamp() <= exp {
        std::thread::yield_now();
    }
    let path = format!("/channels/a?ticket={one}");
    assert_eq!(open(&served, &path, &[]), refused(401, "token_expired"));
}

#[test]
fn a_token_cannot_take_the_tickets_of_others() {
    let served = Served::start(config().tickets_max(20).engine());
    let make = |token: &str| ask_as_maker(&served, &bearer(token));
    let [one, other] = ["a", "b"].map(|name| token(json!({"subscribe": [name]})));
    assert_eq!([(); 3].map(|()| make(&one)), [200, 200, 503]);
    assert_eq!(make(&other), 200);
}

fn ask_as_maker(served: &Served, bearer: &str) -> u16 {
    ask(served, "POST", "/tickets", &[("Authorization", bearer)], "").status
}

#[test]
fn a_token_that_may_publish_learns_nothing_of_the_clients() {
    let served = start();
    let claims = json!({"subscribe": ["news"], "client": "bob", "metadata": {"balance": 1234}});
    let header = bearer(&token(claims));
    let path = "/channels/news";
    let mut bob = Subscriber::open(served.address(), path, &[("Authorization", &header)]);
    bob.wait_for_id();
    let publisher = token(json!({"publish": ["news"]}));
    for target in [
        "?client=bob",
        "?client=eve",
        "?where.balance=1234",
        "?where.balance=1235",
        "?not.balance=1234",
    ] {
        let answer = ask_as(&served, &publisher, "POST", &format!("{path}{target}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(json_of(&answer).get("clients"), None, "{target}");
        let answer = ask(&served, "POST", &format!("{path}{target}"), &[KEY], "x");
        assert!(json_of(&answer)["clients"].is_number(), "{target}");
    }
    let answer = ask_as(&served, &publisher, "POST", path);
    assert_eq!(
        json_of(&answer)["clients"],
        1,
        "all are as many as there are"
    );
}
