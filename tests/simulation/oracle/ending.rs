//! How streams end by time, and what they receive last.

use pushwheel::DisconnectReason;

use super::{LastOfSink, Oracle, SLACK_MS, TICK_MS};
use crate::sse::Dispatched;

/// The delays with which streams end that come back.
const RETRY_MS: std::ops::Range<u64> = 2_000..10_000;

/// From when on a stream may end by time, and when it has to.
type Due = Option<(u64, u64)>;

impl Oracle {
    /// When a stream's credentials run out.
    pub(super) fn expiry(&self, number: usize) -> Due {
        let stream = &self.streams[number];
        let at_ms = stream.joined.as_ref()?.at_ms + stream.expires_ms?;
        Some((at_ms, at_ms))
    }

    /// When a stream is too old.
    pub(super) fn old_age(&self, number: usize) -> Due {
        let joined = self.streams[number].joined.as_ref()?;
        let age_ms = self.endings.age_ms?;
        Some((joined.at_ms + age_ms - age_ms / 4, joined.at_ms + age_ms))
    }

    /// Whether a stream may end as one whose time is up. A slow client has the
    /// time of a stall beyond that.
    pub(super) fn is_up(&self, due: Due) -> bool {
        let now = self.now();
        due.is_some_and(|(from, to)| {
            let to = to.max(self.jumped_at);
            now >= from && now <= to + self.stall_ms + 3 * TICK_MS + SLACK_MS
        })
    }

    /// Another engine serves the channels. The last one has no stream and no request left.
    pub fn restart(&mut self) {
        let now = self.now();
        let is_late = self.shutdown.is_some_and(|(_, deadline)| now >= deadline);
        self.began_at = now;
        self.shutdown = None;
        self.responders.clear();
        let sinks = self.streams.iter_mut().filter_map(|s| s.sink.as_mut());
        for sink in sinks.filter(|sink| sink.last.is_none()) {
            let ended = sink.handle.take().map(|handle| handle.ended());
            sink.last = Some(LastOfSink { ended, is_late });
        }
        self.count("engines that follow another");
    }

    /// Whether the engine that was there at `since` has begun to shut down.
    pub fn has_shut_down(&self, since: u64) -> bool {
        self.shutdown.is_some() || self.is_of_earlier_engine(since)
    }

    /// Whether the deadline of its shutdown has passed.
    pub fn is_past_deadline(&self, since: u64) -> bool {
        let now = self.now();
        self.is_of_earlier_engine(since)
            || self.shutdown.is_some_and(|(_, deadline)| now >= deadline)
    }

    fn is_of_earlier_engine(&self, since: u64) -> bool {
        self.began_at > 0 && since <= self.began_at
    }

    /// Checks that no stream outlives its time. In a shutdown, the deadline of that
    /// counts instead.
    pub(super) fn check_ages(&mut self) {
        if self.shutdown.is_some() {
            return;
        }
        let (now, rest_ms) = (self.now(), self.stall_ms + 3 * TICK_MS + SLACK_MS);
        let is_late = |number: &usize| {
            let stream = &self.streams[*number];
            // A client that receives its page has as long as it takes something.
            let taken_at = if stream.asks_for_page {
                stream.taken_at
            } else {
                0
            };
            let since = self.jumped_at.max(taken_at);
            let is_past = |due: Due| due.is_some_and(|(_, to)| now > to.max(since) + rest_ms);
            let is_old = is_past(self.expiry(*number)) || is_past(self.old_age(*number));
            is_old && stream.gone.is_none()
        };
        if let Some(late) = (0..self.streams.len()).find(is_late) {
            self.fail(format!("the time of stream {late} is up, and it is there"));
        }
    }

    pub(super) fn on_reauth(&mut self, number: usize, event: &Dispatched) {
        self.count("reauths");
        self.streams[number].is_reauth_reported = true;
        let is_up = self.expiry(number).is_some_and(|(at, _)| at <= self.now());
        if !is_up || event.data != r#"{"reason":"expired"}"# {
            self.fail(format!("stream {number} expires wrongly: {event:?}"));
        }
    }

    /// Checks that a stream that ends by time gets a reconnection time, if its client
    /// reads.
    pub(super) fn check_ending_event(&mut self, number: usize, retry_ms: Option<u64>) {
        let stream = &self.streams[number];
        let Some((reason, at)) = stream.gone else {
            return;
        };
        let rest_ms = self.stall_ms.saturating_sub(SLACK_MS);
        let is_in_time = |due: Due| due.is_some_and(|(from, _)| at < from + rest_ms);
        let is_owed = match reason {
            DisconnectReason::Expired => is_in_time(self.expiry(number)),
            DisconnectReason::Aged => is_in_time(self.old_age(number)),
            DisconnectReason::Shutdown => stream.shutdown.is_some_and(|(_, end)| at < end),
            _ => false,
        };
        let is_reported = retry_ms.is_some_and(|ms| RETRY_MS.contains(&ms));
        // A client that ended in that moment may receive both.
        let is_sent_away = matches!(
            reason,
            DisconnectReason::Kicked | DisconnectReason::Replaced | DisconnectReason::ChannelClosed
        );
        let is_reauth_reported = stream.is_reauth_reported && !is_sent_away;
        if is_owed && !is_reported {
            self.fail(format!(
                "stream {number} ended ({reason}) with {retry_ms:?}"
            ));
        }
        if is_reauth_reported != (reason == DisconnectReason::Expired)
            && (is_owed || is_reauth_reported)
        {
            let reported = if is_reauth_reported { "was" } else { "was not" };
            self.fail(format!(
                "stream {number} ended ({reason}), and {reported} reported to authenticate again"
            ));
        }
    }
}
