//! The names that channels can have, and why one is not opened.

use std::fmt;

/// The longest name of a channel, in bytes.
pub const CHANNEL_NAME_BYTES_MAX: usize = 255;

/// An invalid name, or too many channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelError {
    /// The name is empty, longer than 255 bytes, or has a control character
    /// or a slash.
    Name,
    /// The limit of channels is reached.
    TooMany {
        /// The limit.
        max: usize,
    },
    /// The limit is reached of channels that subscriptions made and that no publisher
    /// has published to.
    TooManyUnpublished {
        /// The limit.
        max: usize,
    },
    /// One source of subscriptions has reached its limit of these.
    TooManyOfSource {
        /// The limit.
        max: usize,
    },
}

impl ChannelError {
    /// Returns a stable name for the error, which the server's JSON uses.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            ChannelError::Name => "channel_name_invalid",
            ChannelError::TooMany { .. } => "too_many_channels",
            ChannelError::TooManyUnpublished { .. } => "too_many_unpublished_channels",
            ChannelError::TooManyOfSource { .. } => "too_many_channels_of_source",
        }
    }
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChannelError::Name => write!(
                f,
                "a channel's name is 1 to {CHANNEL_NAME_BYTES_MAX} bytes of UTF-8 without control \
                 characters and `/`. Choose another"
            ),
            ChannelError::TooMany { max } => write!(
                f,
                "the limit of {max} channels is reached. Remove empty ones, or raise the limit"
            ),
            ChannelError::TooManyUnpublished { max } => write!(
                f,
                "the limit of {max} channels that subscriptions created and no publisher has \
                 published to is reached. Retry later, or raise the limit"
            ),
            ChannelError::TooManyOfSource { max } => write!(
                f,
                "this token or address has reached its limit of {max} channels that no publisher \
                 has published to. Subscribe to fewer such channels, or raise the limit. Behind a \
                 proxy, set --trusted-proxy"
            ),
        }
    }
}

impl std::error::Error for ChannelError {}

pub(crate) fn check_name(name: &str) -> Result<(), ChannelError> {
    let is_valid = (1..=CHANNEL_NAME_BYTES_MAX).contains(&name.len())
        && !name.chars().any(|c| c.is_control() || c == '/');
    is_valid.then_some(()).ok_or(ChannelError::Name)
}
