//! The server's limits: those without a setting, and the defaults of the others.

use std::time::Duration;

use pushwheel::{ChannelOptions, History, Limits};

/// Maximum channels of one stream. A publish visits each stream of its channel, and a
/// merge each channel of its stream.
pub(crate) const STREAM_CHANNELS_MAX: usize = 64;

/// Maximum channels of one publish: as many as one stream may have.
pub(crate) const PUBLISH_CHANNELS_MAX: usize = STREAM_CHANNELS_MAX;

/// Maximum conditions of a request: each costs time for each client.
pub(crate) const CONDITIONS_MAX: usize = 32;

/// Maximum channels and patterns in the body of `POST /tickets`. A stream has no more
/// channels.
pub(crate) const TICKET_CHANNELS_MAX: usize = STREAM_CHANNELS_MAX;

/// Maximum bytes of a token, and of the body of `POST /tickets`, which has the same
/// fields.
pub(crate) const TOKEN_BYTES_MAX: usize = 8 << 10;

/// Returns the engine's default limits, but with a maximum age of one day for streams.
///
/// A day costs little: of 75,000 clients one reconnects each second, and resumes. It also
/// bounds the time after which connections are spread over all servers again, and after
/// which credentials are checked again.
#[must_use]
pub fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.stream_age_max = Duration::from_secs(24 * 3600);
    limits
}

/// Returns the default options of the server's channels: a history of the last 1,000
/// events, of at most 1 MiB and ten minutes; a heartbeat after 15 s of silence, because
/// some proxies close a connection after 30 s; otherwise the library's defaults.
#[must_use]
pub fn channel_options() -> ChannelOptions {
    ChannelOptions::new()
        .history(History::events(1000))
        .heartbeat(Duration::from_secs(15))
}
