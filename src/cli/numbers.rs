//! Numbers on the command line, and what to give instead of what is none.

use std::str::FromStr;

/// Reads a number of things.
pub(crate) fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    let begins_well = text.starts_with(|first: char| first.is_ascii_digit());
    let ends_badly = text.ends_with(|last: char| last.is_alphabetic());
    let what_to_do = match begins_well && ends_badly {
        true => "give a whole number without a unit, such as 1000",
        false => "give a whole number, such as 1000",
    };
    text.parse().map_err(|_| what_to_do.to_owned())
}

/// Reads a number of things of which there has to be one.
pub(crate) fn from_one<T: FromStr + Default + PartialEq>(text: &str) -> Result<T, String> {
    let number = whole::<T>(text)?;
    match number == T::default() {
        true => Err("give a whole number from 1 on".to_owned()),
        false => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_told_with_what_to_give() {
        assert_eq!(whole::<u64>("1000"), Ok(1000));
        for (text, told) in [("ten", "whole number, such"), ("-1", "whole number, such")] {
            assert!(whole::<u64>(text).unwrap_err().contains(told), "{text}");
        }
        for text in ["10m", "1MB", "15s"] {
            assert!(whole::<u64>(text).unwrap_err().contains("without a unit"));
        }
        assert_eq!(from_one::<u32>("1"), Ok(1));
        assert!(from_one::<u32>("0").unwrap_err().contains("from 1 on"));
    }
}
