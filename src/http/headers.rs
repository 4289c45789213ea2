//! The headers of a response: an ordered list that cannot break the framing.
//!
//! A header enters the list only if it is one line on the wire, and only if
//! [`write_head`](super::write_head) does not write it itself. So an embedder can neither
//! split a response nor contradict its framing.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use super::{is_token_byte, is_value_byte};

/// The headers that belong to the framing of a response.
const RESERVED: [&str; 7] = [
    "Connection",
    "Content-Length",
    "Date",
    "Keep-Alive",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
];

/// The headers of a response, in their order. Names are compared without regard to case
/// and sent as they were given.
///
/// ```
/// # #[cfg(feature = "internals")] {
/// # use pushwheel::internals::http::Headers;
/// let mut headers = Headers::new();
/// headers.insert("Content-Type", "text/plain; charset=utf-8").unwrap();
/// assert_eq!(headers.get("content-type"), Some("text/plain; charset=utf-8"));
/// assert!(headers.insert("X-Name", "two\r\nlines").is_err());
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    fields: Vec<(Text, Text)>,
}

type Text = Cow<'static, str>;

impl Headers {
    /// Returns an empty list, which takes no memory.
    pub const fn new() -> Self {
        Headers { fields: Vec::new() }
    }

    /// Sets a header. It replaces the first one of its name, and removes any others of that
    /// name.
    ///
    /// # Errors
    /// When the name or the value is invalid in a header, or the name is reserved. The list
    /// does not change.
    pub fn insert(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Result<(), HeaderError> {
        let field = checked(name.into(), value.into())?;
        let Some(first) = self.position(&field.0) else {
            self.fields.push(field);
            return Ok(());
        };
        let name = field.0.clone();
        self.fields[first] = field;
        let mut at = 0;
        self.fields.retain(|(other, _)| {
            at += 1;
            at <= first + 1 || !other.eq_ignore_ascii_case(&name)
        });
        Ok(())
    }

    /// Adds a header at the end, also if there is one of its name, as `Set-Cookie` and
    /// `Link` need it.
    ///
    /// # Errors
    /// As [`insert`](Headers::insert).
    pub fn append(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Result<(), HeaderError> {
        self.fields.push(checked(name.into(), value.into())?);
        Ok(())
    }

    /// Removes all headers of this name. Returns whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.fields.len();
        self.fields
            .retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.fields.len() < before
    }

    /// Returns the value of the first header of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        Some(&self.fields[self.position(name)?].1)
    }

    /// Returns the names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.fields.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Returns the number of headers.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    fn position(&self, name: &str) -> Option<usize> {
        (self.fields.iter()).position(|(other, _)| other.eq_ignore_ascii_case(name))
    }
}

/// Checks that a stream's response may have a header of this name.
pub(crate) fn check_stream_header(name: &str) -> Result<(), HeaderError> {
    match name.eq_ignore_ascii_case("Content-Type") {
        true => Err(HeaderError::StreamContentType),
        false => Ok(()),
    }
}

fn checked(name: Text, value: Text) -> Result<(Text, Text), HeaderError> {
    if name.is_empty() || !name.bytes().all(is_token_byte) {
        return Err(HeaderError::InvalidName(name.into()));
    }
    if RESERVED
        .iter()
        .any(|reserved| reserved.eq_ignore_ascii_case(&name))
    {
        return Err(HeaderError::Reserved(name.into()));
    }
    if !value.bytes().all(is_value_byte) {
        return Err(HeaderError::InvalidValue(name.into()));
    }
    Ok((name, value))
}

/// A header that cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// The name is empty or contains an invalid character.
    InvalidName(Box<str>),
    /// The value contains a line end, a NUL or another control character.
    InvalidValue(Box<str>),
    /// The engine sets this header itself: `Connection`, `Content-Length`, `Date`,
    /// `Keep-Alive`, `Trailer`, `Transfer-Encoding` or `Upgrade`.
    Reserved(Box<str>),
    /// A stream is always `text/event-stream`: browsers read no other type.
    StreamContentType,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::InvalidName(name) => write!(
                f,
                "{name:?} is not a valid header name. Use letters, digits and any of !#$%&'*+-.^_`|~"
            ),
            HeaderError::InvalidValue(name) => write!(
                f,
                "the value of the header `{name}` contains a line end or another control character. \
                 Remove or encode it"
            ),
            HeaderError::Reserved(name) => write!(
                f,
                "the engine sets the header `{name}` itself, to fit the body and the connection. Do \
                 not set it"
            ),
            HeaderError::StreamContentType => f.write_str(
                "the `Content-Type` of a stream is always `text/event-stream`. Do not set it",
            ),
        }
    }
}

impl Error for HeaderError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_can_never_become_another_header() {
        let mut headers = Headers::new();
        for value in ["a\r\nX: b", "a\nb", "a\rb", "a\0b", "a\x1bb", "a\x7fb"] {
            let error = headers.insert("X-Name", value).unwrap_err();
            assert_eq!(error, HeaderError::InvalidValue("X-Name".into()));
            assert_eq!(headers.append("X-Name", value), Err(error));
        }
        assert!(headers.is_empty());
    }

    #[test]
    fn a_name_is_a_token() {
        let mut headers = Headers::new();
        for name in ["", " ", "a b", "a:", "a\r\n", "é", "(a)", "a\0"] {
            let error = headers.insert(name, "value").unwrap_err();
            assert_eq!(error, HeaderError::InvalidName(name.into()));
        }
    }

    #[test]
    fn the_framing_belongs_to_the_server() {
        let mut headers = Headers::new();
        for name in RESERVED {
            for name in [name.to_owned(), name.to_lowercase()] {
                let error = headers.insert(name.clone(), "5").unwrap_err();
                assert_eq!(error, HeaderError::Reserved(name.into()));
            }
        }
    }

    #[test]
    fn text_and_tabs_may_stand_in_a_value() {
        let mut headers = Headers::new();
        for value in ["", "a\tb", "grüße", "\"quoted\", and; more"] {
            headers.insert("X-Name", value).unwrap();
            assert_eq!(headers.get("x-name"), Some(value));
        }
    }

    #[test]
    fn insert_replaces_and_append_adds() {
        let mut headers = Headers::new();
        headers.append("Link", "one").unwrap();
        headers.append("Vary", "Origin").unwrap();
        headers.append("LINK", "two").unwrap();
        assert_eq!(headers.get("link"), Some("one"));
        assert_eq!(headers.len(), 3);

        headers.insert("link", "three").unwrap();
        let all: Vec<_> = headers.iter().collect();
        assert_eq!(all, [("link", "three"), ("Vary", "Origin")]);

        assert!(headers.remove("LINK"));
        assert!(!headers.remove("LINK"));
        assert_eq!(headers.get("link"), None);
    }

    #[test]
    fn an_error_says_what_to_do() {
        let error = Headers::new().insert("content-length", "5").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the engine sets the header `content-length` itself, to fit the body and the connection. Do not set it"
        );
    }
}
