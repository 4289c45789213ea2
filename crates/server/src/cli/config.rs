//! `pushwheel config`

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Arg, Args, Command};

use super::settings::file::{RULES, RuleEntries, is_bare};
use super::settings::{command, is_key, is_list, raw, unknown_variables};
use super::{Failure, serve};

#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Check the settings instead of printing them
    ///
    /// With FILE, check this configuration file.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    check: Option<Option<PathBuf>>,

    #[command(flatten)]
    server: serve::Arguments,
}

pub(crate) fn run(arguments: &Arguments, mut words: Vec<OsString>) -> Result<(), Failure> {
    words.retain(|word| !word.to_string_lossy().starts_with("--check"));
    let file = arguments.check.clone().flatten();
    if let Some(file) = &file {
        words.retain(|word| word != file.as_os_str());
        let mut word = OsString::from("--config=");
        word.push(file);
        words.push(word);
    }
    let read = serve::Settings::resolve(&words)
        .and_then(|settings| serve::configure(&settings).map(|_| settings));
    let settings = read.map_err(|failure| {
        let unknown = unknown_variables::<serve::Arguments>();
        [vec![failure], unknown].concat().join("\n")
    })?;
    let warnings = serve::warnings(&settings);
    if arguments.check.is_some() && !warnings.is_empty() {
        return Err(warnings.join("\n"));
    }
    // Without a check they are warnings, as for the server, which would start.
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    let text = match arguments.check {
        Some(_) => "the settings are correct\n".to_owned(),
        None => print(&settings),
    };
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| format!("cannot print ({error})"))
}

/// Returns all settings as a file: those that are set, and the others as comments.
fn print(settings: &serve::Settings) -> String {
    let mut text = String::from(
        "# Settings of `pushwheel serve`. Each is also a flag and an environment variable.\n\
         # Flags override the environment, and the environment overrides this file. A\n\
         # setting after `#` shows its default, or an example if there is no default. The\n\
         # server reads the file again on SIGHUP.\n",
    );
    let server = command::<serve::Arguments>();
    for (heading, args) in sections(&server) {
        if let Some(heading) = heading {
            text += &format!("\n# ---- {heading} ----\n");
        }
        for arg in args {
            text += &about(arg);
            text += &line(settings, arg);
        }
    }
    text += "\n# ---- Channels by pattern ----\n\n\
             # Settings of the channels whose names match a pattern. The first pattern that\n\
             # matches applies. A table inherits all other settings from above. Its keys:\n";
    let rule = command::<serve::ChannelRule>();
    let keys = rule.get_arguments().filter(|arg| is_key(arg));
    let keys: Vec<&str> = keys.map(|arg| arg.get_id().as_str()).collect();
    text += &comment(&keys.join(", "));
    if settings.rule_entries.is_empty() {
        text += "#\n# [[channel]]\n# pattern = \"log.*\"\n# history_events = 5000\n";
    }
    for entries in &settings.rule_entries {
        text += &table(&rule, entries);
    }
    text
}

/// Returns the table of one pattern.
fn table(rule: &Command, entries: &RuleEntries) -> String {
    let mut text = format!("\n[[{RULES}]]\n");
    for entry in &entries.entries {
        let mut args = rule.get_arguments();
        let arg = args.find(|arg| arg.get_id() == &*entry.key);
        let arg = arg.expect("the table was read by these definitions");
        text += &format!("{} = {}\n", entry.key, value_of(arg, &entry.values));
    }
    text
}

/// Returns the settings by heading, in the order of their first appearance.
fn sections(server: &Command) -> Vec<(Option<&str>, Vec<&Arg>)> {
    let mut sections: Vec<(Option<&str>, Vec<&Arg>)> = Vec::new();
    for arg in server.get_arguments().filter(|arg| is_key(arg)) {
        let heading = arg.get_help_heading();
        match sections.iter_mut().find(|(other, _)| *other == heading) {
            Some((_, args)) => args.push(arg),
            None => sections.push((heading, vec![arg])),
        }
    }
    sections
}

/// Returns the help and the other names of a setting, as a comment.
fn about(arg: &Arg) -> String {
    let help = arg.get_long_help().or(arg.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let env = arg.get_env().map(|env| env.to_string_lossy().into_owned());
    let names = format!(
        "--{} {}, {}",
        arg.get_long().unwrap_or_default(),
        value_name(arg),
        env.unwrap_or_default()
    );
    let values = arg.get_possible_values();
    let values: Vec<&str> = values.iter().map(|value| value.get_name()).collect();
    let values = match values.is_empty() {
        true => String::new(),
        false => format!(" One of {}.", values.join(", ")),
    };
    format!(
        "\n{}{}",
        comment(&format!("{}{values}", sentences(&help))),
        comment(&names)
    )
}

/// Returns a help text with a full stop after each paragraph.
fn sentences(help: &str) -> String {
    let paragraphs = help
        .split("\n\n")
        .map(|paragraph| match paragraph.ends_with('.') {
            true => paragraph.to_owned(),
            false => format!("{paragraph}."),
        });
    paragraphs.collect::<Vec<_>>().join(" ")
}

/// Returns the placeholder of the value.
fn value_name(arg: &Arg) -> &str {
    let names = arg.get_value_names().unwrap_or_default();
    names.first().map(|name| &**name).unwrap_or_default()
}

/// Returns the line of a setting.
fn line(settings: &serve::Settings, arg: &Arg) -> String {
    let key = arg.get_id().as_str();
    let is_set = settings.is_set(key);
    if is_set && arg.is_hide_env_values_set() {
        return format!("# {key} is set, but not shown because it is a secret\n");
    }
    let values = raw(&settings.matches, arg).into_iter();
    // A path may have any bytes, but the file is UTF-8.
    let Ok(values) = values
        .map(OsString::into_string)
        .collect::<Result<Vec<_>, _>>()
    else {
        return format!("# {key} is set, but not shown because it is not UTF-8\n");
    };
    let value = match values.is_empty() && !is_list(arg) {
        // Not set, and without a default.
        true => format!("{} # for example", example(arg)),
        false => value_of(arg, &values),
    };
    let mark = if is_set { "" } else { "# " };
    format!("{mark}{key} = {value}\n")
}

/// Returns the values of a setting in TOML.
fn value_of(arg: &Arg, values: &[String]) -> String {
    let literals: Vec<String> = values.iter().map(|value| literal(value)).collect();
    match (&literals[..], is_list(arg)) {
        ([literal], false) => literal.clone(),
        (literals, _) => format!("[{}]", literals.join(", ")),
    }
}

/// Returns an example value for a setting without a default.
fn example(arg: &Arg) -> String {
    let name = arg.get_long().unwrap_or_default();
    match (name, value_name(arg)) {
        ("state", _) => literal("/var/lib/pushwheel/state"),
        (_, "FILE") => literal(&format!(
            "/etc/pushwheel/{}",
            name.trim_end_matches("-file")
        )),
        (_, "N") => "1000".to_owned(),
        (_, "BYTES") => "16384".to_owned(),
        (_, other) => literal(other),
    }
}

/// Returns a value in TOML: a number or a boolean if it parses to the same text, else a
/// string.
fn literal(text: &str) -> String {
    match is_bare(text) {
        true => text.to_owned(),
        false => toml::Value::from(text).to_string(),
    }
}

/// Returns a comment in lines of at most 80 characters.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > 80 {
            lines += &format!("{line}\n");
            line = String::from("#");
        }
        line += " ";
        line += word;
    }
    lines + &line + "\n"
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::settings::{read, words_of};
    use super::*;

    /// Values for the settings. At least two of them are valid for each setting.
    const VALUES: [&str; 31] = [
        "true",
        "false",
        "0",
        "1",
        "2",
        "007",
        "60",
        "4096",
        "20000",
        "65536",
        "0.5",
        ".5",
        "1e3",
        "127.0.0.1:8080",
        "[::1]:0",
        "10.0.0.0/8",
        "fd00::/8",
        "https://app.example",
        "https://*.app.example",
        "/etc/keys/one.pem=https://issuer.example",
        "keys=issuer",
        "X-A: b \"c\" 'd' \\",
        "X-B: # = [e]",
        "log.*",
        "a_b",
        "debug",
        "info,pushwheel=debug",
        "several\nlines\r\n",
        "a\tb",
        "2026-11-30",
        "inf",
    ];

    /// A text that only settings of free text accept.
    const ANY_TEXT: &str = "\u{1}a, b='\"\\\u{e4}\u{2028}";

    /// Free text. A list is split at its commas, and an empty part is not a value.
    const TEXTS: &str = "[^\\x00,]{1,6}(,[^\\x00,]{1,5})?";

    /// The values that each setting is set to, if it is set.
    type Drawn = Vec<Option<Vec<String>>>;

    fn settings_of(command: &Command) -> Vec<&Arg> {
        let args = command.get_arguments();
        args.filter(|arg| is_key(arg) && !arg.is_hide_env_values_set())
            .collect()
    }

    /// Draws values for every setting of the command.
    fn some(command: &Command) -> Vec<impl Strategy<Value = Option<Vec<String>>> + use<>> {
        let alone = command
            .clone()
            .mut_args(|arg| arg.required(false).env(None::<&str>));
        let one = |arg: &&Arg| {
            let accepts = |value: &str| read(&alone, &words_of(arg, &[value])).is_ok();
            let possible = arg.get_possible_values().into_iter();
            let possible = possible.map(|value| value.get_name().to_owned());
            let texts = VALUES.iter().map(|text| (*text).to_owned());
            let accepted: Vec<String> = possible.chain(texts).filter(|v| accepts(v)).collect();
            assert!(
                accepted.len() > 1,
                "add values of `{}` to VALUES",
                arg.get_id()
            );
            let value = match accepts(ANY_TEXT) {
                true => prop_oneof![select(accepted), TEXTS].boxed(),
                false => select(accepted).boxed(),
            };
            let values = vec(value, if is_list(arg) { 1..4 } else { 1..2 });
            match arg.is_required_set() {
                true => values.prop_map(Some).boxed(),
                false => proptest::option::of(values).boxed(),
            }
        };
        settings_of(command).iter().map(one).collect()
    }

    /// The words of a command line that sets everything that was drawn.
    fn words(all: &Drawn, rules: &[Drawn]) -> Vec<OsString> {
        let server = command::<serve::Arguments>();
        let rule = command::<serve::ChannelRule>();
        let mut words = Vec::new();
        for (arg, values) in settings_of(&server).into_iter().zip(all) {
            words.extend(words_of(arg, values.as_deref().unwrap_or_default()));
        }
        for drawn in rules {
            let mut table = toml::Table::new();
            for (arg, values) in settings_of(&rule).into_iter().zip(drawn) {
                let value = match values.as_deref() {
                    None => continue,
                    Some([value]) if !is_list(arg) => toml::Value::from(&**value),
                    Some(values) => values.to_vec().into(),
                };
                table.insert(arg.get_id().to_string(), value);
            }
            let table = toml::Value::Table(table);
            words.push(format!("--{RULES}={table}").into());
        }
        words
    }

    /// A file that is removed with its test.
    struct Printed(PathBuf);

    impl Printed {
        fn new(text: &str) -> Printed {
            let name = format!("pushwheel-printed-{}.toml", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::write(&path, text).unwrap();
            Printed(path)
        }

        fn read(&self) -> serve::Settings {
            let mut word = OsString::from("--config=");
            word.push(&self.0);
            serve::Settings::resolve(&[word]).unwrap()
        }
    }

    impl Drop for Printed {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 64,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn every_setting_that_is_printed_reads_back_as_it_was(
            all in some(&command::<serve::Arguments>()),
            rules in vec(some(&command::<serve::ChannelRule>()), 0..3),
        ) {
            let settings = serve::Settings::resolve(&words(&all, &rules)).unwrap();
            let printed = print(&settings);
            let again = Printed::new(&printed).read();
            // Tables are compared below, and only the second has a file.
            let mut differing = settings.differing(&again);
            differing.retain(|name| is_a_key(name));
            prop_assert_eq!(differing, Vec::<String>::new(), "{}", printed);
            let rules_of = |settings: &serve::Settings| format!("{:?}", settings.rules);
            prop_assert_eq!(rules_of(&settings), rules_of(&again), "{}", printed);
            prop_assert_eq!(print(&again), printed);
        }
    }

    fn is_a_key(name: &str) -> bool {
        let server = command::<serve::Arguments>();
        let mut args = server.get_arguments();
        args.any(|arg| is_key(arg) && arg.get_id() == name)
    }
}
