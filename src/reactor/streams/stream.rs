//! Streams, from their first event to their end.

use crate::frame;
use crate::hub::client::{CAUGHT_UP, DisconnectReason};
use crate::hub::log::Evicted;
use crate::hub::{ChannelKey, MemberKey, Position};
use crate::packed::{Suffix, Sum};
use crate::reactor::http::serving::{call_on_disconnect, is_transient};
use crate::reactor::io::connection::{NONE, State, Stream};
use crate::reactor::io::net::Net;
use crate::reactor::streams::feed::{Cursor, Moves, Owed};
use crate::reactor::{Reactor, TICK_MS, as_ms};

/// How often a subscriber may send something before it is disconnected.
const STRIKES_MAX: u8 = 100;

/// A browser that finds no room is told to come back after a delay between
/// these, in milliseconds, drawn for each, so that they do not all come at
/// once.
const RETRY_MS: std::ops::Range<u64> = 2_000..10_000;

impl<N: Net> Reactor<N> {
    /// A delay after which a browser is to come back.
    pub(crate) fn retry_ms(&self) -> u64 {
        RETRY_MS.start + self.hub.random_below(RETRY_MS.end - RETRY_MS.start)
    }

    /// Gives a client a cursor; it is in none of the feed's lists.
    pub(crate) fn fall_behind(
        &mut self,
        key: u32,
        seen: u64,
        owed: Option<Owed>,
        is_blocked: bool,
    ) {
        let cursor = self.cursors.insert(Cursor {
            seen,
            replay_through: 0,
            keyed_through: 0,
            forgiven: Evicted::default(),
            replay_end: None,
            owed,
            end: None,
            is_early: false,
            is_blocked,
            is_noted: false,
            is_queued: false,
        });
        let feed_id = self.connections.stream(key).feed;
        let index = self.feeds.get_mut(feed_id).push_behind(key, seen);
        self.feeds.count_behind(feed_id, true);
        let stream = self.connections.stream_mut(key);
        stream.cursor = u32::try_from(cursor).expect("fewer cursors than 2^32");
        stream.index = u32::try_from(index).expect("fewer clients than 2^32");
        if is_blocked {
            self.set_stream_timer(key);
            self.note_seen(key);
        } else {
            self.queue_cursor(key);
        }
    }

    /// A client that is behind has taken so many bytes, and takes no more for
    /// now. It has `stall_timeout` from the last that it took, or from when it
    /// was first found to take nothing.
    pub(crate) fn block(&mut self, key: u32, written: usize) {
        let tick = self.tick32();
        let cursor = &mut self.cursors[self.connections.stream(key).cursor as usize];
        let was_blocked = std::mem::replace(&mut cursor.is_blocked, true);
        if written > 0 || !was_blocked {
            self.connections.get_mut(key).written_at = tick;
            self.set_stream_timer(key);
        }
        self.note_seen(key);
    }

    /// Notes for the hub where a client stands that stays behind.
    fn note_seen(&mut self, key: u32) {
        let cursor = &mut self.cursors[self.connections.stream(key).cursor as usize];
        cursor.is_noted = true;
        let sent = cursor.sent();
        self.note_position(key, sent);
    }

    /// Notes for the hub what a client has seen, in each of its channels.
    fn note_position(&mut self, key: u32, seen: u64) {
        let token = self.connections.token(key);
        let stream = self.connections.stream(key);
        let position = |channel: &ChannelKey, slot| Position {
            member_key: MemberKey {
                channel: *channel,
                slot,
            },
            token,
            seen,
        };
        match &*self.feeds.get(stream.feed).channels {
            [only] => self.positions.push(position(only, stream.reader)),
            several => {
                let readers = several.iter().zip(&self.readers[stream.reader as usize]);
                let all = readers.map(|(channel, reader)| position(channel, reader.slot));
                self.positions.extend(all);
            }
        }
    }

    /// Lets the hub know where clients stand.
    pub(crate) fn tell_positions(&mut self) {
        if !self.positions.is_empty() {
            self.hub.note_positions(self.index, &self.positions);
            self.positions.clear();
        }
    }

    /// A client that took nothing has had its time. But it may have: that there
    /// is room is reported only once a third of the kernel's buffer is free, so
    /// it is written to once more. And it may be gone, which is then the reason.
    fn press(&mut self, key: u32) {
        let token = self.connections.token(key);
        self.listen_to_subscriber(key);
        if self.connections.find(token).is_none() {
            return;
        }
        self.run_cursor(key);
        if self.connections.find(token).is_none() {
            return;
        }
        if self.has_stalled(key) {
            return self.close(key, DisconnectReason::Stalled);
        }
        self.set_stream_timer(key);
    }

    /// Whether a client has taken nothing for too long, and may take nothing
    /// now: one that waits in the queue may have room.
    fn has_stalled(&self, key: u32) -> bool {
        let cursor = self.connections.stream(key).cursor as usize;
        let cursor = self.cursors.get(cursor);
        let is_stuck = cursor.is_some_and(|cursor| cursor.is_blocked && !cursor.is_queued);
        is_stuck && self.silent_ticks(key) >= self.stall_ticks()
    }

    /// A client has seen everything that was gathered: back to the many.
    pub(crate) fn catch_up(&mut self, key: u32) {
        let stream = *self.connections.stream(key);
        if self.cursors.remove(stream.cursor as usize).is_noted {
            self.note_position(key, CAUGHT_UP);
        }
        self.connections.stream_mut(key).cursor = NONE;
        self.feeds.count_behind(stream.feed, false);
        let feed = self.feeds.get_mut(stream.feed);
        let (ends, is_pumping) = (feed.ends, feed.batch.is_some());
        let moves = feed.remove_behind(stream.index as usize);
        let more_moves = feed.push_current(key);
        self.move_all(moves);
        self.move_all(more_moves);
        self.note_progress(stream.feed);
        if let Some(reason) = ends.filter(|_| !is_pumping) {
            return self.end_complete(key, reason);
        }
        self.set_stream_timer(key);
    }

    /// Lets clients know that their places have changed.
    pub(crate) fn move_all(&mut self, moves: Moves) {
        for (key, index) in moves.into_iter().flatten() {
            self.connections.stream_mut(key).index =
                u32::try_from(index).expect("fewer clients than 2^32");
        }
    }

    /// The interval after which this client hears a heartbeat, in ticks: up
    /// to a quarter less than the channel's, by its key, so that many who
    /// were written to together do not stay together.
    fn heartbeat_ticks(&self, key: u32) -> Option<u64> {
        let feed = self.feeds.get(self.connections.stream(key).feed);
        // What is beyond the wheel's reach, eight years, is as good as never.
        let ticks = (as_ms(feed.options.heartbeat?) / TICK_MS).min(u64::from(u32::MAX));
        let spread = (u64::from(key.wrapping_mul(0x9e37_79b9)) * (ticks / 4)) >> 32;
        Some((ticks - spread).max(1))
    }

    /// A channel was given other options. Costs by the clients of its feeds
    /// when the heartbeat is another, and else nothing.
    pub(crate) fn take_options(&mut self, channel: ChannelKey) {
        let feeds = self.feeds.locals.get(&channel);
        for id in feeds.map_or_else(Vec::new, |local| local.feeds.clone()) {
            let feed = self.feeds.get_mut(id);
            let options = self.hub.options_of_all(&feed.channels);
            let before = std::mem::replace(&mut feed.options, options);
            if before.pace != feed.options.pace {
                // What waits may be due by now.
                let pace_ms = feed.options.pace.map_or(0, as_ms);
                let due_ms = self.now_ms.saturating_add(pace_ms);
                feed.paced_until_ms = feed.paced_until_ms.min(due_ms);
                feed.is_paced = false;
                self.queue_feed(id);
            }
            let feed = self.feeds.get_mut(id);
            if before.heartbeat != feed.options.heartbeat {
                for key in feed.current.clone() {
                    self.set_stream_timer(key);
                }
            }
        }
    }

    /// For how many ticks a connection was not written to.
    pub(crate) fn silent_ticks(&self, key: u32) -> u64 {
        let written_at = self.connections.get(key).written_at;
        u64::from(self.tick32().wrapping_sub(written_at))
    }

    pub(crate) fn stall_ticks(&self) -> u64 {
        as_ms(self.limits.stall_timeout).div_ceil(TICK_MS)
    }

    /// Sets the one timer of a stream: for its next heartbeat, or, while it
    /// is behind, for when it has stalled; or for its end, if that is sooner.
    pub(crate) fn set_stream_timer(&mut self, key: u32) {
        let silent = self.silent_ticks(key);
        let stream = self.connections.stream(key);
        let wait = match self.is_waiting_for_room(key) {
            false => self.heartbeat_ticks(key),
            true => Some(self.stall_ticks().max(silent + 1)),
        };
        let wait = wait.map(|ticks| ticks.saturating_sub(silent));
        let end = stream.ends_in(self.tick32()).map(u64::from);
        match wait.into_iter().chain(end).min() {
            Some(ticks) => {
                let due = self.now_ms / TICK_MS + ticks;
                self.wheel.set(&mut self.connections, key, due);
            }
            None => self.wheel.cancel(&mut self.connections, key),
        }
    }

    /// A stream's timer: its end has come, a heartbeat is due, or a stalled
    /// client has had its time. The last two are counted from the last write,
    /// which did not move the timer.
    pub(crate) fn on_stream_timer(&mut self, key: u32) {
        let stream = *self.connections.stream(key);
        if let Some(reason) = stream.ends_as
            && stream.ends_in(self.tick32()) == Some(0)
        {
            return self.begin_end(key, reason);
        }
        let silent = self.silent_ticks(key);
        if self.is_waiting_for_room(key) {
            return match self.has_stalled(key) {
                true => self.press(key),
                false => self.set_stream_timer(key),
            };
        }
        if self
            .heartbeat_ticks(key)
            .is_some_and(|ticks| silent >= ticks)
        {
            let tick = self.tick32();
            let feed = self.feeds.get(self.connections.stream(key).feed);
            let heartbeat = feed.wrap(frame::HEARTBEAT);
            let connection = self.connections.get_mut(key);
            connection.written_at = tick;
            self.meters.heartbeats.add(1);
            if feed.is_packed {
                self.sums.add(key, &Suffix::new(Sum::of(frame::HEARTBEAT)));
            }
            match self.net.write(&mut connection.socket, &heartbeat) {
                Ok(count) if count == heartbeat.len() => {}
                Ok(count) => return self.owe_heartbeat(key, count),
                Err(error) if is_transient(&error) => return self.owe_heartbeat(key, 0),
                Err(_) => return self.close(key, DisconnectReason::Gone),
            }
        }
        self.set_stream_timer(key);
    }

    /// Whether a client is behind, and not only waits for the next gathering.
    fn is_waiting_for_room(&self, key: u32) -> bool {
        let cursor = self.connections.stream(key).cursor as usize;
        self.cursors
            .get(cursor)
            .is_some_and(|cursor| !cursor.is_early)
    }

    /// A heartbeat did not fit into the socket: the client is behind by that.
    fn owe_heartbeat(&mut self, key: u32, written: usize) {
        let stream = *self.connections.stream(key);
        if let Some(cursor) = self.cursors.get_mut(stream.cursor as usize) {
            let feed = self.feeds.get(stream.feed);
            cursor.owed = Some(Owed {
                frame: feed.own_frame(frame::HEARTBEAT),
                written,
                channel_index: None,
            });
            cursor.is_early = false;
            return self.block(key, written);
        }
        let seen = self.seen_by_current(key);
        let feed = self.feeds.get_mut(stream.feed);
        let owed = Owed {
            frame: feed.own_frame(frame::HEARTBEAT),
            written,
            channel_index: None,
        };
        let moves = feed.remove_current(stream.index as usize);
        self.move_all(moves);
        self.fall_behind(key, seen, Some(owed), true);
    }

    /// What a client has seen that is current.
    pub(crate) fn seen_by_current(&self, key: u32) -> u64 {
        let stream = self.connections.stream(key);
        let feed = self.feeds.get(stream.feed);
        let is_pending = feed.batch.is_some() && stream.index as usize >= feed.done;
        if is_pending {
            feed.batch_after
        } else {
            feed.through
        }
    }

    /// A subscriber has sent something, or has gone. What it says is of no
    /// interest, but reading it is how its end is found.
    pub(crate) fn listen_to_subscriber(&mut self, key: u32) {
        let mut input = std::mem::take(&mut self.input);
        let connection = self.connections.get_mut(key);
        let State::Stream(stream) = &mut connection.state else {
            return self.input = input;
        };
        let reason = loop {
            match self.net.read(&mut connection.socket, &mut input) {
                Ok(0) => break Some(DisconnectReason::Gone),
                Ok(_) if stream.strikes == STRIKES_MAX => {
                    break Some(DisconnectReason::Misbehaved);
                }
                Ok(_) => stream.strikes += 1,
                Err(error) if is_transient(&error) => break None,
                Err(_) => break Some(DisconnectReason::Gone),
            }
        };
        self.input = input;
        if let Some(reason) = reason {
            self.close(key, reason);
        }
    }

    /// Ends a connection, whatever it does, and forgets it. Of a stream,
    /// whoever is to be told is told.
    pub(crate) fn close(&mut self, key: u32, reason: DisconnectReason) {
        if !matches!(reason, DisconnectReason::Gone | DisconnectReason::Stalled) {
            self.finish_packed(key);
        }
        let mut disconnect_call = None;
        if let State::Stream(stream) = self.connections.get(key).state {
            self.tell_positions();
            let (member_keys, connection) = (self.member_keys(key), self.connection_id(key));
            disconnect_call = self.hub.leave(&member_keys, connection, reason);
            self.leave_feed(stream);
            self.meters.count_end(reason);
        }
        self.wheel.cancel(&mut self.connections, key);
        let connection = self.connections.remove(key);
        self.acceptor.see_out(key, &connection);
        self.net.close(connection.socket);
        if let Some(disconnect_call) = disconnect_call {
            call_on_disconnect(disconnect_call, reason);
        }
    }

    fn leave_feed(&mut self, stream: Stream) {
        let feed = self.feeds.get_mut(stream.feed);
        let is_merged = feed.channels.len() > 1;
        let index = stream.index as usize;
        feed.leaving -= usize::from(stream.is_leaving);
        let moves = if stream.cursor == NONE {
            feed.remove_current(index)
        } else {
            feed.remove_behind(index)
        };
        if stream.cursor != NONE {
            self.cursors.remove(stream.cursor as usize);
            self.feeds.count_behind(stream.feed, false);
        }
        self.move_all(moves);
        if is_merged {
            self.readers.remove(stream.reader as usize);
        }
        if self.feeds.get(stream.feed).is_empty() {
            self.close_feed(stream.feed);
        } else {
            self.note_progress(stream.feed);
        }
    }

    /// A client's slots in its channels.
    pub(crate) fn member_keys(&self, key: u32) -> Vec<MemberKey> {
        let stream = self.connections.stream(key);
        let feed = self.feeds.get(stream.feed);
        let member = |(channel, slot): (&ChannelKey, u32)| MemberKey {
            channel: *channel,
            slot,
        };
        match &*feed.channels {
            [only] => vec![member((only, stream.reader))],
            several => {
                let readers = self.readers[stream.reader as usize]
                    .iter()
                    .map(|reader| reader.slot);
                several.iter().zip(readers).map(member).collect()
            }
        }
    }

    pub(crate) fn queue_cursor(&mut self, key: u32) {
        let cursor = self.connections.stream(key).cursor;
        if let Some(cursor) = self.cursors.get_mut(cursor as usize)
            && !std::mem::replace(&mut cursor.is_queued, true)
        {
            self.cursor_queue.push_back(self.connections.token(key));
        }
    }
}

pub(crate) fn retry_line(retry_ms: u64) -> Vec<u8> {
    frame::retry_line(u32::try_from(retry_ms).unwrap_or(u32::MAX))
}
