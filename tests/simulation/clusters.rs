//! Clusters: nodes that share the log of a simulated broker, publishers, and readers that
//! go from node to node with the id of the last event that they have.
//!
//! In the end the log that is left is the truth: all nodes have its events, readers have
//! each of them once and in order, and what publishers were told is so. What a reader has
//! and the log has lost, the reader was told.

mod broker;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use pushwheel::cluster::{BrokerError, ClusterOptions, Term};
use pushwheel::internals::{Clock, SteppedNode, journal};
use pushwheel::{
    ChannelManager, ChannelOptions, Event, GapReason, History, PublishError, Published, ReadError,
    Start, Target,
};

use super::sums::Sums;
use broker::{Broker, Faults, NEW_YEAR_MS, is_lost};

const CHANNELS: usize = 3;
const NODES: usize = 3;

/// How long the nodes may take to agree when all faults are over, in milliseconds.
const HEALING_MS: u64 = 60_000;

/// For how long a process of the broker runs at least, in milliseconds. A term begins at the
/// clock or a fixed stride behind what is known, so terms that are lost with their log may not
/// begin more often than the clock passes the stride (16.4 s).
const TERM_MS: u64 = 17_000;

/// How late an outcome may be beyond its timeout, in milliseconds.
const LATE_MS: u64 = 2_500;

/// Whether a seed has a cluster. It is drawn apart from all else.
pub fn draws(seed: u64) -> bool {
    Rng::with_seed(seed ^ 0xc1_05fe).u32(0..4) == 0
}

type Outcome = Result<Published, PublishError>;

/// What publishers were told: the number of the proposal, when, and what.
type Outbox = Arc<Mutex<Vec<(usize, u64, Outcome)>>>;

/// Events that were published at once.
struct Proposal {
    /// `None`: to all channels.
    channel: Option<usize>,
    /// The first of its events.
    event: u64,
    count: u64,
    at_ms: u64,
    node: usize,
    /// The life of the node.
    life: u64,
    outcome: Option<Outcome>,
}

struct Node {
    manager: ChannelManager,
    stepped: SteppedNode,
}

/// A place for a node.
#[derive(Default)]
struct Place {
    node: Option<Node>,
    life: u64,
    /// Until when it is not stepped, and for how long it was not at most.
    still_until_ms: u64,
    still_ms: u64,
}

/// What a reader has read.
#[derive(Debug)]
enum Item {
    Event { number: u64, event: u64 },
    Lost { number: u64 },
}

struct Reader {
    channel: usize,
    /// The id of the last event that it has, and the number that it names.
    cursor: Option<(String, u64)>,
    begin: u64,
    items: Vec<Item>,
}

struct World {
    rng: Rng,
    clock: Arc<AtomicU64>,
    broker: Broker,
    timeout_ms: u64,
    snapshot_ms: u64,
    retention_ms: u64,
    places: Vec<Place>,
    proposals: Vec<Proposal>,
    outbox: Outbox,
    readers: Vec<Reader>,
    events: u64,
    /// Whether no log has begun.
    is_new: bool,
    figures: BTreeMap<&'static str, u64>,
}

/// Runs the cluster of a seed to its end.
pub fn run(seed: u64) -> Sums {
    let mut rng = Rng::with_seed(seed ^ 0x00c1_0573);
    let clock = Arc::new(AtomicU64::new(NEW_YEAR_MS + 40 * 86_400_000));
    let mut chance = |max: u32| if rng.bool() { rng.u32(0..=max) } else { 0 };
    let faults = Faults {
        lost_requests: chance(60),
        lost_answers: chance(60),
        late_appends: chance(60),
        lagging_reads: chance(500),
    };
    let broker = Broker::new(rng.fork(), clock.clone(), faults);
    let readers = (0..rng.usize(1..12)).map(|_| Reader {
        channel: rng.usize(0..CHANNELS),
        cursor: None,
        begin: 0,
        items: Vec::new(),
    });
    let readers = readers.collect();
    let mut world = World {
        clock,
        broker,
        timeout_ms: [500, 2_000, 5_000][rng.usize(0..3)],
        snapshot_ms: [500, 3_000, 60_000][rng.usize(0..3)],
        retention_ms: [500, 5_000, 600_000][rng.usize(0..3)],
        places: (0..rng.usize(1..=NODES))
            .map(|_| Place::default())
            .collect(),
        proposals: Vec::new(),
        outbox: Outbox::default(),
        readers,
        events: 0,
        is_new: true,
        figures: BTreeMap::new(),
        rng,
    };
    let begun_ms = world.now_ms();
    world.start(0);
    let until_ms = begun_ms + world.rng.u64(5_000..80_000);
    while world.now_ms() < until_ms {
        world.tick();
    }
    world.calm_down();
    world.check();
    let faults = world.broker.state().injected.clone();
    Sums {
        seeds: 0,
        simulated_ms: world.now_ms() - begun_ms,
        turns: 0,
        digest: world.digest(),
        faults,
        figures: world.figures,
    }
}

impl World {
    fn now_ms(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn count(&mut self, what: &'static str) {
        *self.figures.entry(what).or_default() += 1;
    }

    /// A node joins, if it can.
    fn start(&mut self, place: usize) {
        let options = ChannelOptions::new().history(
            History::events(1_000_000)
                .age_max(Duration::MAX)
                .bytes_max(usize::MAX),
        );
        let cluster = ClusterOptions::new(format!("node-{place}"))
            .publish_timeout(Duration::from_millis(self.timeout_ms))
            .snapshot_every(Duration::from_millis(self.snapshot_ms))
            .retention(Duration::from_millis(self.retention_ms));
        let clock = Clock::manual_with_wall(self.clock.clone(), self.clock.clone());
        let seed = self.rng.u64(..);
        let joined = ChannelManager::builder()
            .defaults(options)
            .join_cluster_stepped(
                (clock, seed),
                Box::new(self.broker.clone()),
                cluster,
                self.is_new,
            );
        match joined {
            Ok((manager, stepped)) => {
                self.is_new = false;
                self.count("nodes that join");
                let place = &mut self.places[place];
                place.life += 1;
                (place.still_ms, place.still_until_ms) = (0, 0);
                place.node = Some(Node { manager, stepped });
            }
            Err(error @ (BrokerError::Damaged { .. } | BrokerError::Refused { .. })) => {
                panic!("a node cannot join: {error}");
            }
            Err(_) => self.count("nodes that cannot join"),
        }
    }

    fn tick(&mut self) {
        let by_ms = self.rng.u64(1..=30);
        self.clock.fetch_add(by_ms, Ordering::Relaxed);
        for _ in 0..self.rng.usize(0..3) {
            self.publish();
        }
        if self.rng.u32(0..3) == 0 {
            self.read();
        }
        match self.rng.u32(0..4_000) {
            0..10 => self.go_down(),
            10..30 if self.broker.state().has_run_ms() > TERM_MS => {
                let lost = [0, 1, 5, 50][self.rng.usize(0..4)];
                let lost = self.rng.usize(0..=lost);
                self.broker.state().fail_over(lost);
            }
            45..50 if self.all_live() && self.broker.state().has_run_ms() > TERM_MS => {
                self.broker.state().empty();
            }
            30..45 => self.kill(),
            50..65 => self.stand_still(),
            _ => {}
        }
        for place in 0..self.places.len() {
            if self.places[place].node.is_none() && self.rng.u32(0..50) == 0 {
                self.start(place);
            }
            self.step(place, 700);
        }
        self.take_outcomes();
    }

    /// Whether each node is there, and has all of the log.
    fn all_live(&self) -> bool {
        let is_connected = |place: &Place| {
            let status = place.node.as_ref()?.manager.cluster_status()?;
            Some(status.is_connected)
        };
        let mut places = self.places.iter();
        places.all(|place| is_connected(place) == Some(true))
    }

    fn go_down(&mut self) {
        self.count("times that the broker is down");
        let time_ms = match self.rng.u32(0..4) {
            0 => self.rng.u64(5_000..15_000),
            _ => self.rng.u64(100..3_000),
        };
        let until_ms = self.now_ms() + time_ms;
        self.broker.state().down_until_ms = until_ms;
    }

    /// A node vanishes with all that it has, unless it may be the last one that has it.
    fn kill(&mut self) {
        if !self.broker.state().has_snapshot() {
            return;
        }
        let place = self.rng.usize(0..self.places.len());
        let live = self.places.iter().filter(|place| place.node.is_some());
        if live.count() > 1 && self.places[place].node.take().is_some() {
            self.count("nodes that die");
        }
    }

    fn stand_still(&mut self) {
        self.count("nodes that stand still");
        let (now_ms, time_ms) = (self.now_ms(), self.rng.u64(500..10_000));
        let place = self.rng.usize(0..self.places.len());
        let place = &mut self.places[place];
        place.still_until_ms = now_ms + time_ms;
        place.still_ms += time_ms;
    }

    /// Takes steps of a node, each with a chance in a thousand.
    fn step(&mut self, place: usize, chance: u32) {
        let now_ms = self.now_ms();
        let Place {
            node: Some(node),
            still_until_ms,
            ..
        } = &mut self.places[place]
        else {
            return;
        };
        if now_ms < *still_until_ms {
            return;
        }
        let mut happens = || self.rng.u32(0..1_000) < chance;
        if happens() {
            node.stepped.step_writer();
        }
        if happens() {
            node.stepped.step_reader();
        }
        if happens() {
            node.stepped.step_keeper();
        }
        if happens() {
            node.stepped.step_pulse();
        }
        let status = node.manager.cluster_status().expect("it is of one");
        assert_eq!(status.stopped, None, "node {place} has stopped");
    }

    fn publish(&mut self) {
        let place = self.rng.usize(0..self.places.len());
        let life = self.places[place].life;
        let Some(manager) = self.manager(place) else {
            return;
        };
        let channel = match self.rng.u32(0..20) {
            0 => None,
            _ => Some(self.rng.usize(0..CHANNELS)),
        };
        let count = if self.rng.u32(0..5) == 0 {
            self.rng.u64(2..6)
        } else {
            1
        };
        let first = self.events;
        self.events += count;
        let number = self.proposals.len();
        self.proposals.push(Proposal {
            channel,
            event: first,
            count,
            at_ms: self.now_ms(),
            node: place,
            life,
            outcome: None,
        });
        let events: Vec<Event<'_>> = (first..first + count)
            .map(|event| Event::message(event.to_string()))
            .collect();
        let (outbox, clock) = (self.outbox.clone(), self.clock.clone());
        let then = move |outcome: Outcome| {
            let now_ms = clock.load(Ordering::Relaxed);
            outbox.lock().unwrap().push((number, now_ms, outcome));
        };
        match channel {
            None => manager.publish_then(&events, Target::All, then),
            Some(channel) => {
                let channel = manager.get_or_create(&name(channel));
                let channel = channel.expect("a good name");
                channel.publish_then(events, Target::All, then);
            }
        }
    }

    fn manager(&self, place: usize) -> Option<ChannelManager> {
        let node = self.places[place].node.as_ref()?;
        Some(node.manager.clone())
    }

    fn take_outcomes(&mut self) {
        let outcomes = std::mem::take(&mut *self.outbox.lock().unwrap());
        for (number, at_ms, outcome) in outcomes {
            let proposal = &mut self.proposals[number];
            assert!(proposal.outcome.is_none(), "a publisher has two outcomes");
            let place = &self.places[proposal.node];
            if place.life == proposal.life && place.node.is_some() {
                let due_ms = proposal.at_ms + self.timeout_ms + LATE_MS + place.still_ms;
                assert!(
                    at_ms <= due_ms,
                    "a publisher has waited for {} ms of {} for {outcome:?}",
                    at_ms - proposal.at_ms,
                    self.timeout_ms
                );
            }
            proposal.outcome = Some(outcome);
        }
    }

    /// A reader goes to a node, and reads what it has.
    fn read(&mut self) {
        let reader = self.rng.usize(0..self.readers.len());
        let place = self.rng.usize(0..self.places.len());
        self.read_at(reader, place);
    }

    fn read_at(&mut self, reader: usize, place: usize) {
        let Some(manager) = self.manager(place) else {
            return;
        };
        let reader = &mut self.readers[reader];
        let channel = manager.get_or_create(&name(reader.channel));
        let channel = channel.expect("a good name");
        let position = channel.position().to_string();
        let at = number_of(&position);
        let Some((cursor, seen)) = reader.cursor.clone() else {
            reader.begin = at;
            reader.cursor = Some((position, at));
            return;
        };
        // Its stream would wait there for the log.
        if at < seen {
            return;
        }
        let mut read = channel.read(Start::After(cursor));
        for item in read.by_ref() {
            reader.items.push(match item {
                Ok(stored) => Item::Event {
                    number: number_of(&stored.id.to_string()),
                    event: stored.event.data().parse().expect("it was published so"),
                },
                Err(ReadError::Gap(gap)) => {
                    assert_eq!(gap.reason, GapReason::Lost, "a gap that is none: {gap:?}");
                    let number = number_of(&gap.newest.to_string());
                    Item::Lost { number }
                }
                Err(error) => panic!("a reader is refused: {error}"),
            });
        }
        let position = read.position().to_string();
        let at = number_of(&position);
        reader.cursor = Some((position, at));
    }

    /// Ends all faults, and lets the nodes agree.
    fn calm_down(&mut self) {
        {
            let mut state = self.broker.state();
            state.faults = Faults::default();
            state.down_until_ms = 0;
        }
        let now_ms = self.now_ms();
        for place in &mut self.places {
            place.still_until_ms = place.still_until_ms.min(now_ms);
        }
        let until_ms = now_ms + HEALING_MS;
        let mut agreed = 0;
        while agreed < 20 {
            assert!(
                self.now_ms() < until_ms,
                "the nodes do not agree: {}",
                self.states()
            );
            self.clock.fetch_add(20, Ordering::Relaxed);
            for place in 0..self.places.len() {
                if self.places[place].node.is_none() {
                    self.start(place);
                }
                self.step(place, 1_000);
            }
            self.take_outcomes();
            // Probes go on, so the newest numbers differ for a moment.
            agreed = if self.is_settled() { agreed + 1 } else { 0 };
        }
        for reader in 0..self.readers.len() {
            // At one of them it has the newest of all.
            for place in 0..self.places.len() {
                self.read_at(reader, place);
            }
        }
    }

    fn is_settled(&self) -> bool {
        let is_settled = |place: &Place| {
            let status = place.node.as_ref()?.manager.cluster_status()?;
            Some(status.is_connected && status.queued == 0)
        };
        let mut places = self.places.iter();
        let is_told = |proposal: &Proposal| {
            let place = &self.places[proposal.node];
            proposal.outcome.is_some() || place.life != proposal.life
        };
        places.all(|place| is_settled(place) == Some(true)) && self.proposals.iter().all(is_told)
    }

    fn states(&self) -> String {
        let states = self.places.iter().map(|place| {
            let node = place.node.as_ref();
            let status = node.and_then(|node| node.manager.cluster_status());
            status.map(|s| (s.is_connected, s.queued, s.applied, s.error))
        });
        format!("{:?}", states.collect::<Vec<_>>())
    }

    /// Holds all that was read and told against the log that is left.
    fn check(&mut self) {
        let (truth, terms) = {
            let state = self.broker.state();
            let mut truth: BTreeMap<u64, u64> = BTreeMap::new();
            for block in &state.log {
                let read = journal::numbered(&block.read.bytes, block.read.first);
                let read = read.expect("a node has written it");
                truth.extend(read.into_iter().map(|(number, data)| {
                    (number, data.parse::<u64>().expect("it was published so"))
                }));
            }
            (truth, state.terms().to_vec())
        };
        let mut numbers: BTreeMap<u64, u64> = BTreeMap::new();
        for (number, event) in &truth {
            let before = numbers.insert(*event, *number);
            assert_eq!(
                before, None,
                "event {event} is in the log twice, at {number}"
            );
        }
        for place in 0..self.places.len() {
            self.check_node(place, &truth);
        }
        self.check_outcomes(&truth, &numbers, &terms);
        self.check_readers(&truth, &terms);
    }

    /// The channel of an event; `None`: all.
    fn channel_of(&self, event: u64) -> Option<usize> {
        let after = self
            .proposals
            .partition_point(|proposal| proposal.event <= event);
        self.proposals[after - 1].channel
    }

    fn is_in(&self, event: u64, channel: usize) -> bool {
        self.channel_of(event).is_none_or(|own| own == channel)
    }

    fn check_node(&mut self, place: usize, truth: &BTreeMap<u64, u64>) {
        let manager = self.manager(place).expect("all nodes are there");
        for channel in 0..CHANNELS {
            let Some(found) = manager.get(&name(channel)) else {
                continue;
            };
            let held: Vec<(u64, u64)> = found
                .read(Start::Earliest)
                .flatten()
                .map(|stored| {
                    let event = stored.event.data().parse().expect("it was published so");
                    (number_of(&stored.id.to_string()), event)
                })
                .collect();
            // A channel that a reader has made begins with what is kept for all.
            let since = held.first().map_or(u64::MAX, |(number, _)| *number);
            let expected = truth
                .iter()
                .filter(|(_, event)| self.is_in(**event, channel));
            let expected: Vec<(u64, u64)> = expected
                .map(|(number, event)| (*number, *event))
                .filter(|(number, event)| {
                    *number >= since || self.channel_of(*event) == Some(channel)
                })
                .collect();
            self.count("channels compared");
            assert!(
                held == expected,
                "node {place} differs from the log in {channel}: it lacks {:?}, and has {:?}",
                expected.iter().find(|item| !held.contains(item)),
                held.iter().find(|item| !expected.contains(item)),
            );
        }
    }

    fn check_outcomes(
        &mut self,
        truth: &BTreeMap<u64, u64>,
        numbers: &BTreeMap<u64, u64>,
        terms: &[Term],
    ) {
        let mut figures = Vec::new();
        for proposal in &self.proposals {
            let last = proposal.event + proposal.count - 1;
            match &proposal.outcome {
                Some(Ok(published)) => {
                    figures.push("publishes that are accepted");
                    let id = published
                        .id
                        .as_ref()
                        .expect("it was waited for")
                        .to_string();
                    let number = number_of(&id);
                    let is_there = truth.get(&number) == Some(&last);
                    assert!(
                        is_there || is_lost(number, terms),
                        "{id} was accepted, and the log has {:?} there",
                        truth.get(&number)
                    );
                    if !is_there {
                        figures.push("accepted publishes that the broker has lost");
                    }
                }
                Some(Err(PublishError::Unavailable { .. } | PublishError::Busy { .. })) => {
                    figures.push("publishes that are refused");
                    let number = numbers.get(&last);
                    assert_eq!(number, None, "event {last} was refused, and is in the log");
                }
                Some(Err(PublishError::Unconfirmed)) => figures.push("publishes in doubt"),
                Some(Err(error)) => panic!("a publisher is refused: {error:?}"),
                None => figures.push("publishes of nodes that have died"),
            }
        }
        for figure in figures {
            self.count(figure);
        }
    }

    fn check_readers(&mut self, truth: &BTreeMap<u64, u64>, terms: &[Term]) {
        let mut figures = Vec::new();
        for (index, reader) in self.readers.iter().enumerate() {
            let Some((_, end)) = &reader.cursor else {
                continue;
            };
            let (mut has, mut last, mut untold, mut gaps) = (Vec::new(), reader.begin, None, 0);
            for item in &reader.items {
                match item {
                    Item::Event { number, event } => {
                        figures.push("events that readers have");
                        assert!(*number > last, "reader {index} has {number} after {last}");
                        assert!(self.is_in(*event, reader.channel), "{number} is not for it");
                        last = *number;
                        match truth.get(number) {
                            Some(there) => {
                                assert_eq!(there, event, "{number} is another event");
                                has.push(*number);
                            }
                            None => {
                                assert!(is_lost(*number, terms), "{number} is not in the log");
                                figures.push("events that readers have and the log has lost");
                                untold = Some(*number);
                            }
                        }
                    }
                    Item::Lost { .. } => {
                        figures.push("gaps that tell of a loss");
                        gaps += 1;
                        untold = None;
                    }
                }
            }
            assert_eq!(untold, None, "reader {index} is not told of a loss");
            let missing = truth
                .range(reader.begin + 1..=*end)
                .find(|(number, event)| {
                    let is_for_it = self.is_in(**event, reader.channel);
                    is_for_it && has.binary_search(number).is_err()
                });
            assert_eq!(missing, None, "reader {index} lacks an event");
            let begun = terms
                .iter()
                .filter(|term| term.first > reader.begin)
                .count();
            assert!(
                gaps <= begun,
                "reader {index} is told of {gaps} losses in {begun} terms"
            );
        }
        for figure in figures {
            self.count(figure);
        }
    }

    fn digest(&self) -> u64 {
        let items = self.readers.iter().flat_map(|reader| &reader.items);
        items.fold(self.events, |digest, item| {
            let (Item::Event { number, .. } | Item::Lost { number }) = item;
            (digest ^ number).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

fn name(channel: usize) -> String {
    format!("c{channel}")
}

/// The number that an id of the engine's names.
fn number_of(id: &str) -> u64 {
    let (_, number) = id.split_once('-').expect("an id of the engine's");
    number.parse().expect("a number")
}
