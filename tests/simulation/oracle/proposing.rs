//! What publishers propose to a log, and what the log says of it.
//!
//! The log decides: a record has its effect when it is applied, in the order of the log, and
//! the outcome that its publisher is told has to agree with it.

use std::collections::{BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use pushwheel::internals::LoggedBlock;
use pushwheel::{ClientId, Condition, DisconnectReason, Event, PublishError, Published, Target};

use super::keys::Request;
use super::publishing::{Draft, Everywhere};
use super::{Audience, Oracle, SLACK_MS, To, Topic};

/// What a publisher wants.
#[derive(Debug)]
enum What {
    Publish {
        to: To,
        audience: Audience,
        /// Its clients are chosen when it is proposed.
        is_uncertain: bool,
        drafts: Vec<Draft>,
    },
    /// With a key, to one channel or to several.
    Keyed(Request),
    Everywhere(Draft),
    Finish(Option<Draft>),
    Close,
}

impl What {
    fn drafts(&self) -> &[Draft] {
        match self {
            What::Publish { drafts, .. } => drafts,
            What::Keyed(request) => &request.drafts,
            What::Everywhere(draft) => std::slice::from_ref(draft),
            What::Finish(draft) => draft.as_slice(),
            What::Close => &[],
        }
    }

    /// The numbers that its record takes.
    fn width(&self) -> u64 {
        match self {
            What::Publish { .. } | What::Keyed(_) => self.drafts().len() as u64,
            _ => 1,
        }
    }
}

/// A proposal, whether or not it comes into the log.
#[derive(Debug)]
struct Proposal {
    what: What,
    /// The channel that its publisher has.
    topic: usize,
    /// The newest number when it was proposed.
    basis: u64,
    at_ms: u64,
    /// What its publisher is to be told, once it is in the log.
    expected: Option<Expected>,
    is_told: bool,
}

/// What a publisher is to be told.
#[derive(Debug)]
enum Expected {
    Events {
        id: String,
        events: usize,
        duplicates: usize,
        clients: RangeInclusive<usize>,
    },
    /// What the first request with the key was told: this id.
    Repeated(Request, String),
    Clients(RangeInclusive<usize>),
    Finished,
    Closed,
    IdReused,
}

/// What a publisher is told.
#[derive(Debug)]
enum Outcome {
    Events(Result<Published, PublishError>),
    Clients(Result<usize, PublishError>),
}

impl Outcome {
    fn error(&self) -> Option<&PublishError> {
        match self {
            Outcome::Events(outcome) => outcome.as_ref().err(),
            Outcome::Clients(outcome) => outcome.as_ref().err(),
        }
    }
}

/// What publishers of one process were told and is not looked at yet.
type Outbox = Arc<Mutex<Vec<(usize, Outcome)>>>;

/// A record by which a name has a finished channel, or has none any more.
struct Turn {
    number: u64,
    name: String,
    is_end: bool,
    /// Its channel was removed.
    is_removal: bool,
}

/// What is proposed to a log.
pub struct Proposed {
    /// How long an outcome may take.
    timeout_ms: u64,
    all: Vec<Proposal>,
    /// What is to come into the log, in this order.
    queue: VecDeque<usize>,
    outbox: Outbox,
    turns: Vec<Turn>,
    /// A record is being applied: what callbacks report belongs behind it.
    is_applying: bool,
    /// The streams that have ended meanwhile.
    ended: Vec<(usize, String, DisconnectReason)>,
    /// Nothing is published any more, until a restart.
    has_failed: bool,
}

impl Proposed {
    pub fn new(timeout_ms: u64) -> Proposed {
        Proposed {
            timeout_ms,
            all: Vec::new(),
            queue: VecDeque::new(),
            outbox: Outbox::default(),
            turns: Vec::new(),
            is_applying: false,
            ended: Vec::new(),
            has_failed: false,
        }
    }

    pub(super) fn is_applying(&self) -> bool {
        self.is_applying
    }

    fn turn(&mut self, number: u64, name: String, is_end: bool) {
        let turn = Turn {
            number,
            name,
            is_end,
            is_removal: false,
        };
        self.turns.push(turn);
    }

    fn remove(&mut self, number: u64, name: String) {
        let turn = Turn {
            number,
            name,
            is_end: false,
            is_removal: true,
        };
        self.turns.push(turn);
    }

    /// The end of the channel of a name that the log has, if nothing has begun another one.
    fn end_of(&self, name: &str) -> Option<u64> {
        let mut newest_first = self.turns.iter().rev();
        let newest = newest_first.find(|turn| turn.name == name);
        newest.filter(|turn| turn.is_end).map(|turn| turn.number)
    }

    /// The removal of a name after something was proposed for its channel.
    fn removal_since(&self, name: &str, basis: u64) -> Option<u64> {
        let mut newest_first = self.turns.iter().rev();
        let removal = newest_first.find(|turn| turn.is_removal && turn.name == name);
        let removal = removal.map(|removal| removal.number);
        removal.filter(|removal| basis < *removal)
    }

    /// Whether a name was removed after something was proposed for its channel.
    fn comes_after_removal(&self, name: &str, basis: u64) -> bool {
        self.removal_since(name, basis).is_some()
    }

    /// The log has lost all records behind a number.
    pub(super) fn take_back(&mut self, newest: u64) {
        self.turns.retain(|turn| turn.number <= newest);
    }

    pub(super) fn defer_end(&mut self, number: usize, id: String, reason: DisconnectReason) {
        self.ended.push((number, id, reason));
    }
}

impl Oracle {
    pub(super) fn proposed(&mut self) -> &mut Proposed {
        self.proposed.as_mut().expect("there is a log")
    }

    /// Whether a record is being applied.
    pub(super) fn is_applying(&self) -> bool {
        let proposed = self.proposed.as_ref();
        proposed.is_some_and(Proposed::is_applying)
    }

    /// Notes a proposal. `propose` proposes it, and gets what takes its outcome.
    fn propose(
        &mut self,
        topic: usize,
        what: What,
        propose: impl FnOnce(&mut Oracle, &What, Outbox, usize),
    ) {
        if self.has_ended {
            return;
        }
        let (basis, at_ms) = (self.sequence, self.now());
        let proposed = self.proposed();
        let (outbox, number) = (proposed.outbox.clone(), proposed.all.len());
        propose(self, &what, outbox.clone(), number);
        let proposed = self.proposed();
        proposed.all.push(Proposal {
            what,
            topic,
            basis,
            at_ms,
            expected: None,
            is_told: false,
        });
        let is_told = |(told, _): &(usize, Outcome)| *told == number;
        if !outbox.lock().unwrap().iter().any(is_told) {
            proposed.queue.push_back(number);
            self.count("proposals");
        }
        if !self.is_applying() {
            self.settle();
        }
    }

    pub(super) fn propose_publish(&mut self, topic: usize, to: To, drafts: Vec<Draft>) {
        let audience = self.audience(topic, &to);
        let channel = self.topics[topic].channel.clone();
        let target = match to.clone() {
            To::All => Target::All,
            To::One(id) => Target::Client(ClientId::new(&id).expect("a good id")),
            To::AllBut(id) => Target::Except(ClientId::new(&id).expect("a good id")),
            To::Role(role) => Target::Where(vec![Condition::new("role", role.to_string())]),
            To::NotRole(role) => Target::Where(vec![Condition::not("role", role.to_string())]),
            To::Filter(role) => channel.filter(|candidate| candidate.metadata["role"] == role),
        };
        let what = What::Publish {
            is_uncertain: self.is_uncertain(topic, &to),
            to,
            audience,
            drafts,
        };
        self.propose(topic, what, |_, what, outbox, number| {
            let events: Vec<Event<'_>> = what.drafts().iter().map(Draft::event).collect();
            channel.publish_then(events, target, move |outcome| {
                let mut outbox = outbox.lock().unwrap();
                outbox.push((number, Outcome::Events(outcome)));
            });
        });
    }

    pub(super) fn propose_with_key(&mut self, topic: usize, request: Request) {
        let channels = request.names.iter().map(|name| {
            let topic = self.current[name];
            self.topics[topic].channel.clone()
        });
        let (channels, manager) = (channels.collect::<Vec<_>>(), self.manager.clone());
        let again = request.clone();
        self.propose(topic, What::Keyed(request), |_, _, outbox, number| {
            again.publish(&manager, &channels, move |outcome| {
                let mut outbox = outbox.lock().unwrap();
                outbox.push((number, Outcome::Events(outcome)));
            });
        });
    }

    pub(super) fn propose_everywhere(&mut self, draft: Draft) {
        // The topic is of no account.
        self.propose(
            0,
            What::Everywhere(draft),
            |oracle, what, outbox, number| {
                let events: Vec<Event<'_>> = what.drafts().iter().map(Draft::event).collect();
                let manager = oracle.manager.clone();
                manager.publish_then(&events, Target::All, move |outcome| {
                    let mut outbox = outbox.lock().unwrap();
                    outbox.push((number, Outcome::Events(outcome)));
                });
            },
        );
    }

    pub(super) fn propose_finish(&mut self, topic: usize, draft: Option<Draft>) {
        let channel = self.topics[topic].channel.clone();
        self.propose(topic, What::Finish(draft), |_, what, outbox, number| {
            let event = what.drafts().first().map(Draft::event);
            channel.finish_then(event, move |outcome| {
                let mut outbox = outbox.lock().unwrap();
                outbox.push((number, Outcome::Clients(outcome)));
            });
        });
    }

    pub(super) fn propose_close(&mut self, topic: usize) {
        let channel = self.topics[topic].channel.clone();
        self.propose(topic, What::Close, |_, _, outbox, number| {
            channel.close_then(move |outcome| {
                let mut outbox = outbox.lock().unwrap();
                outbox.push((number, Outcome::Clients(outcome)));
            });
        });
    }

    /// The clients that an event is for.
    pub(super) fn audience(&self, topic: usize, to: &To) -> Audience {
        match to {
            To::All => Audience::All,
            To::One(id) => Audience::Ids([id.clone()].into()),
            To::AllBut(id) => Audience::AllBut(id.clone()),
            To::Role(role) => Audience::Role(*role),
            To::NotRole(role) => Audience::NotRole(*role),
            To::Filter(wanted) => {
                let members = self.topics[topic].members.iter();
                let chosen = members.filter(|(_, s)| self.streams[**s].role == Some(*wanted));
                Audience::Ids(chosen.map(|(id, _)| id.clone()).collect())
            }
        }
    }

    /// Records are about to be applied.
    pub fn begin_applying(&mut self) {
        self.note_the_over();
        self.proposed().is_applying = true;
    }

    /// A block has been appended, or not, and its records applied: `queued` records are left
    /// in the queue. Says whether that made work for the engine.
    pub fn on_block(&mut self, block: Option<&LoggedBlock>, queued: usize) -> bool {
        let mut is_work = false;
        let topics = self.topics.len();
        if let Some(block) = block {
            let count = block.widths.len();
            match block.first {
                Some(first) => is_work = self.on_records(first, &block.widths),
                // It is not tried again.
                None if queued < self.proposed().queue.len() => {
                    self.proposed().queue.drain(..count);
                    self.count("blocks without room");
                }
                None => self.count("blocks that are put off"),
            }
        }
        self.proposed().is_applying = false;
        for topic in self.topics[topics..].iter_mut().filter(|t| t.is_there()) {
            let channel = self
                .manager
                .get_or_create_with(&topic.name, || topic.plan.options());
            topic.channel = channel.expect("the name is good");
        }
        self.note_the_over();
        for (number, id, reason) in std::mem::take(&mut self.proposed().ended) {
            self.end_stream(number, &id, reason);
        }
        self.settle();
        is_work
    }

    /// Records are in the log: those that were proposed first.
    pub(super) fn on_records(&mut self, first: u64, widths: &[u64]) -> bool {
        let (mut number, mut is_work) = (first, false);
        for width in widths {
            let Some(proposal) = self.proposed().queue.pop_front() else {
                self.fail(format!("the log has a record at {number} from nowhere"));
                return false;
            };
            let expected = self.proposed().all[proposal].what.width();
            if expected != *width {
                self.fail(format!("the record at {number} is another one"));
            }
            if number <= self.sequence {
                self.fail(format!("the number {number} was given before"));
            }
            is_work |= self.apply(proposal, number);
            number += width;
            self.sequence = number - 1;
        }
        is_work
    }

    /// A record has its effect. Says whether it concerns clients.
    fn apply(&mut self, number: usize, first: u64) -> bool {
        let proposal = &mut self.proposed().all[number];
        let what = std::mem::replace(&mut proposal.what, What::Close);
        let (topic, basis, at_ms) = (proposal.topic, proposal.basis, proposal.at_ms);
        let (expected, is_work) = match &what {
            What::Publish {
                to,
                audience,
                is_uncertain,
                drafts,
            } => {
                let events = self.published.len();
                let applied = self.apply_publish(topic, basis, to, audience, drafts, first);
                let entered = self.published[events..].iter_mut();
                for event in entered.filter(|event| !event.is_for_all) {
                    event.is_uncertain = *is_uncertain;
                }
                applied
            }
            What::Keyed(request) => self.apply_with_key(request, basis, first),
            What::Everywhere(draft) => self.apply_everywhere(draft, first),
            What::Finish(draft) => self.apply_finish(topic, basis, at_ms, draft.as_ref(), first),
            What::Close => self.apply_close(topic, basis, first),
        };
        let proposal = &mut self.proposed().all[number];
        proposal.what = what;
        proposal.expected = Some(expected);
        is_work
    }

    /// The channel that a record finds under the name of its channel, or that it makes.
    fn found(&mut self, topic: usize, basis: u64) -> usize {
        let name = self.topics[topic].name.clone();
        self.found_by_name(&name, basis)
    }

    fn found_by_name(&mut self, name: &str, basis: u64) -> usize {
        let current = self.current.get(name).copied();
        let current = current.filter(|topic| self.topics[*topic].is_there());
        current.unwrap_or_else(|| {
            let removed_at = self.proposed().removal_since(name, basis);
            let topic = self.open(name);
            self.topics[topic].removed_at = removed_at;
            topic
        })
    }

    /// Whether a record was proposed before its channel's end came into the log. If not, the
    /// end is over for all that follow.
    fn comes_after_end(&mut self, topic: usize, basis: u64, number: u64) -> bool {
        let name = self.topics[topic].name.clone();
        let Some(finish) = self.proposed().end_of(&name) else {
            return false;
        };
        if basis >= finish {
            self.proposed().turn(number, name, false);
        }
        basis < finish
    }

    fn apply_with_key(&mut self, request: &Request, basis: u64, first: u64) -> (Expected, bool) {
        if let Some(id) = self.first_of(request) {
            return (Expected::Repeated(request.clone(), id), false);
        }
        let ends = request.names.iter();
        let ends: Vec<_> = ends.map(|name| self.proposed().end_of(name)).collect();
        if ends.iter().any(|end| end.is_some_and(|end| basis < end)) {
            return (Expected::Finished, false);
        }
        for (name, end) in request.names.iter().zip(ends) {
            if end.is_some() {
                self.proposed().turn(first, name.clone(), false);
            }
        }
        let names = request.names.iter();
        let topics: Vec<usize> = names.map(|name| self.found_by_name(name, basis)).collect();
        let clients = topics.iter().map(|t| self.clients(*t, &Audience::All));
        let clients = clients.fold(0..=0, |all, one| {
            all.start() + one.start()..=all.end() + one.end()
        });
        let is_work = *clients.end() > 0;
        let expected = Expected::Events {
            id: self.enter_with_key(request, &topics, first),
            events: request.drafts.len(),
            duplicates: 0,
            clients,
        };
        (expected, is_work)
    }

    fn apply_publish(
        &mut self,
        topic: usize,
        basis: u64,
        to: &To,
        audience: &Audience,
        drafts: &[Draft],
        first: u64,
    ) -> (Expected, bool) {
        if self.comes_after_end(topic, basis, first) {
            return (Expected::Finished, false);
        }
        let topic = self.found(topic, basis);
        let Some(fresh) = self.fresh(Some(topic), drafts, to) else {
            return (Expected::IdReused, false);
        };
        let events = fresh.iter().filter(|is_fresh| **is_fresh).count();
        let duplicates = drafts.len() - events;
        let clients = match events {
            0 => 0..=0,
            _ => self.clients(topic, audience),
        };
        let mut id = String::new();
        for (index, (draft, is_fresh)) in drafts.iter().zip(fresh).enumerate() {
            id = if is_fresh {
                self.count("events");
                let moment = (first + index as u64, self.now());
                self.enter_at(topic, draft.clone(), to.clone(), audience.clone(), moment)
            } else {
                draft.id.clone().expect("it was found by its id")
            };
        }
        let is_work = events > 0 && !self.topics[topic].members.is_empty();
        let expected = Expected::Events {
            id,
            events,
            duplicates,
            clients,
        };
        (expected, is_work)
    }

    /// The numbers of clients that may be said to be meant.
    fn clients(&self, topic: usize, audience: &Audience) -> RangeInclusive<usize> {
        let members = self.topics[topic].members.iter();
        let meant = members.filter(|(id, stream)| {
            let role = self.streams[**stream].role;
            match audience {
                Audience::All => true,
                Audience::Ids(ids) => ids.contains(*id),
                Audience::Role(wanted) => role == Some(*wanted),
                Audience::NotRole(unwanted) => role != Some(*unwanted),
                Audience::AllBut(other) => *id != other,
            }
        });
        let meant: Vec<usize> = meant.map(|(_, stream)| *stream).collect();
        let members = self.topics[topic].members.values();
        let on_the_way_out = members.filter(|stream| self.is_sent_away(**stream)).count();
        meant.len().saturating_sub(on_the_way_out)..=meant.len()
    }

    fn apply_everywhere(&mut self, draft: &Draft, first: u64) -> (Expected, bool) {
        match self.fresh(None, std::slice::from_ref(draft), &To::All) {
            None => return (Expected::IdReused, false),
            Some(fresh) if fresh == [false] => {
                self.count("events to all published twice");
                let expected = Expected::Events {
                    id: draft.id.clone().expect("it was found by its id"),
                    events: 0,
                    duplicates: 1,
                    clients: 0..=0,
                };
                return (expected, false);
            }
            Some(_) => {}
        }
        self.count("events to all");
        let id = draft.id.clone().unwrap_or_else(|| self.id_of(first));
        let event = Everywhere::new(draft.clone(), first, self.now());
        let streams = self.enter_everywhere(event);
        let expected = Expected::Events {
            id,
            events: 1,
            duplicates: 0,
            clients: streams.clone(),
        };
        (expected, *streams.end() > 0)
    }

    fn apply_finish(
        &mut self,
        topic: usize,
        basis: u64,
        at_ms: u64,
        draft: Option<&Draft>,
        first: u64,
    ) -> (Expected, bool) {
        if self.comes_after_end(topic, basis, first) {
            return (Expected::Finished, false);
        }
        let name = self.topics[topic].name.clone();
        if self.proposed().comes_after_removal(&name, basis) {
            return (Expected::Closed, false);
        }
        let topic = self.found(topic, basis);
        let drafts = draft.map(std::slice::from_ref).unwrap_or_default();
        let fresh = self.fresh(Some(topic), drafts, &To::All);
        let Some(fresh) = fresh else {
            return (Expected::IdReused, false);
        };
        let clients = self.clients(topic, &Audience::All);
        if let Some(draft) = draft.filter(|_| fresh == [true]) {
            self.count("events");
            let moment = (first, self.now());
            self.enter_at(topic, draft.clone(), To::All, Audience::All, moment);
        }
        let now = self.now();
        let state = &mut self.topics[topic];
        state.finished_at = Some(now);
        state.finish = Some(first);
        state.over_from_ms = Some(at_ms + state.plan.finished_ms);
        self.count("channels finished");
        let name = self.topics[topic].name.clone();
        self.proposed().turn(first, name, true);
        let is_work = *clients.end() > 0;
        (Expected::Clients(clients), is_work)
    }

    fn apply_close(&mut self, topic: usize, basis: u64, first: u64) -> (Expected, bool) {
        let name = self.topics[topic].name.clone();
        if self.proposed().comes_after_removal(&name, basis) {
            return (Expected::Clients(0..=0), false);
        }
        let current = self.current.get(&name).copied();
        self.proposed().remove(first, name);
        let Some(topic) = current.filter(|topic| self.topics[*topic].is_there()) else {
            return (Expected::Clients(0..=0), false);
        };
        let clients = self.clients(topic, &Audience::All);
        self.topics[topic].closed = Some(first);
        let is_work = self.note_closed(topic);
        (Expected::Clients(clients), is_work)
    }

    /// Compares what publishers are told with what they are to be told.
    pub fn settle(&mut self) {
        let outbox = self.proposed().outbox.clone();
        let outcomes = std::mem::take(&mut *outbox.lock().unwrap());
        for (number, outcome) in outcomes {
            let proposal = &mut self.proposed().all[number];
            if std::mem::replace(&mut proposal.is_told, true) {
                self.fail("a publisher has two outcomes");
                continue;
            }
            let request = match &proposal.what {
                What::Keyed(request) => Some(request.clone()),
                _ => None,
            };
            match proposal.expected.take() {
                Some(expected) => self.compare(&expected, &outcome),
                None => self.on_unlogged(number, &outcome),
            }
            if let (Some(request), Outcome::Events(Ok(_))) = (request, &outcome) {
                self.keys.as_mut().expect("there are some").tell(&request);
            }
        }
    }

    fn compare(&mut self, expected: &Expected, outcome: &Outcome) {
        let is_right = match (expected, outcome) {
            (Expected::Finished, outcome) => outcome.error() == Some(&PublishError::Finished),
            (Expected::Closed, outcome) => outcome.error() == Some(&PublishError::Closed),
            (Expected::IdReused, outcome) => {
                matches!(outcome.error(), Some(PublishError::IdReused { .. }))
            }
            (Expected::Clients(clients), Outcome::Clients(Ok(said))) => clients.contains(said),
            (Expected::Repeated(request, id), Outcome::Events(Ok(said))) => {
                self.check_repeated(request, said, id);
                true
            }
            (
                Expected::Events {
                    id,
                    events,
                    duplicates,
                    clients,
                },
                Outcome::Events(Ok(said)),
            ) => {
                let said_id = said.id.as_ref().map(ToString::to_string);
                said_id.as_ref() == Some(id)
                    && (said.events, said.duplicates) == (*events, *duplicates)
                    && !said.is_repeated
                    && clients.contains(&said.clients)
            }
            _ => false,
        };
        self.count(match expected {
            Expected::Finished => "proposals that come after the end",
            Expected::Closed => "ends that come after a removal",
            Expected::IdReused => "proposals refused by the log for their ids",
            _ => "proposals in the log",
        });
        if !is_right {
            self.fail(format!("a publisher is told {outcome:?}, not {expected:?}"));
        }
    }

    /// A publisher is told something of what is not in the log.
    fn on_unlogged(&mut self, number: usize, outcome: &Outcome) {
        let now = self.now();
        let proposed = self.proposed();
        let (has_failed, timeout_ms) = (proposed.has_failed, proposed.timeout_ms);
        let proposal = &proposed.all[number];
        let is_late = now >= proposal.at_ms + timeout_ms;
        if let What::Keyed(request) = &proposal.what {
            let request = request.clone();
            if !self.is_right_unlogged(&request, number, is_late, outcome) {
                self.fail(format!("{request:?} has the outcome {outcome:?}"));
            }
            return;
        }
        let topic = proposal.topic;
        let drafts = proposal.what.drafts().to_vec();
        let (to, is_for_all) = match &proposal.what {
            What::Publish { to, .. } => (to.clone(), false),
            What::Everywhere(_) => (To::All, true),
            _ => (To::All, false),
        };
        let fresh = self.fresh((!is_for_all).then_some(topic), &drafts, &to);
        let state = &self.topics[topic];
        let is_right = match outcome {
            Outcome::Clients(Ok(clients)) => {
                // It had no name any more, so it is closed at once.
                let is_right = *clients == state.members.len() && !state.is_there();
                if state.over_at.is_some() {
                    self.note_closed(topic);
                }
                is_right
            }
            Outcome::Events(Ok(said)) => {
                self.count("events published twice");
                let id = said.id.as_ref().map(ToString::to_string);
                let is_repeated = fresh.is_some_and(|fresh| fresh.iter().all(|f| !f));
                let last = drafts.last().and_then(|draft| draft.id.clone());
                is_repeated && (said.events, said.clients) == (0, 0) && id == last
            }
            Outcome::Clients(Err(error)) | Outcome::Events(Err(error)) => match error {
                PublishError::Closed => !is_for_all && !state.is_there(),
                PublishError::Finished => !is_for_all && state.is_finished(),
                PublishError::IdReused { .. } => fresh.is_none(),
                PublishError::Unavailable { .. } => {
                    let queue = &mut self.proposed().queue;
                    queue.retain(|queued| *queued != number);
                    self.count("proposals that are not sent");
                    is_late || has_failed || self.may_lack_room
                }
                PublishError::Unconfirmed => {
                    self.count("proposals in doubt");
                    is_late || has_failed
                }
                _ => false,
            },
        };
        if !is_right {
            let name = &self.topics[topic].name;
            let what = &self.proposed.as_ref().expect("there is a log").all[number].what;
            let state = &self.topics[topic];
            self.fail(format!(
                "{what:?} to {name} has the outcome {outcome:?} (finished {:?}, over {:?}, closed \
                 {:?})",
                state.finished_at, state.over_at, state.closed_at
            ));
        }
    }

    /// Whether a publisher may be told this of a request with a key that is not in the log.
    fn is_right_unlogged(
        &mut self,
        request: &Request,
        number: usize,
        is_late: bool,
        outcome: &Outcome,
    ) -> bool {
        let first = self.first_of(request);
        let may_be_unsent = is_late || self.proposed().has_failed;
        let topics = request
            .names
            .iter()
            .filter_map(|name| self.current.get(name));
        let mut topics = topics.map(|topic| &self.topics[*topic]);
        match (outcome, first) {
            (Outcome::Events(Ok(said)), Some(id)) => {
                self.check_repeated(request, said, &id);
                true
            }
            (Outcome::Events(Err(PublishError::KeyInFlight { .. })), _) => {
                let proposed = self.proposed.as_ref().expect("there is a log");
                let mut others = proposed.queue.iter().map(|other| &proposed.all[*other]);
                self.figures
                    .entry("requests repeated while they are under way")
                    .and_modify(|count| *count += 1)
                    .or_insert(1);
                others.any(|other| match &other.what {
                    What::Keyed(other) => other.is_same(request),
                    _ => false,
                })
            }
            (Outcome::Events(Err(PublishError::Unavailable { .. })), _) => {
                let queue = &mut self.proposed().queue;
                queue.retain(|queued| *queued != number);
                self.count("proposals that are not sent");
                may_be_unsent || self.may_lack_room
            }
            (Outcome::Events(Err(PublishError::Unconfirmed)), _) => {
                self.count("proposals in doubt");
                may_be_unsent
            }
            (Outcome::Events(Err(PublishError::Closed)), None) => topics.any(|t| !t.is_there()),
            (Outcome::Events(Err(PublishError::Finished)), None) => {
                topics.any(|topic| topic.is_finished())
            }
            _ => false,
        }
    }

    /// Checks that no publisher waits for longer than was promised.
    pub(super) fn check_outcomes(&mut self) {
        let (now, jumped_at) = (self.now(), self.jumped_at);
        let Some(proposed) = &self.proposed else {
            return;
        };
        let untold = proposed.queue.iter().map(|number| &proposed.all[*number]);
        let mut untold = untold.filter(|proposal| !proposal.is_told);
        let is_late = |proposal: &Proposal| {
            now > proposal.at_ms.max(jumped_at) + proposed.timeout_ms * 5 / 4 + SLACK_MS
        };
        if let Some(late) = untold.find(|proposal| is_late(proposal)) {
            let what = format!("{:?} has no outcome since {}", late.what, late.at_ms);
            self.fail(what);
        }
    }

    /// Nothing is published any more, until another process goes on.
    pub fn note_failure(&mut self) {
        let proposed = self.proposed();
        if !std::mem::replace(&mut proposed.has_failed, true) {
            self.count("journals that fail");
        }
    }

    /// What was applied is on the disk.
    pub fn note_synced(&mut self) {
        self.synced = self.sequence;
    }

    /// The process has ended. What its publishers are told from now on reaches nothing.
    pub(super) fn forget_outcomes(&mut self) {
        let proposed = self.proposed();
        proposed.outbox = Outbox::default();
        proposed.ended.clear();
        (proposed.is_applying, proposed.has_failed) = (false, false);
    }

    /// What was proposed and is not in the log will never be.
    pub(super) fn forget_queue(&mut self) {
        let queue = std::mem::take(&mut self.proposed().queue);
        for _ in queue {
            self.count("proposals that a process takes with it");
        }
    }

    /// Enters an event for all channels. Returns how many streams it may be said to be for.
    pub(super) fn enter_everywhere(&mut self, event: Everywhere) -> RangeInclusive<usize> {
        let open: Vec<usize> = self.current.values().copied().collect();
        let is_open = |topic: &Topic| topic.is_there() && !topic.is_finished();
        let open = open.into_iter().filter(|t| is_open(&self.topics[*t]));
        let open: Vec<usize> = open.collect();
        let mut streams = BTreeSet::new();
        for &topic in &open {
            self.enter_in(topic, &event);
            streams.extend(self.topics[topic].members.values().copied());
        }
        self.everywhere.push(event);
        // A stream of several channels counts once, with the first, which may be finished.
        let counts = |number: &&usize| {
            let topics = &self.streams[**number].topics;
            topics.iter().all(|topic| open.contains(topic)) && !self.is_sent_away(**number)
        };
        streams.iter().filter(counts).count()..=streams.len()
    }
}
