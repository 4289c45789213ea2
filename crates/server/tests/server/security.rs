//! Keys, and the protection from pages of other origins.

use std::io::Write;

use pushwheel_server::{Config, Key, TokenKeys};

use super::commands::{Running, pushwheel, run};
use super::{ask, ask_over, get, refusal, refused, start};
use crate::common::{Connection, Served, Subscriber};

const WITH_PUBLISH_KEY: (&str, &str) = ("Authorization", "Bearer publish-s3cret-of-tests");
const WITH_ADMIN_KEY: (&str, &str) = ("Authorization", "bearer admin-s3cret-of-tests");

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn start_with_keys() -> Served {
    let config = Config::new()
        .publish_key(key("publish-s3cret-of-tests"))
        .admin_key(key("admin-s3cret-of-tests"));
    Served::start(config.engine())
}

/// Method and path of all requests that need the admin key.
const MANAGING: [(&str, &str); 10] = [
    ("GET", "/stats"),
    ("HEAD", "/stats"),
    ("GET", "/st%61ts"),
    ("GET", "/channels"),
    ("GET", "/channels/a/clients"),
    ("GET", "/channels/a/clients/x"),
    ("DELETE", "/channels/a/clients/x"),
    ("DELETE", "/channels/a/clients?where.x=1"),
    ("DELETE", "/channels/a"),
    ("DELETE", "/channels?empty"),
];

#[test]
fn without_a_key_there_is_no_publishing_and_no_managing() {
    let served = start_with_keys();
    let mut stream = served.subscribe("/channels/a");
    let publishing = [("POST", "/channels/a"), ("POST", "/channels")];
    for (method, path) in MANAGING.into_iter().chain(publishing) {
        let answer = ask(&served, method, path, &[], "");
        if answer.status == 404 && path.contains('%') {
            continue; // Not the same path to the router: nothing is there.
        }
        assert_eq!(answer.status, 401, "{method} {path}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        if method != "HEAD" {
            assert_eq!(answer.error_code(), "key_missing");
        }
    }
    // A cookie or another scheme does not count as a key.
    for header in [
        ("Cookie", "key=publish-s3cret-of-tests"),
        ("Authorization", "Basic publish-s3cret-of-tests"),
        ("Authorization", "publish-s3cret-of-tests"),
    ] {
        let answer = ask(&served, "POST", "/channels/a", &[header], "x");
        assert_eq!(refusal(&answer), refused(401, "key_missing"), "{header:?}");
    }
    // Subscriptions, health checks and preflights need none.
    assert_eq!(get(&served, "/health").status, 200);
    let headers = [
        ("Origin", "https://app.example"),
        ("Access-Control-Request-Method", "POST"),
    ];
    let answer = ask(&served, "OPTIONS", "/channels/a", &headers, "");
    assert_eq!(answer.status, 204);
    let answer = ask(&served, "POST", "/channels/a", &[WITH_PUBLISH_KEY], "kept");
    assert_eq!(answer.status, 200);
    assert_eq!(stream.next().data, "kept");
}

#[test]
fn a_body_without_the_right_to_publish_is_not_read() {
    let served = start_with_keys();
    for path in ["/channels/a", "/channels", "/tickets"] {
        let mut connection = served.connect();
        let head = "Host: test\r\nContent-Length: 1000000\r\nExpect: 100-continue";
        connection.send(format!("POST {path} HTTP/1.1\r\n{head}\r\n\r\n"));
        let answer = connection.answer();
        assert_eq!(refusal(&answer), refused(401, "key_missing"), "{path}");
        connection.expect_end();
    }
}

#[test]
fn each_key_opens_its_own_and_the_admin_key_both() {
    let served = start_with_keys();
    let _stream = served.subscribe("/channels/a?client=x");
    for (method, path) in MANAGING {
        let answer = ask(&served, method, path, &[WITH_PUBLISH_KEY], "");
        assert!(
            [403, 404].contains(&answer.status),
            "{method} {path}: {}",
            answer.status
        );
        if method != "HEAD" && answer.status == 403 {
            assert_eq!(answer.error_code(), "key_wrong");
        }
    }
    for path in ["/channels/a", "/channels"] {
        for key in [WITH_PUBLISH_KEY, WITH_ADMIN_KEY] {
            let answer = ask(&served, "POST", path, &[key], "x");
            assert_eq!(answer.status, 200, "{path}");
        }
        let wrong = ("Authorization", "Bearer publish-s3creT-of-tests");
        let answer = ask(&served, "POST", path, &[wrong], "x");
        assert_eq!(refusal(&answer), refused(403, "key_wrong"));
        assert!(!answer.text().contains("s3cre"), "{}", answer.text());
    }
    for path in [
        "/stats",
        "/channels",
        "/channels/a/clients",
        "/channels/a/clients/x",
    ] {
        let answer = ask(&served, "GET", path, &[WITH_ADMIN_KEY], "");
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.text().contains("s3cret"), "{}", answer.text());
    }
    let answer = ask(&served, "DELETE", "/channels/a", &[WITH_ADMIN_KEY], "");
    assert_eq!(answer.status, 200);
}

#[test]
fn without_an_admin_key_the_error_for_another_key_names_the_setting() {
    let served = Served::start(
        Config::new()
            .publish_key(key("publish-s3cret-of-tests"))
            .engine(),
    );
    let answer = ask(&served, "GET", "/stats", &[WITH_PUBLISH_KEY], "");
    assert_eq!(refusal(&answer), refused(403, "key_wrong"));
    assert!(answer.text().contains("Start it with --admin-key"));
}

#[test]
fn once_there_is_a_key_nothing_that_changes_is_open() {
    let served = Served::start(
        Config::new()
            .publish_key(key("publish-s3cret-of-tests"))
            .engine(),
    );
    let answer = ask(&served, "DELETE", "/channels/a", &[], "");
    assert_eq!(refusal(&answer), refused(401, "key_missing"));
    let answer = ask(&served, "GET", "/stats", &[WITH_PUBLISH_KEY], "");
    assert_eq!(refusal(&answer), refused(403, "key_wrong"));
    let served = Served::start(
        Config::new()
            .admin_key(key("admin-s3cret-of-tests"))
            .engine(),
    );
    let answer = ask(&served, "POST", "/channels/a", &[], "x");
    assert_eq!(refusal(&answer), refused(401, "key_missing"));
    let answer = ask(&served, "POST", "/channels/a", &[WITH_ADMIN_KEY], "x");
    assert_eq!(answer.status, 200);
}

#[test]
fn keys_are_not_shown() {
    let config = Config::new()
        .publish_key(key("publish-s3cret-of-tests"))
        .admin_key(key("admin-s3cret-of-tests"));
    let shown = format!("{config:?} {:?}", config.engine());
    assert!(!shown.contains("s3cret"), "{shown}");
}

fn start_on_loopback() -> Served {
    let hosts = ["push.example.com".to_owned()];
    Served::start(Config::new().loopback_for(hosts).engine())
}

/// Sends a request with this `Host`.
fn asked_as(served: &Served, method: &str, host: &str, headers: &[(&str, &str)]) -> (u16, String) {
    asked_for(served, method, "/channels/a", host, headers)
}

fn asked_for(
    served: &Served,
    method: &str,
    path: &str,
    host: &str,
    headers: &[(&str, &str)],
) -> (u16, String) {
    let mut connection = served.connect();
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    connection.send(format!("{request}Content-Length: 0\r\n\r\n"));
    let mut answer = connection.head();
    if let Some(length) = answer.header("content-length") {
        answer.body = connection.bytes(length.parse().unwrap());
    }
    match answer.status {
        200 => (200, String::new()),
        _ => refusal(&answer),
    }
}

#[test]
fn on_loopback_a_page_of_another_origin_may_not_publish() {
    let served = start_on_loopback();
    let fine = (200, String::new());
    let foreign = refused(403, "origin_not_allowed");
    for (origin, wanted) in [
        ("http://localhost:3000", &fine),
        ("http://127.0.0.1:5173", &fine),
        ("http://[::1]:5173", &fine),
        ("https://push.example.com", &fine),
        ("https://evil.example", &foreign),
        ("https://localhost.evil.example", &foreign),
        ("http://192.0.2.1", &foreign),
        ("null", &foreign),
    ] {
        let headers = [("Origin", origin), ("Sec-Fetch-Site", "cross-site")];
        assert_eq!(
            asked_as(&served, "POST", "localhost", &headers),
            *wanted,
            "{origin}"
        );
        let (status, code) = asked_as(&served, "DELETE", "localhost", &headers);
        let is_refused = (status, code) == foreign;
        assert_eq!(is_refused, *wanted == foreign, "{origin}");
        assert_eq!(
            asked_as(&served, "GET", "localhost", &headers),
            fine,
            "{origin}"
        );
    }
    let headers = [("Sec-Fetch-Site", "cross-site")];
    assert_eq!(asked_as(&served, "POST", "localhost", &headers), foreign);
    let headers = [("Sec-Fetch-Site", "same-origin")];
    assert_eq!(asked_as(&served, "POST", "localhost", &headers), fine);
}

#[test]
fn on_loopback_a_browser_cannot_be_rebound() {
    let served = start_on_loopback();
    let refused = refused(421, "host_not_allowed");
    for method in ["GET", "POST"] {
        for headers in [
            &[("Origin", "http://evil.example:8080")][..],
            &[("Sec-Fetch-Site", "same-origin")],
        ] {
            assert_eq!(
                asked_as(&served, method, "evil.example:8080", headers),
                refused,
                "{method} {headers:?}"
            );
        }
        let headers = [("Origin", "https://push.example.com")];
        let host = "push.example.com";
        assert_eq!(asked_as(&served, method, host, &headers).0, 200);
    }
}

#[test]
fn on_loopback_a_rebound_page_reads_nothing_either() {
    let served = start_on_loopback();
    let _there = served.subscribe("/channels/a?client=x");
    let refused = refused(421, "host_not_allowed");
    // Over plain HTTP its browser sends neither `Origin` nor `Sec-Fetch-Site`.
    let others = [
        ("GET", "/"),
        ("GET", "/channels/a?last=5"),
        ("GET", "/events?channel=a"),
        ("POST", "/channels/a"),
        ("POST", "/tickets"),
    ];
    let all = MANAGING.into_iter().chain(others);
    // The response to HEAD has no body with the reason.
    for (method, path) in all.filter(|(method, _)| *method != "HEAD") {
        for host in [
            "evil.example:8080",
            "evil.example",
            "127.0.0.1.evil.example.",
        ] {
            let seen = asked_for(&served, method, path, host, &[]);
            assert_eq!(seen, refused, "{method} {path} {host}");
        }
    }
    // An attacker cannot have an address, or a name without a dot, in the public DNS.
    for host in [
        "localhost",
        "app.localhost:80",
        "127.0.0.1:1",
        "[::1]:1",
        "push.example.com",
        "192.0.2.1",
        "test",
        "x:8080",
        "",
    ] {
        assert_eq!(asked_as(&served, "GET", host, &[]).0, 200, "{host}");
    }
    // A client without `Host` speaks HTTP/1.0, so it is not a browser.
    let mut connection = served.connect();
    connection.send("GET /channels HTTP/1.0\r\n\r\n");
    assert_eq!(connection.answer().status, 200);
    // A load balancer sends any `Host`.
    for path in ["/health", "/ready"] {
        let seen = asked_for(&served, "GET", path, "push.example.net", &[]);
        assert_eq!(seen.0, 200, "{path}");
    }
}

#[test]
fn what_a_credential_protects_may_be_asked_for_by_any_name() {
    let host = "push.example.net";
    let served = Served::start(
        Config::new()
            .publish_key(key("publish-s3cret-of-tests"))
            .admin_key(key("admin-s3cret-of-tests"))
            .loopback_for([])
            .engine(),
    );
    for (method, path, header) in [
        ("POST", "/channels/a", WITH_PUBLISH_KEY),
        ("GET", "/channels/a", WITH_PUBLISH_KEY),
        ("GET", "/stats", WITH_ADMIN_KEY),
    ] {
        let seen = asked_for(&served, method, path, host, &[header]);
        assert_eq!(seen.0, 200, "{method} {path}");
    }
    // Streams need no key, so a rebound page could read them, with any header.
    let wrong = ("Authorization", "Bearer guessed");
    for headers in [&[][..], &[wrong]] {
        let seen = asked_for(&served, "GET", "/channels/a", host, headers);
        assert_eq!(seen, refused(421, "host_not_allowed"), "{headers:?}");
    }
    // With tokens a stream needs one, or a public channel.
    let tokens = TokenKeys::secret(&[7; 32]).unwrap();
    let config = Config::new().token_keys(tokens).loopback_for([]);
    let config = config.public_for("news".parse().unwrap(), true);
    let served = Served::start(config.engine());
    let seen = asked_for(&served, "GET", "/channels/news", host, &[]);
    assert_eq!(seen.0, 200);
    let seen = asked_for(&served, "GET", "/channels/a", host, &[]);
    assert_eq!(seen, refused(401, "token_missing"));
}

#[test]
fn with_keys_it_does_not_matter_which_page_sends_them() {
    let config = Config::new().publish_key(key("publish-s3cret-of-tests"));
    let served = Served::start(config.loopback_for([]).engine());
    let origin = ("Origin", "https://app.example");
    // The `Host` of the tests is not loopback, so this request sets it.
    let headers = [origin, WITH_PUBLISH_KEY];
    assert_eq!(asked_as(&served, "POST", "localhost", &headers).0, 200);
    let headers = [origin];
    let missing = refused(401, "key_missing");
    assert_eq!(asked_as(&served, "POST", "localhost", &headers), missing);
}

#[test]
fn an_embedders_server_refuses_no_page() {
    let served = start();
    let headers = [("Origin", "https://app.example")];
    assert_eq!(asked_as(&served, "POST", "anything", &headers).0, 200);
}

// ---- the command line ----

#[test]
fn serve_refuses_to_be_reached_by_others_without_keys() {
    let others = "other machines can reach 0.0.0.0:0, and there";
    let proxied = "other machines reach 127.0.0.1:0 through --trusted-proxy, and there";
    let (publish, admin) = (
        ["--publish-key", "publish-s3cret-of-tests"],
        ["--admin-key", "admin-s3cret-of-tests"],
    );
    let no_admin = "is no admin key. Set --admin-key";
    let no_publish = "is no key for publishing. Set --publish-key";
    let none = "are no keys. Set";
    // Through a proxy, clients on other machines reach loopback too.
    let behind = ["--listen", "127.0.0.1:0", "--trusted-proxy", "127.0.0.1"];
    let open = ["--listen", "0.0.0.0:0"];
    for (arguments, why, lacking) in [
        (open.to_vec(), others, none),
        (vec!["--listen", "[::]:0"], "other machines can reach", none),
        ([open, publish].concat(), others, no_admin),
        ([open, admin].concat(), others, no_publish),
        (behind.to_vec(), proxied, none),
        ([&behind[..], &publish].concat(), proxied, no_admin),
    ] {
        let output = run(&[&["serve"], &arguments[..]].concat());
        let reported = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{reported}");
        for part in [why, lacking, "--allow-missing-keys"] {
            assert!(reported.contains(part), "{reported}");
        }
        assert!(!reported.contains("s3cret"), "{reported}");
    }
}

#[test]
fn serve_trusts_the_proxies_in_its_settings() {
    for (arguments, part) in [
        (&["--proxy-protocol"][..], "--trusted-proxy NETWORK"),
        (&["--trusted-proxy", "10.0.0.0/33"], "such as 10.0.0.0/8"),
    ] {
        let output = run(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat());
        let reported = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(reported.contains(part), "{reported}");
    }
    // From the environment, as in a container: both keys, and no keys on purpose.
    let mut command = pushwheel(&["serve", "--listen", "127.0.0.1:0", "--allow-missing-keys"]);
    command.env("PUSHWHEEL_TRUSTED_PROXY", "10.0.0.0/8,127.0.0.1");
    command.env("PUSHWHEEL_PROXY_PROTOCOL", "true");
    let mut server = Running::spawn(&mut command);
    let address = server.address();
    let mut connection = Connection::open(address);
    connection.send(
        "PROXY TCP4 192.0.2.1 198.51.100.2 7 80\r\n\
         GET /channels/a HTTP/1.1\r\nHost: test\r\n\r\n",
    );
    let _stream = Subscriber::begun(connection);
    let mut connection = Connection::open(address);
    connection.send("PROXY UNKNOWN\r\nGET /channels/a/clients HTTP/1.1\r\nHost: test\r\n\r\n");
    let clients = connection.answer();
    assert!(clients.text().contains("192.0.2.1:7"), "{}", clients.text());
}

#[test]
fn serve_on_loopback_is_asked_for_by_its_own_names_unless_proxies_are_trusted() {
    let get = |address, path: &str| {
        let mut connection = Connection::open(address);
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: push.example\r\n\r\n"));
        connection.answer()
    };
    let start = ["serve", "--listen", "127.0.0.1:0"];
    let mut server = Running::start(&start);
    let answer = get(server.address(), "/channels");
    assert_eq!(refusal(&answer), refused(421, "host_not_allowed"));
    assert!(
        answer.text().contains("--allow-host NAME"),
        "{}",
        answer.text()
    );
    for more in [
        &["--allow-host", "push.example"][..],
        &["--allow-missing-keys"],
        // As in the files in `deploy/`.
        &[
            "--trusted-proxy",
            "127.0.0.1",
            "--admin-key",
            "admin-s3cret-of-tests",
            "--publish-key",
            "publish-s3cret-of-tests",
        ],
    ] {
        let mut server = Running::start(&[&start[..], more].concat());
        assert_eq!(get(server.address(), "/").status, 200, "{more:?}");
    }
}

#[test]
fn serve_is_reached_by_others_with_keys_or_open() {
    let mut server = Running::start(&["serve", "--listen", "0.0.0.0:0", "--allow-missing-keys"]);
    let port = server.address().port();
    let mut connection = Connection::open(([127, 0, 0, 1], port).into());
    let origin = ("Origin", "https://app.example");
    let answer = ask_over(&mut connection, "POST", "/channels/a", &[origin], "x");
    assert_eq!(answer.status, 200);
    server.signal("TERM");
    drop(connection);
    assert!(server.complaints().contains("--allow-missing-keys"));
}

#[test]
fn keys_come_from_the_environment_or_a_file_and_are_not_logged() {
    let dir = tempdir("keys");
    let file = dir.join("admin");
    let mut written = std::fs::File::create(&file).unwrap();
    writeln!(written, "admin-s3cret-of-tests").unwrap();
    let mut command = pushwheel(&["serve", "--listen", "0.0.0.0:0", "--admin-key-file"]);
    command.arg(&file);
    command.env("PUSHWHEEL_PUBLISH_KEY", "publish-s3cret-of-tests");
    command.env("PUSHWHEEL_LOG", "trace");
    let mut server = Running::spawn(&mut command);
    let port = server.address().port();
    let address = ([127, 0, 0, 1], port).into();
    let mut stream = Subscriber::open(address, "/channels/a", &[]);
    let mut connection = Connection::open(address);
    for (method, path, header, status) in [
        ("POST", "/channels/a", WITH_PUBLISH_KEY, 200),
        ("GET", "/stats", WITH_PUBLISH_KEY, 403),
        ("GET", "/stats", WITH_ADMIN_KEY, 200),
        (
            "POST",
            "/channels/a",
            ("Authorization", "Bearer \"s3cret"),
            403,
        ),
    ] {
        let answer = ask_over(&mut connection, method, path, &[header], "x");
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(!answer.text().contains("s3cret"), "{}", answer.text());
    }
    // Malformed: the engine's error does not quote the request.
    connection.send("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer s3cret\u{1}\r\n\r\n");
    assert_eq!(connection.answer().status, 400);
    assert_eq!(stream.next().data, "x");
    drop(connection);
    let reported = server.end();
    assert!(!reported.contains("s3cret"), "{reported}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn pub_sends_its_key() {
    let served = start_with_keys();
    let url = format!("http://{}/channels/a", served.address());
    let mut command = pushwheel(&["pub", &url, "e", "data"]);
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let reported = String::from_utf8(output.stderr).unwrap();
    assert!(reported.contains("the publish key"), "{reported}");
    command.env("PUSHWHEEL_PUBLISH_KEY", "publish-s3cret-of-tests");
    assert!(command.output().unwrap().status.success());
}

#[test]
fn a_key_that_cannot_be_one_is_not_repeated() {
    let file = tempdir("bad-key").join("key");
    std::fs::write(&file, "s3cret with spaces\n").unwrap();
    let file = file.to_str().unwrap();
    for arguments in [
        ["serve", "--publish-key", "s3cret with spaces"],
        ["serve", "--admin-key-file", file],
    ] {
        let output = run(&arguments);
        let reported = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{reported}");
        assert!(reported.contains("visible ASCII"), "{reported}");
        assert!(!reported.contains("s3cret"), "{reported}");
    }
    let mut help = pushwheel(&["serve", "--help"]);
    help.env("PUSHWHEEL_PUBLISH_KEY", "publish-s3cret-of-tests");
    help.env("PUSHWHEEL_ADMIN_KEY", "admin-s3cret-of-tests");
    let reported = String::from_utf8(help.output().unwrap().stdout).unwrap();
    assert!(reported.contains("PUSHWHEEL_ADMIN_KEY"), "{reported}");
    assert!(!reported.contains("s3cret"), "{reported}");
}

/// Creates a folder for one test of this process.
fn tempdir(name: &str) -> std::path::PathBuf {
    let name = format!("pushwheel-{name}-{}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn keys_that_are_short_or_have_two_uses_are_refused_with_the_fix() {
    let secret = "a-secret-of-the-tests-of-32-bytes!";
    let token = format!("--token-secret={secret}");
    let name = format!("pushwheel-same-key-{}", std::process::id());
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, format!("{secret}\n")).unwrap();
    let in_file = format!("--admin-key-file={}", file.display());
    let as_key = format!("--publish-key={secret}");
    for (arguments, reported) in [
        (
            &["--admin-key=abc"][..],
            "--admin-key (or PUSHWHEEL_ADMIN_KEY): a key is at least 16",
        ),
        (&["--publish-key=fifteen-letters"], "a key is at least 16"),
        (
            &[
                "--publish-key=the-same-for-both",
                "--admin-key=the-same-for-both",
            ],
            "--publish-key (or PUSHWHEEL_PUBLISH_KEY) and --admin-key (or PUSHWHEEL_ADMIN_KEY) are \
             the same key. Create each",
        ),
        (&[&as_key, &in_file], "are the same key. Create each"),
        (
            &[&as_key, &token],
            "is also the secret of tokens. Create each",
        ),
        (
            &[&in_file, &token],
            "is also the secret of tokens. Create each",
        ),
    ] {
        let output = run(&[&["serve", "--listen=127.0.0.1:0"], arguments].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(reported) && said.contains("openssl rand -hex 32"),
            "{said}"
        );
        assert!(
            !said.contains("the-same") && !said.contains(secret),
            "{said}"
        );
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_server_that_others_reach_warns_of_open_channels() {
    let keys = [
        "--publish-key=publish-s3cret-of-tests",
        "--admin-key=admin-s3cret-of-tests",
    ];
    let token = "--token-secret=a-secret-of-the-tests-of-32-bytes!";
    let proxied = ["--listen=127.0.0.1:0", "--trusted-proxy=192.0.2.1"];
    let warning = "can subscribe to every channel. Set --token-secret-file";
    for (arguments, warns) in [
        (&["--listen=0.0.0.0:0"][..], true),
        (&proxied, true),
        (&["--listen=127.0.0.1:0"], false),
        (&["--listen=0.0.0.0:0", token], false),
        (&["--listen=0.0.0.0:0", "--public-channel=*"], false),
    ] {
        let mut server = Running::start(&[&["serve"], &keys[..], arguments].concat());
        server.address();
        let said = server.end();
        assert_eq!(said.contains(warning), warns, "{arguments:?}: {said}");
    }
    let mut server = Running::start(&["serve", "--listen=0.0.0.0:0", "--allow-missing-keys"]);
    server.address();
    assert!(
        server
            .end()
            .contains("--allow-missing-keys allows them everything")
    );
}
