//! What must have happened: the log that the broker has in the end is the truth, against
//! which each answer and each stream is held.
//!
//! It shares no code with the nodes but the reading of a block.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use fastrand::Rng;
use pushwheel::cluster::Term;
use pushwheel::internals::journal::{Logged, logged};
use pushwheel::{PublishError, Published};

use super::broker::{self, Broker, Readings, SharedBroker, Stored};
use super::{OWN, number_of};
use crate::oracle::SLACK_MS;
use crate::sse::Dispatched;

/// How long nodes may take to say what a term has lost.
pub const LOSSES_MS: u64 = 5_000;

/// Of how many of the newest publishes one is published again.
const AGAIN_OF: usize = 30;

pub type Shared = Arc<Mutex<Judge>>;

/// The simulation has one thread, so the lock is free.
pub fn lock(judge: &Shared) -> MutexGuard<'_, Judge> {
    judge
        .try_lock()
        .expect("one thread, and no lock is held over a call that needs it")
}

/// What a client does and reads, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// It asks a node for its stream.
    Asks(usize),
    /// It is to receive everything after this number.
    Began(u64),
    Event(u64, String),
    /// A loss, in its place.
    Lost(u64),
    /// A gap with which a stream begins: the id that was asked for, its own, and the reason.
    Gap(u64, u64, String),
    /// The client has everything up to here.
    Moved(u64),
}

impl Item {
    /// Up to where the client has everything behind it.
    fn position(&self) -> Option<u64> {
        match self {
            Item::Asks(_) => None,
            Item::Began(number)
            | Item::Event(number, _)
            | Item::Lost(number)
            | Item::Gap(_, number, _)
            | Item::Moved(number) => Some(*number),
        }
    }
}

/// What a publisher was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Published { last: u64, events: usize },
    Refused,
    Unconfirmed,
}

/// What was published at once.
#[derive(Clone, Debug)]
struct Publish {
    channel: Option<usize>,
    data: Vec<String>,
    has_own_ids: bool,
    node: usize,
    process: usize,
    at_ms: u64,
    answer: Option<Answer>,
}

/// What is in a log at a number.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Event(String),
    /// Events of a term before this one are lost.
    Lost(u64),
}

/// A log: what is in it for which channel, `None` for all of them.
#[derive(Debug, Default)]
struct Log {
    entries: BTreeMap<u64, (Option<usize>, What)>,
    /// Losses for all that a channel has been told of by name.
    told: BTreeSet<(u64, usize)>,
    ranges: Vec<Range<u64>>,
    /// Behind which number it begins, for a node that knows nothing of what was before.
    begins_after: u64,
}

impl Log {
    fn has(&self, number: u64) -> bool {
        let at = self.ranges.partition_point(|range| range.end <= number);
        number == 0 || self.ranges.get(at).is_some_and(|r| r.contains(&number))
    }

    /// Returns a term, or the one that follows if it has no block: their losses are one.
    fn with_a_block(&self, term: u64) -> u64 {
        if term <= self.begins_after {
            return term;
        }
        let at = self.ranges.partition_point(|range| range.end <= term);
        self.ranges
            .get(at)
            .map_or(term, |range| term.max(range.start))
    }

    /// Returns whether the log has what is said to be lost in a term.
    fn has_again(&self, term: u64, had: u64) -> bool {
        let mut end = self.begins_after + 1;
        let begun = self.ranges.iter().find_map(|range| {
            let after = std::mem::replace(&mut end, range.end) - 1;
            (range.start > after + 1 && range.start >= term).then_some(after)
        });
        self.has(had) || begun.is_some_and(|after| had <= after)
    }

    fn of<'a>(
        &'a self,
        channels: &'a [usize],
    ) -> impl Iterator<Item = (u64, Option<usize>, &'a What)> {
        let all = self.entries.iter();
        let has = |number: u64, of: Option<usize>| match of {
            Some(of) => channels.contains(&of),
            None => channels
                .iter()
                .any(|channel| !self.told.contains(&(number, *channel))),
        };
        all.filter(move |(number, (of, _))| has(**number, *of))
            .map(|(number, (of, what))| (*number, *of, what))
    }
}

/// A client, and what it has read.
struct Reader {
    channels: Vec<usize>,
    items: Vec<Item>,
    /// Up to where it has everything.
    position: Option<u64>,
    /// Whether its log of a channel has to be the whole one.
    is_whole: bool,
    /// The process that it has asked for its stream, and when.
    asked: (usize, u64),
}

/// A gap with which a stream begins because the client has seen what is lost.
#[derive(Debug)]
struct Witness {
    reader: usize,
    /// The number that the client has seen.
    seen: u64,
    process: usize,
    asked_at: u64,
    at_ms: u64,
}

/// See the [module](self).
pub struct Judge {
    readers: Vec<Reader>,
    publishes: Vec<Publish>,
    open: BTreeSet<usize>,
    witnesses: Vec<Witness>,
    /// The process that is a node.
    processes: BTreeMap<usize, usize>,
    read: BTreeMap<u64, Vec<(u64, Logged)>>,
    broker: SharedBroker,
    /// The number of each own id, of the blocks before this number.
    own_ids: (BTreeMap<String, u64>, u64),
    timeout_ms: u64,
    pub failures: Vec<String>,
    pub figures: BTreeMap<&'static str, u64>,
}

impl Judge {
    pub fn new(timeout_ms: u64, broker: SharedBroker) -> Shared {
        Arc::new(Mutex::new(Judge {
            readers: Vec::new(),
            publishes: Vec::new(),
            open: BTreeSet::new(),
            witnesses: Vec::new(),
            processes: BTreeMap::new(),
            read: BTreeMap::new(),
            broker,
            own_ids: Default::default(),
            timeout_ms,
            failures: Vec::new(),
            figures: BTreeMap::new(),
        }))
    }

    pub fn count(&mut self, what: &'static str) {
        *self.figures.entry(what).or_default() += 1;
    }

    pub fn fail(&mut self, what: String) {
        self.failures.push(what);
    }

    // ---- clients ----

    pub fn add_reader(&mut self, channels: Vec<usize>, is_whole: bool) -> usize {
        self.readers.push(Reader {
            channels,
            items: Vec::new(),
            position: None,
            is_whole,
            asked: (0, 0),
        });
        self.readers.len() - 1
    }

    pub fn on_ask(&mut self, reader: usize, node: usize, at_ms: u64) {
        let process = self.processes.get(&node).copied().unwrap_or_default();
        self.readers[reader].asked = (process, at_ms);
        self.note(reader, Item::Asks(node));
    }

    pub fn note(&mut self, reader: usize, item: Item) {
        let reader = &mut self.readers[reader];
        if let Some(position) = item.position() {
            reader.position = Some(position);
        }
        reader.items.push(item);
    }

    fn number(&mut self, id: &str) -> u64 {
        self.find(id).unwrap_or_else(|| {
            self.fail(format!("{id:?} is not an id of the cluster"));
            0
        })
    }

    /// Returns the number that an id stands for.
    fn find(&mut self, id: &str) -> Option<u64> {
        if !id.starts_with(OWN) {
            return number_of(id);
        }
        let (numbers, before) = &mut self.own_ids;
        for (first, block) in broker::lock(&self.broker).all.range(*before..) {
            for (number, id) in own_ids_of(block) {
                // It is published once.
                numbers.entry(id).or_insert(number);
            }
            *before = first + 1;
        }
        numbers.get(id).copied()
    }

    pub fn on_beginning(&mut self, reader: usize, id: &str) {
        let number = self.number(id);
        self.note(reader, Item::Began(number));
    }

    /// A client has read what is to be behind its position.
    fn on_item(&mut self, reader: usize, item: Item) {
        let (before, after) = (self.readers[reader].position, item.position());
        let is_moved = matches!(item, Item::Moved(_));
        if after < before || (after == before && !is_moved) {
            self.fail(format!(
                "client {reader} is at {before:?} and reads {item:?}"
            ));
        }
        self.note(reader, item);
    }

    pub fn on_position(&mut self, reader: usize, id: &str) {
        self.count("positions");
        let number = self.number(id);
        self.on_item(reader, Item::Moved(number));
    }

    pub fn on_event(&mut self, reader: usize, event: &Dispatched) {
        self.count("deliveries");
        let number = self.number(&event.last_event_id);
        self.on_item(reader, Item::Event(number, event.data.clone()));
    }

    pub fn on_gap(&mut self, reader: usize, event: &Dispatched, at_ms: u64) {
        let gap: serde_json::Value = serde_json::from_str(&event.data).unwrap_or_default();
        let number = self.number(&event.last_event_id);
        let reason = gap["reason"].as_str().unwrap_or_default().to_owned();
        if gap["requested"].is_null() && reason == "lost" {
            self.count("losses in their places");
            return self.on_item(reader, Item::Lost(number));
        }
        self.count("gaps");
        let requested = match gap["requested"].as_str() {
            Some("earliest") => Some(0),
            requested => requested.and_then(|id| self.find(id)),
        };
        let state = &self.readers[reader];
        let is_first = matches!(state.items.last(), Some(Item::Asks(_) | Item::Began(0)));
        let (expected, (process, asked_at)) = (state.position, state.asked);
        if !is_first || requested.is_none() || requested != expected {
            self.fail(format!(
                "client {reader} is at {expected:?} and reads {}",
                event.data
            ));
        }
        let seen = requested.unwrap_or_default();
        if reason == "lost" {
            self.witnesses.push(Witness {
                reader,
                seen,
                process,
                asked_at,
                at_ms,
            });
        }
        let gap = Item::Gap(seen, number, reason);
        self.note(reader, gap);
    }

    // ---- publishers ----

    pub fn publish(
        &mut self,
        channel: Option<usize>,
        (events, has_own_ids): (usize, bool),
        at: (usize, usize, u64),
    ) -> usize {
        let number = self.publishes.len();
        let data = (0..events).map(|event| format!("p{number}-{event}"));
        let data = data.collect();
        self.add_publish(channel, data, has_own_ids, at)
    }

    /// Publishes again what was published with own ids, whatever was answered.
    pub fn publish_again(&mut self, rng: &mut Rng, at: (usize, usize, u64)) -> Option<usize> {
        let newest = self.publishes.iter().rev().take(AGAIN_OF);
        let with_ids: Vec<_> = newest.filter(|publish| publish.has_own_ids).collect();
        let Publish { channel, data, .. } = (*rng.choice(&with_ids)?).clone();
        self.count("publishes of the same events again");
        Some(self.add_publish(channel, data, true, at))
    }

    fn add_publish(
        &mut self,
        channel: Option<usize>,
        data: Vec<String>,
        has_own_ids: bool,
        (node, process, at_ms): (usize, usize, u64),
    ) -> usize {
        self.publishes.push(Publish {
            channel,
            data,
            has_own_ids,
            node,
            process,
            at_ms,
            answer: None,
        });
        let number = self.publishes.len() - 1;
        self.open.insert(number);
        number
    }

    /// Returns the channel, the data of the events, and whether they have own ids.
    pub fn published(&self, number: usize) -> (Option<usize>, Vec<String>, bool) {
        let Publish {
            channel,
            data,
            has_own_ids,
            ..
        } = self.publishes[number].clone();
        (channel, data, has_own_ids)
    }

    pub fn on_answer(&mut self, number: usize, answer: Result<Published, PublishError>) {
        let (answer, what) = match answer {
            Ok(Published {
                id,
                events,
                duplicates,
                ..
            }) => {
                let events = events + duplicates;
                let id = id.map(|id| id.to_string()).unwrap_or_default();
                let last = self.number(&id);
                (
                    Answer::Published { last, events },
                    "publishes that are confirmed",
                )
            }
            Err(PublishError::Unavailable { .. } | PublishError::Busy { .. }) => {
                (Answer::Refused, "publishes that are refused")
            }
            Err(PublishError::Unconfirmed) => {
                (Answer::Unconfirmed, "publishes that are unconfirmed")
            }
            Err(error) => {
                self.fail(format!("publish {number}: {error}"));
                (Answer::Unconfirmed, "publishes that fail")
            }
        };
        self.count(what);
        let is_dead = self.publishes[number].answer == Some(Answer::Unconfirmed);
        if is_dead && answer == Answer::Unconfirmed {
            return;
        }
        if !self.open.remove(&number) {
            self.fail(format!("publish {number} has two answers"));
        }
        self.publishes[number].answer = Some(answer);
    }

    /// A process has begun to be a node.
    pub fn on_begin(&mut self, node: usize, process: usize) {
        self.processes.insert(node, process);
    }

    /// A process has ended: its publishers receive no answer.
    pub fn on_death(&mut self, node: usize) {
        for number in std::mem::take(&mut self.open) {
            match self.publishes[number].node == node {
                true => self.publishes[number].answer = Some(Answer::Unconfirmed),
                false => drop(self.open.insert(number)),
            }
        }
    }

    /// Checks that no publish waits for too long. `frozen` says until when nodes stood still.
    pub fn check_waiting(&mut self, now: u64, frozen_until: impl Fn(usize) -> u64) {
        let is_late = |number: &&usize| {
            let publish = &self.publishes[**number];
            let due = publish.at_ms + self.timeout_ms;
            now > due.max(frozen_until(publish.node)) + 2 * SLACK_MS
        };
        if let Some(number) = self.open.iter().find(is_late).copied() {
            self.open.remove(&number);
            let publish = &self.publishes[number];
            self.fail(format!("at {now} ms: {publish:?} has no answer"));
        }
    }

    // ---- the truth ----

    /// Reads a log. `begins_after`: as a node does that begins there, each loss once; `None`:
    /// all that is in it.
    fn read<'a>(
        &mut self,
        blocks: impl Iterator<Item = &'a Arc<Stored>>,
        begins_after: Option<u64>,
    ) -> Log {
        let once = begins_after.is_some();
        let mut log = Log {
            begins_after: begins_after.unwrap_or_default(),
            ..Log::default()
        };
        let begins_after = log.begins_after;
        let (mut told, mut own_ids) = (BTreeSet::new(), BTreeSet::new());
        let blocks: Vec<_> = blocks.filter(|block| block.first > begins_after).collect();
        log.ranges = blocks.iter().map(|block| block.numbers()).collect();
        for block in blocks {
            let changes = self.read.entry(block.first).or_insert_with(|| {
                logged(&block.bytes).unwrap_or_else(|error| panic!("a block is damaged: {error}"))
            });
            let mut number = block.first;
            for (width, change) in &*changes {
                match change {
                    Logged::Publish { channel, frames } => {
                        let of = channel.as_deref().map(channel_of);
                        for (at, frame) in (number..).zip(frames) {
                            // What is published again is there once.
                            if own_id_of(frame).is_some_and(|id| !own_ids.insert(id)) {
                                continue;
                            }
                            let mut lines = frame.lines();
                            let data = lines.find_map(|line| line.strip_prefix("data: "));
                            let data = data.unwrap_or_default().to_owned();
                            log.entries.insert(at, (of, What::Event(data)));
                        }
                    }
                    Logged::Lost { term, had, channel } => {
                        let of = channel.as_deref().map(channel_of);
                        let term = if once { log.with_a_block(*term) } else { *term };
                        // The server that has it may be there again.
                        let is_void = once && *had > 0 && log.has_again(term, *had);
                        let is_new = !once || (!is_void && !told.contains(&(term, None)));
                        if is_new && (told.insert((term, of)) || !once) {
                            log.entries.insert(number, (of, What::Lost(term)));
                            let by_name = told.range((term, Some(0))..=(term, Some(usize::MAX)));
                            let by_name = by_name.filter(|_| once && of.is_none());
                            let by_name = by_name.filter_map(|(_, channel)| *channel);
                            log.told.extend(by_name.map(|channel| (number, channel)));
                        }
                    }
                    Logged::Other => {}
                }
                number += width;
            }
        }
        log
    }

    /// Holds everything against the log. Returns what is not there yet, if everything that is
    /// there is right.
    ///
    /// # Errors
    /// What is wrong.
    pub fn judge(&mut self, broker: &Broker, alive: &[usize]) -> Result<Option<String>, String> {
        let truth = self.read(broker.truth(), Some(0));
        let all = self.read(broker.all.values(), None);
        // As the nodes have it that do not know what was before.
        let mut behind = BTreeMap::new();
        for after in &broker.begun_after {
            behind.insert(*after, self.read(broker.truth(), Some(*after)));
        }
        self.judge_log(&truth, &all)?;
        self.judge_witnesses(broker, &truth, &all)?;
        let mut pending = self.judge_answers(broker, &truth, &all, alive)?;
        let mut wrongs = Vec::new();
        for (number, reader) in self.readers.iter().enumerate() {
            let found = match reader.is_whole {
                true => {
                    let mut items = reader.items.iter();
                    let after = items.find_map(|item| known_after(item, broker));
                    let log = after.and_then(|after| behind.get(&after));
                    judge_whole(reader, log.unwrap_or(&truth), &all, broker)
                }
                false => judge_reader(reader, &truth, &all, broker),
            };
            match found {
                Ok(found) => {
                    let found =
                        found.map(|what| format!("client {number} {what}\n{:?}", reader.items));
                    pending = pending.or(found);
                }
                Err(wrong) => {
                    let (channels, items) = (&reader.channels, &reader.items);
                    wrongs.push(format!(
                        "client {number} of {channels:?} {wrong}\n{items:?}"
                    ));
                }
            }
        }
        match wrongs.is_empty() {
            true => Ok(pending),
            false => Err(wrongs.join("\n")),
        }
    }

    /// Nothing is in the log twice, and each gap of a loss has one.
    fn judge_log(&self, truth: &Log, all: &Log) -> Result<(), String> {
        let mut seen = BTreeMap::new();
        let lost = |number: &u64| !truth.has(*number);
        for (number, (of, what)) in &truth.entries {
            match what {
                What::Event(data) => {
                    if let Some(before) = seen.insert(data, number) {
                        return Err(format!("{data} is in the log at {before} and {number}"));
                    }
                }
                What::Lost(term) => {
                    let mut before = all.entries.range(..term).filter(|(number, _)| lost(number));
                    let is_of = |of: Option<usize>, other: Option<usize>| {
                        of.is_none() || other.is_none() || of == other
                    };
                    let is_true = before.any(|(_, (other, _))| is_of(*of, *other));
                    // A loss for all is said where it is not known of which.
                    if !is_true && of.is_some() {
                        return Err(format!("{what:?} at {number} is said, and nothing is lost"));
                    }
                }
            }
        }
        Ok(())
    }

    /// A client that has seen what is lost receives a gap of its own only if no node says it
    /// in time, or has said it.
    fn judge_witnesses(&self, broker: &Broker, truth: &Log, all: &Log) -> Result<(), String> {
        for witness in &self.witnesses {
            let seen = witness.seen;
            let leaves_out = |term: &Term| term.after < seen && seen < term.first;
            let terms: BTreeSet<u64> = broker
                .terms
                .iter()
                .filter(|term| leaves_out(term))
                .map(|term| term.first)
                .collect();
            let Some(Readings {
                blocks: read,
                snapshots,
            }) = broker.read_by.get(&witness.process)
            else {
                continue;
            };
            let of_terms = read
                .iter()
                .filter(|(first, _)| **first > seen && terms.contains(&broker.all[first].term));
            let of_snapshots = snapshots
                .iter()
                .filter(|(at, _)| terms.iter().any(|first| *at >= first));
            if let Some(began_at) = of_terms.chain(of_snapshots).map(|(_, at)| *at).min()
                && witness.at_ms < began_at + LOSSES_MS
            {
                return Err(format!(
                    "{witness:?} receives a gap of a loss that nodes may say: {began_at}"
                ));
            }
            // One that has read what is lost may be building beside what it shows.
            if !read.keys().all(|first| truth.has(*first)) {
                continue;
            }
            let channels = &self.readers[witness.reader].channels;
            let was_read = |number: u64| {
                let block = read.range(..=number).next_back();
                block.is_some_and(|(first, read_at)| {
                    broker.all[first].numbers().contains(&number) && *read_at < witness.asked_at
                })
            };
            let said = all.entries.iter().find(|(number, (of, what))| {
                let is_of = of.is_none_or(|of| channels.contains(&of));
                let is_it = matches!(what, What::Lost(term) if terms.contains(term));
                is_of && is_it && truth.has(**number) && was_read(**number)
            });
            if let Some(said) = said {
                return Err(format!(
                    "{witness:?} receives a gap of a loss that was said: {said:?}"
                ));
            }
        }
        Ok(())
    }

    fn judge_answers(
        &self,
        broker: &Broker,
        truth: &Log,
        all: &Log,
        alive: &[usize],
    ) -> Result<Option<String>, String> {
        let mut pending = None;
        let mut places: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (number, (_, what)) in &all.entries {
            if let What::Event(data) = what {
                places.entry(data).or_default().push(*number);
            }
        }
        for publish in &self.publishes {
            let found = publish.data.last().and_then(|data| places.get(&**data));
            match publish.answer {
                Some(Answer::Refused) if found.is_some() && !publish.has_own_ids => {
                    return Err(format!("{publish:?} was refused, and is in a log"));
                }
                Some(Answer::Published { last, events }) => {
                    let is_there = found.is_some_and(|found| found.contains(&last));
                    if !is_there || events != publish.data.len() {
                        return Err(format!("{publish:?} is in no log, but at {found:?}"));
                    }
                    let is_read = broker.has_read(publish.process, last)
                        || broker.has_in_snapshot(publish.process, last);
                    if !is_read {
                        return Err(format!("{publish:?} was confirmed, and not read"));
                    }
                    if truth.has(last) {
                        continue;
                    }
                    let is_told = truth.entries.iter().any(|(number, (of, what))| {
                        let is_of =
                            of.is_none() || publish.channel.is_none() || *of == publish.channel;
                        *number > last && is_of && matches!(what, What::Lost(_))
                    });
                    let had = |process: &usize| broker.has_read(*process, last);
                    if !is_told && alive.iter().any(had) {
                        pending = Some(format!("{publish:?} is lost, and no gap says so"));
                    }
                }
                _ => {}
            }
        }
        Ok(pending)
    }
}

/// Returns the own id of an event.
fn own_id_of(frame: &str) -> Option<String> {
    let mut ids = frame.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.find(|id| id.starts_with(OWN)).map(str::to_owned)
}

/// Returns the own ids in a block, with the numbers of their events.
fn own_ids_of(block: &Stored) -> Vec<(u64, String)> {
    let changes =
        logged(&block.bytes).unwrap_or_else(|error| panic!("a block is damaged: {error}"));
    let (mut number, mut ids) = (block.first, Vec::new());
    for (width, change) in changes {
        if let Logged::Publish { frames, .. } = change {
            let own = |(at, frame): (u64, &String)| Some((at, own_id_of(frame)?));
            ids.extend((number..).zip(&frames).filter_map(own));
        }
        number += width;
    }
    ids
}

fn channel_of(name: &str) -> usize {
    name.strip_prefix('c')
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no test publishes to {name}"))
}

/// Returns behind which number a node has the log that begins a stream with this gap. Nodes
/// that had the past of a log may be gone before they say it to an empty server, and no server
/// has it.
fn known_after(item: &Item, broker: &Broker) -> Option<u64> {
    let Item::Gap(requested, number, reason) = item else {
        return None;
    };
    let begun_after = broker.begun_after.range(..=number).next_back().copied()?;
    (reason == "evicted" && *requested < begun_after).then_some(begun_after)
}

/// Holds what a client has read from the beginning of a channel against the log, as its node
/// knows it.
fn judge_whole(
    reader: &Reader,
    log: &Log,
    all: &Log,
    broker: &Broker,
) -> Result<Option<String>, String> {
    let read = reader.items.iter().filter_map(|item| match item {
        Item::Event(number, data) => Some((*number, What::Event(data.clone()))),
        Item::Lost(number) => Some((*number, What::Lost(0))),
        Item::Gap(..) if known_after(item, broker).is_none() => Some((0, What::Lost(0))),
        _ => None,
    });
    let read: Vec<_> = read.collect();
    let expected = log
        .of(&reader.channels)
        .map(|(number, _, what)| match what {
            What::Event(data) => (number, What::Event(data.clone())),
            What::Lost(_) => (number, What::Lost(0)),
        });
    let expected: Vec<_> = expected.collect();
    let mut pairs = read
        .iter()
        .zip(expected.iter().map(Some).chain(std::iter::repeat(None)));
    if let Some((read, expected)) = pairs.find(|(read, expected)| Some(*read) != *expected) {
        let was = all.entries.get(&read.0);
        return Err(format!(
            "finds {read:?}, which was {was:?}, in place of {expected:?}"
        ));
    }
    let is_whole = read.len() == expected.len() && reader.position.is_some();
    Ok((!is_whole).then(|| format!("has {} of {} entries", read.len(), expected.len())))
}

/// Holds what a client has read against the log.
fn judge_reader(
    reader: &Reader,
    truth: &Log,
    all: &Log,
    broker: &Broker,
) -> Result<Option<String>, String> {
    let mut pending = None;
    let items = &reader.items;
    let Some(begun) = items
        .iter()
        .rposition(|item| matches!(item, Item::Began(_)))
    else {
        return Ok(None);
    };
    let items = &items[begun..];
    // Where it is behind each item.
    let positions: Vec<u64> = items
        .iter()
        .scan(0, |at, item| {
            *at = item.position().unwrap_or(*at);
            Some(*at)
        })
        .collect();
    let begin = positions[0];
    let read: BTreeSet<u64> = items
        .iter()
        .filter(|item| matches!(item, Item::Event(..) | Item::Lost(_)))
        .filter_map(Item::position)
        .collect();
    let is_gap = |item: &Item| matches!(item, Item::Gap(..) | Item::Lost(_));
    for (at, item) in items.iter().enumerate() {
        let found = |number: &u64| all.entries.get(number);
        match item {
            Item::Event(number, data) => {
                let is_right = found(number).is_some_and(|(of, what)| {
                    *what == What::Event(data.clone())
                        && of.is_none_or(|of| reader.channels.contains(&of))
                });
                if !is_right {
                    return Err(format!("reads {item:?}, and it was {:?}", found(number)));
                }
                let of = all.entries[number].0;
                let is_told = |later: &Item| match later {
                    // A log without the one before has ids of its own.
                    Item::Gap(_, _, reason) => reason == "lost" || reason == "restart",
                    Item::Lost(at) => all.entries.get(at).is_some_and(|(other, what)| {
                        // The gap of a term in one channel is enough for a stream of several.
                        let leaves_out = |term: &Term| {
                            *what == What::Lost(term.first)
                                && term.after < *number
                                && *number < term.first
                        };
                        let is_of = of.is_none() || other.is_none() || of == *other;
                        is_of || broker.terms.iter().any(leaves_out)
                    }),
                    _ => false,
                };
                if !truth.has(*number) && !items[at..].iter().any(is_told) {
                    pending = Some(format!("is not told that {item:?} is lost"));
                }
            }
            Item::Lost(number)
                if !found(number).is_some_and(|(_, what)| matches!(what, What::Lost(_))) =>
            {
                return Err(format!("reads {item:?}, and it was {:?}", found(number)));
            }
            Item::Lost(number) => {
                let is_new = match truth.entries.get(number) {
                    Some((None, _)) => {
                        let mut channels = reader.channels.iter();
                        channels.any(|channel| !truth.told.contains(&(*number, *channel)))
                    }
                    found => found.is_some() || !truth.has(*number),
                };
                // A node does not know what was said before its log began.
                let is_known = |after: &u64| {
                    matches!(
                        found(number),
                        Some((_, What::Lost(term))) if term <= after && after < number
                    )
                };
                if !is_new && !broker.begun_after.iter().any(is_known) {
                    return Err(format!("receives {:?} again at {number}", found(number)));
                }
            }
            Item::Gap(requested, _, reason) => {
                let is_other_log = reason == "restart" && broker.has_forgotten;
                let is_left_out = |term: &Term| term.after < *requested && *requested < term.first;
                let missed = truth.of(&reader.channels).any(|(number, ..)| {
                    number > *requested && number <= positions[at] && !read.contains(&number)
                });
                let is_known = known_after(item, broker).is_none();
                if !broker.terms.iter().any(is_left_out) && !missed && is_known && !is_other_log {
                    return Err(format!("reads {item:?}, and has missed nothing"));
                }
            }
            _ => {}
        }
    }
    for (number, _, what) in truth.of(&reader.channels).filter(|(n, ..)| *n > begin) {
        if read.contains(&number) {
            continue;
        }
        let Some(passed) = positions.iter().position(|at| *at >= number) else {
            pending = Some(format!("waits for {what:?} at {number}"));
            continue;
        };
        // Beyond a lost event the log may have gone on with lower numbers.
        let is_lost = |item: &Item| item.position().is_some_and(|at| !truth.has(at));
        let mut behind = items[passed..].iter();
        let first =
            behind.position(|item| is_gap(item) || (item.position().is_some() && !is_lost(item)));
        let first = first.map(|at| passed + at);
        match first.map(|at| &items[at]) {
            Some(item) if is_gap(item) => {}
            None => pending = Some(format!("is not told of {what:?} at {number}")),
            // Its node was on another branch, and the gap of that may come later.
            Some(_)
                if first.is_some_and(|at| {
                    items[..at]
                        .iter()
                        .rfind(|item| item.position().is_some())
                        .is_some_and(is_lost)
                }) =>
            {
                if !items[passed..].iter().any(is_gap) {
                    pending = Some(format!("is not told of {what:?} at {number}"));
                }
            }
            Some(item) => {
                return Err(format!("reads {item:?} without {what:?} at {number}"));
            }
        }
    }
    Ok(pending)
}
