//! What the hub has for this reactor: new entries, options, and clients that it has
//! sent away.

use super::Streams;
use super::spread::next_feed;
use crate::hub::Work;
use crate::hub::clock::as_ms;
use crate::reactor::io::Io;
use crate::reactor::io::net::Net;
use crate::reactor::turn::Turn;

impl Streams {
    /// Passes on a slice of the hub's work, to feeds and to their clients. `is_new`: the
    /// work was taken in this turn, so there was no more.
    pub(crate) fn spread_work<N: Net>(&mut self, io: &mut Io<N>, work: &mut Work, is_new: bool) {
        let slice = io.turn.budgets.looks_a_slice;
        let mut left = slice;
        while left > 0
            && let Some(&(channel, since_us)) = work.dirty.front()
        {
            let spread = &mut self.spread.dirty_left;
            let (first, is_last) = next_feed(&self.feeds, channel, spread);
            left -= 1;
            if let Some(id) = first {
                let news = &mut self.feeds.get_mut(id).news;
                news.is_there = true;
                news.since_us.get_or_insert(since_us);
                self.queue_feed(id);
            }
            if is_last {
                work.dirty.pop_front();
            }
        }
        let mut chores = io.turn.budgets.chores_a_turn;
        while chores > 0
            && let Some(&channel) = work.changed.front()
        {
            let spread = &mut self.spread.changed_left;
            let (first, is_last) = next_feed(&self.feeds, channel, spread);
            chores -= 1;
            if let Some(id) = first {
                self.change_options(&io.turn, id);
            }
            if is_last {
                work.changed.pop_front();
            }
        }
        self.spread.has_news = !is_new || !work.dirty.is_empty();
        self.spread.has_leaving = !work.departures.is_empty();
        self.set_timers(io, &mut left);
        io.turn.spent.looks += slice - left;
    }

    /// Has a feed take the options of its channels.
    fn change_options(&mut self, turn: &Turn, id: u32) {
        let feed = self.feeds.get_mut(id);
        let options = self.hub.options_of_all(&feed.channels);
        let before = std::mem::replace(&mut feed.options, options);
        if before.heartbeat != feed.options.heartbeat {
            if feed.untimed == 0 {
                self.untimed.push_back(id);
            }
            feed.untimed = feed.current.len();
        }
        if before.pace != feed.options.pace {
            // What waits may be due by now.
            let pace_ms = feed.options.pace.map_or(0, as_ms);
            let due_ms = turn.now_ms.saturating_add(pace_ms);
            feed.pace.until_ms = feed.pace.until_ms.min(due_ms);
            feed.pace.is_waiting = false;
            self.queue_feed(id);
        }
    }

    /// Sets the timers of up to `left` current clients of feeds whose heartbeats have
    /// another interval, from the last client to the first.
    fn set_timers<N: Net>(&mut self, io: &mut Io<N>, left: &mut usize) {
        while *left > 0
            && let Some(&id) = self.untimed.front()
        {
            *left -= 1;
            // The feed may be gone, and another one in its slot has none of these.
            let feed = self.feeds.slots.get_mut(id as usize);
            let key = feed.and_then(|feed| {
                feed.untimed = feed.untimed.min(feed.current.len()).saturating_sub(1);
                feed.current.get(feed.untimed).copied()
            });
            if let Some(key) = key {
                self.set_timer(io, key);
            }
            let feed = self.feeds.slots.get(id as usize);
            if feed.is_none_or(|feed| feed.untimed == 0) {
                self.untimed.pop_front();
            }
        }
    }

    /// The hub has sent a client away. Until its stream is ended, nothing is
    /// gathered for its feed: what was for the client alone it would miss silently.
    pub(crate) fn note_leaving<N: Net>(&mut self, io: &mut Io<N>, token: u64) {
        let Some(key) = io.connections.find_stream(token) else {
            return;
        };
        let stream = io.connections.stream_mut(key);
        if !std::mem::replace(&mut stream.is_leaving, true) {
            self.feeds.get_mut(stream.feed).leaving += 1;
        }
    }
}
