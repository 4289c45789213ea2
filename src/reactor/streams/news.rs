//! What the hub has for this reactor: new entries, options, and clients that it has
//! sent away.

use super::Streams;
use crate::hub::ChannelKey;
use crate::reactor::io::Io;
use crate::reactor::io::connection::State;
use crate::reactor::io::net::Net;
use crate::reactor::millis::as_ms;
use crate::reactor::turn::Turn;

impl Streams {
    /// A channel has new entries, the oldest since then.
    pub(crate) fn note_news(&mut self, channel: ChannelKey, since_us: u64) {
        let Some(local) = self.feeds.locals.get(&channel) else {
            return;
        };
        for id in &local.feeds {
            let feed = &mut self.feeds.slots[*id as usize];
            feed.news.is_there = true;
            feed.news.since_us.get_or_insert(since_us);
            if !std::mem::replace(&mut feed.is_queued, true) {
                self.pump_queue.push_back(*id);
            }
        }
    }

    /// A channel has other options. The cost grows with the clients of its feeds
    /// when the heartbeat is another one.
    pub(crate) fn change_options<N: Net>(
        &mut self,
        io: &mut Io<N>,
        turn: &Turn,
        channel: ChannelKey,
    ) {
        let feeds = self.feeds.locals.get(&channel);
        for id in feeds.map_or_else(Vec::new, |local| local.feeds.clone()) {
            let feed = self.feeds.get_mut(id);
            let options = self.hub.options_of_all(&feed.channels);
            let before = std::mem::replace(&mut feed.options, options);
            let has_other_heartbeat = before.heartbeat != feed.options.heartbeat;
            if before.pace != feed.options.pace {
                // What waits may be due by now.
                let pace_ms = feed.options.pace.map_or(0, as_ms);
                let due_ms = turn.now_ms.saturating_add(pace_ms);
                feed.pace.until_ms = feed.pace.until_ms.min(due_ms);
                feed.pace.is_waiting = false;
                self.queue_feed(id);
            }
            if has_other_heartbeat {
                self.set_timers(io, turn, id);
            }
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
