//! What clients read, against what they should.

use pushwheel::{DisconnectReason, Sink};

use std::collections::BTreeMap;

use super::{Audience, GAP, Oracle, Publication, REAUTH, Stream, Want};
use crate::sse::Dispatched;

impl Oracle {
    /// The stream has said an id, but no event with it: where it begins.
    pub fn on_id(&mut self, number: usize, id: &str) {
        if let Some(at) = self.parse(id) {
            return self.begin(number, at);
        }
        let stream = &self.streams[number];
        let own = self.events_of(stream, id).map(|event| event.sequence).min();
        let Some(at) = own.filter(|_| !self.is_doubtful(stream, id)) else {
            return self.fail(format!("stream {number} begins at {id:?}, which is no id"));
        };
        if stream.want != Want::Live {
            return self.begin(number, at);
        }
        // It leads to where the stream begins if nothing came between.
        let through = stream.position.unwrap_or(at);
        let missed = self
            .between(at, through)
            .find(|event| stream.topics.contains(&event.topic))
            .map(|event| event.id.clone());
        if let Some(missed) = missed {
            self.fail(format!("stream {number} begins at {id:?}, before {missed}"));
        }
        if self.streams[number].position.is_none() {
            self.begin(number, at);
        }
    }

    /// The stream has said an id after its replay, of which the last event may have
    /// a doubtful own id.
    pub fn on_final_id(&mut self, number: usize, id: &str) {
        self.count("ids after a replay");
        let stream = &self.streams[number];
        let (Some(at), Some(joined)) = (self.parse(id), &stream.joined) else {
            return self.fail(format!("stream {number} has the id {id:?} in between"));
        };
        let mut wrong = None;
        if !stream.accepts_ids {
            wrong = Some("the client does not accept it".to_owned());
        } else if at < joined.sequence || stream.position.is_some_and(|position| at < position) {
            wrong = Some(format!("it leads back, before {:?}", stream.position));
        } else if let Some(missing) = self.missing(number, at) {
            wrong = Some(format!("{} is missing", missing.id));
        } else {
            let mut before = self.between(0, joined.sequence);
            let is_doubtful = |event: &Publication| {
                stream.topics.contains(&event.topic) && self.has_doubtful_id(event)
            };
            if !before.any(is_doubtful) {
                wrong = Some("no id is doubtful".to_owned());
            }
        }
        let stream = &mut self.streams[number];
        stream.position = Some(at);
        stream.ends_doubtfully = false;
        if let Some(wrong) = wrong {
            self.fail(format!(
                "stream {number} has the id {id} after its replay: {wrong}"
            ));
        }
    }

    /// A heartbeat has named the stream's position: all up to there was sent.
    pub fn on_position(&mut self, number: usize, id: &str) {
        self.count("positions in heartbeats");
        let stream = &self.streams[number];
        let Some(at) = self.parse(id) else {
            return self.fail(format!("a heartbeat of stream {number} has the id {id:?}"));
        };
        if let Some(joined) = &stream.joined
            && self.may_lack_id(stream)
        {
            // It was sent nothing, so it begins here, or where it joined.
            self.begin(number, at.min(joined.sequence));
        }
        let stream = &self.streams[number];
        let mut wrong = None;
        if !stream.asks_for_positions {
            wrong = Some("the client does not ask for it".to_owned());
        } else if at > self.sequence {
            wrong = Some("nothing has this number yet".to_owned());
        } else if stream.position.is_none_or(|position| at < position) {
            wrong = Some(format!("it leads back from {:?}", stream.position));
        } else if let Some(missing) = self.missing(number, at) {
            wrong = Some(format!("{} is missing", missing.id));
        }
        self.streams[number].position = Some(at);
        if let Some(wrong) = wrong {
            self.fail(format!(
                "a heartbeat of stream {number} has the id {id}: {wrong}"
            ));
        }
    }

    /// Whether an event has an own id that may be that of one from before the start.
    fn has_doubtful_id(&self, event: &Publication) -> bool {
        event.draft.id.is_some() && event.at_ms < self.in_doubt_until_ms
    }

    /// The stream begins behind `at`.
    fn begin(&mut self, number: usize, at: u64) {
        let stream = &self.streams[number];
        let Some(joined) = &stream.joined else {
            return self.fail("a stream without a subscription");
        };
        let (mut wrong, mut lost_state) = (None, None);
        let all = self.between(0, joined.sequence);
        let admitted: Vec<_> = all.filter(|p| self.is_for(stream, p)).collect();
        let wanted = admitted.iter().copied();
        let wanted = wanted.filter(|p| !self.is_conflated(p));
        let sure = |p: &&Publication| self.is_sure(stream, p);
        match &stream.want {
            Want::Live => {
                let begins_wrongly = stream.position.is_some_and(|position| position != at);
                if begins_wrongly || at > joined.sequence {
                    wrong = Some("a live stream begins elsewhere".to_owned());
                }
                let mut state = wanted.filter(|p| self.is_keyed(p) && stream.position.is_none());
                let lost = state.find(|p| p.sequence <= at);
                lost_state = lost.map(|lost| lost.id.clone());
            }
            Want::Earliest => {
                // What else is lost is reported next.
                if let Some(lost) = wanted.filter(sure).find(|p| p.sequence <= at) {
                    wrong = Some(format!("the history is said to begin after {}", lost.id));
                }
            }
            Want::Last(count) => {
                let wanted: Vec<_> = wanted.collect();
                // One part of a log may have evicted what is newer than what the
                // other holds.
                let one_part = !self.has_state(number);
                let is_held = |p: &&&Publication| one_part || sure(p);
                let given = wanted.iter().filter(|p| p.sequence > at);
                let given = given.filter(is_held).count();
                // With those that were replaced since it joined.
                let is_given = |p: &&&Publication| {
                    p.sequence > at && !self.is_conflated_by(p, joined.sequence)
                };
                let given_max = admitted.iter().filter(is_given).count();
                let withheld = wanted
                    .iter()
                    .filter(|p| p.sequence <= at && sure(p))
                    .count();
                if given > *count && stream.topics.len() == 1 {
                    wrong = Some(format!("of the last {count}, {given} are given"));
                }
                if given_max < *count && withheld > 0 {
                    wrong = Some(format!("of the last {count}, only {given} are given"));
                }
            }
            Want::After(asked) => wrong = Some(format!("a stream after {asked} begins elsewhere")),
        }
        let stream = &mut self.streams[number];
        stream.position = Some(at);
        stream.has_begun = true;
        stream.lost_state = lost_state;
        stream.begins_after = Some(at).filter(|_| stream.want == Want::Earliest);
        if let Some(wrong) = wrong {
            self.fail(format!("stream {number}: {wrong} (at {at})"));
        }
    }

    /// Returns where a stream began that has stated no id, and whose first event is
    /// `first`. What was replaced since then may have come before it. In a log with
    /// state, an event that the history has evicted may be newer than the oldest
    /// state, so only an event that was surely held can be the last one not asked for.
    fn before_first(&self, number: usize, first: u64) -> u64 {
        let stream = &self.streams[number];
        let may_skip = matches!(stream.want, Want::Last(_)) && self.has_state(number);
        let mut before = self.between(0, first - 1).rev();
        let last = before.find(|p| {
            let is_held = !may_skip || self.is_sure(stream, p);
            self.is_for(stream, p) && !self.is_conflated(p) && is_held
        });
        last.map_or(0, |last| last.sequence)
    }

    /// An event of a stream that asked for everything, and that received no
    /// gap: then nothing was ever before where it begins.
    fn check_beginning(&mut self, number: usize) {
        let Some(at) = self.streams[number].begins_after.take() else {
            return;
        };
        let stream = &self.streams[number];
        let lost = self.between(0, at).find_map(|event| {
            let is_lost = self.is_for(stream, event)
                && !self.is_conflated(event)
                && event.sequence > self.topics[event.topic].begun_again_at;
            is_lost.then(|| event.id.clone())
        });
        if let Some(lost) = lost {
            self.fail(format!(
                "stream {number} does not learn that {lost} is lost"
            ));
        }
    }

    pub fn on_event(&mut self, number: usize, event: &Dispatched) {
        if self.streams[number].sink.is_some() {
            return self.on_sink_event(number, event);
        }
        if self.streams[number].is_reauth_reported {
            self.fail(format!("stream {number} goes on after its end: {event:?}"));
        }
        match event.name.as_str() {
            REAUTH => self.on_reauth(number, event),
            GAP if self.is_placed_gap(event) => self.on_placed_gap(number, event),
            GAP => self.on_gap(number, event),
            "welcome" => self.on_welcome(number, event),
            _ => self.on_published(number, event),
        }
    }

    fn on_published(&mut self, number: usize, event: &Dispatched) {
        self.count("deliveries");
        let numbers = self.by_id.get(&event.last_event_id).into_iter().flatten();
        let numbers = numbers.copied();
        let (stream, published) = (&self.streams[number], &self.published);
        let joined = stream.joined.as_ref().map_or(0, |joined| joined.sequence);
        // Publishers may have given other events the same id. An event for all channels
        // comes if one of the stream's channels has it, as state or as history.
        let likeness = |number: &usize| {
            let other = &published[*number];
            let is_right = self.is_for(stream, other) && !self.is_conflated_by(other, joined);
            (other.data == event.data, is_right, self.is_keyed(other))
        };
        let Some(found) = numbers.rev().max_by_key(likeness) else {
            let id = &event.last_event_id;
            return self.fail(format!(
                "stream {number} got an event {id:?} that was not published"
            ));
        };
        let publication = &self.published[found];
        let (id, at) = (publication.id.clone(), publication.sequence);
        let stream = &mut self.streams[number];
        if let Some(awaited) = stream.awaits_lost.take_if(|awaited| at >= *awaited)
            && at > awaited
        {
            self.fail(format!(
                "stream {number} does not learn that events are lost"
            ));
        }
        let stream = &self.streams[number];
        if self.may_lack_id(stream) {
            let at = self.before_first(number, at);
            self.begin(number, at);
            return self.on_published(number, event);
        }
        self.check_beginning(number);
        let stream = &self.streams[number];
        let is_unasked = stream.has_begun || stream.is_gap_reported;
        if !is_unasked
            && matches!(stream.want, Want::After(_))
            && let Some(uncertain) = self.uncertain(stream)
        {
            let uncertain = uncertain.id.clone();
            self.fail(format!(
                "stream {number} does not learn that {uncertain} may be for it"
            ));
        }
        let publication = &self.published[found];
        let stream = &self.streams[number];
        let mut wrong = None;
        if (&publication.name, &publication.data) != (&event.name, &event.data) {
            wrong = Some(format!("{id} came as {event:?}"));
        } else if !self.is_for(stream, publication) {
            let name = &self.topics[publication.topic].name;
            let audience = &publication.audience;
            wrong = Some(format!("{id} in {name} is not for it: {audience:?}"));
        } else if let Some(joined) = &stream.joined
            && self.is_conflated_by(publication, joined.sequence)
        {
            wrong = Some(format!("{id} was replaced or removed before it came"));
        } else {
            match stream.position {
                None => {
                    wrong = Some(format!(
                        "{id} came before the stream said where it begins {:?} {:?}",
                        stream.want, stream.topics
                    ))
                }
                Some(position) if at <= position => {
                    wrong = Some(format!(
                        "{id} came again, or out of order, after {position}"
                    ));
                }
                Some(position) => {
                    if let Some(lost) = self.missing(number, at - 1) {
                        let policy = self.topics[lost.topic].plan.policy;
                        let joined = stream.joined.as_ref().map_or(0, |joined| joined.sequence);
                        wrong = Some(format!(
                            "{} is lost between {position} and {id} ({policy:?}, key {:?}, for \
                             {:?}, {} topics, joined at {joined}, {:?}, gap {})",
                            lost.id,
                            lost.key,
                            lost.audience,
                            stream.topics.len(),
                            stream.want,
                            stream.is_gap_reported
                        ));
                    }
                }
            }
        }
        if let Some(joined) = &stream.joined
            && stream.welcomes_got < stream.welcomes_sent
            && at > joined.sequence
        {
            wrong.get_or_insert(format!("{id} came before the welcome"));
        }
        let is_replay = |joined: &super::Joined| at <= joined.sequence;
        let is_replay = stream.joined.as_ref().is_some_and(is_replay);
        if !is_replay && stream.accepts_ids && stream.ends_doubtfully {
            wrong.get_or_insert(format!("no id came after the replay, before {id}"));
        }
        let is_owed_id = is_replay && !stream.has_lagged;
        let ends_doubtfully = is_owed_id && self.has_doubtful_id(publication);
        let (removes, copies) = (publication.removes, self.between(at - 1, at));
        // Where it was replaced before the client joined, it comes as another channel's
        // history.
        let copies =
            copies.filter(|copy| self.is_for(stream, copy) && !self.is_conflated_by(copy, joined));
        let subjects: Vec<_> = copies.filter_map(|copy| self.subject(copy)).collect();
        let is_keyed = self.is_keyed(publication);
        let stream = &mut self.streams[number];
        if let Some(claim) = stream.claim.as_mut().filter(|_| !is_keyed) {
            claim.state_through = claim.state_through.min(at - 1);
        }
        if let Some(lost) = stream.lost_state.take() {
            wrong.get_or_insert(format!("the state begins after {lost}, without a gap"));
        }
        stream.has_got_one = true;
        for subject in subjects {
            match removes {
                true => stream.table.remove(&subject),
                false => stream.table.insert(subject, at),
            };
        }
        stream.position = Some(at);
        stream.has_begun = true;
        stream.ends_doubtfully = ends_doubtfully;
        if let Some(wrong) = wrong {
            self.fail(format!("stream {number}: {wrong}"));
        }
    }

    /// A stream has all that it waits for: what a page has made of it is the
    /// newest state of each key.
    pub fn check_table(&mut self, number: usize) {
        let stream = &self.streams[number];
        // A client that is about to leave waits for nothing more.
        let is_leaving = stream.is_cut || stream.gone.is_some();
        if stream.joined.is_none() || is_leaving || !stream.has_begun {
            return;
        }
        let mut state = BTreeMap::new();
        let all = self.between(0, u64::MAX);
        for publication in all.filter(|p| self.is_for(stream, p)) {
            match self.subject(publication) {
                Some(subject) if publication.removes => drop(state.remove(&subject)),
                Some(subject) => drop(state.insert(subject, publication)),
                None => {}
            }
        }
        let current = |subject: &_| state.get(subject).map(|p| p.sequence);
        let stale = |(subject, at): &(&_, &u64)| current(subject) != Some(**at);
        // Nothing was reported missing, so nothing is.
        let is_whole = stream.want == Want::Live && !stream.is_gap_reported;
        let missing = |subject: &&_| is_whole && !stream.table.contains_key(*subject);
        let wrong = match stream.table.iter().find(stale) {
            Some((subject, at)) => Some(format!("has {at} of {subject:?} still")),
            None => state.keys().find(missing).map(|s| format!("lacks {s:?}")),
        };
        self.count("tables checked");
        if let Some(wrong) = wrong {
            self.fail(format!("stream {number}: its page {wrong}"));
        }
    }

    fn on_welcome(&mut self, number: usize, event: &Dispatched) {
        self.count("welcomes");
        let stream = &mut self.streams[number];
        let expected = format!("welcome {number} {}", stream.welcomes_got);
        stream.welcomes_got += 1;
        let joined = stream.joined.as_ref().map_or(0, |joined| joined.sequence);
        if event.data != expected {
            self.fail(format!("{expected:?} came as {event:?}"));
        } else if let Some(missing) = self.missing(number, joined) {
            let missing = missing.id.clone();
            self.fail(format!(
                "stream {number} was welcomed before {missing} was replayed"
            ));
        }
    }

    /// Whether it is the gap that the log has in the place of lost events.
    fn is_placed_gap(&self, event: &Dispatched) -> bool {
        let gap: serde_json::Value = serde_json::from_str(&event.data).unwrap_or_default();
        let is_known = self.by_id.contains_key(&event.last_event_id);
        is_known && gap["reason"] == "lost" && gap["requested"].is_null()
    }

    fn on_placed_gap(&mut self, number: usize, event: &Dispatched) {
        self.count("gaps in the place of lost events");
        let at = self.parse(&event.last_event_id);
        let stream = &self.streams[number];
        let is_first = |after: u64| term_after(&self.terms, after) == at;
        if stream.lost_after.is_some_and(is_first) {
            self.fail(format!(
                "stream {number} receives twice that events are lost"
            ));
        }
        // The order of its fields is of no account.
        let gap: serde_json::Value = serde_json::from_str(&event.data).unwrap_or_default();
        let event = Dispatched {
            name: event.name.clone(),
            data: gap.to_string(),
            last_event_id: event.last_event_id.clone(),
        };
        self.on_published(number, &event);
    }

    fn on_gap(&mut self, number: usize, event: &Dispatched) {
        self.count("gaps");
        let gap: serde_json::Value = serde_json::from_str(&event.data).unwrap_or_default();
        let reason = gap["reason"].as_str().unwrap_or_default();
        let Some(at) = self.parse(&event.last_event_id) else {
            return self.fail(format!("a gap without a position: {event:?}"));
        };
        let stream = &self.streams[number];
        let Some(joined) = &stream.joined else {
            return self.fail("a stream without a subscription");
        };
        let mut wrong = None;
        if reason == "slow" {
            if !self.may_lag(number) {
                wrong = Some("it was said to be slow and is not");
            }
            // Where there is keyed state, the stream begins again.
            let leads_back = stream.position.is_some_and(|position| position > at);
            if leads_back && !self.has_state(number) {
                wrong = Some("a gap leads back");
            }
        } else if stream.want == Want::Earliest {
            let is_lost = stream.topics.iter().any(|topic| {
                let topic = &self.topics[*topic];
                let mut entries = topic.entries.iter();
                topic.may_lack_any()
                    || entries.any(|entry| !self.is_sure(stream, &self.published[*entry]))
            });
            if stream.is_gap_reported || reason != "evicted" || !is_lost {
                wrong = Some("a gap at the beginning that is none");
            }
        } else if let Want::After(asked) = &stream.want {
            let is_first = !stream.is_gap_reported;
            let lost = |position: u64| {
                stream.topics.iter().any(|topic| {
                    let topic = &self.topics[*topic];
                    let entries = topic.entries.iter().map(|entry| &self.published[*entry]);
                    let entries = entries.filter(|p| p.sequence <= joined.sequence);
                    let mut unsure = entries.filter(|p| !self.is_sure(stream, p));
                    topic.since > position || unsure.any(|p| p.sequence > position)
                })
            };
            let is_ours = self.parse(asked).is_some_and(|at| at <= joined.sequence);
            let is_former = asked.starts_with("formerw-");
            let own = self.events_of(stream, asked);
            let mut own = own.filter(|event| event.sequence <= joined.sequence);
            let is_honest = match reason {
                // Where events were lost, it receives the gap in their place, or this one.
                "evicted" => stream.position.is_some_and(lost),
                "lost" => stream
                    .position
                    .is_some_and(|at| lost(at) && term_after(&self.terms, at).is_some()),
                "restart" => is_former || self.is_doubtful(stream, asked),
                "audience" => self.uncertain(stream).is_some(),
                // An own id is known when its event is gone, for a time, unless the event
                // was for too many clients.
                "unknown" => {
                    let may_be_forgotten = |event: &Publication| match &event.audience {
                        Audience::Ids(ids) if ids.len() > 30 => true,
                        _ => !self.is_remembered(event.at_ms),
                    };
                    !is_ours && !is_former && own.all(may_be_forgotten)
                }
                _ => false,
            };
            if !is_first || !is_honest || gap["requested"] != asked.as_str() {
                wrong = Some("a gap that is none");
            }
        } else if stream.want == Want::Live && self.has_state(number) {
            let mut all = self.published.iter();
            let may_be_missing = |p: &Publication| {
                let is_old = p.sequence <= joined.sequence && !self.is_sure(stream, p);
                let may_be_state = self.is_keyed(p) || self.is_before_first_record(p);
                stream.topics.contains(&p.topic) && may_be_state && is_old
            };
            let mut topics = stream.topics.iter().map(|topic| &self.topics[*topic]);
            let is_missing = all.any(may_be_missing) || topics.any(|topic| topic.may_lack_any());
            let is_honest = reason == "evicted" && gap["requested"].is_null();
            if stream.has_got_one || !is_honest || !is_missing {
                wrong = Some("a gap before a whole state");
            }
        } else {
            wrong = Some("a gap, though nothing was asked for");
        }
        if self.has_state(number) {
            self.begin_anew(number, reason);
        }
        let stream = &mut self.streams[number];
        match (reason, stream.position) {
            ("lost", after) => stream.lost_after = after,
            // Of what was before a stream that had no place, it receives the state alone, and
            // the history that is there.
            ("evicted", Some(after)) if matches!(stream.want, Want::After(_)) => {
                stream.awaits_lost = term_after(&self.terms, after);
            }
            _ => stream.awaits_lost = None,
        }
        stream.position = Some(at);
        stream.has_begun = true;
        stream.is_gap_reported = true;
        stream.ends_doubtfully = false;
        stream.has_lagged |= reason == "slow";
        stream.begins_after = None;
        if let Some(wrong) = wrong {
            let stream = &self.streams[number];
            let want = &stream.want;
            let wrong = format!("stream {number}: {wrong}: {event:?} ({want:?})");
            self.fail(wrong);
        }
    }

    /// A stream has reported a gap, and its state follows, whole.
    fn begin_anew(&mut self, number: usize, reason: &str) {
        self.streams[number].table.clear();
        self.streams[number].lost_state = None;
        if reason == "slow" {
            // Of the history it is sent the newest, and from then on all: which that
            // is, its first event shows.
            return self.claim(number, self.sequence);
        }
        let stream = &mut self.streams[number];
        if let Some(claim) = &mut stream.claim
            && matches!(stream.want, Want::After(_))
        {
            claim.state_through = stream.position.unwrap_or(0);
        }
    }

    fn on_sink_event(&mut self, number: usize, event: &Dispatched) {
        let Some(sink) = &mut self.streams[number].sink else {
            return;
        };
        let expected = sink.sent.get(sink.got).cloned();
        sink.got += 1;
        if expected.as_ref() != Some(&event.data) {
            self.fail(format!("a sink sent {expected:?}, and {event:?} came"));
        }
    }

    /// The client has read its stream to the end.
    pub fn on_end(&mut self, number: usize, retry_ms: Option<u64>, is_torn: bool) {
        self.note_the_over();
        let stream = &self.streams[number];
        if stream.is_cut {
            return;
        }
        self.check_ending_event(number, retry_ms);
        if self.streams[number].sink.is_some() {
            return self.on_sink_end(number, is_torn);
        }
        let stream = &self.streams[number];
        let Some((reason, at)) = stream.gone else {
            // A disconnected client may have left by itself before its turn came;
            // `check_end` requires the report of its end.
            let mut topics = stream.topics.iter().map(|topic| &self.topics[*topic]);
            let is_sent_away = stream.is_kicked || stream.is_replaced;
            let is_sent_away = is_sent_away || topics.any(|topic| topic.is_closed());
            if stream.joined.is_some() && !is_sent_away {
                self.fail(format!(
                    "stream {number} ended, and on_disconnect was not called"
                ));
            }
            return;
        };
        let topics = || stream.topics.iter().map(|topic| &self.topics[*topic]);
        // `Channel::close` disconnects at once, whatever waits.
        let is_closed = topics().any(|topic| topic.is_closed());
        let mut is_owed_whole = true;
        let through = match (reason, stream.shutdown) {
            (DisconnectReason::Finished, _) => u64::MAX,
            (DisconnectReason::Shutdown, Some((sequence, deadline))) if at < deadline => {
                is_owed_whole = !is_closed;
                if is_closed { 0 } else { sequence }
            }
            // Its finished channel is over: it was sent all of that, and of the
            // others whole events.
            (DisconnectReason::ChannelClosed, _) if !is_closed => 0,
            // Each is a limit (docs/limits.md), or what was asked for, and what
            // is missed is sent or reported when the client comes back.
            _ => return,
        };
        let over: Vec<usize> = match reason {
            DisconnectReason::ChannelClosed => {
                let topics = stream.topics.iter().copied();
                let is_over = |topic: &usize| self.topics[*topic].over_at.is_some_and(|o| o <= at);
                topics.filter(is_over).collect()
            }
            _ => Vec::new(),
        };
        let missing = self.missing(number, through);
        let missing = missing.or_else(|| {
            let mut all = self.all_missing(number, u64::MAX);
            all.find(|missing| over.contains(&missing.topic))
        });
        if let Some(missing) = missing {
            let missing = missing.id.clone();
            self.fail(format!(
                "stream {number} ended ({reason}) without {missing}"
            ));
        }
        if is_torn && is_owed_whole {
            self.fail(format!("stream {number} ended ({reason}) within an event"));
        }
        let stream = &self.streams[number];
        if stream.welcomes_got < stream.welcomes_sent && is_owed_whole {
            self.fail(format!(
                "stream {number} ended ({reason}) without its welcome"
            ));
        }
    }

    /// A client has read the stream of a sink to its end.
    fn on_sink_end(&mut self, number: usize, is_torn: bool) {
        let may_have_stalled = self.may_have_stalled(number);
        let stream = &self.streams[number];
        let Some(sink) = &stream.sink else {
            return;
        };
        let (ended, is_late) = match &sink.last {
            Some(last) => (last.ended, last.is_late),
            None => (
                sink.handle.as_ref().map(Sink::ended),
                self.is_past_deadline(stream.asked_at),
            ),
        };
        let is_talkative = stream.junk_bytes >= 100;
        let (got, sent) = (sink.got, sink.sent.len());
        let is_right = match ended {
            // Closed by its holder: the client has everything, unless a limit
            // ended it (`Limits::stall_timeout`, `Shutdown::within`).
            None => (got == sent && !is_torn) || may_have_stalled || is_talkative || is_late,
            Some(Some(DisconnectReason::Stalled)) => may_have_stalled,
            Some(Some(DisconnectReason::Misbehaved)) => is_talkative,
            Some(Some(DisconnectReason::Shutdown)) => is_late,
            Some(_) => false,
        };
        if !is_right {
            self.fail(format!(
                "a sink's stream ended ({ended:?}) after {got} events of {sent}"
            ));
        }
        if let Some(sink) = &mut self.streams[number].sink {
            sink.is_over = true;
        }
    }

    /// What a browser that comes back says it has seen must be no more than
    /// what it has.
    pub fn on_reconnect(&mut self, number: usize, last_event_id: &str) {
        let first = self.by_id.get(last_event_id).and_then(|n| n.first());
        let at = first.map(|n| self.published[*n].sequence);
        let at = at.or(self.parse(last_event_id));
        let position = self.streams[number].position;
        if at.is_some_and(|at| position.is_some_and(|position| at > position)) {
            self.fail(format!("the id {last_event_id} runs ahead of {position:?}"));
        }
    }

    /// Whether a stream has not said where it begins and need not, because events of
    /// its channels carry own ids.
    fn may_lack_id(&self, stream: &Stream) -> bool {
        if stream.position.is_some() || !matches!(stream.want, Want::Earliest | Want::Last(_)) {
            return false;
        }
        let mut topics = stream.topics.iter().map(|topic| &self.topics[*topic]);
        topics.any(|topic| {
            let mut entries = topic.entries.iter();
            entries.any(|entry| self.published[*entry].draft.id.is_some())
        })
    }

    /// A random id from the past.
    pub fn some_id(&mut self) -> Option<String> {
        let newest = self.published.len();
        let back = self.rng.usize(0..newest.clamp(1, 60));
        let publication = self.published.get(newest.checked_sub(back + 1)?)?;
        Some(publication.id.clone())
    }

    /// An id of the engine's own spelling that it has not given, yet or ever.
    pub fn forged_id(&self) -> String {
        let epoch = &self.epoch;
        match (self.sequence + self.sent_to_sinks) % 7 {
            _ if !self.forges => self.id_of(self.sequence + 1_000_000),
            0 => self.id_of(self.sequence + 1),
            1 => self.id_of(u64::MAX),
            2 => format!("{epoch}-18446744073709551616"),
            3 => format!("{epoch}-0{}", self.sequence),
            4 => format!("{epoch}-"),
            5 => format!("{epoch}-+1"),
            _ => format!("{epoch}-{}x", self.sequence),
        }
    }
}

/// The number with which the first term behind a number has begun.
fn term_after(terms: &[u64], number: u64) -> Option<u64> {
    terms.iter().copied().find(|term| *term > number)
}
