//! Values that the command line, the environment and the file share.

use pushwheel::Rate;

/// The spellings of a boolean, in upper or lower case.
const SPELLINGS: [(&str, bool); 8] = [
    ("true", true),
    ("false", false),
    ("1", true),
    ("0", false),
    ("yes", true),
    ("no", false),
    ("on", true),
    ("off", false),
];

/// The value of a boolean flag that is passed without one.
pub(crate) const YES: &str = "true";

/// Parses a boolean.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    let mut spellings = SPELLINGS.iter();
    let found = spellings.find(|(spelling, _)| spelling.eq_ignore_ascii_case(text.trim()));
    let value = found.map(|(_, value)| *value);
    value.ok_or_else(|| "use true or false (also 1, 0, yes, no, on, off)".to_owned())
}

/// Parses a rate per second.
pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    match text.parse::<f64>() {
        Ok(count) if count.is_finite() && count > 0.0 => Ok(Rate::per_second(count)),
        _ => Err("use a number per second above 0, such as 100 or 0.5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boolean_has_four_spellings_in_any_case() {
        for (texts, value) in [
            (["true", "1", "yes", "on"], true),
            (["false", "0", "no", "off"], false),
        ] {
            for text in texts {
                assert_eq!(boolean(text), Ok(value), "{text}");
                assert_eq!(boolean(&text.to_uppercase()), Ok(value), "{text}");
            }
        }
        for text in ["", "2", "truth", "enabled"] {
            assert!(
                boolean(text).unwrap_err().contains("true or false"),
                "{text}"
            );
        }
    }
}
