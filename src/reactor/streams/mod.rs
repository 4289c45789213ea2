//! Streams: from logs to sockets.

pub(crate) mod cursor;
pub(crate) mod ending;
pub(crate) mod feed;
pub(crate) mod pump;
pub(crate) mod stream;
pub(crate) mod sums;
