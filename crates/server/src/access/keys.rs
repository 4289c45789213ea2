//! The keys for publishing and for managing.
//!
//! A key arrives as `Authorization: Bearer KEY`. A browser does not add that by itself, as
//! it adds a cookie, so the sender of a key has received it on purpose. A key is never
//! written to a log, into a response or by `{:?}`.

use std::fmt;

use subtle::ConstantTimeEq;

use super::credential::{CredentialId, bearer_of};
use pushwheel::Request;

/// A secret that its holder sends as `Authorization: Bearer KEY`.
///
/// ```
/// use pushwheel_server::Key;
///
/// let key = Key::new("GpX3bM0xkU8vQ6sT")?;
/// assert_eq!(format!("{key:?}"), "Key(..)");
/// # Ok::<(), pushwheel_server::KeyError>(())
/// ```
#[derive(Clone)]
pub struct Key(Box<str>);

/// Minimum characters of a key. Sixteen of `openssl rand -hex` are 64 random bits, which
/// cannot be guessed over a network.
pub const KEY_CHARACTERS_MIN: usize = 16;

/// A key that is too short ([`KEY_CHARACTERS_MIN`]), or has characters other than visible
/// ASCII and so could not be sent in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyError;

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a key is at least 16 visible ASCII characters without spaces. Make one with \
             `openssl rand -hex 32`",
        )
    }
}

impl std::error::Error for KeyError {}

impl Key {
    /// Returns a key with this text.
    ///
    /// # Errors
    /// If the text is too short, or could not be sent in a header.
    pub fn new(text: &str) -> Result<Key, KeyError> {
        let is_key =
            text.len() >= KEY_CHARACTERS_MIN && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_key.then(|| Key(text.into())).ok_or(KeyError)
    }

    /// Returns the digest that identifies the key.
    fn id(&self) -> CredentialId {
        CredentialId::of(&[self.0.as_bytes()])
    }

    /// Compares in a time that depends on the length alone.
    fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The right that a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    Publish,
    /// To finish a channel with a publish.
    Finish,
    MakeTickets,
    /// To view figures, channels and clients, and to close and disconnect them.
    Manage,
}

/// The role of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Publisher,
    Admin,
}

/// The server's keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    /// Several, while the operator replaces one.
    pub(crate) publish: Vec<Key>,
    /// Admin keys have the right to publish too.
    pub(crate) admin: Vec<Key>,
}

impl Keys {
    pub(crate) fn are_none(&self) -> bool {
        self.publish.is_empty() && self.admin.is_empty()
    }

    /// Whether one of the keys has this id.
    pub(crate) fn has(&self, id: CredentialId) -> bool {
        let mut keys = self.publish.iter().chain(&self.admin);
        keys.any(|key| key.id() == id)
    }

    /// Returns the role of the key in a request.
    pub(crate) fn holder(&self, request: &Request) -> Option<Holder> {
        self.role_of(bearer_of(request)?)
    }

    fn role_of(&self, given: &str) -> Option<Holder> {
        // Compares all keys, so that the time does not reveal which one matches.
        let is = |keys: &[Key]| keys.iter().fold(false, |is, key| is | key.is(given));
        let (is_publish, is_admin) = (is(&self.publish), is(&self.admin));
        match (is_admin, is_publish) {
            (true, _) => Some(Holder::Admin),
            (false, true) => Some(Holder::Publisher),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_can_be_sent_in_a_header() {
        for bad in [
            "",
            "fifteen-letters",
            "two words of tests",
            "a-key-of-tests-\n",
            "schlüssel-der-tests",
        ] {
            assert_eq!(Key::new(bad).err(), Some(KeyError), "{bad:?}");
        }
        let key = Key::new("s3cret-of-a-test").unwrap();
        assert!(key.is("s3cret-of-a-test"));
        for wrong in [
            "",
            "s3cret-of-a-tes",
            "s3cret-of-a-test!",
            "S3cret-of-a-test",
        ] {
            assert!(!key.is(wrong), "{wrong}");
        }
    }

    #[test]
    fn an_admin_key_wins_and_an_unknown_key_has_no_role() {
        let key = |text| Key::new(text).unwrap();
        let keys = Keys {
            publish: vec![key("publish-key-0001"), key("publish-key-0002")],
            admin: vec![key("admin-key-000001"), key("publish-key-0002")],
        };
        for (text, role) in [
            ("publish-key-0001", Some(Holder::Publisher)),
            ("publish-key-0002", Some(Holder::Admin)),
            ("admin-key-000001", Some(Holder::Admin)),
            ("admin-key-00000", None),
            ("", None),
        ] {
            assert_eq!(keys.role_of(text), role, "{text}");
        }
        assert!(keys.has(key("admin-key-000001").id()));
        assert!(!keys.has(key("admin-key-000002").id()));
        assert!(Keys::default().are_none() && !keys.are_none());
    }

    #[test]
    fn a_key_is_not_shown() {
        let keys = Keys {
            publish: vec![Key::new("s3cret-of-a-test").unwrap()],
            admin: vec![Key::new("s4cret-of-a-test").unwrap()],
        };
        let shown = format!("{keys:?}");
        assert!(!shown.contains("cret"), "{shown}");
    }
}
