//! Types that the subcommands of `pushwheel` share.

use std::fmt;

/// The error message of a command, which `main` prints.
pub type Failure = String;

/// The text of a key. `{:?}` does not print it.
///
/// Parsing accepts any text, because clap prints a value that it rejects.
#[derive(Clone)]
pub struct Secret(pub String);

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
