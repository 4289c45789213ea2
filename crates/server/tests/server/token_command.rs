//! `token` and `token check`.

use std::io::Write;
use std::process::Stdio;

use pushwheel_server::{Config, TokenKeys};
use serde_json::{Value, json};

use crate::command_options::{TestFile, failure};
use crate::commands::{Running, pushwheel, run, url};
use crate::common::Served;

const SECRET: &str = "a secret of a test, of 32 bytes!!";

/// Runs a command, and returns the line that it prints.
#[track_caller]
fn line(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.strip_suffix('\n').unwrap().to_owned()
}

#[test]
fn a_made_token_subscribes_and_publishes_where_it_may() {
    let file = TestFile::new("secret", &format!("{SECRET}\n"));
    let secret = ["--token-secret-file", file.path()];
    let own = [
        "token",
        "--subscribe=news",
        "--subscribe=user.7.*",
        "--publish=news",
        "--client=ann",
        "--metadata={\"role\": \"admin\"}",
        "--lifetime=60",
    ];
    let token = line(&[&own[..], &secret].concat());
    let keys = TokenKeys::secret(SECRET.as_bytes()).unwrap();
    let served = Served::start(Config::new().token_keys(keys).engine());
    let news = url(&served, "/channels/news");
    let of_token = TestFile::new("token", &token);
    let mut sub = Running::start(&["sub", &news, "--token-file", of_token.path(), "--count=1"]);
    let publish = |role: &str| {
        let condition = format!("--where=role={role}");
        let file = ["--publish-key-file", of_token.path()];
        run(&[&["pub", &news, "", role, &condition], &file[..]].concat())
    };
    let channel = || served.channels().get("news");
    crate::common::eventually("it subscribes", || {
        channel().is_some_and(|channel| channel.client_ids().len() == 1)
    });
    assert_eq!(channel().unwrap().client_ids()[0], "ann");
    for role in ["user", "admin"] {
        assert!(publish(role).status.success());
    }
    assert_eq!(sub.event(), ["data: admin"]);
    let other = url(&served, "/channels/other");
    let said = failure(&["sub", &other, "--token-file", of_token.path()]);
    assert!(said.contains("channel_not_allowed"), "{said}");
}

#[test]
fn a_token_is_checked_as_the_server_does() {
    let variable = |secret: &str, arguments: &[&str]| {
        let mut command = pushwheel(arguments);
        command.env("PUSHWHEEL_TOKEN_SECRET", secret);
        command
    };
    let made = ["token", "--subscribe=a", "--token-audience=push"];
    let made = variable(SECRET, &made).output().unwrap();
    let token = String::from_utf8(made.stdout).unwrap();
    let token = token.trim_end();
    let other_secret = SECRET.replace("a secret", "another!");
    for (secret, options, code) in [
        (SECRET, &["--token-audience=push"][..], None),
        (SECRET, &[], Some("(token_audience)")),
        (
            &other_secret,
            &["--token-audience=push"],
            Some("(token_invalid)"),
        ),
    ] {
        let check = [&["token", "check", token], options].concat();
        let output = variable(secret, &check).output().unwrap();
        let claims: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(claims["pushwheel"], json!({"subscribe": ["a"]}));
        assert_eq!(claims["aud"], "push");
        let said = String::from_utf8(output.stderr).unwrap();
        let status = i32::from(code.is_some());
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.trim_end().ends_with(code.unwrap_or("")), "{said}");
        assert_eq!(said.is_empty(), code.is_none(), "{said}");
    }

    let mut piped = variable(SECRET, &["token", "check", "-", "--token-audience=push"]);
    let mut piped = piped
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = piped.stdin.take().unwrap();
    writeln!(stdin, "{token}").unwrap();
    drop(stdin);
    assert!(piped.wait().unwrap().success());
}

#[test]
fn a_token_that_cannot_be_made_or_read_has_a_cause() {
    let secret = format!("--token-secret={SECRET}");
    for (arguments, wanted) in [
        (
            &["token", "--subscribe=a"][..],
            "Set --token-secret-file FILE",
        ),
        (
            &["token", "--subscribe=b*c", &secret],
            "its claim `pushwheel.subscribe` lists `b*c`",
        ),
        (
            &[
                "token",
                "--subscribe=a",
                "--lifetime=60",
                "--token-max-lifetime=30",
                &secret,
            ],
            "it is longer than --token-max-lifetime",
        ),
        (
            &["token", "check", "nonsense", &secret],
            "it does not have the form HEADER.CLAIMS.SIGNATURE",
        ),
        (&["token", "check", "a.b.c"], "no key to verify the token"),
    ] {
        let said = failure(arguments);
        assert!(said.contains(wanted), "{said}");
    }
    assert_eq!(run(&["token", &secret]).status.code(), Some(2));
}
