//! A record as one line of text or JSON, whatever it contains.

use std::fmt::Write;

use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use log::{Level, Record};
use serde::{Serialize, Serializer};
use serde_json::Value as Json;

/// The format of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people: time, level, target, message and fields.
    Text,
    /// For programs: a JSON object.
    Json,
}

impl Format {
    /// Returns the line of a record, with its line end.
    pub(super) fn line(self, record: &Record<'_>) -> Vec<u8> {
        let mut fields = Fields(Vec::new());
        // Collecting does not fail.
        let _ = record.key_values().visit(&mut fields);
        let message = record.args().to_string();
        self.write(record.level(), record.target(), &message, &fields)
    }

    /// Returns the line that reports lost lines.
    pub(super) fn lost(self, count: u64) -> Vec<u8> {
        let message = "log lines were dropped, because the reader of the log is too slow";
        let fields = Fields(vec![("lines".to_owned(), count.into())]);
        self.write(Level::Warn, "pushwheel::log", message, &fields)
    }

    fn write(self, level: Level, log: &str, message: &str, fields: &Fields) -> Vec<u8> {
        let time = jiff::Timestamp::now();
        match self {
            Format::Text => {
                let mut line = format!("{time:.3} {level:<5} {log}: ");
                push_plain(&mut line, message);
                for (key, value) in &fields.0 {
                    line.push(' ');
                    push_plain(&mut line, key);
                    line.push('=');
                    push_value(&mut line, value);
                }
                line.push('\n');
                line.into_bytes()
            }
            Format::Json => {
                let object = Object {
                    time: format!("{time:.3}"),
                    level: level.as_str().to_lowercase(),
                    log,
                    message,
                    fields,
                };
                let mut line = serde_json::to_vec(&object).unwrap_or_default();
                line.push(b'\n');
                line
            }
        }
    }
}

/// Appends a text, with escapes for characters that would end the line or control a
/// terminal.
fn push_plain(line: &mut String, text: &str) {
    for c in text.chars() {
        match is_harmless(c) {
            true => line.push(c),
            false => line.extend(c.escape_default()),
        }
    }
}

/// Returns whether a character is neither a control character nor one that changes the
/// direction of text, which could make a line look like another one.
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Appends a value, in quotes if it would be ambiguous without.
fn push_value(line: &mut String, value: &Json) {
    let Json::String(text) = value else {
        // Writing to a string does not fail.
        let _ = write!(line, "{value}");
        return;
    };
    let is_word = |c: char| c.is_alphanumeric() || "-._:/?&%*+,;@[]()~#!$".contains(c);
    if !text.is_empty() && text.chars().all(is_word) {
        line.push_str(text);
        return;
    }
    line.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            c => push_plain(line, c.encode_utf8(&mut [0; 4])),
        }
    }
    line.push('"');
}

/// The fields of a record that have a value.
struct Fields(Vec<(String, Json)>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let mut read = Reader(Json::Null);
        value.visit(&mut read)?;
        if !read.0.is_null() {
            self.0.push((key.as_str().to_owned(), read.0));
        }
        Ok(())
    }
}

struct Reader(Json);

impl<'v> VisitValue<'v> for Reader {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        self.0 = value.to_string().into();
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_str(&mut self, value: &str) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }
}

#[derive(Serialize)]
struct Object<'a> {
    time: String,
    level: String,
    log: &'a str,
    message: &'a str,
    #[serde(flatten, serialize_with = "serialize_fields")]
    fields: &'a Fields,
}

fn serialize_fields<S: Serializer>(fields: &&Fields, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(fields.0.iter().map(|(key, value)| (key, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: [&str; 6] = [
        "a\nb\r\n2026 ERROR forged: line",
        "\u{1b}[2J",
        "\"quoted\" and \\ back",
        "",
        "\u{202e}drawkcab\u{2028}",
        "é 世界 \u{0}",
    ];

    fn lines(format: Format) -> Vec<String> {
        let write = |text: &&str| {
            let line = format.line(
                &Record::builder()
                    .level(Level::Info)
                    .target("pushwheel::access")
                    .args(format_args!("{text}"))
                    .key_values(&[("path", *text)])
                    .build(),
            );
            String::from_utf8(line).unwrap()
        };
        NASTY.iter().map(write).collect()
    }

    #[test]
    fn a_record_is_one_line_of_text_whatever_it_contains() {
        for line in lines(Format::Text) {
            let line = line.strip_suffix('\n').unwrap();
            assert!(line.chars().all(is_harmless), "{line:?}");
            assert!(line.contains(" INFO  pushwheel::access: "), "{line}");
        }
        assert!(lines(Format::Text)[2].ends_with("path=\"\\\"quoted\\\" and \\\\ back\"\n"));
        assert!(lines(Format::Text)[3].ends_with("path=\"\"\n"));
    }

    #[test]
    fn a_record_is_one_object_of_json_whatever_it_contains() {
        for (line, text) in lines(Format::Json).iter().zip(NASTY) {
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            let object: Json = serde_json::from_str(line).unwrap();
            assert_eq!(object["message"], text);
            assert_eq!(object["path"], text);
            assert_eq!(object["level"], "info");
        }
    }

    #[test]
    fn numbers_stay_numbers_and_missing_values_are_left_out() {
        let none: Option<&str> = None;
        let fields: [(&str, Value<'_>); 4] = [
            ("status", 200_u16.into()),
            ("duration_ms", 0.25.into()),
            ("code", log::kv::ToValue::to_value(&none)),
            ("is_new", true.into()),
        ];
        let record = |format: Format| {
            let line = format.line(
                &Record::builder()
                    .args(format_args!("m"))
                    .key_values(&fields)
                    .build(),
            );
            String::from_utf8(line).unwrap()
        };
        let line = record(Format::Text);
        assert!(
            line.ends_with(" m status=200 duration_ms=0.25 is_new=true\n"),
            "{line}"
        );
        let object: Json = serde_json::from_str(&record(Format::Json)).unwrap();
        assert_eq!(object["status"], 200);
        assert_eq!(object.get("code"), None);
    }
}
