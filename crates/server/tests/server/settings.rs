//! Settings from flags, the environment and a file, and their reload at SIGHUP.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{ChildStderr, Command, Output};

use crate::ask_over;
use crate::commands::{Running, pushwheel, run};
use crate::common::{Connection, Subscriber, eventually, summaries};

/// A directory that is removed when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let directory = format!("pushwheel-settings-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(directory);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    /// Writes a file that other users cannot read, because it may contain a key.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// Returns the lines of a failed command's error.
#[track_caller]
fn complaint(output: &Output) -> Vec<&str> {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    std::str::from_utf8(&output.stderr)
        .unwrap()
        .lines()
        .collect()
}

/// Returns the lines of a printed configuration that set something.
fn set(output: &Output) -> Vec<&str> {
    assert!(output.status.success(), "{output:?}");
    let lines = stdout(output).lines();
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let scratch = Scratch::new("order");
    let file = scratch.write(
        "p.toml",
        "heartbeat = 1\nthreads = 2\nmax_clients_per_channel = 3\n",
    );
    let output = pushwheel(&["config", "--config", &file, "--heartbeat", "10"])
        .env("PUSHWHEEL_HEARTBEAT", "20")
        .env("PUSHWHEEL_THREADS", "30")
        .output()
        .unwrap();
    assert_eq!(
        set(&output),
        [
            "threads = 30",
            "heartbeat = 10",
            "max_clients_per_channel = 3"
        ]
    );
}

#[test]
fn what_is_printed_is_a_file_that_says_the_same() {
    let scratch = Scratch::new("print");
    let arguments = [
        "config",
        "--allow-missing-keys",
        "--listen=0.0.0.0:80",
        "--metadata-index=role,team",
        "--stream-header=X-Robots-Tag: none",
        "--publish-rate=0.5",
        "--lag-policy=skip",
    ];
    let printed = run(&arguments);
    assert_eq!(
        set(&printed),
        [
            "listen = [\"0.0.0.0:80\"]",
            "allow_missing_keys = true",
            "lag_policy = \"skip\"",
            "stream_header = [\"X-Robots-Tag: none\"]",
            "metadata_index = [\"role\", \"team\"]",
            "publish_rate = 0.5",
        ]
    );
    let file = scratch.write("p.toml", stdout(&printed));
    let again = run(&["config", "--config", &file]);
    assert_eq!(stdout(&again), stdout(&printed));
}

#[test]
fn the_tables_of_channels_are_printed_wherever_they_come_from() {
    let scratch = Scratch::new("tables");
    let tables = "[[channel]]\npattern = \"log.*\"\nhistory_events = 20000\n\n\
                  [[channel]]\npattern = \"007\"\npublic = true\nmetadata_index = [\"role\"]\n";
    let file = scratch.write("p.toml", tables);
    let flag = "[{ pattern = 'log.*', history_events = 20000 }, \
                { pattern = '007', public = 'Yes', metadata_index = ['role'] }]";
    for printed in [
        run(&["config", "--config", &file]),
        run(&["config", "--channel", flag]),
        pushwheel(&["config"])
            .env("PUSHWHEEL_CHANNEL", flag)
            .output()
            .unwrap(),
    ] {
        let wanted = tables.lines().filter(|line| !line.is_empty());
        let printed: Vec<&str> = set(&printed);
        let printed = printed.join("\n").replace("\"Yes\"", "true");
        assert_eq!(printed, wanted.collect::<Vec<_>>().join("\n"));
    }
}

#[test]
fn an_empty_variable_is_not_set() {
    let scratch = Scratch::new("empty");
    let file = scratch.write(
        "p.toml",
        "heartbeat = 7\nadmin_key = \"0123456789abcdef\"\n",
    );
    // As compose files write a setting without a value, also of a file of keys.
    let names = [
        "STATE",
        "HEARTBEAT",
        "ACCESS_LOG",
        "ADMIN_KEY_FILE",
        "TRUSTED_PROXY",
        "LOG",
        "LAG_POLICY",
        "CHANNEL",
        "HEARTBEET",
        "TOKEN",
    ];
    let empty = || names.map(|name| (format!("PUSHWHEEL_{name}"), ""));
    for arguments in [&["config"][..], &["config", "--check"]] {
        let mut command = pushwheel(arguments);
        command.env("PUSHWHEEL_CONFIG", &file).envs(empty());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let printed = stdout(&output);
        let is_check = arguments.len() > 1;
        assert!(
            is_check || printed.contains("\nheartbeat = 7\n"),
            "{printed}"
        );
    }
    let mut command = pushwheel(&["serve", "--listen", "127.0.0.1:0"]);
    let mut server = Running::spawn(command.env("PUSHWHEEL_CONFIG", "").envs(empty()));
    server.address();
    let said = server.end();
    let warnings: Vec<&str> = said.lines().filter(|line| line.contains("WARN")).collect();
    assert!(
        matches!(warnings[..], [one] if one.contains("there are no keys")),
        "{said}"
    );
}

#[test]
fn a_boolean_has_its_usual_spellings_everywhere() {
    let scratch = Scratch::new("booleans");
    let names = [
        "allow_missing_keys",
        "access_log",
        "event_log",
        "proxy_protocol",
    ];
    for (text, is_on) in [
        ("1", true),
        ("Yes", true),
        ("ON", true),
        ("0", false),
        ("off", false),
    ] {
        let wanted = names.map(|name| format!("{name} = {is_on}"));
        let settings = |prefix: &str| names.map(|name| format!("{prefix}{name}={text}"));
        let by_flag = settings("--").map(|flag| flag.replace('_', "-"));
        let flags: Vec<&str> = by_flag.iter().map(String::as_str).collect();
        let with_proxy = [
            "config",
            "--trusted-proxy=192.0.2.1",
            "--admin-key=0123456789abcdef",
        ];
        let mut by_flags = pushwheel(&[&with_proxy[..], &flags].concat());
        let mut by_variables = pushwheel(&with_proxy);
        by_variables.env("PUSHWHEEL_PUBLISH_KEY", "fedcba9876543210");
        by_flags.env("PUSHWHEEL_PUBLISH_KEY", "fedcba9876543210");
        for name in names {
            let name = format!("PUSHWHEEL_{}", name.to_uppercase());
            by_variables.env(name, text);
        }
        let lines = names.map(|name| format!("{name} = \"{text}\"\n"));
        let file = scratch.write("p.toml", &lines.concat());
        let mut by_file = pushwheel(&[&with_proxy[..], &["--config", &file]].concat());
        by_file.env("PUSHWHEEL_PUBLISH_KEY", "fedcba9876543210");
        for command in [&mut by_flags, &mut by_variables, &mut by_file] {
            let output = command.output().unwrap();
            let printed = set(&output);
            for line in &wanted {
                assert!(printed.contains(&&**line), "{command:?}: {printed:?}");
            }
        }
    }
    let output = pushwheel(&["config"])
        .env("PUSHWHEEL_ALLOW_MISSING_KEYS", "perhaps")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("use true or false (also 1, 0, yes, no, on, off)"),
        "{said}"
    );
}

#[test]
fn every_default_that_is_printed_can_be_set() {
    let scratch = Scratch::new("defaults");
    let printed = run(&["config"]);
    assert_eq!(set(&printed), [""; 0]);
    let is_set = |line: &&str| {
        line.contains(" = ") && !line.ends_with("# for example") && line.starts_with("# ")
    };
    // The lines of the example for patterns come last, after the head of their table.
    let (all, patterns) = stdout(&printed).split_once("# [[channel]]").unwrap();
    let uncommented = |text: &str| -> String {
        let lines = text.lines().filter(is_set);
        lines.map(|line| format!("{}\n", &line[2..])).collect()
    };
    let text = format!("{}[[channel]]\n{}", uncommented(all), uncommented(patterns));
    assert!(text.contains("history_events = 1000\n"), "{text}");
    // Each heading occurs once.
    let headings = stdout(&printed)
        .lines()
        .filter(|line| line.starts_with("# ---- "));
    let headings: Vec<&str> = headings.collect();
    let distinct: std::collections::BTreeSet<&&str> = headings.iter().collect();
    assert_eq!(headings.len(), distinct.len(), "{headings:?}");
    let file = scratch.write("p.toml", &text);
    let output = run(&["config", "--check", &file]);
    assert_eq!(
        stdout(&output),
        "the settings are correct\n",
        "{output:?}\n{text}"
    );
}

#[test]
fn no_key_is_printed() {
    let output = pushwheel(&["config", "--admin-key", "s3cret-of-the-admin"])
        .env("PUSHWHEEL_PUBLISH_KEY", "s3cret-of-publishers")
        .output()
        .unwrap();
    let printed = stdout(&output);
    assert!(!printed.contains("s3cret"), "{printed}");
    for key in ["publish_key", "admin_key"] {
        assert!(printed.contains(&format!(
            "# {key} is set, but not shown because it is a secret\n"
        )));
    }
}

#[test]
fn a_check_names_each_mistakes_line_and_the_key_that_was_meant() {
    let scratch = Scratch::new("check");
    let file = scratch.write(
        "p.toml",
        "\
heartbeet = 3
max-clients = 4
max_clients_per_channel = \"many\"
zzz = 1

[[channel]]
pattern = \"log.*\"
histroy_events = 3
lag_policy = \"skipp\"

[[channel]]
history_events = 3

[[channel]]
pattern = \"a\"
listen = \"127.0.0.1:0\"
",
    );
    let output = run(&["config", "--check", &file]);
    let lines = complaint(&output);
    let wanted = [
        "p.toml:1: unknown setting `heartbeet`. Did you mean `heartbeat`?",
        "p.toml:2: unknown setting `max-clients`. Did you mean `max_clients_per_channel`?",
        "p.toml:3: invalid value 'many' for '--max-clients-per-channel <N>': use a whole number, such as 1000",
        "p.toml:4: unknown setting `zzz`. `pushwheel config` lists all settings",
        "p.toml:8: unknown setting `histroy_events`. Did you mean `history_events`?",
        "p.toml:9: invalid value 'skipp' for '--lag-policy <POLICY>' \
         [possible values: disconnect, skip, conflate]",
        "p.toml:11: the table has no pattern. Add one, such as pattern = \"log.*\"",
        "p.toml:16: `listen` is a setting of the whole server. Move it above [[channel]]",
    ];
    assert_eq!(lines.len(), wanted.len(), "{lines:#?}");
    for (line, wanted) in lines.iter().zip(wanted) {
        assert!(line.ends_with(wanted), "{line}\n{wanted}");
    }
    // The server does not start either, with the same error.
    let output = run(&["serve", "--config", &file]);
    assert_eq!(complaint(&output), lines);
}

#[test]
fn a_check_finds_what_only_the_whole_shows() {
    let scratch = Scratch::new("whole");
    let file = scratch.write("p.toml", "listen = \"0.0.0.0:8080\"\n");
    let output = run(&["config", "--check", &file]);
    assert!(
        complaint(&output)[0].contains("other machines can reach"),
        "{output:?}"
    );
}

const KEY: &str = "a-key-of-the-tests";

/// Returns a key and a file with a key, each as a flag, a variable and a line of the file.
struct Ways {
    typed: [String; 2],
    variables: [String; 2],
    lines: [String; 2],
}

impl Ways {
    fn of(key: &str, file: &str) -> Ways {
        let flag = key.replace('_', "-");
        let variable = format!("PUSHWHEEL_{}", key.to_uppercase());
        Ways {
            typed: [format!("--{flag}={KEY}"), format!("--{flag}-file={file}")],
            variables: [variable.clone(), format!("{variable}_FILE")],
            lines: [
                format!("{key} = \"{KEY}\"\n"),
                format!("{key}_file = \"{file}\"\n"),
            ],
        }
    }
}

#[test]
fn of_a_key_and_a_file_with_one_the_stronger_place_has_the_last_word() {
    let scratch = Scratch::new("either");
    let key_file = scratch.write("key", &format!("{KEY}\n"));
    for key in ["publish_key", "admin_key"] {
        let ways = Ways::of(key, &key_file);
        let values = [KEY, &key_file];
        // Each of the two in the place that wins, and the other in the place that loses.
        for (strong, weak) in [(0, 1), (1, 0)] {
            let file = scratch.write("p.toml", &ways.lines[weak]);
            let typed = &*ways.typed[strong];
            let by_variable = (&*ways.variables[strong], values[strong]);
            let by_weak_variable = (&*ways.variables[weak], values[weak]);
            for (arguments, variable) in [
                (&["config", "--config", &file][..], Some(by_variable)),
                (&["config", "--config", &file, typed], None),
                (&["config", typed], Some(by_weak_variable)),
                (
                    &["config", "--config", &file, typed],
                    Some(by_weak_variable),
                ),
            ] {
                let with = |more: &[&str]| {
                    let mut command = pushwheel(&[arguments, more].concat());
                    command.envs(variable).output().unwrap()
                };
                let printed = with(&[]);
                let is_hidden =
                    stdout(&printed).contains(&format!("# {key} is set, but not shown"));
                let path = format!("{key}_file = [\"{key_file}\"]");
                let wanted = [vec![], vec![&*path]];
                assert_eq!(set(&printed), wanted[strong], "{arguments:?} {variable:?}");
                assert_eq!(is_hidden, strong == 0, "{arguments:?} {variable:?}");
                assert!(with(&["--check"]).status.success(), "{arguments:?}");
            }
        }
    }
}

#[test]
fn a_key_and_a_key_file_in_the_same_place_are_an_error_with_a_fix() {
    let scratch = Scratch::new("both");
    let key_file = scratch.write("key", &format!("{KEY}\n"));
    for key in ["publish_key", "admin_key"] {
        let Ways {
            typed,
            variables,
            lines,
        } = Ways::of(key, &key_file);
        let file = scratch.write("p.toml", &format!("heartbeat = 15\n{}", lines.concat()));
        let output = run(&["config", "--check", &file]);
        let reported = format!("p.toml:3: `{key}` and `{key}_file` are both set. Keep one");
        assert!(complaint(&output)[0].ends_with(&reported), "{output:?}");
        let flag = key.replace('_', "-");
        for command in ["serve", "config"] {
            let output = run(&[command, &typed[0], &typed[1]]);
            let reported =
                format!("pushwheel: `--{flag}` and `--{flag}-file` are both set. Keep one");
            assert_eq!(complaint(&output), [reported]);
            let values = variables.iter().zip([KEY, &key_file]);
            let output = pushwheel(&[command]).envs(values).output().unwrap();
            let [one, other] = &variables;
            let reported = format!("pushwheel: `{one}` and `{other}` are both set. Keep one");
            assert_eq!(complaint(&output), [reported]);
        }
    }
}

#[test]
fn a_reload_knows_which_place_is_the_stronger_one_too() {
    let scratch = Scratch::new("either-reload");
    let key_file = scratch.write("key", "key-of-tests-from-file\n");
    let line = format!("publish_key_file = \"{key_file}\"\n");
    let file = scratch.write("p.toml", &line);
    let mut command = pushwheel(&["serve", "--listen", "127.0.0.1:0", "--config", &file]);
    command.env("PUSHWHEEL_PUBLISH_KEY", "key-of-tests-from-variable");
    let mut it = Reloading::spawn(scratch, &mut command);
    let address = it.server.address();
    let said = it.reload(&format!("{line}heartbeat = 3\n"));
    assert!(
        said.ends_with("configuration reloaded, changed: heartbeat\n"),
        "{said}"
    );
    for (key, status) in [
        ("key-of-tests-from-variable", 200),
        ("key-of-tests-from-file", 403),
    ] {
        assert_eq!(publish_with(key, address), status, "{key}");
    }
}

#[test]
fn an_error_across_settings_names_its_line_too() {
    let scratch = Scratch::new("blame");
    let empty = scratch.write("empty", "");
    let missing = format!("\nadmin_key_file = \"{empty}-missing\"\n");
    let pattern = |text: &str| format!("[[channel]]\npattern = \"{text}\"\n");
    for (text, reported) in [
        (
            "\nlisten = \"8080\"\n",
            "p.toml:2: listen: cannot listen on 8080",
        ),
        (
            "\nlisten = \"0.0.0.0:1\"\n",
            "p.toml:2: listen: other machines can reach 0.0.0.0:1",
        ),
        (
            "publish_key = \"a b\"\n",
            "p.toml:1: publish_key: --publish-key",
        ),
        (&*missing, "p.toml:2: admin_key_file: cannot read"),
        (&*missing, "(No such file or directory). Check the path"),
        (
            "token_secret = \"short\"\n",
            "p.toml:1: token_secret: --token-secret",
        ),
        (
            "\nshutdown_window = 100\n",
            "p.toml:2: shutdown_window: a shutdown",
        ),
        (
            "trusted_proxy = \"127.0.0.1\"\n",
            "p.toml:1: trusted_proxy: other machines",
        ),
        ("proxy_protocol = true\n", "p.toml:1: proxy_protocol: "),
        (
            &*[pattern("*"), pattern("a")].concat(),
            "p.toml:3: the pattern `a` never applies",
        ),
        (
            &*[pattern("a"), pattern("a")].concat(),
            "p.toml:3: the pattern `a` never applies",
        ),
        ("heartbeat = 3s\n", "p.toml:1: a number has no unit"),
        (
            "admin_key = [\"a-key-of-the-tests\"]\n",
            "p.toml:1: `admin_key` has one value, not an array. Write admin_key = VALUE",
        ),
        (
            "[[channel]]\npattern = \"a\"\npublic = [true]\n",
            "p.toml:3: `public` has one value",
        ),
        (
            "max_clients_per_channel = 0\n",
            "use 1 or more, or omit the option for no limit",
        ),
        ("max_connections = 0\n", "use a whole number of at least 1"),
        ("threads = \"two\"\n", "use a whole number from 1 to 64"),
        (
            "receive_buffer_bytes = 1\n",
            "use a whole number from 16384 to",
        ),
        ("allow_host = \"https://a.b\"\n", "only the host name"),
    ] {
        let file = scratch.write("p.toml", text);
        let output = run(&["config", "--check", &file]);
        let lines = complaint(&output);
        assert!(lines[0].contains(reported), "{text}: {lines:?}");
    }
    // The place that wins is named in the error.
    let file = scratch.write("p.toml", "listen = \"127.0.0.1:0\"\n");
    let output = run(&["config", "--config", &file, "--listen", "8080"]);
    assert!(complaint(&output)[0].starts_with("pushwheel: cannot listen on 8080"));
}

#[test]
fn a_variable_that_nothing_reads_is_a_mistake_to_a_check_and_a_warning_to_the_server() {
    let reported = "unknown variable PUSHWHEEL_HEARTBEET. Did you mean PUSHWHEEL_HEARTBEAT?";
    let scratch = Scratch::new("variable");
    let file = scratch.write("p.toml", "histroy_events = 1\n");
    let with = |arguments: &[&str]| {
        let mut command = pushwheel(arguments);
        command.env("PUSHWHEEL_HEARTBEET", "s3cret");
        command
    };
    let output = with(&["config", "--check"]).output().unwrap();
    assert_eq!(complaint(&output), [format!("pushwheel: {reported}")]);
    // In addition to the errors in the file.
    let output = with(&["config", "--check", &file]).output().unwrap();
    let lines = complaint(&output);
    assert!(lines[0].contains("Did you mean `history_events`?"));
    assert_eq!(lines[1..], [reported]);

    let mut server = Running::spawn(&mut with(&["serve", "--listen", "127.0.0.1:0"]));
    let address = server.address();
    assert_eq!(head(address, "/channels/a").status, 200);
    let said = server.end();
    assert!(said.contains("WARN") && said.contains(reported), "{said}");
    assert!(!said.contains("s3cret"), "{said}");
}

#[test]
fn events_larger_than_bodies_are_a_mistake_to_a_check_and_a_warning_to_the_server() {
    let scratch = Scratch::new("bodies");
    let reported = "an event of 5000000 bytes cannot arrive, because a body has at most 1048576 \
                bytes. Set --max-body-bytes to 5000000 or more";
    let large = "max_event_bytes = 5000000\n";
    let rule = "[[channel]]\npattern = \"a\"\n";
    for (text, place) in [
        (large.to_owned(), "p.toml:1: max_event_bytes: "),
        (format!("\n{rule}{large}"), "p.toml:2: "),
    ] {
        let file = scratch.write("p.toml", &text);
        let output = run(&["config", "--check", &file]);
        let lines = complaint(&output);
        assert!(
            lines[0].contains(&format!("{place}{reported}")),
            "{lines:?}"
        );
        let output = run(&["config", "--check", &file, "--max-body-bytes=5000000"]);
        assert!(output.status.success(), "{output:?}");
        let mut server = Running::start(&["serve", "--listen=127.0.0.1:0", "--config", &file]);
        server.address();
        let said = server.end();
        assert!(said.contains("WARN") && said.contains(reported), "{said}");
    }
    // Smaller bodies are set on purpose.
    let file = scratch.write("p.toml", &format!("max_body_bytes = 1000\n{rule}"));
    assert!(run(&["config", "--check", &file]).status.success());
    // A reload warns too.
    let mut it = Reloading::start("reloaded-bodies", "");
    it.server.address();
    assert!(it.reload(large).contains(reported));
}

#[test]
fn an_invalid_value_is_reported_with_its_variable() {
    let mut command = pushwheel(&["serve", "--listen", "127.0.0.1:0"]);
    let output = command.env("PUSHWHEEL_HEARTBEAT", "15s").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("without a unit"), "{said}");
    let tip = "tip: '--heartbeat' comes from the variable PUSHWHEEL_HEARTBEAT";
    assert!(said.contains(tip), "{said}");
}

#[test]
fn a_time_that_cannot_be_meant_is_refused_with_an_example_in_seconds() {
    for (flag, text, range) in [
        ("--heartbeat", "1.5", "0 to 3600"),
        ("--heartbeat", "15s", "0 to 3600"),
        ("--heartbeat", "99999999999999", "0 to 3600"),
        ("--history-age", "99999999999999", "0 to 31536000"),
        ("--max-stream-age", "99999999999999", "0 to 31536000"),
        ("--head-timeout", "0", "1 to 86400"),
        ("--body-timeout", "86401", "1 to 86400"),
        ("--idle-timeout", "86401", "1 to 86400"),
        ("--stall-timeout", "86401", "1 to 86400"),
        ("--shutdown-delay", "86401", "0 to 86400"),
        ("--shutdown-window", "86401", "0 to 86400"),
        ("--shutdown-deadline", "86401", "0 to 86400"),
    ] {
        let output = run(&["config", "--check", flag, text]);
        let said = String::from_utf8(output.stderr).unwrap();
        let reported =
            format!("a whole number from {range}, in seconds without a unit, such as 15");
        assert!(said.contains(&reported), "{flag} {text}: {said}");
    }
}

#[test]
fn flags_of_other_servers_are_reported_with_ours() {
    for (arguments, reported) in [
        (
            &["serve", "--port", "8080"][..],
            "'--listen 127.0.0.1:8080'",
        ),
        (
            &["serve", "--allow-host", "0.0.0.0"],
            "--listen 0.0.0.0:8080",
        ),
        (&["serve", "--listen", "8080"], "--listen 127.0.0.1:8080"),
        (
            &["serve", "--stream-header", "content-type: a/b"],
            "Remove it",
        ),
        (&["serve", "--state", "/"], "Use a file in it"),
        (
            &["pub", "http://127.0.0.1:1/channels/a", "x"],
            "'pub URL \"\" DATA'",
        ),
        (&["config", "p.toml"], "'--check FILE'"),
    ] {
        let output = run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        // clap wraps its lines.
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(reported), "{arguments:?}: {said}");
    }
}

#[test]
fn channels_have_the_options_of_the_first_pattern_that_matches() {
    let scratch = Scratch::new("patterns");
    let text = "\
listen = \"127.0.0.1:0\"
stream_header = [\"X-Is: any\"]
[[channel]]
pattern = \"log.audit\"
stream_header = [\"X-Is: audit\"]
[[channel]]
pattern = \"log.*\"
stream_header = [\"X-Is: log\", \"X-Long: yes\"]
";
    let mut server = Running::start(&["serve", "--config", &scratch.write("p.toml", text)]);
    let address = server.address();
    for (channel, is, long) in [
        ("log.audit", "audit", None),
        ("log.web", "log", Some("yes")),
        ("news", "any", None),
    ] {
        let answer = head(address, &format!("/channels/{channel}"));
        assert_eq!(answer.header("x-is"), Some(is), "{channel}");
        assert_eq!(answer.header("x-long"), long, "{channel}");
    }
}

/// Returns the head of a stream.
fn head(address: SocketAddr, path: &str) -> crate::common::client::Answer {
    let mut connection = Connection::open(address);
    connection.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    connection.head()
}

/// Publishes `hi` on `news`, and returns the status.
fn publish_with(key: &str, address: SocketAddr) -> u16 {
    let header = format!("Bearer {key}");
    let header = [("Authorization", &*header)];
    let mut connection = Connection::open(address);
    ask_over(&mut connection, "POST", "/channels/news", &header, "hi").status
}

/// A server with a configuration file, and its standard error.
struct Reloading {
    server: Running,
    scratch: Scratch,
    log: BufReader<ChildStderr>,
}

impl Reloading {
    fn start(name: &str, text: &str) -> Reloading {
        let scratch = Scratch::new(name);
        let file = scratch.write("p.toml", text);
        let arguments = ["serve", "--config", &file, "--listen", "127.0.0.1:0"];
        Reloading::spawn(scratch, &mut pushwheel(&arguments))
    }

    /// Starts it with a command that names the file in `scratch`.
    fn spawn(scratch: Scratch, command: &mut Command) -> Reloading {
        let mut server = Running::spawn(command);
        let log = BufReader::new(server.take_stderr());
        Reloading {
            server,
            scratch,
            log,
        }
    }

    /// Reloads another text, and returns the line that reports it.
    fn reload(&mut self, text: &str) -> String {
        self.scratch.write("p.toml", text);
        self.server.signal("HUP");
        self.said()
    }

    fn said(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.log.read_line(&mut line).unwrap();
            // Most of these servers have no keys and warn of that as they start, and the tests
            // send wrong keys.
            let others = ["every program that reaches this port", "sent a wrong key"];
            if !others.iter().any(|other| line.contains(other)) {
                return line;
            }
        }
    }
}

#[test]
fn sighup_changes_keys_limits_and_channels_and_disconnects_no_client() {
    let before = "publish_key = \"first-key-of-tests\"\nadmin_key = \"admin-key-of-tests\"\nstream_header = [\"X-Is: old\"]\n";
    let mut it = Reloading::start("reload", before);
    let address = it.server.address();
    let mut stream = Subscriber::open(address, "/channels/news", &[]);
    stream.wait_for_id();
    let publish = |key: &str| publish_with(key, address);
    assert_eq!(
        (publish("first-key-of-tests"), publish("other-key-of-tests")),
        (200, 403)
    );
    let said = it.reload(
        "publish_key = \"other-key-of-tests\"\nadmin_key = \"admin-key-of-tests\"\n\
         stream_header = [\"X-Is: new\"]\npublish_rate_per_address = 0.0002\n",
    );
    let names = "publish_key, stream_header, publish_rate_per_address";
    assert!(
        said.contains(&format!("configuration reloaded, changed: {names}")),
        "{said}"
    );
    assert!(!said.contains("other-key-of-tests"), "{said}");
    assert_eq!(
        (publish("first-key-of-tests"), publish("other-key-of-tests")),
        (403, 200)
    );
    assert_eq!(publish("other-key-of-tests"), 429);
    assert_eq!(head(address, "/channels/news").header("x-is"), Some("new"));
    assert_eq!(summaries(&stream.take(2)), ["hi", "hi"]);
}

#[test]
fn a_reload_names_the_patterns_that_changed() {
    let rule = |pattern: &str, bytes: u32| {
        format!("[[channel]]\npattern = \"{pattern}\"\nmax_event_bytes = {bytes}\n")
    };
    let rules = |rules: &[(&str, u32)]| -> String {
        rules
            .iter()
            .map(|(name, bytes)| rule(name, *bytes))
            .collect()
    };
    let mut it = Reloading::start("rules", &rules(&[("a.*", 1000), ("b", 1000)]));
    it.server.address();
    for (text, reported) in [
        (
            rules(&[("a.*", 1000), ("b", 999)]),
            "changed: [[channel]] b",
        ),
        (
            rules(&[("b", 999), ("a.*", 1000)]),
            "changed: [[channel]] a.*, [[channel]] b",
        ),
        (
            rules(&[("c", 7), ("b", 999)]),
            "changed: [[channel]] a.*, [[channel]] c",
        ),
        // The same, in another order.
        (
            format!("\n# c\n{}", rules(&[("c", 7), ("b", 999)])),
            "nothing changed",
        ),
        (
            format!("heartbeat = 3\n{}", rule("b", 999)),
            "changed: heartbeat, [[channel]] c",
        ),
    ] {
        let said = it.reload(&text);
        let reported = format!("configuration reloaded, {reported}\n");
        assert!(said.ends_with(&reported), "{said}");
    }
}

#[test]
fn sighup_changes_the_engines_limits() {
    let mut it = Reloading::start("limits", "max_connections = 1\n");
    let address = it.server.address();
    let mut inside = Subscriber::open(address, "/channels/a", &[]);
    inside.wait_for_id();
    let ask = || {
        let mut connection = Connection::open(address);
        connection.send("GET /channels/a HTTP/1.1\r\nHost: localhost\r\n\r\n");
        connection.head().status
    };
    assert_eq!(ask(), 503);
    let said = it.said();
    assert!(said.contains("no new streams with 1 connections"), "{said}");
    let said = it.reload("max_connections = 5\nsend_buffer_bytes = 16384\n");
    assert!(
        said.contains("send_buffer_bytes: changed, but takes effect only after a restart"),
        "{said}"
    );
    assert!(
        it.said()
            .contains("configuration reloaded, changed: max_connections")
    );
    eventually("there is room", || ask() == 200);
}

#[test]
fn a_reload_with_a_mistake_changes_nothing_and_says_where_it_is() {
    let mut it = Reloading::start("mistake", "stream_header = [\"X-Is: old\"]\n");
    let address = it.server.address();
    let said = it.reload("stream_header = [\"X-Is: new\"]\nheartbeet = 1\n");
    assert!(
        said.contains("not reloaded") && said.contains("p.toml:2: "),
        "{said}"
    );
    assert!(said.contains("Did you mean `heartbeat`?"), "{said}");
    assert_eq!(head(address, "/channels/a").header("x-is"), Some("old"));
    let said = it.reload("stream_header = [\"X-Is: new\"]\n");
    assert!(
        said.contains("configuration reloaded, changed: stream_header"),
        "{said}"
    );
    assert_eq!(head(address, "/channels/a").header("x-is"), Some("new"));
}

#[test]
fn what_only_a_start_can_change_is_named() {
    let mut it = Reloading::start("fixed", "");
    it.server.address();
    let said = it.reload("threads = 2\n");
    assert!(
        said.contains("threads: changed, but takes effect only after a restart"),
        "{said}"
    );
    let said = it.said();
    assert!(said.contains("configuration reloaded"), "{said}");
}

#[test]
fn a_reload_is_checked_with_the_address_of_the_running_server() {
    let keys = "publish_key = \"first-key-of-tests\"\nadmin_key = \"admin-key-of-tests\"\n\
                public_channel = \"*\"\n";
    for fixed in [
        "listen = \"0.0.0.0:0\"\n",
        "listen = \"127.0.0.1:0\"\ntrusted_proxy = \"192.0.2.1\"\n",
    ] {
        // Without the keys a restart would need none.
        let scratch = Scratch::new("reach");
        let file = scratch.write("p.toml", &format!("{fixed}{keys}"));
        let mut it = Reloading::spawn(scratch, &mut pushwheel(&["serve", "--config", &file]));
        let port = it.server.address().port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let said = it.reload("listen = \"127.0.0.1:0\"\n");
        assert!(said.contains("not reloaded"), "{fixed}: {said}");
        assert!(said.contains("admin-key"), "{fixed}: {said}");
        let answer = Connection::open(address).post("/channels/a", "x");
        assert_eq!(answer.status, 401, "{fixed}");
    }
}

#[test]
fn what_holds_at_once_does_so_beside_what_needs_a_start() {
    let mut it = Reloading::start("ending", "");
    let address = it.server.address();
    let text = "threads = 2\nshutdown_delay = 0\nshutdown_window = 0\nshutdown_deadline = 77\n";
    assert!(
        it.reload(text)
            .contains("threads: changed, but takes effect only after")
    );
    let names = "shutdown_window, shutdown_deadline";
    assert!(it.said().contains(names));
    // The log names again what needs a restart, and not what is applied already.
    assert!(
        it.reload(text)
            .contains("threads: changed, but takes effect only after")
    );
    assert!(
        it.said()
            .ends_with("configuration reloaded, nothing changed\n")
    );
    let _stream = Subscriber::open(address, "/channels/a", &[]);
    it.server.signal("TERM");
    let said = it.said();
    assert!(said.contains("shutting down (up to 77 s)"), "{said}");
    assert_eq!(it.server.exit_code(), Some(0));
}
