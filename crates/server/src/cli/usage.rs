//! Usage errors: clap's message, with tips that clap cannot give. They name the variable
//! that a value came from, and our option for a flag of other servers.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Adds tips to a usage error.
pub(crate) fn explained(mut error: clap::Error, words: &[OsString]) -> clap::Error {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let tips = tips(&error, words, is_set);
    if !tips.is_empty() {
        let tips = tips.into_iter().map(Into::into).collect();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

fn tips(error: &clap::Error, words: &[OsString], is_set: impl Fn(&str) -> bool) -> Vec<String> {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let flags = [ContextKind::InvalidArg, ContextKind::PriorArg];
    let flags = flags.iter().filter_map(|kind| match error.get(*kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    });
    let mut tips = Vec::new();
    let is_of = |command: &str| words.first().is_some_and(|word| word == command);
    let is_unknown = error.kind() == ErrorKind::UnknownArgument;
    if is_of("pub") && error.kind() == ErrorKind::MissingRequiredArgument && words.len() > 1 {
        tips.push("for an event without a name, use 'pub URL \"\" DATA'".to_owned());
    }
    for flag in flags {
        // As in `--heartbeat <SECONDS>`, `--access-log[=<BOOL>]`.
        let name = flag.split([' ', '=', '[']).next().unwrap_or_default();
        let is_typed = words.iter().any(|word| word.starts_with(name));
        let variable = name.trim_start_matches('-').replace('-', "_");
        let variable = format!("PUSHWHEEL_{}", variable.to_uppercase());
        if !is_typed && is_set(&variable) {
            tips.push(format!("'{name}' comes from the variable {variable}"));
        }
        let is_address =
            ["-p", "--port", "--host", "--bind", "--address", "--addr"].contains(&name);
        let is_value = flag.contains(':') || flag.parse::<u16>().is_ok();
        let tip = match flag {
            _ if !is_unknown => continue,
            "true" | "false" | "yes" | "no" | "on" | "off" => {
                "write true or false after '=', as in '--access-log=true'"
            }
            _ if flag.parse::<f64>().is_ok_and(|number| number < 0.0) => {
                "use a whole number that is not negative"
            }
            "--event" if is_of("pub") => {
                "the name of the event follows the URL: 'pub URL EVENT DATA'"
            }
            _ if is_of("serve") && (is_address || is_value) => "use '--listen 127.0.0.1:8080'",
            _ if is_of("config") && !flag.starts_with('-') => {
                "use '--config FILE' to print the settings of a file, '--check FILE' to check it"
            }
            _ => continue,
        };
        tips.push(tip.to_owned());
    }
    tips
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, Command, value_parser};

    fn tips_for(words: &[&str], set: &str) -> Vec<String> {
        let number = Arg::new("heartbeat").long("heartbeat");
        let number = number.value_parser(value_parser!(u64));
        let number = match set.is_empty() {
            true => number,
            false => number.default_value("ten"),
        };
        let serve = Command::new("serve").arg(number);
        let command = Command::new("pushwheel").subcommand(serve);
        let all = ["pushwheel"].iter().chain(words);
        let error = command.try_get_matches_from(all).unwrap_err();
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        tips(&error, &words, |name| name == set)
    }

    #[test]
    fn a_value_from_the_environment_is_reported_with_its_variable() {
        let variable = "PUSHWHEEL_HEARTBEAT";
        let tip = "'--heartbeat' comes from the variable PUSHWHEEL_HEARTBEAT";
        assert_eq!(tips_for(&["serve"], variable), [tip]);
        for typed in [&["--heartbeat", "ten"][..], &["--heartbeat=ten"]] {
            assert_eq!(tips_for(&[&["serve"], typed].concat(), variable), [""; 0]);
        }
    }

    #[test]
    fn a_port_belongs_in_the_listen_address() {
        let tip = "use '--listen 127.0.0.1:8080'";
        for words in [
            &["serve", "--port", "8080"][..],
            &["serve", "-p", "8080"],
            &["serve", "8080"],
            &["serve", "0.0.0.0:8080"],
        ] {
            assert_eq!(tips_for(words, ""), [tip], "{words:?}");
        }
        assert_eq!(tips_for(&["serve", "--heartbeet"], ""), [""; 0]);
    }

    #[test]
    fn an_unexpected_value_is_reported_with_the_right_form() {
        for (words, part) in [
            (&["serve", "true"][..], "'--access-log=true'"),
            (&["serve", "yes"], "'--access-log=true'"),
            (&["serve", "-1"], "not negative"),
        ] {
            let [tip] = &tips_for(words, "")[..] else {
                panic!("there is one tip");
            };
            assert!(tip.contains(part), "{tip}");
        }
    }
}
