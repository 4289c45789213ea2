//! The options of `health`, `sub` and `pub`.

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;

use pushwheel_server::{Config, Key, TokenKeys};
use serde_json::{Value, json};

use crate::commands::{Running, pushwheel, run, url};
use crate::common::{Served, summaries};
use crate::{TEXT, publish, start};

/// A file of a test, which is removed when this is dropped.
pub(super) struct TestFile(PathBuf);

impl TestFile {
    pub(super) fn new(name: &str, text: &str) -> TestFile {
        let name = format!("pushwheel {name} {}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        TestFile(path)
    }

    pub(super) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// Runs a command that fails, and returns its error message.
#[track_caller]
pub(super) fn failure(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A server with a key, which publishing and subscribing need.
fn secured(key: &str) -> Served {
    let secret = TokenKeys::secret(b"a secret of a test, of 32 bytes!!").unwrap();
    let config = Config::new().token_keys(secret);
    Served::start(config.publish_key(Key::new(key).unwrap()).engine())
}

#[test]
fn health_is_the_exit_status_of_a_check() {
    let served = start();
    let (server, address) = (url(&served, ""), served.address().to_string());
    let slash = format!("{server}/");
    let all_interfaces = format!("0.0.0.0:{}", served.address().port());
    for arguments in [
        &["health", &*server][..],
        &["health", &slash, "--ready"],
        &["health", "--listen", &address],
        &["health", "--listen", &all_interfaces, "--ready"],
    ] {
        let output = run(arguments);
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout.is_empty() && output.stderr.is_empty());
    }
    let mut of_environment = pushwheel(&["health"]);
    of_environment.env("PUSHWHEEL_LISTEN", &all_interfaces);
    assert!(of_environment.output().unwrap().status.success());
}

#[test]
fn a_failed_health_check_has_a_cause() {
    let served = start();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    for (server, wanted) in [
        (
            "http://127.0.0.1:1",
            "cannot check http://127.0.0.1:1/health (connection refused)",
        ),
        (&silent, "/health (timeout)"),
        (
            &url(&served, "/health"),
            "/health/health does not exist (404). Use the URL of the server",
        ),
        (
            "127.0.0.1:1",
            "is not a URL with http:// or https://. Use for example http://127.0.0.1:8080",
        ),
    ] {
        let said = failure(&["health", server, "--timeout", "1"]);
        assert!(said.contains(wanted), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn sub_exits_after_a_number_of_events() {
    let served = start();
    for text in ["one", "two", "three"] {
        publish(&served, "/channels/a", TEXT, text);
    }
    let output = run(&["sub", &url(&served, "/channels/a?last=3"), "--count", "2"]);
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("data: two") && !printed.contains("three"));
}

#[test]
fn sub_prints_json_for_other_programs() {
    let served = start();
    let event = publish(&served, "/channels/order%207?event=n", TEXT, "two\nlines");
    let url = url(&served, "/channels/order%207");
    let output = run(&["sub", &url, "--last=1", "--count=1", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let wanted = json!({
        "channel": "order 7", "id": event["id"], "event": "n", "data": "two\nlines",
    });
    assert_eq!(printed, wanted);
    assert_eq!(
        output.stdout.iter().filter(|&&byte| byte == b'\n').count(),
        1
    );
}

#[test]
fn sub_gives_up_after_its_reconnections() {
    for (retry, wanted) in [
        ("0", "pushwheel: the stream ended"),
        ("1", "(gave up after 1 reconnection)"),
        ("2", "(gave up after 2 reconnections)"),
    ] {
        let served = start();
        publish(&served, "/channels/a?retry=10", TEXT, "one");
        let url = url(&served, "/channels/a?last=1");
        let mut sub = Running::start(&["sub", &url, "--retry", retry]);
        assert_eq!(sub.event(), ["data: one"]);
        drop(served);
        let said = sub.complaints();
        assert_eq!(sub.exit_code(), Some(1), "{said}");
        assert!(said.trim_end().ends_with(wanted), "{said}");
        assert!(!said.contains("?."), "{said}");
    }
}

#[test]
fn sub_and_pub_read_their_credential_from_a_file() {
    const KEY: &str = "publish-key-of-tests";
    let served = secured(KEY);
    let file = TestFile::new("credential", &format!("{KEY}\n"));
    let url = url(&served, "/channels/a");
    let published = run(&["pub", &url, "", "x", "--publish-key-file", file.path()]);
    assert!(published.status.success(), "{published:?}");
    let sub = ["sub", &url, "--last=1", "--count=1"];
    let mut reads = pushwheel(&[&sub[..], &["--token-file", file.path()]].concat());
    // The file takes precedence.
    let output = reads.env("PUSHWHEEL_TOKEN", "another").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(failure(&sub).contains("--token"));
    let said = failure(&[&sub[..], &["--token-file", "/nowhere"]].concat());
    assert!(
        said.contains("cannot read --token-file /nowhere (No such file"),
        "{said}"
    );
}

#[test]
fn pub_selects_clients_by_their_metadata() {
    let served = start();
    let url = url(&served, "/channels/a");
    let mut ann = served.subscribe("/channels/a?meta.role=admin&meta.user%20id=7");
    let mut bob = served.subscribe("/channels/a?meta.role=admin&meta.user%20id=8");
    let send = |data: &str, options: &[&str]| {
        let output = run(&[&["pub", &url, "", data], options].concat());
        assert!(output.status.success(), "{output:?}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["clients"].as_u64().unwrap()
    };
    let admins = ["--where", "role=admin"];
    assert_eq!(send("both", &admins), 2);
    assert_eq!(
        send("seven", &["--where=role=admin", "--where=user id=7"]),
        1
    );
    assert_eq!(
        send("others", &["--where=role=admin", "--not=user id=7"]),
        1
    );
    assert_eq!(summaries(&ann.take(2)), ["both", "seven"]);
    assert_eq!(summaries(&bob.take(2)), ["both", "others"]);
    let output = run(&["pub", &url, "", "x", "--where", "role"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("use FIELD=VALUE, such as role=admin"),
        "{said}"
    );
}

#[test]
fn pub_publishes_a_batch_from_a_file() {
    const BATCH: &str = "{\"data\":\"one\"}\n{\"event\":\"n\",\"data\":\"two\"}\n";
    let served = start();
    let url = url(&served, "/channels/a");
    let file = TestFile::new("batch", BATCH);
    let output = run(&["pub", &url, "--file", file.path()]);
    assert!(output.status.success(), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["events"], 2);

    let mut piped = pushwheel(&["pub", &url, "--file", "-"]);
    let mut piped = piped.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = piped.stdin.take().unwrap();
    stdin.write_all(BATCH.as_bytes()).unwrap();
    drop(stdin);
    assert!(piped.wait().unwrap().success());
    let mut stream = served.subscribe("/channels/a?last=4");
    assert_eq!(summaries(&stream.take(4)), ["one", "n two", "one", "n two"]);

    let said = failure(&["pub", &url, "--file", "/nowhere"]);
    assert!(
        said.contains("cannot read --file /nowhere (No such file"),
        "{said}"
    );
}
