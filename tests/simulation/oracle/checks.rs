//! What must hold at any time, and in the end.

use super::{Oracle, SLACK_MS, Topic};

/// What remembering the few keys that there are may take.
const MISSING_BYTES_MAX: usize = 4 * 100;

impl Oracle {
    pub fn check_counts(&mut self) {
        self.note_the_over();
        self.check_outcomes();
        self.check_the_gone();
        self.check_the_complete();
        self.check_ages();
        let mut total = 0;
        let mut wrong = None;
        for topic in &self.topics {
            let count = topic.channel.client_count();
            if count != topic.members.len() {
                wrong = Some(format!(
                    "{} has {count} clients, not {}",
                    topic.name,
                    topic.members.len()
                ));
            }
            total += count;
        }
        if self.manager.total_clients() != total {
            wrong = Some(format!(
                "there are {} clients in all, not {total}",
                self.manager.total_clients()
            ));
        }
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
    }

    /// Checks, before the engine sleeps, that each disconnected client has gone.
    pub fn check_the_sent_away(&mut self) {
        self.sent_away
            .retain(|number| self.streams[*number].gone.is_none());
        if let Some(number) = self.sent_away.first() {
            self.fail(format!("stream {number} was sent away, and is there"));
        }
    }

    /// Checks that clients which have gone are soon no longer counted.
    fn check_the_gone(&mut self) {
        let (now, jumped_at) = (self.now(), self.jumped_at);
        let members = self.topics.iter().flat_map(|topic| topic.members.values());
        let is_forgotten = |number: &&usize| {
            let stream = &self.streams[**number];
            let joined_at = stream.joined.as_ref().map_or(0, |joined| joined.at_ms);
            stream.is_over_at.is_some_and(|at| {
                now > at
                    .max(joined_at)
                    .max(jumped_at)
                    .saturating_add(2 * SLACK_MS)
            })
        };
        if let Some(number) = members.copied().find(|number| is_forgotten(&number)) {
            self.fail(format!("stream {number} is over, and still counted"));
        }
    }

    /// A client that has everything of its finished channels has gone, and one
    /// of several channels of which one is over; and a channel without clients
    /// and name is forgotten.
    fn check_the_complete(&mut self) {
        let now = self.now();
        let mut wrong = None;
        let members = self.topics.iter().flat_map(|topic| topic.members.values());
        for number in members.copied() {
            let stream = &self.streams[number];
            let topics = || stream.topics.iter().map(|topic| &self.topics[*topic]);
            let all_finished_at = match topics().all(Topic::is_finished) {
                true => topics().filter_map(|topic| topic.finished_at).max(),
                false => None,
            };
            let over_at = topics().filter_map(|topic| topic.over_at).min();
            let Some(ends_at) = all_finished_at.or(over_at) else {
                continue;
            };
            let has_all = stream.position.is_some() && self.missing(number, u64::MAX).is_none();
            let joined_at = stream.joined.as_ref().map_or(0, |joined| joined.at_ms);
            let since = [ends_at, joined_at, self.jumped_at, stream.taken_at];
            let since = since.into_iter().max().unwrap_or(0);
            // The next gathering finds the end, which waits for the pace.
            let patience_ms = self.pace_ms(number) + SLACK_MS;
            if has_all && !stream.is_blocked && !stream.is_cut && now > since + patience_ms {
                let names: Vec<_> = topics()
                    .map(|t| (&t.name, t.finished_at, t.over_at))
                    .collect();
                wrong = Some(format!(
                    "stream {number} has everything of {names:?}, and is there"
                ));
            }
        }
        let mut over = self.topics.iter().filter(|topic| topic.over_at.is_some());
        if let Some(topic) = over.find(|t| t.members.is_empty() && t.channel.stats().is_some()) {
            wrong = Some(format!(
                "{} is over, has no clients, and is there",
                topic.name
            ));
        }
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
    }

    /// Checks, when the engine has no work, that no log holds events that no client needs.
    pub fn check_logs(&mut self) {
        let mut wrong = Vec::new();
        for topic in self.topics.iter().filter(|topic| !topic.is_closed()) {
            let Some(stats) = topic.channel.stats() else {
                continue;
            };
            let kept = topic.plan.kept();
            let largest = topic
                .entries
                .iter()
                .map(|entry| self.published[*entry].bytes_max)
                .max();
            let history_max = if kept.is_none() { 0 } else { kept.bytes_max };
            let least = topic.plan.backlog_bytes_max.max(largest.unwrap_or(0));
            let (mut kept_max, mut bytes_max) = (history_max, history_max.max(least));
            let mut events_max = kept.events_max;
            if topic.plan.conflates() {
                let keyed = topic.plan.keyed;
                events_max = events_max.saturating_add(keyed.keys_max);
                kept_max += keyed.bytes_max + MISSING_BYTES_MAX;
                bytes_max += keyed.bytes_max.max(least) + MISSING_BYTES_MAX;
            }
            let (events, bytes) = (stats.history_events, stats.history_bytes);
            if bytes > bytes_max {
                wrong.push(format!(
                    "the log of {} holds {bytes} bytes of {bytes_max}",
                    topic.name
                ));
            }
            let is_awaited = topic.members.values().any(|stream| {
                let state = &self.streams[*stream];
                // The loop does not read the socket of a client that has left.
                let has_left = state.is_over_at.is_some_and(|at| at < u64::MAX);
                // Within the pace nothing is gathered, for whichever client it is.
                let newest = topic.entries.last().map(|n| self.published[*n].at_ms);
                let is_paced =
                    newest.is_some_and(|at| self.now() <= at + self.pace_ms(*stream) + SLACK_MS);
                (is_paced && self.pace_ms(*stream) > 0)
                    || state.is_blocked
                    || has_left
                    || state.position.is_none()
                    || self.missing(*stream, u64::MAX).is_some()
            });
            if !is_awaited && (events > events_max || bytes > kept_max) {
                let (name, max) = (&topic.name, events_max);
                wrong.push(format!("the log of {name} holds {events} events ({bytes} bytes) that no client needs, beyond {max}"));
            }
        }
        for wrong in wrong {
            self.fail(wrong);
        }
    }

    /// The engine has failed, and is gone: every client has its reason, and every sink.
    pub fn check_failure(&mut self) {
        let sinks = self
            .streams
            .iter()
            .filter_map(|s| s.sink.as_ref()?.handle.as_ref());
        if sinks.clone().any(|sink| sink.ended().is_none()) {
            self.fail("a sink does not know that its engine has failed");
        }
        self.check_all_gone();
    }

    /// All is over.
    pub fn check_end(&mut self) {
        self.check_keys();
        self.check_counts();
        self.check_logs();
        self.check_all_gone();
    }

    fn check_all_gone(&mut self) {
        let left = self
            .streams
            .iter()
            .position(|s| s.joined.is_some() && s.gone.is_none());
        if let Some(number) = left {
            self.fail(format!(
                "on_disconnect was never called for stream {number}"
            ));
        }
        if self.manager.total_clients() != 0 {
            self.fail("clients are left");
        }
    }
}
