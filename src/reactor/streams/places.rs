//! Where a client stands: in a list of its feed, in a queue, and in time.

use super::Streams;
use super::cursor::{Cursor, Owed};
use super::feed::Moves;
use super::heartbeats::TOGETHER_MAX;
use crate::hub::clock::as_ms;
use crate::hub::{ChannelKey, MemberKey, Position};
use crate::packed::{Suffix, Sum};
use crate::reactor::io::Io;
use crate::reactor::io::connection::StreamKey;
use crate::reactor::io::net::Net;
use crate::reactor::turn::TICK_MS;

impl Streams {
    /// Gives a client a cursor. It must be in none of the feed's lists.
    pub(super) fn fall_behind<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: StreamKey,
        seen: u64,
        owed: Option<Owed>,
        is_blocked: bool,
    ) {
        let cursor = Cursor::new(key, seen, owed, is_blocked);
        let sent = cursor.sent();
        let cursor = self.cursors.insert(cursor);
        let stream = io.connections.stream_mut(key);
        let index = self.feeds.get_mut(stream.feed).push_behind(key);
        stream.cursor = u32::try_from(cursor).expect("fewer cursors than 2^32");
        stream.index = u32::try_from(index).expect("fewer clients than 2^32");
        let id = stream.feed;
        self.feeds.count_behind(id, true);
        self.lower_floor(id, seen, sent);
        if is_blocked {
            self.set_timer(io, key);
            self.note_seen(io, key);
        } else {
            self.queue_cursor(io, key);
        }
    }

    /// A client stands behind that has seen this, and was sent this: it has come, or was
    /// set back. A survey of its channels that has passed it over counts it too.
    pub(super) fn lower_floor(&mut self, id: u32, seen: u64, sent: u64) {
        let feed = self.feeds.get_mut(id);
        feed.behind.lower_floor(seen);
        if let Some(survey) = &mut self.survey
            && feed.channels.contains(&survey.channel)
        {
            survey.lower(id, seen, sent);
        }
    }

    /// Has a current client go on alone from where it is.
    pub(super) fn single_out<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey) {
        let seen = self.take_current(io, key);
        self.fall_behind(io, key, seen, None, false);
    }

    /// Adds a client to those that are current. It must be in none of the feed's lists.
    pub(super) fn add_current<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey) {
        let feed = self.feeds.get_mut(io.connections.stream(key).feed);
        let moves = feed.push_current(key);
        let is_untimed = feed.untimed > 0;
        Self::apply(io, moves);
        // It may be one of those whose timers are to be set, and is passed over now.
        if let [_, Some((displaced, _))] = moves
            && is_untimed
        {
            self.set_timer(io, displaced);
        }
    }

    /// Takes a client out of those that are current. Returns what it has seen.
    pub(super) fn take_current<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey) -> u64 {
        let stream = *io.connections.stream(key);
        let feed = self.feeds.get_mut(stream.feed);
        let index = stream.index as usize;
        let seen = feed.seen_by_current(index);
        let moves = feed.remove_current(index);
        Self::apply(io, moves);
        seen
    }

    /// Lets clients know that their places have changed.
    pub(super) fn apply<N: Net>(io: &mut Io<N>, moves: Moves) {
        for (key, index) in moves.into_iter().flatten() {
            io.connections.stream_mut(key).index =
                u32::try_from(index).expect("fewer clients than 2^32");
        }
    }

    /// The cursor of a client that is behind.
    pub(super) fn cursor<N: Net>(&self, io: &Io<N>, key: StreamKey) -> Option<&Cursor> {
        self.cursors.get(io.connections.stream(key).cursor as usize)
    }

    pub(super) fn cursor_mut<N: Net>(&mut self, io: &Io<N>, key: StreamKey) -> Option<&mut Cursor> {
        let cursor = io.connections.stream(key).cursor;
        self.cursors.get_mut(cursor as usize)
    }

    /// A client that is behind has taken so many bytes, and takes no more for
    /// now. It has `stall_timeout` from the last that it took, or from when it
    /// was first found to take nothing.
    pub(super) fn block<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey, written: usize) {
        let Some(cursor) = self.cursor_mut(io, key) else {
            return;
        };
        let was_blocked = std::mem::replace(&mut cursor.is_blocked, true);
        if written > 0 || !was_blocked {
            io.connections.get_mut(key.key()).written_at = io.turn.tick32();
            self.set_timer(io, key);
        }
        self.note_seen(io, key);
    }

    /// Notes for the hub where a client stands that stays behind.
    fn note_seen<N: Net>(&mut self, io: &Io<N>, key: StreamKey) {
        if let Some(cursor) = self.cursor_mut(io, key) {
            cursor.is_noted = true;
            let sent = cursor.sent();
            self.note_position(io, key, sent);
        }
    }

    /// Notes for the hub what a client has seen, in each of its channels.
    pub(super) fn note_position<N: Net>(&mut self, io: &Io<N>, key: StreamKey, seen: u64) {
        let token = io.connections.token(key.key());
        let stream = io.connections.stream(key);
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
    pub(super) fn send_positions<N: Net>(&mut self, io: &Io<N>) {
        if !self.positions.is_empty() {
            self.hub.note_positions(io.index, &self.positions);
            self.positions.clear();
        }
    }

    /// Something of this feed went out, or a client left it: the hub is to
    /// learn it when the turn is over.
    pub(super) fn note_progress(&mut self, id: u32) {
        self.feeds.list(id, &mut self.to_report);
    }

    /// Queues a feed for the pump.
    pub(super) fn queue_feed(&mut self, id: u32) {
        if !std::mem::replace(&mut self.feeds.get_mut(id).is_queued, true) {
            self.pump_queue.push_back(id);
        }
    }

    /// Queues a client that is behind; does nothing for a current one.
    pub(crate) fn queue_cursor<N: Net>(&mut self, io: &Io<N>, key: StreamKey) {
        let stream = io.connections.stream(key);
        if let Some(cursor) = self.cursors.get_mut(stream.cursor as usize)
            && !std::mem::replace(&mut cursor.is_queued, true)
        {
            let behind = &mut self.feeds.get_mut(stream.feed).behind;
            behind.ready.push_back(io.connections.token(key.key()));
            self.queue_ready(stream.feed);
        }
    }

    /// Queues the clients of a feed that have waited for a gathering.
    pub(super) fn queue_early(&mut self, id: u32) {
        let behind = &mut self.feeds.get_mut(id).behind;
        if !behind.early.is_empty() {
            behind.ready.extend(std::mem::take(&mut behind.early));
            self.queue_ready(id);
        }
    }

    fn queue_ready(&mut self, id: u32) {
        let behind = &mut self.feeds.get_mut(id).behind;
        if !std::mem::replace(&mut behind.is_queued, true) {
            self.cursor_queue.push_back(id);
        }
    }

    /// Counts bytes of the loop's own, as `bytes` before they were packed, if the
    /// client's stream is compressed.
    pub(super) fn add_own<N: Net>(&mut self, io: &Io<N>, key: StreamKey, bytes: &[u8]) {
        if self.feeds.get(io.connections.stream(key).feed).is_packed() {
            self.sums.add(key.key(), &Suffix::new(Sum::of(bytes)));
        }
    }

    /// Sets the one timer of a stream: for its next heartbeat, or, while it
    /// is behind, for when it has stalled; or for its end, if that is sooner.
    pub(super) fn set_timer<N: Net>(&self, io: &mut Io<N>, key: StreamKey) {
        let silent = io.silent_ticks(key.key());
        let wait = match self.waits_for_room(io, key) {
            false => self.heartbeat_ticks(io, key),
            true => Some(io.stall_ticks().max(silent + 1)),
        };
        let wait = wait.map(|ticks| ticks.saturating_sub(silent));
        let end = io.connections.stream(key).ends_in(io.turn.tick32());
        match wait.into_iter().chain(end.map(u64::from)).min() {
            Some(ticks) => io.set_timer_at(key.key(), io.turn.tick() + ticks),
            None => io.cancel_timer(key.key()),
        }
    }

    /// Whether a client is behind, and not only waits for the next gathering.
    pub(super) fn waits_for_room<N: Net>(&self, io: &Io<N>, key: StreamKey) -> bool {
        self.cursor(io, key).is_some_and(|cursor| !cursor.is_early)
    }

    /// The interval after which this client hears a heartbeat, in ticks: up
    /// to a quarter less than the channel's, by its key, so that clients that
    /// were written to together do not stay together. Only neighbours do, as many as are
    /// written together: they are next to each other in memory, here and in the kernel.
    pub(super) fn heartbeat_ticks<N: Net>(&self, io: &Io<N>, key: StreamKey) -> Option<u64> {
        let feed = self.feeds.get(io.connections.stream(key).feed);
        // What is beyond the wheel's reach, eight years, is as good as never.
        let ticks = (as_ms(feed.options.heartbeat?) / TICK_MS).min(u64::from(u32::MAX));
        let neighbourhood = key.key() / TOGETHER_MAX;
        let spread = (u64::from(neighbourhood.wrapping_mul(0x9e37_79b9)) * (ticks / 4)) >> 32;
        Some((ticks - spread).max(1))
    }
}
