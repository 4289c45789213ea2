//! The headers of a response: an ordered list that nobody can break out of.
//!
//! A header comes into the list only if it is one line of one header on the
//! wire, and only if it is not one that [`write_head`](super::write_head) is
//! answerable for: no embedder can split a response or contradict its framing.

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

/// The headers of a response, in the order they are sent in. Names are compared
/// without regard to case and sent as they were given.
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
    /// No headers; takes no memory until there is one.
    pub const fn new() -> Self {
        Headers { fields: Vec::new() }
    }

    /// Sets a header: it takes the place of the first one of that name, and any
    /// others of that name are gone.
    ///
    /// # Errors
    ///
    /// The name or the value cannot stand in a header, or the name is reserved;
    /// the list is as it was.
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

    /// Adds a header behind all others, whether or not there is one of that name
    /// (as `Set-Cookie` and `Link` need it).
    ///
    /// # Errors
    ///
    /// As [`insert`](Headers::insert).
    pub fn append(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Result<(), HeaderError> {
        self.fields.push(checked(name.into(), value.into())?);
        Ok(())
    }

    /// Removes all headers of that name; says whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.fields.len();
        self.fields
            .retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.fields.len() < before
    }

    /// The value of the first header of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        Some(&self.fields[self.position(name)?].1)
    }

    /// The names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.fields.iter().map(|(name, value)| (&**name, &**value))
    }

    /// How many headers there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are none.
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

/// Why a header cannot be sent. Holds the header's name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// The name is empty or holds a character that no name may.
    InvalidName(Box<str>),
    /// The value holds a line end, a NUL or another control character.
    InvalidValue(Box<str>),
    /// The name belongs to the framing of the response: `Connection`,
    /// `Content-Length`, `Date`, `Keep-Alive`, `Trailer`, `Transfer-Encoding` or
    /// `Upgrade`.
    Reserved(Box<str>),
    /// A stream is always `text/event-stream`: browsers read no other type.
    StreamContentType,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::InvalidName(name) => write!(
                f,
                "{name:?} cannot be a header's name: use letters, digits and any of !#$%&'*+-.^_`|~"
            ),
            HeaderError::InvalidValue(name) => write!(
                f,
                "the value of header `{name}` holds a line end or another control character: remove or encode it"
            ),
            HeaderError::Reserved(name) => write!(
                f,
                "header `{name}` is written by the server itself, to fit the body and the connection: do not set it"
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
            "header `content-length` is written by the server itself, to fit the body and the connection: do not set it"
        );
    }
}
