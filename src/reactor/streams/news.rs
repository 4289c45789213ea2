//! What the hub has for this reactor: new entries, options, and clients that it has
//! sent away.

use super::Streams;
use crate::hub::ChannelKey;
use crate::hub::clock::as_ms;
use crate::reactor::io::Io;
use crate::reactor::io::connection::State;
use crate::reactor::io::net::Net;
use crate::reactor::turn::Turn;

impl Streams {
    /// A channel has new entries, the oldest since then.
    pub(crate) fn note_news(&mut self, channel: ChannelKey, since_us: u64) {
        let Some(local) = self.feeds.locals.get(&channel) else {
            return;
        };
        for id in &local.feeds {
            let news = &mut self.feeds.slots[*id as usize].news;
            if !std::mem::replace(&mut news.is_listed, true) {
                self.news.push_back((*id, since_us));
            }
        }
    }

    /// A channel has other options.
    pub(crate) fn note_options(&mut self, channel: ChannelKey) {
        if let Some(local) = self.feeds.locals.get(&channel) {
            self.changed.extend(&local.feeds);
        }
    }

    /// Passes on a slice of what was noted, to feeds and to their clients.
    pub(crate) fn spread_news<N: Net>(&mut self, io: &mut Io<N>) {
        for _ in 0..io.turn.budgets.looks_a_slice {
            let Some((id, since_us)) = self.news.pop_front() else {
                break;
            };
            // A feed may be gone, and another one in its slot looks in vain.
            if let Some(feed) = self.feeds.slots.get_mut(id as usize) {
                feed.news.is_there = true;
                feed.news.is_listed = false;
                feed.news.since_us.get_or_insert(since_us);
                self.queue_feed(id);
            }
        }
        for _ in 0..io.turn.budgets.chores_a_turn {
            let Some(id) = self.changed.pop_front() else {
                break;
            };
            if self.feeds.contains(id) {
                self.change_options(&io.turn, id);
            }
        }
        for _ in 0..io.turn.budgets.looks_a_slice {
            let Some(key) = self.untimed.pop() else {
                break;
            };
            // The client may be gone, and another connection have its key.
            if io.connections.contains(key)
                && let State::Stream(_) = io.connections.get(key).state
            {
                self.set_timer(io, key);
            }
        }
    }

    /// Has a feed take the options of its channels.
    fn change_options(&mut self, turn: &Turn, id: u32) {
        let feed = self.feeds.get_mut(id);
        let options = self.hub.options_of_all(&feed.channels);
        let before = std::mem::replace(&mut feed.options, options);
        if before.heartbeat != feed.options.heartbeat {
            self.untimed.extend(&feed.current);
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

    /// The hub has sent a client away. Until its stream is ended, nothing is
    /// gathered for its feed: what was for the client alone it would miss silently.
    pub(crate) fn note_leaving<N: Net>(&mut self, io: &mut Io<N>, token: u64) {
        if let Some(key) = io.connections.find(token)
            && let State::Stream(stream) = &mut io.connections.get_mut(key).state
            && !std::mem::replace(&mut stream.is_leaving, true)
        {
            self.feeds.get_mut(stream.feed).leaving += 1;
        }
    }
}
