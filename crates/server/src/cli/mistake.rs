//! What clap says of a mistake on the command line, and what it cannot know:
//! where a value came from that nobody has typed, and what is meant by flags
//! that other servers have.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Adds what to do to a mistake, as a tip.
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
        tips.push("an event without a name is published by 'pub URL \"\" DATA'".to_owned());
    }
    for flag in flags {
        // As in `--heartbeat <SECONDS>`, `--allow-missing-keys[=<true|false>]`.
        let name = flag.split([' ', '=', '[']).next().unwrap_or_default();
        let is_typed = words.iter().any(|word| word.starts_with(name));
        let variable = name.trim_start_matches('-').replace('-', "_");
        let variable = format!("PUSHWHEEL_{}", variable.to_uppercase());
        if !is_typed && is_set(&variable) {
            tips.push(format!("'{name}' is set by the variable {variable}"));
        }
        let is_port = matches!(name, "-p" | "--port" | "--bind" | "--address" | "--addr");
        let is_place = flag.contains(':') || flag.parse::<u16>().is_ok();
        let tip = match flag {
            _ if !is_unknown => continue,
            "true" | "false" | "yes" | "no" | "on" | "off" => {
                "true or false stands behind a '=', as in '--allow-missing-keys=true'"
            }
            _ if flag.parse::<f64>().is_ok_and(|number| number < 0.0) => {
                "numbers are whole, from 0 or 1 on"
            }
            "--event" if is_of("pub") => {
                "the event's name stands behind the URL, as in 'pub URL EVENT DATA'"
            }
            _ if is_of("serve") && (is_port || is_place) => {
                "where to listen is said by '--listen 127.0.0.1:8080'"
            }
            _ if is_of("config") && !flag.starts_with('-') => {
                "a file is named by '--config FILE', and examined by '--check FILE'"
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

    fn told(words: &[&str], set: &str) -> Vec<String> {
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
    fn a_value_that_nobody_has_typed_is_told_with_its_variable() {
        let variable = "PUSHWHEEL_HEARTBEAT";
        let tip = "'--heartbeat' is set by the variable PUSHWHEEL_HEARTBEAT";
        assert_eq!(told(&["serve"], variable), [tip]);
        for typed in [&["--heartbeat", "ten"][..], &["--heartbeat=ten"]] {
            assert_eq!(told(&[&["serve"], typed].concat(), variable), [""; 0]);
        }
    }

    #[test]
    fn a_port_belongs_into_the_address_to_listen_on() {
        let tip = "where to listen is said by '--listen 127.0.0.1:8080'";
        for words in [
            &["serve", "--port", "8080"][..],
            &["serve", "-p", "8080"],
            &["serve", "8080"],
            &["serve", "0.0.0.0:8080"],
        ] {
            assert_eq!(told(words, ""), [tip], "{words:?}");
        }
        assert_eq!(told(&["serve", "--heartbeet"], ""), [""; 0]);
    }

    #[test]
    fn what_stands_where_nothing_is_taken_is_told_where_it_belongs() {
        for (words, told_of) in [
            (&["serve", "true"][..], "'--allow-missing-keys=true'"),
            (&["serve", "yes"], "'--allow-missing-keys=true'"),
            (&["serve", "-1"], "from 0 or 1 on"),
        ] {
            let [tip] = &told(words, "")[..] else {
                panic!("there is one tip");
            };
            assert!(tip.contains(told_of), "{tip}");
        }
    }
}
