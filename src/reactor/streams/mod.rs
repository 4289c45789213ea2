//! Streams: from logs to sockets.
//!
//! [`Streams`] holds the clients that stream, by *feed*: the set of channels that
//! they have in common. The current clients of a feed get a batch that is gathered
//! once, with one write each, a slice of clients at a time. Clients that are behind
//! go on alone, each with a cursor, until they have caught up.
//!
//! | file | content |
//! | --- | --- |
//! | `feed`, `feeds`, `cursor`, `sums` | the data |
//! | `beat` | the heartbeat of a feed that names a position |
//! | `places` | where a client stands: current or behind, its timer, its queue |
//! | `pages`, `ending` | how a stream ends, and clients that wait for one page instead |
//! | `catching_up` | clients that are behind, by feed, round robin |
//! | `pump` | current clients |
//! | `heartbeats` | heartbeats, those of a turn together |
//! | `timers` | heartbeats that are due, stalls, and ends by time |
//! | `opening`, `start` | how a stream begins |
//! | `news`, `spread` | what the hub has for this reactor |
//! | `reports`, `survey` | what the hub learns of the clients' progress |
//!
//! Each file calls only those above it. Every method may end the stream that it is
//! given. It then has closed the connection and called `on_disconnect`, so a caller
//! that goes on with a client looks again whether it is there. The hub is not locked
//! when the user's code runs.
//!
//! The invariants: a client is in one list of its feed, at the index that its
//! connection holds; it has a cursor exactly while it is behind; and a client that
//! could be written to waits in a queue, or for the report that its socket is
//! writable.

mod beat;
mod catching_up;
pub(crate) mod cursor;
mod ending;
pub(crate) mod feed;
mod feeds;
mod heartbeats;
mod news;
pub(crate) mod opening;
mod pages;
mod places;
mod pump;
mod reports;
mod spread;
mod start;
mod sums;
mod survey;
#[cfg(test)]
mod tests;
mod timers;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use slab::Slab;

use crate::hub::batch::Batch;
use crate::hub::{ChannelKey, ChannelReader, Hub, Position};
use crate::reactor::io::net::Exception;
use beat::Heartbeats;
use cursor::Cursor;
use feeds::Feeds;
use spread::Spread;
use sums::Sums;
use survey::Survey;

/// See the [module](self).
pub(crate) struct Streams {
    hub: Arc<Hub>,
    feeds: Feeds,
    cursors: Slab<Cursor>,
    /// The readers of streams of several channels.
    readers: Slab<Box<[ChannelReader]>>,
    sums: Sums,
    spread: Spread,
    /// Feeds whose current clients' timers are to be set again.
    untimed: VecDeque<u32>,
    /// Feeds that have something to pump.
    pump_queue: VecDeque<u32>,
    /// Feeds that wait for their time, the soonest first.
    paced: BinaryHeap<Reverse<(u64, u32)>>,
    /// Feeds with clients that are behind and can be written to.
    cursor_queue: VecDeque<u32>,
    /// Where clients stand that were blocked or caught up in this turn, for the
    /// hub to learn at its end: a short write takes no lock.
    positions: Vec<Position>,
    /// Channels to report to the hub about.
    to_report: VecDeque<ChannelKey>,
    /// The report that is being made.
    survey: Option<Survey>,
    /// Where a cursor's next frames are gathered.
    scratch: Batch,
    targets: Vec<u64>,
    /// Clients that did not take all of what was written to several.
    exceptions: Vec<Exception>,
    heartbeats: Heartbeats,
    /// Batches to use again.
    #[allow(
        clippy::vec_box,
        reason = "a feed holds its batch by a pointer; these are the same boxes"
    )]
    spare_batches: Vec<Box<Batch>>,
}

impl Streams {
    pub(crate) fn new(hub: Arc<Hub>) -> Streams {
        Streams {
            hub,
            feeds: Feeds::new(),
            cursors: Slab::new(),
            readers: Slab::new(),
            sums: Sums::default(),
            spread: Spread::default(),
            untimed: VecDeque::new(),
            pump_queue: VecDeque::new(),
            paced: BinaryHeap::new(),
            cursor_queue: VecDeque::new(),
            positions: Vec::new(),
            to_report: VecDeque::new(),
            survey: None,
            scratch: Batch::default(),
            targets: Vec::new(),
            exceptions: Vec::new(),
            heartbeats: Heartbeats::default(),
            spare_batches: Vec::new(),
        }
    }

    /// Whether there is nothing to do before a socket, a timer or the hub has
    /// something new.
    pub(crate) fn is_idle(&self) -> bool {
        self.pump_queue.is_empty() && self.cursor_queue.is_empty() && self.untimed.is_empty()
    }

    /// Whether channels are left to report about: the loop must not sleep before.
    pub(crate) fn has_reports(&self) -> bool {
        !self.to_report.is_empty() || self.survey.is_some()
    }

    /// Whether feeds wait for the pump, and whether clients that are behind do for
    /// their turn.
    pub(crate) fn has_queued(&self) -> [bool; 2] {
        let is_queued = [&self.pump_queue, &self.cursor_queue];
        is_queued.map(|queue| !queue.is_empty())
    }

    /// When the next feed's time has come, if one waits.
    pub(crate) fn next_paced_ms(&self) -> Option<u64> {
        self.paced.peek().map(|Reverse((due_ms, _))| *due_ms)
    }

    /// The number of clients that are behind.
    pub(crate) fn behind(&self) -> usize {
        self.cursors.len()
    }

    /// Feeds, cursors, and readers of streams of several channels.
    #[cfg(feature = "internals")]
    pub(crate) fn holdings(&self) -> [usize; 3] {
        let (feeds, cursors) = (self.feeds.slots.len(), self.cursors.len());
        [feeds, cursors, self.readers.len()]
    }
}
