//! The configuration file: TOML whose keys are the names of the flags, with `_` instead of
//! `-`. Values are kept as text with their line; the definitions of the flags parse them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::{Failure, files};

/// The name of the tables, one per pattern.
pub(in crate::cli) const RULES: &str = "channel";

/// The fix for a line that is not TOML.
const FORM: &str = "Write KEY = VALUE, with quotes around text: listen = \"127.0.0.1:8080\"";

/// Where a setting is set.
#[derive(Clone, Debug)]
pub(in crate::cli) enum Place {
    Line { file: Arc<str>, line: usize },
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line { file, line } => write!(f, "{file}:{line}"),
            Place::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A key and its value: one text, or several for an array.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Entry {
    pub(in crate::cli) key: String,
    pub(in crate::cli) values: Vec<String>,
    pub(super) is_array: bool,
    pub(super) place: Place,
}

/// The table of one pattern.
#[derive(Clone, Debug)]
pub(in crate::cli) struct RuleEntries {
    pub(in crate::cli) entries: Vec<Entry>,
    pub(super) place: Place,
}

/// The keys and values of a table, without their places.
pub(super) type Values<'a> = BTreeMap<&'a str, &'a [String]>;

impl RuleEntries {
    pub(super) fn values(&self) -> Values<'_> {
        let entries = self.entries.iter();
        entries.map(|entry| (&*entry.key, &*entry.values)).collect()
    }
}

/// The contents of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Document {
    pub(super) entries: Vec<Entry>,
    pub(super) rules: Vec<RuleEntries>,
}

/// Reads and parses a file.
pub(super) fn read(path: &Path) -> Result<Document, Failure> {
    let text = fs::read_to_string(path).map_err(|error| {
        let (path, reason) = (path.display(), files::reason_to_read(&error));
        format!("cannot read the configuration file {path} {reason}")
    })?;
    parse(&path.display().to_string(), &text)
}

fn parse(file: &str, text: &str) -> Result<Document, Failure> {
    let lines = Lines {
        file: file.into(),
        text,
    };
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let place = lines.place(offset);
        match error.message() {
            "duplicate key" => format!("{place}: duplicate key. Keep one"),
            _ if has_unit(lines.around(offset)) => {
                format!("{place}: a number has no unit. Write it as in heartbeat = 15")
            }
            message => format!("{place}: {message}. {FORM}"),
        }
    })?;
    let mut document = Document::default();
    for (key, value) in in_order(table.get_ref()) {
        let place = || lines.place(key.span().start);
        match (key.get_ref().as_ref(), value.get_ref()) {
            (RULES, DeValue::Array(rules)) => {
                for rule in rules.iter() {
                    let place = || lines.place(rule.span().start);
                    document
                        .rules
                        .push(rule_of(rule.get_ref(), &place, &lines)?);
                }
            }
            (RULES, _) => {
                let place = place();
                return Err(format!(
                    "{place}: not an array of tables. Write [[{RULES}]] for each pattern"
                ));
            }
            (key, value) => document.entries.push(entry(key, value, place())?),
        }
    }
    Ok(document)
}

/// Parses the value of the flag: an inline table, or an array of them.
pub(super) fn parse_flag(flag: &'static str, text: &str) -> Result<Vec<RuleEntries>, Failure> {
    let place = Place::Flag(flag);
    let value = DeValue::parse(text).map_err(|error| {
        format!(
            "{place}: {}. Use {{ pattern = \"log.*\", history_events = 5000 }}",
            error.message()
        )
    })?;
    let lines = Lines {
        file: flag.into(),
        text,
    };
    match value.get_ref() {
        DeValue::Array(rules) => {
            let rules = rules.iter();
            rules
                .map(|rule| rule_of(rule.get_ref(), &|| place.clone(), &lines))
                .collect()
        }
        rule => Ok(vec![rule_of(rule, &|| place.clone(), &lines)?]),
    }
}

fn rule_of(
    rule: &DeValue<'_>,
    place: &dyn Fn() -> Place,
    lines: &Lines<'_>,
) -> Result<RuleEntries, Failure> {
    let Some(table) = rule.as_table() else {
        return Err(format!(
            "{}: not a table. Use a table with a pattern: {{ pattern = \"log.*\" }}",
            place()
        ));
    };
    let entries = in_order(table).map(|(key, value)| {
        let place = match place() {
            Place::Line { .. } => lines.place(key.span().start),
            flag => flag,
        };
        entry(key.get_ref(), value.get_ref(), place)
    });
    Ok(RuleEntries {
        entries: entries.collect::<Result<_, _>>()?,
        place: place(),
    })
}

fn entry(key: &str, value: &DeValue<'_>, place: Place) -> Result<Entry, Failure> {
    let values = match value {
        DeValue::Array(values) => {
            let values = values.iter();
            values.map(|value| text_of(value.get_ref())).collect()
        }
        value => text_of(value).map(|text| vec![text]),
    };
    let is_table = match value {
        DeValue::Array(values) => values.iter().any(|value| value.get_ref().is_table()),
        value => value.is_table(),
    };
    if is_table {
        return Err(format!(
            "{place}: unknown table `{key}`. Only [[{RULES}]] is a table, one for each pattern; \
             other settings belong above it"
        ));
    }
    let Some(values) = values else {
        return Err(format!(
            "{place}: invalid value for `{key}`. Use a text, a number such as 16, true or false, \
             or an array of these"
        ));
    };
    Ok(Entry {
        key: key.to_owned(),
        values,
        is_array: value.is_array(),
        place,
    })
}

/// Returns a value as a flag would contain it.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.as_ref().to_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(answer) => Some(answer.to_string()),
        _ => None,
    }
}

/// Returns whether a value needs no quotes in a file: it is a number or a boolean that
/// parses to the same text.
pub(in crate::cli) fn is_bare(text: &str) -> bool {
    let is_begin = |byte: &u8| byte.is_ascii_digit() || b"+-tf".contains(byte);
    let read = DeValue::parse(text)
        .ok()
        .and_then(|value| text_of(value.get_ref()));
    text.as_bytes().first().is_some_and(is_begin) && read.as_deref() == Some(text)
}

type Field<'a, 'i> = (
    &'a Spanned<std::borrow::Cow<'i, str>>,
    &'a Spanned<DeValue<'i>>,
);

/// Returns the fields of a table in the order of the file, so that errors are too.
fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> impl Iterator<Item = Field<'a, 'i>> {
    let mut fields: Vec<_> = table.iter().collect();
    fields.sort_by_key(|(key, _)| key.span().start);
    fields.into_iter()
}

/// A file, to find the line of an offset.
struct Lines<'a> {
    file: Arc<str>,
    text: &'a str,
}

impl Lines<'_> {
    fn place(&self, offset: usize) -> Place {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        Place::Line {
            file: self.file.clone(),
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
        }
    }

    /// Returns the line at an offset.
    fn around(&self, offset: usize) -> &str {
        let (before, after) = self
            .text
            .split_at_checked(offset)
            .unwrap_or((self.text, ""));
        let begin = before.rfind('\n').map_or(0, |end| end + 1);
        let end = before.len() + after.find('\n').unwrap_or(after.len());
        &self.text[begin..end]
    }
}

/// Returns whether the value of a line is a number with a unit, such as `heartbeat = 15s`.
fn has_unit(line: &str) -> bool {
    let value = line.split_once('=').map_or("", |(_, value)| value.trim());
    let unit = value.trim_start_matches(|c: char| c.is_ascii_digit());
    unit.len() < value.len() && !unit.is_empty() && unit.chars().all(char::is_alphabetic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_their_line_and_a_value_as_text() {
        let text = "\
# a comment
listen = \"127.0.0.1:0\"
heartbeat = 20
allow_missing_keys = true
publish_rate = 0.5
allow_host = [\"a\", \"b\"]

[[channel]]
pattern = \"log.*\"
history_events = 5_000
";
        let document = parse("p.toml", text).unwrap();
        let entries: Vec<String> = document
            .entries
            .iter()
            .chain(&document.rules[0].entries)
            .map(|e| format!("{} {}={}", e.place, e.key, e.values.join(",")))
            .collect();
        assert_eq!(
            entries,
            [
                "p.toml:2 listen=127.0.0.1:0",
                "p.toml:3 heartbeat=20",
                "p.toml:4 allow_missing_keys=true",
                "p.toml:5 publish_rate=0.5",
                "p.toml:6 allow_host=a,b",
                "p.toml:9 pattern=log.*",
                "p.toml:10 history_events=5000",
            ]
        );
    }

    #[test]
    fn an_error_has_its_line() {
        for (text, start) in [
            ("a = 1\nb = \n", "p.toml:2: "),
            ("a = 1\na = 2\n", "p.toml:2: duplicate key"),
            ("\na = { b = 1 }\n", "p.toml:2: unknown table `a`. Only"),
            ("[[channels]]\n", "p.toml:1: unknown table `channels`. Only"),
            ("a = 15s\n", "p.toml:1: a number has no unit"),
            (
                "a = 1979-05-27\n",
                "p.toml:1: invalid value for `a`. Use a text",
            ),
            ("[channel]\n", "p.toml:1: not an array of tables"),
            ("channel = [1]\n", "p.toml:1: not a table"),
        ] {
            let error = parse("p.toml", text).unwrap_err();
            assert!(error.starts_with(start), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_flag_contains_one_table_or_several() {
        let one = "{ pattern = \"a\" }";
        assert_eq!(parse_flag("--channel", one).unwrap().len(), 1);
        let two = "[{ pattern = \"a\" }, { pattern = \"b\" }]";
        assert_eq!(parse_flag("--channel", two).unwrap().len(), 2);
        for bad in ["", "a", "1", "{ pattern = }"] {
            let error = parse_flag("--channel", bad).unwrap_err();
            assert!(error.starts_with("--channel: "), "{error}");
        }
    }
}
