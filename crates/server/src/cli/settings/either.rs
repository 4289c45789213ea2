//! Pairs of settings that are alternatives: a key, and a file that contains it. The place
//! with precedence decides for both: a flag overrides the other setting in the
//! environment, and either overrides both in the configuration file.

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::Failure;

/// Not clap's `conflicts_with`, which ignores the precedence of the places and would report
/// flags that were not passed.
const PAIRS: [[&str; 2]; 2] = [
    ["publish_key", "publish_key_file"],
    ["admin_key", "admin_key_file"],
];

/// Returns the other setting of a pair.
pub(super) fn other(key: &str) -> Option<&'static str> {
    PAIRS.iter().find_map(|[one, other]| match key {
        _ if key == *one => Some(*other),
        _ if key == *other => Some(*one),
        _ => None,
    })
}

/// Removes variables that flags override.
///
/// # Errors
/// When one place sets both settings of a pair.
pub(super) fn settle(command: &Command, matches: &mut ArgMatches) -> Result<(), Failure> {
    for [one, other] in PAIRS {
        let source = |key: &str| matches.value_source(key);
        let overridden = match (source(one), source(other)) {
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
        matches.try_clear_id(overridden).expect("it has a source");
    }
    Ok(())
}

/// Returns the error for a pair that one place sets.
pub(super) fn both(one: &str, other: &str) -> Failure {
    format!("`{one}` and `{other}` are both set. Keep one")
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
