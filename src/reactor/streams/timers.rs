//! Streams in time: when a heartbeat is due, clients that take nothing, and ends by time.
//!
//! A stream ends by time when its credentials run out, at its age, and at its moment
//! in a shutdown. The soonest of these is a tick in the connection, and shares the one
//! timer with heartbeats and stalls. When it comes, the client is first sent what was
//! gathered for it until then, and last a few bytes that say when to come back. None
//! of these moves the client's `Last-Event-ID`, so it comes back to exactly where it
//! was, whether it has read the last bytes or not.

use std::time::Duration;

use super::Streams;
use super::cursor::End;
use crate::hub::client::DisconnectReason;
use crate::hub::clock::as_ms;
use crate::reactor::io::connection::{NONE, StreamKey};
use crate::reactor::io::net::Net;
use crate::reactor::io::{Gone, Io};
use crate::reactor::turn::TICK_MS;

/// What a subscriber may send before it is disconnected: so many reads, or so many KiB.
const STRIKES_MAX: u8 = 100;
const STRIKE_BYTES: usize = 1 << 10;

/// What a last write to a stalled client counts among the timers of a turn: it may
/// find room for a whole batch.
const RETRY_COST: usize = 16;

/// When a stream ends by time: after so many ticks, and why.
pub(super) type Deadline = Option<(u64, DisconnectReason)>;

impl Streams {
    /// When a stream of channels ends that begins now.
    pub(super) fn deadline<N: Net>(&self, io: &Io<N>, expires_in: Option<Duration>) -> Deadline {
        let expires = expires_in.map(|time| (as_ms(time), DisconnectReason::Expired));
        // Each has an age of its own, so that clients that came together do not
        // go together.
        let age_max = io.limits.stream_age_max;
        let age = (age_max < Duration::MAX).then(|| {
            let max_ms = as_ms(age_max);
            let less_ms = self.hub.random_below((max_ms / 4).saturating_add(1));
            (max_ms - less_ms, DisconnectReason::Aged)
        });
        let soonest = expires.into_iter().chain(age).min_by_key(|(ms, _)| *ms);
        soonest.map(|(ms, reason)| (io.turn.ticks_in(ms), reason))
    }

    /// In a shutdown each stream of channels has its moment within the window.
    /// A stream for one client cannot be resumed: it ends when its sink does,
    /// at the latest at the deadline.
    pub(crate) fn draw_moment<N: Net>(&self, io: &mut Io<N>, key: StreamKey) {
        let Some(drain) = io.turn.drain.as_ref().filter(|drain| drain.is_parting()) else {
            return;
        };
        if self.feeds.get(io.connections.stream(key).feed).is_private {
            return;
        }
        let left_ms = drain.ends_ms.saturating_sub(io.turn.now_ms);
        let moment_ms = match left_ms {
            0 => 0,
            left_ms => self.hub.random_below(left_ms),
        };
        let cursor = self.cursor(io, key);
        let ends_already = cursor.is_some_and(|cursor| cursor.end.is_some());
        if !ends_already {
            let ticks = moment_ms / TICK_MS;
            let stream = io.connections.stream_mut(key);
            stream.end_in(ticks, io.turn.tick32(), DisconnectReason::Shutdown);
            self.set_timer(io, key);
        }
    }

    /// A stream's timer: its end has come, a heartbeat is due, or a stalled
    /// client has had its time. The last two are counted from the last write,
    /// which did not move the timer. Returns what that counts among the timers of a
    /// turn.
    pub(crate) fn on_timer<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey) -> usize {
        let stream = io.connections.stream(key);
        if let Some(reason) = stream.ends_as
            && stream.ends_in(io.turn.tick32()) == Some(0)
        {
            self.begin_end(io, key, reason);
            return 1;
        }
        if self.has_stalled(io, key) {
            self.retry_stalled(io, key);
            return RETRY_COST;
        }
        let silent = io.silent_ticks(key.key());
        let interval = self.heartbeat_ticks(io, key);
        let is_due = interval.is_some_and(|ticks| silent >= ticks);
        match is_due && !self.waits_for_room(io, key) {
            true => self.queue_heartbeat(io, key),
            false => self.set_timer(io, key),
        }
        1
    }

    /// A subscriber has sent something, or has gone. What it sends is of no
    /// interest, but reading it is how its end is found.
    pub(crate) fn listen<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey) {
        let mut input = std::mem::take(&mut io.input);
        let reason = loop {
            match io.read(key.key(), &mut input) {
                Ok(None) => break None,
                Err(Gone) => break Some(DisconnectReason::Gone),
                Ok(Some(count)) => {
                    let strikes = u8::try_from(count / STRIKE_BYTES).unwrap_or(u8::MAX);
                    let stream = io.connections.stream_mut(key);
                    stream.strikes = stream.strikes.saturating_add(strikes.max(1));
                    if stream.strikes > STRIKES_MAX {
                        break Some(DisconnectReason::Misbehaved);
                    }
                }
            }
        };
        io.input = input;
        if let Some(reason) = reason {
            self.end(io, key, reason);
        }
    }

    /// A stream's time is up. What waits for it goes out first.
    fn begin_end<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey, reason: DisconnectReason) {
        if io.connections.stream(key).cursor == NONE {
            self.single_out(io, key);
        }
        let stream = *io.connections.stream(key);
        let cursor = &mut self.cursors[stream.cursor as usize];
        if cursor.end.is_some() {
            // It has had its time for that as well.
            return self.end(io, key, reason);
        }
        let drain = io.turn.drain.as_ref();
        let drain = drain.filter(|_| reason == DisconnectReason::Shutdown);
        let promised = drain.map_or(0, |drain| drain.through);
        let gathered = self.feeds.get(stream.feed).through;
        // What a joining client was promised comes before anything else.
        let through = gathered.max(promised).max(cursor.replay_through);
        let is_blocked = cursor.is_blocked;
        cursor.end = Some(End {
            through,
            reason,
            is_last_owed: false,
        });
        let rest_ms = match drain {
            Some(drain) => drain.deadline_ms.saturating_sub(io.turn.now_ms),
            None => as_ms(io.limits.stall_timeout),
        };
        let stream = io.connections.stream_mut(key);
        stream.ends_as = None;
        stream.end_in(io.turn.ticks_in(rest_ms), io.turn.tick32(), reason);
        self.set_timer(io, key);
        if !is_blocked {
            self.queue_cursor(io, key);
        }
    }

    /// Whether a client has taken nothing for too long, and may take nothing
    /// now: one that waits in the queue may have room.
    fn has_stalled<N: Net>(&self, io: &Io<N>, key: StreamKey) -> bool {
        let cursor = self.cursor(io, key);
        let is_stuck = cursor.is_some_and(|cursor| cursor.is_blocked && !cursor.is_queued);
        is_stuck && io.silent_ticks(key.key()) >= io.stall_ticks()
    }

    /// A client that took nothing has had its time. But it may have taken something:
    /// room is reported only once a third of the kernel's buffer is free, so it is
    /// written to once more. If it is gone, that is the reason.
    fn retry_stalled<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey) {
        let token = io.connections.token(key.key());
        self.listen(io, key);
        if io.connections.find(token).is_none() {
            return;
        }
        let slice = io.turn.budgets.buffer_bytes;
        self.run_cursor(io, key, slice);
        if io.connections.find(token).is_none() {
            return;
        }
        if self.has_stalled(io, key) {
            return self.end(io, key, DisconnectReason::Stalled);
        }
        self.set_timer(io, key);
    }
}
