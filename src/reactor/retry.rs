//! The delay after which a browser reconnects when its stream has ended, or when there
//! was no room for it.

use crate::frame;
use crate::hub::Hub;

/// The delay is drawn for each browser, so that they do not all come at once.
const RETRY_MS: std::ops::Range<u64> = 2_000..10_000;

/// Draws a delay after which a browser is to come back.
pub(super) fn retry_ms(hub: &Hub) -> u64 {
    RETRY_MS.start + hub.random_below(RETRY_MS.end - RETRY_MS.start)
}

/// The line that sets the delay in a stream.
pub(super) fn retry_line(retry_ms: u64) -> Vec<u8> {
    frame::retry_line(u32::try_from(retry_ms).unwrap_or(u32::MAX))
}
