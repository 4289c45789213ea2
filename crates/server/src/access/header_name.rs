//! Names of headers that pages may send. Pure.

use std::fmt;
use std::str::FromStr;

/// The name of a header that a page of another origin may send: `traceparent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderName(Box<str>);

/// A text that is not the name of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderNameError;

impl fmt::Display for HeaderNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the name of a header consists of letters, digits and -. Examples: `traceparent`, \
             `X-Request-ID`",
        )
    }
}

impl std::error::Error for HeaderNameError {}

impl FromStr for HeaderName {
    type Err = HeaderNameError;

    /// Accepts the names of RFC 9110 section 5.1 that are in use. `*` would not mean all
    /// headers in requests with credentials.
    fn from_str(text: &str) -> Result<HeaderName, HeaderNameError> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        match !text.is_empty() && text.bytes().all(is_part) {
            true => Ok(HeaderName(text.into())),
            false => Err(HeaderNameError),
        }
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_end_the_header_that_lists_it() {
        for good in ["traceparent", "X-Request-ID", "x_1"] {
            assert_eq!(good.parse::<HeaderName>().unwrap().to_string(), good);
        }
        for bad in ["", "*", "a b", "a,b", "a:", "a\r\nb", "é"] {
            assert_eq!(bad.parse::<HeaderName>(), Err(HeaderNameError), "{bad:?}");
        }
    }
}
