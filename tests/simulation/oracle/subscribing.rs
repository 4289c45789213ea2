//! Clients that subscribe and leave, and the events they are owed.

use pushwheel::{ClientInfo, DisconnectReason, Event, History, Welcome};

use super::{Audience, Claim, Joined, Oracle, Publication, SLACK_MS, Stream, Sure, Want};

impl Oracle {
    pub fn request(&mut self, want: Want, role: Option<u8>) -> usize {
        let taken_at = self.now();
        self.streams.push(Stream {
            want,
            id: String::new(),
            role,
            topics: Vec::new(),
            joined: None,
            claim: None,
            table: std::collections::BTreeMap::new(),
            has_got_one: false,
            lost_state: None,
            gone: None,
            asked_at: taken_at,
            shutdown: None,
            position: None,
            begins_after: None,
            has_begun: false,
            is_gap_reported: false,
            lost_after: None,
            awaits_lost: None,
            accepts_ids: false,
            asks_for_positions: false,
            asks_for_page: false,
            ends_doubtfully: false,
            has_lagged: false,
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
            is_reauth_reported: false,
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
            if !state.is_there() {
                self.fail("a client joins a closed channel");
            } else if let Some(old) = state.members.insert(id.clone(), number) {
                self.streams[old].is_replaced = true;
                self.sent_away.push(old);
                self.count("replacements");
            }
        }
        let (sequence, at_ms) = (self.sequence, self.now());
        let stream = &mut self.streams[number];
        stream.joined = Some(Joined { sequence, at_ms });
        stream.id = id;
        stream.topics = topics;
        // A new client of conflating channels is sent their state first.
        let is_live = stream.want == Want::Live;
        let has_state = self.has_state(number);
        self.claim(number, if is_live && has_state { sequence } else { 0 });
        if is_live && !has_state {
            self.streams[number].position = Some(sequence);
        }
        let stream = &self.streams[number];
        if let Want::After(id) = &stream.want {
            let ours = self.parse(id).filter(|at| *at <= sequence);
            let own = self.position_of(stream, id);
            self.streams[number].position = own.or(ours);
        }
    }

    /// The events of an own id that count for a stream that comes with it: those
    /// from before that the client may see, in its channels and in earlier ones of their
    /// names.
    pub(super) fn events_of<'a>(
        &'a self,
        stream: &'a Stream,
        id: &str,
    ) -> impl Iterator<Item = &'a Publication> {
        let numbers = self.by_id.get(id).into_iter().flatten();
        let events = numbers.map(|number| &self.published[*number]);
        events.filter(|event| {
            let is_before = |joined: &Joined| event.sequence <= joined.sequence;
            event.draft.id.is_some()
                && stream.joined.as_ref().is_some_and(is_before)
                && self.is_of_its_names(stream, event)
                && self.admits(stream, event)
        })
    }

    fn is_of_its_names(&self, stream: &Stream, event: &Publication) -> bool {
        let name = &self.topics[event.topic].name;
        let mut topics = stream.topics.iter().map(|topic| &self.topics[*topic].name);
        event.is_for_all || topics.any(|other| other == name)
    }

    /// Whether an own id may be that of an event from before the start.
    pub(super) fn is_doubtful(&self, stream: &Stream, id: &str) -> bool {
        let mut events = self.events_of(stream, id);
        events.any(|event| event.at_ms < self.in_doubt_until_ms)
    }

    /// Whether all came of a stream's replay but the id that has to follow it,
    /// because the client would come back with a doubtful own id.
    pub fn awaits_id(&self, number: usize) -> bool {
        let stream = &self.streams[number];
        let is_replayed = |joined: &Joined| self.missing(number, joined.sequence).is_none();
        stream.accepts_ids
            && stream.ends_doubtfully
            && stream.joined.as_ref().is_some_and(is_replayed)
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
        let mut range = self.between(position, joined.sequence);
        let has_generated_id = stream.id.len() == 36;
        range.find(|event| {
            stream.topics.contains(&event.topic)
                && event.is_uncertain
                && !self.is_conflated_by(event, joined.sequence)
                && !self.is_for(stream, event)
                && (has_generated_id || matches!(event.to, super::To::Filter(_)))
        })
    }

    /// Whether a channel of this name was finished at some time since then.
    pub fn was_finished(&self, name: &str, since: u64) -> bool {
        self.lives(name).any(|topic| {
            let is_over = topic
                .over_at
                .or(topic.closed_at)
                .is_some_and(|at| at < since);
            topic.is_finished() && !is_over
        })
    }

    /// Whether a channel of this name had all of its clients at some time since then.
    pub fn was_full(&self, name: &str, since: u64) -> bool {
        let mut lives = self.lives(name);
        lives.any(|topic| topic.is_full() || topic.full_at.is_some_and(|at| at >= since))
    }

    /// Whether a channel of this name was closed, or lost its name, since then.
    pub fn was_closed(&self, name: &str, since: u64) -> bool {
        let mut lives = self.lives(name);
        lives.any(|topic| {
            topic
                .over_at
                .or(topic.closed_at)
                .is_some_and(|at| at >= since)
        })
    }

    fn lives<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a super::Topic> {
        self.topics.iter().filter(move |topic| topic.name == name)
    }

    pub fn role_of(&self, number: usize) -> Option<u8> {
        self.streams[number].role
    }

    /// Sends a new client an event of its welcome.
    pub fn welcome(&mut self, number: usize, welcome: &mut Welcome) {
        let stream = &mut self.streams[number];
        // Recorded seeds draw a channel here.
        self.rng.usize(0..stream.topics.len());
        let data = format!("welcome {number} {}", stream.welcomes_sent);
        stream.welcomes_sent += 1;
        if let Err(error) = welcome.send(Event::new("welcome", data)) {
            self.fail(format!("a welcome was rejected: {error:?}"));
        }
    }

    pub fn on_disconnect(&mut self, number: usize, info: &ClientInfo, reason: DisconnectReason) {
        if self.has_ended {
            return;
        }
        let id = info.id.to_string();
        match &mut self.proposed {
            Some(proposed) if proposed.is_applying() => proposed.defer_end(number, id, reason),
            _ => self.end_stream(number, &id, reason),
        }
    }

    /// A stream has ended.
    pub(super) fn end_stream(&mut self, number: usize, id: &str, reason: DisconnectReason) {
        self.note_the_over();
        let now = self.now();
        let stream = &mut self.streams[number];
        if id != stream.id {
            self.fail("on_disconnect is called with another client");
            return;
        }
        if stream.joined.is_none() || stream.gone.is_some() {
            self.fail("on_disconnect is called without an on_connect of its own");
            return;
        }
        stream.gone = Some((reason, now));
        stream.shutdown = self.shutdown;
        for &topic in &stream.topics {
            let topic = &mut self.topics[topic];
            if topic.members.get(&stream.id) == Some(&number) {
                topic.remove_member(&stream.id, now);
            }
        }
        let stream = &self.streams[number];
        let mut topics = stream.topics.iter().map(|topic| &self.topics[*topic]);
        let is_legal = match reason {
            DisconnectReason::Gone => stream.is_cut,
            DisconnectReason::Answered => stream.asks_for_page,
            DisconnectReason::Kicked => stream.is_kicked,
            DisconnectReason::Replaced => stream.is_replaced,
            DisconnectReason::ChannelClosed => topics.any(|topic| {
                // Of several channels: to be one of the new channel's clients
                // (`ChannelOptions::finished_for`).
                let is_left = topic.over_at.is_some() && stream.topics.len() > 1;
                topic.is_closed() || is_left
            }),
            DisconnectReason::Finished => {
                topics.all(|topic| topic.is_finished() || topic.is_closed())
            }
            DisconnectReason::Shutdown => self.shutdown.is_some(),
            DisconnectReason::Failed => self.has_failed,
            DisconnectReason::Misbehaved => stream.junk_bytes >= 100,
            DisconnectReason::Stalled => self.may_have_stalled(number),
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

    /// Whether a client has taken nothing for so long that it may be
    /// disconnected for it (`Limits::stall_timeout`).
    pub(super) fn may_have_stalled(&self, number: usize) -> bool {
        let (stream, now) = (&self.streams[number], self.now());
        // Of what was taken right before the clock jumped, the engine may not
        // know yet.
        let pause_ms = match self.jumped_at > stream.taken_at {
            true => stream.pause_ms_max + now - stream.taken_at,
            false => stream.pause_ms_max.max(now - stream.taken_at),
        };
        pause_ms + SLACK_MS >= self.stall_ms
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
    fn sure_from(&self, topic: usize) -> Sure {
        let plan = &self.topics[topic].plan;
        let (kept, keyed) = (plan.kept(), plan.keyed);
        let keyed = History::events(keyed.keys_max)
            .bytes_max(keyed.bytes_max)
            .age_max(keyed.age_max);
        Sure {
            history: self.part_sure_from(topic, false, kept),
            keyed: self.part_sure_from(topic, true, keyed),
        }
    }

    /// The same of one of its parts, counting also what was replaced.
    fn part_sure_from(&self, topic: usize, keyed: bool, kept: History) -> u64 {
        let entries = self.topics[topic].entries.iter().rev();
        let entries = entries.map(|entry| &self.published[*entry]);
        let (mut events, mut bytes, mut from) = (0, 0, u64::MAX);
        for entry in entries.filter(|entry| self.is_keyed(entry) == keyed) {
            events += 1;
            bytes += entry.bytes_max;
            let age_ms = u128::from(self.now() - entry.at_ms);
            if events > kept.events_max
                || bytes > kept.bytes_max
                || age_ms >= kept.age_max.as_millis()
                || self.is_before_first_record(entry)
            {
                break;
            }
            from = entry.sequence;
        }
        from
    }

    /// Whether an event for all channels may be lost to its channel, as clients learn: a
    /// process has made the channel again from a later record.
    pub(super) fn is_before_first_record(&self, event: &Publication) -> bool {
        event.is_for_all && event.sequence <= self.topics[event.topic].unsure_through
    }

    /// Whether an event is state and not history.
    pub(super) fn is_keyed(&self, publication: &Publication) -> bool {
        let conflates = self.topics[publication.topic].plan.conflates();
        conflates && publication.key.is_some() && !publication.removes
    }

    /// Whether one of a stream's topics has state.
    pub(super) fn has_state(&self, number: usize) -> bool {
        let mut topics = self.streams[number].topics.iter();
        topics.any(|topic| self.topics[*topic].plan.conflates())
    }

    /// Notes what a stream has a claim to from now on.
    pub(super) fn claim(&mut self, number: usize, state_through: u64) {
        let topics = self.streams[number].topics.iter();
        let sure_from = topics.map(|topic| self.sure_from(*topic)).collect();
        self.streams[number].claim = Some(Claim {
            sequence: self.sequence,
            state_through,
            sure_from,
        });
    }

    /// Whether an event was surely kept when the stream began, or at its last gap.
    pub(super) fn is_sure(&self, stream: &Stream, publication: &Publication) -> bool {
        let lane = stream.topics.iter().position(|t| *t == publication.topic);
        let Some((claim, lane)) = stream.claim.as_ref().zip(lane) else {
            return false;
        };
        let sure = claim.sure_from[lane];
        publication.sequence
            >= match self.is_keyed(publication) {
                true => sure.keyed,
                false => sure.history,
            }
    }

    /// What a publication is about, if it is in a page's table.
    pub(super) fn subject(&self, publication: &Publication) -> Option<(usize, String, String)> {
        let conflates = self.topics[publication.topic].plan.conflates();
        let key = publication.key.clone().filter(|_| conflates)?;
        Some((
            publication.topic,
            key,
            format!("{:?}", publication.audience),
        ))
    }

    pub(super) fn is_for(&self, stream: &Stream, publication: &Publication) -> bool {
        stream.topics.contains(&publication.topic) && self.admits(stream, publication)
    }

    fn admits(&self, stream: &Stream, publication: &Publication) -> bool {
        match &publication.audience {
            Audience::All => true,
            Audience::Ids(ids) => ids.contains(&stream.id),
            Audience::Role(role) => stream.role == Some(*role),
            Audience::NotRole(role) => stream.role != Some(*role),
            Audience::AllBut(id) => *id != stream.id,
        }
    }

    /// Whether a newer event of the same key, for the same clients, chosen in the
    /// same way, has taken its place, or one for the same clients has removed the
    /// key.
    pub(super) fn is_conflated(&self, publication: &Publication) -> bool {
        self.is_conflated_by(publication, u64::MAX)
    }

    /// The same at an earlier sequence.
    pub(super) fn is_conflated_by(&self, publication: &Publication, sequence: u64) -> bool {
        let topic = &self.topics[publication.topic];
        let newer = topic
            .entries
            .iter()
            .rev()
            .map(|entry| &self.published[*entry]);
        let mut newer = newer.take_while(|newer| newer.sequence > publication.sequence);
        self.is_keyed(publication)
            && newer.any(|newer| {
                newer.key == publication.key
                    && newer.audience == publication.audience
                    && (newer.removes || newer.choice() == publication.choice())
                    && newer.sequence <= sequence
            })
    }

    /// Whether a stream need not be sent an event that it has not got.
    pub(super) fn is_excused(&self, stream: &Stream, publication: &Publication) -> bool {
        if self.is_conflated(publication) {
            return true;
        }
        let Some(claim) = &stream.claim else {
            return true;
        };
        if publication.sequence > claim.sequence {
            return false;
        }
        if publication.sequence <= claim.state_through && !self.is_keyed(publication) {
            return true;
        }
        // What was gone before it came is no loss of its own, but for a place in
        // the stream and for state, which it would have received.
        let asks_for_all = match stream.want {
            Want::After(_) | Want::Earliest => true,
            Want::Live => self.is_keyed(publication),
            Want::Last(_) => false,
        };
        let has_claim_to_all = asks_for_all && !stream.is_gap_reported;
        !has_claim_to_all && !self.is_sure(stream, publication)
    }

    /// The first event for the stream after its position and up to `through`
    /// that it has not got and must get.
    pub(super) fn missing(&self, number: usize, through: u64) -> Option<&Publication> {
        self.all_missing(number, through).next()
    }

    /// All of these.
    pub(super) fn all_missing(
        &self,
        number: usize,
        through: u64,
    ) -> impl Iterator<Item = &Publication> {
        let stream = &self.streams[number];
        let position = stream.position.filter(|position| *position < through);
        let range = position.map(|position| self.between(position, through));
        let range = range.into_iter().flatten();
        range.filter(|p| self.is_for(stream, p) && !self.is_excused(stream, p))
    }

    /// For how long an event may wait so that others go with it.
    pub fn pace_ms(&self, number: usize) -> u64 {
        let topics = self.streams[number].topics.iter();
        let plans = topics.map(|topic| &self.topics[*topic].plan);
        let paces = plans.map(|plan| if plan.conflates() { plan.pace_ms } else { 0 });
        let paces: Vec<u64> = paces.collect();
        match paces.contains(&0) {
            true => 0,
            false => paces.into_iter().min().unwrap_or(0),
        }
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
