//! What publishers and managers do, and what the engine must say to it.

use std::collections::{BTreeMap, BTreeSet};

use pushwheel::{Condition, Event, PublishError, Published, SinkError};

use super::{Audience, GAP, OVERHEAD_BYTES_MAX, Oracle, Publication, REMEMBERED_MS, To};

/// The text of the id that a publish has returned.
fn text_of(published: &Published) -> Option<String> {
    published.id.as_ref().map(ToString::to_string)
}

impl Oracle {
    /// Publishes `count` events at once. Says whether that is work for the
    /// engine.
    pub fn publish(&mut self, topic: usize, to: To, count: usize) -> bool {
        self.note_the_over();
        let drafts: Vec<Draft> = (0..count).map(|_| self.draft()).collect();
        let (to, drafts) = self.vary(topic, to, drafts);
        if self.proposed.is_some() {
            self.propose_publish(topic, to, drafts);
            return false;
        }
        let count = drafts.len();
        let events: Vec<Event<'_>> = drafts.iter().map(Draft::event).collect();
        let members = &self.topics[topic].members;
        let roles = |wanted: u8| {
            let with_role =
                |(_, stream): &(&String, &usize)| self.streams[**stream].role == Some(wanted);
            members
                .iter()
                .filter(with_role)
                .map(|(id, _)| id.clone())
                .collect()
        };
        let (audience, clients): (Audience, usize) = match &to {
            To::All => (Audience::All, members.len()),
            To::One(id) => {
                let clients = usize::from(members.contains_key(id));
                (Audience::Ids([id.clone()].into()), clients)
            }
            To::AllBut(id) => {
                let clients = members.len() - usize::from(members.contains_key(id));
                (Audience::AllBut(id.clone()), clients)
            }
            To::Role(role) => {
                let ids: BTreeSet<String> = roles(*role);
                (Audience::Role(*role), ids.len())
            }
            To::NotRole(role) => {
                let ids: BTreeSet<String> = roles(*role);
                (Audience::NotRole(*role), members.len() - ids.len())
            }
            To::Filter(role) => {
                let ids: BTreeSet<String> = roles(*role);
                let clients = ids.len();
                (Audience::Ids(ids), clients)
            }
        };
        let has_members = !members.is_empty();
        let channel = self.topics[topic].channel.clone();
        let result = match to.clone() {
            To::All if count == 1 => channel.broadcast(&events[0]),
            To::All => channel.broadcast_batch(&events),
            To::One(id) if count == 1 => channel.send(&id, &events[0]),
            To::One(id) => channel.send_batch(&id, &events),
            To::AllBut(id) => {
                assert_eq!(count, 1, "there is no call for several");
                channel.broadcast_except(&id, &events[0])
            }
            To::Role(role) | To::NotRole(role) => {
                let conditions = [match to {
                    To::NotRole(_) => Condition::not("role", role.to_string()),
                    _ => Condition::new("role", role.to_string()),
                }];
                match count {
                    1 => channel.broadcast_where(&conditions, &events[0]),
                    _ => channel.broadcast_batch_where(&conditions, &events),
                }
            }
            To::Filter(role) => {
                assert_eq!(count, 1, "a filter is for one event");
                let is_wanted = |candidate: &pushwheel::Candidate| {
                    // A filter may call back into the engine.
                    assert!(channel.has_client(&candidate.id));
                    candidate.metadata["role"] == role
                };
                channel.broadcast_to(is_wanted, &events[0])
            }
        };
        let is_work = has_members && result.as_ref().is_ok_and(|published| published.events > 0);
        self.take_result(topic, &result, drafts, &to, &audience, clients);
        is_work
    }

    /// Has some events repeated exactly, and others published to all clients but
    /// some, in the eras that do that.
    fn vary(&mut self, topic: usize, to: To, drafts: Vec<Draft>) -> (To, Vec<Draft>) {
        let known_from_ms = self.now().saturating_sub(REMEMBERED_MS);
        let Some(rng) = &mut self.repetitions else {
            return (to, drafts);
        };
        if rng.u32(0..12) == 0 {
            let back = rng.usize(0..5);
            let entries = self.topics[topic].entries.iter().rev();
            let mut own = entries
                .map(|entry| &self.published[*entry])
                .filter(|publication| publication.draft.id.is_some())
                .filter(|publication| publication.at_ms >= known_from_ms);
            if let Some(publication) = own.nth(back) {
                let repeated = vec![publication.draft.clone()];
                return (publication.to.clone(), repeated);
            }
        }
        let to = match to {
            To::One(id) if drafts.len() == 1 && rng.u32(0..4) == 0 => To::AllBut(id),
            To::Role(role) if rng.bool() => To::NotRole(role),
            to => to,
        };
        (to, drafts)
    }

    /// Which of the drafts are to be appended, without a topic to all channels; `None`:
    /// all are refused, because
    /// an id is that of another event.
    pub(super) fn fresh(
        &self,
        topic: Option<usize>,
        drafts: &[Draft],
        to: &To,
    ) -> Option<Vec<bool>> {
        let key = |to: &To| match to {
            To::Filter(_) => "a filter".to_owned(),
            other => format!("{other:?}"),
        };
        let mut known: BTreeMap<&str, (&Draft, String)> = BTreeMap::new();
        // An id is known by the channel's name, whichever channel has it now, or of all
        // channels, and for a time.
        let name = topic.map(|topic| &self.topics[topic].name);
        let same = self.topics.iter().filter(|topic| Some(&topic.name) == name);
        for entry in same.flat_map(|topic| &topic.entries) {
            let publication = &self.published[*entry];
            if let Some(id) = &publication.draft.id
                && !publication.is_for_all
                && self.is_remembered(publication.at_ms)
            {
                let event = (&publication.draft, key(&publication.to));
                known.entry(id).or_insert(event);
            }
        }
        for event in &self.everywhere {
            if let Some(id) = &event.draft.id
                && self.is_remembered(event.at_ms)
            {
                known.entry(id).or_insert((&event.draft, key(&To::All)));
            }
        }
        let mut fresh = Vec::new();
        for draft in drafts {
            let Some(id) = &draft.id else {
                fresh.push(true);
                continue;
            };
            match known.get(&**id) {
                None => {
                    known.insert(id, (draft, key(to)));
                    fresh.push(true);
                }
                Some((first, target)) if *first == draft && *target == key(to) => fresh.push(false),
                Some(_) => return None,
            }
        }
        Some(fresh)
    }

    /// Whether an own id that was published then is still known.
    pub(super) fn is_remembered(&self, at_ms: u64) -> bool {
        self.now() - at_ms <= REMEMBERED_MS
    }

    fn take_result(
        &mut self,
        topic: usize,
        result: &Result<Published, PublishError>,
        drafts: Vec<Draft>,
        to: &To,
        audience: &Audience,
        clients: usize,
    ) {
        let state = &self.topics[topic];
        let fresh = self.fresh(Some(topic), &drafts, to);
        let published = match result {
            Ok(published) => published,
            Err(PublishError::IdReused { .. }) if fresh.is_none() => {
                return self.count("events refused for their ids");
            }
            Err(PublishError::Closed) if !state.is_there() => return,
            Err(PublishError::Finished) if state.is_finished() && state.is_there() => return,
            Err(error) => return self.fail(format!("a publisher was refused: {error:?}")),
        };
        let Some(fresh) = fresh else {
            return self.fail("an id was taken for a second event");
        };
        let count = fresh.iter().filter(|is_fresh| **is_fresh).count();
        if published.duplicates != drafts.len() - count {
            self.fail(format!(
                "of {} events, {} are repetitions, not {}",
                drafts.len(),
                drafts.len() - count,
                published.duplicates
            ));
        }
        if count == 0 {
            self.count("events published twice");
            let id = drafts.last().and_then(|draft| draft.id.clone());
            if (published.events, published.clients) != (0, 0) || text_of(published) != id {
                self.fail(format!("a repetition of {id:?} was {published:?}"));
            }
            return;
        }
        let state = &self.topics[topic];
        if state.is_closed() || state.is_finished() {
            return self.fail("a closed or finished channel took an event");
        }
        if !self.is_right(topic, published.clients, clients) {
            let name = &state.name;
            let got = published.clients;
            self.fail(format!(
                "an event in {name} was said to be for {got} clients, not {clients}"
            ));
        }
        if published.events != count {
            self.fail(format!("{} events of {count} were taken", published.events));
        }
        let mut id = String::new();
        for (draft, is_fresh) in drafts.into_iter().zip(fresh) {
            id = match is_fresh {
                true => self.enter(topic, draft, to.clone(), audience.clone()),
                false => draft.id.expect("it was found by its id"),
            };
        }
        let given = text_of(published).unwrap_or_default();
        if given != id {
            self.fail(format!("an event has the id {given}, not {id}"));
        }
    }

    /// Enters an event that was published next.
    fn enter(&mut self, topic: usize, draft: Draft, to: To, audience: Audience) -> String {
        self.count("events");
        self.sequence += 1;
        let (sequence, at_ms) = (self.sequence, self.now());
        self.enter_at(topic, draft, to, audience, (sequence, at_ms))
    }

    /// Enters an event for all channels in one of them.
    pub(super) fn enter_in(&mut self, topic: usize, event: &Everywhere) -> String {
        let moment = (event.sequence, event.at_ms);
        let draft = event.draft.clone();
        let id = self.enter_at(topic, draft, To::All, Audience::All, moment);
        if let Some(copy) = self.published.last_mut() {
            copy.is_for_all = true;
        }
        id
    }

    pub(super) fn enter_at(
        &mut self,
        topic: usize,
        draft: Draft,
        to: To,
        audience: Audience,
        (sequence, at_ms): (u64, u64),
    ) -> String {
        let is_uncertain = self.is_uncertain(topic, &to);
        let copy = draft.clone();
        let number = self.published.len();
        let id = draft.id.clone().unwrap_or_else(|| self.id_of(sequence));
        self.by_id.entry(id.clone()).or_default().push(number);
        self.by_sequence.insert((sequence, number));
        self.topics[topic].entries.push(number);
        let lines = draft.data.matches(['\r', '\n']).count();
        let named = match &audience {
            Audience::Ids(ids) => ids.len(),
            _ => 0,
        };
        self.published.push(Publication {
            topic,
            draft: copy,
            to,
            is_uncertain,
            is_for_all: false,
            sequence,
            at_ms,
            id: id.clone(),
            name: draft.name.unwrap_or_else(|| "message".to_owned()),
            bytes_max: draft.data.len() + 7 * lines + 64 * named + OVERHEAD_BYTES_MAX,
            data: draft.data.replace("\r\n", "\n").replace('\r', "\n"),
            audience,
            removes: draft.removes,
            key: draft.key,
        });
        id
    }

    /// Whether events may be meant for a client that is away, or that comes back under
    /// another id.
    pub(super) fn is_uncertain(&self, topic: usize, to: &To) -> bool {
        match to {
            To::Filter(_) => true,
            // A generated id is a UUID; no client chooses one here.
            To::One(id) => id.len() == 36 && self.topics[topic].members.contains_key(id),
            _ => false,
        }
    }

    fn draft(&mut self) -> Draft {
        let number = self.published.len() + self.rng.usize(0..1_000_000) * 1_000_000;
        let rng = &mut self.rng;
        let length = match rng.u32(0..40) {
            0 => rng.usize(1_000..12_000),
            1..8 => rng.usize(100..1_000),
            _ => rng.usize(0..60),
        };
        let mut data = format!("{number}:");
        while data.len() < length {
            data.push_str(
                rng.choice(["abcdefgh", "é", "\n", "\r\n", "data: x", " ", "\u{feff}"])
                    .unwrap(),
            );
        }
        let mut draft = Draft {
            name: (rng.u32(0..3) == 0).then(|| format!("name-{}", rng.u8(0..3))),
            id: (rng.u32(0..12) == 0).then(|| format!("own.{number}")),
            key: (rng.u32(0..3) == 0).then(|| format!("key-{}", rng.u8(0..4))),
            data,
            removes: false,
        };
        let mut is_plain = false;
        if let Some(key) = draft.key.clone()
            && let Some(removals) = &mut self.removals
            && removals.u32(0..4) == 0
        {
            draft.removes = true;
            is_plain = removals.bool();
            if is_plain {
                let plain = Event::removal(key);
                draft.name = plain.name().map(str::to_owned);
                plain.data().clone_into(&mut draft.data);
            }
        }
        if draft.id.is_some() {
            // Two plain removals of a key have the same data: with one id as well,
            // in two channels, what a client reads does not say which it is.
            let repeated = self.repeated_id().filter(|_| !is_plain);
            draft.id = repeated.or(draft.id);
        }
        draft
    }

    /// One of the last ids of publishers' own, now and then. A publisher does not give an
    /// id again that the engine may have forgotten.
    fn repeated_id(&mut self) -> Option<String> {
        let back = self.repeats.as_mut()?.usize(0..8);
        let newest_first = self.published.iter().rev();
        let mut own = newest_first.filter(|event| event.id.starts_with("own."));
        let event = own.nth(back).filter(|_| back < 4)?;
        self.is_remembered(event.at_ms).then(|| event.id.clone())
    }

    /// Publishes to all channels.
    pub fn publish_everywhere(&mut self) -> bool {
        self.note_the_over();
        let mut draft = self.draft();
        let open: Vec<usize> = self.current.values().copied().collect();
        let open = open.into_iter().filter(|topic| {
            let topic = &self.topics[*topic];
            !topic.is_closed() && !topic.is_finished()
        });
        let open: Vec<usize> = open.collect();
        // Where no channel has the event, the record here would lack it.
        let may_have_id = self.has_own_ids_for_all && !open.is_empty();
        draft.id = draft.id.filter(|_| may_have_id);
        if self.proposed.is_some() {
            self.propose_everywhere(draft);
            return false;
        }
        let fresh = self.fresh(None, std::slice::from_ref(&draft), &To::All);
        let published = match self.manager.broadcast_all(draft.event()) {
            Ok(published) => published,
            Err(PublishError::IdReused { .. }) if fresh.is_none() => {
                self.count("events to all refused for their ids");
                return false;
            }
            Err(error) => {
                self.fail(format!("an event to all was refused: {error:?}"));
                return false;
            }
        };
        if fresh.is_none_or(|fresh| fresh == [false]) {
            self.count("events to all published twice");
            if (published.events, published.duplicates) != (0, 1) {
                self.fail(format!("a repetition to all was {published:?}"));
            }
            return false;
        }
        self.count("events to all");
        self.sequence += 1;
        let id = draft.id.clone();
        let id = id.unwrap_or_else(|| self.id_of(self.sequence));
        let event = Everywhere {
            draft,
            sequence: self.sequence,
            at_ms: self.now(),
        };
        let expected = self.enter_everywhere(event);
        let is_right = expected.contains(&published.clients);
        if !is_right || (published.events, text_of(&published)) != (1, Some(id)) {
            self.fail(format!(
                "an event to all was {published:?}, for {expected:?} streams"
            ));
        }
        *expected.end() > 0
    }

    /// Whether the engine may say that `said` clients of a channel were meant
    /// where there are `clients`. A stream that one of its channels disconnected
    /// may leave the others before its end is reported.
    fn is_right(&self, topic: usize, said: usize, clients: usize) -> bool {
        let members = self.topics[topic].members.values();
        let on_the_way_out = members.filter(|stream| self.is_sent_away(**stream)).count();
        said <= clients && clients <= said + on_the_way_out
    }

    /// Whether a stream of several channels was sent away from one of them, and
    /// its end is yet to be sent.
    pub(super) fn is_sent_away(&self, stream: usize) -> bool {
        let stream = &self.streams[stream];
        let mut topics = stream.topics.iter().map(|topic| &self.topics[*topic]);
        let is_sent_away = stream.is_kicked || stream.is_replaced;
        let is_sent_away = is_sent_away || topics.any(|topic| topic.is_closed());
        // An engine that fails takes all out before it reports the first.
        (stream.topics.len() > 1 && is_sent_away) || self.has_failed
    }

    pub fn finish(&mut self, topic: usize) -> bool {
        self.note_the_over();
        let mut draft = self.rng.bool().then(|| self.draft());
        if let Some((finishes, draft)) = self.finishes.as_mut().zip(draft.as_mut()) {
            let more = finishes.rng.usize(0..finishes.last_bytes_max);
            if !draft.removes {
                draft.data.push_str(&"x".repeat(more));
            }
        }
        if self.proposed.is_some() {
            self.propose_finish(topic, draft);
            return false;
        }
        let state = &self.topics[topic];
        let event = draft.as_ref().map(Draft::event);
        let clients = state.members.len();
        let fresh = self.fresh(Some(topic), draft.as_slice(), &To::All);
        match state.channel.finish(event) {
            Err(PublishError::IdReused { .. }) if fresh.is_none() => false,
            Ok(said) => {
                let Some(fresh) = fresh else {
                    self.fail("an id was taken for a second event, the last");
                    return false;
                };
                let draft = draft.filter(|_| fresh == [true]);
                let is_over = state.is_closed() || state.is_finished();
                if is_over || !self.is_right(topic, said, clients) {
                    self.fail("a channel was finished wrongly");
                }
                if let Some(draft) = draft {
                    self.enter(topic, draft, To::All, Audience::All);
                }
                self.topics[topic].finished_at = Some(self.now());
                self.count("channels finished");
                clients > 0
            }
            Err(_) if state.is_closed() || state.is_finished() => false,
            Err(error) => {
                self.fail(format!("a channel was not finished: {error:?}"));
                false
            }
        }
    }

    pub fn close(&mut self, topic: usize) -> bool {
        self.note_the_over();
        if self.proposed.is_some() {
            // What is gone may be of a process that has ended.
            if self.topics[topic].is_there() {
                self.propose_close(topic);
            }
            return false;
        }
        let state = &mut self.topics[topic];
        let clients = match self.rng.bool() {
            true => state.channel.close(),
            false => {
                let clients = state.channel.client_count();
                let is_there = !state.channel.is_closed();
                // By name, if the name is still this channel's.
                if is_there && self.current.get(&state.name) == Some(&topic) {
                    self.manager.remove(&state.name);
                } else {
                    state.channel.close();
                }
                clients
            }
        };
        let members = state.members.len();
        if !self.is_right(topic, clients, members) {
            self.fail(format!("{clients} clients were closed, not {members}"));
        }
        self.note_closed(topic)
    }

    /// A channel was closed. Says whether it had clients.
    pub(super) fn note_closed(&mut self, topic: usize) -> bool {
        let now = self.now();
        let state = &mut self.topics[topic];
        if state.is_full() {
            state.full_at = Some(now);
        }
        state.closed_at = Some(now);
        let members = std::mem::take(&mut state.members);
        self.sent_away.extend(members.values());
        self.count("channels closed");
        !members.is_empty()
    }

    pub fn close_all(&mut self) {
        for topic in 0..self.topics.len() {
            self.close(topic);
        }
    }

    pub fn kick(&mut self, topic: usize, id: &str) -> bool {
        self.note_the_over();
        let now = self.now();
        let state = &mut self.topics[topic];
        let was_there = state.channel.disconnect(id);
        let member = state.remove_member(id, now);
        let is_on_its_way = member.is_some_and(|stream| self.is_sent_away(stream));
        if was_there != member.is_some() && !is_on_its_way {
            self.fail(format!("kicking {id} says {was_there}"));
        }
        if let Some(stream) = member {
            self.streams[stream].is_kicked = true;
            self.sent_away.push(stream);
            self.count("kicks");
        }
        was_there
    }

    /// The network has seen the client take something.
    pub fn on_taken(&mut self, number: usize, at: u64) {
        let stream = &mut self.streams[number];
        let pause_ms = at - stream.taken_at.min(at);
        stream.pause_ms_max = stream.pause_ms_max.max(pause_ms);
        stream.taken_at = at;
    }

    pub fn feed(&mut self, stream: usize) -> bool {
        let mut draft = self.draft();
        draft.id = None;
        draft.removes = false;
        draft.name = draft.name.filter(|name| name.starts_with("name-"));
        let Some(sink) = &mut self.streams[stream].sink else {
            return false;
        };
        let Some(handle) = &sink.handle else {
            return false;
        };
        match handle.try_send(draft.event()) {
            Ok(()) => {
                let data = draft.data.replace("\r\n", "\n").replace('\r', "\n");
                sink.sent.push(data);
                self.sent_to_sinks += 1;
                self.count("events to sinks");
                true
            }
            Err(SinkError::Full) => false,
            Err(SinkError::Ended(reason)) if handle.ended() == Some(reason) => false,
            Err(error) => {
                self.fail(format!("a sink refuses: {error:?}"));
                false
            }
        }
    }
}

/// An event that was published to all channels.
#[derive(Clone, Debug)]
pub(super) struct Everywhere {
    draft: Draft,
    pub(super) sequence: u64,
    at_ms: u64,
}

/// An event to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Draft {
    name: Option<String>,
    pub(super) id: Option<String>,
    key: Option<String>,
    data: String,
    removes: bool,
}

impl Everywhere {
    pub(super) fn new(draft: Draft, sequence: u64, at_ms: u64) -> Everywhere {
        Everywhere {
            draft,
            sequence,
            at_ms,
        }
    }
}

impl Draft {
    /// An event with nothing but its data.
    pub(super) fn plain(data: String) -> Draft {
        Draft {
            name: None,
            id: None,
            key: None,
            data,
            removes: false,
        }
    }

    /// The gap that a log places where events may be lost.
    pub(super) fn lost(id: &str) -> Draft {
        let gap = serde_json::json!({
            "requested": null,
            "oldest": null,
            "newest": id,
            "reason": "lost",
        });
        Draft {
            name: Some(GAP.to_owned()),
            id: None,
            key: None,
            data: gap.to_string(),
            removes: false,
        }
    }

    pub(super) fn event(&self) -> Event<'_> {
        let mut event = Event::message(&*self.data);
        if let Some(name) = &self.name {
            event = event.with_name(name);
        }
        if let Some(id) = &self.id {
            event = event.with_id(id);
        }
        if let Some(key) = &self.key {
            event = event.with_key(key);
        }
        if self.removes {
            event = event.removing();
        }
        event
    }
}
