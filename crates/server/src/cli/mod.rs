//! What the subcommands do. Each `run` answers why it failed, in words for
//! whoever typed the command.

use std::fmt;

pub(crate) mod check;
mod files;
pub(crate) mod generate;
pub(crate) mod http;
pub(crate) mod log;
pub(crate) mod mistake;
pub(crate) mod numbers;
pub(crate) mod publish;
pub(crate) mod serve;
pub(crate) mod settings;
mod stream;
pub(crate) mod sub;
pub(crate) mod words;

/// Why a command failed; `main` prints it.
pub(crate) type Failure = String;

/// The text of a key, which `{:?}` does not show. Any text will do until it is
/// known where it came from: clap would print one that it refuses.
#[derive(Clone)]
pub(crate) struct Secret(pub(crate) String);

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
