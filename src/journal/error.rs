//! Why a journal cannot be used.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::hub::saved::RestoreError;

/// Why a journal cannot be opened, or no longer be written.
#[derive(Debug)]
#[non_exhaustive]
pub enum JournalError {
    /// The system has refused something.
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// Another process uses the directory.
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A part is missing or has changed. Nothing was changed.
    Damaged {
        /// The file.
        path: PathBuf,
        /// The place in the file, in bytes from its beginning.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A newer release has written it. Nothing was changed.
    Newer {
        /// The file.
        path: PathBuf,
        /// What this release does not know.
        what: String,
    },
    /// Its files have reached their maximum size.
    Full {
        /// The maximum, in bytes.
        max: u64,
    },
    /// A write or a sync failed before. Nothing is written until the journal is opened again.
    Failed {
        /// The error of that write or sync.
        why: String,
    },
    /// The saved state that a journal was to begin with cannot be used.
    State(RestoreError),
    /// The directory has no journal.
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// The directory has a journal already.
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
}

impl JournalError {
    /// Returns a function that adds what was tried with a file to the system's error.
    pub(crate) fn io(doing: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> JournalError {
        move |error| JournalError::Io { doing, path, error }
    }

    pub(crate) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> JournalError {
        JournalError::Damaged {
            path: path.to_owned(),
            offset,
            what: what.into(),
        }
    }

    pub(crate) fn newer(path: &Path, found: u32, known: u32) -> JournalError {
        JournalError::Newer {
            path: path.to_owned(),
            what: format!("its format has version {found}, and this release reads version {known}"),
        }
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Io { doing, path, error } => {
                write!(f, "cannot {doing} {} ({error})", path.display())
            }
            JournalError::Locked { path } => {
                write!(f, "another process uses the journal {}", path.display())
            }
            JournalError::Damaged { path, offset, what } => write!(
                f,
                "{} is damaged at byte {offset} ({what}). Restore a copy of the \
                 journal and run `pushwheel journal restored`, or move it away to begin without a \
                 history",
                path.display()
            ),
            JournalError::Newer { path, what } => write!(
                f,
                "{} is of a newer release ({what}). Use the release that has written it, or a \
                 newer one",
                path.display()
            ),
            JournalError::Full { max } => write!(
                f,
                "the journal has reached its maximum of {max} bytes. Raise the maximum, or lower \
                 the histories"
            ),
            JournalError::Failed { why } => write!(
                f,
                "the journal is not written since an error ({why}). Restart after its cause is \
                 removed"
            ),
            JournalError::State(error) => write!(f, "the saved state cannot be used: {error}"),
            JournalError::Missing { path } => {
                write!(f, "{} has no journal", path.display())
            }
            JournalError::NotEmpty { path } => write!(
                f,
                "{} has a journal already. Use an empty directory",
                path.display()
            ),
        }
    }
}

impl std::error::Error for JournalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            JournalError::Io { error, .. } => Some(error),
            JournalError::State(error) => Some(error),
            _ => None,
        }
    }
}
