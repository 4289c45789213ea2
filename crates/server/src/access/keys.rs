//! Keys: who may publish, and who may look and manage.
//!
//! A key arrives as `Authorization: Bearer KEY`, which no browser sends by
//! itself, as it would a cookie: whoever has it was given it. Once there is
//! any key nothing but subscribing, `/` with its page's files, `/health` and the
//! browser's client is open. A key is never written anywhere: not to a log, not
//! into an answer, not by `{:?}`. What a key gives is for `access` to say.

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

/// The fewest characters that a key may have. Sixteen of `openssl rand -hex` are 64
/// random bits, beyond guessing over a network.
pub const KEY_CHARACTERS_MIN: usize = 16;

/// A key that is too short ([`KEY_CHARACTERS_MIN`]), or that could not be sent in a
/// header: it has a space or something other than visible ASCII in it.
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
    /// When the text is too short, or could not be sent in a header.
    pub fn new(text: &str) -> Result<Key, KeyError> {
        let is_key =
            text.len() >= KEY_CHARACTERS_MIN && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_key.then(|| Key(text.into())).ok_or(KeyError)
    }

    /// Returns what identifies the key without being it.
    fn id(&self) -> CredentialId {
        CredentialId::of(&[self.0.as_bytes()])
    }

    /// Takes as long for a text that is nearly right as for any other of its
    /// length.
    fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// What a route is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// POST
    Publish,
    /// POST as well.
    MakeTickets,
    /// DELETE, and looking at what there is.
    Manage,
}

/// Who has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Publisher,
    Admin,
}

/// The server's keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    /// Several while they are changed.
    pub(crate) publish: Vec<Key>,
    /// They may publish too.
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

    /// Whose key came with a request.
    pub(crate) fn holder(&self, request: &Request) -> Option<Holder> {
        let given = bearer_of(request)?;
        // All are compared, so that time does not tell which one it is.
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
    fn a_key_is_not_shown() {
        let keys = Keys {
            publish: vec![Key::new("s3cret-of-a-test").unwrap()],
            admin: vec![Key::new("s4cret-of-a-test").unwrap()],
        };
        let shown = format!("{keys:?}");
        assert!(!shown.contains("cret"), "{shown}");
    }
}
