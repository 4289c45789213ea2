//! Publishers that repeat a request with its key until they have the answer. Some answers are
//! lost on the way to them, and with a log some requests are repeated while the first one is
//! under way, or by the next process.

use std::collections::BTreeMap;

use fastrand::Rng;
use pushwheel::{Channel, Event, IdempotencyKey, PublishError, PublishOptions, Published};

use super::publishing::Draft;
use super::{Audience, Oracle, To};

const PUBLISHERS_MAX: usize = 8;

/// See the [module](self).
pub struct Keys {
    rng: Rng,
    /// A chance in a thousand, each time that a publisher acts.
    often: u32,
    publishers: Vec<Publisher>,
    known: BTreeMap<(String, String), Known>,
    /// A key was forgotten after its time, so its request may be done again.
    has_forgotten: bool,
}

#[derive(Default)]
struct Publisher {
    /// The number of requests that it has the answers to.
    done: usize,
    /// The one that it has no answer to.
    request: Option<Request>,
}

/// Events for one channel or for several.
#[derive(Clone, Debug)]
pub(super) struct Request {
    publisher: usize,
    number: usize,
    /// In their order, and each once.
    pub(super) names: Vec<String>,
    pub(super) drafts: Vec<Draft>,
}

impl Request {
    fn key(&self) -> String {
        format!("{}/{}", self.publisher, self.number)
    }

    fn scope(&self) -> (String, String) {
        (self.names.join("/"), self.key())
    }

    pub(super) fn is_same(&self, other: &Request) -> bool {
        (self.publisher, self.number) == (other.publisher, other.number)
    }

    pub(super) fn events(&self) -> Vec<Event<'_>> {
        self.drafts.iter().map(Draft::event).collect()
    }

    /// Publishes it, and passes the outcome on.
    pub(super) fn publish(
        &self,
        manager: &pushwheel::ChannelManager,
        channels: &[Channel],
        then: impl FnOnce(Result<Published, PublishError>) + Send + 'static,
    ) {
        let (key, events) = (IdempotencyKey::new(&self.key()), self.events());
        match channels {
            [channel] => {
                let options = PublishOptions::new().idempotency_key(key);
                channel.publish_with_then(events, &options, then);
            }
            several => manager.publish_to_then(several, &events, key, then),
        }
    }
}

/// The first result of a request.
struct Known {
    id: String,
    /// The number of the last event.
    number: u64,
    at_ms: u64,
}

impl Keys {
    pub fn new(mut rng: Rng) -> Keys {
        let count = rng.usize(1..=PUBLISHERS_MAX);
        Keys {
            often: rng.u32(10..300),
            publishers: (0..count).map(|_| Publisher::default()).collect(),
            known: BTreeMap::new(),
            has_forgotten: false,
            rng,
        }
    }

    /// Whether one of these publishers acts now.
    pub fn happens(&mut self) -> bool {
        self.rng.u32(0..1000) < self.often
    }

    /// The log has lost all records behind a number.
    pub(super) fn take_back(&mut self, newest: u64) {
        self.known.retain(|_, known| known.number <= newest);
    }

    /// The request that a publisher sends now.
    fn next(&mut self, names: &[String]) -> Request {
        let rng = &mut self.rng;
        let publisher = rng.usize(0..self.publishers.len());
        let state = &mut self.publishers[publisher];
        let number = state.done;
        let request = state.request.get_or_insert_with(|| {
            let mut names = names.to_vec();
            rng.shuffle(&mut names);
            let channels = if rng.u8(0..3) == 0 { names.len() } else { 1 };
            names.truncate(rng.usize(1..=channels));
            names.sort_unstable();
            let count = rng.usize(1..4);
            let drafts = (0..count).map(|n| Draft::plain(format!("p{publisher}.{number}.{n}")));
            Request {
                publisher,
                number,
                names,
                drafts: drafts.collect(),
            }
        });
        request.clone()
    }

    /// A publisher receives the result of a request, unless the answer is lost.
    pub(super) fn tell(&mut self, request: &Request) {
        let is_lost = self.rng.u8(0..3) == 0;
        let state = &mut self.publishers[request.publisher];
        if !is_lost && state.done == request.number {
            state.done += 1;
            state.request = None;
        }
    }
}

impl Oracle {
    /// Has one of the publishers send a request. Returns whether that is work for the engine.
    pub fn publish_with_key(&mut self) -> bool {
        self.note_the_over();
        let names: Vec<String> = self.plans.keys().cloned().collect();
        let keys = self.keys.as_mut().expect("there are such publishers");
        let request = keys.next(&names);
        let topics: Vec<usize> = request.names.iter().map(|name| self.open(name)).collect();
        if self.proposed.is_some() {
            self.propose_with_key(topics[0], request);
            return false;
        }
        let channels: Vec<Channel> = topics
            .iter()
            .map(|topic| self.topics[*topic].channel.clone())
            .collect();
        let first = self.first_of(&request);
        let (sender, receiver) = std::sync::mpsc::channel();
        let then = move |outcome| sender.send(outcome).expect("it is waited for");
        request.publish(&self.manager, &channels, then);
        let outcome = receiver.try_recv().expect("it does not wait");
        let is_rejected = topics.iter().any(|topic| {
            let topic = &self.topics[*topic];
            !topic.is_there() || topic.is_finished()
        });
        match (outcome, first) {
            (Ok(published), Some(id)) => self.check_repeated(&request, &published, &id),
            (Err(PublishError::Finished | PublishError::Closed), None) if is_rejected => {
                return false;
            }
            (Ok(published), None) if !is_rejected => {
                let sequence = self.sequence + 1;
                let members = topics.iter().map(|topic| self.topics[*topic].members.len());
                let members: usize = members.sum();
                let id = self.enter_with_key(&request, &topics, sequence);
                self.sequence += request.drafts.len() as u64;
                let given = published.id.as_ref().map(ToString::to_string);
                let is_right = published.events == request.drafts.len()
                    && published.clients <= members
                    && !published.is_repeated
                    && given.as_ref() == Some(&id);
                if !is_right {
                    self.fail(format!("{request:?} was {published:?}, and not {id}"));
                }
                self.keys.as_mut().expect("there are some").tell(&request);
                return members > 0;
            }
            (outcome, first) => {
                self.fail(format!("{request:?} was {outcome:?}, and first {first:?}"));
            }
        }
        self.keys.as_mut().expect("there are some").tell(&request);
        false
    }

    /// Returns the id of a request that was done, if its key is known.
    pub(super) fn first_of(&mut self, request: &Request) -> Option<String> {
        let known = self.keys.as_ref()?.known.get(&request.scope())?;
        let (id, at_ms) = (known.id.clone(), known.at_ms);
        let is_known = self.is_remembered(at_ms);
        if !is_known {
            self.keys.as_mut()?.has_forgotten = true;
        }
        is_known.then_some(id)
    }

    pub(super) fn check_repeated(&mut self, request: &Request, published: &Published, id: &str) {
        self.count("requests repeated with their keys");
        let given = published.id.as_ref().map(ToString::to_string);
        let is_right = published.is_repeated
            && published.events == request.drafts.len()
            && given.as_deref() == Some(id);
        if !is_right {
            self.fail(format!(
                "{request:?} was repeated as {published:?}, and not {id}"
            ));
        }
    }

    /// Enters the events of a request in its channels, under numbers from `first` on. Returns
    /// the id of the last.
    pub(super) fn enter_with_key(
        &mut self,
        request: &Request,
        topics: &[usize],
        first: u64,
    ) -> String {
        self.count("requests with keys");
        let (mut id, at_ms) = (String::new(), self.now());
        let mut number = first;
        for (sequence, draft) in (first..).zip(&request.drafts) {
            for topic in topics {
                self.count("events");
                let (draft, moment) = (draft.clone(), (sequence, at_ms));
                id = self.enter_at(*topic, draft, To::All, Audience::All, moment);
            }
            number = sequence;
        }
        let known = Known {
            id: id.clone(),
            number,
            at_ms,
        };
        let keys = self.keys.as_mut().expect("there are some");
        keys.known.insert(request.scope(), known);
        id
    }

    /// Checks that each channel has each event once, and those of a publisher in its order.
    pub(super) fn check_keys(&mut self) {
        let Some(keys) = self.keys.as_ref().filter(|keys| !keys.has_forgotten) else {
            return;
        };
        let mut newest = BTreeMap::new();
        let mut wrong = None;
        for (_, number) in &self.by_sequence {
            let event = &self.published[*number];
            let name = &self.topics[event.topic].name;
            let Some(place) = place_of(&event.data, keys.publishers.len()) else {
                continue;
            };
            let before = newest.insert((name, place.0), place);
            if before.is_some_and(|before| before >= place) {
                wrong = Some(format!("{} in {name} comes after {before:?}", event.data));
            }
        }
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
    }
}

/// Returns the publisher, the number of the request, and the place of an event in it.
fn place_of(data: &str, publishers: usize) -> Option<(usize, usize, usize)> {
    let mut parts = data.strip_prefix('p')?.split('.').map(str::parse);
    let mut next = || parts.next()?.ok();
    let place = (next()?, next()?, next()?);
    (place.0 < publishers).then_some(place)
}
