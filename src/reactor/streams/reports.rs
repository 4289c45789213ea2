//! What the hub learns of the clients' progress, at the end of a turn.

use std::collections::VecDeque;

use slab::Slab;

use super::Streams;
use super::survey::Survey;
use crate::hub::client::DisconnectReason;
use crate::reactor::io::Io;
use crate::reactor::io::net::Net;

/// The number of looks at clients that cost as much as the end of one.
const LOOKS_AN_END: usize = 8;

impl Streams {
    /// Reports to the hub how far a slice of the listed channels have come. The cost
    /// grows with a channel's feeds and with its clients that are behind, so a channel
    /// with many is reported only once for as many steps, or when the loop is idle.
    pub(crate) fn report<N: Net>(&mut self, io: &mut Io<N>, is_idle: bool) {
        self.send_positions(io);
        let slice = io.turn.budgets.looks_a_slice;
        let (mut left, mut listed) = (slice, self.to_report.len());
        while left > 0 && (self.survey.is_some() || listed > 0) {
            if self.survey.is_none() {
                (left, listed) = (left - 1, listed - 1);
                self.begin_survey(is_idle);
            } else if self.survey_some(io, &mut left) {
                let evicted = self.finish_survey(io.index, io.turn.now_ms);
                left = left.saturating_sub(evicted);
            }
        }
        io.turn.spent.looks += slice - left;
    }

    /// Begins to look at the clients of the next listed channel, if its report is due.
    fn begin_survey(&mut self, is_idle: bool) {
        let Some(key) = self.to_report.pop_front() else {
            return;
        };
        // Its feeds may be gone, or it may be listed twice since then.
        let local = self.feeds.locals.get_mut(&key);
        let Some(local) = local.filter(|local| local.is_listed) else {
            return;
        };
        let cost = local.feeds.len() + local.behind - usize::from(local.behind > 0);
        if local.unreported < cost && !is_idle {
            return self.to_report.push_back(key);
        }
        local.unreported = 0;
        local.is_listed = false;
        self.survey = Some(Survey::new(key));
    }

    /// Reports what a survey has found. Returns the number of entries that the hub has
    /// evicted for it.
    fn finish_survey(&mut self, reactor: u16, now_ms: u64) -> usize {
        let Some(survey) = &self.survey else {
            return 0;
        };
        let key = survey.channel;
        let report = survey.report(self.feeds.locals.contains_key(&key));
        self.survey = None;
        let trimmed = self.hub.report(reactor, Some((key, report)), now_ms);
        if trimmed.has_more {
            self.feeds.list_channels(&[key], &mut self.to_report);
        }
        trimmed.evicted
    }

    /// Looks at up to `left` more of the feeds and clients that are surveyed, and ends the
    /// clients that have fallen off the log. Returns whether these were the last.
    fn survey_some<N: Net>(&mut self, io: &mut Io<N>, left: &mut usize) -> bool {
        while let Some(survey) = self.survey.as_mut().filter(|_| *left > 0) {
            let Some(id) = survey.feed() else {
                if !survey.has_feeds_left() {
                    return true;
                }
                let local = self.feeds.locals.get(&survey.channel);
                let feeds = local.map_or(&[][..], |local| &local.feeds);
                let Some(id) = survey.next_feed(feeds) else {
                    return true;
                };
                *left -= 1;
                survey.take_unreported(&mut self.feeds.slots[id as usize]);
                continue;
            };
            let Some(feed) = self.feeds.slots.get_mut(id as usize) else {
                survey.leave_feed();
                continue;
            };
            let Some(key) = survey.next_client(feed) else {
                continue;
            };
            *left -= 1;
            let cursor = &self.cursors[io.connections.stream(key).cursor as usize];
            if cursor.seen < feed.behind.evicted_through && feed.disconnects_laggards() {
                self.end(io, key, DisconnectReason::Lagged);
                *left = left.saturating_sub(LOOKS_AN_END);
            } else {
                survey.lower(id, cursor.seen, cursor.sent());
            }
        }
        false
    }

    /// Gives memory back after a burst, once little enough is left to be moved in one
    /// go.
    pub(crate) fn shrink<N: Net>(&mut self, io: &mut Io<N>) {
        let (cursors, connections) = (&mut self.cursors, &mut io.connections);
        if is_sparse(cursors.len(), cursors.capacity()) {
            cursors.compact(|cursor, _, to| {
                let to = u32::try_from(to).expect("fewer cursors than 2^32");
                connections.stream_mut(cursor.key).cursor = to;
                true
            });
        }
        if self.readers.is_empty() && is_sparse(0, self.readers.capacity()) {
            self.readers = Slab::new();
        }
        for queue in [
            &mut self.pump_queue,
            &mut self.cursor_queue,
            &mut self.untimed,
        ] {
            shrink_queue(queue);
        }
        shrink_queue(&mut self.to_report);
        if is_sparse(self.positions.len(), self.positions.capacity()) {
            self.positions.shrink_to_fit();
        }
    }
}

fn shrink_queue<T>(queue: &mut VecDeque<T>) {
    if is_sparse(queue.len(), queue.capacity()) {
        queue.shrink_to_fit();
    }
}

/// Whether most of a large allocation is unused, and what is left is quick to move.
fn is_sparse(len: usize, capacity: usize) -> bool {
    const KEPT: usize = 1024;
    capacity > 4 * KEPT && len <= KEPT
}
