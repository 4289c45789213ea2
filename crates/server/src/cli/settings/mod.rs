//! Settings from the command line, the environment and a file.
//!
//! Each setting is defined once, as a flag of clap: its name, values, default and help. A
//! key of the file is a flag that was not passed: the keys are put in front of the
//! arguments of the command line and parsed by the same definitions. So flags override the
//! environment, the environment overrides the file, and the file overrides the defaults.
//!
//! A table `[[channel]]` has a pattern and the keys that may differ between channels. It
//! inherits the other values from the settings of all channels.

mod either;
pub(crate) mod environment;
pub(super) mod file;
mod nearest;

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command};

use super::Failure;
use file::{Document, Entry, Place, RULES, RuleEntries, Values};
use nearest::nearest;

/// The flag that names the file.
const FILE: &str = "config";
/// Flags that are not keys of the file.
const NO_KEYS: [&str; 3] = [FILE, "help", RULES];

/// The settings of all places together.
#[derive(Debug)]
pub(crate) struct Settings<A, R> {
    pub(crate) arguments: A,
    /// In their order: the first whose pattern matches counts.
    pub(crate) rules: Vec<R>,
    pub(super) matches: ArgMatches,
    /// The places of the settings that come from the file.
    places: HashMap<String, Place>,
    /// The source of each rule.
    pub(super) rule_entries: Vec<RuleEntries>,
}

impl<A: Args, R: Args> Settings<A, R> {
    /// Parses the arguments of the command line, the environment and the configuration file.
    ///
    /// # Errors
    /// When a setting is wrong, with one line per error.
    pub(crate) fn resolve(words: &[OsString]) -> Result<Self, Failure> {
        let command = command::<A>();
        let read_settled = |words: &[OsString]| {
            let mut matches = read(&command, words)?;
            either::settle(&command, &mut matches).map(|()| matches)
        };
        let matches = read_settled(words)?;
        let document = match matches.get_one::<PathBuf>(FILE) {
            Some(path) => file::read(path)?,
            None => Document::default(),
        };
        let mut errors = Vec::new();
        let mut all = Vec::new();
        let mut places: HashMap<String, Place> = HashMap::new();
        for entry in &document.entries {
            let other = either::other(&entry.key);
            let is_given = |key: &str| is_given(&matches, key);
            match check(&command, entry) {
                Ok(_) if is_given(&entry.key) || other.is_some_and(is_given) => {}
                Ok(arg) => match other.filter(|other| places.contains_key(*other)) {
                    Some(other) => {
                        errors.push(at(&entry.place, &either::both(other, &entry.key)));
                    }
                    None => {
                        all.extend(words_of(arg, &entry.values));
                        places.insert(entry.key.clone(), entry.place.clone());
                    }
                },
                Err(error) => errors.push(error),
            }
        }
        all.extend_from_slice(words);
        // All are parsed together once each of them is correct.
        let matches = match errors.is_empty() {
            true => read_settled(&all)?,
            false => matches,
        };
        let (rules, rule_entries) = rules_of::<R>(&command, &matches, document.rules, &mut errors)?;
        if !errors.is_empty() {
            return Err(errors.join("\n"));
        }
        Ok(Settings {
            arguments: A::from_arg_matches(&matches).map_err(error_text)?,
            rules,
            matches,
            places,
            rule_entries,
        })
    }

    /// Adds a place to an error about these settings: the line of the first one that comes
    /// from the file.
    pub(crate) fn with_place(&self, keys: &[&str], failure: Failure) -> Failure {
        let places = keys.iter().map(|key| (key, self.places.get(*key)));
        let mut in_file = places.filter_map(|(key, place)| Some((key, place?)));
        match in_file.next() {
            Some((key, place)) => format!("{place}: {key}: {failure}"),
            None => failure,
        }
    }

    /// Adds the place of a rule to an error about it.
    pub(crate) fn with_rule_place(&self, index: usize, failure: &str) -> Failure {
        at(&self.rule_entries[index].place, failure)
    }

    /// Returns whether a flag, a variable or the file sets it, also to its default.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        is_given(&self.matches, key)
    }

    /// Returns whether an environment variable sets it.
    pub(crate) fn is_from_environment(&self, key: &str) -> bool {
        self.matches.value_source(key) == Some(ValueSource::EnvVariable)
    }

    /// Returns whether its value comes from the file.
    pub(crate) fn is_in_file(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// Returns the settings whose values differ from those of `other`.
    pub(crate) fn differing(&self, other: &Self) -> Vec<String> {
        let command = command::<A>();
        let raw = |matches: &ArgMatches, arg: &Arg| -> Vec<OsString> { raw(matches, arg) };
        let args = command.get_arguments();
        let differing = args.filter(|arg| raw(&self.matches, arg) != raw(&other.matches, arg));
        differing.map(|arg| arg.get_id().to_string()).collect()
    }

    /// Returns the patterns of the rules that only one of the two has, or, if both have the
    /// same rules, of those that have moved.
    pub(crate) fn differing_rules(&self, other: &Self) -> BTreeSet<String> {
        let [mine, others] = [self, other].map(|settings| {
            let values = settings.rule_entries.iter().map(RuleEntries::values);
            values.collect::<Vec<_>>()
        });
        let all = mine.iter().chain(&others);
        let is_in_one = |rule: &&Values<'_>| mine.contains(rule) != others.contains(rule);
        let mut differing: Vec<&Values<'_>> = all.filter(is_in_one).collect();
        if differing.is_empty() {
            let moved = mine.iter().zip(&others).filter(|(one, other)| one != other);
            differing = moved.map(|(rule, _)| rule).collect();
        }
        let patterns = differing.iter().filter_map(|rule| rule.get("pattern"));
        patterns.map(|pattern| pattern.concat()).collect()
    }
}

/// Returns an error for each environment variable that looks like a setting of `A` and is
/// not one.
pub(crate) fn unknown_variables<A: Args>() -> Vec<String> {
    environment::unknown_variables(&command::<A>())
}

pub(super) fn command<A: Args>() -> Command {
    A::augment_args(Command::new("pushwheel").no_binary_name(true))
}

pub(super) fn read(command: &Command, words: &[OsString]) -> Result<ArgMatches, Failure> {
    let command = environment::without_empty(command.clone());
    let matches = command.try_get_matches_from(words);
    matches.map_err(error_text)
}

/// Returns the first paragraph of an error of clap, which describes the value.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn error_text(error: clap::Error) -> Failure {
    let text = error.to_string();
    let text = text.split("\n\n").next().unwrap_or_default();
    let text = text.strip_prefix("error: ").unwrap_or(text);
    text.trim().replace("\n  ", " ").replace('\n', " ")
}

/// Returns the flag of an entry.
///
/// # Errors
/// When the key is unknown or the value is invalid.
fn check<'a>(command: &'a Command, entry: &Entry) -> Result<&'a Arg, Failure> {
    let (key, place) = (&entry.key, &entry.place);
    let mut args = command.get_arguments().filter(|arg| is_key(arg));
    let Some(arg) = args.find(|arg| arg.get_id() == &**key) else {
        let keys = command.get_arguments().filter(|arg| is_key(arg));
        let keys: Vec<&str> = keys.map(|arg| arg.get_id().as_str()).collect();
        let meant = match nearest(&key.replace('-', "_"), &keys) {
            Some(other) => format!("Did you mean `{other}`?"),
            None => "`pushwheel config` lists all settings".to_owned(),
        };
        return Err(format!("{place}: unknown setting `{key}`. {meant}"));
    };
    if entry.is_array && !is_list(arg) {
        return Err(format!(
            "{place}: `{key}` has one value, not an array. Write {key} = VALUE"
        ));
    }
    // Alone, so that an error is neither about the environment nor about other keys.
    let alone = command
        .clone()
        .mut_args(|arg| arg.required(false).env(None::<&str>));
    read(&alone, &words_of(arg, &entry.values)).map_err(|error| at(place, &error))?;
    Ok(arg)
}

/// Whether a setting can have several values.
pub(super) fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// Returns whether a flag is also a key of the file: all are, except those about the file.
pub(super) fn is_key(arg: &Arg) -> bool {
    arg.get_long().is_some() && !NO_KEYS.contains(&arg.get_id().as_str())
}

/// Returns whether a flag or a variable sets it.
fn is_given(matches: &ArgMatches, key: &str) -> bool {
    matches!(
        matches.value_source(key),
        Some(ValueSource::CommandLine | ValueSource::EnvVariable)
    )
}

/// Returns a flag with its values, as arguments of a command line.
pub(super) fn words_of(arg: &Arg, values: &[impl AsRef<OsStr>]) -> Vec<OsString> {
    let long = arg.get_long().unwrap_or_default();
    let word = |value: &OsStr| {
        let mut word = OsString::from(format!("--{long}="));
        word.push(value);
        word
    };
    values.iter().map(|value| word(value.as_ref())).collect()
}

/// Returns the values of a flag, or its default. A boolean is `true` or `false`, in
/// whichever spelling it was set.
pub(super) fn raw(matches: &ArgMatches, arg: &Arg) -> Vec<OsString> {
    let key = arg.get_id().as_str();
    if let Ok(Some(value)) = matches.try_get_one::<bool>(key) {
        return vec![value.to_string().into()];
    }
    let values = matches.try_get_raw(key);
    let values = values.ok().flatten().into_iter().flatten();
    values.map(OsStr::to_owned).collect()
}

/// Returns the rules of the flags or the environment, or else of the file.
fn rules_of<R: Args>(
    server: &Command,
    matches: &ArgMatches,
    in_file: Vec<RuleEntries>,
    errors: &mut Vec<String>,
) -> Result<(Vec<R>, Vec<RuleEntries>), Failure> {
    let given = matches.get_many::<String>(RULES);
    let rules = match given {
        Some(texts) => {
            let texts = texts.map(|text| file::parse_flag("--channel", text));
            let parsed = texts.collect::<Result<Vec<_>, _>>()?;
            parsed.into_iter().flatten().collect()
        }
        None => in_file,
    };
    let (mut read_rules, mut entries) = (Vec::new(), Vec::new());
    for rule in rules {
        match rule_of(server, matches, &rule) {
            Ok(read) => {
                read_rules.push(read);
                entries.push(rule);
            }
            Err(error) => errors.push(error),
        }
    }
    Ok((read_rules, entries))
}

fn rule_of<R: Args>(
    server: &Command,
    for_all: &ArgMatches,
    rule: &RuleEntries,
) -> Result<R, Failure> {
    let command = command::<R>();
    let mut words = Vec::new();
    let mut errors = Vec::new();
    for entry in &rule.entries {
        let (key, place) = (&entry.key, &entry.place);
        match check(&command, entry) {
            Err(_) if is_not_per_channel(server, &command, key) => errors.push(format!(
                "{place}: `{key}` is a setting of the whole server. Move it above [[{RULES}]]"
            )),
            Ok(arg) => words.extend(words_of(arg, &entry.values)),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(errors.join("\n"));
    }
    if !rule.entries.iter().any(|entry| entry.key == "pattern") {
        let message = "the table has no pattern. Add one, such as pattern = \"log.*\"";
        return Err(at(&rule.place, message));
    }
    let is_set = |arg: &&Arg| rule.entries.iter().any(|entry| arg.get_id() == &*entry.key);
    for arg in command.get_arguments().filter(|arg| !is_set(arg)) {
        words.extend(words_of(arg, &raw(for_all, arg)));
    }
    let matches = read(&command, &words).map_err(|error| at(&rule.place, &error))?;
    R::from_arg_matches(&matches).map_err(|error| at(&rule.place, &error_text(error)))
}

/// Returns whether a key is valid in the file, but not in a table.
fn is_not_per_channel(server: &Command, rule: &Command, key: &str) -> bool {
    let has = |command: &Command| {
        let mut args = command.get_arguments();
        args.any(|arg| is_key(arg) && arg.get_id() == key)
    };
    has(server) && !has(rule)
}

fn at(place: &Place, message: &str) -> Failure {
    format!("{place}: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::serve::{Arguments, ChannelRule};

    #[test]
    fn a_setting_with_one_value_accepts_no_array() {
        for command in [command::<Arguments>(), command::<ChannelRule>()] {
            for arg in command.get_arguments().filter(|arg| is_key(arg)) {
                let entry = Entry {
                    key: arg.get_id().to_string(),
                    values: Vec::new(),
                    is_array: true,
                    place: Place::Flag("--channel"),
                };
                match check(&command, &entry) {
                    Ok(_) => assert!(is_list(arg), "{}", entry.key),
                    Err(error) => assert!(error.contains("has one value"), "{error}"),
                }
            }
        }
    }
}
