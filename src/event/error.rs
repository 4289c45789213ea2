//! [`EventError`]: why an event cannot be published, and the limits of its fields.

use std::fmt;

/// Maximum length of an event's name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// Maximum length of a publisher's own id, in bytes.
pub const ID_BYTES_MAX: usize = 255;

/// Maximum length of a key for conflation, in bytes. The log keeps it as long as the
/// event.
pub const KEY_BYTES_MAX: usize = 255;

/// Maximum reconnection delay, in milliseconds: almost 25 days. Beyond it, JavaScript's
/// `setTimeout`, which polyfills use, overflows and fires at once.
pub const RETRY_MS_MAX: u32 = i32::MAX.unsigned_abs();

/// The prefix of the engine's own event names, such as `pushwheel.gap`.
pub const RESERVED_NAME_PREFIX: &str = "pushwheel.";

/// Why an event is invalid. It was not published.
///
/// `Display` contains the cause and the fix; [`code`](EventError::code) is for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventError {
    /// The name contains a CR or LF, which would begin another field.
    NameLineBreak,
    /// The name is longer than [`NAME_BYTES_MAX`].
    NameTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The name begins with [`RESERVED_NAME_PREFIX`].
    NameReserved,
    /// The id is empty, which would clear the id that the browser remembers.
    IdEmpty,
    /// The id contains a CR or LF, which would begin another field.
    IdLineBreak,
    /// The id contains a NUL. Browsers ignore such an id.
    IdNul,
    /// The id contains another ASCII control character, which is invalid in a header: the
    /// browser's reconnection would be rejected.
    IdControl,
    /// The id begins or ends with a space, which a header loses.
    IdSpace,
    /// The id has the form of the ids that this manager assigns.
    IdReserved,
    /// The event is one of a [`Welcome`](crate::Welcome), and has an id.
    IdInWelcome,
    /// The event is one of [several channels](crate::ChannelManager::publish_to), and has an
    /// id.
    IdOfSeveral,
    /// The id is longer than [`ID_BYTES_MAX`].
    IdTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The key for conflation is longer than [`KEY_BYTES_MAX`].
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The event is a removal without a key.
    RemovalWithoutKey,
    /// The reconnection delay is longer than [`RETRY_MS_MAX`].
    RetryTooLong,
}

impl EventError {
    /// Returns a stable name for the error, in snake case: for logs, metrics and JSON.
    ///
    /// ```
    /// use pushwheel::EventError;
    ///
    /// assert_eq!(EventError::NameLineBreak.code(), "event_name_line_break");
    /// ```
    pub fn code(&self) -> &'static str {
        match self {
            EventError::NameLineBreak => "event_name_line_break",
            EventError::NameTooLong { .. } => "event_name_too_long",
            EventError::NameReserved => "event_name_reserved",
            EventError::IdEmpty => "event_id_empty",
            EventError::IdLineBreak => "event_id_line_break",
            EventError::IdNul => "event_id_nul",
            EventError::IdControl => "event_id_control",
            EventError::IdSpace => "event_id_space",
            EventError::IdReserved => "event_id_reserved",
            EventError::IdInWelcome => "event_id_in_welcome",
            EventError::IdOfSeveral => "event_id_of_several",
            EventError::IdTooLong { .. } => "event_id_too_long",
            EventError::KeyTooLong { .. } => "event_key_too_long",
            EventError::RemovalWithoutKey => "event_removal_without_key",
            EventError::RetryTooLong => "event_retry_too_long",
        }
    }
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventError::NameLineBreak => f.write_str(
                "the event's name contains a line break, which would begin another field. Remove CR \
                 and LF from the name",
            ),
            EventError::NameTooLong { bytes } => write!(
                f,
                "the event's name has {bytes} bytes, and the maximum is {NAME_BYTES_MAX}. Shorten \
                 it, and put the rest into the data",
            ),
            EventError::NameReserved => write!(
                f,
                "event names that begin with `{RESERVED_NAME_PREFIX}` are reserved. Choose another \
                 name",
            ),
            EventError::IdEmpty => f.write_str(
                "the event's id is empty, which would make browsers forget their position. Set an \
                 id, or leave it to the engine",
            ),
            EventError::IdLineBreak => f.write_str(
                "the event's id contains a line break, which would begin another field. Remove CR \
                 and LF from the id",
            ),
            EventError::IdNul => f.write_str(
                "the event's id contains a NUL, and browsers ignore such ids. Remove it from the id",
            ),
            EventError::IdControl => f.write_str(
                "the event's id contains a control character, which a browser cannot send back. \
                 Remove it from the id",
            ),
            EventError::IdSpace => f.write_str(
                "the event's id begins or ends with a space, which is lost on the way back. Trim the \
                 id",
            ),
            EventError::IdInWelcome => f.write_str(
                "an event of a welcome cannot have an id, because a client cannot resume \
                 after it. Leave out the id, or send the event with Channel::send.",
            ),
            EventError::IdReserved => f.write_str(
                "the event's id has the form of the engine's own ids. Choose another, or leave \
                 the id to the engine",
            ),
            EventError::IdOfSeveral => f.write_str(
                "the event is for several channels and has an id, which belongs to one channel. \
                 Remove the id, and use an idempotency key to repeat the publish safely",
            ),
            EventError::IdTooLong { bytes } => write!(
                f,
                "the event's id has {bytes} bytes, and the maximum is {ID_BYTES_MAX}. Shorten it, \
                 or leave it to the engine",
            ),
            EventError::KeyTooLong { bytes } => write!(
                f,
                "the event's key has {bytes} bytes, and the maximum is {KEY_BYTES_MAX}. Shorten it, \
                 or use a digest of it",
            ),
            EventError::RemovalWithoutKey => f.write_str(
                "the event is a removal without a key. Set the key that it removes",
            ),
            EventError::RetryTooLong => write!(
                f,
                "the event's reconnection delay is longer than {RETRY_MS_MAX} ms, beyond which \
                 browsers' timers overflow. Choose a shorter one",
            ),
        }
    }
}

impl std::error::Error for EventError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do() {
        let error = EventError::NameTooLong { bytes: 300 };
        assert_eq!(
            error.to_string(),
            "the event's name has 300 bytes, and the maximum is 255. Shorten it, and put the \
             rest into the data"
        );
    }
}
