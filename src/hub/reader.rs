//! Reading a channel's log in the program itself: a cursor without a client.
//!
//! The log is locked for a slice of entries at a time, which are copied by counting a
//! reference to their frames. They are decoded when the lock is open, one for each
//! call of [`Reader::next`].

use std::error::Error;
use std::fmt;
use std::iter::FusedIterator;
use std::time::SystemTime;
use std::vec::IntoIter;

use super::channel::Channel;
use super::client::{ClientId, ConnectionId};
use super::entry::Entry;
use super::gap::{GAP_NAME, Gap, GapReason};
use super::id::EventId;
use super::join::{Join, Start};
use super::log::{Evicted, Log};
use super::merged::Merged;
use crate::event::Event;

/// Entries that one locked section looks at.
const SLICE: usize = 256;
/// Bytes of frames that a reader holds before it has returned their events, or one
/// event: so many may be freed by the log meanwhile.
const SLICE_BYTES: usize = 256 << 10;

/// An event as a channel's log holds it; see [`Channel::read`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredEvent {
    /// The id of the event, as clients see it.
    pub id: EventId,
    /// The time when it was published.
    pub at: SystemTime,
    /// The event as it goes over the wire: line ends in its data are LF. The key is
    /// there only in a channel that [conflates](crate::LagPolicy::Conflate), and the
    /// id only if the publisher has set it.
    pub event: Event<'static>,
}

/// Why a [`Reader`] or [`Events`](crate::Events) returns no event. It can be read further,
/// except after [`Closed`](Self::Closed) and [`Full`](Self::Full).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// Events are missing before the next one.
    Gap(Gap),
    /// The channel was closed or removed.
    Closed,
    /// The channel has as many clients as it may have, and
    /// [`Channel::events`] is one more.
    Full,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Gap(gap) => {
                let reason = gap.reason;
                write!(f, "the channel no longer holds all events ({reason}). ")?;
                f.write_str("Read the current state elsewhere, or read on for the rest")
            }
            ReadError::Full => {
                f.write_str("the channel has reached its limit of clients. Retry later")
            }
            ReadError::Closed => f.write_str(
                "the channel was closed. Get it from the manager again to open a new one",
            ),
        }
    }
}

impl Error for ReadError {}

impl Channel {
    /// Returns a reader of the events that the channel holds now, from `start` on: for
    /// an answer without a stream, or for the program's own use.
    ///
    /// The reader is an iterator, oldest event first, which ends at the newest event at
    /// the time of this call. To continue later, read from
    /// `Start::After(reader.position().to_string())`. It counts as a client without
    /// metadata and without an id: events for other clients are left out. Missing
    /// events are an error in the place where they are missing, so collecting into a
    /// `Result` gives all events or none; to accept a trimmed history, use
    /// [`Iterator::flatten`].
    ///
    /// [`Start::Live`] reads nothing, but the newest event of each key in a channel that
    /// [conflates](crate::LagPolicy::Conflate).
    ///
    /// This call and [`next`](Reader::next) lock the channel for at most 256 events at a
    /// time and wait for no other thread's work. `next` copies the data of one event. A
    /// reader keeps at most 256 KiB of events in memory that the channel has evicted
    /// meanwhile, or one event.
    ///
    /// ```
    /// use pushwheel::{ChannelManager, ChannelOptions, Event, History, ReadError, Start};
    ///
    /// let channels = ChannelManager::new();
    /// let options = || ChannelOptions::new().history(History::events(1_000));
    /// let chat = channels.get_or_create_with("chat", options)?;
    /// for word in ["It", "works"] {
    ///     chat.broadcast(Event::new("token", word))?;
    /// }
    ///
    /// let stored = chat.read(Start::Earliest).collect::<Result<Vec<_>, ReadError>>()?;
    /// let text: Vec<&str> = stored.iter().map(|stored| stored.event.data()).collect();
    /// assert_eq!(text, ["It", "works"]);
    ///
    /// // Page by page:
    /// let mut reader = chat.read(Start::Earliest);
    /// let page: Vec<_> = reader.by_ref().flatten().take(1).collect();
    /// let next = Start::After(reader.position().to_string());
    /// assert_eq!(chat.read(next).flatten().next().map(|stored| stored.id), Some(chat.position()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(&self, start: Start) -> Reader {
        Reader::new(self.clone(), &start)
    }
}

/// Reads the events of a channel; see [`Channel::read`].
#[derive(Debug)]
#[must_use = "a reader is an iterator, which does nothing until it is used"]
pub struct Reader {
    channel: Channel,
    /// What the next entries are read from.
    cursor: Cursor,
    /// The entries that were copied and are to be returned.
    slice: IntoIter<Entry>,
    /// Everything up to here was returned.
    returned: u64,
    error: Option<ReadError>,
}

/// A place in a log. As for a client: see `Span` and `ChannelReader`.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    seen: u64,
    through: u64,
    keyed_through: u64,
    forgiven: Evicted,
}

impl Cursor {
    /// Returns whether the log has lost entries that this has yet to read.
    fn has_lost(&self, log: &Log) -> bool {
        let history = self.seen.max(self.keyed_through).max(self.forgiven.history);
        let keyed = self.seen.max(self.forgiven.keyed);
        log.evicted().is_loss(history, keyed)
    }

    /// Continues behind lost entries: with the oldest that the log holds, and in a
    /// channel that conflates with the whole state.
    fn skip_lost(&mut self, log: &Log, conflates: bool) {
        let evicted = log.evicted();
        let position = self.seen.max(self.keyed_through);
        (self.seen, self.keyed_through) = match conflates {
            true => (evicted.keyed, position),
            false => (position.max(evicted.history), 0),
        };
        self.forgiven = evicted;
    }
}

/// Returns whether an entry is for a client without id and metadata.
fn admits(entry: &Entry) -> bool {
    let nameless = ClientId::lookup("");
    let audience = entry.audience();
    audience.is_none_or(|audience| audience.admits(&nameless, None))
}

impl Reader {
    fn new(channel: Channel, start: &Start) -> Reader {
        let join = Join {
            channels: &[channel.key()],
            id: ClientId::lookup(""),
            has_generated_id: false,
            connection: ConnectionId {
                token: 0,
                reactor: 0,
            },
            address: ([0, 0, 0, 0], 0).into(),
            extra: None,
            start,
        };
        let joined = channel.hub().start_of(&join);
        let mut cursor = Cursor {
            seen: joined.seen,
            through: joined.now,
            keyed_through: joined.keyed_through,
            forgiven: joined
                .readers
                .first()
                .map(|r| r.forgiven)
                .unwrap_or_default(),
        };
        // A filter chooses among connected clients, and never meant this reader.
        let gap = joined.gap.filter(|gap| gap.reason != GapReason::Audience);
        if gap.is_none() && joined.conflates && !matches!(start, Start::Live) {
            // Without a gap, the state does not have to be read again.
            cursor.seen = cursor.seen.max(cursor.keyed_through);
            cursor.keyed_through = 0;
        }
        Reader {
            returned: cursor.seen,
            error: gap.map(ReadError::Gap),
            slice: Vec::new().into_iter(),
            cursor,
            channel,
        }
    }

    /// Returns the id after which reading continues with
    /// [`Start::After`]: that of the last event that was returned, or
    /// of the newest event when all were.
    ///
    /// In a channel that conflates, use it only when the iterator has ended. Before, the
    /// rest may begin with a gap and the whole state.
    #[must_use]
    pub fn position(&self) -> EventId {
        self.channel.hub().id_of(self.returned)
    }

    /// Copies the next entries from the log.
    fn fill(&mut self) {
        let (key, hub) = (self.channel.key(), self.channel.hub());
        let state = hub.lock();
        let channel = state.get(key).filter(|channel| !channel.life.is_closing());
        let Some(channel) = channel else {
            self.error = Some(ReadError::Closed);
            self.cursor.seen = self.cursor.through;
            return;
        };
        let log = &channel.log;
        if self.cursor.has_lost(log) {
            let requested = hub.id_of(self.cursor.seen);
            self.cursor.skip_lost(log, channel.options.conflates());
            let merged = Merged::new(&state, std::slice::from_ref(&key));
            let mut gap = merged.gap(None, GapReason::Evicted, admits, &hub.ids);
            drop(state);
            gap.requested = Some(requested.text());
            self.error = Some(ReadError::Gap(gap));
            return;
        }
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let mut reached = self.cursor.through;
        for (looks, entry) in log.after(self.cursor.seen).enumerate() {
            if entry.sequence > self.cursor.through {
                break;
            }
            let is_wanted = entry.has_key() || entry.sequence > self.cursor.keyed_through;
            let is_full = looks == SLICE || (bytes > 0 && bytes + entry.frame.len() > SLICE_BYTES);
            if is_full {
                reached = entry.sequence - 1;
                break;
            }
            if is_wanted && admits(entry) {
                bytes += entry.frame.len();
                entries.push(entry.clone());
            }
        }
        drop(state);
        self.cursor.seen = reached;
        self.slice = entries.into_iter();
    }
}

impl Iterator for Reader {
    type Item = Result<StoredEvent, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.slice.next() {
                self.returned = entry.sequence;
                let stored = self.stored(&entry);
                if stored.event.name() == Some(GAP_NAME) {
                    return Some(Err(ReadError::Gap(Gap {
                        requested: None,
                        oldest: None,
                        newest: stored.id,
                        reason: GapReason::Lost,
                    })));
                }
                return Some(Ok(stored));
            }
            // Entries for other clients may follow the last one that was returned.
            self.returned = self.returned.max(self.cursor.seen);
            if let Some(error) = self.error.take() {
                return Some(Err(error));
            }
            if self.cursor.seen >= self.cursor.through {
                return None;
            }
            self.fill();
        }
    }
}

impl FusedIterator for Reader {}

impl Reader {
    fn stored(&self, entry: &Entry) -> StoredEvent {
        let hub = self.channel.hub();
        let mut event = entry.frame.decode();
        if let Some(id) = entry.own_id() {
            event = event.with_id(id.to_owned());
        }
        if let Some(key) = entry.key() {
            event = event.with_key(key.to_string());
        }
        StoredEvent {
            id: hub.ids.of_entry(entry),
            at: hub.clock.wall(entry.at_ms),
            event,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChannelManager, ChannelOptions, Condition, History, LagPolicy, PublishError};
    use std::time::Duration;

    fn channel(options: ChannelOptions) -> Channel {
        let manager = ChannelManager::builder().defaults(options);
        let manager = manager.republish_window(Duration::ZERO).build();
        manager.get_or_create("news").unwrap()
    }

    fn with_history(events: usize) -> Channel {
        channel(ChannelOptions::new().history(History::events(events)))
    }

    fn publish(channel: &Channel, data: &[&str]) {
        for data in data {
            channel.broadcast(Event::message(*data)).unwrap();
        }
    }

    /// Returns the data of the events, and the reasons of gaps in brackets.
    fn rest(reader: &mut Reader) -> Vec<String> {
        let shown = reader.map(|item| match item {
            Ok(stored) => stored.event.data().to_owned(),
            Err(ReadError::Gap(gap)) => format!("[{}]", gap.reason),
            Err(error) => format!("[{error:?}]").to_lowercase(),
        });
        shown.collect()
    }

    fn read(channel: &Channel, start: Start) -> Vec<String> {
        rest(&mut channel.read(start))
    }

    fn after(id: impl fmt::Display) -> Start {
        Start::After(id.to_string())
    }

    #[test]
    fn each_start_reads_what_a_stream_begins_with() {
        let channel = with_history(100);
        assert_eq!(read(&channel, Start::Earliest), [""; 0]);
        publish(&channel, &["a", "b", "c"]);
        assert_eq!(read(&channel, Start::Earliest), ["a", "b", "c"]);
        assert_eq!(read(&channel, Start::Last(2)), ["b", "c"]);
        assert_eq!(read(&channel, Start::Live), [""; 0]);
        let first = channel.read(Start::Earliest).next().unwrap().unwrap();
        assert_eq!(read(&channel, after(first.id)), ["b", "c"]);
        assert_eq!(
            read(&channel, after("nonsense")),
            ["[unknown]", "a", "b", "c"]
        );
        channel.finish(None).unwrap();
        assert_eq!(read(&channel, Start::Earliest), ["a", "b", "c"]);
    }

    #[test]
    fn a_reader_ends_where_it_began_and_its_position_continues() {
        let channel = with_history(2_000);
        let mut reader = channel.read(Start::Earliest);
        let mut all: Vec<String> = Vec::new();
        for round in 0..3 {
            let published: Vec<String> = (0..600).map(|n| format!("{round}.{n}")).collect();
            publish(
                &channel,
                &published.iter().map(String::as_str).collect::<Vec<_>>(),
            );
            assert_eq!(rest(&mut reader), [""; 0], "published after it was made");
            reader = channel.read(after(reader.position()));
            all.extend(rest(&mut reader));
            assert!(all.ends_with(&published));
        }
        assert_eq!(all.len(), 1_800);
        // Page by page, and across the slices.
        let (mut start, mut pages) = (Start::Earliest, Vec::new());
        loop {
            let mut reader = channel.read(start);
            let page: Vec<_> = reader.by_ref().take(7).map(Result::unwrap).collect();
            if page.is_empty() {
                break;
            }
            pages.extend(page.iter().map(|stored| stored.event.data().to_owned()));
            start = after(reader.position());
        }
        assert_eq!(pages, all);
    }

    #[test]
    fn large_events_are_read_one_slice_after_the_other() {
        let options = ChannelOptions::new().history(History::events(100).bytes_max(1 << 30));
        let channel = channel(options.event_bytes_max(1 << 20));
        let large = "x".repeat(SLICE_BYTES - 100);
        publish(
            &channel,
            &[&large, "a", &large, &"y".repeat(2 * SLICE_BYTES), "b"],
        );
        let mut reader = channel.read(Start::Earliest);
        let lengths: Vec<usize> = (0..5)
            .map(|_| {
                let stored = reader.next().unwrap().unwrap();
                assert!(
                    reader.slice.as_slice().len() < 2,
                    "more than a slice is held"
                );
                stored.event.data().len()
            })
            .collect();
        assert_eq!(lengths, [large.len(), 1, large.len(), 2 * SLICE_BYTES, 1]);
        assert_eq!(reader.next(), None);
    }

    #[test]
    fn missing_events_are_an_error_in_their_place() {
        let channel = with_history(300);
        let numbers = |range: std::ops::Range<usize>| {
            let numbers = range.map(|n| n.to_string()).collect::<Vec<_>>();
            publish(
                &channel,
                &numbers.iter().map(String::as_str).collect::<Vec<_>>(),
            );
            numbers
        };
        numbers(0..301);
        let start = channel.read(Start::Earliest).collect::<Result<Vec<_>, _>>();
        let Err(ReadError::Gap(gap)) = start else {
            panic!("the first event is gone");
        };
        assert_eq!(
            (gap.requested.as_deref(), gap.reason),
            (Some("earliest"), GapReason::Evicted)
        );
        let oldest = channel.read(Start::Earliest).flatten().next().unwrap();
        assert_eq!(gap.oldest, Some(oldest.id));

        // Some are evicted while they are read.
        let mut reader = channel.read(Start::Last(300));
        let mut shown: Vec<String> = reader
            .by_ref()
            .take(SLICE)
            .map(|item| item.unwrap().event.data().to_owned())
            .collect();
        let position = reader.position();
        let newer = numbers(301..591);
        shown.extend(rest(&mut reader));
        let mut expected: Vec<String> = (1..=SLICE).map(|n| n.to_string()).collect();
        expected.push("[evicted]".to_owned());
        expected.extend((291..301).map(|n| n.to_string()));
        assert_eq!(shown, expected);
        assert_eq!(read(&channel, after(reader.position())), newer);
        assert_eq!(read(&channel, after(position))[0], "[evicted]");
    }

    #[test]
    fn events_for_other_clients_are_left_out_without_a_gap() {
        let channel = with_history(100);
        publish(&channel, &["for all"]);
        let first = channel.position();
        channel.send("ann", Event::message("for ann")).unwrap();
        channel
            .broadcast_to(|_| true, Event::message("chosen"))
            .unwrap();
        let admins = [Condition::new("role", "admin")];
        channel
            .broadcast_where(&admins, Event::message("for admins"))
            .unwrap();
        channel
            .broadcast_except("ann", Event::message("not for ann"))
            .unwrap();
        assert_eq!(read(&channel, Start::Earliest), ["for all", "not for ann"]);
        assert_eq!(read(&channel, after(first)), ["not for ann"]);
        assert_eq!(read(&channel, Start::Last(1)), ["not for ann"]);
    }

    #[test]
    fn a_conflating_channel_is_read_as_its_state() {
        let options = ChannelOptions::new().history(History::events(3));
        let channel = channel(options.lag_policy(LagPolicy::Conflate));
        let price = |key: &'static str, data: &'static str| {
            channel
                .broadcast(Event::message(data).with_key(key))
                .unwrap();
        };
        for n in 0..600 {
            let event = Event::message(n.to_string()).with_key(n.to_string());
            channel.broadcast(event).unwrap();
        }
        publish(&channel, &["x", "y", "z", "w"]);
        price("0", "newest");
        let mut reader = channel.read(Start::Live);
        let state = rest(&mut reader);
        assert_eq!(state.len(), 600);
        assert_eq!(
            (&*state[0], &*state[598], &*state[599]),
            ("1", "599", "newest")
        );
        assert_eq!(read(&channel, after(reader.position())), [""; 0]);
        price("1", "newer");
        let changed = channel.read(after(reader.position()));
        let changed: Vec<_> = changed.map(Result::unwrap).collect();
        assert_eq!(changed.len(), 1);
        assert_eq!(
            (changed[0].event.key(), changed[0].event.data()),
            (Some("1"), "newer")
        );
        // The whole state and the history, of which one event is missing.
        let all = read(&channel, Start::Earliest);
        assert_eq!((&*all[0], all.len()), ("[evicted]", 1 + 600 + 3));
        // A filter is no reason to read the state again.
        let position = channel.position();
        channel
            .broadcast_to(|_| true, Event::message("chosen"))
            .unwrap();
        price("2", "new");
        assert_eq!(read(&channel, after(position)), ["new"]);
    }

    #[test]
    fn a_stored_event_is_the_one_that_was_published() {
        let channel = with_history(100);
        let event = Event::new("price", "1\n2").with_id("own");
        let event = event.with_retry(Duration::from_millis(1_500));
        let published = channel.broadcast(&event).unwrap();
        let stored = channel.read(Start::Earliest).next().unwrap().unwrap();
        assert_eq!(
            (&stored.id, &stored.event),
            (published.id.as_ref().unwrap(), &event)
        );
        publish(&channel, &["next"]);
        assert_eq!(read(&channel, after("own")), ["next"]);
        let json = serde_json::to_value(&stored).unwrap();
        let at_ms = json["at_ms"].as_u64().unwrap();
        let expected = serde_json::json!({
            "id": "own", "event": "price", "data": "1\n2", "key": null, "retry": 1500,
            "at_ms": at_ms,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_channel_that_is_closed_ends_its_readers_with_an_error() {
        let channel = with_history(1_000);
        publish(&channel, &["x"; 2 * SLICE]);
        let mut reader = channel.read(Start::Earliest);
        assert!(reader.next().is_some_and(|item| item.is_ok()));
        channel.close();
        let shown = rest(&mut reader);
        assert_eq!((shown.len(), &*shown[SLICE - 1]), (SLICE, "[closed]"));
        assert_eq!(reader.next(), None);
        assert_eq!(read(&channel, Start::Earliest), ["[closed]"]);
        let closed = channel.broadcast(Event::message("x")).unwrap_err();
        assert_eq!(closed, PublishError::Closed);
    }

    #[test]
    fn a_reader_can_move_to_another_thread() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Reader>();
    }
}
