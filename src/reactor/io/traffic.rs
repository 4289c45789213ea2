//! The traffic of a reactor: connections and bytes, in plain numbers.
//!
//! They are added up for each client, and stored where other threads read them
//! before the loop sleeps and every few turns.

use crate::metrics::Meters;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(super) accepted: u64,
    pub(super) closed: u64,
    /// Connections for which there was no room.
    pub(super) refused: u64,
    /// Whether the system has no descriptor for the next connection.
    pub(super) is_out_of_descriptors: bool,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
}

impl Traffic {
    /// Lets other threads read what was counted. `is_full`: there is no room for
    /// more connections, whatever the system says.
    pub(super) fn publish(&self, meters: &Meters, is_full: bool) {
        let is_full = is_full || self.is_out_of_descriptors;
        meters.connections_accepted.set(self.accepted);
        meters.connections_closed.set(self.closed);
        meters.connections_refused.set(self.refused);
        meters.is_full.set(u64::from(is_full));
        meters.bytes_read.set(self.bytes_read);
        meters.bytes_written.set(self.bytes_written);
    }
}
