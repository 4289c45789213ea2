//! Current clients: what is new is gathered once for them, and written with one
//! write each, a slice of clients at a time.
//!
//! A client that cannot take it all, and the target of a directed event, goes on
//! alone with a cursor until it has caught up.

use std::cmp::Reverse;

use super::Streams;
use super::cursor::Owed;
use super::feed::{Content, Delivery};
use crate::hub::client::DisconnectReason;
use crate::hub::clock::as_ms;
use crate::hub::{Form, Gathered, LOOKS_MAX, Recipients};
use crate::packed::Suffix;
use crate::reactor::io::connection::{NONE, StreamKey};
use crate::reactor::io::net::{Exception, Net};
use crate::reactor::io::{Gone, Io};
use crate::reactor::turn::Turn;

/// The number of looks at clients that cost as much as a write to one.
const LOOKS_A_WRITE: usize = 16;

impl Streams {
    /// Gives each queued feed a slice, as far as the turn's budget goes.
    pub(crate) fn pump<N: Net>(&mut self, io: &mut Io<N>) {
        for _ in 0..self.pump_queue.len() {
            if !io.turn.may_write() {
                return;
            }
            let Some(id) = self.pump_queue.pop_front() else {
                return;
            };
            io.turn.spent.taken[1] += 1;
            if self.feeds.contains(id) {
                self.feeds.get_mut(id).is_queued = false;
                let spent = self.pump_slice(io, id);
                io.turn.spent.writes += spent.max(1);
            }
        }
    }

    /// Gathers, if nothing is on its way, and writes to a slice of the current
    /// clients. Returns the number of writes that it took.
    fn pump_slice<N: Net>(&mut self, io: &mut Io<N>, id: u32) -> usize {
        let mut looked = 0;
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
                    return self.end_slice(io, id, reason);
                }
            }
            if self.waits_for_its_time(&io.turn, id) {
                return 0;
            }
            looked = self.gather(io, id);
        }
        looked + self.deliver_slice(io, id)
    }

    /// Writes what is on its way to a slice of the current clients. Returns the
    /// number of writes.
    fn deliver_slice<N: Net>(&mut self, io: &mut Io<N>, id: u32) -> usize {
        let feed = self.feeds.get(id);
        let count = match feed.delivery.as_ref().map(|delivery| &delivery.content) {
            None => return 0,
            Some(Content::Search(_)) => return self.search_some(io, id),
            Some(Content::Cursor) => self.single_out_some(io, id),
            Some(Content::Batch(..)) => self.write_delivery(io, id),
        };
        if let Some(feed) = self.feeds.slots.get(id as usize) {
            let delivery = feed.delivery.as_ref();
            match delivery.is_none_or(|delivery| delivery.done == feed.current.len()) {
                true => self.finish_delivery(io, id),
                false => self.queue_feed(id),
            }
        }
        count
    }

    /// Has a slice of the current clients go on alone. Returns their number.
    fn single_out_some<N: Net>(&mut self, io: &mut Io<N>, id: u32) -> usize {
        for count in 0..io.turn.budgets.writes_a_slice {
            let Some(key) = self.feeds.get(id).next_current() else {
                return count;
            };
            self.single_out(io, key);
        }
        io.turn.budgets.writes_a_slice
    }

    /// Writes a feed's batch to a slice of the current clients. Returns their number.
    /// This is what a broadcast costs for each client.
    fn write_delivery<N: Net>(&mut self, io: &mut Io<N>, id: u32) -> usize {
        let feed = self.feeds.get_mut(id);
        let Some(Delivery {
            content: Content::Batch(batch, packed),
            done,
            writes,
            ..
        }) = &mut feed.delivery
        else {
            return 0;
        };
        let first = *done;
        let last = feed
            .current
            .len()
            .min(first + io.turn.budgets.writes_a_slice);
        let slice = &feed.current[first..last];
        let exceptions = &mut self.exceptions;
        io.write_to_all(slice, batch.as_bytes(), feed.limits_unsent, exceptions);
        *done = last;
        *writes += (slice.len() - exceptions.len()) as u64;
        if let Some(packed) = packed {
            let mut except = exceptions
                .iter()
                .map(|exception| exception.index)
                .peekable();
            for (index, key) in slice.iter().enumerate() {
                if except.next_if_eq(&index).is_none() {
                    self.sums.add(key.key(), packed);
                }
            }
        }
        // From the last to the first: one that leaves the list changes only the places of
        // those behind it.
        while let Some(Exception { index, outcome }) = self.exceptions.pop() {
            let key = self.feeds.get(id).current[first + index];
            match outcome {
                Ok(count) => self.split_batch(io, id, key, count),
                Err(Gone) => self.end(io, key, DisconnectReason::Gone),
            }
        }
        last - first
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
        if self.paced.is_empty() {
            return;
        }
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

    /// Takes what is new out of the logs, for all current clients. Returns what that counts
    /// among the writes.
    fn gather<N: Net>(&mut self, io: &mut Io<N>, id: u32) -> usize {
        let mut batch = self.spare_batches.pop().unwrap_or_default();
        let mut targets = std::mem::take(&mut self.targets);
        let feed = self.feeds.get(id);
        let after = feed.through;
        let recipients = Recipients {
            reactor: io.index,
            clients: feed.current.len(),
        };
        let holds_back = feed.leaving > 0 || self.spread.has_leaving;
        let gathered = (!holds_back).then(|| {
            let bytes_max = io.turn.budgets.buffer_bytes;
            self.hub.gather(
                recipients,
                feed.source(),
                after,
                bytes_max,
                &mut batch,
                &mut targets,
            )
        });
        let Some((gathered, search)) = gathered.flatten() else {
            // Clients that were sent away have their turn first.
            self.feeds.get_mut(id).news.is_there = true;
            self.keep_batch(batch);
            self.targets = targets;
            self.queue_feed(id);
            return 0;
        };
        let since_us = self.note_gathered(&io.turn, id, &gathered);
        let found = targets.len();
        io.turn.spent.looks += found;
        for token in targets.drain(..) {
            self.single_out_target(io, id, token, after);
        }
        self.targets = targets;
        self.queue_early(id);
        let feed = self.feeds.get_mut(id);
        if feed.disconnects_laggards() {
            feed.behind.evicted_through = gathered.evicted_through;
            if feed.behind.may_have_missed() {
                self.feeds.hasten(id, &mut self.to_report);
            }
        }
        let feed = self.feeds.get(id);
        // A page is made for each client that waits for one.
        let has_pages = feed.form == Form::Page && !batch.is_empty();
        let goes_alone = gathered.evicted_through > after || gathered.is_for_some || has_pages;
        let content = if goes_alone || batch.is_empty() || feed.current.is_empty() {
            let is_any_current = !feed.current.is_empty();
            self.keep_batch(batch);
            let content = match goes_alone {
                true => Some(Content::Cursor),
                false => search.map(Content::Search),
            };
            content.filter(|_| is_any_current)
        } else {
            let packed = feed.is_packed().then(|| Suffix::new(batch.packed_sum()));
            Some(Content::Batch(batch, packed))
        };
        if content.is_none() {
            self.note_progress(id);
        }
        let feed = self.feeds.get_mut(id);
        feed.delivery = content.map(|content| Delivery::new(content, after, since_us));
        if gathered.has_more || (feed.ends.is_some() && feed.delivery.is_none()) {
            self.queue_feed(id);
        }
        found / LOOKS_A_WRITE
    }

    /// Has the target of a directed event go on alone.
    fn single_out_target<N: Net>(&mut self, io: &mut Io<N>, id: u32, token: u64, seen: u64) {
        let Some(key) = io.connections.find_stream(token) else {
            return;
        };
        let stream = *io.connections.stream(key);
        // A client that is behind comes by already, and one that has come since the search
        // began is beyond the entry; one of another feed is its own feed's target.
        let delivery = self.feeds.get(id).delivery.as_ref();
        let has_it = delivery.is_some_and(|delivery| (stream.index as usize) < delivery.done);
        if stream.feed == id && stream.cursor == NONE && !has_it {
            self.take_current(io, key);
            self.fall_behind(io, key, seen, None, false);
        }
    }

    /// Takes a step of the search for the clients that a directed event is for, and has
    /// these go on alone. Returns what that counts among the writes.
    fn search_some<N: Net>(&mut self, io: &mut Io<N>, id: u32) -> usize {
        let delivery = self.feeds.get_mut(id).delivery.as_mut();
        let Some(Delivery {
            content: Content::Search(search),
            after,
            ..
        }) = delivery
        else {
            return 0;
        };
        let (seen, mut targets) = (*after, std::mem::take(&mut self.targets));
        let is_over = self.hub.find_targets(io.index, search, &mut targets);
        io.turn.spent.looks += targets.len();
        for token in targets.drain(..) {
            self.single_out_target(io, id, token, seen);
        }
        self.targets = targets;
        match is_over {
            true => self.finish_delivery(io, id),
            false => self.queue_feed(id),
        }
        LOOKS_MAX / LOOKS_A_WRITE
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
    fn split_batch<N: Net>(&mut self, io: &mut Io<N>, id: u32, key: StreamKey, written: usize) {
        io.count_written(written as u64);
        let feed = self.feeds.get_mut(id);
        let Some(delivery) = &feed.delivery else {
            return;
        };
        let Content::Batch(batch, _) = &delivery.content else {
            return;
        };
        let (whole, torn) = batch.split(written);
        if feed.is_packed() {
            let begun = torn.map(|(piece, _)| piece);
            self.sums.add_all(key.key(), whole.iter().chain(begun));
        }
        let mut seen = delivery.after;
        for piece in whole {
            seen = piece.sequence;
            feed.unreported.delivered[piece.channel_index] += 1;
        }
        let owed = torn.map(|(piece, written)| {
            seen = piece.sequence;
            Owed::torn(piece, written)
        });
        self.take_current(io, key);
        self.fall_behind(io, key, seen, owed, true);
    }

    /// All current clients have the batch.
    fn finish_delivery<N: Net>(&mut self, io: &mut Io<N>, id: u32) {
        if let Some(since_us) = self.put_away(io, id) {
            io.turn.stopwatch.arrive(since_us);
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
    fn end_slice<N: Net>(&mut self, io: &mut Io<N>, id: u32, reason: DisconnectReason) -> usize {
        for ended in 0..io.turn.budgets.ends_a_slice {
            let feed = self.feeds.slots.get(id as usize);
            let Some(&key) = feed.and_then(|feed| feed.current.last()) else {
                return ended;
            };
            self.end_complete(io, key, reason);
        }
        if self.feeds.contains(id) {
            self.queue_feed(id);
        }
        io.turn.budgets.writes_a_slice
    }
}
