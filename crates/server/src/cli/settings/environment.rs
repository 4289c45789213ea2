//! Environment variables.
//!
//! An empty variable is not set: compose files and unit files write `NAME=` for
//! a setting without a value.
//!
//! A variable whose name begins like those of the settings, and that nothing
//! reads, is a mistake: a misspelled setting would be ignored silently.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;

use clap::Command;

const PREFIX: &str = "PUSHWHEEL_";

/// What is read beside the settings: by the log, and by other subcommands,
/// which may run in the same environment.
pub(crate) const OTHERS: [&str; 2] = ["PUSHWHEEL_LOG", "PUSHWHEEL_TOKEN"];

/// What Kubernetes sets in every container beside a service named `pushwheel`.
/// Nobody has misspelled these.
const OF_A_SERVICE: [&str; 2] = ["PUSHWHEEL_SERVICE_", "PUSHWHEEL_PORT"];
const SIGN_OF_A_SERVICE: &str = "PUSHWHEEL_SERVICE_HOST";

/// Returns the command, and its subcommands, without the environment variables
/// that are empty.
pub(crate) fn without_empty(command: Command) -> Command {
    let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|arg| match arg.get_env().is_some_and(is_empty) {
        true => arg.env(None::<&str>),
        false => arg,
    });
    command.mut_subcommands(without_empty)
}

/// The mistakes in this process's environment, in the order of their names.
pub(super) fn mistakes(command: &Command) -> Vec<String> {
    let set = env::vars_os().filter(|(_, value)| !value.is_empty());
    let names = set.map(|(name, _)| name.to_string_lossy().into_owned());
    let names = names.filter(|name| name.starts_with(PREFIX)).collect();
    mistakes_in(command, &names)
}

/// Names alone, and never a value: that may be a key.
fn mistakes_in(command: &Command, names: &BTreeSet<String>) -> Vec<String> {
    let settings = command.get_arguments().filter_map(|arg| arg.get_env());
    let mut known: Vec<&str> = settings.filter_map(|name| name.to_str()).collect();
    known.extend(OTHERS);
    let is_beside_a_service = names.contains(SIGN_OF_A_SERVICE);
    let is_of_a_service =
        |name: &str| is_beside_a_service && OF_A_SERVICE.iter().any(|of| name.starts_with(of));
    let strange = names
        .iter()
        .filter(|name| !known.contains(&name.as_str()) && !is_of_a_service(name));
    strange.map(|name| mistake(name, &known)).collect()
}

fn mistake(name: &str, known: &[&str]) -> String {
    let what_to_do = match nearest(name, known) {
        Some(meant) => format!("did you mean {meant}?"),
        None => "`pushwheel config` prints those there are; unset it".to_owned(),
    };
    format!("the variable {name} is no setting, and nothing reads it: {what_to_do}")
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
        name => super::nearest(name, &known)?,
    };
    Some(format!("{PREFIX}{}", meant.to_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    fn told(names: &[&str]) -> Vec<String> {
        let setting = |id: &'static str, env: &'static str| Arg::new(id).long(id).env(env);
        let command = Command::new("pushwheel")
            .arg(setting("heartbeat", "PUSHWHEEL_HEARTBEAT"))
            .arg(setting("listen", "PUSHWHEEL_LISTEN"));
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        mistakes_in(&command, &names)
    }

    #[test]
    fn a_variable_that_nothing_reads_is_told_with_the_one_that_was_meant() {
        for (name, advice) in [
            ("PUSHWHEEL_HEARTBEET", "did you mean PUSHWHEEL_HEARTBEAT?"),
            ("PUSHWHEEL_heartbeat", "did you mean PUSHWHEEL_HEARTBEAT?"),
            ("PUSHWHEEL_PORT", "did you mean PUSHWHEEL_LISTEN?"),
            ("PUSHWHEEL_ZZZ", "prints those there are; unset it"),
        ] {
            let told = told(&[name]);
            let [told] = &told[..] else {
                panic!("{name}: {told:?}")
            };
            assert!(told.contains(name) && told.ends_with(advice), "{told}");
        }
    }

    #[test]
    fn settings_and_what_others_read_are_no_mistakes() {
        let names = ["PUSHWHEEL_HEARTBEAT", "PUSHWHEEL_LISTEN", "PUSHWHEEL_LOG"];
        assert_eq!(told(&names), [""; 0]);
        assert_eq!(told(&OTHERS), [""; 0]);
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_of_this_name_is_no_mistake() {
        let names = [
            "PUSHWHEEL_SERVICE_HOST",
            "PUSHWHEEL_SERVICE_PORT",
            "PUSHWHEEL_PORT",
            "PUSHWHEEL_PORT_8080_TCP_ADDR",
        ];
        assert_eq!(told(&names), [""; 0]);
        assert_eq!(told(&["PUSHWHEEL_PORT_8080_TCP_ADDR"]).len(), 1);
    }
}
