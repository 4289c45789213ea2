//! `pushwheel config`

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Arg, ArgAction, Args, Command};

use super::super::{Failure, serve};
use super::{command, is_key, raw, strange_variables};

/// The flag that asks for a check alone.
pub(super) const CHECK: &str = "check";

#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Only say whether the settings are right, and where they are not. With a
    /// FILE: whether that one is.
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
        let strange = strange_variables::<serve::Arguments>();
        [vec![failure], strange].concat().join("\n")
    })?;
    let doubts = serve::doubts(&settings);
    if arguments.check.is_some() && !doubts.is_empty() {
        return Err(doubts.join("\n"));
    }
    // To print them is no check: the server would start with them.
    doubts.iter().for_each(|doubt| log::warn!("{doubt}"));
    let text = match arguments.check {
        Some(_) => "the settings are right\n".to_owned(),
        None => print(&settings),
    };
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| format!("cannot print: {error}"))
}

/// All settings as a file: those that are set as they are, the others as
/// comments.
fn print(settings: &serve::Settings) -> String {
    let mut text = String::from(
        "# The settings of `pushwheel serve`. Each is a flag and an environment variable\n\
         # too: a flag wins over the environment, and that over this file. A line that\n\
         # begins with `#` shows the default, or an example where there is none. SIGHUP has\n\
         # the server read the file again.\n",
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
             # What is different for channels whose names match; the first pattern that does\n\
             # counts. What a table leaves out is as above. Its keys:\n";
    let rule = command::<serve::ChannelRule>();
    let keys = rule.get_arguments().filter(|arg| is_key(arg));
    let keys: Vec<&str> = keys.map(|arg| arg.get_id().as_str()).collect();
    text += &comment(&keys.join(", "));
    text += "#\n# [[channel]]\n# pattern = \"log.*\"\n# history_events = 5000\n";
    text
}

/// The settings below their headings, in the order in which these first come.
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

/// What a setting is for, and its other names.
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
        comment(&format!("{help}.{values}")),
        comment(&names)
    )
}

/// What stands for the value.
fn value_name(arg: &Arg) -> &str {
    let names = arg.get_value_names().unwrap_or_default();
    names.first().map(|name| &**name).unwrap_or_default()
}

/// The setting itself.
fn line(settings: &serve::Settings, arg: &Arg) -> String {
    let key = arg.get_id().as_str();
    let is_set = settings.is_set(key);
    if is_set && arg.is_hide_env_values_set() {
        return format!("# {key} is set and not shown\n");
    }
    let values = raw(&settings.matches, arg);
    let values: Vec<String> = values
        .iter()
        .map(|v| literal(&v.to_string_lossy()))
        .collect();
    let is_list = matches!(arg.get_action(), ArgAction::Append);
    let value = match (&values[..], is_list) {
        (values, true) => format!("[{}]", values.join(", ")),
        ([value], false) => value.clone(),
        // Not set, and there is no default.
        _ => format!("{} # for example", example(arg)),
    };
    let mark = if is_set { "" } else { "# " };
    format!("{mark}{key} = {value}\n")
}

/// A value that a setting without a default may have.
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

/// A value as TOML has it.
fn literal(text: &str) -> String {
    let is_bare = text.parse::<f64>().is_ok_and(f64::is_finite) || text.parse::<bool>().is_ok();
    match is_bare {
        true => text.to_owned(),
        false => toml::Value::from(text).to_string(),
    }
}

/// Lines of a comment, at most 80 characters wide.
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
