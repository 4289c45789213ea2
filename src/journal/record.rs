//! [`Record`]: one change of the channels, and its bytes.
//!
//! ```text
//! record   := kind · basis · length of the rest · rest
//!  0 publish      options · channel · audience · number of events · event*
//!  1 publish all  options · audience · number of events · event*
//!  2 finish       channel · until, in ms since 1970 · flag · event?
//!  3 remove       channel
//!  4 kick         channel · id of a client
//!  5 probe        see probe.rs
//!  6 lost         after
//!  7 lost in      first number of a term · flag · channel?
//!  8 publish to   options · number of channels · (channel · flag · where it begins?)* · number of
//!                 events · event*
//!  9 first finish where it begins · as a finish
//! options  := their length · (tag · length · bytes)*
//!  1 the idempotency key, 16 bytes
//!  2 the digest of what is published with the key, 8 bytes
//!  3 nothing: the channel must have no event behind the basis
//!  5 until when the channel is finished behind the events, in ms since 1970
//!  6 the number behind which the log of the channel begins, if no record has made it yet
//! channel  := index of a name of the block, from 1 · or 0 · name, which is the next one
//! ```
//!
//! A reader skips options that it does not know, and kinds from 0x80 on. So a record of
//! such a kind must not name a channel for those behind it. Any other unknown kind ends the
//! reading. Only a publish that finishes its channel may have no events. The channels of a
//! `publish to` are in the order of their names, and its events have no ids of their own.
//!
//! The invariant to remember: *a record says all that decides what it does to the channels*.

use std::collections::HashMap;
use std::sync::Arc;

use super::bytes::{Damaged, Input, NUMBER_BYTES_MAX, ensure, put_number, put_sized, put_text};
use super::event::{
    EVENT_BYTES_MIN, audience, audience_bytes, event, event_bytes, put_audience, put_event,
};
use super::probe::Probe;
use crate::hub::audience::Audience;
use crate::hub::client::ClientId;
use crate::hub::idempotency::{KeyId, Keyed};
use crate::hub::names::check_name;
use crate::hub::ready::Ready;

/// A change that is proposed.
#[derive(Debug)]
pub(crate) struct Record {
    /// The newest number that had been applied when it was proposed.
    pub(crate) basis: u64,
    pub(crate) change: Change,
}

/// What changes.
#[derive(Debug)]
pub(crate) enum Change {
    /// Events of one channel. All are appended or none, with nothing between them.
    Publish {
        channel: Arc<str>,
        audience: Option<Arc<Audience>>,
        events: Vec<Ready>,
        options: Options,
    },
    /// Events that each of several channels receives, under the same numbers: all are
    /// appended in each of them, or none in any.
    PublishTo {
        /// In the order of their names, and each once.
        channels: Vec<Begun>,
        /// Without ids of their own.
        events: Vec<Ready>,
        keyed: Option<Keyed>,
    },
    /// Events of all channels.
    PublishAll {
        audience: Option<Arc<Audience>>,
        events: Vec<Ready>,
        options: Options,
    },
    /// A channel ends with this event, if there is one.
    Finish {
        channel: Arc<str>,
        /// When the channel is over, in milliseconds since 1970.
        until_ms: u64,
        last: Option<Ready>,
        /// As [`Options::begins_after`].
        begins_after: Option<u64>,
    },
    /// A channel is removed.
    Remove { channel: Arc<str> },
    /// Numbers between `after` and that of this record were given to events that may be
    /// lost.
    Lost {
        /// The newest number that survived.
        after: u64,
    },
    /// A client is disconnected.
    Kick { channel: Arc<str>, client: ClientId },
    /// A node says of itself.
    Probe(Box<Probe>),
    /// Events of a channel, or of any, that a node had applied are not in the log any more,
    /// because a term has begun. The basis is the newest number of them.
    LostIn {
        /// The first number of the term.
        term: u64,
        channel: Option<Arc<str>>,
    },
}

/// One of several channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) name: Arc<str>,
    /// The number behind which its log begins, if no record has made it yet.
    pub(crate) begins_after: Option<u64>,
}

/// What only some publishes have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// The idempotency key.
    pub(crate) keyed: Option<Keyed>,
    /// Whether the channel must have no event behind the record's basis.
    pub(crate) is_conditional: bool,
    /// When the channel is over, in milliseconds since 1970, if the publish finishes it.
    pub(crate) finish_until_ms: Option<u64>,
    /// The number behind which the log of the channel begins, if no record has made it yet.
    /// It may have events for all channels that are not kept for a channel that this record
    /// makes.
    pub(crate) begins_after: Option<u64>,
}

impl Options {
    /// Returns those of a publish that has at most a key.
    pub(crate) fn of_key(keyed: Option<Keyed>) -> Options {
        Options {
            keyed,
            ..Options::default()
        }
    }

    /// Returns at least the bytes that they take.
    fn bytes(&self) -> usize {
        const KEYED_BYTES: usize = 2 + 16 + 2 + 8;
        const NUMBER_BYTES: usize = 2 + NUMBER_BYTES_MAX;
        let sizes = [
            self.keyed.map(|_| KEYED_BYTES),
            self.is_conditional.then_some(2),
            self.finish_until_ms.map(|_| NUMBER_BYTES),
            self.begins_after.map(|_| NUMBER_BYTES),
        ];
        sizes.into_iter().flatten().sum()
    }
}

impl Change {
    /// Returns the number of events that it publishes.
    pub(crate) fn events(&self) -> usize {
        match self {
            Change::Publish { events, .. }
            | Change::PublishTo { events, .. }
            | Change::PublishAll { events, .. } => events.len(),
            _ => 0,
        }
    }

    /// Returns the number of entries that it makes in the logs of the channels that it names.
    pub(crate) fn entries(&self) -> usize {
        match self {
            Change::PublishTo { channels, .. } => channels.len() * self.events(),
            _ => self.events(),
        }
    }

    /// Returns its idempotency key.
    pub(crate) fn keyed(&self) -> Option<Keyed> {
        match self {
            Change::Publish { options, .. } | Change::PublishAll { options, .. } => options.keyed,
            Change::PublishTo { keyed, .. } => *keyed,
            _ => None,
        }
    }

    /// Returns whether a node of a cluster says it of itself, and no publisher waits for it.
    pub(crate) fn is_of_node(&self) -> bool {
        matches!(self, Change::Probe(_) | Change::LostIn { .. })
    }

    /// Returns how many numbers it takes.
    pub(crate) fn width(&self) -> u64 {
        // A publish of no events finishes its channel.
        self.events().max(1) as u64
    }
}

impl Record {
    /// Returns at least the bytes that it takes in a block.
    pub(crate) fn bytes(&self) -> usize {
        const HEAD_BYTES_MAX: usize = 64;
        let events = |events: &[Ready]| events.iter().map(event_bytes).sum::<usize>();
        let options = match &self.change {
            Change::Publish { options, .. } | Change::PublishAll { options, .. } => options.bytes(),
            Change::PublishTo { keyed, .. } => Options::of_key(*keyed).bytes(),
            _ => 0,
        };
        HEAD_BYTES_MAX
            + options
            + match &self.change {
                Change::Publish {
                    channel,
                    audience,
                    events: all,
                    ..
                } => channel.len() + audience_bytes(audience.as_deref()) + events(all),
                Change::PublishTo {
                    channels,
                    events: all,
                    ..
                } => {
                    let names = channels
                        .iter()
                        .map(|channel| channel.name.len() + 2 * NUMBER_BYTES_MAX + 1);
                    names.sum::<usize>() + events(all)
                }
                Change::PublishAll {
                    audience,
                    events: all,
                    ..
                } => audience_bytes(audience.as_deref()) + events(all),
                Change::Finish { channel, last, .. } => channel.len() + events(last.as_slice()),
                Change::Remove { channel } => channel.len(),
                Change::Lost { .. } => 0,
                Change::Kick { channel, client } => channel.len() + client_bytes(client),
                Change::Probe(probe) => probe.bytes(),
                Change::LostIn { channel, .. } => channel.as_ref().map_or(0, |name| name.len()),
            }
    }
}

/// Returns at least the bytes of the text of an id. A UUID has 36.
fn client_bytes(client: &ClientId) -> usize {
    client.text_bytes().max(36)
}

const PUBLISH: u8 = 0;
const PUBLISH_ALL: u8 = 1;
const FINISH: u8 = 2;
const REMOVE: u8 = 3;
const KICK: u8 = 4;
const PROBE: u8 = 5;
const LOST: u8 = 6;
const LOST_IN: u8 = 7;
const PUBLISH_TO: u8 = 8;
const FIRST_FINISH: u8 = 9;

/// The tags of options.
const KEY: u64 = 1;
const DIGEST: u64 = 2;
const CONDITIONAL: u64 = 3;
const FINISHES: u64 = 5;
const BEGINS_AFTER: u64 = 6;

/// A kind with this bit is skipped by a reader that does not know it.
const MAY_BE_SKIPPED: u8 = 0x80;

/// The least bytes of one of several channels: its index, and a flag.
const CHANNEL_BYTES_MIN: usize = 2;

/// The least bytes of a record: its kind, its basis and the length of the rest.
pub(super) const RECORD_BYTES_MIN: usize = 3;

/// Writes records, with the names of a block's channels.
#[derive(Default)]
pub(super) struct Writer {
    names: HashMap<Arc<str>, u64>,
    /// The record that is being written, without its head.
    rest: Vec<u8>,
}

impl Writer {
    pub(super) fn put(&mut self, out: &mut Vec<u8>, record: &Record) {
        self.rest.clear();
        let kind = match &record.change {
            Change::Publish {
                channel,
                audience,
                events,
                options,
            } => {
                self.put_options(options);
                self.put_channel(channel);
                put_audience(&mut self.rest, audience.as_deref());
                self.put_events(events);
                PUBLISH
            }
            Change::PublishTo {
                channels,
                events,
                keyed,
            } => {
                self.put_options(&Options::of_key(*keyed));
                put_number(&mut self.rest, channels.len() as u64);
                for Begun { name, begins_after } in channels {
                    self.put_channel(name);
                    self.rest.push(u8::from(begins_after.is_some()));
                    if let Some(after) = begins_after {
                        put_number(&mut self.rest, *after);
                    }
                }
                self.put_events(events);
                PUBLISH_TO
            }
            Change::PublishAll {
                audience,
                events,
                options,
            } => {
                self.put_options(options);
                put_audience(&mut self.rest, audience.as_deref());
                self.put_events(events);
                PUBLISH_ALL
            }
            Change::Finish {
                channel,
                until_ms,
                last,
                begins_after,
            } => {
                if let Some(after) = begins_after {
                    put_number(&mut self.rest, *after);
                }
                self.put_channel(channel);
                put_number(&mut self.rest, *until_ms);
                self.rest.push(u8::from(last.is_some()));
                if let Some(last) = last {
                    put_event(&mut self.rest, last);
                }
                match begins_after {
                    Some(_) => FIRST_FINISH,
                    None => FINISH,
                }
            }
            Change::Remove { channel } => {
                self.put_channel(channel);
                REMOVE
            }
            Change::Lost { after } => {
                put_number(&mut self.rest, *after);
                LOST
            }
            Change::Kick { channel, client } => {
                self.put_channel(channel);
                put_text(&mut self.rest, &client.to_string());
                KICK
            }
            Change::Probe(probe) => {
                probe.put(&mut self.rest);
                PROBE
            }
            Change::LostIn { term, channel } => {
                put_number(&mut self.rest, *term);
                self.rest.push(u8::from(channel.is_some()));
                if let Some(channel) = channel {
                    self.put_channel(channel);
                }
                LOST_IN
            }
        };
        out.push(kind);
        put_number(out, record.basis);
        put_number(out, self.rest.len() as u64);
        out.extend_from_slice(&self.rest);
    }

    fn put_options(&mut self, options: &Options) {
        let Options {
            keyed,
            is_conditional,
            finish_until_ms,
            begins_after,
        } = options;
        let mut all = Vec::new();
        if let Some(Keyed { id, digest }) = keyed {
            put_number(&mut all, KEY);
            put_sized(&mut all, &id.0);
            put_number(&mut all, DIGEST);
            put_sized(&mut all, &digest.to_le_bytes());
        }
        if *is_conditional {
            put_number(&mut all, CONDITIONAL);
            put_sized(&mut all, &[]);
        }
        for (tag, number) in [(FINISHES, finish_until_ms), (BEGINS_AFTER, begins_after)] {
            if let Some(number) = number {
                put_number(&mut all, tag);
                let mut content = Vec::new();
                put_number(&mut content, *number);
                put_sized(&mut all, &content);
            }
        }
        put_sized(&mut self.rest, &all);
    }

    fn put_channel(&mut self, name: &Arc<str>) {
        let next = self.names.len() as u64 + 1;
        match self.names.get(name) {
            Some(index) => put_number(&mut self.rest, *index),
            None => {
                put_number(&mut self.rest, 0);
                put_text(&mut self.rest, name);
                self.names.insert(name.clone(), next);
            }
        }
    }

    fn put_events(&mut self, events: &[Ready]) {
        put_number(&mut self.rest, events.len() as u64);
        for event in events {
            put_event(&mut self.rest, event);
        }
    }
}

/// Why a record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordError {
    Damaged(Damaged),
    /// It is of a kind that this release does not know, and must not skip.
    Kind(u8),
}

impl From<Damaged> for RecordError {
    fn from(damaged: Damaged) -> RecordError {
        RecordError::Damaged(damaged)
    }
}

/// Reads records, with the names of a block's channels.
pub(super) struct Reader<'a> {
    names: Vec<Arc<str>>,
    /// What the ids of events begin with.
    id_prefix: &'a str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(id_prefix: &'a str) -> Reader<'a> {
        Reader {
            names: Vec::new(),
            id_prefix,
        }
    }

    /// Reads a record; `None` if it was skipped.
    pub(super) fn record(&mut self, input: &mut Input<'_>) -> Result<Option<Record>, RecordError> {
        let kind = input.byte()?;
        let basis = input.number()?;
        let mut rest = Input(input.sized()?);
        let change = match kind {
            PUBLISH => {
                let options = options(&mut rest)?;
                let channel = self.channel(&mut rest)?;
                let (audience, events) = (audience(&mut rest)?, self.events(&mut rest)?);
                let has_some = !events.is_empty() || options.finish_until_ms.is_some();
                ensure(has_some, "a publish has no event")?;
                Change::Publish {
                    channel,
                    audience,
                    events,
                    options,
                }
            }
            PUBLISH_TO => {
                let keyed = options(&mut rest)?.keyed;
                let count = rest.count(CHANNEL_BYTES_MIN)?;
                let channels = (0..count).map(|_| self.begun(&mut rest));
                let channels = channels.collect::<Result<Vec<_>, _>>()?;
                let events = self.events(&mut rest)?;
                let are_distinct = channels.is_sorted_by(|one, next| one.name < next.name);
                let is_whole = are_distinct && !channels.is_empty() && !events.is_empty();
                ensure(is_whole, "a publish has no channel, one twice, or no event")?;
                let have_ids = events.iter().any(|ready| ready.own_id().is_some());
                ensure(!have_ids, "an event of several channels has an id")?;
                Change::PublishTo {
                    channels,
                    events,
                    keyed,
                }
            }
            PUBLISH_ALL => {
                let options = options(&mut rest)?;
                let (audience, events) = (audience(&mut rest)?, self.events(&mut rest)?);
                ensure(!events.is_empty(), "a publish has no event")?;
                Change::PublishAll {
                    audience,
                    events,
                    options,
                }
            }
            FINISH | FIRST_FINISH => Change::Finish {
                begins_after: match kind {
                    FIRST_FINISH => Some(rest.number()?),
                    _ => None,
                },
                channel: self.channel(&mut rest)?,
                until_ms: rest.number()?,
                last: match rest.flag()? {
                    true => Some(event(&mut rest, self.id_prefix)?),
                    false => None,
                },
            },
            REMOVE => Change::Remove {
                channel: self.channel(&mut rest)?,
            },
            LOST => Change::Lost {
                after: rest.number()?,
            },
            KICK => Change::Kick {
                channel: self.channel(&mut rest)?,
                client: ClientId::new(rest.text()?)
                    .map_err(|_| Damaged("no client has such an id"))?,
            },
            PROBE => Change::Probe(Box::new(Probe::read(&mut rest)?)),
            LOST_IN => Change::LostIn {
                term: rest.number()?,
                channel: match rest.flag()? {
                    true => Some(self.channel(&mut rest)?),
                    false => None,
                },
            },
            kind if kind & MAY_BE_SKIPPED != 0 => return Ok(None),
            kind => return Err(RecordError::Kind(kind)),
        };
        rest.end()?;
        Ok(Some(Record { basis, change }))
    }

    fn channel(&mut self, input: &mut Input<'_>) -> Result<Arc<str>, Damaged> {
        let index = usize::try_from(input.number()?).unwrap_or(usize::MAX);
        if let Some(index) = index.checked_sub(1) {
            let name = self.names.get(index);
            return name.cloned().ok_or(Damaged("a channel has no name"));
        }
        let name = input.text()?;
        ensure(check_name(name).is_ok(), "no channel has such a name")?;
        let name: Arc<str> = name.into();
        self.names.push(name.clone());
        Ok(name)
    }

    fn begun(&mut self, input: &mut Input<'_>) -> Result<Begun, Damaged> {
        Ok(Begun {
            name: self.channel(input)?,
            begins_after: match input.flag()? {
                true => Some(input.number()?),
                false => None,
            },
        })
    }

    fn events(&self, input: &mut Input<'_>) -> Result<Vec<Ready>, Damaged> {
        let count = input.count(EVENT_BYTES_MIN)?;
        let mut events = Vec::with_capacity(count);
        for _ in 0..count {
            events.push(event(input, self.id_prefix)?);
        }
        Ok(events)
    }
}

/// Reads the options of a publish. Those with other tags are skipped.
fn options(input: &mut Input<'_>) -> Result<Options, Damaged> {
    let mut rest = Input(input.sized()?);
    let mut options = Options::default();
    let (mut key, mut digest) = (None, None);
    while rest.len() > 0 {
        let tag = rest.number()?;
        let mut content = Input(rest.sized()?);
        match tag {
            KEY => key = Some(KeyId(content.array()?)),
            DIGEST => digest = Some(u64::from_le_bytes(content.array()?)),
            CONDITIONAL => options.is_conditional = true,
            FINISHES => options.finish_until_ms = Some(content.number()?),
            BEGINS_AFTER => options.begins_after = Some(content.number()?),
            _ => continue,
        }
        content.end()?;
    }
    ensure(key.is_some() == digest.is_some(), "a key has no digest")?;
    let keyed = key.zip(digest).map(|(id, digest)| Keyed { id, digest });
    Ok(Options { keyed, ..options })
}
