//! Settings of which one is enough, as a key and a file with it. The stronger
//! place has the last word for both: a flag drops what the environment says of
//! the other one, and either of them what the file does.

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::Failure;

/// Not with `conflicts_with`: clap would not know which of two places is the
/// stronger one, and blame flags that nobody has typed.
const PAIRS: [[&str; 2]; 2] = [
    ["publish_key", "publish_key_file"],
    ["admin_key", "admin_key_file"],
];

/// The setting that a key's own stands in for.
pub(super) fn other(key: &str) -> Option<&'static str> {
    PAIRS.iter().find_map(|[one, other]| match key {
        _ if key == *one => Some(*other),
        _ if key == *other => Some(*one),
        _ => None,
    })
}

/// Drops the variables that flags have outdone from what was read.
pub(super) fn settle(command: &Command, matches: &mut ArgMatches) -> Result<(), Failure> {
    for [one, other] in PAIRS {
        let source = |key: &str| matches.value_source(key);
        let outdone = match (source(one), source(other)) {
            (Some(ValueSource::CommandLine), Some(ValueSource::EnvVariable)) => other,
            (Some(ValueSource::EnvVariable), Some(ValueSource::CommandLine)) => one,
            (Some(ValueSource::CommandLine), Some(ValueSource::CommandLine)) => {
                return Err(both(&flag(one), &flag(other)));
            }
            (Some(ValueSource::EnvVariable), Some(ValueSource::EnvVariable)) => {
                return Err(both(&variable(command, one), &variable(command, other)));
            }
            _ => continue,
        };
        matches.try_clear_id(outdone).expect("it has a source");
    }
    Ok(())
}

/// What is told of a pair that one place sets.
pub(super) fn both(one: &str, other: &str) -> Failure {
    format!("`{one}` and `{other}` are both set: keep one")
}

fn flag(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

fn variable(command: &Command, key: &str) -> String {
    let mut args = command.get_arguments();
    let arg = args.find(|arg| arg.get_id() == key);
    let name = arg.and_then(Arg::get_env).unwrap_or_default();
    name.to_string_lossy().into_owned()
}
