//! Why a broker has not done what it was asked for.

use std::error::Error;
use std::fmt;

/// Why a broker has not done what it was asked for. After any of these the session is
/// dropped, and a new one is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BrokerError {
    /// It cannot be reached, is not ready, or did not answer in time. What it was asked for
    /// may have been done.
    Unreachable {
        /// The reason.
        why: String,
    },
    /// A new term has begun since the session was opened, or another server has the log.
    /// Nothing was done.
    Moved,
    /// It has no room for more. Nothing was done.
    Full {
        /// The reason.
        why: String,
    },
    /// There is no log, and the [`Hello`](super::Hello) has nothing to begin one with.
    Empty,
    /// It does not do it, and does not do it again: credentials, rights, a setting, or a
    /// version. An operator has to change something.
    Refused {
        /// The reason.
        why: String,
    },
    /// What it keeps is not what a node has written.
    Damaged {
        /// What is wrong.
        what: String,
    },
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BrokerError::Unreachable { why } => write!(f, "the broker cannot be used ({why})"),
            BrokerError::Moved => f.write_str("the log has moved to another server or term"),
            BrokerError::Full { why } => write!(f, "the broker is full ({why})"),
            BrokerError::Empty => f.write_str("the broker has no log"),
            BrokerError::Refused { why } => write!(f, "the broker refuses the node ({why})"),
            BrokerError::Damaged { what } => {
                write!(f, "the log of the broker is damaged ({what})")
            }
        }
    }
}

impl Error for BrokerError {}
