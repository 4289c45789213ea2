//! Heartbeats: those that are due in a turn and have the same bytes are written together.

use std::mem;

use super::Streams;
use super::beat::{Beat, Heartbeats};
use crate::hub::client::DisconnectReason;
use crate::hub::clock::as_ms;
use crate::reactor::io::connection::{NONE, StreamKey};
use crate::reactor::io::net::{Exception, Net};
use crate::reactor::io::{Gone, Io};
use crate::reactor::streams::feed::wrap;
use crate::reactor::turn::{TICK_MS, Turn};

/// The most heartbeats that are written together.
pub(super) const TOGETHER_MAX: u32 = 64;

impl Streams {
    /// Writes the heartbeats that wait. They wait from one timer to the next: nothing
    /// else may happen to their clients before.
    #[inline(always)]
    pub(crate) fn write_heartbeats<N: Net>(&mut self, io: &mut Io<N>) {
        if !self.heartbeats.keys.is_empty() {
            self.write_waiting_heartbeats(io);
        }
    }

    fn write_waiting_heartbeats<N: Net>(&mut self, io: &mut Io<N>) {
        let mut waiting = mem::take(&mut self.heartbeats);
        let Heartbeats {
            bytes,
            is_packed,
            keys,
        } = &mut waiting;
        let heartbeat = wrap(bytes, *is_packed);
        io.meters.heartbeats.add(keys.len() as u64);
        io.write_to_all(keys, &heartbeat, false, &mut self.exceptions);
        // From the last to the first, as they are removed.
        while let Some(Exception { index, outcome }) = self.exceptions.pop() {
            let key = keys.swap_remove(index);
            self.add_own(io, key, bytes);
            match outcome {
                Ok(count) => self.owe_heartbeat(io, key, bytes, count),
                Err(Gone) => self.end(io, key, DisconnectReason::Gone),
            }
        }
        let full = heartbeat.len() as u64 * keys.len() as u64;
        io.count_written(full);
        for key in keys.drain(..) {
            self.add_own(io, key, bytes);
            self.set_timer(io, key);
        }
        self.heartbeats = waiting;
    }

    /// Has a client sent a heartbeat with the next that are written.
    pub(super) fn queue_heartbeat<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey) {
        let stream = *io.connections.stream(key);
        let named = match stream.names_position && stream.cursor == NONE {
            true => {
                let written_at = io.connections.get(key.key()).written_at;
                self.position_bytes(&io.turn, stream.feed, written_at)
            }
            false => None,
        };
        let feed = self.feeds.get(stream.feed);
        let bytes = named.as_deref().unwrap_or(feed.heartbeat());
        let is_packed = feed.is_packed();
        let waiting = &self.heartbeats;
        let is_same = waiting.bytes == bytes && waiting.is_packed == is_packed;
        if !is_same || waiting.keys.len() == TOGETHER_MAX as usize {
            self.write_heartbeats(io);
            self.heartbeats.bytes.clear();
            self.heartbeats.bytes.extend_from_slice(bytes);
            self.heartbeats.is_packed = is_packed;
        }
        self.heartbeats.keys.push(key);
    }

    /// Returns the block that names the position of a feed's current clients, if there is
    /// one to name and a client that was written to at `written_at` last does not know it.
    fn position_bytes(&mut self, turn: &Turn, id: u32, written_at: u32) -> Option<Vec<u8>> {
        let feed = self.feeds.get_mut(id);
        let interval = as_ms(feed.options.heartbeat?) / TICK_MS;
        // Some current clients may not have what was gathered; and the next event for
        // one that was sent away is not for it.
        if feed.delivery.is_some() || feed.leaving > 0 {
            return None;
        }
        let (tick, through) = (turn.tick32(), feed.through);
        let beat = feed.beat.get_or_insert_with(|| Box::new(Beat::new()));
        if beat.is_over(tick, interval, through) {
            let position = self.hub.quiet_through(&feed.channels, through);
            beat.renew(tick, position, |position| self.hub.id_of(position).text());
        }
        beat.bytes(written_at).map(<[u8]>::to_vec)
    }

    /// A heartbeat did not fit into the socket: the client is behind by that.
    fn owe_heartbeat<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: StreamKey,
        bytes: &[u8],
        written: usize,
    ) {
        let stream = *io.connections.stream(key);
        let feed = self.feeds.get(stream.feed);
        let owed = feed.owe(bytes, written);
        if let Some(cursor) = self.cursors.get_mut(stream.cursor as usize) {
            cursor.owed = Some(owed);
            cursor.is_early = false;
            return self.block(io, key, written);
        }
        let seen = self.take_current(io, key);
        self.fall_behind(io, key, seen, Some(owed), true);
    }
}
