//! Why a saved state cannot be restored.

use std::fmt;
use std::io;

use crate::journal::bytes::Damaged;

/// The reason why a saved state was not restored. Nothing of it is used.
#[derive(Debug)]
#[non_exhaustive]
pub enum RestoreError {
    /// Reading failed.
    Read(io::Error),
    /// It is not a saved state.
    Foreign,
    /// Another version of this package has written it.
    Version {
        /// The version of its format.
        found: u32,
        /// The version that this package reads.
        known: u32,
    },
    /// A part is missing or has changed.
    Damaged {
        /// The part.
        what: &'static str,
    },
    /// It has more channels than the limit.
    TooManyChannels {
        /// The number of its channels.
        found: usize,
        /// The maximum number of channels.
        max: usize,
    },
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Read(error) => write!(f, "it cannot be read ({error})"),
            RestoreError::Foreign => f.write_str("it is not a saved state of pushwheel"),
            RestoreError::Version { found, known } => write!(
                f,
                "it has version {found} of the format, but this program reads version {known}"
            ),
            RestoreError::Damaged { what } => write!(f, "it is incomplete or damaged ({what})"),
            RestoreError::TooManyChannels { found, max } => write!(
                f,
                "it has {found} channels, but the limit is {max}. Raise the limit"
            ),
        }
    }
}

impl std::error::Error for RestoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RestoreError::Read(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Damaged> for RestoreError {
    fn from(Damaged(what): Damaged) -> RestoreError {
        RestoreError::Damaged { what }
    }
}
