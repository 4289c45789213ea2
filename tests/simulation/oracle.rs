//! What must have happened: a second, slow and simple telling of what the
//! engine promises, which shares no code with it.
//!
//! It knows every event that was published, for whom, and in which order; when
//! each client subscribed, and from where on; and it holds what each client
//! reads against that. What it finds wrong it keeps in [`Oracle::failures`],
//! because some of it is found in callbacks, where a panic would be caught.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use pushwheel::{
    Channel, ChannelManager, ChannelOptions, ClientInfo, Condition, DisconnectReason, Event,
    History, LagPolicy, PublishError, Published, Responder, Response, Sink, SinkError,
};

use super::sse::Dispatched;

/// What an entry may cost beyond its data, by far.
const OVERHEAD_BYTES_MAX: usize = 700;
/// How late things may be beyond what was promised: latency, late readiness,
/// the turns of small budgets.
pub const SLACK_MS: u64 = 500;

/// The options of a topic, as drawn.
#[derive(Clone, Debug)]
pub struct Plan {
    pub history: History,
    pub heartbeat_ms: u64,
    pub backlog_bytes_max: usize,
    pub clients_max: usize,
    pub policy: LagPolicy,
}

impl Plan {
    pub fn options(&self) -> ChannelOptions {
        ChannelOptions::new()
            .history(self.history)
            .heartbeat(std::time::Duration::from_millis(self.heartbeat_ms))
            .backlog_bytes_max(self.backlog_bytes_max)
            .max_clients(self.clients_max)
            .lag_policy(self.policy)
            .finished_for(std::time::Duration::from_secs(3))
    }

    fn conflates(&self) -> bool {
        self.policy == LagPolicy::Conflate
    }

    /// What is kept: a conflating channel without a history has one anyway.
    fn kept(&self) -> History {
        if self.conflates() && self.history.is_none() {
            return History::events(1_000).age_max(std::time::Duration::MAX);
        }
        self.history
    }
}

/// One life of a channel.
pub struct Topic {
    pub name: String,
    pub plan: Plan,
    pub channel: Channel,
    /// What is before may be lost to it: it was made then.
    since: u64,
    pub is_finished: bool,
    pub is_closed: bool,
    entries: Vec<usize>,
    /// Who is subscribed: the stream of each client id.
    pub members: BTreeMap<String, usize>,
}

/// For whom an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Audience {
    All,
    Ids(BTreeSet<String>),
    Role(u8),
}

/// An event that was published.
#[derive(Debug)]
struct Publication {
    topic: usize,
    sequence: u64,
    at_ms: u64,
    id: String,
    name: String,
    data: String,
    audience: Audience,
    key: Option<String>,
    bytes_max: usize,
}

/// To whom to publish.
#[derive(Clone, Debug)]
pub enum To {
    All,
    One(String),
    Role(u8),
    /// By a filter that looks at the role.
    Filter(u8),
}

/// From where on a client asks to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    Live,
    Earliest,
    Last(usize),
    After(String),
}

/// One subscription, from its request to its end.
pub struct Stream {
    pub want: Want,
    id: String,
    role: Option<u8>,
    pub topics: Vec<usize>,
    joined: Option<Joined>,
    pub gone: Option<(DisconnectReason, u64)>,
    /// Everything for it up to here has come, or was told to be lost.
    position: Option<u64>,
    is_gap_told: bool,
    welcomes_sent: usize,
    welcomes_got: usize,
    /// The client did something that may end the connection at any time.
    pub is_cut: bool,
    /// Bytes that the client has sent without a reason.
    pub junk_bytes: usize,
    is_replaced: bool,
    is_kicked: bool,
    /// When the client last took something, as the network saw it.
    taken_at: u64,
    /// How long it took nothing, at the most.
    pause_ms_max: u64,
    /// The engine may be waiting until it can write.
    pub is_blocked: bool,
    pub sink: Option<SinkRecord>,
}

impl Stream {
    /// Whether the engine has opened it, though the client may not know yet.
    pub fn is_opened(&self) -> bool {
        self.has_joined() || self.sink.as_ref().is_some_and(|sink| sink.is_opened)
    }

    /// Whether the client has become a member of its channels.
    pub fn has_joined(&self) -> bool {
        self.joined.is_some()
    }
}

struct Joined {
    sequence: u64,
    /// For each topic: what is surely kept at that moment begins here.
    sure_from: Vec<u64>,
}

/// What was sent through a sink.
#[derive(Default)]
pub struct SinkRecord {
    pub handle: Option<Sink>,
    pub is_opened: bool,
    sent: Vec<String>,
    got: usize,
    is_over: bool,
}

/// See the [module](self).
pub struct Oracle {
    clock: Arc<AtomicU64>,
    manager: ChannelManager,
    pub rng: Rng,
    epoch: String,
    pub sequence: u64,
    by_sequence: BTreeMap<u64, usize>,
    by_id: BTreeMap<String, usize>,
    published: Vec<Publication>,
    pub plans: BTreeMap<String, Plan>,
    pub topics: Vec<Topic>,
    current: BTreeMap<String, usize>,
    pub streams: Vec<Stream>,
    /// Requests whose answer comes later, with that answer.
    pub responders: Vec<(Responder, Response)>,
    /// The sequence at a shutdown, and its deadline.
    pub shutdown: Option<(u64, u64)>,
    pub stall_ms: u64,
    pub failures: Vec<String>,
    pub figures: BTreeMap<&'static str, u64>,
}

impl Oracle {
    pub fn new(clock: Arc<AtomicU64>, manager: ChannelManager, rng: Rng) -> Oracle {
        // The first event of all says what ids look like.
        let first = manager.get_or_create("first").expect("a good name");
        let id = first
            .broadcast(Event::message("first"))
            .expect("a good event");
        let id = id.id.to_string();
        let epoch = id
            .strip_suffix("-1")
            .expect("the first sequence number is 1");
        first.close();
        Oracle {
            clock,
            manager,
            rng,
            epoch: epoch.to_owned(),
            sequence: 1,
            by_sequence: BTreeMap::new(),
            by_id: BTreeMap::new(),
            published: Vec::new(),
            plans: BTreeMap::new(),
            topics: Vec::new(),
            current: BTreeMap::new(),
            streams: Vec::new(),
            responders: Vec::new(),
            shutdown: None,
            stall_ms: 0,
            failures: Vec::new(),
            figures: BTreeMap::new(),
        }
    }

    pub fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn fail(&mut self, what: impl Into<String>) {
        let what = format!("at {} ms: {}", self.now(), what.into());
        self.failures.push(what);
    }

    pub fn count(&mut self, what: &'static str) {
        *self.figures.entry(what).or_default() += 1;
    }

    fn id_of(&self, sequence: u64) -> String {
        format!("{}-{sequence}", self.epoch)
    }

    /// The sequence number that an id of the engine's names.
    fn parse(&self, id: &str) -> Option<u64> {
        let digits = id.strip_prefix(&self.epoch)?.strip_prefix('-')?;
        let sequence: u64 = digits.parse().ok()?;
        (sequence.to_string() == digits).then_some(sequence)
    }

    // Channels.

    /// The channel of this name, as it is or made anew.
    pub fn open(&mut self, name: &str) -> usize {
        if let Some(&topic) = self.current.get(name)
            && !self.topics[topic].channel.is_closed()
        {
            return topic;
        }
        if let Some(&topic) = self.current.get(name) {
            let old = &mut self.topics[topic];
            // Only what is finished goes without a word.
            let is_expected = old.is_closed || (old.is_finished && old.members.is_empty());
            old.is_closed = true;
            if !is_expected {
                self.fail(format!("the channel {name} is gone, and nobody removed it"));
            }
        }
        let plan = self.plans[name].clone();
        let channel = self.manager.get_or_create_with(name, || plan.options());
        self.topics.push(Topic {
            name: name.to_owned(),
            plan,
            channel: channel.expect("the name is good"),
            since: self.sequence,
            is_finished: false,
            is_closed: false,
            entries: Vec::new(),
            members: BTreeMap::new(),
        });
        self.current.insert(name.to_owned(), self.topics.len() - 1);
        self.topics.len() - 1
    }

    /// Publishes `count` events at once. Says whether that is work for the
    /// engine.
    pub fn publish(&mut self, topic: usize, to: To, count: usize) -> bool {
        let drafts: Vec<Draft> = (0..count).map(|_| self.draft()).collect();
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
            To::Role(role) => {
                let ids: BTreeSet<String> = roles(*role);
                (Audience::Role(*role), ids.len())
            }
            To::Filter(role) => {
                let ids: BTreeSet<String> = roles(*role);
                let clients = ids.len();
                (Audience::Ids(ids), clients)
            }
        };
        let has_members = !members.is_empty();
        let channel = self.topics[topic].channel.clone();
        let result = match to {
            To::All if count == 1 => channel.broadcast(&events[0]),
            To::All => channel.broadcast_batch(&events),
            To::One(id) if count == 1 => channel.send(&id, &events[0]),
            To::One(id) => channel.send_batch(&id, &events),
            To::Role(role) => {
                let conditions = [Condition::new("role", role.to_string())];
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
        self.take_result(topic, &result, drafts, &audience, clients);
        result.is_ok() && has_members
    }

    fn take_result(
        &mut self,
        topic: usize,
        result: &Result<Published, PublishError>,
        drafts: Vec<Draft>,
        audience: &Audience,
        clients: usize,
    ) {
        let state = &self.topics[topic];
        let published = match result {
            Ok(published) => published,
            Err(PublishError::Closed) if state.is_closed || state.is_finished => return,
            Err(PublishError::Finished) if state.is_finished => return,
            Err(error) => return self.fail(format!("a publisher was refused: {error:?}")),
        };
        if state.is_closed || state.is_finished {
            return self.fail("a closed or finished channel took an event");
        }
        if published.clients != clients {
            let name = &state.name;
            let got = published.clients;
            self.fail(format!(
                "an event in {name} was said to be for {got} clients, not {clients}"
            ));
        }
        if published.events != drafts.len() {
            self.fail(format!(
                "{} events of {} were taken",
                published.events,
                drafts.len()
            ));
        }
        let mut id = String::new();
        for draft in drafts {
            id = self.enter(topic, draft, audience.clone());
        }
        if published.id.to_string() != id {
            self.fail(format!("an event has the id {}, not {id}", published.id));
        }
    }

    /// Enters an event that was published next.
    fn enter(&mut self, topic: usize, draft: Draft, audience: Audience) -> String {
        self.count("events");
        self.sequence += 1;
        let number = self.published.len();
        let id = draft
            .id
            .clone()
            .unwrap_or_else(|| self.id_of(self.sequence));
        self.by_id.insert(id.clone(), number);
        self.by_sequence.insert(self.sequence, number);
        self.topics[topic].entries.push(number);
        let lines = draft.data.matches(['\r', '\n']).count();
        let people = match &audience {
            Audience::Ids(ids) => ids.len(),
            _ => self.topics[topic].members.len(),
        };
        self.published.push(Publication {
            topic,
            sequence: self.sequence,
            at_ms: self.now(),
            id: id.clone(),
            name: draft.name.unwrap_or_else(|| "message".to_owned()),
            bytes_max: draft.data.len() + 7 * lines + 64 * people + OVERHEAD_BYTES_MAX,
            data: draft.data.replace("\r\n", "\n").replace('\r', "\n"),
            audience,
            key: draft.key,
        });
        id
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
        Draft {
            name: (rng.u32(0..3) == 0).then(|| format!("name-{}", rng.u8(0..3))),
            id: (rng.u32(0..12) == 0).then(|| format!("own.{number}")),
            key: (rng.u32(0..3) == 0).then(|| format!("key-{}", rng.u8(0..4))),
            data,
        }
    }

    /// Publishes to all channels.
    pub fn publish_everywhere(&mut self) -> bool {
        let mut draft = self.draft();
        draft.id = None;
        let result = self.manager.broadcast_all(draft.event());
        let open: Vec<usize> = self.current.values().copied().collect();
        let open = open.into_iter().filter(|topic| {
            let topic = &self.topics[*topic];
            !topic.is_closed && !topic.is_finished
        });
        let open: Vec<usize> = open.collect();
        // In which order is the engine's affair; the logs tell which it was.
        let mut unknown = Vec::new();
        let mut order = BTreeMap::new();
        for &topic in &open {
            let stats = self.topics[topic].channel.stats();
            let newest = stats.and_then(|stats| self.parse(&stats.newest?.to_string()));
            match newest.filter(|newest| *newest > self.sequence) {
                Some(newest) => drop(order.insert(newest, topic)),
                None => unknown.push(topic),
            }
        }
        // Of those that keep nothing and have no clients nobody can tell which
        // came first, nor can anybody have got anything.
        let in_doubt = unknown.clone();
        let (mut clients, mut id, mut events) = (0, String::new(), 0);
        for _ in &open {
            let next = order.remove(&(self.sequence + 1));
            let next = next.or_else(|| unknown.pop());
            let topic = next.expect("as many numbers as channels");
            clients += self.topics[topic].members.len();
            events += 1;
            let audience = match in_doubt.contains(&topic) {
                true => Audience::Ids(BTreeSet::new()),
                false => Audience::All,
            };
            id = self.enter(topic, draft.clone(), audience);
        }
        for topic in in_doubt {
            self.topics[topic].since = self.sequence;
        }
        match result {
            Ok(published) if events > 0 => {
                let said = (
                    published.events,
                    published.clients,
                    published.id.to_string(),
                );
                if said != (events, clients, id) {
                    self.fail(format!("an event to all was {said:?}"));
                }
            }
            Ok(_) => {}
            Err(error) => self.fail(format!("an event to all was refused: {error:?}")),
        }
        clients > 0
    }

    pub fn finish(&mut self, topic: usize) -> bool {
        let draft = self.rng.bool().then(|| self.draft());
        let state = &self.topics[topic];
        let event = draft.as_ref().map(Draft::event);
        let clients = state.members.len();
        match state.channel.finish(event) {
            Ok(said) => {
                if state.is_closed || state.is_finished || said != clients {
                    self.fail("a channel was finished wrongly");
                }
                if let Some(draft) = draft {
                    self.enter(topic, draft, Audience::All);
                }
                self.topics[topic].is_finished = true;
                self.count("channels finished");
                clients > 0
            }
            Err(_) if state.is_closed || state.is_finished => false,
            Err(error) => {
                self.fail(format!("a channel was not finished: {error:?}"));
                false
            }
        }
    }

    pub fn close(&mut self, topic: usize) -> bool {
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
        state.is_closed = true;
        let members = std::mem::take(&mut state.members);
        if clients != members.len() {
            self.fail(format!(
                "{clients} clients were closed, not {}",
                members.len()
            ));
        }
        self.count("channels closed");
        !members.is_empty()
    }

    pub fn kick(&mut self, topic: usize, id: &str) -> bool {
        let state = &mut self.topics[topic];
        let was_there = state.channel.disconnect(id);
        let member = state.members.remove(id);
        if was_there != member.is_some() {
            self.fail(format!("kicking {id} says {was_there}"));
        }
        if let Some(stream) = member {
            self.streams[stream].is_kicked = true;
            self.count("kicks");
        }
        was_there
    }

    // Sinks.

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
                self.sequence += 1;
                self.count("events to sinks");
                true
            }
            Err(SinkError::Full | SinkError::Gone) => false,
            Err(error) => {
                self.fail(format!("a sink refuses: {error:?}"));
                false
            }
        }
    }

    // Subscriptions.

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
            is_gap_told: false,
            welcomes_sent: 0,
            welcomes_got: 0,
            is_cut: false,
            junk_bytes: 0,
            is_replaced: false,
            is_kicked: false,
            taken_at,
            pause_ms_max: 0,
            is_blocked: false,
            sink: None,
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
                self.count("replacements");
            }
        }
        let sure_from = topics.iter().map(|topic| self.sure_from(*topic)).collect();
        let sequence = self.sequence;
        let stream = &mut self.streams[number];
        stream.joined = Some(Joined {
            sequence,
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
            let own = self.by_id.get(id).map(|number| &self.published[*number]);
            let own = own.filter(|own| stream.topics.contains(&own.topic));
            let own = own.map(|own| own.sequence);
            let ours = self.parse(id).filter(|at| *at <= sequence);
            self.streams[number].position = own.or(ours);
        }
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
            Err(_) if self.topics[topic].is_finished => {}
            Err(error) => self.fail(format!("a welcome was refused: {error:?}")),
        }
    }

    pub fn on_disconnect(&mut self, number: usize, info: &ClientInfo, reason: DisconnectReason) {
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
            DisconnectReason::Finished => topics.all(|topic| topic.is_finished || topic.is_closed),
            DisconnectReason::Shutdown => self.shutdown.is_some(),
            DisconnectReason::Misbehaved => stream.junk_bytes >= 100,
            DisconnectReason::Stalled => {
                let pause_ms = stream.pause_ms_max.max(now - stream.taken_at);
                pause_ms + SLACK_MS >= self.stall_ms
            }

            DisconnectReason::Lagged => self.may_lag(number),
            _ => false,
        };
        *self.figures.entry(reason.as_str()).or_default() += 1;
        if !is_legal {
            self.fail(format!(
                "stream {number} was ended as {reason} without a cause"
            ));
        }
    }

    /// Whether enough was published after what the client has for the log to
    /// have lost some of it.
    fn may_lag(&self, number: usize) -> bool {
        let stream = &self.streams[number];
        let position = stream.position.unwrap_or(0);
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
    fn sure_from(&self, topic: usize) -> u64 {
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

    fn is_for(&self, stream: &Stream, publication: &Publication) -> bool {
        stream.topics.contains(&publication.topic)
            && match &publication.audience {
                Audience::All => true,
                Audience::Ids(ids) => ids.contains(&stream.id),
                Audience::Role(role) => stream.role == Some(*role),
            }
    }

    /// Whether a newer event of the same key, for the same people at least,
    /// has taken its place.
    fn is_conflated(&self, publication: &Publication) -> bool {
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
    fn is_excused(&self, stream: &Stream, publication: &Publication) -> bool {
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
        let asks_for_all = matches!(stream.want, Want::After(_)) && !stream.is_gap_told;
        let is_gone = !asks_for_all && publication.sequence < sure_from;
        let conflates = self.topics[publication.topic].plan.conflates();
        let is_unkeyed = publication.key.is_none() || !conflates;
        let is_unkeyed = stream.want == Want::Live && is_unkeyed;
        is_gone || is_unkeyed
    }

    /// The first event for the stream after its position and up to `through`
    /// that it has not got and must get.
    fn missing(&self, number: usize, through: u64) -> Option<&Publication> {
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
        let topics = self.streams[number].topics.iter();
        let beats: Vec<u64> = topics.map(|t| self.topics[*t].plan.heartbeat_ms).collect();
        beats
            .iter()
            .all(|ms| *ms > 0)
            .then(|| beats.into_iter().max())?
    }

    // What clients read.

    /// The stream has said an id, but no event with it: where it begins.
    pub fn on_id(&mut self, number: usize, id: &str) {
        let Some(at) = self.parse(id) else {
            return self.fail(format!("stream {number} begins at {id:?}, which is no id"));
        };
        let stream = &self.streams[number];
        let Some(joined) = &stream.joined else {
            return self.fail("a stream that nobody opened");
        };
        let mut wrong = None;
        let all = self
            .by_sequence
            .range(..=joined.sequence)
            .map(|(_, n)| &self.published[*n]);
        let admitted: Vec<_> = all.filter(|p| self.is_for(stream, p)).collect();
        let wanted = admitted.iter().copied();
        let wanted = wanted.filter(|p| !self.is_conflated(p));
        let sure = |p: &&Publication| {
            let lane = stream
                .topics
                .iter()
                .position(|t| *t == p.topic)
                .expect("it is for it");
            p.sequence >= joined.sure_from[lane]
        };
        match &stream.want {
            Want::Live => {
                let begins_wrongly = stream.position.is_some_and(|position| position != at);
                if begins_wrongly || at > joined.sequence {
                    wrong = Some("a live stream begins elsewhere".to_owned());
                }
            }
            Want::Earliest => {
                if let Some(lost) = wanted.filter(sure).find(|p| p.sequence <= at) {
                    wrong = Some(format!("the history is said to begin after {}", lost.id));
                }
            }
            Want::Last(count) => {
                let wanted: Vec<_> = wanted.collect();
                let given = wanted.iter().filter(|p| p.sequence > at).count();
                // With those that may have been replaced, or not.
                let given_max = admitted.iter().filter(|p| p.sequence > at).count();
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
        self.streams[number].position = Some(at);
        if let Some(wrong) = wrong {
            self.fail(format!("stream {number}: {wrong} (at {at})"));
        }
    }

    pub fn on_event(&mut self, number: usize, event: &Dispatched) {
        if self.streams[number].sink.is_some() {
            return self.on_sink_event(number, event);
        }
        match event.name.as_str() {
            "pushwheel.gap" => self.on_gap(number, event),
            "welcome" => self.on_welcome(number, event),
            _ => self.on_published(number, event),
        }
    }

    fn on_published(&mut self, number: usize, event: &Dispatched) {
        self.count("deliveries");
        let Some(found) = self.by_id.get(&event.last_event_id) else {
            let id = &event.last_event_id;
            return self.fail(format!(
                "stream {number} got an event {id:?} that nobody published"
            ));
        };
        let publication = &self.published[*found];
        let stream = &self.streams[number];
        let (id, at) = (publication.id.clone(), publication.sequence);
        let mut wrong = None;
        if (&publication.name, &publication.data) != (&event.name, &event.data) {
            wrong = Some(format!("{id} came as {event:?}"));
        } else if !self.is_for(stream, publication) {
            let name = &self.topics[publication.topic].name;
            let audience = &publication.audience;
            wrong = Some(format!("{id} in {name} is not for it: {audience:?}"));
        } else {
            match stream.position {
                None => wrong = Some(format!("{id} came before the stream said where it begins")),
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
                            stream.is_gap_told
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
        self.streams[number].position = Some(at);
        if let Some(wrong) = wrong {
            self.fail(format!("stream {number}: {wrong}"));
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

    fn on_gap(&mut self, number: usize, event: &Dispatched) {
        self.count("gaps");
        let gap: serde_json::Value = serde_json::from_str(&event.data).unwrap_or_default();
        let reason = gap["reason"].as_str().unwrap_or_default();
        let Some(at) = self.parse(&event.last_event_id) else {
            return self.fail(format!("a gap without a position: {event:?}"));
        };
        let stream = &self.streams[number];
        let Some(joined) = &stream.joined else {
            return self.fail("a stream that nobody opened");
        };
        let mut wrong = None;
        if reason == "slow" {
            if !self.may_lag(number) {
                wrong = Some("it was said to be slow and is not");
            }
            if stream.position.is_some_and(|position| position > at) {
                wrong = Some("a gap leads back");
            }
        } else if let Want::After(asked) = &stream.want {
            let is_first = !stream.is_gap_told;
            let lost = |position: u64| {
                stream
                    .topics
                    .iter()
                    .zip(&joined.sure_from)
                    .any(|(topic, sure_from)| {
                        let topic = &self.topics[*topic];
                        let entries = topic
                            .entries
                            .iter()
                            .map(|entry| self.published[*entry].sequence);
                        let mut unsure = entries.filter(|s| *s <= joined.sequence && s < sure_from);
                        topic.since > position || unsure.any(|sequence| sequence > position)
                    })
            };
            let is_ours = self.parse(asked).is_some_and(|at| at <= joined.sequence);
            let is_honest = match reason {
                "evicted" => stream.position.is_some_and(lost),
                "restart" => asked.starts_with("foreign-"),
                // An own id is known as long as its event is kept.
                "unknown" => {
                    !is_ours
                        && !asked.starts_with("foreign-")
                        && stream
                            .position
                            .is_none_or(lost_or_replaced(self, lost, asked))
                }
                _ => false,
            };
            if !is_first || !is_honest || gap["requested"] != asked.as_str() {
                wrong = Some("a gap that is none");
            }
        } else {
            wrong = Some("a gap, though nothing was asked for");
        }
        let stream = &mut self.streams[number];
        stream.position = Some(at);
        stream.is_gap_told = true;
        if let Some(wrong) = wrong {
            let stream = &self.streams[number];
            let want = &stream.want;
            let wrong = format!("stream {number}: {wrong}: {event:?} ({want:?})");
            self.fail(wrong);
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
    pub fn on_end(&mut self, number: usize) {
        let stream = &self.streams[number];
        if stream.is_cut {
            return;
        }
        if let Some(sink) = &stream.sink {
            let stall_ms = self.stall_ms.saturating_sub(SLACK_MS);
            let is_its_fault = stream.pause_ms_max >= stall_ms || stream.junk_bytes >= 100;
            let is_excused = is_its_fault || self.shutdown.is_some();
            let (got, sent) = (sink.got, sink.sent.len());
            if !is_excused && (sink.handle.is_some() || got < sent) {
                self.fail(format!(
                    "a sink's stream ended after {got} events of {sent}"
                ));
            }
            if let Some(sink) = &mut self.streams[number].sink {
                sink.is_over = true;
            }
            return;
        }
        let Some((reason, at)) = stream.gone else {
            // Whoever was sent away may have ended by itself before its turn
            // came; `check_end` sees to it that it is told in the end.
            let mut topics = stream.topics.iter().map(|topic| &self.topics[*topic]);
            let is_sent_away = stream.is_kicked || stream.is_replaced;
            let is_sent_away = is_sent_away || topics.any(|topic| topic.is_closed);
            if stream.joined.is_some() && !is_sent_away {
                self.fail(format!(
                    "stream {number} ended, and on_disconnect was not called"
                ));
            }
            return;
        };
        let through = match (reason, self.shutdown) {
            (DisconnectReason::Finished, _) => u64::MAX,
            (DisconnectReason::Shutdown, Some((sequence, deadline))) if at < deadline => sequence,
            _ => return,
        };
        if stream
            .topics
            .iter()
            .any(|topic| self.topics[*topic].is_closed)
            && reason != DisconnectReason::Finished
        {
            return;
        }
        if let Some(missing) = self.missing(number, through) {
            let missing = missing.id.clone();
            self.fail(format!(
                "stream {number} ended ({reason}) without {missing}"
            ));
        }
        let stream = &self.streams[number];
        if stream.welcomes_got < stream.welcomes_sent {
            self.fail(format!(
                "stream {number} ended ({reason}) without its welcome"
            ));
        }
    }

    /// What a browser that comes back says it has seen must be no more than
    /// what it has.
    pub fn on_reconnect(&mut self, number: usize, last_event_id: &str) {
        let at = self
            .by_id
            .get(last_event_id)
            .map(|n| self.published[*n].sequence);
        let at = at.or(self.parse(last_event_id));
        let position = self.streams[number].position;
        if at.is_some_and(|at| position.is_some_and(|position| at > position)) {
            self.fail(format!("the id {last_event_id} runs ahead of {position:?}"));
        }
    }

    /// A random id from the past.
    pub fn some_id(&mut self) -> Option<String> {
        let newest = self.published.len();
        let back = self.rng.usize(0..newest.clamp(1, 60));
        let publication = self.published.get(newest.checked_sub(back + 1)?)?;
        Some(publication.id.clone())
    }

    /// An id of the engine's own spelling that it has not given yet.
    pub fn future_id(&self) -> String {
        self.id_of(self.sequence + 1_000_000)
    }

    // What must hold at any time.

    pub fn check_counts(&mut self) {
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

    /// The engine has nothing to do: then no log holds what nobody waits for.
    pub fn check_logs(&mut self) {
        let mut wrong = Vec::new();
        for topic in self.topics.iter().filter(|topic| !topic.is_closed) {
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
            let bytes_max = history_max
                .max(topic.plan.backlog_bytes_max)
                .max(largest.unwrap_or(0));
            let (events, bytes) = (stats.history_events, stats.history_bytes);
            if bytes > bytes_max {
                wrong.push(format!(
                    "the log of {} holds {bytes} bytes of {bytes_max}",
                    topic.name
                ));
            }
            let is_awaited = topic.members.values().any(|stream| {
                let state = &self.streams[*stream];
                state.is_blocked
                    || state.position.is_none()
                    || self.missing(*stream, u64::MAX).is_some()
            });
            if !is_awaited && (events > kept.events_max || bytes > history_max) {
                let (name, max) = (&topic.name, kept.events_max);
                wrong.push(format!("the log of {name} holds {events} events ({bytes} bytes) for nobody, beyond {max}"));
            }
        }
        for wrong in wrong {
            self.fail(wrong);
        }
    }

    /// All is over.
    pub fn check_end(&mut self) {
        self.check_counts();
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

/// Whether the event of an own id may be gone from the log.
fn lost_or_replaced<'a>(
    oracle: &'a Oracle,
    lost: impl Fn(u64) -> bool + 'a,
    asked: &'a str,
) -> impl Fn(u64) -> bool + 'a {
    move |position| {
        let own = oracle
            .by_id
            .get(asked)
            .map(|number| &oracle.published[*number]);
        // `position - 1`: the event itself is what must be kept.
        own.is_none_or(|own| oracle.is_conflated(own) || lost(position - 1))
    }
}

/// An event to be.
#[derive(Clone)]
struct Draft {
    name: Option<String>,
    id: Option<String>,
    key: Option<String>,
    data: String,
}

impl Draft {
    fn event(&self) -> Event<'_> {
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
        event
    }
}
