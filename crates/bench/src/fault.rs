//! The error of a bench.

use std::fmt;
use std::io;

/// The reason why there are no figures.
#[derive(Debug)]
pub struct Fault(pub(crate) String);

pub(crate) type Result<T, E = Fault> = std::result::Result<T, E>;

/// Returns a fault with this message.
pub(crate) fn fault<T>(message: impl Into<String>) -> Result<T> {
    Err(Fault(message.into()))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault(error.to_string())
    }
}
