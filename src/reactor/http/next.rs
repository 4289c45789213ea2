//! What becomes of a connection after a request.

use super::Opening;

/// See the [module](self).
pub(super) enum Next {
    /// The connection takes the next request.
    Request,
    /// It waits: for an answer, or to be closed.
    Hold,
    /// It becomes a stream.
    Open(Box<Opening>),
    /// The program serves it from here on.
    HandOver,
    /// It is closed already.
    Closed,
}
