//! Types that the subcommands of `pushwheel` share.

use std::path::Path;
use std::{fmt, fs};

use crate::files;

/// The error message of a command, which `main` prints.
pub type Failure = String;

/// The text of a key. `{:?}` does not print it.
///
/// Parsing accepts any text, because clap prints a value that it rejects.
#[derive(Clone)]
pub struct Secret(pub String);

impl Secret {
    /// Returns the secret in a file, without the line end that editors add. `flag` is the
    /// option that names the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(flag: &str, file: &Path) -> Result<Secret, Failure> {
        let text = fs::read_to_string(file).map_err(|error| {
            let (file, reason) = (file.display(), files::reason_to_read(&error));
            format!("cannot read {flag} {file} {reason}")
        })?;
        Ok(Secret(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

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
