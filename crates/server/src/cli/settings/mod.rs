//! Settings from the command line, the environment and a file.
//!
//! Each setting is defined once, as a flag of clap's: its name, its values, its
//! default and what it is for. A key of the file is a flag that nobody has
//! given: the file's keys are put in front of the command line's words and read
//! by the same definitions. So a flag wins over the environment, that over the
//! file, and the file over the defaults.
//!
//! A table `[[channel]]` has the keys that may differ from channel to channel,
//! and its pattern; what it leaves out is as for all channels.

mod either;
pub(crate) mod environment;
mod file;
pub(crate) mod show;

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command};

use super::Failure;
use file::{Document, Entry, Place, RULES, RuleEntries, Said};

/// The flag that names the file.
const FILE: &str = "config";
const NO_KEYS: [&str; 4] = [FILE, show::CHECK, "help", RULES];

/// How much alike two keys have to be for one to be meant by the other.
const LIKENESS: f64 = 0.8;

/// What was said in all places.
#[derive(Debug)]
pub(crate) struct Settings<A, R> {
    pub(crate) arguments: A,
    /// In their order: the first whose pattern matches counts.
    pub(crate) rules: Vec<R>,
    matches: ArgMatches,
    /// Where the file says what counts of it.
    places: HashMap<String, Place>,
    /// What each of the rules was read from.
    rule_entries: Vec<RuleEntries>,
}

impl<A: Args, R: Args> Settings<A, R> {
    /// Reads the words of the command line, the environment and the file that
    /// they name.
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
        let mut mistakes = Vec::new();
        let mut all = Vec::new();
        let mut places: HashMap<String, Place> = HashMap::new();
        for entry in &document.entries {
            let other = either::other(&entry.key);
            let is_given = |key: &str| is_given(&matches, key);
            match check(&command, entry) {
                Ok(_) if is_given(&entry.key) || other.is_some_and(is_given) => {}
                Ok(arg) => match other.filter(|other| places.contains_key(*other)) {
                    Some(other) => {
                        mistakes.push(at(&entry.place, &either::both(other, &entry.key)));
                    }
                    None => {
                        all.extend(words_of(arg, &entry.values));
                        places.insert(entry.key.clone(), entry.place.clone());
                    }
                },
                Err(mistake) => mistakes.push(mistake),
            }
        }
        all.extend_from_slice(words);
        // The whole is read once each of its keys is right.
        let matches = match mistakes.is_empty() {
            true => read_settled(&all)?,
            false => matches,
        };
        let (rules, rule_entries) =
            rules_of::<R>(&command, &matches, document.rules, &mut mistakes)?;
        if !mistakes.is_empty() {
            return Err(mistakes.join("\n"));
        }
        Ok(Settings {
            arguments: A::from_arg_matches(&matches).map_err(told)?,
            rules,
            matches,
            places,
            rule_entries,
        })
    }

    /// What is wrong with these settings, of which the first that the file has
    /// is named with its line.
    pub(crate) fn blame(&self, keys: &[&str], failure: Failure) -> Failure {
        let places = keys.iter().map(|key| (key, self.places.get(*key)));
        let mut in_file = places.filter_map(|(key, place)| Some((key, place?)));
        match in_file.next() {
            Some((key, place)) => format!("{place}: {key}: {failure}"),
            None => failure,
        }
    }

    /// What is wrong with one of the rules.
    pub(crate) fn blame_rule(&self, index: usize, failure: &str) -> Failure {
        at(&self.rule_entries[index].place, failure)
    }

    /// Whether anybody has set it, and be it to its default.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        is_given(&self.matches, key)
    }

    /// Whether a variable of the environment sets it.
    pub(crate) fn is_from_environment(&self, key: &str) -> bool {
        self.matches.value_source(key) == Some(ValueSource::EnvVariable)
    }

    /// Whether the file says what counts of a setting.
    pub(crate) fn is_in_file(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// The settings whose values are not the same in `other`.
    pub(crate) fn differing(&self, other: &Self) -> Vec<String> {
        let command = command::<A>();
        let raw = |matches: &ArgMatches, arg: &Arg| -> Vec<OsString> { raw(matches, arg) };
        let args = command.get_arguments();
        let differing = args.filter(|arg| raw(&self.matches, arg) != raw(&other.matches, arg));
        differing.map(|arg| arg.get_id().to_string()).collect()
    }

    /// The patterns of the rules that only one of the two has. The first that
    /// matches counts: where both have the same, those that have moved.
    pub(crate) fn differing_rules(&self, other: &Self) -> BTreeSet<String> {
        let [mine, others] = [self, other].map(|settings| {
            let said = settings.rule_entries.iter().map(RuleEntries::said);
            said.collect::<Vec<_>>()
        });
        let all = mine.iter().chain(&others);
        let has_one_alone = |said: &&Said<'_>| mine.contains(said) != others.contains(said);
        let mut differing: Vec<&Said<'_>> = all.filter(has_one_alone).collect();
        if differing.is_empty() {
            let moved = mine.iter().zip(&others).filter(|(one, other)| one != other);
            differing = moved.map(|(said, _)| said).collect();
        }
        let patterns = differing.iter().filter_map(|said| said.get("pattern"));
        patterns.map(|pattern| pattern.concat()).collect()
    }
}

/// What is wrong with the environment: variables that look like settings of
/// `A` and are none.
pub(crate) fn strange_variables<A: Args>() -> Vec<String> {
    environment::mistakes(&command::<A>())
}

fn command<A: Args>() -> Command {
    A::augment_args(Command::new("pushwheel").no_binary_name(true))
}

fn read(command: &Command, words: &[OsString]) -> Result<ArgMatches, Failure> {
    let command = environment::without_empty(command.clone());
    let matches = command.try_get_matches_from(words);
    matches.map_err(told)
}

/// The first sentence of what clap says, which is about the value.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn told(error: clap::Error) -> Failure {
    let text = error.to_string();
    let text = text.split("\n\n").next().unwrap_or_default();
    let text = text.strip_prefix("error: ").unwrap_or(text);
    text.trim().replace("\n  ", " ").replace('\n', " ")
}

/// The flag of an entry whose key and values are right, or what is wrong.
fn check<'a>(command: &'a Command, entry: &Entry) -> Result<&'a Arg, Failure> {
    let (key, place) = (&entry.key, &entry.place);
    let mut args = command.get_arguments().filter(|arg| is_key(arg));
    let Some(arg) = args.find(|arg| arg.get_id() == &**key) else {
        let keys = command.get_arguments().filter(|arg| is_key(arg));
        let keys: Vec<&str> = keys.map(|arg| arg.get_id().as_str()).collect();
        let meant = match nearest(&key.replace('-', "_"), &keys) {
            Some(other) => format!("did you mean `{other}`?"),
            None => "`pushwheel config` prints those there are".to_owned(),
        };
        return Err(format!("{place}: there is no setting `{key}`: {meant}"));
    };
    // By itself: neither the environment nor other keys are to blame here.
    let alone = command
        .clone()
        .mut_args(|arg| arg.required(false).env(None::<&str>));
    read(&alone, &words_of(arg, &entry.values)).map_err(|error| at(place, &error))?;
    Ok(arg)
}

/// Whether a flag is a key of the file too: all are but those that are about
/// the file.
fn is_key(arg: &Arg) -> bool {
    arg.get_long().is_some() && !NO_KEYS.contains(&arg.get_id().as_str())
}

/// Returns the name that a misspelled one probably means: the only one that begins or
/// ends with its words, or else the most similar one.
fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let has_words = |other: &&str| {
        let rest = other.strip_prefix(name).map(|rest| rest.starts_with('_'));
        let start = other.strip_suffix(name).map(|start| start.ends_with('_'));
        rest == Some(true) || start == Some(true)
    };
    let mut longer = names.iter().copied().filter(has_words);
    if let (Some(only), None) = (longer.next(), longer.next()) {
        return Some(only);
    }
    let likeness = |other: &str| strsim::jaro_winkler(name, other);
    let best = names
        .iter()
        .copied()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) >= LIKENESS).then_some(best)
}

/// Whether the words that were read or the environment have it.
fn is_given(matches: &ArgMatches, key: &str) -> bool {
    matches!(
        matches.value_source(key),
        Some(ValueSource::CommandLine | ValueSource::EnvVariable)
    )
}

/// A flag with its values, as words of a command line.
fn words_of(arg: &Arg, values: &[impl AsRef<OsStr>]) -> Vec<OsString> {
    let long = arg.get_long().unwrap_or_default();
    let word = |value: &OsStr| {
        let mut word = OsString::from(format!("--{long}="));
        word.push(value);
        word
    };
    values.iter().map(|value| word(value.as_ref())).collect()
}

/// Returns the values of a flag, or its default. Of the spellings of a boolean
/// it returns one.
fn raw(matches: &ArgMatches, arg: &Arg) -> Vec<OsString> {
    let key = arg.get_id().as_str();
    if let Ok(Some(value)) = matches.try_get_one::<bool>(key) {
        return vec![value.to_string().into()];
    }
    let values = matches.try_get_raw(key);
    let values = values.ok().flatten().into_iter().flatten();
    values.map(OsStr::to_owned).collect()
}

/// What is said of patterns: by flags and the environment, or else in the file.
fn rules_of<R: Args>(
    server: &Command,
    matches: &ArgMatches,
    in_file: Vec<RuleEntries>,
    mistakes: &mut Vec<String>,
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
            Err(mistake) => mistakes.push(mistake),
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
    let mut mistakes = Vec::new();
    for entry in &rule.entries {
        let (key, place) = (&entry.key, &entry.place);
        match check(&command, entry) {
            Err(_) if is_for_all_alone(server, &command, key) => mistakes.push(format!(
                "{place}: `{key}` is the server's, not a pattern's: put it above [[{RULES}]]"
            )),
            Ok(arg) => words.extend(words_of(arg, &entry.values)),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes.join("\n"));
    }
    if !rule.entries.iter().any(|entry| entry.key == "pattern") {
        let message = "this needs a pattern, as pattern = \"log.*\"";
        return Err(at(&rule.place, message));
    }
    let is_said = |arg: &&Arg| rule.entries.iter().any(|entry| arg.get_id() == &*entry.key);
    for arg in command.get_arguments().filter(|arg| !is_said(arg)) {
        words.extend(words_of(arg, &raw(for_all, arg)));
    }
    let matches = read(&command, &words).map_err(|error| at(&rule.place, &error))?;
    R::from_arg_matches(&matches).map_err(|error| at(&rule.place, &told(error)))
}

/// Whether a key may stand in the file, but in no table.
fn is_for_all_alone(server: &Command, rule: &Command, key: &str) -> bool {
    let has = |command: &Command| {
        let mut args = command.get_arguments();
        args.any(|arg| is_key(arg) && arg.get_id() == key)
    };
    has(server) && !has(rule)
}

fn at(place: &Place, message: &str) -> Failure {
    format!("{place}: {message}")
}
