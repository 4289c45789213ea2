//! The log behaves like a plain list. A client that reads it with a cursor, in writes that
//! stop anywhere, receives every byte of its events, in order and once, or a gap.
//!
//! The input is a list of steps, each one byte and its arguments.

use std::time::Duration;

use pushwheel::internals::frame::Frame;
use pushwheel::internals::log::{Batch, Entry, Log};
use pushwheel::{ClientId, History, KeyedState};

use super::input::Input;

const CLIENTS: [&str; 3] = ["p", "q", "r"];
const NAMES: [&str; 3] = ["x", "y", "z"];

pub fn check(input: &[u8]) {
    let mut input = Input(input);
    let start = u64::from(input.byte());
    let mut twin = Twin::new(start);
    let mut log = Log::new(start);
    let mut readers = CLIENTS.map(|client| Reader::new(id(client), start));
    while !input.is_empty() {
        match input.byte() % 9 {
            0..=3 => {
                let entry = twin.entry(&mut input);
                log.append(entry.clone());
                twin.append(entry);
            }
            4 => {
                let bounds = bounds(&mut input);
                let slowest = readers.iter().map(|reader| reader.seen).min();
                let needed_after = match input.byte() {
                    0..=199 => slowest.unwrap_or(0),
                    other => u64::from(other),
                };
                log.trim(bounds.0, bounds.1, bounds.2, needed_after, twin.now_ms);
                twin.trim(bounds, needed_after);
            }
            5 => twin.now_ms += u64::from(input.byte()),
            6 => {
                let reader = &mut readers[usize::from(input.byte() % 3)];
                let count = usize::from(input.byte() % 8);
                reader.check_is_torn_off(&twin);
                let position = log.position_before_last(count, &reader.client);
                assert_eq!(position, twin.before_last(count, &reader.client));
                *reader = Reader::new(reader.client.clone(), position);
            }
            7 => {
                let (key, client) = twin.key(&mut input);
                log.remove_key(&key, client.clone());
                twin.remove_key(&key, client.as_ref());
            }
            _ => {
                let reader = &mut readers[usize::from(input.byte() % 3)];
                reader.read(&log, &twin, &mut input);
            }
        }
        twin.check(&log);
        for reader in &readers {
            reader.check(&log, &twin);
        }
    }
}

type Bounds = (History, KeyedState, usize);

fn bounds(input: &mut Input<'_>) -> Bounds {
    let mut draw = || {
        let age = |byte: u8| Duration::from_millis(u64::from(byte) * 4);
        let count = usize::from(input.byte() % 16);
        (count, usize::from(input.byte()) * 16, age(input.byte()))
    };
    let (events, bytes, age) = draw();
    let history = History::events(events).bytes_max(bytes).age_max(age);
    let (keys, bytes, age) = draw();
    let keyed = KeyedState::keys(keys).bytes_max(bytes).age_max(age);
    (history, keyed, usize::from(input.byte()) * 16)
}

fn id(text: &str) -> ClientId {
    ClientId::new(text).expect("a letter is an id")
}

/// The model: a list of all entries that were ever appended, and the state of each.
struct Twin {
    now_ms: u64,
    head: u64,
    all: Vec<Past>,
    /// Whether a key was evicted that was for one client alone.
    has_forgotten: bool,
}

struct Past {
    entry: Entry,
    bytes: usize,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Held,
    Evicted,
    /// Evicted, and its key was neither published nor removed since.
    Missing,
    /// A newer event of its key took its place, or its key was removed.
    Replaced,
}

impl Past {
    fn is_for(&self, client: &ClientId) -> bool {
        self.entry
            .client
            .as_ref()
            .is_none_or(|other| other == client)
    }
}

impl Twin {
    fn new(start: u64) -> Twin {
        Twin {
            now_ms: 0,
            head: start,
            all: Vec::new(),
            has_forgotten: false,
        }
    }

    fn entry(&self, input: &mut Input<'_>) -> Entry {
        let sequence = self.head + 1 + u64::from(input.byte() % 4);
        let flags = input.byte();
        let pick = |names: [&'static str; 3], shift: u8| {
            let index = usize::from(flags >> shift & 3).checked_sub(1);
            index.map(|index| names[index])
        };
        let padding = "-".repeat(usize::from(input.byte()));
        let data = format!("data: {sequence}{padding}\n\n");
        Entry {
            sequence,
            at_ms: self.now_ms,
            frame: Frame::raw(data.as_bytes()),
            // The hub remembers recent ids, so the id of a held event is not drawn again.
            own_id: pick(NAMES, 0)
                .filter(|name| self.sequence_of(name).is_none())
                .map(str::to_owned),
            key: pick(NAMES, 2).map(str::to_owned),
            client: pick(CLIENTS, 4).map(id),
        }
    }

    fn key(&self, input: &mut Input<'_>) -> (String, Option<ClientId>) {
        let byte = usize::from(input.byte());
        let client = (byte / 3 % 4).checked_sub(1).map(|at| id(CLIENTS[at]));
        (NAMES[byte % 3].to_owned(), client)
    }

    fn remove_key(&mut self, key: &str, client: Option<&ClientId>) {
        let is_its = |past: &&mut Past| {
            past.entry.key.as_deref() == Some(key) && past.entry.client.as_ref() == client
        };
        for past in self.all.iter_mut().filter(is_its) {
            past.fate = match past.fate {
                Fate::Held => Fate::Replaced,
                Fate::Missing => Fate::Evicted,
                other => other,
            };
        }
    }

    fn append(&mut self, entry: Entry) {
        let mut alone = Log::new(0);
        alone.append(entry.clone());
        if let Some(key) = &entry.key {
            self.remove_key(key, entry.client.as_ref());
        }
        self.head = entry.sequence;
        self.all.push(Past {
            entry,
            bytes: alone.bytes(),
            fate: Fate::Held,
        });
    }

    fn trim(&mut self, (history, keyed, backlog_max): Bounds, needed_after: u64) {
        self.trim_part(false, history, backlog_max, needed_after);
        let keyed = History::events(keyed.keys_max)
            .bytes_max(keyed.bytes_max)
            .age_max(keyed.age_max);
        self.trim_part(true, keyed, backlog_max, needed_after);
    }

    fn trim_part(&mut self, keyed: bool, history: History, backlog_max: usize, needed_after: u64) {
        let is_part = |past: &Past| past.fate == Fate::Held && past.entry.key.is_some() == keyed;
        loop {
            let part = self.all.iter().filter(|past| is_part(past));
            let (len, bytes) = (
                part.clone().count(),
                part.map(|past| past.bytes).sum::<usize>(),
            );
            let now_ms = self.now_ms;
            let mut held = self.all.iter_mut().filter(|past| is_part(past));
            let Some(oldest) = held.next() else {
                return;
            };
            let age = Duration::from_millis(now_ms - oldest.entry.at_ms);
            let is_history =
                len <= history.events_max && bytes <= history.bytes_max && age <= history.age_max;
            let is_awaited = oldest.entry.sequence > needed_after;
            if is_history || is_awaited && (bytes <= backlog_max || len == 1) {
                return;
            }
            let is_one_clients = oldest.entry.client.is_some();
            oldest.fate = match keyed && !is_one_clients {
                true => Fate::Missing,
                false => Fate::Evicted,
            };
            self.has_forgotten |= keyed && is_one_clients;
        }
    }

    fn held(&self) -> impl DoubleEndedIterator<Item = &Past> {
        self.all.iter().filter(|past| past.fate == Fate::Held)
    }

    fn bytes(&self) -> usize {
        let missing = self.missing().map(|key| key.len() + 64);
        self.held().map(|past| past.bytes).chain(missing).sum()
    }

    fn missing(&self) -> impl Iterator<Item = &String> {
        let missing = self.all.iter().filter(|past| past.fate == Fate::Missing);
        missing.filter_map(|past| past.entry.key.as_ref())
    }

    /// Returns the held entries after `sequence` that `client` may receive.
    fn after<'a>(&'a self, sequence: u64, client: &'a ClientId) -> impl Iterator<Item = &'a Entry> {
        self.held()
            .filter(move |past| past.entry.sequence > sequence && past.is_for(client))
            .map(|past| &past.entry)
    }

    fn before_last(&self, count: usize, client: &ClientId) -> u64 {
        let seen = self.held().rev().filter(|past| past.is_for(client));
        let last = seen.take(count).last();
        last.map_or(self.head, |past| past.entry.sequence - 1)
    }

    /// Returns the place of the held event of this id.
    fn sequence_of(&self, own_id: &str) -> Option<u64> {
        let mut held = self.held();
        let named = held.find(|past| past.entry.own_id.as_deref() == Some(own_id));
        named.map(|past| past.entry.sequence)
    }

    /// Returns how many ids and how many keys the log has to know.
    fn indexed(&self) -> (usize, usize) {
        let ids = NAMES.iter().filter(|name| self.sequence_of(name).is_some());
        let ids = ids.count();
        // Of each key and client only the newest is held.
        let keyed = self.held().filter(|past| past.entry.key.is_some());
        (ids, keyed.count() + self.missing().count())
    }

    fn check(&self, log: &Log) {
        assert_eq!(log.head(), self.head);
        assert_eq!(log.len(), self.held().count());
        assert_eq!(log.is_empty(), self.held().next().is_none());
        assert_eq!(log.bytes(), self.bytes());
        let ends = self.held().next().zip(self.held().next_back());
        let ends = ends.map(|(old, new)| (old.entry.sequence, new.entry.sequence));
        assert_eq!(log.ends(), ends);
        assert_eq!(log.indexed(), self.indexed());
        let is_complete = self.missing().next().is_none() && !self.has_forgotten;
        assert_eq!(log.has_all_keys(), is_complete);
        for name in NAMES {
            assert_eq!(log.sequence_of(name), self.sequence_of(name), "{name}");
        }
    }
}

/// A client with its cursor.
struct Reader {
    client: ClientId,
    began_at: u64,
    /// It has everything up to here,
    seen: u64,
    /// and so much of one more.
    torn: Option<(u64, Frame, usize)>,
    received: Vec<u8>,
    /// What it should have received, whole.
    wanted: Vec<u8>,
}

impl Reader {
    fn new(client: ClientId, seen: u64) -> Reader {
        Reader {
            client,
            began_at: seen,
            seen,
            torn: None,
            received: Vec::new(),
            wanted: Vec::new(),
        }
    }

    /// Reads with one write.
    fn read(&mut self, log: &Log, twin: &Twin, input: &mut Input<'_>) {
        let pieces_max = usize::from(input.byte() % 8);
        let room = usize::from(input.byte()) << (input.byte() % 4);
        if let Some((sequence, frame, offset)) = self.torn.take() {
            let rest = &frame.as_bytes()[offset..];
            let written = room.min(rest.len());
            self.received.extend_from_slice(&rest[..written]);
            if written < rest.len() {
                self.torn = Some((sequence, frame, offset + written));
            } else {
                self.seen = sequence;
            }
            return;
        }
        if log.evicted_through() > self.seen {
            // It would receive a gap, and go on with the oldest entry.
            *self = Reader::new(self.client.clone(), log.evicted_through());
        }
        let mut batch = Batch::default();
        for (sequence, frame) in log.after(self.seen, &self.client).iter().take(pieces_max) {
            batch.push(*sequence, frame);
        }
        let written = room.min(batch.as_bytes().len());
        self.received
            .extend_from_slice(&batch.as_bytes()[..written]);
        let (whole, torn) = batch.split(written);
        let begun = whole.len() + usize::from(torn.is_some());
        let wanted = twin.after(self.seen, &self.client).take(begun);
        self.wanted
            .extend(wanted.flat_map(|entry| entry.frame.as_bytes()));
        self.seen = whole.last().copied().unwrap_or(self.seen);
        self.torn = torn;
    }

    /// Checks that it has received what it should have up to its position.
    fn check(&self, log: &Log, twin: &Twin) {
        self.check_is_torn_off(twin);
        let listed: Vec<_> = log.after(self.seen, &self.client);
        let listed = listed
            .iter()
            .map(|(sequence, frame)| (*sequence, frame.as_bytes()));
        let wanted = twin.after(self.seen, &self.client);
        assert!(listed.eq(wanted.map(|entry| (entry.sequence, entry.frame.as_bytes()))));
        let after = twin.held().filter(|past| past.entry.sequence > self.seen);
        assert_eq!(log.count_after(self.seen), after.count());
        // The invariant of the log: nothing is missed if and only if nothing
        // after `seen` was evicted. What was replaced is no loss.
        let evicted = |past: &&Past| matches!(past.fate, Fate::Evicted | Fate::Missing);
        let lost = twin.all.iter().filter(evicted);
        let has_lost = lost.into_iter().any(|past| past.entry.sequence > self.seen);
        assert_eq!(log.evicted_through() > self.seen, has_lost);
    }

    fn check_is_torn_off(&self, twin: &Twin) {
        let missing = self
            .torn
            .as_ref()
            .map_or(0, |(_, frame, offset)| frame.len() - offset);
        assert!(self.seen >= self.began_at && self.seen <= twin.head);
        assert_eq!(self.received.len() + missing, self.wanted.len());
        assert!(self.wanted.starts_with(&self.received));
    }
}
