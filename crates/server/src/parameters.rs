//! The values of parameters in a query: booleans and whole numbers. Pure.

use std::str::FromStr;

use super::errors::Problem;

/// Reads a boolean. The value of a parameter that is on is optional: `?finish`.
pub(super) fn boolean(name: &str, value: &str) -> Result<bool, Problem> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Problem::parameter(name, "true or false")),
    }
}

/// Reads a whole number. `parse` alone accepts a sign too.
pub(super) fn whole<T: FromStr>(value: &str) -> Option<T> {
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boolean_has_two_values_and_each_two_spellings() {
        for (value, wanted) in [("", true), ("true", true), ("1", true)] {
            assert_eq!(boolean("x", value), Ok(wanted), "{value}");
        }
        for value in ["false", "0"] {
            assert_eq!(boolean("x", value), Ok(false), "{value}");
        }
        for value in ["no", "yes", "True", " ", "2"] {
            let wanted = Problem::parameter("x", "true or false");
            assert_eq!(boolean("x", value), Err(wanted), "{value}");
        }
    }

    #[test]
    fn a_whole_number_has_only_digits() {
        assert_eq!((whole("0"), whole("1500")), (Some(0_u64), Some(1500_u64)));
        for bad in ["", "soon", "1.5", "-1", "+1", " 1", "99999999999999999999"] {
            assert_eq!(whole::<u64>(bad), None, "{bad}");
        }
    }
}
