//! Writes to many at once, as a system does them that takes all of them in one call: in any
//! order, and each with a result of its own.

use fastrand::Rng;

use super::{Event, Faults, Network};

/// What befalls such writes. Each is a chance in a thousand.
pub struct Batches {
    pub rng: Rng,
    /// Writes that take a part.
    pub torn: u32,
    /// Writes that find no room, though there is some.
    pub blocked: u32,
    /// Writes that fail.
    pub failed: u32,
}

impl Network {
    /// Returns the order of the writes, and the usual faults.
    pub(super) fn begin_batch(&mut self, count: usize) -> (Vec<usize>, Faults) {
        let mut order: Vec<usize> = (0..count).collect();
        let usual = self.faults.clone();
        if let Some(batches) = &mut self.batches {
            batches.rng.shuffle(&mut order);
            self.faults.partial_writes = batches.torn;
            self.faults.spurious_blocks = batches.blocked;
            if count > 1 {
                self.count("writes to many at once");
            }
        }
        (order, usual)
    }

    /// Lets a connection fail while others are written to, or not. Returns the client that
    /// loses it.
    pub(super) fn fail_write_of_batch(&mut self, number: usize) -> Option<usize> {
        let batches = self.batches.as_mut()?;
        let fails = batches.rng.u32(0..1000) < batches.failed;
        if !fails || self.sockets[number].is_reset {
            return None;
        }
        self.count("writes to many at once that fail for one");
        self.arrive(Event::Reset(number));
        Some(self.sockets[number].client)
    }

    pub(super) fn end_batch(&mut self, usual: Faults) {
        self.faults = usual;
    }
}
