//! Current clients: what is new is gathered once for them, and written with one
//! write each, a slice of clients at a time.
//!
//! A client that cannot take it all, and the target of a directed event, goes on
//! alone with a cursor until it has caught up.

use std::cmp::Reverse;

use super::Streams;
use super::cursor::Owed;
use super::feed::Delivery;
use crate::hub::client::DisconnectReason;
use crate::hub::options::LagPolicy;
use crate::hub::{Gathered, Recipients};
use crate::packed::Suffix;
use crate::reactor::io::connection::{NONE, State};
use crate::reactor::io::net::Net;
use crate::reactor::io::{Gone, Io};
use crate::reactor::millis::as_ms;
use crate::reactor::turn::Turn;

impl Streams {
    /// Gives each queued feed a slice, as far as the turn's budget goes.
    pub(crate) fn pump<N: Net>(&mut self, io: &mut Io<N>, turn: &mut Turn) {
        let mut budget = turn.budgets.writes_a_turn;
        for _ in 0..self.pump_queue.len() {
            let Some(id) = self.pump_queue.pop_front() else {
                return;
            };
            if !self.feeds.contains(id) {
                continue;
            }
            self.feeds.get_mut(id).is_queued = false;
            budget = budget.saturating_sub(self.pump_slice(io, turn, id).max(1));
            if budget == 0 {
                return;
            }
        }
    }

    /// Gathers, if nothing is on its way, and writes to a slice of the current
    /// clients. Returns the number of writes that it took.
    fn pump_slice<N: Net>(&mut self, io: &mut Io<N>, turn: &mut Turn, id: u32) -> usize {
        let mut spent = 0;
        let feed = self.feeds.get(id);
        if feed.delivery.is_none() {
            if let Some(reason) = feed.ends {
                // A client that has joined a finished channel may know more
                // than was gathered. Where one of several channels is over, the
                // others go on, and what they bring does not put the end off.
                let may_end = match reason {
                    DisconnectReason::Finished => !feed.news.is_there,
                    _ => !feed.news.is_there || !feed.current.is_empty(),
                };
                if may_end {
                    return self.end_slice(io, turn, id, reason);
                }
            }
            if self.waits_for_its_time(turn, id) {
                return spent;
            }
            spent = self.gather(io, turn, id);
        }
        spent + self.deliver_slice(io, turn, id)
    }

    /// Writes what is on its way to a slice of the current clients. Returns the
    /// number of writes.
    fn deliver_slice<N: Net>(&mut self, io: &mut Io<N>, turn: &mut Turn, id: u32) -> usize {
        let tick = turn.tick32();
        for written in 0..turn.budgets.writes_a_slice {
            let Some(feed) = self.feeds.slots.get_mut(id as usize) else {
                return written;
            };
            let Some(delivery) = &mut feed.delivery else {
                return written;
            };
            let Some(&key) = feed.current.get(delivery.done) else {
                self.finish_delivery(io, turn, id);
                return written;
            };
            io.connections.get_mut(key).written_at = tick;
            let bytes = delivery.batch.as_bytes();
            match io.write_uncounted(key, bytes, feed.limits_unsent) {
                Ok(count) if count == bytes.len() => {
                    delivery.done += 1;
                    delivery.writes += 1;
                    if let Some(batch) = &delivery.packed {
                        self.sums.add(key, batch);
                    }
                }
                Ok(count) => self.split_batch(io, turn, id, key, count),
                Err(Gone) => self.end(io, key, DisconnectReason::Gone),
            }
        }
        if self.feeds.contains(id) {
            self.queue_feed(id);
        }
        turn.budgets.writes_a_slice
    }

    /// Whether a feed has to wait because its channels have a pace. If so it is
    /// queued again when its time has come. A shutdown waits for no pace.
    fn waits_for_its_time(&mut self, turn: &Turn, id: u32) -> bool {
        let feed = self.feeds.get_mut(id);
        let is_early = feed.options.pace.is_some() && turn.now_ms < feed.pace.until_ms;
        if !is_early || turn.is_draining() {
            return false;
        }
        if !std::mem::replace(&mut feed.pace.is_waiting, true) {
            self.paced.push(Reverse((feed.pace.until_ms, id)));
        }
        true
    }

    /// Queues the feeds whose time has come.
    pub(crate) fn release_paced(&mut self, turn: &Turn) {
        for _ in 0..turn.budgets.timers_a_turn {
            let Some(Reverse((due_ms, id))) = self.paced.peek().copied() else {
                return;
            };
            let is_due = |at_ms: u64| at_ms <= turn.now_ms || turn.is_draining();
            if !is_due(due_ms) {
                return;
            }
            self.paced.pop();
            // The feed may be gone, and another one in its slot.
            let feed = self.feeds.slots.get_mut(id as usize);
            let is_ready = |pace: &super::feed::Pace| pace.is_waiting && is_due(pace.until_ms);
            if let Some(feed) = feed.filter(|feed| is_ready(&feed.pace)) {
                feed.pace.is_waiting = false;
                self.queue_feed(id);
            }
        }
    }

    /// Takes what is new out of the logs, for all current clients. Returns the
    /// number of connections that it ended for that.
    fn gather<N: Net>(&mut self, io: &mut Io<N>, turn: &Turn, id: u32) -> usize {
        let mut batch = self.spare_batches.pop().unwrap_or_default();
        let mut targets = std::mem::take(&mut self.targets);
        let feed = self.feeds.get(id);
        let after = feed.through;
        let recipients = Recipients {
            reactor: io.index,
            clients: feed.current.len(),
        };
        let gathered = (feed.leaving == 0).then(|| {
            let bytes_max = turn.budgets.buffer_bytes;
            self.hub.gather(
                recipients,
                feed.source(),
                after,
                bytes_max,
                &mut batch,
                &mut targets,
            )
        });
        let Some(gathered) = gathered.flatten() else {
            // Clients that were sent away have their turn first.
            self.feeds.get_mut(id).news.is_there = true;
            self.spare_batches.push(batch);
            self.targets = targets;
            self.queue_feed(id);
            return 0;
        };
        let since_us = self.note_gathered(turn, id, &gathered);
        if gathered.evicted_through > after || gathered.is_for_some {
            // More was published than any client could be sent, or each has to see
            // what is for it: no client here is current any more.
            for key in std::mem::take(&mut self.feeds.get_mut(id).current) {
                self.fall_behind(io, turn, key, after, None, false);
            }
        }
        for token in targets.drain(..) {
            if let Some(key) = io.connections.find(token)
                && let State::Stream(stream) = io.connections.get(key).state
                // One that is behind comes by already; one of another feed is its
                // own feed's target.
                && stream.feed == id
                && stream.cursor == NONE
            {
                let seen = after;
                self.take_current(io, key);
                self.fall_behind(io, turn, key, seen, None, false);
            }
        }
        self.targets = targets;
        for token in std::mem::take(&mut self.feeds.get_mut(id).early) {
            if let Some(key) = io.connections.find(token) {
                self.queue_cursor(io, key);
            }
        }
        let mut ended = 0;
        let floor = self.feeds.get(id).behind.floor;
        if floor.is_some_and(|floor| gathered.evicted_through > floor) {
            ended = self.check_laggards(io, turn, id, gathered.evicted_through);
            if !self.feeds.contains(id) {
                return ended;
            }
        }
        let feed = self.feeds.get_mut(id);
        if batch.is_empty() || feed.current.is_empty() {
            batch.clear();
            self.spare_batches.push(batch);
            self.note_progress(id);
        } else {
            feed.delivery = Some(Delivery {
                packed: feed.is_packed.then(|| Suffix::new(batch.packed_sum())),
                batch,
                after,
                done: 0,
                writes: 0,
                since_us,
            });
        }
        let feed = self.feeds.get(id);
        if gathered.has_more || (feed.ends.is_some() && feed.delivery.is_none()) {
            self.queue_feed(id);
        }
        ended
    }

    /// Notes that a feed was gathered. Returns when the oldest event of what was
    /// gathered was published.
    fn note_gathered(&mut self, turn: &Turn, id: u32, gathered: &Gathered) -> Option<u64> {
        let feed = self.feeds.get_mut(id);
        feed.through = gathered.through.max(feed.through);
        feed.news.is_there = gathered.has_more;
        feed.ends = gathered.ends;
        if let Some(pace) = feed.options.pace.filter(|_| !gathered.has_more) {
            feed.pace.until_ms = turn.now_ms.saturating_add(as_ms(pace));
        }
        match gathered.has_more {
            true => feed.news.since_us,
            false => feed.news.since_us.take(),
        }
    }

    /// A client took only a part of the batch: it goes on alone from there.
    fn split_batch<N: Net>(
        &mut self,
        io: &mut Io<N>,
        turn: &Turn,
        id: u32,
        key: u32,
        written: usize,
    ) {
        io.count_written(written as u64);
        let feed = self.feeds.get_mut(id);
        let Some(delivery) = &feed.delivery else {
            return;
        };
        let (whole, torn) = delivery.batch.split(written);
        if feed.is_packed {
            let begun = torn.map(|(piece, _)| piece);
            self.sums.add_all(key, whole.iter().chain(begun));
        }
        let mut seen = delivery.after;
        for piece in whole {
            seen = piece.sequence;
            feed.unreported.delivered[piece.channel_index] += 1;
        }
        let owed = torn.map(|(piece, written)| {
            seen = piece.sequence;
            Owed {
                frame: piece.frame.clone(),
                written,
                channel_index: Some(piece.channel_index),
            }
        });
        self.take_current(io, key);
        self.fall_behind(io, turn, key, seen, owed, true);
    }

    /// All current clients have the batch.
    fn finish_delivery<N: Net>(&mut self, io: &mut Io<N>, turn: &mut Turn, id: u32) {
        if let Some(since_us) = self.put_away(io, id) {
            turn.stopwatch.arrive(since_us);
        }
        self.note_progress(id);
        // What was published while the batch was under way has had its place
        // in the queue already, and found the batch there.
        let feed = self.feeds.get(id);
        if feed.news.is_there || feed.ends.is_some() {
            self.queue_feed(id);
        }
    }

    /// The feed's streams end: ends those of the clients that have everything.
    fn end_slice<N: Net>(
        &mut self,
        io: &mut Io<N>,
        turn: &Turn,
        id: u32,
        reason: DisconnectReason,
    ) -> usize {
        for ended in 0..turn.budgets.ends_a_slice {
            let feed = self.feeds.slots.get(id as usize);
            let Some(&key) = feed.and_then(|feed| feed.current.last()) else {
                return ended;
            };
            self.end_complete(io, key, reason);
        }
        if self.feeds.contains(id) {
            self.queue_feed(id);
        }
        turn.budgets.writes_a_slice
    }

    /// Looks at all clients that are behind, now that entries are gone which some of
    /// them may not have seen, and ends a slice of those. Returns their number.
    fn check_laggards<N: Net>(
        &mut self,
        io: &mut Io<N>,
        turn: &Turn,
        id: u32,
        evicted_through: u64,
    ) -> usize {
        let feed = self.feeds.get(id);
        let skips = feed.options.lag_policy != LagPolicy::Disconnect;
        let mut floor = u64::MAX;
        let mut lost = Vec::new();
        let mut has_more = false;
        for &key in &feed.behind.keys {
            let cursor = &self.cursors[io.connections.stream(key).cursor as usize];
            // Of a stream of several channels, reading finds out.
            let is_lost = cursor.seen < evicted_through && feed.channels.len() == 1 && !skips;
            if !is_lost {
                floor = floor.min(cursor.seen.max(evicted_through));
            } else if lost.len() < turn.budgets.ends_a_slice {
                lost.push(key);
            } else {
                // So low a floor has them looked at again with the next slice.
                floor = floor.min(cursor.seen);
                has_more = true;
            }
        }
        let feed = self.feeds.get_mut(id);
        feed.behind.floor = Some(floor);
        if has_more {
            feed.news.is_there = true;
            self.queue_feed(id);
        }
        let ended = lost.len();
        for key in lost {
            self.end(io, key, DisconnectReason::Lagged);
        }
        ended
    }
}
