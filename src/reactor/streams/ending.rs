//! How streams end by time: credentials that run out, a stream's age, and its
//! moment in a shutdown.
//!
//! Each is a tick in the connection, the soonest of them, and shares the one
//! timer with heartbeats and stalls. When it comes, the client is first sent
//! what was gathered for it until then, and last a few bytes that say when to
//! come back. Nothing of it moves the client's `Last-Event-ID`, so it comes
//! back to exactly where it was, whether it has read the last bytes or not.

use std::time::Duration;

use crate::frame::Frame;
use crate::hub::client::DisconnectReason;
use crate::reactor::io::connection::NONE;
use crate::reactor::io::net::Net;
use crate::reactor::streams::feed::{End, Owed};
use crate::reactor::streams::stream::retry_line;
use crate::reactor::{Reactor, TICK_MS, as_ms};

/// What a client is told whose credentials have run out.
const REAUTH_DATA: &str = r#"{"reason":"expired"}"#;

/// When a stream ends by time: after so many ticks, and why.
pub(crate) type Deadline = Option<(u64, DisconnectReason)>;

impl<N: Net> Reactor<N> {
    /// When a stream of channels ends that begins at this moment.
    pub(crate) fn deadline(&self, expires_in: Option<Duration>) -> Deadline {
        let expires = expires_in.map(|time| (as_ms(time), DisconnectReason::Expired));
        // Each has an age of its own, so that those who came together do not
        // go together.
        let age_max = self.limits.stream_age_max;
        let age = (age_max < Duration::MAX).then(|| {
            let max_ms = as_ms(age_max);
            let less_ms = self.hub.random_below((max_ms / 4).saturating_add(1));
            (max_ms - less_ms, DisconnectReason::Aged)
        });
        let soonest = expires.into_iter().chain(age).min_by_key(|(ms, _)| *ms);
        soonest.map(|(ms, reason)| (self.ticks_in(ms), reason))
    }

    /// In how many ticks a time is over that begins now, rounded up.
    pub(crate) fn ticks_in(&self, ms: u64) -> u64 {
        self.now_ms.saturating_add(ms).div_ceil(TICK_MS) - self.now_ms / TICK_MS
    }

    /// A stream's time is up. What waits for it goes out first.
    pub(crate) fn begin_end(&mut self, key: u32, reason: DisconnectReason) {
        let stream = *self.connections.stream(key);
        if stream.cursor == NONE {
            let seen = self.seen_by_current(key);
            let feed = self.feeds.get_mut(stream.feed);
            let moves = feed.remove_current(stream.index as usize);
            self.move_all(moves);
            self.fall_behind(key, seen, None, false);
        }
        let cursor = self.connections.stream(key).cursor as usize;
        let cursor = &mut self.cursors[cursor];
        if cursor.end.is_some() {
            // It has had its time for that as well.
            return self.close(key, reason);
        }
        let gathered = self.feeds.get(stream.feed).through;
        let promised = match reason {
            DisconnectReason::Shutdown => self.drain.as_ref().map_or(0, |drain| drain.through),
            // What a newcomer was promised comes before anything else.
            _ => 0,
        };
        let through = gathered.max(promised).max(cursor.replay_through);
        let is_blocked = cursor.is_blocked;
        cursor.end = Some(End {
            through,
            reason,
            is_said: false,
        });
        let rest = match (&self.drain, reason) {
            (Some(drain), DisconnectReason::Shutdown) => {
                drain.deadline_ms.saturating_sub(self.now_ms)
            }
            _ => as_ms(self.limits.stall_timeout),
        };
        let (now, ticks) = (self.tick32(), self.ticks_in(rest));
        let stream = self.connections.stream_mut(key);
        stream.ends_as = None;
        stream.end_in(ticks, now, reason);
        self.set_stream_timer(key);
        if !is_blocked {
            self.queue_cursor(key);
        }
    }

    /// Whether a client that is to end has been sent all that it is to be
    /// sent before.
    pub(crate) fn has_come_to_its_end(&self, key: u32) -> bool {
        let stream = self.connections.stream(key);
        let cursor = &self.cursors[stream.cursor as usize];
        let feed = self.feeds.get(stream.feed);
        let has_all_there_is = || {
            let is_newcomer = cursor.replay_through > cursor.seen;
            cursor.seen >= feed.through && !feed.has_news && !is_newcomer
        };
        cursor
            .end
            .as_ref()
            .is_some_and(|end| cursor.seen >= end.through || has_all_there_is())
    }

    /// Owes a client the last bytes of its stream.
    pub(crate) fn say_goodbye(&mut self, key: u32) {
        let retry_ms = self.retry_ms();
        let stream = *self.connections.stream(key);
        let cursor = &mut self.cursors[stream.cursor as usize];
        let Some(end) = &mut cursor.end else {
            return;
        };
        end.is_said = true;
        let last = match end.reason {
            DisconnectReason::Expired => {
                let retry = Duration::from_millis(retry_ms);
                let reauth = Frame::internal("pushwheel.reauth", None, Some(retry), REAUTH_DATA);
                reauth.as_bytes().to_vec()
            }
            _ => retry_line(retry_ms),
        };
        self.add_own(key, &last);
        let mut bytes = self.feeds.get(stream.feed).wrap(&last).into_owned();
        bytes.extend(self.end_of(key));
        self.cursors[stream.cursor as usize].owed = Some(Owed {
            frame: Frame::raw(&bytes),
            written: 0,
            channel_index: None,
        });
    }

    /// Ends the stream of a client that was sent everything. Where it is one of
    /// several channels that is over, the browser receives a delay after which
    /// it comes back, each another one.
    pub(crate) fn end_complete(&mut self, key: u32, reason: DisconnectReason) {
        match reason {
            DisconnectReason::Finished => self.close(key, reason),
            _ => self.end_with_retry(key, reason),
        }
    }

    /// Ends a connection in a shutdown whose deadline has come.
    pub(crate) fn see_off(&mut self, key: u32) {
        self.end_with_retry(key, DisconnectReason::Shutdown);
    }

    /// Ends a connection at once. A browser receives a delay after which it
    /// comes back, each another one, if there is room for that.
    fn end_with_retry(&mut self, key: u32, reason: DisconnectReason) {
        let retry_ms = self.retry_ms();
        let connection = self.connections.get_mut(key);
        if let crate::reactor::State::Stream(stream) = &connection.state
            && stream.cursor == NONE
        {
            let line = retry_line(retry_ms);
            let line = self.feeds.get(stream.feed).wrap(&line);
            // Whether it gets there is all the same: the connection ends.
            let written = self.net.write(&mut connection.socket, &line);
            if written.is_ok_and(|count| count == line.len()) {
                self.add_own(key, &retry_line(retry_ms));
            }
        }
        self.close(key, reason);
    }
}
