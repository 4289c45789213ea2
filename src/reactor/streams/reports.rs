//! What the hub learns of the clients' progress, at the end of a turn.

use slab::Slab;

use super::Streams;
use crate::hub::{ChannelKey, Report};
use crate::reactor::io::Io;
use crate::reactor::io::net::Net;

impl Streams {
    /// Reports to the hub how far a slice of the listed channels have come. The cost
    /// grows with a channel's feeds and with its clients that are behind, so a channel
    /// with many is reported only once for as many steps, or when the loop is idle.
    pub(crate) fn report<N: Net>(&mut self, io: &Io<N>, is_idle: bool) {
        self.send_positions(io);
        for _ in 0..self.to_report.len().min(io.turn.budgets.looks_a_slice) {
            let Some(key) = self.to_report.pop_front() else {
                return;
            };
            // Its feeds may be gone, or it may be listed twice since then.
            let local = self.feeds.locals.get_mut(&key);
            let Some(local) = local.filter(|local| local.is_listed) else {
                continue;
            };
            let cost = local.feeds.len() + local.behind - usize::from(local.behind > 0);
            if local.unreported < cost && !is_idle {
                self.to_report.push_back(key);
                continue;
            }
            local.unreported = 0;
            local.is_listed = false;
            let report = self.progress(io, &key);
            self.hub.report(io.index, &[key], &[report]);
        }
    }

    /// The progress of a channel's clients since the last report.
    fn progress<N: Net>(&mut self, io: &Io<N>, key: &ChannelKey) -> Report {
        let mut report = Report::default();
        let mut sent_through = u64::MAX;
        let ids = self
            .feeds
            .locals
            .get(key)
            .map_or(&[][..], |local| &local.feeds);
        for id in ids {
            let feed = &mut self.feeds.slots[*id as usize];
            let channel_index = feed.channels.iter().position(|other| other == key);
            let channel_index = channel_index.expect("the channel's feeds have the channel");
            let unreported = &mut feed.unreported;
            report.delivered += std::mem::take(&mut unreported.delivered[channel_index]);
            report.gaps += std::mem::take(&mut unreported.gaps);
            sent_through = sent_through.min(feed.sent_through());
            let mut floor = None;
            for key in &feed.behind.keys {
                let stream = io.connections.stream(*key);
                let cursor = &self.cursors[stream.cursor as usize];
                floor = Some(floor.map_or(cursor.seen, |floor: u64| floor.min(cursor.seen)));
                sent_through = sent_through.min(cursor.sent());
            }
            feed.behind.set_floor(floor);
        }
        report.sent_through = Some(sent_through);
        report
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
            &mut self.changed,
        ] {
            if is_sparse(queue.len(), queue.capacity()) {
                queue.shrink_to_fit();
            }
        }
        if is_sparse(self.news.len(), self.news.capacity()) {
            self.news.shrink_to_fit();
        }
        if is_sparse(self.to_report.len(), self.to_report.capacity()) {
            self.to_report.shrink_to_fit();
        }
        if is_sparse(self.positions.len(), self.positions.capacity()) {
            self.positions.shrink_to_fit();
        }
        if is_sparse(self.untimed.len(), self.untimed.capacity()) {
            self.untimed.shrink_to_fit();
        }
    }
}

/// Whether most of a large allocation is unused, and what is left is quick to move.
fn is_sparse(len: usize, capacity: usize) -> bool {
    const KEPT: usize = 1024;
    capacity > 4 * KEPT && len <= KEPT
}
