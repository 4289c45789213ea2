//! From logs to sockets.
//!
//! The many who are current get a batch that is gathered once, with one
//! write each, a slice of them at a time. Whoever cannot take it all, and
//! whoever is the target of a directed event, goes on alone with a cursor
//! until it has caught up.

use std::cmp::Reverse;

use hashbrown::HashMap;

use crate::hub::batch::Batch;
use crate::hub::client::DisconnectReason;
use crate::hub::options::LagPolicy;
use crate::hub::{ChannelKey, Recipients, Report};
use crate::packed::Suffix;
use crate::reactor::Reactor;
use crate::reactor::http::serving::is_transient;
use crate::reactor::io::net::Net;
use crate::reactor::streams::feed::{Local, Owed};

/// Spare batches that are kept.
const SPARE_BATCHES_MAX: usize = 16;

impl<N: Net> Reactor<N> {
    /// Gives each queued feed a slice, as far as the turn's budget goes.
    pub(crate) fn pump(&mut self) {
        let mut budget = self.budgets.writes_a_turn;
        for _ in 0..self.pump_queue.len() {
            let Some(id) = self.pump_queue.pop_front() else {
                return;
            };
            if !self.feeds.contains(id) {
                continue;
            }
            self.feeds.get_mut(id).is_queued = false;
            budget = budget.saturating_sub(self.pump_slice(id).max(1));
            if budget == 0 {
                return;
            }
        }
    }

    pub(crate) fn queue_feed(&mut self, id: u32) {
        if !std::mem::replace(&mut self.feeds.get_mut(id).is_queued, true) {
            self.pump_queue.push_back(id);
        }
    }

    /// Gathers, if nothing is on its way, and writes to so many. Answers how
    /// many writes it took.
    fn pump_slice(&mut self, id: u32) -> usize {
        let mut spent = 0;
        if self.feeds.get(id).batch.is_none() {
            let feed = self.feeds.get(id);
            if let Some(reason) = feed.ends {
                // A client that has joined a finished channel may know more
                // than was gathered. Where one of several channels is over, the
                // others go on, and what they bring does not put the end off.
                let may_end = match reason {
                    DisconnectReason::Finished => !feed.has_news,
                    _ => !feed.has_news || !feed.current.is_empty(),
                };
                if may_end {
                    return self.end_slice(id, reason);
                }
            }
            if self.waits_for_its_time(id) {
                return spent;
            }
            spent = self.gather(id);
            if !self.feeds.contains(id) {
                return spent;
            }
        }
        if self.feeds.get(id).batch.is_none() {
            return spent;
        }
        let tick = self.tick32();
        let packed = self.feeds.get(id).packed_batch;
        let is_limited = self.feeds.get(id).limits_unsent;
        for written in 0..self.budgets.writes_a_slice {
            let feed = self.feeds.get(id);
            let Some(&key) = feed.current.get(feed.done) else {
                self.finish_batch(id);
                return spent + written;
            };
            let batch = feed.batch.as_deref().expect("looked at above");
            let connection = self.connections.get_mut(key);
            connection.written_at = tick;
            let (socket, bytes) = (&mut connection.socket, batch.as_bytes());
            match self.net.write_events_uncounted(socket, bytes, is_limited) {
                Ok(count) if count == bytes.len() => {
                    let feed = self.feeds.get_mut(id);
                    feed.done += 1;
                    feed.batch_writes += 1;
                    if let Some(batch) = &packed {
                        self.sums.add(key, batch);
                    }
                }
                Ok(count) => self.tear(id, key, count),
                Err(error) if is_transient(&error) => self.tear(id, key, 0),
                Err(_) => {
                    self.close(key, DisconnectReason::Gone);
                    if !self.feeds.contains(id) {
                        return spent + written + 1;
                    }
                }
            }
        }
        self.queue_feed(id);
        spent + self.budgets.writes_a_slice
    }

    /// Whether a feed has to wait because its channels have a pace. If so it is
    /// queued again when its time has come. A shutdown waits for no pace.
    fn waits_for_its_time(&mut self, id: u32) -> bool {
        let feed = self.feeds.get_mut(id);
        let is_early = feed.options.pace.is_some() && self.now_ms < feed.paced_until_ms;
        if !is_early || self.drain.is_some() {
            return false;
        }
        if !std::mem::replace(&mut feed.is_paced, true) {
            self.paced.push(Reverse((feed.paced_until_ms, id)));
        }
        true
    }

    /// Queues the feeds whose time has come.
    pub(crate) fn release_paced(&mut self) {
        for _ in 0..self.budgets.timers_a_turn {
            let Some(Reverse((due_ms, id))) = self.paced.peek().copied() else {
                return;
            };
            let is_due = |at_ms: u64| at_ms <= self.now_ms || self.drain.is_some();
            if !is_due(due_ms) {
                return;
            }
            self.paced.pop();
            // The feed may be gone, and another one in its slot.
            let feed = self.feeds.slots.get_mut(id as usize);
            if let Some(feed) = feed.filter(|feed| feed.is_paced && is_due(feed.paced_until_ms)) {
                feed.is_paced = false;
                self.queue_feed(id);
            }
        }
    }

    /// Takes what is new out of the logs, for all who are current. Answers how
    /// many connections it ended for that.
    fn gather(&mut self, id: u32) -> usize {
        let mut batch = self.spare_batches.pop().unwrap_or_default();
        let mut targets = std::mem::take(&mut self.targets);
        let feed = self.feeds.get_mut(id);
        let after = feed.through;
        let has_leavers = feed.leaving > 0;
        let recipients = Recipients {
            reactor: self.index,
            clients: feed.current.len(),
        };
        let gathered = (!has_leavers).then(|| {
            self.hub.gather(
                recipients,
                feed.source(),
                after,
                self.budgets.buffer_bytes,
                &mut batch,
                &mut targets,
            )
        });
        let Some(gathered) = gathered.flatten() else {
            // Those who were sent away have their turn first.
            feed.has_news = true;
            self.spare_batches.push(batch);
            self.targets = targets;
            self.queue_feed(id);
            return 0;
        };
        feed.through = gathered.through.max(after);
        feed.batch_after = after;
        feed.has_news = gathered.has_more;
        if let Some(pace) = feed.options.pace.filter(|_| !gathered.has_more) {
            feed.paced_until_ms = self.now_ms.saturating_add(crate::reactor::as_ms(pace));
        }
        feed.batch_since_us = feed.news_since_us.take();
        if gathered.has_more {
            feed.news_since_us = feed.batch_since_us;
        }
        feed.ends = gathered.ends;
        let early = std::mem::take(&mut feed.early);
        let has_lost = gathered.evicted_through > after;
        if has_lost || gathered.is_for_some {
            // More was published than anybody could be sent, or each has to see
            // what is for it: nobody here is current any more.
            for key in std::mem::take(&mut feed.current) {
                self.fall_behind(key, after, None, false);
            }
        }
        for token in targets.drain(..) {
            self.single_out(id, token, after);
        }
        self.targets = targets;
        for token in early {
            if let Some(key) = self.connections.find(token) {
                self.queue_cursor(key);
            }
        }
        let mut ended = 0;
        if gathered.evicted_through > self.feeds.get(id).floor {
            ended = self.check_laggards(id, gathered.evicted_through);
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
            let packed = feed.is_packed.then(|| Suffix::new(batch.packed_sum()));
            feed.packed_batch = packed;
            feed.batch = Some(batch);
            feed.done = 0;
        }
        let feed = self.feeds.get(id);
        if gathered.has_more || (feed.ends.is_some() && feed.batch.is_none()) {
            self.queue_feed(id);
        }
        ended
    }

    /// Sends the target of a directed event down the path of its own.
    fn single_out(&mut self, id: u32, token: u64, seen: u64) {
        let Some(key) = self.connections.find(token) else {
            return;
        };
        let crate::reactor::State::Stream(stream) = self.connections.get(key).state else {
            return;
        };
        // One who is behind already comes by; one of another feed is its own
        // feed's target.
        if stream.feed != id || stream.cursor != crate::reactor::io::connection::NONE {
            return;
        }
        let moves = self.feeds.get_mut(id).remove_current(stream.index as usize);
        self.move_all(moves);
        self.fall_behind(key, seen, None, false);
    }

    /// A client took only a part of the batch.
    fn tear(&mut self, id: u32, key: u32, written: usize) {
        self.net.count_written(written as u64);
        let feed = self.feeds.get_mut(id);
        let batch = feed.batch.as_deref().expect("it was being written");
        let (whole, torn) = batch.split(written);
        if feed.is_packed {
            let begun = torn.map(|(piece, _)| piece);
            self.sums.add_all(key, whole.iter().chain(begun));
        }
        let mut seen = feed.batch_after;
        for piece in whole {
            seen = piece.sequence;
            feed.delivered[piece.channel_index] += 1;
        }
        let owed = torn.map(|(piece, written)| {
            seen = piece.sequence;
            Owed {
                frame: piece.frame.clone(),
                written,
                channel_index: Some(piece.channel_index),
            }
        });
        let index = self.connections.stream(key).index as usize;
        let moves = feed.remove_current(index);
        self.move_all(moves);
        self.fall_behind(key, seen, owed, true);
    }

    /// Everybody who is current has the batch.
    fn finish_batch(&mut self, id: u32) {
        let feed = self.feeds.get_mut(id);
        let Some((batch, bytes)) = feed.take_batch() else {
            return;
        };
        if let Some(since_us) = feed.batch_since_us.take()
            && bytes > 0
        {
            self.stopwatch.arrive(since_us);
        }
        // What was published while the batch was under way has had its place
        // in the queue already, and found the batch there.
        let goes_on = feed.has_news || feed.ends.is_some();
        self.put_away(batch, bytes);
        self.note_progress(id);
        if goes_on {
            self.queue_feed(id);
        }
    }

    /// A batch is done with, of which so many bytes were written in all.
    fn put_away(&mut self, mut batch: Box<Batch>, bytes: u64) {
        self.net.count_written(bytes);
        if self.spare_batches.len() < SPARE_BATCHES_MAX {
            batch.clear();
            self.spare_batches.push(batch);
        }
    }

    /// The feed's streams end: ends those of the clients that have everything.
    fn end_slice(&mut self, id: u32, reason: DisconnectReason) -> usize {
        for ended in 0..self.budgets.ends_a_slice {
            if !self.feeds.contains(id) {
                return ended;
            }
            let Some(key) = self.feeds.get(id).current.last().copied() else {
                return ended;
            };
            self.end_complete(key, reason);
        }
        if self.feeds.contains(id) {
            self.queue_feed(id);
        }
        self.budgets.writes_a_slice
    }

    /// Looks at all who are behind, now that entries are gone which some of
    /// them may not have seen, and ends a slice of those. Answers how many.
    fn check_laggards(&mut self, id: u32, evicted_through: u64) -> usize {
        let feed = self.feeds.get(id);
        let skips = feed.options.lag_policy != LagPolicy::Disconnect;
        let mut floor = u64::MAX;
        let mut lost = Vec::new();
        let mut has_more = false;
        for &key in &feed.behind {
            let cursor = &self.cursors[self.connections.stream(key).cursor as usize];
            // Of a stream of several channels, reading finds out.
            let is_lost = cursor.seen < evicted_through && feed.channels.len() == 1 && !skips;
            if !is_lost {
                floor = floor.min(cursor.seen.max(evicted_through));
            } else if lost.len() < self.budgets.ends_a_slice {
                lost.push(key);
            } else {
                // So low a floor has them looked at again with the next slice.
                floor = floor.min(cursor.seen);
                has_more = true;
            }
        }
        let feed = self.feeds.get_mut(id);
        feed.floor = floor;
        if has_more {
            feed.has_news = true;
            self.queue_feed(id);
        }
        let ended = lost.len();
        for key in lost {
            self.close(key, DisconnectReason::Lagged);
        }
        ended
    }

    /// Something of this feed went out, or somebody left it: the hub is to
    /// be told, when the turn is over.
    pub(crate) fn note_progress(&mut self, id: u32) {
        for key in &self.feeds.slots[id as usize].channels {
            Self::list(&mut self.feeds.locals, &mut self.to_report, key);
        }
    }

    fn list(
        locals: &mut HashMap<ChannelKey, Local>,
        to_report: &mut Vec<ChannelKey>,
        key: &ChannelKey,
    ) {
        if let Some(local) = locals.get_mut(key) {
            local.unreported += 1;
            if !std::mem::replace(&mut local.is_listed, true) {
                to_report.push(*key);
            }
        }
    }

    /// Tells the hub how far the channels have come. What that costs grows
    /// with a channel's feeds and with those who are behind, so of a channel
    /// with many it is told only once for as many steps, or when there is
    /// nothing else to do.
    pub(crate) fn report(&mut self) {
        self.tell_positions();
        let queues = [&self.request_queue, &self.cursor_queue];
        let is_idle = self.pump_queue.is_empty() && queues.iter().all(|queue| queue.is_empty());
        let mut listed = std::mem::take(&mut self.to_report);
        listed.retain(|key| {
            let Some(local) = self.feeds.locals.get_mut(key) else {
                return false;
            };
            let cost = local.feeds.len() + local.behind - usize::from(local.behind > 0);
            if local.unreported < cost && !is_idle {
                return true;
            }
            local.unreported = 0;
            local.is_listed = false;
            let mut report = Report::default();
            let mut sent_through = u64::MAX;
            for id in &local.feeds {
                let feed = &mut self.feeds.slots[*id as usize];
                let channel_index = feed.channels.iter().position(|other| other == key);
                let channel_index = channel_index.expect("the channel's feeds have the channel");
                report.delivered += std::mem::take(&mut feed.delivered[channel_index]);
                report.gaps += std::mem::take(&mut feed.gaps);
                feed.floor = u64::MAX;
                sent_through = sent_through.min(feed.sent_through());
                for key in &feed.behind {
                    let stream = self.connections.stream(*key);
                    let cursor = &self.cursors[stream.cursor as usize];
                    feed.floor = feed.floor.min(cursor.seen);
                    sent_through = sent_through.min(cursor.sent());
                }
            }
            report.sent_through = Some(sent_through);
            self.hub.report(self.index, &[*key], &[report]);
            false
        });
        self.to_report = listed;
    }

    /// The last client of a feed has left.
    pub(crate) fn close_feed(&mut self, id: u32) {
        let mut feed = self.feeds.remove(id);
        if let Some((batch, bytes)) = feed.take_batch() {
            self.put_away(batch, bytes);
        }
        let reports: Vec<Report> = feed
            .delivered
            .iter()
            .map(|delivered| Report {
                delivered: *delivered,
                gaps: std::mem::take(&mut feed.gaps),
                sent_through: None,
            })
            .collect();
        self.hub.report(self.index, &feed.channels, &reports);
        self.to_report
            .retain(|key| self.feeds.locals.contains_key(key));
        // Its last client may have been what a log was kept for.
        for key in &feed.channels {
            Self::list(&mut self.feeds.locals, &mut self.to_report, key);
        }
    }
}
