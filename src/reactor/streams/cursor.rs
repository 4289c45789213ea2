//! Clients that are behind, each with a cursor of its own.
//!
//! A cursor goes on where its client is: what is owed of a torn frame first,
//! then what the logs hold for it, in batches, until the client can take no
//! more or has caught up and is one of the many again.

use crate::frame::Frame;
use crate::hub::batch::Batch;
use crate::hub::client::DisconnectReason;
use crate::hub::options::LagPolicy;
use crate::hub::{ChannelReader, Lag, Read, Span};
use crate::packed::{Suffix, Sum};
use crate::reactor::Reactor;
use crate::reactor::budgets::ROUND_BYTES;
use crate::reactor::http::opening::write_id;
use crate::reactor::http::serving::is_transient;
use crate::reactor::io::net::Net;
use crate::reactor::streams::feed::Owed;

impl<N: Net> Reactor<N> {
    /// Takes a client that is behind as far as it goes, or as its budget
    /// lasts.
    pub(crate) fn run_cursor(&mut self, key: u32) {
        for round in 0..self.budgets.rounds_a_turn {
            // The first one is in any case: a timer has to know whether the client
            // takes anything.
            if round > 0 && self.cursor_bytes_left == 0 {
                break;
            }
            self.charge(ROUND_BYTES);
            if !self.pay(key) {
                return;
            }
            let stream = *self.connections.stream(key);
            let has_ended = self.has_come_to_its_end(key);
            let reader = self.connection_id(key);
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
                if feed.is_packed {
                    self.sums.add(key, &Suffix::new(Sum::of(&bytes)));
                }
                cursor.owed = Some(Owed {
                    frame: feed.own_frame(&bytes),
                    written: 0,
                    channel_index: None,
                });
                continue;
            }
            if let Some(end) = &cursor.replay_end {
                through = through.min(end.after);
            }
            if let Some(end) = &cursor.end {
                if end.is_said {
                    let reason = end.reason;
                    return self.close(key, reason);
                }
                if has_ended {
                    self.say_goodbye(key);
                    continue;
                }
                through = through.min(end.through);
            }
            // Others may have published in the meantime, which is not gathered
            // yet, and was before it came.
            let is_newcomer = cursor.replay_through > seen;
            let may_stay = cursor.end.is_none();
            if seen == feed.through && !is_newcomer && may_stay {
                return self.catch_up(key);
            }
            if seen >= feed.through {
                // It knows more than was gathered, or will: the next gathering
                // is for it too.
                cursor.is_blocked = false;
                cursor.is_early = true;
                feed.early.push(self.connections.token(key));
                feed.has_news = true;
                self.set_stream_timer(key);
                return self.queue_feed(stream.feed);
            }
            let single = [ChannelReader {
                slot: stream.reader,
                forgiven: cursor.forgiven,
            }];
            let readers = match &*feed.channels {
                [_] => &single[..],
                _ => &self.readers[stream.reader as usize],
            };
            let mut batch = std::mem::take(&mut self.scratch);
            let span = Span {
                seen,
                through,
                keyed_through: cursor.keyed_through,
            };
            let read = self.hub.read(
                feed.source(),
                readers,
                reader,
                span,
                self.budgets.buffer_bytes,
                &mut batch,
            );
            let goes_on = match read {
                Read::Through(reached) => {
                    self.charge(batch.len().saturating_sub(ROUND_BYTES));
                    self.write_batch(key, &batch, reached)
                }
                Read::Lagged(lag) => self.leap(key, lag),
                Read::Departed => false,
                Read::Closed => {
                    self.close(key, DisconnectReason::ChannelClosed);
                    false
                }
            };
            batch.clear();
            self.scratch = batch;
            if !goes_on {
                return;
            }
        }
        self.queue_cursor(key);
    }

    /// Draws from the turn's budget for clients that are behind.
    fn charge(&mut self, bytes: usize) {
        self.cursor_bytes_left = self.cursor_bytes_left.saturating_sub(bytes);
    }

    /// Writes the rest of the frame of which the client has the beginning.
    /// Says whether it is all out.
    fn pay(&mut self, key: u32) -> bool {
        let tick = self.tick32();
        let stream = *self.connections.stream(key);
        let cursor = &mut self.cursors[stream.cursor as usize];
        let Some(owed) = &mut cursor.owed else {
            return true;
        };
        let connection = self.connections.get_mut(key);
        let rest = &owed.frame.as_bytes()[owed.written..];
        let is_limited = self.feeds.get(stream.feed).limits_unsent;
        match self
            .net
            .write_events(&mut connection.socket, rest, is_limited)
        {
            Ok(count) if count == rest.len() => {
                connection.written_at = tick;
                cursor.is_blocked = false;
                let channel_index = owed.channel_index;
                cursor.owed = None;
                if let Some(channel_index) = channel_index {
                    self.feeds.get_mut(stream.feed).delivered[channel_index] += 1;
                    self.note_progress(stream.feed);
                }
                true
            }
            Ok(count) => {
                owed.written += count;
                self.block(key, count);
                false
            }
            Err(error) if is_transient(&error) => {
                self.block(key, 0);
                false
            }
            Err(_) => {
                self.close(key, DisconnectReason::Gone);
                false
            }
        }
    }

    /// Writes what a cursor has read. Says whether the client can take more.
    fn write_batch(&mut self, key: u32, batch: &Batch, reached: u64) -> bool {
        let tick = self.tick32();
        let stream = *self.connections.stream(key);
        let cursor = &mut self.cursors[stream.cursor as usize];
        if batch.is_empty() {
            cursor.seen = reached;
            cursor.is_blocked = false;
            return true;
        }
        let connection = self.connections.get_mut(key);
        let (socket, bytes) = (&mut connection.socket, batch.as_bytes());
        let is_limited = self.feeds.get(stream.feed).limits_unsent;
        let written = match self.net.write_events(socket, bytes, is_limited) {
            Ok(count) => count,
            Err(error) if is_transient(&error) => 0,
            Err(_) => {
                self.close(key, DisconnectReason::Gone);
                return false;
            }
        };
        let (whole, torn) = batch.split(written);
        if self.feeds.get(stream.feed).is_packed {
            let begun = torn.map(|(piece, _)| piece);
            self.sums.add_all(key, whole.iter().chain(begun));
        }
        let delivered = &mut self.feeds.get_mut(stream.feed).delivered;
        for piece in whole {
            cursor.seen = piece.sequence;
            delivered[piece.channel_index] += 1;
        }
        cursor.owed = torn.map(|(piece, written)| {
            cursor.seen = piece.sequence;
            Owed {
                frame: piece.frame.clone(),
                written,
                channel_index: Some(piece.channel_index),
            }
        });
        let is_all_out = written == batch.len();
        if is_all_out {
            connection.written_at = tick;
            cursor.seen = reached;
            cursor.is_blocked = false;
        } else {
            self.block(key, written);
        }
        self.note_progress(stream.feed);
        is_all_out
    }

    /// A client has fallen off the log: it is disconnected, or gets a gap event
    /// and goes on elsewhere. Returns whether it goes on.
    fn leap(&mut self, key: u32, lag: Lag) -> bool {
        let stream = *self.connections.stream(key);
        let feed = self.feeds.get_mut(stream.feed);
        if feed.options.lag_policy == LagPolicy::Disconnect {
            self.close(key, DisconnectReason::Lagged);
            return false;
        }
        feed.gaps += 1;
        // Where it goes on may be behind where it was.
        feed.floor = feed.floor.min(lag.seen);
        let id = self.hub.id_of(lag.seen).to_string();
        let gap = Frame::internal("pushwheel.gap", Some(&id), None, &lag.gap);
        if feed.is_packed {
            self.sums.add(key, &Suffix::new(Sum::of(gap.as_bytes())));
        }
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
        cursor.owed = Some(Owed {
            frame: feed.own_frame(gap.as_bytes()),
            written: 0,
            channel_index: None,
        });
        true
    }
}
