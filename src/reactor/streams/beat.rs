//! What heartbeats are made of; and those that name a position, for clients that ask for
//! it.
//!
//! A client of a quiet channel would keep the id of its last event, however old that is.
//! A heartbeat with an id sends it a newer one, up to which nothing was published for it.
//! All clients of a feed share the block: it is made again at most once per heartbeat
//! interval, so the hub's lock is not taken for each client, and clients of one feed that
//! compare their positions mostly have the same one.

use super::cursor::write_id;
use crate::reactor::io::connection::StreamKey;

/// The heartbeat of a feed's current clients.
#[derive(Debug)]
pub(super) struct Beat {
    /// The position that it names, if there is one to name.
    position: Option<u64>,
    bytes: Vec<u8>,
    /// The tick at which it was made: since then the position has not changed.
    since: u32,
    /// The tick of the last look at the hub, if there was one.
    looked_at: Option<u32>,
}

/// Heartbeats that wait to be written together.
#[derive(Default)]
pub(super) struct Heartbeats {
    /// What each client is sent, before it is packed.
    pub(super) bytes: Vec<u8>,
    pub(super) is_packed: bool,
    pub(super) keys: Vec<StreamKey>,
}

impl Beat {
    /// Returns a heartbeat that names no position, before the first look at the hub.
    pub(super) fn new() -> Beat {
        Beat {
            position: None,
            bytes: Vec::new(),
            since: 0,
            looked_at: None,
        }
    }

    /// Returns whether it is to be made again: it is `interval` ticks old, or the feed
    /// has gathered events behind its position.
    pub(super) fn is_over(&self, tick: u32, interval: u64, through: u64) -> bool {
        let is_old = |at: u32| u64::from(tick.wrapping_sub(at)) >= interval;
        self.looked_at.is_none_or(is_old) || self.position.is_some_and(|at| at < through)
    }

    /// Sets the position that it names. `id` writes the id.
    pub(super) fn renew(&mut self, tick: u32, position: Option<u64>, id: impl Fn(u64) -> String) {
        self.looked_at = Some(tick);
        if self.position == position {
            return;
        }
        self.position = position;
        self.since = tick;
        self.bytes.clear();
        if let Some(position) = position {
            write_id(&id(position), &mut self.bytes);
        }
    }

    /// Returns the bytes for a client that was written to at `written_at` last. `None` if
    /// there is nothing to name, or the client knows it.
    pub(super) fn bytes(&self, written_at: u32) -> Option<&[u8]> {
        // What a current client was sent since then was this heartbeat, or its stream's
        // opening, whose position may be newer.
        let is_known = written_at.wrapping_sub(self.since).cast_signed() >= 0;
        (self.position.is_some() && !is_known).then_some(&*self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(position: u64) -> String {
        format!("e-{position}")
    }

    #[test]
    fn a_position_is_named_to_each_client_until_it_knows_it() {
        let mut beat = Beat::new();
        assert!(beat.is_over(5, 10, 3) && beat.bytes(0).is_none());
        beat.renew(5, Some(7), id);
        assert!(!beat.is_over(14, 10, 7), "it is shared");
        let named = Some(&b"id: e-7\n\n"[..]);
        assert_eq!([0, 4, u32::MAX].map(|at| beat.bytes(at)), [named; 3]);
        assert_eq!(beat.bytes(5), None);
        // The same position again is no news.
        assert!(beat.is_over(15, 10, 7));
        beat.renew(15, Some(7), id);
        assert_eq!((beat.bytes(5), beat.bytes(4)), (None, named));
        beat.renew(25, Some(9), id);
        assert_eq!(beat.bytes(15), Some(&b"id: e-9\n\n"[..]));
    }

    #[test]
    fn no_position_is_named_that_leads_back() {
        let mut beat = Beat::new();
        beat.renew(5, Some(7), id);
        assert!(beat.is_over(6, 10, 8), "an event came");
        beat.renew(6, None, id);
        assert!(beat.bytes(0).is_none());
        assert!(!beat.is_over(7, 10, 8) && beat.is_over(16, 10, 8));
    }
}
