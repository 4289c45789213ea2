//! Errors of a broker.

use std::error::Error;
use std::fmt;

/// The error of a call to a broker. After any of these errors the session is
/// dropped, and a new one is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BrokerError {
    /// The broker is unreachable, not ready, or did not answer in time. The request
    /// may have been carried out.
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
    /// The broker refuses, and would refuse again: credentials, rights, a setting, or a
    /// version. An operator has to change something.
    Refused {
        /// The reason.
        why: String,
    },
    /// The broker's data is damaged, or was not written by a node.
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
