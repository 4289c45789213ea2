//! Environment variables.
//!
//! An empty variable counts as not set: compose files and unit files write `NAME=` for a
//! setting without a value.
//!
//! An unknown variable with the prefix of the settings is an error, because a misspelled
//! setting would otherwise be ignored silently.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;

use clap::Command;

const PREFIX: &str = "PUSHWHEEL_";

/// Variables that are not settings of the server: the log and other subcommands in the same
/// environment use them.
pub(crate) const OTHERS: [&str; 2] = ["PUSHWHEEL_LOG", "PUSHWHEEL_TOKEN"];

/// Variables that Kubernetes sets in every container, for a service named `pushwheel`.
const OF_A_SERVICE: [&str; 2] = ["PUSHWHEEL_SERVICE_", "PUSHWHEEL_PORT"];
const SIGN_OF_A_SERVICE: &str = "PUSHWHEEL_SERVICE_HOST";

/// Returns the command, and its subcommands, without environment variables that are empty.
pub(crate) fn without_empty(command: Command) -> Command {
    let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|arg| match arg.get_env().is_some_and(is_empty) {
        true => arg.env(None::<&str>),
        false => arg,
    });
    command.mut_subcommands(without_empty)
}

/// Returns an error for each unknown variable of the process, in the order of names.
pub(super) fn unknown_variables(command: &Command) -> Vec<String> {
    let set = env::vars_os().filter(|(_, value)| !value.is_empty());
    let names = set.map(|(name, _)| name.to_string_lossy().into_owned());
    let names = names.filter(|name| name.starts_with(PREFIX)).collect();
    unknown_in(command, &names)
}

/// Never prints a value, because it may be a key.
fn unknown_in(command: &Command, names: &BTreeSet<String>) -> Vec<String> {
    let settings = command.get_arguments().filter_map(|arg| arg.get_env());
    let mut known: Vec<&str> = settings.filter_map(|name| name.to_str()).collect();
    known.extend(OTHERS);
    let is_beside_a_service = names.contains(SIGN_OF_A_SERVICE);
    let is_of_a_service =
        |name: &str| is_beside_a_service && OF_A_SERVICE.iter().any(|of| name.starts_with(of));
    let unknown = names
        .iter()
        .filter(|name| !known.contains(&name.as_str()) && !is_of_a_service(name));
    unknown.map(|name| error_text(name, &known)).collect()
}

fn error_text(name: &str, known: &[&str]) -> String {
    let fix = match nearest(name, known) {
        Some(meant) => format!("Did you mean {meant}?"),
        None => "Unset it; `pushwheel config` lists all variables".to_owned(),
    };
    format!("unknown variable {name}. {fix}")
}

/// Returns the variable that was probably meant, without regard to case.
fn nearest(name: &str, known: &[&str]) -> Option<String> {
    let bare = |name: &str| name.trim_start_matches(PREFIX).to_lowercase();
    let known: Vec<String> = known.iter().map(|name| bare(name)).collect();
    let known: Vec<&str> = known.iter().map(|name| &**name).collect();
    let name = bare(name);
    let meant = match &*name {
        "port" => "listen",
        name if known.contains(&name) => name,
        name => super::nearest::nearest(name, &known)?,
    };
    Some(format!("{PREFIX}{}", meant.to_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    fn errors(names: &[&str]) -> Vec<String> {
        let setting = |id: &'static str, env: &'static str| Arg::new(id).long(id).env(env);
        let command = Command::new("pushwheel")
            .arg(setting("heartbeat", "PUSHWHEEL_HEARTBEAT"))
            .arg(setting("listen", "PUSHWHEEL_LISTEN"));
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        unknown_in(&command, &names)
    }

    #[test]
    fn an_unknown_variable_is_reported_with_the_probable_one() {
        for (name, advice) in [
            ("PUSHWHEEL_HEARTBEET", "Did you mean PUSHWHEEL_HEARTBEAT?"),
            ("PUSHWHEEL_heartbeat", "Did you mean PUSHWHEEL_HEARTBEAT?"),
            ("PUSHWHEEL_PORT", "Did you mean PUSHWHEEL_LISTEN?"),
            ("PUSHWHEEL_ZZZ", "`pushwheel config` lists all variables"),
        ] {
            let errors = errors(&[name]);
            let [error] = &errors[..] else {
                panic!("{name}: {errors:?}")
            };
            assert!(error.contains(name) && error.ends_with(advice), "{error}");
        }
    }

    #[test]
    fn settings_and_variables_of_other_commands_are_known() {
        let names = ["PUSHWHEEL_HEARTBEAT", "PUSHWHEEL_LISTEN", "PUSHWHEEL_LOG"];
        assert_eq!(errors(&names), [""; 0]);
        assert_eq!(errors(&OTHERS), [""; 0]);
    }

    #[test]
    fn variables_of_a_kubernetes_service_are_known() {
        let names = [
            "PUSHWHEEL_SERVICE_HOST",
            "PUSHWHEEL_SERVICE_PORT",
            "PUSHWHEEL_PORT",
            "PUSHWHEEL_PORT_8080_TCP_ADDR",
        ];
        assert_eq!(errors(&names), [""; 0]);
        assert_eq!(errors(&["PUSHWHEEL_PORT_8080_TCP_ADDR"]).len(), 1);
    }
}
