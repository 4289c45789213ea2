//! The place of the credential in a request: `Authorization`, the query, or a cookie, in
//! this order. The first credential that is present counts, even if it is wrong.

use std::borrow::Cow;
use std::fmt;

use ring::digest;

use pushwheel::Request;

/// The digest that identifies a key. A ticket keeps the digest of the key behind it, and
/// becomes invalid when the server no longer has that key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct CredentialId([u8; 32]);

impl CredentialId {
    /// Returns the id of a key that consists of these parts.
    pub(crate) fn of(parts: &[&[u8]]) -> CredentialId {
        let mut context = digest::Context::new(&digest::SHA256);
        parts.iter().for_each(|part| context.update(part));
        let mut id = [0; 32];
        id.copy_from_slice(context.finish().as_ref());
        CredentialId(id)
    }

    /// Returns the digest in hexadecimal.
    pub(super) fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads what [`to_hex`](Self::to_hex) has written.
    pub(super) fn from_hex(text: &str) -> Option<CredentialId> {
        let mut id = [0; 32];
        if text.len() != 2 * id.len() || !text.is_ascii() {
            return None;
        }
        for (at, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(CredentialId(id))
    }

    pub(super) fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// Returns its two halves.
    pub(super) fn halves(&self) -> [[u8; 16]; 2] {
        let (halves, _) = self.0.as_chunks::<16>();
        [halves[0], halves[1]]
    }
}

impl fmt::Debug for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialId(..)")
    }
}

/// The query's parameter for a ticket.
pub(crate) const TICKET: &str = "ticket";

/// A credential that was sent, not checked yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Credential<'a> {
    /// A key or a token.
    Bearer(&'a str),
    Ticket(Cow<'a, str>),
    Query(Cow<'a, str>),
    /// A browser adds it by itself to the requests of any page.
    Cookie(&'a str),
}

impl Credential<'_> {
    /// Returns it as it was sent.
    pub(super) fn text(&self) -> &str {
        match self {
            Credential::Bearer(text) | Credential::Cookie(text) => text,
            Credential::Ticket(text) | Credential::Query(text) => text,
        }
    }
}

/// The places of a token besides `Authorization`.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The query's parameter for a token.
    pub(crate) parameter: Box<str>,
    pub(crate) cookie: Option<Box<str>>,
}

impl Places {
    /// Returns the credential of a request.
    pub(super) fn find<'a>(&self, request: &'a Request) -> Option<Credential<'a>> {
        if let Some(text) = bearer_of(request) {
            return Some(Credential::Bearer(text));
        }
        for (name, value) in request.query_pairs() {
            match &*name {
                TICKET => return Some(Credential::Ticket(value)),
                name if *name == *self.parameter => return Some(Credential::Query(value)),
                _ => {}
            }
        }
        let cookie = cookie(request, self.cookie.as_deref()?)?;
        Some(Credential::Cookie(cookie))
    }
}

/// Returns the text after `Authorization: Bearer` in a request.
pub(crate) fn bearer_of(request: &Request) -> Option<&str> {
    request.header("authorization").and_then(bearer)
}

/// Returns the key in `Bearer KEY`. The case of the scheme does not matter (RFC 9110
/// section 11.1).
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, key) = authorization.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("Bearer") && !key.is_empty()).then_some(key)
}

fn cookie<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let lines = request
        .headers()
        .filter(|(header, _)| header.eq_ignore_ascii_case("cookie"));
    let mut texts = lines.filter_map(|(_, line)| str::from_utf8(line).ok());
    texts.find_map(|text| value_of(text, name))
}

/// Returns the value of the first cookie with this name in a header `Cookie` (RFC 6265
/// section 4.2.1), unless it is empty.
pub(super) fn value_of<'a>(cookies: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = cookies
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(other, _)| *other == name)?;
    let unquoted = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'));
    Some(unquoted.unwrap_or(value)).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_follows_bearer() {
        for (header, key) in [
            ("Bearer k", Some("k")),
            ("bearer  k ", Some("k")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Basic k", None),
            ("k", None),
        ] {
            assert_eq!(bearer(header), key, "{header}");
        }
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        for (cookies, value) in [
            ("push=a.b.c", Some("a.b.c")),
            ("x=1; push=a; push=b", Some("a")),
            ("x=1;push=a=b", Some("a=b")),
            ("push=\"a\"", Some("a")),
            ("push=\"", Some("\"")),
            ("push=; x=push", None),
            ("push", None),
            ("Push=a", None),
            ("xpush=a; push2=b", None),
            ("x=\"; push=a\"", Some("a\"")),
            ("", None),
        ] {
            assert_eq!(value_of(cookies, "push"), value, "{cookies}");
        }
    }
}
