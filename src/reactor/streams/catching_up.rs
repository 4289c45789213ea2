//! Clients that are behind, each with a cursor of its own.
//!
//! A cursor goes on where its client is: what is owed of a torn frame first,
//! then what the logs hold for it, in batches, until the client can take no
//! more or has caught up and is current again.

use super::Streams;
use super::cursor::{End, Owed, write_id};
use super::pages::bytes_of;
use crate::frame::Frame;
use crate::hub::batch::Batch;
use crate::hub::client::{CAUGHT_UP, DisconnectReason};
use crate::hub::gap::GAP_NAME;
use crate::hub::options::LagPolicy;
use crate::hub::{ChannelReader, Form, Lag, Read, Span};
use crate::reactor::budgets::ROUND_BYTES;
use crate::reactor::io::connection::{NONE, StreamKey};
use crate::reactor::io::net::Net;
use crate::reactor::io::{Gone, Io};

/// What a round of a cursor comes to.
enum Round {
    /// A frame is owed, and goes out first.
    Owes,
    /// There may be something to read.
    Reads(Span),
    /// The client is not to be written to: it is current, early or gone.
    Over,
}

impl Streams {
    /// Continues with the clients that are behind, one of each feed in turn, as far
    /// as the turn's budget goes: a thousand clients that resume one channel do not
    /// hold up a client of another.
    pub(crate) fn run_cursors<N: Net>(&mut self, io: &mut Io<N>) {
        while io.turn.may_read() {
            let Some(id) = self.cursor_queue.pop_front() else {
                return;
            };
            io.turn.spent.taken[2] += 1;
            let Some(feed) = self.feeds.slots.get_mut(id as usize) else {
                continue;
            };
            let token = feed.behind.ready.pop_front();
            feed.behind.is_queued = !feed.behind.ready.is_empty();
            if feed.behind.is_queued {
                self.cursor_queue.push_back(id);
            }
            let key = token.and_then(|token| io.connections.find_stream(token));
            if let Some(key) = key
                && let Some(cursor) = self.cursor_mut(io, key)
            {
                cursor.is_queued = false;
                // While no other feed waits, a client goes on: its events are at hand.
                let slice = match self.cursor_queue.front() {
                    Some(other) if *other != id => io.turn.budgets.buffer_bytes,
                    _ => usize::MAX,
                };
                self.run_cursor(io, key, slice);
            }
        }
    }

    /// Takes a client that is behind as far as it goes, or as its budget lasts: about
    /// `slice` bytes.
    pub(super) fn run_cursor<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey, slice: usize) {
        let end = io.turn.spent.cursor_bytes.saturating_add(slice);
        for round in 0..io.turn.budgets.rounds_a_turn {
            // The first one is in any case: a timer has to know whether the client
            // takes anything.
            if round > 0 && (!io.turn.may_read() || io.turn.spent.cursor_bytes >= end) {
                break;
            }
            io.turn.spent.cursor_bytes += ROUND_BYTES;
            if !self.flush_owed(io, key) {
                return;
            }
            let goes_on = match self.begin_round(io, key) {
                Round::Owes => true,
                Round::Reads(span) => self.read(io, key, span),
                Round::Over => false,
            };
            if !goes_on {
                return;
            }
        }
        self.queue_cursor(io, key);
    }

    /// Finds out what a client is to be sent that owes nothing.
    fn begin_round<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey) -> Round {
        let stream = *io.connections.stream(key);
        let has_ended = self.has_come_to_its_end(io, key);
        let feed = self.feeds.get_mut(stream.feed);
        let cursor = &mut self.cursors[stream.cursor as usize];
        cursor.is_early = false;
        let seen = cursor.seen;
        let mut through = feed.through;
        if let Some(end) = cursor.replay_end.take_if(|end| seen >= end.after) {
            // The client has everything up to `seen`, which is beyond the replay
            // if it fell off the log.
            let mut bytes = Vec::new();
            if end.has_id {
                write_id(&self.hub.id_of(seen).to_string(), &mut bytes);
            }
            bytes.extend_from_slice(&end.welcome);
            cursor.owed = Some(feed.owe(&bytes, 0));
            self.add_own(io, key, &bytes);
            return Round::Owes;
        }
        if let Some(end) = &cursor.replay_end {
            through = through.min(end.after);
        }
        if let Some(end) = &cursor.end {
            if end.is_last_owed {
                let reason = end.reason;
                self.end(io, key, reason);
                return Round::Over;
            }
            if has_ended {
                self.owe_last(io, key);
                return Round::Owes;
            }
            through = through.min(end.through);
        }
        // Other threads may have published meanwhile what is not gathered yet, and
        // was there before the client came.
        let is_joining = cursor.replay_through > seen;
        let may_stay = cursor.end.is_none();
        if seen == feed.through && !is_joining && may_stay {
            self.catch_up(io, key);
            return Round::Over;
        }
        if seen >= feed.through {
            // It knows more than was gathered, or will: the next gathering
            // is for it too.
            cursor.is_blocked = false;
            cursor.is_early = true;
            feed.behind.early.push(io.connections.token(key.key()));
            feed.news.is_there = true;
            self.set_timer(io, key);
            self.queue_feed(stream.feed);
            return Round::Over;
        }
        Round::Reads(Span {
            seen,
            through,
            keyed_through: cursor.keyed_through,
        })
    }

    /// Whether a client that is to end has been sent all that it is to be
    /// sent before.
    fn has_come_to_its_end<N: Net>(&self, io: &Io<N>, key: StreamKey) -> bool {
        let stream = io.connections.stream(key);
        let cursor = &self.cursors[stream.cursor as usize];
        let feed = self.feeds.get(stream.feed);
        let has_all_there_is = || {
            let is_joining = cursor.replay_through > cursor.seen;
            let has_news = feed.news.is_there || self.spread.has_news;
            cursor.seen >= feed.through && !has_news && !is_joining
        };
        let end = cursor.end.as_ref();
        end.is_some_and(|end| cursor.seen >= end.through || has_all_there_is())
    }

    /// Reads what is next for a client, and writes it. Returns whether it can take
    /// more.
    fn read<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey, span: Span) -> bool {
        let stream = *io.connections.stream(key);
        let feed = self.feeds.get(stream.feed);
        if feed.form == Form::Page {
            return self.read_page(io, key, span);
        }
        let single = [ChannelReader {
            slot: stream.reader,
            forgiven: self.cursors[stream.cursor as usize].forgiven,
        }];
        let readers = match &*feed.channels {
            [_] => &single[..],
            _ => &self.readers[stream.reader as usize],
        };
        let mut batch = std::mem::take(&mut self.scratch);
        let read = self.hub.read(
            feed.source(),
            readers,
            io.connection_id(key.key()),
            span,
            io.turn.budgets.buffer_bytes,
            &mut batch,
        );
        let goes_on = match read {
            Read::Through(reached) => {
                io.turn.spent.cursor_bytes += batch.len().saturating_sub(ROUND_BYTES);
                self.write_batch(io, key, &batch, reached)
            }
            Read::Lagged(lag) => self.skip_gap(io, key, lag),
            Read::Departed => false,
            Read::Closed => {
                self.end(io, key, DisconnectReason::ChannelClosed);
                false
            }
        };
        batch.clear();
        self.scratch = batch;
        goes_on
    }

    /// Reads the page that a client waits for, and owes it to the client, if there is
    /// anything on it. Returns whether the client goes on.
    fn read_page<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey, span: Span) -> bool {
        let page = match self.page(io, key, span) {
            Ok(page) => page,
            Err(Read::Closed) => {
                self.end(io, key, DisconnectReason::ChannelClosed);
                return false;
            }
            Err(_) => return false,
        };
        let stream = *io.connections.stream(key);
        let cursor = &mut self.cursors[stream.cursor as usize];
        cursor.seen = page.reached;
        if page.is_empty() {
            cursor.is_blocked = false;
            return true;
        }
        let bytes = bytes_of(&page);
        io.turn.spent.cursor_bytes += bytes.len();
        cursor.owed = Some(Owed::own(Frame::raw(&bytes), 0));
        cursor.replay_end = None;
        cursor.end = Some(End {
            through: page.reached,
            reason: DisconnectReason::Answered,
            is_last_owed: true,
        });
        let feed = self.feeds.get_mut(stream.feed);
        for event in &page.events {
            feed.unreported.delivered[event.channel_index] += 1;
        }
        self.note_progress(stream.feed);
        // From now on it has as long as it takes something.
        io.connections.stream_mut(key).ends_as = None;
        self.set_timer(io, key);
        true
    }

    /// Writes the rest of the frame of which the client has the beginning.
    /// Returns whether it is all out.
    fn flush_owed<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey) -> bool {
        let stream = *io.connections.stream(key);
        let cursor = &mut self.cursors[stream.cursor as usize];
        let Some(owed) = &mut cursor.owed else {
            return true;
        };
        let feed = self.feeds.get_mut(stream.feed);
        let rest = &owed.frame.as_bytes()[owed.written..];
        let written = io.write_events(key.key(), rest, feed.limits_unsent);
        io.turn.spent.cursor_bytes += written.unwrap_or(0).saturating_sub(ROUND_BYTES);
        match written {
            Ok(count) if count == rest.len() => {
                io.connections.get_mut(key.key()).written_at = io.turn.tick32();
                cursor.is_blocked = false;
                let channel_index = owed.channel_index;
                cursor.owed = None;
                if let Some(channel_index) = channel_index {
                    feed.unreported.delivered[channel_index] += 1;
                    self.note_progress(stream.feed);
                }
                true
            }
            Ok(count) => {
                owed.written += count;
                self.block(io, key, count);
                false
            }
            Err(Gone) => {
                self.end(io, key, DisconnectReason::Gone);
                false
            }
        }
    }

    /// Writes what a cursor has read. Returns whether the client can take more.
    fn write_batch<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: StreamKey,
        batch: &Batch,
        reached: u64,
    ) -> bool {
        let stream = *io.connections.stream(key);
        let cursor = &mut self.cursors[stream.cursor as usize];
        if batch.is_empty() {
            cursor.seen = reached;
            cursor.is_blocked = false;
            return true;
        }
        let feed = self.feeds.get_mut(stream.feed);
        let Ok(written) = io.write_events(key.key(), batch.as_bytes(), feed.limits_unsent) else {
            self.end(io, key, DisconnectReason::Gone);
            return false;
        };
        let (whole, torn) = batch.split(written);
        if feed.is_packed() {
            let begun = torn.map(|(piece, _)| piece);
            self.sums.add_all(key.key(), whole.iter().chain(begun));
        }
        for piece in whole {
            cursor.seen = piece.sequence;
            feed.unreported.delivered[piece.channel_index] += 1;
        }
        cursor.owed = torn.map(|(piece, written)| {
            cursor.seen = piece.sequence;
            Owed::torn(piece, written)
        });
        let is_all_out = written == batch.len();
        if is_all_out {
            io.connections.get_mut(key.key()).written_at = io.turn.tick32();
            cursor.seen = reached;
            cursor.is_blocked = false;
        } else {
            self.block(io, key, written);
        }
        self.note_progress(stream.feed);
        is_all_out
    }

    /// A client has fallen off the log: it is disconnected, or gets a gap event
    /// and goes on elsewhere. Returns whether it goes on.
    fn skip_gap<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey, lag: Lag) -> bool {
        let stream = *io.connections.stream(key);
        let feed = self.feeds.get_mut(stream.feed);
        if feed.options.lag_policy == LagPolicy::Disconnect {
            self.end(io, key, DisconnectReason::Lagged);
            return false;
        }
        feed.unreported.gaps += 1;
        // Where it goes on may be behind where it was.
        self.lower_floor(stream.feed, lag.seen, lag.seen);
        let id = self.hub.id_of(lag.seen).to_string();
        let gap = Frame::internal(GAP_NAME, Some(&id), None, &lag.gap.to_string());
        let cursor = &mut self.cursors[stream.cursor as usize];
        match &*lag.forgiven {
            [only] => cursor.forgiven = *only,
            all => {
                let readers = self.readers[stream.reader as usize].iter_mut();
                for (reader, forgiven) in readers.zip(all) {
                    reader.forgiven = *forgiven;
                }
            }
        }
        cursor.seen = lag.seen;
        cursor.keyed_through = lag.keyed_through;
        cursor.owed = Some(self.feeds.get(stream.feed).owe(gap.as_bytes(), 0));
        self.add_own(io, key, gap.as_bytes());
        true
    }

    /// A client has seen everything that was gathered: it is current again.
    fn catch_up<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey) {
        let stream = *io.connections.stream(key);
        if self.cursors.remove(stream.cursor as usize).is_noted {
            self.note_position(io, key, CAUGHT_UP);
        }
        io.connections.stream_mut(key).cursor = NONE;
        self.feeds.count_behind(stream.feed, false);
        let feed = self.feeds.get_mut(stream.feed);
        let ends = feed.ends.filter(|_| feed.delivery.is_none());
        let moves = feed.remove_behind(stream.index as usize);
        Self::apply(io, moves);
        self.add_current(io, key);
        self.note_progress(stream.feed);
        match ends {
            Some(reason) => self.end_complete(io, key, reason),
            None => self.set_timer(io, key),
        }
    }
}
