//! Access from the command line: files, reloads, logs, and the manual's snippets.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;

use super::access::{Scratch, token, token_by};
use super::commands::{Running, pushwheel, run};
use super::{ask_over, refusal, refused};
use crate::common::{Connection, Subscriber, eventually};

const OLD: &str = "the secret of yesterday, 32 bytes";
const NEW: &str = "the secret of tomorrow, 32 bytes.";

#[test]
fn keys_are_changed_without_dropping_a_client() {
    let scratch = Scratch::new("rotation");
    let secret = scratch.write("secret", OLD);
    let mut server = Running::start(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--token-secret-file",
        &secret,
    ]);
    let address = server.address();
    let own = json!({"subscribe": ["a"], "publish": ["a"]});
    let (old, new) = (token_by(OLD, own.clone()), token_by(NEW, own));
    let header = format!("Bearer {old}");
    let mut stream = Subscriber::open(address, "/channels/a", &[("Authorization", &header)]);
    let mut connection = Connection::open(address);
    let mut publish = |token: &str| {
        let header = format!("Bearer {token}");
        let header = [("Authorization", &*header)];
        ask_over(&mut connection, "POST", "/channels/a", &header, "x").status
    };
    assert_eq!([publish(&old), publish(&new)], [200, 401]);
    // A broken file changes nothing.
    scratch.write("secret", "short");
    server.signal("HUP");
    scratch.write("secret", &format!("{NEW}\n"));
    server.signal("HUP");
    eventually("the new secret holds", || publish(&new) == 200);
    // Also one that was verified before.
    assert_eq!(publish(&old), 401);
    assert_eq!(stream.take(2).len(), 2);
}

/// The old and the new key of a role are valid at the same time, so that no publisher is
/// refused between the two reloads.
#[test]
fn publish_and_admin_keys_overlap_while_they_are_changed() {
    let scratch = Scratch::new("overlap");
    let [old, new, admin] = ["old", "new", "admin"].map(|name| {
        let text = format!("{name}-key-of-these-tests\n");
        scratch.write(name, &text)
    });
    let of = |files: &str| format!("publish_key_file = [{files}]\nadmin_key_file = \"{admin}\"\n");
    let both = of(&format!("\"{old}\", \"{new}\""));
    let file = scratch.write("p.toml", &of(&format!("\"{old}\"")));
    let server = &mut Running::start(&["serve", "--listen", "127.0.0.1:0", "--config", &file]);
    let address = server.address();
    let publish = |name: &str| {
        let header = format!("Bearer {name}-key-of-these-tests");
        let header = [("Authorization", &*header)];
        let mut connection = Connection::open(address);
        ask_over(&mut connection, "POST", "/channels/a", &header, "x").status
    };
    assert_eq!(["old", "new", "admin"].map(publish), [200, 403, 200]);
    scratch.write("p.toml", &both);
    server.signal("HUP");
    eventually("the new key holds", || publish("new") == 200);
    assert_eq!(publish("old"), 200);
    scratch.write("p.toml", &of(&format!("\"{new}\"")));
    server.signal("HUP");
    eventually("the old key is gone", || publish("old") == 403);
    assert_eq!(publish("new"), 200);
    // On the command line a comma or a second flag adds one. A key has one role.
    let several = format!("{old},{new}");
    let check = |more: &[&str]| {
        let keys = ["config", "--check", "--publish-key-file", &several];
        let output = run(&[&keys, more].concat());
        (
            output.status.success(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(
        check(&["--publish-key-file", &admin]),
        (true, String::new())
    );
    let (is_accepted, reported) = check(&["--admin-key-file", &new]);
    assert!(
        !is_accepted && reported.contains("are the same key"),
        "{reported}"
    );
}

#[test]
fn a_reload_that_opens_all_channels_warns() {
    let scratch = Scratch::new("opened");
    let file = scratch.write("p.toml", &format!("token_secret = \"{OLD}\"\n"));
    let mut server = Running::start(&["serve", "--listen", "127.0.0.1:0", "--config", &file]);
    let address = server.address();
    let status = || {
        let mut connection = Connection::open(address);
        let accept = [("Accept", "text/html")];
        ask_over(&mut connection, "HEAD", "/channels/a", &accept, "").status
    };
    assert_eq!(status(), 401);
    scratch.write("p.toml", "heartbeat = 20\n");
    server.signal("HUP");
    eventually("the channels are open", || status() == 200);
    let reported = "there is no key for tokens any more, so every client can subscribe";
    let log = server.end();
    assert_eq!(log.matches(reported).count(), 1, "{log}");
}

#[test]
fn keys_of_a_file_are_bound_to_issuers_by_the_command_line() {
    let scratch = Scratch::new("issuers");
    let (one, other) = (scratch.write("one", OLD), scratch.write("other", NEW));
    let files = format!("{one},{other}");
    let bound = format!("{one}=idp-a,{one}=idp-b");
    let mut server = Running::start(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--token-secret-file",
        &files,
        "--token-key-issuer",
        &bound,
        "--token-max-lifetime",
        "1000",
    ]);
    let address = server.address();
    for (secret, issuer, lifetime_s, wanted) in [
        (OLD, "idp-a", 600, 200),
        (OLD, "idp-b", 600, 200),
        (OLD, "idp-c", 600, 401),
        (NEW, "idp-c", 600, 200),
        (NEW, "idp-c", 2000, 401),
    ] {
        let exp = jsonwebtoken::get_current_timestamp() + lifetime_s;
        let claims = json!({"exp": exp, "iss": issuer, "pushwheel": {"subscribe": ["a"]}});
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
        let header = format!("Bearer {token}");
        let mut connection = Connection::open(address);
        let answer = ask_over(
            &mut connection,
            "HEAD",
            "/channels/a",
            &[("Authorization", &header)],
            "",
        );
        assert_eq!(answer.status, wanted, "{issuer} {lifetime_s}");
    }
    // A file that is not read, and a text without an issuer.
    for (bound, reported) in [
        ("nope=idp", "no keys are read from nope"),
        ("idp", "keys.json=https://"),
    ] {
        let bad = run(&[
            "serve",
            "--token-secret-file",
            &one,
            "--token-key-issuer",
            bound,
        ]);
        let reported_by = String::from_utf8_lossy(&bad.stderr).into_owned();
        assert!(
            !bad.status.success() && reported_by.contains(reported),
            "{reported_by}"
        );
    }
}

#[test]
fn nothing_secret_is_logged() {
    let scratch = Scratch::new("logs");
    let file = "[[channel]]\npattern = \"news.*\"\npublic = true\n";
    let file = scratch.write("p.toml", file);
    let mut command = pushwheel(&["serve", "--listen", "127.0.0.1:0", "--config", &file]);
    command
        .env(
            "PUSHWHEEL_TOKEN_SECRET",
            "a secret of a test, of 32 bytes!!",
        )
        .env("PUSHWHEEL_TOKEN_COOKIE", "push")
        .env("PUSHWHEEL_LOG", "trace");
    let mut server = Running::spawn(&mut command);
    let address = server.address();
    let good = token(json!({"subscribe": ["a"]}));
    let signature = good.rsplit('.').next().unwrap().to_owned();
    let cookie = format!("push={good}");
    let header = format!("Bearer {good}");
    for (method, path, headers, status) in [
        ("HEAD", format!("/channels/a?token={good}"), vec![], 200),
        (
            "HEAD",
            "/channels/a".into(),
            vec![("Cookie", &*cookie)],
            200,
        ),
        ("HEAD", "/channels/news.de".into(), vec![], 200),
        ("GET", format!("/channels/b?token={good}"), vec![], 403),
        ("GET", format!("/channels/a?token={good}x"), vec![], 401),
        ("GET", "/channels/a?token=a.b.s3cret".into(), vec![], 401),
        ("GET", "/channels/a?ticket=s3cret".into(), vec![], 401),
        (
            "POST",
            "/channels/a".into(),
            vec![("Authorization", &*header)],
            403,
        ),
        (
            "GET",
            "/stats".into(),
            vec![("Authorization", &*header)],
            403,
        ),
    ] {
        let mut connection = Connection::open(address);
        let answer = ask_over(&mut connection, method, &path, &headers, "");
        assert_eq!(answer.status, status, "{method} {path}");
        let text = if method == "HEAD" { "" } else { answer.text() };
        assert!(
            !text.contains(&signature) && !text.contains("s3cret"),
            "{text}"
        );
    }
    // Malformed, with a token in its target.
    let mut connection = Connection::open(address);
    connection.send(format!("GET /channels/a?token={good} HTTP/1.1\r\n\r\n"));
    assert_eq!(connection.answer().status, 400);
    drop(connection);
    let reported = server.end();
    assert!(
        !reported.contains(&signature) && !reported.contains("s3cret"),
        "{reported}"
    );
    let mut config = pushwheel(&["config", "--config", &file]);
    config.env(
        "PUSHWHEEL_TOKEN_SECRET",
        "s3cret of a test, of thirty-two bytes",
    );
    let printed = config.output().unwrap();
    assert!(printed.status.success(), "{printed:?}");
    assert!(
        !String::from_utf8(printed.stdout)
            .unwrap()
            .contains("s3cret")
    );
}

#[test]
fn settings_that_cannot_be_are_refused_with_what_to_do() {
    let scratch = Scratch::new("bad");
    let private = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/server/keys/rsa.pem");
    let public = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/server/keys/rsa.pub.pem");
    let set = scratch.write("jwks", "{\"keys\": s3cret}");
    for (arguments, reported) in [
        (&["--token-secret", "s3cret"][..], "at least 32 bytes"),
        (
            &["--token-secret-file", "/nowhere"],
            "cannot read --token-secret-file /nowhere",
        ),
        (&["--token-secret-file", public], "not a secret"),
        (&["--token-public-key-file", private], "private key"),
        (&["--token-public-key", "s3cret"], "BEGIN PUBLIC KEY"),
        (&["--token-jwks-file", &set], "JSON Web Key Set"),
        (
            &["--token-parameter", "channel"],
            "uses this parameter itself",
        ),
        (&["--token-cookie", "a b"], "name of a cookie"),
        (&["--token-leeway", "61"], "61"),
        (
            &["--allow-origin", "https://app.example/"],
            "without a path",
        ),
        (&["--allow-origin", "null"], "every page can have it"),
        (&["--public-channel", "a*b"], "pattern"),
    ] {
        let output = run(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        // clap wraps its lines.
        let stderr = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(stderr.contains(reported), "{arguments:?}: {stderr}");
        let is_shown = stderr.contains("s3cret");
        assert!(!is_shown, "{stderr}");
    }
}

#[test]
fn others_may_reach_a_server_with_tokens_and_an_admin_key() {
    let with = |admin: &[&'static str]| {
        let listen = ["serve", "--listen", "0.0.0.0:0", "--token-secret", OLD];
        [&listen[..], admin].concat()
    };
    let output = run(&with(&[]));
    assert_eq!(output.status.code(), Some(1));
    let mut server = Running::start(&with(&["--admin-key", "admin-s3cret-of-tests"]));
    let port = server.address().port();
    let mut connection = Connection::open(([127, 0, 0, 1], port).into());
    let answer = ask_over(&mut connection, "POST", "/channels/a", &[], "x");
    assert_eq!(refusal(&answer), refused(401, "token_missing"));
}

#[test]
fn sub_and_pub_send_tokens() {
    let mut server = Running::start(&["serve", "--listen", "127.0.0.1:0", "--token-secret", OLD]);
    let url = format!("http://{}/channels/a", server.address());
    assert!(server.line().contains("Authorization: Bearer $TOKEN"));
    let refused = run(&["sub", &url]);
    let reported = String::from_utf8(refused.stderr).unwrap();
    assert!(reported.contains("token_missing"), "{reported}");
    let token = token_by(OLD, json!({"subscribe": ["a"], "publish": ["a"]}));
    let mut publish = pushwheel(&["pub", &url, "", "hello", "--publish-key", &token]);
    assert!(publish.output().unwrap().status.success());
    let mut command = pushwheel(&["sub", &url, "--last", "1"]);
    let mut sub = Running::spawn(command.env("PUSHWHEEL_TOKEN", &token));
    assert!(sub.line().starts_with("id: "));
    assert_eq!(sub.line(), "data: hello");
}

// ---- the manual ----

/// The snippets of a language in docs/access.md.
fn snippets(language: &str) -> Vec<&'static str> {
    let page = include_str!("../../../../docs/access.md");
    let mark = format!("\n```{language}\n");
    let bodies = page.split(&*mark).skip(1);
    bodies
        .map(|rest| rest.split("\n```").next().unwrap())
        .collect()
}

/// Returns the output of a snippet.
fn prints(program: &str, flag: &str, snippet: &str) -> String {
    let mut command = Command::new(program);
    command.args([flag, snippet]).stdin(Stdio::null());
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/server/keys/ec.pem");
    command
        .env("PUSHWHEEL_TOKEN_SECRET", OLD)
        .env("PRIVATE_KEY_FILE", key);
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_manuals_snippets_make_tokens() {
    let scratch = Scratch::new("manual");
    let public = fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/server/keys/ec.pub.pem"
    ));
    let public = scratch.write("public", &public.unwrap());
    let mut command = pushwheel(&["serve", "--listen", "127.0.0.1:0"]);
    command.args(["--token-public-key-file", &public]);
    command.env("PUSHWHEEL_TOKEN_SECRET", OLD);
    let mut server = Running::spawn(&mut command);
    let address = server.address();
    let (python, node, shell) = (snippets("python"), snippets("js"), snippets("sh"));
    assert_eq!([python.len(), node.len(), shell.len()], [1, 3, 1]);
    for token in [
        prints("python3", "-c", python[0]),
        prints("node", "-e", node[0]),
        prints("node", "-e", node[1]),
        prints("sh", "-c", shell[0]),
    ] {
        let header = format!("Bearer {token}");
        let header = [("Authorization", &*header)];
        let _stream = Subscriber::open(address, "/channels/user.7.inbox", &header);
        let mut connection = Connection::open(address);
        let answer = ask_over(&mut connection, "GET", "/channels/user.8", &header, "");
        assert_eq!(
            refusal(&answer),
            refused(403, "channel_not_allowed"),
            "{token}"
        );
    }
}
