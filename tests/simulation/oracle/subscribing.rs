//! Who comes and goes, and what they are owed.

use pushwheel::{ClientInfo, DisconnectReason, Event};

use super::{Audience, Joined, Oracle, Publication, SLACK_MS, Stream, Want};

impl Oracle {
    pub fn request(&mut self, want: Want, role: Option<u8>) -> usize {
        let taken_at = self.now();
        self.streams.push(Stream {
            want,
            id: String::new(),
            role,
            topics: Vec::new(),
            joined: None,
            gone: None,
            position: None,
            begins_after: None,
            has_begun: false,
            is_gap_told: false,
            welcomes_sent: 0,
            welcomes_got: 0,
            is_cut: false,
            is_over_at: None,
            junk_bytes: 0,
            is_replaced: false,
            is_kicked: false,
            taken_at,
            pause_ms_max: 0,
            is_blocked: false,
            sink: None,
            expires_ms: None,
            is_reauth_told: false,
        });
        self.streams.len() - 1
    }

    /// A client has become a member: now is its moment.
    pub fn on_connect(&mut self, number: usize, topics: Vec<usize>, info: &ClientInfo) {
        self.count("subscriptions");
        let id = info.id.to_string();
        if self.streams[number].joined.is_some() {
            return self.fail("on_connect is called twice");
        }
        for &topic in &topics {
            let state = &mut self.topics[topic];
            if state.is_closed {
                self.fail("a client joins a closed channel");
            } else if let Some(old) = state.members.insert(id.clone(), number) {
                self.streams[old].is_replaced = true;
                self.sent_away.push(old);
                self.count("replacements");
            }
        }
        let sure_from = topics.iter().map(|topic| self.sure_from(*topic)).collect();
        let (sequence, at_ms) = (self.sequence, self.now());
        let stream = &mut self.streams[number];
        stream.joined = Some(Joined {
            sequence,
            at_ms,
            sure_from,
        });
        stream.id = id;
        stream.topics = topics;
        // Of conflating channels a newcomer is sent the keys first.
        if stream.want == Want::Live
            && !stream
                .topics
                .iter()
                .any(|t| self.topics[*t].plan.conflates())
        {
            stream.position = Some(sequence);
        }
        let stream = &self.streams[number];
        if let Want::After(id) = &stream.want {
            let ours = self.parse(id).filter(|at| *at <= sequence);
            let own = self.position_of(stream, id);
            self.streams[number].position = own.or(ours);
        }
    }

    /// The events of an own id that count for a stream: those that it may see.
    pub(super) fn events_of<'a>(
        &'a self,
        stream: &'a Stream,
        id: &str,
    ) -> impl Iterator<Item = &'a Publication> {
        let numbers = self.by_id.get(id).into_iter().flatten();
        let events = numbers.map(|number| &self.published[*number]);
        events.filter(|event| event.draft.id.is_some() && self.is_for(stream, event))
    }

    /// Whether an own id may be that of an event from before the start.
    pub(super) fn is_doubtful(&self, stream: &Stream, id: &str) -> bool {
        let mut events = self.events_of(stream, id);
        events.any(|event| event.at_ms < self.in_doubt_until_ms)
    }

    /// Where a stream begins that comes with an own id.
    fn position_of(&self, stream: &Stream, id: &str) -> Option<u64> {
        let first = self.events_of(stream, id).map(|e| e.sequence).min();
        first.filter(|_| !self.is_doubtful(stream, id))
    }

    /// An event that may have been for a stream that comes back, though it is
    /// not sent it.
    pub(super) fn uncertain(&self, stream: &Stream) -> Option<&Publication> {
        let position = stream.position?;
        let joined = stream.joined.as_ref()?;
        if position >= joined.sequence {
            return None;
        }
        let range = self.by_sequence.range(position + 1..=joined.sequence);
        let mut range = range.map(|(_, number)| &self.published[*number]);
        let has_generated_id = stream.id.len() == 36;
        range.find(|event| {
            stream.topics.contains(&event.topic)
                && event.is_uncertain
                && !self.is_for(stream, event)
                && (has_generated_id || matches!(event.to, super::To::Filter(_)))
        })
    }

    pub fn role_of(&self, number: usize) -> Option<u8> {
        self.streams[number].role
    }

    /// Sends the newcomer its welcome.
    pub fn welcome(&mut self, number: usize) {
        let stream = &mut self.streams[number];
        let topic = stream.topics[self.rng.usize(0..stream.topics.len())];
        let welcome = format!("welcome {number} {}", stream.welcomes_sent);
        let result = self.topics[topic]
            .channel
            .send(&stream.id, Event::new("welcome", welcome));
        match result {
            Ok(published) if published.clients == 1 => stream.welcomes_sent += 1,
            Ok(_) => self.fail("a welcome was for nobody"),
            Err(_) if self.topics[topic].is_finished() => {}
            Err(error) => self.fail(format!("a welcome was refused: {error:?}")),
        }
    }

    pub fn on_disconnect(&mut self, number: usize, info: &ClientInfo, reason: DisconnectReason) {
        self.note_the_over();
        let now = self.now();
        let stream = &mut self.streams[number];
        if info.id != *stream.id.as_str() {
            self.fail("on_disconnect is told of somebody else");
            return;
        }
        if stream.joined.is_none() || stream.gone.is_some() {
            self.fail("on_disconnect is called without an on_connect of its own");
            return;
        }
        stream.gone = Some((reason, now));
        for &topic in &stream.topics {
            let members = &mut self.topics[topic].members;
            if members.get(&stream.id) == Some(&number) {
                members.remove(&stream.id);
            }
        }
        let stream = &self.streams[number];
        let mut topics = stream.topics.iter().map(|topic| &self.topics[*topic]);
        let is_legal = match reason {
            DisconnectReason::Gone => stream.is_cut,
            DisconnectReason::Kicked => stream.is_kicked,
            DisconnectReason::Replaced => stream.is_replaced,
            DisconnectReason::ChannelClosed => topics.any(|topic| topic.is_closed),
            DisconnectReason::Finished => {
                topics.all(|topic| topic.is_finished() || topic.is_closed)
            }
            DisconnectReason::Shutdown => self.shutdown.is_some(),
            DisconnectReason::Misbehaved => stream.junk_bytes >= 100,
            DisconnectReason::Stalled => {
                // Of what was taken right before the clock jumped, the engine
                // may not know yet.
                let pause_ms = match self.jumped_at > stream.taken_at {
                    true => stream.pause_ms_max + now - stream.taken_at,
                    false => stream.pause_ms_max.max(now - stream.taken_at),
                };
                pause_ms + SLACK_MS >= self.stall_ms
            }

            DisconnectReason::Lagged => self.may_lag(number),
            DisconnectReason::Expired => self.is_up(self.expiry(number)),
            DisconnectReason::Aged => self.is_up(self.old_age(number)),
            _ => false,
        };
        *self.figures.entry(reason.as_str()).or_default() += 1;
        if !is_legal {
            self.fail(format!(
                "stream {number} was ended as {reason} without a cause (it took something {} ms \
                 ago, its longest pause was {} ms, of {} ms)",
                now - self.streams[number].taken_at,
                self.streams[number].pause_ms_max,
                self.stall_ms,
            ));
        }
    }

    /// Whether enough was published after what the client has for the log to
    /// have lost some of it.
    pub(super) fn may_lag(&self, number: usize) -> bool {
        let stream = &self.streams[number];
        // Where it begins, if its id is not known any more, it is yet to hear.
        let position = stream.position.filter(|_| stream.has_begun).unwrap_or(0);
        stream.topics.iter().any(|topic| {
            let topic = &self.topics[*topic];
            let waiting = topic
                .entries
                .iter()
                .rev()
                .map(|entry| &self.published[*entry]);
            let waiting = waiting.take_while(|p| p.sequence > position);
            waiting.map(|p| p.bytes_max).sum::<usize>() > topic.plan.backlog_bytes_max
        })
    }

    /// The sequence from which on all of a topic is kept, whatever happens.
    pub(super) fn sure_from(&self, topic: usize) -> u64 {
        let topic = &self.topics[topic];
        let kept = topic.plan.kept();
        let (mut events, mut bytes, mut from) = (0, 0, u64::MAX);
        for entry in topic
            .entries
            .iter()
            .rev()
            .map(|entry| &self.published[*entry])
        {
            events += 1;
            bytes += entry.bytes_max;
            let age_ms = u128::from(self.now() - entry.at_ms);
            if events > kept.events_max
                || bytes > kept.bytes_max
                || age_ms >= kept.age_max.as_millis()
            {
                break;
            }
            from = entry.sequence;
        }
        from
    }

    pub(super) fn is_for(&self, stream: &Stream, publication: &Publication) -> bool {
        stream.topics.contains(&publication.topic)
            && match &publication.audience {
                Audience::All => true,
                Audience::Ids(ids) => ids.contains(&stream.id),
                Audience::Role(role) => stream.role == Some(*role),
                Audience::NotRole(role) => stream.role != Some(*role),
                Audience::AllBut(id) => *id != stream.id,
            }
    }

    /// Whether a newer event of the same key, for the same people at least,
    /// has taken its place.
    pub(super) fn is_conflated(&self, publication: &Publication) -> bool {
        let topic = &self.topics[publication.topic];
        let newer = topic
            .entries
            .iter()
            .rev()
            .map(|entry| &self.published[*entry]);
        let mut newer = newer.take_while(|newer| newer.sequence > publication.sequence);
        topic.plan.conflates()
            && publication.key.is_some()
            && newer.any(|newer| {
                newer.key == publication.key
                    && (newer.audience == Audience::All || newer.audience == publication.audience)
            })
    }

    /// Whether a stream need not be sent an event that it has not got.
    pub(super) fn is_excused(&self, stream: &Stream, publication: &Publication) -> bool {
        if self.is_conflated(publication) {
            return true;
        }
        let Some(joined) = &stream.joined else {
            return true;
        };
        if publication.sequence > joined.sequence {
            return false;
        }
        // What was gone before it came is no loss of its own.
        let lane = stream
            .topics
            .iter()
            .position(|topic| *topic == publication.topic);
        let sure_from = lane.map_or(0, |lane| joined.sure_from[lane]);
        let asks_for_all = matches!(stream.want, Want::After(_) | Want::Earliest);
        let asks_for_all = asks_for_all && !stream.is_gap_told;
        let is_gone = !asks_for_all && publication.sequence < sure_from;
        let conflates = self.topics[publication.topic].plan.conflates();
        let is_unkeyed = publication.key.is_none() || !conflates;
        let is_unkeyed = stream.want == Want::Live && is_unkeyed;
        is_gone || is_unkeyed
    }

    /// The first event for the stream after its position and up to `through`
    /// that it has not got and must get.
    pub(super) fn missing(&self, number: usize, through: u64) -> Option<&Publication> {
        let stream = &self.streams[number];
        let position = stream.position?;
        if position >= through {
            return None;
        }
        let range = self.by_sequence.range(position + 1..=through);
        let mut range = range.map(|(_, number)| &self.published[*number]);
        range.find(|p| self.is_for(stream, p) && !self.is_excused(stream, p))
    }

    /// When the oldest event was published that the client waits for.
    pub fn waits_since(&self, number: usize) -> Option<u64> {
        self.missing(number, u64::MAX)
            .map(|publication| publication.at_ms)
    }

    /// The longest silence that the stream may have.
    pub fn heartbeat_ms(&self, number: usize) -> Option<u64> {
        if let Some(sink) = &self.streams[number].sink {
            return Some(sink.heartbeat_ms).filter(|ms| *ms > 0);
        }
        let topics = self.streams[number].topics.iter();
        let beats: Vec<u64> = topics.map(|t| self.topics[*t].plan.heartbeat_ms).collect();
        beats
            .iter()
            .all(|ms| *ms > 0)
            .then(|| beats.into_iter().max())?
    }
}
