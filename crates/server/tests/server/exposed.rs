//! Settings that let other users read a secret, or let clients choose their address. The
//! server warns of them, and a check refuses them.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;

use super::access::Scratch;
use super::commands::{Running, pushwheel, run};

const KEY: &str = "a-key-of-these-tests-here";

/// Returns the warnings of `pushwheel config` with these arguments, and whether a check
/// accepts them.
fn warned(arguments: &[&str]) -> (String, bool) {
    let printed = run(&[&["config"], arguments].concat());
    assert!(printed.status.success(), "{printed:?}");
    let checked = run(&[&["config", "--check"], arguments].concat());
    let said = String::from_utf8(printed.stderr).unwrap();
    (said, checked.status.success())
}

#[test]
fn a_network_of_proxies_that_is_almost_everything_is_doubtful() {
    let keys = [
        "--publish-key",
        KEY,
        "--admin-key",
        "another-key-of-these-tests",
    ];
    for (network, is_doubtful) in [
        ("0.0.0.0/0", true),
        ("128.0.0.0/7", true),
        ("10.0.0.0/8", false),
        ("127.0.0.1", false),
        ("::/0", true),
        ("2000::/3", true),
        ("fd00::/16", false),
    ] {
        let (said, is_accepted) = warned(&[&["--trusted-proxy", network], &keys[..]].concat());
        let reported = format!("all of {network} is trusted for client addresses");
        assert_eq!(said.contains(&reported), is_doubtful, "{network}: {said}");
        assert_eq!(is_accepted, !is_doubtful, "{network}");
    }
}

#[test]
fn a_secret_that_other_users_may_read_is_doubtful() {
    let scratch = Scratch::new("exposed");
    let key = scratch.write("key", KEY);
    let secret = scratch.write("secret", "a secret of a test, of 32 bytes!!");
    let public = scratch.write("public", include_str!("keys/ec.pub.pem"));
    let with_key = scratch.write("with-key.toml", &format!("admin_key = \"{KEY}\"\n"));
    let without_key = scratch.write("p.toml", "heartbeat = 20\n");
    for (flag, path, is_secret) in [
        ("--publish-key-file", &key, true),
        ("--admin-key-file", &key, true),
        ("--token-secret-file", &secret, true),
        ("--token-public-key-file", &public, false),
        ("--config", &with_key, true),
        ("--config", &without_key, false),
    ] {
        for (mode, may) in [
            (0o600, None),
            (0o640, None),
            (0o644, is_secret.then_some("read")),
            (0o666, Some("change")),
        ] {
            set_permissions(path, Permissions::from_mode(mode)).unwrap();
            let (said, is_accepted) = warned(&[flag, path]);
            let reported =
                may.map(|may| format!("other users can {may} {path}. Run `chmod o= {path}`"));
            let is_reported = reported.is_none_or(|reported| said.contains(&reported));
            assert!(is_reported, "{flag} {mode:o}: {said}");
            assert_eq!(
                said.contains("other users"),
                may.is_some(),
                "{flag} {mode:o}: {said}"
            );
            assert_eq!(is_accepted, may.is_none(), "{flag} {mode:o}");
        }
    }
}

/// systemd creates a directory that only the service can read for its credentials.
#[test]
fn a_credential_of_systemd_is_not_doubtful_and_a_server_warns_of_others() {
    let scratch = Scratch::new("credentials");
    let key = scratch.write("key", KEY);
    set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let directory = key.strip_suffix("/key").unwrap();
    for (directory, is_reported) in [(directory, false), ("/nowhere", true)] {
        let mut command =
            pushwheel(&["serve", "--listen", "127.0.0.1:0", "--admin-key-file", &key]);
        command.env("CREDENTIALS_DIRECTORY", directory);
        let mut server = Running::spawn(&mut command);
        server.address();
        let said = server.end();
        assert_eq!(said.contains("other users can read"), is_reported, "{said}");
    }
}
