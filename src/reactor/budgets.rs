//! The budgets of a turn of the loop.

/// The most that is done of each kind of work before other work has its turn.
///
/// The numbers are the loop's own; a simulator draws smaller ones, so that a few
/// clients come to the end of each.
#[derive(Clone, Debug)]
#[allow(unreachable_pub, reason = "for the simulator alone")]
pub struct Budgets {
    /// Connections taken from the listen queue in one turn.
    pub accepts_a_turn: usize,
    /// Commands, clients that the hub has sent away, and feeds with other options, in
    /// one turn each. An answer with a page counts as so many more commands as the page is
    /// more work than a request.
    pub chores_a_turn: usize,
    /// Steps of connections that speak HTTP, in one turn: a write of what is unsent and a
    /// read each.
    pub steps_a_turn: usize,
    /// Bytes written to clients that are behind, in one turn. A round that writes
    /// less than 8 KiB counts as 8 KiB. What a turn does for these clients, every
    /// request and every broadcast waits for: 512 KiB take less than a millisecond.
    pub cursor_bytes_a_turn: usize,
    /// Requests of one connection answered in one go: one read may hold a
    /// thousand. Each costs a microsecond or more, by its handler.
    pub requests_a_slice: usize,
    /// Requests of all connections answered in one turn. A page counts as several.
    pub requests_a_turn: usize,
    /// Timers fired in one turn. One of a connection that speaks HTTP counts as its
    /// reads, or as its requests beyond the budget of those, a last write to a stalled
    /// client as 16.
    pub timers_a_turn: usize,
    /// Writes of one feed in one go, so that no feed waits longer for another
    /// than these take: some 300 microseconds. Looking around more seldom saves
    /// nothing that can be measured.
    pub writes_a_slice: usize,
    /// Writes of all feeds in one turn: beside a large feed's slice there is
    /// room for those of small ones.
    pub writes_a_turn: usize,
    /// Rounds of one cursor in one go.
    pub rounds_a_turn: usize,
    /// Connections ended in one go when their channel is finished.
    pub ends_a_slice: usize,
    /// Clients, feeds or channels looked at in one go: some 50 microseconds.
    pub looks_a_slice: usize,
    /// Reads for one connection in one go.
    pub reads_a_turn: usize,
    /// The bytes of one read, and of a batch unless a single event is larger.
    pub buffer_bytes: usize,
    /// Overflow connections at a time.
    pub overflow_max: usize,
}

/// What a round of one cursor counts at least: a read of the logs and a system
/// call cost as much as so many bytes.
pub(crate) const ROUND_BYTES: usize = 8 << 10;

/// The part of all descriptors that overflow connections may take.
const OVERFLOW_PART: usize = 8;

impl Budgets {
    /// Limits the overflow connections of all threads to their part of the descriptors.
    /// Returns the descriptors that are left for connections that count.
    pub(crate) fn share(&mut self, descriptors: usize, threads: usize) -> usize {
        let part = descriptors / OVERFLOW_PART / threads;
        self.overflow_max = self.overflow_max.min(part).max(1);
        // An overflow connection has some turns to be heard before others take its place.
        self.accepts_a_turn = self.accepts_a_turn.min((self.overflow_max / 4).max(1));
        descriptors.saturating_sub(self.overflow_max * threads)
    }
}

impl Default for Budgets {
    fn default() -> Self {
        Budgets {
            accepts_a_turn: 64,
            chores_a_turn: 128,
            steps_a_turn: 128,
            cursor_bytes_a_turn: 512 << 10,
            requests_a_slice: 128,
            requests_a_turn: 256,
            timers_a_turn: 256,
            writes_a_slice: 64,
            writes_a_turn: 128,
            rounds_a_turn: 4,
            ends_a_slice: 128,
            looks_a_slice: 1024,
            reads_a_turn: 4,
            buffer_bytes: 64 << 10,
            overflow_max: 256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_connections_take_an_eighth_of_few_descriptors_and_256_of_many() {
        for (descriptors, threads, inside, overflows, accepts) in [
            (usize::MAX, 1, usize::MAX - 256, 256, 64),
            (1_000_000, 4, 1_000_000 - 4 * 256, 256, 64),
            (1_000, 1, 875, 125, 31),
            (1_000, 4, 876, 31, 7),
            (160, 1, 140, 20, 5),
            (3, 1, 2, 1, 1),
            (3, 4, 0, 1, 1),
            (0, 1, 0, 1, 1),
        ] {
            let mut budgets = Budgets::default();
            assert_eq!(budgets.share(descriptors, threads), inside);
            assert_eq!(budgets.overflow_max, overflows, "{descriptors}");
            assert_eq!(budgets.accepts_a_turn, accepts, "{descriptors}");
        }
    }
}
