//! Numbers on the command line.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The maximum of heartbeats and ticket lifetimes, in seconds. A larger number was meant as
/// milliseconds.
pub const HOUR_S: u64 = 3600;
/// The maximum of timeouts, in seconds.
pub const DAY_S: u64 = 24 * HOUR_S;
/// The maximum of ages, in seconds.
pub const YEAR_S: u64 = 365 * DAY_S;

/// Parses a number.
///
/// # Errors
/// When the text is not a whole number.
pub fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    let begins_well = text.starts_with(|first: char| first.is_ascii_digit());
    let ends_badly = text.ends_with(|last: char| last.is_alphabetic());
    let fix = match begins_well && ends_badly {
        true => "use a whole number without a unit, such as 1000",
        false => "use a whole number, such as 1000",
    };
    text.parse().map_err(|_| fix.to_owned())
}

/// Parses a number of at least 1.
///
/// # Errors
/// When the text is not such a number.
pub fn from_one<T: FromStr + Default + PartialEq>(text: &str) -> Result<T, String> {
    let number = whole::<T>(text)?;
    match number == T::default() {
        true => Err("use a whole number of at least 1".to_owned()),
        false => Ok(number),
    }
}

/// Parses a limit that is off by default. A limit of 0 would admit no client.
///
/// # Errors
/// When the text is not a number of at least 1.
pub fn limit(text: &str) -> Result<usize, String> {
    match whole(text)? {
        0 => Err("use 1 or more, or omit the option for no limit".to_owned()),
        number => Ok(number),
    }
}

/// Returns a parser of numbers in a range.
pub fn within<T: FromStr + PartialOrd + Display + Clone>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        let (from, to) = (range.start(), range.end());
        number.ok_or_else(|| format!("use a whole number from {from} to {to}"))
    }
}

/// Returns a parser of times in seconds, in a range.
pub fn seconds(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<u64, String> + Clone {
    let read = within(range);
    move |text| {
        let add_unit = |fix| format!("{fix}, in seconds without a unit, such as 15");
        read(text).map_err(add_unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_number_has_a_fix() {
        assert_eq!(whole::<u64>("1000"), Ok(1000));
        for (text, part) in [("ten", "whole number, such"), ("-1", "whole number, such")] {
            assert!(whole::<u64>(text).unwrap_err().contains(part), "{text}");
        }
        for text in ["10m", "1MB", "15s"] {
            assert!(whole::<u64>(text).unwrap_err().contains("without a unit"));
        }
        assert_eq!(from_one::<u32>("1"), Ok(1));
        assert!(from_one::<u32>("0").unwrap_err().contains("at least 1"));
        assert_eq!(limit("1"), Ok(1));
        assert!(
            limit("0")
                .unwrap_err()
                .contains("omit the option for no limit")
        );
        for text in ["0", "65", "two", "-1", ""] {
            let error = within(1..=64_u16)(text).unwrap_err();
            assert_eq!(error, "use a whole number from 1 to 64", "{text}");
        }
        assert_eq!(within(1..=64_u16)("64"), Ok(64));
        assert_eq!(seconds(0..=HOUR_S)("3600"), Ok(3600));
        for text in ["1.5", "15s", "3601", "99999999999999", "-1", ""] {
            let error = seconds(0..=HOUR_S)(text).unwrap_err();
            let wanted = "use a whole number from 0 to 3600, in seconds without a unit, such as 15";
            assert_eq!(error, wanted, "{text}");
        }
    }
}
