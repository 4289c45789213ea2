//! What follows a command's options in its help and in its manual page.

use clap::Command;
use clap_mangen::roff::{Roff, bold, roman};

/// A term and its explanation.
type Entry = (&'static str, &'static str);

/// The sections of one command; an empty one is not shown.
#[derive(Debug, Default)]
pub(crate) struct Manual {
    /// Command lines, each after its purpose.
    examples: &'static [Entry],
    files: &'static [Entry],
    exit_status: &'static [Entry],
    signals: &'static [Entry],
    /// Other commands of pushwheel.
    see_also: &'static [&'static str],
}

/// The settings of `serve` that its short help shows: enough for a first server.
const SHORT: [&str; 22] = [
    "config",
    "listen",
    "state",
    "publish_key_file",
    "admin_key_file",
    "allow_missing_keys",
    "token_secret_file",
    "token_jwks_file",
    "public_channel",
    "allow_origin",
    "trusted_proxy",
    "log",
    "access_log",
    "history_events",
    "history_age",
    "heartbeat",
    "lag_policy",
    "max_clients_per_channel",
    "max_channels",
    "max_connections",
    "max_event_bytes",
    "help",
];

/// Adds the sections to the help of each subcommand. With `is_short` (`-h`) it
/// leaves out the variables, so that each option has one line.
pub(crate) fn add_to(command: Command, is_short: bool) -> Command {
    command.mut_subcommands(|command| {
        let name = command.get_name().to_owned();
        let manual = Manual::of(&name);
        let examples = text("Examples", manual.examples);
        let rest = [
            ("Files", manual.files),
            ("Exit status", manual.exit_status),
            ("Signals", manual.signals),
        ];
        let rest = rest.map(|(title, entries)| text(title, entries)).concat();
        let short = match &*name {
            "serve" => "`pushwheel serve --help` shows all settings, and examples. Each setting is also an\n\
                        environment variable and a key of the file: --max-channels is PUSHWHEEL_MAX_CHANNELS\n\
                        and max_channels."
                .to_owned(),
            "config" => format!("{examples}Also accepts every option of `pushwheel serve`."),
            _ => examples.clone(),
        };
        let command = command.mut_args(|arg| {
            let id = arg.get_id().as_str();
            let is_shown = match &*name {
                "serve" => SHORT.contains(&id),
                "config" => ["check", "config", "help"].contains(&id),
                _ => true,
            };
            arg.hide_short_help(!is_shown).hide_env(is_short)
        });
        let short = short.trim_end().to_owned();
        let long = (examples + &rest).trim_end().to_owned();
        match long.is_empty() {
            true => command,
            false => command.after_help(short).after_long_help(long),
        }
    })
}

/// The entries below a title, as lines of help.
fn text(title: &str, entries: &[Entry]) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let line = |(term, explanation): &Entry| format!("  {term}\n      {explanation}\n");
    let lines = entries.iter().map(line);
    format!("{title}:\n{}\n", lines.collect::<String>())
}

impl Manual {
    /// Adds the sections to a manual page.
    pub(crate) fn write(&self, roff: &mut Roff) {
        if !self.examples.is_empty() {
            roff.control("SH", ["EXAMPLES"]);
        }
        for (purpose, line) in self.examples {
            roff.control("PP", []).text([roman(*purpose)]);
            roff.control("PP", [])
                .control("RS", ["4"])
                .control("nf", []);
            roff.text([bold(*line)]).control("fi", []).control("RE", []);
        }
        for (title, entries) in [
            ("FILES", self.files),
            ("EXIT STATUS", self.exit_status),
            ("SIGNALS", self.signals),
        ] {
            if !entries.is_empty() {
                roff.control("SH", [title]);
            }
            for (term, explanation) in entries {
                roff.control("TP", [])
                    .text([bold(*term)])
                    .text([roman(*explanation)]);
            }
        }
        roff.control("SH", ["SEE ALSO"]);
        let pages = self.see_also.iter().map(|name| format!("pushwheel-{name}"));
        let pages = ["pushwheel".to_owned()].into_iter().chain(pages);
        let pages: Vec<String> = pages.map(|page| format!("{page}(1)")).collect();
        roff.text([roman(pages.join(", "))]);
    }

    /// The sections of a subcommand.
    pub(crate) fn of(command: &str) -> Manual {
        match command {
            "serve" => Manual {
                examples: &[
                    (
                        "A server for this machine, without keys:",
                        "pushwheel serve",
                    ),
                    (
                        "A server for other machines, which publish and manage with keys:",
                        "pushwheel serve --listen 0.0.0.0:8080 --publish-key-file publish-key --admin-key-file admin-key",
                    ),
                    (
                        "A server that keeps its history over a restart:",
                        "pushwheel serve --state /var/lib/pushwheel/state",
                    ),
                    (
                        "A server that loses nothing when it is killed:",
                        "pushwheel serve --journal /var/lib/pushwheel/journal",
                    ),
                    (
                        "Settings from a file:",
                        "pushwheel serve --config /etc/pushwheel/pushwheel.toml",
                    ),
                ],
                files: &[
                    (
                        "FILE of --config",
                        "Settings in TOML. `pushwheel config` prints such a file with every setting.",
                    ),
                    (
                        "FILE of --state",
                        "The history of a server that has ended. The next start removes it.",
                    ),
                    (
                        "FILE.lock",
                        "Locked while a server uses the state FILE. It stays.",
                    ),
                    ("FILE.tmp", "The state FILE while it is being saved."),
                    (
                        "DIR of --journal",
                        "Everything published: `*.log` and `snapshot-*`. `lock` is locked while a server uses the directory, and stays.",
                    ),
                ],
                exit_status: &[
                    ("0", "A signal ended the server, and the history is saved."),
                    (
                        "1",
                        "The server could not start, failed, could not save the history, or could not write the journal.",
                    ),
                    ("2", "An argument is invalid."),
                    (
                        "130, 143",
                        "A second signal (SIGINT, SIGTERM) ended the shutdown early.",
                    ),
                ],
                signals: &[
                    (
                        "SIGTERM, SIGINT",
                        "Shut down: end the streams within --shutdown-deadline, save the history, exit. A second signal ends all streams immediately. A third one exits without saving.",
                    ),
                    (
                        "SIGHUP",
                        "Read the configuration file, keys and tokens again. Clients stay connected.",
                    ),
                ],
                see_also: &["config", "check", "journal", "pub", "sub"],
            },
            "config" => Manual {
                examples: &[
                    (
                        "A file with every setting, its purpose and its default:",
                        "pushwheel config > pushwheel.toml",
                    ),
                    (
                        "Whether a file is correct:",
                        "pushwheel config --check pushwheel.toml",
                    ),
                ],
                exit_status: &[
                    ("0", "The settings are correct."),
                    (
                        "1",
                        "A setting is wrong. With --check, also if `pushwheel serve` would only warn.",
                    ),
                    ("2", "An argument is invalid."),
                ],
                see_also: &["serve"],
                ..Manual::default()
            },
            "sub" => Manual {
                examples: &[
                    (
                        "Print new events until interrupted:",
                        "pushwheel sub http://127.0.0.1:8080/channels/news",
                    ),
                    (
                        "Start with the last ten events:",
                        "pushwheel sub http://127.0.0.1:8080/channels/news --last 10",
                    ),
                    (
                        "Wait for one event, as JSON:",
                        "pushwheel sub http://127.0.0.1:8080/channels/news --count 1 --json",
                    ),
                ],
                exit_status: &[
                    (
                        "0",
                        "The channel is finished (204), the events of --count are printed, or the reader of the output has closed it.",
                    ),
                    (
                        "1",
                        "The first connection or the reconnections of --retry failed, or the server rejected the request.",
                    ),
                    ("2", "An argument is invalid."),
                ],
                see_also: &["pub", "check"],
                ..Manual::default()
            },
            "pub" => Manual {
                examples: &[
                    (
                        "An event with a name:",
                        "pushwheel pub http://127.0.0.1:8080/channels/news greeting hello",
                    ),
                    (
                        "Data from standard input, without a name:",
                        "date | pushwheel pub http://127.0.0.1:8080/channels/news '' -",
                    ),
                    (
                        "A batch of events, one JSON object per line:",
                        "pushwheel pub http://127.0.0.1:8080/channels/news --file events.ndjson",
                    ),
                    (
                        "To the clients whose metadata has a role, except one user:",
                        "pushwheel pub http://127.0.0.1:8080/channels/news greeting hello --where role=admin --not user=7",
                    ),
                ],
                exit_status: &[
                    (
                        "0",
                        "The events are published. The response is on standard output.",
                    ),
                    (
                        "1",
                        "The events are not published, or the response did not arrive.",
                    ),
                    ("2", "An argument is invalid."),
                ],
                see_also: &["sub"],
                ..Manual::default()
            },
            "token" => Manual {
                examples: &[
                    (
                        "A token to subscribe to two kinds of channels for ten minutes:",
                        "pushwheel token --subscribe news --subscribe 'user.7.*' --token-secret-file token-secret",
                    ),
                    (
                        "The claims of a token, and why the server rejects it:",
                        "pushwheel token check \"$TOKEN\" --token-secret-file token-secret",
                    ),
                ],
                exit_status: &[
                    ("0", "The token is made, or valid."),
                    (
                        "1",
                        "The token cannot be made, or the server would reject it. Standard error has the reason.",
                    ),
                    ("2", "An argument is invalid."),
                ],
                see_also: &["serve", "sub", "pub"],
                ..Manual::default()
            },
            "token-check" => Manual {
                see_also: &["token", "serve"],
                ..Manual::default()
            },
            "health" => Manual {
                examples: &[
                    ("A server on this machine:", "pushwheel health"),
                    (
                        "Whether a server has room for more clients:",
                        "pushwheel health https://push.example.com --ready",
                    ),
                ],
                exit_status: &[
                    ("0", "The server is up (200)."),
                    (
                        "1",
                        "The server is unreachable, shutting down, or with --ready full. Standard error has the reason.",
                    ),
                    ("2", "An argument is invalid."),
                ],
                see_also: &["serve", "check"],
                ..Manual::default()
            },
            "journal" => Manual {
                see_also: &[
                    "journal-check",
                    "journal-import",
                    "journal-restored",
                    "serve",
                ],
                ..Manual::default()
            },
            "journal-check" => Manual {
                examples: &[(
                    "What a journal has, and whether it is whole:",
                    "pushwheel journal check /var/lib/pushwheel/journal",
                )],
                exit_status: &[
                    (
                        "0",
                        "A server can use the journal. An incomplete end is reported, and is not damage.",
                    ),
                    (
                        "1",
                        "The journal is damaged, of a newer release, or cannot be read. Standard error has the file and the place.",
                    ),
                    ("2", "An argument is invalid."),
                ],
                see_also: &["journal", "serve"],
                ..Manual::default()
            },
            "journal-restored" => Manual {
                examples: &[(
                    "Before a server uses a journal from a backup:",
                    "pushwheel journal restored /var/lib/pushwheel/journal",
                )],
                exit_status: &[
                    ("0", "A server can use the journal."),
                    (
                        "1",
                        "There is no journal, or it is damaged or in use. Standard error has the reason.",
                    ),
                    ("2", "An argument is invalid."),
                ],
                see_also: &["journal", "serve"],
                ..Manual::default()
            },
            "journal-import" => Manual {
                examples: &[(
                    "From a server on --state to one on --journal, when it has ended:",
                    "pushwheel journal import --state /var/lib/pushwheel/state /var/lib/pushwheel/journal",
                )],
                exit_status: &[
                    ("0", "The journal is made."),
                    (
                        "1",
                        "The state cannot be used, or the directory has a journal. Standard error has the reason.",
                    ),
                    ("2", "An argument is invalid."),
                ],
                see_also: &["journal", "serve"],
                ..Manual::default()
            },
            "check" => Manual {
                examples: &[
                    (
                        "Examine a stream from outside:",
                        "pushwheel check https://push.example.com/channels/news",
                    ),
                    (
                        "Publish too, to check buffering and resumption:",
                        "pushwheel check http://127.0.0.1:8080/channels/doctor --publish-url http://127.0.0.1:8080/channels/doctor",
                    ),
                    (
                        "Examine the broker of a cluster:",
                        "pushwheel check redis://redis.example:6379 --broker-password-file /etc/pushwheel/broker-password",
                    ),
                ],
                exit_status: &[
                    ("0", "No check failed."),
                    ("1", "A check failed (with --strict: or warned)."),
                    (
                        "2",
                        "There is no stream or broker: the server is unreachable or returned something else. Or an argument is invalid.",
                    ),
                ],
                see_also: &["sub", "serve"],
                ..Manual::default()
            },
            "bench" => Manual {
                examples: &[
                    (
                        "One event at a time to 1,000 clients, beside a bare loop of send():",
                        "pushwheel bench fanout --clients 1000 --events 100 --against bare",
                    ),
                    (
                        "Memory of 18,000 idle clients:",
                        "pushwheel bench idle --clients 18000",
                    ),
                ],
                exit_status: &[
                    ("0", "All events arrived, and the results are printed."),
                    ("1", "A server could not be started, or a stream was wrong."),
                    ("2", "An argument is invalid."),
                ],
                see_also: &["serve"],
                ..Manual::default()
            },
            "completions" => Manual {
                examples: &[(
                    "For bash:",
                    "pushwheel completions bash > ~/.local/share/bash-completion/completions/pushwheel",
                )],
                see_also: &["man"],
                ..Manual::default()
            },
            "man" => Manual {
                examples: &[(
                    "For the current user:",
                    "pushwheel man ~/.local/share/man/man1",
                )],
                see_also: &["completions"],
                ..Manual::default()
            },
            "pushwheel" => Manual {
                see_also: &[
                    "serve",
                    "config",
                    "sub",
                    "pub",
                    "token",
                    "health",
                    "check",
                    "bench",
                    "completions",
                    "man",
                ],
                ..Manual::default()
            },
            _ => Manual {
                see_also: &["bench"],
                ..Manual::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::serve;
    use clap::Args;

    #[test]
    fn the_short_help_names_settings_that_there_are() {
        let serve = serve::Arguments::augment_args(Command::new("serve"));
        for id in SHORT {
            let is_there = serve.get_arguments().any(|arg| arg.get_id() == id);
            assert!(is_there || id == "help", "{id}");
        }
    }
}
